"""Alipay behind the channel contract: what each call asks, and what its answer means."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, assert_never
from urllib.parse import quote, urlencode

from tongbao.infra.http import HttpClient, NoAnswerError, NotSentError
from tongbao.kernel.clock import real_now
from tongbao.rails.channels.alipay import answers, notices
from tongbao.rails.channels.alipay.bills import (
    FILE_MAX,
    FUNDS,
    TERMS,
    TRADES,
    BillDamaged,
    check_archive,
    parse_trade_bill,
)
from tongbao.rails.channels.alipay.complaints.calls import AlipayComplaints
from tongbao.rails.channels.alipay.gateway import (
    Answered,
    Gateway,
    Refused,
    gateway_address,
    secrets_of,
)
from tongbao.rails.channels.alipay.products.agreements import AlipayAgreements
from tongbao.rails.channels.alipay.products.parking import AlipayParking, car_of
from tongbao.rails.channels.alipay.products.refunds import AlipayRefunds
from tongbao.rails.channels.alipay.products.splits import AlipaySplits
from tongbao.rails.channels.alipay.products.transfers import AlipayTransfers
from tongbao.rails.channels.alipay.registering.sub_merchants import AlipaySubMerchants
from tongbao.rails.channels.alipay.wire import (
    PAGES,
    UNDONE,
    BillAddress,
    agreement_pay_content,
    create_content,
    page_content,
    pay_content,
    precreate_content,
)
from tongbao.rails.channels.contract.bills import BillFile, BillLine, BillOutcome
from tongbao.rails.channels.contract.callbacks import Callback, CallbackReply
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode, PayOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Closed,
    CloseOutcome,
    Declined,
    Exchange,
    NextAction,
    NotSent,
    OpenApp,
    Outcome,
    Pending,
    QueryOutcome,
    Redirect,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.error_map import error_map
from tongbao.rails.channels.exchange import TimeLimits, decode, followed_by, unsent

PAGE_GRACE: Final = timedelta(minutes=1)
"""How long after a page's time Alipay may still be taking money on it: its clock, not ours."""

_ERRORS: Final = error_map("alipay")


class Alipay(
    AlipayRefunds,
    AlipaySplits,
    AlipayTransfers,
    AlipayAgreements,
    AlipayParking,
    AlipaySubMerchants,
    AlipayComplaints,
):
    """The OpenAPI gateway: every way to pay, and the products beside it in `products`."""

    name = "alipay"
    modes = frozenset(
        {
            *(PayMode.QR, PayMode.PAYMENT_CODE, PayMode.IN_APP),
            *(PayMode.WEB, PayMode.H5, PayMode.APP, PayMode.AGREEMENT),
        }
    )
    currencies = frozenset({"CNY"})
    bill_terms = TERMS
    further_bills = frozenset({"funds"})

    def __init__(
        self,
        http: HttpClient,
        *,
        limits: TimeLimits | None = None,
        clock: Callable[[], datetime] = real_now,
    ) -> None:
        self._gateway = Gateway(http, limits or TimeLimits(), clock)

    async def pay(self, account: ChannelAccount, order: PayOrder) -> Answer[Outcome]:
        """Offer a code or a trade, charge a payment code, or sign what the customer brings.

        Alipay's own pages are signed here and no call is made: there is no trade until the customer
        comes, and what was signed stays good until the order's time is over.
        """
        if reason := _unpayable(order):
            return Answer(NotSent(reason), unsent("POST", gateway_address(account), reason))
        if order.visit is not None:
            return await self._pay_fee(account, order)
        match order.mode:
            case PayMode.QR:
                method, content = "alipay.trade.precreate", precreate_content(order)
            case PayMode.PAYMENT_CODE:
                method, content = "alipay.trade.pay", pay_content(order)
            case PayMode.IN_APP:
                method, content = "alipay.trade.create", create_content(order, account.app_id)
            case PayMode.AGREEMENT:
                method, content = "alipay.trade.pay", agreement_pay_content(order)
            case _:
                return await asyncio.to_thread(self._pay_on_page, account, order)
        heard, exchange = await self._gateway.call(
            account,
            method,
            {**content, **_extra(account, order)},
            notify=True,
            hidden=_hidden(order),
        )
        match heard:
            case Answered():
                read = _READ_PAID[order.mode]
                return Answer(read(heard.node, order), exchange)
            case Refused():
                return await self._pay_refused(account, order, heard, exchange)
            case NotSent() | Unknown():
                return Answer(heard, exchange)
            case _:
                assert_never(heard)

    async def _pay_fee(self, account: ChannelAccount, order: PayOrder) -> Answer[Outcome]:
        """Take a parking fee, or only ask about it where the stay is not known any more."""
        if order.stay is not None:
            car = car_of(order.stay.visit)
            answer = await self.pay_parking(account, order, car)
            if not isinstance(answer.outcome, Unknown):
                return answer
            asked = await self.query(account, order)
            both = followed_by(answer.exchange, asked.exchange)
        else:
            asked = await self.query(account, order)
            both = asked.exchange
        match asked.outcome:
            case Absent(code=code):
                return Answer(Unknown(f"{code}: the fee is not there"), both)
            case Closed(code=code):
                return Answer(Declined(code), both)
            case Succeeded() | Pending() | Declined() | Unknown():
                return Answer(asked.outcome, both)
            case _:
                assert_never(asked.outcome)

    async def query(self, account: ChannelAccount, order: PayOrder) -> Answer[QueryOutcome]:
        """Ask what became of the order; a code nobody scanned yet has no trade: `Absent`."""
        heard, exchange = await self._gateway.call(
            account,
            "alipay.trade.query",
            {"out_trade_no": order.number},
            hidden=_hidden(order),
        )
        found = answers.read_or_absent(heard, "query", lambda node: answers.traded(node, order))
        return Answer(found, exchange)

    async def close(self, account: ChannelAccount, order: PayOrder) -> Answer[CloseOutcome]:
        """Close an open trade; cancel a charge, which gives back what was paid.

        A code that nobody scanned is no trade yet and cannot be closed, so it is cancelled, which
        makes it unpayable; who scans and pays in between gets the money back by that. A page nobody
        opened cannot even be cancelled: until its time is over it is `Unknown`.
        """
        asked_at = self._gateway.now()
        is_charge = order.mode in _CHARGES
        method = "alipay.trade.cancel" if is_charge else "alipay.trade.close"
        heard, exchange = await self._gateway.call(
            account, method, {"out_trade_no": order.number}, hidden=_hidden(order)
        )
        match heard:
            case Answered():
                return Answer(answers.undone(heard.node, order, cancelled=is_charge), exchange)
            case Refused():
                return await self._close_refused(account, order, heard, exchange, asked_at=asked_at)
            case NotSent() | Unknown():
                return Answer(Unknown(heard.reason), exchange)
            case _:
                assert_never(heard)

    def read_callback(
        self, account: ChannelAccount, headers: Mapping[str, str], body: bytes, now: datetime
    ) -> Callback:
        """Verify and read a notification; Alipay signs no time of sending that ages.

        Raises:
            CallbackForged, CallbackKeyUnknown, CallbackUnreadable
        """
        del headers, now  # the signature is in the form, and the form is signed at each resend
        return notices.read(account, body, partial(self._gateway.key_of_notice, account))

    async def refresh_keys(self, account: ChannelAccount) -> None:
        """Fetch the certificate a notification named, in certificate mode.

        A bare public key is changed by people on both sides.
        """
        await self._gateway.refresh_keys(account)

    def reply_to_callback(self, accepted: bool) -> CallbackReply:
        """Return ``success``, or a word that asks for the next resend."""
        return notices.reply(accepted=accepted)

    async def download_bill(
        self, account: ChannelAccount, day: date, folder: Path
    ) -> Answer[BillOutcome]:
        """Fetch the day's trade bill, a zip."""
        return await self._download(account, "trade", day, folder)

    async def download_further_bill(
        self, account: ChannelAccount, kind: str, day: date, folder: Path
    ) -> Answer[BillOutcome]:
        """Fetch the day's bill of ``funds``, a zip that `bills.parse_fund_bill` reads."""
        if kind not in self.further_bills:
            reason = f"no bill of {kind[:32]} here"
            return Answer(Unknown(reason), unsent("GET", gateway_address(account), reason))
        return await self._download(account, "signcustomer", day, folder)

    async def _download(
        self, account: ChannelAccount, bill_type: str, day: date, folder: Path
    ) -> Answer[BillOutcome]:
        heard, exchange = await self._gateway.call(
            account,
            "alipay.data.dataservice.bill.downloadurl.query",
            {"bill_type": bill_type, "bill_date": day.isoformat()},
        )
        match heard:
            case Answered():
                stem = "alipay" if bill_type == "trade" else "alipay-funds"
                path = folder / f"{stem}-{account.merchant_number}-{day.isoformat()}.zip"
                contents = TRADES if bill_type == "trade" else FUNDS
                fetched = await self._fetch_bill(account, heard.node, path, contents)
                return Answer(fetched, exchange)
            case Refused():
                return Answer(answers.no_bill(heard), exchange)
            case NotSent() | Unknown():
                return Answer(Unknown(heard.reason), exchange)
            case _:
                assert_never(heard)

    def parse_bill(self, path: Path) -> Iterator[BillLine]:
        """Read a trade bill row by row."""
        return parse_trade_bill(path)

    def _pay_on_page(self, account: ChannelAccount, order: PayOrder) -> Answer[Outcome]:
        method, _ = PAGES[order.mode]
        fields, exchange = self._gateway.signed_form(
            account,
            method,
            {**page_content(order), **_extra(account, order)},
            return_url=order.return_url,
        )
        carried = urlencode(fields, quote_via=quote)
        action: NextAction = (
            OpenApp({"orderString": carried})
            if order.mode is PayMode.APP
            else Redirect(f"{gateway_address(account)}?{carried}")
        )
        return Answer(Pending(action=action), exchange)

    async def _pay_refused(
        self, account: ChannelAccount, order: PayOrder, refused: Refused, exchange: Exchange
    ) -> Answer[Outcome]:
        entry = _ERRORS.find("pay", refused.sub_code, refused.code)
        meant = answers.meant(entry, refused)
        if not entry.ask:
            return Answer(meant, exchange)
        asked = await self.query(account, order)
        both = followed_by(exchange, asked.exchange)
        match asked.outcome:
            case Succeeded() | Declined():
                return Answer(asked.outcome, both)
            case Pending() if order.mode in _CHARGES:
                return Answer(asked.outcome, both)
            case Closed(code=code):
                return Answer(Declined(code, refused.message), both)
            case Absent():
                return Answer(meant, both)
            case Pending() | Unknown():  # an open QR order whose code we were not given again
                reason = f"{refused.shown_code}, and the order is not decided"
                return Answer(Unknown(reason), both)
            case _:
                assert_never(asked.outcome)

    async def _close_refused(
        self,
        account: ChannelAccount,
        order: PayOrder,
        refused: Refused,
        exchange: Exchange,
        *,
        asked_at: datetime,
    ) -> Answer[CloseOutcome]:
        entry = _ERRORS.find("close", refused.sub_code, refused.code)
        if entry.meaning == "absent" and order.mode is PayMode.QR:
            return await self._cancel(account, order, exchange)
        if entry.meaning == "absent":
            is_page = order.mode in PAGES
            gone = _never_opened(order, refused, asked_at) if is_page else None
            return Answer(gone or Absent(refused.shown_code), exchange)
        asked = await self.query(account, order)
        both = followed_by(exchange, asked.exchange)
        if asked.outcome == UNDONE and order.mode is PayMode.QR:
            return await self._cancel(account, order, both)  # it says again what it did before
        match asked.outcome:
            case Succeeded() | Closed() | Absent():
                return Answer(asked.outcome, both)
            case Declined(code=code):
                return Answer(Closed(code), both)
            case Pending() | Unknown():
                return Answer(Unknown(f"not closed: {refused.shown_code}"), both)
            case _:
                assert_never(asked.outcome)

    async def _cancel(
        self, account: ChannelAccount, order: PayOrder, exchange: Exchange
    ) -> Answer[CloseOutcome]:
        heard, second = await self._gateway.call(
            account, "alipay.trade.cancel", {"out_trade_no": order.number}
        )
        both = followed_by(exchange, second)
        match heard:
            case Answered():
                undone = answers.undone(heard.node, order, cancelled=True)
                if isinstance(undone, Absent):  # there was no trade, and now there cannot be one
                    undone = Closed(undone.code)
                return Answer(undone, both)
            case Refused() if _ERRORS.find("close", heard.sub_code, heard.code).meaning == "absent":
                return Answer(Absent(heard.shown_code), both)
            case Refused():
                return Answer(Unknown(f"not cancelled: {heard.shown_code}"), both)
            case NotSent() | Unknown():
                return Answer(Unknown(heard.reason), both)
            case _:
                assert_never(heard)

    async def _fetch_bill(
        self, account: ChannelAccount, node: bytes, path: Path, contents: str
    ) -> BillFile | Unknown:
        address = decode(node, BillAddress)
        if address is None:
            return Unknown("the answer holds no address of a bill")
        secure = gateway_address(account).startswith("https://")
        if secure and not address.bill_download_url.startswith("https://"):
            return Unknown("the bill's address is not https")
        try:
            found = await self._gateway.http.download(
                address.bill_download_url,
                {},
                path,
                timeout_s=self._gateway.limits.bill_s,
                max_bytes=FILE_MAX,
            )
            if found.path is None:
                return Unknown(f"the bill's address answered http {found.status}")
            return await asyncio.to_thread(check_archive, path, contents)
        except (NotSentError, NoAnswerError, BillDamaged) as failure:
            await asyncio.to_thread(path.unlink, missing_ok=True)
            return Unknown(f"the bill did not arrive whole: {failure}")


def _never_opened(order: PayOrder, refused: Refused, asked_at: datetime) -> Closed | Unknown:
    """Return what it means that no trade exists for a page signed by us.

    Alipay refuses the page after its own time, so only then is "no trade" the end.
    """
    if asked_at >= order.expires_at + PAGE_GRACE:
        return Closed(refused.shown_code)
    return Unknown("nobody opened the page yet, and it stays good until its time is over")


_READ_PAID: Final[Mapping[PayMode, Callable[[bytes, PayOrder], Outcome]]] = {
    PayMode.QR: answers.offered,
    PayMode.PAYMENT_CODE: answers.charged,
    PayMode.IN_APP: answers.opened,
    PayMode.AGREEMENT: answers.charged,
}
_CHARGES: Final = frozenset({PayMode.PAYMENT_CODE, PayMode.AGREEMENT})
"""What is taken at once, and cancelled rather than closed."""


def _extra(account: ChannelAccount, order: PayOrder) -> dict[str, Any]:
    """Return what keeps the money of an order frozen until its shares are given, and whose it is.

    An order for a sub-merchant is settled to the card it was taken on with (直付通 defaultSettle).
    """
    keys, extra = secrets_of(account), dict[str, Any]()
    if keys.profit_sharing:
        extra["extend_params"] = {"royalty_freeze": "true"}
    if keys.sub_merchant:
        settle = {"trans_in_type": "defaultSettle", "amount": order.money.decimal_text()}
        extra["sub_merchant"] = {"merchant_id": keys.sub_merchant}
        extra["settle_info"] = {"settle_detail_infos": [settle]}
    return extra


def _hidden(order: PayOrder) -> tuple[str, ...]:
    return (order.auth_code,) if order.auth_code else ()


def _unpayable(order: PayOrder) -> str | None:
    if order.money.currency not in Alipay.currencies:
        return f"Alipay does not take {order.money.currency}"
    if order.mode not in Alipay.modes or not order.captures:
        return f"no {order.mode} here, or none that only authorises"
    if order.mode is PayMode.PAYMENT_CODE and not order.auth_code:
        return "there is no payment code"
    if order.mode is PayMode.IN_APP and not order.payer_id:
        return "it is not known who the buyer is"
    is_fee = order.visit is not None  # the plate's owner has agreed, which Alipay knows
    if order.mode is PayMode.AGREEMENT and not (order.agreement_ref or is_fee):
        return "it is not known under which agreement"
    return None
