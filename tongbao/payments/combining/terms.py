"""What each part of a combined payment costs its merchant, and whether the parts go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from msgspec.structs import astuple, replace

from tongbao.infra.db import Write
from tongbao.kernel.ids import new_id
from tongbao.kernel.money import Money
from tongbao.parties.merchants import queries as merchants
from tongbao.parties.merchants.model import ChannelNotOpened, LateSuccess
from tongbao.parties.price_plans.model import inputs_at
from tongbao.parties.price_plans.queries import price_plan_at, quote_with_volume
from tongbao.payments.collecting.decisions import begun
from tongbao.payments.collecting.model import Attempt, NewPayment, Payment, PaymentState
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.collecting.payments import begun_writes
from tongbao.payments.combining import _store as store
from tongbao.payments.combining.model import (
    CombinedApart,
    CombinedMember,
    CombinedPayment,
    CombiningNotAllowed,
    CombiningNotOffered,
    NewCombined,
    PartAsked,
)
from tongbao.payments.combining.queries import has_consent
from tongbao.payments.methods.asked import HowAsked
from tongbao.rails.channels.capabilities.combined_orders import Combining
from tongbao.rails.channels.contract.channel import Channel
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode

_PLACES: Final = 100  # of one try's parts, of which there are fifty at most

MODES = frozenset({PayMode.QR, PayMode.IN_APP, PayMode.APP, PayMode.H5})


def combining(channels: Mapping[str, Channel], name: str) -> Combining:
    """Return the channel as one that takes combined orders.

    Raises:
        CombiningNotOffered
    """
    channel: object = channels.get(name)
    if not isinstance(channel, Combining):
        raise CombiningNotOffered(channel=name)
    return channel


def channel_for(channels: Mapping[str, Channel], mode: PayMode, currency: str) -> str:
    """Return a channel that combines orders in this way: the first by name, so always the same.

    Raises:
        CombiningNotOffered: no channel does.
    """
    for name, channel in sorted(channels.items()):
        takes = mode in MODES & channel.modes and currency in channel.currencies
        if isinstance(channel, Combining) and takes:
            return name
    raise CombiningNotOffered(mode=mode)


async def begun_parts(
    flow: Flow,
    asked: NewCombined,
    combined_id: UUID,
    now: datetime,
    *,
    try_id: UUID | None = None,
) -> tuple[list[tuple[Payment, Attempt]], ChannelAccount]:
    """Return every part as a payment that begins now, and the account that asks for all.

    Raises:
        CombiningNotOffered, CombiningNotAllowed, CombinedApart, MerchantSuspended,
        ChannelNotOpened, PriceNotAgreed
    """
    channel = combining(flow.channels, asked.channel)
    takes = flow.channels[asked.channel]
    if asked.pay_mode not in MODES & takes.modes or asked.money.currency not in takes.currencies:
        raise CombiningNotOffered(channel=asked.channel, mode=asked.pay_mode)
    for part in asked.parts:
        is_own = part.merchant_id == asked.merchant_id
        args = (part.merchant_id, asked.mode, asked.merchant_id)
        if not (is_own or await has_consent(flow.db, *args)):
            raise CombiningNotAllowed
    begun_now: list[tuple[Payment, Attempt]] = []
    accounts: list[ChannelAccount] = []
    for part in asked.parts:
        new = await _new_payment(flow, asked, part, now)
        accounts.append(await flow.account(new.account_id))
        how = replace(asked.how or HowAsked(), combined_id=combined_id, combined_try=try_id)
        new = replace(new, how=how)
        begun_now.append(begun(new, new_id(), now, PaymentState.CREATED))
    if not all(account.is_open for account in accounts):
        raise ChannelNotOpened(channel=asked.channel)
    if len({channel.combines_for(account) for account in accounts}) > 1:
        raise CombinedApart
    return begun_now, accounts[0]


def parts_again(whole: CombinedPayment, before: Sequence[Payment]) -> list[PartAsked]:
    """Return the orders of the try before as those of the next: their numbers, then its count."""
    return [
        PartAsked(
            merchant_id=each.merchant_id,
            merchant_order_no=f"{_own_number(whole, each)}-{whole.tries + 1}",
            money=Money(each.amount, each.currency),
            subject=each.subject,
            metadata=each.metadata,
        )
        for each in before
    ]


def _own_number(whole: CombinedPayment, part: Payment) -> str:
    number = part.merchant_order_no
    return number.removesuffix(f"-{whole.tries}") if whole.tries > 1 else number


def part_writes(
    whole: CombinedPayment, parts: Sequence[tuple[Payment, Attempt]]
) -> tuple[Write, ...]:
    """Return what writes down the parts of a try, in one order for everybody."""
    writes: list[Write] = []
    # In one order for everybody, or two requests with the same orders would wait for each other.
    first = (whole.tries - 1) * _PLACES
    for place, (payment, attempt) in sorted(enumerate(parts, first), key=_order):
        member = CombinedMember(
            book=whole.book,
            combined_id=whole.id,
            place=place,
            merchant_id=payment.merchant_id,
            mode=payment.mode,
            part_book=payment.book,
            payment_id=payment.id,
            attempt_id=attempt.id,
            try_id=whole.try_id,
        )
        writes += begun_writes(payment, attempt, "asked with other orders")
        writes.append(Write(store.INSERT_PART, astuple(member)))
    return tuple(writes)


def _order(part: tuple[int, tuple[Payment, Attempt]]) -> tuple[int, UUID, str]:
    _, (payment, _) = part
    return payment.book, payment.merchant_id, payment.merchant_order_no


async def _new_payment(
    flow: Flow, asked: NewCombined, part: PartAsked, now: datetime
) -> NewPayment:
    merchant = await merchants.merchant_with_id(flow.db, part.merchant_id)
    merchant.check_active()
    book = merchant.book(asked.mode)
    plan = await price_plan_at(flow.db, merchant.id, asked.mode, now)
    inputs = inputs_at(asked.channel, asked.pay_mode, part.money, now)
    return NewPayment(
        merchant_id=merchant.id,
        mode=asked.mode,
        book=book,
        merchant_order_no=part.merchant_order_no,
        money=part.money,
        subject=part.subject,
        channel=asked.channel,
        pay_mode=asked.pay_mode,
        account_id=await merchants.channel_account_of(
            flow.db, merchant.id, asked.mode, asked.channel
        ),
        price=await quote_with_volume(flow.db, book, plan, inputs),
        late_success=LateSuccess.REFUND if asked.chooses else merchant.late_success,
        expires_in=asked.expires_in,
        metadata=part.metadata,
        client_ip=asked.client_ip,
    )
