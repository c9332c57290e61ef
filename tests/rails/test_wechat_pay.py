"""WeChat Pay v3 down to the bytes: signatures, envelopes, certificates, documents and bills."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from tests.rails.peers import (
    LIMITS,
    ORDER_NUMBER,
    REFUND_NUMBER,
    WechatPeer,
    certificate_pem,
    order,
    public_pem,
    rsa_key,
)
from tests.rails.wire_server import Heard, WireServer, http_reply
from tongbao.infra.http import HttpClient
from tongbao.kernel.clock import real_now
from tongbao.kernel.money import Money
from tongbao.rails.channels.contract.bills import BillFault, BillFile, BillKind, BillRow, BillTotal
from tongbao.rails.channels.contract.callbacks import (
    CallbackForged,
    CallbackKeyUnknown,
    CallbackKind,
    CallbackUnreadable,
)
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode
from tongbao.rails.channels.contract.outcomes import Declined, Pending, Succeeded, Unknown
from tongbao.rails.channels.error_map import error_map
from tongbao.rails.channels.wechat_pay import wire
from tongbao.rails.channels.wechat_pay.bills import parse_trade_bill
from tongbao.rails.channels.wechat_pay.client import WechatPay
from tongbao.rails.channels.wechat_pay.crypto import (
    EnvelopeBroken,
    Verdict,
    check_signature,
    open_envelope,
    platform_key,
    verify,
)
from tongbao.rails.channels.wechat_pay.documents import orders as documents
from tongbao.rails.channels.wechat_pay.gateway import decode
from tongbao.rails.channels.wechat_pay.secrets import WechatPaySecrets

VECTORS = Path(__file__).parents[1] / "vectors"
WECHAT = VECTORS / "wechat"
PEER = WechatPeer()
REAL_BILL = WECHAT / "bills" / "bill.ALL.csv"


def model(name: str) -> bytes:
    folder = "models" if "__" in name and not name.endswith("Resource") else "events"
    return (WECHAT / folder / f"{name}.json").read_bytes().removeprefix(b"\xef\xbb\xbf")


def known_callback() -> dict[str, Any]:
    return json.loads((WECHAT / "callback.json").read_text())


# --- signatures


def wycheproof() -> Iterator[tuple[str, dict[str, Any]]]:
    file = json.loads((VECTORS / "wycheproof" / "rsa_signature_2048_sha256_test.json").read_text())
    for group in file["testGroups"]:
        for test in group["tests"]:
            yield group["publicKeyPem"], test


def test_only_well_formed_pkcs1_signatures_verify() -> None:
    seen = 0
    for pem, test in wycheproof():
        if test["result"] == "acceptable":
            continue  # a missing NULL in the padding, which either answer suits
        signature = base64.b64encode(bytes.fromhex(test["sig"])).decode()
        genuine = verify(platform_key(pem).key, bytes.fromhex(test["msg"]), signature)
        assert genuine is (test["result"] == "valid"), test
        seen += 1
    assert seen > 200


def test_a_signature_that_is_no_base64_does_not_verify() -> None:
    key = platform_key(public_pem(rsa_key("platform"))).key
    for text in ("", "*", "AAA", "签名", "A" * 10_000):
        assert not verify(key, b"x", text)


def test_a_callback_signed_and_sealed_by_others_opens() -> None:
    given = known_callback()
    now = datetime.fromtimestamp(given["now"], UTC)
    keys = {given["headers"]["wechatpay-serial"]: given["certificate"]}
    body = given["body"].encode()
    assert check_signature(given["headers"], body, keys, now) is Verdict.GOOD
    resource = json.loads(body)["resource"]
    opened = open_envelope(
        given["api_v3_key"], resource["nonce"], resource["associated_data"], resource["ciphertext"]
    )
    assert opened.decode() == given["plaintext"]


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, Verdict.GOOD),
        ({"age": timedelta(minutes=4, seconds=59)}, Verdict.GOOD),
        ({"age": timedelta(minutes=5, seconds=1)}, Verdict.STALE),
        ({"age": -timedelta(minutes=5, seconds=1)}, Verdict.STALE),
        ({"wechatpay-timestamp": "yesterday"}, Verdict.STALE),
        ({"wechatpay-timestamp": "٣٣٣"}, Verdict.STALE),
        ({"wechatpay-timestamp": "1624523847"}, Verdict.BAD),
        ({"wechatpay-nonce": "another"}, Verdict.BAD),
        ({"wechatpay-nonce": ""}, Verdict.MISSING),
        ({"wechatpay-signature": ""}, Verdict.MISSING),
        ({"wechatpay-signature": "WECHATPAY/SIGNTEST/tJHIiIS9eB2hAYst"}, Verdict.PROBE),
        ({"wechatpay-serial": "D7CE59D1F522D702"}, Verdict.UNKNOWN_KEY),
        ({"wechatpay-signature-type": "WECHATPAY2-SM2-WITH-SM3"}, Verdict.BAD),
        ({"body": b"{}"}, Verdict.BAD),
    ],
)
def test_what_is_checked_of_a_signature(change: dict[str, Any], verdict: Verdict) -> None:
    given = known_callback()
    now = datetime.fromtimestamp(given["now"], UTC) + change.pop("age", timedelta())
    body = change.pop("body", given["body"].encode())
    keys = {"D7CE59D1F522D701": given["certificate"]}
    assert check_signature({**given["headers"], **change}, body, keys, now) is verdict


def test_a_sealed_text_opens_only_unchanged() -> None:
    sealed = PEER.sealed(b"secret", "transaction")
    place = sealed["nonce"], sealed["associated_data"], sealed["ciphertext"]
    assert open_envelope(PEER.api_v3_key, *place) == b"secret"
    raw = bytearray(base64.b64decode(sealed["ciphertext"]))
    raw[0] ^= 1
    broken = [
        (PEER.api_v3_key[::-1], *place),
        (PEER.api_v3_key, place[0][::-1], *place[1:]),
        (PEER.api_v3_key, place[0], "refund", place[2]),
        (PEER.api_v3_key, place[0], place[1], base64.b64encode(raw).decode()),
        (PEER.api_v3_key, place[0], place[1], "not base64!"),
        (PEER.api_v3_key, place[0], place[1], ""),
        (PEER.api_v3_key, "", *place[1:]),
    ]
    for parts in broken:
        with pytest.raises(EnvelopeBroken):
            open_envelope(*parts)


async def test_a_request_is_signed_over_its_path_query_and_body(
    far_end: WireServer, http: HttpClient
) -> None:
    far_end.react = lambda heard: PEER.answer({"status": 404, "json": {"code": "X"}}, heard)
    account = PEER.account(f"{far_end.url}/wechat")  # a gateway may lie below a path
    channel = PEER.channel(http)
    await channel.query(account, order("wechat_pay", PayMode.QR))
    await channel.pay(account, order("wechat_pay", PayMode.QR))
    key = rsa_key("merchant").public_key()
    for heard in far_end.heard:
        scheme, _, fields = heard.headers["authorization"].partition(" ")
        given = dict(re.findall(r'(\w+)="([^"]*)"', fields))
        assert scheme == "WECHATPAY2-SHA256-RSA2048"
        assert set(given) == {"mchid", "nonce_str", "signature", "timestamp", "serial_no"}
        assert given["mchid"] == account.merchant_number
        assert given["serial_no"] == "4F3A2B1C"
        target = heard.target.removeprefix("/wechat")
        lines = [heard.method, target, given["timestamp"], given["nonce_str"], heard.body.decode()]
        message = "".join(f"{line}\n" for line in lines).encode()
        signature = base64.b64decode(given["signature"])
        key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
        assert heard.headers["accept"] == "application/json"
        assert heard.headers["user-agent"]
    nonces = {
        re.findall(r'nonce_str="(\w+)"', h.headers["authorization"])[0] for h in far_end.heard
    }
    assert len(nonces) == 2
    assert "wechatpay-serial" not in far_end.heard[0].headers


async def test_a_signed_refusal_with_a_wrong_signature_is_unknown(
    far_end: WireServer, http: HttpClient
) -> None:
    body = b'{"code":"NOT_ENOUGH","message":"x"}'
    for key, kind in (("platform", Declined), ("somebody", Unknown)):
        headers = PEER.signature(body, key=key)
        far_end.react = lambda _, headers=headers: http_reply(403, headers, body)
        account = PEER.account(far_end.url)
        answer = await PEER.channel(http).pay(account, order("wechat_pay", PayMode.PAYMENT_CODE))
        assert isinstance(answer.outcome, kind)


async def test_an_old_reply_is_not_believed(far_end: WireServer, http: HttpClient) -> None:
    body = b'{"code_url":"weixin://x"}'
    far_end.react = lambda _: http_reply(200, PEER.signature(body, age_s=301), body)
    answer = await PEER.channel(http).pay(
        PEER.account(far_end.url), order("wechat_pay", PayMode.QR)
    )
    assert isinstance(answer.outcome, Unknown)


# --- keys


def certificate_list(*listed: tuple[str, str]) -> bytes:
    data = []
    for serial, pem in listed:
        sealed = PEER.sealed(pem.encode(), "certificate")
        del sealed["original_type"]
        data.append(
            {
                "serial_no": serial,
                "effective_time": "2018-06-08T10:34:56+08:00",
                "expire_time": "2038-06-08T10:34:56+08:00",
                "encrypt_certificate": sealed,
            }
        )
    return json.dumps({"data": data}).encode()


def serve_certificates(far_end: WireServer, body: bytes, *, signed_as: str, key: str) -> None:
    answer = b'{"code_url":"weixin://x"}'

    def react(heard: Heard) -> bytes:
        content = body if heard.target == "/v3/certificates" else answer
        return http_reply(200, PEER.signature(content, key=key, serial=signed_as), content)

    far_end.react = react


async def test_an_unknown_serial_makes_us_fetch_the_certificates_once(
    far_end: WireServer, http: HttpClient
) -> None:
    pem = certificate_pem(rsa_key("new"), serial=7, days=(-1, 30))
    serve_certificates(far_end, certificate_list(("C7", pem)), signed_as="C7", key="new")
    account, channel = PEER.account(far_end.url, platform_keys={}), PEER.channel(http)
    headers, body = PEER.callback(payment_news(), key="new")
    headers["wechatpay-serial"] = "C7"
    with pytest.raises(CallbackKeyUnknown):
        channel.read_callback(account, headers, body, real_now())
    for _ in range(2):
        answer = await channel.pay(account, order("wechat_pay", PayMode.QR))
        assert isinstance(answer.outcome, Pending)
    assert [heard.target for heard in far_end.heard].count("/v3/certificates") == 1
    assert channel.read_callback(account, headers, body, real_now()).number == ORDER_NUMBER
    await channel.refresh_keys(account)  # not again so soon, or anybody could make us ask
    assert [heard.target for heard in far_end.heard].count("/v3/certificates") == 1


@pytest.mark.parametrize("trouble", ["expired", "not yet", "not ours", "no certificate", "other"])
async def test_certificates_that_prove_nothing_are_not_believed(
    trouble: str, far_end: WireServer, http: HttpClient
) -> None:
    days = {"expired": (-30, -1), "not yet": (1, 30)}.get(trouble, (-1, 30))
    pem = certificate_pem(rsa_key("new"), serial=7, days=days)
    listed = certificate_list(("C7", "rubbish" if trouble == "no certificate" else pem))
    if trouble == "not ours":  # sealed under another key
        listed = listed.replace(b'"ciphertext": "', b'"ciphertext": "AAAA')
    signer = "somebody" if trouble == "other" else "new"
    serve_certificates(far_end, listed, signed_as="C7", key=signer)
    account = PEER.account(far_end.url, platform_keys={})
    answer = await PEER.channel(http).pay(account, order("wechat_pay", PayMode.QR))
    assert isinstance(answer.outcome, Unknown)


async def test_public_key_mode_names_the_key_it_expects(
    far_end: WireServer, http: HttpClient
) -> None:
    key_id = "PUB_KEY_ID_0116"
    account = PEER.account(
        far_end.url, platform_keys={key_id: public_pem(rsa_key("new"))}, public_key_id=key_id
    )
    body = b'{"code_url":"weixin://x"}'
    far_end.react = lambda _: http_reply(200, PEER.signature(body, key="new", serial=key_id), body)
    answer = await PEER.channel(http).pay(account, order("wechat_pay", PayMode.QR))
    assert isinstance(answer.outcome, Pending)
    assert far_end.heard[0].headers["wechatpay-serial"] == key_id


def test_keys_of_the_wrong_form_are_refused() -> None:
    good = {"merchant_serial": "1", "merchant_private_key_pem": "x"}
    WechatPaySecrets(api_v3_key="k" * 32, **good)
    with pytest.raises(ValueError, match="32 bytes"):
        WechatPaySecrets(api_v3_key="short", **good)
    with pytest.raises(ValueError, match="public_key_id"):
        WechatPaySecrets(api_v3_key="k" * 32, public_key_id="PUB_KEY_ID_1", **good)
    assert "kkk" not in repr(WechatPaySecrets(api_v3_key="k" * 32, **good))


# --- documents


def account_of(sample: dict[str, Any]) -> ChannelAccount:
    account = PEER.account("http://127.0.0.1:9")
    return type(account)(
        **{
            **{name: getattr(account, name) for name in account.__struct_fields__},
            "merchant_number": sample["mchid"],
            "app_id": sample["appid"],
        }
    )


@pytest.mark.parametrize(
    "name",
    [
        "PayTransactions__CreatePayTransactionCodePayResponse",
        "PayTransactions__GetPayTransactionByIdResponse",
        "PayTransactions__GetPayTransactionByOutTradeNumberResponse",
        "Transactions__TransactionResource",
    ],
)
def test_sample_transactions_are_read(name: str) -> None:
    sample = json.loads(model(name))
    transaction = decode(model(name), documents.Transaction)
    assert transaction is not None
    paying = order(
        "wechat_pay",
        PayMode.QR,
        number=sample["out_trade_no"],
        money=Money(sample["amount"]["total"], "CNY"),
    )
    assert wire.order_differs(transaction, account_of(sample), paying) is None
    outcome = wire.order_outcome(transaction)
    assert isinstance(outcome, Succeeded)
    assert outcome.channel_ref == sample["transaction_id"]
    assert outcome.payer == sample["payer"]["openid"]
    assert outcome.at == datetime.fromisoformat(sample["success_time"])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Refund__CreateRefundDomesticRefundResponse", Pending),
        ("Refund__GetRefundDomesticRefundByOutRefundNumberResponse", Succeeded),
        ("Refund__RefundResource", Succeeded),
    ],
)
def test_sample_refunds_are_read(name: str, kind: type) -> None:
    folder = "events" if name.endswith("Resource") else "models"
    raw = (WECHAT / folder / f"{name}.json").read_bytes().removeprefix(b"\xef\xbb\xbf")
    document = decode(raw, documents.Refund)
    assert document is not None
    assert document.amount is not None
    assert isinstance(wire.refund_outcome(document), kind)
    assert document.amount.currency in {"CNY", None}


def test_the_other_samples_are_read() -> None:
    offered = decode(
        model("PayTransactions__CreatePayTransactionNativeResponse"), documents.CodeUrl
    )
    assert offered is not None
    assert offered.code_url.startswith("weixin://")
    undone = decode(model("PayTransactions__ReversePayTransactionResponse"), documents.Reversed)
    assert undone is not None
    assert undone.mchid == "1230000109"
    address = decode(model("Bill__GetBillTradeBillResponse"), documents.BillAddress)
    assert address is not None
    assert address.hash_type == "SHA1"
    listed = decode(model("Certificates__QueryCertificatesResponse"), documents.CertificateList)
    assert listed is not None
    assert len(listed.data) == 2


def request_of(account: ChannelAccount, mode: PayMode, **changes: Any) -> Any:
    return json.loads(
        wire.encode(wire.order_request(account, order("wechat_pay", mode, **changes)))
    )


def test_our_requests_use_the_fields_of_the_samples() -> None:
    account = PEER.account("http://127.0.0.1:9")
    native = request_of(account, PayMode.QR)
    sample = json.loads(model("PayTransactions__CreatePayTransactionNativeRequest"))
    assert set(sample) <= set(native)
    code = request_of(account, PayMode.PAYMENT_CODE)
    sample = json.loads(model("PayTransactions__CreatePayTransactionCodePayRequest"))
    assert set(code) <= set(sample)
    assert "notify_url" not in code
    assert code["scene_info"]["store_info"]["id"]
    assert native["time_expire"] == "2030-01-01T20:00:00+08:00"
    wordy = request_of(account, PayMode.QR, subject="茶" * 500)
    assert wordy["description"] == "茶" * 127


def payment_news(**changes: Any) -> dict[str, Any]:
    return {
        "original_type": "transaction",
        "event_type": "TRANSACTION.SUCCESS",
        "mchid": "1230000109",
        "appid": "wxd678efh567hg6787",
        "out_trade_no": ORDER_NUMBER,
        "transaction_id": "42",
        "trade_state": "SUCCESS",
        "success_time": "2030-01-01T20:00:00+08:00",
        "amount": {"total": 1999, "currency": "CNY"},
        **changes,
    }


@pytest.mark.parametrize(
    ("status", "kind"),
    [("SUCCESS", Succeeded), ("CLOSED", Declined), ("ABNORMAL", Unknown), ("PROCESSING", Pending)],
)
def test_refund_callbacks_say_what_became_of_the_refund(
    status: str, kind: type, http: HttpClient
) -> None:
    news = {
        "original_type": "refund",
        "event_type": f"REFUND.{status}",
        "mchid": "1230000109",
        "out_trade_no": ORDER_NUMBER,
        "out_refund_no": REFUND_NUMBER,
        "refund_id": "50001",
        "refund_status": status,
        "success_time": "2030-01-01T20:00:00+08:00",
        "amount": {"total": 1999, "refund": 500},
    }
    headers, body = PEER.callback(news)
    account = PEER.account("http://127.0.0.1:9")
    callback = PEER.channel(http).read_callback(account, headers, body, real_now())
    assert callback.kind is CallbackKind.REFUND
    assert callback.number == REFUND_NUMBER
    assert callback.app_id is None
    assert isinstance(callback.outcome, kind)


def test_a_callback_about_a_car_park_is_of_its_own_kind(http: HttpClient) -> None:
    news = json.loads(model("Vehicle__VehicleEntranceStateChangeResource"))
    account = PEER.account("http://127.0.0.1:9")
    told = {**news, "original_type": "vehicle", "event_type": "VEHICLE.CHANGED"}
    headers, body = PEER.callback(told)
    callback = PEER.channel(http).read_callback(account, headers, body, real_now())
    assert (callback.kind, callback.number) == (CallbackKind.PARKING, news["out_parking_no"])
    assert callback.merchant_number == news["sp_mchid"], "and not whose address it came to"


def test_a_callback_sealed_under_another_api_key_is_refused(http: HttpClient) -> None:
    headers, body = PEER.callback(payment_news())
    account = PEER.account("http://127.0.0.1:9", api_v3_key="f" * 32)
    with pytest.raises(CallbackForged):
        PEER.channel(http).read_callback(account, headers, body, real_now())


def test_a_callback_that_is_no_document_is_unreadable(http: HttpClient) -> None:
    account = PEER.account("http://127.0.0.1:9")
    for body in (b"[]", b"\xff", json.dumps({"id": 5}).encode()):
        with pytest.raises(CallbackUnreadable):
            PEER.channel(http).read_callback(account, PEER.signature(body), body, real_now())


# --- codes

DOOR = (
    *("PARAM_ERROR", "INVALID_REQUEST", "APPID_MCHID_NOT_MATCH", "ORDER_CLOSED", "MCH_NOT_EXISTS"),
    *("NO_STATEMENT_EXIST", "STATEMENT_CREATING", "SIGN_ERROR", "NO_AUTH", "NOT_ENOUGH"),
    *("OUT_TRADE_NO_USED", "RULE_LIMIT", "TRADE_ERROR", "USER_ACCOUNT_ABNORMAL"),
    *("ORDER_NOT_EXIST", "RESOURCE_NOT_EXISTS", "FREQUENCY_LIMITED", "RATELIMIT_EXCEEDED"),
    *("SYSTEM_ERROR", "SERVICE_UNAVAILABLE", "TRADE_OVERDUE", "REFUND_FEE_MISMATCH"),
)
SHARES = (
    *("ACCOUNT_ABNORMAL", "NO_RELATION", "RECEIVER_HIGH_RISK", "NO_AUTH", "INVALID_REQUEST"),
    *("RECEIVER_REAL_NAME_NOT_VERIFIED", "RECEIVER_RECEIPT_LIMIT", "PAYER_ACCOUNT_ABNORMAL"),
    *("BALANCE_NOT_ENOUGH", "TIME_OUT_CLOSED"),
)
PAYOUTS = ("PAYEE_ACCOUNT_ABNORMAL", "ACCOUNT_FROZEN", "NOT_ENOUGH", "OVERDUE_CLOSE")


@pytest.mark.parametrize(
    ("call", "codes"), [("split", SHARES), ("transfer", PAYOUTS), ("pay", DOOR), ("refund", DOOR)]
)
def test_every_documented_code_is_known_with_advice_in_both_languages(
    call: Any, codes: tuple[str, ...]
) -> None:
    """The codes of the vendor's pages and of the recorded samples."""
    entries = error_map("wechat_pay").entries
    for code in codes:
        known = [entry for entry in entries if entry.code == code]
        assert known, code
        assert all(entry.en and re.search(r"[\u4e00-\u9fff]", entry.zh) for entry in known), code
        if call in {"split", "transfer"}:
            assert any(call in entry.on or not entry.on for entry in known), (code, call)


def test_only_positive_evidence_refuses_a_repeated_call() -> None:
    """What also appears when an earlier call went through is believed only after a query."""
    for call in ("pay", "refund", "split", "transfer"):
        for code in ("INVALID_REQUEST", "NOT_ENOUGH"):
            entry = error_map("wechat_pay").find(call, code)
            assert entry.ask or call == "pay", (call, code)


# --- bills


def test_the_real_bill_adds_up_to_its_own_summary() -> None:
    lines = list(parse_trade_bill(REAL_BILL))
    rows, total = [line for line in lines if isinstance(line, BillRow)], lines[-1]
    assert len(rows) == len(lines) - 1 == 45
    payments = [row for row in rows if row.kind is BillKind.PAYMENT]
    refunds = [row for row in rows if row.kind is BillKind.REFUND]
    assert (len(payments), len(refunds)) == (31, 14)
    assert isinstance(total, BillTotal)
    assert total.row_count == 45
    assert total.payment_amount.amount == sum(row.money.amount for row in payments) == 47
    assert total.refund_amount.amount == sum(row.money.amount for row in refunds) == 14
    assert total.fee_amount is not None
    assert total.fee_amount.amount == sum(row.fee.amount for row in rows) == 8
    first = rows[0]
    assert first.number == "REF4200000263201902167700963919"
    assert first.order_number == "autotest_20190216081946_82335"
    assert first.channel_ref == "50000709672019011908420787722"
    assert first.at.isoformat() == "2019-02-19T05:01:46+08:00"
    assert len({row.number for row in rows}) == 45


SUCCESS_HEADER = (
    "交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,付款银行,"
    "货币种类,应结订单金额,代金券金额,商品名称,商户数据包,手续费,费率,订单金额,费率备注"
)
REFUND_HEADER = (
    "交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,付款银行,"
    "货币种类,应结订单金额,代金券金额,退款申请时间,退款成功时间,微信退款单号,商户退款单号,退款金额,"
    "充值券退款金额,退款类型,退款状态,商品名称,商户数据包,手续费,费率,订单金额,申请退款金额,费率备注"
)
SUMMARY = (
    "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额"
)


def bill(folder: Path, header: str, rows: list[dict[str, str]], totals: str) -> Path:
    lines = ["\ufeff" + header]
    for row in rows:
        full = dict.fromkeys(header.split(","), "") | row
        lines.append(",".join(f"`{value}" for value in full.values()))
    path = folder / "bill.csv"
    path.write_text("\r\n".join([*lines, SUMMARY, totals, ""]), "utf-8", newline="")
    return path


PAYMENT = {
    "交易时间": "2030-01-01 12:00:00",
    "微信订单号": "4200001",
    "商户订单号": ORDER_NUMBER,
    "交易状态": "SUCCESS",
    "货币种类": "CNY",
    "应结订单金额": "19.99",
    "手续费": "0.12000",
    "订单金额": "19.99",
}


def test_the_bill_of_payments_only(tmp_path: Path) -> None:
    named = PAYMENT | {"商品名称": "1 杯\\ 大\\ 热"}  # commas, as the bill writes them
    path = bill(tmp_path, SUCCESS_HEADER, [named], "`1,`19.99,`0,`0,`0.12,`19.99,`0")
    row, total = parse_trade_bill(path)
    assert isinstance(row, BillRow)
    assert (row.money, row.fee) == (Money(1999, "CNY"), Money(12, "CNY"))
    assert isinstance(total, BillTotal)


def test_the_bill_of_refunds_only(tmp_path: Path) -> None:
    refund = PAYMENT | {
        "交易状态": "REFUND",
        "退款申请时间": "2030-01-01 13:00:00",
        "退款成功时间": "2030-01-01 13:00:05",
        "微信退款单号": "50001",
        "商户退款单号": REFUND_NUMBER,
        "退款金额": "5.00",
        "申请退款金额": "5.00",
        "退款状态": "PROCESSING",
        "手续费": "-0.03000",
        "订单金额": "0.00",
    }
    waiting = refund | {"退款成功时间": ""}
    path = bill(tmp_path, REFUND_HEADER, [refund, waiting], "`2,`0,`10,`0,`-0.06,`0,`10.00")
    done, open_still, total = parse_trade_bill(path)
    assert isinstance(done, BillRow)
    assert isinstance(open_still, BillRow)
    assert done.at.isoformat() == "2030-01-01T13:00:05+08:00"
    assert open_still.at.isoformat() == "2030-01-01T13:00:00+08:00"
    assert (done.money, done.fee) == (Money(500, "CNY"), Money(-3, "CNY"))
    assert done.state == "PROCESSING"
    assert isinstance(total, BillTotal)
    assert total.fee_amount == Money(-6, "CNY")


def test_a_reversal_is_a_refund_of_the_order(tmp_path: Path) -> None:
    revoked = PAYMENT | {
        "交易状态": "REVOKED",
        "微信退款单号": "0",
        "商户退款单号": "0",
        "退款金额": "19.99",
        "申请退款金额": "19.99",
        "退款状态": "SUCCESS",
        "订单金额": "0.00",
    }
    path = bill(tmp_path, REFUND_HEADER, [revoked], "`1,`0,`19.99,`0,`0,`0,`19.99")
    row, _ = parse_trade_bill(path)
    assert isinstance(row, BillRow)
    assert (row.kind, row.number, row.state) == (BillKind.REFUND, ORDER_NUMBER, "REVOKED")


def test_another_file_is_no_bill(tmp_path: Path) -> None:
    path = tmp_path / "bill.csv"
    for content in (b"", b"<html></html>", b"\xff\xfe", gzip.compress(REAL_BILL.read_bytes())):
        path.write_bytes(content)
        [line] = parse_trade_bill(path)
        assert isinstance(line, BillFault)
        assert line.code == "bill.header_unknown"


def serve_bill(
    far_end: WireServer, content: bytes, *, sha1: str, packed: bytes | None = None
) -> None:
    address = json.dumps(
        {
            "hash_type": "SHA1",
            "hash_value": sha1,
            "download_url": f"{far_end.url}/wechat/v3/billdownload/file?token=secret-1",
        }
    ).encode()

    def react(heard: Heard) -> bytes:
        if "billdownload" in heard.target:  # not signed
            return http_reply(200, {}, packed if packed is not None else gzip.compress(content))
        return http_reply(200, PEER.signature(address), address)

    far_end.react = react


async def download(far_end: WireServer, http: HttpClient, folder: Path) -> Any:
    account = PEER.account(f"{far_end.url}/wechat")
    channel = WechatPay(http, limits=LIMITS)
    return (await channel.download_bill(account, date(2019, 2, 19), folder)).outcome


async def test_a_bill_is_unpacked_and_its_digest_compared(
    far_end: WireServer, http: HttpClient, tmp_path: Path
) -> None:
    content = REAL_BILL.read_bytes()
    sha1 = hashlib.sha1(content).hexdigest()
    for packed in (None, content):  # gzip, or plain when WeChat Pay feels like it
        serve_bill(far_end, content, sha1=sha1, packed=packed)
        found = await download(far_end, http, tmp_path)
        assert isinstance(found, BillFile)
        assert found.path.read_bytes() == content
        assert found.sha256 == hashlib.sha256(content).hexdigest()
        assert found.size == len(content)
        assert list(tmp_path.iterdir()) == [found.path]
    asked, fetched = far_end.heard[0], far_end.heard[1]
    assert (
        asked.target == "/wechat/v3/bill/tradebill?bill_date=2019-02-19&bill_type=ALL&tar_type=GZIP"
    )
    assert fetched.headers["authorization"].startswith("WECHATPAY2-SHA256-RSA2048 ")


@pytest.mark.parametrize("trouble", ["digest", "cut", "rubbish", "empty"])
async def test_a_damaged_bill_is_not_kept(
    trouble: str, far_end: WireServer, http: HttpClient, tmp_path: Path
) -> None:
    content = REAL_BILL.read_bytes()
    sha1 = hashlib.sha1(content).hexdigest()
    packed = gzip.compress(content)
    served = {
        "digest": gzip.compress(content + b"x"),
        "cut": packed[:-20],
        "rubbish": packed[:100] + b"x" * 500 + packed[600:],
        "empty": b"",
    }[trouble]
    serve_bill(far_end, content, sha1=sha1, packed=served)
    assert isinstance(await download(far_end, http, tmp_path), Unknown)
    assert list(tmp_path.iterdir()) == []
