"""What every channel can be asked.

A call has a closed outcome (`outcomes`), and every answer carries the raw exchange, which is the
evidence shown to people.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Protocol

from tongbao.rails.channels.contract.bills import BillLine, BillOutcome, BillTerms
from tongbao.rails.channels.contract.callbacks import Callback, CallbackReply
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode, PayOrder, RefundOrder
from tongbao.rails.channels.contract.outcomes import (
    Answer,
    CloseOutcome,
    Outcome,
    QueryOutcome,
    RefundOutcome,
    RefundQueryOutcome,
)


class Channel(Protocol):
    """A way to move money. Implementations hold no state; time-outs are theirs to set."""

    name: str  # "wechat_pay", "alipay"
    modes: frozenset[PayMode]
    currencies: frozenset[str]
    bill_terms: BillTerms

    async def pay(self, account: ChannelAccount, order: PayOrder) -> Answer[Outcome]:
        """Offer the order to the customer; safe to repeat with the same order."""

    async def query(self, account: ChannelAccount, order: PayOrder) -> Answer[QueryOutcome]:
        """Ask what became of the order."""

    async def close(self, account: ChannelAccount, order: PayOrder) -> Answer[CloseOutcome]:
        """Make the order unpayable; a payment code's order is reversed, which may refund it."""

    async def refund(self, account: ChannelAccount, refund: RefundOrder) -> Answer[RefundOutcome]:
        """Give money back; safe to repeat with the same refund."""

    async def query_refund(
        self, account: ChannelAccount, refund: RefundOrder
    ) -> Answer[RefundQueryOutcome]:
        """Ask what became of the refund."""

    def read_callback(
        self, account: ChannelAccount, headers: Mapping[str, str], body: bytes, now: datetime
    ) -> Callback:
        """Verify a notification on its raw bytes and read it; header names are lower case.

        ``now`` is real time, for the signature's window.

        Raises:
            CallbackForged, CallbackKeyUnknown, CallbackUnreadable
        """

    async def refresh_keys(self, account: ChannelAccount) -> None:
        """Fetch the keys the channel signs with again, at most once a minute per account."""

    def reply_to_callback(self, accepted: bool) -> CallbackReply:
        """Say what the channel wants to hear so that it stops, or goes on, resending."""

    async def download_bill(
        self, account: ChannelAccount, day: date, folder: Path
    ) -> Answer[BillOutcome]:
        """Fetch the day's trade bill into ``folder``."""

    def parse_bill(self, path: Path) -> Iterator[BillLine]:
        """Read a bill as a stream, row by row, never whole in memory."""
