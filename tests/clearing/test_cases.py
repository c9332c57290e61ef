"""Differences as cases: what to do, until when, and posting them once, by two people."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from tests.clearing.conftest import Day
from tongbao.clearing.cases.cases import (
    bound_postings,
    cases_of,
    leave_case,
    propose_posting,
    take_case,
)
from tongbao.clearing.cases.model import CaseTaken, NothingToPost, Suggestion
from tongbao.clearing.reconciliation.model import ReconBreak
from tongbao.controls.approvals.approvals import ApplyApproval, approve, run_apply
from tongbao.controls.approvals.model import Approval, Approvals, OwnProposal, acts_of
from tongbao.controls.approvals.queries import approval_with_id
from tongbao.infra import failpoints
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import parse
from tongbao.payments.refunds.model import RefundState

MAKER, CHECKER = "opr_maker", "opr_checker"
MAY = {"breaks_act"}


class Desk:
    """A day with differences, and the people who deal with them."""

    def __init__(self, day: Day) -> None:
        self.day = day
        self.approvals = Approvals(day.db, acts_of(*bound_postings(day.stage.flow)))

    async def propose(self, found: ReconBreak) -> Approval:
        async with self.day.db.begin(MAKER) as tx:
            return await propose_posting(tx, found.id, reason="asked the channel", may=MAY)

    async def approve(self, asked: Approval, by: str = CHECKER) -> None:
        async with self.day.db.begin(by) as tx:
            acts, digest = self.approvals.acts, asked.digest.hex()
            await approve(tx, acts, asked.id, digest=digest, may=MAY)

    async def run(self, asked: Approval) -> str:
        await run_apply(self.approvals, ApplyApproval(asked.id), None)
        return (await approval_with_id(self.day.db, asked.id)).state.value

    async def found(self, kind: str) -> ReconBreak:
        [one] = [each for each in await self.day.breaks("wechat_pay") if each.break_class == kind]
        return one

    async def balances(self) -> tuple[int, int]:
        """What the channel owes us, and what lies in suspense."""
        account = self.day.account("wechat_pay")
        return (
            await self.day.booked("channel_receivable", account),
            await self.day.booked("suspense"),
        )


@pytest.fixture
async def desk(day: Day) -> Any:
    """A long of 555 and a short of 2000 on one bill."""
    payments = await day.paid("wechat_pay", 1000, 2000)
    await day.over()
    day.bill_fault("wechat_pay", "drop_row", await day.number(payments[1]))
    day.bill_fault("wechat_pay", "extra_row:555", "")
    await day.reconcile("wechat_pay")
    yield Desk(day)
    failpoints.arm(None)


async def test_a_long_goes_to_suspense_and_a_short_comes_out_of_it(desk: Desk) -> None:
    receivable, suspense = await desk.balances()
    for kind in ("missing_at_platform", "missing_at_channel"):
        asked = await desk.propose(await desk.found(kind))
        with pytest.raises(OwnProposal):
            await desk.approve(asked, MAKER)
        await desk.approve(asked)
        assert await desk.run(asked) == "applied"
        assert await desk.run(asked) == "applied"  # the second run does nothing

    assert await desk.balances() == (receivable + 555 - 2000, suspense + 555 - 2000)
    closed = await desk.found("missing_at_channel")
    assert (closed.state, closed.proposed_by, closed.closed_by) == ("closed", MAKER, CHECKER)
    with pytest.raises(NothingToPost):
        await desk.propose(closed)
    await desk.day.reconcile("wechat_pay")
    assert (await desk.found("missing_at_channel")).state == "closed"  # found again as it was
    await desk.day.sound()


@pytest.mark.parametrize(
    "place", ["cases.before_post", "cases.after_post", "approvals.after_effect"]
)
async def test_a_posting_happens_once_wherever_its_worker_dies(desk: Desk, place: str) -> None:
    receivable, suspense = await desk.balances()
    asked = await desk.propose(await desk.found("missing_at_platform"))
    await desk.approve(asked)

    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await desk.run(asked)
    failpoints.arm(None)

    assert await desk.run(asked) == "applied"
    assert await desk.balances() == (receivable + 555, suspense + 555)
    assert (await desk.found("missing_at_platform")).state == "closed"


async def test_a_difference_that_is_gone_meanwhile_is_not_posted(day: Day) -> None:
    [payment] = await day.paid("wechat_pay", 2000)
    number = (await day.number(payment)).encode()
    await day.over()

    def without_it(bill: bytes) -> bytes:
        return b"".join(line for line in bill.splitlines(keepends=True) if number not in line)

    await day.reconcile("wechat_pay", clearing=day.rewriting("wechat_pay", without_it))
    desk = Desk(day)
    before = await desk.balances()
    asked = await desk.propose(await desk.found("missing_at_channel"))
    await desk.approve(asked)
    await day.reconcile("wechat_pay", again=True)  # the corrected bill has the row
    fees = await day.booked("channel_cost")

    assert (await desk.found("missing_at_channel")).state == "gone"
    assert await desk.run(asked) == "failed"
    assert await desk.balances() == (before[0] - fees, before[1])


async def test_a_case_has_a_suggestion_a_deadline_and_one_owner(desk: Desk) -> None:
    db, found = desk.day.db, await desk.found("missing_at_channel")
    async with db.begin(MAKER) as tx:
        await take_case(tx, found.id)
    with pytest.raises(CaseTaken):
        async with db.begin(CHECKER) as tx:
            await take_case(tx, found.id)

    today = business_date(db.clock.now())
    [case] = await cases_of(db, [found], today)
    [later] = await cases_of(db, [found], today + timedelta(days=30))

    assert (case.owner, case.suggestion, case.is_overdue) == (MAKER, Suggestion.CLAIM, False)
    assert case.due_on >= today + timedelta(days=3)
    assert later.is_overdue
    async with db.begin(CHECKER) as tx:
        await take_case(tx, found.id, take_over=True)
    async with db.begin(MAKER) as tx:
        await leave_case(tx, found.id)  # not theirs any more
    [case] = await cases_of(db, [found], date(2026, 1, 1))
    assert case.owner == CHECKER


async def test_a_refund_on_the_bill_that_is_none_of_ours_is_a_short(day: Day) -> None:
    [payment] = await day.paid("wechat_pay", 5000)
    refund = await day.stage.refund(payment, 700)
    await day.stage.advance(minutes=1)
    await day.over()
    await day.db.execute(
        "update refund set state = $1, channel_at = null where id = $2",
        (RefundState.FAILED.value, parse("ref", refund["id"])),
    )
    await day.reconcile("wechat_pay")
    desk = Desk(day)
    [found] = [each for each in await day.breaks("wechat_pay") if each.kind == "refund"
               and each.break_class == "state_differs"]  # fmt: skip
    receivable, suspense = await desk.balances()

    asked = await desk.propose(found)
    await desk.approve(asked)
    assert await desk.run(asked) == "applied"

    assert found.difference == 700
    assert await desk.balances() == (receivable - 700, suspense - 700)
