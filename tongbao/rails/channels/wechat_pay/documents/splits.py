"""WeChat Pay's documents of profit sharing (分账)."""

from __future__ import annotations

from tongbao.rails.channels.wechat_pay.documents.parts import Document


class Unsplit(Document, frozen=True):
    """What of a payment nobody got a share of yet, in fen."""

    transaction_id: str | None = None
    unsplit_amount: int | None = None


class Share(Document, frozen=True):
    """What one receiver gets; with a result once it was asked for."""

    type: str | None = None
    account: str | None = None
    name: str | None = None
    amount: int | None = None
    description: str | None = None
    detail_id: str | None = None
    result: str | None = None
    fail_reason: str | None = None
    create_time: str | None = None
    finish_time: str | None = None


class SplitRequest(Document, frozen=True):
    """Asks to give shares of a payment away."""

    sub_mchid: str | None = None
    appid: str | None = None
    sub_appid: str | None = None
    transaction_id: str | None = None
    out_order_no: str | None = None
    receivers: list[Share] | None = None
    unfreeze_unsplit: bool | None = None


class ReturnRequest(Document, frozen=True):
    """Asks to take a share back."""

    order_id: str | None = None
    out_return_no: str | None = None
    return_mchid: str | None = None
    amount: int | None = None
    description: str | None = None
    out_order_no: str | None = None
    sub_mchid: str | None = None


class SplitReturned(Document, frozen=True):
    """A share taken back, and what became of it."""

    order_id: str | None = None
    out_order_no: str | None = None
    out_return_no: str | None = None
    return_id: str | None = None
    return_mchid: str | None = None
    amount: int | None = None
    description: str | None = None
    result: str | None = None
    fail_reason: str | None = None
    create_time: str | None = None
    finish_time: str | None = None
    sub_mchid: str | None = None


class SplitLimit(Document, frozen=True):
    """How much of a payment a sub-merchant lets be split, in ten-thousandths."""

    sub_mchid: str | None = None
    max_ratio: int | None = None


class SplitReceiver(Document, frozen=True):
    """A receiver to be known or forgotten, and its echo."""

    appid: str | None = None
    type: str | None = None
    account: str | None = None
    name: str | None = None
    relation_type: str | None = None
    custom_relation: str | None = None
    sub_mchid: str | None = None
    sub_appid: str | None = None


class UnfreezeRequest(Document, frozen=True):
    """Asks to free what nobody gets a share of."""

    sub_mchid: str | None = None
    transaction_id: str | None = None
    out_order_no: str | None = None
    description: str | None = None


class Split(Document, frozen=True):
    """A split and what became of its shares."""

    sub_mchid: str | None = None
    transaction_id: str | None = None
    out_order_no: str | None = None
    order_id: str | None = None
    state: str | None = None
    receivers: list[Share] | None = None


class SplitNews(Document, frozen=True):
    """The callback of a share given or taken back."""

    mchid: str | None = None
    transaction_id: str | None = None
    order_id: str | None = None
    out_order_no: str | None = None
    receiver: Share | None = None
    success_time: str | None = None
    sp_mchid: str | None = None
    sub_mchid: str | None = None
