"""`tongbao invariants`: run the invariants of the house and name what breaks them."""

from __future__ import annotations

import click

from tongbao.surfaces.cli.context import Context, Platform
from tongbao.surfaces.invariants.running import INVARIANTS, NAMES, chosen, run_invariants


@click.command()
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="One; again for more.")
@click.option("--quick", is_flag=True, help="Only those that are run every five minutes.")
@click.pass_obj
def invariants(context: Context, only: tuple[str, ...], *, quick: bool) -> None:
    """Run the invariants and name the first thing that breaks each; exit 1 when one is broken."""
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


COMMANDS = (invariants,)
