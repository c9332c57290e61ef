"""A merchant's prices in the console: every version, what a draft would cost, and proposing it."""

from __future__ import annotations

from typing import Final

import msgspec

from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Invalid
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.parties.identity.model import Permission
from tongbao.parties.merchants.queries import list_merchants, merchant_with_id
from tongbao.parties.price_plans.approving import (
    PriceDraft,
    PriceTerms,
    draft_from,
    line_words,
    propose_prices,
)
from tongbao.parties.price_plans.model import PriceLine, PricePlan, plan_at
from tongbao.parties.price_plans.queries import price_plans
from tongbao.payments.fees.verifying import preview_costs
from tongbao.surfaces.four_eyes.inbox import permissions_of, proposed
from tongbao.surfaces.operator_console.visit import Route, Visit, mode_of
from tongbao.surfaces.page_kit.replies import Reply

_ROWS: Final = 50
_DRAFT_MAX: Final = 40_000


class PriceDraftWrong(Invalid):
    """The prices in the form are not JSON of the form that prices have."""

    code = "console.price_draft_wrong"
    advice = "Write lines, currency and refund_returns_fee as the plan in force shows them."
    advice_zh = "请按现行价格方案的格式填写 lines、currency 与 refund_returns_fee。"


async def show_merchants(visit: Visit) -> Reply:
    """Return the merchants whose prices can be looked at, the newest first.

    Raises:
        CursorInvalid
    """
    cursor = visit.request.query.get("cursor")
    page = await list_merchants(visit.desk.db, cursor=cursor, limit=_ROWS)
    rows = [(show("mch", each.id), each) for each in page.items]
    facts = {"rows": rows, "cursor": cursor, "next_cursor": page.next_cursor}
    return await visit.page("prices.html", facts)


async def show_prices(visit: Visit) -> Reply:
    """Return a merchant's versions of prices in one mode.

    Raises:
        UnknownId, MerchantNotFound
    """
    return await _page(visit, mode_of(visit.request.query.get("mode")) or Mode.LIVE)


async def try_prices(visit: Visit) -> Reply:
    """Show what this month and the last cost, and would have cost under a draft.

    Raises:
        UnknownId, MerchantNotFound, PriceDraftWrong, PriceLinesInvalid
    """
    form = visit.request.form
    mode, text = mode_of(form.get("mode")) or Mode.LIVE, form.get("draft", "")
    today = business_date(visit.desk.db.clock.now())
    first = today.replace(day=1)
    before = first.fromordinal(first.toordinal() - 1).replace(day=1)
    whose = (parse("mch", visit.params["merchant_id"]), mode)
    costs = await preview_costs(visit.desk.db, whose, _draft(text), before, today)
    return await _page(visit, mode, draft=text, costs=sorted(costs.items()), since=before)


async def propose_them(visit: Visit) -> Reply:
    """Put a draft before other eyes.

    Raises:
        UnknownId, MerchantNotFound, PriceDraftWrong, PriceLinesInvalid, PriceInThePast,
        MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    form = visit.request.form
    terms = PriceTerms(mode_of(form.get("mode")) or Mode.LIVE, _draft(form.get("draft", "")))
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        approval = await propose_prices(
            tx,
            parse("mch", visit.params["merchant_id"]),
            terms,
            reason=form.get("reason", ""),
            may=permissions_of(visit),
        )
    return proposed(approval)


_ACT: Final = Permission.MERCHANTS_ACT
ROUTES: Final = (
    Route("GET", "/prices", show_merchants, Permission.VIEW),
    Route("GET", "/prices/{merchant_id}", show_prices, Permission.VIEW),
    Route("POST", "/prices/{merchant_id}/try", try_prices, _ACT),
    Route("POST", "/prices/{merchant_id}/propose", propose_them, _ACT),
)


async def _page(visit: Visit, mode: Mode, **more: object) -> Reply:
    db, merchant_id = visit.desk.db, parse("mch", visit.params["merchant_id"])
    merchant = await merchant_with_id(db, merchant_id)
    plans = await price_plans(db, merchant_id, mode)
    in_force = plan_at(plans, db.clock.now())
    facts = {
        "merchant": merchant,
        "merchant_id": show("mch", merchant_id),
        "mode": mode,
        "plans": [(plan, _lines(plan)) for plan in reversed(plans)],
        "in_force": in_force.version if in_force else None,
        "draft": _as_draft(in_force),
        "costs": None,
        **more,
    }
    return await visit.page("price_plans.html", facts)


def _lines(plan: PricePlan) -> list[tuple[PriceLine, str]]:
    return [(line, line_words(line)) for line in plan.lines]


def _as_draft(plan: PricePlan | None) -> str:
    """Return the plan in force as a draft to begin from."""
    draft = PriceDraft([]) if plan is None else PriceDraft(
        plan.lines, plan.currency, plan.refund_returns_fee
    )  # fmt: skip
    return msgspec.json.format(msgspec.json.encode(draft), indent=2).decode()


def _draft(text: str) -> PriceDraft:
    if len(text) > _DRAFT_MAX:
        raise PriceDraftWrong(param="draft")
    try:
        return draft_from(text.encode(), is_toml=False)
    except msgspec.DecodeError as error:
        raise PriceDraftWrong(param="draft", reason=str(error)[:200]) from error
