"""The usual ways: (a) a transaction per transfer with row locks, (b) a function call per transfer.

Both keep one table of accounts with their counters and one of transfers, and do for a transfer what
the ledger does: check the floor under the locks, refuse or post, and remember the id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import asyncpg
import numpy as np

from bench.ledger.figures import Figures
from bench.ledger.workloads import FUNDED, Drawn, Workload
from tongbao.kernel.clock import monotonic
from tongbao.kernel.ids import new_id

_SCHEMA: Final = """
drop schema if exists usual cascade;
create schema usual;
create table usual.account (
    id int primary key, debits_pending bigint not null default 0, debits bigint not null default 0,
    credits_pending bigint not null default 0, credits bigint not null,
    check (credits - debits - debits_pending >= 0)
) with (fillfactor = 60);
create table usual.transfer (
    id uuid primary key, debit int not null, credit int not null, amount bigint not null,
    pending_id uuid, kind text not null, at timestamptz not null default now()
);
create index on usual.transfer (debit, at);
create index on usual.transfer (credit, at);

create function usual.post(id uuid, debit int, credit int, amount bigint, kind text, pending uuid)
returns boolean language plpgsql as $$
declare payer usual.account;
begin
    perform 1 from usual.account a where a.id in (debit, credit) order by a.id for update;
    select * into payer from usual.account a where a.id = debit;
    if kind <> 'post' and payer.credits - payer.debits - payer.debits_pending < amount then
        return false;
    end if;
    if kind = 'hold' then
        update usual.account a set debits_pending = debits_pending + amount where a.id = debit;
        update usual.account a set credits_pending = credits_pending + amount where a.id = credit;
    elsif kind = 'post' then
        update usual.account a set debits_pending = debits_pending - amount,
               debits = debits + amount
         where a.id = debit;
        update usual.account a set credits_pending = credits_pending - amount,
               credits = credits + amount
         where a.id = credit;
    else
        update usual.account a set debits = debits + amount where a.id = debit;
        update usual.account a set credits = credits + amount where a.id = credit;
    end if;
    insert into usual.transfer (id, debit, credit, amount, pending_id, kind)
    values (id, debit, credit, amount, pending, kind);
    return true;
end $$;
"""
_LOCK = """
    select id, credits - debits - debits_pending from usual.account
     where id = any($1) order by id for update"""
_MOVE = "update usual.account set debits = debits + $2 where id = $1"
_TAKE = "update usual.account set credits = credits + $2 where id = $1"
_HOLD = "update usual.account set debits_pending = debits_pending + $2 where id = $1"
_PROMISE = "update usual.account set credits_pending = credits_pending + $2 where id = $1"
_MOVE_HELD = """
    update usual.account set debits_pending = debits_pending - $2, debits = debits + $2
     where id = $1"""
_TAKE_HELD = """
    update usual.account set credits_pending = credits_pending - $2, credits = credits + $2
     where id = $1"""
_NOTE = """
    insert into usual.transfer (id, debit, credit, amount, pending_id, kind)
    values ($1, $2, $3, $4, $5, $6)"""
_CALL = "select usual.post($1, $2, $3, $4, $5, $6)"
_PAIRS = {"single": (_MOVE, _TAKE), "hold": (_HOLD, _PROMISE), "post": (_MOVE_HELD, _TAKE_HELD)}

Order = tuple[Any, int, int, int, str, Any]
"""Id, debit, credit, amount, kind, the hold it ends."""


class _Short(Exception):
    """The payer has too little: undo the transaction."""


async def _by_row_locks(connection: Any, orders: list[Order]) -> int:
    """Post the orders in one transaction; return how many were refused."""
    try:
        async with connection.transaction():
            for made, debit, credit, amount, kind, pending in orders:
                rows = dict(await connection.fetch(_LOCK, [debit, credit]))
                if kind != "post" and rows[debit] < amount:
                    raise _Short
                for sql, account in zip(_PAIRS[kind], (debit, credit), strict=True):
                    await connection.execute(sql, account, amount)
                await connection.execute(_NOTE, made, debit, credit, amount, pending, kind)
    except _Short:
        return len(orders)
    return 0


async def _by_function(connection: Any, orders: list[Order]) -> int:
    if len(orders) == 1:
        return 0 if await connection.fetchval(_CALL, *_called(orders[0])) else 1
    try:
        async with connection.transaction():
            for order in orders:
                if not await connection.fetchval(_CALL, *_called(order)):
                    raise _Short
    except _Short:
        return len(orders)
    return 0


def _called(order: Order) -> tuple[Any, ...]:
    return order


POSTING: Final[dict[str, Callable[[Any, list[Order]], Awaitable[int]]]] = {
    "(a) row locks": _by_row_locks,
    "(b) function": _by_function,
}


async def prepare(dsn: str, accounts: int, workload: Workload) -> None:
    """Make the tables anew and fund the accounts."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(_SCHEMA)
        poor = accounts - int(accounts * workload.poor)
        await connection.execute(
            "insert into usual.account (id, credits)"
            f" select n, case when n < {poor} then {FUNDED} else 0 end"
            f" from generate_series(0, {accounts - 1}) n"
        )
        await connection.execute("vacuum analyze usual.account")
        await connection.execute("checkpoint")
    finally:
        await connection.close()


async def run(
    dsn: str, arm: str, workload: Workload, *, accounts: int, callers: int, seconds: float
) -> Figures:
    """Let so many callers post one group after the other, each on a connection of its own."""
    await prepare(dsn, accounts, workload)
    post = POSTING[arm]
    latencies: list[float] = []
    counted = [0, 0]
    begins = monotonic()

    async def caller(number: int) -> None:
        rng = np.random.default_rng(number)
        connection = await asyncpg.connect(dsn)
        try:
            while monotonic() - begins < seconds:
                for orders in _orders(workload.draw(rng, 500, accounts)):
                    started = monotonic()
                    if started - begins >= seconds:
                        break
                    try:
                        refused = await post(connection, orders)
                    except asyncpg.DeadlockDetectedError:
                        continue
                    latencies.append(monotonic() - started)
                    counted[0] += len(orders)
                    counted[1] += refused
        finally:
            await connection.close()

    await asyncio.gather(*[caller(number) for number in range(callers)])
    figures = Figures(counted[0], counted[1], monotonic() - begins, latencies)
    await _check(dsn, figures, accounts, workload)
    return figures


def _orders(drawn: Drawn) -> list[list[Order]]:
    rows = list(
        zip(drawn.debit.tolist(), drawn.credit.tolist(), drawn.amount.tolist(), strict=True)
    )
    if drawn.holds:
        pairs = []
        for debit, credit, amount in rows[::2]:
            held = new_id()
            pairs.append([(held, debit, credit, amount, "hold", None)])
            pairs.append([(new_id(), debit, credit, amount, "post", held)])
        return pairs
    orders = [(new_id(), *each, "single", None) for each in rows]
    if drawn.linked:
        return [list(pair) for pair in zip(orders[::2], orders[1::2], strict=True)]
    return [[order] for order in orders]


async def _check(dsn: str, figures: Figures, accounts: int, workload: Workload) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        stored = await connection.fetchval("select count(*) from usual.transfer")
        owed, owned, short = await connection.fetchrow(
            "select sum(debits), sum(credits), count(*) filter"
            " (where credits - debits - debits_pending < 0) from usual.account"
        )
    finally:
        await connection.close()
    funded = (accounts - int(accounts * workload.poor)) * FUNDED
    if figures.transfers - figures.refused != stored or owned - owed != funded or short:
        raise AssertionError(
            f"{figures.transfers=} {figures.refused=} {stored=} {owed=} {owned=} {short=}"
        )
