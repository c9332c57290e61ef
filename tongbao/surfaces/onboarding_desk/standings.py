"""A merchant's standing: what it may do, since when and why, and a change proposed to another."""

from __future__ import annotations

from datetime import date

from tongbao.controls.approvals.queries import open_approval
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import parse, show
from tongbao.parties.identity.model import ROLES
from tongbao.parties.merchants.model import MerchantState
from tongbao.parties.merchants.queries import merchant_with_id, standings_of
from tongbao.parties.standing.standing import SET, propose_standing
from tongbao.surfaces.onboarding_desk.applications import FormIncomplete
from tongbao.surfaces.operator_console.visit import PREFIX, Visit
from tongbao.surfaces.page_kit.replies import Reply, redirect


async def show_standing(visit: Visit) -> Reply:
    """Return what a merchant may do and how that came about.

    Raises:
        UnknownId, MerchantNotFound
    """
    db = visit.desk.db
    merchant = await merchant_with_id(db, parse("mch", visit.params["merchant_id"]))
    shown = show("mch", merchant.id)
    choices = [each for each in MerchantState if each not in {merchant.state, MerchantState.GONE}]
    facts = {
        "merchant": merchant,
        "shown": shown,
        "own": f"{PREFIX}/merchants/{shown}/standing",
        "choices": [] if merchant.state is MerchantState.GONE else choices,
        "lines": await standings_of(db, merchant.id),
        "waiting": await open_approval(db, SET, shown),
        "today": business_date(db.clock.now()),
        "done": visit.request.query.get("done"),
    }
    return await visit.page("standing.html", facts)


async def propose_change(visit: Visit) -> Reply:
    """Propose another standing; another operator decides in the inbox.

    Raises:
        FormIncomplete, UnknownId, and what proposing raises
    """
    merchant_id, form = parse("mch", visit.params["merchant_id"]), visit.request.form
    try:
        after = MerchantState(form.get("after", ""))
        until = date.fromisoformat(form["until"]) if form.get("until") else None
    except ValueError:
        raise FormIncomplete(param="after") from None
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        await propose_standing(
            tx,
            merchant_id,
            after,
            reason=form.get("reason", ""),
            may=frozenset(ROLES[visit.operator.role]),
            reserve_until=until,
        )
    return redirect(f"{PREFIX}/merchants/{show('mch', merchant_id)}/standing?done=proposed")
