"""A visit: one request to the portal, who makes it, and what every page is given."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlencode
from uuid import UUID

from msgspec import Struct

from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.http import HttpClient
from tongbao.infra.request_log.lines import RequestLog
from tongbao.infra.request_log.model import Answered, Asked
from tongbao.infra.web.caller import Caller
from tongbao.infra.webhooks.endpoints import Owner
from tongbao.infra.webhooks.model import WebhookRules
from tongbao.kernel.clock import real_now
from tongbao.kernel.errors import Conflict
from tongbao.kernel.licence import Licence, Mode
from tongbao.parties.developers.clock import ClockHand
from tongbao.parties.developers.model import Developer, DeveloperSessionEnded, Entrance
from tongbao.parties.developers.sessions import Session
from tongbao.parties.identity.model import ApiKey
from tongbao.parties.identity.queries import key_of_merchant, keys_of_merchant
from tongbao.parties.merchants.queries import merchant_with_id
from tongbao.surfaces.docs_site.reference import Group, groups_of
from tongbao.surfaces.page_kit.rendering import Templates, templates_of
from tongbao.surfaces.page_kit.replies import Reply, page_policy, page_reply, redirect
from tongbao.surfaces.page_kit.requests import PageRequest
from tongbao.surfaces.page_kit.texts import Texts

PREFIX: Final = "/portal"
HERE: Final = Path(__file__).parent
SESSION: Final = "tongbao_developer"
VISITOR: Final = "tongbao_portal_visitor"
FORM_TOKEN: Final = "form_token"  # noqa: S105 - the name of a field
PAGE_GROUPS: Final = (
    ("overview", "keys", "requests", "events", "webhooks"),
    ("simulator", "clock"),
    ("docs", "errors", "changelog"),
)
PAGES: Final = tuple(page for group in PAGE_GROUPS for page in group)
_HAPPENINGS_MAX: Final = 4
_NO_POLICY: Final = "'none'"


class NoKeyAtHand(Conflict):
    """None of the shop's keys is good any more, so nothing can be asked in its name."""

    code = "portal.no_key_at_hand"
    advice = "Make a key first, under Keys."
    advice_zh = "没有可用的密钥，请先在“密钥”页创建。"


class Again(Protocol):
    """The API, as it serves a request of a caller who is proved already."""

    async def again(self, caller: Caller, asked: Asked) -> Answered:
        """Serve it, and return what was answered."""
        ...


class Desk(Struct, frozen=True, dict=True):
    """What the portal works with, built once. ``api`` serves what a developer asks by a page."""

    entrance: Entrance
    public_url: str
    sandbox_url: str
    licence: Licence
    api: Again
    document: Callable[[], Mapping[str, Any]]
    request_log: RequestLog
    webhook_rules: WebhookRules
    http: HttpClient
    has_clock: bool
    clock_hand: ClockHand

    @property
    def db(self) -> Db:
        """The database."""
        return self.entrance.db

    @property
    def keyring(self) -> Keyring:
        """What seals."""
        return self.entrance.keyring

    @property
    def templates(self) -> Templates:
        """The templates, read once in a process."""
        return templates_of(PREFIX, HERE)

    @property
    def is_https(self) -> bool:
        """Whether browsers reach us encrypted, so that cookies may insist on it."""
        return self.public_url.startswith("https://")

    @cached_property
    def stage_room(self) -> asyncio.Semaphore:
        """Room for happenings that are under way at a time: each has a thread, for seconds."""
        return asyncio.Semaphore(_HAPPENINGS_MAX)

    @cached_property
    def pages(self) -> tuple[tuple[str, ...], ...]:
        """The pages this deployment has, in their groups."""
        return tuple(
            tuple(page for page in group if page != "clock" or self.has_clock)
            for group in PAGE_GROUPS
        )

    @cached_property
    def groups(self) -> Mapping[str, Group]:
        """The API's operations by what they are about."""
        return {group.tag: group for group in groups_of(self.document(), self.public_url)}


class Visit(Struct, frozen=True):
    """One request. ``session`` is None on the few pages that are open to anybody."""

    desk: Desk
    request: PageRequest
    params: Mapping[str, str]
    nonce: str
    form_token: str
    source: str  # where on the network it comes from
    session: Session | None = None

    @property
    def developer(self) -> Developer:
        """Who is there.

        Raises:
            DeveloperSessionEnded: nobody is; no page without a session asks.
        """
        if self.session is None:
            raise DeveloperSessionEnded
        return self.session.developer

    @property
    def whose(self) -> tuple[UUID, Mode]:
        """Whose rows these pages show and change, and nobody else's."""
        return self.developer.merchant_id, Mode.SANDBOX

    @property
    def owner(self) -> Owner:
        """The same, as webhooks know it."""
        return Owner(*self.whose)

    @property
    def texts(self) -> Texts:
        """The texts in the visitor's language."""
        return self.desk.templates.texts[self.request.language]

    @property
    def address(self) -> str:
        """Where the visitor is, to come back to."""
        query = urlencode(self.request.query)
        return f"{self.request.path}?{query}" if query else self.request.path

    def further(self, cursor: str | None) -> str | None:
        """Return where the next page of a list is."""
        if cursor is None:
            return None
        kept = {name: text for name, text in self.request.query.items() if name != "done"}
        return f"{self.request.path}?{urlencode({**kept, 'cursor': cursor})}"

    def page(self, template: str, facts: Mapping[str, object], *, status: int = 200) -> Reply:
        """Return a page, with the policy its scripts keep to; no cache keeps it."""
        html = self.desk.templates.render(
            template,
            self.request.language,
            visit=self,
            nonce=self.nonce,
            form_token=self.form_token,
            developer=self.session.developer if self.session else None,
            pages=self.desk.pages,
            here=self.request.path,
            now=self.desk.db.clock.now(),
            done=self.request.query.get("done", ""),
            **facts,
        )
        policy = page_policy(self.nonce, trusted_types=_NO_POLICY)
        return page_reply(html, status=status).also(policy, ("cache-control", "no-store"))

    def back_to(self, page: str, done: str) -> Reply:
        """Go to a page of the portal and say there what was done."""
        return redirect(f"{PREFIX}/{page}?done={done}")

    async def key_at_hand(self, key_id: UUID | None = None) -> ApiKey:
        """Return a key that is good: this one if it still is, or else the newest.

        Raises:
            NoKeyAtHand
        """
        keys = (await keys_of_merchant(self.desk.db, *self.whose, cursor=None, limit=100)).items
        if key_id is not None:
            keys = [await key_of_merchant(self.desk.db, key_id, *self.whose), *keys]
        good = [key for key in keys if key.is_good(real_now())]
        if not good:
            raise NoKeyAtHand
        return good[0]

    async def ask(self, key: ApiKey, asked: Asked) -> Answered:
        """Have the API serve a request in the name of a key of the developer's own."""
        merchant = await merchant_with_id(self.desk.db, self.developer.merchant_id)
        book = merchant.book(Mode.SANDBOX)
        scopes = frozenset(key.scopes)
        caller = Caller(key.id, merchant.id, Mode.SANDBOX, book, scopes)
        return await self.desk.api.again(caller, asked)


View = Callable[[Visit], Awaitable[Reply]]


class Route(Struct, frozen=True):
    """One method of one address below the portal; ``is_open`` to anybody, or with a session."""

    method: str
    pattern: str
    view: View
    is_open: bool = False
    needs_clock: bool = False

    def match(self, path: str) -> dict[str, str] | None:
        """Return the named parts of a path that fits, or None."""
        found = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self.pattern), path)
        return found.groupdict() if found else None


def new_visitor_token() -> str:
    """Return what ties a form to the browser it was shown in, before anybody is logged in."""
    return secrets.token_urlsafe(24)


def inside(wanted: str) -> str:
    """Return an address of the portal and nowhere else."""
    is_ours = wanted.startswith(f"{PREFIX}/") and wanted.isascii() and wanted.isprintable()
    return wanted if is_ours and "\\" not in wanted else PREFIX
