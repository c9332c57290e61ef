"""Virtual cards: a number shown once, limits to the fen, and nothing told to whoever charges."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from tests.parties.card_people import KEYRING, pan
from tests.parties.test_e_accounts import (
    MakeAccount,
    agrees,
    crash_at,
    freeze,
    left,
    make_account,
    now_is,
    send,
    teller,
)
from tests.parties.test_lines_of_the_law import seen
from tongbao.infra.db import Db
from tongbao.infra.kms.file import FileKms
from tongbao.infra.kms.sealing_keys import SealingKeys
from tongbao.kernel.card_numbers import is_luhn, scheme_of
from tongbao.kernel.errors import Refusal
from tongbao.kernel.licence import Licence
from tongbao.kernel.money import Money
from tongbao.parties.e_accounts.model import EAccount, EAccountStateWrong
from tongbao.parties.e_accounts.orders import Teller
from tongbao.parties.vault.model import Number
from tongbao.parties.virtual_cards import cards
from tongbao.parties.virtual_cards.model import (
    CardDeclined,
    CardLimits,
    CardLimitsWrong,
    CardState,
    VirtualCard,
    VirtualCardClosed,
    VirtualCardNotFound,
    VirtualCardsTooMany,
)

__all__ = ["make_account", "teller"]

KEYS = SealingKeys(FileKms(KEYRING, None))


async def issue(db: Db, account: EAccount, request: str = "c1", **limits: Any) -> cards.Issued:
    async with db.begin("test") as tx:
        return await cards.issue(tx, KEYS, account, CardLimits(**limits), request_id=request)


async def issued(db: Db, account: EAccount, **limits: Any) -> tuple[VirtualCard, Number]:
    made = await issue(db, account, **limits)
    assert made.number is not None
    return made.card, made.number


async def pay(teller: Teller, payee: EAccount, number: Number, amount: int, request: str) -> Any:
    money = Money(amount, "CNY")
    return await cards.pay_by_card(teller, KEYS, payee, number, money=money, request_id=request)


async def as_it_is(db: Db, card: VirtualCard) -> VirtualCard:
    return await cards.store.GET.one(db, card.book, card.id)


async def test_a_number_is_shown_once_and_kept_in_the_vault_alone(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    account = await make_account(fill=1_000)
    with crash_at("virtual_cards.before_issue_commit"):
        await issue(db, account)
    card, number = await issued(db, account, each_max=500)
    again = await issue(db, account)

    assert (again.card.id, again.number) == (card.id, None)
    assert number.number.startswith("990002")
    assert is_luhn(number.number)
    assert scheme_of(number.number) is None
    assert len(number.number) == 16
    rows = await db.fetch("select row_to_json(c)::text as row from virtual_card c", ())
    told = await db.fetch("select row_to_json(a)::text as row from audit_entry a", ())
    assert not [row for row in (*rows, *told) if number.number in row["row"]]
    assert number.number not in repr(
        (again, card, number, await cards.contributor().show(db, account.person_id))
    )
    for count in range(2, 6):
        await issue(db, account, f"c{count}")
    with pytest.raises(VirtualCardsTooMany) as refused:
        await issue(db, account, "c6")
    assert refused.value.facts["rule"] == "cards_max"
    with pytest.raises(EAccountStateWrong):
        await issue(db, await make_account(is_active=False))
    for wrong in ({"each_max": 0}, {"each_max": 2, "day_max": 1}, {"total_max": 10**16}):
        with pytest.raises(CardLimitsWrong):
            await issue(db, account, "c7", **wrong)
    with pytest.raises(VirtualCardNotFound):
        await cards.card_of_account(db, await make_account(), card.id)


async def test_a_card_pays_within_its_limits_once_and_no_reason_is_told(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    payer, payee = await make_account(fill=10_000), await make_account()
    card, number = await issued(db, payer, each_max=600, day_max=1_000, total_max=2_000)

    paid = [await pay(teller, payee, number, 600, "p1") for _ in range(2)]
    assert paid[0].id == paid[1].id
    await pay(teller, payee, number, 400, "p2")
    wrong = Number(number.number, "4001")
    unknown = Number(pan(1, "990002")[:16], number.expiry)
    for amount, given, request in (
        *((601, number, "p3"), (1, number, "p4"), (1, wrong, "p5"), (1, unknown, "p6")),
        (599, number, "p1"),
    ):
        with pytest.raises(CardDeclined) as refused:
            await pay(teller, payee, given, amount, request)
        assert not refused.value.facts

    assert (await now_is(db, payee)).balance == 1_000
    await db.fetch("update virtual_card set day = day - 1", ())
    await pay(teller, payee, number, 600, "p7")
    with pytest.raises(CardDeclined):
        await pay(teller, payee, number, 401, "p8")  # 400 are left of its life
    after = await as_it_is(db, card)
    assert (after.used, after.uses, after.day_used) == (1_600, 3, 600)
    assert (await left(db, payer))["weak_one/day"] == 100_000 - 1_600
    await agrees(db, payer, payee)


async def test_a_card_of_a_banks_first_class_pays_no_more_in_a_day_than_261_lets_go_unsigned(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    """The card has no limit of its own, and nobody signs what it pays."""
    bank = {"licence": Licence.BANK, "person": await seen(db)}
    payer, payee = await make_account(1, fill=5_000_001, **bank), await make_account()
    _, number = await issued(db, payer)
    await pay(teller, payee, number, 4_999_999, "p1")

    with pytest.raises(CardDeclined):
        await pay(teller, payee, number, 2, "p2")
    await pay(teller, payee, number, 1, "p3")

    assert (await left(db, payer))["weak_two/day"] == 0
    await send(teller, payer, payee, 1)  # signed by a certificate
    await agrees(db, payer, payee)


async def test_a_card_that_is_frozen_or_closed_pays_nothing_nor_one_of_a_frozen_account(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    payer, payee = await make_account(fill=1_000), await make_account()
    card, number = await issued(db, payer)

    async def do(act: str) -> VirtualCard:
        async with db.begin("test") as tx:
            if act == "close":
                return await cards.close(tx, card)
            return await cards.set_frozen(tx, card, is_frozen=act == "freeze")

    assert (await do("freeze")).state is CardState.FROZEN
    with pytest.raises(CardDeclined):
        await pay(teller, payee, number, 1, "p1")
    await do("unfreeze")
    await pay(teller, payee, number, 1, "p1")
    async with db.begin("test") as tx:
        await cards.set_limits(tx, card, CardLimits(total_max=1))
    with pytest.raises(CardDeclined):
        await pay(teller, payee, number, 1, "p2")
    with crash_at("virtual_cards.before_close_commit"):
        await do("close")
    assert (await do("close")).state is (await do("close")).state is CardState.CLOSED
    with pytest.raises(CardDeclined):
        await pay(teller, payee, number, 1, "p3")
    with pytest.raises(VirtualCardClosed):
        await do("unfreeze")
    with pytest.raises(VirtualCardClosed):
        async with db.begin("test") as tx:
            await cards.set_limits(tx, card, CardLimits())
    assert await db.fetch("select id from vault.card where sealed is not null", ()) == []
    other = await issue(db, payer, "c2")
    assert other.number is not None
    await freeze(db, payer, "out")
    with pytest.raises(CardDeclined):
        await pay(teller, payee, other.number, 1, "p4")
    async with db.begin("test") as tx:
        await cards.contributor().erase(tx, payer.person_id)
    assert (await as_it_is(db, other.card)).state is CardState.CLOSED


async def test_every_payee_has_request_ids_of_its_own_and_hears_what_was_paid_once_more(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    payer, one, two = await make_account(fill=100), await make_account(), await make_account()
    card, number = await issued(db, payer)

    first, second = await pay(teller, one, number, 10, "1"), await pay(teller, two, number, 10, "1")
    async with db.begin("test") as tx:
        await cards.close(tx, card)
    again = await pay(teller, one, number, 10, "1")  # the answer was lost; it is paid

    assert first.id == again.id != second.id
    assert [(await now_is(db, each)).balance for each in (one, two)] == [10, 10]
    assert not re.fullmatch("[A-Za-z0-9._-]+", first.request_id)  # no order of a person's own
    for amount, request in ((11, "1"), (10, "2")):
        with pytest.raises(CardDeclined):
            await pay(teller, one, number, amount, request)


async def test_no_more_guesses_are_heard_than_the_rules_say_however_many_come_at_once(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    payer, payee, other = [await make_account(fill=1_000) for _ in range(3)]
    _, number = await issued(db, payer)
    wrong = Number(number.number, "4001")
    unknown = Number(pan(7, "990002")[:16], "4001")
    with crash_at("virtual_cards.before_guess_commit"):
        await pay(teller, payee, wrong, 1, "g")

    async def told(by: EAccount, given: Number, request: str) -> str:
        with pytest.raises(Refusal) as refused:
            await pay(teller, by, given, 1, request)
        assert not refused.value.facts
        return refused.value.code

    heard = await asyncio.gather(*(told(payee, wrong, f"g{n}") for n in range(32)))
    of_nobody = [await told(other, unknown, f"u{n}") for n in range(6)]

    assert sorted(heard) == ["virtual_card.declined"] * 5 + ["virtual_card.too_many_guesses"] * 27
    assert of_nobody == ["virtual_card.declined"] * 5 + ["virtual_card.too_many_guesses"]
    assert await told(other, number, "right") == "virtual_card.too_many_guesses"
    second = await fresh(db, payer)
    await pay(teller, payee, second, 1, "p1")  # another card, and this payee has tries left
    for n in range(15):
        assert await told(payee, Number(pan(n, "990003")[:16], "4001"), f"x{n}") == (
            "virtual_card.declined"
        )
    assert await told(payee, second, "p2") == "virtual_card.too_many_guesses"
    assert (await pay(teller, other, second, 1, "p3")).amount == 1
    await db.fetch("update virtual_card_guess set day = day - 1", ())
    assert (await pay(teller, payee, number, 1, "tomorrow")).amount == 1
    told_of = await db.fetch(
        "select count(*)::int as n from audit_entry where action = 'virtual_card.guesses_over'", ()
    )
    assert told_of[0]["n"] == 3


async def fresh(db: Db, account: EAccount) -> Number:
    made = await issue(db, account, "another")
    assert made.number is not None
    return made.number


async def test_sixty_four_workers_never_pass_a_cards_limit_by_one_fen(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    payer, payee = await make_account(fill=100_000), await make_account()
    card, number = await issued(db, payer, day_max=20_000)
    amounts = [487 + 3 * n for n in range(64)]

    async def try_one(n: int) -> int:
        while True:
            try:
                await pay(teller, payee, number, amounts[n], f"p{n}")
            except CardDeclined:
                return 0
            except Refusal as refusal:
                if refusal.code != "ledger.in_flight":
                    raise
            else:
                return amounts[n]

    went = await asyncio.gather(*map(try_one, range(64)))

    paid = sum(went)
    rest = 20_000 - paid
    assert 0 <= rest < min(set(amounts).difference(went))  # of those that were declined
    assert (await as_it_is(db, card)).day_used == paid == (await now_is(db, payee)).balance
    await pay(teller, payee, number, rest, "rest") if rest else None
    with pytest.raises(CardDeclined):
        await pay(teller, payee, number, 1, "more")
    await agrees(db, payer, payee)
