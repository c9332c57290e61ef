"""Payouts through a bank: the messages are valid, and only evidence decides."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from tests.sandboxes import start_sandbox
from tongbao.infra.http import HttpClient, HttpReply, NoAnswerError, NotSentError
from tongbao.kernel.codecs.iso20022 import (
    MessageMalformed,
    PayoutOrder,
    fault_of,
    read_status,
    write_payment,
)
from tongbao.kernel.ids import base32, new_id
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.rails.channels.bank_transfer.client import OPEN, REFUSED, SETTLED, BankTransfer
from tongbao.rails.channels.bank_transfer.messages import BankSecrets
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Declined,
    NotSent,
    Pending,
    Succeeded,
    Unknown,
)
from tongbao_sandbox.magic import OBEYED, TABLE

VECTORS = Path(__file__).parents[1] / "vectors" / "iso20022"
PAIN_001 = etree.XMLSchema(file=str(VECTORS / "pain.001.001.09.xsd"))
PAIN_002 = etree.XMLSchema(file=str(VECTORS / "pain.002.001.10.xsd"))
AT = datetime(2026, 11, 20, 18, 30, tzinfo=UTC)
SECRETS = BankSecrets("secret-token", "通宝支付有限公司", "6200000000000000088", "102290000011")
ORDER = PayoutOrder(
    number="01k9zw3f0000000000000000aa",
    money=Money(8850, "CNY"),
    creditor_name="杭州 <某某> & 茶饮有限公司",
    creditor_account="6222020200112239999",
    creditor_bank="105100000017",
    created_at=AT,
    remittance="结算 2026-11-20",
)

STATUS = """<?xml version="1.0" encoding="UTF-8"?>
<Document xmlns="urn:iso:std:iso:20022:tech:xsd:pain.002.001.10"><CstmrPmtStsRpt>
<GrpHdr><MsgId>R1</MsgId><CreDtTm>2026-11-21T02:31:00+08:00</CreDtTm></GrpHdr>
<OrgnlGrpInfAndSts><OrgnlMsgId>{message}</OrgnlMsgId><OrgnlMsgNmId>pain.001.001.09</OrgnlMsgNmId>
</OrgnlGrpInfAndSts><OrgnlPmtInfAndSts><OrgnlPmtInfId>{message}</OrgnlPmtInfId><TxInfAndSts>
<OrgnlEndToEndId>{end_to_end}</OrgnlEndToEndId><TxSts>{status}</TxSts>{reason}
<AccptncDtTm>2026-11-21T02:30:59</AccptncDtTm>{ref}
<OrgnlTxRef><Amt><InstdAmt Ccy="{currency}">{amount}</InstdAmt></Amt></OrgnlTxRef>
</TxInfAndSts></OrgnlPmtInfAndSts></CstmrPmtStsRpt></Document>"""
REASON = "<StsRsnInf><Rsn><Cd>AC03</Cd></Rsn><AddtlInf>收款账号不存在</AddtlInf></StsRsnInf>"


def status(**changes):
    known = {
        "message": ORDER.number,
        "end_to_end": ORDER.number,
        "status": "ACSC",
        "reason": "",
        "ref": "<AcctSvcrRef>B1</AcctSvcrRef>",
        "currency": "CNY",
        "amount": "88.50",
    }
    known.update(changes)
    return STATUS.format(**known).encode()


def account(gateway="http://127.0.0.1:1/bank", secrets=SECRETS):
    return ChannelAccount(
        id=UUID(int=1),
        channel="bank_transfer",
        mode=Mode.SANDBOX,
        gateway=gateway,
        merchant_number="1",
        app_id="",
        notify_url="",
        fee_ppm=0,
        secrets=secrets,
    )


class FakeHttp(HttpClient):
    """Answers what it was told to, and keeps what it was asked."""

    def __init__(self, answer: HttpReply | Exception) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str, Mapping[str, str], bytes]] = []

    async def send(self, method, url, headers, body, *, timeout_s, reply_max_bytes):
        self.asked.append((method, url, headers, body))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def replied(body=b"", code=200):
    return HttpReply(code, {}, body, 5)


# The messages -------------------------------------------------------------------------------------


def test_an_order_is_a_valid_message_that_says_what_was_meant():
    document = etree.fromstring(write_payment(ORDER, SECRETS))
    assert PAIN_001.validate(document), PAIN_001.error_log

    def texts(name):
        return [one.text for one in document.iterfind(f".//{{*}}{name}")]

    assert texts("EndToEndId") == texts("MsgId") == texts("PmtInfId") == [ORDER.number]
    assert texts("InstdAmt") == ["88.50"]
    assert texts("Nm") == [SECRETS.debtor_name, SECRETS.debtor_name, ORDER.creditor_name]
    assert texts("Dt") == ["2026-11-21"], "the business day is China's"
    assert texts("CreDtTm") == ["2026-11-21T02:30:00+08:00"]
    assert texts("Ustrd") == [ORDER.remittance]


def test_a_repeat_is_the_same_message_byte_for_byte():
    assert write_payment(ORDER, SECRETS) == write_payment(ORDER, SECRETS)


@given(
    name=st.text(max_size=150),
    creditor=st.text(max_size=40),
    remittance=st.text(max_size=150),
    amount=st.integers(-5, 9_000_000_000_000_000),
)
def test_an_order_is_either_refused_here_or_valid_there(name, creditor, remittance, amount):
    order = msgspec.structs.replace(
        ORDER,
        creditor_name=name,
        creditor_account=creditor,
        remittance=remittance,
        money=Money(amount, "CNY"),
    )
    if fault_of(order) is None:
        document = etree.fromstring(write_payment(order, SECRETS))
        assert PAIN_001.validate(document), PAIN_001.error_log
        assert document.findtext(".//{*}Cdtr/{*}Nm") == name


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"creditor_name": ""}, "creditor_name_length"),
        ({"creditor_name": "字" * 141}, "creditor_name_length"),
        ({"creditor_account": "6" * 35}, "creditor_account_length"),
        ({"remittance": "a\x00b"}, "remittance_characters"),
        ({"remittance": "a\nb"}, "remittance_characters"),
        ({"money": Money(0, "CNY")}, "money_not_positive"),
    ],
)
def test_an_order_that_is_no_message_has_a_named_fault(changes, fault):
    assert fault_of(msgspec.structs.replace(ORDER, **changes)) == fault


def test_a_status_is_read_whole():
    assert PAIN_002.validate(etree.fromstring(status(status="RJCT", reason=REASON)))
    read = read_status(status(status="RJCT", reason=REASON))
    assert (read.message_id, read.end_to_end_id) == (ORDER.number, ORDER.number)
    assert (read.status, read.reason, read.reason_text) == ("RJCT", "AC03", "收款账号不存在")
    assert (read.bank_ref, read.money) == ("B1", ORDER.money)
    assert read.at == datetime(2026, 11, 20, 18, 30, 59, tzinfo=UTC), "no zone means the bank's"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>502</body></html>",
        status()[:-10],
        status() + b"<again/>",
        status().replace(b"pain.002.001.10", b"pain.002.001.03"),
        status(amount="88.505"),
        status(currency="XXX"),
        status(amount="NaN"),
        status(status=""),
        status(message=""),
        status().replace(b"2026-11-21T02:30:59", b"yesterday"),
        status().replace(b"</OrgnlPmtInfAndSts>", b"<TxInfAndSts/></OrgnlPmtInfAndSts>"),
        b'<!DOCTYPE d SYSTEM "http://127.0.0.1/x">' + status()[39:],
        b'<!DOCTYPE d [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + status()[39:],
        b"<Document>" * 5000,
        status().decode().replace("UTF-8", "GBK").replace("R1", "编号").encode("gbk"),
    ],
)
def test_what_is_no_status_proves_nothing(body):
    with pytest.raises(MessageMalformed):
        read_status(body)


def test_a_time_beyond_the_calendar_proves_nothing():
    body = status().replace(b"2026-11-21T02:30:59", b"0001-01-01T00:00:00+23:59")
    with pytest.raises(MessageMalformed):
        read_status(body)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body):
    with pytest.raises(MessageMalformed):
        read_status(body)


def test_the_secrets_do_not_show_themselves():
    assert "secret-token" not in repr(SECRETS)
    assert "secret-token" not in repr(account())


# The client, outcome by outcome -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (NotSentError("refused"), NotSent),
        (NoAnswerError("timed out"), Unknown),
        (replied(status()), Succeeded),
        (replied(status(status="RJCT", reason=REASON)), Declined),
        (replied(status(status="CANC")), Declined),
        (replied(status(status="ACTC")), Pending),
        (replied(status(status="PDNG")), Pending),
        (replied(status(status="RJCT", reason=REASON), 422), Declined),
        (replied(status(status="ZZZZ")), Unknown),
        (replied(status(ref="")), Unknown),
        (replied(status(message="another")), Unknown),
        (replied(status(end_to_end="another")), Unknown),
        (replied(status(status="RJCT", end_to_end="another")), Unknown),
        (replied(status(amount="88.51")), Unknown),
        (replied(b"<html>", 502), Unknown),
        (replied(b"", 401), Unknown),
        (replied(b"", 404), Unknown),
        (replied(b"", 409), Unknown),
        (replied(b"", 200), Unknown),
    ],
)
async def test_an_answer_to_an_order_means(answer, expected):
    told = await BankTransfer(FakeHttp(answer)).pay_out(account(), ORDER)
    assert isinstance(told.outcome, expected)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (NotSentError("refused"), Unknown),
        (NoAnswerError("timed out"), Unknown),
        (replied(b"", 404), Absent),
        (replied(status()), Succeeded),
        (replied(status(status="PDNG")), Pending),
        (replied(status(status="RJCT", reason=REASON)), Declined),
        (replied(b"", 500), Unknown),
    ],
)
async def test_an_answer_to_a_question_means(answer, expected):
    told = await BankTransfer(FakeHttp(answer)).query(account(), ORDER)
    assert isinstance(told.outcome, expected)


async def test_success_carries_the_banks_own_evidence():
    told = await BankTransfer(FakeHttp(replied(status()))).pay_out(account(), ORDER)
    at = datetime(2026, 11, 20, 18, 30, 59, tzinfo=UTC)
    assert told.outcome == Succeeded(channel_ref="B1", money=ORDER.money, at=at)
    assert told.exchange.status == 200


async def test_a_refusal_carries_the_banks_reason():
    answer = replied(status(status="RJCT", reason=REASON))
    told = await BankTransfer(FakeHttp(answer)).pay_out(account(), ORDER)
    assert told.outcome == Declined("AC03", "收款账号不存在")


async def test_a_malformed_order_is_never_sent():
    http = FakeHttp(replied(status()))
    order = msgspec.structs.replace(ORDER, creditor_name="a\x01b")
    told = await BankTransfer(http).pay_out(account(), order)
    assert told.outcome == NotSent("creditor_name_characters")
    assert http.asked == []


async def test_the_request_is_authorized_and_the_evidence_keeps_no_secret():
    http = FakeHttp(replied(status().replace(b"R1", ORDER.creditor_account.encode())))
    told = await BankTransfer(http).pay_out(account(), ORDER)
    [(method, url, headers, body)] = http.asked
    assert (method, url) == ("POST", "http://127.0.0.1:1/bank/payments")
    assert headers["authorization"] == "Bearer secret-token"
    assert ORDER.creditor_account.encode() in body
    shown = msgspec.json.encode(told.exchange).decode()
    for secret in ("secret-token", ORDER.creditor_account, SECRETS.debtor_account):
        assert secret not in shown
    assert "InstdAmt" in told.exchange.request


def test_every_status_has_one_meaning():
    assert not SETTLED & OPEN
    assert not SETTLED & REFUSED
    assert not OPEN & REFUSED


# The client against the simulated bank ------------------------------------------------------------


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    with start_sandbox(tmp_path_factory.mktemp("sandbox")) as running:
        yield running


@pytest.fixture
async def bank(sandbox):
    http = HttpClient()
    secrets = msgspec.convert(sandbox.credentials["bank"], BankSecrets)
    try:
        yield BankTransfer(http, timeout_s=0.5), account(f"{sandbox.url}/bank", secrets)
    finally:
        await http.close()


def order_to(creditor_account):
    number = base32(new_id())
    return msgspec.structs.replace(ORDER, number=number, creditor_account=creditor_account)


async def test_a_payout_is_taken_then_settled(bank, sandbox):
    client, ours = bank
    order = order_to("6222020200112239999")
    assert isinstance((await client.query(ours, order)).outcome, Absent)
    for _ in range(2):
        assert (await client.pay_out(ours, order)).outcome == Pending(reason="ACTC")
    sandbox.advance(3)
    told = await client.query(ours, order)
    assert isinstance(told.outcome, Succeeded)
    assert told.outcome.money == order.money
    again = await client.pay_out(ours, order)
    assert again.outcome == told.outcome, "a repeat after success pays nothing more"


@pytest.mark.parametrize(
    ("ending", "first", "later"),
    [
        ("0001", Declined, Declined),
        ("0002", Pending, Pending),
        ("0003", Unknown, Succeeded),
        ("0004", Pending, Declined),
        ("0005", Unknown, Absent),
    ],
)
async def test_each_fate_is_told_apart(bank, sandbox, ending, first, later):
    client, ours = bank
    order = order_to(f"622202020011{ending}")
    assert isinstance((await client.pay_out(ours, order)).outcome, first)
    sandbox.advance(3)
    assert isinstance((await client.query(ours, order)).outcome, later)


async def test_a_lost_order_is_sent_again_under_its_number(bank, sandbox):
    client, ours = bank
    order = order_to("6222020200110005")
    assert isinstance((await client.pay_out(ours, order)).outcome, Unknown)
    assert isinstance((await client.query(ours, order)).outcome, Absent)
    assert isinstance((await client.pay_out(ours, order)).outcome, Pending)


async def test_another_order_under_a_used_number_is_no_refusal_of_the_first(bank):
    client, ours = bank
    order = order_to("6222020200112239999")
    await client.pay_out(ours, order)
    changed = msgspec.structs.replace(order, money=Money(1, "CNY"))
    assert isinstance((await client.pay_out(ours, changed)).outcome, Unknown)


async def test_nobody_listening_means_not_sent():
    http = HttpClient()
    told = await BankTransfer(http).pay_out(account("http://127.0.0.1:1/bank"), ORDER)
    await http.close()
    assert isinstance(told.outcome, NotSent)


SPOILING = [
    *((fault, None) for fault in ("time_out_done", "http_500_done", "http_502_done")),
    *((fault, None) for fault in ("time_out_not_done", "http_500_not_done")),
    *((fault, None) for fault in ("http_502_not_done", "http_503_not_done")),
    *((fault, fen) for fen, fault in TABLE["pay"].items() if fen in OBEYED["bank"]),
]


@pytest.mark.parametrize(
    ("fault", "fen"),
    [one for one in SPOILING if one[0].endswith(("_done", "_paid", "_unpaid"))],
)
async def test_a_payout_without_a_good_answer_is_unknown_and_paid_once(bank, sandbox, fault, fen):
    """By a fault that was asked for, or by the amount."""
    client, ours = bank
    order = order_to("6222020200112239999")
    if fen is None:
        sandbox.fault("bank", "pay", fault, number=order.number)
    else:
        order = msgspec.structs.replace(order, money=Money(fen, "CNY"))
    is_done = not fault.endswith(("_not_done", "_unpaid"))
    assert isinstance((await client.pay_out(ours, order)).outcome, Unknown)
    found = (await client.query(ours, order)).outcome
    assert isinstance(found, Pending if is_done else Absent), found
    for _ in range(2):
        assert isinstance((await client.pay_out(ours, order)).outcome, Pending)
    sandbox.advance(3)
    assert isinstance((await client.query(ours, order)).outcome, Succeeded)


@pytest.mark.parametrize(("fen", "told"), [(77708, Pending), (77751, Declined)])
async def test_an_amount_stays_under_way_or_is_rejected(bank, sandbox, fen, told):
    client, ours = bank
    order = msgspec.structs.replace(order_to("6222020200112239999"), money=Money(fen, "CNY"))
    assert isinstance((await client.pay_out(ours, order)).outcome, told)
    sandbox.advance(6 * 3600)
    assert isinstance((await client.query(ours, order)).outcome, told)
