"""Settlements, batches, payouts' files, bills, suspense and the reserve's proofs, as files."""

from __future__ import annotations

from typing import Final

from tongbao.clearing.payouts import files
from tongbao.clearing.reconciliation.queries import latest_bills
from tongbao.clearing.reserve.queries import proofs_between
from tongbao.clearing.settlement.queries import SettlementFilter, list_settlements
from tongbao.clearing.settlement_batches.model import PREFIX as BATCH
from tongbao.clearing.settlement_batches.model import BatchState
from tongbao.clearing.settlement_batches.queries import list_batches
from tongbao.clearing.sources.ingest import files as source_files
from tongbao.clearing.suspense.items import open_items
from tongbao.clearing.suspense.model import ITEM_PREFIX
from tongbao.clearing.transfers import transfers
from tongbao.clearing.transfers.model import TransferBatchState
from tongbao.clearing.transfers.queries import list_transfer_batches
from tongbao.kernel.ids import parse, show
from tongbao.parties.merchants.queries import merchants_with_ids
from tongbao.surfaces.four_eyes.suspense import book_shown
from tongbao.surfaces.list_files.sending import PAGE, ListFile, Part, major, when
from tongbao.surfaces.operator_console.visit import Visit, mode_of
from tongbao.surfaces.reserve.pages import days_shown

FILE: Final = "sfl"
_BILLS_MAX: Final = 2_000


async def _settlements(visit: Visit, cursor: str | None) -> Part:
    db = visit.desk.db
    page = await list_settlements(db, SettlementFilter(), cursor=cursor, limit=PAGE)
    names = await merchants_with_ids(db, [each.merchant_id for each in page.items])
    rows = [
        (show("set", each.id), each.day.isoformat(), names[each.merchant_id].name,
         each.mode.value, each.kind.value, each.currency,
         *(major(figure, each.currency) for figure in (
             each.opening, each.gross, each.fees, each.refunds, each.fees_returned, each.other,
             each.due, each.reserved, each.quick_fee, each.payable, each.carried)),
         show("pyo", each.payout_id) if each.payout_id else "")
        for each in page.items
    ]  # fmt: skip
    return Part(rows, page.next_cursor)


async def _batches(visit: Visit, cursor: str | None) -> Part:
    query = visit.request.query
    state = next((each for each in BatchState if each.value == query.get("state")), None)
    page = await list_batches(
        visit.desk.db, mode=mode_of(query.get("mode")), state=state, cursor=cursor, limit=PAGE
    )
    rows = [
        (show(BATCH, each.id), each.mode.value, each.day.isoformat() if each.day else "",
         each.state.value, each.looked_at, each.created_by, when(each.created_at),
         when(each.drawn_at), when(each.ended_at))
        for each in page.items
    ]  # fmt: skip
    return Part(rows, page.next_cursor)


async def _payout_files(visit: Visit, cursor: str | None) -> Part:
    page = await files.list_files(visit.desk.db, cursor=cursor, limit=PAGE)
    rows = [
        (show(files.PREFIX, each.id), each.number, each.mode.value, each.layout, each.currency,
         each.count, major(each.amount, each.currency), each.state, each.made_by,
         when(each.made_at), each.sent_by or "", when(each.sent_at), each.digest.hex())
        for each in page.items
    ]  # fmt: skip
    return Part(rows, page.next_cursor)


async def _transfer_batches(visit: Visit, cursor: str | None) -> Part:
    db, query = visit.desk.db, visit.request.query
    state = next((each for each in TransferBatchState if each.value == query.get("state")), None)
    page = await list_transfer_batches(
        db, mode=mode_of(query.get("mode")), state=state, cursor=cursor, limit=PAGE
    )
    names = await merchants_with_ids(db, [each.merchant_id for each in page.items])
    rows = [
        (show(transfers.PREFIX, each.id), each.number, names[each.merchant_id].name,
         each.mode.value, each.currency, each.count,
         major(each.amount, each.currency), each.state.value,
         when(each.created_at), when(each.ended_at))
        for each in page.items
    ]  # fmt: skip
    return Part(rows, page.next_cursor)


async def _bills(visit: Visit, _cursor: str | None) -> Part:
    rows = [
        (each.day.isoformat(), each.channel, show("chn", each.account_id), each.mode.value,
         each.version, each.state.value, each.currency, each.row_count, each.fault_count,
         major(each.payment_amount, each.currency),
         major(each.refund_amount, each.currency),
         major(each.fee_amount, each.currency),
         each.matched_count, each.break_count)
        for each in await latest_bills(visit.desk.db, limit=_BILLS_MAX)
    ]  # fmt: skip
    return Part(rows)


async def _source_files(visit: Visit, cursor: str | None) -> Part:
    before = parse(FILE, cursor) if cursor else None
    found = await source_files(visit.desk.db, before=before, limit=PAGE + 1)
    rows = [
        (show(FILE, each.id), each.source, each.day.isoformat(), each.version, each.state.value,
         each.code, each.row_count, each.fault_count, each.currency,
         major(each.money_in, each.currency),
         major(each.money_out, each.currency),
         major(each.fees, each.currency), each.sha256, each.taken_by,
         when(each.began_at), when(each.ended_at))
        for each in found[:PAGE]
    ]  # fmt: skip
    return Part(rows, show(FILE, found[PAGE - 1].id) if len(found) > PAGE else None)


async def _suspense(visit: Visit, cursor: str | None) -> Part:
    db = visit.desk.db
    book, currency = await book_shown(visit)
    page = await open_items(db, book, currency=currency, cursor=cursor, limit=PAGE)
    rows = [
        (each.book, show(ITEM_PREFIX, each.owner), each.currency,
         major(each.amount, each.currency), each.code, when(each.first_at),
         when(each.last_at))
        for each in page.items
    ]  # fmt: skip
    return Part(rows, page.next_cursor)


async def _proofs(visit: Visit, _cursor: str | None) -> Part:
    mode, first, until = days_shown(visit)
    rows = [
        (each.day.isoformat(), each.mode.value, each.currency, each.version, each.state.value,
         *(major(figure, each.currency) for figure in (
             each.owed, each.required, each.custody, each.own_at_bank, each.bank_in_books,
             each.shortfall, each.difference)),
         each.digest.hex(), each.made_by, when(each.made_at))
        for each in await proofs_between(visit.desk.db, mode, first, until)
    ]  # fmt: skip
    return Part(rows)


ALWAYS: Final = (
    ListFile(
        "reconciliation",
        ("day", "channel", "account", "mode", "version", "status", "currency", "rows",
         "unreadable", "payments", "refunds", "fees", "matched", "differences"),
        _bills,
    ),
    ListFile(
        "sources",
        ("file", "source", "day", "version", "status", "fault", "rows", "unreadable", "currency",
         "in", "out", "fees", "sha256", "taken_by", "began_at", "ended_at"),
        _source_files,
    ),
)  # fmt: skip
"""Lists that every firm has."""
LICENSED: Final = (
    ListFile(
        "settlements",
        ("settlement", "day", "merchant", "mode", "kind", "currency", "opening", "gross", "fees",
         "refunds", "fees_returned", "other", "due", "reserved", "quick_fee", "payable", "carried",
         "payout"),
        _settlements,
    ),
    ListFile(
        "settlement-batches",
        ("batch", "mode", "day", "status", "merchants", "created_by", "created_at", "drawn_at",
         "ended_at"),
        _batches,
    ),
    ListFile(
        "payout-files",
        ("file", "number", "mode", "layout", "currency", "payouts", "amount", "status", "made_by",
         "made_at", "sent_by", "sent_at", "sha256"),
        _payout_files,
    ),
    ListFile(
        "transfer-batches",
        ("batch", "number", "merchant", "mode", "currency", "transfers", "amount", "status",
         "created_at", "ended_at"),
        _transfer_batches,
    ),
    ListFile(
        "suspense",
        ("book", "item", "currency", "amount", "came_by", "first_at", "last_at"),
        _suspense,
    ),
    ListFile(
        "reserve",
        ("day", "mode", "currency", "version", "status", "owed", "required", "custody",
         "own_at_bank", "bank_in_books", "shortfall", "difference", "digest", "made_by",
         "made_at"),
        _proofs,
    ),
)  # fmt: skip
"""Lists about other people's money."""
