"""An HTTP client that a function answers in place of a network: for programs' own tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import httpx2 as httpx

Answer = Callable[[str, str, bytes, Mapping[str, str]], tuple[int, bytes]]
"""Given method, path with query, body and headers, returns the status and the JSON of a reply."""


def answered_by(answer: Answer) -> httpx.Client:
    """Return a client to give to `Tongbao` as ``client``, whose requests go to a function."""

    def reply(request: httpx.Request) -> httpx.Response:
        target = request.url.raw_path.decode("ascii")
        status, body = answer(request.method, target, request.read(), request.headers)
        kind = "application/json" if status < httpx.codes.BAD_REQUEST else _PROBLEM
        return httpx.Response(status, headers={"content-type": kind}, content=body)

    return httpx.Client(transport=httpx.MockTransport(reply), trust_env=False)


_PROBLEM = "application/problem+json"
