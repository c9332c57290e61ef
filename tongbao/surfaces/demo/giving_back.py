"""Refunds: full, in parts, two that race for the same money, and one that asks too much."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from tongbao.surfaces.demo.misbehaviour import CHANNELS
from tongbao.surfaces.demo.programme import SANDBOX_NAME, Programme
from tongbao.surfaces.demo.trading import offer_qr, scan
from tongbao_sdk import Refused
from tongbao_sdk.replies import Payment

_PRICE = 10_000


async def give_back(programme: Programme) -> None:
    """Refund on every channel and see that never more goes out than came in."""
    for channel in CHANNELS:
        stem = f"{programme.day}-{SANDBOX_NAME[channel]}-refund"
        label = channel.replace("_", " ")

        full = await _paid(programme, f"{stem}1", channel)
        await _ask(programme, full, _PRICE)
        parts = await _paid(programme, f"{stem}2", channel)
        await _ask(programme, parts, 2_500)
        await programme.advance(timedelta(seconds=10))
        await _ask(programme, parts, 1_500)
        raced = await _paid(programme, f"{stem}3", channel)
        answers = await asyncio.gather(_ask(programme, raced, 6_000), _ask(programme, raced, 6_000))
        too_much = await _ask(programme, parts, 6_001)
        await programme.advance(timedelta(seconds=60))

        for what, payment, given in (
            ("full refund", full, _PRICE),
            ("refunds in two parts", parts, 4_000),
            ("two refunds racing for the same money", raced, 6_000),
        ):
            back = await _back(programme, payment)
            programme.mark(f"{label}: {what}", f"{given} fen back", f"{back} fen back")
        refusals = sum(answer == "refund.exceeds_captured" for answer in answers)
        programme.mark(f"{label}: of the racing two", "1 refused", f"{refusals} refused")
        programme.mark(f"{label}: one fen too much", "refund.exceeds_captured", too_much)


async def _paid(programme: Programme, order_no: str, channel: str) -> Payment:
    payment = await offer_qr(programme, order_no, _PRICE, channel)
    await scan(programme, payment)
    await programme.idle()
    return payment


async def _ask(programme: Programme, payment: Payment, amount: int) -> str:
    """Ask for a refund and return its status, or the code it was refused with."""
    number = f"{payment['merchant_order_no']}-{next(programme.numbers)}"
    try:
        refund = await programme.call(
            programme.shop.payments.refund,
            payment["id"],
            merchant_refund_no=number,
            amount=amount,
        )
    except Refused as refused:
        return refused.code
    return refund["status"]


async def _back(programme: Programme, payment: Payment) -> int:
    """Return how much the channel has given back, by the refunds that succeeded."""
    found = await programme.call(
        lambda: list(programme.shop.refunds.list(payment_id=payment["id"], status="succeeded"))
    )
    return sum(refund["amount"] for refund in found)
