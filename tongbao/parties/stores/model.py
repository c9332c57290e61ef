"""Stores: what they are and where. No I/O.

store  open ⇄ closed
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal
from uuid import UUID

from msgspec import Meta, Struct

from tongbao.kernel.errors import Conflict, NotFound
from tongbao.kernel.licence import Mode

PREFIX: Final = "sto"


class StoreNotFound(NotFound):
    """The merchant has no such store."""

    code = "store.not_found"
    advice = "List the stores to find its id."
    advice_zh = "请通过门店列表查找正确的标识。"


class StoreNumberUsed(Conflict):
    """The store number belongs to another store of the merchant's."""

    code = "store.number_used"
    advice = "Use a new store_no, or change the store that has it."
    advice_zh = "请更换 store_no，或修改已有门店。"


class Point(Struct, frozen=True, forbid_unknown_fields=True):
    """Degrees as text, with at most six decimals, in the datum maps of China use (GCJ-02)."""

    latitude: Annotated[str, Meta(pattern=r"^-?[0-9]{1,2}(\.[0-9]{1,6})?(?!\n)$")]
    longitude: Annotated[str, Meta(pattern=r"^-?[0-9]{1,3}(\.[0-9]{1,6})?(?!\n)$")]


class Place(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a store is; ``area_code`` is the six digits of GB/T 2260."""

    area_code: Annotated[str, Meta(pattern=r"^[0-9]{6}(?!\n)$")]
    address: Annotated[str, Meta(min_length=1, max_length=256)]
    point: Point | None = None


class Store(Struct, frozen=True):
    """One row of the store table."""

    id: UUID
    merchant_id: UUID
    mode: Mode
    store_no: str
    name: str
    area_code: str
    address: str
    latitude: int | None  # millionths of a degree
    longitude: int | None
    state: Literal["open", "closed"]
    version: int
    created_at: datetime
