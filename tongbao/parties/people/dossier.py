"""A person's data: all of it for the person, erased when they ask, looked at by us with a reason.

Every domain that keeps something of people contributes: what it has, what has to end first, and
what it does when a person is erased. Wiring lists the contributors; a test finds tables that none
of them speaks for. Erasing deletes what may go and forgets the person's own key; what the law wants
kept is named with the law, and stays under the other key until its years are over.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import date
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, Tx
from tongbao.infra.notify.sending import (
    forget_notifications,
    notifications_of,
    prune_notifications,
)
from tongbao.infra.outbox import publish
from tongbao.infra.tasks import enqueue
from tongbao.kernel.clock import business_date, real_now
from tongbao.kernel.errors import Refusal
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import Page, decode_moment, encode_moment, page_size
from tongbao.parties.authentication.authenticators import authenticators_of, forget_authenticators
from tongbao.parties.authentication.certificates import certificates_of, forget_certificates
from tongbao.parties.authentication.message_codes import prune_message_codes
from tongbao.parties.authentication.model import OVER_KEPT
from tongbao.parties.authentication.passkeys import forget_passkeys, passkeys_of
from tongbao.parties.authentication.passwords import forget_passwords
from tongbao.parties.authentication.step_up import forget_confirmations, prune_challenges
from tongbao.parties.notices.model import Notice, TellPerson
from tongbao.parties.notices.phones import choices_of, forget_notices, tokens_of
from tongbao.parties.people import _store as store
from tongbao.parties.people.consents import consents_of
from tongbao.parties.people.contacts import (
    blind_of,
    contacts_of,
    keyring_of,
    opened,
    read_contact,
)
from tongbao.parties.people.model import (
    Contributed,
    ErasureBlocked,
    Identity,
    Kept,
    Person,
    PersonBar,
    PersonMoved,
    PersonNotFound,
)
from tongbao.parties.people.real_names import checks_of, identity_of, identity_row
from tongbao.parties.people.sessions import end_sessions_of, prune_person_sessions

_IDENTITY: Final = "identity"
_SECRET: Final = frozenset(
    {"sealed", "blind", "public_key", "credential_id", "chain", "fingerprint", "sha256"}
)

Show = Callable[[Db, UUID], Awaitable[list[dict[str, Any]]]]
Object = Callable[[Db, UUID], Awaitable[str | None]]
Erase = Callable[[Tx, UUID], Awaitable[list[Kept]]]


class Contributor(Struct, frozen=True):
    """One domain that keeps something of people.

    ``objects`` returns what has to end before an erasure, such as a balance, or None.
    """

    name: str
    show: Show
    erase: Erase
    objects: Object | None = None


class Revealed(Struct, frozen=True):
    """Who somebody is, in the clear, for an operator with a reason."""

    contacts: list[str]
    identity: Identity | None


def own_contributors(keyring: Keyring) -> tuple[Contributor, ...]:
    """Return what this domain and those below it keep of a person."""

    async def show_person(db: Db, person_id: UUID) -> list[dict[str, Any]]:
        return await _person_rows(db, keyring, person_id)

    return (
        Contributor("person", show_person, _erase_person),
        Contributor("authentication", _show_factors, _erase_factors),
        Contributor("messages", _show_messages, _erase_messages),
    )


async def export_person(
    db: Db, contributors: Sequence[Contributor], person: Person
) -> list[Contributed]:
    """Return everything every domain keeps of a person, and write down that it was given out."""
    found = [Contributed(each.name, await each.show(db, person.id)) for each in contributors]
    async with db.begin(person.actor) as tx:
        await audit.record(tx, "person.exported", person.actor, {"domains": len(found)})
    return found


async def erase_person(
    db: Db, contributors: Sequence[Contributor], person_id: UUID, *, actor: str
) -> list[Kept]:
    """Erase a person in one commit and return what is kept, and why.

    Raises:
        PersonNotFound, ErasureBlocked
    """
    for each in contributors:
        reason = await each.objects(db, person_id) if each.objects else None
        if reason is not None:
            raise ErasureBlocked(domain=each.name, reason=reason)
    async with db.begin(actor) as tx:
        if await store.LOCK_PERSON.first(tx, person_id) is None:
            raise PersonNotFound
        kept = [one for each in contributors for one in await each.erase(tx, person_id)]
        erased = await store.ERASE.first(tx, person_id, tx.now)
        if erased is None:
            raise PersonNotFound
        await store.FORGET_KEY.run(tx, person_id, "own")
        facts = {"kept": ", ".join(one.what for one in kept)[:200]}
        await audit.record(tx, "person.erased", erased.actor, facts)
    return kept


async def forget_what_was_kept(db: Db) -> int:
    """Forget the people whose years are over, and return how many there were."""
    today = business_date(db.clock.now())
    rule = await store.RETENTION.first(db, _IDENTITY, today)
    if rule is None:
        return 0
    before = db.clock.now().replace(year=today.year - rule.years, day=1)
    forgotten = await store.ERASED_BEFORE.all(db, before)
    for person_id in forgotten:
        async with db.begin("retention") as tx:
            await store.DROP_IDENTITY.run(tx, person_id)
            await store.FORGET_CHECKS.run(tx, person_id)
            await store.FORGET_CONSENTS.run(tx, person_id)
            await store.FORGET_KEY.run(tx, person_id, "kept")
            await audit.record(tx, "person.forgotten", show("per", person_id), {})
    return len(forgotten)


async def kept_by_law(db: Db, day: date) -> tuple[int, str] | None:
    """Return for how many years who somebody is is kept after erasure, and by what instrument."""
    rule = await store.RETENTION.first(db, _IDENTITY, day)
    return None if rule is None else (rule.years, rule.instrument)


async def keep_people(db: Db) -> None:
    """Forget sessions, codes, challenges and messages that are over, and people whose years are."""
    over = real_now() - OVER_KEPT
    await prune_person_sessions(db)
    await prune_message_codes(db, over)
    await prune_challenges(db, over)
    await prune_notifications(db)
    await forget_what_was_kept(db)


async def person_with_id(on: Db | Tx, person_id: UUID) -> Person:
    """Return a person.

    Raises:
        PersonNotFound
    """
    found = await store.GET_PERSON.first(on, person_id)
    if found is None:
        raise PersonNotFound
    return found


async def set_suspended(tx: Tx, person_id: UUID, *, suspended: bool, because: str) -> Person:
    """Keep a person from acting, ending every session, or let them act again.

    Raises:
        PersonNotFound
    """
    changed = await store.SET_STATE.first(tx, person_id, "suspended" if suspended else "active")
    if changed is None:
        raise PersonNotFound
    if suspended:
        await end_sessions_of(tx, person_id)
    action = "person.suspended" if suspended else "person.resumed"
    await audit.record(tx, action, changed.actor, {"because": because[:200]})
    notice = Notice.SUSPENDED if suspended else Notice.RESUMED
    await enqueue(tx, TellPerson(person_id, notice))
    moved = PersonMoved(merchant_id=None, mode=changed.mode, resource_id=changed.actor)
    await publish(tx, moved)
    return changed


async def hold_person(tx: Tx, person_id: UUID) -> Person:
    """Return a person, and hold their row against whoever opens, binds or bars.

    Raises:
        PersonNotFound
    """
    found = await store.HOLD_PERSON.first(tx, person_id)
    if found is None:
        raise PersonNotFound
    return found


async def check_not_barred(tx: Tx, person_id: UUID, refusal: type[Refusal]) -> None:
    """Raise the refusal if a person is barred now; their row stays held until the commit.

    Raises:
        PersonNotFound
    """
    await hold_person(tx, person_id)
    if any(each.stands(tx.now) for each in await bars_of(tx, person_id)):
        raise refusal


async def bars_of(on: Db | Tx, person_id: UUID) -> list[PersonBar]:
    """Return every bar of a person, over ones too, oldest first."""
    return await store.BARS.all(on, person_id)


async def write_bar(tx: Tx, bar: PersonBar) -> None:
    """Write a bar down; the caller holds the person."""
    row = (bar.id, bar.person_id, bar.document, bar.confirmed_on, bar.ends_at, bar.instrument)
    await store.INSERT_BAR.run(tx, *row, bar.set_by, bar.set_at)


async def end_bar(tx: Tx, bar: PersonBar, *, by: str, because: str) -> bool:
    """End a bar before its day and tell whether it had not been ended before."""
    return bool(await store.LIFT_BAR.run(tx, bar.id, by, tx.now, because))


async def find_people(
    on: Db | Tx,
    keyring: Keyring,
    *,
    text: str = "",
    person_id: UUID | None = None,
    mode: Mode | None = None,
    state: str | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[Person]:
    """Return people, newest first; ``text`` is a whole address or resident id of theirs.

    Raises:
        ContactMalformed, CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    _, before = decode_moment(cursor)
    blind = _blind(keyring, text) if text else None
    found = await store.FIND_PEOPLE.all(on, person_id, mode, state, blind, before, size + 1)
    last = found[size - 1] if len(found) > size else None
    return Page(found[:size], encode_moment(last.created_at, last.id) if last else None)


async def reveal(tx: Tx, keyring: Keyring, person: Person, *, because: str) -> Revealed:
    """Return who somebody is, and write down who wanted to know that and why."""
    rows = await contacts_of(tx, person.id)
    shown: list[str] = []
    if rows:
        own = await keyring_of(tx, keyring, person.id)
        shown = [opened(own, row).text for row in rows]
    identity = await identity_row(tx, person.id)
    await audit.record(tx, "person.revealed", person.actor, {"because": because[:200]})
    return Revealed(shown, await identity_of(tx, keyring, identity) if identity else None)


def _blind(keyring: Keyring, text: str) -> bytes:
    if len(text) == 18 and text[:17].isdecimal() and text.isascii():
        return blind_of(keyring, "resident_id", text.upper())
    contact = read_contact(text)
    return blind_of(keyring, contact.kind, contact.text)


async def _person_rows(db: Db, keyring: Keyring, person_id: UUID) -> list[dict[str, Any]]:
    person = await person_with_id(db, person_id)
    own = await keyring_of(db, keyring, person_id)
    contacts = await contacts_of(db, person_id)
    identity = await identity_row(db, person_id)
    rows = [_plain("account", person)]
    rows += [{**_plain("address", row), "text": opened(own, row).text} for row in contacts]
    rows += [_plain("device", row) for row in await store.ALL_DEVICES.all(db, person_id)]
    rows += [_plain("push_token", row) for row in await tokens_of(db, person_id)]
    rows += [_plain("notice_choice", row) for row in await choices_of(db, person_id)]
    rows += [_plain("consent", row) for row in await consents_of(db, person_id)]
    rows += [_plain("real_name_check", row) for row in await checks_of(db, person_id)]
    rows += [_plain("bar", row) for row in await bars_of(db, person_id)]
    rows.append({"kind": "sessions", "open": await store.SESSIONS_OF.one(db, person_id)})
    if identity is not None:
        said = await identity_of(db, keyring, identity)
        rows.append({**_plain("identity", identity), **msgspec.to_builtins(said)})
    return rows


async def _erase_person(tx: Tx, person_id: UUID) -> list[Kept]:
    await end_sessions_of(tx, person_id)
    await forget_notices(tx, person_id)
    await store.FORGET_DEVICES.run(tx, person_id)
    await store.FORGET_CONTACTS.run(tx, person_id)
    if await identity_row(tx, person_id) is None:
        await store.FORGET_KEY.run(tx, person_id, "kept")
        return []
    today = business_date(tx.now)
    rule = await store.RETENTION.first(tx, _IDENTITY, today)
    if rule is None:
        return [Kept("identity, checks and consents", "", None)]
    until = date(today.year + rule.years, today.month, 1)
    return [Kept("identity, checks and consents", rule.instrument, until)]


async def _show_factors(db: Db, person_id: UUID) -> list[dict[str, Any]]:
    rows = [_plain("authenticator", row) for row in await authenticators_of(db, person_id)]
    rows += [_plain("passkey", row) for row in await passkeys_of(db, person_id)]
    rows += [_plain("certificate", row) for row in await certificates_of(db, person_id)]
    return rows


async def _erase_factors(tx: Tx, person_id: UUID) -> list[Kept]:
    # First, for it waits for acts that take theirs now, and what those have made is seen then.
    await forget_confirmations(tx, person_id)
    await forget_passwords(tx, person_id)
    await forget_authenticators(tx, person_id)
    await forget_passkeys(tx, person_id)
    await forget_certificates(tx, person_id)
    return []


async def _show_messages(db: Db, person_id: UUID) -> list[dict[str, Any]]:
    return [_plain("message", row) for row in await notifications_of(db, person_id)]


async def _erase_messages(tx: Tx, person_id: UUID) -> list[Kept]:
    await forget_notifications(tx, person_id)
    return []


def _plain(kind: str, row: Struct) -> dict[str, Any]:
    """Return a row without its seals and keys, which say nothing of a person."""
    shown = {"kind": kind}
    for name, value in msgspec.to_builtins(row).items():
        if name not in _SECRET:
            shown["way" if name == "kind" else name] = value
    return shown
