"""Decide one group against the accounts, holds and ids it meets: pure, no I/O, no clock.

Transfers are taken in order, each one seeing what the earlier ones did; the first that cannot
happen refuses the whole group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Busy, Refusal
from tongbao.kernel.money import AMOUNT_MAX
from tongbao.ledger.model import (
    COUNTER_MAX,
    AccountClosed,
    AccountFrozen,
    AccountKey,
    AccountState,
    BookFrozen,
    CounterOverflow,
    CurrenciesDiffer,
    ExceedsBalance,
    ExpiryPast,
    Group,
    GroupTooLong,
    HoldAlreadyPosted,
    HoldAlreadyVoided,
    HoldExceeded,
    HoldExpired,
    HoldMissing,
    HoldNotDue,
    HoldState,
    LedgerAccount,
    LedgerHold,
    LedgerTransfer,
    Result,
    SameAccount,
    Side,
    Transfer,
    TransferAmountInvalid,
    TransferKind,
    TransferMalformed,
    TransferRecorded,
)

TRANSFERS_MAX: Final = 1000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_BODY_VERSION: Final = b"tongbao.ledger.body/1\n"
_OVER: Final[Mapping[HoldState, type[Refusal]]] = {
    HoldState.POSTED: HoldAlreadyPosted,
    HoldState.VOIDED: HoldAlreadyVoided,
    HoldState.EXPIRED: HoldExpired,
}
_ENDED: Final[Mapping[TransferKind, HoldState]] = {
    TransferKind.POST: HoldState.POSTED,
    TransferKind.VOID: HoldState.VOIDED,
    TransferKind.EXPIRE: HoldState.EXPIRED,
}


class State(Struct, frozen=True):
    """Everything the decision depends on, read under the locks of the accounts.

    ``unopenable`` says why an account that a transfer names has no id. ``recorded`` are the
    group's transfer ids that the book already has.
    """

    accounts: Mapping[int, LedgerAccount]
    ids: Mapping[AccountKey, int]
    unopenable: Mapping[AccountKey, type[Refusal]] = {}
    holds: Mapping[UUID, LedgerHold] = {}
    recorded: AbstractSet[UUID] = frozenset()
    frozen: bool = False


class CounterDelta(Struct, frozen=True):
    """What a group adds to the four counters of one account."""

    account: int
    debits_pending: int
    debits_posted: int
    credits_pending: int
    credits_posted: int


class Writes(Struct, frozen=True):
    """What a created group writes; ``seq`` of a transfer counts from 1 within the group."""

    transfers: tuple[LedgerTransfer, ...] = ()
    deltas: tuple[CounterDelta, ...] = ()  # in order of account id
    holds_opened: tuple[LedgerHold, ...] = ()
    holds_ended: tuple[LedgerHold, ...] = ()


class Decision(Struct, frozen=True):
    """The answer to a group and, when it is created, what to write."""

    result: Result
    writes: Writes = Writes()


def decide(state: State, group: Group, now: datetime) -> Decision:
    """Say what becomes of the group at ``now`` (business time)."""
    sheet = _Sheet(state, group.book, now)
    try:
        if state.frozen:
            raise BookFrozen
        if len(group.transfers) > TRANSFERS_MAX:
            raise GroupTooLong
        for transfer in group.transfers:
            sheet.enter(transfer)
    except Busy as not_now:
        return Decision(Result("in_flight", not_now.code))
    except Refusal as refusal:
        return Decision(Result("refused", refusal.code))
    return Decision(Result("created"), sheet.writes())


def body_hash(transfers: Sequence[Transfer]) -> bytes:
    """Return the fingerprint that tells a repeated group from another one under the same id.

    SHA-256 of the transfers as JSON, every field, in order. Companions are left out: they carry
    fresh ids and times at every try.
    """
    return sha256(_BODY_VERSION + msgspec.json.encode([_canonical(t) for t in transfers])).digest()


def _canonical(transfer: Transfer) -> list[object]:
    expires = transfer.expires_at
    return [
        str(transfer.id),
        transfer.kind.value,
        transfer.code,
        str(transfer.reference),
        None if transfer.amount is None else str(transfer.amount),
        _canonical_key(transfer.debit),
        _canonical_key(transfer.credit),
        transfer.pending_id and str(transfer.pending_id),
        None if expires is None else (expires - _EPOCH) // timedelta(microseconds=1),
    ]


def _canonical_key(key: AccountKey | None) -> list[object] | None:
    return None if key is None else [key.kind, key.currency, key.owner and str(key.owner)]


class _Counters:
    """An account's four counters as the group moves them."""

    def __init__(self, account: LedgerAccount) -> None:
        self.account = account
        self.debits_pending = account.debits_pending
        self.debits_posted = account.debits_posted
        self.credits_pending = account.credits_pending
        self.credits_posted = account.credits_posted

    def balance(self) -> int:
        """Return what is posted, on the normal side."""
        net = self.credits_posted - self.debits_posted
        return net if self.account.side is Side.CREDIT else -net

    def check(self) -> None:
        """Refuse what passed a limit of the account."""
        if self.account.floor is not None:
            credit = self.account.side is Side.CREDIT
            held = self.debits_pending if credit else self.credits_pending
            if self.balance() - held < self.account.floor:
                raise ExceedsBalance
        largest = max(
            self.debits_pending, self.debits_posted, self.credits_pending, self.credits_posted
        )
        if largest > COUNTER_MAX:
            raise CounterOverflow

    def delta(self) -> CounterDelta:
        before = self.account
        return CounterDelta(
            before.id,
            self.debits_pending - before.debits_pending,
            self.debits_posted - before.debits_posted,
            self.credits_pending - before.credits_pending,
            self.credits_posted - before.credits_posted,
        )


class _Sheet:
    """The group's working copy: counters and holds as the transfers so far have left them."""

    def __init__(self, state: State, book: int, now: datetime) -> None:
        self._state = state
        self._book = book
        self._now = now
        self._counters: dict[int, _Counters] = {}
        self._opened: dict[UUID, LedgerHold] = {}
        self._ended: dict[UUID, LedgerHold] = {}
        self._lines: dict[UUID, LedgerTransfer] = {}

    def enter(self, transfer: Transfer) -> None:
        """Take the next transfer, or raise why it cannot happen."""
        if transfer.id in self._state.recorded or transfer.id in self._lines:
            raise TransferRecorded
        if not transfer.code:
            raise TransferMalformed
        if transfer.kind in _ENDED:
            self._end_hold(transfer)
        else:
            self._move(transfer)

    def writes(self) -> Writes:
        """Return what all the transfers together write."""
        return Writes(
            transfers=tuple(self._lines.values()),
            deltas=tuple(self._counters[account].delta() for account in sorted(self._counters)),
            holds_opened=tuple(self._opened.values()),
            holds_ended=tuple(self._ended.values()),
        )

    def _move(self, transfer: Transfer) -> None:
        """Take a single or pending transfer."""
        amount = _checked_amount(transfer)
        debit_key, credit_key = _checked_keys(transfer, self._now)
        debit, credit = self._open_account(debit_key), self._open_account(credit_key)
        if debit is credit:
            raise SameAccount
        for counters, lowers in ((debit, Side.CREDIT), (credit, Side.DEBIT)):
            _check_takes_part(counters.account, lowers)
        if transfer.kind is TransferKind.PENDING:
            debit.debits_pending += amount
            credit.credits_pending += amount
            self._opened[transfer.id] = LedgerHold(
                book=self._book,
                pending_id=transfer.id,
                debit_account=debit.account.id,
                credit_account=credit.account.id,
                amount=amount,
                state=HoldState.HELD,
                posted_amount=0,
                expires_at=transfer.expires_at,
            )
        else:
            debit.debits_posted += amount
            credit.credits_posted += amount
        self._write_line(transfer, debit, credit, amount)

    def _end_hold(self, transfer: Transfer) -> None:
        """Take a transfer that posts, voids or expires an earlier one."""
        hold = self._open_hold(transfer)
        posted = _posted_amount(transfer, hold, self._now)
        debit, credit = self._account(hold.debit_account), self._account(hold.credit_account)
        debit.debits_pending -= hold.amount
        credit.credits_pending -= hold.amount
        debit.debits_posted += posted
        credit.credits_posted += posted
        done = msgspec.structs.replace(hold, state=_ENDED[transfer.kind], posted_amount=posted)
        (self._opened if hold.pending_id in self._opened else self._ended)[hold.pending_id] = done
        self._write_line(transfer, debit, credit, posted or hold.amount)

    def _open_hold(self, transfer: Transfer) -> LedgerHold:
        pending = transfer.pending_id
        if pending is None or transfer.debit or transfer.credit or transfer.expires_at:
            raise TransferMalformed
        hold = (
            self._opened.get(pending) or self._ended.get(pending) or self._state.holds.get(pending)
        )
        if hold is None:
            raise HoldMissing
        if hold.state in _OVER:
            raise _OVER[hold.state]
        return hold

    def _open_account(self, key: AccountKey) -> _Counters:
        account_id = self._state.ids.get(key)
        if account_id is None:
            raise self._state.unopenable[key]
        return self._account(account_id)

    def _account(self, account_id: int) -> _Counters:
        counters = self._counters.get(account_id)
        if counters is None:
            counters = _Counters(self._state.accounts[account_id])
            self._counters[account_id] = counters
        return counters

    def _write_line(
        self, transfer: Transfer, debit: _Counters, credit: _Counters, amount: int
    ) -> None:
        debit.check()
        credit.check()
        day = business_date(self._now)
        self._lines[transfer.id] = LedgerTransfer(
            book=self._book,
            id=transfer.id,
            seq=len(self._lines) + 1,
            debit_account=debit.account.id,
            credit_account=credit.account.id,
            amount=amount,
            kind=transfer.kind,
            code=transfer.code,
            reference=transfer.reference,
            pending_id=transfer.pending_id,
            whole=transfer.amount is None,
            debit_after=debit.balance(),
            credit_after=credit.balance(),
            biz_date=day,
            value_date=day,
            at=self._now,
        )


def _checked_amount(transfer: Transfer) -> int:
    if transfer.amount is None:
        raise TransferMalformed
    if not 0 < transfer.amount <= AMOUNT_MAX:
        raise TransferAmountInvalid
    return transfer.amount


def _checked_keys(transfer: Transfer, now: datetime) -> tuple[AccountKey, AccountKey]:
    if transfer.debit is None or transfer.credit is None or transfer.pending_id is not None:
        raise TransferMalformed
    if transfer.expires_at is not None:
        if transfer.kind is not TransferKind.PENDING:
            raise TransferMalformed
        if transfer.expires_at <= now:
            raise ExpiryPast
    if transfer.debit.currency != transfer.credit.currency:
        raise CurrenciesDiffer
    return transfer.debit, transfer.credit


def _check_takes_part(account: LedgerAccount, lowered_side: Side) -> None:
    if account.state is AccountState.CLOSED:
        raise AccountClosed
    if account.state is AccountState.FROZEN and account.side is lowered_side:
        raise AccountFrozen


def _posted_amount(transfer: Transfer, hold: LedgerHold, now: datetime) -> int:
    """Return how much the end of a hold moves, or raise why it may not end so."""
    is_due = hold.expires_at is not None and hold.expires_at <= now
    if transfer.kind is not TransferKind.POST:
        if transfer.amount is not None:
            raise TransferMalformed
        if transfer.kind is TransferKind.EXPIRE and not is_due:
            raise HoldNotDue
        return 0
    if is_due:
        raise HoldExpired
    amount = hold.amount if transfer.amount is None else transfer.amount
    if amount <= 0:
        raise TransferAmountInvalid
    if amount > hold.amount:
        raise HoldExceeded
    return amount
