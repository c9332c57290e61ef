"""Agreements over a bound bank card, from its person's side: looked at, signed, listed, ended.

The card's bank is asked nothing when one is signed, so each of these is a change of the
agreement's row in one commit with its event, as with the own wallet. What is taken later goes over
the card host, like any payment by card.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from tongbao.infra.db import Db, Tx, Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.web.idempotency import InFlight
from tongbao.kernel.ids import UnknownId, parse, show
from tongbao.kernel.licence import Mode
from tongbao.parties.authentication.model import ConfirmationUsed
from tongbao.parties.authentication.step_up import Confirmed
from tongbao.parties.bound_cards import binding
from tongbao.parties.bound_cards.model import PREFIX as CARD
from tongbao.parties.bound_cards.model import BindingOver, BoundCard, BoundState
from tongbao.parties.bound_cards.queries import bound_write, card_with_id, cards_of_person
from tongbao.parties.people.dossier import Contributor
from tongbao.parties.people.model import Kept
from tongbao.payments.agreements import queries
from tongbao.payments.agreements.agreements import (
    AgreementNotFound,
    Reach,
    Taking,
    change_own,
    end_all_of_card,
    ended_by_us,
)
from tongbao.payments.agreements.model import (
    CARDS,
    Agreement,
    AgreementCurrencyDiffers,
    AgreementState,
    next_agreement,
)
from tongbao.payments.own_wallet.signing import WalletAgreementTaken, WalletAgreementUnknown
from tongbao.rails.channels.capabilities.agreements import AgreementSigned
from tongbao.rails.channels.codes import OWN_AGREEMENT_QR, number_of_own_qr

_CURRENCY: Final = "CNY"
_KEPT_BECAUSE: Final = "中华人民共和国反洗钱法（2024年修订）：客户身份资料和交易记录至少保存十年"


async def agreement_scanned(reach: Reach, mode: Mode, text: str) -> Agreement:
    """Return the agreement over cards whose code somebody has scanned.

    Raises:
        WalletAgreementUnknown
    """
    number = number_of_own_qr(text, OWN_AGREEMENT_QR)
    try:
        found = await queries.agreement_by_number(reach.db, number or "")
    except UnknownId:
        found = None
    if found is None or (found.channel, found.mode) != (CARDS, mode):
        raise WalletAgreementUnknown
    return found


async def sign(reach: Reach, card: BoundCard, text: str, confirmed: Confirmed) -> Agreement:
    """Sign what was scanned with a bound card; of two cards at once, one signs, and again is fine.

    The card is bound in the very commit: nothing is signed with one that is let go meanwhile.

    Raises:
        WalletAgreementUnknown, WalletAgreementTaken, AgreementCurrencyDiffers, BindingOver,
        ConfirmationUsed, AgreementContended
    """

    def decide(agreement: Agreement, now: datetime) -> Agreement | None:
        if agreement.state.is_signed and agreement.payer == card.shown_id:
            return None
        if agreement.state is not AgreementState.PENDING or now >= agreement.expires_at:
            raise WalletAgreementTaken(status=agreement.state)
        if agreement.currency != _CURRENCY:
            raise AgreementCurrencyDiffers(expected=_CURRENCY)
        _check_bound(card)
        signed = AgreementSigned(agreement.number, card.shown_id, now)
        return next_agreement(agreement, signed, "query", now)

    found = await agreement_scanned(reach, card.mode, text)
    try:
        return await change_own(reach, found, decide, _taking(confirmed), [bound_write(card)])
    except InFlight:
        _check_bound(await card_with_id(reach.db, card.id))
        raise ConfirmationUsed from None


def _check_bound(card: BoundCard) -> None:
    if card.state is not BoundState.BOUND:
        raise BindingOver(status=card.state.value)


def _taking(confirmed: Confirmed) -> Taking | None:
    writes = confirmed.writes()
    if not writes:
        return None

    def take(_agreement_id: UUID, _now: datetime) -> Write:
        return writes[0]

    return take


async def unbind(tx: Tx, card: BoundCard) -> BoundCard:
    """Let go of a card, and end in the same commit all that is signed with it.

    Raises:
        BindingOver, CardInUse
    """
    unbound = await binding.unbind(tx, card)
    await end_all_of_card(tx, card.shown_id)
    failpoint("card_agreements.before_unbind_commit")
    return unbound


async def end(reach: Reach, agreement: Agreement) -> Agreement:
    """End an agreement for its person: nothing is taken under it from now on.

    Raises:
        AgreementNotActive, AgreementContended
    """
    return await change_own(reach, agreement, ended_by_us)


async def agreements_of_person(on: Db | Tx, mode: Mode, person_id: UUID) -> list[Agreement]:
    """Return what somebody has signed with cards of theirs, also with former ones.

    What is still signed comes first, and the newest of it.
    """
    cards = await cards_of_person(on, person_id, mode, only_bound=False)
    return await queries.agreements_by_payers(on, [each.shown_id for each in cards])


async def agreement_of_person(on: Db | Tx, mode: Mode, person_id: UUID, wanted: UUID) -> Agreement:
    """Return an agreement that somebody has signed with a card of theirs.

    Raises:
        AgreementNotFound: also for one that anybody else has signed.
    """
    found = await queries.agreement_with_id(on, wanted)
    cards = await cards_of_person(on, person_id, mode, only_bound=False)
    if found.channel != "cards" or found.payer not in {each.shown_id for each in cards}:
        raise AgreementNotFound
    return found


def card_behind(agreement: Agreement) -> UUID:
    """Return the bound card that an agreement was signed with.

    Raises:
        UnknownId: none has signed it.
    """
    return parse(CARD, agreement.payer or "")


def contributor() -> Contributor:
    """Return what this domain keeps of a person: agreements, which are to be ended first."""
    return Contributor("card_agreements", _show, _erase, _objects)


async def _all_of(on: Db | Tx, person_id: UUID) -> Sequence[Agreement]:
    return [
        agreement for mode in Mode for agreement in await agreements_of_person(on, mode, person_id)
    ]


async def _show(db: Db, person_id: UUID) -> list[dict[str, Any]]:
    return [
        {
            "table": "agreement",
            "id": show("agr", each.id),
            **msgspec.to_builtins(each.terms),
            "display_name": each.display_name,
            "status": each.state.value,
            "card": each.payer,
            "signed_at": each.signed_at,
            "ended_at": each.ended_at,
        }
        for each in await _all_of(db, person_id)
    ]


async def _objects(db: Db, person_id: UUID) -> str | None:
    for each in await _all_of(db, person_id):
        if each.state.is_signed:
            return f"{show('agr', each.id)} has not ended"
    return None


async def _erase(tx: Tx, person_id: UUID) -> list[Kept]:
    """Keep what the law wants kept; the rows name nobody but the card's id.

    Cards are unbound by now, whose rows are what signing holds: so nothing is signed any more, and
    what was signed since somebody last looked ends with them.
    """
    found = await _all_of(tx, person_id)
    for payer in {each.payer for each in found if each.state.is_signed and each.payer}:
        await end_all_of_card(tx, payer)
    return [Kept("agreements over bank cards", _KEPT_BECAUSE, None)] * bool(found)
