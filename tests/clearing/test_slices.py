"""A day in slices: what agrees by digest is not opened, and the result is the whole bill's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.clearing.conftest import Day
from tongbao.clearing.reconciliation import days
from tongbao.clearing.sets import duck
from tongbao.clearing.slices.model import (
    PieceSeenBefore,
    PieceUnreadable,
    SlicesNotPossible,
    TotalMissing,
)
from tongbao.clearing.slices.slices import (
    close_by_slices,
    compare_slices,
    slices_of,
    take_piece,
)
from tongbao.infra import failpoints
from tongbao.infra.failpoints import SimulatedCrash

pytestmark = pytest.mark.skipif(not duck.is_there(), reason="duckdb is not installed")


class Pieces:
    """A day's bill of WeChat Pay as it comes in pieces."""

    def __init__(self, day: Day, folder: Path) -> None:
        self.day, self.folder = day, folder
        self.account = day.account("wechat_pay")

    async def bill(self) -> list[bytes]:
        channel = self.day.clearing.flow.channels["wechat_pay"]
        account = await self.day.clearing.flow.account(self.account)
        answer = await channel.download_bill(account, self.day.date, self.folder)
        return answer.outcome.path.read_bytes().splitlines(keepends=True)

    async def take(self, header: bytes, *lines: bytes) -> Any:
        path = self.folder / "piece.csv"
        path.write_bytes(b"".join([header, *lines]))
        return await take_piece(self.day.clearing, self.account, self.day.date, path)

    async def compare(self) -> Any:
        return await compare_slices(self.day.clearing, self.account, self.day.date)

    async def close(self) -> Any:
        return await close_by_slices(self.day.clearing, self.account, self.day.date)

    async def theirs(self) -> list[tuple[int, int, int, int]]:
        found = await slices_of(self.day.db, self.account, self.day.date)
        return [(s.place, s.their_count, s.their_amount, s.their_digest) for s in found]


@pytest.fixture
async def pieces(day: Day, tmp_path: Path) -> Any:
    (tmp_path / "pieces").mkdir()
    yield Pieces(day, tmp_path / "pieces")
    failpoints.arm(None)


async def trade(day: Day) -> list[str]:
    """Eight payments in four slices; the numbers in their order."""
    numbers = []
    for hour in (9, 12, 15, 18):
        await day.until(hour, 7)
        made = await day.paid("wechat_pay", 1000 + hour, 2000 + hour)
        numbers += [await day.number(each) for each in made]
    return numbers


async def test_only_slices_that_differ_are_opened_and_the_result_is_the_whole_bills(
    day: Day, pieces: Pieces
) -> None:
    numbers = await trade(day)
    await day.over()
    for fault, number in (("drop_row", numbers[1]), ("wrong_amount:7", numbers[4])):
        day.bill_fault("wechat_pay", fault, number)
    header, *rows, names, total = await pieces.bill()
    await pieces.take(header, *rows[4:], names, total)
    with pytest.raises(PieceSeenBefore):
        await pieces.take(header, *rows[4:], names, total)
    before = await pieces.theirs()
    await pieces.take(header, *reversed(rows[:4]))

    standing = await pieces.compare()
    closed = await pieces.close()
    found = await day.classes("wechat_pay")
    kept = await day.db.fetch("select number from bill_row where bill_id = $1", (closed.id,))

    assert before != await pieces.theirs()
    assert (standing.counted, len(standing.differing)) == (4, 2)
    assert found == [
        ("amount_differs", numbers[4], 7),
        ("missing_at_channel", numbers[1], -(2000 + 9)),
    ]
    assert (closed.state, closed.row_count, closed.matched_count) == ("matched", 7, 6)
    assert closed.totals_agree
    assert [number for [number] in kept] == [numbers[4]]
    assert await day.booked("channel_cost") == closed.fee_amount
    await day.sound()

    whole = await days.reconcile_day(day.clearing, pieces.account, day.date, again=True)
    assert (whole.version, whole.matched_count) == (2, 6)
    assert await day.classes("wechat_pay") == found


async def test_a_digest_depends_on_the_rows_and_not_on_their_order(
    day: Day, pieces: Pieces
) -> None:
    await trade(day)
    await day.over()
    header, *rows, names, total = await pieces.bill()
    await pieces.take(header, *rows, names, total)
    one = await pieces.theirs()
    for table in ("slice_piece", "recon_slice"):
        await day.db.execute(f"delete from {table}", ())
    for row in reversed(rows):
        await pieces.take(header, row)

    assert await pieces.theirs() == one
    assert (await pieces.compare()).differing == []
    with pytest.raises(TotalMissing):
        await pieces.close()
    await day.db.execute(  # a payment that we hear of later is in a slice that was compared
        "update attempt set paid_at = paid_at + interval '1 hour' where paid_at ="
        " (select min(paid_at) from attempt)", (),
    )  # fmt: skip
    await day.db.execute("update recon_slice set our_count = our_count - 1 where place = 109", ())
    assert len((await pieces.compare()).differing) >= 1


async def test_a_quiet_day_in_slices_closes_without_opening_any(day: Day, pieces: Pieces) -> None:
    await trade(day)
    await day.over()
    header, *rows, names, total = await pieces.bill()
    await pieces.take(header, *rows, names, total)
    failpoints.arm("slices.before_close:raise")
    with pytest.raises(SimulatedCrash):
        await pieces.close()
    failpoints.arm(None)

    closed = await pieces.close()
    again = await pieces.close()

    assert (closed.state, closed.matched_count, closed.break_count) == ("matched", 8, 0)
    assert (again.id, again.version) == (closed.id, 1)
    assert await day.db.fetch("select 1 from bill_row where bill_id = $1", (closed.id,)) == []


async def test_what_is_no_piece_of_a_bill_is_refused(day: Day, pieces: Pieces) -> None:
    for content in (
        b"",
        b"other header\n1,2\n",
        b"\0\n",
        "交易时间\n`x\n".encode(),
        b"x" * 100_000,
    ):
        with pytest.raises(PieceUnreadable):
            await pieces.take(content)
    with pytest.raises(SlicesNotPossible):
        await compare_slices(day.clearing, day.account("alipay"), day.date)
