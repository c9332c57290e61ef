"""WeChat Pay's callbacks: verified on raw bytes, then decrypted, then read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from msgspec import Struct

from tongbao.rails.channels.contract.callbacks import (
    Callback,
    CallbackForged,
    CallbackKeyUnknown,
    CallbackKind,
    CallbackReply,
    CallbackUnreadable,
)
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Closed, Declined, Pending, Succeeded, Unknown
from tongbao.rails.channels.exchange import decode
from tongbao.rails.channels.wechat_pay.crypto import (
    ENVELOPES,
    EnvelopeBroken,
    Verdict,
    check_signature,
    open_envelope,
)
from tongbao.rails.channels.wechat_pay.documents.agreements import Contract
from tongbao.rails.channels.wechat_pay.documents.orders import (
    CombinedTransaction,
    Refund,
    Transaction,
)
from tongbao.rails.channels.wechat_pay.documents.parts import Envelope
from tongbao.rails.channels.wechat_pay.documents.splits import SplitNews
from tongbao.rails.channels.wechat_pay.documents.transfers import TransferBill
from tongbao.rails.channels.wechat_pay.gateway import secrets_of
from tongbao.rails.channels.wechat_pay.wire import (
    order_outcome,
    refund_outcome,
    transfer_outcome,
)


class Notification(Struct, frozen=True):
    """A callback around its encrypted resource."""

    id: str
    event_type: str
    resource: Envelope


class _News(Struct, frozen=True):
    """What a resource says: of which number of ours, whose it is, and what happened."""

    kind: CallbackKind
    number: str | None
    merchant_number: str | None
    app_id: str | None
    outcome: Succeeded | Declined | Closed | Pending | Unknown


def read(
    account: ChannelAccount,
    headers: Mapping[str, str],
    body: bytes,
    *,
    keys: Mapping[str, str],
    now: datetime,
) -> Callback:
    """Return what a callback says; ``now`` is real time.

    Raises:
        CallbackForged, CallbackKeyUnknown, CallbackUnreadable
    """
    verdict = check_signature(headers, body, keys, now, secrets_of(account).scheme)
    if verdict is Verdict.UNKNOWN_KEY:
        raise CallbackKeyUnknown(serial=headers.get("wechatpay-serial", "")[:64])
    if verdict is not Verdict.GOOD:
        raise CallbackForged(reason=str(verdict))
    notification = decode(body, Notification)
    if notification is None:
        raise CallbackUnreadable
    content = _open(account, notification.resource)
    news = _reader_of(notification)(account, content)
    is_told = news is not None and (news.number or news.kind is CallbackKind.OTHER)
    if news is None or not is_told or not news.merchant_number:
        raise CallbackUnreadable(
            kind=(notification.resource.original_type or "")[:32],
            event=notification.event_type[:64],
        )
    return Callback(
        kind=news.kind,
        notification_id=notification.id,
        number=news.number or "",
        merchant_number=news.merchant_number,
        app_id=news.app_id,
        outcome=news.outcome,
        content=content.decode(),
    )


def reply(*, accepted: bool) -> CallbackReply:
    """Return an empty 204, which stops the resends, or a failure, which asks for the next one."""
    if accepted:
        return CallbackReply(204, {}, b"")
    body = '{"code":"FAIL","message":"失败"}'.encode()
    return CallbackReply(500, {"content-type": "application/json; charset=utf-8"}, body)


def _open(account: ChannelAccount, resource: Envelope) -> bytes:
    keys = secrets_of(account)
    if resource.algorithm != ENVELOPES[keys.scheme]:
        raise CallbackUnreadable(algorithm=resource.algorithm[:32])
    try:
        return open_envelope(
            keys.api_v3_key,
            resource.nonce,
            resource.associated_data or "",
            resource.ciphertext,
            resource.algorithm,
        )
    except EnvelopeBroken:
        raise CallbackForged(reason="the resource does not open under our APIv3 key") from None


Reader = Callable[[ChannelAccount, bytes], _News | None]


def _reader_of(notification: Notification) -> Reader:
    by_type = _BY_TYPE.get(notification.resource.original_type or "")
    return by_type or _BY_EVENT.get(notification.event_type.split(".")[0], _other)


class _Strange(Struct, frozen=True):
    """As much as is understood of news that no reader here knows."""

    out_parking_no: str | None = None
    mchid: str | None = None
    sp_mchid: str | None = None
    sub_mchid: str | None = None


def _other(account: ChannelAccount, content: bytes) -> _News | None:
    """Read whose news it is; an entrance to a car park has a number, other products none."""
    news = decode(content, _Strange)
    if news is None:
        return None
    return _News(
        kind=CallbackKind.PARKING if news.out_parking_no else CallbackKind.OTHER,
        number=news.out_parking_no,
        merchant_number=_merchant(account, news.mchid, news) or account.merchant_number,
        app_id=None,
        outcome=Unknown("of a product that is not in use here"),
    )


def _payment(account: ChannelAccount, content: bytes) -> _News | None:
    if combined := decode(content, CombinedTransaction):
        return _News(
            kind=CallbackKind.COMBINED,
            number=combined.combine_out_trade_no,
            merchant_number=_merchant(account, combined.combine_mchid, combined),
            app_id=_app(account, combined.combine_appid),
            outcome=Unknown("a combined order: ask for its parts"),
        )
    transaction = decode(content, Transaction)
    if transaction is None:
        return None
    return _News(
        kind=CallbackKind.PAYMENT,
        number=transaction.out_trade_no,
        merchant_number=_merchant(account, transaction.mchid, transaction),
        app_id=_app(account, transaction.sub_appid or transaction.sp_appid or transaction.appid),
        outcome=order_outcome(transaction),
    )


def _refund(account: ChannelAccount, content: bytes) -> _News | None:
    refund = decode(content, Refund)
    if refund is None:
        return None
    return _News(
        kind=CallbackKind.REFUND,
        number=refund.out_refund_no,
        merchant_number=_merchant(account, refund.mchid, refund),
        app_id=None,
        outcome=refund_outcome(refund),
    )


def _split(account: ChannelAccount, content: bytes) -> _News | None:
    """Read the news of one share; whether the others ended too is to be asked."""
    news = decode(content, SplitNews)
    if news is None:
        return None
    return _News(
        kind=CallbackKind.SPLIT,
        number=news.out_order_no,
        merchant_number=_merchant(account, news.mchid, news),
        app_id=None,
        outcome=Unknown("a share moved: ask for them all"),
    )


def _transfer(account: ChannelAccount, content: bytes) -> _News | None:
    bill = decode(content, TransferBill)
    if bill is None:
        return None
    return _News(
        kind=CallbackKind.TRANSFER,
        number=bill.out_bill_no,
        merchant_number=_merchant(account, bill.mchid, bill),
        app_id=None,
        outcome=transfer_outcome(bill),
    )


def _agreement(account: ChannelAccount, content: bytes) -> _News | None:
    contract = decode(content, Contract)
    if contract is None:
        return None
    state = (contract.contract_state or "")[:32]
    return _News(
        kind=CallbackKind.AGREEMENT,
        number=contract.out_contract_code,
        merchant_number=_merchant(account, contract.mchid, contract),
        app_id=_app(account, contract.sub_appid or contract.sp_appid or contract.appid),
        outcome=Closed(state) if state == "TERMINATED" else Unknown(f"{state}: ask for the rest"),
    )


class _Complained(Struct, frozen=True):
    """What news of a complaint says: which one. Whose it is, only the complaint itself says."""

    complaint_id: str
    action_type: str


def _complaint(account: ChannelAccount, content: bytes) -> _News | None:
    news = decode(content, _Complained)
    if news is None:
        return None
    return _News(
        kind=CallbackKind.COMPLAINT,
        number=news.complaint_id[:64],
        merchant_number=account.merchant_number,
        app_id=None,
        outcome=Unknown(f"{news.action_type[:64]}: ask for the rest"),
    )


def _merchant(account: ChannelAccount, mchid: str | None, resource: Struct) -> str | None:
    """Return whose resource it is: the sub-merchant's, unless the provider is not ours.

    News of a provider's products that name no sub-merchant come to whose address they were given.
    """
    partner, provider = secrets_of(account).partner, getattr(resource, "sp_mchid", None) or mchid
    if partner is not None and provider != partner.sp_mchid:
        return provider
    whose = provider if partner is None else account.merchant_number
    return getattr(resource, "sub_mchid", None) or whose


def _app(account: ChannelAccount, app_id: str | None) -> str | None:
    """Return the app, or None where it is another one that the account's orders may come from."""
    keys = secrets_of(account)
    others = {*keys.app_ids, keys.partner.sp_appid if keys.partner else None}
    return None if app_id != account.app_id and app_id in others else app_id


_BY_TYPE: Final[Mapping[str, Reader]] = {"transaction": _payment, "refund": _refund}
_BY_EVENT: Final[Mapping[str, Reader]] = {
    "PROFITSHARING": _split,
    "PROFITSHARING_RETURN": _split,
    "MCHTRANSFER": _transfer,
    "ENTRUST": _agreement,
    "INSURANCE_ENTRUST": _agreement,
    "PAPAY": _agreement,
    "COMPLAINT": _complaint,
}
