"""Put, read and delete documents: looked at, capped, digested and sealed on their way.

Put a document first and commit the row that names it afterwards: a crash between the two leaves a
file that nobody names, never a row without its file. `infra.blob_uploads` gives names, each once,
and takes away what nobody named.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

from tongbao.infra.blobs.envelope import Sealing, opened
from tongbao.infra.blobs.folder import make_private
from tongbao.infra.blobs.model import (
    BLOB_BYTES,
    BLOB_BYTES_MAX,
    HEAD_BYTES,
    Blob,
    BlobDamaged,
    BlobEmpty,
    BlobKindDiffers,
    BlobStoreUnavailable,
    BlobTooLarge,
    Kind,
    Shelf,
    check_name,
)
from tongbao.infra.blobs.scanning import Scan, Scanner
from tongbao.infra.crypto import Keyring
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import real_now

_STALE_S: Final = 24 * 3600.0


class Blobs:
    """The document store. ``folder`` is for files on their way, and may be emptied at any time."""

    def __init__(
        self, shelf: Shelf, keyring: Keyring, folder: Path, scanner: Scanner | None = None
    ) -> None:
        self._scanner = scanner or Scanner()
        self._shelf = shelf
        self._keyring = keyring
        self._folder = folder

    async def put(
        self,
        name: str,
        content: bytes | AsyncIterator[bytes],
        *,
        kind: Kind,
        bytes_max: int = BLOB_BYTES,
    ) -> Blob:
        """Store a document whole or not at all, and return what the caller's row keeps of it.

        Raises:
            BlobNameMalformed, BlobEmpty, BlobTooLarge, BlobKindDiffers, BlobMalicious,
            ScannerUnavailable, BlobStoreUnavailable, BlobStoreRefused
        """
        check_name(name)
        limit = min(bytes_max, BLOB_BYTES_MAX)
        with self._half() as half:
            async with self._scanner.watching() as scan:
                pieces = _scanned(scan, _pieces(content))
                blob = await self._seal(name, pieces, half, kind=kind, bytes_max=limit)
                await scan.check()
            failpoint("blobs.before_keep")
            await self._shelf.keep(name, half)
        failpoint("blobs.after_keep")
        return blob

    async def read(self, blob: Blob) -> AsyncIterator[bytes]:
        """Yield a document piece by piece.

        Every piece is authentic, but only the end of the stream says that all of it came and that
        it is the document of this digest; a caller that sends it on breaks off when that fails.

        Raises:
            BlobNotFound, BlobDamaged, BlobStoreUnavailable, BlobStoreRefused
        """
        digest = hashlib.sha256()
        with self._half() as half:
            await self._shelf.fetch(check_name(blob.name), half)
            with half.open("rb") as file:
                kind, pieces = opened(self._keyring, blob.name, file)
                if kind is not blob.kind:
                    raise BlobDamaged(blob=blob.name)
                for piece in pieces:
                    digest.update(piece)
                    yield piece
        if digest.hexdigest() != blob.sha256:
            raise BlobDamaged(blob=blob.name)

    async def get(self, blob: Blob) -> bytes:
        """Return a document, checked to its end.

        Raises:
            BlobNotFound, BlobDamaged, BlobStoreUnavailable, BlobStoreRefused
        """
        return b"".join([piece async for piece in self.read(blob)])

    async def delete(self, name: str) -> None:
        """Remove a document; one that is not there is removed already.

        Raises:
            BlobNameMalformed, BlobStoreUnavailable, BlobStoreRefused
        """
        await self._shelf.remove(check_name(name))

    async def close(self) -> None:
        """Close every connection to the store."""
        await self._shelf.close()

    def sweep(self) -> int:
        """Remove what dead processes left half written a day ago or more; say how many files."""
        if not self._folder.is_dir():
            return 0
        oldest = real_now().timestamp() - _STALE_S
        stale = [each for each in self._folder.glob("*.half") if _changed_at(each) < oldest]
        for each in stale:
            each.unlink(missing_ok=True)
        return len(stale)

    async def _seal(
        self,
        name: str,
        content: AsyncIterator[bytes],
        half: Path,
        *,
        kind: Kind,
        bytes_max: int,
    ) -> Blob:
        digest, size, head = hashlib.sha256(), 0, b""
        try:
            with open(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123, ASYNC230 - pieces are small, and fsync goes to a thread
                sealing = Sealing(self._keyring, name, kind, file)
                async for piece in content:
                    size += len(piece)
                    if size > bytes_max:
                        raise BlobTooLarge(bytes_max=bytes_max)
                    if len(head) < HEAD_BYTES:
                        head += piece[: HEAD_BYTES - len(head)]
                    digest.update(piece)
                    sealing.add(piece)
                _check_kind(kind, head)
                sealing.finish()
                file.flush()
                await asyncio.to_thread(os.fsync, file.fileno())
        except OSError as failure:  # no room, most of the time
            raise BlobStoreUnavailable(reason=type(failure).__name__) from failure
        return Blob(name, kind, size, digest.hexdigest())

    @contextmanager
    def _half(self) -> Iterator[Path]:
        """Give a path for a file on its way, which is gone afterwards whatever happened."""
        make_private(self._folder)
        half = self._folder / f"{uuid4().hex}.half"
        try:
            yield half
        finally:
            half.unlink(missing_ok=True)


def _check_kind(kind: Kind, head: bytes) -> None:
    if not head:
        raise BlobEmpty
    if not kind.fits(head):
        raise BlobKindDiffers(kind=kind.value)


async def _scanned(scan: Scan, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for piece in pieces:
        await scan.feed(piece)
        yield piece


async def _pieces(content: bytes | AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    async for piece in content:
        yield piece


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # its owner has finished meanwhile
        return real_now().timestamp()
