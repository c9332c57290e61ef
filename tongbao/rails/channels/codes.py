"""Whose payment code a customer shows: the length and first digits tell, as data."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from tongbao.kernel.errors import Rejected


class PaymentCodeUnknown(Rejected):
    """The scanned text is no payment code of a channel offered here."""

    code = "payment_code.unknown"
    advice = "Ask the customer to open the payment code of a wallet you accept and scan it again."
    advice_zh = "请顾客打开受支持钱包的付款码后重新扫码。"


class CodeRange(Struct, frozen=True):
    """Codes of one owner: digits only, between two lengths, beginning with one of the prefixes."""

    channel: str
    digits_min: int
    digits_max: int
    prefixes: frozenset[str]
    offered: bool = True


def _prefixes(first: int, last: int) -> frozenset[str]:
    return frozenset(str(number) for number in range(first, last + 1))


CODE_RANGES: Final = (
    CodeRange("wechat_pay", 18, 18, _prefixes(10, 15)),
    CodeRange("alipay", 16, 24, _prefixes(25, 30)),
    CodeRange("wallet", 18, 18, frozenset({"88"})),
    CodeRange("unionpay", 19, 19, frozenset({"62"}), offered=False),
)


def recognise(auth_code: str) -> CodeRange | None:
    """Return whose code this is, offered or not, or None when it is nobody's."""
    if not (auth_code.isascii() and auth_code.isdigit()):
        return None
    for row in CODE_RANGES:
        if row.digits_min <= len(auth_code) <= row.digits_max and auth_code[:2] in row.prefixes:
            return row
    return None


def channel_of_code(auth_code: str) -> str:
    """Return the channel a payment code belongs to.

    Raises:
        PaymentCodeUnknown: nobody's, or of a channel that is not offered.
    """
    found = recognise(auth_code)
    if found is None or not found.offered:
        raise PaymentCodeUnknown(param="$.method.auth_code", owner=found.channel if found else None)
    return found.channel
