"""Documents: a picture is taken whole and as itself; what only looks like one is not."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tongbao.kernel.papers.document_types import DocumentType, DocumentTypeRefused, type_of


def chunk(kind: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(kind + content)
    return struct.pack("!I", len(content)) + kind + content + struct.pack("!I", crc)


def png(width: int = 2, height: int = 2) -> bytes:
    head = struct.pack("!IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 6)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg(width: int = 2, height: int = 2) -> bytes:
    frame = struct.pack("!BHHB", 8, height, width, 1) + b"\x01\x11\x00"
    parts = (
        (0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"),
        (0xC0, frame),
        (0xDA, b"\x01\x01\x00\x00\x3f\x00"),
    )
    body = b"".join(b"\xff" + bytes([k]) + struct.pack("!H", len(c) + 2) + c for k, c in parts)
    return b"\xff\xd8" + body + b"\x12\xff\x00\x34" + b"\xff\xd9"


@cache
def archive() -> bytes:
    """A zip of nothing but zeros: small, and enormous when unpacked."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zeros", b"\0" * 10_000_000)
    return packed.getvalue()


PICTURES = {DocumentType.PNG: png(), DocumentType.JPEG: jpeg()}
HOSTILE: dict[str, Callable[[], bytes]] = {  # made when it is looked at: all of it takes a while
    "zip bomb": archive,
    "zip behind a png": lambda: png() + archive(),
    "zip behind a jpeg": lambda: jpeg() + archive(),
    "zip that begins as a png": lambda: b"\x89PNG\r\n\x1a\n" + archive(),
    "script": lambda: b"#!/bin/sh\nrm -rf /\n",
    "elf": lambda: b"\x7fELF" + bytes(100),
    "windows program": lambda: b"MZ" + bytes(100),
    "html": lambda: b"<html><script>alert(1)</script></html>",
    "svg": lambda: b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
    "pdf": lambda: b"%PDF-1.7\n1 0 obj<</OpenAction<</S/JavaScript>>>>\n%%EOF\n",
    "png of a wall of pixels": lambda: png(60_000, 60_000),
    "jpeg of a wall of pixels": lambda: jpeg(60_000, 60_000),
    "png with a wrong checksum": lambda: png().replace(b"IDAT", b"IDAU"),
    "png without an end": lambda: png()[:-12],
    "jpeg without a frame": lambda: b"\xff\xd8\xff\xda\x00\x02\xff\xd9",
    "nothing": lambda: b"",
}


@pytest.mark.parametrize("kind", PICTURES, ids=str)
def test_a_picture_is_known_by_its_bytes(kind: DocumentType) -> None:
    assert type_of(PICTURES[kind]) is kind


@pytest.mark.parametrize("name", HOSTILE)
def test_what_only_looks_like_a_picture_is_refused(name: str) -> None:
    with pytest.raises(DocumentTypeRefused):
        type_of(HOSTILE[name]())


@given(st.sampled_from(sorted(PICTURES)), st.integers(0, 200))
def test_no_piece_of_a_picture_is_one(kind: DocumentType, cut: int) -> None:
    whole = PICTURES[kind]
    with pytest.raises(DocumentTypeRefused):
        type_of(whole[: min(cut, len(whole) - 1)])


@given(st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b""]), st.binary(max_size=300))
def test_any_bytes_are_answered(head: bytes, rest: bytes) -> None:
    with suppress(DocumentTypeRefused):
        assert type_of(head + rest) in DocumentType
