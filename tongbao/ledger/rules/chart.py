"""The chart of accounts: every kind of account, as data, with its side, floor, owner and licence.

The migration fills the table `ledger_account_kind` with the same kinds; a test compares them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.kernel.errors import Refusal
from tongbao.kernel.licence import Licence
from tongbao.kernel.money import EXPONENTS
from tongbao.ledger.model import (
    BOOK_MAX,
    AccountCurrencyUnknown,
    AccountKey,
    AccountKindNotLicensed,
    AccountKindUnknown,
    AccountOwnerWrong,
    Side,
)


class OwnerKind(StrEnum):
    """Whose account it is."""

    HOUSE = "house"  # the platform's own; one per currency and book, without an owner
    BOOK = "book"  # another book of this ledger: the owner is its number, see `book_owner`
    CAMPAIGN = "campaign"  # a campaign, a merchant's subsidies or one red packet
    CHANNEL_ACCOUNT = "channel_account"
    E_ACCOUNT = "e_account"
    MERCHANT = "merchant"
    WALLET = "wallet"


class Kind(Struct, frozen=True):
    """One line of the chart.

    ``floor`` is the lowest balance on the normal side, open holds counted as spent; None means
    none. ``holds_funds`` marks other people's money, which an aggregator may not keep.
    """

    name: str
    side: Side
    owner: OwnerKind
    en: str
    zh: str
    floor: int | None = None
    holds_funds: bool = False


class ChartInvalid(ValueError):
    """The chart contradicts itself: a bug in this file."""


def _validated(kinds: Iterable[Kind]) -> Mapping[str, Kind]:
    chart: dict[str, Kind] = {}
    for kind in kinds:
        if kind.name in chart or not kind.name.replace("_", "").isalpha():
            raise ChartInvalid(f"{kind.name} is there twice or badly named")
        if not kind.en or not kind.zh:
            raise ChartInvalid(f"{kind.name} lacks a name in English or Chinese")
        if kind.holds_funds and (kind.side is not Side.CREDIT or kind.floor is None):
            raise ChartInvalid(f"{kind.name} holds funds, so it is a liability with a floor")
        chart[kind.name] = kind
    return chart


CHART: Final = _validated(
    (
        Kind(
            "bad_debt",
            Side.DEBIT,
            OwnerKind.HOUSE,
            "What merchants owed and will not pay",
            "商户欠款损失",
        ),
        Kind("bank", Side.DEBIT, OwnerKind.HOUSE, "Money at the bank", "银行存款"),
        Kind("channel_cost", Side.DEBIT, OwnerKind.HOUSE, "Channel fees paid", "渠道手续费支出"),
        Kind(
            "channel_receivable",
            Side.DEBIT,
            OwnerKind.CHANNEL_ACCOUNT,
            "Collected by a channel, not yet received",
            "应收渠道款",
        ),
        Kind(
            "dispute_at_scheme",
            Side.DEBIT,
            OwnerKind.CHANNEL_ACCOUNT,
            "Taken back by a scheme, not decided yet",
            "争议中被卡组织扣回款",
            floor=0,
        ),
        Kind(
            "dispute_held",
            Side.CREDIT,
            OwnerKind.MERCHANT,
            "Set aside of a merchant's money for disputes",
            "商户争议冻结款",
            floor=0,
            holds_funds=True,
        ),
        Kind(
            "e_account",
            Side.CREDIT,
            OwnerKind.E_ACCOUNT,
            "A person's electronic account",
            "个人电子账户余额",
            floor=0,
            holds_funds=True,
        ),
        Kind(
            "e_account_leaving",
            Side.CREDIT,
            OwnerKind.HOUSE,
            "On its way from electronic accounts to banks",
            "个人电子账户提现在途",
            floor=0,
            holds_funds=True,
        ),
        Kind(
            "e_account_returned",
            Side.CREDIT,
            OwnerKind.E_ACCOUNT,
            "Given back to a person, waiting to be taken",
            "个人待领退款",
            floor=0,
            holds_funds=True,
        ),
        Kind(
            "exchange",
            Side.CREDIT,
            OwnerKind.HOUSE,
            "The house's position in a currency",
            "货币兑换",
        ),
        Kind("fee_income", Side.CREDIT, OwnerKind.HOUSE, "Fees earned", "手续费收入"),
        Kind(
            "in_transit_in",
            Side.DEBIT,
            OwnerKind.BOOK,
            "Arrived from another book",
            "在途资金（他账簿转入）",
        ),
        Kind(
            "in_transit_out",
            Side.CREDIT,
            OwnerKind.BOOK,
            "Sent to another book",
            "在途资金（转往他账簿）",
        ),
        Kind(
            "merchant_debt",
            Side.DEBIT,
            OwnerKind.MERCHANT,
            "Owed by a merchant, to be taken from what comes in",
            "商户欠款",
            floor=0,
        ),
        Kind(
            "merchant_payable",
            Side.CREDIT,
            OwnerKind.MERCHANT,
            "Owed to a merchant, not yet settled",
            "应付商户款",
            floor=0,
            holds_funds=True,
        ),
        Kind(
            "merchant_reserve",
            Side.CREDIT,
            OwnerKind.MERCHANT,
            "Kept back from a merchant for a time",
            "商户滚动保证金",
            floor=0,
            holds_funds=True,
        ),
        Kind(
            "settlement_due",
            Side.CREDIT,
            OwnerKind.MERCHANT,
            "Settled to a merchant, not yet paid out",
            "待付结算款",
            floor=0,
            holds_funds=True,
        ),
        Kind(
            "subsidy",
            Side.CREDIT,
            OwnerKind.CAMPAIGN,
            "Put aside for red packets and subsidies",
            "红包与补贴资金",
            floor=0,
            holds_funds=True,
        ),
        Kind(
            "suspense",
            Side.CREDIT,
            OwnerKind.HOUSE,
            "Received without a home, to be returned or explained",
            "挂账待查",
        ),
        Kind(
            "wallet",
            Side.CREDIT,
            OwnerKind.WALLET,
            "A customer's wallet balance",
            "客户钱包余额",
            floor=0,
            holds_funds=True,
        ),
        Kind(
            "written_off",
            Side.DEBIT,
            OwnerKind.HOUSE,
            "Differences written off",
            "差错核销",
        ),
    )
)


def book_owner(book: int) -> UUID:
    """Return the owner that stands for a book in the accounts of its peers."""
    return UUID(int=book)


def opening_refusal(key: AccountKey, licence: Licence) -> type[Refusal] | None:
    """Return why no such account may be opened under the licence, or None when it may."""
    kind = CHART.get(key.kind)
    if kind is None:
        return AccountKindUnknown
    if kind.holds_funds and not licence.may_hold_funds:
        return AccountKindNotLicensed
    if (key.owner is None) != (kind.owner is OwnerKind.HOUSE):
        return AccountOwnerWrong
    if key.owner and kind.owner is OwnerKind.BOOK and not 1 <= key.owner.int <= BOOK_MAX:
        return AccountOwnerWrong
    if key.currency not in EXPONENTS:
        return AccountCurrencyUnknown
    return None
