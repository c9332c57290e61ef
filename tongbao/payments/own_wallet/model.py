"""A merchant's code as the wallet that scans it sees it, and why it may not pay. No I/O.

    payable ──the wallet's owner confirms──► paid
       └──its time is over, or the merchant closes it──► ended

The states are the payment's own, seen from the other side; nothing here is written down twice.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from tongbao.kernel.errors import Conflict, NotFound, Rejected
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.payments.collecting.model import Attempt, Payment, PaymentState


class WalletQrUnknown(NotFound):
    """The scanned text is no code that this wallet can pay: not ours, or of the other mode."""

    code = "wallet.qr_unknown"
    advice = "Scan the code again, with a wallet of the mode the payment was made in."
    advice_zh = "无法识别该收款码，请重新扫码，并确认钱包与收款码属于同一环境。"


class WalletQrPaid(Conflict):
    """The code is paid; it is good for one payment."""

    code = "wallet.qr_paid"
    advice = "Nothing to do; ask the merchant for a new code if more is to be paid."
    advice_zh = "该收款码已支付，无需重复操作；如需再次付款，请商户重新出码。"


class WalletQrEnded(Conflict):
    """The code's time is over, or the merchant has closed the payment."""

    code = "wallet.qr_ended"
    advice = "Ask the merchant for a new code."
    advice_zh = "收款码已过期或已关闭，请商户重新出码。"


class WalletBalanceTooLow(Rejected):
    """The wallet does not hold as much; the code can still be paid."""

    code = "wallet.balance_too_low"
    advice = "Top the wallet up and confirm again with a new Idempotency-Key."
    advice_zh = "钱包余额不足，请充值后使用新的 Idempotency-Key 重新确认。"


class WalletDeclined(Rejected):
    """The payment is not allowed to the wallet; the code can still be paid by another."""

    code = "wallet.payment_declined"
    advice = "Read the reason in facts."
    advice_zh = "钱包付款被拒绝，请查看 facts 中的原因。"


class QrStatus(StrEnum):
    """Whether a code can still be paid."""

    PAYABLE = "payable"
    PAID = "paid"
    ENDED = "ended"


class WalletQrView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A merchant's code as a wallet's owner sees it: nothing of it is the merchant's alone."""

    object: Literal["wallet_qr"]
    payment_id: str
    mode: Mode
    payee: str
    subject: str
    amount: int
    currency: str
    status: QrStatus
    expires_at: datetime
    paid_at: datetime | UnsetType = UNSET
    paid_by_wallet: bool | UnsetType = UNSET  # of a paid one: by the wallet that asks


class Scanned(Struct, frozen=True):
    """What a wallet has scanned: a payment and its one try."""

    payment: Payment
    attempt: Attempt

    def status(self, now: datetime) -> QrStatus:
        """Return whether it can be paid at this moment."""
        payment = self.payment
        if payment.state is PaymentState.SUCCEEDED:
            return QrStatus.PAID
        is_shown = payment.state is PaymentState.PENDING and payment.close_requested_at is None
        return QrStatus.PAYABLE if is_shown and now < payment.expires_at else QrStatus.ENDED

    def check_payable(self, now: datetime) -> None:
        """Raise unless it can be paid at this moment.

        Raises:
            WalletQrPaid, WalletQrEnded
        """
        match self.status(now):
            case QrStatus.PAID:
                raise WalletQrPaid
            case QrStatus.ENDED:
                raise WalletQrEnded
            case QrStatus.PAYABLE:
                pass


def view_qr(scanned: Scanned, payee: str, wallet_number: str, now: datetime) -> WalletQrView:
    """Return a code as the wallet of this number sees it."""
    payment, status = scanned.payment, scanned.status(now)
    is_paid = status is QrStatus.PAID
    return WalletQrView(
        object="wallet_qr",
        payment_id=show("pay", payment.id),
        mode=payment.mode,
        payee=payee,
        subject=payment.subject,
        amount=payment.amount,
        currency=payment.currency,
        status=status,
        expires_at=payment.expires_at,
        paid_at=scanned.attempt.paid_at or UNSET,
        paid_by_wallet=scanned.attempt.payer == wallet_number if is_paid else UNSET,
    )
