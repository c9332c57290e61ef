"""Register, log in, recover: all that somebody does whom nobody is known by yet.

Every refusal of a login is the same and comes after the same work, whether the address is known,
the password wrong or the code; so is every answer to a wish for a code. From a phone that is not
bound a login takes two factors, and recovery takes two as well.
"""

from __future__ import annotations

from typing import Final, Literal
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.admission.login_sources import knock, let_in
from tongbao.infra.crypto import constant_time_equal
from tongbao.infra.db import Tx
from tongbao.infra.public_keys import PublicKey
from tongbao.kernel.clock import real_now
from tongbao.kernel.errors import Refusal
from tongbao.kernel.ids import new_id, parse
from tongbao.kernel.licence import Mode
from tongbao.parties.authentication.authenticators import code_proves
from tongbao.parties.authentication.message_codes import (
    CodeSent,
    Purpose,
    guessed_right,
    may_guess,
    send_code,
    send_notice,
    take_allowance,
    try_code,
    use_code,
)
from tongbao.parties.authentication.model import (
    CodeWrong,
    Level,
    MessageCode,
    Method,
    PasskeyUnavailable,
    level_of,
)
from tongbao.parties.authentication.passkeys import passkey_proves, use_challenge
from tongbao.parties.authentication.passwords import (
    check_choice,
    choose_password,
    keep_password,
    matching_hash,
    password_matches,
    still_stands,
)
from tongbao.parties.authentication.step_up import (
    CHALLENGE_PREFIX,
    CODE_PREFIX,
    ByHotp,
    ByMessageCode,
    ByPasskey,
    ByTotp,
    Checks,
)
from tongbao.parties.people import _store as store
from tongbao.parties.people.consents import Agreed, check_required, give_consents
from tongbao.parties.people.contacts import (
    Contact,
    add_contact,
    address_of,
    blind_of,
    contacts_of,
    keyring_of,
    make_keys,
    opened,
    owner_of,
    read_contact,
)
from tongbao.parties.people.model import (
    LOCKED_FOR,
    TRIES_MAX,
    ContactMalformed,
    Identity,
    LoginRefused,
    Person,
    PersonDevice,
)
from tongbao.parties.people.real_names import identity_matches
from tongbao.parties.people.sessions import (
    NewSession,
    bound_device,
    end_sessions_of,
    open_session,
    remove_device,
)

LOG_IN: Final = "log_in"
_ACTOR: Final = "somebody"
_NOBODY: Final = UUID(int=0)

Second = ByMessageCode | ByTotp | ByHotp


class Phone(Struct, frozen=True):
    """The phone that asks: its key, which has signed the request, and how it is called."""

    key: PublicKey
    name: str


class Registration(Struct, frozen=True):
    """What a new account begins with."""

    mode: Mode
    contact: Contact
    password: str
    agreed: list[Agreed]
    language: Literal["zh", "en"]


class Entered(Struct, frozen=True):
    """Somebody and their new session."""

    person: Person
    session: NewSession


async def ask_code(
    checks: Checks,
    mode: Mode,
    contact: Contact,
    *,
    purpose: Purpose,
    language: Literal["zh", "en"],
    source: str,
) -> CodeSent:
    """Have a code sent to an address; the answer is the same whether anybody has it.

    Raises:
        CodesTooMany
    """
    address = address_of(checks.keyring, contact, language)
    await take_allowance(checks.db, checks.keyring, address.blind, source)
    owner = await owner_of(checks.db, checks.keyring, mode, contact)
    is_new = purpose in {"register", "contact"}
    instead: Literal["registered", "unregistered"] | None = None
    if is_new == (owner is not None):
        instead = "registered" if is_new else "unregistered"
    async with checks.db.begin(_ACTOR) as tx:
        return await send_code(
            tx,
            checks.keyring,
            address,
            purpose,
            mode=mode,
            owner_id=owner.person_id if owner else None,
            instead=instead,
        )


async def register(
    checks: Checks, wanted: Registration, phone: Phone, *, code_id: str, code: str
) -> Entered:
    """Make an account for whoever has proved the address, and log them in.

    Raises:
        PasswordRefused, ConsentMissing, ConsentTextNotFound, CodeWrong
    """
    about = [wanted.contact.text.partition("@")[0].removeprefix("+86")]
    check_choice(wanted.password, checks.policy, about)
    await check_required(checks.db, wanted.agreed)
    row = await proved_contact(
        checks, wanted.mode, wanted.contact, purpose="register", code=(code_id, code)
    )
    person_id = new_id()
    hashed = await choose_password(checks.db, person_id, wanted.password, checks.policy, about)
    async with checks.db.begin(_ACTOR) as tx:
        await use_code(tx, row)
        person = await make_person(tx, checks, wanted, person_id, hashed)
        session = await open_session(
            tx,
            checks.keyring,
            person,
            key=phone.key,
            name=phone.name,
            methods=(Method.PASSWORD, Method.MESSAGE_CODE),
            tells=False,
        )
    return Entered(person, session)


async def make_person(
    tx: Tx, checks: Checks, wanted: Registration, person_id: UUID, hashed: str
) -> Person:
    """Write down somebody new, whose address a code has proved, with what they agreed to.

    Raises:
        CodeWrong: somebody else proved the same address meanwhile. ConsentTextNotFound
    """
    person = await store.INSERT_PERSON.one(tx, person_id, wanted.mode, wanted.language, tx.now)
    own = await make_keys(tx, checks.keyring, person_id)
    if not await add_contact(
        tx, checks.keyring, own, person_id, wanted.mode, contact=wanted.contact
    ):
        raise CodeWrong
    await keep_password(tx, person_id, hashed)
    await audit.record(tx, "person.registered", person.actor, {"kind": wanted.contact.kind})
    await give_consents(tx, person, wanted.agreed)
    return person


async def log_in(
    checks: Checks,
    mode: Mode,
    contact: Contact,
    phone: Phone,
    *,
    password: str,
    second: Second | None,
) -> Entered:
    """Open a session for whoever knows the password, and from a new phone proves one thing more.

    Raises:
        LoginRefused, LoginsTooMany
    """
    knocked = await knock(checks.db, checks.keyring, "person")
    found = await owner_of(checks.db, checks.keyring, mode, contact)
    owner_id = found.person_id if found else _NOBODY
    device = await bound_device(checks.db, owner_id, phone.key)
    person = await _admitted(checks, owner_id, device)
    person_id = person.id if person else _NOBODY
    methods = {Method.PASSWORD}
    matched = await matching_hash(checks.db, person_id, password)
    right = matched is not None
    if second is not None:
        proved = await _second(checks, person_id, contact, mode, second)
        right = right and proved is not None
        methods |= {proved} if proved else set()
    is_enough = device is not None or level_of(methods) >= Level.TWO
    if person is None or not right or not is_enough:
        raise await _refused(checks, found.person_id if found else None)
    if device is not None:
        await guessed_right(checks.db, checks.keyring, device.id)
    entered = await _enter(checks, person, phone, methods, password_hash=matched)
    await let_in(checks.db, knocked)
    return entered


async def log_in_by_passkey(checks: Checks, mode: Mode, phone: Phone, claim: ByPasskey) -> Entered:
    """Open a session for whoever holds a passkey, which says itself whose it is.

    Raises:
        LoginRefused, PasskeyUnavailable, LoginsTooMany
    """
    knocked = await knock(checks.db, checks.keyring, "person")
    try:
        asked = parse(CHALLENGE_PREFIX, claim.challenge_id)
        challenge = await use_challenge(checks.db, asked, LOG_IN, None)
        passkey = await passkey_proves(
            checks.db, checks.site, challenge, claim.response, actor=_ACTOR
        )
    except PasskeyUnavailable:
        raise
    except Refusal:
        raise await _refused(checks, None) from None
    person = await store.GET_PERSON.first(checks.db, passkey.owner_id)
    if person is None or person.mode is not mode or person.state != "active":
        raise await _refused(checks, None)
    entered = await _enter(checks, person, phone, {Method.PASSKEY})
    await let_in(checks.db, knocked)
    return entered


async def person_by_password(
    checks: Checks, mode: Mode, address: str, password: str
) -> Person | None:
    """Return who has this address and password, for a page; a stranger costs the same work.

    The try counts as failed until the caller clears it, see `clear_tries`.

    Raises:
        LoginsTooMany
    """
    knocked = await knock(checks.db, checks.keyring, "person")
    try:
        found = await owner_of(checks.db, checks.keyring, mode, read_contact(address))
    except ContactMalformed:
        found = None
    person = await count_try(checks, found.person_id if found else _NOBODY)
    right = await password_matches(checks.db, person.id if person else _NOBODY, password)
    if person is None or not right or person.state != "active" or person.mode is not mode:
        await _refused(checks, found.person_id if found else None)
        return None
    await let_in(checks.db, knocked)
    return person


async def recover(
    checks: Checks,
    mode: Mode,
    contact: Contact,
    phone: Phone,
    *,
    code: tuple[str, str],
    identity: Identity,
    password: str,
) -> Entered:
    """Give an account back to whoever has its address and is, by name and id, its person.

    Every other phone is unbound, every session ends, and every address is told.

    Raises:
        LoginRefused, PasswordRefused, LoginsTooMany
    """
    knocked = await knock(checks.db, checks.keyring, "person")
    found = await owner_of(checks.db, checks.keyring, mode, contact)
    person = await count_try(checks, found.person_id if found else _NOBODY)
    person_id = person.id if person else _NOBODY
    about = [contact.text.partition("@")[0].removeprefix("+86")]
    check_choice(password, checks.policy, about)
    await password_matches(checks.db, _NOBODY, password)  # hides what looking somebody up takes
    try:
        row = await proved_contact(checks, mode, contact, purpose="recover", code=code)
    except CodeWrong:
        row = None
    known = await identity_matches(checks.db, checks.keyring, person_id, identity)
    if person is None or row is None or not known:
        raise await _refused(checks, found.person_id if found else None)
    # Only now, for it says whether they had this password before.
    hashed = await choose_password(checks.db, person_id, password, checks.policy, about)
    async with checks.db.begin(person.actor) as tx:
        await use_code(tx, row)
        await store.CLEAR_TRIES.run(tx, person.id)
        await keep_password(tx, person.id, hashed)
        await end_sessions_of(tx, person.id)
        for device in await store.DEVICES.all(tx, person.id):
            await remove_device(tx, person.id, device.id)
        await _tell(checks, tx, person)
        await audit.record(tx, "person.recovered", person.actor, {})
        session = await open_session(
            tx,
            checks.keyring,
            person,
            key=phone.key,
            name=phone.name,
            methods=(Method.MESSAGE_CODE,),
            tells=False,
        )
    await let_in(checks.db, knocked)
    return Entered(person, session)


async def proved_contact(
    checks: Checks, mode: Mode, contact: Contact, *, purpose: Purpose, code: tuple[str, str]
) -> MessageCode:
    """Return the row of a right code that was sent to this address for this purpose.

    Raises:
        CodeWrong
    """
    try:
        code_id = parse(CODE_PREFIX, code[0])
    except Refusal:
        raise CodeWrong from None
    row = await try_code(checks.db, checks.keyring, code_id, code[1], purpose=purpose)
    blind = blind_of(checks.keyring, contact.kind, contact.text)
    if row.mode is not mode or not constant_time_equal(row.blind, blind):
        raise CodeWrong
    return row


async def count_try(checks: Checks, person_id: UUID) -> Person | None:
    """Return the person if they may try now; the try counts as failed until it succeeds."""
    now = real_now()
    return await store.COUNT_TRY.first(checks.db, person_id, TRIES_MAX, now, now + LOCKED_FOR)


async def clear_tries(tx: Tx, person: Person) -> None:
    """Forget the tries that failed, after one elsewhere than here that did not."""
    await store.CLEAR_TRIES.run(tx, person.id)


async def _admitted(checks: Checks, person_id: UUID, device: PersonDevice | None) -> Person | None:
    """Return the person if a try may be made from here; bound phones are counted by themselves."""
    if device is None:
        return await count_try(checks, person_id)
    person = await store.GET_PERSON.first(checks.db, person_id)
    may = await may_guess(checks.db, checks.keyring, device.id)
    return person if person and person.state == "active" and may else None


async def _second(
    checks: Checks, person_id: UUID, contact: Contact, mode: Mode, claim: Second
) -> Method | None:
    """Return the way in which the claim proves the person, or None."""
    if isinstance(claim, ByMessageCode):
        try:
            row = await proved_contact(
                checks, mode, contact, purpose="log_in", code=(claim.code_id, claim.code)
            )
            async with checks.db.begin(_ACTOR) as tx:
                await use_code(tx, row)
        except CodeWrong:
            return None
        return Method.MESSAGE_CODE
    if person_id == _NOBODY:
        return None
    kind = Method.TOTP if isinstance(claim, ByTotp) else Method.HOTP
    own = await keyring_of(checks.db, checks.keyring, person_id)
    proved = await code_proves(checks.db, own, person_id, kind.value, claim.code)
    return kind if proved else None


async def _enter(
    checks: Checks,
    person: Person,
    phone: Phone,
    methods: set[Method],
    *,
    password_hash: str | None = None,
) -> Entered:
    """Open a session, unless the password that somebody came by was replaced a moment ago.

    Raises:
        LoginRefused
    """
    async with checks.db.begin(person.actor) as tx:
        if password_hash is not None and not await still_stands(tx, person.id, password_hash):
            raise LoginRefused
        await store.CLEAR_TRIES.run(tx, person.id)
        session = await open_session(
            tx, checks.keyring, person, key=phone.key, name=phone.name, methods=methods
        )
    return Entered(person, session)


async def _refused(checks: Checks, person_id: UUID | None) -> LoginRefused:
    """Write down that somebody was refused, known or not, and return the refusal."""
    async with checks.db.begin(_ACTOR) as tx:
        person = await store.GET_PERSON.first(tx, person_id or _NOBODY)
        subject = person.actor if person else "nobody"
        await audit.record(tx, "person.login_refused", subject, {})
    return LoginRefused()


async def _tell(checks: Checks, tx: Tx, person: Person) -> None:
    own = await keyring_of(tx, checks.keyring, person.id)
    for row in await contacts_of(tx, person.id):
        address = address_of(checks.keyring, opened(own, row), person.language)
        await send_notice(
            tx, checks.keyring, address, "recovered", mode=person.mode, owner_id=person.id
        )
