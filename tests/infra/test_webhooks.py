"""Webhooks: signed so that others can verify it, sent for three days, to nobody they should not."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import msgspec
import pytest

from tests.infra import webhook_receiver
from tests.infra.webhook_receiver import (
    DAY,
    DISABLED,
    EXPIRE,
    LIVE,
    OWNER,
    RULES,
    STATES,
    STRANGER,
    TASKS,
    CatCounted,
    Receiver,
    answer,
    endpoint,
    feed,
    only_delivery,
    somebody_waits,
    verified,
    verified_v1a,
    worker_of,
)
from tongbao.infra import failpoints, outbox
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.infra.http import HttpClient, LoopbackAllowed
from tongbao.infra.webhooks import _store as store
from tongbao.infra.webhooks import deliveries, endpoints
from tongbao.infra.webhooks.courier import IN_FLIGHT_MAX, Courier
from tongbao.infra.webhooks.model import (
    PAYLOAD_MAX,
    RETRY_DELAYS,
    AttemptOutcome,
    DeliveryState,
    DisabledBecause,
    EndpointNotEnabled,
    EndpointState,
    OverlapInvalid,
    WebhookRules,
    delay_after,
)
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode

keyring = webhook_receiver.keyring
receiver = webhook_receiver.receiver
work = webhook_receiver.work


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
