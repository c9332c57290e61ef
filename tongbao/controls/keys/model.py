"""The ceremony of a new master key, and what is said of keys. No I/O, no key.

    approved ─► open ─► first component ─► second component, by somebody else ─► complete
                  └──────────────┴─► abandoned

Each custodian enters 32 random bytes; the key is the exclusive or of both, so neither knows any of
it (split knowledge and dual control, PCI DSS 4.0.1 requirement 3.7.6).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.controls.approvals.model import Act
from tongbao.infra.crypto import bind
from tongbao.kernel.errors import Conflict, Invalid, NotFound

PREFIX: Final = "cer"
COMPONENT_BYTES: Final = 32
CRYPTOPERIOD: Final = timedelta(days=730)
"""How long a master key should wrap: NIST SP 800-57 part 1 rev. 5, table 1, gives a symmetric
key-wrapping key two years at most."""


class CeremonyNotFound(NotFound):
    """There is no such ceremony."""

    code = "key_ceremony.not_found"
    advice = "List the ceremonies to find its id."
    advice_zh = "请通过密钥仪式列表查找正确的标识。"


class CeremonyOver(Conflict):
    """The ceremony is complete or abandoned; nothing can be entered any more."""

    code = "key_ceremony.over"
    advice = "Propose another rotation of the master key."
    advice_zh = "该密钥仪式已结束，请重新提交主密钥轮换申请。"


class CeremonyUnderWay(Conflict):
    """Another ceremony is open; one at a time."""

    code = "key_ceremony.under_way"
    advice = "Complete or abandon the open one first."
    advice_zh = "已有进行中的密钥仪式，请先完成或放弃。"


class SameCustodian(Conflict):
    """Both components would be one person's, who would then know the key."""

    code = "key_ceremony.same_custodian"
    advice = "Have another custodian enter the second component."
    advice_zh = "两个分量必须由两名不同的保管人分别录入。"


class ComponentMalformed(Invalid):
    """A component is 32 random bytes, as 64 hexadecimal digits."""

    code = "key_ceremony.component_malformed"
    advice = "Draw it with `openssl rand -hex 32` and enter all 64 digits."
    advice_zh = "密钥分量应为 32 字节随机数（64 位十六进制），请重新生成并完整录入。"


class ComponentsAlike(Conflict):
    """Both components are the same, so the key would be nothing but zeros."""

    code = "key_ceremony.components_alike"
    advice = "Draw each component apart, and do not show it to the other custodian."
    advice_zh = "两个分量相同，请由两名保管人分别独立生成。"


class ComponentsNotTaken(Conflict):
    """A security module draws its master keys itself; there is nothing to enter."""

    code = "key_ceremony.components_not_taken"
    advice = "Propose the rotation; the module makes the key once it is approved."
    advice_zh = "加密机自行生成主密钥，无需录入分量；轮换获批后自动生效。"


class RotationTerms(Struct, frozen=True):
    """From which master key we go on to a new one."""

    provider: str
    from_key: str
    from_version: int


class DestructionTerms(Struct, frozen=True):
    """The sealing key that is destroyed, with everything sealed under it."""

    key: str
    owner: str
    purpose: str
    month: str


class Ceremony(Struct, frozen=True):
    """One row of the table."""

    id: UUID
    approval_id: UUID
    state: str
    opened_at: datetime
    first_custodian: str | None
    first_check: str | None
    first_at: datetime | None
    component_sealed: bytes | None
    second_custodian: str | None
    second_check: str | None
    closed_at: datetime | None
    master_key: str | None
    certificate: str | None
    signature: bytes | None


class NotedKey(Struct, frozen=True):
    """What is known of one master key: nothing secret."""

    id: str
    provider: str
    version: int
    algorithm: str
    noted_at: datetime
    expires_at: datetime
    ceremony_id: UUID | None


class Certificate(Struct, frozen=True):
    """Who made a master key, when: what the keeper's own key signs."""

    ceremony: str
    approval: str
    master_key: str
    version: int
    algorithm: str
    custodians: tuple[str, str]
    checks: tuple[str, str]
    at: datetime


ROTATE: Final = Act(
    "master_key.rotate",
    "Go on to a new master key",
    "轮换主密钥",
    RotationTerms,
    maker="deployment_act",
    checker="deployment_act",
)
DESTROY: Final = Act(
    "sealing_key.destroy",
    "Destroy a sealing key and all it sealed",
    "销毁封装密钥及其加密数据",
    DestructionTerms,
    maker="deployment_act",
    checker="deployment_act",
)


def read_component(text: str) -> bytes:
    """Return a component as a custodian types it; blanks between digits do not matter.

    Raises:
        ComponentMalformed
    """
    try:
        component = bytes.fromhex(text)
    except ValueError:
        raise ComponentMalformed from None
    if len(component) != COMPONENT_BYTES or len(set(component)) < COMPONENT_BYTES // 4:
        raise ComponentMalformed
    return component


def check_value(component: bytes) -> str:
    """Return six digits by which a custodian sees that the component was typed as written."""
    return sha256(bind("tongbao key component", component)).hexdigest()[:6]


def combined(first: bytes, second: bytes) -> bytes:
    """Return the key that two components make.

    Raises:
        ComponentsAlike
    """
    key = bytes(one ^ other for one, other in zip(first, second, strict=True))
    if not any(key):
        raise ComponentsAlike
    return key
