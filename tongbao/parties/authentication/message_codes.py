"""Codes sent by SMS or mail: for one purpose, bound to the act they confirm, used once.

The text says what the code does: how much goes to whom (JR/T 0068-2020). Who asks about an address
that nobody has is answered alike, after the same work: only whoever has the phone learns more.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from msgspec import Struct

from tongbao.infra.crypto import Keyring, bind, constant_time_equal, hmac_sha256
from tongbao.infra.db import Db, Tx
from tongbao.infra.notify.model import Kind, Message
from tongbao.infra.notify.sending import queue_message
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.authentication import _store as store
from tongbao.parties.authentication.model import (
    CODE_LIFE,
    CODE_TRIES_MAX,
    Act,
    CodesTooMany,
    CodeWrong,
    MessageCode,
)

Purpose = Literal["register", "log_in", "recover", "contact", "confirm", "bind_card"]
Language = Literal["zh", "en"]
_PURPOSE: Final = "person.code"
_ADDRESS_MAY: Final = ((60, 1), (3600, 5), (86_400, 10))
"""So many codes per period of seconds to one address; and from one place on the network:"""
_SOURCE_MAY: Final = ((3600, 100), (86_400, 500))
_DEVICE_MAY: Final = (900, 5)
"""So many wrong guesses from a bound phone, counted apart: strangers cannot lock its person out."""
_DAY: Final = timedelta(days=2)

_TEXTS: Final[Mapping[tuple[str, Language], str]] = {
    ("register", "zh"): "【通宝】验证码{code}，用于注册，五分钟内有效。请勿告诉任何人。",
    ("register", "en"): "[Tongbao] {code} is your code to register. Five minutes. Tell nobody.",
    ("registered", "zh"): "【通宝】该号码已注册，请直接登录。如非本人操作，请忽略。",
    ("registered", "en"): "[Tongbao] This address has an account: log in. Not you? Ignore this.",
    ("unregistered", "zh"): "【通宝】有人以该号码登录，但该号码尚未注册。如非本人操作，请忽略。",
    ("unregistered", "en"): "[Tongbao] No account has this address. Not you? Ignore this.",
    (
        "recovered",
        "zh",
    ): "【通宝】您的账户已在新设备上找回，密码已更换。如非本人操作，请立即联系我们。",
    ("recovered", "en"): "[Tongbao] Your account was recovered on a new phone. Not you? Call us.",
    ("log_in", "zh"): "【通宝】验证码{code}，用于登录，五分钟内有效。请勿告诉任何人。",
    ("log_in", "en"): "[Tongbao] {code} is your code to log in. Five minutes. Tell nobody.",
    (
        "recover",
        "zh",
    ): "【通宝】验证码{code}，用于找回账户，五分钟内有效。如非本人操作，请联系我们。",
    ("recover", "en"): "[Tongbao] {code} is your code to recover your account. Not you? Call us.",
    ("contact", "zh"): "【通宝】验证码{code}，用于绑定该号码，五分钟内有效。请勿告诉任何人。",
    ("contact", "en"): "[Tongbao] {code} is your code to add this address. Five minutes.",
    ("confirm", "zh"): "【通宝】验证码{code}，用于确认您的操作，五分钟内有效。请勿告诉任何人。",
    ("confirm", "en"): "[Tongbao] {code} is your code to confirm what you do. Five minutes.",
    (
        "bind_card",
        "zh",
    ): "【通宝】验证码{code}，用于绑定尾号{payee}的银行卡。如非本人操作，请勿告诉任何人。",
    ("bind_card", "en"): "[Tongbao] {code} binds the card ending {payee}. Not you? Tell nobody.",
    (
        "confirm_money",
        "zh",
    ): "【通宝】验证码{code}，您正在向{payee}付款{amount}。如非本人操作，请勿使用。",
    ("confirm_money", "en"): "[Tongbao] {code} confirms paying {amount} to {payee}. Not you? Stop.",
}
_TITLES: Final[Mapping[Language, str]] = {"zh": "通宝验证码", "en": "Your Tongbao code"}


class Address(Struct, frozen=True):
    """Where a code goes, and the blind index that stands for it."""

    kind: Kind
    to: str
    blind: bytes
    language: Language


class CodeSent(Struct, frozen=True):
    """What everybody is told who asks for a code, whether one was sent or not."""

    code_id: UUID
    expires_at: datetime


async def take_allowance(db: Db, keyring: Keyring, blind: bytes, source: str) -> None:
    """Count one more code to an address and from a place on the network.

    Raises:
        CodesTooMany
    """
    key, now = keyring.mac_key(_PURPOSE), real_now()
    asked = [(hmac_sha256(key, bind("source", source)), *each) for each in _SOURCE_MAY]
    asked += [(hmac_sha256(key, bind("address", blind)), *each) for each in _ADDRESS_MAY]
    for subject, period_s, most in asked:
        starts_at = datetime.fromtimestamp(now.timestamp() // period_s * period_s, tz=now.tzinfo)
        if not await store.TAKE_ALLOWANCE.run(db, subject, period_s, starts_at, most):
            raise CodesTooMany


async def may_guess(db: Db, keyring: Keyring, device_id: UUID) -> bool:
    """Count one more guess from a phone that is bound, and tell whether it may be made."""
    now, subject = real_now(), _device(keyring, device_id)
    period_s, most = _DEVICE_MAY
    starts_at = datetime.fromtimestamp(now.timestamp() // period_s * period_s, tz=now.tzinfo)
    return bool(await store.TAKE_ALLOWANCE.run(db, subject, period_s, starts_at, most))


async def guessed_right(db: Db, keyring: Keyring, device_id: UUID) -> None:
    """Forget the guesses from a phone, after one that was right."""
    await store.GIVE_ALLOWANCE_BACK.run(db, _device(keyring, device_id), _DEVICE_MAY[0])


async def send_code(
    tx: Tx,
    keyring: Keyring,
    address: Address,
    purpose: Purpose,
    *,
    mode: Mode,
    owner_id: UUID | None,
    act: Act | None = None,
    instead: Literal["registered", "unregistered"] | None = None,
) -> CodeSent:
    """Make a code and have it sent; with ``instead`` another text goes, and no code is right.

    Rows are written either way, so that the work is the same.
    """
    made, now = new_id(), real_now()
    code = f"{secrets.randbelow(10**6):06d}"
    hashed = _hash(keyring, made, code if instead is None else secrets.token_hex())
    expires_at = now + CODE_LIFE
    digest = act.digest if act else None
    await store.INSERT_CODE.run(
        tx, made, mode, address.blind, purpose, digest, hashed, now, expires_at
    )
    text = _text(instead or purpose, address.language, code, act)
    await _queue(tx, keyring, address, text, mode=mode, purpose=purpose, owner_id=owner_id)
    return CodeSent(made, expires_at)


async def send_notice(
    tx: Tx,
    keyring: Keyring,
    address: Address,
    which: Literal["recovered"],
    *,
    mode: Mode,
    owner_id: UUID,
) -> None:
    """Tell somebody what was done with their account."""
    text = _TEXTS[which, address.language]
    await _queue(tx, keyring, address, text, mode=mode, purpose=which, owner_id=owner_id)


async def try_code(
    db: Db,
    keyring: Keyring,
    code_id: UUID,
    code: str,
    *,
    purpose: Purpose,
    act: Act | None = None,
) -> MessageCode:
    """Return what a right code was sent for; every try counts, and five wrong ones end it.

    The caller uses it up with `use_code`, in the transaction of what it is for.

    Raises:
        CodeWrong
    """
    row = await store.COUNT_CODE_TRY.first(db, code_id, real_now(), CODE_TRIES_MAX)
    expected = row.code_hash if row else bytes(32)
    right = constant_time_equal(expected, _hash(keyring, code_id, code))
    if row is None or not right or row.purpose != purpose:
        raise CodeWrong
    if row.act_digest != (act.digest if act else None):
        raise CodeWrong
    return row


async def use_code(tx: Tx, row: MessageCode) -> None:
    """Use a code up; of two at once, one does.

    Raises:
        CodeWrong
    """
    if not await store.USE_MESSAGE_CODE.run(tx, row.id, real_now()):
        raise CodeWrong


async def prune_message_codes(db: Db, over: datetime) -> None:
    """Forget codes that ended before, and allowances of days that are over."""
    await store.PRUNE_CODES.run(db, over)
    await store.PRUNE_ALLOWANCES.run(db, over - _DAY)


async def _queue(
    tx: Tx,
    keyring: Keyring,
    address: Address,
    text: str,
    *,
    mode: Mode,
    purpose: str,
    owner_id: UUID | None,
) -> None:
    message = Message(address.kind, address.to, _TITLES[address.language], text, address.language)
    await queue_message(
        tx, keyring, message, mode=mode, purpose=f"code.{purpose}", subject=owner_id
    )


def _text(which: str, language: Language, code: str, act: Act | None) -> str:
    if act is None or not act.amount:
        return _TEXTS[which, language].format(code=code, payee=act.payee if act else "")
    money = Money(act.amount, act.currency)
    shown = f"{act.currency} {money.decimal_text()}"
    return _TEXTS["confirm_money", language].format(code=code, amount=shown, payee=act.payee)


def _device(keyring: Keyring, device_id: UUID) -> bytes:
    return hmac_sha256(keyring.mac_key(_PURPOSE), bind("device", device_id))


def _hash(keyring: Keyring, code_id: UUID, code: str) -> bytes:
    return hmac_sha256(keyring.mac_key(_PURPOSE), bind("code", code_id, code))
