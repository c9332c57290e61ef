"""What a burst showed, and the table made of it."""

from __future__ import annotations

import numpy as np
from msgspec import Struct

HEADING = (
    "| arm | grabs | empty | seconds | answers/s | half answered after | all but 1 % after"
    " | commits | to (a) |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
)


class Burst(Struct, frozen=True):
    """One arm: ``waits`` in seconds from the burst's beginning to each person's answer."""

    grabbed: int
    empty: int
    seconds: float
    waits: list[float]
    commits: int

    @property
    def per_second(self) -> float:
        """Answers a second, of parts and of "empty" together."""
        return (self.grabbed + self.empty) / self.seconds


def row(name: str, burst: Burst, against: Burst) -> str:
    """Return a line of a Markdown table; the ratio is of answers a second."""
    half, most = np.percentile(burst.waits, [50, 99])
    return (
        f"| {name} | {burst.grabbed:,} | {burst.empty:,} | {burst.seconds:.2f} |"
        f" {burst.per_second:,.0f} | {half:.2f} s | {most:.2f} s | {burst.commits:,} |"
        f" {burst.per_second / against.per_second:.1f} × |"
    )
