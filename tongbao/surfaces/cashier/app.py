"""The cashier as an ASGI application: mounted beside the API, open to who knows an address.

An address has 128 random bits, and knowing it lets one pay, and see an amount and a payee, no more.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from functools import partial
from typing import Any, Final
from urllib.parse import quote

from msgspec.structs import replace

from tongbao.infra.crypto import Keyring
from tongbao.infra.web.problem import InternalError, status_of
from tongbao.kernel.errors import Busy, Forbidden, NotFound, Refusal
from tongbao.payments.checkouts.model import PREFIX
from tongbao.payments.collecting.outcomes import Flow
from tongbao.surfaces.cashier import checkouts, combined, payers, plates
from tongbao.surfaces.cashier.desk import Desk, Route, Visit
from tongbao.surfaces.page_answers import (
    answer,
    nothing_there,
    refusal_facts,
    with_allowed,
)
from tongbao.surfaces.page_kit.rendering import new_nonce
from tongbao.surfaces.page_kit.replies import (
    Receive,
    Reply,
    Send,
    language_cookie,
    redirect,
    send_reply,
)
from tongbao.surfaces.page_kit.requests import LANGUAGES, PageRequest, read_request


class SentFromElsewhere(Forbidden):
    """The form was sent by a page that is not ours."""

    code = "cashier.sent_from_elsewhere"
    advice = "Open the payment page itself and use its buttons."
    advice_zh = "请直接打开支付页面操作。"


async def set_language(visit: Visit) -> Reply:
    """Keep the chosen language and show the page the visitor was on."""
    chosen, back = visit.request.query.get("to", ""), visit.request.query.get("next", "")
    is_ours = back.startswith(f"{PREFIX}/") and back.isascii() and back.isprintable()
    reply = redirect(back if is_ours and "\\" not in back else f"{PREFIX}/")
    if chosen not in LANGUAGES:
        return reply
    return reply.also(language_cookie(chosen, is_https=visit.desk.is_https))


async def come_back_by_form(visit: Visit) -> Reply:
    """Show the checkout to a customer whom a channel's page sent back with a form.

    UnionPay's does (its ``frontUrl``). Nothing the form says is read: it is no evidence.
    """
    return redirect(f"{PREFIX}/c/{quote(visit.params['token'], safe='')}")


ROUTES: Final = (
    Route("GET", "/language", set_language),
    Route("GET", "/c/{token}", checkouts.show_checkout),
    Route("POST", "/c/{token}", come_back_by_form),
    Route("GET", "/c/{token}/state", checkouts.tell_state),
    Route("GET", "/c/{token}/go", checkouts.leave),
    Route("GET", "/c/{token}/who", payers.go_and_ask),
    Route("GET", "/c/{token}/known", payers.come_back),
    Route("POST", "/c/{token}/method", checkouts.choose_method),
    Route("POST", "/c/{token}/other", checkouts.choose_another),
    Route("POST", "/c/{token}/check", checkouts.check_now),
    Route("GET", "/m/{token}", combined.show_combined),
    Route("GET", "/m/{token}/state", combined.tell_combined),
    Route("POST", "/m/{token}/check", combined.check_combined),
    Route("POST", "/m/{token}/method", combined.choose_way),
    Route("GET", "/p/{token}", plates.show_plate),
    Route("POST", "/p/{token}", plates.begin_at_plate),
    Route("GET", "/p/{token}/code.svg", plates.draw_plate),
)


class CashierApp:
    """An ASGI application to mount at ``/pay``."""

    def __init__(self, flow: Flow, keyring: Keyring, public_url: str) -> None:
        self._desk = Desk(flow, keyring, public_url)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request, refusals included, in the customer's language."""
        asked = read_request(scope)
        visit = Visit(self._desk, asked, {}, new_nonce(), asked.client_ip)
        reply = await answer(
            asked,
            self._desk.templates.assets,
            partial(self._serve, visit),
            partial(_refused, visit, scope["state"]["request_id"]),
            failure="cashier_page_failed",
        )
        await send_reply(reply, receive, send, is_https=self._desk.is_https)

    async def _serve(self, visit: Visit) -> Reply:
        route, params = _route_of(visit.request)
        if route.view is not come_back_by_form:  # which comes from elsewhere, and does nothing
            self._check_origin(visit.request)
        return await route.view(replace(visit, params=params))

    def _check_origin(self, asked: PageRequest) -> None:
        """Raise unless a form comes from a page of ours.

        Raises:
            SentFromElsewhere
        """
        if asked.method != "GET" and not asked.is_same_origin(self._desk.public_url):
            raise SentFromElsewhere


def _route_of(asked: PageRequest) -> tuple[Route, Mapping[str, str]]:
    """Return the route that fits.

    Raises:
        RouteUnknown, MethodNotAllowed
    """
    path = asked.path.removeprefix(PREFIX)
    fitting = [(route, found) for route in ROUTES if (found := route.match(path)) is not None]
    for route, params in fitting:
        if route.method == asked.method:
            return route, params
    raise nothing_there(route.method for route, _ in fitting)


def _told(visit: Visit, refusal: Refusal) -> str:
    """Return what a customer can do: a refusal's own advice is for whoever wrote the program."""
    texts = visit.desk.templates.texts[visit.request.language]
    said = texts.named("told", refusal.code)
    if said != refusal.code:
        return said
    if isinstance(refusal, NotFound):
        return texts("told.gone")
    return texts("told.later") if isinstance(refusal, Busy) else texts("told.other")


def _refused(visit: Visit, request_id: str, refusal: Refusal) -> Reply:
    """Return a refusal as a page that says what it means for the customer's money."""
    parts = visit.request.path.removeprefix(PREFIX).strip("/").split("/")
    own = (
        f"{PREFIX}/{parts[0]}/{parts[1]}"
        if len(parts) > 1 and parts[0] in {"c", "m", "p"}
        else None
    )
    facts = {
        **refusal_facts(visit.request, refusal, request_id),
        "advice": _told(visit, refusal),
        "is_gone": isinstance(refusal, NotFound),
        "is_open_question": isinstance(refusal, InternalError | Busy),
        "back": own if visit.request.method == "POST" else None,
        "mode": None,
    }
    status = status_of(type(refusal))
    return with_allowed(visit.page("refused.html", facts, status=status), refusal)
