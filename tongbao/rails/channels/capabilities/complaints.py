"""What customers complain about at the channel, and our answers (投诉)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Literal, Protocol, runtime_checkable

from msgspec import Struct

from tongbao.kernel.money import Money
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Absent, Answer, Declined, NotSent, Unknown

ComplaintWord = Literal["pending", "processing", "processed"]


class ComplaintMessage(Struct, frozen=True):
    """One thing that was said or done about a complaint, under the channel's own number."""

    ref: str
    kind: str  # the channel's word
    who: Literal["customer", "merchant", "channel"]
    text: str
    image_count: int
    at: datetime
    images: tuple[str, ...] = ()  # what the channel calls its pictures by


class ComplaintFound(Struct, frozen=True, tag="complaint"):
    """A complaint as the channel has it now; ``number`` is ours of the order it is about."""

    ref: str
    number: str
    state: ComplaintWord
    kind: str
    detail: str
    money: Money
    times: int
    is_refunded: bool
    has_news: bool
    at: datetime
    messages: tuple[ComplaintMessage, ...]  # oldest first


class ComplaintsListed(Struct, frozen=True, tag="complaints"):
    """The channel's numbers of what was complained about in some days."""

    refs: tuple[str, ...]


class ReplySent(Struct, frozen=True, tag="reply_sent"):
    """The channel has what we said."""


@runtime_checkable
class Complaining(Protocol):
    """Lets customers complain about a payment, and us answer them.

    What we say has no number of ours there: who does not know whether it arrived reads the
    complaint's messages before saying it again.
    """

    async def find_complaints(
        self, account: ChannelAccount, first: date, last: date
    ) -> Answer[ComplaintsListed | Unknown]:
        """List what was complained about in these days, 30 at most."""

    async def read_complaint(
        self, account: ChannelAccount, ref: str
    ) -> Answer[ComplaintFound | Absent | Unknown]:
        """Read one with all that was said."""

    async def reply_to_complaint(
        self, account: ChannelAccount, ref: str, text: str, images: Sequence[str] = ()
    ) -> Answer[ReplySent | Declined | NotSent | Unknown]:
        """Answer the customer, with pictures that were sent up before."""

    async def complete_complaint(
        self, account: ChannelAccount, ref: str
    ) -> Answer[ReplySent | Declined | NotSent | Unknown]:
        """Say that it is dealt with."""

    async def read_complaint_image(
        self, account: ChannelAccount, ref: str
    ) -> Answer[bytes | Absent | Declined | Unknown]:
        """Fetch a picture that a message names. Declined: it is none, or nowhere we fetch from."""

    async def send_complaint_image(
        self, account: ChannelAccount, media_type: str, content: bytes
    ) -> Answer[str | Declined | NotSent | Unknown]:
        """Send a picture up and return what an answer names it by; again does no harm."""
