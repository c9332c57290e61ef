"""Take a file in, chunk by chunk; whoever dies on the way is followed by who reads on.

Each chunk is a commit of its own, with a digest of its rows. A file that is not read to its end
and does not say of itself what its rows say never counts: matching sees complete files only.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import date, datetime
from itertools import islice
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec

from tongbao.clearing.sources import _store as store
from tongbao.clearing.sources._store import DatedLayout, StatementRow
from tongbao.clearing.sources.layouts import built_in, decode_layout
from tongbao.clearing.sources.model import (
    NAME,
    Completed,
    FileRefused,
    FileSeenBefore,
    FileState,
    FileUnknown,
    Layout,
    LayoutWrong,
    Source,
    SourceFault,
    SourceFile,
    SourceRow,
    SourceTaken,
    SourceUnknown,
)
from tongbao.clearing.sources.reading import FATAL, Tally, read_and_check
from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.errors import Busy
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode

CHUNK_ROWS: Final = 10_000
FAULTS_MAX: Final = 10_000
"""So many lines that cannot be read are kept; a file with more is another format."""
_BLOCK: Final = 1024 * 1024

Read = SourceRow | SourceFault
OnComplete = Callable[[Tx, Completed], Awaitable[None]]
"""What else is to happen in the commit by which a file is complete."""


class FileMoved(Busy):
    """The file was changed while it was read, or somebody else reads it now."""

    code = "source.file_moved"
    advice = "Give the same file again; it is read on from where it was."
    advice_zh = "请重新提交同一文件，将从中断处继续读取。"
    retry_after_s = 5


async def add_source(tx: Tx, name: str, layout: Layout, mode: Mode) -> Source:
    """Add a source; adding it again as it is changes nothing.

    Raises:
        LayoutWrong, SourceTaken
    """
    if not re.fullmatch(NAME, name):
        raise LayoutWrong(problem="the source's name")
    text = msgspec.json.encode(layout, order="sorted").decode()
    if await store.ADD_SOURCE.run(tx, name, mode, text, tx.actor, tx.now):
        await audit.record(tx, "source.added", name, {"layout": layout.name})
    found = await store.LOCK_SOURCE.one(tx, name)
    if found.layout != text or found.mode is not mode:
        raise SourceTaken(source=name)
    return found


async def source_named(on: Db | Tx, name: str) -> Source:
    """Return a source.

    Raises:
        SourceUnknown
    """
    found = await store.GET_SOURCE.first(on, name)
    if found is None:
        raise SourceUnknown(source=name[:64], built_in=", ".join(sorted(built_in())))
    return found


async def sources(on: Db | Tx) -> list[Source]:
    """Return every source, by name."""
    return await store.SOURCES.all(on)


async def layout_on(
    on: Db | Tx, source: Source, day: date, *, said_by: datetime | None = None
) -> str:
    """Return the layout (JSON) that a source's file of a day is read by.

    ``said_by``: as it was said at a moment, so that a file that was begun is read on as it began.
    """
    return await store.LAYOUT_ON.first(on, source.name, day, said_by) or source.layout


async def set_layout(
    tx: Tx, name: str, valid_from: date, *, layout: str, written: str, approved_as: str
) -> None:
    """Say how a source's files are read from a day on; two people have agreed."""
    await store.ADD_LAYOUT.run(tx, name, valid_from, tx.now, layout, written, approved_as)


async def layouts_of(on: Db | Tx, name: str) -> list[DatedLayout]:
    """Return what was ever said of how a source's files are read, the latest day first."""
    return await store.LAYOUTS.all(on, name)


async def take_file(
    db: Db,
    name: str,
    day: date,
    path: Path,
    *,
    actor: str,
    on_complete: OnComplete | None = None,
) -> SourceFile:
    """Take a source's file of a day in; one that was begun before is read on.

    A file of another content for the same day supersedes the earlier one when it is complete. A
    refused file stays, with its faults, and nothing of it counts. ``on_complete`` is called in the
    commit by which the file is complete, so that what it writes happens once with it.

    Raises:
        SourceUnknown, FileSeenBefore, FileRefused, FileMoved
    """
    source = await source_named(db, name)
    currency = decode_layout(await layout_on(db, source, day)).currency
    digest, size = await asyncio.to_thread(_digest, path)
    async with db.begin(actor) as tx:
        await store.LOCK_SOURCE.one(tx, name)  # versions are counted one by one
        file = await store.ADD_FILE.first(
            tx, new_id(), name, day, digest, size, currency, actor, tx.now
        )
        if file is not None:
            await audit.record(tx, "source.file_taken", show("sfl", file.id), {"source": name})
    if file is None:
        file = await store.FILE_WITH_DIGEST.one(db, name, digest)
    if file.state is not FileState.READING:
        raise FileSeenBefore(file=show("sfl", file.id), state=file.state.value)
    failpoint("sources.after_begin")
    layout = decode_layout(await layout_on(db, source, file.day, said_by=file.began_at))
    tally, fatal = await _read(db, layout, file, path, actor)
    completed = Completed(source, layout.format, path.name, file, tally.faults, tally.closings)

    async def also(tx: Tx) -> None:
        if on_complete is not None:
            await on_complete(tx, completed)

    ended = await _end(db, file, (tally, fatal), actor, also)
    if ended.state is FileState.REFUSED:
        raise FileRefused(file=show("sfl", file.id), fault=ended.code)
    return ended


async def _read(
    db: Db, layout: Layout, file: SourceFile, path: Path, actor: str
) -> tuple[Tally, str]:
    there = {each.place: each for each in await store.CHUNKS.all(db, file.id)}
    tally, fatal, count = Tally(), "", 0
    async for place, chunk in _chunks(layout, path, tally, file.day):
        fatal = fatal or next(
            (each.code for each in chunk if isinstance(each, SourceFault) and each.code in FATAL),
            "",
        )
        digest = hashlib.sha256(msgspec.json.encode(chunk)).hexdigest()
        if place in there:
            if there[place].sha256 != digest:
                raise FileMoved
        else:
            await _put(db, file, (place, count, digest), chunk, actor)
            failpoint("sources.after_chunk")
        count += len(chunk)
        if tally.faults > FAULTS_MAX:
            fatal = fatal or "source.too_many_faults"
            break
    if not fatal and not tally.is_whole:
        fatal = "source.truncated"
    if not fatal and tally.faults and not tally.rows:
        fatal = "source.no_row_left"  # another layout's file, another day's or another merchant's
    return tally, fatal


async def _chunks(
    layout: Layout, path: Path, tally: Tally, day: date
) -> AsyncIterator[tuple[int, list[Read]]]:
    lines: Iterator[Read] = read_and_check(layout, path, tally, day)
    place = 0
    # Reading happens in a thread: a million rows must not keep the worker from its leases.
    while chunk := await asyncio.to_thread(_next, lines):
        yield place, chunk
        place += 1


def _next(lines: Iterator[Read]) -> list[Read]:
    return list(islice(lines, CHUNK_ROWS))


async def _put(
    db: Db, file: SourceFile, where: tuple[int, int, str], chunk: Sequence[Read], actor: str
) -> None:
    place, first, digest = where
    async with db.begin(actor) as tx:
        current = await store.LOCK_FILE.one(tx, file.id)
        if current.state is not FileState.READING:
            raise FileMoved
        if not await store.ADD_CHUNK.run(tx, file.id, place, first, len(chunk), digest):
            raise FileMoved  # somebody reads the same file and is ahead
        rows = [_row(file.id, first + n, each) for n, each in enumerate(chunk)
                if isinstance(each, SourceRow)]  # fmt: skip
        faults = [(file.id, first + n, each.line, each.code, each.text)
                  for n, each in enumerate(chunk) if isinstance(each, SourceFault)]  # fmt: skip
        await tx.copy("source_row", store.ROW_COLUMNS, rows)
        await tx.copy("source_line_fault", store.FAULT_COLUMNS, faults)


def _row(file_id: UUID, place: int, row: SourceRow) -> tuple[object, ...]:
    return (
        file_id, place, row.line, row.kind, row.number, row.ref, row.batch, row.amount, row.fee,
        row.currency, row.at, row.state,
    )  # fmt: skip


async def _end(
    db: Db,
    file: SourceFile,
    found: tuple[Tally, str],
    actor: str,
    also: Callable[[Tx], Awaitable[None]],
) -> SourceFile:
    tally, fatal = found
    state = FileState.REFUSED if fatal else FileState.COMPLETE
    async with db.begin(actor) as tx:
        await store.LOCK_FILE.one(tx, file.id)
        if state is FileState.COMPLETE:
            await store.SUPERSEDE.run(tx, file.source, file.day, file.id)
            await also(tx)
        await store.END_FILE.run(
            tx, file.id, state, fatal, tally.rows, tally.faults, tally.money_in, tally.money_out,
            tally.fees, tx.now,
        )  # fmt: skip
        await audit.record(
            tx, f"source.file_{state}", show("sfl", file.id), {"rows": tally.rows, "code": fatal}
        )
    failpoint("sources.after_end")
    return await store.GET_FILE.one(db, file.id)


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return digest, path.stat().st_size


async def current_file(on: Db | Tx, source: str, day: date) -> SourceFile | None:
    """Return the complete file of a source's day, or None."""
    return await store.CURRENT_FILE.first(on, source, day)


async def files(
    on: Db | Tx, *, source: str | None = None, before: UUID | None = None, limit: int
) -> list[SourceFile]:
    """Return files, newest first."""
    return await store.FILES.all(on, source, before, limit)


async def faults_of_file(on: Db | Tx, file_id: UUID, limit: int) -> list[SourceFault]:
    """Return the first faults of a file, in order."""
    return await store.FAULTS.all(on, file_id, limit)


async def file_with_id(on: Db | Tx, file_id: UUID) -> SourceFile:
    """Return a file.

    Raises:
        FileUnknown
    """
    found = await store.GET_FILE.first(on, file_id)
    if found is None:
        raise FileUnknown
    return found


async def rows_shown(on: Db | Tx, file_id: UUID, first: int, limit: int) -> list[StatementRow]:
    """Return rows of a file in order, from a place on."""
    return await store.ROWS_PAGE.all(on, file_id, first, limit)


async def faults_shown(on: Db | Tx, file_id: UUID, first: int, limit: int) -> list[SourceFault]:
    """Return lines of a file that could not be read, in order, from the nth on."""
    return await store.FAULTS_PAGE.all(on, file_id, first, limit)


def rows_of_file(tx: Tx, file_id: UUID) -> AsyncIterator[StatementRow]:
    """Yield the rows of a file in order; of one that is not complete they mean nothing."""
    return store.ROWS.stream(tx, file_id)
