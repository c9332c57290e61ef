"""Settle a day for tests, without a batch: everybody's, or one merchant's."""

from __future__ import annotations

from datetime import date
from uuid import UUID

from tongbao.clearing.context import Clearing
from tongbao.clearing.settlement import settlements as room
from tongbao.clearing.settlement.drawing import Wanted
from tongbao.clearing.settlement.model import (
    AccountHeldBack,
    DayPassed,
    Settlement,
    SettlementInBatch,
    SettlementKind,
    SettlementNotDue,
)
from tongbao.clearing.settlement.queries import SettlementFilter, list_settlements
from tongbao.clearing.settlement_terms.model import due_from
from tongbao.clearing.settlement_terms.queries import agreed_with, working_days
from tongbao.kernel.clock import business_date
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import PAGE_MAX
from tongbao.parties.merchants.model import Merchant
from tongbao.parties.merchants.queries import list_merchants, merchant_with_id


async def settle_day(
    context: Clearing, day: date, *, merchant_id: UUID | None = None, mode: Mode | None = None
) -> list[Settlement]:
    """Close a day and return its settlements, those that were closed before too.

    Without a merchant it is everyone's day, and who may not be settled now is left out.
    """
    if merchant_id is None:
        merchants = list((await list_merchants(context.db, cursor=None, limit=PAGE_MAX)).items)
    else:
        merchants = [await merchant_with_id(context.db, merchant_id)]
    settled: list[Settlement] = []
    for merchant in merchants:
        for each in [mode] if mode else list(Mode):
            try:
                settled += await _settle_merchant(context, merchant, each, day)
            except (SettlementNotDue, DayPassed, AccountHeldBack, SettlementInBatch):
                if merchant_id is not None:
                    raise
    return settled


async def _settle_merchant(
    context: Clearing, merchant: Merchant, mode: Mode, day: date
) -> list[Settlement]:
    agreed = await agreed_with(context.db, mode, [merchant])
    due = due_from(agreed.figures(merchant.id, day), day, await working_days(context.db))
    if business_date(context.db.clock.now()) < due:
        raise SettlementNotDue
    _, drawn = await room.settle(context, merchant, Wanted(mode, day))
    wanted = SettlementFilter(merchant_id=merchant.id, mode=mode, day=day)
    page = await list_settlements(context.db, wanted, limit=PAGE_MAX)
    found = [each for each in page.items if each.kind is SettlementKind.DAY]
    if any(last.currency not in {each.currency for each in found} for last in drawn.closed):
        raise DayPassed
    return sorted(found, key=lambda each: each.currency)
