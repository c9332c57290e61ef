"""Red packets and subsidies: thousands who take from one account at once, each decided exactly."""

from __future__ import annotations

import asyncio
import random
from uuid import UUID

from tests.ledger.movements.moving import fund, posted
from tongbao.kernel.ids import new_id
from tongbao.kernel.money import Money
from tongbao.ledger.model import AccountKey, AccountState, Group
from tongbao.ledger.movements.splits import place_by_quota, set_split, split_balance
from tongbao.ledger.queries import balance_of, transfers_of_reference
from tongbao.ledger.rules.posting import transfers

PACKET = AccountKey("subsidy", "CNY", UUID(int=0x9AC4E7))
TAKERS = [AccountKey("wallet", "CNY", UUID(int=0x7A000 + n)) for n in range(20)]
CALLERS = 3000


def grab(amount, taker, book=1):
    reference = new_id()
    [leg] = transfers(
        "red_packet.grabbed",
        reference=reference,
        accounts={"subsidy": PACKET, "wallet": taker},
        amounts={"amount": Money(amount, "CNY")},
    )
    return Group(leg.id, book, (leg,))


async def one(ledger, group):
    [result] = await ledger.submit([group])
    return result


async def test_thousands_take_from_one_red_packet_and_it_is_emptied_exactly(db, ledger):
    filled = 100_000
    await fund(ledger, PACKET, filled)
    chance = random.Random(20261121)
    wanted = [grab(chance.randint(1, 120), chance.choice(TAKERS)) for _ in range(CALLERS)]
    results = await asyncio.gather(*(one(ledger, group) for group in wanted))
    took = [
        (group.transfers[0].amount, result) for group, result in zip(wanted, results, strict=True)
    ]
    given = sum(amount for amount, result in took if result.happened)
    left = filled - given
    assert {result.status for _, result in took} == {"created", "refused"}
    assert {result.code for _, result in took if not result.happened} == {"ledger.exceeds_balance"}
    assert await posted(db, PACKET) == left >= 0
    assert sum([await posted(db, taker) for taker in TAKERS]) == given
    # It only ever fell: whoever was refused asked for more than there was, even at the end.
    assert all(amount > left for amount, result in took if not result.happened)


async def test_each_taker_saw_a_balance_that_never_fell_below_nothing(db, ledger):
    await fund(ledger, PACKET, 700)
    wanted = [grab(10, taker) for taker in TAKERS * 5]
    results = await asyncio.gather(*(one(ledger, group) for group in wanted))
    happened = [group for group, result in zip(wanted, results, strict=True) if result.happened]
    assert len(happened) == 70
    after = [
        line.debit_after
        for group in happened
        for line in await transfers_of_reference(db, 1, group.transfers[0].reference)
    ]
    assert sorted(after) == list(range(0, 700, 10))


async def test_a_share_is_taken_once_however_often_it_is_asked_for(db, ledger):
    await fund(ledger, PACKET, 1000)
    group = grab(400, TAKERS[0])
    results = await asyncio.gather(*(one(ledger, group) for _ in range(50)))
    assert {result.status for result in results} <= {"created", "exists"}
    assert [result.status for result in results].count("created") == 1
    assert await posted(db, PACKET) == 600


async def test_a_split_packet_is_emptied_over_its_books_and_no_further(db, ledger):
    async with db.begin("tests") as tx:
        split = await set_split(tx, PACKET, [1, 2, 3], low=0, target=1000)
    for book in (1, 2, 3):
        await fund(ledger, PACKET, 300, book=book)

    async def take(n):
        book = await place_by_quota(db, split, new_id(), 3)
        return await one(ledger, grab(3, TAKERS[n % 20], book))

    results = await asyncio.gather(*(take(n) for n in range(600)))
    given = 3 * sum(result.happened for result in results)
    balance = await split_balance(db, split)
    assert balance.posted == 900 - given
    assert all(part.posted >= 0 for part in balance.parts.values())


async def test_a_frozen_campaign_pays_nobody_and_can_still_be_filled(db, ledger):
    await fund(ledger, PACKET, 100)
    await ledger.set_account_state(1, PACKET, AccountState.FROZEN, actor="tests", because="test")
    assert (await one(ledger, grab(1, TAKERS[0]))).code == "ledger.account_frozen"
    await fund(ledger, PACKET, 100)
    assert (await balance_of(db, 1, PACKET)).posted == 200
