"""The routes of complaints: read them, answer the customer, say that all is done."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from litestar import Response, get, post
from msgspec import Meta, Struct

from tongbao.clearing.complaints import queries
from tongbao.clearing.complaints.images import content_of_image, image_of_merchant, images_of
from tongbao.clearing.complaints.model import (
    ComplaintNotFound,
    ComplaintOver,
    ComplaintState,
    ComplaintView,
    ImageNotFound,
    ImageNotSendable,
    ImageView,
    ReplyView,
    view_complaint,
    view_image,
    view_reply,
)
from tongbao.clearing.complaints.queries import ComplaintFilter
from tongbao.clearing.complaints.replies import Said, request_reply
from tongbao.clearing.disputes.evidence import (
    FileView,
    HandIn,
    file_with_id,
    keep_file,
    view_file,
)
from tongbao.clearing.disputes.model import AnswerMissing, EvidenceFull
from tongbao.infra.blobs.model import BlobEmpty, BlobKindDiffers, BlobTooLarge
from tongbao.infra.blobs.scanning import BlobMalicious, ScannerUnavailable
from tongbao.infra.blobs.store import Blobs
from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import Idempotency, answer_once
from tongbao.infra.web.request import ApiRequest, InvalidValue
from tongbao.kernel.ids import new_id, parse
from tongbao.kernel.pages import Page
from tongbao.payments.collecting.outcomes import Flow


class MessageView(Struct, frozen=True):
    """One thing that was said or done about a complaint."""

    who: Literal["customer", "merchant", "channel"]
    kind: str
    text: str
    image_count: int
    at: datetime


class ImageContentView(Struct, frozen=True):
    """A picture itself; ``content`` is base64."""

    object: Literal["complaint_image_content"]
    id: str
    media_type: str
    content: bytes


class ReplyToComplaint(Struct, frozen=True, forbid_unknown_fields=True):
    """Tell the customer this, or (``complete``) say that all is done.

    ``image_ids`` are pictures that were handed in for the complaint, up to four.
    """

    text: Annotated[str, Meta(max_length=500)] = ""
    complete: bool = False
    image_ids: Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=4)] = []


@get("/v1/complaints", opt=needs("disputes:read"))
async def list_complaints(
    db: Db,
    caller: Caller,
    *,
    status: ComplaintState | None = None,
    payment_id: str | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[ComplaintView]:
    """Return customers' complaints, newest first, by status or payment."""
    wanted = ComplaintFilter(
        merchant_id=caller.merchant_id,
        mode=caller.mode,
        status=status,
        payment_id=parse("pay", payment_id) if payment_id else None,
    )
    page = await queries.list_complaints(db, wanted, cursor=cursor, limit=limit)
    return Page([view_complaint(each) for each in page.items], page.next_cursor)


@get("/v1/complaints/{complaint_id:str}", opt=needs("disputes:read", refuses=[ComplaintNotFound]))
async def get_complaint(complaint_id: str, db: Db, caller: Caller) -> ComplaintView:
    """Return one complaint."""
    target = parse("cpl", complaint_id)
    found = await queries.complaint_of_merchant(db, target, caller.merchant_id, caller.mode)
    return view_complaint(found)


@get(
    "/v1/complaints/{complaint_id:str}/messages",
    opt=needs("disputes:read", refuses=[ComplaintNotFound]),
)
async def list_complaint_messages(complaint_id: str, db: Db, caller: Caller) -> list[MessageView]:
    """Return what customer, merchant and channel said, oldest first."""
    target = parse("cpl", complaint_id)
    found = await queries.complaint_of_merchant(db, target, caller.merchant_id, caller.mode)
    said = await queries.messages_of(db, found)
    return [MessageView(m.who, m.kind, m.text, m.image_count, m.at) for m in said]


@post(
    "/v1/complaints/{complaint_id:str}/replies",
    opt=needs(
        "disputes:write",
        idempotent=True,
        refuses=[ComplaintNotFound, ComplaintOver, AnswerMissing, ImageNotSendable],
        request_example=ReplyToComplaint("We have sent the parcel again; here is its number."),
    ),
)
async def reply_to_complaint(
    complaint_id: str, data: ReplyToComplaint, request: ApiRequest, flow: Flow, caller: Caller
) -> Response[ReplyView]:
    """Answer the customer through the channel, once; with ``complete``, close the complaint.

    It comes back as requested and is sent at once; what the channel then says of the complaint
    follows as an event.
    """
    target = parse("cpl", complaint_id)
    kind: Literal["reply", "complete"] = "complete" if data.complete else "reply"
    images = tuple(parse("evf", each) for each in data.image_ids)
    said = Said(kind, data.text.strip(), images)
    if data.complete and images:
        raise InvalidValue(param="$.image_ids", reason="pictures go with words, not with the end")

    async def fresh(use: Idempotency) -> ReplyView:
        found = await queries.complaint_of_merchant(
            flow.db, target, caller.merchant_id, caller.mode
        )
        if not data.complete and not said.text:
            raise AnswerMissing(param="text")
        reply_id = new_id()
        async with flow.db.begin(caller.actor) as tx:
            await use.take(tx, reply_id)
            reply = await request_reply(tx, found, said, reply_id=reply_id)
        flow.nudge()
        return view_reply(reply)

    async def resume(reply_id: UUID) -> ReplyView:
        return view_reply(await queries.reply_with_id(flow.db, caller.book, reply_id))

    return await answer_once(request, flow.db, fresh=fresh, resume=resume)


@post(
    "/v1/complaints/{complaint_id:str}/files",
    opt=needs(
        "disputes:write",
        idempotent=True,
        refuses=[
            ComplaintNotFound,
            ComplaintOver,
            EvidenceFull,
            BlobTooLarge,
            BlobKindDiffers,
            BlobEmpty,
            BlobMalicious,
            ScannerUnavailable,
        ],
        request_example=HandIn("parcel.jpg", "image/jpeg", b"\xff\xd8\xff"),
    ),
)
async def hand_in_complaint_file(
    complaint_id: str,
    data: HandIn,
    request: ApiRequest,
    flow: Flow,
    *,
    blobs: Blobs,
    caller: Caller,
) -> Response[FileView]:
    """Hand in a picture for an answer; it goes to the customer once an answer names it.

    The same content again is the same file.
    """
    target = parse("cpl", complaint_id)

    async def fresh(use: Idempotency) -> FileView:
        found = await queries.complaint_of_merchant(
            flow.db, target, caller.merchant_id, caller.mode
        )
        if found.state is ComplaintState.PROCESSED:
            raise ComplaintOver
        kept = await keep_file(flow.db, blobs, found, data, actor=caller.actor, file_id=new_id())
        async with flow.db.begin(caller.actor) as tx:
            await use.take(tx, kept.id)
        return view_file(kept)

    async def resume(kept: UUID) -> FileView:
        return view_file(await file_with_id(flow.db, kept))

    return await answer_once(request, flow.db, fresh=fresh, resume=resume)


@get(
    "/v1/complaints/{complaint_id:str}/images",
    opt=needs("disputes:read", refuses=[ComplaintNotFound]),
)
async def list_complaint_images(complaint_id: str, db: Db, caller: Caller) -> list[ImageView]:
    """Return the pictures that the customer sent along, oldest first."""
    target = parse("cpl", complaint_id)
    found = await queries.complaint_of_merchant(db, target, caller.merchant_id, caller.mode)
    return [view_image(each) for each in await images_of(db, found)]


@get(
    "/v1/complaint_images/{image_id:str}",
    opt=needs("disputes:read", refuses=[ImageNotFound]),
)
async def get_complaint_image(
    image_id: str, db: Db, blobs: Blobs, caller: Caller
) -> ImageContentView:
    """Return a picture that a customer sent along."""
    wanted = parse("cpi", image_id)
    found = await image_of_merchant(db, wanted, caller.merchant_id, caller.mode)
    content = await content_of_image(blobs, found)
    return ImageContentView("complaint_image_content", image_id, found.media_type or "", content)


ROUTES = [
    list_complaints,
    get_complaint,
    list_complaint_messages,
    reply_to_complaint,
    hand_in_complaint_file,
    list_complaint_images,
    get_complaint_image,
]
