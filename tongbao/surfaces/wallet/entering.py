"""Routes for whom nobody is known by yet: codes, registration, login, recovery, texts to read."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from litestar import get, post
from msgspec import Struct

from tongbao.infra.admission.login_sources import LoginsTooMany
from tongbao.infra.serving.device_api import OPEN, DeviceCaller
from tongbao.infra.web.caller import needs
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.parties.authentication.model import (
    CodesTooMany,
    CodeWrong,
    PasskeyUnavailable,
    PasswordRefused,
)
from tongbao.parties.authentication.passkeys import new_challenge, request_options
from tongbao.parties.authentication.passwords import password_is_due
from tongbao.parties.authentication.step_up import (
    CHALLENGE_PREFIX,
    ByHotp,
    ByMessageCode,
    ByPasskey,
    ByTotp,
)
from tongbao.parties.people import entering
from tongbao.parties.people.consents import Agreed, texts_in_force
from tongbao.parties.people.contacts import read_contact
from tongbao.parties.people.entering import LOG_IN, Entered, Registration
from tongbao.parties.people.model import (
    ConsentMissing,
    ConsentTextNotFound,
    ContactMalformed,
    DeviceKeyMalformed,
    Identity,
    LoginRefused,
)
from tongbao.surfaces.wallet.desk import (
    PREFIX,
    CodeField,
    CodeView,
    ContactField,
    Desk,
    DeviceIs,
    Language,
    NameField,
    PasswordField,
    SessionView,
    read_phone,
    view_code,
    view_session,
)


class AskCode(Struct, frozen=True, forbid_unknown_fields=True):
    """Have a code sent to an address, to register, to log in from a new phone, or to recover."""

    contact: ContactField
    purpose: Literal["register", "log_in", "recover"]
    device: DeviceIs
    language: Language = "zh"
    mode: Mode = Mode.LIVE


class Register(Struct, frozen=True, forbid_unknown_fields=True):
    """Make an account with an address that a code has proved."""

    contact: ContactField
    code_id: CodeField
    code: CodeField
    password: PasswordField
    device: DeviceIs
    consents: list[Agreed] = []
    language: Language = "zh"
    mode: Mode = Mode.LIVE


class LogIn(Struct, frozen=True, forbid_unknown_fields=True):
    """Log in; from a phone that is not bound yet with a ``second`` proof besides the password."""

    contact: ContactField
    password: PasswordField
    device: DeviceIs
    second: ByMessageCode | ByTotp | ByHotp | None = None
    mode: Mode = Mode.LIVE


class LogInByPasskey(Struct, frozen=True, forbid_unknown_fields=True):
    """Log in by a passkey, which says itself whose it is."""

    claim: ByPasskey
    device: DeviceIs
    mode: Mode = Mode.LIVE


class AskPasskey(Struct, frozen=True, forbid_unknown_fields=True):
    """Ask what a passkey has to sign to log in."""

    device: DeviceIs


class PasskeyQuestion(Struct, frozen=True):
    """What ``navigator.credentials`` is to be given, and the id of the challenge in it."""

    challenge_id: str
    options: dict[str, Any]


class Recover(Struct, frozen=True, forbid_unknown_fields=True):
    """Get an account back by its address and by who the law says its person is."""

    contact: ContactField
    code_id: CodeField
    code: CodeField
    name: NameField
    resident_id: CodeField
    password: PasswordField
    device: DeviceIs
    mode: Mode = Mode.LIVE


class ConsentTextView(Struct, frozen=True, kw_only=True):
    """A text in force."""

    kind: str
    version: int
    language: Language
    title: str
    body: str
    is_required: bool
    published_at: datetime


@post(
    f"{PREFIX}/codes",
    status_code=200,
    opt=needs(OPEN, refuses=[ContactMalformed, DeviceKeyMalformed, CodesTooMany]),
)
async def ask_code(data: AskCode, desk: Desk, caller: DeviceCaller) -> CodeView:
    """Have a code sent to an address; the answer does not tell whether anybody has it."""
    await read_phone(desk, caller, data.device)
    sent = await entering.ask_code(
        desk.checks,
        data.mode,
        read_contact(data.contact),
        purpose=data.purpose,
        language=data.language,
        source=caller.source,
    )
    return view_code(sent)


@post(
    f"{PREFIX}/registrations",
    opt=needs(
        OPEN,
        refuses=[
            *(ContactMalformed, DeviceKeyMalformed, PasswordRefused, CodeWrong),
            *(ConsentMissing, ConsentTextNotFound),
        ],
    ),
)
async def register(data: Register, desk: Desk, caller: DeviceCaller) -> SessionView:
    """Make an account and open its first session."""
    phone = await read_phone(desk, caller, data.device)
    contact = read_contact(data.contact)
    wanted = Registration(data.mode, contact, data.password, data.consents, data.language)
    entered = await entering.register(
        desk.checks, wanted, phone, code_id=data.code_id, code=data.code
    )
    return view_session(entered, is_due=False)


@post(
    f"{PREFIX}/sessions",
    opt=needs(OPEN, refuses=[ContactMalformed, DeviceKeyMalformed, LoginRefused, LoginsTooMany]),
)
async def log_in(data: LogIn, desk: Desk, caller: DeviceCaller) -> SessionView:
    """Open a session; every refusal is the same and takes as long."""
    phone = await read_phone(desk, caller, data.device)
    entered = await entering.log_in(
        desk.checks,
        data.mode,
        read_contact(data.contact),
        phone,
        password=data.password,
        second=data.second,
    )
    return await _session(desk, entered)


@post(f"{PREFIX}/passkey_challenges", opt=needs(OPEN, refuses=[DeviceKeyMalformed]))
async def ask_passkey(data: AskPasskey, desk: Desk, caller: DeviceCaller) -> PasskeyQuestion:
    """Ask what a passkey has to sign to log in; it is the same for everybody."""
    await read_phone(desk, caller, data.device)
    async with desk.db.begin(caller.actor) as tx:
        challenge = await new_challenge(tx, LOG_IN, None)
    options = request_options(desk.checks.site, challenge, [])
    return PasskeyQuestion(show(CHALLENGE_PREFIX, challenge.id), options)


@post(
    f"{PREFIX}/passkey_sessions",
    opt=needs(OPEN, refuses=[DeviceKeyMalformed, LoginRefused, PasskeyUnavailable, LoginsTooMany]),
)
async def log_in_by_passkey(data: LogInByPasskey, desk: Desk, caller: DeviceCaller) -> SessionView:
    """Open a session for whoever holds a passkey of ours."""
    phone = await read_phone(desk, caller, data.device)
    entered = await entering.log_in_by_passkey(desk.checks, data.mode, phone, data.claim)
    return await _session(desk, entered)


@post(
    f"{PREFIX}/recoveries",
    opt=needs(
        OPEN,
        refuses=[
            *(ContactMalformed, DeviceKeyMalformed, PasswordRefused, LoginRefused, LoginsTooMany),
        ],
    ),
)
async def recover(data: Recover, desk: Desk, caller: DeviceCaller) -> SessionView:
    """Get an account back; every other phone is unbound, and every address is told."""
    phone = await read_phone(desk, caller, data.device)
    entered = await entering.recover(
        desk.checks,
        data.mode,
        read_contact(data.contact),
        phone,
        code=(data.code_id, data.code),
        identity=Identity(" ".join(data.name.split()), data.resident_id.strip().upper()),
        password=data.password,
    )
    return view_session(entered, is_due=False)


@get(f"{PREFIX}/consent_texts", opt=needs(OPEN))
async def list_texts(desk: Desk, language: Language = "zh") -> list[ConsentTextView]:
    """Return the texts in force, to be shown before somebody agrees to them."""
    return await _texts(desk, language)


ROUTES = [
    ask_code,
    register,
    log_in,
    ask_passkey,
    log_in_by_passkey,
    recover,
    list_texts,
]


async def _session(desk: Desk, entered: Entered) -> SessionView:
    due = await password_is_due(desk.db, entered.person.id, desk.checks.policy, desk.db.clock.now())
    return view_session(entered, is_due=due)


async def _texts(desk: Desk, language: str) -> list[ConsentTextView]:
    return [
        ConsentTextView(
            kind=text.kind,
            version=text.version,
            language=text.language,
            title=text.title,
            body=text.body,
            is_required=text.is_required,
            published_at=text.published_at,
        )
        for text in await texts_in_force(desk.db, language)
    ]
