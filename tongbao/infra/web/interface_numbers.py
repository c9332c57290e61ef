"""Level and number of an interface that third parties' programs call (JR/T 0185-2020).

A1 is about products and services, A2 about somebody's account or money. The number, U_API_ID,
comes with each answer, stands in the OpenAPI document, and is an interface's own for ever.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from msgspec import Struct

API_ID_HEADER: Final = "x-u-api-id"
_VERSION: Final = "0001"


class Level(StrEnum):
    """How much an interface is about (JR/T 0185-2020, chapter 6)."""

    A1 = "A1"
    A2 = "A2"


class Area(StrEnum):
    """The six digits of the kind of service; 01 is accounts and 02 payments, 00 our own."""

    ENTRANCE = "000001"
    ACCOUNTS = "010001"
    FUNDS = "010002"
    USER_WALLETS = "010003"
    WALLETS = "010004"
    PAYMENTS = "020001"

    def a2(self, number: int) -> InterfaceNumber:
        """Return the number of an interface about somebody's account or money."""
        return InterfaceNumber(Level.A2, self, number)


class InterfaceNumber(Struct, frozen=True):
    """What an interface is about, and which of its service it is."""

    level: Level
    service: Area
    number: int

    def api_id(self, bank_code: str) -> str:
        """Return its U_API_ID: ``OP``, the bank's code, the level, the service, and a number."""
        level = "01" if self.level is Level.A1 else "02"
        return f"OP{bank_code}{level}{self.service.value}{self.number:04d}{_VERSION}"

    def described(self, bank_code: str) -> dict[str, str]:
        """Return what an OpenAPI document says of it."""
        return {"x-security-level": self.level.value, "x-u-api-id": self.api_id(bank_code)}
