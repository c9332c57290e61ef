"""What was agreed with merchants, as it was a moment ago: looked up for many at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.changes import Changes
from tongbao.infra.db import Db
from tongbao.infra.lookups import Remembered
from tongbao.kernel.licence import Mode
from tongbao.parties.merchants import queries as merchants
from tongbao.parties.merchants.model import TERMS, Merchant
from tongbao.parties.price_plans.model import PricePlan
from tongbao.parties.price_plans.queries import price_plans_of

_READ_ANEW_S: Final = 60.0

Whose = tuple[UUID, Mode]


class Terms(Struct, frozen=True):
    """A merchant and all versions of its prices in one mode, those to come included."""

    merchant: Merchant
    plans: Sequence[PricePlan]


def both_modes(merchant_id: UUID) -> Iterable[Whose]:
    """Return what terms there are of a merchant."""
    return [(merchant_id, mode) for mode in Mode]


class RecentTerms:
    """The terms of merchants, remembered until they are changed.

    They are believed for `changes.BOUND_S` at most where that is not heard of: a suspended merchant
    collects no longer than that, and a price that is agreed to begin at once begins no later.
    """

    def __init__(self, db: Db, changes: Changes) -> None:
        self._db = db
        self._terms = Remembered(self._find, seconds=_READ_ANEW_S, changes=changes)
        self._terms.forget_with(TERMS, both_modes)

    async def of(self, whose: Iterable[Whose]) -> dict[Whose, Terms]:
        """Return these merchants' terms in a mode each, of those that there are."""
        return await self._terms.all(whose)

    async def _find(self, asked: Sequence[Whose]) -> dict[Whose, Terms]:
        theirs = await merchants.merchants_with_ids(self._db, [each for each, _ in asked])
        plans = await price_plans_of(self._db, asked)
        return {
            whose: Terms(theirs[whose[0]], plans[whose]) for whose in asked if whose[0] in theirs
        }
