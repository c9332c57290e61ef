"""What a slice of a day is. No I/O.

A slice is half a minute of one channel account's day. Of each side it has the number of rows, their
amount and a digest that does not depend on their order: the sum, modulo 2^62, of a fingerprint of
every row's number, amount and fee. It finds accidents, not forgers: whoever makes a bill could aim
at a sum, so what a slice agrees on is confirmed by the channel's own totals when the day is closed.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.kernel.errors import Busy, Conflict, Rejected

SLICE_S: Final = 30
SLICES: Final = 86_400 // SLICE_S


class ReconSlice(Struct, frozen=True):
    """One row of recon_slice. ``is_booked``: the ledger shows every payment of it."""

    account_id: UUID
    day: date
    place: int
    our_count: int
    our_amount: int
    our_fees: int
    our_digest: int
    is_booked: bool
    our_at: datetime | None
    their_count: int
    their_amount: int
    their_digest: int

    @property
    def agrees(self) -> bool:
        """Whether both sides are the same and the ledger with them."""
        ours = (self.our_count, self.our_amount, self.our_digest)
        theirs = (self.their_count, self.their_amount, self.their_digest)
        return ours == theirs and (self.is_booked or not self.our_count)


class SlicePiece(Struct, frozen=True):
    """One row of slice_piece: a part of a day's bill, as the channel sent it in between."""

    account_id: UUID
    day: date
    place: int
    sha256: str
    line_count: int
    has_total: bool
    taken_at: datetime


class Standing(Struct, frozen=True):
    """How a day stands: how many slices have rows, and those that differ now."""

    counted: int
    differing: list[int]


class PieceUnreadable(Rejected):
    """The piece is not lines in the layout the channel's slices are read by."""

    code = "slices.piece_unreadable"
    advice = "Send whole lines with the channel's own header, in UTF-8."
    advice_zh = "请提供包含渠道原表头的完整行（UTF-8）。"


class PieceSeenBefore(Conflict):
    """Exactly this piece was taken in before."""

    code = "slices.piece_seen_before"
    advice = "Nothing to do; its rows are counted."
    advice_zh = "该分段账单已导入，无需处理。"


class TotalMissing(Conflict):
    """No piece has the bill's own total, so the day cannot be closed by its slices."""

    code = "slices.total_missing"
    advice = (
        "Take in the last piece, which ends with the bill's total, or reconcile the whole bill."
    )
    advice_zh = "请导入包含合计行的最后一段，或按完整账单对账。"


class SlicesNotPossible(Conflict):
    """No fast layout, no set engine, a bill that is there already, or a piece that was lost."""

    code = "slices.not_possible"
    advice = "Reconcile the day by its whole bill."
    advice_zh = "该渠道不支持分时对账，请按完整账单对账。"


class SlicesMoved(Busy):
    """Somebody else takes a piece in at this moment."""

    code = "slices.moved"
    advice = "Repeat it."
    advice_zh = "请重试。"
    retry_after_s = 2
