"""Issue virtual cards, freeze and close them, set their limits, and pay with one.

A payment is a transfer of the card's account, in one commit with the card's own running totals, so
limits of the law and of the card are exact however many pay at once. Who asks for it has the
number and no proof of a person, so it counts as confirmed with no factor (43号 第二十四条).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.controls.opening.rules import rules_in_force
from tongbao.infra import audit
from tongbao.infra.crypto import constant_time_equal
from tongbao.infra.db import Db, Tx, Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.kms.sealing_keys import SealingKeys
from tongbao.kernel.card_numbers import check_digit
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Conflict, NotFound, Rejected
from tongbao.kernel.ids import base32, derived_id, new_id
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.ledger.model import GroupInFlight
from tongbao.parties.bound_cards.binding import owner_of_cards
from tongbao.parties.e_accounts.model import (
    EAccount,
    EAccountOrder,
    EAccountState,
    EAccountStateWrong,
)
from tongbao.parties.e_accounts.opening import book_of, lock_account
from tongbao.parties.e_accounts.orders import Teller, Wanted, known_order, order
from tongbao.parties.e_accounts.queries import account_of_person, has_request
from tongbao.parties.people.dossier import Contributor
from tongbao.parties.people.model import Kept
from tongbao.parties.vault.cards import card_of, delete_card, keep_own_card, number_of, par_of
from tongbao.parties.vault.model import Number
from tongbao.parties.virtual_cards import _store as store
from tongbao.parties.virtual_cards.guesses import one_try
from tongbao.parties.virtual_cards.model import (
    NUMBER_DIGITS,
    RULES,
    CardDeclined,
    CardLimits,
    CardState,
    VirtualCard,
    VirtualCardClosed,
    VirtualCardNotFound,
    VirtualCardsTooMany,
    check_limits,
)

_BIN: Final = "990002"
_MONTHS: Final = 36
_MONTH: Final = timedelta(days=31)
_KEPT_BECAUSE: Final = "中华人民共和国反洗钱法（2024年修订）：客户身份资料和交易记录至少保存十年"


class Issued(Struct, frozen=True):
    """A card and, the one time that it was issued, its number."""

    card: VirtualCard
    number: Number | None

    def __repr__(self) -> str:
        return f"Issued({self.card.shown_id})"


class ByCard(Struct, frozen=True):
    """A payment that a card has confirmed, in place of a person."""

    write: Write

    def writes(self) -> tuple[Write, ...]:
        """Return the write that counts it on the card, in the payment's own commit."""
        return (self.write,)

    async def take(self, tx: Tx) -> None:
        """Count it in the caller's transaction.

        Raises:
            CardDeclined
        """
        if not await self.write.run(tx):
            raise CardDeclined


async def issue(
    tx: Tx, keys: SealingKeys, account: EAccount, limits: CardLimits, *, request_id: str
) -> Issued:
    """Issue a card of an account; the same request again is the same card, without its number.

    Raises:
        CardLimitsWrong, EAccountStateWrong, VirtualCardsTooMany, KmsUnavailable
    """
    check_limits(limits)
    locked = await lock_account(tx, account)
    known = await store.OF_REQUEST.first(tx, account.book, account.id, request_id)
    if known is not None:
        return Issued(known, None)
    if locked.state is not EAccountState.ACTIVE:
        raise EAccountStateWrong(status=locked.state.value)
    rules = await rules_in_force(tx, RULES, business_date(tx.now))
    most = rules.get("cards_max")
    there = await store.OPEN_OF_ACCOUNT.one(tx, account.book, account.id)
    if most is not None and there + 1 > most.figure:
        raise VirtualCardsTooMany(rule=most.name, most=most.figure, instrument=most.instrument)
    own, months = rules.get("bin"), rules.get("months_valid")
    number = _new_number(f"{own.figure:06d}" if own else _BIN)
    expires_at = tx.now + _MONTH * (months.figure if months else _MONTHS)
    in_clear = Number(number, f"{business_date(expires_at):%y%m}")
    owner = owner_of_cards(account.person_id, account.mode)
    kept = await keep_own_card(tx, keys, owner, in_clear)
    card = await store.INSERT.one(
        tx,
        *(account.book, new_id(), account.id, account.person_id, account.mode, request_id),
        *(kept.id, kept.par, kept.bin, kept.last4),
        *(limits.each_max, limits.day_max, limits.total_max),
        *(business_date(tx.now), expires_at, tx.now),
    )
    await audit.record(tx, "virtual_card.issued", card.shown_id, {})
    failpoint("virtual_cards.before_issue_commit")
    return Issued(card, in_clear)


async def set_frozen(tx: Tx, card: VirtualCard, *, is_frozen: bool) -> VirtualCard:
    """Stop a card from paying, or let it pay again.

    Raises:
        VirtualCardClosed
    """
    state = CardState.FROZEN if is_frozen else CardState.ACTIVE
    moved = await store.MOVE.first(tx, card.book, card.id, state, None)
    if moved is None:
        raise VirtualCardClosed
    await audit.record(tx, f"virtual_card.{state.value}", card.shown_id, {})
    return moved


async def set_limits(tx: Tx, card: VirtualCard, limits: CardLimits) -> VirtualCard:
    """Give a card other limits; what it has paid stays counted.

    Raises:
        CardLimitsWrong, VirtualCardClosed
    """
    check_limits(limits)
    row = (card.book, card.id, limits.each_max, limits.day_max, limits.total_max)
    changed = await store.SET_LIMITS.first(tx, *row)
    if changed is None:
        raise VirtualCardClosed
    facts = {"each": limits.each_max, "day": limits.day_max, "total": limits.total_max}
    await audit.record(tx, "virtual_card.limited", card.shown_id, facts)
    return changed


async def close(tx: Tx, card: VirtualCard) -> VirtualCard:
    """End a card and forget its number; a second time changes nothing."""
    closed = await store.MOVE.first(tx, card.book, card.id, CardState.CLOSED, tx.now)
    if closed is None:
        return await store.GET.one(tx, card.book, card.id)
    await delete_card(tx, owner_of_cards(card.person_id, card.mode), card.vault_card_id)
    await audit.record(tx, "virtual_card.closed", card.shown_id, {})
    failpoint("virtual_cards.before_close_commit")
    return closed


async def pay_by_card(
    teller: Teller,
    keys: SealingKeys,
    payee: EAccount,
    number: Number,
    *,
    money: Money,
    request_id: str,
) -> EAccountOrder:
    """Pay an account by a card's number; the same request of a payee again is the same payment.

    Raises:
        CardDeclined: whatever stands against it. GuessesTooMany, GroupInFlight
    """
    db = teller.db
    async with db.begin("virtual_cards") as tx:
        par = await par_of(tx, keys, number.number)
    card = await store.BY_PAR.first(db, payee.book, par)
    # What was paid once is answered to who asked for it, whatever became of the card since.
    if card is None or not await _is_repeat(db, card, payee, request_id):
        async with one_try(db, payee.book, par, payee.person_id) as heard:
            heard.is_right = card is not None and await _is_its_month(heard.tx, keys, card, number)
        if card is None or not heard.is_right:
            raise CardDeclined
    wanted = Wanted("transfer", money, _request_of(card, payee, request_id), payee.id)
    try:
        account = await account_of_person(db, card.mode, card.person_id, card.account_id)
        known = await known_order(db, account, wanted)
        if known is not None:
            return known  # whatever became of the card since
        now = db.clock.now()
        use = (card.book, card.id, money.amount, business_date(now), now)
        confirmed = ByCard(Write(store.PAY, use, refusal=CardDeclined.code))
        return await order(teller, account, wanted, level=0, confirmed=confirmed)
    except GroupInFlight:
        raise
    except (Conflict, Rejected, NotFound):
        raise CardDeclined from None  # what stands against others is nobody's business


async def cards_of(on: Db | Tx, account: EAccount) -> list[VirtualCard]:
    """Return the cards of an account, closed ones too, newest first."""
    return await store.OF_ACCOUNT.all(on, account.book, account.id)


async def card_of_account(on: Db | Tx, account: EAccount, wanted: UUID) -> VirtualCard:
    """Return a card of an account.

    Raises:
        VirtualCardNotFound
    """
    found = await store.GET.first(on, account.book, wanted)
    if found is None or found.account_id != account.id:
        raise VirtualCardNotFound
    return found


def contributor() -> Contributor:
    """Return what this domain keeps of a person: cards, which an erasure closes."""
    return Contributor("virtual_cards", _show, _erase)


async def _show(db: Db, person_id: UUID) -> list[dict[str, Any]]:
    rows = []
    for each in await _of_person(db, person_id):
        shown = msgspec.to_builtins(each)
        del shown["par"], shown["vault_card_id"]
        rows.append({"table": "virtual_card", **shown})
    return rows


async def _erase(tx: Tx, person_id: UUID) -> list[Kept]:
    found = await _of_person(tx, person_id)
    for each in found:
        await close(tx, each)
    return [Kept("virtual cards, without numbers", _KEPT_BECAUSE, None)] * bool(found)


async def _of_person(on: Db | Tx, person_id: UUID) -> Sequence[VirtualCard]:
    return [
        card for mode in Mode for card in await store.OF_PERSON.all(on, book_of(mode), person_id)
    ]


def _request_of(card: VirtualCard, payee: EAccount, request_id: str) -> str:
    # A colon is in no request_id of a person's, so no order of theirs is taken for a card's.
    return "card:" + base32(derived_id(payee.id, f"{card.id} {request_id}"))


async def _is_repeat(db: Db, card: VirtualCard, payee: EAccount, request_id: str) -> bool:
    request = _request_of(card, payee, request_id)
    return await has_request(db, card.book, card.account_id, request)


async def _is_its_month(tx: Tx, keys: SealingKeys, card: VirtualCard, number: Number) -> bool:
    if card.state is CardState.CLOSED:
        return False
    owner = owner_of_cards(card.person_id, card.mode)
    kept = await number_of(tx, keys, await card_of(tx, owner, card.vault_card_id))
    return constant_time_equal(kept.expiry.encode(), number.expiry.encode())


def _new_number(own: str) -> str:
    digits = own + "".join(secrets.choice("0123456789") for _ in range(NUMBER_DIGITS - 7))
    return digits + check_digit(digits)
