"""Routes about oneself: account, phones, addresses, password, consents, real name, one's data."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Literal

from litestar import get, post, put
from msgspec import Struct

from tongbao.infra.serving.device_api import SELF, DeviceCaller
from tongbao.infra.tasks import enqueue
from tongbao.infra.web.caller import needs
from tongbao.kernel.ids import parse, show
from tongbao.parties.authentication.message_codes import use_code
from tongbao.parties.authentication.model import (
    CodesTooMany,
    CodeWrong,
    ConfirmationUsed,
    PasswordRefused,
    StepUpRequired,
)
from tongbao.parties.authentication.passwords import choose_password, keep_password
from tongbao.parties.notices.model import Notice, PushToken, TellPerson, Topic
from tongbao.parties.notices.phones import choose, forget_token, tokens_of, wants
from tongbao.parties.notices.telling import tell
from tongbao.parties.people import consents, dossier, entering, real_names, sessions
from tongbao.parties.people.consents import Agreed
from tongbao.parties.people.contacts import (
    add_contact,
    contacts_of,
    keyring_of,
    reach_of,
    read_contact,
)
from tongbao.parties.people.model import (
    DEVICE_PREFIX,
    ConsentRequired,
    ConsentTextNotFound,
    ContactMalformed,
    DeviceNotFound,
    ErasureBlocked,
    Identity,
    IdentityGiven,
    IdentityMalformed,
    RealNameNotConfirmed,
    SourceNotFound,
)
from tongbao.parties.people.sessions import current_person
from tongbao.surfaces.wallet.desk import (
    PREFIX,
    CodeField,
    CodeView,
    ContactField,
    Desk,
    DeviceView,
    Done,
    NameField,
    PasswordField,
    step_up,
    take,
    view_code,
    view_device,
)

_STEP_UP: tuple[Any, ...] = (StepUpRequired, ConfirmationUsed)


class ContactView(Struct, frozen=True, kw_only=True):
    """An address, masked."""

    kind: Literal["phone", "mail"]
    masked: str


class IdentityView(Struct, frozen=True, kw_only=True):
    """Who the law says this is, masked."""

    name: str
    resident_id: str


class PersonView(Struct, frozen=True, kw_only=True):
    """One's own account."""

    id: str
    object: Literal["person"]
    status: str
    real_name_level: int
    contacts: list[ContactView]
    identity: IdentityView | None
    registers: list[str]  # that can be asked about the real name
    created_at: datetime


class AskContactCode(Struct, frozen=True, forbid_unknown_fields=True):
    """Have a code sent to a further address of one's own."""

    contact: ContactField


class AddContact(Struct, frozen=True, forbid_unknown_fields=True):
    """Add an address that a code has proved."""

    contact: ContactField
    code_id: CodeField
    code: CodeField


class NewPassword(Struct, frozen=True, forbid_unknown_fields=True):
    """Choose another password."""

    password: PasswordField


class ConsentKind(Struct, frozen=True, forbid_unknown_fields=True):
    """Withdraw from a kind of text."""

    kind: CodeField


class ConsentView(Struct, frozen=True, kw_only=True):
    """What was agreed to, and until when."""

    kind: str
    version: int
    language: str
    given_at: datetime
    withdrawn_at: datetime | None


class GiveIdentity(Struct, frozen=True, forbid_unknown_fields=True):
    """Say who one is, as it stands on the resident's card."""

    name: NameField
    resident_id: CodeField


class AskRegister(Struct, frozen=True, forbid_unknown_fields=True):
    """Have one register asked."""

    source: CodeField


class CheckView(Struct, frozen=True, kw_only=True):
    """What a register said, and the level it came to."""

    source: str
    verdict: str | None
    real_name_level: int


class ExportView(Struct, frozen=True):
    """Everything that is kept of a person, by the domain that keeps it."""

    domains: dict[str, list[dict[str, Any]]]


class KeptView(Struct, frozen=True):
    """What is not erased, which law keeps it, and until when."""

    what: str
    because: str
    until: date | None


class SetPushToken(Struct, frozen=True, forbid_unknown_fields=True):
    """Where this phone is reached by push."""

    token: PushToken


class NoticesView(Struct, frozen=True, kw_only=True):
    """How one hears of one's account; of its safety everybody hears."""

    object: Literal["notices"]
    money: bool
    push_devices: list[str]


class ChooseNotices(Struct, frozen=True, forbid_unknown_fields=True):
    """Whether one wants to hear of money that came in or went out."""

    money: bool


class ErasedView(Struct, frozen=True):
    """What became of the account."""

    erased: bool
    kept: list[KeptView]


@get(PREFIX, opt=needs(SELF))
async def get_myself(desk: Desk, caller: DeviceCaller) -> PersonView:
    """Return one's own account, masked."""
    person = await current_person(desk.db, caller)
    identity = await real_names.identity_row(desk.db, person.id)
    return PersonView(
        id=person.actor,
        object="person",
        status=person.state,
        real_name_level=person.real_name_level,
        contacts=[
            ContactView(kind=row.kind, masked=row.masked)
            for row in await contacts_of(desk.db, person.id)
        ],
        identity=IdentityView(name=identity.name_masked, resident_id=identity.number_masked)
        if identity
        else None,
        registers=sorted(desk.registers[person.mode]),
        created_at=person.created_at,
    )


@post(f"{PREFIX}/log_out", status_code=200, opt=needs(SELF))
async def log_out(desk: Desk, caller: DeviceCaller) -> Done:
    """End this session."""
    await sessions.end_session(desk.db, caller)
    return Done()


@get(f"{PREFIX}/devices", opt=needs(SELF))
async def list_devices(desk: Desk, caller: DeviceCaller) -> list[DeviceView]:
    """Return one's phones."""
    found = await sessions.devices_of(desk.db, caller.current.person_id)
    return [view_device(each, caller.current.device_id) for each in found]


@post(
    f"{PREFIX}/devices/{{device_id:str}}/remove",
    status_code=200,
    opt=needs(SELF, refuses=[DeviceNotFound, *_STEP_UP]),
)
async def remove_device(device_id: str, desk: Desk, caller: DeviceCaller) -> Done:
    """Unbind a phone; what is open there ends."""
    wanted = parse(DEVICE_PREFIX, device_id)
    mine = await sessions.devices_of(desk.db, caller.current.person_id)
    if wanted not in {each.id for each in mine}:
        raise DeviceNotFound
    confirmed = await step_up(desk, caller, "security", f"device.remove {device_id}")
    async with desk.db.begin(caller.actor) as tx:
        await take(tx, caller, confirmed)
        await sessions.remove_device(tx, caller.current.person_id, wanted)
        here = caller.current
        await enqueue(tx, TellPerson(here.person_id, Notice.DEVICE_REMOVED, spared=here.device_id))
    return Done()


@put(f"{PREFIX}/push_token", opt=needs(SELF))
async def set_push_token(data: SetPushToken, desk: Desk, caller: DeviceCaller) -> Done:
    """Have this phone told by push what happens to one's account, by the token it has now.

    It goes with the phone when that is removed. Nobody else is told there any more.
    """
    person = await current_person(desk.db, caller)
    async with desk.db.begin(caller.actor) as tx:
        await sessions.set_push_token(tx, desk.checks.keyring, caller, person, data.token)
    return Done()


@post(f"{PREFIX}/push_token/remove", status_code=200, opt=needs(SELF))
async def remove_push_token(desk: Desk, caller: DeviceCaller) -> Done:
    """Have this phone told nothing by push any more; notices come by SMS. Safe to repeat."""
    async with desk.db.begin(caller.actor) as tx:
        await forget_token(tx, caller.current.device_id)
    return Done()


@get(f"{PREFIX}/notices", opt=needs(SELF))
async def get_notices(desk: Desk, caller: DeviceCaller) -> NoticesView:
    """Return what one wants to hear of, and which phones are told by push."""
    person_id = caller.current.person_id
    return NoticesView(
        object="notices",
        money=await wants(desk.db, person_id, Topic.MONEY),
        push_devices=[
            show(DEVICE_PREFIX, row.device_id) for row in await tokens_of(desk.db, person_id)
        ],
    )


@put(f"{PREFIX}/notices", opt=needs(SELF))
async def choose_notices(data: ChooseNotices, desk: Desk, caller: DeviceCaller) -> NoticesView:
    """Choose whether to hear of one's money; of the account's safety one always hears."""
    async with desk.db.begin(caller.actor) as tx:
        await choose(tx, caller.current.person_id, money=data.money)
    found: NoticesView = await get_notices.fn(desk, caller)
    return found


@post(
    f"{PREFIX}/contact_codes",
    status_code=200,
    opt=needs(SELF, refuses=[ContactMalformed, CodesTooMany]),
)
async def ask_contact_code(data: AskContactCode, desk: Desk, caller: DeviceCaller) -> CodeView:
    """Have a code sent to a further address of one's own."""
    person = await current_person(desk.db, caller)
    sent = await entering.ask_code(
        desk.checks,
        person.mode,
        read_contact(data.contact),
        purpose="contact",
        language=person.language,
        source=caller.source,
    )
    return view_code(sent)


@post(
    f"{PREFIX}/contacts",
    opt=needs(SELF, refuses=[ContactMalformed, CodeWrong, *_STEP_UP]),
)
async def add_address(data: AddContact, desk: Desk, caller: DeviceCaller) -> ContactView:
    """Add an address that a code has proved; one of each kind, the newest."""
    person, contact = await current_person(desk.db, caller), read_contact(data.contact)
    confirmed = await step_up(desk, caller, "security", f"contact.add {contact.masked}")
    row = await entering.proved_contact(
        desk.checks, person.mode, contact, purpose="contact", code=(data.code_id, data.code)
    )
    keyring = desk.checks.keyring
    async with desk.db.begin(caller.actor) as tx:
        await take(tx, caller, confirmed)
        await use_code(tx, row)
        # Before it is changed, so that the number which is given up hears of it.
        told = TellPerson(person.id, Notice.ADDRESS_CHANGED, spared=caller.current.device_id)
        await tell(tx, keyring, await reach_of(tx, keyring, person.id), told)
        own = await keyring_of(tx, keyring, person.id)
        if not await add_contact(tx, keyring, own, person.id, person.mode, contact=contact):
            raise CodeWrong
    return ContactView(kind=contact.kind, masked=contact.masked)


@post(
    f"{PREFIX}/password",
    status_code=200,
    opt=needs(SELF, refuses=[PasswordRefused, *_STEP_UP]),
)
async def change_password(data: NewPassword, desk: Desk, caller: DeviceCaller) -> Done:
    """Choose another password; every other session ends."""
    person_id = caller.current.person_id
    confirmed = await step_up(desk, caller, "security", "password.change")
    hashed = await choose_password(desk.db, person_id, data.password, desk.checks.policy)
    async with desk.db.begin(caller.actor) as tx:
        await take(tx, caller, confirmed)
        await keep_password(tx, person_id, hashed)
        await sessions.end_other_sessions(tx, caller)
        spared = caller.current.device_id
        await enqueue(tx, TellPerson(person_id, Notice.PASSWORD_CHANGED, spared=spared))
    return Done()


@get(f"{PREFIX}/consents", opt=needs(SELF))
async def list_consents(desk: Desk, caller: DeviceCaller) -> list[ConsentView]:
    """Return what one agreed to and withdrew from."""
    return [
        ConsentView(
            kind=row.kind,
            version=row.version,
            language=row.language,
            given_at=row.given_at,
            withdrawn_at=row.withdrawn_at,
        )
        for row in await consents.consents_of(desk.db, caller.current.person_id)
    ]


@post(f"{PREFIX}/consents", opt=needs(SELF, refuses=[ConsentTextNotFound]))
async def give_consent(data: Agreed, desk: Desk, caller: DeviceCaller) -> Done:
    """Agree to a text; agreeing again changes nothing."""
    person = await current_person(desk.db, caller)
    async with desk.db.begin(caller.actor) as tx:
        await consents.give_consents(tx, person, [data])
    return Done()


@post(
    f"{PREFIX}/consents/withdraw",
    status_code=200,
    opt=needs(SELF, refuses=[ConsentTextNotFound, ConsentRequired]),
)
async def withdraw_consent(data: ConsentKind, desk: Desk, caller: DeviceCaller) -> Done:
    """Withdraw from a text that the account does not rest on."""
    person = await current_person(desk.db, caller)
    async with desk.db.begin(caller.actor) as tx:
        await consents.withdraw_consent(tx, person, data.kind)
    return Done()


@post(
    f"{PREFIX}/identity",
    status_code=200,
    opt=needs(SELF, refuses=[IdentityMalformed, IdentityGiven, RealNameNotConfirmed]),
)
async def give_identity(data: GiveIdentity, desk: Desk, caller: DeviceCaller) -> IdentityView:
    """Say who one is; until a register agrees it may be corrected."""
    person = await current_person(desk.db, caller)
    async with desk.db.begin(caller.actor) as tx:
        row = await real_names.give_identity(
            tx, desk.checks.keyring, person, Identity(data.name, data.resident_id)
        )
    return IdentityView(name=row.name_masked, resident_id=row.number_masked)


@post(
    f"{PREFIX}/identity/checks",
    opt=needs(SELF, refuses=[SourceNotFound, IdentityMalformed, RealNameNotConfirmed]),
)
async def check_identity(data: AskRegister, desk: Desk, caller: DeviceCaller) -> CheckView:
    """Have one register asked; ``unknown`` is neither yes nor no, and may be asked again."""
    person = await current_person(desk.db, caller)
    registers = desk.registers[person.mode]
    check = await real_names.ask_register(
        desk.db, desk.checks.keyring, registers, person, data.source
    )
    now = await current_person(desk.db, caller)
    return CheckView(
        source=check.source, verdict=check.verdict, real_name_level=now.real_name_level
    )


@post(f"{PREFIX}/export", status_code=200, opt=needs(SELF, refuses=_STEP_UP))
async def export_myself(desk: Desk, caller: DeviceCaller) -> ExportView:
    """Return everything that is kept of oneself."""
    person = await current_person(desk.db, caller)
    confirmed = await step_up(desk, caller, "personal", "export")
    async with desk.db.begin(caller.actor) as tx:
        await take(tx, caller, confirmed)
    found = await dossier.export_person(desk.db, desk.contributors, person)
    return ExportView({each.name: each.rows for each in found})


@post(f"{PREFIX}/erasure", status_code=200, opt=needs(SELF, refuses=[ErasureBlocked, *_STEP_UP]))
async def erase_myself(desk: Desk, caller: DeviceCaller) -> ErasedView:
    """Close the account and erase what may be erased; say what the law keeps."""
    person = await current_person(desk.db, caller)
    await step_up(desk, caller, "security", "erase")
    # No taking of the confirmation: it is erased with the rest, in the same commit.
    kept = await dossier.erase_person(desk.db, desk.contributors, person.id, actor=caller.actor)
    return ErasedView(True, [KeptView(each.what, each.because, each.until) for each in kept])


ROUTES = [
    get_myself,
    log_out,
    list_devices,
    remove_device,
    *(set_push_token, remove_push_token, get_notices, choose_notices),
    ask_contact_code,
    add_address,
    change_password,
    list_consents,
    give_consent,
    withdraw_consent,
    give_identity,
    check_identity,
    export_myself,
    erase_myself,
]
