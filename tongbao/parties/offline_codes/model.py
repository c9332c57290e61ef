"""Codes made without network: how they are made, told apart and limited. No I/O.

    code   89 | alias, 9 digits | one-time number, 7 digits
    number = HMAC-SM3(secret, "PAY1" | alias | step, 8 bytes), truncated as RFC 4226 §5.3 has it
    step   = seconds since 1970, in real time, divided by 30

    key    active ──5 wrong numbers──► locked
             ├────said by the owner──► revoked
             └────time passes, or a newer key took its place a moment ago──► over

A code pays once: its alias and step are written down in the payment's own commit. The alias is a
number of the key's own, so a code says nothing of the wallet. (A code that hides the wallet's
number in ``number * prime + wallet`` gives it to everybody who divides.)
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.crypto import constant_time_equal, hmac_sm3
from tongbao.kernel.errors import Conflict, NotFound, Rejected
from tongbao.kernel.licence import Mode
from tongbao.parties.accounts.model import ScannedCode

PREFIX: Final = "89"
"""No other code begins so: the own wallet's online codes have 88, WeChat 10-15, Alipay 25-30."""
ALIAS_DIGITS: Final = 9
NUMBER_DIGITS: Final = 7
CODE_LENGTH: Final = len(PREFIX) + ALIAS_DIGITS + NUMBER_DIGITS
STEP_S: Final = 30
SKEW_STEPS: Final = 1
"""A phone's clock may be so many steps off, either way: a guess hits one of three numbers."""
STALE_STEPS: Final = 120
"""Who shows a number of the last hour has the secret and is late: no payment, and no guess."""
MISSES_MAX: Final = 5
KEY_BYTES: Final = 32
KEY_LIFE: Final = timedelta(days=1)
OVERLAP: Final = timedelta(minutes=5)
"""How long a key goes on when another takes its place: that one's answer may be lost."""
KEYS_MAX: Final = 5
LIMIT_EACH: Final = 20_000
LIMIT_PER_DAY: Final = 50_000
"""Minor units. Our choice, as small as the day's limit that 银发〔2017〕296号 sets to static codes:
a phone without network proves less than one with it."""

_LABEL: Final = b"PAY1"


class OfflineKeyNotFound(NotFound):
    """The wallet has no such key for codes without network."""

    code = "offline_key.not_found"
    advice = "Check the id, and that the key is of this wallet."
    advice_zh = "请检查离线密钥标识及其所属钱包。"


class OfflineKeysTooMany(Conflict):
    """The wallet has as many phones that make codes without network as it may."""

    code = "offline_key.too_many"
    advice = "Revoke a key that is not needed, or replace it by naming it in replaces."
    advice_zh = "离线密钥数量已达上限，请吊销不用的密钥，或在 replaces 中指定要替换的密钥。"


class OfflineKeyStopped(Rejected):
    """The phone's key for codes without network is over, locked or revoked."""

    code = "offline_key.stopped"
    advice = "Ask the customer to open the wallet with network and show a new code."
    advice_zh = "离线付款功能已停用或过期，请顾客联网打开钱包后重新出示付款码。"


class OfflineLimitExceeded(Rejected):
    """More than may be paid with a code without network, at once or in a day."""

    code = "offline_key.limit_exceeded"
    advice = "Ask the customer to open the wallet with network and show a new code, or take less."
    advice_zh = "超出离线付款的单笔或单日限额，请顾客联网后重新出示付款码，或减少金额。"


class KeyState(StrEnum):
    """Whether a key's codes pay, its time permitting."""

    ACTIVE = "active"
    LOCKED = "locked"
    REVOKED = "revoked"


class OfflineKey(Struct, frozen=True):
    """One row of offline_key: one phone, for a day. The secret is sealed."""

    book: int
    id: UUID
    wallet_id: UUID
    mode: Mode
    alias: str
    device_name: str
    secret_sealed: bytes
    state: KeyState
    misses: int  # wrong numbers since the last right one
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None

    def pays_at(self, at: datetime) -> bool:
        """Whether the key's codes pay at a moment."""
        return self.state is KeyState.ACTIVE and at < self.expires_at

    def __repr__(self) -> str:
        return f"OfflineKey({self.alias}, {self.state})"


class OfflineAllowance(Struct, frozen=True):
    """One row of offline_allowance. ``spent`` is what was spent on the day ``spent_on``."""

    book: int
    wallet_id: UUID
    limit_each: int
    limit_per_day: int
    spent_on: date
    spent: int


class OfflineCode(ScannedCode, frozen=True, kw_only=True):
    """A code without network whose number is right: which key's, of which step.

    Nobody has written such a code down, so it has no hash to be found by.
    """

    code_hash: bytes = b""
    key_id: UUID
    step: int


def is_offline_code(text: str) -> bool:
    """Tell whether a scanned text is a code made without network, by its form."""
    return (
        len(text) == CODE_LENGTH and text.isascii() and text.isdecimal() and text.startswith(PREFIX)
    )


def alias_of(code: str) -> str:
    """Return whose code it is; `is_offline_code` must hold."""
    return code[len(PREFIX) : len(PREFIX) + ALIAS_DIGITS]


def new_alias() -> str:
    """Return nine digits by chance."""
    return f"{secrets.randbelow(10**ALIAS_DIGITS):0{ALIAS_DIGITS}d}"


def step_at(at: datetime) -> int:
    """Return the step that a moment of real time is in."""
    return int(at.timestamp()) // STEP_S


def number_of(secret: bytes, alias: str, step: int) -> str:
    """Return the one-time number of a step."""
    mac = hmac_sm3(secret, _LABEL, alias.encode(), step.to_bytes(8, "big"))
    place = mac[-1] & 0x0F
    word = int.from_bytes(mac[place : place + 4], "big") & 0x7FFF_FFFF
    return f"{word % 10**NUMBER_DIGITS:0{NUMBER_DIGITS}d}"


def code_of(secret: bytes, alias: str, step: int) -> str:
    """Return the code that a phone shows in a step."""
    return PREFIX + alias + number_of(secret, alias, step)


def step_shown(secret: bytes, code: str, at: datetime) -> int | None:
    """Return the step whose code this is, where it is one that pays at this moment."""
    now = step_at(at)
    return _step_among(secret, code, range(now - SKEW_STEPS, now + SKEW_STEPS + 1))


def is_late(secret: bytes, code: str, at: datetime) -> bool:
    """Return whether it was a code of the key's, too long ago to pay."""
    now = step_at(at)
    return _step_among(secret, code, range(now - STALE_STEPS, now - SKEW_STEPS)) is not None


def _step_among(secret: bytes, code: str, steps: Iterable[int]) -> int | None:
    """Return the step with this code; how long it takes does not tell which."""
    alias, found = alias_of(code), None
    for step in steps:
        if constant_time_equal(code_of(secret, alias, step).encode(), code.encode()):
            found = step
    return found
