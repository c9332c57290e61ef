"""What others may ask about API keys and operators."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from tongbao.infra.db import Db, Tx
from tongbao.kernel.clock import real_now
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import Page, decode_moment, page_by_moment, page_size
from tongbao.parties.identity import _store as store
from tongbao.parties.identity.model import ApiKey, KeyAge, KeyNotFound, Operator


async def key_of_merchant(on: Db | Tx, key_id: UUID, merchant_id: UUID, mode: Mode) -> ApiKey:
    """Return one key; another merchant's or another mode's is as unknown as none.

    Raises:
        KeyNotFound
    """
    key = await store.GET_KEY.first(on, key_id)
    if key is None or key.merchant_id != merchant_id or key.mode is not mode:
        raise KeyNotFound
    return key


async def keys_of_merchant(
    on: Db | Tx, merchant_id: UUID, mode: Mode, *, cursor: str | None, limit: int | None
) -> Page[ApiKey]:
    """Return a merchant's keys of one mode, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    _, before = decode_moment(cursor)
    keys = await store.LIST_KEYS.all(on, merchant_id, mode, before, size + 1)
    return page_by_moment(keys, size, lambda row: (row.created_at, row.id))


async def others_have_sandbox_keys(on: Db | Tx, merchant_id: UUID) -> bool:
    """Return whether a sandbox key of another merchant works."""
    return await store.OTHERS_HAVE_KEYS.one(on, merchant_id, real_now())


async def ages_of_keys(on: Db | Tx, before: datetime) -> list[KeyAge]:
    """Return by mode how many keys work, and how many of them were made before a moment."""
    return await store.KEY_AGES.all(on, real_now(), before)


async def list_operators(on: Db | Tx) -> list[Operator]:
    """Return every operator by login name; there are few."""
    return await store.LIST_OPERATORS.all(on)
