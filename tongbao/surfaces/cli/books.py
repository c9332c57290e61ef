"""Commands of the books: the general ledger and its days, books, and money between them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import date, datetime
from typing import Any
from uuid import UUID

import click

from tongbao.infra.db import Db
from tongbao.kernel.ids import UnknownId, parse, show
from tongbao.ledger.general import queries as general
from tongbao.ledger.general.days import (
    REQUEST_PREFIX,
    approve_day,
    closing_findings,
    reject_day,
    request_day,
    withdraw_day,
)
from tongbao.ledger.general.model import DayAction, GlDayRequest
from tongbao.ledger.general.proving import check_general_ledger
from tongbao.ledger.general.vouchers import build_vouchers, coverage
from tongbao.ledger.model import AccountKey
from tongbao.ledger.movements.queries import transit_pairs
from tongbao.ledger.movements.relocation import move_account
from tongbao.ledger.movements.splits import list_splits, rebalance, set_split, split_balance
from tongbao.ledger.queries import books
from tongbao.ledger.rules.chart import CHART, book_owner
from tongbao.surfaces.cli.context import Context, Platform, actor
from tongbao.surfaces.cli.operate import ledger

_DAY = click.DateTime(formats=["%Y-%m-%d"])
_book = click.option("--book", default=1, show_default=True, type=int, help="Which book.")
_day = click.option("--day", required=True, type=_DAY, help="The accounting day, as 2026-11-21.")
_csv = click.option("--csv", "as_csv", is_flag=True, help="Print CSV, in major units.")


class Account(click.ParamType[AccountKey]):
    """An account as KIND:OWNER:CURRENCY; the owner as mch_…, wal_…, a UUID or a book's number."""

    name = "account"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> AccountKey:
        """Return the account."""
        parts = str(value).split(":")
        if len(parts) != 3 or parts[0] not in CHART:
            self.fail("KIND:OWNER:CURRENCY, please, such as wallet:wal_…:CNY", param, ctx)
        kind, owner, currency = parts
        return AccountKey(kind, currency, self._owner(owner, param, ctx) if owner else None)

    def _owner(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> UUID:
        if text.isdecimal():
            return book_owner(int(text))
        try:
            return parse(text.partition("_")[0], text) if "_" in text else UUID(text)
        except (UnknownId, ValueError):
            self.fail(f"{text} is no owner", param, ctx)


@click.group()
def gl() -> None:
    """The general ledger: vouchers, trial balances, accounting days."""


@gl.command("build")
@_book
@click.pass_obj
def gl_build(context: Context, book: int) -> None:
    """Sum up what was committed since the last vouchers; a running worker does so by itself."""

    async def work(platform: Platform) -> dict[str, object]:
        made = await build_vouchers(platform.db, book)
        covered = await coverage(platform.db, book)
        return {"book": book, "ranges": made, "covered_batch": covered.covered_batch}

    context.show(context.run(work))


@gl.command("trial-balance")
@_book
@_day
@_csv
@click.pass_obj
def gl_trial_balance(context: Context, book: int, day: datetime, *, as_csv: bool) -> None:
    """Print a book's accounts on a day; exit 1 when debits are not credits."""

    async def work(platform: Platform) -> Any:
        return await general.trial_balance(platform.db, book, day.date())

    balance = context.run(work)
    if as_csv:
        click.echo(general.trial_balance_csv(balance), nl=False)
    else:
        context.show(
            [
                {
                    "account": line.account,
                    "name": line.en,
                    "name_zh": line.zh,
                    "currency": line.currency,
                    "opening": line.opening,
                    "debits": line.debits,
                    "credits": line.credits,
                    "closing": line.closing,
                }
                for line in balance.lines
            ]
        )
    if not balance.is_balanced:
        raise SystemExit(1)


@gl.command("vouchers")
@_book
@_day
@_csv
@click.pass_obj
def gl_vouchers(context: Context, book: int, day: datetime, *, as_csv: bool) -> None:
    """Print the lines of a day's vouchers, with the last batch each voucher was made from."""

    async def work(platform: Platform) -> Any:
        return await general.voucher_lines(platform.db, book, day.date())

    lines = context.run(work)
    if as_csv:
        click.echo(general.vouchers_csv(lines), nl=False)
        return
    context.show(
        [
            {
                "last_batch": line.last_batch,
                "posting": line.code,
                "account": line.account,
                "currency": line.currency,
                "debits": line.debits,
                "credits": line.credits,
                "transfers": line.transfers,
            }
            for line in lines
        ]
    )


@gl.command("check")
@_book
@click.pass_obj
def gl_check(context: Context, book: int) -> None:
    """Derive every voucher from the journal again; exit 1 and say where one differs."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        found = await check_general_ledger(platform.db, book)
        return [{"check": each.check, "where": each.where, "what": each.what} for each in found]

    breaches = context.run(work)
    context.show(breaches)
    if breaches:
        raise SystemExit(1)


@gl.command("ready")
@_book
@_day
@click.pass_obj
def gl_ready(context: Context, book: int, day: datetime) -> None:
    """Show what must be finished before a day may be closed; exit 1 when something is not."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        found = await closing_findings(platform.db, book, day.date())
        return [
            {"part": each.name, "ready": each.is_ready, "what": each.en, "what_zh": each.zh}
            for each in found
        ]

    findings = context.run(work)
    context.show(findings)
    if not all(each["ready"] for each in findings):
        raise SystemExit(1)


def _asking(action: DayAction, what: str) -> click.Command:
    @click.command(action.value, help=what)
    @_book
    @_day
    @click.option("--reason", required=True, help="Why; kept with the request.")
    @click.pass_obj
    def ask(context: Context, book: int, day: datetime, reason: str) -> None:
        async def work(platform: Platform) -> dict[str, object]:
            return _request_facts(
                await request_day(
                    platform.db, book, action, day.date(), reason=reason, actor=actor()
                )
            )

        context.show(context.run(work))

    return ask


gl.add_command(_asking(DayAction.CLOSE, "Ask to close a book through a day; a colleague approves."))
gl.add_command(_asking(DayAction.REOPEN, "Ask to open a day and all after it again."))

Decide = Callable[..., Awaitable[GlDayRequest]]


def _deciding(name: str, decide: Decide, what: str) -> click.Command:
    @click.command(name, help=what)
    @_book
    @click.argument("request")
    @click.pass_obj
    def answer(context: Context, book: int, request: str) -> None:
        async def work(platform: Platform) -> dict[str, object]:
            request_id = parse(REQUEST_PREFIX, request)
            return _request_facts(await decide(platform.db, book, request_id, actor=actor()))

        context.show(context.run(work))

    return answer


gl.add_command(_deciding("approve", approve_day, "Do what a colleague asked for."))
gl.add_command(_deciding("reject", reject_day, "Refuse what a colleague asked for."))
gl.add_command(_deciding("withdraw", withdraw_day, "Take one's own request back."))


@gl.command("requests")
@_book
@click.pass_obj
def gl_requests(context: Context, book: int) -> None:
    """List the newest requests to close or reopen days."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        found = await general.day_requests(platform.db, book)
        return [_request_facts(each) for each in found]

    context.show(context.run(work))


def _request_facts(request: GlDayRequest) -> dict[str, object]:
    return {
        "request": show(REQUEST_PREFIX, request.id),
        "action": request.action.value,
        "day": request.day.isoformat(),
        "state": request.state.value,
        "maker": request.maker,
        "checker": request.checker or "",
        "last_batch": request.last_batch or "",
        "reason": request.reason,
    }


@ledger.group("book")
def ledger_book() -> None:
    """Open books and see how far each is."""


@ledger_book.command("open")
@click.argument("number", type=click.IntRange(1, (1 << 22) - 1))
@click.pass_obj
def ledger_book_open(context: Context, number: int) -> None:
    """Open a further book; one that is open stays as it is."""

    async def work(platform: Platform) -> dict[str, object]:
        await platform.ledger.open_book(number, actor=actor())
        return {"book": number, "state": "open"}

    context.show(context.run(work))


@ledger_book.command("list")
@click.pass_obj
def ledger_book_list(context: Context) -> None:
    """List the books: how far each is written, balanced and summed up, and who writes it."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        return [await _book_facts(platform.db, head) for head in await books(platform.db)]

    context.show(context.run(work))


async def _book_facts(db: Db, head: Any) -> dict[str, object]:
    covered = await coverage(db, head.book)
    state = "frozen" if head.frozen else "open"
    closed: date | None = head.closed_through
    return {
        "book": head.book,
        "seq": covered.last_seq,
        "batch": covered.last_batch,
        "balances_behind": covered.last_seq - covered.balanced_seq,
        "vouchers_behind": covered.last_seq - covered.covered_seq,
        "epoch": head.epoch,
        "holder": head.holder,
        "lease_until": head.lease_until.isoformat(),
        "closed_through": closed.isoformat() if closed else "",
        "state": head.stopped_because or state,
    }


@ledger.command("move")
@click.argument("account", type=Account())
@click.option("--book", default=1, show_default=True, type=int, help="The book it is in.")
@click.option("--to", "to_book", required=True, type=int, help="The book it goes to.")
@click.pass_obj
def ledger_move(context: Context, account: AccountKey, book: int, to_book: int) -> None:
    """Move an account with all its money to another book and close it in the old one."""

    async def work(platform: Platform) -> dict[str, object]:
        moved = await move_account(
            platform.db, platform.ledger, book, account, to_book=to_book, actor=actor()
        )
        return {"from": moved.book, "to": moved.to_book, "amount": moved.amount}

    context.show(context.run(work))


@ledger.command("transit")
@click.pass_obj
def ledger_transit(context: Context) -> None:
    """Show what is on its way between books; exit 1 when that cannot be."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        return [
            {
                "from": pair.book,
                "to": pair.to_book,
                "currency": pair.currency,
                "sent": pair.sent,
                "arrived": pair.arrived,
                "in_flight": pair.in_flight,
                "breach": pair.breach,
            }
            for pair in await transit_pairs(platform.db)
        ]

    pairs = context.run(work)
    context.show(pairs)
    if any(pair["breach"] for pair in pairs):
        raise SystemExit(1)


@ledger.command("split")
@click.argument("account", type=Account())
@click.option("--book", "in_books", multiple=True, required=True, type=int, help="A book.")
@click.option("--low", required=True, type=int, help="Fill a part that has less, minor units.")
@click.option("--target", required=True, type=int, help="Up to this, minor units.")
@click.pass_obj
def ledger_split(
    context: Context, account: AccountKey, in_books: tuple[int, ...], low: int, target: int
) -> None:
    """Keep a hot account in several books."""

    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            split = await set_split(tx, account, in_books, low=low, target=target)
        return {"books": split.books, "low": split.low, "target": split.target}

    context.show(context.run(work))


@ledger.command("rebalance")
@click.pass_obj
def ledger_rebalance(context: Context) -> None:
    """Fill up the parts of split accounts that have run low; a running worker does so by itself."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        shown: list[dict[str, object]] = []
        for split in await list_splits(platform.db):
            for shift, result in await rebalance(platform.db, platform.ledger, split):
                shown.append({"from": shift.book, "to": shift.to_book, "amount": shift.amount})
                shown[-1]["status"] = result.status
            balance = await split_balance(platform.db, split)
            shown.append(
                {
                    "account": split.kind,
                    "currency": split.currency,
                    "posted": balance.posted,
                    "available": balance.available,
                    "moving": balance.moving,
                }
            )
        return shown

    context.show(context.run(work))
