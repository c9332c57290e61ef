"""The audit log proves itself: what was done stands in it, and nothing of it was changed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from tests.infra.signed_client import call
from tongbao.controls.audit_log.checkpoints import (
    list_checkpoints,
    prove_entry,
    prove_growth,
    sign_checkpoint,
    verify_log,
    verify_log_since,
)
from tongbao.controls.audit_log.model import (
    AuditCheckpointsReversed,
    AuditCheckpointUnknown,
    EntryUnknown,
    EntryUnproven,
)
from tongbao.infra import audit, audit_tree, failpoints
from tongbao.infra.audit_tree import place_entries, size_of_log, troubles_of_block
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.kernel.errors import Fact
from tongbao.kernel.ids import new_id
from tongbao.ledger.proofs.model import Proofs
from tongbao.ledger.proofs.receipts import verifier_source
from tongbao.ledger.proofs.signers import is_ours, published
from tongbao.surfaces.proofs.api import AUDIT_PATH, publications


@pytest.fixture
def proofs(db: Db) -> Proofs:
    return Proofs(db, Keyring([os.urandom(32)]))


async def acts(db: Db, count: int, *, begin: int = 0) -> list[UUID]:
    ids = []
    for number in range(begin, begin + count):
        async with db.begin("operator:amy") as tx:
            facts: dict[str, Fact] = {"n": number, "a": "ü\n\u2028", "b": True, "c": None}
            ids.append(await audit.record(tx, "channel.disabled", f"chn_{number}", facts))
    return ids


async def grown(proofs: Proofs) -> int:
    await place_entries(proofs.db)
    point = await sign_checkpoint(proofs)
    assert point is not None
    return point.number


async def judged(db: Db, folder: Path, proof: object) -> subprocess.CompletedProcess[str]:
    """What the program that everybody may fetch says of a proof, by every key that signs."""
    program, given = folder / "verify.py", folder / "proof.json"
    program.write_text(verifier_source())
    given.write_bytes(proof if isinstance(proof, bytes) else msgspec.json.encode(proof))
    keys = [key.key for key in await published(db)]
    command = [sys.executable, "-I", "-S", str(program), str(given), *keys]
    run = partial(subprocess.run, command, capture_output=True, text=True, check=False)
    return await asyncio.to_thread(run)


async def test_every_entry_can_be_proved_to_anybody(
    db: Db, proofs: Proofs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_tree, "_ONE_GO", 5)
    ids = await acts(db, 23)
    with pytest.raises(EntryUnproven):
        await prove_entry(db, ids[0])
    with pytest.raises(EntryUnknown):
        await prove_entry(db, new_id())
    await grown(proofs)
    for entry_id in ids[::11]:
        proof = await prove_entry(db, entry_id)
        told = await judged(db, tmp_path, proof)
        assert told.returncode == 0, told.stderr
        assert "channel.disabled" in told.stdout
        assert "operator:amy" in told.stdout
        said = json.loads(proof.content)
        assert said["id"] == str(entry_id)
        for changed in (
            {"content": proof.content.replace("amy", "eve")},
            {"number": proof.number + 1},
            {"checkpoint": proof.checkpoint.replace("time 2", "time 3")},
            {"proof": proof.proof[:-1]},
        ):
            wrong = await judged(db, tmp_path, msgspec.structs.replace(proof, **changed))
            assert wrong.returncode == 1, changed
            assert "NOT PROVED" in wrong.stderr


async def test_between_checkpoints_it_was_only_added_to(
    db: Db, proofs: Proofs, tmp_path: Path
) -> None:
    points = []
    for size in (1, 2, 5, 8):
        await acts(db, size, begin=size * 100)
        points.append(await grown(proofs))
    assert await grown(proofs) == points[-1], "nothing happened, so nothing is signed"
    for old, new in ((points[0], points[3]), (points[1], points[2]), (points[2], points[2])):
        told = await judged(db, tmp_path, await prove_growth(db, old, new))
        assert told.returncode == 0, told.stderr
    good = await prove_growth(db, points[0], points[3])
    other = await prove_growth(db, points[1], points[3])
    wrong = await judged(db, tmp_path, msgspec.structs.replace(good, old=other.old))
    assert wrong.returncode == 1
    with pytest.raises(AuditCheckpointsReversed):
        await prove_growth(db, points[2], points[0])
    with pytest.raises(AuditCheckpointUnknown):
        await prove_growth(db, points[0], 99)

    first = await list_checkpoints(db, limit=3)
    rest = await list_checkpoints(db, cursor=first.next_cursor, limit=3)
    assert [each.number for each in [*first.items, *rest.items]] == points[::-1]


async def test_a_receipt_and_an_entry_are_not_taken_for_each_other(
    db: Db, proofs: Proofs, tmp_path: Path
) -> None:
    [entry_id] = await acts(db, 1)
    await grown(proofs)
    proof: dict[str, Any] = json.loads(msgspec.json.encode(await prove_entry(db, entry_id)))
    for changed in ({**proof, "object": "tongbao.receipt/1"}, {**proof, "more": 1}):
        told = await judged(db, tmp_path, msgspec.json.encode(changed))
        assert told.returncode == 1


HARMS = (
    ("update audit_entry set actor = 'operator:eve' where subject = 'chn_2'", "not what it"),
    ("update audit_entry set origin = 'elsewhere' where subject = 'chn_2'", "not what it"),
    ("delete from audit_entry where subject = 'chn_3'", "gone"),
    ("delete from audit_leaf where number = 2", "leaf 2 is missing"),
    ("delete from audit_leaf where number >= 2", "is not made of"),
    ("update audit_tree set size = size - 1", "is not made of"),
    ("update audit_checkpoint set root = sha256('x')", "is not what was signed"),
    ("update audit_checkpoint set note = replace(note, 'time 2', 'time 3')", "not what was signed"),
)


@pytest.mark.parametrize(("harm", "word"), HARMS)
async def test_what_was_changed_removed_or_slipped_in_is_found(
    db: Db, proofs: Proofs, harm: str, word: str
) -> None:
    await acts(db, 5)
    await grown(proofs)
    whole = await verify_log(db)
    assert (whole.breaches, whole.first) == (0, "")
    assert whole.entries >= 5
    tables = "audit_entry, audit_leaf, audit_node, audit_checkpoint"
    await db.execute(f"grant update, delete on {tables} to current_user", ())
    assert await db.execute(harm, ())
    report = await verify_log(db)
    assert report.breaches
    assert word in report.first


async def test_who_rewrites_entry_leaf_and_tree_breaks_what_was_signed(
    db: Db, proofs: Proofs
) -> None:
    ids = await acts(db, 4)
    await grown(proofs)
    tables = "audit_entry, audit_leaf, audit_node, audit_tree"
    await db.execute(f"grant update, delete on {tables} to current_user", ())
    await db.execute("update audit_entry set actor = 'eve' where id = $1", (ids[1],))
    for table in ("audit_leaf", "audit_node", "audit_tree"):
        await db.execute(f"delete from {table}", ())
    await place_entries(db)
    report = await verify_log(db)
    assert "does not begin as checkpoint 1 said" in report.first


async def test_a_long_log_is_derived_from_the_last_proved_checkpoint_and_block_by_block(
    db: Db, proofs: Proofs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_tree, "BLOCK", 4)
    monkeypatch.setattr(audit_tree, "_BLOCK_LEVEL", 2)
    await acts(db, 21)
    first = await grown(proofs)
    await acts(db, 9, begin=21)
    await grown(proofs)
    size = await size_of_log(db)
    assert size >= 30
    assert (await verify_log_since(db, first)).breaches == 0
    assert (await verify_log_since(db, 0)).entries == size
    blocks = range(size // 4)
    assert [await troubles_of_block(db, each) for each in blocks] == [[] for _ in blocks]
    assert await troubles_of_block(db, size // 4) == [], "what is not whole is nobody's block"

    tables = "audit_entry, audit_leaf, audit_node, audit_checkpoint"
    await db.execute(f"grant update, delete on {tables} to current_user", ())
    await db.execute("update audit_entry set actor = 'eve' where subject = 'chn_28'", ())
    assert "not what it was" in (await verify_log_since(db, first)).first
    await db.execute("update audit_entry set actor = 'eve' where subject = 'chn_2'", ())
    harmed = [n for n in blocks if await troubles_of_block(db, n)]
    assert len(harmed) in {1, 2}
    await db.execute("delete from audit_leaf where number = 1", ())
    assert "leaf 1 is missing" in await troubles_of_block(db, 0)
    await db.execute("update audit_node set hash = sha256('x') where level = 2 and number = 3", ())
    assert await troubles_of_block(db, 2) == ["block 2 is not what the tree is made of"]
    await db.execute("update audit_checkpoint set frontier = frontier || sha256('x')", ())
    assert "begin as checkpoint" in (await verify_log_since(db, first)).first


async def test_what_waits_too_long_for_its_place_is_found(db: Db) -> None:
    await acts(db, 1)
    await place_entries(db)
    async with db.begin("tests") as tx:
        await tx.execute(
            """insert into audit_entry (id, at, real_at, actor, origin, action, subject, facts)
               values ($1, now(), now() - interval '1 day', 'eve', '', 'x', 'y', '{}')""",
            (new_id(),),
        )
    assert "has no place" in (await verify_log(db)).first
    await place_entries(db)
    assert (await verify_log(db)).breaches == 0


async def test_two_at_once_make_one_tree_and_who_dies_leaves_none(db: Db, proofs: Proofs) -> None:
    await acts(db, 30)
    failpoints.arm("audit.before_growing:raise")
    with pytest.raises(SimulatedCrash):
        await place_entries(db)
    failpoints.arm(None)
    await asyncio.gather(*(place_entries(db) for _ in range(4)))
    await asyncio.gather(*(sign_checkpoint(proofs) for _ in range(4)))
    report = await verify_log(db)
    [row] = await db.fetch("select count(*) as n from audit_entry", ())
    assert (report.entries, report.breaches) == (row["n"], 0)
    assert len((await list_checkpoints(db)).items) == 1


async def test_an_act_says_where_it_came_from(db: Db) -> None:
    audit.come_from("192.0.2.7 req_1")
    [entry_id] = await acts(db, 1)
    [entry] = [e for e in await audit.entries_of_subject(db, "chn_0") if e.id == entry_id]
    assert entry.origin == "192.0.2.7 req_1"


def test_the_time_an_entry_may_come_late_is_longer_than_its_grace() -> None:
    assert audit_tree.LATE > audit_tree.GRACE >= timedelta(minutes=5)


async def test_everybody_may_read_what_was_signed_last(db: Db, proofs: Proofs) -> None:
    serve = publications(db)[AUDIT_PATH]
    reply = await call(serve, "GET", AUDIT_PATH, {}, [b""])
    assert (reply.status, reply.body) == (200, b"")
    await acts(db, 3)
    await grown(proofs)
    reply = await call(serve, "GET", AUDIT_PATH, {}, [b""])
    [point] = (await list_checkpoints(db)).items
    assert reply.body.decode() == point.note
    assert await is_ours(db, point.note)
