"""People barred for accounts sold or lent: nothing opened, bound or moved out, until their day."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta
from typing import Any

import pytest

from tests.parties.card_people import KEYRING, People, pan, resident_id
from tests.parties.phones import Phone
from tests.parties.test_e_account_routes import AT, account, alice, app
from tests.parties.test_e_accounts import (
    MakeAccount,
    approved,
    crash_at,
    make_account,
    now_is,
    run,
    send,
    somebody,
    teller,
    top_up,
    withdraw,
)
from tests.parties.test_person_locks import until_one_waits
from tongbao.infra import audit
from tongbao.infra.db import Db
from tongbao.kernel.clock import business_date, day_bounds
from tongbao.kernel.licence import Licence
from tongbao.parties.barring import barring
from tongbao.parties.barring.barring import BarNotStanding, BarStands, BarTerms, BarWrong
from tongbao.parties.bound_cards import binding
from tongbao.parties.bound_cards.model import BindingBarred
from tongbao.parties.e_accounts import opening
from tongbao.parties.e_accounts.model import EAccount, EAccountBarred, EAccountOpeningBarred
from tongbao.parties.e_accounts.orders import Teller
from tongbao.parties.people.dossier import check_not_barred, erase_person, person_with_id
from tongbao.parties.people.model import Identity, Person, RealNameNotConfirmed
from tongbao.parties.people.real_names import give_identity

__all__ = ["alice", "app", "make_account", "teller"]


async def bar(db: Db, person: Person, confirmed_on: date | None = None) -> Any:
    day = confirmed_on or business_date(db.clock.now())
    async with db.begin("test") as tx:
        terms = BarTerms(person.actor, "(2026) 1", day)
        return await barring.bar(tx, approved(db), terms)


async def lift(db: Db, person: Person) -> None:
    async with db.begin("test") as tx:
        await barring.lift_bar(tx, approved(db), barring.LiftBarTerms(person.actor, "(2026) 2"))


async def open_one(db: Db, person: Person, account_class: int = 2) -> EAccount:
    async with db.begin("test") as tx:
        return await opening.open_account(
            tx, Licence.PAYMENT_INSTITUTION, person, account_class, public_key=b"x"
        )


async def test_who_is_barred_opens_and_moves_nothing_until_the_day(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    person = await somebody(db)
    mine, other = await make_account(person=person, fill=1_000), await make_account(fill=500)
    later = db.clock.now() + timedelta(hours=1)
    waits = await send(teller, mine, other, 1, timing="scheduled", run_at=later)
    with crash_at("barring.before_bar_commit"):
        await bar(db, person)
    await send(teller, mine, other, 100)  # it did not happen

    made = await bar(db, person)

    today = made.confirmed_on
    assert made.ends_at == day_bounds(today.replace(year=today.year + 5))[0]
    assert "85号" in made.instrument
    for act in (send(teller, mine, other, 1), withdraw(teller, mine, 1), top_up(teller, mine, 1)):
        with pytest.raises(EAccountBarred):
            await act
    with pytest.raises(EAccountOpeningBarred):
        await open_one(db, person)
    async with db.begin("test") as tx:
        with pytest.raises(EAccountOpeningBarred):  # a merchant's wallet over the account there is
            await opening.account_for(tx, Licence.PAYMENT_INSTITUTION, person, 3, public_key=b"x")
    await send(teller, other, mine, 7)  # what others send lands
    db.clock.offset += timedelta(hours=2)
    await run(teller, waits)
    ended = await db.fetch("select code from e_account_order where id = $1", (waits.id,))
    assert "e_account.barred" in str(ended)
    assert (await now_is(db, mine)).balance == 907
    with pytest.raises(BarStands):
        await bar(db, person)

    db.clock.offset += made.ends_at - db.clock.now() - timedelta(seconds=30)
    with pytest.raises(EAccountBarred):
        await send(teller, mine, other, 1)
    db.clock.offset += timedelta(seconds=31)
    await send(teller, mine, other, 1)
    await open_one(db, person)
    with pytest.raises(BarNotStanding):
        await lift(db, person)


async def test_what_was_checked_before_the_bar_is_refused_by_its_own_movement(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    person = await somebody(db)
    mine, other = await make_account(person=person, fill=1_000), await make_account()
    async with db.begin("test") as tx:
        day = business_date(tx.now)
        await barring.bar(tx, approved(db), BarTerms(person.actor, "(2026) 1", day))
        out = asyncio.create_task(send(teller, mine, other, 1))
        await until_one_waits(db)
    with pytest.raises(EAccountBarred):
        await out
    await lift(db, person)
    async with db.begin("test") as tx:
        await barring.bar(tx, approved(db), BarTerms(person.actor, "(2026) 3", day))
        into = asyncio.create_task(top_up(teller, mine, 1))
        await until_one_waits(db)
    with pytest.raises(EAccountBarred):
        await into
    assert (await now_is(db, mine)).balance == 1_000


async def test_an_opening_that_meets_a_bar_waits_for_it_and_is_refused(db: Db) -> None:
    person = await somebody(db)
    async with db.begin("test") as tx:
        day = business_date(tx.now)
        await barring.bar(tx, approved(db), BarTerms(person.actor, "(2026) 1", day))
        asked = asyncio.create_task(open_one(db, person))
        await until_one_waits(db)
    with pytest.raises(EAccountOpeningBarred):
        await asked


async def test_a_bar_that_meets_an_opening_bars_what_was_opened(db: Db) -> None:
    person = await somebody(db)
    async with db.begin("test") as tx:
        opened = await opening.open_account(
            tx, Licence.PAYMENT_INSTITUTION, person, 2, public_key=b"x"
        )
        asked = asyncio.create_task(bar(db, person))
        await until_one_waits(db)
    made = await asked
    assert (await now_is(db, opened)).barred_until == made.ends_at


async def test_an_early_end_frees_the_accounts_and_both_are_written_down(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    person = await somebody(db)
    mine = await make_account(person=person, fill=10)
    await bar(db, person)
    with crash_at("barring.before_lift_commit"):
        await lift(db, person)
    with pytest.raises(EAccountBarred):
        await withdraw(teller, mine, 10)
    await lift(db, person)
    await withdraw(teller, mine, 10)
    acts = [each.action for each in await audit.entries_of_subject(db, person.actor)]
    assert {"person.barred", "person.bar_lifted"} <= set(acts)
    with pytest.raises(BarNotStanding):
        await lift(db, person)


async def test_a_bar_is_of_a_day_that_was_and_of_a_term_that_is_not_over(db: Db) -> None:
    person, today = await somebody(db), business_date(db.clock.now())
    for day in (today + timedelta(days=1), date(today.year - 5, today.month, today.day)):
        with pytest.raises(BarWrong):
            await bar(db, person, day)
    leap = await bar(db, person, date(2024, 2, 29))
    assert leap.ends_at == day_bounds(date(2029, 3, 1))[0]


async def test_who_is_barred_binds_no_card_not_even_one_that_was_verified(db: Db) -> None:
    people = People(db)
    person = await people.somebody()
    asked = await people.ask(person, pan(1))
    code = await people.code()
    await bar(db, person)
    with pytest.raises(BindingBarred):
        await people.ask(person, pan(2))
    with pytest.raises(BindingBarred):
        await binding.confirm_binding(
            people.binder, person, asked.card, code_id=asked.sent.code_id, code=code
        )


@pytest.mark.parametrize("step", ["ask", "confirm"])
async def test_a_binding_that_meets_a_bar_waits_for_it_and_is_refused(db: Db, step: str) -> None:
    people = People(db)
    person = await people.somebody()
    asked = await people.ask(person, pan(1))
    code = await people.code()
    confirmation = {"code_id": asked.sent.code_id, "code": code}
    async with db.begin("test") as tx:
        await barring.bar(
            tx, approved(db), BarTerms(person.actor, "(2026) 1", business_date(tx.now))
        )
        late = asyncio.create_task(
            people.ask(person, pan(2))
            if step == "ask"
            else binding.confirm_binding(people.binder, person, asked.card, **confirmation)
        )
        await until_one_waits(db)
    with pytest.raises(BindingBarred):
        await late


async def test_a_bar_that_meets_a_binding_waits_for_it(db: Db) -> None:
    people = People(db)
    person = await people.somebody()
    async with db.begin("test") as tx:
        await check_not_barred(tx, person.id, BindingBarred)  # as a binding begins
        late = asyncio.create_task(bar(db, person))
        await until_one_waits(db)
    assert (await late).ends_at > db.clock.now()
    with pytest.raises(BindingBarred):
        await people.ask(person, pan(1))


async def test_who_registers_anew_with_the_same_resident_id_is_not_taken_for_another(
    db: Db,
) -> None:
    people = People(db)
    person = await people.somebody()
    await bar(db, person)
    await erase_person(db, (), person.id, actor="test")
    again = await people.somebody()
    async with db.begin("test") as tx:
        with pytest.raises(RealNameNotConfirmed):
            await give_identity(tx, KEYRING, again, Identity("张三", resident_id(1)))


async def test_over_the_wire_a_barred_person_hears_where_to_go_and_no_more(
    alice: Phone, db: Db
) -> None:
    mine = await account(alice, 3, fill=1_000)
    second = await account(alice, 2)
    me = (await alice.get("/v1/me")).json["id"]
    [row] = await db.fetch("select person_id from e_account order by opened_at limit 1", ())
    person = await person_with_id(db, row[0])
    assert person.actor == me
    await bar(db, person)

    opened = await alice.confirmed(AT, account_class=1)
    sent = await alice.confirmed(f"{AT}/{mine}/transfers", amount=1, payee=second, request_id="r1")
    filled = await alice.post(f"{AT}/{mine}/top_ups", amount=1, request_id="r2")

    assert (opened.status, opened.code) == (409, "e_account.opening_barred")
    assert (sent.status, sent.code) == (409, "e_account.barred")
    assert (filled.status, filled.code) == (409, "e_account.barred")
    for reply in (opened, filled, sent):
        assert "(2026) 1" not in str(reply.body)
