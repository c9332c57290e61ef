"""How many wrong numbers and months of virtual cards a day allows: of one card, and of one asker.

Whoever charges a card locks the row of the number and then their own, and keeps both until it is
known whether number and month were right, so of tries that hurry at once no more are heard than the
rule says. A number that no card has is counted like any other: nothing tells whether there is one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final
from uuid import UUID

from msgspec import Struct
from prometheus_client import Counter

from tongbao.controls.opening.rules import rules_in_force
from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Fact
from tongbao.parties.virtual_cards import _store as store
from tongbao.parties.virtual_cards.model import RULES, GuessesTooMany

KEPT_FOR: Final = timedelta(days=2)
_OVER: Final = Counter(
    "tongbao_virtual_card_guesses_over", "Tries refused because too many were wrong", ["kind"]
)
_NAMES: Final = {
    "card": "guesses_per_card_day_max",
    "requestor": "guesses_per_requestor_day_max",
}


class Heard(Struct):
    """One try: whoever checks says whether number and month were right."""

    tx: Tx
    is_right: bool = False


@asynccontextmanager
async def one_try(db: Db, book: int, par: str, requestor: UUID) -> AsyncIterator[Heard]:
    """Hear one try, and count it unless it is said to be right.

    Raises:
        GuessesTooMany: as many were wrong today as the rule allows; it is not heard at all.
    """
    async with db.begin("virtual_cards") as tx:
        today = business_date(tx.now)
        subjects = (("card", par), ("requestor", requestor.hex))
        rules = await rules_in_force(tx, RULES, today)
        for kind, subject in subjects:
            await store.KNOW_GUESSER.run(tx, book, kind, subject, today)
            wrong = await store.LOCK_GUESSER.one(tx, book, kind, subject, today)
            rule = rules.get(_NAMES[kind])
            if rule is not None and wrong >= rule.figure:
                _OVER.labels(kind).inc()
                raise GuessesTooMany
        heard = Heard(tx)
        yield heard
        if heard.is_right:
            return
        for kind, subject in subjects:
            counted = await store.COUNT_GUESS.one(tx, book, kind, subject, today)
            rule = rules.get(_NAMES[kind])
            if rule is not None and counted == rule.figure:
                facts: dict[str, Fact] = {"kind": kind, "most": rule.figure}
                await audit.record(tx, "virtual_card.guesses_over", _shown(kind, subject), facts)
        await store.PRUNE_GUESSES.run(tx, today - KEPT_FOR)
        failpoint("virtual_cards.before_guess_commit")


def _shown(kind: str, subject: str) -> str:
    """Return what an audit entry is about: a card by the tail of what stands for its number."""
    return f"{kind} {subject[-8:]}"
