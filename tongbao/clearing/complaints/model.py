"""What a complaint is, what is said about it, and how an answer gets to the channel. No I/O.

complaint   pending ─► processing ─► processed     as the channel has it; it may begin again
reply       requested ─► sent | refused
                └─► unknown: the channel's own history says whether it arrived
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal
from uuid import UUID

from msgspec import UNSET, Struct, UnsetType

from tongbao.infra.outbox import Event
from tongbao.kernel.errors import Busy, Conflict, NotFound, Rejected
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode

ANSWER_WITHIN: Final = timedelta(hours=24)
"""The house's own rule for a first answer: WeChat Pay's pages name no hours."""
MOVED_ON: Final = "complaint.moved_on"


class ComplaintState(StrEnum):
    """Where a complaint stands, in the channel's words."""

    PENDING = "pending"
    PROCESSING = "processing"
    PROCESSED = "processed"


class Complaint(Struct, frozen=True):
    """One row of the complaint table: the channel's, as we last read it."""

    book: int
    id: UUID
    merchant_id: UUID
    mode: Mode
    account_id: UUID
    channel: str
    channel_ref: str
    payment_id: UUID
    state: ComplaintState
    kind: str
    detail: str
    amount: int
    currency: str
    times: int
    is_refunded: bool
    has_news: bool
    answer_by: datetime
    complained_at: datetime
    first_seen_at: datetime
    ended_at: datetime | None
    version: int


class Message(Struct, frozen=True):
    """One row of complaint_message: what was said, as the channel keeps it."""

    book: int
    complaint_id: UUID
    channel_ref: str
    place: int
    kind: str
    who: Literal["customer", "merchant", "channel"]
    text: str
    image_count: int
    at: datetime


class ImageState(StrEnum):
    """Whether a picture that a customer sent along is here."""

    WANTED = "wanted"
    KEPT = "kept"
    GONE = "gone"
    REFUSED = "refused"


class Image(Struct, frozen=True):
    """One row of complaint_image: a picture that a customer sent along."""

    book: int
    id: UUID
    complaint_id: UUID
    merchant_id: UUID
    mode: Mode
    channel_ref: str
    message_ref: str
    state: ImageState
    media_type: str | None
    size: int | None
    sha256: str | None
    blob: str | None
    seen_at: datetime
    ended_at: datetime | None


class ReplyImage(Struct, frozen=True):
    """One row of complaint_reply_image: a file that goes with an answer."""

    book: int
    reply_id: UUID
    place: int
    file_id: UUID
    channel_ref: str | None


class ImageView(Struct, frozen=True, omit_defaults=True):
    """A picture that a customer sent along; ``status`` kept: its content can be fetched."""

    id: str
    object: Literal["complaint_image"]
    complaint_id: str
    status: ImageState
    seen_at: datetime
    media_type: str | UnsetType = UNSET
    size: int | UnsetType = UNSET
    sha256: str | UnsetType = UNSET


def view_image(image: Image) -> ImageView:
    """Return the picture as the API shows it."""
    return ImageView(
        id=show("cpi", image.id),
        object="complaint_image",
        complaint_id=show("cpl", image.complaint_id),
        status=image.state,
        seen_at=image.seen_at,
        media_type=image.media_type or UNSET,
        size=image.size or UNSET,
        sha256=image.sha256 or UNSET,
    )


class ReplyState(StrEnum):
    """What became of something we said."""

    REQUESTED = "requested"
    UNKNOWN = "unknown"
    SENT = "sent"
    REFUSED = "refused"

    @property
    def is_open(self) -> bool:
        """Whether it may still have to be said."""
        return self in {ReplyState.REQUESTED, ReplyState.UNKNOWN}


class Reply(Struct, frozen=True):
    """One row of complaint_reply: an answer, or the word that all is done."""

    book: int
    id: UUID
    complaint_id: UUID
    merchant_id: UUID
    mode: Mode
    kind: Literal["reply", "complete"]
    text: str
    state: ReplyState
    code: str | None
    sends: int
    sent_at: datetime | None
    written_by: str
    created_at: datetime
    ended_at: datetime | None
    version: int


_WORDS: Final = {"reply": "MERCHANT_RESPONSE", "complete": "MERCHANT_CONFIRM_COMPLETE"}


def arrived(reply: Reply, replies: Sequence[Reply], messages: Sequence[Message]) -> bool:
    """Return whether the channel's history shows that what we said is there.

    The same words may be said twice on purpose: each earlier reply of the same words that is known
    to have arrived accounts for one message of the history.
    """
    said = [
        each
        for each in messages
        if each.kind == _WORDS[reply.kind] and (reply.kind == "complete" or each.text == reply.text)
    ]
    others = [
        each
        for each in replies
        if each.id != reply.id
        and each.state is ReplyState.SENT
        and (each.kind, each.text) == (reply.kind, reply.text)
    ]
    return len(said) > len(others)


class ComplaintView(Struct, frozen=True, omit_defaults=True):
    """A complaint as the API and the webhooks show it."""

    id: str
    object: Literal["complaint"]
    mode: Mode
    payment_id: str
    channel: str
    channel_ref: str
    kind: str
    detail: str
    amount: int
    currency: str
    status: ComplaintState
    times: int
    has_news: bool
    version: int
    complained_at: datetime
    answer_by: datetime | UnsetType = UNSET
    ended_at: datetime | UnsetType = UNSET


def view_complaint(complaint: Complaint) -> ComplaintView:
    """Return the complaint as the API and the webhooks show it."""
    return ComplaintView(
        id=show("cpl", complaint.id),
        object="complaint",
        mode=complaint.mode,
        payment_id=show("pay", complaint.payment_id),
        channel=complaint.channel,
        channel_ref=complaint.channel_ref,
        kind=complaint.kind,
        detail=complaint.detail,
        amount=complaint.amount,
        currency=complaint.currency,
        status=complaint.state,
        times=complaint.times,
        has_news=complaint.has_news,
        version=complaint.version,
        complained_at=complaint.complained_at,
        answer_by=complaint.answer_by if complaint.state is ComplaintState.PENDING else UNSET,
        ended_at=complaint.ended_at or UNSET,
    )


class ReplyView(Struct, frozen=True, omit_defaults=True):
    """Something said to a customer, as the API shows it."""

    id: str
    object: Literal["complaint_reply"]
    complaint_id: str
    kind: Literal["reply", "complete"]
    text: str
    status: ReplyState
    created_at: datetime
    code: str | UnsetType = UNSET


def view_reply(reply: Reply) -> ReplyView:
    """Return the reply as the API shows it."""
    return ReplyView(
        id=show("cpr", reply.id),
        object="complaint_reply",
        complaint_id=show("cpl", reply.complaint_id),
        kind=reply.kind,
        text=reply.text,
        status=reply.state,
        created_at=reply.created_at,
        code=reply.code or UNSET,
    )


class ComplaintOpened(Event, frozen=True, kw_only=True, tag="complaint.opened"):
    """A customer complained to the channel about a payment."""

    object: ComplaintView


class ComplaintUpdated(Event, frozen=True, kw_only=True, tag="complaint.updated"):
    """More was said about a complaint, or its state changed."""

    object: ComplaintView


def event_of(complaint: Complaint, *, is_new: bool) -> Event:
    """Return the event that tells how the complaint stands now."""
    kind = ComplaintOpened if is_new else ComplaintUpdated
    return kind(
        merchant_id=complaint.merchant_id,
        mode=complaint.mode,
        resource_id=show("cpl", complaint.id),
        object=view_complaint(complaint),
    )


class ComplaintNotFound(NotFound):
    """The caller has no such complaint."""

    code = "complaint.not_found"
    advice = "Check the id, and that the API key is of the same merchant and mode."
    advice_zh = "请检查投诉标识，并确认 API 密钥属于同一商户与模式。"


class ImageNotFound(NotFound):
    """The caller has no such picture, or the channel has not given it yet."""

    code = "complaint.image_not_found"
    advice = "List the complaint's images; those whose status is kept can be fetched."
    advice_zh = "请查看投诉图片列表，仅 status 为 kept 的图片可以获取。"


class ImageNotSendable(Rejected):
    """Only a picture that was handed in for this very complaint goes with its answer."""

    code = "complaint.image_not_sendable"
    advice = "Hand in JPEG or PNG files for this complaint, and name up to four with the answer."
    advice_zh = "请先为该投诉上传 JPEG 或 PNG 图片，每次回复最多引用四张。"


class ComplaintOver(Conflict):
    """The complaint is dealt with; the channel takes no more answers."""

    code = "complaint.over"
    advice = "Wait whether the customer complains again."
    advice_zh = "该投诉已处理完成，如用户再次投诉可继续回复。"


class ComplaintContended(Busy):
    """The channel did not say how the complaint stands, or others kept changing it meanwhile."""

    code = "complaint.contended"
    advice = "Do it again; it is done once."
    advice_zh = "请重试，同一操作只会生效一次。"
