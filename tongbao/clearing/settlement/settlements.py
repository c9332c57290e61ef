"""Settle one merchant: what there is so far (D+0), or a day, drawn and closed in one go.

A round over everybody is a batch (`clearing.settlement_batches`), which people may look at between
the two steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from tongbao.clearing.context import Clearing
from tongbao.clearing.payouts.model import PayoutFailed, PayoutReturned, PayoutSucceeded
from tongbao.clearing.settlement import _store as store
from tongbao.clearing.settlement.closing import close_drawn
from tongbao.clearing.settlement.drawing import Drawn, Wanted, draw
from tongbao.clearing.settlement.model import (
    AccountHeldBack,
    NothingPayable,
    QuickNotAgreed,
    Settlement,
    SettlementContended,
    SettlementInBatch,
    SettlementKind,
    SettlementState,
)
from tongbao.clearing.settlement_terms.queries import agreed_with
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Refusal
from tongbao.kernel.licence import Mode
from tongbao.ledger.chains import HistoryArchived
from tongbao.parties.merchants.model import Merchant

_TRIES_MAX: Final = 8


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
    return await settle_so_far(context, merchant, mode, currency)


async def settle_so_far(
    context: Clearing, merchant: Merchant, mode: Mode, currency: str
) -> Settlement:
    """Settle what there is so far, whatever is agreed: for the sandbox, or once that is checked.

    Raises:
        NothingPayable, AccountHeldBack, SettlementContended, SettlementInBatch
    """
    closed, _ = await settle(
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


async def settle(
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
