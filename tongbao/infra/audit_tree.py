"""The tree over the audit log (RFC 6962): each entry has a place in it, which never changes.

Entries are written by many at once, and none waits for another; `place_entries` gives them places
right behind, in one order. What the tree is at a moment is signed in `controls.audit_log`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.infra.audit import AuditEntry
from tongbao.infra.db import Db, Query, Statement, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import real_now
from tongbao.kernel.merkle import (
    Subtree,
    grow,
    hashes_in,
    leaf_hash,
    node_hash,
    prove,
    root_of,
    subtrees_of,
    tree_root,
)

GRACE: Final = timedelta(hours=1)
"""How long, in real time, an entry may wait for its place."""
LATE: Final = timedelta(hours=2)
"""How much younger than entries that have a place one may be whose commit took so long."""
BLOCK: Final = 1024
"""So many entries of the past are derived anew at a time."""
_BLOCK_LEVEL: Final = 10
_ONE_GO: Final = 2_000
_SHOWN_MAX: Final = 100
_BEHIND_THE_TIME: Final = 80  # bits of a UUIDv7
_NO_ID: Final = UUID(int=0)
_ACTOR: Final = "audit"


class LogExtent(Struct, frozen=True):
    """How far the tree has grown, and the roots of the subtrees it is made of, largest first."""

    size: int
    frontier: bytes


class Leaf(Struct, frozen=True):
    """Where an entry stands; ``number`` begins at 1."""

    number: int
    entry_id: UUID
    hash: bytes


class Node(Struct, frozen=True):
    """The root of 2 ** level leaves, of which there are ``number`` before it."""

    level: int
    number: int
    hash: bytes


_EMPTY: Final = LogExtent(0, b"")
_ENTRY: Final = "e.id, e.at, e.real_at, e.actor, e.origin, e.action, e.subject, e.facts"
_OPEN_TREE: Final = Statement("""
    insert into audit_tree (name, size, frontier) values ('audit', 0, '')
        on conflict do nothing""")
_LOCK_TREE: Final = Query(
    LogExtent, "select size, frontier from audit_tree where name = 'audit' for update"
)
_TREE: Final = Query(LogExtent, "select size, frontier from audit_tree where name = 'audit'")
_GROW: Final = Statement("""
    update audit_tree set size = $1, frontier = $2 where name = 'audit'""")
_NEWEST_LEAF: Final = Query(UUID, "select entry_id from audit_leaf order by number desc limit 1")
# From an id on: who is later than that by hours is found by the daily look at everything.
_UNPLACED: Final = Query(
    AuditEntry,
    f"""
    select {_ENTRY} from audit_entry e
     where e.id > $1 and not exists (select from audit_leaf l where l.entry_id = e.id)
     order by e.id limit $2""",
)
_ADD_LEAVES: Final = Statement("""
    insert into audit_leaf (number, entry_id, hash)
    select number, entry_id, hash
      from unnest($1::bigint[], $2::uuid[], $3::bytea[]) as l (number, entry_id, hash)""")
_ADD_NODES: Final = Statement("""
    insert into audit_node (level, number, hash)
    select level, number, hash
      from unnest($1::int[], $2::bigint[], $3::bytea[]) as n (level, number, hash)""")
_LEAF_OF: Final = Query(Leaf, "select number, entry_id, hash from audit_leaf where entry_id = $1")
_LEAVES: Final = Query(
    Leaf,
    """
    select number, entry_id, hash from audit_leaf where number > $1 order by number limit $2""",
)
_NODES: Final = Query(
    Node,
    """
    select n.level, n.number, n.hash
      from unnest($1::int[], $2::bigint[]) as asked (level, number)
      join audit_node n on n.level = asked.level and n.number = asked.number
     union all
    select asked.level, asked.number, l.hash
      from unnest($1::int[], $2::bigint[]) as asked (level, number)
      join audit_leaf l on asked.level = 0 and l.number = asked.number + 1""",
)
_ENTRIES: Final = Query(
    AuditEntry,
    f"select {_ENTRY} from audit_entry e where e.id = any($1::uuid[])",
)
_WAITING: Final = Query(
    UUID,
    """
    select e.id from audit_entry e left join audit_leaf l on l.entry_id = e.id
     where l.entry_id is null and e.real_at < $1 and e.id > $3 order by e.id limit $2""",
)


async def place_entries(db: Db) -> int:
    """Give every entry without one a place in the tree; return how many those were."""
    placed = 0
    while True:
        async with db.begin(_ACTOR) as tx:
            found = await _place_some(tx, await locked_extent(tx))
        placed += found
        if found < _ONE_GO:
            return placed


async def locked_extent(tx: Tx) -> LogExtent:
    """Return how far the tree has grown, and keep others from growing it meanwhile."""
    await _OPEN_TREE.run(tx)
    return await _LOCK_TREE.one(tx)


async def entry_with_id(on: Db | Tx, entry_id: UUID) -> AuditEntry | None:
    """Return an entry of the log."""
    return next(iter(await _ENTRIES.all(on, [entry_id])), None)


def content_of(entry: AuditEntry) -> bytes:
    """Return what an entry's leaf is made of: JSON, names sorted, times in UTC to a microsecond."""
    said = {
        "action": entry.action,
        "actor": entry.actor,
        "at": _utc(entry.at),
        "facts": entry.facts,
        "id": str(entry.id),
        "origin": entry.origin,
        "real_at": _utc(entry.real_at),
        "subject": entry.subject,
    }
    return msgspec.json.encode(said, order="sorted")


async def leaf_of(on: Db | Tx, entry_id: UUID) -> Leaf | None:
    """Return an entry's place, if it has one yet."""
    return await _LEAF_OF.first(on, entry_id)


async def proof_of(on: Db | Tx, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Return the proof that these ranges of leaves make."""
    wanted = sorted({each for range_ in ranges for each in subtrees_of(*range_)})
    levels, numbers = [each.level for each in wanted], [each.number for each in wanted]
    roots = {
        Subtree(row.level, row.number): row.hash for row in await _NODES.all(on, levels, numbers)
    }
    return prove(ranges, roots.__getitem__)


class Derived(Struct):
    """What deriving the tree anew from the entries found."""

    size: int
    root: bytes
    roots: dict[int, bytes]  # of the tree as it was at the sizes that were asked about
    troubles: list[str]


async def size_of_log(db: Db) -> int:
    """Return how many entries have a place."""
    return (await _TREE.first(db) or _EMPTY).size


async def derive(db: Db, sizes: Sequence[int] = (), *, since: LogExtent | None = None) -> Derived:
    """Derive the tree anew from entries and leaves; ``sizes`` are earlier ones to tell of.

    ``since``: what stands before is taken to be as it says, and only what came after is derived.
    """
    kept, begin = await _TREE.first(db) or _EMPTY, since or _EMPTY
    size, frontier = begin.size, tuple(hashes_in(begin.frontier))
    troubles, roots = list[str](), {size: root_of(frontier)}
    async for leaves, found in _leaves(db, size):
        for place, leaf in enumerate(leaves, size + 1):
            troubles += _troubles_of(leaf, place, found.get(leaf.entry_id))
        hashes = [leaf.hash for leaf in leaves]
        for asked in sizes:
            if size < asked <= size + len(hashes):
                roots[asked] = root_of(grow(size, frontier, hashes[: asked - size]).frontier)
        grown = grow(size, frontier, hashes)
        size, frontier = grown.size, grown.frontier
    if (size, b"".join(frontier)) != (kept.size, kept.frontier):
        troubles.append(f"the tree of {kept.size} is not made of the {size} leaves there are")
    last = await _LEAVES.all(db, begin.size - 1, 1) if begin.size else []
    floor = _some_time_before(last[0].entry_id) if last else _NO_ID
    waiting = await _WAITING.all(db, real_now() - GRACE, _SHOWN_MAX, floor)
    troubles += [f"entry {each} has no place" for each in waiting]
    return Derived(size, root_of(frontier), roots, troubles)


async def troubles_of_block(db: Db, number: int) -> list[str]:
    """Derive one whole block of the past anew, and what stands on it up to the tree's frontier."""
    kept = await _TREE.first(db) or _EMPTY
    if (number + 1) * BLOCK > kept.size:
        return []
    leaves = await _LEAVES.all(db, number * BLOCK, BLOCK)
    found = {each.id: each for each in await _ENTRIES.all(db, [leaf.entry_id for leaf in leaves])}
    troubles = []
    for place, leaf in enumerate(leaves, number * BLOCK + 1):
        troubles += _troubles_of(leaf, place, found.get(leaf.entry_id))
    if troubles or len(leaves) < BLOCK:
        return troubles or [f"leaf {number * BLOCK + len(leaves) + 1} is missing"]
    root, level, place = tree_root(leaf.hash for leaf in leaves), _BLOCK_LEVEL, number
    beside: list[Subtree] = []
    while (place >> 1) + 1 << level + 1 <= kept.size:
        beside.append(Subtree(level, place ^ 1))
        level, place = level + 1, place >> 1
    levels, numbers = [each.level for each in beside], [each.number for each in beside]
    kept_roots = {
        Subtree(row.level, row.number): row.hash for row in await _NODES.all(db, levels, numbers)
    }
    for each in beside:
        other = kept_roots.get(each, b"")
        root = (
            node_hash(other, root)
            if each.number < (number >> each.level - _BLOCK_LEVEL)
            else (node_hash(root, other))
        )
    standing = [bit for bit in reversed(range(kept.size.bit_length())) if kept.size >> bit & 1]
    if hashes_in(kept.frontier)[standing.index(level)] != root:
        return [f"block {number} is not what the tree is made of"]
    return []


async def _leaves(db: Db, after: int) -> AsyncIterator[tuple[list[Leaf], dict[UUID, AuditEntry]]]:
    """Yield the leaves in their order, with those of their entries that are still there."""
    while leaves := await _LEAVES.all(db, after, _ONE_GO):
        entries = await _ENTRIES.all(db, [leaf.entry_id for leaf in leaves])
        yield leaves, {entry.id: entry for entry in entries}
        after = leaves[-1].number


async def _place_some(tx: Tx, tree: LogExtent) -> int:
    newest = await _NEWEST_LEAF.first(tx)
    entries = await _UNPLACED.all(tx, _some_time_before(newest), _ONE_GO)
    if not entries:
        return 0
    leaves = [leaf_hash(content_of(entry)) for entry in entries]
    grown = grow(tree.size, hashes_in(tree.frontier), leaves)
    numbers = range(tree.size + 1, grown.size + 1)
    await _ADD_LEAVES.run(tx, [*numbers], [entry.id for entry in entries], leaves)
    nodes = [
        (level, first + place, each)
        for level, (first, roots) in enumerate(grown.levels)
        for place, each in enumerate(roots)
        if level
    ]
    if nodes:
        await _ADD_NODES.run(tx, *[list(column) for column in zip(*nodes, strict=True)])
    failpoint("audit.before_growing")
    await _GROW.run(tx, grown.size, b"".join(grown.frontier))
    return len(entries)


def _troubles_of(leaf: Leaf, place: int, entry: AuditEntry | None) -> list[str]:
    if leaf.number != place:
        return [f"leaf {place} is missing"]
    if entry is None:
        return [f"entry {leaf.entry_id} is gone"]
    if leaf_hash(content_of(entry)) != leaf.hash:
        return [f"entry {leaf.entry_id} is not what it was, or its leaf is not"]
    return []


def _some_time_before(newest: UUID | None) -> UUID:
    """Return an id that no entry has that is still under way when a later one was placed."""
    if newest is None:
        return _NO_ID
    at_ms = (newest.int >> _BEHIND_THE_TIME) - int(LATE.total_seconds() * 1000)
    return UUID(int=max(at_ms, 0) << _BEHIND_THE_TIME)


def _utc(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
