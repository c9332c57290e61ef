"""Electronic accounts in the console: found, seen masked, frozen and freed by two people."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from tests.stage import Stage
from tests.surfaces.visitors import Reader, hire, reader
from tongbao.controls.approvals.approvals import approve
from tongbao.controls.approvals.queries import approval_with_id
from tongbao.kernel.ids import new_id, parse, show
from tongbao.kernel.licence import Licence
from tongbao.kernel.money import Money
from tongbao.parties.authentication.step_up import Confirmed
from tongbao.parties.e_accounts import opening, orders, queries
from tongbao.parties.e_accounts.model import EAccount
from tongbao.parties.identity.model import Role
from tongbao.parties.people import dossier
from tongbao.payments.e_account_payments.paying import pay

AT = "/console/e_accounts"
_logins = count(1)


@pytest.fixture
async def admin(shared_stage: Stage) -> AsyncIterator[Reader]:
    person = await hire(shared_stage, login=f"e_accounts.{next(_logins)}")
    async with reader(shared_stage, person) as one:
        yield one


@pytest.fixture
async def account(shared_stage: Stage) -> EAccount:
    """An account of the sandbox with 50 yuan in it."""
    made = await opened(shared_stage)
    wanted = orders.Wanted("top_up", Money(5_000, "CNY"), "r1")
    teller = orders.Teller(shared_stage.platform.db, shared_stage.platform.ledger)
    await orders.order(teller, made, wanted, level=0, confirmed=Confirmed(None))
    return made


async def opened(stage: Stage) -> EAccount:
    """An active account of somebody new."""
    db, person_id = stage.platform.db, new_id()
    await db.fetch(
        "insert into person (id, mode, state, language, real_name_level, failures, created_at)"
        " values ($1, 'sandbox', 'active', 'zh', 3, 0, $2)",
        (person_id, db.clock.now()),
    )
    async with db.begin("test") as tx:
        person = await dossier.person_with_id(tx, person_id)
        made = await opening.open_account(
            tx, Licence.PAYMENT_INSTITUTION, person, 3, public_key=person_id.bytes
        )
        return await opening.activate(tx, made)


async def agreed(stage: Stage, admin: Reader, at: str, **fields: str) -> str:
    """Propose by the page, approve as another person, and let the worker do it."""
    reply = await admin.send(at, **fields)
    assert reply.status_code == 303, reply.text
    shown = reply.headers["location"].split("/")[-1].split("?")[0]
    platform = stage.platform
    found = await approval_with_id(platform.db, parse("apv", shown))
    async with platform.db.begin("another") as tx:
        digest = found.digest.hex()
        await approve(tx, platform.approvals.acts, found.id, digest=digest, may={"people_act"})
    await stage.idle()
    state: str = (await approval_with_id(platform.db, found.id)).state.value
    return state


async def test_an_account_is_found_frozen_and_freed_by_two(
    shared_stage: Stage, admin: Reader, account: EAccount
) -> None:
    own, db = f"{AT}/{account.shown_id}", shared_stage.platform.db
    listed = await admin.get(f"{AT}?mode=sandbox&status=active")
    by_id = await admin.get(f"{AT}?q={account.shown_id}")
    page = await admin.get(own)

    assert account.shown_id in listed.text
    assert account.shown_id in by_id.text
    assert "50.00" in page.text
    assert "43号" in page.text
    part = {"amount": "20.00", "from": "2020-01-01", "until": "2099-12-31"}
    order = {
        "kind": "judicial",
        "direction": "out",
        "document": "(2026) 12",
        "reason": "court order",
    }
    assert (await admin.send(f"{own}/freeze", **{**order, "direction": "up"})).status_code == 400
    assert (await admin.send(f"{own}/freeze", **{**order, "document": " "})).status_code == 400
    assert await agreed(shared_stage, admin, f"{own}/freeze", **order) == "applied"
    frozen = await admin.get(own)
    assert "(2026) 12" in frozen.text
    assert (await queries.account_with_id(db, account.id)).frozen == "out"
    assert account.shown_id in (await admin.get(f"{AT}?mode=sandbox&frozen=yes")).text
    await admin.get(own)
    end = {"document": "(2026) 13", "reason": "the court has lifted it"}
    assert await agreed(shared_stage, admin, f"{own}/lift", **end) == "applied"
    assert (await queries.account_with_id(db, account.id)).frozen == "none"
    assert "(2026) 13" in (await admin.get(own)).text
    for wrong in ({"amount": "much"}, {"until": "2026-02-30"}, {"until": "2020-01-01"}):
        said = {**order, **part, **wrong}
        assert (await admin.send(f"{own}/freeze", **said)).status_code == 400
    said = {**order, **part, "document": "(2026) 14"}
    assert await agreed(shared_stage, admin, f"{own}/freeze", **said) == "applied"
    assert (await queries.account_with_id(db, account.id)).available == 3_000
    assert "30.00" in (await admin.get(own)).text


async def test_whoever_may_only_look_freezes_nothing(
    shared_stage: Stage, account: EAccount
) -> None:
    person = await hire(shared_stage, Role.VIEWER, login=f"e_accounts.{next(_logins)}")
    async with reader(shared_stage, person, language="zh") as viewer:
        page = await viewer.get(f"{AT}/{account.shown_id}")
        assert page.status_code == 200
        assert "/freeze" not in page.text
        assert (await viewer.get(f"{AT}?status=nothing")).status_code == 400
        assert (await viewer.get(f"{AT}/eac_00000000000000000000000000")).status_code == 404
        assert (await viewer.get(f"{AT}?mode=live&status=dormant")).status_code == 200


async def test_the_worker_runs_a_scheduled_transfer_when_its_time_has_come(
    shared_stage: Stage, account: EAccount
) -> None:
    platform = shared_stage.platform
    db, teller = platform.db, orders.Teller(platform.db, platform.ledger)
    other = await opened(shared_stage)
    when = db.clock.now() + timedelta(seconds=60)
    wanted = orders.Wanted("transfer", Money(700, "CNY"), "r2", other.id, "scheduled", when)
    waits = await orders.order(teller, account, wanted, level=3, confirmed=Confirmed(None))
    await shared_stage.idle()
    assert (await queries.order_of_account(db, account, waits.id)).state == "waiting"

    await shared_stage.advance(seconds=61)

    assert (await queries.order_of_account(db, account, waits.id)).state == "done"
    assert (await queries.account_with_id(db, other.id)).balance == 700


async def test_payments_to_merchants_and_where_refunds_are_is_shown(
    shared_stage: Stage, admin: Reader, account: EAccount
) -> None:
    stage = shared_stage
    payment = await stage.show_qr("wallet", 1_999)
    action: Any = payment["next_action"]
    await pay(stage.flow, account, action["code_url"], level=3, confirmed=Confirmed(None))
    await stage.refund(payment, 999)

    page = await admin.get(f"{AT}/{account.shown_id}")

    assert page.text.count(payment["id"]) >= 2, "among the payments and among the movements"
    assert f"/console/payments/{payment['id']}" in page.text
    for shown in ("19.99", "9.99", "In the account", stage.shop.merchant.name):
        assert shown in page.text


async def test_money_that_waits_for_its_person_is_listed_with_the_reason(
    shared_stage: Stage, admin: Reader, account: EAccount
) -> None:
    stage, at = shared_stage, "/console/returned_money"
    payment = await stage.show_qr("wallet", 5_000)
    action: Any = payment["next_action"]
    await pay(stage.flow, account, action["code_url"], level=3, confirmed=Confirmed(None))
    async with stage.db.begin("test") as tx:
        await opening.close_account(tx, account)
    refunds = [await stage.refund(payment, amount) for amount in (1_234, 99)]
    person = show("per", account.person_id)

    page = (await admin.get(f"{at}?mode=sandbox")).text
    mine = (await admin.get(f"{at}?mode=sandbox&q={person}")).text
    live = (await admin.get(at)).text
    other = show("per", (await opened(stage)).person_id)

    for shown in (*(each["id"] for each in refunds), payment["id"], person, account.shown_id):
        assert shown in page
        assert shown in mine
    assert page.index(refunds[0]["id"]) < page.index(refunds[1]["id"]), "who waits longest first"
    for shown in ("12.34", "13.33", "the account is closed", stage.shop.merchant.name):
        assert shown in page
    assert refunds[0]["id"] not in live, "that is real money"
    assert "Nothing waits for this person" in (await admin.get(f"{at}?mode=sandbox&q={other}")).text
    assert (await admin.get(f"{at}?mode=nonsense")).status_code == 400
    assert at in (await admin.get(AT)).text
