"""Where each slice's lines stand in a piece of a bill, so that opening a slice reads only those.

Beside a piece its *runs* are kept: stretches of neighbouring lines of one slice. A bill in the
order of time has one run for each slice, any other has more; both are read back the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from tongbao.clearing.sets.parts import Part

Runs = npt.NDArray[np.int64]
"""One row for each run: its slice, offset, size, first line in the piece, number of lines."""

_TOTAL: Final = -1  # stands for the slice of the bill's total
_CLOCK: Final = b"0000-00-00 00:00:00"  # a nought is any digit
_HOUR, _MINUTE, _SECOND = 11, 14, 17


class PieceLost(Exception):
    """A kept piece is not what it was when it was taken in."""


class Lines(Struct, frozen=True):
    """Lines of a piece; numbers count from its header, which is one. ``size``: of all of it."""

    texts: list[bytes]
    numbers: list[int]
    trailer: bytes
    size: int


def runs_of(parts: Sequence[Part], prefix: str, slice_s: int) -> Runs:
    """Return the runs of a piece's rows; a line whose time cannot be read is in the first slice."""
    found = [_runs_of_part(part, prefix.encode(), slice_s) for part in parts]
    return np.concatenate(found) if found else np.empty((0, 5), np.int64)


def counts_of(runs: Runs) -> dict[int, int]:
    """Return how many lines each slice has."""
    counts = np.bincount(runs[:, 0], runs[:, 4]) if len(runs) else np.empty(0)
    return {place: int(count) for place, count in enumerate(counts) if count}


def with_total(runs: Runs, total: Part | None) -> Runs:
    """Add where the bill's total stands, for a piece that ends with it."""
    if total is None:
        return runs
    row = [[_TOTAL, total.offset, total.size, total.first_line, total.line_count]]
    return np.concatenate([runs, np.array(row, np.int64)])


def keep(home: Path, digest: str, path: Path, runs: Runs, folder: Path) -> None:
    """Keep a piece and its runs under its digest; whoever sees one of them sees it whole."""
    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, folder / "kept.piece")
    with (folder / "kept.runs").open("wb") as file:
        np.save(file, runs, allow_pickle=False)
    for ending in ("piece", "runs"):
        (folder / f"kept.{ending}").replace(home / f"{digest}.{ending}")


def lines_in(home: Path, digest: str, places: Collection[int]) -> Lines:
    """Return the lines of some slices of a piece, in order, and the bill's total if it has it.

    Raises:
        PieceLost: also as OSError where a file is gone.
    """
    try:
        runs: Runs = np.load(home / f"{digest}.runs", allow_pickle=False)
    except ValueError as broken:
        raise PieceLost from broken
    texts: list[bytes] = []
    numbers: list[int] = []
    trailer = b""
    path = home / f"{digest}.piece"
    chosen = runs[np.isin(runs[:, 0], [_TOTAL, *places])]
    with path.open("rb") as file:
        for place, offset, size, first, count in chosen.tolist():
            file.seek(offset)
            text = file.read(size)
            if len(text) != size or text.count(b"\n") != count:
                raise PieceLost
            if place == _TOTAL:
                trailer = text
                continue
            texts.append(text)
            numbers += range(first, first + count)
    return Lines(texts, numbers, trailer, path.stat().st_size)


def _runs_of_part(part: Part, prefix: bytes, slice_s: int) -> Runs:
    text = np.fromfile(part.path, np.uint8)
    ends = np.flatnonzero(text == ord("\n")) + 1
    starts = np.concatenate([[0], ends[:-1]])
    places = _places(text, starts, prefix, slice_s)
    begins = np.concatenate([[0], np.flatnonzero(np.diff(places)) + 1])
    after = np.concatenate([begins[1:], [len(starts)]])
    offsets = starts[begins]
    columns = (
        places[begins],
        part.offset + offsets,
        ends[after - 1] - offsets,
        part.first_line + begins,
        after - begins,
    )
    return np.stack([column.astype(np.int64) for column in columns], axis=1)


def _places(text: Any, starts: Any, prefix: bytes, slice_s: int) -> npt.NDArray[np.int64]:
    """Return each line's slice, by the time its first value says: prefix, clock, a comma."""
    last, skip = len(text) - 1, len(prefix)

    def letter(at: int) -> Any:
        return text[np.minimum(starts + at, last)]

    def two(at: int) -> Any:
        tens = letter(skip + at).astype(np.int64) - ord("0")
        return tens * 10 + letter(skip + at + 1) - ord("0")

    is_clock = np.ones(len(starts), bool)
    for at, wanted in enumerate(prefix + _CLOCK + b","):
        found = letter(at)
        if at >= skip and wanted == ord("0"):
            is_clock &= (found >= ord("0")) & (found <= ord("9"))
        else:
            is_clock &= found == wanted
    hour, minute, second = two(_HOUR), two(_MINUTE), two(_SECOND)
    is_clock &= (hour < 24) & (minute < 60) & (second < 60)
    seconds = hour * 3600 + minute * 60 + second
    return np.where(is_clock, seconds // slice_s, 0)
