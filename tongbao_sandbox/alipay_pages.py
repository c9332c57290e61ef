"""Alipay's own cashier: pages a customer's browser opens with what the merchant signed.

    page.pay, wap.pay   a browser brings the signed form; it sees a page, pays, and is sent back to
                        ``return_url`` with signed fields
    agreement.page.sign the same for an agreement, which the customer signs or does not; or the
                        merchant's app or mini-program hands the signed text to Alipay's app
    app.pay             the merchant's app hands the signed text to Alipay's app; what comes back to
                        it is a signed object

The order is only offered until the customer pays or puts it off: before that no trade exists.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from html import escape
from typing import Any, Final
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit

from msgspec import structs

from tongbao_sandbox import alipay_agreements as agreements
from tongbao_sandbox import alipay_trade as trades
from tongbao_sandbox import magic
from tongbao_sandbox.alipay_bill import yuan
from tongbao_sandbox.alipay_crypto import compact, load_private_key, sign, signed_notify
from tongbao_sandbox.alipay_methods import check_again, new_trade
from tongbao_sandbox.alipay_trade import NAME
from tongbao_sandbox.alipay_wire import Ask, Refusal, amount_of, need, success
from tongbao_sandbox.clock import plain
from tongbao_sandbox.model import Trade, TradeMode
from tongbao_sandbox.seam import Refused, Reply, Request, World

PAGES: Final[Mapping[str, TradeMode]] = {
    "alipay.trade.page.pay": "web",
    "alipay.trade.wap.pay": "h5",
    "alipay.trade.app.pay": "app",
}
OPENED: Final = frozenset({*PAGES, agreements.SIGN})
"""What customers bring to Alipay, and merchants never send."""
PATH: Final = "/cashier/"
SIGN_PATH: Final = "/sign/"
_TOKEN: Final = "alipay-cashier/"  # noqa: S105 - a prefix
_IN_APP: Final = {"appId": "60000157", "appClearTop": "false", "startMultApp": "YES"}
"""What opens the signature of agreements in Alipay's app, beside the text to sign."""
_HTML: Final = (("content-type", "text/html; charset=utf-8"),)


def open_order(world: World, ask: Ask) -> Trade:
    """Record that a customer has come with this order; it is no trade yet.

    Raises:
        Refusal
    """
    mode = PAGES[ask.method]
    amount, subject = amount_of(ask, "total_amount"), need(ask, "subject")
    need(ask, "product_code")
    known = trades.find(world, ask)
    if known is not None:
        check_again(known, mode, amount)
        return _still_open(world, known)
    made = new_trade(world, ask, mode, amount, subject)
    kept = {"return_url": ask.params.get("return_url", ""), "method": ask.method}
    trade = structs.replace(
        made, token=f"{_TOKEN}{secrets.token_hex(16)}", extra={**made.extra, **kept}
    )
    return _still_open(world, world.state.put_trade(trade))


def show(world: World, ask: Ask) -> Reply:
    """Return the page of what a customer brought: something to pay, or to sign."""
    try:
        if ask.method == agreements.SIGN:
            return _signing_page(agreements.opened(world, ask))
        return _page(open_order(world, ask))
    except Refusal as refusal:
        return error_page(refusal)


def agree(world: World, request: Request) -> Reply:
    """Answer the button under an agreement, and send the customer back to the merchant."""
    agreement = agreements.find(world, request.path.removeprefix(SIGN_PATH))
    if agreement is None or agreement.state == "STOP":
        return Reply(404)
    if agreement.state == "TEMP":
        agreement = agreements.signed(world, agreement)
    if not agreement.return_url:
        return _html(200, "<h1>签约成功</h1>")
    return Reply(303, (("location", _returned_signed(world, agreement)),))


def _signing_page(agreement: agreements.Agreement) -> Reply:
    return _html(
        200,
        f"<h1>签约代扣</h1><p>{escape(agreement.product)} {escape(agreement.scene)}</p>"
        f'<form method="post" action="sign/{escape(agreement.number)}">'
        "<button>同意协议并签约</button></form>",
    )


def _page(trade: Trade) -> Reply:
    token = trade.token.removeprefix(_TOKEN)
    return _html(
        200,
        f"<h1>¥{yuan(trade.amount)}</h1><p>{escape(trade.subject)}</p>"
        f'<form method="post" action="cashier/{token}">'
        '<button name="action" value="pay">确认付款</button> '
        '<button name="action" value="abandon">暂不付款</button></form>',
    )


def error_page(refusal: Refusal) -> Reply:
    """Return what the customer sees of an order that cannot be paid."""
    shown = escape(f"{refusal.content['sub_msg']} ({refusal.content['sub_code']})")
    return _html(400, f"<h1>无法付款</h1><p>{shown}</p>")


def decide(world: World, request: Request) -> Reply:
    """Answer the page's buttons: pay and go back to the merchant, or put it off."""
    trade = world.state.trade_by_token(_TOKEN + request.path.removeprefix(PATH))
    if trade is None:
        return Reply(404)
    action = parse_qs(request.body.decode("latin-1")).get("action", [""])[0]
    try:
        if action == "pay" and trade.state != "paid":
            trade = _paid(world, _still_open(world, trade))
        elif action == "abandon" and trade.state == "offered":
            trade = trades.create(world, trade)
    except Refusal as refusal:
        return error_page(refusal)
    if trade.state != "paid":
        return _html(200, "<h1>处理中</h1>" if trade.extra.get("held") else "<h1>暂不付款</h1>")
    if not trade.extra["return_url"]:
        return _html(200, "<h1>付款成功</h1>")
    return Reply(303, (("location", returned(world, trade)),))


def _paid(world: World, trade: Trade) -> Trade:
    """Take the customer's money, unless there is too little or it is to stay in processing.

    Raises:
        Refusal
    """
    if magic.is_declined(trade.amount):
        raise Refusal("40004", "ACQ.BUYER_BALANCE_NOT_ENOUGH", "买家余额不足")
    only = frozenset({"processing"})
    fault = magic.fault_of(world, NAME, "pay", trade.number, trade.amount, only=only)
    if fault.name and trade.state != "paid":
        return trades.hold(world, trade, fault)
    return trades.collect(world, trade, world.clock.now())


def returned(world: World, trade: Trade) -> str:
    """Return where the customer's browser goes after paying: the merchant's page, signed for."""
    fields = {
        "out_trade_no": trade.number,
        "method": f"{trade.extra['method']}.return",
        "total_amount": yuan(trade.amount),
        "trade_no": trade.ref,
    }
    by_certificate = bool(trade.extra["by_certificate"])
    return _signed_address(world, trade.extra["return_url"], fields, by_certificate=by_certificate)


def _returned_signed(world: World, agreement: agreements.Agreement) -> str:
    fields = {**agreements.fields(agreement), "method": f"{agreements.SIGN}.return"}
    return _signed_address(
        world, agreement.return_url, fields, by_certificate=agreement.by_certificate
    )


def _signed_address(
    world: World, address: str, told: Mapping[str, str], *, by_certificate: bool
) -> str:
    shown = world.keys[NAME].shown
    fields = {
        **told,
        "charset": "utf-8",
        "auth_app_id": shown["app_id"],
        "version": "1.0",
        "app_id": shown["app_id"],
        "seller_id": shown["seller_id"],
        "timestamp": plain(world.clock.now()),
    }
    key, number = trades.signing_key(world, by_certificate=by_certificate)
    if number:
        fields["alipay_cert_sn"] = number
    joint = "&" if "?" in address else "?"
    return f"{address}{joint}{urlencode(signed_notify(key, fields))}"


def visit(world: World, ask: Ask, action: str) -> dict[str, Any]:
    """Play the customer who opens a signed address or app text, and what comes back of it.

    Raises:
        Refused
    """
    if action not in {"pay", "abandon"}:
        raise Refused("whoever opens a page can pay (or sign) or abandon")
    try:
        if ask.method == agreements.SIGN:
            return _visit_agreement(world, agreements.opened(world, ask), action)
        trade = open_order(world, ask)
        if action == "pay":
            trade = _paid(world, trade)
    except Refusal as refusal:
        raise Refused(refusal.content["sub_code"]) from None
    if action == "abandon" and trade.state == "offered":
        trade = trades.create(world, trade)
    told: dict[str, Any] = {"number": trade.number, "state": trade.state, "ref": trade.ref}
    if trade.state == "paid" and trade.extra["return_url"]:
        told["returned"] = returned(world, trade)
    if trade.mode == "app":
        told["result"] = _app_result(world, trade)
    return told


def _visit_agreement(world: World, agreement: agreements.Agreement, action: str) -> dict[str, Any]:
    if action == "pay":
        agreement = agreements.signed(world, agreement)
    told = {"number": agreement.number, "state": agreement.state, "ref": agreement.agreement_no}
    if agreement.return_url and action == "pay":
        told["returned"] = _returned_signed(world, agreement)
    return told


def carried(text: str) -> dict[str, str]:
    """Return the fields in a signed address, in an app's text, or in what opens a signature.

    Raises:
        Refused: Alipay's app opens nothing of the kind.
    """
    parts = urlsplit(text)
    if parts.scheme == "alipays":
        opened = dict(parse_qsl(parts.query))
        query = opened.pop("sign_params", "")
        if (parts.netloc, parts.path, opened) != ("platformapi", "/startapp", _IN_APP):
            raise Refused("Alipay's app opens another page")
    elif parts.scheme in {"http", "https"}:
        query = parts.query
    else:  # a mini-program escapes the whole text once more
        query = text if "=" in text else unquote(text)
    return dict(parse_qsl(query, keep_blank_values=True))


def _still_open(world: World, trade: Trade) -> Trade:
    if trade.expires_at <= world.clock.now():
        raise Refusal("40004", "ACQ.TRADE_HAS_CLOSE", "交易已经关闭")
    return trade


def _app_result(world: World, trade: Trade) -> dict[str, str]:
    """Return what Alipay's app hands back to the merchant's app."""
    if trade.state != "paid":
        return {"resultStatus": "6001", "result": "", "memo": "用户取消"}
    shown = world.keys[NAME].shown
    node = compact(
        success(
            {
                "app_id": shown["app_id"],
                "out_trade_no": trade.number,
                "seller_id": shown["seller_id"],
                "timestamp": plain(world.clock.now()),
                "total_amount": yuan(trade.amount),
                "trade_no": trade.ref,
            }
        )
    )
    key = load_private_key(world.keys[NAME].kept["private_key_pem"])
    text = (
        f'{{"alipay_trade_app_pay_response":{node},"sign":"{sign(key, node)}","sign_type":"RSA2"}}'
    )
    return {"resultStatus": "9000", "result": text, "memo": ""}


def _html(status: int, body: str) -> Reply:
    text = (
        '<!doctype html><html lang="zh"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>支付宝（沙箱）</title>'
        f"<main>{body}</main></html>"
    )
    return Reply(status, _HTML, text.encode())
