"""A channel's bill line by line: the records of what was read, and sums to hold against its own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from itertools import islice
from typing import Final
from uuid import UUID

from tongbao.clearing.sets.lanes import Lane
from tongbao.kernel.clock import business_date
from tongbao.kernel.money import Money
from tongbao.rails.channels.contract.bills import (
    BillFault,
    BillKind,
    BillLine,
    BillRow,
    BillTerms,
    BillTotal,
)

_NUMBER_MAX: Final = 128
_OTHERS_TOLD_MAX: Final = 100
_TEXT_MAX: Final = 200

RowRecord = tuple[UUID, int, str, str, str, str, int, str, int, datetime, str, str]
FaultRecord = tuple[UUID, int, int, str, str]


class Sheet:
    """Takes a bill's lines piece by piece: the records of the piece, and sums so far."""

    def __init__(
        self, bill_id: UUID, terms: BillTerms, *, day: date, currency: str, merchant_number: str
    ) -> None:
        self.rows: list[RowRecord] = []
        self.faults: list[FaultRecord] = []
        self.row_count = 0
        self.bill_id = bill_id
        self._day = day
        self._merchant_number = merchant_number
        self._others = 0  # rows of other merchants
        self._strange_at: datetime | None = None  # of the first payment, while none is of the day
        self._is_of_day = False
        self._words = dict.fromkeys(terms.moved, "moved")
        self._words |= dict.fromkeys(terms.under_way, "under_way")
        self._words |= dict.fromkeys(terms.failed, "failed")
        self._currency = currency
        self._fault_count = 0
        self._counts = dict.fromkeys(BillKind, 0)
        self._amounts = dict.fromkeys(BillKind, 0)
        self._fees = 0
        self._told: BillTotal | None = None
        self._lane: Lane | None = None

    def agreed(self, lane: Lane) -> None:
        """Count what a fast lane took out of the bill; the lines that follow are its rest."""
        self._lane = lane
        self.row_count += sum(each.count for each in lane.agreed)
        self._counts[BillKind.PAYMENT] += sum(each.count for each in lane.agreed)
        self._amounts[BillKind.PAYMENT] += sum(each.amount for each in lane.agreed)
        self._fees += sum(each.fees for each in lane.agreed)
        self._is_of_day = self.row_count > 0

    @property
    def is_of_another_day(self) -> bool:
        """Whether there are payments, and each is more than a day away from the bill's day."""
        return not self._is_of_day and self._strange_at is not None

    def refused(self, code: str) -> list[FaultRecord]:
        """Return one more fault, of the file as a whole; none of its rows counts."""
        self.faults, self.row_count, self._fees = [], 0, 0
        self._counts, self._amounts = dict.fromkeys(BillKind, 0), dict.fromkeys(BillKind, 0)
        self._take_fault(1, code, str(self._strange_at))
        return self.faults

    def _line(self, line: int) -> int:
        return line if self._lane is None else self._lane.line_in_bill(line)

    def read(self, lines: Iterator[BillLine], count: int) -> bool:
        """Take the next lines; False when there are none."""
        self.rows, self.faults = [], []
        is_any = False
        for line in islice(lines, count):
            is_any = True
            if isinstance(line, BillRow):
                self._take_row(line)
            elif isinstance(line, BillFault):
                self._take_fault(line.line, line.code, line.text)
            else:
                self._told = line
        return is_any

    def _take_row(self, row: BillRow) -> None:
        outcome = self._words.get(row.state)
        if outcome is None:
            self._take_fault(row.line, "bill.state_unknown", f"{row.number} {row.state}")
            return
        if row.merchants and self._merchant_number not in row.merchants:
            self._others += 1
            if self._others <= _OTHERS_TOLD_MAX:
                self._take_fault(row.line, "bill.wrong_merchant", " ".join(row.merchants))
            return
        if row.money.currency != self._currency or row.fee.currency != self._currency:
            self._take_fault(row.line, "bill.currency_differs", row.number)
            return
        if not (_is_number(row.number) and _is_number(row.order_number)):
            self._take_fault(row.line, "bill.number_malformed", row.number)
            return
        if row.kind is BillKind.PAYMENT and not self._is_of_day:
            self._is_of_day = abs(business_date(row.at) - self._day) <= timedelta(days=1)
            self._strange_at = self._strange_at or row.at
        kind = str(row.kind)
        if row.kind is BillKind.REFUND and row.number == row.order_number:
            kind = "reversal"  # it has no number of its own: the order itself was undone
        self.row_count += 1
        self._counts[row.kind] += 1
        self._amounts[row.kind] += row.money.amount
        self._fees += row.fee.amount
        self.rows.append(
            (
                *(self.bill_id, self._line(row.line), kind, row.number, row.order_number),
                row.channel_ref[:_NUMBER_MAX].replace("\0", ""),
                *(row.money.amount, row.money.currency, row.fee.amount, row.at, row.state, outcome),
            )
        )

    def _take_fault(self, line: int, code: str, text: str) -> None:
        self._fault_count += 1
        shown = text[:_TEXT_MAX].replace("\0", "")  # the one character PostgreSQL does not take
        place = self._line(line)
        self.faults.append((self.bill_id, self._fault_count, place, code, shown))

    def figures(self) -> tuple[object, ...]:
        """Return what the bill adds up to, as the bill's row keeps it."""
        told = self._told
        is_said = told is not None and not self.is_of_another_day and not self._others
        return (
            self._currency,
            self.row_count,
            self._fault_count,
            self._counts[BillKind.PAYMENT],
            self._amounts[BillKind.PAYMENT],
            self._counts[BillKind.REFUND],
            self._amounts[BillKind.REFUND],
            self._fees,
            told.row_count if told else None,
            _fen(told.payment_amount) if told else None,
            _fen(told.refund_amount) if told else None,
            _fen(told.fee_amount) if told else None,
            is_said,
            is_said and self._agrees(told),
        )

    def _agrees(self, told: BillTotal | None) -> bool:
        if told is None:
            return False
        pairs = (
            (told.row_count, self.row_count),
            (told.payment_count, self._counts[BillKind.PAYMENT]),
            (_fen(told.payment_amount), self._amounts[BillKind.PAYMENT]),
            (_fen(told.refund_amount), self._amounts[BillKind.REFUND]),
            (_fen(told.fee_amount), self._fees),
        )
        return all(said is None or said == read for said, read in pairs)


def _fen(money: Money | None) -> int | None:
    return None if money is None else money.amount


def _is_number(text: str) -> bool:
    """Whether a number can be one: short enough for an index, and text to PostgreSQL."""
    return len(text) <= _NUMBER_MAX and "\0" not in text
