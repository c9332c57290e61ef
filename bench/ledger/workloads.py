"""What is posted: who pays whom, drawn by numpy so that drawing costs next to nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Numbers = NDArray[np.int64]

FUNDED: Final = 1_000_000_000
"""What every account starts with, in fen; the poor ones of `refusals` start with nothing."""
AMOUNT_MAX: Final = 1_000


class Drawn(Struct, frozen=True):
    """Transfers between accounts 0 … n-1, in order; pairs of linked ones lie side by side.

    ``holds`` says that every even transfer holds money and the odd one after it posts that hold.
    """

    debit: Numbers
    credit: Numbers
    amount: Numbers
    linked: bool = False
    holds: bool = False

    def __len__(self) -> int:
        return len(self.amount)


Draw = Callable[[np.random.Generator, int, int], Drawn]


class Workload(Struct, frozen=True):
    """A way of drawing transfers. ``poor`` is the share of accounts that start without money."""

    name: str
    draw: Draw
    poor: float = 0.0


def _apart(debit: Numbers, credit: Numbers, accounts: int) -> Numbers:
    """Return the payees with those that would pay themselves moved to their neighbour."""
    return np.where(credit == debit, (credit + 1) % accounts, credit)


def _amounts(rng: np.random.Generator, n: int) -> Numbers:
    return rng.integers(1, AMOUNT_MAX, n)


def _uniform(rng: np.random.Generator, n: int, accounts: int) -> Drawn:
    debit = rng.integers(0, accounts, n)
    credit = _apart(debit, rng.integers(0, accounts, n), accounts)
    return Drawn(debit, credit, _amounts(rng, n))


def _zipf(rng: np.random.Generator, n: int, accounts: int) -> Drawn:
    debit = rng.integers(0, accounts, n)
    credit = _apart(debit, (rng.zipf(1.1, n) - 1) % accounts, accounts)
    return Drawn(debit, credit, _amounts(rng, n))


def _hot_merchant(rng: np.random.Generator, n: int, accounts: int) -> Drawn:
    debit = rng.integers(1, accounts, n)
    return Drawn(debit, np.zeros(n, np.int64), _amounts(rng, n))


def _hot_debit(rng: np.random.Generator, n: int, accounts: int) -> Drawn:
    credit = rng.integers(1, accounts, n)
    return Drawn(np.zeros(n, np.int64), credit, np.ones(n, np.int64))


def _refusals(rng: np.random.Generator, n: int, accounts: int) -> Drawn:
    """One in ten pays from the last tenth of the accounts, which are poor and never paid."""
    rich = accounts - accounts // 10
    poor = rng.integers(rich, accounts, n)
    debit = np.where(rng.random(n) < 0.1, poor, rng.integers(0, rich, n))
    credit = _apart(debit, rng.integers(0, rich, n), rich)
    return Drawn(debit, credit, _amounts(rng, n))


def _linked(rng: np.random.Generator, n: int, accounts: int) -> Drawn:
    """A payment and its fee: the payee of the first pays account 0 a little in the second."""
    n += n % 2
    debit = rng.integers(1, accounts, n)
    credit = np.where(np.arange(n) % 2 == 0, rng.integers(1, accounts, n), 0)
    credit = np.where(credit == debit, credit % (accounts - 1) + 1, credit)
    debit[1::2] = credit[0::2]
    amount = _amounts(rng, n)
    amount[1::2] = 1
    return Drawn(debit, credit, amount, linked=True)


def _holds(rng: np.random.Generator, n: int, accounts: int) -> Drawn:
    n += n % 2
    drawn = _uniform(rng, n, accounts)
    for column in (drawn.debit, drawn.credit, drawn.amount):
        column[1::2] = column[0::2]
    return Drawn(drawn.debit, drawn.credit, drawn.amount, holds=True)


WORKLOADS: Final = {
    each.name: each
    for each in (
        Workload("uniform", _uniform),
        Workload("zipf", _zipf),
        Workload("hot merchant", _hot_merchant),
        Workload("hot debit", _hot_debit),
        Workload("10% refused", _refusals, poor=0.1),
        Workload("linked pairs", _linked),
        Workload("hold and post", _holds),
    )
}
