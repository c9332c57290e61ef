"""Failpoints: named places where a test makes the process die or raise, and nobody else does.

    TONGBAO_FAILPOINT=payments.after_intention:kill9       die at the first passage
    TONGBAO_FAILPOINT=payments.after_intention:kill9:3     die at the third
    TONGBAO_FAILPOINT=payments.after_intention:raise       raise SimulatedCrash instead

The names are string literals, unique in the package.
"""

from __future__ import annotations

import os
import signal
from typing import Final

from tongbao.kernel.errors import Invalid

VARIABLE: Final = "TONGBAO_FAILPOINT"


class FailpointMalformed(Invalid):
    """The text does not say where and how to fail."""

    code = "failpoint.malformed"
    advice = "Write name:kill9, name:kill9:nth, name:raise or name:raise:nth."
    advice_zh = "格式应为 name:kill9、name:kill9:nth、name:raise 或 name:raise:nth。"


class SimulatedCrash(BaseException):
    """The process would have died here.

    Not an Exception, so that nothing which survives bugs survives this.
    """


class _Armed:
    def __init__(self, spec: str) -> None:
        name, _, rest = spec.partition(":")
        action, _, nth = rest.partition(":")
        if not name or action not in {"kill9", "raise"} or not (nth or "1").isdecimal():
            raise FailpointMalformed(spec=spec[:80])
        self.name = name
        self.action = action
        self.passages_left = int(nth or "1")

    def pass_by(self) -> None:
        self.passages_left -= 1
        if self.passages_left == 0:
            if self.action == "raise":
                raise SimulatedCrash(self.name)
            os.kill(os.getpid(), signal.SIGKILL)


_armed: _Armed | None = None


def arm(spec: str | None) -> None:
    """Choose the one failpoint that acts from now on, or none.

    Raises:
        FailpointMalformed
    """
    global _armed  # noqa: PLW0603 - one process has one way to die
    _armed = _Armed(spec) if spec else None


def failpoint(name: str) -> None:
    """Do nothing, unless a test armed exactly this name."""
    if _armed is not None and _armed.name == name:
        _armed.pass_by()


arm(os.environ.get(VARIABLE))
