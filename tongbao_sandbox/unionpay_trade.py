"""What UnionPay does with a transaction: take, set aside, complete, undo, give back; and tell.

    (form, QR, tn)  waiting ── pay ─► paid        waiting ── time ─► closed
    (payment code)  asking  ── pay ─► paid | failed
    paid 01 ── 31, same day ─► reversed           paid 02 ── 03 ─► captured | ── 32 ─► reversed
    paid 03 ── 33, same day ─► reversed           paid 01, 03 ── 04 ─► refunds

Each is a transaction of its own with its own number, and is found by its number and its time.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import Any, Final

from msgspec import structs

from tongbao.kernel.clock import business_date
from tongbao_sandbox.clock import china
from tongbao_sandbox.model import Refund, Trade, TradeMode
from tongbao_sandbox.seam import World
from tongbao_sandbox.unionpay_crypto import NAME
from tongbao_sandbox.unionpay_wire import DONE, Ask, Refusal, message, moment, month_to_second

PAGE: Final = "unionpay-page/"
OPEN: Final = frozenset({"waiting", "asking"})
REFUND_AFTER_S: Final = 1.0
DUES: Final = "000601"
MODES: Final[dict[tuple[str, str, str], TradeMode]] = {
    ("frontTransReq.do", "01", "01"): "web",
    ("frontTransReq.do", "02", "01"): "web",
    ("appTransReq.do", "01", "01"): "app",
    ("appTransReq.do", "02", "01"): "app",
    ("backTransReq.do", "01", "07"): "qr",
    ("backTransReq.do", "13", "08"): "qr",
    ("backTransReq.do", "02", "05"): "qr",
    ("backTransReq.do", "01", "06"): "payment_code",
    ("backTransReq.do", "02", "04"): "payment_code",
}
"""Path, type and subtype → how the customer meets it."""


def new_order(world: World, ask: Ask, mode: TradeMode) -> tuple[Trade, bool]:
    """Record an order, or return the one it repeats; whether it is new.

    Raises:
        Refusal
    """
    known = find(world, ask.text("orderId"))
    if known is not None:
        same = ("txnTime", "txnType", "txnSubType", "txnAmt")
        is_same = all(known.extra["asked"].get(name) == ask.text(name) for name in same)
        repeats = world.setting("unionpay.repeat", "same") == "same"
        if not (is_same and repeats and known.state == "waiting"):
            raise Refusal("12")
        return known, False
    if _refund(world, ask.text("orderId")) is not None:
        raise Refusal("12")
    _check_dues(ask)
    now = world.clock.now()
    expires = moment(ask.text("payTimeout")) if ask.text("payTimeout") else None
    if expires is not None and expires <= now:
        raise Refusal("39")
    serial = world.state.next_number("unionpay.trade")
    trade = Trade(
        channel=NAME,
        number=ask.text("orderId"),
        mode=mode,
        state="asking" if mode == "payment_code" else "waiting",
        amount=int(ask.text("txnAmt")),
        currency="CNY",
        subject=ask.text("orderDesc"),
        created_at=now,
        expires_at=expires or now + timedelta(minutes=15),
        ref=_reference(world),
        token=_token(ask, mode, serial),
        payer=f"6216261000000{serial % 10**6:06d}",
        notify_url=ask.text("backUrl"),
        extra={
            "asked": _kept(ask),
            "code": "",
            "opened": False,
            "return_url": ask.text("frontUrl"),
        },
    )
    return world.state.put_trade(trade), True


def find(world: World, number: str) -> Trade | None:
    """Return the transaction with this number, closed if its time has run out."""
    trade = world.state.trade(NAME, number)
    now = world.clock.now()
    if trade is not None and trade.state in OPEN and trade.expires_at <= now:
        late = {**trade.extra, "code": trade.extra["code"] or "69"}
        return world.state.put_trade(
            structs.replace(trade, state="closed", closed_at=now, extra=late)
        )
    return trade


def collect(world: World, trade: Trade, at: datetime) -> Trade:
    """Take the customer's money, or set it aside, and tell the merchant."""
    trade = world.state.put_trade(
        structs.replace(trade, state="paid", paid_at=at, extra={**trade.extra, "code": DONE})
    )
    notify(world, trade)
    return trade


def fail(world: World, trade: Trade, code: str, *, finally_: bool) -> Trade:
    """Let a try fail: nobody is told, and on a page the customer may try again."""
    state = "failed" if finally_ else trade.state
    return world.state.put_trade(
        structs.replace(trade, state=state, extra={**trade.extra, "code": code, "opened": True})
    )


def open_up(world: World, trade: Trade) -> Trade:
    """Let the customer look at the order: from now on UnionPay knows it."""
    return world.state.put_trade(structs.replace(trade, extra={**trade.extra, "opened": True}))


def follow(world: World, ask: Ask) -> Trade:
    """Complete an authorisation, or undo what another transaction did (03, 31, 32, 33).

    Raises:
        Refusal
    """
    kind = ask.text("txnType")
    if find(world, ask.text("orderId")) or _refund(world, ask.text("orderId")):
        raise Refusal("12")
    origin = _origin(world, ask, {"03": "02", "31": "01", "32": "02", "33": "03"}[kind])
    now = world.clock.now()
    amount, is_undoing = int(ask.text("txnAmt")), kind != "03"
    if amount > origin.amount or (is_undoing and amount != origin.amount):
        raise Refusal("36")
    if origin.refunded or origin.extra.get("captured") or origin.paid_at is None:
        raise Refusal("35")
    if kind in {"31", "33"} and business_date(now) != business_date(origin.paid_at):
        raise Refusal("35")
    changed: dict[str, Any] = {} if kind == "03" else {"state": "reversed", "closed_at": now}
    extra = {**origin.extra, "captured": kind == "03"}
    world.state.put_trade(structs.replace(origin, extra=extra, **changed))
    if kind == "33":  # what was completed is set aside again
        _set_aside_again(world, origin)
    made = structs.replace(
        origin,
        number=ask.text("orderId"),
        state="paid",
        amount=amount,
        created_at=now,
        paid_at=now,
        closed_at=None,
        ref=_reference(world),
        token="",
        notify_url=ask.text("backUrl"),
        refunded=0,
        extra={"asked": _kept(ask), "code": DONE, "opened": True, "origin": origin.number},
    )
    notify(world, world.state.put_trade(made))
    return made


def new_refund(world: World, ask: Ask) -> tuple[Trade, Refund]:
    """Record a refund that has been asked for and has not happened yet (04).

    Raises:
        Refusal
    """
    if find(world, ask.text("orderId")) or _refund(world, ask.text("orderId")):
        raise Refusal("12")
    trade = _origin(world, ask, "01", "03", "13")
    amount = int(ask.text("txnAmt"))
    if trade.refunded + amount > trade.amount:
        raise Refusal("36")
    refund = Refund(
        channel=NAME,
        trade_number=trade.number,
        number=ask.text("orderId"),
        state="processing",
        amount=amount,
        currency="CNY",
        created_at=world.clock.now(),
        ref=_reference(world),
        notify_url=ask.text("backUrl"),
        extra={"asked": _kept(ask), "code": "05", "origin": trade.number},
    )
    trade = structs.replace(trade, refunded=trade.refunded + amount)
    return world.state.put_trade(trade), world.state.put_refund(refund)


def give_back(world: World, refund: Refund) -> Refund:
    """Move a refund's money and tell the merchant."""
    now = world.clock.now()
    done = world.state.put_refund(
        structs.replace(refund, state="done", done_at=now, extra={**refund.extra, "code": DONE})
    )
    notify(world, done)
    return done


def drop_refund(world: World, refund: Refund, code: str) -> Refund:
    """Let a refund fail: nothing moves and nobody is told."""
    trade = world.state.trade(NAME, refund.trade_number)
    if trade is not None:
        world.state.put_trade(structs.replace(trade, refunded=trade.refunded - refund.amount))
    return world.state.put_refund(
        structs.replace(refund, state="abnormal", extra={**refund.extra, "code": code})
    )


def told(item: Trade | Refund) -> dict[str, str]:
    """Return what UnionPay says about a transaction, in a query's answer and in a notification."""
    at = (item.paid_at if isinstance(item, Trade) else item.done_at) or item.created_at
    asked = item.extra["asked"]
    names = ("version", "encoding", "bizType", "accessType", "merId", "orderId", "txnTime")
    return {
        **{name: asked[name] for name in (*names, "txnType", "txnSubType") if asked.get(name)},
        "txnAmt": str(item.amount),
        "currencyCode": "156",
        "queryId": item.ref,
        "traceNo": item.ref[-7:-1],
        "traceTime": month_to_second(at),
        "settleDate": f"{business_date(at):%m%d}",
        "settleAmt": str(item.amount),
        "settleCurrencyCode": "156",
    }


def standing(item: Trade | Refund) -> str | None:
    """Return the ``origRespCode`` of a transaction; None: UnionPay knows of none yet."""
    if isinstance(item, Refund):
        return str(item.extra["code"])
    if item.paid_at is not None:
        return DONE  # what was undone later happened all the same
    if item.mode != "payment_code" and not item.extra["opened"]:
        return None
    return str(item.extra["code"]) or "05"


def notify(world: World, item: Trade | Refund) -> None:
    """Send the notification of a success; failures are not told."""
    kind = "refund" if isinstance(item, Refund) else "payment"
    content = {**told(item), "respCode": DONE, "respMsg": message(DONE)}
    sent = {"fields": content, "method": item.extra["asked"]["signMethod"]}
    world.courier.post(NAME, kind, item.number, url=item.notify_url, content=sent)


def _check_dues(ask: Ask) -> None:
    """Refuse dues (缴费) that name no biller or terminal, and what is sold under their product."""
    if (ask.text("txnType") == "13") != (ask.text("bizType") == DUES):
        raise Refusal("32")
    if ask.text("bizType") == DUES and not (ask.text("bussCode") and ask.text("termInfo")):
        raise Refusal("13")


def _origin(world: World, ask: Ask, *kinds: str) -> Trade:
    trade = world.state.trade_by_ref(NAME, ask.text("origQryId"))
    if trade is None or trade.extra["asked"]["txnType"] not in kinds or trade.state != "paid":
        raise Refusal("35")
    return trade


def _set_aside_again(world: World, completion: Trade) -> None:
    authorisation = world.state.trade(NAME, completion.extra["origin"])
    if authorisation is not None:
        extra = {**authorisation.extra, "captured": False}
        world.state.put_trade(structs.replace(authorisation, extra=extra))


def _refund(world: World, number: str) -> Refund | None:
    found = world.state.refunds_numbered(NAME, number)
    return found[0] if found else None


def find_any(world: World, number: str) -> Trade | Refund | None:
    """Return whatever transaction has this number."""
    return find(world, number) or _refund(world, number)


def _reference(world: World) -> str:
    now = china(world.clock.now())
    return f"{now:%y%m%d%H%M%S}{world.state.next_number('unionpay.ref'):08d}8"


def _token(ask: Ask, mode: TradeMode, serial: int) -> str:
    match mode:
        case "qr":
            return f"https://qr.95516.com/00010000/{serial:014d}{ask.text('orderId')[-12:]}"
        case "app":
            return f"8{serial:020d}"
        case "web":
            return f"{PAGE}{secrets.token_hex(16)}"
        case _:
            return ""


def _kept(ask: Ask) -> dict[str, str]:
    dropped = {"signature", "qrNo"}
    return {name: value for name, value in ask.fields.items() if name not in dropped}
