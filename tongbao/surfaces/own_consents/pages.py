"""Pages on which a person sees everybody whom they let see or do something, and ends one.

    log in ──► code ──► the list ──► one of them ──► ended, and its tokens with it

They work without a script. What is shown is asked of its domains at that moment; an end takes
effect with the next request of whoever had it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from tongbao.infra.serving.asgi import Asgi
from tongbao.infra.settings import Settings
from tongbao.infra.web.problem import TooManyRequests, status_of
from tongbao.kernel.errors import Forbidden, Refusal
from tongbao.kernel.ids import UnknownId, parse
from tongbao.kernel.licence import Mode
from tongbao.parties.authentication.model import CodeWrong
from tongbao.parties.authentication.step_up import Checks
from tongbao.parties.consent_visits.visits import (
    ConsentVisit,
    VisitOver,
    begin_visit,
    end_visit,
    prove_visit,
    visit_of,
)
from tongbao.parties.consents.consents import consents_of_person, good_consents_of, revoke_own
from tongbao.parties.consents.model import PREFIX as CONSENT
from tongbao.parties.consents.model import Consent, ConsentNotFound, new_secret
from tongbao.parties.merchants.queries import merchant_with_id
from tongbao.parties.partners.partners import partner_with_id
from tongbao.parties.people.contacts import contacts_of
from tongbao.parties.people.dossier import person_with_id
from tongbao.parties.people.model import Person
from tongbao.parties.user_wallets.applications import revoke_own as leave_own
from tongbao.parties.user_wallets.model import PREFIX as WALLET
from tongbao.parties.user_wallets.model import ApplicationNotFound, State, WalletApplication
from tongbao.parties.user_wallets.queries import applications_of_person
from tongbao.surfaces.cashier.desk import Throttle
from tongbao.surfaces.page_answers import answer, refusal_facts, view_at
from tongbao.surfaces.page_kit.rendering import new_nonce, templates_of
from tongbao.surfaces.page_kit.replies import (
    Receive,
    Reply,
    Send,
    cookie,
    cookie_name,
    language_cookie,
    page_policy,
    page_reply,
    redirect,
    send_reply,
)
from tongbao.surfaces.page_kit.requests import LANGUAGES, PageRequest, read_request

PAGES: Final = "/my_consents"
_BROWSER: Final = "tongbao_my_consents"
_ROWS_MAX: Final = 200
_ENDED_MAX: Final = 20
_TRIES_PER_MINUTE: Final = 60


class SentFromElsewhere(Forbidden):
    """The form was sent by a page that is not ours."""

    code = "own_consents.sent_from_elsewhere"
    advice = "Open the page itself and use its buttons."
    advice_zh = "请直接在本页面操作。"


class Held(Struct, frozen=True):
    """What somebody has let a partner or a merchant see or do, as the page shows it."""

    id: str
    name: str
    is_merchant: bool
    kind: str
    permissions: Sequence[str]
    amount: int | None
    amount_a_day: int | None
    currency: str | None
    payee: str | None
    since: datetime
    until: datetime | None
    used: datetime | date | None
    status: str
    ended_at: datetime | None


class Desk:
    """How people prove themselves here, and what the pages are made of."""

    def __init__(self, checks: Checks, settings: Settings) -> None:
        self.checks = checks
        self.db = checks.db
        self.public_url = settings.public_url.rstrip("/")
        self.is_https = self.public_url.startswith("https://")
        self.tries_from = Throttle(_TRIES_PER_MINUTE, 60.0)
        self.templates = templates_of(PAGES, Path(__file__).parent)


class Visit(Struct, frozen=True):
    """One request of a browser."""

    desk: Desk
    request: PageRequest
    nonce: str
    source: str

    @property
    def mode(self) -> Mode:
        """Which people are meant: real ones, unless the address says otherwise."""
        asked = self.request.form.get("mode") or self.request.query.get("mode")
        return Mode.SANDBOX if asked == Mode.SANDBOX.value else Mode.LIVE

    async def known(self) -> ConsentVisit | None:
        """Return the visit of this browser, proved or not."""
        name = cookie_name(_BROWSER, is_https=self.desk.is_https)
        return await visit_of(self.desk.db, self.request.cookies.get(name, ""))

    async def person(self) -> Person:
        """Return who sits here and has proved it twice.

        Raises:
            VisitOver
        """
        known = await self.known()
        if known is None or known.proved_at is None:
            raise VisitOver
        person = await person_with_id(self.desk.db, known.person_id)
        if person.state != "active":
            raise VisitOver
        return person

    def page(self, template: str, mode: Mode, *, status: int = 200, **facts: Any) -> Reply:
        """Return a page; its forms end here and nowhere else."""
        html = self.desk.templates.render(
            template, self.request.language, nonce=self.nonce, mode=mode, **facts
        )
        policy = page_policy(self.nonce, trusted_types="'none'")
        return page_reply(html, status=status).also(policy, ("cache-control", "no-store"))


async def show(visit: Visit) -> Reply:
    """Show the page that this browser is at: log in, the code, or the list."""
    known, db = await visit.known(), visit.desk.db
    if known is None:
        return visit.page("log_in.html", visit.mode, wrong=False)
    if known.proved_at is None:
        return await _code_page(visit, known)
    person = await visit.person()
    held, ended = await held_by(db, person)
    return visit.page(
        *("list.html", person.mode),
        held=held,
        ended=ended,
        done=visit.request.query.get("done"),
    )


async def log_in(visit: Visit) -> Reply:
    """Take address and password and send a code; whatever is wrong, the answer is the same.

    Raises:
        TooManyRequests, LoginsTooMany, CodesTooMany
    """
    desk, form, browser = visit.desk, visit.request.form, new_secret()
    if not desk.tries_from.lets_through(visit.source):
        raise TooManyRequests
    claimed = form.get("contact", "")[:254], form.get("password", "")[:512]
    person = await begin_visit(desk.checks, visit.mode, claimed, browser, source=visit.source)
    if person is None:
        return visit.page("log_in.html", visit.mode, wrong=True, status=422)
    return redirect(PAGES).also(cookie(_BROWSER, browser, is_https=desk.is_https))


async def take_code(visit: Visit) -> Reply:
    """Take the code that was sent.

    Raises:
        VisitOver
    """
    known = await visit.known()
    if known is None:
        raise VisitOver
    code = visit.request.form.get("code", "").strip()[:16]
    try:
        await prove_visit(visit.desk.checks, known, code)
    except CodeWrong:
        return await _code_page(visit, known, wrong=True)
    return redirect(PAGES)


async def show_one(visit: Visit) -> Reply:
    """Show one of them whole, and the button that ends it.

    Raises:
        VisitOver, ConsentNotFound
    """
    person = await visit.person()
    wanted = visit.request.query.get("id", "")
    held, _ = await held_by(visit.desk.db, person)
    found = next((each for each in held if each.id == wanted), None)
    if found is None:
        raise ConsentNotFound
    return visit.page("one.html", person.mode, each=found)


async def revoke(visit: Visit) -> Reply:
    """End one of them and every token on it; ending it again changes nothing.

    Raises:
        VisitOver, ConsentNotFound, ConsentEnded
    """
    person, wanted = await visit.person(), visit.request.form.get("id", "")[:64]
    is_wallet = wanted.startswith(f"{WALLET}_")
    try:
        found = parse(WALLET if is_wallet else CONSENT, wanted)
        async with visit.desk.db.begin(person.actor) as tx:
            await (leave_own if is_wallet else revoke_own)(tx, person, found)
    except (UnknownId, ApplicationNotFound):
        raise ConsentNotFound from None
    return redirect(f"{PAGES}?done=ended")


async def log_out(visit: Visit) -> Reply:
    """End the visit."""
    if known := await visit.known():
        await end_visit(visit.desk.db, known)
    gone = cookie(_BROWSER, "", is_https=visit.desk.is_https, max_age_s=0)
    return redirect(PAGES).also(gone)


View = Callable[[Visit], Awaitable[Reply]]
VIEWS: Final[Mapping[tuple[str, str], View]] = {
    ("GET", PAGES): show,
    ("POST", f"{PAGES}/log_in"): log_in,
    ("POST", f"{PAGES}/code"): take_code,
    ("GET", f"{PAGES}/one"): show_one,
    ("POST", f"{PAGES}/revoke"): revoke,
    ("POST", f"{PAGES}/log_out"): log_out,
}


class ConsentPages:
    """An ASGI application to mount at ``/my_consents``."""

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
            failure="consent_page_failed",
        )


def consent_pages(settings: Settings, checks: Checks) -> dict[str, Asgi]:
    """Return what is mounted, where people have accounts to let others see."""
    if not settings.licence.may_hold_funds:
        return {}
    return {PAGES: ConsentPages(Desk(checks, settings))}


async def held_by(db: Any, person: Person) -> tuple[list[Held], list[Held]]:
    """Return what somebody lets others see and do now, and what has ended last."""
    good = [await _of_partner(db, each) for each in await good_consents_of(db, person.id)]
    wallets = await applications_of_person(db, person.id, None, _ROWS_MAX)
    page = await consents_of_person(db, person.id, limit=_ENDED_MAX)
    known = {each.id for each in good}
    gone = [await _of_partner(db, each) for each in page.items if each.shown_id not in known]
    for wallet in wallets:
        found = await _of_merchant(db, wallet)
        (good if wallet.state is State.OPENED else gone).append(found)
    newest = sorted(good, key=lambda each: each.since, reverse=True)
    return newest, sorted(gone, key=lambda each: each.since, reverse=True)[:_ENDED_MAX]


async def _of_partner(db: Any, consent: Consent) -> Held:
    partner = await partner_with_id(db, consent.partner_id)
    return Held(
        id=consent.shown_id,
        name=partner.name,
        is_merchant=False,
        kind=consent.kind.value,
        permissions=consent.permissions,
        amount=consent.amount,
        amount_a_day=None,
        currency=consent.currency,
        payee=consent.payee_name,
        since=consent.decided_at or consent.created_at,
        until=consent.expires_at,
        used=consent.last_used_at,
        status=consent.status(db.clock.now()),
        ended_at=consent.ended_at,
    )


async def _of_merchant(db: Any, wallet: WalletApplication) -> Held:
    merchant = await merchant_with_id(db, wallet.merchant_id)
    return Held(
        id=wallet.shown_id,
        name=merchant.name,
        is_merchant=True,
        kind="user_wallet",
        permissions=[*wallet.grants],
        amount=wallet.each_max,
        amount_a_day=wallet.day_max,
        currency="CNY",
        payee=None,
        since=wallet.opened_at or wallet.created_at,
        until=None,
        used=wallet.used_day,
        status="authorised" if wallet.state is State.OPENED else "revoked",
        ended_at=wallet.ended_at,
    )


async def _code_page(visit: Visit, known: ConsentVisit, *, wrong: bool = False) -> Reply:
    person = await person_with_id(visit.desk.db, known.person_id)
    [first, *_] = await contacts_of(visit.desk.db, person.id)
    status = 422 if wrong else 200
    return visit.page("code.html", person.mode, status=status, wrong=wrong, sent_to=first.masked)


async def _serve(visit: Visit) -> Reply:
    view = view_at(VIEWS, visit.request, visit.desk.public_url, SentFromElsewhere)
    return await view(visit)


def _set_language(visit: Visit) -> Reply:
    """Keep the chosen language and go on with what is open."""
    chosen = visit.request.query.get("to", "")
    reply = redirect(f"{PAGES}?mode={visit.mode.value}")
    if chosen not in LANGUAGES:
        return reply
    return reply.also(language_cookie(chosen, is_https=visit.desk.is_https))


def _refused(visit: Visit, request_id: str, refusal: Refusal) -> Reply:
    """Return a refusal as a page; it leads back to the first page."""
    facts = refusal_facts(visit.request, refusal, request_id)
    return visit.page("refused.html", visit.mode, status=status_of(type(refusal)), **facts)
