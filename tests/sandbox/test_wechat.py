"""WeChat Pay v3 as a merchant meets it on the wire: headers, signatures, orders, refunds."""

import itertools
import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.sandbox.inbox import Inbox
from tests.sandbox.wechat_merchant import WechatMerchant
from tongbao_sandbox.launch import RunningSandbox

ILL_FORMED = "Http头Authorization值格式错误，请参考《微信支付商户REST API签名规则》"
STALE = "Http头Authorization中的timestamp与发起请求的时间不得超过5分钟"
POLITE = {"Accept": "application/json", "User-Agent": "tests"}
PAY = "/v3/pay/transactions/native"
CERTIFICATES = "/v3/certificates"
VECTORS = Path(__file__).parents[1] / "vectors" / "wechat_objects"


def vector(name: str) -> Any:
    return json.loads((VECTORS / name).read_text(encoding="utf-8-sig"))


def shape(value: Any) -> Any:
    """The names and types of an object, values aside."""
    if isinstance(value, dict):
        return {name: shape(part) for name, part in sorted(value.items())}
    return type(value).__name__


# Signatures and headers ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "target", "message"),
    [
        ("POST", PAY, "签名信息错误，验签失败"),
        ("GET", CERTIFICATES, ILL_FORMED),
        ("POST", "/v3/refund/domestic/refunds", ILL_FORMED),
        ("GET", "/v3/bill/tradebill?bill_date=2026-01-01", ILL_FORMED),
    ],
)
@pytest.mark.parametrize("authorization", ["", "Basic x", 'WECHATPAY2-SHA256-RSA2048 mchid="1"'])
def test_no_or_ill_formed_authorization(
    merchant: WechatMerchant, method: str, target: str, message: str, authorization: str
) -> None:
    answer = merchant.raw(method, target, b"", {**POLITE, "Authorization": authorization})
    assert (answer.status, answer.json) == (401, {"code": "SIGN_ERROR", "message": message})
    assert ("request-id" in answer.headers) is not target.startswith("/v3/pay/")
    assert not answer.signed


@pytest.mark.parametrize("age_s", [301, -301, 10**9])
def test_the_time_window_is_checked_before_the_signature(
    merchant: WechatMerchant, age_s: int
) -> None:
    said = merchant.authorization("GET", "/another/path", b"", age_s=age_s)
    answer = merchant.raw("GET", CERTIFICATES, b"", {**POLITE, "Authorization": said})
    assert (answer.status, answer.json["message"]) == (401, STALE)


def test_the_window_is_on_real_time_whatever_the_virtual_clock_says(
    sandbox: RunningSandbox, merchant: WechatMerchant
) -> None:
    sandbox.advance(3600)
    assert merchant.call("GET", CERTIFICATES).status == 200


def test_a_forged_signature_is_told_apart_from_a_missing_one(merchant: WechatMerchant) -> None:
    body = json.dumps(merchant.native_body(merchant.number())).encode()
    cases = [
        merchant.authorization("POST", PAY, body + b" "),
        merchant.authorization("GET", PAY, body),
        merchant.authorization("POST", PAY + "?x=1", body),
        merchant.authorization("POST", PAY, body, mchid="1900000001"),
    ]
    for said in cases:
        answer = merchant.raw("POST", PAY, body, {**POLITE, "Authorization": said})
        assert (answer.status, answer.json["message"]) == (401, "签名错误")
        assert "request-id" not in answer.headers


def test_signing_the_address_with_the_mount_point_is_accepted_too(merchant: WechatMerchant) -> None:
    said = merchant.authorization("GET", f"/wechat{CERTIFICATES}", b"")
    assert merchant.raw("GET", CERTIFICATES, b"", {**POLITE, "Authorization": said}).signed


@pytest.mark.parametrize("missing", ["Accept", "User-Agent"])
def test_a_missing_header_is_seen_before_or_after_the_signature_by_route(
    merchant: WechatMerchant, missing: str
) -> None:
    rude = {name: value for name, value in POLITE.items() if name != missing}
    early = merchant.raw("GET", CERTIFICATES, b"", rude)
    assert (early.status, early.code) == (400, "INVALID_REQUEST")
    assert early.json["message"] == "Http头缺少Accept或User-Agent"
    late = merchant.raw("POST", PAY, b"", rude)
    assert (late.status, late.code) == (401, "SIGN_ERROR")


def test_every_success_is_signed_even_an_empty_one_and_no_failure_is(
    merchant: WechatMerchant,
) -> None:
    number = merchant.number()
    placed = merchant.native(number)
    assert placed.signed
    assert placed.headers["wechatpay-signature-type"] == "WECHATPAY2-SHA256-RSA2048"
    assert placed.headers["wechatpay-serial"] == merchant.keys["platform_serial"]
    assert placed.headers["request-id"]
    closed = merchant.close(number)
    assert (closed.status, closed.content, closed.signed) == (204, b"", True)
    refused = merchant.query("nosuchorder")
    assert refused.status == 404
    assert "wechatpay-signature" not in refused.headers


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/v3/nowhere", 404),
        ("POST", "/v3/pay/transactions/facepay", 404),
        ("DELETE", PAY, 405),
        ("POST", CERTIFICATES, 405),
        ("GET", "/", 404),
    ],
)
def test_unknown_routes_and_methods_answer_with_an_empty_body(
    merchant: WechatMerchant, method: str, target: str, status: int
) -> None:
    answer = merchant.call(method, target)
    assert (answer.status, answer.content) == (status, b"")


def test_the_platform_certificate_comes_encrypted(merchant: WechatMerchant) -> None:
    answer = merchant.call("GET", CERTIFICATES)
    assert answer.signed
    [entry] = answer.json["data"]
    assert shape(entry) == shape(vector("Certificates__QueryCertificatesResponse.json")["data"][0])
    sealed = entry["encrypt_certificate"]
    assert all(sealed.values())
    plain = AESGCM(merchant.keys["api_v3_key"].encode()).decrypt(
        sealed["nonce"].encode(),
        b64decode(sealed["ciphertext"]),
        sealed["associated_data"].encode(),
    )
    certificate = x509.load_pem_x509_certificate(plain)
    assert f"{certificate.serial_number:040X}" == entry["serial_no"]


def test_a_merchant_in_public_key_mode_is_answered_with_that_key(merchant: WechatMerchant) -> None:
    key_id = merchant.keys["public_key_id"]
    answer = merchant.call("GET", CERTIFICATES, **{"Wechatpay-Serial": key_id})
    assert answer.headers["wechatpay-serial"] == key_id
    assert not answer.signed, "another key than the certificate's"


# Native orders --------------------------------------------------------------------------------


def test_an_order_is_placed_paid_and_queried_field_by_field(
    merchant: WechatMerchant, sandbox: RunningSandbox
) -> None:
    number = merchant.number()
    placed = merchant.native(number, attach="")
    assert set(placed.json) == {"code_url"}
    assert placed.json["code_url"].startswith("weixin://wxpay/bizpayurl?pr=")
    waiting = merchant.query(number).json
    assert (waiting["trade_state"], waiting["trade_state_desc"]) == ("NOTPAY", "订单未支付")
    assert "transaction_id" not in waiting
    merchant.scan(placed.json["code_url"])
    sandbox.settle()
    paid = merchant.query(number)
    assert paid.signed
    wanted = vector("PayTransactions__GetPayTransactionByOutTradeNumberResponse.json")
    assert shape(paid.json) == shape(wanted)
    assert paid.json["trade_state"] == "SUCCESS"
    assert paid.json["trade_type"] == "NATIVE"
    assert len(paid.json["transaction_id"]) == 28
    by_id = f"/v3/pay/transactions/id/{paid.json['transaction_id']}?mchid={merchant.mchid}"
    assert merchant.call("GET", by_id).json == paid.json


def test_the_same_order_again_is_the_same_order(merchant: WechatMerchant) -> None:
    number = merchant.number()
    assert merchant.native(number).json == merchant.native(number).json


def test_the_same_number_for_something_else_is_refused(merchant: WechatMerchant) -> None:
    number = merchant.number()
    merchant.native(number)
    for other in (
        merchant.native(number, 101),
        merchant.native(number, attach="other"),
        merchant.codepay(number, merchant.auth_code()),
    ):
        assert (other.status, other.code) == (403, "OUT_TRADE_NO_USED")


def test_a_paid_or_closed_order_cannot_be_placed_again(merchant: WechatMerchant) -> None:
    paid = merchant.paid()
    assert (merchant.native(paid).status, merchant.native(paid).code) == (400, "ORDERPAID")
    closed = merchant.number()
    merchant.native(closed)
    merchant.close(closed)
    assert (merchant.native(closed).status, merchant.native(closed).code) == (400, "ORDER_CLOSED")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"description": ""}, "/description"),
        ({"description": "字" * 128}, "/description"),
        ({"out_trade_no": "with space"}, "/out_trade_no"),
        ({"out_trade_no": "n" * 33}, "/out_trade_no"),
        ({"amount": {"total": 0}}, "/amount/total"),
        ({"amount": {"total": -1}}, "/amount/total"),
        ({"amount": {"total": "100"}}, "/amount/total"),
        ({"amount": {"total": True}}, "/amount/total"),
        ({"amount": {"total": 1, "currency": "USD"}}, "/amount/currency"),
        ({"amount": None}, "/amount"),
        ({"notify_url": "http://shop.example/notify"}, "/notify_url"),
        ({"notify_url": "https://shop.example/notify?a=1"}, "/notify_url"),
        ({"time_expire": "tomorrow"}, "/time_expire"),
        ({"time_expire": "2020-01-01T00:00:00+08:00"}, "/time_expire"),
        ({"mchid": "1900000001"}, "/mchid"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_it_held(
    merchant: WechatMerchant, change: dict[str, Any], field: str
) -> None:
    number = merchant.number()
    answer = merchant.call("POST", PAY, merchant.native_body(number) | change)
    assert (answer.status, answer.code) == (400, "PARAM_ERROR")
    assert set(answer.json["detail"]) == {"field", "value", "issue", "location"}
    assert answer.json["detail"]["field"] == field
    assert answer.json["detail"]["location"] == "body"
    assert merchant.query(number).code == "ORDER_NOT_EXIST"


def test_a_body_that_is_no_object_and_a_foreign_appid_are_refused(merchant: WechatMerchant) -> None:
    assert merchant.call("POST", PAY, ["x"]).code == "PARAM_ERROR"
    body = merchant.native_body(merchant.number()) | {"appid": "wxother"}
    assert merchant.call("POST", PAY, body).code == "APPID_MCHID_NOT_MATCH"


def test_a_query_needs_the_merchant_number(merchant: WechatMerchant) -> None:
    answer = merchant.call("GET", "/v3/pay/transactions/out-trade-no/abc?mchid=1")
    assert (answer.status, answer.json["detail"]["location"]) == (400, "query")


def test_an_unpaid_order_closes_when_its_time_is_over(
    merchant: WechatMerchant, sandbox: RunningSandbox
) -> None:
    number = merchant.number()
    code_url = merchant.native(number).json["code_url"]
    sandbox.advance(7 * 86400 + 1)
    assert merchant.query(number).json["trade_state"] == "CLOSED"
    with pytest.raises(ValueError, match="closed"):
        merchant.scan(code_url)


def test_a_code_is_good_for_two_hours(merchant: WechatMerchant, sandbox: RunningSandbox) -> None:
    code_url = merchant.native(merchant.number()).json["code_url"]
    sandbox.advance(2 * 3600 + 1)
    with pytest.raises(ValueError, match="two hours"):
        merchant.scan(code_url)


def test_a_customer_may_decline_or_walk_away_and_come_back(merchant: WechatMerchant) -> None:
    number = merchant.number()
    code_url = merchant.native(number).json["code_url"]
    assert merchant.scan(code_url, "decline")["trade_state"] == "NOTPAY"
    assert merchant.scan(code_url, "abandon")["trade_state"] == "NOTPAY"
    assert merchant.scan(code_url)["trade_state"] == "SUCCESS"
    with pytest.raises(ValueError, match="paid"):
        merchant.scan(code_url)


def test_a_customer_may_pay_later(merchant: WechatMerchant, sandbox: RunningSandbox) -> None:
    number = merchant.number()
    merchant.scan(merchant.native(number).json["code_url"], after_s=120)
    sandbox.advance(119)
    assert merchant.query(number).json["trade_state"] == "NOTPAY"
    sandbox.advance(2)
    assert merchant.query(number).json["trade_state"] == "SUCCESS"


def test_closing(merchant: WechatMerchant) -> None:
    number = merchant.number()
    assert (merchant.close(number).status, merchant.close(number).code) == (404, "ORDER_NOT_EXIST")
    merchant.native(number)
    assert merchant.close(number).status == 204
    assert merchant.close(number).status == 204, "twice is as good as once"
    assert merchant.query(number).json["trade_state"] == "CLOSED"
    paid = merchant.paid()
    assert (merchant.close(paid).status, merchant.close(paid).code) == (400, "ORDERPAID")


# Payment codes --------------------------------------------------------------------------------


def test_a_payment_code_pays_at_once(merchant: WechatMerchant, inbox: Inbox) -> None:
    number, auth_code = merchant.number(), merchant.auth_code()
    assert len(auth_code) == 18
    assert 10 <= int(auth_code[:2]) <= 15
    answer = merchant.codepay(number, auth_code)
    assert (answer.status, answer.json["trade_state"]) == (200, "SUCCESS")
    assert answer.json["trade_type"] == "MICROPAY"
    wanted = shape(vector("PayTransactions__CreatePayTransactionCodePayResponse.json"))
    assert set(wanted) <= set(shape(answer.json))
    assert merchant.query(number).json == answer.json
    assert merchant.codepay(number, auth_code).json == answer.json, "the same again"
    assert not inbox.letters, "there is no address to call"


def test_a_payment_code_is_used_once_and_lives_a_minute(
    merchant: WechatMerchant, sandbox: RunningSandbox
) -> None:
    used = merchant.auth_code()
    merchant.codepay(merchant.number(), used)
    old = merchant.auth_code()
    sandbox.advance(61)
    for auth_code, code in (
        (used, "AUTH_CODE_INVALID"),
        (old, "AUTH_CODE_EXPIRED"),
        ("100000000000000000", "AUTH_CODE_INVALID"),
    ):
        number = merchant.number()
        answer = merchant.codepay(number, auth_code)
        assert (answer.status, answer.code) == (400, code)
        assert merchant.query(number).code == "ORDER_NOT_EXIST"
    assert merchant.codepay(merchant.number(), "281234567890123456").code == "PARAM_ERROR"


def test_a_customer_without_money_is_declined(merchant: WechatMerchant) -> None:
    number = merchant.number()
    answer = merchant.codepay(number, merchant.auth_code("decline"))
    assert (answer.status, answer.code) == (403, "NOT_ENOUGH")
    assert merchant.query(number).json["trade_state"] == "PAYERROR"


def test_a_customer_who_is_asked_pays_later(
    merchant: WechatMerchant, sandbox: RunningSandbox
) -> None:
    number = merchant.number()
    answer = merchant.codepay(number, merchant.auth_code("ask_then_pay", after_s=12))
    assert (answer.status, answer.json["trade_state"]) == (200, "USERPAYING")
    sandbox.advance(11)
    assert merchant.query(number).json["trade_state"] == "USERPAYING"
    sandbox.advance(2)
    assert merchant.query(number).json["trade_state"] == "SUCCESS"


def test_a_customer_who_is_asked_may_cancel_or_think_for_ever(
    merchant: WechatMerchant, sandbox: RunningSandbox
) -> None:
    cancelled, forever = merchant.number(), merchant.number()
    merchant.codepay(cancelled, merchant.auth_code("cancel"))
    merchant.codepay(forever, merchant.auth_code("ask_forever"))
    sandbox.advance(86400)
    states = [merchant.query(number).json["trade_state"] for number in (cancelled, forever)]
    assert states == ["PAYERROR", "USERPAYING"]


def test_a_customer_who_is_asked_can_be_told_what_to_do(
    merchant: WechatMerchant, sandbox: RunningSandbox
) -> None:
    number = merchant.number()
    merchant.codepay(number, merchant.auth_code("ask"))
    sandbox.post("customer/scan", channel="wechat", number=number, action="pay")
    assert merchant.query(number).json["trade_state"] == "SUCCESS"


def test_user_paying_may_come_as_an_error_instead(
    merchant: WechatMerchant, sandbox: RunningSandbox
) -> None:
    sandbox.post("settings", **{"wechat.userpaying": "error"})
    answer = merchant.codepay(merchant.number(), merchant.auth_code("ask"))
    sandbox.post("settings", **{"wechat.userpaying": "object"})
    assert (answer.status, answer.code, answer.signed) == (202, "USERPAYING", True)


@pytest.mark.parametrize("behaviour", ["pay", "ask", "decline"])
def test_reversing_undoes_whatever_happened(merchant: WechatMerchant, behaviour: str) -> None:
    number = merchant.number()
    merchant.codepay(number, merchant.auth_code(behaviour))
    answer = merchant.reverse(number)
    wanted = vector("PayTransactions__ReversePayTransactionResponse.json")
    assert shape(answer.json) == shape(wanted)
    assert merchant.reverse(number).json == answer.json, "twice is as good as once"
    assert merchant.query(number).json["trade_state"] == "REVOKED"


def test_a_reversed_order_is_not_paid_by_a_password_typed_too_late(
    merchant: WechatMerchant, sandbox: RunningSandbox
) -> None:
    number = merchant.number()
    merchant.codepay(number, merchant.auth_code("ask_then_pay"))
    merchant.reverse(number)
    sandbox.advance(60)
    assert merchant.query(number).json["trade_state"] == "REVOKED"


def test_only_payment_codes_are_reversed(merchant: WechatMerchant) -> None:
    number = merchant.paid()
    assert merchant.reverse(number).code == "INVALID_REQUEST"
    assert merchant.reverse(merchant.number()).code == "ORDER_NOT_EXIST"


# Refunds --------------------------------------------------------------------------------------


def test_a_refund_goes_through_and_the_callback_says_so(
    merchant: WechatMerchant, sandbox: RunningSandbox, inbox: Inbox
) -> None:
    number, refund_number = merchant.paid(), merchant.number()
    asked = merchant.refund(number, refund_number, 40)
    assert (asked.status, asked.json["status"], asked.signed) == (200, "PROCESSING", True)
    assert merchant.query(number).json["trade_state"] == "REFUND"
    inbox.letters.clear()
    sandbox.advance(2)
    done = merchant.query_refund(refund_number).json
    assert done["status"] == "SUCCESS"
    wanted = shape(vector("Refund__GetRefundDomesticRefundByOutRefundNumberResponse.json"))
    assert set(wanted) <= set(shape(done))
    assert set(wanted["amount"]) <= set(shape(done)["amount"])
    [letter] = inbox.letters
    opened = merchant.opened(letter)
    assert (opened["event_type"], opened["summary"]) == ("REFUND.SUCCESS", "退款成功")
    assert opened["resource_type"] == "encrypt-resource"
    assert shape(opened["resource"]) == shape(vector("Refund__RefundResource.json"))
    assert opened["resource"]["refund_status"] == "SUCCESS"
    assert opened["resource"]["out_refund_no"] == refund_number


def test_the_same_refund_again_is_the_same_refund(merchant: WechatMerchant) -> None:
    number, refund_number = merchant.paid(), merchant.number()
    first = merchant.refund(number, refund_number, 60).json
    again = merchant.refund(number, refund_number, 60).json
    assert first["refund_id"] == again["refund_id"]
    other = merchant.refund(number, refund_number, 61)
    assert (other.status, other.code) == (400, "INVALID_REQUEST")


def test_no_more_can_be_refunded_than_was_paid(merchant: WechatMerchant) -> None:
    number = merchant.paid()
    merchant.refund(number, merchant.number(), 60)
    over = merchant.refund(number, merchant.number(), 41)
    assert (over.status, over.code) == (400, "INVALID_REQUEST")
    assert merchant.refund(number, merchant.number(), 40).status == 200


def test_refunds_of_unknown_unpaid_or_misquoted_orders_are_refused(
    merchant: WechatMerchant,
) -> None:
    unpaid = merchant.number()
    merchant.native(unpaid)
    assert merchant.refund(unpaid, merchant.number(), 1).code == "INVALID_REQUEST"
    assert merchant.refund(merchant.paid(), merchant.number(), 1, total=99).status == 400
    unknown = merchant.refund("nosuchorder", merchant.number(), 1)
    assert (unknown.status, unknown.code) == (404, "RESOURCE_NOT_EXISTS")
    query = merchant.query_refund("nosuchrefund")
    assert (query.status, query.code) == (404, "RESOURCE_NOT_EXISTS")


def test_a_refund_can_name_the_order_by_our_number(merchant: WechatMerchant) -> None:
    number = merchant.paid()
    body = {
        "transaction_id": merchant.query(number).json["transaction_id"],
        "out_refund_no": merchant.number(),
        "amount": {"refund": 1, "total": 100, "currency": "CNY"},
    }
    answer = merchant.call("POST", "/v3/refund/domestic/refunds", body)
    assert answer.json["out_trade_no"] == number
    del body["transaction_id"]
    assert merchant.call("POST", "/v3/refund/domestic/refunds", body).code == "PARAM_ERROR"


# Callbacks ------------------------------------------------------------------------------------


def test_a_payment_is_told_signed_and_encrypted(merchant: WechatMerchant, inbox: Inbox) -> None:
    number = merchant.paid()
    [letter] = inbox.letters
    assert merchant.verifies(letter.headers, letter.body)
    assert letter.headers["wechatpay-signature-type"] == "WECHATPAY2-SHA256-RSA2048"
    sealed = json.loads(letter.body)
    assert set(sealed) == {
        *("id", "create_time", "resource_type", "event_type", "summary", "resource")
    }
    assert set(sealed["resource"]) == {
        *("original_type", "algorithm", "ciphertext", "associated_data", "nonce")
    }
    opened = merchant.opened(letter)
    assert opened["event_type"] == "TRANSACTION.SUCCESS"
    assert opened["resource"] == merchant.query(number).json


def test_a_wrong_amount_has_a_right_signature(
    merchant: WechatMerchant, sandbox: RunningSandbox, inbox: Inbox
) -> None:
    sandbox.fault("wechat", "callback", "wrong_amount")
    merchant.paid()
    [letter] = inbox.letters
    assert merchant.verifies(letter.headers, letter.body)
    assert merchant.opened(letter)["resource"]["amount"]["total"] == 101


def test_a_signature_probe_is_recognisable_and_goes_with_the_true_callback(
    merchant: WechatMerchant, sandbox: RunningSandbox, inbox: Inbox
) -> None:
    sandbox.fault("wechat", "callback", "signtest")
    number = merchant.paid()
    signatures = sorted(letter.headers["wechatpay-signature"] for letter in inbox.letters)
    assert len(signatures) == 2
    assert sum(one.startswith("WECHATPAY/SIGNTEST/") for one in signatures) == 1
    inbox.letters.clear()
    sandbox.post("wechat/probe", number=number)
    sandbox.settle()
    [probe] = inbox.letters
    assert probe.headers["wechatpay-signature"].startswith("WECHATPAY/SIGNTEST/")


def test_probes_can_come_with_every_nth_callback(
    merchant: WechatMerchant, sandbox: RunningSandbox, inbox: Inbox
) -> None:
    sandbox.post("settings", **{"wechat.signtest_every": 2})
    for _ in range(4):
        merchant.paid()
    sandbox.post("settings", **{"wechat.signtest_every": 0})
    assert len(inbox.letters) == 6


# Faults ---------------------------------------------------------------------------------------


def silent(merchant: WechatMerchant, call: Any) -> None:
    with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.ReadTimeout)):
        call(merchant)


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        ("time_out_paid", "SUCCESS"),
        ("time_out_made", "NOTPAY"),
        ("time_out_unpaid", None),
        ("reset", None),
    ],
)
def test_pay_that_never_answers(
    merchant: WechatMerchant, sandbox: RunningSandbox, fault: str, state: str | None
) -> None:
    number = merchant.number()
    sandbox.fault("wechat", "pay", fault, number=number)
    silent(merchant, lambda shop: shop.native(number))
    answer = merchant.query(number)
    assert answer.json.get("trade_state") == state
    assert (answer.status == 404) is (state is None)


@pytest.mark.parametrize(
    ("fault", "status", "state"),
    [
        ("http_500_paid", 500, "SUCCESS"),
        ("http_500_unpaid", 500, None),
        ("http_429", 429, None),
        ("bad_signature_paid", 200, "SUCCESS"),
    ],
)
def test_pay_that_answers_badly(
    merchant: WechatMerchant,
    sandbox: RunningSandbox,
    fault: str,
    status: int,
    state: str | None,
) -> None:
    number = merchant.number()
    sandbox.fault("wechat", "pay", fault, number=number)
    answer = merchant.codepay(number, merchant.auth_code("ask_forever"))
    assert (answer.status, answer.signed) == (status, False)
    assert merchant.query(number).json.get("trade_state") == state


def test_a_reset_is_a_reset_and_a_hold_is_not(
    merchant: WechatMerchant, sandbox: RunningSandbox
) -> None:
    for fault, error in (("reset", httpx2.ReadError), ("time_out_unpaid", httpx2.TransportError)):
        sandbox.fault("wechat", "pay", fault)
        with pytest.raises(error):
            merchant.native(merchant.number())


def test_slow_answers_are_answers(merchant: WechatMerchant, sandbox: RunningSandbox) -> None:
    sandbox.fault("wechat", "pay", "slow:0.2")
    assert merchant.native(merchant.number()).signed


@pytest.mark.parametrize(("fault", "status"), [("http_500", 500), ("http_429", 429)])
def test_a_query_that_fails_tells_nothing(
    merchant: WechatMerchant, sandbox: RunningSandbox, fault: str, status: int
) -> None:
    number = merchant.paid()
    sandbox.fault("wechat", "query", fault)
    assert merchant.query(number).status == status
    assert merchant.query(number).status == 200


def test_a_stale_query_lags_behind(merchant: WechatMerchant, sandbox: RunningSandbox) -> None:
    number = merchant.paid()
    sandbox.fault("wechat", "query", "stale", number=number)
    stale = merchant.query(number).json
    assert stale["trade_state"] == "NOTPAY"
    assert "transaction_id" not in stale
    assert merchant.query(number).json["trade_state"] == "SUCCESS"


@pytest.mark.parametrize(("fault", "done"), [("time_out_done", True), ("time_out_not_done", False)])
def test_a_refund_that_never_answers(
    merchant: WechatMerchant, sandbox: RunningSandbox, fault: str, done: bool
) -> None:
    number, refund_number = merchant.paid(), merchant.number()
    sandbox.fault("wechat", "refund", fault)
    silent(merchant, lambda shop: shop.refund(number, refund_number, 10))
    assert (merchant.query_refund(refund_number).status == 200) is done
    assert merchant.refund(number, refund_number, 10).status == 200, "the same number again"
    sandbox.advance(2)
    assert len(sandbox.get("refunds", number=refund_number)) == 1


def test_a_refund_can_stay_in_processing_until_told(
    merchant: WechatMerchant, sandbox: RunningSandbox, inbox: Inbox
) -> None:
    number, refund_number = merchant.paid(), merchant.number()
    sandbox.fault("wechat", "refund", "processing")
    merchant.refund(number, refund_number, 100)
    sandbox.advance(86400)
    assert merchant.query_refund(refund_number).json["status"] == "PROCESSING"
    inbox.letters.clear()
    sandbox.post("wechat/refund", number=refund_number, state="closed")
    sandbox.settle()
    assert merchant.query_refund(refund_number).json["status"] == "CLOSED"
    assert merchant.opened(inbox.letters[0])["event_type"] == "REFUND.CLOSED"
    assert merchant.refund(number, merchant.number(), 100).status == 200, "the money is free again"


def test_an_abnormal_refund_waits_for_another_account(
    merchant: WechatMerchant, sandbox: RunningSandbox, inbox: Inbox
) -> None:
    number, refund_number = merchant.paid(), merchant.number()
    sandbox.fault("wechat", "refund", "abnormal")
    merchant.refund(number, refund_number, 100)
    sandbox.advance(2)
    stuck = merchant.query_refund(refund_number).json
    assert stuck["status"] == "ABNORMAL"
    assert merchant.opened(inbox.letters[-1])["event_type"] == "REFUND.ABNORMAL"
    target = f"/v3/refund/domestic/refunds/{stuck['refund_id']}/apply-abnormal-refund"
    body = {"out_refund_no": refund_number, "type": "USER_BANK_CARD"}
    unreadable = merchant.call("POST", target, {**body, "bank_account": "x", "real_name": "y"})
    assert unreadable.json["detail"]["field"] == "/bank_account"
    sealed = {
        "bank_account": merchant.sealed("6214830000000000"),
        "real_name": merchant.sealed("张三"),
    }
    serial = merchant.keys["platform_serial"]
    sent = merchant.call("POST", target, {**body, **sealed}, **{"Wechatpay-Serial": serial})
    assert sent.json["status"] == "PROCESSING"
    sandbox.advance(2)
    assert merchant.query_refund(refund_number).json["status"] == "SUCCESS"


def test_a_merchant_without_balance_cannot_refund(
    merchant: WechatMerchant, sandbox: RunningSandbox
) -> None:
    number, refund_number = merchant.paid(), merchant.number()
    sandbox.fault("wechat", "refund", "not_enough")
    answer = merchant.refund(number, refund_number, 10)
    assert (answer.status, answer.code) == (403, "NOT_ENOUGH")
    assert merchant.query_refund(refund_number).status == 404


def test_a_close_that_never_answers_has_closed(
    merchant: WechatMerchant, sandbox: RunningSandbox
) -> None:
    number = merchant.number()
    merchant.native(number)
    sandbox.fault("wechat", "close", "time_out_done")
    silent(merchant, lambda shop: shop.close(number))
    assert merchant.query(number).json["trade_state"] == "CLOSED"


def test_a_customer_may_pay_just_before_the_close(
    merchant: WechatMerchant, sandbox: RunningSandbox, inbox: Inbox
) -> None:
    number = merchant.number()
    merchant.native(number)
    sandbox.fault("wechat", "close", "paid_just_before", number=number)
    answer = merchant.close(number)
    assert (answer.status, answer.code) == (400, "ORDERPAID")
    sandbox.settle()
    assert merchant.opened(inbox.letters[0])["resource"]["out_trade_no"] == number


def test_a_success_may_come_after_the_close(
    merchant: WechatMerchant, sandbox: RunningSandbox, inbox: Inbox
) -> None:
    number = merchant.number()
    merchant.native(number)
    sandbox.fault("wechat", "close", "late_success:30", number=number)
    assert merchant.close(number).status == 204
    assert merchant.query(number).json["trade_state"] == "CLOSED"
    sandbox.advance(31)
    assert merchant.query(number).json["trade_state"] == "SUCCESS"
    assert merchant.opened(inbox.letters[0])["event_type"] == "TRANSACTION.SUCCESS"


def test_a_payment_just_before_a_reverse_is_given_back(
    merchant: WechatMerchant, sandbox: RunningSandbox
) -> None:
    number = merchant.number()
    merchant.codepay(number, merchant.auth_code("ask_forever"))
    sandbox.fault("wechat", "close", "paid_just_before")
    assert merchant.reverse(number).status == 200
    trade = merchant.query(number).json
    assert trade["trade_state"] == "REVOKED"
    assert trade["transaction_id"], "it had been paid"


def test_faults_for_the_next_n_calls(merchant: WechatMerchant, sandbox: RunningSandbox) -> None:
    sandbox.fault("wechat", "query", "http_500", times=2)
    number = merchant.paid()
    statuses = [merchant.query(number).status for _ in itertools.repeat(None, 3)]
    assert statuses == [500, 500, 200]


def test_a_malformed_request_uses_up_no_fault(
    merchant: WechatMerchant, sandbox: RunningSandbox
) -> None:
    sandbox.fault("wechat", "pay", "http_429")
    merchant.native(merchant.number(), 0)
    assert merchant.native(merchant.number()).status == 429
