"""Registrations at channels: where one may stand, and what an answer makes of it. No I/O.

    waiting ──► asked ──► auditing ─┬─► verifying ─┬─► signing ──► opening ──► finished
       ▲          │          │      └──────────────┘                 │
       └──resent──┴─ rejected ◄──────────────────────────────────────┴──► canceled
    manual: a channel without such calls; a person says what it answered

`asked` is what nobody knows the end of: the channel is asked about it, and nothing is sent again
before it says that it has no such application.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from tongbao.kernel.errors import Conflict, NotFound
from tongbao.kernel.licence import Mode
from tongbao.rails.channels.capabilities.registrations import (
    Registered,
    RegistrationCanceled,
    RegistrationOutcome,
    RegistrationRejected,
    RegistrationUnderWay,
    RejectedField,
)
from tongbao.rails.channels.contract.outcomes import Absent, Declined, NotSent

PREFIX: Final = "reg"


class RegistrationNotFound(NotFound):
    """The application has no registration at this channel."""

    code = "registration.not_found"
    advice = "Read the application's registrations; they are made when the merchant is opened."
    advice_zh = "该进件没有此渠道的报备记录；商户开通后才会报备。"


class RegistrationNotRejected(Conflict):
    """Only what the channel rejected is sent again."""

    code = "registration.not_rejected"
    advice = "Wait for the channel; correct the application only when it asks for that."
    advice_zh = "仅被渠道驳回的报备可以重新提交，请等待渠道结果。"


class RegistrationNotManual(Conflict):
    """The channel answers for itself, or the registration has ended."""

    code = "registration.not_manual"
    advice = "Look at what the channel says."
    advice_zh = "该渠道由系统自动报备，或报备已完结，请以渠道结果为准。"


class RegistrationContended(Conflict):
    """Somebody else changed the registration at the same moment."""

    code = "registration.contended"
    advice = "Read it again."
    advice_zh = "报备状态刚被更新，请重新查看。"


class RegistrationState(StrEnum):
    """Where a registration stands."""

    WAITING = "waiting"
    ASKED = "asked"
    AUDITING = "auditing"
    VERIFYING = "verifying"
    SIGNING = "signing"
    OPENING = "opening"
    FINISHED = "finished"
    REJECTED = "rejected"
    CANCELED = "canceled"
    MANUAL = "manual"

    @property
    def is_chased(self) -> bool:
        """Whether the channel is asked about it from time to time."""
        return self not in _AT_REST


_AT_REST: Final = frozenset(
    {
        RegistrationState.FINISHED,
        RegistrationState.REJECTED,
        RegistrationState.CANCELED,
        RegistrationState.MANUAL,
    }
)


class Registration(Struct, frozen=True):
    """One row of the registration table. ``number`` is ours at the channel, for ever."""

    id: UUID
    application_id: UUID
    merchant_id: UUID
    mode: Mode
    channel: str
    account_id: UUID | None
    number: str
    state: RegistrationState
    channel_ref: str | None
    sub_merchant: str | None
    action_url: str | None
    reasons: list[RejectedField]
    connected_id: UUID | None
    sends: int
    queries: int
    version: int
    created_at: datetime
    ended_at: datetime | None


class RegistrationExchange(Struct, frozen=True):
    """One call about a registration, as evidence; persons are masked in it."""

    id: UUID
    registration_id: UUID
    purpose: str
    method: str
    url: str
    request: str
    status: int | None
    reply: str
    duration_ms: int
    outcome: str
    at: datetime


def next_registration(
    before: Registration, outcome: RegistrationOutcome, now: datetime, *, was_sent: bool
) -> Registration:
    """Return where an answer leaves a registration.

    ``was_sent``: the answer is to sending it, and not to a question. What is unknown leaves it
    asked about. A finished or canceled registration stays: a channel does not take that back.
    """
    if before.ended_at is not None:
        return before
    match outcome:
        case Registered():
            finished = _cleared(before, RegistrationState.FINISHED, outcome.channel_ref)
            becomes = replace(finished, sub_merchant=outcome.sub_merchant, ended_at=now)
        case RegistrationUnderWay():
            under_way = _cleared(before, RegistrationState(outcome.stage), outcome.channel_ref)
            becomes = replace(under_way, action_url=outcome.action_url)
        case RegistrationRejected():
            rejected = _cleared(before, RegistrationState.REJECTED, outcome.channel_ref)
            becomes = replace(rejected, reasons=_some(outcome.reasons))
        case RegistrationCanceled():
            canceled = _cleared(before, RegistrationState.CANCELED, outcome.channel_ref)
            becomes = replace(canceled, ended_at=now)
        case Declined() if was_sent:
            declined = _cleared(before, RegistrationState.REJECTED, before.channel_ref)
            becomes = replace(declined, reasons=[RejectedField(outcome.code, outcome.message)])
        case Absent():
            becomes = _cleared(before, RegistrationState.WAITING, before.channel_ref)
        case NotSent() if was_sent:
            becomes = _cleared(before, RegistrationState.WAITING, before.channel_ref)
        case _:
            becomes = before
    return becomes


def _cleared(before: Registration, state: RegistrationState, ref: str | None) -> Registration:
    channel_ref = ref or before.channel_ref
    return replace(before, state=state, channel_ref=channel_ref, action_url=None, reasons=[])


def _some(reasons: Sequence[RejectedField]) -> list[RejectedField]:
    return list(reasons) or [RejectedField("", "no reason given")]
