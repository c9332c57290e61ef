"""Agreements of WeChat Pay (委托代扣): offered, asked about, ended, and taken under.

A service provider has addresses of its own and names its merchant in every call
(`TheNorthMemory/wechatpay-openapi`, ``papay/**/partner``). The only call it has none for is the
notice before a deduction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, assert_never

from tongbao.kernel.money import Money
from tongbao.rails.channels.capabilities.agreements import (
    AgreementEnded,
    AgreementOffered,
    AgreementOrder,
    AgreementOutcome,
    AgreementSigned,
    SignsIn,
)
from tongbao.rails.channels.contract.orders import ChannelAccount, PayOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Declined,
    NotSent,
    OpenApp,
    Outcome,
    Pending,
    Redirect,
    Unknown,
)
from tongbao.rails.channels.exchange import Announced, decode, followed_by, unsent
from tongbao.rails.channels.wechat_pay.documents import agreements as documents
from tongbao.rails.channels.wechat_pay.documents.parts import Amount, Payer
from tongbao.rails.channels.wechat_pay.gateway import (
    ERRORS,
    Answered,
    Gateway,
    Ids,
    Refused,
    ids_of,
    in_path,
    meant,
    secrets_of,
)
from tongbao.rails.channels.wechat_pay.products.orders import pay_refused
from tongbao.rails.channels.wechat_pay.wire import (
    CURRENCY,
    DESCRIPTION_MAX,
    encode,
    first_difference,
    moment,
)

SIGN: Final = "/v3/papay/scheduled-deduct-sign/contracts/pre-entrust-sign"
PARTNER_SIGN: Final = "/v3/papay/scheduled-deduct-sign/partner/contracts/pre-entrust-sign"
CONTRACTS: Final = "/v3/papay/sign/contracts"
PARTNER_CONTRACTS: Final = "/v3/papay/sign/partner/contracts"
DEDUCT: Final = "/v3/papay/pay/transactions/apply"
PARTNER_DEDUCT: Final = "/v3/papay/pay/partner/transactions/apply"
NOTICES: Final = "/v3/papay/contracts"
_PLACES: Final[Mapping[SignsIn, str]] = {"page": "", "app": "app", "mini_program": "mini-program"}
_NO_NOTICE: Final = "WeChat Pay lets merchants announce a deduction, not their service providers"


async def offer(
    gateway: Gateway, account: ChannelAccount, order: AgreementOrder
) -> Answer[AgreementOutcome]:
    """Offer an agreement where the customer is; a page is in WeChat for one whom it knows."""
    ids = ids_of(account)
    payer = _payer(ids, order.payer_id)
    path = PARTNER_SIGN if ids.sub_mchid else SIGN
    target = f"{path}/{_PLACES[order.signs_in] or ('jsapi' if order.payer_id else 'h5')}"
    if reason := _unsignable(order):
        return Answer(NotSent(reason), unsent("POST", account.gateway + target, reason))
    body = documents.SignRequest(
        appid=ids.appid,
        sp_appid=ids.sp_appid,
        sub_appid=ids.sub_appid,
        sub_mchid=ids.sub_mchid,
        openid=payer.openid,
        sp_openid=payer.sp_openid,
        sub_openid=payer.sub_openid,
        plan_id=int(order.plan),
        out_contract_code=order.number,
        contract_display_account=order.display_name,
        contract_notify_url=account.notify_url,
    )
    heard, exchange = await gateway.call(account, "POST", target, encode(body))
    match heard:
        case Answered():
            offered = decode(heard.body, documents.SignOffer) or documents.SignOffer()
            action = action_of(offered, order.signs_in)
            if action is None:
                return Answer(Unknown("the answer does not say where to sign"), exchange)
            return Answer(AgreementOffered(action), exchange)
        case Refused():
            return Answer(_refused(heard), exchange)
        case NotSent() | Unknown():
            return Answer(heard, exchange)
        case _:
            assert_never(heard)


async def query(
    gateway: Gateway, account: ChannelAccount, order: AgreementOrder
) -> Answer[AgreementOutcome]:
    """Ask whether it is signed; one that nobody signed is not known there."""
    target = _path(account, order)
    if sub_mchid := ids_of(account).sub_mchid:
        target = f"{target}?sub_mchid={in_path(sub_mchid)}"
    heard, exchange = await gateway.call(account, "GET", target)
    match heard:
        case Answered():
            return Answer(_read(heard.body, account, order), exchange)
        case Refused():
            return Answer(_refused(heard), exchange)
        case NotSent() | Unknown():
            return Answer(Unknown(heard.reason), exchange)
        case _:
            assert_never(heard)


async def end(
    gateway: Gateway, account: ChannelAccount, order: AgreementOrder, reason: str
) -> Answer[AgreementOutcome]:
    """End it; where the answer does not say that it is ended, ask."""
    body = documents.TerminateRequest(reason[:256] or "商户解约", ids_of(account).sub_mchid)
    target = f"{_path(account, order)}/terminate"
    heard, exchange = await gateway.call(account, "POST", target, encode(body))
    if isinstance(heard, Answered):
        outcome = _read(heard.body, account, order)
        if isinstance(outcome, AgreementEnded):
            return Answer(outcome, exchange)
    if isinstance(heard, NotSent | Unknown):
        return Answer(heard, exchange)
    asked = await query(gateway, account, order)
    both = followed_by(exchange, asked.exchange)
    if isinstance(asked.outcome, AgreementSigned):
        return Answer(Unknown("it is still signed"), both)
    return Answer(asked.outcome, both)


async def deduct(gateway: Gateway, account: ChannelAccount, order: PayOrder) -> Answer[Outcome]:
    """Take money under an agreement: accepted now, decided later and told by callback."""
    ids = ids_of(account)
    target = PARTNER_DEDUCT if ids.sub_mchid else DEDUCT
    if reason := _undeductible(order):
        return Answer(NotSent(reason), unsent("POST", account.gateway + target, reason))
    body = documents.DeductRequest(
        appid=ids.appid,
        sp_appid=ids.sp_appid,
        sub_appid=ids.sub_appid,
        sub_mchid=ids.sub_mchid,
        out_trade_no=order.number,
        description=order.subject[:DESCRIPTION_MAX] or order.number,
        transaction_notify_url=account.notify_url,
        contract_id=order.agreement_ref,
        amount=Amount(total=order.money.amount, currency=order.money.currency),
    )
    heard, exchange = await gateway.call(account, "POST", target, encode(body))
    match heard:
        case Answered():
            taken = decode(heard.body, documents.Deducted) or documents.Deducted()
            amount = (taken.amount or Amount()).total
            if (taken.out_trade_no, amount) != (order.number, order.money.amount):
                return Answer(Unknown("the answer accepts another deduction"), exchange)
            return Answer(Pending(reason="ACCEPTED"), exchange)
        case Refused():
            return await pay_refused(gateway, account, order, heard, exchange)
        case NotSent() | Unknown():
            return Answer(heard, exchange)
        case _:
            assert_never(heard)


async def announce(
    gateway: Gateway, account: ChannelAccount, agreement_ref: str, money: Money
) -> Answer[Announced | Declined | NotSent | Unknown]:
    """Tell a customer through WeChat what will be taken; some plans want it a day before."""
    target = f"{NOTICES}/{in_path(agreement_ref)}/notify"
    if secrets_of(account).partner is not None:
        return Answer(NotSent(_NO_NOTICE), unsent("POST", account.gateway + target, _NO_NOTICE))
    body = documents.DeductNotice(
        mchid=account.merchant_number,
        appid=account.app_id,
        estimated_amount=Amount(amount=money.amount, currency=money.currency),
    )
    heard, exchange = await gateway.call(account, "POST", target, encode(body))
    match heard:
        case Answered():
            return Answer(Announced(), exchange)
        case Refused():
            return Answer(Declined(heard.code, heard.message), exchange)
        case NotSent() | Unknown():
            return Answer(heard, exchange)
        case _:
            assert_never(heard)


def _path(account: ChannelAccount, order: AgreementOrder) -> str:
    path = CONTRACTS if secrets_of(account).partner is None else PARTNER_CONTRACTS
    return f"{path}/plan-id/{in_path(order.plan)}/out-contract-code/{in_path(order.number)}"


def _payer(ids: Ids, payer_id: str | None) -> Payer:
    """Return the customer under the name that goes with the app that knows them."""
    if ids.appid:
        return Payer(openid=payer_id)
    return Payer(sub_openid=payer_id) if ids.sub_appid else Payer(sp_openid=payer_id)


def action_of(offered: documents.SignOffer, signs_in: SignsIn) -> Redirect | OpenApp | None:
    """Return how the customer gets to the signature, or None where the answer lacks a part.

    What is handed to WeChat's own code is under the names that code has for it: an app's SDK
    opens the offer by its id, or the mini-program ``userName`` at ``path``; a mini-program calls
    ``navigateToMiniProgram`` with ``appId`` and ``path``, the id in its ``extraData``.
    """
    if signs_in == "page":
        url = offered.redirect_url or ""
        return Redirect(url) if url.startswith("http") else None
    handed = {"pre_entrustweb_id": offered.pre_entrustweb_id}
    if signs_in == "mini_program":
        handed |= {"appId": offered.redirect_appid, "path": offered.redirect_path}
    elif offered.miniprogram_username and offered.miniprogram_path:
        handed |= {"userName": offered.miniprogram_username, "path": offered.miniprogram_path}
    known = {name: value for name, value in handed.items() if value}
    return OpenApp(known) if len(known) == len(handed) else None


def _unsignable(order: AgreementOrder) -> str | None:
    if not (order.plan.isascii() and order.plan.isdigit()):
        return "a plan of WeChat Pay is a number"
    return None


def _undeductible(order: PayOrder) -> str | None:
    if order.money.currency != CURRENCY:
        return f"WeChat Pay does not take {order.money.currency}"
    return None if order.agreement_ref else "there is no agreement to take it under"


def _refused(refused: Refused) -> Absent | Declined | NotSent | Unknown:
    entry = ERRORS.find("agreement", refused.code)
    if entry.meaning == "absent":
        return Absent(refused.code)
    outcome = meant(entry, refused)
    return Unknown(outcome.reason) if isinstance(outcome, Pending) else outcome


def _read(
    body: bytes, account: ChannelAccount, order: AgreementOrder
) -> AgreementSigned | AgreementEnded | Unknown:
    contract = decode(body, documents.Contract) or documents.Contract()
    ids = ids_of(account)
    difference = first_difference(
        [
            ("mchid", contract.mchid, ids.mchid),
            ("appid", contract.appid, ids.appid),
            ("sp_mchid", contract.sp_mchid, ids.sp_mchid),
            ("sp_appid", contract.sp_appid, ids.sp_appid),
            ("sub_mchid", contract.sub_mchid, ids.sub_mchid),
            ("out_contract_code", contract.out_contract_code, order.number),
            ("plan_id", str(contract.plan_id), order.plan),
        ]
    )
    if difference:
        return Unknown(f"contradiction: {difference}")
    match contract.contract_state:
        case "SIGNED":
            at = moment(contract.contract_signed_time)
            if at is None or not contract.contract_id:
                return Unknown("a signed agreement without number or time")
            ends_at = moment(contract.contract_expired_time)
            payer = contract.openid or contract.sub_openid or contract.sp_openid
            return AgreementSigned(contract.contract_id, payer, at, ends_at)
        case "TERMINATED":
            why = contract.contract_terminate_info or documents.Termination()
            return AgreementEnded(why.contract_termination_mode or "TERMINATED")
        case state:
            return Unknown(f"contract_state {(state or '')[:32]}")
