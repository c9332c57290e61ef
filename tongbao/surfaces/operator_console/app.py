"""The console as an ASGI application: mounted beside the API, with rights of its own.

    file? ─► served            session? ─no─► login
    route ─► permission ─► same origin and form token, for what changes something ─► view

Whatever is not in the table of routes needs a session even to be told that it is not there.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, Final

import structlog
from msgspec.structs import replace

from tongbao.controls.approvals.model import Approvals
from tongbao.infra.crypto import Keyring, constant_time_equal
from tongbao.infra.web.problem import InternalError, status_of
from tongbao.kernel.errors import Refusal
from tongbao.parties.identity.factors import SecondFactor
from tongbao.parties.identity.model import CsrfTokenWrong, Permission, SessionEnded
from tongbao.parties.identity.sessions import Session, session_of
from tongbao.payments.collecting.outcomes import Flow
from tongbao.surfaces.operator_console import (
    actions,
    agreements,
    books,
    clearing,
    payments,
    timeline,
)
from tongbao.surfaces.operator_console.visit import (
    FORM_TOKEN,
    PREFIX,
    SESSION,
    START,
    VISITOR,
    Desk,
    Route,
    Visit,
    ask_login,
    new_visitor_token,
    send_language,
    send_login,
    send_logout,
    show_login,
)
from tongbao.surfaces.page_answers import nothing_there, refusal_facts, with_allowed
from tongbao.surfaces.page_kit.rendering import new_nonce
from tongbao.surfaces.page_kit.replies import (
    Receive,
    Reply,
    Send,
    cookie_name,
    leave_for,
    page_reply,
    redirect,
    send_reply,
)
from tongbao.surfaces.page_kit.requests import PageRequest, read_request

log = structlog.get_logger()

_VIEW: Final = Permission.VIEW
_ACT: Final = Permission.PAYMENTS_ACT
_BREAKS: Final = Permission.BREAKS_ACT
_SETTLE: Final = Permission.SETTLEMENT_ACT


async def show_start(_visit: Visit) -> Reply:
    """Send whoever asks for the console as such to its first page."""
    return redirect(START)


ROUTES: Final = (
    Route("GET", "/login", show_login, None),
    Route("POST", "/login", send_login, None),
    Route("POST", "/language", send_language, None),
    Route("POST", "/logout", send_logout, _VIEW),
    Route("GET", "", show_start, _VIEW),
    Route("GET", "/payments", payments.show_payments, _VIEW),
    Route("GET", "/payments/live", payments.show_live_payments, _VIEW, is_poll=True),
    Route("GET", "/payments.csv", payments.export_payments, _VIEW),
    Route("GET", "/payments/{payment_id}", timeline.show_payment, _VIEW),
    Route("GET", "/payments/{payment_id}/live", timeline.show_live_payment, _VIEW, is_poll=True),
    Route("GET", "/payments/{payment_id}/raw.json", timeline.show_raw_payment, _VIEW),
    Route("POST", "/payments/{payment_id}/ask", actions.ask_about_payment, _ACT),
    Route("POST", "/payments/{payment_id}/close", actions.close_one_payment, _ACT),
    Route(
        "POST",
        "/payments/{payment_id}/deliveries/{delivery_id}/replay",
        actions.send_webhook_again,
        _ACT,
    ),
    Route("POST", "/refunds/{refund_id}/ask", actions.ask_about_refund, _ACT),
    Route("GET", "/agreements", agreements.show_agreements, _VIEW),
    Route("GET", "/agreements.csv", agreements.export_agreements, _VIEW),
    Route("GET", "/agreements/{agreement_id}", agreements.show_agreement, _VIEW),
    Route("POST", "/agreements/{agreement_id}/ask", agreements.ask_about_agreement, _ACT),
    Route("GET", "/cases", actions.show_cases, _VIEW),
    Route("POST", "/cases/{case_id}/close", actions.close_one_case, _ACT),
    Route("GET", "/reconciliation", clearing.show_reconciliation, _VIEW),
    Route("GET", "/reconciliation/{account_id}/{day}", clearing.show_day, _VIEW),
    Route("GET", "/reconciliation/{account_id}/{day}/breaks.csv", clearing.export_day, _VIEW),
    Route("POST", "/reconciliation/{account_id}/{day}/again", clearing.compare_day_again, _BREAKS),
    Route("GET", "/settlements", clearing.show_settlements, _VIEW, is_licensed=True),
    Route("GET", "/settlements/{settlement_id}", clearing.show_settlement, _VIEW, is_licensed=True),
    Route("POST", "/settlements/settle", clearing.settle_again, _SETTLE, is_licensed=True),
    Route("GET", "/ledger", books.show_ledger, _VIEW),
    Route("POST", "/ledger/verify", books.verify_ledger, _VIEW),
    Route("GET", "/ledger/{book}/days", books.show_days, _VIEW),
    Route("POST", "/ledger/{book}/days", books.ask_day_action, _SETTLE),
    Route("GET", "/ledger/{book}/days/{day}", books.show_accounting_day, _VIEW),
    Route("GET", "/ledger/{book}/days/{day}/trial-balance.csv", books.export_trial_balance, _VIEW),
    Route("GET", "/ledger/{book}/days/{day}/vouchers.csv", books.export_vouchers, _VIEW),
    Route("GET", "/ledger/{book}/days/{day}/vouchers/{batch}", books.show_voucher, _VIEW),
    *(
        Route("POST", f"/ledger/{{book}}/day-requests/{{request_id}}/{name}", view, _SETTLE)
        for name, view in (
            ("approve", books.approve_day_request),
            ("reject", books.reject_day_request),
            ("withdraw", books.withdraw_day_request),
        )
    ),
    Route("GET", "/channels", actions.show_channels, _VIEW),
    *(
        Route("POST", f"/channels/rules/{{rule_set_id}}/{name}", view, Permission.DEPLOYMENT_ACT)
        for name, view in (
            ("activate", actions.activate_rules),
            ("shadow", actions.shadow_rules),
            ("withdraw", actions.withdraw_rules),
        )
    ),
    Route("GET", "/notices", actions.show_notices, _VIEW),
    Route("GET", "/health", actions.show_health, _VIEW),
    Route(
        "POST",
        "/dead-letters/{task_id}/replay",
        actions.replay_dead_letter,
        Permission.DEPLOYMENT_ACT,
    ),
)
"""Every page and every act. One without a permission is open to anybody."""


class ConsoleApp:
    """An ASGI application to mount at ``/console``."""

    def __init__(
        self,
        flow: Flow,
        keyring: Keyring,
        public_url: str,
        more: Sequence[Route] = (),
        *,
        approvals: Approvals | None = None,
        second_factor: SecondFactor = "any",
    ) -> None:
        """Build it with the pages here and those of other rooms, ``more``, that wiring hands in."""
        self._desk = Desk(
            flow,
            keyring,
            public_url,
            approvals or Approvals(flow.db, {}),
            second_factor=second_factor,
        )
        self._routes = routes(may_hold_funds=flow.licence.may_hold_funds, more=more)

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
            route, params = _route_of(asked, self._routes)
            visit = await self._with_session(visit, route)
            return await self._admit(replace(visit, params=params), route)
        except Refusal as refusal:
            return _refused(visit, refusal, request_id)
        except Exception:
            log.exception("console_page_failed", path=asked.path)
            return _refused(visit, InternalError(), request_id)

    async def _admit(self, visit: Visit, route: Route | None) -> Reply:
        """Let the visitor through to the view, if there is one and it is for them.

        Raises:
            RouteUnknown, MethodNotAllowed, PermissionMissing, CsrfTokenWrong
        """
        if visit.session is None and (route is None or route.permission is not None):
            if visit.request.is_followed_from_elsewhere():
                return visit.part("continue.html", {})
            return ask_login(visit)
        if route is None:
            raise _nowhere(visit.request, self._routes)
        if visit.session is not None and route.permission is not None:
            visit.session.operator.check_may(route.permission)
        if route.method != "GET":
            self._check_form(visit)
        return await route.view(visit)

    def _visit(self, asked: PageRequest) -> Visit:
        name = cookie_name(VISITOR, is_https=self._desk.is_https)
        token = asked.cookies.get(name) or new_visitor_token()
        return Visit(self._desk, asked, params={}, nonce=new_nonce(), form_token=token)

    async def _with_session(self, visit: Visit, route: Route | None) -> Visit:
        """Return the visit with the session its cookie opens, if it opens one."""
        asked = visit.request
        token = asked.cookies.get(cookie_name(SESSION, is_https=self._desk.is_https))
        if not token:
            return visit
        is_use = route is None or not (route.is_poll and asked.is_by_script)
        try:
            session: Session = await session_of(
                self._desk.db, self._desk.keyring, token, is_use=is_use
            )
        except SessionEnded:
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
        name = cookie_name(VISITOR, is_https=self._desk.is_https)
        kept = visit.request.cookies.get(name, "")
        if not kept or not constant_time_equal(kept.encode(), given.encode()):
            raise CsrfTokenWrong


def routes(*, may_hold_funds: bool, more: Sequence[Route] = ()) -> tuple[Route, ...]:
    """Return the routes a deployment has; what a firm may not do has none."""
    return tuple(route for route in (*ROUTES, *more) if may_hold_funds or not route.is_licensed)


def _nowhere(asked: PageRequest, served: Sequence[Route]) -> Refusal:
    path = asked.path.removeprefix(PREFIX).rstrip("/")
    fitting = (each for each in served if each.match(path) is not None)
    return nothing_there(each.method for each in fitting)


def _route_of(
    asked: PageRequest, served: Sequence[Route]
) -> tuple[Route | None, Mapping[str, str]]:
    """Return the first route that fits; a fixed address stands before one with names in it."""
    path = asked.path.removeprefix(PREFIX).rstrip("/")
    for route in served:
        if route.method == asked.method and (params := route.match(path)) is not None:
            return route, params
    return None, {}


def _refused(visit: Visit, refusal: Refusal, request_id: str) -> Reply:
    """Return the refusal as a page, or empty where a script asked for a part of one."""
    status = status_of(type(refusal))
    if visit.request.is_for_whole_page:
        return leave_for(visit.address, status=status)
    if visit.request.is_by_script:
        return page_reply("", status=status)
    facts = refusal_facts(visit.request, refusal, request_id)
    reply = visit.part("refused.html", facts, status=status).told_to_wait(refusal)
    return with_allowed(reply, refusal)
