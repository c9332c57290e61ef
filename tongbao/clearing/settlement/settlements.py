"""Close a merchant's day, or what there is so far (D+0): drawn and closed in one go.

A round over everybody is a batch (`clearing.settlement_batches`), which people may look at between
the two steps.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import date
from typing import Final
from uuid import UUID

from tongbao.clearing.context import Clearing, Progress, in_silence
from tongbao.clearing.payouts.model import PayoutFailed, PayoutReturned, PayoutSucceeded
from tongbao.clearing.settlement import _store as store
from tongbao.clearing.settlement.closing import close_drawn
from tongbao.clearing.settlement.drawing import Drawn, Wanted, draw
from tongbao.clearing.settlement.model import (
    AccountHeldBack,
    DayPassed,
    NothingPayable,
    QuickNotAgreed,
    Settlement,
    SettlementContended,
    SettlementInBatch,
    SettlementKind,
    SettlementNotDue,
    SettlementState,
)
from tongbao.clearing.settlement_terms.model import due_from
from tongbao.clearing.settlement_terms.queries import agreed_with, working_days
from tongbao.infra.db import Db
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Refusal
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import PAGE_MAX
from tongbao.ledger.chains import HistoryArchived
from tongbao.parties.merchants import queries as merchants
from tongbao.parties.merchants.model import Merchant

_TRIES_MAX: Final = 8


async def settle_day(
    context: Clearing,
    day: date,
    *,
    merchant_id: UUID | None = None,
    mode: Mode | None = None,
    on_progress: Progress = in_silence,
) -> list[Settlement]:
    """Close a day and return its settlements, those that were closed before too.

    Without a merchant it is everyone's day, and who may not be settled now is left out.

    Raises:
        MerchantNotFound, SettlementNotDue, DayPassed, AccountHeldBack, SettlementContended,
        SettlementInBatch, HistoryArchived
    """
    settled: list[Settlement] = []
    modes = [mode] if mode else list(Mode)
    async for merchant in all_merchants(context.db, merchant_id):
        for each in modes:
            try:
                settled += await settle_merchant(context, merchant, each, day)
            except (SettlementNotDue, DayPassed, AccountHeldBack, SettlementInBatch):
                if merchant_id is not None:
                    raise
        on_progress("settle", len(settled))
    return settled


async def settle_merchant(
    context: Clearing, merchant: Merchant, mode: Mode, day: date
) -> list[Settlement]:
    """Close one merchant's day in every currency it has; a day with nothing makes no settlement.

    Raises:
        SettlementNotDue, DayPassed, AccountHeldBack, SettlementContended, SettlementInBatch,
        HistoryArchived
    """
    await _check_due(context, merchant, mode, day)
    _, drawn = await _settle(context, merchant, Wanted(mode, day))
    found = await store.SETTLED_ON.all(context.db, merchant.book(mode), merchant.id, mode, day)
    currencies = {each.currency for each in found}
    for last in drawn.closed:
        if last.currency not in currencies:
            raise DayPassed(day=day.isoformat(), closed=last.day.isoformat())
    return found


async def settle_quickly(
    context: Clearing, merchant: Merchant, mode: Mode, currency: str
) -> Settlement:
    """Settle what there is so far and pay it out at once, for a fee (D+0).

    Raises:
        QuickNotAgreed, NothingPayable, AccountHeldBack, SettlementContended, SettlementInBatch
    """
    today = business_date(context.db.clock.now())
    agreed = await agreed_with(context.db, mode, [merchant])
    if not agreed.figures(merchant.id, today).quick_allowed:
        raise QuickNotAgreed
    closed, _ = await _settle(
        context, merchant, Wanted(mode, kind=SettlementKind.QUICK, currency=currency)
    )
    for settlement in closed:
        if settlement.kind is SettlementKind.QUICK and settlement.payable:
            return settlement
    raise NothingPayable


async def on_payout_ended(
    context: Clearing, event: PayoutSucceeded | PayoutFailed | PayoutReturned, _event_id: UUID
) -> None:
    """Mark a settlement as its payout ended; hearing of it twice marks it once.

    Events come in no order: a return is never overwritten by the success before it.
    """
    match event:
        case PayoutSucceeded():
            state = SettlementState.PAID
        case PayoutFailed():
            state = SettlementState.UNPAID
        case _:
            state = SettlementState.RETURNED
    await store.SET_STATE.run(context.db, event.book, event.settlement, state)


async def all_merchants(db: Db, merchant_id: UUID | None = None) -> AsyncIterator[Merchant]:
    """Yield every merchant, or one.

    Raises:
        MerchantNotFound
    """
    if merchant_id is not None:
        yield await merchants.merchant_with_id(db, merchant_id)
        return
    cursor = None
    while True:
        page = await merchants.list_merchants(db, cursor=cursor, limit=PAGE_MAX)
        for merchant in page.items:
            yield merchant
        if page.next_cursor is None:
            return
        cursor = page.next_cursor


async def _check_due(context: Clearing, merchant: Merchant, mode: Mode, day: date) -> None:
    agreed = await agreed_with(context.db, mode, [merchant])
    due = due_from(agreed.figures(merchant.id, day), day, await working_days(context.db))
    if business_date(context.db.clock.now()) < due:
        raise SettlementNotDue(day=day.isoformat(), due_from=due.isoformat())


async def _settle(
    context: Clearing, merchant: Merchant, wanted: Wanted
) -> tuple[list[Settlement], Drawn]:
    """Draw and close until nothing of the merchant is left drawn, by us or by who died.

    Raises:
        AccountHeldBack, SettlementContended, SettlementInBatch, HistoryArchived
    """
    closed: list[Settlement] = []
    for _ in range(_TRIES_MAX):
        drawn = await draw(context, [merchant], wanted)
        _raise_left_out(drawn)
        drafts = [*drawn.new, *drawn.waiting]
        if not drafts:
            return closed, drawn
        done = await close_drawn(context, drafts)
        if done.left_out:
            raise AccountHeldBack
        closed += done.now
        if done.now:
            context.flow.nudge()
        if not drawn.waiting and len(done.now) == len(drawn.new):
            return closed, drawn
    raise SettlementContended


def _raise_left_out(drawn: Drawn) -> None:
    """Raise what kept the merchant from being settled, but for days that are closed."""
    if any(each.batch_id is not None for each in drawn.waiting):
        raise SettlementInBatch
    refusals: Sequence[type[Refusal]] = (AccountHeldBack, HistoryArchived)
    for refusal in refusals:
        if refusal.code in drawn.left_out.values():
            raise refusal
