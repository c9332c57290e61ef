"""Bills that somebody asked to have before their time, by the control API or in the panel."""

from __future__ import annotations

from datetime import date

from tongbao_sandbox.seam import World


def mark(world: World, channel: str, day: date) -> None:
    """Give the day's bill out from now on, whatever the hour."""
    world.state.put_document(channel, f"early/{day}", b"early", world.clock.now())


def is_early(world: World, channel: str, day: date) -> bool:
    """Whether somebody asked for the day's bill before its time."""
    return world.state.document(channel, f"early/{day}") is not None
