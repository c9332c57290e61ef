"""Bank cards: bound by the bank's word and a code from the card's phone, and nobody else's."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from tests.parties.card_people import People, pan, together
from tests.parties.test_e_accounts import crash_at
from tongbao.controls.approvals.model import Approval
from tongbao.controls.dated_rows.rows import add_row, bound_rows, propose_row
from tongbao.controls.opening import rules as opening_rules
from tongbao.controls.opening.model import OpeningRule
from tongbao.infra.db import Db
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Mode
from tongbao.parties.authentication.model import CodeWrong
from tongbao.parties.bound_cards import binding, queries
from tongbao.parties.bound_cards.model import (
    BindingOver,
    BindingsTooMany,
    BoundCard,
    BoundCardNotFound,
    CardBoundAlready,
    CardHolderUnknown,
    CardInUse,
    CardNotTaken,
    CardNotVerified,
)
from tongbao.parties.people.dossier import erase_person
from tongbao.parties.vault.model import CardNotFound
from tongbao.rails.registers.bank_cards import CardSaid


@pytest.fixture
def people(db: Db) -> People:
    return People(db)


async def cards(people: People, card: BoundCard) -> list[BoundCard]:
    return await queries.cards_of_person(people.db, card.person_id, card.mode)


async def unbind(people: People, card: BoundCard) -> BoundCard:
    async with people.db.begin("test") as tx:
        return await binding.unbind(tx, card)


async def test_a_card_is_bound_listed_made_default_and_let_go(people: People) -> None:
    person = await people.somebody()
    first = await people.bind(person, pan(1))
    second = await people.bind(person, pan(2))

    assert (first.issuer, first.kind, first.last4, first.is_default) == (
        "ABC",
        "DC",
        pan(1)[-4:],
        True,
    )
    assert people.verifier.asked[0]["name"] == "张三"
    assert people.verifier.asked[0]["phone"] == "13900139000"
    assert [each.id for each in await cards(people, first)] == [first.id, second.id]
    assert (await queries.number_behind(people.db, people.keys, first)).number == pan(1)
    async with people.db.begin("test") as tx:
        await binding.make_default(tx, person, second)
    assert [each.id for each in await cards(people, first)] == [second.id, first.id]

    gone = await unbind(people, second)
    assert (await unbind(people, second)).state == gone.state == "unbound"

    assert await queries.card_to_use(people.db, person.id, person.mode, None) is None
    with pytest.raises(BindingOver):
        await queries.card_to_use(people.db, person.id, person.mode, second.id)
    with pytest.raises(CardNotFound):  # the vault has forgotten it
        await queries.number_behind(people.db, people.keys, gone)
    again = await people.bind(person, pan(2))
    assert again.is_default
    with pytest.raises(CardBoundAlready):
        await people.ask(person, pan(2))


async def test_no_number_stands_outside_the_vault(people: People) -> None:
    person = await people.somebody()
    await people.bind(person, pan(1))
    rows = await people.db.fetch("select row_to_json(c)::text as row from bound_card c", ())
    told = await people.db.fetch("select row_to_json(a)::text as row from audit_entry a", ())
    kept = await queries.contributor().show(people.db, person.id)

    assert not [row for row in (*rows, *told) if pan(1) in row["row"]]
    assert kept[0]["last4"] == pan(1)[-4:]
    assert pan(1) not in repr(kept)
    assert "13900139000" not in "".join(row["row"] for row in rows)


@pytest.mark.parametrize(("said", "state"), [("different", "refused"), ("silence", "unclear")])
async def test_what_the_bank_does_not_confirm_is_not_bound(
    people: People, said: str, state: str
) -> None:
    person = await people.somebody()
    people.verifier.said = CardSaid(said)

    with pytest.raises(CardNotVerified):
        await people.ask(person, pan(1))

    tries = await queries.cards_of_person(people.db, person.id, person.mode, only_bound=False)
    assert [each.state for each in tries] == [state]
    with pytest.raises(CardNotFound):
        await queries.number_behind(people.db, people.keys, tries[0])


async def test_a_code_binds_its_own_card_alone_and_not_for_long(people: People) -> None:
    person = await people.somebody()
    first, code = await people.ask(person, pan(1)), await people.code()
    second = await people.ask(person, pan(2))

    with pytest.raises(CodeWrong):
        await binding.confirm_binding(
            people.binder, person, second.card, code_id=first.sent.code_id, code=code
        )
    await people.db.fetch("update bound_card set asked_at = asked_at - interval '1 hour'", ())
    with pytest.raises(BindingOver):
        await binding.confirm_binding(
            people.binder, person, first.card, code_id=first.sent.code_id, code=code
        )


async def test_who_may_bind_what(people: People) -> None:
    nobody, person = await people.somebody(level=0), await people.somebody()

    with pytest.raises(CardHolderUnknown):
        await people.ask(nobody, pan(1))
    with pytest.raises(CardNotTaken):
        await people.ask(person, pan(1, "625188"))  # of no bank that is known
    tester = await people.somebody(mode=Mode.SANDBOX)
    assert (await people.bind(tester, pan(1, "625188"))).issuer == "TEST"
    card = await people.bind(person, pan(1))
    with pytest.raises(BoundCardNotFound):
        await binding.card_of_person(people.db, nobody.id, nobody.mode, card.id)


async def test_the_defences_count_tries_people_cards_and_phones(people: People) -> None:
    thief, db = await people.somebody(), people.db
    people.verifier.said = CardSaid("different")

    async def refused_by(*works: object) -> set[str]:
        found = await together(*works)
        return {str(each.facts["rule"]) for each in found if isinstance(each, BindingsTooMany)}

    tries = [people.ask(thief, pan(n), phone=f"1380000000{n}") for n in range(8)]
    assert await refused_by(*tries) == {"tries_per_person_day_max"}
    rows = await db.fetch("select id from bound_card", ())
    assert len(rows) == 5
    more = [people.ask(await people.somebody(), pan(7), phone=f"1380000001{n}") for n in range(5)]
    assert await refused_by(*more) == {"tries_per_card_day_max"}
    await db.fetch("delete from bound_card", ())

    people.verifier.said = CardSaid("same", "V", 1)
    for number in (1, 2):
        await people.ask(await people.somebody(), pan(number))  # nobody has proved the phone yet
    device = new_id()
    on_device = [
        people.ask(await people.somebody(), pan(n), device=device, phone=f"1380000002{n}")
        for n in range(4, 9)
    ]
    assert await refused_by(*on_device) == {"persons_per_device_max"}
    await people.bind(thief, pan(11), phone="13700137000")
    for number, phone in ((11, "13700137001"), (12, "13700137000")):
        with pytest.raises(BindingsTooMany) as found:
            await people.bind(await people.somebody(), pan(number), phone=phone)
        assert str(found.value.facts["rule"]).startswith("persons_per_")


async def test_a_rule_is_changed_by_two_with_a_dated_row(people: People) -> None:
    db, person = people.db, await people.somebody()
    today = business_date(db.clock.now())
    terms = OpeningRule("bound_card", "cards_max", today, 1, "本机构决定 2026-1")
    asked = await _propose(db, terms)
    [bound] = bound_rows(db, opening_rules.OPENING)
    changes = await bound.show(db, asked, terms)
    assert (changes[0].before, changes[0].after) == ("10", "1")
    with crash_at("dated_rows.before_commit"):
        await _apply(db, terms)
    await _apply(db, terms)

    await people.bind(person, pan(1))
    with pytest.raises(BindingsTooMany) as refused:
        await people.ask(person, pan(2))

    assert refused.value.facts["instrument"] == "本机构决定 2026-1"
    for wrong in (
        {"name": "nothing"},
        {"valid_from": today - timedelta(days=1)},
        {"figure": -1},
        {"instrument": " "},
    ):
        with pytest.raises(opening_rules.OpeningRuleWrong):
            await _propose(db, replace(terms, **wrong))
    with pytest.raises(opening_rules.OpeningRuleThere):
        await _propose(db, terms)


async def _propose(db: Db, terms: OpeningRule) -> Approval:
    async with db.begin("maker") as tx:
        return await propose_row(tx, opening_rules.OPENING, terms, reason="fewer cards")


async def _apply(db: Db, terms: OpeningRule) -> None:
    async with db.begin("checker") as tx:
        await add_row(tx, opening_rules.OPENING, terms)


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("bound_cards.before_begin_commit", 0),
        ("bound_cards.after_ask", 0),
        ("bound_cards.before_answer_commit", 0),
        ("bound_cards.before_bind_commit", 0),
        ("bound_cards.before_unbind_commit", 1),
    ],
)
async def test_a_death_on_the_way_binds_nothing_and_the_next_try_does(
    people: People, name: str, bound: int
) -> None:
    person = await people.somebody()
    card = await people.bind(person, pan(1)) if bound else None
    with crash_at(name):
        if card is not None:
            await unbind(people, card)
        else:
            await people.bind(person, pan(1))
    now = await queries.cards_of_person(people.db, person.id, person.mode)
    assert len(now) == bound

    if card is not None:
        assert (await unbind(people, card)).state == "unbound"
    else:
        assert (await people.bind(person, pan(1))).state == "bound"


async def test_a_try_that_nobody_confirms_leaves_no_number_behind(people: People) -> None:
    db, person = people.db, await people.somebody()
    bound = await people.bind(person, pan(1))
    asked = await people.ask(person, pan(2))

    async def kept() -> int:
        return len(await db.fetch("select id from vault.card where sealed is not null", ()))

    await binding.prune_tries(db)
    assert await kept() == 2  # there is time yet to confirm it
    db.clock.offset += timedelta(minutes=31)
    with crash_at("bound_cards.before_prune_commit"):
        await binding.prune_tries(db)
    assert await kept() == 2
    for _ in range(2):
        await binding.prune_tries(db)

    assert await kept() == 1
    assert (await queries.card_with_id(db, asked.card.id)).state == "unclear"
    assert (await queries.card_with_id(db, bound.id)).state == "bound"


async def test_a_card_in_use_stays_and_an_erasure_lets_go_of_the_others(people: People) -> None:
    db, person = people.db, await people.somebody()
    card = await people.bind(person, pan(1))
    await people.ask(person, pan(2))
    async with db.begin("test") as tx:
        assert await queries.hold_write(card.id, person.id).run(tx) == 1
        assert await queries.hold_write(card.id, new_id()).run(tx) == 0
    with pytest.raises(CardInUse):
        await unbind(people, card)
    part = queries.contributor()
    assert part.objects is not None
    assert await part.objects(db, person.id) == f"{card.shown_id} has money on its way"

    async with db.begin("test") as tx:
        await queries.let_go_write(card.id, person.id).run(tx)
    await erase_person(db, [part], person.id, actor="test")

    left = await queries.cards_of_person(db, person.id, person.mode, only_bound=False)
    assert {each.state.value for each in left} == {"unbound", "unclear"}
    sealed = await db.fetch("select id from vault.card where sealed is not null", ())
    assert sealed == []
