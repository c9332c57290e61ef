"""Migrations: numbered plain SQL files, applied forward only, each in its own transaction.

``NNNN_pre_what.sql`` runs before the new program version takes over, ``NNNN_post_what.sql`` after
the old one has gone. The first migration fixes the licence of the deployment; only four eyes
change it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.db import Db, Query, Statement, Tx
from tongbao.kernel.errors import Conflict, Fact
from tongbao.kernel.licence import Licence

_NAME: Final = re.compile(r"\d{4}_(pre|post)_[a-z0-9_]+\.sql")
_SUBJECT: Final = "deployment"
_FILE_TIMEOUT_S: Final = 6 * 3600


class MigrationChanged(Conflict):
    """A migration that was applied has since been edited."""

    code = "migration.changed"
    advice = "Restore the file as it was applied and put the change into a new migration."
    advice_zh = "请恢复该迁移文件的原内容，并用新的迁移文件实现变更。"


class MigrationMissing(Conflict):
    """The database has a migration this program version does not know."""

    code = "migration.missing"
    advice = "Run the program version that made this database, or a newer one."
    advice_zh = "请使用创建该数据库的程序版本或更新的版本。"


class MigrationOutOfOrder(Conflict):
    """A new migration has a lower number than one already applied."""

    code = "migration.out_of_order"
    advice = "Give the new migration the next free number."
    advice_zh = "请为新迁移文件使用下一个可用编号。"


class MigrationMisnamed(Conflict):
    """A file among the migrations is not named NNNN_pre_what.sql or NNNN_post_what.sql."""

    code = "migration.misnamed"
    advice = "Name it with a free four-digit number, pre or post, and what it does."
    advice_zh = "请按 NNNN_pre_说明.sql 或 NNNN_post_说明.sql 命名，编号不得重复。"


class LicenceFixed(Conflict):
    """The deployment was made under another licence."""

    code = "deployment.licence_fixed"
    advice = "Set TONGBAO_LICENCE to the licence recorded: tongbao doctor names it."
    advice_zh = "请将 TONGBAO_LICENCE 设为已登记的许可类型，可用 tongbao doctor 查看。"


class SchemaMigration(Struct, frozen=True):
    """One applied file."""

    name: str
    checksum: str
    applied_at: datetime


class Deployment(Struct, frozen=True):
    """What was fixed when this database was made."""

    id: int
    licence: Licence
    created_at: datetime


class Migration(Struct, frozen=True):
    """One file of the package."""

    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, the same whatever line ends a checkout has."""
        return hashlib.sha256(self.sql.replace("\r\n", "\n").encode()).hexdigest()

    @property
    def is_post(self) -> bool:
        """Whether it must wait until the old program version has gone."""
        return self.name[5:].startswith("post_")


# `if not exists` alone still fails when two processes create the table at the same moment.
_CREATE_TABLE = Statement("""
    do $$ begin
        create table if not exists schema_migration (
            name text primary key, checksum text not null, applied_at timestamptz not null);
    exception when unique_violation or duplicate_table or duplicate_object then null;
    end $$""")
_WAIT_LONG = Statement("set local lock_timeout = '50s'")
_WAIT_SHORT = Statement("set local lock_timeout = '5s'")
_NO_LIMIT = Statement("set local statement_timeout = 0")
_LOCK = Statement("lock table schema_migration in share row exclusive mode")
_APPLIED = Query(
    SchemaMigration, "select name, checksum, applied_at from schema_migration order by name"
)
_INSERT_APPLIED = Statement(
    "insert into schema_migration (name, checksum, applied_at) values ($1, $2, $3)"
)
_TABLE_EXISTS = Query(bool, "select to_regclass($1::text) is not null")
_DEPLOYMENT = Query(Deployment, "select id, licence, created_at from deployment where id = 1")
_INSERT_DEPLOYMENT = Statement(
    "insert into deployment (id, licence, created_at) values (1, $1, $2) on conflict do nothing"
)


_SET_LICENCE = Statement("update deployment set licence = $2 where id = 1 and licence = $1")


def packaged() -> list[Migration]:
    """Return the migrations that ship with the program, in order.

    Raises:
        MigrationMisnamed
    """
    return read_folder(resources.files("tongbao.infra") / "migrations")


def read_folder(folder: Traversable) -> list[Migration]:
    """Return the migrations of a folder, in order.

    Raises:
        MigrationMisnamed
    """
    found = [
        Migration(entry.name, entry.read_text(encoding="utf-8"))
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".sql")
    ]
    numbers: set[str] = set()
    for migration in found:
        if not _NAME.fullmatch(migration.name) or migration.name[:4] in numbers:
            raise MigrationMisnamed(name=migration.name)
        numbers.add(migration.name[:4])
    return found


async def migrate(
    db: Db,
    licence: Licence,
    actor: str,
    *,
    migrations: Sequence[Migration] | None = None,
    leave_post: bool = False,
) -> list[str]:
    """Apply what is missing, in order, and return the names applied now.

    ``leave_post`` leaves out the post files at the end, for the time when an old program version
    still runs. Several processes may call this at once.

    Raises:
        MigrationChanged, MigrationMissing, MigrationOutOfOrder, LicenceFixed
    """
    shipped = packaged() if migrations is None else list(migrations)
    async with db.begin(actor) as tx:
        await _prepare(tx)
        pending = _pending(shipped, await _APPLIED.all(tx))
        await _check_licence(tx, licence)
    while leave_post and pending and pending[-1].is_post:
        pending.pop()
    applied = []
    for migration in pending:
        async with db.begin(actor) as tx:
            if await _apply(tx, migration, shipped, licence):
                applied.append(migration.name)
    return applied


async def pending_migrations(db: Db) -> list[str]:
    """Return the names of shipped migrations the database does not have yet.

    Raises:
        MigrationChanged, MigrationMissing, MigrationOutOfOrder
    """
    if not await _TABLE_EXISTS.one(db, "schema_migration"):
        return [migration.name for migration in packaged()]
    return [migration.name for migration in _pending(packaged(), await _APPLIED.all(db))]


async def deployment(db: Db) -> Deployment:
    """Return what was fixed at the first migration."""
    return await _DEPLOYMENT.one(db)


async def _prepare(tx: Tx) -> None:
    """Make the table of applied files; two first migrations at once meet at the later lock."""
    if not await _TABLE_EXISTS.one(tx, "schema_migration"):
        await _CREATE_TABLE.run(tx)


def _pending(shipped: Sequence[Migration], applied: Sequence[SchemaMigration]) -> list[Migration]:
    """Compare files with records; pure."""
    known = {migration.name: migration for migration in shipped}
    for record in applied:
        if record.name not in known:
            raise MigrationMissing(name=record.name)
        if known[record.name].checksum != record.checksum:
            raise MigrationChanged(name=record.name)
    done = {record.name for record in applied}
    pending = [migration for migration in shipped if migration.name not in done]
    if done and pending and pending[0].name < max(done):
        raise MigrationOutOfOrder(name=pending[0].name)
    return pending


async def _apply(
    tx: Tx, migration: Migration, shipped: Sequence[Migration], licence: Licence
) -> bool:
    """Run one file under the lock, unless another process has run it meanwhile."""
    await _WAIT_LONG.run(tx)
    await _LOCK.run(tx)
    await _WAIT_SHORT.run(tx)
    await _NO_LIMIT.run(tx)
    if migration not in _pending(shipped, await _APPLIED.all(tx)):
        return False
    await (await tx.begun()).execute(migration.sql, timeout=_FILE_TIMEOUT_S)
    await _INSERT_APPLIED.run(tx, migration.name, migration.checksum, tx.now)
    if await _TABLE_EXISTS.one(tx, "deployment"):
        if await _INSERT_DEPLOYMENT.run(tx, licence, tx.now):
            await audit.record(tx, "deployment.created", _SUBJECT, {"licence": licence.value})
        await _check_licence(tx, licence)
        facts = {"name": migration.name, "checksum": migration.checksum}
        await audit.record(tx, "migration.applied", _SUBJECT, facts)
    return True


async def licence_on_record(on: Db | Tx) -> Licence:
    """Return the licence that the deployment was made under, or was given since."""
    return (await _DEPLOYMENT.one(on)).licence


async def change_licence(
    tx: Tx, before: Licence, after: Licence, facts: Mapping[str, Fact]
) -> None:
    """Record another licence; whoever is started under the one before refuses from then on.

    Raises:
        LicenceFixed: the one on record is not ``before`` any more.
    """
    if not await _SET_LICENCE.run(tx, before, after):
        raise LicenceFixed(recorded=(await licence_on_record(tx)).value, requested=after.value)
    told = {**facts, "before": before.value, "after": after.value}
    await audit.record(tx, "deployment.licence_changed", _SUBJECT, told)


async def _check_licence(tx: Tx, licence: Licence) -> None:
    if not await _TABLE_EXISTS.one(tx, "deployment"):
        return
    fixed = await _DEPLOYMENT.first(tx)
    if fixed is not None and fixed.licence is not licence:
        raise LicenceFixed(recorded=fixed.licence.value, requested=licence.value)
