"""Begin a visit by a password, prove it by a code to one's own phone, and end it.

    password ──► code sent ──10 min──► proved ──15 min──► over

What a visit shows tells a lot about its person, so one factor shows nothing of it. A visit is of
one browser and of nothing else: it opens no account and moves no money.
"""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import real_now
from tongbao.kernel.errors import Conflict
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.parties.authentication.message_codes import send_code, take_allowance
from tongbao.parties.authentication.model import Act
from tongbao.parties.authentication.step_up import CODE_PREFIX, ByMessageCode, Checks, prove
from tongbao.parties.consent_visits import _store as store
from tongbao.parties.people.contacts import address_of, contacts_of, keyring_of, opened
from tongbao.parties.people.dossier import person_with_id
from tongbao.parties.people.entering import clear_tries, person_by_password
from tongbao.parties.people.model import Person
from tongbao.parties.people.sessions import holder_in_browser

CODE_LIFE: Final = timedelta(minutes=10)
VISIT_LIFE: Final = timedelta(minutes=15)
_ACT: Final = "open_bank.own_consents"

ConsentVisit = store.ConsentVisit


class VisitOver(Conflict):
    """The visit has ended, or was never begun in this browser."""

    code = "consent_visit.over"
    advice = "Log in again."
    advice_zh = "登录已失效，请重新登录。"


async def begin_visit(
    checks: Checks, mode: Mode, claimed: tuple[str, str], browser: str, *, source: str
) -> Person | None:
    """Send whoever has this address and password a code for a visit; None where nobody has.

    Raises:
        LoginsTooMany, CodesTooMany
    """
    db, keyring = checks.db, checks.keyring
    person = await person_by_password(checks, mode, *claimed)
    if person is None:
        return None
    own = await keyring_of(db, keyring, person.id)
    [first, *_] = await contacts_of(db, person.id)
    address = address_of(keyring, opened(own, first), person.language)
    await take_allowance(db, keyring, address.blind, source)
    kept = _hashed(browser)
    async with db.begin(person.actor) as tx:
        await clear_tries(tx, person)
        sent = await send_code(
            *(tx, keyring, address, "confirm"),
            mode=person.mode,
            owner_id=person.id,
            act=_act(kept),
        )
        now = real_now()
        await store.BEGIN.run(tx, kept, person.id, sent.code_id, now, now + CODE_LIFE)
        failpoint("consents.before_visit_commit")
    return person


async def prove_visit(checks: Checks, visit: ConsentVisit, code: str) -> None:
    """Take the code; from here the visit shows what it is about.

    Raises:
        VisitOver, CodeWrong
    """
    person = await person_with_id(checks.db, visit.person_id)
    holder = await holder_in_browser(
        checks.db,
        checks.keyring,
        person,
        session_hash=visit.browser_hash,
        device_id=visit.message_code,
    )
    claim = ByMessageCode(show(CODE_PREFIX, visit.message_code), code)
    await prove(checks, holder, claim, _act(visit.browser_hash))
    async with checks.db.begin(person.actor) as tx:
        now = real_now()
        if not await store.PROVED.run(tx, visit.browser_hash, now, now + VISIT_LIFE):
            raise VisitOver
        await audit.record(tx, "person.logged_in_to_consents", person.actor, {})


async def visit_of(db: Db, browser: str) -> ConsentVisit | None:
    """Return the visit of a browser, if it has one that is not over."""
    return await store.OF_BROWSER.first(db, _hashed(browser), real_now()) if browser else None


async def end_visit(db: Db, visit: ConsentVisit) -> None:
    """End a visit; ending it again changes nothing."""
    await store.END.run(db, visit.browser_hash)


async def forget_visits(tx: Tx, person_id: UUID) -> None:
    """Forget where somebody looked, who is erased."""
    await store.FORGET.run(tx, person_id)


async def prune_visits(db: Db) -> None:
    """Forget visits that are over."""
    await store.PRUNE.run(db, real_now())


def _act(browser_hash: bytes) -> Act:
    """Return what the code is about: to look, in this very browser."""
    return Act(_ACT, browser_hash.hex()[:32])


def _hashed(browser: str) -> bytes:
    return sha256(browser.encode()).digest()
