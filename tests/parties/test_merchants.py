"""Merchants: opened with two books, priced by version, routed to our accounts at channels."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.parties.conftest import MakeClient, new_merchant
from tongbao.infra import audit
from tongbao.infra.crypto import Keyring, SealUnreadable
from tongbao.infra.db import Db
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import AMOUNT_MAX, Money, UnknownCurrency
from tongbao.parties.merchants import queries
from tongbao.parties.merchants.merchants import (
    bank_account_number,
    connect_channel,
    open_merchant,
    set_price_plan,
    set_suspended,
)
from tongbao.parties.merchants.model import (
    ChannelNotOpened,
    LateSuccess,
    Merchant,
    MerchantNotFound,
    MerchantSuspended,
    PriceInThePast,
    PriceLine,
    PriceLinesInvalid,
    PriceNotAgreed,
    PricePlan,
    PriceStartTaken,
    fee_for,
    fee_returned,
    masked,
    plan_at,
)

NOON = datetime(2026, 11, 21, 4, tzinfo=UTC)
LINES = [
    PriceLine("wechat_pay", "qr", 6_000),
    PriceLine("wechat_pay", "payment_code", 3_800, fixed=10, fee_min=20),
    PriceLine("alipay", "qr", 0),
]


def plan(version: int, valid_from: datetime, lines: list[PriceLine] = LINES) -> PricePlan:
    return PricePlan(
        new_id(), new_id(), Mode.LIVE, version, valid_from, "CNY", True, lines, NOON, "test"
    )


def fee(amount: int, channel: str = "wechat_pay", pay_mode: str = "qr") -> int:
    return fee_for([plan(1, NOON)], channel, pay_mode, Money(amount, "CNY"), NOON)


@pytest.mark.parametrize(
    ("amount", "expected"),
    [(1, 0), (83, 0), (84, 1), (100, 1), (250, 2), (10_000, 60), (AMOUNT_MAX, 54_000_000_000_000)],
)
def test_a_fee_is_rounded_half_up(amount: int, expected: int) -> None:
    """0.6 % of 83 fen is 0.498, of 84 fen 0.504; of 250 fen exactly 1.5."""
    assert fee(amount) == expected


def test_a_fixed_part_is_added_and_a_minimum_kept() -> None:
    assert fee(100_000, pay_mode="payment_code") == 390
    assert fee(1_000, pay_mode="payment_code") == 20


def test_a_fee_never_exceeds_the_payment() -> None:
    assert fee(5, pay_mode="payment_code") == 5


def test_free_is_a_price_and_absent_is_none() -> None:
    assert fee(10_000, "alipay") == 0
    with pytest.raises(PriceNotAgreed):
        fee(10_000, "alipay", "payment_code")
    with pytest.raises(PriceNotAgreed):
        fee_for([plan(1, NOON)], "alipay", "qr", Money(1, "HKD"), NOON)
    with pytest.raises(PriceNotAgreed):
        fee_for([], "alipay", "qr", Money(1, "CNY"), NOON)


@given(
    st.integers(1, AMOUNT_MAX),
    st.integers(0, 100_000),
    st.integers(0, 1_000),
    st.integers(0, 1_000),
)
def test_a_fee_is_within_its_bounds(amount: int, rate_ppm: int, fixed: int, fee_min: int) -> None:
    line = PriceLine("alipay", "qr", rate_ppm, fixed, fee_min)

    found = fee_for([plan(1, NOON, [line])], "alipay", "qr", Money(amount, "CNY"), NOON)

    assert 0 <= found <= amount
    exact = amount * rate_ppm / 1_000_000 + fixed
    if fee_min <= found < amount < 2**40:
        assert abs(found - max(exact, fee_min)) <= 0.5


def test_each_version_is_in_force_until_the_next() -> None:
    """Half-open: the new price holds from its very first moment."""
    plans = [plan(2, NOON + timedelta(days=1)), plan(1, NOON)]

    assert plan_at(plans, NOON - timedelta(microseconds=1)) is None
    assert plan_at(plans, NOON) is plans[1]
    assert plan_at(plans, NOON + timedelta(hours=23)) is plans[1]
    assert plan_at(plans, NOON + timedelta(days=1)) is plans[0]


@given(st.integers(0, 10_000), st.lists(st.integers(0, 1_000), min_size=1, max_size=8))
def test_refunds_give_the_whole_fee_back_and_never_more(fee: int, refunds: list[int]) -> None:
    captured = sum(refunds)
    returned, before = [], 0
    for refund in refunds:
        if captured:
            returned.append(fee_returned(fee, captured, before, refund))
        before += refund

    assert all(part >= 0 for part in returned)
    if captured:
        assert sum(returned) == fee


def test_more_than_captured_is_a_bug() -> None:
    with pytest.raises(ValueError, match="captured"):
        fee_returned(10, 100, 60, 41)


async def test_a_merchant_has_a_book_for_each_mode(merchant: Merchant, db: Db) -> None:
    assert merchant.book(Mode.LIVE) != merchant.book(Mode.SANDBOX)
    rows = await db.fetch("select book from ledger_book order by book", ())
    assert {merchant.live_book, merchant.sandbox_book} <= {row["book"] for row in rows}


async def test_the_account_number_is_masked_and_sealed(
    merchant: Merchant, keyring: Keyring, db: Db
) -> None:
    number = bank_account_number(merchant, keyring)

    assert merchant.bank_account_masked == "•••• 0128" == masked("6222021234567890128")
    assert number is not None
    assert number.reveal() == "6222021234567890128"
    [row] = await db.fetch("select * from merchant", ())
    assert b"6222021234567890128" not in row["bank_account_sealed"]
    other = await new_merchant(db, keyring, "Other")
    await db.execute(
        "update merchant set bank_account_sealed = $2 where id = $1",
        (other.id, merchant.bank_account_sealed),
    )
    with pytest.raises(SealUnreadable):
        bank_account_number(await queries.merchant_with_id(db, other.id), keyring)


async def test_a_merchant_needs_no_bank_account(db: Db, keyring: Keyring) -> None:
    async with db.begin("test") as tx:
        merchant = await open_merchant(tx, keyring, name="Stall")

    assert bank_account_number(merchant, keyring) is None
    assert merchant.late_success is LateSuccess.REFUND
    assert merchant.settlement_delay_days == 1


async def test_plans_are_versioned_and_effective_from_their_moment(
    db: Db, merchant: Merchant
) -> None:
    async with db.begin("alice") as tx:
        now = await set_price_plan(tx, merchant.id, Mode.LIVE, LINES)
        later = await set_price_plan(
            tx,
            merchant.id,
            Mode.LIVE,
            LINES[:1],
            valid_from=tx.now + timedelta(days=7),
            refund_returns_fee=False,
        )
    at = queries.price_plan_at

    assert (now.version, later.version) == (1, 2)
    assert now.created_by == "alice"
    assert await at(db, merchant.id, Mode.LIVE, now.valid_from) == now
    assert await at(db, merchant.id, Mode.LIVE, later.valid_from) == later
    assert await at(db, merchant.id, Mode.LIVE, now.valid_from - timedelta(seconds=1)) is None
    assert await at(db, merchant.id, Mode.SANDBOX, later.valid_from) is None
    assert await queries.price_plans(db, merchant.id, Mode.LIVE) == [now, later]
    assert sorted(now.lines, key=str) == sorted(LINES, key=str)


async def test_prices_are_agreed_for_the_future_only(db: Db, merchant: Merchant) -> None:
    async with db.begin("test") as tx:
        with pytest.raises(PriceInThePast):
            await set_price_plan(
                tx, merchant.id, Mode.LIVE, LINES, valid_from=tx.now - timedelta(seconds=1)
            )
        with pytest.raises(PriceLinesInvalid):
            await set_price_plan(tx, merchant.id, Mode.LIVE, [])
        with pytest.raises(PriceLinesInvalid):
            await set_price_plan(tx, merchant.id, Mode.LIVE, [LINES[0], LINES[0]])
        with pytest.raises(UnknownCurrency):
            await set_price_plan(tx, merchant.id, Mode.LIVE, LINES, currency="XXX")
        with pytest.raises(MerchantNotFound):
            await set_price_plan(tx, new_id(), Mode.LIVE, LINES)


async def test_two_versions_cannot_begin_at_one_moment(db: Db, merchant: Merchant) -> None:
    async with db.begin("test") as tx:
        at = tx.now + timedelta(days=1)
        await set_price_plan(tx, merchant.id, Mode.LIVE, LINES, valid_from=at)
        with pytest.raises(PriceStartTaken):
            await set_price_plan(tx, merchant.id, Mode.LIVE, LINES, valid_from=at)


async def test_a_waiting_plan_takes_the_version_after_the_one_it_waited_for(
    db: Db, merchant: Merchant
) -> None:
    """Forced interleaving on the merchant's row."""

    async def second() -> PricePlan:
        async with db.begin("second") as tx:
            return await set_price_plan(
                tx, merchant.id, Mode.LIVE, LINES, valid_from=tx.now + timedelta(days=1)
            )

    async with db.begin("first") as tx:
        first = await set_price_plan(tx, merchant.id, Mode.LIVE, LINES)
        waiting = asyncio.create_task(second())
        await asyncio.sleep(0.05)
        assert not waiting.done()

    assert (first.version, (await waiting).version) == (1, 2)


async def test_a_channel_account_serves_a_merchant_in_one_mode(db: Db, merchant: Merchant) -> None:
    first, second = new_id(), new_id()
    async with db.begin("test") as tx:
        await connect_channel(tx, merchant.id, Mode.LIVE, "alipay", first)
        await connect_channel(tx, merchant.id, Mode.LIVE, "alipay", second)
        with pytest.raises(MerchantNotFound):
            await connect_channel(tx, new_id(), Mode.LIVE, "alipay", first)

    assert await queries.channel_account_of(db, merchant.id, Mode.LIVE, "alipay") == second
    assert await queries.channels_of(db, merchant.id, Mode.LIVE) == {"alipay": second}
    with pytest.raises(ChannelNotOpened):
        await queries.channel_account_of(db, merchant.id, Mode.SANDBOX, "alipay")
    with pytest.raises(ChannelNotOpened):
        await queries.channel_account_of(db, merchant.id, Mode.LIVE, "wechat_pay")


async def test_a_suspended_merchant_takes_no_payments_until_reinstated(
    db: Db, merchant: Merchant
) -> None:
    merchant.check_active()
    async with db.begin("alice") as tx:
        suspended = await set_suspended(tx, merchant.id, suspended=True, because="fraud")
        with pytest.raises(MerchantSuspended):
            suspended.check_active()
        reinstated = await set_suspended(tx, merchant.id, suspended=False, because="cleared")
        with pytest.raises(MerchantNotFound):
            await set_suspended(tx, new_id(), suspended=True, because="")

    reinstated.check_active()
    entries = await audit.entries_of_subject(db, show("mch", merchant.id))
    assert [(entry.action, entry.actor) for entry in entries][1:] == [
        ("merchant.suspended", "alice"),
        ("merchant.reinstated", "alice"),
    ]


async def test_merchants_are_listed_page_by_page(db: Db, keyring: Keyring) -> None:
    ids = [(await new_merchant(db, keyring, f"Shop {n}")).id for n in range(3)]

    one = await queries.list_merchants(db, cursor=None, limit=2)
    two = await queries.list_merchants(db, cursor=one.next_cursor, limit=2)

    assert [each.id for each in one.items + two.items] == ids[::-1]
    assert two.next_cursor is None


async def test_a_merchant_sees_itself_in_the_mode_of_its_key(
    db: Db, merchant: Merchant, make_client: MakeClient
) -> None:
    async with db.begin("test") as tx:
        await set_price_plan(tx, merchant.id, Mode.LIVE, LINES)
        await connect_channel(tx, merchant.id, Mode.LIVE, "alipay", new_id())

    live = (await (await make_client(mode=Mode.LIVE)).get("/v1/merchant")).json
    sandbox = (await (await make_client(mode=Mode.SANDBOX)).get("/v1/merchant")).json

    assert live["id"] == show("mch", merchant.id)
    assert (live["mode"], live["status"], live["channels"]) == ("live", "active", ["alipay"])
    assert live["price_plan"]["lines"][0] == {
        "channel": "alipay",
        "pay_mode": "qr",
        "rate_ppm": 0,
        "fixed": 0,
        "fee_min": 0,
    }
    assert live["bank_account"] == {"holder": "Corner Shop Ltd", "number_masked": "•••• 0128"}
    assert (sandbox["mode"], sandbox["channels"]) == ("sandbox", [])
    assert "price_plan" not in sandbox
