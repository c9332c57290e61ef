"""Hot routes: the few requests that come by thousands, answered beside the framework.

One answers what goes well and nothing else. Whatever is unusual about a request, from a header to a
refusal, it leaves undone and hands over: the ordinary route of the same path then takes it as if
nobody had looked at it, so that there is one place that says no.

    server ─► HotDoor.take ─► HotRoute.take ─► bytes: the answer
                                            └► None: on to the application, as any other request
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final, Protocol

from msgspec import Struct

from tongbao.infra.admission.authentication import SignedRequest
from tongbao.infra.card_watch import check_request
from tongbao.infra.request_log.model import Heard
from tongbao.infra.telemetry import observe_request
from tongbao.infra.web.problem import ANSWER_HEADERS
from tongbao.infra.web.request import KEY_HEADER, KEY_LENGTH_MAX
from tongbao.infra.web.versions import HEADER as VERSION_HEADER
from tongbao.kernel.clock import monotonic
from tongbao.kernel.errors import Refusal
from tongbao.kernel.ids import new_id, show

CREATED: Final = 201

_LOOKED_AT: Final = "hot_answer"  # in a scope's state: what its hot route said when it gave it back
_CREATED_HEAD: Final = b"".join(
    [
        b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: %d\r\n",
        *(b"%b: %b\r\n" % header for header in ANSWER_HEADERS),
        b"x-request-id: %b\r\n",
    ]
)
_JSON: Final = b"application/json"
_KEY: Final = KEY_HEADER.encode()


Scope = MutableMapping[str, Any]


class HotRequest(Struct, frozen=True):
    """A POST as it arrived, with nothing unusual about its form."""

    signed: SignedRequest
    idempotency_key: str
    client_ip: str


Answer = bytes | Refusal | None
"""The JSON of what was created, why that cannot be said now, or None: nothing was done."""


class HotRoute(Protocol):
    """Takes requests of one path, as many together as it likes."""

    def take(self, request: HotRequest, answered: Callable[[Answer], None]) -> None:
        """Answer the request once, now or later; None where the ordinary route shall take it."""


class HotDoor:
    """Where a server hands in requests of hot paths, without the interface of applications."""

    def __init__(
        self, routes: Mapping[str, HotRoute], hear: Callable[[Heard], None] | None = None
    ) -> None:
        self._routes = routes
        self._hear = hear  # the request log's

    def may_take(self, scope: Scope) -> bool:
        """Return whether there is a hot route for it."""
        return scope["method"] == "POST" and scope["path"] in self._routes

    def take(
        self,
        scope: Scope,
        body: bytes,
        answered: Callable[[bytes, bytes], None],
        handed_over: Callable[[], None],
    ) -> None:
        """Answer with a head of whole lines, its end left out, and a body; or hand over."""
        began = monotonic()

        def reply(answer: Answer) -> None:
            if not isinstance(answer, bytes):
                scope["state"][_LOOKED_AT] = answer
                handed_over()
                return
            made, path = new_id(), scope["path"]
            answered(_CREATED_HEAD % (len(answer), show("req", made).encode()), answer)
            seconds = monotonic() - began
            observe_request("POST", path, CREATED, seconds)
            if self._hear is not None:
                key = dict(scope["headers"])[b"authorization"]
                self._hear(Heard(made, key, "POST", path, path, CREATED, seconds, body, answer))

        request = hot_request(scope, body)
        if request is None:
            reply(None)
        else:
            self._routes[scope["path"]].take(request, reply)

    async def ask(self, scope: Scope, body: bytes) -> bytes | None:
        """Return the JSON of what was created, or None where the ordinary route shall answer.

        For a request that came through the application, perhaps because `take` handed it over.

        Raises:
            Refusal: it cannot be said now.
        """
        answer: Answer
        if _LOOKED_AT in scope["state"]:
            answer = scope["state"][_LOOKED_AT]
        else:
            request = hot_request(scope, body) if self.may_take(scope) else None
            answer = None if request is None else await self._told(scope["path"], request)
        if isinstance(answer, Refusal):
            raise answer
        return answer

    async def _told(self, path: str, request: HotRequest) -> Answer:
        told: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def tell(answer: Answer) -> None:
            if not told.done():  # who asked may have gone
                told.set_result(answer)

        self._routes[path].take(request, tell)
        return await told


def hot_request(scope: Scope, body: bytes) -> HotRequest | None:
    """Return the request for a hot route, or None when anything about its form is unusual."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    authorization = headers.get(b"authorization", b"")
    if not _is_plain(scope, headers) or not authorization or not body:
        return None
    key = headers.get(_KEY, b"").decode("latin-1").strip()
    if not key or len(key) > KEY_LENGTH_MAX or not (key.isascii() and key.isprintable()):
        return None
    try:
        check_request(scope["path"], b"", scope["headers"], body)
    except Refusal:
        return None  # the application says why
    target = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
    client = scope.get("client")
    return HotRequest(
        SignedRequest("POST", target, body, (authorization.decode("latin-1"),)),
        key,
        client[0] if client else "127.0.0.1",
    )


def _is_plain(scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
    """Tell whether it is a POST of JSON in today's form, without a query or a repeated header."""
    return (
        scope["method"] == "POST"
        and not scope["query_string"]
        and len(headers) == len(scope["headers"])
        and headers.get(b"content-type") == _JSON
        and b"content-encoding" not in headers
        and VERSION_HEADER not in headers
    )
