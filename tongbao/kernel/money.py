"""Money: whole minor units of one ISO 4217 currency. No float ever touches it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from msgspec import Struct

from tongbao.kernel.errors import Invalid, Rejected

AMOUNT_MAX: Final = 9_000_000_000_000_000
"""Largest amount in minor units in one figure: below 2**53 and far below bigint."""

# ISO 4217, list one: the exponent says how many decimals the minor unit has.
EXPONENTS: Final[dict[str, int]] = {
    "CNY": 2, "HKD": 2, "MOP": 2, "TWD": 2, "USD": 2, "EUR": 2, "GBP": 2, "CHF": 2, "AUD": 2,
    "CAD": 2, "NZD": 2, "SGD": 2, "THB": 2, "MYR": 2, "IDR": 2, "PHP": 2, "INR": 2, "RUB": 2,
    "BRL": 2, "MXN": 2, "ZAR": 2, "SEK": 2, "NOK": 2, "DKK": 2, "AED": 2, "SAR": 2, "KZT": 2,
    "JPY": 0, "KRW": 0, "VND": 0, "CLP": 0, "KWD": 3, "BHD": 3, "OMR": 3, "JOD": 3, "TND": 3,
}  # fmt: skip

# Plain digits only: Decimal itself would read "1_0", "1e2" and digits of other scripts, and would
# round what has more than 28 digits.
_DECIMAL_TEXT: Final = re.compile(r"[+-]?[0-9]{1,20}(?:\.[0-9]{1,8})?")


class UnknownCurrency(Invalid):
    """The currency is not one the platform keeps books in."""

    code = "money.unknown_currency"
    advice = "Send an upper-case ISO 4217 code the platform lists, such as CNY."
    advice_zh = "请使用平台支持的 ISO 4217 大写币种代码，例如 CNY。"


class AmountOutOfRange(Invalid):
    """The amount is zero, negative or larger than the platform keeps."""

    code = "money.amount_out_of_range"
    advice = "Send a whole number of minor units (fen for CNY), at least 1."
    advice_zh = "请以最小货币单位的正整数表示金额（人民币为分）。"


class AmountMalformed(Rejected):
    """A decimal text is not an exact amount of the currency."""

    code = "money.amount_malformed"
    advice = "Write the amount with no more decimals than the currency has."
    advice_zh = "金额的小数位数不得超过该币种的最小单位。"


class CurrencyMismatch(TypeError):
    """Two currencies met in one sum: a bug, never a refusal."""


class Money(Struct, frozen=True, order=False):
    """An amount in minor units (fen for CNY) and its ISO 4217 currency."""

    amount: int
    currency: str

    def __add__(self, other: Money) -> Money:
        self._same(other)
        return Money(self.amount + other.amount, self.currency)

    def __sub__(self, other: Money) -> Money:
        self._same(other)
        return Money(self.amount - other.amount, self.currency)

    def __neg__(self) -> Money:
        return Money(-self.amount, self.currency)

    def __lt__(self, other: Money) -> bool:
        self._same(other)
        return self.amount < other.amount

    def __le__(self, other: Money) -> bool:
        self._same(other)
        return self.amount <= other.amount

    def allocate(self, weights: Sequence[int]) -> list[Money]:
        """Split by whole-number weights so that the parts always sum back to the whole.

        The minor units left over by rounding down go one each to the largest remainders.
        """
        total = sum(weights)
        if total <= 0 or min(weights) < 0:
            raise ValueError("weights must be non-negative and not all zero")
        sign = -1 if self.amount < 0 else 1
        whole = abs(self.amount)
        parts = [whole * weight // total for weight in weights]
        by_remainder = sorted(range(len(weights)), key=lambda i: (-(whole * weights[i] % total), i))
        for index in by_remainder[: whole - sum(parts)]:
            parts[index] += 1
        return [Money(sign * part, self.currency) for part in parts]

    def decimal_text(self) -> str:
        """Return the amount in major units as channels write it: ``12.30`` for 1230 CNY."""
        exponent = exponent_of(self.currency)
        return f"{Decimal(self.amount).scaleb(-exponent):.{exponent}f}"

    def _same(self, other: Money) -> None:
        if self.currency != other.currency:
            raise CurrencyMismatch(f"{self.currency} met {other.currency}")


def exponent_of(currency: str) -> int:
    """Return how many decimals the currency's minor unit has, or refuse an unknown currency."""
    try:
        return EXPONENTS[currency]
    except KeyError:
        raise UnknownCurrency(currency=currency[:8]) from None


def positive(amount: int, currency: str) -> Money:
    """Return money that came from outside: a known currency and 1 … AMOUNT_MAX minor units.

    Raises:
        UnknownCurrency, AmountOutOfRange
    """
    exponent_of(currency)
    if not 0 < amount <= AMOUNT_MAX:
        raise AmountOutOfRange(param="$.amount")
    return Money(amount, currency)


def from_decimal_text(text: str, currency: str) -> Money:
    """Return the exact amount a channel wrote in major units; ``-3.50`` is negative.

    Refuses text with more decimals than the currency has, so a bill's ``0.005`` yuan is an error
    and not a rounding.

    Raises:
        UnknownCurrency, AmountMalformed
    """
    exponent = exponent_of(currency)
    if not _DECIMAL_TEXT.fullmatch(text.strip()):
        raise AmountMalformed(text=text[:32])
    minor = Decimal(text.strip()).scaleb(exponent)
    if minor != minor.to_integral_value() or abs(minor) > AMOUNT_MAX:
        raise AmountMalformed(text=text[:32])
    return Money(int(minor), currency)


def share_half_up(amount: int, rate_ppm: int) -> int:
    """Return ``amount × rate_ppm / 1 000 000`` in minor units, rounded half up.

    0.6 % is 6000 ppm; channels in China round each trade's fee this way.
    """
    return int((Decimal(amount) * rate_ppm / 1_000_000).to_integral_value(ROUND_HALF_UP))
