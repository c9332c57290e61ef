"""WeChat Pay's modes against the simulated one, for ourselves and as a service provider."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.rails.wechat_shop import OPENID, PRICE, WechatShop
from tests.rails.wire_server import WireServer
from tongbao.infra.http import HttpClient
from tongbao.kernel.clock import business_date
from tongbao.kernel.money import Money
from tongbao.rails.channels.contract.bills import BillFile, BillRow
from tongbao.rails.channels.contract.callbacks import Callback, CallbackKind
from tongbao.rails.channels.contract.orders import PayMode
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Closed,
    Declined,
    NotSent,
    OpenApp,
    Pending,
    Redirect,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.wechat_pay.products import refunds
from tongbao.rails.channels.wechat_pay.products.refunds import AbnormalRefund
from tongbao.rails.channels.wechat_pay.secrets import Partner
from tongbao_sandbox.launch import RunningSandbox

LINKS = [PayMode.QR, PayMode.IN_APP, PayMode.APP, PayMode.H5]


@pytest.fixture
def shop(sandbox: RunningSandbox, http: HttpClient, far_end: WireServer) -> WechatShop:
    return WechatShop(sandbox, http, far_end)


@pytest.fixture(params=["direct", "partner", "partner with an app"])
def any_shop(request: pytest.FixtureRequest, shop: WechatShop) -> WechatShop:
    if request.param != "direct":
        shop.become_partner(shop.keys["sub_appid"] if "app" in request.param else "")
    return shop


@pytest.mark.parametrize("mode", LINKS)
async def test_an_order_is_offered_paid_and_told_of(any_shop: WechatShop, mode: PayMode) -> None:
    shop = any_shop
    order = shop.order(mode)
    await shop.offer(order)
    before = await shop.channel.query(shop.account, order)
    assert isinstance(before.outcome, Pending)
    await shop.scan(order)
    after = (await shop.channel.query(shop.account, order)).outcome
    assert isinstance(after, Succeeded)
    assert after.money == PRICE
    [callback] = await shop.callbacks()
    assert isinstance(callback, Callback)
    assert callback.kind is CallbackKind.PAYMENT
    assert callback.number == order.number
    assert callback.merchant_number == shop.account.merchant_number
    assert callback.app_id == shop.account.app_id
    assert callback.outcome == after


@pytest.mark.parametrize("mode", LINKS)
async def test_an_order_is_closed_in_every_mode(any_shop: WechatShop, mode: PayMode) -> None:
    shop = any_shop
    order = shop.order(mode)
    assert isinstance((await shop.channel.close(shop.account, order)).outcome, Absent)
    await shop.offer(order)
    assert isinstance((await shop.channel.close(shop.account, order)).outcome, Closed)
    assert isinstance((await shop.channel.query(shop.account, order)).outcome, Closed)
    paid = await shop.paid(mode)
    assert isinstance((await shop.channel.close(shop.account, paid)).outcome, Succeeded)


@pytest.mark.parametrize("mode", LINKS)
async def test_the_same_order_again_gives_the_same_offer(shop: WechatShop, mode: PayMode) -> None:
    order = shop.order(mode)
    once, again = await shop.offer(order), await shop.offer(order)
    if isinstance(once, OpenApp) and isinstance(again, OpenApp):  # signed anew each time
        name = "package" if mode is PayMode.IN_APP else "prepayid"
        assert once.parameters[name] == again.parameters[name]
    else:
        assert once == again


async def test_a_payment_code_is_charged_and_reversed(any_shop: WechatShop) -> None:
    shop = any_shop
    order = shop.code()
    charged = (await shop.channel.pay(shop.account, order)).outcome
    assert isinstance(charged, Succeeded)
    assert isinstance((await shop.channel.close(shop.account, order)).outcome, Closed)
    assert isinstance((await shop.channel.query(shop.account, order)).outcome, Closed)


async def test_a_refund_is_asked_for_and_told_of(any_shop: WechatShop) -> None:
    shop = any_shop
    refund = shop.refund(await shop.paid(), 500)
    assert isinstance((await shop.channel.query_refund(shop.account, refund)).outcome, Absent)
    assert isinstance((await shop.channel.refund(shop.account, refund)).outcome, Pending)
    await shop.advance(2)
    done = (await shop.channel.query_refund(shop.account, refund)).outcome
    assert isinstance(done, Succeeded)
    assert done.money == Money(500, "CNY")
    callback = (await shop.callbacks())[-1]
    assert isinstance(callback, Callback)
    assert (callback.kind, callback.number) == (CallbackKind.REFUND, refund.number)
    assert callback.merchant_number == shop.account.merchant_number


# --- what a page or an app is handed


@pytest.mark.parametrize("mode", [PayMode.IN_APP, PayMode.APP])
async def test_wechat_opens_with_what_was_signed_and_with_nothing_else(
    any_shop: WechatShop, mode: PayMode
) -> None:
    shop = any_shop
    order = shop.order(mode)
    action = await shop.offer(order)
    assert isinstance(action, OpenApp)
    handed = dict(action.parameters)
    for name in set(handed) - {"signType", "partnerid"}:
        if mode is PayMode.APP and name == "package":  # the word Sign=WXPay is not signed
            continue
        with pytest.raises(ValueError, match=r"签名|prepay_id"):
            await shop.control("wechat/open", parameters={**handed, name: f"{handed[name]}x"})
    opened = await shop.control("wechat/open", parameters=handed)
    assert (opened["out_trade_no"], opened["trade_state"]) == (order.number, "SUCCESS")


async def test_the_names_of_a_page_and_of_an_app_differ(shop: WechatShop) -> None:
    page = await shop.offer(shop.order(PayMode.IN_APP))
    assert isinstance(page, OpenApp)
    assert set(page.parameters) == {
        "appId",
        "timeStamp",
        "nonceStr",
        "package",
        "signType",
        "paySign",
    }
    assert page.parameters["signType"] == "RSA"
    app = await shop.offer(shop.order(PayMode.APP))
    assert isinstance(app, OpenApp)
    assert app.parameters["package"] == "Sign=WXPay"
    assert app.parameters["partnerid"] == shop.account.merchant_number


async def test_a_page_of_a_further_app_pays_there(shop: WechatShop) -> None:
    shop.account = shop.account_with(app_ids=frozenset({"wxanother"}))
    strange = shop.order(PayMode.IN_APP, app_id="wxstranger")
    refused = await shop.channel.pay(shop.account, strange)
    assert isinstance(refused.outcome, NotSent)
    bound = shop.order(PayMode.IN_APP, app_id="wxanother")
    answer = await shop.channel.pay(shop.account, bound)
    assert "APPID_MCHID_NOT_MATCH" in answer.exchange.reply  # the simulated merchant has one app
    assert json.loads(answer.exchange.request)["appid"] == "wxanother"


async def test_a_sub_merchants_app_is_named_to_wechat(shop: WechatShop) -> None:
    shop.become_partner(shop.keys["sub_appid"])
    order = shop.order(PayMode.IN_APP)
    answer = await shop.channel.pay(shop.account, order)
    body = json.loads(answer.exchange.request)
    assert body["sub_appid"] == shop.keys["sub_appid"]
    assert body["payer"] == {"sub_openid": OPENID}
    assert isinstance(answer.outcome, Pending)
    assert isinstance(answer.outcome.action, OpenApp)
    assert answer.outcome.action.parameters["appId"] == shop.keys["sub_appid"]


async def test_a_page_of_the_provider_knows_the_customer_as_its_own(shop: WechatShop) -> None:
    shop.become_partner(shop.keys["sub_appid"])
    order = shop.order(PayMode.IN_APP, app_id=shop.keys["appid"])
    answer = await shop.channel.pay(shop.account, order)
    body = json.loads(answer.exchange.request)
    assert "sub_appid" not in body
    assert body["payer"] == {"sp_openid": OPENID}
    assert isinstance(answer.outcome, Pending)
    assert isinstance(answer.outcome.action, OpenApp)
    assert answer.outcome.action.parameters["appId"] == shop.keys["appid"]
    await shop.scan(order)
    assert isinstance((await shop.channel.query(shop.account, order)).outcome, Succeeded)
    [callback] = await shop.callbacks()
    assert isinstance(callback, Callback)
    assert callback.app_id is None, "an app of ours, though not the account's own"


async def test_an_h5_link_comes_back_to_the_merchant(shop: WechatShop, http: HttpClient) -> None:
    order = shop.order(PayMode.H5, return_url="https://shop.example/done?order=1&x=2")
    action = await shop.offer(order)
    assert isinstance(action, Redirect)
    query = parse_qs(urlsplit(action.url).query)
    assert query["redirect_url"] == ["https://shop.example/done?order=1&x=2"]
    page = await http.send("GET", action.url, {}, b"", timeout_s=5, reply_max_bytes=10_000)
    assert "¥19.99" in page.body.decode()
    gone = await http.send("POST", action.url, {}, b"", timeout_s=5, reply_max_bytes=10_000)
    assert (gone.status, gone.headers["location"]) == (303, order.return_url)
    assert isinstance((await shop.channel.query(shop.account, order)).outcome, Succeeded)


async def test_an_h5_link_is_good_for_five_minutes(shop: WechatShop) -> None:
    order = shop.order(PayMode.H5)
    await shop.offer(order)
    await shop.advance(301)
    with pytest.raises(ValueError, match="5 minutes"):
        await shop.scan(order)


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": PayMode.WEB},
        {"mode": PayMode.CARD},
        {"mode": PayMode.IN_APP, "payer_id": None},
        {"mode": PayMode.PAYMENT_CODE, "auth_code": None},
        {"mode": PayMode.APP, "money": Money(1, "USD")},
        {"mode": PayMode.APP, "captures": False},
    ],
)
async def test_what_cannot_be_paid_here_is_not_sent(
    shop: WechatShop, changes: dict[str, Any]
) -> None:
    order = shop.order(**{"mode": PayMode.QR, **changes})
    answer = await shop.channel.pay(shop.account, order)
    assert isinstance(answer.outcome, NotSent)
    assert answer.exchange.status is None


# --- whose order it is


async def test_an_order_of_another_sub_merchant_is_a_contradiction(shop: WechatShop) -> None:
    shop.become_partner()
    order = await shop.paid()
    ours = shop.account
    shop.become_partner("wxanother")  # the sub-merchant's app is not the one of the order
    other = await shop.channel.query(shop.account, order)
    assert isinstance(other.outcome, Succeeded), "an answer need not name the sub-merchant's app"
    stranger = type(ours)(
        **{
            **{name: getattr(ours, name) for name in ours.__struct_fields__},
            "merchant_number": "1900009999",
        }
    )
    assert isinstance((await shop.channel.query(stranger, order)).outcome, Unknown)
    [callback] = await shop.callbacks()
    assert isinstance(callback, Callback)
    assert callback.merchant_number == ours.merchant_number


async def test_a_callback_of_a_sub_merchant_is_not_its_providers(shop: WechatShop) -> None:
    provider = shop.account
    shop.become_partner()
    merchant = shop.account.merchant_number
    await shop.paid()
    await shop.settle()
    shop.account = provider
    [callback] = await shop.callbacks()
    assert isinstance(callback, Callback)
    assert callback.merchant_number == merchant != provider.merchant_number


async def test_a_callback_through_another_provider_is_not_ours(shop: WechatShop) -> None:
    shop.become_partner()
    await shop.paid()
    await shop.settle()
    ours = shop.account_with(partner=Partner("1900007777", shop.keys["appid"]))
    shop.account = ours
    [callback] = await shop.callbacks()
    assert isinstance(callback, Callback)
    assert callback.merchant_number != ours.merchant_number


async def test_a_partners_bill_holds_its_sub_merchants_trades_only(
    fresh_sandbox: RunningSandbox, http: HttpClient, far_end: WireServer, tmp_path: Path
) -> None:
    shop = WechatShop(fresh_sandbox, http, far_end)
    await shop.paid()
    shop.become_partner()
    theirs = await shop.paid()
    day = business_date(datetime.fromisoformat(fresh_sandbox.get("clock")["now"]))
    await shop.advance(2 * 86400)
    found = (await shop.channel.download_bill(shop.account, day, tmp_path)).outcome
    assert isinstance(found, BillFile)
    rows = [row for row in shop.channel.parse_bill(found.path) if isinstance(row, BillRow)]
    assert [row.number for row in rows] == [theirs.number]


# --- refunds that are stuck


@pytest.mark.parametrize("mode", ["certificate", "public key"])
async def test_a_stuck_refund_is_sent_on_with_encrypted_names(shop: WechatShop, mode: str) -> None:
    if mode == "public key":
        key_id = shop.keys["public_key_id"]
        shop.account = shop.account_with(
            platform_keys={key_id: shop.keys["public_key_pem"]}, public_key_id=key_id
        )
    refund = shop.refund(await shop.paid(), 500)
    shop.sandbox.fault("wechat", "refund", "abnormal", number=refund.number)
    await shop.channel.refund(shop.account, refund)
    await shop.advance(2)
    stuck = (await shop.channel.query_refund(shop.account, refund)).outcome
    assert isinstance(stuck, Unknown)
    refund_id = json.loads(
        (await shop.channel.query_refund(shop.account, refund)).exchange.reply.split("\n\n")[-1]
    )["refund_id"]
    asked = AbnormalRefund(
        refund,
        refund_id,
        to="USER_BANK_CARD",
        bank_type="ICBC_DEBIT",
        bank_account="6222000000000000",
        real_name="张三",
    )
    sent = await refunds.send_on(shop.channel.gateway, shop.account, asked)
    assert isinstance(sent.outcome, Pending), sent
    shown = f"{sent.exchange.request}{sent.exchange.reply}{asked}"
    assert "6222000000000000" not in shown
    assert "张三" not in shown
    await shop.advance(2)
    done = (await shop.channel.query_refund(shop.account, refund)).outcome
    assert isinstance(done, Succeeded)
    again = await refunds.send_on(shop.channel.gateway, shop.account, asked)
    assert again.outcome == done, "refused, and asked about: the refund is through"


async def test_a_refund_nobody_asked_for_cannot_be_sent_on(shop: WechatShop) -> None:
    refund = shop.refund(await shop.paid(), 500)
    stuck = AbnormalRefund(refund, "50001", to="MERCHANT_BANK_CARD")
    answer = await refunds.send_on(shop.channel.gateway, shop.account, stuck)
    assert isinstance(answer.outcome, Unknown)


# --- amounts that choose a fault


@pytest.mark.parametrize(
    ("fen", "found"),
    [(77701, Succeeded), (77702, Absent), (77709, Pending), (77711, Succeeded), (77713, Absent)],
)
async def test_an_amount_chooses_what_becomes_of_the_answer_once(
    shop: WechatShop, fen: int, found: type
) -> None:
    order = shop.order(PayMode.QR, money=Money(fen, "CNY"))
    assert isinstance((await shop.channel.pay(shop.account, order)).outcome, Unknown)
    assert isinstance((await shop.channel.query(shop.account, order)).outcome, found)
    if found is not Succeeded:
        assert isinstance((await shop.channel.pay(shop.account, order)).outcome, Pending)


@pytest.mark.parametrize(
    ("fen", "read", "forged"), [(77722, 2, 0), (77724, 1, 1), (77725, 1, 0), (77727, 1, 1)]
)
async def test_an_amount_chooses_what_becomes_of_the_callback(
    shop: WechatShop, fen: int, read: int, forged: int
) -> None:
    await shop.paid(money=Money(fen, "CNY"))
    seen = await shop.callbacks()
    assert (len(seen) - seen.count("forged"), seen.count("forged")) == (read, forged)


async def test_an_amount_chooses_what_becomes_of_a_refund(shop: WechatShop) -> None:
    order = await shop.paid(money=Money(200_000, "CNY"))
    lost = shop.refund(order, 77731)
    assert isinstance((await shop.channel.refund(shop.account, lost)).outcome, Unknown)
    assert isinstance((await shop.channel.query_refund(shop.account, lost)).outcome, Pending)
    poor = await shop.channel.refund(shop.account, shop.refund(order, 77735))
    assert isinstance(poor.outcome, Declined)
