"""Notices: a merchant is told of a success, and of a refund's end, until they answer ``success``.

    event ──dispatcher's transaction──► pending ──`success`──► answered
                                           │ tries used up ──► given_up ──by hand──► pending
                                           └ nothing to tell, app disabled ──► dropped

Planned with the event and kept in the database: no message of a broker can be lost with it. Each
event is told by itself. What is said is read when it is said, and signed then, so that ``reqTime``
is fresh; the state is the event's. Of payments only a success is told, as jeepay does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, Tx
from tongbao.infra.http import HttpClient, NoAnswerError, NotSentError
from tongbao.infra.outbox import EventRow
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, enqueue
from tongbao.infra.telemetry import redact_text
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import UnknownId, new_id, parse, show
from tongbao.kernel.licence import Mode
from tongbao.payments.checkouts.model import METADATA_KEY
from tongbao.surfaces.jeepay import _store as store
from tongbao.surfaces.jeepay.apps import Fields, secret_of, signed
from tongbao.surfaces.jeepay.model import (
    JeepayApp,
    JeepayNotice,
    JeepayOrder,
    JeepayRefund,
    NoticeState,
    NoticeUnknown,
)
from tongbao.surfaces.jeepay.orders import in_ms, order_fields, standing
from tongbao.surfaces.jeepay.refunds import refund_fields

PREFIX: Final = "jpn"
ANSWER: Final = b"success"
TIMEOUT_S: Final = 15.0
_READ_MAX: Final = 64 * 1024
_REPLY_KEPT: Final = 200
_HEADERS: Final = {
    "content-type": "application/x-www-form-urlencoded",
    "user-agent": "Tongbao-Jeepay/1",
}
_PAID: Final = 2
TOLD_STATES: Final = {"payment.succeeded": _PAID, "refund.succeeded": 2, "refund.failed": 3}
"""Which events are told, with the state that each is."""
DELAYS: Final = (
    *(timedelta(seconds=seconds) for seconds in (30, 60, 90, 120, 150)),
    *(timedelta(minutes=minutes) for minutes in (10, 30)),
    *(timedelta(hours=hours) for hours in (1, 2, 5, 10, 14, 20, 20)),
)
"""After each try in vain: jeepay's own pace, where that gives up, then on for three days."""


class TellJeepayMerchant(Task, frozen=True, tag="jeepay.tell_merchant"):
    """Try a notice until its round ends."""

    notice_id: UUID
    round: int


TELL_POLICY: Final = RetryPolicy(
    attempts_max=20,
    delays=(timedelta(seconds=5), timedelta(minutes=1), timedelta(minutes=30)),
    time_limit=timedelta(minutes=1),
    concurrency_max=4,
)
"""For failures of our own only: what a merchant answers is counted by the notice."""


class _Met(Struct, frozen=True):
    """What one try met."""

    is_answered: bool
    status: int | None
    reply: str


async def plan_notices(tx: Tx, events: Sequence[EventRow]) -> None:
    """Plan a notice of each event about what was asked through the façade with a notify URL.

    This is a fan-out of the dispatcher; an event already planned is passed over.
    """
    named: dict[UUID, list[EventRow]] = {}  # several may name one page, a stranger's among them
    for event in events:
        for target in _targets(event) if event.type in TOLD_STATES else ():
            named.setdefault(target, []).append(event)
    if not named:
        return
    for order in await store.ORDERS_OF_TARGETS.all(tx, list(named)):
        for event in named[order.target]:
            await _plan(tx, event, order, ("order", order.target))
    for refund in await store.REFUNDS_WITH_IDS.all(tx, list(named)):
        for event in named[refund.refund_id]:
            await _plan(tx, event, refund, ("refund", refund.refund_id))


def _targets(event: EventRow) -> list[UUID]:
    """Return what an event may be about: the thing itself, or the page it was paid on."""
    said = [event.resource_id]
    metadata = event.body.get("object", {}).get("metadata") or {}
    said += [metadata[METADATA_KEY]] if METADATA_KEY in metadata else []
    found = []
    for shown in said:
        try:
            found.append(parse(str(shown).partition("_")[0], str(shown)))
        except UnknownId:  # a merchant may write anything into the metadata of a payment
            continue
    return found


async def _plan(
    tx: Tx, event: EventRow, asked: JeepayOrder | JeepayRefund, about: tuple[str, UUID]
) -> None:
    if asked.notify_url is None or (asked.merchant_id, asked.mode) != (
        event.merchant_id,
        event.mode,
    ):
        return
    notice = await store.INSERT_NOTICE.first(
        tx,
        new_id(),
        event.id,
        asked.merchant_id,
        asked.mode,
        asked.app,
        *about,
        TOLD_STATES[event.type],
        asked.notify_url,
        tx.now,
    )
    if notice is not None:
        await _send_out(tx, notice)


async def _send_out(tx: Tx, notice: JeepayNotice) -> None:
    # The round is part of the key: the task of an earlier round may not be quite over.
    task = TellJeepayMerchant(notice.id, notice.round)
    await enqueue(tx, task, key=f"{notice.id}/{notice.round}")


class Messenger:
    """Carries notices out; `tell` is the handler of `TellJeepayMerchant`.

    Each mode has an HTTP client with its own guard, the webhooks' own: merchants choose where.
    """

    def __init__(self, db: Db, keyring: Keyring, clients: Mapping[Mode, HttpClient]) -> None:
        self._db = db
        self._keyring = keyring
        self._clients = clients

    async def tell(self, task: TellJeepayMerchant, lease: Lease) -> Again | None:
        """Try a notice once and say when to try again."""
        notice = await store.GET_NOTICE.first(self._db, task.notice_id)
        if notice is None or notice.state != "pending" or notice.round != task.round:
            return None  # ended, or a later round has a task of its own
        app = await store.GET_APP.one(self._db, notice.app)
        fields = None if app.disabled_at is not None else await self._fields(app, notice)
        if fields is None:
            await self._end(notice, lease, "dropped")
            return None
        met = await self._send(app, notice, fields)
        async with self._db.begin("jeepay") as tx:
            await lease.hold(tx)
            await store.NOTICE_TRIED.run(tx, notice.id, met.status, met.reply, tx.now)
            if not met.is_answered and notice.tries < len(DELAYS):
                return Again(DELAYS[notice.tries])
            ended: NoticeState = "answered" if met.is_answered else "given_up"
            await store.CLOSE_NOTICE.run(tx, notice.id, ended, tx.now)
            await lease.finish(tx)
        return None

    async def _fields(self, app: JeepayApp, notice: JeepayNotice) -> Fields | None:
        """Return what is said, or None where the books do not say that it happened."""
        if notice.about == "refund":
            refund = await store.GET_REFUND.one(self._db, notice.target)
            return await refund_fields(self._db, app, refund, notice.told_state)
        order = await store.ORDER_OF_TARGET.one(self._db, notice.target)
        now = await standing(self._db, app, order)
        # A payment's metadata is its merchant's to write, so that it names a page proves nothing.
        if now.state(self._db.clock.now()) not in {2, 5}:
            return None
        return await order_fields(self._db, app, order, notice.told_state)

    async def _send(self, app: JeepayApp, notice: JeepayNotice, fields: Fields) -> _Met:
        request_at = in_ms(real_now())  # receivers compare it with their clock
        said = signed({**fields, "reqTime": request_at}, secret_of(self._keyring, app))
        url, body = notice.url, urlencode(said).encode()
        if app.notify_by == "query":
            url, body = f"{url}{'&' if '?' in url else '?'}{body.decode()}", b""
        try:
            reply = await self._clients[notice.mode].send(
                "POST", url, _HEADERS, body, timeout_s=TIMEOUT_S, reply_max_bytes=_READ_MAX
            )
        except (NotSentError, NoAnswerError) as silence:
            return _Met(is_answered=False, status=None, reply=_kept(silence.reason))
        is_success = 200 <= reply.status < 300 and reply.body.strip().lower() == ANSWER
        text = reply.body[: 4 * _REPLY_KEPT].decode("utf-8", "replace")
        return _Met(is_success, reply.status, _kept(text))

    async def _end(self, notice: JeepayNotice, lease: Lease, state: NoticeState) -> None:
        async with self._db.begin("jeepay") as tx:
            await lease.hold(tx)
            await store.CLOSE_NOTICE.run(tx, notice.id, state, tx.now)
            await lease.finish(tx)


async def notices_of(
    on: Db | Tx, merchant_id: UUID, mode: Mode, *, only_unanswered: bool, limit: int
) -> list[JeepayNotice]:
    """Return what a merchant was told and what they answered, newest first."""
    return await store.NOTICES_OF.all(on, merchant_id, mode, only_unanswered, limit)


async def send_again(tx: Tx, notice_id: UUID) -> JeepayNotice:
    """Send a notice that has ended again, from the first try.

    Raises:
        NoticeUnknown
    """
    notice = await store.REOPEN_NOTICE.first(tx, notice_id)
    if notice is None:
        raise NoticeUnknown
    await _send_out(tx, notice)
    await audit.record(tx, "jeepay_notice.replay", show(PREFIX, notice.id), {})
    return notice


def view_notice(notice: JeepayNotice) -> dict[str, Any]:
    """Return a notice as people see it: why it did not come is in its last status and reply."""
    return {
        "notice": show(PREFIX, notice.id),
        "about": show("ref", notice.target) if notice.about == "refund" else "order",
        "url": notice.url.partition("?")[0],
        "state": notice.state,
        "tries": notice.tries,
        "last_status": notice.last_status,
        "last_reply": notice.last_reply,
    }


def _kept(text: str) -> str:
    """Return the start of a text as it may be kept: no card numbers or secrets, no NUL."""
    return redact_text(text.replace("\0", "�"))[:_REPLY_KEPT]
