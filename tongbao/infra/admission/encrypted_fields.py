"""Fields that are encrypted inside a request, for what not even a proxy of ours shall read.

    "account_number": "tbenc.A256GCM.<iv>.<ciphertext and tag>"      both base64url, unpadded

Any text in a JSON body may be sent like this: by AES-256-GCM (A256GCM) or SM4-GCM (SM4GCM) with 12
fresh random bytes as iv, under a key derived from the API key's secret by HKDF-SHA-256 (RFC 5869)
without salt and with the info ``tongbao field <cipher>``. Method, path and the field's JSON pointer
(RFC 6901) are bound in, each ended by a line feed, so that a text opens where it was put alone.

They are opened once the sender is proved, before the body is decoded: a repeat that is encrypted
anew is the same request.
"""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable
from functools import lru_cache
from typing import Final

import msgspec

from tongbao.infra.crypto import aes_256_gcm_decrypt, hmac_sha256, sm4_gcm_decrypt
from tongbao.infra.settings import Secret
from tongbao.infra.web.request import MalformedJson
from tongbao.kernel.errors import Invalid

FIELDS_MAX: Final = 5000
_MARK: Final = b'"tbenc.'
_FIELD: Final = re.compile(
    r"tbenc\.(A256GCM|SM4GCM)\.([A-Za-z0-9_-]{16})\.([A-Za-z0-9_-]{22,90000})"
)
_LONGEST_PATH_SHOWN: Final = 128

Decrypt = Callable[[bytes, bytes, bytes, bytes], bytes | None]
_CIPHERS: Final[dict[str, tuple[int, Decrypt]]] = {
    "A256GCM": (32, aes_256_gcm_decrypt),
    "SM4GCM": (16, sm4_gcm_decrypt),
}


class EncryptedFieldUnreadable(Invalid):
    """A field looks encrypted and cannot be opened here with this key's secret."""

    code = "request.encrypted_field_unreadable"
    advice = (
        "Encrypt the text with this API key's secret for this very method, path and JSON pointer."
    )
    advice_zh = "请使用此 API 密钥的 secret，并按本次请求的方法、路径和 JSON pointer 加密该字段。"


def is_encrypted(body: bytes) -> bool:
    """Tell whether anything in a body looks like an encrypted field."""
    return _MARK in body


def open_fields(body: bytes, secret: Secret, method: str, path: str) -> bytes:
    """Return the body with every encrypted text in the clear.

    Raises:
        MalformedJson, EncryptedFieldUnreadable
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedJson from None
    opened = 0

    def opening(each: object, pointer: str) -> object:
        nonlocal opened
        if isinstance(each, dict):
            return {name: opening(of, f"{pointer}/{_escaped(name)}") for name, of in each.items()}
        if isinstance(each, list):
            return [opening(of, f"{pointer}/{at}") for at, of in enumerate(each)]
        if not isinstance(each, str) or not each.startswith("tbenc."):
            return each
        opened += 1
        text = (
            None if opened > FIELDS_MAX else _opened(each, secret, f"{method}\n{path}\n{pointer}\n")
        )
        if text is None:
            raise EncryptedFieldUnreadable(param=pointer[:_LONGEST_PATH_SHOWN])
        return text

    return msgspec.json.encode(opening(value, ""))


def _opened(field: str, secret: Secret, place: str) -> str | None:
    match = _FIELD.fullmatch(field)
    if match is None:
        return None
    cipher, iv, sealed = match.groups()
    size, decrypt = _CIPHERS[cipher]
    try:
        given = urlsafe_b64decode(iv), urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))
    except binascii.Error:
        return None
    plain = decrypt(field_key(secret.reveal(), cipher)[:size], *given, place.encode())
    try:
        return None if plain is None else plain.decode()
    except UnicodeDecodeError:
        return None


@lru_cache(maxsize=1000)
def field_key(secret: str, cipher: str) -> bytes:
    """Return the first block of HKDF-SHA-256, whose beginning is the key of a cipher."""
    extracted = hmac_sha256(bytes(32), secret.encode())
    return hmac_sha256(extracted, f"tongbao field {cipher}".encode(), b"\x01")


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
