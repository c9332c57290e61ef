"""The suspense desk in the console: what lies there, where it may go, adjustments by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

from msgspec import Struct

from tongbao.clearing.suspense.desk import (
    late_refund,
    mode_of_book,
    propose_adjustment,
    propose_resolution,
    propose_stop,
)
from tongbao.clearing.suspense.items import SuspenseSum, item_now, open_items, suspense_sums
from tongbao.clearing.suspense.model import (
    ADJUSTABLE,
    ITEM_PREFIX,
    RESOLVE,
    STOP_REFUND,
    AdjustmentTerms,
    Home,
    Side,
    SuspenseItem,
)
from tongbao.controls.approvals.model import Approval
from tongbao.controls.approvals.queries import open_approval
from tongbao.kernel.errors import Invalid, NotFound
from tongbao.kernel.ids import new_id, parse, show
from tongbao.kernel.money import AmountMalformed, from_decimal_text
from tongbao.ledger.model import BOOK_MAX
from tongbao.ledger.rules.chart import CHART, OwnerKind
from tongbao.surfaces.four_eyes.inbox import permissions_of, proposed
from tongbao.surfaces.operator_console.visit import PREFIX as CONSOLE
from tongbao.surfaces.operator_console.visit import Visit
from tongbao.surfaces.page_kit.replies import Reply

ROWS: Final = 30
_OWNED: Final = {OwnerKind.MERCHANT: "mch", OwnerKind.CHANNEL_ACCOUNT: "chn"}


class SuspenseFormMalformed(Invalid):
    """A field of the form is empty or is not what it should be."""

    code = "console.suspense_form_malformed"
    advice = "Give a book, an amount such as 12.34, and the ids as the console shows them."
    advice_zh = "请填写账簿、金额（如 12.34）以及控制台所示的标识。"


class Line(Struct, frozen=True):
    """One item, and what is proposed about it."""

    item: SuspenseItem
    id: str
    mode: str
    origin: str | None
    asked: Approval | None
    refund: str | None  # by which it is on its way back, while it is


async def show_suspense(visit: Visit) -> Reply:
    """Return every suspense account, and the open items of one book.

    Raises:
        SuspenseFormMalformed, CursorInvalid, BalancesBehind, HistoryArchived
    """
    db, query = visit.desk.db, visit.request.query
    sums = await suspense_sums(db)
    book, currency = await book_shown(visit)
    page = await open_items(db, book, currency=currency, cursor=query.get("cursor"), limit=ROWS)
    given = {"book": str(book), "currency": currency, "cursor": page.next_cursor}
    newer = urlencode({name: value for name, value in given.items() if value})
    facts = {
        "sums": sums,
        "book": book,
        "currency": currency or "",
        "lines": [await _line(visit, each) for each in page.items],
        "newer": f"{CONSOLE}/suspense?{newer}" if page.next_cursor else None,
        "homes": list(Home),
        "kinds": sorted(ADJUSTABLE),
    }
    return await visit.page("suspense.html", facts)


async def book_shown(visit: Visit) -> tuple[int, str | None]:
    """Return the book whose items the page shows, and the currency if one was chosen.

    Raises:
        SuspenseFormMalformed
    """
    query = visit.request.query
    asked = query.get("book")
    book = _book(asked) if asked else _first(await suspense_sums(visit.desk.db))
    return book, query.get("currency", "")[:3] or None


async def propose_item(visit: Visit) -> Reply:
    """Propose where an item's money goes.

    Raises:
        SuspenseFormMalformed, SuspenseItemNotFound, SuspenseAmountWrong, SuspenseHomeWrong,
        SuspenseSpokenFor, PostingRefused, MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    form, params = visit.request.form, visit.params
    owner = parse(ITEM_PREFIX, params["item_id"])
    flow = visit.desk.flow
    item = await item_now(flow.db, _book(params["book"]), params["currency"], owner)
    try:
        home = Home(form.get("home", ""))
    except ValueError:
        raise SuspenseFormMalformed(param="home") from None
    approval = await propose_resolution(
        flow,
        item,
        _amount(form, item.currency),
        home,
        _owner(form.get("home_owner", ""), CHART[home.kind].owner),
        reason=form.get("reason", ""),
        actor=visit.operator.actor,
        may=permissions_of(visit),
    )
    return proposed(approval)


async def propose_no_refund(visit: Visit) -> Reply:
    """Propose that late money does not go back by itself any more.

    Raises:
        SuspenseFormMalformed, SuspenseItemNotFound, RefundNotStoppable, MakerNotAllowed,
        ReasonTooShort, ApprovalWaiting
    """
    params, flow = visit.params, visit.desk.flow
    owner = parse(ITEM_PREFIX, params["item_id"])
    item = await item_now(flow.db, _book(params["book"]), params["currency"], owner)
    approval = await propose_stop(
        flow,
        item,
        reason=visit.request.form.get("reason", ""),
        actor=visit.operator.actor,
        may=permissions_of(visit),
    )
    return proposed(approval)


async def propose_by_hand(visit: Visit) -> Reply:
    """Propose an adjustment.

    Raises:
        SuspenseFormMalformed, AdjustmentWrong, PostingRefused, MakerNotAllowed, ReasonTooShort
    """
    form = visit.request.form
    currency = form.get("currency", "").strip().upper()
    terms = AdjustmentTerms(
        new_id(),
        _book(form.get("book", "")),
        currency,
        _amount(form, currency),
        _side(form, "debit"),
        _side(form, "credit"),
    )
    approval = await propose_adjustment(
        visit.desk.flow,
        terms,
        reason=form.get("reason", ""),
        actor=visit.operator.actor,
        may=permissions_of(visit),
    )
    return proposed(approval)


async def _line(visit: Visit, item: SuspenseItem) -> Line:
    asked = await open_approval(visit.desk.db, RESOLVE, item.shown_id)
    origin = f"{CONSOLE}/payments/{show('pay', item.owner)}" if item.is_late_payment else None
    refund = await late_refund(visit.desk.db, item)
    refund_id = show("ref", refund.id) if refund is not None else None
    if refund_id is not None and asked is None:
        asked = await open_approval(visit.desk.db, STOP_REFUND, refund_id)
    return Line(item, item.shown_id, mode_of_book(item.book).value, origin, asked, refund_id)


def _first(sums: list[SuspenseSum]) -> int:
    """Return the first book with something in suspense, or the first of all."""
    return next((each.book for each in sums if each.items), sums[0].book if sums else 1)


def _book(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or not 0 < int(text[:9]) <= BOOK_MAX:
        raise SuspenseFormMalformed(param="book")
    return int(text)


def _amount(form: Mapping[str, str], currency: str) -> int:
    try:
        return from_decimal_text(form.get("amount", "").strip(), currency).amount
    except (AmountMalformed, Invalid):
        raise SuspenseFormMalformed(param="amount") from None


def _side(form: Mapping[str, str], name: str) -> Side:
    kind = form.get(name, "")
    if kind not in ADJUSTABLE:
        raise SuspenseFormMalformed(param=name)
    return Side(kind, _owner(form.get(f"{name}_owner", ""), CHART[kind].owner))


def _owner(text: str, kind: OwnerKind) -> UUID | None:
    """Return whose account is meant; the house's own have nobody.

    Raises:
        SuspenseFormMalformed
    """
    prefix = _OWNED.get(kind)
    if prefix is None:
        return None
    try:
        return parse(prefix, text.strip())
    except NotFound:
        raise SuspenseFormMalformed(param="owner") from None
