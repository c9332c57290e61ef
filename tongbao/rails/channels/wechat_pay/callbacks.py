"""WeChat Pay's callbacks: verified on raw bytes, then decrypted, then read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from tongbao.rails.channels.contract import (
    Callback,
    CallbackForged,
    CallbackKeyUnknown,
    CallbackKind,
    CallbackReply,
    CallbackUnreadable,
    ChannelAccount,
)
from tongbao.rails.channels.exchange import decode
from tongbao.rails.channels.wechat_pay.crypto import (
    EnvelopeBroken,
    Verdict,
    check_signature,
    open_envelope,
)
from tongbao.rails.channels.wechat_pay.gateway import secrets_of
from tongbao.rails.channels.wechat_pay.wire import (
    Envelope,
    Notification,
    Refund,
    Transaction,
    order_outcome,
    refund_outcome,
)

ALGORITHM = "AEAD_AES_256_GCM"


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
    verdict = check_signature(headers, body, keys, now)
    if verdict is Verdict.UNKNOWN_KEY:
        raise CallbackKeyUnknown(serial=headers.get("wechatpay-serial", "")[:64])
    if verdict is not Verdict.GOOD:
        raise CallbackForged(reason=str(verdict))
    notification = decode(body, Notification)
    if notification is None:
        raise CallbackUnreadable
    content = _open(account, notification.resource)
    match notification.resource.original_type:
        case "transaction":
            return _payment(notification, content)
        case "refund":
            return _refund(notification, content)
        case other:
            raise CallbackUnreadable(kind=other[:32], event=notification.event_type[:64])


def reply(*, accepted: bool) -> CallbackReply:
    """Return an empty 204, which stops the resends, or a failure, which asks for the next one."""
    if accepted:
        return CallbackReply(204, {}, b"")
    body = '{"code":"FAIL","message":"失败"}'.encode()
    return CallbackReply(500, {"content-type": "application/json; charset=utf-8"}, body)


def _open(account: ChannelAccount, resource: Envelope) -> bytes:
    if resource.algorithm != ALGORITHM:
        raise CallbackUnreadable(algorithm=resource.algorithm[:32])
    try:
        return open_envelope(
            secrets_of(account).api_v3_key,
            resource.nonce,
            resource.associated_data,
            resource.ciphertext,
        )
    except EnvelopeBroken:
        raise CallbackForged(reason="the resource does not open under our APIv3 key") from None


def _payment(notification: Notification, content: bytes) -> Callback:
    transaction = decode(content, Transaction)
    if transaction is None:
        raise CallbackUnreadable(kind="transaction")
    return Callback(
        kind=CallbackKind.PAYMENT,
        notification_id=notification.id,
        number=transaction.out_trade_no,
        merchant_number=transaction.mchid,
        app_id=transaction.appid,
        outcome=order_outcome(transaction),
        content=content.decode(),
    )


def _refund(notification: Notification, content: bytes) -> Callback:
    refund = decode(content, Refund)
    if refund is None or refund.mchid is None:
        raise CallbackUnreadable(kind="refund")
    return Callback(
        kind=CallbackKind.REFUND,
        notification_id=notification.id,
        number=refund.out_refund_no,
        merchant_number=refund.mchid,
        app_id=None,
        outcome=refund_outcome(refund),
        content=content.decode(),
    )
