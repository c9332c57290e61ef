"""The phone's side of payment codes made without network, in plain Python, to be done elsewhere.

    secret = bytes.fromhex(key["secret"])          # from `Wallets.give_offline_key`, 32 bytes
    step   = seconds since 1970 // key["step_s"]   # on the platform's watch, see `ahead_s`
    mac    = HMAC-SM3(secret, "PAY1" + alias + step as 8 bytes, big-endian)
    place  = last byte of mac & 0x0f               # RFC 4226, 5.3
    number = (4 bytes of mac from place & 0x7fffffff) % 10**digits, with leading zeros
    code   = prefix + alias + number               # 18 digits

For the secret 00 01 02 … 1f, alias 123456789 and step 59666666 the code is 891234567899368425; the
platform's source has more values, in tests/vectors/offline_codes.

A code pays once. Show it while its step lasts, and the next one after a payment. SM3 is GB/T 32905;
it is written out here because not every phone's library has it. Keep the secret where only the
phone's owner gets at it, wipe it when ``expires_at`` is past, and whenever there is a network ask
for another key, naming this one in ``replaces``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

_BLOCK: Final = 64
_MASK: Final = 0xFFFF_FFFF
_START: Final = bytes.fromhex("7380166f4914b2b9172442d7da8a0600a96f30bc163138aae38dee4db0fb0e4e")
_LABEL: Final = b"PAY1"


class OfflineWallet:
    """A phone that was given a key and makes codes with it, whether there is a network or not."""

    def __init__(self, key: Mapping[str, Any], *, received_at: float | None = None) -> None:
        """Take the key as `Wallets.give_offline_key` returned it, when it came (phone's time)."""
        self._key = key
        self._secret = bytes.fromhex(key["secret"])
        received = time.time() if received_at is None else received_at
        self.ahead_s = received - datetime.fromisoformat(key["server_time"]).timestamp()
        """How much the phone's clock is ahead of the platform's."""

    def __repr__(self) -> str:
        return f"OfflineWallet({self._key['alias']})"

    def code(self, at: float | None = None) -> str:
        """Return the code to show now, or at a moment of the phone's clock."""
        key, step = self._key, self._step(at)
        alias, digits = key["alias"], key["digits"]
        return f"{key['prefix']}{alias}{one_time_number(self._secret, alias, step, digits)}"

    def seconds_left(self, at: float | None = None) -> float:
        """Return how long the code stays what it is."""
        now = (time.time() if at is None else at) - self.ahead_s
        return float(self._key["step_s"] - now % self._key["step_s"])

    def _step(self, at: float | None) -> int:
        now = (time.time() if at is None else at) - self.ahead_s
        return int(now // self._key["step_s"])


def one_time_number(secret: bytes, alias: str, step: int, digits: int = 7) -> str:
    """Return the number of a step, with its leading zeros."""
    mac = hmac_sm3(secret, _LABEL + alias.encode() + step.to_bytes(8, "big"))
    place = mac[-1] & 0x0F
    word = int.from_bytes(mac[place : place + 4], "big") & 0x7FFF_FFFF
    return f"{word % 10**digits:0{digits}d}"


def hmac_sm3(key: bytes, message: bytes) -> bytes:
    """Return the HMAC (RFC 2104) with SM3."""
    key = (sm3(key) if len(key) > _BLOCK else key).ljust(_BLOCK, b"\0")
    inner = sm3(bytes(byte ^ 0x36 for byte in key) + message)
    return sm3(bytes(byte ^ 0x5C for byte in key) + inner)


def sm3(message: bytes) -> bytes:
    """Return the SM3 digest (GB/T 32905), 32 bytes."""
    size = len(message) * 8
    padded = message + b"\x80"
    padded += b"\0" * (-(len(padded) + 8) % _BLOCK) + size.to_bytes(8, "big")
    state = [int.from_bytes(_START[at : at + 4], "big") for at in range(0, 32, 4)]
    for at in range(0, len(padded), _BLOCK):
        mixed = _compress(state, _words(padded[at : at + _BLOCK]))
        state = [old ^ new for old, new in zip(state, mixed, strict=True)]
    return b"".join(word.to_bytes(4, "big") for word in state)


def _words(block: bytes) -> list[int]:
    """Return the 68 words that a block is expanded to."""
    words = [int.from_bytes(block[at : at + 4], "big") for at in range(0, _BLOCK, 4)]
    for at in range(16, 68):
        word = words[at - 16] ^ words[at - 9] ^ _left(words[at - 3], 15)
        word ^= _left(word, 15) ^ _left(word, 23)
        words.append(word ^ _left(words[at - 13], 7) ^ words[at - 6])
    return words


def _compress(state: list[int], words: list[int]) -> list[int]:
    a, b, c, d, e, f, g, h = state
    for at in range(64):
        early = at < 16
        constant = 0x79CC4519 if early else 0x7A879D8A
        turned = _left(a, 12)
        first = _left((turned + e + _left(constant, at % 32)) & _MASK, 7)
        one = a ^ b ^ c if early else a & b | a & c | b & c
        other = e ^ f ^ g if early else e & f | ~e & g
        mixed_a = (one + d + (first ^ turned) + (words[at] ^ words[at + 4])) & _MASK
        mixed_e = (other + h + first + words[at]) & _MASK
        a, b, c, d = mixed_a, a, _left(b, 9), c
        e, f, g, h = mixed_e ^ _left(mixed_e, 9) ^ _left(mixed_e, 17), e, _left(f, 19), g
    return [a, b, c, d, e, f, g, h]


def _left(word: int, bits: int) -> int:
    word &= _MASK
    return (word << bits | word >> (32 - bits)) & _MASK if bits else word
