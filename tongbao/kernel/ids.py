"""Ids: UUIDv7 made here, shown outside with a prefix, given to channels without one."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from datetime import datetime
from typing import Final
from uuid import UUID, SafeUUID

from tongbao.kernel.errors import NotFound

ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32: no i, l, o, u, so that an id survives being read aloud."""
_VALUES: Final = {letter: value for value, letter in enumerate(ALPHABET)}
_TEXT_LENGTH: Final = 26
_PAIRS: Final = tuple(high + low for high in ALPHABET for low in ALPHABET)
_PAIR_SHIFTS: Final = tuple(range(120, -1, -10))

_TAIL_BITS: Final = (1 << 62) - 1
_CHANCE_BYTES: Final = 8 * 128

_lock = threading.Lock()
_last_tick = 0
_chance: list[int] = []  # random numbers of 64 bits, drawn many at a time
os.register_at_fork(after_in_child=_chance.clear)


class UnknownId(NotFound):
    """The text is not an id of this kind, so nothing can have it."""

    code = "id.unknown"
    advice = "Send the id exactly as the platform returned it."
    advice_zh = "请原样传回平台返回的标识。"


def new_id() -> UUID:
    """Return a UUIDv7 (RFC 9562 §5.7): real time in milliseconds, then a per-process order.

    The 12 bits after the version count sub-millisecond ticks, so ids of one process sort in the
    order they were made, which keeps B-tree inserts at the right edge.
    """
    global _last_tick  # noqa: PLW0603 - one order per process, under the lock
    tick = (time.time_ns() << 12) // 1_000_000
    with _lock:
        tick = _last_tick = max(tick, _last_tick + 1)
        if not _chance:
            _chance.extend(memoryview(os.urandom(_CHANCE_BYTES)).cast("Q"))
        tail = _chance.pop() & _TAIL_BITS
    return _uuid((tick >> 12) << 80 | 0x7 << 76 | (tick & 0xFFF) << 64 | 0b10 << 62 | tail)


def first_id_at(moment: datetime) -> UUID:
    """Return what no id that was made from this moment on is below."""
    return _uuid(int(moment.timestamp() * 1000) << 80)


def derived_id(parent: UUID, role: str) -> UUID:
    """Return the one id that ``role`` of ``parent`` always has, so that a repeat is a no-op.

    It keeps the parent's first eight bytes, its time, so that what is derived lies beside its
    parent in every index and partition; the rest is SHA-256 of both, in the variant of RFC 9562.
    """
    digest = hashlib.sha256(parent.bytes + role.encode()).digest()
    tail = int.from_bytes(digest[:8], "big") & _TAIL_BITS
    return _uuid(parent.int >> 64 << 64 | 0b10 << 62 | tail)


def _uuid(number: int) -> UUID:
    """Return the id; its constructor spends most of its time on what cannot be wrong here."""
    made = UUID.__new__(UUID)
    object.__setattr__(made, "int", number)
    object.__setattr__(made, "is_safe", SafeUUID.unknown)
    return made


def base32(value: UUID) -> str:
    """Return the 26 lower-case letters that stand for the id; legal as a number at channels."""
    number = value.int
    # Two letters at a time: every answer shows a handful of ids.
    return "".join([_PAIRS[number >> shift & 0x3FF] for shift in _PAIR_SHIFTS])


def from_base32(text: str) -> UUID:
    """Return the id that 26 letters stand for.

    Raises:
        UnknownId: the text is no such id.
    """
    number = 0
    if len(text) != _TEXT_LENGTH:
        raise UnknownId
    for letter in text:
        if letter not in _VALUES:
            raise UnknownId
        number = number * 32 + _VALUES[letter]
    if number >> 128:
        raise UnknownId
    return UUID(int=number)


def show(prefix: str, value: UUID) -> str:
    """Return the public form: ``pay_01hx…``."""
    return f"{prefix}_{base32(value)}"


def parse(prefix: str, text: str) -> UUID:
    """Return the id behind its public form.

    Raises:
        UnknownId: another prefix, or not an id; answered like any id nobody has.
    """
    head, _, tail = text.partition("_")
    if head != prefix:
        raise UnknownId
    return from_base32(tail)
