"""Webhooks: signed so that others can verify it, sent for three days, to nobody they should not."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from tongbao.infra import audit, failpoints, outbox
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, Query, Statement
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.infra.http import HttpClient, LoopbackAllowed, PublicOnly
from tongbao.infra.outbox import Event
from tongbao.infra.webhooks import _store as store
from tongbao.infra.webhooks import deliveries, endpoints
from tongbao.infra.webhooks.courier import IN_FLIGHT_MAX, Courier
from tongbao.infra.webhooks.deliveries import DELIVER_POLICY, DeliverWebhook
from tongbao.infra.webhooks.endpoints import IssuedKey, Owner
from tongbao.infra.webhooks.model import (
    DISABLE_AFTER,
    PAYLOAD_MAX,
    RETRY_DELAYS,
    AttemptOutcome,
    DeliveryState,
    DeliveryUnknown,
    DisabledBecause,
    EndpointLimitReached,
    EndpointNotEnabled,
    EndpointState,
    EndpointUnknown,
    EventTypeUnknown,
    OverlapInvalid,
    UrlNotAllowed,
    WebhookDelivery,
    WebhookEndpointDisabled,
    WebhookRules,
    WebhookTest,
    check_event_types,
    check_url,
    delay_after,
    outcome_of_status,
    rest_after,
    retry_after,
)
from tongbao.infra.webhooks.signing import SigningKey, new_signing_key, signature_v1, unpacked
from tongbao.infra.worker import Worker
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import new_id, parse, show
from tongbao.kernel.licence import Mode

OWNER = Owner(new_id(), Mode.SANDBOX)
STRANGER = Owner(new_id(), Mode.SANDBOX)
LIVE = Owner(OWNER.merchant_id, Mode.LIVE)
RULES = WebhookRules(frozenset({"cat.fed", "cat.lost", "dog.walked"}), loopback_allowed=True)
DAY = timedelta(days=1)
EXPIRE = Statement("update task set lease_until = $1 where lease_until is not null")
TASKS = Query(int, "select count(*) from task")
STATES = Query(str, "select state from webhook_delivery order by created_at, id")
DISABLED = Query(int, "select count(*) from event where type = 'webhook_endpoint.disabled'")
WAITING = Query(
    bool,
    "select exists (select from pg_stat_activity"
    " where datname = current_database() and wait_event_type = 'Lock')",
)


class CatView(Struct, frozen=True):
    id: str
    name: str


class CatFed(Event, frozen=True, tag="cat.fed"):
    object: CatView


class CatCounted(Event, frozen=True, tag="cat.counted"):
    count: int


class Received(Struct, frozen=True):
    headers: dict[str, str]
    body: bytes


class Receiver:
    """A merchant's server: keeps what it got and answers as the test says."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answers: list[bytes] = []  # then 200 for ever
        self.gate = asyncio.Event()
        self.gate.set()
        self.open_now = 0
        self.open_max = 0
        self.url = ""

    async def follow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in head[1:] if line)
            }
            body = await reader.readexactly(int(headers["content-length"]))
            self.received.append(Received(headers, body))
            self.open_now += 1
            self.open_max = max(self.open_max, self.open_now)
            await self.gate.wait()
            self.open_now -= 1
            writer.write(self.answers.pop(0) if self.answers else answer(200))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", "connection: close", *lines]
    return "\r\n".join([*head, "", ""]).encode() + body


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    it = Receiver()
    server = await asyncio.start_server(it.follow, "127.0.0.1", 0)
    it.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks?shop=1"
    yield it
    it.gate.set()
    server.close()


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring.from_file(tmp_path / "key")


@pytest.fixture
async def work(db: Db, keyring: Keyring) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """``await work()`` dispatches and delivers everything that is due."""
    clients = {Mode.LIVE: HttpClient(PublicOnly()), Mode.SANDBOX: HttpClient(LoopbackAllowed())}
    worker = worker_of(db, Courier(db, keyring, clients))

    async def run() -> None:
        await worker.run_until_idle(raise_failures=True)

    yield run
    for client in clients.values():
        await client.close()


def worker_of(db: Db, courier: Courier) -> Worker:
    return Worker(
        db,
        {DeliverWebhook: courier.deliver},
        {DeliverWebhook: DELIVER_POLICY},
        {CatFed: (), CatCounted: (), WebhookTest: (), WebhookEndpointDisabled: ()},
        fan_outs=[courier.plan],
    )


async def endpoint(
    db: Db,
    keyring: Keyring,
    url: str,
    *event_types: str,
    owner: Owner = OWNER,
    rules: WebhookRules = RULES,
) -> IssuedKey:
    async with db.begin("merchant") as tx:
        return await endpoints.create_endpoint(
            tx, keyring, rules, owner, url=url, event_types=event_types or ("*",)
        )


async def feed(db: Db, *, name: str = "Mimi", owner: Owner = OWNER) -> UUID:
    event = CatFed(
        merchant_id=owner.merchant_id,
        mode=owner.mode,
        resource_id="cat_1",
        object=CatView("cat_1", name),
    )
    async with db.begin("test") as tx:
        return await outbox.publish(tx, event)


async def only_delivery(db: Db, event_id: UUID) -> WebhookDelivery:
    (delivery,) = await deliveries.deliveries_of_event(db, event_id)
    return delivery


def verified(got: Received, secret: str) -> bool:
    """The receiver's half of the standard, written from its text."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{got.headers['webhook-id']}.{got.headers['webhook-timestamp']}.".encode() + got.body
    mac = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return f"v1,{mac}" in got.headers["webhook-signature"].split(" ")


def verified_v1a(got: Received, public: str) -> bool:
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public.removeprefix("whpk_")))
    signed = f"{got.headers['webhook-id']}.{got.headers['webhook-timestamp']}.".encode() + got.body
    for entry in got.headers["webhook-signature"].split(" "):
        version, _, signature = entry.partition(",")
        if version == "v1a":
            try:
                key.verify(base64.b64decode(signature), signed)
            except Exception:  # noqa: BLE001 - another key's
                continue
            return True
    return False


# Signatures


def test_the_published_example_of_standard_webhooks_is_signed_alike() -> None:
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = signature_v1(
        secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_key_survives_packing_and_never_shows_itself() -> None:
    key = new_signing_key()
    assert unpacked(key.packed()) == key
    assert repr(key) == "SigningKey(********)"
    assert isinstance(key, SigningKey)


# The retry schedule


@given(st.uuids())
def test_the_schedule_takes_about_three_days(delivery_id: UUID) -> None:
    delays = [delay_after(delivery_id, tries) for tries in range(1, len(RETRY_DELAYS) + 1)]
    waits = [delay for delay in delays if delay is not None]
    assert len(waits) == len(RETRY_DELAYS)
    assert timedelta(hours=65) <= sum(waits, timedelta()) <= timedelta(hours=80)
    assert timedelta(seconds=4.5) <= waits[0] <= timedelta(seconds=5.5)
    assert max(waits) <= DAY
    assert delay_after(delivery_id, len(RETRY_DELAYS) + 1) is None
    assert delays == [delay_after(delivery_id, tries) for tries in range(1, len(delays) + 1)]
    for wait, planned in zip(waits, RETRY_DELAYS, strict=True):
        assert planned * 0.9 <= wait <= planned * 1.1


def test_deliveries_that_failed_together_do_not_come_back_together() -> None:
    assert len({delay_after(new_id(), 4) for _ in range(200)}) > 50


def test_an_endpoint_is_disabled_by_the_last_try_of_a_lone_delivery_at_the_latest() -> None:
    assert sum(RETRY_DELAYS, timedelta()) * 0.9 >= DISABLE_AFTER


@given(st.integers(min_value=0, max_value=10_000))
def test_a_rest_is_bounded(failures: int) -> None:
    assert timedelta() <= rest_after(failures) <= timedelta(minutes=10)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        ("0", 0),
        ("-5", 0),
        ("1e9", 0),
        ("soon", 0),
        ("", 0),
        ("99999999999999999999", 86_400),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30),
        ("Wed, 21 Oct 2026 07:00:00 GMT", 0),
        ("Wed, 21 Oct 2026 07:28:30 -0000", 0),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_never_more_than_a_day(
    text: str, seconds: int
) -> None:
    now = datetime(2026, 10, 21, 7, 28, tzinfo=UTC)
    assert retry_after({"retry-after": text}, now) == timedelta(seconds=seconds)
    assert retry_after({}, now) == timedelta()


@pytest.mark.parametrize(
    "text",
    [
        "Mon, 01 Jan 99999999999999999999 00:00:00 +0000",
        "Mon, 01 Jan 2024 00:00:00 +99999999999999999999",
        "9" * 5000,
    ],
)
def test_an_absurd_retry_after_asks_for_nothing(text: str) -> None:
    assert retry_after({"retry-after": text}, datetime(2026, 1, 1, tzinfo=UTC)) == timedelta()


def test_only_2xx_is_a_delivery() -> None:
    met = {status: outcome_of_status(status) for status in range(100, 600)}
    assert {s for s, o in met.items() if o is AttemptOutcome.DELIVERED} == set(range(200, 300))
    assert {s for s, o in met.items() if o is AttemptOutcome.REDIRECTED} == set(range(300, 400))
    assert {s for s, o in met.items() if o is AttemptOutcome.GONE} == {410}
    assert {s for s, o in met.items() if o is AttemptOutcome.THROTTLED} == {429, 502, 503, 504}


# Endpoints


@pytest.mark.parametrize(
    "url",
    [
        "http://shop.example/hooks",
        "ftp://shop.example/hooks",
        "https://",
        "https://user:pass@shop.example/",
        "https://shop.example/#part",
        "https://shop.example:99999/",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://shop.example/a b",
        "https://shop.example/\n",
        "https://商店.example/",
        "https://shop.example/" + "x" * 2048,
        "shop.example",
        "",
    ],
)
def test_live_endpoints_have_public_https_addresses(url: str) -> None:
    with pytest.raises(UrlNotAllowed):
        check_url(url, Mode.LIVE, RULES)


def test_loopback_is_for_sandbox_endpoints_where_it_is_allowed() -> None:
    for url in ("http://127.0.0.1:8000/", "http://localhost/x", "https://[::1]:9/"):
        check_url(url, Mode.SANDBOX, RULES)
        for mode, rules in (
            (Mode.LIVE, RULES),
            (Mode.SANDBOX, WebhookRules(RULES.event_types)),
        ):
            with pytest.raises(UrlNotAllowed):
                check_url(url, mode, rules)
    for mode in Mode:
        check_url("https://shop.example:8443/hooks?shop=1", mode, RULES)
    with pytest.raises(UrlNotAllowed):
        check_url("http://shop.example/", Mode.SANDBOX, RULES)


def test_a_filter_that_could_never_match_is_refused() -> None:
    known = RULES.event_types
    assert check_event_types(["cat.*", "dog.walked", "cat.*"], known) == ("cat.*", "dog.walked")
    assert check_event_types(["*"], known) == ("*",)
    for patterns in ([], ["cow.*"], ["cat"], ["cat.f*"], ["**"]):
        with pytest.raises(EventTypeUnknown):
            check_event_types(patterns, known)


async def test_a_merchant_has_at_most_16_endpoints_per_mode(db: Db, keyring: Keyring) -> None:
    made = [await endpoint(db, keyring, "https://shop.example/") for _ in range(16)]
    with pytest.raises(EndpointLimitReached):
        await endpoint(db, keyring, "https://shop.example/")
    await endpoint(db, keyring, "https://shop.example/", owner=LIVE)
    await endpoint(db, keyring, "https://shop.example/", owner=STRANGER)

    async with db.begin("merchant") as tx:
        await endpoints.delete_endpoint(tx, OWNER, made[3].endpoint.id)
    await endpoint(db, keyring, "https://shop.example/")
    assert len(await endpoints.endpoints_of(db, OWNER)) == 16


async def test_two_requests_for_the_last_place_get_one(db: Db, keyring: Keyring) -> None:
    for _ in range(15):
        await endpoint(db, keyring, "https://shop.example/")
    async with db.begin("one") as one:
        await endpoints.create_endpoint(
            one, keyring, RULES, OWNER, url="https://one.example/", event_types=["*"]
        )
        other = asyncio.create_task(endpoint(db, keyring, "https://other.example/"))
        await somebody_waits(db)
    with pytest.raises(EndpointLimitReached):
        await other
    assert len(await endpoints.endpoints_of(db, OWNER)) == 16


async def test_two_requests_for_two_places_get_both(db: Db, keyring: Keyring) -> None:
    async with db.begin("one") as one:
        await endpoints.create_endpoint(
            one, keyring, RULES, OWNER, url="https://one.example/", event_types=["*"]
        )
        other = asyncio.create_task(endpoint(db, keyring, "https://other.example/"))
        await somebody_waits(db)
    await other
    assert sorted(each.slot or 0 for each in await endpoints.endpoints_of(db, OWNER)) == [1, 2]


async def somebody_waits(db: Db) -> None:
    async with asyncio.timeout(20):
        while not await WAITING.one(db):  # noqa: ASYNC110 - the database tells nobody
            await asyncio.sleep(0.01)


async def test_nobody_reaches_another_merchants_endpoint(db: Db, keyring: Keyring) -> None:
    made = (await endpoint(db, keyring, "https://shop.example/")).endpoint
    for owner in (STRANGER, LIVE):
        assert await endpoints.endpoints_of(db, owner) == []
        with pytest.raises(EndpointUnknown):
            await endpoints.endpoint_of(db, owner, made.id)
        with pytest.raises(EndpointUnknown):
            await deliveries.deliveries_of_endpoint(db, owner, made.id)
        async with db.begin("stranger") as tx:
            for act in (
                endpoints.update_endpoint(tx, RULES, owner, made.id, url="https://x.example/"),
                endpoints.rotate_key(tx, keyring, owner, made.id, overlap=DAY),
                endpoints.enable_endpoint(tx, owner, made.id),
                endpoints.disable_endpoint(tx, owner, made.id),
                endpoints.delete_endpoint(tx, owner, made.id),
                deliveries.send_test(tx, owner, made.id, note=""),
                deliveries.replay_range(tx, owner, made.id, since=tx.now, until=tx.now),
            ):
                with pytest.raises(EndpointUnknown):
                    await act
            with pytest.raises(DeliveryUnknown):
                await deliveries.replay_delivery(tx, owner, new_id())


async def test_secrets_are_stored_sealed_and_acts_are_audited(db: Db, keyring: Keyring) -> None:
    issued = await endpoint(db, keyring, "https://shop.example/")
    assert issued.secret.reveal() not in repr(issued)
    (key,) = await store.KEYS_IN_USE.all(db, [issued.endpoint.id], db.clock.now())
    shared = base64.b64decode(issued.secret.reveal().removeprefix("whsec_"))
    assert shared not in key.sealed
    opened = endpoints.opened_key(keyring, key)
    assert opened.shared == shared
    assert opened.public_text == issued.public_key

    async with db.begin("merchant") as tx:
        await endpoints.update_endpoint(
            tx, RULES, OWNER, issued.endpoint.id, event_types=["cat.fed"], description="shop"
        )
        await endpoints.disable_endpoint(tx, OWNER, issued.endpoint.id)
        await endpoints.disable_endpoint(tx, OWNER, issued.endpoint.id)
        await endpoints.enable_endpoint(tx, OWNER, issued.endpoint.id)
        await endpoints.delete_endpoint(tx, OWNER, issued.endpoint.id)
    entries = await audit.entries_of_subject(db, show("whe", issued.endpoint.id))
    acts = [entry.action.removeprefix("webhook_endpoint.") for entry in entries]
    assert acts == ["create", "update", "disable", "enable", "delete"]
    assert await endpoints.signing_keys_of(db, [issued.endpoint.id], real_now()) == {}


# Delivering


async def test_an_event_arrives_once_signed_for_every_endpoint_that_asked(
    db: Db, keyring: Keyring, receiver: Receiver, work: Callable[[], Awaitable[None]]
) -> None:
    issued = await endpoint(db, keyring, receiver.url, "cat.*")
    await endpoint(db, keyring, receiver.url, "dog.walked")
    event_id = await feed(db)
    await feed(db, owner=STRANGER)
    await feed(db, owner=LIVE)
    await work()
    await work()

    (got,) = receiver.received
    assert verified(got, issued.secret.reveal())
    assert verified_v1a(got, issued.public_key)
    assert got.headers["webhook-id"] == show("evt", event_id)
    assert abs(int(got.headers["webhook-timestamp"]) - real_now().timestamp()) < 60
    assert got.headers["content-type"] == "application/json"
    body = msgspec.json.decode(got.body)
    row = await outbox.event_row(db, event_id)
    assert row is not None
    assert body == {
        "id": show("evt", event_id),
        "type": "cat.fed",
        "created_at": row.at.isoformat().replace("+00:00", "Z"),
        "mode": "sandbox",
        "data": {"object": {"id": "cat_1", "name": "Mimi"}},
    }
    delivery = await only_delivery(db, event_id)
    assert (delivery.state, delivery.attempts, delivery.last_status) == ("succeeded", 1, 200)
    (attempt,) = await deliveries.attempts_of(db, delivery.id)
    assert (attempt.outcome, attempt.status) == (AttemptOutcome.DELIVERED, 200)
    assert [each.id for each in await deliveries.deliveries_of_resource(db, "cat_1")] == [
        delivery.id
    ]
    assert await TASKS.one(db) == 0


async def test_events_between_our_own_domains_are_not_sent(
    db: Db, keyring: Keyring, receiver: Receiver, work: Callable[[], Awaitable[None]]
) -> None:
    await endpoint(db, keyring, receiver.url)
    counted = CatCounted(
        merchant_id=OWNER.merchant_id, mode=OWNER.mode, resource_id="cats", count=1
    )
    async with db.begin("test") as tx:
        await outbox.publish(tx, counted)
    await work()
    assert receiver.received == []


async def test_failures_are_retried_on_schedule_and_success_ends_it(
    db: Db, keyring: Keyring, receiver: Receiver, work: Callable[[], Awaitable[None]]
) -> None:
    issued = await endpoint(db, keyring, receiver.url)
    card = b"\0no 4111111111111111 "
    receiver.answers = [answer(500, b"oh" + card + b"x" * 5000), answer(404), answer(204)]
    event_id = await feed(db)
    await work()
    for tries in (1, 2):
        delivery = await only_delivery(db, event_id)
        assert (delivery.state, delivery.tries) == ("pending", tries)
        delay = delay_after(delivery.id, tries)
        assert delay is not None
        db.clock.offset += delay * 0.8
        await work()
        assert len(receiver.received) == tries
        db.clock.offset += delay * 0.2
        await work()
        assert len(receiver.received) == tries + 1

    delivery = await only_delivery(db, event_id)
    assert (delivery.state, delivery.attempts) == ("succeeded", 3)
    attempts = await deliveries.attempts_of(db, delivery.id)
    assert [attempt.status for attempt in attempts] == [500, 404, 204]
    assert attempts[0].reply.startswith("oh�no [removed] xx")
    assert len(attempts[0].reply) == 1024
    assert len({got.headers["webhook-id"] for got in receiver.received}) == 1
    assert len({got.body for got in receiver.received}) == 1
    assert all(verified(got, issued.secret.reveal()) for got in receiver.received)
    after = await endpoints.endpoint_of(db, OWNER, issued.endpoint.id)
    assert (after.failing_since, after.failures_in_row) == (None, 0)


async def test_redirects_are_failures_and_are_not_followed(
    db: Db, keyring: Keyring, receiver: Receiver, work: Callable[[], Awaitable[None]]
) -> None:
    await endpoint(db, keyring, receiver.url)
    receiver.answers = [answer(302, location="http://169.254.169.254/latest/meta-data")]
    event_id = await feed(db)
    await work()
    (attempt,) = await deliveries.attempts_of(db, (await only_delivery(db, event_id)).id)
    assert (attempt.outcome, attempt.status) == (AttemptOutcome.REDIRECTED, 302)
    assert len(receiver.received) == 1


async def test_410_disables_the_endpoint_and_the_merchant_is_told(
    db: Db, keyring: Keyring, receiver: Receiver, work: Callable[[], Awaitable[None]]
) -> None:
    gone = (await endpoint(db, keyring, receiver.url, "cat.fed")).endpoint
    rules = WebhookRules(RULES.event_types | {"webhook_endpoint.disabled"}, loopback_allowed=True)
    told = await endpoint(db, keyring, receiver.url, "webhook_endpoint.*", rules=rules)
    receiver.answers = [answer(410)]
    event_id = await feed(db)
    await work()

    after = await endpoints.endpoint_of(db, OWNER, gone.id)
    assert (after.state, after.disabled_because) == (EndpointState.DISABLED, DisabledBecause.GONE)
    delivery = await only_delivery(db, event_id)
    assert (delivery.state, delivery.tries) == ("failed", 1)
    assert len(receiver.received) == 2
    assert verified(receiver.received[1], told.secret.reveal())
    body = msgspec.json.decode(receiver.received[1].body)
    assert body["type"] == "webhook_endpoint.disabled"
    assert body["data"]["object"]["id"] == show("whe", gone.id)
    assert body["data"]["object"]["disabled_because"] == "gone"

    await feed(db)
    await work()
    assert len(receiver.received) == 2


async def test_a_receiver_that_never_answers_is_unanswered_not_delivered(
    db: Db,
    keyring: Keyring,
    receiver: Receiver,
    work: Callable[[], Awaitable[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tongbao.infra.webhooks.courier.TIMEOUT_S", 1.0)
    await endpoint(db, keyring, receiver.url)
    receiver.gate.clear()
    event_id = await feed(db)
    await work()
    delivery = await only_delivery(db, event_id)
    assert delivery.state is DeliveryState.PENDING
    (attempt,) = await deliveries.attempts_of(db, delivery.id)
    assert (attempt.outcome, attempt.status) == (AttemptOutcome.NO_ANSWER, None)


async def test_a_closed_port_is_not_sent(
    db: Db, keyring: Keyring, work: Callable[[], Awaitable[None]]
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        await endpoint(db, keyring, f"http://127.0.0.1:{closed.getsockname()[1]}/")
        event_id = await feed(db)
        await work()
    (attempt,) = await deliveries.attempts_of(db, (await only_delivery(db, event_id)).id)
    assert (attempt.outcome, attempt.status) == (AttemptOutcome.NOT_SENT, None)


async def test_a_live_endpoint_that_leads_to_us_is_never_called(
    db: Db, keyring: Keyring, receiver: Receiver, work: Callable[[], Awaitable[None]]
) -> None:
    issued = await endpoint(db, keyring, "https://shop.example/", owner=LIVE)
    inside = receiver.url.replace("http://", "https://")
    await db.execute(
        "update webhook_endpoint set url = $2 where id = $1", [issued.endpoint.id, inside]
    )
    event_id = await feed(db, owner=LIVE)
    await work()
    (attempt,) = await deliveries.attempts_of(db, (await only_delivery(db, event_id)).id)
    assert attempt.outcome is AttemptOutcome.NOT_SENT
    assert receiver.received == []


async def test_retry_after_lets_the_whole_endpoint_rest(
    db: Db, keyring: Keyring, receiver: Receiver, work: Callable[[], Awaitable[None]]
) -> None:
    await endpoint(db, keyring, receiver.url)
    receiver.answers = [answer(429, retry_after="600")]
    first = await feed(db)
    await work()
    second = await feed(db)
    await work()
    db.clock.offset += timedelta(seconds=590)
    await work()
    assert len(receiver.received) == 1
    db.clock.offset += timedelta(seconds=11)
    await work()
    assert [(await only_delivery(db, event_id)).attempts for event_id in (first, second)] == [2, 1]
    assert await STATES.all(db) == ["succeeded", "succeeded"]


async def test_a_failing_endpoint_is_disabled_after_days_and_its_queue_is_closed(
    db: Db, keyring: Keyring, receiver: Receiver, work: Callable[[], Awaitable[None]]
) -> None:
    failing = (await endpoint(db, keyring, receiver.url, "cat.fed")).endpoint
    receiver.answers = [answer(500)] * 1000
    first = await feed(db)
    for _ in range(16):
        await work()
        db.clock.offset += timedelta(hours=6)
        if (await endpoints.endpoint_of(db, OWNER, failing.id)).state is EndpointState.DISABLED:
            break
        late = await feed(db)
    after = await endpoints.endpoint_of(db, OWNER, failing.id)
    assert after.disabled_because is DisabledBecause.FAILING
    assert after.failing_since is not None
    assert await DISABLED.one(db) == 1

    db.clock.offset += 3 * DAY
    await work()
    sent = len(receiver.received)
    assert set(await STATES.all(db)) == {"failed"}
    assert await TASKS.one(db) == 0

    receiver.answers = []
    missed = await only_delivery(db, first)
    async with db.begin("merchant") as tx:
        with pytest.raises(EndpointNotEnabled):
            await deliveries.replay_delivery(tx, OWNER, missed.id)
        await endpoints.enable_endpoint(tx, OWNER, failing.id)
    await work()
    assert len(receiver.received) == sent  # what it missed is not sent unasked

    delivery = await only_delivery(db, late)
    async with db.begin("merchant") as tx:
        count = await deliveries.replay_range(
            tx, OWNER, failing.id, since=delivery.created_at, until=tx.now
        )
    await work()
    assert count == 1
    assert (await only_delivery(db, late)).state is DeliveryState.SUCCEEDED
    assert (await only_delivery(db, first)).state is DeliveryState.FAILED


async def test_a_lone_delivery_gives_up_after_its_schedule(
    db: Db, keyring: Keyring, receiver: Receiver, work: Callable[[], Awaitable[None]]
) -> None:
    await endpoint(db, keyring, receiver.url)
    receiver.answers = [answer(500)] * 100
    event_id = await feed(db)
    await work()
    began = db.clock.now()
    while (delivery := await only_delivery(db, event_id)).state is DeliveryState.PENDING:
        assert delivery.next_at is not None
        db.clock.offset += max(delivery.next_at - db.clock.now(), timedelta())
        await work()
    assert delivery.state is DeliveryState.FAILED
    assert delivery.tries == len(RETRY_DELAYS) + 1
    assert timedelta(hours=64) < db.clock.now() - began < timedelta(hours=82)


# Replays, tests, rotation


async def test_a_replay_sends_the_same_event_again_under_the_same_id(
    db: Db, keyring: Keyring, receiver: Receiver, work: Callable[[], Awaitable[None]]
) -> None:
    issued = await endpoint(db, keyring, receiver.url)
    event_id = await feed(db)
    await work()
    delivery = await only_delivery(db, event_id)
    async with db.begin("merchant") as tx:
        again = await deliveries.replay_delivery(tx, OWNER, delivery.id)
        repeat = await deliveries.replay_delivery(tx, OWNER, delivery.id)
    assert (again.state, again.round, again.tries) == ("pending", 2, 0)
    assert repeat == again
    await work()
    assert len(receiver.received) == 2
    assert receiver.received[0].body == receiver.received[1].body
    assert len({got.headers["webhook-id"] for got in receiver.received}) == 1
    assert verified(receiver.received[1], issued.secret.reveal())
    after = await only_delivery(db, event_id)
    assert (after.state, after.round, after.attempts) == ("succeeded", 2, 2)
    numbers = [attempt.number for attempt in await deliveries.attempts_of(db, delivery.id)]
    assert numbers == [1, 2]


async def test_a_replayed_range_is_half_open_and_may_include_the_delivered(
    db: Db, keyring: Keyring, receiver: Receiver, work: Callable[[], Awaitable[None]]
) -> None:
    made = (await endpoint(db, keyring, receiver.url)).endpoint
    moments = []
    for _ in range(4):
        await feed(db)
        await work()
        moments.append(db.clock.now())
        db.clock.offset += timedelta(hours=1)
    async with db.begin("merchant") as tx:
        for failed_only, count in ((True, 0), (False, 2)):
            replayed = await deliveries.replay_range(
                tx,
                OWNER,
                made.id,
                since=moments[0],
                until=moments[2],
                failed_only=failed_only,
            )
            assert replayed == count
    await work()
    assert len(receiver.received) == 6


async def test_a_test_event_goes_to_the_one_endpoint(
    db: Db, keyring: Keyring, receiver: Receiver, work: Callable[[], Awaitable[None]]
) -> None:
    tried = await endpoint(db, keyring, receiver.url, "dog.walked")
    await endpoint(db, keyring, receiver.url)
    async with db.begin("merchant") as tx:
        delivery = await deliveries.send_test(tx, OWNER, tried.endpoint.id, note="hello")
    await work()
    (got,) = receiver.received
    assert verified(got, tried.secret.reveal())
    body = msgspec.json.decode(got.body)
    assert (body["type"], body["data"]) == ("webhook.test", {"object": {"note": "hello"}})
    page = await deliveries.deliveries_of_endpoint(db, OWNER, tried.endpoint.id)
    assert [each.id for each in page.items] == [delivery.id]


async def test_a_rotation_signs_with_both_keys_until_the_overlap_ends(
    db: Db, keyring: Keyring, receiver: Receiver, work: Callable[[], Awaitable[None]]
) -> None:
    keys = [await endpoint(db, keyring, receiver.url)]
    endpoint_id = keys[0].endpoint.id

    async def rotate(overlap: timedelta) -> None:
        async with db.begin("merchant") as tx:
            keys.append(
                await endpoints.rotate_key(tx, keyring, OWNER, endpoint_id, overlap=overlap)
            )

    async def who_verifies() -> list[int]:
        await feed(db)
        await work()
        got = receiver.received[-1]
        shared = [n for n, key in enumerate(keys) if verified(got, key.secret.reveal())]
        assert shared == [n for n, key in enumerate(keys) if verified_v1a(got, key.public_key)]
        return shared

    assert await who_verifies() == [0]
    await rotate(DAY)
    assert await who_verifies() == [0, 1]
    assert len(await endpoints.public_keys_of(db, endpoint_id, db.clock.now())) == 2
    db.clock.offset += DAY
    assert await who_verifies() == [1]
    await rotate(DAY)
    await rotate(DAY)
    assert await who_verifies() == [2, 3]
    await rotate(timedelta())
    assert await who_verifies() == [4]
    for overlap in (timedelta(seconds=-1), timedelta(days=8)):
        with pytest.raises(OverlapInvalid):
            await rotate(overlap)


async def test_two_rotations_at_once_leave_one_key_that_stays(db: Db, keyring: Keyring) -> None:
    endpoint_id = (await endpoint(db, keyring, "https://shop.example/")).endpoint.id

    async def rotate() -> None:
        async with db.begin("other") as tx:
            await endpoints.rotate_key(tx, keyring, OWNER, endpoint_id, overlap=DAY)

    async with db.begin("one") as tx:
        await endpoints.rotate_key(tx, keyring, OWNER, endpoint_id, overlap=DAY)
        other = asyncio.create_task(rotate())
        await somebody_waits(db)
    await other
    keys = await store.KEYS_IN_USE.all(db, [endpoint_id], db.clock.now())
    assert Counter(key.retires_at is None for key in keys) == {True: 1, False: 1}


async def test_an_object_too_large_to_send_is_left_to_be_fetched(
    db: Db, keyring: Keyring, receiver: Receiver, work: Callable[[], Awaitable[None]]
) -> None:
    await endpoint(db, keyring, receiver.url)
    event_id = await feed(db, name="猫" * PAYLOAD_MAX)
    await work()
    (got,) = receiver.received
    assert len(got.body) <= PAYLOAD_MAX
    body = msgspec.json.decode(got.body)
    assert body["data"] == {"object": {"id": "cat_1"}, "truncated": True}
    assert parse("evt", body["id"]) == event_id


# Crashes and crowds


async def test_a_crash_after_sending_sends_again_under_the_same_id(
    db: Db, keyring: Keyring, receiver: Receiver, work: Callable[[], Awaitable[None]]
) -> None:
    await endpoint(db, keyring, receiver.url)
    event_id = await feed(db)
    failpoints.arm("webhooks.sent:raise")
    with pytest.raises(SimulatedCrash):
        await work()
    assert (await only_delivery(db, event_id)).attempts == 0
    await EXPIRE.run(db, real_now())

    client = HttpClient(LoopbackAllowed())
    courier = Courier(db, keyring, {Mode.SANDBOX: client})
    await worker_of(db, courier).run_until_idle(raise_failures=True)
    await client.close()

    assert len({got.headers["webhook-id"] for got in receiver.received}) == 1
    assert len(receiver.received) == 2
    delivery = await only_delivery(db, event_id)
    assert (delivery.state, delivery.attempts) == ("succeeded", 1)


async def test_a_slow_endpoint_holds_up_no_other(
    db: Db, keyring: Keyring, receiver: Receiver
) -> None:
    slow = Receiver()
    slow.gate.clear()
    server = await asyncio.start_server(slow.follow, "127.0.0.1", 0)
    slow_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    await endpoint(db, keyring, slow_url)
    await endpoint(db, keyring, receiver.url, owner=STRANGER)
    for _ in range(20):
        await feed(db)
    client, stop = HttpClient(LoopbackAllowed()), asyncio.Event()
    worker = worker_of(db, Courier(db, keyring, {Mode.SANDBOX: client}))
    working = asyncio.create_task(worker.run(stop))
    async with asyncio.timeout(20):
        while slow.open_now < IN_FLIGHT_MAX:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)
        await feed(db, owner=STRANGER)
        while not receiver.received:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)
    assert not slow.gate.is_set()
    slow.gate.set()
    async with asyncio.timeout(20):
        while await TASKS.one(db):  # noqa: ASYNC110 - the database tells nobody
            await asyncio.sleep(0.01)
    stop.set()
    await working
    await client.close()
    server.close()
    assert slow.open_max == IN_FLIGHT_MAX
    assert len(slow.received) == 20


async def test_deliveries_are_listed_in_pages(
    db: Db, keyring: Keyring, receiver: Receiver, work: Callable[[], Awaitable[None]]
) -> None:
    made = (await endpoint(db, keyring, receiver.url)).endpoint
    receiver.answers = [answer(500)]
    events = []
    for _ in range(5):
        events.append(await feed(db))
        await work()
    seen: list[UUID] = []
    cursor = None
    while True:
        page = await deliveries.deliveries_of_endpoint(db, OWNER, made.id, limit=2, cursor=cursor)
        seen += [delivery.event_id for delivery in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert sorted(seen) == sorted(events)
    page = await deliveries.deliveries_of_endpoint(db, OWNER, made.id, state=DeliveryState.PENDING)
    assert len(page.items) == 1
