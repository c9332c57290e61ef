"""WeChat Pay's documents of orders, combined orders, refunds, bills and certificates."""

from __future__ import annotations

from msgspec import field

from tongbao.rails.channels.wechat_pay.documents.parts import (
    Amount,
    Document,
    Envelope,
    Goods,
    Payer,
    Promotion,
)


class SubMerchantBill(Document, frozen=True):
    """One encrypted part of the fund bill of all sub-merchants."""

    bill_sequence: int | None = None
    download_url: str | None = None
    encrypt_key: str | None = None
    hash_type: str | None = None
    hash_value: str | None = None
    nonce: str | None = None


class SubMerchantBills(Document, frozen=True):
    """Where the fund bill of all sub-merchants lies."""

    download_bill_count: int | None = None
    download_bill_list: list[SubMerchantBill] | None = None


class ListedCertificate(Document, frozen=True):
    """One platform certificate, encrypted with the APIv3 key."""

    serial_no: str
    encrypt_certificate: Envelope
    effective_time: str | None = None
    expire_time: str | None = None


class CertificateList(Document, frozen=True):
    """The answer of ``/v3/certificates``."""

    data: list[ListedCertificate]


class CombinedAmount(Document, frozen=True):
    """Money of one part of a combined order, in fen."""

    total_amount: int | None = None
    currency: str | None = None
    payer_amount: int | None = None
    payer_currency: str | None = None
    settlement_rate: int | None = None


class Settling(Document, frozen=True):
    """Whether an order may be split after it is paid."""

    profit_sharing: bool | None = None
    subsidy_amount: int | None = None


class CombinedPart(Document, frozen=True):
    """One order of a combined payment."""

    mchid: str | None = None
    out_trade_no: str | None = None
    sub_mchid: str | None = None
    individual_auth_id: str | None = None
    attach: str | None = None
    amount: CombinedAmount | None = None
    description: str | None = None
    settle_info: Settling | None = None
    individual_name: str | None = None
    trade_type: str | None = None
    trade_state: str | None = None
    bank_type: str | None = None
    success_time: str | None = None
    transaction_id: str | None = None


class CombinedClosing(Document, frozen=True):
    """Asks to close all parts of a combined order."""

    combine_appid: str | None = None
    sub_orders: list[CombinedPart] | None = None


class H5Scene(Document, frozen=True):
    """The page an H5 order is placed from."""

    app_name: str | None = None
    app_url: str | None = None
    bundle_id: str | None = None
    package_name: str | None = None
    type: str | None = None


class Store(Document, frozen=True):
    """The shop an order is placed in."""

    id: str | None = None
    out_id: str | None = None


class Scene(Document, frozen=True):
    """Where and on what device an order is placed."""

    device_id: str | None = None
    payer_client_ip: str | None = None
    h5_info: H5Scene | None = None
    device_ip: str | None = None
    store_info: Store | None = None


class CombinedRequest(Document, frozen=True):
    """Asks for one payment of several orders."""

    combine_out_trade_no: str | None = None
    combine_mchid: str | None = None
    combine_appid: str | None = None
    scene_info: Scene | None = None
    sub_orders: list[CombinedPart] | None = None
    combine_payer_info: Payer | None = None
    time_start: str | None = None
    time_expire: str | None = None
    notify_url: str | None = None
    trade_scenario: str | None = None


class Closing(Document, frozen=True):
    """Asks to close an unpaid order."""

    mchid: str | None = None
    sp_mchid: str | None = None
    sub_mchid: str | None = None


class GoodsList(Document, frozen=True):
    """What an order is for, article by article."""

    cost_price: int | None = None
    invoice_id: str | None = None
    goods_detail: list[Goods] | None = None


class H5Url(Document, frozen=True):
    """The answer to an H5 order: good for five minutes."""

    h5_url: str


class SubsidyPlan(Document, frozen=True):
    """A share of the instalment fee that the merchant bears."""

    subsidy_installment_num: int | None = None
    subsidy_percent: int | None = None


class SubsidyDetail(Document, frozen=True):
    """The instalment plans a merchant subsidises."""

    subsidy_period_type: str | None = None
    subsidy_plan: list[SubsidyPlan] | None = None


class Subsidy(Document, frozen=True):
    """What a merchant adds to paying in instalments."""

    subsidy_detail: list[SubsidyDetail] | None = None


class Prepaid(Document, frozen=True):
    """The answer to a JSAPI or APP order: good for two hours."""

    prepay_id: str


class OrderRequest(Document, frozen=True):
    """Asks for a payment; which fields it needs depends on the product."""

    mchid: str | None = None
    out_trade_no: str | None = None
    appid: str | None = None
    description: str | None = None
    notify_url: str | None = None
    amount: Amount | None = None
    subsidy_info: Subsidy | None = None
    attach: str | None = None
    goods_tag: str | None = None
    support_fapiao: bool | None = None
    payer: Payer | None = None
    scene_info: Scene | None = None
    detail: GoodsList | None = None
    settle_info: Settling | None = None
    sp_appid: str | None = None
    sp_mchid: str | None = None
    sub_appid: str | None = None
    sub_mchid: str | None = None
    time_expire: str | None = None


class CodeUrl(Document, frozen=True):
    """The answer to a Native order: good for two hours."""

    code_url: str


class ExposureRequest(Document, frozen=True):
    """Asks what may be shown to a customer before the order."""

    mchid: str | None = None
    appid: str | None = None
    payer: Payer | None = None
    out_trade_no: str | None = None


class Exposure(Document, frozen=True):
    """What may be shown to a customer before the order."""

    fqf_exposure: bool | None = None
    market_exposure_token: str | None = None


class Reversing(Document, frozen=True):
    """Asks to undo a payment code's order."""

    appid: str | None = None
    mchid: str | None = None
    sp_appid: str | None = None
    sp_mchid: str | None = None
    sub_mchid: str | None = None


class Reversed(Document, frozen=True):
    """The answer to a reversal."""

    out_trade_no: str
    appid: str | None = None
    mchid: str | None = None
    sp_appid: str | None = None
    sp_mchid: str | None = None
    sub_mchid: str | None = None


class BillAddress(Document, frozen=True):
    """Where a bill lies for five minutes; the digest is over the unpacked file."""

    download_url: str
    hash_type: str
    hash_value: str


class SealedBillAddress(BillAddress, frozen=True):
    """Where one file of an encrypted bill lies, and its key, encrypted for the merchant.

    The digest is over the file as it is when it is opened and unpacked.
    """

    bill_sequence: int
    encrypt_key: str
    nonce: str


class SealedBill(Document, frozen=True):
    """The files of a sub-merchant's fund bill, to be put together by their numbers."""

    download_bill_count: int
    download_bill_list: tuple[SealedBillAddress, ...] = ()


class AbnormalRefundRequest(Document, frozen=True):
    """Asks to send a stuck refund to a bank card, or to the merchant."""

    sub_mchid: str | None = None
    out_refund_no: str | None = None
    type: str | None = None
    bank_type: str | None = None
    bank_account: str | None = None
    real_name: str | None = None


class RefundSource(Document, frozen=True):
    """Which of the merchant's accounts a part of a refund comes from."""

    account: str | None = None
    amount: int | None = None


class RefundAmount(Document, frozen=True):
    """Money of a refund, in fen; callbacks leave the currency out."""

    total: int | None = None
    refund: int | None = None
    sources: list[RefundSource] | None = field(default=None, name="from")
    payer_total: int | None = None
    payer_refund: int | None = None
    settlement_refund: int | None = None
    settlement_total: int | None = None
    discount_refund: int | None = None
    currency: str | None = None
    refund_fee: int | None = None


class RefundRequest(Document, frozen=True):
    """Asks for a refund."""

    sub_mchid: str | None = None
    notify_url: str | None = None
    amount: RefundAmount | None = None
    transaction_id: str | None = None
    out_refund_no: str | None = None
    reason: str | None = None
    out_trade_no: str | None = None
    funds_account: str | None = None


class CombinedTransaction(Document, frozen=True):
    """A combined order as answers and callbacks show it."""

    sub_orders: list[CombinedPart]
    combine_out_trade_no: str
    combine_appid: str | None = None
    combine_mchid: str | None = None
    combine_payer_info: Payer | None = None
    scene_info: Scene | None = None
    combine_transaction_id: str | None = None
    trade_scenario: str | None = None


class Refund(Document, frozen=True):
    """A refund in answers (``status``) and in callbacks (``refund_status`` and ``mchid``)."""

    refund_id: str | None = None
    out_refund_no: str | None = None
    transaction_id: str | None = None
    out_trade_no: str | None = None
    channel: str | None = None
    user_received_account: str | None = None
    success_time: str | None = None
    create_time: str | None = None
    status: str | None = None
    funds_account: str | None = None
    amount: RefundAmount | None = None
    promotion_detail: list[Promotion] | None = None
    mchid: str | None = None
    refund_status: str | None = None
    sp_mchid: str | None = None
    sub_mchid: str | None = None


class Transaction(Document, frozen=True):
    """An order as WeChat Pay shows it in answers and callbacks."""

    appid: str | None = None
    mchid: str | None = None
    out_trade_no: str | None = None
    transaction_id: str | None = None
    trade_type: str | None = None
    bank_type: str | None = None
    success_time: str | None = None
    trade_state: str | None = None
    trade_state_desc: str | None = None
    attach: str | None = None
    payer: Payer | None = None
    amount: Amount | None = None
    promotion_detail: list[Promotion] | None = None
    scene_info: Scene | None = None
    sp_appid: str | None = None
    sp_mchid: str | None = None
    sub_appid: str | None = None
    sub_mchid: str | None = None
