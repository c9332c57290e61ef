"""The licence changes by two people, between firms that have the same tables, and is told."""

from __future__ import annotations

import pytest

from tongbao.controls.approvals.approvals import ApplyApproval, approve, propose, run_apply
from tongbao.controls.approvals.licence import (
    CHANGE,
    SUBJECT,
    LicenceNeedsNewDeployment,
    LicenceUnchanged,
    NewLicence,
    bound_acts,
    check_change,
)
from tongbao.controls.approvals.model import Approvals, OwnProposal, acts_of
from tongbao.controls.approvals.queries import approval_with_id, changes_of
from tongbao.infra.audit import entries_of_actions
from tongbao.infra.db import Db
from tongbao.infra.migrate import LicenceFixed, licence_on_record, migrate
from tongbao.infra.tasks import Lease
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Licence

MAY = {"deployment_act"}
INSTITUTION, BANK = Licence.PAYMENT_INSTITUTION, Licence.BANK


async def test_two_people_make_a_payment_institution_a_bank(db: Db) -> None:
    desk = Approvals(db, acts_of(*bound_acts(db)))
    wanted = NewLicence(await licence_on_record(db), BANK, "金许〔2026〕7号")
    check_change(wanted)
    async with db.begin("anna") as tx:
        asked = await propose(tx, CHANGE, SUBJECT, wanted, reason="granted", may=MAY)
    assert [each.after for each in await changes_of(desk, asked)] == ["bank", "金许〔2026〕7号"]
    with pytest.raises(OwnProposal):
        async with db.begin("anna") as tx:
            await approve(tx, desk.acts, asked.id, digest=asked.digest.hex(), may=MAY)
    async with db.begin("bert") as tx:
        await approve(tx, desk.acts, asked.id, digest=asked.digest.hex(), may=MAY)
    assert await licence_on_record(db) is INSTITUTION
    for _ in range(2):  # a task may run twice
        await run_apply(desk, ApplyApproval(asked.id), Lease(new_id(), 1))
    assert (await approval_with_id(db, asked.id)).state == "applied"
    assert await licence_on_record(db) is BANK

    [entry] = await entries_of_actions(db, ["deployment.licence_changed"])
    assert entry.facts["before"] == "payment_institution"
    assert entry.facts["document"] == "金许〔2026〕7号"
    with pytest.raises(LicenceFixed):
        await migrate(db, INSTITUTION, "old")
    await migrate(db, BANK, "new")


@pytest.mark.parametrize("licensed", [INSTITUTION, BANK])
def test_what_an_aggregator_is_cannot_be_changed_in_place(licensed: Licence) -> None:
    for before, after in ((Licence.AGGREGATOR, licensed), (licensed, Licence.AGGREGATOR)):
        with pytest.raises(LicenceNeedsNewDeployment):
            check_change(NewLicence(before, after, "1"))
    with pytest.raises(LicenceUnchanged):
        check_change(NewLicence(licensed, licensed, "1"))
