"""A batch is drawn, looked at by two people, and let go once, whoever dies on the way."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.clearing.books import FIRST_DAY, Books, open_books
from tests.clearing.settling import settle_day
from tongbao.clearing.settlement.closing import close_drawn
from tongbao.clearing.settlement.queries import drawn_of_batch
from tongbao.clearing.settlement_batches import batches as desk
from tongbao.clearing.settlement_batches.model import SettlementBatch, SettlementBatchMoved
from tongbao.clearing.settlement_batches.queries import batch_with_id, left_out_of
from tongbao.clearing.settlement_terms.terms import place_hold
from tongbao.controls.approvals.approvals import ApplyApproval, approve, run_apply
from tongbao.controls.approvals.model import Approvals, OwnProposal, acts_of
from tongbao.infra import failpoints
from tongbao.infra.db import Db
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.infra.tasks import Lease
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Mode
from tongbao.ledger.verify import verify
from tongbao.parties.identity.model import Permission

MAY = [permission.value for permission in Permission]
BATCH = (
    "settlement.before_draw",
    "settlement.after_draw",
    "settlement.before_drawn",
    "settlement.before_close",
    "settlement.after_close",
    "settlement.before_end",
    "ledger.before_commit",
    "ledger.after_commit",
)


@pytest.fixture
async def shops(db: Db, tmp_path: Path) -> list[Books]:
    """Three merchants, each with a payment of live money yesterday."""
    first = await open_books(db, tmp_path)
    first.mode = Mode.LIVE
    shops = [first, await first.another("second"), await first.another("third")]
    for place, shop in enumerate(shops):
        await shop.capture(1_000 * (place + 1), 10)
    first.at(FIRST_DAY + timedelta(days=1), 11, 30)
    return shops


async def drawn(shops: list[Books], **how: Any) -> SettlementBatch:
    async with shops[0].db.begin("operator:anna") as tx:
        batch = await desk.open_batch(tx, shops[0].mode, **how)
    return await desk.draw_batch(shops[0].clearing, batch.id)


async def proposed(shops: list[Books], batch: SettlementBatch) -> Any:
    async with shops[0].db.begin("operator:anna") as tx:
        return await desk.propose_release(tx, batch.id, reason="looked at all of them")


async def approved(shops: list[Books], batch: SettlementBatch) -> str:
    """Release a batch by four eyes, and return what became of the approval."""
    db = shops[0].db
    acts = acts_of(*desk.bound_acts(db))
    approval = await proposed(shops, batch)
    async with db.begin("operator:bert") as tx:
        await approve(tx, acts, approval.id, digest=approval.digest.hex(), may=MAY)
    await apply(shops, approval.id)
    [(state,)] = await shops[0].rows("select state from approval where id = $1", approval.id)
    return str(state)


async def apply(shops: list[Books], approval_id: Any) -> None:
    db = shops[0].db
    approvals = Approvals(db, acts_of(*desk.bound_acts(db)))
    await run_apply(approvals, ApplyApproval(approval_id), Lease(new_id(), 1))


async def payable(shops: list[Books]) -> list[int]:
    rows = await shops[0].rows("select payable from settlement where state = 'closed' order by 1")
    return [amount for (amount,) in rows]


async def test_live_money_waits_for_two_people_and_then_moves_once(shops: list[Books]) -> None:
    batch = await drawn(shops)

    assert batch.state == "drawn"
    assert await payable(shops) == []
    assert [await shop.posted(shop.due) for shop in shops] == [0, 0, 0]
    approval = await proposed(shops, batch)
    acts = acts_of(*desk.bound_acts(shops[0].db))
    async with shops[0].db.begin("operator:anna") as tx:
        with pytest.raises(OwnProposal):
            await approve(tx, acts, approval.id, digest=approval.digest.hex(), may=MAY)
    assert await approved(shops, batch) == "applied"
    for _ in range(2):
        released = await desk.release_batch(shops[0].clearing, batch.id)

    assert released.state == "released"
    assert await payable(shops) == [990, 1_990, 2_990]
    assert [await shop.posted(shop.due) for shop in shops] == [990, 1_990, 2_990]
    assert await shops[0].rows("select count(*), sum(amount) from payout") == [(3, 5_970)]
    report = await verify(shops[0].db)
    assert report.is_sound, report.broken


async def test_a_batch_of_play_money_releases_itself(shops: list[Books]) -> None:
    for shop in shops:
        shop.mode = Mode.SANDBOX
        shop.at(FIRST_DAY, 10)
        await shop.capture(500, 0)
        shop.at(FIRST_DAY + timedelta(days=1), 11, 30)
    batch = await drawn(shops, key="sandbox/today")
    assert batch.state == "releasing"
    released = await desk.release_batch(shops[0].clearing, batch.id)
    assert released.state == "released"
    assert await payable(shops) == [500, 500, 500]
    assert (await drawn(shops, key="sandbox/today")).id == batch.id


async def test_who_is_taken_out_is_settled_with_the_next_batch(shops: list[Books]) -> None:
    batch = await drawn(shops)
    [(settlement_id,)] = await shops[0].rows(
        "select id from settlement where merchant_id = $1", shops[1].merchant.id
    )
    stale = await proposed(shops, batch)
    async with shops[0].db.begin("operator:anna") as tx:
        await desk.leave_out(tx, settlement_id, reason="looks odd")
    acts = acts_of(*desk.bound_acts(shops[0].db))
    async with shops[0].db.begin("operator:bert") as tx:
        await approve(tx, acts, stale.id, digest=stale.digest.hex(), may=MAY)
    await apply(shops, stale.id)  # what was approved is not what is there
    assert await shops[0].rows("select state, code from approval") == [
        ("failed", SettlementBatchMoved.code)
    ]
    assert await approved(shops, batch) == "applied"
    await desk.release_batch(shops[0].clearing, batch.id)

    assert await payable(shops) == [990, 2_990]
    assert [each.merchant_id for each in await left_out_of(shops[0].db, batch.id)] == [
        shops[1].merchant.id
    ]
    following = await drawn(shops)
    assert await shops[0].rows(
        "select merchant_id, due from settlement where batch_id = $1", following.id
    ) == [(shops[1].merchant.id, 1_990)]


async def test_a_batch_that_is_given_up_leaves_everything_for_the_next(shops: list[Books]) -> None:
    batch = await drawn(shops)
    async with shops[0].db.begin("operator:anna") as tx:
        await desk.drop_batch(tx, batch.id, reason="wrong day")
    await desk.run_drop_batch(shops[0].clearing, desk.DropBatch(batch.id), Lease(new_id(), 1))

    assert (await batch_with_id(shops[0].db, batch.id)).state == "dropped"
    assert await shops[0].rows("select count(*) from settlement_line") == [(0,)]
    with pytest.raises(SettlementBatchMoved):
        await proposed(shops, batch)
    settled = await settle_day(shops[0].clearing, FIRST_DAY, mode=Mode.LIVE)
    assert sorted(each.due for each in settled) == [990, 1_990, 2_990]


async def test_a_hold_or_refund_after_the_drawing_leaves_less_to_pay(shops: list[Books]) -> None:
    batch = await drawn(shops)
    async with shops[0].db.begin("operator:anna") as tx:
        merchant = shops[0].merchant.id
        await place_hold(tx, merchant, Mode.LIVE, amount=None, reason="police asked")
    assert await shops[1].hold(500, 0)
    assert await approved(shops, batch) == "applied"
    await desk.release_batch(shops[0].clearing, batch.id)

    rows = await shops[0].rows("select due, payable, carried, payout_id is null from settlement"
                               " order by due")  # fmt: skip
    assert rows == [(990, 0, 990, True), (1_990, 1_490, 500, False), (2_990, 2_990, 0, False)]
    report = await verify(shops[0].db)
    assert report.is_sound, report.broken


@pytest.mark.parametrize("place", BATCH)
async def test_a_batch_whose_worker_died_goes_on_from_there(
    shops: list[Books], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "COHORT", 1)  # so that it dies between one merchant and the next
    monkeypatch.setattr(desk, "CLOSED_AT_ONCE", 1)
    monkeypatch.setattr(desk, "PAGE_MAX", 1)
    async with shops[0].db.begin("tests") as tx:
        batch = await desk.open_batch(tx, Mode.LIVE)
        await tx.execute("update settlement_batch set releases_itself = true", ())

    async def run() -> SettlementBatch:
        await desk.draw_batch(shops[0].clearing, batch.id)
        return await desk.release_batch(shops[0].clearing, batch.id)

    failpoints.arm(f"{place}:raise:{1 if place.endswith(('drawn', 'end')) else 2}")
    with pytest.raises(SimulatedCrash):
        await run()
    failpoints.arm(None)
    done = await run()

    assert (done.state, done.looked_at) == ("released", 3)
    assert await payable(shops) == [990, 1_990, 2_990]
    assert await shops[0].rows("select count(*), sum(amount) from payout") == [(3, 5_970)]
    assert await shops[0].rows("select count(*) from settlement_line") == [(6,)]
    assert await shops[0].rows("select count(*) from event where type = 'settlement.closed'") == [
        (3,)
    ]
    report = await verify(shops[0].db)
    assert report.is_sound, report.broken


async def test_two_who_draw_and_release_at_once_settle_each_merchant_once(
    shops: list[Books], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "COHORT", 1)
    monkeypatch.setattr(desk, "CLOSED_AT_ONCE", 1)
    monkeypatch.setattr(desk, "PAGE_MAX", 1)
    async with shops[0].db.begin("tests") as tx:
        batch = await desk.open_batch(tx, Mode.LIVE)
        await tx.execute("update settlement_batch set releases_itself = true", ())

    async def run() -> SettlementBatch:
        await desk.draw_batch(shops[0].clearing, batch.id)
        return await desk.release_batch(shops[0].clearing, batch.id)

    await asyncio.gather(*(run() for _ in range(3)))

    assert await payable(shops) == [990, 1_990, 2_990]
    assert await shops[0].rows("select looked_at, state from settlement_batch") == [(3, "released")]


async def test_drafts_that_are_closed_twice_at_once_are_paid_once(shops: list[Books]) -> None:
    batch = await drawn(shops)
    drafts = await drawn_of_batch(shops[0].db, batch.id, limit=10)

    done = await asyncio.gather(*(close_drawn(shops[0].clearing, drafts) for _ in range(2)))
    again = await close_drawn(shops[0].clearing, drafts)

    assert sum(len(each.now) for each in done) == 3
    assert (again.now, again.left_out) == ([], {})
    assert await shops[0].rows("select count(*), sum(amount) from payout") == [(3, 5_970)]
    for table, kind in (("task", "payouts.submit_payout"), ("event", "settlement.closed")):
        found = await shops[0].rows(f"select count(*) from {table} where type = '{kind}'")
        assert found == [(3,)]
    report = await verify(shops[0].db)
    assert report.is_sound, report.broken
