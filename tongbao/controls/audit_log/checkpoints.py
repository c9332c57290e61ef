"""What is signed about the audit log, every minute that something happened, and what it proves.

    entry, with the act itself ─► place in the tree ─► checkpoint, signed and published

Who alters an entry or a leaf afterwards is found by `verify_log`; who alters both, and all nodes,
is found by whoever keeps a checkpoint.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

import structlog

from tongbao.controls.audit_log import _store as store
from tongbao.controls.audit_log.model import (
    NAME,
    AuditCheckpoint,
    AuditCheckpointsReversed,
    AuditCheckpointUnknown,
    EntryProof,
    EntryUnknown,
    EntryUnproven,
    LogConsistency,
    LogReport,
)
from tongbao.infra.audit_tree import (
    LogExtent,
    content_of,
    derive,
    entry_with_id,
    leaf_of,
    locked_extent,
    proof_of,
)
from tongbao.infra.db import Db
from tongbao.kernel.merkle import consistency_ranges, hashes_in, inclusion_ranges, root_of
from tongbao.kernel.pages import CursorInvalid, Page, decode_cursor, page_of, page_size
from tongbao.ledger.proofs.entries import moment_text, text_of
from tongbao.ledger.proofs.model import Proofs
from tongbao.ledger.proofs.signers import is_ours, signed_note, signers

_ACTOR: Final = "audit"
_log: Final = structlog.get_logger()


async def sign_checkpoint(proofs: Proofs) -> AuditCheckpoint | None:
    """Sign what the log is now, if it grew; return the newest checkpoint, None of an empty log.

    It goes to the program's log as well: who could rewrite every table would have to rewrite that
    too, and what others have fetched meanwhile.
    """
    async with proofs.db.begin(_ACTOR) as tx:
        tree = await locked_extent(tx)
        last = await store.LAST_POINT.first(tx)
        if tree.size == 0 or (last is not None and last.size == tree.size):
            return last
        present = await signers(proofs, tx)
        number, root = 1 if last is None else last.number + 1, root_of(hashes_in(tree.frontier))
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
    entry = await entry_with_id(db, entry_id)
    if entry is None:
        raise EntryUnknown
    leaf, point = await leaf_of(db, entry_id), await store.LAST_POINT.first(db)
    if leaf is None or point is None or point.size < leaf.number:
        raise EntryUnproven
    path = await proof_of(db, inclusion_ranges(leaf.number - 1, point.size))
    return EntryProof(
        "tongbao.audit_entry/1",
        content_of(entry).decode(),
        leaf.number,
        [text_of(each) for each in path],
        point.note,
    )


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
    path = await proof_of(db, consistency_ranges(older.size, newer.size))
    shown = [text_of(each) for each in path]
    return LogConsistency("tongbao.audit_consistency/1", older.note, newer.note, shown)


async def verify_log(db: Db) -> LogReport:
    """Derive the whole log anew; say how many entries are changed, gone or never placed."""
    last = await store.LAST_POINT.first(db)
    found = await derive(db, [] if last is None else [last.size])
    troubles = found.troubles
    if last is not None:
        troubles += await _troubles_with(db, last, found.roots.get(last.size))
    return LogReport(found.size, len(troubles), next(iter(troubles), ""), found.root)


async def verify_log_since(db: Db, number: int) -> LogReport:
    """Derive what came after a checkpoint that was proved before; nought: the whole log.

    The checkpoint itself is looked at again: its signature, and the frontier that is built upon.
    """
    point = await store.POINT.first(db, number)
    last = await store.LAST_POINT.first(db)
    if point is None or last is None:
        return await verify_log(db)
    troubles = await _troubles_with(db, point, root_of(hashes_in(point.frontier)))
    if troubles:
        return LogReport(point.size, len(troubles), troubles[0], point.root)
    found = await derive(db, [last.size], since=LogExtent(point.size, point.frontier))
    troubles = found.troubles + await _troubles_with(db, last, found.roots.get(last.size))
    return LogReport(found.size, len(troubles), next(iter(troubles), ""), found.root)


async def last_checkpoint_number(db: Db) -> int:
    """Return the number of the newest checkpoint; nought where nothing was signed."""
    last = await store.LAST_POINT.first(db)
    return 0 if last is None else last.number


async def _troubles_with(db: Db, last: AuditCheckpoint, root: bytes | None) -> list[str]:
    """Compare what was signed last with the log as it is."""
    said = f"/{NAME}\n{last.size}\n{text_of(last.root)}\n"
    if said not in last.note or not await is_ours(db, last.note):
        return [f"checkpoint {last.number} is not what was signed"]
    if last.root != root:
        return [f"the log does not begin as checkpoint {last.number} said"]
    return []


def _body(name: str, size: int, root: bytes, at: str) -> str:
    return f"{name}/{NAME}\n{size}\n{text_of(root)}\ntime {at}\n"
