"""What is agreed about a live key, and its handover. No I/O, and nowhere a secret."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.controls.approvals.model import Act
from tongbao.kernel.errors import Conflict, Invalid
from tongbao.parties.identity.model import Permission


class KeyNotMadeYet(Conflict):
    """No key was made by this approval: it waits, came to another end, or is about other things."""

    code = "api_key.not_made_yet"
    advice = "Have the making of the key approved, and wait a moment for it."
    advice_zh = "该提案尚未生成密钥，请待他人批准并生效后再领取。"


class KeyCollected(Conflict):
    """The secret was shown already, and is shown once."""

    code = "api_key.collected"
    advice = "If it was lost, replace the key, or revoke it and propose another."
    advice_zh = "该密钥已被领取且仅显示一次；如已遗失，请轮换，或吊销后重新申请。"


class KeyChanged(Conflict):
    """The key may do other things by now than when the change was proposed."""

    code = "api_key.changed"
    advice = "Look at the key and propose the change anew."
    advice_zh = "该密钥的权限已变化，请核对后重新提交。"


class ScopesAsBefore(Invalid):
    """The key may do exactly this already."""

    code = "api_key.scopes_as_before"
    advice = "Name scopes that differ from those it has."
    advice_zh = "该密钥已具有这些权限，请填写不同的权限。"


class NewKeyTerms(Struct, frozen=True):
    """A live key to be made; its secret comes into being only with it."""

    merchant: str
    firm: str
    name: str
    scopes: list[str]


class WideningTerms(Struct, frozen=True):
    """What a live key may do now, and shall."""

    merchant: str
    name: str
    secret_tail: str
    before: list[str]
    after: list[str]


class RevocationTerms(Struct, frozen=True):
    """The live key that ends."""

    merchant: str
    name: str
    secret_tail: str


class Handover(Struct, frozen=True):
    """One row of the table: whether a key's secret was shown, when, and to whom."""

    approval_id: UUID
    key_id: UUID
    collected_at: datetime | None
    collected_by: str | None


CREATE: Final = Act(
    "api_key.create",
    "Make a live API key",
    "创建生产密钥",
    NewKeyTerms,
    maker=Permission.MERCHANTS_ACT,
    checker=Permission.MERCHANTS_ACT,
)
WIDEN: Final = Act(
    "api_key.widen",
    "Let a live API key do more",
    "扩大生产密钥权限",
    WideningTerms,
    maker=Permission.MERCHANTS_ACT,
    checker=Permission.MERCHANTS_ACT,
)
REVOKE: Final = Act(
    "api_key.revoke",
    "End a live API key",
    "吊销生产密钥",
    RevocationTerms,
    maker=Permission.MERCHANTS_ACT,
    checker=Permission.MERCHANTS_ACT,
)
