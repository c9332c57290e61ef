"""What Alipay does with a trade: collect, ask, give back, undo, close; and whom it tells.

    (no trade) ── precreate ─► offered ── scan ─► waiting ─► paid ─► (fully refunded: TRADE_CLOSED)
    (no trade) ── page ──────► offered    create ─► waiting
    (no trade) ── pay ───────► asking  ─────────────────────┘  │
                                  └── close, cancel, time ─► closed    cancel ─► reversed

A precreated order is no trade until somebody scans it: asked about, Alipay knows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from msgspec import structs

from tongbao_sandbox import alipay_certs
from tongbao_sandbox.alipay_bill import yuan
from tongbao_sandbox.alipay_crypto import compact, load_private_key
from tongbao_sandbox.alipay_wire import Ask, Refusal
from tongbao_sandbox.clock import china, plain
from tongbao_sandbox.model import Fault, Refund, Trade
from tongbao_sandbox.seam import World

NAME: Final = "alipay"
OPEN: Final = frozenset({"waiting", "asking"})
HELD_AT_MOST: Final = timedelta(days=30)
"""How long a payment is kept in processing that nobody decides."""


def status_of(trade: Trade) -> str:
    """Return Alipay's word for the trade's state; all money given back reads as closed."""
    if trade.state == "paid":
        return "TRADE_CLOSED" if given_back(trade) == trade.amount else "TRADE_SUCCESS"
    return "WAIT_BUYER_PAY" if trade.state in OPEN else "TRADE_CLOSED"


def given_back(trade: Trade) -> int:
    """Return what has really gone back; ``refunded`` also counts what is still on its way."""
    return int(trade.extra.get("given_back", 0))


def find(world: World, ask: Ask) -> Trade | None:
    """Return the order the request names, closed if its time has run out; ``trade_no`` wins."""
    if ref := ask.text("trade_no"):
        trade = world.state.trade_by_ref(NAME, ref)
    else:
        trade = world.state.trade(NAME, ask.text("out_trade_no"))
    if trade is None:
        return None
    now = world.clock.now()
    if trade.state in OPEN and trade.expires_at <= now:
        return world.state.put_trade(structs.replace(trade, state="closed", closed_at=now))
    return trade


def find_existing(world: World, ask: Ask) -> Trade:
    """Return the trade the request names; an order nobody scanned does not exist.

    Raises:
        Refusal
    """
    trade = find(world, ask)
    if trade is None or not trade.ref:
        raise Refusal("40004", "ACQ.TRADE_NOT_EXIST", "交易不存在")
    return trade


def create(world: World, trade: Trade, buyer: str = "") -> Trade:
    """Give an order its trade number and its buyer: now Alipay knows it."""
    serial = world.state.next_number("alipay.trade")
    now = world.clock.now()
    return world.state.put_trade(
        structs.replace(
            trade,
            state="waiting",
            ref=f"{china(now):%Y%m%d}22001{serial:015d}",
            payer=buyer or f"2088722{serial % 10**9:09d}",
            created_at=now,
        )
    )


def collect(world: World, trade: Trade, at: datetime) -> Trade:
    """Take the buyer's money and tell the merchant; an order only offered becomes a trade."""
    if not trade.ref:
        trade = create(world, trade)
    trade = structs.replace(trade, state="paid", paid_at=at, closed_at=None)
    world.state.put_trade(trade)
    notify(world, trade, "payment", trade.number)
    return trade


def hold(world: World, trade: Trade, fault: Fault) -> Trade:
    """Keep a payment in processing until somebody decides it, or for the fault's seconds."""
    now = world.clock.now()
    if not trade.ref:
        trade = create(world, trade)
    if fault.argument:
        when = now + timedelta(seconds=fault.seconds())
        world.courier.at(NAME, "pay", trade.number, when=when)
    held = {**trade.extra, "held": True}
    return world.state.put_trade(
        structs.replace(trade, state="asking", expires_at=now + HELD_AT_MOST, extra=held)
    )


def close(world: World, trade: Trade) -> Trade:
    """Make the trade unpayable. A trade closed unpaid by the merchant is not notified."""
    return world.state.put_trade(
        structs.replace(trade, state="closed", closed_at=world.clock.now())
    )


def new_refund(
    world: World,
    trade: Trade,
    number: str,
    amount: int,
    reason: str,
    *,
    backs: Sequence[Mapping[str, str]] = (),
) -> tuple[Trade, Refund]:
    """Record a refund that has been asked for and has not happened yet."""
    refund = Refund(
        channel=NAME,
        trade_number=trade.number,
        number=number,
        state="processing",
        amount=amount,
        currency=trade.currency,
        created_at=world.clock.now(),
        reason=reason,
        extra={"backs": list(backs)} if backs else {},
    )
    trade = structs.replace(trade, refunded=trade.refunded + amount)
    return world.state.put_trade(trade), world.state.put_refund(refund)


def drop_refund(world: World, trade: Trade, refund: Refund) -> Trade:
    """Let a refund fail: nothing moves, and its number may be used again."""
    world.state.put_refund(structs.replace(refund, state="abnormal"))
    return world.state.put_trade(structs.replace(trade, refunded=trade.refunded - refund.amount))


def give_back(world: World, trade: Trade, refund: Refund) -> Trade:
    """Move a refund's money and tell the merchant; the trade closes with its last fen."""
    now = world.clock.now()
    done = world.state.put_refund(structs.replace(refund, state="done", done_at=now))
    total = given_back(trade) + refund.amount
    trade = structs.replace(trade, extra={**trade.extra, "given_back": total})
    if total == trade.amount:
        trade = structs.replace(trade, closed_at=now)
    world.state.put_trade(trade)
    notify(world, trade, "refund", done.number, done)
    return trade


def paid_fields(trade: Trade) -> dict[str, Any]:
    """Return the amounts and the buyer as query and pay show them."""
    is_paid = trade.paid_at is not None
    amount = yuan(trade.amount if is_paid else 0)
    fields: dict[str, Any] = {
        "trade_no": trade.ref,
        "out_trade_no": trade.number,
        "buyer_logon_id": logon_of(trade.payer),
        "total_amount": yuan(trade.amount),
        "receipt_amount": amount,
        "buyer_pay_amount": amount,
        "invoice_amount": amount,
        "point_amount": "0.00",
        "buyer_user_id": trade.payer,
    }
    if is_paid:
        fields["fund_bill_list"] = [{"amount": amount, "fund_channel": "ALIPAYACCOUNT"}]
    return fields


def logon_of(payer: str) -> str:
    """Return the buyer's account as Alipay shows it, mostly stars."""
    return f"159****{payer[-4:]}"


def signing_key(world: World, *, by_certificate: bool) -> tuple[RSAPrivateKey, str]:
    """Return what Alipay signs with for a merchant in this mode, and its certificate's number.

    A bare public key has none, and does not change with the certificates.
    """
    if not by_certificate:
        return load_private_key(world.keys[NAME].kept["private_key_pem"]), ""
    signer = alipay_certs.signer(world)
    return load_private_key(signer.private_key_pem), signer.number


def new_notice_number(world: World) -> str:
    """Return the id of one more notification."""
    now = china(world.clock.now())
    return f"{now:%Y%m%d}00222{now:%H%M%S}{world.state.next_number('alipay.notify'):015d}"


def seller_of(world: World, ask: Ask) -> str:
    """Return the sub-merchant an order is for, who must have been taken on; empty for none.

    Raises:
        Refusal
    """
    told = ask.biz.get("sub_merchant")
    if told is None:
        return ""
    number = str(told.get("merchant_id", "")) if isinstance(told, dict) else ""
    if world.state.document(NAME, f"smid/{number}") is None:
        raise Refusal("40004", "ACQ.INVALID_PARAMETER", "二级商户不存在")
    if not ask.biz.get("settle_info"):
        raise Refusal("40004", "ACQ.INVALID_PARAMETER", "直付通交易须传入settle_info")
    return number


def notify(
    world: World, trade: Trade, kind: str, number: str, refund: Refund | None = None
) -> None:
    """Send what became of the trade to its ``notify_url``, if the order named one."""
    if not trade.notify_url or trade.paid_at is None:
        return
    now, shown = world.clock.now(), world.keys[NAME].shown
    amount = yuan(trade.amount)
    fields = {
        "notify_type": "trade_status_sync",
        "notify_id": new_notice_number(world),
        "app_id": shown["app_id"],
        "auth_app_id": shown["app_id"],
        "seller_id": trade.extra.get("seller") or shown["seller_id"],
        "charset": "utf-8",
        "version": "1.0",
        "trade_no": trade.ref,
        "out_trade_no": trade.number,
        "buyer_id": trade.payer,
        "trade_status": status_of(trade),
        "subject": trade.subject,
        "total_amount": amount,
        "receipt_amount": amount,
        "invoice_amount": amount,
        "buyer_pay_amount": amount,
        "point_amount": "0.00",
        "fund_bill_list": compact_list([{"amount": amount, "fundChannel": "ALIPAYACCOUNT"}]),
        "gmt_create": plain(trade.created_at),
        "gmt_payment": plain(trade.paid_at),
    }
    _, serial = signing_key(world, by_certificate=bool(trade.extra.get("by_certificate")))
    if serial:
        fields["alipay_cert_sn"] = serial
    if trade.extra.get("passback_params"):
        fields["passback_params"] = trade.extra["passback_params"]
    if refund is not None and refund.done_at is not None:
        fields["out_biz_no"] = refund.number
        fields["refund_fee"] = yuan(given_back(trade))
        fields["gmt_refund"] = f"{plain(refund.done_at)}.{refund.done_at.microsecond // 1000:03d}"
    if status_of(trade) == "TRADE_CLOSED":
        fields["gmt_close"] = plain(trade.closed_at or now)
    world.courier.post(NAME, kind, number, url=trade.notify_url, content=fields)


def tell_application(
    world: World, kind: str, number: str, method: str, content: Mapping[str, Any]
) -> None:
    """Send a message to the application's own gateway, when the merchant has set one up."""
    now, shown = world.clock.now(), world.keys[NAME].shown
    fields = {
        "notify_id": new_notice_number(world),
        "utc_timestamp": str(int(now.timestamp() * 1000)),
        "msg_method": method,
        "app_id": shown["app_id"],
        "version": "1.1",
        "charset": "UTF-8",
        "biz_content": compact(content),
    }
    world.courier.post(
        NAME, kind, number, url=str(world.setting("alipay.app_gateway", "")), content=fields
    )


def compact_list(items: list[dict[str, str]]) -> str:
    """Return a list as JSON text, as it stands inside a notification's form field."""
    return "[" + ",".join(compact(item) for item in items) + "]"


def expiry(ask: Ask, now: datetime, default: timedelta) -> datetime:
    """Return when the order stops being payable: ``90m``, ``2h``, ``1d``, ``1c``, or a moment.

    Raises:
        Refusal
    """
    if at := ask.text("time_expire"):
        try:
            moment = datetime.fromisoformat(f"{at}+08:00")
        except ValueError:
            raise Refusal("40004", "ACQ.INVALID_PARAMETER", "参数无效：time_expire") from None
        return moment
    text = ask.text("qr_code_timeout_express") or ask.text("timeout_express")
    if not text:
        return now + default
    if text == "1c":
        return china(now).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    units = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
    count, unit = text[:-1], units.get(text[-1])
    if unit is None or not count.isdigit() or not timedelta() < unit * int(count[:6]):
        raise Refusal("40004", "ACQ.INVALID_PARAMETER", "参数无效：timeout_express")
    return now + unit * int(count[:6])
