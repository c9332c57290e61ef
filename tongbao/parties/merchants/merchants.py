"""Open a merchant, connect channels, suspend."""

from __future__ import annotations

from datetime import date
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.changes import mark
from tongbao.infra.crypto import Keyring, bind
from tongbao.infra.db import Tx, Write
from tongbao.infra.settings import Secret
from tongbao.kernel.errors import Fact
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode
from tongbao.parties.merchants import _store as store
from tongbao.parties.merchants.model import (
    TERMS,
    LateSuccess,
    Merchant,
    MerchantNotFound,
    MerchantStandsOtherwise,
    MerchantState,
    masked,
)

LIVE_BOOK: Final = 1
SANDBOX_BOOK: Final = 2
_PURPOSE: Final = "merchant.bank_account"


class BankAccount(Struct, frozen=True):
    """Where the merchant wants to be paid."""

    holder: str
    number: Secret


async def open_merchant(
    tx: Tx,
    keyring: Keyring,
    *,
    name: str,
    bank_account: BankAccount | None = None,
    late_success: LateSuccess = LateSuccess.REFUND,
    settlement_delay_days: int = 1,
    live_book: int = LIVE_BOOK,
    sandbox_book: int = SANDBOX_BOOK,
    merchant_id: UUID | None = None,
) -> Merchant:
    """Take a merchant on; prices, channels and keys are given to it afterwards."""
    merchant_id = merchant_id or new_id()
    holder = shown = sealed = None
    if bank_account is not None:
        number = bank_account.number.reveal()
        holder, shown = bank_account.holder, masked(number)
        sealed = keyring.seal(_PURPOSE, number.encode(), _place(merchant_id))
    merchant = await store.INSERT_MERCHANT.one(
        tx,
        merchant_id,
        name,
        live_book,
        sandbox_book,
        late_success,
        settlement_delay_days,
        holder,
        shown,
        sealed,
        tx.now,
    )
    await audit.record(tx, "merchant.opened", show("mch", merchant_id), {"name": name})
    return merchant


async def lock_merchant(tx: Tx, merchant_id: UUID) -> Merchant:
    """Return a merchant whose row nobody changes until the transaction ends.

    Raises:
        MerchantNotFound
    """
    merchant = await store.LOCK_MERCHANT.first(tx, merchant_id)
    if merchant is None:
        raise MerchantNotFound
    return merchant


async def connect_channel(
    tx: Tx, merchant_id: UUID, mode: Mode, channel: str, channel_account_id: UUID
) -> None:
    """Let one of our accounts at a channel serve the merchant, instead of an earlier one.

    Raises:
        MerchantNotFound
    """
    await lock_merchant(tx, merchant_id)
    await store.SET_ROUTE.run(tx, merchant_id, mode, channel, channel_account_id)
    await mark(tx, TERMS, merchant_id)
    facts = {"mode": mode.value, "channel": channel, "account": show("chn", channel_account_id)}
    await audit.record(tx, "merchant.channel_connected", show("mch", merchant_id), facts)


async def set_suspended(tx: Tx, merchant_id: UUID, *, suspended: bool, because: str) -> Merchant:
    """Stop a merchant from taking new payments at once, or let it go on; repeating changes nothing.

    One person at the server may do this, and nothing else: any other standing is two people's.

    Raises:
        MerchantNotFound, MerchantStandsOtherwise
    """
    states = (MerchantState.ACTIVE, MerchantState.SUSPENDED)
    merchant = await lock_merchant(tx, merchant_id)
    if merchant.state not in states:
        raise MerchantStandsOtherwise(status=merchant.state.value)
    to = states[suspended]
    if merchant.state is to:
        return merchant
    return (await set_state(tx, merchant_id, to, because=because))[0]


async def set_state(
    tx: Tx,
    merchant_id: UUID,
    to: MerchantState,
    *,
    because: str,
    reserve_until: date | None = None,
) -> tuple[Merchant, int]:
    """Write down what a locked merchant may do from now on; return it and the line's version."""
    version = 1 + await store.LAST_STANDING_VERSION.one(tx, merchant_id)
    merchant = await store.SET_STATE.one(tx, merchant_id, to)
    await mark(tx, TERMS, merchant_id)
    await store.INSERT_STANDING.run(
        tx, merchant_id, version, to, because, reserve_until, tx.actor, tx.now
    )
    action = "reinstated" if to is MerchantState.ACTIVE else to.value
    facts: dict[str, Fact] = {"because": because}
    if reserve_until is not None:
        facts["reserve_until"] = reserve_until.isoformat()
    await audit.record(tx, f"merchant.{action}", show("mch", merchant_id), facts)
    return merchant, version


def bank_account_number(merchant: Merchant, keyring: Keyring) -> Secret | None:
    """Return the full account number, for the payout that needs it."""
    if merchant.bank_account_sealed is None:
        return None
    number = keyring.open(_PURPOSE, merchant.bank_account_sealed, _place(merchant.id))
    return Secret(number.decode())


def _place(merchant_id: UUID) -> bytes:
    return bind("merchant", "bank_account_sealed", merchant_id)


def still_serves(
    merchant: Merchant, mode: Mode, over: tuple[str, UUID | None], *, refusal: str
) -> Write:
    """Return the write that refuses when the merchant, or who serves it, is not as it was read.

    ``over``: a channel and our account that serves the merchant there; None where that matters not.
    """
    args = (merchant.id, merchant.state, merchant.late_success, mode, *over)
    return Write(store.STILL_SERVES, args, refusal=refusal)
