"""Points of onboarding and standing: whoever dies there leaves nothing half done."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.dying import dying
from tests.onboarding.applicants import CHECKER, MAKER, MAY, PICTURES, Applicant
from tests.onboarding.test_standing import propose
from tests.stage import Stage
from tongbao.controls.approvals.approvals import ApplyApproval, approve, run_apply
from tongbao.duties import approvals
from tongbao.infra.tasks import Lease
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import new_id
from tongbao.parties.merchants.model import MerchantState
from tongbao.parties.merchants.queries import merchant_with_id, standings_of
from tongbao.parties.onboarding.documents import add_document
from tongbao.parties.onboarding.model import DocumentKind
from tongbao.parties.onboarding.queries import documents_of
from tongbao.parties.standing.standing import FinishExit, run_finish_exit


async def apply(stage: Stage, proposed: Any) -> None:
    desk = approvals(stage.platform.flow, stage.platform.clearing)
    await run_apply(desk, ApplyApproval(proposed.id), Lease(new_id(), 1))


async def checked(stage: Stage, proposed: Any) -> None:
    """Agree to it, and keep the worker from doing it."""
    acts = approvals(stage.platform.flow, stage.platform.clearing).acts
    async with stage.db.begin(CHECKER) as tx:
        await approve(tx, acts, proposed.id, digest=proposed.digest.hex(), may=MAY)
        await tx.execute("delete from task where type = 'approvals.apply'", ())


async def test_a_standing_whose_change_died_changes_once(stage: Stage) -> None:
    shop = await stage.open_shop()
    proposed = await propose(stage, shop, "suspended")
    await checked(stage, proposed)
    with dying("standing.before_commit"):
        await apply(stage, proposed)
    assert (await merchant_with_id(stage.db, shop.merchant.id)).state is MerchantState.ACTIVE
    await apply(stage, proposed)
    await apply(stage, proposed)
    lines = await standings_of(stage.db, shop.merchant.id)
    assert [line.state for line in lines] == ["suspended"]


async def test_an_exit_that_died_is_finished_once(stage: Stage) -> None:
    shop = await stage.open_shop()
    proposed = await propose(stage, shop, "leaving", business_date(stage.db.clock.now()))
    await checked(stage, proposed)
    await apply(stage, proposed)
    async with stage.db.begin("tests") as tx:
        await tx.execute("delete from task where type like '%exit%'", ())
    version = (await standings_of(stage.db, shop.merchant.id))[-1].version
    stage.db.clock.offset += timedelta(days=1)
    task, lease = FinishExit(shop.merchant.id, version), Lease(new_id(), 1)
    with dying("standing.before_exit_commit"):
        await run_finish_exit(stage.db, task, lease)
    assert (await merchant_with_id(stage.db, shop.merchant.id)).state is MerchantState.LEAVING
    await run_finish_exit(stage.db, task, lease)
    await run_finish_exit(stage.db, task, lease)
    assert (await merchant_with_id(stage.db, shop.merchant.id)).state is MerchantState.GONE


@pytest.mark.parametrize("place", ["onboarding.after_blob", "onboarding.before_document_commit"])
async def test_a_document_that_died_on_its_way_is_kept_once(
    applicant: Applicant, stage: Stage, place: str
) -> None:
    row = await applicant.row(await applicant.apply())
    kind, content = next(iter(PICTURES.items()))

    async def add() -> Any:
        blobs = stage.platform.blobs
        return await add_document(stage.db, blobs, row, DocumentKind(kind), content, actor=MAKER)

    with dying(place):
        await add()
    assert await documents_of(stage.db, row.id) == []
    assert (await add()).id == (await add()).id
    assert len(await documents_of(stage.db, row.id)) == 1


async def test_an_opening_that_died_opens_once(applicant: Applicant, stage: Stage) -> None:
    made = await applicant.submitted()
    proposed = await applicant.propose(made)
    await checked(stage, proposed)
    with dying("onboarding.before_opening_commit"):
        await apply(stage, proposed)
    assert (await applicant.row(made)).opened_merchant_id is None
    await apply(stage, proposed)
    assert (await applicant.row(made)).opened_merchant_id is not None
