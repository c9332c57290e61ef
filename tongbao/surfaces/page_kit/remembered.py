"""Figures that many people look at all the time: worked out once, and not again at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

from tongbao.kernel.clock import monotonic

V = TypeVar("V")

QUICK_S: Final = 0.1
SHARE: Final = 20
KEPT_MAX_S: Final = 30.0
KEYS_MAX: Final = 256


class Remembered(Generic[V]):
    """Answers from memory for twenty times as long as working it out took, if it took long.

    So however many ask, and however much there is to count, counting takes about a twentieth of
    one connection's time for each key; and what is shown is at most half a minute old.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._known: dict[Hashable, tuple[float, V]] = {}

    async def get(self, key: Hashable, work_out: Callable[[], Awaitable[V]]) -> V:
        """Return the figures of a key, fresh or remembered."""
        started = self._clock()
        known = self._known.get(key)
        if known is not None and started < known[0]:
            return known[1]
        figures = await work_out()
        if len(self._known) >= KEYS_MAX:
            self._known.clear()
        ended = self._clock()
        took = ended - started
        kept_s = min(took * SHARE, KEPT_MAX_S) if took > QUICK_S else 0.0
        self._known[key] = (ended + kept_s, figures)
        return figures
