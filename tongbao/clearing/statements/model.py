"""Statements and receipts: what they say, and what must be so for them to be true. No I/O."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Final, Literal
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.clearing.payouts.model import Payout, PayoutState
from tongbao.clearing.settlement.model import Settlement, SettlementLine
from tongbao.kernel.errors import Conflict
from tongbao.kernel.ids import show

LINES_MAX: Final = 200_000
"""Lines of one statement; what has more is read by the API page by page."""


class StatementFormat(StrEnum):
    """How a paper is wanted."""

    CSV = "csv"
    XLSX = "xlsx"
    PDF = "pdf"


MEDIA_TYPES: Final = {
    StatementFormat.CSV: "text/csv; charset=utf-8",
    StatementFormat.XLSX: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    StatementFormat.PDF: "application/pdf",
}


class Tie(Struct, frozen=True):
    """What the ledger says of the account at transfer ``seq``, beside the settlement.

    ``balance`` is the ledger's posted balance there; ``unsettled`` the part of it that is of later
    settlements. What the settlement carried must be the rest.
    """

    seq: int
    balance: int
    unsettled: int

    @property
    def closing(self) -> int:
        """What the ledger says is left of this settlement."""
        return self.balance - self.unsettled


class SettlementStatement(Struct, frozen=True):
    """A settlement with its lines, whose it is, and what ties it to the ledger."""

    settlement: Settlement
    merchant: str
    lines: list[SettlementLine]
    tie: Tie

    @property
    def number(self) -> str:
        """The settlement's public id."""
        return show("set", self.settlement.id)


def faults_of(statement: SettlementStatement) -> list[str]:
    """Return every sentence of a statement that is not true, or none."""
    its, lines = statement.settlement, statement.lines
    total = sum(line.amount for line in lines)
    net = its.gross - its.fees - its.refunds + its.fees_returned + its.other
    faults = []
    if len(lines) != its.line_count:
        faults.append(f"{its.line_count} lines are said and {len(lines)} are there")
    if total != net:
        faults.append(f"the lines come to {total} and the columns to {net}")
    if its.opening + total != its.due:
        faults.append(f"opening and lines come to {its.opening + total}, due is {its.due}")
    if its.due - its.payable - its.reserved - its.quick_fee != its.carried:
        faults.append(f"the shares of {its.due} do not leave {its.carried}")
    if statement.tie.closing != its.carried:
        faults.append(f"the ledger has {statement.tie.closing} left, not {its.carried}")
    return faults


class PayoutReceipt(Struct, frozen=True):
    """The facts of an electronic receipt (电子回单), in the order they are digested."""

    number: str
    settlement: str
    merchant: str
    holder: str
    account: str
    amount: int
    currency: str
    bank_reference: str
    paid_at: datetime
    ledger_book: int
    ledger_transfer: UUID
    ledger_seq: int

    @property
    def digest(self) -> str:
        """The SHA-256 of the facts, in hexadecimal: the receipt's own check figure."""
        return sha256(b"tongbao receipt 1\n" + msgspec.json.encode(self)).hexdigest()


def check_receiptable(payout: Payout) -> None:
    """Raise unless the bank has paid, and has not sent the money back.

    Raises:
        ReceiptNotReady
    """
    if payout.state is not PayoutState.SUCCEEDED:
        raise ReceiptNotReady(status=payout.state.value)


class PaperView(Struct, frozen=True):
    """A paper as the API gives it; ``content`` is base64."""

    object: Literal["paper"]
    name: str
    media_type: str
    sha256: str
    content: bytes


class ReceiptNotReady(Conflict):
    """A receipt is of money that was paid and stayed paid."""

    code = "receipt.not_ready"
    advice = "Ask again once the payout has succeeded."
    advice_zh = "付款成功后方可开具电子回单。"


class StatementTooLong(Conflict):
    """The settlement has more lines than one file takes."""

    code = "statement.too_long"
    advice = "Read the settlement's lines page by page."
    advice_zh = "结算明细行数过多，请通过接口分页获取。"
