"""Who pays: who opened a page in the channel's app (静默授权), what their card has (余额查询)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from msgspec import Struct

from tongbao.kernel.codecs.iso8583_parts import CardBalance
from tongbao.rails.channels.contract.orders import CardRead, ChannelAccount
from tongbao.rails.channels.contract.outcomes import Answer, Declined, NotSent, Unknown


class Identified(Struct, frozen=True, tag="identified"):
    """The channel says who the customer is, to the app that asked."""

    payer_id: str

    def __repr__(self) -> str:  # a person
        return "Identified(…)"


IdentifyOutcome = Identified | Declined | NotSent | Unknown


@runtime_checkable
class Identifying(Protocol):
    """Tells who opened a page inside the channel's app, by sending their browser there and back.

    Nobody can pay on a page inside the app (`PayMode.IN_APP`) without.
    """

    def identity_address(self, account: ChannelAccount, back_url: str, state: str) -> str | None:
        """Return where to send the browser; it comes back with ``code`` and ``state`` added.

        None where the account's keys do not serve for it.
        """

    async def identify(self, account: ChannelAccount, code: str) -> Answer[IdentifyOutcome]:
        """Ask whose code this is; a code serves once."""


class BalanceKnown(Struct, frozen=True, tag="balance"):
    """What a card has, as its issuer says."""

    balances: tuple[CardBalance, ...]


@runtime_checkable
class TellingBalances(Protocol):
    """Asks a card's issuer what the card has (余额查询)."""

    async def balance(
        self, account: ChannelAccount, number: str, card: CardRead
    ) -> Answer[BalanceKnown | Declined | NotSent | Unknown]:
        """Ask; ``number`` is ours of this question. Nothing of it is kept."""
