"""The request log: what a merchant's programs asked, masked, its own alone, and once more."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.infra.signed_client import SignedClient
from tests.stage import Stage, new_number
from tongbao.infra.db import Query
from tongbao.infra.request_log import lines as keeping
from tongbao.infra.request_log.lines import RequestLog
from tongbao.infra.request_log.model import KEPT_BYTES_MAX, Heard, masked
from tongbao.infra.request_log.queries import prune
from tongbao.infra.telemetry import REMOVED
from tongbao.infra.web.caller import Caller
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import new_id, parse
from tongbao.kernel.licence import Mode
from tongbao.parties.identity.keys import RecentKeys
from tongbao.surfaces.demo.stage import Shop

LINES = Query(int, "select count(*)::int as n from request_line where merchant_id = $1")


@pytest.fixture
async def stage(shared_stage: Stage) -> Stage:
    return shared_stage


def client_of(stage: Stage, shop: Shop | None = None) -> SignedClient:
    shop = shop or stage.shop
    return SignedClient(stage.app, shop.key_id, shop.secret.reveal())


def order(**more: Any) -> dict[str, Any]:
    method = {"channel": "wechat_pay", "mode": "qr"}
    base = {"merchant_order_no": new_number(), "amount": 1999, "currency": "CNY", "subject": "茶"}
    return {**base, "method": method, **more}


async def test_a_request_is_there_with_what_was_said_and_answered(stage: Stage) -> None:
    client = client_of(stage)
    body = order()
    made = await client.post("/v1/payments", body, key=str(uuid4()))

    [line] = (await client.get("/v1/request_log?limit=1")).json["items"]

    assert line["id"] == made.headers["x-request-id"]
    assert (line["method"], line["route"], line["status"]) == ("POST", "/v1/payments", 201)
    assert (line["key_id"], line["mode"]) == (stage.shop.key_id, "sandbox")
    assert line["body"] == body
    assert line["answer"] == made.json
    assert line["is_replayable"]
    assert (await client.get(f"/v1/request_log/{line['id']}")).json == line


async def test_a_request_that_took_the_hot_way_is_there_too(stage: Stage) -> None:
    """The server answers it beside the application, which never sees it."""
    body = order()
    made = await stage.call(stage.client.payments.create, **body)

    page = await client_of(stage).get("/v1/request_log?method=POST&route=/v1/payments&limit=1")

    [line] = page.json["items"]
    assert line["body"]["merchant_order_no"] == body["merchant_order_no"]
    assert line["answer"]["id"] == made["id"]


async def test_it_is_searched_by_what_was_asked_and_how_it_went(stage: Stage) -> None:
    shop = await stage.open_shop()
    client = client_of(stage, shop)
    await client.post("/v1/payments", order(amount=0), key=str(uuid4()))
    await client.get("/v1/payments?limit=1")
    unknown = await client.get("/v1/refunds/x")
    await client.get("/v1/nowhere")

    async def found(query: str) -> list[tuple[str, int]]:
        items = (await client.get(f"/v1/request_log?{query}")).json["items"]
        return [(each["route"], each["status"]) for each in items if "log" not in each["route"]]

    assert await found("status=404") == [("unmatched", 404), ("/v1/refunds/{refund_id}", 404)]
    assert await found("code=money.amount_out_of_range") == [("/v1/payments", 400)]
    assert await found("method=POST") == [("/v1/payments", 400)]
    assert await found("route=/v1/payments&status=200") == [("/v1/payments", 200)]
    assert await found(f"key_id={stage.shop.key_id}") == []
    assert len(await found(f"key_id={shop.key_id}")) == 4
    later = (real_now() + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert await found(f"created_from={later}") == []
    assert len(await found(f"created_to={later}")) == 4
    page = (await client.get("/v1/request_log?status=404&limit=1")).json
    more = (await client.get(f"/v1/request_log?status=404&cursor={page['next_cursor']}")).json
    assert [each["id"] for each in more["items"]] == [unknown.headers["x-request-id"]]
    assert (await client.get("/v1/request_log?cursor=x")).code == "page.cursor_invalid"


async def test_only_who_is_proved_has_lines_and_only_their_own(stage: Stage) -> None:
    one, other = await stage.open_shop(), await stage.open_shop()
    forged = SignedClient(stage.app, one.key_id, "sk_sandbox_wrong")
    assert (await forged.get("/v1/payments")).status == 401
    mine = (await client_of(stage, one).get("/v1/payments")).headers["x-request-id"]

    items = (await client_of(stage, one).get("/v1/request_log")).json["items"]

    assert [each["id"] for each in items] == [mine], "nobody writes in another's log"
    assert (await client_of(stage, other).get("/v1/request_log")).json["items"] == []
    for way in ("GET", "POST"):
        target = f"/v1/request_log/{mine}" + ("/replay" if way == "POST" else "")
        reply = await client_of(stage, other).send(way, target, headers={"idempotency-key": "k"})
        assert reply.code == "request_log.not_found"


async def test_a_request_is_sent_again_under_the_replays_own_key(stage: Stage) -> None:
    client = client_of(stage)
    first = await client.post("/v1/payments", order(), key=str(uuid4()))
    target = f"/v1/request_log/{first.headers['x-request-id']}/replay"

    replayed = await client.post(target, key="again-1")
    repeated = await client.post(target, key="again-1")

    assert replayed.status == 200
    assert replayed.json["replayed"] == first.headers["x-request-id"]
    assert replayed.json["status"] == 201
    assert replayed.json["answer"] == first.json, "the same order is the same payment"
    assert repeated.json["answer"] == first.json
    lines = (await client.get("/v1/request_log?limit=4")).json["items"]
    assert {line["id"] for line in lines} > {replayed.json["request_id"]}
    again = f"/v1/request_log/{replayed.headers['x-request-id']}/replay"
    assert (await client.post(again, key="again-2")).code == "request_log.replay_of_replay"
    read = await client.get(f"/v1/payments/{first.json['id']}")
    got = await client.post(f"/v1/request_log/{read.headers['x-request-id']}/replay", key="g")
    assert got.json["answer"] == read.json


async def test_what_is_masked_is_not_sent_again(stage: Stage) -> None:
    client = client_of(stage)
    code = "134567890123456789"
    method = {"channel": "wechat_pay", "mode": "payment_code", "auth_code": code}
    made = await client.post("/v1/payments", order(method=method), key=str(uuid4()))
    shown = made.headers["x-request-id"]

    line = (await client.get(f"/v1/request_log/{shown}")).json

    assert line["body"]["method"]["auth_code"] == REMOVED
    assert not line["is_replayable"]
    reply = await client.post(f"/v1/request_log/{shown}/replay", key=str(uuid4()))
    assert reply.code == "request_log.not_whole"
    text = await stage.db.fetch("select request_line::text from request_line", ())
    assert code not in str(text)


def test_what_is_kept_is_masked_and_short() -> None:
    sent = (
        b'{"id":"pay_1","secret":"s","phone":"13800000000","number":"62","note":"4929420573595709"}'
    )

    text, is_whole = masked(sent)

    assert text is not None
    assert not is_whole
    assert '"id":"pay_1"' in text
    for secret in ('"s"', "13800000000", '"62"', "4929420573595709"):
        assert secret not in text
    assert masked(b'{"a":1.5,"b":[null,true,"\xe8\x8c\xb6"]}')[1]
    assert masked(b"") == (None, True)
    assert masked(b"<html>") == masked(b"1" * (KEPT_BYTES_MAX + 1)) == (None, False)


async def test_of_real_money_nothing_is_kept_but_the_line(stage: Stage) -> None:
    log = RequestLog(stage.db, RecentKeys(stage.db, stage.platform.keyring))
    caller = Caller(new_id(), new_id(), Mode.LIVE, 1, frozenset())
    route, body = "/v1/payments/{payment_id}", b'{"subject":"tea"}'
    heard = Heard(
        *(new_id(), caller, "POST", route, "/v1/payments/pay_1", 422, 0.25, body),
        b'{"code":"payment.not_found"}',
    )

    log.hear(heard)
    await log.close()

    [row] = await stage.db.fetch(
        "select * from request_line where merchant_id = $1", (caller.merchant_id,)
    )
    assert (row["route"], row["status"], row["code"]) == (route, 422, "payment.not_found")
    assert row["duration_us"] == 250_000
    assert (row["target"], row["body"], row["answer"]) == (None, None, None)


async def test_of_very_many_at_once_the_newest_have_what_was_said(stage: Stage) -> None:
    log = RequestLog(stage.db, RecentKeys(stage.db, stage.platform.keyring))
    caller = Caller(new_id(), new_id(), Mode.SANDBOX, 1, frozenset())
    for _ in range(30):
        log.hear(Heard(new_id(), caller, "GET", "/v1/x", "/v1/x", 200, 0.0, b"", b"[]"))
    await log.close()

    rows = await stage.db.fetch(
        "select answer from request_line where merchant_id = $1 order by id",
        (caller.merchant_id,),
    )
    assert [row["answer"] for row in rows] == [None] * 5 + ["[]"] * 25


async def test_more_than_is_written_is_left_out_and_a_failure_fails_nobody(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "WAITING_MAX", 2)
    log = RequestLog(stage.db, RecentKeys(stage.db, stage.platform.keyring))
    merchant = new_id()
    caller = Caller(new_id(), merchant, Mode.SANDBOX, 1, frozenset())

    def hear(status: int) -> None:
        log.hear(Heard(new_id(), caller, "GET", "/v1/x", "/v1/x", status, 0.0, b"", b""))

    for status in (200, 200, 200):
        hear(status)
    await log.write()
    assert await LINES.one(stage.db, merchant) == 2
    hear(999)  # the table has no such status
    await log.write()
    hear(200)
    await log.write()
    assert await LINES.one(stage.db, merchant) == 3


async def test_lines_go_when_the_rule_in_force_says(stage: Stage) -> None:
    shop = await stage.open_shop()
    client = client_of(stage, shop)
    young = (await client.get("/v1/payments")).headers["x-request-id"]
    old = (await client.get("/v1/payments")).headers["x-request-id"]
    await stage.platform.request_log.write()
    await stage.db.execute(
        "update request_line set at = at - interval '31 days' where id = $1", (parse("req", old),)
    )

    assert await prune(stage.db) == 1
    assert (await client.get(f"/v1/request_log/{young}")).status == 200
    assert (await client.get(f"/v1/request_log/{old}")).code == "request_log.not_found"


async def test_writing_waits_for_nobody_and_nobody_for_it(stage: Stage) -> None:
    """Lines are written by themselves, in one go, some moments after their answers."""
    shop = await stage.open_shop()
    client = client_of(stage, shop)
    await asyncio.gather(*(client.get("/v1/balance") for _ in range(5)))

    writer = stage.platform.request_log._writer
    assert writer is not None
    await writer

    assert await LINES.one(stage.db, shop.merchant.id) == 5
