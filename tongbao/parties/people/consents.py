"""Consent: texts by version, who agreed to which and when, and who withdrew.

A text in force is its kind's newest version. It is never changed: another version follows it, and
people who agreed to the old one are asked again. What was agreed to is known by its hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.kernel.errors import Fact
from tongbao.kernel.ids import new_id
from tongbao.parties.people import _store as store
from tongbao.parties.people.model import (
    ConsentMissing,
    ConsentRequired,
    ConsentText,
    ConsentTextNotFound,
    Person,
    PersonConsent,
)


class Draft(Struct, frozen=True, forbid_unknown_fields=True):
    """One text in one language, as it is published."""

    title: str
    body: str


class Agreed(Struct, frozen=True, forbid_unknown_fields=True):
    """What somebody agrees to: a kind of text, in this version."""

    kind: str
    version: int


async def publish_text(
    tx: Tx, kind: str, drafts: Mapping[Literal["zh", "en"], Draft], *, is_required: bool
) -> int:
    """Put a new version of a text in force, in all of its languages, and return its number."""
    version = await store.NEWEST_VERSION.one(tx, kind) + 1
    for language, draft in drafts.items():
        digest = hashlib.sha256(f"{draft.title}\n\n{draft.body}".encode()).digest()
        row = (kind, version, language, draft.title, draft.body, digest, is_required)
        await store.INSERT_TEXT.one(tx, *row, tx.now, tx.actor)
    await audit.record(tx, "consent.published", kind, {"version": version})
    return version


async def texts_in_force(on: Db | Tx, language: str) -> list[ConsentText]:
    """Return the newest version of every text, in this language where it has it."""
    found = await store.TEXTS_IN_FORCE.all(on)
    by_kind: dict[str, ConsentText] = {}
    for text in found:
        if text.kind not in by_kind or text.language == language:
            by_kind[text.kind] = text
    return list(by_kind.values())


async def give_consents(tx: Tx, person: Person, agreed: Sequence[Agreed]) -> None:
    """Write down what somebody agreed to; agreeing again changes nothing.

    Raises:
        ConsentTextNotFound
    """
    for each in agreed:
        text = await _text(tx, each, person.language)
        await store.GIVE_CONSENT.run(
            tx,
            new_id(),
            person.id,
            text.kind,
            text.version,
            text.language,
            text.sha256,
            tx.now,
        )
        facts: dict[str, Fact] = {"kind": text.kind, "version": text.version}
        await audit.record(tx, "consent.given", person.actor, facts)


async def check_required(on: Db | Tx, agreed: Sequence[Agreed]) -> None:
    """Raise unless everything required is agreed to in its newest version.

    Raises:
        ConsentMissing
    """
    given = {(each.kind, each.version) for each in agreed}
    missing = [
        f"{text.kind}:{text.version}"
        for text in await texts_in_force(on, "zh")
        if text.is_required and (text.kind, text.version) not in given
    ]
    if missing:
        raise ConsentMissing(missing=" ".join(missing)[:200])


async def withdraw_consent(tx: Tx, person: Person, kind: str) -> None:
    """Write down that somebody withdraws from a kind of text.

    Raises:
        ConsentTextNotFound, ConsentRequired
    """
    texts = [text for text in await texts_in_force(tx, person.language) if text.kind == kind]
    if not texts:
        raise ConsentTextNotFound
    if texts[0].is_required:
        raise ConsentRequired
    if await store.WITHDRAW_CONSENT.run(tx, person.id, kind, tx.now):
        await audit.record(tx, "consent.withdrawn", person.actor, {"kind": kind})


async def consents_of(on: Db | Tx, person_id: UUID) -> list[PersonConsent]:
    """Return what somebody agreed to and withdrew from, oldest first."""
    return await store.CONSENTS.all(on, person_id)


async def has_consent(on: Db | Tx, person_id: UUID, kind: str) -> bool:
    """Tell whether somebody agrees to a kind of text, in any version, and has not withdrawn."""
    return any(
        each.kind == kind and each.withdrawn_at is None for each in await consents_of(on, person_id)
    )


async def _text(tx: Tx, agreed: Agreed, language: str) -> ConsentText:
    for wanted in (language, "zh", "en"):
        found = await store.GET_TEXT.first(tx, agreed.kind, agreed.version, wanted)
        if found is not None:
            return found
    raise ConsentTextNotFound
