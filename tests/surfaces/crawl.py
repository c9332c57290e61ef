"""Two tenants, one document: whatever the one can see by id, the other must not know exists.

The crawler needs no list of routes: it reads the OpenAPI document, collects every id the owner is
shown, and tries each of them with the stranger's key where the owner can read it, and the youngest
of every kind everywhere else, in paths and in queries.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any, Protocol
from urllib.parse import urlencode
from uuid import uuid4

import msgspec
from msgspec import Struct

from tongbao.kernel.ids import new_id, show

ID = re.compile(r"[a-z]{3}_[0-9a-hjkmnp-tv-z]{26}")
PAGES_MAX = 20
STRANGE_MAX = 5
"""How many ids of a kind are tried where none of the kind was ever of use: the log has hundreds."""
_FILE = b"a file"


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
    file: str | None = None  # the type of file that its body is, if it is one
    needed: tuple[tuple[str, str], ...] = ()  # query parameters it is not served without

    def at(self, resource_id: str) -> str:
        """Return the path for one resource."""
        path = re.sub(r"\{\w+\}", resource_id, self.path)
        return f"{path}?{urlencode(self.needed)}" if self.needed else path


class Crawl(Struct, frozen=True):
    """What was tried and what should not have been possible."""

    ids: frozenset[str]  # everything the owner was shown
    probes: Mapping[str, int]  # operation → how many of the owner's ids it was tried with
    breaches: list[str]
    untried: frozenset[str]  # operations no id of the owner fits: give the crawler more to find


class Seen(Struct):
    """What one client was shown."""

    ids: set[str]
    read: dict[str, set[str]]  # path of a GET → the ids it could be read with


async def crawl(document: Mapping[str, Any], owner: Client, stranger: Client) -> Crawl:
    """Try every id the owner sees as the stranger, and say where that made a difference."""
    operations = list(_operations(document))
    seen = await _seen(operations, owner)
    own = frozenset(seen.ids)
    kinds = {path: {_kind(each) for each in ids} for path, ids in seen.read.items()}
    shared = (await _seen(operations, stranger, kinds)).ids
    breaches = [f"the stranger is shown {each}" for each in sorted(own & shared)]
    probes: dict[str, int] = defaultdict(int)
    for operation in operations:
        name = f"{operation.method} {operation.path}"
        if operation.parameter is not None:
            fitting = sorted(_fitting(operations, operation, seen))
            probes[name] += len(fitting)
            breaches += await _path_breaches(operation, stranger, fitting)
        elif operation.method == "GET":
            for query in operation.queries:
                for each in sorted(_few_of_each_kind(own)) if query.endswith("_id") else ():
                    probes[name] += 1
                    breaches += await _query_breach(operation, stranger, (query, each), own)
    wanted = {f"{each.method} {each.path}" for each in operations if each.parameter is not None}
    tried = {name for name, count in probes.items() if count}
    return Crawl(own, dict(probes), breaches, frozenset(wanted - tried))


async def _path_breaches(operation: Operation, stranger: Client, ids: list[str]) -> list[str]:
    """The stranger's answers must be 404s, and those any made-up id of the kind gets."""
    unknown: dict[str, object] = {}
    breaches = []
    for each in ids:
        if (kind := _kind(each)) not in unknown:
            none = await _send(stranger, operation, operation.at(show(kind, new_id())))
            unknown[kind] = _code(none)
        real = await _send(stranger, operation, operation.at(each))
        where = f"{operation.method} {operation.at(each)}"
        if real.status != 404:
            breaches.append(f"{where} answered {real.status}")
        elif _code(real) != unknown[kind]:
            breaches.append(f"{where} said {_code(real)}, of a made-up id {unknown[kind]}")
    return breaches


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


def _fitting(operations: list[Operation], operation: Operation, seen: Seen) -> set[str]:
    """Return the ids the path is about: those its resource can be read by.

    ``POST /v1/payments/{payment_id}/refunds`` is about what ``GET /v1/payments/{payment_id}``
    returns; where nothing can be read, ids of every kind are tried.
    """
    stem = operation.path[: operation.path.index("}") + 1]
    noun = stem.rpartition("/{")[0].rpartition("/")[2]
    for each in operations:
        if each.method == "GET" and re.fullmatch(rf"/v1/{noun}/\{{\w+\}}", each.path):
            return seen.read[each.path]
    return _worth_trying(operation, seen)


def _few_of_each_kind(ids: Iterable[str]) -> set[str]:
    """Return the youngest ids of every kind."""
    found: dict[str, list[str]] = defaultdict(list)
    for each in sorted(ids, reverse=True):
        found[_kind(each)].append(each)
    return {each for kind in found.values() for each in kind[:STRANGE_MAX]}


def _worth_trying(operation: Operation, seen: Seen) -> set[str]:
    """Return few ids of each kind, and all of a kind that could be read here."""
    fits = {_kind(each) for each in seen.read.get(operation.path, ())}
    return _few_of_each_kind(seen.ids) | {each for each in seen.ids if _kind(each) in fits}


async def _seen(
    operations: list[Operation], client: Client, kinds: Mapping[str, set[str]] | None = None
) -> Seen:
    """Return every id in the lists a client can read, page after page, and behind them.

    Where it is known of which ``kinds`` the ids are that a path can be read with, others are not
    tried there.
    """
    seen = Seen(set(), defaultdict(set))
    for operation in operations:
        if operation.method == "GET" and operation.parameter is None:
            async for body in _pages(operation, client):
                seen.ids |= set(ID.findall(body))
    behind = [each for each in operations if each.method == "GET" and each.parameter is not None]
    behind.sort(key=_is_below)  # what is read, then what is below it
    asked: set[tuple[str, str]] = set()
    while True:
        new = [
            (operation, each)
            for operation in behind
            for each in sorted(
                _fitting(operations, operation, seen)
                if _is_below(operation)
                else _worth_trying(operation, seen)
            )
            if (operation.path, each) not in asked
            and (kinds is None or _kind(each) in kinds.get(operation.path, ()))
        ]
        if not new:
            return seen
        for operation, each in new:
            asked.add((operation.path, each))
            reply = await _send(client, operation, operation.at(each))
            if reply.status == 200:
                seen.read[operation.path].add(each)
                seen.ids |= set(ID.findall(reply.body.decode()))


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
    if operation.file is not None:
        digest = b64encode(sha256(_FILE).digest()).decode()
        headers |= {"content-type": operation.file, "content-digest": f"sha-256=:{digest}:"}
        return await client.send(operation.method, target, body=_FILE, headers=headers)
    if operation.example is None:
        return await client.send(operation.method, target, headers=headers)
    headers["content-type"] = "application/json"
    body = msgspec.json.encode(operation.example)
    return await client.send(operation.method, target, body=body, headers=headers)


def _is_below(operation: Operation) -> bool:
    return not operation.path.endswith("}")


def _kind(resource_id: str) -> str:
    return resource_id.partition("_")[0]


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
                next(iter(content), None) if body is None else None,
                tuple(_needed(document, parameters)),
            )


def _needed(
    document: Mapping[str, Any], parameters: list[dict[str, Any]]
) -> Iterator[tuple[str, str]]:
    """Give every query parameter that has to be there the first word that it takes."""
    for each in parameters:
        if each.get("in") == "query" and each["required"]:
            schema = each["schema"]
            if "$ref" in schema:
                schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
            if "enum" in schema:
                yield each["name"], schema["enum"][0]
