"""Qra's notifications: one signed document per payment."""

from __future__ import annotations

import hashlib
from datetime import datetime

import msgspec

from tongbao.rails.channels.contract.callbacks import (
    Callback,
    CallbackForged,
    CallbackKind,
    CallbackUnreadable,
)
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Unknown
from tongbao.rails.channels.unionpay_qra.crypto import DocumentMalformed, is_authentic, read
from tongbao.rails.channels.unionpay_qra.gateway import secrets_of, shown_fields
from tongbao.rails.channels.unionpay_qra.wire import moved

_NEEDED = ("mch_id", "out_trade_no", "transaction_id", "total_fee")


def read_notice(account: ChannelAccount, body: bytes, now: datetime) -> Callback:
    """Return what a notification says.

    The key is shared, so our own signed requests verify too: what makes it news of a payment is
    ``transaction_id`` and ``pay_result``, which no request has.

    Raises:
        CallbackForged, CallbackUnreadable
    """
    try:
        fields = read(body)
    except DocumentMalformed as failure:
        raise CallbackForged(reason=str(failure)) from None
    if not is_authentic(secrets_of(account).secure_key, fields):
        raise CallbackForged(reason="the signature does not verify")
    states = [fields.get(name) for name in ("status", "result_code", "pay_result")]
    if states != ["0", "0", "0"] or not all(map(fields.get, _NEEDED)):
        raise CallbackUnreadable(kind=fields.get("trade_type", "")[:32])
    outcome = moved(fields, now)
    if isinstance(outcome, Unknown):
        raise CallbackUnreadable(kind=outcome.reason)
    content = msgspec.json.encode(shown_fields(fields)).decode()
    return Callback(
        kind=CallbackKind.PAYMENT,
        notification_id=f"{outcome.channel_ref}-{hashlib.sha256(body).hexdigest()[:16]}",
        number=fields["out_trade_no"],
        merchant_number=fields["mch_id"],
        app_id=account.app_id,
        outcome=outcome,
        content=content,
    )
