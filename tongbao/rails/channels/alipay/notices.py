"""Alipay's notifications: one verified form per event of a trade, refunds among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import parse_qsl

import msgspec

from tongbao.rails.channels.alipay.crypto import PublicKey, notice_text, verify
from tongbao.rails.channels.alipay.wire import moment, yuan
from tongbao.rails.channels.contract.callbacks import (
    Callback,
    CallbackForged,
    CallbackKeyUnknown,
    CallbackKind,
    CallbackReply,
    CallbackUnreadable,
)
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Closed, Pending, Succeeded, Unknown
from tongbao.rails.channels.exchange import decode

FIELDS_MAX: Final = 200

_CHARSETS: Final = {"utf-8": "utf-8", "gbk": "gb18030", "gb2312": "gb18030", "gb18030": "gb18030"}
_MESSAGE_NEEDED: Final = ("notify_id", "app_id")
_NEEDED: Final = ("notify_id", "app_id", "seller_id", "out_trade_no", "trade_status")
_AGREEMENT_NEWS: Final = frozenset({"dut_user_sign", "dut_user_unsign"})
_MESSAGES: Final[Mapping[str, tuple[CallbackKind, str]]] = {
    "alipay.trade.order.settle.notify": (CallbackKind.SPLIT, "out_request_no"),
    "alipay.fund.trans.order.changed": (CallbackKind.TRANSFER, "out_biz_no"),
    "alipay.merchant.tradecomplain.changed": (CallbackKind.COMPLAINT, "complain_event_id"),
}
"""Messages to the application's gateway: what they speak of, and the field with our number."""
_REFUND_MARKS: Final = ("gmt_refund", "out_biz_no")


def read(
    account: ChannelAccount, body: bytes, key_of: Callable[[str], PublicKey | None]
) -> Callback:
    """Return what a notification says; ``key_of`` knows Alipay's keys by certificate number.

    Raises:
        CallbackForged, CallbackKeyUnknown, CallbackUnreadable
    """
    fields = _fields(body)
    if fields.get("sign_type") != "RSA2" or not fields.get("sign"):
        raise CallbackForged(reason="no RSA2 signature")
    key = key_of(fields.get("alipay_cert_sn", ""))
    if key is None:
        raise CallbackKeyUnknown(serial=fields["alipay_cert_sn"][:64])
    if not verify(key, notice_text(fields), fields["sign"]):
        raise CallbackForged(reason="the signature does not verify")
    if fields.get("msg_method") in _MESSAGES:
        return _message(account, fields)
    if fields.get("notify_type") in _AGREEMENT_NEWS:
        return _agreement(account, fields)
    if fields.get("notify_type") != "trade_status_sync":
        return _other(account, fields)
    if not all(map(fields.get, _NEEDED)):
        raise CallbackUnreadable(kind="trade_status_sync")
    is_refund = _speaks_of_refund(fields)
    return Callback(
        kind=CallbackKind.REFUND if is_refund else CallbackKind.PAYMENT,
        notification_id=fields["notify_id"],
        number=_refund_number(fields) if is_refund else fields["out_trade_no"],
        merchant_number=fields["seller_id"],
        app_id=fields["app_id"],
        outcome=_REFUND_NEWS if is_refund else _payment(fields),
        content=_shown(fields),
    )


def _agreement(account: ChannelAccount, fields: Mapping[str, str]) -> Callback:
    """Return news of an agreement, which says neither who we are nor everything it agreed."""
    number, notice = fields.get("external_agreement_no"), fields.get("notify_id")
    if not number or not notice or not fields.get("app_id"):
        raise CallbackUnreadable(kind="an agreement without number or application")
    return Callback(
        kind=CallbackKind.AGREEMENT,
        notification_id=notice,
        number=number,
        merchant_number=account.merchant_number,
        app_id=fields["app_id"],
        outcome=Unknown(f"{fields['notify_type']}: ask about the agreement"),
        content=_shown(fields),
    )


def _message(account: ChannelAccount, fields: Mapping[str, str]) -> Callback:
    """Return news of shares or of a payout; the channel's own answer says the rest."""
    kind, name = _MESSAGES[fields["msg_method"]]
    content = decode(fields.get("biz_content", "").encode(), dict[str, object])
    number = "" if content is None else content.get(name)
    if not isinstance(number, str) or not number or not all(map(fields.get, _MESSAGE_NEEDED)):
        raise CallbackUnreadable(kind=fields["msg_method"][:64])
    return Callback(
        kind=kind,
        notification_id=fields["notify_id"],
        number=number,
        merchant_number=account.merchant_number,
        app_id=fields["app_id"],
        outcome=Unknown("it changed; ask about it"),
        content=_shown(fields),
    )


def _other(account: ChannelAccount, fields: Mapping[str, str]) -> Callback:
    """Return news of a product that is not in use here, for whoever wants to know."""
    if not all(map(fields.get, _MESSAGE_NEEDED)):
        raise CallbackUnreadable(kind=fields.get("notify_type", "")[:32])
    return Callback(
        kind=CallbackKind.OTHER,
        notification_id=fields["notify_id"],
        number="",
        merchant_number=account.merchant_number,
        app_id=fields["app_id"],
        outcome=Unknown("of a product that is not in use here"),
        content=_shown(fields),
    )


def reply(*, accepted: bool) -> CallbackReply:
    """Return the word ``success``, which stops the resends; anything else asks for the next."""
    if accepted:
        return CallbackReply(200, {"content-type": "text/plain"}, b"success")
    return CallbackReply(500, {"content-type": "text/plain"}, b"fail")


# refund_fee is all that was ever given back of the trade, so it cannot say what this one was.
_REFUND_NEWS: Final = Unknown("the trade was refunded; ask about the refund")


def _fields(body: bytes) -> dict[str, str]:
    """Return the decoded form; a field given twice could be read in two ways, so it is refused."""
    try:
        text = body.decode("ascii")
        charset = dict(parse_qsl(text, max_num_fields=FIELDS_MAX)).get("charset", "utf-8")
        pairs = parse_qsl(
            text,
            keep_blank_values=True,
            strict_parsing=True,
            encoding=_CHARSETS.get(charset.lower(), "ascii"),
            errors="strict",
            max_num_fields=FIELDS_MAX,
        )
    except ValueError:
        raise CallbackForged(reason="no readable form") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise CallbackForged(reason="a field is given twice")
    return fields


def _speaks_of_refund(fields: Mapping[str, str]) -> bool:
    if any(fields.get(mark) for mark in _REFUND_MARKS):
        return True
    given_back = yuan(fields.get("refund_fee") or "0")
    return given_back is None or given_back.amount != 0


def _refund_number(fields: Mapping[str, str]) -> str:
    """Return our refund number; a refund made without one takes the trade's."""
    return fields.get("out_biz_no") or fields["out_trade_no"]


def _payment(fields: Mapping[str, str]) -> Succeeded | Pending | Closed | Unknown:
    paid_at = moment(fields.get("gmt_payment", ""))
    match fields["trade_status"]:
        case "TRADE_SUCCESS" | "TRADE_FINISHED":
            money, ref = yuan(fields.get("total_amount", "")), fields.get("trade_no")
            if money is None or paid_at is None or not ref:
                raise CallbackUnreadable(kind="a payment without number, amount or time")
            return Succeeded(ref, money, paid_at, fields.get("buyer_id"))
        case "WAIT_BUYER_PAY":
            return Pending(reason="WAIT_BUYER_PAY")
        case "TRADE_CLOSED" if paid_at is None:
            return Closed("TRADE_CLOSED")
        case "TRADE_CLOSED":
            return Unknown("TRADE_CLOSED after it was paid: given back in full")
        case status:
            raise CallbackUnreadable(status=status[:32])


def _shown(fields: Mapping[str, str]) -> str:
    shown = {name: value for name, value in fields.items() if name != "sign"}
    return msgspec.json.encode(shown).decode()
