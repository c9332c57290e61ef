"""A merchant's people: roles and what they may, in which stores, and at a till. No I/O.

staff    active ⇄ suspended ──► left ◄── active
session  signed in ──► over: signed out, another signed in, twelve hours, suspended, new PIN
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal
from uuid import UUID

from msgspec import Struct

from tongbao.kernel.errors import Conflict, Forbidden, NotFound, Rejected, Unauthenticated
from tongbao.kernel.licence import Mode

PREFIX: Final = "stf"
SESSION: Final = "tls"
METADATA_KEY: Final = "staff_id"
"""Where a payment's metadata names the person who asked for it at a till."""
SESSION_LIFE: Final = timedelta(hours=12)
"""A shift, in business time; after that the PIN is asked for again."""
CODE_LIFE: Final = timedelta(days=1)
CODE_MISSES_MAX: Final = 5
PIN_TRIES: Final = 5
PIN_LOCKED: Final = timedelta(minutes=30)
"""After five wrong tries; PCI DSS 4.0.1, 8.3.4 asks for it after ten at the latest."""
PIN_TRIES_MAX: Final = 15
"""After so many in a row only a new code helps."""
_PIN_LENGTH_MIN: Final = 6
_PIN_LENGTH_MAX: Final = 12
_PIN_DIFFERENT_MIN: Final = 3


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


class StaffSuspended(Forbidden):
    """The person may not sign in at present."""

    code = "staff.suspended"
    advice = "Resume the person in the merchant's system first."
    advice_zh = "该员工已停用，请先在商户系统中恢复。"


class StaffElsewhere(Forbidden):
    """The person does not work where this terminal stands."""

    code = "staff.elsewhere"
    advice = "Sign in at a terminal of a store the person works in, or change their stores."
    advice_zh = "该员工不在此终端所在门店工作，请到所属门店登录或调整其门店。"


class StaffMayNot(Forbidden):
    """The person's role does not include this; facts name both."""

    code = "staff.may_not"
    advice = "Have somebody sign in whose role includes it."
    advice_zh = "该员工角色无此权限，请由有权限的员工登录操作。"


class PinNotSet(Conflict):
    """The person has no PIN yet."""

    code = "staff.pin_not_set"
    advice = "Make a PIN code in the merchant's system and choose a PIN with it here."
    advice_zh = "该员工尚未设置密码，请在商户系统获取一次性代码后在终端设置。"


class PinTooSimple(Rejected):
    """This PIN would be tried first."""

    code = "staff.pin_too_simple"
    advice = "Take 6 to 12 digits, three of them different, not in a row, not out of the phone."
    advice_zh = "密码须为 6 至 12 位数字，至少三种不同数字，不得连续，也不得取自手机号。"


class PinWrong(Unauthenticated):
    """This is not the person's PIN."""

    code = "staff.pin_wrong"
    advice = "Type the PIN again; after five wrong tries it is locked for half an hour."
    advice_zh = "密码错误，请重新输入；连续输错五次将锁定半小时。"


class PinLocked(Unauthenticated):
    """Too many wrong PINs: wait until the time in the facts, or make a new code."""

    code = "staff.pin_locked"
    advice = "Wait until the time in facts; without one, choose a new PIN with a new code."
    advice_zh = "密码已锁定，请于 facts 所示时间后重试；若无时间，请用新的一次性代码重设密码。"


class PinCodeRefused(Unauthenticated):
    """The code is not the person's, or it is used, over, or was missed five times."""

    code = "staff.pin_code_refused"
    advice = "Make a new PIN code in the merchant's system, and type it within a day."
    advice_zh = "一次性代码无效、已使用或已过期，请在商户系统重新获取并在一天内输入。"


class TillSessionOver(Unauthenticated):
    """Nobody is signed in at this terminal under this session."""

    code = "staff.session_over"
    advice = "Sign in again at this terminal."
    advice_zh = "登录已失效，请在本终端重新登录。"


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


class TillAct(StrEnum):
    """What a person may do at a till."""

    LOOK = "payments.look"
    TAKE = "payments.take"
    CALL_OFF = "payments.call_off"
    CAPTURE = "payments.capture"
    VOID = "payments.void"
    LOOK_AT_REFUNDS = "refunds.look"
    REFUND = "refunds.make"


TAKES: Final[Mapping[TillAct, str]] = {
    TillAct.LOOK: "payments:read",
    TillAct.TAKE: "payments:write",
    TillAct.CALL_OFF: "payments:write",
    TillAct.CAPTURE: "payments:write",
    # To let go what was set aside takes from the merchant as a refund does.
    TillAct.VOID: "refunds:write",
    TillAct.LOOK_AT_REFUNDS: "refunds:read",
    TillAct.REFUND: "refunds:write",
}
"""What a role must include for each act."""


class Done(Struct, frozen=True):
    """The request of the API that an act is, and the prefix of what it makes or changes."""

    operation: str
    prefix: str


DOES: Final[Mapping[TillAct, Done]] = {
    TillAct.TAKE: Done("POST /v1/payments", "pay"),
    TillAct.CALL_OFF: Done("POST /v1/payments/{payment_id}/close", "pay"),
    TillAct.CAPTURE: Done("POST /v1/payments/{payment_id}/capture", "pay"),
    TillAct.VOID: Done("POST /v1/payments/{payment_id}/void", "pay"),
    TillAct.REFUND: Done("POST /v1/payments/{payment_id}/refunds", "ref"),
}
"""Acts that change something, by what they are on record as."""


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
    state: Literal["active", "suspended", "left"]
    version: int
    created_at: datetime
    left_at: datetime | None

    def __repr__(self) -> str:
        return f"Staff({self.id}, {self.role})"


class PinCode(Struct, frozen=True):
    """One row of staff_pin_code."""

    staff_id: UUID
    code_hash: bytes
    misses: int
    expires_at: datetime

    def __repr__(self) -> str:
        return f"PinCode({self.staff_id})"


class Pin(Struct, frozen=True):
    """One row of staff_pin."""

    staff_id: UUID
    hash: str
    number: int
    set_at: datetime
    tries: int
    locked_until: datetime | None

    def __repr__(self) -> str:
        return f"Pin({self.staff_id})"


class TillSession(Struct, frozen=True):
    """One row of till_session."""

    terminal_id: UUID
    id: UUID
    key_number: int
    staff_id: UUID
    merchant_id: UUID
    mode: Mode
    opened_at: datetime
    ends_at: datetime
    ended_at: datetime | None


def acts_of(role: StaffRole) -> list[TillAct]:
    """Return what somebody in a role may do at a till."""
    return [act for act in TillAct if may(role, TAKES[act])]


def check_may(role: StaffRole, act: TillAct) -> None:
    """Raise unless somebody in a role may do this at a till.

    Raises:
        StaffMayNot
    """
    if not may(role, TAKES[act]):
        raise StaffMayNot(role=role, act=act)


def check_pin(pin: str, phone: str) -> None:
    """Raise unless somebody with this phone may choose this PIN.

    Raises:
        PinTooSimple
    """
    is_long = pin.isascii() and pin.isdigit() and _PIN_LENGTH_MIN <= len(pin) <= _PIN_LENGTH_MAX
    steps = {int(b) - int(a) for a, b in itertools.pairwise(pin)} if is_long else {0}
    digits = "".join(each for each in phone if each.isdigit())
    in_a_row = len(steps) == 1
    if in_a_row or len(set(pin)) < _PIN_DIFFERENT_MIN or pin in digits:
        raise PinTooSimple


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
