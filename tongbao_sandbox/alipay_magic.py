"""Amounts that bring bad luck along, for whoever has no control API at hand.

An order (or a refund) of one of these amounts is met by a fault once, as if it had been scripted
for its number. A scripted fault goes before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tongbao_sandbox.faults import NONE
from tongbao_sandbox.model import Fault
from tongbao_sandbox.seam import World

NAME: Final = "alipay"
ANSWERS: Final[Mapping[str, Mapping[int, str]]] = {
    "pay": {
        77701: "time_out_paid",
        77702: "time_out_unpaid",
        77703: "slow:15",
        77704: "bad_signature_paid",
        77707: "slow:5",
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
}
"""Fen of an order → what becomes of the notification that it was paid."""


def fault_of(world: World, point: str, number: str, amount: int | None) -> Fault:
    """Return the fault of a magic amount, once for each number; `NONE` otherwise."""
    named = ANSWERS.get(point, {}).get(amount or 0, "")
    mark = f"magic/{point}/{number}"
    if not named or world.state.document(NAME, mark) is not None:
        return NONE
    world.state.put_document(NAME, mark, b"used", world.clock.now())
    name, _, argument = named.partition(":")
    return Fault(id=0, channel=NAME, on=point, number=number, name=name, argument=argument, left=0)


def script_callback(world: World, number: str, amount: int) -> None:
    """Script what becomes of the notification about a new order of a magic amount."""
    if fault := CALLBACKS.get(amount):
        world.faults.add(channel=NAME, on="callback", fault=fault, number=number)
