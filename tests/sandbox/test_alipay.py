"""The simulated Alipay as a merchant meets it: gateway, trades, refunds, notifications, bills."""

import http.client
import io
import json
import threading
import zipfile
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pytest

from tongbao.kernel.clock import BUSINESS_ZONE, business_date
from tongbao_sandbox.alipay import Alipay
from tongbao_sandbox.alipay_crypto import (
    NOTIFY_LEAVES_OUT,
    REQUEST_LEAVES_OUT,
    is_signed,
    load_private_key,
    load_public_key,
    sign,
    text_to_sign,
)
from tongbao_sandbox.launch import start_sandbox

NUMBERS = count(1)


class Merchant:
    """Signs requests and checks replies, as a merchant's SDK does."""

    def __init__(self, sandbox, inbox):
        self.sandbox = sandbox
        self.inbox = inbox
        self.shown = sandbox.credentials["alipay"]
        self.key = load_private_key(self.shown["app_private_key_pem"])
        self.alipay_key = load_public_key(self.shown["alipay_public_key_pem"])
        self.host = urlsplit(sandbox.url).netloc

    def params(self, method, biz, **changes):
        known = {
            "app_id": self.shown["app_id"],
            "method": method,
            "format": "JSON",
            "charset": "utf-8",
            "sign_type": "RSA2",
            "timestamp": "2026-11-21 12:00:00",
            "version": "1.0",
            "biz_content": json.dumps(biz, ensure_ascii=False),
        }
        params = {**known, **changes}
        return {**params, "sign": sign(self.key, text_to_sign(params, REQUEST_LEAVES_OUT))}

    def send(self, verb, target, body=None, headers=None, timeout_s=10):
        connection = http.client.HTTPConnection(self.host, timeout=timeout_s)
        try:
            connection.request(verb, target, body, headers or {})
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def raw(self, params, timeout_s=10):
        return self.send("GET", f"/alipay/gateway.do?{urlencode(params)}", timeout_s=timeout_s)

    def call(self, method, timeout_s=10, notify_url="", **biz):
        params = self.params(method, biz, notify_url=notify_url)
        status, raw = self.raw(params, timeout_s)
        assert status == 200
        return self.checked(raw)

    def checked(self, raw):
        """Return the inner object after checking the signature over its raw text."""
        text = raw.decode()
        name, rest = text[2:].split('":', 1)
        inner, signature = rest[:-2].rsplit(',"sign":"', 1)
        assert is_signed(self.alipay_key, inner, signature), "the reply's signature is wrong"
        content = json.loads(inner)
        return {**content, "_name": name}

    def order(self, amount="12.30", **biz):
        number = f"N{next(NUMBERS)}"
        answer = self.call(
            "alipay.trade.precreate",
            notify_url=self.inbox.url,
            **{"out_trade_no": number, "total_amount": amount, "subject": "拿铁", **biz},
        )
        assert answer["code"] == "10000"
        return number, answer["qr_code"]

    def paid_order(self, amount="12.30"):
        number, code = self.order(amount)
        self.scan(code)
        return number

    def scan(self, code, action="pay"):
        return self.sandbox.post("customer/scan", qr_code=code, action=action)

    def code(self, behaviour="pay", **how):
        made = self.sandbox.post(
            "customer/payment-code", channel="alipay", behaviour=behaviour, **how
        )
        return made["auth_code"]

    def charge(self, behaviour="pay", number=None, amount="5.00", code=None, **how):
        number = number or f"N{next(NUMBERS)}"
        answer = self.call(
            "alipay.trade.pay",
            out_trade_no=number,
            scene="bar_code",
            auth_code=code or self.code(behaviour, **how),
            subject="咖啡",
            total_amount=amount,
        )
        return number, answer

    def query(self, number):
        return self.call("alipay.trade.query", out_trade_no=number)

    def refund(self, number, amount, request="", **more):
        biz = {"out_trade_no": number, "refund_amount": amount, **more}
        return self.call(
            "alipay.trade.refund", **biz, **({"out_request_no": request} if request else {})
        )

    def refund_query(self, number, request):
        return self.call(
            "alipay.trade.fastpay.refund.query", out_trade_no=number, out_request_no=request
        )

    def fault(self, on, name, number="", times=1):
        self.sandbox.fault("alipay", on, name, number=number, times=times)

    def notices(self, number):
        """Return what arrived about an order, signature checked, in order."""
        self.sandbox.settle()
        found = [fields for fields in self.inbox.received if fields["out_trade_no"] == number]
        return [fields for fields in found if self.is_genuine(fields)]

    def is_genuine(self, fields):
        text = text_to_sign(fields, NOTIFY_LEAVES_OUT)
        return is_signed(self.alipay_key, text, fields["sign"])


class Inbox:
    """The merchant's notify_url."""

    def __init__(self):
        self.received = []
        self.reply = (200, b"success")
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                assert self.headers["content-type"].startswith("application/x-www-form-urlencoded")
                inbox.received.append(dict(parse_qsl(body, keep_blank_values=True)))
                status, text = inbox.reply
                self.send_response(status)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/notify"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    with start_sandbox(tmp_path_factory.mktemp("sandbox")) as running:
        yield running


@pytest.fixture
def inbox():
    box = Inbox()
    yield box
    box.server.shutdown()
    box.server.server_close()


@pytest.fixture
def shop(sandbox, inbox):
    sandbox.delete("faults")
    return Merchant(sandbox, inbox)


# The gateway -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["query", "split", "body", "absolute"])
def test_parameters_may_stand_in_the_query_the_body_or_both(shop, how):
    biz = {"out_trade_no": f"N{next(NUMBERS)}", "total_amount": 0.01, "subject": "茶 & 水=+%"}
    params = shop.params("alipay.trade.precreate", biz)
    path, form = "/alipay/gateway.do", {"content-type": "application/x-www-form-urlencoded"}
    if how == "query":
        status, raw = shop.send("GET", f"{path}?{urlencode(params)}")
    elif how == "body":
        status, raw = shop.send("POST", path, urlencode(params), form)
    else:
        biz_content = urlencode({"biz_content": params.pop("biz_content")})
        start = shop.sandbox.url if how == "absolute" else ""
        status, raw = shop.send("POST", f"{start}{path}?{urlencode(params)}", biz_content, form)
    assert status == 200
    answer = shop.checked(raw)
    assert answer["_name"] == "alipay_trade_precreate_response"
    assert (answer["code"], answer["msg"]) == ("10000", "Success")
    assert answer["qr_code"].startswith("https://qr.alipay.com/")


def test_the_reply_is_compact_raw_utf8_with_the_signature_last(shop):
    _, raw = shop.raw(shop.params("alipay.trade.query", {"out_trade_no": "nobody"}))
    text = raw.decode()
    assert text.startswith('{"alipay_trade_query_response":{"code":"40004",')
    assert "交易不存在" in text
    assert text.endswith('"}')
    assert list(json.loads(text)) == ["alipay_trade_query_response", "sign"]


@pytest.mark.parametrize(
    ("changes", "code", "sub_code"),
    [
        ({"method": "alipay.trade.nothing"}, "40002", "isv.invalid-method"),
        ({"sign_type": "RSA"}, "40002", "isv.invalid-signature-type"),
        ({"charset": "gbk"}, "40002", "isv.invalid-charset"),
        ({"timestamp": "yesterday"}, "40002", "isv.invalid-timestamp"),
        ({"timestamp": ""}, "40001", "isv.missing-timestamp"),
        ({"version": ""}, "40001", "isv.missing-version"),
        ({"method": ""}, "40001", "isv.missing-method"),
        ({"biz_content": "[1]"}, "40002", "isv.invalid-parameter"),
        ({"biz_content": "{"}, "40002", "isv.invalid-parameter"),
    ],
)
def test_the_gateway_refuses_with_a_signed_error_response(shop, changes, code, sub_code):
    _, raw = shop.raw(shop.params(**{"method": "alipay.trade.query", "biz": {}, **changes}))
    answer = shop.checked(raw)
    assert answer["_name"] == "error_response"
    assert (answer["code"], answer["sub_code"]) == (code, sub_code)


def test_a_wrong_signature_and_a_missing_one_have_their_own_codes(shop):
    params = shop.params("alipay.trade.query", {"out_trade_no": "1"})
    answer = shop.checked(shop.raw({**params, "biz_content": '{"out_trade_no":"2"}'})[1])
    assert answer["sub_code"] == "isv.invalid-signature"
    answer = shop.checked(shop.raw({**params, "sign": ""})[1])
    assert answer["sub_code"] == "isv.missing-signature"


def test_a_stranger_gets_an_unsigned_error_response(shop):
    _, raw = shop.raw(shop.params("alipay.trade.query", {}, app_id="1"))
    content = json.loads(raw)
    assert list(content) == ["error_response"]
    assert content["error_response"]["sub_code"] == "isv.invalid-app-id"


def test_other_paths_are_not_found(shop):
    assert shop.send("GET", "/alipay/other")[0] == 404
    assert shop.send("PUT", "/alipay/gateway.do")[0] == 404


# QR codes ----------------------------------------------------------------------------------------


def test_no_trade_exists_before_the_code_is_scanned(shop):
    number, code = shop.order()
    assert shop.query(number)["sub_code"] == "ACQ.TRADE_NOT_EXIST"
    shop.scan(code, "abandon")
    waiting = shop.query(number)
    assert (waiting["trade_status"], waiting["buyer_pay_amount"]) == ("WAIT_BUYER_PAY", "0.00")
    shop.scan(code)
    paid = shop.query(number)
    assert paid["trade_status"] == "TRADE_SUCCESS"
    assert paid["total_amount"] == paid["receipt_amount"] == "12.30"
    assert paid["fund_bill_list"] == [{"amount": "12.30", "fund_channel": "ALIPAYACCOUNT"}]
    assert paid["trade_no"] == waiting["trade_no"]
    assert len(paid["trade_no"]) == 28
    assert shop.call("alipay.trade.query", trade_no=paid["trade_no"])["out_trade_no"] == number


def test_the_same_order_again_shows_the_same_code_and_another_amount_is_refused(shop):
    number, code = shop.order("3.00")
    again = {"out_trade_no": number, "subject": "拿铁"}
    answer = shop.call("alipay.trade.precreate", total_amount="3.00", **again)
    assert answer["qr_code"] == code
    answer = shop.call("alipay.trade.precreate", total_amount="4.00", **again)
    assert answer["sub_code"] == "ACQ.CONTEXT_INCONSISTENT"
    shop.scan(code)
    answer = shop.call("alipay.trade.precreate", total_amount="3.00", **again)
    assert answer["sub_code"] == "ACQ.TRADE_HAS_SUCCESS"


@pytest.mark.parametrize("amount", ["0", "-1.00", "0.001", "abc", "", "1e3000", "NaN"])
def test_an_amount_that_is_none_is_refused(shop, amount):
    answer = shop.call(
        "alipay.trade.precreate", out_trade_no="bad", total_amount=amount, subject="x"
    )
    assert answer["sub_code"] == "ACQ.INVALID_PARAMETER"


def test_an_order_can_not_be_scanned_after_its_time(shop):
    _, code = shop.order(timeout_express="5m")
    shop.sandbox.advance(301)
    with pytest.raises(ValueError, match="cannot be paid"):
        shop.scan(code)


def test_a_scanned_order_closes_when_its_time_is_over(shop):
    number, code = shop.order(timeout_express="5m")
    shop.scan(code, "abandon")
    shop.sandbox.advance(301)
    assert shop.query(number)["trade_status"] == "TRADE_CLOSED"


@pytest.mark.parametrize("text", ["5", "m", "5x", "0m", "-1m"])
def test_a_malformed_time_limit_is_refused(shop, text):
    biz = {"out_trade_no": "bad", "total_amount": "1.00", "subject": "x"}
    answer = shop.call("alipay.trade.precreate", timeout_express=text, **biz)
    assert answer["sub_code"] == "ACQ.INVALID_PARAMETER"


# Payment codes -----------------------------------------------------------------------------------


def test_a_payment_code_pays_at_once(shop):
    number, answer = shop.charge()
    assert (answer["code"], answer["total_amount"]) == ("10000", "5.00")
    assert answer["gmt_payment"]
    assert shop.query(number)["trade_status"] == "TRADE_SUCCESS"


def test_codes_lie_in_alipays_range(shop):
    for _ in range(20):
        code = shop.code()
        assert 16 <= len(code) <= 24
        assert 25 <= int(code[:2]) <= 30


def test_a_code_is_good_once_and_for_a_minute(shop):
    code = shop.code()
    shop.charge(code=code)
    old = shop.code()
    shop.sandbox.advance(61)
    for useless in (code, old, "2512345678901234", "101234567890123456", "x"):
        number, answer = shop.charge(code=useless)
        assert answer["sub_code"] == "ACQ.PAYMENT_AUTH_CODE_INVALID"
        assert shop.query(number)["sub_code"] == "ACQ.TRADE_NOT_EXIST"


def test_a_declined_code_leaves_a_closed_trade(shop):
    number, answer = shop.charge("decline")
    assert answer["sub_code"] == "ACQ.BUYER_BALANCE_NOT_ENOUGH"
    assert shop.query(number)["trade_status"] == "TRADE_CLOSED"


def test_a_customer_who_is_asked_pays_later(shop):
    number, answer = shop.charge("ask_then_pay", after_s=4)
    assert (answer["code"], answer["msg"]) == ("10003", "order success pay inprocess")
    assert shop.query(number)["trade_status"] == "WAIT_BUYER_PAY"
    shop.sandbox.advance(5)
    assert shop.query(number)["trade_status"] == "TRADE_SUCCESS"


def test_a_customer_who_is_asked_may_leave_or_never_answer(shop):
    left, answer = shop.charge("cancel", after_s=4)
    assert answer["code"] == "10003"
    silent, _ = shop.charge("ask_forever")
    shop.sandbox.advance(60)
    assert shop.query(left)["trade_status"] == "TRADE_CLOSED"
    assert shop.query(silent)["trade_status"] == "WAIT_BUYER_PAY"
    answer = shop.call("alipay.trade.cancel", out_trade_no=silent)
    assert (answer["action"], answer["retry_flag"]) == ("close", "N")
    assert shop.query(silent)["trade_status"] == "TRADE_CLOSED"


def test_paying_a_number_again_tells_how_it_stands(shop):
    number, _ = shop.charge("ask")
    _, answer = shop.charge(number=number)
    assert answer["code"] == "10003"
    _, answer = shop.charge(number=number, amount="6.00")
    assert answer["sub_code"] == "ACQ.CONTEXT_INCONSISTENT"
    shop.sandbox.post("customer/scan", channel="alipay", number=number, action="pay")
    _, answer = shop.charge(number=number)
    assert answer["sub_code"] == "ACQ.TRADE_HAS_SUCCESS"
    shop.call("alipay.trade.cancel", out_trade_no=number)
    _, answer = shop.charge(number=number)
    assert answer["sub_code"] == "ACQ.TRADE_HAS_CLOSE"


# Undoing and closing -----------------------------------------------------------------------------


def test_cancelling_a_paid_trade_gives_the_money_back(shop):
    number, _ = shop.charge()
    for _ in range(2):
        answer = shop.call("alipay.trade.cancel", out_trade_no=number)
        assert (answer["code"], answer["action"]) == ("10000", "refund")
    assert shop.query(number)["trade_status"] == "TRADE_CLOSED"


def test_cancelling_what_does_not_exist_succeeds_and_names_no_action(shop):
    answer = shop.call("alipay.trade.cancel", out_trade_no="nobody")
    assert answer["code"] == "10000"
    assert "action" not in answer
    number, code = shop.order()
    assert "action" not in shop.call("alipay.trade.cancel", out_trade_no=number)
    with pytest.raises(ValueError, match="cannot be paid"):
        shop.scan(code)


def test_cancelling_is_refused_after_a_refund_and_after_a_day(shop):
    refunded, late = shop.paid_order(), shop.paid_order()
    shop.refund(refunded, "1.00", "R1")
    answer = shop.call("alipay.trade.cancel", out_trade_no=refunded)
    assert answer["sub_code"] == "ACQ.REASON_TRADE_REFUND_FEE_ERR"
    shop.sandbox.advance(timedelta(days=1).total_seconds() + 1)
    answer = shop.call("alipay.trade.cancel", out_trade_no=late)
    assert answer["sub_code"] == "ACQ.TRADE_CANCEL_TIME_OUT"


def test_only_a_trade_that_waits_can_be_closed(shop):
    number, code = shop.order()
    close = "alipay.trade.close"
    assert shop.call(close, out_trade_no=number)["sub_code"] == "ACQ.TRADE_NOT_EXIST"
    shop.scan(code, "abandon")
    assert shop.call(close, out_trade_no=number)["code"] == "10000"
    assert shop.call(close, out_trade_no=number)["sub_code"] == "ACQ.TRADE_STATUS_ERROR"
    paid = shop.paid_order()
    assert shop.call(close, out_trade_no=paid)["sub_code"] == "ACQ.TRADE_STATUS_ERROR"


# Refunds -----------------------------------------------------------------------------------------


def test_a_refund_moves_money_once_per_request_number(shop):
    number = shop.paid_order("10.00")
    first = shop.refund(number, "3.00", "R1")
    again = shop.refund(number, "3.00", "R1")
    second = shop.refund(number, "2.00", "R2")
    assert [one["fund_change"] for one in (first, again, second)] == ["Y", "N", "Y"]
    assert [one["refund_fee"] for one in (first, again, second)] == ["3.00", "3.00", "5.00"]
    other = shop.refund(number, "4.00", "R1")
    assert other["sub_code"] == "ACQ.DISCORDANT_REPEAT_REQUEST"
    assert shop.query(number)["trade_status"] == "TRADE_SUCCESS"


def test_more_than_is_left_is_refused(shop):
    number = shop.paid_order("10.00")
    shop.refund(number, "6.00", "R1")
    answer = shop.refund(number, "4.01", "R2")
    assert answer["sub_code"] == "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL"
    assert answer["refund_fee"] == "0.00"
    assert shop.refund(number, "4.00", "R3")["fund_change"] == "Y"
    assert shop.query(number)["trade_status"] == "TRADE_CLOSED"
    assert shop.refund(number, "0.01", "R4")["sub_code"] == "ACQ.TRADE_HAS_CLOSE"
    assert shop.refund(number, "4.00", "R3")["fund_change"] == "N"


def test_a_refund_without_a_number_is_whole_or_refused(shop):
    number = shop.paid_order("10.00")
    assert shop.refund(number, "9.00")["sub_code"] == "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL"
    assert shop.refund(number, "10.00")["fund_change"] == "Y"
    assert shop.refund(number, "10.00")["fund_change"] == "N"
    assert shop.refund_query(number, number)["refund_amount"] == "10.00"


def test_what_was_never_paid_is_never_refunded(shop):
    assert shop.refund("nobody", "1.00", "R")["sub_code"] == "ACQ.TRADE_NOT_EXIST"
    number, _ = shop.charge("ask")
    assert shop.refund(number, "1.00", "R")["sub_code"] == "ACQ.TRADE_STATUS_ERROR"
    shop.call("alipay.trade.cancel", out_trade_no=number)
    assert shop.refund(number, "1.00", "R")["sub_code"] == "ACQ.TRADE_HAS_CLOSE"


def test_a_refund_number_nobody_used_is_answered_with_success_and_no_amount(shop):
    number = shop.paid_order()
    answer = shop.refund_query(number, "nobody")
    assert answer["code"] == "10000"
    assert "refund_amount" not in answer
    shop.refund(number, "1.00", "R1")
    done = shop.refund_query(number, "R1")
    assert (done["refund_status"], done["refund_amount"]) == ("REFUND_SUCCESS", "1.00")


def test_a_refund_may_stay_in_processing_until_decided(shop):
    number = shop.paid_order("10.00")
    shop.fault("refund", "processing", "P1")
    assert shop.refund(number, "7.00", "P1")["fund_change"] == "N"
    assert "refund_amount" not in shop.refund_query(number, "P1")
    answer = shop.refund(number, "4.00", "P2")
    assert answer["sub_code"] == "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL", "what is on its way is counted"
    shop.sandbox.post("alipay/refund", number="P1", state="done")
    assert shop.refund_query(number, "P1")["refund_amount"] == "7.00"


def test_a_refund_in_processing_ends_by_itself_when_told_when(shop):
    number = shop.paid_order("10.00")
    shop.fault("refund", "processing:30", "P3")
    shop.refund(number, "7.00", "P3")
    shop.sandbox.advance(31)
    assert shop.refund_query(number, "P3")["refund_status"] == "REFUND_SUCCESS"


def test_a_refund_that_failed_may_be_asked_for_again(shop):
    number = shop.paid_order("10.00")
    shop.fault("refund", "abnormal", "A1")
    assert shop.refund(number, "10.00", "A1")["fund_change"] == "N"
    assert "refund_amount" not in shop.refund_query(number, "A1")
    assert shop.refund(number, "10.00", "A1")["fund_change"] == "Y"


def test_the_merchants_balance_may_not_be_enough(shop):
    number = shop.paid_order()
    shop.fault("refund", "not_enough")
    assert shop.refund(number, "1.00", "B1")["sub_code"] == "ACQ.SELLER_BALANCE_NOT_ENOUGH"
    assert shop.refund(number, "1.00", "B1")["fund_change"] == "Y"


# Bad luck ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("time_out_paid", "TRADE_SUCCESS"),
        ("time_out_made", "WAIT_BUYER_PAY"),
        ("time_out_unpaid", None),
    ],
)
def test_an_answer_that_never_comes_may_hide_a_payment(shop, name, status):
    number = f"N{next(NUMBERS)}"
    shop.fault("pay", name, number)
    with pytest.raises(TimeoutError):
        shop.call(
            "alipay.trade.pay",
            timeout_s=0.3,
            out_trade_no=number,
            scene="bar_code",
            auth_code=shop.code(),
            subject="x",
            total_amount="1.00",
        )
    assert shop.query(number).get("trade_status") == status


def test_a_reset_connection_did_nothing(shop):
    number = f"N{next(NUMBERS)}"
    shop.fault("pay", "reset", number)
    with pytest.raises(ConnectionResetError):
        shop.charge(number=number)
    assert shop.query(number)["sub_code"] == "ACQ.TRADE_NOT_EXIST"


@pytest.mark.parametrize("name", ["http_500_paid", "http_500_unpaid"])
def test_a_500_may_hide_a_payment(shop, name):
    number = f"N{next(NUMBERS)}"
    shop.fault("pay", name, number)
    biz = {"out_trade_no": number, "scene": "bar_code", "auth_code": shop.code()}
    params = shop.params("alipay.trade.pay", {**biz, "subject": "x", "total_amount": "1.00"})
    assert shop.raw(params)[0] == 500
    is_paid = shop.query(number).get("trade_status") == "TRADE_SUCCESS"
    assert is_paid is (name == "http_500_paid")


def test_a_bad_signature_may_hide_a_payment(shop):
    number = f"N{next(NUMBERS)}"
    shop.fault("pay", "bad_signature_paid", number)
    with pytest.raises(AssertionError, match="signature is wrong"):
        shop.charge(number=number)
    assert shop.query(number)["trade_status"] == "TRADE_SUCCESS"


@pytest.mark.parametrize("name", ["system_error_paid", "system_error_unpaid"])
def test_a_system_error_says_nothing_about_the_money(shop, name):
    number = f"N{next(NUMBERS)}"
    shop.fault("pay", name, number)
    _, answer = shop.charge(number=number)
    assert (answer["code"], answer["sub_code"]) == ("20000", "ACQ.SYSTEM_ERROR")
    is_paid = shop.query(number).get("trade_status") == "TRADE_SUCCESS"
    assert is_paid is (name == "system_error_paid")


def test_too_many_calls_are_refused_before_anything_happens(shop):
    shop.fault("query", "http_429")
    assert shop.query("any")["code"] == "40005"


def test_a_query_may_be_stale_or_fail(shop):
    number = shop.paid_order()
    shop.fault("query", "stale", number)
    assert shop.query(number)["trade_status"] == "WAIT_BUYER_PAY"
    shop.fault("query", "http_500", number)
    assert shop.raw(shop.params("alipay.trade.query", {"out_trade_no": number}))[0] == 500
    assert shop.query(number)["trade_status"] == "TRADE_SUCCESS"


@pytest.mark.parametrize(("name", "done"), [("time_out_done", True), ("time_out_not_done", False)])
def test_a_refund_may_happen_unheard(shop, name, done):
    number, request = shop.paid_order(), f"T{next(NUMBERS)}"
    shop.fault("refund", name, request)
    biz = {"out_trade_no": number, "refund_amount": "1.00", "out_request_no": request}
    with pytest.raises(TimeoutError):
        shop.call("alipay.trade.refund", timeout_s=0.3, **biz)
    assert ("refund_amount" in shop.refund_query(number, request)) is done
    assert shop.call("alipay.trade.refund", **biz)["fund_change"] == ("N" if done else "Y")


def test_a_close_may_come_just_after_the_money(shop):
    number, code = shop.order()
    shop.scan(code, "abandon")
    shop.fault("close", "paid_just_before", number)
    answer = shop.call("alipay.trade.close", out_trade_no=number)
    assert answer["sub_code"] == "ACQ.TRADE_STATUS_ERROR"
    assert shop.query(number)["trade_status"] == "TRADE_SUCCESS"


def test_a_closed_trade_may_succeed_late(shop):
    number, code = shop.order()
    shop.scan(code, "abandon")
    shop.fault("close", "late_success:20", number)
    assert shop.call("alipay.trade.close", out_trade_no=number)["code"] == "10000"
    assert shop.query(number)["trade_status"] == "TRADE_CLOSED"
    shop.sandbox.advance(21)
    assert shop.query(number)["trade_status"] == "TRADE_SUCCESS"
    assert [one["trade_status"] for one in shop.notices(number)] == ["TRADE_SUCCESS"]


def test_a_cancel_may_ask_to_be_repeated(shop):
    number, _ = shop.charge("ask")
    shop.fault("close", "retry", number)
    answer = shop.call("alipay.trade.cancel", out_trade_no=number)
    assert (answer["code"], answer["retry_flag"]) == ("20000", "Y")
    assert shop.call("alipay.trade.cancel", out_trade_no=number)["action"] == "close"


# Notifications -----------------------------------------------------------------------------------


def test_a_payment_is_notified_with_the_fields_merchants_must_check(shop):
    number = shop.paid_order()
    [notice] = shop.notices(number)
    assert notice["app_id"] == notice["auth_app_id"] == shop.shown["app_id"]
    assert notice["seller_id"] == shop.shown["seller_id"]
    assert notice["total_amount"] == "12.30"
    assert notice["subject"] == "拿铁"
    assert notice["trade_status"] == "TRADE_SUCCESS"
    assert notice["notify_type"] == "trade_status_sync"
    assert notice["fund_bill_list"] == '[{"amount":"12.30","fundChannel":"ALIPAYACCOUNT"}]'
    assert len(notice["notify_id"]) == 34
    assert "refund_fee" not in notice


def test_a_partial_refund_is_notified_as_success_and_the_last_one_as_closed(shop):
    number = shop.paid_order("10.00")
    shop.notices(number)
    shop.refund(number, "4.00", "NR1")
    shop.notices(number)
    shop.refund(number, "6.00", "NR2")
    _, partial, full = shop.notices(number)
    assert (partial["trade_status"], partial["refund_fee"]) == ("TRADE_SUCCESS", "4.00")
    assert (full["trade_status"], full["refund_fee"]) == ("TRADE_CLOSED", "10.00")
    assert (partial["out_biz_no"], full["out_biz_no"]) == ("NR1", "NR2")
    assert full["gmt_close"]


@pytest.mark.parametrize("reply", [(200, b"fail"), (500, b"success"), (200, b"")])
def test_only_the_bare_word_stops_the_resending(shop, inbox, reply):
    inbox.reply = reply
    number = shop.paid_order()
    assert len(shop.notices(number)) == 1
    shop.sandbox.advance(4 * 60)
    assert len(shop.notices(number)) == 2
    inbox.reply = (200, b"success")
    shop.sandbox.advance(10 * 60)
    shop.sandbox.advance(86_400)
    first, *_, last = notices = shop.notices(number)
    assert len(notices) == 3
    assert first["notify_id"] == last["notify_id"]
    assert first["notify_time"] < last["notify_time"]


def test_the_resend_plan_is_alipays_and_ends_within_25_hours():
    assert Alipay.retry_plan == (240, 600, 600, 3600, 7200, 21600, 54000)
    assert sum(Alipay.retry_plan) < 25 * 3600


def test_a_forged_notification_does_not_verify_and_the_genuine_one_follows(shop):
    number, code = shop.order()
    shop.fault("callback", "forged", number)
    shop.scan(code)
    shop.sandbox.settle()
    arrived = [one for one in shop.inbox.received if one["out_trade_no"] == number]
    assert sorted(map(shop.is_genuine, arrived)) == [False, True]


def test_notifications_get_lost_doubled_late_and_wrong(shop):
    seen = {}
    for fault in ("lost", "doubled", "late:90", "wrong_amount"):
        number, code = shop.order()
        shop.fault("callback", fault, number)
        shop.scan(code)
        seen[fault] = (number, shop.notices(number))
    assert [len(notices) for _, notices in seen.values()] == [0, 2, 0, 1]
    assert seen["wrong_amount"][1][0]["total_amount"] == "12.31"
    shop.sandbox.advance(91)
    assert len(shop.notices(seen["late:90"][0])) == 1


# Bills -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bill_sandbox(tmp_path_factory):
    with start_sandbox(tmp_path_factory.mktemp("bills")) as running:
        yield running


@pytest.fixture
def bill_shop(bill_sandbox, inbox):
    """A shop early on a day that has no trades yet."""
    now = bill_sandbox.get("clock")["now"]
    at = business_now(now)
    bill_sandbox.advance(86_400 - at.hour * 3600 - at.minute * 60 - at.second + 3600)
    return Merchant(bill_sandbox, inbox)


def business_now(text):
    return datetime.fromisoformat(text).astimezone(BUSINESS_ZONE)


def ask_for_bill(shop, day):
    method = "alipay.data.dataservice.bill.downloadurl.query"
    return shop.call(method, bill_type="trade", bill_date=str(day))


def download(shop, answer):
    parts = urlsplit(answer["bill_download_url"])
    return shop.send("GET", f"{parts.path}?{parts.query}")


def rows_of(raw):
    with zipfile.ZipFile(io.BytesIO(raw), metadata_encoding="gbk") as archive:
        name = next(name for name in archive.namelist() if "汇总" not in name)
        lines = archive.read(name).decode("gbk").split("\r\n")
    return [[cell.strip() for cell in line.split(",")] for line in lines if line[:2] == "20"]


def close_day(shop):
    """Push the clock past the hour at which the bill of today is ready; return the day."""
    at = business_now(shop.sandbox.get("clock")["now"])
    shop.sandbox.advance((33 - at.hour) * 3600)
    return business_date(at)


def test_the_bill_lists_the_days_trades_and_refunds(bill_shop):
    shop = bill_shop
    paid, (undone, _) = shop.paid_order("100.00"), shop.charge(amount="8.88")
    shop.order()
    shop.charge("decline")
    shop.refund(paid, "30.00", "BR1")
    shop.call("alipay.trade.cancel", out_trade_no=undone)
    day = close_day(shop)
    status, raw = download(shop, ask_for_bill(shop, day))
    assert status == 200
    found = {(row[1], row[2], row[11], row[21]) for row in rows_of(raw)}
    assert found == {
        (paid, "交易", "100.00", ""),
        (paid, "退款", "-30.00", "BR1"),
        (undone, "交易", "8.88", ""),
        (undone, "退款", "-8.88", undone),
    }
    fees = {(row[1], row[2]): row[22] for row in rows_of(raw)}
    assert fees[paid, "交易"] == "0.60"
    assert fees[undone, "交易"] == "0.05"
    assert fees[paid, "退款"] == "-0.18"


def test_a_bill_is_not_there_before_its_time_and_not_for_an_empty_day(bill_shop):
    shop = bill_shop
    shop.paid_order()
    today = business_date(business_now(shop.sandbox.get("clock")["now"]))
    assert ask_for_bill(shop, today)["sub_code"] == "isp.bill_not_exist"
    assert ask_for_bill(shop, "2020-01-01")["sub_code"] == "isp.bill_not_exist"
    assert ask_for_bill(shop, "soon")["sub_code"] == "isv.invalid-parameter"
    day = close_day(shop)
    shop.fault("bill", "late")
    assert ask_for_bill(shop, day)["sub_code"] == "isp.bill_not_exist"
    assert ask_for_bill(shop, day)["code"] == "10000"


def test_a_link_to_a_bill_is_good_for_thirty_seconds(bill_shop):
    shop = bill_shop
    shop.paid_order()
    answer = ask_for_bill(shop, close_day(shop))
    assert download(shop, answer)[0] == 200
    shop.sandbox.advance(31)
    assert download(shop, answer)[0] == 403
    assert shop.send("GET", f"/alipay/downloadBillFile.resource?token={quote('x')}")[0] == 403


def test_planted_differences_stay_in_the_bill(bill_shop):
    shop = bill_shop
    kept, dropped, changed, costly = (shop.paid_order("100.00") for _ in range(4))
    shop.fault("bill", "drop_row", dropped)
    shop.fault("bill", "wrong_amount", changed)
    shop.fault("bill", "wrong_fee", costly)
    shop.fault("bill", "extra_row")
    day = close_day(shop)
    shop.fault("bill", "truncate")
    cut = download(shop, ask_for_bill(shop, day))[1]
    assert len(rows_of(cut)) <= 1
    for _ in range(2):
        rows = {row[1]: row for row in rows_of(download(shop, ask_for_bill(shop, day))[1])}
        assert dropped not in rows
        assert (rows[kept][11], rows[kept][22]) == ("100.00", "0.60")
        assert rows[changed][11] == "100.01"
        assert rows[costly][22] == "0.61"
        [invented] = rows.keys() - {kept, changed, costly}
        assert invented.startswith("sandboxextra")
    shop.sandbox.post("alipay/bill/forget", day=str(day))
    rows = {row[1]: row for row in rows_of(download(shop, ask_for_bill(shop, day))[1])}
    assert rows.keys() == {kept, dropped, changed, costly}


def test_a_directory_from_before_certificates_goes_on_with_keys_alone(tmp_path, inbox):
    with start_sandbox(tmp_path) as first:
        kept = json.loads(first.credentials_path.read_text())
    for name in ("app_certificate_pem", "alipay_certificate_pem", "root_certificates_pem"):
        del kept["alipay"][name]
    del kept["alipay"]["app_auth_token"]
    first.credentials_path.write_text(json.dumps(kept))
    with start_sandbox(tmp_path) as again:
        shop = Merchant(again, inbox)
        number, code = shop.order()
        shop.scan(code)
        assert shop.query(number)["trade_status"] == "TRADE_SUCCESS"
        refused = shop.raw(shop.params("alipay.trade.query", {}, app_cert_sn="x"))[1]
        assert shop.checked(refused)["sub_code"] == "isv.invalid-app-cert-sn"
