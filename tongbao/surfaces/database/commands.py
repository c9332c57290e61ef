"""Commands of whoever keeps the database: backup, restore, upgrade, partitions, distribute."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from tongbao.infra import backup, embedded, upgrade
from tongbao.infra.db import Db, connect
from tongbao.infra.distribute import distribute, move_book
from tongbao.infra.migrate import pending_migrations
from tongbao.infra.settings import Settings
from tongbao.kernel.clock import Clock
from tongbao.kernel.errors import Rejected
from tongbao.ledger.archive import months, moving
from tongbao.ledger.archive.model import LedgerMonth, parse_month
from tongbao.ledger.queries import books
from tongbao.ledger.verify import verify
from tongbao.surfaces.cli.context import Context, Platform, actor, refusals_told, run

T = TypeVar("T")

_FOLDER: Final = click.Path(path_type=Path, file_okay=False)
_GUIDE: Final = {
    "backup": (
        "This database is not ours to copy: TONGBAO_DSN names it. Where it runs:\n"
        "  wal_level = replica, archive_mode = on, archive_command = your archiver's\n"
        "  pg_basebackup --checkpoint=fast --wal-method=stream --manifest-checksums=SHA256"
        " -D FOLDER\n"
        "  pg_verifybackup FOLDER\n"
        "or the same with pgBackRest or WAL-G, or your provider's point-in-time recovery."
    ),
    "restore": (
        "This database is not ours to replace: TONGBAO_DSN names it. Into a new cluster:\n"
        "  restore the base backup before the moment, touch recovery.signal, and set\n"
        "  restore_command = your archiver's, recovery_target_time = 'MOMENT',"
        " recovery_target_action = promote\n"
        "Start it, point TONGBAO_DSN at it, and run `tongbao ledger verify`."
    ),
    "upgrade": (
        "This database is not ours to upgrade: TONGBAO_DSN names it. Where it runs, with every\n"
        "process of the program stopped: pg_upgrade, or pg_dump into a new cluster; then\n"
        "vacuumdb --analyze-in-stages and `tongbao doctor`."
    ),
}


class Moment(click.ParamType[datetime]):
    """A time of day with its zone, as 2026-11-21T23:40:00+08:00."""

    name = "moment"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Return the moment; whether it has a zone is for the restore to say."""
        try:
            return datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value} is no time, as 2026-11-21T23:40:00+08:00", param, ctx)


class DatabaseNotOurs(Rejected):
    """The database is named by a DSN, and its files are somebody else's."""

    code = "database.not_ours"
    advice = "The commands for it are above; the page on backups says more."
    advice_zh = "该数据库由 TONGBAO_DSN 指定，请按上面的命令在其所在主机操作。"


class LedgerNotSound(Rejected):
    """The ledger in the restored folder does not prove."""

    code = "restore.ledger_not_sound"
    advice = "Keep the folder as it is, and restore another moment or another backup beside it."
    advice_zh = "恢复后的账本校验不一致，请保留该目录，并另选时刻或备份恢复。"


@click.group()
def db() -> None:
    """Keep the database: backups, versions, months, machines."""


@db.command("backup")
@click.option("--to", "folder", type=_FOLDER, help="Where to. Default: where the last one went.")
@click.option("--keep", default=backup.KEEP, show_default=True, help="How many base backups stay.")
@click.pass_obj
def db_backup(context: Context, folder: Path | None, keep: int) -> None:
    """Copy the database while it runs, and archive its log from here on."""
    settings = _ours(context, "backup")
    with _server(settings):
        taken = _told(lambda: backup.take(settings.data_dir, folder, keep=keep))
    kept = backup.backups_folder(settings.data_dir)
    context.show({**_shown(taken), "folder": str(kept / taken.id)})


@db.command("backups")
@click.option("--from", "folder", type=_FOLDER, help="Which folder. Default: the last one.")
@click.option("--verify", "verifying", is_flag=True, help="Read every file and compare digests.")
@click.pass_obj
def db_backups(context: Context, folder: Path | None, *, verifying: bool) -> None:
    """List backups and the moments they lead to; with --verify, exit 1 when one is damaged."""
    settings = _ours(context, "backup")
    place = folder or backup.backups_folder(settings.data_dir)
    found = backup.list_backups(place)
    verified: list[dict[str, object]] = [{} for _ in found]
    if verifying:
        with refusals_told():
            verified = [{"log_segments": backup.verify_backup(place, each)} for each in found]
    context.show([{**_shown(b), **more} for b, more in zip(found, verified, strict=True)])
    reach = _told(lambda: backup.covered(place, settings.data_dir))
    to = "now" if reach.to is None else reach.to.isoformat()
    if not context.as_json:
        click.echo(f"restorable: {reach.since.isoformat()} to {to}")


@db.command("restore")
@click.option("--to", "moment", type=Moment(), required=True, help="The moment, with its zone.")
@click.option("--into", type=_FOLDER, help="A new data folder. Default: one beside the present.")
@click.option("--from", "folder", type=_FOLDER, help="Which backups. Default: the last ones.")
@click.option("--replace", is_flag=True, help="Replace the data folder itself; the old is kept.")
@click.pass_obj
def db_restore(
    context: Context,
    moment: datetime,
    *,
    into: Path | None,
    folder: Path | None,
    replace: bool,
) -> None:
    """Make a data folder as of a moment of real time, and verify the ledger in it."""
    settings = _ours(context, "restore")
    data = settings.data_dir
    stamp = moment.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ") if moment.tzinfo else "nowhere"
    target = into or (data if replace else data.with_name(f"{data.name}-{stamp}"))
    restored = _told(lambda: backup.restore(data, moment, target, backups=folder, replace=replace))
    with _server(settings, restored.folder) as server:
        proven = run(_verified(server.dsn))
    context.show(
        {
            "folder": str(restored.folder),
            "backup": restored.backup,
            "moment": restored.moment.isoformat(),
            **proven,
        }
    )


@db.command("upgrade")
@click.option("--forget-old", is_flag=True, help="Delete what an earlier upgrade kept.")
@click.pass_obj
def db_upgrade(context: Context, *, forget_old: bool) -> None:
    """Bring the data to the installed major version of PostgreSQL; the old stay beside them."""
    settings = _ours(context, "upgrade")
    if forget_old:
        gone = _told(lambda: upgrade.forget_old(settings.data_dir))
        context.show([{"deleted": str(each)} for each in gone])
        return
    done = _told(lambda: upgrade.upgrade(settings.data_dir))
    with _server(settings) as server:
        proven = run(_verified(server.dsn))
    context.show({"was": done.was, "now": done.now, "kept": str(done.kept), **proven})


@db.command("partitions")
@click.pass_obj
def db_partitions(context: Context) -> None:
    """List the months of the journal: rows (about), bytes, and which are sealed or archived."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        states = {each.month: each for each in await months.list_months(platform.db)}
        rows: list[dict[str, object]] = [
            {
                "partition": each.name,
                "rows": each.rows,
                "bytes": each.bytes,
                "state": next(
                    (m.state for m in states.values() if each.name.endswith(f"{m.month:_%Y_%m}")),
                    "open",
                ),
            }
            for each in await months.list_partitions(platform.db)
        ]
        gone = [each for each in states.values() if each.state == "archived"]
        return [*rows, *({"partition": f"{m.month:%Y-%m}", **_month(m)} for m in gone)]

    context.show(context.run(work))


@db.command("archive")
@click.argument("month")
@click.option("--to", "folder", type=_FOLDER, help="Default: `archive` in the data folder.")
@click.pass_obj
def db_archive(context: Context, month: str, folder: Path | None) -> None:
    """Seal MONTH (as 2026-08), prove it, move it to files, and drop its rows."""

    async def work(platform: Platform) -> Mapping[str, object]:
        wanted, into = parse_month(month), folder or platform.settings.data_dir / "archive"
        await months.seal_month(platform.db, wanted, actor=actor(), prove=_first_breach)
        return _month(await moving.archive_month(platform.db, wanted, into, actor=actor()))

    context.show(context.run(work))


@db.command("bring-back")
@click.argument("month")
@click.option("--from", "folder", type=_FOLDER, help="Where its files are, if they moved.")
@click.pass_obj
def db_bring_back(context: Context, month: str, folder: Path | None) -> None:
    """Load an archived MONTH from its files; it stays sealed."""

    async def work(platform: Platform) -> Mapping[str, object]:
        wanted = parse_month(month)
        return _month(
            await moving.bring_back_month(platform.db, wanted, actor=actor(), folder=folder)
        )

    context.show(context.run(work))


@db.command("distribute")
@click.option("--print", "only_show", is_flag=True, help="Only show the commands.")
@click.pass_obj
def db_distribute(context: Context, *, only_show: bool) -> None:
    """Spread the tables over a Citus cluster by book; run it again after each new version."""
    shown = context.run(lambda platform: distribute(platform.db, only_show=only_show))
    context.show([{"sql": sql} for sql in shown])


@db.command("move-book")
@click.argument("book", type=int)
@click.option("--to", "node", required=True, help="The worker, as host:port.")
@click.pass_obj
def db_move_book(context: Context, book: int, node: str) -> None:
    """Move a book to another machine of a Citus cluster."""
    was = context.run(lambda platform: move_book(platform.db, book, node))
    context.show({"book": book, "was": was, "now": node})


def _ours(context: Context, what: str) -> Settings:
    """Return the settings of a database of our own; for another, show the commands and end."""
    settings = context.settings()
    if settings.dsn is not None:
        click.echo(_GUIDE[what], err=True)
        with refusals_told():
            raise DatabaseNotOurs
    return settings


@contextmanager
def _server(settings: Settings, folder: Path | None = None) -> Iterator[embedded.EmbeddedServer]:
    """Run the private server, and stop it afterwards unless somebody else had started it."""
    running = _told(lambda: embedded.start(folder or settings.data_dir))
    try:
        yield running
    finally:
        if running.started_here:
            running.stop()


def _told(work: Callable[[], T]) -> T:
    with refusals_told():
        return work()


async def _verified(dsn: str) -> dict[str, object]:
    """Verify the ledger there, if this version can read it, and say how far it goes."""
    on = await connect(dsn, Clock())
    try:
        if await pending_migrations(on):
            return {"ledger": "of an earlier version: migrate, then verify"}
        breach = await _first_breach(on)
        if breach is not None:
            raise LedgerNotSound(breach=breach)
        return {"ledger": "sound", "transfers": sum(head.last_seq for head in await books(on))}
    finally:
        await on.close()


async def _first_breach(on: Db) -> str | None:
    report = await verify(on)
    return next((f"book {each.book} {each.name}: {each.first}" for each in report.broken), None)


def _shown(taken: backup.Backup) -> dict[str, object]:
    return {
        "backup": taken.id,
        "finished_at": taken.finished_at.isoformat(),
        "bytes": sum(file.bytes for file in taken.files),
        "postgresql": taken.server_version,
        "from_lsn": taken.start_lsn,
        "to_lsn": taken.stop_lsn,
    }


def _month(month: LedgerMonth) -> dict[str, object]:
    return {
        "state": month.state,
        "transfers": month.transfers,
        "requests": month.requests,
        "folder": month.folder or "",
    }
