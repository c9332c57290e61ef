"""Ways to prove who somebody is, how much each proves, and what an act needs. No I/O.

    knowledge    password                             a word only they know
    possession   message code, TOTP, HOTP, OCRA,      a thing only they have
                 certificate, recovery code
    both kinds   passkey, which asks for a finger, a face or a PIN before it signs

Two factors are two different kinds. Codes, challenges and confirmations live by real time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Any, Final, Literal, Protocol
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.kernel.errors import Forbidden, NotFound, Overloaded, Rejected
from tongbao.kernel.licence import Mode

CODE_LIFE: Final = timedelta(minutes=5)
CODE_TRIES_MAX: Final = 5
CHALLENGE_LIFE: Final = timedelta(minutes=5)
CONFIRMATION_LIFE: Final = timedelta(minutes=10)
CONFIRMATION_TRIES_MAX: Final = 10
OVER_KEPT: Final = timedelta(days=1)
"""How long what is over stays in its table."""


class Factor(StrEnum):
    """Kinds of proof, of which two factors are two different ones."""

    KNOWLEDGE = "knowledge"
    POSSESSION = "possession"
    INHERENCE = "inherence"


class Method(StrEnum):
    """One way to prove who somebody is."""

    PASSWORD = "password"  # noqa: S105 - the name of a way
    MESSAGE_CODE = "message_code"
    TOTP = "totp"
    HOTP = "hotp"
    OCRA = "ocra"
    PASSKEY = "passkey"
    CERTIFICATE = "certificate"


PROVES: Final[Mapping[Method, frozenset[Factor]]] = {
    Method.PASSWORD: frozenset({Factor.KNOWLEDGE}),
    Method.MESSAGE_CODE: frozenset({Factor.POSSESSION}),
    Method.TOTP: frozenset({Factor.POSSESSION}),
    Method.HOTP: frozenset({Factor.POSSESSION}),
    Method.OCRA: frozenset({Factor.POSSESSION}),
    # The authenticator says that it looked at a finger or a face, or at least asked for its PIN.
    Method.PASSKEY: frozenset({Factor.POSSESSION, Factor.INHERENCE}),
    Method.CERTIFICATE: frozenset({Factor.POSSESSION}),
}


class Level(IntEnum):
    """How strongly an act is confirmed."""

    SESSION = 0  # whoever holds the session may
    ONE = 1  # one factor, now
    TWO = 2  # two factors, now
    SIGNED = 3  # two factors, one of them a certificate's signature over the act


def level_of(methods: Iterable[Method]) -> Level:
    """Return the level that these methods reach together."""
    used = set(methods)
    factors = {factor for method in used for factor in PROVES[method]}
    if len(factors) >= 2:
        return Level.SIGNED if Method.CERTIFICATE in used else Level.TWO
    return Level.ONE if factors else Level.SESSION


class Act(Struct, frozen=True):
    """What somebody is about to do, as it is shown to them and as they confirm it.

    ``kind`` chooses the rules. ``payee`` is how the payee is shown: the tail of an account, a name.
    ``day_total`` is what the day comes to with this act, where the rule counts days; it belongs to
    the decision and not to what is confirmed.
    """

    kind: str
    subject: str
    amount: int = 0  # minor units
    currency: str = ""
    payee: str = ""
    day_total: int | None = None

    @property
    def digest(self) -> bytes:
        """Return what a code, a signature or a confirmation is bound to."""
        bound = ("tongbao act v1", self.kind, self.subject, self.amount, self.currency, self.payee)
        return hashlib.sha256(msgspec.json.encode(bound)).digest()

    @property
    def weight(self) -> int:
        """Return the amount that rules look at."""
        return max(self.amount, self.day_total or 0)


class Voiceprint(Protocol):
    """Somebody else's comparison of voices. Nothing here counts it as a proof of anything."""

    async def resembles(self, owner_id: UUID, recording: bytes) -> bool:
        """Tell whether a recording resembles those that the owner gave."""


class Risk(Protocol):
    """Who says how risky an act looks; `parties.step_up_risk` fills it."""

    async def level_for(self, owner_id: UUID, device_id: UUID, act: Act) -> Level:
        """Return the level that the risk alone asks for."""


class CodeWrong(Rejected):
    """The code is wrong, used, too old, for another purpose, or was guessed at too often."""

    code = "authentication.code_wrong"
    advice = "Ask for a new code and use it within five minutes, for what it was sent for."
    advice_zh = "验证码错误或已失效，请重新获取，并在五分钟内用于对应操作。"


class CodesTooMany(Overloaded):
    """So many codes were asked for that the next one waits."""

    code = "authentication.codes_too_many"
    advice = "Wait a minute, or until tomorrow where it happens again, before asking once more."
    advice_zh = "验证码获取过于频繁，请稍后再试。"
    retry_after_s = 60


class ProofRefused(Rejected):
    """What was sent does not prove what it should."""

    code = "authentication.proof_refused"
    advice = "Try again with a fresh code or challenge, or prove it in another way."
    advice_zh = "验证未通过，请使用新的验证码或挑战重试，或更换验证方式。"


class PasswordRefused(Rejected):
    """The password may not be chosen, for the reason given."""

    code = "authentication.password_refused"
    advice = "Choose a longer password that is in no list, and that you have not had lately."
    advice_zh = "密码不符合要求：请使用更长、不常见且近期未使用过的密码。"


class AuthenticatorNotFound(NotFound):
    """There is no such authenticator, passkey or certificate of this person's."""

    code = "authentication.authenticator_not_found"
    advice = "List what is enrolled to find its id."
    advice_zh = "未找到该认证方式，请先查询已绑定的认证方式。"


class PasskeyUnavailable(Rejected):
    """This deployment was installed without the extra that reads passkeys."""

    code = "passkey.unavailable"
    advice = "Install tongbao[identity], or use another way to confirm."
    advice_zh = "当前部署未安装通行密钥组件，请安装 tongbao[identity] 或使用其他验证方式。"


class PasskeyRefused(Rejected):
    """The passkey's answer is not good: wrong site, no user verification, or a copied key."""

    code = "passkey.refused"
    advice = "Start again in the app itself, with the finger, face or PIN of the device."
    advice_zh = "通行密钥验证未通过，请在本应用内使用指纹、面容或设备密码重试。"


class StepUpRequired(Forbidden):
    """This needs to be confirmed first, more strongly than by being logged in."""

    code = "authentication.step_up_required"
    advice = (
        "Prove as many factors as `level` says at /v1/me/confirmations/{confirmation}, then"
        " repeat the very same request."
    )
    advice_zh = "该操作需要进一步验证：请先完成 confirmation 所示的确认，再原样重试。"


class ConfirmationNotFound(NotFound):
    """There is nothing of this session to confirm under this id, or its time is over."""

    code = "authentication.confirmation_not_found"
    advice = "Repeat the request that asked for it."
    advice_zh = "确认单不存在或已过期，请重新发起原操作。"


class ConfirmationUsed(Rejected):
    """What was confirmed has been done, or its time is over: it is confirmed anew."""

    code = "authentication.confirmation_used"
    advice = "Repeat the request; it says what to confirm."
    advice_zh = "该确认已被使用或已过期，请重新确认。"


class Password(Struct, frozen=True):
    """One row: a password in force, as its Argon2id hash."""

    owner_id: UUID
    hash: str
    set_at: datetime


class MessageCode(Struct, frozen=True):
    """One row: a code that was sent, known by its hash."""

    id: UUID
    mode: Mode
    blind: bytes
    purpose: str
    act_digest: bytes | None
    code_hash: bytes
    tries: int
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None


class Authenticator(Struct, frozen=True):
    """One row: a generator of one-time codes. ``moved``: the last step or counter that was used."""

    id: UUID
    owner_id: UUID
    kind: Literal["totp", "hotp", "ocra"]
    suite: str | None
    name: str
    sealed: bytes
    moved: int
    state: Literal["new", "active", "ended"]
    created_at: datetime


class Passkey(Struct, frozen=True):
    """One row. A suspect one has counted backwards: somebody may have copied it."""

    id: UUID
    owner_id: UUID
    credential_id: bytes
    public_key: bytes
    sign_count: int
    may_be_backed_up: bool
    is_backed_up: bool
    name: str
    aaguid: str
    state: Literal["active", "suspect", "ended"]
    created_at: datetime
    used_at: datetime | None


class Challenge(Struct, frozen=True):
    """One row: a question that is answered once. ``owner_id`` None: by whoever can."""

    id: UUID
    owner_id: UUID | None
    purpose: str
    nonce: bytes
    act_digest: bytes | None
    expires_at: datetime
    used_at: datetime | None

    @property
    def signed(self) -> bytes:
        """Return the bytes that an answer signs: fresh, and the act with them."""
        return hashlib.sha256(self.nonce + (self.act_digest or b"")).digest()


class CertificateAnchor(Struct, frozen=True):
    """One row: an authority whose client certificates are taken, and whom it has revoked."""

    id: UUID
    name: str
    fingerprint: bytes
    der: bytes
    crl_der: bytes | None
    crl_until: datetime | None
    added_at: datetime
    added_by: str
    ended_at: datetime | None


class KnownList(Struct, frozen=True):
    """Whom an authority between an anchor and its clients has revoked."""

    authority: bytes  # SHA-256 of its certificate
    crl_der: bytes


class ClientCertificate(Struct, frozen=True):
    """One row: a certificate that somebody showed to be theirs, with what leads to its anchor."""

    id: UUID
    owner_id: UUID
    fingerprint: bytes
    chain: list[bytes]
    serial_number: str
    not_after: datetime
    state: Literal["active", "ended"]
    bound_at: datetime


class StepUpRule(Struct, frozen=True):
    """One row: from this amount on, this level, from a day on, because of an instrument."""

    kind: str
    currency: str
    at_least: int
    level: int
    valid_from: date
    instrument: str


class Confirmation(Struct, frozen=True):
    """One row: an act that waits to be confirmed, and what was proved so far."""

    id: UUID
    owner_id: UUID
    session_hash: bytes
    act_digest: bytes
    act: dict[str, Any]
    level: int
    proved: list[str]
    tries: int
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None

    @property
    def is_confirmed(self) -> bool:
        """Whether enough was proved."""
        return level_of(Method(each) for each in self.proved) >= self.level


def level_by_rules(act: Act, rules: Iterable[StepUpRule], today: date) -> Level:
    """Return the level that the rules in force ask of an act; without any, two factors.

    Of the rules of one threshold the newest counts; of the thresholds reached, the strongest.
    """
    newest: dict[int, StepUpRule] = {}
    for rule in rules:
        if (rule.kind, rule.currency) != (act.kind, act.currency) or rule.valid_from > today:
            continue
        if rule.at_least not in newest or newest[rule.at_least].valid_from < rule.valid_from:
            newest[rule.at_least] = rule
    reached = [rule.level for rule in newest.values() if act.weight >= rule.at_least]
    return Level(max(reached)) if reached else Level.TWO
