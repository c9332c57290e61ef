"""Merkle trees as in RFC 6962: what was promised once can be checked for ever.

A tree over leaves 0, 1, 2 … is never rebuilt. Its *frontier* is the roots of the complete subtrees
it is made of, the largest first, one for each bit of its size: enough to append and to say the
root. A proof is the roots of a few ranges of leaves, each of them made of complete subtrees, which
whoever asks looks up by `Subtree` wherever they are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

EMPTY_ROOT: Final = sha256().digest()
"""The root of the tree without leaves."""
HASH_BYTES: Final = 32


class Subtree(NamedTuple):
    """A complete subtree: 2 ** level leaves, beginning at leaf ``number << level``."""

    level: int
    number: int


class Grown(NamedTuple):
    """What appending leaves made of a tree.

    ``levels[n]`` is the subtrees of level n that became complete: the number of the first, and the
    roots of that one and those after it.
    """

    size: int
    frontier: tuple[bytes, ...]
    levels: list[tuple[int, list[bytes]]]


def leaf_hash(content: bytes) -> bytes:
    """Return the hash of a leaf."""
    return sha256(b"\x00" + content).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the root of two subtrees side by side."""
    return sha256(b"\x01" + left + right).digest()


def grow(size: int, frontier: Sequence[bytes], leaves: Sequence[bytes]) -> Grown:
    """Append hashes of leaves to the tree that a frontier stands for."""
    if len(frontier) != size.bit_count():
        raise ValueError(f"a tree of {size} leaves has another frontier")
    standing = dict(zip(_levels_of(size), frontier, strict=True))
    kept: list[bytes] = []
    levels = []
    first, nodes, level = size, list(leaves), 0
    while nodes or first:
        levels.append((first, nodes))
        if first & 1:
            first, nodes = first - 1, [standing[level], *nodes]
        if len(nodes) & 1:
            kept.append(nodes[-1])
        pairs = zip(nodes[::2], nodes[1::2], strict=False)
        nodes = [sha256(b"\x01" + left + right).digest() for left, right in pairs]
        first, level = first >> 1, level + 1
    return Grown(size + len(leaves), tuple(reversed(kept)), levels)


def hashes_in(frontier: bytes) -> list[bytes]:
    """Return the roots that a stored frontier is made of."""
    return [frontier[at : at + HASH_BYTES] for at in range(0, len(frontier), HASH_BYTES)]


def root_of(frontier: Sequence[bytes]) -> bytes:
    """Return the root of the tree, or of the range, made of these subtrees, largest first."""
    if not frontier:
        return EMPTY_ROOT
    root = frontier[-1]
    for left in reversed(frontier[:-1]):
        root = node_hash(left, root)
    return root


def tree_root(leaves: Iterable[bytes]) -> bytes:
    """Return the root over these hashes of leaves."""
    return root_of(grow(0, (), list(leaves)).frontier)


def inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    """Return the ranges of leaves whose roots prove that a leaf is in a tree, in their order."""
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    ranges = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    return ranges[::-1]


def consistency_ranges(old: int, size: int) -> list[tuple[int, int]]:
    """Return the ranges of leaves whose roots prove that a tree began as an older one."""
    if not 0 < old <= size:
        raise ValueError(f"a tree of {size} leaves was never one of {old}")
    if old == size:
        return []
    ranges = []
    start, end, whole = 0, size, True
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start, whole = middle, False
    if not whole:  # otherwise it is the old root, which the verifier has
        ranges.append((start, end))
    return ranges[::-1]


def subtrees_of(start: int, end: int) -> list[Subtree]:
    """Return the complete subtrees that a range of a proof is made of, largest first."""
    found = []
    while start < end:
        level = (end - start).bit_length() - 1
        if start:
            level = min(level, (start & -start).bit_length() - 1)
        found.append(Subtree(level, start >> level))
        start += 1 << level
    return found


def prove(
    ranges: Sequence[tuple[int, int]], root_of_subtree: Callable[[Subtree], bytes]
) -> list[bytes]:
    """Return the proof that these ranges make, from the roots of complete subtrees."""
    return [root_of([root_of_subtree(each) for each in subtrees_of(*range_)]) for range_ in ranges]


def verify_inclusion(
    leaf: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]
) -> bool:
    """Tell whether a leaf stands at an index of the tree with this root (RFC 9162 §2.1.3)."""
    if not 0 <= index < size or len(leaf) != HASH_BYTES:
        return False
    found = _climb([leaf, *proof], index, size - 1)
    return found is not None and found[1] == root


def verify_consistency(
    old_size: int, size: int, old_root: bytes, root: bytes, proof: Sequence[bytes]
) -> bool:
    """Tell whether the tree with ``root`` begins with that of ``old_root`` (RFC 9162 §2.1.4)."""
    if not 0 < old_size <= size:
        return False
    if old_size == size:
        return not proof and old_root == root
    path = list(proof) if old_size & (old_size - 1) else [old_root, *proof]
    place, last = old_size - 1, size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    return bool(path) and _climb(path, place, last) == (old_root, root)


def _climb(path: Sequence[bytes], place: int, last: int) -> tuple[bytes, bytes] | None:
    """Return the roots of the tree that ends at a place, and of the whole tree.

    None when the path has another length than such a tree's.
    """
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            return None
        if place & 1 or place == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        place, last = place >> 1, last >> 1
    return (old, new) if last == 0 else None


def _levels_of(size: int) -> list[int]:
    """Return the levels of a tree's complete subtrees, largest first."""
    return [level for level in range(size.bit_length() - 1, -1, -1) if size >> level & 1]


def _split(size: int) -> int:
    """Return the largest power of two below a size of at least two."""
    return 1 << ((size - 1).bit_length() - 1)
