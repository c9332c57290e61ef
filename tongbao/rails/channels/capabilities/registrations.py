"""Taking a merchant on at the channel (进件)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Literal, Protocol, runtime_checkable

from msgspec import Struct

from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Absent, Answer, Declined, NotSent, Unknown


class Picture(Struct, frozen=True):
    """One document of an application, as it is to be sent."""

    kind: str  # our word: business_license, legal_id_front, legal_id_back, store_front …
    media_type: str
    content: bytes

    def __repr__(self) -> str:
        return f"Picture({self.kind})"


class RegistrationOrder(Struct, frozen=True, kw_only=True):
    """A firm to be taken on below ours. ``number`` is our idempotency key there.

    A date that is None is for good. ``terms`` are what only this channel wants to know.
    """

    number: str
    channel_ref: str | None
    firm_kind: Literal["enterprise", "individual_business"]
    legal_name: str
    short_name: str
    credit_code: str
    firm_address: str
    license_begins: date
    license_ends: date | None
    legal_person: str
    id_number: str
    id_begins: date
    id_ends: date | None
    id_address: str
    contact: str
    phone: str
    email: str
    account_kind: Literal["corporate", "personal"]
    holder: str
    account_number: str
    bank: str
    bank_number: str
    bank_area_code: str
    mcc: str
    service_phone: str
    store_name: str
    area_code: str
    store_address: str
    signed_at: datetime
    terms: Mapping[str, str]
    pictures: Mapping[str, Picture]

    def __repr__(self) -> str:  # persons
        return f"RegistrationOrder({self.number})"


class Registered(Struct, frozen=True, tag="registered"):
    """Taken on: ``sub_merchant`` is the channel's number of the merchant."""

    sub_merchant: str
    channel_ref: str


class RegistrationUnderWay(Struct, frozen=True, tag="registration_under_way"):
    """With the channel, or with the merchant, who is to go to ``action_url``."""

    stage: Literal["auditing", "verifying", "signing", "opening"]
    channel_ref: str
    action_url: str | None = None


class RejectedField(Struct, frozen=True):
    """One thing the channel wants corrected, in its words."""

    field: str
    reason: str


class RegistrationRejected(Struct, frozen=True, tag="registration_rejected"):
    """To be corrected and sent again under the same number."""

    reasons: Sequence[RejectedField]
    channel_ref: str


class RegistrationCanceled(Struct, frozen=True, tag="registration_canceled"):
    """Ended without a merchant; nothing can be sent under this number again."""

    channel_ref: str


RegistrationOutcome = (
    Registered | RegistrationUnderWay | RegistrationRejected | RegistrationCanceled
    | Declined | Absent | NotSent | Unknown
)  # fmt: skip


@runtime_checkable
class Registering(Protocol):
    """Takes merchants on below an account of ours, and says what became of it."""

    async def register(
        self, account: ChannelAccount, order: RegistrationOrder
    ) -> Answer[RegistrationOutcome]:
        """Send the application; one that was rejected is replaced under its number."""

    async def query_registration(
        self, account: ChannelAccount, order: RegistrationOrder
    ) -> Answer[RegistrationOutcome]:
        """Ask what became of it."""

    def sub_account(
        self, account: ChannelAccount, sub_merchant: str
    ) -> tuple[str, Mapping[str, object]] | None:
        """Return app id and keys of an account of the sub-merchant's, None where it needs none."""
