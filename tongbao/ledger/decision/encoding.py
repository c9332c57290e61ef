"""Journal records as bytes: what COPY takes, and the canonical bytes that digests are of.

The canonical bytes of a transfer are its columns in order, packed and big-endian, with times and
dates since 1970 and a missing id as zeros. PostgreSQL's binary form puts the length of each column
before it, leaves missing ones out, and counts from 2000.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from hashlib import sha256
from struct import Struct as Packing
from typing import Final, Protocol

import numpy as np

from tongbao.ledger.decision.records import JOURNAL, NO_ID, Records, days, microseconds
from tongbao.ledger.rows import LedgerTransfer

JOURNAL_COLUMNS: Final[tuple[str, ...]] = JOURNAL.names or ()
"""The columns of ledger_transfer in the order of a payload."""

_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_NULL: Final = -1
_NULLABLE: Final = ("pending_id", "debit_previous", "credit_previous")
_DAYS_TO_2000: Final = 10_957
_SHIFTED: Final = {
    "biz_date": _DAYS_TO_2000,
    "value_date": _DAYS_TO_2000,
    "at": _DAYS_TO_2000 * 86_400_000_000,
}
_NO_ID: Final = np.frombuffer(NO_ID, "V16")[0]
_REQUEST_HEAD: Final = Packing(">16s32sBH")
_REQUEST_TAIL: Final = Packing(">qi")
_RECORD: Final = Packing(">i16sqqqqhhi16s16s16s16sqqiiq")


class RequestLike(Protocol):
    """What the digest of a batch says of a recorded answer."""

    @property
    def id(self) -> bytes:
        """The group."""

    @property
    def body_hash(self) -> bytes:
        """What was asked."""

    @property
    def status(self) -> str:
        """``created`` or ``refused``."""

    @property
    def code(self) -> str | None:
        """Why it was refused."""

    @property
    def seq(self) -> int | None:
        """Its last transfer."""

    @property
    def transfer_count(self) -> int:
        """How many it has."""


def copy_payload(journal: Records) -> bytes:
    """Return the journal records as the binary COPY of `JOURNAL_COLUMNS` into ledger_transfer."""
    missing = {name: journal[name] == _NO_ID for name in _NULLABLE}
    never = frozenset(name for name, nulls in missing.items() if nulls.all())
    rows = np.empty(len(journal), _row(never))
    rows["columns"] = len(JOURNAL_COLUMNS)
    for name in JOURNAL_COLUMNS:
        if name in never:
            rows[f"{name} length"] = _NULL
            continue
        rows[f"{name} length"] = JOURNAL[name].itemsize
        rows[name] = journal[name] - _SHIFTED[name] if name in _SHIFTED else journal[name]
    kept = None
    for name in (name for name in _NULLABLE if name not in never and missing[name].any()):
        rows[f"{name} length"][missing[name]] = _NULL
        if kept is None:
            kept = np.ones((len(rows), rows.itemsize), np.bool_)
        kept[missing[name], _offset(never, name) : _offset(never, name) + 16] = False
    if kept is None:
        return _HEADER + rows.tobytes() + _TRAILER
    return _HEADER + rows.view(np.uint8).reshape(kept.shape)[kept].tobytes() + _TRAILER


@cache
def _row(never: frozenset[str]) -> np.dtype[np.void]:
    """Return the form of one row in which these columns are always missing."""
    fields = [("columns", ">i2")]
    for name in JOURNAL_COLUMNS:
        fields.append((f"{name} length", ">i4"))
        if name not in never:
            fields.append((name, JOURNAL[name].str))
    return np.dtype(fields)


def _offset(never: frozenset[str], name: str) -> int:
    """Return where in such a row the bytes of a column begin."""
    before = JOURNAL_COLUMNS[: JOURNAL_COLUMNS.index(name)]
    return (
        2 + 4 * (len(before) + 1) + sum(JOURNAL[one].itemsize for one in before if one not in never)
    )


def batch_digest(journal: Records, requests: Iterable[RequestLike]) -> bytes:
    """Return the SHA-256 of a batch: its transfers in order of seq, its answers in order of id."""
    digest = sha256(journal.tobytes())
    for request in sorted(requests, key=lambda request: request.id):
        code = (request.code or "").encode()
        is_refused = request.status == "refused"
        digest.update(_REQUEST_HEAD.pack(request.id, request.body_hash, is_refused, len(code)))
        digest.update(code)
        digest.update(_REQUEST_TAIL.pack(request.seq or 0, request.transfer_count))
    return digest.digest()


def chain_hash(before: bytes, batch: int, digest: bytes) -> bytes:
    """Return the hash of a batch: SHA-256 of the one before, its own number and its digest."""
    return sha256(before + batch.to_bytes(8, "big") + digest).digest()


def journal_of(rows: Sequence[LedgerTransfer]) -> Records:
    """Return stored transfers as journal records, byte for byte as they were decided."""
    packed = [
        _RECORD.pack(
            row.book,
            row.id.bytes,
            row.seq,
            row.debit_account,
            row.credit_account,
            row.amount,
            row.kind,
            row.flags,
            row.code,
            row.reference.bytes,
            *(
                NO_ID if one is None else one.bytes
                for one in (row.pending_id, row.debit_previous, row.credit_previous)
            ),
            row.debit_after,
            row.credit_after,
            days(row.biz_date),
            days(row.value_date),
            microseconds(row.at),
        )
        for row in rows
    ]
    return np.frombuffer(bytearray().join(packed), JOURNAL)
