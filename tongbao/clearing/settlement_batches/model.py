"""What a settlement batch is, and who may let it go. No I/O.

    drawing ─► drawn ─► releasing ─► released
                 └────► dropping ──► dropped

What is drawn moves nothing. Live money is released by two people; a batch of the sandbox, whose
money is not real, releases itself.
"""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.clearing.settlement.model import BatchSum
from tongbao.kernel.errors import Conflict, NotFound
from tongbao.kernel.licence import Mode

PREFIX: Final = "sba"


class BatchState(StrEnum):
    """How far a batch is; the names ending in -ed wait for nobody."""

    DRAWING = "drawing"
    DRAWN = "drawn"
    RELEASING = "releasing"
    RELEASED = "released"
    DROPPING = "dropping"
    DROPPED = "dropped"


class SettlementBatch(Struct, frozen=True):
    """One row of the settlement_batch table.

    ``day`` None is each merchant's newest day that is due; ``looked_at`` counts merchants.
    """

    id: UUID
    key: str
    mode: Mode
    day: date | None
    state: BatchState
    releases_itself: bool
    cursor: str | None
    looked_at: int
    created_by: str
    created_at: datetime
    drawn_at: datetime | None
    ended_at: datetime | None


class LeftOut(Struct, frozen=True):
    """One row of settlement_left_out: who was taken out of a batch again."""

    batch_id: UUID
    merchant_id: UUID
    mode: Mode
    currency: str
    reason: str
    by: str
    at: datetime


class SumApproved(Struct, frozen=True):
    """What a batch comes to in one currency, in minor units."""

    currency: str
    settlements: int
    payable: int


class BatchToRelease(Struct, frozen=True):
    """What is approved: these settlements and no others, with these sums.

    ``digest`` is of every settlement's id and what it pays, so that a batch that was changed after
    it was proposed is not let go.
    """

    batch_id: UUID
    sums: list[SumApproved]
    digest: str


def release_terms(batch: SettlementBatch, sums: list[BatchSum], digest: str) -> BatchToRelease:
    """Return what whoever releases the batch agrees to."""
    return BatchToRelease(
        batch_id=batch.id,
        sums=[SumApproved(each.currency, each.count, each.payable) for each in sums],
        digest=digest,
    )


class Digest:
    """Takes settlements in the order of their ids and stands for all of them."""

    def __init__(self) -> None:
        self._hash = sha256(b"tongbao settlement batch 1")

    def add(self, settlement_id: UUID, payable: int) -> None:
        """Add one settlement."""
        self._hash.update(msgspec.json.encode([settlement_id, payable]))

    def hexdigest(self) -> str:
        """Return the SHA-256 of what was added."""
        return self._hash.hexdigest()


class SettlementBatchNotFound(NotFound):
    """There is no such batch."""

    code = "settlement_batch.not_found"
    advice = "List the batches to find its id."
    advice_zh = "请通过结算批次列表查找正确的标识。"


class SettlementBatchMoved(Conflict):
    """The batch is in another state than this needs, or was changed since it was looked at."""

    code = "settlement_batch.moved"
    advice = "Look at the batch again; somebody has released, dropped or changed it."
    advice_zh = "批次状态或内容已变更，请重新查看后再操作。"
