"""Refunds of WeChat Pay (退款): asked for, asked about, and sent on when they are stuck."""

from __future__ import annotations

from typing import Final, Literal, assert_never

from msgspec import Struct

from tongbao.rails.channels.contract.orders import ChannelAccount, RefundOrder, RefundTarget
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Declined,
    Exchange,
    NotSent,
    Pending,
    RefundOutcome,
    RefundQueryOutcome,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.exchange import decode, followed_by, unsent
from tongbao.rails.channels.wechat_pay.crypto import NotEncryptable
from tongbao.rails.channels.wechat_pay.documents.orders import AbnormalRefundRequest, Refund
from tongbao.rails.channels.wechat_pay.gateway import (
    ERRORS,
    Answered,
    Gateway,
    Refused,
    ids_of,
    in_path,
    meant,
)
from tongbao.rails.channels.wechat_pay.wire import (
    STUCK,
    encode,
    refund_differs,
    refund_outcome,
    refund_request,
)

REFUNDS: Final = "/v3/refund/domestic/refunds"
OWN_ACCOUNT: Final = "not_the_merchants_account"


class AbnormalRefund(Struct, frozen=True):
    """Where a refund goes that the customer's card or account could not take.

    To ``USER_BANK_CARD``, of the customer and named here, or to ``MERCHANT_BANK_CARD``, our own,
    after which we owe the customer.
    """

    refund: RefundOrder
    channel_ref: str  # the refund's number at WeChat Pay
    to: Literal["USER_BANK_CARD", "MERCHANT_BANK_CARD"]
    bank_type: str | None = None  # such as ICBC_DEBIT
    bank_account: str | None = None
    real_name: str | None = None

    def __repr__(self) -> str:
        return "AbnormalRefund(…)"


async def refund(
    gateway: Gateway, account: ChannelAccount, order: RefundOrder
) -> Answer[RefundOutcome]:
    """Give money back, all or a part."""
    body = encode(refund_request(account, order))
    heard, exchange = await gateway.call(account, "POST", REFUNDS, body)
    match heard:
        case Answered():
            return Answer(_read(heard.body, order), exchange)
        case Refused():
            return await _refused(gateway, account, order, heard, exchange)
        case NotSent() | Unknown():
            return Answer(heard, exchange)
        case _:
            assert_never(heard)


async def query(
    gateway: Gateway, account: ChannelAccount, order: RefundOrder
) -> Answer[RefundQueryOutcome]:
    """Ask what became of the refund."""
    target = _refund_path(account, order)
    return await gateway.question(account, target, "query_refund", lambda body: _read(body, order))


async def send_elsewhere(
    gateway: Gateway, account: ChannelAccount, order: RefundOrder, to: RefundTarget
) -> Answer[RefundOutcome]:
    """Send a refund that is stuck somewhere else; `Declined` says that it may not go there.

    Only one that WeChat Pay calls abnormal can be sent on: any other is told as it stands.
    """
    target = _refund_path(account, order)
    if to.kind == "merchant_account" and ids_of(account).sub_mchid is None:
        # The account is the platform's own: the money would come to us, and be nobody's refund.
        return Answer(Declined(OWN_ACCOUNT), unsent("POST", account.gateway + target, OWN_ACCOUNT))
    asked = await gateway.question(account, target, "query_refund", lambda body: body)
    if isinstance(asked.outcome, Absent):
        return Answer(Declined(asked.outcome.code), asked.exchange)
    if isinstance(asked.outcome, Unknown):
        return Answer(asked.outcome, asked.exchange)
    document = decode(asked.outcome, Refund)
    if document is None or document.status != "ABNORMAL" or not document.refund_id:
        return Answer(_read(asked.outcome, order), asked.exchange)
    stuck = AbnormalRefund(
        order,
        document.refund_id,
        to="USER_BANK_CARD" if to.kind == "customer_card" else "MERCHANT_BANK_CARD",
        bank_type=to.bank or None,
        bank_account=to.account or None,
        real_name=to.name or None,
    )
    sent = await send_on(gateway, account, stuck, refused=True)
    return Answer(sent.outcome, followed_by(asked.exchange, sent.exchange))


def _refund_path(account: ChannelAccount, order: RefundOrder) -> str:
    target = f"{REFUNDS}/{in_path(order.number)}"
    if sub_mchid := ids_of(account).sub_mchid:
        target = f"{target}?sub_mchid={in_path(sub_mchid)}"
    return target


async def send_on(
    gateway: Gateway, account: ChannelAccount, stuck: AbnormalRefund, *, refused: bool = False
) -> Answer[RefundOutcome]:
    """Send an abnormal refund to a bank card; the card's number and name go encrypted.

    ``refused``: what WeChat Pay will not send there, while it stays stuck, is `Declined`.
    """
    target = f"{REFUNDS}/{in_path(stuck.channel_ref)}/apply-abnormal-refund"
    sealed: dict[str, str] = {}
    serial = ""
    try:
        for name, text in (("account", stuck.bank_account), ("name", stuck.real_name)):
            if text:
                sealed[name], serial = await gateway.encrypt(account, text)
    except NotEncryptable as failure:
        reason = str(failure)
        return Answer(NotSent(reason), unsent("POST", account.gateway + target, reason))
    body = AbnormalRefundRequest(
        sub_mchid=ids_of(account).sub_mchid,
        out_refund_no=stuck.refund.number,
        type=stuck.to,
        bank_type=stuck.bank_type,
        bank_account=sealed.get("account"),
        real_name=sealed.get("name"),
    )
    heard, exchange = await gateway.call(
        account,
        "POST",
        target,
        encode(body),
        hidden=tuple(sealed.values()),
        encrypted_for=serial,
    )
    match heard:
        case Answered():
            return Answer(_read(heard.body, stuck.refund), exchange)
        case Refused():
            # The refund was asked for before and stays what it was: only a query can tell.
            asked = await query(gateway, account, stuck.refund)
            both = followed_by(exchange, asked.exchange)
            if isinstance(asked.outcome, Absent):
                return Answer(Unknown(f"{heard.code}: {heard.message}"), both)
            if refused and isinstance(asked.outcome, Unknown) and asked.outcome.reason == STUCK:
                return Answer(Declined(heard.code, heard.message), both)
            return Answer(asked.outcome, both)
        case NotSent() | Unknown():
            return Answer(heard, exchange)
        case _:
            assert_never(heard)


async def _refused(
    gateway: Gateway,
    account: ChannelAccount,
    order: RefundOrder,
    refused: Refused,
    exchange: Exchange,
) -> Answer[RefundOutcome]:
    entry = ERRORS.find("refund", refused.code)
    outcome = meant(entry, refused)
    if not entry.ask:
        return Answer(outcome, exchange)
    asked = await query(gateway, account, order)
    both = followed_by(exchange, asked.exchange)
    match asked.outcome:
        case Absent():
            return Answer(outcome, both)
        case Succeeded() | Pending() | Declined() | Unknown():
            return Answer(asked.outcome, both)
        case _:
            assert_never(asked.outcome)


def _read(body: bytes, order: RefundOrder) -> Succeeded | Pending | Declined | Unknown:
    document = decode(body, Refund)
    if document is None:
        return Unknown("the answer is no refund")
    if difference := refund_differs(document, order):
        return Unknown(f"contradiction: {difference}")
    return refund_outcome(document)
