"""A bank that exchanges files: payouts leave once, and only what it booked is believed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from lxml import etree

from tests.rails.connectors.bank_files import CONNECTOR
from tongbao.infra.http import HttpClient
from tongbao.kernel.codecs.iso20022 import MessageMalformed, read_bookings
from tongbao.kernel.ids import base32, new_id
from tongbao.kernel.money import Money
from tongbao.rails.channels.bank_files.client import NOTICE_DAYS, BankFiles
from tongbao.rails.channels.bank_files.secrets import BankFilesSecrets
from tongbao.rails.channels.capabilities.transfers import TransferOrder, Transferring
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode, PayOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Closed,
    Declined,
    NotSent,
    OpenApp,
    Pending,
    Succeeded,
    Unknown,
)

VECTORS = Path(__file__).parents[1] / "vectors" / "iso20022"
PAIN_001 = etree.XMLSchema(file=str(VECTORS / "pain.001.001.09.xsd"))
CAMT_054 = etree.XMLSchema(file=str(VECTORS / "camt.054.001.08.xsd"))
OURS = "6200000000000000088"
NOW = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)


class Bank:
    """The bank's carrier, as it works on the folder."""

    def __init__(self, folder: Path, http: HttpClient) -> None:
        self.folder = folder
        for name in ("in", "out", "sent"):
            (folder / name).mkdir()
        self.now = NOW
        self.channel = BankFiles(http, clock=lambda: self.now)
        secrets = BankFilesSecrets(str(folder), "通宝支付有限公司", OURS, "102290000011")
        self.account: ChannelAccount = msgspec.structs.replace(
            CONNECTOR.account(f"file://{folder}"), secrets=secrets
        )
        self.notices = 0

    def tells(self, number: str, fen: int, **changes: str) -> None:
        """Leave a camt.054 that is valid by its schema."""
        facts = {
            "account": OURS,
            "direction": "CRDT",
            "status": "BOOK",
            "currency": "CNY",
            "reversal": "",
            "ref": f"R{self.notices}",
            **changes,
        }
        amount = Money(fen, facts["currency"]).decimal_text()
        text = f"""<?xml version="1.0" encoding="UTF-8"?>
<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.054.001.08"><BkToCstmrDbtCdtNtfctn>
<GrpHdr><MsgId>N{self.notices}</MsgId><CreDtTm>2026-11-22T12:00:00+08:00</CreDtTm></GrpHdr>
<Ntfctn><Id>N{self.notices}</Id><Acct><Id><Othr><Id>{facts["account"]}</Id></Othr></Id></Acct>
<Ntry><Amt Ccy="{facts["currency"]}">{amount}</Amt><CdtDbtInd>{facts["direction"]}</CdtDbtInd>
{facts["reversal"]}<Sts><Cd>{facts["status"]}</Cd></Sts>
<BookgDt><DtTm>2026-11-22T11:59:00+08:00</DtTm></BookgDt><AcctSvcrRef>{facts["ref"]}</AcctSvcrRef>
<BkTxCd><Prtry><Cd>TRF</Cd></Prtry></BkTxCd>
<NtryDtls><TxDtls><Refs><EndToEndId>{number}</EndToEndId></Refs></TxDtls></NtryDtls>
</Ntry></Ntfctn></BkToCstmrDbtCdtNtfctn></Document>"""
        CAMT_054.assertValid(etree.fromstring(text.encode()))
        (self.folder / "in" / f"{self.notices:04d}.xml").write_text(text, encoding="utf-8")
        self.notices += 1

    async def asked(self, order: PayOrder) -> Any:
        return (await self.channel.query(self.account, order)).outcome

    async def asked_payout(self, order: TransferOrder) -> Any:
        return (await self.channel.query_transfer(self.account, order)).outcome


@pytest.fixture
def bank(tmp_path: Path, http: HttpClient) -> Bank:
    return Bank(tmp_path, http)


def collect(**changes: Any) -> PayOrder:
    fields: dict[str, Any] = {
        "number": base32(new_id()),
        "mode": PayMode.WEB,
        "money": Money(199900, "CNY"),
        "subject": "tea",
        "expires_at": NOW + timedelta(days=1),
    }
    return PayOrder(**{**fields, **changes})


def payout(**changes: Any) -> TransferOrder:
    fields: dict[str, Any] = {
        "number": base32(new_id()),
        "payee": "6222020200112239999",
        "payee_kind": "105100000017",
        "payee_name": "杭州 <某某> & 茶饮有限公司",
        "money": Money(8850, "CNY"),
        "title": "结算 2026-11-20",
    }
    return TransferOrder(**{**fields, **changes})


# --- customers who transfer to us


async def test_a_customer_is_told_where_to_transfer_and_is_found_by_the_number(bank: Bank) -> None:
    order = collect()
    offered = (await bank.channel.pay(bank.account, order)).outcome
    assert isinstance(offered, Pending)
    assert isinstance(offered.action, OpenApp)
    assert offered.action.parameters["account"] == OURS
    assert offered.action.parameters["reference"] == order.number
    assert await bank.asked(order) == Pending()
    bank.tells(base32(new_id()), 199900)
    assert await bank.asked(order) == Pending()
    bank.tells(order.number, 199900, ref="B7")
    found = await bank.asked(order)
    assert isinstance(found, Succeeded)
    assert (found.channel_ref, found.money) == ("B7", order.money)
    assert (await bank.channel.close(bank.account, order)).outcome == found


async def test_a_notice_that_comes_twice_is_one_transfer(bank: Bank) -> None:
    order = collect()
    for _ in range(2):
        bank.tells(order.number, 199900, ref="B7")
    assert isinstance(await bank.asked(order), Succeeded)
    bank.tells(order.number, 199900, ref="B8")
    assert isinstance(await bank.asked(order), Unknown), "paid twice: people look"


@pytest.mark.parametrize(
    ("fen", "changes", "expected"),
    [
        (199899, {}, Unknown),
        (199901, {}, Unknown),
        (199900, {"currency": "USD"}, Unknown),
        (199900, {"account": "6200000000000000099"}, Pending),
        (199900, {"status": "PDNG"}, Pending),
        (199900, {"direction": "DBIT"}, Unknown),
        (199900, {"reversal": "<RvslInd>true</RvslInd>"}, Unknown),
    ],
)
async def test_only_the_very_transfer_is_believed(
    bank: Bank, fen: int, changes: dict[str, str], expected: type
) -> None:
    order = collect()
    bank.tells(order.number, fen, **changes)
    assert isinstance(await bank.asked(order), expected)


@pytest.mark.parametrize(
    "rubbish",
    [
        b"",
        b"<html/>",
        b"\xff\x00 camt.054",
        b'<!DOCTYPE a [<!ENTITY b "c">]><Document>camt.054 NUMBER</Document>',
        b"camt.054 NUMBER" + b"<a>" * 100,
    ],
)
async def test_a_file_that_cannot_be_read_decides_nothing(bank: Bank, rubbish: bytes) -> None:
    order = collect()
    (bank.folder / "in" / "9.xml").write_bytes(rubbish.replace(b"NUMBER", order.number.encode()))
    outcome = await bank.asked(order)
    assert isinstance(outcome, Unknown), outcome
    bank.now += timedelta(days=30)
    assert isinstance((await bank.channel.close(bank.account, order)).outcome, Unknown)


async def test_a_folder_that_is_gone_decides_nothing(bank: Bank) -> None:
    (bank.folder / "in").rmdir()
    order = collect()
    bank.now += timedelta(days=30)
    assert isinstance(await bank.asked(order), Unknown)
    assert isinstance((await bank.channel.close(bank.account, order)).outcome, Unknown)


async def test_an_order_is_closed_days_after_its_time_and_no_sooner(bank: Bank) -> None:
    order = collect()
    bank.now = order.expires_at + NOTICE_DAYS - timedelta(seconds=1)
    assert isinstance((await bank.channel.close(bank.account, order)).outcome, Unknown)
    bank.now += timedelta(seconds=1)
    assert (await bank.channel.close(bank.account, order)).outcome == Closed("NOT_BOOKED")
    bank.tells(order.number, 199900)
    assert isinstance(await bank.asked(order), Succeeded), "late money is seen"


@pytest.mark.parametrize("number", ["../../etc/passwd", "A", "", "x" * 36, "a.b"])
async def test_a_number_that_is_none_of_ours_names_no_file(bank: Bank, number: str) -> None:
    assert isinstance(
        (await bank.channel.pay(bank.account, collect(number=number))).outcome, NotSent
    )
    assert isinstance(await bank.asked(collect(number=number)), Unknown)
    sent = await bank.channel.transfer(bank.account, payout(number=number))
    assert isinstance(sent.outcome, NotSent)
    assert list((bank.folder / "out").iterdir()) == []


# --- payouts


async def test_a_payout_is_one_valid_message_however_often_it_is_sent(bank: Bank) -> None:
    assert isinstance(bank.channel, Transferring)
    order = payout()
    assert isinstance(await bank.asked_payout(order), Absent)
    for _ in range(3):
        answer = await bank.channel.transfer(bank.account, order)
        assert isinstance(answer.outcome, Pending)
        assert "6222020200112239999" not in repr(answer)
        assert "茶饮" not in repr(answer)
    [path] = (bank.folder / "out").iterdir()
    message = etree.fromstring(path.read_bytes())
    PAIN_001.assertValid(message)
    assert message.findtext(".//{*}EndToEndId") == order.number
    assert await bank.asked_payout(order) == Pending()
    bank.tells(order.number, 8850, direction="DBIT", ref="B9")
    found = await bank.asked_payout(order)
    assert isinstance(found, Succeeded)
    assert (found.channel_ref, found.money) == ("B9", order.money)


async def test_what_the_carrier_has_taken_is_not_written_again(bank: Bank) -> None:
    order = payout()
    await bank.channel.transfer(bank.account, order)
    [path] = (bank.folder / "out").iterdir()
    path.rename(bank.folder / "sent" / path.name)
    assert await bank.asked_payout(order) == Pending()
    assert isinstance((await bank.channel.transfer(bank.account, order)).outcome, Pending)
    assert list((bank.folder / "out").iterdir()) == []
    other = msgspec.structs.replace(order, money=Money(8851, "CNY"))
    assert isinstance((await bank.channel.transfer(bank.account, other)).outcome, Unknown)


async def test_a_payout_the_bank_takes_back_is_declined(bank: Bank) -> None:
    order = payout()
    await bank.channel.transfer(bank.account, order)
    bank.tells(order.number, 8850, direction="DBIT")
    bank.tells(order.number, 8850, direction="CRDT", reversal="<RvslInd>true</RvslInd>")
    assert isinstance(await bank.asked_payout(order), Declined)


async def test_a_folder_that_cannot_be_written_is_unknown(bank: Bank) -> None:
    (bank.folder / "out").rmdir()
    assert isinstance((await bank.channel.transfer(bank.account, payout())).outcome, Unknown)


# --- the notices of a real bank


def test_a_published_notification_is_read() -> None:
    raw = (VECTORS / "genkgo__camt054.v8.xml").read_bytes()
    bookings = read_bookings(raw, "CH2801234000123456789")
    assert [(one.end_to_end_id, one.direction, one.money) for one in bookings][:1] == [
        ("UXC06170000006PI00001EE00001", "credit", Money(310, "CHF"))
    ]
    assert all(one.bank_ref == "ACSR160617103200001" for one in bookings[:1])
    assert read_bookings(raw, "CH0000000000000000000") == []


def test_a_notification_cut_off_anywhere_is_refused() -> None:
    raw = (VECTORS / "genkgo__camt054.v8.xml").read_bytes().rstrip()
    for size in range(0, len(raw) - 1, 97):
        with pytest.raises(MessageMalformed):
            read_bookings(raw[:size], "CH2801234000123456789")
