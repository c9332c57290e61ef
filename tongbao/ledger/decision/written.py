"""What the created groups of a batch write, and the memory they lead to."""

from __future__ import annotations

from datetime import datetime
from struct import Struct as Packing
from typing import Final

import numpy as np

from tongbao.kernel.clock import business_date
from tongbao.ledger.decision.lines import (
    AT_MOST,
    FOLLOWS,
    LINKED,
    PENDING,
    POST,
    Lines,
    by_account,
    stood_for,
)
from tongbao.ledger.decision.memory import (
    LEAST,
    MARK_EVERY,
    SIGN,
    BookState,
    Decision,
    Hold,
    Marks,
    Moved,
)
from tongbao.ledger.decision.records import (
    COMPANION_REFUSED,
    CREATED,
    HOLD,
    JOURNAL,
    NO_ID,
    REFUSALS,
    Batch,
    Codes,
    Records,
    Whole,
    days,
    is_recorded,
    microseconds,
)
from tongbao.ledger.decision.spans import spans_of

_RECORDED: Final = np.array([is_recorded(code) for code in range(len(REFUSALS) + 1)])
_HOLD: Final = Packing("<16sqqqBqq")


def written(state: BookState, batch: Batch, lines: Lines, codes: Codes, now: datetime) -> Decision:
    """Return what the created groups write and lead to."""
    created = codes == CREATED
    chosen = (created[lines.group]).nonzero()[0]
    debit, credit = lines.debit[chosen], lines.credit[chosen]
    touches = lines.touches if len(chosen) == len(lines.ids) else None
    place, slot, starts = touches or by_account(debit, credit)
    line, is_credit, slots = place >> 1, place & 1, slot[starts]
    ids = np.ascontiguousarray(batch.records["id"])[chosen]
    lengths = np.diff(starts, append=len(place))
    changes = np.zeros((len(place), 4), np.int64)
    touch, posted = np.arange(len(place)), lines.posted[chosen][line]
    changes[touch, 2 * is_credit] = lines.held[chosen][line]
    changes[touch, 2 * is_credit + 1] = posted
    rows = state.rows[slots]
    before = rows[:, :LEAST]
    after = before + np.add.reduceat(changes, starts) if starts.size else before

    # The running credit balance of each account, turned to its normal side.
    running = (posted * (2 * is_credit - 1)).cumsum()
    base = before[:, 3] - before[:, 1]
    base[1:] -= running[starts[1:] - 1]
    running = (running + base.repeat(lengths)) * rows[:, SIGN].repeat(lengths)

    previous = np.empty(len(place), "V16")
    previous[1:] = ids[line[:-1]]
    previous[starts] = state.last[slots]
    previous[place], running[place] = previous.copy(), running.copy()

    journal = _journal(state, batch, lines, chosen, now)
    journal["debit_account"], journal["credit_account"] = (
        state.accounts[debit],
        state.accounts[credit],
    )
    journal["debit_previous"], journal["credit_previous"] = previous[0::2], previous[1::2]
    journal["debit_after"], journal["credit_after"] = running[0::2], running[1::2]
    touched = state.touches[slots]
    nth = (touched - starts).repeat(lengths) + touch + 1
    opened, ended, holds, holds_before = _holds(state, lines, chosen)
    requests = _requests(batch, lines, codes)
    transfers: list[bytes] = lines.ids if len(chosen) == len(lines.ids) else ids.tolist()
    groups: list[bytes] = batch.ids[requests].tolist()
    spans = spans_of(ids)
    counts = batch.starts[1:] - batch.starts[:-1]
    return Decision(
        codes=codes,
        seqs=np.where(created & (counts > 0), state.last_seq + (counts * created).cumsum(), 0),
        journal=journal,
        holds_opened=opened,
        holds_ended=ended,
        requests=requests,
        spans=spans,
        newest_id=max([*spans[-1:].tolist(), *groups], default=NO_ID),
        moved=Moved(
            slots=slots,
            accounts=state.accounts[slots],
            counters=after,
            counters_before=before,
            touches=lengths,
            touches_before=touched,
            last=ids[line[starts + lengths - 1]],
            last_before=state.last[slots],
            marks=_marks(state, ids, nth, slot=slot, line=line),
            holds=holds,
            holds_before=holds_before,
            transfers=transfers,
            groups=groups,
        ),
    )


def _marks(state: BookState, ids: Records, nth: Whole, *, slot: Whole, line: Whole) -> Marks:
    """Return the touches that are the 64th of their account, or the 128th, and so on."""
    [marked] = (nth % MARK_EVERY == 0).nonzero()
    at = line[marked]
    return Marks(state.accounts[slot[marked]], state.last_seq + 1 + at, ids[at])


def _journal(state: BookState, batch: Batch, lines: Lines, chosen: Whole, now: datetime) -> Records:
    """Return the records of the chosen transfers, but for what hangs on their accounts."""
    day = days(business_date(now))
    if state.closed_through is not None:
        day = max(day, days(state.closed_through) + 1)
    records, group = batch.records[chosen], lines.group[chosen]
    journal = np.empty(len(chosen), JOURNAL)
    for name in ("id", "code", "reference", "pending_id", "kind"):
        journal[name] = records[name]
    journal["book"] = state.book
    journal["seq"] = np.arange(state.last_seq + 1, state.last_seq + 1 + len(chosen))
    journal["amount"] = lines.amount[chosen]
    journal["flags"] = lines.flags[chosen]
    together = group[1:] == group[:-1]
    journal["flags"][:-1] |= np.where(together, LINKED, 0).astype(np.int16)
    journal["flags"][1:] |= np.where(together, FOLLOWS, 0).astype(np.int16)
    journal["biz_date"] = day
    journal["value_date"] = np.where(records["value_date"] == 0, day, records["value_date"])
    journal["at"] = microseconds(now)
    return journal


def _holds(
    state: BookState, lines: Lines, chosen: Whole
) -> tuple[Records, Records, dict[bytes, Hold], dict[bytes, Hold]]:
    """Return the holds that are opened and ended, as records, and by id as they are and were."""
    kinds = lines.kinds[chosen]
    after: dict[bytes, Hold] = {}
    before: dict[bytes, Hold] = {}
    if kinds.size and kinds.max() >= PENDING:
        opening = chosen[kinds == PENDING]
        columns = (
            state.accounts[lines.debit[opening]],
            state.accounts[lines.credit[opening]],
            lines.amount[opening],
            np.zeros(len(opening), np.int64),
            np.zeros(len(opening), np.int64),
            lines.records["expires_at"][opening],
        )
        rows = zip(*(column.tolist() for column in columns), strict=True)
        after.update(zip((lines.ids[place] for place in opening.tolist()), rows, strict=True))
        for place in chosen[kinds >= POST].tolist():
            pending_id = lines.pending_ids[place]
            hold = after.get(pending_id)
            if hold is None:
                hold = before[pending_id] = state.holds[pending_id]
            state_then, posted = int(lines.kinds[place]) - PENDING, int(lines.posted[place])
            after[pending_id] = (*hold[:3], state_then, posted, hold[5])
    opened = [_HOLD.pack(one, *hold) for one, hold in after.items() if one not in before]
    ended = [_HOLD.pack(one, *after[one]) for one in before]
    return (
        np.frombuffer(bytearray().join(opened), HOLD),
        np.frombuffer(bytearray().join(ended), HOLD),
        after,
        before,
    )


def _requests(batch: Batch, lines: Lines, codes: Codes) -> Whole:
    """Return the groups to record: refused, or created and not stood for by their transfers."""
    refused = (codes > CREATED) & (
        _RECORDED.take(codes, mode="clip") | (codes == COMPANION_REFUSED)
    )
    stands = stood_for(batch)
    stands[lines.group[lines.flags & AT_MOST != 0]] = False
    places: Whole = (refused | ((codes == CREATED) & ~stands)).nonzero()[0]
    return places
