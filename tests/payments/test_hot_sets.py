"""The form of a statement for many rows does what its form for one does, row after row."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from tongbao.infra.db import Db, Statement
from tongbao.infra.outbox import _INSERT as INSERT_EVENT
from tongbao.infra.web import _store as web
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import base32, new_id
from tongbao.parties.accounts import _store as accounts
from tongbao.payments.collecting import _store as collecting

NOW = real_now()
DAY = NOW.date()
BOOK = 2
MERCHANT, WALLETS = new_id(), [new_id() for _ in range(3)]
CODES = [hashlib.sha256(bytes([number])).digest() for number in range(6)]

ROWS: dict[str, tuple[Statement, str, list[tuple[Any, ...]]]] = {
    "nonce": (
        web.USE_NONCE_WITH,
        "api_nonce",
        [(MERCHANT, f"nonce-{number:020d}", NOW, NOW) for number in range(5)],
    ),
    "key": (
        web.INSERT,
        "idempotency_key",
        [
            (MERCHANT, "sandbox", "POST /v1/x", code, code, new_id(), 201, b"{}", NOW, NOW, NOW)
            for code in CODES
        ],
    ),
    "event": (
        INSERT_EVENT,
        "event",
        [
            (new_id(), "a.b", MERCHANT, "sandbox", f"pay_{number}", '{"object": {"n": 1}}', NOW)
            for number in range(5)
        ],
    ),
    "code": (
        accounts.USE_CODE,
        "payment_code",
        [(BOOK, code, NOW, new_id()) for code in CODES],
    ),
    "spending": (
        accounts.SPEND,
        "wallet",
        [(BOOK, WALLETS[number % 3], DAY, 10 + number) for number in range(7)],
    ),
    "payment": (
        collecting.INSERT_PAID_BY_WALLET,
        "payment",
        [
            (
                BOOK, new_id(), MERCHANT, "sandbox", f"order-{number}", b"hash", 500 + number,
                "CNY", "tea", number, False, "refund", '{"till": "3"}', NOW, NOW, attempt,
                base32(attempt), str(WALLETS[0]), "127.0.0.1",
            )
            for number in range(5)
            for attempt in [new_id()]
        ],
    ),
}  # fmt: skip
TABLES = {"payment": ("payment", "attempt", "payment_state_change")}


async def furnish(db: Db) -> None:
    """Put wallets and codes there for what only changes rows."""
    await db.execute(
        "insert into merchant (id, name, state, live_book, sandbox_book, late_success,"
        " settlement_delay_days, opened_at) values ($1, 'shop', 'active', 1, 2, 'refund', 1, $2)",
        (MERCHANT, NOW),
    )
    for wallet in WALLETS:
        await db.execute(
            "insert into wallet (book, id, merchant_id, mode, holder_masked, currency, state,"
            " daily_limit, spent_on, spent, opened_at)"
            " values ($1, $2, $3, 'sandbox', '*', 'CNY', 'active', 100, $4, 0, $5)",
            (BOOK, wallet, MERCHANT, DAY, NOW),
        )
    for code in CODES:
        await db.execute(
            "insert into payment_code (book, code_hash, wallet_id, mode, created_at, expires_at)"
            " values ($1, $2, $3, 'sandbox', $4, $5)",
            (BOOK, code, WALLETS[0], NOW, NOW + timedelta(minutes=1)),
        )


async def contents(db: Db, name: str) -> list[Any]:
    tables = TABLES.get(name, (ROWS[name][1],))
    return [
        sorted(map(repr, map(tuple, await db.fetch(f"select * from {table}", ()))))
        for table in tables
    ]


@pytest.mark.parametrize("name", ROWS)
async def test_a_set_is_its_rows(make_db: Any, name: str) -> None:
    statement, _, rows = ROWS[name]
    alone, together = await make_db(), await make_db()
    for db in (alone, together):
        await furnish(db)

    for row in rows:
        assert await statement.run(alone, *row) == 1
    async with together.begin("tests") as tx:
        touched = await statement.run_set(tx, rows)

    assert touched == len(rows)
    assert await contents(together, name) == await contents(alone, name)


@pytest.mark.parametrize("name", ROWS)
async def test_a_set_says_when_a_row_took_no_effect(db: Db, name: str) -> None:
    """Twice the same: the second time, one at a time, it would touch nothing or pass a limit."""
    statement, _, rows = ROWS[name]
    await furnish(db)
    again: Sequence[tuple[Any, ...]] = [*rows[1:], rows[0]]
    if name == "spending":
        again = [(book, wallet, day, 95) for book, wallet, day, _ in rows]
    if name == "payment":  # another payment of the same order
        again = [*rows[1:], (BOOK, new_id(), *rows[0][2:15], new_id(), *rows[0][16:])]
    async with db.begin("tests") as tx:
        await statement.run_set(tx, rows[:1])

        touched = await statement.run_set(tx, again)

    assert touched < len(again)


async def test_a_set_that_spans_midnight_is_left_to_be_taken_apart(db: Db) -> None:
    await furnish(db)
    rows = [(BOOK, WALLETS[0], DAY, 10), (BOOK, WALLETS[0], DAY + timedelta(days=1), 10)]

    async with db.begin("tests") as tx:
        assert await accounts.SPEND.run_set(tx, rows) < len(rows)


async def test_a_frozen_wallet_spoils_its_own_spending_only(db: Db) -> None:
    await furnish(db)
    await db.execute("update wallet set state = 'frozen' where id = $1", (WALLETS[1],))
    rows = [(BOOK, wallet, DAY, 10) for wallet in WALLETS]

    async with db.begin("tests") as tx:
        touched = await accounts.SPEND.run_set(tx, rows)

    assert touched == 2
