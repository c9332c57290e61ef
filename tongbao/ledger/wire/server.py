"""The poster's ear: a private unix socket that takes questions of this user's other processes.

The socket has a name of its own for every start, so that an address names one process: where nobody
listens at it any more, that process is gone.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, cast

import structlog
from msgspec import Struct

from tongbao.infra.db import Write
from tongbao.kernel.clock import monotonic
from tongbao.kernel.errors import Conflict, Refusal
from tongbao.kernel.ids import new_id
from tongbao.ledger.decision.records import Batch
from tongbao.ledger.model import BookElsewhere, LedgerOverloaded, Result
from tongbao.ledger.wire.codec import (
    Ask,
    Failed,
    FrameMalformed,
    Frames,
    Line,
    Reply,
    Told,
    VersionForeign,
    VersionsDiffer,
    batch_in,
    decode_ask,
    empty_frame,
    reply_frame,
    writes_of,
)

PATH_MAX: Final = 107
"""Bytes of the longest path that a socket's address has room for."""

_SUFFIX: Final = ".sock"
_BACKLOG: Final = 1024
_BUFFER_MAX: Final = 16 << 20
_GRACE_S: Final = 5.0
_log = structlog.get_logger()


class Question(Struct):
    """Groups of one book that other processes ask for; ``writes`` has a list per group, or none."""

    book: int
    batch: Batch
    writes: Sequence[Sequence[Write]]
    left_s: float


Desk = Callable[[Question], Awaitable[Sequence[Result | Exception]]]
"""Answers a question, group by group, with what it met where one of them failed."""


class SocketFolderUnfit(Conflict):
    """The folder for the poster's socket is open to others, or its name is too long."""

    code = "ledger.socket_folder_unfit"
    advice = "Give TONGBAO_SOCKET_DIR a short path to a folder of this user alone."
    advice_zh = "请将 TONGBAO_SOCKET_DIR 设为仅本用户可访问的短路径目录。"


class Listener:
    """One process's ear, open until it is closed."""

    def __init__(self, server: asyncio.Server, address: Path, callers: set[_Caller]) -> None:
        self._server = server
        self._callers = callers
        self.address = str(address)

    async def close(self) -> None:
        """Take no more questions, and give those that were asked some time to be answered."""
        self._server.close()
        with suppress(FileNotFoundError):
            os.unlink(self.address)  # noqa: PTH108 - no blocking to speak of
        waiting = [task for caller in self._callers for task in caller.leave()]
        if waiting:
            await asyncio.wait(waiting, timeout=_GRACE_S)
            await asyncio.sleep(0)  # in which the last answers are written
        for caller in tuple(self._callers):
            caller.hang_up(flush=True)
        await asyncio.sleep(0)


async def listen(folder: Path, desk: Desk) -> Listener:
    """Listen in the folder, which is made when it is missing, and answer by the desk.

    Raises:
        SocketFolderUnfit
    """
    folder = folder.absolute()  # other processes work in other folders  # noqa: ASYNC240
    path = folder / f"{new_id().hex[-16:]}{_SUFFIX}"
    early = path.with_suffix(".new")
    _check_private(folder, path)
    _sweep(folder)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(str(early))
        early.chmod(0o600)  # the folder kept everybody out until here
        listening.listen(_BACKLOG)
        early.rename(path)  # under its name it is never found deaf
        listening.setblocking(False)
    except OSError as failure:
        listening.close()
        raise SocketFolderUnfit(folder=str(folder), reason=failure.strerror) from None
    callers: set[_Caller] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(lambda: _Caller(desk, callers), sock=listening)
    return Listener(server, path, callers)


def _check_private(folder: Path, path: Path) -> None:
    """Make the folder, or see that nobody else can reach into the one that is there."""
    if len(os.fsencode(path)) > PATH_MAX:
        raise SocketFolderUnfit(folder=str(folder), path_max=PATH_MAX)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as failure:
        raise SocketFolderUnfit(folder=str(folder), reason=failure.strerror) from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise SocketFolderUnfit(folder=str(folder), owner=found.st_uid)
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise SocketFolderUnfit(folder=str(folder), mode=oct(stat.S_IMODE(found.st_mode)))


def _sweep(folder: Path) -> None:
    """Remove the sockets of processes that died without doing so."""
    for path in folder.glob(f"*{_SUFFIX}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knocking:
            knocking.setblocking(False)
            try:
                knocking.connect(str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
            except OSError:
                continue  # alive and very busy, or gone by itself


class _Caller(asyncio.Protocol):
    """One connection of another process."""

    def __init__(self, desk: Desk, callers: set[_Caller]) -> None:
        self._desk = desk
        self._callers = callers
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self._told: list[Told] = []
        self._failed: list[Failed] = []
        self._flushing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let nobody but this user's own processes in."""
        self._transport = cast("asyncio.Transport", transport)
        user = peer_user(transport.get_extra_info("socket"))
        if user not in {os.geteuid(), 0}:
            _log.warning("ledger_wire_stranger", user=user)
            self.hang_up()
            return
        self._callers.add(self)

    def data_received(self, received: bytes) -> None:
        """Answer the frames that are whole; close the connection over anything else."""
        try:
            for body in self._frames.feed(received):
                self._take(decode_ask(body))
        except VersionForeign as foreign:
            _log.warning("ledger_wire_version", reason=str(foreign))
            self._send(empty_frame())
            self.hang_up(flush=True)
        except FrameMalformed as malformed:
            _log.warning("ledger_wire_malformed", reason=str(malformed)[:200])
            self.hang_up()

    def connection_lost(self, _failure: Exception | None) -> None:
        """Go on deciding what was asked: it may be in a commit, and will be asked for again."""
        self._callers.discard(self)
        self._transport = None

    def leave(self) -> set[asyncio.Task[None]]:
        """Send whoever asks from now on elsewhere, and return what is still to be answered."""
        self._leaving = True
        return self._tasks

    def hang_up(self, *, flush: bool = False) -> None:
        """Close the connection, at once or after what is on its way."""
        transport, self._transport = self._transport, None
        if transport is not None:
            if flush:
                transport.close()
            else:
                transport.abort()

    def _take(self, ask: Ask) -> None:
        if not ask.left_ms:
            self._send(reply_frame(Reply([], [])))
            return
        batch = batch_in(ask)
        if self._leaving:
            self._fail_all(ask, BookElsewhere(book=ask.book))
            return
        try:
            writes = [writes_of(lines) for lines in ask.writes]
        except VersionsDiffer:
            work = self._answer_each(ask, batch)
        else:
            work = self._answer_all(ask, batch, writes)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_all(self, ask: Ask, batch: Batch, writes: Sequence[Sequence[Write]]) -> None:
        """Answer all the callers at once, or one by one where that is not to be had."""
        question = Question(ask.book, batch, writes, min(ask.left_ms) / 1000)
        try:
            results = await self._desk(question)
        except LedgerOverloaded:
            await self._answer_each(ask, batch)  # some may have more time than others
            return
        except Exception as failure:  # noqa: BLE001 - the socket is a surface like HTTP
            self._fail_all(ask, failure)
            return
        group = 0
        for caller, count in enumerate(ask.counts, ask.first):
            self._tell(caller, results[group : group + count])
            group += count

    async def _answer_each(self, ask: Ask, batch: Batch) -> None:
        """Answer every caller by itself: what one of them meets is nothing to the others."""
        began = monotonic()
        async with asyncio.TaskGroup() as callers:
            first = 0
            for number, count, left_ms in zip(
                range(ask.first, ask.first + len(ask.counts)), ask.counts, ask.left_ms, strict=True
            ):
                lines = ask.writes[first : first + count]
                left_s = left_ms / 1000 - (monotonic() - began)
                part = groups_of(batch, first, first + count)
                callers.create_task(self._answer(number, ask.book, part, lines, left_s))
                first += count

    async def _answer(
        self, caller: int, book: int, batch: Batch, lines: Sequence[Sequence[Line]], left_s: float
    ) -> None:
        try:
            writes = [writes_of(each) for each in lines]
            self._tell(caller, await self._desk(Question(book, batch, writes, left_s)))
        except Exception as failure:  # noqa: BLE001 - the socket is a surface like HTTP
            self._fail(caller, failure)

    def _tell(self, caller: int, results: Sequence[Result | Exception]) -> None:
        told = []
        for result in results:
            if isinstance(result, Exception):
                self._fail(caller, result)
                return
            told.append((result.status, result.code, result.seq))
        self._told.append(Told(caller, told))
        self._flush_soon()

    def _fail_all(self, ask: Ask, failure: Exception) -> None:
        for caller in range(ask.first, ask.first + len(ask.counts)):
            self._fail(caller, failure)

    def _fail(self, caller: int, failure: Exception) -> None:
        """Tell this caller alone; of what nobody foresaw, only this process's log says more."""
        if isinstance(failure, Refusal):
            self._failed.append(Failed(caller, failure.code, failure.facts))
        else:
            _log.error("ledger_wire_failure", exc_info=failure)
            self._failed.append(Failed(caller, "", {}))
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Send what was answered in this turn of the loop, which is mostly one whole commit."""
        self._flushing = False
        told, self._told = self._told, []
        failed, self._failed = self._failed, []
        self._send(reply_frame(Reply(told, failed)))

    def _send(self, frame: bytes) -> None:
        if self._transport is None:
            return
        self._transport.write(frame)
        if self._transport.get_write_buffer_size() > _BUFFER_MAX:
            _log.warning("ledger_wire_deaf")  # it asks and does not listen
            self.hang_up()


def groups_of(batch: Batch, first: int, last: int) -> Batch:
    """Return some groups of a batch as a batch of their own."""
    starts = batch.starts[first : last + 1]
    return Batch(
        batch.records[starts[0] : starts[-1]],
        starts - starts[0],
        batch.ids[first:last],
        batch.refused[first:last],
    )


def peer_user(connection: socket.socket) -> int:
    """Return the user of the process at the other end, as the kernel knows it."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, user, _group = struct.unpack("3i", raw)
    return int(user)
