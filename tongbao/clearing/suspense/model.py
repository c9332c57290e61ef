"""What lies in suspense, where it may go, and adjustments by hand: the decisions. No I/O."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.controls.approvals.model import Act
from tongbao.kernel.errors import Busy, Conflict, Invalid, NotFound, Rejected
from tongbao.kernel.ids import show
from tongbao.kernel.money import EXPONENTS, Money
from tongbao.ledger.model import AccountKey
from tongbao.ledger.rules.chart import CHART, OwnerKind

ITEM_PREFIX: Final = "sus"
ADJUSTMENT_PREFIX: Final = "adj"
SUSPENSE: Final = "suspense"
AMOUNT_MAX: Final = 10**15


class SuspenseItemNotFound(NotFound):
    """Nothing of this lies in suspense in the book."""

    code = "suspense.item_not_found"
    advice = "Look it up in the list of the book and currency."
    advice_zh = "请在该账簿与币种的挂账清单中查找。"


class SuspenseAmountWrong(Rejected):
    """More would be moved than lies there, or nothing."""

    code = "suspense.amount_wrong"
    advice = "Give an amount above zero and no more than what is open."
    advice_zh = "金额应大于零且不超过该笔挂账余额。"


class SuspenseMoved(Conflict):
    """The item is not any more what it was when this was proposed."""

    code = "suspense.moved"
    advice = "Look at the item again and propose anew what is left to do."
    advice_zh = "该笔挂账已发生变动，请重新核对后再提交。"


class SuspenseSpokenFor(Conflict):
    """The money is on its way back to the customer by itself, or has been given back."""

    code = "suspense.spoken_for"
    advice = "Wait for the refund's end, or have it stopped first."
    advice_zh = "该款项正在或已经退回顾客，请等待退款结果，或先停止退款。"


class SuspenseHomeWrong(Invalid):
    """The money cannot go there: no such merchant or channel account, or one of another mode."""

    code = "suspense.home_wrong"
    advice = "Name a merchant or channel account of the same mode, or choose fee or write-off."
    advice_zh = "请填写同一环境下的商户或渠道账户，或选择手续费、核销。"


class AdjustmentWrong(Invalid):
    """The two accounts or the amount are not ones that people may adjust."""

    code = "adjustment.wrong"
    advice = "Name two different accounts of kinds that may be adjusted, and an amount above zero."
    advice_zh = "请填写两个允许调整且互不相同的账户，以及大于零的金额。"


class PostingRefused(Rejected):
    """The ledger refuses the posting; `ledger` says why."""

    code = "adjustment.refused_by_ledger"
    advice = "Read the ledger's code; it usually is a balance that does not suffice."
    advice_zh = "账本拒绝该笔记账，请查看返回的账本代码，多为余额不足。"


class PostingBusy(Busy):
    """The ledger did not decide; the same approval is tried again."""

    code = "adjustment.ledger_busy"
    advice = "Nothing to do: it is tried again."
    advice_zh = "无需处理，系统会自动重试。"


class Home(StrEnum):
    """Where money in suspense goes, or where what is missing there comes from."""

    MERCHANT = "merchant"
    CHANNEL = "channel"
    FEE = "fee"
    WRITTEN_OFF = "written_off"

    @property
    def kind(self) -> str:
        """Return the kind of account."""
        return _KINDS[self]

    @property
    def has_owner(self) -> bool:
        """Whether somebody's own account is meant."""
        return CHART[self.kind].owner is not OwnerKind.HOUSE


_KINDS: Final = {
    Home.MERCHANT: "merchant_payable",
    Home.CHANNEL: "channel_receivable",
    Home.FEE: "fee_income",
    Home.WRITTEN_OFF: "written_off",
}

ADJUSTABLE: Final = frozenset(
    {
        *("bank", "bad_debt", "channel_cost", "channel_receivable", "fee_income"),
        *("merchant_payable", "suspense", "written_off"),
    }
)
"""Kinds that people may post to by hand. What has rules of its own, such as money in transit, held
for disputes, or in customers' wallets, is corrected by those."""


class SuspenseAccount(Struct, frozen=True):
    """One row of suspense_account: up to which transfer its items are summed up."""

    book: int
    currency: str
    through_seq: int


class SummedAccount(Struct, frozen=True):
    """A suspense account with what its items add up to, up to a transfer."""

    book: int
    currency: str
    through_seq: int
    items: int


class SuspenseItem(Struct, frozen=True):
    """One row of suspense_item. Below zero, more left suspense than had come in."""

    book: int
    currency: str
    owner: UUID
    amount: int
    code: str
    first_at: datetime
    last_at: datetime
    last_seq: int

    @property
    def shown_id(self) -> str:
        """Return its public id, which holds that of what it came from."""
        return show(ITEM_PREFIX, self.owner)

    @property
    def money(self) -> Money:
        """Return the open amount with its currency."""
        return Money(self.amount, self.currency)

    @property
    def is_late_payment(self) -> bool:
        """Whether it is money that a customer paid after a payment's end."""
        return self.code.startswith("late.")


class Waiting(Struct, frozen=True):
    """How many items of a book are open, and since when the oldest."""

    items: int
    oldest_at: datetime | None


class SuspenseTerms(Struct, frozen=True):
    """Move ``amount`` of an item whose open amount is ``open``, which may be below zero."""

    book: int
    currency: str
    owner: UUID
    code: str
    open: int
    amount: int
    home: Home
    home_owner: UUID | None = None

    @property
    def rule(self) -> str:
        """Return the posting rule: money that lies there gets a home, what is missing comes."""
        return "suspense.resolved" if self.open > 0 else "suspense.covered"

    @property
    def home_key(self) -> AccountKey:
        """Return the account at the other end."""
        return AccountKey(self.home.kind, self.currency, self.home_owner)

    def check(self) -> None:
        """Raise unless it is whole and within what is open.

        Raises:
            SuspenseAmountWrong, SuspenseHomeWrong
        """
        if not 0 < self.amount <= abs(self.open):
            raise SuspenseAmountWrong(open=self.open)
        if self.home.has_owner != (self.home_owner is not None):
            raise SuspenseHomeWrong(param="home_owner")


class Side(Struct, frozen=True):
    """One end of an adjustment."""

    kind: str
    owner: UUID | None = None


class AdjustmentTerms(Struct, frozen=True):
    """Debit one account of a book and credit another."""

    id: UUID
    book: int
    currency: str
    amount: int
    debit: Side
    credit: Side

    @property
    def accounts(self) -> tuple[AccountKey, AccountKey]:
        """Return the debited and the credited account."""
        return (
            AccountKey(self.debit.kind, self.currency, self.debit.owner),
            AccountKey(self.credit.kind, self.currency, self.credit.owner),
        )

    def check(self) -> None:
        """Raise unless people may post this by hand.

        Raises:
            AdjustmentWrong
        """
        if not 0 < self.amount <= AMOUNT_MAX or self.currency not in EXPONENTS:
            raise AdjustmentWrong(param="amount")
        if self.debit == self.credit:
            raise AdjustmentWrong(param="credit")
        for name, side in (("debit", self.debit), ("credit", self.credit)):
            kind = CHART.get(side.kind)
            if side.kind not in ADJUSTABLE or kind is None:
                raise AdjustmentWrong(param=name)
            if (kind.owner is OwnerKind.HOUSE) != (side.owner is None):
                raise AdjustmentWrong(param=name)


class StopTerms(Struct, frozen=True):
    """Give late money back no more by itself: people have found the customer another way."""

    book: int
    payment_id: UUID
    refund_id: UUID
    currency: str
    amount: int


STOP_REFUND: Final = Act(
    "suspense.stop_refund",
    "Stop giving late money back",
    "停止退回迟到款项",
    StopTerms,
    maker="adjustments_act",
    checker="adjustments_act",
)
RESOLVE: Final = Act(
    "suspense.resolve",
    "Give money in suspense a home",
    "处理挂账款项",
    SuspenseTerms,
    maker="adjustments_act",
    checker="adjustments_act",
    amounts=lambda terms: [Money(abs(terms.amount), terms.currency)],
)
ADJUST: Final = Act(
    "ledger.adjust",
    "Post an adjustment by hand",
    "手工调账",
    AdjustmentTerms,
    maker="adjustments_act",
    checker="adjustments_act",
    amounts=lambda terms: [Money(terms.amount, terms.currency)],
)
