"""Commands of settlement: draw batches, write and prove statements, take banks' answers."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from pathlib import Path

import click

from tongbao.clearing.context import Progress
from tongbao.clearing.payouts.files import take_answer
from tongbao.clearing.settlement.queries import settlement_with_id, sums_of_batch
from tongbao.clearing.settlement_batches.batches import draw_batch, open_batch, release_batch
from tongbao.clearing.settlement_batches.model import PREFIX, BatchState, SettlementBatch
from tongbao.clearing.settlement_batches.queries import list_batches
from tongbao.clearing.statements.model import StatementFormat
from tongbao.clearing.statements.papers import statement_paper
from tongbao.clearing.statements.queries import prove_statements, statement_of
from tongbao.clearing.transfers.paying import hear_from_bank
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.surfaces.cli.context import Context, Platform, actor
from tongbao.surfaces.settlement_desk.term_commands import terms

_DAY = click.DateTime(formats=["%Y-%m-%d"])
_MODE = click.Choice([mode.value for mode in Mode])
_STATE = click.Choice([state.value for state in BatchState])
_LAYOUT = click.Choice([each.value for each in StatementFormat])
_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.option("--day", required=True, type=_DAY, help="The business day, as 2026-11-21.")
@click.pass_obj
def settle(context: Context, day: datetime) -> None:
    """Settle a day for every merchant that is due; live money waits for two people's release."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        found = []
        for mode in Mode:
            async with platform.db.begin(actor()) as tx:
                batch = await open_batch(tx, mode, day=day.date())
            batch = await draw_batch(platform.clearing, batch.id, on_progress=_tell(context))
            batch = await release_batch(platform.clearing, batch.id, on_progress=_tell(context))
            found += await _facts(platform, batch)
        return found

    context.show(context.run(work))


@click.group()
def settlement() -> None:
    """Settlement batches, statements and their proof."""


settlement.add_command(terms)


@settlement.command("batches")
@click.option("--mode", type=_MODE, help="Only live or only sandbox.")
@click.option("--state", type=_STATE, help="Only batches that are so far.")
@click.pass_obj
def show_batches(context: Context, mode: str | None, state: str | None) -> None:
    """Show the newest batches and how far they are."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        page = await list_batches(
            platform.db,
            mode=Mode(mode) if mode else None,
            state=BatchState(state) if state else None,
            limit=20,
        )
        return [row for batch in page.items for row in await _facts(platform, batch)]

    context.show(context.run(work))


@settlement.command("statement")
@click.argument("settlement_id")
@click.option("--layout", type=_LAYOUT, default="csv", help="Which kind of file.")
@click.option("--to", "folder", type=_FOLDER, default=".", help="The folder it is written to.")
@click.pass_obj
def write_statement(context: Context, settlement_id: str, layout: str, folder: Path) -> None:
    """Write a settlement's statement into a folder."""

    async def work(platform: Platform) -> dict[str, object]:
        found = await settlement_with_id(platform.db, parse("set", settlement_id))
        statement = await statement_of(platform.db, found)
        paper = statement_paper(statement, StatementFormat(layout))
        folder.joinpath(paper.name).write_bytes(paper.content)
        return {"file": str(folder / paper.name), "sha256": paper.sha256}

    context.show(context.run(work))


@settlement.command("verify")
@click.option("--merchant", help="Only this one: mch_…")
@click.option("--mode", type=_MODE, help="Only live or only sandbox.")
@click.pass_obj
def verify(context: Context, merchant: str | None, mode: str | None) -> None:
    """Prove every statement by the ledger, to the fen; exit 1 when one does not tie."""

    async def work(platform: Platform) -> tuple[int, list[dict[str, object]]]:
        looked_at = 0
        wrong: list[dict[str, object]] = []
        proving = prove_statements(
            platform.db,
            merchant_id=parse("mch", merchant) if merchant else None,
            mode=Mode(mode) if mode else None,
        )
        async for each in proving:
            looked_at += 1
            number = show("set", each.settlement.id)
            wrong += [{"settlement": number, "fault": fault} for fault in each.faults]
        return looked_at, wrong

    looked_at, wrong = context.run(work)
    context.show({"settlements": looked_at, "faults": len(wrong)})
    context.show(wrong)
    if wrong:
        raise SystemExit(1)


async def _facts(platform: Platform, batch: SettlementBatch) -> list[dict[str, object]]:
    own: dict[str, object] = {
        "batch": show(PREFIX, batch.id),
        "mode": batch.mode,
        "day": batch.day.isoformat() if batch.day else "newest",
        "state": batch.state,
        "merchants": batch.looked_at,
    }
    sums = await sums_of_batch(platform.db, batch.id)
    return [
        {
            **own,
            "currency": each.currency,
            "settlements": each.count,
            "closed": each.closed,
            "due": each.due,
            "payable": each.payable,
            "reserved": each.reserved,
        }
        for each in sums
    ] or [own]


def _tell(context: Context) -> Progress:
    """Tell people on stderr how far a long command is; machines read stdout."""

    def tell(step: str, done: int) -> None:
        if not context.as_json:
            click.echo(f"  {step}: {done}", err=True)

    return tell


@click.group()
def payouts() -> None:
    """Payouts by file."""


@payouts.command("answer")
@click.option("--account", required=True, help="Our account at the bank: chn_…")
@click.argument("path", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.pass_obj
def take_bank_answer(context: Context, account: str, path: Path) -> None:
    """Take what a bank says of payouts: pain.002, camt.053, camt.054 or the CSV; once."""
    content = path.read_bytes()

    async def work(platform: Platform) -> dict[str, object]:
        account_id = parse("chn", account)
        found = await take_answer(
            platform.clearing,
            account_id,
            content,
            actor=actor(),
            elsewhere=partial(hear_from_bank, platform.clearing, account_id),
        )
        return {"lines": found.lines, "applied": found.applied, "was_known": found.was_known}

    context.show(context.run(work))
