"""Electronic accounts walked at random: whatever comes in which order, the sums hold each time."""

from __future__ import annotations

import os
import random
from datetime import timedelta
from typing import Any

import pytest

from tests.parties.card_people import UNKNOWN, People
from tests.parties.test_card_money import REFUSED, Opened, move, opened, people, step
from tests.parties.test_e_accounts import approved, send
from tongbao.controls.limits.model import LimitExceeded
from tongbao.kernel.errors import Conflict, Rejected
from tongbao.kernel.ids import base32
from tongbao.kernel.licence import Licence
from tongbao.ledger.model import AccountKey
from tongbao.ledger.queries import balance_of
from tongbao.parties.bound_cards.model import BoundCard
from tongbao.parties.bound_cards.queries import card_with_id
from tongbao.parties.e_accounts import freezes, opening, queries
from tongbao.parties.e_accounts.model import Direction, EAccount, EAccountState

__all__ = ["opened", "people"]

STEPS = 70
CAP = 200_000
"""What a bank's third class holds at most (银发〔2018〕16号)."""
MAY: dict[EAccountState, set[EAccountState]] = {
    EAccountState.OPENED: {EAccountState.ACTIVE, EAccountState.CLOSED},
    EAccountState.ACTIVE: {EAccountState.DORMANT, EAccountState.CLOSED},
    EAccountState.DORMANT: {EAccountState.ACTIVE, EAccountState.CLOSED},
    EAccountState.CLOSED: set(),
}


class Walk:
    """One account with its card, another to send to, and what is known of both."""

    def __init__(
        self, people: People, mine: tuple[EAccount, BoundCard], other: EAccount, seed: int
    ) -> None:
        self.people, self.dice = people, random.Random(seed)
        self.account, self.card = mine
        self.other = other
        self.waiting: dict[Any, Any] = {}
        self.standing: list[Any] = []
        self.sent = 0
        self.done: set[str] = set()
        self.state = EAccountState.ACTIVE

    async def go(self) -> None:
        works = [self.top_up, self.withdraw, self.transfer, self.freeze, self.lift, self.close]
        await self.dice.choices([*works, self.bank], weights=[4, 3, 4, 1, 3, 1, 9])[0]()

    def amount(self) -> int:
        return self.dice.choice((1, 999, 20_000, 70_000, CAP))

    async def begin(self, kind: str) -> None:
        order = await move(self.people, kind, self.account, self.card, self.amount())
        self.waiting[order.id] = order
        self.done.add(kind)

    async def top_up(self) -> None:
        await self.begin("top_up")

    async def withdraw(self) -> None:
        await self.begin("withdrawal")

    async def transfer(self) -> None:
        amount = self.amount() // 10 + 1
        await send(self.people.teller, self.account, self.other, amount)
        self.sent += amount
        self.done.add("transfer")

    async def freeze(self) -> None:
        if len(self.standing) > 1:
            return
        amount = self.dice.choice((None, 500, 30_000, 90_000))
        direction = Direction.OUT if amount else self.dice.choice(tuple(Direction))
        terms = freezes.FreezeTerms(
            self.account.shown_id, self.account.mode, "judicial", direction, "d", amount
        )
        async with self.people.db.begin("test") as tx:
            self.standing.append(await freezes.freeze(tx, approved(self.people.db), terms))
        self.done.add("freeze")

    async def lift(self) -> None:
        if self.standing:
            found = self.standing.pop(self.dice.randrange(len(self.standing)))
            shown = freezes.shown_freeze(found)
            terms = freezes.LiftTerms(self.account.shown_id, self.account.mode, shown, "d")
            async with self.people.db.begin("test") as tx:
                await freezes.lift(tx, approved(self.people.db), terms)

    async def close(self) -> None:
        now = await queries.account_with_id(self.people.db, self.account.id)
        if now.balance or self.waiting or self.standing:
            with pytest.raises(Conflict):
                await self._close()

    async def _close(self) -> None:
        async with self.people.db.begin("test") as tx:
            await opening.close_account(tx, self.account)

    async def bank(self) -> None:
        """Let an order go on; the bank does it or not, and says so or not."""
        if not self.waiting:
            return
        order = self.waiting[self.dice.choice(list(self.waiting))]
        bank = self.people.bank
        self.people.db.clock.offset += timedelta(minutes=4)
        if await self._is_new(order):
            bank.does = [self.dice.random() < 0.7]
            honest = [] if bank.does[0] else [REFUSED]
            bank.says = self.dice.choice((honest, honest, [UNKNOWN]))
        if await step(self.people, order) is None:
            del self.waiting[order.id]
            self.done.add("end")
        bank.says, bank.does = [], []

    async def _is_new(self, order: Any) -> bool:
        rows = await self.people.db.fetch(
            "select sends from e_account_leg where order_id = $1", (order.id,)
        )
        return rows[0]["sends"] == 0

    async def check(self) -> None:
        db, bank = self.people.db, self.people.bank
        now = await queries.account_with_id(db, self.account.id)
        held = await balance_of(db, now.book, now.key)
        away = await balance_of(db, now.book, AccountKey("e_account_leaving", "CNY", None))
        limits = await queries.limits_of_account(db, now, db.clock.now())
        meter = next(each for each in limits if each.rule.meter == "balance")
        coming = sum(w.amount for w in self.waiting.values() if w.kind == "top_up")
        going = sum(w.amount for w in self.waiting.values() if w.kind == "withdrawal")
        # A charge whose order waits may have been taken at the bank already, or a payment made.
        unsure = {w.id for w in self.waiting.values()}
        taken = sum(bank.taken.values()) - sum(bank.paid.values())
        open_taken = sum(a for n, a in bank.taken.items() if n in {_number(i) for i in unsure})
        open_paid = sum(a for n, a in bank.paid.items() if n in {_number(i) for i in unsure})

        assert held.posted == now.balance >= 0
        assert away.posted == going
        assert meter.used == now.balance + coming + going <= CAP
        assert taken - open_taken + open_paid == now.balance + going + self.sent
        assert now.held == sum(f.amount or 0 for f in self.standing)
        assert (await card_with_id(db, self.card.id)).in_use == len(self.waiting)
        assert now.state is self.state or now.state in MAY[self.state]
        self.state = now.state


def _number(order_id: Any) -> str:
    return base32(order_id)


@pytest.mark.parametrize("seed", range(int(os.environ.get("TONGBAO_WALKS", "3"))))
async def test_whatever_comes_in_whatever_order_the_sums_hold(
    people: People, opened: Opened, seed: int
) -> None:
    mine = await opened(3, licence=Licence.BANK)
    other, _ = await opened(3)
    walk = Walk(people, mine, other, seed)
    refused = 0
    for _ in range(STEPS):
        try:
            await walk.go()
        except (Conflict, Rejected, LimitExceeded):
            refused += 1
        await walk.check()
    walk.dice = random.Random(seed)
    for _ in range(len(walk.waiting) * 4):
        for order in list(walk.waiting.values()):
            people.db.clock.offset += timedelta(hours=1)
            if await step(people, order) is None:
                del walk.waiting[order.id]
    await walk.check()

    assert not walk.waiting
    assert {"top_up", "end"} <= walk.done
    assert 0 < refused < STEPS - 10
