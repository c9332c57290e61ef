"""Rows of a day's bill that stand only in the next day's: somebody cut the day off too early."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import TypeVar

import msgspec
from msgspec import Struct

from tongbao_sandbox.seam import World

R = TypeVar("R", bound=Struct)


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


def _name(day: date) -> str:
    return f"late-rows/{day}"
