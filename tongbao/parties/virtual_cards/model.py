"""Virtual cards, their states and what one may be used for. No I/O.

    active ⇄ frozen ─► closed

A card takes nothing that its account would not give: freezes and limits of the law come first, and
its own limits besides.
"""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.kernel.errors import Conflict, Invalid, NotFound, Rejected
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode

PREFIX: Final = "vcd"
RULES: Final = "virtual_card"
"""The kind that the rules of virtual cards have among the rules of opening."""
NUMBER_DIGITS: Final = 16
AMOUNT_MOST: Final = 10**15


class VirtualCardNotFound(NotFound):
    """The account has no such virtual card."""

    code = "virtual_card.not_found"
    advice = "List the virtual cards of the account to find its id."
    advice_zh = "虚拟卡不存在，请查询该账户的虚拟卡列表。"


class VirtualCardClosed(Conflict):
    """The card was closed, and stays so."""

    code = "virtual_card.closed"
    advice = "Ask for another card."
    advice_zh = "该虚拟卡已注销，不可恢复，请申领新卡。"


class VirtualCardsTooMany(Rejected):
    """A rule does not allow one more card of this account."""

    code = "virtual_card.too_many"
    advice = "Close a card first; `rule` names the rule and `most` its figure."
    advice_zh = "已达该账户的虚拟卡数量上限（见 rule），请先注销其他卡。"


class CardLimitsWrong(Invalid):
    """A card's limits are amounts above nought, each no more than the next wider one."""

    code = "virtual_card.limits_wrong"
    advice = "Let one payment be no more than a day, and a day no more than all of them."
    advice_zh = "限额须大于零，且单笔不大于单日、单日不大于累计。"


class CardDeclined(Rejected):
    """The card does not pay this. Whoever asks is not told why."""

    code = "virtual_card.declined"
    advice = "Have the customer use another way to pay."
    advice_zh = "该卡无法支付，请顾客更换支付方式。"


class GuessesTooMany(Rejected):
    """Too many wrong numbers or months were given today: of this number, or by whoever asks."""

    code = "virtual_card.too_many_guesses"
    advice = "Have the customer use another way to pay; try the card again on another day."
    advice_zh = "今日卡号或有效期错误次数过多，请顾客更换支付方式，或次日再试。"


class CardState(StrEnum):
    """How a virtual card stands."""

    ACTIVE = "active"
    FROZEN = "frozen"
    CLOSED = "closed"


class CardLimits(Struct, frozen=True):
    """How much a card pays at once, in a day of Shanghai and in all; None is no limit."""

    each_max: int | None = None
    day_max: int | None = None
    total_max: int | None = None


class VirtualCard(Struct, frozen=True):
    """One row. ``day_used`` is of ``day``, the newest day on which it paid."""

    book: int
    id: UUID
    account_id: UUID
    person_id: UUID
    mode: Mode
    request_id: str
    vault_card_id: UUID
    par: str
    bin: str
    last4: str
    state: CardState
    each_max: int | None
    day_max: int | None
    total_max: int | None
    day: date
    day_used: int
    used: int
    uses: int
    expires_at: datetime
    created_at: datetime
    closed_at: datetime | None

    @property
    def shown_id(self) -> str:
        """Return its public id."""
        return show(PREFIX, self.id)


def check_limits(limits: CardLimits) -> None:
    """Raise unless these can be a card's limits.

    Raises:
        CardLimitsWrong
    """
    given = [each for each in (limits.each_max, limits.day_max, limits.total_max) if each]
    all_of_them = (limits.each_max, limits.day_max, limits.total_max)
    if any(each is not None and not 0 < each <= AMOUNT_MOST for each in all_of_them):
        raise CardLimitsWrong(param="$.limits")
    if given != sorted(given):
        raise CardLimitsWrong(param="$.limits")
