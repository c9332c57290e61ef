"""A document passes the scanner before it is kept; without its word nothing is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tongbao.infra.blobs import scanning
from tongbao.infra.blobs.folder import FolderShelf
from tongbao.infra.blobs.model import BlobTooLarge, Kind
from tongbao.infra.blobs.scanning import BlobMalicious, Scanner, ScannerUnavailable
from tongbao.infra.blobs.store import Blobs
from tongbao.infra.crypto import Keyring

# The test file of EICAR, in two halves so that no scanner takes this file for it.
EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
KEYS = Keyring([bytes(range(32))])
CLEAN, FOUND = b"stream: OK\0", b"stream: Win.Test.EICAR_HDB-1 FOUND\0"
TOO_MUCH = b"INSTREAM size limit exceeded. ERROR\0"


class OtherSide:
    """clamd as clamd(8) has it: pieces behind their lengths, and one line at the end."""

    def __init__(self, answer: Callable[[bytes], bytes | None]) -> None:
        self.heard: list[bytes] = []
        self._answer = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            assert await reader.readuntil(b"\0") == b"zINSTREAM\0"
            whole = b""
            while size := int.from_bytes(await reader.readexactly(4), "big"):
                whole += await reader.readexactly(size)
            self.heard.append(whole)
            if (said := self._answer(whole)) is not None:
                writer.write(said)
                await writer.drain()
        except asyncio.IncompleteReadError:
            pass  # whoever sent broke off
        finally:
            writer.close()


def judged(whole: bytes) -> bytes:
    return FOUND if EICAR in whole else CLEAN


@asynccontextmanager
async def scanned(
    folder: Path, answer: Callable[[bytes], bytes | None] = judged, *, over_tcp: bool = False
) -> AsyncIterator[tuple[Blobs, OtherSide]]:
    other, path = OtherSide(answer), folder / "clamd.ctl"
    if over_tcp:
        server = await asyncio.start_server(other.serve, "127.0.0.1", 0)
        url = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    else:
        server = await asyncio.start_unix_server(other.serve, path)
        url = f"unix://{path}"
    async with server:
        yield Blobs(FolderShelf(folder / "blobs"), KEYS, folder / "halves", Scanner(url)), other


def kept(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.suffix in {".blob", ".half"}]


async def pieces(content: bytes, size: int = 7) -> AsyncIterator[bytes]:
    yield b""
    for start in range(0, len(content), size):
        yield content[start : start + size]


@pytest.mark.parametrize("over_tcp", [False, True])
async def test_what_is_clean_is_kept_and_was_seen_whole(tmp_path: Path, over_tcp: bool) -> None:
    async with scanned(tmp_path, over_tcp=over_tcp) as (blobs, other):
        one = await blobs.put("a/one", pieces(b"%PDF-1.7 a licence"), kind=Kind.PDF)
        await blobs.put("a/two", bytes(3_000_000), kind=Kind.BYTES)
        assert await blobs.get(one) == b"%PDF-1.7 a licence"
    assert other.heard == [b"%PDF-1.7 a licence", bytes(3_000_000)]


async def test_malware_is_refused_and_nothing_of_it_is_kept(tmp_path: Path) -> None:
    async with scanned(tmp_path) as (blobs, other):
        with pytest.raises(BlobMalicious):
            await blobs.put("a/one", pieces(b"%PDF-1.7 " + EICAR), kind=Kind.PDF)
    assert EICAR in other.heard[0]
    assert kept(tmp_path) == []


@pytest.mark.parametrize(
    "said", [None, b"", TOO_MUCH, b"stream: OK", b"OK\0", b"stream:  FOUND\0", b"x" * 10_000]
)
async def test_without_its_word_nothing_is_kept(tmp_path: Path, said: bytes | None) -> None:
    async with scanned(tmp_path, lambda _: said) as (blobs, _):
        with pytest.raises(ScannerUnavailable):
            await blobs.put("a/one", b"%PDF-1.7", kind=Kind.PDF)
    assert kept(tmp_path) == []


async def test_a_scanner_that_is_away_or_silent_lets_nothing_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Blobs(FolderShelf(tmp_path), KEYS, tmp_path, Scanner("unix:///nowhere/clamd.ctl"))
    with pytest.raises(ScannerUnavailable):
        await away.put("a/one", b"%PDF-1.7", kind=Kind.PDF)

    monkeypatch.setattr(scanning, "_ANSWER_S", 0.05)
    silent = asyncio.Event()

    async def wait(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await silent.wait()
        writer.close()

    async with await asyncio.start_unix_server(wait, tmp_path / "silent"):
        blobs = Blobs(FolderShelf(tmp_path), KEYS, tmp_path, Scanner(f"unix://{tmp_path}/silent"))
        for size in (8, 8_000_000):  # it waits for the answer, or for room to send
            with pytest.raises(ScannerUnavailable):
                await blobs.put("a/one", bytes(size), kind=Kind.BYTES)
        silent.set()
    assert kept(tmp_path) == []


async def test_a_document_that_is_too_long_is_not_sent_on(tmp_path: Path) -> None:
    async with scanned(tmp_path) as (blobs, other):
        with pytest.raises(BlobTooLarge):
            await blobs.put("a/one", pieces(bytes(100), 10), kind=Kind.BYTES, bytes_max=50)
    assert other.heard == []
    assert kept(tmp_path) == []
