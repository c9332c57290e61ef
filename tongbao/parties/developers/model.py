"""A developer: a proved mail address, a merchant of their own in the sandbox, a session. No I/O.

address ──code──► signed up ──password──► session (2 h idle, 12 h at most)
                      └──code──► new password; every session ends
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from msgspec import Struct

from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.kernel.errors import Invalid, Unauthenticated
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Licence, Mode
from tongbao.parties.authentication.passwords import PasswordPolicy
from tongbao.parties.price_plans.model import PriceLine

PREFIX: Final = "dvp"
IDLE_MAX: Final = timedelta(hours=2)
SESSION_MAX: Final = timedelta(hours=12)
NAME_MAX: Final = 128

Language = Literal["zh", "en"]


class DeveloperLoginRefused(Unauthenticated):
    """Address and password are not both right, or the account is locked for a while."""

    code = "developer.login_refused"
    advice = "Check both; after five failures wait 15 minutes, or set a new password by mail."
    advice_zh = "请核对邮箱和密码；连续失败五次后请 15 分钟后再试，或通过邮箱重设密码。"


class DeveloperSessionEnded(Unauthenticated):
    """The session is over or was never opened."""

    code = "developer.session_ended"
    advice = "Log in again."
    advice_zh = "会话已结束，请重新登录。"


class MailNeeded(Invalid):
    """What was given is no mail address."""

    code = "developer.mail_needed"
    advice = "Give a mail address, like dev@shop.example."
    advice_zh = "请填写邮箱地址，例如 dev@shop.example。"


class NameNeeded(Invalid):
    """A shop has a name of 1 to 128 characters."""

    code = "developer.name_needed"
    advice = "Give your test shop a name of 1 to 128 characters."
    advice_zh = "请填写测试商户名称（1 至 128 个字符）。"


class Developer(Struct, frozen=True):
    """One row. The address is sealed; ``mail_masked`` may be shown."""

    id: UUID
    merchant_id: UUID
    mode: Mode
    mail_blind: bytes
    mail_sealed: bytes
    mail_masked: str
    failures: int
    locked_until: datetime | None
    created_at: datetime

    @property
    def actor(self) -> str:
        """Return the name transactions and the audit log know this person by."""
        return show(PREFIX, self.id)


class DeveloperSession(Struct, frozen=True):
    """One row of developer_session."""

    token_hash: bytes
    developer_id: UUID
    opened_at: datetime
    seen_at: datetime
    expires_at: datetime


class Entrance(Struct, frozen=True):
    """What coming in works with. ``mail_mode``: whose gateway carries the codes."""

    db: Db
    keyring: Keyring
    policy: PasswordPolicy
    mail_mode: Mode


class Outfit(Struct, frozen=True):
    """What a new test shop begins with: prices, and our sandbox account at each channel."""

    licence: Licence
    prices: Sequence[PriceLine]
    accounts: Mapping[str, UUID]
    scopes: Sequence[str]
