"""Combined payments in the console: the list, filtered and as a file, and one with its parts."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from tongbao.infra import audit
from tongbao.infra.outbox import events_of_resource
from tongbao.kernel.ids import UnknownId, parse, show
from tongbao.kernel.pages import Page
from tongbao.parties.identity.model import Permission
from tongbao.parties.merchants.queries import merchant_with_id, merchants_with_ids
from tongbao.payments.callbacks.queries import callbacks_about
from tongbao.payments.combining import queries
from tongbao.payments.combining.combined import look
from tongbao.payments.combining.model import CombinedFilter, CombinedPayment, CombinedState
from tongbao.rails.channels.capabilities.combined_orders import Combining
from tongbao.surfaces.operator_console.actions import NothingToAsk
from tongbao.surfaces.operator_console.payments import (
    ROWS,
    Filters,
    merchant_choices,
    names_of,
)
from tongbao.surfaces.operator_console.timeline import act_entries, callback_entries, event_entries
from tongbao.surfaces.operator_console.visit import PREFIX, Desk, Route, Visit
from tongbao.surfaces.page_kit.evidence import by_day
from tongbao.surfaces.page_kit.replies import Reply, redirect
from tongbao.surfaces.payments_desk.lists import chosen_by, filed, state_of

_NAME: Final = "combined"
_COLUMNS: Final = (
    "combined_payment_id",
    "merchant_id",
    "merchant",
    "mode",
    "merchant_combined_no",
    "channel",
    "method",
    "status",
    "currency",
    "amount",
    "code",
    "created_at",
    "expires_at",
    "ended_at",
)


async def show_list(visit: Visit) -> Reply:
    """Return the list, or the one combined payment that was searched for.

    Raises:
        FilterMalformed, UnknownId, CursorInvalid
    """
    desk, filters = visit.desk, Filters.of(visit.request.query)
    if found := await _searched(desk, filters.q):
        return redirect(f"{PREFIX}/{_NAME}/{show('cmb', found)}")
    wanted, cursor = _wanted(filters), visit.request.query.get("cursor")
    page = await queries.shown_combined(desk.db, wanted, cursor=cursor, limit=ROWS)
    names = await names_of(desk, page.items)
    facts = {
        **await merchant_choices(desk),
        "filters": filters,
        "states": list(CombinedState),
        "channels": [name for name, each in desk.flow.channels.items() if _combines(each)],
        "rows": [(show("cmb", each.id), each, names[each.merchant_id].name) for each in page.items],
        "older": filters.address(_NAME, cursor=page.next_cursor) if page.next_cursor else None,
        "cursor": cursor,
    }
    return await visit.page("combined_payments.html", facts)


async def export_list(visit: Visit) -> Reply:
    """Return the filtered list as a file, made while it is sent.

    Raises:
        FilterMalformed, UnknownId
    """
    wanted = _wanted(Filters.of(visit.request.query))

    async def pages(cursor: str | None, limit: int) -> Page[CombinedPayment]:
        return await queries.shown_combined(visit.desk.db, wanted, cursor=cursor, limit=limit)

    return await filed(visit, _NAME, _COLUMNS, pages, _cells)


async def show_one(visit: Visit) -> Reply:
    """Return a combined payment's page: what was asked, its parts and its story.

    Raises:
        UnknownId, CombinedNotFound
    """
    db = visit.desk.db
    whole = await _one(visit)
    shown, parts = show("cmb", whole.id), await queries.parts_of(db, whole)
    names = await merchants_with_ids(db, [payment.merchant_id for payment, _ in parts])
    entries = [
        *callback_entries(await callbacks_about(db, [whole.number]), visit.texts),
        *event_entries(await events_of_resource(db, shown), visit.texts),
        *act_entries(await audit.entries_of_subject(db, shown), visit.texts),
    ]
    facts = {
        "whole": whole,
        "id": shown,
        "own": f"{PREFIX}/{_NAME}/{shown}",
        "merchant": await merchant_with_id(db, whole.merchant_id),
        "parts": [(payment, names[payment.merchant_id].name) for payment, _ in parts],
        "days": by_day(entries),
        "may_ask": whole.state.is_open,
        "done": visit.request.query.get("done"),
    }
    return await visit.page("combined_payment.html", facts)


async def ask_about_one(visit: Visit) -> Reply:
    """Ask the channel now what became of each part, and record what it says.

    Raises:
        UnknownId, CombinedNotFound, NothingToAsk, StateContended
    """
    flow, whole = visit.desk.flow, await _one(visit)
    if not whole.state.is_open:
        raise NothingToAsk
    shown = show("cmb", whole.id)
    async with flow.db.begin(visit.operator.actor) as tx:
        await audit.record(tx, "combined.asked", shown, {})
    await look(flow, whole)
    return redirect(f"{PREFIX}/{_NAME}/{shown}?done=asked")


ROUTES: Final = (
    Route("GET", f"/{_NAME}", show_list, Permission.VIEW),
    Route("GET", f"/{_NAME}.csv", export_list, Permission.VIEW),
    Route("GET", f"/{_NAME}/{{combined_id}}", show_one, Permission.VIEW),
    Route("POST", f"/{_NAME}/{{combined_id}}/ask", ask_about_one, Permission.PAYMENTS_ACT),
)


async def _one(visit: Visit) -> CombinedPayment:
    return await queries.combined_with_id(visit.desk.db, parse("cmb", visit.params["combined_id"]))


def _wanted(filters: Filters) -> CombinedFilter:
    chosen = chosen_by(filters)
    return CombinedFilter(
        merchant_id=chosen.merchant_id,
        mode=chosen.mode,
        status=state_of(CombinedState, filters.status),
        channel=chosen.channel,
        number=chosen.number,
        created_from=chosen.created_from,
        created_to=chosen.created_to,
    )


def _combines(channel: object) -> bool:
    return isinstance(channel, Combining)


async def _searched(desk: Desk, text: str) -> UUID | None:
    """Return the one a text can only mean: an id, or our number at the channel."""
    try:
        if text.startswith("cmb_"):
            return parse("cmb", text)
        found = await queries.combined_by_number(desk.db, text) if text else None
    except UnknownId:
        return None
    return found.id if found else None


def _cells(whole: CombinedPayment, merchant: str) -> list[str]:
    moments = (whole.created_at, whole.expires_at, whole.ended_at)
    return [
        show("cmb", whole.id),
        show("mch", whole.merchant_id),
        merchant,
        whole.mode,
        whole.merchant_combined_no,
        whole.channel,
        whole.pay_mode,
        whole.state,
        whole.currency,
        whole.money.decimal_text(),
        whole.code or "",
        *("" if at is None else at.isoformat() for at in moments),
    ]
