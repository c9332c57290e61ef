"""The calendar of days compared, and every difference as a case.

Mounted into the console by wiring, whose templates and texts it uses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

from msgspec import Struct

from tongbao.clearing.cases.cases import (
    Case,
    cases_of,
    leave_case,
    propose_closing,
    propose_posting,
    take_case,
)
from tongbao.clearing.cases.model import CLOSE, POST
from tongbao.clearing.reconciliation import queries
from tongbao.clearing.reconciliation.model import BillFile, BreakClass, BreakState, ReconBreak
from tongbao.clearing.reconciliation.queries import BreakFilter
from tongbao.controls.approvals.queries import open_about
from tongbao.infra import audit
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Invalid
from tongbao.kernel.ids import UnknownId, parse, show
from tongbao.kernel.pages import Page
from tongbao.ledger import queries as ledger
from tongbao.ledger.queries import RecordedTransfer
from tongbao.parties.identity.model import Permission
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.model import Attempt
from tongbao.rails.channels.accounts import list_accounts
from tongbao.surfaces.four_eyes.inbox import permissions_of, proposed
from tongbao.surfaces.operator_console.visit import PREFIX, Route, Visit
from tongbao.surfaces.page_kit.replies import CSV, Reply, file_reply, redirect

HERE: Final = f"{PREFIX}/differences"
CALENDAR: Final = f"{PREFIX}/reconciliation/calendar"
ROWS: Final = 50
EXPORTED_MAX: Final = 100_000
_MONTHS: Final = range(1, 13)
_YEARS: Final = range(2000, 2100)


class CaseFilterMalformed(Invalid):
    """A filter of the list is none of its values."""

    code = "console.case_filter_malformed"
    advice = "Choose from the lists; a day is written 2026-11-21, a month 2026-11."
    advice_zh = "请从列表中选择；日期格式为 2026-11-21，月份格式为 2026-11。"


class Day(Struct, frozen=True):
    """One field of the calendar: green, amber, red, or nothing was asked for yet."""

    day: date
    colour: str
    address: str | None
    count: int  # open differences


class Line(Struct, frozen=True):
    """One account's month."""

    channel: str
    number: str
    mode: str
    days: list[Day]


class Shown(Struct, frozen=True):
    """A case with what the list needs beside it."""

    case: Case
    id: str
    account: str


async def show_calendar(visit: Visit) -> Reply:
    """Return a month: a line for each channel account and matching rule, a colour for each day.

    Raises:
        CaseFilterMalformed
    """
    desk = visit.desk
    today = business_date(desk.db.clock.now())
    first = _month(visit.request.query.get("month", ""), today)
    last = _next_month(first) - timedelta(days=1)
    bills, counts = await queries.days_between(desk.db, first, last)
    numbers = {row.id: row.merchant_number for row in await list_accounts(desk.db)}
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    facts = {
        "days": days,
        "lines": _lines(bills, counts, numbers, days),
        "month": f"{first:%Y-%m}",
        "before": f"{CALENDAR}?month={first - timedelta(days=1):%Y-%m}",
        "after": f"{CALENDAR}?month={last + timedelta(days=1):%Y-%m}" if last < today else None,
    }
    return await visit.page("recon_calendar.html", facts)


async def show_cases(visit: Visit) -> Reply:
    """Return differences as cases, filtered.

    Raises:
        CaseFilterMalformed, CursorInvalid
    """
    desk, query = visit.desk, visit.request.query
    chosen = _chosen(query)
    page = await _page(visit, chosen, query.get("cursor"), ROWS)
    given = {name: value for name, value in chosen.items() if value}
    accounts = {row.id: row.merchant_number for row in await list_accounts(desk.db)}
    older = urlencode({**given, "cursor": page.next_cursor}) if page.next_cursor else None
    today = business_date(desk.db.clock.now())
    facts = {
        "chosen": chosen,
        "classes": list(BreakClass),
        "states": list(BreakState),
        "accounts": [(show("chn", key), number) for key, number in accounts.items()],
        "rows": [
            Shown(each, show("brk", each.found.id), accounts.get(each.found.account_id, ""))
            for each in await cases_of(desk.db, page.items, today)
        ],
        "older": f"{HERE}?{older}" if older else None,
        "export": f"{HERE}.csv?{urlencode(given)}",
    }
    return await visit.page("recon_cases.html", facts)


async def export_cases(visit: Visit) -> Reply:
    """Return the differences of a filter as a file, at most a hundred thousand of them.

    Raises:
        CaseFilterMalformed
    """
    chosen, cursor, lines = _chosen(visit.request.query), None, [queries.csv_header()]
    while len(lines) <= EXPORTED_MAX:
        page = await _page(visit, chosen, cursor, 100)
        lines += [queries.break_line(each) for each in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        facts = {name: value for name, value in chosen.items() if value}
        await audit.record(tx, "reconciliation.exported", "cases", {**facts, "rows": len(lines)})
    return file_reply(("\ufeff" + "".join(lines)).encode(), CSV, name="differences.csv")


async def show_case(visit: Visit) -> Reply:
    """Return one difference: the bill's rows, ours and the ledger's side by side, and what to do.

    Raises:
        UnknownId, BreakNotFound
    """
    desk = visit.desk
    found = await queries.break_with_id(desk.db, _id(visit))
    today = business_date(desk.db.clock.now())
    [case] = await cases_of(desk.db, [found], today)
    subject = show("brk", found.id)
    attempts, transfers = await _ours(visit, found)
    facts = {
        "case": case,
        "found": found,
        "id": subject,
        "own": f"{HERE}/{subject}",
        "rows": await queries.rows_behind(desk.db, found),
        "attempts": attempts,
        "transfers": transfers,
        "asked": (await open_about(desk.db, (POST, CLOSE), [subject])).get(subject),
        "is_mine": case.owner == visit.operator.actor,
        "may_post": case.can_be_posted and desk.flow.licence.may_hold_funds,
        "day": f"{PREFIX}/reconciliation/{show('chn', found.account_id)}/{found.day}",
        "done": visit.request.query.get("done"),
    }
    return await visit.page("recon_case.html", facts)


async def take_one(visit: Visit) -> Reply:
    """Take a case, or take it over.

    Raises:
        UnknownId, BreakNotFound, CaseTaken
    """
    is_over = visit.request.form.get("over") == "yes"
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        await take_case(tx, _id(visit), take_over=is_over)
    return redirect(f"{HERE}/{visit.params['break_id']}?done=case_taken")


async def leave_one(visit: Visit) -> Reply:
    """Give one's own case back.

    Raises:
        UnknownId, BreakNotFound
    """
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        await leave_case(tx, _id(visit))
    return redirect(f"{HERE}/{visit.params['break_id']}?done=case_left")


async def post_one(visit: Visit) -> Reply:
    """Propose to post a difference against suspense; somebody else decides in the inbox.

    Raises:
        UnknownId, BreakNotFound, NothingToPost, MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    reason = visit.request.form.get("reason", "")
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        approval = await propose_posting(tx, _id(visit), reason=reason, may=permissions_of(visit))
    return proposed(approval)


async def close_one(visit: Visit) -> Reply:
    """Propose to close a difference as it is; one without money is closed by that.

    Raises:
        UnknownId, BreakNotFound, BreakNotOpen, MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    reason = visit.request.form.get("reason", "")
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        approval = await propose_closing(tx, _id(visit), reason=reason, may=permissions_of(visit))
    if approval is not None:
        return proposed(approval)
    return redirect(f"{HERE}/{visit.params['break_id']}?done=break_closed")


def _id(visit: Visit) -> UUID:
    return parse("brk", visit.params["break_id"])


async def _ours(
    visit: Visit, found: ReconBreak
) -> tuple[Sequence[Attempt], Sequence[RecordedTransfer]]:
    """Return the attempts and what the ledger has for them; nothing of what is none of ours."""
    db, may = visit.desk.db, visit.desk.flow.licence.may_hold_funds
    if found.payment_id is None:
        return [], []
    story = await payments.timeline(db, found.payment_id)
    if not may:
        return story.attempts, []
    reference = found.refund_id or found.payment_id
    return story.attempts, await ledger.transfers_of_reference(db, story.payment.book, reference)


def _chosen(query: Mapping[str, str]) -> dict[str, str]:
    names = ("class", "state", "account", "day")
    return {name: query.get(name, "").strip()[:64] for name in names}


async def _page(
    visit: Visit, chosen: Mapping[str, str], cursor: str | None, limit: int
) -> Page[ReconBreak]:
    try:
        wanted = BreakFilter(
            account_id=parse("chn", chosen["account"]) if chosen["account"] else None,
            day=date.fromisoformat(chosen["day"]) if chosen["day"] else None,
            break_class=BreakClass(chosen["class"]) if chosen["class"] else None,
            states=(BreakState(chosen["state"]),) if chosen["state"] else None,
        )
    except (ValueError, UnknownId):
        raise CaseFilterMalformed from None
    return await queries.list_breaks(visit.desk.db, wanted, cursor=cursor, limit=limit)


def _month(text: str, today: date) -> date:
    if not text:
        return today.replace(day=1)
    year, _, month = text.partition("-")
    try:
        first = date(int(year), int(month), 1)
    except ValueError:
        raise CaseFilterMalformed(param="month") from None
    if first.year not in _YEARS or first.month not in _MONTHS:
        raise CaseFilterMalformed(param="month")
    return first


def _next_month(first: date) -> date:
    return (first + timedelta(days=31)).replace(day=1)


def _lines(
    bills: Sequence[BillFile],
    counts: Mapping[tuple[UUID, date], int],
    numbers: Mapping[UUID, str],
    days: Sequence[date],
) -> list[Line]:
    by_account: dict[UUID, dict[date, BillFile]] = {}
    for bill in bills:
        by_account.setdefault(bill.account_id, {})[bill.day] = bill
    lines = []
    for account_id, found in by_account.items():
        head = next(iter(found.values()))
        lines.append(
            Line(
                channel=head.channel,
                number=numbers.get(account_id, ""),
                mode=head.mode.value,
                days=[_day(found.get(day), day, counts.get((account_id, day), 0)) for day in days],
            )
        )
    return lines


def _day(bill: BillFile | None, day: date, count: int) -> Day:
    if bill is None:
        return Day(day, "none", None, 0)
    address = f"{PREFIX}/reconciliation/{show('chn', bill.account_id)}/{day}"
    return Day(day, colour_of(bill, count), address, count)


def colour_of(bill: BillFile, count: int) -> str:
    """Return red where somebody has to act, amber where something is awaited, else green."""
    if count or bill.fault_count:
        return "red"
    return "green" if bill.state.is_final and not bill.waiting_count else "amber"


_VIEW: Final = Permission.VIEW
_ACT: Final = Permission.BREAKS_ACT

ROUTES: Final = (
    Route("GET", "/reconciliation/calendar", show_calendar, _VIEW),
    Route("GET", "/differences", show_cases, _VIEW),
    Route("GET", "/differences.csv", export_cases, _VIEW),
    Route("GET", "/differences/{break_id}", show_case, _VIEW),
    Route("POST", "/differences/{break_id}/take", take_one, _ACT),
    Route("POST", "/differences/{break_id}/leave", leave_one, _ACT),
    Route("POST", "/differences/{break_id}/close", close_one, _ACT),
    Route("POST", "/differences/{break_id}/post", post_one, _ACT, is_licensed=True),
)
"""The console's routes of this room."""
