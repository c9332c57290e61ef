"""What calls tell about an account: sliding windows of figures, and the breaker. No I/O.

    up ──too many calls lost──► down ──rested──► probing ──probes answered──► up
                                 ▲                  └──a probe was lost──┐
                                 └───────────────────────────────────────┘

A call is lost when it ended `Unknown` or `NotSent`. What a customer's bank declines was answered,
and opens no breaker; it only lowers the success rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from tongbao.payments.routing.choosing import UNPROVEN, Standing, rate_key
from tongbao.payments.routing.model import PPM, Gate, Heard, Rate
from tongbao.rails.channels.contract.orders import PayMode

_BUCKET_S: Final = 10
BUCKET: Final = timedelta(seconds=_BUCKET_S)
WINDOW: Final = timedelta(minutes=15)
"""How far back success rates and latencies look."""
BREAKER_WINDOW: Final = timedelta(seconds=60)
CALLS_MIN: Final = 10
"""Fewer calls than this prove no outage."""
LOST_MAX_PPM: Final = 500_000
REST: Final = timedelta(seconds=30)
REST_MAX: Final = timedelta(minutes=10)
PROBES: Final = 3
PROBES_ANSWERED_MIN: Final = 2
PROBE_PATIENCE: Final = timedelta(seconds=90)
"""A probe nobody heard the end of for so long is lost to us, and others are let through."""
PRIOR_WEIGHT: Final = 20
"""A success rate begins as if so many payments had gone as `UNPROVEN` expects."""

LOST: Final = frozenset({"unknown", "not_sent", "notsent"})
SHOWN: Final = frozenset({PayMode.QR, PayMode.IN_APP, PayMode.APP, PayMode.H5, PayMode.WEB})
"""Ways of paying in which the channel has done its part once the customer can act."""
_PAYS: Final = frozenset({"pay", "authorise"})


class Tally(Struct, frozen=True):
    """What was heard of one account, way of paying and class of cards in one bucket of time."""

    calls: int = 0
    lost: int = 0
    total_ms: int = 0
    tried: int = 0
    won: int = 0

    def plus(self, other: Tally) -> Tally:
        """Return both together."""
        return Tally(
            self.calls + other.calls,
            self.lost + other.lost,
            self.total_ms + other.total_ms,
            self.tried + other.tried,
            self.won + other.won,
        )


class Breaker(Struct, frozen=True):
    """One row of routing_breaker: whether an account takes payments, shared by every process."""

    account_id: UUID
    gate: Gate
    since: datetime
    trips: int  # in a row
    probes_left: int
    probe_calls: int
    probe_lost: int
    why: str
    version: int


class Recent(Struct, frozen=True):
    """What one account's calls of the last minute came to, bucket by bucket."""

    account_id: UUID
    bucket: datetime
    calls: int
    lost: int


def bucket_of(at: datetime) -> datetime:
    """Return the beginning of the bucket that a moment lies in."""
    return at.replace(second=at.second - at.second % _BUCKET_S, microsecond=0)


def verdict(heard: Heard) -> bool | None:
    """Return whether the channel did its part for an attempt; None while that is not known.

    A QR that was shown has been the channel's success: whether somebody pays is not its doing. A
    payment code or card succeeds when it is paid. Nobody is blamed for a customer who went away.
    """
    if heard.before == heard.after or heard.before not in {"created", "pending"}:
        return None
    if heard.before == "pending" and heard.pay_mode in SHOWN:
        return None  # counted when it was shown
    if heard.after in {"succeeded", "authorised"}:
        return True
    if heard.after == "pending":
        return True if heard.pay_mode in SHOWN else None
    return None if heard.after == "closed" else False


def tally_of(heard: Heard) -> Tally:
    """Return what one piece of news adds to its bucket."""
    came = verdict(heard)
    tried, won = int(came is not None), int(came is True)
    if heard.outcome is None:
        return Tally(tried=tried, won=won)
    lost = int(heard.outcome in LOST)
    return Tally(1, lost, max(heard.duration_ms, 0), tried, won)


def is_probe_answer(heard: Heard) -> bool:
    """Whether it tells if an account can take payments again; asking about old ones does not."""
    return heard.outcome is not None and heard.purpose in _PAYS


def rate_of(tally: Tally) -> Rate:
    """Return the figures of a window; few payments are drawn towards what is expected."""
    weighed = tally.won * PPM + PRIOR_WEIGHT * UNPROVEN.success_ppm
    success = weighed // (tally.tried + PRIOR_WEIGHT)
    latency = tally.total_ms // tally.calls if tally.calls else 0
    return Rate(success, latency, tally.tried)


def judge(breaker: Breaker, recent: Sequence[Recent], now: datetime) -> Breaker | None:
    """Return what becomes of a breaker now, or None when it stays as it is."""
    if breaker.gate is Gate.UP:
        heard = [each for each in recent if each.bucket >= breaker.since]
        calls, lost = sum(each.calls for each in heard), sum(each.lost for each in heard)
        if calls < CALLS_MIN or lost * PPM < calls * LOST_MAX_PPM:
            return None
        return _down(breaker, now, f"{lost} of {calls} calls lost")
    if breaker.gate is Gate.DOWN:
        return _probing(breaker, now) if now >= breaker.since + rest_after(breaker.trips) else None
    return _judge_probes(breaker, now)


def _judge_probes(breaker: Breaker, now: datetime) -> Breaker | None:
    if breaker.probe_lost:
        return _down(breaker, now, f"{breaker.probe_lost} of {breaker.probe_calls} probes lost")
    if breaker.probe_calls >= PROBES_ANSWERED_MIN:
        return _turned(breaker, Gate.UP, now, f"{breaker.probe_calls} probes answered", trips=0)
    if not breaker.probes_left and now >= breaker.since + PROBE_PATIENCE:
        return _probing(breaker, now)
    return None


def rest_after(trips: int) -> timedelta:
    """Return how long an account rests: twice as long after each trip in a row."""
    doublings = min(max(trips - 1, 0), 10)
    return min(REST * (1 << doublings), REST_MAX)


def _down(breaker: Breaker, now: datetime, why: str) -> Breaker:
    return _turned(breaker, Gate.DOWN, now, why, trips=breaker.trips + 1)


def _probing(breaker: Breaker, now: datetime) -> Breaker:
    turned = _turned(breaker, Gate.PROBING, now, breaker.why, trips=breaker.trips)
    return replace(turned, probes_left=PROBES)


def _turned(breaker: Breaker, gate: Gate, now: datetime, why: str, *, trips: int) -> Breaker:
    return replace(
        breaker,
        gate=gate,
        since=now,
        trips=trips,
        probes_left=0,
        probe_calls=0,
        probe_lost=0,
        why=why,
        version=breaker.version + 1,
    )


def new_breaker(account_id: UUID) -> Breaker:
    """Return the breaker of an account that nothing has been heard of."""
    return Breaker(account_id, Gate.UP, _LONG_AGO, 0, 0, 0, 0, "", 0)


_LONG_AGO: Final = datetime.fromisoformat("2000-01-01T00:00:00+00:00")


def standings_of(
    tallies: Mapping[tuple[UUID, str, str], Tally], breakers: Iterable[Breaker]
) -> dict[UUID, Standing]:
    """Return how every account stands, from its windows and its breaker."""
    rates: dict[UUID, dict[str, Rate]] = {}
    for (account_id, pay_mode, class_), tally in tallies.items():
        rates.setdefault(account_id, {})[rate_key(PayMode(pay_mode), class_)] = rate_of(tally)
    gates = {each.account_id: each for each in breakers}
    standings = {}
    for account_id in rates.keys() | gates.keys():
        breaker = gates.get(account_id)
        standings[account_id] = Standing(
            gate=breaker.gate if breaker is not None else Gate.UP,
            has_probes=breaker is not None and breaker.probes_left > 0,
            rates=rates.get(account_id, {}),
        )
    return standings
