"""The Chinese algorithms of WeChat Pay API v3: SM2 with SM3 to sign, SM4-GCM to seal.

Names come encrypted with SM2, base64 of the DER form. Written from GB/T 32918.2 and .4 (SM2 on the
curve of GB/T 32918.5), GM/T 0009 (the DER form), GB/T 32905 (SM3) and RFC 8998, in plain integers
and without care for timing: these keys protect nothing.
"""

from __future__ import annotations

import secrets
from base64 import b64decode, b64encode
from datetime import timedelta
from hashlib import new as new_hash
from typing import Final

from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import SM4
from cryptography.hazmat.primitives.ciphers.modes import GCM

from tongbao.kernel.clock import real_now

SCHEME: Final = "WECHATPAY2-SM2-WITH-SM3"
ALGORITHM: Final = "AEAD_SM4_GCM"

_P: Final = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF00000000FFFFFFFFFFFFFFFF
_A: Final = _P - 3
_B: Final = 0x28E9FA9E9D9F5E344D5A9E4BCF6509A7F39789F515AB8F92DDBCBD414D940E93
_N: Final = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFF7203DF6B21C6052B53BBF40939D54123
_G: Final = (
    0x32C4AE2C1F1981195F9904466A39C9948FE30BBFF2660BE1715A4589334C74C7,
    0xBC3736A2F4F6779C59BDCEE36B692153D0A9877CC62A474002DF32E52139F0A0,
)
_ID: Final = b"1234567812345678"
_SM2_WITH_SM3: Final = bytes.fromhex("06082a811ccf55018375")
_CURVE_OID: Final = bytes.fromhex("06082a811ccf5501822d")

Point = tuple[int, int] | None
"""A point of the curve; None is the one at infinity."""


def new_pair() -> tuple[str, str]:
    """Return a fresh pair as PEM: private (SEC 1) and public (SubjectPublicKeyInfo)."""
    private = secrets.randbelow(_N - 2) + 1
    shown = _shown(_times(private, _G))
    inner = bytes.fromhex("020101") + _tlv(0x04, _bytes(private)) + _tlv(0xA0, _CURVE_OID)
    inner += _tlv(0xA1, _tlv(0x03, b"\x00" + shown))
    algorithm = _tlv(0x30, bytes.fromhex("06072a8648ce3d0201") + _CURVE_OID)
    public = _tlv(0x30, algorithm + _tlv(0x03, b"\x00" + shown))
    return _pem("EC PRIVATE KEY", _tlv(0x30, inner)), _pem("PUBLIC KEY", public)


def certificate(private_pem: str, public_pem: str, *, name: str, serial: int, days: int) -> str:
    """Return a certificate of a key, signed by itself with SM2 and SM3, as PEM (RFC 5280)."""
    now = real_now()
    algorithm = _tlv(0x30, _SM2_WITH_SM3)
    common_name = bytes.fromhex("0603550403") + _tlv(0x0C, name.encode())
    named = _tlv(0x30, _tlv(0x31, _tlv(0x30, common_name)))
    ends = now + timedelta(days=days)
    valid = b"".join(_tlv(0x17, f"{at:%y%m%d%H%M%S}Z".encode()) for at in (now, ends))
    number = serial.to_bytes(serial.bit_length() // 8 + 1, "big")
    inside = bytes.fromhex("a003020102") + _tlv(0x02, number) + algorithm + named
    inside += _tlv(0x30, valid) + named + _der(public_pem)
    told = _tlv(0x30, inside)
    signature = b64decode(sign(private_pem, told))
    whole = told + algorithm + _tlv(0x03, b"\x00" + signature)
    return _pem("CERTIFICATE", _tlv(0x30, whole))


def sign(private_pem: str, message: bytes) -> str:
    """Return the base64 signature in DER."""
    private = _private_of(private_pem)
    e = _digest(_times(private, _G), message)
    while True:
        k = secrets.randbelow(_N - 1) + 1
        point = _times(k, _G)
        r = (e + (point or (0, 0))[0]) % _N
        s = pow(1 + private, -1, _N) * (k - r * private) % _N
        if r and r + k != _N and s:
            return b64encode(encode_dss_signature(r, s)).decode()


def verifies(public_pem: str, message: bytes, signature: str) -> bool:
    """Whether the key's owner signed exactly this."""
    try:
        r, s = decode_dss_signature(b64decode(signature, validate=True))
    except ValueError:
        return False
    public = _public_of(public_pem)
    t = (r + s) % _N
    if not (0 < r < _N and 0 < s < _N and t):
        return False
    point = _plus(_times(s, _G), _times(t, public))
    return point is not None and (_digest(public, message) + point[0]) % _N == r


def opens(private_pem: str, sealed: str) -> bytes:
    """Return what was encrypted for the key, base64 of the DER form, or nothing."""
    try:
        x, y, digest, text = _cipher_parts(b64decode(sealed, validate=True))
    except (ValueError, IndexError):
        return b""
    point = (int.from_bytes(x, "big"), int.from_bytes(y, "big"))
    if (point[1] ** 2 - point[0] ** 3 - _A * point[0] - _B) % _P:
        return b""
    shared = _times(_private_of(private_pem), point) or (0, 0)
    left, right = map(_bytes, shared)
    rounds = -(-len(text) // 32)
    stream = b"".join(
        _sm3(left + right + number.to_bytes(4, "big")) for number in range(1, rounds + 1)
    )
    plain = bytes(one ^ other for one, other in zip(text, stream, strict=False))
    return plain if _sm3(left + plain + right) == digest else b""


def seals(public_pem: str, plain: bytes) -> bytes:
    """Return what only the key's owner can read (GB/T 32918.4), in the DER form."""
    k = secrets.randbelow(_N - 1) + 1
    x, y = _times(k, _G) or (0, 0)
    left, right = map(_bytes, _times(k, _public_of(public_pem)) or (0, 0))
    rounds = -(-len(plain) // 32)
    stream = b"".join(
        _sm3(left + right + number.to_bytes(4, "big")) for number in range(1, rounds + 1)
    )
    text = bytes(one ^ other for one, other in zip(plain, stream, strict=False))
    point = b"".join(_tlv(2, half.to_bytes(half.bit_length() // 8 + 1, "big")) for half in (x, y))
    return _tlv(0x30, point + _tlv(4, _sm3(left + plain + right)) + _tlv(4, text))


def seal_file(key: bytes, nonce: bytes, content: bytes) -> bytes:
    """Encrypt a file with SM4-GCM; the tag comes last."""
    cipher = Cipher(SM4(key), GCM(nonce)).encryptor()
    return cipher.update(content) + cipher.finalize() + cipher.tag


def _cipher_parts(der: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Return x, y, C3 and C2 of ``SEQUENCE { INTEGER, INTEGER, OCTET STRING, OCTET STRING }``."""
    tag, inside, rest = _read_tlv(der)
    x_tag, x, inside = _read_tlv(inside)
    y_tag, y, inside = _read_tlv(inside)
    digest_tag, digest, inside = _read_tlv(inside)
    text_tag, text, nothing = _read_tlv(inside)
    if (tag, x_tag, y_tag, digest_tag, text_tag) != (0x30, 2, 2, 4, 4) or rest or nothing:
        raise ValueError("no SM2 ciphertext")
    return x, y, digest, text


def _read_tlv(der: bytes) -> tuple[int, bytes, bytes]:
    """Return the tag and content of the first element, and what follows it."""
    tag, length, start = der[0], der[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[2:start], "big")
    if len(der) < start + length:
        raise ValueError("cut off")
    return tag, der[start : start + length], der[start + length :]


def seal(api_v3_key: bytes, nonce: bytes, plaintext: bytes, associated: bytes) -> bytes:
    """Encrypt with SM4-GCM under the first half of the key's SM3 digest; the tag comes last."""
    cipher = Cipher(SM4(_sm3(api_v3_key)[:16]), GCM(nonce)).encryptor()
    cipher.authenticate_additional_data(associated)
    return cipher.update(plaintext) + cipher.finalize() + cipher.tag


def _digest(public: Point, message: bytes) -> int:
    """Return e: the digest of the signer's identity and key, and then of the message."""
    parts = (_A, _B, *_G, *(public or (0, 0)))
    identity = (len(_ID) * 8).to_bytes(2, "big") + _ID + b"".join(map(_bytes, parts))
    return int.from_bytes(_sm3(_sm3(identity) + message), "big")


def _sm3(content: bytes) -> bytes:
    return new_hash("sm3", content).digest()


def _times(factor: int, point: Point) -> Point:
    result: Point = None
    while factor:
        if factor & 1:
            result = _plus(result, point)
        point = _plus(point, point)
        factor >>= 1
    return result


def _plus(one: Point, other: Point) -> Point:
    if one is None or other is None:
        return other if one is None else one
    if one[0] == other[0]:
        if (one[1] + other[1]) % _P == 0:
            return None
        slope = (3 * one[0] * one[0] + _A) * pow(2 * one[1], -1, _P) % _P
    else:
        slope = (other[1] - one[1]) * pow(other[0] - one[0], -1, _P) % _P
    x = (slope * slope - one[0] - other[0]) % _P
    return x, (slope * (one[0] - x) - one[1]) % _P


def _bytes(number: int) -> bytes:
    return number.to_bytes(32, "big")


def _shown(point: Point) -> bytes:
    x, y = point or (0, 0)
    return b"\x04" + _bytes(x) + _bytes(y)


def _tlv(tag: int, content: bytes) -> bytes:
    """Return a DER element."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(digits)]) + digits + content


def _pem(label: str, der: bytes) -> str:
    text = b64encode(der).decode()
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def _der(pem: str) -> bytes:
    return b64decode("".join(pem.split("-----")[2].split()))


def _private_of(pem: str) -> int:
    return int.from_bytes(_der(pem)[7:39], "big")


def _public_of(pem: str) -> Point:
    shown = _der(pem)[-64:]
    return int.from_bytes(shown[:32], "big"), int.from_bytes(shown[32:], "big")
