"""Bank cards of people: what a try to bind one comes to, and what stands against it. No I/O.

    asked ─► verified ──code from the card's phone──► bound ─► unbound
      └────► refused | unclear: nothing clear was said, so nothing is bound

The number is in the vault and nowhere else; a row shows its first six and last four digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol
from uuid import UUID

from msgspec import Struct

from tongbao.kernel.errors import Conflict, NotFound, Rejected
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.parties.authentication.model import Act
from tongbao.parties.card_bins.model import BinKind

PREFIX: Final = "bcd"
RULES: Final = "bound_card"
"""The kind that the rules of binding have among the rules of opening."""
CONFIRM_WITHIN: Final = timedelta(minutes=30)


class BoundCardNotFound(NotFound):
    """This person has no such bank card."""

    code = "bound_card.not_found"
    advice = "List the bank cards to find its id."
    advice_zh = "银行卡不存在，请查询银行卡列表。"


class CardHolderUnknown(Rejected):
    """A card is bound by somebody whose real name registers have agreed to."""

    code = "bound_card.real_name_too_low"
    advice = "Give name and resident id, and have a register asked, before binding a card."
    advice_zh = "请先完成实名认证，再绑定银行卡。"


class CardNotVerified(Rejected):
    """The bank does not agree that these four belong together, or said nothing clear."""

    code = "bound_card.not_verified"
    advice = "Check number and phone as the bank has them; after `unknown` try again later."
    advice_zh = "银行未能核验姓名、证件、卡号与预留手机号一致，请核对；结果不明时请稍后再试。"


class CardNotTaken(Rejected):
    """Cards of this kind, or of a bank that nobody knows, cannot be bound."""

    code = "bound_card.not_taken"
    advice = "Bind a debit or credit card of a bank in China."
    advice_zh = "暂不支持该卡，请绑定境内银行的借记卡或信用卡。"


class BindingsTooMany(Rejected):
    """A rule on how often and how many cards are bound does not allow one more."""

    code = "bound_card.too_many"
    advice = "Unbind a card, or try on another day; `rule` names the rule and `most` its figure."
    advice_zh = "已达绑卡数量或频次上限（见 rule），请解绑后再试或择日再试。"


class BindingBarred(Conflict):
    """No card is bound for the person, until a day (银发〔2019〕85号)."""

    code = "bound_card.barred"
    advice = "No card can be bound here. Ask the operator."
    advice_zh = "暂无法为您绑定银行卡，请联系运营机构。"


class CardBoundAlready(Conflict):
    """The person has bound this card."""

    code = "bound_card.bound_already"
    advice = "Use the card that is bound."
    advice_zh = "该卡已绑定，无需重复操作。"


class BindingOver(Conflict):
    """The card was not verified, waited too long for its code, or is not bound any more."""

    code = "bound_card.over"
    advice = "Look at the card's status; begin again if it is not bound."
    advice_zh = "该绑卡申请已失效或银行卡已解绑，请重新绑定。"


class CardInUse(Conflict):
    """Money is on its way to or from the card."""

    code = "bound_card.in_use"
    advice = "Wait until the orders over this card have ended, then unbind it."
    advice_zh = "该卡有在途的充值或提现，请待其完成后再解绑。"


class NoVerifier(Rejected):
    """Nobody is connected who could verify a card."""

    code = "bound_card.no_verifier"
    advice = "Cards cannot be bound here for now."
    advice_zh = "暂未接入银行卡核验服务，无法绑卡。"


class BoundState(StrEnum):
    """How a try to bind stands."""

    ASKED = "asked"
    UNCLEAR = "unclear"
    REFUSED = "refused"
    VERIFIED = "verified"
    BOUND = "bound"
    UNBOUND = "unbound"


class BoundCard(Struct, frozen=True):
    """One row of the table."""

    id: UUID
    person_id: UUID
    mode: Mode
    vault_card_id: UUID
    par: str
    bin: str
    last4: str
    issuer: str
    brand: str
    kind: BinKind
    account_class: int | None
    phone_masked: str
    phone_mark: bytes
    device: UUID
    state: BoundState
    reference: str
    is_default: bool
    in_use: int
    asked_at: datetime
    answered_at: datetime | None
    bound_at: datetime | None
    ended_at: datetime | None

    @property
    def shown_id(self) -> str:
        """Return its public id."""
        return show(PREFIX, self.id)

    @property
    def act(self) -> Act:
        """Return what the code from the card's phone confirms: binding this card, and no other."""
        return Act("bind_card", f"bound_card.bind {self.shown_id}", payee=self.last4)


class CardAnswer(Protocol):
    """What a bank says of four elements; anything but same and different is unknown."""

    @property
    def verdict(self) -> str:
        """Return same, different or unknown."""

    @property
    def reference(self) -> str:
        """Return the bank's number for its answer."""

    @property
    def account_class(self) -> int | None:
        """Return the class of the bank account behind the card, where the bank tells it."""


class CardVerifier(Protocol):
    """Somebody who can ask a card's bank; wiring says who."""

    async def ask(
        self, number: str, *, name: str, resident_id: str, card_number: str, phone: str
    ) -> CardAnswer:
        """Ask whether these belong together; ``number`` is ours, and the same for a repeat."""


Verifiers = Mapping[Mode, CardVerifier | None]
