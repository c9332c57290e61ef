"""Ask a card's bank whether name, resident id, card number and phone belong together (四要素).

POST {url}/bank_cards  {"number", "name", "resident_id", "card_number", "phone"}
─►  200 {"verdict": "same" | "different", "reference", "account_class"}; anything else is no answer
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from tongbao.infra.http import HttpClient, HttpSilence
from tongbao.infra.settings import Secret
from tongbao.rails.registers.client import UNKNOWN

_TIMEOUT_S: Final = 8.0
_REPLY_MAX: Final = 4096
_CLASSES: Final = frozenset({1, 2, 3})


class CardSaid(Struct, frozen=True):
    """What a bank said; ``unknown`` where it said nothing that can be relied on."""

    verdict: str
    reference: str = ""
    account_class: int | None = None


class HttpCardVerifier:
    """One way to the banks; keeps no state."""

    def __init__(self, http: HttpClient, url: str, token: Secret | None = None) -> None:
        self._http = http
        self._url = url
        self._token = token

    async def ask(
        self, number: str, *, name: str, resident_id: str, card_number: str, phone: str
    ) -> CardSaid:
        """Ask once; a repeat under the same number is the same question."""
        headers = {"content-type": "application/json"}
        if self._token is not None:
            headers["authorization"] = f"Bearer {self._token.reveal()}"
        asked = {
            "number": number,
            "name": name,
            "resident_id": resident_id,
            "card_number": card_number,
            "phone": phone,
        }
        try:
            reply = await self._http.send(
                "POST",
                self._url,
                headers,
                msgspec.json.encode(asked),
                timeout_s=_TIMEOUT_S,
                reply_max_bytes=_REPLY_MAX,
            )
            said = msgspec.json.decode(reply.body, type=CardSaid)
        except (HttpSilence, msgspec.DecodeError, UnicodeDecodeError):
            return CardSaid(UNKNOWN)
        if reply.status != 200 or said.account_class not in {*_CLASSES, None}:
            return CardSaid(UNKNOWN)
        return said


def verifier_at(
    http: HttpClient, url: str | None, token: Secret | None = None
) -> HttpCardVerifier | None:
    """Return the way to the banks below an address; None where there is no address."""
    return None if url is None else HttpCardVerifier(http, f"{url}/bank_cards", token)
