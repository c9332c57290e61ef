"""WeChat Pay's documents of parking and toll roads (车主服务), and of violations."""

from __future__ import annotations

from tongbao.rails.channels.wechat_pay.documents.parts import Amount, Document, Payer, Promotion


class Passage(Document, frozen=True):
    """A drive on a toll road."""

    plate_number: str | None = None
    start_time: str | None = None
    end_time: str | None = None
    channel_type: str | None = None
    car_type: str | None = None
    entrance: str | None = None
    exit: str | None = None
    carrying_capacity: int | None = None
    carrying_range: str | None = None


class Device(Document, frozen=True):
    """The device at the road."""

    device_id: str | None = None
    device_ip: str | None = None


class HighwayRequest(Document, frozen=True):
    """Asks to take a toll."""

    out_trade_no: str | None = None
    sub_mchid: str | None = None
    appid: str | None = None
    sub_appid: str | None = None
    contract_id: str | None = None
    description: str | None = None
    attach: str | None = None
    goods_tag: str | None = None
    highway_info: Passage | None = None
    amount: Amount | None = None
    device_info: Device | None = None


class EtcIdentity(Document, frozen=True):
    """Who opens the service, encrypted."""

    encrypted_real_name: str | None = None
    encrypted_credential_id: str | None = None
    credential_type: str | None = None


class EtcOpening(Document, frozen=True):
    """Asks to open toll payments for a plate."""

    sp_appid: str | None = None
    sub_appid: str | None = None
    sub_mchid: str | None = None
    openid: str | None = None
    plan_id: str | None = None
    etc_device_id: str | None = None
    plate_number: str | None = None
    identify: EtcIdentity | None = None


class EtcOpened(Document, frozen=True):
    """The answer to an opening."""

    preopen_id: str | None = None


class ParkingPlate(Document, frozen=True):
    """Whether a plate may be charged for parking."""

    plate_number: str | None = None
    plate_color: str | None = None
    service_open_time: str | None = None
    openid: str | None = None
    service_state: str | None = None


class Stay(Document, frozen=True):
    """How long a car stayed and where."""

    parking_id: str | None = None
    plate_number: str | None = None
    plate_color: str | None = None
    start_time: str | None = None
    end_time: str | None = None
    parking_name: str | None = None
    charging_duration: int | None = None
    device_id: str | None = None


class ParkingRequest(Document, frozen=True):
    """Asks to take a parking fee."""

    appid: str | None = None
    sub_appid: str | None = None
    sub_mchid: str | None = None
    description: str | None = None
    attach: str | None = None
    out_trade_no: str | None = None
    trade_scene: str | None = None
    goods_tag: str | None = None
    notify_url: str | None = None
    profit_sharing: str | None = None
    amount: Amount | None = None
    parking_info: Stay | None = None


class EtcContract(Document, frozen=True):
    """Whether a plate may be charged for tolls."""

    appid: str | None = None
    sp_mchid: str | None = None
    sp_openid: str | None = None
    sub_mchid: str | None = None
    contract_id: str | None = None
    bind_state: str | None = None
    plate_number: str | None = None


class Parking(Document, frozen=True):
    """A car that drove in; the same again when its state changes."""

    sub_mchid: str | None = None
    out_parking_no: str | None = None
    plate_number: str | None = None
    plate_color: str | None = None
    notify_url: str | None = None
    start_time: str | None = None
    parking_name: str | None = None
    free_duration: int | None = None
    id: str | None = None
    state: str | None = None
    block_reason: str | None = None
    sp_mchid: str | None = None
    parking_id: str | None = None
    parking_state: str | None = None
    state_update_time: str | None = None


class VehicleTransaction(Document, frozen=True):
    """A parking fee or toll, and what became of it."""

    mchid: str | None = None
    sub_mchid: str | None = None
    appid: str | None = None
    sub_appid: str | None = None
    out_trade_no: str | None = None
    transaction_id: str | None = None
    attach: str | None = None
    trade_type: str | None = None
    bank_type: str | None = None
    success_time: str | None = None
    trade_state: str | None = None
    trade_state_desc: str | None = None
    payer: Payer | None = None
    amount: Amount | None = None
    device_info: Device | None = None
    promotion_detail: list[Promotion] | None = None
    sp_mchid: str | None = None
    description: str | None = None
    create_time: str | None = None
    trade_state_description: str | None = None
    user_repaid: str | None = None
    trade_scene: str | None = None
    parking_info: Stay | None = None


class Violation(Document, frozen=True):
    """What WeChat Pay holds against a sub-merchant."""

    sub_mchid: str | None = None
    company_name: str | None = None
    record_id: str | None = None
    punish_plan: str | None = None
    punish_time: str | None = None
    punish_description: str | None = None
    risk_type: str | None = None
    risk_description: str | None = None
