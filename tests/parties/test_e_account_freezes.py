"""Freezes of an amount and with dates, and batches of transfers: exact, and over by themselves."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.parties.test_e_accounts import (
    NOTHING,
    Held,
    MakeAccount,
    agrees,
    approved,
    crash_at,
    left,
    make_account,
    now_is,
    run,
    send,
    teller,
    top_up,
    withdraw,
)
from tongbao.controls.limits.model import LimitExceeded
from tongbao.infra.db import Db
from tongbao.infra.tasks import Again
from tongbao.kernel.errors import Refusal
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Licence
from tongbao.parties.e_accounts import batches, freezes, opening, queries
from tongbao.parties.e_accounts.batches import BatchNotFound, BatchWrong, Item, WantedBatch
from tongbao.parties.e_accounts.freezes import FreezeWrong, MindFreeze, Queued, queued
from tongbao.parties.e_accounts.model import (
    Direction,
    EAccount,
    EAccountBalanceShort,
    EAccountFreeze,
    EAccountFrozen,
    EAccountNotEmpty,
    RequestDiffers,
)
from tongbao.parties.e_accounts.orders import Teller

__all__ = ["make_account", "teller"]


async def freeze(db: Db, account: EAccount, amount: int | None = None, **more: Any) -> Any:
    direction = Direction(more.pop("direction", "out"))
    terms = freezes.FreezeTerms(
        account.shown_id, account.mode, "judicial", direction, "(2026) 7", amount, **more
    )
    async with db.begin("test") as tx:
        return await freezes.freeze(tx, approved(db), terms)


async def lift(db: Db, account: EAccount, found: EAccountFreeze) -> None:
    shown = freezes.shown_freeze(found)
    terms = freezes.LiftTerms(account.shown_id, account.mode, shown, "(2026) 8")
    async with db.begin("test") as tx:
        await freezes.lift(tx, approved(db), terms)


async def mind(db: Db, found: EAccountFreeze) -> Again | None:
    task = MindFreeze(found.book, found.id)
    return await freezes.run_mind_freeze(db, task, Held(new_id(), 1))


async def keeps(db: Db, account: EAccount) -> list[int | None]:
    now = await now_is(db, account)
    return [each.keeps for each in queued(await queries.freezes_of(db, now), now.balance)]


async def test_an_amount_is_kept_and_the_rest_goes(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    account, other = await make_account(fill=1_000), await make_account()
    first, second = await freeze(db, account, 600), await freeze(db, account, 700)

    assert await keeps(db, account) == [600, 400]  # the second waits for 300 more
    with pytest.raises(EAccountFrozen) as refused:
        await send(teller, account, other, 1)
    assert refused.value.facts["held"] == 1_300
    with pytest.raises(EAccountBalanceShort):
        await send(teller, account, other, 1_001)
    await top_up(teller, account, 500)  # what comes in is free to come, and is kept first
    assert await keeps(db, account) == [600, 700]
    assert (await now_is(db, account)).available == 200
    await send(teller, account, other, 200)
    with pytest.raises(EAccountFrozen):
        await withdraw(teller, account, 1)
    await lift(db, account, first)
    assert await keeps(db, account) == [None, 700]
    await withdraw(teller, account, 600)
    with pytest.raises(EAccountFrozen):
        await send(teller, account, other, 1)
    await lift(db, account, second)
    await send(teller, account, other, 700)
    await agrees(db, account, other)


async def test_an_empty_account_with_an_amount_frozen_stays_open(
    db: Db, make_account: MakeAccount
) -> None:
    account = await make_account()
    found = await freeze(db, account, 1)
    assert await keeps(db, account) == [0]

    async def close() -> EAccount:
        async with db.begin("test") as tx:
            return await opening.close_account(tx, account)

    with pytest.raises(EAccountNotEmpty):
        await close()
    await lift(db, account, found)
    assert (await close()).state == "closed"


async def test_a_freeze_begins_and_ends_at_its_own_dates(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    account, other = await make_account(fill=1_000), await make_account()
    now = db.clock.now()
    dates = {"starts_at": now + timedelta(days=1), "ends_at": now + timedelta(days=3)}
    court = await freeze(db, account, 900, **dates)
    whole = await freeze(db, account, ends_at=now + timedelta(days=2), direction="all")
    never = await freeze(db, account, 5, starts_at=now + timedelta(days=9))
    await lift(db, account, never)

    assert isinstance(await mind(db, court), Again)
    with pytest.raises(EAccountFrozen):
        await send(teller, account, other, 1)
    db.clock.offset += timedelta(days=1, seconds=1)
    with crash_at("e_accounts.before_freeze_begin_commit"):
        await mind(db, court)
    for each in (court, court, whole):
        assert isinstance(await mind(db, each), Again)
    assert await mind(db, never) is None
    assert (await now_is(db, account)).held == 900
    db.clock.offset += timedelta(days=1)
    for _ in range(2):
        await mind(db, whole)
    assert (await now_is(db, account)).frozen == "none"
    await send(teller, account, other, 100)
    with pytest.raises(EAccountFrozen):
        await send(teller, account, other, 1)
    db.clock.offset += timedelta(days=1)
    with crash_at("e_accounts.before_freeze_end_commit"):
        await mind(db, court)
    for _ in range(2):
        await mind(db, court)

    assert (await now_is(db, account)).held == 0
    await send(teller, account, other, 900)
    ended = await queries.freezes_of(db, account)
    assert [each.lifted_by for each in ended[:2]] == ["its own date"] * 2
    for wrong in (
        {"amount": 5, "direction": "all"},
        {"amount": 0},
        {"ends_at": db.clock.now()},
        {"starts_at": db.clock.now() + timedelta(days=2), "ends_at": now + timedelta(days=4)},
    ):
        with pytest.raises(FreezeWrong):
            await freeze(db, account, **wrong)


async def test_many_who_hurry_leave_what_is_kept_to_the_fen(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    account, other = await make_account(fill=10_000), await make_account()
    await freeze(db, account, 4_321)
    amounts = [487 + 3 * n for n in range(24)]

    async def try_one(amount: int) -> int:
        while True:
            try:
                await send(teller, account, other, amount)
            except EAccountFrozen:
                return 0
            except Refusal as refusal:
                if refusal.code not in {"ledger.in_flight", "e_account.moved"}:
                    raise
            else:
                return amount

    sent = sum(await asyncio.gather(*map(try_one, amounts)))

    rest = (await now_is(db, account)).available
    assert rest == 10_000 - 4_321 - sent
    assert rest >= 0
    # The smallest may have been refused while one was under way that then came to nothing.
    if rest >= min(amounts):
        rest -= await try_one(min(amounts))
    assert rest < min(amounts)
    if rest:
        await send(teller, account, other, rest)
    with pytest.raises(EAccountFrozen):
        await send(teller, account, other, 1)


@settings(max_examples=40, deadline=None)
@given(
    balance=st.integers(0, 2_000),
    asked=st.lists(st.tuples(st.integers(1, 900), st.booleans()), max_size=6),
)
def test_freezes_keep_in_turn_and_never_more_than_there_is(
    balance: int, asked: list[tuple[int, bool]]
) -> None:
    def made(number: int, amount: int, *, counts: bool) -> EAccountFreeze:
        at = datetime(2026, 1, 1 + number, tzinfo=UTC)
        lifted = None if counts else at
        who = None if counts else "x"
        return EAccountFreeze(
            *(2, new_id(), new_id(), "judicial", Direction.OUT, "d", "r", "a", at),
            *(who, lifted, who, amount, at, None, at),
        )

    rows = [made(n, amount, counts=counts) for n, (amount, counts) in enumerate(asked)]
    found: list[Queued] = queued(rows, balance)
    kept = [each.keeps or 0 for each in found]
    wanted = sum(amount for amount, counts in asked if counts)

    assert sum(kept) == min(balance, wanted)
    for number, (amount, counts) in enumerate(asked):
        assert kept[number] <= (amount if counts else 0)
        if counts and kept[number] < amount:  # then nothing is left for whoever waits behind
            assert sum(kept[number + 1 :]) == 0


# Batches


async def test_a_batch_runs_each_transfer_once_and_tells_how_far_it_is(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    payer, asleep = await make_account(fill=1_000), await make_account(is_active=False)
    payees = [await make_account() for _ in range(2)]
    items = tuple(Item(each.id, 300) for each in (*payees, asleep, payees[0], payees[1]))
    wanted = WantedBatch("b1", items)
    with crash_at("e_accounts.before_batch_commit"):
        await batches.send_batch(db, payer, wanted, level=3, confirmed=NOTHING)
    made = await asyncio.gather(
        *(batches.send_batch(db, payer, wanted, level=3, confirmed=NOTHING) for _ in range(4))
    )
    batch = made[0]

    assert {each.id for each in made} == {batch.id}
    assert [(x.state, x.orders) for x in await batches.progress_of(db, batch)] == [("waiting", 5)]
    page = await batches.orders_of_batch(db, batch, cursor=None, limit=3)
    more = await batches.orders_of_batch(db, batch, cursor=page.next_cursor, limit=3)
    waiting = [*page.items, *more.items]
    assert [each.payee_id for each in waiting] == [each.payee for each in items]
    for each in (*waiting, *waiting):
        await run(teller, each)

    progress = {x.state.value: (x.orders, x.amount) for x in await batches.progress_of(db, batch)}
    assert progress == {"done": (3, 900), "failed": (2, 600)}
    assert (await now_is(db, payer)).balance == 100
    codes = {each.code for each in (await _all(db, batch)) if each.code}
    assert codes == {"e_account.payee_unavailable", "e_account.balance_short"}
    await agrees(db, payer, *payees)
    with pytest.raises(RequestDiffers):
        await batches.send_batch(
            db, payer, WantedBatch("b1", items[:1]), level=3, confirmed=NOTHING
        )
    with pytest.raises(BatchNotFound):
        await batches.batch_of_account(db, payees[0], batch.id)
    for wrong in ((), (Item(payer.id, 1),), (Item(payees[0].id, 0),), items * 101):
        with pytest.raises(BatchWrong):
            await batches.send_batch(
                db, payer, WantedBatch("b2", wrong), level=3, confirmed=NOTHING
            )


async def test_what_has_not_run_of_a_batch_is_taken_back(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    payer, payee = await make_account(fill=1_000), await make_account()
    wanted = WantedBatch("b1", (Item(payee.id, 100), Item(payee.id, 200)))
    batch = await batches.send_batch(db, payer, wanted, level=3, confirmed=NOTHING)
    first, _ = await _all(db, batch)
    await run(teller, first)

    for left_over in (1, 0):
        async with db.begin("test") as tx:
            assert await batches.cancel_batch(tx, batch) == left_over

    progress = {x.state.value: x.amount for x in await batches.progress_of(db, batch)}
    assert progress == {"done": 100, "cancelled": 200}
    assert (await now_is(db, payee)).balance == 100


async def test_a_batch_is_under_the_limits_of_each_of_its_transfers(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    payer = await make_account(2, licence=Licence.BANK, fill=3_000_000)
    payee = await make_account(1)
    wanted = WantedBatch("b1", tuple(Item(payee.id, 300_000) for _ in range(5)))
    batch = await batches.send_batch(db, payer, wanted, level=3, confirmed=NOTHING)

    await asyncio.gather(*(run(teller, each) for each in await _all(db, batch)))

    progress = {x.state.value: x.orders for x in await batches.progress_of(db, batch)}
    assert progress == {"done": 3, "failed": 2}
    assert (await left(db, payer))["out_others/day"] == 100_000
    assert {each.code for each in await _all(db, batch)} == {None, LimitExceeded.code}


async def _all(db: Db, batch: Any) -> list[Any]:
    return (await batches.orders_of_batch(db, batch, cursor=None, limit=None)).items
