"""Sittings: a link becomes one browser's, and whoever sits there proves who they are, step by step.

    link ──10 min──► opened by one browser ──30 min──► phone ──code──► password ──► somebody

A stranger sees the same page whatever phone they name; only who has read the code is asked for the
password of the account there is, or to choose one. The code is bound to the application's terms.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, Literal
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.crypto import bind, constant_time_equal
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import real_now
from tongbao.kernel.errors import Conflict, Rejected
from tongbao.kernel.ids import new_id
from tongbao.parties.authentication.message_codes import (
    send_code,
    take_allowance,
    try_code,
    use_code,
)
from tongbao.parties.authentication.model import Act, CodeWrong, Level, Method, level_of
from tongbao.parties.authentication.passwords import check_choice, choose_password
from tongbao.parties.authentication.step_up import Checks, Holder, level_for
from tongbao.parties.consents.model import hashed
from tongbao.parties.people.consents import Agreed, check_required, give_consents
from tongbao.parties.people.contacts import (
    Contact,
    address_of,
    blind_of,
    contacts_of,
    keyring_of,
    opened,
    owner_of,
)
from tongbao.parties.people.entering import (
    Registration,
    clear_tries,
    make_person,
    person_by_password,
)
from tongbao.parties.people.model import ContactMalformed, Person
from tongbao.parties.people.sessions import holder_in_browser
from tongbao.parties.user_wallets import _store as store
from tongbao.parties.user_wallets.model import (
    OPENED_LIFE,
    Proposal,
    Sitting,
    WalletApplication,
)

_CONTACT: Final = "user_wallets.contact"
_BY: Final = (Method.PASSWORD, Method.MESSAGE_CODE)
_SOMEBODY: Final = "somebody"


class SittingOver(Conflict):
    """The link is over, was opened elsewhere, or was never made."""

    code = "user_wallets.not_open"
    advice = "Go back to the app that sent you here and begin anew."
    advice_zh = "页面已失效，请返回原应用重新进入。"


class StrongerProofNeeded(Rejected):
    """The act needs a stronger proof than these pages take."""

    code = "user_wallets.stronger_proof_needed"
    advice = "Use a smaller amount, or do it in the wallet's own app."
    advice_zh = "该操作需要更强的身份验证，请减少金额或在钱包应用内办理。"


class Seat(Struct, frozen=True):
    """A sitting with what it is about."""

    sitting: Sitting
    application: WalletApplication
    proposal: Proposal | None


async def linked(db: Db, link: str) -> Seat | None:
    """Return what a link leads to, while it can be opened or is open somewhere."""
    sitting = await store.LINKED.first(db, hashed(link), real_now())
    return None if sitting is None else await _seat(db, sitting)


async def is_of_link(db: Db, seat: Seat, link: str) -> bool:
    """Tell whether a browser has this very link open."""
    sitting = await store.LINKED.first(db, hashed(link), real_now())
    return sitting is not None and sitting.id == seat.sitting.id


async def sit_down(tx: Tx, link: str, browser: str, device: str) -> Sitting | None:
    """Tie a link to the one browser that opens it; a second cannot."""
    now = real_now()
    row = (hashed(link), hashed(browser), hashed(device), now, now + OPENED_LIFE)
    return await store.SIT_DOWN.first(tx, *row)


async def seat_of(db: Db, browser: str) -> Seat | None:
    """Return what this browser has open."""
    sitting = await store.OF_BROWSER.first(db, hashed(browser), real_now())
    return None if sitting is None else await _seat(db, sitting)


async def ask_code(
    checks: Checks, seat: Seat, contact: Contact, agreed: Sequence[Agreed], *, source: str,
    language: Literal["zh", "en"],
) -> None:  # fmt: skip
    """Send a code about these terms to a phone, whoever's it is, once all required is agreed to.

    Raises:
        ContactMalformed, ConsentMissing, CodesTooMany, SittingOver
    """
    if contact.kind != "phone":
        raise ContactMalformed(param="contact")
    await check_required(checks.db, agreed)
    address = address_of(checks.keyring, contact, language)
    await take_allowance(checks.db, checks.keyring, address.blind, source)
    owner = await owner_of(checks.db, checks.keyring, seat.sitting.mode, contact)
    sealed = checks.keyring.seal(_CONTACT, contact.text.encode(), _place(seat.sitting.id))
    async with checks.db.begin(_SOMEBODY) as tx:
        sent = await send_code(
            tx,
            checks.keyring,
            address,
            "confirm",
            mode=seat.sitting.mode,
            owner_id=owner.person_id if owner else None,
            act=opening_act(seat.application),
        )
        row = (sealed, msgspec.json.encode(agreed).decode(), sent.code_id)
        if not await store.SENT_CODE.run(tx, seat.sitting.id, *row):
            raise SittingOver


async def prove_phone(checks: Checks, seat: Seat, code: str) -> None:
    """Take the code that was sent to the phone, once.

    Raises:
        CodeWrong, SittingOver
    """
    sitting, contact = seat.sitting, contact_of(checks, seat.sitting)
    if sitting.message_code is None or contact is None:
        raise SittingOver
    row = await try_code(
        checks.db,
        checks.keyring,
        sitting.message_code,
        code,
        purpose="confirm",
        act=opening_act(seat.application),
    )
    blind = blind_of(checks.keyring, contact.kind, contact.text)
    if row.mode is not sitting.mode or not constant_time_equal(row.blind, blind):
        raise CodeWrong
    async with checks.db.begin(_SOMEBODY) as tx:
        await use_code(tx, row)
        if not await store.PROVED.run(tx, sitting.id, row.id, real_now()):
            raise SittingOver
        failpoint("user_wallets.before_proved_commit")


async def has_account(checks: Checks, sitting: Sitting) -> bool:
    """Tell whoever has proved the phone whether it has an account here."""
    contact = contact_of(checks, sitting)
    if contact is None or sitting.proved_at is None:
        return False
    return await owner_of(checks.db, checks.keyring, sitting.mode, contact) is not None


async def enter(
    checks: Checks, seat: Seat, password: str, *, language: Literal["zh", "en"]
) -> Person | None:
    """Log in whose proved phone it is, or make an account for them with this password.

    None: it is not the password of the account that the phone has.

    Raises:
        SittingOver, PasswordRefused, ConsentMissing, ConsentTextNotFound, CodeWrong
    """
    sitting, contact = seat.sitting, contact_of(checks, seat.sitting)
    if contact is None or sitting.proved_at is None:
        raise SittingOver
    agreed = [Agreed(each["kind"], each["version"]) for each in sitting.agreed]
    await check_required(checks.db, agreed)
    if await owner_of(checks.db, checks.keyring, sitting.mode, contact) is not None:
        person = await person_by_password(checks, sitting.mode, contact.text, password)
        if person is None:
            return None
        async with checks.db.begin(person.actor) as tx:
            await clear_tries(tx, person)
            await give_consents(tx, person, agreed)
            await _note(tx, sitting, person)
        return person
    about = [contact.text.removeprefix("+86")]
    check_choice(password, checks.policy, about)
    wanted = Registration(sitting.mode, contact, password, agreed, language)
    person_id = new_id()
    chosen = await choose_password(checks.db, person_id, password, checks.policy, about)
    async with checks.db.begin(_SOMEBODY) as tx:
        person = await make_person(tx, checks, wanted, person_id, chosen)
        await _note(tx, sitting, person)
        failpoint("user_wallets.before_entered_commit")
    return person


async def log_in(checks: Checks, seat: Seat, contact: str, password: str) -> Person | None:
    """Let the person of an open wallet in; anybody else is told what a wrong password is told.

    Raises:
        SittingOver
    """
    person = await person_by_password(checks, seat.sitting.mode, contact, password)
    if person is None or person.id != seat.application.person_id:
        return None
    async with checks.db.begin(person.actor) as tx:
        await clear_tries(tx, person)
        await _note(tx, seat.sitting, person)
    return person


async def send_confirming(
    checks: Checks, sitting: Sitting, person: Person, act: Act, *, source: str,
    card_id: UUID | None = None,
) -> None:  # fmt: skip
    """Send a code about exactly this act to the person's own phone.

    Raises:
        CodesTooMany, SittingOver
    """
    own = await keyring_of(checks.db, checks.keyring, person.id)
    [first, *_] = await contacts_of(checks.db, person.id)
    address = address_of(checks.keyring, opened(own, first), person.language)
    await take_allowance(checks.db, checks.keyring, address.blind, source)
    async with checks.db.begin(person.actor) as tx:
        sent = await send_code(
            tx,
            checks.keyring,
            address,
            "confirm",
            mode=person.mode,
            owner_id=person.id,
            act=act,
        )
        if not await store.SENT_AGAIN.run(tx, sitting.id, sent.code_id, card_id):
            raise SittingOver


async def check_strength(checks: Checks, sitting: Sitting, person: Person, act: Act) -> Holder:
    """Return the person, whose password and code are enough for this act.

    Raises:
        StrongerProofNeeded
    """
    holder = await holder_in_browser(
        checks.db,
        checks.keyring,
        person,
        session_hash=sitting.browser_hash or b"",
        device_id=sitting.id,
    )
    needed = max(Level.TWO, await level_for(checks, holder, act))
    if level_of(_BY) < needed:
        raise StrongerProofNeeded
    return holder


def opening_act(application: WalletApplication) -> Act:
    """Return what a code for an opening confirms: these terms for this user of this merchant's."""
    terms = (
        *(application.merchant_id, application.user_ref, application.account_class),
        *(application.grants, application.each_max, application.day_max),
    )
    digest = hashlib.sha256(msgspec.json.encode(terms)).hexdigest()[:32]
    return Act("user_wallets.open", f"{application.shown_id} {digest}")


def contact_of(checks: Checks, sitting: Sitting) -> Contact | None:
    """Return the phone that is being proved."""
    if sitting.contact_sealed is None:
        return None
    text = checks.keyring.open(_CONTACT, sitting.contact_sealed, _place(sitting.id)).decode()
    return Contact("phone", text)


async def forget_phone(tx: Tx, sitting: Sitting) -> None:
    """Forget the phone that was named and what was proved of it, so that one is asked for again."""
    await store.FORGET_PHONE.run(tx, sitting.id)


async def end(tx: Tx, sitting: Sitting) -> None:
    """Close what a browser has open."""
    await store.END.run(tx, sitting.id, real_now())


async def _note(tx: Tx, sitting: Sitting, person: Person) -> None:
    if not await store.ENTERED.run(tx, sitting.id, person.id):
        raise SittingOver
    facts = {"purpose": sitting.purpose}
    await audit.record(tx, "person.logged_in_to_wallet_page", person.actor, facts)


async def _seat(db: Db, sitting: Sitting) -> Seat:
    application = await store.GET_APPLICATION.one(db, sitting.application_id)
    proposal = None
    if sitting.proposal_id is not None:
        proposal = await store.GET_PROPOSAL.one(db, sitting.proposal_id)
    return Seat(sitting, application, proposal)


def _place(sitting_id: UUID) -> bytes:
    return bind("wallet_session", "contact_sealed", sitting_id)
