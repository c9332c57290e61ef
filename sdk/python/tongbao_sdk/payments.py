"""Payments and refunds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Unpack, cast

from tongbao_sdk.models import CaptureMode, Card, Channel, Method, PaymentStatus, RefundStatus
from tongbao_sdk.replies import (
    CardBalances,
    Payment,
    Receipt,
    Refund,
    RefundRedirection,
)
from tongbao_sdk.transport import Once, Transport, path_of


class Payments:
    """Collect money."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        *,
        merchant_order_no: str,
        amount: int,
        subject: str,
        method: Method,
        currency: str = "CNY",
        expires_in_s: int | None = None,
        metadata: dict[str, str] | None = None,
        capture: CaptureMode | None = None,
        capture_within_s: int | None = None,
        terminal_id: str | None = None,
        **once: Unpack[Once],
    ) -> Payment:
        """Collect ``amount`` minor units; what comes back says how far it got.

        The order number is yours and unique for ever: the same number with the same content is the
        payment it already made. With ``capture`` manual the money is only set aside at first.

        Raises:
            Refused, Unanswered
        """
        body = {
            "merchant_order_no": merchant_order_no,
            "amount": amount,
            "currency": currency,
            "subject": subject,
            "method": method,
            "expires_in_s": expires_in_s,
            "metadata": metadata,
            "capture": capture,
            "capture_within_s": capture_within_s,
            "terminal_id": terminal_id,
        }
        return cast("Payment", self._transport.post(path_of("payments"), body, **once))

    def card_balances(self, card: Card) -> CardBalances:
        """Ask a card's issuer what the card has that a terminal has just read.

        Raises:
            Refused, Unanswered
        """
        return cast("CardBalances", self._transport.post(path_of("card_balances"), {"card": card}))

    def get(self, payment_id: str) -> Payment:
        """Return one payment."""
        return cast("Payment", self._transport.get(path_of("payments", payment_id)))

    def find(self, merchant_order_no: str) -> Payment | None:
        """Return the payment with this order number, or None."""
        page = self._transport.get(path_of("payments"), merchant_order_no=merchant_order_no)
        return cast("Payment", page["items"][0]) if page["items"] else None

    def list(
        self,
        *,
        status: PaymentStatus | None = None,
        channel: Channel | None = None,
        created_from: str | None = None,
        created_to: str | None = None,
        metadata: dict[str, str] | None = None,
        limit: int = 100,
    ) -> Iterator[Payment]:
        """Yield payments, newest first, fetching ``limit`` at a time.

        ``created_from`` is included, ``created_to`` is not; ``metadata`` is what a payment's own
        must contain.
        """
        return self._transport.pages(
            path_of("payments"),
            status=status,
            channel=channel,
            created_from=created_from,
            created_to=created_to,
            metadata=metadata,
            limit=limit,
        )

    def receipt(self, payment_id: str) -> Receipt:
        """Return the proof that the payment's postings are in the platform's book, for ever.

        Raises:
            Refused: ``ledger.receipt_not_ready`` until the next checkpoint, a minute or so.
        """
        return cast("Receipt", self._transport.get(path_of("payments", payment_id, "receipt")))

    def close(self, payment_id: str, **once: Unpack[Once]) -> Payment:
        """Call an unpaid payment off; a customer who paid first wins.

        Raises:
            Refused, Unanswered
        """
        path = path_of("payments", payment_id, "close")
        return cast("Payment", self._transport.post(path, **once))

    def capture(
        self,
        payment_id: str,
        *,
        amount: int | None = None,
        currency: str | None = None,
        **once: Unpack[Once],
    ) -> Payment:
        """Take what was set aside, or ``amount`` of it, once; the rest is freed.

        Raises:
            Refused, Unanswered
        """
        body = {"amount": amount, "currency": currency}
        path = path_of("payments", payment_id, "capture")
        return cast("Payment", self._transport.post(path, body, **once))

    def void(self, payment_id: str, **once: Unpack[Once]) -> Payment:
        """Let go what was set aside; nothing is collected.

        Raises:
            Refused, Unanswered
        """
        path = path_of("payments", payment_id, "void")
        return cast("Payment", self._transport.post(path, **once))

    def refund(
        self,
        payment_id: str,
        *,
        merchant_refund_no: str,
        amount: int,
        currency: str = "CNY",
        reason: str = "",
        **once: Unpack[Once],
    ) -> Refund:
        """Give money back, in part or in full.

        Raises:
            Refused, Unanswered
        """
        body = {
            "merchant_refund_no": merchant_refund_no,
            "amount": amount,
            "currency": currency,
            "reason": reason,
        }
        path = path_of("payments", payment_id, "refunds")
        return cast("Refund", self._transport.post(path, body, **once))


class Refunds:
    """Read refunds, and send on those that are stuck."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, refund_id: str) -> Refund:
        """Return one refund."""
        return cast("Refund", self._transport.get(path_of("refunds", refund_id)))

    def send_on(
        self,
        refund_id: str,
        *,
        target: Literal["customer_card", "merchant_account"],
        bank: str = "",
        account_number: str = "",
        holder: str = "",
        **once: Unpack[Once],
    ) -> RefundRedirection:
        """Send a refund somewhere else that the customer's card or account could not take.

        Raises:
            Refused, Unanswered
        """
        body = {
            "target": target,
            "bank": bank,
            "account_number": account_number,
            "holder": holder,
        }
        path = path_of("refunds", refund_id, "redirection")
        return cast("RefundRedirection", self._transport.post(path, body, **once))

    def sent_on(self, refund_id: str) -> RefundRedirection:
        """Return where a refund was sent on to."""
        found = self._transport.get(path_of("refunds", refund_id, "redirection"))
        return cast("RefundRedirection", found)

    def find(self, merchant_refund_no: str) -> Refund | None:
        """Return the refund with this number of yours, or None."""
        page = self._transport.get(path_of("refunds"), merchant_refund_no=merchant_refund_no)
        return cast("Refund", page["items"][0]) if page["items"] else None

    def list(
        self,
        *,
        payment_id: str | None = None,
        status: RefundStatus | None = None,
        merchant_refund_no: str | None = None,
        limit: int = 100,
    ) -> Iterator[Refund]:
        """Yield refunds, newest first, fetching ``limit`` at a time."""
        return self._transport.pages(
            path_of("refunds"),
            payment_id=payment_id,
            status=status,
            merchant_refund_no=merchant_refund_no,
            limit=limit,
        )
