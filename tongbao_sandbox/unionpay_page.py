"""The page UnionPay shows a customer whose browser brought a merchant's form."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Final

from tongbao.kernel.money import Money
from tongbao_sandbox.model import Trade
from tongbao_sandbox.seam import Reply, Request, World
from tongbao_sandbox.unionpay_trade import PAGE
from tongbao_sandbox.unionpay_trade import find as find_trade
from tongbao_sandbox.unionpay_wire import message, page, self_posting

PATH: Final = "/page/"


def find(world: World, request: Request) -> Trade | None:
    """Return the order a page is about, closed if its time has run out."""
    trade = world.state.trade_by_token(PAGE + request.path.removeprefix(PATH))
    return None if trade is None else find_trade(world, trade.number)


def shown(trade: Trade, origin: str) -> Reply:
    """Return the page on which the customer decides; a failed try is told and may be repeated."""
    amount = Money(trade.amount, trade.currency).decimal_text()
    code = trade.extra["code"]
    failed = f"<p>{escape(message(code))}</p>" if code else ""
    action = f"{origin}{PATH}{trade.token.removeprefix(PAGE)}"
    return page(
        200,
        f"<h1>¥{amount}</h1><p>{escape(trade.subject)}</p>{failed}"
        f'<form method="post" action="{escape(action)}">'
        '<button name="action" value="pay">确认付款</button> '
        '<button name="action" value="decline">用余额不足的卡付款</button> '
        '<button name="action" value="abandon">暂不付款</button></form>',
    )


def left(trade: Trade, carried: Mapping[str, str], origin: str) -> Reply:
    """Return what the customer sees after deciding: the way back, or the page again."""
    if trade.state != "paid":
        return shown(trade, origin)
    if not trade.extra["return_url"]:
        return page(200, "<h1>付款成功</h1>")
    return self_posting(trade.extra["return_url"], carried)
