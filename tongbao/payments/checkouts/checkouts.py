"""Open a checkout, try to pay it, give a try up, call it off.

One try at a time. Another way is tried only after proof that the one before did not and will not
take the money: it is closed at its channel first, and who wins the next try is decided in the
commit that makes its payment. Money of a try that has ended is never kept, whatever the merchant's
terms say about late money: another try may have been paid meanwhile.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from tongbao.infra.db import Db, Tx, Write
from tongbao.infra.tasks import enqueue
from tongbao.infra.web.idempotency import InFlight
from tongbao.kernel.ids import new_id, show
from tongbao.parties.merchants import queries as merchants
from tongbao.parties.merchants.model import LateSuccess
from tongbao.parties.price_plans.model import inputs_at
from tongbao.parties.price_plans.queries import price_plan_at, quote_with_volume
from tongbao.parties.terminals.limits import usable_terminal
from tongbao.parties.terminals.model import PREFIX as TERMINAL
from tongbao.payments.checkouts import _store as store
from tongbao.payments.checkouts import queries
from tongbao.payments.checkouts.closing import CloseCheckout, over_at
from tongbao.payments.checkouts.model import (
    CREATED_PER_MINUTE_MAX,
    METADATA_KEY,
    TRIES_MAX,
    TRY_LIFETIME,
    TRY_LIFETIMES,
    Checkout,
    CheckoutAsked,
    CheckoutClosed,
    CheckoutPaid,
    CheckoutsTooMany,
    CheckoutTriedTooOften,
    Offer,
    check_return_url,
)
from tongbao.payments.checkouts.offers import asked_of_router
from tongbao.payments.collecting import queries as payments
from tongbao.payments.collecting.model import (
    WALLET,
    Attempt,
    NewPayment,
    Payment,
    PaymentState,
)
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.collecting.payments import (
    OrderNumberUsed,
    UseRefused,
    close_payment,
    create_payment,
    resume_payment,
)
from tongbao.payments.methods.asked import HowAsked
from tongbao.payments.routing.model import Decision, PlaceTaken
from tongbao.payments.uses.counting import at_terminal
from tongbao.rails.channels.contract.orders import PayMode

_MINUTE: Final = timedelta(minutes=1)
_ABANDONED_KEPT: Final = timedelta(days=1)
_TOKEN_BYTES: Final = 16
_PLACES_MAX: Final = 3


class _OrderTaken(Exception):
    """The order number was there first."""


class Visitor(Struct, frozen=True):
    """What is known of who pays, which is next to nothing."""

    client_ip: str
    return_url: str  # the checkout's own page
    payer_id: str | None = None  # the channel's id of the customer, inside the channel's own app


async def open_checkout(
    db: Db, asked: CheckoutAsked, take: Callable[[Tx, UUID], Awaitable[None]], checkout_id: UUID
) -> Checkout:
    """Write a checkout down; the same order number with the same content returns the first.

    Raises:
        ReturnUrlUnsafe, MerchantSuspended, OrderNumberUsed, CheckoutsTooMany, InFlight, and what
        refuses a payment at a terminal
    """
    if asked.return_url is not None:
        check_return_url(asked.return_url, asked.mode)
    (await merchants.merchant_with_id(db, asked.merchant_id)).check_active()
    await _check_pace(db, asked)
    checkout = _row(asked, checkout_id, db.clock.now())
    try:
        async with db.begin("checkouts") as tx:
            await take(tx, checkout.id)
            await _insert(tx, checkout)
    except _OrderTaken:
        checkout = await _earlier(db, asked)
        async with db.begin("checkouts") as tx:
            await take(tx, checkout.id)
    return checkout


async def _insert(tx: Tx, checkout: Checkout) -> None:
    if await store.INSERT_CHECKOUT.run(tx, *msgspec.structs.astuple(checkout)) == 0:
        raise _OrderTaken
    if await _is_paid_otherwise(tx, checkout):
        raise OrderNumberUsed(merchant_order_no=checkout.merchant_order_no)
    if checkout.terminal_id is not None:  # known here already, and asked again at each try
        owner = (checkout.merchant_id, checkout.mode)
        shown, book = show(TERMINAL, checkout.terminal_id), checkout.book
        await usable_terminal(tx, shown, owner, book=book, money=checkout.money, now=tx.now)
    ending = CloseCheckout(checkout.book, checkout.id)
    await enqueue(tx, ending, run_at=over_at(checkout), key=f"checkout/{checkout.id}")


async def _is_paid_otherwise(tx: Tx, checkout: Checkout) -> bool:
    """Return whether the merchant has asked for a payment of this number directly."""
    place = (checkout.book, checkout.merchant_id, checkout.mode, checkout.merchant_order_no)
    try:
        await payments.payment_by_order_no(tx, *place)
    except payments.PaymentNotFound:
        return False
    return True


async def _earlier(db: Db, asked: CheckoutAsked) -> Checkout:
    place = (asked.book, asked.merchant_id, asked.mode, asked.merchant_order_no)
    earlier = await store.FIND_BY_ORDER.one(db, *place)
    if earlier.request_hash != asked.fingerprint:
        raise OrderNumberUsed(merchant_order_no=asked.merchant_order_no)
    return earlier


async def _check_pace(db: Db, asked: CheckoutAsked) -> None:
    since = db.clock.now() - _MINUTE
    recent = await store.CREATED_SINCE.one(db, asked.merchant_id, since, CREATED_PER_MINUTE_MAX)
    if recent >= CREATED_PER_MINUTE_MAX:
        raise CheckoutsTooMany


async def opened_by_plate(db: Db, plate_id: UUID, limit: int) -> int:
    """Return how many checkouts a plate has opened within the last minute, up to a limit."""
    since = db.clock.now() - _MINUTE
    return await store.CREATED_OF_PLATE_SINCE.one(db, plate_id, since, limit)


async def prune_abandoned(db: Db) -> None:
    """Forget what plates opened and nobody tried to pay, a day after its time."""
    await store.PRUNE_ABANDONED.run(db, db.clock.now() - _ABANDONED_KEPT)


def _row(asked: CheckoutAsked, checkout_id: UUID, now: datetime) -> Checkout:
    return Checkout(
        book=asked.book,
        id=checkout_id,
        merchant_id=asked.merchant_id,
        mode=asked.mode,
        token=secrets.token_urlsafe(_TOKEN_BYTES),
        plate_id=asked.plate_id,
        merchant_order_no=asked.merchant_order_no,
        request_hash=asked.fingerprint,
        amount=asked.money.amount,
        currency=asked.money.currency,
        subject=asked.subject,
        channels=list(asked.channels),
        return_url=asked.return_url,
        metadata=asked.metadata,
        payment_id=None,
        tries=0,
        called_off_at=None,
        created_at=now,
        expires_at=now + asked.expires_in,
        terminal_id=asked.terminal_id,
    )


async def try_paying(
    flow: Flow, checkout: Checkout, offer: Offer, visitor: Visitor
) -> tuple[Payment, Attempt]:
    """Try a way to pay, and return the try that stands: this one, or one that may take the money.

    A try by the same way that is still open is that try; one by another way is closed at its
    channel first, and where the channel does not say that it cannot be paid any more, it stands.

    Raises:
        CheckoutClosed, CheckoutTriedTooOften, MerchantSuspended, PriceNotAgreed, ChannelNotOpened,
        ModeNotOffered, OrderNumberUsed, StateContended, NoChannelLeft, NoChannelUp, PlaceTaken
    """
    standing = await queries.latest_try(flow.db, checkout)
    if standing is not None:
        payment, _ = standing
        if payment.state.is_open:
            if (payment.channel, payment.pay_mode) == (offer.channel, offer.mode):
                return await resume_payment(flow, payment)
            standing = await close_payment(flow, payment)
        if standing[0].state.is_open or standing[0].state is PaymentState.SUCCEEDED:
            return standing
    now = flow.db.clock.now()
    if not checkout.takes_tries(now):
        raise CheckoutClosed
    if checkout.tries >= TRIES_MAX:
        raise CheckoutTriedTooOften
    try:
        return await _place(flow, checkout, offer, visitor)
    except InFlight:  # somebody else made the next try, or the merchant called the checkout off
        checkout = await queries.checkout(flow.db, checkout.book, checkout.id)
        made = await queries.latest_try(flow.db, checkout)
        if made is None:
            raise CheckoutClosed from None
        return made


async def _place(
    flow: Flow, checkout: Checkout, offer: Offer, visitor: Visitor
) -> tuple[Payment, Attempt]:
    """Make the next try where routing places it; others may take that place first.

    Raises:
        InFlight, PlaceTaken, and what refuses a payment
    """
    taking, owner = _taking(checkout), (checkout.merchant_id, checkout.mode)
    shown = None if checkout.terminal_id is None else show(TERMINAL, checkout.terminal_id)
    for _ in range(_PLACES_MAX):
        payment_id = new_id()  # a group of the ledger that was refused is so for ever
        told, uses = await at_terminal(
            flow.db,
            shown,
            owner,
            book=checkout.book,
            money=checkout.money,
            payment_id=payment_id,
        )
        asked = await _terms(flow, checkout, offer, visitor, payment_id)
        asked = replace(asked, metadata={**asked.metadata, **told}, uses=uses)
        try:
            return await create_payment(flow, asked, taking, payment_id)
        except PlaceTaken:
            await flow.router.refresh()
        except UseRefused:
            continue  # the terminal is read again and says why
    raise PlaceTaken


def _taking(checkout: Checkout) -> Callable[[UUID, datetime], Write]:
    """Return how a payment becomes the checkout's next try, if none has become it meanwhile."""

    def take(payment_id: UUID, _now: datetime) -> Write:
        args = (checkout.book, checkout.id, checkout.tries, payment_id)
        return Write(store.TAKE_TRY, args, refusal=InFlight.code)

    return take


async def _terms(
    flow: Flow, checkout: Checkout, offer: Offer, visitor: Visitor, payment_id: UUID
) -> NewPayment:
    now = flow.db.clock.now()
    merchant = await merchants.merchant_with_id(flow.db, checkout.merchant_id)
    merchant.check_active()
    plan = await price_plan_at(flow.db, merchant.id, checkout.mode, now)
    inputs = inputs_at(offer.channel, offer.mode, checkout.money, now)
    decision, account_id = await _placed(flow, checkout, offer, payment_id, now)
    lifetime = TRY_LIFETIMES.get(offer.mode, TRY_LIFETIME)
    return NewPayment(
        merchant_id=merchant.id,
        mode=checkout.mode,
        book=checkout.book,
        merchant_order_no=checkout.next_order_no,
        money=checkout.money,
        subject=checkout.subject,
        channel=offer.channel,
        pay_mode=offer.mode,
        account_id=account_id,
        price=await quote_with_volume(flow.db, checkout.book, plan, inputs),
        late_success=LateSuccess.REFUND,
        expires_in=min(lifetime, checkout.expires_at - now),
        metadata={**checkout.metadata, METADATA_KEY: show("cko", checkout.id)},
        client_ip=visitor.client_ip,
        how=_how(offer, visitor),
        decision=decision,
    )


async def _placed(
    flow: Flow, checkout: Checkout, offer: Offer, payment_id: UUID, now: datetime
) -> tuple[Decision | None, UUID]:
    """Return what routing decides, if it is asked, and the account; the own wallet has none."""
    if offer.channel == WALLET:
        return None, checkout.merchant_id
    wanted = asked_of_router(
        checkout, offer.mode, payment_id=payment_id, now=now, channel=offer.channel
    )
    decision = await flow.router.place(wanted)
    if decision is not None:
        return decision, decision.chosen.account_id
    place = (checkout.merchant_id, checkout.mode, offer.channel)
    return None, await merchants.channel_account_of(flow.db, *place)


def _how(offer: Offer, visitor: Visitor) -> HowAsked | None:
    if offer.mode is PayMode.QR:
        return None  # whoever scans it is not this visitor's browser, and comes back nowhere
    return HowAsked(payer_id=visitor.payer_id, return_url=visitor.return_url)


async def give_up(flow: Flow, checkout: Checkout) -> None:
    """Close the try that stands at its channel, so that another way may be chosen.

    Raises:
        StateContended
    """
    standing = await queries.latest_try(flow.db, checkout)
    if standing is not None and standing[0].state.is_open:
        await close_payment(flow, standing[0])


async def call_off(flow: Flow, checkout: Checkout, actor: str) -> Checkout:
    """Let nothing more be paid on a checkout, its latest try closed at the channel first.

    A customer who paid first wins: the checkout is paid.

    Raises:
        CheckoutPaid, StateContended
    """
    standing = await queries.latest_try(flow.db, checkout)
    if standing is not None and standing[0].state is PaymentState.SUCCEEDED:
        raise CheckoutPaid
    async with flow.db.begin(actor) as tx:
        await store.CALL_OFF.run(tx, checkout.book, checkout.id, tx.now)
        ending = CloseCheckout(checkout.book, checkout.id)
        await enqueue(tx, ending, key=f"checkout/{checkout.id}/off")
    checkout = await queries.checkout(flow.db, checkout.book, checkout.id)
    await give_up(flow, checkout)
    flow.nudge()
    return checkout
