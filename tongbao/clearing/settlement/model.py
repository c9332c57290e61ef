"""What a settlement is, how its figures come about, and when a day may be closed. No I/O.

    drawn ─► closed ─► paid ─► returned     as its payout ended; closed for good when nothing was
                  └──► unpaid               payable

A settlement closes one merchant's day in one mode and currency, or what there is so far when it is
asked for (D+0). Its lines are the movements of the merchant's account that no settlement has had
before, so every fen is settled once. It is drawn first, which fixes its lines and moves nothing,
and closed when it is released, which moves the money.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from enum import StrEnum
from typing import Final, Literal
from uuid import UUID

from msgspec import UNSET, Struct, UnsetType

from tongbao.clearing.settlement_terms.model import PaysBy
from tongbao.infra.outbox import Event
from tongbao.kernel.errors import Busy, Conflict, NotFound, Rejected
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.ledger.model import AccountKey

PAYABLE: Final = "merchant_payable"
OWN_RULE: Final = "settlement.closed"
"""The rule that takes what is payable off the merchant's account; its movements are no lines."""

COLUMN_OF_CODE: Final[Mapping[str, str]] = {
    "payment.captured/gross": "gross",
    "payment.captured/fee": "fees",
    "payment.captured_by_wallet/gross": "gross",
    "payment.captured_by_wallet/fee": "fees",
    "payment.captured_by_e_account/gross": "gross",
    "payment.captured_by_e_account/fee": "fees",
    "refund.held/fee_back": "fees_returned",
    "refund.succeeded/gross": "refunds",
    "refund.failed/fee_kept": "fees_returned",
    "refund.by_wallet/fee_back": "fees_returned",
    "refund.by_wallet/gross": "refunds",
    "refund.by_e_account/fee_back": "fees_returned",
    "refund.by_e_account/gross": "refunds",
    "refund.by_e_account_waiting/fee_back": "fees_returned",
    "refund.by_e_account_waiting/gross": "refunds",
    "subsidy.paid/amount": "gross",
}
"""The column of a settlement that a posting rule's leg counts in; every other counts in `other`."""


class SettlementState(StrEnum):
    """Whether the merchant has the money."""

    DRAWN = "drawn"
    CLOSED = "closed"
    PAID = "paid"
    UNPAID = "unpaid"  # the bank refused; the money is owed again, and in a later settlement
    RETURNED = "returned"  # the bank had paid and sent it back; owed again, as above


class SettlementKind(StrEnum):
    """Why it was made."""

    DAY = "day"
    QUICK = "quick"  # the merchant asked (D+0)


class Settlement(Struct, frozen=True):
    """One row of the settlement table.

    ``due`` is what is owed. Of it ``reserved`` is kept until ``reserve_until``, ``quick_fee`` is
    the price of D+0 and ``payable`` is paid out; ``carried`` is the rest, which opens the next
    settlement.
    """

    book: int
    id: UUID
    merchant_id: UUID
    mode: Mode
    currency: str
    kind: SettlementKind
    day: date
    number: int
    previous_id: UUID | None
    batch_id: UUID | None
    opening: int
    gross: int
    fees: int
    refunds: int
    fees_returned: int
    other: int
    due: int
    reserved: int
    quick_fee: int
    payable: int
    carried: int
    line_count: int
    through_seq: int  # every movement up to here is in this settlement or an earlier one
    newest_seq: int  # and none above this one
    reserve_until: date | None
    pays_by: PaysBy
    state: SettlementState
    payout_id: UUID | None
    drawn_at: datetime
    closed_at: datetime | None

    @property
    def key(self) -> AccountKey:
        """The account it settles."""
        return AccountKey(PAYABLE, self.currency, self.merchant_id)


class SettlementLine(Struct, frozen=True):
    """One row of settlement_line: a movement of the merchant's account, as the ledger has it."""

    book: int
    seq: int
    merchant_id: UUID
    mode: Mode
    settlement_id: UUID
    code: str
    reference: UUID
    amount: int
    biz_date: date


class Figures(Struct, frozen=True):
    """What a settlement's lines add up to, by column."""

    gross: int = 0
    fees: int = 0
    refunds: int = 0
    fees_returned: int = 0
    other: int = 0

    @property
    def net(self) -> int:
        """What the lines change in what is owed."""
        return self.gross - self.fees - self.refunds + self.fees_returned + self.other


def figures_of(sums: Mapping[str, int]) -> Figures:
    """Return the figures for sums of signed movements by code."""
    columns = dict.fromkeys(Figures.__struct_fields__, 0)
    for code, amount in sums.items():
        column = COLUMN_OF_CODE.get(code, "other")
        columns[column] += -amount if column in {"fees", "refunds"} else amount
    return Figures(**columns)


class ReservePart(Struct, frozen=True):
    """One row of reserve_part: what a settlement kept back, until its day has come."""

    book: int
    settlement_id: UUID
    merchant_id: UUID
    mode: Mode
    currency: str
    amount: int
    release_on: date
    released_at: datetime | None


class BatchSum(Struct, frozen=True):
    """What a batch comes to in one currency."""

    currency: str
    count: int
    due: int
    payable: int
    reserved: int
    closed: int


class SettlementView(Struct, frozen=True, omit_defaults=True):
    """A settlement as the API and the webhooks show it."""

    id: str
    object: Literal["settlement"]
    mode: Mode
    day: date
    currency: str
    kind: SettlementKind
    opening: int
    gross: int
    fees: int
    refunds: int
    fees_returned: int
    other: int
    due: int
    reserved: int
    quick_fee: int
    payable: int
    carried: int
    line_count: int
    status: SettlementState
    closed_at: datetime | UnsetType = UNSET
    reserve_until: date | UnsetType = UNSET
    payout_id: str | UnsetType = UNSET


class SettlementLineView(Struct, frozen=True):
    """One movement of a settlement: what it was, whose, and what it changed."""

    seq: int
    code: str
    column: str
    reference: str
    amount: int
    day: date


class SettlementClosed(Event, frozen=True, kw_only=True, tag="settlement.closed"):
    """A merchant's day is settled."""

    object: SettlementView


def view_settlement(settlement: Settlement) -> SettlementView:
    """Return the settlement as the API and the webhooks show it."""
    paid_by = settlement.payout_id
    return SettlementView(
        id=show("set", settlement.id),
        object="settlement",
        mode=settlement.mode,
        day=settlement.day,
        currency=settlement.currency,
        kind=settlement.kind,
        opening=settlement.opening,
        gross=settlement.gross,
        fees=settlement.fees,
        refunds=settlement.refunds,
        fees_returned=settlement.fees_returned,
        other=settlement.other,
        due=settlement.due,
        reserved=settlement.reserved,
        quick_fee=settlement.quick_fee,
        payable=settlement.payable,
        carried=settlement.carried,
        line_count=settlement.line_count,
        status=settlement.state,
        closed_at=settlement.closed_at or UNSET,
        reserve_until=settlement.reserve_until or UNSET,
        payout_id=show("pyo", paid_by) if paid_by else UNSET,
    )


_PREFIX_OF_RULE: Final = {
    "payment": "pay",
    "refund": "ref",
    "payout": "pyo",
    "settlement": "set",
    "transfer": "tri",
}


def view_line(line: SettlementLine) -> SettlementLineView:
    """Return a line as the API shows it."""
    prefix = _PREFIX_OF_RULE.get(line.code.partition(".")[0], "tra")
    return SettlementLineView(
        seq=line.seq,
        code=line.code,
        column=COLUMN_OF_CODE.get(line.code, "other"),
        reference=show(prefix, line.reference),
        amount=line.amount,
        day=line.biz_date,
    )


class SettlementNotFound(NotFound):
    """The caller has no such settlement."""

    code = "settlement.not_found"
    advice = "Check the id, and that the API key is of the same merchant and mode."
    advice_zh = "请检查结算单标识，并确认 API 密钥属于同一商户与模式。"


class SettlementNotDue(Conflict):
    """The merchant's day may not be closed yet."""

    code = "settlement.not_due"
    advice = "Close the day from the date on which it is due."
    advice_zh = "该业务日尚未到结算日期，请于到期后再结算。"


class DayPassed(Conflict):
    """A later day of the merchant is closed, and what this one had is in it."""

    code = "settlement.day_passed"
    advice = "Days are closed in order; look at the later settlement's lines."
    advice_zh = "结算须按日顺序进行，该日内容已计入后续结算单。"


class SettlementInBatch(Conflict):
    """A settlement of the merchant is drawn in a batch and waits to be released."""

    code = "settlement.in_batch"
    advice = "Release the batch, or take the merchant out of it; then settle again."
    advice_zh = "该商户已有结算单在批次中待放行，请放行或将其移出批次后重试。"


class QuickNotAgreed(Rejected):
    """Nothing was agreed with the merchant about settling before the day is over."""

    code = "settlement.quick_not_agreed"
    advice = "Ask us to open D+0 settlement for you."
    advice_zh = "尚未开通 D+0 结算，请联系我们开通。"


class NothingPayable(Rejected):
    """Nothing is available, or less than the least that is paid out."""

    code = "settlement.nothing_payable"
    advice = "Look at the balance and at the terms; what is there is settled with the day."
    advice_zh = "可结算金额不足或低于起付金额，款项将随日终结算。"


class AccountHeldBack(Conflict):
    """The merchant's account is frozen, so nothing may be settled from it."""

    code = "settlement.account_frozen"
    advice = "Settle again once the account is thawed; nothing of the day is lost."
    advice_zh = "商户账户已冻结，解冻后可重新结算，当日款项不会遗漏。"


class SettlementContended(Busy):
    """Others kept changing the merchant's account while its day was being closed."""

    code = "settlement.contended"
    advice = "Close the day again; it is closed once, however often it is asked for."
    advice_zh = "请重试，同一业务日只会结算一次。"
