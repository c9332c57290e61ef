"""The wire forms of UK Open Banking 4.0, as far as they are served, and what refusals become.

Names, lengths and enumerations are those of the Read/Write API 4.0 (openbankinguk.github.io,
`OpenBankingUK/read-write-api-specs`). Amounts are decimal text there and minor units with us.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from tongbao.kernel.errors import Conflict, Invalid, NotFound, Refusal
from tongbao.kernel.money import Money

Data = TypeVar("Data")

Text35 = Annotated[str, Meta(min_length=1, max_length=35)]
Text140 = Annotated[str, Meta(min_length=1, max_length=140)]
Text70 = Annotated[str, Meta(min_length=1, max_length=70)]
AmountText = Annotated[str, Meta(pattern=r"^\d{1,13}$|^\d{1,13}\.\d{1,5}$")]
CurrencyCode = Annotated[str, Meta(pattern=r"^[A-Z]{3}$")]
Side = Literal["Credit", "Debit"]

WALLET: Final = "UK.OBIE.Wallet"
"""How accounts here are identified: the scheme of wallets, with our own ids."""


class Problem(Struct, frozen=True, rename="pascal"):
    """One thing that is wrong."""

    error_code: str
    message: Annotated[str, Meta(max_length=500)]
    path: str | UnsetType = UNSET


class Problems(Struct, frozen=True, rename="pascal"):
    """What is answered instead."""

    code: str
    id: str
    message: Annotated[str, Meta(max_length=500)]
    errors: Annotated[list[Problem], Meta(min_length=1)]


class Refused(Exception):
    """A request that has not the shape of the specification, by its own error code."""

    def __init__(self, error_code: str, message: str, path: str = "", *, status: int = 400) -> None:
        super().__init__(error_code)
        self.problem = Problem(error_code, message, path or UNSET)
        self.status = status


class Links(Struct, frozen=True, rename="pascal", omit_defaults=True):
    """Where this is, and where more is."""

    self: str
    next: str | UnsetType = UNSET


class Paging(Struct, frozen=True, rename="pascal"):
    """How many pages there are; of what has no end one page is told at a time."""

    total_pages: int = 1


class Answer(Struct, Generic[Data], frozen=True, rename="pascal"):
    """What every answer looks like."""

    data: Data
    links: Links
    meta: Paging = Paging()


class ConsentAnswer(Struct, Generic[Data], frozen=True, rename="pascal"):
    """An answer about a consent repeats what was said of the risk."""

    data: Data
    risk: dict[str, Any]
    links: Links
    meta: Paging = Paging()


class Amount(Struct, frozen=True, rename="pascal", forbid_unknown_fields=True):
    """Money as decimal text."""

    amount: AmountText
    currency: CurrencyCode

    @classmethod
    def of(cls, amount: int, currency: str) -> Amount:
        """Return an amount without its sign, which is told beside it."""
        return cls(Money(abs(amount), currency).decimal_text(), currency)


class Reason(Struct, frozen=True, rename="pascal"):
    """Why a status is what it is."""

    status_reason_code: Annotated[str, Meta(min_length=1, max_length=4)]
    status_reason_description: str


WAITS: Final = Reason("U036", "Nobody has authorised the consent yet")
CONSUMED: Final = Reason("U038", "The consent was used")


class AskedAccess(Struct, frozen=True, rename="pascal", forbid_unknown_fields=True):
    """What an account information provider asks for."""

    permissions: Annotated[list[str], Meta(min_length=1, max_length=30)]
    expiration_date_time: datetime | None = None
    transaction_from_date_time: datetime | None = None
    transaction_to_date_time: datetime | None = None


class AskAccess(Struct, frozen=True, rename="pascal", forbid_unknown_fields=True):
    """The body that lodges it."""

    data: AskedAccess
    risk: dict[str, Any]


class AccessConsent(Struct, frozen=True, rename="pascal", omit_defaults=True):
    """A consent to see accounts."""

    consent_id: str
    creation_date_time: datetime
    status: Literal["AWAU", "AUTH", "RJCT", "CANC", "EXPD"]
    status_update_date_time: datetime
    permissions: list[str]
    expiration_date_time: datetime
    status_reason: list[Reason] = []


class Identified(Struct, frozen=True, rename="pascal"):
    """An account by its number in a scheme."""

    scheme_name: str
    identification: str
    name: str


class Account(Struct, frozen=True, rename="pascal", omit_defaults=True):
    """One account; its number is told where details may be read."""

    account_id: str
    status: Literal["Enabled", "Disabled"]
    currency: str
    account_category: Literal["Personal"]
    account_type_code: Literal["OTHR", "CACC"]
    description: str
    account: list[Identified] = []


class Accounts(Struct, frozen=True, rename="pascal"):
    """Accounts of a consent."""

    account: list[Account]


class Balance(Struct, frozen=True, rename="pascal"):
    """What is booked, or what can be used, at a moment."""

    account_id: str
    credit_debit_indicator: Side
    type: Literal["ITBD", "ITAV"]
    date_time: datetime
    amount: Amount


class Balances(Struct, frozen=True, rename="pascal"):
    """Balances of one account or of all."""

    balance: list[Balance]


class OwnCode(Struct, frozen=True, rename="pascal"):
    """What kind of movement it is, in our own words."""

    code: str
    issuer: str


class BalanceAfter(Struct, frozen=True, rename="pascal"):
    """What was booked after a movement."""

    credit_debit_indicator: Side
    type: Literal["ITBD"]
    amount: Amount


class Transaction(Struct, frozen=True, rename="pascal"):
    """One booked movement."""

    account_id: str
    transaction_id: str
    credit_debit_indicator: Side
    status: Literal["BOOK"]
    booking_date_time: datetime
    amount: Amount
    proprietary_bank_transaction_code: OwnCode
    balance: BalanceAfter


class Transactions(Struct, frozen=True, rename="pascal"):
    """Movements of an account, the newest first."""

    transaction: list[Transaction]


class Creditor(Struct, frozen=True, rename="pascal", forbid_unknown_fields=True):
    """Who is paid: a wallet of this firm."""

    scheme_name: str
    identification: Annotated[str, Meta(min_length=1, max_length=256)]
    name: Text70


class Remittance(Struct, frozen=True, rename="pascal", forbid_unknown_fields=True):
    """What the payee can know the payment by."""

    unstructured: Annotated[list[Text140], Meta(max_length=1)] | UnsetType = UNSET


class Initiation(Struct, frozen=True, rename="pascal", forbid_unknown_fields=True):
    """The payment that somebody is to consent to; members that mean more are refused."""

    instruction_identification: Text35
    end_to_end_identification: Text35
    instructed_amount: Amount
    creditor_account: Creditor
    remittance_information: Remittance | UnsetType = UNSET


class AskedPayment(Struct, frozen=True, rename="pascal", forbid_unknown_fields=True):
    """What a payment initiation provider asks for."""

    initiation: Initiation


class AskPayment(Struct, frozen=True, rename="pascal", forbid_unknown_fields=True):
    """The body that lodges it."""

    data: AskedPayment
    risk: dict[str, Any]


class PaymentConsent(Struct, frozen=True, rename="pascal", omit_defaults=True):
    """A consent to one payment."""

    consent_id: str
    creation_date_time: datetime
    status: Literal["AWAU", "AUTH", "RJCT", "COND"]
    status_update_date_time: datetime
    initiation: dict[str, Any]
    status_reason: list[Reason] = []


class OrderedPayment(Struct, frozen=True, rename="pascal", forbid_unknown_fields=True):
    """The payment of a consent, which it must repeat."""

    consent_id: Annotated[str, Meta(min_length=1, max_length=128)]
    initiation: Initiation


class OrderPayment(Struct, frozen=True, rename="pascal", forbid_unknown_fields=True):
    """The body that pays."""

    data: OrderedPayment
    risk: dict[str, Any]


class Payment(Struct, frozen=True, rename="pascal"):
    """A payment; here it is done, and the payee has it, when it is answered."""

    domestic_payment_id: str
    consent_id: str
    creation_date_time: datetime
    status: Literal["ACCC"]
    status_update_date_time: datetime
    initiation: dict[str, Any]


class Funds(Struct, frozen=True, rename="pascal"):
    """Whether there is enough at a moment."""

    funds_available: bool
    funds_available_date_time: datetime


class FundsResult(Struct, frozen=True, rename="pascal"):
    """The answer to a question about funds."""

    funds_available_result: Funds


Asked = TypeVar("Asked")
_BODY_MAX: Final = 32 * 1024
_PLACE: Final = "$."


def read(body: bytes, kind: type[Asked]) -> Asked:
    """Return a body of this shape, which can be kept as it was said.

    Raises:
        Refused
    """
    if len(body) > _BODY_MAX or b"\\u0000" in body:  # no database keeps U+0000 in a text
        said = f"The body has over {_BODY_MAX} bytes, or the character U+0000 in it"
        raise Refused("UK.OBIE.Resource.InvalidFormat", said)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `")
        code = "UK.OBIE.Field.Missing" if "missing required" in what else "UK.OBIE.Field.Invalid"
        if "unknown field" in what:
            code = "UK.OBIE.Field.Unexpected"
        raise Refused(code, what[:500], place.rstrip("`").removeprefix(_PLACE)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused("UK.OBIE.Resource.InvalidFormat", "The body is not JSON") from None


def refusal_code(refusal: Refusal) -> tuple[int, str]:
    """Return the status and the error code of one of our own refusals."""
    kinds: Sequence[tuple[type[Refusal], tuple[int, str]]] = (
        (NotFound, (400, "UK.OBIE.Resource.NotFound")),  # an id is no address: 400 and not 404
        (Invalid, (400, "UK.OBIE.Field.Invalid")),
        (Conflict, (400, "UK.OBIE.Resource.InvalidConsentStatus")),
    )
    for kind, found in kinds:
        if isinstance(refusal, kind):
            return found
    return 400, "UK.OBIE.Rules.FailsControlParameters"


def told(kind: Struct) -> Mapping[str, Any]:
    """Return a part of a body as it was said, for its consent to keep."""
    found: Mapping[str, Any] = msgspec.to_builtins(kind)
    return found
