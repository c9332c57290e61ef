"""What clearing works with: the flow of payments, our bank, the keys, a folder for bills."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec import Struct

from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.payments.collecting.outcomes import Flow
from tongbao.rails.channels.bank_transfer.client import BankTransfer

Progress = Callable[[str, int], None]
"""Hears how far a long command is: the step it is in, and how much of it is done."""


QUICK_FROM: Final = 8 * 1024 * 1024
"""How many bytes a bill has from which on the fast lane is worth its beginning."""


class Clearing(Struct, frozen=True):
    """Built once by wiring. ``folder`` keeps the bills as they came, and may be lost.

    Bills of ``quick_from`` bytes and more are compared in the fast lane, where there is one.
    """

    flow: Flow
    bank: BankTransfer
    keyring: Keyring
    folder: Path
    quick_from: int = QUICK_FROM

    @property
    def db(self) -> Db:
        """The database of everything here."""
        return self.flow.db


def in_silence(_step: str, _done: int) -> None:
    """Report progress to nobody."""
