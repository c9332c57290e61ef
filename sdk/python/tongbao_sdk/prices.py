"""Prices: what payments cost you, from when on, and what one payment would."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict, cast

from tongbao_sdk.transport import Transport, path_of

CardKind = Literal["any", "debit", "credit", "foreign"]


class PriceStep(TypedDict):
    """What is charged from an amount of the payment and a volume of its month on."""

    rate_ppm: int
    fixed: NotRequired[int]
    fee_min: NotRequired[int]
    fee_max: NotRequired[int | None]
    amount_from: NotRequired[int]
    volume_from: NotRequired[int]


class PricePromotion(TypedDict):
    """What is charged on the business days from ``from_day`` until before ``until_day``."""

    rate_ppm: int
    from_day: str
    until_day: str
    fixed: NotRequired[int]
    fee_min: NotRequired[int]
    fee_max: NotRequired[int | None]


class PriceLine(TypedDict):
    """What one way of paying costs: a share in millionths, a fixed sum, a floor and a cap.

    ``fixed``, ``fee_min`` and ``fee_max`` are minor units. Of the steps the last one that is
    reached charges, and a promotion goes before all of them on its days.
    """

    channel: str
    pay_mode: str
    rate_ppm: int
    fixed: NotRequired[int]
    fee_min: NotRequired[int]
    fee_max: NotRequired[int | None]
    card: NotRequired[CardKind]
    steps: NotRequired[list[PriceStep]]
    promotions: NotRequired[list[PricePromotion]]
    refund_fee: NotRequired[Literal["plan", "returned", "kept"]]


class PricePlan(TypedDict):
    """The prices in force."""

    id: str
    version: int
    valid_from: str
    currency: str
    refund_returns_fee: bool
    lines: list[PriceLine]


class PricePlans(TypedDict):
    """Every version of the prices, in the order they begin."""

    items: list[PricePlan]


class PriceQuote(TypedDict):
    """What one payment would cost now, and which charge of the plan says so."""

    object: Literal["price_quote"]
    amount: int
    currency: str
    channel: str
    pay_mode: str
    fee: int
    refund_returns_fee: bool
    plan_version: int
    basis: str
    day: str
    month_volume: NotRequired[int]


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
