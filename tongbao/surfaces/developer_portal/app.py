"""The portal as an ASGI application: mounted beside the API where people may sign up.

    file? ─► served            session? ─no─► login
    route ─► same origin and form token, for what changes something ─► view

A view asks for rows of the developer's own merchant in the sandbox, and of nobody else's.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final, Protocol
from urllib.parse import quote

import structlog
from msgspec.structs import replace

from tongbao.infra.crypto import Keyring, constant_time_equal
from tongbao.infra.db import Db
from tongbao.infra.http import HttpClient
from tongbao.infra.request_log.lines import RequestLog
from tongbao.infra.serving.app import App
from tongbao.infra.settings import Settings
from tongbao.infra.web.problem import InternalError, status_of
from tongbao.infra.webhooks.model import WebhookRules
from tongbao.kernel.errors import Refusal
from tongbao.kernel.licence import Mode
from tongbao.parties.developers.clock import ClockHand
from tongbao.parties.developers.model import DeveloperSessionEnded, Entrance
from tongbao.parties.developers.sessions import session_of
from tongbao.parties.identity.model import CsrfTokenWrong
from tongbao.surfaces.developer_portal import (
    entering,
    keys,
    reading,
    request_log,
    simulator,
    webhooks,
)
from tongbao.surfaces.developer_portal.visit import (
    FORM_TOKEN,
    PREFIX,
    SESSION,
    VISITOR,
    Desk,
    Route,
    Visit,
    new_visitor_token,
)
from tongbao.surfaces.page_answers import nothing_there, refusal_facts, with_allowed
from tongbao.surfaces.page_kit.rendering import new_nonce
from tongbao.surfaces.page_kit.replies import (
    Receive,
    Reply,
    Send,
    cookie_name,
    redirect,
    send_reply,
)
from tongbao.surfaces.page_kit.requests import PageRequest, read_request

log = structlog.get_logger()

ROUTES: Final = (
    Route("GET", "/login", entering.show_login, is_open=True),
    Route("POST", "/login", entering.send_login, is_open=True),
    Route("GET", "/sign_up", entering.show_sign_up, is_open=True),
    Route("POST", "/sign_up", entering.send_sign_up, is_open=True),
    Route("POST", "/sign_up/finish", entering.finish_sign_up, is_open=True),
    Route("GET", "/new_password", entering.show_new_password, is_open=True),
    Route("POST", "/new_password", entering.send_new_password, is_open=True),
    Route("POST", "/new_password/finish", entering.finish_new_password, is_open=True),
    Route("POST", "/language", entering.send_language, is_open=True),
    Route("POST", "/logout", entering.send_logout),
    Route("POST", "/close", entering.send_close),
    Route("GET", "", keys.show_overview),
    Route("GET", "/overview", keys.show_overview),
    Route("GET", "/keys", keys.show_keys),
    Route("POST", "/keys", keys.make_key),
    Route("POST", "/keys/{key_id}/roll", keys.roll_one),
    Route("POST", "/keys/{key_id}/scopes", keys.change_scopes),
    Route("POST", "/keys/{key_id}/revoke", keys.revoke_one),
    Route("GET", "/requests", request_log.show_requests),
    Route("GET", "/requests/{request_id}", request_log.show_request),
    Route("POST", "/requests/{request_id}/replay", request_log.replay_one),
    Route("GET", "/events", webhooks.show_events),
    Route("GET", "/events/{event_id}", webhooks.show_event),
    Route("GET", "/webhooks", webhooks.show_endpoints),
    Route("POST", "/webhooks", webhooks.make_endpoint),
    Route("GET", "/webhooks/{endpoint_id}", webhooks.show_endpoint),
    *(
        Route("POST", f"/webhooks/{{endpoint_id}}/{name}", view)
        for name, view in (
            ("rotate", webhooks.rotate_one),
            ("test", webhooks.send_one_test),
            ("enable", webhooks.enable_one),
            ("disable", webhooks.disable_one),
            ("delete", webhooks.delete_one),
        )
    ),
    Route("POST", "/deliveries/{delivery_id}/replay", webhooks.replay_one),
    Route("GET", "/simulator", simulator.show_simulator),
    Route("POST", "/simulator", simulator.ask_payment),
    Route("POST", "/simulator/happening", simulator.make_happen),
    Route("POST", "/simulator/{payment_id}/{action}", simulator.play_customer),
    Route("GET", "/clock", simulator.show_clock, needs_clock=True),
    Route("POST", "/clock", simulator.advance_clock, needs_clock=True),
    Route("GET", "/docs", reading.show_docs),
    Route("GET", "/docs/{tag}", reading.show_group),
    Route("GET", "/errors", reading.show_errors),
    Route("GET", "/changelog", reading.show_changelog),
)
"""Every page and every act."""


class PortalApp:
    """An ASGI application to mount at ``/portal``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._routes = tuple(each for each in ROUTES if desk.has_clock or not each.needs_clock)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request, refusals included, in the visitor's language."""
        reply = await self._answer(read_request(scope), scope["state"]["request_id"])
        await send_reply(reply, receive, send, is_https=self._desk.is_https)

    async def _answer(self, asked: PageRequest, request_id: str) -> Reply:
        if file := self._desk.templates.assets.find(asked.path):
            return file
        visit = self._visit(asked)
        try:
            asked.check_card_data()
            visit = await self._with_session(visit)
            return await self._admit(visit)
        except Refusal as refusal:
            return _refused(visit, refusal, request_id)
        except Exception:
            log.exception("portal_page_failed")
            return _refused(visit, InternalError(), request_id)

    async def _admit(self, visit: Visit) -> Reply:
        """Let the visitor through to the view, if there is one and it is for them.

        Raises:
            RouteUnknown, MethodNotAllowed, CsrfTokenWrong
        """
        path = visit.request.path.removeprefix(PREFIX).rstrip("/")
        fitting = [
            (each, found) for each in self._routes if (found := each.match(path)) is not None
        ]
        at = [(each, found) for each, found in fitting if each.method == visit.request.method]
        if visit.session is None and not any(each.is_open for each, _ in fitting):
            if visit.request.is_followed_from_elsewhere():
                return visit.page("continue.html", {})
            return _ask_login(visit)
        if not at:
            raise nothing_there(each.method for each, _ in fitting)
        route, params = at[0]
        if visit.session is None and not route.is_open:
            return _ask_login(visit)
        if route.method != "GET":
            self._check_form(visit)
        return await route.view(replace(visit, params=params))

    def _visit(self, asked: PageRequest) -> Visit:
        name = cookie_name(VISITOR, is_https=self._desk.is_https)
        token = asked.cookies.get(name) or new_visitor_token()
        return Visit(self._desk, asked, {}, new_nonce(), form_token=token, source=asked.client_ip)

    async def _with_session(self, visit: Visit) -> Visit:
        """Return the visit with the session its cookie opens, if it opens one."""
        desk = self._desk
        token = visit.request.cookies.get(cookie_name(SESSION, is_https=desk.is_https))
        if not token:
            return visit
        try:
            session = await session_of(desk.db, desk.keyring, token)
        except DeveloperSessionEnded:
            return visit
        return replace(visit, session=session, form_token=session.csrf_token)

    def _check_form(self, visit: Visit) -> None:
        """Raise unless what was sent comes from a form of ours, made for this visitor.

        Raises:
            CsrfTokenWrong
        """
        given = visit.request.form.get(FORM_TOKEN, "")
        if not visit.request.is_same_origin(self._desk.public_url):
            raise CsrfTokenWrong
        if visit.session is not None:
            visit.session.check_csrf(given)
            return
        kept = visit.request.cookies.get(cookie_name(VISITOR, is_https=self._desk.is_https), "")
        if not kept or not constant_time_equal(kept.encode(), given.encode()):
            raise CsrfTokenWrong


class Behind(Protocol):
    """What a process has that the portal works with; wiring's platform is one."""

    settings: Settings
    db: Db
    keyring: Keyring
    http: HttpClient
    request_log: RequestLog
    webhook_rules: WebhookRules


def with_portal(app: App, behind: Behind) -> App:
    """Return the application, with the portal where people may sign up and there is a sandbox.

    Codes go by the deployment's real gateway where it has one, and else by the sandbox's, whose
    panel shows them.
    """
    settings = behind.settings
    if not settings.sandbox_sign_up or settings.sandbox_url is None:
        return app
    mail_mode = Mode.LIVE if settings.message_gateway_url else Mode.SANDBOX
    desk = Desk(
        entrance=Entrance(behind.db, behind.keyring, settings.password_policy, mail_mode),
        public_url=settings.public_url.rstrip("/"),
        sandbox_url=settings.sandbox_url.rstrip("/"),
        licence=settings.licence,
        api=app,
        document=lambda: app.document,
        request_log=behind.request_log,
        webhook_rules=behind.webhook_rules,
        http=behind.http,
        has_clock=settings.test_clock,
        clock_hand=ClockHand(behind.db, settings.test_clock_shared),
    )
    app.mount(PREFIX, PortalApp(desk))
    return app


def _ask_login(visit: Visit) -> Reply:
    """Send a visitor without a session to the form, and back here afterwards."""
    to, wanted = f"{PREFIX}/login", visit.address
    if visit.request.method != "GET" or wanted.rstrip("/") == PREFIX:
        return redirect(to)
    return redirect(f"{to}?next={quote(wanted, safe='')}")


def _refused(visit: Visit, refusal: Refusal, request_id: str) -> Reply:
    """Return the refusal as a page."""
    facts = refusal_facts(visit.request, refusal, request_id)
    reply = visit.page("refused.html", facts, status=status_of(type(refusal)))
    return with_allowed(reply.told_to_wait(refusal), refusal)
