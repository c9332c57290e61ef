"""Commands of statements: add a source by its layout, preview a file, take it in, match."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import click

from tongbao.clearing.matching.runs import DayResult, run_rule
from tongbao.clearing.recon_rules.rules import Asked, propose_layout, propose_rule, rule_on
from tongbao.clearing.recon_rules.running import bring_in
from tongbao.clearing.reconciliation.model import BillFile
from tongbao.clearing.slices.model import Standing
from tongbao.clearing.slices.slices import close_by_slices, compare_slices, take_piece
from tongbao.clearing.sources.ingest import files, source_named, sources
from tongbao.clearing.sources.layouts import built_in, decode_layout, load_layout
from tongbao.clearing.sources.model import Layout, LayoutWrong, SourceFile
from tongbao.clearing.sources.reading import preview
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.surfaces.cli.context import Context, Platform, actor

_DAY = click.DateTime(formats=["%Y-%m-%d"])
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FROM = click.option("--from", "begins", type=_DAY, help="The first day; without it, today.")
_REASON = click.option("--reason", required=True, help="Why, for those who read it later.")


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
@_FROM
@_REASON
@click.pass_obj
def add(
    context: Context, name: str, layout: str, mode: str, *, begins: datetime | None, reason: str
) -> None:
    """Propose a source, or another layout of one from a day on; a second person approves."""
    found, text = _layout(layout), "" if layout in built_in() else _text(Path(layout))

    async def work(platform: Platform) -> dict[str, object]:
        asked = Asked(text, _day_of(platform, begins), reason)
        async with platform.db.begin(actor()) as tx:
            approval = await propose_layout(tx, name, asked, layout=found, mode=Mode(mode))
        return {"source": name, "mode": mode, "layout": found.name, "approval": approval.shown_id}

    context.show(context.run(work))


@sources_group.command("rule")
@click.argument("file", type=_FILE)
@_FROM
@_REASON
@click.pass_obj
def add_rule(context: Context, file: Path, *, begins: datetime | None, reason: str) -> None:
    """Propose a rule of matching from a day on; a second person approves."""
    text = _text(file)

    async def work(platform: Platform) -> dict[str, object]:
        asked = Asked(text, _day_of(platform, begins), reason)
        async with platform.db.begin(actor()) as tx:
            approval = await propose_rule(tx, asked)
        return {"rule": approval.subject, "approval": approval.shown_id}

    context.show(context.run(work))


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
        return await bring_in(platform.clearing, source, day.date(), file, actor=actor())

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
@click.argument("rule")
@click.option("--day", required=True, type=_DAY, help="The business day, as 2026-11-21.")
@click.pass_obj
def match_day(context: Context, rule: str, day: datetime) -> None:
    """Match a day's statements by a rule that counts on it; exit 1 when something differs."""

    async def work(platform: Platform) -> list[DayResult]:
        wanted = await rule_on(platform.db, rule, day.date())
        return await run_rule(platform.db, wanted, day.date(), actor=actor())

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


def _day_of(platform: Platform, begins: datetime | None) -> date:
    return begins.date() if begins else business_date(platform.db.clock.now())


def _text(file: Path) -> str:
    """Return what a file says.

    Raises:
        LayoutWrong
    """
    try:
        return file.read_bytes().decode()
    except UnicodeDecodeError:
        raise LayoutWrong(problem="it is not UTF-8") from None


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
