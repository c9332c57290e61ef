"""How a set of pages answers a browser: with a file, with a page, or with a refusal as a page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeVar

import structlog

from tongbao.infra.web.problem import (
    InternalError,
    MethodNotAllowed,
    RouteUnknown,
    TooManyRequests,
    status_of,
    title_of,
)
from tongbao.kernel.errors import Busy, Forbidden, Refusal
from tongbao.surfaces.page_kit.assets import Assets
from tongbao.surfaces.page_kit.rendering import Templates
from tongbao.surfaces.page_kit.replies import Reply, page_policy, page_reply
from tongbao.surfaces.page_kit.requests import PageRequest

V = TypeVar("V")

log = structlog.get_logger()


async def answer(
    asked: PageRequest,
    files: Assets,
    page: Callable[[], Awaitable[Reply]],
    refused: Callable[[Refusal], Reply],
    *,
    failure: str,
) -> Reply:
    """Return a file, or what ``page`` makes, or ``refused`` of whatever that raises.

    A bug is logged as ``failure`` without the address, which may be all that one needs to pay.
    """
    if file := files.find(asked.path):
        return file
    try:
        asked.check_card_data()
        return await page()
    except Refusal as refusal:
        return refused(refusal)
    except Exception:
        log.exception(failure)
        return refused(InternalError())


def view_at(
    views: Mapping[tuple[str, str], V],
    asked: PageRequest,
    public_url: str,
    elsewhere: type[Forbidden],
) -> V:
    """Return what stands at a method and an address, for a form that one of our own pages sent.

    Raises:
        RouteUnknown, MethodNotAllowed, and ``elsewhere`` for a form of another's page
    """
    view = views.get((asked.method, asked.path))
    if view is None:
        raise nothing_there(method for method, path in views if path == asked.path)
    if asked.method != "GET" and not asked.is_same_origin(public_url):
        raise elsewhere
    return view


def nothing_there(methods: Iterable[str]) -> Refusal:
    """Return why a request has no view, given the methods that its address does take."""
    allowed = sorted(set(methods))
    return MethodNotAllowed(allow=", ".join(allowed)) if allowed else RouteUnknown()


def refusal_facts(asked: PageRequest, refusal: Refusal, request_id: str) -> dict[str, object]:
    """Return what every page about a refusal says, in its reader's language."""
    return {
        "refusal": refusal,
        "advice": refusal.advice_zh if asked.language == "zh" else refusal.advice,
        "title": title_of(type(refusal)),
        "request_id": request_id,
    }


def with_allowed(reply: Reply, refusal: Refusal) -> Reply:
    """Return the reply with the methods that an address takes, where the refusal is about them."""
    if not isinstance(refusal, MethodNotAllowed):
        return reply
    return reply.also(("allow", str(refusal.facts.get("allow", ""))))


def refusal_page(
    templates: Templates, asked: PageRequest, refusal: Refusal, *, nonce: str, request_id: str
) -> Reply:
    """Return a refusal as a page; it leads nowhere but back to what its reader has open."""
    html = templates.render(
        "refused.html",
        asked.language,
        nonce=nonce,
        mode=None,
        goes_on=asked.method == "POST" or isinstance(refusal, Busy | TooManyRequests),
        **refusal_facts(asked, refusal, request_id),
    )
    reply = page_reply(html, status=status_of(type(refusal))).told_to_wait(refusal)
    policy = page_policy(nonce, trusted_types="'none'")
    return with_allowed(reply.also(policy, ("cache-control", "no-store")), refusal)
