"""What others may ask about registrations."""

from __future__ import annotations

from uuid import UUID

from tongbao.infra.db import Db, Tx
from tongbao.payments.registrations import _store as store
from tongbao.payments.registrations.model import Registration, RegistrationExchange


async def registrations_of(on: Db | Tx, application_id: UUID) -> list[Registration]:
    """Return an application's registrations, by channel."""
    return await store.REGISTRATIONS.all(on, application_id)


async def exchanges_of(on: Db | Tx, registration_id: UUID) -> list[RegistrationExchange]:
    """Return the last calls about a registration, the newest first; persons are masked in them."""
    return await store.EXCHANGES.all(on, registration_id)
