"""A program written for the older version of the API collects, asks and lists as it always did."""

from __future__ import annotations

import json
from typing import Any

import httpx2 as httpx
import pytest

from tests.stage import Stage, new_number
from tests.surfaces.receiver import receiving
from tongbao.infra.web.versions import CURRENT
from tongbao.surfaces.api.versions import OLDEST
from tongbao_sdk import Refused, Tongbao, verify_webhook


def older(stage: Stage) -> Tongbao:
    """A client whose requests say the older version."""
    plain = httpx.Client(trust_env=False, verify=False, headers={"Tongbao-Version": OLDEST})
    return stage.client_of(stage.shop, client=plain)


def asked(number: str) -> dict[str, Any]:
    return {
        "order_no": number,
        "amount": 1999,
        "currency": "CNY",
        "subject": "tea",
        "channel": "wechat_pay",
        "pay_mode": "qr",
    }


async def test_an_older_program_is_served_in_its_own_form(shared_stage: Stage) -> None:
    stage, number = shared_stage, new_number()
    old, new = older(stage), stage.client
    post = old.transport.post
    made = await stage.call(post, "/v1/payments", asked(number), idempotency_key=number)
    assert (made["order_no"], made["channel"], made["pay_mode"]) == (number, "wechat_pay", "qr")
    assert not {"merchant_order_no", "method"} & made.keys()
    again = await stage.call(post, "/v1/payments", asked(number), idempotency_key=number)
    assert again == made

    listed = await stage.call(old.transport.get, "/v1/payments", limit=5)
    assert number in [each["order_no"] for each in listed["items"]]
    now = await stage.call(new.payments.get, made["id"])
    assert (now["merchant_order_no"], now["method"]["mode"]) == (number, "qr")

    with pytest.raises(Refused) as refused:
        await stage.call(new.transport.post, "/v1/payments", asked(new_number()))
    assert refused.value.status == 400


async def test_a_repeat_in_another_form_is_the_same_request(shared_stage: Stage) -> None:
    stage, number = shared_stage, new_number()
    body = asked(number)
    now = {
        "merchant_order_no": number,
        "amount": body["amount"],
        "currency": "CNY",
        "subject": "tea",
        "method": {"channel": "wechat_pay", "mode": "qr"},
    }
    post = stage.client.transport.post
    first = await stage.call(post, "/v1/payments", now, idempotency_key=number)
    again = await stage.call(
        older(stage).transport.post, "/v1/payments", body, idempotency_key=number
    )
    assert (again["id"], again["order_no"]) == (first["id"], number)


async def test_keys_of_an_older_version_need_no_header(shared_stage: Stage) -> None:
    stage = shared_stage
    shop = await stage.open_shop()
    await stage.db.execute(
        "update api_key set api_version = $1 where merchant_id = $2", (OLDEST, shop.merchant.id)
    )
    client = stage.client_of(shop)
    made = await stage.call(client.transport.post, "/v1/payments", asked(new_number()))
    assert made["pay_mode"] == "qr"
    [key] = await stage.call(lambda: list(client.api_keys.list()))
    assert key["api_version"] == OLDEST
    rolled = await stage.call(client.api_keys.roll, key["id"])
    assert rolled["api_version"] == OLDEST, "a new secret is no new program"


async def test_an_endpoint_is_told_in_the_version_that_it_was_made_in(shared_stage: Stage) -> None:
    """Signed as it is sent; a retry is the same bytes, and what is stored is in today's form."""
    stage = shared_stage
    client = stage.client
    async with receiving() as old, receiving() as new:
        old.statuses = [500]
        pinned, today = [
            await stage.call(
                client.webhook_endpoints.create,
                each.url,
                event_types=["payment.succeeded"],
                api_version=version,
            )
            for each, version in ((old, OLDEST), (new, None))
        ]
        payment = await stage.paid("alipay", 2_000)
        await stage.idle()
        await stage.advance(minutes=10)
        await stage.idle()

    bodies = {each.body for each in old.received}
    assert (len(old.received), len(bodies)) == (2, 1)
    verify_webhook(old.received[1].headers, bodies.copy().pop(), public_keys=pinned["public_keys"])
    [before], [now] = [[json.loads(body) for body in {e.body for e in each.received}]
                       for each in (old, new)]  # fmt: skip
    told, said = before["data"]["object"], now["data"]["object"]
    assert (told["order_no"], told["pay_mode"]) == (payment["merchant_order_no"], "qr")
    assert not {"merchant_order_no", "method"} & told.keys()
    assert (said["merchant_order_no"], said["method"]["mode"]) == (told["order_no"], "qr")
    assert {**before, "data": 0} == {**now, "data": 0}
    assert (pinned["api_version"], today["api_version"]) == (OLDEST, CURRENT)

    listed = await stage.call(older(stage).transport.get, "/v1/events", limit=20)
    found = [each["data"]["object"] for each in listed["items"] if each["id"] == before["id"]]
    assert found == [told], "the list of events says the same"

    moved = await stage.call(
        client.webhook_endpoints.update, pinned["id"], api_version=CURRENT, enabled=False
    )
    assert moved["api_version"] == CURRENT
    for act in (client.webhook_endpoints.create, client.webhook_endpoints.update):
        where = old.url if act == client.webhook_endpoints.create else pinned["id"]
        with pytest.raises(Refused) as refused:
            await stage.call(act, where, api_version="2001-01-01")
        assert refused.value.code == "request.version_unknown"
