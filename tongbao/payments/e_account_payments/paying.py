"""Pay a merchant's code out of an electronic account: everything is one commit, or nothing is.

The payment and its attempt, the account's balance, every meter of the law, the person's
confirmation, the event and the transfers are one group of the ledger. A refusal leaves the code as
it was, and says which rule stands against it and what it leaves.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from msgspec.structs import astuple

from tongbao.controls.limits.model import LimitExceeded
from tongbao.infra.db import Write
from tongbao.kernel.errors import Conflict, Rejected
from tongbao.kernel.ids import new_id
from tongbao.kernel.money import Money
from tongbao.ledger.model import AccountKey, Group, Result, Transfer
from tongbao.ledger.rules import posting
from tongbao.parties.accounts.model import WalletCurrencyDiffers
from tongbao.parties.authentication.model import ConfirmationUsed
from tongbao.parties.e_accounts import queries as e_accounts
from tongbao.parties.e_accounts.model import EAccount, EAccountMoved
from tongbao.parties.e_accounts.orders import Confirms
from tongbao.parties.e_accounts.queries import PaidCode
from tongbao.parties.merchants import queries as merchants
from tongbao.payments.checkouts.queries import checkout_of_payment
from tongbao.payments.collecting.model import Payment, Verdict
from tongbao.payments.collecting.outcomes import Flow, StateContended
from tongbao.payments.collecting.payments import submit_paid
from tongbao.payments.e_account_payments import _store as store
from tongbao.payments.e_account_payments.model import EAccountPayment, PayeeElsewhere
from tongbao.payments.own_wallet.confirming import (
    LOOK_AGAIN,
    as_asked,
    code_scanned,
    confirmed_writes,
    paid_by,
)
from tongbao.payments.own_wallet.model import Scanned, WalletDeclined

_TRIES_MAX: Final = 8
_PAID: Final = "e_account.payment_there"
_LOOK_AGAIN: Final = LOOK_AGAIN | {_PAID, EAccountMoved.code, LimitExceeded.code}


async def scanned_for(flow: Flow, account: EAccount, text: str) -> Scanned:
    """Return the payment whose code an account's person has scanned.

    Raises:
        WalletQrUnknown, PayeeElsewhere
    """
    scanned = await code_scanned(flow, account.mode, text)
    _check_book(account, scanned.payment)
    return scanned


def _check_book(account: EAccount, payment: Payment) -> None:
    if payment.book != account.book:
        raise PayeeElsewhere


async def payment_by(flow: Flow, account: EAccount, scanned: Scanned) -> EAccountPayment | None:
    """Return the payment that this account has made of a code already, if it has."""
    payment = scanned.payment
    known = await store.GET_PAYMENT.first(flow.db, payment.book, payment.id)
    return known if known is not None and known.account_id == account.id else None


async def check_pays(
    flow: Flow, account: EAccount, payment: Payment, level: int, now: datetime
) -> None:
    """Raise what stands against paying so much from an account now.

    Raises:
        PayeeElsewhere, WalletCurrencyDiffers, EAccountStateWrong, EAccountFrozen,
        EAccountBalanceShort, LimitExceeded
    """
    _check_book(account, payment)
    if payment.currency != account.currency:
        raise WalletCurrencyDiffers(currency=account.currency)
    await e_accounts.check_payment(flow.db, account, await _code_of(flow, payment, level), now)


async def pay(
    flow: Flow, account: EAccount, text: str, *, level: int, confirmed: Confirms
) -> EAccountPayment:
    """Pay what was scanned from the account; the same account again is answered with the same.

    Raises:
        WalletQrUnknown, WalletQrPaid, WalletQrEnded, PayeeElsewhere, WalletCurrencyDiffers,
        EAccountStateWrong, EAccountFrozen, EAccountBalanceShort, LimitExceeded, WalletDeclined,
        ConfirmationUsed, StateContended
    """
    for _ in range(_TRIES_MAX):
        scanned = await scanned_for(flow, account, text)
        known = await payment_by(flow, account, scanned)
        if known is not None:
            return known
        account = await e_accounts.account_with_id(flow.db, account.id)
        now = flow.db.clock.now()
        scanned.check_payable(now)
        try:
            verdict = await _let(flow, account, scanned, level, now)
        except (Conflict, Rejected):
            known = await payment_by(flow, account, scanned)
            if known is None:
                raise
            return known  # paid a moment before: what that took stood against this one
        made = await _row(flow, account, scanned.payment, level, now)
        paid = paid_by(scanned, account.shown_id, now)
        code = await _code_of(flow, scanned.payment, level)
        companions = (
            *confirmed.writes(),
            *verdict.meters,
            *confirmed_writes(scanned, paid, "electronic account", now),
            Write(store.INSERT_PAYMENT, astuple(made), refusal=_PAID),
            *await e_accounts.payment_writes(flow.db, account, code, now),
        )
        # Every try is a group of its own: a refusal is remembered for ever, and an account may be
        # topped up. The transfers' ids and the payment's row keep the money exactly-once.
        group = Group(new_id(), made.book, _transfers(paid.payment, account), companions)
        [result] = await submit_paid(flow, [group])
        if result.happened:
            return made
        _raise_unless_moved(result)
    raise StateContended


async def _code_of(flow: Flow, payment: Payment, level: int) -> PaidCode:
    # Where its customer scanned a plate's code first, that one counts, whatever it has opened
    # since. The checkout knows, and not the metadata, which a merchant may write.
    checkout = await checkout_of_payment(flow.db, payment)
    is_static = checkout is not None and checkout.plate_id is not None
    return PaidCode(payment.amount, level, is_static)


async def _let(
    flow: Flow, account: EAccount, scanned: Scanned, level: int, now: datetime
) -> Verdict:
    """Return what was said to a payment that nothing stands against; raise what does."""
    await check_pays(flow, account, scanned.payment, level, now)
    verdict = await flow.risk(as_asked(scanned), account.person_id)
    if verdict.declined is not None:
        raise WalletDeclined(reason=verdict.declined)
    return verdict


def _raise_unless_moved(result: Result) -> None:
    if result.status == "in_flight":
        raise StateContended
    if result.code in _LOOK_AGAIN:
        return
    if result.code == ConfirmationUsed.code:
        raise ConfirmationUsed
    raise WalletDeclined(reason=result.code)


async def _row(
    flow: Flow, account: EAccount, payment: Payment, level: int, now: datetime
) -> EAccountPayment:
    payee = await merchants.merchant_with_id(flow.db, payment.merchant_id)
    return EAccountPayment(
        book=payment.book,
        payment_id=payment.id,
        account_id=account.id,
        person_id=account.person_id,
        merchant_id=payment.merchant_id,
        mode=payment.mode,
        payee=payee.name,
        subject=payment.subject,
        amount=payment.amount,
        currency=payment.currency,
        level=level,
        paid_at=now,
    )


def _transfers(payment: Payment, account: EAccount) -> tuple[Transfer, ...]:
    currency = payment.currency
    return posting.transfers(
        "payment.captured_by_e_account",
        reference=payment.id,
        accounts={
            "e_account": account.key,
            "merchant_payable": AccountKey("merchant_payable", currency, payment.merchant_id),
        },
        amounts={"gross": payment.money, "fee": Money(payment.fee, currency)},
    )
