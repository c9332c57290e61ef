"""What others may ask about merchants and their channels."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from tongbao.infra.db import Db, Tx
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import Page, decode_moment, page_by_moment, page_size
from tongbao.parties.merchants import _store as store
from tongbao.parties.merchants.model import (
    ChannelNotOpened,
    Merchant,
    MerchantNotFound,
    Standing,
)


async def merchant_with_id(on: Db | Tx, merchant_id: UUID) -> Merchant:
    """Return a merchant.

    Raises:
        MerchantNotFound
    """
    merchant = await store.GET_MERCHANT.first(on, merchant_id)
    if merchant is None:
        raise MerchantNotFound
    return merchant


async def merchants_with_ids(on: Db | Tx, ids: Collection[UUID]) -> dict[UUID, Merchant]:
    """Return those of these merchants that exist, by id."""
    found = await store.MERCHANTS.all(on, list(set(ids)))
    return {merchant.id: merchant for merchant in found}


async def list_merchants(on: Db | Tx, *, cursor: str | None, limit: int | None) -> Page[Merchant]:
    """Return the merchants, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    _, before = decode_moment(cursor)
    found = await store.LIST_MERCHANTS.all(on, before, size + 1)
    return page_by_moment(found, size, lambda row: (row.opened_at, row.id))


async def channel_account_of(on: Db | Tx, merchant_id: UUID, mode: Mode, channel: str) -> UUID:
    """Return which of our accounts at the channel serves the merchant.

    Raises:
        ChannelNotOpened
    """
    account_id = await store.ROUTE.first(on, merchant_id, mode, channel)
    if account_id is None:
        raise ChannelNotOpened(channel=channel)
    return account_id


async def channels_of(on: Db | Tx, merchant_id: UUID, mode: Mode) -> dict[str, UUID]:
    """Return the merchant's channels and our account that serves it at each."""
    routes = await store.ROUTES.all(on, merchant_id, mode)
    return {route.channel: route.channel_account_id for route in routes}


async def standings_of(on: Db | Tx, merchant_id: UUID) -> list[Standing]:
    """Return what a merchant might do from when on, and who said why, the newest first."""
    return await store.STANDINGS.all(on, merchant_id)


async def last_standing(on: Db | Tx, merchant_id: UUID) -> Standing | None:
    """Return the last change of a merchant's standing, if there ever was one."""
    found = await standings_of(on, merchant_id)
    return found[0] if found else None
