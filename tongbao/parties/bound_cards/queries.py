"""What others may ask about bound cards, and what is kept of a person by them."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import msgspec

from tongbao.infra.db import Db, Tx, Write
from tongbao.infra.kms.sealing_keys import SealingKeys
from tongbao.kernel.licence import Mode
from tongbao.parties.bound_cards import _store as store
from tongbao.parties.bound_cards.binding import card_of_person, end_tries, owner_of_cards, unbind
from tongbao.parties.bound_cards.model import BindingOver, BoundCard, BoundCardNotFound, BoundState
from tongbao.parties.people.dossier import Contributor
from tongbao.parties.people.model import Kept
from tongbao.parties.vault.cards import card_of, number_of
from tongbao.parties.vault.model import Number

_SHOWN_MAX: Final = 200
_KEPT_BECAUSE: Final = "中华人民共和国反洗钱法（2024年修订）：客户身份资料和交易记录至少保存十年"


async def cards_of_person(
    on: Db | Tx, person_id: UUID, mode: Mode, *, only_bound: bool = True
) -> list[BoundCard]:
    """Return somebody's cards, the default one first; with ``only_bound`` false tries too."""
    return await store.OF_PERSON.all(on, person_id, mode, only_bound, _SHOWN_MAX)


async def card_to_use(
    on: Db | Tx, person_id: UUID, mode: Mode, card_id: UUID | None
) -> BoundCard | None:
    """Return the bound card that is named, or the default one; None where there is none.

    Raises:
        BoundCardNotFound, BindingOver
    """
    if card_id is None:
        return await store.DEFAULT_OF.first(on, person_id, mode)
    found = await card_of_person(on, person_id, mode, card_id)
    if found.state is not BoundState.BOUND:
        raise BindingOver(status=found.state.value)
    return found


async def card_with_id(on: Db | Tx, card_id: UUID) -> BoundCard:
    """Return a card, whatever became of it.

    Raises:
        BoundCardNotFound
    """
    found = await store.GET.first(on, card_id)
    if found is None:
        raise BoundCardNotFound
    return found


async def number_behind(db: Db, keys: SealingKeys, card: BoundCard) -> Number:
    """Return a card's number in the clear, for whoever sends it to its bank at once.

    Raises:
        CardNotFound, SealUnreadable, SealingKeyDestroyed, KmsUnavailable
    """
    owner = owner_of_cards(card.person_id, card.mode)
    return await number_of(db, keys, await card_of(db, owner, card.vault_card_id))


def hold_write(card_id: UUID, person_id: UUID) -> Write:
    """Return the write by which an order begins over a card, which is not unbound meanwhile."""
    return Write(store.HOLD, (card_id, person_id, 1), refusal=BindingOver.code)


def bound_write(card: BoundCard) -> Write:
    """Return the write that refuses what is done with a card if it is not bound at that moment."""
    return Write(store.HOLD, (card.id, card.person_id, 0), refusal=BindingOver.code)


def let_go_write(card_id: UUID, person_id: UUID) -> Write:
    """Return the write by which an order over a card ends."""
    return Write(store.HOLD, (card_id, person_id, -1), refusal=BindingOver.code)


def contributor() -> Contributor:
    """Return what this domain keeps of a person: cards, which an erasure unbinds."""
    return Contributor("bound_cards", _show, _erase, _objects)


async def _show(db: Db, person_id: UUID) -> list[dict[str, Any]]:
    rows = []
    for mode in Mode:
        for card in await cards_of_person(db, person_id, mode, only_bound=False):
            shown = msgspec.to_builtins(card)
            for hidden in ("phone_mark", "par", "vault_card_id", "device"):
                del shown[hidden]
            rows.append({"table": "bound_card", **shown})
    return rows


async def _objects(db: Db, person_id: UUID) -> str | None:
    for mode in Mode:
        for card in await cards_of_person(db, person_id, mode):
            if card.in_use:
                return f"{card.shown_id} has money on its way"
    return None


async def _erase(tx: Tx, person_id: UUID) -> list[Kept]:
    """Unbind everything, which forgets the numbers; the rows name nobody but the person's id."""
    found = 0
    await end_tries(tx, person_id, tx.now)
    for mode in Mode:
        for card in await cards_of_person(tx, person_id, mode):
            await unbind(tx, card)
            found += 1
    return [Kept("bank cards that were bound, without numbers", _KEPT_BECAUSE, None)] * bool(found)
