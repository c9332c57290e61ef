"""Read what counts for merchants' settlement: the agreed figures and what is held back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from uuid import UUID

from msgspec import Struct

from tongbao.clearing.settlement_terms import _store as store
from tongbao.clearing.settlement_terms.model import (
    SettlementHold,
    SettlementHoldNotFound,
    SettlementTerm,
    TermFigures,
    Works,
    default_figures,
    in_force,
)
from tongbao.controls.calendar.queries import load_calendar
from tongbao.infra.db import Db, Tx, Write
from tongbao.kernel.licence import Mode
from tongbao.parties.merchants.model import Merchant


class Agreed(Struct, frozen=True):
    """What was agreed with some merchants, and what is held back from them."""

    terms: Mapping[UUID, Sequence[SettlementTerm]]
    holds: Mapping[UUID, Sequence[SettlementHold]]
    delays: Mapping[UUID, int]

    def figures(self, merchant_id: UUID, day: date) -> TermFigures:
        """Return what counts for a merchant's accounting day."""
        term = in_force(self.terms.get(merchant_id, ()), day)
        return default_figures(self.delays, merchant_id) if term is None else term.figures


async def agreed_with(on: Db | Tx, mode: Mode, merchants: Sequence[Merchant]) -> Agreed:
    """Return what counts for these merchants."""
    ids = [merchant.id for merchant in merchants]
    terms: dict[UUID, list[SettlementTerm]] = {}
    for term in await store.TERMS_OF.all(on, ids, mode):
        terms.setdefault(term.merchant_id, []).append(term)
    holds: dict[UUID, list[SettlementHold]] = {}
    for hold in await store.HOLDS_OF.all(on, ids, mode):
        holds.setdefault(hold.merchant_id, []).append(hold)
    return Agreed(terms, holds, {each.id: each.settlement_delay_days for each in merchants})


async def holds_on(on: Db | Tx, mode: Mode, merchant_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Return how many holds are on those of the merchants on whom there are any."""
    found = await store.HOLD_COUNTS.all(on, list(merchant_ids), mode)
    return {each.merchant_id: each.count for each in found}


def same_holds_write(merchant_id: UUID, mode: Mode, count: int, *, refusal: str) -> Write:
    """Return what refuses a commit unless there are as many holds on a merchant as were seen."""
    return Write(store.SAME_HOLDS, (merchant_id, mode, count), refusal=refusal)


async def terms_of_merchant(on: Db | Tx, merchant_id: UUID, mode: Mode) -> list[SettlementTerm]:
    """Return every version agreed with a merchant, the one that begins last first."""
    return await store.TERMS.all(on, merchant_id, mode)


async def holds_of_merchant(on: Db | Tx, merchant_id: UUID, mode: Mode) -> list[SettlementHold]:
    """Return every hold on a merchant, lifted ones too, newest first."""
    return await store.HOLDS.all(on, merchant_id, mode)


async def hold_with_id(on: Db | Tx, hold_id: UUID) -> SettlementHold:
    """Return a hold.

    Raises:
        SettlementHoldNotFound
    """
    found = await store.GET_HOLD.first(on, hold_id)
    if found is None:
        raise SettlementHoldNotFound
    return found


async def working_days(on: Db | Tx) -> Works:
    """Return what tells working days from others, as the calendar knows them now."""
    return (await load_calendar(on)).is_working_day
