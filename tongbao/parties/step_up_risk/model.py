"""Signals of risk, the dated rows that weigh them, and the decision. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.parties.authentication.model import Act, Level

FAILURES_MIN: Final = 3
"""So many wrong proofs or refused logins in the time of a rule are a signal."""


class Signal(StrEnum):
    """What may speak against an act."""

    NEW_DEVICE = "new_device"  # the phone was bound lately
    NEW_PAYEE = "new_payee"  # nothing was confirmed to this payee before
    FAILURES = "failures"  # wrong proofs and refused logins
    CHANGED = "changed"  # phone, mail or password was changed, or the account recovered


class StepUpSignal(Struct, frozen=True):
    """One row of step_up_signal: from an amount on, a signal this recent asks for this level."""

    signal: Signal
    kind: str
    currency: str
    at_least: int
    within_h: int
    level: Level
    valid_from: date
    because: str


class StepUpDecision(Struct, frozen=True):
    """One row of step_up_decision: what was asked of an act, why, and how often."""

    owner_id: UUID
    act_digest: bytes
    level: Level
    kind: str
    device_id: UUID
    reasons: list[str]
    times: int
    first_at: datetime
    last_at: datetime


class Seen(Struct, frozen=True):
    """What is known at the moment of an act.

    ``moments`` are when each signal was last given, several times where each counts; a signal that
    time does not matter to is there with any moment at all.
    """

    moments: Mapping[Signal, Sequence[datetime]]


def in_force(rules: Iterable[StepUpSignal], act: Act, day: date) -> list[StepUpSignal]:
    """Return the row of each signal that counts for an act: the newest of the highest amount."""
    found: dict[Signal, StepUpSignal] = {}
    for rule in rules:
        fits = (rule.kind, rule.currency) == (act.kind, act.currency)
        if not fits or rule.valid_from > day or rule.at_least > act.weight:
            continue
        before = found.get(rule.signal)
        place = (rule.at_least, rule.valid_from)
        if before is None or place > (before.at_least, before.valid_from):
            found[rule.signal] = rule
    return [found[signal] for signal in sorted(found)]


def decide(rules: Sequence[StepUpSignal], seen: Seen, now: datetime) -> tuple[Level, list[str]]:
    """Return the strongest level that a signal asks for, and the signals that asked for any."""
    level, reasons = Level.SESSION, []
    for rule in rules:
        moments = seen.moments.get(rule.signal, ())
        if rule.within_h:
            moments = [at for at in moments if now - at < timedelta(hours=rule.within_h)]
        needed = FAILURES_MIN if rule.signal is Signal.FAILURES else 1
        if len(moments) >= needed:
            level = max(level, rule.level)
            reasons.append(f"{rule.signal}>{int(rule.level)}")
    return level, reasons
