"""What others may ask about registrations."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from tongbao.controls.retention.model import Raw
from tongbao.infra.db import Db, Tx
from tongbao.payments.registrations import _store as store
from tongbao.payments.registrations.model import Registration, RegistrationExchange

EXCHANGES_KEPT: Final = Raw(
    "registration_exchange",
    "What channels were asked to register merchants",
    "向渠道进件商户的往来报文",
    store.ERASE_EXCHANGES,
    has_book=False,
)


async def registrations_of(on: Db | Tx, application_id: UUID) -> list[Registration]:
    """Return an application's registrations, by channel."""
    return await store.REGISTRATIONS.all(on, application_id)


async def exchanges_of(on: Db | Tx, registration_id: UUID) -> list[RegistrationExchange]:
    """Return the last calls about a registration, the newest first; persons are masked in them."""
    return await store.EXCHANGES.all(on, registration_id)
