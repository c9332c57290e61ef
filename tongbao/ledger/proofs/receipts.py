"""Receipts: the transfers of a payment, with the proof that a signed checkpoint holds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.kernel.merkle import Subtree, inclusion_ranges, prove, tree_root, verify_inclusion
from tongbao.ledger.proofs import _store as store
from tongbao.ledger.proofs import verifier
from tongbao.ledger.proofs.checkpoints import stop
from tongbao.ledger.proofs.entries import code_leaves, text_of
from tongbao.ledger.proofs.model import (
    BLOCK,
    LedgerCheckpoint,
    LedgerTree,
    ProofBroken,
    Proofs,
    Receipt,
    ReceiptNotReady,
    ReceiptTransfer,
    TransferUnproven,
    TreeBroken,
)
from tongbao.ledger.proofs.tree import Reading, block_of, frontier_of, proof_of, reading

TRANSFERS_MAX: Final = 200
"""Most transfers of one receipt; a payment has a handful."""
_LOW: Final = (1 << 64) - 1


def verifier_source() -> str:
    """Return the program that checks receipts, for people to keep and to read."""
    return Path(verifier.__file__).read_text("utf-8")


async def receipt_for(
    proofs: Proofs, book: int, reference: UUID, *, reader: UUID | None
) -> Receipt:
    """Return the receipt of everything posted for a payment, refund or settlement.

    ``reader`` sees the sides of accounts they own, and None sees all: that is for the operator.

    Raises:
        TransferUnproven, ReceiptNotReady, LeavesArchived, ProofBroken
    """
    lowest = UUID(int=reference.int & ~_LOW)
    highest = UUID(int=reference.int | _LOW)
    places = await store.FOR_REFERENCE.all(
        proofs.db, book, lowest, highest, reference, TRANSFERS_MAX
    )
    return await _receipt(proofs, book, places, reader)


async def receipt_of_transfer(proofs: Proofs, book: int, transfer_id: UUID) -> Receipt:
    """Return the receipt of one transfer, with both its sides open.

    Raises:
        TransferUnproven, ReceiptNotReady, LeavesArchived, ProofBroken
    """
    places = await store.WITH_ID.all(proofs.db, book, transfer_id)
    return await _receipt(proofs, book, places, None)


async def find_receipt(proofs: Proofs, wanted: UUID) -> Receipt:
    """Return the receipt of a reference or transfer, in whichever book it is, with all sides open.

    Raises:
        TransferUnproven, ReceiptNotReady, LeavesArchived, ProofBroken
    """
    for head in await store.HEADS.all(proofs.db):
        for find in (_of_reference, receipt_of_transfer):
            try:
                return await find(proofs, head.book, wanted)
            except TransferUnproven:
                continue
    raise TransferUnproven


async def _of_reference(proofs: Proofs, book: int, reference: UUID) -> Receipt:
    return await receipt_for(proofs, book, reference, reader=None)


async def _receipt(
    proofs: Proofs, book: int, places: Sequence[store.PlaceInBook], reader: UUID | None
) -> Receipt:
    if not places:
        raise TransferUnproven
    point = await store.LAST_CHECKPOINT.first(proofs.db, book)
    tree = await store.GET_TREE.first(proofs.db, book)
    if point is None or tree is None or point.size < places[-1].seq:
        raise ReceiptNotReady(seq=places[-1].seq)
    try:
        standing = await _standing(proofs, point, tree, reader)
        proven = [await _proven(standing, place.seq) for place in places]
    except TreeBroken as breach:
        await stop(proofs, breach)
        raise ProofBroken(book=book) from None
    return Receipt(object="tongbao.receipt/1", checkpoint=point.note, transfers=proven)


class _Standing(Struct, frozen=True):
    """What all transfers of a receipt are proved against."""

    tree: Reading
    point: LedgerCheckpoint
    codes: dict[int, str]
    code_leaves: list[bytes]
    reader: UUID | None


async def _standing(
    proofs: Proofs, point: LedgerCheckpoint, tree: LedgerTree, reader: UUID | None
) -> _Standing:
    codes = [code for code in await store.CODES.all(proofs.db) if code.number <= point.codes]
    leaves = code_leaves(codes)
    if tree_root(leaves) != point.codes_root:
        raise TreeBroken(point.book, "the posting codes are not those that were signed")
    words = {code.number: code.code for code in codes}
    return _Standing(await reading(proofs, proofs.db, tree), point, words, leaves, reader)


async def _proven(standing: _Standing, seq: int) -> ReceiptTransfer:
    """Return one transfer with its proof, which is checked before it is given away.

    Raises:
        TreeBroken
    """
    point, reader = standing.point, standing.reader
    packed, leaves = await block_of(standing.tree, (seq - 1) // BLOCK)
    place = (seq - 1) % BLOCK
    ranges = inclusion_ranges(seq - 1, point.size)
    path = await proof_of(standing.tree, ranges, frontier_of(point.size, point.frontier))
    if not verify_inclusion(leaves[place], seq - 1, point.size, point.root, path):
        raise TreeBroken(point.book, f"transfer {seq} is not what was signed")
    entry = packed.entry(place)
    code_ranges = inclusion_ranges(entry.code - 1, point.codes)
    code_path = prove(code_ranges, lambda each: _code_root(standing.code_leaves, each))
    return ReceiptTransfer(
        entry=entry,
        code=standing.codes[entry.code],
        code_proof=[text_of(each) for each in code_path],
        debit=packed.side(place, "debit", reader=reader),
        credit=packed.side(place, "credit", reader=reader),
        proof=[text_of(each) for each in path],
    )


def _code_root(leaves: Sequence[bytes], subtree: Subtree) -> bytes:
    start = subtree.number << subtree.level
    return tree_root(leaves[start : start + (1 << subtree.level)])
