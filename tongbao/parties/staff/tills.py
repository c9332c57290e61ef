"""People at tills: a PIN chosen with a code, signing in at a terminal, and who is there now.

A terminal's own key signs every request; who acts is named by a session, which is good at that
terminal alone, under the key it had, for one person, and for a shift.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.admission.login_sources import knock, let_in
from tongbao.infra.crypto import Keyring, constant_time_equal
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.settings import Secret
from tongbao.infra.web.caller import Caller
from tongbao.kernel.errors import Fact
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode
from tongbao.parties.authentication import passwords
from tongbao.parties.staff import _store as store
from tongbao.parties.staff.model import (
    CODE_LIFE,
    CODE_MISSES_MAX,
    PIN_LOCKED,
    PIN_TRIES,
    PIN_TRIES_MAX,
    PREFIX,
    SESSION_LIFE,
    Pin,
    PinCode,
    PinCodeRefused,
    PinLocked,
    PinNotSet,
    PinWrong,
    Staff,
    StaffElsewhere,
    StaffLeft,
    StaffNotFound,
    StaffSuspended,
    TillSession,
    TillSessionOver,
    check_pin,
)
from tongbao.parties.staff.staff import person_of
from tongbao.parties.terminals.model import PREFIX as TERMINAL
from tongbao.parties.terminals.model import Terminal, TerminalState, TerminalSuspended, new_code

_PEOPLE_MAX: Final = 200
_ACTOR: Final = "tills"


class SignedIn(Struct, frozen=True):
    """A person at a till."""

    session: TillSession
    staff: Staff


async def give_pin_code(tx: Tx, caller: Caller, staff_id: UUID) -> Secret:
    """Return a new code with which a person chooses a PIN; good once, for a day.

    A PIN that there is goes on until the code is used.

    Raises:
        StaffNotFound, StaffLeft
    """
    found = await store.LOCK_STAFF.first(tx, staff_id, caller.merchant_id, caller.mode)
    if found is None:
        raise StaffNotFound
    if found.state == "left":
        raise StaffLeft
    code = new_code()
    await store.GIVE_CODE.run(tx, found.id, _hash_of(code), tx.now + CODE_LIFE)
    await audit.record(tx, "staff.pin_code_given", show(PREFIX, found.id), {})
    return Secret(code)


async def people_at(db: Db, terminal: Terminal) -> list[Staff]:
    """Return who may sign in at a terminal, if they have a PIN."""
    whose = (terminal.merchant_id, terminal.mode)
    return await store.STAFF_AT.all(db, *whose, terminal.store_id, _PEOPLE_MAX)


async def set_pin(
    db: Db, keyring: Keyring, terminal: Terminal, staff_id: UUID, *, code: str, pin: str
) -> None:
    """Put a person's new PIN in force for the right code, and use the code up.

    A wrong code is counted in a commit of its own; after five the code is dead. Whoever was signed
    in with the PIN of before is out.

    Raises:
        TerminalSuspended, StaffNotFound, StaffLeft, StaffSuspended, StaffElsewhere, PinTooSimple,
        PinCodeRefused, LoginsTooMany
    """
    knocked = await knock(db, keyring, "staff")
    staff = await _person_here(db, terminal, staff_id)
    check_pin(pin, person_of(keyring, staff).phone)
    async with db.begin(_ACTOR) as tx:
        found = await store.LOCK_CODE.first(tx, staff.id)
        is_right = found is not None and _fits(found, code, tx.now)
        if not is_right:
            await store.MISS_CODE.run(tx, staff.id)
    if not is_right:
        raise PinCodeRefused
    kept = await passwords.hash_of(pin)
    failpoint("tills.before_pin")
    async with db.begin(_ACTOR) as tx:
        await _locked(tx, terminal, staff.id)
        if not await store.USE_CODE.run(tx, staff.id, _hash_of(code)):
            raise PinCodeRefused  # it was used, or another was made, a moment ago
        await store.SET_PIN.run(tx, staff.id, kept, tx.now)
        await store.END_SESSIONS_OF.run(tx, staff.id, tx.now)
        facts = {"terminal": show(TERMINAL, terminal.id)}
        await audit.record(tx, "staff.pin_set", show(PREFIX, staff.id), facts)
    await let_in(db, knocked)


async def sign_in(
    db: Db, keyring: Keyring, terminal: Terminal, staff_id: UUID, pin: str
) -> SignedIn:
    """Sign a person in at a terminal; whoever was signed in there is out.

    Five wrong tries lock the PIN for half an hour, fifteen in a row until there is a new one.

    Raises:
        TerminalSuspended, StaffNotFound, StaffLeft, StaffSuspended, StaffElsewhere, PinNotSet,
        PinLocked, PinWrong, LoginsTooMany
    """
    knocked = await knock(db, keyring, "staff")
    staff = await _person_here(db, terminal, staff_id)
    counted = await _count_try(db, staff.id)
    failpoint("tills.after_try")
    if not await passwords.matches(pin, counted.hash):
        left = PIN_TRIES - (counted.tries - 1) % PIN_TRIES - 1
        facts: dict[str, Fact] = {"terminal": show(TERMINAL, terminal.id), "tries_left": left}
        async with db.begin(_ACTOR) as tx:
            await audit.record(tx, "staff.sign_in_refused", show(PREFIX, staff.id), facts)
        raise PinWrong(tries_left=left)
    async with db.begin(show(PREFIX, staff.id)) as tx:
        locked = await _locked(tx, terminal, staff.id)
        if not await store.RIGHT_PIN.run(tx, staff.id, counted.number):
            raise PinWrong  # it was changed a moment ago
        session = await store.OPEN_SESSION.one(
            tx,
            *(terminal.id, new_id(), terminal.key_number, staff.id),
            *(staff.merchant_id, staff.mode, tx.now, tx.now + SESSION_LIFE),
        )
        where = {"terminal": show(TERMINAL, terminal.id)}
        await audit.record(tx, "staff.signed_in", show(PREFIX, staff.id), where)
    await let_in(db, knocked)
    return SignedIn(session, locked)


async def signed_in(db: Db, terminal: Terminal, session_id: UUID) -> SignedIn:
    """Return who is at a till under a session, as they stand at this moment.

    Raises:
        TerminalSuspended, TillSessionOver
    """
    session = await store.GET_SESSION.first(db, terminal.id, session_id)
    is_good = (
        session is not None
        and session.ended_at is None
        and db.clock.now() < session.ends_at
        and (session.merchant_id, session.mode) == (terminal.merchant_id, terminal.mode)
        and session.key_number == terminal.key_number
    )
    if session is None or not is_good:
        raise TillSessionOver
    try:
        return SignedIn(session, await _person_here(db, terminal, session.staff_id))
    except (StaffNotFound, StaffLeft, StaffSuspended, StaffElsewhere):
        raise TillSessionOver from None


async def sign_out(db: Db, terminal: Terminal, session_id: UUID) -> None:
    """End a session at a terminal; one that is over stays so."""
    session = await store.GET_SESSION.first(db, terminal.id, session_id)
    if session is None:
        return
    async with db.begin(show(PREFIX, session.staff_id)) as tx:
        if await store.END_SESSION.run(tx, terminal.id, session_id, tx.now):
            where = {"terminal": show(TERMINAL, terminal.id)}
            await audit.record(tx, "staff.signed_out", show(PREFIX, session.staff_id), where)


async def _person_here(on: Db | Tx, terminal: Terminal, staff_id: UUID) -> Staff:
    """Return a person who may be at this terminal.

    Raises:
        TerminalSuspended, StaffNotFound, StaffLeft, StaffSuspended, StaffElsewhere
    """
    merchant_id, mode = _owner(terminal)
    found = await store.GET_STAFF.first(on, staff_id, merchant_id, mode)
    return await _checked(on, terminal, found)


async def _locked(tx: Tx, terminal: Terminal, staff_id: UUID) -> Staff:
    """Do as `_person_here`, and keep the person as they are until the end of the transaction."""
    merchant_id, mode = _owner(terminal)
    found = await store.LOCK_STAFF.first(tx, staff_id, merchant_id, mode)
    return await _checked(tx, terminal, found)


async def _checked(on: Db | Tx, terminal: Terminal, found: Staff | None) -> Staff:
    if found is None:
        raise StaffNotFound
    if found.state == "left":
        raise StaffLeft
    if found.state == "suspended":
        raise StaffSuspended
    if not found.every_store and terminal.store_id not in await store.STORES.all(on, found.id):
        raise StaffElsewhere
    return found


def _owner(terminal: Terminal) -> tuple[UUID | None, Mode | None]:
    if terminal.state is not TerminalState.BOUND:
        raise TerminalSuspended
    return terminal.merchant_id, terminal.mode


async def _count_try(db: Db, staff_id: UUID) -> Pin:
    """Return the PIN with one more try counted.

    Raises:
        PinNotSet, PinLocked
    """
    now = db.clock.now()
    rules = (now, PIN_TRIES, now + PIN_LOCKED, PIN_TRIES_MAX)
    counted = await store.COUNT_TRY.first(db, staff_id, *rules)
    if counted is not None:
        return counted
    found = await store.GET_PIN.first(db, staff_id)
    if found is None:
        raise PinNotSet
    if found.tries >= PIN_TRIES_MAX or found.locked_until is None:
        raise PinLocked(until=None)
    raise PinLocked(until=found.locked_until.isoformat())


def _hash_of(code: str) -> bytes:
    plain = code.replace("-", "").replace(" ", "").upper()
    return hashlib.sha256(b"staff PIN code\n" + plain.encode(errors="replace")).digest()


def _fits(kept: PinCode, code: str, now: datetime) -> bool:
    fits = constant_time_equal(kept.code_hash, _hash_of(code))
    return fits and now < kept.expires_at and kept.misses < CODE_MISSES_MAX
