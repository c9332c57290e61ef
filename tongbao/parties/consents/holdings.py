"""Which accounts are a person's own, what is in them, and how one becomes theirs.

`Holdings` is what the open bank needs of any kind of account; `Wallets` is it for wallets and
`EAccounts` for electronic accounts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, Protocol
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, Tx, Write
from tongbao.kernel.errors import Conflict
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.kernel.pages import Page
from tongbao.ledger.model import AccountKey
from tongbao.ledger.queries import StatementLine, balance_of, statement
from tongbao.parties.accounts.model import (
    CodeUsedOrExpired,
    Wallet,
    WalletBarred,
    WalletCurrencyDiffers,
    WalletNotFound,
    WalletState,
)
from tongbao.parties.accounts.payment_codes import find_code, use_code_write
from tongbao.parties.accounts.queries import find_wallet, wallet_balance
from tongbao.parties.accounts.wallets import account_of, bar_wallet, spend_write
from tongbao.parties.consents import _store as store
from tongbao.parties.consents.model import AccountNotHeld
from tongbao.parties.e_accounts.model import EAccountOrder, EAccountState, WalletShort
from tongbao.parties.e_accounts.queries import account_with_id, accounts_of_person
from tongbao.parties.merchants.merchants import LIVE_BOOK, SANDBOX_BOOK
from tongbao.parties.people.dossier import check_not_barred
from tongbao.parties.people.model import Person
from tongbao.parties.people.real_names import identity_row

AccountKind = Literal["wallet", "e_account"]


class WalletClaimed(Conflict):
    """The wallet is somebody's already, perhaps your own."""

    code = "wallet.claimed"
    advice = "Look at your accounts; ask us if somebody else has your wallet."
    advice_zh = "该钱包已绑定，请查看账户列表；如被他人绑定请联系我们。"


class Account(Struct, frozen=True):
    """One account of a person's as the open bank shows it."""

    id: UUID
    book: int
    kind: AccountKind
    shown_id: str
    holder: str  # masked
    currency: str
    is_active: bool


class Funds(Struct, frozen=True):
    """What an account holds, in minor units."""

    booked: int
    available: int


class Movement(Struct, frozen=True):
    """One booked movement; ``change`` is signed as the person sees it."""

    id: UUID
    change: int
    balance_after: int
    code: str
    at: datetime


class Holdings(Protocol):
    """Where accounts of people are kept."""

    async def accounts_of(self, person_id: UUID, mode: Mode) -> list[Account]:
        """Return a person's accounts."""

    async def funds(self, account: Account) -> Funds:
        """Return what is in an account of theirs."""

    async def movements(
        self, account: Account, *, cursor: str | None, limit: int | None
    ) -> Page[Movement]:
        """Return what happened in an account of theirs, the newest first."""


class Wallets:
    """The wallets that people have claimed."""

    def __init__(self, db: Db) -> None:
        self._db = db

    async def accounts_of(self, person_id: UUID, mode: Mode) -> list[Account]:
        """Return the wallets that a person has claimed."""
        found = []
        for each in await store.CLAIMED.all(self._db, book_of(mode), person_id):
            wallet = await find_wallet(self._db, each.book, each.wallet_id)
            if wallet is not None and wallet.mode is mode:
                found.append(account_of_wallet(wallet))
        return found

    async def funds(self, account: Account) -> Funds:
        """Return the balance of a wallet."""
        balance = await wallet_balance(self._db, await self._wallet(account))
        return Funds(balance.posted, balance.available)

    async def movements(
        self, account: Account, *, cursor: str | None, limit: int | None
    ) -> Page[Movement]:
        """Return the movements of a wallet, the newest first.

        Raises:
            CursorInvalid, PageSizeInvalid, BalancesBehind
        """
        key = account_of(await self._wallet(account))
        page = await statement(self._db, account.book, key, cursor=cursor, limit=limit)
        return Page([_movement(line) for line in page.items], page.next_cursor)

    async def _wallet(self, account: Account) -> Wallet:
        wallet = await find_wallet(self._db, account.book, account.id)
        if wallet is None:
            raise AccountNotHeld
        return wallet


class ClaimedWallets:
    """A person's own wallets, on the other side of orders of their electronic accounts."""

    async def check(self, on: Db | Tx, wanted: EAccountOrder, now: datetime) -> None:
        """Raise what stands against the wallet's side of an order.

        Raises:
            WalletNotFound, WalletCurrencyDiffers, WalletFrozen, DailyLimitExceeded, WalletShort
        """
        wallet = await self._own(on, wanted)
        if wallet.currency != wanted.currency:
            raise WalletCurrencyDiffers(currency=wallet.currency)
        if wanted.kind == "to_wallet":
            return
        wallet.check_may_spend(Money(wanted.amount, wanted.currency), now)
        if wanted.amount > (await wallet_balance(on, wallet)).available:
            raise WalletShort

    async def writes(self, on: Db | Tx, wanted: EAccountOrder, now: datetime) -> tuple[Write, ...]:
        """Return what the order's commit writes of the wallet, if it still is its person's.

        Raises:
            WalletNotFound
        """
        wallet = await self._own(on, wanted)
        row = (wallet.book, wallet.id, wanted.person_id)
        claim = Write(store.STILL_CLAIMED, row, refusal=WalletNotFound.code)
        if wanted.kind == "to_wallet":
            return (claim,)
        money = Money(wanted.amount, wanted.currency)
        return (claim, spend_write(wallet.book, wallet.id, money, now))

    async def _own(self, on: Db | Tx, wanted: EAccountOrder) -> Wallet:
        place = (wanted.book, wanted.payee_id)
        claim = await store.CLAIM_OF.first(on, *place, wanted.person_id)
        if claim is None:
            raise WalletNotFound
        wallet = await find_wallet(on, claim.book, claim.wallet_id)
        if wallet is None or wallet.mode is not wanted.mode:
            raise WalletNotFound
        return wallet


class EAccounts:
    """The electronic accounts that people have opened; closed ones are no longer anybody's."""

    def __init__(self, db: Db) -> None:
        self._db = db

    async def accounts_of(self, person_id: UUID, mode: Mode) -> list[Account]:
        """Return a person's electronic accounts."""
        identity = await identity_row(self._db, person_id)
        holder = identity.name_masked if identity else "*"
        return [
            Account(
                *(each.id, each.book, "e_account", each.shown_id, holder, each.currency),
                each.state is EAccountState.ACTIVE,
            )
            for each in await accounts_of_person(self._db, mode, person_id)
            if each.closed_at is None
        ]

    async def funds(self, account: Account) -> Funds:
        """Return the balance of an electronic account, and what freezes leave of it."""
        balance = await balance_of(self._db, account.book, _key(account))
        held = (await account_with_id(self._db, account.id)).held
        return Funds(balance.posted, max(balance.available - held, 0))

    async def movements(
        self, account: Account, *, cursor: str | None, limit: int | None
    ) -> Page[Movement]:
        """Return the movements of an electronic account, the newest first.

        Raises:
            CursorInvalid, PageSizeInvalid, BalancesBehind
        """
        page = await statement(self._db, account.book, _key(account), cursor=cursor, limit=limit)
        return Page([_movement(line) for line in page.items], page.next_cursor)


class Together:
    """Accounts of several kinds as one list."""

    def __init__(self, by_kind: Mapping[AccountKind, Holdings]) -> None:
        self._by_kind = by_kind

    async def accounts_of(self, person_id: UUID, mode: Mode) -> list[Account]:
        """Return a person's accounts of every kind."""
        return [
            account
            for each in self._by_kind.values()
            for account in await each.accounts_of(person_id, mode)
        ]

    async def funds(self, account: Account) -> Funds:
        """Return what is in an account."""
        return await self._by_kind[account.kind].funds(account)

    async def movements(
        self, account: Account, *, cursor: str | None, limit: int | None
    ) -> Page[Movement]:
        """Return what happened in an account, the newest first.

        Raises:
            CursorInvalid, PageSizeInvalid, BalancesBehind
        """
        holdings = self._by_kind[account.kind]
        return await holdings.movements(account, cursor=cursor, limit=limit)


def holdings_of(db: Db) -> Holdings:
    """Return every kind of account that people have here."""
    return Together({"wallet": Wallets(db), "e_account": EAccounts(db)})


async def claim_wallet(db: Db, keyring: Keyring, person: Person, code: str) -> Wallet:
    """Make a wallet a person's own, who shows a payment code of it; the code is used up by that.

    Raises:
        CodeUsedOrExpired, WalletClaimed, WalletBarred
    """
    book = book_of(person.mode)
    now = db.clock.now()
    async with db.begin(person.actor) as tx:
        await check_not_barred(tx, person.id, WalletBarred)
        found, wallet = await find_code(tx, keyring, code, book=book, mode=person.mode, now=now)
        if not await use_code_write(found, person.id, now).run(tx):
            raise CodeUsedOrExpired
        if not await store.CLAIM.run(tx, wallet.book, wallet.id, person.id, tx.now):
            raise WalletClaimed
        facts = {"wallet": show("wal", wallet.id)}
        await audit.record(tx, "wallet.claimed", person.actor, facts)
    return wallet


async def bar_wallets(tx: Tx, person: Person, until: datetime | None) -> None:
    """Bar every wallet that a person made their own; the caller holds the person."""
    for each in await store.CLAIMED.all(tx, book_of(person.mode), person.id):
        await bar_wallet(tx, each.book, each.wallet_id, until)


def book_of(mode: Mode) -> int:
    """Return the book in which people of this mode are paid and pay."""
    return LIVE_BOOK if mode is Mode.LIVE else SANDBOX_BOOK


def account_of_wallet(wallet: Wallet) -> Account:
    """Return a wallet as the open bank shows it."""
    return Account(
        wallet.id,
        wallet.book,
        "wallet",
        show("wal", wallet.id),
        wallet.holder_masked,
        wallet.currency,
        wallet.state is WalletState.ACTIVE,
    )


def held(accounts: Sequence[Account], shown_id: str) -> Account:
    """Return the account of this id out of those that are somebody's.

    Raises:
        AccountNotHeld
    """
    for each in accounts:
        if each.shown_id == shown_id:
            return each
    raise AccountNotHeld


def _key(account: Account) -> AccountKey:
    return AccountKey(account.kind, account.currency, account.id)


def _movement(line: StatementLine) -> Movement:
    return Movement(line.transfer_id, line.change, line.balance_after, line.code, line.at)
