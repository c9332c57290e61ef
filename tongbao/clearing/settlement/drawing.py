"""Draw settlements of many merchants at once: what their lines are and how the sum is shared.

Everything is read in a few questions for all of them, worked out here, and written in one
transaction that moves no money. Two who draw the same merchant make one settlement: its place in
the chain is a unique key. What was drawn waits to be closed (`closing`) or is dropped.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

from msgspec import Struct, field
from msgspec.structs import astuple, replace

from tongbao.clearing.context import Clearing
from tongbao.clearing.settlement import _store as store
from tongbao.clearing.settlement.model import (
    OWN_RULE,
    PAYABLE,
    AccountHeldBack,
    DayPassed,
    Settlement,
    SettlementInBatch,
    SettlementKind,
    SettlementNotDue,
    SettlementState,
    figures_of,
)
from tongbao.clearing.settlement_terms.model import (
    TermFigures,
    Works,
    due_from,
    ends_at,
    held_back,
    newest_due,
    shares_of,
)
from tongbao.clearing.settlement_terms.queries import Agreed, agreed_with, working_days
from tongbao.infra.db import Tx, Write, write_all
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Mode
from tongbao.ledger.chains import HistoryArchived
from tongbao.ledger.many import OwnedAccount, Since, accounts_of_owners, movements_of_many
from tongbao.ledger.model import AccountState, Side
from tongbao.parties.merchants.model import Merchant

DEBT: Final = "merchant_debt"
ACTOR: Final = "settlement"
PIECE: Final = 2_000
"""Merchants read about in one question; several of them are asked at once."""
_OWN: Final = f"{OWN_RULE}/"


class Wanted(Struct, frozen=True):
    """What is to be drawn: one day of everybody, or without one each merchant's newest due.

    A quick one takes everything there is so far. Without a currency it is every one.
    """

    mode: Mode
    day: date | None = None
    kind: SettlementKind = SettlementKind.DAY
    batch_id: UUID | None = None
    currency: str | None = None


class Drawn(Struct):
    """What drawing came to: what was drawn, what was there, and who was left out and why."""

    new: list[Settlement] = field(default_factory=list)
    waiting: list[Settlement] = field(default_factory=list)  # drawn before, not released
    closed: list[Settlement] = field(default_factory=list)  # the newest of its chain, already
    left_out: dict[tuple[UUID, str], str] = field(default_factory=dict)


class _Case(Struct):
    """One account to settle: whose, of which day, after which settlement."""

    account: OwnedAccount
    figures: TermFigures
    day: date
    last: Settlement | None
    id: UUID = field(default_factory=new_id)
    sums: Counter[str] = field(default_factory=Counter)
    lines: list[int] = field(default_factory=list)  # places among what was walked
    newest: int = 0
    first_later: int | None = None

    @property
    def after(self) -> int:
        return 0 if self.last is None else self.last.through_seq


class Lines(Struct):
    """Columns of settlement lines, for one statement; ``place`` counts settlements from one."""

    places: list[int] = field(default_factory=list)
    seqs: list[int] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    references: list[UUID] = field(default_factory=list)
    amounts: list[int] = field(default_factory=list)
    days: list[date] = field(default_factory=list)


class _Drawing(Struct, frozen=True):
    """What is drawn for one book: the settlements, and the lines of each by its place."""

    book: int
    settlements: list[Settlement]
    lines: Lines


class _Reading(Struct, frozen=True):
    """What a drawing goes by, read once for all its merchants."""

    wanted: Wanted
    agreed: Agreed
    works: Works
    today: date
    now: datetime


class Prepared(Struct, frozen=True):
    """What may be drawn, as it was read: nothing of it is written yet."""

    mode: Mode
    drawn: Drawn
    drawings: Sequence[_Drawing]


async def draw(context: Clearing, merchants: Sequence[Merchant], wanted: Wanted) -> Drawn:
    """Draw what is due for these merchants."""
    return await write_prepared(context, await prepare(context, merchants, wanted))


async def prepare(context: Clearing, merchants: Sequence[Merchant], wanted: Wanted) -> Prepared:
    """Read and work out what is due for these merchants.

    However old it is when it is written, nothing is settled twice: a place in a chain that was
    taken meanwhile is left out then, and what may be paid is looked at again when it is closed.
    """
    db = context.db
    now = db.clock.now()
    reading = _Reading(
        wanted=wanted,
        agreed=await agreed_with(db, wanted.mode, merchants),
        works=await working_days(db),
        today=business_date(now),
        now=now,
    )
    books: dict[int, list[Merchant]] = {}
    for merchant in merchants:
        books.setdefault(merchant.book(wanted.mode), []).append(merchant)
    drawn = Drawn()
    drawings = await asyncio.gather(
        *(
            _draw_book(context, book, its[start : start + PIECE], reading, drawn)
            for book, its in books.items()
            for start in range(0, len(its), PIECE)
        )
    )
    return Prepared(wanted.mode, drawn, drawings)


async def write_prepared(
    context: Clearing, prepared: Prepared, *, also: Sequence[Write] = ()
) -> Drawn:
    """Draw what was prepared; ``also`` is written with it, or nothing is.

    Raises:
        DrawingOvertaken: a write of ``also`` was refused.
    """
    drawn = prepared.drawn
    failpoint("settlement.before_draw")
    async with context.db.begin(ACTOR) as tx:
        if await write_all(tx, also) is not None:
            raise DrawingOvertaken
        for drawing in prepared.drawings:
            drawn.new += await _write(tx, drawing, prepared.mode)
    failpoint("settlement.after_draw")
    return drawn


class DrawingOvertaken(Exception):
    """Somebody else has drawn these merchants; nothing was written."""


async def _draw_book(
    context: Clearing, book: int, merchants: Sequence[Merchant], reading: _Reading, drawn: Drawn
) -> _Drawing:
    db, mode = context.db, reading.wanted.mode
    accounts = await accounts_of_owners(
        db, book, [merchant.id for merchant in merchants], [PAYABLE, DEBT]
    )
    owed = {(each.owner, each.currency): each.posted for each in accounts if each.kind == DEBT}
    payable = [
        each
        for each in accounts
        if each.kind == PAYABLE
        and each.newest is not None
        and reading.wanted.currency in {None, each.currency}
    ]
    lasts = {
        (last.merchant_id, last.currency): last
        for last in await store.LAST_OF_MANY.all(
            db, book, mode, [each.owner for each in payable], [each.currency for each in payable]
        )
    }
    cases = _cases(payable, lasts, reading, drawn)
    lines = await _walk(context, book, cases, reading, drawn)
    settlements: list[Settlement] = []
    kept = Lines()
    for case in cases:
        whose = (case.account.owner, case.account.currency)
        settlement = _settlement(book, case, reading, owed=owed.get(whose, 0))
        if settlement is None or whose in drawn.left_out:
            continue
        settlements.append(settlement)
        _keep(kept, len(settlements), case, lines)
    return _Drawing(book, settlements, kept)


def _cases(
    accounts: Sequence[OwnedAccount],
    lasts: Mapping[tuple[UUID, str], Settlement],
    reading: _Reading,
    drawn: Drawn,
) -> list[_Case]:
    """Return the accounts to settle; who is not one of them is noted with the reason."""
    cases = []
    for account in accounts:
        whose = (account.owner, account.currency)
        last = lasts.get(whose)
        day, figures = _day_of(account.owner, reading)
        if last is not None and last.state is SettlementState.DRAWN:
            drawn.waiting.append(last)
            drawn.left_out[whose] = SettlementInBatch.code
        elif day is None:
            drawn.left_out[whose] = SettlementNotDue.code
        elif last is not None and _is_passed(last, day, reading.wanted.kind):
            drawn.closed.append(last)
            drawn.left_out[whose] = DayPassed.code
        elif account.state is not AccountState.OPEN:
            drawn.left_out[whose] = AccountHeldBack.code
        else:
            cases.append(_Case(account, figures, day, last))
    return cases


def _day_of(merchant_id: UUID, reading: _Reading) -> tuple[date | None, TermFigures]:
    """Return the day that is closed for a merchant, or None where it is not due."""
    wanted, today = reading.wanted, reading.today
    if wanted.kind is SettlementKind.QUICK:
        return today, reading.agreed.figures(merchant_id, today)
    if wanted.day is None:
        figures = reading.agreed.figures(merchant_id, today)
        return newest_due(figures, today, reading.works), figures
    figures = reading.agreed.figures(merchant_id, wanted.day)
    is_due = due_from(figures, wanted.day, reading.works) <= today
    return (wanted.day if is_due else None), figures


def _is_passed(last: Settlement, day: date, kind: SettlementKind) -> bool:
    """Tell whether what is asked for is settled: a day is closed once, and days go in order."""
    if kind is SettlementKind.QUICK:
        return last.day > day
    return last.day > day or (last.day == day and last.kind is SettlementKind.DAY)


async def _walk(
    context: Clearing, book: int, cases: list[_Case], reading: _Reading, drawn: Drawn
) -> Lines:
    """Read what moved since each one's last settlement and give the cases their sums.

    A movement of the day may be committed after its settlement, and comes in the next one: what
    counts is that it was not settled, not when the day was.
    """
    is_quick = reading.wanted.kind is SettlementKind.QUICK
    asked = [
        Since(
            case.account,
            case.after,
            until=case.day,
            before=None if is_quick else ends_at(case.figures, case.day),
        )
        for case in cases
    ]
    walked = await movements_of_many(context.db, book, asked, Side.CREDIT)
    for place in walked.lost:
        lost = cases[place - 1].account
        drawn.left_out[lost.owner, lost.currency] = HistoryArchived.code
    had = await _had(context, book, cases, walked.places, walked.seqs)
    own = {code: code.startswith(_OWN) for code in set(walked.codes)}
    rows = zip(walked.places, walked.seqs, walked.codes, walked.changes, walked.within, strict=True)
    for index, (place, seq, code, change, within) in enumerate(rows):
        case = cases[place - 1]
        case.newest = seq
        if not within:
            if case.first_later is None:
                case.first_later = seq
        elif not own[code] and (place, seq) not in had:
            case.lines.append(index)
            case.sums[code] += change
    return Lines(
        walked.places, walked.seqs, walked.codes, walked.references, walked.changes,
        walked.biz_dates,
    )  # fmt: skip


async def _had(
    context: Clearing,
    book: int,
    cases: Sequence[_Case],
    places: Sequence[int],
    seqs: Sequence[int],
) -> set[tuple[int, int]]:
    """Return the movements that a settlement has already; none above its newest line can be."""
    newest = [0 if case.last is None else case.last.newest_seq for case in cases]
    doubtful = [
        (place, seq) for place, seq in zip(places, seqs, strict=True) if seq <= newest[place - 1]
    ]
    if not doubtful:
        return set()
    owners = [cases[place - 1].account.owner for place, _ in doubtful]
    found = await store.HAD_AMONG.all(context.db, book, owners, [seq for _, seq in doubtful])
    had = {(each.merchant_id, each.seq) for each in found}
    return {(place, seq) for place, seq in doubtful if (cases[place - 1].account.owner, seq) in had}


def _settlement(book: int, case: _Case, reading: _Reading, *, owed: int) -> Settlement | None:
    """Return the settlement as it would be, or None when there is nothing to settle."""
    figures, last, account = figures_of(case.sums), case.last, case.account
    is_quick = reading.wanted.kind is SettlementKind.QUICK
    opening = 0 if last is None else last.carried
    due = opening + figures.net
    shares = shares_of(
        case.figures,
        due,
        available=account.available,
        collected=figures.gross - figures.refunds,
        owed=owed,
        held=held_back(reading.agreed.holds.get(account.owner, ()), reading.today),
        is_quick=is_quick,
    )
    if (not case.lines and shares.carried == due) or (is_quick and not shares.payable):
        return None
    newest = max(case.newest, case.after)
    had = 0 if last is None else last.newest_seq
    keeps_until = reading.today + timedelta(days=case.figures.reserve_days)
    return Settlement(
        book=book,
        id=case.id,
        merchant_id=account.owner,
        mode=reading.wanted.mode,
        currency=account.currency,
        kind=reading.wanted.kind,
        day=case.day,
        number=1 if last is None else last.number + 1,
        previous_id=None if last is None else last.id,
        batch_id=reading.wanted.batch_id,
        opening=opening,
        gross=figures.gross,
        fees=figures.fees,
        refunds=figures.refunds,
        fees_returned=figures.fees_returned,
        other=figures.other,
        due=due,
        reserved=shares.reserved,
        quick_fee=shares.quick_fee,
        payable=shares.payable,
        carried=shares.carried,
        line_count=len(case.lines),
        through_seq=newest if case.first_later is None else case.first_later - 1,
        newest_seq=max(had, newest if case.lines else 0),
        reserve_until=keeps_until if shares.reserved else None,
        pays_by=case.figures.pays_by,
        state=SettlementState.DRAWN,
        payout_id=new_id() if shares.payable else None,
        drawn_at=reading.now,
        closed_at=None,
    )


def _keep(kept: Lines, place: int, case: _Case, lines: Lines) -> None:
    """Add the lines of a case to those to be written."""
    kept.places += [place] * len(case.lines)
    kept.seqs += [lines.seqs[each] for each in case.lines]
    kept.codes += [lines.codes[each] for each in case.lines]
    kept.references += [lines.references[each] for each in case.lines]
    kept.amounts += [lines.amounts[each] for each in case.lines]
    kept.days += [lines.days[each] for each in case.lines]


async def _write(tx: Tx, drawing: _Drawing, mode: Mode) -> list[Settlement]:
    """Write what nobody has drawn meanwhile, and return that."""
    if not drawing.settlements:
        return []
    columns = [list(column) for column in zip(*map(astuple, drawing.settlements), strict=True)]
    made = set(await store.INSERT_DRAWN.all(tx, *columns))
    lines = drawing.lines if len(made) == len(drawing.settlements) else _lines_of(drawing, made)
    if lines.seqs:
        await store.INSERT_LINES.run(
            tx,
            drawing.book,
            mode,
            [each.merchant_id for each in drawing.settlements],
            [each.id for each in drawing.settlements],
            *astuple(lines),
        )
    return [each for each in drawing.settlements if each.id in made]


def _lines_of(drawing: _Drawing, made: set[UUID]) -> Lines:
    """Return the lines of those settlements only."""
    kept = [each.id in made for each in drawing.settlements]
    its = [index for index, place in enumerate(drawing.lines.places) if kept[place - 1]]
    return Lines(*([column[each] for each in its] for column in astuple(drawing.lines)))


async def drop(tx: Tx, drafts: Sequence[Settlement]) -> int:
    """Take back what was drawn and is not released; its movements are free for the next."""
    books: dict[int, list[UUID]] = {}
    for draft in drafts:
        books.setdefault(draft.book, []).append(draft.id)
    dropped = 0
    for book, ids in books.items():
        gone = await store.DROP.all(tx, book, ids)
        await store.DROP_LINES.run(tx, book, gone)
        dropped += len(gone)
    return dropped


def reshared(
    draft: Settlement, figures: TermFigures, *, available: int, held: int | None, owed: int
) -> Settlement:
    """Return a draft with its sum shared anew, none of the shares larger than was drawn."""
    shares = shares_of(
        figures,
        draft.due,
        available=available,
        collected=draft.gross - draft.refunds,
        owed=owed,
        held=held,
        is_quick=draft.kind is SettlementKind.QUICK,
    )
    payable = min(shares.payable, draft.payable)
    reserved = min(shares.reserved, draft.reserved)
    fee = min(shares.quick_fee, draft.quick_fee)
    return replace(
        draft,
        reserved=reserved,
        quick_fee=fee,
        payable=payable,
        carried=draft.due - reserved - fee - payable,
        reserve_until=draft.reserve_until if reserved else None,
        payout_id=draft.payout_id if payable else None,
    )
