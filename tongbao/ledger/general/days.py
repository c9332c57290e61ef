"""Closing an accounting day, and opening it again: one person asks, another approves.

A book closes through a day: what is decided afterwards is entered on the next open day, whatever
the time is; `at` and value date stay what they are. The closing itself has the book to itself, so
the vouchers it leaves are complete to the last commit, and no entry slips in behind it.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import new_id, show
from tongbao.ledger.general import _store as store
from tongbao.ledger.general.model import (
    DayAction,
    DayInTheFuture,
    DayNotClosed,
    DayNotOpen,
    DayNotReady,
    DayRequestDecided,
    DayRequestNotFound,
    DayRequestWaiting,
    Finding,
    GlDayRequest,
    ReasonMissing,
    RequestState,
    SamePerson,
)
from tongbao.ledger.general.proving import account_breaches
from tongbao.ledger.general.queries import trial_balance
from tongbao.ledger.general.vouchers import TRANSFERS_MAX, build_next, coverage
from tongbao.ledger.movements.queries import moving_since
from tongbao.ledger.poster.lease import altering
from tongbao.ledger.rows import LedgerBook

REQUEST_PREFIX: Final = "gdr"
REQUEST_LASTS: Final = timedelta(hours=24)
HOLD_GRACE: Final = timedelta(minutes=10)
TRANSIT_AGE_MAX: Final = timedelta(hours=1)
_REASON_MAX: Final = 500
_BALANCES_LAG_MAX: Final = 16_000


async def closing_findings(db: Db, book: int, day: date) -> list[Finding]:
    """Look at everything that must be finished before a day may be closed.

    Raises:
        BookMissing
    """
    covered = await coverage(db, book)
    now = db.clock.now()
    unbalanced = covered.last_seq - covered.balanced_seq
    unsummed = covered.last_seq - covered.covered_seq
    holds = await store.OVERDUE_HOLDS.one(db, book, now - HOLD_GRACE)
    moving = len(await moving_since(db, book, now - TRANSIT_AGE_MAX))
    balance = await trial_balance(db, book, day)
    async with db.begin("general_ledger") as tx:
        differ = len(await account_breaches(tx, book))
    return [
        Finding(
            "day",
            day <= business_date(now) and not balance.is_closed,
            f"the day {day} has begun and is open",
            f"会计日 {day} 已开始且未关账",
        ),
        Finding(
            "projection",
            unbalanced <= _BALANCES_LAG_MAX,
            f"balances are {unbalanced} transfers behind the journal",
            f"账户余额落后日记账 {unbalanced} 笔",
        ),
        Finding(
            "vouchers",
            unsummed <= TRANSFERS_MAX,
            f"vouchers are {unsummed} transfers behind the journal",
            f"总账凭证落后日记账 {unsummed} 笔",
        ),
        Finding(
            "balance",
            balance.is_balanced and not differ,
            f"debits are credits; {differ} sums differ from the accounts",
            f"借贷平衡；与分户账不一致的合计 {differ} 项",
        ),
        Finding(
            "holds",
            not holds,
            f"{holds} holds are past their time",
            f"已过期未终结的冻结 {holds} 笔",
        ),
        Finding(
            "transit",
            not moving,
            f"{moving} movements to other books began more than an hour ago",
            f"超过一小时仍在途的跨账簿转账 {moving} 笔",
        ),
    ]


async def request_day(
    db: Db, book: int, action: DayAction, day: date, *, reason: str, actor: str
) -> GlDayRequest:
    """Ask to close a book through a day, or to open that day and all after it again.

    Raises:
        BookMissing, ReasonMissing, DayInTheFuture, DayNotOpen, DayNotClosed, DayNotReady,
        DayRequestWaiting
    """
    if not 0 < len(reason.strip()) <= _REASON_MAX:
        raise ReasonMissing(param="reason")
    covered = await coverage(db, book)
    _check_day(action, day, covered.closed_through, db.clock.now())
    if action is DayAction.CLOSE:
        _raise_unless_ready(await closing_findings(db, book, day))
    async with db.begin(actor) as tx:
        await _expire(tx, book)
        request_id = new_id()
        until = tx.now + REQUEST_LASTS
        if not await store.ADD_REQUEST.run(
            tx, book, request_id, action, day, reason.strip(), actor, tx.now, until
        ):
            raise DayRequestWaiting(book=book)
        request = await store.GET_REQUEST.one(tx, book, request_id)
        await _record(tx, "requested", request)
    return request


async def approve_day(db: Db, book: int, request_id: UUID, *, actor: str) -> GlDayRequest:
    """Close or reopen what somebody else asked for.

    Raises:
        DayRequestNotFound, DayRequestDecided, SamePerson, DayNotReady, DayNotOpen, DayNotClosed,
        BookStopped
    """
    request = await _waiting(db, book, request_id)
    if request.maker == actor:
        raise SamePerson
    is_close = request.action is DayAction.CLOSE
    if is_close:
        _raise_unless_ready(await closing_findings(db, book, request.day))
    async with altering(db, book, actor=actor, needs_balances=is_close) as (tx, head):
        _check_day(request.action, request.day, head.closed_through, tx.now)
        if is_close:
            await _finish_vouchers(tx, head, request.day)
        closed_through = request.day if is_close else request.day - timedelta(days=1)
        await store.CLOSE_THROUGH.run(tx, book, closed_through)
        decided = await _end(tx, request, RequestState.APPROVED, actor, head.last_batch)
        await _record(tx, "closed" if is_close else "reopened", decided)
        failpoint("ledger.before_day_commit")
    return decided


async def reject_day(db: Db, book: int, request_id: UUID, *, actor: str) -> GlDayRequest:
    """Refuse what somebody else asked for.

    Raises:
        DayRequestNotFound, DayRequestDecided, SamePerson
    """
    request = await _waiting(db, book, request_id)
    if request.maker == actor:
        raise SamePerson
    async with db.begin(actor) as tx:
        decided = await _end(tx, request, RequestState.REJECTED, actor)
        await _record(tx, "rejected", decided)
    return decided


async def withdraw_day(db: Db, book: int, request_id: UUID, *, actor: str) -> GlDayRequest:
    """Take one's own request back.

    Raises:
        DayRequestNotFound, DayRequestDecided
    """
    request = await _waiting(db, book, request_id)
    if request.maker != actor:
        raise DayRequestNotFound(request=show(REQUEST_PREFIX, request_id))
    async with db.begin(actor) as tx:
        decided = await _end(tx, request, RequestState.WITHDRAWN)
        await _record(tx, "withdrawn", decided)
    return decided


def _check_day(action: DayAction, day: date, closed_through: date | None, now: datetime) -> None:
    is_closed = closed_through is not None and day <= closed_through
    if action is DayAction.REOPEN and not is_closed:
        raise DayNotClosed(day=day.isoformat())
    if action is DayAction.CLOSE and is_closed:
        raise DayNotOpen(day=day.isoformat())
    if action is DayAction.CLOSE and day > business_date(now):
        raise DayInTheFuture(day=day.isoformat())


def _raise_unless_ready(findings: list[Finding]) -> None:
    missing = [finding for finding in findings if not finding.is_ready]
    if missing:
        raise DayNotReady(missing="; ".join(f"{each.name}: {each.en}" for each in missing))


async def _finish_vouchers(tx: Tx, head: LedgerBook, day: date) -> None:
    """Sum up to the last commit of the book, which nobody can follow with another meanwhile."""
    while (await coverage(tx, head.book)).covered_batch < head.last_batch:
        await build_next(tx, head.book)
    balance = await trial_balance(tx, head.book, day)
    if not balance.is_balanced or await account_breaches(tx, head.book):
        raise DayNotReady(missing="balance")


async def _waiting(db: Db, book: int, request_id: UUID) -> GlDayRequest:
    async with db.begin("general_ledger") as tx:
        await _expire(tx, book)
    request = await store.GET_REQUEST.first(db, book, request_id)
    if request is None:
        raise DayRequestNotFound(request=show(REQUEST_PREFIX, request_id))
    if request.state is not RequestState.WAITING:
        raise DayRequestDecided(state=request.state.value)
    return request


async def _expire(tx: Tx, book: int) -> None:
    for expired in await store.EXPIRE_REQUESTS.all(tx, book, tx.now):
        await _record(tx, "expired", expired)


async def _end(
    tx: Tx,
    request: GlDayRequest,
    state: RequestState,
    checker: str | None = None,
    last_batch: int | None = None,
) -> GlDayRequest:
    decided = await store.END_REQUEST.first(
        tx, request.book, request.id, state, checker, tx.now, last_batch
    )
    if decided is None:
        raise DayRequestDecided(request=show(REQUEST_PREFIX, request.id))
    return decided


async def _record(tx: Tx, what: str, request: GlDayRequest) -> None:
    facts = {
        "request": show(REQUEST_PREFIX, request.id),
        "action": request.action.value,
        "day": request.day.isoformat(),
        "reason": request.reason,
        "maker": request.maker,
        "checker": request.checker,
        "last_batch": request.last_batch,
    }
    await audit.record(tx, f"general_ledger.day_{what}", f"book {request.book}", facts)
