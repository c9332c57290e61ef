"""Commands of proofs: receipts, consistency, checkpoints, and the keys that sign them."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import click
import msgspec
from msgspec import Struct

from tongbao.kernel.ids import UnknownId, from_base32
from tongbao.ledger.proofs import verifier
from tongbao.ledger.proofs.checkpoints import (
    audit_whole,
    checkpoint_note,
    day_root,
    list_checkpoints,
    prove_consistency,
    prove_now,
)
from tongbao.ledger.proofs.entries import text_of
from tongbao.ledger.proofs.model import KeyKind, LedgerCheckpoint, Proofs, TreeBroken
from tongbao.ledger.proofs.receipts import find_receipt, verifier_source
from tongbao.ledger.proofs.signers import OVERLAP, published, rotate
from tongbao.surfaces.cli.context import Context, Platform, actor

_ALGORITHMS = click.Choice([KeyKind.ED25519.value, KeyKind.SM2.value])


@click.command("prove")
@click.argument("thing", required=False)
@click.option("--consistency", type=int, nargs=2, help="Two checkpoints, the older first.")
@click.option("--book", default=1, show_default=True, help="Whose checkpoints they are.")
@click.option("--verifier", "wants_verifier", is_flag=True, help="Print the program that checks.")
@click.pass_obj
def ledger_prove(
    context: Context,
    thing: str | None,
    consistency: tuple[int, int] | None,
    book: int,
    *,
    wants_verifier: bool,
) -> None:
    """Print the receipt of a THING: a transfer, or what it was posted for, such as pay_….

    All its sides are open, so it is not for everybody's eyes. With --consistency print the proof
    that a book was only added to between two checkpoints. Check either with the program that
    --verifier prints and a key of `tongbao ledger keys`.
    """
    if [thing is not None, bool(consistency), wants_verifier].count(True) != 1:
        raise click.UsageError("name one thing to prove, or --consistency, or --verifier")
    if wants_verifier:
        click.echo(verifier_source(), nl=False)
        return

    async def work(platform: Platform) -> str:
        proofs = Proofs(platform.db, platform.keyring)
        proof: Struct
        if consistency:
            proof = await prove_consistency(proofs, book, *consistency)
        else:
            proof = await find_receipt(proofs, _id_of(thing or ""))
        text = msgspec.json.encode(proof).decode()
        keys = [key.key for key in await published(platform.db) if key.ends_at is None]
        verifier.check(text, keys[:1])  # what we could not check ourselves is not given away
        return text

    click.echo(context.run(work))


def _id_of(text: str) -> UUID:
    """Return the id behind a public form with any prefix, or behind the usual hexadecimal one.

    Raises:
        UnknownId
    """
    if "_" in text:
        return from_base32(text.rpartition("_")[2])
    try:
        return UUID(text)
    except ValueError:
        raise UnknownId from None


@click.command("checkpoint")
@click.option("--now", is_flag=True, help="Bring the trees up to date and sign at once.")
@click.option("--audit", is_flag=True, help="Derive whole trees anew; exit 1 at a breach.")
@click.option("--note", type=int, help="Print this checkpoint as it was signed.")
@click.option(
    "--day", type=click.DateTime(["%Y-%m-%d"]), help="Print the root over all books of a day."
)
@click.option("--nightly", is_flag=True, help="List only those that close a business day.")
@click.option("--book", type=int, help="Only this book; book 1 for a list or a note.")
@click.option("--limit", default=20, show_default=True, help="How many of the newest.")
@click.pass_obj
def ledger_checkpoint(
    context: Context,
    *,
    now: bool,
    audit: bool,
    note: int | None,
    day: datetime | None,
    nightly: bool,
    book: int | None,
    limit: int,
) -> None:
    """List what was signed about a book, newest first, or sign what it is now."""

    async def work(platform: Platform) -> str | list[dict[str, object]]:
        proofs = Proofs(platform.db, platform.keyring)
        if day is not None:
            return (await day_root(platform.db, day.date())).note
        if note is not None:
            return await checkpoint_note(platform.db, book or 1, note)
        if audit:
            tours = await audit_whole(proofs, book)
            return [
                {"book": tour.book, "blocks": tour.blocks, "leaves": tour.leaves} for tour in tours
            ]
        if now:
            return [_facts(point) for point in await prove_now(proofs, book)]
        listed = await list_checkpoints(platform.db, book or 1, nightly=nightly, limit=limit)
        return [_facts(point) for point in listed]

    try:
        found = context.run(work)
    except TreeBroken as breach:
        raise click.ClickException(f"book {breach.book} was stopped: {breach}") from None
    if isinstance(found, str):
        click.echo(found, nl=False)
    else:
        context.show(found)


def _facts(point: LedgerCheckpoint) -> dict[str, object]:
    return {
        "book": point.book,
        "checkpoint": point.number,
        "transfers": point.size,
        "batch": point.batch,
        "root": text_of(point.root),
        "day": point.day.isoformat() if point.day is not None else "",
        "at": point.at.isoformat(),
    }


@click.command("keys")
@click.option("--rotate", "kind", type=_ALGORITHMS, help="Replace the current key of this kind.")
@click.option(
    "--overlap-days",
    default=OVERLAP.days,
    show_default=True,
    type=click.IntRange(1, 3650),
    help="How long the replaced key goes on signing beside the new one.",
)
@click.pass_obj
def ledger_keys(context: Context, kind: str | None, overlap_days: int) -> None:
    """Show the keys that checkpoints are signed with, as a verifier takes them."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        if kind is not None:
            proofs = Proofs(platform.db, platform.keyring)
            overlap = timedelta(days=overlap_days)
            await rotate(proofs, KeyKind(kind), actor=actor(), overlap=overlap)
        return [
            {
                "algorithm": key.algorithm.value,
                "since": key.starts_at.isoformat(),
                "until": key.ends_at.isoformat() if key.ends_at is not None else "",
                "key": key.key,
            }
            for key in await published(platform.db)
        ]

    context.show(context.run(work))


COMMANDS = (ledger_prove, ledger_checkpoint, ledger_keys)
"""They go below `tongbao ledger`."""
