"""UnionPay's notifications: one signed form per transaction that succeeded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Final
from urllib.parse import parse_qsl

import msgspec

from tongbao.rails.channels.contract.callbacks import (
    Callback,
    CallbackForged,
    CallbackKind,
    CallbackUnreadable,
)
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Authorised, Succeeded, Unknown
from tongbao.rails.channels.unionpay.answers import moved
from tongbao.rails.channels.unionpay.crypto import refusal, signed_text
from tongbao.rails.channels.unionpay.gateway import secrets_of, shown_fields
from tongbao.rails.channels.unionpay.wire import (
    CANCEL,
    CANCEL_SUFFIX,
    COMPLETION_CANCEL,
    DONE,
    DONE_WITH_DEFECT,
    FIELDS_MAX,
    LET_GO_SUFFIX,
    PAGES,
    SCANNED,
    UNDONE_SUFFIX,
)

_NEEDED: Final = ("merId", "orderId", "txnType", "respCode", "queryId")
_ANSWER: Final = "00"  # what became of an order: said when asked, and no notification
_KINDS: Final = {
    "01": CallbackKind.PAYMENT,
    "13": CallbackKind.PAYMENT,
    "02": CallbackKind.PAYMENT,
    "03": CallbackKind.PAYMENT,
    "04": CallbackKind.REFUND,
    **dict.fromkeys(("31", "32", "33"), CallbackKind.PAYMENT),
}
_UNDOING: Final = {COMPLETION_CANCEL.type_: UNDONE_SUFFIX, "32": LET_GO_SUFFIX}
"""A refund that is an undone completion: a reason to ask about the refund."""
_UNDOING_LENGTH: Final = 27
_MOVES: Final = frozenset({"01", "02", "03", "04", "13"})
"""What says that money moved; the rest is no more than a reason to ask."""


def read(account: ChannelAccount, body: bytes, now: datetime) -> Callback:
    """Return what a notification says.

    What makes it one is ``queryId``, which only UnionPay gives: with a shared key (methods 11 and
    12) our own signed order in the customer's browser would verify too.

    Raises:
        CallbackForged, CallbackUnreadable
    """
    fields = _fields(body)
    if reason := refusal(secrets_of(account), fields, now):
        raise CallbackForged(reason=reason)
    kind = fields.get("txnType", "")
    if kind == _ANSWER or not all(map(fields.get, _NEEDED)):
        raise CallbackUnreadable(kind=kind[:8])
    if fields["respCode"] not in {DONE, DONE_WITH_DEFECT}:
        raise CallbackUnreadable(kind=f"respCode {fields['respCode'][:8]}")
    number = fields["orderId"]
    if kind == CANCEL.type_:
        number = number.removesuffix(CANCEL_SUFFIX)
    suffix = _UNDOING.get(kind, "")
    is_refund = bool(suffix) and len(number) == _UNDOING_LENGTH and number.endswith(suffix)
    number = number.removesuffix(suffix) if is_refund else number
    return Callback(
        kind=CallbackKind.REFUND if is_refund else _KINDS.get(kind, CallbackKind.OTHER),
        # The digest tells apart what is sent again from what is sent anew.
        notification_id=f"{fields['queryId']}-{hashlib.sha256(signed_text(fields)).hexdigest()[:16]}",
        number=number,
        merchant_number=fields["merId"],
        app_id=_product(account, fields) if kind in _KINDS else None,
        outcome=_outcome(fields, now),
        content=msgspec.json.encode(shown_fields(fields)).decode(),
    )


def _fields(body: bytes) -> dict[str, str]:
    """Return the decoded form; a field given twice could be read in two ways, so it is refused."""
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            encoding="utf-8",
            errors="strict",
            max_num_fields=FIELDS_MAX,
        )
    except ValueError:
        raise CallbackForged(reason="no readable form") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise CallbackForged(reason="a field is given twice")
    return fields


def _outcome(fields: Mapping[str, str], now: datetime) -> Succeeded | Authorised | Unknown:
    if fields["txnType"] not in _MOVES:
        return Unknown(f"txnType {fields['txnType']} is done; ask about the order")
    outcome = moved(fields, now)
    if isinstance(outcome, Unknown):
        raise CallbackUnreadable(kind=outcome.reason)
    if fields["txnType"] == "02":
        return Authorised(outcome.channel_ref, outcome.money, outcome.at)
    return outcome


def _product(account: ChannelAccount, fields: Mapping[str, str]) -> str:
    """Return the account's product; scanned codes and the app have a common one.

    An account of the page takes both of the page's: an order may name the other.
    """
    told = fields.get("bizType", SCANNED)
    is_own = told == SCANNED or {told, account.app_id} <= PAGES
    return account.app_id if is_own else told
