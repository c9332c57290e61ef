"""The OpenAPI 3.1 document, generated from the routes themselves, so that it cannot drift.

Types come from the Structs a handler takes and returns, texts from its docstring, security and
errors from its `Access`.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, get_args

import msgspec
from litestar.handlers import HTTPRouteHandler
from litestar.response import Response
from msgspec import Struct

from tongbao.infra.admission import authentication
from tongbao.infra.db_failures import DatabaseUnavailable, LockNotFree
from tongbao.infra.web import idempotency, problem, request, uploads
from tongbao.infra.web.caller import Access, SandboxOnly, ScopeMissing
from tongbao.infra.web.problem import Problem, problem_of, status_of
from tongbao.kernel.errors import Refusal
from tongbao.kernel.pages import PAGE_DEFAULT, PAGE_MAX, CursorInvalid, PageSizeInvalid

_REF: Final = "#/components/schemas/{name}"
_FRAMEWORK_ARGUMENTS: Final = frozenset(
    {"data", "request", "headers", "state", "scope", "cookies", "query", "body", "socket"}
)
_EVERYWHERE: Final[tuple[type[Refusal], ...]] = (
    ScopeMissing,
    problem.InternalError,
    DatabaseUnavailable,
    LockNotFree,
)
_WITH_BODY: Final[tuple[type[Refusal], ...]] = (
    request.MalformedJson,
    request.BodyMissing,
    request.UnknownField,
    request.MissingField,
    request.WrongType,
    request.InvalidValue,
    problem.BodyTooLarge,
    problem.MediaTypeUnsupported,
)
_WITH_FILE: Final[tuple[type[Refusal], ...]] = (
    uploads.UploadTooLarge,
    uploads.UploadTypeUnsupported,
    uploads.UploadDigestMissing,
    uploads.UploadDigestDiffers,
    uploads.UploadIncomplete,
)
_IDEMPOTENT: Final[tuple[type[Refusal], ...]] = (
    request.KeyMissing,
    request.KeyTooLong,
    idempotency.KeyReused,
    idempotency.InFlight,
)
_PAGE_REFUSALS: Final = (("cursor", CursorInvalid), ("limit", PageSizeInvalid))
_SIGNATURE: Final = (
    "`TONGBAO-HMAC-SHA256 key=<key id>,timestamp=<unix seconds>,nonce=<16 to 128 characters>,"
    "signature=<base64>`. The signature is HMAC-SHA256, under the key's secret, of method, path"
    " with query, timestamp, nonce and hex SHA-256 of the body, each followed by a line feed."
    " Without this header a request may be signed as of RFC 9421 instead, tagged `tongbao`, by the"
    " secret or by a key pair of yours: see the how-to."
)


class Security(Struct, frozen=True, kw_only=True):
    """How callers prove themselves, and what they hear who do not."""

    name: str
    scheme: Mapping[str, Any]  # an OpenAPI security scheme
    refuses: tuple[type[Refusal], ...]


SIGNED_BY_KEY: Final = Security(
    name="hmac",
    scheme={
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": _SIGNATURE,
    },
    refuses=(
        authentication.HeaderMissing,
        authentication.HeaderMalformed,
        authentication.KeyUnknown,
        authentication.KeyRevoked,
        authentication.SignatureInvalid,
        authentication.TimestampStale,
        authentication.NonceReplayed,
    ),
)


class ApiFacts(Struct, frozen=True, kw_only=True):
    """What the document says about the API as a whole."""

    title: str
    version: str
    description: str
    public_url: str
    docs_url: str
    scopes: Mapping[str, str]  # name → what a key with it may do
    busy: tuple[type[Refusal], ...] = ()  # what every route that writes once may answer for now
    security: Security = SIGNED_BY_KEY
    bank_code: str = "000000"  # the firm's six digits as of JR/T 0124
    prefix: str = "/v1"  # what comes before the noun that a path is about


class Operation(Struct, frozen=True):
    """One method of one path."""

    method: str
    path: str
    handler: HTTPRouteHandler
    access: Access

    @property
    def name(self) -> str:
        """Return the operation id: the handler function's name."""
        return str(self.handler.handler_name)

    @property
    def body_type(self) -> Any | None:
        """Return the type of the request's body, or None when it takes none."""
        field = self.handler.parsed_data_field
        return field.annotation if field else None

    @property
    def reply_type(self) -> Any | None:
        """Return the type of the answer, or None when it has no body."""
        returned = self.handler.parsed_return_field.annotation
        if inspect.isclass(getattr(returned, "__origin__", None)) and issubclass(
            returned.__origin__, Response
        ):
            returned = get_args(returned)[0]
        return None if returned in {None, type(None)} else returned

    @property
    def query(self) -> dict[str, tuple[Any, bool]]:
        """Return its query parameters: name → (type, whether required)."""
        given = set(self.handler.resolve_dependencies()) | _FRAMEWORK_ARGUMENTS
        return {
            name: (field.raw, field.is_required)
            for name, field in self.handler.parsed_fn_signature.parameters.items()
            if name not in given and f"{{{name}}}" not in self.path
        }

    def refusals(self, security: Security) -> list[type[Refusal]]:
        """Return what may be answered instead, as far as it was declared."""
        found = [*security.refuses, *_EVERYWHERE]
        if self.body_type is not None:
            found += _WITH_BODY
        if self.access.upload is not None:
            found += _WITH_FILE
        if self.query:
            found += [request.UnknownField, request.WrongType]
            found += [refusal for name, refusal in _PAGE_REFUSALS if name in self.query]
        if self.access.idempotent:
            found += _IDEMPOTENT
        if self.access.sandbox_only:
            found.append(SandboxOnly)
        return list(dict.fromkeys([*found, *self.access.refuses]))


def describe(operations: Sequence[Operation], facts: ApiFacts) -> dict[str, Any]:
    """Return the OpenAPI document of the operations."""
    names = [operation.name for operation in operations]
    if doubled := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"operation ids must be unique: {sorted(doubled)}")
    schemas = _Schemas(operations)
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for operation in operations:
        paths[operation.path][operation.method.lower()] = _operation(operation, schemas, facts)
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://spec.openapis.org/oas/3.1/dialect/base",
        "info": {
            "title": facts.title,
            "version": facts.version,
            "description": facts.description,
        },
        "servers": [{"url": facts.public_url}],
        "security": [{facts.security.name: []}],
        "tags": [{"name": tag} for tag in sorted({_tag(each, facts) for each in operations})],
        "paths": dict(paths),
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {facts.security.name: dict(facts.security.scheme)},
            "parameters": {"IdempotencyKey": _IDEMPOTENCY_KEY, "ContentDigest": _CONTENT_DIGEST},
            "headers": _HEADERS,
        },
        "x-scopes": dict(facts.scopes),
    }


_IDEMPOTENCY_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": True,
    "description": "Your own id of this operation: the same on every retry, new for a new one.",
    "schema": {"type": "string", "minLength": 1, "maxLength": request.KEY_LENGTH_MAX},
    "example": "6f1c2d1e-6b0f-4f5a-9d57-3f2f0f6f7a10",
}
_CONTENT_DIGEST: Final = {
    "name": "Content-Digest",
    "in": "header",
    "required": True,
    "description": "SHA-256 of the file, as RFC 9530 writes it; this digest is what is signed.",
    "schema": {"type": "string", "pattern": "^sha-256=:[A-Za-z0-9+/]{43}=:$"},
    "example": "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:",
}
_FILE: Final = {"type": "string", "format": "binary"}
_PAGING: Final[Mapping[str, dict[str, Any]]] = {
    "cursor": {
        "type": "string",
        "description": "`next_cursor` of the page before, exactly as it came.",
    },
    "limit": {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE_DEFAULT},
}
_HEADERS: Final = {
    "RequestId": {
        "description": "The id of this request, for questions to us.",
        "schema": {"type": "string"},
    },
    "IdempotencyReplayed": {
        "description": "`true` when this is the stored answer of an earlier request.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "RetryAfter": {
        "description": "Seconds to wait before the same request is worth repeating.",
        "schema": {"type": "integer"},
    },
}


class _Schemas:
    """All types of the operations as JSON Schema, each named once."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        kinds: list[Any] = [Problem]
        for operation in operations:
            kinds += [operation.body_type, operation.reply_type]
            kinds += [kind for kind, _ in operation.query.values()]
        wanted = [kind for kind in kinds if kind is not None]
        schemas, self.components = msgspec.json.schema_components(wanted, ref_template=_REF)
        self._schemas = {repr(k): schema for k, schema in zip(wanted, schemas, strict=True)}

    def of(self, kind: Any) -> dict[str, Any]:
        return self._schemas[repr(kind)]


def _operation(operation: Operation, schemas: _Schemas, facts: ApiFacts) -> dict[str, Any]:
    summary, _, description = inspect.cleandoc(operation.handler.fn.__doc__ or "").partition("\n\n")
    access = operation.access
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": summary.rstrip("."),
        "description": " ".join(description.partition("Raises:")[0].split()),
        "tags": [_tag(operation, facts)],
        "parameters": list(_parameters(operation, schemas)),
        "responses": _responses(operation, schemas, facts),
        "x-scope": access.scope,
    }
    if access.interface is not None:
        described |= access.interface.described(facts.bank_code)
    if operation.body_type is not None:
        content = _content(schemas.of(operation.body_type), access.request_example)
        described["requestBody"] = {"required": True, "content": {"application/json": content}}
    if access.upload is not None:
        described["requestBody"] = {
            "required": True,
            "description": f"The file itself, at most {access.upload.bytes_max} bytes.",
            "content": {kind: {"schema": _FILE} for kind in access.upload.types},
        }
    return described


def _parameters(operation: Operation, schemas: _Schemas) -> Iterable[dict[str, Any]]:
    for part in operation.path.split("/"):
        if part.startswith("{"):
            schema = {"type": "string", "minLength": 1}
            yield {"name": part[1:-1], "in": "path", "required": True, "schema": schema}
    for name, (kind, required) in operation.query.items():
        schema = _PAGING.get(name) or schemas.of(kind)
        yield {"name": name, "in": "query", "required": required, "schema": schema}
    if operation.access.idempotent:
        yield {"$ref": "#/components/parameters/IdempotencyKey"}
    if operation.access.upload is not None:
        yield {"$ref": "#/components/parameters/ContentDigest"}


def _responses(operation: Operation, schemas: _Schemas, facts: ApiFacts) -> dict[str, Any]:
    headers = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
    done: dict[str, Any] = {"description": "Done.", "headers": dict(headers)}
    if operation.access.idempotent:
        replayed = {"$ref": "#/components/headers/IdempotencyReplayed"}
        done["headers"][idempotency.REPLAYED_HEADER.title()] = replayed
    if operation.reply_type is not None:
        content = _content(schemas.of(operation.reply_type), operation.access.reply_example)
        done["content"] = {"application/json": content}
    responses = {str(operation.handler.status_code): done}

    by_status: dict[int, list[type[Refusal]]] = defaultdict(list)
    busy = facts.busy if operation.access.idempotent else ()
    for refusal in dict.fromkeys([*operation.refusals(facts.security), *busy]):
        by_status[status_of(refusal)].append(refusal)
    for status, refusals in sorted(by_status.items()):
        responses[str(status)] = _problems(refusals, schemas, facts, headers)
    for rest in ("4XX", "5XX"):
        responses[rest] = _problems([], schemas, facts, headers)
    return responses


def _problems(
    refusals: Sequence[type[Refusal]],
    schemas: _Schemas,
    facts: ApiFacts,
    headers: Mapping[str, Any],
) -> dict[str, Any]:
    """Describe the problems of one status, each with an example that is the real thing."""
    listed = ", ".join(f"`{refusal.code}`" for refusal in refusals)
    content: dict[str, Any] = {"schema": schemas.of(Problem)}
    if refusals:
        content["examples"] = {refusal.code: _example(refusal, facts) for refusal in refusals}
    more = dict(headers)
    if any(hasattr(refusal, "retry_after_s") for refusal in refusals):
        more["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
    return {
        "description": f"Not done: {listed}." if listed else "Not done.",
        "headers": more,
        "content": {problem.MEDIA_TYPE: content},
    }


def _example(refusal: type[Refusal], facts: ApiFacts) -> dict[str, Any]:
    shown = problem_of(refusal(), request_id="req_01k9z…", language="en", docs_url=facts.docs_url)
    return {"summary": shown.title, "value": msgspec.to_builtins(shown)}


def _content(schema: dict[str, Any], example: Any) -> dict[str, Any]:
    if example is None:
        return {"schema": schema}
    return {"schema": schema, "example": msgspec.to_builtins(example)}


def _tag(operation: Operation, facts: ApiFacts) -> str:
    """Return the noun the path is about: ``payments`` for ``/v1/payments/{payment_id}/refunds``."""
    below = operation.path.removeprefix(facts.prefix).strip("/")
    return below.partition("/")[0] or facts.prefix.rpartition("/")[2]
