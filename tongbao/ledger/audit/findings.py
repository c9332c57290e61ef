"""What proving finds: how much each check looked at, how often it was wrong, and where first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import UUID

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray


class Breach(Struct, frozen=True):
    """One broken invariant and where to look."""

    what: str
    batch: int | None = None
    seq: int | None = None
    transfer: UUID | None = None
    account: int | None = None
    request: UUID | None = None


class Check(Struct, frozen=True):
    """One invariant of one book: how much was looked at and what was wrong first."""

    book: int
    name: str
    looked_at: int
    breaches: int
    first: Breach | None


class Findings:
    """Counts of what was looked at and broken, and the first breach of each check."""

    def __init__(self) -> None:
        self.looked_at: Counter[str] = Counter()
        self.breaches: Counter[str] = Counter()
        self.first: dict[str, Breach] = {}

    def look(self, check: str, number: int = 1) -> None:
        """Count what a check looked at."""
        self.looked_at[check] += number

    def add(self, check: str, breach: Breach, number: int = 1) -> None:
        """Note a breach; later ones of the same check are counted."""
        self.breaches[check] += number
        self.first.setdefault(check, breach)

    def add_where(
        self, check: str, broken: NDArray[np.bool_], first: Callable[[int], Breach]
    ) -> None:
        """Note as many breaches as places are true; ``first`` describes the first of them."""
        number = int(np.count_nonzero(broken))
        if number:
            self.add(check, first(int(np.argmax(broken))), number)


def uuid_of(raw: Any) -> UUID:
    """Return an id read as sixteen bytes."""
    return UUID(bytes=bytes(raw))
