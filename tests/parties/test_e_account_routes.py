"""Electronic accounts as their person's phone has them: confirmed, limited, and nobody else's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from tests.parties.phones import Phone
from tests.parties.test_people import NoKeys, Office, Register
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.serving.app import App
from tongbao.infra.serving.openapi import ApiFacts
from tongbao.infra.settings import Settings
from tongbao.kernel.licence import Licence, Mode
from tongbao.ledger.book import Ledger
from tongbao.parties.authentication.passkeys import site_of
from tongbao.parties.authentication.step_up import Checks, NoRisk
from tongbao.parties.e_accounts import queries
from tongbao.parties.people.dossier import own_contributors
from tongbao.surfaces.wallet.assembly import wallet_api
from tongbao.surfaces.wallet.desk import Desk

SOURCES = ("residents", "phones", "cards", "tax", "more")
AT = "/v1/me/e_accounts"


@pytest.fixture
async def app(db: Db, keyring: Keyring, ledger: Ledger, tmp_path: Any) -> AsyncIterator[App]:
    await ledger.open_book(2, actor="test")
    checks = Checks(db, keyring, site_of("https://pay.example"), "mlps3", NoRisk())
    registers = dict.fromkeys(Mode, dict.fromkeys(SOURCES, Register()))
    desk = Desk(checks, registers, (*own_contributors(keyring), queries.contributor()))
    settings = Settings(
        data_dir=tmp_path,
        kek_file=tmp_path / "kek",
        socket_dir=tmp_path,
        public_url="https://pay.example",
        licence=Licence.PAYMENT_INSTITUTION,
    )
    facts = ApiFacts(
        title="", version="", description="", public_url="", docs_url="https://d", scopes={}
    )
    mounts = wallet_api(settings, desk, ledger=ledger)
    yield App([], db=db, keys=NoKeys(), facts=facts, mounts=mounts)
    await ledger.close()


@pytest.fixture
async def alice(app: App, db: Db, keyring: Keyring) -> Phone:
    return await enter(Phone(app, Office(db, keyring)), db)


async def enter(phone: Phone, db: Db, contact: str = "13800138000") -> Phone:
    """Register, as somebody whose real name five registers agree with, on a phone of last week."""
    phone.mode = {"mode": "sandbox"}
    assert (await phone.register(contact)).status == 201
    await db.fetch("update person set real_name_level = 3", ())
    await db.fetch("update person_device set bound_at = bound_at - interval '7 days'", ())
    return phone


async def account(phone: Phone, account_class: int = 3, fill: int = 0) -> str:
    made = await phone.confirmed(AT, account_class=account_class)
    assert made.status == 201, made.body
    found: str = made.json["id"]
    active = await phone.confirmed(f"{AT}/{found}/activate")
    assert active.json["status"] == "active", active.body
    if fill:
        done = await phone.post(f"{AT}/{found}/top_ups", amount=fill, request_id="fill")
        assert done.status == 201, done.body
    return found


async def test_somebody_opens_an_account_sends_money_and_sees_what_is_left(
    alice: Phone, app: App, db: Db
) -> None:
    bob = await enter(Phone(app, alice.post_office), db, "13800138001")
    mine = await account(alice, 3, fill=100_000)
    second = await account(alice, 2)
    wanted = {"amount": 20_000, "payee": second, "request_id": "r1"}

    asked = await alice.post(f"{AT}/{mine}/transfers", **wanted)
    assert asked.code == "authentication.step_up_required"
    at = asked.json["facts"]["confirmation"]
    shown = (await alice.get(f"/v1/me/confirmations/{at}")).json
    assert (shown["amount"], shown["payee"], shown["level"]) == (20_000, second, 1)
    await alice.prove(at, "password")
    more = await alice.post(f"{AT}/{mine}/transfers", **{**wanted, "amount": 20_001})
    assert more.code == "authentication.step_up_required"  # it is bound to the amount
    other = await alice.post(f"{AT}/{mine}/transfers", **{**wanted, "payee": mine})
    assert other.code == "authentication.step_up_required"  # and to the payee
    done = await alice.post(f"{AT}/{mine}/transfers", **wanted)
    again = await alice.post(f"{AT}/{mine}/transfers", **wanted)

    assert (done.status, done.json["status"]) == (201, "done")
    assert again.json["id"] == done.json["id"]
    lines = (await alice.get(f"{AT}/{mine}/statement?limit=1")).json
    assert [line["change"] for line in lines["items"]] == [-20_000]
    older = (await alice.get(f"{AT}/{mine}/statement?cursor={lines['next_cursor']}")).json
    assert [line["balance_after"] for line in older["items"]] == [100_000]
    limits = {
        (each["meter"], each["period"]): each
        for each in (await alice.get(f"{AT}/{mine}/limits")).json
    }
    assert limits["out_others", "year"]["left"] == 20_000_000 - 20_000
    assert "43号" in limits["out_others", "year"]["instrument"]
    others = {each["meter"]: each for each in (await alice.get(f"{AT}/{second}/limits")).json}
    assert others["weak_one"]["left"] == 100_000 - 20_000  # a person's, whatever the class
    assert (await alice.get(f"{AT}/{second}/balance")).json["balance"] == 20_000
    long_ago = await alice.get(f"{AT}/{second}/balance?at=0001-01-01T00:00:00%2B14:00")
    assert long_ago.json["balance"] == 0, long_ago.body
    assert (await alice.get(f"{AT}/{second}/balance?at=2026-01-01T00:00:00")).status == 400
    for path in ("", "/limits", "/statement", "/balance", "/orders"):
        assert (await bob.get(f"{AT}/{mine}{path}")).code == "e_account.not_found"
    assert (await bob.get(AT)).json == []
    too_weak = await alice.post(
        f"{AT}/{mine}/transfers", amount=80_001, payee=second, request_id="r2"
    )
    assert too_weak.json["facts"]["level"] == 2  # the day comes to more than 1000 yuan with it


async def test_a_batch_is_confirmed_for_its_sum_and_payees(alice: Phone, app: App, db: Db) -> None:
    bob = await enter(Phone(app, alice.post_office), db, "13800138001")
    mine, second = await account(alice, 3, fill=1_000), await account(alice, 2)
    third = await account(alice, 1)
    items = [{"payee": second, "amount": 100}, {"payee": third, "amount": 200}]
    at = f"{AT}/{mine}/batches"

    asked = await alice.post(at, items=items, request_id="b1")
    assert asked.code == "authentication.step_up_required"
    shown = (await alice.get(f"/v1/me/confirmations/{asked.json['facts']['confirmation']}")).json
    assert (shown["amount"], shown["payee"][:10]) == (300, "2 payees (")
    await alice.prove(asked.json["facts"]["confirmation"], "password")
    swapped = [{**items[0], "payee": third}, {**items[1], "payee": second}]
    other = await alice.post(at, items=swapped, request_id="b1")
    assert other.code == "authentication.step_up_required"
    made = await alice.post(at, items=items, request_id="b1")
    again = await alice.post(at, items=items, request_id="b1")

    assert (made.status, made.json["orders"], made.json["is_over"]) == (201, 2, False)
    assert again.json["id"] == made.json["id"]
    listed = (await alice.get(f"{at}/{made.json['id']}/orders")).json["items"]
    assert [(each["payee"], each["amount"]) for each in listed] == [(second, 100), (third, 200)]
    assert (await bob.get(f"{at}/{made.json['id']}")).code == "e_account.not_found"
    gone = await alice.post(f"{at}/{made.json['id']}/cancel")
    assert gone.json["progress"] == [{"status": "cancelled", "orders": 2, "amount": 300}]
    assert (await alice.get(f"{at}/{made.json['id']}")).json["is_over"] is True
    itself = [{"payee": mine, "amount": 1}]
    assert (await alice.post(at, items=itself, request_id="b2")).code == "e_account.batch_wrong"


async def test_a_batch_to_others_is_a_payee_that_nobody_knows(alice: Phone, db: Db) -> None:
    mine, known = await account(alice, 3, fill=10), await account(alice, 2)
    unknown = await account(alice, 1)

    async def shown(request_id: str, *payees: str) -> str:
        items = [{"payee": each, "amount": 1} for each in payees]
        asked = await alice.post(f"{AT}/{mine}/batches", items=items, request_id=request_id)
        at = f"/v1/me/confirmations/{asked.json['facts']['confirmation']}"
        return str((await alice.get(at)).json["payee"])

    assert await shown("b1", known) == await shown("b2", known, known) == known
    assert await shown("b3", unknown) == unknown
    assert await shown("b4", known, unknown) == await shown("b5", unknown, known)
    assert await shown("b6", known, unknown, unknown) != await shown("b4", known, unknown)


async def test_a_transfer_of_another_day_is_cancelled_and_an_account_closed(
    alice: Phone, db: Db
) -> None:
    mine, second = await account(alice, 3, fill=500), await account(alice, 2)
    at = (db.clock.now() + timedelta(days=3)).isoformat()
    when = {"timing": "scheduled", "run_at": at}
    waits = await alice.confirmed(
        f"{AT}/{mine}/transfers", ["password"], amount=500, payee=second, request_id="r1", **when
    )
    assert (waits.status, waits.json["status"]) == (201, "waiting")
    order = f"{AT}/{mine}/orders/{waits.json['id']}"
    full = await alice.confirmed(f"{AT}/{mine}/close")

    assert full.code == "e_account.not_empty"
    assert (await alice.post(f"{order}/cancel")).json["status"] == "cancelled"
    assert (await alice.get(order)).json["status"] == "cancelled"
    out = await alice.confirmed(
        f"{AT}/{mine}/withdrawals", ["password"], amount=500, request_id="r2"
    )
    assert out.json["status"] == "done"
    listed = (await alice.get(f"{AT}/{mine}/orders")).json["items"]
    assert [each["kind"] for each in listed] == ["withdrawal", "transfer", "top_up"]
    assert (await alice.confirmed("/v1/me/erasure")).code == "person.erasure_blocked"
    assert (await alice.confirmed(f"{AT}/{mine}/close")).json["status"] == "closed"
    kept = (await alice.confirmed("/v1/me/export")).json["domains"]["e_accounts"]
    assert len(kept) == 5
