"""What others may ask about wallets."""

from __future__ import annotations

from uuid import UUID

from tongbao.infra.db import Db, Tx
from tongbao.infra.web.caller import Caller
from tongbao.kernel.money import Money
from tongbao.kernel.pages import Page, decode_moment, page_by_moment, page_size
from tongbao.ledger.queries import Balance, balance_of, transfers_of_reference
from tongbao.parties.accounts import _store as store
from tongbao.parties.accounts.model import Wallet, WalletNotFound
from tongbao.parties.accounts.wallets import TopUpView, account_of, view_top_up


async def wallet_of_caller(on: Db | Tx, caller: Caller, wallet_id: UUID) -> Wallet:
    """Return a wallet; another merchant's or another mode's is as unknown as none.

    Raises:
        WalletNotFound
    """
    wallet = await store.GET_WALLET.first(on, caller.book, wallet_id)
    if wallet is None or (wallet.merchant_id, wallet.mode) != (caller.merchant_id, caller.mode):
        raise WalletNotFound
    return wallet


async def locked_wallet(tx: Tx, wallet: Wallet) -> Wallet:
    """Return the wallet as it is when its lock is had, which the transaction then keeps."""
    return await store.LOCK_WALLET.one(tx, wallet.book, wallet.id)


async def wallet_with_id(on: Db | Tx, book: int, wallet_id: UUID) -> Wallet:
    """Return a wallet that is known to exist."""
    return await store.GET_WALLET.one(on, book, wallet_id)


async def find_wallet(on: Db | Tx, book: int, wallet_id: UUID) -> Wallet | None:
    """Return a wallet of a book, if it has it."""
    return await store.GET_WALLET.first(on, book, wallet_id)


async def wallets_of_caller(
    on: Db | Tx, caller: Caller, *, cursor: str | None, limit: int | None
) -> Page[Wallet]:
    """Return the merchant's wallets of this mode, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    _, before = decode_moment(cursor)
    found = await store.LIST_WALLETS.all(on, caller.merchant_id, caller.mode, before, size + 1)
    return page_by_moment(found, size, lambda row: (row.opened_at, row.id))


async def wallet_balance(on: Db | Tx, wallet: Wallet) -> Balance:
    """Return what the wallet holds."""
    return await balance_of(on, wallet.book, account_of(wallet))


async def top_up_with_id(on: Db | Tx, wallet: Wallet, top_up_id: UUID) -> TopUpView:
    """Return a top-up of the wallet as the ledger has it.

    Raises:
        WalletNotFound
    """
    for line in await transfers_of_reference(on, wallet.book, top_up_id):
        if line.credit == account_of(wallet):
            money = Money(line.amount, wallet.currency)
            return view_top_up(top_up_id, wallet.id, money, line.at)
    raise WalletNotFound
