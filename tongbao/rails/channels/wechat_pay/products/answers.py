"""What a refusal of WeChat Pay means, for every product."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from tongbao.rails.channels.contract import (
    BillEmpty,
    BillNotReady,
    Declined,
    NotSent,
    Pending,
    Unknown,
)
from tongbao.rails.channels.error_map import Entry, error_map
from tongbao.rails.channels.wechat_pay.gateway import Refused

ERRORS: Final = error_map("wechat_pay")


def in_path(number: str) -> str:
    """Return a number as a part of a path or query."""
    return quote(number, safe="")


def meant(entry: Entry, refused: Refused) -> Pending | Declined | NotSent | Unknown:
    """Return what a refused order, refund, split or transfer means for the money."""
    match entry.meaning:
        case "declined":
            return Declined(refused.code, refused.message, retry_elsewhere=entry.retry_elsewhere)
        case "not_sent":
            return NotSent(f"{refused.code}: {refused.message}")
        case "pending":
            return Pending(reason=refused.code)
        case _:
            return Unknown(f"{refused.code}: {refused.message}")


def no_bill(refused: Refused) -> BillNotReady | BillEmpty | Unknown:
    """Return why there is no bill."""
    match ERRORS.find("bill", refused.code).meaning:
        case "empty":
            return BillEmpty(refused.code)
        case "not_ready":
            return BillNotReady(refused.code)
        case _:
            return Unknown(f"{refused.code}: {refused.message}")
