"""Open meters, count on them in somebody else's commit, and say what is left.

The limits in force are read when a movement is put together and travel with the write; the row that
counts is locked by the write itself, so two who move at once are counted one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from tongbao.controls.limits import _store as store
from tongbao.controls.limits.model import (
    NO_LIMIT,
    Count,
    Left,
    LimitExceeded,
    LimitMeter,
    LimitRule,
    Metered,
    Period,
    check_left,
    in_force,
    left_of,
)
from tongbao.infra.db import Db, Tx, Write
from tongbao.kernel.clock import business_date


async def open_meters(tx: Tx, of: Metered, names: Sequence[str]) -> None:
    """Begin to count for an owner, at nought; meters that run already go on as they are."""
    today = business_date(tx.now)
    for name in names:
        await store.OPEN_METER.run(tx, *Count(of, name, 0).key, today, today.year)


async def limits_of(on: Db | Tx, of: Metered, now: datetime) -> list[Left]:
    """Return every limit in force for an owner, and what is left of it today."""
    rules = await store.RULES.all(on, of.kind, of.currency)
    return left_of(rules, await _meters(on, of), business_date(now))


async def used_today(on: Db | Tx, of: Metered, meter: str, now: datetime) -> int:
    """Return what a meter has counted today, in minor units."""
    for each in await _meters(on, of):
        if each.meter == meter:
            return each.used_in(Period.DAY, business_date(now))
    return 0


async def check_counts(on: Db | Tx, counts: Sequence[Count], now: datetime) -> None:
    """Raise if a limit does not allow one of these now, naming the rule and what it leaves.

    Raises:
        LimitExceeded
    """
    for count in counts:
        check_left(await limits_of(on, count.of, now), count.meter, count.amount)


async def count_writes(on: Db | Tx, counts: Sequence[Count], now: datetime) -> list[Write]:
    """Return the writes that count these, for the commit that moves the money.

    Each refuses with `LimitExceeded`. They come in one order for everybody who counts, so that two
    who wait for each other's meters cannot be.
    """
    today = business_date(now)
    writes = []
    for count in sorted(counts, key=_in_order):
        rules = await store.RULES.all(on, count.of.kind, count.of.currency)
        most = _most(in_force(rules, today), count.meter)
        args = (*count.key, today, today.year, count.amount, *most)
        writes.append(Write(store.COUNT, args, refusal=LimitExceeded.code))
    return writes


def give_back_writes(counts: Sequence[Count], counted_at: datetime) -> list[Write]:
    """Return the writes that take back what was counted for something that did not happen.

    They are for what was counted at a moment and is known not to have moved any money; what has
    moved and comes back by another movement is no such thing.
    """
    day = business_date(counted_at)
    return [
        Write(store.GIVE_BACK, (*each.key, day, day.year, each.amount))
        for each in sorted(counts, key=_in_order)
    ]


async def every_rule(on: Db | Tx) -> list[LimitRule]:
    """Return every rule, past and future ones too."""
    return await store.ALL_RULES.all(on)


async def _meters(on: Db | Tx, of: Metered) -> list[LimitMeter]:
    kinds = [of.kind, of.family]
    found = await store.METERS.all(on, of.book, of.owner_id, kinds, of.currency)
    return [each for each in found if each.kind == of.counted_under(each.meter)]


def _in_order(count: Count) -> tuple[int, UUID, str, str, str]:
    return count.key


def _most(rules: Sequence[LimitRule], meter: str) -> tuple[int, int, int]:
    """Return what a meter may come to in a day, in a year, and in all."""
    most = {each.period: each.most for each in rules if each.meter == meter}

    def least(*periods: Period) -> int:
        found = [at for period in periods if (at := most.get(period)) is not None]
        return min(found, default=NO_LIMIT)

    return least(Period.DAY), least(Period.YEAR), least(Period.LIFETIME, Period.MOMENT)
