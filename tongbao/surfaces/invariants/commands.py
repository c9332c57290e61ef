"""`tongbao invariants`: run the invariants of the house and name what breaks them."""

from __future__ import annotations

from pathlib import Path

import click

from tongbao.surfaces.cli.context import Context, Platform
from tongbao.surfaces.invariants.log_scan import scan_log
from tongbao.surfaces.invariants.running import INVARIANTS, NAMES, chosen, run_invariants


@click.command()
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="One; again for more.")
@click.option("--quick", is_flag=True, help="Only those that are run every five minutes.")
@click.option(
    "--log",
    "logs",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Look through this log as well, and at no invariant but I14; again for more.",
)
@click.pass_obj
def invariants(
    context: Context, only: tuple[str, ...], *, quick: bool, logs: tuple[Path, ...]
) -> None:
    """Run the invariants and name the first thing that breaks each; exit 1 when one is broken."""
    if logs:
        _look_through(context, logs)
        return
    says = {each.name: each.en for each in INVARIANTS}

    async def work(platform: Platform) -> list[dict[str, object]]:
        licence = platform.flow.licence
        which = chosen(only, licence, quick=quick)
        return [
            {"name": each.name, "says": says[each.name], "breaches": each.breaches,
             "first": each.first, "took_ms": each.took_ms}
            for each in await run_invariants(platform.db, licence, which)
        ]  # fmt: skip

    found = context.run(work)
    if context.as_json:
        context.show(found)
    else:
        for each in found:
            verdict = "ok" if not each["breaches"] else f"{each['breaches']}: {each['first']}"
            click.echo(f"{each['name']:<4} {each['says']:<48} {verdict}")
    if any(each["breaches"] for each in found):
        raise SystemExit(1)


def _look_through(context: Context, logs: tuple[Path, ...]) -> None:
    """Show where logs hold what they must not; what it is stays there."""
    found: list[dict[str, object]] = []
    for path in logs:
        with path.open(encoding="utf-8", errors="replace") as lines:
            found += [
                {"log": str(path), "line": each.line, "what": each.what} for each in scan_log(lines)
            ]
    context.show(found)
    if found:
        raise SystemExit(1)


COMMANDS = (invariants,)
