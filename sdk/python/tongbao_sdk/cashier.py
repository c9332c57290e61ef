"""Checkouts, which customers pay on the platform's page, and code plates, which open one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict, Unpack, cast

from tongbao_sdk.models import Channel
from tongbao_sdk.replies import (
    Checkout,
    Plate,
)
from tongbao_sdk.transport import Once, Transport, path_of


class EmvDetails(TypedDict):
    """What an EMV code says of a merchant: ISO 18245 category, name and city in Latin letters."""

    category: str
    name: str
    city: str


class Checkouts:
    """Have a customer pay on a page."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        *,
        merchant_order_no: str,
        amount: int,
        subject: str,
        currency: str = "CNY",
        channels: list[Channel] | None = None,
        return_url: str | None = None,
        expires_in_s: int | None = None,
        metadata: dict[str, str] | None = None,
        terminal_id: str | None = None,
        **once: Unpack[Once],
    ) -> Checkout:
        """Open a checkout for ``amount`` minor units; send the customer to its ``url``.

        The order number is yours and unique for ever. That the customer came back to
        ``return_url`` says nothing about the money: the webhook does.

        Raises:
            Refused, Unanswered
        """
        body = {
            "merchant_order_no": merchant_order_no,
            "amount": amount,
            "currency": currency,
            "subject": subject,
            "channels": channels or [],
            "return_url": return_url,
            "expires_in_s": expires_in_s,
            "metadata": metadata,
            "terminal_id": terminal_id,
        }
        return cast("Checkout", self._transport.post(path_of("checkouts"), body, **once))

    def get(self, checkout_id: str) -> Checkout:
        """Return one checkout."""
        return cast("Checkout", self._transport.get(path_of("checkouts", checkout_id)))

    def list(self, *, merchant_order_no: str | None = None, limit: int = 100) -> Iterator[Checkout]:
        """Yield checkouts, newest first, fetching ``limit`` at a time."""
        return self._transport.pages(
            path_of("checkouts"), merchant_order_no=merchant_order_no, limit=limit
        )

    def close(self, checkout_id: str) -> Checkout:
        """Call a checkout off; a customer who paid first wins. Safe to repeat.

        Raises:
            Refused, Unanswered
        """
        return cast("Checkout", self._transport.post(path_of("checkouts", checkout_id, "close")))


class Plates:
    """Put codes on counters."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        *,
        name: str,
        subject: str,
        amount: int | None = None,
        currency: str = "CNY",
        emv: EmvDetails | None = None,
        **once: Unpack[Once],
    ) -> Plate:
        """Make a plate; print ``image_url``. Without ``amount`` the customer enters it.

        Raises:
            Refused, Unanswered
        """
        body = {
            "name": name,
            "subject": subject,
            "amount": amount,
            "currency": currency,
            "emv": emv,
        }
        return cast("Plate", self._transport.post(path_of("plates"), body, **once))

    def get(self, plate_id: str) -> Plate:
        """Return one plate."""
        return cast("Plate", self._transport.get(path_of("plates", plate_id)))

    def list(self, *, limit: int = 100) -> Iterator[Plate]:
        """Yield plates, newest first, revoked ones included, fetching ``limit`` at a time."""
        return self._transport.pages(path_of("plates"), limit=limit)

    def revoke(self, plate_id: str) -> Plate:
        """Give a plate up for good: its code opens nothing any more. Safe to repeat.

        Raises:
            Refused, Unanswered
        """
        return cast("Plate", self._transport.post(path_of("plates", plate_id, "revoke")))
