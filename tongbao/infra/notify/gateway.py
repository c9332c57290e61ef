"""A gateway for messages that takes JSON over HTTP, as the sandbox's does.

POST {url}  Authorization: Bearer …
{"number", "kind", "to", "title", "text", "language"}  ─►  200 {"reference"} | 422 {"reason"}
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from tongbao.infra.http import HttpClient, HttpSilence
from tongbao.infra.json_door import JsonDoor
from tongbao.infra.notify.model import Answer, Message, NotTaken, Taken, Unclear
from tongbao.infra.settings import Secret

_TIMEOUT_S: Final = 10.0
_SENT: Final = Message.__struct_fields__


class _Reply(Struct, frozen=True):
    reference: str = ""
    reason: str = ""


class HttpGateway:
    """Hands messages to a gateway; keeps no state."""

    def __init__(self, http: HttpClient, url: str, token: Secret | None = None) -> None:
        self._door = JsonDoor(http, url, token, timeout_s=_TIMEOUT_S)

    async def send(self, number: str, message: Message) -> Answer:
        """Hand a message over; any answer but a plain yes or no is none."""
        try:
            asked = {"number": number, **{name: getattr(message, name) for name in _SENT}}
            status, said = await self._door.ask(asked, _Reply)
        except HttpSilence as silence:
            return Unclear(silence.reason)
        if status == 200 and said.reference:
            return Taken(said.reference)
        if status == 422:
            return NotTaken(said.reason[:64] or "refused")
        return Unclear(f"http_{status}")
