"""`tongbao bins`: load an acquirer's table of card numbers' beginnings, and look into it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from tongbao.parties.card_bins.bins import issuer_name, load_bins, rows_beginning
from tongbao.parties.card_bins.model import PREFIX_MAX, brand_of
from tongbao.surfaces.cli.context import Context, Platform, Text, actor

_FILE: Final = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group()
def bins() -> None:
    """What card numbers begin with: kind, issuer and brand."""


@bins.command("load")
@click.argument("file", type=_FILE)
@click.option("--source", required=True, type=Text(120), help="Whose table, of which day.")
@click.pass_obj
def bins_load(context: Context, file: Path, source: str) -> None:
    """Take a CSV with bin, bank, type and length in; its rows win over those that ship."""
    content = file.read_bytes()

    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            loaded = await load_bins(tx, content, source)
        return {"rows": loaded.rows, "new": loaded.new, "changed": loaded.changed}

    context.show(context.run(work))


@bins.command("show")
@click.argument("digits")
@click.pass_obj
def bins_show(context: Context, digits: str) -> None:
    """Show the rows for the first digits of cards; never give a whole number here."""
    if not (digits.isascii() and digits.isdigit() and len(digits) <= PREFIX_MAX):
        raise click.BadParameter(f"1 to {PREFIX_MAX} digits", param_hint="DIGITS")

    async def work(platform: Platform) -> list[dict[str, object]]:
        return [
            {
                "bin": row.prefix,
                "length": row.length,
                "kind": row.kind.price_kind.value,
                "type": row.kind.value,
                "issuer": row.issuer,
                "name": issuer_name(row.issuer),
                "brand": brand_of(row.prefix),
                "source": row.source,
            }
            for row in await rows_beginning(platform.db, digits)
        ]

    context.show(context.run(work))


COMMANDS: Final = [bins]
