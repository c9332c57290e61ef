"""Qra behind the channel contract: what each call asks, and what its answer means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from tongbao.infra.http import HttpClient
from tongbao.kernel.clock import real_now as real_time
from tongbao.rails.channels.contract.bills import BillTerms
from tongbao.rails.channels.contract.callbacks import Callback, CallbackReply
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode, PayOrder, RefundOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
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
    ShowQr,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.error_map import Call, error_map
from tongbao.rails.channels.exchange import TimeLimits, Unfiled, followed_by, plain_reply, unsent
from tongbao.rails.channels.unionpay_qra import notices
from tongbao.rails.channels.unionpay_qra.gateway import (
    Answered,
    Gateway,
    Refused,
    gateway_address,
)
from tongbao.rails.channels.unionpay_qra.wire import (
    CURRENCY,
    differs,
    order_fields,
    paid,
    refund_fields,
    refund_stands,
    stands,
)

_ERRORS: Final = error_map("unionpay_qra")
_REPEATED: Final = frozenset({"ORDERPAID", "OUT_TRADE_NO_USED"})


class Qra(Unfiled):
    """``unified.trade``: a code any wallet scans, and the code of any wallet."""

    name = "unionpay_qra"
    modes = frozenset({PayMode.QR, PayMode.PAYMENT_CODE})
    currencies = frozenset({CURRENCY})
    no_file = "Qra has no file of its day; its acquirer's statement says what was settled"
    bill_terms = BillTerms(
        moved=frozenset(),
        under_way=frozenset(),
        failed=frozenset(),
        returns_refund_fees=False,
        keeps_refund_fees=False,
        quiet_when_empty=True,
    )

    def __init__(
        self,
        http: HttpClient,
        *,
        limits: TimeLimits | None = None,
        clock: Callable[[], datetime] = real_time,
    ) -> None:
        self._gateway = Gateway(http, limits or TimeLimits())
        self._now = clock

    async def pay(self, account: ChannelAccount, order: PayOrder) -> Answer[Outcome]:
        """Offer a code to scan, or charge the customer's code."""
        if reason := _unpayable(order):
            return Answer(NotSent(reason), unsent("POST", gateway_address(account), reason))
        is_code = order.mode is PayMode.PAYMENT_CODE
        service = "unified.trade.micropay" if is_code else "unified.trade.native"
        heard, exchange = await self._gateway.call(
            account, service, order_fields(account, order), hidden=_hidden(order)
        )
        match heard:
            case Answered(fields=fields) if is_code:
                if fields.get("pay_result", "0") != "0":
                    return Answer(Unknown("accepted, and not paid yet"), exchange)
                return Answer(paid(fields, order, self._now()), exchange)
            case Answered(fields=fields):
                return Answer(_offered(fields, order), exchange)
            case Refused():
                return await self._refused(account, order, heard, exchange)
            case NotSent() | Unknown():
                return Answer(heard, exchange)

    async def _refused(
        self, account: ChannelAccount, order: PayOrder, refused: Refused, exchange: Exchange
    ) -> Answer[Outcome]:
        """Return what a refused order means; a repeat may be of what is paid, so it is asked."""
        meant = _meant("pay", refused)
        if refused.code not in _REPEATED:
            return Answer(meant, exchange)
        asked = await self.query(account, order)
        both = followed_by(exchange, asked.exchange)
        paid = asked.outcome
        return Answer(paid if isinstance(paid, Succeeded) else meant, both)

    async def query(self, account: ChannelAccount, order: PayOrder) -> Answer[QueryOutcome]:
        """Ask what became of the order."""
        heard, exchange = await self._gateway.call(
            account, "unified.trade.query", {"out_trade_no": order.number}, hidden=_hidden(order)
        )
        match heard:
            case Answered(fields=fields):
                return Answer(stands(fields, order, self._now()), exchange)
            case Refused():
                return Answer(_absent("query", heard), exchange)
            case NotSent() | Unknown():
                return Answer(Unknown(heard.reason), exchange)

    async def close(self, account: ChannelAccount, order: PayOrder) -> Answer[CloseOutcome]:
        """Close a scanned order; reverse a payment code's, which gives back what was paid.

        Closing says no more than that it was done, so what is refused is asked about.
        """
        is_code = order.mode is PayMode.PAYMENT_CODE
        service = "unified.micropay.reverse" if is_code else "unified.trade.close"
        heard, exchange = await self._gateway.call(
            account, service, {"out_trade_no": order.number}, hidden=_hidden(order)
        )
        match heard:
            case Answered():
                return Answer(Closed("REVERSE" if is_code else "CLOSED"), exchange)
            case NotSent() | Unknown():
                return Answer(Unknown(heard.reason), exchange)
            case Refused() if _ERRORS.find("close", heard.code).meaning == "absent":
                return Answer(Absent(heard.code), exchange)
            case Refused(code=code):
                asked = await self.query(account, order)
                both = followed_by(exchange, asked.exchange)
                match asked.outcome:
                    case Succeeded() | Closed() | Absent():
                        return Answer(asked.outcome, both)
                    case Declined(code=why):
                        return Answer(Closed(why), both)
                    case Pending() | Unknown():
                        return Answer(Unknown(f"not closed: {code}"), both)

    async def refund(self, account: ChannelAccount, refund: RefundOrder) -> Answer[RefundOutcome]:
        """Give money back; the answer says that it was taken on, the query that it is through."""
        heard, exchange = await self._gateway.call(
            account, "unified.trade.refund", refund_fields(account, refund)
        )
        match heard:
            case Answered(fields=fields):
                number, amount = refund.number, str(refund.money.amount)
                if difference := differs(fields, out_refund_no=number, refund_fee=amount):
                    return Answer(Unknown(f"contradiction: {difference}"), exchange)
                return Answer(Pending(reason="accepted"), exchange)
            case Refused():
                return Answer(_meant("refund", heard), exchange)
            case NotSent() | Unknown():
                return Answer(heard, exchange)

    async def query_refund(
        self, account: ChannelAccount, refund: RefundOrder
    ) -> Answer[RefundQueryOutcome]:
        """Ask what became of the refund."""
        heard, exchange = await self._gateway.call(
            account, "unified.trade.refundquery", {"out_refund_no": refund.number}
        )
        match heard:
            case Answered(fields=fields):
                return Answer(refund_stands(fields, refund, self._now()), exchange)
            case Refused():
                return Answer(_absent("query_refund", heard), exchange)
            case NotSent() | Unknown():
                return Answer(Unknown(heard.reason), exchange)

    def read_callback(
        self, account: ChannelAccount, headers: Mapping[str, str], body: bytes, now: datetime
    ) -> Callback:
        """Verify and read a notification.

        Raises:
            CallbackForged, CallbackUnreadable
        """
        del headers  # the signature is in the document
        return notices.read_notice(account, body, now)

    async def refresh_keys(self, account: ChannelAccount) -> None:
        """Do nothing: the shared key is changed by people on both sides."""

    def reply_to_callback(self, accepted: bool) -> CallbackReply:
        """Return ``success``, or a word that asks for the next resend."""
        return plain_reply(accepted=accepted)


def _offered(fields: Mapping[str, str], order: PayOrder) -> Pending | Unknown:
    code = fields.get("code_url", "")
    if fields.get("out_trade_no", order.number) != order.number:
        return Unknown("contradiction: the code is for another order")
    return Pending(action=ShowQr(code)) if code else Unknown("the answer holds no code_url")


def _meant(call: Call, refused: Refused) -> Pending | Declined | NotSent | Unknown:
    """Return what a refused call means; Qra's ``need_query`` can soften a refusal, not make one."""
    entry = _ERRORS.find(call, refused.code)
    match entry.meaning:
        case "pending":
            return Pending(reason=refused.code)
        case "declined" if refused.is_settled:
            return Declined(refused.code, refused.message, retry_elsewhere=entry.retry_elsewhere)
        case "not_sent":
            return NotSent(f"{refused.code}: {refused.message}")
        case _:
            return Unknown(f"{refused.code}: {refused.message}")


def _absent(call: Call, refused: Refused) -> Absent | Unknown:
    if _ERRORS.find(call, refused.code).meaning == "absent":
        return Absent(refused.code)
    return Unknown(f"{refused.code}: {refused.message}")


def _hidden(order: PayOrder) -> tuple[str, ...]:
    return (order.auth_code,) if order.auth_code else ()


def _unpayable(order: PayOrder) -> str | None:
    if order.mode not in Qra.modes:
        return f"no {order.mode} here"
    if order.money.currency not in Qra.currencies:
        return f"Qra does not take {order.money.currency}"
    if order.mode is PayMode.PAYMENT_CODE and not order.auth_code:
        return "there is no payment code"
    return None
