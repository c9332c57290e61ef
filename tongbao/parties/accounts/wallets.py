"""Open, freeze and top up wallets, and spend from them in somebody else's commit."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.db import Db, Tx, Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import Event, event_write
from tongbao.infra.web.caller import Caller
from tongbao.infra.web.idempotency import Idempotency, InFlight
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.money import Money, exponent_of
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import AccountKey, Group, GroupInFlight
from tongbao.ledger.rules import posting
from tongbao.parties.accounts import _store as store
from tongbao.parties.accounts.model import (
    DAILY_LIMIT_DEFAULT,
    SpendingRefused,
    TopUpRefused,
    Wallet,
    WalletCurrencyDiffers,
    WalletNotFound,
    WalletState,
    masked_name,
)


class TopUpView(Struct, frozen=True):
    """Money put into a wallet, as the API and the webhooks show it."""

    id: str
    object: Literal["wallet_top_up"]
    wallet_id: str
    amount: int
    currency: str
    created_at: datetime


class WalletToppedUp(Event, frozen=True, kw_only=True, tag="wallet.topped_up"):
    """Money was put into a wallet."""

    object: TopUpView


async def open_wallet(
    tx: Tx,
    caller: Caller,
    *,
    holder_name: str,
    currency: str = "CNY",
    daily_limit: int = DAILY_LIMIT_DEFAULT,
    wallet_id: UUID | None = None,
) -> Wallet:
    """Open a wallet in the caller's book and mode; of the holder's name little is kept.

    Raises:
        HolderNameInvalid, UnknownCurrency
    """
    exponent_of(currency)
    wallet_id = wallet_id or new_id()
    wallet = await store.INSERT_WALLET.one(
        tx,
        caller.book,
        wallet_id,
        caller.merchant_id,
        caller.mode,
        masked_name(holder_name),
        currency,
        daily_limit,
        business_date(tx.now),
        tx.now,
    )
    facts = {"merchant": show("mch", caller.merchant_id), "mode": caller.mode.value}
    await audit.record(tx, "wallet.opened", show("wal", wallet_id), facts)
    return wallet


async def set_frozen(tx: Tx, wallet: Wallet, *, frozen: bool) -> Wallet:
    """Stop or resume spending; doing so again changes nothing. Refunds still come in.

    Raises:
        WalletNotFound
    """
    state = WalletState.FROZEN if frozen else WalletState.ACTIVE
    changed = await store.SET_STATE.first(tx, wallet.book, wallet.id, state)
    if changed is None:
        raise WalletNotFound
    await audit.record(tx, f"wallet.{state.value}", show("wal", wallet.id), {})
    return changed


async def bar_wallet(tx: Tx, book: int, wallet_id: UUID, until: datetime | None) -> None:
    """Let a wallet pay nothing until a moment, or let it pay again."""
    await store.BAR.run(tx, book, wallet_id, until)


async def top_up(
    db: Db, ledger: Ledger, wallet: Wallet, money: Money, use: Idempotency
) -> TopUpView:
    """Put money from the bank into a wallet, in one commit with its event and its key.

    Raises:
        WalletCurrencyDiffers, TopUpRefused, InFlight, GroupInFlight
    """
    if money.currency != wallet.currency:
        raise WalletCurrencyDiffers(currency=wallet.currency)
    top_up_id, now = new_id(), db.clock.now()
    view = view_top_up(top_up_id, wallet.id, money, now)
    event = WalletToppedUp(
        merchant_id=wallet.merchant_id, mode=wallet.mode, resource_id=view.id, object=view
    )
    group = Group(
        id=top_up_id,
        book=wallet.book,
        transfers=posting.transfers(
            "wallet.topped_up",
            reference=top_up_id,
            accounts={"wallet": account_of(wallet)},
            amounts={"amount": money},
        ),
        companions=(use.write(top_up_id, now), event_write(event, now=now)),
    )
    failpoint("wallets.before_top_up")
    [result] = await ledger.submit([group])
    failpoint("wallets.after_top_up")
    if result.happened:
        return view
    if result.code == InFlight.code:
        raise InFlight
    if result.status == "in_flight":
        raise GroupInFlight
    raise TopUpRefused(code=result.code)


def spend_write(book: int, wallet_id: UUID, money: Money, now: datetime) -> Write:
    """Return the write that counts spending against the day's limit of a wallet that may spend.

    It goes into the group that takes the money; the ledger keeps the balance from going negative.
    """
    args = (book, wallet_id, business_date(now), money.amount, now)
    return Write(store.SPEND, args, refusal=SpendingRefused.code)


def account_of(wallet: Wallet) -> AccountKey:
    """Return the ledger account that holds the wallet's balance."""
    return AccountKey("wallet", wallet.currency, wallet.id)


def view_top_up(top_up_id: UUID, wallet_id: UUID, money: Money, at: datetime) -> TopUpView:
    """Return a top-up as the API and the webhooks show it."""
    return TopUpView(
        id=show("top", top_up_id),
        object="wallet_top_up",
        wallet_id=show("wal", wallet_id),
        amount=money.amount,
        currency=money.currency,
        created_at=at,
    )
