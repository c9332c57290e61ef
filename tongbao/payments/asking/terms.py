"""What a merchant asks to be collected, with the price, the channel and the account it gets."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Final, Literal
from uuid import UUID

from msgspec import Meta, Struct
from msgspec.structs import replace

from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller
from tongbao.infra.web.request import InvalidValue, NumberField
from tongbao.kernel.money import Money
from tongbao.parties.card_bins.bins import card_facts
from tongbao.parties.card_bins.model import CardFacts
from tongbao.parties.merchants import queries as merchants
from tongbao.parties.merchants.model import LateSuccess, Merchant
from tongbao.parties.price_plans.model import Inputs, Quote, inputs_at
from tongbao.parties.price_plans.queries import price_plan_at, quote_with_volume
from tongbao.payments.agreements.agreements import how_under, use_writes
from tongbao.payments.agreements.model import CARDS, Agreement
from tongbao.payments.agreements.queries import usable_agreement
from tongbao.payments.card_agreements.charging import card_under, price_kind
from tongbao.payments.collecting.model import WALLET, NewPayment
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.collecting.payments import EXPIRES_DEFAULT, EXPIRES_MAX, CaptureNotOffered
from tongbao.payments.methods.asked import MethodAsked, card_of, how_asked
from tongbao.payments.routing.model import Asked, bin_of
from tongbao.rails.channels.codes import takers_of_code
from tongbao.rails.channels.contract.orders import PayMode

_METADATA_KEYS_MAX: Final = 50
CAPTURE_WITHIN_DEFAULT: Final = timedelta(days=7)
CAPTURE_WITHIN_MAX: Final = timedelta(days=30)
"""Card issuers and UnionPay keep a pre-authorisation for thirty days (facts of each channel)."""
ShortText = Annotated[str, Meta(max_length=500)]


class CreatePayment(Struct, frozen=True, forbid_unknown_fields=True):
    """Collect this much from a customer. ``amount`` is minor units: 1999 is 19.99 yuan.

    With ``capture`` manual the money is only set aside, for ``capture_within_s`` seconds (seven
    days when not said), and moves when it is captured. With ``terminal_id`` the payment counts
    against that terminal's limits, and the terminal tells of it when it is paid.
    """

    merchant_order_no: NumberField
    amount: int
    subject: Annotated[str, Meta(min_length=1, max_length=120)]
    method: MethodAsked
    currency: Annotated[str, Meta(min_length=3, max_length=3)] = "CNY"
    expires_in_s: Annotated[int, Meta(ge=60, le=int(EXPIRES_MAX.total_seconds()))] | None = None
    metadata: dict[Annotated[str, Meta(max_length=40)], ShortText] = {}
    capture: Literal["automatic", "manual"] = "automatic"
    capture_within_s: (
        Annotated[int, Meta(ge=3600, le=int(CAPTURE_WITHIN_MAX.total_seconds()))] | None
    ) = None
    terminal_id: Annotated[str, Meta(max_length=64)] | None = None


async def terms_of(
    flow: Flow,
    caller: Caller,
    data: CreatePayment,
    what: tuple[str | None, Money],
    *,
    client_ip: str,
    payment_id: UUID,
) -> NewPayment:
    """Return the request with what was agreed with the merchant for it, and where it goes.

    Raises:
        MerchantSuspended, PriceNotAgreed, ChannelNotOpened, NoChannelLeft, NoChannelUp
    """
    if len(data.metadata) > _METADATA_KEYS_MAX:
        raise InvalidValue(param="$.metadata", reason="at most 50 keys")
    (channel, money), now = what, flow.db.clock.now()
    merchant = await merchants.merchant_with_id(flow.db, caller.merchant_id)
    merchant.check_active()
    plan = await price_plan_at(flow.db, merchant.id, caller.mode, now)
    if data.method.agreement_id is not None:
        of = (caller.merchant_id, caller.mode)
        agreement = await usable_agreement(flow.db, data.method.agreement_id, of, money)
        if channel not in {None, agreement.channel}:
            raise InvalidValue(param="$.method.channel", reason="the agreement is of another")
        over = (agreement.channel, agreement.account_id)
        inputs = await _inputs_under(flow.db, agreement, money, now)
        price = await quote_with_volume(flow.db, caller.book, plan, inputs)
        asked = new_payment(data, caller, money, (merchant, price), over, client_ip=client_ip)
        return _under(agreement, asked, payment_id, now)
    decision, facts = None, await _card_facts(flow.db, data.method)
    if channel != WALLET:
        wanted = asked_of_router(data, caller, what, now=now, payment_id=payment_id)
        if facts is not None:
            kind = facts.kind.price_kind.value
            wanted = replace(wanted, card=kind, issuer=facts.issuer)
        wanted = await flow.router.settled(wanted)
        channel, decision = wanted.channel, await flow.router.place(wanted)
    if decision is not None:
        channel, account_id = decision.chosen.channel, decision.chosen.account_id
    inputs = inputs_at(channel or "", data.method.mode, money, now)
    if facts is not None:
        inputs = replace(inputs, card=facts.kind.price_kind)
    price = await quote_with_volume(flow.db, caller.book, plan, inputs)
    if decision is None:
        account_id = await _account_of(flow, caller, channel or "")
    over = (channel or "", account_id)
    asked = new_payment(data, caller, money, (merchant, price), over, client_ip=client_ip)
    return asked if decision is None else replace(asked, decision=decision)


async def _card_facts(db: Db, method: MethodAsked) -> CardFacts | None:
    """Return what a card's number tells, where a terminal has read one; else this asks nothing."""
    return None if method.card is None else await card_facts(db, method.card.number)


async def _inputs_under(db: Db, agreement: Agreement, money: Money, now: datetime) -> Inputs:
    """Return what the price of a payment under an agreement is looked up by."""
    if agreement.channel != CARDS:
        return inputs_at(agreement.channel, PayMode.AGREEMENT, money, now)
    inputs = inputs_at(CARDS, PayMode.CARD, money, now)
    return replace(inputs, card=await price_kind(db, agreement))


def _under(agreement: Agreement, asked: NewPayment, payment_id: UUID, now: datetime) -> NewPayment:
    """Return the payment as one under the agreement, counted against its limits.

    What comes too late goes back: its place within the limits may have been taken since.
    """
    uses = use_writes(agreement, payment_id, asked.money, now)
    if agreement.channel == CARDS:
        if asked.capture_within_s is not None:
            raise CaptureNotOffered(channel=CARDS)
        asked = replace(asked, pay_mode=PayMode.CARD, card=card_under(agreement))
    return replace(asked, how=how_under(agreement), uses=uses, late_success=LateSuccess.REFUND)


async def _account_of(flow: Flow, caller: Caller, channel: str) -> UUID:
    if channel == WALLET:
        return caller.merchant_id
    return await merchants.channel_account_of(flow.db, caller.merchant_id, caller.mode, channel)


def asked_of_router(
    data: CreatePayment,
    caller: Caller,
    what: tuple[str | None, Money],
    *,
    now: datetime,
    payment_id: UUID,
) -> Asked:
    """Return what routing is asked; ``what``: the channel that is named, if any, and the money."""
    (channel, money), card, code = what, data.method.card, data.method.auth_code
    return Asked(
        payment_id=payment_id,
        book=caller.book,
        merchant_id=caller.merchant_id,
        mode=caller.mode,
        pay_mode=data.method.mode,
        money=money,
        at=now,
        channel=channel,
        among=takers_of_code(code) if channel is None and code is not None else (),
        bin=bin_of(card.number) if card is not None else "",
        metadata=data.metadata,
        sets_aside=data.capture == "manual",
    )


def new_payment(
    data: CreatePayment,
    caller: Caller,
    money: Money,
    terms: tuple[Merchant, Quote],
    over: tuple[str, UUID],
    *,
    client_ip: str,
) -> NewPayment:
    """Return the request with its terms (merchant, price) and its channel and account there."""
    (merchant, price), (channel, account_id) = terms, over
    lifetime = timedelta(seconds=data.expires_in_s) if data.expires_in_s else EXPIRES_DEFAULT
    return NewPayment(
        merchant_id=merchant.id,
        mode=caller.mode,
        book=caller.book,
        merchant_order_no=data.merchant_order_no,
        money=money,
        subject=data.subject,
        channel=channel,
        pay_mode=data.method.mode,
        account_id=account_id,
        price=price,
        late_success=merchant.late_success,
        expires_in=lifetime,
        metadata=data.metadata,
        client_ip=client_ip,
        auth_code=data.method.auth_code,
        how=how_asked(data.method),
        card=card_of(data.method, caller.merchant_id, caller.mode),
        capture_within_s=_capture_within_s(data),
    )


def _capture_within_s(data: CreatePayment) -> int | None:
    if data.capture == "automatic":
        if data.capture_within_s is not None:
            raise InvalidValue(param="$.capture_within_s", reason="capture is automatic")
        return None
    return data.capture_within_s or int(CAPTURE_WITHIN_DEFAULT.total_seconds())
