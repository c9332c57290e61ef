"""UnionPay's list of differences as chargebacks: by the trades it names, each once, no guess."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from tests.clearing.conftest import Day
from tests.clearing.test_disputes import assert_disputes_are_booked
from tests.clearing.test_unionpay_day import unionpay_day
from tests.dying import dying
from tongbao.clearing.disputes import queries
from tongbao.clearing.disputes.model import Dispute, DisputeState
from tongbao.clearing.scheme_files.model import SchemeFile, SchemeFileEmpty, SchemeFileRefused
from tongbao.clearing.scheme_files.taking import rows_of, take_scheme_file
from tongbao.clearing.sources.layouts import load_layout
from tongbao.clearing.sources.model import LayoutWrong
from tongbao.kernel.ids import parse
from tongbao.rails.channels.contract.bills import BillFile

__all__ = ["unionpay_day"]
WORDS = """
name = "unionpay.chargebacks"
en = "UnionPay's chargebacks"
zh = "银联退单"
format = "channel"
parser = "unionpay.zme_cases"
within_days = 0

[[kinds]]
words = ["E23"]
kind = "chargeback"
[[kinds]]
words = ["E25"]
kind = "second_chargeback"
[[kinds]]
words = ["E74"]
kind = "other"
"""
LAYOUT = load_layout(WORDS.encode())


class Desk(Struct):
    """A UnionPay day with payments, whose list of differences is taken."""

    day: Day
    folder: Path

    async def charge_back(self, payment: Any, amount: int, code: str = "E23") -> None:
        number, day = await self.day.number(payment), self.day.date.isoformat()
        told = {"number": number, "day": day, "amount": amount, "code": code}
        await self.day.stage.control("unionpay/difference", **told)

    async def bill(self) -> Path:
        account = await self.day.stage.flow.account(self.day.account("unionpay"))
        channel = self.day.stage.flow.channels["unionpay"]
        answer = await channel.download_bill(account, self.day.date, self.folder)
        assert isinstance(answer.outcome, BillFile)
        return answer.outcome.path

    async def take(self, path: Path | None = None) -> SchemeFile:
        by: dict[str, Any] = {"scheme": "unionpay", "account_id": self.day.account("unionpay")}
        flow = self.day.stage.flow
        return await take_scheme_file(flow, LAYOUT, path or await self.bill(), actor="op", **by)

    async def disputes(self, payment: Any) -> list[Dispute]:
        return await queries.disputes_of_payment(self.day.db, parse("pay", payment["id"]))

    async def outcomes(self, file: SchemeFile) -> list[str]:
        return [each.outcome for each in await rows_of(self.day.db, file.id)]


@pytest.fixture
async def desk(unionpay_day: Day, tmp_path: Path) -> Desk:
    return Desk(unionpay_day, tmp_path)


async def test_a_chargeback_on_the_list_is_a_dispute_once(desk: Desk) -> None:
    one, other, untouched = await desk.day.paid("unionpay", 1999, 1999, 1999)
    await desk.charge_back(one, 1999)
    await desk.charge_back(other, 500)
    await desk.charge_back(untouched, 300, "E74")
    await desk.day.over()
    bill = await desk.bill()
    copy = desk.folder / "the same.zip"
    shutil.copy(bill, copy)

    file = await desk.take(bill)
    again = await desk.take(copy)
    [whole], [part] = await desk.disputes(one), await desk.disputes(other)

    assert (file.id, await desk.outcomes(file)) == (again.id, ["taken", "taken"])
    assert (whole.state, whole.amount, part.amount) == (DisputeState.CHARGEBACK, 1999, 500)
    ref = (await desk.day.stage.attempt_of(one)).channel_ref
    assert whole.scheme_ref == f"ZME{ref}"
    assert await desk.disputes(untouched) == []
    await assert_disputes_are_booked(desk.day.db)


async def test_a_later_row_moves_the_same_case_and_a_rereading_nothing(desk: Desk) -> None:
    [payment] = await desk.day.paid("unionpay", 1999)
    await desk.charge_back(payment, 1999)
    await desk.day.over()
    with dying("scheme_files.after_row"):
        await desk.take()
    await desk.take()
    first = await desk.disputes(payment)
    await desk.charge_back(payment, 1999, "E25")
    await desk.day.stage.control("unionpay/bill/forget", day=desk.day.date.isoformat())
    later = [await desk.outcomes(await desk.take()) for _ in range(2)]

    assert [each.state for each in first] == [DisputeState.CHARGEBACK]
    assert later == [["taken", "taken"]] * 2
    [moved] = await desk.disputes(payment)
    assert moved.id == first[0].id
    assert moved.scheme_ref == first[0].scheme_ref


async def test_a_code_that_nobody_declared_refuses_the_whole_list(desk: Desk) -> None:
    [payment] = await desk.day.paid("unionpay", 1999)
    await desk.charge_back(payment, 100)
    await desk.charge_back(payment, 100, "E99")
    await desk.day.over()

    with pytest.raises(SchemeFileRefused):
        await desk.take()

    assert await desk.disputes(payment) == []


async def test_a_day_without_differences_is_no_file_of_chargebacks(desk: Desk) -> None:
    await desk.day.paid("unionpay", 1999)
    await desk.day.over()

    with pytest.raises(SchemeFileEmpty):
        await desk.take()


def test_words_go_with_a_channels_parser_and_stand_once() -> None:
    with pytest.raises(LayoutWrong):
        load_layout(WORDS.replace('"E25"', '"E23"').encode())
