"""What it saves to remember keys and terms until they are changed.

    python -m bench.auth.remembering

Requests come at a steady pace from many merchants, each about as often as the next, and ask for a
key and for its merchant's terms: of the database every time, of what was asked less than 0.9
seconds ago, and of what is remembered until a mark says that it was changed. Meanwhile keys are
changed, some a second. What is counted is processor time, of this process and of the database.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from uuid import UUID

from msgspec import Struct

from bench.auth.database import LICENCE, own_database
from bench.payments import processors
from tongbao.infra.changes import Changes
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.lookups import Remembered
from tongbao.kernel.licence import Mode
from tongbao.parties.identity.keys import KeysOnRecord, RecentKeys, create_key, set_scopes
from tongbao.parties.identity.model import ApiKey
from tongbao.parties.merchants.merchants import open_merchant
from tongbao.parties.price_plans.model import PriceLine
from tongbao.parties.price_plans.plans import set_price_plan
from tongbao.payments.hot.terms import RecentTerms, Whose

SCOPES = (["payments:write"], ["payments:write", "payments:read"])

Ask = Callable[[UUID, Whose], Awaitable[object]]


class Spent(Struct):
    """Microseconds of a processor per request, and statements."""

    ours: float
    database: float
    asked: float


def main() -> None:
    """Run the three ways after one another and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--merchants", type=int, default=2000)
    parser.add_argument("--per-second", type=int, default=1000)
    parser.add_argument("--changes", type=int, default=5, help="keys that are changed in a second")
    parser.add_argument("--seconds", type=int, default=15)
    asyncio.run(_bench(parser.parse_args()))


async def _bench(options: argparse.Namespace) -> None:
    async with own_database() as (db, keyring):
        keys = [await _merchant(db, keyring, number) for number in range(options.merchants)]
        print(
            f"{options.merchants} merchants, {options.per_second} requests and"
            f" {options.changes} changes of keys a second\n"
        )
        print("| remembered | µs of this process | µs of the database | statements |")
        print("| --- | ---: | ---: | ---: |")
        for name, ask in _ways(db, keyring).items():
            await _drive(db, keys, ask, options, seconds=5)
            spent = await _drive(db, keys, ask, options, seconds=options.seconds)
            print(f"| {name} | {spent.ours:.0f} | {spent.database:.0f} | {spent.asked:.2f} |")


async def _merchant(db: Db, keyring: Keyring, number: int) -> ApiKey:
    mode = Mode.SANDBOX
    async with db.begin("bench") as tx:
        merchant = await open_merchant(tx, keyring, name=f"bench {number}", bank_account=None)
        await set_price_plan(tx, merchant.id, mode, [PriceLine("alipay", "qr", 6_000)])
        made = await create_key(
            tx, keyring, merchant.id, mode, licence=LICENCE, name="bench", scopes=SCOPES[0]
        )
    return made.key


def _ways(db: Db, keyring: Keyring) -> Mapping[str, Ask]:
    """Return the three ways; the first two as if nobody heard of changes."""
    on_record, changes = KeysOnRecord(db, keyring), Changes(db)
    terms = RecentTerms(db, changes)
    short_keys = Remembered(on_record.find_all, seconds=0.9)
    short_terms = Remembered(terms._find, seconds=0.9)
    recent = RecentKeys(db, keyring, changes)

    async def nothing(key: UUID, whose: Whose) -> None:
        await on_record.find(key)
        await terms._find([whose])

    async def shortly(key: UUID, whose: Whose) -> None:
        await short_keys.get(key)
        await short_terms.all([whose])

    async def until_changed(key: UUID, whose: Whose) -> None:
        await recent.find(key)
        await terms.of([whose])

    return {"nothing": nothing, "for 0.9 s": shortly, "until it is changed": until_changed}


async def _drive(
    db: Db, keys: list[ApiKey], ask: Ask, options: argparse.Namespace, *, seconds: int
) -> Spent:
    chance = random.Random(5)
    asked = [0]
    fetch = db.fetch

    async def counted(sql: str, args: object) -> list[object]:
        asked[0] += 1
        return await fetch(sql, args)  # type: ignore[arg-type]

    db.fetch = counted  # type: ignore[method-assign]
    server, began = processors.spent(os.getpid()), time.process_time()
    start, sent, changed = time.monotonic(), 0, 0
    tasks: set[asyncio.Task[object]] = set()
    while (past := time.monotonic() - start) < seconds:
        while sent < past * options.per_second:
            sent += 1
            key = chance.choice(keys)
            task = asyncio.ensure_future(ask(key.id, (key.merchant_id, key.mode)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if changed < past * options.changes:
            changed += 1
            scopes = SCOPES[chance.randrange(2)]
            async with db.begin("bench") as tx:
                await set_scopes(tx, chance.choice(keys), scopes, licence=LICENCE)
        await asyncio.sleep(0.001)
    await asyncio.gather(*tasks)
    ours = time.process_time() - began
    database = (processors.spent(os.getpid()) - server)["database"]
    db.fetch = fetch  # type: ignore[method-assign]
    return Spent(ours / sent * 1e6, database / sent * 1e6, asked[0] / sent)


if __name__ == "__main__":
    main()
