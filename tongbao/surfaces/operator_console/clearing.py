"""After the day: how bills compare, what differs, what merchants were settled and paid out.

Runs are asked for and done by the worker, so that a page never waits for a bill.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.clearing.payouts import queries as payouts
from tongbao.clearing.payouts.model import Payout
from tongbao.clearing.reconciliation import queries as reconciliation
from tongbao.clearing.reconciliation.breaks import approve_close, propose_close, reject_close
from tongbao.clearing.reconciliation.days import ReconcileDay
from tongbao.clearing.reconciliation.model import BreakState, ReconBreak
from tongbao.clearing.reconciliation.queries import BreakFilter
from tongbao.clearing.settlement import queries as settlements
from tongbao.clearing.settlement.model import Settlement, view_line
from tongbao.clearing.settlement.queries import SettlementFilter
from tongbao.clearing.settlement_batches.batches import open_batch
from tongbao.infra import audit
from tongbao.infra.tasks import enqueue
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Invalid
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.parties.merchants.queries import merchants_with_ids
from tongbao.rails.channels.accounts import list_accounts
from tongbao.surfaces.operator_console.visit import PREFIX, Desk, Visit
from tongbao.surfaces.page_kit.evidence import readable
from tongbao.surfaces.page_kit.replies import CSV, Reply, file_reply, redirect

DAYS_SHOWN: Final = 60
ROWS: Final = 50
REASON_MAX: Final = 500
_WAITING: Final = (BreakState.OPEN, BreakState.PROPOSED)


class DayMalformed(Invalid):
    """The day is no date, or one that is not over."""

    code = "console.day_malformed"
    advice = "Give a day that is over, as 2026-11-21."
    advice_zh = "请填写已结束的业务日，格式为 2026-11-21。"


class ReasonMissing(Invalid):
    """A difference is dealt with for a reason that others can understand later."""

    code = "console.reason_missing"
    advice = "Write what was found, in 4 to 500 characters."
    advice_zh = "请填写查明的情况，4 至 500 个字符。"


class Difference(Struct, frozen=True):
    """One line of the list of differences."""

    found: ReconBreak
    id: str
    is_own: bool  # proposed by whoever looks at it, who cannot approve it


class Settled(Struct, frozen=True):
    """One line of the list of settlements."""

    settlement: Settlement
    id: str
    merchant: str
    payout: Payout | None


# Reconciliation


async def show_reconciliation(visit: Visit) -> Reply:
    """Return the days compared, and every difference that waits for somebody."""
    db, query = visit.desk.db, visit.request.query
    page = await reconciliation.list_breaks(
        db, BreakFilter(states=_WAITING), cursor=query.get("cursor"), limit=ROWS
    )
    facts = {
        "bills": await reconciliation.latest_bills(db, limit=DAYS_SHOWN),
        "accounts": await _account_numbers(visit.desk),
        "breaks": _differences(visit, page.items),
        "older": f"{PREFIX}/reconciliation?cursor={page.next_cursor}" if page.next_cursor else None,
        "done": query.get("done"),
    }
    return await visit.page("reconciliation.html", facts)


async def show_day(visit: Visit) -> Reply:
    """Return how one account's day compares, to the last difference.

    Raises:
        BillUnknown
    """
    db, query = visit.desk.db, visit.request.query
    account_id, day = _place(visit)
    page = await reconciliation.list_breaks(
        db, BreakFilter(account_id=account_id, day=day), cursor=query.get("cursor"), limit=ROWS
    )
    own = _day_address(account_id, day)
    facts = {
        "report": await reconciliation.report(db, account_id, day),
        "versions": await reconciliation.versions(db, account_id, day),
        "accounts": await _account_numbers(visit.desk),
        "breaks": _differences(visit, page.items),
        "older": f"{own}?cursor={page.next_cursor}" if page.next_cursor else None,
        "own": own,
        "done": query.get("done"),
    }
    return await visit.page("day.html", facts)


async def export_day(visit: Visit) -> Reply:
    """Return an account's differences of a day as a file.

    Raises:
        BillUnknown
    """
    account_id, day = _place(visit)
    await reconciliation.report(visit.desk.db, account_id, day)
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        subject = show("chn", account_id)
        await audit.record(tx, "reconciliation.exported", subject, {"day": day.isoformat()})
        # Whole before it is sent: a slow reader must not keep a transaction open.
        lines = [line async for line in reconciliation.breaks_csv(tx, account_id, day)]
    content = "\ufeff" + "".join(lines)
    return file_reply(content.encode(), CSV, name=f"differences-{day.isoformat()}.csv")


async def compare_day_again(visit: Visit) -> Reply:
    """Ask for an account's day to be compared now; a bill that is not whole is fetched first.

    Raises:
        BillUnknown
    """
    account_id, day = _place(visit)
    await reconciliation.report(visit.desk.db, account_id, day)
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        await enqueue(tx, ReconcileDay(account_id, day), key=f"{account_id}/{day}")
        subject = show("chn", account_id)
        await audit.record(tx, "reconciliation.asked", subject, {"day": day.isoformat()})
    visit.desk.flow.nudge()
    return redirect(f"{_day_address(account_id, day)}?done=queued")


async def propose_break(visit: Visit) -> Reply:
    """Say how a difference is to be closed; one without money is closed by that.

    Raises:
        ReasonMissing, BreakNotFound, BreakNotOpen
    """
    reason = _reason(visit.request.form)
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        found = await propose_close(tx, _break_id(visit), reason)
    return _dealt_with(visit, found)


async def approve_break(visit: Visit) -> Reply:
    """Agree to somebody else's proposal, which closes the difference.

    Raises:
        BreakNotFound, BreakNotOpen, SameEyes
    """
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        found = await approve_close(tx, _break_id(visit))
    return _dealt_with(visit, found)


async def reject_break(visit: Visit) -> Reply:
    """Turn a proposal down, or take one's own back.

    Raises:
        ReasonMissing, BreakNotFound, BreakNotOpen
    """
    reason = _reason(visit.request.form)
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        found = await reject_close(tx, _break_id(visit), reason)
    return _dealt_with(visit, found)


# Settlement


async def show_settlements(visit: Visit) -> Reply:
    """Return settlements, newest first, and the payouts that have not come to their end."""
    db, query = visit.desk.db, visit.request.query
    page = await settlements.list_settlements(
        db, SettlementFilter(), cursor=query.get("cursor"), limit=ROWS
    )
    contradicted = await payouts.contradicted_payouts(db)
    waiting = await payouts.open_payouts(db)
    facts = {
        "settled": await _with_payouts(visit.desk, page.items),
        "contradicted": await _with_names(visit.desk, contradicted),
        "waiting": await _with_names(visit.desk, waiting),
        "older": f"{PREFIX}/settlements?cursor={page.next_cursor}" if page.next_cursor else None,
        "yesterday": business_date(db.clock.now()) - timedelta(days=1),
        "done": query.get("done"),
    }
    return await visit.page("settlements.html", facts)


async def show_settlement(visit: Visit) -> Reply:
    """Return one settlement to the last fen, and the payout with its evidence.

    Raises:
        SettlementNotFound
    """
    db, query = visit.desk.db, visit.request.query
    found = await settlements.settlement_with_id(db, parse("set", visit.params["settlement_id"]))
    lines = await settlements.lines_of_settlement(db, found, cursor=query.get("cursor"), limit=100)
    [settled] = await _with_payouts(visit.desk, [found])
    sheets = []
    if settled.payout is not None:
        sheets = [
            (each, readable(f"{each.method} {each.url}\n\n{each.request}"), readable(each.reply))
            for each in await payouts.exchanges_of_payout(db, settled.payout)
        ]
    own = f"{PREFIX}/settlements/{settled.id}"
    facts = {
        "settled": settled,
        "lines": [view_line(line) for line in lines.items],
        "later": f"{own}?cursor={lines.next_cursor}" if lines.next_cursor else None,
        "sheets": sheets,
    }
    return await visit.page("settlement.html", facts)


async def settle_again(visit: Visit) -> Reply:
    """Ask for a day of every merchant to be drawn now; what is settled already stays so.

    Play money is settled by that; live money waits to be released.

    Raises:
        DayMalformed
    """
    db = visit.desk.db
    day = _day(visit.request.form.get("day", ""))
    now = db.clock.now()
    if day >= business_date(now):
        raise DayMalformed
    async with db.begin(visit.operator.actor) as tx:
        for mode in Mode:
            await open_batch(tx, mode, day=day)
        await audit.record(tx, "settlement.asked", "settlement", {"day": day.isoformat()})
    visit.desk.flow.nudge()
    return redirect(f"{PREFIX}/settlements?done=queued")


def _break_id(visit: Visit) -> UUID:
    return parse("brk", visit.params["break_id"])


def _dealt_with(visit: Visit, found: ReconBreak) -> Reply:
    done = f"done=break_{found.state}"
    if visit.request.form.get("from") == "day":
        return redirect(f"{_day_address(found.account_id, found.day)}?{done}")
    return redirect(f"{PREFIX}/reconciliation?{done}")


def _place(visit: Visit) -> tuple[UUID, date]:
    return parse("chn", visit.params["account_id"]), _day(visit.params["day"])


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise DayMalformed from None


def _reason(form: Mapping[str, str]) -> str:
    reason = " ".join(form.get("reason", "").split())
    if not 4 <= len(reason) <= REASON_MAX:
        raise ReasonMissing(param="reason")
    return reason


def _day_address(account_id: UUID, day: date) -> str:
    return f"{PREFIX}/reconciliation/{show('chn', account_id)}/{day.isoformat()}"


def _differences(visit: Visit, found: list[ReconBreak]) -> list[Difference]:
    me = visit.operator.actor
    return [Difference(each, show("brk", each.id), each.proposed_by == me) for each in found]


async def _account_numbers(desk: Desk) -> dict[UUID, str]:
    return {row.id: row.merchant_number for row in await list_accounts(desk.db)}


async def _with_payouts(desk: Desk, found: list[Settlement]) -> list[Settled]:
    names = await merchants_with_ids(desk.db, [each.merchant_id for each in found])
    paid_by = [each.payout_id for each in found if each.payout_id]
    paid = {each: await payouts.payout_with_id(desk.db, each) for each in paid_by}
    return [
        Settled(
            settlement=each,
            id=show("set", each.id),
            merchant=names[each.merchant_id].name,
            payout=paid.get(each.payout_id) if each.payout_id else None,
        )
        for each in found
    ]


async def _with_names(desk: Desk, found: list[Payout]) -> list[tuple[Payout, str]]:
    names = await merchants_with_ids(desk.db, [each.merchant_id for each in found])
    return [(each, names[each.merchant_id].name) for each in found]
