"""A gateway for messages that takes JSON over HTTP, as the sandbox's does.

POST {url}  Authorization: Bearer …
{"number", "kind", "to", "title", "text", "language"}  ─►  200 {"reference"} | 422 {"reason"}
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from tongbao.infra.http import HttpClient, HttpSilence
from tongbao.infra.notify.model import Answer, Message, NotTaken, Taken, Unclear
from tongbao.infra.settings import Secret

_TIMEOUT_S: Final = 10.0
_REPLY_MAX: Final = 4096


class _Reply(Struct, frozen=True):
    reference: str = ""
    reason: str = ""


class HttpGateway:
    """Hands messages to a gateway; keeps no state."""

    def __init__(self, http: HttpClient, url: str, token: Secret | None = None) -> None:
        self._http = http
        self._url = url
        self._token = token

    async def send(self, number: str, message: Message) -> Answer:
        """Hand a message over; any answer but a plain yes or no is none."""
        body = msgspec.json.encode({"number": number, **msgspec.structs.asdict(message)})
        headers = {"content-type": "application/json"}
        if self._token is not None:
            headers["authorization"] = f"Bearer {self._token.reveal()}"
        try:
            reply = await self._http.send(
                "POST",
                self._url,
                headers,
                body,
                timeout_s=_TIMEOUT_S,
                reply_max_bytes=_REPLY_MAX,
            )
            said = msgspec.json.decode(reply.body, type=_Reply)
        except HttpSilence as silence:
            return Unclear(silence.reason)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return Unclear("unreadable")
        if reply.status == 200 and said.reference:
            return Taken(said.reference)
        if reply.status == 422:
            return NotTaken(said.reason[:64] or "refused")
        return Unclear(f"http_{reply.status}")
