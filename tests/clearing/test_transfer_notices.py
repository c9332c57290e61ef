"""What a channel tells of a transfer is a reason to ask, and its end is the same whatever is told.

Channel × state × disturbance: each disturbance of a cell has a transfer of its own, of one batch,
and time moves once for all of them. Notices of payments and refunds: tests/payments.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.clearing.conftest import Day
from tests.clearing.test_transfers import let_go, row, send
from tests.payments.letters import Letter, Postman, states_of_callbacks
from tests.stage import AT_SANDBOX, Stage, staged
from tongbao.clearing.transfers.model import TransferItem, TransferState
from tongbao.clearing.transfers.queries import batch_with_id, items_of_batch
from tongbao.infra.db import Db
from tongbao.kernel.ids import parse, show
from tongbao.kernel.money import Money
from tongbao_sandbox.launch import RunningSandbox

DISTURBED = ("lost", "late", "doubled", "reordered", "forged", "wrong_amount", "other_merchant")
TELLING = {"doubled", "reordered", "wrong_amount"}
"""After these the end is known at once: whoever is told anything genuine asks."""
STATES = ("waiting", "unknown", "known", "failed")
PAYEES = {"wechat_pay": "oPayee00000000000000000000{}", "alipay": "20887220000002{}1"}
COPIES = 10
GOOD = {200, 204}


@pytest.fixture(scope="module")
async def module_stage(
    module_db: Db, tmp_path_factory: pytest.TempPathFactory, sandbox: RunningSandbox
) -> AsyncIterator[Stage]:
    async with staged(module_db, tmp_path_factory.mktemp("platform"), sandbox) as ready:
        yield ready


@pytest.fixture(scope="module")
async def postman(module_stage: Stage) -> AsyncIterator[Postman]:
    async with Postman(module_stage) as carrying:
        yield carrying


@pytest.fixture
async def day(module_stage: Stage) -> Day:
    module_stage.sandbox.delete("faults")
    await module_stage.live_together()
    return Day(module_stage)


class Transferred:
    """A transfer, and how to tell of it."""

    def __init__(self, day: Day, channel: str, item: TransferItem) -> None:
        self.day, self.channel, self.item = day, channel, item
        self.number, self.money = item.channel_number, item.money

    async def letter(self, postman: Postman, **lies: Any) -> Letter:
        account = await postman.account(self.channel)
        money = lies.pop("money", self.money)
        make = postman.institution.transferred
        return await asyncio.to_thread(lambda: make(account, self.number, money, **lies))

    async def tell(self, postman: Postman, **lies: Any) -> int:
        account = await postman.account(self.channel)
        return (await postman.deliver(account, await self.letter(postman, **lies))).status_code


async def disturb(what: str, told: Transferred, postman: Postman) -> None:
    """Let one thing go wrong with a notice; ``late`` and ``lost`` tell nothing now."""
    match what:
        case "doubled":
            account, letter = await postman.account(told.channel), await told.letter(postman)
            copies = (postman.deliver(account, letter) for _ in range(COPIES))
            assert all(reply.is_success for reply in await asyncio.gather(*copies))
        case "reordered":
            assert await told.tell(postman) in GOOD
            assert await told.tell(postman, waiting=True) in GOOD
        case "forged":
            assert await told.tell(postman, variant="forged") == 500
        case "wrong_amount":
            assert await told.tell(postman, money=Money(told.money.amount + 1, "CNY")) in GOOD
        case "other_merchant":
            assert await told.tell(postman, mchid="1900009999") in GOOD


async def rows_of(day: Day, batch: dict[str, Any]) -> tuple[TransferItem, ...]:
    found = await batch_with_id(day.db, parse("trb", batch["id"]))
    return tuple((await items_of_batch(day.db, found)).items)


async def end_there(day: Day, channel: str, number: str, *, well: bool) -> None:
    """Let the payee confirm, or the transfer fail, at the channel; its own notice is lost."""
    if channel == "alipay":
        state = "success" if well else "fail"
        await day.stage.control("alipay/transfer", number=number, state=state)
    else:
        action = "confirm" if well else "fail"
        await day.stage.control("wechat/transfer", number=number, action=action)


async def bring_to(day: Day, channel: str, state: str) -> tuple[TransferItem, ...]:
    """A transfer for each disturbance, ended at the channel and known here as the state says."""
    await day.paid(channel, 100_000)
    at = AT_SANDBOX[channel]
    day.sandbox.fault(at, "callback", "lost", times=99)
    payee = PAYEES[channel]
    report = await send(
        day, *(row(what, channel, payee.format(n), "10.00") for n, what in enumerate(DISTURBED, 1))
    )
    assert report["faults"] == []
    if state == "unknown":
        day.sandbox.fault(at, "transfer", "time_out_done", times=len(DISTURBED))
    elif channel == "alipay" and state != "known":
        day.sandbox.fault(at, "transfer", "dealing", times=len(DISTURBED))
    await let_go(day, report["batch"])
    await day.stage.idle()
    rows = await rows_of(day, report["batch"])
    is_over = channel == "alipay" and state in {"known", "unknown"}  # it pays at once
    for each in rows:
        if not is_over:
            await end_there(day, channel, each.channel_number, well=state != "failed")
    if state in {"known", "failed"}:
        await day.stage.advance(hours=2)
    return await rows_of(day, report["batch"])


EARLIER = {
    "waiting": {TransferState.PENDING},
    "unknown": {TransferState.UNKNOWN},
    "known": {TransferState.SUCCEEDED},
    "failed": {TransferState.FAILED},
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("channel", ["wechat_pay", "alipay"])
async def test_a_transfer_ends_the_same_whatever_is_told_of_it(
    day: Day, postman: Postman, channel: str, state: str
) -> None:
    merchant = day.stage.shop.merchant.id
    earlier = await day.booked("merchant_payable", merchant)
    rows = await bring_to(day, channel, state)
    assert {each.state for each in rows} == EARLIER[state]
    paid_in = 100_000 - 800
    things = [Transferred(day, channel, each) for each in rows]
    told = dict(zip(DISTURBED, things, strict=True))

    for what, each in told.items():
        await disturb(what, each, postman)
    await day.stage.idle()
    batch = {"id": show("trb", rows[0].batch_id)}
    end = TransferState.FAILED if state == "failed" else TransferState.SUCCEEDED
    now = zip(DISTURBED, await rows_of(day, batch), strict=True)
    known = {what for what, each in now if each.state is end}
    assert known == (TELLING if state in {"waiting", "unknown"} else set(DISTURBED))
    await day.stage.advance(hours=2)
    assert await told["late"].tell(postman) in GOOD
    await day.stage.idle()

    assert {each.state for each in await rows_of(day, batch)} == {end}
    events = [await day.stage.events({"id": show("tri", each.id)}) for each in rows]
    assert events == [["transfer.ended"]] * len(rows)
    sent = 0 if state == "failed" else len(rows) * 1_000
    assert await day.booked("merchant_payable", merchant) == earlier + paid_in - sent
    assert await states_of_callbacks(day.stage, told["forged"].number) == []
    assert await states_of_callbacks(day.stage, told["other_merchant"].number) == ["mismatched"]
    await day.sound()
