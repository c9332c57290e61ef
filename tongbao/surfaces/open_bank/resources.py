"""What a partner sees and does with a person's consent: accounts, balances, movements, payments."""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from tongbao.kernel.ids import show
from tongbao.parties.consents.grants import introspect
from tongbao.parties.consents.holdings import Account, held
from tongbao.parties.consents.model import (
    PAYMENT_PREFIX,
    Amount,
    Consent,
    ConsentPayment,
)
from tongbao.parties.consents.paying import pay_by_consent, payment_of
from tongbao.parties.partners.model import Kind, PartnerState
from tongbao.parties.partners.partners import partner_with_id
from tongbao.parties.people.dossier import person_with_id
from tongbao.surfaces.open_bank.desk import Desk
from tongbao.surfaces.open_bank.protocol import Asked, OAuthError, json_reply, proved_key
from tongbao.surfaces.page_kit.replies import Reply

PREFIX: Final = "/open_bank"


class AskFunds(Struct, frozen=True, forbid_unknown_fields=True):
    """Is there this much?"""

    account_id: Annotated[str, Meta(max_length=64)]
    amount: Amount


async def show_consent(desk: Desk, asked: Asked, _params: dict[str, str]) -> Reply:
    """Return the consent that the token is on, as it stands.

    Raises:
        OAuthError
    """
    consent = await _consent(desk, asked, None)
    return json_reply(
        {
            "id": consent.shown_id,
            "object": "consent",
            "status": consent.status(desk.db.clock.now()),
            "authorization_details": [consent.details],
            "expires_at": consent.expires_at,
        }
    )


async def list_accounts(desk: Desk, asked: Asked, _params: dict[str, str]) -> Reply:
    """Return the accounts that the person chose, as far as they still hold them.

    Raises:
        OAuthError
    """
    consent = await _consent(desk, asked, Kind.ACCOUNT_INFORMATION, "accounts")
    return json_reply({"items": [_view(each) for each in await _accounts(desk, consent)]})


async def show_account(desk: Desk, asked: Asked, params: dict[str, str]) -> Reply:
    """Return one of them.

    Raises:
        OAuthError, AccountNotHeld
    """
    consent = await _consent(desk, asked, Kind.ACCOUNT_INFORMATION, "accounts")
    return json_reply(_view(held(await _accounts(desk, consent), params["account"])))


async def show_balance(desk: Desk, asked: Asked, params: dict[str, str]) -> Reply:
    """Return what is in one of them, in minor units.

    Raises:
        OAuthError, AccountNotHeld
    """
    consent = await _consent(desk, asked, Kind.ACCOUNT_INFORMATION, "balances")
    account = held(await _accounts(desk, consent), params["account"])
    funds = await desk.holdings.funds(account)
    told = {"account_id": account.shown_id, "object": "balance", "currency": account.currency}
    return json_reply({**told, "booked": funds.booked, "available": funds.available})


async def list_transactions(desk: Desk, asked: Asked, params: dict[str, str]) -> Reply:
    """Return what happened in one of them, the newest first.

    Raises:
        OAuthError, AccountNotHeld, CursorInvalid, PageSizeInvalid
    """
    consent = await _consent(desk, asked, Kind.ACCOUNT_INFORMATION, "transactions")
    account = held(await _accounts(desk, consent), params["account"])
    limit = asked.query.get("limit")
    if limit is not None and not (limit.isascii() and limit.isdecimal() and len(limit) <= 4):
        raise OAuthError("invalid_request", "limit is no number")
    page = await desk.holdings.movements(
        account, cursor=asked.query.get("cursor"), limit=int(limit) if limit else None
    )
    items = [
        {
            "id": show("trx", each.id),
            "object": "transaction",
            "amount": each.change,
            "currency": account.currency,
            "balance_after": each.balance_after,
            "code": each.code,
            "at": each.at,
        }
        for each in page.items
    ]
    return json_reply({"items": items, "next_cursor": page.next_cursor})


async def confirm_funds(desk: Desk, asked: Asked, _params: dict[str, str]) -> Reply:
    """Say whether there is enough, yes or no and nothing else.

    Raises:
        OAuthError, AccountNotHeld
    """
    consent = await _consent(desk, asked, Kind.FUNDS_CONFIRMATION)
    try:
        question = msgspec.json.decode(asked.body, type=AskFunds)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise OAuthError("invalid_request", "the body is no question about funds") from None
    account = held(await _accounts(desk, consent), question.account_id)
    funds = await desk.holdings.funds(account)
    enough = (
        account.is_active
        and account.currency == question.amount.currency
        and funds.available >= question.amount.amount
    )
    return json_reply({"object": "funds_confirmation", "funds_available": enough})


async def make_payment(desk: Desk, asked: Asked, _params: dict[str, str]) -> Reply:
    """Pay what was consented to; asked again, return the payment that was made.

    Raises:
        OAuthError, ConsentEnded, AccountNotHeld, PaymentRefused, WalletFrozen, DailyLimitExceeded
    """
    consent = await _consent(desk, asked, Kind.PAYMENT_INITIATION)
    before = await payment_of(desk.db, consent)
    payment = before or await pay_by_consent(desk.db, desk.ledger, consent)
    return json_reply(_payment_view(payment), status=200 if before else 201)


async def show_payment(desk: Desk, asked: Asked, _params: dict[str, str]) -> Reply:
    """Return the payment of the consent, if it was made.

    Raises:
        OAuthError
    """
    consent = await _consent(desk, asked, Kind.PAYMENT_INITIATION)
    found = await payment_of(desk.db, consent)
    return json_reply({"items": [_payment_view(found)] if found else []})


async def _consent(
    desk: Desk, asked: Asked, kind: Kind | None, permission: str | None = None
) -> Consent:
    """Return the consent that the request's token is on, if it is good for this now.

    A consent to pay that was used still answers what was paid; for a consent that ended in another
    way no token is good.

    Raises:
        OAuthError
    """
    said = asked.header("authorization") or ""
    scheme, _, token = said.partition(" ")
    if scheme.lower() != "dpop" or not token or len(token) > 128:
        raise OAuthError("invalid_token", "a DPoP-bound access token is needed", status=401)
    # The token first: a stranger without one makes us remember no proof.
    found = await introspect(desk.db, token)
    if found is None:
        raise _over()
    jkt = await proved_key(desk.db, asked, desk.issuer + asked.path, access_token=token)
    if jkt is None:
        raise OAuthError("invalid_dpop_proof", "a DPoP proof is needed", status=401)
    if found.token.jkt != jkt:
        raise _over()
    partner = await partner_with_id(desk.db, found.token.partner_id)
    consent = found.consent
    is_paid = kind is Kind.PAYMENT_INITIATION and await payment_of(desk.db, consent) is not None
    if partner.state is not PartnerState.ACTIVE or not (
        is_paid or consent.is_good(desk.db.clock.now())
    ):
        raise _over()
    if consent.person_id is None:
        raise _over()
    person = await person_with_id(desk.db, consent.person_id)
    if person.state != "active":
        raise _over()
    if kind is not None and consent.kind is not kind:
        raise _not_for_this()
    if permission is not None and permission not in consent.permissions:
        raise _not_for_this()
    return consent


async def _accounts(desk: Desk, consent: Consent) -> list[Account]:
    chosen = set(consent.accounts)
    owner = consent.person_id or UUID(int=0)
    found = await desk.holdings.accounts_of(owner, consent.mode)
    return [each for each in found if each.id in chosen]


def _view(account: Account) -> dict[str, Any]:
    return {
        "id": account.shown_id,
        "object": "account",
        "kind": account.kind,
        "holder_name": account.holder,
        "currency": account.currency,
        "status": "active" if account.is_active else "frozen",
    }


def _payment_view(payment: ConsentPayment) -> dict[str, Any]:
    return {
        "id": show(PAYMENT_PREFIX, payment.payment_id),
        "object": "open_bank_payment",
        "consent_id": show("cns", payment.consent_id),
        "status": "succeeded",
        "amount": payment.amount,
        "currency": payment.currency,
        "debtor_account_id": show("wal", payment.payer),
        "creditor_account_id": show("wal", payment.payee),
        "created_at": payment.paid_at,
    }


def _over() -> OAuthError:
    return OAuthError("invalid_token", "the token or its consent is not good", status=401)


def _not_for_this() -> OAuthError:
    return OAuthError("insufficient_scope", "the consent is not about this", status=403)
