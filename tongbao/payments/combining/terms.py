"""What each part of a combined payment costs its merchant, and whether the parts go together."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from msgspec.structs import replace

from tongbao.kernel.ids import new_id
from tongbao.parties.merchants import queries as merchants
from tongbao.parties.merchants.model import ChannelNotOpened
from tongbao.parties.price_plans.model import inputs_at
from tongbao.parties.price_plans.queries import price_plan_at, quote_with_volume
from tongbao.payments.collecting.decisions import begun
from tongbao.payments.collecting.model import Attempt, NewPayment, Payment, PaymentState
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.combining.model import (
    CombinedApart,
    CombiningNotAllowed,
    CombiningNotOffered,
    NewCombined,
    PartAsked,
)
from tongbao.payments.combining.queries import has_consent
from tongbao.payments.methods.asked import HowAsked
from tongbao.rails.channels.capabilities import Combining
from tongbao.rails.channels.contract import Channel, ChannelAccount, PayMode

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
    flow: Flow, asked: NewCombined, combined_id: UUID, now: datetime
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
        new = replace(new, how=replace(asked.how or HowAsked(), combined_id=combined_id))
        begun_now.append(begun(new, new_id(), now, PaymentState.CREATED))
    if not all(account.is_open for account in accounts):
        raise ChannelNotOpened(channel=asked.channel)
    if len({channel.combines_for(account) for account in accounts}) > 1:
        raise CombinedApart
    return begun_now, accounts[0]


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
        late_success=merchant.late_success,
        expires_in=asked.expires_in,
        metadata=part.metadata,
        client_ip=asked.client_ip,
    )
