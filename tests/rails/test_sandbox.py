"""Both adapters against the simulated channels, which sign and encrypt with code of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.rails.wire_server import WireServer, http_reply
from tongbao.infra.http import HttpClient
from tongbao.kernel.clock import business_date, real_now
from tongbao.kernel.ids import base32, new_id
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.rails.channels.alipay.client import Alipay
from tongbao.rails.channels.alipay.secrets import AlipaySecrets
from tongbao.rails.channels.contract.bills import (
    BillFault,
    BillFile,
    BillKind,
    BillNotReady,
    BillRow,
    BillTotal,
)
from tongbao.rails.channels.contract.callbacks import Callback, CallbackForged, CallbackKind
from tongbao.rails.channels.contract.channel import Channel
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode, PayOrder, RefundOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Closed,
    Declined,
    Pending,
    ShowQr,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.exchange import TimeLimits
from tongbao.rails.channels.wechat_pay.client import WechatPay
from tongbao.rails.channels.wechat_pay.secrets import WechatPaySecrets
from tongbao_sandbox.launch import RunningSandbox

LIMITS = TimeLimits(ask_s=0.6, bill_s=10.0)
PRICE = Money(1999, "CNY")


class Shop:
    """A merchant at one simulated channel: its account, its adapter, and where callbacks come."""

    def __init__(
        self, name: str, sandbox: RunningSandbox, http: HttpClient, far_end: WireServer
    ) -> None:
        self.name = name
        self.sandbox = sandbox
        self.wire = far_end
        self.channel: Channel = (WechatPay if name == "wechat" else Alipay)(http, limits=LIMITS)
        self.account = account_at(name, sandbox, far_end.url)
        far_end.react = lambda _: self._reply()

    def _reply(self) -> bytes:
        reply = self.channel.reply_to_callback(accepted=True)
        return http_reply(reply.status, dict(reply.headers), reply.body)

    def order(self, mode: PayMode, **changes: Any) -> PayOrder:
        now = datetime.fromisoformat(self.sandbox.get("clock")["now"])
        fields: dict[str, Any] = {
            "number": base32(new_id()),
            "mode": mode,
            "money": PRICE,
            "subject": "一杯咖啡 & 1 muffin",
            "expires_at": now + timedelta(minutes=30),
        }
        return PayOrder(**{**fields, **changes})

    def code(self, behaviour: str, **more: Any) -> PayOrder:
        made = self.sandbox.post(
            "customer/payment-code", channel=self.name, behaviour=behaviour, **more
        )
        return self.order(PayMode.PAYMENT_CODE, auth_code=made["auth_code"])

    def fault(self, on: str, fault: str, number: str) -> None:
        self.sandbox.fault(self.name, on, fault, number=number)

    async def offer(self) -> PayOrder:
        order = self.order(PayMode.QR)
        answer = await self.channel.pay(self.account, order)
        assert isinstance(answer.outcome, Pending), answer
        assert isinstance(answer.outcome.action, ShowQr)
        return order

    async def scan(self, order: PayOrder, action: str = "pay") -> None:
        await self._in_thread(
            "customer/scan", channel=self.name, number=order.number, action=action
        )

    async def paid(self) -> PayOrder:
        order = await self.offer()
        await self.scan(order)
        return order

    async def settle(self) -> None:
        await asyncio.to_thread(self.sandbox.settle)

    async def advance(self, seconds: float) -> None:
        await asyncio.to_thread(self.sandbox.advance, seconds)

    async def _in_thread(self, path: str, **body: Any) -> Any:
        return await asyncio.to_thread(lambda: self.sandbox.post(path, **body))

    def callbacks(self) -> list[Callback | str]:
        """Everything that arrived, read or the word forged."""
        seen: list[Callback | str] = []
        for heard in self.wire.heard:
            try:
                seen.append(
                    self.channel.read_callback(self.account, heard.headers, heard.body, real_now())
                )
            except CallbackForged:
                seen.append("forged")
        return seen

    def refund(self, order: PayOrder, fen: int, number: str | None = None) -> RefundOrder:
        return RefundOrder(
            number=number or base32(new_id()),
            order_number=order.number,
            money=Money(fen, "CNY"),
            order_money=order.money,
            reason="缺货",
        )


def account_at(name: str, sandbox: RunningSandbox, notify: str, **changes: Any) -> ChannelAccount:
    given = sandbox.credentials[name]
    if name == "wechat":
        certificate = {given["platform_serial"]: given["platform_certificate_pem"]}
        secrets: Any = WechatPaySecrets(
            api_v3_key=given["api_v3_key"],
            merchant_serial=given["merchant_serial"],
            merchant_private_key_pem=given["merchant_private_key_pem"],
            **{"platform_keys": certificate, **changes},
        )
        number, app = given["mchid"], given["appid"]
    else:
        secrets = AlipaySecrets(
            app_private_key_pem=given["app_private_key_pem"],
            alipay_public_key_pem=given["alipay_public_key_pem"],
        )
        number, app = given["seller_id"], given["app_id"]
    return ChannelAccount(
        id=uuid4(),
        channel="wechat_pay" if name == "wechat" else "alipay",
        mode=Mode.SANDBOX,
        gateway=f"{sandbox.url}/{name}",
        merchant_number=number,
        app_id=app,
        notify_url=f"{notify}/callbacks/{name}",
        fee_ppm=6000,
        secrets=secrets,
    )


@pytest.fixture(params=["wechat", "alipay"])
async def shop(
    request: pytest.FixtureRequest, sandbox: RunningSandbox, http: HttpClient, far_end: WireServer
) -> AsyncIterator[Shop]:
    made = Shop(request.param, sandbox, http, far_end)
    yield made
    await made.settle()


async def test_a_scanned_code_is_paid_and_told(shop: Shop) -> None:
    order = await shop.offer()
    before = await shop.channel.query(shop.account, order)
    # Alipay has no trade before the code is scanned.
    assert isinstance(before.outcome, Pending if shop.name == "wechat" else Absent)
    await shop.scan(order)
    after = await shop.channel.query(shop.account, order)
    assert isinstance(after.outcome, Succeeded), after
    assert after.outcome.money == PRICE
    await shop.settle()
    [callback] = shop.callbacks()
    assert isinstance(callback, Callback)
    assert callback.kind is CallbackKind.PAYMENT
    assert callback.number == order.number
    assert (callback.merchant_number, callback.app_id) == (
        shop.account.merchant_number,
        shop.account.app_id,
    )
    assert isinstance(callback.outcome, Succeeded)
    assert callback.outcome.channel_ref == after.outcome.channel_ref
    assert callback.outcome.money == PRICE


async def test_a_payment_code_is_charged_at_once(shop: Shop) -> None:
    order = shop.code("pay")
    answer = await shop.channel.pay(shop.account, order)
    assert isinstance(answer.outcome, Succeeded), answer
    assert order.auth_code not in repr(answer)
    again = await shop.channel.pay(shop.account, order)  # the number makes the repeat harmless
    assert isinstance(again.outcome, Succeeded), again
    assert again.outcome.channel_ref == answer.outcome.channel_ref
    assert len(shop.sandbox.get("trades", channel=shop.name, number=order.number)) == 1


async def test_a_customer_who_must_confirm_is_waited_for(shop: Shop) -> None:
    order = shop.code("ask")
    answer = await shop.channel.pay(shop.account, order)
    assert isinstance(answer.outcome, Pending), answer
    asked = await shop.channel.query(shop.account, order)
    assert isinstance(asked.outcome, Pending)
    await shop.scan(order, "pay")
    asked = await shop.channel.query(shop.account, order)
    assert isinstance(asked.outcome, Succeeded)


async def test_a_declined_payment_code_is_declined(shop: Shop) -> None:
    answer = await shop.channel.pay(shop.account, shop.code("decline"))
    assert isinstance(answer.outcome, Declined), answer
    assert answer.outcome.code


async def test_a_code_used_by_another_order_is_declined(shop: Shop) -> None:
    first = shop.code("pay")
    assert isinstance((await shop.channel.pay(shop.account, first)).outcome, Succeeded)
    other = shop.order(PayMode.PAYMENT_CODE, auth_code=first.auth_code)
    answer = await shop.channel.pay(shop.account, other)
    assert isinstance(answer.outcome, Declined), answer


@pytest.mark.parametrize("fault", ["time_out_paid", "http_500_paid", "bad_signature_paid"])
async def test_a_charge_whose_answer_is_lost_is_found_by_asking(shop: Shop, fault: str) -> None:
    order = shop.code("pay")
    shop.fault("pay", fault, order.number)
    answer = await shop.channel.pay(shop.account, order)
    assert isinstance(answer.outcome, Unknown), answer
    asked = await shop.channel.query(shop.account, order)
    assert isinstance(asked.outcome, Succeeded)


@pytest.mark.parametrize("fault", ["time_out_unpaid", "http_500_unpaid", "http_429", "reset"])
async def test_a_charge_that_got_lost_is_unknown_too(shop: Shop, fault: str) -> None:
    order = shop.code("pay")
    shop.fault("pay", fault, order.number)
    assert isinstance((await shop.channel.pay(shop.account, order)).outcome, Unknown)
    asked = await shop.channel.query(shop.account, order)
    assert isinstance(asked.outcome, Absent), asked


@pytest.mark.parametrize("fault", ["http_500", "time_out", "bad_signature", "http_429"])
async def test_a_question_without_a_good_answer_decides_nothing(shop: Shop, fault: str) -> None:
    order = await shop.paid()
    shop.fault("query", fault, order.number)
    assert isinstance((await shop.channel.query(shop.account, order)).outcome, Unknown)
    assert isinstance((await shop.channel.query(shop.account, order)).outcome, Succeeded)


async def test_an_open_code_is_closed_for_good(shop: Shop) -> None:
    order = await shop.offer()
    await shop.scan(order, "abandon")
    closed = await shop.channel.close(shop.account, order)
    assert isinstance(closed.outcome, Closed), closed
    asked = await shop.channel.query(shop.account, order)
    assert isinstance(asked.outcome, Closed)
    again = await shop.channel.close(shop.account, order)
    assert isinstance(again.outcome, Closed), again


async def test_closing_a_paid_order_finds_the_payment(shop: Shop) -> None:
    order = await shop.paid()
    closed = await shop.channel.close(shop.account, order)
    assert isinstance(closed.outcome, Succeeded), closed
    racing = await shop.offer()
    await shop.scan(racing, "abandon")
    shop.fault("close", "paid_just_before", racing.number)
    closed = await shop.channel.close(shop.account, racing)
    assert isinstance(closed.outcome, Succeeded), closed


async def test_a_payment_code_is_reversed_whatever_happened(shop: Shop) -> None:
    waiting = shop.code("ask_forever")
    assert isinstance((await shop.channel.pay(shop.account, waiting)).outcome, Pending)
    assert isinstance((await shop.channel.close(shop.account, waiting)).outcome, Closed)
    paid = shop.code("pay")
    shop.fault("pay", "time_out_paid", paid.number)
    assert isinstance((await shop.channel.pay(shop.account, paid)).outcome, Unknown)
    assert isinstance((await shop.channel.close(shop.account, paid)).outcome, Closed)
    asked = await shop.channel.query(shop.account, paid)
    assert not isinstance(asked.outcome, Succeeded)  # the customer has the money back
    again = await shop.channel.close(shop.account, paid)
    assert isinstance(again.outcome, Closed), again


async def test_a_close_whose_answer_is_lost_is_unknown(shop: Shop) -> None:
    order = await shop.offer()
    await shop.scan(order, "abandon")
    shop.fault("close", "time_out_done", order.number)
    assert isinstance((await shop.channel.close(shop.account, order)).outcome, Unknown)
    assert isinstance((await shop.channel.query(shop.account, order)).outcome, Closed)


async def done(shop: Shop, refund: RefundOrder) -> Succeeded:
    """Wait, on the sandbox's clock, until the channel says that the refund is through."""
    await shop.advance(3)
    answer = await shop.channel.query_refund(shop.account, refund)
    assert isinstance(answer.outcome, Succeeded), answer
    return answer.outcome


async def test_money_goes_back_in_parts_and_never_twice(shop: Shop) -> None:
    order = await shop.paid()
    first, second = shop.refund(order, 500), shop.refund(order, 1499)
    absent = await shop.channel.query_refund(shop.account, first)
    assert isinstance(absent.outcome, Absent), absent
    answer = await shop.channel.refund(shop.account, first)
    assert isinstance(answer.outcome, Succeeded | Pending), answer
    repeat = await shop.channel.refund(shop.account, first)
    assert isinstance(repeat.outcome, Succeeded | Pending), repeat
    assert (await done(shop, first)).money == Money(500, "CNY")
    too_much = await shop.channel.refund(shop.account, shop.refund(order, 1500))
    assert isinstance(too_much.outcome, Declined), too_much
    await shop.advance(3)
    answer = await shop.channel.refund(shop.account, second)
    assert isinstance(answer.outcome, Succeeded | Pending), answer
    assert (await done(shop, second)).money == Money(1499, "CNY")
    refunds = shop.sandbox.get("refunds", channel=shop.name)
    given_back = [one["amount"] for one in refunds if one["trade_number"] == order.number]
    assert sorted(given_back) == [500, 1499]
    # The order itself was paid, and a query never says otherwise. (Alipay shows a trade that was
    # given back in full as one that was cancelled.)
    asked = await shop.channel.query(shop.account, order)
    assert isinstance(asked.outcome, Succeeded | Unknown), asked


async def test_a_refund_of_another_amount_under_a_used_number_is_unknown(shop: Shop) -> None:
    order = await shop.paid()
    refund = shop.refund(order, 500)
    await shop.channel.refund(shop.account, refund)
    await done(shop, refund)
    other = await shop.channel.refund(shop.account, shop.refund(order, 600, refund.number))
    assert not isinstance(other.outcome, Succeeded), other


async def test_a_merchant_without_money_is_told_so(shop: Shop) -> None:
    order = await shop.paid()
    refund = shop.refund(order, 500)
    shop.fault("refund", "not_enough", refund.number)
    answer = await shop.channel.refund(shop.account, refund)
    assert isinstance(answer.outcome, Declined), answer


@pytest.mark.parametrize("fault", ["time_out_done", "http_500_done", "bad_signature_done"])
async def test_a_refund_whose_answer_is_lost_is_found_by_asking(shop: Shop, fault: str) -> None:
    order = await shop.paid()
    refund = shop.refund(order, 500)
    shop.fault("refund", fault, refund.number)
    answer = await shop.channel.refund(shop.account, refund)
    assert isinstance(answer.outcome, Unknown), answer
    assert (await done(shop, refund)).money == Money(500, "CNY")


@pytest.mark.parametrize("fault", ["time_out_not_done", "http_500_not_done", "http_429"])
async def test_a_refund_that_got_lost_is_sent_again_with_its_number(shop: Shop, fault: str) -> None:
    order = await shop.paid()
    refund = shop.refund(order, 500)
    shop.fault("refund", fault, refund.number)
    assert isinstance((await shop.channel.refund(shop.account, refund)).outcome, Unknown)
    asked = await shop.channel.query_refund(shop.account, refund)
    assert isinstance(asked.outcome, Absent), asked
    again = await shop.channel.refund(shop.account, refund)
    assert isinstance(again.outcome, Succeeded | Pending), again
    await done(shop, refund)


async def test_a_stuck_refund_is_pending(shop: Shop) -> None:
    order = await shop.paid()
    refund = shop.refund(order, 500)
    shop.fault("refund", "processing", refund.number)
    answer = await shop.channel.refund(shop.account, refund)
    assert isinstance(answer.outcome, Pending | Unknown), answer
    asked = await shop.channel.query_refund(shop.account, refund)
    # Alipay answers about a refund at work as about one it never saw: absent is no proof.
    assert isinstance(asked.outcome, Pending if shop.name == "wechat" else Absent), asked


async def test_refund_news_never_looks_like_a_payment(shop: Shop) -> None:
    order = await shop.paid()
    await shop.settle()
    shop.wire.heard.clear()
    part, rest = shop.refund(order, 500), shop.refund(order, 1499)
    for refund in (part, rest):
        await shop.channel.refund(shop.account, refund)
        await done(shop, refund)
    await shop.settle()
    callbacks = shop.callbacks()
    assert {callback.kind for callback in callbacks if isinstance(callback, Callback)} == {
        CallbackKind.REFUND
    }
    numbers = [callback.number for callback in callbacks if isinstance(callback, Callback)]
    assert sorted(numbers) == sorted([part.number, rest.number])
    for callback in callbacks:
        assert isinstance(callback, Callback)
        assert isinstance(callback.outcome, Succeeded | Unknown)


@pytest.mark.parametrize("fault", ["forged", "doubled", "wrong_amount"])
async def test_callbacks_that_misbehave(shop: Shop, fault: str) -> None:
    order = await shop.offer()
    shop.fault("callback", fault, order.number)
    await shop.scan(order)
    await shop.advance(1)
    seen = shop.callbacks()
    good = [callback for callback in seen if isinstance(callback, Callback)]
    assert good
    if fault == "forged":
        assert "forged" in seen
    if fault == "doubled":
        assert len(good) == 2
        assert len({callback.notification_id for callback in good}) == 1
    if fault == "wrong_amount":  # rightly signed: it is read, and whoever compares sees it
        assert isinstance(good[0].outcome, Succeeded)
        assert good[0].outcome.money != PRICE


async def test_a_signature_probe_is_refused(
    sandbox: RunningSandbox, http: HttpClient, far_end: WireServer
) -> None:
    shop = Shop("wechat", sandbox, http, far_end)
    order = await shop.offer()
    shop.fault("callback", "signtest", order.number)
    await shop.scan(order)
    await shop.settle()
    assert sorted(type(one).__name__ for one in shop.callbacks()) == ["Callback", "str"]


async def test_certificates_are_fetched_when_a_reply_names_an_unknown_one(
    sandbox: RunningSandbox, http: HttpClient, far_end: WireServer
) -> None:
    shop = Shop("wechat", sandbox, http, far_end)
    shop.account = account_at("wechat", sandbox, far_end.url, platform_keys={})
    order = await shop.offer()
    await shop.scan(order)
    await shop.settle()
    assert isinstance(shop.callbacks()[0], Callback)
    assert isinstance((await shop.channel.query(shop.account, order)).outcome, Succeeded)


async def test_public_key_mode(
    sandbox: RunningSandbox, http: HttpClient, far_end: WireServer
) -> None:
    given = sandbox.credentials["wechat"]
    shop = Shop("wechat", sandbox, http, far_end)
    key_id = given["public_key_id"]
    keys = {key_id: given["public_key_pem"]}
    shop.account = account_at(
        "wechat", sandbox, far_end.url, platform_keys=keys, public_key_id=key_id
    )
    sandbox.post("settings", **{"wechat.callback_serial": key_id})
    try:
        order = await shop.paid()
        await shop.settle()
    finally:
        sandbox.post("settings", **{"wechat.callback_serial": ""})
    assert isinstance(shop.callbacks()[0], Callback)
    assert isinstance((await shop.channel.query(shop.account, order)).outcome, Succeeded)


async def one_day(shop: Shop) -> list[tuple[BillKind, str, int]]:
    """Trade for a day and return what the bill should say of it."""
    expected = []
    for fen in (1, 1999, 100_000):
        order = shop.order(PayMode.QR, money=Money(fen, "CNY"))
        await shop.channel.pay(shop.account, order)
        await shop.scan(order)
        expected.append((BillKind.PAYMENT, order.number, fen))
        if fen > 1:
            refund = shop.refund(order, fen // 2)
            answer = await shop.channel.refund(shop.account, refund)
            assert isinstance(answer.outcome, Succeeded | Pending), answer
            await done(shop, refund)
            expected.append((BillKind.REFUND, refund.number, fen // 2))
    code = shop.code("pay")
    assert isinstance((await shop.channel.pay(shop.account, code)).outcome, Succeeded)
    expected.append((BillKind.PAYMENT, code.number, 1999))
    return expected


@pytest.mark.parametrize("name", ["wechat", "alipay"])
async def test_the_days_bill_says_what_happened(
    name: str,
    fresh_sandbox: RunningSandbox,
    http: HttpClient,
    far_end: WireServer,
    tmp_path: Path,
) -> None:
    shop = Shop(name, fresh_sandbox, http, far_end)
    now = datetime.fromisoformat(fresh_sandbox.get("clock")["now"])
    await shop.advance(86_400 - (now.timestamp() + 8 * 3600) % 86_400 + 3600)  # 01:00 in China
    day = business_date(datetime.fromisoformat(fresh_sandbox.get("clock")["now"]))
    expected = await one_day(shop)
    early = await shop.channel.download_bill(shop.account, day, tmp_path)
    assert not isinstance(early.outcome, BillFile), early
    await shop.advance(36 * 3600)
    fresh_sandbox.post("bill/faults", channel=name, fault="late")
    late = await shop.channel.download_bill(shop.account, day, tmp_path)
    assert isinstance(late.outcome, BillNotReady), late
    fresh_sandbox.post("bill/faults", channel=name, fault="truncate")
    cut = await shop.channel.download_bill(shop.account, day, tmp_path)
    if name == "wechat":  # the digest shows it
        assert isinstance(cut.outcome, Unknown), cut
        assert list(tmp_path.iterdir()) == []  # nothing half is left behind
    else:  # Alipay gives no digest, but its trailer is missing
        assert isinstance(cut.outcome, BillFile), cut
        *_, last = shop.channel.parse_bill(cut.outcome.path)
        assert isinstance(last, BillFault)
        assert last.code == "bill.truncated"
    found = await shop.channel.download_bill(shop.account, day, tmp_path)
    assert isinstance(found.outcome, BillFile), found
    assert [found.outcome.path] == list(tmp_path.iterdir())
    lines = list(shop.channel.parse_bill(found.outcome.path))
    rows, total = [line for line in lines if isinstance(line, BillRow)], lines[-1]
    assert len(rows) == len(lines) - 1
    assert sorted((row.kind, row.number, row.money.amount) for row in rows) == sorted(expected)
    assert all(business_date(row.at) == day for row in rows)
    assert isinstance(total, BillTotal)
    payments = [row for row in rows if row.kind is BillKind.PAYMENT]
    refunds = [row for row in rows if row.kind is BillKind.REFUND]
    assert total.row_count == len(rows)
    assert total.payment_count in {None, len(payments)}
    assert total.payment_amount.amount == sum(row.money.amount for row in payments)
    assert total.refund_amount.amount == sum(row.money.amount for row in refunds)
    if total.fee_amount is not None:
        assert total.fee_amount.amount == sum(row.fee.amount for row in rows)
    assert {row.fee.amount for row in payments} == {0, 12, 600}
    assert all(row.fee.amount <= 0 for row in refunds)
