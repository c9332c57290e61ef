"""The holds of a book as its transfers open and end them. Memory grows with the open ones only."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
from msgspec import Struct

from tongbao.infra.columns import Records
from tongbao.ledger.audit.accounts import Whole
from tongbao.ledger.audit.findings import Breach, Findings, uuid_of
from tongbao.ledger.model import HoldState, TransferFlags, TransferKind
from tongbao.ledger.rows import LedgerHold

_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_NO_HOLD, _NO_EXPIRY = 8, 16
_HELD: Final = 1
# The state and kind that each end leaves behind; see the numbers in the statement.
_STATE_OF: Final = {TransferKind.POST: 2, TransferKind.VOID: 3, TransferKind.EXPIRE: 4}
_STATES: Final = {0: "of no known state", 1: "held", 2: "posted", 3: "voided", 4: "expired"}
_NUMBER_OF: Final = {
    HoldState.HELD: 1,
    HoldState.POSTED: 2,
    HoldState.VOIDED: 3,
    HoldState.EXPIRED: 4,
}
_READ: Final = (
    "id",
    "seq",
    "debit_account",
    "credit_account",
    "amount",
    "kind",
    "flags",
    "pending_id",
    "at",
    "nulls",
    "hold_state",
    "hold_debit",
    "hold_credit",
    "hold_amount",
    "hold_posted",
    "hold_expires_at",
)


class Line(Struct, frozen=True):
    """A transfer that begins or ends a hold. Times are in microseconds since 2000."""

    id: bytes
    seq: int
    debit_account: int
    credit_account: int
    amount: int
    kind: int
    flags: int
    pending_id: bytes
    at: int
    nulls: int
    hold_state: int
    hold_debit: int
    hold_credit: int
    hold_amount: int
    hold_posted: int
    hold_expires_at: int

    @property
    def expires_at(self) -> int | None:
        """When the hold's time is over."""
        return None if self.nulls & _NO_EXPIRY else self.hold_expires_at


class Holds:
    """Open holds by the transfer that began them."""

    def __init__(self, found: Findings) -> None:
        self._found = found
        self._open: dict[bytes, Line] = {}
        self.begun = 0

    def open_with(self, holds: Sequence[LedgerHold], begun: int) -> None:
        """Begin with holds whose pending transfers are not here, and how many there were."""
        self.begun = begun
        for hold in holds:
            due = None if hold.expires_at is None else hold.expires_at - _EPOCH
            self._open[hold.pending_id.bytes] = Line(
                id=hold.pending_id.bytes,
                seq=0,
                debit_account=hold.debit_account,
                credit_account=hold.credit_account,
                amount=hold.amount,
                kind=TransferKind.PENDING,
                flags=0,
                pending_id=bytes(16),
                at=0,
                nulls=_NO_EXPIRY if due is None else 0,
                hold_state=_NUMBER_OF[hold.state],
                hold_debit=hold.debit_account,
                hold_credit=hold.credit_account,
                hold_amount=hold.amount,
                hold_posted=hold.posted_amount,
                hold_expires_at=0 if due is None else due // timedelta(microseconds=1),
            )

    def take(self, rows: Records) -> Whole:
        """Follow the holds of some transfers and return what each adds to what is pending."""
        pending = np.zeros(len(rows), np.int64)
        places = np.flatnonzero(rows["kind"] != TransferKind.SINGLE)
        if not len(places):
            return pending
        columns = (rows[name][places].tolist() for name in _READ)
        pending[places] = [self._step(Line(*values)) for values in zip(*columns, strict=True)]
        return pending

    def finish(self, due_before: datetime) -> None:
        """Check the holds that no transfer ended."""
        due = (due_before - _EPOCH) // timedelta(microseconds=1)
        self._found.look("overdue_holds", len(self._open))
        for line in self._open.values():
            if line.hold_state != _HELD:
                state = _STATES[line.hold_state]
                self._add(line, f"the hold is {state} and no transfer ended it")
            elif line.expires_at is not None and line.expires_at < due:
                ended = _EPOCH + timedelta(microseconds=line.expires_at)
                self._add(line, f"due since {ended}", check="overdue_holds")

    def _step(self, line: Line) -> int:
        if line.kind == TransferKind.PENDING:
            self._begin(line)
            return line.amount
        held = self._open.pop(line.pending_id, None)
        if line.kind not in _STATE_OF:
            self._add(line, f"{line.kind} is no kind of transfer")
        elif held is None:
            self._add(line, f"it ends {uuid_of(line.pending_id)}, which is not held")
        else:
            self._end(line, held)
        return 0 if held is None else -held.amount

    def _begin(self, line: Line) -> None:
        self._open[line.id] = line
        if line.nulls & _NO_HOLD:
            self._add(line, "the pending transfer has no hold")
            return
        self.begun += 1
        self._found.look("holds")
        kept = (line.hold_amount, line.hold_debit, line.hold_credit)
        if kept != (line.amount, line.debit_account, line.credit_account):
            self._add(line, "the hold has another amount or other accounts")
        elif line.hold_state == _HELD and line.hold_posted:
            self._add(line, f"the hold is open and {line.hold_posted} of it is posted")
        elif line.expires_at is not None and line.expires_at <= line.at:
            self._add(line, "the hold was over before it began")

    def _end(self, line: Line, held: Line) -> None:
        posted = line.amount if line.kind == TransferKind.POST else 0
        is_whole = bool(line.flags & TransferFlags.WHOLE)
        is_due = held.expires_at is not None and held.expires_at <= line.at
        accounts = (held.debit_account, held.credit_account)
        if (line.debit_account, line.credit_account) != accounts:
            self._add(line, "it ends a hold between other accounts")
        elif line.amount > held.amount or (line.amount != held.amount and (is_whole or not posted)):
            self._add(line, f"{line.amount} of {held.amount} that was held")
        elif (held.hold_state, held.hold_posted) != (_STATE_OF[TransferKind(line.kind)], posted):
            state = _STATES[held.hold_state]
            self._add(line, f"the hold is {state}, {held.hold_posted} of it posted")
        elif line.kind != TransferKind.VOID and is_due != (line.kind == TransferKind.EXPIRE):
            self._add(line, f"it is {'after' if is_due else 'before'} the hold's time was over")

    def _add(self, line: Line, what: str, *, check: str = "holds") -> None:
        self._found.add(check, Breach(what, seq=line.seq, transfer=uuid_of(line.id)))
