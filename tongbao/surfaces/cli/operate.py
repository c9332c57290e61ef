"""Commands of whoever runs the machine: settings, migrate, doctor, ledger, tasks."""

from __future__ import annotations

from collections.abc import Sequence

import click

from tongbao.infra.migrate import deployment
from tongbao.infra.tasks import dead_letters, discard, replay
from tongbao.infra.telemetry import ready
from tongbao.kernel.errors import Refusal
from tongbao.kernel.ids import parse, show
from tongbao.ledger.verify import verify
from tongbao.rails.channels.accounts import list_accounts
from tongbao.surfaces.cli.context import Context, Platform, Text, actor


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
def settings(context: Context) -> None:
    """Show every setting in force, secrets as stars."""
    masked = context.settings().masked()
    context.show(masked if context.as_json else [{name: value} for name, value in masked.items()])


@click.command()
@click.pass_obj
def doctor(context: Context) -> None:
    """Check settings, database, keys, tasks, channels and books; exit 1 when one is not right."""
    read = context.settings()
    findings = [("settings", "")]
    try:
        findings += context.run(_examine, read)
    except click.ClickException as failure:
        findings.append(("start", failure.message))
    if context.as_json:
        context.show([{"part": part, "trouble": trouble} for part, trouble in findings])
    else:
        for part, trouble in findings:
            click.echo(f"{part:<9} {trouble or 'ok'}")
    if any(trouble for _, trouble in findings):
        raise SystemExit(1)


async def _examine(platform: Platform) -> Sequence[tuple[str, str]]:
    state = await ready(platform.db)
    report = await verify(platform.db)
    letters = await dead_letters(platform.db, limit=100)
    return [
        ("database", "" if state["ready"] else f"not ready: {state}"),
        ("tasks", f"{len(letters.items)} dead letters" if letters.items else ""),
        ("channels", await _channels_verdict(platform)),
        ("ledger", ", ".join(f"{check.name}: {check.first}" for check in report.broken)),
    ]


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


@click.group()
def tasks() -> None:
    """Work that waits for a worker."""


@tasks.command("dead")
@click.option("--type", "type_", help="Only tasks of this name, as payments.chase_attempt.")
@click.option("--limit", default=20, show_default=True, help="How many of the newest.")
@click.pass_obj
def tasks_dead(context: Context, type_: str | None, limit: int) -> None:
    """List tasks that failed too often and will not be tried again by themselves."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        page = await dead_letters(platform.db, type_=type_, limit=limit)
        return [
            {
                "task": show("tsk", letter.id),
                "type": letter.type,
                "args": letter.args,
                "attempts": letter.attempts,
                "died_at": letter.died_at.isoformat(),
                "reason": letter.reason.strip().rpartition("\n")[2],
            }
            for letter in page.items
        ]

    context.show(context.run(work))


@tasks.command("replay")
@click.argument("task")
@click.pass_obj
def tasks_replay(context: Context, task: str) -> None:
    """Try a dead task again, at once and with a clean count of failures."""

    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            await replay(tx, parse("tsk", task))
        return {"task": task, "state": "waiting"}

    context.show(context.run(work))


@tasks.command("discard")
@click.argument("task")
@click.option("--because", required=True, type=Text(200), help="Why; the audit log keeps it.")
@click.pass_obj
def tasks_discard(context: Context, task: str, because: str) -> None:
    """Give a dead task up for good; the audit log keeps what it was."""

    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            await discard(tx, parse("tsk", task), because=because)
        return {"task": task, "state": "discarded"}

    context.show(context.run(work))
