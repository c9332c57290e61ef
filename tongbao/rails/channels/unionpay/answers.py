"""Read UnionPay's answers: from the verified fields of a reply to an outcome of the contract.

``respCode`` 00 to a transaction says that it was accepted, and no more: the money is proven by a
notification or by the query's ``origRespCode``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal

from tongbao.kernel.money import Money
from tongbao.rails.channels.contract.bills import BillEmpty, BillNotReady
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode, PayOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Declined,
    NotSent,
    OpenApp,
    Pending,
    ShowQr,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.error_map import error_map
from tongbao.rails.channels.unionpay.gateway import Answered
from tongbao.rails.channels.unionpay.wire import (
    DONE,
    DONE_WITH_DEFECT,
    differs,
    fen,
    traced_at,
)

_ERRORS: Final = error_map("unionpay")

MoneyCall = Literal["pay", "refund"]
Found = Succeeded | Pending | Declined | Absent | Unknown


def offered(heard: Answered, account: ChannelAccount, order: PayOrder) -> Pending | Unknown:
    """Return what an accepted order lets the customer do: scan, open the app, or just wait."""
    if difference := differs(heard.fields, account, order.number, order.money):
        return Unknown(f"contradiction: {difference}")
    match order.mode:
        case PayMode.QR if code := heard.fields.get("qrCode"):
            return Pending(action=ShowQr(code))
        case PayMode.APP if tn := heard.fields.get("tn"):
            return Pending(action=OpenApp({"tn": tn}))
        case PayMode.PAYMENT_CODE:
            return Pending(reason="accepted")
        case _:
            return Unknown("the answer holds nothing for the customer")


def accepted(
    heard: Answered, account: ChannelAccount, number: str, money: Money
) -> Pending | Unknown:
    """Return that a transaction behind the scenes is under way."""
    if difference := differs(heard.fields, account, number, money):
        return Unknown(f"contradiction: {difference}")
    return Pending(reason="accepted")


def refused(call: MoneyCall, heard: Answered) -> Pending | Declined | NotSent | Unknown:
    """Return what a code other than 00 to a transaction means."""
    return _meant(call, heard.code, heard.message, heard.code)


def found(
    heard: Answered,
    account: ChannelAccount,
    number: str,
    money: Money,
    *,
    kinds: frozenset[str],
    call: MoneyCall,
    now: datetime,
) -> Found:
    """Return how a transaction stands, when the answer speaks of the one that was asked about.

    ``kinds`` are the transaction types it may be of: what was only authorised is not paid.
    ``now`` dates a success that UnionPay does not date.
    """
    if heard.code != DONE:
        if _ERRORS.find("query", heard.code).meaning == "absent":
            return Absent(heard.code)
        return Unknown(f"query refused: {heard.code}")
    if difference := differs(heard.fields, account, number, money):
        return Unknown(f"contradiction: {difference}")
    if (told := heard.fields.get("txnType", "")) not in kinds:
        return Unknown(f"contradiction: txnType is {told[:8] or 'missing'}")
    origin = heard.fields.get("origRespCode", "")
    if origin in {DONE, DONE_WITH_DEFECT}:
        return moved(heard.fields, now)
    words = heard.fields.get("origRespMsg", "")[:128]
    outcome = _meant(call, origin, words, f"origin.{origin}", origin)
    return Unknown(outcome.reason) if isinstance(outcome, NotSent) else outcome


def moved(fields: Mapping[str, str], now: datetime) -> Succeeded | Unknown:
    """Return the success that a transaction's fields stand for; they are compared already."""
    money, ref = fen(fields), fields.get("queryId", "")
    if money is None or not ref:
        return Unknown("a success without number or amount")
    return Succeeded(ref, money, traced_at(fields) or now)


def no_bill(heard: Answered) -> BillNotReady | BillEmpty | Unknown:
    """Return why there is no file."""
    match _ERRORS.find("bill", heard.code).meaning:
        case "empty":
            return BillEmpty(heard.code)
        case "not_ready":
            return BillNotReady(heard.code)
        case _:
            return Unknown(f"{heard.code}: {heard.message}")


def _meant(
    call: MoneyCall, code: str, words: str, *found_by: str
) -> Pending | Declined | NotSent | Unknown:
    entry = _ERRORS.find(call, *found_by)
    match entry.meaning:
        case "declined":
            return Declined(entry.code, words, retry_elsewhere=entry.retry_elsewhere)
        case "not_sent":
            return NotSent(f"{code}: {words}")
        case "pending":
            return Pending(reason=code)
        case _:
            return Unknown(f"{code}: {words}")
