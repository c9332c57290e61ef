"""Commands of whoever audits the books: verify, resume, explain, replay, balances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import click

from tongbao.kernel.clock import monotonic
from tongbao.kernel.money import Money
from tongbao.ledger.audit.prove import Rebuilt, books_of, rebuild
from tongbao.ledger.general.proving import check_general_ledger
from tongbao.ledger.history.explain import Explanation, explain, in_words, summary
from tongbao.ledger.model import AccountKey
from tongbao.ledger.movements.queries import transit_pairs
from tongbao.ledger.queries import Balance, balances_of_owner, sums
from tongbao.ledger.rules.chart import CHART
from tongbao.ledger.verify import Progress, Report, resume_book, verify
from tongbao.surfaces.cli.books import Account
from tongbao.surfaces.cli.context import Context, Platform, Text, actor

_TELL_EVERY_S = 2.0
_book = click.option("--book", default=1, show_default=True, type=int, help="Which book.")
_language = click.option(
    "--language",
    default="en",
    show_default=True,
    type=click.Choice(["en", "zh"]),
    help="The language of sentences.",
)


@click.command("verify")
@click.option("--book", "books", multiple=True, type=int, help="Only this book.")
@click.option(
    "--no-stop", is_flag=True, help="Only tell: leave a book with a breach open for postings."
)
@click.option(
    "--parallel",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="How many books to prove at a time.",
)
@click.pass_obj
def ledger_verify(context: Context, books: Sequence[int], no_stop: bool, parallel: int) -> None:
    """Re-derive every figure from the journal; exit 1 and name the first breach if one differs.

    A book with a breach is stopped: nothing is posted to it until `tongbao ledger resume`. The
    general ledger, and what is between the books, are checked as well; they stop no book.
    """

    async def work(platform: Platform) -> list[dict[str, object]]:
        report = await verify(
            platform.db,
            books=list(books) or None,
            stop=not no_stop,
            actor=actor(),
            parallel=parallel,
            progress=_progress(),
        )
        return [
            {
                "book": check.book,
                "check": check.name,
                "looked_at": check.looked_at,
                "breaches": check.breaches,
                "first": "" if check.first is None else _facts_of(check.first),
            }
            for check in report.checks
        ] + await _derived_checks(platform, report)

    checks = context.run(work)
    context.show(checks)
    if any(check["breaches"] for check in checks):
        raise SystemExit(1)


async def _derived_checks(platform: Platform, report: Report) -> list[dict[str, object]]:
    """Return whether general ledger and transit say what the journals do, where these are sound."""
    sound = {check.book for check in report.checks} - {check.book for check in report.broken}
    checks = [
        _check(book, "general_ledger", [f"{each.where}: {each.what}" for each in breaches])
        for book in sorted(sound)
        for breaches in [await check_general_ledger(platform.db, book)]
    ]
    if sound < set(await books_of(platform.db)):  # what is between books takes all of them
        return checks
    pairs = await transit_pairs(platform.db)
    for book in sorted({pair.book for pair in pairs}):
        broken = [
            f"to book {pair.to_book}, {pair.currency}: {pair.breach}"
            for pair in pairs
            if pair.book == book and pair.breach
        ]
        checks.append(_check(book, "transit", broken))
    return checks


def _check(book: int, name: str, breaches: Sequence[str]) -> dict[str, object]:
    return {
        "book": book,
        "check": name,
        "looked_at": 1,
        "breaches": len(breaches),
        "first": next(iter(breaches), ""),
    }


@click.command("resume")
@_book
@click.option("--because", required=True, type=Text(500), help="Why; the audit log keeps it.")
@click.option(
    "--despite-breach", is_flag=True, help="Spare the proof: somebody looked, and answers for it."
)
@click.pass_obj
def ledger_resume(context: Context, book: int, because: str, despite_breach: bool) -> None:
    """Let a stopped book be posted to again, once verifying it finds nothing."""

    async def work(platform: Platform) -> dict[str, object]:
        await resume_book(
            platform.db, book, actor=actor(), because=because, despite_breach=despite_breach
        )
        return {"book": book, "state": "open"}

    context.show(context.run(work))


@click.command("explain")
@click.argument("account", type=Account())
@_book
@click.option("--at", "seq", type=click.IntRange(0), help="After this transfer; else as it is now.")
@click.option(
    "--lines",
    default=10,
    show_default=True,
    type=click.IntRange(0, 1000),
    help="How many of the newest movements.",
)
@_language
@click.pass_obj
def ledger_explain(
    context: Context,
    account: AccountKey,
    *,
    book: int,
    seq: int | None,
    lines: int,
    language: Literal["en", "zh"],
) -> None:
    """Derive an account's counters at a number of its book, and tell what made them so."""

    async def work(platform: Platform) -> Explanation:
        return await explain(platform.db, book, account, at=seq, lines=lines)

    told = context.run(work)
    if context.as_json:
        context.show(_explanation_facts(told))
    else:
        click.echo(summary(told, language))
        for line in told.lines:
            click.echo(in_words(line, language))
    if not told.agrees:
        raise SystemExit(1)


@click.command("replay")
@_book
@click.option("--at", "seq", type=click.IntRange(0), help="Up to this transfer.")
@click.pass_obj
def ledger_replay(context: Context, book: int, seq: int | None) -> None:
    """Add all balances up from the journal alone; exit 1 when the stored ones differ.

    Shows the trial balance so rebuilt and every account that differs. Nothing is written.
    """

    async def work(platform: Platform) -> Rebuilt:
        return await rebuild(platform.db, book, seq)

    made = context.run(work)
    rows: list[dict[str, object]] = [
        {
            "kind": kind.kind,
            "currency": kind.currency,
            "accounts": kind.accounts,
            "debits": kind.debits_posted,
            "credits": kind.credits_posted,
            "balance": kind.posted,
        }
        for kind in made.kinds
    ]
    wrong = [
        {
            "account": each.account,
            "counter": each.counter,
            "stored": each.stored,
            "replayed": each.replayed,
        }
        for each in made.differences or ()
    ]
    facts = {"book": made.book, "seq": made.seq, "transfers": made.transfers}
    if context.as_json:
        compared = made.differences is not None
        context.show({**facts, "compared": compared, "kinds": rows, "differences": wrong})
    else:
        context.show([facts, *rows, *wrong])
    if wrong:
        raise SystemExit(1)


@click.command("balances")
@_book
@click.option("--account", type=Account(), help="All accounts of the owner of this one.")
@_language
@click.pass_obj
def ledger_balances(
    context: Context, book: int, account: AccountKey | None, language: Literal["en", "zh"]
) -> None:
    """Show a book's balances by kind of account, or those of one owner's accounts."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        if account is not None and account.owner is not None:
            owned = await balances_of_owner(platform.db, book, account.owner)
            return [_balance_facts(balance, language) for balance in owned]
        return [
            {
                "account": _titled(kind.kind, language),
                "accounts": kind.accounts,
                "balance": Money(kind.posted, kind.currency).decimal_text(),
                "currency": kind.currency,
            }
            for kind in await sums(platform.db, book)
        ]

    context.show(context.run(work))


COMMANDS = (ledger_verify, ledger_resume, ledger_explain, ledger_replay, ledger_balances)
"""They go below `tongbao ledger`."""


def _progress() -> Progress:
    """Tell how far proving is, on stderr, when it takes its time."""
    told_at = monotonic()

    def tell(book: int, proved: int, transfers: int) -> None:
        nonlocal told_at
        if monotonic() - told_at >= _TELL_EVERY_S:
            told_at = monotonic()
            click.echo(f"book {book}: {proved:,} of {transfers:,} transfers", err=True)

    return tell


def _facts_of(place: Any) -> str:
    """Return where something is, without what does not apply."""
    named = ((name, getattr(place, name)) for name in place.__struct_fields__ if name != "what")
    where = " ".join(f"{name} {value}" for name, value in named if value is not None)
    return f"{place.what} ({where})" if where else str(place.what)


def _explanation_facts(told: Explanation) -> Mapping[str, object]:
    counters = told.counters
    return {
        "account": told.number,
        "kind": told.account.kind,
        "owner": told.account.owner,
        "currency": told.account.currency,
        "seq": told.seq,
        "debits_pending": counters.debits_pending,
        "debits_posted": counters.debits_posted,
        "credits_pending": counters.credits_pending,
        "credits_posted": counters.credits_posted,
        "balance": told.posted,
        "held": told.held,
        "incoming": told.incoming,
        "noted": told.noted,
        "derived_from": told.derived_from,
        "lines": [
            {
                "seq": line.seq,
                "transfer": line.id,
                "kind": line.kind.name.lower(),
                "code": line.code,
                "reference": line.reference,
                "other": line.other.kind,
                "other_owner": line.other.owner,
                "change": line.change,
                "held": line.held,
                "balance_after": line.balance_after,
                "at": line.at.isoformat(),
            }
            for line in told.lines
        ],
    }


def _balance_facts(balance: Balance, language: Literal["en", "zh"]) -> dict[str, object]:
    currency = balance.account.currency
    figures = {
        name: Money(amount, currency).decimal_text()
        for name, amount in (
            ("balance", balance.posted),
            ("held", balance.held),
            ("incoming", balance.incoming),
            ("available", balance.available),
        )
    }
    title = _titled(balance.account.kind, language)
    return {"account": title, "state": balance.state.value, **figures, "currency": currency}


def _titled(kind: str, language: Literal["en", "zh"]) -> str:
    line = CHART.get(kind)
    if line is None:
        return kind
    return line.zh if language == "zh" else line.en
