"""The routes of payouts, which only a licensed firm has."""

from __future__ import annotations

from litestar import get
from litestar.handlers import HTTPRouteHandler

from tongbao.clearing.payouts import queries
from tongbao.clearing.payouts.model import (
    PayoutNotFound,
    PayoutState,
    PayoutView,
    view_payout,
)
from tongbao.clearing.payouts.queries import PayoutFilter
from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.kernel.ids import parse
from tongbao.kernel.licence import Licence
from tongbao.kernel.pages import Page


@get("/v1/payouts", opt=needs("settlements:read"))
async def list_payouts(
    db: Db,
    caller: Caller,
    *,
    status: PayoutState | None = None,
    settlement_id: str | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[PayoutView]:
    """Return payouts, newest first, of one status or settlement if asked."""
    wanted = PayoutFilter(
        merchant_id=caller.merchant_id,
        mode=caller.mode,
        status=status,
        settlement_id=parse("set", settlement_id) if settlement_id else None,
    )
    page = await queries.list_payouts(db, wanted, cursor=cursor, limit=limit)
    return Page([view_payout(payout) for payout in page.items], page.next_cursor)


@get("/v1/payouts/{payout_id:str}", opt=needs("settlements:read", refuses=[PayoutNotFound]))
async def get_payout(payout_id: str, db: Db, caller: Caller) -> PayoutView:
    """Return one payout."""
    target = parse("pyo", payout_id)
    return view_payout(
        await queries.payout_of_merchant(db, target, caller.merchant_id, caller.mode)
    )


ROUTES = [list_payouts, get_payout]


def routes(licence: Licence) -> list[HTTPRouteHandler]:
    """Return the routes a deployment has: none where funds may not be held."""
    return ROUTES if licence.may_hold_funds else []
