"""The shop is open: two hundred customers come, pay or walk away, and a speaker hears of it."""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import Final, Literal

from msgspec import Struct
from rich.progress import Progress

from tongbao.kernel.ids import parse
from tongbao.kernel.licence import Mode as Book
from tongbao.parties.merchants.queries import merchant_with_id
from tongbao.parties.terminals import inventory
from tongbao.surfaces.demo.programme import SANDBOX_NAME, Programme, in_parallel
from tongbao_sdk.errors import Refused
from tongbao_sdk.replies import Payment
from tongbao_sdk.terminals import Terminal

_TEST_MONEY: Final = 10_000_000
_TOLD: Final = 1_250
_TOLD_BACK: Final = 250
_LIMIT: Final = 2_000  # a day

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


async def stand_at_the_counter(programme: Programme) -> None:
    """Bind a terminal, activate it, take money at it, and see what it is told and refuses."""
    serial = f"SN{programme.day}"
    async with programme.db.begin("operator") as tx:
        await inventory.import_serials(
            tx, f"serial\n{serial}".encode(), name=f"box {programme.day}", model="S1"
        )
        taken = await inventory.terminal_with_serial(tx, serial)
        merchant = await merchant_with_id(tx, parse("mch", programme.merchant_id))
        await inventory.assign_terminal(tx, taken.id, merchant, Book.SANDBOX)
    terminals = programme.shop.terminals
    [found] = await programme.call(lambda: list(terminals.list(serial=serial)))
    await programme.call(terminals.place, found["id"], name="counter 1")
    await programme.call(terminals.set_limits, found["id"], amount=_LIMIT)
    code = await programme.call(terminals.activation_code, found["id"])
    machine = await programme.call(
        Terminal.activate, programme.url, serial=serial, code=code["code"]
    )
    await programme.call(machine.beat, firmware="1.0", battery=90)

    order_no = f"{programme.day}-counter"
    wallet = await programme.call(programme.shop.wallets.open, holder_name="柜台顾客")
    await programme.call(programme.shop.wallets.top_up, wallet["id"], amount=3 * _TOLD)
    paid = await _collect(programme, wallet["id"], order_no, found["id"])
    refused = await _collect(programme, wallet["id"], f"{order_no}-2", found["id"])
    refund_no = f"{order_no}-r"
    await programme.call(
        programme.shop.payments.refund, paid, merchant_refund_no=refund_no, amount=_TOLD_BACK
    )
    await programme.idle()
    told = await programme.call(lambda: list(islice(machine.notices(), 2)))

    programme.mark("terminal: over its day's limit", "terminal.limit_amount", refused)
    programme.mark("terminal says", "钱包收款 12.50 元", told[0]["speak"]["zh"])
    programme.mark("terminal says then", "钱包退款 2.50 元", told[1]["speak"]["zh"])


async def _collect(programme: Programme, wallet: str, order_no: str, terminal: str) -> str:
    """Return the payment of a customer at the terminal, or the code it was refused with."""
    shown = await programme.call(programme.shop.wallets.payment_code, wallet)
    try:
        payment = await programme.call(
            programme.shop.payments.create,
            merchant_order_no=order_no,
            amount=_TOLD,
            subject="demo",
            method={"mode": "payment_code", "auth_code": shown["code"]},
            terminal_id=terminal,
        )
    except Refused as refused:
        return refused.code
    programme.payments[order_no] = payment
    return payment["id"]
