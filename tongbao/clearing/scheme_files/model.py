"""What a scheme's file is, and what its rows mean. No I/O.

A layout of `clearing.sources` says where things stand: ``number`` is the scheme's case, ``ref`` the
trade (our number, or the channel's own), ``state`` the reason code, and ``word`` with its ``kinds``
says what happened: retrieval, chargeback, second_chargeback, won or lost; other is no case, and
passed over.

UnionPay's list of differences names no case and no order, but trades by trace number and moment.
There a case is about one trade and named after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from msgspec import Struct

from tongbao.clearing.disputes.chargebacks import DisputeAsked
from tongbao.clearing.disputes.model import DisputeState, Move
from tongbao.clearing.sources.model import SourceRow
from tongbao.kernel.errors import Invalid, Rejected
from tongbao.kernel.money import Money

PREFIX: Final = "sfd"
NO_CASE: Final = "other"
Outcome = Literal["taken", "not_ours", "contradicts"]

_Stage = Literal[DisputeState.RETRIEVAL, DisputeState.CHARGEBACK]
_MEANS: Final[Mapping[str, tuple[_Stage, Move | None]]] = {
    "retrieval": (DisputeState.RETRIEVAL, None),
    "chargeback": (DisputeState.CHARGEBACK, Move.CHARGE_BACK),
    "second_chargeback": (DisputeState.CHARGEBACK, Move.TAKE_AGAIN),
    "won": (DisputeState.CHARGEBACK, Move.WIN),
    "lost": (DisputeState.CHARGEBACK, Move.LOSE),
}
_REASONS: Final = {"retrieval": "the scheme asks for papers", "chargeback": "charged back"}
_REF_MAX: Final = 64
_CODE_MAX: Final = 16


class SchemeFileRefused(Rejected):
    """A row cannot be read, or means nothing; nothing of the file was taken."""

    code = "scheme_file.refused"
    advice = "Look at the named line, correct the layout or ask for the file again."
    advice_zh = "请检查所指行，修正文件布局或重新获取文件；该文件未做任何处理。"


class SchemeFileEmpty(Invalid):
    """There is no row in the file."""

    code = "scheme_file.empty"
    advice = "Check that this is the right file and layout."
    advice_zh = "文件中没有记录，请确认文件与布局是否正确。"


class SchemeFile(Struct, frozen=True):
    """One row of scheme_file."""

    id: UUID
    account_id: UUID
    scheme: str
    name: str
    sha256: str
    layout: str
    row_count: int
    taken_by: str
    began_at: datetime
    ended_at: datetime | None


class SchemeFileRow(Struct, frozen=True):
    """One row of scheme_file_row: what became of a line."""

    file_id: UUID
    line: int
    scheme_ref: str
    trade: str
    outcome: Outcome
    dispute_id: UUID | None
    at: datetime


def meaning_of(row: SourceRow, scheme: str) -> tuple[DisputeAsked, Move | None]:
    """Return what a row asks of us.

    Raises:
        SchemeFileRefused
    """
    means = _MEANS.get(row.kind)
    is_whole = 0 < len(row.number) <= _REF_MAX and row.ref and row.amount != 0
    if means is None or not is_whole or len(row.state) > _CODE_MAX:
        raise SchemeFileRefused(line=row.line, kind=row.kind[:_REF_MAX])
    stage, move = means
    asked = DisputeAsked(
        scheme=scheme,
        scheme_ref=row.number,
        reason_code=row.state,
        reason=_REASONS.get(row.kind, "charged back"),
        money=Money(abs(row.amount), row.currency),
        stage=stage,
        fee=max(row.fee, 0),
        said_at=row.at,
    )
    return asked, move
