"""Groups as columns: the packed records a poster decides on, those it writes, their refusals.

A command is what is asked, a journal record is what is written; both are numpy records, so that a
batch of thousands is decided, hashed and encoded without a step of Python for each of them. Times
are microseconds and dates days since 1970; zero, or sixteen zero bytes, stands for none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from itertools import accumulate
from struct import Struct as Packing
from typing import Final, TypeAlias
from uuid import UUID

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from tongbao.kernel.errors import Busy, Refusal
from tongbao.ledger.model import (
    AccountClosed,
    AccountCurrencyUnknown,
    AccountFrozen,
    AccountKey,
    AccountKindNotLicensed,
    AccountKindUnknown,
    AccountMissing,
    AccountOwnerWrong,
    AccountState,
    BookFrozen,
    BookMissing,
    BookStopped,
    CounterOverflow,
    CurrenciesDiffer,
    ExceedsBalance,
    ExceedsCeiling,
    ExpiryPast,
    Group,
    GroupDiffers,
    GroupInFlight,
    GroupTooLong,
    HoldAlreadyPosted,
    HoldAlreadyVoided,
    HoldExceeded,
    HoldExpired,
    HoldMissing,
    HoldNotDue,
    HoldState,
    IdArchived,
    IdOutOfOrder,
    LedgerOverloaded,
    SameAccount,
    Side,
    Transfer,
    TransferAmountInvalid,
    TransferFlags,
    TransferKind,
    TransferMalformed,
    TransferRecorded,
)

TRANSFERS_MAX: Final = 1000
"""The longest group."""

COMMAND: Final = np.dtype(
    [
        ("id", "V16"),
        ("debit", "<i8"),  # account ids; both 0 where a hold is ended
        ("credit", "<i8"),
        ("amount", "<i8"),  # 0 with the flag WHOLE is all of the hold
        ("pending_id", "V16"),
        ("reference", "V16"),
        ("expires_at", "<i8"),
        ("value_date", "<i4"),
        ("code", "<i4"),  # ledger_code.number
        ("kind", "u1"),
        ("flags", "u1"),  # WHOLE and AT_MOST; LINKED is the groups' to say
    ]
)
JOURNAL: Final = np.dtype(
    [
        ("book", ">i4"),
        ("id", "V16"),
        ("seq", ">i8"),
        ("debit_account", ">i8"),
        ("credit_account", ">i8"),
        ("amount", ">i8"),
        ("kind", ">i2"),
        ("flags", ">i2"),
        ("code", ">i4"),
        ("reference", "V16"),
        ("pending_id", "V16"),
        ("debit_previous", "V16"),
        ("credit_previous", "V16"),
        ("debit_after", ">i8"),
        ("credit_after", ">i8"),
        ("biz_date", ">i4"),
        ("value_date", ">i4"),
        ("at", ">i8"),
    ]
)
"""One row of ledger_transfer, column by column; its bytes are what digests and proofs are of."""
HOLD: Final = np.dtype(
    [
        ("pending_id", "V16"),
        ("debit_account", "<i8"),
        ("credit_account", "<i8"),
        ("amount", "<i8"),
        ("state", "u1"),  # a number of HOLD_STATES
        ("posted_amount", "<i8"),
        ("expires_at", "<i8"),
    ]
)
"""One row of ledger_hold without its book."""

Records: TypeAlias = NDArray[np.void]
"""An array of one of the packed records, or of ids."""
Whole: TypeAlias = NDArray[np.int64]
Codes: TypeAlias = NDArray[np.int16]

NO_ID: Final = bytes(16)

REFUSALS: Final[tuple[type[Refusal], ...]] = (
    BookFrozen,
    BookStopped,
    BookMissing,
    GroupInFlight,
    GroupDiffers,
    TransferRecorded,
    IdOutOfOrder,
    TransferMalformed,
    GroupTooLong,
    TransferAmountInvalid,
    AccountKindUnknown,
    AccountKindNotLicensed,
    AccountOwnerWrong,
    AccountCurrencyUnknown,
    AccountMissing,
    CurrenciesDiffer,
    SameAccount,
    AccountFrozen,
    AccountClosed,
    ExceedsBalance,
    ExceedsCeiling,
    CounterOverflow,
    HoldMissing,
    HoldAlreadyPosted,
    HoldAlreadyVoided,
    HoldExpired,
    HoldExceeded,
    HoldNotDue,
    ExpiryPast,
    LedgerOverloaded,
    IdArchived,
)
"""The refusal numbered n is the n-th; new ones go to the end, because numbers travel on wires."""
NOT_RECORDED: Final[frozenset[type[Refusal]]] = frozenset(
    {
        AccountMissing,
        BookMissing,
        IdArchived,
        IdOutOfOrder,
        *(r for r in REFUSALS if issubclass(r, Busy)),
    }
)
"""Refusals of which nothing is written: the same group may be asked again and be created."""
CREATED: Final = 0
COMPANION_REFUSED: Final = 30_000
"""A code that a lane may put into ``Batch.refused`` for a group whose companion refused."""

_NUMBERS: Final = {refusal: number for number, refusal in enumerate(REFUSALS, start=1)}


def code_of(refusal: type[Refusal]) -> int:
    """Return the code of a group so refused: its number, negative when it means "not now"."""
    number = _NUMBERS[refusal]
    return -number if issubclass(refusal, Busy) else number


def refusal_of(code: int) -> type[Refusal]:
    """Return the refusal that a code other than `CREATED` and `COMPANION_REFUSED` stands for."""
    return REFUSALS[abs(code) - 1]


def is_recorded(code: int) -> bool:
    """Say whether a group with this code leaves a record, so that its repeat is told from it."""
    return code in {COMPANION_REFUSED, CREATED} or refusal_of(code) not in NOT_RECORDED


REPEATED: Final = code_of(GroupInFlight)
"""The group was decided before, or is by an earlier place in the same batch: answer its repeat."""


class Batch(Struct, frozen=True):
    """Groups to decide together, in order, as columns."""

    records: Records  # of COMMAND, group after group
    starts: Whole  # where each group begins in records, and at the end their number
    ids: Records  # of the groups, V16
    refused: Codes  # a code settled before deciding, such as TransferMalformed; 0 is none

    def body_hash(self, group: int) -> bytes:
        """Return the fingerprint that tells a repeated group from another one under its id."""
        first, last = self.starts[group : group + 2].tolist()
        return body_hash(self.records[first:last])


def body_hash(commands: Records) -> bytes:
    """Return the fingerprint of a group: SHA-256 of its commands, every field, in order.

    Companions are left out: they carry fresh ids and times at every try.
    """
    return sha256(_BODY_VERSION + commands.tobytes()).digest()


_BODY_VERSION: Final = b"tongbao.ledger.body/2\n"
_COMMAND: Final = Packing("<16sqqq16s16sqiiBB")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_DAY: Final = date(1970, 1, 1).toordinal()
_BIGINT_MAX: Final = (1 << 63) - 1


def microseconds(at: datetime) -> int:
    """Return the moment as microseconds since 1970."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def moment(us: int) -> datetime:
    """Return the moment so many microseconds after 1970."""
    return _EPOCH + timedelta(microseconds=us)


def days(day: date) -> int:
    """Return the date as days since 1970."""
    return day.toordinal() - _FIRST_DAY


def day_of(number: int) -> date:
    """Return the date so many days after 1970."""
    return date.fromordinal(number + _FIRST_DAY)


def batch_of(
    groups: Sequence[Group],
    account_of: Mapping[AccountKey, int | type[Refusal]],
    number_of: Mapping[str, int],
) -> Batch:
    """Write groups of one book as columns.

    ``account_of`` has every account the groups name: its id, or why it cannot be opened;
    ``number_of`` has every posting code but the empty one.
    """
    packed: list[bytes] = []
    refused: list[int] = []
    for group in groups:
        why = code_of(GroupTooLong) if len(group.transfers) > TRANSFERS_MAX else CREATED
        for transfer in group.transfers:
            refusal = _refusal(transfer, account_of)
            if refusal is not None and why == CREATED:
                why = code_of(refusal)
            packed.append(_packed(transfer, account_of, number_of))
        refused.append(why)
    return Batch(
        records=np.frombuffer(bytearray().join(packed), COMMAND),
        starts=np.fromiter(
            accumulate((len(group.transfers) for group in groups), initial=0),
            np.int64,
            len(groups) + 1,
        ),
        ids=ids_of(group.id.bytes for group in groups),
        refused=np.array(refused, np.int16),
    )


def ids_of(ids: Iterable[bytes]) -> Records:
    """Return ids of sixteen bytes each as a column."""
    return np.frombuffer(bytearray().join(ids), "V16")


def fronts(ids: Records) -> NDArray[np.uint64]:
    """Return the first eight bytes of each id as a number: its time and what orders it within."""
    return np.ascontiguousarray(ids).view(">u8")[::2].astype(np.uint64)


def _refusal(
    transfer: Transfer, account_of: Mapping[AccountKey, int | type[Refusal]]
) -> type[Refusal] | None:
    """Say what is wrong with a transfer whatever the book holds, or None."""
    if not transfer.code or (
        _moves_badly(transfer) if transfer.kind <= TransferKind.PENDING else _ends_badly(transfer)
    ):
        return TransferMalformed
    if transfer.amount is not None and not 0 < transfer.amount <= _BIGINT_MAX:
        return TransferAmountInvalid
    for key in (transfer.debit, transfer.credit):
        account = None if key is None else account_of[key]
        if account is not None and not isinstance(account, int):
            return account
    return None


def _moves_badly(transfer: Transfer) -> bool:
    return (
        transfer.amount is None
        or transfer.debit is None
        or transfer.credit is None
        or transfer.pending_id is not None
        or (transfer.expires_at is not None and transfer.kind is not TransferKind.PENDING)
    )


def _ends_badly(transfer: Transfer) -> bool:
    return (
        transfer.pending_id is None
        or transfer.debit is not None
        or transfer.credit is not None
        or transfer.expires_at is not None
        or transfer.at_most
        or (transfer.amount is not None and transfer.kind is not TransferKind.POST)
    )


def _packed(
    transfer: Transfer,
    account_of: Mapping[AccountKey, int | type[Refusal]],
    number_of: Mapping[str, int],
) -> bytes:
    whole = transfer.amount is None
    expires, value = transfer.expires_at, transfer.value_date
    amount = transfer.amount or 0
    return _COMMAND.pack(
        transfer.id.bytes,
        _account(transfer.debit, account_of),
        _account(transfer.credit, account_of),
        # What does not fit is refused anyway, and its body need only differ from other bodies.
        amount if -_BIGINT_MAX <= amount <= _BIGINT_MAX else _stand_in(amount),
        NO_ID if transfer.pending_id is None else transfer.pending_id.bytes,
        transfer.reference.bytes,
        0 if expires is None else microseconds(expires),
        0 if value is None else days(value),
        number_of[transfer.code] if transfer.code else 0,
        transfer.kind,
        whole * TransferFlags.WHOLE | transfer.at_most * TransferFlags.AT_MOST,
    )


def _account(key: AccountKey | None, account_of: Mapping[AccountKey, int | type[Refusal]]) -> int:
    if key is None:
        return 0
    account = account_of[key]
    return account if isinstance(account, int) else _stand_in(key)


def _stand_in(what: object) -> int:
    """Return a negative number that stands for what has none, so that bodies stay different."""
    return -1 - (int.from_bytes(sha256(repr(what).encode()).digest()[:8], "big") >> 2)


# Rows that a poster's memory is filled with, one query for all that a batch lacks.


class AccountRow(Struct, frozen=True):
    """An account as the poster remembers it."""

    id: int
    side: Side
    floor: int | None
    ceiling: int | None
    state: AccountState
    currency: str
    debits_pending: int
    debits_posted: int
    credits_pending: int
    credits_posted: int
    touches: int
    last_transfer: UUID | None


class HoldRow(Struct, frozen=True):
    """A hold as the poster remembers it."""

    pending_id: UUID
    debit_account: int
    credit_account: int
    amount: int
    state: HoldState
    posted_amount: int
    expires_at: datetime | None
