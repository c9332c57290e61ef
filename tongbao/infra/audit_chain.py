"""The audit log as a chain: each entry is hashed with everything before it.

Entries are written by many at once, so nobody could link them while writing without waiting for all
others. A task links them right behind; whoever changes, removes or slips in an entry afterwards is
found by `verify_chain`. The newest digest goes to the program's log as well: who could rewrite both
tables would have to rewrite that too.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

import msgspec
import structlog
from msgspec import Struct

from tongbao.infra.db import Db, Query, Statement, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import real_now

GRACE: Final = timedelta(hours=1)
"""How long, in real time, an entry may wait for its link."""
_ONE_GO: Final = 2_000
_FIRST: Final = sha256(b"tongbao audit log 1").digest()
_log: Final = structlog.get_logger()


class _Overtaken(Exception):
    """Somebody else has linked some of these entries; nothing was written."""


class Link(Struct, frozen=True):
    """One row of audit_link."""

    number: int
    entry_id: UUID
    digest: bytes


class _Linked(Struct, frozen=True):
    """A link and the entry it is of, where that is still there."""

    number: int
    entry_id: UUID
    digest: bytes
    at: datetime | None
    real_at: datetime | None
    actor: str | None
    action: str | None
    subject: str | None
    facts: dict[str, Any] | None


class _Entry(Struct, frozen=True):
    id: UUID
    at: datetime
    real_at: datetime
    actor: str
    action: str
    subject: str
    facts: dict[str, Any]


class ChainReport(Struct, frozen=True):
    """How many links there are, what is wrong with how many, and the newest digest."""

    links: int
    breaches: int
    first: str
    head: bytes


_NEWEST: Final = Query(
    Link, "select number, entry_id, digest from audit_link order by number desc limit 1"
)
_UNLINKED: Final = Query(
    _Entry,
    """select e.id, e.at, e.real_at, e.actor, e.action, e.subject, e.facts
         from audit_entry e left join audit_link l on l.entry_id = e.id
        where l.entry_id is null order by e.id limit $1""",
)
_APPEND: Final = Statement(
    """insert into audit_link (number, entry_id, digest)
       select number, entry_id, digest
         from unnest($1::bigint[], $2::uuid[], $3::bytea[]) as l (number, entry_id, digest)
       on conflict do nothing"""
)
_LINKS: Final = Query(
    _Linked,
    """select l.number, l.entry_id, l.digest, e.at, e.real_at, e.actor, e.action, e.subject,
              e.facts
         from audit_link l left join audit_entry e on e.id = l.entry_id
        where l.number > $1 order by l.number limit $2""",
)
_WAITING: Final = Query(
    UUID,
    """select e.id from audit_entry e left join audit_link l on l.entry_id = e.id
        where l.entry_id is null and e.real_at < $1 order by e.id""",
)


async def link_entries(db: Db) -> int:
    """Link every entry that has no link yet and return how many those were.

    Two who do so at once are kept apart by the links' numbers: one of them looks again.
    """
    linked = 0
    while True:
        try:
            async with db.begin("audit") as tx:
                found = await _link_some(tx)
        except _Overtaken:
            continue
        linked += found
        if found < _ONE_GO:
            return linked


async def _link_some(tx: Tx) -> int:
    newest = await _NEWEST.first(tx)
    number, digest = (0, _FIRST) if newest is None else (newest.number, newest.digest)
    entries = await _UNLINKED.all(tx, _ONE_GO)
    digests = []
    for entry in entries:
        digest = _digest(digest, entry)
        digests.append(digest)
    if entries:
        numbers = [number + place for place in range(1, len(entries) + 1)]
        failpoint("audit.before_link")
        ids = [entry.id for entry in entries]
        if await _APPEND.run(tx, numbers, ids, digests) != len(entries):
            raise _Overtaken
        _log.info("audit_linked", number=numbers[-1], digest=digest.hex())
    return len(entries)


async def verify_chain(db: Db) -> ChainReport:
    """Work every link out again; say how many entries are changed, gone or never linked."""
    digest, number, breaches, first = _FIRST, 0, 0, ""
    while links := await _LINKS.all(db, number, _ONE_GO):
        for link in links:
            entry = _entry_of(link)
            trouble = ""
            if link.number != number + 1:
                trouble = f"link {number + 1} is missing"
            elif entry is None:
                trouble = f"entry {link.entry_id} is gone"
            elif _digest(digest, entry) != link.digest:
                trouble = f"entry {link.entry_id} is not what it was, or its link is not"
            if trouble:
                breaches, first = breaches + 1, first or trouble
            number, digest = link.number, link.digest
    waiting = await _WAITING.all(db, real_now() - GRACE)
    if waiting:
        breaches, first = breaches + len(waiting), first or f"entry {waiting[0]} has no link"
    return ChainReport(number, breaches, first, digest)


def _entry_of(link: _Linked) -> _Entry | None:
    if link.at is None or link.real_at is None or link.facts is None:
        return None
    return _Entry(
        link.entry_id,
        link.at,
        link.real_at,
        link.actor or "",
        link.action or "",
        link.subject or "",
        link.facts,
    )


def _digest(before: bytes, entry: _Entry) -> bytes:
    parts = (
        str(entry.id),
        str(int(entry.at.timestamp() * 1_000_000)),
        str(int(entry.real_at.timestamp() * 1_000_000)),
        *(entry.actor, entry.action, entry.subject),
        msgspec.json.encode(entry.facts, order="sorted").decode(),
    )
    told = b"".join(len(part.encode()).to_bytes(4) + part.encode() for part in parts)
    return sha256(before + told).digest()
