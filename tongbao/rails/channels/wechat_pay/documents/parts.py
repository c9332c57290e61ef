"""What many of WeChat Pay's JSON documents are made of.

Every field may be missing: WeChat Pay sends what a case needs, and a document is compared with
what was asked before anything in it is believed. What is missing is not written either, so that a
document read and written again is the same document.
"""

from __future__ import annotations

from msgspec import Struct


class Document(Struct, frozen=True, omit_defaults=True):
    """A JSON object of WeChat Pay; unknown fields are passed over."""


class Envelope(Document, frozen=True):
    """An encrypted resource of a callback or of the certificate list."""

    algorithm: str
    nonce: str
    ciphertext: str
    associated_data: str | None = None
    original_type: str | None = None


class Goods(Document, frozen=True):
    """One article of an order or of a discount."""

    merchant_goods_id: str | None = None
    wxpay_goods_id: str | None = None
    goods_name: str | None = None
    quantity: int | None = None
    unit_price: int | None = None
    goods_id: str | None = None
    discount_amount: int | None = None
    goods_remark: str | None = None
    wechatpay_goods_id: str | None = None
    refund_amount: int | None = None
    refund_quantity: int | None = None


class Payer(Document, frozen=True):
    """Who pays, as the apps concerned know them, or by the code they show."""

    openid: str | None = None
    auth_code: str | None = None
    phone_number_hash: str | None = None
    sub_openid: str | None = None
    sp_openid: str | None = None


class Amount(Document, frozen=True):
    """Money in fen, as most documents write it; without a currency it is CNY."""

    amount: int | None = None
    currency: str | None = None
    total: int | None = None
    payer_total: int | None = None
    payer_currency: str | None = None
    discount_total: int | None = None


class Promotion(Document, frozen=True):
    """A discount that WeChat Pay or the merchant gave."""

    coupon_id: str | None = None
    name: str | None = None
    scope: str | None = None
    type: str | None = None
    amount: int | None = None
    stock_id: str | None = None
    wechatpay_contribute: int | None = None
    merchant_contribute: int | None = None
    other_contribute: int | None = None
    currency: str | None = None
    goods_detail: list[Goods] | None = None
    promotion_id: str | None = None
    refund_amount: int | None = None
    activity_id: str | None = None
    wxpay_contribute: int | None = None
