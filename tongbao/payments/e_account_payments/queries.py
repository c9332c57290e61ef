"""What accounts have paid, what waits for people, and what is kept of a person by both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import msgspec

from tongbao.infra.db import Db, Tx
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import Page, decode_moment, page_by_moment, page_size
from tongbao.parties.e_accounts.model import EAccount
from tongbao.parties.e_accounts.opening import book_of
from tongbao.parties.e_accounts.queries import accounts_of_person
from tongbao.parties.people.dossier import Contributor
from tongbao.parties.people.model import Kept
from tongbao.payments.e_account_payments import _store as store
from tongbao.payments.e_account_payments.model import (
    EAccountPayment,
    EAccountPaymentNotFound,
    EAccountRefund,
    WaitingSum,
)

_KEPT_BECAUSE: Final = "中华人民共和国反洗钱法（2024年修订）：客户身份资料和交易记录至少保存十年"


async def payment_of_account(on: Db | Tx, account: EAccount, wanted: UUID) -> EAccountPayment:
    """Return a payment that an account has made.

    Raises:
        EAccountPaymentNotFound
    """
    found = await store.GET_PAYMENT.first(on, account.book, wanted)
    if found is None or found.account_id != account.id:
        raise EAccountPaymentNotFound
    return found


async def payments_of_account(
    on: Db | Tx, account: EAccount, *, cursor: str | None, limit: int | None
) -> Page[EAccountPayment]:
    """Return the payments of an account, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    at, before = decode_moment(cursor)
    found = await store.PAYMENTS.all(on, account.book, account.id, at, before, size + 1)
    return page_by_moment(found, size, lambda row: (row.paid_at, row.payment_id))


async def refunds_of(
    on: Db | Tx, made: Sequence[EAccountPayment]
) -> dict[UUID, list[EAccountRefund]]:
    """Return what was given back of payments, by the payment's id."""
    found: dict[UUID, list[EAccountRefund]] = {each.payment_id: [] for each in made}
    if made:
        for each in await store.REFUNDS.all(on, made[0].book, list(found)):
            found[each.payment_id].append(each)
    return found


async def waiting_of_person(on: Db | Tx, mode: Mode, person_id: UUID) -> list[EAccountRefund]:
    """Return what was given back to somebody and waits to be taken, oldest first."""
    return await store.WAITING.all(on, book_of(mode), person_id)


async def all_waiting(
    on: Db | Tx, mode: Mode, *, person_id: UUID | None, cursor: str | None, limit: int | None
) -> Page[EAccountRefund]:
    """Return what waits for people, or for one of them, the longest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    at, after = decode_moment(cursor)
    found = await store.ALL_WAITING.all(on, book_of(mode), person_id, at, after, size + 1)
    return page_by_moment(found, size, lambda row: (row.made_at, row.refund_id))


async def waiting_sums(on: Db | Tx, mode: Mode) -> list[WaitingSum]:
    """Return what waits for people in a mode, by currency."""
    return await store.WAITING_SUMS.all(on, book_of(mode))


def contributor() -> Contributor:
    """Return what this domain keeps of a person: payments and refunds, which the law wants kept."""
    return Contributor("e_account_payments", _show, _erase, _objects)


async def _show(db: Db, person_id: UUID) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for mode in Mode:
        for account in await accounts_of_person(db, mode, person_id):
            cursor: str | None = None
            while True:
                page = await payments_of_account(db, account, cursor=cursor, limit=None)
                backs = await refunds_of(db, page.items)
                for each in page.items:
                    rows.append({"table": "e_account_payment", **msgspec.to_builtins(each)})
                    rows += [
                        {"table": "e_account_refund", **msgspec.to_builtins(back)}
                        for back in backs[each.payment_id]
                    ]
                cursor = page.next_cursor
                if cursor is None:
                    break
    return rows


async def _objects(db: Db, person_id: UUID) -> str | None:
    for mode in Mode:
        if await waiting_of_person(db, mode, person_id):
            return "money that was given back waits to be taken"
    return None


async def _erase(tx: Tx, person_id: UUID) -> list[Kept]:
    """Keep what the law wants kept; the rows name nobody but the person's id."""
    for mode in Mode:
        for account in await accounts_of_person(tx, mode, person_id):
            if await store.PAYMENTS.all(tx, account.book, account.id, None, None, 1):
                return [Kept("payments by electronic accounts", _KEPT_BECAUSE, None)]
    return []
