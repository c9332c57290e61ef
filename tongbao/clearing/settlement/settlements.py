"""Close a merchant's day: lines, figures, posting, payout and event in one commit, or nothing.

The figures are worked out from what the ledger shows, outside any transaction. What may change
meanwhile is checked in the commit: that no other settlement follows the same one (its unique key),
and that the account still covers what is payable (its floor). Whoever is too late starts over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from datetime import date, datetime, time, timedelta
from itertools import pairwise
from typing import Final
from uuid import UUID

import msgspec
import structlog
from msgspec import Struct, field
from prometheus_client import Counter as Metric

from tongbao.clearing.context import Clearing, Progress, in_silence
from tongbao.clearing.payouts.model import PayoutFailed, PayoutSucceeded
from tongbao.clearing.payouts.payouts import NewPayout, payout_writes
from tongbao.clearing.settlement import _store as store
from tongbao.clearing.settlement.model import (
    OWN_RULE,
    AccountHeldBack,
    DayPassed,
    Settlement,
    SettlementClosed,
    SettlementContended,
    SettlementNotDue,
    SettlementState,
    due_from,
    figures_of,
    payable_of,
    view_settlement,
)
from tongbao.infra.db import Db, Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import event_write
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task
from tongbao.kernel.clock import BUSINESS_ZONE, business_date
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.kernel.pages import PAGE_MAX
from tongbao.ledger.model import MOVED_BEFORE, AccountFrozen, AccountKey, ExceedsBalance, Group
from tongbao.ledger.queries import StatementLine, balance_of, balances_of_owner, movements
from tongbao.ledger.rules import posting
from tongbao.parties.merchants import queries as merchants
from tongbao.parties.merchants.model import Merchant

SETTLEMENTS: Final = Metric("tongbao_settlements_total", "Merchants' days that were closed")
PAY_AT: Final = time(12)
"""When, on the business clock, what was settled is paid out."""
SETTLE_POLICY: Final = RetryPolicy(
    attempts_max=15,
    delays=tuple(timedelta(minutes=m) for m in (1, 5, 15, 60)),
    time_limit=timedelta(hours=1),
)

_CONTENDED: Final = SettlementContended.code
_TRIES_MAX: Final = 8
_CHUNK: Final = 5000
_log: Final = structlog.get_logger()
_PAYABLE: Final = "merchant_payable"


class SettleDay(Task, frozen=True, tag="settlement.settle_day"):
    """Close one merchant's day."""

    merchant_id: UUID
    mode: Mode
    day: date


class _Terms(Struct, frozen=True):
    """Whose day is closed, on which account, and after which settlement."""

    merchant: Merchant
    mode: Mode
    day: date
    key: AccountKey
    last: Settlement | None


class _Lines(Struct):
    """Movements that no settlement has had, column by column, newest first."""

    seqs: list[int] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    references: list[UUID] = field(default_factory=list)
    amounts: list[int] = field(default_factory=list)
    days: list[date] = field(default_factory=list)
    sums: Counter[str] = field(default_factory=Counter)
    through_seq: int = 0

    def add(self, line: StatementLine) -> None:
        self.seqs.append(line.seq)
        self.codes.append(line.code)
        self.references.append(line.reference)
        self.amounts.append(line.change)
        self.days.append(line.biz_date)
        self.sums[line.code] += line.change


async def settle_day(
    context: Clearing,
    day: date,
    *,
    merchant_id: UUID | None = None,
    mode: Mode | None = None,
    on_progress: Progress = in_silence,
) -> list[Settlement]:
    """Close a day and return its settlements, those that were closed before too.

    Without a merchant it is everyone's day, and who may not be settled now is left out.

    Raises:
        MerchantNotFound, SettlementNotDue, DayPassed, AccountHeldBack, SettlementContended
    """
    settled: list[Settlement] = []
    modes = [mode] if mode else list(Mode)
    async for merchant in all_merchants(context.db, merchant_id):
        for each in modes:
            try:
                settled += await settle_merchant(context, merchant, each, day)
            except (SettlementNotDue, DayPassed, AccountHeldBack):
                if merchant_id is not None:
                    raise
        on_progress("settle", len(settled))
    return settled


async def settle_merchant(
    context: Clearing, merchant: Merchant, mode: Mode, day: date
) -> list[Settlement]:
    """Close one merchant's day in every currency it has; a day with nothing makes no settlement.

    Raises:
        SettlementNotDue, DayPassed, AccountHeldBack, SettlementContended
    """
    if business_date(context.db.clock.now()) < (due := due_from(merchant, day)):
        raise SettlementNotDue(day=day.isoformat(), due_from=due.isoformat())
    balances = await balances_of_owner(context.db, merchant.book(mode), merchant.id)
    currencies = [each.account.currency for each in balances if each.account.kind == _PAYABLE]
    closed = [await _close(context, merchant, mode, currency, day) for currency in currencies]
    return [settlement for settlement in closed if settlement is not None]


async def run_settle_day(context: Clearing, task: SettleDay, _lease: Lease) -> Again | None:
    """Close one merchant's day, unless a later one is closed already."""
    merchant = await merchants.merchant_with_id(context.db, task.merchant_id)
    try:
        await settle_merchant(context, merchant, task.mode, task.day)
    except (DayPassed, AccountHeldBack) as held:
        # A later day was closed by hand, and this one with it; or tomorrow's round has it all.
        _log.warning("settlement_left_out", merchant=show("mch", merchant.id), reason=held.code)
    return None


async def on_payout_ended(
    context: Clearing, event: PayoutSucceeded | PayoutFailed, _event_id: UUID
) -> None:
    """Mark a settlement as its payout ended; hearing of it twice marks it once."""
    is_paid = isinstance(event, PayoutSucceeded)
    state = SettlementState.PAID if is_paid else SettlementState.UNPAID
    await store.SET_STATE.run(context.db, event.book, event.settlement, state)


async def _close(
    context: Clearing, merchant: Merchant, mode: Mode, currency: str, day: date
) -> Settlement | None:
    db, book = context.db, merchant.book(mode)
    key = AccountKey(_PAYABLE, currency, merchant.id)
    for _ in range(_TRIES_MAX):
        last = await store.LAST_SETTLEMENT.first(db, book, merchant.id, mode, currency)
        if last is not None and last.day >= day:
            return await _closed_before(db, last, day)
        lines = await _unsettled(db, book, key, mode, day=day, last=last)
        balance = await balance_of(db, book, key)
        terms = _Terms(merchant, mode, day, key, last)
        settlement = _draw(terms, lines, balance.available, db.clock.now())
        if settlement is None:
            return None
        failpoint("settlement.before_close")
        [result] = await context.flow.ledger.submit([_group(settlement, lines, key)])
        failpoint("settlement.after_close")
        if result.happened:
            SETTLEMENTS.inc()
            context.flow.nudge()
            return settlement
        if result.code == AccountFrozen.code:
            raise AccountHeldBack(day=day.isoformat())
        overtaken = result.code in {_CONTENDED, ExceedsBalance.code, *MOVED_BEFORE}
        if not overtaken and result.status != "in_flight":
            raise RuntimeError(f"the ledger refused a settlement: {result.code} of {day}")
    raise SettlementContended


async def _closed_before(db: Db, last: Settlement, day: date) -> Settlement | None:
    """Return the day's settlement that is there already.

    Raises:
        DayPassed
    """
    found = await store.SETTLEMENT_OF_DAY.first(
        db, last.book, last.merchant_id, last.mode, last.currency, day
    )
    if found is None:
        raise DayPassed(day=day.isoformat(), closed=last.day.isoformat())
    return found


async def _unsettled(
    db: Db, book: int, key: AccountKey, mode: Mode, *, day: date, last: Settlement | None
) -> _Lines:
    """Return the account's movements up to the day that no settlement has had.

    A movement of the day may be committed after its settlement, and comes in the next one: what
    counts is that it was not settled, not when the day was.
    """
    after = 0 if last is None else last.through_seq
    had = set(await store.SETTLED_AFTER.all(db, book, key.owner, mode, after))
    lines = _Lines()
    newest, first_later = after, None
    async for line in movements(db, book, key, after=after):
        newest = max(newest, line.seq)
        if line.biz_date > day:
            first_later = line.seq
        elif line.seq not in had and not line.code.startswith(f"{OWN_RULE}/"):
            lines.add(line)
    lines.through_seq = newest if first_later is None else first_later - 1
    return lines


def _draw(terms: _Terms, lines: _Lines, available: int, now: datetime) -> Settlement | None:
    """Return the settlement as it would be, or None when there is nothing to settle."""
    figures, last = figures_of(lines.sums), terms.last
    opening = 0 if last is None else last.carried
    due = opening + figures.net
    payable = payable_of(due, available)
    if not lines.seqs and not payable:
        return None
    return Settlement(
        book=terms.merchant.book(terms.mode),
        id=new_id(),
        merchant_id=terms.merchant.id,
        mode=terms.mode,
        currency=terms.key.currency,
        day=terms.day,
        previous_id=None if last is None else last.id,
        opening=opening,
        gross=figures.gross,
        fees=figures.fees,
        refunds=figures.refunds,
        fees_returned=figures.fees_returned,
        other=figures.other,
        due=due,
        payable=payable,
        carried=due - payable,
        line_count=len(lines.seqs),
        through_seq=lines.through_seq,
        state=SettlementState.CLOSED,
        payout_id=new_id() if payable else None,
        closed_at=now,
    )


def _group(settlement: Settlement, lines: _Lines, key: AccountKey) -> Group:
    """Return what closes the day: the posting and every row that goes with it."""
    now = settlement.closed_at
    event = SettlementClosed(
        merchant_id=settlement.merchant_id,
        mode=settlement.mode,
        resource_id=show("set", settlement.id),
        object=view_settlement(settlement),
    )
    return Group(
        id=new_id(),  # the settlement's keys keep it to once; a refusal must not be remembered
        book=settlement.book,
        transfers=posting.transfers(
            OWN_RULE,
            reference=settlement.id,
            accounts={
                _PAYABLE: key,
                "settlement_due": AccountKey("settlement_due", key.currency, key.owner),
            },
            amounts={"net": Money(settlement.payable, key.currency)},
        ),
        companions=(
            Write(store.INSERT_SETTLEMENT, msgspec.structs.astuple(settlement), refusal=_CONTENDED),
            *_line_writes(settlement, lines),
            *_payout_writes(settlement, now),
            event_write(event, now=now),
        ),
    )


def _line_writes(settlement: Settlement, lines: _Lines) -> list[Write]:
    place = (settlement.book, settlement.merchant_id, settlement.mode, settlement.id)
    cuts = [*range(0, len(lines.seqs), _CHUNK), len(lines.seqs)]
    columns = (lines.seqs, lines.codes, lines.references, lines.amounts, lines.days)
    return [
        Write(store.INSERT_LINES, (*place, *(column[start:end] for column in columns)))
        for start, end in pairwise(cuts)
    ]


def _payout_writes(settlement: Settlement, now: datetime) -> tuple[Write, ...]:
    if settlement.payout_id is None:
        return ()
    asked = NewPayout(
        book=settlement.book,
        settlement_id=settlement.id,
        merchant_id=settlement.merchant_id,
        mode=settlement.mode,
        money=Money(settlement.payable, settlement.currency),
    )
    noon = datetime.combine(business_date(now), PAY_AT, BUSINESS_ZONE)
    return payout_writes(settlement.payout_id, asked, now=now, pay_at=max(now, noon))


async def all_merchants(db: Db, merchant_id: UUID | None = None) -> AsyncIterator[Merchant]:
    """Yield every merchant, or one.

    Raises:
        MerchantNotFound
    """
    if merchant_id is not None:
        yield await merchants.merchant_with_id(db, merchant_id)
        return
    cursor = None
    while True:
        page = await merchants.list_merchants(db, cursor=cursor, limit=PAGE_MAX)
        for merchant in page.items:
            yield merchant
        if page.next_cursor is None:
            return
        cursor = page.next_cursor
