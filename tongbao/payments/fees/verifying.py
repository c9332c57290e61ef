"""Work every fee of a period out again, and say what it would have cost under other prices."""

from __future__ import annotations

from datetime import date, datetime
from uuid import UUID

from tongbao.infra.db import Db, Tx
from tongbao.kernel.clock import day_bounds
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Mode
from tongbao.parties.price_plans import queries as prices
from tongbao.parties.price_plans.approving import PriceDraft
from tongbao.parties.price_plans.model import PricePlan, check_lines
from tongbao.payments.collecting.model import Payment, PaymentState
from tongbao.payments.collecting.queries import payments_begun
from tongbao.payments.fees.model import (
    Costs,
    FeeDifference,
    FeeReport,
    Volume,
    WayCost,
    differences_of,
)

Whose = tuple[UUID, Mode]


async def verify_fees(
    db: Db, first: date, last: date, *, merchant_id: UUID | None = None, mode: Mode | None = None
) -> FeeReport:
    """Work out again the fee of every payment that began on these business days, both included.

    Where the days are whole months, the months' volumes are added up again as well.
    """
    report, plans = FeeReport(), dict[Whose, dict[int, PricePlan]]()
    volumes = dict[Volume, int]()
    start, end = _span(first, last)
    async with db.begin("fees") as tx:
        async for payment in payments_begun(tx, start, end, merchant_id, mode):
            _add_volume(volumes, payment)
            if payment.price_version is None:
                report.without_version += 1
                continue
            report.checked += 1
            plan = await _version(tx, plans, payment)
            for found in differences_of(payment, plan):
                report.add(found)
        if first.day == 1 and last == _last_of(last):
            await _verify_volumes(tx, volumes, report)
    return report


async def preview_costs(
    db: Db, whose: Whose, draft: PriceDraft, first: date, last: date
) -> dict[tuple[str, str], WayCost]:
    """Return what a merchant's payments of these days cost, and would have under a draft.

    Raises:
        PriceLinesInvalid
    """
    now, (start, end) = db.clock.now(), _span(first, last)
    costs = Costs(drafted(whose, draft, now))
    async with db.begin("fees") as tx:
        async for payment in payments_begun(tx, start, end, *whose):
            if payment.state is PaymentState.SUCCEEDED and payment.currency == draft.currency:
                costs.add(payment)
    return costs.ways


def drafted(whose: Whose, draft: PriceDraft, now: datetime) -> PricePlan:
    """Return a draft as the plan it would be, to work fees out with.

    Raises:
        PriceLinesInvalid
    """
    return PricePlan(
        id=new_id(),
        merchant_id=whose[0],
        mode=whose[1],
        version=0,
        valid_from=now,
        currency=draft.currency,
        refund_returns_fee=draft.refund_returns_fee,
        lines=check_lines(draft.lines),
        created_at=now,
        created_by="a draft",
    )


def _span(first: date, last: date) -> tuple[datetime, datetime]:
    return day_bounds(first)[0], day_bounds(last)[1]


def _last_of(day: date) -> date:
    after = date(day.year + day.month // 12, day.month % 12 + 1, 1)
    return date.fromordinal(after.toordinal() - 1)


async def _version(
    tx: Tx, plans: dict[Whose, dict[int, PricePlan]], payment: Payment
) -> PricePlan | None:
    whose = (payment.merchant_id, payment.mode)
    if whose not in plans:
        plans[whose] = {each.version: each for each in await prices.price_plans(tx, *whose)}
    return plans[whose].get(payment.price_version or 0)


def _add_volume(volumes: dict[Volume, int], payment: Payment) -> None:
    if payment.price_volume is None or payment.state is not PaymentState.SUCCEEDED:
        return
    whose = (payment.book, payment.merchant_id, payment.mode, payment.currency)
    month = Volume(*whose, prices.month_of(payment.price.day))
    volumes[month] = volumes.get(month, 0) + payment.captured


async def _verify_volumes(tx: Tx, volumes: dict[Volume, int], report: FeeReport) -> None:
    for each, expected in volumes.items():
        of = (each.merchant_id, each.mode, each.currency)
        kept = await prices.volume_in(tx, each.book, of, each.month)
        if kept != expected:
            report.add(FeeDifference("volume", None, each.merchant_id, kept, expected))
