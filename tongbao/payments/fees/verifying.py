"""Work every fee of a period out again, and say what it would have cost under other prices."""

from __future__ import annotations

from datetime import date, datetime
from typing import Final, Literal
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Db, Tx
from tongbao.kernel.clock import day_bounds
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Mode
from tongbao.ledger.model import AccountKey
from tongbao.ledger.queries import net_of_references
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
from tongbao.payments.refunds.model import RefundState
from tongbao.payments.refunds.queries import refunds_of_payment

Whose = tuple[UUID, Mode]
_PIECE: Final = 500


async def verify_fees(
    db: Db,
    first: date,
    last: date,
    *,
    merchant_id: UUID | None = None,
    mode: Mode | None = None,
    has_books: bool = True,
) -> FeeReport:
    """Work out again the fee of every payment that began on these business days, both included.

    What the ledger has booked of each is compared with it, unless ``has_books`` says that this firm
    books nothing. Where the days are whole months, their volumes are added up again as well.
    """
    report, plans = FeeReport(), dict[Whose, dict[int, PricePlan]]()
    volumes, booked = dict[Volume, int](), Booked()
    start, end = _span(first, last)
    async with db.begin("fees") as tx:
        async for payment in payments_begun(tx, start, end, merchant_id, mode):
            _add_volume(volumes, payment)
            if has_books and payment.state is PaymentState.SUCCEEDED:
                await booked.expect(tx, payment, report)
            if payment.price_version is None:
                report.without_version += 1
                continue
            report.checked += 1
            plan = await _version(tx, plans, payment)
            for found in differences_of(payment, plan):
                report.add(found)
        await booked.compare_all(tx, report)
        if first.day == 1 and last == _last_of(last):
            await _verify_volumes(tx, volumes, report)
    return report


class Booked:
    """Compares what merchants were booked with what payments and refunds keep, piece by piece."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[int, AccountKey], dict[UUID, _Expected]] = {}

    async def expect(self, tx: Tx, payment: Payment, report: FeeReport) -> None:
        """Note what a payment, and every refund of it, must have done to the merchant's account."""
        net = payment.fee - payment.captured
        await self._add(tx, payment, payment.id, _Expected("booked", payment, net), report)
        if not payment.refunded:
            return
        kept = 0
        for refund in await refunds_of_payment(tx, payment.book, payment.id):
            if refund.kind != "merchant" or refund.state is RefundState.FAILED:
                continue
            kept += refund.fee_back
            gone = refund.amount if refund.state is RefundState.SUCCEEDED else 0
            expected = _Expected("booked_back", payment, gone - refund.fee_back)
            await self._add(tx, payment, refund.id, expected, report)
        if kept != payment.fee_returned:
            ids = (payment.id, payment.merchant_id)
            report.add(FeeDifference("fee_returned", *ids, payment.fee_returned, kept))

    async def _add(
        self, tx: Tx, payment: Payment, reference: UUID, expected: _Expected, report: FeeReport
    ) -> None:
        key = AccountKey("merchant_payable", payment.currency, payment.merchant_id)
        waiting = self._waiting.setdefault((payment.book, key), {})
        waiting[reference] = expected
        if len(waiting) >= _PIECE:
            await _compare(tx, payment.book, key, waiting, report)
            waiting.clear()

    async def compare_all(self, tx: Tx, report: FeeReport) -> None:
        """Compare what is left."""
        for (book, key), waiting in self._waiting.items():
            await _compare(tx, book, key, waiting, report)


class _Expected(Struct, frozen=True):
    """What a reference must have done to the merchant's account: debits less credits."""

    what: Literal["booked", "booked_back"]
    payment: Payment
    net: int


async def _compare(
    tx: Tx, book: int, key: AccountKey, waiting: dict[UUID, _Expected], report: FeeReport
) -> None:
    nets = await net_of_references(tx, book, key, list(waiting))
    for reference, each in waiting.items():
        found = nets.get(reference, 0)
        if found != each.net:
            ids = (each.payment.id, each.payment.merchant_id)
            report.add(FeeDifference(each.what, *ids, found, each.net))


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
