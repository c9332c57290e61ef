"""The port to the banks of people's cards: what they are asked for, and what they may say."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Protocol
from uuid import UUID

from msgspec import Struct

from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.kms.sealing_keys import SealingKeys
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.bound_cards.queries import card_with_id, number_behind
from tongbao.parties.people.real_names import identity_of, identity_row
from tongbao.parties.vault.model import Number


class OverBank(Struct, frozen=True):
    """What a bank is asked for. In memory only; ``number`` is ours, the same for every repeat."""

    number: str
    rail_id: UUID  # our account that it goes over
    money: Money
    name: str
    card: Number
    made_at: datetime
    subject: str

    def __repr__(self) -> str:
        return f"OverBank({self.number})"


class BankSaid(Struct, frozen=True):
    """What a bank said. ``absent``: it has nothing of this number; ``unknown``: it may have."""

    verdict: Literal["done", "refused", "absent", "unknown"]
    reference: str = ""


class Bank(Protocol):
    """The ways to the banks of people's cards; wiring says which."""

    async def rail_for(self, kind: str, mode: Mode) -> UUID | None:
        """Return the account of ours that an order of a kind goes over, if there is one."""

    async def take(self, asked: OverBank) -> BankSaid:
        """Take the money from the card, once; it is never repeated."""

    async def take_back(self, asked: OverBank) -> BankSaid:
        """Undo the taking; ``done``: nothing is taken, or no more. Safe to repeat."""

    async def pay(self, asked: OverBank) -> BankSaid:
        """Pay the money to the card. Safe to repeat."""

    async def ask_paid(self, asked: OverBank) -> BankSaid:
        """Ask what became of the payment."""


class CardMoney(Struct, frozen=True):
    """What money goes over cards with: the banks, and what opens a card's number for them."""

    bank: Bank
    keys: SealingKeys
    keyring: Keyring


class Asking(Struct, frozen=True):
    """One movement over a card, without anything that must not be kept."""

    number: str
    rail_id: UUID
    card_id: UUID
    money: Money
    made_at: datetime
    subject: str


async def opened(db: Db, means: CardMoney, asking: Asking) -> OverBank:
    """Return a movement with the card's number and its holder's name, to be asked for at once.

    Raises:
        CardNotFound, SealUnreadable, SealingKeyDestroyed, KmsUnavailable
    """
    card = await card_with_id(db, asking.card_id)
    identity = await identity_row(db, card.person_id)
    if identity is None:
        raise LookupError("whoever has bound a card has a real name")
    who = await identity_of(db, means.keyring, identity)
    number = await number_behind(db, means.keys, card)
    return OverBank(
        asking.number,
        asking.rail_id,
        asking.money,
        who.name,
        number,
        asking.made_at,
        asking.subject,
    )
