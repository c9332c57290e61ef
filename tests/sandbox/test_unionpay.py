"""The simulated UnionPay as a merchant meets it: forms, pages, notifications, refusals."""

import hashlib
import http.client
import re
from base64 import b64decode, b64encode
from datetime import datetime, timedelta
from itertools import count
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.sandbox.inbox import Inbox
from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao_sandbox.launch import RunningSandbox

NUMBERS = count(1)


class Merchant:
    """Signs forms and reads replies, as a merchant's SDK does."""

    def __init__(self, sandbox: RunningSandbox, inbox: Inbox) -> None:
        self.sandbox = sandbox
        self.inbox = inbox
        self.shown = sandbox.credentials["unionpay"]
        pem = self.shown["merchant_certificate_pem"].encode()
        self.certificate_id = str(x509.load_pem_x509_certificate(pem).serial_number)

    def fields(self, kind: str, subtype: str, **more: str) -> dict[str, str]:
        now = datetime.fromisoformat(self.sandbox.get("clock")["now"]).astimezone(BUSINESS_ZONE)
        fields = {
            "version": "5.1.0",
            "encoding": "UTF-8",
            "certId": self.certificate_id,
            "signMethod": "01",
            "txnType": kind,
            "txnSubType": subtype,
            "bizType": "000000",
            "channelType": "08",
            "accessType": "0",
            "merId": self.shown["mer_id"],
            "orderId": f"order{next(NUMBERS):08d}",
            "txnTime": now.strftime("%Y%m%d%H%M%S"),
            "txnAmt": "1999",
            "currencyCode": "156",
            "backUrl": self.inbox.url,
            **more,
        }
        return {name: value for name, value in fields.items() if value}

    def signed(self, fields: dict[str, str]) -> dict[str, str]:
        key = load_pem_private_key(self.shown["merchant_private_key_pem"].encode(), None)
        text = "&".join(f"{name}={fields[name]}" for name in sorted(fields))
        digest = hashlib.sha256(text.encode()).hexdigest().encode()
        signature = key.sign(digest, padding.PKCS1v15(), hashes.SHA256())
        return {**fields, "signature": b64encode(signature).decode()}

    def post(
        self, path: str, fields: dict[str, str], *, as_is: bool = False
    ) -> tuple[int, dict[str, str], str]:
        body = urlencode(fields if as_is else self.signed(fields))
        return self.request("POST", f"/unionpay{path}", body)

    def request(self, verb: str, path: str, body: str) -> tuple[int, dict[str, str], str]:
        connection = http.client.HTTPConnection(urlsplit(self.sandbox.url).netloc, timeout=10)
        try:
            headers = {"content-type": "application/x-www-form-urlencoded"}
            connection.request(verb, path, body, headers)
            reply = connection.getresponse()
            text = reply.read().decode()
        finally:
            connection.close()
        pairs = [part.partition("=") for part in text.split("&")]
        return reply.status, {name: value for name, _, value in pairs}, text

    def back(self, fields: dict[str, str]) -> dict[str, str]:
        return self.post("/gateway/api/backTransReq.do", fields)[1]

    def query(self, fields: dict[str, str]) -> dict[str, str]:
        asked = {**fields, "txnType": "00", "txnSubType": "00", "txnAmt": "", "backUrl": ""}
        asked = {name: value for name, value in asked.items() if value}
        return self.post("/gateway/api/queryTrans.do", asked)[1]

    def news(self) -> list[dict[str, str]]:
        self.sandbox.settle()
        return [dict(parse_qsl(letter.body.decode())) for letter in self.inbox.letters]


@pytest.fixture
def merchant(sandbox: RunningSandbox, inbox: Inbox) -> Merchant:
    inbox.otherwise = (200, b"ok")
    return Merchant(sandbox, inbox)


def is_unionpays(fields: dict[str, str], shown: dict[str, str]) -> bool:
    """Check what came by the certificate that came along, up to the root."""
    leaf = x509.load_pem_x509_certificate(fields["signPubKeyCert"].encode())
    middle = x509.load_pem_x509_certificate(shown["middle_certificate_pem"].encode())
    root = x509.load_pem_x509_certificate(shown["root_certificate_pem"].encode())
    leaf.verify_directly_issued_by(middle)
    middle.verify_directly_issued_by(root)
    text = "&".join(f"{name}={fields[name]}" for name in sorted(fields.keys() - {"signature"}))
    digest = hashlib.sha256(text.encode()).hexdigest().encode()
    leaf.public_key().verify(
        b64decode(fields["signature"]), digest, padding.PKCS1v15(), hashes.SHA256()
    )
    name = leaf.subject.rfc4514_string()
    return "@中国银联股份有限公司@" in name


def test_every_answer_brings_its_certificate(merchant: Merchant) -> None:
    fields = merchant.fields("01", "07")
    reply = merchant.back(fields)
    assert reply["respCode"] == "00"
    assert reply["qrCode"].startswith("https://qr.95516.com/")
    assert reply["orderId"] == fields["orderId"]
    assert is_unionpays(reply, merchant.shown)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"version": "5.0.0"}, "10"),
        ({"merId": "777290000000000"}, "31"),
        ({"orderId": "short"}, "10"),
        ({"orderId": "with-a-dash-1"}, "10"),
        ({"txnAmt": "0"}, "10"),
        ({"txnAmt": "19.99"}, "10"),
        ({"currencyCode": "840"}, "10"),
        ({"backUrl": ""}, "13"),
        ({"txnTime": "20300230000000"}, "10"),
        ({"payTimeout": "20200101000000"}, "39"),
        ({"txnSubType": "99"}, "32"),
        ({"txnType": "77", "txnSubType": "00"}, "32"),
        ({"txnSubType": "06", "qrNo": "6200000000000000000"}, "88"),
        ({"txnType": "04", "txnSubType": "00", "origQryId": "1"}, "35"),
    ],
)
def test_what_is_wrong_is_refused_by_its_code(
    merchant: Merchant, changes: dict[str, str], code: str
) -> None:
    base = merchant.fields("01", "07")
    fields = {name: value for name, value in {**base, **changes}.items() if value}
    reply = merchant.back(fields)
    assert reply["respCode"] == code
    assert is_unionpays(reply, merchant.shown)


@pytest.mark.parametrize("spoilt", ["txnAmt", "signature", "certId", "signMethod"])
def test_a_request_that_is_not_the_merchants_is_refused(merchant: Merchant, spoilt: str) -> None:
    fields = merchant.signed(merchant.fields("01", "07"))
    fields[spoilt] = {"signMethod": "11"}.get(spoilt, fields[spoilt][:-4] + "0000")
    _, reply, _ = merchant.post("/gateway/api/backTransReq.do", fields, as_is=True)
    assert reply["respCode"] == "11"
    assert "qrCode" not in reply


def test_a_browser_pays_on_the_page_and_comes_back(merchant: Merchant) -> None:
    fields = merchant.fields("01", "01", bizType="000201", frontUrl="https://shop.example/<back>")
    status, _, page = merchant.post("/gateway/api/frontTransReq.do", fields)
    assert status == 200
    assert "¥19.99" in page
    path = urlsplit(re.search(r'action="([^"]+)"', page)[1]).path
    assert merchant.query(fields)["origRespCode"] == "05"
    _, _, again = merchant.request("POST", path, "action=decline")
    assert "余额不足" in again
    assert merchant.query(fields)["origRespCode"] == "64"
    assert merchant.request("GET", path, "")[0] == 200
    _, _, left = merchant.request("POST", path, "action=pay")
    assert 'action="https://shop.example/&lt;back&gt;"' in left
    assert f'value="{fields["orderId"]}"' in left
    assert merchant.query(fields)["origRespCode"] == "00"
    assert "无法付款" in merchant.request("POST", path, "action=pay")[2]
    assert len(merchant.news()) == 1
    assert merchant.request("GET", "/unionpay/page/nobodys", "")[0] == 404


def test_news_is_signed_and_sent_until_it_is_taken(merchant: Merchant) -> None:
    fields = merchant.fields("01", "07")
    merchant.back(fields)
    merchant.inbox.answers = [(500, b""), (404, b"")]
    merchant.inbox.otherwise = (302, b"")
    merchant.sandbox.post(
        "customer/scan", channel="unionpay", number=fields["orderId"], action="pay"
    )
    merchant.sandbox.settle()
    for gap in (61, 121, 241, 301, 3600):
        merchant.sandbox.advance(gap)
    first, second, third = merchant.news()
    assert first == second == third
    assert is_unionpays(third, merchant.shown)
    assert (third["txnAmt"], third["respCode"]) == ("1999", "00")
    assert re.fullmatch(r"\d{21}", third["queryId"])


def test_a_forged_notice_is_another_companys(merchant: Merchant) -> None:
    fields = merchant.fields("01", "07")
    merchant.back(fields)
    merchant.sandbox.fault("unionpay", "callback", "forged", number=fields["orderId"])
    merchant.sandbox.post(
        "customer/scan", channel="unionpay", number=fields["orderId"], action="pay"
    )
    assert sorted(is_unionpays(news, merchant.shown) for news in merchant.news()) == [False, True]


def test_a_certificate_is_renewed_and_survives(merchant: Merchant) -> None:
    first = merchant.back(merchant.fields("01", "07"))["signPubKeyCert"]
    serial = merchant.sandbox.post("unionpay/rotate")["certificate"]
    reply = merchant.back(merchant.fields("01", "07"))
    assert reply["signPubKeyCert"] != first
    assert is_unionpays(reply, merchant.shown)
    leaf = x509.load_pem_x509_certificate(reply["signPubKeyCert"].encode())
    assert str(leaf.serial_number) == serial


def test_a_number_is_used_once(merchant: Merchant) -> None:
    fields = merchant.fields("01", "07")
    code = merchant.back(fields)["qrCode"]
    assert merchant.back(fields)["qrCode"] == code
    assert merchant.back({**fields, "txnAmt": "2000"})["respCode"] == "12"
    merchant.sandbox.post("settings", **{"unionpay.repeat": "12"})
    assert merchant.back(fields)["respCode"] == "12"
    merchant.sandbox.post("settings", **{"unionpay.repeat": "same"})
    other_time = {**fields, "txnTime": "20300101000000"}
    assert merchant.query(other_time)["respCode"] == "34"


def test_a_file_needs_its_day_to_be_over(merchant: Merchant) -> None:
    asked = merchant.fields("76", "01", txnAmt="", backUrl="", orderId="", fileType="00")
    today = datetime.fromisoformat(merchant.sandbox.get("clock")["now"]).astimezone(BUSINESS_ZONE)
    days = {
        "98": (today.strftime("%m%d"), (today + timedelta(days=2)).strftime("%m%d")),
        "10": ("1340", "", "x"),
    }
    for code, texts in days.items():
        for text in texts:
            asked_then = {name: v for name, v in {**asked, "settleDate": text}.items() if v}
            assert merchant.post("/", asked_then)[1]["respCode"] == code, text
    strange = {**asked, "settleDate": "0101", "fileType": "11"}
    assert merchant.post("/", strange)[1]["respCode"] == "32"


def test_control_says_what_unionpay_can_be_told(merchant: Merchant) -> None:
    for path, body in (
        ("unionpay/nonsense", {}),
        ("unionpay/decide", {"number": "nobodys", "state": "done"}),
        ("unionpay/decide", {"number": "nobodys", "state": "half"}),
        ("unionpay/visit", {"fields": {"merId": "x"}}),
        ("unionpay/difference", {"number": "nobodys", "day": "2030-01-01"}),
    ):
        with pytest.raises(ValueError, match="400"):
            merchant.sandbox.post(path, **body)
    assert unquote(merchant.shown["mer_id"]).isdigit()
