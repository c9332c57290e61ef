"""Limits and meters: what the law lets one owner move in a period, and how much of it is left.

A *meter* counts, of one owner and kind and over everything of that kind that is theirs, or of all
kinds of a family; a *rule* says how much it may come to in a day, a year, a lifetime or at any
moment, from a day on. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from enum import StrEnum
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.kernel.errors import Rejected

NO_LIMIT: Final = (1 << 63) - 1
"""What is compared with where no rule is in force: more than any column keeps."""


class LimitExceeded(Rejected):
    """A limit of the law does not allow this; the facts name the rule and what it leaves."""

    code = "limit.exceeded"
    advice = "Move no more than `left`, or wait until the period is over; `instrument` is the rule."
    advice_zh = "超出监管限额：请将金额控制在 left 以内，或待周期届满；依据见 instrument。"


class Period(StrEnum):
    """Over what a meter is added up; days and years are those of Asia/Shanghai."""

    DAY = "day"
    YEAR = "year"
    LIFETIME = "lifetime"
    MOMENT = "moment"  # what is there, at any moment


class LimitRule(Struct, frozen=True):
    """One row. ``most`` is minor units; None: from that day on there is no such limit."""

    kind: str
    meter: str
    period: Period
    currency: str
    valid_from: date
    most: int | None
    instrument: str


class LimitMeter(Struct, frozen=True):
    """One row: what one owner has moved, by the newest day and year that anything was counted."""

    book: int
    owner_id: UUID
    kind: str
    meter: str
    currency: str
    day: date
    day_used: int
    year: int
    year_used: int
    used: int

    def used_in(self, period: Period, today: date) -> int:
        """Return what was counted in the period that a day lies in."""
        if period is Period.DAY:
            return self.day_used if self.day >= today else 0
        if period is Period.YEAR:
            return self.year_used if self.year >= today.year else 0
        return self.used


class Metered(Struct, frozen=True):
    """Whose meters: an owner's, of one kind, in one currency.

    What ``together`` names counts once for all kinds of the ``family``, each held to its own rules.
    """

    book: int
    owner_id: UUID
    kind: str
    currency: str
    family: str = ""
    together: frozenset[str] = frozenset()

    def counted_under(self, meter: str) -> str:
        """Return the kind that the row of a meter has."""
        return self.family if meter in self.together else self.kind


class Count(Struct, frozen=True):
    """What a movement adds to one meter of somebody, in minor units; below zero it gives back."""

    of: Metered
    meter: str
    amount: int

    @property
    def key(self) -> tuple[int, UUID, str, str, str]:
        """Return the key of the row that counts it."""
        of = self.of
        return (of.book, of.owner_id, of.counted_under(self.meter), self.meter, of.currency)


class Left(Struct, frozen=True):
    """One rule with what has been used of it."""

    rule: LimitRule
    most: int
    used: int

    @property
    def left(self) -> int:
        """Return how much may still be moved, never below zero."""
        return max(self.most - self.used, 0)


def in_force(rules: Iterable[LimitRule], today: date) -> list[LimitRule]:
    """Return the rules that count on a day: of each meter and period the newest, if it limits."""
    newest: dict[tuple[str, str, Period, str], LimitRule] = {}
    for rule in rules:
        key = (rule.kind, rule.meter, rule.period, rule.currency)
        known = newest.get(key)
        if rule.valid_from <= today and (known is None or known.valid_from < rule.valid_from):
            newest[key] = rule
    return [rule for rule in newest.values() if rule.most is not None]


def left_of(rules: Iterable[LimitRule], meters: Iterable[LimitMeter], today: date) -> list[Left]:
    """Return every rule in force with what the meters say was used of it on a day."""
    by_name = {each.meter: each for each in meters}
    found = []
    for rule in in_force(rules, today):
        meter = by_name.get(rule.meter)
        used = 0 if meter is None else meter.used_in(rule.period, today)
        found.append(Left(rule, rule.most or 0, used))
    return sorted(found, key=lambda each: (each.rule.meter, each.rule.period))


def check_left(left: Iterable[Left], meter: str, amount: int) -> None:
    """Raise if so much more on a meter is above a rule: the one that leaves least is named.

    Raises:
        LimitExceeded
    """
    over = [each for each in left if each.rule.meter == meter and amount > each.left]
    if amount > 0 and over:
        worst = min(over, key=lambda each: each.left)
        raise LimitExceeded(
            meter=meter,
            period=worst.rule.period.value,
            limit=worst.most,
            left=worst.left,
            currency=worst.rule.currency,
            instrument=worst.rule.instrument,
        )
