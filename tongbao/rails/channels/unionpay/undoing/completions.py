"""Undo a completion on its own day (预授权完成撤销, 33), where a refund gives all of it back.

A refund (04) reaches the customer days later and leaves the fee behind; what is undone on the same
day was never taken. Its authorisation lives again at that moment, so it is let go after it (32).
The refund is done when both are: until then whoever asks about it carries on where it stopped.
"""

from __future__ import annotations

from typing import Protocol

from tongbao.kernel.money import Money
from tongbao.rails.channels.capabilities.authorisations import Voiding, VoidOutcome
from tongbao.rails.channels.contract.orders import ChannelAccount, RefundOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Authorised,
    Closed,
    Declined,
    Exchange,
    NotSent,
    Pending,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.exchange import followed_by
from tongbao.rails.channels.unionpay.answers import Found, MoneyCall
from tongbao.rails.channels.unionpay.wire import (
    AUTHORISATION_CANCEL,
    AUTHORISATIONS,
    COMPLETION_CANCEL,
    LET_GO_SUFFIX,
    UNDONE_SUFFIX,
    Transaction,
    product_of,
)

Undone = Succeeded | Pending | NotSent | Unknown


class Find(Protocol):
    """Asks what became of a transaction."""

    async def __call__(
        self,
        account: ChannelAccount,
        number: str,
        money: Money,
        kinds: frozenset[str],
        *,
        call: MoneyCall = "pay",
    ) -> tuple[Found, Exchange]:
        """Return what was found."""


class Follow(Protocol):
    """Sends a transaction about an earlier one."""

    async def __call__(
        self,
        account: ChannelAccount,
        kind: Transaction,
        number: str,
        money: Money,
        *,
        origin: str,
        product: str,
        call: MoneyCall,
    ) -> Answer[Pending | Declined | NotSent | Unknown]:
        """Return what was said at once."""


class Undoing:
    """One refund of everything a capture took, as the undoing of that capture."""

    def __init__(
        self, account: ChannelAccount, refund: RefundOrder, find: Find, follow: Follow
    ) -> None:
        self._account = account
        self._refund = refund
        self._find = find
        self._follow = follow

    async def undo(self, before: Authorised, origin: str) -> Answer[Undone] | None:
        """Undo the capture; None where UnionPay has not and will not: a refund may be asked for.

        ``origin`` is UnionPay's number of the completion. A repeat says what became of the first.
        """
        refund = self._refund
        asked = await self._follow(
            self._account,
            COMPLETION_CANCEL,
            refund.number + UNDONE_SUFFIX,
            refund.money,
            origin=origin,
            product=self._product(),
            call="refund",
        )
        if isinstance(asked.outcome, NotSent | Unknown) and asked.exchange.status is None:
            return Answer(asked.outcome, asked.exchange)
        refused = isinstance(asked.outcome, Declined)
        return await self._as_found(before, asked.exchange, absent_is_no=refused)

    async def look(self, before: Authorised) -> Answer[Undone] | None:
        """Ask whether the capture was undone, and carry on; None where it was not."""
        return await self._as_found(before, None, absent_is_no=True)

    async def _as_found(
        self, before: Authorised, earlier: Exchange | None, *, absent_is_no: bool
    ) -> Answer[Undone] | None:
        refund = self._refund
        number, kinds = refund.number + UNDONE_SUFFIX, frozenset({COMPLETION_CANCEL.type_})
        found, exchange = await self._find(
            self._account, number, refund.money, kinds, call="refund"
        )
        exchange = exchange if earlier is None else followed_by(earlier, exchange)
        match found:
            case Succeeded():
                return await self._let_go(before, found, exchange)
            case Declined():
                return None
            case Absent() if absent_is_no:
                return None
            case Absent():
                return Answer(Unknown("whether the completion is undone is not known"), exchange)
            case Pending() | Unknown():
                return Answer(found, exchange)

    async def _let_go(
        self, before: Authorised, undone: Succeeded, exchange: Exchange
    ) -> Answer[Undone]:
        """Let the authorisation go that lives again.

        One that UnionPay refuses to let go has ended by itself, or will.
        """
        number, kind = self._refund.number + LET_GO_SUFFIX, AUTHORISATION_CANCEL
        asked = await self._follow(
            self._account,
            kind,
            number,
            before.money,
            origin=before.channel_ref,
            product=self._product(),
            call="refund",
        )
        exchange = followed_by(exchange, asked.exchange)
        found, second = await self._find(
            self._account, number, before.money, frozenset({kind.type_}), call="refund"
        )
        exchange = followed_by(exchange, second)
        is_refused = isinstance(asked.outcome, Declined) and isinstance(found, Absent)
        if isinstance(found, Succeeded | Declined) or is_refused:
            return Answer(undone, exchange)
        return Answer(Unknown("given back, but still set aside as far as is known"), exchange)

    def _product(self) -> str:
        mode = self._refund.order_mode
        kind = AUTHORISATIONS.get(mode) if mode is not None else None
        return product_of(self._account, kind, self._refund.order_app)


async def let_go(
    account: ChannelAccount, voiding: Voiding, find: Find, follow: Follow
) -> Answer[VoidOutcome]:
    """Let an authorisation go that a merchant voids; a repeat says what became of the first."""
    kind, number, money = AUTHORISATION_CANCEL, voiding.number, voiding.money
    product = product_of(account, AUTHORISATIONS[voiding.order.mode], voiding.order.app_id)
    asked = await follow(
        account, kind, number, money, origin=voiding.channel_ref, product=product, call="refund"
    )
    if isinstance(asked.outcome, Pending) or asked.exchange.status is None:
        return Answer(asked.outcome, asked.exchange)
    # Refused: perhaps because an earlier call of this number did it.
    found, second = await find(account, number, money, frozenset({kind.type_}), call="refund")
    exchange = followed_by(asked.exchange, second)
    match found:
        case Succeeded():
            return Answer(Closed(), exchange)
        case Absent():
            return Answer(asked.outcome, exchange)
        case Pending() | Declined() | Unknown():
            return Answer(found, exchange)
