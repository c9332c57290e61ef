"""Routes of the wallet's app: sign a merchant's agreement with a bank card, list and end them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

from litestar import get, post
from msgspec import Meta, Struct

from tongbao.infra.serving.device_api import SELF, DeviceCaller
from tongbao.infra.web.caller import needs
from tongbao.kernel.ids import parse, show
from tongbao.parties.authentication.model import Act, ConfirmationUsed, StepUpRequired
from tongbao.parties.authentication.step_up import require_step_up
from tongbao.parties.bound_cards.binding import card_of_person
from tongbao.parties.bound_cards.model import PREFIX as CARD
from tongbao.parties.bound_cards.model import BindingOver, BoundCardNotFound
from tongbao.parties.merchants.queries import merchant_with_id
from tongbao.parties.people.sessions import holder_of
from tongbao.payments.agreements.agreements import AgreementNotFound, Reach
from tongbao.payments.agreements.model import (
    Agreement,
    AgreementCurrencyDiffers,
    AgreementNotActive,
    AgreementState,
    Period,
)
from tongbao.payments.card_agreements import signing
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.own_wallet.signing import WalletAgreementTaken, WalletAgreementUnknown
from tongbao.surfaces.own_payments.wire import ScanCode
from tongbao.surfaces.wallet.desk import PREFIX, Desk, done_once

_EXAMPLE: Final = ScanCode("tongbao:sign/06b2c4rks8ttz2wq0d1xv5y7ne")


class SignAgreement(Struct, frozen=True, forbid_unknown_fields=True):
    """Sign what the app has scanned, with a bound card."""

    code: Annotated[str, Meta(min_length=1, max_length=256)]
    card: Annotated[str, Meta(min_length=1, max_length=64)]


class CardAgreementView(Struct, frozen=True, kw_only=True):
    """Who may take how much from which card, how often, and how that stands."""

    id: str
    object: Literal["card_agreement"]
    payee: str
    display_name: str
    currency: str
    status: AgreementState
    card: str | None
    limit_each: int | None
    period: Period | None
    limit_per_period: int | None
    limit_total: int | None
    payments_max: int | None
    used_total: int
    expires_at: datetime
    signed_at: datetime | None
    ended_at: datetime | None


@post(
    f"{PREFIX}/agreement_scans",
    status_code=200,
    opt=needs(SELF, refuses=[WalletAgreementUnknown], request_example=_EXAMPLE),
)
async def scan_card_agreement(
    data: ScanCode, desk: Desk, flow: Flow, caller: DeviceCaller
) -> CardAgreementView:
    """Return what a scanned agreement would allow; nothing changes by it."""
    found = await signing.agreement_scanned(_reach(flow), caller.mode, data.code)
    return await _view(desk, found, is_own=False)


@post(
    f"{PREFIX}/agreements",
    opt=needs(
        SELF,
        refuses=[
            *(WalletAgreementUnknown, WalletAgreementTaken, AgreementCurrencyDiffers),
            *(BoundCardNotFound, BindingOver, StepUpRequired, ConfirmationUsed),
        ],
        request_example=SignAgreement(_EXAMPLE.code, "bcd_06b2c4rks8ttz2wq0d1xv5y7ne"),
    ),
)
async def sign_card_agreement(
    data: SignAgreement, desk: Desk, flow: Flow, caller: DeviceCaller
) -> CardAgreementView:
    """Sign a scanned agreement: its merchant may take money from the card until it is ended."""
    reach, person_id = _reach(flow), caller.current.person_id
    card = await card_of_person(desk.db, person_id, caller.mode, parse(CARD, data.card))

    async def signed() -> Agreement | None:
        found = await signing.agreement_scanned(reach, caller.mode, data.code)
        return found if found.payer == card.shown_id else None

    async def sign() -> Agreement:
        found = await signing.agreement_scanned(reach, caller.mode, data.code)
        payee = await merchant_with_id(desk.db, found.merchant_id)
        holder = await holder_of(desk.db, desk.checks.keyring, caller)
        subject = f"agreement.sign {show('agr', found.id)} {card.shown_id}"
        confirmed = await require_step_up(
            desk.checks, holder, Act("security", subject, payee=payee.name)
        )
        return await signing.sign(reach, card, data.code, confirmed)

    return await _view(desk, await done_once(signed, sign), is_own=True)


@get(f"{PREFIX}/agreements", opt=needs(SELF))
async def list_card_agreements(desk: Desk, caller: DeviceCaller) -> list[CardAgreementView]:
    """Return what one has signed with bank cards: what stands first, then what has ended."""
    found = await signing.agreements_of_person(desk.db, caller.mode, caller.current.person_id)
    return [await _view(desk, each, is_own=True) for each in found]


@post(
    f"{PREFIX}/agreements/{{agreement_id:str}}/end",
    status_code=200,
    opt=needs(SELF, refuses=[AgreementNotFound, AgreementNotActive]),
)
async def end_card_agreement(
    agreement_id: str, desk: Desk, flow: Flow, caller: DeviceCaller
) -> CardAgreementView:
    """End an agreement: nothing is taken under it any more."""
    wanted = parse("agr", agreement_id)
    person_id = caller.current.person_id
    found = await signing.agreement_of_person(desk.db, caller.mode, person_id, wanted)
    return await _view(desk, await signing.end(_reach(flow), found), is_own=True)


ROUTES: Final = (
    scan_card_agreement,
    sign_card_agreement,
    list_card_agreements,
    end_card_agreement,
)


def _reach(flow: Flow) -> Reach:
    return Reach(flow.db, flow.channels, flow.account, flow.nudge, flow.licence.may_hold_funds)


async def _view(desk: Desk, agreement: Agreement, *, is_own: bool) -> CardAgreementView:
    payee = await merchant_with_id(desk.db, agreement.merchant_id)
    return CardAgreementView(
        id=show("agr", agreement.id),
        object="card_agreement",
        payee=payee.name,
        display_name=agreement.display_name,
        currency=agreement.currency,
        status=agreement.state,
        card=agreement.payer if is_own else None,
        limit_each=agreement.limit_each,
        period=agreement.period,
        limit_per_period=agreement.limit_per_period,
        limit_total=agreement.limit_total,
        payments_max=agreement.payments_max,
        used_total=agreement.used_total if is_own else 0,
        expires_at=agreement.expires_at,
        signed_at=agreement.signed_at,
        ended_at=agreement.ended_at,
    )
