"""Let another merchant ask customers for our orders together with theirs, or no more."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from tongbao.infra.db import Tx
from tongbao.kernel.licence import Mode
from tongbao.payments.combining import _store as store
from tongbao.payments.combining import queries
from tongbao.payments.combining.model import Consent, ConsentsTooMany

CONSENTS_MAX: Final = 500


async def give_consent(
    tx: Tx, book: int, merchant: tuple[UUID, Mode], initiator_id: UUID
) -> list[Consent]:
    """Let another merchant combine our orders with its own; a second time does nothing.

    That there is such a merchant is not looked up: nobody is to learn it by asking.

    Raises:
        ConsentsTooMany
    """
    given = await queries.consents_of(tx, book, *merchant, CONSENTS_MAX)
    if len(given) >= CONSENTS_MAX:
        raise ConsentsTooMany
    await store.GIVE_CONSENT.run(tx, book, *merchant, initiator_id, tx.now)
    return await queries.consents_of(tx, book, *merchant, CONSENTS_MAX)


async def withdraw_consent(
    tx: Tx, book: int, merchant: tuple[UUID, Mode], initiator_id: UUID
) -> list[Consent]:
    """Let another merchant combine our orders no more; what was combined before goes on."""
    await store.WITHDRAW_CONSENT.run(tx, book, *merchant, initiator_id, tx.now)
    return await queries.consents_of(tx, book, *merchant, CONSENTS_MAX)
