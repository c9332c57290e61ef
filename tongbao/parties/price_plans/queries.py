"""What others may ask about prices: the versions, what a payment costs, the month's volume."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from uuid import UUID

from msgspec.structs import replace

from tongbao.infra.db import Db, Tx, Write
from tongbao.kernel.licence import Mode
from tongbao.parties.price_plans import _store as store
from tongbao.parties.price_plans.model import Inputs, PricePlan, Quote, quote


async def price_plans(on: Db | Tx, merchant_id: UUID, mode: Mode) -> list[PricePlan]:
    """Return every version of a merchant's prices, in the order they begin."""
    return await store.PLANS.all(on, merchant_id, mode)


async def price_plan_at(
    on: Db | Tx, merchant_id: UUID, mode: Mode, at: datetime
) -> PricePlan | None:
    """Return the prices in force at a moment, or None before the first."""
    return await store.PLAN_AT.first(on, merchant_id, mode, at)


async def price_plan_version(
    on: Db | Tx, merchant_id: UUID, mode: Mode, version: int | None
) -> PricePlan | None:
    """Return one version of a merchant's prices."""
    return await store.PLAN_OF_VERSION.first(on, merchant_id, mode, version)


async def price_plans_of(
    on: Db | Tx, whose: Sequence[tuple[UUID, Mode]]
) -> dict[tuple[UUID, Mode], list[PricePlan]]:
    """Return every version of the prices of these merchants, in the order they begin."""
    found: dict[tuple[UUID, Mode], list[PricePlan]] = {each: [] for each in whose}
    ids, modes = [merchant_id for merchant_id, _ in whose], [mode for _, mode in whose]
    for plan in await store.PLANS_OF.all(on, ids, modes):
        found[plan.merchant_id, plan.mode].append(plan)
    return found


async def quote_with_volume(
    on: Db | Tx, book: int, plan: PricePlan | None, inputs: Inputs
) -> Quote:
    """Return what a payment that begins now costs, after what its month has brought so far.

    Raises:
        PriceNotAgreed
    """
    if plan is None or not plan.counts_volume(inputs.channel, inputs.pay_mode):
        return quote(plan, inputs)
    of = (plan.merchant_id, plan.mode, inputs.money.currency)
    so_far = await volume_in(on, book, of, month_of(inputs.day))
    return quote(plan, replace(inputs, volume=so_far))


async def volume_in(on: Db | Tx, book: int, of: tuple[UUID, Mode, str], month: date) -> int:
    """Return what was collected in a business month by payments whose price counts it.

    ``of``: merchant, mode and currency.
    """
    return await store.VOLUME.first(on, book, *of, month) or 0


def still_in_force(plan: PricePlan, at: datetime, *, refusal: str) -> Write:
    """Return the write that refuses when another version of the prices is in force at a moment."""
    args = (plan.merchant_id, plan.mode, plan.valid_from, at)
    return Write(store.STILL_IN_FORCE, args, refusal=refusal)


def volume_write(book: int, merchant_id: UUID, mode: Mode, of: tuple[str, date, int]) -> Write:
    """Return the write that counts a payment in its month; ``of``: currency, day, amount."""
    currency, day, amount = of
    args = (book, merchant_id, mode, currency, month_of(day), amount)
    return Write(store.COUNT_VOLUME, args)


def month_of(day: date) -> date:
    """Return the first day of a business month."""
    return day.replace(day=1)
