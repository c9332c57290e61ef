"""What accounts, transfers and groups are, and every reason the ledger has to refuse one. No I/O.

A transfer has exactly one debit and one credit account, so an unbalanced book cannot be written
down. A group is the unit that happens whole or not at all: its transfers and its companion writes.

    pending ──► posted (whole or in part, the rest is released) | voided | expired
"""

from __future__ import annotations

from datetime import date, datetime
from enum import IntEnum, IntFlag, StrEnum
from typing import Final, Literal
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Write
from tongbao.kernel.errors import Busy, Conflict, Invalid, NotFound, Overloaded, Rejected

COUNTER_MAX: Final = 4_000_000_000_000_000_000
"""Largest counter of an account: the difference of any two still fits a bigint."""
BOOK_SHIFT: Final = 40
"""An account id is its book in the bits above this one and a number below it."""
BOOK_MAX: Final = (1 << 22) - 1
NOBODY: Final = UUID(int=0)
"""The owner that a system account is stored with, so that the unique key covers it."""
SPAN_GAP_MS: Final = 10
"""Ids of one commit that lie further apart than this are of different stretches of the journal."""


class Side(StrEnum):
    """On which side an account's balance grows: assets and costs debit, the rest credit."""

    DEBIT = "debit"
    CREDIT = "credit"


class AccountState(StrEnum):
    """Whether an account takes part."""

    OPEN = "open"
    FROZEN = "frozen"  # takes money in, lets none out (只收不付); open holds may still end
    CLOSED = "closed"  # empty, and stays so


class HoldState(StrEnum):
    """What became of a pending transfer."""

    HELD = "held"
    POSTED = "posted"
    VOIDED = "voided"
    EXPIRED = "expired"


class AccountKey(Struct, frozen=True):
    """Which account of a book is meant: its kind in the chart, its owner, its currency.

    System accounts (fee income, bank) have no owner.
    """

    kind: str
    currency: str
    owner: UUID | None = None


class TransferKind(IntEnum):
    """What a transfer does to the four counters of its two accounts; stored as its number."""

    SINGLE = 1  # posted at once
    PENDING = 2  # held until posted, voided or expired
    POST = 3  # ends `pending_id`, moving `amount` of it and releasing the rest
    VOID = 4  # ends `pending_id`, moving nothing
    EXPIRE = 5  # as VOID, and only once the hold's time is over


class TransferFlags(IntFlag):
    """What is recorded about a transfer beside what it moved."""

    LINKED = 1  # the transfer after this one (seq + 1) belongs to the same group
    WHOLE = 2  # the request named no amount: all of the hold
    AT_MOST = 4  # the request named the most to move; what moved may be less
    FOLLOWS = 8  # the transfer before this one (seq - 1) belongs to the same group


class Transfer(Struct, frozen=True):
    """One movement between two accounts of one book, in minor units; immutable once recorded.

    For `POST`, `VOID` and `EXPIRE` the accounts are those of the pending transfer and are not
    named again; `POST` with amount None posts all of it. ``expires_at`` (business time) belongs
    to `PENDING` only; a hold without one waits for ever.

    ``id`` is in time order and shares its first eight bytes with ``reference``, as `derived_id`
    makes it, so that the transfers of a reference lie together in the journal. ``at_most`` moves
    less than ``amount`` where the floor of one account or the ceiling of the other allows no more,
    and is refused when it allows nothing. ``value_date`` may lie in the past; None is the
    accounting day of the decision.
    """

    id: UUID
    kind: TransferKind
    code: str  # the posting rule and leg, such as "payment.captured/gross"
    reference: UUID  # the payment, refund or settlement this belongs to
    amount: int | None = None
    debit: AccountKey | None = None
    credit: AccountKey | None = None
    pending_id: UUID | None = None
    expires_at: datetime | None = None
    value_date: date | None = None
    at_most: bool = False


class Group(Struct, frozen=True):
    """Transfers and companions that happen together, exactly once for ever, under one id.

    ``companions`` are writes of the calling domain, opaque to the ledger. They run in the order
    given, before the accounts are locked; one that must touch a row and touches none refuses its
    own group, with its code, and no other. A caller that locks several of its own rows always
    does so in the same order. The same id with other transfers is another body and refused; the
    companions do not count as body, because they carry fresh ids and times at every try.
    """

    id: UUID
    book: int
    transfers: tuple[Transfer, ...]
    companions: tuple[Write, ...] = ()


Status = Literal["created", "exists", "exists_different", "refused", "already_refused", "in_flight"]


class Result(Struct, frozen=True):
    """What became of a group; recorded, so the same group gets the same answer for ever.

    ``exists`` repeats an earlier ``created``, and ``already_refused`` an earlier ``refused``, with
    its code. ``in_flight`` alone is not recorded: nothing was decided, because the same
    group is being decided elsewhere, a lock did not become free, or the book is frozen; ``code``
    says which. Repeat the same group later.
    """

    status: Status
    code: str | None = None  # why not, such as "ledger.exceeds_balance"
    seq: int | None = None  # of the group's last transfer; None when it has none

    @property
    def happened(self) -> bool:
        """Whether the group is in the book, by this call or an earlier one."""
        return self.status in {"created", "exists"}


# Refusals. The `Busy` ones and the missing are not recorded: the same group may be repeated.


class BookFrozen(Busy):
    """The book takes no postings for now."""

    code = "ledger.book_frozen"
    advice = "Postings are suspended. Repeat the same request with the same key later."
    advice_zh = "账本暂停记账，请稍后使用相同的幂等键重试。"
    retry_after_s = 60


class BookStopped(Busy):
    """A breach was found in the book: nothing is written until a person has looked."""

    code = "ledger.book_stopped"
    advice = "Postings are suspended after a failed proof. Repeat the same request later."
    advice_zh = "账本校验不一致，已暂停记账，请稍后使用相同的幂等键重试。"
    retry_after_s = 300


class LedgerOverloaded(Overloaded):
    """More postings wait than the book takes; nothing was decided."""

    code = "ledger.overloaded"
    advice = "Repeat the same request with the same key after Retry-After seconds."
    advice_zh = "系统繁忙，请在 Retry-After 秒后使用相同的幂等键重试。"
    retry_after_s = 1


class LedgerUnanswered(Busy):
    """The process that keeps the book did not answer; whether the posting happened is unknown."""

    code = "ledger.unanswered"
    advice = "Repeat the same request with the same key: the answer tells what became of it."
    advice_zh = "结果未知，请使用相同的幂等键重试同一请求以获知结果。"
    retry_after_s = 2


class BookElsewhere(Busy):
    """This process does not keep the book, or no process does yet; nothing was decided."""

    code = "ledger.book_elsewhere"
    advice = "Repeat the same request with the same key; see that a process with role poster runs."
    advice_zh = "本进程不负责该账本，请使用相同的幂等键重试，并确认 poster 角色已运行。"
    retry_after_s = 2


class HoldNotDue(Busy):
    """The hold has time left, or never expires."""

    code = "ledger.hold_not_due"
    advice = "Only a hold whose time is over expires; void it instead."
    advice_zh = "预授权尚未到期，如需释放请撤销。"


class GroupInFlight(Busy):
    """The same group is being decided by another call, or waited too long for a lock."""

    code = "ledger.in_flight"
    advice = "Repeat the same request with the same Idempotency-Key."
    advice_zh = "请使用相同的 Idempotency-Key 重试同一请求。"


class BookMissing(NotFound):
    """There is no such book."""

    code = "ledger.book_missing"
    advice = "Name a book that was opened."
    advice_zh = "账本不存在。"


class AccountMissing(NotFound):
    """The account was never opened."""

    code = "ledger.account_missing"
    advice = "Name an account that has been used."
    advice_zh = "账户不存在。"


class GroupDiffers(Conflict):
    """The id was used before, for other transfers."""

    code = "ledger.exists_different"
    advice = "Use a new id for another posting; the id stays with its first body for ever."
    advice_zh = "该标识已用于另一笔分录，请使用新的标识。"


class GroupAmountDiffers(GroupDiffers):
    """The id was used before, for transfers of another amount."""

    code = "ledger.exists_different_amount"
    advice = "Use a new id for another amount; the id stays with its first body for ever."
    advice_zh = "该标识已用于金额不同的分录，请使用新的标识。"


class GroupAccountsDiffer(GroupDiffers):
    """The id was used before, for transfers between other accounts."""

    code = "ledger.exists_different_accounts"
    advice = "Use a new id for other accounts; the id stays with its first body for ever."
    advice_zh = "该标识已用于账户不同的分录，请使用新的标识。"


class GroupCodeDiffers(GroupDiffers):
    """The id was used before, for transfers of another kind or posting code."""

    code = "ledger.exists_different_code"
    advice = "Use a new id for another posting; the id stays with its first body for ever."
    advice_zh = "该标识已用于交易代码不同的分录，请使用新的标识。"


class GroupReferenceDiffers(GroupDiffers):
    """The id was used before, for transfers of another reference."""

    code = "ledger.exists_different_order"
    advice = "Use a new id for another order; the id stays with its first body for ever."
    advice_zh = "该标识已用于业务单号不同的分录，请使用新的标识。"


class TransferRecorded(Conflict):
    """A transfer of the group is already in the book, in another group or twice in this one."""

    code = "ledger.transfer_exists"
    advice = "This movement was posted before; look it up by its reference."
    advice_zh = "该笔记账此前已入账，请按业务单号查询。"


class IdOutOfOrder(Invalid):
    """The id is not in time order, or does not share the first half of its reference."""

    code = "ledger.id_out_of_order"
    advice = "Derive transfer ids from a time-ordered reference (UUIDv7) that is not in the future."
    advice_zh = "分录标识须由按时间有序的业务单号（UUIDv7）派生，且不得晚于当前时间。"


class IdArchived(Conflict):
    """The id is of a month whose postings are sealed away, so nobody can tell a repeat."""

    code = "ledger.id_archived"
    advice = "What was posted under it is in the archive; post anew under a new reference."
    advice_zh = "该标识所属月份的分录已封存归档，请查询归档，或使用新的业务单号记账。"


class TransferMalformed(Invalid):
    """The parts of a transfer do not fit its kind."""

    code = "ledger.transfer_malformed"
    advice = "Name both accounts and an amount, or the pending transfer to end, and no more."
    advice_zh = "分录要素与类型不符：应给出借贷双方与金额，或待终结的预授权。"


class GroupTooLong(Invalid):
    """A group has more transfers than one commit takes."""

    code = "ledger.group_too_long"
    advice = "Split the posting into groups of at most 1000 transfers."
    advice_zh = "每组最多 1000 笔分录，请拆分。"


class TransferAmountInvalid(Invalid):
    """The amount is zero, negative or larger than the platform keeps."""

    code = "ledger.amount_out_of_range"
    advice = "Send a whole number of minor units, at least 1."
    advice_zh = "金额应为以最小货币单位表示的正整数。"


class AccountKindUnknown(Invalid):
    """The chart of accounts has no such kind."""

    code = "ledger.account_kind_unknown"
    advice = "Use a kind of the chart of accounts."
    advice_zh = "会计科目表中没有该账户种类。"


class AccountKindNotLicensed(Rejected):
    """The firm's licence does not allow accounts of this kind."""

    code = "ledger.account_kind_not_licensed"
    advice = "This deployment's licence does not allow holding funds."
    advice_zh = "本机构的牌照类型不允许持有资金，无此类账户。"


class AccountOwnerWrong(Invalid):
    """The kind wants an owner and none is named, or the other way round."""

    code = "ledger.account_owner_wrong"
    advice = "Name the owner of an owned account, and none for a system account."
    advice_zh = "有主账户须指明户主，系统账户不得指明户主。"


class AccountCurrencyUnknown(Invalid):
    """The platform keeps no books in this currency."""

    code = "ledger.currency_unknown"
    advice = "Use an upper-case ISO 4217 code the platform lists."
    advice_zh = "请使用平台支持的 ISO 4217 大写币种代码。"


class CurrenciesDiffer(Invalid):
    """The two accounts of a transfer are kept in different currencies."""

    code = "ledger.currency_mismatch"
    advice = "A transfer stays in one currency; exchange goes through its own accounts."
    advice_zh = "一笔分录只能使用一种币种，换汇须经兑换科目。"


class SameAccount(Invalid):
    """Debit and credit account are the same."""

    code = "ledger.same_account"
    advice = "Name two different accounts."
    advice_zh = "借方与贷方不能是同一账户。"


class AccountFrozen(Rejected):
    """A frozen account lets no money out."""

    code = "ledger.account_frozen"
    advice = "The account may receive but not pay. Ask the operator."
    advice_zh = "账户已冻结，只收不付，请联系运营方。"


class AccountClosed(Rejected):
    """A closed account takes no postings."""

    code = "ledger.account_closed"
    advice = "The account is closed; use another."
    advice_zh = "账户已销户，请使用其他账户。"


class AccountNotEmpty(Conflict):
    """An account with a balance or open holds cannot be closed."""

    code = "ledger.account_not_empty"
    advice = "Move the balance out and end the holds first."
    advice_zh = "账户仍有余额或在途冻结资金，不能销户。"


class LimitBroken(Conflict):
    """The account holds less, or more, than the limit would allow."""

    code = "ledger.limit_broken"
    advice = "Move money first, or choose a limit that what the account holds does not break."
    advice_zh = "账户现有余额（含在途）不满足该限额，请先调整余额或另设限额。"


class ExceedsBalance(Rejected):
    """The movement would take an account below its floor, open holds counted."""

    code = "ledger.exceeds_balance"
    advice = "There is not enough money in the account; holds count as spent."
    advice_zh = "账户可用余额不足（在途冻结金额不可用）。"


class ExceedsCeiling(Rejected):
    """The movement would take an account above its ceiling, promised money counted."""

    code = "ledger.exceeds_ceiling"
    advice = "The account may not hold that much; move less, or raise its limit."
    advice_zh = "账户余额将超过上限（含在途入账），请减少金额或调整限额。"


class CounterOverflow(Rejected):
    """A counter of an account would become larger than the platform keeps."""

    code = "ledger.counter_overflow"
    advice = "The account has reached the largest total it can keep; open another."
    advice_zh = "账户累计发生额已达上限，请另开账户。"


class HoldMissing(Rejected):
    """There is no pending transfer with this id."""

    code = "ledger.hold_missing"
    advice = "Name a pending transfer of the same book."
    advice_zh = "找不到对应的预授权。"


class HoldAlreadyPosted(Conflict):
    """The pending transfer was posted before."""

    code = "ledger.hold_already_posted"
    advice = "A hold ends once; this one was posted."
    advice_zh = "该预授权已完成，不能再次处理。"


class HoldAlreadyVoided(Conflict):
    """The pending transfer was voided before."""

    code = "ledger.hold_already_voided"
    advice = "A hold ends once; this one was voided."
    advice_zh = "该预授权已撤销，不能再次处理。"


MOVED_BEFORE: Final = frozenset(
    {TransferRecorded.code, HoldAlreadyPosted.code, HoldAlreadyVoided.code}
)
"""Why a group is refused whose money another group has moved: its caller looks at its rows again.

Money is decided before companions, so a caller who came second is told this, and only of what the
money does not show is it told by its companions.
"""


class HoldExpired(Conflict):
    """The pending transfer's time is over."""

    code = "ledger.hold_expired"
    advice = "The hold's time is over; hold the money again."
    advice_zh = "该预授权已过期，请重新冻结资金。"


class HoldExceeded(Rejected):
    """More is to be posted than was held."""

    code = "ledger.hold_exceeded"
    advice = "Post at most the amount that was held."
    advice_zh = "完成金额不得超过预授权金额。"


class ExpiryPast(Invalid):
    """A hold would be over before it begins."""

    code = "ledger.expiry_past"
    advice = "Give a hold a time in the future."
    advice_zh = "预授权的到期时间应晚于当前时间。"
