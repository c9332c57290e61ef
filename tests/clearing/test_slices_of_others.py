"""Slices of channels whose bills are no plain lines: zips, fixed widths, or a declared layout."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clearing.conftest import Day
from tests.clearing.test_unionpay_day import unionpay_day
from tongbao.clearing.sets import duck, plain
from tongbao.clearing.sets.plain import Unreadable, read_plain, rows_of_merchant, write_plain
from tongbao.clearing.slices.model import PieceSeenBefore, PieceUnreadable, SlicesNotPossible
from tongbao.clearing.slices.slices import close_by_slices, compare_slices, take_piece
from tongbao.clearing.sources.layouts import load_layout
from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.kernel.money import Money
from tongbao.rails.channels.alipay.bills import TERMS
from tongbao.rails.channels.contract.bills import BillFault, BillKind, BillRow, BillTotal

pytestmark = pytest.mark.skipif(not duck.is_there(), reason="duckdb is not installed")
assert unionpay_day

LAYOUT = load_layout(
    """
name = "feed"
en = "A feed of trades"
zh = "交易流水"
format = "delimited"
separator = "|"
names = ["number", "ref", "amount", "fee", "at"]
[fields]
number = { column = "number" }
ref = { column = "ref" }
amount = { column = "amount" }
fee = { column = "fee" }
at = { column = "at" }
""".encode()
)


async def trade(day: Day, channel: str) -> list[str]:
    """Six payments in three slices; their numbers in order."""
    numbers = []
    for hour in (9, 12, 15):
        await day.until(hour, 7)
        numbers += [
            await day.number(each) for each in await day.paid(channel, 1000 + hour, 2000 + hour)
        ]
    return numbers


async def whole(day: Day, channel: str, folder: Path) -> zipfile.ZipFile:
    """The day's bill as the channel sends it: an archive."""
    account = await day.clearing.flow.account(day.account(channel))
    answer = await day.clearing.flow.channels[channel].download_bill(account, day.date, folder)
    return zipfile.ZipFile(io.BytesIO(answer.outcome.path.read_bytes()))


def packed(bill: zipfile.ZipFile, wanted: str, lines: list[bytes], path: Path) -> Path:
    """A piece: the archive again, of its list only some lines."""
    with zipfile.ZipFile(path, "w") as piece:
        for info in bill.infolist():
            content = b"".join(lines) if wanted in _name(info) else bill.read(info)
            piece.writestr(_name(info), content)
    return path


def _name(info: zipfile.ZipInfo) -> str:
    return info.filename if info.flag_bits & 0x800 else info.filename.encode("cp437").decode("gbk")


async def test_alipays_bill_in_pieces_closes_as_the_whole_one_would(
    day: Day, tmp_path: Path
) -> None:
    numbers = await trade(day, "alipay")
    await day.over()
    for fault, number in (("drop_row", numbers[1]), ("wrong_amount:7", numbers[2])):
        day.bill_fault("alipay", fault, number)
    bill = await whole(day, "alipay", tmp_path)
    [info] = [each for each in bill.infolist() if "业务明细" in _name(each)
              and "汇总" not in _name(each)]  # fmt: skip
    lines = bill.read(info).splitlines(keepends=True)
    rows = [n for n, line in enumerate(lines) if line[:1].isdigit()]
    first, last = rows[0], rows[-1] + 1
    account, path = day.account("alipay"), tmp_path / "piece.zip"

    def piece(*chosen: bytes) -> Path:
        return packed(bill, _name(info), list(chosen), path)

    await take_piece(day.clearing, account, day.date, piece(*lines[:first], *lines[rows[3] :]))
    with pytest.raises(PieceSeenBefore):
        await take_piece(day.clearing, account, day.date, path)
    await take_piece(day.clearing, account, day.date, piece(*lines[: rows[3]]))
    standing = await compare_slices(day.clearing, account, day.date)
    closed = await close_by_slices(day.clearing, account, day.date)

    assert last == rows[0] + 5
    assert (standing.counted, len(standing.differing)) == (3, 2)
    assert await day.classes("alipay") == [
        ("amount_differs", numbers[2], 7), ("missing_at_channel", numbers[1], -2009),
    ]  # fmt: skip
    assert (closed.state, closed.row_count, closed.matched_count) == ("matched", 5, 4)
    assert closed.totals_agree
    await day.sound()


async def test_unionpays_list_in_pieces_is_whole_when_somebody_says_so(
    unionpay_day: Day, tmp_path: Path
) -> None:
    day = unionpay_day
    numbers = await trade(day, "unionpay")
    await day.over()
    day.bill_fault("unionpay", "wrong_amount:7", numbers[2])
    bill = await whole(day, "unionpay", tmp_path)
    [info] = [each for each in bill.infolist() if "ZM_" in each.filename]
    lines = bill.read(info).splitlines(keepends=True)
    account, path = day.account("unionpay"), tmp_path / "piece.zip"
    for n, is_last in ((0, False), (3, True)):
        piece = packed(bill, info.filename, lines[n : n + 3], path)
        taken = await take_piece(day.clearing, account, day.date, piece, is_last=is_last)
        assert taken.has_total == is_last
    standing = await compare_slices(day.clearing, account, day.date)
    closed = await close_by_slices(day.clearing, account, day.date)

    assert (standing.counted, len(standing.differing)) == (3, 1)
    mine = (await day.clearing.flow.account(account)).merchant_number.encode()
    others = [line.replace(mine, mine[::-1]) for line in lines]
    piece = packed(bill, info.filename, [lines[0], *others[1:]], path)
    with pytest.raises(PieceUnreadable) as refused:
        await take_piece(day.clearing, account, day.date, piece)
    assert refused.value.facts == {"fault": "bill.wrong_merchant"}
    assert await day.classes("unionpay") == [("amount_differs", numbers[2], 7)]
    assert (closed.state, closed.matched_count) == ("matched", 5)
    await day.sound()


async def test_a_declared_layout_is_enough_for_slices(day: Day, tmp_path: Path) -> None:
    numbers = await trade(day, "alipay")
    await day.over()
    account, path = day.account("alipay"), tmp_path / "feed.txt"
    amounts = [1000 + 9, 2000 + 9, 1000 + 12, 2000 + 12, 1000 + 15, 2000 + 15]
    path.write_text("".join(
        f"{number}|ref{n}|{amount / 100:.2f}|{round(amount * 0.006) / 100:.2f}|"
        f"{day.date} {(9, 12, 15)[n // 2]:02d}:07:00\n"
        for n, (number, amount) in enumerate(zip(numbers, amounts, strict=True))
    ) + "no row\n")  # fmt: skip
    await take_piece(day.clearing, account, day.date, path, layout=LAYOUT, is_last=True)
    closed = await close_by_slices(day.clearing, account, day.date)

    assert (closed.matched_count, closed.fault_count, closed.break_count) == (6, 1, 0)
    with pytest.raises(SlicesNotPossible):
        await take_piece(day.clearing, day.account("wechat_pay"), day.date, path, layout=LAYOUT)
    for content in (b"", b"\0\0", b"PK\x03\x04 no archive"):
        path.write_bytes(content)
        with pytest.raises(PieceUnreadable):
            await take_piece(day.clearing, account, day.date, path)


WORDS = st.text(st.characters(codec="utf-8"), max_size=12)
FEN = st.integers(-(10**9), 10**9)
ROWS = st.builds(
    lambda number, ref, fen, fee, kind, second: BillRow(
        1, kind, number, number, ref, Money(abs(fen), "CNY"), Money(fee, "CNY"),
        datetime(2026, 11, 20, tzinfo=BUSINESS_ZONE) + timedelta(seconds=second), "交易",
    ),
    WORDS, WORDS, FEN, FEN, st.sampled_from(BillKind), st.integers(0, 86399),
)  # fmt: skip
FAULTS = st.builds(BillFault, st.integers(0, 99), st.just("bill.amount_malformed"), WORDS)


@settings(max_examples=40, deadline=None)
@given(lines=st.lists(st.one_of(ROWS, FAULTS), max_size=8), has_total=st.booleans())
def test_plain_lines_read_back_as_they_were_written(
    lines: list[Any], has_total: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "plain.lines"
    total = [BillTotal(payment_count=1, fee_amount=Money(-5, "CNY"), row_count=2)] * has_total

    written = write_plain([*lines, *total], TERMS, path, is_piece=False)

    end = total or [BillFault(len(lines) + 2, "bill.truncated", "")]
    assert list(read_plain(path)) == [*lines, *end]
    assert (written.rows, written.has_total) == (len(lines), has_total)
    assert path.read_bytes().count(b"\n") == 1 + len(lines) + 2 * has_total


def test_rows_of_another_merchant_are_faults_and_prove_no_end(tmp_path: Path) -> None:
    def row(line: int, *merchants: str) -> BillRow:
        at, fen = datetime(2026, 11, 20, tzinfo=BUSINESS_ZONE), Money(1, "CNY")
        ours = (BillKind.PAYMENT, f"n{line}", f"n{line}", "ref", fen, fen, at, "交易")
        return BillRow(line, *ours, merchants)

    total = BillTotal(row_count=2)
    mixed = [row(1, "777", "9"), row(2, "888"), row(3), total]

    assert list(rows_of_merchant([mixed[0], mixed[2], total], "777")) == [*mixed[::2], total]
    write_plain(rows_of_merchant(mixed, "777"), TERMS, tmp_path / "x", is_piece=False)
    first, fault, unsaid, end = read_plain(tmp_path / "x")
    assert fault == BillFault(2, "bill.wrong_merchant", "888")
    assert [each.number for each in (first, unsaid) if isinstance(each, BillRow)] == ["n1", "n3"]
    assert isinstance(end, BillFault)
    assert end.code == "bill.truncated"


def test_a_piece_that_unpacks_to_more_than_any_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "PIECE_ROWS_MAX", 2)
    lines = [BillFault(n, "bill.not_text", "x") for n in range(3)]

    assert write_plain(lines[:2], TERMS, tmp_path / "x", is_piece=True).rows == 2
    assert write_plain(lines, TERMS, tmp_path / "x", is_piece=False).rows == 3
    with pytest.raises(Unreadable):
        write_plain(lines, TERMS, tmp_path / "x", is_piece=True)


def test_a_piece_that_is_damaged_as_a_whole_is_none(tmp_path: Path) -> None:
    def lines() -> Iterator[BillFault]:
        yield BillFault(0, "bill.archive_damaged", "x")

    with pytest.raises(Unreadable):
        write_plain(lines(), TERMS, tmp_path / "x", is_piece=True)
