"""UnionPay's settlement files: what a line says, and that a damaged one is never half believed."""

from __future__ import annotations

import base64
import itertools
import zipfile
import zlib
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tongbao.kernel.money import Money
from tongbao.rails.channels.contract.bills import BillFault, BillFile, BillKind, BillRow, BillTotal
from tongbao.rails.channels.unionpay import bills
from tongbao.rails.channels.unionpay.bills import (
    BillDamaged,
    Difference,
    parse_differences,
    parse_trades,
    unpack,
)

MERCHANT = "777290058167151"
DAY = date(2030, 1, 1)
WIDTHS = [
    *(3, 11, 11, 6, 10, 19, 12, 4, 2, 21, 2, 32, 2, 6, 10, 13, 13, 4, 15, 2, 2, 6, 2, 4, 32, 1, 21),
    *(15, 1, 15, 32, 13, 13, 8, 32, 13, 13, 12, 2, 1, 32, 98),
]
NEWER = [*WIDTHS[:34], 32, 13, 2, 1, 12, 67]
ZME = [*(3, 11, 11, 6, 10, 19, 12, 4, 2, 2, 6, 10, 4, 12, 13, 13, 15, 15, 1, 12, 2, 135)]
NUMBER = "01k9order0000000000000000a"
REFUND = "01k9refund000000000000000a"

# The fields by their places in the file specification, counted from one.
PAYMENT = {
    1: "S22", 2: "48020000", 4: "561652", 5: "0101200003", 6: "621626******0018",
    7: "000000001999", 10: "512209110416475616528", 12: NUMBER, 16: "D000000000012",
    17: "C000000001987", 20: "01", 21: "07", 22: "000000", 28: MERCHANT, 31: "街角书店",
}  # fmt: skip
BACK = PAYMENT | {
    1: "S30", 7: "000000000500", 10: "512209110416475616530", 12: REFUND, 16: "C000000000003",
    17: "D000000000497", 20: "04", 21: "00", 27: "512209110416475616528", 41: NUMBER,
}  # fmt: skip


def line(fields: dict[int, str], widths: list[int] = WIDTHS, separator: bytes = b" ") -> bytes:
    cells = [fields.get(place, "").encode("gbk") for place in range(1, len(widths) + 1)]
    return separator.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))


def archive(path: Path, lines: list[bytes], *, day: str = "300101", **more: list[bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for kind, rows in {"ZM": lines, **more}.items():
            content = b"".join(row + b"\r\n" for row in rows)
            packed.writestr(f"INN{day}88{kind}_{MERCHANT}", content)
    return path


@pytest.mark.parametrize("separator", [b" ", b"\t", b","])
def test_a_line_says_what_moved(separator: bytes, tmp_path: Path) -> None:
    rows = [line(PAYMENT, separator=separator), line(BACK, separator=separator)]
    payment, back, end = parse_trades(archive(tmp_path / "x.zip", rows))
    assert isinstance(payment, BillRow)
    assert isinstance(back, BillRow)
    assert (payment.kind, payment.number, payment.order_number) == (
        BillKind.PAYMENT, NUMBER, NUMBER,
    )  # fmt: skip
    assert (payment.money, payment.fee) == (Money(1999, "CNY"), Money(12, "CNY"))
    assert payment.at.isoformat() == "2030-01-01T20:00:03+08:00"
    assert (payment.channel_ref, payment.state) == ("512209110416475616528", "01")
    assert payment.merchants == (MERCHANT,)
    assert (back.kind, back.number, back.order_number) == (BillKind.REFUND, REFUND, NUMBER)
    assert (back.money, back.fee) == (Money(500, "CNY"), Money(-3, "CNY"))
    assert {payment.state, back.state} <= bills.TERMS.moved
    assert end == BillTotal()  # whole, and without figures of its own


def test_the_fee_of_instalments_is_a_part_of_the_fee(tmp_path: Path) -> None:
    """Field 38, one digit shorter than the merchant's own fee; its sign says whose it is, too."""
    paid, back = PAYMENT | {38: "D00000000030", 39: "06"}, BACK | {38: "C00000000008"}
    payment, given, _ = parse_trades(archive(tmp_path / "x.zip", [line(paid), line(back)]))
    assert isinstance(payment, BillRow)
    assert isinstance(given, BillRow)
    assert (payment.fee, given.fee) == (Money(42, "CNY"), Money(-11, "CNY"))


def test_a_row_says_whose_it_is_alone_or_in_a_group(tmp_path: Path) -> None:
    rows = [line(PAYMENT | {19: "777290058000000"}), line(PAYMENT | {28: ""})]
    of_group, unsaid, _ = parse_trades(archive(tmp_path / "x.zip", rows))
    assert isinstance(of_group, BillRow)
    assert isinstance(unsaid, BillRow)
    assert (of_group.merchants, unsaid.merchants) == ((MERCHANT, "777290058000000"), ())


def test_dues_are_payments(tmp_path: Path) -> None:
    dues = PAYMENT | {20: "13", 21: "08", 22: "000601"}
    row, _ = parse_trades(archive(tmp_path / "x.zip", [line(dues)]))
    assert isinstance(row, BillRow)
    assert (row.kind, row.number, row.state) == (BillKind.PAYMENT, NUMBER, "13")
    assert row.state in bills.TERMS.moved


def test_a_newer_file_splits_its_tail_otherwise(tmp_path: Path) -> None:
    rows = [line(PAYMENT, NEWER), line({k: v for k, v in BACK.items() if k < 35}, NEWER)]
    payment, back, _ = parse_trades(archive(tmp_path / "x.zip", rows))
    assert isinstance(payment, BillRow)
    assert isinstance(back, BillRow)
    assert payment.money == Money(1999, "CNY")
    assert (back.number, back.order_number) == (REFUND, "")


def test_what_we_cancelled_is_told_by_its_order(tmp_path: Path) -> None:
    undone = PAYMENT | {12: f"{NUMBER}x", 16: "C000000000012", 17: "D000000001987", 20: "31"}
    for fields in (undone, undone | {41: NUMBER}):
        [row, _] = parse_trades(archive(tmp_path / "x.zip", [line(fields)]))
        assert isinstance(row, BillRow)
        assert (row.kind, row.number, row.order_number) == (BillKind.REFUND, NUMBER, NUMBER)
        assert row.fee == Money(-12, "CNY")


def test_a_day_at_the_turn_of_the_year_is_dated_right(tmp_path: Path) -> None:
    rows = [line(PAYMENT | {5: "1231230500"}), line(PAYMENT | {5: "0101000000"})]
    years = [
        row.at.year
        for row in parse_trades(archive(tmp_path / "x.zip", rows))
        if isinstance(row, BillRow)
    ]
    assert years == [2029, 2030]


BROKEN: dict[str, Any] = {
    "an amount with a letter": line(PAYMENT | {7: "00000000199x"}),
    "a short amount": line(PAYMENT | {7: "1999"}),
    "a negative amount": line(PAYMENT | {7: "-00000001999"}),
    "a fee on no side": line(PAYMENT | {16: "X000000000012"}),
    "a fee without digits": line(PAYMENT | {16: "D"}),
    "an instalment fee on no side": line(PAYMENT | {38: "000000000030"}),
    "a short instalment fee": line(PAYMENT | {38: "D30"}),
    "a day that is none": line(PAYMENT | {5: "0230200003"}),
    "no time": line(PAYMENT | {5: ""}),
    "no number": line(PAYMENT | {12: ""}),
    "no number of UnionPay's": line(PAYMENT | {10: ""}),
    "a type nobody knows": line(PAYMENT | {20: "77"}),
    "no type": line(PAYMENT | {20: ""}),
    "one byte too many": line(PAYMENT) + b" ",
    "one byte too few": line(PAYMENT)[:-1],
    "half a line": line(PAYMENT)[:300],
    "fields that moved": line(PAYMENT, [*WIDTHS[:5], 18, 13, *WIDTHS[7:]]),
    "rubbish": b"complete rubbish",
    "zeros": b"\0" * len(line(PAYMENT)),
    "an endless line": b"x" * 200_000,
}


@pytest.mark.parametrize("why", sorted(BROKEN))
def test_a_broken_line_is_a_fault_and_the_others_count(why: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "x.zip", [line(PAYMENT), BROKEN[why], line(BACK)])
    first, fault, last, end = parse_trades(path)
    assert isinstance(first, BillRow)
    assert isinstance(last, BillRow)
    assert isinstance(fault, BillFault)
    assert end == BillTotal()
    assert fault.line == 2
    assert fault.code.startswith("bill.")
    assert len(fault.text) <= 120
    assert "\0" not in fault.text


def test_a_fault_is_shown_in_chinese(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.zip", ["街角书店的一行".encode("gbk")])
    [fault, _] = parse_trades(path)
    assert isinstance(fault, BillFault)
    assert fault.text == "街角书店的一行"


def test_a_file_cut_off_anywhere_is_seen(tmp_path: Path) -> None:
    whole = archive(tmp_path / "x.zip", [line(PAYMENT), line(BACK)]).read_bytes()
    cut = tmp_path / "cut.zip"
    for size in range(0, len(whole) - 1, 7):
        cut.write_bytes(whole[:size])
        rows = list(parse_trades(cut))
        assert isinstance(rows[-1], BillFault), size
        assert BillTotal() not in rows
    for place in range(40, len(whole) - 250, 11):
        cut.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        rows = list(parse_trades(cut))
        good = [row for row in rows if isinstance(row, BillRow)]
        assert (BillTotal() not in rows) or len(good) == 2, place


def test_lists_of_other_names_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(f"INN30010188ZME_{MERCHANT}", line(PAYMENT))
        packed.writestr("readme.txt", line(PAYMENT))
    [fault] = parse_trades(path)
    assert isinstance(fault, BillFault)
    assert fault.code == "bill.archive_damaged"


def test_a_file_is_read_as_a_stream(tmp_path: Path) -> None:
    rows = parse_trades(archive(tmp_path / "x.zip", [line(PAYMENT)] * 5000))
    assert isinstance(next(rows), BillRow)
    assert sum(1 for _ in itertools.islice(rows, 4999)) == 4999
    assert next(rows) == BillTotal()
    assert next(rows, None) is None


def test_differences_are_a_list_of_their_own(tmp_path: Path) -> None:
    row = {1: "E23", 4: "561652", 5: "0101200003", 6: "621626******0018", 7: "000000000700"}
    path = archive(
        tmp_path / "x.zip",
        [line(PAYMENT)],
        ZME=[line(row, ZME), b"short", line(row | {7: "x"}, ZME)],
    )
    first, second, third = parse_differences(path)
    assert isinstance(first, Difference)
    assert (first.code, first.trace_no, first.money) == ("E23", "561652", Money(700, "CNY"))
    assert first.at
    assert first.at.isoformat() == "2030-01-01T20:00:03+08:00"
    assert "621626" not in str(first.fields)
    assert isinstance(second, BillFault)
    assert isinstance(third, BillFault)
    assert list(parse_differences(archive(tmp_path / "y.zip", [line(PAYMENT)]))) == []


# --- unpacking what was downloaded


def content(path: Path) -> str:
    return base64.b64encode(zlib.compress(path.read_bytes())).decode()


def test_a_file_is_unpacked_once_it_is_known_to_be_whole(tmp_path: Path) -> None:
    packed = content(archive(tmp_path / "x.zip", [line(PAYMENT)]))
    found = unpack(packed, tmp_path / "y.zip", MERCHANT, DAY)
    assert isinstance(found, BillFile)
    assert found.size == (tmp_path / "x.zip").stat().st_size
    assert len(list(parse_trades(found.path))) == 2
    for merchant, day in ((MERCHANT, date(2030, 1, 2)), ("777290058167152", DAY)):
        with pytest.raises(BillDamaged):
            unpack(packed, tmp_path / "z.zip", merchant, day)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.zip", "y.zip"]


def test_what_is_no_packed_file_is_refused(tmp_path: Path) -> None:
    whole = archive(tmp_path / "x.zip", [line(PAYMENT)]).read_bytes()
    spoilt = [
        "",
        "no base64!",
        base64.b64encode(b"not deflated").decode(),
        base64.b64encode(whole).decode(),
        base64.b64encode(zlib.compress(whole)[:-9]).decode(),
        base64.b64encode(zlib.compress(whole[:-30])).decode(),
        base64.b64encode(zlib.compress(whole[:60] + b"\0\0\0" + whole[63:])).decode(),
    ]
    for packed in spoilt:
        with pytest.raises(BillDamaged):
            unpack(packed, tmp_path / "y.zip", MERCHANT, DAY)
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bills, "ZIP_MAX", 1_000_000)
    monkeypatch.setattr(bills, "UNPACKED_MAX", 3_000_000)
    outer = base64.b64encode(zlib.compress(b"\0" * 5_000_000)).decode()
    inner = content(archive(tmp_path / "x.zip", [b"\0" * 5_000_000]))
    for packed in (outer, inner):
        with pytest.raises(BillDamaged, match="larger than any bill"):
            unpack(packed, tmp_path / "y.zip", MERCHANT, DAY)
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]
