"""Forced interleavings of what locks a person, and of a passkey that is used in two places."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from tests.parties.phones import Key
from tests.parties.test_e_accounts import somebody
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, Query, Tx
from tongbao.parties.authentication import passkeys
from tongbao.parties.authentication.model import Challenge, PasskeyRefused
from tongbao.parties.authentication.passkeys import Site, new_challenge
from tongbao.parties.people import _store as store
from tongbao.parties.people.contacts import make_keys
from tongbao.parties.people.dossier import Contributor, erase_person, own_contributors
from tongbao.parties.people.model import Identity, Kept, Person, PersonNotFound
from tongbao.parties.people.real_names import ask_register, give_identity

SITE = Site("example.org", "x", ("https://example.org",))
IDENTITY = Identity("王小明", "110101199003078777")
WAITS = Query(
    bool,
    "select exists (select from pg_stat_activity"
    " where datname = current_database() and wait_event_type = 'Lock') as waits",
)


async def until_one_waits(db: Db) -> None:
    async with asyncio.timeout(30):
        while not await WAITS.one(db):  # noqa: ASYNC110 - the database has no event for it
            await asyncio.sleep(0.01)


@pytest.fixture
async def person(db: Db, keyring: Keyring) -> Person:
    made = await somebody(db, level=0)
    async with db.begin("test") as tx:
        await make_keys(tx, keyring, made.id)
    return made


class Gate:
    """A contributor whose part of an erasure waits, with the person locked."""

    def __init__(self) -> None:
        self.reached, self.open = asyncio.Event(), asyncio.Event()
        self.part = Contributor("gate", self._show, self._erase)

    async def _show(self, _db: Db, _person_id: UUID) -> list[dict[str, object]]:
        return []

    async def _erase(self, _tx: Tx, _person_id: UUID) -> list[Kept]:
        self.reached.set()
        await self.open.wait()
        return []


async def given(db: Db, keyring: Keyring, person: Person) -> None:
    async with db.begin("test") as tx:
        await give_identity(tx, keyring, person, IDENTITY)


async def test_who_says_who_they_are_while_they_are_erased_is_refused(
    db: Db, keyring: Keyring, person: Person
) -> None:
    gate = Gate()
    erasing = asyncio.create_task(
        erase_person(db, (*own_contributors(keyring), gate.part), person.id, actor="test")
    )
    await gate.reached.wait()
    giving = asyncio.create_task(given(db, keyring, person))
    await until_one_waits(db)
    gate.open.set()

    assert await erasing == []
    with pytest.raises(PersonNotFound):
        await giving
    assert await store.GET_IDENTITY.first(db, person.id) is None


async def test_who_is_erased_while_they_say_who_they_are_is_told_that_it_is_kept(
    db: Db, keyring: Keyring, person: Person
) -> None:
    async with db.begin("test") as tx:
        await give_identity(tx, keyring, person, IDENTITY)
        erasing = asyncio.create_task(
            erase_person(db, own_contributors(keyring), person.id, actor="test")
        )
        await until_one_waits(db)

    [kept] = await erasing
    assert kept.what == "identity, checks and consents"
    assert await store.GET_IDENTITY.first(db, person.id) is not None
    with pytest.raises(PersonNotFound):
        await given(db, keyring, person)


async def test_a_register_is_asked_about_nobody_who_is_erased(
    db: Db, keyring: Keyring, person: Person
) -> None:
    await given(db, keyring, person)
    await erase_person(db, own_contributors(keyring)[1:], person.id, actor="test")

    with pytest.raises(PersonNotFound):
        await ask_register(db, keyring, {"residents": NoRegister()}, person, "residents")


class NoRegister:
    """A register that must not be asked."""

    async def ask(self, number: str, *, name: str, resident_id: str, phone: str) -> object:
        raise AssertionError(number)


@pytest.fixture
async def key(db: Db, person: Person) -> Key:
    made = Key("https://example.org", "example.org")
    async with db.begin("test") as tx:
        asked = await new_challenge(tx, "add", person.id)
        options = passkeys.creation_options(
            SITE, asked, owner_id=person.id, account="138", known=[]
        )
        await passkeys.add_passkey(
            tx, SITE, asked, person.id, "finger", response=made.create(options)
        )
    return made


async def challenge_for(db: Db, person: Person) -> Challenge:
    async with db.begin("test") as tx:
        return await new_challenge(tx, "confirm", person.id)


async def test_of_a_key_and_its_copy_the_second_is_noticed_however_close_they_are(
    db: Db, person: Person, key: Key
) -> None:
    """Both have read the same count; the first to write it makes the other's go backwards."""
    first, second = await challenge_for(db, person), await challenge_for(db, person)
    copied = key.get(passkeys.request_options(SITE, first, []))
    key.count -= 1
    mine = key.get(passkeys.request_options(SITE, second, []))
    async with db.begin("test") as tx:
        await tx.fetch("select 1 from passkey for update", ())
        uses = [
            asyncio.create_task(passkeys.passkey_proves(db, SITE, each, said, actor="x"))
            for each, said in ((first, copied), (second, mine))
        ]
        await until_one_waits(db)

    done = await asyncio.gather(*uses, return_exceptions=True)
    refused = [each for each in done if isinstance(each, PasskeyRefused)]
    assert len(refused) == 1
    [row] = await db.fetch("select state, sign_count from passkey", ())
    assert tuple(row) == ("suspect", 1)
    key.count += 5
    third = await challenge_for(db, person)
    answer = key.get(passkeys.request_options(SITE, third, []))
    with pytest.raises(PasskeyRefused):
        await passkeys.passkey_proves(db, SITE, third, answer, actor="x")
