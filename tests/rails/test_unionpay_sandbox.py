"""UnionPay's adapter against the simulated UnionPay, which signs with code of its own."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from tests.rails.wire_server import WireServer, http_reply
from tongbao.infra.http import HttpClient
from tongbao.kernel.clock import business_date, real_now
from tongbao.kernel.ids import base32, new_id
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.rails.channels.capabilities.authorisations import Capture, Voiding
from tongbao.rails.channels.contract.bills import (
    BillFault,
    BillFile,
    BillKind,
    BillNotReady,
    BillRow,
    BillTotal,
)
from tongbao.rails.channels.contract.callbacks import Callback, CallbackForged, CallbackKind
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode, PayOrder, RefundOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Authorised,
    Closed,
    Declined,
    NotSent,
    OpenApp,
    Pending,
    ShowQr,
    SubmitForm,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.exchange import TimeLimits
from tongbao.rails.channels.unionpay.bills import Difference, parse_differences
from tongbao.rails.channels.unionpay.client import UnionPay
from tongbao.rails.channels.unionpay.secrets import UnionPaySecrets
from tongbao_sandbox.launch import RunningSandbox

LIMITS = TimeLimits(ask_s=0.8, bill_s=10.0)
PRICE = Money(1999, "CNY")
FRONT = (PayMode.WEB, PayMode.H5)


class Shop:
    """A merchant at the simulated UnionPay: account, adapter, and where callbacks come."""

    def __init__(
        self, sandbox: RunningSandbox, http: HttpClient, far_end: WireServer, method: str = "01"
    ) -> None:
        self.sandbox = sandbox
        self.wire = far_end
        self.channel = UnionPay(http, limits=LIMITS, clock=self.now)
        self.account = account_at(sandbox, far_end.url, method)
        far_end.react = lambda _: http_reply(200, {}, b"success")

    def now(self) -> datetime:
        return datetime.fromisoformat(self.sandbox.get("clock")["now"])

    def order(self, mode: PayMode, **changes: Any) -> PayOrder:
        fields: dict[str, Any] = {
            "number": base32(new_id()),
            "mode": mode,
            "money": PRICE,
            "subject": "一杯咖啡 & 1 muffin",
            "expires_at": self.now() + timedelta(minutes=30),
            "return_url": "https://shop.example/back",
        }
        return PayOrder(**{**fields, **changes})

    def code(self, behaviour: str, **more: Any) -> PayOrder:
        made = self.sandbox.post(
            "customer/payment-code", channel="unionpay", behaviour=behaviour, **more
        )
        return self.order(PayMode.PAYMENT_CODE, auth_code=made["auth_code"])

    def fault(self, on: str, fault: str, number: str) -> None:
        self.sandbox.fault("unionpay", on, fault, number=number)

    async def tell(self, path: str, **body: Any) -> Any:
        return await asyncio.to_thread(lambda: self.sandbox.post(path, **body))

    async def customer(self, order: PayOrder, action: str = "pay") -> None:
        await self.tell("customer/scan", channel="unionpay", number=order.number, action=action)

    async def paid(self, **changes: Any) -> tuple[PayOrder, str]:
        order = self.order(PayMode.QR, **changes)
        await self.channel.pay(self.account, order)
        await self.customer(order)
        found = await self.channel.query(self.account, order)
        assert isinstance(found.outcome, Succeeded), found
        return order, found.outcome.channel_ref

    async def settle(self) -> None:
        await asyncio.to_thread(self.sandbox.settle)

    async def advance(self, seconds: float) -> None:
        await asyncio.to_thread(self.sandbox.advance, seconds)

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


def account_at(sandbox: RunningSandbox, notify_url: str, method: str = "01") -> ChannelAccount:
    shown = sandbox.credentials["unionpay"]
    pems = (
        *("merchant_private_key_pem", "merchant_certificate_pem"),
        *("root_certificate_pem", "middle_certificate_pem"),
    )
    keys = {name: shown[name] for name in pems}
    if method != "01":
        keys = {"sign_method": method, "secure_key": shown["secure_key"]}
    return ChannelAccount(
        id=new_id(),
        channel="unionpay",
        mode=Mode.SANDBOX,
        gateway=f"{sandbox.url}/unionpay",
        merchant_number=shown["mer_id"],
        app_id="000201",
        notify_url=notify_url,
        fee_ppm=6000,
        secrets=UnionPaySecrets(**keys),  # type: ignore[arg-type]
    )


@pytest.fixture
def shop(sandbox: RunningSandbox, http: HttpClient, far_end: WireServer) -> Shop:
    return Shop(sandbox, http, far_end)


def refund_of(order: PayOrder, **changes: Any) -> RefundOrder:
    fields: dict[str, Any] = {
        "number": base32(new_id()),
        "order_number": order.number,
        "money": Money(500, "CNY"),
        "order_money": order.money,
    }
    return RefundOrder(**{**fields, **changes})


# --- paying


@pytest.mark.parametrize("method", ["01", "11", "12"])
async def test_a_code_is_shown_scanned_and_paid(
    method: str, sandbox: RunningSandbox, http: HttpClient, far_end: WireServer
) -> None:
    shop = Shop(sandbox, http, far_end, method)
    order = shop.order(PayMode.QR)
    offered = await shop.channel.pay(shop.account, order)
    assert isinstance(offered.outcome, Pending), offered
    assert isinstance(offered.outcome.action, ShowQr)
    assert (await shop.channel.query(shop.account, order)).outcome == Absent("34")
    await shop.tell("customer/scan", code_url=offered.outcome.action.code_url)
    found = (await shop.channel.query(shop.account, order)).outcome
    assert isinstance(found, Succeeded)
    assert found.money == PRICE
    assert abs(found.at - shop.now()) < timedelta(minutes=1)
    await shop.settle()
    [callback] = shop.callbacks()
    assert isinstance(callback, Callback)
    assert callback.outcome == found
    assert (callback.number, callback.kind) == (order.number, CallbackKind.PAYMENT)
    assert callback.merchant_number == shop.account.merchant_number
    assert callback.app_id == shop.account.app_id
    assert (await shop.channel.close(shop.account, order)).outcome == found


@pytest.mark.parametrize("mode", FRONT)
@pytest.mark.parametrize("product", ["000201", "000202"])
async def test_a_browser_posts_the_form_and_the_customer_pays(
    mode: PayMode, product: str, shop: Shop
) -> None:
    account = ChannelAccount(
        **{name: getattr(shop.account, name) for name in shop.account.__struct_fields__}
        | {"app_id": product}
    )
    order = shop.order(mode)
    offered = (await shop.channel.pay(account, order)).outcome
    assert isinstance(offered, Pending)
    assert isinstance(offered.action, SubmitForm)
    fields = dict(offered.action.fields)
    assert offered.action.url == f"{account.gateway}/gateway/api/frontTransReq.do"
    assert fields["bizType"] == product
    assert fields["channelType"] == ("07" if mode is PayMode.WEB else "08")
    assert (await shop.channel.query(account, order)).outcome == Absent("34")
    seen = await shop.tell("unionpay/visit", fields=fields, action="decline")
    assert seen["state"] == "waiting"
    assert (await shop.channel.query(account, order)).outcome == Pending(reason="64")
    seen = await shop.tell("unionpay/visit", fields=fields, action="pay")
    assert seen["carried"]["orderId"] == order.number
    assert isinstance((await shop.channel.query(account, order)).outcome, Succeeded)
    await shop.settle()
    [callback] = shop.callbacks()
    assert isinstance(callback, Callback)
    assert callback.app_id == shop.account.app_id
    with pytest.raises(ValueError, match="400"):
        await shop.tell("unionpay/visit", fields={**fields, "txnAmt": "1"}, action="pay")


async def test_an_app_order_is_paid_in_unionpays_app(shop: Shop) -> None:
    order = shop.order(PayMode.APP)
    offered = (await shop.channel.pay(shop.account, order)).outcome
    assert isinstance(offered, Pending)
    assert isinstance(offered.action, OpenApp)
    assert offered.action.parameters["tn"].isdigit()
    await shop.tell("customer/scan", code_url=offered.action.parameters["tn"])
    assert isinstance((await shop.channel.query(shop.account, order)).outcome, Succeeded)


def collecting_dues(shop: Shop, **keys: str) -> ChannelAccount:
    known = structs.asdict(shop.account.secrets)
    given = {"business_code": "D1_3300_0000", "terminal": "eyJ0ZXJtaW5hbCI6IjEifQ==", **keys}
    return structs.replace(
        shop.account, app_id="000601", secrets=UnionPaySecrets(**{**known, **given})
    )


async def test_dues_are_paid_by_a_code_given_back_and_in_the_days_file(
    fresh_sandbox: RunningSandbox, http: HttpClient, far_end: WireServer, tmp_path: Path
) -> None:
    shop = Shop(fresh_sandbox, http, far_end)
    shop.account = collecting_dues(shop)
    order = shop.order(PayMode.QR)
    offered = (await shop.channel.pay(shop.account, order)).outcome
    assert isinstance(offered, Pending)
    assert isinstance(offered.action, ShowQr)
    [asked] = await asyncio.to_thread(shop.sandbox.get, "trades", channel="unionpay")
    assert asked["extra"]["asked"].items() >= {
        *(("txnType", "13"), ("txnSubType", "08"), ("bizType", "000601")),
        *(("bussCode", "D1_3300_0000"), ("termInfo", "eyJ0ZXJtaW5hbCI6IjEifQ==")),
    }
    await shop.customer(order)
    found = (await shop.channel.query(shop.account, order)).outcome
    assert isinstance(found, Succeeded)
    await shop.settle()
    [callback] = shop.callbacks()
    assert isinstance(callback, Callback)
    assert (callback.kind, callback.outcome) == (CallbackKind.PAYMENT, found)
    assert callback.app_id == shop.account.app_id
    refund = refund_of(order, order_ref=found.channel_ref, order_mode=PayMode.QR)
    assert (await shop.channel.refund(shop.account, refund)).outcome == Pending(reason="accepted")
    await shop.advance(2)
    assert isinstance((await shop.channel.query_refund(shop.account, refund)).outcome, Succeeded)
    day = business_date(shop.now())
    await shop.advance(86_400 + 12 * 3600)
    bill = (await shop.channel.download_bill(shop.account, day, tmp_path)).outcome
    assert isinstance(bill, BillFile)
    rows = [row for row in shop.channel.parse_bill(bill.path) if isinstance(row, BillRow)]
    assert [(row.kind, row.number, row.money.amount, row.fee.amount) for row in rows] == [
        (BillKind.PAYMENT, order.number, 1999, 12),
        (BillKind.REFUND, refund.number, 500, -3),
    ]


@pytest.mark.parametrize("mode", [*FRONT, PayMode.APP, PayMode.PAYMENT_CODE])
async def test_dues_are_collected_by_no_other_way(mode: PayMode, shop: Shop) -> None:
    account = collecting_dues(shop)
    order = shop.order(mode, auth_code="6200000000000000000")
    assert (await shop.channel.pay(account, order)).outcome == NotSent(f"no {mode} here")
    held = await shop.channel.authorise(account, shop.order(PayMode.QR, captures=False))
    assert held.outcome == NotSent("no qr here")


@pytest.mark.parametrize("missing", ["business_code", "terminal"])
async def test_dues_of_no_biller_are_not_sent(missing: str, shop: Shop) -> None:
    account = collecting_dues(shop, **{missing: ""})
    order = shop.order(PayMode.QR)
    outcome = (await shop.channel.pay(account, order)).outcome
    assert isinstance(outcome, NotSent)
    assert outcome.reason.startswith("13")


async def test_an_order_ends_with_its_time_and_no_sooner(shop: Shop) -> None:
    order = shop.order(PayMode.QR)
    await shop.channel.pay(shop.account, order)
    assert isinstance((await shop.channel.close(shop.account, order)).outcome, Unknown)
    await shop.customer(order, "decline")
    assert (await shop.channel.query(shop.account, order)).outcome == Pending(reason="64")
    await shop.advance(31 * 60 + 1)
    assert (await shop.channel.query(shop.account, order)).outcome == Declined(
        "64", "卡上的余额不足[1000064]", retry_elsewhere=True
    )
    assert (await shop.channel.close(shop.account, order)).outcome == Closed("64")
    never = shop.order(PayMode.QR, expires_at=shop.now() + timedelta(minutes=1))
    await shop.channel.pay(shop.account, never)
    await shop.advance(121)
    assert (await shop.channel.query(shop.account, never)).outcome == Closed("34")
    assert (await shop.channel.close(shop.account, never)).outcome == Closed("34")


async def test_the_same_order_twice_is_one(shop: Shop) -> None:
    order = shop.order(PayMode.QR)
    first = await shop.channel.pay(shop.account, order)
    again = await shop.channel.pay(shop.account, order)
    assert first.outcome == again.outcome
    await shop.customer(order)
    paid = await shop.channel.query(shop.account, order)
    assert isinstance(paid.outcome, Succeeded)
    assert (await shop.channel.pay(shop.account, order)).outcome == paid.outcome


async def test_a_payment_code_is_charged(shop: Shop) -> None:
    order = shop.code("pay")
    answer = await shop.channel.pay(shop.account, order)
    assert answer.outcome == Pending(reason="accepted")
    assert order.auth_code not in repr(answer)
    assert isinstance((await shop.channel.query(shop.account, order)).outcome, Succeeded)
    broke = shop.code("decline")
    assert (await shop.channel.pay(shop.account, broke)).outcome == Declined(
        "64", "卡上的余额不足[1000064]", retry_elsewhere=True
    )
    assert isinstance((await shop.channel.query(shop.account, broke)).outcome, Declined)
    used = shop.order(PayMode.PAYMENT_CODE, auth_code=order.auth_code)
    refused = (await shop.channel.pay(shop.account, used)).outcome
    assert isinstance(refused, Declined)
    assert refused.code == "86"


async def test_a_customer_is_asked_for_a_password(shop: Shop) -> None:
    order = shop.code("ask_then_pay", after_s=5)
    await shop.channel.pay(shop.account, order)
    assert (await shop.channel.query(shop.account, order)).outcome == Pending(reason="05")
    assert isinstance((await shop.channel.close(shop.account, order)).outcome, Unknown)
    await shop.advance(6)
    assert isinstance((await shop.channel.query(shop.account, order)).outcome, Succeeded)
    gone = shop.code("cancel", after_s=5)
    await shop.channel.pay(shop.account, gone)
    await shop.advance(6)
    assert isinstance((await shop.channel.query(shop.account, gone)).outcome, Declined)
    assert isinstance((await shop.channel.close(shop.account, gone)).outcome, Closed)


async def test_what_a_code_paid_is_cancelled_on_its_day(shop: Shop) -> None:
    order = shop.code("pay")
    await shop.channel.pay(shop.account, order)
    assert (await shop.channel.close(shop.account, order)).outcome == Closed("cancelled")
    # The payment as such succeeded, and yet nobody may take it for paid.
    assert (await shop.channel.query(shop.account, order)).outcome == Closed("cancelled")
    assert (await shop.channel.close(shop.account, order)).outcome == Closed("cancelled")
    await shop.settle()
    first, second = shop.callbacks()
    assert isinstance(first, Callback)
    assert isinstance(second, Callback)
    assert isinstance(first.outcome, Succeeded)
    assert second.number == order.number
    assert isinstance(second.outcome, Unknown)


async def test_what_a_code_paid_yesterday_stays_paid(shop: Shop) -> None:
    order = shop.code("pay")
    await shop.channel.pay(shop.account, order)
    await shop.advance(86_400)
    assert isinstance((await shop.channel.close(shop.account, order)).outcome, Succeeded)
    assert isinstance((await shop.channel.query(shop.account, order)).outcome, Succeeded)


@pytest.mark.parametrize(
    ("fault", "end"),
    [
        ("time_out_paid", Succeeded),
        ("http_500_paid", Succeeded),
        ("bad_signature_paid", Succeeded),
        ("time_out_unpaid", Absent),
        ("http_500_unpaid", Absent),
        ("http_429", Absent),
        ("reset", Absent),
        ("code:03", Absent),
        ("code:60", Absent),
    ],
)
async def test_no_trusted_answer_is_unknown_and_the_query_tells(
    fault: str, end: type, shop: Shop
) -> None:
    order = shop.code("pay")
    shop.fault("pay", fault, order.number)
    assert isinstance((await shop.channel.pay(shop.account, order)).outcome, Unknown)
    assert isinstance((await shop.channel.query(shop.account, order)).outcome, end)


async def test_a_payment_in_processing_for_hours_is_pending(shop: Shop) -> None:
    order = shop.code("pay")
    shop.fault("pay", "processing", order.number)
    await shop.channel.pay(shop.account, order)
    for _ in range(3):
        await shop.advance(3600)
        assert (await shop.channel.query(shop.account, order)).outcome == Pending(reason="05")
        assert isinstance((await shop.channel.close(shop.account, order)).outcome, Unknown)
    await shop.tell("unionpay/decide", number=order.number, state="done")
    assert isinstance((await shop.channel.query(shop.account, order)).outcome, Succeeded)


@pytest.mark.parametrize("fault", ["http_500", "time_out", "http_429", "bad_signature", "stale"])
async def test_a_query_that_fails_decides_nothing(fault: str, shop: Shop) -> None:
    order, ref = await shop.paid()
    shop.fault("query", fault, order.number)
    assert isinstance((await shop.channel.query(shop.account, order)).outcome, Unknown | Absent)
    found = (await shop.channel.query(shop.account, order)).outcome
    assert isinstance(found, Succeeded)
    assert found.channel_ref == ref


async def test_an_order_of_another_amount_or_merchant_is_not_ours(shop: Shop) -> None:
    order, _ = await shop.paid()
    other = PayOrder(
        **{name: getattr(order, name) for name in order.__struct_fields__}
        | {"money": Money(1998, "CNY")}
    )
    answer = (await shop.channel.query(shop.account, other)).outcome
    assert answer == Unknown("contradiction: txnAmt is 1999, asked for 1998")


# --- certificates


async def test_a_new_certificate_of_unionpays_is_believed_at_once(shop: Shop) -> None:
    order, _ = await shop.paid()
    await shop.tell("unionpay/rotate")
    assert isinstance((await shop.channel.query(shop.account, order)).outcome, Succeeded)
    another = shop.order(PayMode.QR)
    await shop.channel.pay(shop.account, another)
    await shop.tell("unionpay/rotate")
    await shop.customer(another)
    await shop.settle()
    assert all(isinstance(callback, Callback) for callback in shop.callbacks())


# --- callbacks


async def test_what_callbacks_go_through(shop: Shop) -> None:
    for fault, expected in (
        ("doubled", ["Succeeded", "Succeeded"]),
        ("forged", ["forged", "Succeeded"]),
        ("lost:1", ["Succeeded"]),
        ("late:30", ["Succeeded"]),
        ("reordered", ["Succeeded"]),
    ):
        shop.wire.heard.clear()
        order = shop.order(PayMode.QR)
        await shop.channel.pay(shop.account, order)
        shop.fault("callback", fault, order.number)
        await shop.customer(order)
        await shop.settle()
        await shop.advance(61)
        seen = [
            callback if isinstance(callback, str) else type(callback.outcome).__name__
            for callback in shop.callbacks()
        ]
        assert sorted(seen) == sorted(expected), fault
        ids = {c.notification_id for c in shop.callbacks() if isinstance(c, Callback)}
        assert len(ids) == 1


async def test_a_wrong_amount_is_read_as_it_is(shop: Shop) -> None:
    order = shop.order(PayMode.QR)
    await shop.channel.pay(shop.account, order)
    shop.fault("callback", "wrong_amount", order.number)
    await shop.customer(order)
    await shop.settle()
    [callback] = shop.callbacks()
    assert isinstance(callback, Callback)
    assert isinstance(callback.outcome, Succeeded)
    assert callback.outcome.money == Money(2000, "CNY")


async def test_unionpay_stops_after_five_sends(shop: Shop) -> None:
    order = shop.order(PayMode.QR)
    await shop.channel.pay(shop.account, order)
    refused = shop.channel.reply_to_callback(accepted=False)
    shop.wire.react = lambda _: http_reply(refused.status, dict(refused.headers), refused.body)
    await shop.customer(order)
    await shop.settle()
    for gap in (60, 120, 240, 300, 3600):
        await shop.advance(gap + 1)
    assert len(shop.wire.heard) == 5


# --- refunds


async def test_a_refund_is_accepted_then_through(shop: Shop) -> None:
    order, ref = await shop.paid()
    refund = refund_of(order, order_ref=ref)
    assert (await shop.channel.query_refund(shop.account, refund)).outcome == Absent("34")
    asked = await shop.channel.refund(shop.account, refund)
    assert asked.outcome == Pending(reason="accepted")
    assert (await shop.channel.query_refund(shop.account, refund)).outcome == Pending(reason="05")
    assert isinstance((await shop.channel.refund(shop.account, refund)).outcome, Unknown)
    await shop.advance(2)
    found = (await shop.channel.query_refund(shop.account, refund)).outcome
    assert isinstance(found, Succeeded)
    assert found.money == refund.money
    *_, callback = shop.callbacks()
    assert isinstance(callback, Callback)
    assert (callback.kind, callback.number) == (CallbackKind.REFUND, refund.number)
    assert callback.outcome == found


async def test_a_refund_finds_its_payment_when_its_number_is_not_known(shop: Shop) -> None:
    order, _ = await shop.paid()
    refund = refund_of(order)
    answer = await shop.channel.refund(shop.account, refund)
    assert answer.outcome == Pending(reason="accepted")
    assert refund.number in answer.exchange.reply
    never = shop.order(PayMode.QR)
    nothing = await shop.channel.refund(shop.account, refund_of(never))
    assert nothing.outcome.__class__.__name__ == "NotSent"


async def test_more_than_was_paid_is_not_given_back(shop: Shop) -> None:
    order, ref = await shop.paid()
    for amount, outcome in ((1500, Pending), (500, Declined), (499, Pending), (1, Declined)):
        refund = refund_of(order, money=Money(amount, "CNY"), order_ref=ref)
        answer = await shop.channel.refund(shop.account, refund)
        assert isinstance(answer.outcome, outcome), amount


@pytest.mark.parametrize(
    ("fault", "end"),
    [
        ("time_out_done", Succeeded),
        ("http_500_done", Succeeded),
        ("bad_signature_done", Succeeded),
        ("time_out_not_done", Absent),
        ("http_500_not_done", Absent),
        ("http_429", Absent),
        ("processing", Pending),
        ("abnormal", Declined),
        ("not_enough", Declined),
    ],
)
async def test_a_refund_in_trouble_is_asked_about(fault: str, end: type, shop: Shop) -> None:
    order, ref = await shop.paid()
    refund = refund_of(order, order_ref=ref)
    shop.fault("refund", fault, refund.number)
    answer = await shop.channel.refund(shop.account, refund)
    assert isinstance(answer.outcome, Unknown | Pending)
    await shop.advance(2)
    assert isinstance((await shop.channel.query_refund(shop.account, refund)).outcome, end)


# --- authorisations


async def authorised(shop: Shop, mode: PayMode = PayMode.QR) -> tuple[PayOrder, Authorised]:
    code = shop.code("pay").auth_code if mode is PayMode.PAYMENT_CODE else None
    order = shop.order(mode, captures=False, auth_code=code)
    offered = (await shop.channel.authorise(shop.account, order)).outcome
    assert isinstance(offered, Pending)
    if isinstance(offered.action, SubmitForm):
        await shop.tell("unionpay/visit", fields=dict(offered.action.fields))
    elif code is None:
        await shop.customer(order)
    found = (await shop.channel.query_authorisation(shop.account, order)).outcome
    assert isinstance(found, Authorised)
    return order, found


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *((PayMode.QR, ("02", "05")), (PayMode.PAYMENT_CODE, ("02", "04"))),
        *((PayMode.WEB, ("02", "01")), (PayMode.H5, ("02", "01")), (PayMode.APP, ("02", "01"))),
    ],
)
async def test_money_is_set_aside_and_taken_later(
    mode: PayMode, kind: tuple[str, str], shop: Shop
) -> None:
    order, held = await authorised(shop, mode)
    known = await asyncio.to_thread(shop.sandbox.get, "trades", channel="unionpay")
    [asked] = [each["extra"]["asked"] for each in known if each["number"] == order.number]
    assert (asked["txnType"], asked["txnSubType"]) == kind
    assert held.money == PRICE
    # What is only set aside is no payment.
    assert isinstance((await shop.channel.query(shop.account, order)).outcome, Unknown)
    await shop.settle()
    [callback] = shop.callbacks()
    assert isinstance(callback, Callback)
    assert callback.outcome == held
    taken = Capture(base32(new_id()), order, held.channel_ref, None, Money(1500, "CNY"))
    assert isinstance((await shop.channel.query_capture(shop.account, taken)).outcome, Absent)
    assert isinstance((await shop.channel.capture(shop.account, taken)).outcome, Pending)
    assert isinstance((await shop.channel.capture(shop.account, taken)).outcome, Unknown)
    found = (await shop.channel.query_capture(shop.account, taken)).outcome
    assert isinstance(found, Succeeded)
    assert found.money == taken.money
    twice = Capture(base32(new_id()), order, held.channel_ref, None, Money(1, "CNY"))
    assert isinstance((await shop.channel.capture(shop.account, twice)).outcome, Declined)
    refund = refund_of(
        order, order_number=taken.number, order_money=taken.money, order_ref=found.channel_ref
    )
    assert isinstance((await shop.channel.refund(shop.account, refund)).outcome, Pending)


async def test_money_set_aside_is_let_go(shop: Shop) -> None:
    order, held = await authorised(shop)
    voiding = Voiding(base32(new_id()), order, held.channel_ref, None, PRICE)
    assert isinstance((await shop.channel.void(shop.account, voiding)).outcome, Pending)
    assert (await shop.channel.void(shop.account, voiding)).outcome == Closed()
    taken = Capture(base32(new_id()), order, held.channel_ref, None, PRICE)
    assert isinstance((await shop.channel.capture(shop.account, taken)).outcome, Declined)


async def test_what_was_captured_is_not_let_go(shop: Shop) -> None:
    order, held = await authorised(shop)
    taken = Capture(base32(new_id()), order, held.channel_ref, None, PRICE)
    await shop.channel.capture(shop.account, taken)
    found = (await shop.channel.query_capture(shop.account, taken)).outcome
    assert isinstance(found, Succeeded)
    void = Voiding(base32(new_id()), order, held.channel_ref, None, PRICE)
    assert isinstance((await shop.channel.void(shop.account, void)).outcome, Declined)


async def test_a_void_in_trouble_is_asked_about(shop: Shop) -> None:
    order, held = await authorised(shop)
    voiding = Voiding(base32(new_id()), order, held.channel_ref, None, PRICE)
    shop.fault("close", "time_out_done", voiding.number)
    assert isinstance((await shop.channel.void(shop.account, voiding)).outcome, Unknown)
    assert (await shop.channel.void(shop.account, voiding)).outcome == Closed()


# --- a completion undone


class Taken:
    """A capture of 15.00 of what was set aside, and refunds of all of it."""

    def __init__(self, shop: Shop, order: PayOrder, held: Authorised, capture: Capture) -> None:
        self.shop, self.order, self.held, self.capture = shop, order, held, capture
        self.ref, self.at = "", shop.now()

    def refund(self, **changes: Any) -> RefundOrder:
        asked: dict[str, Any] = {"order_number": self.capture.number}
        asked |= {"order_money": self.capture.money}
        asked |= {"order_ref": self.ref, "money": self.capture.money}
        asked |= {"authorised": self.held, "captured_at": self.at}
        return refund_of(self.order, **{**asked, "order_mode": self.order.mode, **changes})

    async def kinds(self, refund: RefundOrder) -> list[str]:
        """The transactions there are about the refund."""
        book = self.shop.sandbox.get("trades", channel="unionpay")
        refunds = self.shop.sandbox.get("refunds", channel="unionpay")
        numbers = {each["number"] for each in (*book, *refunds)}
        names = {"u": "undone", "v": "let go", "": "refunded"}
        return [names[end] for end in ("u", "v", "") if refund.number + end in numbers]


async def taken_from(shop: Shop) -> Taken:
    order, held = await authorised(shop)
    capture = Capture(base32(new_id()), order, held.channel_ref, None, Money(1500, "CNY"))
    await shop.channel.capture(shop.account, capture)
    found = (await shop.channel.query_capture(shop.account, capture)).outcome
    assert isinstance(found, Succeeded)
    taken = Taken(shop, order, held, capture)
    taken.ref, taken.at = found.channel_ref, found.at
    return taken


async def test_a_capture_is_undone_on_its_day_and_its_authorisation_let_go(
    shop: Shop, tmp_path: Path
) -> None:
    taken = await taken_from(shop)
    refund = taken.refund()
    assert isinstance((await shop.channel.query_refund(shop.account, refund)).outcome, Absent)
    first = (await shop.channel.refund(shop.account, refund)).outcome
    assert isinstance(first, Succeeded)
    assert first.money == taken.capture.money
    assert (await shop.channel.refund(shop.account, refund)).outcome == first, "safe to repeat"
    assert (await shop.channel.query_refund(shop.account, refund)).outcome == first
    assert await taken.kinds(refund) == ["undone", "let go"]
    await shop.settle()
    told = {
        each.kind
        for each in shop.callbacks()
        if isinstance(each, Callback) and each.number == refund.number
    }
    assert told == {CallbackKind.REFUND}
    again = Capture(base32(new_id()), taken.order, taken.held.channel_ref, None, PRICE)
    assert isinstance((await shop.channel.capture(shop.account, again)).outcome, Declined)
    day = business_date(first.at)
    await shop.advance(86_400 + 12 * 3600)
    bill = (await shop.channel.download_bill(shop.account, day, tmp_path)).outcome
    assert isinstance(bill, BillFile)
    rows = [row for row in shop.channel.parse_bill(bill.path) if isinstance(row, BillRow)]
    [back] = [row for row in rows if row.order_number == taken.capture.number != row.number]
    assert (back.kind, back.number, back.state) == (BillKind.REFUND, refund.number, "33")


async def test_a_day_later_or_in_part_it_is_a_refund(shop: Shop) -> None:
    taken = await taken_from(shop)
    part = taken.refund(money=Money(500, "CNY"), authorised=None)
    assert isinstance((await shop.channel.refund(shop.account, part)).outcome, Pending)
    assert await taken.kinds(part) == ["refunded"]
    other = await taken_from(shop)
    await shop.advance(86_400)
    late = other.refund()
    assert isinstance((await shop.channel.refund(shop.account, late)).outcome, Pending)
    await shop.advance(2)
    found = (await shop.channel.query_refund(shop.account, late)).outcome
    assert isinstance(found, Succeeded)
    assert await other.kinds(late) == ["refunded"]


async def test_what_cannot_be_undone_is_refunded_only_after_proof(shop: Shop) -> None:
    taken = await taken_from(shop)
    refused = taken.refund()
    shop.fault("close", "code:35", refused.number + "u")
    assert isinstance((await shop.channel.refund(shop.account, refused)).outcome, Pending)
    assert await taken.kinds(refused) == ["refunded"]


@pytest.mark.parametrize(
    ("suffix", "fault"),
    [("u", "time_out_done"), ("u", "time_out_not_done"), ("v", "time_out_not_done"),
     ("v", "time_out_done"), ("u", "bad_signature_done")],
)  # fmt: skip
async def test_silence_at_either_step_is_unknown_and_carried_on(
    suffix: str, fault: str, shop: Shop
) -> None:
    taken = await taken_from(shop)
    refund = taken.refund()
    shop.fault("close", fault, refund.number + suffix)
    first = (await shop.channel.refund(shop.account, refund)).outcome
    is_seen = (suffix, fault) in {("v", "time_out_done"), ("u", "bad_signature_done")}  # by asking
    assert isinstance(first, Succeeded if is_seen else Unknown)
    found: Any = (await shop.channel.query_refund(shop.account, refund)).outcome
    if fault == "time_out_not_done" and suffix == "u":
        assert isinstance(found, Absent)
        found = (await shop.channel.refund(shop.account, refund)).outcome
    assert isinstance(found, Succeeded)
    assert await taken.kinds(refund) == ["undone", "let go"], "and never a refund beside it"


async def test_an_undoing_begun_before_midnight_is_carried_on_after_it(shop: Shop) -> None:
    taken = await taken_from(shop)
    refund = taken.refund()
    shop.fault("close", "time_out_not_done", refund.number + "v")
    assert isinstance((await shop.channel.refund(shop.account, refund)).outcome, Unknown)
    await shop.advance(86_400)
    assert isinstance((await shop.channel.refund(shop.account, refund)).outcome, Succeeded)
    assert await taken.kinds(refund) == ["undone", "let go"]


# --- files


async def test_a_days_file_holds_what_moved_money(
    fresh_sandbox: RunningSandbox, http: HttpClient, far_end: WireServer, tmp_path: Path
) -> None:
    shop = Shop(fresh_sandbox, http, far_end)
    first, ref = await shop.paid(subject="咖啡" * 20)
    second = shop.code("pay")
    await shop.channel.pay(shop.account, second)
    await shop.channel.close(shop.account, second)
    order, held = await authorised(shop)
    taken = Capture(base32(new_id()), order, held.channel_ref, None, Money(1500, "CNY"))
    await shop.channel.capture(shop.account, taken)
    refund = refund_of(first, order_ref=ref)
    await shop.channel.refund(shop.account, refund)
    await shop.advance(2)
    day = business_date(shop.now())
    assert (await shop.channel.download_bill(shop.account, day, tmp_path)).outcome == BillNotReady(
        "98"
    )
    await shop.advance(86_400 + 12 * 3600)
    await shop.tell("unionpay/difference", number=first.number, day=day.isoformat(), amount=700)
    answer = await shop.channel.download_bill(shop.account, day, tmp_path)
    assert isinstance(answer.outcome, BillFile), answer
    assert "fileContent" not in answer.exchange.reply
    rows = list(shop.channel.parse_bill(answer.outcome.path))
    assert all(isinstance(row, BillRow) for row in rows[:-1])
    assert rows[-1] == BillTotal()
    told = {
        (row.kind, row.number, row.order_number, row.money.amount, row.fee.amount, row.state)
        for row in rows
        if isinstance(row, BillRow)
    }
    assert told == {
        (BillKind.PAYMENT, first.number, first.number, 1999, 12, "01"),
        (BillKind.PAYMENT, second.number, second.number, 1999, 12, "01"),
        (BillKind.REFUND, second.number, second.number, 1999, -12, "31"),
        (BillKind.PAYMENT, taken.number, taken.number, 1500, 9, "03"),
        (BillKind.REFUND, refund.number, first.number, 500, -3, "04"),
    }
    assert {row.state for row in rows if isinstance(row, BillRow)} <= shop.channel.bill_terms.moved
    assert all(business_date(row.at) == day for row in rows if isinstance(row, BillRow))
    [difference] = parse_differences(answer.outcome.path)
    assert isinstance(difference, Difference)
    assert (difference.code, difference.money) == ("E23", Money(700, "CNY"))


async def test_a_file_with_faults(
    fresh_sandbox: RunningSandbox, http: HttpClient, far_end: WireServer, tmp_path: Path
) -> None:
    shop = Shop(fresh_sandbox, http, far_end)
    orders = [(await shop.paid())[0] for _ in range(3)]
    day = business_date(shop.now())
    shop.fault("bill", "drop_row", orders[0].number)
    shop.fault("bill", "wrong_amount:7", orders[1].number)
    shop.fault("bill", "wrong_fee", orders[2].number)
    shop.fault("bill", "extra_row:55", "")
    for fault in ("late", "truncate"):
        shop.fault("bill", fault, "")
    await shop.advance(86_400 + 12 * 3600)
    late = await shop.channel.download_bill(shop.account, day, tmp_path)
    assert isinstance(late.outcome, BillNotReady)
    cut = await shop.channel.download_bill(shop.account, day, tmp_path)
    assert isinstance(cut.outcome, Unknown)
    assert not list(tmp_path.iterdir())
    answer = await shop.channel.download_bill(shop.account, day, tmp_path)
    assert isinstance(answer.outcome, BillFile)
    rows = list(shop.channel.parse_bill(answer.outcome.path))
    assert not any(isinstance(row, BillFault) for row in rows)
    amounts = [(row.money.amount, row.fee.amount) for row in rows if isinstance(row, BillRow)]
    assert amounts == [(2006, 12), (1999, 13), (55, 0)]


# --- amounts that bring bad luck


@pytest.mark.parametrize(("fen", "end"), [(77701, Succeeded), (77702, Absent), (77711, Succeeded)])
async def test_a_magic_amount_meets_its_fault_once(fen: int, end: type, shop: Shop) -> None:
    made = shop.code("pay")
    order = PayOrder(
        **{name: getattr(made, name) for name in made.__struct_fields__}
        | {"money": Money(fen, "CNY")}
    )
    assert isinstance((await shop.channel.pay(shop.account, order)).outcome, Unknown)
    assert isinstance((await shop.channel.query(shop.account, order)).outcome, end)
    again = (await shop.channel.pay(shop.account, order)).outcome
    assert isinstance(again, Succeeded | Pending)


async def test_a_magic_amounts_notification_goes_wrong(shop: Shop) -> None:
    await shop.paid(money=Money(77725, "CNY"))
    await shop.settle()
    [callback] = shop.callbacks()
    assert isinstance(callback, Callback)
    assert isinstance(callback.outcome, Succeeded)
    assert callback.outcome.money == Money(77726, "CNY")


async def test_a_magic_refund_is_not_covered(shop: Shop) -> None:
    order, ref = await shop.paid(money=Money(100_000, "CNY"))
    refund = refund_of(order, order_ref=ref, money=Money(77735, "CNY"))
    assert isinstance((await shop.channel.refund(shop.account, refund)).outcome, Pending)
    assert isinstance((await shop.channel.query_refund(shop.account, refund)).outcome, Declined)
