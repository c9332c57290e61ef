"""What an issuer says a card has. No I/O."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from tongbao.kernel.codecs.iso8583_parts import CardBalance
from tongbao.kernel.errors import Busy, Rejected

_KINDS: Final[dict[str, Literal["ledger", "available"]]] = {"01": "ledger", "02": "available"}
_CURRENCIES: Final = {"156": "CNY", "344": "HKD", "446": "MOP", "901": "TWD", "840": "USD"}
"""ISO 4217 numbers of what is shown with its letters; any other stays the number."""


class BalanceNotOffered(Rejected):
    """The channel cannot ask a card's issuer what the card has."""

    code = "card_balance.not_offered"
    advice = "Ask at a terminal whose account is at a card host."
    advice_zh = "该渠道不支持余额查询。"


class BalanceDeclined(Rejected):
    """The issuer, or the host before it, refuses to say; ``reason`` is its response code."""

    code = "card_balance.declined"
    advice = "Show the customer the text; the response code is in reason."
    advice_zh = "发卡方拒绝查询，应答码见 reason，请按提示告知持卡人。"


class BalanceUnanswered(Busy):
    """The host gave no answer that can be trusted; nothing has happened."""

    code = "card_balance.unanswered"
    advice = "Ask again; a question moves no money."
    advice_zh = "未收到可信应答，查询不涉及资金，请重试。"
    retry_after_s = 1


class CardBalanceView(Struct, frozen=True):
    """One balance: ``account`` is the issuer's kind of account (30 is credit)."""

    account: str
    kind: Literal["ledger", "available", "other"]
    amount: int  # minor units, negative when it is owed
    currency: str


class CardBalancesView(Struct, frozen=True):
    """What a card has."""

    object: Literal["card_balances"]
    balances: list[CardBalanceView]


def view_balances(balances: tuple[CardBalance, ...]) -> CardBalancesView:
    """Return balances as the API shows them."""
    return CardBalancesView(
        object="card_balances",
        balances=[
            CardBalanceView(
                account=each.account,
                kind=_KINDS.get(each.kind, "other"),
                amount=each.amount,
                currency=_CURRENCIES.get(each.currency, each.currency),
            )
            for each in balances
        ],
    )
