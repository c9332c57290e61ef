"""Versions of the API by date: an older one is kept alive by what changed since, undone and redone.

    request in an older form ─► changes since, oldest first ─► route, which knows today's form alone
    answer in today's form   ─► changes since, newest first ─► answer in the older form

A key is made with the version of its day and keeps it; the header `Tongbao-Version` chooses another
for one request. What is stored is always in today's form: keys of two versions see one payment.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from tongbao.infra.web.request import MalformedJson
from tongbao.kernel.errors import Invalid

HEADER: Final = b"tongbao-version"
CURRENT: Final = "2026-11-22"
"""The version that the routes speak."""

Fields = dict[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class VersionUnknown(Invalid):
    """There is no such version of the API, or not any more."""

    code = "request.version_unknown"
    advice = "Send a version between oldest and newest in facts, or leave the header away."
    advice_zh = "请使用更新日志中的版本（范围见 facts），或不发送该请求头。"


class Change(Struct, frozen=True):
    """What one version changed, and how a program of the time before is served.

    ``objects`` names the objects whose form changed, ``older`` writes one in the older form;
    ``routes`` are the requests that changed, ``newer`` reads an older body. Both are given a copy.
    """

    version: str  # the first that has it
    what: str
    objects: frozenset[str] = frozenset()
    older: Callable[[Fields], Fields] = dict
    routes: frozenset[tuple[str, str]] = frozenset()  # method and path
    newer: Callable[[Fields], Fields] = dict


class Versions(Struct, frozen=True):
    """Every version that is spoken: the changes, oldest first, and what was before the first."""

    oldest: str
    changes: tuple[Change, ...]

    @property
    def known(self) -> list[str]:
        """Return the versions, oldest first."""
        return [self.oldest, *dict.fromkeys(change.version for change in self.changes)]

    def check(self, version: str) -> str:
        """Return the version.

        Raises:
            VersionUnknown
        """
        if version not in self.known:
            known = {"oldest": self.known[0], "newest": self.known[-1]}
            raise VersionUnknown(param="Tongbao-Version", **known)
        return version

    def since(self, version: str) -> list[Change]:
        """Return what changed after a version, oldest first."""
        return [change for change in self.changes if change.version > version]


def request_of(changes: Sequence[Change], method: str, path: str, body: bytes) -> bytes:
    """Return a body of an older form in today's.

    Raises:
        MalformedJson
    """
    meant = [change for change in changes if (method, path) in change.routes]
    if not meant or not body:
        return body
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedJson from None
    if not isinstance(value, dict):
        return body
    for change in meant:
        value = change.newer(dict(value))
    return msgspec.json.encode(value)


def answer_of(changes: Sequence[Change], body: bytes) -> bytes:
    """Return an answer of today's form in an older one."""
    value = msgspec.json.decode(body)
    for change in reversed(changes):
        value = _written(value, change)
    return msgspec.json.encode(value)


class OlderAnswers:
    """Sends answers in an older form; problems have always had the one they have."""

    def __init__(self, send: Send, changes: Sequence[Change]) -> None:
        self._send = send
        self._changes = changes
        self._start: MutableMapping[str, Any] | None = None
        self._body = b""

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        """Send a message on, or keep it until the whole answer is there."""
        if message["type"] == "http.response.start" and _is_json(message):
            self._start = message
        elif self._start is None:
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._send_older(self._start)

    async def _send_older(self, start: MutableMapping[str, Any]) -> None:
        body = answer_of(self._changes, self._body) if self._body else b""
        headers = [pair for pair in start["headers"] if pair[0] != b"content-length"]
        headers.append((b"content-length", b"%d" % len(body)))
        await self._send({**start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def _is_json(start: MutableMapping[str, Any]) -> bool:
    kinds = [value for name, value in start["headers"] if name == b"content-type"]
    return kinds == [b"application/json"]


def _written(value: Any, change: Change) -> Any:
    if isinstance(value, list):
        return [_written(each, change) for each in value]
    if not isinstance(value, Mapping):
        return value
    found = {name: _written(each, change) for name, each in value.items()}
    kind = found.get("object")  # an event has a whole thing there
    return change.older(found) if isinstance(kind, str) and kind in change.objects else found
