"""Settlements and payouts: what the merchant is paid, and what for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from tongbao_sdk.models import Payout, Settlement, SettlementLine
from tongbao_sdk.transport import Transport, path_of


class Settlements:
    """What was settled to the merchant, day by day."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, settlement_id: str) -> Settlement:
        """Return one settlement."""
        return cast("Settlement", self._transport.get(path_of("settlements", settlement_id)))

    def list(self, *, limit: int = 100) -> Iterator[Settlement]:
        """Yield settlements, newest first."""
        return self._transport.pages(path_of("settlements"), limit=limit)

    def lines(self, settlement_id: str, *, limit: int = 100) -> Iterator[SettlementLine]:
        """Yield every movement a settlement is made of."""
        return self._transport.pages(path_of("settlements", settlement_id, "lines"), limit=limit)


class Payouts:
    """What was paid to the merchant's bank account."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, *, limit: int = 100) -> Iterator[Payout]:
        """Yield payouts, newest first."""
        return self._transport.pages(path_of("payouts"), limit=limit)
