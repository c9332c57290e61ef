"""Commands of the back office: reconcile a day, look at differences."""

from __future__ import annotations

from datetime import datetime

import click

from tongbao.clearing.batches.batches import close_batch, latest_batches
from tongbao.clearing.batches.model import Batch, BatchState
from tongbao.clearing.context import Progress
from tongbao.clearing.reconciliation.days import reconcile_everyone
from tongbao.clearing.reconciliation.model import BillFile
from tongbao.clearing.reconciliation.queries import BreakFilter, list_breaks
from tongbao.kernel.ids import parse, show
from tongbao.surfaces.cli.context import Context, Platform

_DAY = click.DateTime(formats=["%Y-%m-%d"])


@click.command()
@click.option("--day", required=True, type=_DAY, help="The business day, as 2026-11-21.")
@click.option("--again", is_flag=True, help="Fetch the bills anew, even if they are there.")
@click.pass_obj
def reconcile(context: Context, day: datetime, *, again: bool) -> None:
    """Compare a day with every channel's bill; exit 1 when there are open differences."""

    async def work(platform: Platform) -> tuple[list[BillFile], list[dict[str, object]]]:
        bills = await reconcile_everyone(
            platform.clearing, day.date(), again=again, on_progress=_progress(context)
        )
        page = await list_breaks(platform.db, BreakFilter(day=day.date()), limit=100)
        return bills, [
            {
                "break": show("brk", found.id),
                "channel": found.channel,
                "class": found.break_class,
                "kind": found.kind,
                "number": found.number,
                "difference": found.difference,
                "state": found.state,
            }
            for found in page.items
        ]

    bills, breaks = context.run(work)
    context.show([_bill_facts(bill) for bill in bills])
    context.show(breaks)
    if any(bill.break_count for bill in bills) or not all(bill.state.is_final for bill in bills):
        raise SystemExit(1)


def _bill_facts(bill: BillFile) -> dict[str, object]:
    return {
        "channel": bill.channel,
        "mode": bill.mode,
        "day": bill.day.isoformat(),
        "state": bill.state,
        "rows": bill.row_count,
        "unreadable": bill.fault_count,
        "matched": bill.matched_count,
        "waiting": bill.waiting_count,
        "differences": bill.break_count,
    }


@click.command()
@click.option("--close", "account", help="Close this account's batch now: chn_…")
@click.pass_obj
def batches(context: Context, *, account: str | None) -> None:
    """Show the batches of channels without bills; exit 1 when one to be closed does not agree."""

    async def work(platform: Platform) -> list[Batch]:
        if account is not None:
            return [await close_batch(platform.clearing, parse("chn", account))]
        return await latest_batches(platform.db)

    found = context.run(work)
    context.show([_batch_facts(each) for each in found])
    if account is not None and any(each.state is not BatchState.AGREES for each in found):
        raise SystemExit(1)


def _batch_facts(batch: Batch) -> dict[str, object]:
    return {
        "account": show("chn", batch.account_id),
        "channel": batch.channel,
        "mode": batch.mode,
        "batch": batch.number,
        "until": batch.ends.isoformat(timespec="seconds"),
        "state": batch.state,
        "debits": f"{batch.debit_count}: {batch.debit_amount}",
        "credits": f"{batch.credit_count}: {batch.credit_amount}",
        "their_net": batch.their_net,
        "tries": batch.tries,
        "last_answer": batch.last_answer,
    }


def _progress(context: Context) -> Progress:
    """Tell people on stderr how far a long command is; machines read stdout."""

    def tell(step: str, done: int) -> None:
        if not context.as_json:
            click.echo(f"  {step}: {done}", err=True)

    return tell
