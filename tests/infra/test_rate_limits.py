"""Rate limits: what a bucket gives over several processes, by cost, key, merchant and day."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from datetime import timedelta

import msgspec
import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st
from litestar import get

from tests.infra.signed_client import SignedClient
from tests.infra.test_web import FACTS, SECRET, OneKey
from tongbao.infra.admission import _store as store
from tongbao.infra.admission import rate_shares
from tongbao.infra.admission.rate_limits import Bucket, RateLimit, given
from tongbao.infra.admission.rate_shares import FILLING, RateLimits, set_rate_limit
from tongbao.infra.db import Db, Tx
from tongbao.infra.serving.app import App
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.problem import TooManyRequests
from tongbao.kernel.clock import business_date, day_bounds, real_now
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Mode

NOW = real_now()
SMALL = RateLimit(units_per_s=10, burst=20)


def fresh() -> Bucket:
    return Bucket(NOW, business_date(NOW), 0)


def caller(merchant: object = None) -> Caller:
    return Caller(new_id(), merchant or new_id(), Mode.SANDBOX, 2, frozenset())  # type: ignore[arg-type]


# What a bucket gives


def test_a_full_bucket_gives_its_burst_and_no_more() -> None:
    lease = given(fresh(), SMALL, (1, 50), NOW)
    assert (lease.units, lease.left) == (20, 0)
    again = given(lease.bucket, SMALL, (1, 50), NOW)
    assert (again.units, again.wait_s) == (0, 1)


def test_it_fills_by_time() -> None:
    empty = given(fresh(), SMALL, (20, 20), NOW).bucket
    assert given(empty, SMALL, (1, 50), NOW + timedelta(seconds=1)).units == 10
    assert given(empty, SMALL, (1, 50), NOW + timedelta(seconds=9)).units == 20


def test_it_says_how_long_to_wait_for_so_much() -> None:
    empty = given(fresh(), SMALL, (20, 20), NOW).bucket
    waits = given(empty, SMALL, (15, 15), NOW)
    assert (waits.units, waits.wait_s) == (0, 2)
    assert given(empty, SMALL, (15, 15), NOW + timedelta(seconds=2)).units == 15


@for_all(
    st.integers(1, 100),
    st.integers(1, 300),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 50), st.integers(1, 80)), max_size=60),
)
def test_nobody_gets_more_than_burst_and_flow(
    per_s: int, burst: int, asked: list[tuple[int, int, int]]
) -> None:
    limit, bucket, now, got = RateLimit(per_s, burst), fresh(), NOW, 0
    for pause_ms, needed, more in asked:
        now += timedelta(milliseconds=pause_ms)
        lease = given(bucket, limit, (needed, needed + more), now)
        assert lease.units == 0 or needed <= lease.units <= needed + more
        bucket, got = lease.bucket, got + lease.units
        assert got <= burst + (now - NOW).total_seconds() * per_s + 1


@for_all(st.integers(1, 500), st.lists(st.integers(1, 40), max_size=60))
def test_a_day_has_its_quota(quota: int, asked: list[int]) -> None:
    limit, bucket, got = RateLimit(1000, 100_000, quota), fresh(), 0
    for needed in asked:
        lease = given(bucket, limit, (needed, needed * 2), NOW)
        bucket, got = lease.bucket, got + lease.units
        if not lease.units:
            assert got + needed > quota
            assert 0 < lease.wait_s <= 24 * 3600
    assert got <= quota
    tomorrow = given(bucket, limit, (1, 1), NOW + timedelta(days=1))
    assert tomorrow.units == 1
    assert tomorrow.bucket.used == 1


# Over processes


def test_who_comes_late_from_the_day_before_brings_no_quota_back() -> None:
    limit, blink = RateLimit(1000, 100_000, units_per_day=10), timedelta(milliseconds=1)
    _, midnight = day_bounds(business_date(NOW))
    today = given(fresh(), limit, (8, 8), midnight + blink).bucket
    late = given(today, limit, (1, 1), midnight - blink)
    assert late.units == 1
    assert given(late.bucket, limit, (2, 2), midnight + blink).units == 0
    assert given(late.bucket, limit, (1, 1), midnight + blink).units == 1


async def test_processes_share_one_bucket(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes leases of its own; together they give out the burst, but for what they hold."""
    monkeypatch.setattr(rate_shares, "SHARE_STANDS_S", 600)  # on the slowest machine too
    them, one = [RateLimits(db, RateLimit(1, 400)) for _ in range(4)], caller()

    async def ask(process: RateLimits) -> bool:
        try:
            await process.take(one, 1)
        except TooManyRequests:
            return False
        return True

    allowed = sum(await asyncio.gather(*[ask(them[n % 4]) for n in range(600)]))
    assert 250 <= allowed <= 402  # some still hold a share; burst, and what flowed meanwhile


async def test_a_share_is_taken_without_a_question_and_is_not_for_ever(
    db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits, one = RateLimits(db, RateLimit(10, 400)), caller()
    assert not limits.try_take(one)
    await limits.take(one, 1)
    assert sum(limits.try_take(one) for _ in range(50)) == 9  # a fortieth of the burst
    await limits.take(one, 1)
    assert limits.try_take(one)
    later = rate_shares.monotonic() + 60
    monkeypatch.setattr(rate_shares, "monotonic", lambda: later)
    assert not limits.try_take(one)


async def test_a_flood_is_refused_without_the_database(
    db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits, one = RateLimits(db, RateLimit(1, 1)), caller()
    await limits.take(one, 1)
    with pytest.raises(TooManyRequests):
        await limits.take(one, 1)
    now = rate_shares.monotonic()
    monkeypatch.setattr(rate_shares, "monotonic", lambda: now)
    async with db.begin("test") as tx:  # whoever asked the bucket now would wait for this
        await store.LOCK_BUCKETS.one(tx, [one.merchant_id], [one.mode])
        for _ in range(100):
            with pytest.raises(TooManyRequests):
                await asyncio.wait_for(limits.take(one, 1), 10)


async def test_whoever_uses_a_share_never_waits_for_the_next(
    db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits, one = RateLimits(db, RateLimit(1_000_000, 4000)), caller()
    now = rate_shares.monotonic()
    monkeypatch.setattr(rate_shares, "monotonic", lambda: now)
    await limits.take(one, 1)
    for _ in range(80):  # four seconds of a share's five, again and again
        now += 4.0
        assert limits.try_take(one)
        await filled()
    assert sum(limits.try_take(one) for _ in range(4000)) <= 1000, "it does not hoard either"


async def filled() -> None:
    """Let the process fetch what it wants."""
    await asyncio.gather(*[one for one in asyncio.all_tasks() if one.get_name() == FILLING])


async def test_what_is_gone_soon_is_fetched_before_it_is_gone(db: Db) -> None:
    limits, one, waited = RateLimits(db, RateLimit(1_000_000, 4000)), caller(), 0
    await limits.take(one, 1)
    for _ in range(3000):
        waited += not limits.try_take(one)
        await filled()
    assert waited == 0


async def test_many_who_lack_a_share_are_given_one_together(
    db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, begun = db.begin, 0

    def counted(actor: str) -> AbstractAsyncContextManager[Tx]:
        nonlocal begun
        begun += 1
        return begin(actor)

    monkeypatch.setattr(db, "begin", counted)
    limits, many = RateLimits(db, RateLimit(10, 400)), [caller() for _ in range(30)]
    await limits.stock(many)
    assert all(limits.try_take(one) for one in many)
    await asyncio.gather(*[limits.take(one, 1) for one in many])
    assert begun == 1


async def test_nobody_waits_for_units_that_nobody_fetches_any_more(db: Db) -> None:
    """Those of the round that is under way, and of the next one, which will not be."""
    limits, first, second = RateLimits(db, SMALL), caller(), caller()
    await limits.take(first, 20)
    async with db.begin("test") as tx:
        await tx.execute("lock table rate_bucket in access exclusive mode", ())
        waiting = asyncio.create_task(limits.take(second, 1))
        await asyncio.sleep(0.1)
        next_round = asyncio.create_task(limits.take(caller(), 1))
        await asyncio.sleep(0)
        [filling] = [each for each in asyncio.all_tasks() if each.get_name() == FILLING]
        filling.cancel()
        async with asyncio.timeout(5):
            ended = await asyncio.gather(waiting, next_round, return_exceptions=True)
    assert [type(each) for each in ended] == [asyncio.CancelledError] * 2
    await limits.take(second, 1)  # and whoever comes then is served


async def test_one_who_has_used_all_up_leaves_the_others_theirs(db: Db) -> None:
    limits = RateLimits(db, RateLimit(1, 5))
    poor, rich = caller(), caller()
    await limits.take(poor, 5)
    told = await asyncio.gather(
        limits.take(poor, 5), *[limits.take(rich, 1) for _ in range(5)], return_exceptions=True
    )
    assert isinstance(told[0], TooManyRequests)
    assert not any(isinstance(each, BaseException) for each in told[1:])


async def test_a_key_of_its_own_limit_leaves_the_others_theirs(db: Db) -> None:
    limits, one = RateLimits(db, RateLimit(1, 100)), caller()
    other = caller(one.merchant_id)
    async with db.begin("test") as tx:
        await set_rate_limit(tx, (one.key_id, one.mode), RateLimit(1, 3), "key_one")
    for _ in range(3):
        await limits.take(one, 1)
    with pytest.raises(TooManyRequests):
        await limits.take(one, 1)
    await limits.take(other, 50)
    live = msgspec.structs.replace(one, mode=Mode.LIVE)
    await limits.take(live, 50)  # the other mode has its own


async def test_keys_of_one_merchant_share_its_limit(db: Db) -> None:
    limits, one = RateLimits(db, RateLimit(1, 100)), caller()
    other = caller(one.merchant_id)
    await limits.take(one, 60)
    with pytest.raises(TooManyRequests):
        await limits.take(other, 60)


# As a caller meets it


@get("/v1/cheap", opt=needs("things:read"))
async def cheap() -> int:
    """Cost a unit."""
    return 1


@get("/v1/dear", opt=needs("things:read", cost=8))
async def dear() -> int:
    """Cost eight."""
    return 8


async def test_answers_tell_what_is_left_and_when_to_come_back(db: Db) -> None:
    keys = OneKey("things:read")
    limits = RateLimits(db, RateLimit(units_per_s=1, burst=20))
    app = App([cheap, dear], db=db, keys=keys, facts=FACTS, limits=limits)
    client = SignedClient(app, keys.id, SECRET)

    first = await client.get("/v1/dear")
    assert first.headers["ratelimit-policy"] == '"units";q=20;w=20'
    assert first.headers["ratelimit"] == '"units";r=12;t=20'
    assert (await client.get("/v1/cheap")).headers["ratelimit"].startswith('"units";r=11')
    assert (await client.get("/v1/dear")).status == 200

    refused = await client.get("/v1/dear")
    assert (refused.status, refused.code) == (429, "request.rate_limited")
    assert 1 <= int(refused.headers["retry-after"]) <= 6
    assert refused.json["facts"]["retry_after_s"] == int(refused.headers["retry-after"])
    assert (await client.get("/v1/cheap")).status == 200, "what is left is still given"


async def test_what_is_not_for_the_caller_costs_it_nothing(db: Db) -> None:
    keys = OneKey("things:write")
    limits = RateLimits(db, RateLimit(units_per_s=1, burst=2))
    app = App([cheap], db=db, keys=keys, facts=FACTS, limits=limits)
    client = SignedClient(app, keys.id, SECRET)
    for _ in range(5):
        assert (await client.get("/v1/cheap")).code == "auth.scope_missing"
