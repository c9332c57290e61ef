"""The OpenAPI document as pages: operations by what they are about, refusals by their code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from tongbao.infra.web.problem import status_of, title_of
from tongbao.kernel.errors import Refusal, leaf_refusals
from tongbao.surfaces.docs_site.schemas import Field, Schemas
from tongbao.surfaces.docs_site.snippets import Call, curl, python, typescript

_METHODS: Final = ("get", "post", "put", "patch", "delete")
_NO_BODY: Final = "204"


class Example(Struct, frozen=True):
    """One way to make a call."""

    name: str
    text: str


class OperationPage(Struct, frozen=True):
    """One method of one path."""

    id: str
    method: str
    path: str
    summary: str
    description: str
    scope: str
    is_idempotent: bool
    parameters: tuple[Field, ...]
    body: tuple[Field, ...]
    reply: tuple[Field, ...]
    reply_status: str
    reply_example: Any
    refusals: tuple[tuple[str, tuple[str, ...]], ...]  # by status, their codes
    examples: tuple[Example, ...]


class Group(Struct, frozen=True):
    """The operations about one thing."""

    tag: str
    operations: tuple[OperationPage, ...]


class Refused(Struct, frozen=True):
    """One refusal of the catalogue."""

    code: str
    status: int
    title: str
    advice: str
    advice_zh: str


def groups_of(document: Mapping[str, Any], url: str) -> tuple[Group, ...]:
    """Return every operation of a document, grouped by its tag, in the order of their paths."""
    schemas = Schemas(document)
    found: dict[str, list[OperationPage]] = {each["name"]: [] for each in document["tags"]}
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods:
                operation = methods[method]
                page = _operation(document, schemas, (method.upper(), path, operation), url)
                found[operation["tags"][0]].append(page)
    return tuple(Group(tag, tuple(operations)) for tag, operations in found.items())


def catalogue() -> tuple[Refused, ...]:
    """Return every refusal the platform can answer with, by code."""
    ours = [kind for kind in leaf_refusals() if kind.__module__.startswith("tongbao.")]
    return tuple(_refused(kind) for kind in sorted(ours, key=lambda kind: kind.code))


def _refused(kind: type[Refusal]) -> Refused:
    return Refused(kind.code, status_of(kind), title_of(kind), kind.advice, kind.advice_zh)


def _operation(
    document: Mapping[str, Any],
    schemas: Schemas,
    place: tuple[str, str, Mapping[str, Any]],
    url: str,
) -> OperationPage:
    method, path, operation = place
    parameters = [_resolved(document, each) for each in operation["parameters"]]
    asked = operation.get("requestBody", {}).get("content", {}).get("application/json")
    status = next(code for code in operation["responses"] if code.startswith("2"))
    answer = operation["responses"][status].get("content", {}).get("application/json")
    is_idempotent = any(each["name"] == "Idempotency-Key" for each in parameters)
    kinds = [each for each in operation.get("requestBody", {}).get("content", {}) if not asked]
    body, file = _body_example(schemas, asked), next(iter(kinds), None)
    call = Call(method, path, is_idempotent, body, file)
    return OperationPage(
        id=operation["operationId"],
        method=method,
        path=path,
        summary=operation["summary"],
        description=operation["description"],
        scope=operation["x-scope"],
        is_idempotent=is_idempotent,
        parameters=tuple(_parameter(schemas, each) for each in parameters),
        body=tuple(schemas.fields(asked["schema"])) if asked else (),
        reply=tuple(schemas.fields(answer["schema"])) if answer else (),
        reply_status=status,
        reply_example=_reply_example(schemas, answer) if answer and status != _NO_BODY else None,
        refusals=tuple(_refusals(operation["responses"])),
        examples=(
            Example("curl", curl(call, url)),
            Example("Python", python(call, url)),
            Example("TypeScript", typescript(call, url)),
        ),
    )


def _resolved(document: Mapping[str, Any], parameter: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in parameter:
        return parameter
    name = parameter["$ref"].rpartition("/")[2]
    found: Mapping[str, Any] = document["components"]["parameters"][name]
    return found


def _parameter(schemas: Schemas, parameter: Mapping[str, Any]) -> Field:
    return schemas.field(
        parameter["name"],
        parameter["schema"],
        required=parameter["required"],
        text=parameter.get("description") or parameter["schema"].get("description", ""),
    )


def _body_example(schemas: Schemas, asked: Mapping[str, Any] | None) -> Any:
    if asked is None:
        return None
    given = asked.get("example") or schemas.example(asked["schema"], everything=False)
    return _spare(given)


def _reply_example(schemas: Schemas, answer: Mapping[str, Any]) -> Any:
    return answer.get("example") or schemas.example(answer["schema"], everything=False)


def _spare(value: Any) -> Any:
    """Return an example without what need not be sent."""
    if isinstance(value, dict):
        kept = {name: _spare(each) for name, each in value.items()}
        return {name: each for name, each in kept.items() if each is not None and each != {}}
    return value


def _refusals(
    responses: Mapping[str, Mapping[str, Any]],
) -> Iterator[tuple[str, tuple[str, ...]]]:
    for status, response in responses.items():
        content: Mapping[str, Any] = response.get("content", {}).get("application/problem+json", {})
        codes: Sequence[str] = list(content.get("examples", {}))
        if codes:
            yield status, tuple(codes)
