"""A merchant shows a code, a wallet's owner confirms: one commit, once, whoever else tries."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.payments.test_interleavings import book, hear, holding, key_of
from tests.stage import Stage
from tongbao.infra import failpoints
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.kernel.ids import new_id, parse
from tongbao.kernel.licence import Mode
from tongbao.parties.accounts.model import Wallet as WalletRow
from tongbao.parties.accounts.queries import wallet_with_id
from tongbao.parties.merchants.merchants import LIVE_BOOK, SANDBOX_BOOK
from tongbao.payments.own_wallet.confirming import confirm
from tongbao.rails.channels.contract.outcomes import Closed
from tongbao_sdk import Refused
from tongbao_sdk.replies import Payment, Wallet

AMOUNT = 1999


async def wallet_with(stage: Stage, balance: int = 10_000, currency: str = "CNY") -> Wallet:
    opening = stage.client.wallets.open
    opened = await stage.call(opening, holder_name="张三", currency=currency)
    if balance:
        topping_up = stage.client.wallets.top_up
        await stage.call(topping_up, opened["id"], amount=balance, currency=currency)
    return opened


async def balance_of(stage: Stage, wallet: Wallet) -> int:
    return int((await stage.call(stage.client.wallets.get, wallet["id"]))["balance"])


def code_of(payment: Payment) -> str:
    action: Any = payment["next_action"]
    assert action["type"] == "show_qr"
    return str(action["code_url"])


async def scan(stage: Stage, wallet: Wallet, payment: Payment) -> Any:
    return await stage.call(stage.client.wallets.scan, wallet["id"], code_of(payment))


async def pay(stage: Stage, wallet: Wallet, payment: Payment, **once: Any) -> Any:
    return await stage.call(stage.client.wallets.pay, wallet["id"], code_of(payment), **once)


async def refused(stage: Stage, wallet: Wallet, payment: Payment) -> str:
    with pytest.raises(Refused) as refusal:
        await pay(stage, wallet, payment)
    return refusal.value.code


async def test_a_code_is_shown_looked_at_and_paid_in_one_commit(stage: Stage) -> None:
    wallet, payment = await wallet_with(stage), await stage.show_qr("wallet", AMOUNT)

    assert payment["status"] == "pending"
    seen = await scan(stage, wallet, payment)
    assert (seen["payee"], seen["amount"], seen["status"]) == (
        stage.shop.merchant.name, AMOUNT, "payable",
    )  # fmt: skip
    assert seen["payment_id"] == payment["id"]
    assert not {"metadata", "fee", "merchant_order_no"} & seen.keys()
    paid = await pay(stage, wallet, payment)

    assert (paid["status"], paid["paid_by_wallet"]) == ("paid", True)
    read = await stage.read(payment)
    assert (read["status"], read["amount_captured"], read["method"]) == (
        "succeeded", AMOUNT, {"channel": "wallet", "mode": "qr"},
    )  # fmt: skip
    assert await balance_of(stage, wallet) == 10_000 - AMOUNT
    assert await stage.postings(payment) == [
        ("payment.captured_by_wallet/gross", AMOUNT),
        ("payment.captured_by_wallet/fee", 6),
    ]
    await stage.idle()
    assert await stage.events(payment) == ["payment.succeeded"]
    [row] = await stage.db.fetch(
        "select spent from wallet where id = $1", (parse("wal", wallet["id"]),)
    )
    assert row["spent"] == AMOUNT, "counted against the day"


async def test_a_refund_goes_back_to_the_wallet_at_once(stage: Stage) -> None:
    wallet, payment = await wallet_with(stage), await stage.show_qr("wallet", AMOUNT)
    await pay(stage, wallet, payment)

    refund = await stage.refund(payment, 999)

    assert refund["status"] == "succeeded"
    assert await balance_of(stage, wallet) == 10_000 - 1000


async def test_a_code_is_good_for_one_payment(stage: Stage) -> None:
    wallet, other = await wallet_with(stage), await wallet_with(stage)
    payment = await stage.show_qr("wallet", AMOUNT)
    first = await pay(stage, wallet, payment, idempotency_key="confirm-once")

    assert await pay(stage, wallet, payment, idempotency_key="confirm-once") == first
    assert await refused(stage, wallet, payment) == "wallet.qr_paid"
    assert await refused(stage, other, payment) == "wallet.qr_paid"
    seen = await scan(stage, other, payment)
    assert (seen["status"], seen["paid_by_wallet"]) == ("paid", False)
    assert [await balance_of(stage, each) for each in (wallet, other)] == [8001, 10_000]


async def test_a_wallet_that_may_not_pay_leaves_the_code_payable(stage: Stage) -> None:
    poor, dollars = await wallet_with(stage, 100), await wallet_with(stage, 0, "USD")
    frozen, limited = await wallet_with(stage), await wallet_with(stage, 2_000_000)
    await stage.call(stage.client.wallets.freeze, frozen["id"])
    payment = await stage.show_qr("wallet", 1_000_001)

    assert await refused(stage, poor, payment) == "wallet.daily_limit_exceeded"
    assert await refused(stage, limited, payment) == "wallet.daily_limit_exceeded"
    payment = await stage.show_qr("wallet", AMOUNT)
    assert await refused(stage, poor, payment) == "wallet.balance_too_low"
    assert await refused(stage, dollars, payment) == "wallet.currency_differs"
    assert await refused(stage, frozen, payment) == "wallet.frozen"

    assert (await scan(stage, poor, payment))["status"] == "payable"
    assert await stage.postings(payment) == []
    await stage.call(stage.client.wallets.top_up, poor["id"], amount=AMOUNT)
    assert (await pay(stage, poor, payment))["status"] == "paid"
    assert await balance_of(stage, poor) == 100


@pytest.mark.parametrize(
    "code", ["", "tongbao:pay/", "tongbao:pay/" + "0" * 26, "tongbao:pay/" + "u" * 26, "weixin://x"]
)
async def test_what_is_no_code_of_ours_pays_nothing(stage: Stage, code: str) -> None:
    wallet = await wallet_with(stage, 0)

    for call in (stage.client.wallets.scan, stage.client.wallets.pay):
        with pytest.raises(Refused) as refusal:
            await stage.call(call, wallet["id"], code)
        assert refusal.value.code == ("wallet.qr_unknown" if code else "request.invalid_value")


async def test_another_channels_number_is_no_code(stage: Stage) -> None:
    wallet, payment = await wallet_with(stage), await stage.show_qr("wechat_pay")
    number = (await stage.attempt_of(payment)).number

    with pytest.raises(Refused) as refusal:
        await stage.call(stage.client.wallets.pay, wallet["id"], f"tongbao:pay/{number}")
    assert refusal.value.code == "wallet.qr_unknown"


async def row_of(stage: Stage, wallet: Wallet) -> WalletRow:
    return await wallet_with_id(stage.db, SANDBOX_BOOK, parse("wal", wallet["id"]))


async def test_a_live_wallet_knows_no_sandbox_code_and_a_merchant_no_others_wallet(
    stage: Stage,
) -> None:
    wallet, payment = await wallet_with(stage), await stage.show_qr("wallet", AMOUNT)
    stranger = stage.client_of(await stage.open_shop())
    live = WalletRow(
        **{
            name: getattr(await row_of(stage, wallet), name)
            for name in WalletRow.__struct_fields__
            if name not in {"book", "mode"}
        },
        book=LIVE_BOOK,
        mode=Mode.LIVE,
    )

    with pytest.raises(Exception, match=r"wallet\.qr_unknown"):
        await confirm(stage.flow, live, code_of(payment), key_of(stage).write)
    with pytest.raises(Refused) as refusal:
        await stage.call(stranger.wallets.pay, wallet["id"], code_of(payment))
    assert refusal.value.code == "wallet.not_found"
    theirs = await stage.show_qr("wallet", AMOUNT, client=stranger)
    assert (await pay(stage, wallet, theirs))["status"] == "paid", "a wallet pays at every shop"


async def test_a_closed_code_cannot_be_paid(stage: Stage) -> None:
    wallet, payment = await wallet_with(stage), await stage.show_qr("wallet", AMOUNT)

    closed = await stage.close(payment)

    assert (closed["status"], closed["close_reason"]) == ("closed", "merchant")
    assert await refused(stage, wallet, payment) == "wallet.qr_ended"
    assert (await scan(stage, wallet, payment))["status"] == "ended"
    assert await balance_of(stage, wallet) == 10_000


async def test_a_code_expires_by_itself(stage: Stage) -> None:
    wallet = await wallet_with(stage)
    payment = await stage.show_qr("wallet", AMOUNT, expires_in_s=60)

    stage.db.clock.offset += (await stage.row_of(payment)).expires_at - stage.db.clock.now()
    assert await refused(stage, wallet, payment) == "wallet.qr_ended", "before anybody has looked"
    await stage.advance(seconds=1)

    read = await stage.read(payment)
    assert (read["status"], read["close_reason"]) == ("closed", "expired")
    assert await stage.events(payment) == ["payment.closed"]
    assert await stage.cases(payment) == []


async def test_only_a_code_is_shown_and_nothing_is_set_aside(stage: Stage) -> None:
    with pytest.raises(Refused) as refusal:
        await stage.show_qr("wallet", AMOUNT, capture="manual")
    assert refusal.value.code == "payment.capture_not_offered"
    with pytest.raises(Refused) as refusal:
        await stage.call(
            stage.client.payments.create,
            merchant_order_no=new_id().hex,
            amount=AMOUNT,
            subject="tea",
            method={"channel": "wallet", "mode": "app"},
        )
    assert refusal.value.code == "payment.wallet_needs_code"


# --- at once --------------------------------------------------------------------------------------


async def test_of_two_wallets_at_once_one_pays(stage: Stage) -> None:
    wallets = [await wallet_with(stage), await wallet_with(stage)]
    payment = await stage.show_qr("wallet", AMOUNT)
    once = stage.client_of(stage.shop, tries_max=1)

    async with holding(stage, *book(stage)) as rivals:
        for each in wallets:
            paying = stage.call(once.wallets.pay, each["id"], code_of(payment))
            await rivals.start(paying)
    first, second = await rivals.ends()

    assert first["status"] == "paid"
    assert isinstance(second, Refused)
    assert second.code == "wallet.qr_paid"
    assert sorted([await balance_of(stage, each) for each in wallets]) == [8001, 10_000]
    assert await stage.events(payment) == ["payment.succeeded"]


async def test_many_confirmations_of_one_wallet_at_once_pay_once(stage: Stage) -> None:
    wallet, payment = await wallet_with(stage), await stage.show_qr("wallet", AMOUNT)

    asked = [pay(stage, wallet, payment) for _ in range(6)]
    ends = await asyncio.gather(*asked, return_exceptions=True)

    assert len([each for each in ends if isinstance(each, dict)]) == 1
    assert {each.code for each in ends if isinstance(each, Refused)} == {"wallet.qr_paid"}
    assert await balance_of(stage, wallet) == 10_000 - AMOUNT


@pytest.mark.parametrize("closes_first", [True, False])
async def test_of_a_closing_and_a_confirmation_at_once_one_happens(
    stage: Stage, *, closes_first: bool
) -> None:
    wallet, payment = await wallet_with(stage), await stage.show_qr("wallet", AMOUNT)
    attempt = await stage.attempt_of(payment)
    lock = "select 1 from attempt where id = $1 for no key update"
    acts = [lambda: hear(stage, payment, Closed()), lambda: pay(stage, wallet, payment)]

    async with holding(stage, lock, attempt.id) as rivals:
        for act in acts if closes_first else acts[::-1]:
            await rivals.start(act())
    ends = await rivals.ends()

    read = await stage.read(payment)
    balance = await balance_of(stage, wallet)
    assert (read["status"], balance) in {("closed", 10_000), ("succeeded", 10_000 - AMOUNT)}
    (closed, _), paid = ends if closes_first else ends[::-1]
    assert closed.state == read["status"] == ("closed" if closes_first else "succeeded")
    assert isinstance(paid, Refused) == closes_first
    assert len(await stage.events(payment)) == 1
    assert await stage.cases(payment) == []


# --- death ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["payments.before_wallet", "payments.after_wallet"])
async def test_dying_beside_the_commit_pays_once(stage: Stage, place: str) -> None:
    wallet, payment = await wallet_with(stage), await stage.show_qr("wallet", AMOUNT)
    row = await row_of(stage, wallet)

    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await confirm(stage.flow, row, code_of(payment), key_of(stage).write)
    failpoints.arm(None)

    is_paid = place == "payments.after_wallet"
    assert (await scan(stage, wallet, payment))["status"] == ("paid" if is_paid else "payable")
    if is_paid:
        assert await refused(stage, wallet, payment) == "wallet.qr_paid"
    else:
        await pay(stage, wallet, payment)
    assert await balance_of(stage, wallet) == 10_000 - AMOUNT
    await stage.idle()
    assert await stage.events(payment) == ["payment.succeeded"]


async def test_a_code_whose_making_was_broken_off_is_made_by_the_chase(stage: Stage) -> None:
    failpoints.arm("payments.after_intention:raise")
    creating = asyncio.create_task(stage.show_qr("wallet", AMOUNT, merchant_order_no="broken-off"))
    await asyncio.gather(creating, return_exceptions=True)
    failpoints.arm(None)

    again = await stage.show_qr("wallet", AMOUNT, merchant_order_no="broken-off")
    await stage.advance(seconds=6)

    assert (await stage.read(again))["status"] == "pending"
    wallet = await wallet_with(stage)
    assert (await pay(stage, wallet, await stage.read(again)))["status"] == "paid"
