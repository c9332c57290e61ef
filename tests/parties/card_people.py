"""People with real names and cards, and banks of theirs that say what they are told to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from tests.parties.phones import Carrier, deliver
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.kms.file import FileKms
from tongbao.infra.kms.sealing_keys import SealingKeys
from tongbao.kernel.card_numbers import check_digit
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Mode
from tongbao.ledger.book import Ledger
from tongbao.parties.authentication.step_up import Confirmed
from tongbao.parties.bound_cards import binding
from tongbao.parties.bound_cards.binding import Binder, NewCard
from tongbao.parties.bound_cards.model import BoundCard
from tongbao.parties.bound_cards.moving import BankSaid, CardMoney, OverBank
from tongbao.parties.e_accounts.orders import Teller
from tongbao.parties.people import dossier
from tongbao.parties.people.contacts import make_keys, read_contact
from tongbao.parties.people.model import Identity, Person
from tongbao.parties.people.real_names import give_identity
from tongbao.parties.vault.model import Number
from tongbao.rails.registers.bank_cards import CardSaid

KEYRING = Keyring([b"k" * 32])
NOTHING = Confirmed(None)
RAIL = UUID(int=77)
DONE = BankSaid("done", "B1")
UNKNOWN = BankSaid("unknown")


def pan(number: int, bank: str = "622848") -> str:
    """A card number of a bank: 19 digits with a right check digit."""
    digits = f"{bank}{number:010d}10"
    return digits + check_digit(digits)


def resident_id(number: int) -> str:
    digits = f"11010119900307{number:03d}"
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    total = sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=True))
    return digits + "10X98765432"[total % 11]


class Verifier:
    """Everybody's banks, which say what they are told to."""

    def __init__(self) -> None:
        self.said = CardSaid("same", "V1", 1)
        self.asked: list[dict[str, str]] = []

    async def ask(self, number: str, **elements: str) -> CardSaid:
        assert len(number) == 26
        self.asked.append(elements)
        return self.said


class FakeBank:
    """A bank at the end of a line: it remembers by number what it has done, once each.

    ``says`` is what is heard of the next calls; what is done is done whatever is heard.
    """

    def __init__(self) -> None:
        self.there = True
        self.taken: dict[str, int] = {}
        self.paid: dict[str, int] = {}
        self.calls: list[str] = []
        self.says: list[BankSaid] = []
        self.does: list[bool] = []  # whether the next taking or paying happens

    def _heard(self, call: str, said: BankSaid) -> BankSaid:
        self.calls.append(call)
        return self.says.pop(0) if self.says else said

    async def rail_for(self, kind: str, mode: Mode) -> UUID | None:
        del kind, mode
        return RAIL if self.there else None

    async def take(self, asked: OverBank) -> BankSaid:
        assert asked.number not in self.calls
        if not self.does or self.does.pop(0):
            self.taken[asked.number] = asked.money.amount
        return self._heard("take", DONE)

    async def take_back(self, asked: OverBank) -> BankSaid:
        known = self.taken.pop(asked.number, None)
        return self._heard("take_back", BankSaid("absent") if known is None else DONE)

    async def pay(self, asked: OverBank) -> BankSaid:
        assert asked.name == "张三"
        if not self.does or self.does.pop(0):
            self.paid.setdefault(asked.number, asked.money.amount)
        return self._heard("pay", DONE)

    async def ask_paid(self, asked: OverBank) -> BankSaid:
        known = asked.number in self.paid
        return self._heard("ask_paid", DONE if known else BankSaid("absent"))


class People:
    """A deployment with people who have real names, cards and accounts."""

    def __init__(self, db: Db, ledger: Ledger | None = None, first: int = 0) -> None:
        self.db = db
        self.carrier, self.verifier, self.bank = Carrier(), Verifier(), FakeBank()
        self.keys = SealingKeys(FileKms(KEYRING, None))
        self.binder = Binder(db, KEYRING, self.keys, dict.fromkeys(Mode, self.verifier))
        if ledger is not None:
            self.teller = Teller(db, ledger, CardMoney(self.bank, self.keys, KEYRING))
        self._made = first

    async def somebody(
        self, level: int = 3, mode: Mode = Mode.LIVE, keyring: Keyring = KEYRING
    ) -> Person:
        """A person whose name registers agree with."""
        self._made += 1
        person_id = new_id()
        await self.db.fetch(
            "insert into person (id, mode, state, language, real_name_level, failures, created_at)"
            " values ($1, $2, 'active', 'zh', $3, 0, $4)",
            (person_id, mode.value, level, self.db.clock.now()),
        )
        person = await dossier.person_with_id(self.db, person_id)
        async with self.db.begin("test") as tx:
            await make_keys(tx, keyring, person_id)
            await give_identity(tx, keyring, person, Identity("张三", resident_id(self._made)))
        return person

    async def ask(self, person: Person, number: str, **more: Any) -> binding.Asked:
        phone = more.get("phone", "13900139000")
        await self.db.fetch("delete from code_allowance", ())
        new = NewCard(
            Number(number, "4912"), read_contact(phone), more.get("device", person.id), "10.0.0.1"
        )
        return await binding.ask_to_bind(self.binder, person, new, NOTHING)

    async def code(self, phone: str = "13900139000") -> str:
        await deliver(self.db, self.binder.keyring, self.carrier)
        text = [each.text for each in self.carrier.messages if each.to == f"+86{phone}"][-1]
        return next(part for part in _numbers(text) if len(part) == 6)

    async def bind(self, person: Person, number: str, **more: Any) -> BoundCard:
        asked = await self.ask(person, number, **more)
        code = await self.code(more.get("phone", "13900139000"))
        return await binding.confirm_binding(
            self.binder, person, asked.card, code_id=asked.sent.code_id, code=code
        )


async def together(*works: Any) -> Sequence[Any]:
    """Run everything at once and return what came of each, refusals too."""
    return await asyncio.gather(*works, return_exceptions=True)


def _numbers(text: str) -> list[str]:
    return "".join(letter if letter.isdigit() else " " for letter in text).split()
