"""The form of a write for many rows does what its form for one does, row after row."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from msgspec import Struct
from msgspec.structs import replace

from tongbao.infra import outbox
from tongbao.infra.admission import _store as admission
from tongbao.infra.db import Db, Statement
from tongbao.infra.tasks import cancel_write, task_write
from tongbao.infra.web import _store as web
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import base32, new_id
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.accounts import _store as accounts
from tongbao.parties.accounts.model import ScannedCode
from tongbao.parties.merchants.model import LateSuccess
from tongbao.parties.price_plans.model import Quote
from tongbao.payments.callbacks import _store as callbacks
from tongbao.payments.collecting import _store as collecting
from tongbao.payments.collecting.model import (
    Attempt,
    AttemptState,
    CloseReason,
    NewPayment,
    Payment,
    PaymentState,
    view_payment,
)
from tongbao.payments.collecting.outcomes import (
    Evidence,
    LetGo,
    attempt_write,
    end_event,
    exchange_write,
    payment_writes,
)
from tongbao.payments.collecting.payments import paid_rows
from tongbao.rails.channels.contract.orders import PayMode
from tongbao.rails.channels.contract.outcomes import Exchange, ShowQr, Unknown

NOW = real_now()
DAY = NOW.date()
BOOK = 2
MERCHANT, WALLETS = new_id(), [new_id() for _ in range(3)]
CODES = [hashlib.sha256(bytes([number])).digest() for number in range(6)]
CODE = ScannedCode(BOOK, CODES[0], Mode.SANDBOX, WALLETS[0], "CNY")
ASKED = NewPayment(
    merchant_id=MERCHANT,
    mode=Mode.SANDBOX,
    book=BOOK,
    merchant_order_no="",
    money=Money(500, "CNY"),
    subject='tea, "strong", 茶',
    channel="wallet",
    pay_mode=PayMode.PAYMENT_CODE,
    account_id=MERCHANT,
    price=Quote(1, 3, True, date(2026, 11, 21)),
    late_success=LateSuccess.ACCEPT_IF_OPEN,
    expires_in=timedelta(minutes=5, microseconds=7),
    metadata={"till": "3", "名": '"'},
    client_ip="127.0.0.1",
)
PAID = [
    paid_rows(replace(ASKED, merchant_order_no=f"order-{number}"), new_id(), CODE, NOW)
    for number in range(5)
]
ENDS = {"state": PaymentState.CLOSED, "close_reason": CloseReason.EXPIRED, "ended_at": NOW}
SHOWN = {"state": AttemptState.PENDING, "action": ShowQr("weixin://茶"), "code": "WAIT"}
SEEN = Evidence("query", "query", Exchange("GET", "/x", "", 200, "{}", 3))


def opened(number: int) -> tuple[Payment, Attempt]:
    """Return a payment that somebody is to make at a channel, and its attempt."""
    payment, attempt = paid_rows(
        replace(ASKED, merchant_order_no=f"open-{number}"), new_id(), CODE, NOW
    )
    still = {"state": PaymentState.PENDING, "captured": 0, "succeeded_at": None, "ended_at": None}
    unpaid = {"state": AttemptState.CREATED, "channel": "alipay", "paid_at": None}
    return replace(payment, **still), replace(attempt, channel_ref=None, **unpaid)


OPEN, MADE = ([opened(10 * turn + number) for number in range(4)] for turn in (1, 2))
TASK = task_write(LetGo(BOOK, new_id()), run_at=NOW).statement
VIEWS = [view_payment(*each) for each in PAID]
EVENTS = [end_event(payment, view) for (payment, _), view in zip(PAID, VIEWS, strict=True)]
OBJECTS = [
    outbox.object_event_write(event, msgspec.json.encode(view), now=NOW)
    for event, view in zip(EVENTS, VIEWS, strict=True)
]
Rows = Sequence[tuple[Any, ...]]
astuple = msgspec.structs.astuple


class Case(Struct):
    """A set, and the same rows for a statement that takes them one by one."""

    table: str
    together: Statement
    set_rows: Rows
    alone: Statement
    rows: Rows


def same(table: str, statement: Statement, rows: Rows) -> Case:
    return Case(table, statement, rows, statement, rows)


def key_row(key_hash: bytes, resource_id: UUID) -> tuple[Any, ...]:
    row = web.IdempotencyKey(
        MERCHANT, Mode.SANDBOX, "POST /v1/x", key_hash, CODES[0], resource_id, 201, b"{}", NOW,
        NOW + timedelta(seconds=30), NOW,
    )  # fmt: skip
    return astuple(row)


KEYS = [key_row(code, new_id()) for code in CODES]
LEASE = NOW + timedelta(seconds=30)
TAKEN = [
    (MERCHANT, Mode.SANDBOX, "POST /v1/x", code, CODES[0], new_id(), NOW, LEASE, None)
    for code in CODES
]
ANSWERED_KEY = Statement("""
    insert into idempotency_key (merchant_id, mode, route, key_hash, body_hash, resource_id,
                                 status, response, created_at, lease_until, answered_at, asked_by)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
        on conflict do nothing""")
NONCES = [(MERCHANT, f"nonce-{number:020d}", NOW) for number in range(5)]
CASES = {
    "nonce": Case(
        "api_nonce",
        admission.APPEND_NONCE,
        [(admission.nonce_row(*row),) for row in NONCES],
        admission.USE_NONCE,
        [(*row, NOW) for row in NONCES],
    ),
    "key": same("idempotency_key", web.TAKE, TAKEN),
    "answered key": Case(
        "idempotency_key",
        web.APPEND_ANSWERED,
        [(web.answered_row(web.IdempotencyKey(*row)),) for row in KEYS],
        ANSWERED_KEY,
        KEYS,
    ),
    "event": same(
        "event",
        outbox._INSERT,
        [outbox.event_write(event, now=NOW).args for event in EVENTS],
    ),
    "code": same("payment_code", accounts.USE_CODE, [(BOOK, c, NOW, new_id()) for c in CODES]),
    "spending": same(
        "wallet",
        accounts.SPEND,
        [(BOOK, WALLETS[number % 3], DAY, 10 + number, NOW) for number in range(7)],
    ),
    "payment": Case(
        "payment",
        collecting.APPEND_PAYMENT,
        [(collecting.paid_payment_row(payment),) for payment, _ in PAID],
        collecting.INSERT_PAYMENT,
        [collecting.payment_row(payment) for payment, _ in PAID],
    ),
    "attempt": Case(
        "attempt",
        collecting.APPEND_ATTEMPT,
        [(collecting.paid_attempt_row(attempt),) for _, attempt in PAID],
        collecting.INSERT_ATTEMPT,
        [collecting.attempt_row(attempt) for _, attempt in PAID],
    ),
    "payment as it is made": same(
        "payment", collecting.INSERT_PAYMENT, [collecting.payment_row(each) for each, _ in OPEN]
    ),
    "attempt as it is made": same(
        "attempt", collecting.INSERT_ATTEMPT, [collecting.attempt_row(each) for _, each in OPEN]
    ),
    "payment as it ends": same(
        "payment",
        collecting.UPDATE_PAYMENT,
        [payment_writes(each, replace(each, **ENDS), "x", NOW)[0].args for each, _ in MADE],
    ),
    "attempt as it ends": same(
        "attempt",
        collecting.UPDATE_ATTEMPT,
        [attempt_write(each, replace(each, **SHOWN), was_asked=True).args for _, each in MADE],
    ),
    "question counted": same(
        "attempt", collecting.COUNT_QUERY, [(BOOK, each.id) for _, each in MADE]
    ),
    "exchange": same(
        "exchange",
        collecting.INSERT_EXCHANGE,
        [
            exchange_write((BOOK, each.id), new_id(), SEEN, Unknown("x"), NOW).args
            for each, _ in OPEN
        ],
    ),
    "task": same(
        "task",
        TASK,
        [task_write(LetGo(BOOK, each.id), run_at=NOW, key=str(each.id)).args for each, _ in OPEN],
    ),
    "task called off": same(
        "task",
        cancel_write(LetGo, "").statement,
        [cancel_write(LetGo, str(each.id)).args for each, _ in MADE],
    ),
    "callback": same(
        "inbound_callback",
        callbacks.KEEP_CALLBACK,
        [
            (
                new_id(),
                MERCHANT,
                "alipay",
                str(number),
                '{"a": "茶"}',
                b"x",
                "n",
                "payment",
                "{}",
                NOW,
            )
            for number in range(4)
        ],
    ),
    "callback marked": same(
        "inbound_callback",
        callbacks.MARK_CALLBACK,
        [(each.id, "processed", NOW) for each, _ in MADE],
    ),
    "change": Case(
        "payment_state_change",
        collecting.APPEND_CHANGE,
        [(collecting.paid_change_row(payment),) for payment, _ in PAID],
        collecting.INSERT_CHANGE,
        [(BOOK, payment.id, 1, "new", "succeeded", "own wallet", NOW) for payment, _ in PAID],
    ),
}


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
    for payment, attempt in MADE:
        await collecting.INSERT_PAYMENT.run(db, *collecting.payment_row(payment))
        await collecting.INSERT_ATTEMPT.run(db, *collecting.attempt_row(attempt))
        task = (payment.id, "authorisations.let_go", "{}", str(payment.id), NOW)
        await TASK.run(db, *task)
        kept = (payment.id, MERCHANT, "alipay", str(payment.id), "{}", b"", "n", "payment", "{}")
        await callbacks.KEEP_CALLBACK.run(db, *kept, NOW)
    for code in CODES:
        await db.execute(
            "insert into payment_code (book, code_hash, wallet_id, mode, created_at, expires_at)"
            " values ($1, $2, $3, 'sandbox', $4, $5)",
            (BOOK, code, WALLETS[0], NOW, NOW + timedelta(minutes=1)),
        )


async def contents(db: Db, table: str) -> list[str]:
    return sorted(map(repr, map(tuple, await db.fetch(f"select * from {table}", ()))))


@pytest.mark.parametrize("name", CASES)
async def test_a_set_is_its_rows(make_db: Any, name: str) -> None:
    case = CASES[name]
    alone, together = await make_db(), await make_db()
    for db in (alone, together):
        await furnish(db)

    for row in case.rows:
        assert await case.alone.run(alone, *row) == 1
    async with together.begin("tests") as tx:
        touched = await case.together.run_set(tx, case.set_rows)

    assert touched == len(case.set_rows)
    assert await contents(together, case.table) == await contents(alone, case.table)


async def test_an_object_already_encoded_is_told_as_any_other(make_db: Any) -> None:
    alone, together = await make_db(), await make_db()
    async with together.begin("tests") as tx:
        await OBJECTS[0].statement.run_set(tx, [write.args for write in OBJECTS])
    async with alone.begin("tests") as tx:
        for event in EVENTS:
            await outbox.publish(tx, event)

    def told(rows: list[Any]) -> list[Any]:
        names = ("type", "merchant_id", "mode", "resource_id", "body", "dispatched_at")
        return sorted(str([row[name] for name in names]) for row in rows)

    both = [await db.fetch("select * from event", ()) for db in (alone, together)]
    assert told(both[0]) == told(both[1])
    assert {row["at"] for row in both[1]} == {NOW}


async def test_every_question_counts_though_two_ask_about_one_attempt_at_once(db: Db) -> None:
    await furnish(db)
    (_, first), (_, second), *_ = MADE
    asked = [(BOOK, each.id) for each in (first, second, first, first)]

    async with db.begin("tests") as tx:
        await collecting.COUNT_QUERY.run_set(tx, asked)

    rows = await db.fetch("select queries from attempt order by queries desc limit 3", ())
    assert [row["queries"] for row in rows] == [3, 1, 0]


@pytest.mark.parametrize("name", ["key", "event", "code", "spending"])
async def test_a_set_says_when_a_row_took_no_effect(db: Db, name: str) -> None:
    """The second time a row would touch nothing, or pass a limit."""
    case = CASES[name]
    await furnish(db)
    again = [*case.rows[1:], case.rows[0]]
    if name == "spending":
        again = [(book, wallet, day, 95, NOW) for book, wallet, day, *_ in case.rows]
    async with db.begin("tests") as tx:
        await case.together.run_set(tx, case.rows[:1])

        touched = await case.together.run_set(tx, again)

    assert touched < len(again)


@pytest.mark.parametrize("name", ["nonce", "answered key", "payment", "attempt", "change"])
async def test_a_row_whose_key_is_taken_is_not_appended(db: Db, name: str) -> None:
    """It fails a set, which is undone, and touches nothing alone; the transaction goes on."""
    case = CASES[name]
    first, second = case.set_rows[0], case.set_rows[1]
    async with db.begin("tests") as tx:
        assert await case.together.run(tx, *first) == 1

        assert await case.together.run(tx, *first) == 0
        assert await case.together.run(tx, *second) == 1

    assert len(await contents(db, case.table)) == 2


async def test_a_set_that_spans_midnight_is_left_to_be_taken_apart(db: Db) -> None:
    await furnish(db)
    rows = [(BOOK, WALLETS[0], DAY + timedelta(days=days), 10, NOW) for days in range(2)]

    async with db.begin("tests") as tx:
        assert await accounts.SPEND.run_set(tx, rows) < len(rows)


async def test_a_frozen_wallet_spoils_its_own_spending_only(db: Db) -> None:
    await furnish(db)
    await db.execute("update wallet set state = 'frozen' where id = $1", (WALLETS[1],))
    rows = [(BOOK, wallet, DAY, 10, NOW) for wallet in WALLETS]

    async with db.begin("tests") as tx:
        touched = await accounts.SPEND.run_set(tx, rows)

    assert touched == 2


def test_the_own_wallets_number_is_its_attempts() -> None:
    _, attempt = PAID[0]

    assert attempt.channel_ref == base32(attempt.id)
