"""What a channel may answer: a closed set of outcomes, and the exchange that is their evidence.

A time-out, a reset, a 5xx or a bad signature on the answer is `Unknown`, never a failure; only
positive evidence is `Declined` or `NotSent`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Generic, Literal, TypeVar

from msgspec import Struct

from tongbao.kernel.money import Money


class Exchange(Struct, frozen=True):
    """One request and what came back, with secrets removed, kept as evidence."""

    method: str
    url: str
    request: str
    status: int | None  # None: no answer
    reply: str
    duration_ms: int


class Succeeded(Struct, frozen=True, tag="succeeded"):
    """Money moved, says verified evidence."""

    channel_ref: str  # the channel's own number of the trade or refund
    money: Money
    at: datetime
    payer: str | None = None  # the channel's opaque id of the customer
    card: Literal["debit", "credit", "foreign"] | None = None  # what paid, where it tells


class Authorised(Struct, frozen=True, tag="authorised"):
    """The money is set aside for us, says verified evidence; it moves when we capture it."""

    channel_ref: str
    money: Money
    at: datetime
    payer: str | None = None
    code: str | None = None  # the issuer's authorisation code, where later calls name it


class ShowQr(Struct, frozen=True, tag="show_qr"):
    """Draw it as a QR code for the customer to scan."""

    code_url: str


class Redirect(Struct, frozen=True, tag="redirect"):
    """Send the customer's browser there."""

    url: str


class SubmitForm(Struct, frozen=True, tag="submit_form"):
    """Let the customer's browser post these fields there."""

    url: str
    fields: Mapping[str, str]


class OpenApp(Struct, frozen=True, tag="open_app"):
    """Hand these to the channel's own code, in its page or in the merchant's app."""

    parameters: Mapping[str, str]


NextAction = ShowQr | Redirect | SubmitForm | OpenApp


class Pending(Struct, frozen=True, tag="pending"):
    """Accepted and open: the customer must act, or the channel is still at it."""

    action: NextAction | None = None  # what the customer is to do
    reason: str = ""


class Declined(Struct, frozen=True, tag="declined"):
    """The channel did not and will not move the money, says positive evidence."""

    code: str  # the channel's own code
    message: str = ""
    retry_elsewhere: bool = False


class NotSent(Struct, frozen=True, tag="not_sent"):
    """Nothing happened, provably: a refused connection, or refused at the channel's door.

    Like `Declined` it speaks of this call only. Who has an earlier call of the same number still
    unanswered asks with `query`, and does not conclude from a repeat.
    """

    reason: str


class Unknown(Struct, frozen=True, tag="unknown"):
    """It may have happened. Ask again with the same number; never guess."""

    reason: str


class Absent(Struct, frozen=True, tag="absent"):
    """Asked about a number, the channel says it has no such order (yet)."""

    code: str


class Closed(Struct, frozen=True, tag="closed"):
    """The order is closed at the channel, unpaid, and can no longer be paid."""

    code: str = ""


Outcome = Succeeded | Pending | Declined | NotSent | Unknown


QueryOutcome = Succeeded | Pending | Declined | Closed | Absent | Unknown


CloseOutcome = Closed | Succeeded | Absent | Unknown
"""What closing or reversing led to; `Succeeded` says the customer had paid first."""


RefundOutcome = Succeeded | Pending | Declined | NotSent | Unknown


RefundQueryOutcome = Succeeded | Pending | Declined | Absent | Unknown


A = TypeVar("A", covariant=True)


class Answer(Struct, Generic[A], frozen=True):
    """An outcome and the evidence for it."""

    outcome: A
    exchange: Exchange
