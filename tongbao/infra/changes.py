"""What was changed since: so that a process may believe what it remembers, and for how long.

    change ──one commit──► mark                 process: remembered ◄── forget ── marks, every 1/4 s
                                                         └─ not heard for 0.9 s: asks the database

Whoever changes a key, a merchant or a rule marks it in the same transaction. A process that relies
on what it remembers asks for new marks four times a second, in one question for all kinds, and
forgets what they name. What it remembers stands only while it has heard lately: where the database
cannot be asked, nothing is believed for longer than `BOUND_S`, and whoever needs it asks and fails.

Balances and whatever money is decided on are never remembered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final
from uuid import UUID

import structlog
from prometheus_client import Counter

from tongbao.infra import _change_store as store
from tongbao.infra.db import Db, Tx
from tongbao.kernel.clock import monotonic

EVERY_S: Final = 0.25
"""How often marks are asked for while anybody relies on them."""
BOUND_S: Final = 0.9
"""How long after the last question that was answered anything that is remembered is believed."""
RELIED_ON_S: Final = 5.0
"""How long marks are asked for after somebody has relied on them."""
ALL: Final = UUID(int=0)
"""The id of a mark that is about everything of its kind."""

_NOTHING_YET: Final = 2**63 - 1
_UNHEARD: Final = Counter("tongbao_changes_unheard", "Questions for changes that had no answer")
_log = structlog.get_logger()

Forget = Callable[[UUID], None]


async def mark(tx: Tx, what: str, of_id: UUID) -> None:
    """Have every process forget what it remembers of this, as soon as the transaction commits."""
    await store.MARK.run(tx, what, of_id)


class Changes:
    """Hears for one process what was changed."""

    def __init__(self, db: Db) -> None:
        self._db = db
        self._forget: dict[str, list[Forget]] = {}
        self._horizon = _NOTHING_YET
        self._seen: dict[tuple[str, UUID], int] = {}
        self._heard_at = float("-inf")
        self._relied_on_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.epoch = 0
        """Grows whenever something was forgotten: what was asked for before it is not kept."""

    def on(self, what: str, forget: Forget) -> None:
        """Have this called with the id of each thing of a kind that was changed."""
        self._forget.setdefault(what, []).append(forget)

    @property
    def is_heard(self) -> bool:
        """Whether what is remembered may be believed now; to ask keeps the listening up."""
        self._relied_on_at = monotonic()
        if self._timer is None and self._asking is None:
            self._ask_soon()
        return self._relied_on_at - self._heard_at < BOUND_S

    async def hear(self) -> None:
        """Ask for marks now and forget what they name.

        Raises:
            DatabaseUnavailable
        """
        asked_at = monotonic()
        marks = await store.CHANGES.all(self._db, self._horizon)
        horizon, before = marks[0].horizon, self._seen
        self._seen = {
            (each.what, each.of_id): each.version
            for each in marks
            if each.what is not None and each.of_id is not None and each.version is not None
        }
        # Another server's numbers may begin anew: nothing is certain then. So it is at the first.
        if horizon < self._horizon:
            self._forget_all()
        else:
            self._forget_these([key for key, at in self._seen.items() if before.get(key) != at])
        self._horizon, self._heard_at = horizon, asked_at

    def _forget_these(self, changed: list[tuple[str, UUID]]) -> None:
        for what, of_id in changed:
            for forget in self._forget.get(what, ()):
                forget(of_id)
        if changed:
            self.epoch += 1

    def _forget_all(self) -> None:
        for each in self._forget.values():
            for forget in each:
                forget(ALL)
        self.epoch += 1

    def _ask_soon(self) -> None:
        self._timer = None
        self._asking = asyncio.get_running_loop().create_task(self._ask())

    async def _ask(self) -> None:
        if self._db.is_closed:
            self._asking = None
            return
        try:
            async with asyncio.timeout(2 * BOUND_S):
                await self.hear()
        except Exception as failure:  # noqa: BLE001 - unheard, nothing is believed; nobody waits
            _UNHEARD.inc()
            _log.warning("changes_unheard", why=type(failure).__name__)
        finally:
            self._asking = None
        if monotonic() - self._relied_on_at < RELIED_ON_S:
            self._timer = asyncio.get_running_loop().call_later(EVERY_S, self._ask_soon)
