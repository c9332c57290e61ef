"""A merchant's people: roles and what they may, and in which stores. No I/O.

staff  active ──► left
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal
from uuid import UUID

from msgspec import Struct

from tongbao.kernel.errors import Conflict, NotFound, Rejected
from tongbao.kernel.licence import Mode

PREFIX: Final = "stf"


class StaffNotFound(NotFound):
    """The merchant has nobody of this id."""

    code = "staff.not_found"
    advice = "List the staff to find the id."
    advice_zh = "请通过员工列表查找正确的标识。"


class StaffPhoneUsed(Conflict):
    """Somebody of the merchant's has this phone number."""

    code = "staff.phone_used"
    advice = "Change the person who has it, or let them leave first."
    advice_zh = "该手机号已有在职员工使用，请修改该员工或先办理离职。"


class StaffLeft(Conflict):
    """The person has left; who comes back is added anew."""

    code = "staff.left"
    advice = "Add the person again."
    advice_zh = "该员工已离职，请重新添加。"


class StoresUnclear(Rejected):
    """A person works in every store, or in stores that are named; an owner works in every one."""

    code = "staff.stores_unclear"
    advice = "Send every_store true and no store_ids, or false and at least one store."
    advice_zh = "请设置 every_store 为 true，或指定至少一家门店；老板须为全部门店。"


class StaffRole(StrEnum):
    """What a person of a merchant's is there for."""

    OWNER = "owner"
    MANAGER = "manager"
    CASHIER = "cashier"
    ACCOUNTANT = "accountant"


STAFF_MAY: Final[Mapping[StaffRole, frozenset[str]]] = {
    StaffRole.OWNER: frozenset(
        {
            *("payments:read", "payments:write", "refunds:read", "refunds:write"),
            *("settlements:read", "stores:read", "stores:write", "staff:read", "staff:write"),
        }
    ),
    StaffRole.MANAGER: frozenset(
        {
            *("payments:read", "payments:write", "refunds:read", "refunds:write"),
            *("stores:read", "staff:read"),
        }
    ),
    StaffRole.CASHIER: frozenset({"payments:read", "payments:write", "refunds:read"}),
    StaffRole.ACCOUNTANT: frozenset({"payments:read", "refunds:read", "settlements:read"}),
}
"""What each role may, in the words of API keys' scopes; a merchant's console asks this table."""


class Person(Struct, frozen=True):
    """What identifies a person; stored sealed."""

    name: str
    phone: str

    def __repr__(self) -> str:
        return "Person(…)"


class Staff(Struct, frozen=True):
    """One row of the staff table."""

    id: UUID
    merchant_id: UUID
    mode: Mode
    role: StaffRole
    every_store: bool
    name_masked: str
    phone_masked: str
    sealed: bytes
    phone_blind: bytes
    state: Literal["active", "left"]
    version: int
    created_at: datetime
    left_at: datetime | None

    def __repr__(self) -> str:
        return f"Staff({self.id}, {self.role})"


def may(role: StaffRole, scope: str) -> bool:
    """Tell whether a role includes what a scope names."""
    return scope in STAFF_MAY[role]


def check_stores(role: StaffRole, *, every_store: bool, named: int) -> None:
    """Raise unless it is clear where a person works.

    Raises:
        StoresUnclear
    """
    if every_store is bool(named) or (role is StaffRole.OWNER and not every_store):
        raise StoresUnclear
