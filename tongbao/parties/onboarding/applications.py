"""Make an application, change it, submit it, take it back."""

from __future__ import annotations

from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.crypto import Keyring, bind, hmac_sha256
from tongbao.infra.db import Tx
from tongbao.infra.outbox import Event, publish
from tongbao.infra.web.caller import Caller
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import show
from tongbao.parties.onboarding import _store as store
from tongbao.parties.onboarding.model import (
    PREFIX,
    Account,
    Application,
    ApplicationChanged,
    ApplicationNotFound,
    ApplicationNumberUsed,
    ApplicationState,
    ChannelAsked,
    Contact,
    Document,
    Finding,
    Firm,
    FirmTakenOn,
    Form,
    IdentityFixed,
    LegalPerson,
    Personal,
    Trade,
    check_documents,
    check_in_force,
    check_numbers,
    mask,
)
from tongbao.parties.onboarding.queries import PERSONAL, documents_of, personal_of
from tongbao.parties.price_plans.model import PriceLine, check_lines

BLIND: Final = "application.blind"


class ApplicationMoved(Event, frozen=True, kw_only=True, tag="application.moved"):
    """An application stands somewhere else now. Between our own domains."""

    application_id: UUID
    state: str


class Asked(Struct, frozen=True):
    """What an application says, as its applicant gives it."""

    firm: Firm
    legal_person: LegalPerson
    contact: Contact
    account: Account
    trade: Trade
    channels: list[ChannelAsked]
    prices: list[PriceLine]
    settlement_delay_days: int = 1

    def parts(self) -> tuple[Form, Personal]:
        """Return what may be read, and what must be sealed.

        Raises:
            PriceLinesInvalid
        """
        person, account, contact = self.legal_person, self.account, self.contact
        form = Form(
            firm=self.firm,
            trade=self.trade,
            id_begins=person.id_begins,
            id_ends=person.id_ends,
            account_kind=account.kind,
            bank=account.bank,
            bank_number=account.bank_number,
            bank_area_code=account.area_code,
            channels=sorted(
                {each.channel: each for each in self.channels}.values(), key=lambda e: e.channel
            ),
            prices=check_lines(self.prices),
            settlement_delay_days=self.settlement_delay_days,
        )
        personal = Personal(
            legal_name=person.name,
            id_number=person.id_number,
            address=person.address,
            contact_name=contact.name,
            phone=contact.phone,
            email=contact.email,
            holder=account.holder,
            number=account.number,
        )
        return form, personal


class _Sealed(Struct, frozen=True):
    """The columns that follow from what an application says."""

    form: Form
    masked: object
    personal_sealed: bytes
    blinds: tuple[bytes, bytes, bytes]


async def create_application(
    tx: Tx,
    keyring: Keyring,
    caller: Caller,
    asked: Asked,
    *,
    application_no: str,
    application_id: UUID,
) -> Application:
    """Begin an application; its numbers must be right, its documents come afterwards.

    The same number with the same content returns the application it made.

    Raises:
        CreditCodeInvalid, ResidentIdInvalid, BankNumberInvalid, AccountNumberInvalid,
        PriceLinesInvalid, ApplicationNumberUsed
    """
    form, personal = asked.parts()
    check_numbers(form, personal, business_date(tx.now))
    row = _seal(keyring, application_id, form, personal)
    made = await store.INSERT_APPLICATION.first(
        tx,
        application_id,
        caller.merchant_id,
        caller.mode,
        application_no,
        row.form,
        row.masked,
        row.personal_sealed,
        *row.blinds,
        tx.now,
    )
    if made is not None:
        facts = {"number": application_no, "firm": form.firm.credit_code}
        await audit.record(tx, "application.created", show(PREFIX, made.id), facts)
        return made
    known = await store.FIND_APPLICATION.one(tx, caller.merchant_id, caller.mode, application_no)
    if known.is_erased or known.form != form or personal_of(keyring, known) != personal:
        raise ApplicationNumberUsed(application_no=application_no)
    return known


async def amend_application(
    tx: Tx, keyring: Keyring, application_id: UUID, asked: Asked
) -> Application:
    """Replace what a draft says, or what an opened merchant's channels found wrong.

    Raises:
        ApplicationNotFound, ApplicationNotOpenForThis, IdentityFixed, and what creating raises
    """
    application = await locked(tx, application_id)
    application.check_in(
        ApplicationState.DRAFT, ApplicationState.OPENED, ApplicationState.FORWARDED
    )
    form, personal = asked.parts()
    check_numbers(form, personal, business_date(tx.now))
    row = _seal(keyring, application.id, form, personal)
    blinds = (application.credit_blind, application.person_blind, application.account_blind)
    if application.state.has_merchant and row.blinds != blinds:
        raise IdentityFixed
    amended = await store.AMEND_APPLICATION.one(
        tx, application.id, row.form, row.masked, row.personal_sealed, *row.blinds
    )
    await audit.record(tx, "application.amended", show(PREFIX, application.id), {})
    return amended


async def submittable(tx: Tx, application_id: UUID) -> tuple[Application, list[Finding]]:
    """Lock a draft, check all of it, and return it with what was found.

    Raises:
        ApplicationNotFound, ApplicationNotOpenForThis, LicenceExpired, IdentityExpired,
        DocumentsMissing, FirmTakenOn
    """
    application = await locked(tx, application_id)
    application.check_in(ApplicationState.DRAFT)
    check_in_force(application.form, business_date(tx.now))
    documents = await documents_of(tx, application.id)
    check_documents([each.kind for each in documents])
    alike = await store.ALIKE.one(
        tx,
        application.mode,
        application.id,
        application.credit_blind,
        application.person_blind,
        application.account_blind,
    )
    if alike.firms_under_way:
        raise FirmTakenOn
    return application, _findings(alike, documents)


async def submit_application(tx: Tx, application_id: UUID) -> Application:
    """Hand a draft in to be reviewed.

    Raises:
        what `submittable` raises
    """
    application, findings = await submittable(tx, application_id)
    return await move(
        tx, application, ApplicationState.SUBMITTED, note=None, findings=findings,
        submitted=True,
    )  # fmt: skip


async def withdraw_application(tx: Tx, application_id: UUID) -> Application:
    """Take an application back that nobody has decided about.

    Raises:
        ApplicationNotFound, ApplicationNotOpenForThis
    """
    application = await locked(tx, application_id)
    application.check_in(ApplicationState.DRAFT, ApplicationState.SUBMITTED)
    return await move(tx, application, ApplicationState.WITHDRAWN, note=None)


async def return_application(
    tx: Tx, application_id: UUID, *, version: int, note: str
) -> Application:
    """Give a submitted application back to be corrected; nothing is lost, so one person may.

    Raises:
        ApplicationNotFound, ApplicationNotOpenForThis, ApplicationChanged
    """
    application = await locked_as_seen(tx, application_id, version)
    application.check_in(ApplicationState.SUBMITTED)
    return await move(tx, application, ApplicationState.DRAFT, note=note)


async def locked(tx: Tx, application_id: UUID) -> Application:
    """Lock an application.

    Raises:
        ApplicationNotFound
    """
    found = await store.LOCK_APPLICATION.first(tx, application_id)
    if found is None:
        raise ApplicationNotFound
    return found


async def locked_as_seen(tx: Tx, application_id: UUID, version: int) -> Application:
    """Lock an application that is still the one somebody looked at.

    Raises:
        ApplicationNotFound, ApplicationChanged
    """
    found = await locked(tx, application_id)
    if found.version != version:
        raise ApplicationChanged
    return found


async def move(
    tx: Tx,
    application: Application,
    to: ApplicationState,
    *,
    note: str | None,
    findings: list[Finding] | None = None,
    opened_merchant_id: UUID | None = None,
    key_id: UUID | None = None,
    submitted: bool = False,
) -> Application:
    """Write down where a locked application stands now, and tell whoever listens."""
    ends = to in {
        ApplicationState.OPENED, ApplicationState.DECLINED, ApplicationState.WITHDRAWN,
    }  # fmt: skip
    moved = await store.MOVE_APPLICATION.one(
        tx,
        application.id,
        to,
        note,
        application.findings if findings is None else findings,
        opened_merchant_id or application.opened_merchant_id,
        key_id or application.key_id,
        tx.now if submitted else application.submitted_at,
        tx.now if ends else None,
    )
    shown = show(PREFIX, application.id)
    await audit.record(tx, f"application.{to.value}", shown, {"note": note})
    await publish(
        tx,
        ApplicationMoved(
            merchant_id=application.merchant_id,
            mode=application.mode,
            resource_id=shown,
            application_id=application.id,
            state=to.value,
        ),
    )
    return moved


def _seal(keyring: Keyring, application_id: UUID, form: Form, personal: Personal) -> _Sealed:
    place = bind("application", "personal_sealed", application_id)
    sealed = keyring.seal(PERSONAL, msgspec.json.encode(personal), place)
    key = keyring.mac_key(BLIND)
    blinds = (
        hmac_sha256(key, bind("credit_code", form.firm.credit_code)),
        hmac_sha256(key, bind("resident_id", personal.id_number)),
        hmac_sha256(key, bind("account", personal.number)),
    )
    return _Sealed(form, mask(personal), sealed, blinds)


def _findings(alike: store.Alike, documents: list[Document]) -> list[Finding]:
    """Return what whoever reviews should know; what must be right was refused before."""
    return [
        Finding("numbers", passed=True),
        Finding("in_force", passed=True),
        Finding("documents", passed=True, count=len(documents)),
        Finding("firm_unique", passed=alike.firms == 0, count=alike.firms),
        Finding("person_unique", passed=alike.persons == 0, count=alike.persons),
        Finding("account_unique", passed=alike.accounts == 0, count=alike.accounts),
    ]


async def touch(tx: Tx, application: Application) -> None:
    """Let whoever looked at an application before know that it is another now."""
    await store.TOUCH_APPLICATION.run(tx, application.id)
