"""The outbox: an event is told to each subscriber, whatever crashes in between."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from msgspec import Struct
from prometheus_client import REGISTRY

from tongbao.infra import _queue_metrics as metrics
from tongbao.infra import failpoints, outbox
from tongbao.infra.db import Db, Query, Statement, Tx
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.infra.outbox import Event, EventRow, EventUnknown, Subscriber
from tongbao.infra.worker import Worker
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import derived_id, new_id
from tongbao.kernel.licence import Mode

TASKS = Query(str, "select type from task order by type")
WAITING = Query(int, "select count(*) from event where dispatched_at is null")
EXPIRE = Statement("update task set lease_until = $1 where lease_until is not null")
MERCHANT, OTHER = new_id(), new_id()


class CatView(Struct, frozen=True):
    id: str
    lives: int


class CatFed(Event, frozen=True, tag="cat.fed"):
    object: CatView


class CatLost(Event, frozen=True, tag="cat.lost"):
    object: CatView
    street: str = "unknown"


class CatCounted(Event, frozen=True, tag="cat.counted"):
    count: int


def fed(cat: str = "cat_1", *, merchant_id: UUID | None = MERCHANT) -> CatFed:
    view = CatView(cat, 9)
    return CatFed(merchant_id=merchant_id, mode=Mode.LIVE, resource_id=cat, object=view)


def lost() -> CatLost:
    view = CatView("cat_1", 8)
    return CatLost(
        merchant_id=MERCHANT, mode=Mode.LIVE, resource_id="cat_1", object=view, street="Lane 3"
    )


async def publish(db: Db, *events: Event) -> list[UUID]:
    async with db.begin("test") as tx:
        return [await outbox.publish(tx, event) for event in events]


class Listener:
    """A subscriber that remembers what it heard."""

    def __init__(self, name: str) -> None:
        self.heard: list[tuple[Event, UUID]] = []
        self.broken = False
        self.subscriber = Subscriber(name, self.receive)

    async def receive(self, event: Event, event_id: UUID) -> None:
        if self.broken:
            raise ValueError
        self.heard.append((event, event_id))


def worker_of(db: Db, *listeners: Listener) -> Worker:
    told = [listener.subscriber for listener in listeners]
    return Worker(db, {}, {}, {CatFed: told, CatLost: told[:1]})


async def test_every_subscriber_hears_an_event_once(db: Db) -> None:
    anna, berta = Listener("tests.anna"), Listener("tests.berta")
    fed_id, lost_id = await publish(db, fed(), lost())
    worker = worker_of(db, anna, berta)

    await worker.run_until_idle(raise_failures=True)
    await worker.run_until_idle(raise_failures=True)

    assert sorted(anna.heard, key=lambda heard: heard[1]) == [(fed(), fed_id), (lost(), lost_id)]
    assert berta.heard == [(fed(), fed_id)]
    assert await WAITING.one(db) == 0
    assert await TASKS.all(db) == []


async def test_an_event_exists_only_if_its_fact_does(db: Db) -> None:
    async def fail() -> None:
        async with db.begin("test") as tx:
            await outbox.publish(tx, fed())
            assert await WAITING.one(tx) == 1
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await WAITING.one(db) == 0


async def test_the_same_id_publishes_once(db: Db) -> None:
    event_id = derived_id(MERCHANT, "fed")
    for _ in range(2):
        async with db.begin("test") as tx:
            await outbox.event_write(fed(), now=tx.now, event_id=event_id).run(tx)
    assert await WAITING.one(db) == 1


async def test_a_failing_subscriber_is_retried_and_holds_up_nobody(db: Db) -> None:
    anna, berta = Listener("tests.anna"), Listener("tests.berta")
    anna.broken = True
    await publish(db, fed())
    worker = worker_of(db, anna, berta)
    await worker.run_until_idle()
    assert (len(anna.heard), len(berta.heard)) == (0, 1)

    anna.broken = False
    db.clock.offset += timedelta(minutes=1)
    await worker.run_until_idle(raise_failures=True)
    assert (len(anna.heard), len(berta.heard)) == (1, 1)


async def test_a_crash_before_the_dispatch_commits_tells_each_subscriber_once(db: Db) -> None:
    anna, berta = Listener("tests.anna"), Listener("tests.berta")
    await publish(db, fed())
    failpoints.arm("outbox.before_dispatch_commit:raise")
    with pytest.raises(SimulatedCrash):
        await worker_of(db, anna, berta).run_until_idle()
    assert await WAITING.one(db) == 1
    assert await TASKS.all(db) == []

    await worker_of(db, anna, berta).run_until_idle(raise_failures=True)
    assert (len(anna.heard), len(berta.heard)) == (1, 1)


async def test_a_crash_after_the_dispatch_commits_tells_each_subscriber_once(db: Db) -> None:
    anna, berta = Listener("tests.anna"), Listener("tests.berta")
    await publish(db, fed())
    failpoints.arm("outbox.dispatched:raise")
    with pytest.raises(SimulatedCrash):
        await worker_of(db, anna, berta).run_until_idle()
    assert await WAITING.one(db) == 0
    assert (anna.heard, berta.heard) == ([], [])

    await EXPIRE.run(db, real_now())  # what was dispatched was claimed in the same commit
    await worker_of(db, anna, berta).run_until_idle(raise_failures=True)
    assert (len(anna.heard), len(berta.heard)) == (1, 1)


async def test_two_dispatchers_never_take_one_event_twice(db: Db) -> None:
    anna = Listener("tests.anna")
    subscribers = {"cat.fed": [anna.subscriber]}
    await publish(db, *[fed(f"cat_{number}") for number in range(5)])
    async with db.begin("one") as one, db.begin("two") as two:
        assert await outbox.dispatch(one, subscribers, (), events_max=3) == 3
        assert await outbox.dispatch(two, subscribers, (), events_max=3) == 2
    assert await TASKS.all(db) == ["subscriber:tests.anna"] * 5


async def test_events_of_a_newer_version_wait_for_it_and_are_counted(db: Db) -> None:
    anna = Listener("tests.anna")
    counted = CatCounted(merchant_id=None, mode=Mode.LIVE, resource_id="cats", count=3)
    await publish(db, counted, fed())
    await worker_of(db, anna).run_until_idle(raise_failures=True)
    assert len(anna.heard) == 1
    assert await WAITING.one(db) == 1
    await metrics.observe(db, known=(), known_events={"cat.fed"})
    assert REGISTRY.get_sample_value("tongbao_events_unknown") == 1

    newer = Worker(db, {}, {}, {CatCounted: [anna.subscriber]})
    await newer.run_until_idle(raise_failures=True)
    assert anna.heard[1][0] == counted


async def test_a_subscriber_of_a_newer_version_keeps_its_task(db: Db) -> None:
    anna, berta = Listener("tests.anna"), Listener("tests.berta")
    await publish(db, fed())
    async with db.begin("newer") as tx:
        told = {"cat.fed": [anna.subscriber, berta.subscriber]}
        await outbox.dispatch(tx, told, ())
    await worker_of(db, anna).run_until_idle(raise_failures=True)
    assert len(anna.heard) == 1
    assert await TASKS.all(db) == ["subscriber:tests.berta"]


async def test_fields_a_program_does_not_know_are_left_out(db: Db) -> None:
    anna = Listener("tests.anna")
    await publish(db, lost())
    await db.execute('update event set body = body || \'{"weather": "rain"}\'', ())
    await worker_of(db, anna).run_until_idle(raise_failures=True)
    assert [event for event, _ in anna.heard] == [lost()]


async def test_fan_outs_see_the_events_in_the_same_transaction(db: Db) -> None:
    seen: list[EventRow] = []

    async def fan_out(tx: Tx, events: list[EventRow]) -> None:
        assert await Query(int, "select count(*) from task").one(tx) == 0
        seen.extend(events)

    await publish(db, fed())
    worker = Worker(db, {}, {}, {CatFed: []}, fan_outs=[fan_out])  # type: ignore[list-item]
    await worker.run_until_idle(raise_failures=True)
    (row,) = seen
    assert row.body == {"object": {"id": "cat_1", "lives": 9}}


async def test_a_merchant_lists_its_own_public_events_newest_first(db: Db) -> None:
    mine = [(await publish(db, fed(f"cat_{number}")))[0] for number in range(5)]
    internal = CatCounted(merchant_id=MERCHANT, mode=Mode.LIVE, resource_id="cats", count=3)
    await publish(db, internal, fed(merchant_id=OTHER), fed(merchant_id=None), lost())

    async def ids(mode: Mode = Mode.LIVE, **filters: Any) -> list[UUID]:
        found: list[UUID] = []
        cursor: str | None = None
        while True:
            page = await outbox.events_of_merchant(
                db,
                merchant_id=MERCHANT,
                mode=mode,
                limit=2,
                cursor=cursor,
                **filters,
            )
            found += [row.id for row in page.items]
            cursor = page.next_cursor
            if cursor is None:
                return found

    assert len(await ids()) == 6
    assert await ids(type_="cat.fed") == mine[::-1]
    assert await ids(resource_id="cat_3") == [mine[3]]
    assert await ids(mode=Mode.SANDBOX) == []
    page = await outbox.events_of_merchant(db, merchant_id=MERCHANT, mode=Mode.LIVE)
    third = next(row for row in page.items if row.id == mine[2])
    assert await ids(type_="cat.fed", since=third.at) == mine[:1:-1]
    assert await ids(type_="cat.fed", until=third.at) == mine[1::-1]


async def test_an_event_is_shown_to_its_merchant_only(db: Db) -> None:
    (event_id,) = await publish(db, fed())
    row = await outbox.event_of_merchant(db, event_id, merchant_id=MERCHANT, mode=Mode.LIVE)
    view = outbox.event_view(row)
    assert (view.type, view.data) == ("cat.fed", {"object": {"id": "cat_1", "lives": 9}})
    assert view.id.startswith("evt_")
    for merchant_id, mode in ((OTHER, Mode.LIVE), (MERCHANT, Mode.SANDBOX)):
        with pytest.raises(EventUnknown):
            await outbox.event_of_merchant(db, event_id, merchant_id=merchant_id, mode=mode)


async def test_the_timeline_of_a_thing_has_internal_events_too(db: Db) -> None:
    counted = CatCounted(merchant_id=None, mode=Mode.LIVE, resource_id="cat_1", count=3)
    await publish(db, fed(), counted, fed("cat_2"))
    assert [row.type for row in await outbox.events_of_resource(db, "cat_1")] == [
        "cat.fed",
        "cat.counted",
    ]


def test_events_with_an_object_are_public() -> None:
    assert outbox.public_types([CatFed, CatLost, CatCounted]) == {"cat.fed", "cat.lost"}
