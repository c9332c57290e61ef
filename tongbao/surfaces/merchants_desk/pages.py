"""Merchants and agents: the list, one merchant with everything it runs, and who stands over whom.

Nothing is changed here: stores, people and shop are the merchant's own, by its keys; prices, terms
and standing have pages of their own, with other eyes.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import Page
from tongbao.parties.agents.agents import PREFIX as AGENT
from tongbao.parties.agents.agents import (
    agent_of_merchant,
    agent_with_id,
    chains_of,
    list_agents,
)
from tongbao.parties.agents.model import Agent
from tongbao.parties.identity.model import Permission
from tongbao.parties.merchants.model import Merchant
from tongbao.parties.merchants.queries import (
    channels_of,
    list_merchants,
    merchant_with_id,
    merchants_with_ids,
)
from tongbao.parties.staff.model import PREFIX as STAFF
from tongbao.parties.staff.staff import list_staff
from tongbao.parties.stores.model import PREFIX as STORE
from tongbao.parties.stores.stores import stores_of_merchant
from tongbao.products.scenes.queries import list_reviews, list_tables
from tongbao.products.shop.catalogue import list_products, skus_of
from tongbao.products.shop.model import OrderView, Product, Sku
from tongbao.products.shop.queries import OrderFilter, list_orders
from tongbao.surfaces.operator_console.visit import PREFIX, Route, Visit, mode_of
from tongbao.surfaces.page_kit.replies import Reply, redirect

ROWS: Final = 50
SHOWN: Final = 20
"""So many of each thing that a merchant has are shown, the newest; the rest by its keys."""
_NOBODY: Final = UUID(int=0)


class Shop(Struct, frozen=True):
    """What a merchant sells: products with their variants, the newest orders, tables, reviews."""

    products: list[tuple[Product, list[Sku]]]
    orders: Page[OrderView]
    tables: list[str]
    reviews: int
    stars: int  # of those reviews, together


async def show_merchants(visit: Visit) -> Reply:
    """Return the merchants, newest first, or the one that was searched for by its id.

    Raises:
        UnknownId, CursorInvalid
    """
    db, query = visit.desk.db, visit.request.query
    if asked := query.get("q", "").strip():
        return redirect(f"{PREFIX}/merchants/{show('mch', parse('mch', asked))}")
    page = await list_merchants(db, cursor=query.get("cursor"), limit=ROWS)
    older = page.next_cursor
    facts = {
        "rows": [(show("mch", each.id), each) for each in page.items],
        "older": f"{PREFIX}/merchants?cursor={older}" if older else None,
    }
    return await visit.page("merchants.html", facts)


async def show_merchant(visit: Visit) -> Reply:
    """Return one merchant in one mode with everything it runs.

    Raises:
        UnknownId, MerchantNotFound
    """
    db = visit.desk.db
    merchant = await merchant_with_id(db, parse("mch", visit.params["merchant_id"]))
    mode = mode_of(visit.request.query.get("mode")) or Mode.LIVE
    reader = _as_merchant(merchant, mode)
    shown = show("mch", merchant.id)
    stores = await stores_of_merchant(db, merchant.id, mode, cursor=None, limit=SHOWN)
    names = {each.id: each.name for each in stores.items}
    staff = await list_staff(db, reader, cursor=None, limit=SHOWN)
    channels = await channels_of(db, merchant.id, mode)
    facts = {
        "merchant": merchant,
        "shown": shown,
        "own": f"{PREFIX}/merchants/{shown}",
        "mode": mode,
        "modes": list(Mode),
        "channels": sorted((name, show("chn", account)) for name, account in channels.items()),
        "agents": await _chain(db, merchant, mode),
        "is_agent": await agent_of_merchant(db, merchant.id, mode),
        "stores": [(show(STORE, each.id), each) for each in stores.items],
        "more_stores": stores.next_cursor is not None,
        "staff": [(show(STAFF, each.id), each) for each in staff.items],
        "more_staff": staff.next_cursor is not None,
        "names": names,
        "shop": await _shop(db, reader),
    }
    return await visit.page("merchant.html", facts)


async def show_agents(visit: Visit) -> Reply:
    """Return the agents, newest first, with who stands over each.

    Raises:
        CursorInvalid
    """
    db, query = visit.desk.db, visit.request.query
    page = await list_agents(
        db, mode=mode_of(query.get("mode")), cursor=query.get("cursor"), limit=ROWS
    )
    over = {each.id: each.name for each in page.items}
    for each in page.items:
        if each.parent_id is not None and each.parent_id not in over:
            over[each.parent_id] = (await agent_with_id(db, each.parent_id)).name
    owners = await merchants_with_ids(db, [each.merchant_id for each in page.items])
    older = page.next_cursor
    facts = {
        "rows": [
            (show(AGENT, each.id), each, show("mch", each.merchant_id),
             owners[each.merchant_id].name, over[each.parent_id] if each.parent_id else None)
            for each in page.items
        ],
        "mode": query.get("mode", ""),
        "modes": list(Mode),
        "older": f"{PREFIX}/agents?mode={query.get('mode', '')}&cursor={older}" if older else None,
    }  # fmt: skip
    return await visit.page("agents.html", facts)


def _as_merchant(merchant: Merchant, mode: Mode) -> Caller:
    """Return whom the merchant's own lists are asked for; nobody can sign as this."""
    return Caller(_NOBODY, merchant.id, mode, merchant.book(mode), frozenset())


async def _chain(db: Db, merchant: Merchant, mode: Mode) -> list[tuple[str, Agent, int]]:
    """Return who has a share of the merchant's fees now, the nearest first."""
    promises = (await chains_of(db, mode)).chain(merchant.id, db.clock.now())
    agents = [await agent_with_id(db, each.agent_id) for each in promises]
    return [
        (show(AGENT, agent.id), agent, each.share_ppm - each.passed_ppm)
        for agent, each in zip(agents, promises, strict=True)
    ]


async def _shop(db: Db, reader: Caller) -> Shop:
    page = await list_products(db, reader, category=None, on_shelf=None, cursor=None, limit=SHOWN)
    skus = await skus_of(db, page.items) if page.items else {}
    tables = await list_tables(db, reader, cursor=None, limit=SHOWN)
    reviews = (await list_reviews(db, reader, cursor=None, limit=SHOWN)).items
    return Shop(
        products=[(each, skus[each.id]) for each in page.items],
        orders=await list_orders(db, reader, OrderFilter(), cursor=None, limit=SHOWN),
        tables=[each.name for each in tables.items if each.revoked_at is None],
        reviews=len(reviews),
        stars=sum(each.stars for each in reviews),
    )


ROUTES: Final = (
    Route("GET", "/merchants", show_merchants, Permission.VIEW),
    Route("GET", "/merchants/{merchant_id}", show_merchant, Permission.VIEW),
    Route("GET", "/agents", show_agents, Permission.VIEW),
)
