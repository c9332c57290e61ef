"""Commissions: what agents earn of fees, worked out fee by fee. No I/O.

    fee of a payment ──► each agent of the chain as it was then: its share, less what it passes on
    fee given back   ──► the same, taken away again

A run adds up what an agent earned of one merchant's fees. Less than nothing is carried into the
next run, and what is posted is never negative.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.kernel.licence import Mode
from tongbao.ledger.queries import StatementLine
from tongbao.parties.agents.agents import Chains

FEES: Final = frozenset({"fee", "fee_back", "fee_kept"})
"""How the legs end that take a merchant's fee or give it back, whatever fact they belong to."""


class Commission(Struct, frozen=True):
    """One row of the commission table: what one agent got of one merchant's fees in one run."""

    book: int
    id: UUID
    run_id: UUID
    agent_id: UUID
    merchant_id: UUID
    payer_id: UUID
    mode: Mode
    currency: str
    earned: int
    carried_in: int
    posted: int
    carried_out: int
    created_at: datetime


class CommissionLine(Struct, frozen=True):
    """One row of commission_line: one fee, and all that its share was worked out from."""

    book: int
    commission_id: UUID
    seq: int
    reference: UUID
    fee: int
    share_ppm: int
    passed_ppm: int
    amount: int
    at: datetime


class Part(Struct, frozen=True):
    """An agent's part of one fee, in minor units; of a fee given back it is negative."""

    agent_id: UUID
    seq: int
    reference: UUID
    fee: int
    share_ppm: int
    passed_ppm: int
    amount: int
    at: datetime


def parts_of(chains: Chains, payer_id: UUID, lines: Iterable[StatementLine]) -> list[Part]:
    """Return every agent's part of the fees among a merchant's movements.

    The same movements and chains always give the same parts: whoever doubts a commission works it
    out again from the journal and the agents' terms.
    """
    return [
        Part(
            promise.agent_id,
            line.seq,
            line.reference,
            -line.change,
            promise.share_ppm,
            promise.passed_ppm,
            promise.of(-line.change),
            line.at,
        )
        for line in lines
        if line.code.rpartition("/")[2] in FEES
        for promise in chains.chain(payer_id, line.at)
    ]


def earned_by(parts: Iterable[Part]) -> Mapping[UUID, int]:
    """Return what each agent earned in all."""
    earned: dict[UUID, int] = {}
    for part in parts:
        earned[part.agent_id] = earned.get(part.agent_id, 0) + part.amount
    return earned


def settled(earned: int, carried_in: int) -> tuple[int, int]:
    """Return what is posted and what is carried on; one of them is zero."""
    due = earned + carried_in
    return max(due, 0), min(due, 0)
