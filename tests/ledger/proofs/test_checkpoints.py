"""Checkpoints: signed when a book grew and every night, and never against what was said before."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta
from pathlib import Path

import msgspec
import pytest

from tests.ledger.proofs.conftest import FalseBook
from tongbao.infra import failpoints
from tongbao.infra.tasks import Lease
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import new_id
from tongbao.kernel.merkle import leaf_hash, tree_root
from tongbao.ledger.proofs import _store as store
from tongbao.ledger.proofs import verifier
from tongbao.ledger.proofs.checkpoints import (
    ProveLedger,
    audit_whole,
    day_root,
    last_checkpoint,
    list_checkpoints,
    prove_consistency,
    prove_ledger,
    prove_now,
)
from tongbao.ledger.proofs.entries import text_of
from tongbao.ledger.proofs.model import (
    CheckpointMissing,
    CheckpointsReversed,
    DayRootMissing,
    KeyKind,
    Proofs,
    TreeBroken,
)
from tongbao.ledger.proofs.signers import published, rotate


async def stopped_because(proofs: Proofs) -> str | None:
    [head] = [head for head in await store.HEADS.all(proofs.db) if head.book == 1]
    return head.stopped_because


async def keys_of(proofs: Proofs) -> list[str]:
    return [key.key for key in await published(proofs.db)]


async def one_round(proofs: Proofs) -> None:
    for _ in range(20):
        again = await prove_ledger(proofs, ProveLedger(), Lease(new_id(), 1))
        if again.after >= timedelta(minutes=1):
            return
    raise TimeoutError


async def test_a_checkpoint_says_how_far_the_book_is(proofs: Proofs, false_book: FalseBook) -> None:
    await false_book.commit(3, 4)

    [point] = await prove_now(proofs)

    said = verifier.read_note(point.note, await keys_of(proofs))
    [head] = await proofs.db.fetch("select * from ledger_book where book = 1", ())
    assert (said["book"], said["size"], said["batch"]) == (1, 7, 2)
    assert (said["root"], said["head"]) == (point.root, head["head_hash"])
    assert said["codes"] == 3
    assert said["origin"].startswith("tongbao.log/")


async def test_nothing_new_is_not_signed_again(proofs: Proofs, false_book: FalseBook) -> None:
    assert await prove_now(proofs) == []  # nothing was ever posted
    await false_book.commit(3)

    [first], [second] = await prove_now(proofs), await prove_now(proofs)
    await false_book.commit(0)  # a commit of refusals only
    [third] = await prove_now(proofs)

    assert first == second == third


async def test_the_round_serves_every_book_and_closes_the_night(
    proofs: Proofs, false_book: FalseBook
) -> None:
    other = FalseBook(proofs.db, 2)
    await other.open()
    await false_book.commit(3)
    await other.commit(2)
    await one_round(proofs)
    day = business_date(proofs.db.clock.now())

    proofs.db.clock.offset += timedelta(days=1)
    await one_round(proofs)
    await one_round(proofs)

    nights = [await list_checkpoints(proofs.db, book, nightly=True) for book in (1, 2)]
    assert [[point.day for point in each] for each in nights] == [[day], [day]]
    keys = await keys_of(proofs)
    assert all(verifier.read_note(each[0].note, keys)["day"] == str(day) for each in nights)
    root = await day_root(proofs.db, day)
    bodies = [each[0].note.partition("\n\n")[0] + "\n" for each in nights]
    assert (root.books, root.root) == (2, tree_root([leaf_hash(each.encode()) for each in bodies]))
    assert f"/day/{day}\n2\n{text_of(root.root)}\n" in root.note


async def test_nights_are_kept_for_ever_and_minutes_are_not(
    proofs: Proofs, false_book: FalseBook
) -> None:
    for _ in range(3):
        await false_book.commit(1)
        await prove_now(proofs)
    proofs.db.clock.offset += timedelta(days=1)
    await prove_now(proofs)
    proofs.db.clock.offset += timedelta(days=60)
    await false_book.commit(1)
    await prove_now(proofs)

    kept = await list_checkpoints(proofs.db, 1)

    assert [point.number for point in kept] == [5, 4]
    assert [point.day is not None for point in kept] == [True, True]


async def test_two_checkpoints_prove_that_the_book_was_only_added_to(
    proofs: Proofs, false_book: FalseBook
) -> None:
    for size in (1, 300, 41, 700):
        await false_book.commit(size)
        await prove_now(proofs)
    keys = await keys_of(proofs)

    for old, new in [(1, 2), (1, 4), (2, 3), (2, 4), (3, 4), (4, 4)]:
        proof = await prove_consistency(proofs, 1, old, new)
        lines = verifier.check(text(proof), keys)
        assert lines[-1].startswith("proved")
    tampered = text(await prove_consistency(proofs, 1, 2, 4)).replace("A", "B")
    with pytest.raises(verifier.Wrong):
        verifier.check(tampered, keys)


def text(shown: object) -> str:
    return msgspec.json.encode(shown).decode()


async def test_only_what_is_there_can_be_compared(proofs: Proofs, false_book: FalseBook) -> None:
    for _ in range(2):
        await false_book.commit(1)
        await prove_now(proofs)

    with pytest.raises(CheckpointMissing):
        await prove_consistency(proofs, 1, 1, 3)
    with pytest.raises(CheckpointMissing):
        await prove_consistency(proofs, 2, 1, 2)
    with pytest.raises(CheckpointsReversed):
        await prove_consistency(proofs, 1, 2, 1)


@pytest.mark.parametrize("kind", [KeyKind.ED25519, KeyKind.SM2])
async def test_a_replaced_key_signs_beside_the_new_one_for_a_while(
    proofs: Proofs, false_book: FalseBook, kind: KeyKind
) -> None:
    await false_book.commit(1)
    await prove_now(proofs)
    old = [key.key for key in await published(proofs.db) if key.algorithm is kind]
    if not old:
        pytest.skip("libcrypto has no SM2")

    await rotate(proofs, kind, actor="tests", overlap=timedelta(days=2))
    new = [key.key for key in await published(proofs.db) if key.algorithm is kind][1:]
    await false_book.commit(1)
    [during] = await prove_now(proofs)
    proofs.db.clock.offset += timedelta(days=3)
    await false_book.commit(1)
    [after] = await prove_now(proofs)

    assert verifier.read_note(during.note, [*old, *new])["size"] == 2
    assert verifier.read_note(after.note, new)["size"] == 3
    with pytest.raises(verifier.Wrong, match="has not signed"):
        verifier.read_note(after.note, old)


async def test_keys_lie_sealed_and_have_one_name(proofs: Proofs, false_book: FalseBook) -> None:
    await false_book.commit(1)
    await prove_now(proofs)
    rows = await store.KEYS.all(proofs.db)

    assert {key.partition("+")[0] for key in await keys_of(proofs)} == {
        (await last_checkpoint(proofs.db, 1)).note.partition("/book/")[0]
    }
    for row in rows:
        assert len(row.sealed) > 100
        with pytest.raises(ValueError, match="blinding"):
            await rotate(proofs, KeyKind.BLIND, actor="tests")
    assert [row.kind for row in rows if row.public_key is None] == [KeyKind.BLIND]


PROMISES = [
    "update ledger_tree set frontier = decode(repeat('11', length(frontier)), 'hex')",
    "update ledger_tree set frontier = ''::bytea, size = 0",
    "update ledger_checkpoint set root = decode(repeat('11', 32), 'hex')",
    "update ledger_checkpoint set size = size - 1",
    "update ledger_checkpoint set head_hash = root",
    "update ledger_checkpoint set note = replace(note, 'batch 1', 'batch 2')",
    "update ledger_checkpoint set frontier = decode(repeat('11', length(frontier)), 'hex')",
    "update ledger_transfer set amount = 1 where seq = 2",
]


@pytest.mark.parametrize("sql", PROMISES)
async def test_a_broken_promise_stops_the_book_and_says_where(
    proofs: Proofs, false_book: FalseBook, sql: str
) -> None:
    await false_book.commit(2 * 256 + 3)
    await one_round(proofs)
    await proofs.db.pool.execute(
        "grant update, delete on ledger_transfer, ledger_tree_node, ledger_checkpoint"
        " to current_user"
    )

    assert await proofs.db.execute(sql, ())
    await false_book.commit(1)
    await one_round(proofs)

    because = await stopped_because(proofs)
    assert because is not None
    assert because.startswith("proofs: ")
    size = await last_checkpoint(proofs.db, 1)
    await one_round(proofs)  # what is stopped is left as it is
    assert await last_checkpoint(proofs.db, 1) == size


async def test_whoever_asks_for_a_proof_hears_of_the_breach(
    proofs: Proofs, false_book: FalseBook
) -> None:
    await false_book.commit(600)
    await prove_now(proofs)
    assert [tour.blocks for tour in await audit_whole(proofs, 1)] == [2]
    await proofs.db.pool.execute("grant update on ledger_transfer to current_user")
    await proofs.db.execute("update ledger_transfer set amount = 1 where seq = 599", ())

    with pytest.raises(TreeBroken, match="frontier"):
        await audit_whole(proofs)
    assert "frontier" in (await stopped_because(proofs) or "")


async def test_a_day_without_a_book_has_no_root(proofs: Proofs) -> None:
    await one_round(proofs)

    with pytest.raises(DayRootMissing):
        await day_root(proofs.db, date(2026, 1, 1))


@pytest.mark.parametrize("place", ["ledger.before_tree_commit", "ledger.before_checkpoint_commit"])
async def test_whoever_dies_while_proving_leaves_nothing_half_done(
    proofs: Proofs, false_book: FalseBook, place: str
) -> None:
    for size in (300, 4000, 500):
        await false_book.commit(size)
    failpoints.arm(f"{place}:raise")
    with pytest.raises(failpoints.SimulatedCrash):
        await prove_now(proofs)
    failpoints.arm(None)

    [point] = await prove_now(proofs)

    assert (point.number, point.size) == (1, 4800)
    assert [tour.blocks for tour in await audit_whole(proofs, 1)] == [18]


async def test_two_workers_at_once_make_one_tree(
    proofs: Proofs, false_book: FalseBook, tmp_path: Path
) -> None:
    other = Proofs(proofs.db, proofs.keyring)
    for size in (5000, 4000, 3):
        await false_book.commit(size)

    first, second = await asyncio.gather(prove_now(proofs), prove_now(other))

    assert first == second
    assert len(await list_checkpoints(proofs.db, 1)) == 1
    assert [tour.blocks for tour in await audit_whole(proofs, 1)] == [35]
