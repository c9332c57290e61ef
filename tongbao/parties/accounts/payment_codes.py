"""One-time payment codes (付款码): show one, look one up, use it up in the payment's own commit."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.crypto import Keyring, hmac_sha256
from tongbao.infra.db import Db, Tx, Write
from tongbao.kernel.licence import Mode
from tongbao.parties.accounts import _store as store
from tongbao.parties.accounts.model import (
    CODE_LIFE,
    CodeUsedOrExpired,
    PaymentCode,
    ScannedCode,
    ShownCode,
    Wallet,
    WalletBarred,
    WalletFrozen,
    WalletState,
    is_wallet_code,
    new_code,
)

_PURPOSE: Final = "payment_code"


async def show_code(tx: Tx, keyring: Keyring, wallet: Wallet) -> ShownCode:
    """Make a code the customer can show for a minute; only its HMAC is kept.

    Raises:
        WalletFrozen, WalletBarred
    """
    if wallet.state is not WalletState.ACTIVE:
        raise WalletFrozen
    if wallet.is_barred(tx.now):
        raise WalletBarred
    code = new_code()
    expires_at = tx.now + CODE_LIFE
    await store.INSERT_CODE.run(
        tx, wallet.book, _hash(keyring, code), wallet.id, wallet.mode, tx.now, expires_at
    )
    return ShownCode(code, expires_at)


async def find_code(
    on: Db | Tx, keyring: Keyring, text: str, *, book: int, mode: Mode, now: datetime
) -> tuple[PaymentCode, Wallet]:
    """Return the code that was scanned and its wallet; it is not used up by that.

    Raises:
        CodeUsedOrExpired
    """
    if not is_wallet_code(text):
        raise CodeUsedOrExpired
    code = await store.FIND_CODE.first(on, book, _hash(keyring, text), mode)
    if code is None or code.used_at is not None or code.expires_at <= now:
        raise CodeUsedOrExpired
    wallet = await store.GET_WALLET.first(on, code.book, code.wallet_id)
    if wallet is None:
        raise CodeUsedOrExpired
    return code, wallet


class CodeDigits(Struct, frozen=True):
    """Which code somebody has scanned, and in which book and mode it is to pay."""

    book: int
    code_hash: bytes
    mode: Mode


class CodeReader:
    """Knows codes again by their digits, of which the database has only an HMAC."""

    def __init__(self, keyring: Keyring) -> None:
        self._key = keyring.mac_key(_PURPOSE)

    def read(self, text: str, *, book: int, mode: Mode) -> CodeDigits | None:
        """Return what to look for, or None when the text is no code of ours."""
        if not is_wallet_code(text):
            return None
        return CodeDigits(book, hmac_sha256(self._key, text.encode()), mode)


async def scanned_codes(
    db: Db, asked: Sequence[CodeDigits], now: datetime
) -> dict[CodeDigits, ScannedCode]:
    """Return those of these codes that pay at this moment; none is used up by that."""
    found = await store.SCANNED.all(
        db,
        [each.book for each in asked],
        [each.code_hash for each in asked],
        [each.mode for each in asked],
        now,
    )
    return {CodeDigits(code.book, code.code_hash, code.mode): code for code in found}


def use_code_write(code: PaymentCode | ScannedCode, payment_id: UUID, now: datetime) -> Write:
    """Return the write that uses the code up; of two payments with one code, one is refused."""
    args = (code.book, code.code_hash, now, payment_id)
    return Write(store.USE_CODE, args, refusal=CodeUsedOrExpired.code)


async def prune_codes(db: Db) -> None:
    """Forget codes that nobody scanned; used ones stay, as evidence of the payment."""
    await store.PRUNE_CODES.run(db, db.clock.now() - CODE_LIFE)


def _hash(keyring: Keyring, code: str) -> bytes:
    return hmac_sha256(keyring.mac_key(_PURPOSE), code.encode())
