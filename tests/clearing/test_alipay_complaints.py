"""Complaints at Alipay: by message and by the hour, answered once, dealt with once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from tests.clearing.test_complaints import again, ask_to_say, complaint_about
from tests.stage import Stage, staged
from tongbao.clearing.complaints import queries
from tongbao.clearing.complaints.complaints import hear, seed
from tongbao.clearing.complaints.model import Complaint, ReplyState
from tongbao.infra.db import Db
from tongbao.kernel.ids import show
from tongbao_sandbox.launch import RunningSandbox
from tongbao_sdk import Refused


@pytest.fixture(scope="module")
async def module_stage(
    module_db: Db, tmp_path_factory: pytest.TempPathFactory, sandbox: RunningSandbox
) -> AsyncIterator[Stage]:
    async with staged(module_db, tmp_path_factory.mktemp("platform"), sandbox) as ready:
        account = await ready.flow.account(ready.accounts["alipay"])
        sandbox.post("settings", **{"alipay.app_gateway": account.notify_url})
        yield ready


@pytest.fixture
async def stage(module_stage: Stage) -> Stage:
    module_stage.sandbox.delete("faults")
    await module_stage.live_together()
    return module_stage


async def complain(stage: Stage, payment: Any, detail: str = "一直没有发货") -> str:
    number = (await stage.attempt_of(payment)).number
    told = await stage.control("alipay/complain", number=number, detail=detail)
    return str(told["complain_event_id"])


async def complained(stage: Stage) -> Complaint:
    payment = await stage.paid("alipay", 1999)
    await complain(stage, payment)
    await stage.idle()
    return await complaint_about(stage, payment)


async def said_there(stage: Stage, complaint: Complaint) -> list[str]:
    account = await stage.flow.account(stage.accounts["alipay"])
    await hear(stage.flow, account, complaint.channel_ref)
    said = await queries.messages_of(stage.db, complaint)
    return [each.text for each in said if each.kind == "MERCHANT_RESPONSE"]


async def reply_of(stage: Stage, complaint: Complaint, reply_id: UUID) -> Any:
    found = await queries.replies_of(stage.db, complaint)
    return next(each for each in found if each.id == reply_id)


async def test_a_complaint_comes_by_message_is_answered_and_dealt_with(stage: Stage) -> None:
    complaint = await complained(stage)
    own = f"/v1/complaints/{show('cpl', complaint.id)}"
    post, get = stage.client.transport.post, stage.client.transport.get
    assert (complaint.channel, complaint.state, complaint.amount, complaint.kind) == (
        "alipay",
        "pending",
        1999,
        "未收到货",
    )

    await stage.call(post, f"{own}/replies", {"text": "今天发出"})
    await stage.idle()
    answered = await said_there(stage, complaint)
    assert (await again(stage, complaint)).state == "processing"
    await stage.call(post, f"{own}/replies", {"complete": True})
    await stage.idle()
    await said_there(stage, complaint)

    assert answered == ["今天发出"]
    assert (await stage.call(get, own))["status"] == "processed"
    said = await stage.call(get, f"{own}/messages")
    assert [(each["who"], each["text"]) for each in said] == [
        ("customer", "一直没有发货"),
        ("merchant", "今天发出"),
        ("merchant", ""),
    ]
    with pytest.raises(Refused) as refused:
        await stage.call(post, f"{own}/replies", {"text": "more"})
    assert refused.value.code == "complaint.over"


async def test_a_message_that_is_lost_is_made_up_for_within_the_hour(stage: Stage) -> None:
    payment = await stage.paid("alipay", 500)
    stage.fault("alipay", "callback", "lost", times=1)
    await complain(stage, payment)
    async with stage.db.begin("tests") as tx:
        await seed(tx)
    await stage.advance(hours=1.01)
    async with stage.db.begin("tests") as tx:
        await tx.execute("delete from task where type = 'complaints.pull'", ())

    assert (await complaint_about(stage, payment)).detail == "一直没有发货"


async def test_more_words_of_the_customer_are_news(stage: Stage) -> None:
    payment = await stage.paid("alipay", 700)
    ref = await complain(stage, payment)
    await stage.idle()
    first = await complaint_about(stage, payment)
    assert await complain(stage, payment, "还在等") == ref
    await stage.idle()

    now = await complaint_about(stage, payment)
    said = await queries.messages_of(stage.db, now)
    assert (now.id, now.has_news, first.has_news) == (first.id, True, False)
    assert [each.text for each in said] == ["一直没有发货", "还在等"]


@pytest.mark.parametrize(
    "fault", ["http_500_done", "http_500_not_done", "time_out_done", "bad_signature_done"]
)
async def test_an_answer_is_said_once_whatever_the_gateway_says(stage: Stage, fault: str) -> None:
    complaint = await complained(stage)
    stage.fault("alipay", "complaint", fault, times=1)
    reply_id = await ask_to_say(stage, complaint, "已补发")
    for _ in range(4):
        await stage.advance(minutes=5)

    assert (await reply_of(stage, complaint, reply_id)).state is ReplyState.SENT
    assert await said_there(stage, complaint) == ["已补发"]
