"""Asking the poster of another process: one connection per address, many callers over it.

Whatever its callers asked while the last frame was being answered goes in one frame; no timer holds
anything back. Two frames of a book may be unanswered, because a poster decides one batch while it
commits the one before. Asking twice does no harm, since every group carries its id: so a frame
counts as delivered as soon as the kernel may have taken a part of it.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import groupby
from typing import Any, Final, cast

import msgspec
from msgspec import Struct

from tongbao.infra.db import Write
from tongbao.kernel.clock import monotonic
from tongbao.kernel.errors import Refusal, leaf_refusals
from tongbao.ledger.decision.records import Batch, batch_of
from tongbao.ledger.model import AccountKey, Group, LedgerOverloaded, LedgerUnanswered, Result
from tongbao.ledger.poster.calls import joined
from tongbao.ledger.wire.codec import (
    NO_WRITES,
    Failed,
    FrameMalformed,
    Frames,
    Reply,
    VersionForeign,
    VersionsDiffer,
    ask_frame,
    decode_reply,
    encode_writes,
    ping_frame,
)
from tongbao.ledger.wire.server import peer_user

WAITING_MAX: Final = 20_000
"""Transfers of one book that one process lets wait for another's answer."""

_FRAMES_OPEN_MAX: Final = 2
_FRAME_TRANSFERS_MAX: Final = 4000
_CONNECT_S: Final = 2.0
_BEAT_S: Final = 0.25
# Beats and not seconds: while this process itself stands still, none is counted against the other.
_SILENT_BEATS_MAX: Final = 8
_GRACE_S: Final = 5.0


class NotDelivered(Exception):
    """Nothing of it was decided there: the process does not take it."""


class Gone(NotDelivered):
    """Nobody listens at this address any more: the process is dead, or on another machine."""


class Unanswered(Exception):
    """It may have been decided there or not: only asking again with the same ids tells."""


class PosterFailed(RuntimeError):
    """The poster met what nobody foresaw; its log says what."""


class Asked(Struct, frozen=True):
    """What one caller asks: groups whose names are known, or columns with the writes of each."""

    groups: Sequence[Group] = ()
    accounts: Mapping[AccountKey, int | type[Refusal]] = {}
    codes: Mapping[str, int] = {}
    batch: Batch | None = None
    writes: Sequence[Sequence[Write]] = ()

    @property
    def transfers(self) -> int:
        """How many transfers they are."""
        if self.batch is not None:
            return len(self.batch.records)
        return sum(len(group.transfers) for group in self.groups)


class _Waiter(Struct):
    """One caller on the way."""

    book: int
    asked: Asked
    transfers: int
    writes: Sequence[msgspec.Raw]  # a list per group, or nothing when no group has any
    deadline: float  # of the monotonic clock
    answer: asyncio.Future[list[Result]]
    frame: _Frame | None = None

    @property
    def groups(self) -> int:
        """How many groups they are."""
        return len(self.asked.groups if self.asked.batch is None else self.asked.batch.ids)


class _Frame(Struct):
    book: int
    answered: bool = False


class Lines:
    """This process's connections to the posters of others."""

    def __init__(self) -> None:
        self._lines: dict[str, asyncio.Task[_Line]] = {}

    async def ask(self, address: str, book: int, asked: Asked, *, deadline: float) -> list[Result]:
        """Return what the poster at the address says became of each group.

        Raises:
            NotDelivered, Gone, Unanswered: ask whoever keeps the book now, with the same ids.
            LedgerOverloaded, LedgerUnanswered, VersionsDiffer, PosterFailed; and whatever refusal
                the poster met itself.
        """
        line = await self._line(address)
        return await line.ask(book, asked, deadline)

    async def probe(self, address: str) -> None:
        """Return once a process answers at the address, which takes a living one moments.

        Raises:
            Gone: nobody listens there.
            NotDelivered, Unanswered: somebody does, and is silent.
        """
        with suppress(VersionsDiffer):  # alive as well, and it will say so to whoever asks
            line = await self._line(address)
            await line.sign_of_life()

    async def close(self) -> None:
        """Close every connection; callers still waiting are told that they do not know."""
        lines, self._lines = self._lines, {}
        for connecting in lines.values():
            if not connecting.done():
                connecting.cancel()
            elif not connecting.cancelled() and connecting.exception() is None:
                connecting.result().hang_up()
        await asyncio.sleep(0)

    async def _line(self, address: str) -> _Line:
        """Return the connection to the address; all who want it wait for one connecting."""
        connecting = self._lines.get(address)
        if connecting is None or (connecting.done() and not _is_open(connecting)):
            connecting = asyncio.get_running_loop().create_task(_connect(address))
            self._lines[address] = connecting
        return await asyncio.shield(connecting)


def _is_open(connecting: asyncio.Task[_Line]) -> bool:
    if connecting.cancelled() or connecting.exception() is not None:
        return False
    return connecting.result().is_open


async def _connect(address: str) -> _Line:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_CONNECT_S):
            transport, line = await loop.create_unix_connection(_Line, address)
    except (FileNotFoundError, ConnectionRefusedError):
        raise Gone(address) from None
    except (OSError, TimeoutError):
        raise NotDelivered(address) from None
    if peer_user(transport.get_extra_info("socket")) not in {os.geteuid(), 0}:
        transport.abort()
        raise NotDelivered(address)
    return line


class _Line(asyncio.Protocol):
    """One connection, its callers, and a watch that nobody waits for a dead process."""

    def __init__(self) -> None:
        self.is_open = False
        self._transport: asyncio.Transport | None = None
        self._frames = Frames()
        self._next = 0
        self._sent: dict[int, _Waiter] = {}
        self._queues: dict[int, deque[_Waiter]] = {}
        self._open: dict[int, int] = {}
        self._waiting: dict[int, int] = {}
        self._full = False
        self._lives: list[asyncio.Future[None]] = []
        self._silent_beats = 0
        self._beat: asyncio.TimerHandle | None = None

    async def ask(self, book: int, asked: Asked, deadline: float) -> list[Result]:
        """Send it with what others ask, and return its answer."""
        if not self.is_open:
            raise NotDelivered
        waiting, transfers = self._waiting.get(book, 0), max(1, asked.transfers)
        if waiting and waiting + transfers > WAITING_MAX:
            raise LedgerOverloaded(book=book)
        loop = asyncio.get_running_loop()
        writes = _writes_of(asked)  # so that what cannot travel fails its own caller
        waiter = _Waiter(book, asked, transfers, writes, deadline, loop.create_future())
        queue = self._queues.setdefault(book, deque())
        if not queue:
            # Whoever asks in this turn of the loop goes along.
            loop.call_soon(self._pump, book)
        queue.append(waiter)
        self._waiting[book] = waiting + transfers
        self._watch()
        try:
            return await waiter.answer
        finally:
            self._waiting[book] -= transfers

    async def sign_of_life(self) -> None:
        """Wait until the process answers at all.

        Raises:
            Unanswered, NotDelivered
        """
        if not self.is_open:
            raise NotDelivered
        life = asyncio.get_running_loop().create_future()
        self._lives.append(life)
        self._write(ping_frame())
        self._watch()
        await life

    def hang_up(self) -> None:
        """Close the connection; everybody waiting is told."""
        if self._transport is not None:
            self._transport.abort()
        self._end(Unanswered)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True

    def connection_lost(self, _failure: Exception | None) -> None:
        """Tell everybody waiting."""
        self._end(Unanswered)

    def pause_writing(self) -> None:
        """Wait: the poster reads slower than we write."""
        self._full = True

    def resume_writing(self) -> None:
        """Go on with what has gathered."""
        self._full = False
        for book in tuple(self._queues):
            self._pump(book)

    def data_received(self, received: bytes) -> None:
        """Give out the answers."""
        self._silent_beats = 0
        try:
            for body in self._frames.feed(received):
                self._take(decode_reply(body))
        except VersionForeign:
            self._end(VersionsDiffer)
            self.hang_up()
        except FrameMalformed:
            self.hang_up()

    def _take(self, reply: Reply) -> None:
        lives, self._lives = self._lives, []
        for life in lives:
            if not life.done():
                life.set_result(None)
        for told in reply.told:
            waiter = self._settled(told.caller)
            if waiter is not None:
                waiter.answer.set_result([Result(*each) for each in told.results])
        for failed in reply.failed:
            waiter = self._settled(failed.caller)
            if waiter is not None:
                waiter.answer.set_exception(_failure_of(failed))

    def _settled(self, number: int) -> _Waiter | None:
        """Return who waits for this answer, and make room for the next frame."""
        waiter = self._sent.pop(number, None)
        if waiter is None:
            return None
        frame = waiter.frame
        if frame is not None and not frame.answered:
            frame.answered = True
            self._open[frame.book] -= 1
            if self._queues.get(frame.book):
                asyncio.get_running_loop().call_soon(self._pump, frame.book)
        return None if waiter.answer.done() else waiter

    def _pump(self, book: int) -> None:
        """Send what waits for the book, as one frame, if there is room for one."""
        queue = self._queues[book]
        while queue and self.is_open and not self._full:
            if self._open.get(book, 0) >= _FRAMES_OPEN_MAX:
                return
            self._send(book, _take_some(queue))

    def _send(self, book: int, waiters: Sequence[_Waiter]) -> None:
        """Send a frame, or one for each where one of them spoils it for all."""
        if not waiters:
            return
        try:
            self._send_together(book, waiters)
        except Exception as failure:  # noqa: BLE001 - it belongs to one caller, who gets it
            if len(waiters) == 1:
                _fail(waiters[0].answer, failure)
                return
            for waiter in waiters:
                self._send(book, [waiter])

    def _send_together(self, book: int, waiters: Sequence[_Waiter]) -> None:
        now = monotonic()
        first = self._next
        raw = ask_frame(
            first,
            book,
            _one_batch(waiters),
            left_ms=[max(1, int((each.deadline - now) * 1000)) for each in waiters],
            counts=[each.groups for each in waiters],
            writes=_all_writes(waiters),
        )
        frame = _Frame(book)
        self._next += len(waiters)
        for number, waiter in enumerate(waiters, first):
            waiter.frame = frame
            self._sent[number] = waiter
        self._open[book] = self._open.get(book, 0) + 1
        self._write(raw)

    def _write(self, frame: bytes) -> None:
        if self._transport is not None:
            self._transport.write(frame)

    def _watch(self) -> None:
        if self._beat is None:
            self._silent_beats = 0
            self._beat = asyncio.get_running_loop().call_later(_BEAT_S, self._on_beat)

    def _on_beat(self) -> None:
        """Look after those who wait; nothing beats when nobody does."""
        self._beat = None
        if not self.is_open:
            return
        now = monotonic()
        for queue in self._queues.values():
            for waiter in queue:
                if now > waiter.deadline:  # it was not sent, so nothing was decided
                    _fail(waiter.answer, LedgerOverloaded(book=waiter.book))
        for waiter in self._sent.values():
            if now > waiter.deadline + _GRACE_S:
                _fail(waiter.answer, LedgerUnanswered(book=waiter.book))
        if not self._sent and not self._lives and not any(self._queues.values()):
            return
        self._silent_beats += 1
        if self._silent_beats > _SILENT_BEATS_MAX:
            self.hang_up()
            return
        self._write(ping_frame())
        self._beat = asyncio.get_running_loop().call_later(_BEAT_S, self._on_beat)

    def _end(self, sent_failure: Callable[[], Exception]) -> None:
        """Tell everybody: of what was sent nothing is known, the rest never left."""
        self.is_open = False
        sent, self._sent = self._sent, {}
        queues, self._queues = self._queues, {}
        lives, self._lives = self._lives, []
        for waiter in sent.values():
            _fail(waiter.answer, sent_failure())
        for queue in queues.values():
            for waiter in queue:
                _fail(waiter.answer, NotDelivered())
        for life in lives:
            _fail(life, Unanswered())


def _take_some(queue: deque[_Waiter]) -> list[_Waiter]:
    """Take from the queue what goes into one frame, leaving out whoever no longer waits."""
    some: list[_Waiter] = []
    transfers = 0
    while queue and (not some or transfers + queue[0].transfers <= _FRAME_TRANSFERS_MAX):
        waiter = queue.popleft()
        if not waiter.answer.done():
            some.append(waiter)
            transfers += waiter.transfers
    return some


def _one_batch(waiters: Sequence[_Waiter]) -> Batch:
    """Write everything asked as one batch; neighbours that share their names at once."""
    pieces: list[Batch] = []
    for _, together in groupby(
        waiters, lambda each: (each.asked.batch is None, id(each.asked.accounts))
    ):
        asked = [each.asked for each in together]
        if asked[0].batch is None:
            groups = [group for each in asked for group in each.groups]
            pieces.append(batch_of(groups, asked[0].accounts, asked[0].codes))
        else:
            pieces += [each.batch for each in asked if each.batch is not None]
    return pieces[0] if len(pieces) == 1 else joined(pieces)


def _writes_of(asked: Asked) -> list[msgspec.Raw]:
    writes = [group.companions for group in asked.groups] if asked.batch is None else asked.writes
    return [encode_writes(each) for each in writes] if any(writes) else []


def _all_writes(waiters: Sequence[_Waiter]) -> list[msgspec.Raw]:
    """Return the writes of every group, or nothing when there are none at all."""
    if not any(waiter.writes for waiter in waiters):
        return []
    return [raw for waiter in waiters for raw in waiter.writes or [NO_WRITES] * waiter.groups]


def _fail(answer: asyncio.Future[list[Result]] | asyncio.Future[None], why: Exception) -> None:
    if not answer.done():
        answer.set_exception(why)


@cache
def _refusals() -> dict[str, type[Refusal]]:
    return {refusal.code: refusal for refusal in leaf_refusals()}


def _failure_of(failed: Failed) -> Exception:
    refusal = _refusals().get(failed.code)
    if refusal is None:
        return PosterFailed(failed.code or "see the log of the process that keeps the book")
    made: Exception = cast("Any", refusal)(**failed.facts)
    return made
