"""The tree of a book: grown behind the commits, read for proofs, derived anew for audits."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import takewhile
from typing import Final

from msgspec import Struct, field

from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import monotonic
from tongbao.kernel.merkle import (
    HASH_BYTES,
    Subtree,
    grow,
    hashes_in,
    prove,
    subtrees_of,
    tree_root,
)
from tongbao.ledger.proofs import _store as store
from tongbao.ledger.proofs.entries import Journal, Packed, packed_rows
from tongbao.ledger.proofs.model import (
    BLOCK,
    BLOCK_LEVEL,
    AuditTour,
    LeavesArchived,
    LedgerTree,
    Proofs,
    TreeBroken,
)
from tongbao.ledger.proofs.signers import blind_key

ACTOR: Final = "proofs"
CHUNK: Final = 4096
"""Leaves appended in one transaction; a batch is never torn apart, so it may be a few more."""
_BATCHES_MAX: Final = 1000
_TILES_MAX: Final = 64
_NO_HASH: Final = bytes(HASH_BYTES)


async def catch_up(
    proofs: Proofs, head: store.BookHead, *, leaves_max: int | None = None, rest: float = 0.0
) -> LedgerTree:
    """Append what the journal has up to this head and return the tree.

    Stops early after ``leaves_max`` leaves. Between two steps it rests for this part of the time
    the step took, so that a process which also posts is not slowed by half.

    Raises:
        TreeBroken
    """
    done = 0
    while True:
        started = monotonic()
        async with proofs.db.begin(ACTOR) as tx:
            tree = await locked_tree(tx, head.book)
            if tree.batch >= head.last_batch or (leaves_max is not None and done >= leaves_max):
                return tree
            done += await _append(proofs, tx, tree)
            failpoint("ledger.before_tree_commit")
        await asyncio.sleep(rest * (monotonic() - started))


async def locked_tree(tx: Tx, book: int) -> LedgerTree:
    """Return the tree of a book, begun if need be, and keep others from it."""
    tree = await store.LOCK_TREE.first(tx, book)
    if tree is None:
        await store.OPEN_TREE.run(tx, book, _NO_HASH)
        tree = await store.LOCK_TREE.one(tx, book)
    return tree


async def _append(proofs: Proofs, tx: Tx, tree: LedgerTree) -> int:
    """Append the next batches and return how many leaves they have."""
    found = await store.NEXT_BATCHES.all(tx, tree.book, tree.batch, _BATCHES_MAX)
    if not found:
        raise TreeBroken(tree.book, f"batch {tree.batch + 1} is missing")
    batches = _some_of(found)
    hash_ = check_chain(tree, batches)
    size = tree.size + sum(batch.transfers for batch in batches)
    leaves: list[bytes] = []
    if size > tree.size:
        journal = Journal(proofs, tx, tree.book, await blind_key(proofs, tx))
        leaves = await (await packed_rows(journal, batches, tree.size + 1, size)).leaves()
    grown = grow(tree.size, hashes_in(tree.frontier), leaves)
    await _keep_nodes(tx, tree, batches, grown.levels)
    await store.GROW_TREE.run(
        tx,
        tree.book,
        size,
        batches[-1].batch,
        hash_,
        b"".join(grown.frontier),
        _batch_with_leaf(tree, batches, size >> BLOCK_LEVEL),
    )
    return len(leaves)


def _some_of(batches: Sequence[store.BatchLink]) -> list[store.BatchLink]:
    """Return as many batches as make one chunk, and one at least."""
    ends = [0]
    for batch in batches:
        ends.append(ends[-1] + batch.transfers)
    fitting = sum(1 for _ in takewhile(lambda end: end <= CHUNK, ends[1:]))
    return list(batches[: max(fitting, 1)])


def check_chain(tree: LedgerTree, batches: Iterable[store.BatchLink]) -> bytes:
    """Return the hash these batches lead to, each hanging on the one before.

    Raises:
        TreeBroken
    """
    hash_, seq, number = tree.head_hash, tree.size, tree.batch
    for batch in batches:
        number += 1
        expected = sha256(hash_ + number.to_bytes(8, "big") + batch.digest).digest()
        if batch.batch != number or batch.hash != expected:
            raise TreeBroken(tree.book, f"batch {number} does not hang on the one before it")
        if batch.transfers and batch.first_seq != seq + 1:
            raise TreeBroken(tree.book, f"batch {number} does not begin at seq {seq + 1}")
        hash_, seq = batch.hash, seq + batch.transfers
    return hash_


async def _keep_nodes(
    tx: Tx,
    tree: LedgerTree,
    batches: Sequence[store.BatchLink],
    levels: Sequence[tuple[int, list[bytes]]],
) -> None:
    """Store the subtrees that became complete, of the levels that are kept."""
    rows = [
        (
            level,
            first + nth,
            root,
            _batch_with_leaf(tree, batches, first + nth) if level == BLOCK_LEVEL else None,
        )
        for level, (first, roots) in enumerate(levels)
        if level and level % BLOCK_LEVEL == 0
        for nth, root in enumerate(roots)
    ]
    if rows:
        await store.ADD_NODES.run(
            tx, tree.book, *[list(column) for column in zip(*rows, strict=True)]
        )


def _batch_with_leaf(tree: LedgerTree, batches: Sequence[store.BatchLink], block: int) -> int:
    """Return the batch that has, or will have, the first leaf of a block."""
    seq = (block << BLOCK_LEVEL) + 1
    if seq <= tree.size:
        return tree.block_batch
    filled = [batch for batch in batches if batch.transfers]
    place = bisect_right([batch.first_seq for batch in filled], seq) - 1
    if place >= 0 and seq < filled[place].first_seq + filled[place].transfers:
        return filled[place].batch
    return batches[-1].batch + 1


class Reading(Struct, frozen=True):
    """A tree and the journal below it, and the blocks that were derived while reading them."""

    journal: Journal
    tree: LedgerTree
    archived_to: int = 0
    blocks: dict[int, tuple[Packed, list[bytes]]] = field(default_factory=dict)
    tiles: dict[tuple[int, int], list[bytes]] = field(default_factory=dict)


async def reading(proofs: Proofs, on: Db | Tx, tree: LedgerTree) -> Reading:
    """Begin to read a tree."""
    journal = Journal(proofs, on, tree.book, await blind_key(proofs, on))
    return Reading(journal, tree, await store.ARCHIVED_TO.one(on, tree.book))


async def proof_of(
    reader: Reading, ranges: Sequence[tuple[int, int]], known: Mapping[Subtree, bytes]
) -> list[bytes]:
    """Return the proof that these ranges of leaves make; ``known`` subtrees need no look-up.

    Raises:
        TreeBroken, LeavesArchived
    """
    roots = dict(known)
    for each in (each for range_ in ranges for each in subtrees_of(*range_)):
        if each not in roots:
            roots[each] = await _root_of(reader, each)
    return prove(ranges, roots.__getitem__)


async def _root_of(reader: Reading, subtree: Subtree) -> bytes:
    """Return the root of a complete subtree: derived below the blocks, looked up above.

    Raises:
        TreeBroken
    """
    if subtree.level >= BLOCK_LEVEL:
        return await _node(reader, subtree)
    first = subtree.number << subtree.level
    _, leaves = await block_of(reader, first >> BLOCK_LEVEL)
    start = first % BLOCK
    return tree_root(leaves[start : start + (1 << subtree.level)])


async def block_of(reader: Reading, block: int) -> tuple[Packed, list[bytes]]:
    """Return the rows and leaves of one block, as many as the tree has.

    Raises:
        TreeBroken, LeavesArchived
    """
    if block not in reader.blocks:
        packed = await _rows_of(reader, block)
        reader.blocks[block] = packed, await packed.leaves()
    return reader.blocks[block]


def frontier_of(size: int, frontier: bytes) -> dict[Subtree, bytes]:
    """Return the subtrees a tree of this size is made of."""
    return dict(zip(subtrees_of(0, size), hashes_in(frontier), strict=True))


async def _node(reader: Reading, subtree: Subtree) -> bytes:
    """Return the root of a subtree of at least one block, from the kept ones just below it.

    Raises:
        TreeBroken
    """
    level = subtree.level // BLOCK_LEVEL * BLOCK_LEVEL
    count = 1 << (subtree.level - level)
    first = subtree.number * count
    tile = await _tile(reader, level, first // BLOCK)
    start = first % BLOCK
    if len(tile) < start + count:
        raise TreeBroken(reader.tree.book, f"the tree lacks node {first} of level {level}")
    return tree_root(tile[start : start + count])


async def _tile(reader: Reading, level: int, number: int) -> list[bytes]:
    """Return the nodes of a level that lie below one node of the next, as many as there are.

    Raises:
        TreeBroken
    """
    if (level, number) not in reader.tiles:
        if len(reader.tiles) > _TILES_MAX:
            reader.tiles.clear()
        first = number * BLOCK
        nodes = await store.NODES.all(
            reader.journal.on, reader.tree.book, level, first, first + BLOCK - 1
        )
        if [node.number for node in nodes] != list(range(first, first + len(nodes))):
            raise TreeBroken(reader.tree.book, f"the tree lacks nodes of level {level}")
        reader.tiles[level, number] = [node.hash for node in nodes]
    return reader.tiles[level, number]


async def _rows_of(reader: Reading, block: int) -> Packed:
    on, tree = reader.journal.on, reader.tree
    first, last = _seqs_of(tree, block)
    if first <= reader.archived_to:
        raise LeavesArchived(book=tree.book, seq=first)
    batches = await _batches_of(on, tree, block)
    return await packed_rows(reader.journal, batches, first, last)


def _seqs_of(tree: LedgerTree, block: int) -> tuple[int, int]:
    return (block << BLOCK_LEVEL) + 1, min((block + 1) << BLOCK_LEVEL, tree.size)


async def _batches_of(on: Db | Tx, tree: LedgerTree, block: int) -> list[store.BatchLink]:
    """Return the batches that have the leaves of one block.

    Raises:
        TreeBroken
    """
    nodes = await store.NODES.all(on, tree.book, BLOCK_LEVEL, block, block + 1)
    begins = {node.number: node.batch for node in nodes}
    open_block = tree.size >> BLOCK_LEVEL
    begin = tree.block_batch if block == open_block else begins.get(block)
    end = begins.get(block + 1) or tree.batch
    if begin is None:
        raise TreeBroken(tree.book, f"the tree lacks block {block}")
    return await store.BATCHES_WITH.all(on, tree.book, begin, end, *_seqs_of(tree, block))


async def audit(proofs: Proofs, book: int, *, blocks_max: int | None = None) -> AuditTour:
    """Derive blocks anew from the journal and compare them with the tree, going on where it left.

    With ``blocks_max`` None it is the whole tree, from the first block to the last leaf. What went
    to the archive cannot be derived; its blocks stay as they are.

    Raises:
        TreeBroken
    """
    tree = await store.GET_TREE.first(proofs.db, book)
    if tree is None:
        return AuditTour(book, 0, 0)
    reader = await reading(proofs, proofs.db, tree)
    whole, here = tree.size >> BLOCK_LEVEL, -(-reader.archived_to // BLOCK)
    start = here if blocks_max is None or tree.audited >= whole else max(tree.audited, here)
    end = max(start, whole if blocks_max is None else min(whole, start + blocks_max))
    for block in range(start, end):
        leaves = await (await _rows_of(reader, block)).leaves()
        if tree_root(leaves) != await _node(reader, Subtree(BLOCK_LEVEL, block)):
            first, last = _seqs_of(tree, block)
            raise TreeBroken(
                book, f"transfers {first} to {last} are not those the tree was made of"
            )
    if blocks_max is None:
        await _audit_top(reader)
    await store.MARK_AUDITED.run(proofs.db, book, end)
    return AuditTour(book, end - start, (end - start) * BLOCK)


async def _audit_top(reader: Reading) -> None:
    """Compare the frontier with what lies below it, and each kept node with those below it.

    Raises:
        TreeBroken
    """
    tree = reader.tree
    for subtree, root in frontier_of(tree.size, tree.frontier).items():
        if subtree.level < 2 * BLOCK_LEVEL:
            found = await _root_of(reader, subtree)
        else:
            found = await _from_blocks(reader, subtree)
        if found != root:
            raise TreeBroken(tree.book, "the frontier is not that of the blocks")


async def _from_blocks(reader: Reading, subtree: Subtree) -> bytes:
    """Return the root of a subtree made from its blocks, checking what is kept in between.

    Raises:
        TreeBroken
    """
    level = subtree.level // BLOCK_LEVEL * BLOCK_LEVEL
    count = 1 << (subtree.level - level)
    numbers = range(subtree.number * count, (subtree.number + 1) * count)
    return tree_root([await _below(reader, Subtree(level, number)) for number in numbers])


async def _below(reader: Reading, node: Subtree) -> bytes:
    """Return a kept node above the lowest level, if those below it make the same.

    Raises:
        TreeBroken
    """
    level = node.level - BLOCK_LEVEL
    if level > BLOCK_LEVEL:
        first = node.number * BLOCK
        roots = [await _below(reader, Subtree(level, first + nth)) for nth in range(BLOCK)]
    else:
        roots = await _tile(reader, level, node.number)
    kept = await _node(reader, node)
    if len(roots) != BLOCK or tree_root(roots) != kept:
        what = f"node {node.number} of level {node.level} is not what lies below it"
        raise TreeBroken(reader.tree.book, what)
    return kept
