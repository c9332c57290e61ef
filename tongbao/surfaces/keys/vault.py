"""`tongbao vault`: look for card data where it does not belong, and who may read the vault."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from tongbao.infra.card_watch import scan
from tongbao.surfaces.cli.context import Context, Platform

ROLE: Final = "tongbao_vault"
GRANTS: Final = (
    f"create role {ROLE} nologin",
    f"grant usage on schema vault to {ROLE}",
    f"grant select, insert, update on all tables in schema vault to {ROLE}",
    f"grant select, insert on sealing_key to {ROLE}",
    f"grant insert on audit_entry, event, task to {ROLE}",
)
"""All that keeping and using cards needs: no other table, and nothing is ever deleted."""
_FILE: Final = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group()
def vault() -> None:
    """Where card data lies that should not, and who may read the vault."""


@vault.command("scan")
@click.option("--file", "files", multiple=True, type=_FILE, help="A log or an export; repeatable.")
@click.pass_context
def vault_scan(click_context: click.Context, files: Sequence[Path]) -> None:
    """Look for card numbers and tracks in every table, and in files.

    Ends with 1 when there are any, and shows the first six and the last four digits of each.
    """
    context: Context = click_context.obj

    async def work(platform: Platform) -> list[dict[str, object]]:
        found = scan(platform.db, files=files, schemas=("public", "vault"))
        return [
            {"where": each.where, "row": each.row, "kind": each.kind, "shown": each.shown}
            async for each in found
        ]

    rows = context.run(work)
    context.show(rows or {"found": 0})
    if rows:
        click_context.exit(1)


@vault.command("grants")
def vault_grants() -> None:
    """Print the SQL that makes a database role for the vault alone, for a superuser to run."""
    for statement in GRANTS:
        click.echo(f"{statement};")
