"""Complaints: read from the channel by notice and by the hour, and each answer said once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

from tests.stage import Stage, staged
from tongbao.clearing.complaints import queries
from tongbao.clearing.complaints.complaints import (
    PullComplaints,
    hear,
    run_pull_complaints,
    seed,
)
from tongbao.clearing.complaints.model import Complaint, ComplaintContended, ReplyState
from tongbao.clearing.complaints.queries import ComplaintFilter
from tongbao.clearing.complaints.replies import Said, SendReply, request_reply, run_send_reply
from tongbao.infra import failpoints
from tongbao.infra.db import Db
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.kernel.ids import new_id, parse, show
from tongbao_sandbox.launch import RunningSandbox
from tongbao_sdk import Refused

_NO_LEASE: Any = None


@pytest.fixture(scope="module")
async def module_stage(
    module_db: Db, tmp_path_factory: pytest.TempPathFactory, sandbox: RunningSandbox
) -> AsyncIterator[Stage]:
    async with staged(module_db, tmp_path_factory.mktemp("platform"), sandbox) as ready:
        yield ready


@pytest.fixture
async def stage(module_stage: Stage) -> Stage:
    module_stage.sandbox.delete("faults")
    await module_stage.live_together()
    return module_stage


async def complain(stage: Stage, payment: Any, detail: str = "东西没收到") -> str:
    number = (await stage.attempt_of(payment)).number
    told = await stage.control("wechat/complain", number=number, detail=detail)
    return str(told["complaint_id"])


async def complained(stage: Stage) -> Complaint:
    payment = await stage.paid("wechat_pay", 1999)
    await complain(stage, payment)
    await stage.idle()
    return await complaint_about(stage, payment)


async def complaint_about(stage: Stage, payment: Any) -> Complaint:
    wanted = ComplaintFilter(payment_id=parse("pay", payment["id"]))
    [found] = (await queries.list_complaints(stage.db, wanted)).items
    return found


async def account(stage: Stage) -> Any:
    return await stage.flow.account(stage.accounts["wechat_pay"])


async def again(stage: Stage, complaint: Complaint) -> Complaint:
    return await queries.complaint_with_id(stage.db, complaint.id)


async def said_there(stage: Stage, complaint: Complaint) -> list[str]:
    """What the merchant has said, as the channel has it."""
    await hear(stage.flow, await account(stage), complaint.channel_ref)
    said = await queries.messages_of(stage.db, complaint)
    return [each.text for each in said if each.kind == "MERCHANT_RESPONSE"]


async def ask_to_say(stage: Stage, complaint: Complaint, text: str) -> UUID:
    reply_id = new_id()
    async with stage.db.begin("key") as tx:
        await request_reply(tx, complaint, Said("reply", text), reply_id=reply_id)
    return reply_id


async def test_a_complaint_comes_by_notice_is_answered_and_completed(stage: Stage) -> None:
    complaint = await complained(stage)
    shown = {"id": show("cpl", complaint.id)}
    own = f"/v1/complaints/{shown['id']}"
    assert (complaint.state, complaint.amount, complaint.times) == ("pending", 1999, 1)
    assert await stage.events(shown) == ["complaint.opened"]

    post, get = stage.client.transport.post, stage.client.transport.get
    asked = await stage.call(post, f"{own}/replies", {"text": "已补发"})
    assert asked["status"] == "requested"
    await stage.idle()
    [reply] = await queries.replies_of(stage.db, complaint)
    assert (reply.state, reply.sends) == (ReplyState.SENT, 1)
    assert (await again(stage, complaint)).state == "processing"
    said = await stage.call(get, f"{own}/messages")
    assert [(each["who"], each["text"]) for each in said] == [
        ("customer", "东西没收到"),
        ("merchant", "已补发"),
    ]
    await stage.call(post, f"{own}/replies", {"complete": True})
    await stage.idle()
    assert (await stage.call(get, own))["status"] == "processed"
    with pytest.raises(Refused) as refused:
        await stage.call(post, f"{own}/replies", {"text": "more"})
    assert refused.value.code == "complaint.over"


async def test_a_notice_that_is_lost_is_made_up_for_within_the_hour(stage: Stage) -> None:
    payment = await stage.paid("wechat_pay", 500)
    stage.fault("wechat_pay", "callback", "lost", times=1)
    await complain(stage, payment)
    await stage.idle()
    wanted = ComplaintFilter(payment_id=parse("pay", payment["id"]))
    assert (await queries.list_complaints(stage.db, wanted)).items == []

    async with stage.db.begin("tests") as tx:
        await seed(tx)
    await stage.advance(hours=1.01)
    async with stage.db.begin("tests") as tx:
        await tx.execute("delete from task where type = 'complaints.pull'", ())

    assert (await complaint_about(stage, payment)).detail == "东西没收到"


async def test_a_complaint_nobody_answers_in_time_is_counted_until_somebody_does(
    stage: Stage,
) -> None:
    async def overdue() -> float | None:
        await run_pull_complaints(stage.flow, PullComplaints(), _NO_LEASE)
        return REGISTRY.get_sample_value("tongbao_complaints_overdue", {"mode": "sandbox"})

    complaint = await complained(stage)
    before = await overdue()
    assert before is not None
    await stage.db.execute(
        "update complaint set answer_by = $2 where id = $1", (complaint.id, stage.db.clock.now())
    )
    assert await overdue() == before + 1

    await ask_to_say(stage, complaint, "已补发")
    await stage.idle()
    assert (await again(stage, complaint)).state == "processing"
    assert await overdue() == before


async def test_who_complains_again_opens_the_same_complaint_again(stage: Stage) -> None:
    payment = await stage.paid("wechat_pay", 700)
    ref = await complain(stage, payment)
    await stage.idle()
    first = await complaint_about(stage, payment)
    await ask_to_say(stage, first, "ok")
    await stage.advance(minutes=5)
    assert await complain(stage, payment, "还是没收到") == ref
    await stage.idle()

    complaint = await complaint_about(stage, payment)
    assert (complaint.id, complaint.times, complaint.has_news) == (first.id, 2, True)
    assert complaint.answer_by > first.answer_by


async def test_hearing_it_twice_writes_it_once(stage: Stage) -> None:
    complaint = await complained(stage)
    told = await account(stage)
    heard = await asyncio.gather(*[hear(stage.flow, told, complaint.channel_ref) for _ in range(4)])
    assert {each and each.version for each in heard} == {complaint.version}
    assert await stage.events({"id": show("cpl", complaint.id)}) == ["complaint.opened"]


@pytest.mark.parametrize(
    ("fault", "sends"),
    [
        ("time_out_done", 1),
        ("http_500_done", 1),
        ("bad_signature_done", 1),
        ("time_out_not_done", 2),
        ("http_500_not_done", 2),
        ("reset", 2),
    ],
)
async def test_an_answer_whose_end_is_unknown_is_said_once(
    stage: Stage, fault: str, sends: int
) -> None:
    complaint = await complained(stage)
    stage.fault("wechat_pay", "complaint", fault, number=complaint.channel_ref)
    reply_id = await ask_to_say(stage, complaint, "已退款")
    await stage.idle()
    reply = await queries.reply_with_id(stage.db, complaint.book, reply_id)
    assert reply.state is ReplyState.UNKNOWN
    await stage.advance(minutes=2)

    reply = await queries.reply_with_id(stage.db, complaint.book, reply_id)
    assert (reply.state, reply.sends) == (ReplyState.SENT, sends)
    assert await said_there(stage, complaint) == ["已退款"]


async def test_nothing_is_said_again_while_the_channel_does_not_say(stage: Stage) -> None:
    complaint = await complained(stage)
    stage.fault("wechat_pay", "complaint", "time_out_not_done", number=complaint.channel_ref)
    reply_id = await ask_to_say(stage, complaint, "hello")
    await stage.idle()
    stage.fault("wechat_pay", "query", "http_500", number=complaint.channel_ref, times=-1)
    with pytest.raises(ComplaintContended):
        await run_send_reply(
            stage.flow, stage.platform.blobs, SendReply(complaint.book, reply_id), _NO_LEASE
        )
    reply = await queries.reply_with_id(stage.db, complaint.book, reply_id)
    assert (reply.state, reply.sends) == (ReplyState.UNKNOWN, 1)
    stage.sandbox.delete("faults")
    await stage.advance(minutes=2)
    assert await said_there(stage, complaint) == ["hello"]


async def test_the_same_words_twice_on_purpose_are_said_twice(stage: Stage) -> None:
    complaint = await complained(stage)
    await ask_to_say(stage, complaint, "请稍候")
    await stage.idle()
    stage.fault("wechat_pay", "complaint", "time_out_not_done", number=complaint.channel_ref)
    await ask_to_say(stage, complaint, "请稍候")
    await stage.idle()
    await stage.advance(minutes=2)
    assert await said_there(stage, complaint) == ["请稍候", "请稍候"]


@pytest.mark.parametrize(
    "place",
    ["complaints.before_call", "complaints.after_call", "complaints.after_outcome"],
)
async def test_whoever_dies_saying_it_says_it_once(stage: Stage, place: str) -> None:
    complaint = await complained(stage)
    reply_id = await ask_to_say(stage, complaint, "已处理")
    task = SendReply(complaint.book, reply_id)
    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await run_send_reply(stage.flow, stage.platform.blobs, task, _NO_LEASE)
    failpoints.arm(None)
    await run_send_reply(stage.flow, stage.platform.blobs, task, _NO_LEASE)
    await run_send_reply(stage.flow, stage.platform.blobs, task, _NO_LEASE)
    assert await said_there(stage, complaint) == ["已处理"]
    await stage.idle()
    assert await said_there(stage, complaint) == ["已处理"]


@pytest.mark.parametrize(
    "place", ["complaints.after_read", "complaints.before_record", "complaints.after_record"]
)
async def test_whoever_dies_hearing_hears_it_once(stage: Stage, place: str) -> None:
    payment = await stage.paid("wechat_pay", 800)
    stage.fault("wechat_pay", "callback", "lost", times=1)
    ref = await complain(stage, payment)
    told = await account(stage)
    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await hear(stage.flow, told, ref)
    failpoints.arm(None)
    complaint = await hear(stage.flow, told, ref)
    assert complaint is not None
    assert await stage.events({"id": show("cpl", complaint.id)}) == ["complaint.opened"]
    stage.sandbox.delete("faults")


async def test_whoever_dies_looking_looks_again(stage: Stage) -> None:
    complaint = await complained(stage)
    stage.fault("wechat_pay", "complaint", "time_out_done", number=complaint.channel_ref)
    reply_id = await ask_to_say(stage, complaint, "好的")
    task = SendReply(complaint.book, reply_id)
    await run_send_reply(stage.flow, stage.platform.blobs, task, _NO_LEASE)
    failpoints.arm("complaints.after_look:raise")
    with pytest.raises(SimulatedCrash):
        await run_send_reply(stage.flow, stage.platform.blobs, task, _NO_LEASE)
    failpoints.arm(None)
    await run_send_reply(stage.flow, stage.platform.blobs, task, _NO_LEASE)
    assert await said_there(stage, complaint) == ["好的"]


async def test_another_merchant_sees_nothing_of_it(stage: Stage) -> None:
    complaint = await complained(stage)
    own = f"/v1/complaints/{show('cpl', complaint.id)}"
    stranger = stage.client_of(await stage.open_shop()).transport
    for ask in (
        lambda: stranger.get(own),
        lambda: stranger.get(f"{own}/messages"),
        lambda: stranger.post(f"{own}/replies", {"text": "mine"}),
    ):
        with pytest.raises(Refused) as refused:
            await stage.call(ask)
        assert refused.value.code == "complaint.not_found"
    assert (await stage.call(stranger.get, "/v1/complaints"))["items"] == []


async def test_a_complaint_about_nothing_of_ours_is_not_taken(stage: Stage) -> None:
    assert await hear(stage.flow, await account(stage), "20020182020010108007661") is None
