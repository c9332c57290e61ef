"""What an archived month looks like on disk: CSV that any program reads, and digests of it.

    2026-08/
      manifest.json       the month, its books, and of each file: columns, rows, digests
      transfers.csv.gz    ledger_transfer, by book and id
      requests.csv.gz     ledger_request, by book and id
      batches.csv.gz      the commits with a transfer of the month: digest and chain hash
      accounts.csv.gz     what the month did to each account's counters
      codes.csv.gz        the words that the numbers in `code` stand for

The commits' digests stay in the database as well, so that a file can be held against them.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.infra.db import Tx
from tongbao.ledger.archive._store import LONG_S
from tongbao.ledger.archive.model import (
    ArchiveFileDiffers,
    LedgerMonthBook,
    lowest_id,
    month_after,
    partition_of,
)

_CHUNK: Final = 1 << 20
_COLUMNS: Final[Mapping[str, str]] = {
    "transfers": "book, id, seq, debit_account, credit_account, amount, kind, flags, code,"
    " reference, pending_id, debit_previous, credit_previous, debit_after, credit_after, biz_date,"
    " value_date, at",
    "requests": "book, id, body_hash, status, code, seq, transfer_count, batch, at",
    "batches": "book, batch, epoch, first_seq, transfers, requests, spans, digest, hash, at",
    "accounts": "book, month, account, debits_pending, debits_posted, credits_pending,"
    " credits_posted, touches, last_seq, last_transfer",
    "codes": "number, code",
}
ROWS_OF: Final[Mapping[str, str]] = {"ledger_transfer": "transfers", "ledger_request": "requests"}
"""Which file has the rows of which partitioned table."""


class ArchiveFile(Struct, frozen=True):
    """One file of the archive; ``csv_sha256`` is of what is in it."""

    name: str
    columns: str
    rows: int
    bytes: int
    sha256: str
    csv_sha256: str


class Manifest(Struct, frozen=True):
    """What a folder of the archive has."""

    month: date
    lowest_id: UUID
    below_id: UUID
    made_at: datetime
    books: tuple[LedgerMonthBook, ...]
    files: tuple[ArchiveFile, ...]
    format: int = 1


async def write_month(
    tx: Tx, month: date, folder: Path, books: tuple[LedgerMonthBook, ...]
) -> bytes:
    """Write a month's files and their manifest, and return the manifest's SHA-256.

    All is on disk when this returns.
    """
    os.makedirs(folder)  # noqa: PTH103 - what follows blocks as well, and nobody waits for it
    files = [
        await _write(tx, folder / f"{name}.csv.gz", columns, _select(name, month))
        for name, columns in _COLUMNS.items()
    ]
    manifest = Manifest(
        month=month,
        lowest_id=lowest_id(month),
        below_id=lowest_id(month_after(month)),
        made_at=tx.now,
        books=books,
        files=tuple(files),
    )
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    with (folder / "manifest.json").open("wb") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    _sync(folder)
    _sync(folder.parent)
    return hashlib.sha256(text).digest()


def read_manifest(folder: Path, expected_sha256: bytes) -> Manifest:
    """Return a folder's manifest.

    Raises:
        ArchiveFileDiffers
    """
    try:
        text = (folder / "manifest.json").read_bytes()
    except OSError as failure:
        raise ArchiveFileDiffers(file=str(folder / "manifest.json")) from failure
    if hashlib.sha256(text).digest() != expected_sha256:
        raise ArchiveFileDiffers(file=str(folder / "manifest.json"))
    return msgspec.json.decode(text, type=Manifest)


def check_files(folder: Path, manifest: Manifest) -> None:
    """Read every file to its end and compare it, packed and unpacked, with the manifest.

    Raises:
        ArchiveFileDiffers
    """
    for file in manifest.files:
        path = folder / file.name
        unpacked = hashlib.sha256()
        try:
            with path.open("rb") as raw:
                packed = hashlib.file_digest(raw, "sha256").hexdigest()
            if packed == file.sha256:
                with gzip.open(path) as csv:
                    while chunk := csv.read(_CHUNK):
                        unpacked.update(chunk)
        except OSError as failure:
            raise ArchiveFileDiffers(file=str(path)) from failure
        if packed != file.sha256 or unpacked.hexdigest() != file.csv_sha256:
            raise ArchiveFileDiffers(file=str(path))


async def check_rows(tx: Tx, manifest: Manifest) -> None:
    """Read the month's tables once more and compare them with what is in the files.

    Raises:
        ArchiveFileDiffers
    """
    for file in manifest.files:
        name = file.name.removesuffix(".csv.gz")
        if name not in ROWS_OF.values():
            continue
        digest = hashlib.sha256()

        async def add(chunk: bytes, digest: hashlib._Hash = digest) -> None:
            digest.update(chunk)

        await _copy_out(tx, _select(name, manifest.month), add)
        if digest.hexdigest() != file.csv_sha256:
            raise ArchiveFileDiffers(file=file.name)


async def load_rows(tx: Tx, manifest: Manifest, folder: Path, parent: str) -> None:
    """Fill a month's table, made anew and empty, from its file."""
    name = ROWS_OF[parent]

    async def rows() -> AsyncIterator[bytes]:
        with gzip.open(folder / f"{name}.csv.gz") as csv:
            while chunk := csv.read(_CHUNK):
                yield chunk

    connection = await tx.begun()
    await connection.copy_to_table(
        partition_of(parent, manifest.month),
        source=rows(),
        columns=_COLUMNS[name].split(", "),
        format="csv",
        header=True,
        timeout=LONG_S,
    )


def _select(name: str, month: date) -> str:
    low, high = lowest_id(month), lowest_id(month_after(month))
    sources = {
        "transfers": f"{partition_of('ledger_transfer', month)} order by book, id",
        "requests": f"{partition_of('ledger_request', month)} order by book, id",
        "batches": "ledger_batch where exists (select from"
        f" generate_series(1, cardinality(spans), 2) as i where spans[i] < '{high}'"
        f" and spans[i + 1] >= '{low}') order by book, batch",
        "accounts": f"ledger_month_account where month = '{month}' order by book, account",
        "codes": "ledger_code order by number",
    }
    return f"select {_COLUMNS[name]} from {sources[name]}"


async def _write(tx: Tx, path: Path, columns: str, select: str) -> ArchiveFile:
    digest = hashlib.sha256()
    with path.open("wb") as raw:
        with gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:

            async def put(chunk: bytes) -> None:
                digest.update(chunk)
                packed.write(chunk)

            rows = await _copy_out(tx, select, put)
        raw.flush()
        os.fsync(raw.fileno())
    with path.open("rb") as written:
        packed_digest = hashlib.file_digest(written, "sha256").hexdigest()
        size = written.tell()
    return ArchiveFile(path.name, columns, rows, size, packed_digest, digest.hexdigest())


async def _copy_out(tx: Tx, select: str, put: object) -> int:
    connection = await tx.begun()
    status: str = await connection.copy_from_query(
        select, output=put, format="csv", header=True, timeout=LONG_S
    )
    return int(status.rpartition(" ")[2])


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
