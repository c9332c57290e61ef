"""Shares of a payment (分账): who may get one, what each got, and what came back with a refund.

settle ─► PROCESSING ── alipay.settle_after_s ─► SUCCESS | FAIL      (royalty_mode async)
settle ─► SUCCESS | FAIL                                             (otherwise)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec import Struct, structs

from tongbao_sandbox import alipay_trade as trades
from tongbao_sandbox.alipay_bill import yuan
from tongbao_sandbox.alipay_fund_bill import Move, note
from tongbao_sandbox.alipay_trade import NAME
from tongbao_sandbox.alipay_wire import Ask, Refusal, amount_of, need, success
from tongbao_sandbox.clock import plain
from tongbao_sandbox.model import Fault, Trade
from tongbao_sandbox.seam import Refused, World

SETTLE_AFTER_S: Final = 2.0
"""The setting ``alipay.settle_after_s`` overrides."""
TYPES: Final = frozenset({"userId", "loginName", "openId"})
_TOLD: Final = "alipay.trade.order.settle.notify"


class Share(Struct, frozen=True):
    """What one receiver gets, in fen; ``taken_back`` returned with refunds."""

    account: str
    kind: str
    amount: int
    state: str
    error: str = ""
    taken_back: int = 0


class Split(Struct, frozen=True):
    """One request to share a trade."""

    trade_number: str
    number: str
    settle_no: str
    at: datetime
    shares: tuple[Share, ...]
    finishes: bool

    @property
    def name(self) -> str:
        """Where it is kept."""
        return f"split/{self.trade_number}/{self.number}"


def bind(world: World, ask: Ask, fault: Fault) -> dict[str, Any]:
    """Let receivers have shares (alipay.trade.royalty.relation.bind); a second time is as well."""
    del fault
    for kind, account, name in _receivers(ask):
        if kind == "loginName" and not name:
            raise Refusal("40004", "USERNAME_NOT_MATCH", "分账接收方全称不匹配")
        if account.endswith("0000"):
            raise Refusal("40004", "USER_NOT_EXIST", "分账接收方不存在")
        _remember(world, kind, account, b"bound")
    return success({"result_code": "SUCCESS"})


def unbind(world: World, ask: Ask, fault: Fault) -> dict[str, Any]:
    """Let receivers have shares no more (alipay.trade.royalty.relation.unbind)."""
    del fault
    for kind, account, _ in _receivers(ask):
        _remember(world, kind, account, b"")
    return success({"result_code": "SUCCESS"})


def settle(world: World, ask: Ask, fault: Fault) -> dict[str, Any]:
    """Give shares of a trade away (alipay.trade.order.settle); repeats are harmless."""
    trade = trades.find_existing(world, ask)
    number = need(ask, "out_request_no")
    is_async = ask.text("royalty_mode") == "async"
    wanted = tuple(_wanted(world, item, is_async=is_async) for item in _items(ask))
    finishes = (ask.biz.get("extend_params") or {}).get("royalty_finish") == "true"
    known = _split(world, trade.number, number)
    if known is not None:
        same = [(one.account, one.amount) for one in known.shares]
        if same != [(one.account, one.amount) for one in wanted]:
            raise Refusal("40004", "ACQ.DISCORDANT_REPEAT_REQUEST", "不一致的请求")
        return success({"trade_no": trade.ref, "settle_no": known.settle_no})
    _check_shares(trade, sum(one.amount for one in wanted))
    if fault.name == "not_enough":
        raise Refusal("40004", "ACQ.SELLER_BALANCE_NOT_ENOUGH", "卖家余额不足")
    now = world.clock.now()
    serial = world.state.next_number("alipay.settle")
    made = Split(trade.number, number, f"{now:%Y%m%d}0025300{serial:017d}", now, wanted, finishes)
    shared = int(trade.extra.get("shared", 0)) + sum(one.amount for one in wanted)
    extra = {**trade.extra, "shared": shared, "share_finished": finishes}
    if finishes:
        extra["frozen"] = False
    world.state.put_trade(structs.replace(trade, extra=extra))
    _put(world, made)
    argument = f"{number} {fault.name}"
    if is_async and fault.name != "stuck":
        after = float(world.setting("alipay.settle_after_s", SETTLE_AFTER_S))
        when = now + timedelta(seconds=after)
        world.courier.at(NAME, "settle", trade.number, when=when, argument=argument)
    elif not is_async:
        finish(world, trade.number, argument)
    return success({"trade_no": trade.ref, "settle_no": made.settle_no})


def settle_query(world: World, ask: Ask, fault: Fault) -> dict[str, Any]:
    """Return what became of each share (alipay.trade.order.settle.query)."""
    del fault
    trade = trades.find_existing(world, ask)
    split = _split(world, trade.number, need(ask, "out_request_no"))
    if split is None:
        raise Refusal("40004", "ACQ.TRADE_NOT_EXIST", "分账单不存在")
    return success(_told(world, split))


def taken_back(world: World, trade: Trade, ask: Ask) -> Sequence[Mapping[str, str]]:
    """Take shares back with a refund and return what to remember of it.

    Raises:
        Refusal
    """
    backs = []
    for item in ask.biz.get("refund_royalty_parameters") or []:
        part = Ask(ask.method, dict(item), ask.params, ask.origin)
        account, amount = need(part, "trans_out"), amount_of(part, "amount")
        _take_back(world, trade, account, amount)
        backs.append(
            {
                "royalty_type": "transfer",
                "trans_out": account,
                "trans_in": part.text("trans_in"),
                "refund_amount": yuan(amount),
                "result_code": "SUCCESS",
            }
        )
    return backs


def finish(world: World, trade_number: str, argument: str) -> None:
    """Let a split come to its end, with the fault it was asked with."""
    number, _, fault = argument.partition(" ")
    split = _split(world, trade_number, number)
    if split is None:
        return
    shares = [structs.replace(one, state="SUCCESS") for one in split.shares]
    if fault == "share_fails" and shares:
        error = "TXN_RESULT_ACCOUNT_BALANCE_NOT_ENOUGH"
        shares[0] = structs.replace(shares[0], state="FAIL", error=error)
    done = structs.replace(split, shares=tuple(shares))
    _put(world, done)
    now = world.clock.now()
    for one in shares:
        if one.state == "SUCCESS":
            kind = "分账"
            note(world, Move(split.settle_no, number, kind, now, one.account, -one.amount, kind))
    trades.tell_application(world, "split", number, _TOLD, _told(world, done))


def decide(world: World, number: str, state: str) -> dict[str, Any]:
    """Let a stuck split end well or, in its first share, badly.

    Raises:
        Refused
    """
    for trade in world.state.trades(NAME):
        if _split(world, trade.number, number) is not None:
            finish(world, trade.number, f"{number} {'' if state == 'success' else 'share_fails'}")
            return {"number": number, "state": state}
    raise Refused("no split has this number")


METHODS: Final[dict[str, tuple[str, Callable[[World, Ask, Fault], dict[str, Any]]]]] = {
    "alipay.trade.royalty.relation.bind": ("receiver", bind),
    "alipay.trade.royalty.relation.unbind": ("receiver", unbind),
    "alipay.trade.order.settle": ("split", settle),
    "alipay.trade.order.settle.query": ("split_query", settle_query),
}


def _items(ask: Ask) -> Sequence[Mapping[str, Any]]:
    items = ask.biz.get("royalty_parameters") or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise Refusal("40004", "ACQ.INVALID_PARAMETER", "参数无效：royalty_parameters")
    return items


def _receivers(ask: Ask) -> Sequence[tuple[str, str, str]]:
    need(ask, "out_request_no")
    found = []
    for item in ask.biz.get("receiver_list") or []:
        part = Ask(ask.method, dict(item), ask.params, ask.origin)
        if need(part, "type") not in TYPES:
            raise Refusal("40004", "ACQ.INVALID_PARAMETER", "参数无效：type")
        found.append((part.text("type"), need(part, "account"), part.text("name")))
    if not found:
        raise Refusal("40004", "ACQ.INVALID_PARAMETER", "参数无效：receiver_list")
    return found


def _wanted(world: World, item: Mapping[str, Any], *, is_async: bool) -> Share:
    part = Ask("", dict(item), {}, "")
    account, kind = need(part, "trans_in"), part.text("trans_in_type") or "userId"
    kept = world.state.document(NAME, f"relation/{kind}/{account}")
    if kept is None or not kept[0]:
        raise Refusal("40004", "ACQ.ROYALTY_RECEIVER_INVALID", "分账收款方未绑定")
    state = "PROCESSING" if is_async else "SUCCESS"
    return Share(account, kind, amount_of(part, "amount"), state)


def _check_shares(trade: Trade, wanted: int) -> None:
    if trade.state != "paid" or trade.extra.get("share_finished"):
        raise Refusal("40004", "ACQ.TRADE_STATUS_ERROR", "交易状态不合法")
    left = trade.amount - trades.given_back(trade) - int(trade.extra.get("shared", 0))
    if wanted > left:
        raise Refusal("40004", "ACQ.ALLOC_AMOUNT_VALIDATE_ERROR", "分账金额校验错误")


def _take_back(world: World, trade: Trade, account: str, amount: int) -> None:
    for split in _splits(world, trade.number):
        for index, share in enumerate(split.shares):
            left = share.amount - share.taken_back
            if share.account == account and share.state == "SUCCESS" and amount <= left:
                shares = list(split.shares)
                shares[index] = structs.replace(share, taken_back=share.taken_back + amount)
                _put(world, structs.replace(split, shares=tuple(shares)))
                now, kind = world.clock.now(), "退分账"
                note(world, Move(split.settle_no, split.number, kind, now, account, amount, kind))
                return
    raise Refusal("40004", "ACQ.REFUND_CHARGE_ERROR", "退分账金额超限")


def _told(world: World, split: Split) -> dict[str, Any]:
    seller = world.keys[NAME].shown["seller_id"]
    details = [
        {
            "operation_type": "transfer",
            "execute_dt": plain(split.at),
            "trans_out": seller,
            "trans_out_type": "userId",
            "trans_in": one.account,
            "trans_in_type": one.kind,
            "amount": yuan(one.amount),
            "state": one.state,
            "detail_id": f"{split.settle_no}{index:04d}",
            **({"error_code": one.error, "error_desc": "分账余额不足"} if one.error else {}),
        }
        for index, one in enumerate(split.shares)
    ]
    return {
        "out_request_no": split.number,
        "operation_dt": plain(split.at),
        "royalty_detail_list": details,
    }


def _remember(world: World, kind: str, account: str, mark: bytes) -> None:
    world.state.put_document(NAME, f"relation/{kind}/{account}", mark, world.clock.now())


def _put(world: World, split: Split) -> None:
    now = world.clock.now()
    world.state.put_document(NAME, split.name, msgspec.json.encode(split), now)
    names = _names(world, split.trade_number)
    if split.number not in names:
        kept = msgspec.json.encode([*names, split.number])
        world.state.put_document(NAME, f"splits/{split.trade_number}", kept, now)


def _names(world: World, trade_number: str) -> list[str]:
    kept = world.state.document(NAME, f"splits/{trade_number}")
    return [] if kept is None else msgspec.json.decode(kept[0], type=list[str])


def _splits(world: World, trade_number: str) -> list[Split]:
    found = [_split(world, trade_number, number) for number in _names(world, trade_number)]
    return [split for split in found if split is not None]


def _split(world: World, trade_number: str, number: str) -> Split | None:
    kept = world.state.document(NAME, f"split/{trade_number}/{number}")
    return None if kept is None else msgspec.json.decode(kept[0], type=Split)
