"""Schemes' files of chargebacks: read by a declared layout, taken whole, each row once."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.clearing.test_disputes import module_stage, paid, stage
from tests.dying import dying
from tests.stage import Stage
from tongbao.clearing.disputes import queries
from tongbao.clearing.disputes.deadlines import add_term
from tongbao.clearing.disputes.model import (
    AtEnd,
    DisputeState,
    SchemeUnknown,
    Term,
    TermQuality,
    TermTaken,
)
from tongbao.clearing.scheme_files.model import SchemeFile, SchemeFileEmpty, SchemeFileRefused
from tongbao.clearing.scheme_files.taking import rows_of, take_scheme_file
from tongbao.clearing.sources.layouts import load_layout
from tongbao.kernel.clock import BUSINESS_ZONE, business_date
from tongbao.kernel.ids import show
from tongbao.payments.collecting.model import Attempt

__all__ = ["module_stage", "stage"]
LAYOUT = load_layout(
    """
name = "acquirer.chargebacks"
en = "the acquirer's chargebacks"
zh = "收单机构差错交易"
format = "delimited"
header = "案件号,"
encoding = "gb18030"

[fields]
number = {column = "案件号"}
ref = {column = "原交易流水"}
at = {column = "清算日期", format = "%Y-%m-%d"}
amount = {column = "金额"}
fee = {column = "手续费", default = "0"}
state = {column = "原因码"}
word = {column = "类型"}

[[kinds]]
words = ["调单"]
kind = "retrieval"
[[kinds]]
words = ["退单"]
kind = "chargeback"
[[kinds]]
words = ["二次退单"]
kind = "second_chargeback"
[[kinds]]
words = ["胜诉"]
kind = "won"
""".encode()
)
HEAD = "案件号,原交易流水,清算日期,金额,手续费,原因码,类型\n"


class Desk:
    """Writes files and takes them, for one account."""

    def __init__(self, stage: Stage, attempt: Attempt, folder: Path) -> None:
        self.stage, self.attempt, self.folder = stage, attempt, folder
        self.today = business_date(stage.db.clock.now())

    def line(self, case: str, kind: str = "退单", **more: Any) -> str:
        told = {"ref": self.attempt.number, "at": self.today, "amount": "25.00", **more}
        return f"{case},{told['ref']},{told['at']},{told['amount']},1.00,4527,{kind}\n"

    async def take(self, *lines: str, name: str = "cb.csv", **more: Any) -> SchemeFile:
        path = self.folder / name
        path.write_bytes((HEAD + "".join(lines)).encode("gb18030"))
        by: dict[str, Any] = {"scheme": "unionpay", "account_id": self.attempt.account_id, **more}
        return await take_scheme_file(self.stage.flow, LAYOUT, path, actor="operator", **by)

    async def outcomes(self, file: SchemeFile) -> list[str]:
        return [each.outcome for each in await rows_of(self.stage.db, file.id)]

    async def states(self) -> list[DisputeState]:
        found = await queries.disputes_of_payment(self.stage.db, self.attempt.payment_id)
        return [each.state for each in found]


@pytest.fixture
async def desk(stage: Stage, tmp_path: Path) -> Desk:
    return Desk(stage, await stage.attempt_of(await paid(stage)), tmp_path)


async def test_a_file_becomes_disputes_with_deadlines_from_the_schemes_day(desk: Desk) -> None:
    told = desk.today - timedelta(days=4)
    trade = desk.attempt.channel_ref or ""
    file = await desk.take(
        desk.line("C1", at=told), desk.line("C2", "调单", ref=trade), desk.line("C3", ref="0" * 26)
    )

    charged, asked = await queries.disputes_of_payment(desk.stage.db, desk.attempt.payment_id)
    assert await desk.outcomes(file) == ["taken", "taken", "not_ours"]
    assert (charged.scheme_ref, charged.state, charged.amount, charged.fee) == (
        "C1",
        DisputeState.CHARGEBACK,
        2500,
        100,
    )
    assert (charged.reason_code, asked.state) == ("4527", DisputeState.RETRIEVAL)
    assert charged.deadline_at is not None
    last = (charged.deadline_at - timedelta(seconds=1)).astimezone(BUSINESS_ZONE).date()
    assert last == told + timedelta(days=25)  # the whole of the 25th day


async def test_the_same_file_again_does_nothing_and_the_next_goes_on(desk: Desk) -> None:
    first = await desk.take(desk.line("D1"))
    again = await desk.take(desk.line("D1"), name="the same.csv")
    await desk.take(desk.line("D1", "胜诉"), desk.line("D1"))

    assert (again.id, again.name) == (first.id, "cb.csv")
    assert await desk.states() == [DisputeState.WON]


async def test_whoever_dies_in_the_middle_takes_the_rest_and_nothing_twice(desk: Desk) -> None:
    lines = [desk.line(f"E{n}", amount="10.00") for n in range(3)]
    with dying("scheme_files.after_row"):
        await desk.take(*lines)
    file = await desk.take(*lines)

    assert file.ended_at is not None
    assert await desk.outcomes(file) == ["taken"] * 3
    assert await desk.states() == [DisputeState.CHARGEBACK] * 3


@pytest.mark.parametrize(
    "bad", ["F2,x,yesterday,1.00,0,1,退单\n", "F2,x,2026-11-01,1.00,0,1,礼物\n", "F2,,2026-11-01\n"]
)
async def test_one_bad_row_and_nothing_of_the_file_is_taken(desk: Desk, bad: str) -> None:
    with pytest.raises(SchemeFileRefused):
        await desk.take(desk.line("F1"), bad)
    with pytest.raises(SchemeFileEmpty):
        await desk.take(name="empty.csv")
    with pytest.raises(SchemeUnknown):
        await desk.take(desk.line("F1"), scheme="nobody's")

    assert await desk.states() == []


async def test_a_contracts_term_counts_from_its_day_on(desk: Desk) -> None:
    day = desk.today + timedelta(days=400)
    term = Term(
        "jcb",
        DisputeState.CHARGEBACK,
        day,
        30,
        AtEnd.PEOPLE,
        "our contract",
        TermQuality.CONTRACT,
    )
    async with desk.stage.db.begin("operator") as tx:
        await add_term(tx, term)
    found = [each for each in await queries.terms(desk.stage.db) if each.scheme == "jcb"]
    assert term in found
    assert {each.quality for each in found} == {TermQuality.ACQUIRER, TermQuality.CONTRACT}
    for taken in (day, desk.today - timedelta(days=1)):
        with pytest.raises(TermTaken):
            async with desk.stage.db.begin("operator") as tx:
                await add_term(tx, Term(*[*term_values(term)[:2], taken, *term_values(term)[3:]]))


def term_values(term: Term) -> list[Any]:
    return [getattr(term, name) for name in term.__struct_fields__]


async def test_another_accounts_trade_is_not_ours(desk: Desk) -> None:
    other = await desk.stage.attempt_of(await desk.stage.paid("alipay", 5_000))
    file = await desk.take(desk.line("G1", ref=other.number))

    assert await desk.outcomes(file) == ["not_ours"]
    assert show("pay", desk.attempt.payment_id).startswith("pay_")
