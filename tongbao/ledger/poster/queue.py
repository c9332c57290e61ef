"""The calls that wait for a book's writer, in their order.

Nobody waits beyond the deadline of its call while nothing of it was decided, and no more may wait
than can be decided in a few seconds: those who come then are told so at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Final

from prometheus_client import Gauge

from tongbao.infra.db_failures import DatabaseUnavailable, LockNotFree
from tongbao.kernel.clock import monotonic
from tongbao.ledger.model import LedgerOverloaded
from tongbao.ledger.poster.calls import Call, answer_in_flight, fail

QUEUE_MAX: Final = 20_000
"""Transfers of one book that may wait."""
BATCH_MAX: Final = 4_000
"""Transfers in one commit, unless a single call has more."""

_PATROL_S: Final = 0.25
_QUEUE: Final = Gauge(
    "tongbao_ledger_queue_transfers", "Transfers that wait for a book to decide on them", ["book"]
)


class Queue:
    """What waits for one book. ``arrived`` is set by whatever comes."""

    def __init__(self, book: int) -> None:
        self.arrived = asyncio.Event()
        self._book = book
        self._calls: deque[Call] = deque()
        self._transfers = 0
        self._patrol: asyncio.TimerHandle | None = None
        self._shown = _QUEUE.labels(str(book))

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def transfers(self) -> int:
        """How many transfers wait."""
        return self._transfers

    def put(self, call: Call) -> None:
        """Let a call wait.

        Raises:
            LedgerOverloaded: too much waits already.
        """
        if self._transfers and self._transfers + call.transfers > QUEUE_MAX:
            raise LedgerOverloaded(book=self._book)
        self._append(call)
        self.arrived.set()

    def take(self, calls_max: int) -> list[Call]:
        """Take what goes into one commit."""
        self._shown.set(self._transfers)
        calls: list[Call] = []
        transfers = 0
        while self._calls and len(calls) < calls_max:
            call = self._calls[0]
            if calls and transfers + call.transfers > BATCH_MAX:
                break
            self._calls.popleft()
            self._transfers -= call.transfers
            if call.answer.done():
                continue
            if len(call) == 0:  # it only wants the book to be kept here
                call.answer.set_result([])
                continue
            calls.append(call)
            transfers += call.transfers
        return calls

    def put_back(self, calls: Iterable[Call]) -> None:
        """Put calls back to the front, in their order."""
        for call in reversed([*calls]):
            self._calls.appendleft(call)
            self._transfers += call.transfers

    def drain(self) -> list[Call]:
        """Take all."""
        calls, self._calls, self._transfers = [*self._calls], deque(), 0
        return calls

    def refuse(self, failure: Exception) -> None:
        """Tell all why the book cannot be opened; of a commit in doubt, at its time."""
        now = monotonic()
        for call in self.drain():
            if isinstance(failure, LockNotFree):
                answer_in_flight([call])
            elif call.begun and isinstance(failure, DatabaseUnavailable) and now < call.deadline:
                self._append(call)
            else:
                fail([call], failure)

    def watch(self) -> None:
        """Look from now on who waits too long."""
        self._patrol = asyncio.get_running_loop().call_later(_PATROL_S, self._on_patrol)

    def watch_no_more(self) -> None:
        """Look no longer."""
        if self._patrol is not None:
            self._patrol.cancel()

    def _append(self, call: Call) -> None:
        self._calls.append(call)
        self._transfers += call.transfers

    def _on_patrol(self) -> None:
        """Tell those whose time is over while nothing of theirs was decided."""
        now = monotonic()
        for call in self._calls:
            if now >= call.deadline and not call.begun and not call.answer.done():
                call.answer.set_exception(LedgerOverloaded(book=self._book))
        self.watch()
