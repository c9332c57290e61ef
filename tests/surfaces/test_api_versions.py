"""A program written for the older version of the API collects, asks and lists as it always did."""

from __future__ import annotations

from typing import Any

import httpx2 as httpx
import pytest

from tests.stage import Stage, new_number
from tongbao.surfaces.api.versions import OLDEST
from tongbao_sdk import Refused, Tongbao


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
