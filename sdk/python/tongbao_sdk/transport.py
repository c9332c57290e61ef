"""Send signed requests and repeat them safely."""

from __future__ import annotations

import json
import random
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from typing import Any, Final, Literal, TypedDict, cast
from urllib.parse import quote, urlencode
from uuid import uuid4

import httpx2 as httpx

from tongbao_sdk.errors import Refused, Unanswered
from tongbao_sdk.message_signing import MessageSigner
from tongbao_sdk.signing import authorization

VERSION: Final = "0.1.0"
Language = Literal["en", "zh"]
Remember = Callable[[str], None]
_PAUSE_MAX_S: Final = 8.0
_JSON: Final = "application/json"
_KEY_LENGTH_MAX: Final = 255
# Said before the platform looks whether an earlier try was done, so they say nothing about that.
_SAID_TOO_EARLY: Final = frozenset({401, 403, 408, 413, 429})


class Once(TypedDict, total=False):
    """What makes a call that changes something safe to repeat, by whoever calls it.

    ``idempotency_key`` is the key of an earlier call of the same content, to learn what became of
    it; without one a new key is made. ``remember`` is given the key before anything is sent.
    """

    idempotency_key: str
    remember: Remember


class _NotSettled(Exception):
    """This try did not tell what became of the call; another may."""

    def __init__(self, reason: str, *, wait_s: float = 0.0, refusal: Refused | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_s = wait_s
        self.refusal = refusal  # the platform certainly did nothing in this try


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
        language: Language = "en",
        client: httpx.Client | None = None,
        pause: Callable[[float], None] = time.sleep,
        private_key: str | None = None,
    ) -> None:
        if tries_max < 1:
            raise ValueError("tries_max is at least 1")
        self._url = url.rstrip("/")
        self._key_id = key_id
        self._secret = secret
        self._signer = None if private_key is None else MessageSigner(key_id, private_key)
        self._timeout_s = timeout_s
        self._tries_max = tries_max
        self._language = language
        self._client = client or httpx.Client(trust_env=False)
        self._pause = pause

    def __repr__(self) -> str:
        return f"Transport({self._url!r}, {self._key_id!r})"

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, path: str, **query: object) -> Any:
        """Read a resource or a page.

        Raises:
            Refused, Unanswered
        """
        asked = {name: _text(value) for name, value in query.items() if value is not None}
        return self._send("GET", f"{path}?{urlencode(asked)}" if asked else path, b"", None)

    def post(
        self,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        idempotency_key: str | None = None,
        remember: Remember | None = None,
    ) -> Any:
        """Change something, once: the key is fixed before the first try and kept over every one.

        Raises:
            Refused: the platform said no.
            Unanswered: nobody answered; repeat with the key it carries.
        """
        key = str(uuid4()) if idempotency_key is None else _checked_key(idempotency_key)
        if remember is not None:
            remember(key)
        return self._send("POST", path, _json(body), key)

    def upload(self, path: str, content: bytes, media_type: str, **query: object) -> Any:
        """Send a file as it is, not as JSON; sending the same again changes nothing.

        Raises:
            Refused, Unanswered
        """
        asked = {name: _text(value) for name, value in query.items() if value is not None}
        return self._send("POST", f"{path}?{urlencode(asked)}", content, None, media_type)

    def patch(self, path: str, body: Mapping[str, object]) -> Any:
        """Change what is given and leave the rest; doing it twice changes nothing more.

        Raises:
            Refused, Unanswered
        """
        return self._send("PATCH", path, _json(body), None)

    def delete(self, path: str) -> None:
        """Remove something; what an unanswered try removed already counts as removed.

        Raises:
            Refused, Unanswered
        """
        try:
            self._send("DELETE", path, b"", None)
        except Refused as refused:
            if not (refused.status == httpx.codes.NOT_FOUND and refused.after_unanswered):
                raise

    def pages(self, path: str, **query: object) -> Iterator[Any]:
        """Yield every item of a list, fetching page after page."""
        cursor: str | None = None
        while True:
            page = self.get(path, **{**query, "cursor": cursor})
            yield from page["items"]
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    def _send(
        self, method: str, target: str, body: bytes, key: str | None, media_type: str = _JSON
    ) -> Any:
        unanswered = False
        last = _NotSettled("")
        for attempt in range(self._tries_max):
            if attempt:
                self._pause(max(_pause_s(attempt), min(last.wait_s, _PAUSE_MAX_S)))
            try:
                return _read(self._try(method, target, body, key, media_type))
            except httpx.RequestError as failure:
                last = _NotSettled(type(failure).__name__)
            except _NotSettled as again:
                last = again
            except Refused as refused:
                if not unanswered:
                    raise
                refused.after_unanswered = True
                if refused.status not in _SAID_TOO_EARLY and refused.code != "unreadable_reply":
                    raise
                last = _NotSettled(f"{refused.status} {refused.code}")
                break
            unanswered = unanswered or last.refusal is None
        if last.refusal is not None and not unanswered:
            raise last.refusal
        raise Unanswered(last.reason, key)

    def _try(
        self, method: str, target: str, body: bytes, key: str | None, media_type: str
    ) -> httpx.Response:
        headers = {
            "Accept": "application/json",
            "Accept-Language": self._language,
            "User-Agent": f"tongbao-sdk-python/{VERSION}",
        }
        if body:
            headers["Content-Type"] = media_type
        if media_type != _JSON:
            digest = b64encode(sha256(body).digest()).decode()
            headers["Content-Digest"] = f"sha-256=:{digest}:"
        if key is not None:
            headers["Idempotency-Key"] = key
        request = self._client.build_request(
            method, self._url + target, content=body, headers=headers, timeout=self._timeout_s
        )
        # What is signed is what goes over the wire, however the address was spelt.
        target = request.url.raw_path.decode("ascii")
        if self._signer is not None:
            origin = f"{request.url.scheme}://{request.headers['host'].lower()}"
            request.headers.update(self._signer.headers(method, origin + target, body, headers))
            return self._client.send(request, follow_redirects=False)
        request.headers["Authorization"] = authorization(
            self._key_id, self._secret, method=method, target=target, body=body
        )
        return self._client.send(request, follow_redirects=False)


def path_of(*parts: str) -> str:
    """Return the path of a resource; a part never becomes more than one segment."""
    for part in parts:
        if part.strip(".") == "":
            raise ValueError(f"not an id: {part!r}")
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def _read(reply: httpx.Response) -> Any:
    """Return what was answered.

    Raises:
        Refused: the platform said no.
        _NotSettled: another try may tell.
    """
    if reply.is_success:
        try:
            return reply.json() if reply.content else None
        except ValueError:
            raise _NotSettled(f"{reply.status_code} with an unreadable body") from None
    refused = Refused(reply.status_code, _problem(reply))
    reason = f"{refused.status} {refused.code}"
    if refused.status == httpx.codes.TOO_MANY_REQUESTS:
        raise _NotSettled(reason, wait_s=_wait_s(reply), refusal=refused)
    if reply.is_server_error or refused.code == "idempotency.in_flight":
        raise _NotSettled(reason, wait_s=_wait_s(reply))
    raise refused


def _problem(reply: httpx.Response) -> dict[str, Any]:
    try:
        problem = reply.json()
    except ValueError:
        problem = None
    if isinstance(problem, dict) and "code" in problem:
        return cast("dict[str, Any]", problem)
    return {"code": "unreadable_reply", "advice": f"not from the platform: {reply.text[:200]}"}


def _wait_s(reply: httpx.Response) -> float:
    given = reply.headers.get("retry-after", "")
    return float(given) if given.isascii() and given.isdigit() else 0.0


def _pause_s(attempt: int) -> float:
    """Return how long to wait before this retry: doubling from half a second, with jitter."""
    return float(min(_PAUSE_MAX_S, 0.5 * 2 ** (attempt - 1)) * random.uniform(0.75, 1.25))  # noqa: S311


def _checked_key(key: str) -> str:
    if not (0 < len(key) <= _KEY_LENGTH_MAX and key.isascii() and key.isprintable()):
        raise ValueError("an idempotency key is 1 to 255 printable ASCII characters")
    return key


def _json(body: Mapping[str, object] | None) -> bytes:
    if body is None:
        return b""
    wanted = {name: value for name, value in body.items() if value is not None}
    return json.dumps(wanted, ensure_ascii=False, allow_nan=False).encode()


def _text(value: object) -> str:
    return json.dumps(value) if isinstance(value, dict | bool) else str(value)
