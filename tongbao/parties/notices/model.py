"""What people are told of, in words that say nothing personal, and what they chose. No I/O.

A notice may light up on a locked screen, so it names nobody, no amount and no account: who wants
to know more opens the app.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final
from uuid import UUID

from msgspec import Meta, Struct

from tongbao.infra.crypto import Keyring
from tongbao.infra.tasks import Task
from tongbao.kernel.licence import Mode
from tongbao.parties.authentication.message_codes import Address, Language

PushToken = Annotated[
    str,
    Meta(
        min_length=8,
        max_length=512,
        pattern=r"^[\x21-\x7e]+$",
        description="What the phone's system gave the app to be reached by push.",
    ),
]


class Topic(StrEnum):
    """What notices are about; nobody can choose not to hear of their account's safety."""

    SECURITY = "security"
    MONEY = "money"


class Notice(StrEnum):
    """What somebody is told."""

    DEVICE_BOUND = "device_bound"
    DEVICE_REMOVED = "device_removed"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105 - a name
    FACTOR_CHANGED = "factor_changed"
    ADDRESS_CHANGED = "address_changed"
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    FROZEN = "frozen"
    UNFROZEN = "unfrozen"
    MONEY_IN = "money_in"
    MONEY_OUT = "money_out"
    ORDER_FAILED = "order_failed"

    @property
    def topic(self) -> Topic:
        """Return what it is about."""
        return Topic.MONEY if self in _OF_MONEY else Topic.SECURITY


_OF_MONEY: Final = frozenset({Notice.MONEY_IN, Notice.MONEY_OUT, Notice.ORDER_FAILED})

TITLES: Final[Mapping[Language, str]] = {"zh": "通宝", "en": "Tongbao"}
TEXTS: Final[Mapping[Notice, Mapping[Language, str]]] = {
    Notice.DEVICE_BOUND: {
        "zh": "【通宝】您的账户在一台新设备上登录。如非本人操作，请在应用内移除该设备并联系我们。",
        "en": "[Tongbao] A new phone logged in to your account. Not you? Remove it and call us.",
    },
    Notice.DEVICE_REMOVED: {
        "zh": "【通宝】您账户的一台设备已被移除。如非本人操作，请立即联系我们。",
        "en": "[Tongbao] A phone was removed from your account. Not you? Call us.",
    },
    Notice.PASSWORD_CHANGED: {
        "zh": "【通宝】您的登录密码已更换。如非本人操作，请立即联系我们。",
        "en": "[Tongbao] Your password was changed. Not you? Call us.",
    },
    Notice.FACTOR_CHANGED: {
        "zh": "【通宝】您账户的验证方式有变更。如非本人操作，请立即联系我们。",
        "en": "[Tongbao] How you prove yourself was changed. Not you? Call us.",
    },
    Notice.ADDRESS_CHANGED: {
        "zh": "【通宝】您账户的联系方式有变更。如非本人操作，请立即联系我们。",
        "en": "[Tongbao] An address of your account was changed. Not you? Call us.",
    },
    Notice.SUSPENDED: {
        "zh": "【通宝】您的账户已被暂停使用。如有疑问，请联系我们。",
        "en": "[Tongbao] Your account was suspended. Call us for more.",
    },
    Notice.RESUMED: {
        "zh": "【通宝】您的账户已恢复使用。",
        "en": "[Tongbao] Your account can be used again.",
    },
    Notice.FROZEN: {
        "zh": "【通宝】您的电子账户已被冻结。如有疑问，请联系我们。",
        "en": "[Tongbao] An electronic account of yours was frozen. Call us for more.",
    },
    Notice.UNFROZEN: {
        "zh": "【通宝】您的电子账户有冻结已解除。",
        "en": "[Tongbao] A freeze of your electronic account was lifted.",
    },
    Notice.MONEY_IN: {
        "zh": "【通宝】您的账户有一笔资金转入，请打开应用查看。",
        "en": "[Tongbao] Money came into your account. Open the app to see it.",
    },
    Notice.MONEY_OUT: {
        "zh": "【通宝】您的账户有一笔资金转出，请打开应用查看。如非本人操作，请立即联系我们。",
        "en": "[Tongbao] Money left your account. Open the app to see it. Not you? Call us.",
    },
    Notice.ORDER_FAILED: {
        "zh": "【通宝】您的一笔转账或提现未成功，请打开应用查看。",
        "en": "[Tongbao] Something you ordered did not happen. Open the app to see it.",
    },
}


class TellPerson(Task, frozen=True, tag="people.tell"):
    """Tell somebody what was done with their account; ``spared`` is the phone that did it."""

    person_id: UUID
    notice: Notice
    spared: UUID | None = None


class Reached(Struct, frozen=True):
    """How somebody is reached: in which world and language, by which addresses, best first."""

    mode: Mode
    language: Language
    own: Keyring
    addresses: list[Address]


class PhoneToken(Struct, frozen=True):
    """One row: where a phone is reached by push, sealed under its person's own key."""

    mode: Mode
    blind: bytes
    device_id: UUID
    person_id: UUID
    sealed: bytes
    set_at: datetime


class NoticeChoice(Struct, frozen=True):
    """One row: whether somebody wants to hear of a topic."""

    person_id: UUID
    topic: Topic
    wanted: bool
    set_at: datetime
