"""One HTTP exchange with a channel: what silence means, and the evidence that is kept of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final, Protocol, TypeVar, runtime_checkable

import msgspec
from msgspec import Struct

from tongbao.infra.http import HttpClient, HttpReply, NoAnswerError, NotSentError
from tongbao.kernel.papers.document_types import DocumentTypeRefused, type_of
from tongbao.rails.channels.bill_text import fault
from tongbao.rails.channels.contract.bills import BillLine, BillOutcome
from tongbao.rails.channels.contract.callbacks import Callback, CallbackForged, CallbackReply
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Declined,
    Exchange,
    NotSent,
    Unknown,
)

EVIDENCE_MAX: Final = 16 * 1024
REPLY_MAX: Final = 1024 * 1024
MASK: Final = "***"

T = TypeVar("T")


class TimeLimits(Struct, frozen=True):
    """How long to wait for an answer, in seconds; the connect limit is the HTTP client's."""

    ask_s: float = 10.0  # pay, query, close, refund: a customer is waiting
    bill_s: float = 120.0  # a whole file


class Announced(Struct, frozen=True, tag="announced"):
    """The channel has told the customer, or will."""


@runtime_checkable
class Paced(Protocol):
    """Says itself how often it wants to be asked about an order that can still be paid."""

    def query_delays(self, mode: PayMode) -> Sequence[timedelta]:
        """Return the gaps between one question and the next; the last one goes on."""


class Request(Struct, frozen=True):
    """One request, and how it may be shown: ``hidden`` texts never reach the evidence."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    shown_url: str
    shown_body: str
    hidden: tuple[str, ...] = ()


async def ask(
    http: HttpClient,
    request: Request,
    *,
    timeout_s: float,
    shown_headers: Sequence[str] = (),
    reply_max_bytes: int = REPLY_MAX,
) -> tuple[HttpReply | NotSent | Unknown, Exchange]:
    """Send the request once and return the answer, or what its absence means, with the evidence.

    ``shown_headers`` of the reply (its signature, its request id) go into the evidence, so that
    a person can check it again. ``reply_max_bytes`` is for replies that hold a file.
    """
    try:
        reply = await http.send(
            request.method,
            request.url,
            request.headers,
            request.body,
            timeout_s=timeout_s,
            reply_max_bytes=reply_max_bytes,
        )
    except NotSentError as failure:
        reason = f"not sent: {failure.reason}"
        return NotSent(reason), evidence(request, None, reason, failure.duration_ms)
    except NoAnswerError as failure:
        reason = f"no answer: {failure.reason}"
        return Unknown(reason), evidence(request, None, reason, failure.duration_ms)
    lines = [f"{name}: {value}" for name, value in reply.headers.items() if name in shown_headers]
    text = reply.body.decode("utf-8", errors="replace")
    shown = "\n".join([*lines, "", text]) if lines else text
    return reply, evidence(request, reply.status, shown, reply.duration_ms)


def decode(raw: bytes, document: type[T]) -> T | None:
    """Return the JSON document in the bytes, or None when they are anything else.

    They may be anybody's: an answer that is not signed is read for its code.
    """
    try:
        return msgspec.json.decode(raw, type=document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def evidence(request: Request, status: int | None, reply: str, duration_ms: int) -> Exchange:
    """Return what is kept of an exchange: no secrets, and bodies cut at ``EVIDENCE_MAX`` bytes."""
    return Exchange(
        method=request.method,
        url=_clean(request.shown_url, request.hidden),
        request=_clean(request.shown_body, request.hidden),
        status=status,
        reply=_clean(reply, request.hidden),
        duration_ms=duration_ms,
    )


def unsent(method: str, url: str, reason: str) -> Exchange:
    """Return the evidence of a request that was refused before it was made."""
    return Exchange(method, url, "", None, f"not sent: {reason}", 0)


def followed_by(first: Exchange, second: Exchange) -> Exchange:
    """Return both as one: the answer to a call can need a question right after it."""
    status = "no answer" if second.status is None else str(second.status)
    reply = f"{first.reply}\n\n{second.method} {second.url}\n{status}\n{second.reply}"
    return msgspec.structs.replace(
        first, reply=_capped(reply), duration_ms=first.duration_ms + second.duration_ms
    )


def _clean(text: str, hidden: tuple[str, ...]) -> str:
    for secret in hidden:
        if secret:
            text = text.replace(secret, MASK)
    return _capped(text)


def _capped(text: str) -> str:
    raw = text.encode()
    if len(raw) <= EVIDENCE_MAX:
        return text
    note = f"… [{len(raw)} bytes]"
    return raw[: EVIDENCE_MAX - len(note.encode())].decode(errors="ignore") + note


def plain_reply(*, accepted: bool) -> CallbackReply:
    """Return the word ``success``, which stops the resends; anything else asks for the next."""
    if accepted:
        return CallbackReply(200, {"content-type": "text/plain"}, b"success")
    return CallbackReply(500, {"content-type": "text/plain"}, b"fail")


# --- pictures -------------------------------------------------------------------------------------

IMAGES_MAX: Final = 4
"""The most pictures of one answer to a complaint, at every channel that takes some."""


def picture_in(reply: HttpReply) -> bytes | Absent | Declined | Unknown:
    """Return the picture that a fetch was answered with, and nothing in a picture's clothes."""
    if reply.status in {404, 410}:
        return Absent(str(reply.status))
    if reply.status != 200:
        return Unknown(f"http {reply.status}")
    try:
        type_of(reply.body)
    except DocumentTypeRefused as refused:
        return Declined("not_a_picture", str(refused.facts["reason"])[:64])
    return reply.body


def unshown(exchange: Exchange, size: int) -> Exchange:
    """Return the evidence of a fetch without the picture, which is kept encrypted elsewhere."""
    return msgspec.structs.replace(exchange, reply=f"[{size} bytes]")


# --- what some channels do not have --------------------------------------------------------------


class Uncalled:
    """The callbacks of a channel that sends none, and so has no keys for them either."""

    def read_callback(
        self, account: ChannelAccount, headers: Mapping[str, str], body: bytes, now: datetime
    ) -> Callback:
        """Refuse: the channel never calls, so this is somebody else.

        Raises:
            CallbackForged
        """
        del account, headers, body, now
        raise CallbackForged

    async def refresh_keys(self, account: ChannelAccount) -> None:
        """Do nothing: there are no keys to fetch."""

    def reply_to_callback(self, accepted: bool) -> CallbackReply:
        """Return 404: nobody calls back."""
        del accepted
        return CallbackReply(404, {}, b"")


class Unfiled:
    """The bill of a channel that makes no file of its day; ``no_file`` says why."""

    no_file: str

    async def download_bill(
        self, account: ChannelAccount, day: date, folder: Path
    ) -> Answer[BillOutcome]:
        """Say that there is none."""
        del day, folder
        return Answer(Unknown(self.no_file), unsent("GET", account.gateway, self.no_file))

    def parse_bill(self, path: Path) -> Iterator[BillLine]:
        """Yield one fault: no file is this channel's bill."""
        yield fault(0, "bill.format_unknown", path.name)
