"""What a partner is and what two operators agree about it. No I/O.

taken on ──► active ⇄ suspended
└──────┴──► gone
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from msgspec import Struct

from tongbao.controls.approvals.model import Act
from tongbao.infra.certificates import NameKind
from tongbao.infra.outbox import Event
from tongbao.kernel.errors import Conflict, Invalid, NotFound
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.parties.identity.model import Permission

PREFIX: Final = "ptn"
REDIRECTS_MAX: Final = 10
_URI_MAX: Final = 512
_LOOPBACK: Final = frozenset({"127.0.0.1", "[::1]", "localhost"})


class PartnerNotFound(NotFound):
    """There is no such partner."""

    code = "partner.not_found"
    advice = "Check the id."
    advice_zh = "请检查合作方标识。"


class PartnerChanged(Conflict):
    """The partner stands otherwise by now than when the change was proposed."""

    code = "partner.changed"
    advice = "Look at the partner and propose the change anew."
    advice_zh = "合作方信息已变化，请核对后重新提交。"


class PartnerTermsInvalid(Invalid):
    """A name, a redirect address or a kind of consent is none that a partner can have."""

    code = "partner.terms_invalid"
    advice = (
        "Give a name of 1 to 64 characters, 1 to 10 https redirect addresses without fragment, and"
        " kinds of consent from the reference."
    )
    advice_zh = "请填写 1 至 64 字的名称、1 至 10 个不含片段的 https 回跳地址和受支持的授权种类。"


class Kind(StrEnum):
    """What a consent is about; the ``type`` of RFC 9396."""

    ACCOUNT_INFORMATION = "account_information"
    PAYMENT_INITIATION = "payment_initiation"
    FUNDS_CONFIRMATION = "funds_confirmation"


class PartnerState(StrEnum):
    """Whether a partner may ask for anything."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    GONE = "gone"


class AuthMethod(StrEnum):
    """How a partner proves itself to the authorisation server."""

    PRIVATE_KEY_JWT = "private_key_jwt"
    TLS_CLIENT_AUTH = "tls_client_auth"  # authorities vouch for a name (RFC 8705 §2.1)
    SELF_SIGNED = "self_signed_tls_client_auth"  # one of its own certificates (§2.2)


class Proving(Struct, frozen=True, forbid_unknown_fields=True):
    """How a partner proves itself and what its tokens are bound to.

    ``name_kind`` and ``name`` are those of `AuthMethod.TLS_CLIENT_AUTH` and of nothing else;
    ``binds_certificate`` binds tokens to the certificate of the connection, instead of a DPoP key;
    with ``signs_requests`` nothing is taken that it pushes and has not signed (RFC 9101).
    """

    method: AuthMethod = AuthMethod.PRIVATE_KEY_JWT
    name_kind: NameKind | None = None
    name: str | None = None
    binds_certificate: bool = False
    signs_requests: bool = False


class Partner(Struct, frozen=True):
    """One row of the table; ``jwks`` are the public keys its assertions are signed with.

    A key of one that proves itself by certificates of its own has the certificate in ``x5c``.
    """

    id: UUID
    mode: Mode
    name: str
    redirect_uris: list[str]
    jwks: list[dict[str, Any]]
    kinds: list[str]
    state: PartnerState
    taken_on_at: datetime
    changed_at: datetime
    auth_method: AuthMethod
    name_kind: NameKind | None
    certificate_name: str | None
    binds_certificate: bool
    signs_requests: bool

    @property
    def proving(self) -> Proving:
        """Return how it proves itself, as two people agree about it."""
        return Proving(
            self.auth_method,
            self.name_kind,
            self.certificate_name,
            self.binds_certificate,
            self.signs_requests,
        )

    @property
    def client_id(self) -> str:
        """Return what the partner calls itself in OAuth."""
        return show(PREFIX, self.id)


class PartnerMoved(Event, frozen=True, kw_only=True, tag="partner.moved"):
    """A partner was suspended, came back or is gone; ``merchant_id`` is the partner's own."""


class TakingOn(Struct, frozen=True):
    """A partner that is to be taken on."""

    name: str
    mode: Mode
    redirect_uris: list[str]
    jwks: list[dict[str, Any]]
    kinds: list[str]
    proving: Proving = Proving()
    webhook_url: str | None = None


class Changing(Struct, frozen=True):
    """What a partner shall be; ``changed_at`` says how it stood when that was proposed."""

    name: str
    redirect_uris: list[str]
    jwks: list[dict[str, Any]]
    kinds: list[str]
    state: PartnerState
    changed_at: datetime
    proving: Proving = Proving()
    webhook_url: str | None = None


TAKE_ON: Final = Act(
    "partner.take_on",
    "Take a partner of the open bank on",
    "接入开放银行合作方",
    TakingOn,
    maker=Permission.MERCHANTS_ACT,
    checker=Permission.MERCHANTS_ACT,
)
CHANGE: Final = Act(
    "partner.change",
    "Change a partner of the open bank",
    "变更开放银行合作方",
    Changing,
    maker=Permission.MERCHANTS_ACT,
    checker=Permission.MERCHANTS_ACT,
)


def check_terms(name: str, mode: Mode, redirect_uris: Sequence[str], kinds: Sequence[str]) -> None:
    """Raise unless a partner may be like this.

    Raises:
        PartnerTermsInvalid
    """
    if not 0 < len(name.strip()) <= 64:
        raise PartnerTermsInvalid(param="$.name")
    if not 1 <= len(redirect_uris) <= REDIRECTS_MAX or len(set(redirect_uris)) != len(
        redirect_uris
    ):
        raise PartnerTermsInvalid(param="$.redirect_uris")
    if not all(is_redirect(each, mode) for each in redirect_uris):
        raise PartnerTermsInvalid(param="$.redirect_uris")
    if (
        not kinds
        or len(set(kinds)) != len(kinds)
        or not set(kinds) <= {each.value for each in Kind}
    ):
        raise PartnerTermsInvalid(param="$.kinds")


def is_redirect(uri: str, mode: Mode) -> bool:
    """Tell whether people may be sent there: https, and in the sandbox also this very machine.

    Its origin stands in a page's policy, so no sign that means something there may be in it.
    """
    if not (0 < len(uri) <= _URI_MAX and uri.isascii() and uri.isprintable()):
        return False
    if set(uri) & set(" \"'<>\\;,#"):
        return False
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        return False
    if "@" in parts.netloc or not parts.hostname or port == 0:
        return False
    if parts.scheme == "https":
        return True
    host = parts.netloc.rpartition(":")[0] if port else parts.netloc
    return parts.scheme == "http" and mode is Mode.SANDBOX and host in _LOOPBACK
