"""The envelope of a stored document: a key of its own, sealed by the keyring, and sealed pieces.

    tongbao blob 1 LF | header length 2 | sealed header | piece | piece | … | last piece

The header, sealed for this name, holds the document's own key and its kind. Each piece is 64 KiB
under AES-256-GCM; its nonce is its number and whether it is the last, so that pieces cannot be
exchanged, left out or cut off (the STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár,
2015). Changing the file key means sealing headers anew, not documents.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO, Final

import msgspec
from msgspec import Struct

from tongbao.infra.blobs.model import BlobDamaged, Kind
from tongbao.infra.crypto import (
    Keyring,
    SealUnreadable,
    aes_256_gcm_decrypt,
    aes_256_gcm_encrypt,
    bind,
)
from tongbao.infra.key_file import KEY_BYTES

PIECE_BYTES: Final = 64 * 1024
_MAGIC: Final = b"tongbao blob 1\n"
_PURPOSE: Final = "blob.key"
_TAG_BYTES: Final = 16
_HEADER_MAX: Final = 4096


class _Header(Struct, frozen=True):
    """What only the keyring can read."""

    key: bytes
    kind: Kind


class Sealing:
    """Writes one document to a file, piece by piece as it comes."""

    def __init__(self, keyring: Keyring, name: str, kind: Kind, to: BinaryIO) -> None:
        self._key = os.urandom(KEY_BYTES)
        self._to = to
        self._number = 0
        self._waiting = bytearray()
        header = msgspec.msgpack.encode(_Header(self._key, kind))
        sealed = keyring.seal(_PURPOSE, header, bind("blob", name))
        to.write(_MAGIC + len(sealed).to_bytes(2, "big") + sealed)

    def add(self, content: bytes) -> None:
        """Take more of the document."""
        self._waiting += content
        # The last piece is known only at the end, so a full one waits until more follows it.
        while len(self._waiting) > PIECE_BYTES:
            piece = bytes(self._waiting[:PIECE_BYTES])
            del self._waiting[:PIECE_BYTES]
            self._write(piece, is_last=False)

    def finish(self) -> None:
        """Write what is left, marked as the end."""
        self._write(bytes(self._waiting), is_last=True)

    def _write(self, piece: bytes, *, is_last: bool) -> None:
        nonce = _nonce(self._number, is_last=is_last)
        self._to.write(aes_256_gcm_encrypt(self._key, nonce, piece, b""))
        self._number += 1


def opened(keyring: Keyring, name: str, file: BinaryIO) -> tuple[Kind, Iterator[bytes]]:
    """Return what kind a document is, and its pieces, each checked as it is taken.

    A document that was cut short is noticed at its end only, so what was yielded before is not to
    be acted on until then.

    Raises:
        BlobDamaged
    """
    header = _header(keyring, name, file)
    return header.kind, _opened_pieces(header.key, name, file)


def _opened_pieces(key: bytes, name: str, file: BinaryIO) -> Iterator[bytes]:
    number, sealed = 0, file.read(PIECE_BYTES + _TAG_BYTES)
    while True:
        following = file.read(PIECE_BYTES + _TAG_BYTES)
        nonce = _nonce(number, is_last=not following)
        piece = aes_256_gcm_decrypt(key, nonce, sealed, b"")
        if piece is None:
            raise BlobDamaged(blob=name)
        yield piece
        if not following:
            return
        number, sealed = number + 1, following


def _header(keyring: Keyring, name: str, file: BinaryIO) -> _Header:
    start = file.read(len(_MAGIC) + 2)
    length = int.from_bytes(start[len(_MAGIC) :], "big")
    if not start.startswith(_MAGIC) or not 0 < length <= _HEADER_MAX:
        raise BlobDamaged(blob=name)
    try:
        plain = keyring.open(_PURPOSE, file.read(length), bind("blob", name))
        return msgspec.msgpack.decode(plain, type=_Header)
    except (SealUnreadable, msgspec.DecodeError):
        raise BlobDamaged(blob=name) from None


def _nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\x01" if is_last else b"\x00")
