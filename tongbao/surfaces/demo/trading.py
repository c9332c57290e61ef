"""The shop is open: two hundred customers come, pay, decline or walk away."""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta
from functools import partial
from typing import Final, Literal

from msgspec import Struct
from rich.progress import Progress

from tongbao.surfaces.demo.programme import SANDBOX_NAME, Programme, in_parallel
from tongbao_sdk.models import Payment

_TEST_MONEY: Final = 10_000_000

Channel = Literal["wechat_pay", "alipay", "wallet"]
Mode = Literal["qr", "payment_code"]
Act = Literal["pay", "decline", "abandon", "ask_then_pay", "no_money"]

_STATUS: Final = {
    "pay": "succeeded",
    "ask_then_pay": "succeeded",
    "abandon": "closed",
    "decline": "failed",
    "no_money": "failed",
}
_SHARES: Final[tuple[tuple[Channel, Mode, int], ...]] = (
    ("wechat_pay", "qr", 27),
    ("wechat_pay", "payment_code", 20),
    ("alipay", "qr", 25),
    ("alipay", "payment_code", 18),
    ("wallet", "payment_code", 10),
)
_GOODS: Final = ("龙井茶", "noodles", "coffee beans", "雨伞", "umbrella", "月饼", "tea pot", "牛奶")


class Customer(Struct, frozen=True):
    """One customer: what they buy and what they will do."""

    order_no: str
    channel: Channel
    mode: Mode
    amount: int  # fen
    subject: str
    act: Act

    @property
    def ends(self) -> str:
        """Return the status the payment must end in."""
        if self.mode == "qr" and self.act == "decline":
            return "closed"  # who declines a QR has not paid it; it runs out of time
        return _STATUS[self.act]


def crowd(day: str, count: int, seed: int) -> list[Customer]:
    """Return the day's customers in the order they come."""
    dice = random.Random(seed)  # noqa: S311 - a story, not a secret
    weights = [share for _, _, share in _SHARES]
    people = []
    for number in range(count):
        channel, mode, _ = dice.choices(_SHARES, weights)[0]
        people.append(
            Customer(
                order_no=f"{day}-{number:04}",
                channel=channel,
                mode=mode,
                amount=dice.randint(100, 30_000),
                subject=dice.choice(_GOODS),
                act=_act(dice, channel, mode),
            )
        )
    return people


def _act(dice: random.Random, channel: Channel, mode: Mode) -> Act:
    chance = dice.random()
    if channel == "wallet":
        return "pay" if chance < 0.9 else "no_money"
    if mode == "qr":
        return "pay" if chance < 0.78 else "decline" if chance < 0.88 else "abandon"
    return "pay" if chance < 0.75 else "ask_then_pay" if chance < 0.88 else "decline"


async def trade(programme: Programme, count: int, seed: int) -> None:
    """Serve the day's customers and see that each payment ends as its customer behaved."""
    people = crowd(programme.day, count, seed)
    rich, poor = await _wallets(programme)
    with Progress(console=programme.console, transient=True) as progress:
        bar = progress.add_task("customers", total=len(people))
        jobs = [partial(_serve, programme, person, rich, poor) for person in people]
        await in_parallel(list(jobs), lambda: progress.advance(bar))
    await programme.idle()
    await programme.advance(timedelta(minutes=40))  # who did not pay has run out of time

    ended = await _statuses(programme, [person.order_no for person in people])
    wanted = Counter(f"{person.channel} {person.mode} {person.ends}" for person in people)
    seen = Counter(f"{person.channel} {person.mode} {ended[person.order_no]}" for person in people)
    for kind in sorted(wanted | seen):
        programme.mark(kind.replace("_", " "), wanted[kind], seen[kind])


async def _wallets(programme: Programme) -> tuple[str, str]:
    """Open two wallets, one with money and one without."""
    shop = programme.shop.wallets
    rich = await programme.call(shop.open, holder_name="富小姐")
    poor = await programme.call(shop.open, holder_name="穷先生")
    await programme.call(shop.top_up, rich["id"], amount=_TEST_MONEY)
    return rich["id"], poor["id"]


async def _serve(programme: Programme, person: Customer, rich: str, poor: str) -> None:
    if person.mode == "qr":
        payment = await offer_qr(programme, person.order_no, person.amount, person.channel)
        if person.act != "abandon":
            await scan(programme, payment, person.act)
        return
    if person.channel == "wallet":
        wallet = poor if person.act == "no_money" else rich
        shown = await programme.call(programme.shop.wallets.payment_code, wallet)
        await charge(programme, person.order_no, person.amount, shown["code"])
        return
    code = await show_code(programme, person.channel, person.act, after_s=3)
    await charge(programme, person.order_no, person.amount, code)


async def offer_qr(programme: Programme, order_no: str, amount: int, channel: str) -> Payment:
    """Create a QR payment."""
    payment: Payment = await programme.call(
        programme.shop.payments.create,
        merchant_order_no=order_no,
        amount=amount,
        subject="demo",
        method={"mode": "qr", "channel": channel},
    )
    programme.payments[order_no] = payment
    return payment


async def scan(programme: Programme, payment: Payment, act: str = "pay") -> None:
    """Have a customer scan the code and pay or decline."""
    todo = payment["next_action"]
    if todo["type"] != "show_qr":
        raise AssertionError(f"a QR was to be scanned, not {todo['type']}")
    await programme.call(
        programme.sandbox.control, "customer/scan", code_url=todo["code_url"], action=act
    )


async def show_code(programme: Programme, channel: str, behaviour: str, **more: object) -> str:
    """Have a customer show a payment code."""
    body = {"channel": SANDBOX_NAME[channel], "behaviour": behaviour, **more}
    shown = await programme.call(programme.sandbox.control, "customer/payment-code", **body)
    return str(shown["auth_code"])


async def charge(programme: Programme, order_no: str, amount: int, code: str) -> Payment:
    """Charge a payment code."""
    payment: Payment = await programme.call(
        programme.shop.payments.create,
        merchant_order_no=order_no,
        amount=amount,
        subject="demo",
        method={"mode": "payment_code", "auth_code": code},
    )
    programme.payments[order_no] = payment
    return payment


async def _statuses(programme: Programme, order_nos: list[str]) -> dict[str, str]:
    wanted = set(order_nos)
    found = await programme.call(lambda: list(programme.shop.payments.list()))
    return {
        payment["merchant_order_no"]: payment["status"]
        for payment in found
        if payment["merchant_order_no"] in wanted
    }
