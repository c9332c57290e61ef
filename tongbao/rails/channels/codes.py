"""Whose code somebody scanned: the length and the first characters tell, as data.

Two tables, because a till and a customer's phone scan different things. `CODE_RANGES` has the
payment codes (付款码) a customer shows: digits. They say whose a code is, not who charges it: that
can be any of several channels, which `CODE_TAKERS` names. `TEXT_OWNERS` has the texts of codes that
merchants show, which at a till only say that the wrong side was scanned. A consumer-presented EMV
QR is text too, and its application identifier says whose it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from tongbao.kernel.codecs import emv_qr_consumer
from tongbao.kernel.errors import Refusal, Rejected


class PaymentCodeUnknown(Rejected):
    """The scanned text is no payment code of a channel offered here."""

    code = "payment_code.unknown"
    advice = "Ask the customer to open the payment code of a wallet you accept and scan it again."
    advice_zh = "请顾客打开受支持钱包的付款码后重新扫码。"


class CodeRange(Struct, frozen=True):
    """Codes of one scheme: digits only, between two lengths, beginning with one of the prefixes."""

    scheme: str
    digits_min: int
    digits_max: int
    prefixes: frozenset[str]


class TextOwner(Struct, frozen=True):
    """Texts of one owner's codes: those that begin so."""

    channel: str
    begins: str


def _prefixes(first: int, last: int) -> frozenset[str]:
    return frozenset(str(number) for number in range(first, last + 1))


# In the order they are tried: the longest lengths and the narrowest prefixes first. No two rows
# can fit the same code, which a test holds.
CODE_RANGES: Final = (
    CodeRange("unionpay", 19, 19, frozenset({"62"})),
    CodeRange("alipay", 16, 24, _prefixes(25, 30)),
    CodeRange("wechat_pay", 18, 18, _prefixes(10, 15)),
    CodeRange("wallet", 18, 18, frozenset({"88", "89"})),  # with network, and made without
)

CODE_TAKERS: Final[Mapping[str, tuple[str, ...]]] = {
    "unionpay": ("unionpay", "unionpay_qra"),
    "alipay": ("alipay", "unionpay_qra"),
    "wechat_pay": ("wechat_pay", "unionpay_qra"),
    "wallet": ("wallet",),
}
"""The channels that can charge a scheme's codes, its own first. Qra charges those of any wallet."""

OWN_WALLET: Final = "wallet"
"""The platform's own wallet: a channel without a network."""
OWN_QR: Final = "tongbao:pay/"
"""How the texts of the own wallet's codes begin; the number of an attempt follows. A phone that has
the wallet's app opens it for them."""
OWN_AGREEMENT_QR: Final = "tongbao:sign/"
"""The same of an agreement that its owner is to sign."""

TEXT_OWNERS: Final = (
    TextOwner(OWN_WALLET, OWN_QR),
    TextOwner(OWN_WALLET, OWN_AGREEMENT_QR),
    TextOwner("wechat_pay", "weixin://wxpay/"),
    TextOwner("alipay", "https://qr.alipay.com/"),
    TextOwner("unionpay", "https://qr.95516.com/"),
)


def recognise(auth_code: str) -> CodeRange | None:
    """Return whose payment code this is, or None when it is nobody's."""
    if not (auth_code.isascii() and auth_code.isdigit()):
        return None
    for row in CODE_RANGES:
        if row.digits_min <= len(auth_code) <= row.digits_max and auth_code[:2] in row.prefixes:
            return row
    return None


def owner_of_text(text: str) -> str | None:
    """Return the channel a scanned text that is no payment code belongs to, or None."""
    for row in TEXT_OWNERS:
        if text.startswith(row.begins):
            return row.channel
    try:
        applications = emv_qr_consumer.decode(text).applications
    except Refusal:
        return None
    return "unionpay" if any(map(emv_qr_consumer.is_unionpay, applications)) else None


def own_qr(number: str) -> str:
    """Return the text of a code that the own wallet's app pays; ``number``: of the attempt."""
    return f"{OWN_QR}{number}"


def own_agreement_qr(number: str) -> str:
    """Return the text of a code that the own wallet's app signs; ``number``: the agreement's."""
    return f"{OWN_AGREEMENT_QR}{number}"


def number_of_own_qr(text: str, begins: str = OWN_QR) -> str | None:
    """Return the number in a code of the own wallet that begins so, or None when it is none."""
    number = text.removeprefix(begins)
    return number if number != text and _OWN_NUMBER.fullmatch(number) else None


_OWN_NUMBER: Final = re.compile("[0-9a-z]{26}", re.ASCII)


def takers_of_code(auth_code: str) -> tuple[str, ...]:
    """Return the channels that can charge a payment code, the one of its own scheme first.

    Raises:
        PaymentCodeUnknown: nobody's, or none that is charged by its digits.
    """
    found = recognise(auth_code)
    if found is None:
        owner = owner_of_text(auth_code)
        raise PaymentCodeUnknown(param="$.method.auth_code", owner=owner)
    return CODE_TAKERS[found.scheme]
