"""Fees kept with what they came from: worked out again, previewed, changed by two people only."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tests.stage import Stage
from tongbao.acts import approvals
from tongbao.controls.approvals.approvals import approve
from tongbao.controls.approvals.model import OwnProposal
from tongbao.infra.db import Db
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import new_id, parse
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.ledger.model import AccountKey, Group
from tongbao.ledger.rules import posting
from tongbao.parties.merchants.merchants import SANDBOX_BOOK
from tongbao.parties.price_plans.approving import PriceDraft, PriceTerms, propose_prices
from tongbao.parties.price_plans.model import (
    CardKind,
    PriceInThePast,
    PriceLine,
    Promotion,
    Step,
)
from tongbao.parties.price_plans.plans import set_price_plan
from tongbao.parties.price_plans.queries import price_plans, volume_in
from tongbao.payments.fees.model import FeeReport
from tongbao.payments.fees.verifying import preview_costs, verify_fees
from tongbao.surfaces.demo.stage import Shop
from tongbao_sdk.replies import Payment

MAY = {"merchants_act", "settlement_act"}
STEPS = (Step(4_000, volume_from=3_000), Step(2_000, volume_from=6_000))
COUNTED = [
    PriceLine("wallet", "payment_code", 8_000, steps=STEPS),
    PriceLine("wechat_pay", "qr", 8_000, steps=STEPS),
]


async def priced_shop(stage: Stage, lines: list[PriceLine]) -> Shop:
    shop = await stage.open_shop()
    async with stage.db.begin("operator") as tx:
        await set_price_plan(tx, shop.merchant.id, Mode.SANDBOX, lines)
    await asyncio.sleep(0)
    return shop


async def pay(stage: Stage, shop: Shop, amount: int) -> Payment:
    code = await stage.wallet_code(balance=amount)
    return await stage.scan_code(code, amount, client=stage.client_of(shop))


async def test_a_payment_keeps_what_its_fee_was_worked_out_from(stage: Stage) -> None:
    payment = await stage.paid("wechat_pay", 10_000)
    hot = await stage.scan_code(await stage.wallet_code(), 1_000)

    rows = [await stage.row_of(each) for each in (payment, hot)]
    today = business_date(stage.db.clock.now())

    assert [(row.fee, row.price_version, row.price_day) for row in rows] == [
        (80, 1, today),
        (3, 1, today),
    ]
    assert [(row.price_volume, row.card_kind) for row in rows] == [(None, None)] * 2


async def test_the_months_volume_moves_the_next_payment_to_a_lower_step(stage: Stage) -> None:
    """Counted in the commit in which each succeeds: by the wallet, and by a channel."""
    shop = await priced_shop(stage, COUNTED)
    client = stage.client_of(shop)

    first = await pay(stage, shop, 2_999)
    second = await stage.paid("wechat_pay", 3_000, client=client)
    third = await stage.paid("wechat_pay", 3_000, client=client)
    unpaid = await stage.show_qr("wechat_pay", 50_000, client=client)
    fourth = await pay(stage, shop, 3_000)

    rows = [await stage.row_of(each) for each in (first, second, third, unpaid, fourth)]
    today = business_date(stage.db.clock.now())
    of = (shop.merchant.id, Mode.SANDBOX, "CNY")
    so_far = await volume_in(stage.db, rows[0].book, of, today.replace(day=1))
    assert [row.price_volume for row in rows] == [0, 2_999, 5_999, 8_999, 8_999]
    assert [row.fee for row in rows] == [24, 24, 12, 100, 6]
    assert so_far == 2_999 + 3_000 + 3_000 + 3_000
    assert (await verified(stage, shop)).differences == 0


async def test_payments_at_one_moment_are_all_counted(stage: Stage) -> None:
    """A race on the row of the month: no amount is lost, whatever step each was priced by."""
    shop = await priced_shop(stage, COUNTED)
    client = stage.client_of(shop)
    shown = [await stage.show_qr("wechat_pay", 100, client=client) for _ in range(6)]

    await asyncio.gather(*[stage.customer(each) for each in shown])
    await asyncio.gather(*[pay(stage, shop, 100) for _ in range(6)])
    await stage.idle()

    row = await stage.row_of(shown[0])
    today = business_date(stage.db.clock.now())
    of = (shop.merchant.id, Mode.SANDBOX, "CNY")
    assert await volume_in(stage.db, row.book, of, today.replace(day=1)) == 1_200
    assert (await verified(stage, shop)).differences == 0


async def verified(stage: Stage, shop: Shop) -> FeeReport:
    today = business_date(stage.db.clock.now())
    month = today.replace(day=1)
    last = (month + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    return await verify_fees(stage.db, month, last, merchant_id=shop.merchant.id)


async def test_a_fee_that_was_booked_otherwise_than_kept_is_named(stage: Stage) -> None:
    shop = await priced_shop(stage, COUNTED)
    first, second = [await pay(stage, shop, 1_000) for _ in range(2)]
    refund = await stage.refund(first, 400, client=stage.client_of(shop))
    assert (await verified(stage, shop)).differences == 0

    for reference in (parse("pay", second["id"]), parse("ref", refund["id"])):
        key = AccountKey("merchant_payable", "CNY", shop.merchant.id)
        legs = posting.transfers(
            "agent.commission",
            reference=reference,
            accounts={"merchant_payable": key},
            amounts={"share": Money(7, "CNY")},
        )
        [result] = await stage.flow.ledger.submit([Group(new_id(), SANDBOX_BOOK, legs)])
        assert result.happened

    report = await verified(stage, shop)
    assert report.differences == 2
    found = {each.what: (each.kept or 0) - (each.expected or 0) for each in report.first}
    assert found == {"booked": -7, "booked_back": -7}


async def test_a_fee_that_is_not_what_its_plan_says_is_named(stage: Stage) -> None:
    shop = await priced_shop(stage, COUNTED)
    good = await pay(stage, shop, 1_000)
    bad = [await pay(stage, shop, 1_000) for _ in range(3)]
    refunded = await pay(stage, shop, 1_000)
    await stage.refund(refunded, 400, client=stage.client_of(shop))
    await stage.refund(refunded, 600, client=stage.client_of(shop))
    assert (await verified(stage, shop)).differences == 0

    for change, payment in zip(
        ("fee = fee + 1", "price_version = 7", "price_version = null, price_day = null"),
        bad,
        strict=True,
    ):
        await stage.db.execute(
            f"update payment set {change} where id = $1", (parse("pay", payment["id"]),)
        )
    await stage.db.execute("update price_volume set collected = collected - 1", ())
    report = await verified(stage, shop)

    assert (report.checked, report.without_version, report.differences) == (4, 1, 4)
    assert [each.what for each in report.first] == ["fee", "plan", "booked", "volume"]
    assert report.first[0].payment_id == parse("pay", bad[0]["id"])
    assert (report.first[0].kept, report.first[0].expected) == (9, 8)
    assert parse("pay", good["id"]) not in {each.payment_id for each in report.first}
    await undo(stage.db, bad)


async def undo(db: Db, bad: list[Payment]) -> None:
    """Put the book's figures back: the module's invariants are checked at its end."""
    await db.execute(
        "update payment set fee = fee - 1 where id = $1", (parse("pay", bad[0]["id"]),)
    )
    await db.execute("update price_volume set collected = collected + 1", ())


async def test_a_draft_says_what_the_month_would_have_cost(stage: Stage) -> None:
    shop = await priced_shop(stage, COUNTED)
    for _ in range(3):
        await pay(stage, shop, 2_500)
    await stage.paid("wechat_pay", 1_000, client=stage.client_of(shop))
    today = business_date(stage.db.clock.now())
    whose = (shop.merchant.id, Mode.SANDBOX)
    free = Promotion(0, from_day=today, until_day=today + timedelta(days=1))
    steps = (Step(1_000, volume_from=5_000),)
    draft = PriceDraft([PriceLine("wallet", "payment_code", 10_000, steps=steps)])
    gift = PriceDraft([PriceLine("wallet", "payment_code", 10_000, promotions=(free,))])

    ways = await preview_costs(stage.db, whose, draft, today, today)
    gifts = await preview_costs(stage.db, whose, gift, today, today)

    wallet, wechat = ways["wallet", "payment_code"], ways["wechat_pay", "qr"]
    assert (wallet.payments, wallet.amount) == (3, 7_500)
    assert (wallet.fee, wallet.fee_then) == (20 + 20 + 10, 25 + 25 + 3)
    assert (wechat.payments, wechat.unpriced, wechat.fee_then) == (1, 1, 0)
    assert gifts["wallet", "payment_code"].fee_then == 0


async def test_two_people_change_the_price_and_once(stage: Stage) -> None:
    shop = await stage.open_shop()
    desk = approvals(stage.flow, stage.platform.clearing)
    terms = PriceTerms(Mode.SANDBOX, PriceDraft([PriceLine("wallet", "payment_code", 1_000)]))
    async with stage.db.begin("alice") as tx:
        made = await propose_prices(tx, shop.merchant.id, terms, reason="a better price", may=MAY)
        with pytest.raises(OwnProposal):
            await approve(tx, desk.acts, made.id, digest=made.digest.hex(), may=MAY)
    before = await price_plans(stage.db, shop.merchant.id, Mode.SANDBOX)

    async with stage.db.begin("bob") as tx:
        await approve(tx, desk.acts, made.id, digest=made.digest.hex(), may=MAY)
    await stage.idle()
    [first, second] = await price_plans(stage.db, shop.merchant.id, Mode.SANDBOX)

    assert [each.version for each in before] == [1]
    assert (first.version, second.version) == (1, 2)
    assert second.lines == terms.draft.lines
    assert second.created_by == made.shown_id


async def test_what_begins_in_the_past_is_not_proposed(stage: Stage) -> None:
    yesterday = business_date(stage.db.clock.now()) - timedelta(days=1)
    draft = PriceDraft([PriceLine("wallet", "payment_code", 1)], from_day=yesterday)

    async with stage.db.begin("alice") as tx:
        with pytest.raises(PriceInThePast):
            await propose_prices(
                tx, stage.shop.merchant.id, PriceTerms(Mode.LIVE, draft), reason="too late"
            )


async def test_a_price_for_debit_cards_waits_for_the_channel_to_tell(stage: Stage) -> None:
    """What the channel tells of the card at the payment's end decides, by the same version."""
    lines = [
        PriceLine("wechat_pay", "qr", 6_000),
        PriceLine("wechat_pay", "qr", 5_000, card=CardKind.DEBIT, fee_max=20),
    ]
    shop = await priced_shop(stage, lines)
    client = stage.client_of(shop)
    stage.sandbox.post("settings", **{"wechat.bank_type": "ICBC_DEBIT"})
    try:
        debit = await stage.paid("wechat_pay", 10_000, client=client)
        stage.sandbox.post("settings", **{"wechat.bank_type": "CMB_CREDIT"})
        credit = await stage.paid("wechat_pay", 10_000, client=client)
    finally:
        stage.sandbox.post("settings", **{"wechat.bank_type": "OTHERS"})
    balance = await stage.paid("wechat_pay", 10_000, client=client)

    found = [await stage.row_of(each) for each in (debit, credit, balance)]
    assert [(row.fee, row.card_kind) for row in found] == [
        (20, CardKind.DEBIT),
        (60, CardKind.CREDIT),
        (60, CardKind.ANY),
    ]
    assert (await stage.postings(debit))[-1] == ("payment.captured/fee", 20)
    assert (await verified(stage, shop)).differences == 0
