"""What is sent to a browser, and the headers that keep everything foreign out of the page."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from tongbao.infra.web.problem import wait_of
from tongbao.kernel.errors import Refusal
from tongbao.surfaces.page_kit.requests import LANGUAGE_COOKIE

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[str, str]

HTML: Final = "text/html; charset=utf-8"
JSON: Final = "application/json"
CSV: Final = "text/csv; charset=utf-8"
LANGUAGE_KEPT_S: Final = 365 * 86_400

_ALWAYS: Final[tuple[Header, ...]] = (
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    # Not no-referrer: browsers then send forms with ``Origin: null``, and we look at it.
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
)
_HTTPS_ONLY: Final[Header] = ("strict-transport-security", "max-age=31536000; includeSubDomains")


class Reply(Struct, frozen=True):
    """An answer: whole in ``body``, or made bit by bit by ``chunks``."""

    status: int = 200
    headers: tuple[Header, ...] = ()
    body: bytes = b""
    chunks: AsyncIterator[bytes] | None = None

    def told_to_wait(self, refusal: Refusal) -> Reply:
        """Return the reply with Retry-After, where a refusal says how long."""
        wait_s = wait_of(refusal)
        return self if wait_s is None else self.also(("retry-after", wait_s))

    def also(self, *headers: Header) -> Reply:
        """Return the reply with more headers."""
        return msgspec.structs.replace(self, headers=(*self.headers, *headers))


def page_reply(html: str, *, status: int = 200) -> Reply:
    """Return a page or a part of one."""
    return Reply(status, (("content-type", HTML),), html.encode())


def file_reply(content: bytes, content_type: str, *, name: str | None = None) -> Reply:
    """Return a document of another kind, to be saved under ``name`` if there is one."""
    reply = Reply(200, (("content-type", content_type),), content)
    return reply if name is None else reply.also(_saved_as(name))


def stream_reply(chunks: AsyncIterator[bytes], content_type: str, *, name: str) -> Reply:
    """Return a document that is made while it is sent, so that its length does not matter."""
    return Reply(200, (("content-type", content_type), _saved_as(name)), chunks=chunks)


def redirect(to: str) -> Reply:
    """Send the browser to another page of ours, by GET."""
    return Reply(303, (("location", to),))


def leave_for(to: str, *, status: int = 200) -> Reply:
    """Have a page that asked by script go to another page as a whole.

    A redirect would be followed by the script itself, and the other page put into this one.
    """
    return Reply(status, (("hx-redirect", to),))


def cookie(name: str, value: str, *, is_https: bool, max_age_s: int | None = None) -> Header:
    """Return the header that sets a cookie no script and no other site can use."""
    parts = [f"{cookie_name(name, is_https=is_https)}={value}", "Path=/", "HttpOnly"]
    parts += ["SameSite=Strict", *(["Secure"] if is_https else [])]
    parts += [f"Max-Age={max_age_s}"] if max_age_s is not None else []
    return ("set-cookie", "; ".join(parts))


def cookie_name(name: str, *, is_https: bool) -> str:
    """Return the name with the prefix that ties a cookie to this very host, where it may be had."""
    return f"__Host-{name}" if is_https else name


def language_cookie(language: str, *, is_https: bool) -> Header:
    """Return the header that keeps a reader's language, for every set of pages on this host."""
    name = cookie_name(LANGUAGE_COOKIE, is_https=is_https)
    parts = [f"{name}={language}", "Path=/", "HttpOnly", "SameSite=Lax"]
    parts += [f"Max-Age={LANGUAGE_KEPT_S}", *(["Secure"] if is_https else [])]
    return ("set-cookie", "; ".join(parts))


def page_policy(nonce: str, *, trusted_types: str = "htmx", form_action: str = "'self'") -> Header:
    """Return the policy of a page: our files, our scripts by nonce, nothing inline, no frames.

    ``form_action`` names where its forms may go; an origin beside ours only for a form that a
    channel wants posted.
    """
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self'; img-src 'self' data:;"
        f" connect-src 'self'; form-action {form_action}; frame-ancestors 'none';"
        " base-uri 'none';"
        f" require-trusted-types-for 'script'; trusted-types {trusted_types}"
    )
    return ("content-security-policy", policy)


def standing_headers(reply: Reply, *, is_https: bool) -> Sequence[Header]:
    """Return the reply's headers and those that every reply has."""
    present = {name for name, _ in reply.headers}
    named = [header for header in _ALWAYS if header[0] not in present]
    policy = ("content-security-policy", "default-src 'none'; frame-ancestors 'none'")
    return (
        *reply.headers,
        *named,
        *(() if policy[0] in present else (policy,)),
        *((_HTTPS_ONLY,) if is_https else ()),
    )


async def send_reply(reply: Reply, receive: Receive, send: Send, *, is_https: bool) -> None:
    """Send a reply; a document made bit by bit ends early when nobody listens any more."""
    headers = [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in standing_headers(reply, is_https=is_https)
    ]
    if reply.chunks is None:
        headers.append((b"content-length", str(len(reply.body)).encode()))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    if reply.chunks is None:
        await send({"type": "http.response.body", "body": reply.body})
        return
    left = asyncio.create_task(_gone(receive))
    try:
        async for chunk in reply.chunks:
            if left.done():
                return
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        left.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await left


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _saved_as(name: str) -> Header:
    return ("content-disposition", f'attachment; filename="{name}"')
