"""Rate limits and daily quotas: what a merchant and each of its keys may ask, over all processes.

A request costs the units that its route names. The database has one bucket per merchant, mode and
key, filled by time (the generic cell rate algorithm); a process takes a share of it for the
requests to come and counts that down by itself, so that most requests ask nobody. What it does not
use within some seconds is lost to it, not to the merchant: the bucket fills by time.

    request ─► share in this process ─enough─► on
                    │ not
                    └► lease from the bucket ─some─► on
                                             └none─► 429, Retry-After

A share that is used is filled again before it is used up or lost, and nobody waits for that. One
transaction fills for all who ask meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog
from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.admission import _store as store
from tongbao.infra.admission.rate_limits import BucketRow, Lease, RateLimit, Standing, given
from tongbao.infra.db import Db, Tx
from tongbao.infra.web.caller import Caller
from tongbao.infra.web.problem import TooManyRequests
from tongbao.kernel.clock import business_date, monotonic, real_now
from tongbao.kernel.licence import Mode

SHARE_STANDS_S: Final = 5.0
"""How long units that a process has taken are good."""
FILLING: Final = "rate limits"
"""The name of the task in which a process fetches units."""
_EARLY_S: Final = 2.0  # before they are lost, whoever uses them has more fetched
_EARLY_MIN: Final = 8  # of fewer units at a time, somebody may wait for the next
_LOW: Final = 4  # below this part of what was fetched last, it is time for more
_SHARE_OF_BURST: Final = 40  # a lease is at least this part of the burst
_SHARE_MAX: Final = 4  # and at most this one
_SOON_S: Final = 0.5  # whoever comes back within that takes twice as much
_NOT_ASKED_AGAIN_S: Final = 0.25
_SUBJECTS_MAX: Final = 100_000
_TOGETHER_MAX: Final = 500
_ACTOR: Final = "rate_limits"

_log = structlog.get_logger()

Subject = tuple[UUID, Mode]


class _Share(Struct):
    """What this process may give out of a bucket by itself."""

    limit: RateLimit
    units: int = 0
    left: int = 0  # in the bucket, when last seen
    until: float = 0.0
    asked: int = 0
    asked_at: float = 0.0
    refused: tuple[float, int, int] = (0.0, 0, 0)  # until when, what cost, how long to wait

    def held(self, now: float) -> int:
        return self.units if now < self.until else 0

    def should_be_filled(self, now: float) -> bool:
        """Whether whoever uses it now would soon have to wait."""
        if self.asked < _EARLY_MIN:
            return False
        return now > self.until - _EARLY_S or self.units * _LOW < self.asked

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
        self._wanted: dict[Subject, int] = {}  # what somebody waits for, or 0
        self._round: asyncio.Future[Mapping[Subject, int]] | None = None  # of what is wanted
        self._filling: asyncio.Task[None] | None = None

    def try_take(self, caller: Caller, cost: int = 1) -> bool:
        """Take the units if this process has them; without a question to anybody."""
        now, shares = monotonic(), []
        for subject in _subjects(caller):
            share = self._shares.get(subject)
            if share is None or share.held(now) < cost:
                return False
            shares.append((subject, share))
        for subject, share in shares:
            self._use(subject, share, cost, now)
        return True

    async def stock(self, callers: Iterable[Caller]) -> None:
        """Have a share of theirs, a unit for each time they are named, where there is one to have.

        Raises:
            Busy: the database could not say.
        """
        now = monotonic()
        asked = Counter(subject for caller in callers for subject in _subjects(caller))
        lacking = [
            subject
            for subject, units in asked.items()
            if (share := self._share(subject)).held(now) < units and share.refused[0] < now
        ]
        if lacking:
            await self._filled(lacking, 1)

    async def take(self, caller: Caller, cost: int) -> Standing:
        """Take the units for one request.

        Raises:
            TooManyRequests: too much was asked; its header says when there is some again.
        """
        shares = await self._take(_subjects(caller), cost)
        tightest = min(shares, key=lambda each: each.units + each.left)
        return Standing(tightest.limit, tightest.units + tightest.left)

    async def take_from(self, subject: Subject, cost: int = 1) -> None:
        """Take the units for one request of somebody who has no keys of the API's.

        Raises:
            TooManyRequests
        """
        await self._take((subject,), cost)

    async def _take(self, subjects: Sequence[Subject], cost: int) -> list[_Share]:
        while True:
            shares, now = [self._share(subject) for subject in subjects], monotonic()
            lacking = [
                subject
                for subject, share in zip(subjects, shares, strict=True)
                if share.held(now) < cost
            ]
            if not lacking:
                for subject, share in zip(subjects, shares, strict=True):
                    self._use(subject, share, cost, now)
                return shares
            for subject in lacking:
                self._share(subject).check_worth_asking(cost)
            refused = await self._filled(lacking, cost)
            for subject in lacking:
                if refused.get(subject, cost + 1) <= cost:
                    raise TooManyRequests(retry_after_s=self._share(subject).refused[2])

    def _share(self, subject: Subject) -> _Share:
        share = self._shares.get(subject)
        if share is None:
            if len(self._shares) >= _SUBJECTS_MAX:
                self._shares.clear()
            share = self._shares[subject] = _Share(self._usual)
        return share

    def _use(self, subject: Subject, share: _Share, cost: int, now: float) -> None:
        share.units -= cost
        if share.should_be_filled(now) and subject not in self._wanted:
            self._want(subject, 0)

    # Filling

    async def _filled(self, subjects: Iterable[Subject], cost: int) -> Mapping[Subject, int]:
        """Return, once these were filled, what cost each bucket had not enough for."""
        for subject in subjects:
            round_ = self._want(subject, max(cost, self._wanted.get(subject, 0)))
        return await asyncio.shield(round_)  # others wait for it too

    def _want(self, subject: Subject, cost: int) -> asyncio.Future[Mapping[Subject, int]]:
        self._wanted[subject] = cost
        if self._round is None:
            self._round = asyncio.get_running_loop().create_future()
        if self._filling is None:
            self._filling = asyncio.create_task(self._fill_on(), name=FILLING)
        return self._round

    async def _fill_on(self) -> None:
        """Fill for whoever asked meanwhile, until nobody does."""
        try:
            while self._round is not None:
                wanted, round_ = self._wanted, self._round
                self._wanted, self._round = {}, None
                await self._fill_round(wanted, round_)
        finally:
            self._filling = None
            if self._round is not None:  # this task itself is ended, and nobody else fills it
                self._round.cancel()
                self._wanted, self._round = {}, None

    async def _fill_round(
        self, wanted: Mapping[Subject, int], round_: asyncio.Future[Mapping[Subject, int]]
    ) -> None:
        refused: dict[Subject, int] = {}
        ordered = sorted(wanted.items())
        try:
            for first in range(0, len(ordered), _TOGETHER_MAX):
                refused |= await self._fill(ordered[first : first + _TOGETHER_MAX])
        except Exception as failure:  # noqa: BLE001 - whoever waits is told, and asks again
            for subject in wanted:
                self._share(subject).asked = 0  # nothing is fetched early until somebody waits
            round_.set_exception(failure)
            if round_.exception() is not None and not any(wanted.values()):
                _log.warning("rate_share_not_filled", why=type(failure).__name__)
        except BaseException:
            round_.cancel()
            raise
        else:
            round_.set_result(refused)

    async def _fill(self, wanted: Sequence[tuple[Subject, int]]) -> dict[Subject, int]:
        """Take leases for these in one transaction; return what was refused, and to what cost."""
        subjects = [subject for subject, _ in wanted]
        leases = []
        async with self._db.begin(_ACTOR) as tx:
            now = real_now()
            seen = await _locked(tx, subjects, now)
            for (subject, needed), row in zip(wanted, seen, strict=True):
                share = self._share(subject)
                share.limit = row.limit or self._usual
                held = share.held(monotonic())
                units = max(0, needed - held), max(0, self._more(share, needed) - held)
                leases.append((subject, needed, given(row.bucket, share.limit, units, now)))
            filled = [(*subject, lease.bucket) for subject, _, lease in leases if lease.units]
            rows = [(id_, mode, b.spent_until, b.day, b.used) for id_, mode, b in filled]
            if rows:
                await store.FILL_BUCKETS.run_set(tx, rows)
        return {
            subject: needed
            for subject, needed, lease in leases
            if not self._keep(self._share(subject), needed, lease)
        }

    def _keep(self, share: _Share, needed: int, lease: Lease) -> bool:
        """Add a lease to a share; False where it is not what was needed."""
        now = monotonic()
        share.left = lease.left
        if lease.wait_s:
            share.refused = (now + _NOT_ASKED_AGAIN_S, max(needed, 1), lease.wait_s)
            return needed == 0
        # Others took some meanwhile; and the limit may be a smaller one than it was.
        share.units = min(share.held(now) + lease.units, share.limit.burst)
        share.until = now + SHARE_STANDS_S
        return True

    def _more(self, share: _Share, needed: int) -> int:
        """Return how much to have: twice as much as last time where that was gone so soon."""
        now, most = monotonic(), max(1, share.limit.burst // _SHARE_MAX)
        wished = max(1, share.limit.burst // _SHARE_OF_BURST)
        if now - share.asked_at < _SOON_S:
            wished = min(max(wished, share.asked * 2), most)
        share.asked, share.asked_at = max(needed, wished), now
        return share.asked


async def _locked(tx: Tx, subjects: Sequence[Subject], now: datetime) -> list[BucketRow]:
    """Return the limits and buckets of these, which are in order, with the buckets locked."""
    columns = [id_ for id_, _ in subjects], [mode for _, mode in subjects]
    rows = await store.LOCK_BUCKETS.all(tx, *columns)
    if len(rows) < len(subjects):
        await store.OPEN_BUCKETS.run(tx, *columns, now, business_date(now))
        rows = await store.LOCK_BUCKETS.all(tx, *columns)
    by_subject = {(row.subject, row.mode): row for row in rows}
    return [by_subject[subject] for subject in subjects]


async def set_rate_limit(tx: Tx, subject: Subject, limit: RateLimit, name: str) -> None:
    """Give a merchant or a key a limit of its own; ``name`` is how the audit log shows it."""
    row = (limit.units_per_s, limit.burst, limit.units_per_day)
    await store.SET_RATE_LIMIT.run(tx, *subject, *row, real_now(), tx.actor)
    facts = {"mode": subject[1].value, "units_per_s": limit.units_per_s, "burst": limit.burst}
    if limit.units_per_day is not None:
        facts["units_per_day"] = limit.units_per_day
    await audit.record(tx, "rate_limit.set", name, facts)


def _subjects(caller: Caller) -> tuple[Subject, Subject]:
    return (caller.merchant_id, caller.mode), (caller.key_id, caller.mode)
