"""Combined orders of WeChat Pay (合单): several orders, paid in one go.

Each part is an order of its own afterwards: it is refunded, split and billed under its number.
"""

from __future__ import annotations

import asyncio
from typing import Final, assert_never

from tongbao.rails.channels.capabilities.combined_orders import (
    CombinedOrder,
    CombinedPart,
    PartFound,
)
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode, PayOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Closed,
    CloseOutcome,
    Declined,
    NotSent,
    Outcome,
    Pending,
    QueryOutcome,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.exchange import decode, followed_by, unsent
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


def combines_for(account: ChannelAccount) -> str:
    """Return whose combined orders the account's can be parts of: one merchant number asks."""
    ids = ids_of(account)
    return f"{ids.mchid or ids.sp_mchid} {ids.appid or ids.sp_appid}"


def part_of(account: ChannelAccount, order: PayOrder) -> CombinedPart:
    """Return an order of the account's as a part."""
    sub_mchid = ids_of(account).sub_mchid
    return CombinedPart(order.number, order.money, order.subject, sub_mchid=sub_mchid)


async def query_part(
    gateway: Gateway, account: ChannelAccount, order: PayOrder
) -> Answer[QueryOutcome]:
    """Ask what became of one part; it is compared with what was asked."""
    target = f"{PATH}/out-trade-no/{in_path(order.combined or '')}"
    return await gateway.question(
        account, target, "query", lambda body: _read_part(body, account, order)
    )


async def ask_part(gateway: Gateway, account: ChannelAccount, order: PayOrder) -> Answer[Outcome]:
    """Say what became of a part: it is never offered alone."""
    asked = await query_part(gateway, account, order)
    match asked.outcome:
        case Absent() | Closed():  # it is not for one part to say what becomes of the whole
            return Answer(Unknown("the combined order is not there"), asked.exchange)
        case Succeeded() | Pending() | Declined() | Unknown():
            return Answer(asked.outcome, asked.exchange)
        case _:
            assert_never(asked.outcome)


async def close_part(
    gateway: Gateway, account: ChannelAccount, order: PayOrder
) -> Answer[CloseOutcome]:
    """Close the combined order of a part, all parts with it, and say what became of this one."""
    ids = ids_of(account)
    target = f"{PATH}/out-trade-no/{in_path(order.combined or '')}"
    listed = await gateway.question(
        account, target, "query", lambda body: _parts_to_close(body, account, order)
    )
    if isinstance(listed.outcome, Absent | Unknown):
        return Answer(listed.outcome, listed.exchange)
    body = documents.CombinedClosing(
        combine_appid=ids.appid or ids.sp_appid, sub_orders=list(listed.outcome)
    )
    heard, exchange = await gateway.call(account, "POST", f"{target}/close", encode(body))
    both = followed_by(listed.exchange, exchange)
    if isinstance(heard, Answered):
        return Answer(Closed("CLOSED"), both)
    if isinstance(heard, NotSent | Unknown):
        return Answer(Unknown(heard.reason), both)
    asked = await query_part(gateway, account, order)
    both = followed_by(both, asked.exchange)
    match asked.outcome:
        case Succeeded() | Closed() | Absent():
            return Answer(asked.outcome, both)
        case Declined(code=code):
            return Answer(Closed(code), both)
        case Pending() | Unknown():
            return Answer(Unknown(f"not closed: {heard.code}"), both)
        case _:
            assert_never(asked.outcome)


def _found_part(
    body: bytes, account: ChannelAccount, order: PayOrder
) -> tuple[documents.CombinedTransaction, documents.CombinedPart] | Unknown:
    found, ids = decode(body, documents.CombinedTransaction), ids_of(account)
    if found is None or found.combine_out_trade_no != order.combined:
        return Unknown("the answer is no such combined order")
    if found.combine_mchid != (ids.mchid or ids.sp_mchid):
        return Unknown("contradiction: combine_mchid is another")
    for part in found.sub_orders:
        if part.out_trade_no == order.number:
            return found, part
    return Unknown("contradiction: the combined order has no such part")


def _read_part(
    body: bytes, account: ChannelAccount, order: PayOrder
) -> Succeeded | Pending | Declined | Closed | Unknown:
    found = _found_part(body, account, order)
    if isinstance(found, Unknown):
        return found
    return _part_outcome(found[1], ids_of(account), part_of(account, order))


def _parts_to_close(
    body: bytes, account: ChannelAccount, order: PayOrder
) -> tuple[documents.CombinedPart, ...] | Unknown:
    found = _found_part(body, account, order)
    if isinstance(found, Unknown):
        return found
    return tuple(
        documents.CombinedPart(
            mchid=part.mchid, out_trade_no=part.out_trade_no, sub_mchid=part.sub_mchid
        )
        for part in found[0].sub_orders
    )


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
