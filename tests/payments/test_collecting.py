"""Payments through the API, the channel and back."""

from __future__ import annotations

from tests.stage import Stage
from tongbao.ledger.verify import verify


async def test_a_scanned_qr_ends_in_the_book(stage: Stage) -> None:
    payment = await stage.call(
        stage.client.payments.create,
        merchant_order_no="A-1",
        amount=1999,
        subject="tea",
        method={"channel": "wechat_pay", "mode": "qr"},
    )
    assert payment["status"] == "pending"

    stage.sandbox.post(
        "customer/scan", code_url=payment["next_action"]["code_url"], action="pay"
    )
    await stage.idle()

    paid = await stage.call(stage.client.payments.get, payment["id"])
    assert paid["status"] == "succeeded"
    assert paid["amount_captured"] == 1999
    report = await verify(stage.platform.db)
    assert report.is_sound, report


async def pay_qr(stage: Stage, order_no: str, amount: int, channel: str = "wechat_pay"):
    payment = await stage.call(
        stage.client.payments.create,
        merchant_order_no=order_no,
        amount=amount,
        subject="tea",
        method={"channel": channel, "mode": "qr"},
    )
    stage.sandbox.post("customer/scan", code_url=payment["next_action"]["code_url"], action="pay")
    await stage.idle()
    return await stage.call(stage.client.payments.get, payment["id"])


async def test_alipay_qr(stage: Stage) -> None:
    paid = await pay_qr(stage, "B-1", 1000, "alipay")
    assert paid["status"] == "succeeded"


async def test_codes(stage: Stage) -> None:
    for channel in ("wechat", "alipay"):
        for behaviour, status in (("pay", "succeeded"), ("decline", "failed"), ("ask", "pending")):
            code = stage.sandbox.post(
                "customer/payment-code", channel=channel, behaviour=behaviour
            )["auth_code"]
            payment = await stage.call(
                stage.client.payments.create,
                merchant_order_no=f"C-{channel}-{behaviour}",
                amount=500,
                subject="tea",
                method={"mode": "payment_code", "auth_code": code},
            )
            print(channel, behaviour, payment["status"], payment.get("failure"))
            assert payment["status"] == status, payment
    await stage.idle()


async def test_refunds(stage: Stage) -> None:
    for channel in ("wechat_pay", "alipay"):
        paid = await pay_qr(stage, f"R-{channel}", 1000, channel)
        refund = await stage.call(
            stage.client.payments.refund, paid["id"], merchant_refund_no=f"r1-{channel}", amount=300
        )
        print(refund)
        await stage.advance(seconds=60)
        refund = await stage.call(stage.client.refunds.get, refund["id"])
        assert refund["status"] == "succeeded", refund
    report = await verify(stage.platform.db)
    assert report.is_sound, report.broken


async def test_wallet(stage: Stage) -> None:
    wallet = await stage.call(stage.client.wallets.open, holder_name="张三")
    await stage.call(stage.client.wallets.top_up, wallet["id"], amount=10_000)
    code = await stage.call(stage.client.wallets.payment_code, wallet["id"])
    print(wallet, code)
    payment = await stage.call(
        stage.client.payments.create,
        merchant_order_no="W-1",
        amount=500,
        subject="tea",
        method={"mode": "payment_code", "auth_code": code["code"]},
    )
    assert payment["status"] == "succeeded", payment
    refund = await stage.call(
        stage.client.payments.refund, payment["id"], merchant_refund_no="w1", amount=500
    )
    assert refund["status"] == "succeeded", refund


async def test_close(stage: Stage) -> None:
    for channel in ("wechat_pay", "alipay"):
        payment = await stage.call(
            stage.client.payments.create,
            merchant_order_no=f"D-{channel}",
            amount=500,
            subject="tea",
            method={"channel": channel, "mode": "qr"},
        )
        closed = await stage.call(stage.client.payments.close, payment["id"])
        assert closed["status"] == "closed", closed
    payment = await stage.call(
        stage.client.payments.create,
        merchant_order_no="D-3",
        amount=500,
        subject="tea",
        method={"channel": "wechat_pay", "mode": "qr"},
        expires_in_s=120,
    )
    await stage.advance(seconds=300)
    gone = await stage.call(stage.client.payments.get, payment["id"])
    print(gone)
    assert gone["status"] == "closed", gone
    assert gone["close_reason"] == "expired"
