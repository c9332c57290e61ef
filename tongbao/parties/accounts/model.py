"""Wallets and payment codes: what they are and what may be spent. No I/O.

    wallet        active ⇄ frozen
    payment code  shown ──scanned once, within a minute──► used
                        └─────────── time passes ────────► expired

The balance is the ledger's; here is only what the customer may do with it.
"""

from __future__ import annotations

import secrets
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Conflict, Invalid, NotFound, Rejected
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money

CODE_PREFIX: Final = "88"
"""No channel's payment codes begin so (WeChat 10-15, Alipay 25-30, UnionPay 62)."""
CODE_LENGTH: Final = 18
CODE_LIFE: Final = timedelta(seconds=60)
DAILY_LIMIT_DEFAULT: Final = 1_000_000  # 10 000 yuan, until limits become a domain of their own


class WalletNotFound(NotFound):
    """The merchant has no such wallet in this mode."""

    code = "wallet.not_found"
    advice = "Check the id and the mode of the key."
    advice_zh = "请检查钱包标识和密钥所属环境。"


class WalletFrozen(Conflict):
    """The wallet is frozen: nothing may be spent from it, though money may come back to it."""

    code = "wallet.frozen"
    advice = "Unfreeze the wallet first."
    advice_zh = "钱包已冻结，请先解冻。"


class WalletBarred(Conflict):
    """The wallet is a person's who is barred from what is not done at the counter."""

    code = "wallet.barred"
    advice = "Its person goes to a counter with their identity card; nothing can be done here."
    advice_zh = "该钱包持有人的非柜面业务已暂停，请持有效身份证件到柜面办理。"


class CodeUsedOrExpired(Rejected):
    """The payment code is not one of ours, was used, or is more than a minute old."""

    code = "wallet.code_used_or_expired"
    advice = "Have the customer show a new code."
    advice_zh = "付款码已使用或已过期，请顾客刷新付款码。"


class DailyLimitExceeded(Rejected):
    """The wallet's limit for one day does not allow this."""

    code = "wallet.daily_limit_exceeded"
    advice = "Pay less today, or tomorrow."
    advice_zh = "超出钱包单日限额，请减少金额或次日再试。"


class SpendingRefused(Rejected):
    """The wallet was frozen, or its limit for the day used up, at this very moment."""

    code = "wallet.spending_refused"
    advice = "Read the wallet to see why, then try again."
    advice_zh = "钱包状态已变化，请查询钱包后重试。"


class WalletCurrencyDiffers(Rejected):
    """The wallet is kept in another currency."""

    code = "wallet.currency_differs"
    advice = "Use the wallet's own currency."
    advice_zh = "请使用钱包的币种。"


class HolderNameInvalid(Invalid):
    """A holder's name has 1 to 64 characters."""

    code = "wallet.holder_name_invalid"
    advice = "Send the holder's name in 1 to 64 characters."
    advice_zh = "持有人姓名应为 1 至 64 个字符。"


class TopUpRefused(Conflict):
    """The ledger did not take the top-up."""

    code = "wallet.top_up_refused"
    advice = "Read the code in facts."
    advice_zh = "请查看 facts 中的原因代码。"


class WalletState(StrEnum):
    """Whether money may leave the wallet."""

    ACTIVE = "active"
    FROZEN = "frozen"


class Wallet(Struct, frozen=True):
    """One row of the wallet table. ``spent`` is what was spent on the day ``spent_on``."""

    book: int
    id: UUID
    merchant_id: UUID
    mode: Mode
    holder_masked: str
    currency: str
    state: WalletState
    daily_limit: int
    spent_on: date
    spent: int
    opened_at: datetime
    barred_until: datetime | None

    def left_on(self, day: date) -> int:
        """Return how much may still be spent on a day, the balance permitting."""
        return self.daily_limit - (self.spent if self.spent_on == day else 0)

    def is_barred(self, now: datetime) -> bool:
        """Tell whether its person is barred at a moment."""
        return self.barred_until is not None and now < self.barred_until

    def check_may_spend(self, money: Money, now: datetime) -> None:
        """Raise unless this much may be spent at a moment, the balance permitting.

        Raises:
            WalletFrozen, WalletBarred, WalletCurrencyDiffers, DailyLimitExceeded
        """
        day = business_date(now)
        if self.state is not WalletState.ACTIVE:
            raise WalletFrozen
        if self.is_barred(now):
            raise WalletBarred
        if money.currency != self.currency:
            raise WalletCurrencyDiffers(currency=self.currency)
        if money.amount > self.left_on(day):
            raise DailyLimitExceeded(left=self.left_on(day))


class PaymentCode(Struct, frozen=True):
    """One row of the code table; the code itself is on the customer's screen only."""

    book: int
    code_hash: bytes
    wallet_id: UUID
    mode: Mode
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None
    used_by: UUID | None


class ScannedCode(Struct, frozen=True):
    """A code that pays, with what a payment needs of its wallet."""

    book: int
    code_hash: bytes
    mode: Mode
    wallet_id: UUID
    currency: str


class ShownCode(Struct, frozen=True):
    """A code as the customer shows it, and until when."""

    code: str
    expires_at: datetime


def new_code() -> str:
    """Return 18 digits, 16 of them chance: a guess within a minute is hopeless."""
    digits = CODE_LENGTH - len(CODE_PREFIX)
    return CODE_PREFIX + f"{secrets.randbelow(10**digits):0{digits}d}"


def is_wallet_code(text: str) -> bool:
    """Tell whether a scanned text is a code of the platform's own wallet, by its form."""
    return (
        len(text) == CODE_LENGTH
        and text.isascii()
        and text.isdecimal()
        and text.startswith(CODE_PREFIX)
    )


def masked_name(name: str) -> str:
    """Return a name as others may see it: its last character, 张三 as *三.

    Raises:
        HolderNameInvalid
    """
    plain = name.strip()
    if not 0 < len(plain) <= 64:
        raise HolderNameInvalid(param="$.holder_name")
    return "*" * max(len(plain) - 1, 1) + plain[-1:] if len(plain) > 1 else "*"
