"""What a checkout's page shows, decided from how things stand. No I/O.

    choose ─► scan | leave ─► paid
      ▲          │      └──► confirming ─► paid | closed | choose
      └──────────┘  another way, once the channel says that this one cannot be paid

``confirming`` is said wherever money may have moved or may still move and nobody knows: it offers
no other way to pay.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from urllib.parse import urlsplit

from msgspec import Struct

from tongbao.kernel.licence import Mode
from tongbao.payments.checkouts.model import Checkout, CheckoutStatus, status_of
from tongbao.payments.collecting.model import Attempt, Payment, PaymentState
from tongbao.rails.channels.contract.outcomes import OpenApp, Redirect, ShowQr, SubmitForm


class Scene(StrEnum):
    """What the page is about at this moment."""

    CHOOSE = "choose"
    SCAN = "scan"  # a code to scan, with a countdown
    LEAVE = "leave"  # the customer's browser goes to the channel
    CONFIRMING = "confirming"
    PAID = "paid"
    CLOSED = "closed"

    @property
    def waits(self) -> bool:
        """Whether it changes by itself, so that the page asks."""
        return self in {Scene.SCAN, Scene.LEAVE, Scene.CONFIRMING}


class Standing(Struct, frozen=True):
    """A checkout and its latest try."""

    checkout: Checkout
    payment: Payment | None = None
    attempt: Attempt | None = None

    @property
    def key(self) -> str:
        """What changes whenever the page would."""
        version = self.payment.version if self.payment is not None else 0
        closes = self.payment is not None and self.payment.close_requested_at is not None
        return f"{self.checkout.tries}.{version}.{int(closes)}"


def scene_of(standing: Standing, now: datetime) -> Scene:
    """Return what the page shows."""
    payment = standing.payment
    status = status_of(standing.checkout, payment, now)
    if status is CheckoutStatus.PAID:
        return Scene.PAID
    if payment is not None and payment.state.is_open:
        return _while_open(payment, standing.attempt, now)
    return Scene.CHOOSE if status is CheckoutStatus.OPEN else Scene.CLOSED


def _while_open(payment: Payment, attempt: Attempt | None, now: datetime) -> Scene:
    is_offered = payment.state is PaymentState.PENDING and payment.close_requested_at is None
    if not is_offered or attempt is None or now >= payment.expires_at:
        return Scene.CONFIRMING
    match attempt.action:
        case ShowQr():
            return Scene.SCAN
        case Redirect() | SubmitForm() | OpenApp():
            return Scene.LEAVE
        case _:
            return Scene.CONFIRMING


def is_safe_to_leave_for(url: str, mode: Mode) -> bool:
    """Return whether a channel's address is one to send a browser to: never a script, or a file."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    schemes = {"https"} if mode is Mode.LIVE else {"https", "http"}
    is_plain = url.isascii() and url.isprintable() and not set(url) & set(" \"'<>\\`")
    return parts.scheme in schemes and bool(parts.hostname) and is_plain


def origin_of(url: str) -> str:
    """Return the part of an address that a policy names."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
