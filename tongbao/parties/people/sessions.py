"""Sessions and phones: opened by proofs, bound to a key, ended when idle, old, or told to.

The token is known to the phone only; here is its HMAC. A new login on a phone ends the session
that was open there, so a token never outlives the next one.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.crypto import Keyring, hmac_sha256
from tongbao.infra.db import Db, Tx
from tongbao.infra.public_keys import PublicKey, SigningAlgorithm
from tongbao.infra.serving.device_api import DeviceCaller, DeviceSession, SessionOver
from tongbao.infra.settings import Secret
from tongbao.infra.tasks import enqueue
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import new_id, show
from tongbao.parties.authentication.model import Method
from tongbao.parties.authentication.step_up import Holder
from tongbao.parties.notices.model import Notice, TellPerson
from tongbao.parties.notices.phones import forget_token, set_token
from tongbao.parties.people import _store as store
from tongbao.parties.people.contacts import contacts_of, keyring_of
from tongbao.parties.people.model import (
    DEVICE_PREFIX,
    DEVICES_MAX,
    IDLE_MAX,
    PREFIX,
    SESSION_MAX,
    DeviceNotFound,
    DevicesTooMany,
    Opened,
    Person,
    PersonDevice,
)

_PURPOSE: Final = "person.session"
_TOUCHED_EVERY: Final = timedelta(minutes=1)


class NewSession(Struct, frozen=True):
    """A session and, this once, its token."""

    token: Secret
    device: PersonDevice


class SessionsOnRecord:
    """The sessions that requests are checked against."""

    def __init__(self, db: Db, keyring: Keyring) -> None:
        self._db = db
        self._keyring = keyring

    async def find(self, token: str) -> DeviceSession | None:
        """Return the session of a token, with the key of the phone it is bound to."""
        row = await store.FIND_SESSION.first(self._db, _hash(self._keyring, token))
        if row is None or row.is_over(real_now()):
            return None
        return DeviceSession(
            row.device_id,
            row.person_id,
            PublicKey(SigningAlgorithm(row.key_kind), row.public_key),
            row.mode,
            show(PREFIX, row.person_id),
            row,
        )

    async def note_use(self, session: DeviceSession) -> None:
        """Remember to the minute when a session was last used."""
        row: Opened = session.opened
        now = real_now()
        if now - row.seen_at >= _TOUCHED_EVERY:
            await store.TOUCH_SESSION.run(self._db, row.token_hash, now)


async def open_session(
    tx: Tx,
    keyring: Keyring,
    person: Person,
    *,
    key: PublicKey,
    name: str,
    methods: Iterable[Method],
    tells: bool = True,
) -> NewSession:
    """Open a session on a phone, which is bound by that; what was open there ends.

    Where the phone is new its person is told, unless they are told otherwise (``tells``).

    Raises:
        DevicesTooMany
    """
    device = await bind_device(tx, person, key, name, tells=tells)
    await store.END_SESSIONS_ON.run(tx, device.id)
    token, now = secrets.token_urlsafe(32), real_now()
    used = sorted({each.value for each in methods})
    row = (_hash(keyring, token), person.id, device.id, used, now, now + SESSION_MAX)
    await store.INSERT_SESSION.run(tx, *row)
    facts = {"device": show(DEVICE_PREFIX, device.id), "methods": " ".join(used)}
    await audit.record(tx, "person.logged_in", person.actor, facts)
    return NewSession(Secret(token), device)


async def device_bound_at(on: Db | Tx, device_id: UUID) -> datetime | None:
    """Return when a phone was bound, in real time; None where it is not, or no more."""
    return await store.DEVICE_BOUND_AT.first(on, device_id)


async def bind_device(
    tx: Tx, person: Person, key: PublicKey, name: str, *, tells: bool
) -> PersonDevice:
    """Return the person's phone with this key, bound now if it was not before.

    Raises:
        DevicesTooMany
    """
    known = await store.FIND_DEVICE.first(tx, person.id, key.der)
    if known is not None:
        return known
    if len(await store.DEVICES.all(tx, person.id)) >= DEVICES_MAX:
        raise DevicesTooMany(devices_max=DEVICES_MAX)
    row = (new_id(), person.id, name, key.algorithm.value, key.der, real_now())
    made = await store.INSERT_DEVICE.first(tx, *row)
    if made is None:  # another login of this phone came first
        made = await store.FIND_DEVICE.one(tx, person.id, key.der)
    else:
        facts = {"device": show(DEVICE_PREFIX, made.id)}
        await audit.record(tx, "person.device_bound", person.actor, facts)
        if tells:
            await enqueue(tx, TellPerson(person.id, Notice.DEVICE_BOUND, spared=made.id))
    return made


async def bound_device(on: Db | Tx, person_id: UUID, key: PublicKey) -> PersonDevice | None:
    """Return the person's phone with this key, if it is one of theirs."""
    return await store.FIND_DEVICE.first(on, person_id, key.der)


async def devices_of(on: Db | Tx, person_id: UUID) -> list[PersonDevice]:
    """Return the person's phones."""
    return await store.DEVICES.all(on, person_id)


async def set_push_token(
    tx: Tx, keyring: Keyring, caller: DeviceCaller, person: Person, token: str
) -> None:
    """Reach the caller's phone by push from now on.

    Raises:
        SessionOver: the phone or its person is gone.
    """
    # The person first, as whoever erases them.
    held = await store.HOLD_PERSON.first(tx, person.id)
    device = await store.LOCK_DEVICE.first(tx, caller.current.device_id, person.id)
    if held is None or held.state != "active" or device is None:
        raise SessionOver
    own = await keyring_of(tx, keyring, person.id)
    await set_token(tx, keyring, own, (device.id, person.id, person.mode), token)


async def remove_device(tx: Tx, person_id: UUID, device_id: UUID) -> None:
    """Forget a phone; what is open there ends.

    Raises:
        DeviceNotFound
    """
    if not await store.REMOVE_DEVICE.run(tx, device_id, person_id, real_now()):
        raise DeviceNotFound
    await store.END_SESSIONS_ON.run(tx, device_id)
    await forget_token(tx, device_id)
    facts = {"device": show(DEVICE_PREFIX, device_id)}
    await audit.record(tx, "person.device_removed", show(PREFIX, person_id), facts)


async def current_person(db: Db, caller: DeviceCaller) -> Person:
    """Return who sent the request.

    Raises:
        SessionOver
    """
    person = await store.GET_PERSON.first(db, caller.current.person_id)
    if person is None or person.state != "active":
        raise SessionOver
    return person


async def holder_of(db: Db, keyring: Keyring, caller: DeviceCaller) -> Holder:
    """Return the caller as whoever confirms acts needs them.

    Raises:
        SessionOver
    """
    row: Opened = caller.current.opened
    addresses = await contacts_of(db, row.person_id)
    return Holder(
        row.person_id,
        row.token_hash,
        row.device_id,
        row.bound_at,
        frozenset(each.blind for each in addresses),
        caller.actor,
        await keyring_of(db, keyring, row.person_id),
    )


async def holder_in_browser(
    db: Db, keyring: Keyring, person: Person, *, session_hash: bytes, device_id: UUID
) -> Holder:
    """Return somebody at a page of ours as whoever confirms acts needs them.

    A browser is always a new device.
    """
    addresses = await contacts_of(db, person.id)
    return Holder(
        person.id,
        session_hash,
        device_id,
        real_now(),
        frozenset(each.blind for each in addresses),
        person.actor,
        await keyring_of(db, keyring, person.id),
    )


async def end_session(db: Db, caller: DeviceCaller) -> None:
    """End the caller's session; ending it again changes nothing."""
    await store.END_SESSION.run(db, caller.current.opened.token_hash)


async def end_other_sessions(tx: Tx, caller: DeviceCaller) -> None:
    """End every session of the caller's but this one."""
    row: Opened = caller.current.opened
    await store.END_SESSIONS_BUT.run(tx, row.person_id, row.token_hash)


async def end_sessions_of(tx: Tx, person_id: UUID) -> None:
    """End every session of somebody."""
    await store.END_SESSIONS_OF.run(tx, person_id)


async def prune_person_sessions(db: Db) -> None:
    """Forget sessions that are over."""
    now = real_now()
    await store.PRUNE_SESSIONS.run(db, now, now - IDLE_MAX)


def _hash(keyring: Keyring, token: str) -> bytes:
    return hmac_sha256(keyring.mac_key(_PURPOSE), b"look-up\n", token.encode())
