"""Die at a named place, and live on after it, in one process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tongbao.infra import failpoints
from tongbao.infra.failpoints import SimulatedCrash


@contextmanager
def dying(place: str) -> Iterator[None]:
    """Let what is inside die at a failpoint; it is a mistake if nothing passes it."""
    failpoints.arm(f"{place}:raise")
    try:
        yield
    except SimulatedCrash:
        return
    finally:
        failpoints.arm(None)
    raise AssertionError(f"nothing passed {place}")
