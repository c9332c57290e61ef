"""Reading the general ledger: trial balances, days, vouchers, and all of them as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Final

from tongbao.infra.db import Db, Tx
from tongbao.kernel.errors import NotFound
from tongbao.kernel.money import Money
from tongbao.ledger.general import _store as store
from tongbao.ledger.general._store import AccountSum, Day
from tongbao.ledger.general.accounts import GL_ACCOUNTS
from tongbao.ledger.general.model import (
    GlDayRequest,
    GlVoucher,
    GlVoucherLine,
    TrialBalance,
    TrialLine,
)
from tongbao.ledger.general.vouchers import coverage

_DAYS: Final = 60
_REQUESTS: Final = 50
_VOUCHERS: Final = 200


class VoucherNotFound(NotFound):
    """There is no such voucher."""

    code = "general_ledger.voucher_not_found"
    advice = "List the vouchers of the day to find its number."
    advice_zh = "请在当日凭证列表中查找正确的凭证号。"


async def trial_balance(on: Db | Tx, book: int, day: date) -> TrialBalance:
    """Return a book's accounts on an accounting day, as far as vouchers have been made.

    Raises:
        BookMissing
    """
    covered = await coverage(on, book)
    totals = await store.TOTALS.all(on, book, day)
    return TrialBalance(
        book=book,
        day=day,
        is_closed=covered.closed_through is not None and day <= covered.closed_through,
        last_batch=covered.covered_batch,
        lines=tuple(
            TrialLine(
                account=total.account,
                en=GL_ACCOUNTS[total.account].en,
                zh=GL_ACCOUNTS[total.account].zh,
                currency=total.currency,
                opening=total.debits_before - total.credits_before,
                debits=total.debits,
                credits=total.credits,
            )
            for total in totals
        ),
    )


async def sums_through(on: Db | Tx, book: int, day: date, batch: int) -> list[AccountSum]:
    """Return every account's sums of all days up to one, as vouchers up to a batch have them.

    Vouchers never change, so the same question has the same answer for ever. ``batch`` is the last
    one of a range, as `coverage` names it.
    """
    return await store.SUMS_THROUGH.all(on, book, day, batch)


async def days(on: Db | Tx, book: int, *, limit: int = _DAYS) -> list[Day]:
    """Return the newest accounting days of a book that have vouchers, newest first."""
    return await store.DAYS.all(on, book, limit)


async def day_requests(on: Db | Tx, book: int, *, limit: int = _REQUESTS) -> list[GlDayRequest]:
    """Return the newest requests to close or reopen days of a book, newest first."""
    return await store.LIST_REQUESTS.all(on, book, limit)


async def vouchers(
    on: Db | Tx, book: int, day: date, *, after_batch: int = 0, limit: int = _VOUCHERS
) -> list[GlVoucher]:
    """Return vouchers of a day in the order of their commits, those after a batch."""
    return await store.VOUCHERS.all(on, book, day, after_batch, limit)


async def voucher(
    on: Db | Tx, book: int, day: date, last_batch: int
) -> tuple[GlVoucher, Sequence[GlVoucherLine]]:
    """Return one voucher and its lines.

    Raises:
        VoucherNotFound
    """
    found = await store.VOUCHER.first(on, book, last_batch, day)
    if found is None:
        raise VoucherNotFound(book=book, day=day.isoformat(), batch=last_batch)
    return found, await store.LINES.all(on, book, last_batch, day)


async def voucher_lines(on: Db | Tx, book: int, day: date) -> list[GlVoucherLine]:
    """Return the lines of all vouchers of a day."""
    return await store.LINES_OF_DAY.all(on, book, day)


def trial_balance_csv(balance: TrialBalance) -> str:
    """Return a trial balance as CSV in major units, with each currency's totals."""
    rows: list[list[object]] = [
        [
            "account", "name", "科目名称", "currency", "opening_debit", "opening_credit",
            "debits", "credits", "closing_debit", "closing_credit",
        ]
    ]  # fmt: skip
    for line in balance.lines:
        figures = (
            max(line.opening, 0),
            max(-line.opening, 0),
            line.debits,
            line.credits,
            max(line.closing, 0),
            max(-line.closing, 0),
        )
        names = [line.account, line.en, line.zh, line.currency]
        rows.append([*names, *_major(figures, line.currency)])
    for total in balance.totals():
        figures = (
            total.opening_debits,
            total.opening_credits,
            total.debits,
            total.credits,
            total.closing_debits,
            total.closing_credits,
        )
        names = ["", "Total", "合计", total.currency]
        rows.append([*names, *_major(figures, total.currency)])
    return _csv(rows)


def vouchers_csv(lines: Sequence[GlVoucherLine]) -> str:
    """Return voucher lines as CSV in major units, with the batch that ends each voucher."""
    rows: list[list[object]] = [
        [
            "day", "last_batch", "posting", "account", "name", "科目名称", "currency", "debits",
            "credits", "transfers",
        ]
    ]  # fmt: skip
    for line in lines:
        account = GL_ACCOUNTS[line.account]
        rows.append(
            [
                line.biz_date.isoformat(),
                line.last_batch,
                line.code,
                line.account,
                account.en,
                account.zh,
                line.currency,
                *_major((line.debits, line.credits), line.currency),
                line.transfers,
            ]
        )
    return _csv(rows)


def _major(figures: Iterable[int], currency: str) -> list[str]:
    return [Money(figure, currency).decimal_text() for figure in figures]


def _csv(rows: Iterable[Iterable[object]]) -> str:
    # Posting codes, numbers and names come from our own tables: no cell can begin a formula.
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerows(rows)
    return "\ufeff" + out.getvalue()
