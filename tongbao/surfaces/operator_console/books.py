"""The books: T-accounts of a payment, the trial balance, and the proof that all of it adds up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.db import Db
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Busy, Invalid
from tongbao.kernel.ids import parse, show
from tongbao.ledger.general import queries as general
from tongbao.ledger.general.accounts import GL_ACCOUNTS
from tongbao.ledger.general.days import (
    REQUEST_PREFIX,
    approve_day,
    closing_findings,
    reject_day,
    request_day,
    withdraw_day,
)
from tongbao.ledger.general.model import DayAction, GlDayRequest
from tongbao.ledger.general.vouchers import coverage
from tongbao.ledger.model import BOOK_MAX, AccountKey, Side, TransferKind
from tongbao.ledger.queries import RecordedTransfer, books, sums
from tongbao.ledger.rows import KindBalance, LedgerBook
from tongbao.ledger.rules.chart import CHART
from tongbao.ledger.verify import CHECKS, verify
from tongbao.parties.merchants.model import Merchant
from tongbao.rails.channels.accounts import list_accounts
from tongbao.surfaces.operator_console.visit import PREFIX, Visit
from tongbao.surfaces.page_kit.replies import CSV, Reply, file_reply, redirect

_VOUCHERS: Final = 100
_ENDS_HOLD: Final = frozenset({TransferKind.VOID, TransferKind.EXPIRE})


class VerifyRunning(Busy):
    """Somebody's verification of the ledger is still running in this process."""

    code = "console.verify_running"
    advice = "Wait until it has ended and try again."
    advice_zh = "账本校验正在进行，请稍后再试。"
    retry_after_s = 10


class PlaceMalformed(Invalid):
    """The address names no book and day."""

    code = "console.place_malformed"
    advice = "Begin with the ledger page and follow its links."
    advice_zh = "请从账本页面进入并使用其中的链接。"


class AccountLine(Struct, frozen=True):
    """One movement as its account sees it. A hold has moved nothing yet."""

    seq: int
    code: str
    debit: int | None
    credit: int | None
    balance: int
    effect: str  # posted, held, released
    at: datetime


class TAccount(Struct, frozen=True):
    """One account and what a payment moved in it."""

    key: AccountKey
    title: str
    owner: str
    side: Side
    lines: tuple[AccountLine, ...]


class BookBalance(Struct, frozen=True):
    """One book's trial balance."""

    head: LedgerBook
    kinds: Sequence[KindBalance]

    def totals(self) -> list[tuple[str, int, int]]:
        """Return all debits and all credits by currency; a sound book has them equal."""
        found: dict[str, list[int]] = {}
        for kind in self.kinds:
            total = found.setdefault(kind.currency, [0, 0])
            total[0] += kind.debits_posted
            total[1] += kind.credits_posted
        return [(currency, total[0], total[1]) for currency, total in found.items()]


class Asked(Struct, frozen=True):
    """One request to close or reopen a day, as whoever looks at it may deal with it."""

    request: GlDayRequest
    id: str
    is_own: bool  # whoever asked cannot approve


def account_title(kind: str, language: str) -> str:
    """Return what the chart calls a kind of account."""
    return CHART[kind].zh if language == "zh" else CHART[kind].en


def t_accounts(
    transfers: Sequence[RecordedTransfer], names: Mapping[UUID, str], language: str
) -> list[TAccount]:
    """Return the accounts that transfers touched, each with its own side of them."""
    lines: dict[AccountKey, list[AccountLine]] = {}
    for transfer in sorted(transfers, key=lambda each: each.seq):
        for key, is_debit in ((transfer.debit, True), (transfer.credit, False)):
            lines.setdefault(key, []).append(_line(transfer, is_debit=is_debit))
    return [
        TAccount(
            key=key,
            title=account_title(key.kind, language),
            owner=names.get(key.owner, str(key.owner)) if key.owner else "",
            side=CHART[key.kind].side,
            lines=tuple(moved),
        )
        for key, moved in lines.items()
    ]


def _line(transfer: RecordedTransfer, *, is_debit: bool) -> AccountLine:
    effect = "posted"
    if transfer.kind is TransferKind.PENDING:
        effect = "held"
    elif transfer.kind in _ENDS_HOLD:
        effect = "released"
    return AccountLine(
        seq=transfer.seq,
        code=transfer.code,
        debit=transfer.amount if is_debit else None,
        credit=None if is_debit else transfer.amount,
        balance=transfer.debit_after if is_debit else transfer.credit_after,
        effect=effect,
        at=transfer.at,
    )


async def account_names(
    db: Db, transfers: Sequence[RecordedTransfer], merchant: Merchant
) -> dict[UUID, str]:
    """Return what people call the owners of the accounts that transfers touched."""
    owners = {key.owner for each in transfers for key in (each.debit, each.credit) if key.owner}
    names = {owner: show("wal", owner) for owner in owners}
    names[merchant.id] = merchant.name
    if owners - {merchant.id}:
        for row in await list_accounts(db):
            names[row.id] = row.merchant_number
    return names


async def show_ledger(visit: Visit) -> Reply:
    """Return every book's balances by kind of account."""
    return await visit.page("ledger.html", await _facts(visit))


async def verify_ledger(visit: Visit) -> Reply:
    """Re-derive every figure of every book and show what was found.

    Raises:
        VerifyRunning
    """
    desk = visit.desk
    if desk.verifying.locked():
        raise VerifyRunning
    async with desk.verifying:
        report = await verify(desk.db)
    async with desk.db.begin(visit.operator.actor) as tx:
        facts = {"sound": report.is_sound, "broken": len(report.broken)}
        await audit.record(tx, "ledger.verified", "ledger", facts)
    return await visit.page("ledger.html", await _facts(visit) | {"report": report})


async def _facts(visit: Visit) -> dict[str, object]:
    db = visit.desk.db
    language = visit.request.language
    return {
        "books": [BookBalance(head, await sums(db, head.book)) for head in await books(db)],
        "titles": {kind: account_title(kind, language) for kind in CHART},
        "checks": CHECKS,
        "report": None,
    }


# The general ledger


async def show_days(visit: Visit) -> Reply:
    """Return a book's accounting days, and the requests to close or reopen them.

    Raises:
        PlaceMalformed, BookMissing
    """
    db, book = visit.desk.db, _book(visit)
    facts = {
        "book": book,
        "covered": await coverage(db, book),
        "days": await general.days(db, book),
        "requests": _asked(visit, await general.day_requests(db, book)),
        "today": business_date(db.clock.now()),
        "done": visit.request.query.get("done"),
    }
    return await visit.page("days.html", facts)


async def show_accounting_day(visit: Visit) -> Reply:
    """Return a day's trial balance and vouchers, and what closing it waits for.

    Raises:
        PlaceMalformed, BookMissing
    """
    db, book, day = visit.desk.db, _book(visit), _day(visit)
    balance = await general.trial_balance(db, book, day)
    after = int(text) if (text := visit.request.query.get("after", "0")).isdecimal() else 0
    vouchers = await general.vouchers(db, book, day, after_batch=after, limit=_VOUCHERS + 1)
    shown = vouchers[:_VOUCHERS]
    own = _days_address(book, day)
    facts = {
        "book": book,
        "day": day,
        "balance": balance,
        "vouchers": shown,
        "later": f"{own}?after={shown[-1].last_batch}" if len(vouchers) > len(shown) else None,
        "findings": [] if balance.is_closed else await closing_findings(db, book, day),
        "own": own,
    }
    return await visit.page("accounting_day.html", facts)


async def show_voucher(visit: Visit) -> Reply:
    """Return one voucher line by line.

    Raises:
        PlaceMalformed, VoucherNotFound
    """
    book, day, batch = _book(visit), _day(visit), visit.params["batch"]
    if not batch.isdecimal():
        raise PlaceMalformed
    found, lines = await general.voucher(visit.desk.db, book, day, int(batch))
    facts = {"book": book, "day": day, "voucher": found, "lines": lines, "accounts": GL_ACCOUNTS}
    return await visit.page("voucher.html", facts | {"own": _days_address(book, day)})


async def export_trial_balance(visit: Visit) -> Reply:
    """Return a day's trial balance as a file.

    Raises:
        PlaceMalformed, BookMissing
    """
    book, day = _book(visit), _day(visit)
    balance = await general.trial_balance(visit.desk.db, book, day)
    return await _exported(visit, "trial-balance", general.trial_balance_csv(balance))


async def export_vouchers(visit: Visit) -> Reply:
    """Return the lines of a day's vouchers as a file.

    Raises:
        PlaceMalformed
    """
    lines = await general.voucher_lines(visit.desk.db, _book(visit), _day(visit))
    return await _exported(visit, "vouchers", general.vouchers_csv(lines))


async def ask_day_action(visit: Visit) -> Reply:
    """Ask to close a day or to open it again.

    Raises:
        PlaceMalformed, BookMissing, ReasonMissing, DayInTheFuture, DayNotOpen, DayNotClosed,
        DayNotReady, DayRequestWaiting
    """
    form, book = visit.request.form, _book(visit)
    action = next((each for each in DayAction if each.value == form.get("what")), None)
    if action is None:
        raise PlaceMalformed(param="what")
    await request_day(
        visit.desk.db,
        book,
        action,
        _date(form.get("day", "")),
        reason=" ".join(form.get("reason", "").split()),
        actor=visit.operator.actor,
    )
    return redirect(f"{_days_address(book)}?done=day_asked")


async def approve_day_request(visit: Visit) -> Reply:
    """Do what a colleague asked for.

    Raises:
        SamePerson, DayRequestNotFound, DayRequestDecided, DayNotReady
    """
    return await _decided(visit, approve_day, "day_approved")


async def reject_day_request(visit: Visit) -> Reply:
    """Refuse what a colleague asked for.

    Raises:
        SamePerson, DayRequestNotFound, DayRequestDecided
    """
    return await _decided(visit, reject_day, "day_rejected")


async def withdraw_day_request(visit: Visit) -> Reply:
    """Take one's own request back.

    Raises:
        DayRequestNotFound, DayRequestDecided
    """
    return await _decided(visit, withdraw_day, "day_withdrawn")


async def _decided(
    visit: Visit, decide: Callable[..., Awaitable[GlDayRequest]], done: str
) -> Reply:
    book = _book(visit)
    request_id = parse(REQUEST_PREFIX, visit.params["request_id"])
    await decide(visit.desk.db, book, request_id, actor=visit.operator.actor)
    return redirect(f"{_days_address(book)}?done={done}")


async def _exported(visit: Visit, what: str, content: str) -> Reply:
    book, day = _book(visit), _day(visit)
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        facts = {"what": what, "day": day.isoformat()}
        await audit.record(tx, "general_ledger.exported", f"book {book}", facts)
    return file_reply(content.encode(), CSV, name=f"{what}-{book}-{day.isoformat()}.csv")


def _asked(visit: Visit, requests: Sequence[GlDayRequest]) -> list[Asked]:
    me = visit.operator.actor
    return [Asked(each, show(REQUEST_PREFIX, each.id), each.maker == me) for each in requests]


def _book(visit: Visit) -> int:
    text = visit.params["book"]
    if not text.isdecimal() or not 0 < int(text) <= BOOK_MAX:
        raise PlaceMalformed
    return int(text)


def _day(visit: Visit) -> date:
    return _date(visit.params["day"])


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise PlaceMalformed(param="day") from None


def _days_address(book: int, day: date | None = None) -> str:
    own = f"{PREFIX}/ledger/{book}/days"
    return own if day is None else f"{own}/{day.isoformat()}"
