"""The courier: signs a delivery, sends it, and records what it met."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID
from weakref import WeakValueDictionary

import prometheus_client as prometheus
import structlog
from msgspec import Struct

from tongbao.infra.commits import Commits
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, Tx, Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.http import (
    HttpClient,
    LoopbackAllowed,
    NoAnswerError,
    NotSentError,
    PublicOnly,
)
from tongbao.infra.lookups import Lookups
from tongbao.infra.outbox import EventRow, event_rows
from tongbao.infra.tasks import Again, Hands, Lease, LeasedTask, LeaseLost
from tongbao.infra.telemetry import redact_text
from tongbao.infra.web.versions import Change, Versions
from tongbao.infra.webhooks import _store as store
from tongbao.infra.webhooks.deliveries import DeliverWebhook, Planned, plan_deliveries
from tongbao.infra.webhooks.endpoints import give_up_on_endpoint, opened_key, signing_keys_of
from tongbao.infra.webhooks.model import (
    DISABLE_AFTER,
    REPLY_MAX,
    TIMEOUT_S,
    AttemptOutcome,
    DeliveryState,
    DisabledBecause,
    EndpointState,
    WebhookKey,
    delay_after,
    outcome_of_status,
    payload,
    rest_after,
    retry_after,
)
from tongbao.infra.webhooks.signing import SigningKey, signed_headers
from tongbao.kernel.clock import monotonic, real_now
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode

PLANNED_STANDS_S: Final = 1.0
"""How long what was read when a delivery was planned is good for its first try."""
IN_FLIGHT_MAX: Final = 4
"""Requests to one endpoint at a time in this process, so that a slow one holds up no other."""
_FULL_WAIT_S: Final = 1.0
_FULL_PAUSE: Final = timedelta(seconds=1)
_READ_MAX: Final = 256 * 1024
_OPENED_S: Final = 30.0
_OPENED_MAX: Final = 1000
_PLANNED_MAX: Final = 10_000
_ROOM_FOR_OTHERS: Final = 32  # of the places for tasks that are begun without being claimed
_HEADERS: Final = {"content-type": "application/json", "user-agent": "Tongbao-Webhooks/1"}

ATTEMPTS: Final = prometheus.Counter(
    "tongbao_webhook_attempts", "Webhook attempts by what they met", ["outcome"]
)
SECONDS: Final = prometheus.Histogram(
    "tongbao_webhook_duration_seconds", "How long receivers took to answer"
)
CLOSED: Final = prometheus.Counter(
    "tongbao_webhook_deliveries_closed", "Deliveries that ended", ["state"]
)
_log: Final = structlog.get_logger()


class _Met(Struct, frozen=True):
    """What one attempt met."""

    outcome: AttemptOutcome
    status: int | None
    duration_ms: int
    reply: str
    wait: timedelta = timedelta()


class _Gate:
    """Lets a few requests at a time to one endpoint.

    Once somebody waited in vain everybody is turned away at once, until a request ends: waiting
    takes places that deliveries to other endpoints need.
    """

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._is_slow = False

    async def enter(self) -> bool:
        """Take a place and say so, or say that there is none."""
        if self._is_slow and self._places.locked():
            return False
        try:
            async with asyncio.timeout(_FULL_WAIT_S):
                await self._places.acquire()
        except TimeoutError:
            self._is_slow = True
            return False
        return True

    def leave(self) -> None:
        """Give the place back."""
        self._is_slow = False
        self._places.release()


def clients_of(*, reach_loopback: bool) -> dict[Mode, HttpClient]:
    """Return what each mode's webhooks go out by; only the sandbox's may ever reach loopback."""
    sandbox = LoopbackAllowed() if reach_loopback else PublicOnly()
    return {Mode.LIVE: HttpClient(PublicOnly()), Mode.SANDBOX: HttpClient(sandbox)}


class Courier:
    """Carries deliveries out; `deliver` is the handler of `DeliverWebhook`.

    Each mode has an HTTP client with its own guard: only sandbox may ever reach loopback.
    """

    def __init__(
        self,
        db: Db,
        keyring: Keyring,
        clients: Mapping[Mode, HttpClient],
        versions: Versions | None = None,
        hands: Callable[[], Hands] | None = None,
    ) -> None:
        self._db = db
        self._keyring = keyring
        self.clients = clients
        self._versions = versions
        self._hands = hands
        self._commits = Commits(db, "webhooks", pace_s=0.02)
        self._letters = Lookups(partial(_letters, db))
        self._events = Lookups(partial(event_rows, db))
        self._keys = Lookups(partial(_keys, db))
        self._opened: dict[bytes, tuple[float, SigningKey]] = {}
        self._planned: dict[UUID, tuple[float, Planned, Sequence[WebhookKey]]] = {}
        self._gates: WeakValueDictionary[UUID, _Gate] = WeakValueDictionary()

    async def plan(self, tx: Tx, events: Sequence[EventRow]) -> None:
        """Plan the deliveries of these events, and remember what was read for it.

        Most are tried right after, by this very process: their tasks are begun with the commit,
        as far as there are hands. What comes of a transaction that failed has no task that asks
        for it.
        """
        now = monotonic()
        if len(self._planned) >= _PLANNED_MAX:
            self._planned.clear()
        hands = None if self._hands is None else self._hands()
        room = 0 if hands is None else max(hands.room - _ROOM_FOR_OTHERS, 0)
        planned, leased = await plan_deliveries(tx, events, room=room)
        if not planned:
            return
        keys = await signing_keys_of(tx, list({each.match.id for each in planned}), tx.now)
        for each in planned:
            self._planned[each.delivery_id] = now, each, keys.get(each.match.id, ())
        if hands is not None and leased:
            tx.afterwards.append(partial(self._begin, hands, planned, leased))

    def _begin(
        self, hands: Hands, planned: Sequence[Planned], leased: Sequence[LeasedTask]
    ) -> None:
        """Try the first of these deliveries, whose tasks are ours and committed."""
        for each, row in zip(planned, leased, strict=False):
            hands.adopt(row, partial(self.deliver, DeliverWebhook(each.delivery_id, 1)))

    async def deliver(self, task: DeliverWebhook, lease: Lease) -> Again | None:
        """Try a delivery once and say when to try again."""
        planned_at, planned, sealed = self._planned.pop(task.delivery_id, (0.0, None, ()))
        if task.round != 1 or lease.attempt != 1 or monotonic() - planned_at > PLANNED_STANDS_S:
            planned = None
        letter = await self._letters.get(task.delivery_id) if planned is None else _letter(planned)
        is_due = letter is not None and letter.state is DeliveryState.PENDING
        if letter is None or not is_due or letter.round != task.round:
            return None  # a later round has a task of its own
        if letter.endpoint_state is not EndpointState.ENABLED:
            await self._close_unsent(letter, lease)
            return None
        now = self._db.clock.now()
        if letter.resting_until is not None and letter.resting_until > now:
            return Again(letter.resting_until - now)
        gate = self._gates.setdefault(letter.endpoint_id, _Gate())
        if not await gate.enter():
            return Again(_FULL_PAUSE)
        try:
            if planned is None:
                met = await self._send(letter, *await self._looked_up(letter))
            else:
                met = await self._send(letter, planned.event, sealed)
        finally:
            gate.leave()
        failpoint("webhooks.sent")
        ATTEMPTS.labels(met.outcome).inc()
        SECONDS.observe(met.duration_ms / 1000)
        if met.outcome is AttemptOutcome.DELIVERED:
            await self._record_delivered(letter, met, lease)
            return None
        async with self._db.begin("webhooks") as tx:
            await lease.hold(tx)
            again = await _record(tx, letter, met)
            if again is None:
                await lease.finish(tx)
            return again

    async def _record_delivered(self, letter: store.Letter, met: _Met, lease: Lease) -> None:
        """Write down that a delivery succeeded, and end its task, with others of the moment.

        Raises:
            LeaseLost: nothing is written; whoever has the task now delivers once more.
        """
        now = self._db.clock.now()
        writes: tuple[Write, ...] = (
            lease.finish_write(),
            Write(store.DELIVERED, (letter.id, met.status, now)),
            Write(store.INSERT_ATTEMPT, _attempt(letter, met, now)),
        )
        if letter.is_troubled:
            writes = (*writes, Write(store.ENDPOINT_WORKS, (letter.endpoint_id,)))
        if await self._commits.write(writes) is not None:
            raise LeaseLost
        lease.finished = True
        CLOSED.labels(DeliveryState.SUCCEEDED).inc()

    def _signing_keys(self, sealed: Sequence[WebhookKey]) -> list[SigningKey]:
        """Return the keys opened, which takes longer than to sign with them."""
        keys, now = [], monotonic()
        for each in sealed:
            known = self._opened.get(each.sealed)
            if known is None or known[0] <= now:
                if len(self._opened) >= _OPENED_MAX:
                    self._opened.clear()
                known = now + _OPENED_S, opened_key(self._keyring, each)
                self._opened[each.sealed] = known
            keys.append(known[1])
        return keys

    async def _looked_up(self, letter: store.Letter) -> tuple[EventRow, Sequence[WebhookKey]]:
        """Return what a delivery tells, and the keys that sign it, with others of the moment."""
        asked = self._keys.get(letter.endpoint_id)
        row = await self._events.get(letter.event_id)
        if row is None:
            raise LookupError(f"event of delivery {letter.id}")
        return row, await asked or ()

    async def _send(
        self, letter: store.Letter, row: EventRow, sealed: Sequence[WebhookKey]
    ) -> _Met:
        keys = self._signing_keys(sealed)
        body = payload(row, self._since(letter.api_version))
        timestamp = int(real_now().timestamp())  # receivers compare it with their clock
        headers = _HEADERS | signed_headers(keys, show("evt", row.id), timestamp, body)
        client = self.clients[letter.mode]
        try:
            reply = await client.send(
                "POST", letter.url, headers, body, timeout_s=TIMEOUT_S, reply_max_bytes=_READ_MAX
            )
        except NotSentError as silence:
            return _Met(AttemptOutcome.NOT_SENT, None, silence.duration_ms, _shown(silence.reason))
        except NoAnswerError as silence:
            return _Met(AttemptOutcome.NO_ANSWER, None, silence.duration_ms, _shown(silence.reason))
        outcome = outcome_of_status(reply.status)
        wait = timedelta()
        if outcome is AttemptOutcome.THROTTLED:
            wait = retry_after(reply.headers, real_now())
        text = _shown(reply.body[: 4 * REPLY_MAX].decode("utf-8", "replace"))
        return _Met(outcome, reply.status, reply.duration_ms, text, wait)

    def _since(self, version: str | None) -> Sequence[Change]:
        """Return what changed since the version that an endpoint is told in."""
        return () if version is None or self._versions is None else self._versions.since(version)

    async def _close_unsent(self, letter: store.Letter, lease: Lease) -> None:
        """End a delivery whose endpoint was disabled or deleted while it waited."""
        async with self._db.begin("webhooks") as tx:
            await lease.hold(tx)
            await _close(tx, letter, DeliveryState.FAILED)
            await lease.finish(tx)


def _letter(planned: Planned) -> store.Letter:
    """Return a delivery as it was planned, and nobody has tried it yet."""
    event, match = planned.event, planned.match
    return store.Letter(
        id=planned.delivery_id,
        endpoint_id=match.id,
        event_id=event.id,
        merchant_id=match.merchant_id,
        mode=match.mode,
        state=DeliveryState.PENDING,
        round=1,
        tries=0,
        attempts=0,
        url=match.url,
        endpoint_state=EndpointState.ENABLED,
        resting_until=match.resting_until,
        failing_since=match.failing_since,
        api_version=match.api_version,
    )


async def _letters(db: Db, ids: Sequence[UUID]) -> dict[UUID, store.Letter]:
    return {letter.id: letter for letter in await store.LETTERS.all(db, ids)}


async def _keys(db: Db, endpoint_ids: Sequence[UUID]) -> dict[UUID, list[WebhookKey]]:
    return await signing_keys_of(db, endpoint_ids, db.clock.now())


async def _record(tx: Tx, letter: store.Letter, met: _Met) -> Again | None:
    """Write down a failed attempt and what follows from it for the delivery and its endpoint."""
    tries = letter.tries + 1
    delay = delay_after(letter.id, tries)
    next_at = tx.now if delay is None else tx.now + max(delay, met.wait)
    await store.TRIED.run(tx, letter.id, met.status, next_at)
    await store.INSERT_ATTEMPT.run(tx, *_attempt(letter, met, tx.now))
    gave_up = await _note_failure(tx, letter.endpoint_id, met)
    if delay is None or gave_up:
        await _close(tx, letter, DeliveryState.FAILED)
        return None
    return Again(next_at - tx.now)


def _attempt(letter: store.Letter, met: _Met, at: datetime) -> tuple[object, ...]:
    which = (letter.id, letter.attempts + 1, letter.merchant_id, letter.mode, at)
    return (*which, met.outcome, met.status, met.duration_ms, met.reply)


async def _note_failure(tx: Tx, endpoint_id: UUID, met: _Met) -> bool:
    """Count a failure against the endpoint; say whether it is disabled now."""
    endpoint = await store.ENDPOINT_FAILED.one(tx, endpoint_id, tx.now)
    if endpoint.state is not EndpointState.ENABLED:
        return True
    if why := _reason_to_give_up(met, endpoint.failing_since, tx.now):
        _log.warning("webhook_endpoint_disabled", endpoint=show("whe", endpoint_id), because=why)
        await give_up_on_endpoint(tx, endpoint_id, why)
        return True
    if rest := max(met.wait, rest_after(endpoint.failures_in_row)):
        await store.REST_ENDPOINT.run(tx, endpoint_id, tx.now + rest)
    return False


def _reason_to_give_up(
    met: _Met, failing_since: datetime | None, now: datetime
) -> DisabledBecause | None:
    if met.outcome is AttemptOutcome.GONE:
        return DisabledBecause.GONE
    if failing_since is not None and now - failing_since >= DISABLE_AFTER:
        return DisabledBecause.FAILING
    return None


async def _close(tx: Tx, letter: store.Letter, state: DeliveryState) -> None:
    await store.CLOSE.run(tx, letter.id, state, tx.now)
    CLOSED.labels(state).inc()


def _shown(text: str) -> str:
    """Return the start of a text as it may be kept: no card numbers or secrets, no NUL."""
    return redact_text(text.replace("\0", "�"))[:REPLY_MAX]
