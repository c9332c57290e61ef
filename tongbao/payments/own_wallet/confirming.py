"""Find the payment behind a scanned code, and pay it from the wallet in one commit.

The payment, its attempt and change, the event, the day's spending and the transfers are one group
of the ledger: they happen together, or the code stays as it was and can be paid by another try.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from msgspec.structs import replace

from tongbao.infra.db import Write
from tongbao.infra.outbox import event_write
from tongbao.infra.tasks import cancel_write
from tongbao.infra.web.idempotency import InFlight
from tongbao.kernel.ids import UnknownId, new_id
from tongbao.kernel.licence import Mode
from tongbao.ledger.model import MOVED_BEFORE, ExceedsBalance, Group, Result
from tongbao.parties.accounts.model import SpendingRefused, Wallet
from tongbao.parties.accounts.queries import wallet_with_id
from tongbao.parties.accounts.wallets import spend_write
from tongbao.payments.collecting import queries
from tongbao.payments.collecting.model import (
    WALLET,
    Attempt,
    AttemptState,
    NewPayment,
    PaymentState,
    view_payment,
)
from tongbao.payments.collecting.outcomes import (
    MOVED_ON,
    ChaseAttempt,
    Flow,
    StateContended,
    attempt_write,
    end_event,
    payment_writes,
)
from tongbao.payments.collecting.payments import Taking, submit_paid, wallet_transfers
from tongbao.payments.own_wallet.model import (
    Scanned,
    WalletBalanceTooLow,
    WalletDeclined,
    WalletQrUnknown,
)
from tongbao.rails.channels.codes import number_of_own_qr
from tongbao.rails.channels.contract.orders import PayMode

_TRIES_MAX: Final = 8
LOOK_AGAIN: Final = frozenset({MOVED_ON, SpendingRefused.code, *MOVED_BEFORE})
"""Refusals that only say that a row had changed: looked at again, it says what has happened."""


async def scanned_by(flow: Flow, wallet: Wallet, text: str) -> Scanned:
    """Return the payment whose code a wallet has scanned.

    Raises:
        WalletQrUnknown
    """
    scanned = await code_scanned(flow, wallet.mode, text)
    if scanned.attempt.book != wallet.book:
        raise WalletQrUnknown
    return scanned


async def code_scanned(flow: Flow, mode: Mode, text: str) -> Scanned:
    """Return the payment of a mode whose code of ours was scanned, in whatever book.

    Raises:
        WalletQrUnknown
    """
    number = number_of_own_qr(text)
    try:
        attempt = await queries.attempt_by_number(flow.db, number or "")
    except UnknownId:
        attempt = None
    if attempt is None or attempt.mode is not mode or not _is_shown(attempt):
        raise WalletQrUnknown
    return Scanned(await queries.payment(flow.db, attempt.book, attempt.payment_id), attempt)


def _is_shown(attempt: Attempt) -> bool:
    is_ours = (attempt.channel, attempt.pay_mode) == (WALLET, PayMode.QR)
    return is_ours and attempt.action is not None


async def confirm(flow: Flow, wallet: Wallet, text: str, take: Taking) -> Scanned:
    """Pay what a wallet has scanned, all of it in one commit; of two at once, one pays.

    A wallet that may not pay changes nothing: the code can be paid later, or by another wallet.

    Raises:
        WalletQrUnknown, WalletQrPaid, WalletQrEnded, WalletFrozen, WalletCurrencyDiffers,
        DailyLimitExceeded, WalletBalanceTooLow, WalletDeclined, InFlight, StateContended
    """
    for _ in range(_TRIES_MAX):
        scanned = await scanned_by(flow, wallet, text)
        wallet = await wallet_with_id(flow.db, wallet.book, wallet.id)
        now = flow.db.clock.now()
        scanned.check_payable(now)
        wallet.check_may_spend(scanned.payment.money, now)
        verdict = await flow.risk(as_asked(scanned), wallet.id)
        if verdict.declined is not None:
            raise WalletDeclined(reason=verdict.declined)
        paid = paid_by(scanned, str(wallet.id), now)
        companions = (
            take(paid.payment.id, now),
            *verdict.meters,
            *confirmed_writes(scanned, paid, "own wallet", now),
            spend_write(wallet.book, wallet.id, paid.payment.money, now),
        )
        # Every try is a group of its own: a refusal is remembered for ever, and a wallet without
        # enough money may be topped up. The transfers' ids keep the money exactly-once.
        transfers = wallet_transfers(paid.payment, wallet.id)
        [result] = await submit_paid(flow, [Group(new_id(), wallet.book, transfers, companions)])
        if result.happened:
            return replace(paid, payment=replace(paid.payment, version=paid.payment.version + 1))
        _raise_unless_moved(result)
    raise StateContended


def _raise_unless_moved(result: Result) -> None:
    if result.status == "in_flight":
        raise StateContended
    if result.code in LOOK_AGAIN:
        return
    if result.code == InFlight.code:
        raise InFlight
    if result.code == ExceedsBalance.code:
        raise WalletBalanceTooLow
    raise WalletDeclined(reason=result.code)


def paid_by(scanned: Scanned, payer: str, now: datetime) -> Scanned:
    """Return both rows as they are once an account of ours has paid them."""
    payment, attempt = scanned.payment, scanned.attempt
    return Scanned(
        replace(
            payment,
            state=PaymentState.SUCCEEDED,
            captured=payment.amount,
            succeeded_at=now,
            ended_at=now,
        ),
        replace(
            attempt,
            state=AttemptState.SUCCEEDED,
            channel_ref=attempt.number,
            payer=payer,
            paid_at=now,
        ),
    )


def confirmed_writes(before: Scanned, paid: Scanned, why: str, now: datetime) -> tuple[Write, ...]:
    """Return the writes of both rows, if they still are as they were seen, and what follows."""
    payment = replace(paid.payment, version=paid.payment.version + 1)
    event = end_event(payment, view_payment(payment, paid.attempt))
    return (
        *payment_writes(before.payment, paid.payment, why, now),
        attempt_write(before.attempt, paid.attempt),
        event_write(event, now=now),
        cancel_write(ChaseAttempt, f"chase/{paid.attempt.id}"),
    )


def as_asked(scanned: Scanned) -> NewPayment:
    """Return what the merchant asked for, as the risk hook is told of it."""
    payment, attempt = scanned.payment, scanned.attempt
    return NewPayment(
        merchant_id=payment.merchant_id,
        mode=payment.mode,
        book=payment.book,
        merchant_order_no=payment.merchant_order_no,
        money=payment.money,
        subject=payment.subject,
        channel=payment.channel,
        pay_mode=payment.pay_mode,
        account_id=attempt.account_id,
        price=payment.price,
        late_success=payment.late_success,
        expires_in=payment.expires_at - payment.created_at,
        metadata=payment.metadata,
        client_ip=attempt.client_ip,
        how=attempt.how,
    )
