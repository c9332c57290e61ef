"""`tongbao reserve`: prove days, work proofs out again, and propose what people must say."""

from __future__ import annotations

import asyncio
from datetime import date, datetime
from pathlib import Path
from typing import Final

import click

from tongbao.clearing.reserve import custody, proving, queries
from tongbao.clearing.reserve.custody import (
    BALANCE,
    CLOSE,
    OPEN,
    BalanceTerms,
    CloseTerms,
)
from tongbao.clearing.reserve.model import (
    ACCOUNT,
    GAP,
    PROOF,
    ProofState,
    Purpose,
    ReserveProof,
    Source,
)
from tongbao.clearing.reserve.papers import read_closing
from tongbao.clearing.reserve.proving import Reserve
from tongbao.controls.approvals.approvals import propose
from tongbao.kernel.errors import Rejected
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money, exponent_of, from_decimal_text
from tongbao.ledger.proofs.model import Proofs
from tongbao.surfaces.cli.context import Context, Platform, Text, actor

_DAY: Final = click.DateTime(formats=["%Y-%m-%d"])
_MODE: Final = click.option(
    "--mode",
    type=click.Choice([mode.value for mode in Mode]),
    default="live",
    show_default=True,
    help="Real money or test.",
)
_REASON: Final = click.option("--reason", required=True, help="Why, for those who read it later.")


class NoReserveHere(Rejected):
    """Customers' money is not held under this deployment's licence, so there is no reserve."""

    code = "reserve.not_licensed"
    advice = "Nothing to do in aggregator mode."
    advice_zh = "聚合模式不持有客户资金，无需备付金管理。"


@click.group()
def reserve() -> None:
    """The reserve (备付金): that customers' money is covered at banks, day by day."""


@reserve.command("prove")
@click.option("--day", required=True, type=_DAY, help="A business day that is over.")
@_MODE
@click.pass_obj
def reserve_prove(context: Context, day: datetime, mode: str) -> None:
    """Prove a day in every currency; exit 1 when one is not covered, to the fen."""

    async def work(platform: Platform) -> list[ReserveProof]:
        _check(platform)
        with_what = Reserve(platform.db, Proofs(platform.db, platform.keyring))
        return await proving.prove_day(with_what, Mode(mode), day.date(), actor=actor())

    proofs = context.run(work)
    context.show([_line(each) for each in proofs])
    if any(each.state is not ProofState.COVERED for each in proofs):
        raise SystemExit(1)


@reserve.command("verify")
@click.argument("proof")
@click.option("--from-journal", is_flag=True, help="Derive the books' vouchers from it as well.")
@click.pass_obj
def reserve_verify(context: Context, proof: str, *, from_journal: bool) -> None:
    """Work a proof out again from books and papers; exit 1 where it does not hold."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        _check(platform)
        found = await queries.proof_with_id(platform.db, parse(PROOF, proof))
        findings = await queries.verify_proof(platform.db, found, from_journal=from_journal)
        return [{"where": each.where, "what": each.what} for each in findings]

    findings = context.run(work)
    context.show(findings or [{"proof": proof, "holds": True}])
    if findings:
        raise SystemExit(1)


@reserve.command("gaps")
@click.pass_obj
def reserve_gaps(context: Context) -> None:
    """List the gaps that nobody has explained."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        _check(platform)
        return [
            {
                "gap": show(GAP, each.id),
                "mode": each.mode.value,
                "day": each.day.isoformat(),
                "kind": each.kind,
                "amount": Money(each.amount, each.currency).decimal_text(),
                "currency": each.currency,
            }
            for each in await queries.open_gaps(platform.db)
        ]

    context.show(context.run(work))


@reserve.command("accounts")
@click.pass_obj
def reserve_accounts(context: Context) -> None:
    """List the accounts at banks that count, and those that did."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        _check(platform)
        return [
            {
                "account": show(ACCOUNT, each.id),
                "mode": each.mode.value,
                "purpose": each.purpose.value,
                "bank": each.bank,
                "number": each.account_masked,
                "currency": each.currency,
                "opened_on": each.opened_on.isoformat(),
                "closed_on": each.closed_on.isoformat() if each.closed_on else "",
            }
            for each in await custody.custody_accounts(platform.db)
        ]

    context.show(context.run(work))


@reserve.command("open")
@_MODE
@click.option("--currency", default="CNY", show_default=True, help="The account's currency.")
@click.option(
    "--purpose",
    type=click.Choice([each.value for each in Purpose]),
    default="customers",
    show_default=True,
    help="Whose money it is for.",
)
@click.option("--bank", required=True, type=Text(128), help="The bank's name.")
@click.option("--number", required=True, type=Text(34), help="The whole account number.")
@click.option("--since", required=True, type=_DAY, help="The first day that it counts.")
@_REASON
@click.pass_obj
def reserve_open(
    context: Context, /, mode: str, currency: str, purpose: str, *, reason: str, **what: object
) -> None:
    """Propose that an account at a bank counts; a second person approves."""
    since = _date(what["since"])

    async def work(platform: Platform) -> dict[str, object]:
        _check(platform)
        exponent_of(currency)
        bank = str(what["bank"])
        terms = custody.open_terms(
            platform.keyring,
            str(what["number"]),
            mode=Mode(mode),
            currency=currency,
            purpose=Purpose(purpose),
            bank=bank,
            opened_on=since,
        )
        subject = f"{mode}/{currency}/{bank}/{terms.account_tail}"[:128]
        async with platform.db.begin(actor()) as tx:
            approval = await propose(tx, OPEN, subject, terms, reason=reason)
        return {"approval": approval.shown_id}

    context.show(context.run(work))


@reserve.command("close")
@click.argument("account")
@click.argument("day", type=_DAY)
@_REASON
@click.pass_obj
def reserve_close(context: Context, account: str, day: datetime, reason: str) -> None:
    """Propose that an account counts no more from a day on; a second person approves."""

    async def work(platform: Platform) -> dict[str, object]:
        _check(platform)
        await custody.custody_account(platform.db, parse(ACCOUNT, account))
        terms = CloseTerms(account, day.date())
        async with platform.db.begin(actor()) as tx:
            approval = await propose(tx, CLOSE, account, terms, reason=reason)
        return {"approval": approval.shown_id}

    context.show(context.run(work))


@reserve.command("balance")
@click.argument("account")
@click.argument("day", type=_DAY)
@click.argument("amount")
@click.option("--reference", required=True, type=Text(100), help="Where it was read.")
@_REASON
@click.pass_obj
def reserve_balance(
    context: Context, /, account: str, day: datetime, amount: str, *, reference: str, reason: str
) -> None:
    """Propose what an account closed a day with, in major units; a second person approves."""

    async def work(platform: Platform) -> dict[str, object]:
        _check(platform)
        found = await custody.custody_account(platform.db, parse(ACCOUNT, account))
        figure = from_decimal_text(amount, found.currency).amount
        terms = BalanceTerms(account, day.date(), figure, reference)
        async with platform.db.begin(actor()) as tx:
            subject = f"{account}/{terms.day}"
            approval = await propose(tx, BALANCE, subject, terms, reason=reason)
        return {"approval": approval.shown_id}

    context.show(context.run(work))


@reserve.command("statement")
@click.argument("account")
@click.argument("day", type=_DAY)
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--kind",
    type=click.Choice([Source.CAMT_053.value, Source.MT940.value]),
    default=Source.CAMT_053.value,
    show_default=True,
    help="What kind of file it is.",
)
@_REASON
@click.pass_obj
def reserve_statement(
    context: Context, /, account: str, day: datetime, file: Path, *, kind: str, reason: str
) -> None:
    """Read a bank's statement and propose what it closes with; a second person approves."""

    async def work(platform: Platform) -> dict[str, object]:
        _check(platform)
        found = await custody.custody_account(platform.db, parse(ACCOUNT, account))
        figure, digest = await asyncio.to_thread(read_closing, file, Source(kind), found.currency)
        said = (file.name[:100], Source(kind), digest.hex())
        terms = BalanceTerms(account, day.date(), figure, *said)
        async with platform.db.begin(actor()) as tx:
            subject = f"{account}/{terms.day}"
            approval = await propose(tx, BALANCE, subject, terms, reason=reason)
        amount = Money(figure, found.currency).decimal_text()
        return {"approval": approval.shown_id, "closing": amount, "sha256": digest.hex()}

    context.show(context.run(work))


COMMANDS: Final = (reserve,)


def _check(platform: Platform) -> None:
    if not platform.settings.licence.may_hold_funds:
        raise NoReserveHere


def _date(given: object) -> date:
    if not isinstance(given, datetime):
        raise TypeError("a day")
    return given.date()


def _line(proof: ReserveProof) -> dict[str, object]:
    def money(figure: int) -> str:
        return Money(figure, proof.currency).decimal_text()

    return {
        "proof": show(PROOF, proof.id),
        "day": proof.day.isoformat(),
        "currency": proof.currency,
        "state": proof.state.value,
        "owed": money(proof.owed),
        "required": money(proof.required),
        "custody": money(proof.custody),
        "shortfall": money(proof.shortfall),
        "difference": money(proof.difference),
    }
