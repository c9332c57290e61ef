"""What a partner sees and does with a person's consent: accounts, balances, movements, payments.

Every function here is called with a consent that was proved to be good for it at this moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from tongbao.kernel.ids import show
from tongbao.parties.consents.holdings import Account, held
from tongbao.parties.consents.model import (
    PAYMENT_PREFIX,
    Amount,
    Consent,
    ConsentPayment,
)
from tongbao.parties.consents.paying import pay_by_consent, payment_of
from tongbao.surfaces.open_bank.desk import Desk
from tongbao.surfaces.open_bank.protocol import Asked, OAuthError, json_reply
from tongbao.surfaces.page_kit.replies import Reply

PREFIX: Final = "/open_bank"


class AskFunds(Struct, frozen=True, forbid_unknown_fields=True):
    """Is there this much?"""

    account_id: Annotated[str, Meta(max_length=64)]
    amount: Amount


class OpenConsent(Struct, frozen=True, kw_only=True):
    """A consent as its partner sees it; the details are as the partner sent them."""

    id: str
    object: Literal["consent"] = "consent"
    status: str
    authorization_details: list[dict[str, Any]]
    expires_at: datetime


class OpenAccount(Struct, frozen=True, kw_only=True):
    """An account that the person chose; the holder's name is masked."""

    id: str
    object: Literal["account"] = "account"
    kind: Literal["wallet", "e_account"]
    holder_name: str
    currency: str
    status: Literal["active", "frozen"]


class OpenAccounts(Struct, frozen=True):
    """The accounts of a consent, all of them."""

    items: list[OpenAccount]


class OpenBalance(Struct, frozen=True, kw_only=True):
    """What is in an account, in minor units."""

    account_id: str
    object: Literal["balance"] = "balance"
    currency: str
    booked: int
    available: int


class OpenTransaction(Struct, frozen=True, kw_only=True):
    """One booked movement; the amount is negative where money left."""

    id: str
    object: Literal["transaction"] = "transaction"
    amount: int
    currency: str
    balance_after: int
    code: str
    at: datetime


class OpenTransactions(Struct, frozen=True):
    """Movements, the newest first; the cursor goes on to older ones."""

    items: list[OpenTransaction]
    next_cursor: str | None


class FundsAnswer(Struct, frozen=True, kw_only=True):
    """Whether there is enough: yes or no and nothing else."""

    object: Literal["funds_confirmation"] = "funds_confirmation"
    funds_available: bool


class OpenPayment(Struct, frozen=True, kw_only=True):
    """The one payment of a consent."""

    id: str
    object: Literal["open_bank_payment"] = "open_bank_payment"
    consent_id: str
    status: Literal["succeeded"] = "succeeded"
    amount: int
    currency: str
    debtor_account_id: str
    creditor_account_id: str
    created_at: datetime


class OpenPayments(Struct, frozen=True):
    """The payment of a consent, or none yet."""

    items: list[OpenPayment]


async def show_consent(
    desk: Desk, _asked: Asked, consent: Consent, _params: Mapping[str, str]
) -> Reply:
    """Return the consent that the token is on, as it stands."""
    return json_reply(
        OpenConsent(
            id=consent.shown_id,
            status=consent.status(desk.db.clock.now()),
            authorization_details=[consent.details],
            expires_at=consent.expires_at,
        )
    )


async def list_accounts(
    desk: Desk, _asked: Asked, consent: Consent, _params: Mapping[str, str]
) -> Reply:
    """Return the accounts that the person chose, as far as they still hold them."""
    return json_reply(OpenAccounts([_view(each) for each in await accounts_of(desk, consent)]))


async def show_account(
    desk: Desk, _asked: Asked, consent: Consent, params: Mapping[str, str]
) -> Reply:
    """Return one of them.

    Raises:
        AccountNotHeld
    """
    return json_reply(_view(held(await accounts_of(desk, consent), params["account"])))


async def show_balance(
    desk: Desk, _asked: Asked, consent: Consent, params: Mapping[str, str]
) -> Reply:
    """Return what is in one of them, in minor units.

    Raises:
        AccountNotHeld
    """
    account = held(await accounts_of(desk, consent), params["account"])
    funds = await desk.holdings.funds(account)
    return json_reply(
        OpenBalance(
            account_id=account.shown_id,
            currency=account.currency,
            booked=funds.booked,
            available=funds.available,
        )
    )


async def list_transactions(
    desk: Desk, asked: Asked, consent: Consent, params: Mapping[str, str]
) -> Reply:
    """Return what happened in one of them, the newest first.

    Raises:
        OAuthError, AccountNotHeld, CursorInvalid, PageSizeInvalid
    """
    account = held(await accounts_of(desk, consent), params["account"])
    limit = asked.query.get("limit")
    if limit is not None and not (limit.isascii() and limit.isdecimal() and len(limit) <= 4):
        raise OAuthError("invalid_request", "limit is no number")
    page = await desk.holdings.movements(
        account, cursor=asked.query.get("cursor"), limit=int(limit) if limit else None
    )
    items = [
        OpenTransaction(
            id=show("trx", each.id),
            amount=each.change,
            currency=account.currency,
            balance_after=each.balance_after,
            code=each.code,
            at=each.at,
        )
        for each in page.items
    ]
    return json_reply(OpenTransactions(items, page.next_cursor))


async def confirm_funds(
    desk: Desk, asked: Asked, consent: Consent, _params: Mapping[str, str]
) -> Reply:
    """Say whether there is enough, yes or no and nothing else.

    Raises:
        OAuthError, AccountNotHeld
    """
    try:
        question = msgspec.json.decode(asked.body, type=AskFunds)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise OAuthError("invalid_request", "the body is no question about funds") from None
    account = held(await accounts_of(desk, consent), question.account_id)
    enough = await has_funds(desk, account, question.amount.amount, question.amount.currency)
    return json_reply(FundsAnswer(funds_available=enough))


async def make_payment(
    desk: Desk, _asked: Asked, consent: Consent, _params: Mapping[str, str]
) -> Reply:
    """Pay what was consented to; asked again, return the payment that was made.

    Raises:
        ConsentEnded, AccountNotHeld, PaymentRefused, WalletFrozen, DailyLimitExceeded
    """
    before = await payment_of(desk.db, consent)
    payment = before or await pay_by_consent(desk.db, desk.ledger, consent)
    return json_reply(_payment_view(payment), status=200 if before else 201)


async def show_payment(
    desk: Desk, _asked: Asked, consent: Consent, _params: Mapping[str, str]
) -> Reply:
    """Return the payment of the consent, if it was made."""
    found = await payment_of(desk.db, consent)
    return json_reply(OpenPayments([_payment_view(found)] if found else []))


async def accounts_of(desk: Desk, consent: Consent) -> list[Account]:
    """Return the accounts that were chosen, as far as the person still holds them."""
    chosen = set(consent.accounts)
    owner = consent.person_id or UUID(int=0)
    found = await desk.holdings.accounts_of(owner, consent.mode)
    return [each for each in found if each.id in chosen]


async def has_funds(desk: Desk, account: Account, amount: int, currency: str) -> bool:
    """Tell whether this much could be paid out of an account now."""
    funds = await desk.holdings.funds(account)
    return account.is_active and account.currency == currency and funds.available >= amount


def _view(account: Account) -> OpenAccount:
    return OpenAccount(
        id=account.shown_id,
        kind=account.kind,
        holder_name=account.holder,
        currency=account.currency,
        status="active" if account.is_active else "frozen",
    )


def _payment_view(payment: ConsentPayment) -> OpenPayment:
    return OpenPayment(
        id=show(PAYMENT_PREFIX, payment.payment_id),
        consent_id=show("cns", payment.consent_id),
        amount=payment.amount,
        currency=payment.currency,
        debtor_account_id=show("wal", payment.payer),
        creditor_account_id=show("wal", payment.payee),
        created_at=payment.paid_at,
    )
