"""The façade as an ASGI application: its interfaces, its headers, and its form of refusals."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any, Final
from uuid import uuid4

from tongbao.infra.serving.asgi import Asgi
from tongbao.infra.settings import Settings
from tongbao.infra.web.interface_numbers import API_ID_HEADER, Area, Level
from tongbao.infra.web.problem import MethodNotAllowed, RouteUnknown, TooManyRequests, status_of
from tongbao.kernel.errors import Busy, Refusal
from tongbao.ledger.book import Ledger
from tongbao.parties.consents.holdings import holdings_of
from tongbao.parties.partners.model import Kind
from tongbao.surfaces.open_bank.app import KEEPS as KEPT_BY_OPEN_BANK
from tongbao.surfaces.open_bank.app import open_bank
from tongbao.surfaces.open_bank.desk import Desk
from tongbao.surfaces.open_bank.interfaces import (
    ByAccess,
    ByConsent,
    Interface,
    interface_at,
)
from tongbao.surfaces.open_bank.protocol import (
    Asked,
    OAuthError,
    asked_of,
    json_reply,
    wait_of,
    with_nonce,
)
from tongbao.surfaces.page_kit.replies import Receive, Reply, Send, send_reply
from tongbao.surfaces.uk_open_banking import accounts, payments, shapes, signing
from tongbao.surfaces.uk_open_banking.accounts import AISP
from tongbao.surfaces.uk_open_banking.shapes import Refused
from tongbao.surfaces.wallet.desk import Desk as PeopleDesk

KEEPS: Final = KEPT_BY_OPEN_BANK
"""What the open bank keeps of people; the façade keeps nothing more of them."""
PREFIX: Final = "/open-banking"
_INTERACTION: Final = "x-fapi-interaction-id"
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SEEING: Final = Kind.ACCOUNT_INFORMATION
_PAYING: Final = Kind.PAYMENT_INITIATION
_FUNDS: Final = f"{payments.CONSENTS}/{{ConsentId}}/funds-confirmation"
_AT: Final = f"{AISP}/accounts/{{AccountId}}"

UK_INTERFACES: Final[tuple[Interface, ...]] = (
    Interface(
        *("POST", accounts.CONSENTS, Level.A2, Area.ACCOUNTS, 11),
        ByAccess(accounts.lodge_access, "accounts"),
        status=201,
        takes=shapes.AskAccess,
    ),
    Interface(
        *("GET", f"{accounts.CONSENTS}/{{ConsentId}}", Level.A2, Area.ACCOUNTS, 12),
        ByAccess(accounts.show_access, "accounts"),
    ),
    Interface(
        *("DELETE", f"{accounts.CONSENTS}/{{ConsentId}}", Level.A2, Area.ACCOUNTS, 13),
        ByAccess(accounts.end_access, "accounts"),
        status=204,
    ),
    Interface(
        *("GET", f"{AISP}/accounts", Level.A2, Area.ACCOUNTS, 14),
        ByConsent(accounts.list_uk_accounts, _SEEING, "accounts"),
    ),
    Interface(
        *("GET", _AT, Level.A2, Area.ACCOUNTS, 15),
        ByConsent(accounts.show_uk_account, _SEEING, "accounts"),
    ),
    Interface(
        *("GET", f"{AISP}/balances", Level.A2, Area.ACCOUNTS, 16),
        ByConsent(accounts.list_balances, _SEEING, "balances"),
    ),
    Interface(
        *("GET", f"{_AT}/balances", Level.A2, Area.ACCOUNTS, 17),
        ByConsent(accounts.show_balances, _SEEING, "balances"),
    ),
    Interface(
        *("GET", f"{_AT}/transactions", Level.A2, Area.ACCOUNTS, 18),
        ByConsent(accounts.list_uk_transactions, _SEEING, "transactions"),
    ),
    Interface(
        *("POST", payments.CONSENTS, Level.A2, Area.PAYMENTS, 11),
        ByAccess(payments.lodge_payment, "payments"),
        status=201,
        takes=shapes.AskPayment,
    ),
    Interface(
        *("GET", f"{payments.CONSENTS}/{{ConsentId}}", Level.A2, Area.PAYMENTS, 12),
        ByAccess(payments.show_payment_consent, "payments"),
    ),
    Interface(
        *("GET", _FUNDS, Level.A2, Area.FUNDS, 11),
        ByConsent(payments.confirm_payment_funds, _PAYING),
    ),
    Interface(
        *("POST", payments.PAYMENTS, Level.A2, Area.PAYMENTS, 13),
        ByConsent(payments.order_payment, _PAYING),
        status=201,
        takes=shapes.OrderPayment,
    ),
    Interface(
        *("GET", f"{payments.PAYMENTS}/{{DomesticPaymentId}}", Level.A2, Area.PAYMENTS, 14),
        ByAccess(payments.show_domestic_payment, "payments"),
    ),
)
"""Every address of the façade, with its level and its proof."""


class UkOpenBanking:
    """An ASGI application to mount at ``/open-banking``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request of a partner's program."""
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        interface, params = interface_at(UK_INTERFACES, method, scope["path"])
        interaction = str(uuid4())
        try:
            asked = asked_of(scope, method, only_forms=False)
            interaction = _interaction(asked) or interaction
            _check_headers(self._desk, asked)
            reply = await interface.serve(self._desk, asked, params)
            reply = await _signed(self._desk, asked, reply)
        except OAuthError as error:
            reply = error.reply()
            answer = _problems(scope, reply.status, error.error, error.description)
            reply = Reply(reply.status, _without_type(reply), answer.body).also(*answer.headers)
        except Refused as refused:
            reply = _told(scope, refused.status, refused.problem)
        except (MethodNotAllowed, RouteUnknown):
            raise  # the house's own answers
        except Refusal as refusal:
            reply = _refusal(scope, refusal)
        api_id = interface.api_id(self._desk.bank_code)
        reply = with_nonce(self._desk, reply)
        reply = reply.also((_INTERACTION, interaction), (API_ID_HEADER, api_id))
        await send_reply(reply, receive, send, is_https=self._desk.is_https)


def open_banks(settings: Settings, people: PeopleDesk, ledger: Ledger) -> dict[str, Asgi]:
    """Return what is mounted: the open bank, and the façade where it is switched on."""
    mounts = open_bank(settings, people, ledger)
    if mounts and settings.uk_open_banking:
        desk = Desk(people.checks, ledger, holdings_of(people.db), settings)
        mounts[PREFIX] = UkOpenBanking(desk)
    return mounts


def _interaction(asked: Asked) -> str | None:
    """Return the partner's own id of the request, to be played back.

    Raises:
        Refused
    """
    said = asked.header(_INTERACTION)
    if said is not None and not _UUID.fullmatch(said):
        raise Refused("UK.OBIE.Header.Invalid", "The interaction id is no UUID", _INTERACTION)
    return said


def _is_signed(desk: Desk, asked: Asked) -> bool:
    return desk.signs_messages and asked.path.startswith(f"{payments.PISP}/")


async def _signed(desk: Desk, asked: Asked, reply: Reply) -> Reply:
    """Return an answer about a payment with our signature of its body."""
    if not _is_signed(desk, asked):
        return reply
    return reply.also((signing.HEADER, await signing.signature_of(desk, reply.body)))


def _check_headers(desk: Desk, asked: Asked) -> None:
    """Refuse a signature that nobody would check, and bodies that are not JSON.

    Raises:
        Refused
    """
    is_checked = _is_signed(desk, asked) and asked.method == "POST"
    if asked.header(signing.HEADER) is not None and not is_checked:
        message = "Only payments are signed"
        raise Refused("UK.OBIE.Signature.Unexpected", message, signing.HEADER)
    kind = (asked.header("content-type") or "").partition(";")[0].strip().lower()
    if asked.body and kind != "application/json":
        message = "The body is not application/json"
        raise Refused("UK.OBIE.Header.Invalid", message, "content-type", status=415)


def _refusal(scope: MutableMapping[str, Any], refusal: Refusal) -> Reply:
    if isinstance(refusal, Busy | TooManyRequests):
        status = status_of(type(refusal))
        told = _problems(scope, status, "UK.OBIE.UnexpectedError", refusal.advice)
        return told.also(*wait_of(refusal))
    status, code = shapes.refusal_code(refusal)
    reason = refusal.facts.get("reason", "")
    message = f"{refusal.advice} ({refusal.code}{' ' if reason else ''}{reason})"
    return _problems(scope, status, code, message)


def _problems(scope: MutableMapping[str, Any], status: int, code: str, message: str) -> Reply:
    return _told(scope, status, shapes.Problem(code, message[:500]))


def _told(scope: MutableMapping[str, Any], status: int, problem: shapes.Problem) -> Reply:
    request_id = scope["state"]["request_id"]
    told = shapes.Problems(str(status), request_id, "The request was not done", [problem])
    return json_reply(told, status=status)


def _without_type(reply: Reply) -> tuple[tuple[str, str], ...]:
    kept = {"www-authenticate"}
    return tuple((name, value) for name, value in reply.headers if name in kept)
