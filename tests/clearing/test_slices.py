"""A day in slices: what agrees by digest is not opened, and the result is the whole bill's."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.clearing.conftest import Day
from tongbao.clearing.reconciliation import days
from tongbao.clearing.sets import duck, slicing
from tongbao.clearing.sets.parts import split
from tongbao.clearing.sets.quick import QUICK_BILLS
from tongbao.clearing.slices.model import (
    SLICE_S,
    PieceSeenBefore,
    PieceUnreadable,
    SlicesNotPossible,
    TotalMissing,
)
from tongbao.clearing.slices.pieces import counts_of, keep, lines_in, runs_of, with_total
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
    await day.db.execute(
        "update recon_slice set our_count = our_count - 1"
        " where place = (select min(place) from recon_slice)", (),
    )  # fmt: skip
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


async def test_what_is_collected_after_comparing_is_found_at_the_close(
    day: Day, pieces: Pieces
) -> None:
    numbers = await trade(day)
    await day.over()
    header, *rows, names, total = await pieces.bill()
    await pieces.take(header, *rows)
    await pieces.compare()
    # As if one of them, which the bill does not have, had been heard of after comparing.
    missing = next(row for row in rows if numbers[3].encode() in row)
    for table in ("slice_piece", "recon_slice"):
        await day.db.execute(f"delete from {table}", ())
    await pieces.take(header, *(row for row in rows if row != missing))
    await pieces.compare()
    place = min(s.place for s in await slices_of(day.db, pieces.account, day.date) if not s.agrees)
    await day.db.execute(
        "update recon_slice set our_count = their_count, our_amount = their_amount,"
        " our_digest = their_digest where place = $1",
        (place,),
    )
    await pieces.take(header, names, total)  # the last piece has the total alone

    closed = await pieces.close()

    assert (closed.state, closed.matched_count, closed.totals_agree) == ("matched", 7, False)
    assert ("missing_at_channel", numbers[3], -(2000 + 12)) in await day.classes("wechat_pay")


async def test_a_row_that_the_day_before_had_is_opened_though_its_slice_agrees(
    day: Day, pieces: Pieces
) -> None:
    await day.paid("wechat_pay", 1000)
    await day.until(0, 5, days=1)
    [payment] = await day.paid("wechat_pay", 3000)
    twice = await day.number(payment)
    await day.over(days=2)
    before, day.date = day.date, day.date + timedelta(days=1)
    header, *rows, names, total = await pieces.bill()
    row = next(row for row in rows if twice.encode() in row)
    spoilt = day.rewriting("wechat_pay", lambda bill: bill.replace(header, header + row, 1))
    await day.reconcile("wechat_pay", day=before, clearing=spoilt)
    await pieces.take(header, *rows, names, total)
    assert (await pieces.compare()).differing == []

    await pieces.close()
    found = await day.classes("wechat_pay")
    await days.reconcile_day(day.clearing, pieces.account, day.date, again=True)

    assert ("duplicated_at_channel", twice, 3000) in found
    assert found == await day.classes("wechat_pay")


@pytest.mark.parametrize("spoil", ["gone", "short", "runs"])
async def test_a_day_with_a_lost_piece_is_left_to_the_whole_bill(
    day: Day, pieces: Pieces, spoil: str
) -> None:
    await trade(day)
    await day.over()
    header, *rows, names, total = await pieces.bill()
    await pieces.take(header, *rows[:-1], names, total)
    [kept] = day.clearing.folder.rglob("*.piece")
    if spoil == "gone":
        kept.unlink()
    elif spoil == "short":
        kept.write_bytes(kept.read_bytes()[:-30])
    else:
        kept.with_suffix(".runs").write_bytes(b"not an array")
    with pytest.raises(SlicesNotPossible):
        await pieces.close()

    whole = await days.reconcile_day(day.clearing, pieces.account, day.date)
    assert (whole.version, whole.matched_count) == (1, 8)


_TIMES = st.sampled_from(
    ["00:00:00", "00:00:29", "00:00:30", "09:07:31", "23:59:59", "24:00:00", "9:07:31", "", "x"]
)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(times=st.lists(_TIMES, min_size=1, max_size=40))
def test_the_lines_of_a_slice_are_those_the_engine_counted_in_it(
    times: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    quick = QUICK_BILLS["wechat_pay"]
    cells = "," * (quick.column_count - 1)
    rows = [f"`2026-11-20 {time},`{n}{cells[1:]}\n".encode() for n, time in enumerate(times)]
    folder = tmp_path_factory.mktemp("runs")
    path = folder / "piece.csv"
    path.write_bytes(b"".join([b"header\n", *rows, b"names\n", b"total\n"]))
    _, *middle, last = split(path, folder, part_bytes=700)
    runs = runs_of(middle, quick.prefix, SLICE_S)
    engine = duck.connect(folder, 1)
    try:
        sums = slicing.theirs(engine, quick, middle, date(2026, 11, 20), SLICE_S)
    finally:
        engine.close()
    home = folder / "kept"
    keep(home, "d", path, with_total(runs, last), folder)

    found = {each.place: lines_in(home, "d", {each.place}) for each in sums}

    assert {place: len(lines.numbers) for place, lines in found.items()} == counts_of(runs)
    assert counts_of(runs) == {each.place: each.count for each in sums}
    together = {
        number: text
        for lines in found.values()
        for number, text in zip(
            lines.numbers, b"".join(lines.texts).splitlines(keepends=True), strict=True
        )
    }
    assert [together[n] for n in sorted(together)] == rows
    assert sorted(together) == list(range(2, len(rows) + 2))
    assert lines_in(home, "d", ()).trailer == b"names\ntotal\n"


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
