"""Layouts are data: what they say is checked, what files say is held against their own figures."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from msgspec.structs import replace

from tongbao.clearing.sources import ingest
from tongbao.clearing.sources.ingest import add_source, current_file, faults_of_file, take_file
from tongbao.clearing.sources.layouts import built_in, load_layout
from tongbao.clearing.sources.model import (
    FileRefused,
    FileSeenBefore,
    LayoutWrong,
    SourceTaken,
    SourceUnknown,
)
from tongbao.clearing.sources.reading import Preview, preview
from tongbao.infra import failpoints
from tongbao.infra.db import Db
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.kernel.licence import Mode

VECTORS = Path(__file__).parents[1] / "vectors"
DAY = date(2026, 11, 20)

PARTNER = """
name = "partner.daily"
en = "A partner's daily list"
zh = "合作方日清单"
format = "delimited"
encoding = "gb18030"
separator = "|"
header = "流水号"
[fields]
number = { column = "流水号" }
amount = { column = "金额" }
fee = { column = "手续费", default = "0" }
at = { column = "时间", format = "%Y%m%d%H%M%S" }
word = { column = "类型" }
[[kinds]]
words = ["收款"]
kind = "payment"
sign = "positive"
[[kinds]]
words = ["退款"]
kind = "refund"
sign = "negative"
[[kinds]]
words = ["冲正"]
kind = "void"
skip = true
[trailer]
begins = "合计"
pattern = "合计\\\\|(?P<count>\\\\d+)\\\\|(?P<sum>-?[\\\\d.]+)"
"""

FIXED = """
name = "bank.fixed"
en = "Fixed width"
zh = "定长"
format = "fixed"
encoding = "gb18030"
width_in_bytes = true
[fields]
number = { start = 0, width = 8 }
ref = { start = 8, width = 6 }
amount = { start = 14, width = 12, scale = 0, strip = "" }
at = { start = 26, width = 8, format = "%Y%m%d" }
[trailer]
begins = "9999"
pattern = "9999(?P<count>\\\\d{4})"
"""

SHEET = """
name = "sheet"
en = "A sheet"
zh = "电子表格"
format = "xlsx"
header = "No"
[fields]
number = { column = "No" }
credit = { column = "In", default = "" }
debit = { column = "Out", default = "" }
at = { column = "Day", format = "excel" }
"""


def listed(*rows: str, total: str | None = None) -> bytes:
    """A partner's list of these rows, with the trailer they deserve or another."""
    read = [row.split("|") for row in rows]
    fen = sum(
        {"收款": 1, "退款": -1}.get(each[3], 0) * round(float(each[1]) * 100)
        for each in read if len(each) == 5 and each[1].replace(".", "").isdigit()
    )  # fmt: skip
    count = sum(each[3] in {"收款", "退款"} for each in read if len(each) == 5)
    told = total if total is not None else f"合计|{count}|{fen / 100:.2f}"
    return "\r\n".join(["流水号|金额|手续费|类型|时间", *rows, told, ""]).encode("gb18030")


def row(number: str, amount: str = "1.00", word: str = "收款", fee: str = "0.01") -> str:
    return f"{number}|{amount}|{fee}|{word}|20261120101500"


def seen(tmp_path: Path, layout: str, content: bytes) -> Preview:
    path = tmp_path / "file"
    path.write_bytes(content)
    return preview(load_layout(layout.encode()), path)


def codes(found: Preview) -> list[str]:
    return [fault.code for fault in found.faults]


# Layouts


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('name = "partner.daily"', 'name = "Up Per"', "name"),
        ('separator = "|"', 'separator = "||"', "separator"),
        ('header = "流水号"', "", "header"),
        ("amount = {", "amoumt = {", "amoumt"),
        ('words = ["退款"]', 'words = ["收款"]', "two of them"),
        ("(?P<count>", "(?P<number>(", "pattern"),
        ('encoding = "gb18030"', 'encoding = "big5"', "encoding"),
        ('column = "金额" }', 'column = "金额", scale = 9 }', "scale"),
    ],
)
def test_a_layout_that_contradicts_itself_is_refused_by_the_field(
    old: str, new: str, word: str
) -> None:
    assert old in PARTNER

    with pytest.raises(LayoutWrong) as refused:
        load_layout(PARTNER.replace(old, new).encode())

    assert word in str(refused.value.facts)


def test_fields_of_fixed_width_may_not_overlap() -> None:
    with pytest.raises(LayoutWrong, match="overlap"):
        load_layout(FIXED.replace("start = 8, width = 6", "start = 7, width = 6").encode())


def test_the_built_in_layouts_are_those_of_the_channels_and_banks() -> None:
    assert set(built_in()) == {
        "wechat_pay.trade", "wechat_pay.funds", "wechat_pay.splits", "alipay.trade",
        "alipay.funds", "unionpay.zm", "unionpay.zme", "camt.053", "mt940",
    }  # fmt: skip


# Files of others


def test_a_real_bill_of_wechat_pay_is_read_to_its_own_total() -> None:
    found = preview(built_in()["wechat_pay.trade"], VECTORS / "wechat/bills/bill.ALL.csv")

    assert (found.tally.rows, found.tally.money_in, found.tally.money_out) == (45, 47, 14)
    assert not found.is_refused


@pytest.mark.parametrize(
    ("name", "rows", "money_in", "money_out"),
    [
        ("moov__FI_camt_053_sample.xml.xml", 10, 2_307_500, 943_017),
        ("genkgo__camt053.v2.multi.statement.xml", 2, 885, 700),
    ],
)
def test_a_banks_statement_is_read_and_its_balances_hold(
    name: str, rows: int, money_in: int, money_out: int
) -> None:
    found = preview(built_in()["camt.053"], VECTORS / "statements" / name)

    assert (found.tally.rows, found.tally.money_in, found.tally.money_out) == (
        rows, money_in, money_out,
    )  # fmt: skip
    assert not found.is_refused


@pytest.mark.parametrize("name", ["genkgo__camt053.v8.xml", "moov__CH_camt_053.xml"])
def test_a_statement_whose_balances_its_entries_do_not_explain_is_refused(name: str) -> None:
    found = preview(built_in()["camt.053"], VECTORS / "statements" / name)

    assert codes(found) == ["source.balance_differs"]
    assert found.is_refused


MT940 = (
    ":20:S\r\n:25:1\r\n:28C:1/1\r\n:60F:C261119CNY1000,00\r\n"
    ":61:2611201120C123,45NTRFREF1//BANK1\r\n:86:hello\r\n:61:2611201120RC23,4NTRFREF2\r\n"
    ":62F:C261120CNY1100,05\r\n-"
)


def test_an_mt940_is_read_with_its_balances(tmp_path: Path) -> None:
    (tmp_path / "s").write_text(MT940)

    found = preview(built_in()["mt940"], tmp_path / "s")

    assert [(each.number, each.ref, each.amount) for each in found.rows] == [
        ("REF1", "BANK1", 12_345),
        ("REF2", "", -2_340),
    ]
    assert not found.is_refused


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("1100,05", "1100,06", "source.balance_differs"),
        (":62F:C261120CNY1100,05\r\n", "", "source.truncated"),
        ("C123,45N", "X123,45N", "source.columns_differ"),
        ("CNY1000,00", "CNY", "source.trailer_malformed"),
    ],
)
def test_an_mt940_that_is_not_right_is_told_so(
    tmp_path: Path, old: str, new: str, code: str
) -> None:
    (tmp_path / "s").write_text(MT940.replace(old, new))

    assert code in codes(preview(built_in()["mt940"], tmp_path / "s"))


# Bad input, by stable codes


def test_a_list_is_read_with_signs_fees_and_its_trailer(tmp_path: Path) -> None:
    found = seen(
        tmp_path, PARTNER, listed(row("a"), row("b", "2.50", "退款"), row("c", "9.99", "冲正"))
    )

    assert [(each.number, each.kind, each.amount, each.fee) for each in found.rows] == [
        ("a", "payment", 100, 1),
        ("b", "refund", -250, 1),
    ]
    assert not found.is_refused


@pytest.mark.parametrize(
    ("content", "code", "is_refused"),
    [
        (listed(row("a"))[:-30], "source.truncated", True),
        (listed(row("a"), total="合计|2|1.00"), "source.count_differs", True),
        (listed(row("a"), total="合计|1|1.01"), "source.sum_differs", True),
        (
            listed(row("a")).replace("流水号".encode("gb18030"), b"id"),
            "source.header_missing",
            True,
        ),
        (listed(row("a")).decode("gb18030").encode("utf-8"), "source.header_missing", True),
        (listed(row("a"), row("b", "1.005")), "source.amount_too_precise", False),
        (listed(row("a"), row("b", "1e3")), "source.amount_malformed", False),
        (listed(row("a"), row("b", "NaN")), "source.amount_malformed", False),
        (
            listed(row("a"), row("b", "1" * 40), total="合计|1|1.00"),
            "source.amount_too_large",
            False,
        ),
        (listed(row("a"), row("b", word="？？")), "source.word_unknown", False),
        (listed(row("a"), row("")), "source.number_missing", False),
        (listed(row("a"), row("b") + "|more"), "source.columns_differ", False),
        (listed(row("a"), row("b" * 200)), "source.cell_too_long", False),
        (listed(row("a"), row("b\0")), "source.not_text", False),
        (listed(row("a"), row("b\x1b")), "source.control_character", False),
        (listed(row("a"), "b|1.00|0|收款|20261399"), "source.time_malformed", False),
        (b"", "source.header_missing", True),
        (b"\0" * 5000, "source.header_missing", True),
        (b"x" * 200_000, "source.header_missing", True),
    ],
)
def test_what_is_wrong_with_a_file_has_a_stable_code(
    tmp_path: Path, content: bytes, code: str, *, is_refused: bool
) -> None:
    found = seen(tmp_path, PARTNER, content)

    assert code in codes(found)
    assert found.is_refused is is_refused


def test_a_line_that_cannot_be_read_explains_a_trailer_that_differs(tmp_path: Path) -> None:
    content = listed(row("a"), row("b", "1e3"), total="合计|2|11.00")

    assert codes(seen(tmp_path, PARTNER, content)) == ["source.amount_malformed"]


def test_fixed_width_counts_bytes_of_another_encoding(tmp_path: Path) -> None:
    line = "00000001" + "甲乙丙" + "000000000123" + "20261120"
    content = f"{line}\n99990001\n".encode("gb18030")

    [read] = seen(tmp_path, FIXED, content).rows

    assert (read.number, read.ref, read.amount) == ("00000001", "甲乙丙", 123)


def test_a_short_line_of_fixed_width_is_a_fault(tmp_path: Path) -> None:
    assert "source.line_too_short" in codes(seen(tmp_path, FIXED, b"0000\n99990000\n"))


# Documents

CAMT = (VECTORS / "statements/genkgo__camt053.v2.multi.statement.xml").read_bytes()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b'<!DOCTYPE a [<!ENTITY x "y">]>' + b"<Document/>", "source.document_type"),
        (b"<a>" * 60, "source.too_deep"),
        (CAMT[: len(CAMT) // 2], "source.truncated"),
        (b"no xml at all", "source.truncated"),
        (b"<a>" + b"x" * 100_000 + b"</a>", "source.text_too_long"),
    ],
)
def test_hostile_xml_is_refused_before_it_costs_anything(
    tmp_path: Path, content: bytes, code: str
) -> None:
    (tmp_path / "x").write_bytes(content)

    found = preview(built_in()["camt.053"], tmp_path / "x")

    assert code in codes(found)
    assert found.is_refused


def workbook(cells: str, *, bomb: bool = False) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "xl/workbook.xml", '<workbook><sheets><sheet name="S"/></sheets></workbook>'
        )
        archive.writestr(
            "xl/sharedStrings.xml", "<sst><si><t>No</t></si><si><t>=1+1</t></si></sst>"
        )
        rows = "".join(
            f'<row r="{number}">{each}</row>' for number, each in enumerate(cells.split("\n"), 1)
        )
        archive.writestr(
            "xl/worksheets/sheet1.xml", f"<worksheet><sheetData>{rows}</sheetData></worksheet>"
        )
        if bomb:
            archive.writestr("xl/media.bin", b"\0" * 100_000_000)
    return out.getvalue()


HEAD = (
    '<c r="A1" t="s"><v>0</v></c><c r="B1" t="inlineStr"><is><t>In</t></is></c>'
    '<c r="C1" t="str"><v>Out</v></c><c r="D1" t="str"><v>Day</v></c>'
)


def test_a_sheet_is_read_to_the_fen_though_it_keeps_fractions(tmp_path: Path) -> None:
    cells = (
        f"{HEAD}\n"
        '<c r="A2" t="s"><v>1</v></c><c r="B2"><v>12.300000000000001</v></c>'
        '<c r="D2"><v>46346</v></c>\n'
        '<c r="A3"><v>7</v></c><c r="C3"><v>0.5</v></c><c r="D3"><v>46346.5</v></c>'
    )

    found = seen(tmp_path, SHEET, workbook(cells))

    assert [(each.number, each.amount) for each in found.rows] == [("=1+1", 1230), ("7", -50)]
    assert found.rows[0].at.isoformat() == "2026-11-19T16:00:00+00:00"
    assert not found.is_refused


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (lambda: workbook(HEAD, bomb=True), "source.archive_bomb"),
        (lambda: workbook(HEAD)[:-40], "source.archive_damaged"),
        (lambda: b"no zip", "source.archive_damaged"),
        (lambda: workbook('<c t="s"><v>0</v></c>'), "source.cell_without_place"),
        (lambda: workbook('<c r="A1" t="s"><v>99</v></c>'), "source.cell_without_text"),
        (lambda: workbook('<c r="ZZZ1"><v>1</v></c>'), "source.too_many_cells"),
    ],
)
def test_a_hostile_workbook_is_refused(
    tmp_path: Path, content: Callable[[], bytes], code: str
) -> None:
    found = seen(tmp_path, SHEET, content())

    assert codes(found) == [code]
    assert found.is_refused


@given(content=st.binary(max_size=300), where=st.sampled_from(["partner", "fixed", "mt940"]))
@examples(max_examples=40, deadline=None)
def test_no_bytes_make_a_reader_crash(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, where: str
) -> None:
    layout = {"partner": PARTNER, "fixed": FIXED}.get(where)
    path = tmp_path_factory.mktemp("any") / "file"
    path.write_bytes(content)

    found = preview(load_layout(layout.encode()) if layout else built_in()["mt940"], path)

    assert found.is_refused or found.tally.is_whole


# Taking files in


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "CHUNK_ROWS", 3)


async def added(db: Db, name: str) -> str:
    async with db.begin("operator") as tx:
        await add_source(tx, name, load_layout(PARTNER.encode()), Mode.LIVE)
    return name


def a_file(tmp_path: Path, *rows: str, **how: Any) -> Path:
    path = tmp_path / "list.txt"
    path.write_bytes(listed(*rows, **how))
    return path


async def stored(db: Db, file: Any) -> list[tuple[str, int]]:
    found = await db.fetch(
        "select number, amount from source_row where file_id = $1 order by place", (file.id,)
    )
    return [tuple(each) for each in found]


async def test_a_file_is_taken_in_once_and_a_corrected_one_takes_its_place(
    module_db: Db, tmp_path: Path
) -> None:
    name = await added(module_db, "once")
    first = await take_file(module_db, name, DAY, a_file(tmp_path, row("a")), actor="me")
    with pytest.raises(FileSeenBefore):
        await take_file(module_db, name, DAY, tmp_path / "list.txt", actor="me")

    newer = await take_file(module_db, name, DAY, a_file(tmp_path, row("a"), row("b")), actor="me")

    assert (first.state, first.version, newer.version, newer.row_count) == ("complete", 1, 2, 2)
    assert (await current_file(module_db, name, DAY)) == newer


async def test_a_refused_file_stays_with_its_faults_and_the_one_before_still_counts(
    module_db: Db, tmp_path: Path
) -> None:
    name = await added(module_db, "refused")
    good = await take_file(module_db, name, DAY, a_file(tmp_path, row("a")), actor="me")

    with pytest.raises(FileRefused) as refused:
        await take_file(
            module_db, name, DAY, a_file(tmp_path, row("a"), total="合计|9|1.00"), actor="me"
        )

    assert refused.value.facts["fault"] == "source.count_differs"
    assert (await current_file(module_db, name, DAY)) == good
    [latest, _] = await ingest.files(module_db, source=name, limit=5)
    [fault] = await faults_of_file(module_db, latest.id, 10)
    assert (latest.state, fault.code) == ("refused", "source.count_differs")


async def test_rows_of_another_day_are_faults_and_a_file_of_nothing_else_is_refused(
    module_db: Db, tmp_path: Path
) -> None:
    name = await added(module_db, "days")
    late = row("late").replace(f"{DAY:%Y%m%d}", f"{DAY + timedelta(days=4):%Y%m%d}")
    file = await take_file(module_db, name, DAY, a_file(tmp_path, row("a"), late), actor="me")
    [fault] = await faults_of_file(module_db, file.id, 10)
    with pytest.raises(FileRefused) as refused:
        await take_file(module_db, name, DAY, a_file(tmp_path, late), actor="me")
    any_day = PARTNER.replace('zh = "合作方日清单"', 'zh = "合作方日清单"\nwithin_days = 0')
    assert "within_days" in any_day
    async with module_db.begin("operator") as tx:
        await add_source(tx, "any.day", load_layout(any_day.encode()), Mode.LIVE)
    other = await take_file(module_db, "any.day", DAY, tmp_path / "list.txt", actor="me")

    assert (file.state, file.row_count, file.money_in, fault.code) == (
        "complete", 1, 100, "source.wrong_day",
    )  # fmt: skip
    assert await stored(module_db, file) == [("a", 100)]
    assert refused.value.facts["fault"] == "source.no_row_left"
    assert (other.row_count, other.fault_count) == (1, 0)


async def test_rows_and_statements_of_others_do_not_count(module_db: Db, tmp_path: Path) -> None:
    owner = '[fields]\nowner = { column = "类型" }'
    owned = PARTNER.replace('zh = "合作方日清单"', 'zh = "合作方日清单"\nowners = ["收款"]')
    owned = owned.replace("[fields]", owner)
    with pytest.raises(LayoutWrong):
        load_layout(owned.replace('owner = { column = "类型" }', "").encode())
    async with module_db.begin("operator") as tx:
        await add_source(tx, "owned", load_layout(owned.encode()), Mode.LIVE)
        bank = replace(built_in()["mt940"], owners=("someone elses",))
        await add_source(tx, "owned.bank", bank, Mode.LIVE)
        ours = replace(bank, owners=("0123456789",))
        await add_source(tx, "ours.bank", ours, Mode.LIVE)
    file = await take_file(
        module_db, "owned", DAY, a_file(tmp_path, row("a"), row("b", word="退款")), actor="me"
    )
    [fault] = await faults_of_file(module_db, file.id, 10)
    path = tmp_path / "statement"
    path.write_text(
        ":20:X\n:25:BANK/0123456789\n:28C:1\n:60F:C261120CNY1,00\n:62F:C261120CNY1,00\n-\n"
    )
    with pytest.raises(FileRefused) as refused:
        await take_file(module_db, "owned.bank", DAY, path, actor="me")
    taken = await take_file(module_db, "ours.bank", DAY, path, actor="me")

    assert (file.row_count, fault.code) == (1, "source.wrong_merchant")
    assert refused.value.facts["fault"] == "source.wrong_account"
    assert taken.state == "complete"


@pytest.mark.parametrize(
    "place", ["sources.after_begin", "sources.after_chunk", "sources.after_end"]
)
async def test_whoever_dies_while_reading_is_followed_by_who_reads_on(
    module_db: Db, tmp_path: Path, small_chunks: None, place: str
) -> None:
    name = await added(module_db, place)
    path = a_file(tmp_path, *(row(f"n{n}", f"{n}.00") for n in range(1, 9)))
    for _ in range(2):
        failpoints.arm(f"{place}:raise")
        with pytest.raises((SimulatedCrash, FileSeenBefore)):
            await take_file(module_db, name, DAY, path, actor="me")
        failpoints.arm(None)
        if place != "sources.after_end":
            assert await current_file(module_db, name, DAY) is None  # half of it never counts

    if place != "sources.after_end":
        await take_file(module_db, name, DAY, path, actor="me")

    file = await current_file(module_db, name, DAY)
    assert file is not None
    assert await stored(module_db, file) == [(f"n{n}", n * 100) for n in range(1, 9)]


async def test_a_source_keeps_the_layout_its_files_were_read_with(module_db: Db) -> None:
    name = await added(module_db, "keeps")
    await added(module_db, name)

    with pytest.raises(SourceTaken):
        async with module_db.begin("operator") as tx:
            await add_source(tx, name, load_layout(FIXED.encode()), Mode.LIVE)
    with pytest.raises(SourceUnknown):
        await take_file(module_db, "nobody", DAY, Path(__file__), actor="me")
