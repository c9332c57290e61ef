"""Databases for tests: clones of a template, made as good as new between one test and the next.

A clone is some 1,700 files, and to make and to remove them costs 50 ms of a processor; a test
writes to a dozen tables. So the next test gets the database that an earlier one gave back, without
what that one wrote and under another name, which nothing of the earlier test knows. That is done
only where nothing but rows was changed, and few of them: what was told other rights, tables,
triggers or statistics is dropped.

What was written is known from the server's own counts, which a session reports before it is gone,
rolled back or not. Whoever cleans is the superuser, as which no test connects.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
from msgspec import Struct

SUPERUSER = "postgres"
GROWN = 1 << 20  # bytes of a table that are not worth cleaning up
_KEPT_MAX = 4

_OTHERS = "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1"
# The first row stands for what is noted of the database itself, outside of it.
_WRITTEN = """
    select d.oid, 'pg_catalog' as schema, 'pg_database' as name, 0::bigint as size
      from pg_database d
     where d.datname = current_database()
       and (d.datacl is not null or d.datconnlimit <> -1 or not d.datallowconn
            or exists (select from pg_db_role_setting where setdatabase = d.oid))
    union all
    select c.oid, n.nspname, c.relname, pg_relation_size(c.oid)
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relkind = 'r' and not c.relisshared
       and (pg_stat_get_tuples_inserted(c.oid) > 0 or pg_stat_get_tuples_updated(c.oid) > 0
            or pg_stat_get_tuples_deleted(c.oid) > 0
            or c.reltuples <> -1 and n.nspname not in ('pg_catalog', 'information_schema'))"""
_TABLES = """
    select c.oid, n.nspname as schema, c.relname as name, pg_relation_size(c.oid) as size
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relkind = 'r' and n.nspname not in ('pg_catalog', 'information_schema')"""
# What the planner takes a table for: one that was never looked at, and not one that is empty. Of
# indexes it asks for figures only where they have a condition.
_FIGURES = """
    with own as (
        select oid, oid as of from pg_class
        union all select indexrelid, indrelid from pg_index where indpred is not null)
    select own.of, format('(%s::oid, %s, %s::real, %s)', c.oid, relpages, reltuples, relallvisible)
      from own join pg_class c on c.oid = own.oid where own.of = any($1::oid[])"""
# Its numbers stand in the text: of what arrays consist the driver asks each new session, slowly.
_EMPTIED = """
    with figured as (
        update pg_class c
           set relpages = t.relpages, reltuples = t.reltuples, relallvisible = t.relallvisible
          from (values {figures}) t (oid, relpages, reltuples, relallvisible)
         where c.oid = t.oid and (c.relpages, c.reltuples, c.relallvisible)
               is distinct from (t.relpages, t.reltuples, t.relallvisible))
    select sum(pg_relation_size(oid)) = 0 from pg_class where oid in ({written})"""


class Table(Struct, frozen=True):
    """A table of a clone, and of its template under the same number."""

    oid: int
    schema: str
    name: str
    size: int

    @property
    def is_catalog(self) -> bool:
        return self.schema in ("pg_catalog", "information_schema")

    @property
    def shown(self) -> str:
        return f'"{self.schema}"."{self.name}"'


class Template(Struct, frozen=True):
    """What a clone has to be like, by table: its rows, if it has any, and the planner's figures."""

    rows: dict[int, bytes]
    figures: dict[int, list[str]]


def on_database(dsn: str, name: str) -> str:
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


class Databases:
    """Hands databases out and takes them back; belongs to one event loop."""

    def __init__(self, dsn: str, admin: asyncpg.Connection) -> None:
        """``admin`` may make databases; on the server of ``dsn`` the superuser is let in."""
        self._dsn = dsn
        self._admin = admin
        self._templates: dict[str, Template] = {}
        self._kept: dict[str, list[str]] = {}

    async def take(self, template: str) -> str:
        """Return the name of a database that is like the template."""
        name = f"test_{uuid4().hex}"
        kept = self._kept.setdefault(template, [])
        while kept:
            old = kept.pop()
            await self._leave_alone(old)
            await self._admin.execute(f"alter database {old} rename to {name}")
            if await self._cleaned(name, template):
                return name
            await self.drop(name)
        if template not in self._templates:
            self._templates[template] = await self._read(template)
        await self._admin.execute(f"create database {name} template {template} strategy file_copy")
        return name

    async def bare(self) -> str:
        """Return the name of a database that has nothing in it yet, to be dropped."""
        name = f"test_{uuid4().hex}"
        await self._admin.execute(f"create database {name} template template0 strategy file_copy")
        return name

    async def give_back(self, name: str, template: str) -> None:
        """Let another test have it."""
        kept = self._kept[template]
        if len(kept) < _KEPT_MAX:
            kept.append(name)
        else:
            await self.drop(name)

    async def forget(self, template: str) -> None:
        """Drop what was given back of a template that ends."""
        for name in self._kept.pop(template, ()):
            await self.drop(name)
        self._templates.pop(template, None)

    async def drop(self, name: str) -> None:
        await self._admin.execute(f"drop database {name} with (force)")

    async def _leave_alone(self, name: str) -> None:
        """End every session on it, and wait until the last has reported what it wrote."""
        while await self._admin.fetch(_OTHERS, name):  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.001)

    @asynccontextmanager
    async def _on(self, name: str) -> AsyncIterator[asyncpg.Connection]:
        # As a replica, no trigger runs and no key is looked up: whatever was written goes.
        how = {"session_replication_role": "replica", "stats_fetch_consistency": "none"}
        place = on_database(self._dsn, name)
        on = await asyncpg.connect(place, user=SUPERUSER, server_settings=how)
        try:
            yield on
        finally:
            await on.close()

    async def _read(self, template: str) -> Template:
        async with self._on(template) as on:
            tables = [Table(**each) for each in await on.fetch(_TABLES)]
            figures: dict[int, list[str]] = {}
            for of, figure in await on.fetch(_FIGURES, [each.oid for each in tables]):
                figures.setdefault(of, []).append(figure)
            rows = {each.oid: await _rows_of(on, each) for each in tables if each.size}
            return Template(rows, figures)

    async def _cleaned(self, name: str, template: str) -> bool:
        """Take back what was written, and tell whether nothing can be left of it."""
        async with self._on(name) as on:
            written = [Table(**each) for each in await on.fetch(_WRITTEN)]
            if any(each.is_catalog or each.size > GROWN for each in written):
                return False
            if written and not await _undone(on, written, self._templates[template]):
                return False
            await on.execute("select pg_stat_force_next_flush()")
            await on.execute("select pg_stat_reset()")
        return True


async def _undone(on: asyncpg.Connection, written: list[Table], like: Template) -> bool:
    shown = [each.shown for each in written]
    await on.execute(";".join(f"delete from {each}" for each in shown))
    await on.execute(f"vacuum (index_cleanup on, skip_database_stats) {','.join(shown)}")
    emptied = _EMPTIED.format(
        figures=",".join(figure for each in written for figure in like.figures[each.oid]),
        written=",".join(str(each.oid) for each in written),
    )
    if not await on.fetchval(emptied):
        return False
    for each in written:
        if each.oid in like.rows:
            rows = memoryview(like.rows[each.oid])  # the driver takes bytes for the name of a file
            to = {"schema_name": each.schema, "format": "binary"}
            await on.copy_to_table(each.name, source=rows, **to)
    return True


async def _rows_of(on: asyncpg.Connection, table: Table) -> bytes:
    rows = bytearray()

    async def keep(piece: bytes) -> None:
        rows.extend(piece)

    of = {"schema_name": table.schema, "format": "binary"}
    await on.copy_from_table(table.name, output=keep, **of)
    return bytes(rows)
