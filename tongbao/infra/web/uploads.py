"""A file as the whole body of a request: told of by its digest, bounded, and read piece by piece.

    Content-Type: image/png
    Content-Digest: sha-256=:…:                                            (RFC 9530)

What is signed is the digest, as of any body. So it is proved who sends before anything of the file
is read, no process holds a file whole, and what comes is compared with the digest at its end.
"""

from __future__ import annotations

import asyncio
import binascii
import re
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from hashlib import sha256
from typing import Any, Final

from tongbao.infra.crypto import constant_time_equal
from tongbao.infra.web.caller import Upload
from tongbao.infra.web.problem import MediaTypeUnsupported
from tongbao.kernel.clock import monotonic
from tongbao.kernel.errors import Invalid, TooLarge

SECONDS_MAX: Final = 120
_DIGEST: Final = re.compile(r"(?:.*,)?\s*sha-256=:([A-Za-z0-9+/]{43}=):\s*(?:,.*)?")
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class UploadTooLarge(TooLarge):
    """The file is larger than this route takes."""

    code = "upload.too_large"
    advice = "Send a file of at most as many bytes as facts say."
    advice_zh = "文件超过该接口允许的字节数（见 facts），请压缩后重新上传。"


class UploadTypeUnsupported(MediaTypeUnsupported):
    """The file is of none of the kinds that this route takes, or it is compressed."""

    code = "upload.type_unsupported"
    advice = "Send one of the types that facts name as Content-Type, and no Content-Encoding."
    advice_zh = "请将 Content-Type 设为 facts 所列类型之一，且不要压缩。"


class UploadDigestMissing(Invalid):
    """A file comes without the digest that is signed for it."""

    code = "upload.digest_missing"
    advice = "Send Content-Digest: sha-256=:<base64>: of the file, and sign that digest."
    advice_zh = "请携带 Content-Digest: sha-256=:<base64>:，并以该摘要参与签名。"


class UploadDigestDiffers(Invalid):
    """The file is not the one that its digest tells of."""

    code = "upload.digest_differs"
    advice = "Take the digest of exactly the bytes that are sent, and send them again."
    advice_zh = "Content-Digest 必须是实际发送字节的 SHA-256 摘要，请重新上传。"


class UploadIncomplete(Invalid):
    """The file did not come whole in time."""

    code = "upload.incomplete"
    advice = "Send the whole file within two minutes."
    advice_zh = "请在两分钟内发送完整文件。"


class Incoming:
    """A file that is about to come; read once, by whoever serves the request."""

    def __init__(self, upload: Upload, media_type: str, digest: bytes, receive: Receive) -> None:
        self.media_type = media_type
        self.digest = digest  # SHA-256, as it was signed
        self.bytes_max = upload.bytes_max
        self._receive = receive
        self._until = monotonic() + SECONDS_MAX

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the file; only its end says that it is the one that was signed.

        Raises:
            UploadTooLarge, UploadDigestDiffers, UploadIncomplete
        """
        size, come, is_more = 0, sha256(), True
        while is_more:
            message = await self._next()
            piece, is_more = message.get("body", b""), message.get("more_body", False)
            size += len(piece)
            if size > self.bytes_max:
                raise UploadTooLarge(bytes_max=self.bytes_max)
            come.update(piece)
            if piece:
                yield piece
        if not constant_time_equal(come.digest(), self.digest):
            raise UploadDigestDiffers

    async def _next(self) -> MutableMapping[str, Any]:
        try:
            async with asyncio.timeout(max(0.0, self._until - monotonic())):
                message = await self._receive()
        except TimeoutError:
            raise UploadIncomplete(seconds_max=SECONDS_MAX) from None
        if message["type"] == "http.disconnect":
            raise UploadIncomplete  # and nobody is there to hear it
        return message


def incoming_of(upload: Upload, headers: Mapping[str, str], receive: Receive) -> Incoming:
    """Return the file that a request's headers tell of; nothing of it is read.

    Raises:
        UploadTooLarge, UploadTypeUnsupported, UploadDigestMissing
    """
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > upload.bytes_max:
        raise UploadTooLarge(bytes_max=upload.bytes_max)
    kind = headers.get("content-type", "").strip().lower()
    coding = headers.get("content-encoding", "").strip().lower()
    if kind not in upload.types or coding not in {"", "identity"}:
        raise UploadTypeUnsupported(types=", ".join(upload.types))
    digest = digest_in(headers)
    if digest is None:
        raise UploadDigestMissing
    return Incoming(upload, kind, digest, receive)


def digest_in(headers: Mapping[str, str]) -> bytes | None:
    """Return the SHA-256 that a request's headers tell of its body; None where they tell none."""
    told = _DIGEST.fullmatch(headers.get("content-digest", "")[:1000])
    try:
        return None if told is None else b64decode(told.group(1), validate=True)
    except binascii.Error:
        return None
