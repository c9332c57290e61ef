"""The routes of disputes: read them, answer with evidence, or accept."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from msgspec import Meta, Struct

from tongbao.clearing.disputes import queries
from tongbao.clearing.disputes.chargebacks import DisputeAsked, move_dispute, open_dispute
from tongbao.clearing.disputes.evidence import (
    FileView,
    HandIn,
    file_with_id,
    keep_file,
    view_file,
)
from tongbao.clearing.disputes.model import (
    AnswerMissing,
    DisputeContended,
    DisputeExceedsLeft,
    DisputeMoved,
    DisputeNotFound,
    DisputePaymentUnfit,
    DisputeRefUsed,
    DisputeState,
    DisputeView,
    EvidenceFull,
    Move,
    view_dispute,
)
from tongbao.clearing.disputes.queries import DisputeFilter
from tongbao.infra.blobs.model import BlobEmpty, BlobKindDiffers, BlobTooLarge
from tongbao.infra.blobs.scanning import BlobMalicious, ScannerUnavailable
from tongbao.infra.blobs.store import Blobs
from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import Idempotency, answer_once
from tongbao.infra.web.request import ApiRequest
from tongbao.kernel.ids import base32, new_id, parse
from tongbao.kernel.licence import Licence
from tongbao.kernel.money import AmountOutOfRange, positive
from tongbao.kernel.pages import Page
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.collecting.queries import PaymentNotFound, payment_of_merchant


class AnswerDispute(Struct, frozen=True, forbid_unknown_fields=True):
    """Answer the present stage with these words and the files handed in before."""

    answer: Annotated[str, Meta(max_length=2000)] = ""


class RaiseDispute(Struct, frozen=True, forbid_unknown_fields=True):
    """Have the customer dispute a sandbox payment; left out, the amount is all that was paid."""

    amount: Annotated[int, Meta(ge=1)] | None = None
    stage: Literal["retrieval", "chargeback"] = "chargeback"


class AcceptDispute(Struct, frozen=True, forbid_unknown_fields=True):
    """Give the disputed money up."""

    note: Annotated[str, Meta(max_length=200)] = ""


@get("/v1/disputes", opt=needs("disputes:read"))
async def list_disputes(
    db: Db,
    caller: Caller,
    *,
    payment_id: str | None = None,
    status: DisputeState | None = None,
    scheme_ref: str | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[DisputeView]:
    """Return disputes, newest first, by payment, status or the scheme's number."""
    wanted = DisputeFilter(
        merchant_id=caller.merchant_id,
        mode=caller.mode,
        payment_id=parse("pay", payment_id) if payment_id else None,
        status=status,
        scheme_ref=scheme_ref,
    )
    page = await queries.list_disputes(db, wanted, cursor=cursor, limit=limit)
    return Page([view_dispute(each) for each in page.items], page.next_cursor)


@get("/v1/disputes/{dispute_id:str}", opt=needs("disputes:read", refuses=[DisputeNotFound]))
async def get_dispute(dispute_id: str, db: Db, caller: Caller) -> DisputeView:
    """Return one dispute."""
    target = parse("dsp", dispute_id)
    return view_dispute(
        await queries.dispute_of_merchant(db, target, caller.merchant_id, caller.mode)
    )


@post(
    "/v1/disputes/{dispute_id:str}/answer",
    status_code=200,
    opt=needs(
        "disputes:write",
        idempotent=True,
        refuses=[DisputeNotFound, DisputeMoved, AnswerMissing],
        request_example=AnswerDispute("The goods were handed over on 3 November; see the receipt."),
    ),
)
async def answer_dispute(
    dispute_id: str, data: AnswerDispute, request: ApiRequest, flow: Flow, caller: Caller
) -> Response[DisputeView]:
    """Hand in the answer to a retrieval request, chargeback or pre-arbitration.

    The operator sends it on to the scheme. Until then a later answer takes the place of this one.
    """
    target = parse("dsp", dispute_id)

    async def fresh(use: Idempotency) -> DisputeView:
        found = await queries.dispute_of_merchant(flow.db, target, caller.merchant_id, caller.mode)
        if not data.answer.strip() and not await queries.files_of(flow.db, found.book, found.id):
            raise AnswerMissing(param="answer")
        return view_dispute(
            await move_dispute(
                flow,
                found,
                Move.SUBMIT,
                actor=caller.actor,
                why="answered by the merchant",
                answer=data.answer.strip(),
                take=use.write,
            )
        )

    async def resume(dispute: UUID) -> DisputeView:
        return view_dispute(
            await queries.dispute_of_merchant(flow.db, dispute, caller.merchant_id, caller.mode)
        )

    return await answer_once(request, flow.db, fresh=fresh, resume=resume)


@post(
    "/v1/disputes/{dispute_id:str}/accept",
    status_code=200,
    opt=needs(
        "disputes:write",
        idempotent=True,
        refuses=[DisputeNotFound, DisputeMoved],
        request_example=AcceptDispute("the customer is right"),
    ),
)
async def accept_dispute(
    dispute_id: str, data: AcceptDispute, request: ApiRequest, flow: Flow, caller: Caller
) -> Response[DisputeView]:
    """Give the disputed money up: it goes to the customer for good."""
    target = parse("dsp", dispute_id)

    async def fresh(use: Idempotency) -> DisputeView:
        found = await queries.dispute_of_merchant(flow.db, target, caller.merchant_id, caller.mode)
        return view_dispute(
            await move_dispute(
                flow,
                found,
                Move.ACCEPT,
                actor=caller.actor,
                why=f"accepted by the merchant: {data.note}".rstrip(": "),
                take=use.write,
            )
        )

    async def resume(dispute: UUID) -> DisputeView:
        return view_dispute(
            await queries.dispute_of_merchant(flow.db, dispute, caller.merchant_id, caller.mode)
        )

    return await answer_once(request, flow.db, fresh=fresh, resume=resume)


@post(
    "/v1/disputes/{dispute_id:str}/files",
    opt=needs(
        "disputes:write",
        idempotent=True,
        refuses=[
            DisputeNotFound,
            DisputeMoved,
            EvidenceFull,
            BlobTooLarge,
            BlobKindDiffers,
            BlobEmpty,
            BlobMalicious,
            ScannerUnavailable,
        ],
        request_example=HandIn("receipt.pdf", "application/pdf", b"%PDF-1.7"),
    ),
)
async def hand_in_file(
    dispute_id: str, data: HandIn, request: ApiRequest, flow: Flow, *, blobs: Blobs, caller: Caller
) -> Response[FileView]:
    """Hand in a file for the answer; it cannot be changed or taken back.

    The same content again is the same file. What it shows goes to the scheme as it is.
    """
    target = parse("dsp", dispute_id)

    async def fresh(use: Idempotency) -> FileView:
        found = await queries.dispute_of_merchant(flow.db, target, caller.merchant_id, caller.mode)
        if not found.state.asks_merchant:
            raise DisputeMoved(status=found.state)
        file_id = new_id()
        kept = await keep_file(flow.db, blobs, found, data, actor=caller.actor, file_id=file_id)
        async with flow.db.begin(caller.actor) as tx:
            await use.take(tx, kept.id)
        return view_file(kept)

    async def resume(kept: UUID) -> FileView:
        return view_file(await file_with_id(flow.db, kept))

    return await answer_once(request, flow.db, fresh=fresh, resume=resume)


@get("/v1/disputes/{dispute_id:str}/files", opt=needs("disputes:read", refuses=[DisputeNotFound]))
async def list_dispute_files(dispute_id: str, db: Db, caller: Caller) -> list[FileView]:
    """Return what was handed in for a dispute, oldest first."""
    target = parse("dsp", dispute_id)
    found = await queries.dispute_of_merchant(db, target, caller.merchant_id, caller.mode)
    return [view_file(each) for each in await queries.files_of(db, found.book, found.id)]


@post(
    "/v1/test_helpers/payments/{payment_id:str}/dispute",
    opt=needs(
        "test_helpers:write",
        sandbox_only=True,
        refuses=[
            *(PaymentNotFound, DisputePaymentUnfit, DisputeExceedsLeft, DisputeRefUsed),
            *(DisputeContended, AmountOutOfRange),
        ],
        request_example=RaiseDispute(),
    ),
)
async def raise_dispute(
    payment_id: str, data: RaiseDispute, flow: Flow, caller: Caller
) -> DisputeView:
    """Have the customer's bank dispute a sandbox payment, once each; safe to repeat."""
    target = parse("pay", payment_id)
    payment = await payment_of_merchant(flow.db, target, caller.merchant_id, caller.mode)
    amount = payment.amount if data.amount is None else data.amount
    is_question = data.stage == "retrieval"
    asked = DisputeAsked(
        scheme="other",
        scheme_ref=f"sandbox-{base32(payment.id)}",
        reason_code="test",
        reason="raised by a test helper",
        money=positive(amount, payment.currency),
        stage=DisputeState.RETRIEVAL if is_question else DisputeState.CHARGEBACK,
    )
    return view_dispute(
        await open_dispute(flow, payment, asked, actor=caller.actor, why="raised in the sandbox")
    )


_ROUTES = [
    list_disputes,
    get_dispute,
    answer_dispute,
    accept_dispute,
    hand_in_file,
    list_dispute_files,
    raise_dispute,
]


def routes(licence: Licence) -> list[HTTPRouteHandler]:
    """Return the routes a deployment has: none where the acquirer deals with disputes."""
    return _ROUTES if licence.may_hold_funds else []
