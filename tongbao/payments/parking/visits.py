"""Let cars drive in and out: commit what happened, tell the channel, write down what it says."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import astuple, replace

from tongbao.infra.crypto import Keyring, bind, hmac_sha256
from tongbao.infra.db import Write, write_all
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import Event, event_write
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, task_write
from tongbao.infra.web.idempotency import InFlight
from tongbao.kernel.ids import UnknownId, new_id, show
from tongbao.kernel.licence import Mode
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.model import PaymentState
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.collecting.payments import Taking
from tongbao.payments.parking import _store as store
from tongbao.payments.parking import queries
from tongbao.payments.parking.model import (
    Car,
    ParkingNotOffered,
    ParkingVisitView,
    Visit,
    VisitContended,
    VisitNumberUsed,
    VisitState,
    VisitTimesWrong,
    next_visit,
    view_visit,
)
from tongbao.rails.channels.capabilities.agreements import Parking, VisitOutcome
from tongbao.rails.channels.contract.callbacks import Callback
from tongbao.rails.channels.contract.orders import CarVisit, ChannelAccount, ParkingFee
from tongbao.rails.channels.contract.outcomes import Closed, Exchange, Unknown

_SEALED: Final = "parking.car"
_BLIND: Final = "parking.blind"
_NUMBER_TAKEN: Final = "parking.number_taken"
_MOVED_ON: Final = "parking.moved_on"
_TRIES_MAX: Final = 8
_DELAYS: Final = tuple(timedelta(seconds=s) for s in (5, 10, 30, 60, 300, 600))
_TOLD_FOR: Final = timedelta(days=1)
"""How long a visit that nobody answered about is told again: then the car is long gone."""
VISIT_POLICY: Final = RetryPolicy(attempts_max=20, delays=_DELAYS)

What = Literal["enter", "leave"]


class ChaseVisit(Task, frozen=True, tag="parking.chase"):
    """Tell a channel of a car's coming or going until it has heard."""

    book: int
    visit_id: UUID


class ParkingVisitUpdated(Event, frozen=True, kw_only=True, tag="parking_visit.updated"):
    """The channel says that a plate can be charged, or no more; or the car has left."""

    object: ParkingVisitView


class CarParks(Struct, frozen=True):
    """What every step about visits needs."""

    flow: Flow
    keyring: Keyring


class VisitAsked(Struct, frozen=True):
    """A merchant's word that a car drove in."""

    merchant_id: UUID
    mode: Mode
    book: int
    merchant_visit_no: str
    channel: str
    account_id: UUID
    car: Car
    place: str
    lot: str
    free_s: int
    entered_at: datetime | None


def parking(parks: CarParks, name: str) -> Parking:
    """Return the channel as one that takes parking fees.

    Raises:
        ParkingNotOffered
    """
    channel: object = parks.flow.channels.get(name)
    if not isinstance(channel, Parking):
        raise ParkingNotOffered(channel=name)
    return channel


def car_of(parks: CarParks, visit: Visit) -> Car:
    """Return which car it is."""
    text = parks.keyring.open(_SEALED, visit.plate_sealed, _place(visit.id))
    return msgspec.json.decode(text, type=Car)


def visit_of(visit: Visit, car: Car) -> CarVisit:
    """Return a visit in the channel's terms."""
    return CarVisit(
        number=visit.number,
        plate=car.plate,
        colour=car.colour,
        place=visit.place,
        lot=visit.lot,
        entered_at=visit.entered_at,
        free_s=visit.free_s,
    )


def _place(visit_id: UUID) -> bytes:
    return bind("parking_visit", "plate_sealed", visit_id)


async def drive_in(parks: CarParks, asked: VisitAsked, take: Taking, visit_id: UUID) -> Visit:
    """Write down that a car drove in and tell the channel, which says whether it can be charged.

    The same number with the same content returns the visit it already made.

    Raises:
        ParkingNotOffered, VisitTimesWrong, VisitNumberUsed, InFlight, VisitContended
    """
    parking(parks, asked.channel)
    db = parks.flow.db
    now = db.clock.now()
    visit = _row(parks, asked, visit_id, now)
    if visit.entered_at > now:
        raise VisitTimesWrong(param="$.entered_at")
    writes = (
        take(visit.id, now),
        Write(store.INSERT_VISIT, astuple(visit), refusal=_NUMBER_TAKEN),
        _chase_write(visit, now),
    )
    failpoint("parking.before_intention")
    async with db.begin("parking") as tx:
        refused = await write_all(tx, writes)
    if refused == _NUMBER_TAKEN:
        return await _earlier(parks, visit, take)
    if refused is not None:
        raise InFlight
    failpoint("parking.after_intention")
    return await tell(parks, visit, "enter")


def _row(parks: CarParks, asked: VisitAsked, visit_id: UUID, now: datetime) -> Visit:
    text = msgspec.json.encode(asked.car)
    meant = (asked.channel, asked.place, asked.lot, asked.free_s, asked.entered_at, asked.car)
    key = parks.keyring.mac_key(_BLIND)  # a plain hash of a plate could be searched for
    return Visit(
        book=asked.book,
        id=visit_id,
        merchant_id=asked.merchant_id,
        mode=asked.mode,
        merchant_visit_no=asked.merchant_visit_no,
        request_hash=hmac_sha256(key, msgspec.json.encode(meant)),
        channel=asked.channel,
        account_id=asked.account_id,
        plate_sealed=parks.keyring.seal(_SEALED, text, _place(visit_id)),
        place=asked.place,
        lot=asked.lot,
        free_s=asked.free_s,
        state=VisitState.CREATED,
        visit_ref=None,
        code=None,
        entered_at=asked.entered_at or now,
        left_at=None,
        exit_told_at=None,
        payment_id=None,
        charges=0,
        created_at=now,
        version=1,
    )


def _chase_write(visit: Visit, now: datetime, when: str = "") -> Write:
    task, key = ChaseVisit(visit.book, visit.id), f"visit/{visit.id}{when}"
    return task_write(task, run_at=now + _DELAYS[0], key=key)


async def _earlier(parks: CarParks, asked: Visit, take: Taking) -> Visit:
    db = parks.flow.db
    found = await store.FIND_VISIT_BY_NUMBER.one(
        db, asked.book, asked.merchant_id, asked.mode, asked.merchant_visit_no
    )
    if found.request_hash != asked.request_hash:
        raise VisitNumberUsed(merchant_visit_no=asked.merchant_visit_no)
    async with db.begin("parking") as tx:
        await take(found.id, tx.now).run(tx)
    return found


async def drive_out(parks: CarParks, visit: Visit, left_at: datetime | None, take: Taking) -> Visit:
    """Write down that the car left, and tell the channel where it wants to hear that.

    Raises:
        VisitTimesWrong, InFlight, VisitContended
    """
    db = parks.flow.db
    for _ in range(_TRIES_MAX):
        now = db.clock.now()
        out_at = visit.left_at or left_at or now
        if out_at < visit.entered_at or out_at > now:
            raise VisitTimesWrong(param="$.left_at")
        becomes = replace(visit, state=VisitState.LEFT, left_at=out_at)
        writes = (take(visit.id, now), *_change_writes(visit, becomes, now))
        async with db.begin("parking") as tx:
            refused = await write_all(tx, (*writes, _chase_write(visit, now, "/left")))
        if refused is None:
            failpoint("parking.after_exit")
            return await tell(parks, replace(becomes, version=visit.version + 1), "leave")
        if refused != _MOVED_ON:
            raise InFlight
        visit = await queries.visit(db, visit.book, visit.id)
    raise VisitContended


async def tell(parks: CarParks, visit: Visit, what: What) -> Visit:
    """Tell the channel of a coming or going and write down what it says; safe to repeat.

    Raises:
        ParkingNotOffered, VisitContended
    """
    channel, flow = parking(parks, visit.channel), parks.flow
    account = await flow.account(visit.account_id)
    shown = visit_of(visit, car_of(parks, visit))
    if what == "enter":
        entered = await channel.drive_in(account, shown)
        failpoint("parking.after_channel_call")
        return await _record(flow, visit, entered.outcome, entered.exchange)
    if visit.exit_told_at is not None or visit.left_at is None:
        return visit
    if not channel.tells_exits:
        return await _record(flow, visit, Closed(), None)
    fee, is_known = await _fee_of(flow, visit)
    left = await channel.drive_out(account, shown, visit.left_at, fee)
    failpoint("parking.after_exit_call")
    heard = left.outcome if is_known else Unknown("the fee is not decided yet")
    return await _record(flow, visit, heard, left.exchange)


async def _fee_of(flow: Flow, visit: Visit) -> tuple[ParkingFee | None, bool]:
    """Return the fee that was taken, if one was, and whether that is known by now."""
    if visit.payment_id is None:
        return None, True
    payment = await payments.payment(flow.db, visit.book, visit.payment_id)
    if payment.state is not PaymentState.SUCCEEDED:
        return None, not payment.state.is_open
    attempt = await payments.paid_attempt(flow.db, payment)
    fee = ParkingFee(
        number=attempt.number,
        channel_ref=attempt.channel_ref or "",
        payer=attempt.payer or "",
        money=payment.taken,
        asked_at=payment.created_at,
        paid_at=attempt.paid_at or payment.created_at,
    )
    return fee, True


async def _record(
    flow: Flow, visit: Visit, news: VisitOutcome | Closed, exchange: Exchange | None
) -> Visit:
    """Apply an answer exactly once and return the row as it is afterwards.

    Raises:
        VisitContended: others kept winning; nothing was written, and telling again is safe.
    """
    exchange_id = new_id()
    for _ in range(_TRIES_MAX):
        visit = await queries.visit(flow.db, visit.book, visit.id)
        now = flow.db.clock.now()
        becomes = _heard(visit, news, now)
        writes = (
            *_exchange_writes(visit, exchange_id, news, exchange, now=now),
            *(() if becomes is None else _change_writes(visit, becomes, now)),
        )
        failpoint("parking.before_outcome")
        async with flow.db.begin("parking") as tx:
            refused = await write_all(tx, writes)
        if refused is None:
            flow.nudge()
            return await queries.visit(flow.db, visit.book, visit.id)
    raise VisitContended


def _heard(visit: Visit, news: VisitOutcome | Closed, now: datetime) -> Visit | None:
    if isinstance(news, Closed):
        return None if visit.exit_told_at is not None else replace(visit, exit_told_at=now)
    return next_visit(visit, news)


def _change_writes(before: Visit, becomes: Visit, now: datetime) -> tuple[Write, ...]:
    args = (becomes.state, becomes.visit_ref, becomes.code, becomes.left_at, becomes.exit_told_at)
    update = Write(
        store.UPDATE_VISIT, (before.book, before.id, before.version, *args), refusal=_MOVED_ON
    )
    if before.state is becomes.state:
        return (update,)
    event = ParkingVisitUpdated(
        merchant_id=becomes.merchant_id,
        mode=becomes.mode,
        resource_id=show("prk", becomes.id),
        object=view_visit(replace(becomes, version=before.version + 1)),
    )
    return (update, event_write(event, now=now))


def _exchange_writes(
    visit: Visit,
    exchange_id: UUID,
    news: VisitOutcome | Closed,
    seen: Exchange | None,
    *,
    now: datetime,
) -> tuple[Write, ...]:
    if seen is None:
        return ()
    args = (
        visit.book,
        exchange_id,
        visit.id,
        "leave" if visit.state is VisitState.LEFT else "enter",
        seen.method,
        seen.url,
        seen.request,
        seen.status,
        seen.reply,
        seen.duration_ms,
        type(news).__name__.lower(),
        now,
    )
    return (Write(store.INSERT_EXCHANGE, args),)


async def chase_visit(parks: CarParks, task: ChaseVisit, _lease: Lease) -> Again | None:
    """Tell again what the channel has not heard; return when to look again, or None."""
    visit = await queries.visit(parks.flow.db, task.book, task.visit_id)
    now = parks.flow.db.clock.now()
    since = visit.left_at or visit.created_at
    match visit.state:
        case VisitState.CREATED | VisitState.UNKNOWN:
            visit = await tell(parks, visit, "enter")
        case VisitState.LEFT if visit.exit_told_at is None:
            visit = await tell(parks, visit, "leave")
        case _:
            return None
    is_heard = visit.state in {VisitState.OPEN, VisitState.BLOCKED} or visit.exit_told_at
    if is_heard or now >= since + _TOLD_FOR:
        return None
    gaps = [each for each in _DELAYS if each <= max(now - since, _DELAYS[0])]
    return Again(gaps[-1])


async def take_parking(parks: CarParks, account: ChannelAccount, callback: Callback) -> bool:
    """Ask how a visit stands that a channel tells of; False says that it is none of ours."""
    try:
        visit = await queries.visit_by_number(parks.flow.db, callback.number)
    except UnknownId:
        return False
    if visit is None or visit.account_id != account.id:
        return False
    if visit.state is not VisitState.LEFT:
        await tell(parks, visit, "enter")
    return True
