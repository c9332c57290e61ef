"""Trees over a journal: grown in any steps they are the same, and every hand in it is noticed."""

from __future__ import annotations

import pytest

from tests.ledger.proofs.conftest import FalseBook
from tongbao.kernel.merkle import (
    Subtree,
    consistency_ranges,
    inclusion_ranges,
    root_of,
    tree_root,
    verify_consistency,
    verify_inclusion,
)
from tongbao.ledger.proofs import _store as store
from tongbao.ledger.proofs.model import BLOCK, LedgerTree, Proofs, TreeBroken
from tongbao.ledger.proofs.tree import (
    audit,
    block_of,
    catch_up,
    frontier_of,
    hashes_in,
    proof_of,
    reading,
)

GRANTS = "grant update, delete on ledger_transfer, ledger_tree_node, ledger_batch to current_user"


async def grown(proofs: Proofs, book: int = 1) -> LedgerTree:
    for head in await store.HEADS.all(proofs.db):
        if head.book == book:
            tree = await catch_up(proofs, head)
            assert (tree.size, tree.batch) == (head.last_seq, head.last_batch)
    return await store.GET_TREE.one(proofs.db, book)


async def all_leaves(proofs: Proofs, tree: LedgerTree) -> list[bytes]:
    reader = await reading(proofs, proofs.db, tree)
    found = []
    for block in range(-(-tree.size // BLOCK)):
        found += (await block_of(reader, block))[1]
    return found


async def test_the_tree_is_that_of_all_leaves_however_it_grew(
    proofs: Proofs, false_book: FalseBook
) -> None:
    for sizes in [(1,), (0, 0), (254, 1), (1, 0, 300), (3000, 5), (0,), (20_000, 1)]:
        await false_book.commit(*sizes)
        tree = await grown(proofs)
        leaves = await all_leaves(proofs, tree)

        assert len(leaves) == tree.size == len(false_book.ids)
        assert len(set(leaves)) == tree.size
        assert root_of(hashes_in(tree.frontier)) == tree_root(leaves)
    nodes = await store.NODES.all(proofs.db, 1, 8, 0, 1 << 30)
    assert [node.number for node in nodes] == list(range(tree.size // BLOCK))
    assert (await audit(proofs, 1)).blocks == tree.size // BLOCK


async def test_every_leaf_is_proved_with_few_look_ups(
    proofs: Proofs, false_book: FalseBook
) -> None:
    await false_book.commit(300, 700, 24)
    old = await grown(proofs)
    await false_book.commit(333)
    tree = await grown(proofs)
    leaves = await all_leaves(proofs, tree)
    reader = await reading(proofs, proofs.db, tree)

    for size, root, known in [
        (each.size, root_of(hashes_in(each.frontier)), frontier_of(each.size, each.frontier))
        for each in (old, tree)
    ]:
        for index in (0, 1, 255, 256, 511, 512, 700, size - 2, size - 1):
            path = await proof_of(reader, inclusion_ranges(index, size), known)
            assert verify_inclusion(leaves[index], index, size, root, path)
    known = frontier_of(tree.size, tree.frontier) | frontier_of(old.size, old.frontier)
    path = await proof_of(reader, consistency_ranges(old.size, tree.size), known)
    roots = (root_of(hashes_in(each.frontier)) for each in (old, tree))
    assert verify_consistency(old.size, tree.size, *roots, path)


async def test_a_tree_of_a_hundred_thousand_keeps_nodes_above_nodes(
    proofs: Proofs, false_book: FalseBook
) -> None:
    await false_book.commit(66_000)
    tree = await grown(proofs)
    leaves = await all_leaves(proofs, tree)

    [node] = await store.NODES.all(proofs.db, 1, 16, 0, 9)

    assert node.hash == tree_root(leaves[: 1 << 16])
    assert frontier_of(tree.size, tree.frontier)[Subtree(16, 0)] == node.hash
    assert (await audit(proofs, 1)).blocks == 257


async def test_two_books_have_nothing_in_common(proofs: Proofs, false_book: FalseBook) -> None:
    await proofs.db.execute(
        """insert into ledger_book select 2, 0, '', lease_until, 0, 0, head_hash, newest_id, false,
           null, null, opened_at from ledger_book where book = 1 on conflict do nothing""",
        (),
    )
    other = FalseBook(proofs.db, 2)
    await other.open()
    await false_book.commit(5)
    await other.commit(9)

    assert (await grown(proofs, 1)).size == 5
    assert (await grown(proofs, 2)).size == 9


TAMPERINGS = [
    "update ledger_transfer set amount = amount + 1 where seq = 300",
    "update ledger_transfer set flags = 2 where seq = 300",
    "update ledger_transfer set kind = 2 where seq = 300",
    "update ledger_transfer set code = 3 where seq = 300",
    "update ledger_transfer set reference = id where seq = 300",
    "update ledger_transfer set kind = 3, pending_id = id where seq = 300",
    "update ledger_transfer set debit_previous = id where seq = 300",
    "update ledger_transfer set credit_previous = id where seq = 300",
    "update ledger_transfer set debit_after = 0 where seq = 300",
    "update ledger_transfer set credit_after = 0 where seq = 300",
    "update ledger_transfer set biz_date = biz_date + 1 where seq = 300",
    "update ledger_transfer set value_date = value_date - 1 where seq = 300",
    "update ledger_transfer set at = at + interval '1 microsecond' where seq = 300",
    "update ledger_transfer set debit_account = (1::bigint << 40) + 1 where seq = 300",
    "update ledger_transfer set credit_account = (1::bigint << 40) + 1 where seq = 300",
    "update ledger_transfer set seq = 1300 where seq = 300",
    "update ledger_transfer set seq = 601 - seq where seq in (300, 301)",
    "delete from ledger_transfer where seq = 300",
    "update ledger_account set owner = md5('x')::uuid where kind = 'merchant_payable'",
    "update ledger_account set currency = 'USD' where kind = 'wallet'",
    "update ledger_account set kind = 'subsidy' where kind = 'wallet'",
    "update ledger_tree_node set hash = decode(repeat('00', 32), 'hex') where number = 1",
    "delete from ledger_tree_node where number = 1",
    "update ledger_tree set frontier = substr(frontier, 33) || substr(frontier, 1, 32)",
]


@pytest.mark.parametrize("sql", TAMPERINGS)
async def test_every_hand_in_the_past_is_found(
    proofs: Proofs, false_book: FalseBook, sql: str
) -> None:
    await false_book.commit(700)
    await grown(proofs)
    await audit(proofs, 1)
    await proofs.db.pool.execute(GRANTS)

    assert await proofs.db.execute(sql, ())
    proofs.accounts.clear()

    with pytest.raises(TreeBroken):
        await audit(proofs, 1)


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("update ledger_batch set digest = hash where batch = 2", "batch 2 does not hang"),
        ("update ledger_batch set hash = digest where batch = 1", "batch 1 does not hang"),
        ("update ledger_batch set first_seq = 6 where batch = 2", "batch 2 does not begin"),
        ("update ledger_batch set transfers = 4 where batch = 1", "batch 2 does not begin"),
        ("delete from ledger_batch where batch = 2", "batch 2 does not hang"),
        ("delete from ledger_batch where batch = 3", "batch 3 is missing"),
        ("delete from ledger_transfer where seq = 7", "lacks transfers"),
        ("delete from ledger_account where id % 8 = 2", "names account"),
    ],
)
async def test_a_journal_that_does_not_hang_together_is_not_grown_over(
    proofs: Proofs, false_book: FalseBook, sql: str, what: str
) -> None:
    await false_book.commit(3, 4, 5)
    await proofs.db.pool.execute(GRANTS)
    await proofs.db.execute(sql, ())

    with pytest.raises(TreeBroken, match=what):
        await grown(proofs)


async def test_a_tour_of_audits_sees_every_block_and_begins_again(
    proofs: Proofs, false_book: FalseBook
) -> None:
    await false_book.commit(5 * BLOCK + 7)
    await grown(proofs)

    seen = [(await audit(proofs, 1, blocks_max=2)).blocks for _ in range(6)]

    assert seen == [2, 2, 1, 2, 2, 1]
