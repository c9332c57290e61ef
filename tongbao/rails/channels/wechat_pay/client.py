"""WeChat Pay behind the channel contract: what each call asks, and what its answer means."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Final, assert_never
from urllib.parse import quote

from tongbao.infra.http import HttpClient
from tongbao.kernel.clock import real_now
from tongbao.rails.channels.contract import (
    Absent,
    Answer,
    BillEmpty,
    BillLine,
    BillNotReady,
    BillOutcome,
    Callback,
    CallbackReply,
    ChannelAccount,
    Closed,
    CloseOutcome,
    Declined,
    Exchange,
    NotSent,
    Outcome,
    PayMode,
    PayOrder,
    Pending,
    QueryOutcome,
    RefundOrder,
    RefundOutcome,
    RefundQueryOutcome,
    ShowQr,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.error_map import Entry, error_map
from tongbao.rails.channels.exchange import TimeLimits, decode, followed_by, unsent
from tongbao.rails.channels.wechat_pay import callbacks
from tongbao.rails.channels.wechat_pay.bills import TERMS, fetch_file, parse_trade_bill
from tongbao.rails.channels.wechat_pay.gateway import (
    Answered,
    Gateway,
    Refused,
)
from tongbao.rails.channels.wechat_pay.wire import (
    BillAddress,
    CodeUrl,
    Refund,
    Reversed,
    Transaction,
    code_order,
    encode,
    native_order,
    order_differs,
    order_outcome,
    refund_differs,
    refund_outcome,
    refund_request,
)

ORDERS: Final = "/v3/pay/transactions"
REFUNDS: Final = "/v3/refund/domestic/refunds"

_ERRORS: Final = error_map("wechat_pay")


class WechatPay:
    """Direct mode: Native QR and payment codes of one merchant number per account."""

    name = "wechat_pay"
    modes = frozenset({PayMode.QR, PayMode.PAYMENT_CODE})
    currencies = frozenset({"CNY"})
    bill_terms = TERMS

    def __init__(
        self,
        http: HttpClient,
        *,
        limits: TimeLimits | None = None,
        clock: Callable[[], datetime] = real_now,
    ) -> None:
        self._gateway = Gateway(http, limits or TimeLimits(), clock)

    async def pay(self, account: ChannelAccount, order: PayOrder) -> Answer[Outcome]:
        """Offer a code to scan, or charge the customer's payment code."""
        if reason := _unpayable(order):
            return Answer(NotSent(reason), unsent("POST", account.gateway + ORDERS, reason))
        match order.mode:
            case PayMode.QR:
                target, body = f"{ORDERS}/native", native_order(account, order)
            case PayMode.PAYMENT_CODE:
                target, body = f"{ORDERS}/codepay", code_order(account, order)
            case _:
                reason = f"no {order.mode} here"
                return Answer(NotSent(reason), unsent("POST", account.gateway + ORDERS, reason))
        heard, exchange = await self._gateway.call(
            account, "POST", target, encode(body), hidden=_hidden(order)
        )
        match heard:
            case Answered() if order.mode is PayMode.QR:
                return Answer(_offered(heard.body), exchange)
            case Answered():
                return Answer(_charged(_read_order(heard.body, account, order)), exchange)
            case Refused():
                return await self._pay_refused(account, order, heard, exchange)
            case NotSent() | Unknown():
                return Answer(heard, exchange)
            case _:
                assert_never(heard)

    async def query(self, account: ChannelAccount, order: PayOrder) -> Answer[QueryOutcome]:
        """Ask what became of the order."""
        target = f"{ORDERS}/out-trade-no/{_in_path(order.number)}"
        target = f"{target}?mchid={_in_path(account.merchant_number)}"
        heard, exchange = await self._gateway.call(account, "GET", target, hidden=_hidden(order))
        match heard:
            case Answered():
                return Answer(_read_order(heard.body, account, order), exchange)
            case Refused():
                entry = _ERRORS.find("query", heard.code)
                if entry.meaning == "absent":
                    return Answer(Absent(heard.code), exchange)
                return Answer(Unknown(f"query refused: {heard.code}"), exchange)
            case NotSent() | Unknown():
                return Answer(Unknown(heard.reason), exchange)
            case _:
                assert_never(heard)

    async def close(self, account: ChannelAccount, order: PayOrder) -> Answer[CloseOutcome]:
        """Close a Native order; reverse a payment code's, which gives back what was paid."""
        target = f"{ORDERS}/out-trade-no/{_in_path(order.number)}"
        body = {"mchid": account.merchant_number}
        if order.mode is PayMode.PAYMENT_CODE:
            target, body = f"{target}/reverse", {"appid": account.app_id, **body}
        else:
            target = f"{target}/close"
        heard, exchange = await self._gateway.call(
            account, "POST", target, encode(body), hidden=_hidden(order)
        )
        match heard:
            case Answered() if order.mode is PayMode.QR:
                return Answer(Closed("CLOSED"), exchange)
            case Answered():
                return Answer(_reversed(heard.body, account, order), exchange)
            case Refused():
                return await self._close_refused(account, order, heard, exchange)
            case NotSent() | Unknown():
                return Answer(Unknown(heard.reason), exchange)
            case _:
                assert_never(heard)

    async def refund(self, account: ChannelAccount, refund: RefundOrder) -> Answer[RefundOutcome]:
        """Give money back, all or a part."""
        body = encode(refund_request(account, refund))
        heard, exchange = await self._gateway.call(account, "POST", REFUNDS, body)
        match heard:
            case Answered():
                return Answer(_read_refund(heard.body, refund), exchange)
            case Refused():
                return await self._refund_refused(account, refund, heard, exchange)
            case NotSent() | Unknown():
                return Answer(heard, exchange)
            case _:
                assert_never(heard)

    async def query_refund(
        self, account: ChannelAccount, refund: RefundOrder
    ) -> Answer[RefundQueryOutcome]:
        """Ask what became of the refund."""
        target = f"{REFUNDS}/{_in_path(refund.number)}"
        heard, exchange = await self._gateway.call(account, "GET", target)
        match heard:
            case Answered():
                return Answer(_read_refund(heard.body, refund), exchange)
            case Refused():
                entry = _ERRORS.find("query_refund", heard.code)
                if entry.meaning == "absent":
                    return Answer(Absent(heard.code), exchange)
                return Answer(Unknown(f"refund query refused: {heard.code}"), exchange)
            case NotSent() | Unknown():
                return Answer(Unknown(heard.reason), exchange)
            case _:
                assert_never(heard)

    def read_callback(
        self, account: ChannelAccount, headers: Mapping[str, str], body: bytes, now: datetime
    ) -> Callback:
        """Verify and decrypt a callback.

        Raises:
            CallbackForged, CallbackKeyUnknown, CallbackUnreadable
        """
        return callbacks.read(account, headers, body, keys=self._gateway.keys(account), now=now)

    async def refresh_keys(self, account: ChannelAccount) -> None:
        """Fetch the platform certificates, at most once a minute per account."""
        await self._gateway.refresh_keys(account)

    def reply_to_callback(self, accepted: bool) -> CallbackReply:
        """Return 204, or a failure that asks for the next resend."""
        return callbacks.reply(accepted=accepted)

    async def download_bill(
        self, account: ChannelAccount, day: date, folder: Path
    ) -> Answer[BillOutcome]:
        """Fetch the day's trade bill of all states, unpacked, its SHA-1 verified."""
        target = f"/v3/bill/tradebill?bill_date={day.isoformat()}&bill_type=ALL&tar_type=GZIP"
        heard, exchange = await self._gateway.call(account, "GET", target)
        match heard:
            case Answered():
                path = folder / f"wechat_pay-{account.merchant_number}-{day.isoformat()}.csv"
                return await self._fetch_bill(account, heard.body, path, exchange)
            case Refused():
                return Answer(_no_bill(heard), exchange)
            case NotSent() | Unknown():
                return Answer(Unknown(heard.reason), exchange)
            case _:
                assert_never(heard)

    def parse_bill(self, path: Path) -> Iterator[BillLine]:
        """Read a trade bill row by row."""
        return parse_trade_bill(path)

    async def _pay_refused(
        self, account: ChannelAccount, order: PayOrder, refused: Refused, exchange: Exchange
    ) -> Answer[Outcome]:
        entry = _ERRORS.find("pay", refused.code)
        meant = _meant(entry, refused)
        if not entry.ask:
            return Answer(meant, exchange)
        asked = await self.query(account, order)
        both = followed_by(exchange, asked.exchange)
        match asked.outcome:
            case Succeeded() | Declined():
                return Answer(asked.outcome, both)
            case Pending() if order.mode is PayMode.PAYMENT_CODE:
                return Answer(asked.outcome, both)
            case Closed(code=code):
                return Answer(Declined(code, refused.message), both)
            case Absent():
                return Answer(meant, both)
            case Pending() | Unknown():  # an open QR order whose code we were not given again
                return Answer(Unknown(f"{refused.code}, and the order is not decided"), both)
            case _:
                assert_never(asked.outcome)

    async def _close_refused(
        self, account: ChannelAccount, order: PayOrder, refused: Refused, exchange: Exchange
    ) -> Answer[CloseOutcome]:
        entry = _ERRORS.find("close", refused.code)
        if entry.meaning == "absent":
            return Answer(Absent(refused.code), exchange)
        asked = await self.query(account, order)
        both = followed_by(exchange, asked.exchange)
        match asked.outcome:
            case Succeeded() | Closed() | Absent():
                return Answer(asked.outcome, both)
            case Declined(code=code):
                return Answer(Closed(code), both)
            case Pending() | Unknown():
                return Answer(Unknown(f"not closed: {refused.code}"), both)
            case _:
                assert_never(asked.outcome)

    async def _refund_refused(
        self, account: ChannelAccount, refund: RefundOrder, refused: Refused, exchange: Exchange
    ) -> Answer[RefundOutcome]:
        entry = _ERRORS.find("refund", refused.code)
        meant = _meant(entry, refused)
        if not entry.ask:
            return Answer(meant, exchange)
        asked = await self.query_refund(account, refund)
        both = followed_by(exchange, asked.exchange)
        match asked.outcome:
            case Absent():
                return Answer(meant, both)
            case Succeeded() | Pending() | Declined() | Unknown():
                return Answer(asked.outcome, both)
            case _:
                assert_never(asked.outcome)

    async def _fetch_bill(
        self, account: ChannelAccount, body: bytes, path: Path, exchange: Exchange
    ) -> Answer[BillOutcome]:
        address = decode(body, BillAddress)
        if address is None or address.hash_type != "SHA1":
            return Answer(Unknown("no bill address, or no SHA-1 of it"), exchange)
        found = await fetch_file(self._gateway, account, address, path)
        return Answer(found, exchange)


def _hidden(order: PayOrder) -> tuple[str, ...]:
    return (order.auth_code,) if order.auth_code else ()


def _unpayable(order: PayOrder) -> str | None:
    if order.money.currency not in WechatPay.currencies:
        return f"WeChat Pay does not take {order.money.currency}"
    if order.mode is PayMode.PAYMENT_CODE and not order.auth_code:
        return "there is no payment code"
    return None


def _in_path(number: str) -> str:
    return quote(number, safe="")


def _offered(body: bytes) -> Pending | Unknown:
    answer = decode(body, CodeUrl)
    if answer is None or not answer.code_url:
        return Unknown("the answer holds no code_url")
    return Pending(ShowQr(answer.code_url))


def _charged(
    outcome: Succeeded | Pending | Declined | Closed | Unknown,
) -> Succeeded | Pending | Declined | Unknown:
    return Declined(outcome.code) if isinstance(outcome, Closed) else outcome


def _reversed(body: bytes, account: ChannelAccount, order: PayOrder) -> Closed | Unknown:
    answer = decode(body, Reversed)
    if answer != Reversed(account.merchant_number, order.number):
        return Unknown("the answer does not name the order as reversed")
    return Closed("REVOKED")


def _read_order(
    body: bytes, account: ChannelAccount, order: PayOrder
) -> Succeeded | Pending | Declined | Closed | Unknown:
    transaction = decode(body, Transaction)
    if transaction is None:
        return Unknown("the answer is no transaction")
    if difference := order_differs(transaction, account, order):
        return Unknown(f"contradiction: {difference}")
    return order_outcome(transaction)


def _read_refund(body: bytes, refund: RefundOrder) -> Succeeded | Pending | Declined | Unknown:
    document = decode(body, Refund)
    if document is None:
        return Unknown("the answer is no refund")
    if difference := refund_differs(document, refund):
        return Unknown(f"contradiction: {difference}")
    return refund_outcome(document)


def _meant(entry: Entry, refused: Refused) -> Pending | Declined | NotSent | Unknown:
    match entry.meaning:
        case "declined":
            return Declined(refused.code, refused.message, retry_elsewhere=entry.retry_elsewhere)
        case "not_sent":
            return NotSent(f"{refused.code}: {refused.message}")
        case "pending":
            return Pending(reason=refused.code)
        case _:
            return Unknown(f"{refused.code}: {refused.message}")


def _no_bill(refused: Refused) -> BillNotReady | BillEmpty | Unknown:
    match _ERRORS.find("bill", refused.code).meaning:
        case "empty":
            return BillEmpty(refused.code)
        case "not_ready":
            return BillNotReady(refused.code)
        case _:
            return Unknown(f"{refused.code}: {refused.message}")
