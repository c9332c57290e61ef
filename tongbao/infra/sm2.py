"""SM2 signatures (GB/T 32918.2 with SM3) by the system's libcrypto, where it has them.

The library of the `cryptography` package is built without a way to sign with SM2, so this speaks
to OpenSSL 3 itself. Where none is found, `provider` returns None and whoever wants SM2 does
without. A private key is kept as DER; a public key is the 65 bytes of an uncompressed point, and a
signature r and s, 32 bytes each. The signer's distinguishing id is the standard's default one.
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
_HALF: Final = 32
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
        works = found.verify(found.public_key(key), b"tongbao", found.sign(key, b"tongbao"))
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


def _raw_signature(der: bytes) -> bytes:
    """Return r and s of a SEQUENCE of two INTEGERs, each below 2 ** 256."""
    first = der[3]
    r, s = der[4 : 4 + first], der[6 + first :]
    return b"".join(int.from_bytes(each, "big").to_bytes(_HALF, "big") for each in (r, s))


def _der_signature(raw: bytes) -> bytes:
    numbers = b""
    for half in (raw[:_HALF], raw[_HALF:]):
        digits = half.lstrip(b"\x00") or b"\x00"
        if digits[0] & 0x80:
            digits = b"\x00" + digits
        numbers += bytes([2, len(digits)]) + digits
    return bytes([0x30, len(numbers)]) + numbers
