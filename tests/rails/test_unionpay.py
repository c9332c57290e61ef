"""UnionPay's own ways: signatures and certificates, the gateway's forms, its files."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SM3, Hash
from hypothesis import given
from hypothesis import strategies as st

from tests.rails.peers import (
    ORDER_NUMBER,
    REFUND_NUMBER,
    UnionPayPeer,
    issued_pem,
    order,
    refund_order,
    rsa_key,
)
from tests.rails.wire_server import WireServer
from tongbao.infra.http import HttpClient
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import base32, new_id
from tongbao.rails.channels.capabilities.authorisations import Capture, Voiding
from tongbao.rails.channels.contract.callbacks import (
    CallbackForged,
    CallbackKind,
    CallbackUnreadable,
)
from tongbao.rails.channels.contract.orders import PayMode
from tongbao.rails.channels.contract.outcomes import (
    Authorised,
    NotSent,
    Pending,
    SubmitForm,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.exchange import Paced
from tongbao.rails.channels.unionpay.client import UnionPay
from tongbao.rails.channels.unionpay.crypto import (
    UNIONPAY_NAME,
    CertificateRefused,
    certificate_id,
    name_of,
    refusal,
    sign,
    signed_text,
    signer_key,
    verifies,
)
from tongbao.rails.channels.unionpay.gateway import address
from tongbao.rails.channels.unionpay.secrets import UnionPaySecrets
from tongbao.rails.channels.unionpay.wire import (
    FILE,
    QUESTION,
    china_text,
    parse_reply,
    sent_at,
    with_year,
)
from tongbao.surfaces.cli.channels import read_account
from tongbao.wiring import SECRETS

PEER = UnionPayPeer()
NOWHERE = "http://127.0.0.1:9"
VECTORS = Path(__file__).parents[1] / "vectors" / "unionpay"
REAL = json.loads((VECTORS / "callback.json").read_text("utf-8"))
REAL_REPLY = json.loads((VECTORS / "query_reply.json").read_text("utf-8"))["fields"]


def keys(**changes: Any) -> UnionPaySecrets:
    secrets = PEER.account(NOWHERE, **changes).secrets
    assert isinstance(secrets, UnionPaySecrets)
    return secrets


# --- signatures


def test_a_real_callback_verifies_with_its_embedded_certificate() -> None:
    fields = REAL["fields"]
    leaf = x509.load_pem_x509_certificate(fields["signPubKeyCert"].encode())
    assert name_of(leaf) == UNIONPAY_NAME
    key = leaf.public_key()
    assert isinstance(key, RSAPublicKey)
    assert verifies(key, signed_text(fields), fields["signature"])
    for name in fields.keys() - {"signature"}:
        changed = {**fields, name: fields[name] + "0"}
        assert not verifies(key, signed_text(changed), fields["signature"]), name


def test_a_real_reply_to_a_query_is_read_and_verified() -> None:
    """The frame is written as the gateway writes it; fields, signature and certificate are real."""
    body = "&".join(f"{name}={value}" for name, value in REAL_REPLY.items()).encode()
    fields = parse_reply(body)
    assert fields is not None
    assert fields == REAL_REPLY
    leaf = x509.load_pem_x509_certificate(fields["signPubKeyCert"].encode())
    key = leaf.public_key()
    assert name_of(leaf) == UNIONPAY_NAME
    assert isinstance(key, RSAPublicKey)
    assert verifies(key, signed_text(fields), fields["signature"])
    lied = {**fields, "txnAmt": "2"}
    assert not verifies(key, signed_text(lied), fields["signature"])


def test_a_real_callback_is_not_believed_without_its_authority(http: HttpClient) -> None:
    body = urlencode(REAL["fields"]).encode()
    with pytest.raises(CallbackForged) as forged:
        UnionPay(http).read_callback(PEER.account(NOWHERE), {}, body, real_now())
    assert "chain" in repr(forged.value.__dict__)


def test_the_certificate_that_comes_along_must_be_unionpays() -> None:
    root, middle = keys().root_certificate_pem, keys().middle_certificate_pem
    now = real_now()
    good = PEER.issued("platform", PEER.unionpay_name)
    assert signer_key(good, middle, root, now).key_size == 2048
    crlf = good.replace("\n", "\r\n")
    assert signer_key(crlf, middle, root, now).key_size == 2048
    refused = {
        "another company of the same authority": PEER.issued("merchant", "041@7@一家商店@1"),
        "a name that only contains UnionPay's": PEER.issued("x", f"041@7@{UNIONPAY_NAME}之友@1"),
        "UnionPay's name in another part": PEER.issued("x", f"{UNIONPAY_NAME}@7@x@1"),
        "another authority": issued_pem("platform", PEER.unionpay_name, by="nobody"),
        "itself": issued_pem("platform", PEER.unionpay_name, by="platform"),
        "no certificate": "x",
        "nothing": "",
        "a huge one": good + "x" * 20_000,
    }
    for why, pem in refused.items():
        with pytest.raises(CertificateRefused):
            signer_key(pem, middle, root, now)
        assert why


def test_a_certificate_out_of_its_time_is_refused() -> None:
    root, middle = keys().root_certificate_pem, keys().middle_certificate_pem
    good = PEER.issued("platform", PEER.unionpay_name, days=(-10, 10))
    assert signer_key(good, middle, root, real_now() + timedelta(days=9))
    for days in (-11, 11):
        with pytest.raises(CertificateRefused, match="not valid now"):
            signer_key(good, middle, root, real_now() + timedelta(days=days))


def test_a_middle_certificate_of_another_root_is_refused() -> None:
    good = PEER.issued("platform", PEER.unionpay_name)
    other = issued_pem("nobody", "nobody", by="nobody")
    with pytest.raises(CertificateRefused, match="chain"):
        signer_key(good, keys().middle_certificate_pem, other, real_now())


def test_a_request_is_signed_over_the_hexadecimal_digest() -> None:
    signed = sign(keys(), {"orderId": "1", "backUrl": "", "a": "中文"})
    assert signed["signMethod"] == "01"
    assert signed["certId"] == certificate_id(keys().merchant_certificate_pem) == "68759585092"
    text = f"a=中文&certId={signed['certId']}&orderId=1&signMethod=01".encode()
    assert signed_text(signed) == text
    assert verifies(rsa_key("merchant").public_key(), text, signed["signature"])


def sm3(message: bytes) -> str:
    digest = Hash(SM3())
    digest.update(message)
    return digest.finalize().hex()


@pytest.mark.parametrize(
    ("method", "digest"), [("11", lambda raw: hashlib.sha256(raw).hexdigest()), ("12", sm3)]
)
def test_a_shared_key_signs_with_its_own_digest(method: Any, digest: Any) -> None:
    secrets = UnionPaySecrets(sign_method=method, secure_key="979da4cfccbae7923641daa5dd7047c2")
    signed = sign(secrets, {"orderId": "1", "txnAmt": "100"})
    text = f"orderId=1&signMethod={method}&txnAmt=100"
    key = digest(b"979da4cfccbae7923641daa5dd7047c2")
    assert signed["signature"] == digest(f"{text}&{key}".encode())
    assert "certId" not in signed
    assert refusal(secrets, signed, real_now()) is None
    assert refusal(secrets, {**signed, "txnAmt": "101"}, real_now())
    other = UnionPaySecrets(sign_method=method, secure_key="another")
    assert refusal(other, signed, real_now())


def test_the_weaker_method_cannot_be_chosen_by_the_other_side() -> None:
    by_key = sign(UnionPaySecrets(sign_method="11", secure_key="k"), {"orderId": "1"})
    assert refusal(keys(), by_key, real_now()) == "it is signed with another method"
    assert refusal(keys(), {"orderId": "1"}, real_now()) == "there is no signature"


def test_an_account_without_the_keys_of_its_method_is_none() -> None:
    for partial in ({}, {"sign_method": "11"}, {"sign_method": "13", "secure_key": "k"}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(partial, UnionPaySecrets)
    assert "k" not in repr(UnionPaySecrets(sign_method="12", secure_key="k")).lower()


# --- replies


def test_a_reply_may_hold_separators_inside_braces() -> None:
    body = "a=1&tokenPayData={token=62&trId=1}&respMsg=成功[0000&0]&b=x=y&c=".encode()
    assert parse_reply(body) == {
        "a": "1",
        "tokenPayData": "{token=62&trId=1}",
        "respMsg": "成功[0000&0]",
        "b": "x=y",
        "c": "",
    }


@pytest.mark.parametrize(
    "body", [b"", b"a", b"a=1&a=2", b"=1", b"a=1&", b"\xff=1", b"&" * 5000, b"<html>"]
)
def test_what_is_no_reply_is_none(body: bytes) -> None:
    assert parse_reply(body) is None


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    fields = parse_reply(body)
    if fields is not None:
        assert "&".join(f"{name}={value}" for name, value in fields.items()).encode() == body


def test_an_order_is_sent_at_the_time_its_number_was_made() -> None:
    before = real_now().replace(microsecond=0)
    number = base32(new_id())
    assert china_text(before) <= sent_at(number) <= china_text(real_now())
    assert sent_at(number + "x") == sent_at(number)
    assert sent_at("no id") == sent_at("00") == "20200101000000"
    assert len(sent_at("z" * 26)) == 14


def test_a_time_without_a_year_is_the_nearest() -> None:
    new_year = datetime(2030, 1, 1, 0, 5, tzinfo=UTC)
    assert china_text(with_year("1231235959", near=new_year) or new_year) == "20291231235959"
    assert china_text(with_year("0101000001", near=new_year) or new_year) == "20300101000001"
    assert with_year("0230000000", near=new_year) is None
    assert with_year("", near=new_year) is None
    leap = datetime(2028, 3, 1, tzinfo=UTC)
    assert china_text(with_year("0229120000", near=leap) or new_year) == "20280229120000"


# --- what goes out


async def test_a_form_for_the_browser_is_signed_and_shows_nothing_secret(http: HttpClient) -> None:
    account = PEER.account(NOWHERE)
    asked = order("unionpay", PayMode.WEB, return_url="https://shop.example/back?a=1&b=2")
    answer = await UnionPay(http).pay(account, asked)
    assert isinstance(answer.outcome, Pending)
    form = answer.outcome.action
    assert isinstance(form, SubmitForm)
    assert form.url == f"{NOWHERE}/gateway/api/frontTransReq.do"
    assert form.fields["frontUrl"] == "https://shop.example/back?a=1&b=2"
    assert form.fields["payTimeout"] == "20300101200000"
    key = rsa_key("merchant").public_key()
    assert verifies(key, signed_text(form.fields), form.fields["signature"])
    assert form.fields["signature"] not in repr(answer.exchange)
    again = (await UnionPay(http).pay(account, asked)).outcome
    assert again == answer.outcome


async def test_a_subject_cannot_be_cut_into_other_fields(http: HttpClient) -> None:
    evil = "x&txnAmt=1&orderDesc={y=[z"
    answer = await UnionPay(http).pay(
        PEER.account(NOWHERE), order("unionpay", PayMode.H5, subject=evil)
    )
    assert isinstance(answer.outcome, Pending)
    assert isinstance(answer.outcome.action, SubmitForm)
    text = signed_text(answer.outcome.action.fields).decode()
    assert len(text.split("&")) == len(answer.outcome.action.fields) - 1
    described = answer.outcome.action.fields["orderDesc"]
    assert not set(described) & set("&={}[]")


async def test_files_have_a_host_of_their_own(far_end: WireServer, http: HttpClient) -> None:
    account = PEER.account("https://gateway.95516.com")
    assert address(account, FILE) == "https://filedownload.95516.com/"
    assert address(account, QUESTION) == "https://gateway.95516.com/gateway/api/queryTrans.do"
    assert address(PEER.account(far_end.url), FILE) == f"{far_end.url}/"


def test_the_plan_of_queries_is_unionpays(http: HttpClient) -> None:
    channel = UnionPay(http)
    minutes = [delay.total_seconds() / 60 for delay in channel.query_delays(PayMode.WEB)]
    assert minutes == [5, 10, 30, 60, 120]
    seconds = [delay.total_seconds() for delay in channel.query_delays(PayMode.PAYMENT_CODE)]
    assert seconds[:6] == [1, 2, 4, 8, 16, 32]
    assert seconds == sorted(seconds)
    assert isinstance(channel, Paced)


# --- notifications

NEWS = {
    "orderId": ORDER_NUMBER,
    "txnType": "01",
    "txnSubType": "01",
    "txnTime": "20300101195930",
    "txnAmt": "1999",
    "currencyCode": "156",
    "queryId": "512209110416475616528",
    "traceTime": "0101200000",
}


@pytest.mark.parametrize(
    "changes",
    [
        {"txnType": "00"},
        {"txnType": ""},
        {"respCode": "05"},
        {"respCode": ""},
        {"queryId": ""},
        {"orderId": ""},
        {"txnAmt": ""},
        {"txnAmt": "19.99"},
        {"txnAmt": "9" * 30},
        {"currencyCode": "840"},
    ],
)
def test_news_that_is_no_success_is_not_read(changes: dict[str, str], http: HttpClient) -> None:
    headers, body = PEER.callback({**NEWS, **changes})
    with pytest.raises(CallbackUnreadable):
        UnionPay(http).read_callback(PEER.account(NOWHERE), headers, body, real_now())


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("01", Succeeded), ("02", Authorised), ("03", Succeeded), ("32", Unknown), ("33", Unknown)],
)
def test_news_of_each_kind(kind: str, expected: type, http: HttpClient) -> None:
    headers, body = PEER.callback({**NEWS, "txnType": kind})
    news = UnionPay(http).read_callback(PEER.account(NOWHERE), headers, body, real_now())
    assert isinstance(news.outcome, expected)
    assert news.kind is CallbackKind.PAYMENT


def test_news_of_what_this_adapter_does_not_know_says_so(http: HttpClient) -> None:
    headers, body = PEER.callback({**NEWS, "txnType": "79", "bizType": "000202"})
    news = UnionPay(http).read_callback(PEER.account(NOWHERE), headers, body, real_now())
    assert (news.kind, news.app_id) == (CallbackKind.OTHER, None)
    assert isinstance(news.outcome, Unknown)


def test_news_of_another_product_is_not_this_accounts(http: HttpClient) -> None:
    headers, body = PEER.callback({**NEWS, "bizType": "000601"})
    account = PEER.account(NOWHERE)
    news = UnionPay(http).read_callback(account, headers, body, real_now())
    assert news.app_id == "000601" != account.app_id
    headers, body = PEER.callback({**NEWS, "bizType": "000202"})
    news = UnionPay(http).read_callback(account, headers, body, real_now())
    assert news.app_id == account.app_id, "an order may name the page's other product"
    dues = msgspec.structs.replace(account, app_id="000601")
    assert UnionPay(http).read_callback(dues, headers, body, real_now()).app_id == "000202"


def test_news_keeps_no_card_number(http: HttpClient) -> None:
    headers, body = PEER.callback({**NEWS, "accNo": "6216261000000000018"})
    news = UnionPay(http).read_callback(PEER.account(NOWHERE), headers, body, real_now())
    assert "6216261000000000018" not in repr(news)
    assert "signature" not in news.content


async def test_our_own_signed_order_is_no_news_of_a_payment(http: HttpClient) -> None:
    """With a shared key what we sign for the customer's browser verifies as if it were theirs."""
    account = msgspec.structs.replace(
        PEER.account(NOWHERE), secrets=UnionPaySecrets(sign_method="11", secure_key="k" * 32)
    )
    answer = await UnionPay(http).pay(account, order("unionpay", PayMode.WEB))
    assert isinstance(answer.outcome, Pending)
    assert isinstance(answer.outcome.action, SubmitForm)
    body = urlencode(answer.outcome.action.fields).encode()
    with pytest.raises(CallbackUnreadable):
        UnionPay(http).read_callback(account, {}, body, real_now())


def test_a_field_given_twice_is_refused(http: HttpClient) -> None:
    headers, body = PEER.callback(NEWS)
    with pytest.raises(CallbackForged):
        UnionPay(http).read_callback(
            PEER.account(NOWHERE), headers, body + b"&txnAmt=1", real_now()
        )


# --- connecting


def test_the_how_to_connects_an_account(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/connect-unionpay.md").read_text()
    account = PEER.account(NOWHERE)
    for name, pem in msgspec.to_builtins(account.secrets).items():
        if name.endswith("_pem"):
            (tmp_path / f"{name.removesuffix('_pem')}.pem").write_text(pem)
    found = [text.partition("```")[0] for text in page.split("```toml\n")[1:]]
    assert len(found) == 3
    for text in found:
        (tmp_path / "account.toml").write_text(text)
        new = read_account(tmp_path / "account.toml")
        assert msgspec.convert(dict(new.keys), SECRETS[new.channel])
    assert {read_account(tmp_path / "account.toml").channel} == {"unionpay_qra"}


@pytest.mark.parametrize("mode", [PayMode.WEB, PayMode.H5])
async def test_an_order_may_name_the_pages_other_product(
    mode: PayMode, far_end: WireServer, http: HttpClient
) -> None:
    account, channel = PEER.account(far_end.url), UnionPay(http)
    asked = order("unionpay", mode, app_id="000202")
    outcome = (await channel.pay(account, asked)).outcome
    assert isinstance(outcome, Pending)
    assert isinstance(outcome.action, SubmitForm)
    assert outcome.action.fields["bizType"] == "000202" != account.app_id
    money, ref = asked.money, "512209110416475616528"
    await channel.refund(account, refund_order(order_mode=mode, order_app="000202"))
    await channel.capture(account, Capture(REFUND_NUMBER, asked, ref, None, money))
    await channel.void(account, Voiding(REFUND_NUMBER, asked, ref, None, money))
    told = [dict(parse_qsl(heard.body.decode())) for heard in far_end.heard]
    following = {each["txnType"]: each["bizType"] for each in told if each["txnType"] != "00"}
    assert following == {"04": "000202", "03": "000202", "32": "000202"}
    strange = order("unionpay", mode, app_id="000601")
    assert isinstance((await channel.pay(account, strange)).outcome, NotSent)


@pytest.mark.parametrize(
    ("mode", "product"),
    [
        (PayMode.QR, "000000"),
        (PayMode.APP, "000000"),
        (PayMode.PAYMENT_CODE, "000000"),
        (PayMode.WEB, "000202"),
        (PayMode.H5, "000202"),
        (None, "000202"),
    ],
)
async def test_a_refund_is_of_the_product_of_its_payment(
    mode: PayMode | None, product: str, far_end: WireServer, http: HttpClient
) -> None:
    account = msgspec.structs.replace(PEER.account(far_end.url), app_id="000202")
    await UnionPay(http).refund(account, refund_order(order_mode=mode))
    asked = dict(parse_qsl(far_end.heard[0].body.decode()))
    assert asked["bizType"] == product
    assert asked["origQryId"] == "512209110416475616528"
    assert asked["txnAmt"] == "500"
