"""Faults: scripted misbehaviour, by number, for the next n times, or always.

A channel asks `take` at each point where the real one may fail and acts on the name it gets. What
every name means is written in README.md; the tables here are what the control API accepts.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from tongbao_sandbox.model import Fault
from tongbao_sandbox.state import State

ALWAYS: Final = -1

FAULTS: Final[dict[str, frozenset[str]]] = {
    "pay": frozenset(
        {
            "time_out_paid",
            "time_out_unpaid",
            "http_500_paid",
            "http_500_unpaid",
            "http_502_paid",
            "http_502_unpaid",
            "http_503_unpaid",
            "http_429",
            "bad_signature_paid",
            "processing",
            "new_key",
            "reset",
            "slow",
        }
    ),
    "query": frozenset(
        {
            "http_500",
            "http_502",
            "http_503",
            "stale",
            "time_out",
            "slow",
            "bad_signature",
            "http_429",
        }
    ),
    "refund": frozenset(
        {
            "time_out_done",
            "time_out_not_done",
            "http_500_done",
            "http_500_not_done",
            "http_502_done",
            "http_502_not_done",
            "http_503_not_done",
            "http_429",
            "bad_signature_done",
            "processing",
            "abnormal",
        }
    ),
    "refund_query": frozenset({"http_500", "http_502", "http_503", "time_out"}),
    "close": frozenset(
        {
            "time_out_done",
            "http_500",
            "http_502",
            "http_503",
            "paid_just_before",
            "late_success",
        }
    ),
    "callback": frozenset(
        {
            "lost",
            "doubled",
            "late",
            "forged",
            "wrong_amount",
            "reordered",
            "signtest",
            "new_key",
        }
    ),
    "bill": frozenset(
        {
            "drop_row",
            "late_row",
            "extra_row",
            "wrong_amount",
            "wrong_fee",
            "truncate",
            "late",
        }
    ),
}
"""What may be asked for, per point. A channel may add its own with `allow`."""


_LOST: Final = frozenset({"http_429", "http_500", "http_502", "http_503", "reset", "time_out"})


def http_status(name: str) -> int:
    """Return the status a fault is answered with, 0 for none: 502 for ``http_502_paid``."""
    head, _, rest = name.partition("_")
    return int(rest[:3]) if head == "http" else 0


def is_lost(name: str) -> bool:
    """Whether a request with this fault gets lost before anything happens."""
    return name in _LOST or name.endswith(("_unpaid", "_not_done"))


def error_page(name: str) -> tuple[int, bytes]:
    """Return the status and the page of a gateway that could not, whatever stands behind it."""
    status = http_status(name)
    return status, f"<h1>{status} {HTTPStatus(status).phrase}</h1>".encode()


def allow(on: str, *names: str) -> None:
    """Let the control API accept further faults at a point; called when a channel is imported."""
    FAULTS[on] = FAULTS.get(on, frozenset()) | frozenset(names)


class UnknownFault(ValueError):
    """Nobody would act on this fault, so asking for it is a mistake in the test."""


class Faults:
    """The list of faults still to happen."""

    def __init__(self, state: State) -> None:
        self._state = state

    def add(self, *, channel: str, on: str, fault: str, number: str = "", times: int = 1) -> int:
        """Script a fault and return its id; ``times`` of -1 is for ever.

        Raises:
            UnknownFault
        """
        name, _, argument = fault.partition(":")
        if name not in FAULTS.get(on, frozenset()):
            raise UnknownFault(f"no fault {name!r} on {on!r}; there are {sorted(FAULTS)}")
        cursor = self._state.db.execute(
            'insert into fault (channel, "on", number, name, argument, "left")'
            " values (?, ?, ?, ?, ?, ?)",
            (channel, on, number, name, argument, times),
        )
        return int(cursor.lastrowid or 0)

    def take(self, channel: str, on: str, number: str, only: frozenset[str] = frozenset()) -> Fault:
        """Return the oldest fault that fits and use it up once; `NONE` when all is well.

        A fault scripted for this very number goes before one for any number. ``only`` narrows the
        names, so that one point may ask twice for different kinds.
        """
        for fault in self.list():
            fits = fault.channel == channel and fault.on == on and fault.number in {"", number}
            if fits and fault.left and (not only or fault.name in only):
                if fault.left > 0:
                    self._state.db.execute(
                        'update fault set "left" = "left" - 1 where id = ?', (fault.id,)
                    )
                return fault
        return NONE

    def list(self) -> list[Fault]:
        """Return every fault that still can happen: those for one number first, oldest first."""
        rows = self._state.db.execute(
            'select id, channel, "on", number, name, argument, "left" from fault'
            " where \"left\" <> 0 order by number = '', id"
        )
        names = ("id", "channel", "on", "number", "name", "argument", "left")
        return [Fault(**dict(zip(names, row, strict=True))) for row in rows]

    def clear(self, fault_id: int | None = None) -> None:
        """Forget one fault, or all."""
        self._state.db.execute("delete from fault where ?1 is null or id = ?1", (fault_id,))


NONE: Final = Fault(id=0, channel="", on="", number="", name="", argument="", left=0)
"""No fault: its name is empty, so a channel can compare names without asking first."""
