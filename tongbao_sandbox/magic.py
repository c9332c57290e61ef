"""Amounts that bring luck or bad luck along, for whoever has no control API at hand: one table.

An order, refund or row of such an amount is met by its fault once, as if that had been scripted
for its number; a scripted fault goes before. What every fault means is written in README.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from tongbao_sandbox.model import Fault
from tongbao_sandbox.seam import World

DECLINED: Final = "declined"
"""Not a fault that can be scripted: whoever tries to pay such an amount has too little money."""
TABLE: Final[Mapping[str, Mapping[int, str]]] = {
    "pay": {
        77701: "time_out_paid",
        77702: "time_out_unpaid",
        77703: "slow:15",
        77704: "bad_signature_paid",
        77705: "wrong_amount_paid",
        77706: "reset_mid_frame_paid",
        77707: "slow:5",
        77708: "processing",
        77709: "time_out_made",
        77710: "doubled_answer",
        77711: "http_500_paid",
        77712: "http_500_unpaid",
        77713: "http_429",
        77714: "reset",
        77715: "http_502_paid",
        77716: "http_502_unpaid",
        77717: "http_503_unpaid",
        77718: "processing:21600",
        77719: "new_key",
        77751: DECLINED,
    },
    "callback": {
        77721: "lost:2",
        77722: "doubled",
        77723: "late:60",
        77724: "forged",
        77725: "wrong_amount",
        77726: "reordered",
        77727: "signtest",
        77728: "new_key",
    },
    "refund": {
        77731: "time_out_done",
        77732: "time_out_not_done",
        77733: "processing",
        77734: "abnormal",
        77735: "not_enough",
    },
    "bill": {
        77741: "drop_row",
        77742: "late_row",
        77743: "wrong_amount",
        77744: "wrong_fee",
    },
}
"""Point → fen → what happens. Of a notification it is the order's amount that counts."""

_NEW_KEYS: Final = frozenset({77719, 77728})
_ON_A_LINE: Final = frozenset({77705, 77706, 77710})  # what only a card host's wire can do
_HTTP: Final = frozenset({*range(77711, 77714), *range(77715, 77718)})
_EVERY: Final = frozenset(fen for amounts in TABLE.values() for fen in amounts)
_ONLINE: Final = _EVERY - _ON_A_LINE
OBEYED: Final[Mapping[str, frozenset[int]]] = {
    "alipay": _ONLINE - {77727},
    "bank": (_HTTP - {77713}) | {77701, 77702, 77708, 77751},
    "cards": frozenset({*range(77701, 77708), 77710, 77714, 77719, 77731, 77732, 77751}),
    "messages": frozenset(),
    "objects": frozenset(),
    "registers": frozenset(),
    "unionpay": _ONLINE - {77727},
    "unionpay_qra": _ONLINE - {77727, *_NEW_KEYS, *TABLE["bill"]},
    "wechat": _ONLINE,
}
"""Party → the amounts that mean something there; it is blind to the others."""


class Magic(Struct, frozen=True):
    """One line of the table, as a party obeys it."""

    fen: int
    on: str
    fault: str


def amounts_of(channel: str) -> list[Magic]:
    """Return a party's magic amounts, the smallest first."""
    return sorted(
        (
            Magic(fen, on, fault)
            for on, amounts in TABLE.items()
            for fen, fault in amounts.items()
            if fen in OBEYED[channel]
        ),
        key=lambda one: one.fen,
    )


def is_declined(amount: int) -> bool:
    """Whether nobody has enough money to pay this."""
    return TABLE["pay"].get(amount) == DECLINED


def fault_of(
    world: World,
    channel: str,
    point: str,
    number: str,
    amount: int | None,
    *,
    only: frozenset[str] = frozenset(),
) -> Fault:
    """Return the fault scripted for a number, or that of its amount the first time, or none.

    ``only`` narrows the names as it does for `Faults.take`.
    """
    scripted = world.faults.take(channel, point, number, only)
    name, _, argument = TABLE[point].get(amount or 0, "").partition(":")
    if scripted.name or name in {"", DECLINED} or (only and name not in only):
        return scripted
    if amount not in OBEYED[channel] or not _is_first(world, channel, point, number):
        return scripted
    return Fault(
        id=0, channel=channel, on=point, number=number, name=name, argument=argument, left=0
    )


def script_callback(world: World, channel: str, number: str, amount: int | None) -> None:
    """Script what becomes of the notification that an order of a magic amount was paid."""
    fault = TABLE["callback"].get(amount or 0)
    is_known = fault is not None and amount in OBEYED[channel]
    if fault and is_known and _is_first(world, channel, "callback", number):
        world.faults.add(channel=channel, on="callback", fault=fault, number=number)


def _is_first(world: World, channel: str, point: str, number: str) -> bool:
    """Whether nothing magic has happened to this number at this point, and note that it has."""
    mark = f"magic/{point}/{number}"
    if world.state.document(channel, mark) is not None:
        return False
    world.state.put_document(channel, mark, b"used", world.clock.now())
    return True
