"""`tongbao retention`: what is kept for how long, changed by two people; and one payment's, now."""

from __future__ import annotations

from datetime import date, datetime

import click
import msgspec

from tongbao.controls.dated_rows.rows import propose_row
from tongbao.controls.retention.model import RetentionTerm
from tongbao.controls.retention.terms import TERMS
from tongbao.surfaces.cli.context import Context, Platform, Text, actor
from tongbao.surfaces.retention.asked import EraseTerms, propose_erasure
from tongbao.surfaces.retention.kinds import held


@click.group()
def retention() -> None:
    """How long raw evidence is kept, and that it is erased."""


@retention.command("list")
@click.pass_obj
def retention_list(context: Context, /) -> None:
    """Show what is kept, for how long, by what rule, and how much was erased so far."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        rows = await held(platform.db, platform.flow.licence)
        return [msgspec.to_builtins(each) for each in rows]

    context.show(context.run(work))


@retention.command("set")
@click.option("--kind", type=Text(64), required=True, help="The kind, as listed.")
@click.option(
    "--from",
    "starts",
    type=click.DateTime(formats=["%Y-%m-%d"]),
    required=True,
    help="The first day the term counts.",
)
@click.option("--days", type=int, required=True, help="How many days it is kept.")
@click.option("--because", type=Text(300), required=True, help="The rule and its article.")
@click.option("--reason", required=True, help="Why, for those who read it later.")
@click.pass_obj
def retention_set(
    context: Context, /, starts: datetime, days: int, reason: str, **said: str
) -> None:
    """Propose a term from a day on; it counts once somebody else has approved it."""

    async def work(platform: Platform) -> dict[str, object]:
        asked = RetentionTerm(
            said["kind"], date(starts.year, starts.month, starts.day), days, said["because"]
        )
        async with platform.db.begin(actor()) as tx:
            made = await propose_row(tx, TERMS, asked, reason=reason)
        return {"approval": made.shown_id, "act": made.act, "state": made.state.value}

    context.show(context.run(work))


@retention.command("erase")
@click.argument("payment")
@click.option("--because", type=Text(200), required=True, help="Who asked for it, without names.")
@click.option("--reason", required=True, help="Why, for those who read it later.")
@click.pass_obj
def retention_erase(context: Context, /, payment: str, because: str, reason: str) -> None:
    """Propose to erase what channels were asked and told about a payment, as when its payer asks.

    The payment, its postings and the digests of what was erased stay. While money is on its way,
    or a dispute or complaint is open, nothing is erased.
    """

    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            made = await propose_erasure(tx, EraseTerms(payment, because), reason=reason)
        return {"approval": made.shown_id, "act": made.act, "state": made.state.value}

    context.show(context.run(work))


COMMANDS = (retention,)
