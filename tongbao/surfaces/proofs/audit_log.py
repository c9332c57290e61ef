"""Commands of the audit log: what happened to a thing, and the proofs that nothing was changed."""

from __future__ import annotations

from uuid import UUID

import click
import msgspec

from tongbao.controls.audit_log.checkpoints import (
    list_checkpoints,
    prove_entry,
    prove_growth,
    sign_checkpoint,
    verify_log,
)
from tongbao.infra.audit import entries_of_subject
from tongbao.infra.audit_tree import place_entries
from tongbao.ledger.proofs.model import Proofs
from tongbao.surfaces.cli.context import Context, Platform


@click.group()
def audit() -> None:
    """The audit log: who did what, and the proofs that it is whole."""


@audit.command("of")
@click.argument("subject")
@click.pass_obj
def audit_of(context: Context, subject: str) -> None:
    """Print every act on a SUBJECT, such as mch_… or operator:amy, oldest first."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        return [
            {
                "entry": str(entry.id),
                "at": entry.at.isoformat(),
                "actor": entry.actor,
                "origin": entry.origin,
                "action": entry.action,
                "facts": msgspec.json.encode(entry.facts).decode(),
            }
            for entry in await entries_of_subject(platform.db, subject)
        ]

    context.show(context.run(work))


@audit.command("checkpoints")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 100), help="Most.")
@click.pass_obj
def audit_checkpoints(context: Context, limit: int) -> None:
    """Sign what the log is now, and list its checkpoints, newest first."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        await place_entries(platform.db)
        await sign_checkpoint(Proofs(platform.db, platform.keyring))
        page = await list_checkpoints(platform.db, limit=limit)
        return [
            {
                "number": each.number,
                "entries": each.size,
                "root": each.root.hex(),
                "at": each.at.isoformat(),
            }
            for each in page.items
        ]

    context.show(context.run(work))


@audit.command("prove")
@click.argument("entry", type=click.UUID)
@click.pass_obj
def audit_prove(context: Context, entry: UUID) -> None:
    """Print the proof that an ENTRY stands in the log.

    Check it with the program of `tongbao ledger prove --verifier` and a key of `ledger keys`.
    """

    async def work(platform: Platform) -> str:
        return msgspec.json.encode(await prove_entry(platform.db, entry)).decode()

    click.echo(context.run(work))


@audit.command("consistency")
@click.argument("old", type=int)
@click.argument("new", type=int)
@click.pass_obj
def audit_consistency(context: Context, old: int, new: int) -> None:
    """Print the proof that between checkpoints OLD and NEW the log was only added to."""

    async def work(platform: Platform) -> str:
        return msgspec.json.encode(await prove_growth(platform.db, old, new)).decode()

    click.echo(context.run(work))


@audit.command("verify")
@click.pass_obj
def audit_verify(context: Context) -> None:
    """Derive the whole log anew; exit 1 and name the first breach if anything was changed."""

    async def work(platform: Platform) -> dict[str, object]:
        await place_entries(platform.db)
        report = await verify_log(platform.db)
        return {
            "entries": report.entries,
            "breaches": report.breaches,
            "first": report.first,
            "root": report.root.hex(),
        }

    found = context.run(work)
    context.show(found)
    if found["breaches"]:
        raise SystemExit(1)
