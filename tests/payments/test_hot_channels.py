"""The short way of a payment at a channel: two commits, and the ordinary route's answers.

What is asked here goes straight into the application, so that a test can repeat its very bytes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client import REGISTRY

from tests.infra.signed_client import Reply, SignedClient
from tests.stage import Stage, new_number
from tongbao.infra.db import Db, Write
from tongbao.infra.db_failures import DatabaseUnavailable
from tongbao.infra.hot_routes import HotDoor
from tongbao.infra.serving.app import App
from tongbao.infra.web.idempotency import REPLAYED_HEADER
from tongbao.kernel.ids import parse
from tongbao.kernel.licence import Mode
from tongbao.parties.identity.keys import RecentKeys, lock_key
from tongbao.parties.merchants.merchants import set_suspended
from tongbao.parties.price_plans.model import PriceLine
from tongbao.parties.price_plans.plans import set_price_plan
from tongbao.payments.hot.channels import PATH, ChannelPayments
from tongbao.payments.hot.door import ByCode
from tongbao.surfaces.demo.stage import Shop

ORDINARY = {"content-type": "application/json; charset=utf-8"}
"""A header by which a request is not usual, so that the framework takes it."""


@pytest.fixture
def client(stage: Stage) -> SignedClient:
    return client_of(stage, stage.shop)


def client_of(stage: Stage, shop: Shop, app: App | None = None) -> SignedClient:
    return SignedClient(app or stage.app, shop.key_id, shop.secret.reveal())


def taken(way: str) -> float:
    return REGISTRY.get_sample_value("tongbao_channel_payments_total", {"way": way}) or 0


def order(channel: str = "alipay", amount: int = 1999, **more: Any) -> dict[str, Any]:
    method = {"mode": "qr", "channel": channel}
    terms = {"merchant_order_no": new_number(), "subject": "tea", "method": method}
    return {**terms, "amount": amount, **more}


async def kept_under(stage: Stage, reply: Reply) -> tuple[int, bytes]:
    query = "select status, response from idempotency_key where resource_id = $1"
    [row] = await stage.db.fetch(query, (parse("pay", reply.json["id"]),))
    return row["status"], row["response"]


@pytest.mark.parametrize("channel", ["wechat_pay", "alipay"])
async def test_both_ways_answer_alike_and_keep_their_answer(
    stage: Stage, client: SignedClient, channel: str
) -> None:
    """The framework's route is the reference; only what names the one payment may differ."""
    before = taken("short")

    short = await client.post(PATH, order(channel), key=new_number())
    ordinary = await client.post(PATH, order(channel), key=new_number(), headers=ORDINARY)

    assert (short.status, short.json["status"], taken("short")) == (201, "pending", before + 1)
    assert short.json["next_action"].keys() == ordinary.json["next_action"].keys()
    its_own = {"id", "merchant_order_no", "created_at", "expires_at", "next_action"}
    same = short.json.keys() - its_own
    assert short.json.keys() == ordinary.json.keys()
    assert {name: short.json[name] for name in same} == {name: ordinary.json[name] for name in same}
    assert short.headers.keys() == {each for each in ordinary.headers if "ratelimit" not in each}
    assert await kept_under(stage, short) == (201, short.body)


async def test_a_repeat_hears_the_first_answer(client: SignedClient) -> None:
    asked, key = order(), new_number()
    first = await client.post(PATH, asked, key=key)

    again = await client.post(PATH, asked, key=key)

    assert (again.status, again.body) == (201, first.body)
    assert again.headers[REPLAYED_HEADER] == "true"
    other = await client.post(PATH, {**asked, "amount": 501}, key=key)
    assert other.code == "idempotency.reused"


async def test_the_same_bytes_are_taken_once(client: SignedClient) -> None:
    """A thief of a request has its nonce; another Idempotency-Key, unsigned, is no help."""
    body = json.dumps(order()).encode()
    signed = client.authorization("POST", PATH, body)

    async def send() -> Reply:
        return await client.post(PATH, body=body, key=new_number(), authorization=signed)

    replies = [*await asyncio.gather(*[send() for _ in range(4)]), await send()]

    assert sorted(reply.status for reply in replies) == [201] + [401] * 4
    assert {reply.code for reply in replies} == {None, "auth.nonce_replayed"}


async def test_one_order_asked_for_many_times_at_once_is_one_payment(client: SignedClient) -> None:
    asked = order()

    replies = await asyncio.gather(*[client.post(PATH, asked, key=new_number()) for _ in range(4)])

    assert len({reply.json["id"] for reply in replies if reply.status == 201}) == 1
    other = await client.post(PATH, {**asked, "amount": 1}, key=new_number())
    assert other.code == "payment.order_no_used"


async def test_terms_that_were_changed_a_moment_ago_hold(stage: Stage) -> None:
    """They are remembered, and yet nobody is charged, or let in, by old ones."""
    shop = await stage.open_shop()
    client = client_of(stage, shop)
    first = await client.post(PATH, order(), key=new_number())
    before = taken("handed over")

    async with stage.db.begin("tests") as tx:
        prices = [PriceLine("alipay", "qr", 60_000)]
        await set_price_plan(tx, shop.merchant.id, Mode.SANDBOX, prices)
    dearer = await client.post(PATH, order(), key=new_number())
    known_again = await client.post(PATH, order(), key=new_number())
    async with stage.db.begin("tests") as tx:
        await set_suspended(tx, shop.merchant.id, suspended=True, because="tests")
    suspended = await client.post(PATH, order(), key=new_number())

    assert first.json["fee"] < dearer.json["fee"] == known_again.json["fee"] == 120
    assert suspended.code == "merchant.suspended"
    assert taken("handed over") <= before + 2, "once for each change that was not heard of yet"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"amount": 0}, "money.amount_out_of_range"),
        ({"colour": "red"}, "request.unknown_field"),
        ({"currency": "USD"}, "price.not_agreed"),
        ({"method": {"mode": "qr", "channel": "unionpay"}}, "price.not_agreed"),
        ({"method": {"mode": "in_app", "channel": "alipay"}}, "payment.method_field_missing"),
        ({"metadata": {str(number): "" for number in range(51)}}, "request.invalid_value"),
    ],
)
async def test_what_is_wrong_is_refused_by_the_ordinary_route(
    client: SignedClient, change: dict[str, Any], code: str
) -> None:
    assert (await client.post(PATH, {**order(), **change}, key=new_number())).code == code


async def test_a_silent_channel_leaves_the_payment_unknown(
    stage: Stage, client: SignedClient
) -> None:
    stage.fault("alipay", "pay", "time_out_unpaid")

    reply = await client.post(PATH, order(), key=new_number())

    assert (reply.status, reply.json["status"]) == (201, "unknown")


async def test_who_asks_again_since_the_first_commits_answer_was_lost_waits_for_no_lease(
    stage: Stage, client: SignedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits, asked, key = stage.flow.commits, order(), new_number()
    really = commits.write

    async def unheard(writes: Iterable[Write]) -> str | None:
        monkeypatch.setattr(commits, "write", really)
        await really(writes)
        raise DatabaseUnavailable

    monkeypatch.setattr(commits, "write", unheard)
    assert (await client.post(PATH, asked, key=key)).code == "service.database_unavailable"

    again = await client.post(PATH, asked, key=key)

    assert (again.status, again.json["status"]) == (201, "pending")
    assert (await client.post(PATH, asked, key=new_number())).json["id"] == again.json["id"]


async def test_a_payment_that_is_begun_does_not_wait_for_the_row_of_its_key(
    own_stage: Stage, make_db: Callable[..., Awaitable[Db]], dsn: str
) -> None:
    """Somebody makes another of the key meanwhile, and so has locked it."""
    impatient = await make_db(dsn=dsn, connections_max=1)
    await impatient.execute("set lock_timeout = '20ms'", ())
    app, key_id = own_stage.platform.app(), parse("key", own_stage.shop.key_id)
    keys = RecentKeys(impatient, own_stage.platform.keyring)
    app.door = HotDoor({PATH: ByCode(None, ChannelPayments(own_stage.flow, keys))})
    assert not (await keys.find_all([key_id]))[key_id].use_noted

    async with own_stage.db.begin("tests") as tx:
        await lock_key(tx, key_id)
        reply = await client_of(own_stage, own_stage.shop, app).post(
            PATH, order(), key=new_number()
        )

    assert (reply.status, reply.json["status"]) == (201, "pending")


async def test_what_fails_after_the_intention_is_told_and_resumed(stage: Stage) -> None:
    """The nonce is used up by then, so the ordinary route could not take it any more."""
    app, calls = app_that_fails_once(stage)
    client, asked, key = client_of(stage, stage.shop, app), order(), new_number()

    failed = await client.post(PATH, asked, key=key)
    resumed = await client.post(PATH, asked, key=key)

    assert (failed.status, failed.code) == (500, "service.internal_error")
    assert (resumed.status, resumed.json["status"], calls[0]) == (201, "pending", 2)
    assert "code_url" in resumed.json["next_action"]


def app_that_fails_once(stage: Stage) -> tuple[App, list[int]]:
    """The platform's application, whose first call of a channel ends in a bug."""
    platform, calls = stage.platform, [0]

    class Failing:
        def __init__(self, channel: Any) -> None:
            self._channel = channel

        def __getattr__(self, name: str) -> Any:
            return getattr(self._channel, name)

        async def pay(self, *args: Any) -> Any:
            calls[0] += 1
            if calls[0] == 1:
                raise ZeroDivisionError
            return await self._channel.pay(*args)

    by_name = {name: Failing(each) for name, each in platform.flow.channels.items()}
    flow = replace(platform.flow, channels=by_name)
    app = platform.app()
    keys = RecentKeys(platform.db, platform.keyring)
    app.door = HotDoor({PATH: ByCode(None, ChannelPayments(flow, keys))})
    app._given["flow"] = flow
    return app, calls


async def test_every_statement_of_its_commits_has_a_form_for_many(
    stage: Stage, client: SignedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it what comes at one moment would share a commit, and no statement of it."""
    seen: list[Any] = []
    commits = stage.flow.commits
    write = commits.write

    async def watching(writes: Any) -> Any:
        asked = tuple(writes)
        seen.append(asked)
        return await write(asked)

    monkeypatch.setattr(commits, "write", watching)
    reply = await client.post(PATH, order(), key=new_number())

    assert reply.json["status"] == "pending"
    assert len(seen) == 2
    assert all(each.statement.many for writes in seen for each in writes)
