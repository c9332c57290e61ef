"""The job that wraps sealing keys anew after a rotation, so that an old master key can be put away.

It commits batch by batch. Which keys are left is in the rows themselves, so whoever dies in between
is followed by somebody who goes on from there.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import prometheus_client

from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.kms.sealing_keys import SealingKeys
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, enqueue

BATCH: Final = 100
REWRAP_POLICY: Final = RetryPolicy(20, (timedelta(seconds=5), timedelta(minutes=5)))
_EVERY: Final = timedelta(days=1)
_WAITING: Final = prometheus_client.Gauge(
    "tongbao_sealing_keys_to_rewrap",
    "Sealing keys that an older master key than the newest has wrapped",
)


class RewrapSealingKeys(Task, frozen=True, tag="kms.rewrap"):
    """Wrap anew what older master keys have wrapped; ``once`` after a rotation, else every day.

    A process that was running during a rotation may have gone on with the old key for a while.
    """

    once: bool = False


async def seed(tx: Tx) -> None:
    """Start the daily round, unless it runs already."""
    await enqueue(tx, RewrapSealingKeys(), key="always")


async def rewrap_all(db: Db, keys: SealingKeys) -> int:
    """Wrap anew everything that is left, and return how many keys that were.

    Raises:
        WrapUnreadable, KmsUnavailable
    """
    done = 0
    while True:
        async with db.begin("kms") as tx:
            some = await keys.rewrap_some(tx, BATCH)
            failpoint("kms.before_rewrap_commit")
        done += some
        _WAITING.set((await keys.left(db)).waiting)
        if some == 0:
            return done


async def run_rewrap(
    db: Db, keys: SealingKeys, task: RewrapSealingKeys, _lease: Lease
) -> Again | None:
    """Do one round, and come back tomorrow unless this was the round after a rotation."""
    await rewrap_all(db, keys)
    return None if task.once else Again(_EVERY)
