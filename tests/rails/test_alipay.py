"""Alipay down to the bytes: signatures over forms and raw JSON, notifications, bills."""

from __future__ import annotations

import base64
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

import tongbao_sandbox
from tests.rails.peers import (
    ORDER_NUMBER,
    REFUND_NUMBER,
    AlipayPeer,
    order,
    refund_order,
    rsa_key,
    sha256_rsa,
)
from tests.rails.wire_server import WireServer, http_reply
from tongbao.infra.http import HttpClient
from tongbao.kernel.clock import real_now
from tongbao.kernel.money import Money
from tongbao.rails.channels.alipay import bills, wire
from tongbao.rails.channels.alipay.bills import BillDamaged, check_archive, parse_trade_bill
from tongbao.rails.channels.alipay.crypto import (
    notice_text,
    public_key,
    request_text,
    verify,
)
from tongbao.rails.channels.alipay.secrets import AlipaySecrets
from tongbao.rails.channels.contract.bills import BillFault
from tongbao.rails.channels.contract.callbacks import (
    Callback,
    CallbackForged,
    CallbackKind,
    CallbackUnreadable,
)
from tongbao.rails.channels.contract.orders import PayMode
from tongbao.rails.channels.contract.outcomes import Closed, Pending, ShowQr, Succeeded, Unknown
from tongbao.rails.channels.error_map import UNMAPPED, error_map

VECTORS = Path(__file__).parents[1] / "vectors"
PEER = AlipayPeer()


def real_callbacks() -> dict[str, Any]:
    return json.loads((VECTORS / "alipay" / "callbacks.json").read_text())


# --- signatures


def test_only_well_formed_pkcs1_signatures_verify() -> None:
    file = json.loads((VECTORS / "wycheproof" / "rsa_signature_2048_sha256_test.json").read_text())
    for group in file["testGroups"]:
        key = public_key(group["publicKeyPem"])
        for test in group["tests"]:
            signature = base64.b64encode(bytes.fromhex(test["sig"])).decode()
            genuine = verify(key, bytes.fromhex(test["msg"]), signature)
            assert test["result"] == "acceptable" or genuine is (test["result"] == "valid"), test


def test_the_real_callbacks_verify_and_one_letter_breaks_them() -> None:
    real = real_callbacks()
    key = public_key(real["certificate"])
    for name in ("return", "notify"):
        fields = dict(real[name])
        assert verify(key, notice_text(fields), fields["sign"])
        fields["total_amount"] = "0.02"
        assert not verify(key, notice_text(fields), fields["sign"])


def test_a_real_notification_is_read(http: HttpClient) -> None:
    real = real_callbacks()
    account = PEER.account("http://127.0.0.1:9", alipay_public_key_pem=real["certificate"])
    body = urlencode(real["notify"]).encode()
    callback = PEER.channel(http).read_callback(account, {}, body, real_now())
    assert callback.kind is CallbackKind.PAYMENT
    assert callback.number == "1703147160"
    assert callback.notification_id == "2023122101222162644199160501632046"
    assert callback.merchant_number == account.merchant_number
    assert callback.app_id == account.app_id
    assert isinstance(callback.outcome, Succeeded)
    assert callback.outcome.money == Money(1, "CNY")
    assert callback.outcome.at.isoformat() == "2023-12-21T16:26:43+08:00"
    assert callback.outcome.payer == "2088722003899169"
    assert real["notify"]["sign"] not in callback.content
    with pytest.raises(CallbackForged):
        PEER.channel(http).read_callback(account, {}, body.replace(b"0.01", b"9.99"), real_now())


def test_what_a_request_is_signed_over() -> None:
    text = request_text({"b": "2", "a": "货 & =", "sign": "x", "empty": "", "sign_type": "RSA2"})
    assert text.decode() == "a=货 & =&b=2&sign_type=RSA2"


async def test_a_request_carries_its_signature_in_the_query(
    far_end: WireServer, http: HttpClient
) -> None:
    far_end.react = lambda _: http_reply(503)
    channel, account = PEER.channel(http), PEER.account(f"{far_end.url}/alipay")
    await channel.pay(account, order("alipay", PayMode.QR))
    await channel.refund(account, refund_order())
    for heard in far_end.heard:
        parts = urlsplit(heard.target)
        assert (heard.method, parts.path) == ("POST", "/alipay/gateway.do")
        query, form = dict(parse_qsl(parts.query)), dict(parse_qsl(heard.body.decode()))
        assert set(form) == {"biz_content"}
        signed = {**query, **form}
        signature = signed.pop("sign")
        text = "&".join(f"{name}={signed[name]}" for name in sorted(signed))
        rsa_key("merchant").public_key().verify(
            base64.b64decode(signature), text.encode(), padding.PKCS1v15(), hashes.SHA256()
        )
        assert query["sign_type"] == "RSA2"
        assert query["charset"] == "utf-8"
        assert query["version"] == "1.0"
    content = json.loads(dict(parse_qsl(far_end.heard[0].body.decode()))["biz_content"])
    assert content["total_amount"] == "19.99"
    assert content["time_expire"] == "2030-01-01 20:00:00"
    assert "notify_url" in far_end.heard[0].target
    assert "notify_url" not in far_end.heard[1].target


async def test_a_reply_is_verified_on_its_raw_bytes(far_end: WireServer, http: HttpClient) -> None:
    """Spaces, escapes and order are the sender's; a re-encoded object would not verify."""
    node = (
        '{ "out_trade_no" : "' + ORDER_NUMBER + '",'
        ' "qr_code":"https:\\/\\/qr.alipay.com\\/b\\u0061x", "msg":"成功", "code":"10000" }'
    )
    signature = sha256_rsa(rsa_key("platform"), node.encode())
    replies = [
        f'{{"alipay_trade_precreate_response":{node},"sign":"{signature}"}}',
        f'{{"sign":"{signature}","alipay_trade_precreate_response": {node} }}',
        f'{{"alipay_trade_precreate_response":{node},"alipay_cert_sn":"x","sign":"{signature}"}}',
    ]
    for text in replies:
        far_end.react = lambda _, text=text: http_reply(200, {}, text.encode())
        answer = await PEER.channel(http).pay(
            PEER.account(far_end.url), order("alipay", PayMode.QR)
        )
        assert isinstance(answer.outcome, Pending), text
        assert answer.outcome.action == ShowQr("https://qr.alipay.com/bax")


async def test_a_second_object_cannot_ride_on_a_good_signature(
    far_end: WireServer, http: HttpClient
) -> None:
    node = json.dumps({"code": "10000", "out_trade_no": ORDER_NUMBER, "qr_code": "https://good"})
    evil = node.replace("good", "evil")
    signature = sha256_rsa(rsa_key("platform"), node.encode())
    name = '"alipay_trade_precreate_response"'
    for text in (
        f'{{{name}:{node},{name}:{evil},"sign":"{signature}"}}',
        f'{{{name}:{evil},{name}:{node},"sign":"{signature}"}}',
    ):
        far_end.react = lambda _, text=text: http_reply(200, {}, text.encode())
        answer = await PEER.channel(http).pay(
            PEER.account(far_end.url), order("alipay", PayMode.QR)
        )
        # Whichever of the two is read is the one that was verified.
        assert isinstance(answer.outcome, Unknown) or (
            isinstance(answer.outcome, Pending) and answer.outcome.action == ShowQr("https://good")
        )


# --- notifications

PAID = {
    "out_trade_no": ORDER_NUMBER,
    "trade_no": "2030010122001",
    "trade_status": "TRADE_SUCCESS",
    "total_amount": "19.99",
    "gmt_payment": "2030-01-01 20:00:00",
}
GIVEN_BACK = {
    "refund_fee": "5.00",
    "gmt_refund": "2030-01-01 21:00:00",
    "out_biz_no": REFUND_NUMBER,
}
NEVER_PAID = {"out_trade_no": ORDER_NUMBER, "trade_no": "1", "trade_status": "TRADE_CLOSED"}


def read(http: HttpClient, fields: dict[str, str]) -> Callback:
    headers, body = PEER.callback(fields)
    account = PEER.account("http://127.0.0.1:9")
    return PEER.channel(http).read_callback(account, headers, body, real_now())


@pytest.mark.parametrize(
    ("fields", "kind", "number", "outcome"),
    [
        (PAID, CallbackKind.PAYMENT, ORDER_NUMBER, Succeeded),
        (PAID | {"trade_status": "TRADE_FINISHED"}, CallbackKind.PAYMENT, ORDER_NUMBER, Succeeded),
        (PAID | {"refund_fee": "0.00"}, CallbackKind.PAYMENT, ORDER_NUMBER, Succeeded),
        (PAID | GIVEN_BACK, CallbackKind.REFUND, REFUND_NUMBER, Unknown),
        (
            PAID | GIVEN_BACK | {"trade_status": "TRADE_CLOSED", "refund_fee": "19.99"},
            CallbackKind.REFUND,
            REFUND_NUMBER,
            Unknown,
        ),
        (PAID | {"refund_fee": "5.00"}, CallbackKind.REFUND, ORDER_NUMBER, Unknown),
        (NEVER_PAID, CallbackKind.PAYMENT, ORDER_NUMBER, Closed),
        (PAID | {"trade_status": "TRADE_CLOSED"}, CallbackKind.PAYMENT, ORDER_NUMBER, Unknown),
        (
            NEVER_PAID | {"trade_status": "WAIT_BUYER_PAY"},
            CallbackKind.PAYMENT,
            ORDER_NUMBER,
            Pending,
        ),
    ],
)
def test_what_a_notification_speaks_of(
    fields: dict[str, str],
    kind: CallbackKind,
    number: str,
    outcome: type,
    http: HttpClient,
) -> None:
    callback = read(http, fields)
    assert (callback.kind, callback.number) == (kind, number)
    assert isinstance(callback.outcome, outcome)


def test_a_payment_without_an_amount_or_a_time_is_unreadable(http: HttpClient) -> None:
    for missing in ("total_amount", "gmt_payment", "trade_no"):
        with pytest.raises(CallbackUnreadable):
            read(http, {name: value for name, value in PAID.items() if name != missing})


def test_a_notification_may_come_in_gbk(http: HttpClient) -> None:
    fields = PAID | {
        "app_id": "9021000122682882",
        "charset": "gbk",
        "notify_id": "1",
        "notify_type": "trade_status_sync",
        "seller_id": "2088721003899159",
        "subject": "一杯咖啡",
    }
    text = "&".join(f"{name}={fields[name]}" for name in sorted(fields))
    signed = {**fields, "sign_type": "RSA2", "sign": sha256_rsa(rsa_key("platform"), text.encode())}
    body = urlencode(signed, encoding="gbk", quote_via=quote).encode()
    account = PEER.account("http://127.0.0.1:9")
    callback = PEER.channel(http).read_callback(account, {}, body, real_now())
    assert json.loads(callback.content)["subject"] == "一杯咖啡"


def test_a_field_given_twice_is_refused(http: HttpClient) -> None:
    _, body = PEER.callback(PAID)
    account = PEER.account("http://127.0.0.1:9")
    for extra in (b"&total_amount=19.99", b"&total_amount=1999.00", b"&sign_type=RSA2"):
        with pytest.raises(CallbackForged):
            PEER.channel(http).read_callback(account, {}, body + extra, real_now())


def test_only_rsa2_is_accepted(http: HttpClient) -> None:
    _, body = PEER.callback(PAID)
    account = PEER.account("http://127.0.0.1:9")
    with pytest.raises(CallbackForged):
        PEER.channel(http).read_callback(
            account, {}, body.replace(b"sign_type=RSA2", b"sign_type=RSA"), real_now()
        )


# --- documents


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"trade_status": "TRADE_SUCCESS", "send_pay_date": "2030-01-01 20:00:00"}, Succeeded),
        ({"trade_status": "TRADE_SUCCESS"}, Unknown),
        ({"trade_status": "TRADE_CLOSED"}, Closed),
        ({"trade_status": "TRADE_CLOSED", "buyer_pay_amount": "19.99"}, Unknown),
        ({"trade_status": "TRADE_CLOSED", "send_pay_date": "2030-01-01 20:00:00"}, Unknown),
        ({"trade_status": "TRADE_HALF"}, Unknown),
        ({}, Unknown),
    ],
)
def test_what_a_trade_says(fields: dict[str, str], kind: type) -> None:
    trade = wire.Trade(out_trade_no="1", total_amount="19.99", trade_no="2", **fields)
    assert isinstance(wire.trade_outcome(trade), kind)


def test_keys_do_not_print() -> None:
    secrets = AlipaySecrets(app_private_key_pem="PRIVATE", alipay_public_key_pem="PUBLIC")
    assert "PRIVATE" not in repr(secrets)


# --- bills


def test_an_archive_without_a_list_of_trades_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "bill.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("2088_20300101_业务明细(汇总).csv", "x")
    with pytest.raises(BillDamaged):
        check_archive(path)
    [line] = parse_trade_bill(path)
    assert isinstance(line, BillFault)
    assert line.code == "bill.archive_damaged"


def test_an_archive_that_does_not_unpack_whole_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "bill.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("2088_20300101_业务明细.csv", "#支付宝业务明细查询\r\n" * 1000)
    assert check_archive(path).size == path.stat().st_size
    raw = bytearray(path.read_bytes())
    raw[60] ^= 0xFF
    path.write_bytes(bytes(raw))
    with pytest.raises(BillDamaged):
        check_archive(path)
    assert any(isinstance(line, BillFault) for line in parse_trade_bill(path))


def broken_archives() -> dict[str, bytes]:
    """Archives that a library meets with another exception each."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("2088_业务明细.csv", "x" * 100)
    whole = packed.getvalue()
    entry, end = whole.index(b"PK\x01\x02"), whole.index(b"PK\x05\x06")
    return {
        "a name that is no text": whole[: entry + 46] + b"\xff" + whole[entry + 47 :],
        "a password": whole[: entry + 8] + b"\x01" + whole[entry + 9 :],
        "an entry before the beginning": whole[: end + 16] + b"\xff" + whole[end + 17 :],
        "an unusual packing": whole[: entry + 10] + b"\x0c" + whole[entry + 11 :],
        "a packing nobody knows": whole[: entry + 10] + b"\x63" + whole[entry + 11 :],
    }


@pytest.mark.parametrize("how", broken_archives())
def test_an_archive_broken_in_any_way_is_damaged(tmp_path: Path, how: str) -> None:
    path = tmp_path / "bill.zip"
    path.write_bytes(broken_archives()[how])
    with pytest.raises(BillDamaged):
        check_archive(path)
    [line] = parse_trade_bill(path)
    assert isinstance(line, BillFault)
    assert line.code == "bill.archive_damaged"


def test_an_archive_that_unpacks_without_end_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bill.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("2088_业务明细.csv", b"a" * 3_000_000)
    monkeypatch.setattr(bills, "UNPACKED_MAX", 2_000_000)
    with pytest.raises(BillDamaged, match="larger"):
        check_archive(path)


def test_a_subject_cannot_look_like_more_fields_of_a_notification() -> None:
    content = wire.precreate_content(order("alipay", PayMode.QR, subject="茶/2&total_amount=0.01"))
    assert content["subject"] == "茶／2＆total_amount＝0.01"


# --- codes

FACTS = {
    *("10003", "20000", "20001", "40001", "40002", "40006"),
    *("aop.unknow-error", "isv.invalid-signature"),
    *("ACQ.SYSTEM_ERROR", "ACQ.TRADE_NOT_EXIST", "ACQ.TRADE_HAS_SUCCESS", "ACQ.TRADE_HAS_CLOSE"),
    *("ACQ.TRADE_STATUS_ERROR", "ACQ.PAYMENT_AUTH_CODE_INVALID", "ACQ.BUYER_BALANCE_NOT_ENOUGH"),
    *("ACQ.SELLER_BALANCE_NOT_ENOUGH", "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL"),
}
"""Every code that the protocol's description names; 40004 is explained below."""


def said_by_the_sandbox() -> set[str]:
    """Every refusal written in the simulated Alipay; pages are shown to people and not to us."""
    said: set[str] = set()
    for path in Path(tongbao_sandbox.__path__[0]).glob("alipay*.py"):
        text = path.read_text("utf-8")
        said |= set(re.findall(r'Refusal\(\s*"\d+",\s*"([^"]+)"', text))
        said |= set(re.findall(r'_no_(?:pay|refund)\((?:trade, )?"([^"]+)"', text))
    return said - {"USER_AGREEMENT_EXIST"}


def test_every_code_of_the_facts_and_of_the_sandbox_is_mapped_with_advice() -> None:
    mapped = {entry.code: entry for entry in error_map("alipay").entries}
    said = said_by_the_sandbox()
    assert {"ACQ.AGREEMENT_INVALID", "PAYEE_NOT_EXIST", "ACQ.ALLOC_AMOUNT_VALIDATE_ERROR"} <= said
    assert FACTS | said <= set(mapped)
    for entry in mapped.values():
        assert entry.en
        assert any("\u4e00" <= letter <= "\u9fff" for letter in entry.zh), entry.code


def test_a_business_code_nobody_mapped_is_unknown_and_counted() -> None:
    """40004 says only that some business code follows, so it must not speak for one."""
    before = UNMAPPED.labels("alipay", "pay")._value.get()
    assert error_map("alipay").find("pay", "ACQ.NEVER_HEARD_OF", "40004").meaning == "unknown"
    assert UNMAPPED.labels("alipay", "pay")._value.get() == before + 1
