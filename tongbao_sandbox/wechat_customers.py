"""Customers of WeChat Pay outside a scan: in a page of WeChat, in an app, in a phone's browser."""

from __future__ import annotations

from html import escape
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from tongbao_sandbox.model import Trade
from tongbao_sandbox.seam import Refused, Reply, Request
from tongbao_sandbox.wechat_desk import Desk, ids_of, transaction
from tongbao_sandbox.wechat_orders import Orders

PAGE: Final = "/h5"
"""Where an H5 order's link leads: a page with one button."""


class Customers:
    """Meets the orders as WeChat's own code does."""

    def __init__(self, desk: Desk, orders: Orders) -> None:
        self._desk = desk
        self._orders = orders

    def open(self, parameters: dict[str, str], action: str) -> dict[str, Any]:
        """Open WeChat with what a page or an app was handed, and pay there; for the control API.

        What the merchant did not sign, and for this app, does not open.
        """
        in_page = "paySign" in parameters
        names = _PAGE_NAMES if in_page else _APP_NAMES
        app_id, timestamp, nonce, prepaid, signature = (parameters[name] for name in names)
        vault = self._desk.vault
        if not vault.is_opening(app_id, timestamp, nonce, (prepaid, signature)):
            raise Refused("支付验证签名失败")
        trade = self._desk.world.state.trade_by_token(prepaid.removeprefix("prepay_id="))
        if trade is None or trade.mode != ("in_app" if in_page else "app"):
            raise Refused("no order has this prepay_id")
        if app_id not in {trade.extra.get(name) for name in ("appid", "sp_appid", "sub_appid")}:
            raise Refused("the order was placed for another app")
        if not in_page and parameters["partnerid"] not in ids_of(trade).values():
            raise Refused("the order is another merchant's")
        return transaction(self._orders.scanned(trade, action))

    def page(self, request: Request) -> Reply:
        """Show the H5 page, or pay in it and go back to where the merchant wants."""
        query = dict(parse_qsl(request.query))
        link = f"{request.origin}{PAGE}?prepay_id={query.get('prepay_id', '')}"
        link = f"{link}&package={query.get('package', '')}"
        trade = self._desk.world.state.trade_by_token(link)
        if trade is None or trade.mode != "h5":
            return _page(404, "<p>商家参数格式有误</p>")
        if request.method != "POST":
            return _page(200, _form(trade))
        try:
            if self._orders.scanned(trade, "pay").state != "paid":
                return _page(200, "<p>支付失败</p>")
        except Refused as refused:
            return _page(200, f"<p>{escape(str(refused))}</p>")
        back = query.get("redirect_url", "")
        if urlsplit(back).scheme not in {"http", "https"}:
            return _page(200, "<p>支付成功</p>")
        return Reply(303, (("Location", back), ("Cache-Control", "no-store")))


_PAGE_NAMES: Final = ("appId", "timeStamp", "nonceStr", "package", "paySign")
_APP_NAMES: Final = ("appid", "timestamp", "noncestr", "prepayid", "sign")


def _form(trade: Trade) -> str:
    fen = trade.amount
    return (
        f"<h1>{escape(trade.subject)}</h1><p>¥{fen // 100}.{fen % 100:02d}</p>"
        '<form method="post"><button>立即支付</button></form>'
    )


def _page(status: int, content: str) -> Reply:
    head = '<!doctype html><meta charset="utf-8"><title>微信支付</title>'
    headers = (("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "no-store"))
    return Reply(status, headers, f"{head}{content}".encode())
