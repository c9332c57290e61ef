"""The pages on which somebody opens a wallet in a merchant's app: what the bank alone may ask.

link ──► phone and texts ──► code ──► password ──► real name ──► look and open ──► back
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal

from tongbao.kernel.errors import Refusal
from tongbao.parties.authentication.model import CodeWrong, PasswordRefused
from tongbao.parties.e_accounts.model import RealNameTooLow
from tongbao.parties.e_accounts.opening import check_real_name
from tongbao.parties.people.consents import Agreed, texts_in_force
from tongbao.parties.people.contacts import read_contact
from tongbao.parties.people.model import (
    ConsentMissing,
    ContactMalformed,
    Identity,
    IdentityGiven,
    IdentityMalformed,
    Person,
    RealNameNotConfirmed,
)
from tongbao.parties.people.real_names import ask_register, give_identity, identity_row
from tongbao.parties.user_wallets import applications, sittings
from tongbao.parties.user_wallets.sittings import Seat
from tongbao.surfaces.page_kit.replies import Reply
from tongbao.surfaces.user_wallets.desk import Visit

_PASSWORD_MAX: Final = 512
_AGREED: Final = re.compile(r"agree\.([a-z0-9_.-]{1,64})\.([0-9]{1,6})")
Wrong = Literal["", "contact", "consents", "code", "password", "weak", "name", "unknown", "differs"]


async def show_step(visit: Visit, seat: Seat, *, wrong: Wrong = "", status: int = 200) -> Reply:
    """Show the page that an opening is at."""
    sitting, checks = seat.sitting, visit.desk.checks
    facts: dict[str, Any] = {"wrong": wrong}
    if sitting.person_id is None:
        if sitting.message_code is None:
            facts["texts"] = await texts_in_force(visit.desk.db, visit.language)
            return await visit.page("phone.html", seat, status=status, **facts)
        contact = sittings.contact_of(checks, sitting)
        facts["sent_to"] = contact.masked if contact else ""
        if sitting.proved_at is None:
            return await visit.page("code.html", seat, status=status, **facts)
        facts["is_known"] = await sittings.has_account(checks, sitting)
        return await visit.page("password.html", seat, status=status, **facts)
    person = await visit.person(sitting)
    needs = await _name_needed(visit, seat, person)
    if needs is not None:
        identity = await identity_row(visit.desk.db, person.id)
        facts["known_as"] = identity if identity and person.real_name_level > 0 else None
        facts["needs"] = needs
        return await visit.page("name.html", seat, status=status, **facts)
    return await visit.page("review.html", seat, status=status, **facts)


async def take_phone(visit: Visit) -> Reply:
    """Take the phone and what was agreed to, and send a code about exactly these terms.

    Raises:
        SittingOver, TooManyRequests, CodesTooMany
    """
    seat = await visit.open_seat()
    agreed = [
        Agreed(match[1], int(match[2]))
        for name in visit.request.form
        if (match := _AGREED.fullmatch(name))
    ]
    try:
        contact = read_contact(visit.field("contact", 64))
        await sittings.ask_code(
            visit.desk.checks,
            seat,
            contact,
            agreed,
            source=visit.source,
            language=visit.language,
        )
    except ContactMalformed:
        return await show_step(visit, seat, wrong="contact", status=422)
    except ConsentMissing:
        return await show_step(visit, seat, wrong="consents", status=422)
    return visit.again()


async def take_code(visit: Visit) -> Reply:
    """Take the code that proves the phone.

    Raises:
        SittingOver, TooManyRequests
    """
    seat = await visit.open_seat()
    try:
        await sittings.prove_phone(visit.desk.checks, seat, visit.field("code", 16).strip())
    except CodeWrong:
        return await show_step(visit, seat, wrong="code", status=422)
    return visit.again()


async def begin_again(visit: Visit) -> Reply:
    """Forget the phone that was named, and ask for one.

    Raises:
        SittingOver, TooManyRequests
    """
    seat = await visit.open_seat()
    async with visit.desk.db.begin("somebody") as tx:
        await sittings.forget_phone(tx, seat.sitting)
    return visit.again()


async def take_password(visit: Visit) -> Reply:
    """Take the password of the account there is, or the one that is chosen for a new one.

    Raises:
        SittingOver, TooManyRequests, ConsentMissing
    """
    seat = await visit.open_seat()
    password = visit.field("password", _PASSWORD_MAX)
    try:
        person = await sittings.enter(visit.desk.checks, seat, password, language=visit.language)
    except PasswordRefused:
        return await show_step(visit, seat, wrong="weak", status=422)
    if person is None:
        return await show_step(visit, seat, wrong="password", status=422)
    return visit.again()


async def take_name(visit: Visit) -> Reply:
    """Take name and resident id, and ask as many registers as the class of account wants.

    Raises:
        SittingOver, TooManyRequests
    """
    seat, desk = await visit.open_seat(), visit.desk
    person = await visit.person(seat.sitting)
    try:
        if "name" in visit.request.form:
            identity = Identity(visit.field("name", 64), visit.field("resident_id", 32))
            async with desk.db.begin(person.actor) as tx:
                await give_identity(tx, desk.checks.keyring, person, identity)
        is_known = await _ask_registers(visit, seat, person)
    except (IdentityMalformed, IdentityGiven):
        return await show_step(visit, seat, wrong="name", status=422)
    except RealNameNotConfirmed as refusal:
        wrong: Wrong = "unknown" if refusal.facts.get("verdict") == "unknown" else "differs"
        return await show_step(visit, seat, wrong=wrong, status=422)
    if not is_known:
        return await show_step(visit, seat, wrong="unknown", status=422)
    return visit.again()


async def open_it(visit: Visit) -> Reply:
    """Open the wallet, or take the account there is, and send the person back.

    Raises:
        SittingOver, TooManyRequests, StrongerProofNeeded, ApplicationStateWrong,
        ReverificationNeeded, EAccountStateWrong
    """
    seat, desk = await visit.open_seat(), visit.desk
    person = await visit.person(seat.sitting)
    act = sittings.opening_act(seat.application)
    await sittings.check_strength(desk.checks, seat.sitting, person, act)
    try:
        async with desk.db.begin(person.actor) as tx:
            opened, _ = await applications.open_wallet(tx, desk.licence, seat.sitting, person)
    except RealNameTooLow:
        return visit.again()
    except applications.BY_RULES:
        async with desk.db.begin(person.actor) as tx:
            opened = await applications.turn_away(tx, seat.sitting)
    told = {"wallet_application": opened.shown_id, "status": opened.state.value}
    return visit.back(seat.sitting, told)


async def decline(visit: Visit) -> Reply:
    """Write down that the person does not want it, and send them back.

    Raises:
        SittingOver, TooManyRequests, ApplicationStateWrong
    """
    seat = await visit.open_seat()
    async with visit.desk.db.begin("somebody") as tx:
        refused = await applications.decline(tx, seat.sitting, "person")
    told = {"wallet_application": refused.shown_id, "status": refused.state.value}
    return visit.back(seat.sitting, told)


async def _name_needed(visit: Visit, seat: Seat, person: Person) -> str | None:
    """Return what is wanted before this person may have an account of the class; None: nothing."""
    desk = visit.desk
    async with desk.db.begin(person.actor) as tx:
        try:
            await check_real_name(tx, desk.licence, person, seat.application.account_class)
        except RealNameTooLow as refusal:
            return str(refusal.facts.get("needs", ""))
        except Refusal:
            return None  # said when it is opened
    return None


async def _ask_registers(visit: Visit, seat: Seat, person: Person) -> bool:
    """Ask one register after the other until enough agree; False: those that answered do not do.

    Raises:
        RealNameNotConfirmed, IdentityMalformed
    """
    desk, now_is = visit.desk, person
    registers = desk.people.registers[seat.sitting.mode]
    for source in sorted(registers):
        if await _name_needed(visit, seat, now_is) is None:
            return True
        await ask_register(desk.db, desk.checks.keyring, registers, now_is, source)
        now_is = await visit.person(seat.sitting)
    return await _name_needed(visit, seat, now_is) is None
