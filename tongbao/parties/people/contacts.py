"""People's addresses, proved by codes, and the keyrings that are each person's own.

What is sealed of a person is sealed under a key of theirs, which the keyring seals in turn: to
forget the key is to forget everything under it, in every copy. The blind index finds an address
again; it is keyed, so that who holds the table alone cannot try numbers.
"""

from __future__ import annotations

import os
import re
from typing import Final, Literal
from uuid import UUID

from msgspec import Struct

from tongbao.infra.crypto import Keyring, SealUnreadable, bind, hmac_sha256
from tongbao.infra.db import Db, Tx
from tongbao.infra.notify.model import Kind
from tongbao.kernel.licence import Mode
from tongbao.parties.authentication.message_codes import Address
from tongbao.parties.notices.model import Reached
from tongbao.parties.people import _store as store
from tongbao.parties.people.model import ContactMalformed, PersonContact

_KEY: Final = "person.key"
_KEY_BYTES: Final = 32
_PERSONAL: Final = "person.personal"
_BLIND: Final = "person.blind"
_CHINESE: Final = re.compile(r"(?:\+?86)?(1[3-9]\d{9})")
_FOREIGN: Final = re.compile(r"\+[1-9]\d{6,14}")
_MAIL: Final = re.compile(r"[a-z0-9._%+-]{1,64}@[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){1,8}")

KeyKind = Literal["own", "kept"]


class Contact(Struct, frozen=True):
    """An address in the one form in which it is compared."""

    kind: Literal["phone", "mail"]
    text: str

    def __repr__(self) -> str:
        return f"Contact({self.kind})"

    @property
    def masked(self) -> str:
        """Return it as it may be shown."""
        if self.kind == "phone":
            return f"{self.text[:-8]}****{self.text[-4:]}"
        user, _, domain = self.text.partition("@")
        return f"{user[:1]}***@{domain}"


def read_contact(text: str) -> Contact:
    """Return an address as people write it.

    Raises:
        ContactMalformed
    """
    plain = text.strip().replace(" ", "").replace("-", "")
    if not plain.isascii():
        raise ContactMalformed(param="$.contact")
    if found := _CHINESE.fullmatch(plain):
        return Contact("phone", f"+86{found.group(1)}")
    if _FOREIGN.fullmatch(plain) and not plain.startswith("+86"):
        return Contact("phone", plain)
    mail = text.strip().lower()
    if len(mail) <= 254 and _MAIL.fullmatch(mail):
        return Contact("mail", mail)
    raise ContactMalformed(param="$.contact")


def blind_of(keyring: Keyring, kind: str, text: str) -> bytes:
    """Return what stands for an address or a resident id where it is looked for."""
    return hmac_sha256(keyring.mac_key(_BLIND), bind(kind, text))


def address_of(keyring: Keyring, contact: Contact, language: Literal["zh", "en"]) -> Address:
    """Return where a code for this contact goes."""
    kind = Kind.SMS if contact.kind == "phone" else Kind.MAIL
    return Address(kind, contact.text, blind_of(keyring, contact.kind, contact.text), language)


async def make_keys(tx: Tx, keyring: Keyring, person_id: UUID) -> Keyring:
    """Give a new person their keys and return the keyring of what is theirs alone."""
    kinds: tuple[KeyKind, ...] = ("own", "kept")
    made = {kind: os.urandom(_KEY_BYTES) for kind in kinds}
    for kind, raw in made.items():
        await store.INSERT_KEY.run(
            tx, person_id, kind, keyring.seal(_KEY, raw, _key_place(person_id, kind))
        )
    return Keyring([made["own"]])


async def keyring_of(
    on: Db | Tx, keyring: Keyring, person_id: UUID, kind: KeyKind = "own"
) -> Keyring:
    """Return a person's keyring; of an erased person there is none.

    Raises:
        SealUnreadable
    """
    sealed = await store.GET_KEY.first(on, person_id, kind)
    if sealed is None:
        raise SealUnreadable(purpose=_KEY)
    return Keyring([keyring.open(_KEY, sealed, _key_place(person_id, kind))])


async def add_contact(
    tx: Tx, keyring: Keyring, own: Keyring, person_id: UUID, mode: Mode, *, contact: Contact
) -> bool:
    """Keep an address that a code has proved, in place of one of its kind.

    It tells whether it is nobody else's; where it is, the caller undoes everything.
    """
    await store.REPLACE_CONTACT.run(tx, person_id, contact.kind)
    sealed = own.seal(_PERSONAL, contact.text.encode(), _place(person_id, contact.kind))
    blind = blind_of(keyring, contact.kind, contact.text)
    row = (person_id, mode, contact.kind, blind, contact.masked, sealed, tx.now)
    return bool(await store.INSERT_CONTACT.run(tx, *row))


async def owner_of(
    on: Db | Tx, keyring: Keyring, mode: Mode, contact: Contact
) -> PersonContact | None:
    """Return whose address this is, if anybody's."""
    return await store.FIND_CONTACT.first(on, mode, blind_of(keyring, contact.kind, contact.text))


async def contacts_of(on: Db | Tx, person_id: UUID) -> list[PersonContact]:
    """Return somebody's addresses, the phone first."""
    return await store.CONTACTS.all(on, person_id)


def opened(own: Keyring, row: PersonContact) -> Contact:
    """Return an address in the clear.

    Raises:
        SealUnreadable
    """
    text = own.open(_PERSONAL, row.sealed, _place(row.person_id, row.kind)).decode()
    return Contact(row.kind, text)


async def reach_of(tx: Tx, keyring: Keyring, person_id: UUID) -> Reached | None:
    """Return how somebody is reached, their row held; without their own key nothing opens."""
    person = await store.HOLD_PERSON.first(tx, person_id)
    if person is None or await store.GET_KEY.first(tx, person_id, "own") is None:
        return None  # they were erased
    own = await keyring_of(tx, keyring, person_id)
    rows = await contacts_of(tx, person_id)
    addresses = [address_of(keyring, opened(own, row), person.language) for row in rows]
    return Reached(person.mode, person.language, own, addresses)


def _key_place(person_id: UUID, kind: str) -> bytes:
    return bind("person_key", "sealed", person_id, kind)


def _place(person_id: UUID, kind: str) -> bytes:
    return bind("person_contact", "sealed", person_id, kind)
