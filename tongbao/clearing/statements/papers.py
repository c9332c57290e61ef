"""Statements as CSV, XLSX and PDF, and electronic receipts (电子回单): the same bytes each time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from hashlib import sha256
from typing import Final

from tongbao.clearing.settlement.model import COLUMN_OF_CODE, Settlement, view_line
from tongbao.clearing.statements.model import (
    MEDIA_TYPES,
    PaperView,
    PayoutReceipt,
    SettlementStatement,
    StatementFormat,
)
from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.kernel.money import Money, exponent_of
from tongbao.kernel.papers.pdf import MARGIN, WIDTH, Line, Text, write_pdf
from tongbao.kernel.papers.sheets import Cell, csv_line, write_xlsx

COLUMNS: Final = (
    "seq 序号",
    "day 记账日",
    "column 类别",
    "code 交易码",
    "reference 业务单号",
    "amount 金额",
    "balance 余额",
)
PDF_LINES_MAX: Final = 2_000
"""Lines shown in a PDF; the CSV and the XLSX have all of them."""
_RIGHT: Final = WIDTH - MARGIN
_ZH: Final = {
    "gross": "交易金额",
    "fees": "手续费",
    "refunds": "退款",
    "fees_returned": "退还手续费",
    "other": "其他",
}


def statement_paper(statement: SettlementStatement, wanted: StatementFormat) -> PaperView:
    """Return a statement as a file."""
    match wanted:
        case StatementFormat.CSV:
            content = ("\ufeff" + "".join(map(csv_line, _rows(statement)))).encode()
        case StatementFormat.XLSX:
            content = write_xlsx(_rows(statement))
        case StatementFormat.PDF:
            content = write_pdf(_pages(statement), title=statement.number)
    return _paper(f"{statement.number}.{wanted}", MEDIA_TYPES[wanted], content)


def receipt_paper(receipt: PayoutReceipt) -> PaperView:
    """Return a receipt as a PDF."""
    content = write_pdf(_receipt_lines(receipt), title=receipt.number)
    return _paper(f"{receipt.number}.pdf", MEDIA_TYPES[StatementFormat.PDF], content)


def _paper(name: str, media_type: str, content: bytes) -> PaperView:
    return PaperView("paper", name, media_type, sha256(content).hexdigest(), content)


def _facts(statement: SettlementStatement) -> list[tuple[str, int | str]]:
    """Return what stands above and below the lines, amounts in minor units."""
    its, tie = statement.settlement, statement.tie
    return [
        ("settlement 结算单", statement.number),
        ("merchant 商户", statement.merchant),
        ("mode 模式", its.mode.value),
        ("day 结算日", its.day.isoformat()),
        ("currency 币种", its.currency),
        ("opening 期初", its.opening),
        *[(f"{name} {_ZH[name]}", getattr(its, name)) for name in _ZH],
        ("due 应结", its.due),
        ("reserved 保证金", its.reserved),
        ("quick_fee D+0 手续费", its.quick_fee),
        ("payable 实付", its.payable),
        ("carried 结转", its.carried),
        ("lines 笔数", str(its.line_count)),
        (f"ledger at seq {tie.seq} 账本余额", tie.balance),
        ("of later settlements 未结部分", tie.unsettled),
        ("closing by ledger 账本核对", tie.closing),
    ]


def _rows(statement: SettlementStatement) -> Iterator[tuple[Cell, ...]]:
    its = statement.settlement
    for name, value in _facts(statement):
        yield (name, value if isinstance(value, str) else _major(value, its))
    yield ()
    yield COLUMNS
    balance = its.opening
    for line in statement.lines:
        balance += line.amount
        view = view_line(line)
        yield (
            line.seq,
            line.biz_date.isoformat(),
            view.column,
            line.code,
            view.reference,
            _major(line.amount, its),
            _major(balance, its),
        )


def _major(amount: int, its: Settlement) -> Decimal:
    return Decimal(amount).scaleb(-exponent_of(its.currency))


def _pages(statement: SettlementStatement) -> Iterator[Line]:
    its = statement.settlement
    yield Line((Text(MARGIN, "结算单 Settlement statement"),), 16, rule=True)
    for name, value in _facts(statement):
        shown = value if isinstance(value, str) else _shown(value, its.currency)
        yield Line((Text(MARGIN, name), Text(_RIGHT, shown, ends_there=True)))
    yield Line(rule=True)
    balance = its.opening
    for line in statement.lines[:PDF_LINES_MAX]:
        balance += line.amount
        view = view_line(line)
        yield Line(
            (
                Text(MARGIN, line.biz_date.isoformat()),
                Text(MARGIN + 58, _ZH[COLUMN_OF_CODE.get(line.code, "other")]),
                Text(MARGIN + 112, view.reference),
                Text(_RIGHT - 80, _shown(line.amount, its.currency), ends_there=True),
                Text(_RIGHT, _shown(balance, its.currency), ends_there=True),
            ),
            8,
        )
    if len(statement.lines) > PDF_LINES_MAX:
        rest = len(statement.lines) - PDF_LINES_MAX
        yield Line((Text(MARGIN, f"另有 {rest} 笔见 CSV 或 XLSX / {rest} more in CSV or XLSX"),))


def _shown(amount: int, currency: str) -> str:
    whole, dot, cents = Money(amount, currency).decimal_text().partition(".")
    return f"{int(whole):,}{dot}{cents}" if whole not in {"-0", "0"} else f"{whole}{dot}{cents}"


def _receipt_lines(receipt: PayoutReceipt) -> Iterable[Line]:
    money = Money(receipt.amount, receipt.currency)
    at = receipt.paid_at.astimezone(BUSINESS_ZONE).isoformat(" ", "seconds")
    facts = (
        ("回单号 Receipt", receipt.number),
        ("结算单 Settlement", receipt.settlement),
        ("商户 Merchant", receipt.merchant),
        ("收款户名 Holder", receipt.holder),
        ("收款账号 Account", receipt.account),
        ("金额 Amount", f"{receipt.currency} {_shown(money.amount, money.currency)}"),
        ("银行流水 Bank reference", receipt.bank_reference),
        ("入账时间 Booked", at),
        ("账本 Ledger", f"book {receipt.ledger_book}, seq {receipt.ledger_seq}"),
        ("分录 Transfer", str(receipt.ledger_transfer)),
    )
    yield Line((Text(MARGIN, "电子回单 Electronic receipt"),), 16, rule=True)
    for name, value in facts:
        yield Line((Text(MARGIN, name), Text(MARGIN + 150, value)), 10)
    yield Line(rule=True)
    yield Line((Text(MARGIN, "校验码 SHA-256"),), 9)
    yield Line((Text(MARGIN, receipt.digest),), 9)
