"""The usual ways: a transaction per grab that locks the red packet's row, and the same in one call.

Both keep what ours keeps: the split drawn ahead, who took which part, balances with a floor, and a
journal. What is empty is seen without a lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from uuid import UUID

import asyncpg

from bench.red_packets.figures import Burst
from tongbao.kernel.clock import monotonic
from tongbao.kernel.ids import new_id

_SCHEMA: Final = """
drop schema if exists plain cascade;
create schema plain;
create table plain.packet (
    id uuid primary key, parts int not null, grabbed int not null default 0,
    taken bigint not null default 0, amount bigint not null,
    check (grabbed between 0 and parts and taken <= amount)
) with (fillfactor = 50);
create table plain.split (packet_id uuid, part int, amount bigint, primary key (packet_id, part));
create table plain.grab (
    packet_id uuid, wallet_id uuid, part int not null, amount bigint not null, at timestamptz,
    primary key (packet_id, wallet_id), unique (packet_id, part)
);
create table plain.account (
    id uuid primary key, balance bigint not null check (balance >= 0)
) with (fillfactor = 60);
create table plain.transfer (
    id uuid primary key, debit uuid not null, credit uuid not null, amount bigint not null,
    at timestamptz not null default now()
);
create index on plain.transfer (debit, at);
create index on plain.transfer (credit, at);

create function plain.take(asked uuid, taker uuid, made uuid) returns bigint
language plpgsql as $$
declare p plain.packet; mine bigint;
begin
    select * into p from plain.packet where id = asked;
    if p.grabbed = p.parts then return 0; end if;
    select * into p from plain.packet where id = asked for update;
    if p.grabbed = p.parts then return 0; end if;
    select g.amount into mine from plain.grab g where g.packet_id = asked and g.wallet_id = taker;
    if found then return mine; end if;
    select s.amount into mine from plain.split s
     where s.packet_id = asked and s.part = p.grabbed + 1;
    update plain.packet set grabbed = grabbed + 1, taken = taken + mine where id = asked;
    insert into plain.grab values (asked, taker, p.grabbed + 1, mine, now());
    update plain.account set balance = balance - mine where id = asked;
    update plain.account set balance = balance + mine where id = taker;
    insert into plain.transfer (id, debit, credit, amount) values (made, asked, taker, mine);
    return mine;
end $$;
"""
_IS_LEFT: Final = "select grabbed < parts from plain.packet where id = $1"
_LOCK: Final = "select grabbed, parts from plain.packet where id = $1 for update"
_MINE: Final = "select amount from plain.grab where packet_id = $1 and wallet_id = $2"
_PART: Final = "select amount from plain.split where packet_id = $1 and part = $2"
_COUNT: Final = "update plain.packet set grabbed = grabbed + 1, taken = taken + $2 where id = $1"
_NOTE: Final = "insert into plain.grab values ($1, $2, $3, $4, now())"
_MOVE: Final = "update plain.account set balance = balance + $2 where id = $1"
_JOURNAL: Final = "insert into plain.transfer (id, debit, credit, amount) values ($1, $2, $3, $4)"
_CALL: Final = "select plain.take($1, $2, $3)"

Grab = Callable[[Any, UUID, UUID], Awaitable[int]]


async def _by_row_lock(connection: Any, packet: UUID, wallet: UUID) -> int:
    if not await connection.fetchval(_IS_LEFT, packet):
        return 0
    async with connection.transaction():
        grabbed, parts = await connection.fetchrow(_LOCK, packet)
        if grabbed == parts:
            return 0
        if mine := await connection.fetchval(_MINE, packet, wallet):
            return int(mine)
        amount = await connection.fetchval(_PART, packet, grabbed + 1)
        await connection.execute(_COUNT, packet, amount)
        await connection.execute(_NOTE, packet, wallet, grabbed + 1, amount)
        await connection.execute(_MOVE, packet, -amount)
        await connection.execute(_MOVE, wallet, amount)
        await connection.execute(_JOURNAL, new_id(), packet, wallet, amount)
    return int(amount)


async def _by_function(connection: Any, packet: UUID, wallet: UUID) -> int:
    return int(await connection.fetchval(_CALL, packet, wallet, new_id()))


ARMS: Final[dict[str, Grab]] = {"(a) row lock": _by_row_lock, "(b) function": _by_function}


async def run(
    dsn: str, arm: str, wallets: Sequence[UUID], amounts: Sequence[int], *, connections: int
) -> Burst:
    """Let everybody ask at once; so many connections serve them."""
    admin = await asyncpg.connect(dsn)
    packet = new_id()
    try:
        await _prepare(admin, packet, wallets, amounts)
        pool = await asyncpg.create_pool(dsn, min_size=connections, max_size=connections)
        grab, waits, taken = ARMS[arm], list[float](), list[int]()
        waiting = iter(wallets)
        begins = monotonic()

        async def serve() -> None:
            async with pool.acquire() as connection:
                for wallet in waiting:
                    taken.append(await grab(connection, packet, wallet))
                    waits.append(monotonic() - begins)

        await asyncio.gather(*[serve() for _ in range(connections)])
        seconds = monotonic() - begins
        await pool.close()
        await _check(admin, packet, amounts)
    finally:
        await admin.close()
    grabbed = sum(1 for each in taken if each)
    return Burst(grabbed, len(taken) - grabbed, seconds, waits, grabbed)


async def _prepare(
    connection: Any, packet: UUID, wallets: Sequence[UUID], amounts: Sequence[int]
) -> None:
    await connection.execute(_SCHEMA)
    await connection.execute(
        "insert into plain.packet (id, parts, amount) values ($1, $2, $3)",
        packet,
        len(amounts),
        sum(amounts),
    )
    split = [(packet, part, amount) for part, amount in enumerate(amounts, start=1)]
    await connection.copy_records_to_table("split", schema_name="plain", records=split)
    accounts = [(packet, sum(amounts)), *((wallet, 1) for wallet in wallets)]
    await connection.copy_records_to_table("account", schema_name="plain", records=accounts)
    for table in ("plain.packet", "plain.split", "plain.account"):
        await connection.execute(f"vacuum analyze {table}")
    await connection.execute("checkpoint")


async def _check(connection: Any, packet: UUID, amounts: Sequence[int]) -> None:
    parts, people, total = await connection.fetchrow(
        "select count(distinct part), count(distinct wallet_id), sum(amount) from plain.grab"
        " where packet_id = $1",
        packet,
    )
    left = await connection.fetchval("select balance from plain.account where id = $1", packet)
    if (parts, people, total, left) != (len(amounts), len(amounts), sum(amounts), 0):
        raise AssertionError(f"{parts} parts, {people} people, {total} taken, {left} left")
