"""What opening an account and binding a card ask for, from a day on, and who says so. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Final

from msgspec import Struct

EVERY: Final = "*"
"""The kind of a rule that counts for every kind of account."""


class OpeningRule(Struct, frozen=True):
    """One row: a figure that counts at opening, from a day on, and who says so."""

    kind: str
    name: str
    valid_from: date
    figure: int
    instrument: str


def figures_of(rules: Iterable[OpeningRule], kind: str, today: date) -> dict[str, OpeningRule]:
    """Return the rules in force for a kind by name; what is said of every kind counts too."""
    found: dict[str, OpeningRule] = {}
    for rule in rules:
        if rule.kind in {kind, EVERY} and rule.valid_from <= today:
            known = found.get(rule.name)
            if known is None or known.valid_from < rule.valid_from:
                found[rule.name] = rule
    return found
