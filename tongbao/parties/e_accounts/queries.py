"""What others may ask about electronic accounts, and what is kept of a person by them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.controls.limits.meters import check_counts, count_writes, limits_of
from tongbao.controls.limits.model import Count, Left
from tongbao.infra.db import Db, Tx, Write
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import Page, decode_moment, encode_moment, page_by_moment, page_size
from tongbao.ledger import queries as ledger
from tongbao.ledger.queries import PastBalance, StatementLine
from tongbao.parties.e_accounts import _store as store
from tongbao.parties.e_accounts.model import (
    BALANCE,
    CODE_ONE,
    CODE_STATIC,
    CODE_TWO,
    ORDER_PREFIX,
    OUT_ALL,
    OUT_OTHERS,
    WEAK_ONE,
    WEAK_TWO,
    EAccount,
    EAccountFreeze,
    EAccountLeg,
    EAccountMoved,
    EAccountNotFound,
    EAccountOrder,
    OrderNotFound,
)
from tongbao.parties.e_accounts.opening import book_of
from tongbao.parties.notices.telling import money_moved
from tongbao.parties.people.dossier import Contributor
from tongbao.parties.people.model import Kept

_KEPT_BECAUSE: Final = "中华人民共和国反洗钱法（2024年修订）：客户身份资料和交易记录至少保存十年"


async def account_of_person(on: Db | Tx, mode: Mode, person_id: UUID, wanted: UUID) -> EAccount:
    """Return an account of somebody's; another's is as unknown as none.

    Raises:
        EAccountNotFound
    """
    found = await store.GET_ACCOUNT.first(on, book_of(mode), wanted)
    if found is None or (found.person_id, found.mode) != (person_id, mode):
        raise EAccountNotFound
    return found


async def account_with_id(on: Db | Tx, wanted: UUID) -> EAccount:
    """Return an account of either mode, for operators.

    Raises:
        EAccountNotFound
    """
    for mode in Mode:
        found = await store.GET_ACCOUNT.first(on, book_of(mode), wanted)
        if found is not None:
            return found
    raise EAccountNotFound


async def accounts_of_person(on: Db | Tx, mode: Mode, person_id: UUID) -> list[EAccount]:
    """Return all accounts of somebody, closed ones too, oldest first."""
    return await store.OF_PERSON.all(on, book_of(mode), person_id)


async def find_accounts(
    on: Db | Tx,
    mode: Mode,
    *,
    person_id: UUID | None = None,
    state: str | None = None,
    only_frozen: bool = False,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[EAccount]:
    """Return accounts, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    _, before = decode_moment(cursor)
    found = await store.FIND_ACCOUNTS.all(
        on, book_of(mode), person_id, state, only_frozen, before, size + 1
    )
    return page_by_moment(found, size, lambda row: (row.opened_at, row.id))


async def freezes_of(on: Db | Tx, account: EAccount) -> list[EAccountFreeze]:
    """Return every freeze of an account, lifted ones too, oldest first."""
    return await store.FREEZES.all(on, account.book, account.id)


async def limits_of_account(on: Db | Tx, account: EAccount, now: datetime) -> list[Left]:
    """Return the limits that count for an account's class, and what is left of each today."""
    return await limits_of(on, account.metered, now)


async def statement_of(
    on: Db | Tx, account: EAccount, *, cursor: str | None, limit: int | None
) -> Page[StatementLine]:
    """Return a page of what was moved, newest first, each with the balance after it.

    Raises:
        CursorInvalid, PageSizeInvalid, BalancesBehind
    """
    return await ledger.statement(on, account.book, account.key, cursor=cursor, limit=limit)


def shown_reference(line: StatementLine) -> str:
    """Return the public id of what moved the money: a payment, a refund, or an order."""
    rule = line.code.split("/")[0]
    if rule.startswith("payment."):
        return show("pay", line.reference)
    is_refund = rule.startswith("refund.") or rule == "e_account.return_taken"
    return show("ref" if is_refund else ORDER_PREFIX, line.reference)


async def balance_then(on: Db | Tx, account: EAccount, at: datetime) -> PastBalance:
    """Return what the account held at a moment of business time.

    Raises:
        BalancesBehind, HistoryArchived
    """
    return await ledger.balance_at(on, account.book, account.key, at)


async def order_of_account(on: Db | Tx, account: EAccount, wanted: UUID) -> EAccountOrder:
    """Return an order of an account.

    Raises:
        OrderNotFound
    """
    found = await store.GET_ORDER.first(on, account.book, wanted)
    if found is None or found.account_id != account.id:
        raise OrderNotFound
    return found


async def has_request(on: Db | Tx, book: int, account_id: UUID, request_id: str) -> bool:
    """Tell whether an account has an order by this request."""
    return await store.ORDER_OF_REQUEST.first(on, book, account_id, request_id) is not None


async def orders_of_account(
    on: Db | Tx, account: EAccount, *, cursor: str | None, limit: int | None
) -> Page[EAccountOrder]:
    """Return the orders of an account, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    _, before = decode_moment(cursor)
    found = await store.ORDERS.all(on, account.book, account.id, before, size + 1)
    last = found[size - 1] if len(found) > size else None
    return Page(found[:size], encode_moment(last.made_at, last.id) if last else None)


async def legs_of(on: Db | Tx, orders: Sequence[EAccountOrder]) -> dict[UUID, EAccountLeg]:
    """Return how far orders over a bank have come, by the order's id; others have none."""
    wanted = [each.id for each in orders if each.card_id is not None]
    if not wanted:
        return {}
    return {each.order_id: each for each in await store.LEGS.all(on, orders[0].book, wanted)}


# What others write of an account in their own commits


class PaidCode(Struct, frozen=True):
    """A merchant's code that is paid: so much, in minor units, confirmed so strongly.

    ``is_static``: it began at a code that stands on a counter, as a plate's does.
    """

    amount: int
    level: int
    is_static: bool


async def check_payment(on: Db | Tx, account: EAccount, code: PaidCode, now: datetime) -> None:
    """Raise what stands against paying a merchant's code.

    Raises:
        EAccountBarred, EAccountStateWrong, EAccountFrozen, EAccountBalanceShort, LimitExceeded
    """
    account.check_gives(code.amount, now)
    await check_counts(on, _paid(account, code), now)


async def payment_writes(
    on: Db | Tx, account: EAccount, code: PaidCode, now: datetime
) -> list[Write]:
    """Return the writes that take a payment out of an account and count it on every meter."""
    move = (account.book, account.id, -code.amount, now)
    counts = await count_writes(on, _paid(account, code), now)
    told = money_moved(account.person_id, -code.amount, now)
    return [Write(store.MOVE, move, refusal=EAccountMoved.code), *counts, *told]


async def check_room(on: Db | Tx, account: EAccount, amount: int, now: datetime) -> None:
    """Raise unless the limit of balance lets so much more be in accounts of the class.

    Raises:
        LimitExceeded
    """
    await check_counts(on, [Count(account.metered, BALANCE, amount)], now)


async def incoming_writes(
    on: Db | Tx, account: EAccount, amount: int, now: datetime, *, comes_back: bool
) -> list[Write]:
    """Return the writes that put the person's own money into an account.

    What comes back lands whatever freezes stand, in an account that is asleep too.
    """
    row = (account.book, account.id, amount, now)
    room = await count_writes(on, [Count(account.metered, BALANCE, amount)], now)
    statement = store.LAND if comes_back else store.MOVE
    told = money_moved(account.person_id, amount, now)
    return [Write(statement, row, refusal=EAccountMoved.code), *room, *told]


def _paid(account: EAccount, code: PaidCode) -> list[Count]:
    """Return what a merchant's code, paid by an account, adds to its meters: it goes to others."""
    names = [OUT_ALL, OUT_OTHERS]
    names += [WEAK_ONE, CODE_ONE] if code.level < 2 else []
    names += [WEAK_TWO, CODE_TWO] if code.level < 3 else []
    names += [CODE_STATIC] if code.is_static else []
    mine = account.metered
    return [*(Count(mine, name, code.amount) for name in names), Count(mine, BALANCE, -code.amount)]


def contributor() -> Contributor:
    """Return what this domain keeps of a person: accounts and orders, which the law wants kept."""
    return Contributor("e_accounts", _show, _erase, _objects)


async def _show(db: Db, person_id: UUID) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for mode in Mode:
        for account in await accounts_of_person(db, mode, person_id):
            rows.append({"table": "e_account", **msgspec.to_builtins(account)})
            cursor: str | None = None
            while True:
                page = await orders_of_account(db, account, cursor=cursor, limit=None)
                rows += [{"table": "order", **msgspec.to_builtins(each)} for each in page.items]
                cursor = page.next_cursor
                if cursor is None:
                    break
    return rows


async def _objects(db: Db, person_id: UUID) -> str | None:
    for mode in Mode:
        for account in await accounts_of_person(db, mode, person_id):
            if account.state != "closed":
                return f"{account.shown_id} is not closed"
    return None


async def _erase(tx: Tx, person_id: UUID) -> list[Kept]:
    """Keep what the law wants kept; the rows name nobody but the person's id."""
    for mode in Mode:
        if await accounts_of_person(tx, mode, person_id):
            return [Kept("electronic accounts and their orders", _KEPT_BECAUSE, None)]
    return []
