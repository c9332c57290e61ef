"""Account information: consents that are lodged, and what is seen on one that was authorised."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, Literal

from tongbao.kernel.ids import UnknownId, parse, show
from tongbao.parties.consents.consents import consent_with_id, lodge_consent
from tongbao.parties.consents.holdings import Account, Movement, held
from tongbao.parties.consents.lodging import lodged, withdraw
from tongbao.parties.consents.model import (
    INFORMATION_DAYS_MAX,
    PREFIX,
    Consent,
    ConsentNotFound,
    Wish,
)
from tongbao.parties.partners.model import Kind, Partner
from tongbao.surfaces.open_bank.desk import Desk
from tongbao.surfaces.open_bank.protocol import Asked, json_reply
from tongbao.surfaces.open_bank.resources import accounts_of
from tongbao.surfaces.page_kit.replies import Reply
from tongbao.surfaces.uk_open_banking import shapes
from tongbao.surfaces.uk_open_banking.shapes import Answer, ConsentAnswer, Links, Refused

AISP: Final = "/open-banking/v4.0/aisp"
CONSENTS: Final = f"{AISP}/account-access-consents"
OPENS: Final[Mapping[str, str]] = {
    "ReadAccountsBasic": "accounts",
    "ReadAccountsDetail": "accounts",
    "ReadBalances": "balances",
    "ReadTransactionsBasic": "transactions",
    "ReadTransactionsDetail": "transactions",
    "ReadTransactionsCredits": "transactions",
    "ReadTransactionsDebits": "transactions",
}
"""What of ours each permission of theirs opens; others are refused, for nothing would be behind."""
_SIDES: Final = frozenset({"ReadTransactionsCredits", "ReadTransactionsDebits"})
_DEPTHS: Final = frozenset({"ReadTransactionsBasic", "ReadTransactionsDetail"})
_STATUS: Final[Mapping[str, Literal["AWAU", "AUTH", "RJCT", "CANC", "EXPD"]]] = {
    "awaiting": "AWAU",
    "authorised": "AUTH",
    "rejected": "RJCT",
    "revoked": "CANC",
    "expired": "EXPD",
}


async def lodge_access(
    desk: Desk, asked: Asked, partner: Partner, _params: Mapping[str, str]
) -> Reply:
    """Lodge what somebody will be asked to let the partner see."""
    wish = _wish(desk, shapes.read(asked.body, shapes.AskAccess).data)
    async with desk.db.begin(partner.client_id) as tx:
        consent = await consent_with_id(tx, await lodge_consent(tx, partner, wish))
    return json_reply(_consent_answer(desk, consent), status=201)


async def show_access(
    desk: Desk, _asked: Asked, partner: Partner, params: Mapping[str, str]
) -> Reply:
    """Return how a consent stands that the partner has lodged.

    Raises:
        ConsentNotFound
    """
    return json_reply(_consent_answer(desk, await own_consent(desk, partner, params, _KIND)))


async def end_access(
    desk: Desk, _asked: Asked, partner: Partner, params: Mapping[str, str]
) -> Reply:
    """Let go of a consent and every token on it; again changes nothing.

    Raises:
        ConsentNotFound
    """
    consent = await own_consent(desk, partner, params, _KIND)
    async with desk.db.begin(partner.client_id) as tx:
        await withdraw(tx, consent)
    return Reply(204, (("cache-control", "no-store"),))


async def list_uk_accounts(
    desk: Desk, asked: Asked, consent: Consent, _params: Mapping[str, str]
) -> Reply:
    """Return the accounts that the person chose."""
    found = [_account(consent, each) for each in await accounts_of(desk, consent)]
    return json_reply(Answer(shapes.Accounts(found), _links(desk, asked)))


async def show_uk_account(
    desk: Desk, asked: Asked, consent: Consent, params: Mapping[str, str]
) -> Reply:
    """Return one of them.

    Raises:
        AccountNotHeld
    """
    found = held(await accounts_of(desk, consent), params["AccountId"])
    return json_reply(Answer(shapes.Accounts([_account(consent, found)]), _links(desk, asked)))


async def list_balances(
    desk: Desk, asked: Asked, consent: Consent, _params: Mapping[str, str]
) -> Reply:
    """Return the balances of all of them."""
    accounts = await accounts_of(desk, consent)
    found = [each for account in accounts for each in await _balances(desk, account)]
    return json_reply(Answer(shapes.Balances(found), _links(desk, asked)))


async def show_balances(
    desk: Desk, asked: Asked, consent: Consent, params: Mapping[str, str]
) -> Reply:
    """Return the balances of one of them.

    Raises:
        AccountNotHeld
    """
    account = held(await accounts_of(desk, consent), params["AccountId"])
    found = shapes.Balances(await _balances(desk, account))
    return json_reply(Answer(found, _links(desk, asked)))


async def list_uk_transactions(
    desk: Desk, asked: Asked, consent: Consent, params: Mapping[str, str]
) -> Reply:
    """Return what happened in one of them, the newest first; further pages by the link.

    Raises:
        Refused, AccountNotHeld, CursorInvalid
    """
    if unknown := set(asked.query) - {"cursor"}:
        said = "Movements are not filtered by this"
        raise Refused("UK.OBIE.Field.Unexpected", said, min(unknown)[:100])
    account = held(await accounts_of(desk, consent), params["AccountId"])
    page = await desk.holdings.movements(account, cursor=asked.query.get("cursor"), limit=None)
    wanted = _permissions(consent)
    items = [
        _transaction(account, each)
        for each in page.items
        if f"ReadTransactions{_side(each.change)}s" in wanted
    ]
    links = _links(desk, asked)
    if page.next_cursor is not None:
        links = Links(links.self, f"{desk.issuer}{asked.path}?cursor={page.next_cursor}")
    return json_reply(Answer(shapes.Transactions(items), links))


_KIND: Final = Kind.ACCOUNT_INFORMATION


async def own_consent(
    desk: Desk, partner: Partner, params: Mapping[str, str], kind: Kind
) -> Consent:
    """Return the consent that an address names.

    Raises:
        ConsentNotFound
    """
    try:
        wanted = parse(PREFIX, params["ConsentId"])
    except UnknownId:
        raise ConsentNotFound from None
    return await lodged(desk.db, partner, wanted, kind)


def _wish(desk: Desk, data: shapes.AskedAccess) -> Wish:
    """Return what is asked for in our own words.

    Raises:
        Refused
    """
    asked, at = set(data.permissions), "Data.Permissions"
    if len(asked) != len(data.permissions) or not asked <= set(OPENS):
        raise Refused("UK.OBIE.Field.Invalid", "A permission is not served, or came twice", at)
    if not asked & {"ReadAccountsBasic", "ReadAccountsDetail"}:
        raise Refused("UK.OBIE.Field.Invalid", "Accounts are read with everything else", at)
    if bool(asked & _SIDES) != bool(asked & _DEPTHS):
        raise Refused("UK.OBIE.Field.Invalid", "Transactions need a side and a depth", at)
    for name in ("transaction_from_date_time", "transaction_to_date_time"):
        if getattr(data, name) is not None:
            said = "Movements are not filtered by time"
            raise Refused("UK.OBIE.Field.Unexpected", said, f"Data.{name.title().replace('_', '')}")
    now = desk.db.clock.now()
    latest = now + timedelta(days=INFORMATION_DAYS_MAX)
    end = data.expiration_date_time or latest
    if end.tzinfo is None or not now < end <= latest:
        said = f"A consent lasts {INFORMATION_DAYS_MAX} days at most"
        raise Refused("UK.OBIE.Field.InvalidDate", said, "Data.ExpirationDateTime")
    details: dict[str, Any] = {
        "type": _KIND.value,
        "permissions": sorted({OPENS[each] for each in asked}),
        "expires_at": end.isoformat(),
        "uk_open_banking": shapes.told(data),
    }
    return Wish(_KIND, details, details["permissions"], None, None, None, end)


def _permissions(consent: Consent) -> list[str]:
    said: list[str] = consent.details.get("uk_open_banking", {}).get("Permissions", [])
    return said


def _consent_answer(desk: Desk, consent: Consent) -> ConsentAnswer[shapes.AccessConsent]:
    status = _STATUS[consent.status(desk.db.clock.now())]
    told = shapes.AccessConsent(
        consent_id=consent.shown_id,
        creation_date_time=consent.created_at,
        status=status,
        status_update_date_time=consent.ended_at or consent.decided_at or consent.created_at,
        permissions=_permissions(consent),
        expiration_date_time=consent.expires_at,
        status_reason=[shapes.WAITS] if status == "AWAU" else [],
    )
    return ConsentAnswer(told, {}, Links(f"{desk.issuer}{CONSENTS}/{consent.shown_id}"))


def _account(consent: Consent, account: Account) -> shapes.Account:
    detailed = "ReadAccountsDetail" in _permissions(consent)
    number = shapes.Identified(shapes.WALLET, account.shown_id, account.holder)
    return shapes.Account(
        account_id=account.shown_id,
        status="Enabled" if account.is_active else "Disabled",
        currency=account.currency,
        account_category="Personal",
        account_type_code="OTHR" if account.kind == "wallet" else "CACC",
        description=account.kind.replace("_", " "),
        account=[number] if detailed else [],
    )


async def _balances(desk: Desk, account: Account) -> list[shapes.Balance]:
    funds, now = await desk.holdings.funds(account), desk.db.clock.now()
    kinds: tuple[tuple[Literal["ITBD", "ITAV"], int], ...] = (
        ("ITBD", funds.booked),
        ("ITAV", funds.available),
    )
    return [
        shapes.Balance(
            account_id=account.shown_id,
            credit_debit_indicator=_side(amount),
            type=kind,
            date_time=now,
            amount=shapes.Amount.of(amount, account.currency),
        )
        for kind, amount in kinds
    ]


def _transaction(account: Account, movement: Movement) -> shapes.Transaction:
    return shapes.Transaction(
        account_id=account.shown_id,
        transaction_id=show("trx", movement.id),
        credit_debit_indicator=_side(movement.change),
        status="BOOK",
        booking_date_time=movement.at,
        amount=shapes.Amount.of(movement.change, account.currency),
        proprietary_bank_transaction_code=shapes.OwnCode(movement.code[:35], "Tongbao"),
        balance=shapes.BalanceAfter(
            _side(movement.balance_after),
            "ITBD",
            shapes.Amount.of(movement.balance_after, account.currency),
        ),
    )


def _side(amount: int) -> shapes.Side:
    return "Debit" if amount < 0 else "Credit"


def _links(desk: Desk, asked: Asked) -> Links:
    return Links(desk.issuer + asked.path)
