"""Prices: what payments cost you, from when on, and what one payment would."""

from __future__ import annotations

from typing import Literal, cast

from tongbao_sdk.replies import (
    PricePlans,
    PriceQuote,
)
from tongbao_sdk.transport import Transport, path_of

CardKind = Literal["any", "debit", "credit", "foreign"]


class Prices:
    """Read what payments cost."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def plans(self) -> PricePlans:
        """Return every version of your prices, those to come included."""
        return cast("PricePlans", self._transport.get(path_of("price-plans")))

    def quote(
        self,
        *,
        channel: str,
        pay_mode: str,
        amount: int,
        currency: str = "CNY",
        card: CardKind = "any",
    ) -> PriceQuote:
        """Return what a payment of ``amount`` minor units would cost if it began now."""
        asked = {
            "channel": channel,
            "pay_mode": pay_mode,
            "amount": amount,
            "currency": currency,
            "card": card,
        }
        return cast("PriceQuote", self._transport.get(path_of("price-quote"), **asked))
