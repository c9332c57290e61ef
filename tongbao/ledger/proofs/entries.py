"""What a leaf of a book's tree is made of.

    leaf   = SHA-256(0 ‖ entry)
    entry  = book seq id amount kind flags code reference pending biz_date value_date at
             currency ‖ debit side ‖ credit side
    side   = SHA-256(2 ‖ salt ‖ account previous after owner kind)

All of a journal record is in its leaf, and the account's kind, owner and currency with it. Whose an
account is, what its balance is and when it was used before is nobody else's business, so a side is
a commitment: a receipt opens those that belong to its reader. The salts come from one secret key;
`verifier` makes the same bytes again from the words of a receipt and shares no code with this.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256, shake_256
from typing import Final, Literal, TypeAlias
from uuid import UUID

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from tongbao.infra.db import Db, Tx
from tongbao.kernel.merkle import leaf_hash
from tongbao.ledger.decision.spans import merged
from tongbao.ledger.model import NOBODY, TransferKind
from tongbao.ledger.proofs import _store as store
from tongbao.ledger.proofs.model import (
    BLOCK,
    AccountFacts,
    Proofs,
    ReceiptEntry,
    ReceiptSide,
    TreeBroken,
)
from tongbao.ledger.rows import LedgerCode

ROW: Final = np.dtype(
    [
        ("book", ">i4"),
        ("seq", ">i8"),
        ("id", "V16"),
        ("amount", ">i8"),
        ("kind", ">i2"),
        ("flags", ">i2"),
        ("code", ">i4"),
        ("reference", "V16"),
        ("pending_id", "V16"),
        ("biz_date", ">i4"),  # days since 1970
        ("value_date", ">i4"),
        ("at", ">i8"),  # microseconds since 1970
        ("debit_account", ">i8"),
        ("debit_previous", "V16"),
        ("debit_after", ">i8"),
        ("credit_account", ">i8"),
        ("credit_previous", "V16"),
        ("credit_after", ">i8"),
    ]
)
Rows: TypeAlias = NDArray[np.void]
_PUBLIC: Final = 92  # bytes of a row before its two sides
_DEBIT: Final = slice(92, 124)
_CREDIT: Final = slice(124, 156)
_SIDES: Final = {"debit": _DEBIT, "credit": _CREDIT}
_PAYER: Final = slice(92, 100)
_PAYEE: Final = slice(124, 132)
_ROW: Final = ROW.itemsize
_SALTING: Final = b"tongbao.ledger.salt/1"
_SALT: Final = 16
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAYS_TO_2000: Final = 10_957  # where PostgreSQL begins to count
_MICROSECONDS_TO_2000: Final = _DAYS_TO_2000 * 86_400_000_000
_NOTHING: Final = bytes(16)
_SLICE: Final = 500
"""Leaves hashed before others get their turn: some two milliseconds."""
_ACCOUNTS_MAX: Final = 500_000


class Packed:
    """The rows of a stretch of the journal as bytes, and the secret that salts their sides."""

    def __init__(self, rows: Rows, blind: bytes, accounts: Mapping[bytes, AccountFacts]) -> None:
        self.rows = rows
        self._bytes = rows.tobytes()
        self._salts = _salts_of(rows, blind)
        self._accounts = accounts

    async def leaves(self) -> list[bytes]:
        """Return the hashes of all leaves, letting others work in between."""
        found: list[bytes] = []
        for start in range(0, len(self.rows), _SLICE):
            found += self._leaves(start, min(start + _SLICE, len(self.rows)))
            await asyncio.sleep(0)
        return found

    def _leaves(self, start: int, end: int) -> list[bytes]:
        """Hash some leaves: the loop all else waits for, so it calls nothing of ours."""
        raw, salts, accounts, found = self._bytes, self._salts, self._accounts, []
        for place in range(start, end):
            row = raw[place * _ROW : (place + 1) * _ROW]
            salt = salts[place * 2 * _SALT : (place + 1) * 2 * _SALT]
            payer, payee = accounts[row[_PAYER]], accounts[row[_PAYEE]]
            debit = sha256(b"\x02" + salt[:_SALT] + row[_DEBIT] + payer.packed).digest()
            credit = sha256(b"\x02" + salt[_SALT:] + row[_CREDIT] + payee.packed).digest()
            entry = b"\x00" + row[:_PUBLIC] + payer.currency_bytes + debit + credit
            found.append(sha256(entry).digest())
        return found

    def _row(self, place: int) -> bytes:
        return self._bytes[place * _ROW : (place + 1) * _ROW]

    def entry(self, place: int) -> ReceiptEntry:
        """Return what every receipt shows of a transfer."""
        row = self._row(place)
        values = {name: self.rows[name][place].item() for name in ROW.names or ()}
        return ReceiptEntry(
            book=values["book"],
            seq=values["seq"],
            id=UUID(bytes=values["id"]),
            amount=values["amount"],
            currency=self._accounts[row[_PAYER]].currency,
            kind=TransferKind(values["kind"]).name.lower(),
            flags=values["flags"],
            code=values["code"],
            reference=UUID(bytes=values["reference"]),
            pending_id=_some(values["pending_id"]),
            biz_date=_day(values["biz_date"]),
            value_date=_day(values["value_date"]),
            at=_moment(values["at"]),
        )

    def side(
        self, place: int, name: Literal["debit", "credit"], *, reader: UUID | None
    ) -> ReceiptSide:
        """Return one side, open for its owner and for those who may see all (None)."""
        row = self._row(place)
        start = place * 2 * _SALT + (_SALT if name == "credit" else 0)
        salt, side = self._salts[start : start + _SALT], row[_SIDES[name]]
        account = self._accounts[side[:8]]
        if reader is not None and account.owner != reader:
            commitment = sha256(b"\x02" + salt + side + account.packed).digest()
            return ReceiptSide(sealed=text_of(commitment))
        return ReceiptSide(
            salt=text_of(salt),
            account=account.id,
            owner=None if account.owner == NOBODY else account.owner,
            kind=account.kind,
            previous=_some(side[8:24]),
            after=int.from_bytes(side[24:], "big", signed=True),
        )


class Journal(Struct, frozen=True):
    """The journal of one book, as proofs read it."""

    proofs: Proofs
    on: Db | Tx
    book: int
    blind: bytes


async def packed_rows(
    journal: Journal, batches: Sequence[store.BatchLink], first: int, last: int
) -> Packed:
    """Return the transfers with seqs from ``first`` to ``last``, which these batches hold.

    Raises:
        TreeBroken: the journal lacks some of them, or has others in their places.
    """
    spans = merged(batch.spans for batch in batches)
    raw = await store.ROWS.one(journal.on, journal.book, *spans, first, last)
    rows = np.frombuffer(raw, ROW).copy()
    if not np.array_equal(rows["seq"], np.arange(first, last + 1)):
        raise TreeBroken(journal.book, f"the journal lacks transfers between {first} and {last}")
    rows["biz_date"] += _DAYS_TO_2000
    rows["value_date"] += _DAYS_TO_2000
    rows["at"] += _MICROSECONDS_TO_2000
    await _know_accounts(journal, rows)
    return Packed(rows, journal.blind, journal.proofs.accounts)


async def _know_accounts(journal: Journal, rows: Rows) -> None:
    """Fill the cache with every account these rows name.

    Raises:
        TreeBroken
    """
    known = journal.proofs.accounts
    if len(known) > _ACCOUNTS_MAX:
        known.clear()
    named = np.unique(np.concatenate([rows["debit_account"], rows["credit_account"]])).tolist()
    unknown = [account for account in named if _account_bytes(account) not in known]
    if not unknown:
        return
    for row in await store.ACCOUNTS.all(journal.on, journal.book, unknown):
        known[_account_bytes(row.id)] = AccountFacts(
            id=row.id,
            kind=row.kind,
            owner=row.owner,
            currency=row.currency,
            packed=row.owner.bytes + row.kind.encode(),
            currency_bytes=row.currency.encode(),
        )
    missing = [account for account in unknown if _account_bytes(account) not in known]
    if missing:
        raise TreeBroken(journal.book, f"the journal names account {missing[0]}, which is missing")


def code_leaves(codes: Sequence[LedgerCode]) -> list[bytes]:
    """Return the leaves of the tree of posting codes: number n is leaf n - 1."""
    words = {code.number: code.code for code in codes}
    numbers = range(1, max(words, default=0) + 1)
    return [
        leaf_hash(number.to_bytes(4, "big") + words.get(number, "").encode()) for number in numbers
    ]


def _salts_of(rows: Rows, blind: bytes) -> bytes:
    """Return 32 bytes for each row: the salts of its two sides.

    Those of a block are one output of SHAKE-256 over the key, the book and the block's number.
    """
    if not len(rows):
        return b""
    book, first, last = rows["book"][:1].tobytes(), int(rows["seq"][0]), int(rows["seq"][-1])
    blocks = range((first - 1) // BLOCK, (last - 1) // BLOCK + 1)
    salts = b"".join(
        shake_256(_SALTING + blind + book + block.to_bytes(8, "big")).digest(BLOCK * 2 * _SALT)
        for block in blocks
    )
    start = first - 1 - blocks[0] * BLOCK
    return salts[start * 2 * _SALT : (start + len(rows)) * 2 * _SALT]


def text_of(raw: bytes) -> str:
    """Return bytes as receipts and notes write them."""
    return base64.b64encode(raw).decode()


def moment_text(at: datetime) -> str:
    """Return a moment as receipts and notes write it: UTC with six decimals."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _moment(microseconds: int) -> str:
    return moment_text(_EPOCH + timedelta(microseconds=microseconds))


def _day(days: int) -> date:
    return _EPOCH.date() + timedelta(days=days)


def _some(raw: bytes) -> UUID | None:
    return None if raw == _NOTHING else UUID(bytes=raw)


def _account_bytes(account: int) -> bytes:
    return account.to_bytes(8, "big")
