"""One forced interleaving per lock of the money flow.

A transaction driven by hand stops the first of two rivals in the middle of its commit, holding the
lock the second needs; when the second waits for it, the first may go on.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from tests.stage import Stage, new_number
from tongbao.infra.web.idempotency import Idempotency
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import derived_id, new_id
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.merchants.merchants import SANDBOX_BOOK
from tongbao.payments.collecting import queries
from tongbao.payments.collecting.model import view_payment
from tongbao.payments.collecting.outcomes import (
    Evidence,
    LateMoneyReceived,
    record_news,
)
from tongbao.payments.refunds import queries as refund_queries
from tongbao.payments.refunds.outcomes import record_refund_news
from tongbao.payments.refunds.refunds import (
    RefundExceedsCaptured,
    RefundRequest,
    on_late_money,
    request_refund,
)
from tongbao.rails.channels.contract.outcomes import Closed, Declined, Pending, Succeeded
from tongbao_sdk import Refused
from tongbao_sdk.replies import Payment

_WAITING = """
    select count(*) from pg_stat_activity
     where datname = current_database() and wait_event_type = 'Lock'"""


class Rivals:
    """Runs coroutines up to a lock, one behind the other."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._tasks: list[asyncio.Task[Any]] = []

    async def start(self, rival: Awaitable[Any]) -> asyncio.Task[Any]:
        """Run until it waits for a lock."""
        task = asyncio.ensure_future(rival)
        self._tasks.append(task)
        async with asyncio.timeout(4):
            while await self._waiting() < len(self._tasks):
                assert not task.done(), f"it never waited: {task}"
                await asyncio.sleep(0.005)
        return task

    async def _waiting(self) -> int:
        """Count who waits: for a lock, or for the book to decide on it."""
        rows = await self._stage.db.fetch(_WAITING, ())
        return rows[0][0] + self._stage.platform.ledger.waiting(SANDBOX_BOOK)

    async def ends(self) -> list[Any]:
        return await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def holding(stage: Stage, statement: str, *args: Any) -> AsyncIterator[Rivals]:
    """Hold what the statement locks while rivals start; let go and wait for them at the end."""
    rivals = Rivals(stage)
    async with stage.db.begin("by hand") as tx:
        await tx.execute(statement, args)
        yield rivals
    await rivals.ends()


@pytest.fixture(scope="module", autouse=True)
async def _the_account_is_open(module_stage: Stage) -> None:
    """The first payment opens the merchant's account; before it there is nothing to hold."""
    await module_stage.paid("wechat_pay")


def book(_: Stage) -> tuple[str, Any]:
    """The book's head, which every commit locks after the rows of the domains."""
    return "select 1 from ledger_book where book = $1 for no key update", SANDBOX_BOOK


def key_of(stage: Stage) -> Idempotency:
    """A use of a fresh Idempotency-Key."""
    return Idempotency(
        stage.shop.merchant.id,
        Mode.SANDBOX,
        "POST /by-hand",
        os.urandom(32),
        os.urandom(32),
        real_now() + timedelta(minutes=1),
    )


async def ask_refund(stage: Stage, payment: Payment, amount: int) -> Any:
    """Ask for a refund, decided on the payment as it is now."""
    row = await stage.row_of(payment)
    asked = RefundRequest(new_number(), Money(amount, "CNY"), "")
    return await request_refund(
        stage.flow, row, asked, take=key_of(stage).write, refund_id=new_id()
    )


async def hear(stage: Stage, payment: Payment, news: Any) -> Any:
    """Record news about the payment's attempt, as whoever brings it does."""
    return await record_news(stage.flow, await stage.attempt_of(payment), news, Evidence("by hand"))


async def paid_unheard(stage: Stage, channel: str = "wechat_pay") -> tuple[Payment, Succeeded]:
    """A payment that was paid at the channel, of which we have not heard, and the news of it."""
    payment = await stage.show_qr(channel)
    await stage.fault_of(payment, "callback", "lost")
    await stage.customer(payment)
    return payment, await told_of(stage, payment)


async def told_of(stage: Stage, payment: Payment) -> Succeeded:
    """The news that the channel has of a payment."""
    trade = await stage.trade_of(payment)
    assert trade is not None
    return Succeeded(trade["ref"], Money(payment["amount"], "CNY"), stage.db.clock.now())


async def test_two_refunds_race_for_the_last_fen(stage: Stage) -> None:
    paid = await stage.paid("wechat_pay", 1000)

    async with holding(stage, *book(stage)) as rivals:
        first = await rivals.start(ask_refund(stage, paid, 600))
        second = await rivals.start(ask_refund(stage, paid, 600))

    assert first.result().amount == 600
    with pytest.raises(RefundExceedsCaptured) as refused:
        second.result()
    assert refused.value.facts == {"left": 400}
    assert (await stage.read(paid))["amount_refunded"] == 600


async def test_a_waiting_refund_that_still_fits_is_decided_again(stage: Stage) -> None:
    """It was worked out on an older sight, so its share of the fee must be worked out anew."""
    paid = await stage.paid("wechat_pay", 1000)

    async with holding(stage, *book(stage)) as rivals:
        await rivals.start(ask_refund(stage, paid, 600))
        await rivals.start(ask_refund(stage, paid, 400))

    assert [each.amount for each in await rivals.ends()] == [600, 400]
    given_back = await stage.read(paid)
    assert given_back["amount_refunded"] == 1000
    assert given_back["fee_returned"] == given_back["fee"] == 8, "half of it each, and no fen lost"


async def test_a_refund_that_waited_for_another_to_fail_is_decided_again(stage: Stage) -> None:
    paid = await stage.paid("wechat_pay", 1000)
    stage.fault("wechat_pay", "refund", "processing")
    going = await stage.refund(paid, 600)
    row = await refund_queries.refund_by_number(stage.db, going["id"].removeprefix("ref_"))
    assert row is not None
    news = Declined("REFUND_CLOSED")
    fails = record_refund_news(stage.flow, row, news, Evidence("by hand", refund_id=row.id))

    async with holding(stage, *book(stage)) as rivals:
        await rivals.start(fails)
        waited = await rivals.start(ask_refund(stage, paid, 400))

    assert waited.result().amount == 400
    assert (await stage.read(going))["status"] == "failed"
    assert (await stage.read(paid))["amount_refunded"] == 400
    await stage.control("wechat/refund", number=row.number, state="closed")


async def test_an_answer_a_callback_and_a_query_bring_one_success(stage: Stage) -> None:
    payment, success = await paid_unheard(stage)

    async with holding(stage, *book(stage)) as rivals:
        for _ in range(3):
            await rivals.start(hear(stage, payment, success))

    for row, attempt in await rivals.ends():
        assert (row.state, attempt.state) == ("succeeded", "succeeded")
    assert await stage.events(payment) == ["payment.succeeded"]
    assert [code for code, _ in await stage.postings(payment)] == [
        "payment.captured/gross",
        "payment.captured/fee",
    ]


@pytest.mark.parametrize("stale", [Pending(reason="NOTPAY"), Closed("CLOSED"), Declined("NO")])
async def test_older_news_that_waited_for_a_success_changes_nothing(
    stage: Stage, stale: Any
) -> None:
    stage.fault("wechat_pay", "callback", "lost")
    stage.fault("wechat_pay", "pay", "time_out_paid")
    payment = await stage.show_qr("wechat_pay")
    assert payment["status"] == "unknown"
    success = await told_of(stage, payment)

    async with holding(stage, *book(stage)) as rivals:
        await rivals.start(hear(stage, payment, success))
        waited = await rivals.start(hear(stage, payment, stale))

    row, attempt = waited.result()
    assert (row.state, attempt.state) == ("succeeded", "succeeded")
    assert await stage.events(payment) == ["payment.succeeded"]


async def test_a_success_that_waited_for_a_close_is_late_money(stage: Stage) -> None:
    payment, success = await paid_unheard(stage)
    attempt = await stage.attempt_of(payment)
    lock = "select 1 from attempt where id = $1 for no key update"

    async with holding(stage, lock, attempt.id) as rivals:
        await rivals.start(hear(stage, payment, Closed("CLOSED")))
        waited = await rivals.start(hear(stage, payment, success))

    assert waited.result()[0].state == "closed", "not booked before the channel was asked again"
    await stage.advance(seconds=30)
    await stage.advance(seconds=30)
    assert await stage.events(payment) == ["payment.closed", "payment.late_success"]
    assert await stage.given_back(payment) == [payment["amount"]]


async def test_a_merchants_close_that_waited_for_a_success_hears_of_it(stage: Stage) -> None:
    payment, success = await paid_unheard(stage)

    async with holding(stage, *book(stage)) as rivals:
        await rivals.start(hear(stage, payment, success))
        closing = await rivals.start(stage.close(payment))

    assert closing.result()["status"] == "succeeded"


async def test_one_idempotency_key_used_twice_at_once_makes_one_payment(stage: Stage) -> None:
    key, order = new_number(), new_number()
    once = stage.client_of(stage.shop, tries_max=1)

    def ask() -> Awaitable[Payment]:
        return stage.show_qr(
            "wechat_pay", client=once, merchant_order_no=order, idempotency_key=key
        )

    async with holding(stage, "lock table attempt in share row exclusive mode") as rivals:
        first = await rivals.start(ask())
        second = await rivals.start(ask())

    # The lock lets both go on at once. Whoever takes the key makes it; the other asks anew, before
    # the channel has answered or after.
    made = [each.result() for each in (first, second) if each.exception() is None]
    told = [str(each.exception()) for each in (first, second) if each.exception() is not None]
    assert made[0]["status"] == "pending"
    assert all("idempotency.in_flight" in each for each in told)
    assert await ask() == made[0] == made[-1], "later both hear the same"


async def test_one_order_number_under_two_keys_at_once_makes_one_payment(stage: Stage) -> None:
    order = new_number()
    once = stage.client_of(stage.shop, tries_max=1)

    async with holding(stage, "lock table attempt in share row exclusive mode") as rivals:
        first, second, other = [
            await rivals.start(
                stage.show_qr("wechat_pay", amount, client=once, merchant_order_no=order)
            )
            for amount in (500, 500, 700)
        ]

    # Whichever of them it is for: who asks for the same hears of it, and nobody else pays.
    alike, else_ = ([first, second], [other]) if other.exception() else ([other], [first, second])
    assert len({each.result()["id"] for each in alike}) == 1
    for each in else_:
        assert isinstance(each.exception(), Refused)
        assert each.exception().code == "payment.order_no_used"
    listed = await stage.db.fetch("select 1 from payment where merchant_order_no = $1", (order,))
    assert len(listed) == 1


async def test_one_refund_number_under_two_keys_at_once_makes_one_refund(stage: Stage) -> None:
    paid, number = await stage.paid("wechat_pay", 1000), new_number()

    async with holding(stage, *book(stage)) as rivals:
        first, second = [
            await rivals.start(stage.refund(paid, 400, merchant_refund_no=number)) for _ in range(2)
        ]

    assert first.result()["id"] == second.result()["id"]
    await stage.advance(seconds=10)
    assert await stage.given_back(paid) == [400]


async def test_one_wallet_code_shown_at_two_counters_at_once_pays_once(stage: Stage) -> None:
    code = await stage.wallet_code(10_000)

    async with holding(stage, *book(stage)) as rivals:
        first, second = [await rivals.start(stage.scan_code(code, amount)) for amount in (500, 600)]

    assert (first.result()["status"], second.result()["status"]) == ("succeeded", "failed")
    assert second.result()["failure"]["code"] == "wallet.code_used_or_expired"
    assert await stage.postings(second.result()) == []


async def test_the_same_refund_news_twice_at_once_posts_once(stage: Stage) -> None:
    paid = await stage.paid("wechat_pay", 1000)
    stage.fault("wechat_pay", "refund", "processing")
    going = await stage.refund(paid, 300)
    row = await refund_queries.refund_by_number(stage.db, going["id"].removeprefix("ref_"))
    assert row is not None
    news = Succeeded("50300001", Money(300, "CNY"), stage.db.clock.now())
    evidence = Evidence("by hand", refund_id=row.id)

    async with holding(stage, *book(stage)) as rivals:
        for _ in range(2):
            await rivals.start(record_refund_news(stage.flow, row, news, evidence))

    assert [each.state for each in await rivals.ends()] == ["succeeded", "succeeded"]
    assert await stage.events(going) == ["refund.succeeded"]
    await stage.control("wechat/refund", number=row.number, state="done")


async def test_late_money_heard_of_twice_at_once_is_given_back_once(stage: Stage) -> None:
    payment = await stage.show_qr("wechat_pay")
    await stage.customer(payment, "abandon")
    await stage.fault_of(payment, "close", "late_success:5")
    await stage.close(payment)
    await asyncio.to_thread(stage.sandbox.advance, 5)
    attempt = await stage.attempt_of(payment)
    fresh = Evidence("by hand", is_fresh=True)
    row, attempt = await record_news(stage.flow, attempt, await told_of(stage, payment), fresh)
    event = LateMoneyReceived(
        merchant_id=row.merchant_id,
        mode=row.mode,
        resource_id=payment["id"],
        object=view_payment(row, attempt),
        book=row.book,
        payment_id=row.id,
        attempt_id=attempt.id,
    )
    lock = "select 1 from payment where id = $1 for no key update"

    async with holding(stage, lock, row.id) as rivals:
        for _ in range(2):
            await rivals.start(on_late_money(stage.flow, event, new_id()))

    assert await rivals.ends() == [None, None]
    refund = await refund_queries.refund(stage.db, row.book, derived_id(attempt.id, "late refund"))
    assert refund.amount == payment["amount"]
    await stage.advance(seconds=30)
    await stage.advance(seconds=30)
    assert await stage.given_back(payment) == [payment["amount"]]
    again = await queries.payment(stage.db, row.book, row.id)
    assert again.refunded == again.captured
