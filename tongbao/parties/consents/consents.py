"""Consents: lodged by a partner, authorised or rejected by a person, revoked by either."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from tongbao.infra import audit
from tongbao.infra.db import Db, Query, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import event_write, publish
from tongbao.kernel.errors import Fact
from tongbao.kernel.ids import derived_id, new_id, parse, show
from tongbao.kernel.pages import Page, decode_moment, page_by_moment, page_size
from tongbao.parties.consents import _store as store
from tongbao.parties.consents.model import (
    Consent,
    ConsentAuthorised,
    ConsentEnded,
    ConsentExpired,
    ConsentNotFound,
    ConsentResumed,
    ConsentRevoked,
    ConsentSuspended,
    State,
    Wish,
    notice_of,
)
from tongbao.parties.partners.model import Partner, PartnerMoved, PartnerState
from tongbao.parties.partners.partners import partner_with_id
from tongbao.parties.people.dossier import person_with_id
from tongbao.parties.people.model import PREFIX as PERSON
from tongbao.parties.people.model import Person, PersonMoved

_USE_NOTED_EVERY: Final = timedelta(minutes=1)
_TOLD_MAX: Final = 500
_SHOWN_MAX: Final = 200


async def lodge_consent(tx: Tx, partner: Partner, wish: Wish) -> UUID:
    """Write down what a partner asks somebody for; nobody is known yet."""
    consent_id = new_id()
    money = wish.money
    await store.INSERT_CONSENT.run(
        tx,
        consent_id,
        partner.id,
        partner.mode,
        wish.kind,
        wish.details,
        wish.permissions,
        money.amount if money else None,
        money.currency if money else None,
        wish.payee,
        wish.payee_name,
        wish.expires_at,
        tx.now,
    )
    facts: dict[str, Fact] = {"partner": partner.client_id, "kind": wish.kind.value}
    await audit.record(tx, "consent.lodged", show("cns", consent_id), facts)
    return consent_id


async def consent_with_id(on: Db | Tx, consent_id: UUID) -> Consent:
    """Return a consent that is known to exist."""
    return await store.GET_CONSENT.one(on, consent_id)


async def authorise_consent(
    tx: Tx, consent_id: UUID, person: Person, accounts: Sequence[UUID], *, methods: Sequence[str]
) -> Consent:
    """Write down that somebody consents, for these accounts, and how they proved themselves.

    Raises:
        ConsentEnded
    """
    row = (consent_id, person.id, list(accounts), tx.now)
    consent = await store.AUTHORISE.first(tx, *row)
    if consent is None:
        raise ConsentEnded
    facts: dict[str, Fact] = {
        "person": person.actor,
        "accounts": len(accounts),
        "methods": " ".join(sorted(methods)),
    }
    await audit.record(tx, "consent.authorised", consent.shown_id, facts)
    await publish(tx, notice_of(ConsentAuthorised, consent, consent.state.value))
    return consent


async def reject_consent(tx: Tx, consent_id: UUID, person: Person | None) -> None:
    """Write down that somebody does not consent.

    Raises:
        ConsentEnded
    """
    if not await store.REJECT.run(tx, consent_id, person.id if person else None, tx.now):
        raise ConsentEnded
    facts: dict[str, Fact] = {"person": person.actor if person else "somebody"}
    await audit.record(tx, "consent.rejected", show("cns", consent_id), facts)


async def revoke_consent(tx: Tx, consent_id: UUID, *, by: str) -> bool:
    """End a consent and every token on it; it tells whether there was anything to end.

    A code or a token that is being used at this moment waits for the consent's row, or we for it.
    """
    await store.LOCK_CONSENT.one(tx, consent_id)
    ended = bool(await store.REVOKE.run(tx, consent_id, tx.now, by))
    await store.REVOKE_TOKENS_OF.run(tx, consent_id, tx.now)
    if ended:
        await audit.record(tx, "consent.revoked", show("cns", consent_id), {"by": by})
        consent = await store.GET_CONSENT.one(tx, consent_id)
        await publish(tx, notice_of(ConsentRevoked, consent, consent.state.value))
    return ended


async def revoke_own(tx: Tx, person: Person, consent_id: UUID) -> Consent:
    """End a consent of one's own; ending it again changes nothing.

    Raises:
        ConsentNotFound, ConsentEnded
    """
    found = await store.GET_CONSENT.first(tx, consent_id)
    if found is None or found.person_id != person.id:
        raise ConsentNotFound
    if not await revoke_consent(tx, consent_id, by="person"):
        found = await store.GET_CONSENT.one(tx, consent_id)
        if found.state is not State.REVOKED:
            raise ConsentEnded
    return await store.GET_CONSENT.one(tx, consent_id)


async def note_use(db: Db, consent: Consent) -> None:
    """Note that a partner has used a consent, once a minute at most."""
    now = db.clock.now()
    if consent.last_used_at is None or now - consent.last_used_at >= _USE_NOTED_EVERY:
        await store.NOTE_USE.run(db, consent.id, now, now - _USE_NOTED_EVERY)


async def tell_expired(db: Db) -> None:
    """Tell partners of consents whose time is over, each once, a set at a time."""
    async with db.begin("consents") as tx:
        for each in await store.TELL_EXPIRED.all(tx, tx.now, _TOLD_MAX):
            await publish(tx, notice_of(ConsentExpired, each, "expired"))
        failpoint("consents.before_expiry_commit")


async def on_partner_moved(db: Db, moved: PartnerMoved, event_id: UUID) -> None:
    """Tell a partner that its consents are suspended, or good again, as it stands itself now."""
    if moved.merchant_id is not None:
        partner = await partner_with_id(db, moved.merchant_id)
        await _tell_all(db, store.GOOD_OF_PARTNER, partner.id, event_id)


async def on_person_moved(db: Db, moved: PersonMoved, event_id: UUID) -> None:
    """Tell partners that a person's consents are suspended, or good again."""
    person = await person_with_id(db, parse(PERSON, moved.resource_id))
    if person.state != "erased":  # what was erased has revoked every consent
        await _tell_all(db, store.GOOD_OF_PERSON, person.id, event_id)


async def _tell_all(db: Db, of: Query[Consent], owner: UUID, event_id: UUID) -> None:
    """Tell of each consent that is good by itself whether its two sides let it be used.

    The ids of what is told are made of the event's and the consent's, so to do it again after a
    death tells nobody twice.
    """
    last: UUID | None = None
    while rows := await of.all(db, owner, db.clock.now(), last, _TOLD_MAX):
        async with db.begin("consents") as tx:
            for each in rows:
                notice = (
                    notice_of(ConsentResumed, each, each.state.value)
                    if await is_usable(tx, each)
                    else notice_of(ConsentSuspended, each, "suspended")
                )
                told = derived_id(event_id, each.shown_id)
                await event_write(notice, now=tx.now, event_id=told).run(tx)
            failpoint("consents.before_told_commit")
        last = rows[-1].id


async def is_usable(on: Db | Tx, consent: Consent) -> bool:
    """Tell whether neither the partner nor the person of a consent is suspended or gone."""
    if consent.person_id is None:
        return False
    partner = await partner_with_id(on, consent.partner_id)
    person = await person_with_id(on, consent.person_id)
    return partner.state is PartnerState.ACTIVE and person.state == "active"


async def good_consents_of(db: Db, person_id: UUID) -> list[Consent]:
    """Return what somebody has consented to and what is good now, as much as fits a page."""
    return await store.GOOD_OF_PERSON.all(db, person_id, db.clock.now(), None, _SHOWN_MAX)


async def consents_of_person(
    on: Db | Tx, person_id: UUID, *, cursor: str | None = None, limit: int | None = None
) -> Page[Consent]:
    """Return what somebody consented to and rejected, the newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    _, before = decode_moment(cursor)
    found = await store.CONSENTS_OF.all(on, person_id, before, size + 1)
    return page_by_moment(found, size, lambda row: (row.created_at, row.id))
