"""Idempotency: one effect and one answer per key, whatever repeats, races or dies."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar import Response, post
from msgspec import Struct

from tests.infra.signed_client import SignedClient
from tests.infra.test_web import FACTS, SECRET, OneKey
from tongbao.infra.db import Db
from tongbao.infra.serving.app import App
from tongbao.infra.web import _store as store
from tongbao.infra.web import idempotency
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import (
    Fresh,
    Idempotency,
    InFlight,
    KeyReused,
    Replay,
    Resume,
    answer_once,
    begin,
    canonical,
    keep_refusal,
    prune,
)
from tongbao.infra.web.problem import Rendered
from tongbao.infra.web.request import ApiRequest
from tongbao.kernel.clock import real_now
from tongbao.kernel.errors import Conflict, NotFound, Rejected
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Mode

ROUTE = "POST /v1/things"
CALLER = Caller(new_id(), new_id(), Mode.SANDBOX, 2, frozenset())


class Make(Struct, frozen=True, forbid_unknown_fields=True):
    """What to make."""

    amount: int
    how: str = "well"


class Made(Struct, frozen=True):
    """What was made."""

    id: str
    state: str
    secret: str | None = None


class Shop:
    """Counts what is really made, and can be told to fail in between."""

    def __init__(self) -> None:
        self.made: list[UUID] = []
        self.between: Callable[[], Awaitable[None]] | None = None


class NoStock(Rejected):
    """There is none left."""

    code = "test.no_stock"


class WrongState(Conflict):
    """It is in another state."""

    code = "test.wrong_state"


class Nowhere(NotFound):
    """There is no such thing."""

    code = "test.nowhere"


@post("/v1/things", opt=needs("things:write", idempotent=True))
async def make_once(data: Make, request: ApiRequest, db: Db, shop: Shop) -> Response[Made]:
    """Make a thing once."""

    async def fresh(use: Idempotency) -> Made:
        match data.how:
            case "refused":
                raise NoStock(left=0)
            case "conflict":
                raise WrongState
            case "nowhere":
                raise Nowhere
        thing_id = new_id()
        async with db.begin("test") as tx:
            await use.take(tx, thing_id)
            shop.made.append(thing_id)
        if shop.between is not None:
            await shop.between()
        return Made(str(thing_id), "new", "shown once")

    async def resume(thing_id: UUID) -> Made:
        return Made(str(thing_id), "as it is now")

    def stored(made: Made) -> Made:
        return Made(made.id, made.state)

    return await answer_once(request, db, fresh=fresh, resume=resume, stored=stored)


@post("/v1/things/{thing_id:str}/parts", opt=needs("things:write", idempotent=True))
async def make_part(thing_id: str, request: ApiRequest, db: Db) -> Response[Made]:
    """Make a part of a thing once."""

    async def fresh(use: Idempotency) -> Made:
        async with db.begin("test") as tx:
            await use.take(tx, new_id())
        return Made(thing_id, "new")

    async def resume(part_id: UUID) -> Made:
        raise AssertionError(part_id)

    return await answer_once(request, db, fresh=fresh, resume=resume)


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def keys() -> OneKey:
    return OneKey("things:write")


@pytest.fixture
def client(db: Db, keys: OneKey, shop: Shop) -> SignedClient:
    app = App([make_once, make_part], db=db, keys=keys, facts=FACTS, provides={"shop": shop})
    return SignedClient(app, keys.id, SECRET)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """``later(by)`` moves the real time that leases run by."""

    def move(by: timedelta) -> None:
        moved = real_now() + by
        monkeypatch.setattr(idempotency, "real_now", lambda: moved)

    return move


async def test_a_repeat_gets_the_first_answer_marked_as_replayed(
    client: SignedClient, shop: Shop
) -> None:
    first = await client.post("/v1/things", {"amount": 1}, key="a")
    again = await client.post("/v1/things", {"amount": 1}, key="a")

    assert len(shop.made) == 1
    assert first.status == again.status == 201
    assert first.json["id"] == again.json["id"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"


async def test_what_is_shown_once_is_in_no_later_answer(client: SignedClient, db: Db) -> None:
    first = await client.post("/v1/things", {"amount": 1}, key="a")
    again = await client.post("/v1/things", {"amount": 1}, key="a")

    assert first.json["secret"] == "shown once"
    assert again.json["secret"] is None
    rows = await db.fetch("select response from idempotency_key", ())
    assert b"shown once" not in rows[0]["response"]


async def test_another_key_makes_another(client: SignedClient, shop: Shop) -> None:
    await client.post("/v1/things", {"amount": 1}, key="a")
    await client.post("/v1/things", {"amount": 1}, key="b")

    assert len(shop.made) == 2


async def test_a_key_is_needed_and_has_a_form(client: SignedClient, shop: Shop) -> None:
    none = await client.post("/v1/things", {"amount": 1})
    blank = await client.post("/v1/things", {"amount": 1}, key="  ")
    long = await client.post("/v1/things", {"amount": 1}, key="k" * 256)
    longest = await client.post("/v1/things", {"amount": 1}, key="k" * 255)

    assert (none.status, none.code) == (400, "idempotency.key_missing")
    assert blank.code == "idempotency.key_missing"
    assert (long.status, long.code) == (400, "idempotency.key_too_long")
    assert longest.status == 201
    assert len(shop.made) == 1


async def test_the_same_key_with_another_body_is_refused(client: SignedClient, shop: Shop) -> None:
    await client.post("/v1/things", {"amount": 1}, key="a")

    other = await client.post("/v1/things", {"amount": 2}, key="a")

    assert (other.status, other.code) == (422, "idempotency.reused")
    assert len(shop.made) == 1


async def test_the_same_key_for_another_path_of_the_route_is_refused(client: SignedClient) -> None:
    await client.post("/v1/things/one/parts", key="a")

    other = await client.post("/v1/things/two/parts", key="a")

    assert other.code == "idempotency.reused"


async def test_spacing_and_order_of_the_json_do_not_make_another_body(
    client: SignedClient, shop: Shop
) -> None:
    await client.post("/v1/things", body=b'{"amount": 1, "how": "well"}', key="a")

    again = await client.post("/v1/things", body=b'{"how":"well","amount":1}', key="a")

    assert again.headers["idempotency-replayed"] == "true"
    assert len(shop.made) == 1


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.integers()), min_size=2))
def test_canonical_bytes_are_equal_exactly_for_equal_json(value: dict[str, Any]) -> None:
    turned = dict(reversed(value.items()))
    one = canonical("/v1/a", json.dumps(value).encode())

    assert one == canonical("/v1/a", json.dumps(turned, indent=2, ensure_ascii=False).encode())
    assert one != canonical("/v1/b", json.dumps(value).encode())
    assert one != canonical("/v1/a", json.dumps({**value, "more": 1, "": None}).encode())


async def test_scopes_of_a_key_do_not_meet(db: Db) -> None:
    """The same text as a key elsewhere — merchant, mode, route — is another key."""
    await take(db, "a")
    other = [
        (Caller(CALLER.key_id, new_id(), CALLER.mode, 2, frozenset()), ROUTE),
        (Caller(CALLER.key_id, CALLER.merchant_id, Mode.LIVE, 1, frozenset()), ROUTE),
        (CALLER, "POST /v1/others"),
    ]

    for caller, route in other:
        assert isinstance(await begin(db, caller, route, "a", b"body"), Fresh)
    rolled = Caller(new_id(), CALLER.merchant_id, CALLER.mode, 2, frozenset())
    with pytest.raises(InFlight):
        await begin(db, rolled, ROUTE, "a", b"body")


async def test_malformed_and_unproved_requests_leave_nothing(client: SignedClient, db: Db) -> None:
    await client.post("/v1/things", {"amount": "1"}, key="a")
    await client.post("/v1/things", {"amount": 1}, key="a", signed=False)
    await client.post("/v1/things", {"amount": 1, "how": "nowhere"}, key="a")

    assert not await db.fetch("select route from idempotency_key", ())
    assert (await client.post("/v1/things", {"amount": 1}, key="a")).status == 201


@pytest.mark.parametrize(
    ("how", "status", "code"),
    [("refused", 422, "test.no_stock"), ("conflict", 409, "test.wrong_state")],
)
async def test_a_business_refusal_is_kept_like_an_answer(
    client: SignedClient, db: Db, how: str, status: int, code: str
) -> None:
    first = await client.post("/v1/things", {"amount": 1, "how": how}, key="a")
    again = await client.post("/v1/things", {"amount": 1, "how": how}, key="a")
    db.clock.offset = timedelta(days=3650)
    await prune(db)
    years_later = await client.post("/v1/things", {"amount": 1, "how": how}, key="a")

    assert (first.status, first.code) == (status, code)
    for repeat in (again, years_later):
        assert repeat.body == first.body
        assert repeat.status == status
        assert repeat.headers["idempotency-replayed"] == "true"
        assert repeat.headers["content-type"] == "application/problem+json"


async def test_a_refusal_never_overwrites_a_rivals_work(db: Db) -> None:
    """A request that lost the race trips over what the winner made; that is not the answer."""
    winner = await fresh(db, "a")
    loser = await fresh(db, "a")
    thing_id = new_id()
    async with db.begin("winner") as tx:
        await winner.take(tx, thing_id)

    await keep_refusal(db, loser, Rendered(409, {}, b"taken"))

    async with db.begin("winner") as tx:
        await winner.answer_write(201, b"made", tx.now).run(tx)
    assert await begin(db, CALLER, ROUTE, "a", b"body") == Replay(201, b"made")


async def test_a_second_use_at_once_is_in_flight(client: SignedClient, shop: Shop) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        arrived.set()
        await go_on.wait()

    shop.between = wait
    first = asyncio.create_task(client.post("/v1/things", {"amount": 1}, key="a"))
    await arrived.wait()

    second = await client.post("/v1/things", {"amount": 1}, key="a")
    go_on.set()

    assert (second.status, second.code) == (409, "idempotency.in_flight")
    assert second.headers["retry-after"] == "1"
    assert (await first).status == 201
    assert len(shop.made) == 1
    assert (await client.post("/v1/things", {"amount": 1}, key="a")).status == 201


async def test_a_waiting_request_finds_the_key_taken_by_the_one_it_waited_for(db: Db) -> None:
    """Forced interleaving: both looked and found nothing, both take; one commit, one effect."""
    one, other = await fresh(db, "a"), await fresh(db, "a")

    async def second() -> None:
        async with db.begin("second") as tx:
            await other.take(tx, new_id())

    async with db.begin("first") as tx:
        await one.take(tx, new_id())
        waiting = asyncio.create_task(second())
        await asyncio.sleep(0.05)
        assert not waiting.done()

    with pytest.raises(InFlight):
        await waiting


async def test_a_waiting_request_goes_on_when_the_one_it_waited_for_gives_up(db: Db) -> None:
    one, other = await fresh(db, "a"), await fresh(db, "a")
    thing_id = new_id()

    async def second() -> None:
        async with db.begin("second") as tx:
            await other.take(tx, thing_id)

    with pytest.raises(NoStock):  # noqa: PT012 - the interleaving is the test
        async with db.begin("first") as tx:
            await one.take(tx, new_id())
            waiting = asyncio.create_task(second())
            await asyncio.sleep(0.05)
            raise NoStock

    await waiting
    [row] = await db.fetch("select resource_id from idempotency_key", ())
    assert row["resource_id"] == thing_id


async def test_eight_at_once_make_one(client: SignedClient, shop: Shop) -> None:
    replies = await asyncio.gather(
        *[client.post("/v1/things", {"amount": 1}, key="a") for _ in range(8)]
    )

    assert len(shop.made) == 1
    assert {reply.status for reply in replies} <= {201, 409}
    assert 201 in {reply.status for reply in replies}


async def test_after_a_crash_the_repeat_waits_for_the_lease_and_then_resumes(
    db: Db, later: Callable[[timedelta], None]
) -> None:
    thing_id = await take(db, "a")  # and then nothing: the process is gone

    with pytest.raises(InFlight):
        await begin(db, CALLER, ROUTE, "a", b"body")
    later(idempotency.LEASE + timedelta(seconds=1))
    resumed = await begin(db, CALLER, ROUTE, "a", b"body")

    assert isinstance(resumed, Resume)
    assert resumed.resource_id == thing_id
    with pytest.raises(InFlight):  # the lease is the resumer's now
        await begin(db, CALLER, ROUTE, "a", b"body")


async def test_of_two_that_take_over_at_once_one_resumes(
    db: Db, later: Callable[[timedelta], None]
) -> None:
    await take(db, "a")
    later(idempotency.LEASE + timedelta(seconds=1))

    both = await asyncio.gather(
        *[begin(db, CALLER, ROUTE, "a", b"body") for _ in range(2)], return_exceptions=True
    )

    assert sorted(type(each).__name__ for each in both) == ["InFlight", "Resume"]


async def test_the_first_answer_stays(db: Db, later: Callable[[timedelta], None]) -> None:
    """The one thought dead answers late: what was told first is what is told for ever."""
    slow = await fresh(db, "a")
    async with db.begin("slow") as tx:
        await slow.take(tx, new_id())
    later(idempotency.LEASE + timedelta(seconds=1))
    resumed = await begin(db, CALLER, ROUTE, "a", b"body")
    assert isinstance(resumed, Resume)

    async with db.begin("test") as tx:
        assert await resumed.idempotency.answer_write(200, b"second", tx.now).run(tx) == 1
        assert await slow.answer_write(201, b"first", tx.now).run(tx) == 0

    assert await begin(db, CALLER, ROUTE, "a", b"body") == Replay(200, b"second")


async def test_a_bug_after_the_commit_lets_the_next_try_resume_at_once(
    client: SignedClient, shop: Shop
) -> None:
    async def fail() -> None:
        raise RuntimeError

    shop.between = fail
    first = await client.post("/v1/things", {"amount": 1}, key="a")
    shop.between = None

    again = await client.post("/v1/things", {"amount": 1}, key="a")
    third = await client.post("/v1/things", {"amount": 1}, key="a")

    assert first.status == 500
    assert (again.status, again.json["state"]) == (201, "as it is now")
    assert third.headers["idempotency-replayed"] == "true"
    assert len(shop.made) == 1


async def test_after_thirty_days_the_answer_is_gone_and_the_key_is_not(
    client: SignedClient, db: Db, shop: Shop
) -> None:
    first = await client.post("/v1/things", {"amount": 1}, key="a")
    db.clock.offset = timedelta(days=29)
    await prune(db)
    kept = await client.post("/v1/things", {"amount": 1}, key="a")
    db.clock.offset = timedelta(days=31)
    await prune(db)

    current = await client.post("/v1/things", {"amount": 1}, key="a")
    reused = await client.post("/v1/things", {"amount": 2}, key="a")

    assert kept.json["state"] == "new"
    assert (current.json["id"], current.json["state"]) == (first.json["id"], "as it is now")
    assert reused.code == "idempotency.reused"
    assert len(shop.made) == 1


@pytest.mark.parametrize("sql", [store.KEEP_ANSWERS.sql, store.FIND_ALL.sql])
async def test_keys_are_looked_up_one_by_one_by_a_plan_of_the_day_the_table_was_empty(
    db: Db, sql: str
) -> None:
    """A plan is kept for as long as nobody counts the rows anew: of a new table that takes time."""
    async with db.begin("test") as tx:
        likeness = "(like public.idempotency_key including all) on commit drop"
        await tx.execute(f"create temporary table idempotency_key {likeness}", ())
        await tx.execute("set local plan_cache_mode = force_generic_plan", ())
        await (await tx.begun()).execute(f"prepare of_that_day as {sql}")
        nulls = ", ".join(["null"] * len(set(re.findall(r"\$\d", sql))))
        plan = await tx.fetch(f"explain execute of_that_day ({nulls})", ())
        await tx.execute("deallocate of_that_day", ())
    lines = [str(line[0]) for line in plan]
    assert any("Index Scan using idempotency_key_pkey" in line for line in lines)
    assert not any("Seq Scan on idempotency_key" in line for line in lines)


async def test_work_of_one_commit_answers_in_it(db: Db) -> None:
    use = await fresh(db, "a")

    async with db.begin("test") as tx:
        assert await use.answered_write(new_id(), tx.now, 201, b"{}").run(tx) == 1

    assert await begin(db, CALLER, ROUTE, "a", b"body") == Replay(201, b"{}")


async def test_the_write_names_its_refusal(db: Db) -> None:
    use = await fresh(db, "a")

    assert use.write(new_id(), db.clock.now()).refusal == "idempotency.in_flight"
    assert use.answer_write(200, b"", db.clock.now()).refusal is None


async def test_another_body_is_refused_in_every_state(
    db: Db, later: Callable[[timedelta], None]
) -> None:
    await take(db, "a")
    later(idempotency.LEASE + timedelta(seconds=1))

    with pytest.raises(KeyReused):
        await begin(db, CALLER, ROUTE, "a", b"other body")


async def fresh(db: Db, key: str) -> Idempotency:
    """Look a key up that is new."""
    found = await begin(db, CALLER, ROUTE, key, b"body")
    assert isinstance(found, Fresh)
    return found.idempotency


async def take(db: Db, key: str) -> UUID:
    """Take a key for a new resource, and leave it unanswered."""
    use, thing_id = await fresh(db, key), new_id()
    async with db.begin("test") as tx:
        await use.take(tx, thing_id)
    return thing_id


def test_the_hash_that_is_kept_of_a_body_tells_nothing_without_the_key() -> None:
    """Or the card number in it would be found by trying them all."""
    body = b'{"number":"4929420573595709"}'
    use = idempotency.use_of(CALLER, ROUTE, "a key that is not kept", body)
    again = idempotency.use_of(CALLER, ROUTE, "a key that is not kept", body)
    other = idempotency.use_of(CALLER, ROUTE, "another key", body)
    assert use.body_hash == again.body_hash != other.body_hash
    assert use.body_hash != hashlib.sha256(body).digest()
