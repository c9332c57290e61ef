"""Idempotency: a repeated request has the effect of one and gets the first one's answer.

    no row ──insert, in the effect's own commit──► leased ──► answered ──30 days──► key only
                                                     │
                                 crash, lease over ──┴──► resumed: read the resource, answer

The row is written by the very transaction or ledger group that has the effect, so there is never
one without the other. Key and body hash are kept for ever, the answer for 30 days; after that a
repeat is answered with the resource as it is now. Malformed and unauthenticated requests leave
nothing; refusals by a business rule are kept like answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec
from litestar import Response
from msgspec import Struct

from tongbao.infra.crypto import hmac_sha256
from tongbao.infra.db import Db, Tx, Write
from tongbao.infra.lookups import Lookups, Together
from tongbao.infra.web import _store as store
from tongbao.infra.web.caller import Caller
from tongbao.infra.web.problem import Rendered
from tongbao.infra.web.request import ApiRequest
from tongbao.kernel.clock import real_now
from tongbao.kernel.errors import Conflict, Rejected
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import Page, decode_moment, page_by_moment, page_size

LEASE: Final = timedelta(seconds=30)
"""How long one handler may take before another may take its request over."""
ANSWERS_KEPT: Final = timedelta(days=30)
REPLAYED_HEADER: Final = "idempotency-replayed"

T = TypeVar("T")


class KeyReused(Rejected):
    """The Idempotency-Key was used before with another request."""

    code = "idempotency.reused"
    advice = "Use a new key for a new operation; repeat an operation byte for byte."
    advice_zh = "新的操作请使用新的 Idempotency-Key；重试须与原请求完全一致。"


class InFlight(Conflict):
    """The first request with this Idempotency-Key is still being worked on."""

    code = "idempotency.in_flight"
    advice = "Repeat the request after Retry-After seconds to get its answer."
    advice_zh = "请在 Retry-After 秒后重试以获取结果。"
    retry_after_s = 1


class Idempotency(Struct, frozen=True):
    """One use of a key, and the writes that record it in somebody else's commit."""

    merchant_id: UUID
    mode: Mode
    route: str
    key_hash: bytes
    body_hash: bytes
    lease_until: datetime  # real time
    asked_by: UUID | None = None  # the person, where it is one

    def write(self, resource_id: UUID, now: datetime) -> Write:
        """Return the write that takes the key; it refuses when somebody else has it."""
        args = (self.body_hash, resource_id, now, self.lease_until, self.asked_by)
        return Write(store.TAKE, (*self.row_key, *args), refusal=InFlight.code)

    def answered_write(self, resource_id: UUID, now: datetime, status: int, body: bytes) -> Write:
        """Return the write that takes the key and answers at once, for work of one commit."""
        row = store.IdempotencyKey(
            *self.row_key, self.body_hash, resource_id, status, body, now, self.lease_until, now
        )
        return Write(store.APPEND_ANSWERED, (store.answered_row(row),), refusal=InFlight.code)

    def answer_write(self, status: int, body: bytes, now: datetime) -> Write:
        """Return the write that records the answer, unless there is one."""
        return Write(store.ANSWER, (*self.row_key, status, body, now))

    async def take(self, tx: Tx, resource_id: UUID) -> None:
        """Take the key in the caller's transaction.

        Raises:
            InFlight
        """
        if not await self.write(resource_id, tx.now).run(tx):
            raise InFlight

    @property
    def row_key(self) -> tuple[UUID, Mode, str, bytes]:
        """Return the primary key of the row."""
        return (self.merchant_id, self.mode, self.route, self.key_hash)


RowKey = tuple[UUID, Mode, str, bytes]
"""Where a use of a key is on record: merchant, mode, route, hash of the key."""


class Answered(Struct, frozen=True):
    """What was answered to one use of a key."""

    key: RowKey
    status: int
    body: bytes


class Repeats:
    """The uses of keys on record, as one process asks for them: for all that came meanwhile."""

    def __init__(self, db: Db) -> None:
        self._db = db
        self._uses = Lookups(self._find)
        self._answers = Together(self._keep)

    async def find(self, key: RowKey) -> store.IdempotencyKey | None:
        """Return what is on record of a use of a key."""
        return await self._uses.get(key)

    async def keep(self, answered: Answered) -> None:
        """Keep an answer, unless there is one."""
        await self._answers.ask(answered)

    async def _find(self, keys: Sequence[RowKey]) -> dict[RowKey, store.IdempotencyKey]:
        columns = [list(column) for column in zip(*keys, strict=True)]
        rows = await store.FIND_ALL.all(self._db, *columns)
        return {(row.merchant_id, row.mode, row.route, row.key_hash): row for row in rows}

    async def _keep(self, answered: Sequence[Answered]) -> list[None]:
        # In one order for everybody, so that two sets never wait for each other.
        rows = sorted({each.key: each for each in answered}.items(), key=_place)
        columns = [list(column) for column in zip(*[key for key, _ in rows], strict=True)]
        statuses, bodies = [each.status for _, each in rows], [each.body for _, each in rows]
        await store.KEEP_ANSWERS.run(self._db, *columns, statuses, bodies, self._db.clock.now())
        return [None] * len(answered)


def _place(row: tuple[RowKey, Answered]) -> tuple[int, str, str, bytes]:
    merchant_id, mode, route, key_hash = row[0]
    return merchant_id.int, mode, route, key_hash


class Fresh(Struct, frozen=True):
    """The key is new: do the work, and take the key in its commit."""

    idempotency: Idempotency


class Replay(Struct, frozen=True):
    """The work was done and answered: say the same again."""

    status: int
    body: bytes


class Resume(Struct, frozen=True):
    """The work was begun and its answer is not known here: read the resource and answer."""

    idempotency: Idempotency
    resource_id: UUID


Beginning = Fresh | Replay | Resume


async def begin(
    db: Db, caller: Caller, route: str, key: str, body: bytes, *, repeats: Repeats | None = None
) -> Beginning:
    """Look the key up and say how to go on; it changes nothing but an abandoned lease.

    ``route`` is the path template and ``body`` whatever must be equal in a repeat: the request's
    canonical body, with the path itself where that says what is meant. With ``repeats`` it is
    looked up together with those of other requests.

    Raises:
        KeyReused, InFlight
    """
    now = real_now()
    use = use_of(caller, route, key, body)
    found = store.FIND.first(db, *use.row_key) if repeats is None else repeats.find(use.row_key)
    row = await found
    if row is None:
        return Fresh(use)
    if row.body_hash != use.body_hash:
        raise KeyReused(param="Idempotency-Key")
    if row.status is not None and row.response is not None:
        return Replay(row.status, row.response)
    if row.answered_at is None and not await _take_over(db, use, row.lease_until, now):
        raise InFlight
    if row.resource_id is None:
        raise LookupError("a kept refusal lost its answer")
    return Resume(use, row.resource_id)


def use_of(caller: Caller, route: str, key: str, body: bytes) -> Idempotency:
    """Return this use of the key, which is good for the time of a lease from now.

    The body's hash is keyed by the key, of which only a hash is kept: a card number in the body
    could else be found from the hash by trying them all (PCI DSS 4.0.1, 3.5.1.1).
    """
    return Idempotency(
        caller.merchant_id,
        caller.mode,
        route,
        hashlib.sha256(key.encode()).digest(),
        hmac_sha256(key.encode(), body),
        real_now() + LEASE,
        None if caller.till is None else caller.till.staff_id,
    )


async def taken(db: Db, uses: Sequence[Idempotency]) -> dict[Idempotency, bool]:
    """Return those of these keys that somebody has taken, whatever became of it."""
    columns = zip(*[use.row_key for use in uses], strict=True)
    hashes = set(await store.TAKEN.all(db, *[list(column) for column in columns]))
    return {use: True for use in uses if use.key_hash in hashes}


def canonical(path: str, body: bytes) -> bytes:
    """Return what makes two requests the same: the path, and the JSON however it is spaced."""
    value = msgspec.json.decode(body) if body else None
    return path.encode() + b"\n" + msgspec.json.encode(value, order="deterministic")


def _as_it_is(view: T) -> T:
    return view


async def answer_once(
    request: ApiRequest,
    db: Db,
    *,
    fresh: Callable[[Idempotency], Awaitable[T]],
    resume: Callable[[UUID], Awaitable[T]],
    stored: Callable[[T], T] = _as_it_is,
) -> Response[T]:
    """Answer with what ``fresh`` returns, once for ever; ``resume`` answers where it left off.

    ``fresh`` takes the key in the commit that creates the resource, and takes it before anything
    that a rival with the same key would also trip over. ``stored`` takes out of the answer what a
    repeat must not see: a secret shown once.

    Raises:
        KeyMissing, KeyTooLong, KeyReused, InFlight, and what ``fresh`` and ``resume`` raise
    """
    body = canonical(request.scope["path"], request.raw)
    repeats: Repeats = request.scope["state"]["repeats"]
    key = request.idempotency_key
    beginning = await begin(db, request.caller, request.operation, key, body, repeats=repeats)
    if isinstance(beginning, Replay):
        return replayed(beginning)
    use = beginning.idempotency
    try:
        if isinstance(beginning, Resume):
            view = await resume(beginning.resource_id)
        else:
            view = await _made(request, db, use, fresh)
    except Exception:  # so that the next try need not wait for the lease to run out
        await let_go(db, use)
        raise
    status = request.route_handler.status_code
    kept = stored(view)
    answer = msgspec.json.encode(kept)
    await repeats.keep(Answered(use.row_key, status, answer))
    return reply(status, answer if kept is view else view)


async def _made(
    request: ApiRequest, db: Db, use: Idempotency, fresh: Callable[[Idempotency], Awaitable[T]]
) -> T:
    try:
        return await fresh(use)
    except (Rejected, Conflict) as refusal:
        if not isinstance(refusal, KeyReused | InFlight):
            await keep_refusal(db, use, request.scope["state"]["render"](refusal))
        raise


async def keep_refusal(db: Db, use: Idempotency, problem: Rendered) -> None:
    """Keep a business refusal as the answer, so that a repeat hears the same.

    Where the key is taken already, by us or by a rival, its resource is the answer instead.
    """
    now = db.clock.now()
    answer = (problem.status, problem.body, now, use.lease_until, now)
    await store.KEEP_REFUSAL.run(db, *use.row_key, use.body_hash, *answer, use.asked_by)


async def asked_by(
    on: Db | Tx, person: UUID, *, cursor: str | None, limit: int | None
) -> Page[store.AskedFor]:
    """Return what a person asked for, the newest first: each in the commit that did it.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    at, resource = decode_moment(cursor)
    rows = await store.ASKED_BY.all(on, person, at, resource, size + 1)
    return page_by_moment(rows, size, lambda row: (row.created_at, row.resource_id))


def reply(status: int, view: object) -> Response[Any]:
    """Return a JSON answer; bytes are taken as already encoded."""
    content = view if isinstance(view, bytes) else msgspec.json.encode(view)
    return Response(content, status_code=status, media_type="application/json")


def replayed(replay: Replay) -> Response[Any]:
    """Return the stored answer, marked as such."""
    kind = "application/json" if replay.status < 400 else "application/problem+json"
    headers = {REPLAYED_HEADER: "true"}
    return Response(replay.body, status_code=replay.status, media_type=kind, headers=headers)


async def prune(db: Db) -> None:
    """Forget the answers of more than 30 days ago."""
    await store.PRUNE_ANSWERS.run(db, db.clock.now() - ANSWERS_KEPT)


async def _take_over(db: Db, use: Idempotency, lease_until: datetime, now: datetime) -> bool:
    if lease_until > now:
        return False
    return bool(await store.MOVE_LEASE.run(db, *use.row_key, lease_until, use.lease_until))


async def let_go(db: Db, use: Idempotency) -> None:
    """Give the lease back, if the key was taken and not answered."""
    await store.MOVE_LEASE.run(db, *use.row_key, use.lease_until, real_now())
