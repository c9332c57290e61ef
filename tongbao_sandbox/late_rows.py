"""Rows of a day's bill, with those that stand only in the next day's: it was cut off too early."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from tongbao_sandbox.seam import World

R = TypeVar("R", bound=Struct)


class Making(Struct, Generic[R], frozen=True):
    """How a channel makes the rows of its bill."""

    kind: type[R]
    true: Callable[[World, date], list[R]]
    misreported: Callable[[World, R, list[R]], list[R]]  # those put to the list come a day late
    stranger: Callable[[World, R, int], R]  # like a row, of this amount, and nobody's here


def put_off(world: World, channel: str, day: date, rows: Sequence[Struct]) -> None:
    """Give these rows of a day out with the next one's, instead of any put off before."""
    name = _name(day + timedelta(days=1))
    if rows or world.state.document(channel, name) is not None:
        world.state.put_document(channel, name, msgspec.json.encode(rows), world.clock.now())


def left_over(world: World, channel: str, day: date, kind: type[R]) -> list[R]:
    """Return the rows of the day before that stand on this day's bill."""
    found = world.state.document(channel, _name(day))
    rows = [] if found is None else msgspec.json.decode(found[0])
    return [msgspec.convert(row, kind) for row in rows]


def rows_of(world: World, channel: str, day: date, making: Making[R]) -> list[R]:
    """Return a day's rows, after those that came too late for the day before.

    Once made they stay, with whatever the scripted faults did to them.
    """
    return [*left_over(world, channel, day, making.kind), *_own_rows(world, channel, day, making)]


def _own_rows(world: World, channel: str, day: date, making: Making[R]) -> list[R]:
    name = f"bill/{day}"
    kept = world.state.document(channel, name)
    if kept is not None and kept[0]:
        return [msgspec.convert(row, making.kind) for row in msgspec.json.decode(kept[0])]
    true = making.true(world, day)
    late: list[R] = []
    rows = [told for row in true for told in making.misreported(world, row, late)]
    put_off(world, channel, day, late)
    while true:
        fault = world.faults.take(channel, "bill", "", frozenset({"extra_row"}))
        if not fault.name:
            world.state.put_document(channel, name, msgspec.json.encode(rows), world.clock.now())
            break
        rows.append(making.stranger(world, true[-1], int(fault.argument or 100)))
    return rows


def _name(day: date) -> str:
    return f"late-rows/{day}"
