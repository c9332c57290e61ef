"""The pages of restaurant tables as an ASGI application, open to who knows a table's address.

Knowing it lets one order and see what is on that table's tab, no more; paying is the cashier's. A
guest is a random number in a cookie and the name they gave.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote
from uuid import UUID

from markupsafe import escape
from msgspec import Struct

from tongbao.infra.db import Db
from tongbao.infra.web.problem import (
    InternalError,
    RouteUnknown,
    TooManyRequests,
    status_of,
)
from tongbao.kernel.errors import Busy, Forbidden, Invalid, Refusal
from tongbao.kernel.ids import UnknownId, base32, derived_id, from_base32, new_id, parse, show
from tongbao.kernel.licence import Mode
from tongbao.parties.merchants import queries as merchants
from tongbao.products.scenes.model import PREFIX, DiningTable, Dish, Guest
from tongbao.products.scenes.tables import (
    bill_tab,
    order_at,
    order_dish,
    review_order,
    tab_at,
    table_of_token,
)
from tongbao.products.shop.catalogue import menu_of
from tongbao.products.shop.endings import Shop, cancel_order, look_at_order
from tongbao.products.shop.model import OrderNotFound, OrderState, ShopOrder
from tongbao.products.shop.orders import checkout_of
from tongbao.surfaces.cashier.desk import NO_MARKUP, SYMBOLS, Throttle
from tongbao.surfaces.page_answers import answer, nothing_there, refusal_facts
from tongbao.surfaces.page_kit.qr import draw
from tongbao.surfaces.page_kit.rendering import new_nonce, templates_of
from tongbao.surfaces.page_kit.replies import (
    Receive,
    Reply,
    Send,
    cookie,
    cookie_name,
    file_reply,
    language_cookie,
    page_policy,
    page_reply,
    redirect,
    send_reply,
)
from tongbao.surfaces.page_kit.requests import LANGUAGES, PageRequest, read_request

HERE: Final = Path(__file__).parent
COOKIE: Final = "guest"
COOKIE_KEPT_S: Final = 86_400
ACTS_PER_MINUTE: Final = 60
"""What one address may send by forms: a whole table may sit behind one."""
NAME_MAX: Final = 32
WISHES_MAX: Final = 100
WORDS_MAX: Final = 500
QUANTITIES: Final = range(1, 10)


class TableFormInvalid(Invalid):
    """A form of a table's page has a field that none of ours sends."""

    code = "table.form_invalid"
    advice = "Open the table's page again and use its own buttons."
    advice_zh = "请重新打开桌台页面，并使用页面自带的按钮。"


class TableFormFromElsewhere(Forbidden):
    """The form was sent by a page that is not ours."""

    code = "table.form_from_elsewhere"
    advice = "Scan the table's code and use the page's own buttons."
    advice_zh = "请扫描桌码，并使用页面自带的按钮。"


class Visit(Struct, frozen=True):
    """One request at a table."""

    app: TablesApp
    request: PageRequest
    table: DiningTable
    rest: str

    @property
    def db(self) -> Db:
        """The database."""
        return self.app.shop.db

    @property
    def guest(self) -> Guest | None:
        """Who sends it, if they gave a name before."""
        name = cookie_name(COOKIE, is_https=self.app.is_https)
        number, _, given = self.request.cookies.get(name, "").partition(".")
        called = unquote(given)[:NAME_MAX].strip()
        try:
            return Guest(from_base32(number), called) if called.isprintable() and called else None
        except UnknownId:
            return None

    def field(self, name: str, longest: int) -> str:
        """Return what a form has in a field, without the space around it.

        Raises:
            TableFormInvalid
        """
        text = self.request.form.get(name, "").strip()
        if len(text) > longest or not text.replace("\r", "").replace("\n", "").isprintable():
            raise TableFormInvalid(field=name)
        return text

    def page(self, template: str, facts: Mapping[str, object], *, status: int = 200) -> Reply:
        """Return a page, with the policy its forms keep to."""
        return self.app.page(self.request, template, {"table": self.table, **facts}, status=status)


class TablesApp:
    """An ASGI application to mount at ``/table``."""

    def __init__(self, shop: Shop, public_url: str) -> None:
        self.shop = shop
        self.public_url = public_url.rstrip("/")
        self.is_https = self.public_url.startswith("https://")
        self.templates = templates_of(PREFIX, HERE)
        self.acts = Throttle(ACTS_PER_MINUTE, 60.0)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request, refusals included, in the guest's language."""
        asked = read_request(scope)
        reply = await answer(
            asked,
            self.templates.assets,
            partial(self._act, asked),
            partial(self._refused, asked, scope["state"]["request_id"]),
            failure="table_page_failed",
        )
        await send_reply(reply, receive, send, is_https=self.is_https)

    async def _act(self, asked: PageRequest) -> Reply:
        first, _, rest = asked.path.removeprefix(PREFIX).strip("/").partition("/")
        if first == "language" and asked.method == "GET":
            return self._set_language(asked)
        view = ROUTES.get((asked.method, rest.partition("/")[0]))
        if view is None:
            raise nothing_there(verb for verb, path in ROUTES if path == rest.partition("/")[0])
        if asked.method != "GET":
            if not asked.is_same_origin(self.public_url):
                raise TableFormFromElsewhere
            if not self.acts.lets_through(asked.client_ip):
                raise TooManyRequests
        table = await table_of_token(self.shop.db, first)
        return await view(Visit(self, asked, table, rest))

    def page(
        self, asked: PageRequest, template: str, facts: Mapping[str, object], *, status: int = 200
    ) -> Reply:
        """Return a page, with the policy its forms keep to."""
        nonce = new_nonce()
        html = self.templates.render(
            template, asked.language, nonce=nonce, here=asked.path, symbols=SYMBOLS, **facts
        )
        return page_reply(html, status=status).also(page_policy(nonce, trusted_types=NO_MARKUP))

    def _set_language(self, asked: PageRequest) -> Reply:
        chosen, back = asked.query.get("to", ""), asked.query.get("next", "")
        is_ours = back.startswith(f"{PREFIX}/") and back.isascii() and back.isprintable()
        if not is_ours or "\\" in back or chosen not in LANGUAGES:
            raise RouteUnknown
        return redirect(back).also(language_cookie(chosen, is_https=self.is_https))

    def _refused(self, asked: PageRequest, request_id: str, refusal: Refusal) -> Reply:
        token = asked.path.removeprefix(PREFIX).strip("/").partition("/")[0]
        facts = {
            **refusal_facts(asked, refusal, request_id),
            "is_open_question": isinstance(refusal, InternalError | Busy),
            "back": f"{PREFIX}/{quote(token, safe='')}" if asked.method == "POST" else None,
            "table": None,
        }
        return self.page(asked, "refused.html", facts, status=status_of(type(refusal)))


async def show_table(visit: Visit) -> Reply:
    """Return the menu, what is on the tab, and the ways to pay."""
    merchant = await merchants.merchant_with_id(visit.db, visit.table.merchant_id)
    found = await tab_at(visit.db, visit.table)
    dishes = [] if found is None else found[1]
    guest = visit.guest
    mine = [dish for dish in dishes if guest is not None and dish.guest_id == guest.id]
    facts = {
        "payee": merchant.name,
        "guest": guest,
        "menu": await menu_of(visit.db, visit.table.merchant_id, visit.table.mode),
        "dishes": dishes,
        "unpaid": _unpaid(dishes),
        "mine": _unpaid(mine),
        "bills": list(dict.fromkeys(d.order_id for d in dishes if d.order_id and not d.paid)),
        "once": show("dsh", new_id()),
    }
    return visit.page("table.html", facts)


def _unpaid(dishes: list[Dish]) -> dict[str, int]:
    """Return what nobody has a bill for, by currency."""
    sums: dict[str, int] = {}
    for dish in dishes:
        if dish.order_id is None and dish.state != "cancelled":
            sums[dish.currency] = sums.get(dish.currency, 0) + dish.amount
    return sums


async def draw_code(visit: Visit) -> Reply:
    """Return the table's code as an SVG image, to be printed at any size."""
    symbol = draw(f"{visit.app.public_url}{visit.table.path}")
    size = symbol.size
    image = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}"'
        f' shape-rendering="crispEdges"><title>{escape(visit.table.name)}</title>'
        f'<path fill="#fff" d="M0,0h{size}v{size}h-{size}z"/><path d="{symbol.path}"/></svg>'
    )
    return file_reply(image.encode(), "image/svg+xml")


async def sit_down(visit: Visit) -> Reply:
    """Remember a guest's name, and give them a number for the evening.

    Raises:
        TableFormInvalid
    """
    name = visit.field("name", NAME_MAX)
    if not name:
        raise TableFormInvalid(field="name")
    known = visit.guest
    number = base32(known.id if known is not None else new_id())
    kept = f"{number}.{quote(name, safe='')}"
    is_https = visit.app.is_https
    return redirect(visit.table.path).also(
        cookie(COOKIE, kept, is_https=is_https, max_age_s=COOKIE_KEPT_S)
    )


async def add_dish(visit: Visit) -> Reply:
    """Put a dish on the tab; the same form sent twice does so once.

    Raises:
        TableFormInvalid, and what refuses a dish
    """
    guest, count = visit.guest, visit.request.form.get("quantity", "")
    if guest is None:
        return redirect(visit.table.path)
    if not (count.isascii() and count.isdecimal() and int(count[:3]) in QUANTITIES):
        raise TableFormInvalid(field="quantity")
    try:
        sku_id = parse("sku", visit.request.form.get("sku", ""))
        once = parse("dsh", visit.request.form.get("once", ""))
    except UnknownId:
        raise TableFormInvalid(field="sku") from None
    wanted = (sku_id, int(count))
    wishes, dish_id = visit.field("wishes", WISHES_MAX), derived_id(once, sku_id.hex)
    await order_dish(visit.app.shop, visit.table, guest, wanted, wishes=wishes, dish_id=dish_id)
    return redirect(f"{visit.table.path}#tab")


async def pay(visit: Visit) -> Reply:
    """Make the bill and lead to the cashier: one's own part, or all of it.

    Raises:
        NothingToPay, and what refuses a bill
    """
    found, guest = await tab_at(visit.db, visit.table), visit.guest
    if found is None or guest is None:
        return redirect(visit.table.path)
    only = guest.id if visit.request.form.get("who") == "me" else None
    order_id = await bill_tab(visit.app.shop, found[0], only, back=_back(visit))
    order = await look_at_order(visit.app.shop, order_id)
    if order.state is not OrderState.PLACED:
        return redirect(visit.table.path)
    checkout = await checkout_of(visit.app.shop, order)
    return redirect(checkout.path)


def _back(visit: Visit) -> Callable[[UUID], str] | None:
    """Return how a bill's own page is named; the cashier leads real payers to https alone."""
    if visit.table.mode is Mode.LIVE and not visit.app.is_https:
        return None
    return lambda order_id: (
        f"{visit.app.public_url}{visit.table.path}/order/{show('ord', order_id)}"
    )


async def _order(visit: Visit) -> ShopOrder:
    """Return the order of this table that the address names.

    Raises:
        OrderNotFound
    """
    try:
        order_id = parse("ord", visit.rest.partition("/")[2])
    except UnknownId:
        raise OrderNotFound from None
    order = await order_at(visit.db, visit.table, order_id)
    return await look_at_order(visit.app.shop, order.id)


async def show_order(visit: Visit) -> Reply:
    """Return how a bill stands: where to pay it, or how it was once it is paid."""
    order = await _order(visit)
    merchant = await merchants.merchant_with_id(visit.db, visit.table.merchant_id)
    url = None
    if order.state is OrderState.PLACED:
        url = (await checkout_of(visit.app.shop, order)).path
    return visit.page("order.html", {"payee": merchant.name, "order": order, "url": url})


async def let_bill_go(visit: Visit) -> Reply:
    """Call an unpaid bill off, so that it can be split or added to.

    Raises:
        OrderNotFound, OrderNotPlaced
    """
    await cancel_order(visit.app.shop, await _order(visit), "table")
    return redirect(visit.table.path)


async def keep_review(visit: Visit) -> Reply:
    """Keep what a guest thinks of a paid bill.

    Raises:
        OrderNotFound, TableFormInvalid, OrderNotPaid, OrderReviewed
    """
    order, stars = await _order(visit), visit.request.form.get("stars", "")
    if stars not in {"1", "2", "3", "4", "5"}:
        raise TableFormInvalid(field="stars")
    async with visit.db.begin("table") as tx:
        await review_order(tx, order, int(stars), visit.field("words", WORDS_MAX))
    merchant = await merchants.merchant_with_id(visit.db, visit.table.merchant_id)
    return visit.page("thanks.html", {"payee": merchant.name})


ROUTES: Final[Mapping[tuple[str, str], Callable[[Visit], Awaitable[Reply]]]] = {
    ("GET", ""): show_table,
    ("GET", "code.svg"): draw_code,
    ("GET", "order"): show_order,
    ("POST", "name"): sit_down,
    ("POST", "dishes"): add_dish,
    ("POST", "pay"): pay,
    ("POST", "let_go"): let_bill_go,
    ("POST", "review"): keep_review,
}
