"""The façade for programs written for jeepay: what they send, and what they are answered."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx2 as httpx
import pytest

from tests.sandboxes import start_sandbox
from tests.stage import Stage, listen, new_number, served, settings_for
from tests.surfaces.cashing import price_every_way
from tests.surfaces.jeepaying import (
    Program,
    now_ms,
    payment_of,
    platform_with_facade,
    program_of,
    sign,
)
from tongbao.infra.settings import Secret
from tongbao.kernel.card_numbers import is_luhn
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.parties.merchants.merchants import connect_channel, set_suspended
from tongbao.parties.price_plans.model import PriceLine
from tongbao.parties.price_plans.plans import set_price_plan
from tongbao.rails.channels.accounts import NewAccount
from tongbao.rails.channels.contract.orders import PayMode
from tongbao.rails.channels.contract.outcomes import OpenApp, Redirect, ShowQr, SubmitForm
from tongbao.surfaces.demo.stage import open_accounts
from tongbao.surfaces.jeepay import ways
from tongbao.surfaces.jeepay.app import read_fields
from tongbao.surfaces.jeepay.apps import disable, is_signed, roll, signature
from tongbao.surfaces.jeepay.model import FieldsUnreadable
from tongbao.wiring import SECRETS, Platform
from tongbao_sandbox.launch import RunningSandbox

PUBLISHED = {
    "platId": "1000",
    "mchOrderNo": "P0123456789101",
    "amount": "10000",
    "clientIp": "192.168.0.111",
    "returnUrl": "https://www.baidu.com",
    "notifyUrl": "https://www.baidu.com",
    "reqTime": "20190723141000",
    "version": "1.0",
}
COMMON = {"reqTime": "1700000000123", "signType": "MD5", "version": "1.0"}


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSandbox]:
    with start_sandbox(tmp_path_factory.mktemp("sandbox")) as running:
        running.post("settings", hold_s=0.02)
        yield running


@pytest.fixture(scope="module")
async def stage(
    server: Any,
    _admin: Any,
    _template: str,
    tmp_path_factory: pytest.TempPathFactory,
    sandbox: RunningSandbox,
) -> AsyncIterator[Stage]:
    """One platform with the façade for the whole module."""
    folder = tmp_path_factory.mktemp("platform")
    async with platform_with_facade(server, _admin, _template, folder, sandbox) as ready:
        await price_every_way(ready, ready.shop.merchant.id, "in_app", "app")
        yield ready


@pytest.fixture(scope="module")
async def program(stage: Stage) -> AsyncIterator[Program]:
    async with program_of(stage) as made:
        yield made


# --- the signature ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "key", "digest"),
    [
        # The example of docs.jeequan.com; the digest printed there (4A50…) is not that of the text
        # printed there, as a reader can compute; jeepay's PHP client tests this one.
        (PUBLISHED, "EWEFD123RGSRETYDFNGFGFGSHDFGH", "84E1CA56F984502BBAC06EA6707157F5"),
        # jeequan/jeepay-skills: tests/signature_vectors.json
        (
            {"mchNo": "M1621873433953", "appId": "60cc09bce4b0f1c0b83761c9", "amount": 100}
            | COMMON,
            "offline-test-key",
            "CE76B1B36C5B683AD2F8FB0FCA95055B",
        ),
        (
            {"amount": 0, "state": 0} | COMMON,
            "offline-test-key",
            "6F5CE7D1150794CB08A853964CDF3723",
        ),
        (
            {"amount": 1, "empty": "", "sign": "OLD_SIGNATURE"} | COMMON,
            "offline-test-key",
            "7DC985B98166C7A092595BA23A981F50",
        ),
        (
            {"Zebra": "last", "apple": "first"} | COMMON,
            "offline-test-key",
            "9C90DE387B013B218B091D5BA0BB76B2",
        ),
        (
            {"a": "z", "A": "a", "a0": "prefix"} | COMMON,
            "offline-test-key",
            "BA9AF3B13F07EC35495DCC96D8171C56",
        ),
        (
            {"subject": "测试商品", "amount": 1} | COMMON,
            "offline-test-key",
            "F9F6BC7ED815F9B4D129B4C16D28E2C7",
        ),
    ],
)
def test_the_signature_is_the_one_others_compute(
    fields: dict[str, Any], key: str, digest: str
) -> None:
    assert signature(fields, Secret(key)) == digest
    assert is_signed({**fields, "sign": digest.lower()}, Secret(key))
    assert not is_signed({**fields, "sign": digest}, Secret(f"{key}x"))


def test_a_signature_by_hand() -> None:
    """Joined by a person: empty fields and the signature itself are not in it."""
    text = "amount=100&body=two teas&mchNo=M1&reqTime=1700000000123&wayCode=AUTO_BAR&key=k"

    said = {"wayCode": "AUTO_BAR", "amount": 100, "mchNo": "M1", "extParam": "", "sign": "old"}
    fields = {**said, "body": "two teas", "reqTime": "1700000000123"}

    assert signature(fields, Secret("k")) == hashlib.md5(text.encode()).hexdigest().upper()
    assert sign(fields, "k") == signature(fields, Secret("k"))


def test_fields_are_read_as_they_were_signed() -> None:
    said = b'{"a": 1, "b": "x", "c": true, "d": null, "e": "", "f": 0}'
    assert read_fields(said, "application/json") == {"a": "1", "b": "x", "c": "true", "f": "0"}
    form = "a=1&b=%E8%8C%B6+%26&e="
    read = read_fields(form.encode(), "application/x-www-form-urlencoded")
    assert read == {"a": "1", "b": "茶 &"}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "application/json"),
        (b"[]", "application/json"),
        (b'{"a": 1.5}', "application/json"),
        (b'{"a": {"b": 1}}', "application/json"),
        (b'{"a": "\\u0000"}', "application/json"),
        (b'{"a": "\xff"}', "application/json"),
        (b"{" + b'"a":' * 20_000, "application/json"),
        (b'{"a": "' + b"x" * 65_536 + b'"}', "application/json"),
        (json.dumps({str(n): "x" for n in range(65)}).encode(), "application/json"),
        (b"a=1&a=2", "application/x-www-form-urlencoded"),
        (b"a=%ff", "application/x-www-form-urlencoded"),
        (b"a", "application/x-www-form-urlencoded"),
        ("a=茶".encode(), "application/x-www-form-urlencoded"),
    ],
)
def test_what_nobody_could_have_signed_in_one_way_only_is_refused(body: bytes, kind: str) -> None:
    with pytest.raises(FieldsUnreadable):
        read_fields(body, kind)


# --- who is answered ----------------------------------------------------------------------------


async def test_without_the_setting_there_is_no_facade(stage: Stage, tmp_path: Path) -> None:
    listening = listen()
    port = listening.getsockname()[1]
    settings = settings_for(tmp_path, stage.sandbox.url, port=port)
    off = Platform(settings, stage.db, stage.platform.keyring)
    async with (
        served(off.app(), listening),
        program_of(stage) as let_in,
        httpx.AsyncClient(base_url=settings.public_url) as http,
    ):
        body = let_in.signed({"mchOrderNo": "1"})
        for path in ("pay/unifiedOrder", "pay/query", "refund/refundOrder"):
            reply = await http.post(f"/api/{path}", json=body)
            assert reply.json().get("code") not in {0, 9999}
            assert reply.status_code in {401, 404}


@pytest.mark.parametrize(
    "change",
    [
        {"sign": "0" * 32},
        {"sign": ""},
        {"amount": 1},
        {"appId": "nobody"},
        {"mchNo": "M1"},
        {"signType": "RSA2"},
        {"extra": "unsigned"},
    ],
)
async def test_nothing_is_done_for_who_has_not_signed_it(
    program: Program, stage: Stage, change: dict[str, Any]
) -> None:
    number = new_number()
    body = program.signed({"mchOrderNo": number, "wayCode": "WX_NATIVE", "amount": 1999})

    said = program.heard(await program.post("pay/unifiedOrder", json={**body, **change}))

    assert (said.http, said.code, said.data) == (200, 9999, {})
    assert "jeepay.signature_wrong" in said.msg
    assert not await stage.db.fetch("select 1 from payment where merchant_order_no = $1", (number,))


@pytest.mark.parametrize(
    "more", [{"body": "card ４９２９420573595709"}, {"extParam": '{"cvn":"123"}'}]
)
async def test_no_card_data_is_taken_in_any_field(
    program: Program, stage: Stage, more: dict[str, Any]
) -> None:
    number = new_number()
    fields = {"mchOrderNo": number, "wayCode": "WX_NATIVE", "amount": 1999, **more}

    said = program.heard(await program.post("pay/unifiedOrder", json=program.signed(fields)))

    assert (said.http, said.code, said.data) == (200, 9999, {})
    assert "card_number." in said.msg
    assert not await stage.db.fetch("select 1 from payment where merchant_order_no = $1", (number,))


@pytest.mark.parametrize("minutes", [-6, 6])
async def test_an_old_or_future_request_is_refused(program: Program, minutes: int) -> None:
    at = str(now_ms() + minutes * 60_000)
    assert "jeepay.request_stale" in (await program.call("pay/query", reqTime=at)).msg


@pytest.mark.parametrize("at", ["", "soon", "20190723141000", "１７００００００００１２３", "-1"])
async def test_a_request_says_when_it_was_made(program: Program, at: str) -> None:
    assert "jeepay.request_stale" in (await program.call("pay/query", reqTime=at)).msg


@pytest.mark.parametrize("at", [lambda now: now // 1000, lambda now: now, lambda now: now * 1000])
async def test_a_time_is_taken_in_every_unit_that_clients_send(program: Program, at: Any) -> None:
    """Seconds as in the published examples, microseconds as unify-z/jeepay-nodejs-sdk."""
    said = await program.call("pay/query", mchOrderNo="no such", reqTime=at(now_ms()))
    assert "jeepay.order_unknown" in said.msg


async def test_a_rolled_secret_ends_at_once_and_a_disabled_app_is_nobody(stage: Stage) -> None:
    async with program_of(stage, app_id="60cc09bce4b0f1c0b83761c9", mch_no="M1621873433953") as one:
        assert (one.mch_no, one.app_id) == ("M1621873433953", "60cc09bce4b0f1c0b83761c9")
        assert "order_unknown" in (await one.call("pay/query", mchOrderNo="1")).msg

        async with stage.db.begin("tests") as tx:
            rolled = await roll(tx, stage.platform.keyring, one.app_id)
        assert "signature_wrong" in (await one.call("pay/query", mchOrderNo="1")).msg
        one.key = rolled.secret.reveal()
        assert "order_unknown" in (await one.call("pay/query", mchOrderNo="1")).msg

        async with stage.db.begin("tests") as tx:
            await disable(tx, one.app_id)
        assert "signature_wrong" in (await one.call("pay/query", mchOrderNo="1")).msg


async def test_the_secret_is_sealed_and_the_acts_are_on_record(stage: Stage) -> None:
    async with program_of(stage) as one:
        [row] = await stage.db.fetch(
            "select secret_sealed, secret_tail from jeepay_app where app_id = $1", (one.app_id,)
        )
        acts = await stage.db.fetch(
            "select facts from audit_entry where action = 'jeepay_app.enabled'", ()
        )
    assert one.key.encode() not in row["secret_sealed"]
    assert row["secret_tail"] == one.key[-4:]
    assert one.app_id in {each["facts"]["app_id"] for each in acts}
    assert one.key not in str([dict(each) for each in acts])


async def test_the_apis_own_key_does_not_open_the_facade_and_the_other_way_round(
    stage: Stage, program: Program
) -> None:
    own, program.key = program.key, stage.shop.secret.reveal()
    try:
        assert "signature_wrong" in (await program.call("pay/query", mchOrderNo="1")).msg
    finally:
        program.key = own


async def test_one_merchant_does_not_see_anothers_orders(stage: Stage, program: Program) -> None:
    made = (await program.order("WX_NATIVE")).data
    other_shop = await stage.open_shop()
    async with program_of(stage, other_shop) as other:
        for named in ({"payOrderId": made["payOrderId"]}, {"mchOrderNo": made["mchOrderNo"]}):
            for path in ("pay/query", "pay/close"):
                assert "jeepay.order_unknown" in (await other.call(path, **named)).msg
        assert "jeepay.order_unknown" in (await other.refund(made, 1)).msg
    assert await program.state(made) == 1


async def test_only_posts_to_its_own_paths_are_answered(program: Program) -> None:
    assert (await program.get("/api/pay/query")).status_code == 405
    assert (await program.get("/api/pay/nothing")).status_code == 404
    assert (await program.post("refund/close", json={})).status_code == 404


# --- orders -------------------------------------------------------------------------------------


async def test_an_order_by_code_is_paid_and_queried(stage: Stage, program: Program) -> None:
    made = await program.order("WX_NATIVE", extParam="order 7", clientIp="210.73.10.148")

    assert made.data["orderState"] == 1
    assert made.data["payDataType"] == "codeUrl"
    assert made.data["payData"].startswith("weixin://")
    assert len(made.data["payOrderId"]) == 30
    await stage.customer(payment_of(made.data))
    await stage.idle()

    said = (await program.call("pay/query", mchOrderNo=made.data["mchOrderNo"])).data
    assert said["state"] == 2
    assert (said["amount"], said["currency"], said["wayCode"]) == (1999, "cny", "WX_NATIVE")
    assert (said["ifCode"], said["extParam"], said["subject"]) == ("wxpay", "order 7", "两杯茶")
    assert (said["clientIp"], said["body"]) == ("210.73.10.148", "two cups of tea")
    assert (said["mchNo"], said["appId"]) == (program.mch_no, program.app_id)
    assert said["channelOrderNo"]
    assert said["successTime"] >= said["createdAt"] > 10**12


@pytest.mark.parametrize(("channel", "way"), [("wechat_pay", "WX_BAR"), ("alipay", "ALI_BAR")])
@pytest.mark.parametrize("name", ["authCode", "auth_code"])
async def test_a_payment_code_is_charged(
    stage: Stage, program: Program, channel: str, way: str, name: str
) -> None:
    code = await stage.code(channel)
    paid = await program.order("AUTO_BAR", channelExtra=json.dumps({name: code}))
    assert (paid.data["orderState"], paid.data["payDataType"]) == (2, "none")

    declined = await stage.code(channel, "decline")
    failed = await program.order(way, channelExtra=json.dumps({name: declined}))
    assert failed.data["orderState"] == 3
    assert failed.data["errCode"]
    assert failed.data["errMsg"]


async def test_the_own_wallets_code_is_charged_too(stage: Stage, program: Program) -> None:
    async with stage.db.begin("operator") as tx:
        await tx.execute(
            "update price_plan set lines = lines || $2 where merchant_id = $1",
            (
                stage.shop.merchant.id,
                [{"channel": "wallet", "pay_mode": "payment_code", "rate_ppm": 3000}],
            ),
        )
    extra = json.dumps({"authCode": await stage.wallet_code()})
    number = new_number()

    paid = await program.order("AUTO_BAR", channelExtra=extra, mchOrderNo=number)
    again = await program.order("AUTO_BAR", channelExtra=extra, mchOrderNo=number)

    assert paid.data["orderState"] == 2
    assert again.data == paid.data
    assert (await program.refund(paid.data, 1999)).data["state"] == 2
    assert await program.state(paid.data) == 5


async def test_a_code_of_another_wallet_is_refused(stage: Stage, program: Program) -> None:
    extra = json.dumps({"authCode": await stage.code("alipay")})
    said = await program.order("WX_BAR", channelExtra=extra)
    assert said.code == 9999
    missing = await program.order("ALI_BAR")
    assert "payment.method_field_missing: channelExtra.authCode" in missing.msg


@pytest.mark.parametrize(
    ("way", "extra", "kind", "begins"),
    [
        ("ALI_QR", {}, "codeUrl", "https://"),
        ("ALI_QR", {"payDataType": "codeImgUrl"}, "codeImgUrl", "http://127.0.0.1"),
        ("ALI_WAP", {}, "payurl", "http"),
        ("ALI_WAP", {"payDataType": "form"}, "form", "<form"),
        ("ALI_PC", {"payDataType": "payUrl"}, "payurl", "http"),
        ("ALI_APP", {}, "aliapp", "app_id="),
        ("ALI_JSAPI", {"buyerUserId": "2088702585070844"}, "aliapp", '{"alipayTradeNo"'),
        ("WX_H5", {}, "payurl", "http"),
        ("WX_JSAPI", {"openid": "o6BcIwvSiRpfS8e_UyfQNrYuk2LI"}, "wxapp", '{"'),
        ("WX_LITE", {"openid": "o6BcIwvSiRpfS8e_UyfQNrYuk2LI"}, "wxapp", '{"'),
        ("WX_APP", {}, "wxapp", '{"'),
    ],
)
async def test_each_way_says_what_the_customer_does_next(
    program: Program, way: str, extra: dict[str, str], kind: str, begins: str
) -> None:
    made = await program.order(way, channelExtra=json.dumps(extra))

    assert made.code == 0, made.msg
    assert (made.data["orderState"], made.data["payDataType"]) == (1, kind)
    assert made.data["payData"].startswith(begins)
    if kind == "codeImgUrl":
        picture = await program.get(urlsplit(made.data["payData"]).path)
        assert picture.headers["content-type"] == "image/png"
        assert picture.content.startswith(b"\x89PNG")
    if way == "WX_JSAPI":
        assert set(json.loads(made.data["payData"])) == {
            *("appId", "timeStamp", "nonceStr", "package", "signType", "paySign")
        }


@pytest.fixture(scope="module")
async def at_unionpay(stage: Stage) -> AsyncIterator[Program]:
    """A program of another shop, which takes money at UnionPay's own gateway."""
    given, shop = stage.sandbox.credentials["unionpay"], await stage.open_shop()
    order = NewAccount(
        channel="unionpay",
        mode=Mode.SANDBOX,
        gateway=f"{stage.sandbox.url}/unionpay",
        merchant_number=given["mer_id"],
        app_id="000201",
        fee_ppm=4_000,
        keys={name: text for name, text in given.items() if name.endswith("_pem")},
    )
    made = await open_accounts(stage.db, stage.platform.keyring, SECRETS, [order])
    modes = ("qr", "web", "h5", "app", "payment_code")
    prices = [PriceLine("unionpay", mode, 6_000) for mode in modes]
    async with stage.db.begin("tests") as tx:
        await set_price_plan(tx, shop.merchant.id, Mode.SANDBOX, prices)
        await connect_channel(tx, shop.merchant.id, Mode.SANDBOX, "unionpay", made["unionpay"])
    async with program_of(stage, shop) as program:
        yield program


@pytest.mark.parametrize(
    ("way", "kind"),
    [
        *(("UP_QR", "codeUrl"), ("UP_PC", "form"), ("UP_WAP", "form"), ("UP_APP", "ysfapp")),
        *(("UP_BAR", "none"), ("YSF_BAR", "none"), ("AUTO_BAR", "none"), ("UP_B2B", "form")),
    ],
)
async def test_unionpays_ways_are_paid_queried_and_given_back(
    stage: Stage, at_unionpay: Program, way: str, kind: str
) -> None:
    code = await stage.code("unionpay") if kind == "none" else ""
    while code and not is_luhn(code):  # one that cannot be told from a card's number
        code = await stage.code("unionpay")
    made = (await at_unionpay.order(way, channelExtra=json.dumps({"authCode": code}))).data
    assert (made["orderState"], made["payDataType"]) == (1, kind)
    if kind == "form":
        inputs = re.findall(r'name="([^"]+)" value="([^"]*)"', made["payData"])
        await stage.control("unionpay/visit", fields={name: unescape(v) for name, v in inputs})
    elif code:
        await stage.advance(seconds=5)
    else:
        await stage.customer(payment_of(made))
    await stage.idle()

    said = (await at_unionpay.call("pay/query", mchOrderNo=made["mchOrderNo"])).data
    assert (said["state"], said["ifCode"], said["wayCode"]) == (2, "ysfpay", way)
    back = (await at_unionpay.refund(made, 1999)).data
    await stage.advance(seconds=30)
    assert await at_unionpay.refund_state(back) == 2
    assert await at_unionpay.state(made) == 5


async def test_companies_pay_by_the_same_account(at_unionpay: Program) -> None:
    made = (await at_unionpay.order("UP_B2B")).data
    assert (made["orderState"], made["payDataType"]) == (1, "form")
    assert 'name="bizType" value="000202"' in made["payData"]


async def test_a_picture_is_of_a_known_order_only(program: Program) -> None:
    for name in ("pay_00000000000000000000000000", "cko_1", "../x", "ref_1"):
        assert (await program.get(f"/api/pay/code/{name}")).status_code == 404


async def test_a_customer_can_come_back_without_a_page_of_the_merchants(program: Program) -> None:
    assert "返回商户" in (await program.get("/api/pay/returned")).text


@pytest.mark.parametrize("way", ["YSF_JSAPI", "UP_JSAPI", "ALI_OC", "PP_PC", "wx_native", "x" * 32])
async def test_what_cannot_be_done_is_refused_in_jeepays_words(program: Program, way: str) -> None:
    said = await program.order(way)
    assert (said.http, said.code, said.sign) == (200, 9999, None)
    assert "不支持该支付方式" in said.msg
    assert "jeepay.way_not_offered: wayCode" in said.msg


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"divisionMode": 1}, "jeepay.division_not_offered: divisionMode"),
        ({"amount": 0}, "money.amount_out_of_range"),
        ({"amount": "9" * 30}, "money.amount_out_of_range"),
        ({"amount": 9 * 10**15 + 1}, "money.amount_out_of_range"),
        ({"amount": "19.99"}, "request.wrong_type: amount"),
        ({"currency": "usd"}, "price.not_agreed"),
        ({"currency": "yuan"}, "request.invalid_value: currency"),
        ({"mchOrderNo": "订单"}, "request.invalid_value: mchOrderNo"),
        ({"mchOrderNo": ""}, "request.missing_field: mchOrderNo"),
        ({"expiredTime": 5}, "request.invalid_value: expiredTime"),
        ({"notifyUrl": "ftp://shop.example/n"}, "webhook.url_not_allowed: notifyUrl"),
        ({"notifyUrl": "http://shop.example/n"}, "webhook.url_not_allowed: notifyUrl"),
        ({"returnUrl": "javascript:alert(1)"}, "checkout.return_url_unsafe: returnUrl"),
        ({"channelExtra": "{'a'"}, "jeepay.fields_unreadable: channelExtra"),
        ({"wayCode": "UP_QR"}, "price.not_agreed"),
        ({"wayCode": "UP_B2B"}, "price.not_agreed"),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_is_made(
    stage: Stage, program: Program, more: dict[str, Any], code: str
) -> None:
    number = {"mchOrderNo": new_number(), **more}["mchOrderNo"]

    said = await program.order("WX_NATIVE", **{"mchOrderNo": number, **more})

    assert (said.http, said.code) == (200, 9999)
    assert code in said.msg
    assert not await stage.db.fetch("select 1 from jeepay_order where mch_order_no = $1", (number,))


async def test_a_message_speaks_the_programs_language(program: Program) -> None:
    body = program.signed({"mchOrderNo": "none"})
    english = await program.post("pay/query", json=body, headers={"accept-language": "en"})
    assert english.json()["msg"].startswith("The merchant has made no such order")
    assert "订单不存在" in (await program.post("pay/query", json=body)).json()["msg"]


async def test_a_form_is_taken_like_json(program: Program) -> None:
    number = new_number()
    fields = {"mchOrderNo": number, "wayCode": "WX_NATIVE", "amount": "1999", "currency": "cny"}
    body = program.signed({**fields, "subject": "两杯茶 & more", "body": "", "extParam": ""})
    kind = {"content-type": "application/x-www-form-urlencoded; charset=UTF-8"}

    made = program.heard(
        await program.post("pay/unifiedOrder", content=urlencode(body), headers=kind)
    )

    assert made.data["mchOrderNo"] == number
    assert (await program.call("pay/query", mchOrderNo=number)).data["subject"] == "两杯茶 & more"


async def test_a_suspended_merchant_takes_nothing_new_and_gives_back(
    stage: Stage, program: Program
) -> None:
    shop = await stage.open_shop()
    async with program_of(stage, shop) as one:
        made = (await one.order("WX_NATIVE")).data
        await stage.customer(payment_of(made))
        await stage.idle()
        async with stage.db.begin("operator") as tx:
            await set_suspended(tx, shop.merchant.id, suspended=True, because="a test")

        assert "merchant.suspended" in (await one.order("WX_NATIVE")).msg
        assert (await one.refund(made, 100)).code == 0


# --- the number stands for one request ----------------------------------------------------------


async def test_a_repeat_finds_the_order_and_another_request_is_refused(
    stage: Stage, program: Program
) -> None:
    number = new_number()
    first = await program.order("WX_NATIVE", mchOrderNo=number)

    again = await program.order("WX_NATIVE", mchOrderNo=number, clientIp="1.2.3.4")
    assert again.data == first.data
    for changed in ({"amount": 1}, {"subject": "tea"}, {"notifyUrl": f"{stage.url}/n"}):
        other = await program.order("WX_NATIVE", **{"mchOrderNo": number, **changed})
        assert "jeepay.order_differs: mchOrderNo" in other.msg
    assert "jeepay.order_differs" in (await program.order("QR_CASHIER", mchOrderNo=number)).msg
    rows = await stage.db.fetch("select 1 from payment where merchant_order_no = $1", (number,))
    assert len(rows) == 1


async def test_a_replayed_request_does_nothing_twice(stage: Stage, program: Program) -> None:
    """The contract has no nonce; every call stands under a number of the merchant's."""
    code = await stage.code("wechat_pay")
    fields = {"mchOrderNo": new_number(), "wayCode": "AUTO_BAR", "amount": 700, "currency": "cny"}
    extra = json.dumps({"authCode": code})
    body = program.signed({**fields, "subject": "tea", "channelExtra": extra})

    heard = [program.heard(await program.post("pay/unifiedOrder", json=body)) for _ in range(3)]

    assert {each.data["payOrderId"] for each in heard} == {heard[0].data["payOrderId"]}
    postings = await stage.postings(payment_of(heard[0].data))
    assert [name for name, _ in postings].count("payment.captured/gross") == 1


async def test_the_same_number_at_the_same_time_makes_one_order(
    stage: Stage, program: Program
) -> None:
    number = new_number()
    heard = await asyncio.gather(
        *(program.order("ALI_QR", mchOrderNo=number) for _ in range(6)), return_exceptions=True
    )

    said = [each for each in heard if not isinstance(each, BaseException)]
    assert len(said) == 6
    assert {each.code for each in said} <= {0, 10}, "done, or not decided yet"
    assert len({each.data["payOrderId"] for each in said if each.code == 0}) == 1
    rows = await stage.db.fetch("select 1 from payment where merchant_order_no = $1", (number,))
    assert len(rows) == 1


async def test_an_order_number_of_the_api_is_taken_here_too(stage: Stage, program: Program) -> None:
    made = await stage.show_qr("wechat_pay", 500)
    said = await program.order("WX_NATIVE", 600, mchOrderNo=made["merchant_order_no"])
    assert "payment.order_no_used" in said.msg


# --- the cashier --------------------------------------------------------------------------------


async def test_an_order_on_our_page_is_paid_there(stage: Stage, program: Program) -> None:
    made = await program.order("QR_CASHIER", returnUrl="https://shop.example/o/1")
    assert (made.data["orderState"], made.data["payDataType"]) == (0, "codeUrl")
    assert made.data["payOrderId"].startswith("cko_")
    path = urlsplit(made.data["payData"]).path
    assert path.startswith("/pay/c/")

    async with httpx.AsyncClient(base_url=stage.url, headers={"origin": stage.url}) as customer:
        assert "¥" in (await customer.get(path)).text
        await customer.post(f"{path}/method", data={"method": "wechat_pay.qr"})
    assert await program.state(made.data) == 1
    [row] = await stage.db.fetch(
        "select id from payment where merchant_order_no = $1", (made.data["mchOrderNo"],)
    )
    await stage.customer({"id": show("pay", row["id"]), "object": "payment"})
    await stage.idle()

    assert await program.state(made.data) == 2
    given = await program.refund(made.data, 1999)
    assert given.code == 0, given.msg
    await stage.advance(seconds=10)
    assert await program.refund_state(given.data) == 2
    assert await program.state(made.data) == 5


async def test_a_page_can_be_a_picture_or_an_address(program: Program) -> None:
    for wanted, kind in (("payUrl", "payurl"), ("codeImgUrl", "codeImgUrl")):
        extra = json.dumps({"payDataType": wanted})
        made = await program.order("QR_CASHIER", channelExtra=extra, expiredTime=600)
        assert made.data["payDataType"] == kind
        assert (await program.get(urlsplit(made.data["payData"]).path)).status_code == 200
    short = await program.order("QR_CASHIER", expiredTime=60)
    assert "request.invalid_value: expiredTime" in short.msg


async def test_a_page_nobody_pays_on_is_called_off(program: Program) -> None:
    made = (await program.order("QR_CASHIER")).data

    closed = await program.call("pay/close", payOrderId=made["payOrderId"])

    assert (closed.code, closed.data["orderState"]) == (0, 6)
    assert await program.state(made) == 6
    assert "refund.payment_not_captured" in (await program.refund(made, 1)).msg


# --- close and refund ---------------------------------------------------------------------------


async def test_an_unpaid_order_is_closed_and_a_paid_one_is_not(
    stage: Stage, program: Program
) -> None:
    made = (await program.order("WX_NATIVE")).data
    assert (await program.call("pay/close", mchOrderNo=made["mchOrderNo"])).code == 0
    assert await program.state(made) == 6
    assert (await program.call("pay/close", payOrderId=made["payOrderId"])).code == 0

    paid = (await program.order("WX_NATIVE")).data
    await stage.customer(payment_of(paid))
    await stage.idle()
    assert "jeepay.order_ended" in (await program.call("pay/close", **_named(paid))).msg
    assert await program.state(paid) == 2


async def test_a_refund_is_made_once_and_queried(stage: Stage, program: Program) -> None:
    paid = (await program.order("ALI_QR")).data
    await stage.customer(payment_of(paid))
    await stage.idle()
    number = new_number()

    first = await program.refund(paid, 500, mchRefundNo=number, extParam="r7")
    again = await program.refund(paid, 500, mchRefundNo=number, extParam="r7")
    other = await program.refund(paid, 501, mchRefundNo=number, extParam="r7")

    assert first.data["state"] in {1, 2}
    assert first.data["refundOrderId"] == again.data["refundOrderId"]
    assert (first.data["payAmount"], first.data["refundAmount"]) == (1999, 500)
    assert "jeepay.refund_differs: mchRefundNo" in other.msg
    await stage.advance(seconds=10)
    said = (await program.call("refund/query", mchRefundNo=number)).data
    assert (said["state"], said["currency"], said["extParam"]) == (2, "cny", "r7")
    assert said["payOrderId"] == paid["payOrderId"]
    assert said["successTime"]
    assert await stage.given_back(payment_of(paid)) == [500]
    assert await program.state(paid) == 2


async def test_refunds_are_named_by_their_merchant_only(stage: Stage, program: Program) -> None:
    for named in ({}, {"refundOrderId": "ref_1"}, {"refundOrderId": "x"}, {"mchRefundNo": "none"}):
        assert "jeepay.refund_unknown" in (await program.call("refund/query", **named)).msg
    for named in ({}, {"payOrderId": "pay_1"}, {"payOrderId": "x"}, {"mchOrderNo": "none"}):
        assert "jeepay.order_unknown" in (await program.call("pay/query", **named)).msg
    made = (await program.order("WX_NATIVE")).data
    crossed = {"payOrderId": made["payOrderId"], "mchOrderNo": "another"}
    assert "jeepay.order_unknown" in (await program.call("pay/query", **crossed)).msg


def _named(order: dict[str, Any]) -> dict[str, str]:
    return {"payOrderId": order["payOrderId"], "mchOrderNo": order["mchOrderNo"]}


# --- words --------------------------------------------------------------------------------------


def test_every_way_names_a_way_of_paying_of_its_channel() -> None:
    assert {way.mode for way in ways.WAYS.values()} == set(PayMode) - {
        PayMode.AGREEMENT,
        PayMode.CARD,
    }
    chosen = ways.method_fields(ways.WAYS["UP_QR"], {}, {"unionpay_qra"}, "https://x.example")
    assert chosen == {"mode": "qr", "channel": "unionpay_qra"}
    assert ways.method_fields(ways.WAYS["UP_QR"], {}, set(), "")["channel"] == "unionpay"
    for way in ("UP_BAR", "YSF_BAR", "WX_BAR", "ALI_BAR"):
        charged = ways.method_fields(ways.WAYS[way], {}, {"unionpay_qra"}, "")
        assert charged["channel"] == "unionpay_qra"


def test_what_is_next_is_said_as_each_kind_of_client_takes_it() -> None:
    form = ways.shown(SubmitForm("https://gate.example/x", {"a": '"<&'}), "", "p")
    assert form is not None
    assert form.kind == "form"
    assert 'method="post" action="https://gate.example/x"' in form.text
    assert "&quot;&lt;&amp;" in form.text
    went = ways.shown(Redirect("https://gate.example/x?a=1&b=%26"), "form", "p")
    assert went is not None
    assert '<input type="hidden" name="b" value="&amp;">' in went.text
    assert ways.shown(OpenApp({"tn": "123"}), "", "p") == ways.Shown("ysfapp", "123")
    assert ways.shown(ShowQr("code"), "codeImgUrl", "p") == ways.Shown("codeImgUrl", "p")
    assert ways.shown(None, "", "p") is None
