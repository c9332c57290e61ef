"""Paying out to a customer's account at the channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from msgspec import Struct

from tongbao.kernel.money import Money
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Closed,
    Declined,
    NotSent,
    Pending,
    Succeeded,
    Unknown,
)


class TransferOrder(Struct, frozen=True):
    """Pay somebody from our account at the channel. ``number`` is our idempotency key there."""

    number: str
    payee: str  # openid, user id or login
    payee_kind: str
    payee_name: str | None
    money: Money
    title: str
    scene: str = ""  # the channel's number of the purpose
    notes: Sequence[tuple[str, str]] = ()  # what the channel wants to know of the purpose


TransferOutcome = Succeeded | Pending | Declined | NotSent | Unknown


TransferQueryOutcome = Succeeded | Pending | Declined | Closed | Absent | Unknown


@runtime_checkable
class Transferring(Protocol):
    """Pays out to accounts at the channel."""

    async def transfer(
        self, account: ChannelAccount, order: TransferOrder
    ) -> Answer[TransferOutcome]:
        """Pay out; `Pending` may ask the payee to confirm."""

    async def query_transfer(
        self, account: ChannelAccount, order: TransferOrder
    ) -> Answer[TransferQueryOutcome]:
        """Ask what became of it."""
