"""The routes by which an agent sees what it earned, and of which fees."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from litestar import get
from litestar.handlers import HTTPRouteHandler
from msgspec import Struct

from tongbao.clearing.commissions.commissions import (
    LINES_PAGE,
    CommissionNotFound,
    commissions_of_caller,
    lines_of_caller,
)
from tongbao.clearing.commissions.model import Commission
from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Licence, Mode
from tongbao.kernel.pages import CursorInvalid, Page, decode_cursor, encode_cursor

PREFIX: Final = "com"


class CommissionView(Struct, frozen=True):
    """What the agent got of one merchant's fees in one run, in minor units.

    ``posted`` went to its balance; what was less than nothing is in ``carried_out``, for the next.
    """

    id: str
    object: Literal["commission"]
    mode: Mode
    currency: str
    earned: int
    carried_in: int
    posted: int
    carried_out: int
    created_at: datetime


class CommissionLineView(Struct, frozen=True):
    """One fee: the agent's share of it in millionths, what of that it passed on, what it got."""

    fee: int
    share_ppm: int
    passed_ppm: int
    amount: int
    at: datetime


@get("/v1/commissions", opt=needs("commissions:read"))
async def get_commissions(
    db: Db, caller: Caller, *, cursor: str | None = None, limit: int | None = None
) -> Page[CommissionView]:
    """Return what the caller earned as an agent, newest first."""
    page = await commissions_of_caller(db, caller, cursor=cursor, limit=limit)
    return Page([view_commission(each) for each in page.items], page.next_cursor)


@get(
    "/v1/commissions/{commission_id:str}/lines",
    opt=needs("commissions:read", refuses=[CommissionNotFound]),
)
async def get_commission_lines(
    commission_id: str, db: Db, caller: Caller, *, cursor: str | None = None
) -> Page[CommissionLineView]:
    """Return the fees that a commission comes from, in the order of the book."""
    _, lines = await lines_of_caller(
        db, caller, parse(PREFIX, commission_id), after_seq=_after(cursor)
    )
    views = [
        CommissionLineView(each.fee, each.share_ppm, each.passed_ppm, each.amount, each.at)
        for each in lines
    ]
    return Page(views, encode_cursor(lines[-1].seq) if len(lines) == LINES_PAGE else None)


def routes(licence: Licence) -> list[HTTPRouteHandler]:
    """Return the routes under a licence: an aggregator keeps no fees to share."""
    return [get_commissions, get_commission_lines] if licence.may_hold_funds else []


def _after(cursor: str | None) -> int:
    if cursor is None:
        return 0
    try:
        [seq] = decode_cursor(cursor)
        after = int(seq)
    except ValueError:
        raise CursorInvalid(param="cursor") from None
    if not 0 <= after < 1 << 62:
        raise CursorInvalid(param="cursor")
    return after


def view_commission(commission: Commission) -> CommissionView:
    """Return a commission as its agent may see it."""
    return CommissionView(
        id=show(PREFIX, commission.id),
        object="commission",
        mode=commission.mode,
        currency=commission.currency,
        earned=commission.earned,
        carried_in=commission.carried_in,
        posted=commission.posted,
        carried_out=commission.carried_out,
        created_at=commission.created_at,
    )
