"""Look at what speaks against an act, decide by the dated rows, and write down why.

Where the database cannot be asked, the act fails with that: nothing goes through unlooked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.kernel.clock import business_date, real_now
from tongbao.kernel.ids import show
from tongbao.parties.authentication.model import Act, Level
from tongbao.parties.authentication.passwords import password_changed_at
from tongbao.parties.authentication.step_up import failed_proofs, knows_payee
from tongbao.parties.people.contacts import contacts_of
from tongbao.parties.people.dossier import Contributor, person_with_id
from tongbao.parties.people.model import PREFIX, Kept
from tongbao.parties.people.sessions import device_bound_at
from tongbao.parties.step_up_risk import _store as store
from tongbao.parties.step_up_risk.model import (
    FAILURES_MIN,
    Seen,
    Signal,
    StepUpDecision,
    StepUpSignal,
    decide,
    in_force,
)

KEPT: Final = timedelta(days=400)
"""How long decisions are kept: a dispute over a payment begins within a year."""
_PRUNED_MAX: Final = 5000
_SHOWN_MAX: Final = 500
_SETTLED: Final = timedelta(hours=1)  # what is set this soon after registration is no change
_RECOVERED: Final = "person.recovered"
_REFUSED: Final = "person.login_refused"


class RiskBySignals(Struct, frozen=True):
    """Fills the port that step-up asks."""

    db: Db

    async def level_for(self, owner_id: UUID, device_id: UUID, act: Act) -> Level:
        """Return the level that signals ask for, which is kept with what they were."""
        rows = await store.SIGNALS.all(self.db, act.kind, act.currency)
        rules = in_force(rows, act, business_date(self.db.clock.now()))
        if not rules:
            return Level.SESSION
        now = real_now()
        seen = await _seen(self.db, owner_id, device_id, act, rules)
        level, reasons = decide(rules, seen, now)
        await store.KEEP.run(
            self.db, owner_id, act.digest, int(level), act.kind, device_id, reasons, now
        )
        return level


async def decisions_of(on: Db | Tx, owner_id: UUID, limit: int) -> list[StepUpDecision]:
    """Return what was asked of somebody's acts and why, the last first."""
    return await store.OF_OWNER.all(on, owner_id, limit)


async def prune_decisions(db: Db) -> int:
    """Forget decisions that are too old for any dispute, some at once; return how many."""
    return await store.PRUNE.run(db, real_now() - KEPT, _PRUNED_MAX)


def contributor() -> Contributor:
    """Return what this domain keeps of a person: why acts of theirs were asked for more."""
    return Contributor("step_up", _show, _erase)


async def _seen(
    db: Db, owner_id: UUID, device_id: UUID, act: Act, rules: Sequence[StepUpSignal]
) -> Seen:
    """Ask for the signals that a rule of this act weighs, and no others."""
    hours = {rule.signal: rule.within_h for rule in rules}
    since = real_now() - timedelta(hours=max(hours.values()))

    async def latest(action: str, most: int) -> list[datetime]:
        """Read no more than decide: strangers add as many refused logins as they like."""
        subject = show(PREFIX, owner_id)
        found = await audit.latest_of_subject(db, subject, action, since=since, limit=most)
        return [each.real_at for each in found]

    moments: dict[Signal, list[datetime]] = {}
    if Signal.NEW_DEVICE in hours:
        bound = await device_bound_at(db, device_id)
        moments[Signal.NEW_DEVICE] = [] if bound is None else [bound]
    if Signal.NEW_PAYEE in hours and act.payee and not await knows_payee(db, owner_id, act.payee):
        moments[Signal.NEW_PAYEE] = [real_now()]
    if Signal.FAILURES in hours:
        moments[Signal.FAILURES] = await latest(_REFUSED, FAILURES_MIN)
        lately = real_now() - timedelta(hours=hours[Signal.FAILURES])
        wrong = await failed_proofs(db, owner_id, lately)
        moments[Signal.FAILURES] += [real_now()] * wrong
    if Signal.CHANGED in hours:
        moments[Signal.CHANGED] = await latest(_RECOVERED, 1) + await _changes(db, owner_id)
    return Seen(moments)


async def _changes(db: Db, owner_id: UUID) -> list[datetime]:
    """Return when address and password became what they are, where they were others before.

    They are dated by business time; only how long ago they are matters.
    """
    person = await person_with_id(db, owner_id)
    found = [
        row.proved_at
        for row in await contacts_of(db, owner_id)
        if row.proved_at - person.created_at > _SETTLED
    ]
    password = await password_changed_at(db, owner_id)
    if password is not None:
        found.append(password)
    return [at - db.clock.now() + real_now() for at in found]


async def _show(db: Db, person_id: UUID) -> list[dict[str, Any]]:
    rows = await decisions_of(db, person_id, _SHOWN_MAX)
    return [
        {
            "kind": row.kind,
            "level": int(row.level),
            "reasons": row.reasons,
            "times": row.times,
            "last_at": msgspec.to_builtins(row.last_at),
        }
        for row in rows
    ]


async def _erase(tx: Tx, person_id: UUID) -> list[Kept]:
    await store.FORGET.run(tx, person_id)
    return []
