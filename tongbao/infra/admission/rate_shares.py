"""Rate limits and daily quotas: what a merchant and each of its keys may ask, over all processes.

A request costs the units that its route names. The database has one bucket per merchant, mode and
key, filled by time (the generic cell rate algorithm); a process takes a share of it for the
requests to come and counts that down by itself, so that most requests ask nobody. What it does not
use within some seconds is lost to it, not to the merchant: the bucket fills by time.

    request ─► share in this process ─enough─► on
                    │ not
                    └► lease from the bucket ─some─► on
                                             └none─► 429, Retry-After
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final
from uuid import UUID

from msgspec import Struct, field

from tongbao.infra import audit
from tongbao.infra.admission import _store as store
from tongbao.infra.admission.rate_limits import RateLimit, Standing, given
from tongbao.infra.db import Db, Tx
from tongbao.infra.web.caller import Caller
from tongbao.infra.web.problem import TooManyRequests
from tongbao.kernel.clock import business_date, monotonic, real_now
from tongbao.kernel.licence import Mode

SHARE_STANDS_S: Final = 5.0
"""How long units that a process has taken are good."""
_SHARE_OF_BURST: Final = 40  # a lease is at least this part of the burst
_SHARE_MAX: Final = 4  # and at most this one
_SOON_S: Final = 0.5  # whoever comes back within that takes twice as much
_NOT_ASKED_AGAIN_S: Final = 0.25
_SUBJECTS_MAX: Final = 100_000
_ACTOR: Final = "rate_limits"

Subject = tuple[UUID, Mode]


class _Share(Struct):
    """What this process may give out of a bucket by itself."""

    limit: RateLimit
    units: int = 0
    left: int = 0  # in the bucket, when last seen
    until: float = 0.0
    asked: int = 0
    asked_at: float = 0.0
    filling: asyncio.Lock = field(default_factory=asyncio.Lock)

    refused: tuple[float, int, int] = (0.0, 0, 0)  # until when, what cost, how long to wait

    def has(self, cost: int) -> bool:
        return self.units >= cost and monotonic() < self.until

    def check_worth_asking(self, cost: int) -> None:
        """Refuse again what was refused just now: a flood costs the database nothing.

        Raises:
            TooManyRequests
        """
        until, refused, wait_s = self.refused
        if monotonic() < until and cost >= refused:
            raise TooManyRequests(retry_after_s=wait_s)


class RateLimits:
    """The limits as one process keeps them."""

    def __init__(self, db: Db, usual: RateLimit) -> None:
        self._db = db
        self._usual = usual
        self._shares: dict[Subject, _Share] = {}

    def try_take(self, caller: Caller, cost: int = 1) -> bool:
        """Take the units if this process has them; without a question to anybody."""
        shares = [self._shares.get(subject) for subject in _subjects(caller)]
        if not all(share is not None and share.has(cost) for share in shares):
            return False
        for share in shares:
            if share is not None:
                share.units -= cost
        return True

    async def take(self, caller: Caller, cost: int) -> Standing:
        """Take the units for one request.

        Raises:
            TooManyRequests: too much was asked; its header says when there is some again.
        """
        shares = [await self._share(subject, cost) for subject in _subjects(caller)]
        for share in shares:
            share.units -= cost
        tightest = min(shares, key=lambda each: each.units + each.left)
        return Standing(tightest.limit, tightest.units + tightest.left)

    async def take_from(self, subject: Subject, cost: int = 1) -> None:
        """Take the units for one request of somebody who has no keys of the API's.

        Raises:
            TooManyRequests
        """
        share = await self._share(subject, cost)
        share.units -= cost

    async def _share(self, subject: Subject, cost: int) -> _Share:
        """Return a share with so many units in it.

        Raises:
            TooManyRequests
        """
        share = self._shares.get(subject)
        if share is None:
            if len(self._shares) >= _SUBJECTS_MAX:
                self._shares.clear()
            share = self._shares[subject] = _Share(self._usual)
        if not share.has(cost):
            async with share.filling:  # one asks for all who wait
                while not share.has(cost):
                    share.check_worth_asking(cost)
                    await self._fill(subject, share, cost)
        return share

    async def _fill(self, subject: Subject, share: _Share, cost: int) -> None:
        held = share.units if monotonic() < share.until else 0
        needed = cost - held
        wished = max(needed, self._more(share))
        share.asked, share.asked_at = wished, monotonic()
        async with self._db.begin(_ACTOR) as tx:
            share.limit = await store.RATE_LIMIT.first(tx, *subject) or self._usual
            now = real_now()
            await store.OPEN_BUCKET.run(tx, *subject, now, business_date(now))
            bucket = await store.LOCK_BUCKET.one(tx, *subject)
            lease = given(bucket, share.limit, (needed, wished), now)
            if lease.units:
                new = lease.bucket
                await store.FILL_BUCKET.run(tx, *subject, new.spent_until, new.day, new.used)
        if not lease.units:
            share.refused = (monotonic() + _NOT_ASKED_AGAIN_S, cost, lease.wait_s)
            raise TooManyRequests(retry_after_s=lease.wait_s)
        still = share.units if monotonic() < share.until else 0  # others took some meanwhile
        share.units, share.left = still + lease.units, lease.left
        share.until = monotonic() + SHARE_STANDS_S

    def _more(self, share: _Share) -> int:
        """Return how much to ask for: twice as much as last time where that was gone so soon."""
        least = max(1, share.limit.burst // _SHARE_OF_BURST)
        if monotonic() - share.asked_at < _SOON_S:
            return min(max(least, share.asked * 2), max(1, share.limit.burst // _SHARE_MAX))
        return least


async def set_rate_limit(tx: Tx, subject: Subject, limit: RateLimit, name: str) -> None:
    """Give a merchant or a key a limit of its own; ``name`` is how the audit log shows it."""
    row = (limit.units_per_s, limit.burst, limit.units_per_day)
    await store.SET_RATE_LIMIT.run(tx, *subject, *row, real_now(), tx.actor)
    facts = {"mode": subject[1].value, "units_per_s": limit.units_per_s, "burst": limit.burst}
    if limit.units_per_day is not None:
        facts["units_per_day"] = limit.units_per_day
    await audit.record(tx, "rate_limit.set", name, facts)


def _subjects(caller: Caller) -> Iterable[Subject]:
    return (caller.merchant_id, caller.mode), (caller.key_id, caller.mode)
