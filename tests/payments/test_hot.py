"""The short way of a payment from the own wallet: one group, and the ordinary route's every answer.

What is asked here goes straight into the application, so that a test can repeat its very bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
import pytest
from msgspec.structs import replace
from prometheus_client import REGISTRY

from tests.infra.signed_client import Reply, SignedClient
from tests.payments.invariants import assert_money_is_conserved
from tests.stage import Stage, new_number
from tongbao.infra.admission.authentication import SignedRequest
from tongbao.infra.db import Write
from tongbao.infra.hot_routes import Answer, HotDoor, HotRequest
from tongbao.infra.serving.app import App
from tongbao.infra.web.idempotency import REPLAYED_HEADER
from tongbao.kernel.ids import parse
from tongbao.parties.accounts import _store as accounts
from tongbao.parties.identity.keys import KEY_STANDS_S, KeysOnRecord, RecentKeys, revoke_key
from tongbao.parties.merchants.merchants import SANDBOX_BOOK, set_suspended
from tongbao.payments.collecting.model import NewPayment, Verdict, allow_all
from tongbao.payments.hot.route import PATH, WalletPayments
from tongbao.wiring import Platform

Ask = Callable[..., Awaitable[Reply]]


@pytest.fixture
def client(stage: Stage) -> SignedClient:
    return client_of(stage, stage.app)


def client_of(stage: Stage, app: App) -> SignedClient:
    return SignedClient(app, stage.shop.key_id, stage.shop.secret.reveal())


def taken(way: str) -> float:
    return REGISTRY.get_sample_value("tongbao_wallet_payments_total", {"way": way}) or 0


def body_of(code: str, amount: int = 500, **more: Any) -> dict[str, Any]:
    method = {"mode": "payment_code", "auth_code": code}
    terms = {"merchant_order_no": new_number(), "subject": "tea", "method": method}
    return {**terms, "amount": amount, **more}


async def codes_of_one_wallet(stage: Stage, times: int, balance: int) -> tuple[str, list[str]]:
    """Return a new wallet's id and as many codes of it."""
    client = stage.client
    wallet = await stage.call(client.wallets.open, holder_name="张三")
    await stage.call(client.wallets.top_up, wallet["id"], amount=balance)
    shown = [await stage.call(client.wallets.payment_code, wallet["id"]) for _ in range(times)]
    return wallet["id"], [str(each["code"]) for each in shown]


async def rows(stage: Stage, query: str, *args: object) -> list[Any]:
    return await stage.db.fetch(query, args)


async def test_a_good_payment_is_one_group_and_needs_no_record_of_its_own(
    stage: Stage, client: SignedClient
) -> None:
    code, before = await stage.wallet_code(), taken("short")
    [head] = await rows(stage, "select last_batch from ledger_book where book = $1", SANDBOX_BOOK)

    reply = await client.post(PATH, body_of(code), key=new_number())

    assert (reply.status, reply.json["status"]) == (201, "succeeded")
    assert taken("short") == before + 1
    assert reply.headers["x-request-id"].startswith("req_")
    assert reply.headers["cache-control"] == "no-store"
    payment_id = parse("pay", reply.json["id"])
    [after] = await rows(stage, "select last_batch from ledger_book where book = $1", SANDBOX_BOOK)
    assert after["last_batch"] == head["last_batch"] + 1
    assert not await rows(stage, "select 1 from ledger_request where id = $1", payment_id)
    [kept] = await rows(
        stage, "select status, response from idempotency_key where resource_id = $1", payment_id
    )
    assert (kept["status"], kept["response"]) == (201, reply.body)
    assert await stage.events(reply.json) == ["payment.succeeded"]
    [event] = await rows(stage, "select body from event where resource_id = $1", reply.json["id"])
    assert event["body"]["object"] == reply.json
    await assert_money_is_conserved(stage.db)


async def test_both_ways_answer_alike(stage: Stage, client: SignedClient) -> None:
    """The framework's route is the reference; only what names the one payment may differ."""
    codes = [await stage.wallet_code() for _ in range(2)]
    before = taken("short")

    short = await client.post(PATH, body_of(codes[0]), key=new_number())
    ordinary = await client.post(
        PATH,
        body_of(codes[1]),
        key=new_number(),
        headers={"content-type": "application/json; charset=utf-8"},
    )

    assert taken("short") == before + 1
    assert short.json.keys() == ordinary.json.keys()
    same = {"status", "amount", "fee", "method", "amount_captured", "currency", "version", "mode"}
    assert {name: short.json[name] for name in same} == {name: ordinary.json[name] for name in same}
    # How the rate limit stands is told by the ordinary way alone.
    told = {"ratelimit", "ratelimit-policy"}
    assert short.headers.keys() == ordinary.headers.keys() - told


async def test_a_repeat_hears_the_first_answer(stage: Stage, client: SignedClient) -> None:
    asked, key = body_of(await stage.wallet_code()), new_number()
    first = await client.post(PATH, asked, key=key)

    again = await client.post(PATH, asked, key=key)

    assert (again.status, again.body) == (201, first.body)
    assert again.headers[REPLAYED_HEADER] == "true"
    other = await client.post(PATH, {**asked, "amount": 501}, key=key)
    assert other.code == "idempotency.reused"


async def test_the_same_bytes_are_taken_once(stage: Stage, client: SignedClient) -> None:
    """A thief of a request has its nonce; another Idempotency-Key, unsigned, is no help."""
    send = await signed_once(client, body_of(await stage.wallet_code()))

    replies = await asyncio.gather(*[send(new_number()) for _ in range(6)])
    late = await send(new_number())

    assert sorted(reply.status for reply in replies) == [201] + [401] * 5
    assert {reply.code for reply in replies} == {None, "auth.nonce_replayed"}
    assert late.code == "auth.nonce_replayed"


async def test_a_nonce_used_elsewhere_is_used_here(stage: Stage, client: SignedClient) -> None:
    nonce = new_number()
    listed = client.authorization("GET", "/v1/payments", b"", nonce=nonce)
    assert (await client.get("/v1/payments", authorization=listed)).status == 200

    send = await signed_once(client, body_of(await stage.wallet_code()), nonce=nonce)

    assert (await send(new_number())).code == "auth.nonce_replayed"


async def signed_once(client: SignedClient, asked: dict[str, Any], **signing: Any) -> Ask:
    import json

    body = json.dumps(asked).encode()
    signed = client.authorization("POST", PATH, body, **signing)

    async def send(key: str) -> Reply:
        return await client.post(PATH, body=body, key=key, authorization=signed)

    return send


async def test_an_order_number_stays_with_its_order(stage: Stage, client: SignedClient) -> None:
    order = new_number()
    codes = [await stage.wallet_code() for _ in range(3)]
    first = await client.post(PATH, body_of(codes[0], merchant_order_no=order), key=new_number())

    same = await client.post(PATH, body_of(codes[1], merchant_order_no=order), key=new_number())
    other = await client.post(
        PATH, body_of(codes[2], 700, merchant_order_no=order), key=new_number()
    )

    assert same.json == first.json
    assert other.code == "payment.order_no_used"
    [used] = await rows(
        stage,
        "select count(*) as times from payment_code where used_by = $1",
        parse("pay", first.json["id"]),
    )
    assert used["times"] == 1, "only the first customer has paid"


async def test_one_order_asked_for_many_times_at_once_is_paid_once(
    stage: Stage, client: SignedClient
) -> None:
    order = new_number()
    codes = [await stage.wallet_code() for _ in range(5)]

    replies = await asyncio.gather(
        *[
            client.post(PATH, body_of(code, merchant_order_no=order), key=new_number())
            for code in codes
        ]
    )

    assert {reply.json["id"] for reply in replies if reply.status == 201} == {
        next(reply.json["id"] for reply in replies if reply.status == 201)
    }
    [row] = await rows(
        stage, "select count(*) as times from payment where merchant_order_no = $1", order
    )
    assert row["times"] == 1
    await assert_money_is_conserved(stage.db)


async def test_one_key_used_many_times_at_once_pays_once(
    stage: Stage, client: SignedClient
) -> None:
    asked, key = body_of(await stage.wallet_code()), new_number()

    replies = await asyncio.gather(*[client.post(PATH, asked, key=key) for _ in range(6)])
    told = await client.post(PATH, asked, key=key)

    good = [reply for reply in replies if reply.status == 201]
    assert good
    assert {reply.body for reply in good} == {told.body}
    assert {reply.code for reply in replies} <= {None, "idempotency.in_flight"}


async def test_what_one_wallet_spends_at_once_is_counted_and_limited(
    stage: Stage, client: SignedClient
) -> None:
    """Payments of one commit add up: the set form counts them as exactly as one by one would."""
    wallet, codes = await codes_of_one_wallet(stage, 8, balance=10_000)
    wallet_id = parse("wal", wallet)
    await stage.db.execute("update wallet set daily_limit = 1000 where id = $1", (wallet_id,))

    replies = await asyncio.gather(
        *[client.post(PATH, body_of(code, 300), key=new_number()) for code in codes]
    )

    ends = [reply.json["status"] for reply in replies]
    assert (ends.count("succeeded"), ends.count("failed")) == (3, 5)
    failed = [reply.json for reply in replies if reply.json["status"] == "failed"]
    assert {each["failure"]["code"] for each in failed} == {"wallet.spending_refused"}
    [row] = await rows(stage, "select spent from wallet where id = $1", wallet_id)
    assert row["spent"] == 900
    await assert_money_is_conserved(stage.db)


async def test_no_wallet_gives_more_than_it_has(stage: Stage, client: SignedClient) -> None:
    _, codes = await codes_of_one_wallet(stage, 6, balance=1000)
    before = taken("short")

    replies = await asyncio.gather(
        *[client.post(PATH, body_of(code, 300), key=new_number()) for code in codes]
    )

    ends = [reply.json["status"] for reply in replies]
    assert (ends.count("succeeded"), ends.count("failed")) == (3, 3)
    failed = [reply.json for reply in replies if reply.json["status"] == "failed"]
    assert {each["failure"]["code"] for each in failed} == {"ledger.exceeds_balance"}
    assert [await stage.events(each) for each in failed] == [["payment.failed"]] * 3
    assert taken("short") == before + 6, "a wallet that refuses is an answer, too"
    await assert_money_is_conserved(stage.db)


async def test_a_refused_payment_is_told_again_as_it_was(
    stage: Stage, client: SignedClient
) -> None:
    asked, key = body_of(await stage.wallet_code(100)), new_number()
    first = await client.post(PATH, asked, key=key)

    again = await client.post(PATH, asked, key=key)

    assert first.json["status"] == "failed"
    assert again.body == first.body


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"amount": 0}, "money.amount_out_of_range"),
        ({"amount": "500"}, "request.wrong_type"),
        ({"colour": "red"}, "request.unknown_field"),
        ({"subject": ""}, "request.invalid_value"),
        ({"currency": "USD"}, "price.not_agreed"),
        ({"metadata": {str(number): "" for number in range(51)}}, "request.invalid_value"),
    ],
)
async def test_what_is_wrong_is_refused_by_the_ordinary_route(
    stage: Stage, client: SignedClient, change: dict[str, Any], code: str
) -> None:
    asked = {**body_of(await stage.wallet_code()), **change}

    assert (await client.post(PATH, asked, key=new_number())).code == code


async def test_a_code_pays_once_and_only_here(stage: Stage, client: SignedClient) -> None:
    code = await stage.wallet_code()
    assert (await client.post(PATH, body_of(code), key=new_number())).status == 201

    used = await client.post(PATH, body_of(code), key=new_number())
    unknown = await client.post(PATH, body_of("88" + "0" * 16), key=new_number())

    assert used.code == unknown.code == "wallet.code_used_or_expired"


async def test_unsigned_and_badly_signed_requests_are_told_so(
    stage: Stage, client: SignedClient
) -> None:
    asked = body_of(await stage.wallet_code())
    forger = SignedClient(client.app, client.key_id, "sk_sandbox_guess")

    assert (await client.post(PATH, asked, key=new_number(), signed=False)).code == (
        "auth.header_missing"
    )
    assert (await forger.post(PATH, asked, key=new_number())).code == "auth.signature_invalid"
    assert (await client.post(PATH, asked)).code == "idempotency.key_missing"
    assert (await client.post(PATH, asked, key=new_number())).status == 201


async def test_a_revoked_key_works_for_a_second_at_most(stage: Stage) -> None:
    shop = await stage.open_shop()
    client = SignedClient(stage.app, shop.key_id, shop.secret.reveal())
    code = await stage.wallet_code()
    assert (await client.post(PATH, body_of(code), key=new_number())).status == 201
    async with stage.db.begin("tests") as tx:
        await revoke_key(tx, shop.merchant.id, "sandbox", parse("key", shop.key_id))

    await asyncio.sleep(KEY_STANDS_S)
    reply = await client.post(PATH, body_of(await stage.wallet_code()), key=new_number())

    assert KEY_STANDS_S < 1
    assert reply.code == "auth.key_revoked"


async def test_a_suspended_merchant_collects_for_a_second_at_most(stage: Stage) -> None:
    shop = await stage.open_shop()
    client = SignedClient(stage.app, shop.key_id, shop.secret.reveal())
    assert (
        await client.post(PATH, body_of(await stage.wallet_code()), key=new_number())
    ).status == 201
    async with stage.db.begin("tests") as tx:
        await set_suspended(tx, shop.merchant.id, suspended=True, because="tests")

    await asyncio.sleep(KEY_STANDS_S)
    reply = await client.post(PATH, body_of(await stage.wallet_code()), key=new_number())

    assert reply.code == "merchant.suspended"


async def test_use_of_a_key_is_noted_once(stage: Stage) -> None:
    platform: Platform = stage.platform
    keys = RecentKeys(platform.db, platform.keyring)
    key_id = parse("key", (await stage.open_shop()).key_id)
    found = await keys.find(key_id)
    assert found is not None
    assert not found.use_noted

    await keys.note_use(found)

    again = await keys.find(key_id)
    on_record = await KeysOnRecord(platform.db, platform.keyring).find(key_id)
    assert again is not None
    assert on_record is not None
    assert again.use_noted
    assert on_record.use_noted


def app_with(stage: Stage, risk: Any) -> App:
    """The platform's application, whose risk hook is another one."""
    platform = stage.platform
    flow = replace(platform.flow, risk=risk)
    app = platform.app()
    keys = RecentKeys(platform.db, platform.keyring)
    app.door = HotDoor({PATH: WalletPayments(flow, platform.keyring, keys)})
    return app


async def test_the_risk_hook_is_asked_and_its_meters_are_counted(stage: Stage) -> None:
    """A meter is a write of the payment's own commit; one that is full refuses the payment."""
    met: list[tuple[NewPayment, UUID]] = []

    async def metered(asked: NewPayment, wallet_id: UUID) -> Verdict:
        met.append((asked, wallet_id))
        now = stage.db.clock.now()
        spent = (asked.book, wallet_id, now.date(), 10**9, now)
        full = Write(accounts.SPEND, spent, refusal="risk.meter_full")
        return Verdict(meters=(full,))

    client = client_of(stage, app_with(stage, metered))
    asked = body_of(await stage.wallet_code(), 700)

    reply = await client.post(PATH, asked, key=new_number())

    [(seen, _)] = met
    assert (seen.money.amount, seen.merchant_order_no) == (700, asked["merchant_order_no"])
    assert (reply.json["status"], reply.json["failure"]["code"]) == ("failed", "risk.meter_full")
    assert await stage.postings(reply.json) == []
    await assert_money_is_conserved(stage.db)


async def test_every_statement_of_the_commit_has_a_form_for_many(stage: Stage) -> None:
    """Without it a commit of a thousand payments would be thousands of statements."""
    seen: list[Write] = []
    submit = stage.platform.ledger.submit

    async def watching(groups: Any, **more: Any) -> Any:
        seen.extend(write for group in groups for write in group.companions)
        return await submit(groups, **more)

    stage.platform.ledger.submit = watching
    try:
        client = client_of(stage, stage.app)
        reply = await client.post(PATH, body_of(await stage.wallet_code()), key=new_number())
    finally:
        del stage.platform.ledger.submit

    paying = seen[-8:]
    assert reply.json["status"] == "succeeded"
    assert len({id(write.statement) for write in paying}) == 8
    assert all(write.statement.many for write in paying)


async def test_of_many_at_once_each_gets_its_own_answer(stage: Stage) -> None:
    client = client_of(stage, stage.platform.app())
    stranger = SignedClient(client.app, stage.shop.key_id, "sk_sandbox_of_nobody")
    _, codes = await codes_of_one_wallet(stage, 5, balance=100_000)
    good = [body_of(code) for code in codes[:3]]
    used = body_of(codes[0])
    await client.post(PATH, used, key=new_number())
    asked = [
        *((client, each) for each in good),
        (stranger, body_of(codes[3])),
        (client, body_of(codes[3], -1)),
        (client, body_of("2" * 18)),
        (client, body_of(codes[4], 200_000)),
    ]

    replies = await asyncio.gather(*[who.post(PATH, each, key=new_number()) for who, each in asked])

    assert [reply.code or reply.json["status"] for reply in replies] == [
        "wallet.code_used_or_expired",
        "succeeded",
        "succeeded",
        "auth.signature_invalid",
        "money.amount_out_of_range",
        "payment_code.unknown",
        "failed",
    ]
    await assert_money_is_conserved(stage.db)


async def test_a_code_shown_to_two_at_once_pays_one(stage: Stage, client: SignedClient) -> None:
    _, [code] = await codes_of_one_wallet(stage, 1, balance=10_000)

    replies = await asyncio.gather(
        *[client.post(PATH, body_of(code), key=new_number()) for _ in range(5)]
    )

    ends = [reply.code or reply.json["status"] for reply in replies]
    assert ends.count("succeeded") == 1
    assert set(ends) <= {"succeeded", "failed", "wallet.code_used_or_expired"}
    await assert_money_is_conserved(stage.db)


async def test_who_cannot_be_told_costs_nobody_else_the_answer(
    stage: Stage, client: SignedClient
) -> None:
    platform = stage.platform
    keys = RecentKeys(platform.db, platform.keyring)
    payments = WalletPayments(platform.flow, platform.keyring, keys)
    _, codes = await codes_of_one_wallet(stage, 3, balance=10_000)
    heard: asyncio.Queue[Answer] = asyncio.Queue()
    wanting = [body_of(code) for code in codes]

    def gone(answer: Answer) -> None:
        raise RuntimeError("the handler is closed")

    payments.take(hot_request_of(client, wanting[0]), gone)
    for each in wanting[1:]:
        payments.take(hot_request_of(client, each), heard.put_nowait)

    async with asyncio.timeout(10):
        told = [await heard.get() for _ in wanting[1:]]
    assert [isinstance(each, bytes) and b'"succeeded"' in each for each in told] == [True] * 2


def hot_request_of(client: SignedClient, asked: dict[str, Any]) -> HotRequest:
    body = msgspec.json.encode(asked)
    signed = client.authorization("POST", PATH, body)
    return HotRequest(SignedRequest("POST", PATH, body, (signed,)), new_number(), "127.0.0.1")


async def test_what_fails_unforeseen_is_left_to_the_ordinary_route(stage: Stage) -> None:
    async def stumbling(asked: NewPayment, wallet_id: UUID) -> Verdict:
        del wallet_id
        if asked.money.amount == 13:
            raise ZeroDivisionError
        return Verdict()

    client = client_of(stage, app_with(stage, stumbling))
    _, codes = await codes_of_one_wallet(stage, 3, balance=100_000)
    before = taken("short"), taken("handed over")

    replies = await asyncio.gather(
        *[
            client.post(PATH, body_of(code, amount), key=new_number())
            for code, amount in zip(codes, (10, 13, 20), strict=True)
        ]
    )

    # The ordinary route, which takes the one that failed, asks the platform's own hook.
    assert [reply.json["status"] for reply in replies] == ["succeeded"] * 3
    assert (taken("short"), taken("handed over")) == (before[0] + 2, before[1] + 1)
    await assert_money_is_conserved(stage.db)


async def test_nobody_waits_for_the_risk_hooks_word_on_another(
    stage: Stage, client: SignedClient
) -> None:
    said, asked_of = asyncio.Event(), []

    async def slow_about_thirteen(asked: NewPayment, wallet_id: UUID) -> Verdict:
        del wallet_id
        asked_of.append(asked.money.amount)
        if asked.money.amount == 13:
            await said.wait()
        return Verdict()

    hot = hot_route_of(stage, slow_about_thirteen, judged_within_s=60)
    _, codes = await codes_of_one_wallet(stage, 3, balance=10_000)
    heard: asyncio.Queue[tuple[int, Answer]] = asyncio.Queue()

    def hear(amount: int, answer: Answer) -> None:
        heard.put_nowait((amount, answer))

    for code, amount in zip(codes, (13, 10, 20), strict=True):
        request = hot_request_of(client, body_of(code, amount))
        hot.take(request, partial(hear, amount))

    async with asyncio.timeout(10):
        quick = [await heard.get() for _ in range(2)]
        said.set()
        slow = await heard.get()

    assert sorted(asked_of) == [10, 13, 20]
    assert {amount for amount, _ in quick} == {10, 20}
    assert slow[0] == 13
    assert all(is_paid(answer) for _, answer in [*quick, slow])


async def test_what_the_risk_hook_is_slow_about_goes_to_the_ordinary_route(
    stage: Stage, client: SignedClient
) -> None:
    async def silent_about_thirteen(asked: NewPayment, wallet_id: UUID) -> Verdict:
        del wallet_id
        if asked.money.amount == 13:
            await asyncio.Event().wait()
        return Verdict()

    hot = hot_route_of(stage, silent_about_thirteen, judged_within_s=0.01)
    _, codes = await codes_of_one_wallet(stage, 2, balance=10_000)
    heard: dict[int, Answer] = {}
    both = asyncio.Event()

    def hear(amount: int, answer: Answer) -> None:
        heard[amount] = answer
        if len(heard) == 2:
            both.set()

    for code, amount in zip(codes, (13, 10), strict=True):
        hot.take(hot_request_of(client, body_of(code, amount)), partial(hear, amount))

    async with asyncio.timeout(10):
        await both.wait()
    assert is_paid(heard[10])
    assert heard[13] is None


async def test_the_wallets_that_refuse_are_written_down_together(
    stage: Stage, client: SignedClient
) -> None:
    """In one commit, as the rows' own transaction number says."""
    hot = hot_route_of(stage, allow_all)
    _, codes = await codes_of_one_wallet(stage, 4, balance=100)
    heard: asyncio.Queue[Answer] = asyncio.Queue()
    for code in codes:
        hot.take(hot_request_of(client, body_of(code, 200)), heard.put_nowait)

    async with asyncio.timeout(10):
        told = [await heard.get() for _ in codes]

    ends = [msgspec.json.decode(each) for each in told if isinstance(each, bytes)]
    assert [each["failure"]["code"] for each in ends] == ["ledger.exceeds_balance"] * 4
    ids = [parse("pay", each["id"]) for each in ends]
    commits = await rows(
        stage, "select distinct xmin::text from payment where id = any($1::uuid[])", ids
    )
    assert len(commits) == 1


def hot_route_of(stage: Stage, risk: Any, **limits: float) -> WalletPayments:
    """The short way in by itself, asking another risk hook."""
    platform = stage.platform
    keys = RecentKeys(platform.db, platform.keyring)
    return WalletPayments(replace(platform.flow, risk=risk), platform.keyring, keys, **limits)


def is_paid(answer: Answer) -> bool:
    return isinstance(answer, bytes) and b'"succeeded"' in answer
