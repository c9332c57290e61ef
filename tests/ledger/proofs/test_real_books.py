"""Proofs over what the ledger itself writes: every kind of transfer, while it goes on posting."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from tests.ledger.making import ALICE, BANK, BOB, FEES, MERCHANT, group, pending, post, single, void
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import TransferKind
from tongbao.ledger.proofs import verifier
from tongbao.ledger.proofs.checkpoints import audit_whole, list_checkpoints, prove_now
from tongbao.ledger.proofs.model import ProofBroken, Proofs
from tongbao.ledger.proofs.receipts import find_receipt, receipt_for
from tongbao.ledger.proofs.signers import published
from tongbao.ledger.verify import verify


async def checked(proofs: Proofs, reference, reader=None) -> list[str]:
    keys = [key.key for key in await published(proofs.db)]
    receipt = await receipt_for(proofs, 1, reference, reader=reader)
    return verifier.check(msgspec.json.encode(receipt).decode(), keys)


async def test_every_kind_of_transfer_has_a_receipt(proofs: Proofs, ledger: Ledger) -> None:
    top_up = single(10_000, BANK, ALICE)
    held, other = pending(3000, ALICE, MERCHANT), pending(50, ALICE, BOB)
    part, back = post(held, 2000), void(other)
    refused = single(1_000_000, BOB, ALICE)
    for each in (top_up, held, other, part, back, refused):
        await ledger.submit([group(each)])

    await prove_now(proofs)

    [_, line] = await checked(proofs, top_up.reference)
    assert "10000 CNY (minor units), single, test/leg" in line
    assert "debit bank (account" in line
    [_, line] = await checked(proofs, part.reference, reader=MERCHANT.owner)
    assert "2000 CNY (minor units), post, test/post" in line
    assert "debit sealed, credit merchant_payable of" in line
    assert "void" in (await checked(proofs, back.reference))[1]
    found = await find_receipt(proofs, held.id)
    assert found.transfers[0].entry.kind == TransferKind.PENDING.name.lower()


async def test_the_tree_follows_a_book_that_is_being_written(
    proofs: Proofs, ledger: Ledger
) -> None:
    await ledger.submit([group(single(1_000_000, BANK, ALICE))])
    references = []

    async def sell() -> None:
        for nth in range(40):
            legs = [single(10 + nth, ALICE, MERCHANT), single(1, MERCHANT, FEES)]
            references.append(legs[0].reference)
            [result] = await ledger.submit([group(*legs)])
            assert result.status == "created"

    async def sign() -> None:
        for _ in range(10):
            await prove_now(proofs)
            await asyncio.sleep(0.01)

    await asyncio.gather(*(sell() for _ in range(8)), sign(), sign())
    await prove_now(proofs)

    [last, *_] = await list_checkpoints(proofs.db, 1)
    assert last.size == 641
    assert (await audit_whole(proofs, 1))[0].blocks == 2
    for reference in references[::20]:
        assert len(await checked(proofs, reference)) == 2
    report = await verify(proofs.db)
    assert report.is_sound, report.broken


async def test_a_breach_keeps_the_book_from_being_written(proofs: Proofs, ledger: Ledger) -> None:
    first = single(100, BANK, ALICE)
    await ledger.submit([group(first)])
    await prove_now(proofs)
    await proofs.db.pool.execute("grant update on ledger_transfer to current_user")
    await proofs.db.execute("update ledger_transfer set amount = 1000", ())

    with pytest.raises(ProofBroken):
        await receipt_for(proofs, 1, first.reference, reader=None)
    [result] = await ledger.submit([group(single(5, ALICE, BOB))])

    assert (result.status, result.code) == ("in_flight", "ledger.book_stopped")
