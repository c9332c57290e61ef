"""API keys, operators and their sessions: what they are and what they may. No I/O.

key       active ──roll──► replaced (until its overlap ends) ──► ended
          active ──revoke─► ended
operator  active ⇄ disabled; five failed logins lock it for a while
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal
from uuid import UUID

from msgspec import Struct

from tongbao.infra.public_keys import SigningAlgorithm
from tongbao.infra.settings import Secret
from tongbao.kernel.errors import Conflict, Forbidden, Invalid, NotFound, Rejected, Unauthenticated
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Licence, Mode

SCOPES: Final[Mapping[str, str]] = {
    "api_keys:read": "List the merchant's API keys.",
    "api_keys:write": "Replace and revoke the merchant's API keys.",
    "applications:read": "Read the applications made for merchants.",
    "applications:write": "Apply for merchants, with their documents.",
    "balances:read": "Read balances and what moved them.",
    "commissions:read": "Read what the merchant earned as an agent.",
    "disputes:read": "Read disputes and customers' complaints.",
    "disputes:write": "Answer disputes and complaints, and accept disputes.",
    "events:read": "List and read events.",
    "merchant:read": "Read the merchant's own profile and prices.",
    "payments:read": "Read payments.",
    "payments:write": "Create, confirm and close payments.",
    "red_packets:read": "Read red packets and who took of them.",
    "red_packets:write": "Send red packets and take of them.",
    "refunds:read": "Read refunds.",
    "refunds:write": "Give money back.",
    "request_log:read": "Read what the merchant's own programs asked and were told.",
    "shop:read": "Read products, stock, orders and reviews.",
    "shop:write": "Change products and stock; place, cancel and give back orders.",
    "settlements:read": "Read settlements, payouts and their lines.",
    "settlements:write": "Ask for settlement before the day is over.",
    "splits:read": "Read receivers, splits and what came back.",
    "splits:write": "Bind receivers, share payments and take shares back.",
    "staff:read": "Read who works for the merchant.",
    "staff:write": "Add, change and let go who works for the merchant.",
    "stores:read": "Read the merchant's stores.",
    "stores:write": "Open, change and close the merchant's stores.",
    "terminals:read": "Read the merchant's terminals.",
    "terminals:write": "Place, limit and instruct the merchant's terminals.",
    "test_helpers:write": "Use the test helpers of the sandbox.",
    "transfers:read": "Read batches of transfers.",
    "transfers:write": "Send files of transfers to be let go.",
    "vault:read": "Read cards and tokens: never a card's whole number.",
    "vault:write": "Keep and forget cards; ask for tokens and change them.",
    "user_wallets:read": "Read the wallets that the merchant's users opened in its app.",
    "user_wallets:write": "Open wallets for the merchant's users and propose movements to them.",
    "wallets:read": "Read wallets.",
    "wallets:write": "Open, freeze and use wallets.",
    "webhooks:read": "Read webhook endpoints and their deliveries.",
    "webhooks:write": "Manage webhook endpoints and replay deliveries.",
}
"""Everything an API key can be allowed; a key has what it was given and no more."""
_LICENSED: Final = frozenset(
    {"settlements:write", "transfers:read", "transfers:write"}
    | {"vault:read", "vault:write", "user_wallets:read", "user_wallets:write"}
    | {"wallets:read", "wallets:write", "red_packets:read", "red_packets:write", "commissions:read"}
)

OVERLAP_MAX: Final = timedelta(days=30)
"""How long a replaced key may stay good beside its successor."""
PASSWORD_LENGTH_MIN: Final = 12
PASSWORD_LENGTH_MAX: Final = 128
_PASSWORD_KINDS_MIN: Final = 5


class KeyNotFound(NotFound):
    """The merchant has no such API key in this mode."""

    code = "api_key.not_found"
    advice = "List the keys to find its id."
    advice_zh = "请通过密钥列表查找正确的标识。"


class KeyEnded(Conflict):
    """The key is revoked or its overlap is over, so there is nothing left to replace."""

    code = "api_key.ended"
    advice = "Use or replace the current key."
    advice_zh = "该密钥已失效，请使用或轮换当前密钥。"


class ScopeUnknown(Invalid):
    """A key can be allowed only what the platform knows."""

    code = "api_key.scope_unknown"
    advice = "Choose at least one of the scopes the API reference lists."
    advice_zh = "请从接口文档列出的权限中至少选择一项。"


class ScopesExceedOwn(Forbidden):
    """A key cannot replace one that may do more than itself."""

    code = "api_key.scopes_exceed_own"
    advice = "Use a key that has all scopes of the one to replace."
    advice_zh = "请使用权限不少于目标密钥的密钥进行操作。"


class OverlapTooLong(Invalid):
    """A replaced key ends within 30 days."""

    code = "api_key.overlap_too_long"
    advice = "Ask for an overlap between 0 and 2592000 seconds."
    advice_zh = "重叠期应在 0 至 2592000 秒之间。"


class LoginRefused(Unauthenticated):
    """Login, password and code are not all right, or the account is locked or disabled."""

    code = "operator.login_refused"
    advice = "Check all three and wait for a new code; after five failures wait 15 minutes."
    advice_zh = "请核对登录名、密码和动态码，并等待新的动态码；连续失败五次后请 15 分钟后再试。"


class SessionEnded(Unauthenticated):
    """The session is over or was never opened."""

    code = "operator.session_ended"
    advice = "Log in again."
    advice_zh = "会话已结束，请重新登录。"


class CsrfTokenWrong(Forbidden):
    """The form was not made for this session."""

    code = "operator.csrf_token_wrong"
    advice = "Reload the page and send the form again."
    advice_zh = "请刷新页面后重新提交。"


class PermissionMissing(Forbidden):
    """The operator's role does not include this."""

    code = "operator.permission_missing"
    advice = "Ask an administrator."
    advice_zh = "请联系管理员。"


class OperatorNotFound(NotFound):
    """There is no such operator."""

    code = "operator.not_found"
    advice = "List the operators to find the login name."
    advice_zh = "请通过操作员列表查找登录名。"


class LoginTaken(Conflict):
    """Another operator has this login name."""

    code = "operator.login_taken"
    advice = "Choose another login name."
    advice_zh = "请更换登录名。"


class LoginMalformed(Invalid):
    """A login name is 3 to 64 lower-case letters, digits, dots, hyphens, underscores or @."""

    code = "operator.login_malformed"
    advice = "Use 3 to 64 of a-z, 0-9 and . _ - @."
    advice_zh = "登录名为 3 至 64 个小写字母、数字或 . _ - @。"


class NotTheFirst(Conflict):
    """There are operators already."""

    code = "operator.not_the_first"
    advice = "Have an administrator add the operator."
    advice_zh = "已存在操作员，请由管理员添加。"


class PasswordWeak(Rejected):
    """The password is too short, too long, too plain, or says who or where somebody is."""

    code = "operator.password_weak"
    advice = (
        "Use 12 to 128 characters, at least five different ones, without the login name and words"
        " of the place such as tongbao, console or payment."
    )
    advice_zh = (
        "密码应为 12 至 128 个字符，至少五种不同字符，不得包含登录名及 tongbao、console、"
        "payment 等与平台有关的词。"
    )


class ApiKey(Struct, frozen=True):
    """One row of the key table. ``expires_at`` and ``last_used_at`` are real times."""

    id: UUID
    merchant_id: UUID
    mode: Mode
    name: str
    scopes: list[str]
    secret_sealed: bytes
    secret_tail: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    rolled_to_id: UUID | None
    algorithm: SigningAlgorithm
    public_key: bytes | None  # the merchant's own, which alone its requests are signed with
    api_version: str | None  # of its requests; None is today's

    def is_good(self, real_now: datetime) -> bool:
        """Tell whether requests signed with it are accepted."""
        return self.revoked_at is None and (self.expires_at is None or real_now < self.expires_at)


class KeyAge(Struct, frozen=True):
    """How many keys of merchants work in a mode, and how old they are."""

    mode: Mode
    keys: int
    oldest: datetime | None
    overdue: int


class NewKey(Struct, frozen=True):
    """A key and, this once, its secret."""

    key: ApiKey
    secret: Secret


class Role(StrEnum):
    """What an operator is there for."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    FINANCE = "finance"
    ADMIN = "admin"


class Permission(StrEnum):
    """One thing an operator may be allowed in the console."""

    VIEW = "view"  # see payments, timelines, settlements, breaks
    PAYMENTS_ACT = "payments_act"  # query, close, refund, replay a webhook
    BREAKS_ACT = "breaks_act"  # resolve reconciliation breaks
    SETTLEMENT_ACT = "settlement_act"  # close a day, send or repeat payouts
    ADJUSTMENTS_ACT = "adjustments_act"  # suspense and adjustments by hand
    TERMINALS_ACT = "terminals_act"  # assign, suspend, retire and instruct terminals
    MERCHANTS_ACT = "merchants_act"  # open merchants, set prices, make keys
    ONBOARDING_ACT = "onboarding_act"  # review applications, change a merchant's standing
    PEOPLE_ACT = "people_act"  # see who users are, with a reason; suspend them
    DEPLOYMENT_ACT = "deployment_act"  # test clock, dead letters
    OPERATORS_ACT = "operators_act"  # add, disable and unlock operators


ROLES: Final[Mapping[Role, frozenset[Permission]]] = {
    Role.VIEWER: frozenset({Permission.VIEW}),
    Role.OPERATOR: frozenset(
        {
            Permission.VIEW,
            Permission.PAYMENTS_ACT,
            Permission.TERMINALS_ACT,
            Permission.ONBOARDING_ACT,
            Permission.PEOPLE_ACT,
        }
    ),
    Role.FINANCE: frozenset(
        {
            Permission.VIEW,
            Permission.BREAKS_ACT,
            Permission.SETTLEMENT_ACT,
            Permission.ADJUSTMENTS_ACT,
        }
    ),
    Role.ADMIN: frozenset(Permission),
}


class Operator(Struct, frozen=True):
    """One row of the operator table. ``locked_until`` is real time."""

    id: UUID
    login: str
    name: str
    role: Role
    state: Literal["active", "disabled"]
    password_hash: str
    totp_sealed: bytes
    totp_last_step: int
    failures: int
    locked_until: datetime | None
    created_at: datetime
    is_first: bool

    @property
    def actor(self) -> str:
        """Return the name transactions and the audit log know this operator by."""
        return show("opr", self.id)

    def check_may(self, permission: Permission) -> None:
        """Raise unless the operator's role includes the permission.

        Raises:
            PermissionMissing
        """
        if permission not in ROLES[self.role]:
            raise PermissionMissing(permission=permission.value)


class OperatorSession(Struct, frozen=True):
    """One row of the session table; all times are real."""

    token_hash: bytes
    operator_id: UUID
    opened_at: datetime
    seen_at: datetime
    expires_at: datetime


def scopes_under(licence: Licence) -> dict[str, str]:
    """Return the scopes that exist under a licence, with their meaning."""
    return {
        scope: meaning
        for scope, meaning in SCOPES.items()
        if licence.may_hold_funds or scope not in _LICENSED
    }


def check_scopes(scopes: Sequence[str], licence: Licence) -> list[str]:
    """Return the scopes sorted and once each.

    Raises:
        ScopeUnknown
    """
    unknown = [scope for scope in scopes if scope not in scopes_under(licence)]
    if unknown or not scopes:
        raise ScopeUnknown(param="$.scopes", scope=unknown[0][:64] if unknown else None)
    return sorted(set(scopes))


def check_password(password: str, login: str) -> None:
    """Raise unless the password is good enough for somebody who can move money.

    Raises:
        PasswordWeak
    """
    if not PASSWORD_LENGTH_MIN <= len(password) <= PASSWORD_LENGTH_MAX:
        raise PasswordWeak
    if len(set(password)) < _PASSWORD_KINDS_MIN or login in password.lower():
        raise PasswordWeak
