"""Electronic accounts in the console: find one, see it masked, propose to freeze it or to lift."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Final, Literal

from tongbao.kernel.clock import day_bounds
from tongbao.kernel.errors import Invalid, Refusal
from tongbao.kernel.ids import base32, parse, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import from_decimal_text
from tongbao.parties.e_accounts import freezes, queries
from tongbao.parties.e_accounts.model import (
    PREFIX,
    Direction,
    EAccount,
    EAccountState,
)
from tongbao.parties.identity.model import Permission
from tongbao.parties.people.model import PREFIX as PERSON
from tongbao.parties.people.real_names import identity_row
from tongbao.payments.e_account_payments.model import Whereabouts
from tongbao.payments.e_account_payments.queries import payments_of_account, refunds_of
from tongbao.surfaces.four_eyes.inbox import permissions_of, proposed
from tongbao.surfaces.operator_console.visit import Route, Visit, mode_of
from tongbao.surfaces.page_kit.replies import Reply

_ROWS: Final = 50
STATES: Final = tuple(EAccountState)
FROZEN: Final = ("none", "in", "out", "all")
KINDS: Final = tuple(f"{firm}_account_{each}" for firm in ("bank", "payment") for each in (1, 2, 3))
PERIODS: Final = ("day", "year", "lifetime", "moment")
ORDERS: Final = ("top_up", "withdrawal", "transfer", "from_wallet", "to_wallet")
ORDER_STATES: Final = ("waiting", "done", "failed", "cancelled")
WHEREABOUTS: Final = tuple(Whereabouts)
FREEZES: Final = ("operational", "judicial")


class EAccountFormWrong(Invalid):
    """A field of the form, or of the address, says nothing that can be done."""

    code = "console.e_account_form_wrong"
    advice = "Choose one of the values offered."
    advice_zh = "请选择页面提供的选项。"


async def show_accounts(visit: Visit) -> Reply:
    """Return the accounts of a mode, the newest first; ``q`` is the id of a person or an account.

    Raises:
        EAccountFormWrong, UnknownId, EAccountNotFound, CursorInvalid
    """
    query = visit.request.query
    q, status = query.get("q", "").strip()[:64], query.get("status", "")
    mode, frozen = query.get("mode", "") or Mode.LIVE.value, query.get("frozen", "")
    if (status and status not in STATES) or frozen not in {"", "yes"}:
        raise EAccountFormWrong(param="status")
    db, wanted, next_cursor = visit.desk.db, mode_of(mode), None
    if wanted is None:
        raise EAccountFormWrong(param="mode")
    if q.startswith(f"{PREFIX}_"):
        rows = [await queries.account_with_id(db, parse(PREFIX, q))]
    else:
        page = await queries.find_accounts(
            db,
            wanted,
            person_id=parse(PERSON, q) if q else None,
            state=status or None,
            only_frozen=bool(frozen),
            cursor=query.get("cursor"),
            limit=_ROWS,
        )
        rows, next_cursor = page.items, page.next_cursor
    facts = {
        "rows": [(each, show(PERSON, each.person_id)) for each in rows],
        "states": STATES,
        "q": q,
        "status": status,
        "mode": mode,
        "frozen": frozen,
        "is_empty": not (q or status or frozen),
        "next_cursor": next_cursor,
    }
    return await visit.page("e_accounts.html", facts)


async def show_account(visit: Visit) -> Reply:
    """Return one account: limits, freezes, orders and movements; its person is masked.

    Raises:
        UnknownId, EAccountNotFound
    """
    db, account = visit.desk.db, await _account(visit)
    orders = await queries.orders_of_account(db, account, cursor=None, limit=20)
    legs = await queries.legs_of(db, orders.items)
    lines = await queries.statement_of(db, account, cursor=None, limit=20)
    paid = await payments_of_account(db, account, cursor=None, limit=20)
    backs = await refunds_of(db, paid.items)
    facts: dict[str, Any] = {
        "id": account.shown_id,
        "account": account,
        "person": show(PERSON, account.person_id),
        "identity": await identity_row(db, account.person_id),
        "limits": await queries.limits_of_account(db, account, db.clock.now()),
        "freezes": [
            (freezes.shown_freeze(each.freeze), each.freeze, each.keeps)
            for each in freezes.queued(await queries.freezes_of(db, account), account.balance)
        ],
        "orders": [(each, base32(each.id), legs.get(each.id)) for each in orders.items],
        "lines": [(queries.shown_reference(each), each) for each in lines.items],
        "payments": [
            (show("pay", each.payment_id), each, backs[each.payment_id]) for each in paid.items
        ],
        "directions": tuple(Direction),
        "kinds": FREEZES,
    }
    return await visit.page("e_account.html", facts)


async def propose_freeze(visit: Visit) -> Reply:
    """Put a freeze before other eyes.

    Raises:
        UnknownId, EAccountNotFound, EAccountFormWrong, DocumentWrong, FreezeWrong,
        EAccountStateWrong, MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    form, account = visit.request.form, await _account(visit)
    kind, direction = form.get("kind", ""), form.get("direction", "")
    if direction not in tuple(Direction):
        raise EAccountFormWrong(param="direction")
    terms = freezes.FreezeTerms(
        account.shown_id,
        account.mode,
        "judicial" if _kind(kind) == "judicial" else "operational",
        Direction(direction),
        form.get("document", "").strip(),
        _amount(form.get("amount", ""), account),
        _day(form.get("from", ""), 0),
        _day(form.get("until", ""), 1),
    )
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        approval = await freezes.propose_freeze(
            tx, account, terms, reason=form.get("reason", ""), may=permissions_of(visit)
        )
    return proposed(approval)


async def propose_lift(visit: Visit) -> Reply:
    """Put the end of one freeze before other eyes.

    Raises:
        UnknownId, EAccountNotFound, DocumentWrong, FreezeUnknown, MakerNotAllowed,
        ReasonTooShort, ApprovalWaiting
    """
    form, account = visit.request.form, await _account(visit)
    terms = freezes.LiftTerms(
        account.shown_id,
        account.mode,
        form.get("freeze", "")[:64],
        form.get("document", "").strip(),
    )
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        approval = await freezes.propose_lift(
            tx, account, terms, reason=form.get("reason", ""), may=permissions_of(visit)
        )
    return proposed(approval)


_VIEW: Final = Permission.VIEW
_ACT: Final = Permission.PEOPLE_ACT
_AT: Final = "/e_accounts/{account_id}"
ROUTES: Final = (
    Route("GET", "/e_accounts", show_accounts, _VIEW, is_licensed=True),
    Route("GET", _AT, show_account, _VIEW, is_licensed=True),
    Route("POST", f"{_AT}/freeze", propose_freeze, _ACT, is_licensed=True),
    Route("POST", f"{_AT}/lift", propose_lift, _ACT, is_licensed=True),
)


async def _account(visit: Visit) -> EAccount:
    wanted = parse(PREFIX, visit.params["account_id"])
    return await queries.account_with_id(visit.desk.db, wanted)


def _amount(text: str, account: EAccount) -> int | None:
    """Return what is to be kept, in minor units; nothing written is everything."""
    if not text.strip():
        return None
    try:
        return from_decimal_text(text.strip(), account.currency).amount
    except Refusal:
        raise EAccountFormWrong(param="amount") from None


def _day(text: str, end: Literal[0, 1]) -> datetime | None:
    """Return the beginning of a day of Shanghai, or its end; None where none is named."""
    if not text.strip():
        return None
    try:
        return day_bounds(date.fromisoformat(text.strip()))[end]
    except (ValueError, OverflowError):
        raise EAccountFormWrong(param="from" if end == 0 else "until") from None


def _kind(text: str) -> str:
    if text not in FREEZES:
        raise EAccountFormWrong(param="kind")
    return text
