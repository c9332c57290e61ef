"""Cards behind the channel contract: purchases, pre-authorisations, refunds and their undoing.

ISO 8583 knows no inquiry: a request without an answer is not asked about, it is reversed (0400).
`close` of an order is that reversal, and whoever chases an attempt repeats it until it is answered.
Captures and refunds are advices (0220): they are repeated, under the same trace, until answered,
and that is how one asks about them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from tongbao.kernel.codecs.iso8583 import Message
from tongbao.rails.channels.capabilities.authorisations import (
    AuthoriseOutcome,
    Capture,
    Voiding,
    VoidOutcome,
)
from tongbao.rails.channels.capabilities.payers import BalanceKnown
from tongbao.rails.channels.cards import answers
from tongbao.rails.channels.cards.line import LineLimits
from tongbao.rails.channels.cards.lines import Lines
from tongbao.rails.channels.cards.messages import (
    AUTHORISE,
    AUTHORISE_CANCEL,
    BALANCE,
    CAPTURE,
    PURCHASE,
    PURCHASE_CANCEL,
    REFUND,
    REVERSAL,
    TOTALS,
    Unsendable,
    request,
    reversal,
    totals_request,
    trace_of,
)
from tongbao.rails.channels.cards.totals import fits
from tongbao.rails.channels.contract.bills import (
    BatchTotals,
    BillLine,
    BillNotReady,
    BillOutcome,
    BillTerms,
    TotalsAgree,
    TotalsDiffer,
)
from tongbao.rails.channels.contract.orders import (
    CardRead,
    ChannelAccount,
    Detokenise,
    PayMode,
    PayOrder,
    RefundOrder,
)
from tongbao.rails.channels.contract.outcomes import (
    Answer,
    Authorised,
    CloseOutcome,
    Declined,
    NotSent,
    Outcome,
    Pending,
    QueryOutcome,
    RefundOutcome,
    RefundQueryOutcome,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.exchange import Uncalled, unsent

NO_INQUIRY: Final = "ISO 8583 has no inquiry: what was not answered is reversed"
NO_BILL: Final = "no_bill_over_8583"
"""The clearing files of cards (ZM and its like) come from UnionPay, not over this connection. So
nobody waits for one (`Unbilled`); the day's totals are compared instead (`ComparingTotals`)."""

_FOUND_NOTHING: Final = frozenset[str]()


class Cards(Uncalled):
    """One terminal at one card host per account."""

    name = "cards"
    no_bill_because = NO_BILL
    modes = frozenset({PayMode.CARD})
    currencies = frozenset({"CNY"})
    bill_terms = BillTerms(
        moved=_FOUND_NOTHING,
        under_way=_FOUND_NOTHING,
        failed=_FOUND_NOTHING,
        returns_refund_fees=False,
        keeps_refund_fees=False,
        quiet_when_empty=True,
    )

    def __init__(
        self, limits: LineLimits | None = None, detokenise: Detokenise | None = None
    ) -> None:
        self._lines = Lines(limits or LineLimits())
        self._detokenise = detokenise

    async def shut(self) -> None:
        """Close every connection."""
        await self._lines.close()

    # Collecting -----------------------------------------------------------------------------------

    async def pay(self, account: ChannelAccount, order: PayOrder) -> Answer[Outcome]:
        """Take the money from the card that was read, or that a token stands for (0200)."""
        revealed = await self._revealed(order)
        if not isinstance(revealed, PayOrder):
            return Answer(revealed, unsent(PURCHASE.mti, account.gateway, _reason(revealed)))
        order = revealed
        try:
            trace = trace_of(order.number)
            card = _card_of(order, captures=True)
            asked = request(account, PURCHASE, trace, order.money, card=card)
        except Unsendable as fault:
            return _unsent(account, PURCHASE.mti, fault)
        heard, exchange = await self._lines.ask(account, asked, order.card)
        if not isinstance(heard, Message):
            return Answer(heard, exchange)
        return Answer(answers.taken(asked, heard, trace, order.money), exchange)

    async def query(self, account: ChannelAccount, order: PayOrder) -> Answer[QueryOutcome]:
        """Say that nobody can be asked: an order that was not answered is to be closed."""
        del order
        return Answer(Unknown(NO_INQUIRY), unsent(PURCHASE.mti, account.gateway, NO_INQUIRY))

    async def close(self, account: ChannelAccount, order: PayOrder) -> Answer[CloseOutcome]:
        """Reverse the order (0400), whatever became of it; a repeat is the same reversal.

        `Closed` says that no money is taken, or no more. `Absent` says that the host knows no such
        transaction now: proof only when the request can no longer be on its way.
        """
        kind, card = PURCHASE if order.captures else AUTHORISE, _plain(order.card)
        try:
            asked = reversal(
                account, kind, order.number, order.money, card, terminal=order.card_terminal
            )
        except Unsendable as fault:
            return Answer(Unknown(fault.reason), unsent(REVERSAL, account.gateway, fault.reason))
        heard, exchange = await self._lines.ask(account, asked, card)
        if not isinstance(heard, Message):
            return Answer(answers.refused_at_the_door(heard), exchange)
        return Answer(answers.reversed_by(asked, heard), exchange)

    async def refund(self, account: ChannelAccount, refund: RefundOrder) -> Answer[RefundOutcome]:
        """Give money back (0220) of a purchase or of a capture: an advice, safe to repeat."""
        try:
            trace = trace_of(refund.number)
            taken = CAPTURE if refund.of_capture else PURCHASE
            original = (taken.mti, trace_of(refund.order_number))
            asked = request(
                account,
                REFUND,
                trace,
                refund.money,
                terminal=refund.card_terminal,
                original=original,
            )
        except Unsendable as fault:
            return _unsent(account, REFUND.mti, fault)
        heard, exchange = await self._lines.ask(account, asked)
        if not isinstance(heard, Message):
            return Answer(heard, exchange)
        return Answer(answers.taken(asked, heard, trace, refund.money, "refund"), exchange)

    async def query_refund(
        self, account: ChannelAccount, refund: RefundOrder
    ) -> Answer[RefundQueryOutcome]:
        """Repeat the refund's advice, which the host answers as it answered the first."""
        repeated = await self.refund(account, refund)
        return Answer(_found(repeated.outcome), repeated.exchange)

    # Authorise, capture, void ---------------------------------------------------------------------

    async def authorise(self, account: ChannelAccount, order: PayOrder) -> Answer[AuthoriseOutcome]:
        """Set the order's money aside (0100)."""
        revealed = await self._revealed(order)
        if not isinstance(revealed, PayOrder):
            return Answer(revealed, unsent(AUTHORISE.mti, account.gateway, _reason(revealed)))
        order = revealed
        try:
            trace = trace_of(order.number)
            card = _card_of(order, captures=False)
            asked = request(account, AUTHORISE, trace, order.money, card=card)
        except Unsendable as fault:
            return _unsent(account, AUTHORISE.mti, fault)
        heard, exchange = await self._lines.ask(account, asked, order.card)
        if not isinstance(heard, Message):
            return Answer(heard, exchange)
        return Answer(answers.set_aside(asked, heard, trace, order.money), exchange)

    async def query_authorisation(
        self, account: ChannelAccount, order: PayOrder
    ) -> Answer[Authorised | QueryOutcome]:
        """Say that nobody can be asked: an authorisation that was not answered is reversed."""
        del order
        return Answer(Unknown(NO_INQUIRY), unsent(AUTHORISE.mti, account.gateway, NO_INQUIRY))

    async def capture(self, account: ChannelAccount, capture: Capture) -> Answer[Outcome]:
        """Take what was set aside, or less (0220): an advice, safe to repeat."""
        try:
            trace = trace_of(capture.number)
            asked = request(
                account,
                CAPTURE,
                trace,
                capture.money,
                card=_plain(capture.order.card),
                terminal=capture.order.card_terminal,
                original=(AUTHORISE.mti, trace_of(capture.order.number)),
                authorisation_code=capture.authorisation_code,
            )
        except Unsendable as fault:
            return _unsent(account, CAPTURE.mti, fault)
        heard, exchange = await self._lines.ask(account, asked, _plain(capture.order.card))
        if not isinstance(heard, Message):
            return Answer(heard, exchange)
        return Answer(answers.taken(asked, heard, trace, capture.money), exchange)

    async def query_capture(
        self, account: ChannelAccount, capture: Capture
    ) -> Answer[QueryOutcome]:
        """Repeat the capture's advice, which the host answers as it answered the first."""
        repeated = await self.capture(account, capture)
        return Answer(_found(repeated.outcome), repeated.exchange)

    async def void(self, account: ChannelAccount, voiding: Voiding) -> Answer[VoidOutcome]:
        """Cancel an authorisation (0100), or a purchase of an order that captures (0200)."""
        order = voiding.order
        cancel, done = (
            (PURCHASE_CANCEL, PURCHASE) if order.captures else (AUTHORISE_CANCEL, AUTHORISE)
        )
        try:
            asked = request(
                account,
                cancel,
                trace_of(voiding.number),
                voiding.money,
                card=_plain(order.card),
                terminal=order.card_terminal,
                original=(done.mti, trace_of(order.number)),
                authorisation_code=voiding.authorisation_code,
            )
        except Unsendable as fault:
            return _unsent(account, cancel.mti, fault)
        heard, exchange = await self._lines.ask(account, asked, _plain(order.card))
        if not isinstance(heard, Message):
            return Answer(heard, exchange)
        return Answer(answers.cancelled(asked, heard), exchange)

    async def _revealed(self, order: PayOrder) -> PayOrder | Declined | NotSent:
        """Return the order with the card that its token stands for, which is not kept."""
        if order.card is None or order.card.token is None:
            return order
        if self._detokenise is None:
            return NotSent("no vault is here")
        card = await self._detokenise(order.card.token, order)
        return replace(order, card=card) if isinstance(card, CardRead) else card

    # What only cards have -------------------------------------------------------------------------

    async def balance(
        self, account: ChannelAccount, number: str, card: CardRead
    ) -> Answer[BalanceKnown | Declined | NotSent | Unknown]:
        """Ask the issuer what the card has; ``number`` is ours of this question."""
        try:
            asked = request(account, BALANCE, trace_of(number), None, card=card)
        except Unsendable as fault:
            return _unsent(account, BALANCE.mti, fault)
        heard, exchange = await self._lines.ask(account, asked, card)
        if not isinstance(heard, Message):
            return Answer(heard, exchange)
        return Answer(answers.balance(asked, heard), exchange)

    def totals_fit(self, totals: BatchTotals) -> bool:
        """Return whether field 48 can hold the figures: three digits of a count."""
        return fits(totals)

    async def compare_totals(
        self, account: ChannelAccount, number: str, totals: BatchTotals
    ) -> Answer[TotalsAgree | TotalsDiffer | NotSent | Unknown]:
        """Compare the batch's totals with the host's (0500), which closes the batch there.

        ``number`` is ours of the batch. It makes trace and reference, so a repeat is the same
        question, and the host answers it as it answered the first.
        """
        try:
            asked = totals_request(account, number, totals)
        except Unsendable as fault:
            return _unsent(account, TOTALS, fault)
        heard, exchange = await self._lines.ask(account, asked)
        if not isinstance(heard, Message):
            return Answer(heard, exchange)
        return Answer(answers.compared(heard, totals), exchange)

    # What cards do not have -----------------------------------------------------------------------

    async def download_bill(
        self, account: ChannelAccount, day: date, folder: Path
    ) -> Answer[BillOutcome]:
        """Say that there is none here: the clearing files are UnionPay's own."""
        del day, folder
        return Answer(BillNotReady(NO_BILL), unsent(TOTALS, account.gateway, NO_BILL))

    def parse_bill(self, path: Path) -> Iterator[BillLine]:
        """Read nothing: there is no such file."""
        del path
        return iter(())


def _card_of(order: PayOrder, *, captures: bool) -> CardRead:
    if order.captures is not captures:
        raise Unsendable("what only authorises is not paid, and what captures is not authorised")
    if order.card is None:
        raise Unsendable("no card was read")
    return order.card


def _plain(card: CardRead | None) -> CardRead | None:
    """Return a card that was read; what a token stands for is not asked for a second message."""
    return None if card is None or card.token is not None else card


def _reason(outcome: Declined | NotSent) -> str:
    return outcome.code if isinstance(outcome, Declined) else outcome.reason


def _unsent(account: ChannelAccount, mti: str, fault: Unsendable) -> Answer[NotSent]:
    return Answer(NotSent(fault.reason), unsent(mti, account.gateway, fault.reason))


def _found(outcome: Outcome) -> Succeeded | Pending | Declined | Unknown:
    """Return a repeat's outcome as that of a question: what never left says nothing."""
    return Unknown(outcome.reason) if isinstance(outcome, NotSent) else outcome
