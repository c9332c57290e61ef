"""The audit log: who did what to which thing, when; entries are only ever added.

An entry is written in the transaction of the act itself, so neither exists without the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.infra.db import Db, Query, Statement, Tx, Write
from tongbao.kernel.clock import real_now
from tongbao.kernel.errors import Fact
from tongbao.kernel.ids import first_id_at, new_id

_ORIGIN_MAX: Final = 200


class AuditEntry(Struct, frozen=True):
    """One act. ``at`` is business time, ``real_at`` is not moved by a test clock.

    ``origin`` is where it came from: an address and the request's id, the command line, or a task.
    """

    id: UUID
    at: datetime
    real_at: datetime
    actor: str
    origin: str
    action: str
    subject: str
    facts: dict[str, Any]


_INSERT = Statement(
    "insert into audit_entry (id, at, real_at, actor, origin, action, subject, facts)"
    " values ($1, $2, $3, $4, $5, $6, $7, $8)"
)
# The facts are given as text: a commit of another process takes no nested values.
_APPEND = Statement(
    "insert into audit_entry (id, at, real_at, actor, origin, action, subject, facts)"
    " values ($1, $2, $3, $4, $5, $6, $7, $8::text::jsonb)"
)
_OF_SUBJECT = Query(
    AuditEntry,
    "select id, at, real_at, actor, origin, action, subject, facts"
    " from audit_entry where subject = $1 order by id",
)

_LATEST_OF_SUBJECT = Query(
    AuditEntry,
    "select id, at, real_at, actor, origin, action, subject, facts from audit_entry"
    " where subject = $1 and id >= $2 and action = $3 order by id desc limit $4",
)
_OF_ACTIONS = Query(
    AuditEntry,
    "select id, at, real_at, actor, origin, action, subject, facts"
    " from audit_entry where action = any($1::text[]) order by id",
)


_origin: ContextVar[str] = ContextVar("origin", default="")
_source: ContextVar[str | None] = ContextVar("source", default=None)


def come_from(origin: str, source: str | None = None) -> None:
    """Say where the acts of this task of the loop come from: an address, a command, a task.

    ``source`` is the place on the network, where they come over one.
    """
    _origin.set(origin[:_ORIGIN_MAX])
    _source.set(source)


def source_of_request() -> str | None:
    """Return where on the network the request comes from that is served here, if it is one."""
    return _source.get()


async def record(tx: Tx, action: str, subject: str, facts: Mapping[str, Fact]) -> UUID:
    """Append what the transaction's actor does and return the entry's id.

    Facts are names and figures for people, never secrets, card numbers or whole documents.
    """
    entry_id = new_id()
    who = (tx.actor, _origin.get())
    await _INSERT.run(tx, entry_id, tx.now, real_now(), *who, action, subject, dict(facts))
    return entry_id


def entry_write(
    action: str, subject: str, facts: Mapping[str, Fact], *, actor: str, now: datetime
) -> Write:
    """Return the write that appends an entry, for a commit that another makes."""
    text = msgspec.json.encode(facts).decode()
    who = (actor, _origin.get())
    return Write(_APPEND, (new_id(), now, real_now(), *who, action, subject, text))


async def entries_of_subject(on: Db | Tx, subject: str) -> list[AuditEntry]:
    """Return everything recorded about a thing, oldest first."""
    return await _OF_SUBJECT.all(on, subject)


async def latest_of_subject(
    on: Db | Tx, subject: str, action: str, *, since: datetime, limit: int
) -> list[AuditEntry]:
    """Return the newest acts of a kind about a thing since a moment of real time, newest first."""
    return await _LATEST_OF_SUBJECT.all(on, subject, first_id_at(since), action, limit)


async def entries_of_actions(on: Db | Tx, actions: Sequence[str]) -> list[AuditEntry]:
    """Return every act of some kinds, oldest first; all of the log is read for it."""
    return await _OF_ACTIONS.all(on, list(actions))
