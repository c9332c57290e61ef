"""The routes of batch transfers, which only a licensed firm has."""

from __future__ import annotations

from typing import Annotated, Literal

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from msgspec import Meta, Struct

from tongbao.clearing.context import Clearing
from tongbao.clearing.transfers.model import (
    TransferBatchMoved,
    TransferBatchNotFound,
    TransferBatchView,
    TransferContended,
    TransferFileMalformed,
    TransferItemView,
    TransferNotFound,
    TransferNotTakenBack,
    TransferNumberTaken,
    view_batch,
    view_item,
)
from tongbao.clearing.transfers.paying import take_back
from tongbao.clearing.transfers.queries import (
    batch_of_merchant,
    counts_of,
    item_of_merchant,
    items_of_batch,
    list_transfer_batches,
)
from tongbao.clearing.transfers.rows import SIZE_MAX, Checked, RowFault, check_file
from tongbao.clearing.transfers.transfers import NewBatch, drop_batch, list_batch
from tongbao.clearing.transfers.ways import wallet_faults, ways_open
from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.kernel.ids import parse
from tongbao.kernel.licence import Licence
from tongbao.kernel.money import UnknownCurrency, exponent_of
from tongbao.kernel.pages import Page


class SendTransfers(Struct, frozen=True, forbid_unknown_fields=True):
    """A file of transfers: CSV with number, destination, payee, name, bank, amount and note.

    Destinations are bank, wallet, wechat_pay and alipay; amounts are in major units.
    """

    number: Annotated[str, Meta(min_length=1, max_length=32, pattern="^[0-9A-Za-z_-]+$")]
    csv: Annotated[str, Meta(min_length=1, max_length=SIZE_MAX)]
    currency: Annotated[str, Meta(min_length=3, max_length=3)] = "CNY"


class TransferFileReport(Struct, frozen=True):
    """What became of a file: a batch that waits to be let go, or every fault of its rows."""

    object: Literal["transfer_file_report"]
    rows: int
    faults: list[RowFault]
    batch: TransferBatchView | None


_EXAMPLE = SendTransfers(
    "WAGES-2026-11",
    "number,destination,payee,name,bank,amount,note\n"
    "1,bank,6222020200112230009,张三丰,,1280.00,November\n",
)


@post(
    "/v1/transfer-batches",
    status_code=200,
    opt=needs(
        "transfers:write",
        refuses=[TransferFileMalformed, TransferNumberTaken, UnknownCurrency],
        request_example=_EXAMPLE,
    ),
)
async def send_transfers(
    data: SendTransfers, db: Db, clearing: Clearing, caller: Caller
) -> TransferFileReport:
    """Check a file row by row and keep it for us to let go; with a fault nothing is kept.

    Safe to repeat: under one number there is one file for ever.
    """
    exponent_of(data.currency)
    content = data.csv.encode()
    ways = await ways_open(clearing, caller.mode)
    checked = check_file(content, data.currency, open_to=set(ways))
    faults = [*checked.faults, *await wallet_faults(db, caller, checked.rows)]
    if faults:
        ordered = sorted(faults, key=lambda fault: fault.line)
        return TransferFileReport("transfer_file_report", _count(checked), ordered, None)
    new = NewBatch(
        caller.book, caller.merchant_id, caller.mode, data.number, data.currency, content,
        checked.rows,
    )  # fmt: skip
    async with db.begin(caller.actor) as tx:
        batch = await list_batch(tx, clearing.keyring, new)
    view = view_batch(batch, await counts_of(db, batch))
    return TransferFileReport("transfer_file_report", _count(checked), [], view)


def _count(checked: Checked) -> int:
    return len(checked.rows) + len({fault.line for fault in checked.faults})


@get("/v1/transfer-batches", opt=needs("transfers:read"))
async def list_all_transfer_batches(
    db: Db, caller: Caller, *, cursor: str | None = None, limit: int | None = None
) -> Page[TransferBatchView]:
    """Return the merchant's batches of transfers, newest first."""
    page = await list_transfer_batches(
        db, merchant_id=caller.merchant_id, mode=caller.mode, cursor=cursor, limit=limit
    )
    views = [view_batch(each, await counts_of(db, each)) for each in page.items]
    return Page(views, page.next_cursor)


@get(
    "/v1/transfer-batches/{transfer_batch_id:str}",
    opt=needs("transfers:read", refuses=[TransferBatchNotFound]),
)
async def get_transfer_batch(transfer_batch_id: str, db: Db, caller: Caller) -> TransferBatchView:
    """Return one batch and how far it is."""
    target = parse("trb", transfer_batch_id)
    batch = await batch_of_merchant(db, target, caller.merchant_id, caller.mode)
    return view_batch(batch, await counts_of(db, batch))


@get(
    "/v1/transfer-batches/{transfer_batch_id:str}/transfers",
    opt=needs("transfers:read", refuses=[TransferBatchNotFound]),
)
async def list_transfers(
    transfer_batch_id: str,
    db: Db,
    caller: Caller,
    *,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[TransferItemView]:
    """Return the transfers of a batch in the order of its file."""
    target = parse("trb", transfer_batch_id)
    batch = await batch_of_merchant(db, target, caller.merchant_id, caller.mode)
    page = await items_of_batch(db, batch, cursor=cursor, limit=limit)
    return Page([view_item(item) for item in page.items], page.next_cursor)


@post(
    "/v1/transfer-batches/{transfer_batch_id:str}/drop",
    status_code=200,
    opt=needs("transfers:write", refuses=[TransferBatchNotFound, TransferBatchMoved]),
)
async def drop_transfers(transfer_batch_id: str, db: Db, caller: Caller) -> TransferBatchView:
    """Give a batch up that was not let go yet."""
    target = parse("trb", transfer_batch_id)
    batch = await batch_of_merchant(db, target, caller.merchant_id, caller.mode)
    async with db.begin(caller.actor) as tx:
        await drop_batch(tx, batch)
    batch = await batch_of_merchant(db, target, caller.merchant_id, caller.mode)
    return view_batch(batch, await counts_of(db, batch))


@post(
    "/v1/transfers/{transfer_id:str}/take_back",
    status_code=200,
    opt=needs(
        "transfers:write", refuses=[TransferNotFound, TransferNotTakenBack, TransferContended]
    ),
)
async def take_transfer_back(
    transfer_id: str, clearing: Clearing, caller: Caller
) -> TransferItemView:
    """Take back a transfer that its payee has not confirmed (WeChat Pay); the money is yours again.

    It comes back failed, or as it was while the channel is silent, or succeeded where the payee was
    quicker. Safe to repeat.
    """
    target = parse("tri", transfer_id)
    item = await item_of_merchant(clearing.db, target, caller.merchant_id, caller.mode)
    return view_item(await take_back(clearing, item))


ROUTES = [
    send_transfers,
    list_all_transfer_batches,
    get_transfer_batch,
    list_transfers,
    drop_transfers,
    take_transfer_back,
]


def routes(licence: Licence) -> list[HTTPRouteHandler]:
    """Return the routes a deployment has: none where funds may not be held."""
    return ROUTES if licence.may_hold_funds else []
