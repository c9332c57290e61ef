"""Amounts that bring WeChat Pay bad luck, for whoever has no control API at hand.

The figures are the other channels' too. An order or refund of such an amount is met by its fault
once, as if that had been scripted for its number; a scripted fault goes before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tongbao_sandbox.faults import NONE
from tongbao_sandbox.model import Fault
from tongbao_sandbox.wechat_desk import NAME, Desk

ANSWERS: Final[Mapping[str, Mapping[int, str]]] = {
    "pay": {
        77701: "time_out_paid",
        77702: "time_out_unpaid",
        77703: "slow:15",
        77704: "bad_signature_paid",
        77707: "slow:5",
        77709: "time_out_made",
        77711: "http_500_paid",
        77712: "http_500_unpaid",
        77713: "http_429",
        77714: "reset",
    },
    "refund": {
        77731: "time_out_done",
        77732: "time_out_not_done",
        77733: "processing",
        77734: "abnormal",
        77735: "not_enough",
    },
}
"""Point → fen → what becomes of the answer."""
CALLBACKS: Final[Mapping[int, str]] = {
    77721: "lost:2",
    77722: "doubled",
    77723: "late:60",
    77724: "forged",
    77725: "wrong_amount",
    77726: "reordered",
    77727: "signtest",
}
"""Fen of an order → what becomes of the notification that it was paid."""


def fault_of(desk: Desk, point: str, number: str, amount: int) -> Fault:
    """Return the fault scripted for a number, or that of its amount the first time, or `NONE`."""
    scripted = desk.world.faults.take(NAME, point, number)
    named = ANSWERS[point].get(amount, "")
    if scripted.name or not named or desk.kept("magic", f"{point}/{number}") is not None:
        return scripted if scripted.name else NONE
    desk.keep("magic", f"{point}/{number}", {"used": named})
    name, _, argument = named.partition(":")
    return Fault(id=0, channel=NAME, on=point, number=number, name=name, argument=argument, left=0)


def script_callback(desk: Desk, number: str, amount: int) -> None:
    """Script what becomes of the notification about a new order of a magic amount."""
    if fault := CALLBACKS.get(amount):
        desk.world.faults.add(channel=NAME, on="callback", fault=fault, number=number)
