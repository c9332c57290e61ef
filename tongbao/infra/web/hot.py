"""Hot routes: plain callables beside the framework, for the few requests that come by thousands.

A hot route answers what goes well and nothing else. Whatever is unusual about a request, from a
header to a refusal, it leaves undone and hands over: the ordinary route of the same path then
takes it as if nobody had looked at it, so that there is one place that says no.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from msgspec import Struct

from tongbao.infra.web.authentication import SignedRequest
from tongbao.infra.web.request import KEY_HEADER, KEY_LENGTH_MAX

CREATED: Final = 201
_JSON: Final = b"application/json"
_KEY: Final = KEY_HEADER.encode()
_ONCE: Final = frozenset({b"authorization", b"content-type", _KEY})
_NEVER: Final = frozenset({b"content-encoding"})


class HotRequest(Struct, frozen=True):
    """A POST as it arrived, with nothing unusual about its form."""

    signed: SignedRequest
    idempotency_key: str
    client_ip: str


HotRoute = Callable[[HotRequest], Awaitable[bytes | None]]
"""Return the JSON of what was created, or None where the ordinary route shall take the request."""


def hot_request(scope: MutableMapping[str, Any], body: bytes) -> HotRequest | None:
    """Return the request for a hot route, or None when anything about its form is unusual."""
    if scope["method"] != "POST" or scope["query_string"] or not body:
        return None
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in _NEVER or (name in _ONCE and name in found):
            return None
        if name in _ONCE:
            found[name] = value
    if len(found) < len(_ONCE) or found[b"content-type"] != _JSON:
        return None
    key = found[_KEY].decode("latin-1").strip()
    if not key or len(key) > KEY_LENGTH_MAX or not (key.isascii() and key.isprintable()):
        return None
    target = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
    authorization = (found[b"authorization"].decode("latin-1"),)
    client = scope.get("client")
    return HotRequest(
        SignedRequest("POST", target, body, authorization),
        key,
        client[0] if client else "127.0.0.1",
    )
