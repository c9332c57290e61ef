"""The general ledger behind the real door: vouchers, ties, and days that push entries onward."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tests.ledger.making import ALICE, BANK, BOB, FEES, MERCHANT, group, pending, post, single, void
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Licence
from tongbao.kernel.money import Money
from tongbao.ledger.book import Ledger
from tongbao.ledger.general.days import approve_day, request_day
from tongbao.ledger.general.model import DayAction
from tongbao.ledger.general.proving import check_general_ledger
from tongbao.ledger.general.queries import trial_balance, voucher_lines
from tongbao.ledger.general.vouchers import build_vouchers
from tongbao.ledger.model import AccountKey, Group
from tongbao.ledger.queries import transfers_of_reference
from tongbao.ledger.rules.posting import transfers


@pytest.fixture
async def ledger(db):
    ledger = Ledger(db, Licence.PAYMENT_INSTITUTION)
    yield ledger
    await ledger.close()


@pytest.fixture
def today(db):
    return business_date(db.clock.now())


async def decide_day(db, action, day):
    request = await request_day(db, 1, action, day, reason="test", actor="opr_a")
    await approve_day(db, 1, request.id, actor="opr_b")


async def day_of(db, ledger, **more):
    leg = single(1, BANK, ALICE, **more)
    [result] = await ledger.submit([group(leg)])
    assert result.happened
    [line] = await transfers_of_reference(db, 1, leg.reference)
    return line


async def test_what_the_door_takes_is_in_the_vouchers_to_the_cent(db, ledger, today):
    hold, gone = pending(70, BANK, BOB), pending(9, BANK, BOB)
    await ledger.submit([group(single(1000, BANK, ALICE)), group(hold), group(gone)])
    await ledger.submit([group(post(hold, 40)), group(void(gone))])
    await ledger.submit([group(single(300, ALICE, MERCHANT), single(3, MERCHANT, FEES))])
    await ledger.submit([group(single(9999, ALICE, BOB))])  # refused
    await build_vouchers(db, 1)
    assert await check_general_ledger(db, 1) == []
    shown = {line.account: line for line in (await trial_balance(db, 1, today)).lines}
    assert (shown["1002"].debits, shown["1002"].credits) == (1040, 0)
    assert (shown["2241.03"].debits, shown["2241.03"].credits) == (300, 1040)
    assert shown["6021"].closing == -3
    codes = {line.code for line in await voucher_lines(db, 1, today)}
    assert "test/post" in codes
    assert not codes & {"test/hold", "test/void"}


async def test_an_exchange_balances_in_each_currency_alone(db, ledger, today):
    dollars = AccountKey("wallet", "USD", ALICE.owner)
    await ledger.submit([group(single(1000, BANK, ALICE))])
    legs = transfers(
        "exchange.dealt",
        reference=new_id(),
        accounts={"giving_wallet": ALICE, "getting_wallet": dollars},
        amounts={"given": Money(720, "CNY"), "got": Money(100, "USD"), "fee": Money(5, "CNY")},
    )
    [result] = await ledger.submit([Group(legs[0].id, 1, legs)])
    assert result.status == "created"
    await build_vouchers(db, 1)
    balance = await trial_balance(db, 1, today)
    assert balance.is_balanced
    positions = {line.currency: line.closing for line in balance.lines if line.account == "3002"}
    assert positions == {"CNY": -720, "USD": 100}
    assert await check_general_ledger(db, 1) == []


async def test_after_closing_entries_go_to_the_next_open_day(db, ledger, today):
    yesterday, tomorrow = today - timedelta(days=1), today + timedelta(days=1)
    assert (await day_of(db, ledger)).biz_date == today
    await decide_day(db, DayAction.CLOSE, yesterday)
    assert (await day_of(db, ledger)).biz_date == today
    await decide_day(db, DayAction.CLOSE, today)
    late = await day_of(db, ledger, value_date=yesterday)
    assert late.biz_date == tomorrow
    assert business_date(late.at) == today
    assert (await day_of(db, ledger)).biz_date == tomorrow
    await decide_day(db, DayAction.REOPEN, today)
    assert (await day_of(db, ledger)).biz_date == today
    await build_vouchers(db, 1)
    assert await check_general_ledger(db, 1) == []


async def test_a_day_closed_under_load_keeps_every_entry_and_takes_none_afterwards(
    db, ledger, today
):
    await ledger.submit([group(single(1, BANK, ALICE))])
    closed = asyncio.Event()

    async def pay():
        count = 0
        while not closed.is_set():
            [result] = await ledger.submit([group(single(1, BANK, ALICE))])
            count += result.happened
        return count

    async def close():
        await asyncio.sleep(0.1)
        await decide_day(db, DayAction.CLOSE, today)
        before = await trial_balance(db, 1, today)
        await asyncio.sleep(0.1)
        closed.set()
        return before

    *counts, before = await asyncio.gather(pay(), pay(), pay(), close())
    await build_vouchers(db, 1)
    after = await trial_balance(db, 1, today)
    assert before.lines == after.lines
    tomorrow = await trial_balance(db, 1, today + timedelta(days=1))
    [cash] = [line for line in tomorrow.lines if line.account == "1002"]
    assert cash.closing == sum(counts) + 1
    assert cash.debits > 0
    assert await check_general_ledger(db, 1) == []


async def test_vouchers_built_beside_load_cover_every_commit_once(db, ledger):
    done = asyncio.Event()

    async def build():
        while not done.is_set():
            await build_vouchers(db, 1)
            assert await check_general_ledger(db, 1) == []

    async def pay():
        for _ in range(20):
            await asyncio.gather(
                *(ledger.submit([group(single(n + 1, BANK, ALICE))]) for n in range(10))
            )
        done.set()

    await asyncio.gather(build(), pay())
    await build_vouchers(db, 1)
    assert await check_general_ledger(db, 1) == []
