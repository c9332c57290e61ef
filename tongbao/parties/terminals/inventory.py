"""Take serial numbers in, give terminals to merchants, put them in their places, take them back."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final, Protocol, runtime_checkable
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Fact
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import Page, decode_moment, page_by_moment, page_size
from tongbao.parties.merchants.model import Merchant
from tongbao.parties.terminals import _store as store
from tongbao.parties.terminals.model import (
    OFFLINE_AFTER,
    PREFIX,
    Binding,
    Heartbeat,
    SerialsMalformed,
    SerialsTaken,
    Terminal,
    TerminalNotFound,
    TerminalState,
    TerminalStateWrong,
)

FILE_BYTES_MAX: Final = 4 * 1024 * 1024
SERIALS_MAX: Final = 100_000
_SERIAL: Final = re.compile(r"[A-Z0-9-]{4,32}")
_COLUMN: Final = "serial"


class Place(Struct, frozen=True):
    """Where a terminal stands at its merchant's: its name there, a store, a plate's counter."""

    name: str = ""
    store_id: UUID | None = None
    plate_id: UUID | None = None


@runtime_checkable
class PlacesKnown(Protocol):
    """Who knows a merchant's plates and stores; they are the business of rooms above this one."""

    async def check(self, on: Tx, place: Place, merchant_id: UUID, mode: Mode) -> None:
        """Raise unless plate and store are the merchant's and in use.

        Raises:
            PlaceNotFound
        """


class Imported(Struct, frozen=True):
    """What came of a file: its batch and how many terminals; none when it was read before."""

    batch_id: UUID
    terminals: int


class TerminalFilter(Struct, frozen=True):
    """Which terminals a list shows; what is None is not asked about."""

    merchant_id: UUID | None = None
    mode: Mode | None = None
    state: TerminalState | None = None
    serial: str | None = None
    only_offline: bool = False


def read_serials(content: bytes) -> list[str]:
    """Return the serial numbers of a CSV with a header, each once, in upper case.

    Raises:
        SerialsMalformed
    """
    if len(content) > FILE_BYTES_MAX:
        raise SerialsMalformed(reason="more than 4 MiB")
    try:
        text = content.decode("utf-8-sig")
        rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        if _COLUMN not in (rows.fieldnames or ()):
            raise SerialsMalformed(reason="no column serial")
        found: dict[str, None] = {}
        for row in rows:
            serial = (row[_COLUMN] or "").strip().upper()
            if not _SERIAL.fullmatch(serial) or serial in found:
                raise SerialsMalformed(line=rows.line_num)
            found[serial] = None
    except (UnicodeDecodeError, csv.Error):
        raise SerialsMalformed(reason="not a CSV in UTF-8") from None
    if not 0 < len(found) <= SERIALS_MAX:
        raise SerialsMalformed(reason=f"{len(found)} serial numbers; 1 to {SERIALS_MAX}")
    return list(found)


async def import_serials(tx: Tx, content: bytes, *, name: str, model: str) -> Imported:
    """Take a file of serial numbers into the stock, all of it or nothing.

    The same file a second time adds nothing.

    Raises:
        SerialsMalformed, SerialsTaken
    """
    serials = read_serials(content)
    batch_id, digest = new_id(), hashlib.sha256(content).digest()
    row = (batch_id, name, model, digest, len(serials), tx.now, tx.actor)
    if not await store.INSERT_BATCH.run(tx, *row):
        return Imported(await store.BATCH_WITH_DIGEST.one(tx, digest), 0)
    known = await store.KNOWN_SERIALS.first(tx, serials)
    ids = [new_id() for _ in serials]
    if known is not None or (
        await store.INSERT_TERMINALS.run(tx, ids, serials, model, batch_id, tx.now)
    ) < len(serials):
        raise SerialsTaken(serial=known or serials[0])
    facts: dict[str, Fact] = {"name": name, "model": model, "terminals": len(serials)}
    await audit.record(tx, "terminals.imported", show("tbt", batch_id), facts)
    return Imported(batch_id, len(serials))


async def assign_terminal(
    tx: Tx, terminal_id: UUID, merchant: Merchant, mode: Mode, place: Place | None = None
) -> Terminal:
    """Give a terminal of the stock to a merchant, whose limits for it begin empty.

    Raises:
        TerminalNotFound, TerminalStateWrong
    """
    locked = await _locked(tx, terminal_id)
    if locked.state is not TerminalState.STOCK:
        raise TerminalStateWrong(status=locked.state, wanted=TerminalState.BOUND)
    where = place or Place()
    args = (merchant.id, mode, where.name, where.store_id, where.plate_id, tx.now)
    bound = await store.PLACE_TERMINAL.one(tx, locked.id, TerminalState.BOUND, *args)
    await _begin_binding(tx, bound, "assigned")
    began = (business_date(tx.now), tx.now)
    await store.OPEN_METER.run(tx, merchant.book(mode), bound.id, *began)
    await _noted(tx, bound, "terminal.assigned", {"merchant": show("mch", merchant.id)})
    return bound


async def place_terminal(
    tx: Tx, terminal_id: UUID, owner: tuple[UUID, Mode], place: Place, places: PlacesKnown
) -> Terminal:
    """Put a merchant's terminal elsewhere in the merchant's house; where it was is remembered.

    Raises:
        TerminalNotFound, PlaceNotFound
    """
    locked = await _locked_of(tx, terminal_id, owner)
    await places.check(tx, place, *owner)
    args = (*owner, place.name, place.store_id, place.plate_id, tx.now)
    placed = await store.PLACE_TERMINAL.one(tx, locked.id, locked.state, *args)
    await store.END_BINDING.run(tx, locked.id, tx.now, tx.actor)
    await _begin_binding(tx, placed, "placed")
    await _noted(tx, placed, "terminal.placed", {"name": place.name})
    return placed


async def move_terminal(
    tx: Tx,
    terminal_id: UUID,
    to: TerminalState,
    *,
    because: str,
    owner: tuple[UUID, Mode] | None = None,
) -> Terminal:
    """Suspend, resume, take back, retire or report stolen; ``owner`` when a merchant asks.

    Whatever leaves the merchant loses its key in the same commit. To where it is already it goes
    again without a trace.

    Raises:
        TerminalNotFound, TerminalStateWrong
    """
    if owner is None:
        locked = await _locked(tx, terminal_id)
    else:
        locked = await _locked_of(tx, terminal_id, owner)
    if locked.state is to:
        return locked
    if to is TerminalState.BOUND and locked.merchant_id is None:
        raise TerminalStateWrong(status=locked.state, wanted=to)
    locked.check_move(to)
    if to.is_placed:
        moved = await store.SET_STATE.one(tx, locked.id, to, tx.now)
    else:
        moved = await store.CLEAR_TERMINAL.one(tx, locked.id, to, tx.now)
        await store.END_BINDING.run(tx, locked.id, tx.now, tx.actor)
        await store.FORGET_BEAT.run(tx, locked.id)
    await _noted(tx, moved, f"terminal.{to.value}", {"because": because, "from": locked.state})
    return moved


async def terminal_with_id(on: Db | Tx, terminal_id: UUID) -> Terminal:
    """Return anybody's terminal, for people of the platform.

    Raises:
        TerminalNotFound
    """
    found = await store.GET_TERMINAL.first(on, terminal_id)
    if found is None:
        raise TerminalNotFound
    return found


async def terminal_of_merchant(
    on: Db | Tx, terminal_id: UUID, merchant_id: UUID, mode: Mode
) -> Terminal:
    """Return a merchant's terminal.

    Raises:
        TerminalNotFound: also for another merchant's, or another mode's.
    """
    found = await store.OF_MERCHANT.first(on, terminal_id, merchant_id, mode)
    if found is None:
        raise TerminalNotFound
    return found


async def terminal_with_serial(on: Db | Tx, serial: str) -> Terminal:
    """Return the terminal with a serial number, however it was typed.

    Raises:
        TerminalNotFound
    """
    found = await store.FIND_SERIAL.first(on, serial.strip().upper())
    if found is None:
        raise TerminalNotFound
    return found


async def terminals_with_ids(on: Db | Tx, ids: Collection[UUID]) -> dict[UUID, Terminal]:
    """Return those of these terminals that exist, by id."""
    return {each.id: each for each in await store.TERMINALS.all(on, sorted(set(ids)))}


async def terminals_at_plates(on: Db | Tx, plates: Collection[UUID]) -> list[Terminal]:
    """Return the terminals that stand by these plates and are in use."""
    return await store.OF_PLATES.all(on, sorted(set(plates)))


async def list_terminals(
    on: Db | Tx,
    wanted: TerminalFilter,
    *,
    now: datetime,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[Terminal]:
    """Return a page of terminals, the newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    _, before = decode_moment(cursor)
    asked = (wanted.merchant_id, wanted.mode, wanted.state, wanted.serial)
    silent = (wanted.only_offline, now - OFFLINE_AFTER)
    found = await store.LIST_TERMINALS.all(on, *asked, *silent, before, size + 1)
    return page_by_moment(found, size, lambda row: (row.changed_at, row.id))


async def heartbeats_of(on: Db | Tx, terminals: Sequence[Terminal]) -> dict[UUID, Heartbeat]:
    """Return what these terminals said of themselves last, those that ever said anything."""
    found = await store.BEATS.all(on, [each.id for each in terminals])
    return {beat.terminal_id: beat for beat in found}


async def bindings_of(on: Db | Tx, terminal_id: UUID) -> list[Binding]:
    """Return where a terminal stood, latest first; the fifty last."""
    return await store.BINDINGS.all(on, terminal_id)


async def _locked(tx: Tx, terminal_id: UUID) -> Terminal:
    locked = await store.LOCK_TERMINAL.first(tx, terminal_id)
    if locked is None:
        raise TerminalNotFound
    return locked


async def _locked_of(tx: Tx, terminal_id: UUID, owner: tuple[UUID, Mode]) -> Terminal:
    locked = await _locked(tx, terminal_id)
    if (locked.merchant_id, locked.mode) != owner:
        raise TerminalNotFound
    return locked


async def _begin_binding(tx: Tx, terminal: Terminal, why: str) -> None:
    whose = (terminal.merchant_id, terminal.mode, terminal.name)
    place = (terminal.store_id, terminal.plate_id)
    row = (new_id(), terminal.id, *whose, *place, tx.now, tx.actor, why)
    await store.INSERT_BINDING.run(tx, *row)


async def _noted(tx: Tx, terminal: Terminal, act: str, facts: dict[str, Fact]) -> None:
    told: dict[str, Fact] = {"serial": terminal.serial_number, **facts}
    await audit.record(tx, act, show(PREFIX, terminal.id), told)
