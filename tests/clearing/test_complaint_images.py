"""Pictures of complaints: the customer's are kept here, ours arrive with the answer, once."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from tests.clearing.test_complaints import complaint_about
from tests.dying import dying
from tests.kernel.test_document_types import jpeg, png
from tests.stage import Stage, new_number, staged
from tongbao.clearing.complaints import queries
from tongbao.clearing.complaints.images import FetchImages, images_of, run_fetch_images
from tongbao.clearing.complaints.model import Complaint, ReplyState
from tongbao.clearing.complaints.replies import SendReply, run_send_reply
from tongbao.infra.db import Db
from tongbao.kernel.ids import show
from tongbao.rails.channels.alipay.complaints.images import may_fetch
from tongbao.rails.channels.wechat_pay.complaints.images import id_of
from tongbao_sandbox.launch import RunningSandbox
from tongbao_sdk import Refused

_NO_LEASE: Any = None
CHANNELS = ("wechat_pay", "alipay")
AT = {"wechat_pay": "wechat", "alipay": "alipay"}


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


async def complained(stage: Stage, channel: str, *pictures: bytes) -> Complaint:
    payment = await stage.paid(channel, 1999)
    await complain(stage, payment, channel, *pictures)
    await stage.idle()
    return await complaint_about(stage, payment)


async def complain(stage: Stage, payment: Any, channel: str, *pictures: bytes) -> None:
    number = (await stage.attempt_of(payment)).number
    coded = [b64encode(each).decode() for each in pictures]
    await stage.control(f"{AT[channel]}/complain", number=number, detail="坏的", images=coded)


async def history(stage: Stage, complaint: Complaint) -> list[tuple[str, int]]:
    """What was said, with how many pictures, as the channel tells it."""
    channel: Any = stage.flow.channels[complaint.channel]
    account = await stage.flow.account(complaint.account_id)
    found = (await channel.read_complaint(account, complaint.channel_ref)).outcome
    return [(each.text, each.image_count) for each in found.messages if each.who != "channel"]


async def hand_in(stage: Stage, complaint: Complaint, content: bytes, **more: Any) -> str:
    said = {"name": "a.png", "media_type": "image/png", **more}
    hand_in = stage.client.complaints.hand_in
    made = await stage.call(hand_in, show("cpl", complaint.id), content=content, **said)
    return str(made["id"])


async def answer(stage: Stage, complaint: Complaint, text: str, *images: str) -> Any:
    reply = stage.client.complaints.reply
    return await stage.call(reply, show("cpl", complaint.id), text, image_ids=images)


@pytest.mark.parametrize("channel", CHANNELS)
async def test_what_a_customer_shows_is_kept_encrypted_and_shown_again(
    stage: Stage, channel: str
) -> None:
    shown = (png(3, 2), jpeg(4, 2))
    complaint = await complained(stage, channel, *shown, b"MZ not a picture")

    listed = await stage.call(stage.client.complaints.images, show("cpl", complaint.id))
    kept = [each for each in listed if each["status"] == "kept"]
    read = [await stage.call(stage.client.complaints.image, each["id"]) for each in kept]

    assert {b64decode(each["content"]) for each in read} == set(shown)
    assert sorted(each["status"] for each in listed) == ["kept", "kept", "refused"]
    files = list((stage.platform.settings.data_dir / "blobs").rglob("*"))
    assert files
    assert not any(b"IHDR" in path.read_bytes() for path in files if path.is_file())
    [refused] = [each for each in listed if each["status"] == "refused"]
    with pytest.raises(Refused) as unkept:
        await stage.call(stage.client.complaints.image, refused["id"])
    assert unkept.value.code == "complaint.image_not_found"
    rows = await stage.db.fetch(
        "select reply from complaint_exchange where complaint_id = $1", (complaint.id,)
    )
    assert not any("IHDR" in (each["reply"] or "") for each in rows)


async def test_more_pictures_later_are_fetched_too_and_none_twice(stage: Stage) -> None:
    payment = await stage.paid("wechat_pay", 1999)
    for picture in (png(5, 2), png(5, 2), png(6, 2)):
        await complain(stage, payment, "wechat_pay", picture)
        await stage.idle()

    kept = await images_of(stage.db, await complaint_about(stage, payment))

    assert [each.state for each in kept] == ["kept", "kept"]


async def test_a_silent_channel_is_asked_again_and_nothing_is_lost(stage: Stage) -> None:
    stage.sandbox.fault("wechat", "media", "http_500_not_done", times=1)
    complaint = await complained(stage, "wechat_pay", png(7, 2))
    [waiting] = await images_of(stage.db, complaint)
    await stage.advance(hours=1)
    [there] = await images_of(stage.db, complaint)

    assert (waiting.state, there.state) == ("wanted", "kept")


@pytest.mark.parametrize("place", ["complaints.after_image", "complaints.after_image_blob"])
async def test_whoever_dies_fetching_fetches_again(stage: Stage, place: str) -> None:
    stage.sandbox.fault("wechat", "media", "http_500_not_done", times=1)
    complaint = await complained(stage, "wechat_pay", png(8, 2))
    task = FetchImages(complaint.book, complaint.id)
    with dying(place):
        await run_fetch_images(stage.flow, stage.platform.blobs, task, _NO_LEASE)
    [before] = await images_of(stage.db, complaint)
    for _ in range(2):
        assert await run_fetch_images(stage.flow, stage.platform.blobs, task, _NO_LEASE) is None
    [after] = await images_of(stage.db, complaint)

    assert (before.state, after.state) == ("wanted", "kept")


@pytest.mark.parametrize("channel", CHANNELS)
async def test_ours_arrive_with_the_answer(stage: Stage, channel: str) -> None:
    complaint = await complained(stage, channel)
    images = [await hand_in(stage, complaint, each) for each in (png(9, 2), png(9, 3))]

    await answer(stage, complaint, "已补发", *images)
    await stage.idle()

    [reply] = await queries.replies_of(stage.db, complaint)
    assert (reply.state, reply.sends) == (ReplyState.SENT, 1)
    assert ("已补发", 2) in await history(stage, complaint)


async def test_the_answer_waits_for_its_pictures_and_is_said_once(stage: Stage) -> None:
    complaint = await complained(stage, "wechat_pay")
    image = await hand_in(stage, complaint, png(10, 2))
    stage.sandbox.fault("wechat", "media", "http_500_not_done", times=1)

    await answer(stage, complaint, "看图", image)
    await stage.idle()
    [waits] = await queries.replies_of(stage.db, complaint)
    await stage.advance(minutes=2)
    [done] = await queries.replies_of(stage.db, complaint)

    assert (waits.state, waits.sends) == (ReplyState.REQUESTED, 0)
    assert (done.state, done.sends) == (ReplyState.SENT, 1)
    assert (await history(stage, complaint)).count(("看图", 1)) == 1


async def test_whoever_dies_sending_a_picture_up_says_it_once(stage: Stage) -> None:
    complaint = await complained(stage, "alipay")
    image = await hand_in(stage, complaint, png(11, 2))
    stage.sandbox.fault("alipay", "media", "http_500_not_done", times=1)
    await answer(stage, complaint, "看图", image)
    await stage.idle()
    [reply] = await queries.replies_of(stage.db, complaint)
    task = SendReply(complaint.book, reply.id)
    with dying("complaints.after_image_sent"):
        await run_send_reply(stage.flow, stage.platform.blobs, task, _NO_LEASE)
    for _ in range(2):
        await run_send_reply(stage.flow, stage.platform.blobs, task, _NO_LEASE)

    assert (await history(stage, complaint)).count(("看图", 1)) == 1


async def test_only_pictures_of_this_very_complaint_go_along(stage: Stage) -> None:
    complaint, other = [await complained(stage, "wechat_pay") for _ in range(2)]
    paper = await hand_in(stage, complaint, b"%PDF-1.7", media_type="application/pdf")
    foreign = await hand_in(stage, other, png(12, 2))
    own = await hand_in(stage, complaint, png(12, 3))

    codes = []
    for images in ([paper], [foreign], [own, own], [f"evf_{'0' * 26}"]):
        with pytest.raises(Refused) as refused:
            await answer(stage, complaint, "x", *images)
        codes.append(refused.value.code)
    with pytest.raises(Refused) as many:
        await answer(stage, complaint, "x", *[own] * 5)

    assert codes == ["complaint.image_not_sendable"] * 4
    assert many.value.status == 400
    assert await queries.replies_of(stage.db, complaint) == []


async def test_another_merchant_sees_no_picture(stage: Stage) -> None:
    complaint = await complained(stage, "wechat_pay", png(13, 2))
    [image] = await images_of(stage.db, complaint)
    stranger = stage.client_of(await stage.open_shop())
    shown = show("cpl", complaint.id)
    calls = (
        (stranger.complaints.image, show("cpi", image.id)),
        (stranger.complaints.images, shown),
    )
    codes = []
    for call, wanted in calls:
        with pytest.raises(Refused) as refused:
            await stage.call(call, wanted)
        codes.append((refused.value.status, refused.value.code))
    file = {"name": new_number(), "media_type": "image/png", "content": png()}
    with pytest.raises(Refused) as refused:
        await stage.call(stranger.complaints.hand_in, shown, **file)

    assert codes == [(404, "complaint.image_not_found"), (404, "complaint.not_found")]
    assert refused.value.code == "complaint.not_found"


async def test_pictures_are_fetched_from_the_vendors_hosts_alone(stage: Stage) -> None:
    account = await stage.flow.account(stage.accounts["alipay"])
    real = replace(account, gateway="https://openapi.alipay.com/gateway.do")
    good = ("https://mdn.alipayobjects.com/a.jpg", "https://dl.django.t.taobao.com/rest/1.0/image")
    bad = (
        *("http://mdn.alipayobjects.com/a", "https://alipay.com.evil.example/a", "file:///etc/x"),
        *("https://127.0.0.1/a", "https://169.254.169.254/a", "https://u@x.alipay.com/a"),
        *("https://x.alipay.com:8080/a", "https://[::1", "//x.alipay.com/a", ""),
    )
    assert [may_fetch(real, each) for each in good] == [True, True]
    assert not any(may_fetch(real, each) for each in bad)
    path = "/v3/merchant-service/images/"
    assert id_of(f"https://api.mch.weixin.qq.com{path}Chsy%3D%3D") == "Chsy=="
    strange = (f"https://evil.example{path}../../pay", f"https://h{path}", "https://[", "/x/y")
    assert [id_of(each) for each in strange if id_of(each) not in {None, "../../pay"}] == []
