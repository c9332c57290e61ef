"""Transfers in batches: confirmed together, each an order of its own, with progress to look at.

All orders and their tasks are written in one commit, and nothing is held for them. Each runs by
itself, once; one that is refused has failed and says why, and the others go on.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import enqueue
from tongbao.kernel.errors import Invalid, NotFound
from tongbao.kernel.ids import base32, new_id, show
from tongbao.kernel.money import Money
from tongbao.kernel.pages import Page, decode_moment, encode_moment, page_size
from tongbao.parties.authentication.step_up import Confirmed
from tongbao.parties.e_accounts import _store as store
from tongbao.parties.e_accounts.model import (
    PREFIX,
    SCHEDULED_MAX,
    EAccount,
    EAccountBatch,
    EAccountOrder,
    OrderOver,
    OrderState,
    Progress,
    RequestDiffers,
    RunAtWrong,
    Timing,
)
from tongbao.parties.e_accounts.orders import RunOrder, Wanted, cancel, drawn, order_row
from tongbao.parties.people.model import PREFIX as PERSON

ORDERS_MAX: Final = 500


class BatchNotFound(NotFound):
    """The account has no such batch."""

    code = "e_account.batch_not_found"
    advice = "Use the id that the batch was answered with."
    advice_zh = "批次不存在，请使用创建批次时返回的标识。"


class BatchWrong(Invalid):
    """A batch has 1 to 500 transfers to other accounts, each of an amount above nought."""

    code = "e_account.batch_wrong"
    advice = "Send 1 to 500 items, none to the paying account itself."
    advice_zh = "每批 1 至 500 笔，金额须大于零，收款账户不得为付款账户本身。"


class Item(Struct, frozen=True):
    """One transfer of a batch, in minor units of the batch's currency."""

    payee: UUID
    amount: int


class WantedBatch(Struct, frozen=True):
    """What somebody wants sent together."""

    request_id: str
    items: tuple[Item, ...]
    currency: str = "CNY"
    timing: Timing = "now"
    run_at: datetime | None = None

    @property
    def amount(self) -> int:
        """Return what it comes to."""
        return sum(each.amount for each in self.items)

    @property
    def payees(self) -> str:
        """Return whom it goes to as one name: others are other payees, whom nobody knows yet."""
        ids = sorted({each.payee for each in self.items})
        if len(ids) == 1:
            return show(PREFIX, ids[0])
        mark = hashlib.sha256(b"".join(each.bytes for each in ids)).hexdigest()[:16]
        return f"{len(self.items)} payees ({mark})"

    @property
    def digest(self) -> bytes:
        """Return what a repeat must be the same in, and what is confirmed."""
        items = [(each.payee, each.amount) for each in self.items]
        asked = (items, self.currency, self.timing, self.run_at)
        return hashlib.sha256(msgspec.json.encode(asked)).digest()


async def known_batch(on: Db | Tx, account: EAccount, wanted: WantedBatch) -> EAccountBatch | None:
    """Return the batch that this request has made before, if it has.

    Raises:
        RequestDiffers
    """
    key = (account.book, account.id, wanted.request_id)
    known = await store.BATCH_OF_REQUEST.first(on, *key)
    if known is not None and known.digest != wanted.digest:
        raise RequestDiffers(batch=known.shown_id)
    return known


async def send_batch(
    db: Db, account: EAccount, wanted: WantedBatch, *, level: int, confirmed: Confirmed
) -> EAccountBatch:
    """Write a batch with all its orders down; the same request again is answered with the same.

    Raises:
        BatchWrong, RunAtWrong, RequestDiffers, EAccountBarred, EAccountStateWrong, EAccountFrozen,
        ConfirmationUsed
    """
    known = await known_batch(db, account, wanted)
    if known is not None:
        return known
    check_batch(account, wanted)
    async with db.begin(show(PERSON, account.person_id)) as tx:
        locked = await store.LOCK_ACCOUNT.one(tx, account.book, account.id)
        locked.check_gives(0, tx.now)
        known = await known_batch(tx, account, wanted)
        if known is not None:
            return known  # the same request, a moment before
        await confirmed.take(tx)
        made = await _insert(tx, account, wanted, level)
        failpoint("e_accounts.before_batch_commit")
    return made


def check_batch(account: EAccount, wanted: WantedBatch) -> None:
    """Raise unless this can be a batch of an account.

    Raises:
        BatchWrong
    """
    if not 1 <= len(wanted.items) <= ORDERS_MAX:
        raise BatchWrong(param="$.items")
    for number, each in enumerate(wanted.items):
        if each.amount <= 0 or each.payee == account.id:
            raise BatchWrong(param=f"$.items[{number}]")


async def batch_of_account(on: Db | Tx, account: EAccount, wanted: UUID) -> EAccountBatch:
    """Return a batch of an account.

    Raises:
        BatchNotFound
    """
    found = await store.GET_BATCH.first(on, account.book, wanted)
    if found is None or found.account_id != account.id:
        raise BatchNotFound
    return found


async def progress_of(on: Db | Tx, batch: EAccountBatch) -> list[Progress]:
    """Return how many orders of a batch stand how, and what they come to."""
    return await store.PROGRESS.all(on, batch.book, batch.id)


async def orders_of_batch(
    on: Db | Tx, batch: EAccountBatch, *, cursor: str | None, limit: int | None
) -> Page[EAccountOrder]:
    """Return the orders of a batch, in the order in which they were asked for.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    _, after = decode_moment(cursor)
    found = await store.ORDERS_OF_BATCH.all(on, batch.book, batch.id, after, size + 1)
    last = found[size - 1] if len(found) > size else None
    return Page(found[:size], encode_moment(last.made_at, last.id) if last else None)


async def cancel_batch(tx: Tx, batch: EAccountBatch) -> int:
    """Take back every order of a batch that has not run, and say how many there were."""
    waiting = await store.WAITING_OF_BATCH.all(tx, batch.book, batch.id)
    cancelled = 0
    for each in waiting:
        cancelled += (await _cancelled(tx, each)).state is OrderState.CANCELLED
    await audit.record(tx, "e_account.batch_cancelled", batch.shown_id, {"orders": cancelled})
    return cancelled


async def _cancelled(tx: Tx, found: EAccountOrder) -> EAccountOrder:
    try:
        return await cancel(tx, found)
    except OrderOver:  # it ran at this very moment
        return found


async def _insert(tx: Tx, account: EAccount, wanted: WantedBatch, level: int) -> EAccountBatch:
    batch_id = new_id()
    orders = [
        replace(drawn(account, each, level, tx.now), batch_id=batch_id)
        for each in _each(wanted, batch_id)
    ]
    run_at = orders[0].run_at
    if wanted.timing == "scheduled" and not tx.now < run_at <= tx.now + SCHEDULED_MAX:
        raise RunAtWrong(param="$.run_at")
    batch = await store.INSERT_BATCH.one(
        tx,
        *(account.book, batch_id, account.id, account.person_id, account.mode),
        *(wanted.request_id, wanted.digest, len(orders), wanted.amount, wanted.currency),
        *(run_at, tx.now),
    )
    await store.INSERT_ORDER.run_many(tx, [order_row(each) for each in orders])
    for each in orders:
        await enqueue(tx, RunOrder(each.book, each.id), run_at=run_at, key=str(each.id))
    facts = {"orders": len(orders), "timing": wanted.timing}
    await audit.record(tx, "e_account.batch_waits", batch.shown_id, facts)
    return batch


def _each(wanted: WantedBatch, batch_id: UUID) -> list[Wanted]:
    return [
        Wanted(
            "transfer",
            Money(item.amount, wanted.currency),
            f"{base32(batch_id)}.{number}",
            item.payee,
            wanted.timing,
            wanted.run_at,
        )
        for number, item in enumerate(wanted.items)
    ]
