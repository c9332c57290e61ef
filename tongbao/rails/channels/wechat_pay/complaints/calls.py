"""Complaints at WeChat Pay: listed, read with what was said, answered, completed.

Neither an answer nor a completion has a key of ours, so neither is repeated without a look at the
history first; that is for whoever calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Final, Literal, assert_never

from tongbao.kernel.money import Money
from tongbao.rails.channels.capabilities.complaints import (
    ComplaintFound,
    ComplaintMessage,
    ComplaintsListed,
    ComplaintWord,
    ReplySent,
)
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Absent, Answer, Declined, NotSent, Unknown
from tongbao.rails.channels.exchange import decode, followed_by
from tongbao.rails.channels.wechat_pay.complaints import documents
from tongbao.rails.channels.wechat_pay.complaints.images import id_of
from tongbao.rails.channels.wechat_pay.documents.parts import Document
from tongbao.rails.channels.wechat_pay.gateway import (
    ERRORS,
    Answered,
    Gateway,
    Refused,
    in_path,
    secrets_of,
)
from tongbao.rails.channels.wechat_pay.wire import CURRENCY, encode, moment

PATH: Final = "/v3/merchant-service/complaints-v2"
PAGE: Final = 50
PAGES_MAX: Final = 40
_PICTURES_MAX: Final = 20
_STATES: Final[dict[str, ComplaintWord]] = {
    "PENDING": "pending",
    "PROCESSING": "processing",
    "PROCESSED": "processed",
}


async def find(
    gateway: Gateway, account: ChannelAccount, first: date, last: date
) -> Answer[ComplaintsListed | Unknown]:
    """Return the numbers of an account's complaints of some days, 30 at most."""
    refs: list[str] = []
    exchange = None
    for page in range(PAGES_MAX):
        query = f"limit={PAGE}&offset={page * PAGE}&begin_date={first}&end_date={last}"
        if secrets_of(account).partner is not None:
            query += f"&complainted_mchid={in_path(account.merchant_number)}"
        answer = await gateway.question(account, f"{PATH}?{query}", "agreement", _list)
        exchange = answer.exchange if exchange is None else followed_by(exchange, answer.exchange)
        if not isinstance(answer.outcome, documents.ComplaintList):
            return Answer(Unknown("the list could not be read"), exchange)
        refs += [each.complaint_id for each in answer.outcome.data if each.complaint_id]
        if len(answer.outcome.data) < PAGE:
            return Answer(ComplaintsListed(tuple(refs)), exchange)
    raise RuntimeError("more complaints than a month can have")


async def read(
    gateway: Gateway, account: ChannelAccount, ref: str
) -> Answer[ComplaintFound | Absent | Unknown]:
    """Return a complaint as it stands, with everything that was said about it."""
    target = f"{PATH}/{in_path(ref)}"
    found = await gateway.question(account, target, "agreement", _complaint)
    if not isinstance(found.outcome, documents.Complaint):
        return Answer(found.outcome, found.exchange)
    history = await gateway.question(
        account, f"{target}/negotiation-historys?limit=300&offset=0", "agreement", _history
    )
    both = followed_by(found.exchange, history.exchange)
    if not isinstance(history.outcome, documents.History):
        return Answer(Unknown("the history could not be read"), both)
    return Answer(_found(account, ref, found.outcome, history.outcome), both)


async def reply(
    gateway: Gateway, account: ChannelAccount, ref: str, text: str, images: Sequence[str] = ()
) -> Answer[ReplySent | Declined | NotSent | Unknown]:
    """Answer the customer, once per call."""
    body = documents.Reply(
        complainted_mchid=account.merchant_number,
        response_content=text,
        response_images=tuple(images) or None,
    )
    return await _tell(gateway, account, f"{PATH}/{in_path(ref)}/response", body)


async def complete(
    gateway: Gateway, account: ChannelAccount, ref: str
) -> Answer[ReplySent | Declined | NotSent | Unknown]:
    """Say that the complaint is dealt with; the customer may object."""
    body = documents.Completion(complainted_mchid=account.merchant_number)
    return await _tell(gateway, account, f"{PATH}/{in_path(ref)}/complete", body)


async def _tell(
    gateway: Gateway, account: ChannelAccount, target: str, body: Document
) -> Answer[ReplySent | Declined | NotSent | Unknown]:
    heard, exchange = await gateway.call(account, "POST", target, encode(body))
    match heard:
        case Answered():
            return Answer(ReplySent(), exchange)
        case Refused():
            meaning = ERRORS.find("agreement", heard.code).meaning
            if meaning in {"declined", "not_sent", "absent"}:
                return Answer(Declined(heard.code, heard.message), exchange)
            return Answer(Unknown(f"{heard.code}: {heard.message}"), exchange)
        case NotSent() | Unknown():
            return Answer(heard, exchange)
        case _:
            assert_never(heard)


def _list(body: bytes) -> documents.ComplaintList | Unknown:
    return decode(body, documents.ComplaintList) or Unknown("the answer is no list")


def _complaint(body: bytes) -> documents.Complaint | Unknown:
    return decode(body, documents.Complaint) or Unknown("the answer is no complaint")


def _history(body: bytes) -> documents.History | Unknown:
    return decode(body, documents.History) or Unknown("the answer is no history")


def _found(
    account: ChannelAccount, ref: str, told: documents.Complaint, history: documents.History
) -> ComplaintFound | Unknown:
    state, at = _STATES.get(told.complaint_state or ""), moment(told.complaint_time)
    is_ours = told.complaint_id == ref and told.complainted_mchid == account.merchant_number
    order = next((each for each in told.complaint_order_info if each.out_trade_no), None)
    if state is None or at is None or not is_ours or order is None:
        return Unknown("the answer is about another complaint, or says too little")
    messages = [_message(each) for each in reversed(history.data)]  # told newest first
    return ComplaintFound(
        ref=ref,
        number=order.out_trade_no or "",
        state=state,
        kind=(told.problem_type or "OTHERS")[:32],
        detail=(told.complaint_detail or "")[:2000],
        money=Money(order.amount or 0, CURRENCY),
        times=max(1, told.user_complaint_times or 1),
        is_refunded=bool(told.complaint_full_refunded),
        has_news=bool(told.incoming_user_response),
        at=at,
        messages=tuple(each for each in messages if each is not None),
    )


def _message(said: documents.Negotiation) -> ComplaintMessage | None:
    at, kind = moment(said.operate_time), said.operate_type or ""
    if at is None or not said.log_id or not kind:
        return None
    who: Literal["customer", "merchant", "channel"]
    who = "merchant" if kind.startswith("MERCHANT_") else "channel"
    if kind.startswith("USER_") and not kind.endswith("SYSTEM_MESSAGE"):
        who = "customer"
    text = (said.operate_details or "")[:2000]
    images = tuple(found for each in said.image_list[:_PICTURES_MAX] if (found := id_of(each)))
    count = len(said.image_list)
    return ComplaintMessage(said.log_id[:64], kind[:64], who, text, count, at, images)
