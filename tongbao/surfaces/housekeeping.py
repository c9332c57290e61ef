"""Housekeeping: once a minute, forget what is over, expire what nobody ended, look ahead."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Final

from tongbao.infra.admission.authentication import prune_nonces
from tongbao.infra.admission.login_sources import prune_login_tries
from tongbao.infra.blob_uploads.uploads import clean_uploads
from tongbao.infra.blobs.model import BlobStoreRefused, BlobStoreUnavailable
from tongbao.infra.blobs.store import Blobs
from tongbao.infra.db import Db, Tx
from tongbao.infra.db_failures import LockNotFree
from tongbao.infra.request_log import queries as request_log
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, enqueue
from tongbao.infra.web import idempotency
from tongbao.kernel.licence import Licence
from tongbao.ledger.archive.months import make_months
from tongbao.ledger.book import Ledger
from tongbao.parties.accounts.payment_codes import prune_codes
from tongbao.parties.bound_cards.binding import prune_tries
from tongbao.parties.consent_visits.visits import prune_visits
from tongbao.parties.consents.consents import tell_expired
from tongbao.parties.consents.grants import prune_grants
from tongbao.parties.developers import sessions as developers
from tongbao.parties.identity.sessions import prune_sessions
from tongbao.parties.partners.partners import prune_tokens
from tongbao.parties.people.dossier import keep_people
from tongbao.parties.step_up_risk.deciding import prune_decisions
from tongbao.parties.user_wallets.applications import prune_sittings
from tongbao.payments.checkouts.checkouts import prune_abandoned
from tongbao.payments.terminal_notices.notices import forget_old
from tongbao.surfaces.retention.kinds import erase_what_is_old

_EVERY: Final = timedelta(minutes=1)
_HOLDS_MAX: Final = 500

KEEP_HOUSE_POLICY: Final = RetryPolicy(attempts_max=1_000_000, delays=(_EVERY,))
"""It is the only task of its kind, and only a restart would ask for it again: it never gives up."""


class KeepHouse(Task, frozen=True, tag="housekeeping.keep"):
    """Prune what is over; expire holds past their time; make partitions."""


async def seed(tx: Tx) -> None:
    """Start the round, unless it runs already."""
    await enqueue(tx, KeepHouse(), key="always")


async def keep_house(
    db: Db, ledger: Ledger, licence: Licence, _task: KeepHouse, _lease: Lease, *, blobs: Blobs
) -> Again:
    """Do one round and come back in a minute."""
    await idempotency.prune(db)
    await prune_nonces(db)
    await prune_login_tries(db)
    await request_log.prune(db)
    await prune_sessions(db)
    await developers.prune_sessions(db)
    await prune_abandoned(db)
    await forget_old(db)
    await erase_what_is_old(db, licence)
    with suppress(BlobStoreUnavailable, BlobStoreRefused):  # `tongbao doctor` tells of those
        await clean_uploads(db, blobs)
    if licence.may_hold_funds:  # elsewhere there are no wallets, nor tables for them
        await prune_codes(db)
        await keep_people(db)
        await prune_tokens(db)
        await prune_grants(db)
        await tell_expired(db)
        await prune_visits(db)
        await prune_decisions(db)
        await prune_tries(db)
        await prune_sittings(db)
    await ledger.expire_holds(db.clock.now(), _HOLDS_MAX)
    with suppress(LockNotFree):  # the next round comes in a minute, the next month in weeks
        await make_months(db)
    return Again(_EVERY)
