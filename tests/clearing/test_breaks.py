"""People close differences with four eyes; a difference that changes opens again."""

from __future__ import annotations

import csv
import io

import pytest

from tests.clearing.conftest import Day
from tests.two_people import agree, close_difference, propose_close
from tongbao.clearing.cases.cases import bound_closings, propose_closing
from tongbao.clearing.reconciliation import queries
from tongbao.clearing.reconciliation.model import (
    BillUnknown,
    BreakNotFound,
    BreakNotOpen,
    ReconBreak,
)
from tongbao.clearing.reconciliation.queries import BreakFilter
from tongbao.controls.approvals.approvals import ApplyApproval, approve, run_apply
from tongbao.controls.approvals.model import (
    Approvals,
    ApprovalWaiting,
    OwnProposal,
    ReasonTooShort,
    acts_of,
)
from tongbao.infra import failpoints
from tongbao.infra.audit import entries_of_subject
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.kernel.ids import new_id, show


async def one_break(day: Day) -> ReconBreak:
    """A day with one difference: the bill shows seven fen more."""
    [payment] = await day.paid("wechat_pay", 1000)
    day.bill_fault("wechat_pay", "wrong_amount:7", await day.number(payment))
    await day.over()
    await day.reconcile("wechat_pay")
    [found] = await day.breaks("wechat_pay")
    return found


async def test_closing_takes_a_reason_and_somebody_else(day: Day) -> None:
    found = await one_break(day)
    with pytest.raises(ReasonTooShort):
        await propose_close(day.db, found.id, "no")
    asked = await propose_close(day.db, found.id, "the channel will correct it", maker="anna")
    with pytest.raises(ApprovalWaiting):
        await propose_close(day.db, found.id, "me too", maker="bert")
    with pytest.raises(OwnProposal):
        await agree(day.db, asked, checker="anna")
    [open_still] = await day.breaks("wechat_pay")

    state = await agree(day.db, asked, checker="bert")
    [closed] = await day.breaks("wechat_pay")

    assert (open_still.state, open_still.proposal, state) == ("open", None, "applied")
    assert (closed.state, closed.proposed_by, closed.closed_by) == ("closed", "anna", "bert")
    assert closed.proposal == "the channel will correct it"
    entries = await entries_of_subject(day.db, show("brk", found.id))
    assert [entry.action for entry in entries] == ["reconciliation.break_closed"]
    with pytest.raises(BreakNotOpen):
        await propose_close(day.db, found.id, "once more")
    with pytest.raises(BreakNotFound):
        await propose_close(day.db, new_id(), "once more")


async def test_a_difference_without_money_is_closed_by_one_person(day: Day) -> None:
    found = await one_break(day)
    await day.db.execute("update recon_break set difference = 0 where id = $1", (found.id,))
    with pytest.raises(ReasonTooShort):
        async with day.db.begin("anna") as tx:
            await propose_closing(tx, found.id, reason=" ")
    async with day.db.begin("anna") as tx:
        assert await propose_closing(tx, found.id, reason="only the word differs") is None

    [closed] = await day.breaks("wechat_pay")
    assert (closed.state, closed.proposed_by, closed.closed_by) == ("closed", "anna", "anna")


async def test_a_difference_that_changed_meanwhile_is_not_closed(day: Day) -> None:
    found = await one_break(day)
    asked = await propose_close(day.db, found.id, "seven fen, let it be")
    await day.db.execute("update recon_break set difference = 700 where id = $1", (found.id,))

    assert await agree(day.db, asked) == "failed"
    [after] = await day.breaks("wechat_pay")
    assert (after.state, after.proposal) == ("open", None)


async def test_a_closing_happens_once_wherever_its_worker_dies(day: Day) -> None:
    found = await one_break(day)
    asked = await propose_close(day.db, found.id, "the channel will correct it")
    desk = Approvals(day.db, acts_of(*bound_closings(day.db)))
    async with day.db.begin("checker") as tx:
        await approve(tx, desk.acts, asked.id, digest=asked.digest.hex(), may=["breaks_act"])
    for place in ("approvals.before_effect_commit", "approvals.after_effect"):
        failpoints.arm(f"{place}:raise")
        with pytest.raises(SimulatedCrash):
            await run_apply(desk, ApplyApproval(asked.id), None)
        failpoints.arm(None)
    await run_apply(desk, ApplyApproval(asked.id), None)

    [closed] = await day.breaks("wechat_pay")
    assert (closed.state, closed.closed_by) == ("closed", "checker")
    entries = await entries_of_subject(day.db, show("brk", found.id))
    assert len(entries) == 1


async def test_the_database_wants_four_eyes_too(day: Day) -> None:
    found = await one_break(day)

    with pytest.raises(Exception, match="check constraint"):
        await day.db.execute(
            "update recon_break set state = 'closed', proposal = 'mine', proposed_by = 'anna',"
            " proposed_at = $2, closed_by = 'anna', closed_at = $2 where id = $1",
            (found.id, day.now),
        )


async def close_it(day: Day, found: ReconBreak) -> None:
    await close_difference(day.db, found.id, "agreed with the channel")


async def test_what_is_closed_stays_closed_while_it_is_the_same(day: Day) -> None:
    found = await one_break(day)
    await close_it(day, found)

    await day.reconcile("wechat_pay")

    [after] = await day.breaks("wechat_pay")
    assert (after.id, after.state, after.reopened) == (found.id, "closed", 0)


async def test_what_comes_back_different_is_open_again(day: Day) -> None:
    found = await one_break(day)
    await close_it(day, found)
    number = found.number
    day.bill_fault("wechat_pay", "wrong_amount:9", number)
    day.sandbox.post("wechat/bill/forget", day=day.date.isoformat())

    bill = await day.reconcile("wechat_pay", again=True)

    assert bill.version == 2
    [after] = await day.breaks("wechat_pay")
    assert (after.id, after.state, after.reopened) == (found.id, "open", 1)
    assert (after.difference, after.proposal, after.closed_by) == (9, None, None)


async def test_what_a_corrected_bill_no_longer_shows_is_gone(day: Day) -> None:
    found = await one_break(day)
    day.sandbox.post("wechat/bill/forget", day=day.date.isoformat())

    bill = await day.reconcile("wechat_pay", again=True)

    assert (bill.version, bill.state, bill.break_count) == (2, "matched", 0)
    [after] = await day.breaks("wechat_pay")
    assert (after.id, after.state, after.closed_by) == (found.id, "gone", "reconciliation")
    await day.sound()


async def test_a_corrected_fee_is_booked_as_a_correction(day: Day) -> None:
    [payment] = await day.paid("wechat_pay", 10_000)
    day.bill_fault("wechat_pay", "wrong_fee:40", await day.number(payment))
    await day.over()
    await day.reconcile("wechat_pay")
    assert await day.booked("channel_cost") == 100
    day.sandbox.post("wechat/bill/forget", day=day.date.isoformat())

    for _ in range(2):
        await day.reconcile("wechat_pay", again=True)

    assert await day.booked("channel_cost") == 60
    rows = await day.db.fetch("select entry, amount from bill_cost order by entry", ())
    assert [(row["entry"], row["amount"]) for row in rows] == [(0, 100), (1, -40)]
    await day.sound()


async def test_the_report_counts_by_class_and_the_csv_holds_every_line(day: Day) -> None:
    first, second, third = await day.paid("wechat_pay", 1000, 2000, 3000)
    day.bill_fault("wechat_pay", "drop_row", await day.number(first))
    day.bill_fault("wechat_pay", "wrong_amount:5", await day.number(second))
    day.bill_fault("wechat_pay", "wrong_amount:6", await day.number(third))
    await day.over()
    with pytest.raises(BillUnknown):
        await queries.report(day.db, day.account("wechat_pay"), day.date)
    await day.reconcile("wechat_pay")

    report = await queries.report(day.db, day.account("wechat_pay"), day.date)
    sums = [(str(each.break_class), each.count, each.amount) for each in report.classes]
    assert sums == [("amount_differs", 2, 11), ("missing_at_channel", 1, -1000)]

    async with day.db.begin("tests") as tx:
        lines = [line async for line in queries.breaks_csv(tx, day.account("wechat_pay"), day.date)]
    rows = list(csv.DictReader(io.StringIO("".join(lines))))
    assert [(row["class"], row["difference"]) for row in rows] == [
        ("amount_differs", "0.05"),
        ("amount_differs", "0.06"),
        ("missing_at_channel", "-10.00"),
    ]
    assert rows[2]["payment"] == first["id"]


async def test_a_spreadsheet_runs_no_formula_of_a_channels(day: Day) -> None:
    await one_break(day)
    await day.db.execute("update recon_break set number = '=cmd()'", ())

    async with day.db.begin("tests") as tx:
        lines = [line async for line in queries.breaks_csv(tx, day.account("wechat_pay"), day.date)]

    assert ",'=cmd()," in lines[1]


async def test_a_list_of_differences_pages_and_filters(day: Day) -> None:
    payments = await day.paid("wechat_pay", *range(1000, 1005))
    for payment in payments:
        day.bill_fault("wechat_pay", "drop_row", await day.number(payment))
    await day.paid("wechat_pay", 2000)
    await day.over()
    await day.reconcile("wechat_pay")

    seen, cursor = [], None
    while True:
        page = await queries.list_breaks(day.db, BreakFilter(), cursor=cursor, limit=2)
        seen += [each.id for each in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 5
    wanted = BreakFilter(break_class=queries.BreakClass.FEE_DIFFERS)
    assert (await queries.list_breaks(day.db, wanted)).items == []
    open_ones = BreakFilter(states=(queries.BreakState.OPEN,))
    assert len((await queries.list_breaks(day.db, open_ones)).items) == 5
