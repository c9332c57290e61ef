"""The tree: grown behind the entries, read for proofs, derived anew to find what was changed.

    entry, with the act itself ─► leaf ─► tree ─► checkpoint, signed and published every minute

Entries are written by many at once, and none waits for another; a task places them right behind, in
one order that is never changed. Who alters an entry or a leaf afterwards is found by `verify_log`;
who alters both, and all nodes, is found by whoever keeps a checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog

from tongbao.controls.audit_log import _store as store
from tongbao.controls.audit_log.model import (
    NAME,
    AuditCheckpoint,
    AuditCheckpointsReversed,
    AuditCheckpointUnknown,
    AuditTree,
    EntryProof,
    EntryUnknown,
    EntryUnproven,
    Leaf,
    LogConsistency,
    LogReport,
    WrittenEntry,
)
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import real_now
from tongbao.kernel.merkle import (
    HASH_BYTES,
    Subtree,
    consistency_ranges,
    grow,
    inclusion_ranges,
    leaf_hash,
    prove,
    root_of,
    subtrees_of,
)
from tongbao.kernel.pages import CursorInvalid, Page, decode_cursor, page_of, page_size
from tongbao.ledger.proofs.entries import moment_text, text_of
from tongbao.ledger.proofs.model import Proofs
from tongbao.ledger.proofs.signers import is_ours, signed_note, signers

GRACE: Final = timedelta(hours=1)
"""How long, in real time, an entry may wait for its place."""
_ONE_GO: Final = 2_000
_LATE: Final = timedelta(hours=2)
_SHOWN_MAX: Final = 100
_MILLISECONDS: Final = 80  # bits of a UUIDv7 behind its time
_NO_ID: Final = UUID(int=0)
_ACTOR: Final = "audit"
_log: Final = structlog.get_logger()


async def place_entries(db: Db) -> int:
    """Give every entry without one a place in the tree; return how many those were."""
    placed = 0
    while True:
        async with db.begin(_ACTOR) as tx:
            await store.OPEN_TREE.run(tx)
            found = await _place_some(tx, await store.LOCK_TREE.one(tx))
        placed += found
        if found < _ONE_GO:
            return placed


async def _place_some(tx: Tx, tree: AuditTree) -> int:
    newest = await store.NEWEST_LEAF.first(tx)
    entries = await store.UNPLACED.all(tx, _some_time_before(newest), _ONE_GO)
    if not entries:
        return 0
    leaves = [leaf_hash(entry.content) for entry in entries]
    grown = grow(tree.size, _hashes(tree.frontier), leaves)
    numbers = range(tree.size + 1, grown.size + 1)
    await store.ADD_LEAVES.run(tx, [*numbers], [entry.id for entry in entries], leaves)
    nodes = [
        (level, first + place, each)
        for level, (first, roots) in enumerate(grown.levels)
        for place, each in enumerate(roots)
        if level
    ]
    if nodes:
        await store.ADD_NODES.run(tx, *[list(column) for column in zip(*nodes, strict=True)])
    failpoint("audit.before_growing")
    await store.GROW.run(tx, grown.size, b"".join(grown.frontier))
    return len(entries)


async def sign_checkpoint(proofs: Proofs) -> AuditCheckpoint | None:
    """Sign what the log is now, if it grew; return the newest checkpoint, None of an empty log.

    It goes to the program's log as well: who could rewrite every table would have to rewrite that
    too, and what others have fetched meanwhile.
    """
    async with proofs.db.begin(_ACTOR) as tx:
        await store.OPEN_TREE.run(tx)
        tree = await store.LOCK_TREE.one(tx)
        last = await store.LAST_POINT.first(tx)
        if tree.size == 0 or (last is not None and last.size == tree.size):
            return last
        present = await signers(proofs, tx)
        number, root = 1 if last is None else last.number + 1, root_of(_hashes(tree.frontier))
        body = _body(present.name, tree.size, root, moment_text(tx.now))
        note = signed_note(proofs.keyring, present, body)
        made = AuditCheckpoint(number, tree.size, root, tree.frontier, tx.now, note)
        await store.ADD_POINT.run(tx, *[getattr(made, each) for each in made.__struct_fields__])
    _log.info("audit_checkpoint", number=number, size=tree.size, root=root.hex())
    return made


async def list_checkpoints(
    db: Db, *, cursor: str | None = None, limit: int | None = None
) -> Page[AuditCheckpoint]:
    """Return checkpoints, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size, before = page_size(limit), None
    if cursor is not None:
        [text] = decode_cursor(cursor)
        if not text.isdecimal():
            raise CursorInvalid(param="cursor")
        before = int(text)
    rows = await store.POINTS.all(db, before, size + 1)
    return page_of(rows, size, lambda row: row.number)


async def prove_entry(db: Db, entry_id: UUID) -> EntryProof:
    """Return the proof that an entry stands in the log, under the newest checkpoint.

    Raises:
        EntryUnknown, EntryUnproven
    """
    entries = await store.ENTRIES.all(db, [entry_id])
    if not entries:
        raise EntryUnknown
    leaf, point = await store.LEAF_OF.first(db, entry_id), await store.LAST_POINT.first(db)
    if leaf is None or point is None or point.size < leaf.number:
        raise EntryUnproven
    path = await _proof(db, inclusion_ranges(leaf.number - 1, point.size))
    content = entries[0].content.decode()
    return EntryProof("tongbao.audit_entry/1", content, leaf.number, path, point.note)


async def prove_growth(db: Db, old: int, new: int) -> LogConsistency:
    """Return the proof that between two checkpoints, by number, the log was only added to.

    Raises:
        AuditCheckpointUnknown, AuditCheckpointsReversed
    """
    older, newer = await store.POINT.first(db, old), await store.POINT.first(db, new)
    if older is None or newer is None:
        raise AuditCheckpointUnknown(number=old if older is None else new)
    if older.size > newer.size:
        raise AuditCheckpointsReversed(old=old, new=new)
    path = await _proof(db, consistency_ranges(older.size, newer.size))
    return LogConsistency("tongbao.audit_consistency/1", older.note, newer.note, path)


async def verify_log(db: Db) -> LogReport:
    """Derive the whole tree anew; say how many entries are changed, gone or never placed."""
    tree, last = await store.TREE.first(db) or AuditTree(0, b""), await store.LAST_POINT.first(db)
    size, frontier, troubles = 0, tuple[bytes, ...](), list[str]()
    while leaves := await store.LEAVES.all(db, size, _ONE_GO):
        found = {e.id: e for e in await store.ENTRIES.all(db, [each.entry_id for each in leaves])}
        for place, leaf in enumerate(leaves, size + 1):
            troubles += _troubles_of(leaf, place, found.get(leaf.entry_id))
        hashes = [leaf.hash for leaf in leaves]
        if last is not None and size < last.size <= size + len(hashes):
            promised = root_of(grow(size, frontier, hashes[: last.size - size]).frontier)
            troubles += await _troubles_with(db, last, promised)
        grown = grow(size, frontier, hashes)
        size, frontier = grown.size, grown.frontier
    if (size, b"".join(frontier)) != (tree.size, tree.frontier):
        troubles.append(f"the tree of {tree.size} is not made of the {size} leaves there are")
    if last is not None and last.size > size:
        troubles.append(f"checkpoint {last.number} has {last.size} entries, and {size} are left")
    waiting = await store.WAITING.all(db, real_now() - GRACE, _SHOWN_MAX)
    troubles += [f"entry {each} has no place" for each in waiting]
    return LogReport(size, len(troubles), next(iter(troubles), ""), root_of(frontier))


def _troubles_of(leaf: Leaf, place: int, entry: WrittenEntry | None) -> list[str]:
    if leaf.number != place:
        return [f"leaf {place} is missing"]
    if entry is None:
        return [f"entry {leaf.entry_id} is gone"]
    if leaf_hash(entry.content) != leaf.hash:
        return [f"entry {leaf.entry_id} is not what it was, or its leaf is not"]
    return []


async def _troubles_with(db: Db, last: AuditCheckpoint, root: bytes) -> list[str]:
    """Compare what was signed last with the log as it is."""
    said = f"/{NAME}\n{last.size}\n{text_of(last.root)}\n"
    if said not in last.note or not await is_ours(db, last.note):
        return [f"checkpoint {last.number} is not what was signed"]
    if last.root != root:
        return [f"the log does not begin as checkpoint {last.number} said"]
    return []


async def _proof(db: Db, ranges: Sequence[tuple[int, int]]) -> list[str]:
    """Return the roots that these ranges of leaves make, as texts."""
    wanted = sorted({each for range_ in ranges for each in subtrees_of(*range_)})
    levels, numbers = [each.level for each in wanted], [each.number for each in wanted]
    rows = await store.NODES.all(db, levels, numbers)
    roots = {Subtree(row.level, row.number): row.hash for row in rows}
    return [text_of(each) for each in prove(ranges, roots.__getitem__)]


def _body(name: str, size: int, root: bytes, at: str) -> str:
    return f"{name}/{NAME}\n{size}\n{text_of(root)}\ntime {at}\n"


def _hashes(frontier: bytes) -> list[bytes]:
    return [frontier[at : at + HASH_BYTES] for at in range(0, len(frontier), HASH_BYTES)]


def _some_time_before(newest: UUID | None) -> UUID:
    """Return an id that no entry has that is still under way when a later one was placed."""
    if newest is None:
        return _NO_ID
    at_ms = (newest.int >> _MILLISECONDS) - int(_LATE.total_seconds() * 1000)
    return UUID(int=max(at_ms, 0) << _MILLISECONDS)
