"""Electronic accounts of people, their classes and states, and what is ordered of them. No I/O.

    account  opened ──activate──► active ──half a year without a movement──► dormant ──activate──► …
             any of them, at nought and with nothing waiting ──► closed
    freeze   stands beside the state: nothing comes in, nothing goes out, or neither
    order    now: done in the commit of its money    later: waiting ──► done | failed | cancelled

The balance is the ledger's; the limits of the law are counted by `controls.limits`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal
from uuid import UUID

from msgspec import Struct

from tongbao.controls.limits.model import Count, Metered
from tongbao.kernel.errors import Conflict, Invalid, NotFound, Rejected
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Licence, Mode
from tongbao.ledger.model import AccountKey

PREFIX: Final = "eac"
ORDER_PREFIX: Final = "eor"
FREEZE_PREFIX: Final = "eaf"
BATCH_PREFIX: Final = "eab"
CURRENCY: Final = "CNY"
SCHEDULED_MAX: Final = timedelta(days=366)

OUT_ALL: Final = "out_all"
OUT_OTHERS: Final = "out_others"
IN_OTHERS: Final = "in_others"
BALANCE: Final = "balance"
WEAK_ONE: Final = "weak_one"
WEAK_TWO: Final = "weak_two"
CODE_ONE: Final = "code_one"
CODE_TWO: Final = "code_two"
CODE_STATIC: Final = "code_static"
METERS: Final = (
    *(OUT_ALL, OUT_OTHERS, IN_OTHERS, BALANCE, WEAK_ONE, WEAK_TWO, CODE_ONE, CODE_TWO, CODE_STATIC),
)
"""All that goes out, what goes out to and comes in from others, what is there, and what went out
with fewer than two factors, or without a certificate; these two again, of codes that were paid; and
what was paid at codes that do not change (银发〔2017〕296号). Every one counts always, so that a
rule of tomorrow finds what was moved today."""

_WEAK: Final = frozenset({WEAK_ONE, WEAK_TWO})
_CODES: Final = frozenset({CODE_ONE, CODE_TWO, CODE_STATIC})
TOGETHER: Final = {
    "payment_account": frozenset({OUT_OTHERS}) | _WEAK | _CODES,
    "bank_account": frozenset({WEAK_TWO, CODE_STATIC}),
}
"""What is added up over all accounts of a person, whatever their class: 所有支付账户 (43号
第十一条, 第二十四条; 296号), and of a bank's, in the stricter reading, what one customer sends
unsigned (261号) and pays at codes that do not change (296号)."""


class EAccountNotFound(NotFound):
    """This person has no such electronic account."""

    code = "e_account.not_found"
    advice = "List the accounts to find its id."
    advice_zh = "电子账户不存在，请查询账户列表。"


class EAccountStateWrong(Conflict):
    """The account is not in a state that allows this."""

    code = "e_account.state_wrong"
    advice = "Read the account; activate it if it is opened or dormant. A closed one stays closed."
    advice_zh = "账户状态不允许此操作：待激活或休眠账户请先激活，已销户账户不可恢复。"


class EAccountFrozen(Conflict):
    """The account is frozen in the direction that the money would go."""

    code = "e_account.frozen"
    advice = "The account is frozen. Ask the operator."
    advice_zh = "账户已冻结，请联系运营机构。"


class EAccountBarred(Conflict):
    """The person may not use the account without the counter, until a day (银发〔2019〕85号)."""

    code = "e_account.barred"
    advice = "This cannot be done here. Go to the counter, or ask the operator."
    advice_zh = "该业务暂无法线上办理，请前往柜面或联系运营机构。"


class EAccountOpeningBarred(Conflict):
    """No account or wallet is opened for the person, until a day (银发〔2019〕85号)."""

    code = "e_account.opening_barred"
    advice = "No account can be opened here. Ask the operator."
    advice_zh = "暂无法为您开立账户，请联系运营机构。"


class EAccountBalanceShort(Rejected):
    """There is not so much in the account."""

    code = "e_account.balance_short"
    advice = "Move less, or top the account up first."
    advice_zh = "账户余额不足，请减少金额或先充值。"


class EAccountMoved(Conflict):
    """The account changed at this very moment."""

    code = "e_account.moved"
    advice = "Read the account and try again."
    advice_zh = "账户状态刚刚发生变化，请查询后重试。"


class EAccountNotEmpty(Conflict):
    """An account is closed at nought, with no order waiting and no freeze standing."""

    code = "e_account.not_empty"
    advice = "Take the money out and cancel what waits; a frozen account cannot be closed."
    advice_zh = "销户前请转出全部余额并撤销待执行的指令；冻结中的账户不可销户。"


class EAccountClassUnknown(Rejected):
    """The licence of this firm has no such class of accounts."""

    code = "e_account.class_unknown"
    advice = "Choose class 1, 2 or 3."
    advice_zh = "账户类别应为 1、2 或 3。"


class RealNameTooLow(Rejected):
    """The class asks for a real name that more registers agree with, or for a visit."""

    code = "e_account.real_name_too_low"
    advice = "Have more registers asked, or visit an office; `needs` says what is wanted."
    advice_zh = "实名认证级别不足（见 needs），请完成更多渠道核验或临柜面核。"


class AccountsTooMany(Rejected):
    """A rule against opening in batches, or on the number of accounts, does not allow one more."""

    code = "e_account.too_many"
    advice = "Use an account that is there, or try on another day; `rule` names the rule."
    advice_zh = "已达开户数量或频次上限（见 rule），请使用已有账户或择日再试。"


class ReverificationNeeded(Rejected):
    """A dormant account wakes once a register has agreed again, after it fell asleep."""

    code = "e_account.reverification_needed"
    advice = "Have a register asked again, then activate the account."
    advice_zh = "休眠账户须重新核实身份后方可激活，请先完成实名核验。"


class PayeeUnavailable(Rejected):
    """Nothing can be sent to this payee, whether there is one or not."""

    code = "e_account.payee_unavailable"
    advice = "Ask the payee for the id of an account that takes money."
    advice_zh = "收款账户不可用，请与收款人核对。"


class NoBankThere(Rejected):
    """No bank is connected that money could come from or go to."""

    code = "e_account.no_bank"
    advice = "Bind a bank card and name it; where no bank is connected, use a transfer."
    advice_zh = "请先绑定银行卡；暂未接入可用的银行渠道时，请使用账户间转账。"


class WalletShort(Rejected):
    """There is not so much in the wallet."""

    code = "e_account.wallet_short"
    advice = "Move less, or top the wallet up first."
    advice_zh = "钱包余额不足，请减少金额或先为钱包充值。"


class RequestDiffers(Conflict):
    """The request id was used before on this account, for something else."""

    code = "e_account.request_differs"
    advice = "Use a new request_id for another order; repeat one with exactly the same fields."
    advice_zh = "request_id 已用于其他指令；新指令请使用新的 request_id。"


class OrderNotFound(NotFound):
    """The account has no such order."""

    code = "e_account.order_not_found"
    advice = "List the account's orders to find its id."
    advice_zh = "指令不存在，请查询指令列表。"


class OrderOver(Conflict):
    """The order has run, or came to another end."""

    code = "e_account.order_over"
    advice = "Read the order; what has run cannot be cancelled."
    advice_zh = "指令已执行或已终结，无法撤销。"


class RunAtWrong(Invalid):
    """A scheduled transfer names a moment to come, within a year; no other names one."""

    code = "e_account.run_at_wrong"
    advice = "Send run_at with timing `scheduled` only: a moment to come, within 366 days."
    advice_zh = "仅预约转账须填写 run_at，且为 366 天内的未来时间。"


class FreezeUnknown(NotFound):
    """The account has no such freeze that still stands."""

    code = "e_account.freeze_unknown"
    advice = "Read the account to see which freezes stand."
    advice_zh = "该冻结不存在或已解除。"


class EAccountState(StrEnum):
    """Whether the account takes part at all; freezes stand beside it."""

    OPENED = "opened"
    ACTIVE = "active"
    DORMANT = "dormant"
    CLOSED = "closed"


class Direction(StrEnum):
    """What a freeze stops."""

    IN = "in"
    OUT = "out"
    ALL = "all"


class OrderState(StrEnum):
    """What became of an order."""

    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


OrderKind = Literal["top_up", "withdrawal", "transfer", "from_wallet", "to_wallet"]
WALLET_KINDS: Final = frozenset({"from_wallet", "to_wallet"})
COMES_IN: Final = frozenset({"top_up", "from_wallet"})
Timing = Literal["now", "next_day", "scheduled"]


class EAccount(Struct, frozen=True):
    """One row. ``balance`` follows the ledger in its own commits, in minor units.

    ``held`` is what freezes of an amount keep in it together, which may be more than is there.
    """

    book: int
    id: UUID
    person_id: UUID
    mode: Mode
    kind: str
    currency: str
    state: EAccountState
    balance: int
    in_stops: int
    out_stops: int
    device: UUID
    opened_at: datetime
    activated_at: datetime | None
    moved_at: datetime | None
    dormant_at: datetime | None
    closed_at: datetime | None
    held: int
    barred_until: datetime | None = None

    @property
    def shown_id(self) -> str:
        """Return its public id."""
        return show(PREFIX, self.id)

    @property
    def account_class(self) -> int:
        """Return 1, 2 or 3."""
        return int(self.kind[-1])

    @property
    def available(self) -> int:
        """Return what freezes of an amount leave, in minor units."""
        return max(self.balance - self.held, 0)

    @property
    def frozen(self) -> Literal["none", "in", "out", "all"]:
        """Return what the freezes of a whole direction stop together."""
        if self.in_stops and self.out_stops:
            return "all"
        return "in" if self.in_stops else "out" if self.out_stops else "none"

    @property
    def key(self) -> AccountKey:
        """Return the ledger's account."""
        return AccountKey("e_account", self.currency, self.id)

    @property
    def metered(self) -> Metered:
        """Return whose meters count: the person's, over all accounts of the class, or of all."""
        family = self.kind.removesuffix(f"_{self.account_class}")
        of = (self.book, self.person_id, self.kind, self.currency)
        return Metered(*of, family, TOGETHER[family])

    def check_acts(self, now: datetime) -> None:
        """Raise if its person may have nothing done without the counter.

        Raises:
            EAccountBarred
        """
        if self.barred_until is not None and now < self.barred_until:
            raise EAccountBarred

    def check_takes(self) -> None:
        """Raise unless money may come in.

        Raises:
            EAccountStateWrong, EAccountFrozen
        """
        self._check(self.in_stops)

    def check_gives(self, amount: int, now: datetime) -> None:
        """Raise unless so much may go out.

        Raises:
            EAccountBarred, EAccountStateWrong, EAccountFrozen, EAccountBalanceShort
        """
        self.check_acts(now)
        self._check(self.out_stops)
        if amount > self.balance:
            raise EAccountBalanceShort
        if amount > self.available:
            raise EAccountFrozen(frozen="amount", held=self.held)

    def _check(self, stops: int) -> None:
        if self.state is not EAccountState.ACTIVE:
            raise EAccountStateWrong(status=self.state.value)
        if stops:
            raise EAccountFrozen(frozen=self.frozen)


class EAccountFreeze(Struct, frozen=True):
    """One row: who stopped what, by which document, from when until when, and who lifted it.

    ``amount`` keeps so much in the account; without one it stops everything in its direction.
    """

    book: int
    id: UUID
    account_id: UUID
    kind: Literal["operational", "judicial"]
    direction: Direction
    document: str
    reason: str
    set_by: str
    set_at: datetime
    lifted_by: str | None
    lifted_at: datetime | None
    lifted_because: str | None
    amount: int | None
    starts_at: datetime
    ends_at: datetime | None
    began_at: datetime | None

    @property
    def counts(self) -> bool:
        """Tell whether it stops anything now."""
        return self.began_at is not None and self.lifted_at is None


class EAccountOrder(Struct, frozen=True):
    """One row: what a person ordered. ``level`` is how strongly it was confirmed.

    ``payee_id`` is the account that a transfer goes to, or the wallet that money comes from or
    goes to.
    """

    book: int
    id: UUID
    account_id: UUID
    person_id: UUID
    mode: Mode
    kind: OrderKind
    payee_id: UUID | None
    amount: int
    currency: str
    request_id: str
    timing: Timing
    run_at: datetime
    level: int
    state: OrderState
    code: str | None
    made_at: datetime
    ended_at: datetime | None
    card_id: UUID | None = None
    batch_id: UUID | None = None

    @property
    def shown_id(self) -> str:
        """Return its public id."""
        return show(ORDER_PREFIX, self.id)

    def is_the_same(self, other: EAccountOrder) -> bool:
        """Tell whether a repeat asks for the very same."""
        return self._asked == other._asked

    @property
    def _asked(self) -> tuple[object, ...]:
        when = self.run_at if self.timing == "scheduled" else None
        asked = (self.kind, self.payee_id, self.amount, self.currency, self.timing)
        return (*asked, when, self.card_id)


class EAccountBatch(Struct, frozen=True):
    """One row: transfers that were confirmed together."""

    book: int
    id: UUID
    account_id: UUID
    person_id: UUID
    mode: Mode
    request_id: str
    digest: bytes
    orders: int
    amount: int
    currency: str
    run_at: datetime
    made_at: datetime

    @property
    def shown_id(self) -> str:
        """Return its public id."""
        return show(BATCH_PREFIX, self.id)


class Progress(Struct, frozen=True):
    """How many orders of a batch stand how, and what they come to."""

    state: OrderState
    orders: int
    amount: int


class EAccountLeg(Struct, frozen=True):
    """One row: over which card and which account of ours an order goes, and how far it has come."""

    book: int
    order_id: UUID
    card_id: UUID
    rail_id: UUID
    is_own: bool
    sends: int
    sent_at: datetime | None
    asks: int
    reference: str


def kind_of(licence: Licence, account_class: int) -> str:
    """Return the kind of account that a class is under a licence.

    Raises:
        EAccountClassUnknown
    """
    if account_class not in {1, 2, 3} or not licence.may_hold_funds:
        raise EAccountClassUnknown
    firm = "bank" if licence is Licence.BANK else "payment"
    return f"{firm}_account_{account_class}"


def counts_of(account: EAccount, wanted: EAccountOrder, payee: EAccount | None) -> list[Count]:
    """Return what an order adds to whose meters.

    To and from one's own bank account counts as all that goes out, and not as anybody else's. A
    wallet is another's: it was opened with a name that nobody has verified.
    Between two accounts of one person the balance of a class changes by both.
    """
    mine, amount = account.metered, wanted.amount
    if wanted.kind == "top_up":
        return [Count(mine, BALANCE, amount)]
    if wanted.kind == "from_wallet":
        return [Count(mine, IN_OTHERS, amount), Count(mine, BALANCE, amount)]
    counts = [Count(mine, OUT_ALL, amount)]
    if wanted.kind == "withdrawal":
        return [*counts, Count(mine, BALANCE, -amount)]
    counts += [Count(mine, WEAK_ONE, amount)] if wanted.level < 2 else []
    counts += [Count(mine, WEAK_TWO, amount)] if wanted.level < 3 else []
    counts += [Count(mine, OUT_OTHERS, amount)]
    if payee is None:
        return [*counts, Count(mine, BALANCE, -amount)]
    counts += [Count(payee.metered, IN_OTHERS, amount)]
    if payee.metered == mine:
        return counts
    return [*counts, Count(mine, BALANCE, -amount), Count(payee.metered, BALANCE, amount)]
