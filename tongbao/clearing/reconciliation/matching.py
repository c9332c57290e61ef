"""Compare a bill with what we hold and with the ledger, in one statement, and book its fees.

A run stages our side under an id of its own and compares it in one commit, so whoever dies on the
way leaves nothing but a stage that the next run clears. Only the last run of a bill counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

from prometheus_client import Counter

from tongbao.clearing.context import Clearing, Progress
from tongbao.clearing.reconciliation import _store as store
from tongbao.clearing.reconciliation.bills import read_lean, store_rest
from tongbao.clearing.reconciliation.model import (
    NEAR_MIDNIGHT,
    BillFile,
    BillState,
    BookAmount,
    BreakClass,
    Compared,
    DayReconciled,
    RunOvertaken,
)
from tongbao.clearing.reconciliation.staging import Run, close_absent, ids_of_numbers, stage
from tongbao.clearing.sets.lanes import Lane
from tongbao.infra.db import Db, Tx, Write, write_all
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import event_write
from tongbao.kernel.clock import business_date, day_bounds
from tongbao.kernel.ids import derived_id, new_id, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.ledger.model import MOVED_BEFORE, AccountKey, Group
from tongbao.ledger.rules import posting
from tongbao.parties.merchants.merchants import LIVE_BOOK, SANDBOX_BOOK
from tongbao.payments.collecting import queries as payments
from tongbao.rails.channels.contract.orders import ChannelAccount

BREAKS: Final = Counter(
    "tongbao_reconciliation_breaks_total",
    "Differences that runs found, a repeated run's again, by channel",
    ["channel"],
)
LOOKS_BACK: Final = timedelta(days=40)
"""How many days back a missing bill still lets a refund asked for then wait."""

_ACTOR: Final = "reconciliation"
_OVERTAKEN: Final = "reconciliation.overtaken"


async def compare(
    context: Clearing,
    account: ChannelAccount,
    bill: BillFile,
    progress: Progress,
    lane: Lane | None = None,
) -> BillFile:
    """Compare a bill that was read with our side; doing it again changes nothing that stands.

    ``lane`` is what came of comparing a lean bill; without it the bill's file is read.

    Raises:
        RunOvertaken: another run of the same bill began meanwhile.
    """
    db = context.db
    if lane is not None:
        bill = await store_rest(context, bill, lane, progress)
    elif bill.is_lean:
        bill, lane = await read_lean(context, account, bill, _home_book(bill.mode), progress)
    run = Run(
        context=context,
        account=account,
        bill=bill,
        id=new_id(),
        open_days=await _open_days(db, bill),
        progress=progress,
        lane=lane,
    )
    async with db.begin(_ACTOR) as tx:
        before = await store.LOCK_BILL.one(tx, bill.id)
        await store.CLEAR_ITEMS.run(tx, before.run_id)
        if await store.START_RUN.run(tx, bill.id, run.id) == 0:
            raise RunOvertaken
    staged = await stage(run)
    failpoint("reconciliation.after_stage")
    closed = await close_absent(run)
    progress("close what is on no bill", closed)
    try:
        async with db.begin(_ACTOR) as tx:
            fees = await _compare_staged(run, tx, staged)
    except RunOvertaken:
        await store.CLEAR_ITEMS.run(db, run.id)
        raise
    failpoint("reconciliation.after_match")
    await _finish(run, fees)
    failpoint("reconciliation.after_finish")
    context.flow.nudge()
    return await store.GET_BILL.one(db, bill.id)


async def days_to_look_at_again(db: Db, bill: BillFile) -> list[date]:
    """Return the days whose comparison a bill that was compared may change.

    On some, something waited, and their neighbours' bills are all there by now; on others,
    something is missing that came late and is on this bill.
    """
    late = await store.LATE_ON.all(db, bill.id, bill.account_id, bill.day)
    return sorted({*late, *await _days_waited_for(db, bill.account_id, bill.day)})


async def _days_waited_for(db: Db, account_id: UUID, but: date) -> list[date]:
    waiting = await store.WAITING_OF_ACCOUNT.all(db, account_id)
    if not waiting:
        return []
    first = min(each.from_day for each in waiting)
    last = max(each.to_day for each in waiting)
    open_days = await _open_between(db, account_id, first, last)
    waits = {each.day: False for each in waiting if each.day != but}
    for each in waiting:
        if each.day in waits:
            waits[each.day] |= any(each.from_day <= day <= each.to_day for day in open_days)
    return sorted(day for day, is_waiting in waits.items() if not is_waiting)


async def _open_days(db: Db, bill: BillFile) -> frozenset[date]:
    """Return the days around the bill's whose bills are still to come."""
    first, last = bill.day - LOOKS_BACK, bill.day + timedelta(days=1)
    return await _open_between(db, bill.account_id, first, last) - {bill.day}


async def _open_between(db: Db, account_id: UUID, first: date, last: date) -> frozenset[date]:
    final = set(await store.FINAL_DAYS.all(db, account_id, first, last, False))
    begins = await store.FIRST_DAY.first(db, account_id) or last
    days = (first + timedelta(days=n) for n in range((last - first).days + 1))
    return frozenset(day for day in days if day >= begins and day not in final)


async def _compare_staged(run: Run, tx: Tx, staged: int) -> list[BookAmount]:
    """Write every difference and the run's figures; return the bill's fees by book."""
    bill = run.bill
    await store.TAKE_YOUR_TIME.run(tx)
    await store.NO_LOOPS.run(tx)
    await store.IN_MEMORY.run(tx)
    current = await store.LOCK_BILL.one(tx, bill.id)
    if current.run_id != run.id or await store.COUNT_ITEMS.one(tx, run.id) != staged:
        raise RunOvertaken
    run.progress("compare", staged)
    await store.CLEAR_WAITING.run(tx, bill.account_id, bill.day)
    found = await _compare_rows(run, tx)
    totals_broken = await _compare_totals(run, tx)
    await store.FORGET_GONE.run(tx, bill.account_id, bill.day, run.id, tx.now, bill.is_complete)
    breaks = found.breaks + totals_broken
    BREAKS.labels(bill.channel).inc(breaks)
    await store.NOTE_RUN.run(
        tx,
        bill.id,
        run.id,
        bill.row_count - found.broken_rows,
        bill.payment_amount - found.broken_payment_amount,
        bill.refund_amount - found.broken_refund_amount,
        breaks,
        found.waiting,
    )
    fees = await store.FEES_BY_BOOK.all(tx, bill.id, run.id, _home_book(bill.mode))
    await store.CLEAR_ITEMS.run(tx, run.id)
    return _with_agreed(run, fees)


def _with_agreed(run: Run, fees: Sequence[BookAmount]) -> list[BookAmount]:
    """Add the fees of what agreed in the fast lane."""
    by_book = {fee.book: fee for fee in fees}
    for each in run.lane.agreed if run.lane else ():
        fee = by_book.get(each.book, BookAmount(each.book, 0, 0))
        by_book[each.book] = BookAmount(each.book, fee.entries + each.count, fee.amount + each.fees)
    return list(by_book.values())


async def _agreed_before(run: Run, tx: Tx, earlier: BillFile | None) -> list[str]:
    """Return which of this bill's numbers agreed on the day before's, a lean one.

    Such a row is stored nowhere. But it agreed exactly when the payment was ours by then, was paid
    on that day, and is neither among what was left over nor missing.
    """
    if earlier is None or not earlier.is_lean or earlier.parsed_at is None:
        return []
    start, end = day_bounds(run.bill.day)
    beside = await store.ROWS_BESIDE.all(
        tx, run.bill.id, start + NEAR_MIDNIGHT, end - NEAR_MIDNIGHT
    )
    ids = ids_of_numbers(row.number for row in beside)
    paid = {}
    for attempt in await payments.attempts_with_ids(tx, ids):
        if attempt.account_id != run.account.id or attempt.paid_at is None:
            continue
        if business_date(attempt.paid_at) == earlier.day:
            payment = await payments.payment(tx, attempt.book, attempt.payment_id)
            known_at = payment.succeeded_at
            if known_at is not None and known_at <= earlier.parsed_at:
                paid[attempt.taken_number] = attempt
    absent = await store.ABSENT_ON.all(tx, run.account.id, earlier.day, sorted(paid), earlier.id)
    return sorted(paid.keys() - set(absent))


async def _compare_rows(run: Run, tx: Tx) -> Compared:
    bill, terms = run.bill, run.context.flow.channels[run.account.channel].bill_terms
    start, end = day_bounds(bill.day)
    earlier = await store.CURRENT_BILL.first(tx, bill.account_id, bill.day - timedelta(days=1))
    return await store.COMPARE.one(
        tx,
        bill.id,
        run.id,
        bill.account_id,
        bill.channel,
        bill.mode,
        bill.day,
        tx.now,
        run.account.fee_ppm,
        terms.returns_refund_fees,
        terms.keeps_refund_fees,
        sorted(run.open_days),
        [] if earlier is None else [earlier.id],
        start + NEAR_MIDNIGHT,
        end - NEAR_MIDNIGHT,
        bill.is_complete,
        await _agreed_before(run, tx, earlier),
    )


async def _compare_totals(run: Run, tx: Tx) -> int:
    """Write a difference when the trailer contradicts rows that were all read."""
    bill = run.bill
    if bill.totals_agree or not bill.is_complete or bill.fault_count or bill.sha256 is None:
        return 0
    read = bill.payment_amount - bill.refund_amount
    told = (bill.told_payment_amount or 0) - (bill.told_refund_amount or 0)
    return await store.ADD_FOUND.run(
        tx,
        derived_id(bill.account_id, f"{bill.day}/totals_differ"),
        bill.account_id,
        bill.channel,
        bill.mode,
        bill.day,
        "",
        BreakClass.TOTALS_DIFFER,
        bill.currency,
        told,
        read,
        told - read,
        None,
        bill.id,
        run.id,
        tx.now,
        "bill",
        None,
    )


# The end of a run: the channel's fees are booked and the day is marked, in one commit.


async def _finish(run: Run, fees: Sequence[BookAmount]) -> None:
    db, bill = run.context.db, run.bill
    now = db.clock.now()
    if not bill.is_complete:
        writes: tuple[Write, ...] = (_mark(run, BillState.INCOMPLETE, now),)
        await _commit(db, writes)
        return
    state = BillState.EMPTY if bill.sha256 is None else BillState.MATCHED
    writes = (_mark(run, state, now), *await _tell(run, now))
    groups = await _fee_groups(run, fees, now)
    if not groups:
        await _commit(db, writes)
        return
    # The mark comes with the last group: a day is not done before all of its fees are booked.
    last = groups[-1]
    groups[-1] = Group(last.id, last.book, last.transfers, (*last.companions, *writes))
    for result in await run.context.flow.ledger.submit(groups):
        if result.status == "in_flight" or result.code in {_OVERTAKEN, *MOVED_BEFORE}:
            raise RunOvertaken
        if not result.happened:
            raise RuntimeError(f"the ledger refused a bill's fees: {result.code} of {bill.day}")


async def _commit(db: Db, writes: Sequence[Write]) -> None:
    async with db.begin(_ACTOR) as tx:
        if await write_all(tx, writes) is not None:
            raise RunOvertaken


def _mark(run: Run, state: BillState, now: datetime) -> Write:
    matched_at = None if state is BillState.INCOMPLETE else now
    args = (run.bill.id, run.id, state, matched_at)
    return Write(store.FINISH_RUN, args, refusal=_OVERTAKEN)


async def _tell(run: Run, now: datetime) -> tuple[Write, ...]:
    """Return the write that tells our own domains; a repeated run tells nothing new."""
    bill = await store.GET_BILL.one(run.context.db, run.bill.id)
    event = DayReconciled(
        merchant_id=None,
        mode=bill.mode,
        resource_id=show("bil", bill.id),
        account_id=bill.account_id,
        channel=bill.channel,
        day=bill.day,
        matched=bill.matched_count,
        breaks=bill.break_count,
        waiting=bill.waiting_count,
    )
    return (event_write(event, now=now, event_id=derived_id(bill.id, "matched")),)


async def _fee_groups(run: Run, fees: Sequence[BookAmount], now: datetime) -> list[Group]:
    """Return what books the bill's fees, less what an earlier version or run has booked."""
    if not run.context.flow.licence.may_hold_funds:
        return []
    costs = await store.COSTS_BY_BOOK.all(run.context.db, run.bill.account_id, run.bill.day)
    wanted = {fee.book: fee.amount for fee in fees}
    posted = {cost.book: cost for cost in costs}
    groups = []
    for book in sorted(wanted.keys() | posted.keys()):
        earlier = posted.get(book, BookAmount(book, 0, 0))
        left = wanted.get(book, 0) - earlier.amount
        if left:
            groups.append(_fee_group(run, BookAmount(book, earlier.entries, left), now))
    return groups


def _fee_group(run: Run, left: BookAmount, now: datetime) -> Group:
    bill = run.bill
    money = Money(abs(left.amount), bill.currency)
    cost = (left.book, bill.account_id, bill.day, left.entries)
    companion = Write(
        store.INSERT_COST,
        (*cost, bill.id, left.amount, bill.currency, now),
        refusal=_OVERTAKEN,
    )
    return Group(
        id=new_id(),  # the cost's own key keeps it to once; a refusal must not be remembered
        book=left.book,
        transfers=posting.transfers(
            "channel.fee" if left.amount > 0 else "channel.fee_returned",
            # A correction within a day is a posting of its own.
            reference=bill.id if left.entries == 0 else derived_id(bill.id, str(left.entries)),
            accounts={
                "channel_receivable": AccountKey(
                    "channel_receivable", bill.currency, bill.account_id
                )
            },
            amounts={"fee": money},
        ),
        companions=(companion,),
    )


def _home_book(mode: Mode) -> int:
    """Return the book that bears the fees of trades which are none of ours."""
    return LIVE_BOOK if mode is Mode.LIVE else SANDBOX_BOOK
