"""An HTTP client that a function answers in place of a network: for programs' own tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import httpx2 as httpx

Answer = Callable[[str, str, bytes, Mapping[str, str]], tuple[int, bytes]]
"""Given method, path with query, body and headers, returns the status and the JSON of a reply."""


def answered_by(answer: Answer) -> httpx.Client:
    """Return a client to give to `Tongbao` as ``client``, whose requests go to a function."""
    return httpx.Client(transport=_Answered(answer), trust_env=False)


class _Answered(httpx.BaseTransport):
    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        target = request.url.raw_path.decode("ascii")
        status, body = self._answer(request.method, target, request.read(), request.headers)
        kind = "application/json" if status < 400 else "application/problem+json"
        return httpx.Response(status, headers={"content-type": kind}, content=body)
