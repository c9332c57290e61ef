"""The simulated bank: real ISO 20022 messages in and out, and an account number for each fate."""

import urllib.error
import urllib.request
from itertools import count
from pathlib import Path

import pytest
from lxml import etree

from tests.sandboxes import start_sandbox

VECTORS = Path(__file__).parents[1] / "vectors" / "iso20022"
PAIN_001 = etree.XMLSchema(file=str(VECTORS / "pain.001.001.09.xsd"))
PAIN_002 = etree.XMLSchema(file=str(VECTORS / "pain.002.001.10.xsd"))
NUMBERS = count(1)

ORDER = """<?xml version="1.0" encoding="UTF-8"?>
<Document xmlns="urn:iso:std:iso:20022:tech:xsd:pain.001.001.09"><CstmrCdtTrfInitn>
<GrpHdr><MsgId>{number}</MsgId><CreDtTm>2026-11-21T10:00:00+08:00</CreDtTm><NbOfTxs>{count}</NbOfTxs>
<CtrlSum>{total}</CtrlSum><InitgPty><Nm>P</Nm></InitgPty></GrpHdr>
<PmtInf><PmtInfId>{number}</PmtInfId><PmtMtd>TRF</PmtMtd><ReqdExctnDt><Dt>2026-11-21</Dt></ReqdExctnDt>
<Dbtr><Nm>P</Nm></Dbtr><DbtrAcct><Id><Othr><Id>{debtor}</Id></Othr></Id></DbtrAcct>
<DbtrAgt><FinInstnId><ClrSysMmbId><MmbId>102290000011</MmbId></ClrSysMmbId></FinInstnId></DbtrAgt>
<CdtTrfTxInf><PmtId><EndToEndId>{number}</EndToEndId></PmtId>
<Amt><InstdAmt Ccy="{currency}">{amount}</InstdAmt></Amt>
<CdtrAgt><FinInstnId><ClrSysMmbId><MmbId>105100000017</MmbId></ClrSysMmbId></FinInstnId></CdtrAgt>
<Cdtr><Nm>杭州某某茶饮有限公司</Nm></Cdtr>
<CdtrAcct><Id><Othr><Id>{account}</Id></Othr></Id></CdtrAcct></CdtTrfTxInf></PmtInf>
</CstmrCdtTrfInitn></Document>"""


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    with start_sandbox(tmp_path_factory.mktemp("sandbox")) as running:
        yield running


class Customer:
    def __init__(self, sandbox):
        self.sandbox = sandbox
        self.shown = sandbox.credentials["bank"]

    def send(self, path, body=None, *, token=None, timeout_s=5, kind="application/xml"):
        headers = {"authorization": f"Bearer {token or self.shown['token']}", "content-type": kind}
        url = f"{self.sandbox.url}/bank{path}"
        request = urllib.request.Request(url, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read()

    def order(self, account="6222020200112230005", **changes):
        known = {
            "number": f"PAY{next(NUMBERS)}",
            "count": "1",
            "total": "88.50",
            "amount": "88.50",
            "currency": "CNY",
            "debtor": self.shown["debtor_account"],
            "account": account,
        }
        known.update(changes)
        return known["number"], ORDER.format(**known).encode()

    def pay(self, account, **changes):
        number, body = self.order(account, **changes)
        return number, read(*self.send("/payments", body))

    def ask(self, number):
        return read(*self.send(f"/payments/{number}"))


@pytest.fixture
def customer(sandbox):
    sandbox.delete("faults")
    return Customer(sandbox)


def read(status, body):
    """Return a valid report's facts."""
    assert status == 200, body
    document = etree.fromstring(body)
    assert PAIN_002.validate(document), PAIN_002.error_log

    def at(name):
        found = document.findtext(f".//{{*}}{name}")
        return found.strip() if found else None

    names = ("OrgnlMsgId", "OrgnlEndToEndId", "GrpSts", "TxSts", "Cd", "AcctSvcrRef", "InstdAmt")
    return {name: at(name) for name in names}


def test_a_payment_is_taken_and_settles_a_little_later(customer):
    number, body = customer.order("6222020200112239999")
    assert PAIN_001.validate(etree.fromstring(body)), PAIN_001.error_log
    taken = read(*customer.send("/payments", body))
    assert (taken["OrgnlMsgId"], taken["OrgnlEndToEndId"]) == (number, number)
    assert (taken["TxSts"], taken["AcctSvcrRef"]) == ("ACTC", None)
    customer.sandbox.advance(3)
    settled = customer.ask(number)
    assert (settled["TxSts"], settled["InstdAmt"]) == ("ACSC", "88.50")
    assert settled["AcctSvcrRef"]


def test_the_same_order_again_is_the_same_payment(customer):
    number, body = customer.order("6222020200112239999")
    for _ in range(3):
        assert read(*customer.send("/payments", body))["TxSts"] == "ACTC"
    customer.sandbox.advance(3)
    first = customer.ask(number)["AcctSvcrRef"]
    assert read(*customer.send("/payments", body))["AcctSvcrRef"] == first


def test_another_order_under_a_used_number_is_refused_and_changes_nothing(customer):
    number, body = customer.order("6222020200112239999")
    customer.send("/payments", body)
    changed = body.replace(b"88.50", b"99.50")
    assert customer.send("/payments", changed)[0] == 409
    assert customer.ask(number)["InstdAmt"] == "88.50"


def test_an_account_ending_0001_is_rejected_at_once(customer):
    number, report = customer.pay("6222020200110001")
    assert (report["TxSts"], report["GrpSts"], report["Cd"]) == ("RJCT", "RJCT", "AC03")
    customer.sandbox.advance(60)
    assert customer.ask(number)["TxSts"] == "RJCT"


@pytest.mark.parametrize(("action", "status"), [("settle", "ACSC"), ("reject", "RJCT")])
def test_an_account_ending_0002_is_pending_until_told(customer, action, status):
    number, report = customer.pay("6222020200110002")
    assert report["TxSts"] == "PDNG"
    customer.sandbox.advance(3600)
    assert customer.ask(number)["TxSts"] == "PDNG"
    customer.sandbox.post(f"bank/payments/{number}", action=action)
    assert customer.ask(number)["TxSts"] == status


def test_an_account_ending_0003_times_out_and_is_paid(customer):
    number, body = customer.order("6222020200110003")
    with pytest.raises(TimeoutError):
        customer.send("/payments", body, timeout_s=0.3)
    customer.sandbox.advance(3)
    assert customer.ask(number)["TxSts"] == "ACSC"


def test_an_account_ending_0004_is_taken_and_sent_back(customer):
    number, report = customer.pay("6222020200110004")
    assert report["TxSts"] == "ACTC"
    customer.sandbox.advance(3)
    report = customer.ask(number)
    assert (report["TxSts"], report["Cd"]) == ("RJCT", "AC04")


def test_an_account_ending_0005_is_lost_once(customer):
    number, body = customer.order("6222020200110005")
    with pytest.raises(TimeoutError):
        customer.send("/payments", body, timeout_s=0.3)
    assert customer.send(f"/payments/{number}")[0] == 404
    assert read(*customer.send("/payments", body))["TxSts"] == "ACTC"


@pytest.mark.parametrize(
    ("fault", "status", "known"),
    [
        ("http_500_done", 500, 200),
        ("http_500_not_done", 500, 404),
        ("http_502_done", 502, 200),
        ("http_503_not_done", 503, 404),
    ],
)
def test_an_error_may_hide_a_payment(customer, fault, status, known):
    number, body = customer.order("6222020200112239999")
    customer.sandbox.fault("bank", "pay", fault, number=number)
    assert customer.send("/payments", body)[0] == status
    assert customer.send(f"/payments/{number}")[0] == known


@pytest.mark.parametrize(
    ("yuan", "status", "known"),
    [
        ("777.11", 500, "ACTC"),
        ("777.15", 502, "ACTC"),
        ("777.08", 200, "PDNG"),
        ("777.51", 200, "RJCT"),
    ],
)
def test_an_amount_brings_its_fault(customer, yuan, status, known):
    number, body = customer.order("6222020200112239999", amount=yuan, total=yuan)
    assert customer.send("/payments", body)[0] == status
    assert customer.ask(number)["TxSts"] == known


@pytest.mark.parametrize("yuan", ["777.12", "777.16", "777.17"])
def test_an_amount_loses_the_first_order(customer, yuan):
    number, body = customer.order("6222020200112239999", amount=yuan, total=yuan)
    assert customer.send("/payments", body)[0] >= 500
    assert customer.send(f"/payments/{number}")[0] == 404
    assert read(*customer.send("/payments", body))["TxSts"] == "ACTC"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"count": "2"}, "AM18"),
        ({"total": "88.51"}, "AM10"),
        ({"debtor": "1"}, "AC02"),
        ({"currency": "USD"}, "AM03"),
        ({"amount": "0.00", "total": "0.00"}, "AM01"),
    ],
)
def test_an_order_that_contradicts_itself_is_rejected_with_a_reason(customer, changes, reason):
    _, report = customer.pay("6222020200112239999", **changes)
    assert (report["GrpSts"], report["Cd"]) == ("RJCT", reason)


def test_only_the_customer_is_heard(customer):
    _, body = customer.order()
    assert customer.send("/payments", body, token="wrong")[0] == 401
    assert customer.send("/payments/any")[0] == 404
    assert customer.send("/other")[0] == 404


@pytest.mark.parametrize(
    "spoil",
    [
        lambda body: b"",
        lambda body: b"not xml",
        lambda body: body[:-20],
        lambda body: body.replace(b"pain.001.001.09", b"pain.001.001.03"),
        lambda body: body.replace(b"88.50</InstdAmt>", b"88.505</InstdAmt>"),
        lambda body: body.replace(b"88.50</InstdAmt>", b"</InstdAmt>"),
        lambda body: body.replace(b"<NbOfTxs>1", b"<NbOfTxs>one"),
        lambda body: body.replace(b"<CtrlSum>88.50", b"<CtrlSum>much"),
        lambda body: b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + body[38:],
        lambda body: b"\xff\xfe" + body,
    ],
)
def test_what_is_no_order_is_refused_and_forgotten(customer, spoil):
    number, body = customer.order()
    assert customer.send("/payments", spoil(body))[0] == 400
    assert customer.send(f"/payments/{number}")[0] == 404


def test_only_xml_is_read(customer):
    _, body = customer.order()
    assert customer.send("/payments", body, kind="text/plain")[0] == 415


def test_the_control_decides_only_what_exists(customer):
    with pytest.raises(ValueError, match="no such payment"):
        customer.sandbox.post("bank/payments/nobody", action="settle")
    number, _ = customer.pay("6222020200110002")
    with pytest.raises(ValueError, match="can settle"):
        customer.sandbox.post(f"bank/payments/{number}", action="vanish")
    assert customer.sandbox.get(f"bank/payments/{number}")["reports"][0]["status"] == "PDNG"
