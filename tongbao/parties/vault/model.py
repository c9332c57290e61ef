"""Cards, the tokens that stand for them, and what a token may be used for. No I/O.

    requested ─► active ⇄ suspended
        └───────────┴─────────┴─► deleted
                    └─────────┴─► replaced, by a token with another number

The words are those of EMV payment tokenisation. Replacing a card's number is not what protects it:
that are the limits on the domain in which its token is good.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final, Literal
from uuid import UUID

from msgspec import Meta, Struct, field

from tongbao.infra.outbox import Event
from tongbao.kernel.errors import Conflict, Invalid, NotFound
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode

CARD: Final = "crd"
TOKEN: Final = "ctk"  # noqa: S105 - what its ids begin with
RANGE: Final = "990001"
"""What our tokens begin with. A range of a scheme is given out by that scheme alone; 9 is none."""
NUMBER_DIGITS: Final = 16
REQUESTOR_CODE: Final = "900"
"""The first three digits of our requestors' numbers name who issues the tokens: us."""
PAR_CONTROLLER: Final = "TB01"
PAR_DIGITS: Final = 29
LIFE_MAX: Final = timedelta(days=5 * 365)
CARDS_MAX: Final = 1_000_000
ANY_ASSURANCE: Final = "00"
"""No identification and verification was done of whoever holds the card."""

Kind = Literal["card_on_file", "device"]


class CardNotFound(NotFound):
    """The merchant has no such card in this mode, or it was deleted."""

    code = "vault_card.not_found"
    advice = "List the cards to find its id."
    advice_zh = "请通过卡片列表查找正确的标识；已删除的卡无法使用。"


class CardNumberWrong(Invalid):
    """The number has a wrong check digit, or no scheme gives such numbers out."""

    code = "vault_card.number_wrong"
    advice = "Have the customer enter the number again."
    advice_zh = "卡号有误，请让顾客重新输入。"


class CardExpired(Invalid):
    """The card's month is over, or is no month."""

    code = "vault_card.expired"
    advice = "Ask the customer for a card that is still good; expiry is YYMM."
    advice_zh = "卡片已过期或有效期格式有误（YYMM），请更换卡片。"


class CardKnown(Conflict):
    """The new number is that of another card of the merchant."""

    code = "vault_card.known"
    advice = "Use the other card, and delete this one."
    advice_zh = "该卡号已登记为另一张卡，请使用该卡并删除当前卡。"


class TokenNotFound(NotFound):
    """The merchant has no such token in this mode."""

    code = "card_token.not_found"
    advice = "List the tokens to find its id."
    advice_zh = "请通过令牌列表查找正确的标识。"


class TokenStandsOtherwise(Conflict):
    """The token is not in a state in which this can be done."""

    code = "card_token.stands_otherwise"
    advice = "Look at the token's status; one that is deleted or replaced stays so."
    advice_zh = "令牌当前状态不允许该操作；已删除或已替换的令牌不可恢复。"


class TokenLifeWrong(Invalid):
    """A token is good until some moment in the next five years."""

    code = "card_token.life_wrong"
    advice = "Give expires_at as a moment between now and five years from now."
    advice_zh = "expires_at 应为当前时间之后、五年以内的时刻。"


class KeysNotForToken(Conflict):
    """Only an active token on a device has limited-use keys."""

    code = "card_token.no_keys"
    advice = "Ask for a token of kind device and activate it first."
    advice_zh = "仅已激活的设备令牌（device）可领取限次密钥。"


class TokenState(StrEnum):
    """How a token stands."""

    REQUESTED = "requested"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DELETED = "deleted"
    REPLACED = "replaced"

    @property
    def is_final(self) -> bool:
        """Whether nothing can follow."""
        return self in {TokenState.DELETED, TokenState.REPLACED}


MOVES: Final = {
    "activate": ({TokenState.REQUESTED}, TokenState.ACTIVE),
    "suspend": ({TokenState.ACTIVE}, TokenState.SUSPENDED),
    "resume": ({TokenState.SUSPENDED}, TokenState.ACTIVE),
    "delete": (
        {TokenState.REQUESTED, TokenState.ACTIVE, TokenState.SUSPENDED},
        TokenState.DELETED,
    ),
    "replace": ({TokenState.ACTIVE, TokenState.SUSPENDED}, TokenState.REPLACED),
}
"""What can be done with a token: from which states, and where it leads."""


class Card(Struct, frozen=True):
    """One row of the table. What it shows of the number is all that may be shown."""

    id: UUID
    merchant_id: UUID
    mode: Mode
    fingerprint: bytes
    par: str
    bin: str
    last4: str
    scheme: str
    state: str
    sealed: bytes | None
    created_at: datetime
    changed_at: datetime

    def __repr__(self) -> str:
        return f"Card({self.id})"


class Number(Struct, frozen=True):
    """A card number with its month, in the clear: in memory only, on its way to a card host."""

    number: str
    expiry: str  # YYMM

    def __repr__(self) -> str:
        return "Number(…)"


class Token(Struct, frozen=True):
    """One row of the table: a number that stands for a card, and where it is good."""

    id: UUID
    card_id: UUID
    merchant_id: UUID
    mode: Mode
    number: str
    requestor: str
    kind: Kind
    state: TokenState
    assurance: str
    channels: list[str]
    pay_modes: list[str]
    currency: str
    amount_each_max: int | None
    amount_max: int | None
    uses_max: int | None
    expires_at: datetime
    amount_used: int
    uses: int
    replaced_by: UUID | None
    created_at: datetime
    changed_at: datetime


class UseKey(Struct, frozen=True):
    """One row of the table: a key that makes so many cryptograms, and how far it has come."""

    id: UUID
    token_id: UUID
    merchant_id: UUID
    mode: Mode
    number: int
    state: str
    sealed: bytes | None
    uses_max: int
    refill_at: int
    uses: int
    last_counter: int
    expires_at: datetime
    created_at: datetime

    def __repr__(self) -> str:
        return f"UseKey({self.id})"

    @property
    def is_short(self) -> bool:
        """Whether the device should ask for its next key."""
        return self.uses_max - self.uses <= self.refill_at


class TokenUse(Struct, frozen=True):
    """One row of the table: what a token was used for."""

    token_id: UUID
    reference: str
    merchant_id: UUID
    mode: Mode
    amount: int
    currency: str
    key_number: int | None
    counter: int | None
    used_at: datetime


class TokenControls(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a token is good: ways of paying, amounts in minor units, how often. Only for its owner.

    What is left out is not limited; no channel is the channel of cards.
    """

    channels: Annotated[list[Annotated[str, Meta(max_length=32)]], Meta(max_length=8)] = field(
        default_factory=lambda: ["cards"]
    )
    pay_modes: Annotated[list[Annotated[str, Meta(max_length=32)]], Meta(max_length=8)] = []
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}(?!\n)$")] = "CNY"
    amount_each_max: Annotated[int, Meta(ge=1, le=10**15)] | None = None
    amount_max: Annotated[int, Meta(ge=1, le=10**15)] | None = None
    uses_max: Annotated[int, Meta(ge=1, le=10**9)] | None = None


class ControlsView(Struct, frozen=True):
    """Where a token is good, as the API shows it; null is no limit."""

    channels: list[str]
    pay_modes: list[str]
    currency: str
    amount_each_max: int | None
    amount_max: int | None
    uses_max: int | None


class CardView(Struct, frozen=True):
    """A card as the API shows it: never more than the first six and the last four digits."""

    id: str
    object: Literal["vault_card"]
    bin: str
    last4: str
    scheme: str
    payment_account_reference: str
    status: str
    created_at: datetime


class TokenView(Struct, frozen=True):
    """A token as the API shows it. Its number pays nowhere but in its domain."""

    id: str
    object: Literal["card_token"]
    card_id: str
    number: str
    requestor_id: str
    kind: Kind
    status: TokenState
    assurance_method: str
    payment_account_reference: str
    bin: str
    last4: str
    controls: ControlsView
    uses: int
    amount_used: int
    replaced_by: str | None
    expires_at: datetime
    created_at: datetime


class TokenMoved(Event, frozen=True, kw_only=True, tag="card_token.updated"):
    """A token was requested, activated, suspended, resumed, deleted or replaced."""

    object: TokenView


class UseKeyShort(Event, frozen=True, kw_only=True, tag="card_token.key_short"):
    """A limited-use key has few uses left: the device should ask for its next one."""

    object: TokenView


def view_card(card: Card) -> CardView:
    """Return a card as the API shows it."""
    return CardView(
        id=show(CARD, card.id),
        object="vault_card",
        bin=card.bin,
        last4=card.last4,
        scheme=card.scheme,
        payment_account_reference=card.par,
        status=card.state,
        created_at=card.created_at,
    )


def view_token(token: Token, card: Card) -> TokenView:
    """Return a token as the API shows it."""
    return TokenView(
        id=show(TOKEN, token.id),
        object="card_token",
        card_id=show(CARD, card.id),
        number=token.number,
        requestor_id=token.requestor,
        kind=token.kind,
        status=token.state,
        assurance_method=token.assurance,
        payment_account_reference=card.par,
        bin=card.bin,
        last4=card.last4,
        controls=ControlsView(
            token.channels,
            token.pay_modes,
            token.currency,
            token.amount_each_max,
            token.amount_max,
            token.uses_max,
        ),
        uses=token.uses,
        amount_used=token.amount_used,
        replaced_by=None if token.replaced_by is None else show(TOKEN, token.replaced_by),
        expires_at=token.expires_at,
        created_at=token.created_at,
    )


def check_expiry(expiry: str, today: date) -> None:
    """Raise unless a card with this month (YYMM) is still good: to the end of it.

    Raises:
        CardExpired
    """
    if not re.fullmatch(r"\d\d(0[1-9]|1[0-2])", expiry):
        raise CardExpired(param="$.expiry")
    year, month = 2000 + int(expiry[:2]), int(expiry[2:])
    if (year, month) < (today.year, today.month):
        raise CardExpired(param="$.expiry")


def refusal_of_use(
    token: Token, now: datetime, *, channel: str, pay_mode: str, amount: int, currency: str
) -> str | None:
    """Return why a token may not be used for this, as a stable code; None where it may."""
    checks: Sequence[tuple[str, bool]] = (
        ("token_not_active", token.state is not TokenState.ACTIVE),
        ("token_expired", now >= token.expires_at),
        ("token_channel", channel not in token.channels),
        ("token_mode", bool(token.pay_modes) and pay_mode not in token.pay_modes),
        ("token_currency", currency != token.currency),
        ("token_amount", amount > (token.amount_each_max or amount)),
        (
            "token_sum",
            token.amount_used + amount > (token.amount_max or token.amount_used + amount),
        ),
        ("token_uses", token.uses + 1 > (token.uses_max or token.uses + 1)),
    )
    return next((code for code, refused in checks if refused), None)
