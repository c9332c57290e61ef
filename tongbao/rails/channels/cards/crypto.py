"""The card host's cryptography: working keys under the master key, and the MAC of a message.

ECB (UnionPay's own for terminals): the blocks are XORed into one, written as hex, and its halves
encrypted one after the other; the first eight hex digits are the MAC. X9.19 is the retail MAC
(ISO/IEC 9797-1 algorithm 3, zero padding). Checked against tests/vectors/iso8583/mac.json.
"""

from __future__ import annotations

from functools import reduce
from hmac import compare_digest
from operator import xor
from typing import Final

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers.algorithms import SM4
from cryptography.hazmat.primitives.ciphers.modes import ECB
from msgspec import Struct

from tongbao.rails.channels.cards.secrets import CardSecrets, Cipher

KEY_BYTES: Final = 16
MAC_BYTES: Final = 8
CHECK_BYTES: Final[dict[Cipher, int]] = {"3des": 4, "sm4": 8}
BLOCK_BYTES: Final[dict[Cipher, int]] = {"3des": 8, "sm4": 16}


class WorkingKeysWrong(ValueError):
    """The keys of a sign-in do not have their check values; they are not used."""


class WorkingKeys(Struct, frozen=True):
    """What one sign-in gave, in the clear: for PINs, MACs and track data. Never shown or stored."""

    pin_key: bytes
    mac_key: bytes
    track_key: bytes | None

    def __repr__(self) -> str:
        return "WorkingKeys(***)"


def read_working_keys(secrets: CardSecrets, raw: bytes) -> WorkingKeys:
    """Return the keys in field 62 of a sign-in's answer: two or three, each with its check value.

    Raises:
        WorkingKeysWrong
    """
    size = KEY_BYTES + CHECK_BYTES[secrets.cipher]
    if len(raw) not in {2 * size, 3 * size}:
        raise WorkingKeysWrong(f"{len(raw)} bytes of keys")
    keys = [_unwrapped(secrets, raw[at : at + size]) for at in range(0, len(raw), size)]
    return WorkingKeys(keys[0], keys[1], keys[2] if len(keys) == 3 else None)


def check_value(cipher: Cipher, key: bytes) -> bytes:
    """Return the start of a block of zeros encrypted under the key."""
    zeros = bytes(BLOCK_BYTES[cipher])
    return _encrypt(cipher, key, zeros)[: CHECK_BYTES[cipher]]


def mac_of(secrets: CardSecrets, mac_key: bytes, text: bytes) -> bytes:
    """Return the eight bytes that go into field 64 or 128; ``text`` is all that stands before."""
    if secrets.mac == "ecb":
        return _mac_ecb(secrets.cipher, mac_key, text)
    return _mac_x9_19(mac_key, text)


def is_mac_of(secrets: CardSecrets, mac_key: bytes, text: bytes, mac: bytes) -> bool:
    """Whether it is; takes as long for a wrong one as for a right one."""
    return compare_digest(mac_of(secrets, mac_key, text), mac)


def _mac_ecb(cipher: Cipher, key: bytes, text: bytes) -> bytes:
    size = BLOCK_BYTES[cipher]
    numbers = (int.from_bytes(block, "big") for block in _blocks(text, size))
    digits = f"{reduce(xor, numbers, 0):0{2 * size}X}".encode()
    first = _encrypt(cipher, key, digits[:size])
    second = _encrypt(cipher, key, _xor(first, digits[size:]))
    return second.hex().upper().encode()[:MAC_BYTES]


def _mac_x9_19(key: bytes, text: bytes) -> bytes:
    left, right = key[:8], key[8:]
    chained = bytes(8)
    for block in _blocks(text, 8):
        chained = _encrypt("3des", left + left, _xor(chained, block))
    return _encrypt("3des", left + left, _decrypt("3des", right + right, chained))


def _unwrapped(secrets: CardSecrets, raw: bytes) -> bytes:
    key = _decrypt(secrets.cipher, bytes.fromhex(secrets.master_key), raw[:KEY_BYTES])
    if not compare_digest(check_value(secrets.cipher, key), raw[KEY_BYTES:]):
        raise WorkingKeysWrong("a check value is wrong")
    return key


def _blocks(text: bytes, size: int) -> list[bytes]:
    padded = text + bytes(-len(text) % size)
    return [padded[at : at + size] for at in range(0, len(padded), size)]


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _engine(cipher: Cipher, key: bytes) -> BlockCipher[ECB]:
    # One block at a time, and keys under a key, are what ECB is for; no text is encrypted here.
    algorithm = SM4(key) if cipher == "sm4" else TripleDES(key + key[:8])
    return BlockCipher(algorithm, ECB())  # noqa: S305


def _encrypt(cipher: Cipher, key: bytes, blocks: bytes) -> bytes:
    return _engine(cipher, key).encryptor().update(blocks)


def _decrypt(cipher: Cipher, key: bytes, blocks: bytes) -> bytes:
    return _engine(cipher, key).decryptor().update(blocks)
