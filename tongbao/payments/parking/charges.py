"""Take the fee of a visit: an ordinary payment, made in the commit that takes the visit's charge.

What the car stayed for goes to the channel with the first call and is kept nowhere but sealed with
the visit; a call that was broken off is repeated by whoever repeats the request, word for word.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from tongbao.infra.db import Write
from tongbao.kernel.ids import new_id
from tongbao.kernel.money import Money
from tongbao.parties.merchants import queries as merchants
from tongbao.parties.merchants.model import LateSuccess
from tongbao.parties.price_plans.model import inputs_at
from tongbao.parties.price_plans.queries import price_plan_at, quote_with_volume
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.chase import pay_order, query
from tongbao.payments.collecting.decisions import News
from tongbao.payments.collecting.model import Attempt, AttemptState, NewPayment, Payment
from tongbao.payments.collecting.outcomes import Evidence, Flow, StateContended, record_news
from tongbao.payments.collecting.payments import (
    Taking,
    UseRefused,
    create_payment,
    earlier_payment,
)
from tongbao.payments.methods.asked import HowAsked
from tongbao.payments.parking import _store as store
from tongbao.payments.parking import queries
from tongbao.payments.parking.model import Visit, VisitCharged, VisitTimesWrong
from tongbao.payments.parking.visits import CarParks, car_of, visit_of
from tongbao.rails.channels.contract.orders import CarStay, PayMode
from tongbao.rails.channels.contract.outcomes import Absent, Closed, Declined, NotSent, Unknown

_CHARGED: Final = "parking.charge_taken"
_FEE_LIFETIME: Final = timedelta(hours=2)
_TRIES_MAX: Final = 3


class ChargeAsked(Struct, frozen=True):
    """A merchant's request to take a visit's fee."""

    merchant_order_no: str
    money: Money
    subject: str
    left_at: datetime | None
    metadata: dict[str, str]
    client_ip: str


async def charge_visit(
    parks: CarParks, visit: Visit, asked: ChargeAsked, take: Taking
) -> tuple[Payment, Attempt]:
    """Take the fee of a visit; the same order number with the same content returns what it made.

    Raises:
        VisitNotChargeable, VisitCharged, VisitTimesWrong, OrderNumberUsed, MerchantSuspended,
        PriceNotAgreed, ChannelNotOpened, ModeNotOffered, InFlight, StateContended
    """
    flow = parks.flow
    for _ in range(_TRIES_MAX):
        payment_id, now = new_id(), flow.db.clock.now()
        left_at = visit.left_at or asked.left_at or now
        if left_at < visit.entered_at or left_at > now:
            raise VisitTimesWrong(param="$.left_at")
        visit = replace(visit, left_at=left_at)
        new = await _new_payment(flow, visit, asked, now)
        earlier = await earlier_payment(flow, new, take)
        if earlier is not None:
            return earlier
        ref = visit.check_chargeable()
        await _check_unpaid(flow, visit)
        args = (visit.book, visit.id, visit.charges, payment_id, left_at)
        uses = (Write(store.TAKE_CHARGE, args, refusal=_CHARGED),)
        new = replace(new, stay=_stay(parks, visit, ref, left_at), uses=uses)
        try:
            return await create_payment(flow, new, take, payment_id)
        except UseRefused:  # somebody else charges it, or its plate was blocked
            visit = await queries.visit(flow.db, visit.book, visit.id)
    raise StateContended


async def resume_charge(parks: CarParks, visit: Visit, payment: Payment) -> tuple[Payment, Attempt]:
    """Carry on where a request was broken off: send the fee again, and believe a query only.

    Raises:
        StateContended
    """
    flow = parks.flow
    attempt = await payments.last_attempt(flow.db, payment)
    if attempt.state not in {AttemptState.CREATED, AttemptState.UNKNOWN} or visit.left_at is None:
        return payment, attempt
    stay = _stay(parks, visit, visit.visit_ref or "", visit.left_at)
    order = replace(pay_order(payment, attempt), stay=stay)
    channel, account = flow.channels[attempt.channel], await flow.account(attempt.account_id)
    answer = await channel.pay(account, order)
    news: News = answer.outcome
    if isinstance(news, Declined | NotSent):  # of this repeat: what became of the first is asked
        found = await query(channel, account, order)
        is_gone = isinstance(found.outcome, Absent | Closed | Declined)
        refused = news if isinstance(news, Declined) else Unknown(news.reason)
        news = refused if is_gone else found.outcome
    evidence = Evidence("channel answer", "pay", answer.exchange)
    return await record_news(flow, attempt, news, evidence)


async def _check_unpaid(flow: Flow, visit: Visit) -> None:
    if visit.payment_id is None:
        return
    payment = await payments.payment(flow.db, visit.book, visit.payment_id)
    if payment.state.is_open or payment.captured:
        raise VisitCharged(status=payment.state)


def _stay(parks: CarParks, visit: Visit, ref: str, left_at: datetime) -> CarStay:
    car = car_of(parks, visit)
    return CarStay(visit=visit_of(visit, car), ref=ref, left_at=left_at, device=car.device)


async def _new_payment(flow: Flow, visit: Visit, asked: ChargeAsked, now: datetime) -> NewPayment:
    merchant = await merchants.merchant_with_id(flow.db, visit.merchant_id)
    merchant.check_active()
    plan = await price_plan_at(flow.db, merchant.id, visit.mode, now)
    inputs = inputs_at(visit.channel, PayMode.AGREEMENT, asked.money, now)
    return NewPayment(
        merchant_id=merchant.id,
        mode=visit.mode,
        book=visit.book,
        merchant_order_no=asked.merchant_order_no,
        money=asked.money,
        subject=asked.subject,
        channel=visit.channel,
        pay_mode=PayMode.AGREEMENT,
        account_id=visit.account_id,
        price=await quote_with_volume(flow.db, visit.book, plan, inputs),
        late_success=LateSuccess.REFUND,  # the driver may have paid in another way since
        expires_in=_FEE_LIFETIME,
        metadata=asked.metadata,
        client_ip=asked.client_ip,
        how=HowAsked(visit_id=visit.id),
    )
