"""What can be asked about red packets: by who sent them and by who took of them."""

from __future__ import annotations

from uuid import UUID

from tongbao.infra.db import Db, Tx
from tongbao.infra.web.caller import Caller
from tongbao.kernel.pages import (
    CursorInvalid,
    Page,
    decode_cursor,
    page_of,
    page_size,
)
from tongbao.parties.accounts.model import Wallet
from tongbao.products.red_packets import _store as store
from tongbao.products.red_packets.model import (
    GrabView,
    RedPacket,
    RedPacketNotFound,
    view_grab,
)


async def red_packet_of_caller(on: Db | Tx, caller: Caller, red_packet_id: UUID) -> RedPacket:
    """Return a red packet; another merchant's or another mode's is as unknown as none.

    Raises:
        RedPacketNotFound
    """
    packet = await store.GET_PACKET.first(on, caller.book, red_packet_id)
    if packet is None or (packet.merchant_id, packet.mode) != (caller.merchant_id, caller.mode):
        raise RedPacketNotFound
    return packet


async def red_packets_of_caller(
    on: Db | Tx, caller: Caller, *, sender: UUID | None, cursor: str | None, limit: int | None
) -> Page[RedPacket]:
    """Return the merchant's red packets, newest first, or those one wallet sent.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    before = None if cursor is None else _id_of(cursor)
    of = (caller.book, caller.merchant_id, caller.mode)
    rows = await store.LIST_PACKETS.all(on, *of, sender, before, size + 1)
    return page_of(rows, size, lambda row: row.id)


async def grabs_of(
    on: Db | Tx, packet: RedPacket, *, cursor: str | None, limit: int | None
) -> Page[GrabView]:
    """Return who took which part, in the order they came.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    after = 0 if cursor is None else _part_of(cursor)
    rows = await store.LIST_GRABS.all(on, packet.book, packet.id, after, size + 1)
    page = page_of(rows, size, lambda row: row.part)
    return Page([view_grab(each, packet.currency) for each in page.items], page.next_cursor)


async def received_by(
    on: Db | Tx, wallet: Wallet, *, cursor: str | None, limit: int | None
) -> Page[GrabView]:
    """Return the parts that a wallet took, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    before = None if cursor is None else _id_of(cursor)
    rows = await store.LIST_RECEIVED.all(on, wallet.book, wallet.id, before, size + 1)
    page = page_of(rows, size, lambda row: row.id)
    return Page([view_grab(each, wallet.currency) for each in page.items], page.next_cursor)


def _id_of(cursor: str) -> UUID:
    try:
        [text] = decode_cursor(cursor)
        return UUID(text)
    except ValueError:
        raise CursorInvalid(param="cursor") from None


def _part_of(cursor: str) -> int:
    try:
        [text] = decode_cursor(cursor)
        part = int(text)
    except ValueError:
        raise CursorInvalid(param="cursor") from None
    if not 0 < part < 1 << 31:
        raise CursorInvalid(param="cursor")
    return part
