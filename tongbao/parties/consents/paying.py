"""Pay what somebody has consented to: once for ever, however often a partner asks.

The consent's last state, the payment's row, the day's spending and the transfer are one group of
the ledger: all of it happens, or the consent can still be used.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from tongbao.infra.db import Db, Tx, Write
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.errors import Refusal
from tongbao.kernel.ids import derived_id, new_id
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import Group, GroupInFlight
from tongbao.ledger.rules import posting
from tongbao.parties.accounts.queries import find_wallet
from tongbao.parties.accounts.wallets import account_of, spend_write
from tongbao.parties.consents import _store as store
from tongbao.parties.consents.holdings import book_of
from tongbao.parties.consents.model import (
    AccountNotHeld,
    Consent,
    ConsentEnded,
    ConsentNotFound,
    ConsentPayment,
    PaymentRefused,
)
from tongbao.parties.partners.model import Partner

_ROLE: Final = "payment"


async def pay_by_consent(db: Db, ledger: Ledger, consent: Consent) -> ConsentPayment:
    """Move the money of a consent, or return the payment that it was used for before.

    Raises:
        ConsentEnded, AccountNotHeld, PaymentRefused, WalletFrozen, WalletCurrencyDiffers,
        DailyLimitExceeded, GroupInFlight
    """
    if done := await payment_of(db, consent):
        return done
    now, money = db.clock.now(), consent.money
    if money is None or consent.payee is None or not consent.is_good(now):
        raise ConsentEnded
    book, payment_id = book_of(consent.mode), derived_id(consent.id, _ROLE)
    if consent.accounts[0] not in await claimed_by(db, consent):
        raise AccountNotHeld
    payer = await find_wallet(db, book, consent.accounts[0])
    payee = await find_wallet(db, book, consent.payee)
    if payer is None or payee is None or payer.id == payee.id:
        raise AccountNotHeld
    payer.check_may_spend(money, now)
    if payee.currency != money.currency:
        raise PaymentRefused(reason="payee_currency")
    row = (
        *(book, consent.id, payment_id, consent.partner_id, consent.mode),
        *(payer.id, payee.id, money.amount, money.currency, now),
    )
    group = Group(
        # Every try is a group of its own: a refusal is remembered for ever, and there may be enough
        # in the wallet tomorrow. The consent's row and the transfer's derived id keep it to once.
        id=new_id(),
        book=book,
        transfers=posting.transfers(
            "wallet.paid_wallet",
            reference=payment_id,
            accounts={"giving_wallet": account_of(payer), "getting_wallet": account_of(payee)},
            amounts={"amount": money},
        ),
        companions=(
            Write(store.CONSUME, (consent.id, now), ConsentEnded.code),
            Write(store.INSERT_PAYMENT, row, ConsentEnded.code),
            spend_write(book, payer.id, money, now),
        ),
    )
    failpoint("consents.before_payment")
    [result] = await ledger.submit([group])
    failpoint("consents.after_payment")
    if result.happened:
        return await store.GET_PAYMENT.one(db, book, consent.id)
    if result.status == "in_flight":
        raise GroupInFlight
    # Another request with this consent was quicker, or it was revoked at this very moment.
    if done := await payment_of(db, consent):
        return done
    raise _refusal(result.code)


async def payment_of(on: Db | Tx, consent: Consent) -> ConsentPayment | None:
    """Return the payment that a consent was used for, if it was."""
    return await store.GET_PAYMENT.first(on, book_of(consent.mode), consent.id)


async def payment_with_id(on: Db | Tx, partner: Partner, payment_id: UUID) -> ConsentPayment:
    """Return a payment that the partner has made.

    Raises:
        ConsentNotFound
    """
    found = await store.PAYMENT_WITH_ID.first(on, book_of(partner.mode), payment_id)
    if found is None or found.partner_id != partner.id:
        raise ConsentNotFound
    return found


async def claimed_by(on: Db | Tx, consent: Consent) -> set[UUID]:
    """Return the wallets that are the consenting person's now."""
    rows = await store.CLAIMED.all(on, book_of(consent.mode), consent.person_id)
    return {each.wallet_id for each in rows}


def _refusal(code: str | None) -> Refusal:
    return ConsentEnded() if code == ConsentEnded.code else PaymentRefused(reason=code)
