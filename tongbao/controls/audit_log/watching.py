"""The task that places entries and signs checkpoints, every minute."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from tongbao.controls.audit_log.checkpoints import sign_checkpoint
from tongbao.infra.audit_tree import place_entries
from tongbao.infra.db import Tx
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, enqueue
from tongbao.ledger.proofs.model import Proofs

EVERY: Final = timedelta(minutes=1)
POLICY: Final = RetryPolicy(attempts_max=1_000_000, delays=(EVERY,))
"""It is the only task of its kind, and only a restart would ask for it again: it never gives up."""


class ProveAuditLog(Task, frozen=True, tag="audit.prove"):
    """Grow the audit log's tree and sign what it is."""


async def seed(tx: Tx) -> None:
    """Start the round, unless it runs already."""
    await enqueue(tx, ProveAuditLog(), key="always")


async def prove_audit_log(proofs: Proofs, _task: ProveAuditLog, _lease: Lease) -> Again:
    """Do one round and come back in a minute."""
    await place_entries(proofs.db)
    await sign_checkpoint(proofs)
    return Again(EVERY)
