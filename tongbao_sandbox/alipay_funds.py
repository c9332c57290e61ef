"""Payouts from the merchant's account to a person's (单笔转账).

transfer ─► SUCCESS | DEALING ─► SUCCESS | FAIL ; SUCCESS ─► REFUND
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct, structs

from tongbao_sandbox import alipay_trade as trades
from tongbao_sandbox.alipay_bill import yuan
from tongbao_sandbox.alipay_fund_bill import Move, note
from tongbao_sandbox.alipay_trade import NAME
from tongbao_sandbox.alipay_wire import Ask, Refusal, amount_of, need, success
from tongbao_sandbox.clock import plain
from tongbao_sandbox.model import Fault
from tongbao_sandbox.seam import Refused, World

AMOUNT_MIN: Final = 10
"""Fen: a payout is at least ten."""
_STATES: Final = {"success": "SUCCESS", "fail": "FAIL", "refund": "REFUND"}
_TOLD: Final = "alipay.fund.trans.order.changed"


class Payout(Struct, frozen=True):
    """One payout; ``(number)`` is its key."""

    number: str
    order_id: str
    payee: str
    amount: int
    state: str
    at: datetime


def transfer(world: World, ask: Ask, fault: Fault) -> dict[str, Any]:
    """Pay out (alipay.fund.trans.uni.transfer); the number makes repeats harmless."""
    number, payee = need(ask, "out_biz_no"), _payee(ask)
    amount = amount_of(ask, "trans_amount")
    if (ask.text("product_code"), ask.text("biz_scene")) != (
        "TRANS_ACCOUNT_NO_PWD",
        "DIRECT_TRANSFER",
    ):
        raise Refusal("40004", "INVALID_PARAMETER", "参数有误：product_code, biz_scene")
    known = find(world, number)
    if known is not None:
        if (known.payee, known.amount) != (payee, amount):
            raise Refusal(
                "40004", "PAYMENT_INFO_INCONSISTENCY", "两次请求商户转账单号一样但参数不一致"
            )
        return success(_fields(known))
    if amount < AMOUNT_MIN:
        raise Refusal("40004", "EXCEED_LIMIT_SM_MIN_AMOUNT", "转账金额不能少于0.1元")
    if fault.name == "not_enough":
        raise Refusal("40004", "PAYER_BALANCE_NOT_ENOUGH", "付款方余额不足")
    now = world.clock.now()
    serial = world.state.next_number("alipay.transfer")
    state = {"dealing": "DEALING", "fail": "FAIL"}.get(fault.name, "SUCCESS")
    made = Payout(number, f"{now:%Y%m%d}110070000006{serial:016d}", payee, amount, state, now)
    _put(world, made)
    return success(_fields(made))


def query(world: World, ask: Ask, fault: Fault) -> dict[str, Any]:
    """Return what became of a payout (alipay.fund.trans.common.query)."""
    del fault
    found = find(world, need(ask, "out_biz_no"))
    if found is None:
        raise Refusal("40004", "ORDER_NOT_EXIST", "转账订单不存在")
    fields = {**_fields(found), "trans_amount": yuan(found.amount), "pay_date": plain(found.at)}
    if found.state == "FAIL":
        fields |= {"error_code": "PAYEE_ACCOUNT_STATUS_ERROR", "fail_reason": "收款账户状态异常"}
    return success(fields)


def decide(world: World, number: str, state: str) -> dict[str, Any]:
    """Let a payout succeed, fail, or come back from the payee's bank, and tell the merchant.

    Raises:
        Refused
    """
    found = find(world, number)
    if found is None or _STATES.get(state, found.state) == found.state:
        raise Refused("a payout that is known becomes success, fail or refund, once")
    _put(world, structs.replace(found, state=_STATES[state], at=world.clock.now()))
    return {"number": number, "state": state}


def find(world: World, number: str) -> Payout | None:
    """Return the payout with the merchant's number."""
    kept = world.state.document(NAME, f"payout/{number}")
    return None if kept is None else msgspec.json.decode(kept[0], type=Payout)


METHODS: Final[dict[str, tuple[str, Callable[[World, Ask, Fault], dict[str, Any]]]]] = {
    "alipay.fund.trans.uni.transfer": ("transfer", transfer),
    "alipay.fund.trans.common.query": ("transfer_query", query),
}


def _payee(ask: Ask) -> str:
    told = ask.biz.get("payee_info")
    payee = Ask(ask.method, dict(told) if isinstance(told, dict) else {}, {}, "")
    identity, kind = payee.text("identity"), payee.text("identity_type")
    if not identity or (kind == "ALIPAY_LOGON_ID" and not payee.text("name")):
        raise Refusal("40004", "PAYEE_USER_INFO_ERROR", "支付宝账号和姓名不匹配")
    if identity.endswith("0000"):
        raise Refusal("40004", "PAYEE_NOT_EXIST", "收款账号不存在")
    return identity


def _fields(payout: Payout) -> dict[str, Any]:
    return {
        "out_biz_no": payout.number,
        "order_id": payout.order_id,
        "pay_fund_order_id": payout.order_id,
        "status": payout.state,
        "trans_date": plain(payout.at),
    }


def _put(world: World, payout: Payout) -> None:
    now = world.clock.now()
    world.state.put_document(NAME, f"payout/{payout.number}", msgspec.json.encode(payout), now)
    if payout.state in {"SUCCESS", "REFUND"}:
        amount = payout.amount if payout.state == "REFUND" else -payout.amount
        kind = "转账退回" if payout.state == "REFUND" else "转账"
        note(world, Move(payout.order_id, payout.number, kind, now, payout.payee, amount, kind))
    if payout.state != "DEALING":
        told = {**_fields(payout), "biz_scene": "DIRECT_TRANSFER", "action_type": "FINISH"}
        trades.tell_application(world, "transfer", payout.number, _TOLD, told)
