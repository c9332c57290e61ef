"""What a terminal says and prints when money has come in. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from msgspec import UNSET, Struct, UnsetType

from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.kernel.errors import Invalid, Overloaded
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.payments.collecting.model import Payment

CHANNELS: Final[Mapping[str, tuple[str, str]]] = {
    "wechat_pay": ("微信", "WeChat Pay"),
    "alipay": ("支付宝", "Alipay"),
    "unionpay": ("云闪付", "UnionPay"),
    "unionpay_qra": ("云闪付", "UnionPay"),
    "cards": ("刷卡", "Card"),
    "wallet": ("钱包", "Wallet"),
}
CURRENCIES: Final[Mapping[str, tuple[str, str]]] = {
    "CNY": ("元", "yuan"),
    "HKD": ("港元", "Hong Kong dollars"),
    "MOP": ("澳门元", "patacas"),
    "TWD": ("新台币元", "New Taiwan dollars"),
    "USD": ("美元", "US dollars"),
    "EUR": ("欧元", "euros"),
    "JPY": ("日元", "yen"),
}


class StreamsFull(Overloaded):
    """This process tells as many terminals as it can."""

    code = "terminal.streams_full"
    advice = "Connect again after a few seconds; nothing is lost meanwhile."
    advice_zh = "当前连接数已满，请数秒后重连，期间通知不会丢失。"
    retry_after_s = 5


class LastEventMalformed(Invalid):
    """The Last-Event-ID is not one that we have given out."""

    code = "terminal.last_event_malformed"
    advice = "Send the id of the last event exactly as it came, or leave the header out."
    advice_zh = "请原样传回最后一个事件的 id，或不传该请求头。"


class Speech(Struct, frozen=True):
    """What to say, in both languages; the terminal's parameters say in which."""

    zh: str
    en: str


class Line(Struct, frozen=True, omit_defaults=True):
    """One line of a receipt, for whatever printer there is.

    ``text`` alone is a line of text; with ``right`` the two stand at both edges. ``rule`` is drawn
    across, ``qr`` is a code of its text, ``feed`` are so many empty lines, ``cut`` ends the paper.
    """

    kind: Literal["text", "pair", "rule", "qr", "feed", "cut"]
    text: str = ""
    right: str | UnsetType = UNSET
    align: Literal["left", "centre"] = "left"
    is_bold: bool = False
    is_large: bool = False
    lines: int | UnsetType = UNSET


class NoticeBody(Struct, frozen=True, omit_defaults=True):
    """What a terminal is told: that money came in or went back, to be said and printed."""

    kind: Literal["money_received", "money_returned"]
    payment_id: str
    merchant_order_no: str
    channel: str
    amount: int
    currency: str
    at: datetime
    speak: Speech
    print: list[Line]
    refund_id: str | UnsetType = UNSET


class Notice(Struct, frozen=True):
    """One row of terminal_notice; ``seq`` counts up for each terminal."""

    terminal_id: UUID
    seq: int
    merchant_id: UUID
    mode: Mode
    event_id: UUID
    body: dict[str, Any]
    at: datetime


class Feed(Struct, frozen=True):
    """One row of terminal_feed: how far a terminal's notices have come."""

    terminal_id: UUID
    last_seq: int


def speech_of(channel: str, money: Money, *, goes_back: bool = False) -> Speech:
    """Return what is said of money that came in, or goes back: 微信收款 12.50 元."""
    by_zh, by_en = CHANNELS.get(channel, ("", "You"))
    in_zh, in_en = CURRENCIES.get(money.currency, (money.currency, money.currency))
    amount = money.decimal_text()
    zh, en = ("退款", "refunded") if goes_back else ("收款", "received")
    return Speech(f"{by_zh}{zh} {amount} {in_zh}", f"{by_en} {en} {amount} {in_en}")


def receipt_of(
    body: Mapping[str, Any], sold: Mapping[str, str], money: Money, *, shop: str, at: datetime
) -> list[Line]:
    """Return the receipt of a payment or a refund, as the API shows it, in lines for any printer.

    ``sold``: order number, subject and channel of the payment.
    """
    goes_back = body["object"] == "refund"
    by = CHANNELS.get(sold["channel"], (sold["channel"],))[0]
    when = at.astimezone(BUSINESS_ZONE).strftime("%Y-%m-%d %H:%M:%S")
    lines = [
        Line("text", shop, align="centre", is_bold=True),
        *([Line("text", "退款凭证", align="centre", is_bold=True)] if goes_back else []),
        Line("rule"),
        Line("pair", "支付方式", right=by),
        Line("pair", "订单号", right=sold["merchant_order_no"]),
        Line("pair", "退款号" if goes_back else "支付号", right=body["id"]),
        Line("pair", "时间", right=when),
        Line("pair", "商品", right=sold["subject"][:24]),
        Line("rule"),
        Line(
            "pair",
            "实退" if goes_back else "实收",
            right=f"{money.decimal_text()} {money.currency}",
            is_large=True,
        ),
        Line("qr", body["id"], align="centre"),
        Line("feed", lines=3),
        Line("cut"),
    ]
    if body["mode"] == Mode.SANDBOX:
        lines.insert(1, Line("text", "测试环境 非真实交易", align="centre"))
    return lines


def notice_of(body: Mapping[str, Any], *, shop: str, at: datetime) -> NoticeBody:
    """Return what is told of a payment that succeeded, as the API showed it then."""
    money, channel = Money(body["amount_captured"], body["currency"]), body["method"]["channel"]
    sold = {
        "merchant_order_no": body["merchant_order_no"],
        "subject": body["subject"],
        "channel": channel,
    }
    return NoticeBody(
        kind="money_received",
        payment_id=body["id"],
        merchant_order_no=body["merchant_order_no"],
        channel=channel,
        amount=money.amount,
        currency=money.currency,
        at=at,
        speak=speech_of(channel, money),
        print=receipt_of(body, sold, money, shop=shop, at=at),
    )


def return_notice(body: Mapping[str, Any], sold: Payment, *, shop: str, at: datetime) -> NoticeBody:
    """Return what is told of a refund that succeeded, as the API showed it then."""
    money = Money(body["amount"], body["currency"])
    told = {
        "merchant_order_no": sold.merchant_order_no,
        "subject": sold.subject,
        "channel": sold.channel,
    }
    return NoticeBody(
        kind="money_returned",
        payment_id=body["payment_id"],
        merchant_order_no=sold.merchant_order_no,
        channel=sold.channel,
        amount=money.amount,
        currency=money.currency,
        at=at,
        speak=speech_of(sold.channel, money, goes_back=True),
        print=receipt_of(body, told, money, shop=shop, at=at),
        refund_id=body["id"],
    )
