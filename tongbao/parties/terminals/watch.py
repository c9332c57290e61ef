"""Notice terminals that have fallen silent, and those that are back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from prometheus_client import Counter

from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import Event, publish
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, enqueue
from tongbao.kernel.ids import show
from tongbao.parties.terminals import _store as store
from tongbao.parties.terminals.inventory import terminals_with_ids
from tongbao.parties.terminals.model import (
    OFFLINE_AFTER,
    PREFIX,
    Heartbeat,
    TerminalState,
    TerminalView,
    view_terminal,
)

_EVERY: Final = timedelta(seconds=30)
_TOGETHER_MAX: Final = 500
TERMINALS_POLICY: Final = RetryPolicy(attempts_max=1_000_000, delays=(_EVERY,))
"""It is the only task of its kind, and only a restart would ask for it again: it never gives up."""

_CHANGES = Counter("tongbao_terminal_changes", "Terminals that fell silent, or came back", ["to"])


class TerminalOffline(Event, frozen=True, kw_only=True, tag="terminal.offline"):
    """A terminal in use has said nothing for three minutes."""

    object: TerminalView


class TerminalOnline(Event, frozen=True, kw_only=True, tag="terminal.online"):
    """A terminal that was offline is heard again."""

    object: TerminalView


class WatchTerminals(Task, frozen=True, tag="terminals.watch"):
    """Look who has fallen silent and who is back."""


async def seed(tx: Tx) -> None:
    """Start the rounds, unless they run already."""
    await enqueue(tx, WatchTerminals(), key="always")


async def run_watch_terminals(db: Db, _task: WatchTerminals, _lease: Lease) -> Again:
    """Do one round and come back."""
    while await watch_some(db) == _TOGETHER_MAX:
        pass
    return Again(_EVERY)


async def watch_some(db: Db) -> int:
    """Note as many changes as fit into one commit, each with its event; say how many."""
    async with db.begin("terminals") as tx:
        since = tx.now - OFFLINE_AFTER
        gone = await store.GONE.all(tx, since, _TOGETHER_MAX)
        back = await store.BACK.all(tx, since, _TOGETHER_MAX - len(gone))
        await _publish(tx, gone, TerminalOffline)
        await _publish(tx, back, TerminalOnline)
        failpoint("terminals.before_watch_commit")
    _CHANGES.labels("offline").inc(len(gone))
    _CHANGES.labels("online").inc(len(back))
    return len(gone) + len(back)


async def _publish(
    tx: Tx, beats: Sequence[Heartbeat], kind: type[TerminalOffline | TerminalOnline]
) -> None:
    terminals = await terminals_with_ids(tx, [beat.terminal_id for beat in beats])
    for beat in beats:
        terminal = terminals[beat.terminal_id]
        if terminal.state is not TerminalState.BOUND or terminal.mode is None:
            continue  # of one that is suspended nobody expects anything
        await publish(
            tx,
            kind(
                merchant_id=terminal.merchant_id,
                mode=terminal.mode,
                resource_id=show(PREFIX, terminal.id),
                object=view_terminal(terminal, beat, tx.now),
            ),
        )
