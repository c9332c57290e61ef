"""Send signed requests and repeat them safely."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast
from urllib.parse import urlencode
from uuid import uuid4

import httpx2 as httpx

from tongbao_sdk.errors import Refused, Unanswered
from tongbao_sdk.signing import authorization

USER_AGENT = "tongbao-sdk-python/0.1.0"
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
Remember = Callable[[str], None]


class Transport:
    """One platform and one API key. Safe to share between threads."""

    def __init__(
        self,
        url: str,
        key_id: str,
        secret: str,
        *,
        timeout_s: float = 30.0,
        tries_max: int = 4,
        client: httpx.Client | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._key_id = key_id
        self._secret = secret
        self._tries_max = tries_max
        self._client = client or httpx.Client(timeout=timeout_s, trust_env=False)

    def __repr__(self) -> str:
        return f"Transport({self._url!r}, {self._key_id!r})"

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, path: str, **query: object) -> Any:
        """Read a resource or a page."""
        asked = {name: _text(value) for name, value in query.items() if value is not None}
        target = f"{path}?{urlencode(asked)}" if asked else path
        return self._send("GET", target, b"", None)

    def post(
        self,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        idempotency_key: str | None = None,
        remember: Remember | None = None,
        method: str = "POST",
    ) -> Any:
        """Change something, once: the key is fixed before the first try and kept over every one.

        ``remember`` is called with the key before anything is sent, so that a program which dies
        can repeat the call with it.

        Raises:
            Refused: the platform said no.
            Unanswered: nobody answered; repeat with the key it carries.
        """
        key = idempotency_key or str(uuid4())
        if remember is not None:
            remember(key)
        wanted = {name: value for name, value in (body or {}).items() if value is not None}
        content = b"" if body is None else json.dumps(wanted, ensure_ascii=False).encode()
        return self._send(method, path, content, key)

    def pages(self, path: str, **query: object) -> Iterator[dict[str, Any]]:
        """Yield every item of a list, fetching page after page."""
        cursor: str | None = None
        while True:
            page = self.get(path, **query, cursor=cursor)
            yield from page["items"]
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    def _send(self, method: str, target: str, body: bytes, key: str | None) -> Any:
        reason = ""
        for attempt in range(self._tries_max):
            if attempt:
                time.sleep(_pause_s(attempt))
            try:
                reply = self._try(method, target, body, key)
            except httpx.TransportError as failure:
                reason = type(failure).__name__
                continue
            if reply.is_success:
                return reply.json() if reply.content else None
            problem = _problem(reply)
            if reply.status_code in RETRIED or problem.get("code") == "idempotency.in_flight":
                reason = f"{reply.status_code} {problem.get('code', '')}"
                continue
            raise Refused(reply.status_code, problem)
        raise Unanswered(reason, key)

    def _try(self, method: str, target: str, body: bytes, key: str | None) -> httpx.Response:
        headers = {
            "Authorization": authorization(
                self._key_id, self._secret, method=method, target=target, body=body
            ),
            "Accept": "application/json",
            "User-Agent": USER_AGENT,
        }
        if body:
            headers["Content-Type"] = "application/json"
        if key is not None:
            headers["Idempotency-Key"] = key
        return self._client.request(method, self._url + target, content=body, headers=headers)


def _pause_s(attempt: int) -> float:
    """Return how long to wait before this retry: doubling from half a second, with jitter."""
    return float(min(8.0, 0.5 * 2 ** (attempt - 1)) * random.uniform(0.75, 1.25))  # noqa: S311


def _text(value: object) -> str:
    return json.dumps(value) if isinstance(value, dict | bool) else str(value)


def _problem(reply: httpx.Response) -> dict[str, Any]:
    try:
        problem = reply.json()
    except ValueError:
        return {"code": "unreadable_reply", "advice": reply.text[:200]}
    return cast("dict[str, Any]", problem) if isinstance(problem, dict) else {}
