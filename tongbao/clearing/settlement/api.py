"""The routes of settlements and balances, which only a licensed firm has."""

from __future__ import annotations

from datetime import date
from typing import Literal

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from msgspec import Struct

from tongbao.clearing.context import Clearing
from tongbao.clearing.settlement import queries
from tongbao.clearing.settlement.model import (
    AccountHeldBack,
    NothingPayable,
    QuickNotAgreed,
    SettlementContended,
    SettlementInBatch,
    SettlementLineView,
    SettlementNotFound,
    SettlementView,
    view_line,
    view_settlement,
)
from tongbao.clearing.settlement.queries import CurrencyBalance, SettlementFilter
from tongbao.clearing.settlement.settlements import settle_quickly, settle_so_far
from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.kernel.ids import parse
from tongbao.kernel.licence import Licence, Mode
from tongbao.kernel.pages import Page
from tongbao.parties.merchants.queries import merchant_with_id


class BalanceView(Struct, frozen=True):
    """What the merchant is owed, by currency."""

    object: Literal["balance"]
    mode: Mode
    balances: list[CurrencyBalance]


@get("/v1/balance", opt=needs("balances:read"))
async def get_balance(db: Db, caller: Caller) -> BalanceView:
    """Return what the merchant is owed: available, held by refunds, on its way to the bank."""
    balances = await queries.balance_of_merchant(db, caller.book, caller.merchant_id)
    return BalanceView("balance", caller.mode, balances)


@get("/v1/settlements", opt=needs("settlements:read"))
async def list_settlements(
    db: Db,
    caller: Caller,
    *,
    day: date | None = None,
    currency: str | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[SettlementView]:
    """Return settlements, newest first, of one day or currency if asked."""
    wanted = SettlementFilter(
        merchant_id=caller.merchant_id, mode=caller.mode, day=day, currency=currency
    )
    page = await queries.list_settlements(db, wanted, cursor=cursor, limit=limit)
    return Page([view_settlement(each) for each in page.items], page.next_cursor)


@get(
    "/v1/settlements/{settlement_id:str}",
    opt=needs("settlements:read", refuses=[SettlementNotFound]),
)
async def get_settlement(settlement_id: str, db: Db, caller: Caller) -> SettlementView:
    """Return one settlement."""
    target = parse("set", settlement_id)
    return view_settlement(
        await queries.settlement_of_merchant(db, target, caller.merchant_id, caller.mode)
    )


@get(
    "/v1/settlements/{settlement_id:str}/lines",
    opt=needs("settlements:read", refuses=[SettlementNotFound]),
)
async def list_settlement_lines(
    settlement_id: str,
    db: Db,
    caller: Caller,
    *,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[SettlementLineView]:
    """Return every movement a settlement is made of, in the ledger's order."""
    target = parse("set", settlement_id)
    settlement = await queries.settlement_of_merchant(db, target, caller.merchant_id, caller.mode)
    page = await queries.lines_of_settlement(db, settlement, cursor=cursor, limit=limit)
    return Page([view_line(line) for line in page.items], page.next_cursor)


class SettleQuickly(Struct, frozen=True, forbid_unknown_fields=True):
    """Which balance is to be settled now."""

    currency: str = "CNY"


@post(
    "/v1/settlements/quick",
    status_code=200,
    opt=needs(
        "settlements:write",
        refuses=[
            QuickNotAgreed,
            NothingPayable,
            AccountHeldBack,
            SettlementInBatch,
            SettlementContended,
        ],
    ),
)
async def settle_now(
    data: SettleQuickly, db: Db, clearing: Clearing, caller: Caller
) -> SettlementView:
    """Settle what is there so far and pay it out at once, for the agreed fee (D+0).

    A repeat finds nothing payable until more has come in.
    """
    merchant = await merchant_with_id(db, caller.merchant_id)
    return view_settlement(
        await settle_quickly(clearing, merchant, caller.mode, data.currency.upper())
    )


@post(
    "/v1/test_helpers/settlements",
    status_code=200,
    opt=needs(
        "test_helpers:write",
        sandbox_only=True,
        refuses=[NothingPayable, AccountHeldBack, SettlementInBatch, SettlementContended],
        request_example=SettleQuickly(),
    ),
)
async def settle_in_sandbox(
    data: SettleQuickly, db: Db, clearing: Clearing, caller: Caller
) -> SettlementView:
    """Settle what a sandbox merchant has so far and pay it out, without waiting for its day.

    A repeat finds nothing payable until more has come in.
    """
    merchant = await merchant_with_id(db, caller.merchant_id)
    return view_settlement(
        await settle_so_far(clearing, merchant, caller.mode, data.currency.upper())
    )


ROUTES = [
    *(get_balance, list_settlements, get_settlement, list_settlement_lines),
    *(settle_now, settle_in_sandbox),
]


def routes(licence: Licence) -> list[HTTPRouteHandler]:
    """Return the routes a deployment has: none where funds may not be held."""
    return ROUTES if licence.may_hold_funds else []
