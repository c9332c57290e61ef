"""Passwords: which may be chosen, how they are kept, and when to think of a new one.

Two policies, because two authorities disagree. OWASP ASVS 5.0.0 (6.2.5, 6.2.10) forbids rules of
composition and forced changes; 等保 2.0 (GB/T 22239-2019 8.1.4.1) asks for both. ``mlps3`` wants
three kinds of characters, none of the last five passwords, and *reminds* after 90 days; ``asvs``
wants length alone. Both refuse what is in a list of common ones, and what repeats who somebody is.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal
from uuid import UUID

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from tongbao.infra.db import Db, Tx
from tongbao.parties.authentication import _store as store
from tongbao.parties.authentication.model import PasswordRefused

PasswordPolicy = Literal["asvs", "mlps3"]
LENGTH_MIN: Final = 8
LENGTH_MAX: Final = 128
DUE_AFTER: Final = timedelta(days=90)
BEFORE_MAX: Final = 5
PLACE_WORDS: Final = (
    *("tongbao", "通宝", "cashier", "shouyintai", "merchant", "shanghu", "operator", "console"),
    *("payment", "zhifu", "wallet", "qianbao", "settlement", "jiesuan", "ledger", "zhangbu"),
)
"""Words of the place, which whoever guesses here tries first; the documentation names them."""
_KINDS_MIN: Final = 3
_DIFFERENT_MIN: Final = 4
_WORD_MIN: Final = 4
# RFC 9106's second recommended choice; a login takes some 50 ms of one core.
_HASHER: Final = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=4)


def check_choice(password: str, policy: PasswordPolicy, about: Iterable[str] = ()) -> None:
    """Raise unless this password may be chosen by somebody known by these words.

    Raises:
        PasswordRefused
    """
    if not LENGTH_MIN <= len(password) <= LENGTH_MAX:
        raise PasswordRefused(reason="length", length_min=LENGTH_MIN)
    plain = password.casefold()
    if is_common(password) or len(set(plain)) < _DIFFERENT_MIN:
        raise PasswordRefused(reason="common")
    if says_the_place(password):
        raise PasswordRefused(reason="says_the_place")
    if any(len(word) >= _WORD_MIN and word.casefold() in plain for word in about):
        raise PasswordRefused(reason="says_who_you_are")
    if policy == "mlps3" and _kinds(password) < _KINDS_MIN:
        raise PasswordRefused(reason="kinds", kinds_min=_KINDS_MIN)


def is_common(password: str) -> bool:
    """Tell whether everybody tries this first."""
    return password.casefold() in _common()


def says_the_place(password: str) -> bool:
    """Tell whether a password has a word of the place in it, see `PLACE_WORDS`."""
    plain = password.casefold()
    return any(word in plain for word in PLACE_WORDS)


async def choose_password(
    db: Db, owner_id: UUID, password: str, policy: PasswordPolicy, about: Iterable[str] = ()
) -> str:
    """Return the hash of a password that may be chosen now, for `keep_password`.

    Raises:
        PasswordRefused
    """
    check_choice(password, policy, about)
    present = await store.GET_PASSWORD.first(db, owner_id)
    before = [present.hash] if present else []
    if policy == "mlps3":
        before += await store.BEFORE.all(db, owner_id, BEFORE_MAX - 1)
    for each in before:
        if await matches(password, each):
            raise PasswordRefused(reason="had_before")
    return await hash_of(password)


async def keep_password(tx: Tx, owner_id: UUID, password_hash: str) -> None:
    """Put a chosen password in force; the one before it is remembered for a while."""
    present = await store.GET_PASSWORD.first(tx, owner_id)
    if present is not None:
        await store.KEEP_BEFORE.run(tx, owner_id, present.set_at, present.hash)
        await store.TRIM_BEFORE.run(tx, owner_id, BEFORE_MAX - 1)
    await store.SET_PASSWORD.run(tx, owner_id, password_hash, tx.now)


async def password_matches(db: Db, owner_id: UUID, password: str) -> bool:
    """Tell whether this is the owner's password; with none on record it takes as long."""
    return await matching_hash(db, owner_id, password) is not None


async def matching_hash(db: Db, owner_id: UUID, password: str) -> str | None:
    """Return what is kept of the owner's password if this is it; with none it takes as long."""
    present = await store.GET_PASSWORD.first(db, owner_id)
    right = await matches(password, present.hash if present else _unmatchable())
    return present.hash if present is not None and right else None


async def still_stands(tx: Tx, owner_id: UUID, password_hash: str) -> bool:
    """Tell whether a password that matched is in force yet, and keep it so until the commit.

    A session is opened behind this: whoever sets another password ends it, or comes first.
    """
    return await store.HOLD_PASSWORD.first(tx, owner_id) == password_hash


async def password_changed_at(on: Db | Tx, owner_id: UUID) -> datetime | None:
    """Return when the password was changed to what it is; None where it is the first, or none."""
    if not await store.BEFORE.all(on, owner_id, 1):
        return None
    present = await store.GET_PASSWORD.first(on, owner_id)
    return None if present is None else present.set_at


async def password_is_due(db: Db, owner_id: UUID, policy: PasswordPolicy, now: datetime) -> bool:
    """Tell whether to remind of a new password; nobody is ever locked out for its age."""
    if policy == "asvs":
        return False
    present = await store.GET_PASSWORD.first(db, owner_id)
    return present is not None and now - present.set_at >= DUE_AFTER


async def forget_passwords(tx: Tx, owner_id: UUID) -> None:
    """Forget every password somebody had."""
    await store.FORGET_PASSWORD.run(tx, owner_id)
    await store.FORGET_BEFORE.run(tx, owner_id)


async def hash_of(password: str) -> str:
    """Return what is kept of a password, or of a PIN."""
    return await asyncio.to_thread(_HASHER.hash, password.encode(errors="replace"))


async def matches(password: str, password_hash: str) -> bool:
    """Tell whether a password is the one that this is kept of."""
    return await asyncio.to_thread(_verify, password, password_hash)


def _verify(password: str, password_hash: str) -> bool:
    try:
        return _HASHER.verify(password_hash, password.encode(errors="replace"))
    except (VerificationError, InvalidHashError):
        return False


@functools.cache
def _unmatchable() -> str:
    return _HASHER.hash(secrets.token_hex())


@functools.cache
def _common() -> frozenset[str]:
    """Return passwords that everybody tries first; a small list, see docs/how-to."""
    text = Path(__file__).with_name("common_passwords.txt").read_text("utf-8")
    return frozenset(text.split())


def _kinds(password: str) -> int:
    return sum(
        (
            any(each.islower() for each in password),
            any(each.isupper() for each in password),
            any(each.isdigit() for each in password),
            any(not each.isalnum() for each in password),
        )
    )
