"""Payouts of WeChat Pay to a customer's change (商家转账), confirmed there by the customer.

A service provider pays out of its merchant's account, at an address of its own and with the
merchant's number in every call (`TheNorthMemory/wechatpay-openapi`,
``fund-app/mch-transfer/partner``).
"""

from __future__ import annotations

from typing import Final, assert_never

from tongbao.rails.channels.capabilities.transfers import (
    TransferOrder,
    TransferOutcome,
    TransferQueryOutcome,
)
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Closed,
    Declined,
    Exchange,
    NotSent,
    OpenApp,
    Pending,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.exchange import decode, followed_by, unsent
from tongbao.rails.channels.wechat_pay.crypto import NotEncryptable
from tongbao.rails.channels.wechat_pay.documents.transfers import (
    Purpose,
    TransferBill,
    TransferCancelling,
    TransferRequest,
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
    signer_of,
)
from tongbao.rails.channels.wechat_pay.wire import (
    CURRENCY,
    encode,
    first_difference,
    transfer_outcome,
)

PATH: Final = "/v3/fund-app/mch-transfer/transfer-bills"
PARTNER_PATH: Final = "/v3/fund-app/mch-transfer/partner/transfer-bills"
_REMARK_MAX: Final = 32


async def transfer(
    gateway: Gateway, account: ChannelAccount, order: TransferOrder
) -> Answer[TransferOutcome]:
    """Pay out; the payee is to confirm in WeChat, with what the `OpenApp` holds.

    The payee's name goes encrypted. An answer that says the money moved is asked about, because
    it names no amount.
    """
    path = _path(account)
    reason, sealed, serial = _unpayable(order), None, ""
    try:
        if order.payee_name and not reason:
            sealed, serial = await gateway.encrypt(account, order.payee_name)
    except NotEncryptable as failure:
        reason = str(failure)
    if reason:
        return Answer(NotSent(reason), unsent("POST", account.gateway + path, reason))
    heard, exchange = await gateway.call(
        account,
        "POST",
        path,
        encode(_request(account, order, sealed)),
        hidden=(sealed,) if sealed else (),
        encrypted_for=serial,
    )
    match heard:
        case Answered():
            outcome = _sent(heard.body, account, order)
            if outcome is not None:
                return Answer(outcome, exchange)
            return await _settled(gateway, account, order, Unknown("not found there"), exchange)
        case Refused():
            entry = ERRORS.find("transfer", heard.code)
            refused = meant(entry, heard)
            if not entry.ask:
                return Answer(refused, exchange)
            return await _settled(gateway, account, order, refused, exchange)
        case NotSent() | Unknown():
            return Answer(heard, exchange)
        case _:
            assert_never(heard)


async def _settled(
    gateway: Gateway,
    account: ChannelAccount,
    order: TransferOrder,
    otherwise: Declined | NotSent | Pending | Unknown,
    exchange: Exchange,
) -> Answer[TransferOutcome]:
    """Ask about the payout right away; ``otherwise`` is what it means when there is none."""
    asked = await query_transfer(gateway, account, order)
    both = followed_by(exchange, asked.exchange)
    match asked.outcome:
        case Absent():
            return Answer(otherwise, both)
        case Closed(code=code):
            return Answer(Declined(code), both)
        case _:
            return Answer(asked.outcome, both)


def _request(account: ChannelAccount, order: TransferOrder, sealed: str | None) -> TransferRequest:
    return TransferRequest(
        sub_mchid=ids_of(account).sub_mchid,
        appid=account.app_id,
        out_bill_no=order.number,
        transfer_scene_id=order.scene,
        openid=order.payee,
        user_name=sealed,
        transfer_amount=order.money.amount,
        transfer_remark=order.title[:_REMARK_MAX],
        notify_url=account.notify_url,
        transfer_scene_report_infos=[Purpose(kind, content) for kind, content in order.notes],
    )


async def query_transfer(
    gateway: Gateway, account: ChannelAccount, order: TransferOrder
) -> Answer[TransferQueryOutcome]:
    """Ask what became of a payout."""
    target = _bill_of(account, order)
    if sub_mchid := ids_of(account).sub_mchid:
        target = f"{target}?sub_mchid={in_path(sub_mchid)}"
    return await gateway.question(
        account, target, "query_transfer", lambda body: _read(body, account, order)
    )


async def cancel_transfer(
    gateway: Gateway, account: ChannelAccount, order: TransferOrder
) -> Answer[TransferQueryOutcome]:
    """Take a payout back that its payee has not confirmed; then say how it stands."""
    sub_mchid = ids_of(account).sub_mchid
    body = encode(TransferCancelling(sub_mchid)) if sub_mchid else b""
    _, exchange = await gateway.call(account, "POST", f"{_bill_of(account, order)}/cancel", body)
    asked = await query_transfer(gateway, account, order)
    return Answer(asked.outcome, followed_by(exchange, asked.exchange))


def _path(account: ChannelAccount) -> str:
    return PATH if secrets_of(account).partner is None else PARTNER_PATH


def _bill_of(account: ChannelAccount, order: TransferOrder) -> str:
    return f"{_path(account)}/out-bill-no/{in_path(order.number)}"


def _unpayable(order: TransferOrder) -> str:
    if order.money.currency != CURRENCY:
        return f"WeChat Pay does not pay out {order.money.currency}"
    return ""


def _sent(
    body: bytes, account: ChannelAccount, order: TransferOrder
) -> Pending | Declined | Unknown | None:
    """Return what the answer to a payout says; None where only a query can tell."""
    bill = decode(body, TransferBill)
    if bill is None or not bill.transfer_bill_no:
        return Unknown("the answer is no payout")
    if bill.out_bill_no != order.number:
        return Unknown("contradiction: out_bill_no is another")
    # A service provider's answer names no state, only what opens the page.
    if bill.state in {None, "WAIT_USER_CONFIRM"} and bill.package_info:
        return Pending(OpenApp(_opening(account, bill.package_info)), "WAIT_USER_CONFIRM")
    match transfer_outcome(bill):
        case Pending() | Declined() as outcome:
            return outcome
        case _:
            return None


def _opening(account: ChannelAccount, package: str) -> dict[str, str]:
    """Return what a page hands to WeChat's ``requestMerchantTransfer``."""
    ids, handed = ids_of(account), {"mchId": signer_of(account), "package": package}
    if ids.sub_mchid:
        handed["subMchId"] = ids.sub_mchid
    return {**handed, "subAppId" if ids.sub_appid else "appId": account.app_id}


def _read(
    body: bytes, account: ChannelAccount, order: TransferOrder
) -> Succeeded | Pending | Declined | Closed | Unknown:
    bill = decode(body, TransferBill)
    if bill is None:
        return Unknown("the answer is no payout")
    difference = first_difference(
        [
            ("out_bill_no", bill.out_bill_no, order.number),
            ("mch_id", bill.mch_id or bill.mchid, signer_of(account)),
            ("sub_mchid", bill.sub_mchid, ids_of(account).sub_mchid),
            ("appid", bill.appid, account.app_id),
            ("transfer_amount", bill.transfer_amount, order.money.amount),
            ("openid", bill.openid, order.payee),
        ]
    )
    return Unknown(f"contradiction: {difference}") if difference else transfer_outcome(bill)
