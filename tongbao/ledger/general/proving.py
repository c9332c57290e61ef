"""Proving that the general ledger is what the journal says, and says no more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Final

import msgspec

from tongbao.infra.db import Db, Tx
from tongbao.ledger.archive.queries import archived_books
from tongbao.ledger.general import _store as store
from tongbao.ledger.general._store import AccountSum, DaySum, RangeSpan
from tongbao.ledger.general.accounts import NUMBER_OF
from tongbao.ledger.general.model import GlBreach, GlVoucherLine, JournalIncomplete, Line
from tongbao.ledger.general.vouchers import derive_lines

_RANGES: Final = 200
_BATCHES_MAX: Final = 1_000_000
_ACTOR: Final = "general_ledger"
_Sums = dict[tuple[str, str], tuple[int, int]]


async def check_general_ledger(db: Db, book: int) -> list[GlBreach]:
    """Derive every voucher of a book from the journal again and return where they differ.

    Also: every commit up to the last range is in exactly one; the days are the sums of their
    vouchers; debits are credits; and together they are what the accounts say. Vouchers of months
    that are in the archive are only compared with the days and with themselves.
    """
    breaches = await _range_breaches(db, book)
    async with db.begin(_ACTOR) as tx:
        breaches += _day_breaches(
            await store.DAY_SUMS.all(tx, book), await store.SUMS_OF_LINES.all(tx, book)
        )
        breaches += await account_breaches(tx, book)
    return breaches


async def _range_breaches(db: Db, book: int) -> list[GlBreach]:
    breaches: list[GlBreach] = []
    archived = [
        (each.first_batch, each.last_batch)
        for each in await archived_books(db, book)
        if each.first_batch is not None and each.last_batch is not None
    ]
    expected = 1
    last = 0
    while ranges := await store.RANGES_AFTER.all(db, book, last, _RANGES):
        for each in ranges:
            if each.first_batch != expected:
                what = f"begins at batch {each.first_batch}, not {expected}"
                breaches.append(GlBreach("coverage", _name(each), what))
            is_here = not any(
                first <= each.last_batch and each.first_batch <= last_ for first, last_ in archived
            )
            async with db.begin(_ACTOR) as tx:
                breaches += await _voucher_breaches(tx, book, each, is_here=is_here)
            expected = last = each.last_batch
            expected += 1
    return breaches


async def _voucher_breaches(tx: Tx, book: int, span: RangeSpan, *, is_here: bool) -> list[GlBreach]:
    stored = [_plain(line) for line in await store.LINES_OF_RANGE.all(tx, book, span.last_batch)]
    breaches = [
        GlBreach("balance", _name(span), f"{day} {currency}: {debits} is not {credits_}")
        for (day, currency), (debits, credits_) in _by_day(stored).items()
        if debits != credits_
    ]
    if is_here:
        breaches += await _journal_breaches(tx, book, span, stored)
    return breaches


async def _journal_breaches(
    tx: Tx, book: int, span: RangeSpan, stored: Sequence[Line]
) -> list[GlBreach]:
    batches = await store.BATCHES_AFTER.all(
        tx, book, span.first_batch - 1, span.last_batch, _BATCHES_MAX
    )
    if len(batches) != span.last_batch - span.first_batch + 1:
        return [GlBreach("coverage", _name(span), f"{len(batches)} batches are there")]
    try:
        lines, transfers = await derive_lines(tx, book, batches)
    except JournalIncomplete as lost:
        return [GlBreach("coverage", _name(span), str(lost))]
    breaches = [
        GlBreach("vouchers", _name(span), f"{line} is in one of voucher and journal only")
        for line in sorted(set(lines).symmetric_difference(stored))
    ]
    if sum(transfers.values()) != span.transfers:
        what = f"{span.transfers} transfers, the journal has {sum(transfers.values())}"
        breaches.append(GlBreach("vouchers", _name(span), what))
    return breaches


def _plain(line: GlVoucherLine) -> Line:
    return msgspec.convert(line, Line, from_attributes=True)


def _by_day(lines: Iterable[Line]) -> Mapping[tuple[date, str], tuple[int, int]]:
    sums: dict[tuple[date, str], tuple[int, int]] = {}
    for line in lines:
        debits, credits_ = sums.get((line.biz_date, line.currency), (0, 0))
        sums[line.biz_date, line.currency] = (debits + line.debits, credits_ + line.credits)
    return sums


def _day_breaches(days: Sequence[DaySum], lines: Sequence[DaySum]) -> list[GlBreach]:
    return [
        GlBreach("days", f"{each.biz_date} {each.account} {each.currency}", "is not its vouchers")
        for each in sorted(set(days).symmetric_difference(lines), key=str)
    ]


async def account_breaches(tx: Tx, book: int) -> list[GlBreach]:
    """Return where the general ledger and the accounts, brought to one commit, differ.

    Vouchers and balances follow the journal each at their own pace; the journal between the two
    is added to the one that is behind.
    """
    kinds = await store.SUMS_OF_KINDS.all(tx, book)
    totals = await store.SUMS_OF_ACCOUNTS.all(tx, book)
    at_kinds = kinds[0].batch if kinds else 0
    at_totals = totals[0].batch if totals else 0
    theirs = _sums(kinds, NUMBER_OF)
    ours = _sums(totals, None)
    behind = ours if at_totals < at_kinds else theirs
    after, until = min(at_totals, at_kinds), max(at_totals, at_kinds)
    try:
        await _follow(tx, book, behind, after=after, until=until)
    except JournalIncomplete as lost:
        return [GlBreach("accounts", f"batches {after + 1}-{until}", str(lost))]
    return [
        GlBreach(
            "accounts",
            f"{name} {currency}",
            f"vouchers {ours.get((name, currency))}, accounts {theirs.get((name, currency))}",
        )
        for name, currency in sorted(ours.keys() | theirs.keys())
        if ours.get((name, currency), (0, 0)) != theirs.get((name, currency), (0, 0))
    ]


def _sums(rows: Sequence[AccountSum], number_of: Mapping[str, str] | None) -> _Sums:
    sums: _Sums = {}
    for row in rows:
        name = row.name if number_of is None else number_of[row.name]
        debits, credits_ = sums.get((name, row.currency), (0, 0))
        sums[name, row.currency] = (debits + row.debits, credits_ + row.credits)
    return sums


async def _follow(tx: Tx, book: int, sums: _Sums, *, after: int, until: int) -> None:
    if after >= until:
        return
    batches = await store.BATCHES_AFTER.all(tx, book, after, until, _BATCHES_MAX)
    lines, _ = await derive_lines(tx, book, batches)
    for line in lines:
        debits, credits_ = sums.get((line.account, line.currency), (0, 0))
        sums[line.account, line.currency] = (debits + line.debits, credits_ + line.credits)


def _name(span: RangeSpan) -> str:
    return f"batches {span.first_batch}-{span.last_batch}"
