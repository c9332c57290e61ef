"""The hosted pages of merchants' wallets as an ASGI application, for browsers alone.

A link shows who asks and for what; the button on that page opens it, so that a program which
follows links for a preview uses none up. Pages work without a script; a passkey alone needs one.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import partial
from typing import Any, Final

from tongbao.infra.serving.asgi import Asgi
from tongbao.infra.settings import Settings
from tongbao.kernel.errors import Forbidden, Refusal
from tongbao.parties.consents.model import new_secret
from tongbao.parties.people.dossier import Contributor
from tongbao.parties.user_wallets import applications, sittings
from tongbao.parties.user_wallets.programmes import active_programme
from tongbao.parties.user_wallets.queries import contributor
from tongbao.parties.user_wallets.sittings import Seat, SittingOver
from tongbao.payments.collecting.outcomes import Flow
from tongbao.surfaces.own_consents.pages import consent_pages
from tongbao.surfaces.page_answers import answer, refusal_page, view_at
from tongbao.surfaces.page_kit.rendering import new_nonce
from tongbao.surfaces.page_kit.replies import (
    Receive,
    Reply,
    Send,
    cookie,
    language_cookie,
    redirect,
    send_reply,
)
from tongbao.surfaces.page_kit.requests import LANGUAGES, read_request
from tongbao.surfaces.uk_open_banking.app import KEEPS as OPEN_BANK_KEEPS
from tongbao.surfaces.uk_open_banking.app import open_banks
from tongbao.surfaces.user_wallets import opening, using
from tongbao.surfaces.user_wallets.api import PAGES
from tongbao.surfaces.user_wallets.desk import BROWSER, DEVICE, DEVICE_KEPT_S, Desk, Visit
from tongbao.surfaces.wallet.desk import Desk as PeopleDesk

KEEPS: Final[tuple[Contributor, ...]] = (*OPEN_BANK_KEEPS, contributor())
"""What third parties and merchants are allowed by people, for their export and erasure."""

View = Callable[[Visit], Awaitable[Reply]]
_LINK: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


async def show_link(visit: Visit) -> Reply:
    """Show who sent the person here and for what; nothing happens until they go on.

    Raises:
        SittingOver
    """
    link = visit.request.query.get("link", "")
    seat = await sittings.linked(visit.desk.db, link)
    if seat is None:
        raise SittingOver
    mine = await visit.seat()
    if mine is not None and mine.sitting.id == seat.sitting.id:
        return visit.again()
    if seat.sitting.browser_hash is not None:
        raise SittingOver
    page = await visit.page("begin.html", seat, link=link)
    if visit.cookie(DEVICE):
        return page
    is_https = visit.desk.is_https
    return page.also(cookie(DEVICE, new_secret(), is_https=is_https, max_age_s=DEVICE_KEPT_S))


async def open_link(visit: Visit) -> Reply:
    """Tie the link to this browser and show the first page.

    Raises:
        SittingOver, ProgrammeNotActive
    """
    link, browser = visit.field("link", 64), new_secret()
    if (mine := await visit.seat()) and await sittings.is_of_link(visit.desk.db, mine, link):
        return visit.again()  # the button was pressed twice
    device = visit.cookie(DEVICE) or new_secret()
    async with visit.desk.db.begin("somebody") as tx:
        sitting = await sittings.sit_down(tx, link, browser, device)
        if sitting is None:
            raise SittingOver
        await active_programme(tx, sitting.merchant_id, sitting.mode)
        if sitting.purpose == "open":
            await applications.begin(tx, sitting)
    return visit.again().also(cookie(BROWSER, browser, is_https=visit.desk.is_https))


async def show_step(visit: Visit) -> Reply:
    """Show the page that this browser is at.

    Raises:
        SittingOver, ProgrammeNotActive
    """
    seat = await visit.seat()
    if seat is None:
        raise SittingOver
    sitting = seat.sitting
    await active_programme(visit.desk.db, sitting.merchant_id, sitting.mode)
    return await _step_of(seat)(visit, seat)


VIEWS: Final[Mapping[tuple[str, str], View]] = {
    ("GET", f"{PAGES}/begin"): show_link,
    ("POST", f"{PAGES}/begin"): open_link,
    ("GET", PAGES): show_step,
    ("POST", f"{PAGES}/phone"): opening.take_phone,
    ("POST", f"{PAGES}/code"): opening.take_code,
    ("POST", f"{PAGES}/again"): opening.begin_again,
    ("POST", f"{PAGES}/password"): opening.take_password,
    ("POST", f"{PAGES}/name"): opening.take_name,
    ("POST", f"{PAGES}/open"): opening.open_it,
    ("POST", f"{PAGES}/refuse"): opening.decline,
    ("POST", f"{PAGES}/log_in"): using.log_in,
    ("POST", f"{PAGES}/send"): using.send,
    ("POST", f"{PAGES}/confirm"): using.confirm,
    ("POST", f"{PAGES}/passkey"): using.confirm_by_passkey,
    ("POST", f"{PAGES}/decline"): using.decline,
    ("POST", f"{PAGES}/back"): using.go_back,
    ("POST", f"{PAGES}/revoke"): using.revoke,
    ("POST", f"{PAGES}/close"): using.close,
}


class SentFromElsewhere(Forbidden):
    """The form was sent by a page that is not ours."""

    code = "user_wallets.sent_from_elsewhere"
    advice = "Open the page itself and use its buttons."
    advice_zh = "请直接在本页面操作。"


class WalletPages:
    """An ASGI application to mount at ``/hosted_wallet``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request of a browser."""
        reply = await self._answer(scope)
        await send_reply(reply, receive, send, is_https=self._desk.is_https)

    async def _answer(self, scope: MutableMapping[str, Any]) -> Reply:
        asked = read_request(scope)
        visit = Visit(self._desk, asked, new_nonce(), asked.client_ip)
        if asked.path == f"{PAGES}/language":
            return _set_language(visit)
        return await answer(
            asked,
            self._desk.templates.assets,
            partial(_serve, visit),
            partial(_refused, visit, scope["state"]["request_id"]),
            failure="wallet_page_failed",
        )


def people_pages(settings: Settings, people: PeopleDesk, flow: Flow) -> dict[str, Asgi]:
    """Return the pages and interfaces on which people let others use their accounts.

    Nothing where funds may not be held, for then nobody has accounts.
    """
    if not settings.licence.may_hold_funds:
        return {}
    pages = WalletPages(Desk(people, flow, settings))
    own = consent_pages(settings, people.checks)
    return {**open_banks(settings, people, flow.ledger), **own, PAGES: pages}


def _step_of(seat: Seat) -> Callable[[Visit, Seat], Awaitable[Reply]]:
    return opening.show_step if seat.sitting.purpose == "open" else using.show_step


async def _serve(visit: Visit) -> Reply:
    view = view_at(VIEWS, visit.request, visit.desk.public_url, SentFromElsewhere)
    return await view(visit)


def _set_language(visit: Visit) -> Reply:
    """Keep the chosen language and go on with what is open."""
    chosen = visit.request.query.get("to", "")
    link = visit.request.query.get("link", "")
    reply = redirect(f"{PAGES}/begin?link={link}" if _LINK.fullmatch(link) else PAGES)
    if chosen not in LANGUAGES:
        return reply
    return reply.also(language_cookie(chosen, is_https=visit.desk.is_https))


def _refused(visit: Visit, request_id: str, refusal: Refusal) -> Reply:
    """Return a refusal as a page; it leads nowhere but back to one's own open page."""
    return refusal_page(
        visit.desk.templates, visit.request, refusal, nonce=visit.nonce, request_id=request_id
    )
