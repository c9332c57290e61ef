"""WeChat Pay's documents of payouts (商家转账) and their receipts."""

from __future__ import annotations

from tongbao.rails.channels.wechat_pay.documents.parts import Document


class RedPacketDetail(Document, frozen=True):
    """One red packet of a batch."""

    out_detail_no: str | None = None
    amount: int | None = None
    openid: str | None = None
    user_name: str | None = None
    remark: str | None = None
    transfer_detail_no: str | None = None
    detail_state: str | None = None
    brand_mchid: str | None = None
    out_batch_no: str | None = None
    batch_no: str | None = None
    detail_no: str | None = None
    fail_reason: str | None = None
    initiate_time: str | None = None
    update_time: str | None = None
    brand_id: int | None = None
    template_id: str | None = None
    brand_appid: str | None = None


class RedPacketRequest(Document, frozen=True):
    """Asks for a batch of a brand's red packets."""

    brand_id: int | None = None
    brand_appid: str | None = None
    scene: str | None = None
    template_id: str | None = None
    out_batch_no: str | None = None
    batch_name: str | None = None
    batch_remark: str | None = None
    total_amount: int | None = None
    total_num: int | None = None
    detail_list: list[RedPacketDetail] | None = None


class RedPacketBatch(Document, frozen=True):
    """A batch of a brand's red packets."""

    out_batch_no: str | None = None
    batch_no: str | None = None
    create_time: str | None = None
    batch_state: str | None = None
    brand_mchid: str | None = None
    brand_id: int | None = None
    template_id: str | None = None
    brand_appid: str | None = None
    batch_name: str | None = None
    batch_remark: str | None = None
    close_reason: str | None = None
    total_amount: int | None = None
    total_num: int | None = None
    update_time: str | None = None
    success_amount: int | None = None
    success_num: int | None = None
    fail_amount: int | None = None
    fail_num: int | None = None
    detail_list: list[RedPacketDetail] | None = None


class AuthorisationAsked(Document, frozen=True):
    """The consent to be asked for together with a transfer."""

    user_display_name: str | None = None
    out_authorization_no: str | None = None
    authorization_notify_url: str | None = None


class Purpose(Document, frozen=True):
    """One thing WeChat Pay wants to know of the purpose of a transfer."""

    info_type: str | None = None
    info_content: str | None = None


class AuthorisationClosed(Document, frozen=True):
    """When and why a consent ended."""

    close_time: str | None = None
    close_reason: str | None = None


class TransferRequest(Document, frozen=True):
    """Asks to pay out to a customer."""

    sub_mchid: str | None = None
    appid: str | None = None
    out_bill_no: str | None = None
    transfer_scene_id: str | None = None
    openid: str | None = None
    user_name: str | None = None
    transfer_amount: int | None = None
    transfer_remark: str | None = None
    notify_url: str | None = None
    user_recv_perception: str | None = None
    transfer_scene_report_infos: list[Purpose] | None = None
    authorization_info: AuthorisationAsked | None = None
    sponsor_mchid: str | None = None
    authorization_id: str | None = None
    user_qq: str | None = None


class TransferCancelling(Document, frozen=True):
    """Asks to take a payout back; only a service provider says more than the path does."""

    sub_mchid: str | None = None


class BatchDetail(Document, frozen=True):
    """One payout of a batch."""

    out_detail_no: str | None = None
    transfer_amount: int | None = None
    transfer_remark: str | None = None
    openid: str | None = None
    user_name: str | None = None
    user_id_card: str | None = None
    detail_id: str | None = None
    detail_status: str | None = None
    mchid: str | None = None
    out_batch_no: str | None = None
    batch_id: str | None = None
    appid: str | None = None
    fail_reason: str | None = None
    initiate_time: str | None = None
    update_time: str | None = None


class BatchRequest(Document, frozen=True):
    """Asks to pay out to many, in the older way."""

    appid: str | None = None
    out_batch_no: str | None = None
    batch_name: str | None = None
    batch_remark: str | None = None
    total_amount: int | None = None
    total_num: int | None = None
    transfer_detail_list: list[BatchDetail] | None = None
    transfer_scene_id: str | None = None
    notify_url: str | None = None


class Batch(Document, frozen=True):
    """A batch of payouts."""

    out_batch_no: str | None = None
    batch_id: str | None = None
    create_time: str | None = None
    mchid: str | None = None
    appid: str | None = None
    batch_status: str | None = None
    batch_type: str | None = None
    batch_name: str | None = None
    batch_remark: str | None = None
    close_reason: str | None = None
    total_amount: int | None = None
    total_num: int | None = None
    update_time: str | None = None
    success_amount: int | None = None
    success_num: int | None = None
    fail_amount: int | None = None
    fail_num: int | None = None
    transfer_scene_id: str | None = None


class BatchFound(Document, frozen=True):
    """A batch with the payouts asked about."""

    transfer_batch: Batch | None = None
    transfer_detail_list: list[BatchDetail] | None = None


class Receipt(Document, frozen=True):
    """An electronic receipt, asked for or ready."""

    out_bill_no: str | None = None
    state: str | None = None
    create_time: str | None = None
    transfer_bill_no: str | None = None
    update_time: str | None = None
    hash_type: str | None = None
    hash_value: str | None = None
    download_url: str | None = None
    fail_reason: str | None = None
    out_batch_no: str | None = None
    signature_no: str | None = None
    signature_status: str | None = None
    accept_type: str | None = None
    out_detail_no: str | None = None


class Authorisation(Document, frozen=True):
    """A customer's consent to be paid without confirming each time."""

    out_authorization_no: str | None = None
    appid: str | None = None
    openid: str | None = None
    transfer_scene_id: str | None = None
    user_display_name: str | None = None
    user_recv_perception: str | None = None
    authorization_notify_url: str | None = None
    state: str | None = None
    create_time: str | None = None
    package_info: str | None = None
    authorization_id: str | None = None
    authorize_time: str | None = None
    close_info: AuthorisationClosed | None = None


class TransferBill(Document, frozen=True):
    """A payout and what became of it."""

    out_bill_no: str | None = None
    transfer_bill_no: str | None = None
    state: str | None = None
    update_time: str | None = None
    create_time: str | None = None
    package_info: str | None = None
    user_display_name: str | None = None
    out_authorization_no: str | None = None
    fail_reason: str | None = None
    mch_id: str | None = None
    appid: str | None = None
    transfer_amount: int | None = None
    transfer_remark: str | None = None
    openid: str | None = None
    user_name: str | None = None
    mchid: str | None = None
    sub_mchid: str | None = None
    user_qq: str | None = None
