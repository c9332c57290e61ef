"""Restaurant tables, what their guests order, and reviews. No I/O.

    tab     open ──everything on it is paid, or the merchant closes it──► closed
    dish    ordered ► cooking ► ready ► served
               └───────┴─────────┴──► cancelled    while nobody has a bill for it

A bill is an order of the shop: for everything on the tab, or for what one guest ordered. A dish is
on one bill at most, and an unpaid bill that ends lets its dishes go.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final, Literal
from uuid import UUID

from msgspec import UNSET, Struct, UnsetType

from tongbao.kernel.errors import Conflict, NotFound, Overloaded, Rejected
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode

PREFIX: Final = "/table"
"""Where the pages of tables are."""
DISHES_MAX: Final = 200
"""Lines on one tab; the table's own CHECK says it again."""


class TableNotFound(NotFound):
    """The caller has no such table, or its code was given up."""

    code = "table.not_found"
    advice = "List the tables to find its id; a guest asks the staff for the code in use."
    advice_zh = "请通过桌台列表查找正确的标识；顾客请向店员索取有效的桌码。"


class TabNotFound(NotFound):
    """The caller has no such tab."""

    code = "tab.not_found"
    advice = "List the tabs to find its id."
    advice_zh = "请通过桌台账单列表查找正确的标识。"


class TabFull(Rejected):
    """A tab has as many dishes as it can."""

    code = "tab.full"
    advice = "Pay what was ordered, then go on."
    advice_zh = "本桌菜品已达上限，请先结账。"


class TabUnpaid(Conflict):
    """Somebody is about to pay a bill of this tab."""

    code = "tab.unpaid"
    advice = "Cancel the order that is being paid, or wait for its end."
    advice_zh = "本桌有账单正在支付，请先取消该订单或等待其结束。"


class NothingToPay(Conflict):
    """Everything that was ordered is paid or on a bill."""

    code = "tab.nothing_to_pay"
    advice = "Order something first, or pay the bill that is there."
    advice_zh = "没有待结账的菜品。"


class DishNotFound(NotFound):
    """The caller has no such dish."""

    code = "dish.not_found"
    advice = "List the dishes to find its id."
    advice_zh = "请通过菜品列表查找正确的标识。"


class DishCannotMove(Conflict):
    """A dish goes forward only, and is not cancelled once somebody has a bill for it."""

    code = "dish.cannot_move"
    advice = "Read the dish; refund what is paid and cannot be served."
    advice_zh = "菜品状态只能前进；已出账单的菜品不能取消，请改为退款。"


class TableBusy(Overloaded):
    """Others changed the tab all the time."""

    code = "table.busy"
    advice = "Try again."
    advice_zh = "操作过于频繁，请重试。"


class OrderReviewed(Conflict):
    """The order has its review."""

    code = "order.reviewed"
    advice = "One review for each order; the first one stands."
    advice_zh = "每个订单只能评价一次。"


class TabState(StrEnum):
    """Whether guests may order."""

    OPEN = "open"
    CLOSED = "closed"


class DishState(StrEnum):
    """Where a dish stands in the kitchen."""

    ORDERED = "ordered"
    COOKING = "cooking"
    READY = "ready"
    SERVED = "served"
    CANCELLED = "cancelled"


_FORWARD: Final = list(DishState)


class DiningTable(Struct, frozen=True):
    """One row of the table's table; knowing the token lets one order."""

    id: UUID
    merchant_id: UUID
    mode: Mode
    token: str
    name: str
    created_at: datetime
    revoked_at: datetime | None

    def __repr__(self) -> str:
        return f"DiningTable({self.id}, {self.name!r})"

    @property
    def path(self) -> str:
        """Where its page is."""
        return f"{PREFIX}/{self.token}"


class TableTab(Struct, frozen=True):
    """One row of the tab table."""

    id: UUID
    table_id: UUID
    merchant_id: UUID
    mode: Mode
    state: TabState
    dishes: int
    opened_at: datetime
    closed_at: datetime | None


class Dish(Struct, frozen=True):
    """One row of the dish table: a line of a kitchen ticket."""

    id: UUID
    tab_id: UUID
    merchant_id: UUID
    mode: Mode
    sku_id: UUID
    code: str
    name: str
    price: int
    currency: str
    quantity: int
    counted: bool
    wishes: str
    guest_id: UUID
    guest_name: str
    state: DishState
    order_id: UUID | None
    paid: bool
    created_at: datetime

    @property
    def amount(self) -> int:
        """What it comes to."""
        return self.price * self.quantity

    def check_moves_to(self, state: DishState) -> None:
        """Raise unless the kitchen may move it there.

        Raises:
            DishCannotMove
        """
        is_over = self.state in {DishState.SERVED, DishState.CANCELLED}
        is_back = _FORWARD.index(state) <= _FORWARD.index(self.state)
        if is_over or is_back or (state is DishState.CANCELLED and self.order_id is not None):
            raise DishCannotMove(status=self.state)


class Guest(Struct, frozen=True):
    """Who sits at a table, as far as their phone says."""

    id: UUID
    name: str


class OrderReview(Struct, frozen=True):
    """One row of the review table."""

    order_id: UUID
    merchant_id: UUID
    mode: Mode
    stars: int
    words: str
    created_at: datetime


class TableView(Struct, frozen=True, omit_defaults=True):
    """A table as its merchant sees it; ``url`` is what its printed code says."""

    id: str
    object: Literal["dining_table"]
    mode: Mode
    name: str
    status: Literal["active", "revoked"]
    url: str
    image_url: str
    created_at: datetime


class DishView(Struct, frozen=True, omit_defaults=True):
    """A line of a kitchen ticket; with ``order_id`` it is on a bill."""

    id: str
    object: Literal["dish"]
    tab_id: str
    code: str
    name: str
    price: int
    currency: str
    quantity: int
    wishes: str
    guest_id: str
    guest_name: str
    status: DishState
    is_paid: bool
    created_at: datetime
    order_id: str | UnsetType = UNSET


class TabView(Struct, frozen=True, omit_defaults=True):
    """A tab with its dishes."""

    id: str
    object: Literal["tab"]
    mode: Mode
    table_id: str
    status: TabState
    opened_at: datetime
    dishes: list[DishView] = []
    closed_at: datetime | UnsetType = UNSET


class ReviewView(Struct, frozen=True):
    """What a customer thinks of a paid order."""

    object: Literal["order_review"]
    order_id: str
    stars: int
    words: str
    created_at: datetime


def view_table(table: DiningTable, public_url: str) -> TableView:
    """Return a table as the API shows it."""
    return TableView(
        id=show("tbl", table.id),
        object="dining_table",
        mode=table.mode,
        name=table.name,
        status="active" if table.revoked_at is None else "revoked",
        url=f"{public_url}{table.path}",
        image_url=f"{public_url}{table.path}/code.svg",
        created_at=table.created_at,
    )


def view_dish(dish: Dish) -> DishView:
    """Return a dish as the API shows it."""
    return DishView(
        id=show("dsh", dish.id),
        object="dish",
        tab_id=show("tab", dish.tab_id),
        code=dish.code,
        name=dish.name,
        price=dish.price,
        currency=dish.currency,
        quantity=dish.quantity,
        wishes=dish.wishes,
        guest_id=show("gst", dish.guest_id),
        guest_name=dish.guest_name,
        status=dish.state,
        is_paid=dish.paid,
        created_at=dish.created_at,
        order_id=show("ord", dish.order_id) if dish.order_id else UNSET,
    )


def view_tab(tab: TableTab, dishes: list[Dish]) -> TabView:
    """Return a tab as the API shows it."""
    return TabView(
        id=show("tab", tab.id),
        object="tab",
        mode=tab.mode,
        table_id=show("tbl", tab.table_id),
        status=tab.state,
        opened_at=tab.opened_at,
        dishes=[view_dish(each) for each in dishes],
        closed_at=tab.closed_at or UNSET,
    )


def view_review(review: OrderReview) -> ReviewView:
    """Return a review as the API shows it."""
    order_id = show("ord", review.order_id)
    return ReviewView("order_review", order_id, review.stars, review.words, review.created_at)
