"""Ask a register whether a name, a resident id and a phone belong together.

POST {url}/{source}  {"number", "name", "resident_id", "phone"}
─►  200 {"verdict": "same" | "different", "reference"}; anything else is no answer
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from tongbao.infra.http import HttpClient, HttpSilence
from tongbao.infra.json_door import JsonDoor
from tongbao.infra.settings import Secret

SOURCES: Final = ("residents", "phones", "cards", "tax", "social_security")
UNKNOWN: Final = "unknown"
_TIMEOUT_S: Final = 8.0


class Said(Struct, frozen=True):
    """What a register said; ``unknown`` where it said nothing that can be relied on."""

    verdict: str
    reference: str = ""


class HttpRegister:
    """One register; keeps no state."""

    def __init__(self, http: HttpClient, url: str, token: Secret | None = None) -> None:
        self._door = JsonDoor(http, url, token, timeout_s=_TIMEOUT_S)

    async def ask(self, number: str, *, name: str, resident_id: str, phone: str) -> Said:
        """Ask once; a repeat under the same number is the same question."""
        asked = {"number": number, "name": name, "resident_id": resident_id, "phone": phone}
        try:
            status, said = await self._door.ask(asked, Said)
        except HttpSilence:
            return Said(UNKNOWN)
        return said if status == 200 else Said(UNKNOWN)


def registers_at(
    http: HttpClient, url: str | None, token: Secret | None = None
) -> Mapping[str, HttpRegister]:
    """Return every register below an address; none where there is no address."""
    if url is None:
        return {}
    return {source: HttpRegister(http, f"{url}/{source}", token) for source in SOURCES}
