"""Sign up, log in, set a new password: what a developer does whom nobody is known by yet.

Every answer to a wish for a code is the same and comes after the same work, whether the address has
an account or not; so is every refusal of a login. Passwords, codes and their limits are those of
`authentication`, which people use too.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.admission.login_sources import knock, let_in
from tongbao.infra.crypto import bind, constant_time_equal
from tongbao.infra.db import Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.settings import Secret
from tongbao.infra.webhooks.endpoints import Owner, delete_endpoint, endpoints_of
from tongbao.kernel.clock import real_now
from tongbao.kernel.errors import Refusal
from tongbao.kernel.ids import new_id, parse, show
from tongbao.kernel.licence import Mode
from tongbao.parties.authentication.message_codes import (
    CodeSent,
    Purpose,
    send_code,
    take_allowance,
    try_code,
    use_code,
)
from tongbao.parties.authentication.model import CodeWrong, MessageCode
from tongbao.parties.authentication.passwords import (
    check_choice,
    choose_password,
    forget_passwords,
    keep_password,
    matching_hash,
    password_matches,
    still_stands,
)
from tongbao.parties.authentication.step_up import CODE_PREFIX
from tongbao.parties.developers import _store as store
from tongbao.parties.developers.model import (
    NAME_MAX,
    PREFIX,
    Developer,
    DeveloperLoginRefused,
    DeveloperSessionEnded,
    Entrance,
    Language,
    MailNeeded,
    NameNeeded,
    Outfit,
)
from tongbao.parties.developers.sessions import OpenedSession, open_session
from tongbao.parties.identity.keys import create_key, revoke_key
from tongbao.parties.identity.model import NewKey
from tongbao.parties.identity.queries import keys_of_merchant
from tongbao.parties.merchants.merchants import (
    BankAccount,
    connect_channel,
    lock_merchant,
    open_merchant,
)
from tongbao.parties.people.contacts import Contact, address_of, blind_of, read_contact
from tongbao.parties.people.model import LOCKED_FOR, TRIES_MAX, ContactMalformed
from tongbao.parties.price_plans.plans import set_price_plan

_ACTOR: Final = "somebody"
_NOBODY: Final = UUID(int=0)
_SEALED: Final = "developer.mail"
_FIRST_KEY: Final = "first key"
_BANK_NUMBER: Final = "6222020200112233445"  # at the sandbox's bank, which pays to any


class Proof(Struct, frozen=True):
    """An address, and the code that was sent to it."""

    mail: str
    code_id: str
    code: str


class SignedUp(Struct, frozen=True):
    """A new developer, their session, and the first key of their test shop with its secret."""

    developer: Developer
    session: OpenedSession
    key: NewKey


def read_mail(text: str) -> Contact:
    """Return a mail address in the one form in which it is compared.

    Raises:
        MailNeeded
    """
    try:
        contact = read_contact(text)
    except ContactMalformed:
        raise MailNeeded(param="mail") from None
    if contact.kind != "mail":
        raise MailNeeded(param="mail")
    return contact


async def ask_code(
    entrance: Entrance, mail: str, *, purpose: Purpose, language: Language, source: str
) -> CodeSent:
    """Have a code sent to an address; the answer is the same whether anybody has it.

    Raises:
        MailNeeded, CodesTooMany
    """
    contact = read_mail(mail)
    address = address_of(entrance.keyring, contact, language)
    await take_allowance(entrance.db, entrance.keyring, address.blind, source)
    known = await store.FIND.first(entrance.db, address.blind)
    is_new = purpose == "register"
    right = is_new == (known is None)
    async with entrance.db.begin(_ACTOR) as tx:
        return await send_code(
            tx,
            entrance.keyring,
            address,
            purpose,
            mode=entrance.mail_mode,
            owner_id=known.id if known else None,
            instead=None if right else ("registered" if is_new else "unregistered"),
        )


async def sign_up(
    entrance: Entrance, outfit: Outfit, proof: Proof, *, password: str, name: str
) -> SignedUp:
    """Open a test shop for whoever has proved an address, with a first key, and let them in.

    All of it is one commit, in which the code is used up: a repeat finds the code used.

    Raises:
        MailNeeded, NameNeeded, PasswordRefused, CodeWrong
    """
    contact, shop = read_mail(proof.mail), " ".join(name.split())
    if not 1 <= len(shop) <= NAME_MAX or not shop.isprintable():
        raise NameNeeded(param="name")
    about = [contact.text.partition("@")[0]]
    check_choice(password, entrance.policy, about)
    row = await _proved(entrance, contact, proof, purpose="register")
    made_id, merchant_id = new_id(), new_id()
    hashed = await choose_password(entrance.db, made_id, password, entrance.policy, about)
    async with entrance.db.begin(show(PREFIX, made_id)) as tx:
        await use_code(tx, row)
        await _open_shop(tx, entrance, outfit, merchant_id, shop)
        developer = await _insert(tx, entrance, made_id, merchant_id, contact)
        await keep_password(tx, developer.id, hashed)
        key = await create_key(
            tx,
            entrance.keyring,
            merchant_id,
            Mode.SANDBOX,
            licence=outfit.licence,
            name=_FIRST_KEY,
            scopes=outfit.scopes,
        )
        session = await open_session(tx, entrance.keyring, developer)
        merchant = show("mch", merchant_id)
        await audit.record(tx, "developer.signed_up", developer.actor, {"merchant": merchant})
        failpoint("developers.before_sign_up_commit")
    return SignedUp(developer, session, key)


async def log_in(entrance: Entrance, mail: str, password: str) -> OpenedSession:
    """Open a session for whoever knows the password.

    Raises:
        DeveloperLoginRefused, LoginsTooMany
    """
    knocked = await knock(entrance.db, entrance.keyring, "developer")
    found = await _of_mail(entrance, mail)
    now = real_now()
    counted = await store.COUNT_TRY.first(
        entrance.db, found.id if found else _NOBODY, TRIES_MAX, now, now + LOCKED_FOR
    )
    matched = await matching_hash(entrance.db, counted.id if counted else _NOBODY, password)
    if counted is None or matched is None:
        async with entrance.db.begin(_ACTOR) as tx:
            subject = found.actor if found else "nobody"
            await audit.record(tx, "developer.login_refused", subject, {})
        raise DeveloperLoginRefused
    async with entrance.db.begin(counted.actor) as tx:
        if not await still_stands(tx, counted.id, matched):
            raise DeveloperLoginRefused  # it was changed, or the account closed, a moment ago
        await store.CLEAR_TRIES.run(tx, counted.id)
        await audit.record(tx, "developer.logged_in", counted.actor, {})
        opened = await open_session(tx, entrance.keyring, counted)
    await let_in(entrance.db, knocked)
    return opened


async def set_new_password(entrance: Entrance, proof: Proof, password: str) -> OpenedSession:
    """Set another password for whoever has the address; every session ends but the new one.

    Raises:
        MailNeeded, PasswordRefused, CodeWrong
    """
    contact = read_mail(proof.mail)
    about = [contact.text.partition("@")[0]]
    check_choice(password, entrance.policy, about)
    row = await _proved(entrance, contact, proof, purpose="recover")
    developer = await _of_mail(entrance, contact.text)
    if developer is None:  # the code cannot have been right
        raise CodeWrong
    hashed = await choose_password(entrance.db, developer.id, password, entrance.policy, about)
    async with entrance.db.begin(developer.actor) as tx:
        await use_code(tx, row)
        await keep_password(tx, developer.id, hashed)
        await store.END_SESSIONS_OF.run(tx, developer.id)
        await store.CLEAR_TRIES.run(tx, developer.id)
        await audit.record(tx, "developer.password_set", developer.actor, {})
        return await open_session(tx, entrance.keyring, developer)


async def close_account(entrance: Entrance, developer: Developer, password: str) -> None:
    """Forget a developer for good: address, password, sessions; keys end and endpoints go.

    The test shop stays as its book knows it, with nobody who can use it.

    Raises:
        DeveloperLoginRefused: the password is wrong, or was guessed at too often.
    """
    now = real_now()
    counted = await store.COUNT_TRY.first(
        entrance.db, developer.id, TRIES_MAX, now, now + LOCKED_FOR
    )
    right = await password_matches(entrance.db, developer.id if counted else _NOBODY, password)
    if counted is None or not right:
        raise DeveloperLoginRefused
    merchant_id, owner = developer.merchant_id, Owner(developer.merchant_id, developer.mode)
    async with entrance.db.begin(developer.actor) as tx:
        # Keys first: who replaces one over the API has its row, and then needs the shop's.
        for key_id in await _good_keys(tx, developer):
            await revoke_key(tx, merchant_id, developer.mode, key_id)
        await lock_merchant(tx, merchant_id)
        while good := await _good_keys(tx, developer):
            for key_id in good:
                await revoke_key(tx, merchant_id, developer.mode, key_id)
        for endpoint in await endpoints_of(tx, owner):
            await delete_endpoint(tx, owner, endpoint.id)
        await forget_passwords(tx, developer.id)
        await store.END_SESSIONS_OF.run(tx, developer.id)
        await store.DELETE.run(tx, developer.id)
        await audit.record(tx, "developer.closed", developer.actor, {})
        failpoint("developers.before_close_commit")


async def check_still_there(tx: Tx, developer: Developer) -> None:
    """Lock the developer's shop, and raise if the account was closed while this waited for it.

    Whatever a page adds to a shop comes after this: `close_account` takes all away under that lock.

    Raises:
        DeveloperSessionEnded
    """
    await lock_merchant(tx, developer.merchant_id)
    if await store.GET.first(tx, developer.id) is None:
        raise DeveloperSessionEnded


async def _good_keys(tx: Tx, developer: Developer) -> list[UUID]:
    found: list[UUID] = []
    cursor: str | None = None
    while True:
        page = await keys_of_merchant(
            tx, developer.merchant_id, developer.mode, cursor=cursor, limit=100
        )
        found += [key.id for key in page.items if key.is_good(real_now())]
        if (cursor := page.next_cursor) is None:
            return found


async def _proved(
    entrance: Entrance, contact: Contact, proof: Proof, *, purpose: Purpose
) -> MessageCode:
    """Return the row of a right code that was sent to this address for this purpose.

    Raises:
        CodeWrong
    """
    try:
        code_id = parse(CODE_PREFIX, proof.code_id)
    except Refusal:
        raise CodeWrong from None
    code = "".join(proof.code.split())
    row = await try_code(entrance.db, entrance.keyring, code_id, code, purpose=purpose)
    blind = blind_of(entrance.keyring, contact.kind, contact.text)
    if row.mode is not entrance.mail_mode or not constant_time_equal(row.blind, blind):
        raise CodeWrong
    return row


async def _of_mail(entrance: Entrance, mail: str) -> Developer | None:
    try:
        contact = read_mail(mail)
    except MailNeeded:
        return None
    blind = blind_of(entrance.keyring, contact.kind, contact.text)
    return await store.FIND.first(entrance.db, blind)


async def _open_shop(
    tx: Tx, entrance: Entrance, outfit: Outfit, merchant_id: UUID, name: str
) -> None:
    bank = BankAccount(name, Secret(_BANK_NUMBER))
    await open_merchant(tx, entrance.keyring, name=name, bank_account=bank, merchant_id=merchant_id)
    await set_price_plan(tx, merchant_id, Mode.SANDBOX, outfit.prices)
    priced = {line.channel for line in outfit.prices}
    for channel in sorted(priced & outfit.accounts.keys()):
        account_id = outfit.accounts[channel]
        await connect_channel(tx, merchant_id, Mode.SANDBOX, channel, account_id)


async def _insert(
    tx: Tx, entrance: Entrance, made_id: UUID, merchant_id: UUID, contact: Contact
) -> Developer:
    """Write the developer down.

    Raises:
        CodeWrong: somebody else proved the same address meanwhile.
    """
    place = bind("developer", "mail_sealed", made_id)
    sealed = entrance.keyring.seal(_SEALED, contact.text.encode(), place)
    blind = blind_of(entrance.keyring, contact.kind, contact.text)
    row = (made_id, merchant_id, blind, sealed, contact.masked, tx.now)
    developer = await store.INSERT.first(tx, *row)
    if developer is None:
        raise CodeWrong
    return developer
