"""Merchants: opened with two books, routed to our accounts at channels."""

from __future__ import annotations

import pytest

from tests.parties.conftest import MakeClient, new_merchant
from tongbao.infra import audit
from tongbao.infra.crypto import Keyring, SealUnreadable
from tongbao.infra.db import Db
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode
from tongbao.parties.merchants import queries
from tongbao.parties.merchants.merchants import (
    bank_account_number,
    connect_channel,
    open_merchant,
    set_suspended,
)
from tongbao.parties.merchants.model import (
    ChannelNotOpened,
    LateSuccess,
    Merchant,
    MerchantNotFound,
    MerchantSuspended,
    masked,
)
from tongbao.parties.price_plans.model import (
    PriceLine,
)
from tongbao.parties.price_plans.plans import set_price_plan


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
        await set_price_plan(tx, merchant.id, Mode.LIVE, [PriceLine("alipay", "qr", 0)])
        await connect_channel(tx, merchant.id, Mode.LIVE, "alipay", new_id())

    live = (await (await make_client(mode=Mode.LIVE)).get("/v1/merchant")).json
    sandbox = (await (await make_client(mode=Mode.SANDBOX)).get("/v1/merchant")).json

    assert live["id"] == show("mch", merchant.id)
    assert (live["mode"], live["status"], live["channels"]) == ("live", "active", ["alipay"])
    [line] = live["price_plan"]["lines"]
    assert (line["channel"], line["pay_mode"], line["rate_ppm"]) == ("alipay", "qr", 0)
    assert live["bank_account"] == {"holder": "Corner Shop Ltd", "number_masked": "•••• 0128"}
    assert (sandbox["mode"], sandbox["channels"]) == ("sandbox", [])
    assert "price_plan" not in sandbox
