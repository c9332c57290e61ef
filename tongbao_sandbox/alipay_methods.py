"""Alipay's API methods: each takes a checked request and returns the reply's inner object."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from msgspec import structs

from tongbao_sandbox import alipay_agreements as agreements
from tongbao_sandbox import alipay_shares as shares
from tongbao_sandbox import alipay_trade as trades
from tongbao_sandbox import magic
from tongbao_sandbox.alipay_bill import yuan
from tongbao_sandbox.alipay_trade import NAME
from tongbao_sandbox.alipay_wire import Ask, Refusal, amount_of, invalid, need, success
from tongbao_sandbox.clock import plain
from tongbao_sandbox.model import Fault, PaymentCode, Refund, Trade, TradeMode
from tongbao_sandbox.seam import World

CODE: Final = re.compile(r"(?:2[5-9]|30)\d{14,22}")
CODE_LIVES: Final = timedelta(seconds=60)
OFFER_LIVES: Final = timedelta(hours=2)
ASKING_LIVES: Final = timedelta(hours=3)
CANCEL_WITHIN: Final = timedelta(hours=24)

Content = dict[str, Any]
Method = Callable[[World, Ask, Fault], Content]


def pay(world: World, ask: Ask, fault: Fault) -> Content:
    """Charge the customer whose payment code the merchant scanned (alipay.trade.pay)."""
    amount, subject = amount_of(ask, "total_amount"), need(ask, "subject")
    if ask.biz.get("agreement_params"):
        return _pay_under_agreement(world, ask, fault, amount, subject)
    if ask.text("scene") not in {"bar_code", "wave_code"}:
        raise invalid("scene")
    known = trades.find(world, ask)
    if known is not None:
        return _pay_again(known, "payment_code", amount)
    code = _usable_code(world, need(ask, "auth_code"))
    trade = trades.create(world, new_trade(world, ask, "payment_code", amount, subject))
    world.state.put_code(structs.replace(code, used_for=trade.number))
    trade = structs.replace(trade, state="asking")
    now = world.clock.now()
    if fault.name == "processing":
        return success(trades.paid_fields(trades.hold(world, trade, fault)), "10003")
    if fault.name.endswith("_made"):
        return success(trades.paid_fields(world.state.put_trade(trade)), "10003")
    is_poor = code.behaviour == "decline" or magic.is_declined(amount)
    if fault.name.endswith("_paid") or (code.behaviour == "pay" and not is_poor):
        return _paid(trades.collect(world, trade, now))
    if is_poor:
        world.state.put_trade(structs.replace(trade, state="failed", closed_at=now))
        raise _no_pay("ACQ.BUYER_BALANCE_NOT_ENOUGH", "买家余额不足", trade.number)
    later = {"ask_then_pay": "pay", "cancel": "quit"}.get(code.behaviour)
    if later is not None:
        when = now + timedelta(seconds=code.after_s)
        world.courier.at(NAME, later, trade.number, when=when)
    return success(trades.paid_fields(world.state.put_trade(trade)), "10003")


def precreate(world: World, ask: Ask, fault: Fault) -> Content:
    """Return a code for the customer to scan (alipay.trade.precreate); no trade exists yet."""
    amount, subject = amount_of(ask, "total_amount"), need(ask, "subject")
    trade = trades.find(world, ask)
    if trade is None:
        trade = world.state.put_trade(new_trade(world, ask, "qr", amount, subject))
        if fault.name.endswith("_paid"):
            trades.collect(world, trade, world.clock.now())
        elif fault.name == "processing":
            trades.hold(world, trade, fault)
    else:
        check_again(trade, "qr", amount)
    return success({"out_trade_no": trade.number, "qr_code": trade.token})


def create(world: World, ask: Ask, fault: Fault) -> Content:
    """Open a trade for a buyer who is inside Alipay's app (alipay.trade.create)."""
    amount, subject = amount_of(ask, "total_amount"), need(ask, "subject")
    buyer = ask.text("buyer_open_id") or need(ask, "buyer_id")
    if ask.text("product_code") == "JSAPI_PAY":
        need(ask, "op_app_id")
    trade = trades.find(world, ask)
    if trade is None:
        trade = trades.create(world, new_trade(world, ask, "in_app", amount, subject), buyer)
        if fault.name.endswith("_paid"):
            trade = trades.collect(world, trade, world.clock.now())
        elif fault.name == "processing":
            trade = trades.hold(world, trade, fault)
    else:
        check_again(trade, "in_app", amount)
        if trade.payer != buyer:
            raise Refusal("40004", "ACQ.TRADE_BUYER_NOT_MATCH", "交易买家不匹配")
    return success({"out_trade_no": trade.number, "trade_no": trade.ref})


def query(world: World, ask: Ask, fault: Fault) -> Content:
    """Return what became of a trade (alipay.trade.query)."""
    trade = trades.find_existing(world, ask)
    if fault.name == "stale" and trade.paid_at is not None:
        trade = structs.replace(trade, state="asking", paid_at=None)
    fields = {**trades.paid_fields(trade), "trade_status": trades.status_of(trade)}
    if trade.paid_at is not None:
        fields["send_pay_date"] = plain(trade.paid_at)
    return success(fields)


def refund(world: World, ask: Ask, fault: Fault) -> Content:
    """Give money back (alipay.trade.refund); ``out_request_no`` is the idempotency key."""
    trade = trades.find_existing(world, ask)
    amount = amount_of(ask, "refund_amount")
    number = ask.text("out_request_no") or trade.number
    known = world.state.refund(NAME, trade.number, number)
    if known is not None and known.amount != amount:
        raise _no_refund(trade, "ACQ.DISCORDANT_REPEAT_REQUEST", "不一致的请求")
    if known is not None and known.state != "abnormal":
        return success(_refund_fields(trade, known, changed=False))
    _check_refundable(trade, amount, is_numbered=bool(ask.text("out_request_no")))
    if fault.name == "not_enough":
        raise _no_refund(trade, "ACQ.SELLER_BALANCE_NOT_ENOUGH", "卖家余额不足")
    backs = shares.taken_back(world, trade, ask)
    reason = ask.text("refund_reason")
    trade, made = trades.new_refund(world, trade, number, amount, reason, backs=backs)
    if fault.name == "processing":
        if fault.argument:  # without it the control API decides
            when = world.clock.now() + timedelta(seconds=fault.seconds())
            world.courier.at(NAME, "finish_refund", trade.number, when=when, argument=number)
        return success(_refund_fields(trade, made, changed=False))
    if fault.name == "abnormal":
        trade = trades.drop_refund(world, trade, made)
        return success(_refund_fields(trade, made, changed=False))
    trade = trades.give_back(world, trade, made)
    return success(_refund_fields(trade, made, changed=True))


def refund_query(world: World, ask: Ask, fault: Fault) -> Content:
    """Return what became of a refund (alipay.trade.fastpay.refund.query).

    A number nobody used is answered with success too, only without an amount.
    """
    del fault
    trade = trades.find_existing(world, ask)
    known = world.state.refund(NAME, trade.number, need(ask, "out_request_no"))
    if known is None or known.state != "done" or known.done_at is None:
        return success({})
    fields: Content = {
        "trade_no": trade.ref,
        "out_trade_no": trade.number,
        "out_request_no": known.number,
        "total_amount": yuan(trade.amount),
        "refund_amount": yuan(known.amount),
        "refund_status": "REFUND_SUCCESS",
    }
    if known.extra.get("backs"):
        fields["refund_royaltys"] = known.extra["backs"]
    if "gmt_refund_pay" in (ask.biz.get("query_options") or []):
        fields["gmt_refund_pay"] = plain(known.done_at)
    return success(fields)


def cancel(world: World, ask: Ask, fault: Fault) -> Content:
    """Undo a trade (alipay.trade.cancel): close it unpaid, or give the money back.

    Asked about a trade that does not exist, Alipay says success and names no action; a code that
    was offered is dead from then on.
    """
    del fault
    trade = trades.find(world, ask)
    if trade is None or not trade.ref:
        if trade is not None and trade.mode == "qr":  # a page that is signed stays good
            trades.close(world, trade)
        return success({"out_trade_no": ask.text("out_trade_no"), "retry_flag": "N"})
    action = "close"
    if trade.state == "reversed":
        action = "refund"
    elif trade.state == "paid":
        _check_cancellable(world, trade)
        trade, made = trades.new_refund(world, trade, trade.number, trade.amount, "撤销")
        trade = structs.replace(trade, state="reversed")
        trade = trades.give_back(world, trade, made)
        action = "refund"
    elif trade.state in trades.OPEN:
        trade = trades.close(world, trade)
    return success(
        {
            "trade_no": trade.ref,
            "out_trade_no": trade.number,
            "retry_flag": "N",
            "action": action,
        }
    )


def close(world: World, ask: Ask, fault: Fault) -> Content:
    """Close a trade that waits for its buyer (alipay.trade.close)."""
    del fault
    trade = trades.find_existing(world, ask)
    if trade.state not in trades.OPEN:
        raise Refusal("40004", "ACQ.TRADE_STATUS_ERROR", "交易状态不合法")
    trade = trades.close(world, trade)
    return success({"trade_no": trade.ref, "out_trade_no": trade.number})


METHODS: Final[dict[str, tuple[str, Method]]] = {
    "alipay.trade.pay": ("pay", pay),
    "alipay.trade.precreate": ("pay", precreate),
    "alipay.trade.create": ("pay", create),
    "alipay.trade.query": ("query", query),
    "alipay.trade.refund": ("refund", refund),
    "alipay.trade.fastpay.refund.query": ("refund_query", refund_query),
    "alipay.trade.cancel": ("close", cancel),
    "alipay.trade.close": ("close", close),
}
"""Method → the point at which faults may be scripted, and what carries it out."""


def new_trade(world: World, ask: Ask, mode: TradeMode, amount: int, subject: str) -> Trade:
    """Return an order as the request describes it; it is not stored yet.

    Raises:
        Refusal
    """
    number, now = need(ask, "out_trade_no"), world.clock.now()
    if len(number) > 64 or len(subject) > 256:
        raise invalid("out_trade_no" if len(number) > 64 else "subject")
    token = ""
    if mode == "qr":
        token = f"https://qr.alipay.com/bax{secrets.token_hex(11)}"
    lives = ASKING_LIVES if mode == "payment_code" else OFFER_LIVES
    magic.script_callback(world, NAME, number, amount)
    return Trade(
        channel=NAME,
        number=number,
        mode=mode,
        state="offered",
        amount=amount,
        currency="CNY",
        subject=subject,
        created_at=now,
        expires_at=trades.expiry(ask, now, lives),
        token=token,
        notify_url=ask.params.get("notify_url", ""),
        extra={
            "store_id": ask.text("store_id"),
            "body": ask.text("body"),
            "passback_params": ask.text("passback_params"),
            "by_certificate": ask.by_certificate,
            "frozen": (ask.biz.get("extend_params") or {}).get("royalty_freeze") == "true",
            "seller": trades.seller_of(world, ask),
        },
    )


def check_again(trade: Trade, mode: TradeMode, amount: int) -> None:
    """Refuse a second order under a number unless it is the very same, still open one.

    Raises:
        Refusal
    """
    if trade.state == "paid":
        raise Refusal("40004", "ACQ.TRADE_HAS_SUCCESS", "交易已被支付")
    if trade.state in {"closed", "reversed", "failed"}:
        raise Refusal("40004", "ACQ.TRADE_HAS_CLOSE", "交易已经关闭")
    if (trade.mode, trade.amount) != (mode, amount):
        raise Refusal("40004", "ACQ.CONTEXT_INCONSISTENT", "交易信息被篡改")


def _pay_under_agreement(
    world: World, ask: Ask, fault: Fault, amount: int, subject: str
) -> Content:
    """Charge a customer who agreed to it before."""
    known = trades.find(world, ask)
    if known is not None:
        return _pay_again(known, "agreement", amount)
    agreement = agreements.usable(world, ask, amount)
    order = new_trade(world, ask, "agreement", amount, subject)
    trade = trades.create(world, order, agreement.user)
    if fault.name == "processing":
        return success(trades.paid_fields(trades.hold(world, trade, fault)), "10003")
    if fault.name.endswith("_made"):
        return success(trades.paid_fields(trade), "10003")
    if agreement.behaviour == "decline" or magic.is_declined(amount):
        now = world.clock.now()
        world.state.put_trade(structs.replace(trade, state="failed", closed_at=now))
        raise _no_pay("ACQ.BUYER_BALANCE_NOT_ENOUGH", "买家余额不足", trade.number)
    agreements.note_payment(world, agreement, amount)
    return _paid(trades.collect(world, trade, world.clock.now()))


def _pay_again(known: Trade, mode: TradeMode, amount: int) -> Content:
    """Answer a repeat of alipay.trade.pay under a number already in use."""
    if known.state == "paid":
        raise _no_pay("ACQ.TRADE_HAS_SUCCESS", "交易已被支付", known.number)
    if known.state in {"closed", "reversed", "failed"}:
        raise _no_pay("ACQ.TRADE_HAS_CLOSE", "交易已经关闭", known.number)
    if (known.mode, known.amount) != (mode, amount):
        raise _no_pay("ACQ.CONTEXT_INCONSISTENT", "交易信息被篡改", known.number)
    return success(trades.paid_fields(known), "10003")


def _usable_code(world: World, digits: str) -> PaymentCode:
    code = world.state.code(digits) if CODE.fullmatch(digits) else None
    now = world.clock.now()
    if code is None or code.channel != NAME or code.used_for or code.made_at + CODE_LIVES < now:
        raise _no_pay("ACQ.PAYMENT_AUTH_CODE_INVALID", "支付授权码无效", "")
    return code


def _paid(trade: Trade) -> Content:
    assert trade.paid_at is not None  # noqa: S101 - just collected
    return success({**trades.paid_fields(trade), "gmt_payment": plain(trade.paid_at)})


def _check_refundable(trade: Trade, amount: int, *, is_numbered: bool) -> None:
    if trade.state in trades.OPEN:
        raise _no_refund(trade, "ACQ.TRADE_STATUS_ERROR", "交易状态不合法")
    if trade.state != "paid" or trades.given_back(trade) == trade.amount:
        raise _no_refund(trade, "ACQ.TRADE_HAS_CLOSE", "交易已经关闭")
    if not is_numbered and amount != trade.amount:
        hint = "撤销或退款金额与订单金额不一致"
        raise _no_refund(trade, "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL", hint)
    if trade.refunded + amount > trade.amount:
        raise _no_refund(trade, "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL", "退款金额超限")


def _check_cancellable(world: World, trade: Trade) -> None:
    if trade.refunded:
        raise Refusal("40004", "ACQ.REASON_TRADE_REFUND_FEE_ERR", "退款金额无效")
    if trade.paid_at is not None and trade.paid_at + CANCEL_WITHIN < world.clock.now():
        raise Refusal("40004", "ACQ.TRADE_CANCEL_TIME_OUT", "超过撤销时间范围")


def _refund_fields(trade: Trade, made: Refund, *, changed: bool) -> Content:
    return {
        "trade_no": trade.ref,
        "out_trade_no": trade.number,
        "buyer_logon_id": trades.logon_of(trade.payer),
        "buyer_user_id": trade.payer,
        "fund_change": "Y" if changed else "N",
        "refund_fee": yuan(trades.given_back(trade)),
        "send_back_fee": yuan(made.amount if changed else 0),
    }


def _no_pay(sub_code: str, sub_msg: str, number: str) -> Refusal:
    zeros = ("buyer_pay_amount", "invoice_amount", "point_amount", "receipt_amount")
    extra = {**({"out_trade_no": number} if number else {}), **dict.fromkeys(zeros, "0.00")}
    return Refusal("40004", sub_code, sub_msg, extra)


def _no_refund(trade: Trade, sub_code: str, sub_msg: str) -> Refusal:
    extra = {"out_trade_no": trade.number, "refund_fee": "0.00", "send_back_fee": "0.00"}
    return Refusal("40004", sub_code, sub_msg, extra)
