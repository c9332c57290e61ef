"""People in the console: found masked, revealed with a reason, suspended at once."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest

from tests.parties.card_people import People, pan
from tests.parties.phones import Phone, address
from tests.parties.test_card_money import move, step
from tests.stage import Stage
from tests.surfaces.test_console_e_accounts import agreed
from tests.surfaces.test_wallet_app import RESIDENT_ID, SandboxOffice
from tests.surfaces.visitors import Reader, hire, reader
from tongbao.infra import audit
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import base32
from tongbao.parties.bound_cards.binding import Binder
from tongbao.parties.bound_cards.moving import CardMoney
from tongbao.parties.bound_cards.queries import card_with_id
from tongbao.parties.e_accounts import opening
from tongbao.parties.e_accounts.orders import Teller
from tongbao.parties.identity.model import Role

_people = count(1)
ROW = re.compile(r'<tr id="(per_\w+)"')
NUMBER = "13600136000"


@pytest.fixture
async def admin(shared_stage: Stage) -> AsyncIterator[Reader]:
    person = await hire(shared_stage, login=f"people.{next(_people)}")
    async with reader(shared_stage, person) as one:
        yield one


@pytest.fixture
async def somebody(shared_stage: Stage) -> AsyncIterator[tuple[Phone, str]]:
    phone = Phone(shared_stage.app, SandboxOffice(shared_stage))
    phone.mode = {"mode": "sandbox"}
    contact = f"137001370{next(_people):02d}"
    made = await phone.register(contact)
    assert made.status == 201, made.body
    yield phone, contact
    await shared_stage.db.fetch("delete from person_identity", ())


async def found(admin: Reader, **fields: str) -> Any:
    await admin.get("/console/people")
    return await admin.send("/console/people", **fields)


async def test_somebody_is_found_masked_and_shown_with_a_reason(
    shared_stage: Stage, admin: Reader, somebody: tuple[Phone, str]
) -> None:
    phone, contact = somebody
    me = (await phone.get("/v1/me")).json
    await phone.post("/v1/me/identity", name="张三", resident_id=RESIDENT_ID)
    listed = await admin.get("/console/people")
    by_phone = await found(admin, q=contact)
    by_id = await found(admin, q=RESIDENT_ID)
    page = await admin.get(f"/console/people/{me['id']}")
    own = f"/console/people/{me['id']}"

    assert me["id"] in ROW.findall(listed.text)
    assert ROW.findall(by_phone.text) == ROW.findall(by_id.text) == [me["id"]]
    assert "*三" in page.text
    for text in (listed.text, by_phone.text, page.text):
        assert contact not in text
        assert RESIDENT_ID not in text
    refused = await admin.send(f"/console/people/{me['id']}/reveal", because="x")
    assert refused.status_code == 400
    await admin.get(own)
    shown = await admin.send(f"/console/people/{me['id']}/reveal", because="court order 12")
    assert address(contact) in shown.text
    assert RESIDENT_ID in shown.text
    acts = await audit.entries_of_subject(shared_stage.db, me["id"])
    [act] = [each for each in acts if each.action == "person.revealed"]
    assert act.facts == {"because": "court order 12"}
    assert act.actor.startswith("opr_")


async def test_whoever_is_suspended_is_out_at_once(
    admin: Reader, somebody: tuple[Phone, str]
) -> None:
    phone, contact = somebody
    me = (await phone.get("/v1/me")).json
    token = phone.token
    await admin.get(f"/console/people/{me['id']}")

    await admin.send(f"/console/people/{me['id']}/move", because="police report")

    assert (await phone.get("/v1/me")).code == "auth.session_over"
    assert (await phone.log_in(contact)).code == "person.login_refused"
    await admin.get(f"/console/people/{me['id']}")
    await admin.send(f"/console/people/{me['id']}/move", because="cleared up")
    assert (await phone.log_in(contact)).status == 201
    assert phone.token != token


async def test_who_may_look_may_not_reveal(
    shared_stage: Stage, somebody: tuple[Phone, str]
) -> None:
    me = (await somebody[0].get("/v1/me")).json
    person = await hire(shared_stage, Role.VIEWER, login=f"viewer.{next(_people)}")
    async with reader(shared_stage, person) as viewer:
        page = await viewer.get(f"/console/people/{me['id']}")
        refused = await viewer.post(
            f"/console/people/{me['id']}/reveal", {"form_token": "x", "because": "curious"}
        )

    assert "/reveal" not in page.text
    assert refused.status_code == 403


async def test_what_nobody_has_finds_nobody(admin: Reader) -> None:
    assert ROW.findall((await found(admin, q="13600999999")).text) == []
    assert (await found(admin, q="nonsense")).status_code == 400
    assert (await admin.get("/console/people?status=odd")).status_code == 400
    assert (await admin.get("/console/people/per_00000000000000000000000000")).status_code == 404


async def test_somebodys_cards_are_shown_without_their_numbers_and_unbound_for_them(
    shared_stage: Stage, admin: Reader
) -> None:
    db, platform = shared_stage.db, shared_stage.platform
    people = People(db)
    people.binder = Binder(
        db, platform.keyring, platform.keys.sealing_keys, people.binder.verifiers
    )
    person = await people.somebody(keyring=platform.keyring)
    card = await people.bind(person, pan(1))
    own = f"/console/people/{person.actor}"

    page = await admin.get(own)
    assert f"{card.bin}…{card.last4}" in page.text
    assert "农业银行" in page.text
    assert pan(1) not in page.text
    at = f"{own}/cards/{card.shown_id}/unbind"
    assert (await admin.send(at, because="x")).status_code == 400
    await admin.get(own)
    assert (await admin.send(at, because="stolen card")).status_code == 303

    assert (await card_with_id(db, card.id)).state == "unbound"
    assert f"cards/{card.shown_id}/unbind" not in (await admin.get(own)).text


async def test_an_order_over_a_card_shows_its_number_at_the_bank(
    shared_stage: Stage, admin: Reader
) -> None:
    db, platform = shared_stage.db, shared_stage.platform
    people = People(db, platform.ledger, first=50)
    keys = platform.keys.sealing_keys
    people.teller = Teller(db, platform.ledger, CardMoney(people.bank, keys, platform.keyring))
    people.binder = Binder(db, platform.keyring, keys, people.binder.verifiers)
    person = await people.somebody(keyring=platform.keyring)
    card = await people.bind(person, pan(2), phone="13900139001")
    async with db.begin("test") as tx:
        account = await opening.open_account(
            tx, platform.settings.licence, person, 3, public_key=person.id.bytes
        )
        account = await opening.activate(tx, account)
    order = await move(people, "top_up", account, card, 700)

    assert await step(people, order) is None  # or its task would find no such bank
    page = await admin.get(f"/console/e_accounts/{account.shown_id}")

    assert base32(order.id) in page.text
    assert order.shown_id in page.text


async def test_somebody_is_barred_by_two_and_freed_by_two(
    shared_stage: Stage, admin: Reader, somebody: tuple[Phone, str]
) -> None:
    phone, _ = somebody
    me = (await phone.get("/v1/me")).json["id"]
    own, today = f"/console/people/{me}", business_date(shared_stage.db.clock.now())
    said = {"document": "(2026) 31", "confirmed_on": str(today), "reason": "police confirmed it"}
    await admin.get(own)
    for wrong in ({"document": " "}, {"confirmed_on": "soon"}, {"confirmed_on": "2999-01-01"}):
        assert (await admin.send(f"{own}/bar", **{**said, **wrong})).status_code == 400

    assert await agreed(shared_stage, admin, f"{own}/bar", **said) == "applied"

    page = await admin.get(own)
    assert "(2026) 31" in page.text
    assert f"{own}/lift_bar" in page.text
    end = {"document": "(2026) 32", "reason": "the police corrected it"}
    await admin.get(own)
    assert await agreed(shared_stage, admin, f"{own}/lift_bar", **end) == "applied"
    assert f"{own}/bar" in (await admin.get(own)).text
    viewer = await hire(shared_stage, Role.VIEWER, login=f"people.{next(_people)}")
    async with reader(shared_stage, viewer) as one:
        assert f"{own}/bar" not in (await one.get(own)).text
