"""The pages of complaints: listed under every licence, with pictures, each look written down."""

from __future__ import annotations

from base64 import b64encode

from tests.kernel.test_document_types import png
from tests.stage import Stage
from tests.surfaces.visitors import hire, reader
from tongbao.clearing.complaints import queries
from tongbao.clearing.complaints.images import images_of
from tongbao.clearing.complaints.model import Complaint
from tongbao.clearing.complaints.queries import ComplaintFilter
from tongbao.infra.audit import entries_of_subject
from tongbao.kernel.ids import new_id, parse, show
from tongbao.parties.identity.model import Role


async def complained(stage: Stage) -> Complaint:
    payment = await stage.paid("wechat_pay", 1999)
    number = (await stage.attempt_of(payment)).number
    picture = b64encode(png()).decode()
    await stage.control("wechat/complain", number=number, detail="<b>坏的</b>", images=[picture])
    await stage.idle()
    wanted = ComplaintFilter(payment_id=parse("pay", payment["id"]))
    [found] = (await queries.list_complaints(stage.db, wanted)).items
    return found


async def test_complaints_are_listed_filtered_and_their_pictures_seen(shared_stage: Stage) -> None:
    stage = shared_stage
    complaint, other = await complained(stage), await complained(stage)
    [image] = await images_of(stage.db, complaint)
    own, shown = f"/console/complaints/{show('cpl', complaint.id)}", show("cpi", image.id)
    hand_in, said = stage.client.complaints.hand_in, {"name": "a.png", "media_type": "image/png"}
    file = await stage.call(hand_in, show("cpl", complaint.id), content=png(3, 3), **said)

    async with reader(stage, await hire(stage, Role.FINANCE, "wang.min")) as page:
        listed = (await page.get("/console/complaints")).text
        payment = show("pay", complaint.payment_id)
        only = (await page.get(f"/console/complaints?status=pending&payment={payment}")).text
        none = (await page.get("/console/complaints?status=processed&mode=live")).text
        wrong = [
            (await page.get(f"/console/complaints?{query}")).status_code
            for query in ("status=x", "merchant=x", "payment=x", "cursor=x")
        ]
        told = (await page.get(own)).text
        picture = await page.get(f"{own}/images/{shown}")
        handed = await page.get(f"{own}/files/{file['id']}")
        strange = f"/console/complaints/{show('cpl', other.id)}"
        missing = [
            (await page.get(f"{strange}/images/{shown}")).status_code,
            (await page.get(f"{strange}/files/{file['id']}")).status_code,
            (await page.get(f"{own}/images/{show('cpi', new_id())}")).status_code,
        ]

    assert complaint.channel_ref in listed
    assert other.channel_ref in listed
    assert complaint.channel_ref in only
    assert other.channel_ref not in only
    assert complaint.channel_ref not in none
    assert set(wrong) <= {400, 404}
    assert f'src="{own}/images/{shown}"' in told
    assert "&lt;b&gt;坏的" in told
    assert (picture.content, picture.headers["content-type"]) == (png(), "image/png")
    assert "sandbox" in picture.headers["content-security-policy"]
    assert handed.content == png(3, 3)
    assert missing == [404] * 3
    [seen] = await entries_of_subject(stage.db, shown)
    assert seen.action == "complaint.image_seen"
