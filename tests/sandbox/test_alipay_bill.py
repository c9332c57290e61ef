"""The bill's bytes: names, encodings, tabs, trailers, fees."""

import io
import struct
import zipfile
from datetime import UTC, date, datetime

import pytest

from tongbao_sandbox.alipay_bill import (
    HEADER,
    Line,
    bill_zip,
    detail_text,
    fee_of,
    summary_text,
)

AT = datetime(2026, 11, 21, 4, 5, 6, tzinfo=UTC)
DAY = date(2026, 11, 21)
SELLER = "2088721003899159"


def line(**changes):
    known = {
        "trade_no": "2026112122001000000000000001",
        "number": "order1",
        "is_refund": False,
        "subject": "拿铁, 中杯",
        "created_at": AT,
        "done_at": AT,
        "store": "0001",
        "buyer": "*顾客(159****0001)",
        "amount": 12345,
        "fee": 74,
    }
    return Line(**{**known, **changes})


def refund(**changes):
    return line(is_refund=True, amount=-2345, fee=-14, request_number="refund1", **changes)


def test_a_row_has_the_columns_and_tabs_of_a_real_bill():
    cells = line().text().split(",")
    assert len(cells) == len(HEADER.split(",")) == 25
    assert cells[0] == "2026112122001000000000000001\t"
    assert cells[2] == "交易\t"
    assert cells[3] == "拿铁， 中杯"
    assert cells[4:6] == ["2026-11-21 12:05:06"] * 2
    assert cells[11:13] == ["123.45", "123.45"]
    assert (cells[19], cells[21], cells[22]) == ("0.00\t", "\t", "0.74")


def test_a_refund_is_negative_and_names_its_request():
    cells = refund().text().split(",")
    assert cells[2] == "退款\t"
    assert cells[11:13] == ["-23.45", "-23.45"]
    assert (cells[21], cells[22]) == ("refund1", "-0.14")


def test_the_detail_file_has_the_lines_of_a_real_one():
    text = detail_text(SELLER, DAY, [line(), refund()], AT)
    lines = text.split("\r\n")
    assert lines[0] == "#支付宝业务明细查询"
    assert lines[1] == "#账号：[20887210038991590156]"
    assert lines[2] == "#起始日期：[2026年11月21日 00:00:00]   终止日期：[2026年11月22日 00:00:00]"
    assert lines[3].strip("#-") == "业务明细列表"
    assert lines[4] == HEADER
    assert lines[7].strip("#-") == "业务明细列表结束"
    assert lines[8] == "#交易合计：1笔，商家实收共123.45元，商家优惠共0.00元"
    assert lines[9] == "#退款合计：1笔，商家实收退款共-23.45元，商家优惠退款共0.00元"
    assert lines[10] == "#导出时间：[2026年11月21日 12:05:06]"
    assert lines[11:] == [""]


def test_the_summary_counts_what_the_detail_lists():
    total = summary_text(SELLER, DAY, [line(), refund()], AT).split("\r\n")[5].split(",")
    assert total[2:6] == ["1", "1", "100.00", "100.00"]
    assert (total[9], total[11]) == ("0.60", "99.40")


def test_names_are_gbk_without_the_utf8_flag_and_the_summary_sometimes_comes_first():
    orders = set()
    for day in (date(2026, 11, 20), date(2026, 11, 21)):
        raw = bill_zip(SELLER, day, [line()], AT)
        with zipfile.ZipFile(io.BytesIO(raw), metadata_encoding="gbk") as archive:
            assert archive.testzip() is None
            names = archive.namelist()
            assert not any(entry.flag_bits & 0x800 for entry in archive.infolist())
            detail = next(name for name in names if "汇总" not in name)
            assert detail == f"{SELLER}0156_{day:%Y%m%d}_业务明细.csv"
            assert archive.read(detail).decode("gbk").startswith("#支付宝业务明细查询\r\n")
        orders.add("汇总" in names[0])
    assert orders == {True, False}
    assert "业务明细".encode("gbk") in raw
    assert struct.unpack("<I", raw[:4]) == (0x04034B50,)


def test_a_cut_bill_breaks_off_without_a_trailer():
    raw = bill_zip(SELLER, DAY, [line(), line()], AT, is_cut=True)
    with zipfile.ZipFile(io.BytesIO(raw), metadata_encoding="gbk") as archive:
        name = next(name for name in archive.namelist() if "汇总" not in name)
        text = archive.read(name).decode("gbk")
    assert "order1" in text
    assert "合计" not in text
    assert not text.endswith("\r\n")


@pytest.mark.parametrize(
    ("amount", "fee"), [(1, 0), (83, 0), (84, 1), (250, 2), (10_000, 60), (0, 0)]
)
def test_the_fee_is_sixty_of_ten_thousand_rounded_half_up(amount, fee):
    assert fee_of(amount) == fee
