"""The API reference as an ASGI application: mounted beside the API, open to everybody."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from functools import cache, cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from tongbao.infra.web.problem import MethodNotAllowed, RouteUnknown
from tongbao.surfaces.docs_site.reference import Group, catalogue, groups_of
from tongbao.surfaces.page_kit.rendering import new_nonce, templates_of
from tongbao.surfaces.page_kit.replies import (
    Receive,
    Reply,
    Send,
    language_cookie,
    page_policy,
    page_reply,
    redirect,
    send_reply,
)
from tongbao.surfaces.page_kit.requests import LANGUAGES, PageRequest, read_request

PREFIX: Final = "/docs"
ERRORS: Final = f"{PREFIX}/errors"
_HERE: Final = Path(__file__).parent
_NONCE: Final = "nonce-to-be"
_NO_POLICY: Final = "'none'"


class DocsApp:
    """An ASGI application to mount at ``/docs``.

    A page is rendered once per language and kept; only the nonce of its script is new each time.
    """

    def __init__(self, document: Callable[[], Mapping[str, Any]], public_url: str) -> None:
        self._document = document
        self._url = public_url.rstrip("/")
        self._templates = templates_of(PREFIX, _HERE)
        self._rendered = cache(self._render)

    @cached_property
    def _groups(self) -> Mapping[str, Group]:
        return {group.tag: group for group in groups_of(self._document(), self._url)}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request.

        Raises:
            RouteUnknown, MethodNotAllowed, FormMalformed
        """
        is_https = self._url.startswith("https://")
        await send_reply(self._answer(read_request(scope)), receive, send, is_https=is_https)

    def _answer(self, asked: PageRequest) -> Reply:
        if file := self._templates.assets.find(asked.path):
            return file
        if asked.method != "GET":
            raise MethodNotAllowed(allow="GET")
        page = asked.path.removeprefix(PREFIX).strip("/")
        if page == "language":
            return self._language(asked)
        if page not in {"", "errors", *self._groups}:
            raise RouteUnknown
        nonce = new_nonce()
        html = self._rendered(page, asked.language).replace(_NONCE, nonce)
        # Kept for a minute: the language depends on a cookie, and a release changes the pages.
        kept = (("cache-control", "private, max-age=60"), ("vary", "accept-language, cookie"))
        return page_reply(html).also(page_policy(nonce, trusted_types=_NO_POLICY), *kept)

    def _language(self, asked: PageRequest) -> Reply:
        """Keep the chosen language and go back to the page."""
        chosen, page = asked.query.get("to", ""), asked.query.get("page", "")
        back = redirect(f"{PREFIX}/{page}" if page in {"errors", *self._groups} else PREFIX)
        if chosen not in LANGUAGES:
            return back
        return back.also(language_cookie(chosen, is_https=self._url.startswith("https://")))

    def _render(self, page: str, language: str) -> str:
        other = "en" if language == "zh" else "zh"
        document = self._document()
        facts: dict[str, Any] = {
            "nonce": _NONCE,
            "page": page,
            "info": document["info"],
            "url": self._url,
            "groups": self._groups.values(),
            "scopes": document["x-scopes"],
            "errors": ERRORS,
            "switch": f"{PREFIX}/language?{urlencode({'to': other, 'page': page})}",
        }
        if page == "errors":
            areas = groupby(catalogue(), key=lambda each: each.code.partition(".")[0])
            facts["areas"] = [(area, list(refusals)) for area, refusals in areas]
            return self._templates.render("errors.html", language, **facts)
        if page:
            facts["group"] = self._groups[page]
            return self._templates.render("group.html", language, **facts)
        return self._templates.render("start.html", language, **facts)
