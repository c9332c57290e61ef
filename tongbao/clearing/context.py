"""What clearing works with: the flow of payments, our bank, the keys, a folder for bills."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.payments.collecting.outcomes import Flow
from tongbao.rails.channels.bank_transfer.client import BankTransfer

Progress = Callable[[str, int], None]
"""Hears how far a long command is: the step it is in, and how much of it is done."""


class Clearing(Struct, frozen=True):
    """Built once by wiring. ``folder`` keeps the bills as they came, and may be lost."""

    flow: Flow
    bank: BankTransfer
    keyring: Keyring
    folder: Path

    @property
    def db(self) -> Db:
        """The database of everything here."""
        return self.flow.db


def in_silence(_step: str, _done: int) -> None:
    """Report progress to nobody."""
