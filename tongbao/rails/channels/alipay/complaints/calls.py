"""Complaints at Alipay: listed, read with what was said, answered, dealt with.

Methods and fields are those of the vendor's SDK: `alipay.merchant.tradecomplain.batchquery`,
`….query` (AlipayMerchantTradecomplainQueryResponse, ReplyRecordResponse), `….reply.submit` and
`….feedback.submit`. What was said has no number there, so we name it by who said what when; a
feedback stands in the state alone, and is told as one message more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime
from hashlib import sha256
from typing import Any, Final, Literal, assert_never

from msgspec import Struct

from tongbao.kernel.money import Money
from tongbao.rails.channels.alipay import answers
from tongbao.rails.channels.alipay.complaints import images as images_of_complaints
from tongbao.rails.channels.alipay.gateway import Answered, Gateway, Refused
from tongbao.rails.channels.alipay.wire import CURRENCY, moment, yuan
from tongbao.rails.channels.capabilities.complaints import (
    ComplaintFound,
    ComplaintMessage,
    ComplaintsListed,
    ComplaintWord,
    ReplySent,
)
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Absent, Answer, Declined, NotSent, Unknown
from tongbao.rails.channels.error_map import error_map
from tongbao.rails.channels.exchange import decode, followed_by

METHOD: Final = "alipay.merchant.tradecomplain"
PAGE: Final = 20
PAGES_MAX: Final = 100
_PICTURES_MAX: Final = 20
OTHER: Final = "04"  # 反馈类目：其他
DEALT_WITH: Final = "已处理，感谢您的反馈。"
_ERRORS: Final = error_map("alipay")
_STATES: Final[dict[str, ComplaintWord]] = {
    "MERCHANT_PROCESSING": "pending",
    "MERCHANT_FEEDBACKED": "processed",
    "PLATFORM_PROCESSING": "processing",
    "PLATFORM_FINISH": "processed",
    "FINISHED": "processed",
    "CANCELLED": "processed",
    "CLOSED": "processed",
}
_FED_BACK: Final = "MERCHANT_FEEDBACKED"
_Who = Literal["customer", "merchant", "channel"]
_WHO: Final[dict[str, _Who]] = {"USER": "customer", "MERCHANT": "merchant"}
_KINDS: Final[dict[_Who, str]] = {
    "customer": "USER_REPLY",
    "merchant": "MERCHANT_RESPONSE",
    "channel": "CHANNEL_MESSAGE",
}


class _Said(Struct, frozen=True):
    replier_role: str = ""
    gmt_create: str = ""
    content: str = ""
    images: Sequence[str] = ()


class _Complaint(Struct, frozen=True):
    complain_event_id: str = ""
    status: str = ""
    merchant_order_no: str = ""
    gmt_create: str = ""
    gmt_modified: str = ""
    leaf_category_name: str = ""
    complain_reason: str = ""
    content: str = ""
    trade_amount: str | float = ""
    images: Sequence[str] = ()
    reply_detail_infos: Sequence[_Said] = ()


class _Page(Struct, frozen=True):
    total_page_num: int = 0
    trade_complain_infos: Sequence[_Complaint] = ()


class AlipayComplaints:
    """What `Alipay` can do about complaints; see `capabilities.complaints.Complaining`."""

    _gateway: Gateway

    async def find_complaints(
        self, account: ChannelAccount, first: date, last: date
    ) -> Answer[ComplaintsListed | Unknown]:
        """List customers' complaints of some days."""
        refs: list[str] = []
        exchange = None
        for page in range(1, PAGES_MAX + 1):
            heard, seen = await self._gateway.call(
                account,
                f"{METHOD}.batchquery",
                {
                    "begin_time": f"{first} 00:00:00",
                    "end_time": f"{last} 23:59:59",
                    "page_num": page,
                    "page_size": PAGE,
                },
            )
            exchange = seen if exchange is None else followed_by(exchange, seen)
            found = decode(heard.node, _Page) if isinstance(heard, Answered) else None
            if found is None:
                return Answer(Unknown("the list could not be read"), exchange)
            refs += [each.complain_event_id for each in found.trade_complain_infos]
            if page >= found.total_page_num:
                return Answer(ComplaintsListed(tuple(refs)), exchange)
        raise RuntimeError("more complaints than a month can have")

    async def read_complaint(
        self, account: ChannelAccount, ref: str
    ) -> Answer[ComplaintFound | Absent | Unknown]:
        """Read a complaint with all that was said."""
        question = {"complain_event_id": ref}
        heard, exchange = await self._gateway.call(account, f"{METHOD}.query", question)
        found = answers.read_or_absent(heard, "agreement", lambda node: _read(node, ref))
        return Answer(found, exchange)

    async def reply_to_complaint(
        self, account: ChannelAccount, ref: str, text: str, images: Sequence[str] = ()
    ) -> Answer[ReplySent | Declined | NotSent | Unknown]:
        """Answer a customer's complaint, once per call."""
        said = {"complain_event_id": ref, "reply_content": text}
        if images:
            said["reply_images"] = ",".join(images)
        return await self._say(account, f"{METHOD}.reply.submit", said)

    async def complete_complaint(
        self, account: ChannelAccount, ref: str
    ) -> Answer[ReplySent | Declined | NotSent | Unknown]:
        """Say that a complaint is dealt with; Alipay takes that once."""
        said = {
            "complain_event_id": ref,
            "feedback_code": OTHER,
            "feedback_content": DEALT_WITH,
        }
        return await self._say(account, f"{METHOD}.feedback.submit", said)

    async def read_complaint_image(
        self, account: ChannelAccount, ref: str
    ) -> Answer[bytes | Absent | Declined | Unknown]:
        """Fetch a picture of a complaint."""
        return await images_of_complaints.fetch(self._gateway, account, ref)

    async def send_complaint_image(
        self, account: ChannelAccount, media_type: str, content: bytes
    ) -> Answer[str | Declined | NotSent | Unknown]:
        """Send a picture up for an answer."""
        return await images_of_complaints.send(self._gateway, account, media_type, content)

    async def _say(
        self, account: ChannelAccount, method: str, said: dict[str, Any]
    ) -> Answer[ReplySent | Declined | NotSent | Unknown]:
        heard, exchange = await self._gateway.call(account, method, said)
        match heard:
            case Answered():
                return Answer(ReplySent(), exchange)
            case Refused():
                meaning = _ERRORS.find("agreement", heard.sub_code, heard.code).meaning
                if meaning in {"declined", "not_sent", "absent"}:
                    return Answer(Declined(heard.shown_code, heard.message), exchange)
                return Answer(Unknown(f"{heard.shown_code}: {heard.message}"), exchange)
            case NotSent() | Unknown():
                return Answer(heard, exchange)
            case _:
                assert_never(heard)


def _read(node: bytes, ref: str) -> ComplaintFound | Unknown:
    told = decode(node, _Complaint)
    if told is None or told.complain_event_id != ref or not told.merchant_order_no:
        return Unknown("the answer is about another complaint, or says too little")
    state, at = _STATES.get(told.status), moment(told.gmt_create)
    money = yuan(str(told.trade_amount)) if told.trade_amount else Money(0, CURRENCY)
    if state is None or at is None or money is None:
        return Unknown(f"status {told.status[:32] or 'missing'}")
    messages = _messages(told, at)
    last = messages[-1].who
    if state == "pending" and any(each.who == "merchant" for each in messages):
        state = "processing"
    return ComplaintFound(
        ref=ref,
        number=told.merchant_order_no,
        state=state,
        kind=(told.leaf_category_name or told.complain_reason or "OTHERS")[:32],
        detail=told.content[:2000],
        money=money,
        times=1,
        is_refunded=False,
        has_news=last == "customer" and len(messages) > 1 and state != "processed",
        at=at,
        messages=tuple(messages),
    )


def _messages(told: _Complaint, at: datetime) -> list[ComplaintMessage]:
    """Return what was said, oldest first: the complaint itself, then every word about it."""
    first = ComplaintMessage(
        "complaint",
        "USER_CREATE_COMPLAINT",
        "customer",
        told.content[:2000],
        len(told.images),
        at,
        _addresses(told.images),
    )
    seen = Counter[str]()
    words: list[ComplaintMessage] = []
    for each in told.reply_detail_infos:
        when = moment(each.gmt_create)
        if when is None:
            continue
        who = _WHO.get(each.replier_role, "channel")
        digest = sha256(f"{who}|{each.gmt_create}|{each.content}".encode()).hexdigest()[:32]
        seen[digest] += 1
        words.append(
            ComplaintMessage(
                f"{digest}-{seen[digest]}",
                _KINDS[who],
                who,
                each.content[:2000],
                len(each.images),
                when,
                _addresses(each.images),
            )
        )
    words.sort(key=lambda each: each.at)
    if told.status == _FED_BACK:
        when = moment(told.gmt_modified) or at
        kind = "MERCHANT_CONFIRM_COMPLETE"
        words.append(ComplaintMessage("feedback", kind, "merchant", "", 0, when))
    return [first, *words]


def _addresses(images: Sequence[str]) -> tuple[str, ...]:
    return tuple(each for each in images[:_PICTURES_MAX] if images_of_complaints.is_taken(each))
