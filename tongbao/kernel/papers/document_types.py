"""What kind of file some bytes are, by what is in them and never by what they are called.

Pictures are walked from their first byte to their last: a PNG's chunks with their checksums, a
JPEG's segments. What follows a picture's end, a picture too large to be shown, or a file that only
begins like one is refused, so that an archive or a program in a picture's clothes is none. Nothing
but pictures is taken: channels take nothing else, and nothing else is as sure not to act by itself.
"""

from __future__ import annotations

import struct
import zlib
from enum import StrEnum
from typing import Final

from tongbao.kernel.errors import Rejected

PIXELS_MAX: Final = 40_000_000
"""A picture of more is a bomb: nobody's camera makes it, and showing it fills the memory."""

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG: Final = b"\xff\xd8\xff"
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE: Final = frozenset({0x01, *range(0xD0, 0xD8)})


class DocumentTypeRefused(Rejected):
    """The file is no picture, is damaged, or holds more than the picture."""

    code = "document.type_refused"
    advice = "Send a JPEG or PNG picture as the camera or scanner made it."
    advice_zh = "请上传相机或扫描仪直接生成的 JPEG 或 PNG 图片。"


class DocumentType(StrEnum):
    """The kinds of file that are taken, by media type."""

    JPEG = "image/jpeg"
    PNG = "image/png"


def type_of(content: bytes) -> DocumentType:
    """Return what kind of file it is, having looked at all of it.

    Raises:
        DocumentTypeRefused
    """
    if content.startswith(_PNG):
        _check_png(content)
        return DocumentType.PNG
    if content.startswith(_JPEG):
        _check_jpeg(content)
        return DocumentType.JPEG
    raise DocumentTypeRefused(reason="neither JPEG nor PNG")


def _check_png(content: bytes) -> None:
    at, is_first = len(_PNG), True
    while at + 12 <= len(content):
        (length,) = struct.unpack_from("!I", content, at)
        kind = content[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(content) or is_first is not (kind == b"IHDR"):
            break
        if struct.unpack_from("!I", content, end - 4)[0] != zlib.crc32(content[at + 4 : end - 4]):
            break
        if is_first:
            if length != 13:
                break
            _check_size(*struct.unpack_from("!II", content, at + 8))
            is_first = False
        if kind == b"IEND":
            if end == len(content):
                return
            raise DocumentTypeRefused(reason="something follows the picture's end")
        at = end
    raise DocumentTypeRefused(reason="a damaged PNG")


def _check_jpeg(content: bytes) -> None:
    at, has_frame = 2, False
    while at + 4 <= len(content) and content[at] == 0xFF:
        kind = content[at + 1]
        if kind in _JPEG_BARE or kind == 0xFF:
            at += 1 if kind == 0xFF else 2
            continue
        (length,) = struct.unpack_from("!H", content, at + 2)
        if kind in _JPEG_FRAMES:
            if length < 8 or at + 9 > len(content):
                break
            height, width = struct.unpack_from("!HH", content, at + 5)
            _check_size(width, height)
            has_frame = True
        if kind == 0xDA:
            if has_frame and content.endswith(b"\xff\xd9") and _ends_once(content, at):
                return
            break
        at += 2 + length
    raise DocumentTypeRefused(reason="a damaged JPEG, or something follows its end")


def _ends_once(content: bytes, scan: int) -> bool:
    """Tell whether the end of the picture is the end of the file: inside a scan FF is escaped."""
    return content.find(b"\xff\xd9", scan) == len(content) - 2


def _check_size(width: int, height: int) -> None:
    if not 0 < width * height <= PIXELS_MAX:
        raise DocumentTypeRefused(reason="a picture of too many points", points=width * height)
