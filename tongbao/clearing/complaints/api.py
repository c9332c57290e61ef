"""The routes of complaints: read them, answer the customer, say that all is done."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from litestar import Response, get, post
from msgspec import Meta, Struct

from tongbao.clearing.complaints import queries
from tongbao.clearing.complaints.model import (
    ComplaintNotFound,
    ComplaintOver,
    ComplaintState,
    ComplaintView,
    ReplyView,
    view_complaint,
    view_reply,
)
from tongbao.clearing.complaints.queries import ComplaintFilter
from tongbao.clearing.complaints.replies import Said, request_reply
from tongbao.clearing.disputes.model import AnswerMissing
from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import Idempotency, answer_once
from tongbao.infra.web.request import ApiRequest
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


class ReplyToComplaint(Struct, frozen=True, forbid_unknown_fields=True):
    """Tell the customer this, or (``complete``) say that all is done."""

    text: Annotated[str, Meta(max_length=500)] = ""
    complete: bool = False


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
        refuses=[ComplaintNotFound, ComplaintOver, AnswerMissing],
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
    said = Said(kind, data.text.strip())

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


ROUTES = [list_complaints, get_complaint, list_complaint_messages, reply_to_complaint]
