"""A door of somebody else's that takes JSON by POST, behind a bearer token, and answers in JSON."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from tongbao.infra.http import HttpClient, NoAnswerError
from tongbao.infra.settings import Secret

_REPLY_MAX: Final = 4096

R = TypeVar("R")


class JsonDoor:
    """One address; keeps no state."""

    def __init__(
        self, http: HttpClient, url: str, token: Secret | None, *, timeout_s: float
    ) -> None:
        self._http = http
        self._url = url
        self._token = token
        self._timeout_s = timeout_s

    async def ask(self, asked: object, kind: type[R]) -> tuple[int, R]:
        """Send one document, and return the status and the body of what is answered.

        Raises:
            HttpSilence: also where the answer is not what was to be read, as ``unreadable``
        """
        headers = {"content-type": "application/json"}
        if self._token is not None:
            headers["authorization"] = f"Bearer {self._token.reveal()}"
        reply = await self._http.send(
            "POST",
            self._url,
            headers,
            msgspec.json.encode(asked),
            timeout_s=self._timeout_s,
            reply_max_bytes=_REPLY_MAX,
        )
        try:
            return reply.status, msgspec.json.decode(reply.body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise NoAnswerError("unreadable") from None
