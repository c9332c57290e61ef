"""Know a code made without network again, and use it up in the payment's own commit."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from tongbao.infra import audit
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, Write
from tongbao.kernel.clock import business_date, real_now
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.accounts.model import CodeUsedOrExpired, ScannedCode
from tongbao.parties.accounts.payment_codes import find_code, use_code_write
from tongbao.parties.accounts.queries import wallet_with_id
from tongbao.parties.accounts.wallets import spend_write
from tongbao.parties.offline_codes import _store as store
from tongbao.parties.offline_codes.keys import secret_of
from tongbao.parties.offline_codes.model import (
    MISSES_MAX,
    KeyState,
    OfflineCode,
    OfflineKey,
    OfflineKeyStopped,
    OfflineLimitExceeded,
    alias_of,
    is_late,
    is_offline_code,
    step_shown,
)

_ACTOR: Final = "offline codes"


async def find_offline_code(
    db: Db, keyring: Keyring, text: str, *, book: int, mode: Mode, at: datetime
) -> OfflineCode:
    """Return the code that was scanned; it is not used up by that.

    ``at`` is real time, which is what the phone's clock shows. A number that is wrong counts as a
    guess, in a commit of its own, and the fifth in a row locks the key. A number that was right a
    while ago does not: a queue at a till is no attack.

    Raises:
        CodeUsedOrExpired: wrong, late, used, or of no key that was ever given out.
        OfflineKeyStopped: right, and its key is over, locked or revoked.
    """
    if not is_offline_code(text):
        raise CodeUsedOrExpired
    key = await store.FIND_KEY.first(db, book, alias_of(text), mode)
    if key is None:
        raise CodeUsedOrExpired
    secret = secret_of(keyring, key)
    step = step_shown(secret, text, at)
    if step is None:
        if key.pays_at(db.clock.now()) and not is_late(secret, text, at):
            await _count_miss(db, key)
        raise CodeUsedOrExpired
    if not key.pays_at(db.clock.now()):
        raise OfflineKeyStopped
    if await store.IS_USED.one(db, key.book, key.id, step):
        raise CodeUsedOrExpired
    wallet = await wallet_with_id(db, key.book, key.wallet_id)
    return OfflineCode(
        book=key.book,
        mode=key.mode,
        wallet_id=wallet.id,
        currency=wallet.currency,
        key_id=key.id,
        step=step,
    )


async def scanned_code(
    db: Db, keyring: Keyring, text: str, *, book: int, mode: Mode
) -> ScannedCode:
    """Return the own wallet's code that was scanned, made with network or without.

    Raises:
        CodeUsedOrExpired, OfflineKeyStopped
    """
    if is_offline_code(text):
        # The step is of the phone's clock, which no test clock moves.
        return await find_offline_code(db, keyring, text, book=book, mode=mode, at=real_now())
    now = db.clock.now()
    code, wallet = await find_code(db, keyring, text, book=book, mode=mode, now=now)
    return ScannedCode(code.book, code.code_hash, code.mode, wallet.id, wallet.currency)


async def _count_miss(db: Db, key: OfflineKey) -> None:
    async with db.begin(_ACTOR) as tx:
        missed = await store.COUNT_MISS.first(tx, key.book, key.id, MISSES_MAX, tx.now)
        if missed is not None and missed.state is KeyState.LOCKED:
            wallet = {"wallet": show("wal", key.wallet_id)}
            await audit.record(tx, "offline_key.locked", show("ofk", key.id), wallet)


def code_writes(
    code: ScannedCode, payment_id: UUID, money: Money, now: datetime
) -> tuple[Write, ...]:
    """Return the writes that use a code up and count what is spent, in a payment's own commit."""
    spends = spend_write(code.book, code.wallet_id, money, now)
    if isinstance(code, OfflineCode):
        return (spends, *use_offline_writes(code, payment_id, money, now))
    return (use_code_write(code, payment_id, now), spends)


def use_offline_writes(
    code: OfflineCode, payment_id: UUID, money: Money, now: datetime
) -> tuple[Write, ...]:
    """Return the writes that use the code up and count it against the wallet's allowance.

    ``now`` is business time. Of two payments with one code, one is refused.
    """
    key = (code.book, code.key_id)
    spent = (code.book, code.wallet_id, business_date(now), money.amount)
    return (
        Write(store.HOLD_KEY, (*key, now), refusal=OfflineKeyStopped.code),
        Write(
            store.USE_CODE,
            (*key, code.step, now, payment_id),
            refusal=CodeUsedOrExpired.code,
        ),
        Write(store.SPEND, spent, refusal=OfflineLimitExceeded.code),
    )
