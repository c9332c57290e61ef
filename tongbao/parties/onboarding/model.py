"""Applications: what is asked, what is checked, where one may stand. No I/O.

    draft ──submit──► submitted ──two operators──► opened
      ▲ │                │ │
      │ └─withdrawn ◄────┘ └──two operators──► declined
      └──────returned──────┘

An aggregator reviews nobody (银发〔2017〕45号): there a submitted application is `forwarded` to the
channels at once, and they decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Final, Literal
from uuid import UUID

from msgspec import Meta, Struct

from tongbao.kernel.codecs.registry_numbers import (
    is_bank_number,
    is_card_number,
    is_credit_code,
    is_resident_id,
)
from tongbao.kernel.errors import Conflict, Invalid, NotFound, Rejected
from tongbao.kernel.licence import Mode
from tongbao.parties.price_plans.model import PriceLine

PREFIX: Final = "app"
DOCUMENT_BYTES_MAX: Final = 700 * 1024
"""What fits, in base64, into the largest body of JSON that the API takes."""
FILE_BYTES_MAX: Final = 10 * 1024 * 1024
"""What comes as a body of its own."""


class ApplicationNotFound(NotFound):
    """The caller has no such application."""

    code = "application.not_found"
    advice = "Check the id, and that the API key is of the same merchant and mode."
    advice_zh = "请检查进件标识，并确认 API 密钥属于同一商户与模式。"


class ApplicationNumberUsed(Conflict):
    """The application number belongs to another application, for ever."""

    code = "application.number_used"
    advice = "Use a new application_no, or change the application that has it."
    advice_zh = "请更换 application_no，或修改已有的进件申请。"


class ApplicationNotOpenForThis(Conflict):
    """The application stands where this cannot be done to it."""

    code = "application.wrong_state"
    advice = "Look at the application's status; a returned one is a draft again."
    advice_zh = "当前状态不允许此操作，请查看进件状态；被退回的进件可重新修改。"


class ApplicationChanged(Conflict):
    """The application is not the one that was looked at: it has changed since."""

    code = "application.changed"
    advice = "Read it again and decide about what it says now."
    advice_zh = "进件内容已变更，请重新查看后再操作。"


class FirmTakenOn(Conflict):
    """The firm is a merchant here already, or its application is under way."""

    code = "application.firm_taken_on"
    advice = "Use the merchant that exists, or contact us if that is a mistake."
    advice_zh = "该主体已入网或正在进件，请使用已有商户；如有疑问请联系我们。"


class IdentityFixed(Conflict):
    """Once the merchant is opened, firm, legal person and account are not changed by amending."""

    code = "application.identity_fixed"
    advice = "Amend what the channel asked for; for another firm or account apply anew."
    advice_zh = "商户开通后不可通过修改进件变更主体、法人或结算账户，请重新进件。"


class CreditCodeInvalid(Invalid):
    """The unified social credit code has a wrong form or check character (GB 32100)."""

    code = "application.credit_code_invalid"
    advice = "Copy the 18 characters from the business licence, in capitals."
    advice_zh = "统一社会信用代码有误，请按营业执照核对 18 位代码（大写）。"


class ResidentIdInvalid(Invalid):
    """A resident id has a wrong form, date or check character (GB 11643)."""

    code = "application.resident_id_invalid"
    advice = "Copy the 18 characters from the identity card; the last may be X."
    advice_zh = "居民身份证号有误，请按证件核对 18 位号码，末位可为 X。"


class BankNumberInvalid(Invalid):
    """The bank number (CNAPS) has a wrong form or check digit."""

    code = "application.bank_number_invalid"
    advice = "Ask the bank for the 12 digits of the branch that keeps the account."
    advice_zh = "联行号有误，请向开户行核对 12 位支付行号。"


class AccountNumberInvalid(Invalid):
    """A person's account number is a card number, and its check digit is wrong."""

    code = "application.account_number_invalid"
    advice = "Copy the number from the card."
    advice_zh = "结算卡号有误，请按卡面核对。"


class LicenceExpired(Rejected):
    """The business licence is not in force today."""

    code = "application.license_expired"
    advice = "Send the licence that is in force, or have it renewed first."
    advice_zh = "营业执照不在有效期内，请更换有效证照。"


class IdentityExpired(Rejected):
    """The legal person's identity card is not in force today."""

    code = "application.identity_expired"
    advice = "Send the card that is in force, or have it renewed first."
    advice_zh = "法定代表人身份证不在有效期内，请更换有效证件。"


class DocumentsMissing(Rejected):
    """Documents are missing that every application of this kind needs."""

    code = "application.documents_missing"
    advice = "Add the documents named in kinds, then submit."
    advice_zh = "请补充 kinds 所列材料后再提交。"


class DocumentTooLarge(Rejected):
    """A document is larger than is taken, or empty."""

    code = "document.too_large"
    advice = "Send a picture of at most 716800 bytes, or a larger one as a file of its own."
    advice_zh = "单个文件不得超过 716800 字节且不得为空；更大的文件请使用文件上传接口。"


class DocumentNotFound(NotFound):
    """The application has no such document."""

    code = "document.not_found"
    advice = "Read the application; it lists its documents."
    advice_zh = "未找到该材料，请查看进件的材料列表。"


class KeyShown(Conflict):
    """The opened merchant's first key was handed out already; its secret is not shown again."""

    code = "application.key_shown"
    advice = "Replace the key with POST /v1/api_keys/{key_id}/roll, or have an operator make one."
    advice_zh = "首个密钥已领取且不再显示，请轮换密钥或联系运营人员。"


class ApplicationState(StrEnum):
    """Where an application stands."""

    DRAFT = "draft"
    SUBMITTED = "submitted"
    FORWARDED = "forwarded"  # by an aggregator; the channels decide
    OPENED = "opened"
    DECLINED = "declined"
    WITHDRAWN = "withdrawn"

    @property
    def has_merchant(self) -> bool:
        """Whether the merchant exists."""
        return self in {ApplicationState.OPENED, ApplicationState.FORWARDED}


class DocumentKind(StrEnum):
    """What a picture shows."""

    BUSINESS_LICENSE = "business_license"
    LEGAL_ID_FRONT = "legal_id_front"
    LEGAL_ID_BACK = "legal_id_back"
    STORE_FRONT = "store_front"
    STORE_INSIDE = "store_inside"
    BANK_PERMIT = "bank_permit"
    QUALIFICATION = "qualification"


NEEDED: Final = frozenset(
    {
        *(DocumentKind.BUSINESS_LICENSE, DocumentKind.LEGAL_ID_FRONT, DocumentKind.LEGAL_ID_BACK),
        *(DocumentKind.STORE_FRONT, DocumentKind.STORE_INSIDE),
    }
)
"""What no channel does without when a shop applies."""

Name = Annotated[str, Meta(min_length=1, max_length=128)]
Address = Annotated[str, Meta(min_length=1, max_length=256)]
AreaCode = Annotated[str, Meta(pattern=r"^[0-9]{6}(?!\n)$", description="Six digits of GB/T 2260.")]
Phone = Annotated[str, Meta(pattern=r"^[0-9+() -]{5,32}(?!\n)$")]


class Firm(Struct, frozen=True, forbid_unknown_fields=True):
    """Who applies, as the business licence has it. Without ``license_ends`` it is for good."""

    kind: Literal["enterprise", "individual_business"]
    legal_name: Name
    short_name: Annotated[str, Meta(min_length=1, max_length=64)]
    credit_code: Annotated[str, Meta(max_length=32)]
    address: Address
    license_begins: date
    license_ends: date | None = None


class LegalPerson(Struct, frozen=True, forbid_unknown_fields=True):
    """Who answers for the firm, as on their identity card."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    id_number: Annotated[str, Meta(max_length=32)]
    id_begins: date
    id_ends: date | None = None
    address: Annotated[str, Meta(max_length=256)] = ""

    def __repr__(self) -> str:
        return "LegalPerson(…)"


class Contact(Struct, frozen=True, forbid_unknown_fields=True):
    """Who channels write to; the legal person where it is nobody else."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    phone: Phone
    email: Annotated[str, Meta(pattern=r"^[^@\s]{1,64}@[^@\s]{1,128}(?!\n)$")]

    def __repr__(self) -> str:
        return "Contact(…)"


class Account(Struct, frozen=True, forbid_unknown_fields=True):
    """Where settlements are to be paid; ``bank_number`` is the branch's in CNAPS."""

    kind: Literal["corporate", "personal"]
    holder: Name
    number: Annotated[str, Meta(pattern=r"^[0-9]{8,32}(?!\n)$")]
    bank: Name
    bank_number: Annotated[str, Meta(max_length=32)]
    area_code: AreaCode

    def __repr__(self) -> str:
        return "Account(…)"


class Trade(Struct, frozen=True, forbid_unknown_fields=True):
    """What is sold and where."""

    mcc: Annotated[str, Meta(pattern=r"^[0-9]{4}(?!\n)$")]
    service_phone: Phone
    store_name: Name
    area_code: AreaCode
    address: Address


class ChannelAsked(Struct, frozen=True, forbid_unknown_fields=True):
    """A channel to be opened, with what only this channel wants to know."""

    channel: Annotated[str, Meta(min_length=1, max_length=32)]
    terms: Annotated[dict[str, Annotated[str, Meta(max_length=128)]], Meta(max_length=16)] = {}


class Form(Struct, frozen=True):
    """What an application says of the firm and its wishes: nothing of it identifies a person."""

    firm: Firm
    trade: Trade
    id_begins: date
    id_ends: date | None
    account_kind: Literal["corporate", "personal"]
    bank: str
    bank_number: str
    bank_area_code: str
    channels: list[ChannelAsked]
    prices: list[PriceLine]
    settlement_delay_days: int


class Personal(Struct, frozen=True):
    """What an application says of persons and their accounts; stored sealed."""

    legal_name: str
    id_number: str
    address: str
    contact_name: str
    phone: str
    email: str
    holder: str
    number: str

    def __repr__(self) -> str:
        return "Personal(…)"


class Masked(Struct, frozen=True):
    """The same as people may see it."""

    legal_name: str
    id_number: str
    contact_name: str
    phone: str
    email: str
    holder: str
    number: str


class Finding(Struct, frozen=True):
    """One thing that was checked, for whoever reviews. ``count`` says how many others match."""

    check: str
    passed: bool
    count: int = 0


class Application(Struct, frozen=True):
    """One row of the application table; ``merchant_id`` is who applies for the firm."""

    id: UUID
    merchant_id: UUID
    mode: Mode
    application_no: str
    state: ApplicationState
    form: Form
    masked: Masked
    personal_sealed: bytes
    credit_blind: bytes
    person_blind: bytes
    account_blind: bytes
    findings: list[Finding]
    note: str | None
    version: int
    opened_merchant_id: UUID | None
    key_id: UUID | None
    key_shown_at: datetime | None
    created_at: datetime
    submitted_at: datetime | None
    ended_at: datetime | None

    def check_in(self, *states: ApplicationState) -> None:
        """Raise unless the application stands at one of these.

        Raises:
            ApplicationNotOpenForThis
        """
        if self.state not in states:
            raise ApplicationNotOpenForThis(status=self.state.value)

    @property
    def is_erased(self) -> bool:
        """Whether a digest stands where persons were sealed."""
        return len(self.personal_sealed) == sha256().digest_size

    def __repr__(self) -> str:
        return f"Application({self.id}, {self.state})"


class Document(Struct, frozen=True):
    """One row of the document table; its bytes are in the blob store, encrypted."""

    id: UUID
    application_id: UUID
    merchant_id: UUID
    mode: Mode
    kind: DocumentKind
    media_type: str
    size: int
    sha256: bytes
    blob_key: str
    added_at: datetime
    added_by: str
    replaced_at: datetime | None


def check_numbers(form: Form, personal: Personal, today: date) -> None:
    """Raise where a number cannot be right; ``today`` is the business day.

    Raises:
        CreditCodeInvalid, ResidentIdInvalid, BankNumberInvalid, AccountNumberInvalid
    """
    if not is_credit_code(form.firm.credit_code):
        raise CreditCodeInvalid(param="$.firm.credit_code")
    if not is_resident_id(personal.id_number, today=today):
        raise ResidentIdInvalid(param="$.legal_person.id_number")
    if not is_bank_number(form.bank_number):
        raise BankNumberInvalid(param="$.account.bank_number")
    if form.account_kind == "personal" and not is_card_number(personal.number):
        raise AccountNumberInvalid(param="$.account.number")


def check_in_force(form: Form, today: date) -> None:
    """Raise where a licence or card is not in force on this business day, its last included.

    Raises:
        LicenceExpired, IdentityExpired
    """
    if not _covers(form.firm.license_begins, form.firm.license_ends, today):
        raise LicenceExpired(param="$.firm.license_ends")
    if not _covers(form.id_begins, form.id_ends, today):
        raise IdentityExpired(param="$.legal_person.id_ends")


def check_documents(kinds: Sequence[DocumentKind]) -> None:
    """Raise unless every document is there that is always needed.

    Raises:
        DocumentsMissing
    """
    if missing := sorted(NEEDED - set(kinds)):
        raise DocumentsMissing(kinds=", ".join(missing))


def mask(personal: Personal) -> Masked:
    """Return the personal fields as people may see them: first and last signs, never the middle."""
    user, _, domain = personal.email.partition("@")
    return Masked(
        legal_name=mask_name(personal.legal_name),
        id_number=f"{personal.id_number[:1]}{'*' * 16}{personal.id_number[-1:]}",
        contact_name=mask_name(personal.contact_name),
        phone=mask_phone(personal.phone),
        email=f"{user[:1]}***@{domain}",
        holder=personal.holder if len(personal.holder) > 4 else mask_name(personal.holder),
        number=f"•••• {personal.number[-4:]}",
    )


def mask_name(name: str) -> str:
    """Return a name with all but its last sign hidden."""
    return "*" * max(len(name) - 1, 1) + (name[-1:] if len(name) > 1 else "")


def mask_phone(phone: str) -> str:
    """Return a phone number with its middle hidden."""
    digits = "".join(each for each in phone if each.isdigit())
    return f"{digits[:3]}****{digits[-4:]}" if len(digits) >= 9 else "****" + digits[-2:]


def _covers(begins: date, ends: date | None, day: date) -> bool:
    return begins <= day and (ends is None or day <= ends)
