"""Receipts: checked by the program anybody may run, on its own, and by nothing that can be changed.

The verifier runs in a Python without our packages (`-I -S`), from a file it was printed into.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.ledger.proofs.conftest import CUSTOMER, MERCHANT, FalseBook
from tongbao.kernel.ids import base32, new_id
from tongbao.ledger.proofs import _store as store
from tongbao.ledger.proofs import verifier
from tongbao.ledger.proofs.checkpoints import prove_consistency, prove_now
from tongbao.ledger.proofs.model import (
    ProofBroken,
    Proofs,
    Receipt,
    ReceiptNotReady,
    TransferUnproven,
)
from tongbao.ledger.proofs.receipts import (
    find_receipt,
    receipt_for,
    receipt_of_transfer,
    verifier_source,
)
from tongbao.ledger.proofs.signers import published

STEP = 1 if os.environ.get("TONGBAO_CAMPAIGN") else 7
"""How far the bytes that are changed lie apart; where they begin is chance."""
ALONE = [sys.executable, "-I", "-S"]
MANY = """
import runpy, sys
verifier = runpy.run_path(sys.argv[1])
check, Wrong = verifier["check"], verifier["Wrong"]
for line in open(sys.argv[2], encoding="utf-8"):
    try:
        check(line, sys.argv[3:])
    except Wrong:
        continue
    sys.stdout.write(line)
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The verifier, as `tongbao ledger prove --verifier` prints it."""
    file = tmp_path / "verify_receipt.py"
    file.write_text(verifier_source(), encoding="utf-8")
    return file


async def keys_of(proofs: Proofs) -> list[str]:
    return [key.key for key in await published(proofs.db)]


def run(program: Path, shown: object, keys: list[str]) -> subprocess.CompletedProcess[str]:
    file = program.with_name("receipt.json")
    file.write_bytes(msgspec.json.encode(shown))
    command = [*ALONE, str(program), str(file), *keys]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def accepted(program: Path, tampered: Iterator[str], keys: list[str]) -> list[str]:
    """Return those of many receipts that the program takes for proved."""
    file = program.with_name("tampered.jsonl")
    file.write_text("".join(f"{line}\n" for line in tampered), encoding="utf-8")
    command = [*ALONE, "-c", MANY, str(program), str(file), *keys]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return done.stdout.splitlines()


def leaves_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield every value of a JSON document that is no container, with the way to it."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        yield path, value
    for name, inner in items:
        yield from leaves_of(inner, (*path, name))


def changes_of(value: Any) -> Iterator[Any]:
    """Yield the value with its bytes changed, each STEPth of them, and one lost, or doubled."""
    if isinstance(value, str):
        for place in range(random.randrange(STEP), len(value), STEP):
            letter = value[place]
            other = chr(ord(letter) ^ 1) if letter != "\n" else " "
            yield value[:place] + other + value[place + 1 :]
        yield from (value[:-1], value + value[-1:], value.upper(), None, 0)
        if not value:
            yield "x"
    elif isinstance(value, int):
        yield from (value + 1, value - 1, -value - 1, value << 64, str(value), value + 0.5, None)
    else:
        yield from ("00000000-0000-0000-0000-000000000001", 0, "")


def tampered_with(shown: Any) -> Iterator[str]:
    """Yield the document with bytes of each field changed, and with fields lost or added."""
    document = json.loads(msgspec.json.encode(shown))
    for path, value in leaves_of(document):
        for other in changes_of(value):
            if other != value:
                yield json.dumps(changed(document, path, other))
    for path, value in containers_of(document):
        names = list(value) if isinstance(value, dict) else range(len(value))
        for name in names:
            copy = deepcopy(document)
            del inside(copy, path)[name]
            yield json.dumps(copy)
        copy = deepcopy(document)
        holder = inside(copy, path)
        if isinstance(holder, dict):
            holder["extra"] = 1
        else:
            holder.append(holder[-1] if holder else "")
            if path == ("transfers",):
                continue  # the same transfer twice proves the same
        yield json.dumps(copy)


def containers_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict | list):
        yield path, value
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from containers_of(inner, (*path, name))


def inside(document: Any, path: tuple[Any, ...]) -> Any:
    for name in path:
        document = document[name]
    return document


def changed(document: Any, path: tuple[Any, ...], other: Any) -> Any:
    copy = deepcopy(document)
    inside(copy, path[:-1])[path[-1]] = other
    return copy


async def receipted(proofs: Proofs, book: FalseBook, nth: int = 5) -> Receipt:
    await book.commit(700, 30)
    await prove_now(proofs)
    return await receipt_for(proofs, 1, book.references[nth], reader=MERCHANT)


async def test_a_receipt_is_proved_by_the_program_alone(
    proofs: Proofs, false_book: FalseBook, program: Path
) -> None:
    receipt = await receipted(proofs, false_book)

    done = run(program, receipt, await keys_of(proofs))

    assert (done.returncode, done.stderr) == (0, "")
    signed, gross, fee = done.stdout.splitlines()
    assert "730 entries" in signed
    assert base32(false_book.references[5]) in gross
    assert "111 CNY (minor units), single, test/gross" in gross
    assert f"debit sealed, credit merchant_payable of {base32(MERCHANT)}" in gross
    assert "112 CNY" in fee
    assert "credit sealed" in fee


async def test_no_byte_of_a_receipt_can_be_changed(
    proofs: Proofs, false_book: FalseBook, program: Path
) -> None:
    receipt = await receipted(proofs, false_book)
    keys = await keys_of(proofs)
    whole = json.loads(msgspec.json.encode(receipt))

    kept = accepted(program, tampered_with(receipt), keys)

    # Less may be shown than was: a receipt of one of the transfers is a receipt.
    fewer = [json.loads(line) for line in kept]
    assert all(each["checkpoint"] == whole["checkpoint"] for each in fewer)
    assert [each["transfers"] for each in fewer] == [whole["transfers"][1:], whole["transfers"][:1]]


async def test_no_byte_of_a_consistency_proof_can_be_changed(
    proofs: Proofs, false_book: FalseBook, program: Path
) -> None:
    for size in (300, 41):
        await false_book.commit(size)
        await prove_now(proofs)
    proof = await prove_consistency(proofs, 1, 1, 2)
    keys = await keys_of(proofs)

    assert run(program, proof, keys).returncode == 0
    assert accepted(program, tampered_with(proof), keys) == []


async def test_a_key_that_is_not_theirs_proves_nothing(
    proofs: Proofs, false_book: FalseBook, program: Path
) -> None:
    receipt = await receipted(proofs, false_book)
    [key, *_] = await keys_of(proofs)
    name, key_id, raw = key.split("+", 2)
    other = "A" if raw[5] != "A" else "B"

    wrongs = [
        f"{name}+{key_id}+{raw[:5]}{other}{raw[6:]}",
        f"{name}x+{key_id}+{raw}",
        f"{name}+00000000+{raw}",
        f"{name}+{key_id}",
        "",
    ]

    for wrong in wrongs:
        done = run(program, receipt, [key, wrong])
        assert done.returncode == 1
        assert done.stderr.startswith("NOT PROVED")
    assert run(program, receipt, []).returncode == 2


async def test_each_reader_sees_their_own_side_and_the_operator_sees_all(
    proofs: Proofs, false_book: FalseBook
) -> None:
    merchants = (await receipted(proofs, false_book)).transfers[0]
    [reference] = {merchants.entry.reference}
    [customers, _] = (await receipt_for(proofs, 1, reference, reader=CUSTOMER)).transfers
    [whole, fee] = (await find_receipt(proofs, reference)).transfers

    for sealed, opened in [
        (merchants.debit, merchants.credit),
        (customers.credit, customers.debit),
    ]:
        assert msgspec.to_builtins(sealed).keys() == {"sealed"}
        assert msgspec.to_builtins(opened).keys() >= {"owner", "after", "previous"}
    assert (whole.debit, whole.credit) == (customers.debit, merchants.credit)
    assert fee.credit.owner is None
    assert await receipt_of_transfer(proofs, 1, whole.entry.id) == Receipt(
        "tongbao.receipt/1",
        (await receipt_for(proofs, 1, reference, reader=None)).checkpoint,
        [whole],
    )
    assert await find_receipt(proofs, fee.entry.id)


async def test_every_transfer_of_a_book_has_a_receipt_that_holds(
    proofs: Proofs, false_book: FalseBook
) -> None:
    await false_book.commit(3, 517)
    await prove_now(proofs)
    keys = (await keys_of(proofs))[:1]
    await false_book.commit(300)  # the tree goes on; the checkpoint does not know

    for nth in (*range(0, 260, 13), 258, 259):
        receipt = await receipt_for(proofs, 1, false_book.references[nth], reader=None)
        assert verifier.check(msgspec.json.encode(receipt).decode(), keys)


async def test_before_the_checkpoint_there_is_no_receipt(
    proofs: Proofs, false_book: FalseBook
) -> None:
    await false_book.commit(2)
    with pytest.raises(ReceiptNotReady):
        await receipt_for(proofs, 1, false_book.references[0], reader=None)
    await prove_now(proofs)
    await false_book.commit(2)

    assert await receipt_for(proofs, 1, false_book.references[0], reader=None)
    with pytest.raises(ReceiptNotReady):
        await receipt_for(proofs, 1, false_book.references[1], reader=None)


async def test_what_was_never_posted_has_no_receipt(proofs: Proofs, false_book: FalseBook) -> None:
    await receipted(proofs, false_book)

    with pytest.raises(TransferUnproven):
        await receipt_for(proofs, 1, new_id(), reader=None)
    with pytest.raises(TransferUnproven):
        await find_receipt(proofs, new_id())


@pytest.mark.parametrize(
    "sql",
    [
        "update ledger_transfer set amount = 1 where seq = 11",
        "update ledger_transfer set amount = 1 where seq = 14",
        "update ledger_code set code = 'test/other' where number = 2",
        "update ledger_tree_node set hash = decode(repeat('11', 32), 'hex') where number = 1",
    ],
)
async def test_a_receipt_that_would_not_hold_is_not_given_and_stops_the_book(
    proofs: Proofs, false_book: FalseBook, sql: str
) -> None:
    await receipted(proofs, false_book)
    await proofs.db.pool.execute(
        "grant update on ledger_transfer, ledger_code, ledger_tree_node to current_user"
    )
    await proofs.db.execute(sql, ())

    with pytest.raises(ProofBroken):
        await receipt_for(proofs, 1, false_book.references[5], reader=None)
    [head] = [head for head in await store.HEADS.all(proofs.db) if head.book == 1]
    assert "proofs:" in (head.stopped_because or "")
