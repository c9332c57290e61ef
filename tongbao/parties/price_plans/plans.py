"""Agree new prices: a version more, from a moment on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from tongbao.infra import audit
from tongbao.infra.changes import mark
from tongbao.infra.db import Tx
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import exponent_of
from tongbao.parties.merchants.merchants import lock_merchant
from tongbao.parties.merchants.model import TERMS
from tongbao.parties.price_plans import _store as store
from tongbao.parties.price_plans.model import (
    PriceInThePast,
    PriceLine,
    PricePlan,
    PriceStartTaken,
    check_lines,
)


async def set_price_plan(
    tx: Tx,
    merchant_id: UUID,
    mode: Mode,
    lines: Sequence[PriceLine],
    *,
    currency: str = "CNY",
    refund_returns_fee: bool = True,
    valid_from: datetime | None = None,
) -> PricePlan:
    """Agree new prices from a moment on, by default from now; earlier fees are untouched.

    Raises:
        MerchantNotFound, UnknownCurrency, PriceLinesInvalid, PriceInThePast, PriceStartTaken
    """
    exponent_of(currency)
    agreed = check_lines(lines)
    starts = valid_from or tx.now
    if starts < tx.now:
        raise PriceInThePast
    await lock_merchant(tx, merchant_id)
    version = 1 + await store.LAST_VERSION.one(tx, merchant_id, mode)
    plan = await store.INSERT_PLAN.first(
        tx,
        new_id(),
        merchant_id,
        mode,
        version,
        starts,
        currency,
        refund_returns_fee,
        agreed,
        tx.now,
        tx.actor,
    )
    if plan is None:
        raise PriceStartTaken
    await mark(tx, TERMS, merchant_id)
    facts = {"mode": mode.value, "version": version, "valid_from": starts.isoformat()}
    await audit.record(tx, "merchant.price_plan_set", show("mch", merchant_id), facts)
    return plan
