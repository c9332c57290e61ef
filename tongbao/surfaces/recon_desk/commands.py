"""Commands of statements: add a source by its layout, preview a file, take it in, match."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from tongbao.clearing.matching.model import load_rule
from tongbao.clearing.matching.runs import DayResult, run_rule
from tongbao.clearing.recon_rules.running import bring_in
from tongbao.clearing.reconciliation.model import BillFile
from tongbao.clearing.slices.model import Standing
from tongbao.clearing.slices.slices import close_by_slices, compare_slices, take_piece
from tongbao.clearing.sources.ingest import add_source, files, source_named, sources
from tongbao.clearing.sources.layouts import built_in, decode_layout, load_layout
from tongbao.clearing.sources.model import Layout, SourceFile
from tongbao.clearing.sources.reading import preview
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.surfaces.cli.context import Context, Platform

_DAY = click.DateTime(formats=["%Y-%m-%d"])
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_ACTOR = "cli"


@click.group("sources")
def sources_group() -> None:
    """Statements of banks and partners: layouts as data, files, matching."""


@sources_group.command("list")
@click.pass_obj
def list_sources(context: Context) -> None:
    """Show every source, and the layouts that come with the program."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        found: list[dict[str, object]] = [
            {"source": each.name, "mode": each.mode, "layout": decode_layout(each.layout).name}
            for each in await sources(platform.db)
        ]
        return found + [{"source": "", "mode": "", "layout": name} for name in sorted(built_in())]

    context.show(context.run(work))


@sources_group.command("add")
@click.argument("name")
@click.option("--layout", required=True, help="A built-in layout's name, or a TOML file.")
@click.option(
    "--mode",
    type=click.Choice([mode.value for mode in Mode]),
    default="live",
    show_default=True,
    help="Real money or test.",
)
@click.pass_obj
def add(context: Context, name: str, layout: str, mode: str) -> None:
    """Add a source; its layout is checked first and stays as it is."""
    found = _layout(layout)

    async def work(platform: Platform) -> None:
        async with platform.db.begin(_ACTOR) as tx:
            await add_source(tx, name, found, Mode(mode))

    context.run(work)
    context.show([{"source": name, "mode": mode, "layout": found.name}])


@sources_group.command("preview")
@click.argument("file", type=_FILE)
@click.option("--layout", required=True, help="A built-in layout's name, or a TOML file.")
@click.pass_obj
def show_preview(context: Context, file: Path, layout: str) -> None:
    """Show how a layout reads a file, and keep nothing; exit 1 when the file would be refused."""
    seen = preview(_layout(layout), file)
    context.show(
        [
            {
                "line": row.line,
                "kind": row.kind,
                "number": row.number,
                "ref": row.ref,
                "amount": row.amount,
                "fee": row.fee,
                "currency": row.currency,
                "at": row.at.isoformat(),
                "state": row.state,
            }
            for row in seen.rows
        ]
    )
    context.show([{"line": one.line, "fault": one.code, "text": one.text} for one in seen.faults])
    context.show(
        [
            {
                "rows": seen.tally.rows,
                "faults": seen.tally.faults,
                "in": seen.tally.money_in,
                "out": seen.tally.money_out,
                "fees": seen.tally.fees,
                "refused": seen.is_refused,
            }
        ]
    )
    if seen.is_refused:
        raise SystemExit(1)


@sources_group.command("take")
@click.argument("file", type=_FILE)
@click.option("--source", required=True, help="The source's name.")
@click.option("--day", required=True, type=_DAY, help="The business day, as 2026-11-21.")
@click.pass_obj
def take(context: Context, file: Path, source: str, day: datetime) -> None:
    """Take a source's file of a day in; the same command again reads a broken-off one on."""

    async def work(platform: Platform) -> SourceFile:
        return await bring_in(platform.clearing, source, day.date(), file, actor=_ACTOR)

    context.show([_file_facts(context.run(work))])


@sources_group.command("files")
@click.option("--source", help="Of this source only.")
@click.pass_obj
def list_files(context: Context, source: str | None) -> None:
    """Show the newest files and what became of them."""

    async def work(platform: Platform) -> list[SourceFile]:
        if source is not None:
            await source_named(platform.db, source)
        return await files(platform.db, source=source, limit=50)

    context.show([_file_facts(each) for each in context.run(work)])


@sources_group.command("match")
@click.argument("rule", type=_FILE)
@click.option("--day", required=True, type=_DAY, help="The business day, as 2026-11-21.")
@click.pass_obj
def match_day(context: Context, rule: Path, day: datetime) -> None:
    """Match two statements of a day by a rule; exit 1 when something differs."""
    wanted = load_rule(rule.read_bytes())

    async def work(platform: Platform) -> list[DayResult]:
        return await run_rule(platform.db, wanted, day.date(), actor=_ACTOR)

    results = context.run(work)
    context.show(
        [
            {
                "day": each.bill.day.isoformat(),
                "rows": each.bill.row_count,
                "matched": each.bill.matched_count,
                "waiting": each.bill.waiting_count,
                "differences": each.bill.break_count,
            }
            for each in results
        ]
    )
    if any(each.bill.break_count for each in results):
        raise SystemExit(1)


@sources_group.command("piece")
@click.argument("file", type=_FILE)
@click.option("--account", required=True, help="Our account at the channel: chn_…")
@click.option("--day", required=True, type=_DAY, help="The business day, as 2026-11-21.")
@click.option("--layout", help="The piece's own layout: a built-in one's name, or a TOML file.")
@click.option("--last", is_flag=True, help="It is the day's last; for bills that have no total.")
@click.pass_obj
def piece(
    context: Context, file: Path, account: str, day: datetime, layout: str | None, *, last: bool
) -> None:
    """Take a piece of a day's bill into its slices, compare them, and show which differ."""
    account_id = parse("chn", account)
    own = None if layout is None else _layout(layout)

    async def work(platform: Platform) -> Standing:
        await take_piece(platform.clearing, account_id, day.date(), file, layout=own, is_last=last)
        return await compare_slices(platform.clearing, account_id, day.date())

    found = context.run(work)
    context.show([{"slices": found.counted, "differing": found.differing}])


@sources_group.command("close-slices")
@click.option("--account", required=True, help="Our account at the channel: chn_…")
@click.option("--day", required=True, type=_DAY, help="The business day, as 2026-11-21.")
@click.pass_obj
def close_slices(context: Context, account: str, day: datetime) -> None:
    """Close a day whose bill came in pieces; exit 1 when something differs."""
    account_id = parse("chn", account)

    async def work(platform: Platform) -> BillFile:
        return await close_by_slices(platform.clearing, account_id, day.date())

    bill = context.run(work)
    context.show([{"matched": bill.matched_count, "differences": bill.break_count}])
    if bill.break_count:
        raise SystemExit(1)


def _layout(wanted: str) -> Layout:
    known = built_in().get(wanted)
    return known if known is not None else load_layout(Path(wanted).read_bytes())


def _file_facts(file: SourceFile) -> dict[str, object]:
    return {
        "file": show("sfl", file.id),
        "source": file.source,
        "day": file.day.isoformat(),
        "version": file.version,
        "state": file.state,
        "code": file.code,
        "rows": file.row_count,
        "unreadable": file.fault_count,
        "in": file.money_in,
        "out": file.money_out,
    }
