"""Settlements and payouts: what the merchant is paid, and what for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from tongbao_sdk.models import Payout, PayoutStatus, Settlement, SettlementLine
from tongbao_sdk.transport import Transport, path_of


class Settlements:
    """What was settled to the merchant, day by day."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, settlement_id: str) -> Settlement:
        """Return one settlement."""
        return cast("Settlement", self._transport.get(path_of("settlements", settlement_id)))

    def list(
        self, *, day: str | None = None, currency: str | None = None, limit: int = 100
    ) -> Iterator[Settlement]:
        """Yield settlements, newest first; ``day`` is a business day, as 2026-11-21."""
        path = path_of("settlements")
        return self._transport.pages(path, day=day, currency=currency, limit=limit)

    def lines(self, settlement_id: str, *, limit: int = 100) -> Iterator[SettlementLine]:
        """Yield every movement a settlement is made of, in the ledger's order."""
        return self._transport.pages(path_of("settlements", settlement_id, "lines"), limit=limit)


class Payouts:
    """What was paid to the merchant's bank account."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, payout_id: str) -> Payout:
        """Return one payout."""
        return cast("Payout", self._transport.get(path_of("payouts", payout_id)))

    def list(
        self,
        *,
        status: PayoutStatus | None = None,
        settlement_id: str | None = None,
        limit: int = 100,
    ) -> Iterator[Payout]:
        """Yield payouts, newest first."""
        path = path_of("payouts")
        return self._transport.pages(path, status=status, settlement_id=settlement_id, limit=limit)
