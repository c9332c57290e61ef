"""The console's inventory of keys: which there are, how old, when the next is due, who made them.

No key is ever shown, nor any part of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

from tongbao.controls.keys.ceremonies import ceremonies, is_certified, noted_keys
from tongbao.controls.keys.model import PREFIX
from tongbao.infra.crypto import PURPOSES
from tongbao.infra.kms.opening import KeyDesk
from tongbao.infra.kms.sealing_keys import kinds_of_sealing_keys
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import show
from tongbao.ledger.proofs.signers import every_key
from tongbao.parties.identity.model import Permission
from tongbao.parties.identity.queries import ages_of_keys
from tongbao.surfaces.operator_console.visit import Route, Visit
from tongbao.surfaces.page_kit.replies import Reply

ROLLED_EVERY: Final = timedelta(days=365)
"""How old a merchant's key should get: our own figure. NIST SP 800-57 part 1 rev. 5, table 1, gives
keys that authenticate two years at most; theirs lie in programs of others."""
PROOF_KEYS_EVERY: Final = timedelta(days=730)
"""How long a key of the ledger should sign: the same table gives a private signature key one to
three years."""
_SOON: Final = timedelta(days=60)


class KeyLine(Struct, frozen=True):
    """One key, or the keys of one kind, as the page shows them."""

    name: str
    kind: str
    since: datetime | None
    due: datetime | None
    state: str  # "succeeded" in its time, "pending" soon over, "failed" beyond it, "closed" ended
    note: str = ""


class CeremonyLine(Struct, frozen=True):
    """One ceremony: who entered what when."""

    name: str
    state: str
    opened_at: datetime
    custodians: Sequence[str]
    closed_at: datetime | None
    is_certified: bool


def pages(keys: KeyDesk) -> tuple[Route, ...]:
    """Return the page's route, over a deployment's keys."""

    async def show_keys(visit: Visit) -> Reply:
        """Return the inventory."""
        now, db = real_now(), visit.desk.db
        async with db.begin(visit.operator.actor) as tx:
            masters = await noted_keys(tx, keys.kms)
        there = {each.id for each in keys.kms.master_keys()}
        in_use = keys.kms.master_keys()[0].id
        held = [
            KeyLine(
                f"{each.id} · {each.version}",
                f"{each.provider} · {each.algorithm}",
                each.noted_at,
                each.expires_at if each.id == in_use else None,
                _state(each.expires_at, now) if each.id == in_use else "closed",
                "" if each.id in there else "gone",
            )
            for each in masters
        ]
        facts = {
            "masters": held,
            "ceremonies": [
                CeremonyLine(
                    show(PREFIX, each.id),
                    each.state,
                    each.opened_at,
                    [who for who in (each.first_custodian, each.second_custodian) if who],
                    each.closed_at,
                    is_certified(keys.kms, each),
                )
                for each in await ceremonies(db)
            ],
            "proofs": await _proofs(visit, now),
            "sealing": await kinds_of_sealing_keys(db, in_use),
            "merchants": await ages_of_keys(db, now - ROLLED_EVERY),
            "purposes": sorted(PURPOSES.values(), key=lambda each: each.name),
        }
        return await visit.page("keys.html", facts)

    return (Route("GET", "/keys", show_keys, Permission.VIEW),)


async def _proofs(visit: Visit, now: datetime) -> list[KeyLine]:
    lines = []
    for each in await every_key(visit.desk.db):
        due = None if each.ends_at else each.starts_at + PROOF_KEYS_EVERY
        state = "closed" if due is None else _state(due, now)
        lines.append(KeyLine(str(each.id), each.kind.value, each.starts_at, due, state))
    return lines


def _state(due: datetime, now: datetime) -> str:
    if due <= now:
        return "failed"
    return "pending" if due - now < _SOON else "succeeded"
