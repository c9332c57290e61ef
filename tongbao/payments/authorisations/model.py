"""What captures and voids are, and what news from a channel does to them. No I/O.

    requested ─► pending ─► succeeded | failed
         └────► unknown ◄─► pending

While one is under way its payment is capturing or voiding. When it succeeds the payment has
succeeded or is voided; when it fails, by positive evidence, the payment is authorised as before.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal, assert_never
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from tongbao.kernel.ids import base32
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.payments.collecting.model import (
    Attempt,
    AttemptState,
    CaseKind,
    CloseReason,
    Payment,
    PaymentState,
)
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Authorised,
    Closed,
    Declined,
    NotSent,
    Pending,
    Succeeded,
    Unknown,
)


class CompletionState(StrEnum):
    """Where a capture or a void stands; the last two are ends."""

    REQUESTED = "requested"
    PENDING = "pending"
    UNKNOWN = "unknown"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def is_open(self) -> bool:
        """Whether it is on its way or may be."""
        return self in {
            CompletionState.REQUESTED,
            CompletionState.PENDING,
            CompletionState.UNKNOWN,
        }


class Completion(Struct, frozen=True):
    """One row of the completion table. The channel knows it by `number`."""

    book: int
    id: UUID
    payment_id: UUID
    attempt_id: UUID
    account_id: UUID
    merchant_id: UUID
    mode: Mode
    kind: Literal["capture", "void"]
    why: Literal["merchant", "expired", "late"]
    amount: int
    currency: str
    fee: int
    state: CompletionState
    code: str | None
    channel_ref: str | None
    channel_at: datetime | None  # when the channel says it took the money, or let it go
    created_at: datetime
    ended_at: datetime | None
    queries: int
    version: int

    @property
    def number(self) -> str:
        """Our number at the channel, and the idempotency key of every call about it."""
        return base32(self.id)

    @property
    def money(self) -> Money:
        """What is taken, or let go."""
        return Money(self.amount, self.currency)


Rows = tuple[Payment, Attempt, Completion]

CompletionNews = Succeeded | Authorised | Pending | Declined | NotSent | Unknown | Absent | Closed
"""Anything a channel can say about a capture, or about an authorisation that is to be let go."""


class CompletionStep(Struct, frozen=True):
    """What news does: the rows as they become, whether money moved, and the case it opens."""

    payment: Payment | None = None
    attempt: Attempt | None = None
    completion: Completion | None = None
    takes: bool = False
    case: CaseKind | None = None
    detail: str = ""


def next_completion_step(rows: Rows, news: CompletionNews, now: datetime) -> CompletionStep | None:
    """Return what the news changes about a capture or void, or None when it is no news.

    Only positive evidence ends it. A contradiction opens a case and changes nothing else.
    """
    match news:
        case Succeeded():
            return _on_taken(rows, news, now)
        case Closed() if rows[2].kind == "void":
            return _on_let_go(rows, news, now)
        case Declined() | NotSent() | Closed():
            return _on_refused(rows, news, now)
        case Pending() | Unknown():
            return _on_open(rows[2], news)
        case Absent() | Authorised():
            return None  # what is under way has not happened yet, and still may
        case _:
            assert_never(news)


def _on_open(completion: Completion, news: Pending | Unknown) -> CompletionStep | None:
    target = CompletionState.PENDING if isinstance(news, Pending) else CompletionState.UNKNOWN
    learned_more = completion.state is CompletionState.UNKNOWN and isinstance(news, Pending)
    if completion.state is not CompletionState.REQUESTED and not learned_more:
        return None
    return CompletionStep(
        completion=replace(completion, state=target, code=news.reason[:64] or None)
    )


def _on_taken(rows: Rows, news: Succeeded, now: datetime) -> CompletionStep | None:
    payment, attempt, completion = rows
    if completion.kind == "void":
        return _contradiction(completion, f"collected as {news.channel_ref}, and it was let go")
    if news.money != completion.money:
        told, asked = news.money.decimal_text(), completion.money.decimal_text()
        return CompletionStep(
            case=CaseKind.AMOUNT_DIFFERS,
            detail=f"capture {completion.number}: channel took {told}, asked {asked}",
        )
    if completion.state is CompletionState.SUCCEEDED and news.channel_ref == completion.channel_ref:
        return None
    if not completion.state.is_open:
        return _contradiction(
            completion, f"taken as {news.channel_ref} after it had {completion.state}"
        )
    return CompletionStep(
        payment=replace(
            payment,
            state=PaymentState.SUCCEEDED,
            captured=completion.amount,
            capturing=0,
            fee=completion.fee,
            failure_code=None,
            succeeded_at=now,
            ended_at=now,
        ),
        attempt=replace(
            attempt,
            state=AttemptState.SUCCEEDED,
            channel_ref=news.channel_ref,
            payer=news.payer or attempt.payer,
            paid_at=news.at,
            capture_id=completion.id,
            capture_amount=completion.amount,
        ),
        completion=replace(
            completion,
            state=CompletionState.SUCCEEDED,
            code=None,
            channel_ref=news.channel_ref,
            channel_at=news.at,
            ended_at=now,
        ),
        takes=True,
    )


def _on_let_go(rows: Rows, news: Closed, now: datetime) -> CompletionStep | None:
    payment, attempt, completion = rows
    if completion.state is CompletionState.SUCCEEDED:
        return None
    if completion.state is CompletionState.FAILED:
        return _contradiction(completion, "let go after the channel had refused to")
    done = replace(
        completion,
        state=CompletionState.SUCCEEDED,
        code=news.code[:64] or None,
        channel_at=now,
        ended_at=now,
    )
    if completion.why == "late":
        return CompletionStep(completion=done)
    reason = CloseReason.MERCHANT if completion.why == "merchant" else CloseReason.EXPIRED
    return CompletionStep(
        payment=replace(
            payment,
            state=PaymentState.VOIDED,
            failure_code=None,
            close_reason=reason,
            ended_at=now,
        ),
        attempt=replace(attempt, state=AttemptState.VOIDED),
        completion=done,
    )


def _on_refused(
    rows: Rows, news: Declined | NotSent | Closed, now: datetime
) -> CompletionStep | None:
    payment, _, completion = rows
    if isinstance(news, NotSent):
        if completion.state is not CompletionState.REQUESTED:
            return None  # it was sent once already, so this repeat proves nothing
        code = "channel.not_reached"
    else:
        code = news.code or "channel.closed"
    if completion.state is CompletionState.SUCCEEDED:
        return _contradiction(completion, f"refused with {code} after success")
    if completion.state is CompletionState.FAILED:
        return None
    if completion.why == "late":
        # The customer's money is kept from them for nothing, so people must see to it.
        detail = f"{completion.kind} {completion.number}: refused with {code}"
        return CompletionStep(case=CaseKind.UNDECIDED, detail=detail)
    return CompletionStep(
        payment=replace(
            payment, state=PaymentState.AUTHORISED, capturing=0, failure_code=code[:64]
        ),
        completion=replace(completion, state=CompletionState.FAILED, code=code[:64], ended_at=now),
    )


def _contradiction(completion: Completion, detail: str) -> CompletionStep:
    text = f"{completion.kind} {completion.number}: {detail}"
    return CompletionStep(case=CaseKind.CONTRADICTION, detail=text)
