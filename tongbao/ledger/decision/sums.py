"""What several decisions together do to accounts: each once, with all that it gains and loses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from tongbao.ledger.decision.memory import Marks, Moved
from tongbao.ledger.decision.records import Records, Whole


class Sums(Struct, frozen=True):
    """Accounts, ascending, and how their rows change."""

    accounts: Whole
    touches_before: Whole
    touches: Whole
    changes: Whole  # of the four counters, a row per account
    last: Records  # the id of the transfer that touched each account last
    marks: Marks


def summed(moved: Sequence[Moved]) -> Sums:
    """Add up consecutive decisions of one book that moved something, the earliest first."""
    accounts = np.concatenate([each.accounts for each in moved])
    changes = np.concatenate([each.counters - each.counters_before for each in moved])
    order = accounts.argsort(kind="stable")  # so the earliest of an account comes first
    accounts = accounts[order]
    begins = np.ones(len(accounts), np.bool_)
    np.not_equal(accounts[1:], accounts[:-1], out=begins[1:])
    [starts] = begins.nonzero()
    ends = np.append(starts[1:], len(accounts)) - 1
    touches = np.concatenate([each.touches for each in moved])[order]
    before = np.concatenate([each.touches_before for each in moved])[order]
    return Sums(
        accounts=accounts[starts],
        touches_before=before[starts],
        touches=np.add.reduceat(touches, starts),
        changes=np.add.reduceat(changes[order], starts),
        last=np.concatenate([each.last for each in moved])[order][ends],
        marks=Marks(
            np.concatenate([each.marks.accounts for each in moved]),
            np.concatenate([each.marks.seqs for each in moved]),
            np.concatenate([each.marks.ids for each in moved]),
        ),
    )
