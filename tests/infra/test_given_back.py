"""Whoever gets a database that another test gave back finds it as if nobody had had it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from msgspec import Struct

from tests.databases import GROWN, SUPERUSER, Databases, on_database
from tongbao.infra import audit
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, connect
from tongbao.kernel.clock import Clock
from tongbao.kernel.licence import Licence
from tongbao.ledger.book import Ledger
from tongbao.parties.merchants.merchants import open_merchant

SEEDED = """
    update ledger_book set last_seq = 77;
    update ledger_watermark set seq = 77;
    delete from calendar_day;
    update ledger_account_kind set floor = -1"""
NUMBER = "select oid from pg_database where datname = $1"
MUCH = f"""
    insert into change_mark (what, of_id, version, changed_in)
    select 'merchant', gen_random_uuid(), 1, 1 from generate_series(1, {GROWN // 60})"""
TABLES = """
    select c.oid::regclass::text as shown, c.relpages, c.reltuples, c.relallvisible, c.relacl::text,
           pg_relation_size(c.oid)
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relkind = 'r' and n.nspname not in ('pg_catalog', 'information_schema')
     order by c.oid"""
CATALOG = """
    select md5(string_agg(md5(t::text), '' order by t.attrelid, t.attnum)) from pg_attribute t
     union all select md5(string_agg(md5(t::text), '' order by t.oid)) from pg_constraint t
     union all select md5(string_agg(md5(t::text), '' order by t.oid)) from pg_trigger t
     union all select md5(string_agg(md5(t::text), '' order by t.oid)) from pg_proc t"""
COUNTED = "select count(*) from pg_stat_user_tables where n_tup_ins + n_tup_upd + n_tup_del > 0"


class Some(Struct, frozen=True):
    """Clones of the migrated template, on their server."""

    databases: Databases
    template: str
    dsn: str
    admin: Any

    async def take(self) -> str:
        return await self.databases.take(self.template)

    async def give_back(self, name: str) -> None:
        await self.databases.give_back(name, self.template)

    def on(self, name: str) -> str:
        return on_database(self.dsn, name)

    async def number(self, name: str) -> int:
        """Return what stays the same when a database gets another name."""
        return int(await self.admin.fetchval(NUMBER, name))


@pytest.fixture
async def some(server: Any, _admin: asyncpg.Connection, _template: str) -> AsyncIterator[Some]:
    """Databases that nobody had yet."""
    fresh = Databases(server.dsn, _admin)
    yield Some(fresh, _template, server.dsn, _admin)
    await fresh.forget(_template)


async def state(dsn: str) -> list[Any]:
    on = await asyncpg.connect(dsn, user=SUPERUSER)
    try:
        found = [await on.fetchval(COUNTED), *map(tuple, await on.fetch(CATALOG))]
        found += [tuple(each) for each in await on.fetch(TABLES)]
        rows = [
            f"select {at}, md5(string_agg(t::text, '|' order by ctid)) from {each['shown']} t"
            for at, each in enumerate(await on.fetch(TABLES))
        ]
        return found + [tuple(each) for each in await on.fetch(" union all ".join(rows))]
    finally:
        await on.close()


async def live_in(db: Db) -> None:
    """Write what tests write: rows of one's own, and the rows that every database begins with."""
    await Ledger(db, Licence.PAYMENT_INSTITUTION).open_book(7, actor="tests")
    async with db.begin("tests") as tx:
        await open_merchant(tx, Keyring([b"k" * 32]), name="x" * 60)
        for at in range(200):
            await audit.record(tx, "tests.lived", f"{at}", {"at": at})


async def test_nothing_is_left_of_who_had_it_before(
    some: Some,
) -> None:
    name = await some.take()
    number = await some.number(name)
    new = await state(some.on(name))
    db = await connect(some.on(name), Clock())
    await live_in(db)
    beyond = await asyncpg.connect(some.on(name), user=SUPERUSER)
    await beyond.execute("set session_replication_role = replica;" + SEEDED)
    await beyond.execute("begin; insert into ledger_watermark values (99, 0, 0); rollback")
    await beyond.execute("vacuum audit_entry")  # the planner hears of it
    await beyond.close()
    lived = await state(some.on(name))
    assert sum(one != other for one, other in zip(new, lived, strict=True)) > 6
    db.pool.terminate()

    await some.give_back(name)
    again = await some.take()
    assert await some.number(again) == number  # or this would prove nothing
    assert await state(some.on(again)) == new
    await some.give_back(again)


async def test_who_is_still_there_is_sent_away_and_does_not_find_back(
    some: Some,
) -> None:
    name = await some.take()
    old = some.on(name)
    late = await asyncpg.connect(old)
    await late.execute("begin; update ledger_watermark set seq = 5")
    await some.give_back(name)
    again = await some.take()
    with pytest.raises((asyncpg.InterfaceError, asyncpg.PostgresError)):
        await late.execute("commit")
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(old)
    on = await asyncpg.connect(some.on(again))
    assert await on.fetchval("select max(seq) from ledger_watermark") == 0
    await on.close()
    await some.give_back(again)


@pytest.mark.parametrize(
    "told",
    [
        "create table mine (id int)",
        "alter table merchant add column mine int",
        "create index mine on merchant (late_success)",
        "alter table merchant drop constraint merchant_pkey cascade",
        "grant update on audit_entry to current_user",
        "create function mine() returns int language sql return 1",
        "comment on table merchant is 'mine'",
        "analyze ledger_account_kind",
        "alter database {name} set work_mem = '4MB'",
        "alter database {name} connection limit 5",
        "revoke connect on database {name} from public",
        MUCH,
    ],
)
async def test_what_was_told_more_than_rows_nobody_gets_again(some: Some, told: str) -> None:
    name = await some.take()
    number = await some.number(name)
    on = await asyncpg.connect(some.on(name))
    await on.execute(told.format(name=name))
    await on.close()
    await some.give_back(name)
    again = await some.take()
    assert await some.number(again) != number
    await some.give_back(again)
