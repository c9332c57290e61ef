"""People, their addresses, phones, sessions, consents, and who the law says they are. No I/O.

    person   active ⇄ suspended ──► erased (what the law has kept stays under a key of its own)
    device   active ──► removed
    consent  given ──► withdrawn

Real-name levels are classes I to III of payment accounts: how many outside registers agreed.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from msgspec import Struct

from tongbao.infra.outbox import Event
from tongbao.kernel.errors import Conflict, Invalid, NotFound, Rejected, Unauthenticated
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode

PREFIX: Final = "per"
DEVICE_PREFIX: Final = "dev"
TRIES_MAX: Final = 5
LOCKED_FOR: Final = timedelta(minutes=15)
IDLE_MAX: Final = timedelta(minutes=15)
SESSION_MAX: Final = timedelta(hours=12)
DEVICES_MAX: Final = 10


class LoginRefused(Unauthenticated):
    """What was sent does not prove an account here, or the account is locked for a while."""

    code = "person.login_refused"
    advice = "Check everything; from a new phone send a code besides. After five failures, wait."
    advice_zh = "请核对登录信息；新设备需同时提供验证码。连续失败五次后请 15 分钟后再试。"


class ContactMalformed(Invalid):
    """An address is a mobile number, with +86 or without, or a mail address."""

    code = "person.contact_malformed"
    advice = "Send a phone number like 13800138000 or +6591234567, or a mail address."
    advice_zh = "请填写手机号（如 13800138000）或邮箱地址。"


class DeviceKeyMalformed(Invalid):
    """A phone's key signs with 64 bytes: Ed25519, P-256 or SM2."""

    code = "person.device_key_malformed"
    advice = "Send the PEM of an Ed25519, P-256 or SM2 public key."
    advice_zh = "请提供 Ed25519、P-256 或 SM2 公钥的 PEM。"


class ConsentMissing(Rejected):
    """The texts that are required of everybody were not all agreed to in their newest version."""

    code = "person.consent_missing"
    advice = "Show the texts that are in force and send the kinds and versions agreed to."
    advice_zh = "请展示现行协议文本，并提交用户同意的协议及版本。"


class ConsentTextNotFound(NotFound):
    """There is no such text in this version."""

    code = "person.consent_text_not_found"
    advice = "List the texts in force."
    advice_zh = "协议文本不存在，请查询现行协议。"


class ConsentRequired(Conflict):
    """This text is required for the account: to withdraw from it is to close the account."""

    code = "person.consent_required"
    advice = "Ask for erasure to withdraw from what the account rests on."
    advice_zh = "该协议为账户必需，如需撤回请申请注销账户。"


class DeviceNotFound(NotFound):
    """This person has no such phone."""

    code = "person.device_not_found"
    advice = "List the devices to find its id."
    advice_zh = "设备不存在，请先查询设备列表。"


class DevicesTooMany(Rejected):
    """A person's phones are few."""

    code = "person.devices_too_many"
    advice = "Remove a device that is used no more."
    advice_zh = "绑定设备过多，请先移除不再使用的设备。"


class PersonNotFound(NotFound):
    """There is nobody with this id."""

    code = "person.not_found"
    advice = "Find the person by an address or an id."
    advice_zh = "未找到该用户。"


class IdentityMalformed(Invalid):
    """A resident id has 18 signs of which the last checks the others, and is somebody's born."""

    code = "person.identity_malformed"
    advice = "Send the name and the 18-digit resident id as they stand on the card."
    advice_zh = "请按身份证填写姓名和 18 位身份证号码。"


class IdentityGiven(Conflict):
    """Who this person is was said before, and differently."""

    code = "person.identity_given"
    advice = "Have an operator correct it, face to face."
    advice_zh = "实名信息已登记，如需更正请前往柜面办理。"


class RealNameNotConfirmed(Rejected):
    """The register did not say that this is who they are, or could not be asked."""

    code = "person.real_name_not_confirmed"
    advice = "Check name and number; where `verdict` is unknown, ask again later."
    advice_zh = "实名信息未通过核验，请核对后重试；若结果未知请稍后再试。"


class SourceNotFound(NotFound):
    """There is no register of this name to ask."""

    code = "person.source_not_found"
    advice = "Ask one of the registers that the profile lists."
    advice_zh = "核验渠道不存在，请选择可用的核验渠道。"


class ErasureBlocked(Conflict):
    """Something of this person's has to end first, such as a balance."""

    code = "person.erasure_blocked"
    advice = "Do what `reason` says, then ask again."
    advice_zh = "账户尚有未结事项（见 reason），处理后方可注销。"


class Person(Struct, frozen=True):
    """One row. ``locked_until`` is real time."""

    id: UUID
    mode: Mode
    state: Literal["active", "suspended", "erased"]
    language: Literal["zh", "en"]
    real_name_level: int
    failures: int
    locked_until: datetime | None
    created_at: datetime
    erased_at: datetime | None

    @property
    def actor(self) -> str:
        """Return the name transactions and the audit log know this person by."""
        return show(PREFIX, self.id)


class PersonMoved(Event, frozen=True, kw_only=True, tag="person.moved"):
    """A person was suspended, or may act again; between our own domains alone."""


class PersonContact(Struct, frozen=True):
    """One row: an address that was proved by a code."""

    person_id: UUID
    mode: Mode
    kind: Literal["phone", "mail"]
    blind: bytes
    masked: str
    sealed: bytes
    proved_at: datetime


class PersonDevice(Struct, frozen=True):
    """One row: a phone, known by its key."""

    id: UUID
    person_id: UUID
    name: str
    key_kind: str
    public_key: bytes
    state: Literal["active", "removed"]
    bound_at: datetime
    removed_at: datetime | None


class PersonSession(Struct, frozen=True):
    """One row."""

    token_hash: bytes
    person_id: UUID
    device_id: UUID
    methods: list[str]
    opened_at: datetime
    seen_at: datetime
    expires_at: datetime


class Opened(Struct, frozen=True):
    """A session with the phone it is bound to and whose it is."""

    token_hash: bytes
    person_id: UUID
    device_id: UUID
    methods: list[str]
    opened_at: datetime
    seen_at: datetime
    expires_at: datetime
    mode: Mode
    state: str
    key_kind: str
    public_key: bytes
    bound_at: datetime

    def is_over(self, now: datetime) -> bool:
        """Tell whether it was left alone too long, or is too old."""
        return now >= self.expires_at or now >= self.seen_at + IDLE_MAX or self.state != "active"


class ConsentText(Struct, frozen=True):
    """One row: a text in one language."""

    kind: str
    version: int
    language: Literal["zh", "en"]
    title: str
    body: str
    sha256: bytes
    is_required: bool
    published_at: datetime
    published_by: str


class PersonConsent(Struct, frozen=True):
    """One row: which text, in which version and language, when, and until when."""

    id: UUID
    person_id: UUID
    kind: str
    version: int
    language: str
    sha256: bytes
    given_at: datetime
    withdrawn_at: datetime | None


class PersonIdentity(Struct, frozen=True):
    """One row: who the law says this is, masked and sealed."""

    person_id: UUID
    mode: Mode
    blind: bytes
    name_masked: str
    number_masked: str
    sealed: bytes
    face_to_face: bool
    given_at: datetime


class RealNameCheck(Struct, frozen=True):
    """One row: what one register said."""

    id: UUID
    person_id: UUID
    source: str
    verdict: str | None
    reference: str | None
    asked_at: datetime
    answered_at: datetime | None


class RealNameRule(Struct, frozen=True):
    """One row: how many registers must agree for a level, from a day on, by which article."""

    level: int
    valid_from: date
    sources_min: int
    instrument: str


class PersonBar(Struct, frozen=True):
    """One row: until when somebody opens nothing and moves nothing, and by which document."""

    id: UUID
    person_id: UUID
    document: str
    confirmed_on: date
    ends_at: datetime
    instrument: str
    set_by: str
    set_at: datetime
    lifted_by: str | None = None
    lifted_at: datetime | None = None
    lifted_because: str | None = None

    def stands(self, now: datetime) -> bool:
        """Tell whether it counts at a moment; nothing has to happen for it to end."""
        return self.lifted_at is None and now < self.ends_at


class RetentionRule(Struct, frozen=True):
    """One row: how many years something is kept after the end, from a day on, by which law."""

    kind: str
    valid_from: date
    years: int
    instrument: str


class Identity(Struct, frozen=True):
    """Who somebody is by law, in the clear."""

    name: str
    resident_id: str

    def __repr__(self) -> str:
        return "Identity(…)"


class Contributed(Struct, frozen=True):
    """What one domain keeps of a person, for their eyes."""

    name: str
    rows: list[dict[str, Any]]


class Kept(Struct, frozen=True):
    """What is not erased, which law keeps it, and until when."""

    what: str
    because: str
    until: date | None


def level_by_sources(
    agreed: int, rules: Iterable[RealNameRule], today: date, *, face_to_face: bool
) -> int:
    """Return the real-name level that so many agreeing registers give, by the rules in force."""
    if agreed == 0 and not face_to_face:
        return 0
    if face_to_face:
        return 3
    newest: dict[int, RealNameRule] = {}
    for rule in rules:
        known = newest.get(rule.level)
        if rule.valid_from <= today and (known is None or known.valid_from < rule.valid_from):
            newest[rule.level] = rule
    return max((rule.level for rule in newest.values() if agreed >= rule.sources_min), default=0)
