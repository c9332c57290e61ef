"""ISO 20022: pain.001 orders a payout, pain.002 tells how it stands, camt.054 what was booked.

One payout is one message with one transaction, and its number is the message's, the
instruction's and the transaction's id, so a repeat is byte for byte the same message.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Literal, Protocol
from xml.etree.ElementTree import Element, SubElement, TreeBuilder, tostring
from xml.parsers import expat

from msgspec import Struct

from tongbao.kernel.clock import BUSINESS_ZONE, business_date
from tongbao.kernel.errors import Refusal
from tongbao.kernel.money import Money, from_decimal_text

PAYMENT_NAMESPACE: Final = "urn:iso:std:iso:20022:tech:xsd:pain.001.001.09"
NOTICE_NAMESPACE: Final = "urn:iso:std:iso:20022:tech:xsd:camt.054.001.08"
STATEMENT_NAMESPACE: Final = "urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"
STATUS_NAMESPACE: Final = "urn:iso:std:iso:20022:tech:xsd:pain.002.001.10"
PAYMENT_NAME: Final = "pain.001.001.09"
DEPTH_MAX: Final = 40
"""pain.002 nests about fifteen deep; more is an attack on the parser, not a status."""


class Payer(Protocol):
    """Whose account pays; a channel's secrets of an account satisfy it."""

    @property
    def debtor_name(self) -> str:
        """The name the bank knows."""

    @property
    def debtor_account(self) -> str:
        """The account's number."""

    @property
    def debtor_bank(self) -> str:
        """The bank's clearing number (联行号), 12 digits."""


class PayoutOrder(Struct, frozen=True):
    """One payment out of our account, in the bank's terms. ``number`` is our key there."""

    number: str  # 26 base32 characters of the payout id
    money: Money
    creditor_name: str
    creditor_account: str
    creditor_bank: str  # clearing number (联行号), 12 digits
    created_at: datetime
    remittance: str = ""


class PaymentStatus(Struct, frozen=True):
    """What a pain.002 says about one payment. The caller compares it with what it asked."""

    message_id: str  # of the pain.001 it answers
    end_to_end_id: str | None
    status: str  # ACTC, PDNG, ACSC, RJCT, …
    reason: str | None  # AC01, AM04, …
    reason_text: str
    bank_ref: str | None
    money: Money | None
    at: datetime | None


class Booking(Struct, frozen=True):
    """One transaction that a camt.054 says was booked on our account."""

    end_to_end_id: str
    direction: Literal["credit", "debit"]
    money: Money
    bank_ref: str
    at: datetime
    is_reversal: bool


class MessageMalformed(ValueError):
    """The bytes are not a message we can read, so they prove nothing."""


def fault_of(order: PayoutOrder) -> str | None:
    """Return why the order cannot be written as a message, or None if it can."""
    limits = (
        ("number", order.number, 1, 35),
        ("creditor_name", order.creditor_name, 1, 140),
        ("creditor_account", order.creditor_account, 1, 34),
        ("creditor_bank", order.creditor_bank, 1, 35),
        ("remittance", order.remittance, 0, 140),
    )
    for name, text, shortest, longest in limits:
        if not shortest <= len(text) <= longest:
            return f"{name}_length"
        if any(unicodedata.category(letter) in {"Cc", "Cs", "Cn"} for letter in text):
            return f"{name}_characters"
    return None if order.money.amount > 0 else "money_not_positive"


def write_payment(order: PayoutOrder, payer: Payer) -> bytes:
    """Return the order as a pain.001.001.09 document."""
    root = Element("Document", xmlns=PAYMENT_NAMESPACE)
    initiation = SubElement(root, "CstmrCdtTrfInitn")
    amount = order.money.decimal_text()
    header = SubElement(initiation, "GrpHdr")
    _text(header, "MsgId", order.number)
    _text(header, "CreDtTm", order.created_at.astimezone(BUSINESS_ZONE).isoformat("T", "seconds"))
    _text(header, "NbOfTxs", "1")
    _text(header, "CtrlSum", amount)
    _text(header, "InitgPty/Nm", payer.debtor_name)
    instruction = SubElement(initiation, "PmtInf")
    _text(instruction, "PmtInfId", order.number)
    _text(instruction, "PmtMtd", "TRF")
    _text(instruction, "NbOfTxs", "1")
    _text(instruction, "CtrlSum", amount)
    _text(instruction, "ReqdExctnDt/Dt", business_date(order.created_at).isoformat())
    _debtor(instruction, payer)
    _transaction(instruction, order)
    text = tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()


def write_payments(
    orders: Sequence[PayoutOrder], payer: Payer, *, number: str, created_at: datetime
) -> bytes:
    """Return several orders as one pain.001.001.09 document, booked one by one (BtchBookg)."""
    if not orders or len({order.money.currency for order in orders}) != 1:
        raise ValueError("a file has orders, and all in one currency")
    total = Money(sum(order.money.amount for order in orders), orders[0].money.currency)
    root = Element("Document", xmlns=PAYMENT_NAMESPACE)
    initiation = SubElement(root, "CstmrCdtTrfInitn")
    header = SubElement(initiation, "GrpHdr")
    _text(header, "MsgId", number)
    _text(header, "CreDtTm", created_at.astimezone(BUSINESS_ZONE).isoformat("T", "seconds"))
    _text(header, "NbOfTxs", str(len(orders)))
    _text(header, "CtrlSum", total.decimal_text())
    _text(header, "InitgPty/Nm", payer.debtor_name)
    instruction = SubElement(initiation, "PmtInf")
    _text(instruction, "PmtInfId", number)
    _text(instruction, "PmtMtd", "TRF")
    _text(instruction, "BtchBookg", "false")
    _text(instruction, "NbOfTxs", str(len(orders)))
    _text(instruction, "CtrlSum", total.decimal_text())
    _text(instruction, "ReqdExctnDt/Dt", business_date(created_at).isoformat())
    _debtor(instruction, payer)
    for order in orders:
        _transaction(instruction, order)
    text = tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()


def _debtor(instruction: Element, payer: Payer) -> None:
    _text(instruction, "Dbtr/Nm", payer.debtor_name)
    _text(instruction, "DbtrAcct/Id/Othr/Id", payer.debtor_account)
    _text(instruction, "DbtrAgt/FinInstnId/ClrSysMmbId/MmbId", payer.debtor_bank)


def _transaction(instruction: Element, order: PayoutOrder) -> None:
    transaction = SubElement(instruction, "CdtTrfTxInf")
    identity = SubElement(transaction, "PmtId")
    _text(identity, "InstrId", order.number)
    _text(identity, "EndToEndId", order.number)
    amount = _text(transaction, "Amt/InstdAmt", order.money.decimal_text())
    amount.set("Ccy", order.money.currency)
    _text(transaction, "CdtrAgt/FinInstnId/ClrSysMmbId/MmbId", order.creditor_bank)
    _text(transaction, "Cdtr/Nm", order.creditor_name)
    _text(transaction, "CdtrAcct/Id/Othr/Id", order.creditor_account)
    if order.remittance:
        _text(transaction, "RmtInf/Ustrd", order.remittance)


def read_statuses(body: bytes) -> list[PaymentStatus]:
    """Return what a pain.002.001.10 document says about each of its payments.

    Raises:
        MessageMalformed
    """
    report = _parse(body, STATUS_NAMESPACE).find("{*}CstmrPmtStsRpt")
    group = None if report is None else report.find("{*}OrgnlGrpInfAndSts")
    if report is None or group is None:
        raise MessageMalformed("no CstmrPmtStsRpt, or not about a message")
    found = report.findall("{*}OrgnlPmtInfAndSts/{*}TxInfAndSts")
    return [_status_of(report, group, each) for each in found]


def read_status(body: bytes) -> PaymentStatus:
    """Return what a pain.002.001.10 document says about its one payment.

    Raises:
        MessageMalformed
    """
    report = _parse(body, STATUS_NAMESPACE).find("{*}CstmrPmtStsRpt")
    if report is None:
        raise MessageMalformed("no CstmrPmtStsRpt")
    group = report.find("{*}OrgnlGrpInfAndSts")
    transactions = report.findall("{*}OrgnlPmtInfAndSts/{*}TxInfAndSts")
    if group is None or len(transactions) > 1:
        raise MessageMalformed("not about one payment")
    return _status_of(report, group, transactions[0] if transactions else group)


def _status_of(report: Element, group: Element, subject: Element) -> PaymentStatus:
    message_id = _at(group, "{*}OrgnlMsgId")
    status = _at(subject, "{*}TxSts") or _at(group, "{*}GrpSts")
    if not message_id or not status:
        raise MessageMalformed("no message id or no status")
    reason = "{*}StsRsnInf/{*}Rsn/{*}"
    return PaymentStatus(
        message_id=message_id,
        end_to_end_id=_at(subject, "{*}OrgnlEndToEndId"),
        status=status,
        reason=_at(subject, reason + "Cd") or _at(subject, reason + "Prtry"),
        reason_text=_at(subject, "{*}StsRsnInf/{*}AddtlInf") or "",
        bank_ref=_at(subject, "{*}AcctSvcrRef"),
        money=_money(subject.find("{*}OrgnlTxRef/{*}Amt/{*}InstdAmt")),
        at=_moment(_at(subject, "{*}AccptncDtTm") or _at(report, "{*}GrpHdr/{*}CreDtTm")),
    )


def read_bookings(body: bytes, account: str) -> list[Booking]:
    """Return what a camt.054.001.08 or camt.053.001.08 says was booked on ``account``.

    Entries that are not booked, are of another account or name no end-to-end id are left out:
    they are nothing that we have asked for.

    Raises:
        MessageMalformed
    """
    root = _parse(body, NOTICE_NAMESPACE, STATEMENT_NAMESPACE)
    notices = root.findall("{*}BkToCstmrDbtCdtNtfctn/{*}Ntfctn")
    statements = root.findall("{*}BkToCstmrStmt/{*}Stmt")
    if root.find("{*}BkToCstmrDbtCdtNtfctn") is None and root.find("{*}BkToCstmrStmt") is None:
        raise MessageMalformed("neither BkToCstmrDbtCdtNtfctn nor BkToCstmrStmt")
    return [
        booking
        for notice in (*notices, *statements)
        if (_at(notice, "{*}Acct/{*}Id/{*}IBAN") or _at(notice, "{*}Acct/{*}Id/{*}Othr/{*}Id"))
        == account
        for entry in notice.findall("{*}Ntry")
        if _at(entry, "{*}Sts/{*}Cd") == "BOOK"
        for part in entry.findall("{*}NtryDtls/{*}TxDtls")
        if (booking := _booking(entry, part)) is not None
    ]


def _booking(entry: Element, part: Element) -> Booking | None:
    number = _at(part, "{*}Refs/{*}EndToEndId")
    if number is None or number == "NOTPROVIDED":
        return None
    direction = _at(part, "{*}CdtDbtInd") or _at(entry, "{*}CdtDbtInd")
    is_alone = len(entry.findall("{*}NtryDtls/{*}TxDtls")) == 1
    money = _money(part.find("{*}Amt")) or (_money(entry.find("{*}Amt")) if is_alone else None)
    ref = _at(part, "{*}Refs/{*}AcctSvcrRef") or _at(entry, "{*}AcctSvcrRef")
    at = _moment(_at(entry, "{*}BookgDt/{*}DtTm") or _at(entry, "{*}BookgDt/{*}Dt"))
    if direction not in {"CRDT", "DBIT"} or money is None or ref is None or at is None:
        raise MessageMalformed("a booking without direction, amount, reference or date")
    return Booking(
        end_to_end_id=number,
        direction="credit" if direction == "CRDT" else "debit",
        money=money,
        bank_ref=ref,
        at=at,
        is_reversal=_at(entry, "{*}RvslInd") == "true",
    )


def _text(parent: Element, path: str, text: str) -> Element:
    for name in path.split("/"):
        parent = SubElement(parent, name)
    parent.text = text
    return parent


def _at(parent: Element, path: str) -> str | None:
    found = parent.findtext(path)
    return found.strip() if found else None


def _money(element: Element | None) -> Money | None:
    if element is None:
        return None
    try:
        return from_decimal_text(element.text or "", element.get("Ccy", ""))
    except Refusal as fault:
        raise MessageMalformed(f"amount: {fault.code}") from None


def _moment(text: str | None) -> datetime | None:
    """ISO 20022 lets a bank leave the zone out; then it means the bank's own, which is ours."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=BUSINESS_ZONE)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise MessageMalformed("date and time") from None


def _parse(body: bytes, *namespaces: str) -> Element:
    """Parse without a document type: where no entity is declared, none can be expanded."""
    builder = TreeBuilder()
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEPTH_MAX:
            raise MessageMalformed("nested too deep")
        builder.start(_name(name), attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(_name(name))

    def refuse_doctype(*_: object) -> None:
        raise MessageMalformed("document type declared")

    parser = expat.ParserCreate(encoding="utf-8", namespace_separator="}")
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse_doctype
    try:
        parser.Parse(body, True)
    except expat.ExpatError as fault:
        raise MessageMalformed(f"line {fault.lineno}: not XML") from None
    root = builder.close()
    if root.tag not in {f"{{{namespace}}}Document" for namespace in namespaces}:
        names = " or ".join(namespace.rpartition(":")[2] for namespace in namespaces)
        raise MessageMalformed(f"not a {names} document")
    return root


def _name(name: str) -> str:
    return "{" + name if "}" in name else name
