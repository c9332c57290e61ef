"""What a day's comparison gave: reports, differences, what waits, what could not be read."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Sequence
from datetime import date
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.clearing.reconciliation import _store as store
from tongbao.clearing.reconciliation.model import (
    BillFault,
    BillFile,
    BillState,
    BillUnknown,
    BreakClass,
    BreakNotFound,
    BreakState,
    ClassSum,
    ReconBreak,
    ReconWaiting,
    ShownRow,
)
from tongbao.infra.db import Db, Tx
from tongbao.kernel.ids import show
from tongbao.kernel.money import Money
from tongbao.kernel.pages import Page, decode_moment, page_by_moment, page_size

CSV_HEADER: Final = (
    "id", "day", "channel", "kind", "number", "class", "state", "currency", "bill_amount",
    "platform_amount", "ledger_amount", "bill_fee", "expected_fee", "difference", "payment",
    "refund", "line", "reopened", "proposal", "proposed_by", "closed_by",
)  # fmt: skip
_FAULTS_SHOWN: Final = 50
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


class BreakFilter(Struct, frozen=True):
    """Which differences a list shows; every None means any."""

    account_id: UUID | None = None
    day: date | None = None
    break_class: BreakClass | None = None
    states: tuple[BreakState, ...] | None = None


class DayReport(Struct, frozen=True):
    """An account's day: its bill, the differences by class, what waits, what was unreadable.

    ``faults`` are the first; the bill says how many there are.
    """

    bill: BillFile
    classes: list[ClassSum]
    waiting: list[ReconWaiting]
    faults: list[BillFault]


async def report(on: Db | Tx, account_id: UUID, day: date) -> DayReport:
    """Return how an account's day compares.

    Raises:
        BillUnknown
    """
    bill = await store.CURRENT_BILL.first(on, account_id, day)
    if bill is None:
        raise BillUnknown(day=day.isoformat())
    waiting = await store.WAITING_OF_ACCOUNT.all(on, account_id)
    return DayReport(
        bill=bill,
        classes=await store.CLASS_SUMS.all(on, account_id, day),
        waiting=[each for each in waiting if each.day == day],
        faults=await store.FAULTS_OF_BILL.all(on, bill.id, 0, _FAULTS_SHOWN),
    )


async def bill_state(on: Db | Tx, account_id: UUID, day: date) -> BillState | None:
    """Return how far the bill of an account's day is; None: nobody has asked for it."""
    bill = await store.CURRENT_BILL.first(on, account_id, day)
    return None if bill is None else bill.state


async def bills_of_day(on: Db | Tx, day: date) -> list[BillFile]:
    """Return the current bill of every account that has one for the day."""
    return await store.BILLS_OF_DAY.all(on, day)


async def latest_bills(on: Db | Tx, *, before: date | None = None, limit: int) -> list[BillFile]:
    """Return current bills, newest day first, up to a day."""
    return await store.LATEST_BILLS.all(on, before, limit)


async def latest_of_account(on: Db | Tx, account_id: UUID, *, limit: int) -> list[BillFile]:
    """Return the current bills of an account, or of what stands for one, newest day first."""
    return await store.LATEST_OF_ACCOUNT.all(on, account_id, limit)


async def days_between(
    on: Db | Tx, first: date, last: date
) -> tuple[list[BillFile], dict[tuple[UUID, date], int]]:
    """Return the current bills of days, and how many differences of each are open."""
    counts = await store.OPEN_COUNTS.all(on, first, last)
    found = await store.BILLS_BETWEEN.all(on, first, last)
    return found, {(each.account_id, each.day): each.count for each in counts}


async def rows_behind(on: Db | Tx, found: ReconBreak) -> list[ShownRow]:
    """Return the rows of its bill that a difference is about."""
    return await store.ROWS_SHOWN.all(on, found.bill_id, found.kind, found.number)


async def versions(on: Db | Tx, account_id: UUID, day: date) -> list[BillFile]:
    """Return every version of a day's bill, oldest first."""
    return await store.VERSIONS.all(on, account_id, day)


async def faults(on: Db | Tx, bill_id: UUID, *, after: int = 0, limit: int) -> list[BillFault]:
    """Return lines of a bill that could not be read, in order, beginning after a place."""
    return await store.FAULTS_OF_BILL.all(on, bill_id, after, limit)


async def last_day(on: Db | Tx, account_id: UUID) -> date | None:
    """Return the newest day whose bill was asked for."""
    return await store.LAST_DAY.first(on, account_id)


async def break_with_id(on: Db | Tx, break_id: UUID) -> ReconBreak:
    """Return a difference.

    Raises:
        BreakNotFound
    """
    found = await store.GET_BREAK.first(on, break_id)
    if found is None:
        raise BreakNotFound
    return found


async def breaks_of_payment(on: Db | Tx, payment_id: UUID) -> list[ReconBreak]:
    """Return every difference about a payment and its refunds, for its timeline."""
    return await store.BREAKS_OF_PAYMENT.all(on, payment_id)


async def list_breaks(
    on: Db | Tx, wanted: BreakFilter, *, cursor: str | None = None, limit: int | None = None
) -> Page[ReconBreak]:
    """Return a page of differences, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    at, last_id = decode_moment(cursor)
    rows = await store.LIST_BREAKS.all(
        on,
        wanted.account_id,
        wanted.day,
        wanted.break_class,
        None if wanted.states is None else [str(state) for state in wanted.states],
        at,
        last_id,
        size + 1,
    )
    return page_by_moment(rows, size, lambda row: (row.found_at, row.id))


async def breaks_csv(tx: Tx, account_id: UUID, day: date) -> AsyncIterator[str]:
    """Yield an account's differences of a day as lines of CSV, amounts in major units."""
    yield _csv_line(CSV_HEADER)
    async for found in store.ALL_BREAKS.stream(tx, account_id, day):
        yield break_line(found)


def csv_header() -> str:
    """Return the first line of a file of differences."""
    return _csv_line(CSV_HEADER)


def break_line(found: ReconBreak) -> str:
    """Return a difference as a line of CSV, no cell of which a spreadsheet computes."""
    return _csv_line(
        (
            show("brk", found.id),
            found.day.isoformat(),
            found.channel,
            found.kind,
            found.number,
            found.break_class,
            found.state,
            found.currency,
            *(
                "" if amount is None else Money(amount, found.currency).decimal_text()
                for amount in (
                    found.bill_amount,
                    found.platform_amount,
                    found.ledger_amount,
                    found.bill_fee,
                    found.expected_fee,
                    found.difference,
                )
            ),
            show("pay", found.payment_id) if found.payment_id else "",
            show("ref", found.refund_id) if found.refund_id else "",
            "" if found.line is None else str(found.line),
            str(found.reopened),
            found.proposal or "",
            found.proposed_by or "",
            found.closed_by or "",
        )
    )


def _csv_line(cells: Sequence[str]) -> str:
    """Return one line; text from outside must not become a spreadsheet's formula."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow([_harmless(cell) for cell in cells])
    return out.getvalue()


def _harmless(cell: str) -> str:
    is_number = cell.lstrip("-").replace(".", "", 1).isdecimal()
    return f"'{cell}" if cell.startswith(_FORMULA) and not is_number else cell
