"""Combined orders of WeChat Pay (合单): several orders, paid in one go.

Each part is an order of its own afterwards: it is refunded, split and billed under its number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, assert_never

from msgspec import Struct

from tongbao.kernel.money import Money
from tongbao.rails.channels.contract import (
    Absent,
    Answer,
    ChannelAccount,
    Closed,
    Declined,
    NotSent,
    Outcome,
    PayMode,
    PayOrder,
    Pending,
    QueryOutcome,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.exchange import decode, unsent
from tongbao.rails.channels.wechat_pay.documents import orders as documents
from tongbao.rails.channels.wechat_pay.documents.parts import Amount, Payer
from tongbao.rails.channels.wechat_pay.gateway import (
    ERRORS,
    Answered,
    Gateway,
    Ids,
    Refused,
    ids_of,
    in_path,
    meant,
    read_or_absent,
    secrets_of,
)
from tongbao.rails.channels.wechat_pay.products.orders import PRODUCTS, offered, opened, unpayable
from tongbao.rails.channels.wechat_pay.wire import (
    CURRENCY,
    DESCRIPTION_MAX,
    china_time,
    encode,
    first_difference,
    order_outcome,
    scene_of,
)

PATH: Final = "/v3/combine-transactions"
PARTS_MAX: Final = 50


class CombinedPart(Struct, frozen=True):
    """One order of a combined payment."""

    number: str  # ours, like any order's
    money: Money
    subject: str
    attach: str = "-"  # comes back in answers; WeChat Pay wants something here
    sub_mchid: str | None = None  # the sub-merchant, where a service provider combines


class CombinedOrder(Struct, frozen=True):
    """What the customer pays at once: an order of the whole sum, and its parts."""

    order: PayOrder  # its mode, payer and end; its money is the parts' sum
    parts: Sequence[CombinedPart]


class PartFound(Struct, frozen=True):
    """What became of one part."""

    number: str
    outcome: QueryOutcome


async def place(
    gateway: Gateway, account: ChannelAccount, combined: CombinedOrder
) -> Answer[Outcome]:
    """Offer all parts to the customer as one payment; safe to repeat with the same parts."""
    order, path = combined.order, f"{PATH}/{PRODUCTS.get(combined.order.mode, '')}"
    if reason := unpayable(account, order) or _unlike_its_parts(combined):
        return Answer(NotSent(reason), unsent("POST", account.gateway + path, reason))
    heard, exchange = await gateway.call(account, "POST", path, encode(_request(account, combined)))
    match heard:
        case Answered():
            offer = await asyncio.to_thread(_offered, gateway, account, order, heard.body)
            return Answer(offer, exchange)
        case Refused():
            outcome = meant(ERRORS.find("pay", heard.code), heard)
            if ERRORS.find("pay", heard.code).ask:  # an earlier call may have gone through
                return Answer(Unknown(f"{heard.code}: {heard.message}"), exchange)
            return Answer(outcome, exchange)
        case NotSent() | Unknown():
            return Answer(heard, exchange)
        case _:
            assert_never(heard)


async def query(
    gateway: Gateway, account: ChannelAccount, combined: CombinedOrder
) -> Answer[tuple[PartFound, ...] | Absent | Unknown]:
    """Ask what became of the parts; each is compared with what was asked."""
    target = f"{PATH}/out-trade-no/{in_path(combined.order.number)}"
    return await gateway.question(
        account, target, "query", lambda body: _read(body, account, combined)
    )


async def close(
    gateway: Gateway, account: ChannelAccount, combined: CombinedOrder
) -> Answer[Closed | Absent | Unknown]:
    """Close all parts; where WeChat Pay refuses, `query` says what became of each."""
    ids = ids_of(account, combined.order.app_id)
    body = documents.CombinedClosing(
        combine_appid=ids.appid or ids.sp_appid,
        sub_orders=[
            documents.CombinedPart(
                mchid=ids.mchid or ids.sp_mchid,
                out_trade_no=part.number,
                sub_mchid=_sub_mchid(ids, part),
            )
            for part in combined.parts
        ],
    )
    target = f"{PATH}/out-trade-no/{in_path(combined.order.number)}/close"
    heard, exchange = await gateway.call(account, "POST", target, encode(body))
    return Answer(read_or_absent(heard, "close", lambda _: Closed("CLOSED")), exchange)


def _offered(
    gateway: Gateway, account: ChannelAccount, order: PayOrder, body: bytes
) -> Succeeded | Pending | Declined | Unknown:
    """Return what the customer is to do; a page or app is opened for whoever combines."""
    if order.mode in {PayMode.IN_APP, PayMode.APP}:
        ids = ids_of(account, order.app_id)
        app_id = ids.appid or ids.sp_appid or ""
        return opened(gateway, account, order.mode, app_id, decode(body, documents.Prepaid))
    return offered(gateway, account, order, body)


def _unlike_its_parts(combined: CombinedOrder) -> str | None:
    numbers = {part.number for part in combined.parts}
    if combined.order.mode is PayMode.PAYMENT_CODE:
        return "a payment code pays one order"
    if not 2 <= len(numbers) == len(combined.parts) <= PARTS_MAX:
        return f"a combined order has 2 to {PARTS_MAX} parts with numbers of their own"
    if any(part.money.currency != CURRENCY for part in combined.parts):
        return "a part is in another currency"
    if sum(part.money.amount for part in combined.parts) != combined.order.money.amount:
        return "the parts do not add up to the order"
    return None


def _request(account: ChannelAccount, combined: CombinedOrder) -> documents.CombinedRequest:
    order, ids = combined.order, ids_of(account, combined.order.app_id)
    return documents.CombinedRequest(
        combine_out_trade_no=order.number,
        combine_mchid=ids.mchid or ids.sp_mchid,
        combine_appid=ids.appid or ids.sp_appid,
        scene_info=scene_of(order),
        sub_orders=[_part(account, ids, part) for part in combined.parts],
        combine_payer_info=Payer(openid=order.payer_id) if order.payer_id else None,
        time_expire=china_time(order.expires_at),
        notify_url=account.notify_url,
    )


def _part(account: ChannelAccount, ids: Ids, part: CombinedPart) -> documents.CombinedPart:
    shared = secrets_of(account).profit_sharing
    return documents.CombinedPart(
        mchid=ids.mchid or ids.sp_mchid,
        out_trade_no=part.number,
        sub_mchid=_sub_mchid(ids, part),
        attach=part.attach,
        amount=documents.CombinedAmount(part.money.amount, part.money.currency),
        description=part.subject[:DESCRIPTION_MAX] or part.number,
        settle_info=documents.Settling(profit_sharing=True) if shared else None,
    )


def _sub_mchid(ids: Ids, part: CombinedPart) -> str | None:
    return part.sub_mchid or ids.sub_mchid


def _read(
    body: bytes, account: ChannelAccount, combined: CombinedOrder
) -> tuple[PartFound, ...] | Unknown:
    found, ids = decode(body, documents.CombinedTransaction), ids_of(account)
    if found is None or found.combine_out_trade_no != combined.order.number:
        return Unknown("the answer is no such combined order")
    if found.combine_mchid != (ids.mchid or ids.sp_mchid):
        return Unknown("contradiction: combine_mchid is another")
    by_number = {part.out_trade_no: part for part in found.sub_orders}
    if set(by_number) != {part.number for part in combined.parts}:
        return Unknown("contradiction: the parts are others")
    return tuple(
        PartFound(part.number, _part_outcome(by_number[part.number], ids, part))
        for part in combined.parts
    )


def _part_outcome(
    found: documents.CombinedPart, ids: Ids, part: CombinedPart
) -> Succeeded | Pending | Declined | Closed | Unknown:
    amount = found.amount or documents.CombinedAmount()
    difference = first_difference(
        [
            ("mchid", found.mchid, ids.mchid or ids.sp_mchid),
            ("sub_mchid", found.sub_mchid, _sub_mchid(ids, part)),
            ("total_amount", amount.total_amount, part.money.amount),
            ("currency", amount.currency or CURRENCY, part.money.currency),
        ]
    )
    if difference:
        return Unknown(f"contradiction: {difference}")
    return order_outcome(
        documents.Transaction(
            trade_state=found.trade_state,
            transaction_id=found.transaction_id,
            success_time=found.success_time,
            amount=Amount(total=amount.total_amount, currency=amount.currency),
        )
    )
