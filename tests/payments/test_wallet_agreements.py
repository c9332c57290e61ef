"""A wallet's owner signs, a merchant deducts: one commit, within what was signed, until it ends."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.payments.test_interleavings import book, holding, key_of
from tests.payments.test_own_wallet import AMOUNT, balance_of, code_of, row_of, wallet_with
from tests.stage import Stage, new_number
from tongbao.duties import reach_of
from tongbao.infra import failpoints
from tongbao.infra.db import write_all
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.kernel.ids import new_id, parse
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.price_plans.model import PriceLine
from tongbao.parties.price_plans.plans import set_price_plan
from tongbao.payments.agreements.agreements import USE_REFUSED, release_writes, use_writes
from tongbao.payments.agreements.queries import agreement_with_id
from tongbao.payments.own_wallet.signing import sign as sign_here
from tongbao.surfaces.demo.stage import SHOP_FEES
from tongbao_sdk import Refused
from tongbao_sdk.replies import Wallet


@pytest.fixture(scope="module", autouse=True)
async def _priced(module_stage: Stage) -> None:
    lines = [*SHOP_FEES, PriceLine("wallet", "agreement", 3_000)]
    async with module_stage.db.begin("operator") as tx:
        await set_price_plan(tx, module_stage.shop.merchant.id, Mode.SANDBOX, lines)


async def offer(stage: Stage, **more: Any) -> Any:
    terms = {"plan": "membership", "display_name": "tea every week", **more}
    return await stage.call(
        stage.client.agreements.create,
        merchant_agreement_no=new_number(), channel="wallet", **terms,
    )  # fmt: skip


async def sign(stage: Stage, wallet: Wallet, agreement: Any, **once: Any) -> Any:
    return await stage.call(stage.client.wallets.sign, wallet["id"], code_of(agreement), **once)


async def deduct(stage: Stage, agreement: Any, amount: int = AMOUNT, **more: Any) -> Any:
    method = {"mode": "agreement", "agreement_id": agreement["id"]}
    terms = {"merchant_order_no": new_number(), "subject": "tea", **more}
    return await stage.call(stage.client.payments.create, amount=amount, method=method, **terms)


async def refusal_of(coming: Any) -> str:
    with pytest.raises(Refused) as refusal:
        await coming
    return refusal.value.code


async def used(stage: Stage, agreement: Any) -> int:
    return int((await stage.call(stage.client.agreements.get, agreement["id"]))["amount_used"])


async def signed_by(stage: Stage, wallet: Wallet, **limits: Any) -> Any:
    agreement = await offer(stage, **limits)
    await sign(stage, wallet, agreement)
    return agreement


async def test_an_agreement_is_looked_at_signed_and_collected_under(stage: Stage) -> None:
    wallet = await wallet_with(stage)
    agreement = await offer(stage, limit_each=2000, period="month", limit_per_period=5000)

    assert agreement["status"] == "pending"
    seen = await stage.call(stage.client.wallets.scan_agreement, wallet["id"], code_of(agreement))
    assert (seen["payee"], seen["limit_each"], seen["period"], seen["limit_per_period"]) == (
        stage.shop.merchant.name, 2000, "month", 5000,
    )  # fmt: skip
    signed = await sign(stage, wallet, agreement)
    assert (signed["status"], signed["signed_by_wallet"]) == ("active", True)
    payment = await deduct(stage, agreement)

    assert (payment["status"], payment["amount_captured"]) == ("succeeded", AMOUNT)
    assert payment["method"] == {
        "channel": "wallet", "mode": "agreement", "agreement_id": agreement["id"],
    }  # fmt: skip
    assert await balance_of(stage, wallet) == 10_000 - AMOUNT
    assert await used(stage, agreement) == AMOUNT
    assert await stage.postings(payment) == [
        ("payment.captured_by_wallet/gross", AMOUNT),
        ("payment.captured_by_wallet/fee", 6),
    ]
    await stage.idle()
    assert await stage.events(payment) == ["payment.succeeded"]
    assert await stage.events(agreement) == ["agreement.signed"]
    refund = await stage.refund(payment, AMOUNT)
    assert refund["status"] == "succeeded"
    assert await balance_of(stage, wallet) == 10_000


async def test_the_limits_are_the_customers(stage: Stage) -> None:
    wallet = await wallet_with(stage)
    agreement = await signed_by(
        stage, wallet, limit_each=2000, period="month", limit_per_period=3000
    )

    assert await refusal_of(deduct(stage, agreement, 2001)) == "agreement.limit_each"
    await deduct(stage, agreement, 2000)
    assert await refusal_of(deduct(stage, agreement, 1001)) == "agreement.limit_per_period"
    assert (await deduct(stage, agreement, 1000))["status"] == "succeeded"
    assert await balance_of(stage, wallet) == 7000
    assert await used(stage, agreement) == 3000


async def test_a_wallet_without_enough_money_makes_a_failed_payment_that_counts_nothing(
    stage: Stage,
) -> None:
    wallet = await wallet_with(stage, 100)
    agreement = await signed_by(stage, wallet, period="month", limit_per_period=5000)

    failed = await deduct(stage, agreement)

    assert (failed["status"], failed["failure"]["code"]) == ("failed", "ledger.exceeds_balance")
    assert await used(stage, agreement) == 0
    assert await stage.postings(failed) == []
    await stage.call(stage.client.wallets.freeze, wallet["id"])
    failed = await deduct(stage, agreement, 50)
    assert failed["failure"]["code"] == "wallet.spending_refused"
    assert await used(stage, agreement) == 0


async def test_an_order_is_deducted_once(stage: Stage) -> None:
    wallet = await wallet_with(stage)
    agreement, order = await signed_by(stage, wallet), new_number()

    first = await deduct(stage, agreement, merchant_order_no=order)
    again = await deduct(stage, agreement, merchant_order_no=order)
    with pytest.raises(Refused) as refusal:
        await deduct(stage, agreement, 1, merchant_order_no=order)

    assert first == again
    assert refusal.value.code == "payment.order_no_used"
    assert await balance_of(stage, wallet) == 10_000 - AMOUNT
    assert await used(stage, agreement) == AMOUNT


@pytest.mark.parametrize("by", ["owner", "merchant"])
async def test_an_end_is_an_end_at_once(stage: Stage, by: str) -> None:
    wallet = await wallet_with(stage)
    agreement = await signed_by(stage, wallet)
    ending = {
        "owner": (stage.client.wallets.end_agreement, agreement["id"]),
        "merchant": (stage.client.agreements.end, agreement["id"]),
    }[by]

    ended = await stage.call(*ending)

    assert ended["status"] == "ended"
    assert await refusal_of(deduct(stage, agreement)) == "agreement.not_active"
    assert await refusal_of(stage.call(*ending)) == "agreement.not_active"
    assert await stage.events(agreement) == ["agreement.signed", "agreement.ended"]
    assert await refusal_of(sign(stage, wallet, agreement)) == "wallet.agreement_not_open"


async def test_who_may_not_sign(stage: Stage) -> None:
    wallet, other = await wallet_with(stage), await wallet_with(stage)
    dollars, frozen = await wallet_with(stage, 0, "USD"), await wallet_with(stage)
    await stage.call(stage.client.wallets.freeze, frozen["id"])
    agreement = await offer(stage)

    assert await refusal_of(sign(stage, dollars, agreement)) == "wallet.currency_differs"
    assert await refusal_of(sign(stage, frozen, agreement)) == "wallet.frozen"
    assert await refusal_of(deduct(stage, agreement)) == "agreement.not_active"
    first = await sign(stage, wallet, agreement, idempotency_key="sign-once")
    assert await sign(stage, wallet, agreement, idempotency_key="sign-once") == first
    assert await refusal_of(sign(stage, other, agreement)) == "wallet.agreement_not_open"
    stranger = stage.client_of(await stage.open_shop())
    ending = stage.call(stranger.wallets.end_agreement, agreement["id"])
    assert await refusal_of(ending) == "agreement.not_found"
    for code in ("tongbao:pay/" + "0" * 26, "tongbao:sign/" + "0" * 26, "tongbao:sign/x"):
        signing = stage.call(stage.client.wallets.sign, wallet["id"], code)
        assert await refusal_of(signing) == "wallet.agreement_unknown"


async def test_an_offer_nobody_takes_is_over_by_itself(stage: Stage) -> None:
    wallet, agreement = await wallet_with(stage, 0), await offer(stage, expires_in_s=60)

    stage.db.clock.offset += timedelta(seconds=60)
    assert await refusal_of(sign(stage, wallet, agreement)) == "wallet.agreement_not_open"
    await stage.advance(seconds=1)

    read = await stage.call(stage.client.agreements.get, agreement["id"])
    assert (read["status"], read["code"]) == ("failed", "agreement.offer_over")
    assert await stage.events(agreement) == ["agreement.failed"]


async def test_nothing_is_set_aside_under_an_agreement_with_the_wallet(stage: Stage) -> None:
    agreement = await signed_by(stage, await wallet_with(stage))

    assert await refusal_of(deduct(stage, agreement, capture="manual")) == (
        "payment.capture_not_offered"
    )


# --- at once, and death ---------------------------------------------------------------------------


async def test_of_deductions_at_once_no_more_than_the_limit_is_taken(stage: Stage) -> None:
    wallet = await wallet_with(stage)
    agreement = await signed_by(stage, wallet, period="month", limit_per_period=2500)

    asked = [deduct(stage, agreement, 1000) for _ in range(5)]
    ends = await asyncio.gather(*asked, return_exceptions=True)

    taken = [each for each in ends if isinstance(each, dict)]
    assert [each["status"] for each in taken] == ["succeeded"] * 2
    assert {each.code for each in ends if isinstance(each, Refused)} == {
        "agreement.limit_per_period"
    }
    assert await balance_of(stage, wallet) == 8000
    assert await used(stage, agreement) == 2000


async def test_of_two_wallets_at_once_one_signs(stage: Stage) -> None:
    wallets, agreement = [await wallet_with(stage), await wallet_with(stage)], await offer(stage)
    once = stage.client_of(stage.shop, tries_max=1)
    lock = "lock table agreement in share row exclusive mode"

    async with holding(stage, lock) as rivals:
        for each in wallets:
            await rivals.start(stage.call(once.wallets.sign, each["id"], code_of(agreement)))
    ends = await rivals.ends()

    assert sorted(isinstance(each, Refused) for each in ends) == [False, True]
    assert {each.code for each in ends if isinstance(each, Refused)} == {
        "wallet.agreement_not_open"
    }
    assert await stage.events(agreement) == ["agreement.signed"]


async def test_an_end_that_waited_for_a_deduction_lets_no_other_follow(stage: Stage) -> None:
    wallet = await wallet_with(stage)
    agreement = await signed_by(stage, wallet)
    once = stage.client_of(stage.shop, tries_max=1)

    async with holding(stage, *book(stage)) as rivals:
        await rivals.start(deduct(stage, agreement))
        ending = stage.call(once.wallets.end_agreement, agreement["id"])
        await rivals.start(ending)
    deducted, ended = await rivals.ends()

    assert (deducted["status"], ended["status"]) == ("succeeded", "ended"), "it was first"
    assert await refusal_of(deduct(stage, agreement)) == "agreement.not_active"
    assert await balance_of(stage, wallet) == 10_000 - AMOUNT


@pytest.mark.parametrize("place", ["payments.before_wallet", "payments.after_wallet"])
async def test_dying_beside_the_commit_deducts_once(stage: Stage, place: str) -> None:
    wallet = await wallet_with(stage)
    agreement, order = await signed_by(stage, wallet), new_number()
    once = stage.client_of(stage.shop, tries_max=1)
    method = {"mode": "agreement", "agreement_id": agreement["id"]}
    terms = {"merchant_order_no": order, "amount": AMOUNT, "subject": "tea", "method": method}

    failpoints.arm(f"{place}:raise")
    broken = asyncio.create_task(stage.call(once.payments.create, **terms))
    await asyncio.gather(broken, return_exceptions=True)
    failpoints.arm(None)
    assert await balance_of(stage, wallet) in {10_000, 10_000 - AMOUNT}
    payment = await deduct(stage, agreement, merchant_order_no=order)

    assert payment["status"] == "succeeded"
    assert await balance_of(stage, wallet) == 10_000 - AMOUNT
    assert await used(stage, agreement) == AMOUNT
    await stage.idle()
    assert await stage.events(payment) == ["payment.succeeded"]


@pytest.mark.parametrize("place", ["agreements.before_own_change", "agreements.after_own_change"])
async def test_dying_while_it_is_signed_signs_it_once(stage: Stage, place: str) -> None:
    wallet, agreement = await wallet_with(stage), await offer(stage)
    row, reach = await row_of(stage, wallet), reach_of(stage.flow)

    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await sign_here(reach, row, code_of(agreement), key_of(stage).write)
    failpoints.arm(None)

    if place == "agreements.before_own_change":
        await sign(stage, wallet, agreement)
    assert (await deduct(stage, agreement))["status"] == "succeeded"
    assert await stage.events(agreement) == ["agreement.signed"]


async def test_what_comes_late_from_the_period_before_counts_in_this_one(stage: Stage) -> None:
    """Who read the clock before midnight may write after somebody who read it later."""
    wallet = await wallet_with(stage)
    shown = await signed_by(stage, wallet, period="day", limit_per_period=1_000)
    agreement = await agreement_with_id(stage.db, parse("agr", shown["id"]))
    now = stage.db.clock.now()
    yesterday, paid = now - timedelta(days=1), [new_id() for _ in range(4)]

    async def use(place: int, amount: int, at: datetime) -> str | None:
        async with stage.db.begin("test") as tx:
            return await write_all(tx, use_writes(agreement, paid[place], Money(amount, "CNY"), at))

    taken = [await use(0, 700, now), await use(1, 200, yesterday), await use(2, 200, now)]
    assert taken == [None, None, USE_REFUSED]
    assert await used(stage, shown) == 900
    async with stage.db.begin("test") as tx:
        for write in release_writes(agreement.book, paid[1], now):
            await write.run(tx)
    assert await used(stage, shown) == 700, "it is given back where it was counted"
    assert await use(3, 300, now) is None
