"""Orders of WeChat Pay in every mode (支付): offered, asked about, closed, reversed."""

from __future__ import annotations

import asyncio
from typing import Final, assert_never
from urllib.parse import quote

import msgspec

from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode, PayOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Closed,
    CloseOutcome,
    Declined,
    Exchange,
    NotSent,
    OpenApp,
    Outcome,
    Pending,
    QueryOutcome,
    Redirect,
    ShowQr,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.exchange import decode, followed_by, unsent
from tongbao.rails.channels.wechat_pay.crypto import opening
from tongbao.rails.channels.wechat_pay.documents.orders import (
    Closing,
    CodeUrl,
    H5Url,
    Prepaid,
    Reversed,
    Reversing,
    Transaction,
)
from tongbao.rails.channels.wechat_pay.gateway import (
    ERRORS,
    Answered,
    Gateway,
    Refused,
    ids_of,
    in_path,
    meant,
    secrets_of,
)
from tongbao.rails.channels.wechat_pay.wire import (
    CURRENCY,
    encode,
    order_differs,
    order_outcome,
    order_request,
)

_OPENED: Final = frozenset({PayMode.IN_APP, PayMode.APP})
PRODUCTS: Final = {
    PayMode.QR: "native",
    PayMode.PAYMENT_CODE: "codepay",
    PayMode.IN_APP: "jsapi",
    PayMode.APP: "app",
    PayMode.H5: "h5",
}
"""Where an order of each mode is placed."""


def path_of(account: ChannelAccount) -> str:
    """Return where the account's orders live: a partner's have a place of their own."""
    partner = secrets_of(account).partner is not None
    return "/v3/pay/partner/transactions" if partner else "/v3/pay/transactions"


async def pay(gateway: Gateway, account: ChannelAccount, order: PayOrder) -> Answer[Outcome]:
    """Offer the order to the customer, or charge the code the customer shows."""
    path = path_of(account)
    if reason := unpayable(account, order):
        return Answer(NotSent(reason), unsent("POST", account.gateway + path, reason))
    target, body = f"{path}/{PRODUCTS[order.mode]}", encode(order_request(account, order))
    heard, exchange = await gateway.call(account, "POST", target, body, hidden=hidden_of(order))
    match heard:
        case Answered() if order.mode in _OPENED:  # signed once more, beside the event loop
            outcome = await asyncio.to_thread(offered, gateway, account, order, heard.body)
            return Answer(outcome, exchange)
        case Answered():
            return Answer(offered(gateway, account, order, heard.body), exchange)
        case Refused():
            return await pay_refused(gateway, account, order, heard, exchange)
        case NotSent() | Unknown():
            return Answer(heard, exchange)
        case _:
            assert_never(heard)


async def query(gateway: Gateway, account: ChannelAccount, order: PayOrder) -> Answer[QueryOutcome]:
    """Ask what became of the order."""
    target = f"{path_of(account)}/out-trade-no/{in_path(order.number)}?{ids_of(account).query}"
    return await gateway.question(
        account, target, "query", lambda body: _read(body, account, order), hidden=hidden_of(order)
    )


async def close(gateway: Gateway, account: ChannelAccount, order: PayOrder) -> Answer[CloseOutcome]:
    """Close an order; reverse a payment code's, which gives back what was paid."""
    ids, by_code = ids_of(account, order.app_id), order.mode is PayMode.PAYMENT_CODE
    target = f"{path_of(account)}/out-trade-no/{in_path(order.number)}"
    closing = Closing(mchid=ids.mchid, sp_mchid=ids.sp_mchid, sub_mchid=ids.sub_mchid)
    body, target = encode(closing), f"{target}/{'reverse' if by_code else 'close'}"
    if by_code:
        apps = {"appid": ids.appid, "sp_appid": ids.sp_appid}
        body = encode(Reversing(**apps, **msgspec.structs.asdict(closing)))
    heard, exchange = await gateway.call(account, "POST", target, body, hidden=hidden_of(order))
    match heard:
        case Answered() if by_code:
            return Answer(_reversed(heard.body, account, order), exchange)
        case Answered():
            return Answer(Closed("CLOSED"), exchange)
        case Refused():
            return await _close_refused(gateway, account, order, heard, exchange)
        case NotSent() | Unknown():
            return Answer(Unknown(heard.reason), exchange)
        case _:
            assert_never(heard)


async def pay_refused(
    gateway: Gateway, account: ChannelAccount, order: PayOrder, refused: Refused, exchange: Exchange
) -> Answer[Outcome]:
    """Return what a refused order means; where the code leaves it open, the order is asked."""
    entry = ERRORS.find("pay", refused.code)
    outcome = meant(entry, refused)
    if not entry.ask:
        return Answer(outcome, exchange)
    asked = await query(gateway, account, order)
    both = followed_by(exchange, asked.exchange)
    match asked.outcome:
        case Succeeded() | Declined():
            return Answer(asked.outcome, both)
        case Pending() if order.mode in {PayMode.PAYMENT_CODE, PayMode.AGREEMENT}:
            return Answer(asked.outcome, both)
        case Closed(code=code):
            return Answer(Declined(code, refused.message), both)
        case Absent():
            return Answer(outcome, both)
        case Pending() | Unknown():  # an open order whose code or link we were not given again
            return Answer(Unknown(f"{refused.code}, and the order is not decided"), both)
        case _:
            assert_never(asked.outcome)


async def _close_refused(
    gateway: Gateway, account: ChannelAccount, order: PayOrder, refused: Refused, exchange: Exchange
) -> Answer[CloseOutcome]:
    if ERRORS.find("close", refused.code).meaning == "absent":
        return Answer(Absent(refused.code), exchange)
    asked = await query(gateway, account, order)
    both = followed_by(exchange, asked.exchange)
    match asked.outcome:
        case Succeeded() | Closed() | Absent():
            return Answer(asked.outcome, both)
        case Declined(code=code):
            return Answer(Closed(code), both)
        case Pending() | Unknown():
            return Answer(Unknown(f"not closed: {refused.code}"), both)
        case _:
            assert_never(asked.outcome)


def hidden_of(order: PayOrder) -> tuple[str, ...]:
    """Return what of an order must not stand in the evidence."""
    return (order.auth_code,) if order.auth_code else ()


def unpayable(account: ChannelAccount, order: PayOrder) -> str | None:
    """Return why the order cannot be sent, before anything is."""
    keys = secrets_of(account)
    apps = {None, account.app_id, *keys.app_ids, keys.partner.sp_appid if keys.partner else None}
    lacks_code = order.mode is PayMode.PAYMENT_CODE and not order.auth_code
    lacks_payer = order.mode is PayMode.IN_APP and not order.payer_id
    reasons = (
        (order.mode not in PRODUCTS, f"no {order.mode} here"),
        (order.money.currency != CURRENCY, f"WeChat Pay does not take {order.money.currency}"),
        (not order.captures, "WeChat Pay does not authorise without taking the money"),
        (lacks_code, "there is no payment code"),
        (lacks_payer, "who pays is not known: there is no openid"),
        (order.app_id not in apps, "the app is none of this account's"),
    )
    return next((reason for applies, reason in reasons if applies), None)


def offered(
    gateway: Gateway, account: ChannelAccount, order: PayOrder, body: bytes
) -> Succeeded | Pending | Declined | Unknown:
    """Return what the customer is to do, or what became of the code that was charged."""
    match order.mode:
        case PayMode.QR:
            offer = decode(body, CodeUrl)
            if offer is None or not offer.code_url:
                return Unknown("the answer holds no code_url")
            return Pending(ShowQr(offer.code_url))
        case PayMode.H5:
            return _sent_there(order, decode(body, H5Url))
        case PayMode.PAYMENT_CODE:
            outcome = _read(body, account, order)
            return Declined(outcome.code) if isinstance(outcome, Closed) else outcome
        case _:
            ids = ids_of(account, order.app_id)
            app_id = ids.appid or ids.sub_appid or ids.sp_appid or ""
            return opened(gateway, account, order.mode, app_id, decode(body, Prepaid))


def _sent_there(order: PayOrder, offer: H5Url | None) -> Pending | Unknown:
    if offer is None or not offer.h5_url.startswith(("https://", "http://")):
        return Unknown("the answer holds no h5_url")
    url = offer.h5_url
    if order.return_url:
        url = f"{url}&redirect_url={quote(order.return_url, safe='')}"
    return Pending(Redirect(url))


def opened(
    gateway: Gateway, account: ChannelAccount, mode: PayMode, app_id: str, offer: Prepaid | None
) -> Pending | Unknown:
    """Return what the page or app hands to WeChat, signed now: each has names of its own."""
    if offer is None or not offer.prepay_id:
        return Unknown("the answer holds no prepay_id")
    keys, now = secrets_of(account), gateway.real_now()
    if mode is PayMode.IN_APP:
        package = f"prepay_id={offer.prepay_id}"
        signed = opening(keys, app_id, package, now)
        parameters = {
            "appId": app_id,
            "timeStamp": signed.timestamp,
            "nonceStr": signed.nonce,
            "package": package,
            "signType": keys.scheme,
            "paySign": signed.signature,
        }
    else:
        signed = opening(keys, app_id, offer.prepay_id, now)
        parameters = {
            "appid": app_id,
            "partnerid": account.merchant_number,
            "prepayid": offer.prepay_id,
            "package": "Sign=WXPay",
            "noncestr": signed.nonce,
            "timestamp": signed.timestamp,
            "sign": signed.signature,
        }
    return Pending(OpenApp(parameters))


def _reversed(body: bytes, account: ChannelAccount, order: PayOrder) -> Closed | Unknown:
    answer, ids = decode(body, Reversed), ids_of(account)
    named = answer is not None and (
        (answer.out_trade_no, answer.mchid, answer.sp_mchid, answer.sub_mchid)
        == (order.number, ids.mchid, ids.sp_mchid, ids.sub_mchid)
    )
    if not named:
        return Unknown("the answer does not name the order as reversed")
    return Closed("REVOKED")


def _read(
    body: bytes, account: ChannelAccount, order: PayOrder
) -> Succeeded | Pending | Declined | Closed | Unknown:
    transaction = decode(body, Transaction)
    if transaction is None:
        return Unknown("the answer is no transaction")
    if difference := order_differs(transaction, account, order):
        return Unknown(f"contradiction: {difference}")
    return order_outcome(transaction)
