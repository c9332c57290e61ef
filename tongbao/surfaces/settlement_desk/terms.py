"""Settlement terms and holds: what counts for a merchant, what counted, and what is proposed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

import msgspec
from msgspec.structs import asdict

from tongbao.clearing.settlement.closing import hold_back
from tongbao.clearing.settlement_terms import terms as desk
from tongbao.clearing.settlement_terms.model import (
    Counts,
    PaysBy,
    SettlementHoldInvalid,
    SettlementTermsInvalid,
    TermFigures,
)
from tongbao.clearing.settlement_terms.queries import (
    agreed_with,
    holds_of_merchant,
    terms_of_merchant,
)
from tongbao.clearing.settlement_terms.terms import LIFT_HOLD, SET_TERMS, NewTerms
from tongbao.controls.approvals.queries import open_approval
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.parties.identity.model import Permission
from tongbao.parties.merchants.queries import list_merchants, merchant_with_id
from tongbao.surfaces.operator_console.visit import PREFIX, Route, Visit, mode_of
from tongbao.surfaces.page_kit.replies import Reply, redirect

ROWS: Final = 50
HOLD: Final = "shd"


async def show_all(visit: Visit) -> Reply:
    """Return merchants, newest first, with what counts for each today in one mode."""
    db, query = visit.desk.db, visit.request.query
    mode = mode_of(query.get("mode")) or Mode.LIVE
    page = await list_merchants(db, cursor=query.get("cursor"), limit=ROWS)
    agreed = await agreed_with(db, mode, page.items)
    today = business_date(db.clock.now())
    older = urlencode({"mode": mode, "cursor": page.next_cursor or ""})
    facts = {
        "rows": [
            (show("mch", each.id), each, agreed.figures(each.id, today), each.id in agreed.terms,
             len(agreed.holds.get(each.id, ())))
            for each in page.items
        ],
        "mode": mode,
        "older": f"{PREFIX}/settlement-terms?{older}" if page.next_cursor else None,
    }  # fmt: skip
    return await visit.page("settlement_terms.html", facts)


async def show_one(visit: Visit) -> Reply:
    """Return every version agreed with a merchant, its holds, and what is proposed.

    Raises:
        UnknownId, MerchantNotFound, SettlementTermsInvalid
    """
    db = visit.desk.db
    merchant_id, mode, own = _place(visit)
    merchant = await merchant_with_id(db, merchant_id)
    today = business_date(db.clock.now())
    figures = (await agreed_with(db, mode, [merchant])).figures(merchant_id, today)
    holds = [
        (show(HOLD, each.id), each, await open_approval(db, LIFT_HOLD, show(HOLD, each.id)))
        for each in await holds_of_merchant(db, merchant_id, mode)
    ]
    facts = {
        "merchant": merchant,
        "mode": mode,
        "own": own,
        "figures": asdict(figures),
        "versions": await terms_of_merchant(db, merchant_id, mode),
        "holds": holds,
        "waiting": await open_approval(db, SET_TERMS, f"{show('mch', merchant_id)}/{mode}"),
        "today": today,
        "counts": list(Counts),
        "ways": list(PaysBy),
        "done": visit.request.query.get("done"),
    }
    return await visit.page("settlement_term.html", facts)


async def propose(visit: Visit) -> Reply:
    """Put new terms before other eyes.

    Raises:
        SettlementTermsInvalid, SettlementTermsPast, MerchantNotFound, ReasonTooShort,
        ApprovalWaiting
    """
    merchant_id, mode, _ = _place(visit)
    form = visit.request.form
    await merchant_with_id(visit.desk.db, merchant_id)
    wanted = NewTerms(merchant_id, mode, day_in(form), figures_in(form))
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        found = await desk.propose_terms(tx, wanted, reason=form.get("reason", ""))
    return redirect(f"{PREFIX}/inbox/{found.shown_id}?done=proposed")


async def hold(visit: Visit) -> Reply:
    """Keep money back from a merchant at once.

    Raises:
        SettlementHoldInvalid, MerchantNotFound
    """
    merchant_id, mode, own = _place(visit)
    form = visit.request.form
    merchant = await merchant_with_id(visit.desk.db, merchant_id)
    try:
        amount = int(form["amount"][:20]) if form.get("amount", "").strip() else None
        until = date.fromisoformat(form["until"]) if form.get("until") else None
    except ValueError:
        raise SettlementHoldInvalid from None
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        await hold_back(
            tx, merchant, mode, amount=amount, reason=form.get("reason", ""), until_day=until
        )
    return redirect(f"{own}?done=held")


async def lift(visit: Visit) -> Reply:
    """Put before other eyes that a hold is over.

    Raises:
        SettlementHoldNotFound, SettlementHoldLifted, ReasonTooShort, ApprovalWaiting
    """
    target = parse(HOLD, visit.params["hold_id"])
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        found = await desk.propose_lift(tx, target, reason=visit.request.form.get("reason", ""))
    return redirect(f"{PREFIX}/inbox/{found.shown_id}?done=proposed")


def figures_in(given: Mapping[str, str]) -> TermFigures:
    """Return the figures that texts name, each by its name; what is not named is as by default.

    Raises:
        SettlementTermsInvalid
    """
    names = TermFigures.__struct_fields__
    texts = {name: given[name].strip() for name in names if given.get(name, "").strip()}
    try:
        return msgspec.convert(texts, TermFigures, strict=False)
    except msgspec.ValidationError as fault:
        param = str(fault).rpartition("`")[0].rpartition("`")[2]
        raise SettlementTermsInvalid(param=param[:64]) from None


def day_in(given: Mapping[str, str]) -> date:
    """Return the day from which terms are to count.

    Raises:
        SettlementTermsInvalid
    """
    try:
        return date.fromisoformat(given.get("valid_from", ""))
    except ValueError:
        raise SettlementTermsInvalid(param="$.valid_from") from None


def _place(visit: Visit) -> tuple[UUID, Mode, str]:
    merchant_id, mode = parse("mch", visit.params["merchant_id"]), mode_of(visit.params["mode"])
    if mode is None:
        raise SettlementTermsInvalid(param="mode")
    return merchant_id, mode, f"{PREFIX}/settlement-terms/{show('mch', merchant_id)}/{mode}"


_VIEW, _ACT = Permission.VIEW, Permission.SETTLEMENT_ACT
_OWN: Final = "/settlement-terms/{merchant_id}/{mode}"
ROUTES: Final = (
    Route("GET", "/settlement-terms", show_all, _VIEW, is_licensed=True),
    Route("GET", _OWN, show_one, _VIEW, is_licensed=True),
    Route("POST", f"{_OWN}/propose", propose, _ACT, is_licensed=True),
    Route("POST", f"{_OWN}/hold", hold, _ACT, is_licensed=True),
    Route("POST", "/settlement-holds/{hold_id}/lift", lift, _ACT, is_licensed=True),
)
