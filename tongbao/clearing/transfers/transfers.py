"""Take a file of transfers, let it go by four eyes, and pay every row once.

Each row is held on the merchant's account by itself: one that is not covered is refused and the
others go on. Then the order is that of every effect outside: commit what is about to happen, call
without a transaction, commit the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from tongbao.clearing.context import Clearing
from tongbao.clearing.transfers import _store as store
from tongbao.clearing.transfers.model import (
    Destination,
    TransferBalanceTooLow,
    TransferBatch,
    TransferBatchMoved,
    TransferBatchState,
    TransferItem,
    TransferNumberTaken,
    TransferState,
)
from tongbao.clearing.transfers.paying import (
    ACTOR,
    MOVED_ON,
    WHILE_HELD,
    SubmitTransfer,
    ended_write,
    posting_of,
)
from tongbao.clearing.transfers.queries import batch_with_id, counts_of
from tongbao.clearing.transfers.rows import Row
from tongbao.clearing.transfers.ways import (
    sealed,
    ways_open,
)
from tongbao.controls.approvals.approvals import in_transaction, propose
from tongbao.controls.approvals.model import Act, Approval, Bound, Change
from tongbao.infra import audit
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, Tx, Write, write_all
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import Again, Lease, Task, enqueue, task_write
from tongbao.kernel.errors import Fact
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.ledger.model import (
    MOVED_BEFORE,
    AccountFrozen,
    AccountKey,
    ExceedsBalance,
    Group,
)
from tongbao.ledger.queries import balance_of
from tongbao.parties.identity.model import Permission
from tongbao.parties.merchants.model import MerchantHeld
from tongbao.parties.merchants.queries import merchant_with_id

PREFIX: Final = "trb"
_PIECE: Final = 500
_LOOK_AGAIN: Final = timedelta(minutes=5)


class RunTransferBatch(Task, frozen=True, tag="transfers.run_batch"):
    """Hold the money of every row of a batch, and see when all of them have ended."""

    batch_id: UUID


class BatchToPay(Struct, frozen=True):
    """What is approved: this file's rows."""

    batch_id: UUID
    count: int
    amount: int
    currency: str
    digest: str


RELEASE: Final = Act(
    name="transfers.release_batch",
    en="Let a batch of transfers go",
    zh="放行批量转账",
    terms=BatchToPay,
    maker=Permission.SETTLEMENT_ACT.value,
    checker=Permission.SETTLEMENT_ACT.value,
    lasts=timedelta(days=2),
    amounts=lambda terms: [Money(terms.amount, terms.currency)],
)


class NewBatch(Struct, frozen=True):
    """A file whose rows are all in order, and who sends it."""

    book: int
    merchant_id: UUID
    mode: Mode
    number: str
    currency: str
    content: bytes
    rows: list[Row]


async def list_batch(tx: Tx, keyring: Keyring, new: NewBatch) -> TransferBatch:
    """Keep a file's rows for somebody to let go; the same file under its number is kept once.

    Raises:
        TransferNumberTaken
    """
    digest, batch_id = sha256(new.content).digest(), new_id()
    amount = sum(row.money.amount for row in new.rows)
    made = await store.INSERT_BATCH.run(
        tx, new.book, batch_id, new.merchant_id, new.mode, new.number, digest, new.currency,
        len(new.rows), amount, tx.actor, tx.now,
    )  # fmt: skip
    batch = await store.BATCH_OF_NUMBER.one(tx, new.book, new.merchant_id, new.mode, new.number)
    if not made:
        if batch.digest != digest:
            raise TransferNumberTaken(number=new.number)
        return batch
    ids = [new_id() for _ in new.rows]
    await store.INSERT_ITEMS.run(
        tx, new.book, batch_id, new.merchant_id, new.mode, new.currency, ids,
        [row.line for row in new.rows], [row.number for row in new.rows],
        [row.destination for row in new.rows], [_masked(row) for row in new.rows],
        [sealed(keyring, each, msgspec.json.encode(row.payee))
         for each, row in zip(ids, new.rows, strict=True)],
        [row.money.amount for row in new.rows], [row.note for row in new.rows],
    )  # fmt: skip
    facts: dict[str, Fact] = {"count": len(new.rows), "amount": amount, "number": new.number}
    await audit.record(tx, "transfers.listed", show(PREFIX, batch_id), facts)
    return batch


async def propose_release(tx: Tx, batch_id: UUID, *, reason: str) -> Approval:
    """Put a batch before other eyes, if the merchant's balance covers all of it.

    Raises:
        TransferBatchNotFound, TransferBatchMoved, MerchantHeld, TransferBalanceTooLow,
        ReasonTooShort, ApprovalWaiting
    """
    batch = await batch_with_id(tx, batch_id)
    if batch.state is not TransferBatchState.LISTED:
        raise TransferBatchMoved(state=batch.state.value)
    if not (await merchant_with_id(tx, batch.merchant_id)).is_paid_out:
        raise MerchantHeld
    key = AccountKey("merchant_payable", batch.currency, batch.merchant_id)
    if (await balance_of(tx, batch.book, key)).available < batch.amount:
        raise TransferBalanceTooLow(amount=batch.amount)
    digest = batch.digest.hex()
    terms = BatchToPay(batch.id, batch.count, batch.amount, batch.currency, digest)
    return await propose(
        tx, RELEASE, show(PREFIX, batch.id), terms, reason=reason,
        merchant_id=batch.merchant_id, mode=batch.mode,
    )  # fmt: skip


async def drop_batch(tx: Tx, batch: TransferBatch) -> None:
    """Give a batch up that was not let go.

    Raises:
        TransferBatchMoved
    """
    step = (TransferBatchState.LISTED, TransferBatchState.DROPPED, tx.now)
    if not await store.MOVE_BATCH.run(tx, batch.book, batch.id, *step):
        raise TransferBatchMoved
    await audit.record(tx, "transfers.dropped", show(PREFIX, batch.id), {})


def bound_acts(db: Db) -> tuple[Bound, ...]:
    """Return the acts of this domain with what does them."""
    return (
        Bound(
            RELEASE,
            in_transaction(db, _let_go),
            show=_show,
            link=lambda approval: f"/transfer-batches/{approval.subject}",
        ),
    )


async def _let_go(tx: Tx, _approval: Approval, wanted: BatchToPay) -> None:
    batch = await batch_with_id(tx, wanted.batch_id)
    step = (TransferBatchState.LISTED, TransferBatchState.RUNNING, None)
    if not await store.MOVE_BATCH.run(tx, batch.book, batch.id, *step):
        raise TransferBatchMoved
    await enqueue(tx, RunTransferBatch(batch.id), key=str(batch.id))


async def _show(_db: Db, _approval: Approval, wanted: BatchToPay) -> list[Change]:
    total = Money(wanted.amount, wanted.currency).decimal_text()
    zh = f"转账 {wanted.currency}（{wanted.count} 笔）"
    en = f"pays out in {wanted.currency} ({wanted.count} transfers)"
    return [
        Change(en=en, zh=zh, before=None, after=total),
        Change(en="SHA-256 of the file", zh="文件 SHA-256", before=None, after=wanted.digest),
    ]


# Letting go


async def run_transfer_batch(
    context: Clearing, task: RunTransferBatch, _lease: Lease
) -> Again | None:
    """Hold what is still listed; come again until nothing of the batch is open.

    While the merchant's standing keeps its money in, nothing more of the batch begins.
    """
    batch = await batch_with_id(context.db, task.batch_id)
    if batch.state is not TransferBatchState.RUNNING:
        return None
    if not (await merchant_with_id(context.db, batch.merchant_id)).is_paid_out:
        return Again(WHILE_HELD)
    ways = await ways_open(context, batch.mode)
    while items := await store.LISTED.all(context.db, batch.book, batch.id, _PIECE):
        await _begin(context, items, ways)
        context.flow.nudge()
    counts = await counts_of(context.db, batch)
    if any(each.state.is_open for each in counts):
        return Again(_LOOK_AGAIN)
    step = (TransferBatchState.RUNNING, TransferBatchState.DONE, context.db.clock.now())
    await store.MOVE_BATCH.run(context.db, batch.book, batch.id, *step)
    return None


async def _begin(
    context: Clearing, items: Sequence[TransferItem], ways: dict[Destination, UUID | None]
) -> None:
    """Hold the money of each row, or refuse it; wallets have it at once."""
    now = context.db.clock.now()
    begun = [_begun(item, ways, now) for item in items]
    groups = [
        _begin_group(context, before, after, now)
        for before, after in zip(items, begun, strict=True)
        if after.state is not TransferState.REFUSED
    ]
    failpoint("transfers.before_hold")
    results = await context.flow.ledger.submit(groups)
    failpoint("transfers.after_hold")
    outcome = iter(results)
    for before, after in zip(items, begun, strict=True):
        if after.state is TransferState.REFUSED:
            await _refuse(context, before, after.code or "")
            continue
        result = next(outcome)
        if result.happened or result.code in {MOVED_ON, *MOVED_BEFORE}:
            continue
        if result.code in {ExceedsBalance.code, AccountFrozen.code} or _is_payees(result.code):
            await _refuse(context, before, result.code or "")
        elif result.status != "in_flight":
            raise RuntimeError(f"the ledger refused a transfer: {result.code}")


def _is_payees(code: str | None) -> bool:
    """Tell whether the ledger refused for the sake of the payee's account."""
    return code in {"ledger.account_closed", "ledger.exceeds_ceiling"}


def _begun(item: TransferItem, ways: dict[Destination, UUID | None], now: datetime) -> TransferItem:
    if item.destination not in ways:
        return replace(item, state=TransferState.REFUSED, code="not_open", ended_at=now)
    if item.destination is Destination.WALLET:
        return replace(item, state=TransferState.SUCCEEDED, ended_at=now)
    return replace(item, state=TransferState.HELD, account_id=ways[item.destination])


def _begin_group(
    context: Clearing, before: TransferItem, after: TransferItem, now: datetime
) -> Group:
    is_wallet = after.destination is Destination.WALLET
    task = SubmitTransfer(after.book, after.id)
    further = (
        ended_write(replace(after, version=before.version + 1), now)
        if is_wallet
        else task_write(task, run_at=now, key=f"transfer/{after.id}")
    )
    return Group(
        id=new_id(),  # the item's row keeps it to once; a refusal must not be remembered
        book=after.book,
        transfers=posting_of(
            context, "transfer.to_wallet" if is_wallet else "transfer.held", after
        ),
        companions=(_begin_write(before, after), further),
    )


def _begin_write(before: TransferItem, after: TransferItem) -> Write:
    args = (before.book, before.id, before.version, after.state, after.account_id, after.code,
            after.ended_at)  # fmt: skip
    return Write(store.BEGIN_ITEM, args, refusal=MOVED_ON)


async def _refuse(context: Clearing, item: TransferItem, code: str) -> None:
    now = context.db.clock.now()
    after = replace(
        item, state=TransferState.REFUSED, code=code, ended_at=now, version=item.version + 1
    )
    async with context.db.begin(ACTOR) as tx:
        await write_all(tx, (_begin_write(item, after), ended_write(after, now)))


def _masked(row: Row) -> str:
    """Return an account as people may see it: its last four letters."""
    return f"•••• {row.payee.account[-4:]}"
