"""UnionPay's fields: what each transaction asks, and how an answer is read and compared.

A request is a form; a reply is ``k=v&k=v`` with nothing escaped. Times are China's, without a
zone, and amounts are fen. An order is known by its number *and* the time it was sent with
(``txnTime``), so that time is read out of the number: a repeat, and a query months later, say the
same.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct

from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.kernel.ids import UnknownId, from_base32
from tongbao.kernel.money import Money
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode, PayOrder

CURRENCY: Final = "CNY"
FIELDS_MAX: Final = 200
DONE: Final = "00"
REPEATED: Final = "12"  # an earlier call of this number is there
DONE_WITH_DEFECT: Final = "A6"  # the money moved, and something beside it did not

FRONT: Final = "frontTransReq.do"
BACK: Final = "backTransReq.do"
APP: Final = "appTransReq.do"
QUERY: Final = "queryTrans.do"

SCANNED: Final = "000000"
PAGES: Final = frozenset({"000201", "000202"})
"""The products of the gateway's page: people's cards, and companies' accounts (B2B)."""
DUES: Final = "000601"
"""The product of accounts that collect dues (缴费): what is owed to utilities, schools, offices."""

_CURRENCY_CODE: Final = "156"
_TIME: Final = "%Y%m%d%H%M%S"
_SUBJECT_MAX: Final = 32
_WIDE: Final = str.maketrans("/=&{}[]", "／＝＆｛｝［］")
_NO_TIME: Final = datetime(2020, 1, 1, tzinfo=BUSINESS_ZONE)
_AMOUNT_DIGITS_MAX: Final = 12
_PIECES_MAX: Final = 1000
_PC: Final = "07"
_PHONE: Final = "08"


class Transaction(Struct, frozen=True):
    """One kind of request: its three codes and where it goes."""

    type_: str
    subtype: str
    product: str  # bizType; empty: the account's own
    path: str


PAYMENTS: Final = {
    PayMode.WEB: Transaction("01", "01", "", FRONT),
    PayMode.H5: Transaction("01", "01", "", FRONT),
    PayMode.APP: Transaction("01", "01", SCANNED, APP),
    PayMode.QR: Transaction("01", "07", SCANNED, BACK),
    PayMode.PAYMENT_CODE: Transaction("01", "06", SCANNED, BACK),
}
AUTHORISATIONS: Final = {
    PayMode.WEB: Transaction("02", "01", "", FRONT),
    PayMode.H5: Transaction("02", "01", "", FRONT),
    PayMode.APP: Transaction("02", "01", SCANNED, APP),
    PayMode.QR: Transaction("02", "05", SCANNED, BACK),
    PayMode.PAYMENT_CODE: Transaction("02", "04", "", BACK),
}
"""Customers' codes and ours as yansongda/pay has them; the gateway's after its demo (02/01)."""
DUES_PAYMENTS: Final = {PayMode.QR: Transaction("13", "08", DUES, BACK)}
"""申请缴费二维码, as yansongda/pay has it: UnionPay itself tells the biller what was paid."""
COMPLETION: Final = Transaction("03", "00", "", BACK)
REFUND: Final = Transaction("04", "00", "", BACK)
CANCEL: Final = Transaction("31", "00", "", BACK)
COMPLETION_CANCEL: Final = Transaction("33", "00", "", BACK)
AUTHORISATION_CANCEL: Final = Transaction("32", "00", "", BACK)
QUESTION: Final = Transaction("00", "00", SCANNED, QUERY)
FILE: Final = Transaction("76", "01", SCANNED, "")

FRONT_MODES: Final = frozenset({PayMode.WEB, PayMode.H5, PayMode.APP, PayMode.QR})
"""The customer acts at UnionPay, and may try again there until the order's time is over."""

FRONT_QUERIES: Final = tuple(timedelta(minutes=minutes) for minutes in (5, 10, 30, 60, 120))
BACK_QUERIES: Final = tuple(
    timedelta(seconds=seconds) for seconds in (1, 2, 4, 8, 16, 32, 300, 1800, 3600)
)
"""UnionPay's own advice (the comments of its demo): how long to wait between questions. Behind the
scenes it says six times, and to go on while the answer is 03, 04 or 05: we do so more rarely."""

PAID: Final = frozenset({"01", DUES_PAYMENTS[PayMode.QR].type_})
CAPTURED: Final = frozenset({COMPLETION.type_})
REFUNDED: Final = frozenset({REFUND.type_})
AUTHORISED: Final = frozenset({"02"})
CANCELLED: Final = frozenset({CANCEL.type_})

CANCEL_SUFFIX: Final = "x"
"""A payment is cancelled under its own number and this; 27 characters, so never another's."""
UNDONE_SUFFIX: Final = "u"
"""A completion is undone under the refund's number and this."""
LET_GO_SUFFIX: Final = "v"
"""Its authorisation, which then lives again, is let go under the refund's number and this."""


def payments_of(account: ChannelAccount) -> Mapping[PayMode, Transaction]:
    """Return how an account's product collects: dues by a code that we show, and no other way."""
    return DUES_PAYMENTS if account.app_id == DUES else PAYMENTS


def authorisations_of(account: ChannelAccount) -> Mapping[PayMode, Transaction]:
    """Return how an account's product sets money aside; dues are paid at once."""
    return {} if account.app_id == DUES else AUTHORISATIONS


def product_of(account: ChannelAccount, kind: Transaction | None, app: str | None) -> str:
    """Return the product of a transaction: its own, or for the page ``app`` or the account's."""
    return (kind.product if kind is not None else "") or app or account.app_id


def common_fields(account: ChannelAccount, number: str, kind: Transaction) -> dict[str, str]:
    """Return what every request about a transaction says."""
    return {
        "version": "5.1.0",
        "encoding": "UTF-8",
        "txnType": kind.type_,
        "txnSubType": kind.subtype,
        "bizType": kind.product or account.app_id,
        "channelType": _PHONE,
        "accessType": "0",
        "merId": account.merchant_number,
        "orderId": number,
        "txnTime": sent_at(number),
    }


def order_fields(account: ChannelAccount, order: PayOrder, kind: Transaction) -> dict[str, str]:
    """Return what asks a customer for money, now or (pre-authorised) later."""
    fields = {
        **common_fields(account, order.number, kind),
        **money_fields(order.money),
        "bizType": product_of(account, kind, order.app_id),
        "channelType": _PC if order.mode is PayMode.WEB else _PHONE,
        "backUrl": account.notify_url,
        "orderDesc": order.subject[:_SUBJECT_MAX].translate(_WIDE),
    }
    if order.mode in FRONT_MODES:
        fields["payTimeout"] = china_text(order.expires_at)
    if kind.path == FRONT:
        fields["frontUrl"] = order.return_url or ""
    if order.mode is PayMode.PAYMENT_CODE:
        fields["qrNo"] = order.auth_code or ""
    return fields


def following_fields(
    account: ChannelAccount,
    number: str,
    kind: Transaction,
    *,
    money: Money,
    origin: str,
    product: str,
) -> dict[str, str]:
    """Return what follows a transaction: a refund, a completion, a cancellation of it.

    It is of the same product as what it follows.
    """
    return {
        **common_fields(account, number, kind),
        "bizType": product,
        **money_fields(money),
        "backUrl": account.notify_url,
        "origQryId": origin,
    }


def money_fields(money: Money) -> dict[str, str]:
    """Return an amount as UnionPay writes one."""
    return {"txnAmt": str(money.amount), "currencyCode": _CURRENCY_CODE}


def sent_at(number: str) -> str:
    """Return the ``txnTime`` of the order with this number: when its id was made.

    A number that is no id of ours has a constant one, which serves as well: what counts is that
    every call says the same.
    """
    try:
        at = datetime.fromtimestamp((from_base32(number[:26]).int >> 80) / 1000, UTC)
    except (UnknownId, ValueError, OverflowError):
        at = _NO_TIME
    return china_text(at)


def parse_reply(body: bytes) -> dict[str, str] | None:
    """Return a reply's fields, or None when it is no reply of UnionPay's.

    Values in braces or brackets may hold the separator, so it counts only outside of them; a
    field given twice could be read in two ways.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    fields: dict[str, str] = {}
    for part in _parts(text) or []:
        name, equals, value = part.partition("=")
        if not equals or not name or name in fields or len(fields) >= FIELDS_MAX:
            return None
        fields[name] = value
    return fields or None


def differs(
    fields: Mapping[str, str], account: ChannelAccount, number: str, money: Money | None = None
) -> str | None:
    """Return what in an answer contradicts what was asked, or None.

    The number and the merchant must be there; the time and the amount are compared where they are.
    """
    asked = {"merId": account.merchant_number, "orderId": number}
    told = {"txnTime": sent_at(number), **(money_fields(money) if money else {})}
    asked |= {name: value for name, value in told.items() if name in fields}
    for name, value in asked.items():
        if fields.get(name) != value:
            return f"{name} is {fields.get(name, 'missing')[:40]}, asked for {value}"
    return None


def fen(fields: Mapping[str, str]) -> Money | None:
    """Return the amount of a transaction, or None when it has none in yuan."""
    text = fields.get("txnAmt", "")
    is_amount = text.isascii() and text.isdigit() and len(text) <= _AMOUNT_DIGITS_MAX
    if not is_amount or fields.get("currencyCode") != _CURRENCY_CODE:
        return None
    return Money(int(text), CURRENCY)


def traced_at(fields: Mapping[str, str]) -> datetime | None:
    """Return when UnionPay passed a transaction on: ``traceTime``, which has no year."""
    return with_year(fields.get("traceTime", ""), near=china_moment(fields.get("txnTime", "")))


def with_year(month_to_second: str, *, near: datetime | None) -> datetime | None:
    """Return the moment ``MMDDhhmmss`` says that is nearest to another, or None."""
    if near is None:
        return None
    found = [
        moment
        for year in (near.year - 1, near.year, near.year + 1)
        if (moment := china_moment(f"{year}{month_to_second}")) is not None
    ]
    return min(found, key=lambda moment: abs(moment - near), default=None)


def china_moment(text: str) -> datetime | None:
    """Return the moment of ``yyyyMMddHHmmss``, or None."""
    if len(text) != 14 or not (text.isascii() and text.isdigit()):
        return None
    try:
        return datetime.strptime(text, _TIME).replace(tzinfo=BUSINESS_ZONE)
    except ValueError:
        return None


def china_text(at: datetime) -> str:
    """Return a moment as UnionPay writes it."""
    return at.astimezone(BUSINESS_ZONE).strftime(_TIME)


def is_over(order: PayOrder, now: datetime) -> bool:
    """Whether nobody can pay the order any more: its time is over, and a minute for their clock."""
    return now >= order.expires_at + timedelta(minutes=1)


def unpayable(order: PayOrder, kinds: Mapping[PayMode, Transaction]) -> str | None:
    """Return why an order cannot be offered in this way, or None."""
    if order.mode not in kinds:
        return f"no {order.mode} here"
    if order.money.currency != CURRENCY:
        return f"UnionPay does not take {order.money.currency} here"
    if order.mode is PayMode.PAYMENT_CODE and not order.auth_code:
        return "there is no payment code"
    if kinds[order.mode].path == FRONT and order.app_id not in {None, *PAGES}:
        return f"the page has no product {order.app_id}"
    return None


def _parts(text: str) -> list[str] | None:
    pieces = text.split("&", _PIECES_MAX)
    if len(pieces) > _PIECES_MAX:
        return None
    parts: list[str] = []
    held: list[str] = []
    depth = 0
    for piece in pieces:
        held.append(piece)
        depth += sum(piece.count(mark) for mark in "{[") - sum(piece.count(mark) for mark in "}]")
        if depth <= 0:
            parts.append("&".join(held))
            held, depth = [], 0
    return [*parts, "&".join(held)] if held else parts
