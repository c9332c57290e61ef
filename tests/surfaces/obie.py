"""What the Read/Write API 4.0 of UK Open Banking says answers look like, and whether one does.

Written from the public specification (openbankinguk.github.io/read-write-api-site3, resources and
profiles of account access consents, accounts, balances, transactions, domestic payments), as far as
these routes are served. A name with a question mark may be missing; what is not named may not be
there; ``Text`` has its least and most characters, ``Many`` how many of its kind there may be.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from msgspec import Struct


class Text(Struct, frozen=True):
    """A text of so many characters, and of this form."""

    most: int
    least: int = 1
    form: str = ".*"


class Many(Struct, frozen=True):
    """A list of so many things of one kind."""

    of: Any
    least: int = 0
    most: int = 10_000


class OneOf(Struct, frozen=True):
    """One word of a list that is closed."""

    words: frozenset[str]


def one_of(words: str) -> OneOf:
    return OneOf(frozenset(words.split()))


MOMENT, FLAG, COUNT, ANYTHING = datetime, bool, int, dict
URI = Text(2048, form=r"https?://[^\s]+")
CURRENCY = Text(3, 3, "[A-Z]{3}")
SIDE = one_of("Credit Debit")
AMOUNT = {"Amount": Text(19, form=r"\d{1,13}$|^\d{1,13}\.\d{1,5}"), "Currency": CURRENCY}
LINKS = {"Self": URI, "First?": URI, "Prev?": URI, "Next?": URI, "Last?": URI}
META = {"TotalPages?": COUNT, "FirstAvailableDateTime?": MOMENT, "LastAvailableDateTime?": MOMENT}
REASONS = Many(
    {"StatusReasonCode?": Text(4), "StatusReasonDescription?": Text(500), "Path?": Text(500)}
)
PERMISSIONS = one_of(
    "ReadAccountsBasic ReadAccountsDetail ReadBalances ReadBeneficiariesBasic"
    " ReadBeneficiariesDetail ReadDirectDebits ReadOffers ReadPAN ReadParty ReadPartyPSU"
    " ReadProducts ReadScheduledPaymentsBasic ReadScheduledPaymentsDetail ReadStandingOrdersBasic"
    " ReadStandingOrdersDetail ReadStatementsBasic ReadStatementsDetail ReadTransactionsBasic"
    " ReadTransactionsCredits ReadTransactionsDebits ReadTransactionsDetail"
)
SCHEME = Text(40)
NUMBERED = {
    "SchemeName": SCHEME,
    "Identification": Text(256),
    "Name?": Text(350),
    "SecondaryIdentification?": Text(34),
}
INITIATION = {
    "InstructionIdentification": Text(35),
    "EndToEndIdentification": Text(35),
    "LocalInstrument?": Text(50),
    "InstructedAmount": AMOUNT,
    "DebtorAccount?": NUMBERED,
    "CreditorAccount": {**NUMBERED, "Name": Text(350)},
    "RemittanceInformation?": {"Unstructured?": Many(Text(140), 1), "Structured?": Many(ANYTHING)},
    "SupplementaryData?": ANYTHING,
}


def answer(data: dict[str, Any], *, risk: bool = False) -> dict[str, Any]:
    risks = {"Risk": ANYTHING} if risk else {}
    return {"Data": data, **risks, "Links": LINKS, "Meta": META}


ACCESS_CONSENT = answer(
    {
        "ConsentId": Text(128),
        "CreationDateTime": MOMENT,
        "Status": one_of("AWAU RJCT AUTH CANC EXPD"),
        "StatusReason?": REASONS,
        "StatusUpdateDateTime": MOMENT,
        "Permissions": Many(PERMISSIONS, 1),
        "ExpirationDateTime?": MOMENT,
        "TransactionFromDateTime?": MOMENT,
        "TransactionToDateTime?": MOMENT,
    },
    risk=True,
)
ACCOUNTS = answer(
    {
        "Account": Many(
            {
                "AccountId": Text(40),
                "Status?": one_of("Deleted Disabled Enabled Pending ProForma"),
                "StatusUpdateDateTime?": MOMENT,
                "Currency": CURRENCY,
                "AccountCategory?": one_of("Business Personal"),
                "AccountTypeCode?": Text(4),
                "Description?": Text(35),
                "Nickname?": Text(70),
                "OpeningDate?": MOMENT,
                "Account?": Many(NUMBERED, 1),
            }
        )
    }
)
BALANCES = answer(
    {
        "Balance": Many(
            {
                "AccountId": Text(40),
                "CreditDebitIndicator": SIDE,
                "Type": one_of("CLAV CLBD FWAV INFO ITAV ITBD OPAV OPBD PRCD XPCD"),
                "DateTime": MOMENT,
                "Amount": AMOUNT,
                "CreditLine?": Many(ANYTHING),
            },
            1,
        )
    }
)
TRANSACTIONS = answer(
    {
        "Transaction?": Many(
            {
                "AccountId": Text(40),
                "TransactionId?": Text(210),
                "TransactionReference?": Text(210),
                "CreditDebitIndicator": SIDE,
                "Status": one_of("BOOK FUTR INFO PDNG RJCT"),
                "BookingDateTime": MOMENT,
                "ValueDateTime?": MOMENT,
                "TransactionInformation?": Text(500),
                "Amount": AMOUNT,
                "ProprietaryBankTransactionCode?": {"Code": Text(35), "Issuer?": Text(35)},
                "Balance?": {
                    "CreditDebitIndicator": SIDE,
                    "Type": one_of("CLAV CLBD FWAV INFO ITAV ITBD OPAV OPBD PRCD XPCD"),
                    "Amount": AMOUNT,
                },
            }
        )
    }
)
PAYMENT_CONSENT = answer(
    {
        "ConsentId": Text(128),
        "CreationDateTime": MOMENT,
        "Status": one_of("AWAU RJCT AUTH COND"),
        "StatusReason?": REASONS,
        "StatusUpdateDateTime": MOMENT,
        "ReadRefundAccount?": one_of("No Yes"),
        "Initiation": INITIATION,
    },
    risk=True,
)
FUNDS = answer(
    {"FundsAvailableResult?": {"FundsAvailableDateTime": MOMENT, "FundsAvailable": FLAG}}
)
PAYMENT = answer(
    {
        "DomesticPaymentId": Text(40),
        "ConsentId": Text(128),
        "CreationDateTime": MOMENT,
        "Status": one_of("RCVD PDNG ACTC PATC ACCP ACFC ACSP ACWC ACSC ACWP ACCC BLCK RJCT PART"),
        "StatusUpdateDateTime": MOMENT,
        "StatusReason?": REASONS,
        "Initiation": INITIATION,
    }
)
ERROR = {
    "Code?": Text(40),
    "Id?": Text(40),
    "Message?": Text(500),
    "Errors": Many(
        {"ErrorCode": Text(128), "Message?": Text(500), "Path?": Text(500), "Url?": URI}, 1
    ),
}
_AISP, _PISP = "/open-banking/v4.0/aisp", "/open-banking/v4.0/pisp"
ANSWERS: dict[tuple[str, str], dict[str, Any] | None] = {
    ("POST", f"{_AISP}/account-access-consents"): ACCESS_CONSENT,
    ("GET", f"{_AISP}/account-access-consents/{{ConsentId}}"): ACCESS_CONSENT,
    ("DELETE", f"{_AISP}/account-access-consents/{{ConsentId}}"): None,
    ("GET", f"{_AISP}/accounts"): ACCOUNTS,
    ("GET", f"{_AISP}/accounts/{{AccountId}}"): ACCOUNTS,
    ("GET", f"{_AISP}/balances"): BALANCES,
    ("GET", f"{_AISP}/accounts/{{AccountId}}/balances"): BALANCES,
    ("GET", f"{_AISP}/accounts/{{AccountId}}/transactions"): TRANSACTIONS,
    ("POST", f"{_PISP}/domestic-payment-consents"): PAYMENT_CONSENT,
    ("GET", f"{_PISP}/domestic-payment-consents/{{ConsentId}}"): PAYMENT_CONSENT,
    ("GET", f"{_PISP}/domestic-payment-consents/{{ConsentId}}/funds-confirmation"): FUNDS,
    ("POST", f"{_PISP}/domestic-payments"): PAYMENT,
    ("GET", f"{_PISP}/domestic-payments/{{DomesticPaymentId}}"): PAYMENT,
}
"""What each route answers where it does what was asked; None is an answer without a body."""


def faults(value: Any, shape: Any, at: str = "$") -> list[str]:
    """Say where a value is not of a shape."""
    match shape:
        case dict():
            return _faults_of_object(value, shape, at)
        case Many(of=of, least=least, most=most):
            if not isinstance(value, list) or not least <= len(value) <= most:
                return [f"{at} is no list of {least} to {most}"]
            return [each for n, one in enumerate(value) for each in faults(one, of, f"{at}[{n}]")]
        case OneOf(words=words):
            return [] if value in words else [f"{at} is {value!r}, none of {sorted(words)}"]
        case Text(most=most, least=least, form=form):
            fits = isinstance(value, str) and least <= len(value) <= most
            return [] if fits and re.fullmatch(form, value) else [f"{at} is {value!r}"]
    if shape is MOMENT:
        return [] if _is_moment(value) else [f"{at} is no ISO 8601 time with its zone: {value!r}"]
    return [] if type(value) is shape else [f"{at} is no {shape.__name__}"]


def _faults_of_object(value: Any, shape: dict[str, Any], at: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{at} is no object"]
    known = {name.rstrip("?"): (kind, name.endswith("?")) for name, kind in shape.items()}
    missing = [name for name, (_, may_miss) in known.items() if not may_miss and name not in value]
    found = [f"{at}.{name} is missing" for name in missing]
    for name, one in value.items():
        if name not in known:
            found.append(f"{at}.{name} is not in the specification")
        else:
            found += faults(one, known[name][0], f"{at}.{name}")
    return found


def _is_moment(value: Any) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except (TypeError, ValueError):
        return False


def route_of(method: str, path: str) -> tuple[str, str]:
    """Return which of the routes an address is of."""
    for verb, template in ANSWERS:
        if verb == method and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
            return verb, template
    raise AssertionError(f"{method} {path} is no route of the specification")
