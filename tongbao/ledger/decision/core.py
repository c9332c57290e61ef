"""Decide a batch against the memory of one book: pure, no I/O, no clock.

The answer of a batch is that of its groups decided one after the other, each seeing what the ones
before it did. A group is refused for what it is in itself first, and then for the first of its
transfers that cannot happen.

Nearly every batch is decided by columns: an account that stays within its limits even if all that
lowers it happened, and nothing that raises it, refuses nobody, whatever becomes of the others.
Only the groups that touch another account, or end a hold of the same batch, or fail for an id or a
hold, are taken in order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Final

import numpy as np

from tongbao.kernel.errors import Refusal
from tongbao.kernel.money import AMOUNT_MAX
from tongbao.ledger.decision.in_order import InOrder
from tongbao.ledger.decision.lines import (
    AT_MOST,
    EXPIRE,
    PENDING,
    POST,
    WHOLE,
    Flags,
    Lines,
    by_account,
    ending,
    lines_of,
    opened_in,
    stood_for,
)
from tongbao.ledger.decision.memory import (
    BARS_ALL,
    BARS_CREDIT,
    BARS_DEBIT,
    CURRENCY_SHIFT,
    LEAST,
    MOST,
    TRAITS,
    BookState,
    Decision,
)
from tongbao.ledger.decision.records import (
    CREATED,
    NO_ID,
    REPEATED,
    Batch,
    Codes,
    Records,
    Whole,
    code_of,
    fronts,
    microseconds,
)
from tongbao.ledger.decision.written import written
from tongbao.ledger.model import (
    COUNTER_MAX,
    AccountClosed,
    AccountFrozen,
    AccountMissing,
    BookFrozen,
    BookStopped,
    CurrenciesDiffer,
    ExpiryPast,
    HoldMissing,
    IdArchived,
    IdOutOfOrder,
    SameAccount,
    TransferAmountInvalid,
    TransferMalformed,
    TransferRecorded,
)

__all__ = ["BookState", "Decision", "decide"]

_ID: Final = code_of(IdOutOfOrder)
_ARCHIVED: Final = code_of(IdArchived)
_MISSING: Final = code_of(HoldMissing)
_TAKEN: Final = code_of(TransferRecorded)
_NO_HOLD: Final = np.frombuffer(NO_ID, "V16")[0]
_SUM_MAX: Final = 1e18
"""Above this the sums of a batch could leave 64 bits, so every transfer is taken in order."""


def decide(state: BookState, batch: Batch, now: datetime, latest: datetime) -> Decision:
    """Say what becomes of every group of the batch; the state stays as it is.

    ``now`` is business time; ids whose time is after ``latest`` (real time) are in the future.
    """
    codes = batch.refused.copy()
    lines = lines_of(state, batch)
    bound = (microseconds(latest) // 1000 + 1) << 16
    _settle_groups(state, batch, codes, bound)
    if lines.kinds.size:
        _settle_alone(state, batch, lines, codes, now=now, bound=bound)
        in_order = _taken_in_order(state, batch, lines, codes, microseconds(now))
        if in_order is not None:
            in_order.decide(batch, codes)
    return written(state, batch, lines, codes, now)


def _settle_groups(state: BookState, batch: Batch, codes: Codes, bound: int) -> None:
    """Settle repeats, the groups of a book that takes none, and ids that are out of order."""
    front = fronts(batch.ids)
    codes[(front >= bound) | (front == 0)] = _ID
    if state.stopped or state.frozen:
        codes[:] = code_of(BookStopped if state.stopped else BookFrozen)
    ids: list[bytes] = batch.ids.tolist()
    if len(set(ids)) < len(ids):
        seen: set[bytes] = set()
        for place, one in enumerate(ids):
            if one in seen:
                codes[place] = REPEATED
            seen.add(one)
    for known in (state.groups, state.transfers):  # a transfer may stand for its group
        if not known.keys().isdisjoint(ids):
            codes[[place for place, one in enumerate(ids) if one in known]] = REPEATED
    codes[(front != 0) & (front < state.archived_front)] = _ARCHIVED


def _settle_alone(
    state: BookState, batch: Batch, lines: Lines, codes: Codes, *, now: datetime, bound: int
) -> None:
    """Settle the groups of which a transfer cannot happen whatever the others do."""
    why = np.zeros(len(lines.kinds), np.int16)
    for wrong, refusal in _wrongs(state, batch.records, lines, now=microseconds(now), bound=bound):
        if np.count_nonzero(wrong):  # which is the quickest way to ask for any
            why[wrong & (why == CREATED)] = code_of(refusal)
    [places] = why.nonzero()
    if places.size:
        groups, firsts = np.unique(lines.group[places], return_index=True)
        undecided = codes[groups] == CREATED
        codes[groups[undecided]] = why[places[firsts[undecided]]]


def _wrongs(
    state: BookState, records: Records, lines: Lines, *, now: int, bound: int
) -> Iterator[tuple[Flags, type[Refusal]]]:
    """Yield what may be wrong with a transfer in itself, first things first."""
    kinds, debit, credit = lines.kinds, lines.debit, lines.credit
    moves = kinds <= PENDING
    expires_at = records["expires_at"]
    yield _malformed(records, lines, moves), TransferMalformed
    front = fronts(records["id"])
    yield front < state.archived_front, IdArchived
    yield (
        (front != fronts(records["reference"])) | (front >= bound) | (front == 0),
        IdOutOfOrder,
    )
    yield (
        (lines.amount <= 0) & (lines.flags & WHOLE == 0) | (lines.amount > AMOUNT_MAX) & moves,
        TransferAmountInvalid,
    )
    yield (expires_at != 0) & (expires_at <= now), ExpiryPast
    yield moves & ((debit < 0) | (credit < 0)), AccountMissing
    of_debit, of_credit = state.rows[debit, TRAITS], state.rows[credit, TRAITS]
    yield moves & ((of_debit ^ of_credit) >> CURRENCY_SHIFT != 0), CurrenciesDiffer
    yield moves & (debit == credit), SameAccount
    yield moves & ((of_debit | of_credit) & BARS_ALL != 0), AccountClosed
    yield moves & ((of_debit & BARS_DEBIT | of_credit & BARS_CREDIT) != 0), AccountFrozen


def _malformed(records: Records, lines: Lines, moves: Flags) -> Flags:
    """Say which transfers have parts that do not fit their kind."""
    kinds, flags = lines.kinds, lines.flags
    names_hold = records["pending_id"] != _NO_HOLD
    names_accounts = (records["debit"] != 0) | (records["credit"] != 0)
    whole = flags & WHOLE != 0
    wrong: Flags = (
        (kinds < 1)
        | (kinds > EXPIRE)
        | (records["code"] <= 0)
        | (names_hold == moves)
        | (names_accounts != moves)
        | ((records["expires_at"] != 0) & (kinds != PENDING))
        | ((flags & AT_MOST != 0) & ~moves)
        | (whole & (moves | (lines.amount != 0)))
        | (~whole & (kinds > POST))
    )
    return wrong


def _taken_in_order(
    state: BookState, batch: Batch, lines: Lines, codes: Codes, now: int
) -> InOrder | None:
    """Find the groups that must be taken one after the other, or return None when there are none.

    Fills in what the ends of holds do, as far as that does not depend on the batch.
    """
    live = codes[lines.group] == CREATED
    fates = _recorded_before(state, lines, live)
    late = _end_holds(state, lines, live, fates=fates, now=now)
    shared = _shared_ids(batch, lines, live)
    watched, touching = _watched(state, lines, live)
    in_order = np.zeros(len(codes), np.bool_)
    in_order[lines.group[touching]] = True
    in_order[lines.group[[*fates, *late]]] = True
    if shared:
        in_order[[place for place, one in enumerate(batch.ids.tolist()) if one in shared]] = True
        named = [place for place, one in enumerate(lines.ids) if one in shared]
        in_order[lines.group[named]] = True
    groups: list[int] = (in_order & (codes == CREATED)).nonzero()[0].tolist()
    if not groups:
        return None
    return InOrder(
        state, lines, groups, watched=watched, fates=fates, late=late, shared=shared, now=now
    )


def _recorded_before(state: BookState, lines: Lines, live: Flags) -> dict[int, int]:
    """Return what becomes of the transfers that the book has already."""
    if state.transfers.keys().isdisjoint(lines.ids):
        return {}
    return {
        place: _TAKEN
        for place, one in enumerate(lines.ids)
        if live[place] and one in state.transfers
    }


def _shared_ids(batch: Batch, lines: Lines, live: Flags) -> set[bytes]:
    """Return the ids that the batch has more than once: as transfers, or as a group's own.

    A group and its first transfer may be one.
    """
    ids: list[bytes] = batch.ids[~stood_for(batch)].tolist()
    if len(set(lines.ids).union(ids)) == len(lines.ids) + len(ids):
        return set()
    times = Counter(one for place, one in enumerate(lines.ids) if live[place])
    times.update(ids)
    return {one for one, count in times.items() if count > 1}


def _end_holds(
    state: BookState, lines: Lines, live: Flags, *, fates: dict[int, int], now: int
) -> set[int]:
    """Fill in what ending a hold does, and return the ends that depend on the batch itself.

    Those are of holds that it opens, or ends twice.
    """
    places: list[int] = ((lines.kinds >= POST) & live).nonzero()[0].tolist() if lines.ends else []
    if not places:
        return set()
    ended = [lines.pending_ids[place] for place in places]
    entangled = opened_in(lines, live).keys() & ended
    if len(set(ended)) < len(ended):
        entangled |= {one for one, times in Counter(ended).items() if times > 1}
    late: set[int] = set()
    known: list[tuple[int, int, int]] = []
    settled: list[tuple[int, int, int]] = []
    kinds, amounts = lines.kinds[places].tolist(), lines.amount[places].tolist()
    for place, pending_id, kind, amount in zip(places, ended, kinds, amounts, strict=True):
        hold = state.holds.get(pending_id)
        if hold is not None:
            known.append((place, hold[0], hold[1]))
        if pending_id in entangled:
            late.add(place)
            if hold is not None:  # what it may do to the counters, until it is known
                lines.held[place] = -hold[2]
            continue
        code, posted = (_MISSING, 0) if hold is None else ending(hold, kind, amount, now)
        if code != CREATED or hold is None:
            fates.setdefault(place, code)
        else:
            settled.append((place, hold[2], posted))
    if known:  # of the late ones too, so that their accounts are watched
        where, debit, credit = np.array(known).T
        lines.debit[where], lines.credit[where] = state.slots_of(debit), state.slots_of(credit)
    lines.end(settled)
    return late


def _watched(state: BookState, lines: Lines, live: Flags) -> tuple[Whole, Whole]:
    """Return the slots of the accounts that could refuse a transfer, and the transfers on them.

    The others stay within their limits even if all that lowers them happened and nothing that
    raises them: what a hold releases only helps.
    """
    sums = np.abs(lines.held) + lines.posted
    named = (live & (lines.debit >= 0)).nonzero()[0]
    place, slot, starts = by_account(lines.debit[named], lines.credit[named])
    slots = slot[starts]
    if not slots.size or float(sums[live].sum(dtype=np.float64)) > _SUM_MAX:
        return slots, named
    if len(named) == len(lines.ids):
        lines.touches = place, slot, starts
    amount = np.where(lines.kinds > PENDING, 0, lines.amount)[named][place >> 1]
    is_debit = place & 1 == 0
    lowered = np.add.reduceat(np.where(is_debit, amount, 0), starts)
    raised = np.add.reduceat(np.where(is_debit, 0, amount), starts)
    rows = state.rows[slots]
    net = rows[:, 3] - rows[:, 1]
    watched: Flags = (
        (net - rows[:, 0] - lowered < rows[:, LEAST])
        | (net + rows[:, 2] + raised > rows[:, MOST])
        | (rows[:, :LEAST].max(axis=1) > COUNTER_MAX - int(sums[live].sum()))
    )
    if not np.count_nonzero(watched):
        return slots[:0], named[:0]
    lengths = np.diff(starts, append=len(place))
    return slots[watched], named[place[watched.repeat(lengths)] >> 1]
