"""Have a document scanned for malware while it is on its way to the store.

The scanner is one that speaks clamd's protocol (clamd(8), `INSTREAM`), on a unix socket or a port
of this network: after ``zINSTREAM`` and a zero byte come pieces, each behind its length in four
bytes, and a length of nought; the answer is ``stream: OK``, ``stream: <name> FOUND``, or an error.
Whatever is no ``OK`` keeps nothing: a scanner that is away does not open the door.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol
from urllib.parse import urlsplit

import structlog

from tongbao.kernel.errors import Busy, Rejected

_CONNECT_S: Final = 5.0
_ANSWER_S: Final = 60.0
_ANSWER_MAX: Final = 4096
_FOUND: Final = re.compile(rb"stream: (.{1,200}) FOUND")

log = structlog.get_logger()


class BlobMalicious(Rejected):
    """A scanner knows the document as malware; it was not kept."""

    code = "blob.malicious"
    advice = "Do not open the file. Scan the machine it comes from, and send a clean copy."
    advice_zh = "该文件被识别为恶意文件，未予保存。请勿打开，并检查来源设备后重新上传。"


class ScannerUnavailable(Busy):
    """The scanner did not say whether the document is clean, so it was not kept."""

    code = "blob.scanner_unavailable"
    advice = "Repeat the same request; if it goes on, look at the scanner and at its limits."
    advice_zh = "文件扫描服务暂不可用，请重试；若持续出现，请检查扫描服务及其大小限制。"
    retry_after_s = 5


class Scan(Protocol):
    """One document on its way through a scanner."""

    async def feed(self, piece: bytes) -> None:
        """Give the scanner the next piece.

        Raises:
            ScannerUnavailable
        """

    async def check(self) -> None:
        """Raise unless the scanner says that all it was given is clean.

        Raises:
            BlobMalicious, ScannerUnavailable
        """


class Unscanned:
    """What stands where no scanner is named: nothing is asked."""

    async def feed(self, piece: bytes) -> None:
        """Do nothing."""

    async def check(self) -> None:
        """Do nothing."""


class Clamd:
    """One document on its way through clamd."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def feed(self, piece: bytes) -> None:
        """Give the scanner the next piece.

        Raises:
            ScannerUnavailable
        """
        if piece:  # a length of nought would be the end
            self._writer.write(len(piece).to_bytes(4, "big") + piece)
            await self._drain()

    async def check(self) -> None:
        """Raise unless the scanner says that all it was given is clean.

        Raises:
            BlobMalicious, ScannerUnavailable
        """
        self._writer.write(bytes(4))
        await self._drain()
        try:
            async with asyncio.timeout(_ANSWER_S):
                said = await self._reader.readuntil(b"\0")
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as failure:
            raise ScannerUnavailable(reason=type(failure).__name__) from None
        if said == b"stream: OK\0":
            return
        if found := _FOUND.fullmatch(said[:-1]):
            log.warning("blob_malicious", found=found[1].decode(errors="replace"))
            raise BlobMalicious
        raise ScannerUnavailable(reason=said[:-1].decode(errors="replace")[:100])

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._writer.drain()
        except (OSError, TimeoutError) as failure:
            raise ScannerUnavailable(reason=type(failure).__name__) from None


class Scanner:
    """Where documents are scanned: ``tcp://host:port``, ``unix:///path``, or nowhere."""

    def __init__(self, url: str | None = None) -> None:
        self._url = urlsplit(url) if url else None

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[Scan]:
        """Give a scan for one document.

        Raises:
            ScannerUnavailable
        """
        if self._url is None:
            yield Unscanned()
            return
        reader, writer = await self._connect(self._url.hostname, self._url.port, self._url.path)
        try:
            writer.write(b"zINSTREAM\0")
            yield Clamd(reader, writer)
        finally:
            writer.close()

    async def _connect(
        self, host: str | None, port: int | None, path: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            async with asyncio.timeout(_CONNECT_S):
                if host is None:
                    return await asyncio.open_unix_connection(path, limit=_ANSWER_MAX)
                return await asyncio.open_connection(host, port, limit=_ANSWER_MAX)
        except (OSError, TimeoutError) as failure:
            raise ScannerUnavailable(reason=type(failure).__name__) from None
