"""Pieces of a bill are taken as they arrive, and a day whose last piece is there closes itself."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.clearing.conftest import Day
from tests.clearing.test_slices import Pieces, trade
from tongbao.clearing.reconciliation.queries import bill_state
from tongbao.clearing.sets import duck
from tongbao.clearing.sets.quick import QUICK_BILLS
from tongbao.clearing.slices import _store as store
from tongbao.clearing.slices.slices import slices_of
from tongbao.clearing.slices.taking import (
    EVERY,
    PIECE_MAX,
    TakePieces,
    incoming,
    run_take_pieces,
)
from tongbao.infra import failpoints
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.kernel.clock import BUSINESS_ZONE, day_bounds
from tongbao.kernel.ids import base32, show

pytestmark = pytest.mark.skipif(not duck.is_there(), reason="duckdb is not installed")


class Incoming:
    """The folder that a channel's agent fills for one account's day."""

    def __init__(self, day: Day) -> None:
        self.day = day
        account = show("chn", day.account("wechat_pay"))
        self.folder = incoming(day.clearing) / account / day.date.isoformat()
        self.folder.mkdir(parents=True)

    def put(self, name: str, *lines: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(b"".join(lines))
        return path

    def names(self, where: str = ".") -> list[str]:
        folder = self.folder / where
        return sorted(each.name for each in folder.iterdir() if each.is_file()) \
            if folder.is_dir() else []  # fmt: skip

    async def look(self) -> None:
        again = await run_take_pieces(self.day.clearing, TakePieces(), None)
        assert again.after == EVERY

    async def pieces(self) -> int:
        account = self.day.account("wechat_pay")
        return len(await store.PIECES.all(self.day.db, account, self.day.date))

    async def state(self) -> Any:
        return await bill_state(self.day.db, self.day.account("wechat_pay"), self.day.date)


@pytest.fixture
async def arriving(day: Day, tmp_path: Path) -> Any:
    """A day with eight payments, one amount wrong on its bill; the bill's lines; the folder."""
    numbers = await trade(day)
    day.bill_fault("wechat_pay", "wrong_amount:7", numbers[4])
    (tmp_path / "pieces").mkdir()
    yield day, Pieces(day, tmp_path / "pieces"), Incoming(day), numbers
    failpoints.arm(None)


async def test_pieces_are_taken_as_they_come_and_the_day_closes_after_the_last(
    arriving: Any,
) -> None:
    day, pieces, folder, numbers = arriving
    await day.over()
    header, *rows, names, total = await pieces.bill()
    folder.put("0900.csv", header, *rows[:2])
    folder.put("1200.csv.part", header, *rows[2:4])
    folder.put(".1500.csv", header, *rows[4:6])
    await folder.look()
    early = folder.names(), folder.names("taken"), await folder.state()
    slices = await slices_of(day.db, pieces.account, day.date)
    folder.put("1500.csv", header, *rows[2:])
    folder.put("2400-last.csv", header, names, total)
    folder.put("notes.txt", b"call the bank\n")
    await folder.look()
    closed = await folder.state()
    await folder.look()

    assert early == ([".1500.csv", "1200.csv.part"], ["0900.csv"], None)
    assert [each.agrees for each in slices] == [True, False, False, False]
    assert folder.names("taken") == ["0900.csv", "1500.csv", "2400-last.csv"]
    assert folder.names("refused") == ["notes.txt"]
    assert closed == "matched"
    assert await day.classes("wechat_pay") == [("amount_differs", numbers[4], 7)]
    await day.sound()


def row_of(number: str, fen: int, at: datetime) -> bytes:
    """A line of WeChat Pay's bill, as it would say of a payment of ours."""
    quick = QUICK_BILLS["wechat_pay"]
    cells = ["x"] * quick.column_count
    cells[quick.at] = at.astimezone(BUSINESS_ZONE).strftime("%Y-%m-%d %H:%M:%S")
    cells[quick.number], cells[quick.amount] = number, f"{fen / 100:.2f}"
    cells[quick.fee] = f"{round(fen * 0.006) / 100:.2f}000"
    for column, value in quick.where:
        cells[column] = value
    return (",".join(f"`{cell}" for cell in cells) + "\r\n").encode()


async def test_a_day_that_goes_on_is_compared_so_far_and_not_closed(arriving: Any) -> None:
    day, pieces, folder, _ = arriving
    found = await day.db.fetch(
        "select id, amount, paid_at from attempt where paid_at >= $1 order by paid_at",
        (day_bounds(day.date)[0],),
    )
    lines = [row_of(base32(each["id"]), each["amount"], each["paid_at"]) for each in found]
    header = QUICK_BILLS["wechat_pay"].header.encode() + b"\r\n"
    total = "总交易单数\r\n`8\r\n".encode()
    folder.put("a-last.csv", header, *lines, total)
    await folder.look()

    now = {each.place: each for each in await slices_of(day.db, pieces.account, day.date)}
    newest = max(now)
    assert [each.agrees for place, each in sorted(now.items()) if place != newest] == [True] * 3
    assert (now[newest].our_at, now[newest].their_count) == (None, 2)  # it still moves
    assert await folder.state() is None


@pytest.mark.parametrize("place", ["slices.before_piece", "slices.after_piece"])
async def test_a_piece_is_counted_once_wherever_its_worker_dies(arriving: Any, place: str) -> None:
    day, pieces, folder, numbers = arriving
    await day.over()
    header, *rows, names, total = await pieces.bill()
    folder.put("all-last.csv", header, *rows, names, total)

    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await folder.look()
    failpoints.arm(None)
    left = folder.names(), await folder.pieces()
    await folder.look()

    assert left == (["all-last.csv"], 0 if place == "slices.before_piece" else 1)
    assert (folder.names("taken"), await folder.pieces()) == (["all-last.csv"], 1)
    assert await folder.state() == "matched"
    assert await day.classes("wechat_pay") == [("amount_differs", numbers[4], 7)]
    await day.sound()


async def test_what_is_no_piece_goes_aside_and_the_others_count(
    arriving: Any, tmp_path: Path
) -> None:
    day, pieces, folder, _ = arriving
    await day.over()
    header, *rows, _, _ = await pieces.bill()
    folder.put("a.csv", b"not a bill\n")
    folder.put("b.csv", header, *rows[:3])
    with folder.put("c.csv").open("wb") as huge:
        huge.truncate(PIECE_MAX + 1)  # a hole: nothing is written
    (tmp_path / "elsewhere").write_bytes(header + rows[4])
    (folder.folder / "d.csv").symlink_to(tmp_path / "elsewhere")
    for odd in ("chn_nobody/2026-01-01", f"{folder.folder.parent.name}/tomorrow", "x"):
        (incoming(day.clearing) / odd).mkdir(parents=True)
    stranger = incoming(day.clearing) / show("chn", day.stage.shop.merchant.id) / "2026-01-01"
    stranger.mkdir(parents=True)
    (stranger / "e.csv").write_bytes(header)
    await folder.look()
    folder.put("a.csv", b"not a bill either\n")
    await folder.look()

    assert folder.names("refused") == ["a-1.csv", "a.csv", "c.csv"]
    assert (folder.names("taken"), folder.names()) == (["b.csv"], ["d.csv"])
    assert (stranger / "refused/e.csv").exists()
    assert await folder.pieces() == 1
