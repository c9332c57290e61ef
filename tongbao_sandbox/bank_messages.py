"""What the sandbox bank reads and writes: pain.001 in, pain.002 out (ISO 20022)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Final
from xml.etree.ElementTree import Element, ParseError, SubElement, fromstring, tostring

from msgspec import Struct

from tongbao.kernel.errors import Refusal
from tongbao.kernel.money import Money, from_decimal_text

PAIN_001: Final = "urn:iso:std:iso:20022:tech:xsd:pain.001.001.09"
PAIN_002: Final = "urn:iso:std:iso:20022:tech:xsd:pain.002.001.10"
BEIJING: Final = timezone(timedelta(hours=8))


class Transaction(Struct, frozen=True):
    """One credit transfer somebody asked for."""

    instruction_id: str  # PmtInfId of the block it stood in
    end_to_end_id: str
    money: Money
    debtor_account: str
    creditor_name: str
    creditor_account: str
    creditor_bank: str
    remittance: str


class Order(Struct, frozen=True):
    """A pain.001 as read: its transactions, and what its own header says about them."""

    message_id: str
    count: int
    control_sum: Decimal | None
    transactions: tuple[Transaction, ...]

    def header_fault(self) -> str | None:
        """Return the ISO reason code when the header contradicts the transactions."""
        if self.count != len(self.transactions):
            return "AM18"
        total = sum((Decimal(t.money.decimal_text()) for t in self.transactions), Decimal())
        if self.control_sum is not None and self.control_sum != total:
            return "AM10"
        return None


class Report(Struct, frozen=True):
    """What the bank says about one transaction."""

    instruction_id: str
    end_to_end_id: str
    money: Money
    status: str
    reason: str | None
    reason_text: str
    bank_ref: str | None
    accepted_at: datetime | None


class OrderMalformed(ValueError):
    """The bytes are not a pain.001.001.09 this bank can read."""


def read_order(body: bytes) -> Order:
    """Read a pain.001.001.09 document.

    Raises:
        OrderMalformed
    """
    initiation = _parse(body).find("{*}CstmrCdtTrfInitn")
    if initiation is None:
        raise OrderMalformed("CstmrCdtTrfInitn missing")
    transactions = [
        _transaction(block, element)
        for block in initiation.findall("{*}PmtInf")
        for element in block.findall("{*}CdtTrfTxInf")
    ]
    count, control_sum = (
        _need(initiation, "{*}GrpHdr/{*}NbOfTxs"),
        initiation.findtext("{*}GrpHdr/{*}CtrlSum"),
    )
    try:
        return Order(
            message_id=_need(initiation, "{*}GrpHdr/{*}MsgId"),
            count=int(count),
            control_sum=None if control_sum is None else Decimal(control_sum),
            transactions=tuple(transactions),
        )
    except ArithmeticError as fault:
        raise OrderMalformed("CtrlSum") from fault
    except ValueError as fault:
        raise OrderMalformed("NbOfTxs") from fault


def write_report(
    message_id: str, reports: Sequence[Report], *, report_id: str, now: datetime
) -> bytes:
    """Return a pain.002.001.10 about the transactions of one message."""
    root = Element("Document", xmlns=PAIN_002)
    report = SubElement(root, "CstmrPmtStsRpt")
    _put(report, "GrpHdr/MsgId", report_id)
    header = report[0]
    _put(header, "CreDtTm", _moment(now))
    group = SubElement(report, "OrgnlGrpInfAndSts")
    _put(group, "OrgnlMsgId", message_id)
    _put(group, "OrgnlMsgNmId", "pain.001.001.09")
    _put(group, "OrgnlNbOfTxs", str(len(reports)))
    statuses = {one.status for one in reports}
    _put(group, "GrpSts", statuses.pop() if len(statuses) == 1 else "PART")
    for one in reports:
        block = SubElement(report, "OrgnlPmtInfAndSts")
        _put(block, "OrgnlPmtInfId", one.instruction_id)
        _put_transaction(SubElement(block, "TxInfAndSts"), one)
    return _document(root)


def write_rejection(message_id: str, reason: str, *, report_id: str, now: datetime) -> bytes:
    """Return a pain.002.001.10 that refuses a whole message."""
    root = Element("Document", xmlns=PAIN_002)
    report = SubElement(root, "CstmrPmtStsRpt")
    _put(report, "GrpHdr/MsgId", report_id)
    _put(report[0], "CreDtTm", _moment(now))
    group = SubElement(report, "OrgnlGrpInfAndSts")
    _put(group, "OrgnlMsgId", message_id)
    _put(group, "OrgnlMsgNmId", "pain.001.001.09")
    _put(group, "GrpSts", "RJCT")
    _put(group, "StsRsnInf/Rsn/Cd", reason)
    return _document(root)


def _document(root: Element) -> bytes:
    text = tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()


def _put_transaction(element: Element, one: Report) -> None:
    _put(element, "OrgnlEndToEndId", one.end_to_end_id)
    _put(element, "TxSts", one.status)
    if one.reason is not None:
        why = SubElement(element, "StsRsnInf")
        _put(why, "Rsn/Cd", one.reason)
        _put(why, "AddtlInf", one.reason_text)
    if one.accepted_at is not None:
        _put(element, "AccptncDtTm", _moment(one.accepted_at))
    if one.bank_ref is not None:
        _put(element, "AcctSvcrRef", one.bank_ref)
    amount = _put(element, "OrgnlTxRef/Amt/InstdAmt", one.money.decimal_text())
    amount.set("Ccy", one.money.currency)


def _transaction(block: Element, element: Element) -> Transaction:
    amount = element.find("{*}Amt/{*}InstdAmt")
    if amount is None:
        raise OrderMalformed("InstdAmt missing")
    try:
        money = from_decimal_text(amount.text or "", amount.get("Ccy", ""))
    except Refusal as fault:
        raise OrderMalformed("InstdAmt") from fault
    return Transaction(
        instruction_id=_need(block, "{*}PmtInfId"),
        end_to_end_id=_need(element, "{*}PmtId/{*}EndToEndId"),
        money=money,
        debtor_account=_need(block, "{*}DbtrAcct/{*}Id/{*}Othr/{*}Id"),
        creditor_name=_need(element, "{*}Cdtr/{*}Nm"),
        creditor_account=_need(element, "{*}CdtrAcct/{*}Id/{*}Othr/{*}Id"),
        creditor_bank=_need(element, "{*}CdtrAgt/{*}FinInstnId/{*}ClrSysMmbId/{*}MmbId"),
        remittance=element.findtext("{*}RmtInf/{*}Ustrd") or "",
    )


def _parse(body: bytes) -> Element:
    """Parse UTF-8 text that declares no document type, so that no entity can be defined."""
    try:
        text = body.decode()
        if "<!DOCTYPE" in text:
            raise OrderMalformed("a document type is not allowed")
        root = fromstring(text)  # noqa: S314 - see above; expat opens nothing by itself
    except (UnicodeDecodeError, ParseError) as fault:
        raise OrderMalformed("not UTF-8 XML") from fault
    if root.tag != f"{{{PAIN_001}}}Document":
        raise OrderMalformed("not a pain.001.001.09 document")
    return root


def _need(parent: Element, path: str) -> str:
    text = (parent.findtext(path) or "").strip()
    if not text:
        raise OrderMalformed(path.replace("{*}", "") + " missing")
    return text


def _put(parent: Element, path: str, text: str) -> Element:
    for name in path.split("/"):
        parent = SubElement(parent, name)
    parent.text = text
    return parent


def _moment(at: datetime) -> str:
    return at.astimezone(BEIJING).isoformat("T", "seconds")
