"""Put our side of a day beside the bill: what the account collected and gave back, as booked.

The bill is evidence. A trade of ours that it shows and that we did not know to have happened is
news for the payment; an open attempt that no complete bill shows did not happen.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from tongbao.clearing.context import Clearing, Progress
from tongbao.clearing.reconciliation import _store as store
from tongbao.clearing.reconciliation.model import (
    NEAR_MIDNIGHT,
    BillFile,
    Item,
    RowAlone,
    days_it_may_stand_on,
)
from tongbao.clearing.sets.lanes import Lane
from tongbao.infra.db import Tx
from tongbao.kernel.clock import day_bounds
from tongbao.kernel.ids import UnknownId, base32, from_base32
from tongbao.kernel.money import Money, share_half_up
from tongbao.ledger.model import AccountKey
from tongbao.ledger.queries import net_of_references
from tongbao.payments.authorisations.outcomes import record_completion_news
from tongbao.payments.authorisations.queries import completions_with_ids
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.chase import look_at, pay_order
from tongbao.payments.collecting.model import (
    AT_THE_COUNTER,
    Attempt,
    AttemptState,
    PaidAttempt,
)
from tongbao.payments.collecting.outcomes import Evidence, record_news
from tongbao.payments.refunds import queries as refunds
from tongbao.payments.refunds.model import GivenBack, Refund, RefundState
from tongbao.payments.refunds.outcomes import record_refund_news
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Closed, Declined, Succeeded

_ACTOR: Final = "reconciliation"
_CHUNK: Final = 5000
_RECORD: Final = msgspec.structs.astuple


class Run(Struct, frozen=True):
    """One comparison of one bill. ``open_days`` are days nearby whose bills are still to come."""

    context: Clearing
    account: ChannelAccount
    bill: BillFile
    id: UUID
    open_days: frozenset[date]
    progress: Progress
    lane: Lane | None = None


async def stage(run: Run) -> int:
    """Stage our side of the run, the bill's news first taken in; return how many items it has."""
    start, end = day_bounds(run.bill.day)
    count = 0
    run.progress("stage", count)
    async with run.context.db.begin(_ACTOR) as tx:
        items: list[Item] = []
        inside, until = start + NEAR_MIDNIGHT, end - NEAR_MIDNIGHT
        this_day = (run.bill.day, run.bill.day)
        async for paid in _paid(run, tx, start, end):
            place = (paid.book, base32(paid.id), paid.payment_id)
            days = this_day
            if not inside <= paid.paid_at < until:
                days = days_it_may_stand_on(paid.paid_at, paid.paid_at)
            items.append(_payment_item(run, place, Money(paid.amount, paid.currency), days=days))
            if len(items) == _CHUNK:
                count += await _put(run, tx, items)
                run.progress("stage", count)
                items = []
        count += await _put(run, tx, items)
        count += await _stage_refunds(run, tx, start, end)
    async for alone in _rows_alone(run):
        items = await _known_behind(run, alone)  # may ask the channel, so outside a transaction
        async with run.context.db.begin(_ACTOR) as tx:
            count += await _put(run, tx, items)
        run.progress("look up", count)
    return count


async def _paid(run: Run, tx: Tx, start: datetime, end: datetime) -> AsyncIterator[PaidAttempt]:
    """Yield what the account collected on the day, without what agreed in the fast lane."""
    if run.lane is None:
        async for paid in payments.paid_between(tx, run.account.id, start, end):
            yield paid
        return
    for at in range(0, len(run.lane.ours), _CHUNK):
        for attempt in await payments.attempts_with_ids(tx, run.lane.ours[at : at + _CHUNK]):
            if attempt.paid_at is not None:
                yield PaidAttempt(
                    book=attempt.book,
                    id=from_base32(attempt.taken_number),
                    payment_id=attempt.payment_id,
                    amount=attempt.taken.amount,
                    currency=attempt.taken.currency,
                    paid_at=attempt.paid_at,
                )


async def _rows_alone(run: Run) -> AsyncIterator[list[RowAlone]]:
    """Yield the rows that nothing staged answers to, piece by piece."""
    after = ("", "")
    while True:
        async with run.context.db.begin(_ACTOR) as tx:
            await store.TAKE_YOUR_TIME.run(tx)
            await store.NO_LOOPS.run(tx)
            rows = await store.ROWS_ALONE.all(tx, run.bill.id, run.id, *after, _CHUNK)
        if rows:
            yield rows
        if len(rows) < _CHUNK:
            return
        after = (rows[-1].kind, rows[-1].number)


async def _put(run: Run, tx: Tx, items: Sequence[Item]) -> int:
    """Copy items to the stage, each with what the ledger shows for it."""
    if not items:
        return 0
    booked = await _with_ledger(run, tx, items)
    await tx.copy("recon_item", store.ITEM_COLUMNS, [_RECORD(item) for item in booked])
    return len(items)


async def _with_ledger(run: Run, tx: Tx, items: Sequence[Item]) -> Iterable[Item]:
    if not run.context.flow.licence.may_hold_funds:
        return items  # an aggregator's payments are not in its books
    nets: dict[tuple[int, UUID], int] = {}
    for book, currency in {(item.book, item.currency) for item in items}:
        key = AccountKey("channel_receivable", currency, run.account.id)
        references = [_reference(item) for item in items if item.book == book]
        found = await net_of_references(tx, book, key, references)
        nets |= {(book, reference): net for reference, net in found.items()}
    return [
        item
        if item.kind == "reversal"  # its payment answers for the ledger
        else replace(item, booked=nets.get((item.book, _reference(item)), 0))
        for item in items
    ]


def _reference(item: Item) -> UUID:
    return item.refund_id or item.payment_id


def _payment_item(
    run: Run,
    place: tuple[int, str, UUID],
    money: Money,
    *,
    days: tuple[date, date],
    kind: str = "payment",
    state: str = "moved",
    to_book: int | None = None,
) -> Item:
    book, number, payment_id = place
    return Item(
        book=book,
        run_id=run.id,
        kind=kind,
        number=number,
        payment_id=payment_id,
        refund_id=None,
        amount=money.amount,
        currency=money.currency,
        expected_fee=share_half_up(money.amount, run.account.fee_ppm),
        state=state,
        to_book=money.amount if to_book is None else to_book,
        booked=None,
        from_day=days[0],
        to_day=days[1],
    )


def _refund_item(run: Run, refund: GivenBack | Refund, state: str, days: tuple[date, date]) -> Item:
    return Item(
        book=refund.book,
        run_id=run.id,
        kind="refund",
        number=base32(refund.id),
        payment_id=refund.payment_id,
        refund_id=refund.id,
        amount=refund.amount,
        currency=refund.currency,
        expected_fee=share_half_up(refund.amount, run.account.fee_ppm),
        state=state,
        to_book=-refund.amount if state == "moved" else 0,
        booked=None,
        from_day=days[0],
        to_day=days[1],
    )


async def _stage_refunds(run: Run, tx: Tx, start: datetime, end: datetime) -> int:
    count = 0
    chunk: list[GivenBack] = []
    async for refund in refunds.given_back_between(tx, run.account.mode, start, end):
        chunk.append(refund)
        if len(chunk) == _CHUNK:
            count += await _put_refunds(run, tx, chunk)
            run.progress("stage refunds", count)
            chunk = []
    return count + await _put_refunds(run, tx, chunk)


async def _put_refunds(run: Run, tx: Tx, chunk: Sequence[GivenBack]) -> int:
    attempts = await payments.attempts_with_ids(tx, [refund.attempt_id for refund in chunk])
    ours = {attempt.id for attempt in attempts if attempt.account_id == run.account.id}
    # Some channels bill a refund on the day it was asked for, others when it was done.
    items = [
        _refund_item(
            run, refund, "moved", days_it_may_stand_on(refund.created_at, refund.channel_at)
        )
        for refund in chunk
        if refund.attempt_id in ours
    ]
    return await _put(run, tx, items)


# Rows that nothing staged answers to


async def _known_behind(run: Run, rows: Sequence[RowAlone]) -> list[Item]:
    """Return what we hold under the rows' numbers, after telling payments what the rows say."""
    if not rows:
        return []
    await _tell_captures(run, rows)
    attempts = await _attempts_behind(run, rows)
    given_back = await _refunds_behind(run, rows)
    shown = await _shown(run, [row.number for row in rows])
    items = []
    for row in rows:
        attempt, refund = attempts.get(row.number), given_back.get(row.number)
        if row.kind == "refund" and refund is not None:
            items.append(await _item_of_refund(run, row, refund))
        elif row.kind == "payment" and attempt is not None:
            is_reversed = ("reversal", row.number) in shown
            items.append(await _item_of_payment(run, row, attempt, is_reversed=is_reversed))
        elif row.kind == "reversal" and attempt is not None:
            was_paid = ("payment", row.number) in shown
            items.append(_item_of_reversal(run, attempt, was_paid=was_paid))
    return items


async def _tell_captures(run: Run, rows: Sequence[RowAlone]) -> None:
    """Record what the rows say of captures that nobody knew to have happened."""
    moved = {row.number: row for row in rows if (row.kind, row.outcome) == ("payment", "moved")}
    for capture in await completions_with_ids(run.context.db, ids_of_numbers(moved)):
        if capture.account_id == run.account.id and capture.state.is_open:
            row = moved[capture.number]
            taken = Succeeded(row.channel_ref, Money(row.amount, row.currency), row.at)
            evidence = Evidence("bill")
            await record_completion_news(run.context.flow, capture, taken, evidence)


async def _shown(run: Run, numbers: Sequence[str]) -> set[tuple[str, str]]:
    """Return which of these the account's bills show, whatever day."""
    found = await store.SHOWN.all(run.context.db, run.account.id, list(numbers))
    return {(row.kind, row.number) for row in found}


async def _attempts_behind(run: Run, rows: Sequence[RowAlone]) -> Mapping[str, Attempt]:
    ids = ids_of_numbers(row.number for row in rows if row.kind != "refund")
    found = await payments.attempts_with_ids(run.context.db, ids)
    # Money that was set aside first stands on the bill under its capture's number.
    return {
        attempt.taken_number: attempt for attempt in found if attempt.account_id == run.account.id
    }


async def _refunds_behind(run: Run, rows: Sequence[RowAlone]) -> Mapping[str, Refund]:
    db = run.context.db
    found = await refunds.refunds_with_ids(
        db, ids_of_numbers(row.number for row in rows if row.kind == "refund")
    )
    attempts = await payments.attempts_with_ids(db, [refund.attempt_id for refund in found])
    ours = {attempt.id for attempt in attempts if attempt.account_id == run.account.id}
    return {refund.number: refund for refund in found if refund.attempt_id in ours}


def ids_of_numbers(numbers: Iterable[str]) -> list[UUID]:
    """Return the ids behind those of the numbers that can be ours."""
    ids = []
    for number in numbers:
        try:
            ids.append(from_base32(number))
        except UnknownId:
            continue  # no number of ours, so the comparison will say whose it is not
    return ids


async def _item_of_payment(run: Run, row: RowAlone, attempt: Attempt, *, is_reversed: bool) -> Item:
    days = (run.bill.day, run.bill.day)
    if row.outcome == "moved" and attempt.state is not AttemptState.SUCCEEDED:
        attempt, days = await _tell_payment(run, row, attempt, is_reversed=is_reversed)
    is_paid = attempt.state is AttemptState.SUCCEEDED
    state = "open" if attempt.state.is_open else "not_moved"
    return _payment_item(
        run,
        (attempt.book, attempt.taken_number, attempt.payment_id),
        attempt.taken,
        days=days,
        state="moved" if is_paid or is_reversed else state,
        to_book=attempt.taken.amount if is_paid else 0,
    )


async def _tell_payment(
    run: Run, row: RowAlone, attempt: Attempt, *, is_reversed: bool
) -> tuple[Attempt, tuple[date, date]]:
    """Record what the row says; return the attempt then, and the days its reversal may stand on."""
    flow = run.context.flow
    this_day = (run.bill.day, run.bill.day)
    if is_reversed:
        if attempt.state.is_open:
            news = Closed("bill.reversed")
            _, attempt = await record_news(flow, attempt, news, Evidence("bill"))
        return attempt, this_day
    paid = Succeeded(row.channel_ref, Money(row.amount, row.currency), row.at)
    if _may_be_undone(attempt):
        attempt, ended_at = await _as_it_stands(run, attempt, paid)
        if _may_be_undone(attempt):
            return attempt, days_it_may_stand_on(row.at, ended_at or flow.db.clock.now())
    _, attempt = await record_news(flow, attempt, paid, Evidence("bill"))
    return attempt, this_day


def _may_be_undone(attempt: Attempt) -> bool:
    """Whether we have undone the order, or may be at it: then what was paid went back since.

    An order at the counter is undone until the channel says that it is; a shown code only before
    anybody pays it.
    """
    is_code = attempt.pay_mode in AT_THE_COUNTER
    return attempt.state is AttemptState.CLOSED or (attempt.state.is_open and is_code)


async def _as_it_stands(
    run: Run, attempt: Attempt, paid: Succeeded
) -> tuple[Attempt, datetime | None]:
    """Ask the channel how the order stands today; return the attempt and its payment's end."""
    flow = run.context.flow
    payment = await payments.payment(flow.db, attempt.book, attempt.payment_id)
    if attempt.state.is_open:
        payment, attempt = await look_at(flow, payment, attempt)
        return attempt, payment.ended_at
    channel = flow.channels[attempt.channel]
    answer = await channel.query(run.account, pay_order(payment, attempt))
    is_paid = isinstance(answer.outcome, Succeeded)
    evidence = Evidence("query", exchange=answer.exchange, is_fresh=is_paid)
    news = answer.outcome if is_paid else paid  # not confirmed: it is looked into again later
    payment, attempt = await record_news(flow, attempt, news, evidence)
    return attempt, payment.ended_at


def _item_of_reversal(run: Run, attempt: Attempt, *, was_paid: bool) -> Item:
    is_undone = was_paid and attempt.state is not AttemptState.SUCCEEDED
    return _payment_item(
        run,
        (attempt.book, attempt.number, attempt.payment_id),
        attempt.money,
        days=(run.bill.day, run.bill.day),
        kind="reversal",
        state="moved" if is_undone else "not_moved",
        to_book=0,
    )


async def _item_of_refund(run: Run, row: RowAlone, refund: Refund) -> Item:
    evidence = Evidence("bill", refund_id=refund.id)
    if refund.state.is_open and row.outcome == "moved":
        money = Money(row.amount, row.currency)
        done = Succeeded(row.channel_ref, money, row.at)
        refund = await record_refund_news(run.context.flow, refund, done, evidence)
    elif refund.state.is_open and row.outcome == "failed":
        failed = Declined("bill.refund_failed")
        refund = await record_refund_news(run.context.flow, refund, failed, evidence)
    state = "open" if refund.state.is_open else "not_moved"
    if refund.state is RefundState.SUCCEEDED:
        state = "moved"
    return _refund_item(run, refund, state, (run.bill.day, run.bill.day))


# What no bill shows


async def close_absent(run: Run) -> int:
    """End open attempts that no bill shows although every bill that could is whole; count them."""
    if not run.bill.totals_agree:
        return 0
    _, end = day_bounds(run.bill.day)
    db, count = run.context.db, 0
    overdue = await payments.overdue_attempts(db, run.account.id, end)
    spans = {late.id: days_it_may_stand_on(late.created_at, late.expires_at) for late in overdue}
    if not spans:
        return 0
    first, last = min(span[0] for span in spans.values()), max(span[1] for span in spans.values())
    proved = set(await store.FINAL_DAYS.all(db, run.account.id, first, last, True))
    proved.add(run.bill.day)
    shown = await _shown(run, [base32(late.id) for late in overdue])
    for late in overdue:
        is_proved = all(day in proved for day in _days(*spans[late.id]))
        if is_proved and ("payment", base32(late.id)) not in shown:
            attempt = await payments.attempt(db, late.book, late.id)
            await record_news(run.context.flow, attempt, Closed("bill.absent"), Evidence("bill"))
            count += 1
    return count


def _days(first: date, last: date) -> Iterable[date]:
    return (first + timedelta(days=n) for n in range((last - first).days + 1))
