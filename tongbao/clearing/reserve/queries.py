"""Read proofs and gaps, and work a proof out again from the books and the banks' papers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.clearing.reserve import _store as store
from tongbao.clearing.reserve.model import (
    Figures,
    Inputs,
    ReserveGap,
    ReserveGapNotFound,
    ReserveProof,
    ReserveProofNotFound,
    digest_of,
    lines_of,
    work_out,
)
from tongbao.infra.db import Db, Tx
from tongbao.kernel.licence import Mode
from tongbao.ledger.general.proving import check_general_ledger
from tongbao.ledger.general.queries import sums_through
from tongbao.ledger.proofs.signers import is_ours


class ReserveFinding(Struct, frozen=True):
    """Where a proof is not what books and papers say now."""

    where: str
    what: str


async def proofs_between(on: Db | Tx, mode: Mode, first: date, last: date) -> list[ReserveProof]:
    """Return the newest proof of each day and currency from a day to another, both included."""
    return await store.LATEST_PROOFS.all(on, mode, first, last)


async def proof_with_id(on: Db | Tx, proof_id: UUID) -> ReserveProof:
    """Return a proof.

    Raises:
        ReserveProofNotFound
    """
    found = await store.GET_PROOF.first(on, proof_id)
    if found is None:
        raise ReserveProofNotFound
    return found


async def gap_with_id(on: Db | Tx, gap_id: UUID) -> ReserveGap:
    """Return a gap.

    Raises:
        ReserveGapNotFound
    """
    found = await store.GET_GAP.first(on, gap_id)
    if found is None:
        raise ReserveGapNotFound
    return found


async def open_gaps(on: Db | Tx, mode: Mode | None = None) -> list[ReserveGap]:
    """Return the gaps that nobody has explained, newest days first."""
    return await store.OPEN_GAPS.all(on, mode)


async def gaps_of_day(on: Db | Tx, mode: Mode, day: date) -> list[ReserveGap]:
    """Return the gaps of a day, explained or not."""
    return await store.GAPS_OF_DAY.all(on, mode, day)


async def verify_proof(
    db: Db, proof: ReserveProof, *, from_journal: bool = False
) -> list[ReserveFinding]:
    """Work a proof out again and return where it is not what is found; nothing when it holds.

    The digest is of the inputs and the figures; the figures follow from the inputs; each balance is
    the bank's paper as recorded; each line is the sum of the vouchers up to the batch that the
    proof names; and a checkpoint that we have signed covers them. With ``from_journal`` the
    vouchers of its books are derived from the journal as well, which reads all of it.
    """
    inputs = msgspec.convert(proof.inputs, Inputs)
    kept = Figures(
        proof.state,
        proof.owed,
        proof.required,
        proof.custody,
        proof.own_at_bank,
        proof.bank_in_books,
        proof.shortfall,
        proof.difference,
    )
    findings = []
    if digest_of(inputs, kept) != proof.digest:
        findings.append(ReserveFinding("digest", "inputs or figures were changed"))
    if work_out(inputs) != kept:
        findings.append(ReserveFinding("figures", "they do not follow from the inputs"))
    findings += await _papers(db, inputs)
    findings += await _books(db, inputs, from_journal=from_journal)
    return findings


async def _papers(db: Db, inputs: Inputs) -> list[ReserveFinding]:
    findings = []
    for each in inputs.statements:
        row = await store.BALANCE.first(db, each.account, each.day, each.version)
        if row is None or (row.amount, row.source, row.digest.hex()) != (
            each.amount,
            each.source,
            each.digest,
        ):
            what = f"{each.day} version {each.version} is not what was recorded"
            findings.append(ReserveFinding(f"statement {each.account}", what))
    return findings


async def _books(db: Db, inputs: Inputs, *, from_journal: bool) -> list[ReserveFinding]:
    findings = []
    for book in inputs.books:
        found = await sums_through(db, book.book, inputs.day, book.batch)
        sums = [(s.name, s.debits, s.credits) for s in found if s.currency == inputs.currency]
        if lines_of(sums) != book.lines:
            what = f"vouchers up to batch {book.batch} say something else"
            findings.append(ReserveFinding(f"book {book.book}", what))
        if book.signed_batch < book.batch or not await is_ours(db, book.note):
            what = "no checkpoint of ours covers its vouchers"
            findings.append(ReserveFinding(f"book {book.book}", what))
        if from_journal:
            breaches: Sequence[object] = await check_general_ledger(db, book.book)
            findings += [ReserveFinding(f"journal {book.book}", str(each)) for each in breaches]
    return findings
