"""What webhook endpoints, deliveries and attempts are, and the pure rules about them. No I/O.

    delivery:  pending ──2xx──► succeeded      endpoint:  enabled ⇄ disabled
                  │ tries used up, 410,                      (merchant, gone, failing)
                  └ endpoint disabled ──► failed          either ──► deleted

A replay opens the next round of a closed delivery; its webhook-id, the event's id, stays.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final
from urllib.parse import SplitResult, urlsplit
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.infra.outbox import Event, EventRow, event_view
from tongbao.infra.web.versions import CURRENT, Change, Versions, VersionUnknown, answer_of
from tongbao.kernel.errors import Conflict, Invalid, NotFound, Rejected
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode

ENDPOINTS_MAX: Final = 16  # per merchant and mode; the table's slots say it again
PAYLOAD_MAX: Final = 20_000
REPLY_MAX: Final = 1024
TIMEOUT_S: Final = 15.0
URL_MAX: Final = 2048
RETRY_AFTER_MAX: Final = timedelta(days=1)
OVERLAP_MAX: Final = timedelta(days=7)

RETRY_DELAYS: Final = (
    timedelta(seconds=5),
    timedelta(seconds=30),
    timedelta(minutes=2),
    timedelta(minutes=10),
    timedelta(minutes=30),
    timedelta(hours=1),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=20),
)
"""How long to wait after the first, second, … failed try: three days in all."""

DISABLE_AFTER: Final = timedelta(hours=60)
"""Without one success this long an endpoint is disabled; shorter than the whole schedule, so that
the last try of a lone delivery decides it."""

REST_FROM: Final = 5  # failures in a row, after which a whole endpoint rests between tries
_REST_FIRST: Final = timedelta(seconds=30)
_REST_MAX: Final = timedelta(minutes=10)
_THROTTLES: Final = frozenset({429, 502, 503, 504})
ALL_EVENTS: Final = "*"


class EndpointState(StrEnum):
    """Whether an endpoint is told of events."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    DELETED = "deleted"


class DisabledBecause(StrEnum):
    """Who or what disabled an endpoint."""

    MERCHANT = "merchant"
    GONE = "gone"  # it answered 410
    FAILING = "failing"  # no success for days


class DeliveryState(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class AttemptOutcome(StrEnum):
    """What one attempt met."""

    DELIVERED = "delivered"
    REJECTED = "rejected"
    REDIRECTED = "redirected"  # never followed: the new place was not checked
    THROTTLED = "throttled"
    GONE = "gone"
    NO_ANSWER = "no_answer"
    NOT_SENT = "not_sent"


class WebhookEndpoint(Struct, frozen=True):
    """One row of the webhook_endpoint table."""

    id: UUID
    merchant_id: UUID
    mode: Mode
    slot: int | None
    url: str
    description: str
    event_types: tuple[str, ...]
    state: EndpointState
    disabled_because: DisabledBecause | None
    failing_since: datetime | None
    failures_in_row: int
    resting_until: datetime | None
    created_at: datetime
    api_version: str | None  # None: the newest, whatever it is


class WebhookKey(Struct, frozen=True):
    """One row of the webhook_key table; the secrets are sealed."""

    id: UUID
    endpoint_id: UUID
    sealed: bytes
    public_key: str
    created_at: datetime
    retires_at: datetime | None


class WebhookDelivery(Struct, frozen=True):
    """One row of the webhook_delivery table. ``tries`` are of this round, ``attempts`` of all."""

    id: UUID
    endpoint_id: UUID
    event_id: UUID
    merchant_id: UUID
    mode: Mode
    resource_id: str
    event_type: str
    state: DeliveryState
    round: int
    tries: int
    attempts: int
    next_at: datetime | None
    last_status: int | None
    created_at: datetime
    closed_at: datetime | None


class WebhookAttempt(Struct, frozen=True):
    """One row of the webhook_attempt table: what was met, for people."""

    delivery_id: UUID
    number: int
    merchant_id: UUID
    mode: Mode
    at: datetime
    outcome: AttemptOutcome
    status: int | None
    duration_ms: int
    reply: str


class EndpointView(Struct, frozen=True):
    """An endpoint as its merchant sees it."""

    id: str
    url: str
    description: str
    event_types: tuple[str, ...]
    state: EndpointState
    disabled_because: DisabledBecause | None
    mode: Mode
    created_at: datetime


class WebhookEndpointDisabled(Event, frozen=True, kw_only=True, tag="webhook_endpoint.disabled"):
    """An endpoint answered 410 or failed for days, and is told nothing more."""

    object: EndpointView


class Note(Struct, frozen=True):
    """The contents of a test event."""

    note: str


class WebhookTest(Event, frozen=True, kw_only=True, tag="webhook.test"):
    """Somebody asked for a test delivery."""

    object: Note


class WebhookRules(Struct, frozen=True):
    """What this deployment allows: the public event types, and loopback for sandbox endpoints.

    ``versions`` are those of the API that an endpoint may be told in; None: today's alone.
    """

    event_types: frozenset[str]
    versions: Versions | None = None
    loopback_allowed: bool = False

    def check_version(self, version: str | None) -> str:
        """Return the version that a new endpoint is told in, today's where none is asked for.

        Raises:
            VersionUnknown
        """
        known = [CURRENT] if self.versions is None else self.versions.known
        if version is not None and version not in known:
            raise VersionUnknown(param="$.api_version", oldest=known[0], newest=known[-1])
        return version or CURRENT


class EndpointUnknown(NotFound):
    """The merchant has no such endpoint in this mode."""

    code = "webhook.endpoint_unknown"
    advice = "Check the id and the mode of the key, or list the endpoints."
    advice_zh = "请检查端点标识和密钥所属环境，或列出所有端点。"


class EndpointLimitReached(Rejected):
    """The merchant has as many endpoints as one may have."""

    code = "webhook.endpoint_limit_reached"
    advice = "Delete an endpoint that is no longer needed."
    advice_zh = "请先删除不再使用的端点。"


class EndpointNotEnabled(Conflict):
    """Nothing can be sent to an endpoint that is disabled."""

    code = "webhook.endpoint_not_enabled"
    advice = "Enable the endpoint first."
    advice_zh = "请先启用该端点。"


class UrlNotAllowed(Invalid):
    """The address is not one the platform sends to."""

    code = "webhook.url_not_allowed"
    advice = "Use a public https address without user name, password or fragment."
    advice_zh = "请使用公网 https 地址，且不含用户名、密码或片段。"


class EventTypeUnknown(Invalid):
    """No event has this type."""

    code = "webhook.event_type_unknown"
    advice = "Use the types listed in the event catalogue, a group such as payment.*, or *."
    advice_zh = "请使用事件目录中的类型、类似 payment.* 的分组或 *。"


class OverlapInvalid(Invalid):
    """The old secret cannot stay valid for this long."""

    code = "webhook.overlap_invalid"
    advice = "Choose an overlap between 0 and 7 days."
    advice_zh = "新旧密钥的重叠期应在 0 到 7 天之间。"


class DeliveryUnknown(NotFound):
    """The merchant has no such delivery in this mode."""

    code = "webhook.delivery_unknown"
    advice = "Check the id, or list the deliveries of the endpoint."
    advice_zh = "请检查标识，或列出该端点的投递记录。"


class ReplayRangeTooLarge(Rejected):
    """The range holds more deliveries than are replayed at once."""

    code = "webhook.replay_range_too_large"
    advice = "Replay a shorter period at a time."
    advice_zh = "请缩短重放的时间范围，分批进行。"


def check_url(url: str, mode: Mode, rules: WebhookRules) -> None:
    """Raise unless endpoints may have this address; where it leads is checked at every send.

    Raises:
        UrlNotAllowed
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise UrlNotAllowed(param="url") from None
    clean = url.isascii() and url.isprintable() and " " not in url and len(url) <= URL_MAX
    plain = parts.username is None and parts.password is None and not parts.fragment
    if not (clean and plain and host and _place_allowed(parts, host, mode, rules)):
        raise UrlNotAllowed(param="url")


def _place_allowed(parts: SplitResult, host: str, mode: Mode, rules: WebhookRules) -> bool:
    loopback_allowed = mode is Mode.SANDBOX and rules.loopback_allowed
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        is_loopback, is_public = host == "localhost", host != "localhost"
    else:
        is_loopback, is_public = address.is_loopback, address.is_global
    if is_loopback and loopback_allowed:
        return parts.scheme in {"http", "https"}
    return parts.scheme == "https" and is_public


def check_event_types(patterns: Sequence[str], known: Collection[str]) -> tuple[str, ...]:
    """Return the filter without repeats, or refuse one that no event could ever match.

    Raises:
        EventTypeUnknown
    """
    possible = {candidate for type_ in known for candidate in matching_filters(type_)}
    unknown = [pattern for pattern in patterns if pattern not in possible]
    if unknown or not patterns:
        raise EventTypeUnknown(param="event_types", type=unknown[0][:100] if unknown else None)
    return tuple(dict.fromkeys(patterns))


def matching_filters(event_type: str) -> tuple[str, ...]:
    """Return every filter that lets an event of this type through."""
    words = event_type.split(".")
    groups = [f"{'.'.join(words[:length])}.*" for length in range(1, len(words))]
    return (ALL_EVENTS, *groups, event_type)


def endpoint_view(endpoint: WebhookEndpoint) -> EndpointView:
    """Return what the merchant may see."""
    return EndpointView(
        show("whe", endpoint.id),
        endpoint.url,
        endpoint.description,
        endpoint.event_types,
        endpoint.state,
        endpoint.disabled_because,
        endpoint.mode,
        endpoint.created_at,
    )


def payload(row: EventRow, changes: Sequence[Change] = ()) -> bytes:
    """Return the body to send; it is the same bytes at every attempt.

    It is in the form of before ``changes``. An object too large to send is left for the receiver
    to fetch by its id.
    """
    view = event_view(row)
    body = msgspec.json.encode(view)
    if changes:
        body = answer_of(changes, body)
    if len(body) > PAYLOAD_MAX:
        thin = {"object": {"id": row.resource_id}, "truncated": True}
        body = msgspec.json.encode(msgspec.structs.replace(view, data=thin))
    return body


def delay_after(delivery_id: UUID, tries: int) -> timedelta | None:
    """Return how long to wait after this many failed tries; None when they are used up.

    Each delivery's delays differ by up to a tenth, always by the same: deliveries that failed
    together do not all come back together, and a test can say when.
    """
    if tries > len(RETRY_DELAYS):
        return None
    digest = hashlib.sha256(delivery_id.bytes + tries.to_bytes(2, "big")).digest()
    permille = 900 + int.from_bytes(digest[:4], "big") % 201
    return RETRY_DELAYS[tries - 1] * permille / 1000


def rest_after(failures_in_row: int) -> timedelta:
    """Return how long a whole endpoint is left alone, so that it does not hold up others."""
    if failures_in_row < REST_FROM:
        return timedelta()
    doublings = min(failures_in_row - REST_FROM, 10)
    return min(_REST_FIRST * (1 << doublings), _REST_MAX)


def outcome_of_status(status: int) -> AttemptOutcome:
    """Return what a status code means: only 2xx is a delivery."""
    if 200 <= status < 300:
        return AttemptOutcome.DELIVERED
    if 300 <= status < 400:
        return AttemptOutcome.REDIRECTED
    if status == 410:
        return AttemptOutcome.GONE
    return AttemptOutcome.THROTTLED if status in _THROTTLES else AttemptOutcome.REJECTED


def retry_after(headers: Mapping[str, str], now: datetime) -> timedelta:
    """Return how long the receiver asked us to wait, at most a day; nothing if it did not.

    ``now`` is real time, because a date in the header is.
    """
    text = headers.get("retry-after", "").strip()
    try:
        wait = (
            timedelta(seconds=min(int(text), 10**6))
            if text.isdecimal()
            else parsedate_to_datetime(text) - now
        )
    except (ValueError, TypeError, OverflowError):  # no date, one without a zone, an absurd one
        return timedelta()
    return min(max(wait, timedelta()), RETRY_AFTER_MAX)
