"""Apply the transfers of a book in order to accounts that start at zero, thousands at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from tongbao.infra.columns import Records
from tongbao.ledger.audit.accounts import Accounts, Whole
from tongbao.ledger.audit.findings import Breach, Findings, uuid_of
from tongbao.ledger.audit.holds import Holds
from tongbao.ledger.model import TransferKind

MARK_EVERY: Final = 64
_NO_PENDING_ID, _NO_DEBIT_PREVIOUS, _NO_CREDIT_PREVIOUS = 1, 2, 4


class Touches(Struct, frozen=True):
    """Two for each transfer, its debit and its credit, sorted by account and then by seq."""

    natural: Whole  # the place of each before sorting: 2 × row, and one more for the credit
    account: Whole  # the place of its account
    starts: Whole  # where another account begins
    group: Whole  # the number of that beginning
    is_debit: NDArray[np.bool_]
    lowers: NDArray[np.bool_]  # whether a debit or credit takes from the normal side

    @property
    def row(self) -> Whole:
        """The transfer of each."""
        return self.natural // 2

    @property
    def ends(self) -> Whole:
        """Where the last touch of each account stands."""
        return np.append(self.starts[1:], len(self.account)) - 1

    def number(self) -> Whole:
        """Return which touch of its account, in these rows, each one is, from 1."""
        return np.arange(len(self.account)) - self.starts[self.group] + 1

    def running(self, change: Whole, before: Whole) -> Whole:
        """Return, after each touch, what was before all of them and the changes since."""
        total = np.cumsum(change)
        carried = total[self.starts] - change[self.starts] - before[self.account[self.starts]]
        return total - carried[self.group]


class Replay:
    """Takes whole stretches of the journal and compares what is noted beside each transfer."""

    def __init__(
        self,
        found: Findings,
        accounts: Accounts,
        holds: Holds,
        codes: Iterable[int],
        watermark: int,
    ) -> None:
        self._found = found
        self._accounts = accounts
        self._holds = holds
        self._codes = np.array(sorted(codes), np.int64)
        self._watermark = watermark
        self._compared = False
        self._marks: list[tuple[Whole, Whole, Records]] = []
        self.last_seq = 0

    def take(self, rows: Records) -> None:
        """Apply transfers, in the order of seq."""
        if not len(rows):
            return
        self._check_alone(rows)
        reached = int(np.searchsorted(_whole(rows, "seq"), self._watermark, "right"))
        self._apply(rows[:reached])
        if reached < len(rows):
            self._compare()
        self._apply(rows[reached:])

    def finish(self, marks: Records) -> None:
        """Check what must hold once every transfer was applied."""
        self._compare()
        self._check_marks(marks)

    def _compare(self) -> None:
        if not self._compared:
            self._accounts.compare(self._found)
            self._compared = True

    def _check_alone(self, rows: Records) -> None:
        """Check what needs no account."""
        seq = _whole(rows, "seq")
        before = np.append(self.last_seq, seq[:-1])
        self.last_seq = int(seq[-1])
        for check in ("sequence", "codes"):
            self._found.look(check, len(rows))
        self._found.add_where(
            "sequence",
            seq != before + 1,
            lambda at: _said(rows, f"{seq[at]} comes after {before[at]}")(at),
        )
        known = np.isin(_whole(rows, "code"), self._codes)
        self._found.add_where("codes", ~known, _said(rows, "nobody knows its posting code"))
        ends = _whole(rows, "kind") >= TransferKind.POST
        named = (rows["nulls"] & _NO_PENDING_ID) == 0
        what = "it names a hold and ends none, or the other way round"
        self._found.add_where("holds", ends != named, _said(rows, what))

    def _apply(self, rows: Records) -> None:
        if not len(rows):
            return
        pending = self._holds.take(rows)
        kind = rows["kind"]
        moves = (kind == TransferKind.SINGLE) | (kind == TransferKind.POST)
        posted = np.where(moves, _whole(rows, "amount"), 0)
        debit = self._accounts.places(_whole(rows, "debit_account"))
        credit = self._accounts.places(_whole(rows, "credit_account"))
        self._check_parties(rows, debit, credit)
        touches = self._touches(debit, credit)
        self._check_chains(rows, touches)
        self._check_balances(rows, touches, pending[touches.row], posted[touches.row])
        self._add_up(rows, touches, pending[touches.row], posted[touches.row])

    def _touches(self, debit: Whole, credit: Whole) -> Touches:
        account = np.empty(2 * len(debit), np.int64)
        account[0::2], account[1::2] = debit, credit
        natural = np.argsort(account, kind="stable")
        account = account[natural]
        begins = np.append(True, account[1:] != account[:-1])
        is_debit = natural % 2 == 0
        return Touches(
            natural=natural,
            account=account,
            starts=np.flatnonzero(begins),
            group=np.cumsum(begins) - 1,
            is_debit=is_debit,
            lowers=is_debit == self._accounts.is_credit[account],
        )

    def _check_parties(self, rows: Records, debit: Whole, credit: Whole) -> None:
        accounts, found = self._accounts, self._found
        found.look("parties", len(rows))
        missing = (debit == accounts.nobody) | (credit == accounts.nobody)
        found.add_where("parties", missing, _said(rows, "an account of it does not exist"))
        same = _whole(rows, "debit_account") == _whole(rows, "credit_account")
        found.add_where("parties", same, _said(rows, "it is from an account to itself"))
        differ = accounts.currency[debit] != accounts.currency[credit]
        what = "its accounts are in different currencies"
        found.add_where("parties", differ & ~missing, _said(rows, what))

    def _check_chains(self, rows: Records, touches: Touches) -> None:
        """Compare the transfer each one names as the one before it, and remember the marks."""
        row, starts, account = touches.row, touches.starts, touches.account
        ids = rows["id"][row]
        before = np.empty(len(ids), "V16")
        before[1:] = ids[:-1]
        before[starts] = self._accounts.last[account[starts]]
        number = touches.number() + self._accounts.touches[account]
        said = np.where(touches.is_debit, _NO_DEBIT_PREVIOUS, _NO_CREDIT_PREVIOUS)
        named = (rows["nulls"][row] & said) == 0
        noted = rows["credit_previous"][row]
        noted[touches.is_debit] = rows["debit_previous"][row[touches.is_debit]]
        exists = account != self._accounts.nobody
        self._found.look("chains", len(ids))
        self._add_where_touched(
            "chains",
            exists & ((noted != before) | (named != (number > 1))),
            rows,
            touches,
            lambda at: f"it names {uuid_of(noted[at])} before it, which was {uuid_of(before[at])}",
        )
        marked = exists & (number % MARK_EVERY == 0)
        marked &= _whole(rows, "seq")[row] <= self._watermark
        self._marks.append(
            (self._accounts.ids[account[marked]], _whole(rows, "seq")[row[marked]], ids[marked])
        )

    def _check_balances(
        self, rows: Records, touches: Touches, pending: Whole, posted: Whole
    ) -> None:
        """Compare the noted balances, and limits at every transfer that came nearer to one."""
        accounts, account = self._accounts, touches.account
        change = np.where(touches.lowers, -posted, posted)
        balance = touches.running(change, accounts.posted())
        going = np.where(touches.lowers, pending, 0)
        available = balance - touches.running(going, accounts.outgoing())
        coming = np.where(touches.lowers, 0, pending)
        promised = balance + touches.running(coming, accounts.incoming())
        noted = _whole(rows, "credit_after")[touches.row]
        noted[touches.is_debit] = _whole(rows, "debit_after")[touches.row[touches.is_debit]]
        exists = account != accounts.nobody
        binds = exists & (_whole(rows, "at")[touches.row] > accounts.limits_since[account])
        self._found.look("running_balances", len(account))
        self._found.look("limits", len(account))
        self._add_where_touched(
            "running_balances",
            exists & (noted != balance),
            rows,
            touches,
            lambda at: f"{noted[at]} is noted, the transfers add up to {balance[at]}",
        )
        self._add_where_touched(
            "limits",
            binds & (change - going < 0) & (available < accounts.floor[account]),
            rows,
            touches,
            lambda at: f"{available[at]} is left, below the floor",
        )
        self._add_where_touched(
            "limits",
            binds & (change + coming > 0) & (promised > accounts.ceiling[account]),
            rows,
            touches,
            lambda at: f"it rose to {promised[at]}, above the ceiling",
        )

    def _add_up(self, rows: Records, touches: Touches, pending: Whole, posted: Whole) -> None:
        accounts, starts = self._accounts, touches.starts
        touched = touches.account[starts]
        for place, (is_debit, moved) in enumerate(
            ((True, pending), (True, posted), (False, pending), (False, posted))
        ):
            mine = np.where(touches.is_debit == is_debit, moved, 0)
            accounts.counters[touched, place] += np.add.reduceat(mine, starts)
        accounts.touches[touched] += touches.ends - starts + 1
        accounts.last[touched] = rows["id"][touches.row[touches.ends]]

    def _check_marks(self, marks: Records) -> None:
        account = np.concatenate([each[0] for each in self._marks] or [np.zeros(0, np.int64)])
        seq = np.concatenate([each[1] for each in self._marks] or [np.zeros(0, np.int64)])
        ids = np.concatenate([each[2] for each in self._marks] or [np.zeros(0, "V16")])
        order = np.lexsort((seq, account))
        account, seq, ids = account[order], seq[order], ids[order]
        self._found.look("marks", len(account))
        shared = min(len(account), len(marks))
        differs = (
            (marks["account"][:shared] != account[:shared])
            | (marks["seq"][:shared] != seq[:shared])
            | (marks["transfer_id"][:shared] != ids[:shared])
        )
        at = int(np.argmax(differs)) if differs.any() else shared
        if differs.any() or len(account) != len(marks):
            number = max(int(np.count_nonzero(differs)), abs(len(account) - len(marks)))
            if at < len(account):
                place = Breach(
                    "the mark here is missing or another one",
                    seq=int(seq[at]),
                    transfer=uuid_of(ids[at]),
                    account=int(account[at]),
                )
            else:
                place = Breach(
                    "there is a mark that no transfer made",
                    seq=int(marks["seq"][at]),
                    account=int(marks["account"][at]),
                )
            self._found.add("marks", place, number)

    def _add_where_touched(
        self,
        check: str,
        broken: NDArray[np.bool_],
        rows: Records,
        touches: Touches,
        what: Callable[[int], str],
    ) -> None:
        """Note the broken touches; the first is that of the lowest seq."""
        places = np.flatnonzero(broken)
        if not len(places):
            return
        at = int(places[np.argmin(touches.natural[places])])
        row = int(touches.row[at])
        account = int(self._accounts.ids[touches.account[at]])
        breach = Breach(
            what(at), seq=int(rows["seq"][row]), transfer=uuid_of(rows["id"][row]), account=account
        )
        self._found.add(check, breach, len(places))


def _whole(rows: Records, name: str) -> Whole:
    return rows[name].astype(np.int64)


def _said(rows: Records, what: str) -> Callable[[int], Breach]:
    return lambda at: Breach(what, seq=int(rows["seq"][at]), transfer=uuid_of(rows["id"][at]))
