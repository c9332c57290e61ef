"""Money between bank cards and electronic accounts: once, whatever dies or is not said."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from tests.parties.card_people import DONE, NOTHING, UNKNOWN, People, pan, together
from tests.parties.test_e_accounts import Held, approved, crash_at
from tongbao.controls.limits.model import LimitExceeded
from tongbao.infra.db import Db
from tongbao.infra.tasks import Again
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Licence
from tongbao.kernel.money import Money
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import AccountKey
from tongbao.ledger.queries import balance_of
from tongbao.parties.bound_cards import binding
from tongbao.parties.bound_cards.model import BoundCard, CardInUse
from tongbao.parties.bound_cards.moving import BankSaid, OverBank
from tongbao.parties.bound_cards.queries import card_with_id
from tongbao.parties.e_accounts import bank_orders, freezes, opening, orders, queries
from tongbao.parties.e_accounts.bank_orders import RunBankOrder
from tongbao.parties.e_accounts.model import (
    Direction,
    EAccount,
    EAccountBalanceShort,
    EAccountFrozen,
    EAccountNotEmpty,
    NoBankThere,
    OrderOver,
    RequestDiffers,
)
from tongbao.parties.e_accounts.orders import Wanted
from tongbao.rails.registers.bank_cards import CardSaid

Opened = Callable[..., Awaitable[tuple[EAccount, BoundCard]]]
REFUSED = BankSaid("refused")
ABSENT = BankSaid("absent")


@pytest.fixture
async def people(db: Db, ledger: Ledger) -> Any:
    await ledger.open_book(1, actor="test")
    yield People(db, ledger)
    await ledger.close()


@pytest.fixture
def opened(people: People) -> Opened:
    """``await opened(3, licence=…)`` opens an account and binds a card of the same person."""

    async def make(
        account_class: int = 3,
        *,
        licence: Licence = Licence.PAYMENT_INSTITUTION,
        card_class: int = 1,
    ) -> tuple[EAccount, BoundCard]:
        person = await people.somebody()
        people.verifier.said = CardSaid("same", "V", card_class)
        phone = f"139{people._made:08d}"
        card = await people.bind(person, pan(people._made), phone=phone)
        async with people.db.begin("test") as tx:
            account = await opening.open_account(
                tx, licence, person, account_class, public_key=person.id.bytes
            )
            return await opening.activate(tx, account), card

    return make


async def move(
    people: People, kind: Any, account: EAccount, card: BoundCard, amount: int, request: str = ""
) -> Any:
    wanted = Wanted(kind, Money(amount, "CNY"), request or str(new_id()), card=card.id)
    return await bank_orders.order_over_bank(
        people.teller, account, card, wanted, level=3, confirmed=NOTHING
    )


async def step(people: People, order: Any) -> Again | None:
    task = RunBankOrder(order.book, order.id)
    return await bank_orders.run_bank_order(people.teller, task, Held(new_id(), 1))


async def filled(people: People, account: EAccount, card: BoundCard, amount: int) -> None:
    order = await move(people, "top_up", account, card, amount)
    assert await step(people, order) is None


async def seen(people: People, account: EAccount, order: Any = None) -> tuple[Any, ...]:
    """The balance here and in the ledger, what is on its way out, and how the order stands."""
    db, now = people.db, await queries.account_with_id(people.db, account.id)
    held = await balance_of(db, now.book, now.key)
    away = await balance_of(db, now.book, AccountKey("e_account_leaving", "CNY", None))
    assert held.posted == now.balance
    state = None if order is None else (await queries.order_of_account(db, now, order.id)).state
    return (now.balance, away.posted, state)


async def left(people: People, account: EAccount) -> dict[str, int]:
    found = await queries.limits_of_account(people.db, account, people.db.clock.now())
    return {f"{each.rule.meter}/{each.rule.period}": each.left for each in found}


async def test_money_comes_from_a_card_and_goes_to_it(people: People, opened: Opened) -> None:
    account, card = await opened()
    order = await move(people, "top_up", account, card, 5_000, "r1")
    again = await move(people, "top_up", account, card, 5_000, "r1")
    assert (again.id, order.state) == (order.id, "waiting")
    assert await seen(people, account, order) == (0, 0, "waiting")
    with pytest.raises(CardInUse):
        async with people.db.begin("test") as tx:
            await binding.unbind(tx, card)
    with pytest.raises(OrderOver):
        async with people.db.begin("test") as tx:
            await orders.cancel(tx, order)
    for _ in range(2):
        assert await step(people, order) is None
    assert await seen(people, account, order) == (5_000, 0, "done")

    out = await move(people, "withdrawal", account, card, 2_000, "r2")
    assert await seen(people, account, out) == (3_000, 2_000, "waiting")
    with pytest.raises(EAccountNotEmpty):
        async with people.db.begin("test") as tx:
            await opening.close_account(tx, account)
    for _ in range(2):
        assert await step(people, out) is None

    assert await seen(people, account, out) == (3_000, 0, "done")
    assert list(people.bank.paid.values()) == [2_000]
    lines = (await queries.statement_of(people.db, account, cursor=None, limit=None)).items
    assert [(line.code.split("/")[0], line.change) for line in lines] == [
        ("e_account.leaving", -2_000),
        ("e_account.landed", 5_000),
    ]
    assert (await card_with_id(people.db, card.id)).in_use == 0
    with pytest.raises(RequestDiffers):
        await move(people, "withdrawal", account, card, 2_001, "r2")
    with pytest.raises(EAccountBalanceShort):
        await move(people, "withdrawal", account, card, 3_001)
    people.bank.there = False
    with pytest.raises(NoBankThere):
        await move(people, "top_up", account, card, 1)


async def test_a_charge_without_an_answer_is_taken_back_and_never_repeated(
    people: People, opened: Opened
) -> None:
    account, card = await opened()
    bank = people.bank
    order = await move(people, "top_up", account, card, 700)
    bank.says = [UNKNOWN, UNKNOWN]
    assert isinstance(await step(people, order), Again)  # it was taken, and nobody said so
    assert isinstance(await step(people, order), Again)  # nor whether it was given back
    assert await seen(people, account, order) == (0, 0, "waiting")
    assert isinstance(await step(people, order), Again)  # the bank knows nothing: too soon to tell
    people.db.clock.offset += timedelta(minutes=11)
    assert await step(people, order) is None

    assert await seen(people, account, order) == (0, 0, "failed")
    assert bank.calls == ["take", *["take_back"] * 3]
    assert bank.taken == {}
    refused = await move(people, "top_up", account, card, 700)
    bank.says, bank.does = [REFUSED], [False]
    assert await step(people, refused) is None
    found = await queries.order_of_account(people.db, account, refused.id)
    assert (found.state, found.code) == ("failed", "e_account.bank_refused")
    assert (await card_with_id(people.db, card.id)).in_use == 0


async def test_a_payment_without_an_answer_is_asked_about_and_paid_once(
    people: People, opened: Opened
) -> None:
    account, card = await opened()
    bank = people.bank
    await filled(people, account, card, 9_000)
    paid = await move(people, "withdrawal", account, card, 1_000)
    bank.says = [UNKNOWN, UNKNOWN]
    for _ in range(2):
        assert isinstance(await step(people, paid), Again)
    assert await step(people, paid) is None
    lost = await move(people, "withdrawal", account, card, 2_000)
    bank.says, bank.does = [UNKNOWN], [False]
    assert isinstance(await step(people, lost), Again)
    assert await step(people, lost) is None  # the bank had none of it, and is told again
    assert await seen(people, account, lost) == (6_000, 0, "done")
    back = await move(people, "withdrawal", account, card, 4_000)
    bank.says, bank.does = [REFUSED], [False]
    assert await step(people, back) is None

    assert await seen(people, account, back) == (6_000, 0, "failed")
    assert sorted(bank.paid.values()) == [1_000, 2_000]
    repeated = await move(people, "withdrawal", account, card, 3_000)
    bank.says = [UNKNOWN, ABSENT, REFUSED, DONE]  # refused as a repeat, of what was done
    assert isinstance(await step(people, repeated), Again)
    assert await step(people, repeated) is None
    assert await seen(people, account, repeated) == (3_000, 0, "done")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("top_up", "e_accounts.before_top_up_commit"),
        ("top_up", "e_accounts.before_charge"),
        ("top_up", "e_accounts.after_charge"),
        ("top_up", "e_accounts.before_end"),
        ("top_up", "e_accounts.after_end"),
        ("top_up", "e_accounts.after_undo"),
        ("top_up", "e_accounts.before_nothing_commit"),
        ("withdrawal", "e_accounts.before_withdrawal"),
        ("withdrawal", "e_accounts.after_withdrawal"),
        ("withdrawal", "e_accounts.before_payment"),
        ("withdrawal", "e_accounts.after_payment"),
        ("withdrawal", "e_accounts.before_end"),
        ("withdrawal", "e_accounts.after_end"),
    ],
)
async def test_whoever_dies_where_the_bank_and_the_account_agree_in_the_end(
    people: People, opened: Opened, kind: str, name: str
) -> None:
    account, card = await opened()
    if kind == "withdrawal":
        await filled(people, account, card, 1_000)
    if name in {"e_accounts.after_undo", "e_accounts.before_nothing_commit"}:
        people.bank.says = [UNKNOWN]
    before = dict(people.bank.taken)

    async def do() -> None:
        order = await move(people, kind, account, card, 600, "r1")
        for _ in range(6):
            people.db.clock.offset += timedelta(minutes=6)
            if await step(people, order) is None:
                return
        raise AssertionError("it never ended")

    with crash_at(name):
        await do()
    await do()

    order = await move(people, kind, account, card, 600, "r1")
    balance, away, state = await seen(people, account, order)
    at_bank = sum(people.bank.taken.values()) - sum(people.bank.paid.values())
    assert (balance, away) == (at_bank, 0)
    assert state == "done" or (kind == "top_up" and people.bank.taken == before)
    assert (await card_with_id(people.db, card.id)).in_use == 0


async def test_a_refusal_that_comes_late_gives_back_nothing_that_another_run_has_paid(
    people: People, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, card = await opened()
    bank, pay = people.bank, people.bank.pay
    await filled(people, account, card, 1_000)
    order = await move(people, "withdrawal", account, card, 600)

    async def overtaken(_asked: OverBank) -> BankSaid:
        monkeypatch.setattr(bank, "pay", pay)
        bank.says = [ABSENT, UNKNOWN]
        assert isinstance(await step(people, order), Again)  # the other run pays, and hears nothing
        return REFUSED  # this one's number is there already

    monkeypatch.setattr(bank, "pay", overtaken)
    assert isinstance(await step(people, order), Again)
    assert await seen(people, account, order) == (400, 600, "waiting")
    assert await step(people, order) is None

    assert await seen(people, account, order) == (400, 0, "done")
    assert list(bank.paid.values()) == [600]


async def test_what_came_back_is_not_paid_by_a_run_that_asked_before(
    people: People, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, card = await opened()
    bank, pay = people.bank, people.bank.pay
    await filled(people, account, card, 1_000)
    order = await move(people, "withdrawal", account, card, 600)
    asked, ended = asyncio.Event(), asyncio.Event()
    other: list[asyncio.Task[Again | None]] = []

    async def slow_absence(_asked: OverBank) -> BankSaid:
        asked.set()
        await ended.wait()
        return ABSENT

    async def refuses(_asked: OverBank) -> BankSaid:
        monkeypatch.setattr(bank, "pay", pay)
        other.append(asyncio.create_task(step(people, order)))
        await asked.wait()
        return REFUSED

    monkeypatch.setattr(bank, "pay", refuses)
    monkeypatch.setattr(bank, "ask_paid", slow_absence)
    assert await step(people, order) is None
    ended.set()
    await asyncio.gather(*other)

    assert await seen(people, account, order) == (1_000, 0, "failed")
    assert bank.paid == {}


async def test_who_comes_late_to_a_charge_that_is_taken_back_lands_nothing(
    people: People, opened: Opened
) -> None:
    """One run hears the bank's yes only after another run has begun to take the charge back."""
    account, card = await opened()
    order = await move(people, "top_up", account, card, 700)
    people.bank.says = [UNKNOWN]
    await step(people, order)
    await people.db.fetch("update e_account_leg set sends = 2 where order_id = $1", (order.id,))
    found = await queries.order_of_account(people.db, account, order.id)
    leg = await bank_orders.store.GET_LEG.one(people.db, order.book, order.id)

    assert not await bank_orders._land(people.teller, found, leg, DONE)

    assert await seen(people, account, order) == (0, 0, "waiting")
    assert await step(people, order) is None
    assert await seen(people, account, order) == (0, 0, "failed")
    assert people.bank.taken == {}


async def test_what_is_on_its_way_lands_in_a_frozen_account_and_new_money_does_not(
    people: People, opened: Opened
) -> None:
    account, card = await opened()
    await filled(people, account, card, 1_000)
    coming = await move(people, "top_up", account, card, 500)
    going = await move(people, "withdrawal", account, card, 300)
    terms = freezes.FreezeTerms(
        account.shown_id, account.mode, "judicial", Direction.ALL, "(2026) 1"
    )
    async with people.db.begin("test") as tx:
        await freezes.freeze(tx, approved(people.db), terms)
    people.bank.says, people.bank.does = [DONE, REFUSED], [True, False]

    for order in (coming, going):
        assert await step(people, order) is None

    assert await seen(people, account, going) == (1_500, 0, "failed")
    for kind in ("top_up", "withdrawal"):
        with pytest.raises(EAccountFrozen):
            await move(people, kind, account, card, 1)


@pytest.mark.parametrize(("card_class", "own"), [(1, True), (2, False)])
async def test_only_the_bound_account_of_class_one_is_beyond_a_banks_limits(
    people: People, opened: Opened, card_class: int, own: bool
) -> None:
    account, card = await opened(2, licence=Licence.BANK, card_class=card_class)
    if own:
        await filled(people, account, card, 5_000_000)
        out = await move(people, "withdrawal", account, card, 4_000_000)
        assert await step(people, out) is None
        assert (await left(people, account))["out_others/day"] == 1_000_000
        return
    with pytest.raises(LimitExceeded) as refused:
        await move(people, "top_up", account, card, 1_000_001)
    assert "银发〔2018〕16号" in str(refused.value.facts["instrument"])
    failed = await move(people, "top_up", account, card, 1_000_000)
    people.bank.says, people.bank.does = [REFUSED], [False]
    await step(people, failed)
    assert (await left(people, account))["in_others/day"] == 1_000_000  # it never came
    await filled(people, account, card, 1_000_000)
    with pytest.raises(LimitExceeded):
        await move(people, "top_up", account, card, 1)
    out = await move(people, "withdrawal", account, card, 1_000_000)
    assert (await left(people, account))["out_others/day"] == 0
    assert out.state == "waiting"


async def test_what_failed_gives_its_room_back(people: People, opened: Opened) -> None:
    account, card = await opened(1)  # of all its life: 1000 yuan out
    await filled(people, account, card, 100_000)
    out = await move(people, "withdrawal", account, card, 100_000)
    people.bank.says, people.bank.does = [REFUSED], [False]
    await step(people, out)
    assert (await left(people, account))["out_all/lifetime"] == 100_000
    third, other = await opened(3, licence=Licence.BANK)
    failed = await move(people, "top_up", third, other, 200_000)
    with pytest.raises(LimitExceeded):
        await move(people, "top_up", third, other, 1)
    people.bank.says, people.bank.does = [REFUSED], [False]
    await step(people, failed)

    await filled(people, third, other, 200_000)
    going = await move(people, "withdrawal", third, other, 50_000)
    with pytest.raises(LimitExceeded):  # it may come back, so its room is still taken
        await move(people, "top_up", third, other, 1)
    await step(people, going)
    await filled(people, third, other, 50_000)


async def test_whoever_is_overtaken_by_the_same_withdrawal_is_told_that_it_began(
    people: People, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, card = await opened(3, licence=Licence.BANK)
    await filled(people, account, card, 1_000)
    really = bank_orders._begin_withdrawal
    first: list[Any] = []

    async def overtaken(*args: Any) -> Any:
        first.append(await really(*first_args(args)))
        return await really(*args)

    def first_args(args: Any) -> Any:
        teller, its, new, leg, confirmed = args
        twin = replace(new, id=new_id())
        return teller, its, twin, replace(leg, order_id=twin.id), confirmed

    monkeypatch.setattr(bank_orders, "_begin_withdrawal", overtaken)
    second = await move(people, "withdrawal", account, card, 1_000, "once")

    assert second.id == first[0].id
    balance, away, _ = await seen(people, account)
    assert (balance, away) == (0, 1_000)


async def test_sixty_four_workers_never_pass_a_meter_by_one_fen_over_cards(
    people: People, opened: Opened
) -> None:
    account, card = await opened(3, licence=Licence.BANK)
    amounts = [5_989 + 17 * n for n in range(64)]

    async def fill(amount: int) -> int:
        order = await move(people, "top_up", account, card, amount)
        return amount if await step(people, order) is None else 0

    async def empty(amount: int) -> int:
        order = await move(people, "withdrawal", account, card, amount)
        return amount if await step(people, order) is None else 0

    came = [each for each in await together(*map(fill, amounts)) if isinstance(each, int)]
    room = (await left(people, account))["balance/moment"]
    assert room == 200_000 - sum(came)
    assert 0 <= room < min(set(amounts).difference(came))  # the least that was refused
    await filled(people, account, card, room)
    went = [each for each in await together(*map(empty, amounts)) if isinstance(each, int)]

    balance, away, _ = await seen(people, account)
    assert (balance, away) == (200_000 - sum(went), 0)
    assert balance < max(amounts)
    assert sum(people.bank.paid.values()) == sum(went)
    assert (await left(people, account))["balance/moment"] == sum(went)


async def test_live_money_needs_a_card(people: People, opened: Opened) -> None:
    account, _ = await opened()
    wanted = Wanted("top_up", Money(1, "CNY"), "r")
    with pytest.raises(NoBankThere):
        await orders.order(people.teller, account, wanted, level=3, confirmed=NOTHING)
