"""Sealing keys: what they are for, whose they are, and how they end. No I/O."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.crypto import bind
from tongbao.kernel.errors import Conflict, NotFound
from tongbao.kernel.licence import Mode

PREFIX: Final = "slk"
EVER: Final = "ever"
"""The month of a key that is not changed with the months: what is looked up by it must be found."""


class SealingKeyDestroyed(Conflict):
    """The key was destroyed, and with it everything that was sealed under it."""

    code = "sealing_key.destroyed"
    advice = "Nothing brings it back; the record says who destroyed it and why."
    advice_zh = "该封装密钥已销毁，相关数据无法恢复；销毁人与原因见记录。"


class SealingKeyNotFound(NotFound):
    """There is no such sealing key."""

    code = "sealing_key.not_found"
    advice = "List the sealing keys to find its id."
    advice_zh = "请通过封装密钥列表查找正确的标识。"


class Owner(Struct, frozen=True):
    """Whose a key is: a merchant's in one mode, or the platform's own."""

    merchant_id: UUID | None = None
    mode: Mode | None = None

    @property
    def tenant(self) -> str:
        """Return what is bound into the seals of this owner."""
        return "" if self.merchant_id is None else f"{self.merchant_id}/{self.mode}"


PLATFORM: Final = Owner()


class SealingKind(Struct, frozen=True):
    """The sealing keys of one purpose; a month each, and owner."""

    purpose: str
    keys: int
    destroyed: int
    oldest: datetime | None
    newest: datetime | None
    to_rewrap: int


class SealingKey(Struct, frozen=True):
    """One row of the table. ``wrapped`` is gone for good once the key is destroyed."""

    id: UUID
    merchant_id: UUID | None
    mode: Mode | None
    purpose: str
    month: str
    cipher: int
    master_key: str
    wrapped: bytes | None
    created_at: datetime
    rewrapped_at: datetime | None
    destroyed_at: datetime | None
    destroyed_by: str | None
    destroyed_because: str | None

    def __repr__(self) -> str:
        return f"SealingKey({self.id})"

    @property
    def owner(self) -> Owner:
        """Return whose it is."""
        return Owner(self.merchant_id, self.mode)

    @property
    def aad(self) -> bytes:
        """Return what is bound into its wrapping, so that rows cannot be swapped."""
        return bind("sealing_key", "wrapped", self.id, self.owner.tenant, self.purpose, self.month)


class Left(Struct, frozen=True):
    """How far wrapping anew has come."""

    waiting: int
    all_of_them: int
