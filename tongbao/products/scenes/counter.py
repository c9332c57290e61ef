"""The counter: a cashier keys an amount in and scans the code that the customer's phone shows."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.web.caller import Caller
from tongbao.infra.web.idempotency import Idempotency
from tongbao.kernel.errors import Busy, Overloaded, Refusal
from tongbao.kernel.ids import base32, show
from tongbao.kernel.money import Money
from tongbao.parties.merchants import queries as merchants
from tongbao.payments.asking.api import collect_asked
from tongbao.payments.asking.terms import CreatePayment
from tongbao.payments.methods.asked import MethodAsked
from tongbao.products.shop.endings import Shop, end_unpaid, look_at_order
from tongbao.products.shop.model import (
    METADATA_KEY,
    OrderLine,
    OrderState,
    Scene,
    ShopOrder,
    fingerprint,
)
from tongbao.products.shop.orders import commit_order, new_order, take_payment
from tongbao.rails.channels.contract.orders import PayMode

COUNTER_EXPIRES: Final = timedelta(minutes=5)


class CounterSale(Struct, frozen=True):
    """An amount keyed in at a counter, and the payment code the customer shows."""

    merchant_order_no: str
    money: Money
    subject: str
    auth_code: str
    client_ip: str


async def sell_at_counter(
    shop: Shop, caller: Caller, sale: CounterSale, use: Idempotency, order_id: UUID
) -> ShopOrder:
    """Write down what a cashier keyed in; `charge` takes the money.

    Raises:
        MerchantSuspended, ShopOrderNumberUsed, InFlight
    """
    (await merchants.merchant_with_id(shop.db, caller.merchant_id)).check_active()
    order = new_order(
        (caller.merchant_id, caller.mode),
        order_id,
        number=sale.merchant_order_no,
        total=sale.money,
        hash_=fingerprint(sale.money.amount, sale.money.currency, sale.subject),
        scene=Scene.COUNTER,
        subject=sale.subject,
        at=shop.db.clock.now(),
        expires_in=COUNTER_EXPIRES,
    )
    row = (order_id, 1, None, "", sale.subject, sale.money.amount, 1, sale.money.amount)
    line = OrderLine(*row, refunded=0, counted=False)
    return await commit_order(shop, order, [line], use, reserves=False)


async def charge(
    shop: Shop, keyring: Keyring, caller: Caller, order: ShopOrder, sale: CounterSale
) -> ShopOrder:
    """Charge the payment code for an order of the counter; a repeat goes on where it broke off.

    What is refused outright cancels the order, for the code is spent or wrong.

    Raises:
        what refuses a payment by code
    """
    if order.state is not OrderState.PLACED:
        return order

    def take(payment_id: UUID, _now: datetime) -> Write:
        return take_payment(order, payment_id)

    asked = CreatePayment(
        merchant_order_no=base32(order.id),
        amount=order.total,
        subject=order.subject,
        method=MethodAsked(PayMode.PAYMENT_CODE, auth_code=sale.auth_code),
        currency=order.currency,
        metadata={METADATA_KEY: show("ord", order.id)},
    )
    failpoint("scenes.before_charge")
    try:
        await collect_asked(shop.flow, keyring, caller, asked, (take, sale.client_ip))
    except (Busy, Overloaded):  # what became of it is not known: a repeat tells
        raise
    except Refusal:
        await end_unpaid(shop, order, given_up=True)
        raise
    failpoint("scenes.after_charge")
    return await look_at_order(shop, order.id)
