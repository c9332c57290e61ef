"""Checkpoints: what is signed about a book, every minute that it grew and every night for ever.

    grow the tree → prove that it begins as the last checkpoint said → sign → keep

A tree that does not, a batch that does not hang on the one before it, a journal that is not what
the tree was made of: the book's writer is stopped, with the words that say where.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final

import msgspec
import structlog
from prometheus_client import Gauge

from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, enqueue
from tongbao.kernel.clock import business_date
from tongbao.kernel.merkle import (
    consistency_ranges,
    hashes_in,
    leaf_hash,
    root_of,
    tree_root,
    verify_consistency,
)
from tongbao.ledger.poster.lease import stop_book
from tongbao.ledger.proofs import _store as store
from tongbao.ledger.proofs.entries import code_leaves, moment_text, text_of
from tongbao.ledger.proofs.model import (
    AuditTour,
    CheckpointMissing,
    CheckpointsReversed,
    Consistency,
    DayRootMissing,
    LedgerCheckpoint,
    LedgerDayRoot,
    LedgerTree,
    Proofs,
    TreeBroken,
)
from tongbao.ledger.proofs.signers import Signers, is_ours, signed_note, signers
from tongbao.ledger.proofs.tree import (
    ACTOR,
    audit,
    catch_up,
    frontier_of,
    locked_tree,
    proof_of,
    reading,
)

EVERY: Final = timedelta(minutes=1)
_BEHIND: Final = timedelta(seconds=1)
_LEAVES_A_ROUND: Final = 400_000
_REST: Final = 0.5
_BLOCKS_A_ROUND: Final = 16
_KEPT: Final = timedelta(days=40)
"""How long a checkpoint that closes no day is kept; a receipt has its own copy for ever."""

PROVE_POLICY: Final = RetryPolicy(attempts_max=1_000_000, delays=(EVERY,))
"""It is the only task of its kind, and only a restart would ask for it again: it never gives up."""

_LAG: Final = Gauge(
    "tongbao_ledger_unproven_transfers", "Transfers that no tree of proofs has yet", ["book"]
)
_log = structlog.get_logger()


class ProveLedger(Task, frozen=True, tag="ledger.prove"):
    """Grow the trees of all books, sign checkpoints, and look at a part of the past again."""


async def seed(tx: Tx) -> None:
    """Start the round, unless it runs already."""
    await enqueue(tx, ProveLedger(), key="always")


async def prove_ledger(proofs: Proofs, _task: ProveLedger, _lease: Lease) -> Again:
    """Do one round over every book and come back in a minute, or at once when more is waiting."""
    whole = True
    for head in await store.HEADS.all(proofs.db):
        if head.stopped_because is None:
            whole = await _round(proofs, head) and whole
    if whole:
        await _close_days(proofs)
    return Again(EVERY if whole else _BEHIND)


async def _round(proofs: Proofs, head: store.BookHead) -> bool:
    """Serve one book; say whether its tree is as far as its journal was."""
    try:
        tree = await catch_up(proofs, head, leaves_max=_LEAVES_A_ROUND, rest=_REST)
        _LAG.labels(str(head.book)).set(max(0, head.last_seq - tree.size))
        if tree.batch < head.last_batch:
            return False
        await make_checkpoint(proofs, head.book)
        await audit(proofs, head.book, blocks_max=_BLOCKS_A_ROUND)
    except TreeBroken as breach:
        await stop(proofs, breach)
    return True


async def stop(proofs: Proofs, breach: TreeBroken) -> None:
    """Let nobody write the book before a person has looked."""
    _log.error("ledger_proof_broken", book=breach.book, because=str(breach))
    await stop_book(proofs.db, breach.book, str(breach))


async def prove_now(proofs: Proofs, book: int | None = None) -> list[LedgerCheckpoint]:
    """Bring the trees up to date and return a fresh checkpoint of each book that has transfers.

    Raises:
        TreeBroken: the writer of its book is stopped already.
    """
    made = []
    for head in await store.HEADS.all(proofs.db):
        if book in {None, head.book}:
            try:
                await catch_up(proofs, head)
                found = await make_checkpoint(proofs, head.book)
            except TreeBroken as breach:
                await stop(proofs, breach)
                raise
            made += [found] if found is not None else []
    return made


async def audit_whole(proofs: Proofs, book: int | None = None) -> list[AuditTour]:
    """Derive whole trees anew from the journal.

    Raises:
        TreeBroken: the writer of its book is stopped already.
    """
    tours = []
    for head in await store.HEADS.all(proofs.db):
        if book in {None, head.book}:
            try:
                tours.append(await audit(proofs, head.book))
            except TreeBroken as breach:
                await stop(proofs, breach)
                raise
    return tours


async def make_checkpoint(proofs: Proofs, book: int) -> LedgerCheckpoint | None:
    """Sign what the tree is now, if it grew or a night has passed; return the newest checkpoint.

    None where nothing was ever posted.

    Raises:
        TreeBroken
    """
    async with proofs.db.begin(ACTOR) as tx:
        tree = await locked_tree(tx, book)
        last = await store.LAST_CHECKPOINT.first(tx, book)
        day = await _night_to_close(tx, last)
        if tree.size == 0 or (last is not None and last.size == tree.size and day is None):
            return last
        await check_promise(proofs, tx, tree, last)
        made = await _sign(proofs, tx, tree, day)
        await store.ADD_CHECKPOINT.run(
            tx, *[getattr(made, name) for name in made.__struct_fields__]
        )
        await store.COUNT_CHECKPOINT.run(tx, book, made.number)
        await store.FORGET_CHECKPOINTS.run(tx, book, tx.now - _KEPT, made.number)
        failpoint("ledger.before_checkpoint_commit")
    return made


async def _night_to_close(tx: Tx, last: LedgerCheckpoint | None) -> date | None:
    """Return yesterday when there was a checkpoint then or before, and none closes it yet."""
    yesterday = business_date(tx.now) - timedelta(days=1)
    if last is None or business_date(last.at) > yesterday:
        return None
    if await store.CHECKPOINT_OF_DAY.first(tx, last.book, yesterday) is not None:
        return None
    return yesterday


async def check_promise(
    proofs: Proofs, on: Db | Tx, tree: LedgerTree, last: LedgerCheckpoint | None
) -> None:
    """Prove to ourselves that the tree begins as the last checkpoint said.

    Raises:
        TreeBroken
    """
    if last is None:
        return
    named = body_of(last, last.note.partition("/book/")[0])
    if not last.note.startswith(named + "\n") or not await is_ours(on, last.note):
        raise TreeBroken(tree.book, f"checkpoint {last.number} is not what was signed")
    root = root_of(hashes_in(tree.frontier))
    held = last.size <= tree.size and last.root == root_of(hashes_in(last.frontier))
    if held:
        known = {**frontier_of(tree.size, tree.frontier), **frontier_of(last.size, last.frontier)}
        ranges = consistency_ranges(last.size, tree.size)
        path = await proof_of(await reading(proofs, on, tree), ranges, known)
        held = verify_consistency(last.size, tree.size, last.root, root, path)
    if not held:
        raise TreeBroken(
            tree.book, f"the tree of {tree.size} does not begin as checkpoint {last.number} said"
        )


async def _sign(proofs: Proofs, tx: Tx, tree: LedgerTree, day: date | None) -> LedgerCheckpoint:
    present = await signers(proofs, tx)
    codes = code_leaves(await store.CODES.all(tx))
    made = LedgerCheckpoint(
        book=tree.book,
        number=tree.checkpoints + 1,
        size=tree.size,
        batch=tree.batch,
        root=root_of(hashes_in(tree.frontier)),
        head_hash=tree.head_hash,
        frontier=tree.frontier,
        codes=len(codes),
        codes_root=tree_root(codes),
        day=day,
        at=tx.now,
        note="",
    )
    note = signed_note(proofs.keyring, present, body_of(made, present.name))
    return msgspec.structs.replace(made, note=note)


def body_of(point: LedgerCheckpoint, name: str) -> str:
    """Return what a checkpoint says, a fact a line, under the name of its log."""
    lines = [
        f"{name}/book/{point.book}",
        f"{point.size}",
        text_of(point.root),
        f"batch {point.batch}",
        f"head {text_of(point.head_hash)}",
        f"codes {point.codes} {text_of(point.codes_root)}",
        f"time {moment_text(point.at)}",
    ]
    if point.day is not None:
        lines.append(f"day {point.day.isoformat()}")
    return "\n".join([*lines, ""])


async def _close_days(proofs: Proofs) -> None:
    """Sign one root over all books' checkpoints of last night, once all of them are there."""
    async with proofs.db.begin(ACTOR) as tx:
        day = business_date(tx.now) - timedelta(days=1)
        if await store.DAY_ROOT.first(tx, day) is not None:
            return
        points = [
            point
            for head in await store.HEADS.all(tx)
            if (point := await store.CHECKPOINT_OF_DAY.first(tx, head.book, day)) is not None
        ]
        if not points:
            return
        made = _day_root(proofs, await signers(proofs, tx), points)
        await store.ADD_DAY_ROOT.run(tx, *[getattr(made, name) for name in made.__struct_fields__])


def _day_root(
    proofs: Proofs, present: Signers, points: Sequence[LedgerCheckpoint]
) -> LedgerDayRoot:
    """Return the root whose leaves are what the books' checkpoints say, in the books' order."""
    day, at = points[0].day, points[-1].at
    if day is None:
        raise ValueError("these checkpoints close no day")
    leaves = [leaf_hash((point.note.partition("\n\n")[0] + "\n").encode()) for point in points]
    root = tree_root(leaves)
    lines = [f"{present.name}/day/{day.isoformat()}", f"{len(points)}", text_of(root)]
    body = "\n".join([*lines, f"time {moment_text(at)}", ""])
    note = signed_note(proofs.keyring, present, body)
    return LedgerDayRoot(day=day, books=len(points), root=root, at=at, note=note)


async def list_checkpoints(
    db: Db, book: int, *, nightly: bool = False, limit: int = 20
) -> list[LedgerCheckpoint]:
    """Return a book's checkpoints, newest first; only those that close a day if asked."""
    return await store.LIST_CHECKPOINTS.all(db, book, nightly, limit)


async def checkpoint_note(db: Db, book: int, number: int) -> str:
    """Return a checkpoint as it was signed.

    Raises:
        CheckpointMissing
    """
    point = await store.GET_CHECKPOINT.first(db, book, number)
    if point is None:
        raise CheckpointMissing(book=book, number=number)
    return point.note


async def last_checkpoint(db: Db, book: int) -> LedgerCheckpoint | None:
    """Return a book's newest checkpoint, if it has one."""
    return await store.LAST_CHECKPOINT.first(db, book)


async def day_root(db: Db, day: date) -> LedgerDayRoot:
    """Return the root over all books of a business day, which is signed when the day is over.

    Raises:
        DayRootMissing
    """
    root = await store.DAY_ROOT.first(db, day)
    if root is None:
        raise DayRootMissing(day=day.isoformat())
    return root


async def prove_consistency(proofs: Proofs, book: int, old: int, new: int) -> Consistency:
    """Return the proof that between two checkpoints, named by number, a book was only added to.

    Raises:
        CheckpointMissing, CheckpointsReversed, LeavesArchived, TreeBroken
    """
    older = await store.GET_CHECKPOINT.first(proofs.db, book, old)
    newer = await store.GET_CHECKPOINT.first(proofs.db, book, new)
    tree = await store.GET_TREE.first(proofs.db, book)
    if older is None or newer is None or tree is None:
        raise CheckpointMissing(book=book, number=old if older is None else new)
    if older.size > newer.size:
        raise CheckpointsReversed(old=old, new=new)
    known = {**frontier_of(newer.size, newer.frontier), **frontier_of(older.size, older.frontier)}
    ranges = consistency_ranges(older.size, newer.size)
    path = await proof_of(await reading(proofs, proofs.db, tree), ranges, known)
    if not verify_consistency(older.size, newer.size, older.root, newer.root, path):
        raise TreeBroken(book, f"checkpoint {new} does not begin as checkpoint {old} said")
    return Consistency(
        object="tongbao.consistency/1",
        old=older.note,
        new=newer.note,
        proof=[text_of(each) for each in path],
    )
