"""Groups taken one after the other: those that a limit, an id or a hold could refuse."""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np

from tongbao.ledger.decision.lines import AT_MOST, OVER, PENDING, POST, Lines, ending, opened_in
from tongbao.ledger.decision.memory import BookState, Hold
from tongbao.ledger.decision.records import CREATED, REPEATED, Batch, Codes, Whole, code_of
from tongbao.ledger.model import (
    COUNTER_MAX,
    CounterOverflow,
    ExceedsBalance,
    ExceedsCeiling,
    HoldMissing,
    TransferRecorded,
)

_Row: TypeAlias = list[int]
"""An account: the two figures that limits are about, the two limits, the four counters, and the
codes that a debit and a credit beyond the limits have."""

_OVERFLOW: Final = code_of(CounterOverflow)
_MISSING: Final = code_of(HoldMissing)
_TAKEN: Final = code_of(TransferRecorded)
_LIMIT_CODES: Final = {
    1: (code_of(ExceedsBalance), code_of(ExceedsCeiling)),  # by the sign of the account
    -1: (code_of(ExceedsCeiling), code_of(ExceedsBalance)),
}


class InOrder:
    """Takes groups one after the other, on the accounts that could refuse them and no others."""

    def __init__(
        self,
        state: BookState,
        lines: Lines,
        groups: list[int],
        *,
        watched: Whole,
        fates: dict[int, int],
        late: set[int],
        shared: set[bytes],
        now: int,
    ) -> None:
        self._state, self._lines, self._groups = state, lines, groups
        self._fates, self._late, self._shared, self._now = fates, late, shared, now
        self._rows = _rows(state, watched)
        self._kinds: list[int] = lines.kinds.tolist()
        self._flags: list[int] = lines.flags.tolist()
        self._debit: list[int] = lines.debit.tolist()
        self._credit: list[int] = lines.credit.tolist()
        self._amount: list[int] = lines.amount.tolist()
        self._opened: dict[bytes, int] = {}
        self._over: dict[bytes, int] = {}
        self._used: dict[bytes, int] = {}
        self._news: list[tuple[dict[bytes, int], bytes]] = []
        self._before: list[tuple[_Row, _Row]] = []
        self._ended: list[tuple[int, int, int]] = []
        self._touched: list[tuple[int, int, int]] = []

    def decide(self, batch: Batch, codes: Codes) -> None:
        """Decide the groups, filling in their codes and what their transfers do."""
        if self._late:
            self._opened = self._opened_for_sure(codes)
        starts: list[int] = batch.starts.tolist()
        for group in self._groups:
            if self._used and batch.ids[group].tobytes() in self._used:
                codes[group] = REPEATED  # a transfer may stand for its group
                continue
            for place in range(starts[group], starts[group + 1]):
                code = self._enter(place)
                if code != CREATED:
                    codes[group] = code
                    self._take_back()
                    break
            else:
                self._news.clear()
                self._before.clear()
        self._lines.end(self._ended)
        if self._touched:
            where, debit, credit = np.array(self._touched).T
            self._lines.debit[where], self._lines.credit[where] = debit, credit

    def _opened_for_sure(self, codes: Codes) -> dict[bytes, int]:
        sure = codes == CREATED
        sure[self._groups] = False
        return opened_in(self._lines, sure[self._lines.group])

    def _enter(self, place: int) -> int:
        """Take the next transfer, or say why it cannot happen."""
        if self._shared and (one := self._lines.ids[place]) in self._shared:
            if one in self._used:
                return _TAKEN
            self._note(self._used, one, place)
        if place in self._fates:
            return self._fates[place]
        if place in self._late:
            return self._end_late(place)
        debit, credit = self._rows.get(self._debit[place]), self._rows.get(self._credit[place])
        if self._kinds[place] >= POST:
            return self._end(
                debit, credit, -int(self._lines.held[place]), int(self._lines.posted[place])
            )
        return self._move(place, debit, credit)

    def _move(self, place: int, debit: _Row | None, credit: _Row | None) -> int:
        """Take a single or pending transfer; an account that is not watched allows it."""
        amount, held = self._amount[place], self._kinds[place] == PENDING
        if self._flags[place] & AT_MOST:
            amount = _most(debit, credit, amount)
            if amount > 0:
                self._amount[place] = amount
                self._lines.move(place, amount, held=held)
            else:
                amount = 1  # which the account that leaves no room refuses below
        code = _refused(debit, credit, amount, held=held)
        if code != CREATED:
            return code
        if debit is not None:
            self._before.append((debit, debit[:]))
            debit[5 - held] += amount
            debit[0] -= amount
            debit[1] -= 0 if held else amount
        if credit is not None:
            self._before.append((credit, credit[:]))
            credit[7 - held] += amount
            credit[1] += amount
            credit[0] += 0 if held else amount
        if held and self._late:
            self._note(self._opened, self._lines.ids[place], place)
        return CREATED

    def _end(self, debit: _Row | None, credit: _Row | None, held: int, posted: int) -> int:
        """Release a hold and post some of it, which no limit can refuse."""
        if debit is not None and debit[5] + posted > COUNTER_MAX:
            return _OVERFLOW
        if credit is not None and credit[7] + posted > COUNTER_MAX:
            return _OVERFLOW
        if debit is not None:
            self._before.append((debit, debit[:]))
            debit[0] += held - posted
            debit[1] -= posted
            debit[4] -= held
            debit[5] += posted
        if credit is not None:
            self._before.append((credit, credit[:]))
            credit[0] += posted
            credit[1] -= held - posted
            credit[6] -= held
            credit[7] += posted
        return CREATED

    def _end_late(self, place: int) -> int:
        """End a hold that this batch opened, or ends more than once."""
        pending_id = self._lines.pending_ids[place]
        if pending_id in self._over:
            return self._over[pending_id]
        hold = self._hold(pending_id, before=place)
        if hold is None:
            return _MISSING
        code, posted = ending(hold, self._kinds[place], self._amount[place], self._now)
        if code == CREATED:
            debit, credit = self._rows.get(hold[0]), self._rows.get(hold[1])
            code = self._end(debit, credit, hold[2], posted)
        if code == CREATED:
            self._note(self._over, pending_id, OVER[self._kinds[place] - 2])
            self._ended.append((place, hold[2], posted))
            self._touched.append((place, hold[0], hold[1]))
        return code

    def _hold(self, pending_id: bytes, *, before: int) -> Hold | None:
        """Return a hold with the slots of its accounts in the place of their ids."""
        opener = self._opened.get(pending_id)
        if opener is not None and opener < before:
            debit, credit = self._debit[opener], self._credit[opener]
            expires_at = int(self._lines.records["expires_at"][opener])
            return debit, credit, self._amount[opener], 0, 0, expires_at
        hold = self._state.holds.get(pending_id)
        if hold is None:
            return None
        return self._state.slot_of(hold[0]), self._state.slot_of(hold[1]), *hold[2:]

    def _note(self, where: dict[bytes, int], one: bytes, number: int) -> None:
        where[one] = number
        self._news.append((where, one))

    def _take_back(self) -> None:
        """Undo what the earlier transfers of a refused group did."""
        for row, before in reversed(self._before):
            row[:] = before
        for where, one in self._news:
            del where[one]
        self._before.clear()
        self._news.clear()


def _refused(debit: _Row | None, credit: _Row | None, amount: int, *, held: bool) -> int:
    """Say what forbids that the amount moves, or is held."""
    if debit is not None:
        if debit[0] - amount < debit[2]:
            return debit[8]
        if debit[5 - held] + amount > COUNTER_MAX:
            return _OVERFLOW
    if credit is not None:
        if credit[1] + amount > credit[3]:
            return credit[9]
        if credit[7 - held] + amount > COUNTER_MAX:
            return _OVERFLOW
    return CREATED


def _most(debit: _Row | None, credit: _Row | None, amount: int) -> int:
    """Return how much of the amount the floor of one account and the ceiling of the other allow."""
    if debit is not None:
        amount = min(amount, debit[0] - debit[2])
    if credit is not None:
        amount = min(amount, credit[3] - credit[1])
    return amount


def _rows(state: BookState, slots: Whole) -> dict[int, _Row]:
    """Return what the limits of each account are about, as plain numbers."""
    rows = {}
    for slot, row in zip(slots.tolist(), state.rows[slots].tolist(), strict=True):
        debits_pending, debits_posted, credits_pending, credits_posted, least, most, sign, _ = row
        net = credits_posted - debits_posted
        rows[slot] = [
            net - debits_pending, net + credits_pending, least, most,
            debits_pending, debits_posted, credits_pending, credits_posted, *_LIMIT_CODES[sign],
        ]  # fmt: skip
    return rows
