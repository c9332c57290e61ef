"""The sandbox's own clock: real time plus an offset that people push forward.

Orders, expiries, retry plans, payment codes and bills live on this clock. Signature windows do
not: like the real channels they compare with real time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from tongbao.kernel.clock import real_now
from tongbao_sandbox.state import State

CHINA: Final = ZoneInfo("Asia/Shanghai")
_OFFSET: Final = "clock.offset_s"


class VirtualClock:
    """Tells the sandbox's time; the offset is stored, so a restart does not go back."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._offset = timedelta(seconds=float(state.setting(_OFFSET, 0.0)))

    def now(self) -> datetime:
        """Return the sandbox's time, UTC."""
        return real_now() + self._offset

    def advance(self, seconds: float) -> None:
        """Push the clock forward; it never steps back."""
        if seconds < 0:
            raise ValueError("the clock only goes forward")
        self._offset += timedelta(seconds=seconds)
        self._state.set_setting(_OFFSET, self._offset.total_seconds())

    @property
    def offset_s(self) -> float:
        """How far the clock runs ahead of real time."""
        return self._offset.total_seconds()


def china(at: datetime) -> datetime:
    """Return the moment in the zone every Chinese channel writes its times in."""
    return at.astimezone(CHINA)


def rfc3339(at: datetime) -> str:
    """Return ``2018-06-08T10:34:56+08:00``, the only form WeChat Pay writes."""
    return china(at).replace(microsecond=0).isoformat()


def plain(at: datetime) -> str:
    """Return ``2018-06-08 10:34:56`` in China's zone, as bills and Alipay write it."""
    return china(at).strftime("%Y-%m-%d %H:%M:%S")


def from_epoch(seconds: float) -> datetime:
    """Return the moment of a Unix time, UTC."""
    return datetime.fromtimestamp(seconds, UTC)
