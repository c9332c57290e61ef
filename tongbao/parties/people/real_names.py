"""Real names: who the law says somebody is, asked of outside registers one by one.

    given ─► asked (written first) ─► same | different | unknown: nobody knows, ask again

Each register that agrees counts once; how many give which level are dated rows. Whose id is known
here already, as somebody else's, hears what a wrong id hears.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final, Protocol
from uuid import UUID

import msgspec

from tongbao.infra import audit
from tongbao.infra.crypto import Keyring, bind
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import business_date
from tongbao.kernel.codecs.registry_numbers import is_resident_id
from tongbao.kernel.ids import base32, new_id
from tongbao.parties.people import _store as store
from tongbao.parties.people.contacts import blind_of, contacts_of, keyring_of, opened
from tongbao.parties.people.model import (
    Identity,
    IdentityGiven,
    IdentityMalformed,
    Person,
    PersonIdentity,
    PersonNotFound,
    RealNameCheck,
    RealNameNotConfirmed,
    RealNameRule,
    SourceNotFound,
    level_by_sources,
)

CHECKS_A_DAY_MAX: Final = 10
_PERSONAL: Final = "person.personal"
_ID: Final = "resident_id"
_NAME_MAX: Final = 64


class RegisterAnswer(Protocol):
    """What a register says: same, different, or unknown where it said nothing clear."""

    @property
    def verdict(self) -> str:
        """Return same, different or unknown."""

    @property
    def reference(self) -> str:
        """Return the register's number for its answer."""


class Register(Protocol):
    """An outside register that knows who people are; wiring says which there are."""

    async def ask(self, number: str, *, name: str, resident_id: str, phone: str) -> RegisterAnswer:
        """Ask whether these belong together; ``number`` is ours, and the same for a repeat."""


Registers = Mapping[str, Register]


async def give_identity(
    tx: Tx, keyring: Keyring, person: Person, identity: Identity
) -> PersonIdentity:
    """Write down who somebody says they are; until a register agrees they may correct it.

    Raises:
        IdentityMalformed, IdentityGiven, RealNameNotConfirmed, PersonNotFound
    """
    checked = check_identity(identity, tx)
    await _lock(tx, person)
    blind = blind_of(keyring, _ID, checked.resident_id)
    known = await store.GET_IDENTITY.first(tx, person.id)
    if known is not None and await store.AGREED.one(tx, person.id):
        if known.blind == blind and await identity_of(tx, keyring, known) == checked:
            return known
        raise IdentityGiven
    if known is not None:
        await store.DROP_IDENTITY.run(tx, person.id)
    kept = await keyring_of(tx, keyring, person.id, "kept")
    made = await store.INSERT_IDENTITY.first(
        tx,
        person.id,
        person.mode,
        blind,
        f"{'*' * (len(checked.name) - 1)}{checked.name[-1]}",
        f"{checked.resident_id[0]}{'*' * 16}{checked.resident_id[-1]}",
        kept.seal(_PERSONAL, msgspec.json.encode(checked), _place(person.id)),
        tx.now,
    )
    if made is None:
        raise RealNameNotConfirmed(verdict="different")
    await audit.record(tx, "person.identity_given", person.actor, {})
    return made


async def ask_register(
    db: Db, keyring: Keyring, registers: Registers, person: Person, source: str
) -> RealNameCheck:
    """Ask one register whether somebody is who they say, and count its answer.

    Raises:
        SourceNotFound, IdentityMalformed: nothing was given yet. RealNameNotConfirmed,
        PersonNotFound
    """
    register = registers.get(source)
    if register is None:
        raise SourceNotFound(param="$.source")
    async with db.begin(person.actor) as tx:
        check = await _begin(tx, person, source)
        given = await store.GET_IDENTITY.first(tx, person.id)
        if given is None:
            raise IdentityMalformed(reason="give name and resident id first")
        identity = await identity_of(tx, keyring, given)
        phone = await _phone(tx, keyring, person.id)
    failpoint("real_names.before_ask")
    answer = await register.ask(
        base32(check.id), name=identity.name, resident_id=identity.resident_id, phone=phone
    )
    failpoint("real_names.after_ask")
    verdict = answer.verdict if answer.verdict in {"same", "different"} else "unknown"
    async with db.begin(person.actor) as tx:
        await _lock(tx, person)
        told = await store.ANSWER_CHECK.one(tx, check.id, verdict, answer.reference[:128], tx.now)
        await _set_level(tx, person)
        facts = {"source": source, "verdict": verdict}
        await audit.record(tx, "person.identity_checked", person.actor, facts)
    if verdict == "different":
        raise RealNameNotConfirmed(verdict=verdict)
    return told


async def confirm_face_to_face(tx: Tx, person: Person) -> None:
    """Write down that somebody of ours saw the person and their card.

    Raises:
        IdentityMalformed: nothing was given yet.
    """
    if not await store.SET_FACE_TO_FACE.run(tx, person.id):
        raise IdentityMalformed(reason="give name and resident id first")
    await _set_level(tx, person)
    await audit.record(tx, "person.seen_face_to_face", person.actor, {})


def check_identity(identity: Identity, tx: Tx) -> Identity:
    """Return name and resident id in the form in which they are compared.

    Raises:
        IdentityMalformed
    """
    name, number = " ".join(identity.name.split()), identity.resident_id.strip().upper()
    if not 2 <= len(name) <= _NAME_MAX or not name.isprintable():
        raise IdentityMalformed(param="$.name")
    if not is_resident_id(number, today=business_date(tx.now)):
        raise IdentityMalformed(param="$.resident_id")
    return Identity(name, number)


async def identity_of(on: Db | Tx, keyring: Keyring, row: PersonIdentity) -> Identity:
    """Return who somebody is by law, in the clear.

    Raises:
        SealUnreadable
    """
    kept = await keyring_of(on, keyring, row.person_id, "kept")
    return msgspec.json.decode(
        kept.open(_PERSONAL, row.sealed, _place(row.person_id)), type=Identity
    )


async def identity_matches(db: Db, keyring: Keyring, person_id: UUID, identity: Identity) -> bool:
    """Tell whether a register has agreed that somebody is exactly this."""
    row = await store.GET_IDENTITY.first(db, person_id)
    if row is None or not await store.AGREED.one(db, person_id):
        return False
    return await identity_of(db, keyring, row) == identity


async def checks_of(on: Db | Tx, person_id: UUID) -> list[RealNameCheck]:
    """Return what registers were asked about somebody, oldest first."""
    return await store.CHECKS.all(on, person_id)


async def identity_row(on: Db | Tx, person_id: UUID) -> PersonIdentity | None:
    """Return who somebody is, masked, where it was given."""
    return await store.GET_IDENTITY.first(on, person_id)


async def level_rules(on: Db | Tx) -> list[RealNameRule]:
    """Return every rule of the levels, past and future ones too."""
    return await store.RULES.all(on)


async def _lock(tx: Tx, person: Person) -> None:
    """Keep others from changing what is known of a person, unless they were erased meanwhile.

    Raises:
        PersonNotFound
    """
    if (await store.LOCK_PERSON.one(tx, person.id)).state == "erased":
        raise PersonNotFound


async def _begin(tx: Tx, person: Person, source: str) -> RealNameCheck:
    await _lock(tx, person)
    since = tx.now - timedelta(days=1)
    today = [each for each in await checks_of(tx, person.id) if each.asked_at > since]
    if len(today) >= CHECKS_A_DAY_MAX:
        raise RealNameNotConfirmed(verdict="unknown", checks_a_day_max=CHECKS_A_DAY_MAX)
    return await store.INSERT_CHECK.one(tx, new_id(), person.id, source, tx.now)


async def _set_level(tx: Tx, person: Person) -> None:
    row = await store.GET_IDENTITY.one(tx, person.id)
    agreed = await store.AGREED.one(tx, person.id)
    rules = await store.RULES.all(tx)
    level = level_by_sources(agreed, rules, business_date(tx.now), face_to_face=row.face_to_face)
    await store.SET_LEVEL.run(tx, person.id, level)


async def _phone(tx: Tx, keyring: Keyring, person_id: UUID) -> str:
    own = await keyring_of(tx, keyring, person_id)
    for row in await contacts_of(tx, person_id):
        if row.kind == "phone":
            return opened(own, row).text
    return ""


def _place(person_id: UUID) -> bytes:
    return bind("person_identity", "sealed", person_id)
