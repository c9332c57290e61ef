"""Which routes take a file as their body: known before a body is read, since theirs is not."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tongbao.infra.serving.asgi import Receive, Scope
from tongbao.infra.serving.openapi import Operation
from tongbao.infra.web.uploads import Incoming, digest_in, incoming_of
from tongbao.kernel.errors import Refusal


class Uploads:
    """The routes of an application that take files."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._routes = [
            (each.method, re.compile(_pattern(each.path)), each.access.upload)
            for each in operations
            if each.access.upload is not None
        ]

    def begin(self, scope: Scope, receive: Receive) -> bool:
        """Tell whether the request's body is a file, and have its route read it.

        What is wrong with its headers is told to whoever has proved itself: see `check_taken`.
        """
        for verb, pattern, upload in self._routes:
            if verb == scope["method"] and pattern.fullmatch(scope["path"]):
                headers = {n.decode("latin-1"): v.decode("latin-1") for n, v in scope["headers"]}
                try:
                    scope["state"]["incoming"] = incoming_of(upload, headers, receive)
                except Refusal as refusal:
                    scope["state"] |= {"not_taken": refusal, "digest": digest_in(headers)}
                return True
        return False

    def are_at(self, path: str) -> bool:
        """Tell whether files are sent to this path, by whatever method."""
        return any(pattern.fullmatch(path) for _, pattern, _ in self._routes)


def _pattern(path: str) -> str:
    """Return a route's path as a pattern; what stands in braces is one part of the path."""
    parts = ("[^/]+" if each.startswith("{") else re.escape(each) for each in path.split("/"))
    return "/".join(parts)


def digest_of(scope: Scope) -> bytes | None:
    """Return the digest that a file is signed by; None where the body is no file."""
    incoming: Incoming | None = scope["state"].get("incoming")
    digest: bytes | None = scope["state"].get("digest")
    return digest if incoming is None else incoming.digest


def check_taken(scope: Scope) -> None:
    """Raise where the headers of a file tell of one that its route does not take.

    Raises:
        UploadTooLarge, UploadTypeUnsupported, UploadDigestMissing
    """
    refusal: Refusal | None = scope["state"].get("not_taken")
    if refusal is not None:
        raise refusal
