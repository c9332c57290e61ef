"""Consents: lodged by a partner, authorised or rejected by a person, revoked by either."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.kernel.errors import Fact
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.pages import Page, decode_moment, page_by_moment, page_size
from tongbao.parties.consents import _store as store
from tongbao.parties.consents.model import (
    Consent,
    ConsentEnded,
    ConsentNotFound,
    State,
    Wish,
)
from tongbao.parties.partners.model import Partner
from tongbao.parties.people.model import Person


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
