"""Red packets: every part taken once, every fen accounted for, the rest back exactly once."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.products.callers import once
from tests.products.conftest import People
from tongbao.infra.db_failures import CheckViolated
from tongbao.infra.failpoints import SimulatedCrash, arm
from tongbao.infra.tasks import Again, Lease
from tongbao.infra.web.caller import Caller
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.money import Money
from tongbao.ledger.book import Ledger
from tongbao.parties.accounts.model import Wallet, WalletFrozen
from tongbao.parties.accounts.wallets import account_of, set_frozen
from tongbao.products.red_packets import _store as store
from tongbao.products.red_packets import queries
from tongbao.products.red_packets.grabbing import Grabbers
from tongbao.products.red_packets.hall import Hall
from tongbao.products.red_packets.model import (
    GrabRefused,
    Kind,
    RedPacket,
    RedPacketAsked,
    RedPacketBalanceTooLow,
    RedPacketCurrencyUnknown,
    RedPacketLimitExceeded,
    RedPacketNotEven,
    RedPacketNotFound,
    RedPacketState,
    RedPacketTooSmall,
    split,
    split_by_luck,
)
from tongbao.products.red_packets.returning import ReturnRedPacket, return_red_packet
from tongbao.products.red_packets.sending import send_red_packet

LEASE = Lease(new_id(), 1)
BURST = int(os.environ.get("TONGBAO_RED_PACKET_BURST", "600"))
"""How many people grab at once here; the benchmark lets fifty thousand."""


def cny(amount: int) -> Money:
    return Money(amount, "CNY")


async def sent(
    people: People, amount: int = 1000, parts: int = 4, kind: Kind = Kind.LUCKY, **more: Any
) -> tuple[Wallet, RedPacket]:
    """A red packet from a wallet that holds just so much."""
    sender = await people.wallet(amount)
    asked = RedPacketAsked(kind, cny(amount), parts, **more)
    return sender, await send_red_packet(people.hall, sender, asked, once(people.caller))


async def row_of(people: People, packet: RedPacket) -> RedPacket:
    return await store.GET_PACKET.one(people.hall.db, packet.book, packet.id)


async def end_time(people: People, packet: RedPacket) -> None:
    people.hall.db.clock.offset += packet.expires_at - people.hall.db.clock.now()


async def returned(people: People, packet: RedPacket) -> Again | None:
    task = ReturnRedPacket(packet.book, packet.id)
    return await return_red_packet(people.hall, task, Lease(new_id(), 1))


async def commits(people: People) -> int:
    sql = "select count(*) from ledger_batch where book = $1"
    return int((await people.hall.db.fetch(sql, (people.caller.book,)))[0][0])


async def pot(people: People, packet: RedPacket) -> int:
    rows = await people.hall.db.fetch(
        "select coalesce(sum(case when dc.kind = 'subsidy' then t.amount else -t.amount end), 0)"
        "::bigint as left from ledger_transfer t join ledger_account dc"
        " on dc.book = t.book and dc.id = t.credit_account"
        " where t.book = $1 and $2 in (dc.owner, (select o.owner from ledger_account o"
        " where o.book = t.book and o.id = t.debit_account))",
        (packet.book, packet.id),
    )
    return int(rows[0]["left"])


# The split


@given(st.data())
@settings(max_examples=60)
def test_a_split_by_luck_is_exact_and_leaves_nobody_empty_handed(data: st.DataObject) -> None:
    parts = data.draw(st.integers(1, 400))
    each_max = data.draw(st.integers(1, 20_000))
    amount = data.draw(st.integers(parts, parts * each_max))
    seed = data.draw(st.binary(min_size=16, max_size=32))

    drawn = split_by_luck(amount, parts, each_max, seed)

    assert (len(drawn), sum(drawn)) == (parts, amount)
    assert min(drawn) >= 1
    assert max(drawn) <= each_max
    assert drawn == split_by_luck(amount, parts, each_max, seed)


@given(each=st.integers(1, 20_000), parts=st.integers(1, 1000))
@settings(max_examples=30)
def test_equal_parts_are_equal(each: int, parts: int) -> None:
    drawn = split(Kind.EQUAL, each * parts, parts, 20_000, seed=b"")

    assert drawn == [each] * parts


def test_luck_favours_no_place_in_the_queue() -> None:
    """The first and the last of ten get the mean, over many red packets."""
    sums = [0] * 10
    for number in range(2000):
        drawn = split_by_luck(1000, 10, 20_000, number.to_bytes(16, "big"))
        sums = [one + other for one, other in zip(sums, drawn, strict=True)]

    assert all(90 < each / 2000 < 110 for each in sums), sums


def test_more_than_fits_is_no_split() -> None:
    with pytest.raises(ValueError, match="no such split"):
        split_by_luck(11, 2, 5, b"seed")


# Sending


async def test_the_money_leaves_the_wallet_and_waits(people: People) -> None:
    sender, packet = await sent(people, 1000, 10, Kind.EQUAL)

    assert await people.balance(sender) == 0
    assert await pot(people, packet) == 1000
    assert await row_of(people, packet) == packet


@pytest.mark.parametrize(
    ("asked", "refusal"),
    [
        (RedPacketAsked(Kind.LUCKY, cny(3), 4), RedPacketTooSmall),
        (RedPacketAsked(Kind.EQUAL, cny(10), 4), RedPacketNotEven),
        (RedPacketAsked(Kind.EQUAL, cny(20_001), 1), RedPacketLimitExceeded),
        (RedPacketAsked(Kind.LUCKY, cny(60_001), 3), RedPacketLimitExceeded),
        (RedPacketAsked(Kind.LUCKY, cny(200_000), 100_001), RedPacketLimitExceeded),
        (RedPacketAsked(Kind.LUCKY, Money(10, "USD"), 2), RedPacketCurrencyUnknown),
        (RedPacketAsked(Kind.LUCKY, cny(501), 3), RedPacketBalanceTooLow),
    ],
)
async def test_what_must_not_be_sent_is_refused_and_nothing_moves(
    people: People, asked: RedPacketAsked, refusal: type[Exception]
) -> None:
    sender = await people.wallet(500)

    with pytest.raises(refusal):
        await send_red_packet(people.hall, sender, asked, once(people.caller))

    assert await people.balance(sender) == 500


async def test_a_frozen_wallet_sends_nothing(people: People) -> None:
    sender = await people.wallet(500)
    async with people.hall.db.begin("tests") as tx:
        frozen = await set_frozen(tx, sender, frozen=True)

    with pytest.raises(WalletFrozen):
        await send_red_packet(
            people.hall, frozen, RedPacketAsked(Kind.LUCKY, cny(5), 2), once(people.caller)
        )


# Grabbing


async def test_a_burst_takes_every_part_once_and_the_rest_hear_empty(people: People) -> None:
    """In two processes, whose queues know nothing of each other."""
    parts = BURST * 2 // 3
    _, packet = await sent(people, parts * 7, parts)
    wallets = await people.wallets(BURST)
    queues = Grabbers(people.hall), Grabbers(people.hall)
    before = await commits(people)

    taken = await asyncio.gather(
        *[queues[n % 2].grab(each, packet.id) for n, each in enumerate(wallets)],
        *[queues[0].grab(each, packet.id) for each in wallets[: BURST // 3]],  # once more
    )

    first, repeated = taken[:BURST], taken[BURST:]
    grabs = [grab for grab in first if grab is not None]
    assert sorted(grab.part for grab in grabs) == list(range(1, parts + 1))
    assert sum(grab.amount for grab in grabs) == packet.amount
    assert repeated == first[: BURST // 3]
    after = await row_of(people, packet)
    assert (after.state, after.grabbed, after.taken) == (
        RedPacketState.EMPTIED,
        parts,
        packet.amount,
    )
    assert await pot(people, packet) == 0
    split = await store.GET_SPLIT.one(people.hall.db, packet.book, packet.id)
    assert {grab.part: grab.amount for grab in grabs} == dict(enumerate(split.amounts, start=1))
    rich = grabs[0]
    assert await people.balance(next(w for w in wallets if w.id == rich.wallet_id)) == rich.amount
    assert await commits(people) - before < BURST // 10, "grabs share commits"


async def test_who_has_a_part_gets_it_again_also_after_the_end(people: People) -> None:
    _, packet = await sent(people, 100, 2)
    one, two, late = await people.wallets(3)
    grabbers = Grabbers(people.hall)

    first = await grabbers.grab(one, packet.id)
    await grabbers.grab(two, packet.id)

    assert first is not None
    assert await grabbers.grab(late, packet.id) is None
    assert await grabbers.grab(one, packet.id) == first
    assert await Grabbers(people.hall).grab(one, packet.id) == first
    assert await people.balance(one) == first.amount


async def test_another_merchants_wallet_knows_no_such_red_packet(people: People) -> None:
    _, packet = await sent(people)
    wallet = await people.wallet()
    foreign = Caller(new_id(), new_id(), people.caller.mode, people.caller.book, frozenset())
    stranger = type(wallet)(
        **{
            name: getattr(wallet, name) if name != "merchant_id" else foreign.merchant_id
            for name in wallet.__struct_fields__
        }
    )

    with pytest.raises(RedPacketNotFound):
        await Grabbers(people.hall).grab(stranger, packet.id)
    with pytest.raises(RedPacketNotFound):
        await Grabbers(people.hall).grab(wallet, new_id())
    with pytest.raises(RedPacketNotFound):
        await queries.red_packet_of_caller(people.hall.db, foreign, packet.id)


async def test_a_wallet_that_cannot_take_money_keeps_nobody_else_from_theirs(
    people: People,
) -> None:
    _, packet = await sent(people, 700, 7, Kind.EQUAL)
    wallets = [await people.wallet(1) for _ in range(3)] + list(await people.wallets(3))
    closed = wallets[1]
    await people.hall.ledger.set_account_limits(
        closed.book, account_of(closed), floor=0, ceiling=50, actor="tests", because="full"
    )
    grabbers = Grabbers(people.hall)

    answers = await asyncio.gather(
        *[grabbers.grab(each, packet.id) for each in wallets], return_exceptions=True
    )

    assert [type(each).__name__ for each in answers].count("RedPacketGrab") == 5
    assert isinstance(answers[1], GrabRefused)
    assert (await row_of(people, packet)).taken == 500


# The end


async def test_what_nobody_took_goes_back_exactly_once(people: People) -> None:
    sender, packet = await sent(people, 1000, 4, Kind.EQUAL)
    [taker] = await people.wallets(1)
    grabbers = Grabbers(people.hall)
    await grabbers.grab(taker, packet.id)
    assert isinstance(await returned(people, packet), Again), "its time is not over"

    await end_time(people, packet)
    await asyncio.gather(*[returned(people, packet) for _ in range(3)])

    assert await returned(people, packet) is None
    assert await people.balance(sender) == 750
    assert await pot(people, packet) == 0
    after = await row_of(people, packet)
    assert (after.state, after.returned) == (RedPacketState.RETURNED, 750)
    [late] = await people.wallets(1)
    assert await grabbers.grab(late, packet.id) is None
    assert await grabbers.grab(taker, packet.id) is not None


@pytest.mark.parametrize("first", ["grab", "return"])
async def test_of_a_grab_and_the_end_at_one_moment_one_wins(people: People, first: str) -> None:
    """Both were decided on the same row; whoever commits second finds it changed."""
    sender, packet = await sent(people, 1000, 2, Kind.EQUAL)
    [taker] = await people.wallets(1)
    clock = people.hall.db.clock
    await end_time(people, packet)
    clock.offset -= timedelta(seconds=30)
    slow = Hall(people.hall.db, people.hall.ledger)
    grabbers = Grabbers(slow)
    await grabbers.grab((await people.wallets(1))[0], packet.id)  # the queue knows the row

    if first == "grab":
        assert await grabbers.grab(taker, packet.id) is not None
        clock.offset += timedelta(seconds=60)
        assert await returned(people, packet) is None
    else:
        clock.offset += timedelta(seconds=60)
        assert await returned(people, packet) is None
        clock.offset -= timedelta(seconds=60)  # this process's clock is behind
        assert await grabbers.grab(taker, packet.id) is None

    after = await row_of(people, packet)
    expected = {"grab": (RedPacketState.EMPTIED, 0), "return": (RedPacketState.RETURNED, 500)}
    assert (after.state, after.returned) == expected[first]
    assert await people.balance(sender) == after.returned
    assert await people.balance(taker) == (500 if first == "grab" else 0)


async def test_the_database_refuses_what_the_model_forbids(people: People) -> None:
    _, packet = await sent(people, 10, 3)
    db = people.hall.db

    for change in (
        "grabbed = 1, taken = 9",  # nothing left for the third
        "grabbed = 2, taken = 1",
        "grabbed = 3, taken = 9, state = 'emptied', ended_at = created_at",
        "grabbed = 4, taken = 10",
        "state = 'returned', returned = 9, ended_at = created_at",
        "state = 'emptied', ended_at = created_at",
    ):
        with pytest.raises(CheckViolated):
            await db.execute(f"update red_packet set {change} where id = $1", (packet.id,))


POINTS = ("before_send", "after_send", "before_grab", "after_grab", "before_return", "after_return")


@pytest.mark.parametrize("point", POINTS)
async def test_a_death_at_any_place_loses_and_doubles_nothing(people: People, point: str) -> None:
    """The one who asked asks again with the same key, another process takes the book."""
    db, sender, use = people.hall.db, await people.wallet(900), once(people.caller)
    takers = await people.wallets(2)
    asked = RedPacketAsked(Kind.EQUAL, cny(900), 3)
    hall = Hall(db, Ledger(db, people.hall.ledger._licence))

    async def life(hall: Hall) -> None:
        found = await db.fetch(
            "select id from red_packet where book = $1 and sender_id = $2", (sender.book, sender.id)
        )
        if not found:
            await send_red_packet(hall, sender, asked, use)
        [row] = await store.LIST_PACKETS.all(
            db, sender.book, sender.merchant_id, sender.mode, sender.id, None, 2
        )
        grabbers = Grabbers(hall)
        for taker in takers:
            assert await grabbers.grab(taker, row.id) is not None
        await end_time(people, row)
        assert await return_red_packet(hall, ReturnRedPacket(row.book, row.id), LEASE) is None

    arm(f"red_packets.{point}:raise")
    try:
        async with asyncio.timeout(20):
            with pytest.raises((SimulatedCrash, asyncio.CancelledError)):
                await life(hall)
    finally:
        arm(None)
        await hall.ledger.close()
    await life(people.hall)

    [row] = await store.LIST_PACKETS.all(
        db, sender.book, sender.merchant_id, sender.mode, sender.id, None, 2
    )
    assert (row.state, row.grabbed, row.returned) == (RedPacketState.RETURNED, 2, 300)
    balances = [await people.balance(each) for each in (sender, *takers)]
    assert balances == [300, 300, 300]
    assert await pot(people, row) == 0
    events = await db.fetch(
        "select type from event where type = 'red_packet.ended' and body->'object'->>'wallet_id'"
        " = $1",
        (show("wal", sender.id),),
    )
    assert Counter(each["type"] for each in events) == {"red_packet.ended": 1}


async def test_histories_have_pages(people: People) -> None:
    sender, first = await sent(people, 30, 3, Kind.EQUAL)
    wallets = await people.wallets(3)
    grabbers = Grabbers(people.hall)
    for each in wallets:
        await grabbers.grab(each, first.id)
    second = (await sent(people, 10, 1))[1]
    await grabbers.grab(wallets[0], second.id)
    db = people.hall.db

    one = await queries.grabs_of(db, first, cursor=None, limit=2)
    two = await queries.grabs_of(db, first, cursor=one.next_cursor, limit=2)
    mine = await queries.received_by(db, wallets[0], cursor=None, limit=1)
    more = await queries.received_by(db, wallets[0], cursor=mine.next_cursor, limit=1)
    own = await queries.red_packets_of_caller(
        db, people.caller, sender=sender.id, cursor=None, limit=5
    )

    assert [each.part for each in one.items + two.items] == [1, 2, 3]
    assert two.next_cursor is None
    assert [each.amount for each in mine.items + more.items] == [10, 10]
    assert [each.id for each in own.items] == [first.id]
