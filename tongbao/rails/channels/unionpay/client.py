"""UnionPay behind the channel contract: what each call asks, and what its answer means."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, timedelta
from pathlib import Path

from tongbao.infra.http import HttpClient
from tongbao.kernel.clock import business_date
from tongbao.kernel.clock import real_now as real_time
from tongbao.kernel.money import Money
from tongbao.rails.channels.capabilities.authorisations import (
    AuthoriseOutcome,
    Capture,
    Voiding,
    VoidOutcome,
)
from tongbao.rails.channels.contract.bills import BillFile, BillLine, BillOutcome
from tongbao.rails.channels.contract.callbacks import Callback, CallbackReply
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode, PayOrder, RefundOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Authorised,
    Closed,
    CloseOutcome,
    Declined,
    Exchange,
    NotSent,
    Outcome,
    Pending,
    QueryOutcome,
    RefundOutcome,
    RefundQueryOutcome,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.exchange import TimeLimits, followed_by, plain_reply, unsent
from tongbao.rails.channels.unionpay import answers, notices
from tongbao.rails.channels.unionpay.bills import TERMS, BillDamaged, parse_trades, unpack
from tongbao.rails.channels.unionpay.gateway import Answered, Gateway, secrets_of
from tongbao.rails.channels.unionpay.undoing.completions import Undoing, Undone, let_go
from tongbao.rails.channels.unionpay.wire import (
    AUTHORISATIONS,
    AUTHORISED,
    BACK_QUERIES,
    CANCEL,
    CANCEL_SUFFIX,
    CANCELLED,
    CAPTURED,
    COMPLETION,
    CURRENCY,
    DONE,
    DUES,
    FILE,
    FRONT,
    FRONT_MODES,
    FRONT_QUERIES,
    PAID,
    PAYMENTS,
    QUESTION,
    REFUND,
    REFUNDED,
    REPEATED,
    Transaction,
    authorisations_of,
    china_text,
    common_fields,
    following_fields,
    is_over,
    order_fields,
    payments_of,
    product_of,
    unpayable,
)


class UnionPay:
    """ACP 5.1.0: the gateway page, the app, QR both ways, and authorisations in all of them.

    An account's ``app_id`` is the product of its gateway page: ``000201`` for people's cards,
    ``000202`` for companies' (B2B); an order may name the other. One of ``000601`` collects dues
    (缴费), by codes that we show.
    """

    name = "unionpay"
    modes = frozenset(PAYMENTS)
    currencies = frozenset({CURRENCY})
    bill_terms = TERMS

    def __init__(
        self,
        http: HttpClient,
        *,
        limits: TimeLimits | None = None,
        clock: Callable[[], datetime] = real_time,
        real_now: Callable[[], datetime] = real_time,
    ) -> None:
        self._gateway = Gateway(http, limits or TimeLimits(), clock=clock, real_now=real_now)

    def query_delays(self, mode: PayMode) -> tuple[timedelta, ...]:
        """Return how long to wait between questions about an order, as UnionPay advises."""
        return FRONT_QUERIES if mode in FRONT_MODES else BACK_QUERIES

    async def pay(self, account: ChannelAccount, order: PayOrder) -> Answer[Outcome]:
        """Offer the page, the app or a code, or charge the customer's code."""
        answer, is_repeat = await self._offer(account, order, payments_of(account))
        if not is_repeat:
            return answer
        asked = await self.query(account, order)
        both = followed_by(answer.exchange, asked.exchange)
        return Answer(
            asked.outcome if isinstance(asked.outcome, Succeeded) else answer.outcome, both
        )

    async def query(self, account: ChannelAccount, order: PayOrder) -> Answer[QueryOutcome]:
        """Ask what became of the order.

        While the customer can still try again at UnionPay, a failure there is none yet, and an
        order nobody opened is `Absent`; when the order's time is over both are final.
        """
        found, exchange = await self._find(
            account, order.number, order.money, PAID, hidden=_hidden(order)
        )
        if order.mode in FRONT_MODES or not isinstance(found, Succeeded):
            return Answer(self._final(order, found), exchange)
        # The payment as such stays a success at UnionPay when we have cancelled it since.
        number = order.number + CANCEL_SUFFIX
        undone, second = await self._find(account, number, order.money, CANCELLED, call="refund")
        exchange = followed_by(exchange, second)
        match undone:
            case Succeeded():
                return Answer(Closed("cancelled"), exchange)
            case Absent() | Declined():
                return Answer(found, exchange)
            case _:
                return Answer(Unknown("its cancellation is not decided"), exchange)

    async def close(self, account: ChannelAccount, order: PayOrder) -> Answer[CloseOutcome]:
        """Find out that the order's time is over, or cancel what a payment code paid.

        UnionPay has no call that closes an order: it ends at the time it was made with.
        """
        found, exchange = await self._find(
            account, order.number, order.money, PAID, hidden=_hidden(order)
        )
        if order.mode not in FRONT_MODES and isinstance(found, Succeeded):
            return await self._cancel(account, order, found, exchange)
        match self._final(order, found):
            case Succeeded() | Closed() as end:
                return Answer(end, exchange)
            case Declined(code=code):
                return Answer(Closed(code), exchange)
            case Absent() as absent if order.mode not in FRONT_MODES:
                return Answer(absent, exchange)
            case Absent():
                return Answer(Unknown("not closed: its time is not over"), exchange)
            case Pending(reason=reason) | Unknown(reason=reason):
                return Answer(Unknown(f"not closed: {reason}"), exchange)

    async def refund(self, account: ChannelAccount, refund: RefundOrder) -> Answer[RefundOutcome]:
        """Give money back against UnionPay's own number of the payment, asked for if need be.

        All of a completion is undone on its own day, which costs nobody anything.
        """
        if refund.authorised is not None and refund.order_ref:
            undone = await self._undo(account, refund, refund.authorised, refund.order_ref)
            if undone is not None:
                return Answer(undone.outcome, undone.exchange)
        if refund.order_ref:
            return await self._refund(account, refund, refund.order_ref)
        kinds = PAID | CAPTURED
        found, exchange = await self._find(account, refund.order_number, refund.order_money, kinds)
        match found:
            case Succeeded(channel_ref=ref):
                answer = await self._refund(account, refund, ref)
                return Answer(answer.outcome, followed_by(exchange, answer.exchange))
            case Absent() | Declined() | Pending():
                return Answer(NotSent("no payment is through that could go back"), exchange)
            case Unknown():
                return Answer(found, exchange)

    async def query_refund(
        self, account: ChannelAccount, refund: RefundOrder
    ) -> Answer[RefundQueryOutcome]:
        """Ask what became of the refund, which may be an undone completion."""
        if refund.authorised is not None:
            undone = await self._undoing(account, refund).look(refund.authorised)
            if undone is not None and not isinstance(undone.outcome, NotSent):
                return Answer(undone.outcome, undone.exchange)
        found, exchange = await self._find(
            account, refund.number, refund.money, REFUNDED, call="refund"
        )
        return Answer(found, exchange)

    async def authorise(self, account: ChannelAccount, order: PayOrder) -> Answer[AuthoriseOutcome]:
        """Set the order's money aside; the customer meets it as a payment."""
        answer, is_repeat = await self._offer(account, order, authorisations_of(account))
        if not is_repeat:
            return Answer(answer.outcome, answer.exchange)
        asked = await self.query_authorisation(account, order)
        both = followed_by(answer.exchange, asked.exchange)
        return Answer(
            asked.outcome if isinstance(asked.outcome, Authorised) else answer.outcome, both
        )

    async def query_authorisation(
        self, account: ChannelAccount, order: PayOrder
    ) -> Answer[Authorised | QueryOutcome]:
        """Ask what became of an authorisation."""
        found, exchange = await self._find(
            account, order.number, order.money, AUTHORISED, hidden=_hidden(order)
        )
        match self._final(order, found):
            case Succeeded(channel_ref=ref, money=money, at=at):
                return Answer(Authorised(ref, money, at), exchange)
            case end:
                return Answer(end, exchange)

    async def capture(self, account: ChannelAccount, capture: Capture) -> Answer[Outcome]:
        """Take the money, once, in full or less (预授权完成)."""
        return await self._follow(
            account,
            COMPLETION,
            capture.number,
            capture.money,
            origin=capture.channel_ref,
            product=product_of(account, AUTHORISATIONS[capture.order.mode], capture.order.app_id),
            call="pay",
        )

    async def query_capture(
        self, account: ChannelAccount, capture: Capture
    ) -> Answer[QueryOutcome]:
        """Ask what became of a capture."""
        found, exchange = await self._find(account, capture.number, capture.money, CAPTURED)
        return Answer(found, exchange)

    async def void(self, account: ChannelAccount, voiding: Voiding) -> Answer[VoidOutcome]:
        """Let an authorisation go (预授权撤销); a repeat says what became of it."""
        return await let_go(account, voiding, self._find, self._follow)

    def read_callback(
        self, account: ChannelAccount, headers: Mapping[str, str], body: bytes, now: datetime
    ) -> Callback:
        """Verify and read a notification, of which UnionPay sends only those of successes.

        Raises:
            CallbackForged, CallbackUnreadable
        """
        del headers  # the signature is in the form
        return notices.read(account, body, now)

    async def refresh_keys(self, account: ChannelAccount) -> None:
        """Do nothing: UnionPay's signing certificate comes with every answer."""

    def reply_to_callback(self, accepted: bool) -> CallbackReply:
        """Return 200, or an error that asks for the next resend."""
        return plain_reply(accepted=accepted)

    async def download_bill(
        self, account: ChannelAccount, day: date, folder: Path
    ) -> Answer[BillOutcome]:
        """Fetch the file of a settlement day, a zip of both its lists."""
        fields = {
            **common_fields(account, "", FILE),
            "channelType": "",
            "txnTime": china_text(self._gateway.now()),
            "settleDate": day.strftime("%m%d"),
            "fileType": "00",
        }
        heard, exchange = await self._gateway.call(account, FILE, fields)
        match heard:
            case Answered() if heard.code == DONE:
                path = folder / f"unionpay-{account.merchant_number}-{day.isoformat()}.zip"
                return Answer(await self._unpack(account, heard, day, path), exchange)
            case Answered():
                return Answer(answers.no_bill(heard), exchange)
            case NotSent() | Unknown():
                return Answer(Unknown(heard.reason), exchange)

    def parse_bill(self, path: Path) -> Iterator[BillLine]:
        """Read the list of trades row by row."""
        return parse_trades(path)

    async def _unpack(
        self, account: ChannelAccount, heard: Answered, day: date, path: Path
    ) -> BillFile | Unknown:
        for name, value in (("merId", account.merchant_number), ("settleDate", f"{day:%m%d}")):
            if heard.fields.get(name, value) != value:
                return Unknown(f"contradiction: {name} is {heard.fields[name][:32]}")
        content = heard.fields.get("fileContent", "")
        try:
            return await asyncio.to_thread(unpack, content, path, account.merchant_number, day)
        except BillDamaged as damage:
            return Unknown(f"the file did not arrive whole: {damage}")

    async def _offer(
        self,
        account: ChannelAccount,
        order: PayOrder,
        kinds: Mapping[PayMode, Transaction],
    ) -> tuple[Answer[Outcome], bool]:
        """Ask for the order; whether the answer is that it was asked for before, and no more."""
        if reason := unpayable(order, kinds):
            return Answer(NotSent(reason), unsent("POST", account.gateway, reason)), False
        kind = kinds[order.mode]
        fields = order_fields(account, order, kind)
        if kind.product == DUES:
            keys = secrets_of(account)
            fields |= {"bussCode": keys.business_code, "termInfo": keys.terminal}
        if kind.path == FRONT:
            form, exchange = await asyncio.to_thread(self._gateway.form, account, kind, fields)
            return Answer(Pending(action=form), exchange), False
        heard, exchange = await self._gateway.call(account, kind, fields, hidden=_hidden(order))
        match heard:
            case Answered() if heard.code == DONE:
                return Answer(answers.offered(heard, account, order), exchange), False
            case Answered():
                refused = Answer(answers.refused("pay", heard), exchange)
                return refused, heard.code == REPEATED
            case NotSent() | Unknown():
                return Answer(heard, exchange), False

    async def _find(
        self,
        account: ChannelAccount,
        number: str,
        money: Money,
        kinds: frozenset[str],
        *,
        call: answers.MoneyCall = "pay",
        hidden: tuple[str, ...] = (),
    ) -> tuple[answers.Found, Exchange]:
        fields = common_fields(account, number, QUESTION)
        heard, exchange = await self._gateway.call(account, QUESTION, fields, hidden=hidden)
        if not isinstance(heard, Answered):
            return Unknown(heard.reason), exchange
        found = answers.found(
            heard, account, number, money, kinds=kinds, call=call, now=self._gateway.now()
        )
        return found, exchange

    def _final(self, order: PayOrder, found: answers.Found) -> QueryOutcome:
        if order.mode not in FRONT_MODES:
            return found
        is_final = is_over(order, self._gateway.now())
        match found:
            case Declined(code=code) if not is_final:
                return Pending(reason=code)
            case Absent(code=code) if is_final:
                return Closed(code)
            case _:
                return found

    def _undoing(self, account: ChannelAccount, refund: RefundOrder) -> Undoing:
        return Undoing(account, refund, self._find, self._follow)

    async def _undo(
        self, account: ChannelAccount, refund: RefundOrder, before: Authorised, origin: str
    ) -> Answer[Undone] | None:
        undoing = self._undoing(account, refund)
        today, taken_at = business_date(self._gateway.now()), refund.captured_at
        if taken_at is not None and business_date(taken_at) == today:
            return await undoing.undo(before, origin)
        return await undoing.look(before)  # it may have been undone before midnight

    async def _refund(
        self, account: ChannelAccount, refund: RefundOrder, origin: str
    ) -> Answer[RefundOutcome]:
        kind = payments_of(account).get(refund.order_mode) if refund.order_mode else None
        return await self._follow(
            account,
            REFUND,
            refund.number,
            refund.money,
            origin=origin,
            product=product_of(account, kind, refund.order_app),
            call="refund",
        )

    async def _follow(
        self,
        account: ChannelAccount,
        kind: Transaction,
        number: str,
        money: Money,
        *,
        origin: str,
        product: str,
        call: answers.MoneyCall,
    ) -> Answer[Pending | Declined | NotSent | Unknown]:
        fields = following_fields(
            account, number, kind, money=money, origin=origin, product=product
        )
        heard, exchange = await self._gateway.call(account, kind, fields)
        match heard:
            case Answered() if heard.code == DONE:
                return Answer(answers.accepted(heard, account, number, money), exchange)
            case Answered():
                return Answer(answers.refused(call, heard), exchange)
            case NotSent() | Unknown():
                return Answer(heard, exchange)

    async def _cancel(
        self, account: ChannelAccount, order: PayOrder, paid: Succeeded, exchange: Exchange
    ) -> Answer[CloseOutcome]:
        """Cancel a payment and ask what became of that; one that cannot be stands as paid."""
        number = order.number + CANCEL_SUFFIX
        asked = await self._follow(
            account,
            CANCEL,
            number,
            order.money,
            origin=paid.channel_ref,
            product=product_of(account, PAYMENTS[order.mode], order.app_id),
            call="refund",
        )
        exchange = followed_by(exchange, asked.exchange)
        if isinstance(asked.outcome, NotSent | Unknown) and asked.exchange.status is None:
            return Answer(Unknown(f"not cancelled: {asked.outcome.reason}"), exchange)
        found, second = await self._find(account, number, order.money, CANCELLED, call="refund")
        exchange = followed_by(exchange, second)
        match found:
            case Succeeded():
                return Answer(Closed("cancelled"), exchange)
            case Declined():
                return Answer(paid, exchange)
            case Absent() if isinstance(asked.outcome, Declined):
                return Answer(paid, exchange)
            case _:
                return Answer(Unknown("its cancellation is not decided"), exchange)


def _hidden(order: PayOrder) -> tuple[str, ...]:
    return (order.auth_code,) if order.auth_code else ()
