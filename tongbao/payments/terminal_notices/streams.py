"""Server-sent events to terminals: what each has not heard yet, in order, then as it comes.

    connect, Last-Event-ID ──► what came since ──► wait ──notice──► tell it
                                                    │ ▲                │
                                                    │ └────────────────┘
                                                    ├─nothing for a while──► a comment, to be alive
                                                    └─another stream of the same terminal, a
                                                      terminal suspended or taken back──► the end

Nothing is kept here: a stream reads from the database by number, so it can be broken at any byte
and taken up by any process. One question at a time asks for all who listen whether there is news.
A terminal that does not read is let go of after a while; it holds one page of notices at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final
from uuid import UUID

import msgspec
import structlog
from prometheus_client import Counter, Gauge

from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller
from tongbao.kernel.clock import monotonic
from tongbao.parties.terminals import inventory
from tongbao.parties.terminals.model import Terminal, TerminalState
from tongbao.payments.terminal_notices import _store as store
from tongbao.payments.terminal_notices.model import Notice, StreamsFull

POLL_S: Final = 0.5
KEEPALIVE_S: Final = 15.0
"""Proxies cut off what is silent for half a minute or more."""
SEND_S: Final = 10.0
"""How long a terminal may leave what it is sent unread."""
STANDING_S: Final = 5.0
"""How often it is looked whether those who listen still may."""
STREAMS_MAX: Final = 10_000
PAGE: Final = 20
_RETRY_MS: Final = 2000

_LISTENING = Gauge("tongbao_terminal_streams", "Terminals that listen to this process")
_ENDED = Counter("tongbao_terminal_streams_ended", "Streams that ended, by why", ["why"])
_log = structlog.get_logger()

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class _TooSlow(Exception):
    """The terminal does not read what it is sent."""


class _Listener:
    """One stream: where it is, and how it is woken."""

    def __init__(self, terminal: Terminal, position: int) -> None:
        self.terminal_id = terminal.id
        self.key_number = terminal.key_number
        self.position = position
        self.latest = position
        self.wake = asyncio.Event()
        self.over = ""

    def end(self, why: str) -> None:
        self.over = self.over or why
        self.wake.set()


class Streams:
    """The streams of one process."""

    def __init__(
        self,
        db: Db,
        *,
        poll_s: float = POLL_S,
        keepalive_s: float = KEEPALIVE_S,
        send_s: float = SEND_S,
        streams_max: int = STREAMS_MAX,
    ) -> None:
        self._db = db
        self._poll_s = poll_s
        self._keepalive_s = keepalive_s
        self._send_s = send_s
        self._streams_max = streams_max
        self._listeners: dict[UUID, _Listener] = {}
        self._watching: asyncio.Task[None] | None = None

    async def serve(
        self, caller: Caller, last_heard: int | None, receive: Receive, send: Send
    ) -> None:
        """Tell a terminal what it has not heard, until it hangs up or may hear no more.

        Without a number from the terminal it begins behind what its heartbeats said it has told.

        Raises:
            StreamsFull
        """
        listener = await self._join(caller, last_heard)
        gone = asyncio.create_task(_hung_up(receive))
        try:
            await self._begin(send)
            await self._tell_all(listener, caller, gone, send)
            if not gone.done():
                await self._send(send, b"", more=False)
        except _TooSlow:
            listener.end("too_slow")
            _log.info("terminal_stream_too_slow")
        finally:
            gone.cancel()
            self._leave(listener)

    def close(self) -> None:
        """End every stream: those who listen come again, to another process."""
        for listener in list(self._listeners.values()):
            listener.end("closing")

    # Who listens

    async def _join(self, caller: Caller, last_heard: int | None) -> _Listener:
        if len(self._listeners) >= self._streams_max:
            raise StreamsFull
        terminal = await inventory.terminal_with_id(self._db, caller.key_id)
        feeds = await store.FEEDS.all(self._db, [terminal.id])
        last = feeds[0].last_seq if feeds else 0
        if last_heard is None:
            beats = await inventory.heartbeats_of(self._db, [terminal])
            last_heard = beats[terminal.id].heard if terminal.id in beats else 0
        # A number that was never given out is of another time; what comes from now on is heard.
        listener = _Listener(terminal, min(last_heard, last))
        listener.latest = last
        if (before := self._listeners.get(terminal.id)) is not None:
            before.end("replaced")
        self._listeners[terminal.id] = listener
        _LISTENING.set(len(self._listeners))
        if terminal.state is not TerminalState.BOUND:
            listener.end("not_in_use")
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        return listener

    def _leave(self, listener: _Listener) -> None:
        if self._listeners.get(listener.terminal_id) is listener:
            del self._listeners[listener.terminal_id]
        _LISTENING.set(len(self._listeners))
        _ENDED.labels(listener.over or "hung_up").inc()

    async def _watch(self) -> None:
        """Wake those who have something to hear, for as long as anybody listens."""
        looked = monotonic()
        try:
            while self._listeners:
                await asyncio.sleep(self._poll_s)
                try:
                    await self._wake_all()
                    if monotonic() - looked >= STANDING_S:
                        await self._end_those_gone()
                        looked = monotonic()
                except Exception:  # noqa: BLE001 - the database is away: the next round asks again
                    _log.warning("terminal_streams_cannot_look", exc_info=True)
        finally:
            self._watching = None

    async def _wake_all(self) -> None:
        for feed in await store.FEEDS.all(self._db, list(self._listeners)):
            listener = self._listeners.get(feed.terminal_id)
            if listener is not None and feed.last_seq > listener.position:
                listener.latest = feed.last_seq
                listener.wake.set()

    async def _end_those_gone(self) -> None:
        found = await inventory.terminals_with_ids(self._db, list(self._listeners))
        for listener in list(self._listeners.values()):
            terminal = found.get(listener.terminal_id)
            if terminal is None or terminal.state is not TerminalState.BOUND:
                listener.end("not_in_use")
            elif terminal.key_number != listener.key_number:
                listener.end("new_key")

    # What is told

    async def _tell_all(
        self, listener: _Listener, caller: Caller, gone: asyncio.Task[None], send: Send
    ) -> None:
        whose = (caller.merchant_id, caller.mode)
        while not listener.over and not gone.done():
            listener.wake.clear()
            upto = listener.latest
            place = (listener.terminal_id, listener.position, *whose)
            notices = await store.NOTICES_AFTER.all(self._db, *place, PAGE)
            if notices:
                await self._send(send, b"".join(_event(each) for each in notices))
                listener.position = notices[-1].seq
                continue
            # What another merchant's terminal was told before is passed by.
            listener.position = max(listener.position, upto)
            if not await self._news(listener, gone) and not gone.done():
                await self._send(send, b": still here\n\n")

    async def _news(self, listener: _Listener, gone: asyncio.Task[None]) -> bool:
        """Wait for something to tell, or an end; False when nothing came for a while."""
        woken = asyncio.create_task(listener.wake.wait())
        try:
            done, _ = await asyncio.wait(
                {woken, gone}, timeout=self._keepalive_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            woken.cancel()
        return bool(done)

    async def _begin(self, send: Send) -> None:
        headers: Sequence[tuple[bytes, bytes]] = (
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
        )
        await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
        await self._send(send, b"retry: %d\n\n" % _RETRY_MS)

    async def _send(self, send: Send, content: bytes, *, more: bool = True) -> None:
        try:
            async with asyncio.timeout(self._send_s):
                await send({"type": "http.response.body", "body": content, "more_body": more})
        except TimeoutError:
            raise _TooSlow from None


def _event(notice: Notice) -> bytes:
    data = msgspec.json.encode(notice.body)
    return b"id: %d\nevent: notice\ndata: %b\n\n" % (notice.seq, data)


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
