"""Failpoints: named places where a test makes the process die or raise, and nobody else does.

    TONGBAO_FAILPOINT=payments.after_intention:kill9       die at the first passage
    TONGBAO_FAILPOINT=payments.after_intention:kill9:3     die at the third
    TONGBAO_FAILPOINT=payments.after_intention:raise       raise SimulatedCrash instead
    TONGBAO_FAILPOINT=record:/tmp/passed                   append the name at every passage

The names are string literals, unique in the package. Recording tells which places a flow passes,
so that a sweep can make it die at each.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Final

from tongbao.kernel.errors import Invalid

VARIABLE: Final = "TONGBAO_FAILPOINT"
_RECORD: Final = "record:"


class FailpointMalformed(Invalid):
    """The text does not say where and how to fail."""

    code = "failpoint.malformed"
    advice = "Write name:kill9, name:kill9:nth, name:raise, name:raise:nth or record:file."
    advice_zh = "格式应为 name:kill9、name:kill9:nth、name:raise、name:raise:nth 或 record:文件。"


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

    def pass_by(self, name: str) -> None:
        if name != self.name:
            return
        self.passages_left -= 1
        if self.passages_left == 0:
            if self.action == "raise":
                raise SimulatedCrash(self.name)
            os.kill(os.getpid(), signal.SIGKILL)


class _Recording:
    def __init__(self, path: Path) -> None:
        self.path = path

    def pass_by(self, name: str) -> None:
        with self.path.open("a") as file:
            file.write(f"{name}\n")


_armed: _Armed | _Recording | None = None


def arm(spec: str | None) -> None:
    """Choose the one failpoint that acts from now on, or none.

    Raises:
        FailpointMalformed
    """
    global _armed  # noqa: PLW0603 - one process has one way to die
    if spec and spec.startswith(_RECORD):
        _armed = _Recording(Path(spec.removeprefix(_RECORD)))
    else:
        _armed = _Armed(spec) if spec else None


def failpoint(name: str) -> None:
    """Do nothing, unless a test armed exactly this name or records every one."""
    if _armed is not None:
        _armed.pass_by(name)


arm(os.environ.get(VARIABLE))
