"""What a run showed, and the tables made of it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy as np
from msgspec import Struct


class Figures(Struct, frozen=True):
    """One arm under one load: ``latencies`` in seconds, one of every call."""

    transfers: int
    refused: int
    seconds: float
    latencies: list[float]

    @property
    def per_second(self) -> float:
        """Transfers decided a second, refusals counted: each was answered durably."""
        return self.transfers / self.seconds

    def milliseconds(self, percent: float) -> float:
        """Return the latency that so many per cent of the calls stayed below."""
        return float(np.percentile(self.latencies, percent)) * 1000 if self.latencies else 0.0


def machine() -> str:
    """Say what ran this, in one line."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    return (
        f"{model}, {cores} cores, Python {platform.python_version()}, load {load:.1f} at the start"
    )


def row(name: str, load: str, figures: Figures, against: Figures | None) -> str:
    """Return a line of a Markdown table; the ratio is to ``against``."""
    ratio = "" if against is None else f"{figures.per_second / against.per_second:.1f} ×"
    return (
        f"| {name} | {load} | {figures.per_second:,.0f} | {figures.milliseconds(50):.1f} |"
        f" {figures.milliseconds(99):.1f} | {figures.refused:,} | {ratio} |"
    )


HEADING = (
    "| arm | load | transfers/s | p50 ms | p99 ms | refused | to (a) |\n"
    "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
)
