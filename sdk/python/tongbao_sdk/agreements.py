"""Agreements: money is taken without asking each time, as the customer signed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Unpack, cast

from tongbao_sdk.models import AgreementStatus, Channel, Period
from tongbao_sdk.replies import (
    Agreement,
    Announcement,
)
from tongbao_sdk.transport import Once, Transport, path_of


class Agreements:
    """Offer agreements and end them; collect under one with the payment method ``agreement``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        *,
        merchant_agreement_no: str,
        channel: Channel,
        plan: str,
        display_name: str,
        payer_id: str | None = None,
        return_url: str | None = None,
        currency: str = "CNY",
        limit_each: int | None = None,
        period: Period | None = None,
        limit_per_period: int | None = None,
        limit_total: int | None = None,
        payments_max: int | None = None,
        expires_in_s: int | None = None,
        signs_in: Literal["page", "app", "mini_program"] = "page",
        **once: Unpack[Once],
    ) -> Agreement:
        """Offer an agreement; ``next_action`` says where the customer signs it.

        ``signs_in`` an app or a mini-program is for WeChat Pay and Alipay.

        Raises:
            Refused, Unanswered
        """
        body = {
            "merchant_agreement_no": merchant_agreement_no,
            "channel": channel,
            "plan": plan,
            "display_name": display_name,
            "payer_id": payer_id,
            "return_url": return_url,
            "currency": currency,
            "limit_each": limit_each,
            "period": period,
            "limit_per_period": limit_per_period,
            "limit_total": limit_total,
            "payments_max": payments_max,
            "expires_in_s": expires_in_s,
            "signs_in": signs_in,
        }
        return cast("Agreement", self._transport.post(path_of("agreements"), body, **once))

    def get(self, agreement_id: str) -> Agreement:
        """Return one agreement."""
        return cast("Agreement", self._transport.get(path_of("agreements", agreement_id)))

    def find(self, merchant_agreement_no: str) -> Agreement | None:
        """Return the agreement with this number of yours, or None."""
        page = self._transport.get(
            path_of("agreements"), merchant_agreement_no=merchant_agreement_no
        )
        return cast("Agreement", page["items"][0]) if page["items"] else None

    def list(
        self, *, status: AgreementStatus | None = None, limit: int = 100
    ) -> Iterator[Agreement]:
        """Yield agreements, newest first, fetching ``limit`` at a time."""
        return self._transport.pages(path_of("agreements"), status=status, limit=limit)

    def announce(self, agreement_id: str, amount: int, **once: Unpack[Once]) -> Announcement:
        """Have the channel tell the customer what will be taken, before it is.

        Raises:
            Refused, Unanswered
        """
        path = path_of("agreements", agreement_id, "announcements")
        return cast("Announcement", self._transport.post(path, {"amount": amount}, **once))

    def end(self, agreement_id: str, **once: Unpack[Once]) -> Agreement:
        """End an agreement; nothing is taken under it from now on.

        Raises:
            Refused, Unanswered
        """
        path = path_of("agreements", agreement_id, "end")
        return cast("Agreement", self._transport.post(path, **once))
