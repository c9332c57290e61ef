"""A visit: one request to the console, who makes it and how, and what every page is given."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Struct

from tongbao.controls.approvals.model import Approvals
from tongbao.controls.approvals.queries import count_for
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.parties.authentication.passkeys import Site, request_options, site_of
from tongbao.parties.identity.factors import (
    CHALLENGE_PREFIX,
    LOG_IN,
    PasskeyAnswer,
    SecondFactor,
    ask_operator,
)
from tongbao.parties.identity.model import ROLES, LoginRefused, Operator, Permission, SessionEnded
from tongbao.parties.identity.queries import list_operators
from tongbao.parties.identity.sessions import Session, log_in, log_out
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.collecting.queries import count_open_cases
from tongbao.surfaces.page_kit.remembered import Remembered
from tongbao.surfaces.page_kit.rendering import templates_of
from tongbao.surfaces.page_kit.replies import (
    Reply,
    cookie,
    cookie_name,
    language_cookie,
    leave_for,
    page_policy,
    page_reply,
    redirect,
)
from tongbao.surfaces.page_kit.requests import LANGUAGES, PageRequest
from tongbao.surfaces.page_kit.texts import Texts

PREFIX: Final = "/console"
PAGE_GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "waiting": ("inbox", "cases"),
    "payments": (
        "payments",
        "agreements",
        "combined",
        "parking",
        "complaints",
        "disputes",
        "channels",
        "notices",
    ),
    "clearing": ("reconciliation", "settlements", "suspense", "reserve"),
    "books": ("ledger", "prices", "calendar"),
    "parties": (
        "merchants",
        "agents",
        "applications",
        "people",
        "e_accounts",
        "user_wallets",
        "partners",
        "terminals",
    ),
    "machine": ("health", "invariants", "rules", "retention", "keys"),
}
"""What belongs together, as the side of every page lists it."""
PAGES: Final = tuple(page for group in PAGE_GROUPS.values() for page in group)
LICENSED_PAGES: Final = frozenset(
    {"people", "e_accounts", "user_wallets", "partners", "settlements", "suspense", "disputes"}
    | {"reserve"}
)
"""Pages about other people's money, which a firm that may not hold it does not have."""
HERE: Final = Path(__file__).parent
SESSION: Final = "tongbao_session"
VISITOR: Final = "tongbao_visitor"
START: Final = f"{PREFIX}/payments"
FORM_TOKEN: Final = "form_token"  # noqa: S105 - the name of a field


class Desk:
    """What the console works with, built once."""

    def __init__(
        self,
        flow: Flow,
        keyring: Keyring,
        public_url: str,
        approvals: Approvals,
        *,
        second_factor: SecondFactor = "any",
    ) -> None:
        self.second_factor: SecondFactor = second_factor
        self.flow = flow
        self.approvals = approvals
        self.keyring = keyring
        self.public_url = public_url.rstrip("/")
        self.templates = templates_of(PREFIX, HERE)
        self.verifying = asyncio.Lock()
        self.counted: Remembered[Any] = Remembered()

    @property
    def db(self) -> Db:
        """The database."""
        return self.flow.db

    @cached_property
    def pages(self) -> dict[str, tuple[str, ...]]:
        """The pages this deployment has, by its licence, in their groups."""
        may = self.flow.licence.may_hold_funds
        groups = {
            name: tuple(page for page in group if may or page not in LICENSED_PAGES)
            for name, group in PAGE_GROUPS.items()
        }
        return {name: group for name, group in groups.items() if group}

    @cached_property
    def site(self) -> Site:
        """Whose passkeys operators use."""
        return site_of(self.public_url)

    @cached_property
    def is_https(self) -> bool:
        """Whether browsers reach us encrypted, so that cookies may insist on it."""
        return self.public_url.startswith("https://")


class Visit(Struct, frozen=True):
    """One request. ``session`` is None on the few pages that are open to anybody."""

    desk: Desk
    request: PageRequest
    params: Mapping[str, str]
    nonce: str
    form_token: str
    session: Session | None = None

    @property
    def operator(self) -> Operator:
        """Who is there.

        Raises:
            SessionEnded: nobody is; no page without a session asks.
        """
        if self.session is None:
            raise SessionEnded
        return self.session.operator

    @property
    def texts(self) -> Texts:
        """The texts in the visitor's language."""
        return self.desk.templates.texts[self.request.language]

    @property
    def address(self) -> str:
        """Where the visitor is, to come back to."""
        query = urlencode(self.request.query)
        return f"{self.request.path}?{query}" if query else self.request.path

    async def page(self, template: str, facts: Mapping[str, object], *, status: int = 200) -> Reply:
        """Return a whole page, with what every page shows around its own facts."""
        around = {} if self.session is None else await self._around()
        return self.part(template, {**around, **facts}, status=status)

    async def _around(self) -> dict[str, object]:
        """Return what waits for somebody, for the navigation."""
        me = self.operator
        may = [each.value for each in ROLES[me.role]]
        return {
            "open_cases": await count_open_cases(self.desk.db),
            "to_decide": await count_for(self.desk.approvals, me.actor, may),
        }

    def part(self, template: str, facts: Mapping[str, object], *, status: int = 200) -> Reply:
        """Return a template filled in, with the policy its scripts and requests keep to."""
        clock = self.desk.db.clock
        html = self.desk.templates.render(
            template,
            self.request.language,
            visit=self,
            nonce=self.nonce,
            form_token=self.form_token,
            operator=self.session.operator if self.session else None,
            may=partial(_may, self.session),
            here=self.request.path,
            pages=self.desk.pages,
            now=clock.now(),
            clock_offset=clock.offset,
            **{"open_cases": 0, "to_decide": 0, **facts},
        )
        return page_reply(html, status=status).also(page_policy(self.nonce))


View = Callable[[Visit], Awaitable[Reply]]


class Route(Struct, frozen=True):
    """One method of one address below the console.

    Without a permission it is open to anybody. What a page asks for by itself (``is_poll``) does
    not keep a session alive.
    """

    method: str
    pattern: str
    view: View
    permission: Permission | None
    is_poll: bool = False
    is_licensed: bool = False  # absent where funds may not be held

    def match(self, path: str) -> dict[str, str] | None:
        """Return the named parts of a path that fits, or None."""
        found = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self.pattern), path)
        return found.groupdict() if found else None


def mode_of(text: str | None) -> Mode | None:
    """Return the mode a form names; anything else means both."""
    return next((mode for mode in Mode if mode.value == text), None)


def _may(session: Session | None, permission: str) -> bool:
    return session is not None and Permission(permission) in ROLES[session.operator.role]


async def show_login(visit: Visit) -> Reply:
    """Return the form, or the first page when somebody is logged in already."""
    if visit.session is not None:
        return redirect(START)
    return await _form(visit)


async def send_login(visit: Visit) -> Reply:
    """Open a session and go on to where the visitor wanted to be."""
    form = visit.request.form
    try:
        opened = await log_in(
            visit.desk.db,
            visit.desk.keyring,
            login=form.get("login", "").strip().lower(),
            password=form.get("password", ""),
            code="".join(form.get("code", "").split()).lower(),
            site=visit.desk.site,
            answer=_answer(form),
            factor=visit.desk.second_factor,
        )
    except LoginRefused as refused:
        return await _form(visit, status=401, refused=refused)
    await _end_session(visit)
    is_https = visit.desk.is_https
    return redirect(_inside(form.get("next", ""))).also(
        cookie(SESSION, opened.token.reveal(), is_https=is_https),
        cookie(VISITOR, "", is_https=is_https, max_age_s=0),
    )


async def send_logout(visit: Visit) -> Reply:
    """End the session and have the browser forget what it kept of us."""
    await _end_session(visit)
    is_https = visit.desk.is_https
    return redirect(f"{PREFIX}/login").also(cookie(SESSION, "", is_https=is_https, max_age_s=0))


async def send_language(visit: Visit) -> Reply:
    """Keep the chosen language for a year and show the same page in it."""
    form = visit.request.form
    chosen = form.get("language", "")
    reply = redirect(_inside(form.get("next", "")))
    if chosen not in LANGUAGES:
        return reply
    return reply.also(language_cookie(chosen, is_https=visit.desk.is_https))


def ask_login(visit: Visit) -> Reply:
    """Send a visitor without a session to the form, and back here afterwards."""
    asked = visit.request
    if asked.is_by_script:
        return leave_for(f"{PREFIX}/login", status=401)
    if asked.method != "GET":
        return redirect(f"{PREFIX}/login")
    to, wanted = f"{PREFIX}/login", visit.address
    return redirect(to if wanted in {PREFIX, START} else f"{to}?next={quote(wanted, safe='')}")


def new_visitor_token() -> str:
    """Return what ties a form to the browser it was shown in, before anybody is logged in."""
    return secrets.token_urlsafe(24)


async def _form(visit: Visit, *, status: int = 200, refused: LoginRefused | None = None) -> Reply:
    asked = visit.request
    facts = {
        "refused": refused,
        "login": asked.form.get("login", ""),
        "wanted": _inside(asked.form.get("next") or asked.query.get("next", "")),
        "nobody_yet": not await list_operators(visit.desk.db),
        **await _passkey_question(visit),
    }
    reply = await visit.page("login.html", facts, status=status)
    name = cookie_name(VISITOR, is_https=visit.desk.is_https)
    if asked.cookies.get(name) == visit.form_token:
        return reply
    return reply.also(cookie(VISITOR, visit.form_token, is_https=visit.desk.is_https))


async def _passkey_question(visit: Visit) -> dict[str, object]:
    """Return what a passkey is asked, where the visitor wants to use one."""
    asked = visit.request
    if asked.query.get("with") != "passkey" and "challenge_id" not in asked.form:
        return {"challenge_id": None}
    async with visit.desk.db.begin("login") as tx:
        challenge = await ask_operator(tx, LOG_IN, None)
    options = request_options(visit.desk.site, challenge, [])
    return {
        "challenge_id": show(CHALLENGE_PREFIX, challenge.id),
        "options": msgspec.json.encode(options).decode(),
    }


def _answer(form: Mapping[str, str]) -> PasskeyAnswer | None:
    """Return what the page's script has put into the form, if anything that can be read."""
    try:
        said = msgspec.json.decode(form.get("response", ""), type=dict[str, Any])
    except msgspec.MsgspecError:
        return None
    return PasskeyAnswer(form.get("challenge_id", ""), said)


async def _end_session(visit: Visit) -> None:
    token = visit.request.cookies.get(cookie_name(SESSION, is_https=visit.desk.is_https))
    if token:
        await log_out(visit.desk.db, visit.desk.keyring, token)


def _inside(wanted: str) -> str:
    """Return an address of the console and nowhere else."""
    is_ours = wanted.startswith(f"{PREFIX}/") and wanted.isascii() and wanted.isprintable()
    return wanted if is_ours and "\\" not in wanted else START
