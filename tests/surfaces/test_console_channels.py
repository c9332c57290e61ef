"""The page of channels: how accounts fare, whose rules are in force, why a payment went there."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from tests.stage import Stage, new_number
from tests.surfaces.visitors import Reader, hire, reader
from tongbao.infra.audit import entries_of_subject
from tongbao.kernel.ids import new_id, show
from tongbao.parties.identity.model import Role
from tongbao.payments.routing.health import CALLS_MIN
from tongbao.payments.routing.model import Heard
from tongbao.payments.routing.rule_sets import activate, draw_up, rule_set
from tongbao.rails.channels.contract.orders import PayMode

RULES = 'name = "autumn <b>"\nmode = "sandbox"\n[[rule]]\nname = "all"\nto = ["alipay"]\n'


@pytest.fixture
async def admin(stage: Stage) -> AsyncIterator[Reader]:
    async with reader(stage, await hire(stage)) as one:
        yield one


def shown(page: Any) -> str:
    """What a reader sees of a page, without its markup."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.text))


async def drawn_up(stage: Stage, actor: str = "cli:somebody") -> UUID:
    async with stage.db.begin(actor) as tx:
        return (await draw_up(tx, RULES, stage.flow.channels)).id


async def test_accounts_are_shown_as_they_fare(stage: Stage, admin: Reader) -> None:
    watch = stage.platform.router.watch
    wechat, alipay = stage.accounts["wechat_pay"], stage.accounts["alipay"]
    for _ in range(CALLS_MIN):
        for account_id, outcome, after in (
            (wechat, "unknown", "unknown"),
            (alipay, "pending", "pending"),
        ):
            watch.hear(
                Heard(account_id, PayMode.QR, new_id(), 2, "pay", "created", after, outcome, 42)
            )
    await watch.write()
    stage.fault("wechat_pay", "pay", "time_out_unpaid")
    await stage.show_qr("wechat_pay")

    page = await admin.get("/console/channels")

    assert f"{CALLS_MIN} of {CALLS_MIN} calls lost" in page.text
    assert page.text.count("Down</span>") == 1
    assert page.text.count("Up</span>") == 2  # Alipay, and the bank nobody has called
    assert "42 ms" in page.text
    assert "96.67 %" in page.text  # (10 × 100 % + 20 × 95 %) / 30


async def test_what_is_used_of_a_day_stands_beside_its_limit(stage: Stage, admin: Reader) -> None:
    limit = '[[limit]]\nto = "alipay"\nday_amount = 20000\nday_count = 7\n'
    async with stage.db.begin("cli:somebody") as tx:
        draft = await draw_up(tx, RULES + limit, stage.flow.channels)
    async with stage.db.begin("cli:a.colleague") as tx:
        await activate(tx, draft.id)
    terms = {"merchant_order_no": new_number(), "subject": "tea", "method": {"mode": "qr"}}
    payment = await stage.call(stage.client.payments.create, amount=1000, **terms)
    stage.platform.router.watch.forget()

    words = shown(await admin.get("/console/channels"))
    why = shown(await admin.get(f"/console/payments/{payment['id']}"))

    assert "10.00 CNY of 200.00 CNY 1 payments of 7" in words
    assert words.count("No limit of a day") == 2
    assert re.search(r"1\. Alipay chn_\w+: success 9\d\.\d\d %, cost \d\.\d\d, expected value", why)


async def test_a_reader_of_chinese_is_told_in_chinese_why_an_account_is_down(stage: Stage) -> None:
    watch, wechat = stage.platform.router.watch, stage.accounts["wechat_pay"]
    for _ in range(CALLS_MIN):
        lost = ("pay", "created", "unknown", "unknown")
        watch.hear(Heard(wechat, PayMode.QR, new_id(), 2, *lost, 42))
    await watch.write()
    terms = {"merchant_order_no": new_number(), "subject": "tea", "method": {"mode": "qr"}}
    payment = await stage.call(stage.client.payments.create, amount=1000, **terms)

    async with reader(stage, await hire(stage), language="zh") as one:
        page = await one.get("/console/channels")
        why = await one.get(f"/console/payments/{payment['id']}")

    assert f"{CALLS_MIN} 次调用中有 {CALLS_MIN} 次无应答" in page.text
    assert "calls lost" not in page.text
    assert re.search(r"✕ 微信支付 chn_\w+: 调用无应答，熔断中", why.text)


async def test_a_colleagues_draft_is_put_in_force(stage: Stage, admin: Reader) -> None:
    draft = await drawn_up(stage)

    page = await admin.get("/console/channels")
    done = await admin.follow(
        await admin.send(f"/console/channels/rules/{show('rrs', draft)}/activate")
    )

    assert "autumn &lt;b&gt;" in page.text
    assert "The rules are in force." in done.text
    assert (await rule_set(stage.db, draft)).state == "active"
    acts = await entries_of_subject(stage.db, show("rrs", draft))
    assert [each.action for each in acts] == ["routing.drawn_up", "routing.activated"]
    assert acts[-1].actor.startswith("opr_")


async def test_a_draft_is_set_in_the_shadow_and_withdrawn(stage: Stage, admin: Reader) -> None:
    draft = await drawn_up(stage)
    place = f"/console/channels/rules/{show('rrs', draft)}"
    await admin.get("/console/channels")

    await admin.send(f"{place}/shadow")
    shadow = await rule_set(stage.db, draft)
    await admin.get("/console/channels")
    await admin.send(f"{place}/withdraw")
    withdrawn = await rule_set(stage.db, draft)

    assert (shadow.is_shadow, shadow.state) == (True, "draft")
    assert (withdrawn.is_shadow, withdrawn.state) == (False, "withdrawn")


async def test_ones_own_draft_and_ones_own_rights_end_at_the_server(
    stage: Stage, admin: Reader
) -> None:
    [me] = await stage.db.fetch("select id from operator", ())
    own = await drawn_up(stage, show("opr", me["id"]))
    place = f"/console/channels/rules/{show('rrs', own)}/activate"
    page = await admin.get("/console/channels")
    token = admin.form(f"/console/channels/rules/{show('rrs', own)}/withdraw").fields["form_token"]

    mine = await admin.post(place, {"form_token": token})
    async with reader(stage, await hire(stage, Role.VIEWER, login="guest.one")) as guest:
        looked = await guest.get("/console/channels")
        tried = await guest.post(place, {"form_token": token})

    assert "Your own draft" in page.text
    assert "routing.own_draft" in mine.text
    assert "Put in force" not in looked.text
    assert tried.status_code == 403
    assert (await rule_set(stage.db, own)).state == "draft"


async def test_a_payments_page_says_why_it_went_there(stage: Stage, admin: Reader) -> None:
    terms = {"merchant_order_no": new_number(), "subject": "tea", "method": {"mode": "qr"}}
    payment = await stage.call(stage.client.payments.create, amount=1000, **terms)

    page = await admin.get(f"/console/payments/{payment['id']}")
    raw = await admin.get(f"/console/payments/{payment['id']}/raw.json")

    assert "Placed by “(no rule)”" in page.text
    assert "1 more could have taken it, 0 were passed over" in page.text
    assert len(raw.json()["decisions"][0]["candidates"]) == 2
