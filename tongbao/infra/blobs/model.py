"""What a blob is, how it may be called, which kinds there are, and what a shelf must do. No I/O."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from msgspec import Struct

from tongbao.kernel.errors import Busy, Conflict, Invalid, NotFound, Rejected, TooLarge

BLOB_BYTES: Final = 20 * 1024 * 1024
"""How large a blob may be where its domain says nothing else: 20 MiB."""
BLOB_BYTES_MAX: Final = 512 * 1024 * 1024
NAME_MAX: Final = 200
HEAD_BYTES: Final = 512
"""How much of a blob is looked at to see what it is."""
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]*(/[a-z0-9][a-z0-9_-]*){0,5}")


class BlobNotFound(NotFound):
    """Nothing is stored under this name."""

    code = "blob.not_found"
    advice = "Upload it again, or restore the store from its backup."
    advice_zh = "该文件不存在，请重新上传，或从备份恢复文件存储。"


class BlobNameMalformed(Invalid):
    """A name is up to six parts of a-z, 0-9, hyphen and underscore, with slashes between."""

    code = "blob.name_malformed"
    advice = "Use lower-case letters, digits, hyphens and underscores, with slashes between parts."
    advice_zh = "名称由小写字母、数字、连字符和下划线组成，各段以斜杠分隔。"


class BlobTooLarge(TooLarge):
    """The document is larger than its place allows."""

    code = "blob.too_large"
    advice = "Send a smaller document."
    advice_zh = "文件过大，请压缩或拆分后上传。"


class BlobEmpty(Invalid):
    """There is nothing in the document."""

    code = "blob.empty"
    advice = "Send a document with something in it."
    advice_zh = "文件为空，请重新上传。"


class BlobKindDiffers(Rejected):
    """The document is not what it is said to be."""

    code = "blob.kind_differs"
    advice = "Send a document whose content is of the stated kind."
    advice_zh = "文件内容与声明的类型不符，请检查后重新上传。"


class BlobDamaged(Conflict):
    """What is stored is not what was put there: damaged, cut short, exchanged, or another key's."""

    code = "blob.damaged"
    advice = "Restore it from a backup together with the key file; do not use it as it is."
    advice_zh = "文件已损坏或被替换，请连同主密钥文件从备份恢复，切勿使用。"


class BlobStoreUnavailable(Busy):
    """The store did not answer, or could not write; repeating it is harmless."""

    code = "blob.store_unavailable"
    advice = "Repeat the same request; if it goes on, look at the disk or the object store."
    advice_zh = "文件存储暂不可用，请重试；若持续出现，请检查磁盘或对象存储。"
    retry_after_s = 5


class BlobStoreRefused(Conflict):
    """The object store refuses us: its keys, its bucket or its policy are not as they should be."""

    code = "blob.store_refused"
    advice = "Check the TONGBAO_BLOB_S3_ settings and what the key may do in the bucket."
    advice_zh = "对象存储拒绝访问，请检查 TONGBAO_BLOB_S3_ 配置及密钥权限。"


class Kind(StrEnum):
    """What may be stored, by media type. A blob is looked at before it is believed."""

    PDF = "application/pdf"
    JPEG = "image/jpeg"
    PNG = "image/png"
    XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    ZIP = "application/zip"
    CSV = "text/csv"
    TEXT = "text/plain"
    XML = "application/xml"
    JSON = "application/json"
    BYTES = "application/octet-stream"

    def fits(self, head: bytes) -> bool:
        """Tell whether a document may be of this kind, by its first 512 bytes."""
        if magic := _MAGIC.get(self):
            return head.startswith(magic)
        if self is Kind.BYTES:
            return True
        text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
        is_text = b"\0" not in head and not head.startswith(_NO_TEXT)
        if self is Kind.XML:
            return is_text and text.startswith(b"<")
        if self is Kind.JSON:
            return is_text and text[:1] in {b"{", b"["}
        return is_text


_ZIP: Final = b"PK\x03\x04"
_MAGIC: Final = {
    Kind.PDF: b"%PDF-",
    Kind.JPEG: b"\xff\xd8\xff",
    Kind.PNG: b"\x89PNG\r\n\x1a\n",
    Kind.XLSX: _ZIP,
    Kind.ZIP: _ZIP,
}
_NO_TEXT: Final = (*_MAGIC.values(), b"MZ", b"\x7fELF", b"#!", b"\x1f\x8b")


class Blob(Struct, frozen=True):
    """What is stored where. Whoever put it keeps this beside its own row.

    ``size`` and ``sha256`` are of the document itself, not of what lies encrypted on the shelf.
    """

    name: str
    kind: Kind
    size: int
    sha256: str


class Shelf(Protocol):
    """Where encrypted files lie. Each call is harmless when repeated.

    Raises:
        BlobStoreUnavailable, BlobStoreRefused: any of them may.
    """

    async def keep(self, name: str, path: Path) -> None:
        """Store a file whole or not at all, in place of any other of the name; it may be moved."""

    async def fetch(self, name: str, path: Path) -> None:
        """Bring a file to ``path``.

        Raises:
            BlobNotFound
        """

    async def remove(self, name: str) -> None:
        """Forget a file; there may be none."""

    async def close(self) -> None:
        """Close every connection."""


def check_name(name: str) -> str:
    """Return the name, which can lead nowhere but into the store.

    Raises:
        BlobNameMalformed
    """
    if len(name) > NAME_MAX or not _NAME.fullmatch(name):
        raise BlobNameMalformed(param="name")
    return name
