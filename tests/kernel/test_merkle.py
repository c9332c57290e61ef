"""Merkle trees: against the recursive words of RFC 6962, and against proofs that others made."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tongbao.kernel.merkle import (
    EMPTY_ROOT,
    Subtree,
    consistency_ranges,
    grow,
    inclusion_ranges,
    leaf_hash,
    node_hash,
    prove,
    root_of,
    subtrees_of,
    tree_root,
    verify_consistency,
    verify_inclusion,
)

VECTORS = Path(__file__).parents[1] / "vectors" / "merkle" / "inclusion_consistency.json"
PROOFS: dict[str, Any] = json.loads(VECTORS.read_text())
SIZE_MAX = 70
LEAVES = [leaf_hash(bytes([number])) for number in range(SIZE_MAX)]

sizes = st.integers(1, SIZE_MAX)


def defined_root(leaves: list[bytes]) -> bytes:
    """The tree hash as RFC 6962 §2.1 defines it, by splitting."""
    if len(leaves) < 2:
        return leaves[0] if leaves else EMPTY_ROOT
    left = 1
    while left * 2 < len(leaves):
        left *= 2
    return node_hash(defined_root(leaves[:left]), defined_root(leaves[left:]))


def kept(subtree: Subtree) -> bytes:
    start = subtree.number << subtree.level
    return defined_root(LEAVES[start : start + (1 << subtree.level)])


def decoded(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def changed(text: bytes, place: int) -> bytes:
    return text[:place] + bytes([text[place] ^ 0x40]) + text[place + 1 :]


def test_roots_are_those_of_the_certificate_transparency_test_tree() -> None:
    """Eight leaves whose roots many implementations publish."""
    leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"]
    leaves.append("606162636465666768696a6b6c6d6e6f")

    assert tree_root([]).hex() == (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )
    assert tree_root([leaf_hash(bytes.fromhex(leaf)) for leaf in leaves]).hex() == (
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    )


@pytest.mark.parametrize("name", [name for name in PROOFS if name.startswith("inclusion")])
def test_inclusion_is_judged_as_others_judge_it(name: str) -> None:
    case = PROOFS[name]

    held = verify_inclusion(
        decoded(case["leafHash"]),
        case["leafIdx"],
        case["treeSize"],
        decoded(case["root"]),
        [decoded(each) for each in case["proof"] or []],
    )

    assert held is not case["wantErr"]


@pytest.mark.parametrize("name", [name for name in PROOFS if name.startswith("consistency")])
def test_consistency_is_judged_as_others_judge_it(name: str) -> None:
    case = PROOFS[name]

    held = verify_consistency(
        case["size1"],
        case["size2"],
        decoded(case["root1"]),
        decoded(case["root2"]),
        [decoded(each) for each in case["proof"] or []],
    )

    assert held is not case["wantErr"]


@given(st.lists(st.integers(0, 9), max_size=12))
def test_a_tree_may_grow_in_any_steps(steps: list[int]) -> None:
    size, frontier = 0, ()
    complete: dict[Subtree, bytes] = {}

    for step in steps:
        if size + step > SIZE_MAX:
            break
        grown = grow(size, frontier, LEAVES[size : size + step])
        for level, (first, roots) in enumerate(grown.levels):
            complete |= {Subtree(level, first + nth): root for nth, root in enumerate(roots)}
        size, frontier = grown.size, grown.frontier

    assert root_of(frontier) == defined_root(LEAVES[:size])
    assert all(root == kept(subtree) for subtree, root in complete.items())
    assert len(complete) == sum(size >> level for level in range(size.bit_length()))


@given(st.data())
def test_every_leaf_of_every_tree_can_be_proved_and_no_other(data: st.DataObject) -> None:
    size = data.draw(sizes)
    index, other = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size))
    root = defined_root(LEAVES[:size])

    proof = prove(inclusion_ranges(index, size), kept)

    assert verify_inclusion(LEAVES[index], index, size, root, proof)
    assert verify_inclusion(LEAVES[index], other, size, root, proof) is (other == index)
    assert not verify_inclusion(changed(LEAVES[index], 3), index, size, root, proof)
    assert not verify_inclusion(LEAVES[index], index, size, changed(root, 31), proof)
    assert not verify_inclusion(LEAVES[index], index, size, root, [*proof, root])
    for nth in range(len(proof)):
        tampered = [*proof[:nth], changed(proof[nth], 0), *proof[nth + 1 :]]
        assert not verify_inclusion(LEAVES[index], index, size, root, tampered)
        assert not verify_inclusion(LEAVES[index], index, size, root, proof[:nth])


@given(st.data())
def test_every_tree_can_be_proved_to_begin_as_each_before_it(data: st.DataObject) -> None:
    size = data.draw(sizes)
    old = data.draw(st.integers(1, size))
    old_root, root = defined_root(LEAVES[:old]), defined_root(LEAVES[:size])

    proof = prove(consistency_ranges(old, size), kept)

    assert verify_consistency(old, size, old_root, root, proof)
    assert not verify_consistency(old, size, changed(old_root, 0), root, proof)
    assert not verify_consistency(old, size, old_root, changed(root, 0), proof)
    assert not verify_consistency(old, size, old_root, root, [*proof, root])
    for nth in range(len(proof)):
        tampered = [*proof[:nth], changed(proof[nth], 31), *proof[nth + 1 :]]
        assert not verify_consistency(old, size, old_root, root, tampered)


@given(sizes, st.data())
def test_a_proof_needs_few_subtrees_and_all_of_them_complete(
    size: int, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, size - 1))

    ranges = inclusion_ranges(index, size)
    found = [each for range_ in ranges for each in subtrees_of(*range_)]

    assert sum(1 << each.level for each in found) == size - 1
    assert all((each.number + 1) << each.level <= size for each in found)
    assert len(found) <= 2 * size.bit_length()


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 4), (9, 8)])
def test_what_is_not_there_cannot_be_proved(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="has no leaf"):
        inclusion_ranges(index, size)


@pytest.mark.parametrize(("old", "size"), [(0, 4), (5, 4), (-1, 4)])
def test_no_tree_was_ever_larger_than_it_is(old: int, size: int) -> None:
    with pytest.raises(ValueError, match="was never"):
        consistency_ranges(old, size)


def test_a_frontier_of_another_tree_is_not_grown() -> None:
    with pytest.raises(ValueError, match="another frontier"):
        grow(3, LEAVES[:1], [])
