"""Commands of the operator: migrate, doctor, the ledger, operators, merchants."""

from __future__ import annotations

from collections.abc import Sequence

import click

from tongbao.infra.migrate import deployment
from tongbao.infra.tasks import dead_letters
from tongbao.infra.telemetry import ready
from tongbao.kernel.errors import Refusal
from tongbao.kernel.ids import show
from tongbao.ledger.verify import verify
from tongbao.parties.identity.operators import create_first_operator
from tongbao.rails.channels.accounts import list_accounts
from tongbao.surfaces.cli.context import Context, Platform


@click.command()
@click.pass_obj
def migrate(context: Context) -> None:
    """Bring the database's schema up to this version; every start does so too."""

    async def work(platform: Platform) -> dict[str, object]:
        found = await deployment(platform.db)
        return {"licence": found.licence, "since": found.created_at.isoformat()}

    context.show(context.run(work))


@click.command()
@click.pass_obj
def doctor(context: Context) -> None:
    """Check settings, database, keys, queues and books; exit 1 when something is wrong."""
    settings = context.settings()
    click.echo(f"settings  {len(settings.masked())} read, licence {settings.licence}")
    findings = context.run(_examine, settings)
    for name, verdict in findings:
        click.echo(f"{name:<9} {verdict or 'ok'}")
    if any(verdict for _, verdict in findings):
        raise SystemExit(1)


async def _examine(platform: Platform) -> Sequence[tuple[str, str]]:
    state = await ready(platform.db)
    report = await verify(platform.db)
    letters = await dead_letters(platform.db, limit=100)
    return [
        ("database", "" if state["ready"] else f"not ready: {state}"),
        ("keys", _key_file_verdict(platform)),
        ("tasks", f"{len(letters.items)} dead letters" if letters.items else ""),
        ("channels", await _channels_verdict(platform)),
        ("ledger", "" if report.is_sound else f"{len(report.broken)} invariants are broken"),
    ]


def _key_file_verdict(platform: Platform) -> str:
    readable_by_others = platform.settings.kek_file.stat().st_mode & 0o077
    return "the key file is readable by others" if readable_by_others else ""


async def _channels_verdict(platform: Platform) -> str:
    for row in await list_accounts(platform.db):
        try:
            await platform.flow.account(row.id)
        except Refusal as refusal:
            return f"account {show('chn', row.id)} cannot be opened: {refusal.code}"
    return ""


@click.group()
def ledger() -> None:
    """Look into the books."""


@ledger.command("verify")
@click.option("--book", "books", multiple=True, type=int, help="Only this book.")
@click.pass_obj
def ledger_verify(context: Context, books: Sequence[int]) -> None:
    """Re-derive every figure from the journal; exit 1 and name the first breach if one differs."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        report = await verify(platform.db, books=list(books) or None)
        return [
            {
                "book": check.book,
                "check": check.name,
                "looked_at": check.looked_at,
                "breaches": check.breaches,
                "first": str(check.first or ""),
            }
            for check in report.checks
        ]

    checks = context.run(work)
    context.show(checks)
    if any(check["breaches"] for check in checks):
        raise SystemExit(1)


@click.group()
def operator() -> None:
    """People who work at the console."""


@operator.command("create-first")
@click.option("--login", prompt=True)
@click.option("--name", prompt=True)
@click.option("--password", prompt=True, hide_input=True, confirmation_prompt=True)
@click.pass_obj
def operator_create_first(context: Context, login: str, name: str, password: str) -> None:
    """Create the first operator, an administrator; the second factor is shown this once."""

    async def work(platform: Platform) -> str:
        async with platform.db.begin("cli") as tx:
            enrolment = await create_first_operator(
                tx, platform.keyring, login=login, name=name, password=password
            )
        return enrolment.totp_uri.reveal()

    click.echo("Add this to an authenticator app; it is not shown again:")
    click.echo(context.run(work))
