"""The open bank as ASGI applications: OAuth with its pages, its metadata, and the resources."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import partial
from typing import Any, Final

from tongbao.infra.serving.asgi import Asgi
from tongbao.infra.settings import Settings
from tongbao.infra.web.interface_numbers import API_ID_HEADER, Area, Level
from tongbao.infra.web.problem import (
    MethodNotAllowed,
    RouteUnknown,
    status_of,
)
from tongbao.kernel.errors import Forbidden, Refusal
from tongbao.ledger.book import Ledger
from tongbao.parties.consents.dossier import contributor
from tongbao.parties.consents.holdings import holdings_of
from tongbao.parties.partners.model import Kind
from tongbao.parties.people.dossier import Contributor
from tongbao.surfaces.open_bank import endpoints, pages, resources
from tongbao.surfaces.open_bank.desk import PAGES, Desk
from tongbao.surfaces.open_bank.endpoints import AUTHORIZE
from tongbao.surfaces.open_bank.interfaces import (
    ByAnybody,
    ByConsent,
    ByPartner,
    Interface,
    Problem,
    describe,
    interface_at,
)
from tongbao.surfaces.open_bank.pages import Visit
from tongbao.surfaces.open_bank.protocol import (
    Asked,
    OAuthError,
    asked_of,
    json_reply,
    wait_of,
    with_nonce,
)
from tongbao.surfaces.page_answers import answer, refusal_page, view_at
from tongbao.surfaces.page_kit.rendering import new_nonce
from tongbao.surfaces.page_kit.replies import (
    Receive,
    Reply,
    Send,
    language_cookie,
    redirect,
    send_reply,
)
from tongbao.surfaces.page_kit.requests import LANGUAGES, read_request
from tongbao.surfaces.wallet.desk import Desk as PeopleDesk

KEEPS: Final[tuple[Contributor, ...]] = (contributor(),)
"""What the open bank keeps of people, for their export and erasure."""

View = Callable[[Visit], Awaitable[Reply]]

VIEWS: Final[Mapping[tuple[str, str], View]] = {
    ("GET", AUTHORIZE): pages.open_page,
    ("POST", f"{AUTHORIZE}/log_in"): pages.log_in,
    ("POST", f"{AUTHORIZE}/choose"): pages.choose,
    ("POST", f"{AUTHORIZE}/confirm"): pages.confirm,
    ("POST", f"{AUTHORIZE}/passkey"): pages.confirm_by_passkey,
    ("POST", f"{AUTHORIZE}/reject"): pages.reject,
}


DOCUMENT: Final = f"{resources.PREFIX}/openapi.json"
_PROVED: Final = ("client_id", "client_assertion_type", "client_assertion")
_PUSHED: Final = (
    *("response_type", "redirect_uri", "code_challenge", "code_challenge_method", "state"),
    *("authorization_details", "scope", "dpop_jkt", "response_mode", "request"),
)
_EXCHANGED: Final = (
    "grant_type",
    "scope",
    "code",
    "redirect_uri",
    "code_verifier",
    "refresh_token",
)
_PAGED: Final = {"cursor": {"type": "string"}, "limit": {"type": "integer", "minimum": 1}}
_AT: Final = f"{resources.PREFIX}/accounts"
_SEEING: Final = Kind.ACCOUNT_INFORMATION
_PAYING: Final = Kind.PAYMENT_INITIATION


async def show_document(desk: Desk, _asked: Asked) -> Reply:
    """Return the OpenAPI document of these interfaces."""
    return json_reply(describe(INTERFACES, desk.issuer, desk.bank_code))


INTERFACES: Final[tuple[Interface, ...]] = (
    Interface(
        *("GET", endpoints.METADATA, Level.A1, Area.ENTRANCE, 1),
        ByAnybody(endpoints.show_metadata),
    ),
    Interface(
        *("GET", endpoints.JWKS, Level.A1, Area.ENTRANCE, 2),
        ByAnybody(endpoints.show_keys),
        endpoints.Keys,
    ),
    Interface(
        *("GET", DOCUMENT, Level.A1, Area.ENTRANCE, 3),
        ByAnybody(show_document),
    ),
    Interface(
        *("POST", endpoints.PUSH, Level.A2, Area.ENTRANCE, 4),
        ByPartner(endpoints.push),
        endpoints.PushedRequest,
        status=201,
        form=(*_PROVED, *_PUSHED),
    ),
    Interface(
        *("POST", endpoints.TOKEN, Level.A2, Area.ENTRANCE, 5),
        ByPartner(endpoints.exchange),
        endpoints.Tokens,
        form=(*_PROVED, *_EXCHANGED),
    ),
    Interface(
        *("POST", endpoints.REVOKE, Level.A2, Area.ENTRANCE, 6),
        ByPartner(endpoints.revoke),
        endpoints.Ended,
        form=(*_PROVED, "token"),
    ),
    Interface(
        *("POST", endpoints.INTROSPECT, Level.A2, Area.ENTRANCE, 8),
        ByPartner(endpoints.introspect),
        endpoints.TokenState,
        form=(*_PROVED, "token"),
    ),
    Interface(
        *("GET", f"{resources.PREFIX}/consent", Level.A2, Area.ENTRANCE, 7),
        ByConsent(resources.show_consent),
        resources.OpenConsent,
    ),
    Interface(
        *("GET", _AT, Level.A2, Area.ACCOUNTS, 1),
        ByConsent(resources.list_accounts, _SEEING, "accounts"),
        resources.OpenAccounts,
    ),
    Interface(
        *("GET", f"{_AT}/{{account}}", Level.A2, Area.ACCOUNTS, 2),
        ByConsent(resources.show_account, _SEEING, "accounts"),
        resources.OpenAccount,
    ),
    Interface(
        *("GET", f"{_AT}/{{account}}/balance", Level.A2, Area.ACCOUNTS, 3),
        ByConsent(resources.show_balance, _SEEING, "balances"),
        resources.OpenBalance,
    ),
    Interface(
        *("GET", f"{_AT}/{{account}}/transactions", Level.A2, Area.ACCOUNTS, 4),
        ByConsent(resources.list_transactions, _SEEING, "transactions"),
        resources.OpenTransactions,
        query=_PAGED,
    ),
    Interface(
        *("POST", f"{resources.PREFIX}/funds_confirmations", Level.A2, Area.FUNDS, 1),
        ByConsent(resources.confirm_funds, Kind.FUNDS_CONFIRMATION),
        resources.FundsAnswer,
        takes=resources.AskFunds,
    ),
    Interface(
        *("POST", f"{resources.PREFIX}/payments", Level.A2, Area.PAYMENTS, 1),
        ByConsent(resources.make_payment, _PAYING),
        resources.OpenPayment,
        status=201,
    ),
    Interface(
        *("GET", f"{resources.PREFIX}/payments", Level.A2, Area.PAYMENTS, 2),
        ByConsent(resources.show_payment, _PAYING),
        resources.OpenPayments,
    ),
)
"""Every address that programs may call, with its level and its proof."""


class SentFromElsewhere(Forbidden):
    """The form was sent by a page that is not ours."""

    code = "open_bank.sent_from_elsewhere"
    advice = "Open the page itself and use its buttons."
    advice_zh = "请直接在授权页面操作。"


class OpenBank:
    """An ASGI application to mount at ``/oauth``, ``/open_bank`` and the metadata's address."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def mounts(self) -> dict[str, Asgi]:
        """Where it is to be mounted."""
        return {PAGES: self, resources.PREFIX: self, endpoints.METADATA: self}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request, of a program or of a browser."""
        path = scope["path"]
        is_page = path == AUTHORIZE or path.startswith((f"{AUTHORIZE}/", f"{PAGES}/static/"))
        if is_page or path == f"{PAGES}/language":
            reply = await self._page(scope)
        else:
            reply = await self._program(scope)
        await send_reply(reply, receive, send, is_https=self._desk.is_https)

    async def _program(self, scope: MutableMapping[str, Any]) -> Reply:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        interface, params = interface_at(INTERFACES, method, scope["path"])
        try:
            forms = not scope["path"].startswith(f"{resources.PREFIX}/")
            asked = asked_of(scope, method, only_forms=forms)
            reply = await interface.serve(self._desk, asked, params)
        except OAuthError as error:
            reply = error.reply()
        except (MethodNotAllowed, RouteUnknown):
            raise  # the house's own answers
        except Refusal as refusal:
            told = Problem(
                error=refusal.code, error_description=refusal.advice, facts=refusal.facts
            )
            reply = json_reply(told, status=status_of(type(refusal))).also(*wait_of(refusal))
        reply = with_nonce(self._desk, reply)
        return reply.also((API_ID_HEADER, interface.api_id(self._desk.bank_code)))

    async def _page(self, scope: MutableMapping[str, Any]) -> Reply:
        asked = read_request(scope)
        visit = Visit(self._desk, asked, new_nonce(), asked.client_ip)
        if asked.path == f"{PAGES}/language":
            return _set_language(visit)
        return await answer(
            asked,
            self._desk.templates.assets,
            partial(_serve, visit),
            partial(_refused, visit, scope["state"]["request_id"]),
            failure="open_bank_page_failed",
        )


def open_bank(settings: Settings, people: PeopleDesk, ledger: Ledger) -> dict[str, Asgi]:
    """Return what is mounted: nothing where funds may not be held, for then nobody has accounts."""
    if not settings.licence.may_hold_funds:
        return {}
    desk = Desk(people.checks, ledger, holdings_of(people.db), settings)
    return OpenBank(desk).mounts


async def _serve(visit: Visit) -> Reply:
    view = view_at(VIEWS, visit.request, visit.desk.issuer, SentFromElsewhere)
    return await view(visit)


def _set_language(visit: Visit) -> Reply:
    """Keep the chosen language and go on with what is open."""
    chosen = visit.request.query.get("to", "")
    reply = redirect(AUTHORIZE)
    if chosen not in LANGUAGES:
        return reply
    return reply.also(language_cookie(chosen, is_https=visit.desk.is_https))


def _refused(visit: Visit, request_id: str, refusal: Refusal) -> Reply:
    """Return a refusal as a page; it leads nowhere but back to one's own open request."""
    return refusal_page(
        visit.desk.templates, visit.request, refusal, nonce=visit.nonce, request_id=request_id
    )
