"""The world misbehaves on purpose, and no payment is lost, doubled or guessed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

from tongbao.kernel.ids import parse
from tongbao.payments.collecting.queries import timeline
from tongbao.surfaces.demo.programme import SANDBOX_NAME, Programme
from tongbao.surfaces.demo.trading import charge, offer_qr, scan, show_code

CHANNELS: Final = ("wechat_pay", "alipay")
_PRICE: Final = 2_222

Scene = Callable[[Programme, str, str], Awaitable[str]]
"""Plays one fault on one channel under one order number and says in words how it ended."""


async def misbehave(programme: Programme) -> None:
    """Play every fault on every channel."""
    await programme.call(programme.sandbox.control, "settings", hold_s=1)
    for channel in CHANNELS:
        for number, (name, (expected, scene)) in enumerate(SCENES.items()):
            order_no = f"{programme.day}-{SANDBOX_NAME[channel]}-fault{number}"
            happened = await scene(programme, channel, order_no)
            programme.mark(f"{channel.replace('_', ' ')}: {name}", expected, happened)


async def _ended(programme: Programme, order_no: str, first: str) -> str:
    """Return how the payment went: its first status, its last, and how often its end was told."""
    payment = await programme.call(programme.shop.payments.find, order_no)
    if payment is None:
        return "no such payment"
    found = await programme.call(programme.shop.events.page, resource_id=payment["id"])
    told = len(found["items"])
    return f"{first}, then {payment['status']}, told {told}×"


async def _no_answer(programme: Programme, channel: str, order_no: str) -> str:
    programme.sandbox.fault(SANDBOX_NAME[channel], "pay", "time_out_paid")
    code = await show_code(programme, channel, "pay")
    payment = await charge(programme, order_no, _PRICE, code)
    # A callback may overtake the time-out; all that must not happen is a guess.
    first = "not guessed" if payment["status"] in {"unknown", "succeeded"} else payment["status"]
    await programme.advance(timedelta(seconds=10))
    return await _ended(programme, order_no, first)


def _with_callback(fault: str, wait: timedelta) -> Scene:
    async def scene(programme: Programme, channel: str, order_no: str) -> str:
        programme.sandbox.fault(SANDBOX_NAME[channel], "callback", fault)
        payment = await offer_qr(programme, order_no, _PRICE, channel)
        await scan(programme, payment)
        await programme.idle()
        await programme.advance(wait)
        return await _ended(programme, order_no, payment["status"])

    return scene


async def _wrong_amount(programme: Programme, channel: str, order_no: str) -> str:
    play = _with_callback("wrong_amount", timedelta(seconds=20))
    ended = await play(programme, channel, order_no)
    payment_id = programme.payments[order_no]["id"]
    found = await timeline(programme.db, parse("pay", payment_id))
    return f"{ended}, {len(found.cases)} case for people"


async def _always_paying(programme: Programme, channel: str, order_no: str) -> str:
    code = await show_code(programme, channel, "ask_forever")
    payment = await charge(programme, order_no, _PRICE, code)
    for _ in range(4):
        await programme.advance(timedelta(seconds=15))
    return await _ended(programme, order_no, payment["status"])


async def _paid_after_close(programme: Programme, channel: str, order_no: str) -> str:
    programme.sandbox.fault(SANDBOX_NAME[channel], "close", "late_success:5")
    payment = await offer_qr(programme, order_no, _PRICE, channel)
    if channel == "alipay":
        # Alipay knows no trade, and so nothing to close, before somebody scans.
        await scan(programme, payment, "abandon")
    closed = await programme.call(programme.shop.payments.close, payment["id"])
    await programme.advance(timedelta(seconds=60))
    await programme.advance(timedelta(seconds=60))
    [refund] = await programme.call(
        lambda: list(programme.shop.refunds.list(payment_id=payment["id"]))
    )
    ended = await _ended(programme, order_no, closed["status"])
    return f"{ended}, {refund['amount']} of {_PRICE} fen back ({refund['status']})"


_ONCE: Final = "pending, then succeeded, told 1×"

SCENES: Final[dict[str, tuple[str, Scene]]] = {
    "paid, but the answer timed out": ("not guessed, then succeeded, told 1×", _no_answer),
    "callback lost": (_ONCE, _with_callback("lost", timedelta(seconds=30))),
    "callback doubled": (_ONCE, _with_callback("doubled", timedelta(seconds=20))),
    "callback ten minutes late": (_ONCE, _with_callback("late:600", timedelta(minutes=11))),
    "callback forged besides": (_ONCE, _with_callback("forged", timedelta(seconds=20))),
    "callback of another amount": (f"{_ONCE}, 1 case for people", _wrong_amount),
    "customer never confirms": ("pending, then closed, told 1×", _always_paying),
    "paid after the merchant closed": (
        f"closed, then closed, told 2×, {_PRICE} of {_PRICE} fen back (succeeded)",
        _paid_after_close,
    ),
}
