"""A statement ties to the ledger to the fen, on every kind of paper, and a wrong one is found."""

from __future__ import annotations

import csv
import io
import random
import re
import zipfile
import zlib
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.clearing.books import FIRST_DAY, SEEN, Books, open_books
from tongbao.clearing.payouts.payouts import record_payout_news
from tongbao.clearing.payouts.queries import open_payouts, payout_with_id
from tongbao.clearing.settlement.model import Settlement
from tongbao.clearing.settlement_terms.model import TermFigures
from tongbao.clearing.settlement_terms.terms import NewTerms, set_terms
from tongbao.clearing.statements.model import ReceiptNotReady, StatementFormat
from tongbao.clearing.statements.papers import receipt_paper, statement_paper
from tongbao.clearing.statements.queries import prove_statements, receipt_of, statement_of
from tongbao.infra.db import Db
from tongbao.kernel.papers.pdf import Line, Text, write_pdf
from tongbao.kernel.papers.sheets import csv_line, write_xlsx
from tongbao.rails.channels.contract.outcomes import Succeeded

SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


@pytest.fixture
async def books(db: Db, tmp_path: Path) -> Books:
    return await open_books(db, tmp_path)


async def faults(books: Books) -> list[str]:
    return [fault async for each in prove_statements(books.db) for fault in each.faults]


async def one_day(books: Books) -> Settlement:
    await books.capture(10_000, 60)
    assert await books.hold(2_500, 15)
    await books.end_refund(0, succeeds=True)
    books.at(FIRST_DAY + timedelta(days=1), 11, 30)
    await books.capture(777, 0)  # of the next day, and in the account already
    [settlement] = await books.settle(FIRST_DAY)
    return settlement


@pytest.mark.parametrize("seed", range(3))
async def test_every_statement_of_random_days_is_proven_by_the_ledger(
    books: Books, seed: int
) -> None:
    chance = random.Random(seed)
    async with books.db.begin("tests") as tx:
        terms = TermFigures(reserve_ppm=50_000, reserve_days=2, cut_off_minute=20 * 60)
        await set_terms(tx, NewTerms(books.merchant.id, books.mode, books.today, terms))
    for number in range(6):
        day = FIRST_DAY + timedelta(days=number)
        for hour in (9, 15, 21):
            books.at(day, hour)
            await books.capture(chance.randrange(100, 9_000), chance.randrange(60))
            await books.hold(chance.randrange(1, 4_000), 0)
        if books.held and chance.random() < 0.7:
            await books.end_refund(0, succeeds=chance.random() < 0.5)
        books.at(day, 22, 30)
        await books.settle(day - timedelta(days=1))
        await books.end_payouts(chance)
    assert await faults(books) == []
    assert await books.rows("select count(*) > 3 from settlement") == [(True,)]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("update settlement_line set amount = amount + 1 where code like '%gross'", "lines come"),
        ("delete from settlement_line where code like '%fee'", "lines are said"),
        ("update settlement set payable = payable - 1, carried = carried + 1", "ledger has"),
    ],
)
async def test_what_somebody_changed_is_found(books: Books, change: Any, says: str) -> None:
    await one_day(books)
    assert await faults(books) == []
    await books.db.execute(change, ())
    assert any(says in fault for fault in await faults(books))


async def test_the_papers_say_the_same_and_the_same_again(books: Books) -> None:
    settlement = await one_day(books)
    statement = await statement_of(books.db, settlement)
    papers = {wanted: statement_paper(statement, wanted) for wanted in StatementFormat}
    again = {wanted: statement_paper(statement, wanted) for wanted in StatementFormat}
    assert papers == again

    rows = list(csv.reader(io.StringIO(papers[StatementFormat.CSV].content.decode("utf-8-sig"))))
    head = rows.index([]) if [] in rows else next(i for i, row in enumerate(rows) if not any(row))
    lines = rows[head + 2 :]
    assert sum(Decimal(line[5]) for line in lines) * 100 == settlement.due
    assert Decimal(lines[-1][6]) * 100 == settlement.due
    facts = {row[0].split()[0]: row[1] for row in rows[:head]}
    assert Decimal(facts["payable"]) * 100 == settlement.payable == 10_000 - 60 - 2_500 + 15

    with zipfile.ZipFile(io.BytesIO(papers[StatementFormat.XLSX].content)) as archive:
        sheet = ET.fromstring(archive.read("xl/worksheets/sheet1.xml"))
    assert len(sheet.findall(f".//{SHEET}row")) == len(rows)
    text = words(papers[StatementFormat.PDF].content)
    assert f"{settlement.payable / 100:,.2f}" in text
    assert "结算单" in text


def test_what_is_set_to_the_right_ends_there_in_both_scripts_and_no_rule_strikes_a_line() -> None:
    """Widths are known for each run: 0.6 of the size for a Latin letter, all of it for others."""
    name = Text(500, "老王面馆 Old Wang •••• 0009", ends_there=True)
    pdf = write_pdf([Line((Text(48, "Statement"),), 16, rule=True), Line((name,))], title="set_1")
    content = shown(pdf)
    runs = re.findall(r"/(F\d) 9 Tf ([\d.]+) ([\d.]+) Td (.*?) Tj", content)
    [chinese, latin] = runs
    assert (chinese[0], latin[0]) == ("F1", "F2")
    assert latin[3] == "( Old Wang **** 0009)"
    assert float(latin[1]) + len(latin[3][1:-1]) * 9 * 0.6 == pytest.approx(500)
    assert float(chinese[1]) + 4 * 9 == pytest.approx(float(latin[1]))
    [rule] = re.findall(r"0.5 w \d+ ([\d.]+) m", content)
    assert float(rule) > float(latin[2]) + 9 * 0.8, "the letters are below the rule"


def shown(pdf: bytes) -> str:
    """Return the instructions of every page."""
    streams = re.findall(rb"stream\n(.*?)\nendstream", pdf, re.DOTALL)
    return "\n".join(zlib.decompress(each).decode() for each in streams)


def words(pdf: bytes) -> str:
    """What a reader would show: both fonts' texts, with the objects where the table says."""
    start = int(pdf.rsplit(b"startxref\n", 1)[1].split()[0])
    places = [int(entry[:10]) for entry in pdf[start:].splitlines()[3:] if entry.endswith(b" n ")]
    for number, place in enumerate(places, 1):
        assert pdf[place:].startswith(b"%d 0 obj" % number)
    shown = []
    for content in re.findall(rb"stream\n(.*?)\nendstream", pdf, re.DOTALL):
        drawn = zlib.decompress(content).decode("ascii")
        shown += [bytes.fromhex(each).decode("utf-16-be") for each in re.findall("<(.*?)>", drawn)]
        shown += re.findall(r"\((.*?)\) Tj", drawn)
    return "\n".join(shown)


HOSTILE = ["=1+1", "+cmd|' /C calc'!A0", "-2", "@SUM(A1)", "\t=1", ' ="x"', 'a,"b"\r\nc']


@pytest.mark.parametrize("text", HOSTILE)
def test_no_cell_is_a_formula_in_a_spreadsheet(text: str) -> None:
    [[cell]] = list(csv.reader(io.StringIO(csv_line([text]), newline="")))
    assert cell.lstrip("'") == text.lstrip("'")
    assert not cell.lstrip(" ").startswith(("=", "+", "-", "@", "\t"))
    with zipfile.ZipFile(io.BytesIO(write_xlsx([[text]]))) as archive:
        sheet = ET.fromstring(archive.read("xl/worksheets/sheet1.xml"))
    [found] = sheet.findall(f".//{SHEET}c")
    assert found.get("t") == "inlineStr"
    assert not sheet.findall(f".//{SHEET}f")


async def test_a_receipt_is_of_money_that_was_paid_and_can_be_checked(books: Books) -> None:
    await one_day(books)
    [payout] = await open_payouts(books.db)
    with pytest.raises(ReceiptNotReady):
        await receipt_of(books.db, payout)
    paid = Succeeded("bank-1", payout.money, books.now)
    await record_payout_news(books.clearing, payout, "query", paid, SEEN)
    receipt = await receipt_of(books.db, await payout_with_id(books.db, payout.id))
    paper = receipt_paper(receipt)

    assert (receipt.amount, receipt.bank_reference) == (payout.amount, "bank-1")
    assert receipt.digest in words(paper.content)
    assert str(receipt.ledger_transfer) in words(paper.content)
    assert paper.sha256 == receipt_paper(await receipt_of(books.db, await payout_with_id(
        books.db, payout.id))).sha256  # fmt: skip
