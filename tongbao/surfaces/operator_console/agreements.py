"""Agreements: the list, filtered and as a file, and one with its story and what was taken."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.audit import AuditEntry
from tongbao.infra.outbox import EventRow, events_of_resource
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import UnknownId, parse, show
from tongbao.kernel.money import Money
from tongbao.kernel.pages import PAGE_MAX
from tongbao.parties.merchants import queries as merchants
from tongbao.parties.merchants.model import Merchant
from tongbao.payments.agreements import queries
from tongbao.payments.agreements.agreements import Reach, ask_about
from tongbao.payments.agreements.model import Agreement, AgreementState
from tongbao.payments.agreements.records import AgreementExchange, AgreementFilter, AgreementUse
from tongbao.payments.callbacks.model import InboundCallback
from tongbao.payments.callbacks.queries import callbacks_about
from tongbao.payments.collecting.model import Payment
from tongbao.payments.collecting.queries import payment as payment_of
from tongbao.rails.channels.capabilities.agreements import Agreeing
from tongbao.surfaces.operator_console.actions import NothingToAsk
from tongbao.surfaces.operator_console.payments import (
    CSV_MARK,
    ROWS,
    FilterMalformed,
    Filters,
    csv_line,
    merchant_choices,
    names_of,
)
from tongbao.surfaces.operator_console.timeline import (
    act_entries,
    callback_entries,
    event_entries,
    exchange_entries,
    tone_of,
)
from tongbao.surfaces.operator_console.visit import PREFIX, Desk, Visit, mode_of
from tongbao.surfaces.page_kit.evidence import Entry, by_day, masked
from tongbao.surfaces.page_kit.replies import CSV, Reply, redirect, stream_reply
from tongbao.surfaces.page_kit.texts import Texts

_USES: Final = 20
_STATES: Final = {
    "agreement.signed": AgreementState.ACTIVE,
    "agreement.ended": AgreementState.ENDED,
    "agreement.failed": AgreementState.FAILED,
}
_CSV_COLUMNS: Final = (
    "agreement_id",
    "merchant_id",
    "merchant",
    "mode",
    "merchant_agreement_no",
    "channel",
    "plan",
    "status",
    "currency",
    "limit_each",
    "period",
    "limit_per_period",
    "used",
    "code",
    "created_at",
    "signed_at",
    "ends_at",
    "ended_at",
)


class File(Struct, frozen=True):
    """Everything about one agreement but what was taken under it."""

    agreement: Agreement
    merchant: Merchant
    exchanges: Sequence[AgreementExchange]
    callbacks: Sequence[InboundCallback]
    events: Sequence[EventRow]
    acts: Sequence[AuditEntry]


async def show_agreements(visit: Visit) -> Reply:
    """Return the list, or the one agreement that was searched for.

    Raises:
        FilterMalformed, UnknownId, CursorInvalid
    """
    desk, filters = visit.desk, Filters.of(visit.request.query)
    if found := await _searched(desk, filters.q):
        return redirect(f"{PREFIX}/agreements/{show('agr', found)}")
    cursor = visit.request.query.get("cursor")
    page = await queries.list_agreements(desk.db, _wanted(filters), cursor=cursor, limit=ROWS)
    names, now = await names_of(desk, page.items), desk.db.clock.now()
    facts = {
        **await merchant_choices(desk),
        "filters": filters,
        "states": list(AgreementState),
        "channels": [name for name, each in desk.flow.channels.items() if _agrees(each)],
        "rows": [
            (show("agr", each.id), each, names[each.merchant_id].name, each.used_at(now))
            for each in page.items
        ],
        "older": filters.address("agreements", cursor=page.next_cursor)
        if page.next_cursor
        else None,
        "cursor": cursor,
    }
    return await visit.page("agreements.html", facts)


async def export_agreements(visit: Visit) -> Reply:
    """Return the filtered list as a file, made while it is sent.

    Raises:
        FilterMalformed, UnknownId
    """
    desk, filters = visit.desk, Filters.of(visit.request.query)
    wanted = _wanted(filters)
    async with desk.db.begin(visit.operator.actor) as tx:
        await audit.record(tx, "agreements.exported", "agreements", filters.chosen)
    day = business_date(desk.db.clock.now()).isoformat()
    return stream_reply(_csv(desk, wanted), CSV, name=f"agreements-{day}.csv")


async def show_agreement(visit: Visit) -> Reply:
    """Return an agreement's page, with what was taken under it.

    Raises:
        UnknownId, AgreementNotFound, CursorInvalid
    """
    desk = visit.desk
    file = await _gather(desk, parse("agr", visit.params["agreement_id"]))
    agreement, now = file.agreement, desk.db.clock.now()
    cursor = visit.request.query.get("cursor")
    uses = await queries.uses_of_agreement(desk.db, agreement, cursor=cursor, limit=_USES)
    own = f"{PREFIX}/agreements/{show('agr', agreement.id)}"
    facts = {
        "file": file,
        "agreement": agreement,
        "own": own,
        "used": agreement.used_at(now),
        "why": _explanation(agreement, visit.texts),
        "payer": masked(agreement.payer) if agreement.payer else None,
        "uses": await _with_payments(desk, uses.items),
        "older": f"{own}?cursor={uses.next_cursor}" if uses.next_cursor else None,
        "days": by_day(_entries(file, visit.texts)),
        "may_ask": agreement.ended_at is None,
        "done": visit.request.query.get("done"),
    }
    return await visit.page("agreement.html", facts)


async def ask_about_agreement(visit: Visit) -> Reply:
    """Ask the channel now how an agreement stands, and record what it says.

    Raises:
        UnknownId, AgreementNotFound, NothingToAsk, AgreementContended
    """
    flow = visit.desk.flow
    agreement = await queries.agreement_with_id(flow.db, parse("agr", visit.params["agreement_id"]))
    if agreement.ended_at is not None:
        raise NothingToAsk
    shown = show("agr", agreement.id)
    async with flow.db.begin(visit.operator.actor) as tx:
        await audit.record(tx, "agreement.asked", shown, {})
    await ask_about(Reach(flow.db, flow.channels, flow.account, flow.nudge), agreement)
    return redirect(f"{PREFIX}/agreements/{shown}?done=asked")


def _wanted(filters: Filters) -> AgreementFilter:
    try:
        status = AgreementState(filters.status) if filters.status else None
    except ValueError:
        raise FilterMalformed from None
    first, end = filters.period()
    return AgreementFilter(
        merchant_id=filters.merchant_id,
        mode=mode_of(filters.mode),
        status=status,
        channel=filters.channel or None,
        merchant_agreement_no=filters.q or None,
        created_from=first,
        created_to=end,
    )


def _agrees(channel: object) -> bool:
    return isinstance(channel, Agreeing)


async def _searched(desk: Desk, text: str) -> UUID | None:
    """Return the one agreement a text can only mean: an id, or our number at the channel."""
    try:
        if text.startswith("agr_"):
            return parse("agr", text)
        found = await queries.agreement_by_number(desk.db, text) if text else None
    except UnknownId:
        return None
    return found.id if found else None


async def _gather(desk: Desk, agreement_id: UUID) -> File:
    db = desk.db
    agreement = await queries.agreement_with_id(db, agreement_id)
    shown = show("agr", agreement.id)
    return File(
        agreement=agreement,
        merchant=await merchants.merchant_with_id(db, agreement.merchant_id),
        exchanges=await queries.exchanges_of_agreement(db, agreement),
        callbacks=await callbacks_about(db, [agreement.number]),
        events=await events_of_resource(db, shown),
        acts=await audit.entries_of_subject(db, shown),
    )


async def _with_payments(
    desk: Desk, uses: Sequence[AgreementUse]
) -> list[tuple[AgreementUse, Payment]]:
    return [(each, await payment_of(desk.db, each.book, each.payment_id)) for each in uses]


def _explanation(agreement: Agreement, texts: Texts) -> str:
    channel = texts.named("channel", agreement.channel)
    code = f" ({agreement.code})" if agreement.code else ""
    return texts(f"agreement_why.{agreement.state}", channel=channel, code=code)


def _entries(file: File, texts: Texts) -> Iterator[Entry]:
    """Yield everything that happened, in no order."""
    # As they became known here; the channel's own times may be of another clock.
    known = [(_STATES[each.type], each.at) for each in file.events if each.type in _STATES]
    for state, at in ((AgreementState.CREATED, file.agreement.created_at), *known):
        title = texts("timeline.agreement", state=texts.named("agreement_state", state))
        rank = 0 if state is AgreementState.CREATED else 4
        yield Entry(at, rank, "agreement", f"state-{state}", title, tone=tone_of(state))
    yield from exchange_entries(file.exchanges, texts)
    yield from callback_entries(file.callbacks, texts)
    yield from event_entries(file.events, texts)
    yield from act_entries(file.acts, texts)


async def _csv(desk: Desk, wanted: AgreementFilter) -> AsyncIterator[bytes]:
    yield CSV_MARK + csv_line(_CSV_COLUMNS)
    cursor: str | None = None
    while True:
        page = await queries.list_agreements(desk.db, wanted, cursor=cursor, limit=PAGE_MAX)
        names = await names_of(desk, page.items)
        yield b"".join(
            csv_line(_cells(each, names[each.merchant_id].name, desk)) for each in page.items
        )
        cursor = page.next_cursor
        if cursor is None:
            return


def _cells(agreement: Agreement, merchant: str, desk: Desk) -> list[str]:
    """Return one agreement without anything about its customer."""

    def amount(figure: int | None) -> str:
        return "" if figure is None else Money(figure, agreement.currency).decimal_text()

    moments = (
        agreement.created_at,
        agreement.signed_at,
        agreement.ends_at,
        agreement.ended_at,
    )
    return [
        show("agr", agreement.id),
        show("mch", agreement.merchant_id),
        merchant,
        agreement.mode,
        agreement.merchant_agreement_no,
        agreement.channel,
        agreement.plan,
        agreement.state,
        agreement.currency,
        amount(agreement.limit_each),
        agreement.period or "",
        amount(agreement.limit_per_period),
        amount(agreement.used_at(desk.db.clock.now())),
        agreement.code or "",
        *("" if at is None else at.isoformat() for at in moments),
    ]
