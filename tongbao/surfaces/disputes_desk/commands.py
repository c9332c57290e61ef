"""`tongbao disputes`: take schemes' files of chargebacks, and keep the dated terms."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Final

import click

from tongbao.clearing.disputes.deadlines import add_term
from tongbao.clearing.disputes.model import AtEnd, DisputeState, Term, TermQuality
from tongbao.clearing.disputes.queries import terms
from tongbao.clearing.scheme_files.model import PREFIX
from tongbao.clearing.scheme_files.taking import files, rows_of, take_scheme_file
from tongbao.clearing.sources.layouts import built_in, load_layout
from tongbao.kernel.ids import parse, show
from tongbao.surfaces.cli.context import Context, Platform, Text, actor

_FILE: Final = click.Path(path_type=Path, exists=True, dir_okay=False)
_SHOWN_MAX: Final = 200


@click.group()
def disputes() -> None:
    """Chargebacks: schemes' files, and how long each stage may take."""


@disputes.command("take")
@click.argument("file", type=_FILE)
@click.option("--layout", required=True, help="A built-in layout's name, or a TOML file.")
@click.option("--scheme", default="unionpay", show_default=True, type=Text(32), help="Whose file.")
@click.option("--account", required=True, help="Our account that took the payments: chn_….")
@click.pass_obj
def disputes_take(context: Context, file: Path, layout: str, scheme: str, account: str) -> None:
    """Take a file of chargebacks in: all of it read first, each row once, as often as you like."""
    how = built_in().get(layout) or load_layout(Path(layout).read_bytes())

    async def work(platform: Platform) -> list[dict[str, object]]:
        taken = await take_scheme_file(
            platform.flow,
            how,
            file,
            scheme=scheme,
            account_id=parse("chn", account),
            actor=actor(),
        )
        return [
            {
                "file": show(PREFIX, taken.id),
                "line": row.line,
                "case": row.scheme_ref,
                "outcome": row.outcome,
                "dispute": "" if row.dispute_id is None else show("dsp", row.dispute_id),
            }
            for row in (await rows_of(platform.db, taken.id))[:_SHOWN_MAX]
        ]

    context.show(context.run(work))


@disputes.command("files")
@click.pass_obj
def disputes_files(context: Context) -> None:
    """Show the files taken last."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        return [
            {
                "file": show(PREFIX, each.id),
                "scheme": each.scheme,
                "name": each.name,
                "rows": each.row_count,
                "taken": each.ended_at is not None,
                "at": each.began_at.isoformat(),
            }
            for each in await files(platform.db)
        ]

    context.show(context.run(work))


@disputes.command("terms")
@click.pass_obj
def disputes_terms(context: Context) -> None:
    """Show how long each stage may take, since when, and how good the word for it is."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        return [
            {
                "scheme": each.scheme,
                "stage": each.stage.value,
                "from": each.in_force.isoformat(),
                "days": each.days,
                "at_end": each.at_end.value,
                "quality": each.quality,
                "source": each.source,
            }
            for each in await terms(platform.db)
        ]

    context.show(context.run(work))


@disputes.command("add-term")
@click.argument("scheme", type=Text(32))
@click.argument("stage", type=click.Choice([each.value for each in DisputeState if each.is_open]))
@click.option("--days", required=True, type=click.IntRange(1, 400), help="Calendar days.")
@click.option(
    "--from",
    "first",
    required=True,
    type=click.DateTime(formats=["%Y-%m-%d"]),
    help="The first day that it holds for.",
)
@click.option(
    "--at-end",
    required=True,
    type=click.Choice([each.value for each in AtEnd]),
    help="What comes of a dispute that nobody has answered by then.",
)
@click.option("--source", required=True, type=Text(200), help="Where it is written.")
@click.option(
    "--quality",
    type=click.Choice([each.value for each in TermQuality]),
    default=TermQuality.CONTRACT.value,
    show_default=True,
    help="How good that word is.",
)
@click.pass_obj
def disputes_add_term(
    context: Context,
    scheme: str,
    stage: str,
    *,
    days: int,
    first: datetime,
    at_end: str,
    source: str,
    quality: str,
) -> None:
    """Write down what a contract says of a stage, for stages that begin on a day or after."""
    term = Term(
        scheme,
        DisputeState(stage),
        first.date(),
        days,
        AtEnd(at_end),
        source,
        TermQuality(quality),
    )

    async def work(platform: Platform) -> None:
        async with platform.db.begin(actor()) as tx:
            await add_term(tx, term)

    context.run(work)


COMMANDS: Final = (disputes,)
