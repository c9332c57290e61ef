"""News of a payment is believed by the process that stored it, and by any other where that dies.

The platform's worker runs here as it does in a process that serves; elsewhere tests let it run
until it is idle, and it adopts nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast
from uuid import uuid4

import pytest

from tests.payments.letters import Postman
from tests.stage import Stage
from tongbao.infra import failpoints
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.kernel.clock import real_now
from tongbao.kernel.money import Money
from tongbao.payments.callbacks.queries import callbacks_about
from tongbao.payments.collecting import queries
from tongbao.payments.collecting.queries import PaymentReads

Adopted = list[str]


@pytest.fixture
async def working(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Adopted]:
    """Let the worker run, and tell which tasks it has adopted."""
    worker, stop = stage.platform.worker, asyncio.Event()
    adopted: Adopted = []
    adopt = type(worker).adopt

    def counted(self: Any, row: Any, run: Any) -> None:
        adopted.append(row.key)
        adopt(self, row, run)

    monkeypatch.setattr(type(worker), "adopt", counted)
    running = asyncio.create_task(worker.run(stop))
    yield adopted
    stop.set()
    await running


async def until(happened: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await happened():  # noqa: ASYNC110 - the database tells nobody
            await asyncio.sleep(0.01)


async def paid(stage: Stage, payment: Any) -> bool:
    return (await stage.row_of(payment)).state == "succeeded"


async def processed(stage: Stage, payment: Any) -> bool:
    return await states(stage, payment) == [("processed", 1)]


async def believing(stage: Stage) -> int:
    query = "select count(*) as tasks from task where type = 'callbacks.believe'"
    [row] = await stage.db.fetch(query, ())
    return int(row["tasks"])


async def all_believed(stage: Stage) -> bool:
    return await believing(stage) == 0


async def contradicted(stage: Stage, payment: Any) -> bool:
    return await stage.cases(payment) == ["contradiction"]


async def states(stage: Stage, payment: Any) -> list[tuple[str, int]]:
    number = (await stage.attempt_of(payment)).number
    return [(each.state, each.copies) for each in await callbacks_about(stage.db, [number])]


async def test_what_is_stored_is_believed_without_being_claimed(
    stage: Stage, postman: Postman, working: Adopted
) -> None:
    payment = await stage.show_qr("wechat_pay")
    number = (await stage.attempt_of(payment)).number

    await postman.tell("wechat_pay", number, Money(1999, "CNY"))
    await until(lambda: paid(stage, payment))

    assert len(working) == 1
    assert (await states(stage, payment), await believing(stage)) == ([("processed", 1)], 0)
    assert await stage.events(payment) == ["payment.succeeded"]
    assert len(await stage.postings(payment)) == 2


async def test_one_that_nobody_remembers_is_read(
    stage: Stage, postman: Postman, working: Adopted
) -> None:
    """Another process made it, or it was so long ago."""
    payment = await stage.show_qr("alipay")
    stage.flow.reads.recall(number := (await stage.attempt_of(payment)).number)

    await postman.tell("alipay", number, Money(1999, "CNY"))
    await until(lambda: paid(stage, payment))

    assert (len(working), await believing(stage)) == (1, 0)


async def test_a_trade_pays_one_order_though_both_are_remembered(
    stage: Stage, postman: Postman, working: Adopted
) -> None:
    """What is remembered says nothing of other orders; the key of trades does."""
    first, second = [await stage.show_qr("wechat_pay") for _ in range(2)]
    trade = uuid4().hex[:28]
    for payment in (first, second):
        number = (await stage.attempt_of(payment)).number
        await postman.tell("wechat_pay", number, Money(1999, "CNY"), ref=trade)
        await until(lambda: paid(stage, first))
    await until(lambda: contradicted(stage, second))

    assert (await stage.row_of(second)).state == "pending"
    assert await stage.postings(second) == []


async def test_a_memory_that_is_too_old_changes_nothing(
    stage: Stage, postman: Postman, working: Adopted
) -> None:
    """Somebody else has closed it since: the money came late, and goes back."""
    payment = await stage.show_qr("alipay")
    attempt = await stage.attempt_of(payment)
    remembered = stage.flow.reads.recall(attempt.number)
    assert remembered is not None
    assert (await stage.close(payment))["status"] == "closed"
    stage.flow.reads.remember(*remembered)

    await postman.tell("alipay", attempt.number, Money(1999, "CNY"))
    await until(lambda: processed(stage, payment))

    assert (await stage.row_of(payment)).state == "closed"


async def test_another_amount_opens_a_case(
    stage: Stage, postman: Postman, working: Adopted
) -> None:
    payment = await stage.show_qr("alipay")
    number = (await stage.attempt_of(payment)).number

    await postman.tell("alipay", number, Money(1, "CNY"))
    await until(lambda: processed(stage, payment))

    assert await stage.cases(payment) == ["amount_differs"]
    assert (await stage.row_of(payment)).state == "pending"


async def test_a_copy_changes_nothing(stage: Stage, postman: Postman, working: Adopted) -> None:
    payment = await stage.show_qr("wechat_pay")
    await stage.customer(payment)
    await asyncio.to_thread(stage.sandbox.settle)
    await until(lambda: paid(stage, payment))
    number = (await stage.attempt_of(payment)).number
    ref = (await stage.attempt_of(payment)).channel_ref

    for _ in range(2):
        await postman.tell("wechat_pay", number, Money(1999, "CNY"), ref=ref)
    await until(lambda: all_believed(stage))

    assert await stage.cases(payment) == []
    assert len(await stage.postings(payment)) == 2


@pytest.mark.parametrize("name", ["payments.before_outcome", "payments.after_outcome"])
async def test_who_dies_before_the_end_leaves_it_to_another(
    stage: Stage, postman: Postman, name: str
) -> None:
    payment = await stage.show_qr("wechat_pay")
    number = (await stage.attempt_of(payment)).number
    worker = stage.platform.worker
    running = asyncio.create_task(worker.run(asyncio.Event()))
    await asyncio.sleep(0)
    failpoints.arm(f"{name}:raise")

    await postman.tell("wechat_pay", number, Money(1999, "CNY"))
    with pytest.raises(SimulatedCrash):
        await running
    failpoints.arm(None)
    worker._crash = None  # a new process has none

    leases = "update task set lease_until = $1 where lease_until is not null"
    await stage.db.execute(leases, (real_now(),))
    await stage.idle()
    assert (await states(stage, payment), await believing(stage)) == ([("processed", 1)], 0)
    assert (await stage.row_of(payment)).state == "succeeded"
    assert len(await stage.postings(payment)) == 2


def test_of_what_is_remembered_the_oldest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    class Numbered:
        def __init__(self, number: str) -> None:
            self.number = number

    monkeypatch.setattr(queries, "RECENT_MAX", 2)
    reads: Any = PaymentReads(cast("Any", None))
    for number in ("one", "two", "three"):
        reads.remember(None, Numbered(number))

    assert reads.recall("one") is None
    assert reads.recall("three") is not None
    assert reads.recall("three") is None, "what was recalled may have changed by then"
