"""Apply for merchants, and look after a merchant's stores, people and commissions."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, cast

from tongbao_sdk.replies import (
    Application,
    Commission,
    CommissionLine,
    Document,
    FirstKey,
    MerchantTerms,
    Place,
    Registration,
    Registrations,
    Signature,
    Staff,
    StaffAct,
    StaffPinCode,
    Store,
    TermsInForce,
)
from tongbao_sdk.transport import Transport, path_of

ApplicationStatus = Literal["draft", "submitted", "forwarded", "opened", "declined", "withdrawn"]
RegistrationStatus = Literal[
    "waiting",
    "asked",
    "auditing",
    "verifying",
    "signing",
    "opening",
    "finished",
    "rejected",
    "canceled",
    "manual",
]
DocumentKind = Literal[
    "business_license",
    "legal_id_front",
    "legal_id_back",
    "store_front",
    "store_inside",
    "bank_permit",
    "qualification",
]
MediaType = Literal["image/jpeg", "image/png", "application/pdf"]
StaffRole = Literal["owner", "manager", "cashier", "accountant"]


TillAct = Literal[
    "payments.look",
    "payments.take",
    "payments.call_off",
    "payments.capture",
    "payments.void",
    "refunds.look",
    "refunds.make",
]


class Applications:
    """Apply for merchants."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self, application_no: str, said: Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> Application:
        """Begin an application; ``said`` has firm, legal_person, contact, account, and so on.

        Raises:
            Refused, Unanswered
        """
        body = {**said, "application_no": application_no}
        made = self._transport.post(path_of("applications"), body, idempotency_key=idempotency_key)
        return cast("Application", made)

    def list(
        self, *, status: ApplicationStatus | None = None, limit: int = 100
    ) -> Iterator[Application]:
        """Yield the applications made with this key's merchant, newest first."""
        return self._transport.pages(path_of("applications"), status=status, limit=limit)

    def get(self, application_id: str) -> Application:
        """Return one application."""
        found = self._transport.get(path_of("applications", application_id))
        return cast("Application", found)

    def amend(self, application_id: str, said: Mapping[str, Any]) -> Application:
        """Replace what an application says."""
        return cast("Application", self._post(application_id, "amend", said))

    def add_document(self, application_id: str, kind: DocumentKind, content: bytes) -> Document:
        """Add a JPEG or PNG picture, in the place of an earlier one of its kind."""
        body = {"kind": kind, "content": b64encode(content).decode()}
        return cast("Document", self._post(application_id, "documents", body))

    def add_file(
        self, application_id: str, kind: DocumentKind, content: bytes, media_type: MediaType
    ) -> Document:
        """Add a document of at most 10 MiB; a PDF only as a bank permit or qualification."""
        path = path_of("applications", application_id, "files")
        return cast("Document", self._transport.upload(path, content, media_type, kind=kind))

    def terms(self) -> MerchantTerms | None:
        """Return the terms in force; None: nothing is to be signed."""
        found = cast("TermsInForce", self._transport.get(path_of("merchant_terms")))
        return found["items"][0] if found["items"] else None

    def sign(
        self,
        application_id: str,
        *,
        version: int,
        sha256: str,
        signer: str,
        method: Literal["click", "sms_code", "face", "paper"],
        reference: str = "",
        address: str = "",
    ) -> Signature:
        """Agree to the terms in force, named by version and hash."""
        body = {
            "version": version,
            "sha256": sha256,
            "signer": signer,
            "method": method,
            "reference": reference,
            "address": address,
        }
        return cast("Signature", self._post(application_id, "signatures", body))

    def submit(self, application_id: str) -> Application:
        """Hand an application in; safe to repeat."""
        return cast("Application", self._post(application_id, "submit"))

    def withdraw(self, application_id: str) -> Application:
        """Take an application back; safe to repeat."""
        return cast("Application", self._post(application_id, "withdraw"))

    def first_key(self, application_id: str) -> FirstKey:
        """Return the opened merchant's first key with its secret, which comes this once."""
        return cast("FirstKey", self._post(application_id, "first_key"))

    def registrations(self, application_id: str) -> Sequence[Registration]:
        """Return how the application stands at each of its channels."""
        found = self._transport.get(path_of("applications", application_id, "registrations"))
        return cast("Registrations", found)["items"]

    def registration(self, registration_id: str) -> Registration:
        """Return how an application stands at one channel."""
        found = self._transport.get(path_of("registrations", registration_id))
        return cast("Registration", found)

    def send_again(self, registration_id: str) -> Registration:
        """Send what a channel rejected again, corrected before."""
        sent = self._transport.post(path_of("registrations", registration_id, "send_again"))
        return cast("Registration", sent)

    def _post(
        self, application_id: str, what: str, body: Mapping[str, Any] | None = None
    ) -> object:
        return self._transport.post(path_of("applications", application_id, what), body)


class Stores:
    """Look after a merchant's stores."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def open(
        self, store_no: str, *, name: str, place: Place, idempotency_key: str | None = None
    ) -> Store:
        """Open a store."""
        body = {"store_no": store_no, "name": name, "place": place}
        made = self._transport.post(path_of("stores"), body, idempotency_key=idempotency_key)
        return cast("Store", made)

    def list(self, *, limit: int = 100) -> Iterator[Store]:
        """Yield the stores, newest first."""
        return self._transport.pages(path_of("stores"), limit=limit)

    def get(self, store_id: str) -> Store:
        """Return one store."""
        return cast("Store", self._transport.get(path_of("stores", store_id)))

    def change(
        self, store_id: str, *, name: str, place: Place, status: Literal["open", "closed"] = "open"
    ) -> Store:
        """Say what a store is from now on."""
        body = {"name": name, "place": place, "status": status}
        return cast("Store", self._transport.post(path_of("stores", store_id), body))


class People:
    """Look after who works for a merchant."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def add(
        self,
        *,
        name: str,
        phone: str,
        role: StaffRole,
        every_store: bool = False,
        store_ids: Sequence[str] = (),
        idempotency_key: str | None = None,
    ) -> Staff:
        """Add a person."""
        body = {
            "name": name,
            "phone": phone,
            "role": role,
            "every_store": every_store,
            "store_ids": [*store_ids],
        }
        made = self._transport.post(path_of("staff"), body, idempotency_key=idempotency_key)
        return cast("Staff", made)

    def list(self, *, limit: int = 100) -> Iterator[Staff]:
        """Yield the merchant's people, newest first."""
        return self._transport.pages(path_of("staff"), limit=limit)

    def get(self, staff_id: str) -> Staff:
        """Return one person."""
        return cast("Staff", self._transport.get(path_of("staff", staff_id)))

    def change(
        self,
        staff_id: str,
        *,
        role: StaffRole,
        every_store: bool = False,
        store_ids: Sequence[str] = (),
    ) -> Staff:
        """Say what a person is there for, and where."""
        body = {"role": role, "every_store": every_store, "store_ids": [*store_ids]}
        return cast("Staff", self._transport.post(path_of("staff", staff_id), body))

    def leave(self, staff_id: str) -> Staff:
        """Let a person leave; safe to repeat."""
        return cast("Staff", self._transport.post(path_of("staff", staff_id, "leave")))

    def suspend(self, staff_id: str) -> Staff:
        """Let a person do nothing for a while: they are out of every till; safe to repeat."""
        return cast("Staff", self._transport.post(path_of("staff", staff_id, "suspend")))

    def resume(self, staff_id: str) -> Staff:
        """Let a person work again; safe to repeat."""
        return cast("Staff", self._transport.post(path_of("staff", staff_id, "resume")))

    def pin_code(self, staff_id: str) -> StaffPinCode:
        """Make the code with which a person chooses a PIN at a terminal; good once, for a day."""
        made = self._transport.post(path_of("staff", staff_id, "pin_codes"))
        return cast("StaffPinCode", made)

    def acts(self, staff_id: str, *, limit: int = 100) -> Iterator[StaffAct]:
        """Yield what a person did at tills, newest first."""
        return self._transport.pages(path_of("staff", staff_id, "acts"), limit=limit)


class Commissions:
    """See what the merchant earned as an agent."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, *, limit: int = 100) -> Iterator[Commission]:
        """Yield commissions, newest first."""
        return self._transport.pages(path_of("commissions"), limit=limit)

    def lines(self, commission_id: str) -> Iterator[CommissionLine]:
        """Yield the fees a commission comes from."""
        return self._transport.pages(path_of("commissions", commission_id, "lines"))
