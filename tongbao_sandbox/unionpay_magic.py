"""Amounts that bring UnionPay and Qra bad luck, for whoever has no control API at hand.

The figures are the other channels' too. An order or refund of such an amount is met by its fault
once, as if that had been scripted for its number; a scripted fault goes before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tongbao_sandbox.model import Fault
from tongbao_sandbox.seam import World

ANSWERS: Final[Mapping[str, Mapping[str, str]]] = {
    "pay": {
        "77701": "time_out_paid",
        "77702": "time_out_unpaid",
        "77703": "slow:15",
        "77704": "bad_signature_paid",
        "77707": "slow:5",
        "77708": "processing",
        "77709": "time_out_made",
        "77711": "http_500_paid",
        "77712": "http_500_unpaid",
        "77713": "http_429",
        "77714": "reset",
    },
    "refund": {
        "77731": "time_out_done",
        "77732": "time_out_not_done",
        "77733": "processing",
        "77734": "abnormal",
        "77735": "not_enough",
    },
}
"""Point → fen as the request writes them → what becomes of the answer."""
CALLBACKS: Final[Mapping[str, str]] = {
    "77721": "lost:2",
    "77722": "doubled",
    "77723": "late:60",
    "77724": "forged",
    "77725": "wrong_amount",
    "77726": "reordered",
}
"""Fen of an order → what becomes of the notification that it was paid."""


def fault_of(world: World, channel: str, point: str, number: str, amount: str) -> Fault:
    """Return the fault scripted for a number, or that of its amount the first time, or `NONE`.

    An order whose notification is to go wrong gets that scripted along the way.
    """
    scripted = world.faults.take(channel, point, number)
    mark = f"magic/{point}/{number}"
    named = ANSWERS.get(point, {}).get(amount, "")
    told = CALLBACKS.get(amount, "") if point == "pay" else ""
    if scripted.name or not (named or told) or world.state.document(channel, mark) is not None:
        return scripted
    world.state.put_document(channel, mark, b"used", world.clock.now())
    if told:
        world.faults.add(channel=channel, on="callback", fault=told, number=number)
        return scripted
    name, _, argument = named.partition(":")
    return Fault(
        id=0, channel=channel, on=point, number=number, name=name, argument=argument, left=0
    )
