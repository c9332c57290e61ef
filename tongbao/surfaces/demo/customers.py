"""What the day's customers buy and how they behave, decided before the doors open."""

from __future__ import annotations

import random
from typing import Final, Literal

from msgspec import Struct

Channel = Literal["wechat_pay", "alipay", "wallet"]
Mode = Literal["qr", "payment_code"]
Act = Literal["pay", "decline", "abandon", "ask_then_pay", "no_money"]

SANDBOX_NAME: Final = {"wechat_pay": "wechat", "alipay": "alipay"}
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
