"""A shelf at an S3-compatible store: one request for a small file, parts for a large one.

Addresses are path-style (`https://host/bucket/name`), which every such store understands. What is
sent lies sealed already, so the store can neither read nor exchange it unnoticed.
"""

from __future__ import annotations

import asyncio
import re
from hashlib import sha256
from pathlib import Path
from typing import Final
from urllib.parse import quote
from xml.sax.saxutils import escape

from tongbao.infra.blobs.model import (
    BLOB_BYTES_MAX,
    BlobNotFound,
    BlobStoreRefused,
    BlobStoreUnavailable,
)
from tongbao.infra.blobs.sigv4 import S3Key, signed_headers
from tongbao.infra.http import HttpClient, HttpReply, HttpSilence
from tongbao.kernel.clock import real_now

PART_BYTES: Final = 8 * 1024 * 1024
"""S3 takes parts of 5 MiB and more, all but the last; this much of a file is in memory at once."""
TIMEOUT_S: Final = 60.0
_REPLY_MAX: Final = 1024 * 1024
_FILE_MAX: Final = BLOB_BYTES_MAX * 2
_ERROR_CODE: Final = re.compile(rb"<Code>([A-Za-z]{1,64})</Code>")
_UPLOAD_ID: Final = re.compile(rb"<UploadId>([^<>&]{1,1024})</UploadId>")


class S3Shelf:
    """Keeps blobs in a bucket. ``url`` is the bucket's own, without a slash at its end."""

    def __init__(self, http: HttpClient, url: str, key: S3Key) -> None:
        self._http = http
        self._url = url.rstrip("/")
        self._key = key

    async def keep(self, name: str, path: Path) -> None:
        """Send a file; the store shows it whole or not at all.

        Raises:
            BlobStoreUnavailable, BlobStoreRefused
        """
        size = (await asyncio.to_thread(path.stat)).st_size
        if size > PART_BYTES:
            await self._keep_in_parts(name, path)
        else:
            await self._call("PUT", name, body=await asyncio.to_thread(path.read_bytes))

    async def fetch(self, name: str, path: Path) -> None:
        """Bring a file to ``path``.

        Raises:
            BlobNotFound, BlobStoreUnavailable, BlobStoreRefused
        """
        url = f"{self._url}/{name}"
        headers = signed_headers("GET", url, self._key, at=real_now())
        try:
            got = await self._http.download(
                url, headers, path, timeout_s=TIMEOUT_S, max_bytes=_FILE_MAX
            )
        except HttpSilence as silence:
            raise BlobStoreUnavailable(reason=silence.reason) from silence
        _check(name, got.status, got.body)

    async def remove(self, name: str) -> None:
        """Forget a file; there may be none.

        Raises:
            BlobStoreUnavailable, BlobStoreRefused
        """
        await self._call("DELETE", name)

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()

    async def _keep_in_parts(self, name: str, path: Path) -> None:
        begun = await self._call("POST", name, "uploads=")
        found = _UPLOAD_ID.search(begun.body)
        if found is None:
            raise BlobStoreRefused(reason="no upload id")
        upload = f"uploadId={quote(found[1].decode(), safe='')}"
        try:
            tags = await self._send_parts(name, path, upload)
            done = await self._call("POST", name, upload, body=_completion(tags))
            _check_completed(done.body)
        except BaseException:
            # What was sent costs room until somebody says that it is not wanted.
            await self._give_up(name, upload)
            raise

    async def _send_parts(self, name: str, path: Path, upload: str) -> list[str]:
        tags: list[str] = []
        with await asyncio.to_thread(path.open, "rb") as file:
            while part := await asyncio.to_thread(file.read, PART_BYTES):
                query = f"partNumber={len(tags) + 1}&{upload}"
                reply = await self._call("PUT", name, query, body=part)
                tags.append(reply.headers.get("etag", ""))
        return tags

    async def _give_up(self, name: str, upload: str) -> None:
        try:
            await self._call("DELETE", name, upload)
        except (BlobStoreUnavailable, BlobStoreRefused, BlobNotFound):
            return  # the bucket's own rule for parts that were never completed takes them away

    async def _call(
        self, method: str, name: str, query: str = "", *, body: bytes = b""
    ) -> HttpReply:
        url = f"{self._url}/{name}" + (f"?{query}" if query else "")
        digest = await asyncio.to_thread(lambda: sha256(body).hexdigest())
        headers = signed_headers(method, url, self._key, at=real_now(), payload_sha256=digest)
        try:
            reply = await self._http.send(
                method, url, headers, body, timeout_s=TIMEOUT_S, reply_max_bytes=_REPLY_MAX
            )
        except HttpSilence as silence:
            raise BlobStoreUnavailable(reason=silence.reason) from silence
        _check(name, reply.status, reply.body)
        return reply


def _check(name: str, status: int, body: bytes) -> None:
    """Raise what an answer means that is not a success.

    Raises:
        BlobNotFound, BlobStoreUnavailable, BlobStoreRefused
    """
    if status in {200, 204}:
        return
    found = _ERROR_CODE.search(body)
    code = found[1].decode() if found else str(status)
    if status == 404 and code in {"NoSuchKey", "404"}:
        raise BlobNotFound(blob=name)
    if status in {408, 429} or status >= 500:
        raise BlobStoreUnavailable(reason=code)
    raise BlobStoreRefused(reason=code)


def _check_completed(body: bytes) -> None:
    """Raise where this one call fails after it has said 200, as S3 warns that it may."""
    if b"<Error>" in body:
        raise BlobStoreUnavailable(reason="not completed")


def _completion(tags: list[str]) -> bytes:
    parts = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(tag)}</ETag></Part>"
        for number, tag in enumerate(tags, 1)
    )
    space = "http://s3.amazonaws.com/doc/2006-03-01/"
    return f'<CompleteMultipartUpload xmlns="{space}">{parts}</CompleteMultipartUpload>'.encode()
