"""Settlements, payouts and their papers, and paying many people by a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, cast

from tongbao_sdk.models import PayoutStatus
from tongbao_sdk.replies import (
    Paper,
    Payout,
    PayoutReceipt,
    Settlement,
    SettlementLine,
    Transfer,
    TransferBatch,
    TransferFileReport,
)
from tongbao_sdk.transport import Transport, path_of

Layout = Literal["csv", "xlsx", "pdf"]


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

    def statement(self, settlement_id: str, layout: Layout = "csv") -> Paper:
        """Return a settlement's statement as a file."""
        path = path_of("settlements", settlement_id, "statement")
        return cast("Paper", self._transport.get(path, layout=layout))

    def quick(self, currency: str = "CNY") -> Settlement:
        """Settle what is there so far and have it paid out at once, for the agreed fee (D+0)."""
        path = path_of("settlements", "quick")
        return cast("Settlement", self._transport.post(path, {"currency": currency}))

    def settle_in_sandbox(self, currency: str = "CNY") -> Settlement:
        """Settle what a sandbox merchant has so far and have it paid out, with nothing agreed.

        Raises:
            Refused, Unanswered
        """
        path = path_of("test_helpers", "settlements")
        return cast("Settlement", self._transport.post(path, {"currency": currency}))


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

    def receipt(self, payout_id: str) -> PayoutReceipt:
        """Return the electronic receipt of a payout that succeeded."""
        path = path_of("payouts", payout_id, "receipt")
        return cast("PayoutReceipt", self._transport.get(path))


class TransferBatches:
    """Paying many people by a file, which is let go on the platform's side."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def send(self, number: str, csv: str, currency: str = "CNY") -> TransferFileReport:
        """Have a file checked and kept; a repeat under the same number keeps it once."""
        body = {"number": number, "csv": csv, "currency": currency}
        path = path_of("transfer-batches")
        return cast("TransferFileReport", self._transport.post(path, body))

    def get(self, transfer_batch_id: str) -> TransferBatch:
        """Return one batch and how far it is."""
        path = path_of("transfer-batches", transfer_batch_id)
        return cast("TransferBatch", self._transport.get(path))

    def list(self, *, limit: int = 100) -> Iterator[TransferBatch]:
        """Yield batches, newest first."""
        return self._transport.pages(path_of("transfer-batches"), limit=limit)

    def transfers(self, transfer_batch_id: str, *, limit: int = 100) -> Iterator[Transfer]:
        """Yield the transfers of a batch in the order of its file."""
        path = path_of("transfer-batches", transfer_batch_id, "transfers")
        return self._transport.pages(path, limit=limit)

    def take_back(self, transfer_id: str) -> Transfer:
        """Take back a transfer that its payee has not confirmed; the money is yours again."""
        path = path_of("transfers", transfer_id, "take_back")
        return cast("Transfer", self._transport.post(path))

    def drop(self, transfer_batch_id: str) -> TransferBatch:
        """Give a batch up that was not let go yet."""
        path = path_of("transfer-batches", transfer_batch_id, "drop")
        return cast("TransferBatch", self._transport.post(path))
