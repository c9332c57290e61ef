"""The HTTP application: one ASGI callable made of the API's routes and of what is mounted beside.

    request id → mounted app? ─yes─► body, whole and capped ──► the app, with rights of its own
                      │no
                      └─► body, whole and capped → signature → route → scope → strict JSON → handler

Every answer carries the request id; everything that is not an answer becomes a problem.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, Final, cast, get_args
from urllib.parse import unquote
from uuid import UUID

import msgspec
import structlog
from litestar import Litestar, Request, Response
from litestar.di import Provide
from litestar.exceptions.base_exceptions import LitestarDeprecationWarning
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from tongbao.infra.admission.authentication import (
    KeyRevoked,
    SignedRequest,
    SigningKey,
    SigningKeys,
    authenticate,
    nonces_of,
)
from tongbao.infra.admission.encrypted_fields import is_encrypted, open_fields
from tongbao.infra.admission.rate_shares import RateLimits
from tongbao.infra.audit import come_from
from tongbao.infra.card_watch import check_request
from tongbao.infra.db import Db
from tongbao.infra.http_edge import Door
from tongbao.infra.request_log.lines import RequestLog
from tongbao.infra.request_log.model import Answered, Asked, Heard
from tongbao.infra.serving.answers import Reply
from tongbao.infra.serving.asgi import (
    BODY_MAX,
    DOCUMENT_PATHS,
    Asgi,
    ClientGone,
    Message,
    Receive,
    Scope,
    Send,
    header_of,
    json_file,
    lifespan,
    message_of,
    read_body,
    replay,
    target_of,
)
from tongbao.infra.serving.files import Uploads, check_taken, digest_of
from tongbao.infra.serving.hosts import NONE, OwnHosts
from tongbao.infra.serving.openapi import ApiFacts, Operation, describe
from tongbao.infra.telemetry import observe_request
from tongbao.infra.web.caller import Caller, access_of
from tongbao.infra.web.idempotency import Repeats
from tongbao.infra.web.problem import (
    InternalError,
    MediaTypeUnsupported,
    MethodNotAllowed,
    Rendered,
    RouteUnknown,
    language_of,
    render,
)
from tongbao.infra.web.request import (
    ApiRequest,
    BodyUnexpected,
    InvalidValue,
    check_query,
    refusal_of_exception,
)
from tongbao.infra.web.versions import (
    CURRENT,
    HEADER,
    Change,
    OlderAnswers,
    Versions,
    request_of,
)
from tongbao.kernel.clock import monotonic
from tongbao.kernel.errors import Refusal
from tongbao.kernel.ids import new_id, show

_NOT_KEPT: Final = b"a file"  # no JSON, so that the log has nothing of it


log = structlog.get_logger()


class RouteWithoutScope(TypeError):
    """A route names no scope, or one nobody can have, or goes round the guard: a bug."""


class App:
    """The assembled ASGI application.

    ``document`` is its OpenAPI document; by ``door`` a server may hand in what need not be ASGI.
    """

    def __init__(
        self,
        handlers: Sequence[HTTPRouteHandler],
        *,
        db: Db,
        keys: SigningKeys,
        facts: ApiFacts,
        provides: Mapping[str, object] | None = None,
        mounts: Mapping[str, Asgi] | None = None,
        door: Door | None = None,
        limits: RateLimits | None = None,
        versions: Versions | None = None,
        request_log: RequestLog | None = None,
        own_hosts: OwnHosts = NONE,
    ) -> None:
        self.door = door
        self._own_hosts = own_hosts
        self._request_log = request_log
        self._limits = limits
        self._versions = versions
        self._nonces = nonces_of(db)
        self._repeats = Repeats(db)
        self._db = db
        self._keys = keys
        self._facts = facts
        self._given = {"db": db, "api": self, **(provides or {})}
        self._api = framework_of(tuple(handlers), tuple(sorted(self._given)))
        self.operations = operations_of(self._api, facts.scopes)
        self._uploads = Uploads(self.operations)
        document = json_file(lambda: self._document_file)
        self._mounts = {**dict.fromkeys(DOCUMENT_PATHS, document), **(mounts or {})}

    @cached_property
    def document(self) -> dict[str, Any]:
        """The OpenAPI document, written when somebody first asks for it."""
        return describe(self.operations, self._facts)

    @cached_property
    def _document_file(self) -> bytes:
        return msgspec.json.encode(self.document)

    def mount(self, prefix: str, app: Asgi) -> None:
        """Serve everything under the prefix by another application, which knows its own rights."""
        self._mounts[prefix] = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, made = monotonic(), new_id()
        request_id = show("req", made)

        def rendering(refusal: Refusal) -> Rendered:
            language = language_of(header_of(scope, b"accept-language"))
            return render(
                refusal, request_id=request_id, language=language, docs_url=self._facts.docs_url
            )

        scope["state"] = {**scope.get("state", {}), "request_id": request_id, "render": rendering}
        reply = Reply(send, request_id, scope["state"], self._facts.bank_code)
        # The server gives every request a task, and so a context, of its own: nothing to undo.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        source = (scope.get("client") or ("local",))[0]
        come_from(f"{source} {request_id}", source)
        prefix = self._mounted_at(scope["path"])
        try:
            self._own_hosts.check(prefix, scope)
            is_file = self._uploads.begin(scope, receive)
            body = b"" if is_file else await read_body(scope, receive)
            scope["state"] |= {"body": body, "sent": body}
            if scope["path"].startswith("/v1/"):
                check_request(scope["path"], scope["query_string"], scope["headers"], body)
            created = await self.door.ask(scope, body) if self.door is not None else None
            if created is not None:
                scope["path_template"] = scope["path"]
                scope["state"]["hot_by"] = header_of(scope, b"authorization").encode("latin-1")
                await reply.created(created)
                return
            _check_mounted_path(prefix, scope["path"])
            target = self._signed_api if prefix is None else self._mounts[prefix]
            await target(scope, replay(body, receive), reply)
        except ClientGone:
            return
        except Refusal as refusal:
            await reply.problem(rendering(refusal))
        except Exception:
            log.exception("request_failed")
            await reply.problem(rendering(InternalError()))
        finally:
            route = prefix or scope.get("path_template") or "unmatched"
            seconds = monotonic() - started
            observe_request(scope["method"], route, reply.status or 499, seconds)
            if self._request_log is not None and prefix is None:
                self._hear(scope, reply, made, seconds)

    def _hear(self, scope: Scope, reply: Reply, request_id: UUID, seconds: float) -> None:
        """Have the request log take a request of somebody who is proved."""
        state = scope["state"]
        caller = state.get("caller") or state.get("hot_by")
        if self._request_log is not None and caller is not None and reply.status is not None:
            route = scope.get("path_template") or "unmatched"
            heard = Heard(
                request_id,
                caller,
                scope["method"],
                route,
                target_of(scope),
                reply.status,
                seconds,
                state["sent"] if state.get("incoming") is None else _NOT_KEPT,  # a file
                reply.body,
            )
            self._request_log.hear(heard)

    async def again(self, caller: Caller, asked: Asked) -> Answered:
        """Serve a request as if it had just come, of a caller who is proved already."""
        path, _, query = asked.target.partition("?")
        headers = [(b"idempotency-key", asked.idempotency_key.encode())]
        headers += [(b"content-type", b"application/json")] if asked.body else []
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": asked.method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": headers,
            **dict.fromkeys(("client", "server")),
            "state": {"proved": caller.key_id},
        }
        sent: list[Message] = []

        async def keep(message: Message) -> None:
            sent.append(message)

        async def gone() -> Message:
            return {"type": "http.disconnect"}

        # A task of its own: what it says and does is told under its own request id.
        await asyncio.create_task(self._serve(scope, replay(asked.body, gone), keep))
        shown = dict(sent[0]["headers"])[b"x-request-id"].decode()
        content = b"".join(each.get("body", b"") for each in sent[1:])
        return Answered(shown, sent[0]["status"], content)

    async def _signed_api(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Prove who is calling, then let the framework route and decode."""
        body = scope["state"]["body"]
        if b"%00" in scope["query_string"]:
            raise InvalidValue(param="query", reason="the character U+0000 is not text")
        digest = digest_of(scope)
        signed = SignedRequest(
            scope["method"],
            target_of(scope),
            body,
            tuple(v.decode("latin-1") for n, v in scope["headers"] if n == b"authorization"),
            message_of(scope, body, digest),
            digest,
        )
        key = await self._proved(scope) or await authenticate(signed, self._keys, self._nonces)
        scope["state"]["caller"] = key.caller
        check_taken(scope)
        scope["state"] |= {"limits": self._limits, "repeats": self._repeats, "given": self._given}
        if "\x00" in scope["path"]:
            raise RouteUnknown
        if body and not self._uploads.are_at(scope["path"]):  # where routing says what is wrong
            check_media_type(scope)
        if is_encrypted(body):
            body = open_fields(body, key.secret, scope["method"], scope["path"])
            check_request(scope["path"], b"", (), body)
        changes = self._changes_since(scope, key)
        if changes:
            body = request_of(changes, scope["method"], scope["path"], body)
            send = OlderAnswers(send, changes)
        scope["state"]["body"] = body
        await cast("Asgi", self._api)(scope, replay(body, receive), send)

    async def serve_for(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        """Route and decode a request of the API for a caller whom a mounted application proved.

        Raises:
            InvalidValue, MediaTypeUnsupported, and what the card watch refuses
        """
        body = scope["state"]["body"]
        if b"%00" in scope["query_string"]:
            raise InvalidValue(param="query", reason="the character U+0000 is not text")
        check_request(scope["path"], scope["query_string"], scope["headers"], body)
        if body:
            check_media_type(scope)
        scope["state"] |= {"caller": caller, "limits": self._limits, "repeats": self._repeats}
        scope["state"]["given"] = self._given
        await cast("Asgi", self._api)(scope, replay(body, receive), send)

    async def _proved(self, scope: Scope) -> SigningKey | None:
        """Return the key of who has just signed another request, where `again` says so.

        Raises:
            KeyRevoked
        """
        proved = scope["state"].get("proved")
        if proved is None:
            return None
        key = await self._keys.find(proved)
        if key is None or key.revoked:
            raise KeyRevoked
        return key

    def _changes_since(self, scope: Scope, key: SigningKey) -> list[Change]:
        """Return what has changed since the version that the sender speaks.

        Raises:
            VersionUnknown
        """
        if self._versions is None:
            return []
        asked = header_of(scope, HEADER)
        version = self._versions.check(asked) if asked else key.version
        return [] if version == CURRENT else self._versions.since(version)

    def _mounted_at(self, path: str) -> str | None:
        """Return the longest mount the path lies under; ``/`` is only the root page itself."""
        under = [at for at in self._mounts if f"{path}/".startswith(f"{at}/")]
        return max(under, key=len, default=None)


def _check_mounted_path(prefix: str | None, path: str) -> None:
    """Refuse text that no database takes, for mounted apps; the API's own paths are proved first.

    Raises:
        RouteUnknown
    """
    if prefix is not None and "\x00" in path:
        raise RouteUnknown


@lru_cache(maxsize=16)
def framework_of(handlers: tuple[HTTPRouteHandler, ...], given: tuple[str, ...]) -> Litestar:
    """Return the framework's part, which knows of an application what its routes are given by name.

    So it is built once for all applications of the same routes: that takes longer than the rest.
    """
    dependencies = {name: Provide(_given(name)) for name in given}
    with warnings.catch_warnings():
        # It infers what an argument is from its name, and warns that its next major will not. We
        # hold this major, and the handlers read better without a marker on every argument.
        warnings.simplefilter("ignore", LitestarDeprecationWarning)
        framework = Litestar(
            list(handlers),
            dependencies={**dependencies, "caller": Provide(_caller)},
            exception_handlers={Exception: _answer_exception},
            before_request=_guard,  # and no guard: for each of those it copies the route's handler
            request_class=ApiRequest,
            request_max_body_size=BODY_MAX,
            openapi_config=None,
            logging_config=None,
            debug=False,
        )
    _look_up_in_line(framework)
    return framework


def _look_up_in_line(framework: Litestar) -> None:
    """Have a route be given one thing after the other.

    The framework would start a task for each, as if any had to be waited for: none of ours has, and
    the tasks were an eighth of all that a small request takes.
    """
    for route in framework.routes:
        for _, wanted in route.route_handler_map.values() if isinstance(route, HTTPRoute) else ():
            wanted.dependency_batches = [{one} for few in wanted.dependency_batches for one in few]


def operations_of(api: Litestar, scopes: Mapping[str, str]) -> list[Operation]:
    """Return every route, or refuse to start when one is open by mistake."""
    found = []
    for route in api.routes:
        if not isinstance(route, HTTPRoute):
            raise RouteWithoutScope(f"{route.path} is not an HTTP route")
        for handler in route.route_handlers:
            for method in sorted(set(handler.http_methods) - {"OPTIONS"}):
                access = access_of(handler.opt)
                # What is answered from a cache is so before any hook is asked.
                hook = None if handler.cache else handler.resolve_before_request()
                if access is None or access.scope not in scopes or hook is not _guard:
                    raise RouteWithoutScope(f"{method} {route.path_format}")
                operation = Operation(str(method), route.path_format, handler, access)
                handler.opt["query"] = {
                    name: frozenset(get_args(kind) or [kind])
                    for name, (kind, _) in operation.query.items()
                }
                found.append(operation)
    return sorted(found, key=lambda each: (each.path, each.method))


async def _guard(request: Request[Any, Any, Any]) -> None:
    """Let a caller through who has the route's scope and sends what the route takes.

    What is not for this caller costs nothing of its rate limit.
    """
    handler, state = request.scope["route_handler"], request.scope["state"]
    access = access_of(handler.opt)
    if access is None or not isinstance(handler, HTTPRouteHandler):  # the framework's own OPTIONS
        raise MethodNotAllowed(allow="GET, POST")
    state["interface"] = access.interface
    access.check(state["caller"])
    if state["body"] and handler.parsed_data_field is None:
        raise BodyUnexpected
    if request.scope["query_string"]:
        check_query(list(request.query_params.multi_items()), handler.opt["query"])
    limits: RateLimits | None = state["limits"]
    if limits is not None:
        state["standing"] = await limits.take(state["caller"], access.cost)


async def _caller(request: Request[Any, Any, Any]) -> Caller:
    return cast("Caller", request.scope["state"]["caller"])


def _given(name: str) -> Callable[..., Awaitable[object]]:
    async def provide(request: Request[Any, Any, Any]) -> object:
        return request.scope["state"]["given"][name]

    return provide


def _answer_exception(request: Request[Any, Any, Any], exception: Exception) -> Response[bytes]:
    refusal = refusal_of_exception(exception)
    if isinstance(refusal, InternalError):
        log.error("request_failed", exc_info=exception)
    problem: Rendered = request.scope["state"]["render"](refusal)
    headers = dict(problem.headers)
    kind = headers.pop("content-type")
    return Response(problem.body, status_code=problem.status, media_type=kind, headers=headers)


def check_media_type(scope: Scope) -> None:
    """Raise unless a body is said to be plain JSON.

    Raises:
        MediaTypeUnsupported
    """
    kind = header_of(scope, b"content-type").partition(";")[0].strip().lower()
    coding = header_of(scope, b"content-encoding").strip().lower()
    if kind != "application/json" or coding not in {"", "identity"}:
        raise MediaTypeUnsupported
