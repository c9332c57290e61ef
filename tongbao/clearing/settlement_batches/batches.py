"""Draw a batch, look at it, take single merchants out of it, and let it go by four eyes.

Every step is done in pieces, each in a transaction of its own that says how far it is, so that
whoever dies is followed by somebody who goes on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.clearing.context import Clearing, Progress, in_silence
from tongbao.clearing.settlement.closing import close_drawn
from tongbao.clearing.settlement.drawing import (
    ACTOR,
    DrawingOvertaken,
    Prepared,
    Wanted,
    drop,
    prepare,
    write_prepared,
)
from tongbao.clearing.settlement.model import Settlement, SettlementState
from tongbao.clearing.settlement.queries import (
    drawn_of_batch,
    settlement_with_id,
    sums_of_batch,
)
from tongbao.clearing.settlement_batches import _store as store
from tongbao.clearing.settlement_batches.model import (
    PREFIX,
    BatchState,
    BatchToRelease,
    Digest,
    SettlementBatch,
    SettlementBatchMoved,
    release_terms,
)
from tongbao.clearing.settlement_batches.queries import batch_with_id
from tongbao.controls.approvals.approvals import in_transaction, propose
from tongbao.controls.approvals.model import Act, Approval, Bound, Change, reason_of
from tongbao.infra import audit
from tongbao.infra.db import Db, Tx, Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, enqueue
from tongbao.kernel.errors import Fact
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.kernel.pages import PAGE_MAX
from tongbao.parties.identity.model import Permission
from tongbao.parties.merchants.model import Merchant
from tongbao.parties.merchants.queries import list_merchants

COHORT: Final = 6_000
"""Merchants drawn in one piece: few questions and short transactions."""
CLOSED_AT_ONCE: Final = 3_000
"""Settlements closed in one piece; what waits at the ledger has a limit."""
_CLOSING: Final = 2
BATCH_POLICY: Final = RetryPolicy(
    attempts_max=15,
    delays=tuple(timedelta(minutes=m) for m in (1, 5, 15, 60)),
    time_limit=timedelta(hours=1),
)


class DrawBatch(Task, frozen=True, tag="settlement.draw_batch"):
    """Draw the settlements of a batch."""

    batch_id: UUID


class ReleaseBatch(Task, frozen=True, tag="settlement.release_batch"):
    """Close every settlement of a batch that was let go."""

    batch_id: UUID


class DropBatch(Task, frozen=True, tag="settlement.drop_batch"):
    """Take back every settlement of a batch that was given up."""

    batch_id: UUID


RELEASE: Final = Act(
    name="settlement.release_batch",
    en="Release a settlement batch",
    zh="放行结算批次",
    terms=BatchToRelease,
    maker=Permission.SETTLEMENT_ACT.value,
    checker=Permission.SETTLEMENT_ACT.value,
    amounts=lambda terms: [Money(each.payable, each.currency) for each in terms.sums],
)


async def open_batch(
    tx: Tx, mode: Mode, *, key: str | None = None, day: date | None = None
) -> SettlementBatch:
    """Ask for a batch to be drawn; under a key there is one for ever."""
    batch_id = new_id()
    key = key or str(batch_id)
    releases_itself = mode is Mode.SANDBOX
    made = await store.INSERT_BATCH.run(
        tx, batch_id, key, mode, day, releases_itself, tx.actor, tx.now
    )
    batch = await store.BATCH_OF_KEY.one(tx, key)
    if made:
        await enqueue(tx, DrawBatch(batch.id), key=str(batch.id))
        facts: dict[str, Fact] = {"mode": str(mode), "day": day.isoformat() if day else None}
        await audit.record(tx, "settlement.batch_opened", show(PREFIX, batch.id), facts)
    return batch


async def draw_batch(
    context: Clearing, batch_id: UUID, *, on_progress: Progress = in_silence
) -> SettlementBatch:
    """Draw what is left to draw of a batch and return it as it then is."""
    batch = await batch_with_id(context.db, batch_id)
    ahead: asyncio.Task[_Cohort] | None = None
    try:
        while batch.state is BatchState.DRAWING:
            cohort = None if ahead is None else await ahead
            if cohort is None or cohort.after != batch.cursor:
                cohort = await _read_cohort(context, batch, batch.cursor)
            if cohort.count:
                # The next are read while these are written.
                ahead = asyncio.create_task(_read_cohort(context, batch, cohort.until))
                if await _write_cohort(context, batch, cohort):
                    on_progress("draw", batch.looked_at + cohort.count)
            else:
                await _end_drawing(context, batch)
            batch = await batch_with_id(context.db, batch_id)
    finally:
        if ahead is not None:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)
    return batch


async def release_batch(
    context: Clearing, batch_id: UUID, *, on_progress: Progress = in_silence
) -> SettlementBatch:
    """Close what is left to close of a batch that was let go, and return it as it then is.

    Raises:
        SettlementContended
    """
    batch = await batch_with_id(context.db, batch_id)
    done = 0

    def tell(closed: int) -> None:
        nonlocal done
        done += closed
        on_progress("release", done)

    while batch.state is BatchState.RELEASING:
        if not await _close_all(context, batch, tell):
            await _end(context, batch, BatchState.RELEASED)
        batch = await batch_with_id(context.db, batch_id)
    return batch


async def _close_all(context: Clearing, batch: SettlementBatch, tell: Callable[[int], None]) -> int:
    """Close what a batch has drawn, some of it made ready while the ledger commits the rest.

    Returns how many settlements that was, whatever became of them.

    Raises:
        SettlementContended
    """
    turn, after, met = asyncio.Lock(), None, 0

    async def take() -> list[Settlement]:
        nonlocal after, met
        async with turn:
            drafts = await drawn_of_batch(context.db, batch.id, after=after, limit=CLOSED_AT_ONCE)
            after = drafts[-1].id if drafts else after
        met += len(drafts)
        return drafts

    async def work() -> None:
        while drafts := await take():
            closed = await close_drawn(context, drafts)
            await _note_left_out(context, batch, drafts, closed.left_out)
            context.flow.nudge()
            tell(len(closed.now))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(_CLOSING):
                group.create_task(work())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return met


async def run_draw_batch(context: Clearing, task: DrawBatch, _lease: Lease) -> Again | None:
    """Draw a batch, and see to its release where it releases itself."""
    await draw_batch(context, task.batch_id)
    return None


async def run_release_batch(context: Clearing, task: ReleaseBatch, _lease: Lease) -> Again | None:
    """Close a batch."""
    await release_batch(context, task.batch_id)
    return None


async def run_drop_batch(context: Clearing, task: DropBatch, _lease: Lease) -> Again | None:
    """Give a batch up."""
    batch = await batch_with_id(context.db, task.batch_id)
    while batch.state is BatchState.DROPPING:
        drafts = await drawn_of_batch(context.db, batch.id, limit=COHORT)
        if drafts:
            async with context.db.begin(ACTOR) as tx:
                await drop(tx, drafts)
        else:
            await _end(context, batch, BatchState.DROPPED)
        batch = await batch_with_id(context.db, task.batch_id)
    return None


async def leave_out(tx: Tx, settlement_id: UUID, *, reason: str) -> Settlement:
    """Take one merchant's settlement out of a batch; its movements are in the next one.

    Raises:
        SettlementNotFound, SettlementBatchMoved, ReasonTooShort
    """
    why = reason_of(reason)
    draft = await settlement_with_id(tx, settlement_id)
    if draft.batch_id is None or draft.state is not SettlementState.DRAWN:
        raise SettlementBatchMoved
    batch = await _locked(tx, draft.batch_id, BatchState.DRAWN)
    if not await drop(tx, [draft]):
        raise SettlementBatchMoved
    await _leave_out_row(tx, batch, draft, why)
    facts: dict[str, Fact] = {"settlement": show("set", draft.id), "reason": why}
    await audit.record(tx, "settlement.left_out", show(PREFIX, batch.id), facts)
    return draft


async def drop_batch(tx: Tx, batch_id: UUID, *, reason: str) -> None:
    """Give a batch up; nothing of it is settled by it.

    Raises:
        SettlementBatchNotFound, SettlementBatchMoved, ReasonTooShort
    """
    why = reason_of(reason)
    batch = await _locked(tx, batch_id, BatchState.DRAWN)
    await store.MOVE.run(tx, batch.id, BatchState.DRAWN, BatchState.DROPPING)
    await enqueue(tx, DropBatch(batch.id), key=str(batch.id))
    await audit.record(tx, "settlement.batch_dropped", show(PREFIX, batch.id), {"reason": why})


async def propose_release(tx: Tx, batch_id: UUID, *, reason: str) -> Approval:
    """Put a drawn batch before other eyes, as it is now.

    Raises:
        SettlementBatchNotFound, SettlementBatchMoved, ReasonTooShort, ApprovalWaiting
    """
    batch = await _locked(tx, batch_id, BatchState.DRAWN)
    terms = release_terms(batch, await sums_of_batch(tx, batch.id), await _digest(tx, batch.id))
    return await propose(
        tx,
        RELEASE,
        show(PREFIX, batch.id),
        terms,
        reason=reason,
        mode=batch.mode,
        supersede=True,
    )


def bound_acts(db: Db) -> tuple[Bound, ...]:
    """Return the acts of this domain with what does them."""
    return (
        Bound(
            RELEASE,
            in_transaction(db, _let_go),
            show=_show,
            link=lambda approval: f"/settlement-batches/{approval.subject}",
        ),
    )


async def _let_go(tx: Tx, _approval: Approval, wanted: BatchToRelease) -> None:
    batch = await _locked(tx, wanted.batch_id, BatchState.DRAWN)
    if await _digest(tx, batch.id) != wanted.digest:
        raise SettlementBatchMoved
    await store.MOVE.run(tx, batch.id, BatchState.DRAWN, BatchState.RELEASING)
    await enqueue(tx, ReleaseBatch(batch.id), key=str(batch.id))


async def _show(_db: Db, _approval: Approval, wanted: BatchToRelease) -> list[Change]:
    return [
        Change(
            en=f"pays out in {each.currency} ({each.settlements} settlements)",
            zh=f"付款 {each.currency}（{each.settlements} 笔结算单）",
            before=None,
            after=Money(each.payable, each.currency).decimal_text(),
        )
        for each in wanted.sums
    ]


_LAST: Final = "end"


class _Cohort(Struct, frozen=True):
    """Merchants after a cursor and up to another, with what may be drawn for them."""

    after: str | None
    until: str
    count: int
    prepared: Prepared


async def _read_cohort(context: Clearing, batch: SettlementBatch, after: str | None) -> _Cohort:
    merchants, until = await _cohort(context.db, after)
    wanted = Wanted(batch.mode, batch.day, batch_id=batch.id)
    prepared = await prepare(context, merchants, wanted)
    return _Cohort(after, until or _LAST, len(merchants), prepared)


async def _write_cohort(context: Clearing, batch: SettlementBatch, cohort: _Cohort) -> bool:
    """Write what was read and move the batch on; False when somebody else has done so."""
    step = (batch.id, cohort.after, cohort.until, cohort.count)
    moved = Write(store.ADVANCE, step, refusal=SettlementBatchMoved.code)
    try:
        await write_prepared(context, cohort.prepared, also=[moved])
    except DrawingOvertaken:
        return False  # the row says how far it is
    return True


async def _cohort(db: Db, cursor: str | None) -> tuple[list[Merchant], str | None]:
    """Return the next merchants after a cursor, and the cursor after them."""
    found: list[Merchant] = []
    if cursor == _LAST:
        return found, None
    while len(found) < COHORT:
        page = await list_merchants(db, cursor=cursor, limit=PAGE_MAX)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    return found, cursor


async def _end_drawing(context: Clearing, batch: SettlementBatch) -> None:
    # A first batch fills a table that the database still takes for empty.
    await store.ANALYZE.run(context.db)
    async with context.db.begin(ACTOR) as tx:
        if await store.END_DRAWING.run(tx, batch.id, batch.cursor, tx.now):
            if batch.releases_itself:
                await enqueue(tx, ReleaseBatch(batch.id), key=str(batch.id))
            failpoint("settlement.before_drawn")
    context.flow.nudge()


async def _end(context: Clearing, batch: SettlementBatch, state: BatchState) -> None:
    now = context.db.clock.now()
    failpoint("settlement.before_end")
    await store.END.run(context.db, batch.id, batch.state, state, now)


async def _note_left_out(
    context: Clearing,
    batch: SettlementBatch,
    drafts: Sequence[Settlement],
    left_out: dict[UUID, str],
) -> None:
    if not left_out:
        return
    async with context.db.begin(ACTOR) as tx:
        for draft in drafts:
            if draft.id in left_out:
                await _leave_out_row(tx, batch, draft, left_out[draft.id])


async def _leave_out_row(tx: Tx, batch: SettlementBatch, draft: Settlement, why: str) -> None:
    await store.INSERT_LEFT_OUT.run(
        tx, batch.id, draft.merchant_id, draft.mode, draft.currency, why, tx.actor, tx.now
    )


async def _locked(tx: Tx, batch_id: UUID, state: BatchState) -> SettlementBatch:
    """Lock a batch that is in a state.

    Raises:
        SettlementBatchNotFound, SettlementBatchMoved
    """
    await batch_with_id(tx, batch_id)
    batch = await store.LOCK_BATCH.one(tx, batch_id)
    if batch.state is not state:
        raise SettlementBatchMoved(state=batch.state.value)
    return batch


async def _digest(tx: Tx, batch_id: UUID) -> str:
    digest, after = Digest(), None
    while drafts := await drawn_of_batch(tx, batch_id, after=after, limit=COHORT):
        for draft in drafts:
            digest.add(draft.id, draft.payable)
        after = drafts[-1].id
    return digest.hexdigest()
