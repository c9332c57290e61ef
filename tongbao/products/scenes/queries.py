"""What merchants see of their tables, tabs, kitchen and reviews."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID

from tongbao.infra.db import Db, Tx
from tongbao.infra.web.caller import Caller
from tongbao.kernel.pages import Page, page_of, page_size
from tongbao.products.scenes import _store as store
from tongbao.products.scenes.model import (
    DiningTable,
    DishState,
    DishView,
    ReviewView,
    TableNotFound,
    TableTab,
    TabState,
    TabView,
    view_dish,
    view_review,
    view_tab,
)
from tongbao.products.shop.catalogue import id_of_cursor

V = TypeVar("V")


async def table_of_caller(on: Db | Tx, caller: Caller, table_id: UUID) -> DiningTable:
    """Return the merchant's table.

    Raises:
        TableNotFound: also for another merchant's, or another mode's.
    """
    table = await store.FIND_TABLE.first(on, table_id, caller.merchant_id, caller.mode)
    if table is None:
        raise TableNotFound
    return table


async def list_tables(
    on: Db | Tx, caller: Caller, *, cursor: str | None, limit: int | None
) -> Page[DiningTable]:
    """Return a page of the merchant's tables, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size, of = page_size(limit), (caller.merchant_id, caller.mode)
    rows = await store.LIST_TABLES.all(on, *of, id_of_cursor(cursor), size + 1)
    return _page(rows, size, lambda table: table)


async def list_tabs(
    on: Db | Tx,
    caller: Caller,
    *,
    status: TabState | None,
    cursor: str | None,
    limit: int | None,
) -> Page[TabView]:
    """Return a page of the merchant's tabs, newest first, without their dishes.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size, of = page_size(limit), (caller.merchant_id, caller.mode)
    rows = await store.LIST_TABS.all(on, *of, status, id_of_cursor(cursor), size + 1)
    return _page(rows, size, lambda tab: view_tab(tab, []))


async def tab_view(on: Db | Tx, tab: TableTab) -> TabView:
    """Return a tab with its dishes."""
    return view_tab(tab, await store.DISHES_OF.all(on, tab.id))


async def list_dishes(
    on: Db | Tx,
    caller: Caller,
    *,
    status: DishState | None,
    cursor: str | None,
    limit: int | None,
) -> Page[DishView]:
    """Return a page of the kitchen's tickets, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size, of = page_size(limit), (caller.merchant_id, caller.mode)
    rows = await store.LIST_DISHES.all(on, *of, status, id_of_cursor(cursor), size + 1)
    return _page(rows, size, view_dish)


async def list_reviews(
    on: Db | Tx, caller: Caller, *, cursor: str | None, limit: int | None
) -> Page[ReviewView]:
    """Return a page of the merchant's reviews, the newest order first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size, of = page_size(limit), (caller.merchant_id, caller.mode)
    rows = await store.LIST_REVIEWS.all(on, *of, id_of_cursor(cursor), size + 1)
    page = page_of(rows, size, lambda row: row.order_id)
    return Page([view_review(each) for each in page.items], page.next_cursor)


def _page(rows: Sequence[Any], size: int, view: Callable[[Any], V]) -> Page[V]:
    page: Page[Any] = page_of(list(rows), size, lambda row: row.id)
    return Page([view(each) for each in page.items], page.next_cursor)
