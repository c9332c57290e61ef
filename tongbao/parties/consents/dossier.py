"""What the open bank keeps of a person: their consents, payments by them, and their wallets."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from tongbao.infra.db import Db, Tx
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.parties.consent_visits.visits import forget_visits
from tongbao.parties.consents import _store as store
from tongbao.parties.consents.consents import revoke_consent
from tongbao.parties.consents.holdings import book_of
from tongbao.parties.people.dossier import Contributor
from tongbao.parties.people.model import Kept

_ROWS_MAX = 10_000


def contributor() -> Contributor:
    """Return how consents are exported, and what becomes of them when their person is erased."""
    return Contributor("open_bank", _show, _erase)


async def _show(db: Db, person_id: UUID) -> list[dict[str, Any]]:
    consents = await store.CONSENTS_OF.all(db, person_id, None, _ROWS_MAX)
    wallets = [
        each for mode in Mode for each in await store.CLAIMED.all(db, book_of(mode), person_id)
    ]
    return [
        *(
            {
                "id": each.shown_id,
                "kind": each.kind.value,
                "details": each.details,
                "state": each.state.value,
                "created_at": each.created_at.isoformat(),
                "ended_at": each.ended_at.isoformat() if each.ended_at else None,
            }
            for each in consents
        ),
        *({"wallet": show("wal", each.wallet_id)} for each in wallets),
    ]


async def _erase(tx: Tx, person_id: UUID) -> list[Kept]:
    """End every consent and let the wallets go; what was consented to is evidence and stays."""
    for each in await store.CONSENTS_OF.all(tx, person_id, None, _ROWS_MAX):
        await revoke_consent(tx, each.id, by="erasure")
    await forget_visits(tx, person_id)
    for mode in Mode:
        await store.FORGET_CLAIMS.run(tx, book_of(mode), person_id)
    return []
