"""Settlement batches, payout files and batch transfers: look, export, and propose to let go."""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from typing import Final, Literal
from urllib.parse import urlencode

from msgspec import Struct

from tongbao.clearing.context import Clearing
from tongbao.clearing.payouts import files
from tongbao.clearing.settlement.model import Settlement
from tongbao.clearing.settlement.queries import (
    SettlementFilter,
    list_settlements,
    settlement_with_id,
    sums_of_batch,
)
from tongbao.clearing.settlement_batches import batches
from tongbao.clearing.settlement_batches.model import PREFIX as BATCH
from tongbao.clearing.settlement_batches.model import BatchState, SettlementBatch
from tongbao.clearing.settlement_batches.queries import batch_with_id, left_out_of, list_batches
from tongbao.clearing.statements.model import StatementFormat
from tongbao.clearing.statements.papers import statement_paper
from tongbao.clearing.statements.queries import statement_of
from tongbao.clearing.transfers import transfers
from tongbao.clearing.transfers.model import TransferBatchState, view_item
from tongbao.clearing.transfers.queries import batch_with_id as transfer_batch_with_id
from tongbao.clearing.transfers.queries import counts_of, items_of_batch, list_transfer_batches
from tongbao.infra import audit
from tongbao.kernel.errors import Invalid
from tongbao.kernel.ids import parse, show
from tongbao.kernel.money import Money
from tongbao.kernel.pages import PAGE_MAX
from tongbao.kernel.papers.sheets import csv_line
from tongbao.parties.identity.model import Permission
from tongbao.parties.merchants.queries import merchants_with_ids
from tongbao.surfaces.operator_console.visit import PREFIX, Desk, Route, View, Visit, mode_of
from tongbao.surfaces.page_kit.replies import CSV, Reply, file_reply, redirect
from tongbao.surfaces.settlement_desk.terms import ROUTES as TERMS

ROWS: Final = 50
_VIEW: Final = Permission.VIEW
_ACT: Final = Permission.SETTLEMENT_ACT


class SettlementFormMalformed(Invalid):
    """A form or an address of these pages was not made by them."""

    code = "console.settlement_form_malformed"
    advice = "Choose from the lists of the page."
    advice_zh = "请使用页面中的选项。"


class Drawn(Struct, frozen=True):
    """One settlement of a batch, and whose it is."""

    settlement: Settlement
    id: str
    merchant: str


def pages(clearing: Clearing) -> tuple[Route, ...]:
    """Return the routes of this room; wiring hands them to the console."""

    def licensed(method: str, pattern: str, view: View, permission: Permission) -> Route:
        return Route(method, pattern, view, permission, is_licensed=True)

    own = "/settlement-batches/{batch_id}"
    file = "/payout-files/{file_id}"
    return (
        licensed("GET", "/settlement-batches", show_batches, _VIEW),
        licensed("GET", own, show_batch, _VIEW),
        licensed("GET", f"{own}/export", export_batch, _VIEW),
        licensed("POST", f"{own}/release", propose_batch, _ACT),
        licensed("POST", f"{own}/drop", drop_batch, _ACT),
        licensed("POST", f"{own}/leave-out/{{settlement_id}}", leave_out, _ACT),
        licensed("GET", "/settlements/{settlement_id}/paper/{layout}", show_paper, _VIEW),
        licensed("GET", "/payout-files", show_files, _VIEW),
        licensed("POST", "/payout-files", partial(make_file, clearing), _ACT),
        licensed("GET", f"{file}/content", partial(download_file, clearing), _ACT),
        licensed("POST", f"{file}/send", propose_file, _ACT),
        licensed("POST", f"{file}/drop", drop_file, _ACT),
        licensed("GET", "/transfer-batches", show_transfer_batches, _VIEW),
        licensed("GET", "/transfer-batches/{batch_id}", show_transfer_batch, _VIEW),
        licensed("POST", "/transfer-batches/{batch_id}/release", propose_transfers, _ACT),
        *TERMS,
    )


# Settlement batches


async def show_batches(visit: Visit) -> Reply:
    """Return batches, newest first, of one mode or state if asked."""
    db, query = visit.desk.db, visit.request.query
    chosen = {name: query.get(name, "") for name in ("mode", "state")}
    page = await list_batches(
        db,
        mode=mode_of(chosen["mode"]),
        state=next((each for each in BatchState if each.value == chosen["state"]), None),
        cursor=query.get("cursor"),
        limit=ROWS,
    )
    facts = {
        "rows": [(show(BATCH, each.id), each, await sums_of_batch(db, each.id))
                 for each in page.items],
        "chosen": chosen,
        "states": list(BatchState),
        "older": _older("settlement-batches", chosen, page.next_cursor),
    }  # fmt: skip
    return await visit.page("settlement_batches.html", facts)


async def show_batch(visit: Visit) -> Reply:
    """Return one batch: its sums, its settlements, and who was taken out.

    Raises:
        SettlementBatchNotFound
    """
    db, batch = visit.desk.db, await _batch(visit)
    wanted = SettlementFilter(batch_id=batch.id, with_drawn=True)
    page = await list_settlements(db, wanted, cursor=visit.request.query.get("cursor"), limit=ROWS)
    own = show(BATCH, batch.id)
    left_out = await left_out_of(db, batch.id)
    names = await merchants_with_ids(db, [each.merchant_id for each in left_out])
    facts = {
        "batch": batch,
        "id": own,
        "sums": await sums_of_batch(db, batch.id),
        "drawn": await _named(visit.desk, page.items),
        "left_out": [(each, names[each.merchant_id].name) for each in left_out],
        "older": _older(f"settlement-batches/{own}", {}, page.next_cursor),
        "done": visit.request.query.get("done"),
    }
    return await visit.page("settlement_batch.html", facts)


async def export_batch(visit: Visit) -> Reply:
    """Return every settlement of a batch as a file.

    Raises:
        SettlementBatchNotFound
    """
    db, batch = visit.desk.db, await _batch(visit)
    lines = [csv_line(_COLUMNS)]
    cursor = None
    while True:
        wanted = SettlementFilter(batch_id=batch.id, with_drawn=True)
        page = await list_settlements(db, wanted, cursor=cursor, limit=PAGE_MAX)
        lines += [_line(each) for each in await _named(visit.desk, page.items)]
        cursor = page.next_cursor
        if cursor is None:
            break
    async with db.begin(visit.operator.actor) as tx:
        await audit.record(tx, "settlement.batch_exported", show(BATCH, batch.id), {})
    content = ("\ufeff" + "".join(lines)).encode()
    return file_reply(content, CSV, name=f"{show(BATCH, batch.id)}.csv")


async def propose_batch(visit: Visit) -> Reply:
    """Put a batch before other eyes, as it is now.

    Raises:
        SettlementBatchNotFound, SettlementBatchMoved, ReasonTooShort, ApprovalWaiting
    """
    batch = await _batch(visit)
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        found = await batches.propose_release(tx, batch.id, reason=_reason(visit))
    return redirect(f"{PREFIX}/inbox/{found.shown_id}?done=proposed")


async def drop_batch(visit: Visit) -> Reply:
    """Give a batch up; everything of it is in the next one.

    Raises:
        SettlementBatchNotFound, SettlementBatchMoved, ReasonTooShort
    """
    batch = await _batch(visit)
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        await batches.drop_batch(tx, batch.id, reason=_reason(visit))
    visit.desk.flow.nudge()
    return _back(batch)


async def leave_out(visit: Visit) -> Reply:
    """Take one merchant's settlement out of a batch.

    Raises:
        SettlementNotFound, SettlementBatchMoved, ReasonTooShort
    """
    batch = await _batch(visit)
    target = parse("set", visit.params["settlement_id"])
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        await batches.leave_out(tx, target, reason=_reason(visit))
    return _back(batch)


async def show_paper(visit: Visit) -> Reply:
    """Return a settlement's statement as a file.

    Raises:
        SettlementNotFound, SettlementFormMalformed
    """
    layout = next((e for e in StatementFormat if e.value == visit.params["layout"]), None)
    if layout is None:
        raise SettlementFormMalformed
    db = visit.desk.db
    found = await settlement_with_id(db, parse("set", visit.params["settlement_id"]))
    paper = statement_paper(await statement_of(db, found), layout)
    return file_reply(paper.content, paper.media_type, name=paper.name)


# Files for banks


async def show_files(visit: Visit) -> Reply:
    """Return files of payouts, newest first."""
    db, query = visit.desk.db, visit.request.query
    page = await files.list_files(db, cursor=query.get("cursor"), limit=ROWS)
    facts = {
        "rows": [(show(files.PREFIX, each.id), each) for each in page.items],
        "older": _older("payout-files", {}, page.next_cursor),
    }
    return await visit.page("payout_files.html", facts)


async def make_file(clearing: Clearing, visit: Visit) -> Reply:
    """Put the payouts that wait for a file into one.

    Raises:
        NothingToFile, PayoutFileMoved, SettlementFormMalformed
    """
    form = visit.request.form
    mode, layout = mode_of(form.get("mode")), form.get("layout")
    if mode is None or layout not in {"pain001", "csv"}:
        raise SettlementFormMalformed
    chosen: Literal["pain001", "csv"] = "csv" if layout == "csv" else "pain001"
    currency = form.get("currency", "")[:3].upper()
    await files.make_file(clearing, mode, currency, actor=visit.operator.actor, layout=chosen)
    return redirect(f"{PREFIX}/payout-files")


async def download_file(clearing: Clearing, visit: Visit) -> Reply:
    """Return a file that two people have sent.

    Raises:
        PayoutFileNotFound, PayoutFileMoved
    """
    db = visit.desk.db
    file = await files.file_with_id(db, parse(files.PREFIX, visit.params["file_id"]))
    content = await files.file_content(clearing, file)
    async with db.begin(visit.operator.actor) as tx:
        await audit.record(tx, "payouts.file_downloaded", show(files.PREFIX, file.id), {})
    is_table = file.layout == "csv"
    kind, ending = (CSV, "csv") if is_table else ("application/xml; charset=utf-8", "xml")
    return file_reply(content, kind, name=f"{file.number}.{ending}")


async def propose_file(visit: Visit) -> Reply:
    """Put a file before other eyes.

    Raises:
        PayoutFileNotFound, PayoutFileMoved, ReasonTooShort, ApprovalWaiting
    """
    target = parse(files.PREFIX, visit.params["file_id"])
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        found = await files.propose_send(tx, target, reason=_reason(visit))
    return redirect(f"{PREFIX}/inbox/{found.shown_id}?done=proposed")


async def drop_file(visit: Visit) -> Reply:
    """Give a file up that was not sent.

    Raises:
        PayoutFileNotFound, PayoutFileMoved
    """
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        await files.give_up_file(tx, parse(files.PREFIX, visit.params["file_id"]))
    return redirect(f"{PREFIX}/payout-files")


# Batch transfers


async def show_transfer_batches(visit: Visit) -> Reply:
    """Return batches of transfers, newest first, of one mode or state if asked."""
    db, query = visit.desk.db, visit.request.query
    chosen = {name: query.get(name, "") for name in ("mode", "state")}
    page = await list_transfer_batches(
        db,
        mode=mode_of(chosen["mode"]),
        state=next((e for e in TransferBatchState if e.value == chosen["state"]), None),
        cursor=query.get("cursor"),
        limit=ROWS,
    )
    names = await merchants_with_ids(db, [each.merchant_id for each in page.items])
    facts = {
        "rows": [
            (show(transfers.PREFIX, each.id), each, names[each.merchant_id].name)
            for each in page.items
        ],
        "chosen": chosen,
        "states": list(TransferBatchState),
        "older": _older("transfer-batches", chosen, page.next_cursor),
    }
    return await visit.page("transfer_batches.html", facts)


async def show_transfer_batch(visit: Visit) -> Reply:
    """Return one batch of transfers, row by row.

    Raises:
        TransferBatchNotFound
    """
    db = visit.desk.db
    own = visit.params["batch_id"]
    batch = await transfer_batch_with_id(db, parse(transfers.PREFIX, own))
    page = await items_of_batch(db, batch, cursor=visit.request.query.get("cursor"), limit=ROWS)
    names = await merchants_with_ids(db, [batch.merchant_id])
    facts = {
        "batch": batch,
        "id": own,
        "merchant": names[batch.merchant_id].name,
        "counts": await counts_of(db, batch),
        "items": [(view_item(item), item) for item in page.items],
        "older": _older(f"transfer-batches/{own}", {}, page.next_cursor),
    }
    return await visit.page("transfer_batch.html", facts)


async def propose_transfers(visit: Visit) -> Reply:
    """Put a batch of transfers before other eyes.

    Raises:
        TransferBatchNotFound, TransferBatchMoved, TransferBalanceTooLow, ReasonTooShort,
        ApprovalWaiting
    """
    target = parse(transfers.PREFIX, visit.params["batch_id"])
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        found = await transfers.propose_release(tx, target, reason=_reason(visit))
    return redirect(f"{PREFIX}/inbox/{found.shown_id}?done=proposed")


_COLUMNS: Final = (
    *("settlement", "merchant", "day", "currency", "opening", "gross", "fees", "refunds"),
    *("fees_returned", "other", "due", "reserved", "payable", "carried", "status"),
)


def _line(drawn: Drawn) -> str:
    its = drawn.settlement
    amounts = (
        *(its.opening, its.gross, its.fees, its.refunds, its.fees_returned, its.other),
        *(its.due, its.reserved, its.payable, its.carried),
    )
    texts = [Decimal(Money(each, its.currency).decimal_text()) for each in amounts]
    whose = (drawn.id, drawn.merchant, its.day.isoformat(), its.currency)
    return csv_line((*whose, *texts, its.state.value))


async def _batch(visit: Visit) -> SettlementBatch:
    return await batch_with_id(visit.desk.db, parse(BATCH, visit.params["batch_id"]))


def _back(batch: SettlementBatch) -> Reply:
    return redirect(f"{PREFIX}/settlement-batches/{show(BATCH, batch.id)}")


def _reason(visit: Visit) -> str:
    return visit.request.form.get("reason", "")


def _older(page: str, chosen: dict[str, str], cursor: str | None) -> str | None:
    if cursor is None:
        return None
    given = {name: value for name, value in chosen.items() if value}
    return f"{PREFIX}/{page}?{urlencode({**given, 'cursor': cursor})}"


async def _named(desk: Desk, found: list[Settlement]) -> list[Drawn]:
    names = await merchants_with_ids(desk.db, [each.merchant_id for each in found])
    return [Drawn(each, show("set", each.id), names[each.merchant_id].name) for each in found]
