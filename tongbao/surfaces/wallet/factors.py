"""Routes of factors: authenticators, passkeys, certificates, and the confirmation of acts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from litestar import get, post
from msgspec import Meta, Struct

from tongbao.infra.certificates import CertificateRefused
from tongbao.infra.db import Tx
from tongbao.infra.serving.device_api import SELF, DeviceCaller
from tongbao.infra.tasks import enqueue
from tongbao.infra.web.caller import needs
from tongbao.kernel.ids import parse, show
from tongbao.parties.authentication import authenticators, certificates, passkeys
from tongbao.parties.authentication.message_codes import (
    guessed_right,
    may_guess,
    send_code,
    take_allowance,
)
from tongbao.parties.authentication.model import (
    Act,
    AuthenticatorNotFound,
    CodesTooMany,
    CodeWrong,
    Confirmation,
    ConfirmationNotFound,
    ConfirmationUsed,
    Method,
    PasskeyRefused,
    PasskeyUnavailable,
    ProofRefused,
    StepUpRequired,
)
from tongbao.parties.authentication.passkeys import new_challenge, use_challenge
from tongbao.parties.authentication.step_up import (
    CHALLENGE_PREFIX,
    CONFIRM,
    Claim,
    act_of,
    confirm,
    confirmation_of,
)
from tongbao.parties.notices.model import Notice, TellPerson
from tongbao.parties.people.contacts import address_of, contacts_of, keyring_of, opened
from tongbao.parties.people.model import LoginRefused
from tongbao.parties.people.sessions import current_person, holder_of
from tongbao.surfaces.wallet.desk import (
    PREFIX,
    CodeField,
    CodeView,
    Desk,
    Done,
    NameField,
    step_up,
    take,
    view_code,
)

_ADD_PASSKEY = "passkey.add"
_ADD_CERTIFICATE = "certificate.add"
_STEP_UP: tuple[Any, ...] = (StepUpRequired, ConfirmationUsed)


class FactorView(Struct, frozen=True, kw_only=True):
    """One way in which this person can prove who they are."""

    id: str
    kind: str
    name: str
    status: str
    created_at: datetime


class Enrol(Struct, frozen=True, forbid_unknown_fields=True):
    """Enrol a generator of codes."""

    kind: Literal["totp", "hotp", "ocra"]
    name: NameField
    suite: CodeField | None = None


class EnrolledView(Struct, frozen=True, kw_only=True):
    """A new generator; its secret is shown this once, and it counts after its first code."""

    id: str
    secret: str
    uri: str


class FirstCode(Struct, frozen=True, forbid_unknown_fields=True):
    """The first code of a new generator."""

    code: CodeField


class Question(Struct, frozen=True, kw_only=True):
    """What is to be signed or answered, once, within five minutes."""

    challenge_id: str
    options: dict[str, Any] | None = None  # for a passkey
    question: str | None = None  # for an OCRA token
    text: str | None = None  # for a certificate


class AddPasskey(Struct, frozen=True, forbid_unknown_fields=True):
    """What the browser or the phone returned for a new passkey, in JSON form."""

    challenge_id: CodeField
    name: NameField
    response: dict[str, Any]


class AddCertificate(Struct, frozen=True, forbid_unknown_fields=True):
    """A certificate first, then those that lead to its anchor, in DER and base64."""

    challenge_id: CodeField
    chain: Annotated[list[bytes], Meta(min_length=1, max_length=5)]
    signature: Annotated[bytes, Meta(max_length=2048)]


class ConfirmationView(Struct, frozen=True, kw_only=True):
    """What is to be confirmed, and how far that is."""

    id: str
    object: Literal["confirmation"]
    kind: str
    subject: str
    amount: int
    currency: str
    payee: str
    level: int
    proved: list[str]
    is_confirmed: bool
    expires_at: datetime


class AskFor(Struct, frozen=True, forbid_unknown_fields=True):
    """Ask what a passkey, a token or a certificate has to answer to confirm."""

    method: Literal["passkey", "ocra", "certificate"]


class AskCodeAt(Struct, frozen=True, forbid_unknown_fields=True):
    """Have a code for this act sent to the phone or the mail address."""

    to: Literal["phone", "mail"] = "phone"


@get(f"{PREFIX}/factors", opt=needs(SELF))
async def list_factors(desk: Desk, caller: DeviceCaller) -> list[FactorView]:
    """Return in which ways one can prove who one is, besides password and messages."""
    owner = caller.current.person_id
    rows = [
        (authenticators.PREFIX, each.kind, each.name, each)
        for each in await authenticators.authenticators_of(desk.db, owner)
    ]
    views = [_factor(prefix, kind, name, row) for prefix, kind, name, row in rows]
    views += [
        _factor(passkeys.PREFIX, "passkey", each.name, each)
        for each in await passkeys.passkeys_of(desk.db, owner)
    ]
    return views + [
        FactorView(
            id=show(certificates.PREFIX, each.id),
            kind="certificate",
            name=each.serial_number,
            status=each.state,
            created_at=each.bound_at,
        )
        for each in await certificates.certificates_of(desk.db, owner)
    ]


@post(f"{PREFIX}/authenticators", opt=needs(SELF, refuses=[ProofRefused, *_STEP_UP]))
async def enrol(data: Enrol, desk: Desk, caller: DeviceCaller) -> EnrolledView:
    """Enrol a generator of codes; it counts once its first code is right."""
    person = await current_person(desk.db, caller)
    confirmed = await step_up(desk, caller, "security", f"authenticator.add {data.kind}")
    async with desk.db.begin(caller.actor) as tx:
        await take(tx, caller, confirmed)
        own = await keyring_of(tx, desk.checks.keyring, person.id)
        made = await authenticators.enrol_authenticator(
            tx,
            own,
            person.id,
            data.kind,
            name=data.name,
            account=await _account(desk, caller),
            suite=data.suite,
        )
        await _tell(tx, caller)
    return EnrolledView(
        id=show(authenticators.PREFIX, made.authenticator.id),
        secret=made.secret.reveal(),
        uri=made.uri.reveal(),
    )


@post(
    f"{PREFIX}/authenticators/{{authenticator_id:str}}/confirm",
    status_code=200,
    opt=needs(SELF, refuses=[AuthenticatorNotFound, ProofRefused]),
)
async def confirm_enrolment(
    authenticator_id: str, data: FirstCode, desk: Desk, caller: DeviceCaller
) -> Done:
    """Put a new generator in force by its first right code."""
    wanted = parse(authenticators.PREFIX, authenticator_id)
    await _count(desk, caller)
    owner = caller.current.person_id
    own = await keyring_of(desk.db, desk.checks.keyring, owner)
    await authenticators.confirm_authenticator(
        desk.db, own, owner, wanted, data.code, actor=caller.actor
    )
    await guessed_right(desk.db, desk.checks.keyring, caller.current.device_id)
    return Done()


@post(f"{PREFIX}/passkeys/challenges", opt=needs(SELF))
async def ask_new_passkey(desk: Desk, caller: DeviceCaller) -> Question:
    """Ask what a new passkey has to sign."""
    owner = caller.current.person_id
    account = await _account(desk, caller)
    known = await passkeys.passkeys_of(desk.db, owner)
    async with desk.db.begin(caller.actor) as tx:
        challenge = await new_challenge(tx, _ADD_PASSKEY, owner)
    options = passkeys.creation_options(
        desk.checks.site, challenge, owner_id=owner, account=account, known=known
    )
    return Question(challenge_id=show(CHALLENGE_PREFIX, challenge.id), options=options)


@post(
    f"{PREFIX}/passkeys",
    opt=needs(SELF, refuses=[PasskeyRefused, PasskeyUnavailable, ProofRefused, *_STEP_UP]),
)
async def add_passkey(data: AddPasskey, desk: Desk, caller: DeviceCaller) -> FactorView:
    """Keep a new passkey."""
    owner = caller.current.person_id
    confirmed = await step_up(desk, caller, "security", _ADD_PASSKEY)
    asked = parse(CHALLENGE_PREFIX, data.challenge_id)
    challenge = await use_challenge(desk.db, asked, _ADD_PASSKEY, owner)
    async with desk.db.begin(caller.actor) as tx:
        await take(tx, caller, confirmed)
        made = await passkeys.add_passkey(
            tx, desk.checks.site, challenge, owner, data.name, response=data.response
        )
        await _tell(tx, caller)
    return _factor(passkeys.PREFIX, "passkey", made.name, made)


@post(f"{PREFIX}/certificates/challenges", opt=needs(SELF))
async def ask_new_certificate(desk: Desk, caller: DeviceCaller) -> Question:
    """Ask what a certificate's key has to sign to be bound."""
    async with desk.db.begin(caller.actor) as tx:
        challenge = await new_challenge(tx, _ADD_CERTIFICATE, caller.current.person_id)
    text = certificates.signed_text(challenge).decode()
    return Question(challenge_id=show(CHALLENGE_PREFIX, challenge.id), text=text)


@post(
    f"{PREFIX}/certificates",
    opt=needs(SELF, refuses=[CertificateRefused, ProofRefused, *_STEP_UP]),
)
async def add_certificate(data: AddCertificate, desk: Desk, caller: DeviceCaller) -> FactorView:
    """Bind a certificate whose key has signed the challenge."""
    owner = caller.current.person_id
    confirmed = await step_up(desk, caller, "security", _ADD_CERTIFICATE)
    asked = parse(CHALLENGE_PREFIX, data.challenge_id)
    challenge = await use_challenge(desk.db, asked, _ADD_CERTIFICATE, owner)
    async with desk.db.begin(caller.actor) as tx:
        await take(tx, caller, confirmed)
        made = await certificates.bind_certificate(tx, owner, data.chain, challenge, data.signature)
        await _tell(tx, caller)
    return FactorView(
        id=show(certificates.PREFIX, made.id),
        kind="certificate",
        name=made.serial_number,
        status=made.state,
        created_at=made.bound_at,
    )


@post(
    f"{PREFIX}/factors/{{factor_id:str}}/remove",
    status_code=200,
    opt=needs(SELF, refuses=[AuthenticatorNotFound, *_STEP_UP]),
)
async def remove_factor(factor_id: str, desk: Desk, caller: DeviceCaller) -> Done:
    """Take a generator, a passkey or a certificate no more."""
    if factor_id not in {each.id for each in await list_factors.fn(desk, caller)}:
        raise AuthenticatorNotFound
    confirmed = await step_up(desk, caller, "security", f"factor.remove {factor_id}")
    owner, prefix = caller.current.person_id, factor_id.partition("_")[0]
    end = {
        authenticators.PREFIX: authenticators.end_authenticator,
        passkeys.PREFIX: passkeys.end_passkey,
        certificates.PREFIX: certificates.end_certificate,
    }[prefix]
    async with desk.db.begin(caller.actor) as tx:
        await take(tx, caller, confirmed)
        await end(tx, owner, parse(prefix, factor_id))
        await _tell(tx, caller)
    return Done()


@get(
    f"{PREFIX}/confirmations/{{confirmation_id:str}}",
    opt=needs(SELF, refuses=[ConfirmationNotFound]),
)
async def get_confirmation(
    confirmation_id: str, desk: Desk, caller: DeviceCaller
) -> ConfirmationView:
    """Return what is to be confirmed, as it is shown to the person."""
    holder = await holder_of(desk.db, desk.checks.keyring, caller)
    return _view(await confirmation_of(desk.checks, holder, confirmation_id))


@post(
    f"{PREFIX}/confirmations/{{confirmation_id:str}}/code",
    status_code=200,
    opt=needs(SELF, refuses=[ConfirmationNotFound, ProofRefused, CodesTooMany]),
)
async def send_confirmation_code(
    confirmation_id: str, data: AskCodeAt, desk: Desk, caller: DeviceCaller
) -> CodeView:
    """Have a code sent that is good for this act alone; the message says for what."""
    holder = await holder_of(desk.db, desk.checks.keyring, caller)
    found = await confirmation_of(desk.checks, holder, confirmation_id)
    person = await current_person(desk.db, caller)
    rows = [row for row in await contacts_of(desk.db, person.id) if row.kind == data.to]
    if not rows:
        raise ProofRefused(reason="no such address")
    await take_allowance(desk.db, desk.checks.keyring, rows[0].blind, caller.source)
    address = address_of(desk.checks.keyring, opened(holder.own, rows[0]), person.language)
    async with desk.db.begin(caller.actor) as tx:
        sent = await send_code(
            tx,
            desk.checks.keyring,
            address,
            "confirm",
            mode=person.mode,
            owner_id=person.id,
            act=act_of(found),
        )
    return view_code(sent)


@post(
    f"{PREFIX}/confirmations/{{confirmation_id:str}}/challenge",
    status_code=200,
    opt=needs(SELF, refuses=[ConfirmationNotFound, ProofRefused]),
)
async def ask_confirmation(
    confirmation_id: str, data: AskFor, desk: Desk, caller: DeviceCaller
) -> Question:
    """Ask what a passkey, a token or a certificate has to answer; the act is in it."""
    holder = await holder_of(desk.db, desk.checks.keyring, caller)
    act = act_of(await confirmation_of(desk.checks, holder, confirmation_id))
    async with desk.db.begin(caller.actor) as tx:
        challenge = await new_challenge(tx, CONFIRM, holder.owner_id, act)
    shown = show(CHALLENGE_PREFIX, challenge.id)
    match Method(data.method):
        case Method.PASSKEY:
            known = await passkeys.passkeys_of(desk.db, holder.owner_id)
            options = passkeys.request_options(desk.checks.site, challenge, known)
            return Question(challenge_id=shown, options=options)
        case Method.OCRA:
            question = await _question(desk, holder.owner_id, act, challenge)
            return Question(challenge_id=shown, question=question)
        case _:
            text = certificates.signed_text(challenge, act).decode()
            return Question(challenge_id=shown, text=text)


@post(
    f"{PREFIX}/confirmations/{{confirmation_id:str}}/proofs",
    status_code=200,
    opt=needs(
        SELF,
        refuses=[
            *(ConfirmationNotFound, ProofRefused, CodeWrong, LoginRefused),
            *(PasskeyRefused, PasskeyUnavailable, CertificateRefused),
        ],
    ),
)
async def prove_confirmation(
    confirmation_id: str, data: Claim, desk: Desk, caller: DeviceCaller
) -> ConfirmationView:
    """Add one proof to what the act needs; then repeat the request that asked for it."""
    holder = await holder_of(desk.db, desk.checks.keyring, caller)
    found = await confirmation_of(desk.checks, holder, confirmation_id)
    await _count(desk, caller)
    changed = await confirm(desk.checks, holder, found, data)
    await guessed_right(desk.db, desk.checks.keyring, holder.device_id)
    return _view(changed)


ROUTES = [
    list_factors,
    enrol,
    confirm_enrolment,
    ask_new_passkey,
    add_passkey,
    ask_new_certificate,
    add_certificate,
    remove_factor,
    get_confirmation,
    send_confirmation_code,
    ask_confirmation,
    prove_confirmation,
]


async def _count(desk: Desk, caller: DeviceCaller) -> None:
    """Count a try from this phone, as at a login: five wrong ones lock both for a while.

    Raises:
        LoginRefused
    """
    if not await may_guess(desk.db, desk.checks.keyring, caller.current.device_id):
        raise LoginRefused


async def _tell(tx: Tx, caller: DeviceCaller) -> None:
    """Have the person's other phones told that how they prove themselves was changed."""
    here = caller.current
    await enqueue(tx, TellPerson(here.person_id, Notice.FACTOR_CHANGED, spared=here.device_id))


async def _account(desk: Desk, caller: DeviceCaller) -> str:
    rows = await contacts_of(desk.db, caller.current.person_id)
    return rows[0].masked if rows else caller.actor


async def _question(desk: Desk, owner_id: Any, act: Act, challenge: Any) -> str:
    for each in await authenticators.authenticators_of(desk.db, owner_id):
        if each.suite is not None and each.state == "active":
            return authenticators.question_for(each.suite, act, challenge)
    raise ProofRefused(reason="no token")


def _factor(prefix: str, kind: str, name: str, row: Any) -> FactorView:
    return FactorView(
        id=show(prefix, row.id),
        kind=kind,
        name=name,
        status=row.state,
        created_at=row.created_at,
    )


def _view(row: Confirmation) -> ConfirmationView:
    act = act_of(row)
    return ConfirmationView(
        id=show("cnf", row.id),
        object="confirmation",
        kind=act.kind,
        subject=act.subject,
        amount=act.amount,
        currency=act.currency,
        payee=act.payee,
        level=row.level,
        proved=row.proved,
        is_confirmed=row.is_confirmed,
        expires_at=row.expires_at,
    )
