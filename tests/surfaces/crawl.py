"""Two tenants, one document: whatever the one can see by id, the other must not know exists.

The crawler needs no list of routes: it reads the OpenAPI document, collects every id the owner is
shown, and tries each of them with the stranger's key, in paths and in queries.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Protocol
from uuid import uuid4

import msgspec
from msgspec import Struct

from tongbao.kernel.ids import new_id, show

ID = re.compile(r"[a-z]{3}_[0-9a-hjkmnp-tv-z]{26}")
PAGES_MAX = 20


class Answer(Protocol):
    """What a client gets back."""

    status: int
    body: bytes


class Client(Protocol):
    """Sends signed requests as one merchant."""

    async def send(
        self, method: str, target: str, *, body: bytes = ..., headers: dict[str, str] = ...
    ) -> Answer: ...


class Operation(Struct, frozen=True):
    """One method of one path of the document."""

    method: str
    path: str
    parameter: str | None  # the name of its one path parameter
    queries: tuple[str, ...]  # names of its query parameters
    is_idempotent: bool
    example: Any  # of its body, None when it takes none

    def at(self, resource_id: str) -> str:
        """Return the path for one resource."""
        return re.sub(r"\{\w+\}", resource_id, self.path)


class Crawl(Struct, frozen=True):
    """What was tried and what should not have been possible."""

    ids: frozenset[str]  # everything the owner was shown
    probes: Mapping[str, int]  # operation → how many of the owner's ids it was tried with
    breaches: list[str]
    untried: frozenset[str]  # operations no id of the owner fits: give the crawler more to find


async def crawl(document: Mapping[str, Any], owner: Client, stranger: Client) -> Crawl:
    """Try every id the owner sees as the stranger, and say where that made a difference."""
    operations = list(_operations(document))
    own = frozenset(await _seen(operations, owner))
    shared = await _seen(operations, stranger)
    breaches = [f"the stranger is shown {each}" for each in sorted(own & shared)]
    probes: dict[str, int] = defaultdict(int)
    for operation in operations:
        name = f"{operation.method} {operation.path}"
        if operation.parameter is not None:
            for each in sorted(await _fitting(operations, operation, owner, own)):
                probes[name] += 1
                breaches += await _path_breach(operation, stranger, each)
        elif operation.method == "GET":
            for query in operation.queries:
                for each in sorted(own) if query.endswith("_id") else ():
                    probes[name] += 1
                    breaches += await _query_breach(operation, stranger, (query, each), own)
    wanted = {f"{each.method} {each.path}" for each in operations if each.parameter is not None}
    return Crawl(own, dict(probes), breaches, frozenset(wanted - probes.keys()))


async def _path_breach(operation: Operation, stranger: Client, resource_id: str) -> list[str]:
    """The stranger's answer must be a 404, and the one any made-up id of the kind gets."""
    made_up = show(resource_id[:3], new_id())
    real = await _send(stranger, operation, operation.at(resource_id))
    none = await _send(stranger, operation, operation.at(made_up))
    where = f"{operation.method} {operation.at(resource_id)}"
    if real.status != 404:
        return [f"{where} answered {real.status}"]
    if _code(real) != _code(none):
        return [f"{where} said {_code(real)}, of a made-up id {_code(none)}"]
    return []


async def _query_breach(
    operation: Operation, stranger: Client, query: tuple[str, str], own: frozenset[str]
) -> list[str]:
    """A filter by somebody else's id finds nothing, or is refused without repeating anything."""
    target = f"{operation.path}?{query[0]}={query[1]}"
    reply = await _send(stranger, operation, target)
    shown = set(ID.findall(reply.body.decode())) & own - {query[1]}
    if shown or reply.status >= 500:
        return [f"GET {target} answered {reply.status} with {sorted(shown)}"]
    if reply.status == 200 and query[1] in reply.body.decode():
        return [f"GET {target} knows {query[1]}"]
    return []


async def _fitting(
    operations: list[Operation], operation: Operation, owner: Client, ids: frozenset[str]
) -> set[str]:
    """Return the owner's ids the path is about: those its resource can be read by.

    ``POST /v1/payments/{payment_id}/refunds`` is about what ``GET /v1/payments/{payment_id}``
    returns; where nothing can be read, every id of the owner is tried.
    """
    stem = operation.path[: operation.path.index("}") + 1]
    noun = stem.rpartition("/{")[0].rpartition("/")[2]
    readers = [
        each
        for each in operations
        if each.method == "GET" and re.fullmatch(rf"/v1/{noun}/\{{\w+\}}", each.path)
    ]
    if not readers:
        return set(ids)
    replies = {each: await _send(owner, readers[0], readers[0].at(each)) for each in ids}
    return {each for each, reply in replies.items() if reply.status == 200}


async def _seen(operations: list[Operation], client: Client) -> set[str]:
    """Return every id in the lists a client can read, page after page, and behind them."""
    found: set[str] = set()
    for operation in operations:
        if operation.method == "GET" and operation.parameter is None:
            async for body in _pages(operation, client):
                found |= set(ID.findall(body))
    for operation in operations:
        if operation.method == "GET" and operation.parameter is not None:
            for each in sorted(found):
                reply = await _send(client, operation, operation.at(each))
                if reply.status == 200:
                    found |= set(ID.findall(reply.body.decode()))
    return found


async def _pages(operation: Operation, client: Client) -> AsyncIterator[str]:
    target = operation.path
    for _ in range(PAGES_MAX):
        reply = await _send(client, operation, target)
        if reply.status != 200:
            return
        yield reply.body.decode()
        value = msgspec.json.decode(reply.body)
        cursor = value.get("next_cursor") if isinstance(value, dict) else None
        if cursor is None:
            return
        target = f"{operation.path}?cursor={cursor}"


async def _send(client: Client, operation: Operation, target: str) -> Answer:
    headers = {"idempotency-key": str(uuid4())} if operation.is_idempotent else {}
    if operation.example is None:
        return await client.send(operation.method, target, headers=headers)
    headers["content-type"] = "application/json"
    body = msgspec.json.encode(operation.example)
    return await client.send(operation.method, target, body=body, headers=headers)


def _code(reply: Answer) -> object:
    return msgspec.json.decode(reply.body).get("code")


def _operations(document: Mapping[str, Any]) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        names = re.findall(r"\{(\w+)\}", path)
        if len(names) > 1:
            raise NotImplementedError(f"{path} has two ids: teach the crawler")
        for method, described in methods.items():
            parameters = described.get("parameters", [])
            content = described.get("requestBody", {}).get("content", {})
            body = content.get("application/json")
            if body is not None and "example" not in body and names:
                raise ValueError(f"{method} {path} needs an example of its body")
            yield Operation(
                method.upper(),
                path,
                names[0] if names else None,
                tuple(each["name"] for each in parameters if each.get("in") == "query"),
                any(each.get("$ref", "").endswith("/IdempotencyKey") for each in parameters),
                body["example"] if body and "example" in body else None,
            )
