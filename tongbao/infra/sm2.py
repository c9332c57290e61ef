"""SM2 signatures and public-key encryption (GB/T 32918.2 and .4, with SM3) by libcrypto.

The library of the `cryptography` package is built without a way to sign with SM2, so this speaks
to OpenSSL 3 itself. Where none is found, `provider` returns None and whoever wants SM2 does
without. A private key is kept as DER; a public key is the 65 bytes of an uncompressed point, and a
signature r and s, 32 bytes each. The signer's distinguishing id is the standard's default one. A
ciphertext is the standard's C1, C3 and C2 one after the other, which `ciphertext_der` writes in the
form of GM/T 0009.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final, Protocol

SIGNER_ID: Final = b"1234567812345678"
"""The id that GB/T 32918 and GM/T 0009 use when none was agreed."""
POINT_BYTES: Final = 65
SIGNATURE_BYTES: Final = 64
PLAINTEXT_MAX: Final = 4096
"""What is encrypted is a name or an account number, never a file."""
_HALF: Final = 32
_UNCOMPRESSED: Final = 4
_OVERHEAD: Final = POINT_BYTES + _HALF  # C1 and C3
# SubjectPublicKeyInfo of a point on the curve sm2p256v1, up to the point itself.
_PUBLIC_DER: Final = bytes.fromhex("3059301306072a8648ce3d020106082a811ccf5501822d034200")
_Pointer = ctypes.c_void_p
_Text = ctypes.c_char_p
_Size = ctypes.c_size_t
_FUNCTIONS: Final[dict[str, tuple[Any, list[Any]]]] = {
    "EVP_PKEY_CTX_new_from_name": (_Pointer, [_Pointer, ctypes.c_char_p, _Pointer]),
    "EVP_PKEY_CTX_new": (_Pointer, [_Pointer, _Pointer]),
    "EVP_PKEY_CTX_free": (None, [_Pointer]),
    "EVP_PKEY_CTX_set1_id": (ctypes.c_int, [_Pointer, ctypes.c_char_p, ctypes.c_int]),
    "EVP_PKEY_keygen_init": (ctypes.c_int, [_Pointer]),
    "EVP_PKEY_keygen": (ctypes.c_int, [_Pointer, ctypes.POINTER(_Pointer)]),
    "EVP_PKEY_is_a": (ctypes.c_int, [_Pointer, ctypes.c_char_p]),
    "EVP_PKEY_free": (None, [_Pointer]),
    "EVP_get_digestbyname": (_Pointer, [ctypes.c_char_p]),
    "EVP_MD_CTX_new": (_Pointer, []),
    "EVP_MD_CTX_free": (None, [_Pointer]),
    "EVP_MD_CTX_set_pkey_ctx": (None, [_Pointer, _Pointer]),
    "EVP_DigestSignInit": (ctypes.c_int, [_Pointer] * 5),
    "EVP_DigestSign": (ctypes.c_int, [_Pointer, _Text, ctypes.POINTER(_Size), _Text, _Size]),
    "EVP_DigestVerifyInit": (ctypes.c_int, [_Pointer] * 5),
    "EVP_DigestVerify": (ctypes.c_int, [_Pointer, _Text, _Size, _Text, _Size]),
    "i2d_PrivateKey": (ctypes.c_int, [_Pointer, ctypes.POINTER(ctypes.c_char_p)]),
    "i2d_PUBKEY": (ctypes.c_int, [_Pointer, ctypes.POINTER(ctypes.c_char_p)]),
    "d2i_AutoPrivateKey": (
        _Pointer,
        [_Pointer, ctypes.POINTER(ctypes.c_char_p), ctypes.c_long],
    ),
    "d2i_PUBKEY": (_Pointer, [_Pointer, ctypes.POINTER(ctypes.c_char_p), ctypes.c_long]),
    "EVP_PKEY_encrypt_init": (ctypes.c_int, [_Pointer]),
    "EVP_PKEY_encrypt": (ctypes.c_int, [_Pointer, _Text, ctypes.POINTER(_Size), _Text, _Size]),
    "EVP_PKEY_decrypt_init": (ctypes.c_int, [_Pointer]),
    "EVP_PKEY_decrypt": (ctypes.c_int, [_Pointer, _Text, ctypes.POINTER(_Size), _Text, _Size]),
    "ERR_clear_error": (None, []),
}


class Sm2(Protocol):
    """What can be done with SM2 keys."""

    def new_key(self) -> bytes:
        """Return a new private key, DER."""

    def public_key(self, private_key: bytes) -> bytes:
        """Return the point that may be shown to everybody."""

    def sign(self, private_key: bytes, message: bytes) -> bytes:
        """Return r and s."""

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """Tell whether the key's owner signed exactly this message."""

    def encrypt(self, public_key: bytes, message: bytes) -> bytes:
        """Return what only the key's owner can read: C1, C3 and C2.

        Raises:
            ValueError: the message is empty, or longer than `PLAINTEXT_MAX` bytes.
            Sm2Failed: the key is no point of the curve.
        """

    def decrypt(self, private_key: bytes, ciphertext: bytes) -> bytes:
        """Return the message of C1, C3 and C2.

        Raises:
            Sm2Failed: it was encrypted for another key, or changed on the way.
        """


class Sm2Failed(RuntimeError):
    """The library refused what it should not: a damaged key, or no memory."""


@cache
def provider() -> Sm2 | None:
    """Return SM2 as this machine has it, or None."""
    name = ctypes.util.find_library("crypto")
    if name is None:
        return None
    try:
        found = _Libcrypto(ctypes.CDLL(name))
        key = found.new_key()  # a library may know the name and be built without the curve
        public, message = found.public_key(key), b"tongbao"
        works = found.verify(public, message, found.sign(key, message))
        works = works and found.decrypt(key, found.encrypt(public, message)) == message
    except (OSError, AttributeError, Sm2Failed):
        return None
    return found if works else None


class _Libcrypto:
    """OpenSSL 3, through its C functions."""

    def __init__(self, library: ctypes.CDLL) -> None:
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        self._c = library
        self._sm3 = library.EVP_get_digestbyname(b"SM3")
        if not self._sm3:
            raise Sm2Failed("no SM3")

    def new_key(self) -> bytes:
        context = self._given(self._c.EVP_PKEY_CTX_new_from_name(None, b"SM2", None))
        key = _Pointer()
        try:
            self._done(self._c.EVP_PKEY_keygen_init(context))
            self._done(self._c.EVP_PKEY_keygen(context, ctypes.byref(key)))
        finally:
            self._c.EVP_PKEY_CTX_free(context)
        with self._freed(key):
            return self._der(self._c.i2d_PrivateKey, key)

    def public_key(self, private_key: bytes) -> bytes:
        with self._private(private_key) as key:
            return self._der(self._c.i2d_PUBKEY, key)[-POINT_BYTES:]

    def sign(self, private_key: bytes, message: bytes) -> bytes:
        room = ctypes.create_string_buffer(2 * SIGNATURE_BYTES)
        length = ctypes.c_size_t(len(room))
        with self._private(private_key) as key, self._hashing(key) as hashing:
            self._done(self._c.EVP_DigestSignInit(hashing, None, self._sm3, None, key))
            self._done(
                self._c.EVP_DigestSign(hashing, room, ctypes.byref(length), message, len(message))
            )
        return _raw_signature(room.raw[: length.value])

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        if len(public_key) != POINT_BYTES or len(signature) != SIGNATURE_BYTES:
            return False
        der = _der_signature(signature)
        try:
            with (
                self._read(self._c.d2i_PUBKEY, _PUBLIC_DER + public_key) as key,
                self._hashing(key) as hashing,
            ):
                self._done(self._c.EVP_DigestVerifyInit(hashing, None, self._sm3, None, key))
                verdict = self._c.EVP_DigestVerify(hashing, der, len(der), message, len(message))
        except Sm2Failed:  # no point of the curve
            return False
        self._c.ERR_clear_error()
        return bool(verdict == 1)

    def encrypt(self, public_key: bytes, message: bytes) -> bytes:
        if not 0 < len(message) <= PLAINTEXT_MAX:
            raise ValueError("this is not encrypted with a public key")
        if len(public_key) != POINT_BYTES:
            raise Sm2Failed("no point of the curve")
        with self._read(self._c.d2i_PUBKEY, _PUBLIC_DER + public_key) as key:
            while True:
                raw = raw_ciphertext(self._transformed("encrypt", key, message))
                # The standard draws again where the key stream is nothing but zeros; OpenSSL 3.0
                # does not.
                if raw[_OVERHEAD:] != message:
                    return raw

    def decrypt(self, private_key: bytes, ciphertext: bytes) -> bytes:
        if len(ciphertext) <= _OVERHEAD or ciphertext[0] != _UNCOMPRESSED:
            raise Sm2Failed("no ciphertext")
        with self._private(private_key) as key:
            return self._transformed("decrypt", key, ciphertext_der(ciphertext))

    def _transformed(self, what: str, key: Any, content: bytes) -> bytes:
        context = self._given(self._c.EVP_PKEY_CTX_new(key, None))
        transform = getattr(self._c, f"EVP_PKEY_{what}")
        length = _Size()
        try:
            self._done(getattr(self._c, f"EVP_PKEY_{what}_init")(context))
            self._done(transform(context, None, ctypes.byref(length), content, len(content)))
            room = ctypes.create_string_buffer(length.value)
            self._done(transform(context, room, ctypes.byref(length), content, len(content)))
        finally:
            self._c.EVP_PKEY_CTX_free(context)
        return room.raw[: length.value]

    @contextmanager
    def _private(self, private_key: bytes) -> Iterator[Any]:
        with self._read(self._c.d2i_AutoPrivateKey, private_key) as key:
            yield key

    @contextmanager
    def _read(self, read: Callable[..., Any], der: bytes) -> Iterator[Any]:
        start = ctypes.c_char_p(der)
        with self._freed(self._given(read(None, ctypes.byref(start), len(der)))) as key:
            self._done(self._c.EVP_PKEY_is_a(key, b"SM2"))
            yield key

    @contextmanager
    def _freed(self, key: Any) -> Iterator[Any]:
        try:
            yield key
        finally:
            self._c.EVP_PKEY_free(key)

    @contextmanager
    def _hashing(self, key: Any) -> Iterator[Any]:
        """Make a context that hashes the signer's id first, as SM2 does."""
        about = self._given(self._c.EVP_PKEY_CTX_new(key, None))
        hashing = None
        try:
            self._done(self._c.EVP_PKEY_CTX_set1_id(about, SIGNER_ID, len(SIGNER_ID)))
            hashing = self._given(self._c.EVP_MD_CTX_new())
            self._c.EVP_MD_CTX_set_pkey_ctx(hashing, about)
            yield hashing
        finally:
            self._c.EVP_MD_CTX_free(hashing)
            self._c.EVP_PKEY_CTX_free(about)

    def _der(self, write: Callable[..., Any], key: Any) -> bytes:
        room = ctypes.create_string_buffer(write(key, None))
        start = ctypes.cast(room, ctypes.c_char_p)
        write(key, ctypes.byref(start))
        return room.raw

    def _given(self, pointer: Any) -> Any:
        if not pointer:
            self._c.ERR_clear_error()
            raise Sm2Failed("libcrypto returned nothing")
        return pointer

    def _done(self, code: int) -> None:
        if code != 1:
            self._c.ERR_clear_error()
            raise Sm2Failed("libcrypto refused")


def ciphertext_der(raw: bytes) -> bytes:
    """Return C1, C3 and C2 as the SEQUENCE of GM/T 0009: x, y, the digest, and the text."""
    parts = raw[POINT_BYTES:_OVERHEAD], raw[_OVERHEAD:]
    strings = b"".join(b"\x04" + _length(len(part)) + part for part in parts)
    return _sequence(_integers(raw[1:POINT_BYTES]) + strings)


def raw_ciphertext(der: bytes) -> bytes:
    """Return what is written as `ciphertext_der` does it, with its parts one after the other.

    Raises:
        Sm2Failed: it is not written so.
    """
    try:
        x, rest = _next_element(_next_element(der)[0])
        y, rest = _next_element(rest)
        digest, rest = _next_element(rest)
        text, _ = _next_element(rest)
        halves = _half(x) + _half(y)
    except (IndexError, OverflowError):
        raise Sm2Failed("no ciphertext") from None
    if len(digest) != _HALF:
        raise Sm2Failed("no ciphertext")
    return bytes([_UNCOMPRESSED]) + halves + digest + text


def _raw_signature(der: bytes) -> bytes:
    """Return r and s of a SEQUENCE of two INTEGERs, each below 2 ** 256."""
    r, rest = _next_element(_next_element(der)[0])
    s, _ = _next_element(rest)
    return _half(r) + _half(s)


def _der_signature(raw: bytes) -> bytes:
    return _sequence(_integers(raw))


def _half(digits: bytes) -> bytes:
    return int.from_bytes(digits, "big").to_bytes(_HALF, "big")


def _integers(raw: bytes) -> bytes:
    """Return two numbers of 32 bytes as two INTEGERs, each as short as it can be."""
    numbers = b""
    for half in (raw[:_HALF], raw[_HALF:]):
        digits = half.lstrip(b"\x00") or b"\x00"
        if digits[0] & 0x80:
            digits = b"\x00" + digits
        numbers += bytes([2, len(digits)]) + digits
    return numbers


def _sequence(inside: bytes) -> bytes:
    return b"\x30" + _length(len(inside)) + inside


def _next_element(der: bytes) -> tuple[bytes, bytes]:
    """Return the content of the first DER element, and what follows it."""
    length, start = der[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[2:start], "big")
    return der[start : start + length], der[start + length :]


def _length(size: int) -> bytes:
    if size < 0x80:
        return bytes([size])
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(digits)]) + digits
