"""The routes of a merchant's prices: every version, and what one payment would cost."""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal

from litestar import get
from msgspec import UNSET, Struct, UnsetType

from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import show
from tongbao.kernel.money import positive
from tongbao.parties.price_plans import queries
from tongbao.parties.price_plans.model import (
    CardKind,
    Inputs,
    PriceLine,
    PriceNotAgreed,
    PricePlan,
)


class PricePlanView(Struct, frozen=True, kw_only=True):
    """What payments cost the merchant from a moment on, until the next version's."""

    id: str
    version: int
    valid_from: datetime
    currency: str
    refund_returns_fee: bool
    lines: list[PriceLine]


class PriceQuoteView(Struct, frozen=True, kw_only=True, omit_defaults=True):
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
    day: date
    month_volume: int | UnsetType = UNSET


class PricePlans(Struct, frozen=True):
    """Every version of a merchant's prices in one mode, in the order they begin."""

    items: list[PricePlanView]


@get("/v1/price-plans", opt=needs("merchant:read"))
async def list_price_plans(db: Db, caller: Caller) -> PricePlans:
    """Return every version of the merchant's prices, those to come included."""
    plans = await queries.price_plans(db, caller.merchant_id, caller.mode)
    return PricePlans([view_plan(plan) for plan in plans])


@get("/v1/price-quote", opt=needs("merchant:read", refuses=[PriceNotAgreed]))
async def get_price_quote(
    db: Db,
    caller: Caller,
    *,
    channel: str,
    pay_mode: str,
    amount: int,
    currency: str = "CNY",
    card: CardKind = CardKind.ANY,
) -> PriceQuoteView:
    """Return what a payment of this amount, in minor units, would cost if it began now."""
    now = db.clock.now()
    inputs = Inputs(channel, pay_mode, positive(amount, currency), business_date(now), card=card)
    plan = await queries.price_plan_at(db, caller.merchant_id, caller.mode, now)
    found = await queries.quote_with_volume(db, caller.book, plan, inputs)
    return PriceQuoteView(
        object="price_quote",
        amount=amount,
        currency=currency,
        channel=channel,
        pay_mode=pay_mode,
        fee=found.fee,
        refund_returns_fee=found.refund_returns_fee,
        plan_version=found.version,
        basis=found.basis,
        day=found.day,
        month_volume=UNSET if found.volume is None else found.volume,
    )


ROUTES = [list_price_plans, get_price_quote]


def view_plan(plan: PricePlan) -> PricePlanView:
    """Return the plan as its merchant may see it."""
    return PricePlanView(
        id=show("pln", plan.id),
        version=plan.version,
        valid_from=plan.valid_from,
        currency=plan.currency,
        refund_returns_fee=plan.refund_returns_fee,
        lines=plan.lines,
    )
