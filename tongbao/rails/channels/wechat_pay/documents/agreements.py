"""WeChat Pay's documents of agreements (委托代扣) and what is taken under them."""

from __future__ import annotations

from tongbao.rails.channels.wechat_pay.documents.parts import Amount, Document


class DeductNotice(Document, frozen=True):
    """Tells a customer what will be taken."""

    mchid: str | None = None
    appid: str | None = None
    estimated_amount: Amount | None = None


class PolicyPeriod(Document, frozen=True):
    """One period of an insurance and what is taken for it."""

    policy_period_id: int | None = None
    estimated_deduct_date: str | None = None
    estimated_deduct_amount: Amount | None = None
    policy_period_state: str | None = None
    scheduled_amount: Amount | None = None
    deduct_amount: Amount | None = None
    deduct_date: str | None = None


class PolicyPeriods(Document, frozen=True):
    """A page of the periods of an insurance."""

    data: list[PolicyPeriod] | None = None
    limit: int | None = None
    offset: int | None = None
    total_count: int | None = None


class RenewRequest(Document, frozen=True):
    """Asks for further periods of an insurance."""

    appid: str | None = None
    policy_periods: list[PolicyPeriod] | None = None


class Identity(Document, frozen=True):
    """Who signs, encrypted."""

    real_name: str | None = None
    id_card_number: str | None = None
    identity_type: str | None = None


class ScheduleRequest(Document, frozen=True):
    """Announces what will be taken next."""

    appid: str | None = None
    scheduled_amount: Amount | None = None
    schedule_amount: Amount | None = None


class Schedule(Document, frozen=True):
    """What was announced, and what became of it."""

    policy_period_id: int | None = None
    policy_period_state: str | None = None
    deduct_start_date: str | None = None
    deduct_end_date: str | None = None
    scheduled_amount: Amount | None = None
    deduct_amount: Amount | None = None
    deduct_date: str | None = None
    schedule_state: str | None = None


class DeductRequest(Document, frozen=True):
    """Asks to take money under an agreement."""

    appid: str | None = None
    sp_appid: str | None = None
    sub_appid: str | None = None
    sub_mchid: str | None = None
    out_trade_no: str | None = None
    description: str | None = None
    transaction_notify_url: str | None = None
    contract_id: str | None = None
    policy_period_id: int | None = None
    amount: Amount | None = None
    goods_tag: str | None = None
    attach: str | None = None
    harmony_account_id: str | None = None
    mcc: str | None = None


class Deducted(Document, frozen=True):
    """The answer to a deduction: accepted, not yet taken."""

    out_trade_no: str | None = None
    amount: Amount | None = None


class Jump(Document, frozen=True):
    """Where the customer goes after signing."""

    jump_appid: str | None = None


class DeductSchedule(Document, frozen=True):
    """What will be taken next under an agreement."""

    estimated_deduct_date: str | None = None
    estimated_deduct_amount: Amount | None = None
    description: str | None = None
    schedule_state: str | None = None
    scheduled_amount: Amount | None = None
    deduct_amount: Amount | None = None
    deduct_date: str | None = None


class SignRequest(Document, frozen=True):
    """Asks for an agreement to be offered to a customer."""

    appid: str | None = None
    openid: str | None = None
    sp_appid: str | None = None
    sp_openid: str | None = None
    sub_appid: str | None = None
    sub_openid: str | None = None
    sub_mchid: str | None = None
    plan_id: int | None = None
    out_contract_code: str | None = None
    insured_display_name: str | None = None
    contract_notify_url: str | None = None
    policy_start_date: str | None = None
    policy_end_date: str | None = None
    policy_periods: list[PolicyPeriod] | None = None
    amount: Amount | None = None
    out_trade_no: str | None = None
    description: str | None = None
    transaction_notify_url: str | None = None
    out_user_code: str | None = None
    goods_tag: str | None = None
    attach: str | None = None
    can_auto_insure: bool | None = None
    can_auto_reinsure: bool | None = None
    real_identity: Identity | None = None
    jump_control: Jump | None = None
    contract_display_account: str | None = None
    deduct_schedule: DeductSchedule | None = None


class SignOffer(Document, frozen=True):
    """Where the customer signs."""

    redirect_url: str | None = None
    pre_entrustweb_id: str | None = None
    redirect_appid: str | None = None
    redirect_path: str | None = None
    miniprogram_username: str | None = None
    miniprogram_path: str | None = None


class TerminateRequest(Document, frozen=True):
    """Asks to end an agreement."""

    contract_termination_remark: str | None = None
    sub_mchid: str | None = None


class Termination(Document, frozen=True):
    """When and how an agreement ended."""

    contract_termination_mode: str | None = None
    contract_terminated_time: str | None = None
    contract_termination_remark: str | None = None


class Contract(Document, frozen=True):
    """An agreement in answers and callbacks."""

    mchid: str | None = None
    sp_mchid: str | None = None
    sub_mchid: str | None = None
    contract_id: str | None = None
    appid: str | None = None
    sp_appid: str | None = None
    sub_appid: str | None = None
    plan_id: int | None = None
    out_contract_code: str | None = None
    insured_display_name: str | None = None
    contract_state: str | None = None
    contract_signed_time: str | None = None
    contract_expired_time: str | None = None
    contract_terminate_info: Termination | None = None
    openid: str | None = None
    sp_openid: str | None = None
    sub_openid: str | None = None
    out_user_code: str | None = None
    contract_display_account: str | None = None
    deduct_schedule: DeductSchedule | None = None
