"""The usual way: a transaction for each merchant, on tables made for it, over many connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from uuid import UUID

import asyncpg
from msgspec import Struct

from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import new_id

DAY = date(2026, 11, 2)
SCHEMA = """
    create table merchant (id uuid primary key, balance bigint not null);
    create table entry (
        id bigint primary key, merchant_id uuid not null, code text not null,
        reference uuid not null, amount bigint not null, day date not null, settlement_id uuid);
    create table settlement (
        id uuid primary key, merchant_id uuid not null, day date not null, gross bigint not null,
        fees bigint not null, payable bigint not null, closed_at timestamptz not null,
        unique (merchant_id, day));
    create table payout (
        id uuid primary key, settlement_id uuid not null unique, merchant_id uuid not null,
        amount bigint not null, state text not null, created_at timestamptz not null);
    create table event (id uuid primary key, type text not null, merchant_id uuid not null,
        body jsonb not null, at timestamptz not null);
"""


class Shop(Struct, frozen=True):
    """The database of this way, and who is settled."""

    pool: asyncpg.Pool
    merchants: list[UUID]
    owed: int
    callers: int


@asynccontextmanager
async def opened(dsn: str, merchants: int, payments: int, callers: int) -> AsyncIterator[Shop]:
    """A database full of a day's payments."""
    async with asyncpg.create_pool(dsn, min_size=callers, max_size=callers) as pool:
        await pool.execute(SCHEMA)
        ids = [new_id() for _ in range(merchants)]
        owed = sum(gross - fee for gross, fee in amounts(payments))
        await pool.copy_records_to_table("merchant", records=[(each, owed) for each in ids])
        number = 0
        rows: list[tuple[object, ...]] = []
        for gross, fee in amounts(payments):
            for merchant in ids:
                reference = new_id()
                for code, amount in (("gross", gross), ("fee", -fee)):
                    number += 1
                    rows.append((number, merchant, code, reference, amount, DAY, None))
            await pool.copy_records_to_table("entry", records=rows)
            rows = []
        await pool.execute(
            "create index entry_open on entry (merchant_id, day) where settlement_id is null"
        )
        await pool.execute("vacuum analyze")
        await pool.execute("checkpoint")
        yield Shop(pool, ids, owed, callers)


def amounts(payments: int) -> list[tuple[int, int]]:
    """Return the gross and the fee of each payment of a merchant."""
    return [(1_000 + 100 * place, 6 + place) for place in range(payments)]


async def settle(shop: Shop) -> None:
    """Settle everybody, each merchant in a transaction."""
    waiting = iter(shop.merchants)

    async def work() -> None:
        async with shop.pool.acquire() as connection:
            for merchant in waiting:
                await _settle_one(connection, merchant)

    await asyncio.gather(*(work() for _ in range(shop.callers)))


async def _settle_one(connection: asyncpg.Connection, merchant: UUID) -> None:
    settlement, payout, now = new_id(), new_id(), real_now()
    async with connection.transaction():
        await connection.fetchval("select balance from merchant where id = $1 for update", merchant)
        gross, fees = await connection.fetchrow(
            """with marked as (
                   update entry set settlement_id = $3
                    where merchant_id = $1 and day <= $2 and settlement_id is null
                   returning code, amount)
               select coalesce(sum(amount) filter (where code = 'gross'), 0)::bigint,
                      - coalesce(sum(amount) filter (where code = 'fee'), 0)::bigint
                 from marked""",
            merchant, DAY, settlement,
        )  # fmt: skip
        payable = gross - fees
        await connection.execute(
            "insert into settlement values ($1, $2, $3, $4, $5, $6, $7)",
            settlement, merchant, DAY, gross, fees, payable, now,
        )  # fmt: skip
        await connection.execute(
            "update merchant set balance = balance - $2 where id = $1", merchant, payable
        )
        await connection.execute(
            "insert into payout values ($1, $2, $3, $4, 'requested', $5)",
            payout, settlement, merchant, payable, now,
        )  # fmt: skip
        await connection.execute(
            "insert into event values ($1, 'settlement.closed', $2, '{}', $3)",
            new_id(), merchant, now,
        )  # fmt: skip


async def check(shop: Shop) -> None:
    """Raise unless every merchant is settled to the fen."""
    paid = await shop.pool.fetchval("select count(*) from payout where amount = $1", shop.owed)
    left = await shop.pool.fetchval("select count(*) from entry where settlement_id is null")
    rest = await shop.pool.fetchval("select count(*) from merchant where balance <> 0")
    if (paid, left, rest) != (len(shop.merchants), 0, 0):
        raise RuntimeError(f"plain came out wrong: {paid} paid, {left} left, {rest} balances")
