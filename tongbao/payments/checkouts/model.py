"""What a checkout is, and what its state follows from. No I/O.

A checkout has no state of its own that could contradict its payments: it is paid when its latest
try is, and open while another may be made.

    open ──a try succeeds──► paid
     └──its time is over, or it is called off──► closing ──the last try has ended──► closed

That it closed is written down once, with the event that tells of it; no try begins afterwards.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Final, Literal
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
from msgspec import UNSET, Struct, UnsetType

from tongbao.kernel.errors import Conflict, Invalid, NotFound, Overloaded, Rejected
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.payments.collecting.model import Payment, PaymentState
from tongbao.rails.channels.contract.orders import PayMode

PREFIX: Final = "/pay"
"""Where the pages of the cashier are."""
ORDER_NO_LENGTH_MAX: Final = 60  # a second try adds its number to it
METADATA_KEY: Final = "checkout_id"
"""What every payment of a checkout says in its metadata."""
EXPIRES_DEFAULT: Final = timedelta(minutes=30)
EXPIRES_MIN: Final = timedelta(minutes=2)
EXPIRES_MAX: Final = timedelta(days=7)
TRY_LIFETIME_MIN: Final = timedelta(minutes=1)
"""Channels take no order that ends sooner."""
TRY_LIFETIMES: Final = {PayMode.QR: timedelta(minutes=15)}
TRY_LIFETIME: Final = timedelta(minutes=10)
"""How long a try may take where the customer goes to the channel: as long, at most, must they wait
before another way is offered, should the channel not say that the first cannot be paid."""
TRIES_MAX: Final = 20
CREATED_PER_MINUTE_MAX: Final = 1_200
"""Checkouts of one merchant."""


class CheckoutNotFound(NotFound):
    """The caller has no such checkout."""

    code = "checkout.not_found"
    advice = "Check the id, and that the API key is of the same merchant and mode."
    advice_zh = "请检查收银单标识，并确认 API 密钥属于同一商户与模式。"


class CheckoutClosed(Conflict):
    """The checkout's time is over, or it was called off; nothing more can be paid on it."""

    code = "checkout.closed"
    advice = "Ask the merchant for a new order."
    advice_zh = "订单已关闭，请联系商户重新下单。"


class CheckoutTriedTooOften(Rejected):
    """So many tries were made that something else must be wrong."""

    code = "checkout.tried_too_often"
    advice = "Ask the merchant for a new order."
    advice_zh = "尝试次数过多，请联系商户重新下单。"


class CheckoutPaid(Conflict):
    """The checkout is paid; there is nothing to call off."""

    code = "checkout.paid"
    advice = "Refund its payment instead."
    advice_zh = "该收银单已支付，如需退款请对其支付发起退款。"


class CheckoutsTooMany(Overloaded):
    """More checkouts were opened within a minute than anybody's customers could pay."""

    code = "checkout.too_many"
    advice = "Wait Retry-After seconds; open a checkout when a customer is there to pay."
    advice_zh = "收银单创建过于频繁，请稍后再试。"
    retry_after_s = 30


class ReturnUrlUnsafe(Invalid):
    """The address to return to is not one a customer may be sent to."""

    code = "checkout.return_url_unsafe"
    advice = "Give an https address with a host and without a user name; http is for sandbox keys."
    advice_zh = "请提供带域名且不含用户信息的 https 地址；仅沙箱密钥可使用 http。"


class CheckoutStatus(StrEnum):
    """Where a checkout stands; the last is an end, and so is ``paid``."""

    OPEN = "open"
    PAID = "paid"
    CLOSING = "closing"  # no new try; the last one may still have been paid
    CLOSED = "closed"


class Checkout(Struct, frozen=True):
    """One row of the checkout table."""

    book: int
    id: UUID
    merchant_id: UUID
    mode: Mode
    token: str
    plate_id: UUID | None
    merchant_order_no: str
    request_hash: bytes
    amount: int
    currency: str
    subject: str
    channels: list[str]
    return_url: str | None
    metadata: dict[str, str]
    payment_id: UUID | None
    tries: int
    called_off_at: datetime | None
    created_at: datetime
    expires_at: datetime
    closed_at: datetime | None = None  # when its merchant was told that it ended unpaid
    terminal_id: UUID | None = None  # where it is shown: every try counts there

    def __repr__(self) -> str:  # the token opens the page
        return f"Checkout({self.id}, {self.amount} {self.currency})"

    @property
    def money(self) -> Money:
        """What is to be paid."""
        return Money(self.amount, self.currency)

    @property
    def path(self) -> str:
        """Where its page is."""
        return f"{PREFIX}/c/{self.token}"

    @property
    def next_order_no(self) -> str:
        """The number its next try has as a payment: the merchant's own, then with a number."""
        return (
            self.merchant_order_no
            if not self.tries
            else f"{self.merchant_order_no}-{self.tries + 1}"
        )

    def takes_tries(self, now: datetime) -> bool:
        """Return whether another try may begin, as far as its time goes."""
        is_ended = self.called_off_at is not None or self.closed_at is not None
        return not is_ended and now + TRY_LIFETIME_MIN <= self.expires_at


class CheckoutAsked(Struct, frozen=True):
    """What somebody asks to be paid, before it is written down."""

    merchant_id: UUID
    mode: Mode
    book: int
    merchant_order_no: str
    money: Money
    subject: str
    channels: tuple[str, ...] = ()
    return_url: str | None = None
    metadata: dict[str, str] = {}
    expires_in: timedelta = EXPIRES_DEFAULT
    plate_id: UUID | None = None
    terminal_id: UUID | None = None

    @property
    def fingerprint(self) -> bytes:
        """What makes two requests the same checkout."""
        meant = (
            self.money.amount,
            self.money.currency,
            self.subject,
            sorted(self.channels),
            self.return_url,
            sorted(self.metadata.items()),
            self.plate_id,
            *(() if self.terminal_id is None else (self.terminal_id,)),
        )
        return sha256(msgspec.json.encode(meant)).digest()


class Offer(Struct, frozen=True):
    """One way to pay that can take this payment now."""

    channel: str
    mode: PayMode

    @property
    def key(self) -> str:
        """What a form and a cookie call it."""
        return f"{self.channel}.{self.mode}"


class CheckoutView(Struct, frozen=True, omit_defaults=True):
    """A checkout as the API shows it. ``payment_id`` is its latest try."""

    id: str
    object: Literal["checkout"]
    mode: Mode
    url: str
    merchant_order_no: str
    amount: int
    currency: str
    subject: str
    status: CheckoutStatus
    created_at: datetime
    expires_at: datetime
    metadata: dict[str, str]
    channels: list[str] = []
    return_url: str | UnsetType = UNSET
    payment_id: str | UnsetType = UNSET
    plate_id: str | UnsetType = UNSET
    terminal_id: str | UnsetType = UNSET
    closed_at: datetime | UnsetType = UNSET


def status_of(checkout: Checkout, payment: Payment | None, now: datetime) -> CheckoutStatus:
    """Return where a checkout stands, given its latest try."""
    if payment is not None and payment.state is PaymentState.SUCCEEDED:
        return CheckoutStatus.PAID
    if checkout.takes_tries(now):
        return CheckoutStatus.OPEN
    if payment is not None and payment.state.is_open:
        return CheckoutStatus.CLOSING
    return CheckoutStatus.CLOSED


def view_checkout(
    checkout: Checkout, payment: Payment | None, now: datetime, public_url: str
) -> CheckoutView:
    """Return the checkout as the API shows it."""
    return CheckoutView(
        id=show("cko", checkout.id),
        object="checkout",
        mode=checkout.mode,
        url=f"{public_url}{checkout.path}",
        merchant_order_no=checkout.merchant_order_no,
        amount=checkout.amount,
        currency=checkout.currency,
        subject=checkout.subject,
        status=status_of(checkout, payment, now),
        created_at=checkout.created_at,
        expires_at=checkout.expires_at,
        metadata=checkout.metadata,
        channels=checkout.channels,
        return_url=checkout.return_url or UNSET,
        payment_id=show("pay", checkout.payment_id) if checkout.payment_id else UNSET,
        plate_id=show("plt", checkout.plate_id) if checkout.plate_id else UNSET,
        terminal_id=show("trm", checkout.terminal_id) if checkout.terminal_id else UNSET,
        closed_at=checkout.closed_at or UNSET,
    )


def check_return_url(url: str, mode: Mode) -> None:
    """Raise unless a customer's browser may be sent to an address.

    Raises:
        ReturnUrlUnsafe
    """
    try:
        parts = urlsplit(url)
        host, port_is_number = parts.hostname, parts.port is None or parts.port > 0
    except ValueError:
        raise ReturnUrlUnsafe(param="$.return_url") from None
    schemes = {"https"} if mode is Mode.LIVE else {"https", "http"}
    is_plain = url.isascii() and url.isprintable() and not set(url) & set(" \"'<>\\^`{|}")
    has_user = "@" in parts.netloc
    if parts.scheme not in schemes or not host or not port_is_number or has_user or not is_plain:
        raise ReturnUrlUnsafe(param="$.return_url")
