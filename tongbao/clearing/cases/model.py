"""What a case adds to a difference, and what posting or closing one means. No I/O."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.clearing.reconciliation.model import BreakClass, ReconBreak
from tongbao.controls.approvals.model import Act
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Busy, Conflict, Rejected

DUE_WORKING_DAYS: Final = 3
"""How many working days after the day it was found a difference should be closed. Our own rule."""
PREFIX: Final = "brk"
_TAKEN_BACK: Final = frozenset({"refund", "reversal"})
_POSTABLE: Final = frozenset(
    {
        BreakClass.MISSING_AT_PLATFORM,
        BreakClass.MISSING_AT_CHANNEL,
        BreakClass.AMOUNT_DIFFERS,
        BreakClass.STATE_DIFFERS,
        BreakClass.DUPLICATED_AT_CHANNEL,
    }
)


class Suggestion(StrEnum):
    """What usually closes a difference; the person decides."""

    HOLD = "hold"  # the channel has more than we know: into suspense, then find its owner
    CLAIM = "claim"  # the channel has less: out of our claim on it, then ask for the money
    ASK_STATE = "ask_state"  # ask the channel how the order stands today
    ASK_FEE = "ask_fee"  # the fee stands booked as billed: claim it, or correct the rate
    ASK_BILL = "ask_bill"  # ask for a corrected bill
    WAIT = "wait"  # the same money stands on another day: it belongs there
    LOOK_AT_LEDGER = "look_at_ledger"  # our own books differ: find the posting that is missing


class ReconCase(Struct, frozen=True):
    """One row of recon_case: who works on a difference. One that nobody has taken has no row."""

    break_id: UUID
    owner: str
    taken_at: datetime


class PostTerms(Struct, frozen=True):
    """What is posted for a difference: to the channel's account, against suspense.

    ``amount`` is signed: above nought the channel owes us more than we had booked.
    """

    break_id: UUID
    account_id: UUID
    book: int
    amount: int
    currency: str
    difference: int
    found: str
    number: str

    @property
    def rule(self) -> str:
        """The posting rule's name."""
        return "reconciliation.long" if self.amount > 0 else "reconciliation.short"


class CloseTerms(Struct, frozen=True):
    """What is closed as it is: nothing is posted, and ``difference`` says what that leaves."""

    break_id: UUID
    difference: int
    currency: str
    found: str
    number: str


POST: Final = Act(
    "reconciliation.post",
    "Post a difference with a channel",
    "渠道差错挂账",
    PostTerms,
    maker="breaks_act",
    checker="breaks_act",
)


CLOSE: Final = Act(
    "reconciliation.close",
    "Close a difference without a posting",
    "差错不挂账核销",
    CloseTerms,
    maker="breaks_act",
    checker="breaks_act",
)


class NothingToPost(Rejected):
    """The difference is none of money on a channel's account."""

    code = "reconciliation.nothing_to_post"
    advice = "Close it with a reason, or post an adjustment at the suspense desk."
    advice_zh = "该差异无需挂账，请说明理由后关闭，或在挂账台手工调账。"


class DifferenceMoved(Conflict):
    """The difference is not what it was when this was proposed."""

    code = "reconciliation.difference_moved"
    advice = "Look at the difference again and propose it anew, if it still is one."
    advice_zh = "该差异已变化，请重新核对后再提交。"


class CaseTaken(Conflict):
    """Somebody else works on the difference."""

    code = "reconciliation.case_taken"
    advice = "Ask its owner, or take it over."
    advice_zh = "该差错已由他人处理，请联系其经办人或接手。"


class PostingLate(Busy):
    """The ledger has not answered yet."""

    code = "reconciliation.posting_late"
    advice = "Nothing to do: it is tried again by itself."
    advice_zh = "记账结果未定，系统将自动重试。"
    retry_after_s = 5


def suggest(found: ReconBreak) -> Suggestion:
    """Return what usually closes such a difference."""
    match found.break_class:
        case BreakClass.FEE_DIFFERS:
            return Suggestion.ASK_FEE
        case BreakClass.STATE_DIFFERS:
            return Suggestion.ASK_STATE
        case BreakClass.TOTALS_DIFFER:
            return Suggestion.ASK_BILL
        case BreakClass.CUT_OFF:
            return Suggestion.WAIT
        case BreakClass.LEDGER_DIFFERS:
            return Suggestion.LOOK_AT_LEDGER
        case _:
            return Suggestion.HOLD if owed_more(found) > 0 else Suggestion.CLAIM


def owed_more(found: ReconBreak) -> int:
    """Return by how much the channel owes us more than we had booked; a refund owes less."""
    return -found.difference if found.kind in _TAKEN_BACK else found.difference


def can_be_posted(found: ReconBreak) -> bool:
    """Whether it is money on a channel's account that nobody has dealt with."""
    is_open = found.closed_at is None
    return (
        is_open
        and found.kind != "line"
        and found.break_class in _POSTABLE
        and (found.difference != 0)
    )


def found_on(found: ReconBreak) -> date:
    """Return the business day on which the difference was found."""
    return business_date(found.found_at)
