"""WeChat Pay's documents of customers' complaints; fields as its pages of 2025 name them.

pay.weixin.qq.com/docs/partner/apis/consumer-complaint: list, detail, history, response, complete.
"""

from __future__ import annotations

from tongbao.rails.channels.wechat_pay.documents.parts import Document


class ComplaintOrder(Document, frozen=True):
    """An order that a complaint is about."""

    transaction_id: str | None = None
    out_trade_no: str | None = None
    amount: int | None = None


class Complaint(Document, frozen=True):
    """A complaint, in a list or alone. ``payer_phone`` is sealed for the merchant's key."""

    complaint_id: str | None = None
    complaint_time: str | None = None
    complaint_detail: str | None = None
    complaint_state: str | None = None
    complainted_mchid: str | None = None
    problem_type: str | None = None
    complaint_order_info: tuple[ComplaintOrder, ...] = ()
    complaint_full_refunded: bool | None = None
    incoming_user_response: bool | None = None
    user_complaint_times: int | None = None


class ComplaintList(Document, frozen=True):
    """A page of complaints."""

    data: tuple[Complaint, ...] = ()
    total_count: int | None = None


class Negotiation(Document, frozen=True):
    """One thing that somebody said or did."""

    log_id: str | None = None
    operator: str | None = None
    operate_time: str | None = None
    operate_type: str | None = None
    operate_details: str | None = None
    image_list: tuple[str, ...] = ()


class History(Document, frozen=True):
    """A page of what was said and done."""

    data: tuple[Negotiation, ...] = ()
    total_count: int | None = None


class Reply(Document, frozen=True):
    """Answers the customer."""

    complainted_mchid: str | None = None
    response_content: str | None = None
    response_images: tuple[str, ...] | None = None


class Completion(Document, frozen=True):
    """Says that the complaint is dealt with."""

    complainted_mchid: str | None = None
