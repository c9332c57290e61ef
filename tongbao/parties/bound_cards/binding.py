"""Bind a bank card: asked of its bank by four elements, then confirmed from the card's own phone.

Whoever asks locks a row of the person, the device, the card and the phone, in one order for all,
and counts in later statements; so two who ask at once are counted one after the other. The bank is
asked with no transaction open. A try that dies in between is over, and counts as a try.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.controls.opening.rules import rules_in_force
from tongbao.infra import audit
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.kms.model import Owner
from tongbao.infra.kms.sealing_keys import SealingKeys
from tongbao.kernel.clock import business_date, day_bounds
from tongbao.kernel.ids import base32, new_id
from tongbao.kernel.licence import Mode
from tongbao.parties.authentication.message_codes import (
    CodeSent,
    send_code,
    take_allowance,
    try_code,
    use_code,
)
from tongbao.parties.authentication.step_up import Confirmed
from tongbao.parties.bound_cards import _store as store
from tongbao.parties.bound_cards.model import (
    CONFIRM_WITHIN,
    RULES,
    BindingBarred,
    BindingOver,
    BindingsTooMany,
    BoundCard,
    BoundCardNotFound,
    BoundState,
    CardBoundAlready,
    CardHolderUnknown,
    CardInUse,
    CardNotTaken,
    CardNotVerified,
    NoVerifier,
    Verifiers,
)
from tongbao.parties.card_bins.bins import card_facts
from tongbao.parties.card_bins.model import BinKind, CardFacts, brand_of
from tongbao.parties.people.contacts import Contact, address_of, blind_of
from tongbao.parties.people.dossier import check_not_barred
from tongbao.parties.people.model import Person
from tongbao.parties.people.real_names import identity_of, identity_row
from tongbao.parties.vault.cards import delete_card, save_card
from tongbao.parties.vault.model import Card, CardNotFound, Number

_PRUNED_MAX: Final = 200
_TEST_BANK: Final = "TEST"
_VERDICTS: Final = {"same": BoundState.VERIFIED, "different": BoundState.REFUSED}


class Binder(Struct, frozen=True):
    """What cards are bound with."""

    db: Db
    keyring: Keyring
    keys: SealingKeys
    verifiers: Verifiers


class NewCard(Struct, frozen=True):
    """What somebody gives of a card of theirs. In memory only."""

    number: Number
    phone: Contact
    device: UUID
    source: str  # the place on the network that asks

    def __repr__(self) -> str:
        return "NewCard(…)"


class Asked(Struct, frozen=True):
    """A card that its bank has verified, and the code that went to its phone."""

    card: BoundCard
    sent: CodeSent


def owner_of_cards(person_id: UUID, mode: Mode) -> Owner:
    """Return whose a person's cards are in the vault: theirs alone, under keys of their own."""
    return Owner(person_id, mode)


async def ask_to_bind(binder: Binder, person: Person, new: NewCard, confirmed: Confirmed) -> Asked:
    """Ask the card's bank about the four elements, and send a code to the card's phone.

    Raises:
        NoVerifier, CardHolderUnknown, CardNotTaken, CardNumberWrong, CardExpired, CardBoundAlready,
        BindingsTooMany, CardNotVerified, CodesTooMany, KmsUnavailable,
        ConfirmationUsed, BindingBarred
    """
    db, verifier = binder.db, binder.verifiers.get(person.mode)
    if verifier is None:
        raise NoVerifier
    identity = await identity_row(db, person.id)
    if identity is None:
        raise CardHolderUnknown
    who = await identity_of(db, binder.keyring, identity)
    facts = await _facts(db, person.mode, new.number.number)
    if facts is None or facts.kind is BinKind.PREPAID or new.phone.kind != "phone":
        raise CardNotTaken
    blind = blind_of(binder.keyring, "phone", new.phone.text)
    await take_allowance(db, binder.keyring, blind, new.source)
    async with db.begin(person.actor) as tx:
        # The person before what they confirmed, as an erasure takes them.
        await check_not_barred(tx, person.id, BindingBarred)
        await confirmed.take(tx)
        card = await _begin(tx, binder, person, new, facts)
        failpoint("bound_cards.before_begin_commit")
    answer = await verifier.ask(
        base32(card.id),
        name=who.name,
        resident_id=who.resident_id,
        card_number=new.number.number,
        phone=new.phone.text.removeprefix("+86"),
    )
    failpoint("bound_cards.after_ask")
    state = _VERDICTS.get(answer.verdict, BoundState.UNCLEAR)
    async with db.begin(person.actor) as tx:
        row = (state, answer.reference[:128], answer.account_class, tx.now)
        told = await store.ANSWER.first(tx, card.id, *row)
        if told is None:
            raise BindingOver  # it waited too long, and was ended meanwhile
        await audit.record(tx, "bound_card.asked", card.shown_id, {"state": state.value})
        if told.state is BoundState.VERIFIED:
            address = address_of(binder.keyring, new.phone, person.language)
            sent = await send_code(
                tx,
                binder.keyring,
                address,
                "bind_card",
                mode=person.mode,
                owner_id=person.id,
                act=told.act,
            )
        else:
            await _forget_number(tx, told)
        failpoint("bound_cards.before_answer_commit")
    if told.state is not BoundState.VERIFIED:
        raise CardNotVerified(verdict="different" if state is BoundState.REFUSED else "unknown")
    return Asked(told, sent)


async def confirm_binding(
    binder: Binder, person: Person, card: BoundCard, *, code_id: UUID, code: str
) -> BoundCard:
    """Bind a verified card by the code that its phone got; the first card is the default one.

    Raises:
        BindingBarred, CodeWrong, BindingOver, BindingsTooMany, CardBoundAlready
    """
    db = binder.db
    if card.state is BoundState.BOUND:
        return card
    proved = await try_code(db, binder.keyring, code_id, code, purpose="bind_card", act=card.act)
    if proved.blind != card.phone_mark:
        raise BindingOver
    async with db.begin(person.actor) as tx:
        await check_not_barred(tx, person.id, BindingBarred)
        await _lock_binders(tx, person.id, card.device, card.par, card.phone_mark)
        held = await store.LOCK.one(tx, card.id)
        if held.state is not BoundState.VERIFIED or tx.now > held.asked_at + CONFIRM_WITHIN:
            raise BindingOver(status=held.state.value)
        if await store.BOUND_ALREADY.one(tx, person.id, card.vault_card_id):
            raise CardBoundAlready
        await _check(tx, await _counted(tx, person, held))
        await use_code(tx, proved)
        has_default = await store.DEFAULT_OF.first(tx, person.id, person.mode)
        bound = await store.BIND.one(tx, card.id, tx.now, has_default is None)
        await audit.record(tx, "bound_card.bound", card.shown_id, {"issuer": card.issuer})
        failpoint("bound_cards.before_bind_commit")
    return bound


async def make_default(tx: Tx, person: Person, card: BoundCard) -> BoundCard:
    """Make a bound card the one that is used where none is named.

    Raises:
        BindingOver
    """
    await _lock_binders(tx, person.id)
    await store.DROP_DEFAULT.run(tx, person.id, person.mode)
    made = await store.SET_DEFAULT.first(tx, card.id)
    if made is None:
        raise BindingOver(status=card.state.value)
    await audit.record(tx, "bound_card.made_default", card.shown_id, {})
    return made


async def unbind(tx: Tx, card: BoundCard) -> BoundCard:
    """Let go of a card, and forget its number; a second time changes nothing.

    No other card becomes the default one: money must not move over a card that nobody chose.

    Raises:
        BindingOver, CardInUse
    """
    await _lock_binders(tx, card.person_id)
    held = await store.LOCK.one(tx, card.id)
    if held.state is BoundState.UNBOUND:
        return held
    if held.state is not BoundState.BOUND:
        raise BindingOver(status=held.state.value)
    ended = await store.UNBIND.first(tx, card.id, tx.now)
    if ended is None:
        raise CardInUse
    await _forget_number(tx, ended)
    await audit.record(tx, "bound_card.unbound", card.shown_id, {})
    failpoint("bound_cards.before_unbind_commit")
    return ended


async def card_of_person(on: Db | Tx, person_id: UUID, mode: Mode, card_id: UUID) -> BoundCard:
    """Return a card of somebody's; another's is as unknown as none.

    Raises:
        BoundCardNotFound
    """
    found = await store.GET.first(on, card_id)
    if found is None or (found.person_id, found.mode) != (person_id, mode):
        raise BoundCardNotFound
    return found


async def _facts(db: Db, mode: Mode, number: str) -> CardFacts | None:
    """Return what the tables say of a card; in the sandbox a card of nobody's is a test card."""
    found = await card_facts(db, number)
    if found is None and mode is Mode.SANDBOX:
        return CardFacts(BinKind.DEBIT, _TEST_BANK, brand_of(number), mode.value)
    return found


async def _begin(
    tx: Tx, binder: Binder, person: Person, new: NewCard, facts: CardFacts
) -> BoundCard:
    """Write the try down: what was counted before it does not stand against it."""
    await _lock_binders(tx, person.id)
    await end_tries(tx, person.id, tx.now - CONFIRM_WITHIN)
    owner = owner_of_cards(person.id, person.mode)
    kept = await save_card(tx, binder.keys, owner, new.number)
    mark = blind_of(binder.keyring, "phone", new.phone.text)
    await _lock_binders(tx, new.device, kept.par, mark)
    if await store.BOUND_ALREADY.one(tx, person.id, kept.id):
        raise CardBoundAlready
    card = await store.INSERT.one(
        tx,
        *(new_id(), person.id, person.mode, kept.id, kept.par, kept.bin, kept.last4),
        *(facts.issuer, facts.brand, facts.kind, new.phone.masked, mark, new.device, tx.now),
    )
    await _check_rules(tx, person, card)
    return card


async def _check_rules(tx: Tx, person: Person, card: BoundCard) -> None:
    """Raise if a rule does not allow this try, which is among what is counted."""
    today = day_bounds(business_date(tx.now))[0]
    rules = await rules_in_force(tx, RULES, business_date(tx.now))
    least = rules.get("real_name_level_min")
    if least is not None and person.real_name_level < least.figure:
        raise CardHolderUnknown(needs=f"level {least.figure}", instrument=least.instrument)
    tries = {
        "tries_per_person_day_max": await store.TRIES_OF_PERSON.one(tx, person.id, today),
        "tries_per_device_day_max": await store.TRIES_ON_DEVICE.one(tx, card.device, today),
        "tries_per_card_day_max": await store.TRIES_OF_CARD.one(tx, card.par, today),
    }
    there = await _counted(tx, person, card)
    early = {name: there[name] for name in ("cards_max", "persons_per_device_max")}
    await _check(tx, {**tries, **early})


async def _counted(tx: Tx, person: Person, card: BoundCard) -> dict[str, int]:
    """Return what there would be with this card, by the name of the rule that looks at it.

    Whose a card or a phone is besides is told to nobody but whoever has proved to have both.
    """
    others = (person.id, person.mode)
    return {
        "cards_max": 1 + await store.BOUND_OF_PERSON.one(tx, person.id),
        "persons_per_device_max": 1 + await store.OTHERS_ON_DEVICE.one(tx, card.device, *others),
        "persons_per_card_max": 1 + await store.OTHERS_OF_CARD.one(tx, card.par, *others),
        "persons_per_phone_max": 1 + await store.OTHERS_OF_PHONE.one(tx, card.phone_mark, *others),
    }


async def _check(tx: Tx, counted: dict[str, int]) -> None:
    rules = await rules_in_force(tx, RULES, business_date(tx.now))
    for name, there in counted.items():
        rule = rules.get(name)
        if rule is not None and there > rule.figure:
            raise BindingsTooMany(rule=name, most=rule.figure, instrument=rule.instrument)


async def _lock_binders(tx: Tx, *subjects: UUID | str | bytes) -> None:
    """Hold the rows of a person, a device, a card, a phone: in this order always."""
    for each in subjects:
        subject = each if isinstance(each, UUID) else _subject(each)
        await store.KNOW_BINDER.run(tx, subject)
        await store.LOCK_BINDER.one(tx, subject)


async def end_tries(tx: Tx, person_id: UUID, before: datetime) -> None:
    """End the tries that began before and that nobody has confirmed; forget their numbers."""
    for each in await store.STALE.all(tx, person_id, before):
        await store.END_STALE.run(tx, each.id, tx.now)
        await _forget_number(tx, each)


async def prune_tries(db: Db) -> None:
    """End what nobody has confirmed in time, some people's at once: no number is kept for nothing.

    Raises:
        DatabaseUnavailable
    """
    before = db.clock.now() - CONFIRM_WITHIN
    for person_id in await store.WITH_STALE.all(db, before, _PRUNED_MAX):
        async with db.begin("bound_cards") as tx:
            await _lock_binders(tx, person_id)
            await end_tries(tx, person_id, before)
            failpoint("bound_cards.before_prune_commit")


async def _forget_number(tx: Tx, card: BoundCard) -> Card | None:
    """Delete a card's number from the vault, unless another row of the person needs it."""
    if await store.OF_VAULT_CARD.one(tx, card.person_id, card.vault_card_id, card.id):
        return None
    owner = owner_of_cards(card.person_id, card.mode)
    try:
        return await delete_card(tx, owner, card.vault_card_id)
    except CardNotFound:
        return None


def _subject(text: str | bytes) -> UUID:
    raw = text.encode() if isinstance(text, str) else text
    return UUID(bytes=hashlib.sha256(b"card binder\n" + raw).digest()[:16])
