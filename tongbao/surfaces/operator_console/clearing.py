"""After the day: how bills compare, what differs, what merchants were settled and paid out.

Runs are asked for and done by the worker, so that a page never waits for a bill.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.clearing.cases.model import CLOSE, POST
from tongbao.clearing.payouts import queries as payouts
from tongbao.clearing.payouts.model import Payout
from tongbao.clearing.reconciliation import queries as reconciliation
from tongbao.clearing.reconciliation.days import ReconcileDay
from tongbao.clearing.reconciliation.model import BreakState, ReconBreak
from tongbao.clearing.reconciliation.queries import BreakFilter
from tongbao.clearing.settlement import queries as settlements
from tongbao.clearing.settlement.model import Settlement, view_line
from tongbao.clearing.settlement.queries import SettlementFilter
from tongbao.clearing.settlement_batches.batches import open_batch
from tongbao.controls.approvals.model import Approval
from tongbao.controls.approvals.queries import open_about
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
_OPEN: Final = (BreakState.OPEN,)


class DayMalformed(Invalid):
    """The day is no date, or one that is not over."""

    code = "console.day_malformed"
    advice = "Give a day that is over, as 2026-11-21."
    advice_zh = "请填写已结束的业务日，格式为 2026-11-21。"


class Difference(Struct, frozen=True):
    """One line of the list of differences."""

    found: ReconBreak
    id: str
    asked: Approval | None  # what somebody proposed to do about it


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
        db, BreakFilter(states=_OPEN), cursor=query.get("cursor"), limit=ROWS
    )
    facts = {
        "bills": await reconciliation.latest_bills(db, limit=DAYS_SHOWN),
        "accounts": await _account_numbers(visit.desk),
        "breaks": await _differences(visit, page.items),
        "older": f"{PREFIX}/reconciliation?cursor={page.next_cursor}" if page.next_cursor else None,
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
        "breaks": await _differences(visit, page.items),
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


def _place(visit: Visit) -> tuple[UUID, date]:
    return parse("chn", visit.params["account_id"]), _day(visit.params["day"])


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise DayMalformed from None


def _day_address(account_id: UUID, day: date) -> str:
    return f"{PREFIX}/reconciliation/{show('chn', account_id)}/{day.isoformat()}"


async def _differences(visit: Visit, found: list[ReconBreak]) -> list[Difference]:
    named = [(show("brk", each.id), each) for each in found]
    asked = await open_about(visit.desk.db, (CLOSE, POST), [name for name, _ in named])
    return [Difference(each, name, asked.get(name)) for name, each in named]


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
