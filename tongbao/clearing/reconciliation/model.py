"""What bills, runs and breaks are, and every way a bill can differ from what we hold. No I/O.

bill   requested ─► downloaded ─► parsed ─► matched | empty
                        ▲                └► incomplete: cut off, so it proves no absence
                        └─ another digest is another version; the earlier one stays

break  open ─► closed      found again as it was: stays closed; different: open again
         └───► gone        a later run no longer sees it
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.outbox import Event
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Busy, Conflict, NotFound
from tongbao.kernel.licence import Mode

NEAR_MIDNIGHT: Final = timedelta(minutes=15)
"""How far from midnight a trade may stand on the other day's bill: clocks differ."""


class BillState(StrEnum):
    """How far the bill of a day is; the last two are ends."""

    REQUESTED = "requested"  # asked for, and not there yet
    DOWNLOADED = "downloaded"
    PARSED = "parsed"
    INCOMPLETE = "incomplete"  # compared as far as it goes; it is fetched again
    MATCHED = "matched"
    EMPTY = "empty"  # the channel had no trades; compared all the same

    @property
    def is_final(self) -> bool:
        """Whether the day has been compared with the whole bill."""
        return self in {BillState.MATCHED, BillState.EMPTY}


class BreakClass(StrEnum):
    """How a bill and what we hold can differ."""

    MISSING_AT_PLATFORM = "missing_at_platform"  # 长款: the bill has a trade that is none of ours
    MISSING_AT_CHANNEL = "missing_at_channel"  # 短款: we hold money that no bill shows
    AMOUNT_DIFFERS = "amount_differs"
    FEE_DIFFERS = "fee_differs"
    STATE_DIFFERS = "state_differs"  # one side says that the money moved, the other that it did not
    DUPLICATED_AT_CHANNEL = "duplicated_at_channel"
    LEDGER_DIFFERS = "ledger_differs"  # what we hold is not what the ledger shows
    CUT_OFF = "cut_off"  # the same money, at times further apart than a rule allows
    TOTALS_DIFFER = "totals_differ"  # the bill's own trailer contradicts its rows


class BreakState(StrEnum):
    """What people have done about a difference."""

    OPEN = "open"
    CLOSED = "closed"
    GONE = "gone"  # a later run found the two sides agreeing


class BillFile(Struct, frozen=True):
    """One row of bill_file: a version of an account's bill of a day, and what comparing it gave.

    ``told_…`` is what the bill's own trailer says, where it says anything. Of a lean bill the
    rows that agreed are counted and not kept; ``parsed_at`` is then when they last agreed.
    """

    id: UUID
    account_id: UUID
    channel: str
    mode: Mode
    day: date
    version: int
    state: BillState
    currency: str
    requested_at: datetime
    last_answer: str = ""
    sha256: str | None = None
    size: int = 0
    row_count: int = 0
    fault_count: int = 0
    payment_count: int = 0
    payment_amount: int = 0
    refund_count: int = 0
    refund_amount: int = 0
    fee_amount: int = 0
    told_row_count: int | None = None
    told_payment_amount: int | None = None
    told_refund_amount: int | None = None
    told_fee_amount: int | None = None
    is_complete: bool = False
    totals_agree: bool = False
    run_id: UUID | None = None
    matched_count: int = 0
    matched_payment_amount: int = 0
    matched_refund_amount: int = 0
    break_count: int = 0
    waiting_count: int = 0
    downloaded_at: datetime | None = None
    parsed_at: datetime | None = None
    matched_at: datetime | None = None
    superseded_at: datetime | None = None
    is_lean: bool = False


class BillFault(Struct, frozen=True):
    """One row of bill_fault: a line of a bill that could not be read."""

    bill_id: UUID
    place: int
    line: int
    code: str
    text: str


class ReconBreak(Struct, frozen=True):
    """One row of recon_break: a difference, and what people made of it.

    ``difference`` is the money in question: what the bill says less what we hold.
    """

    id: UUID
    account_id: UUID
    channel: str
    mode: Mode
    day: date
    kind: str
    number: str
    break_class: BreakClass
    currency: str
    bill_amount: int | None
    platform_amount: int | None
    ledger_amount: int | None
    bill_fee: int | None
    expected_fee: int | None
    difference: int
    payment_id: UUID | None
    refund_id: UUID | None
    line: int | None
    bill_id: UUID
    run_id: UUID
    state: BreakState
    found_at: datetime
    seen_at: datetime
    reopened: int
    proposal: str | None
    proposed_by: str | None
    proposed_at: datetime | None
    closed_by: str | None
    closed_at: datetime | None


class ReconWaiting(Struct, frozen=True):
    """One row of recon_waiting: money no bill shows so far, and a neighbouring day's may."""

    account_id: UUID
    day: date
    kind: str
    number: str
    from_day: date
    to_day: date
    amount: int
    currency: str
    payment_id: UUID
    refund_id: UUID | None
    since: datetime


class Item(Struct, frozen=True):
    """One row of recon_item: what we hold under a number, as a run compares it.

    ``state`` says whether the money moved, as far as we know; ``to_book`` is what the ledger
    should show on the channel's account for it, and ``booked`` what it shows.
    """

    book: int
    run_id: UUID
    kind: str
    number: str
    payment_id: UUID
    refund_id: UUID | None
    amount: int
    currency: str
    expected_fee: int
    state: str
    to_book: int
    booked: int | None
    from_day: date
    to_day: date


class RowBeside(Struct, frozen=True):
    """The number of a row that lies near midnight or outside its bill's day."""

    kind: str
    number: str


class RowAlone(Struct, frozen=True):
    """A row of a bill that nothing staged so far answers to."""

    line: int
    kind: str
    number: str
    order_number: str
    channel_ref: str
    amount: int
    currency: str
    at: datetime
    outcome: str


class Shown(Struct, frozen=True):
    """A number that some current bill of the account shows."""

    kind: str
    number: str


class Compared(Struct, frozen=True):
    """What one run found: rows and money that are not matched, and how many differences."""

    broken_rows: int
    broken_payment_amount: int
    broken_refund_amount: int
    breaks: int
    waiting: int


class BookAmount(Struct, frozen=True):
    """An amount in one book, and of how many entries it is made."""

    book: int
    entries: int
    amount: int


class ClassSum(Struct, frozen=True):
    """How many differences of a class and state a day has, and the money in question."""

    break_class: BreakClass
    state: BreakState
    count: int
    amount: int


class OpenCount(Struct, frozen=True):
    """How many differences of an account's day wait for somebody."""

    account_id: UUID
    day: date
    count: int


class ShownRow(Struct, frozen=True):
    """A row of a bill, as a case shows it."""

    line: int
    order_number: str
    channel_ref: str
    amount: int
    currency: str
    fee: int
    at: datetime
    word: str
    outcome: str


class DayReconciled(Event, frozen=True, kw_only=True, tag="reconciliation.day_matched"):
    """An account's day was compared with the whole bill; ours, and told to no merchant."""

    account_id: UUID
    channel: str
    day: date
    matched: int
    breaks: int
    waiting: int


def days_it_may_stand_on(first: datetime, last: datetime) -> tuple[date, date]:
    """Return the first and last day whose bill may show what happened between two moments."""
    return business_date(first - NEAR_MIDNIGHT), business_date(last + NEAR_MIDNIGHT)


class BillUnknown(NotFound):
    """No bill of this account and day was ever asked for."""

    code = "reconciliation.bill_unknown"
    advice = "Reconcile the day first."
    advice_zh = "该账户当日尚未对账，请先执行对账。"


class DayNotBilled(Conflict):
    """A day is billed when it is over."""

    code = "reconciliation.day_not_over"
    advice = "Reconcile a day that has ended; its bill is ready from about 09:00 of the next."
    advice_zh = "只能对已结束的业务日对账，账单通常于次日 9 点后生成。"


class ChannelUnbilled(Conflict):
    """The channel sends no bill, so there is nothing to compare a day with."""

    code = "reconciliation.unbilled"
    advice = "Compare the account's totals instead, if its channel does that."
    advice_zh = "该渠道不提供对账单，如渠道支持，请改用轧账核对总额。"


class BillFileLost(Busy):
    """The bill's file is not there any more, and the channel does not send it now."""

    code = "reconciliation.file_lost"
    advice = "Reconcile the day again later; the bill is fetched anew."
    advice_zh = "账单文件已丢失且暂时无法重新下载，请稍后重试。"
    retry_after_s = 600


class RunOvertaken(Busy):
    """Another run of the same bill began meanwhile, and its result counts."""

    code = "reconciliation.overtaken"
    advice = "Nothing to do: the newer run reports the day."
    advice_zh = "同一账单已有更新的对账任务，无需处理。"
    retry_after_s = 5


class BreakNotFound(NotFound):
    """There is no such difference."""

    code = "reconciliation.break_not_found"
    advice = "List the differences of the day to find its id."
    advice_zh = "请在当日差异列表中查找正确的标识。"


class BreakNotOpen(Conflict):
    """The difference is not in the state this needs."""

    code = "reconciliation.break_not_open"
    advice = "Look at it again; somebody else has dealt with it."
    advice_zh = "该差异已被处理，请刷新后再试。"
