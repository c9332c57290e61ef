"""Cut a file of lines into parts: each with its offset and the number of its lines.

A part ends at the end of a line. What a set engine could misread (NULs, endless or empty lines,
stray carriage returns) is found here, and such a part is not *plain*.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Final

import numpy as np
from msgspec import Struct

PART_BYTES: Final = 16 * 1024 * 1024
LINE_MAX: Final = 64 * 1024
_LINE_FEED: Final = 10
_RETURN: Final = 13
_FEW: Final = 50


class Part(Struct, frozen=True):
    """A stretch of a file. ``path`` is its copy; lines count from one."""

    place: int
    offset: int
    size: int
    first_line: int
    line_count: int
    is_plain: bool
    path: Path


class NumberedLine(Struct, frozen=True):
    """One line of the file, as it stands there, with its ending."""

    number: int
    text: bytes


def split(path: Path, folder: Path, *, part_bytes: int = PART_BYTES) -> list[Part]:
    """Write a file's parts into a folder and return them.

    The first line is a part of its own, and so are the last two: they are other than the rest.
    """
    parts: list[Part] = []
    with path.open("rb") as file:
        offset, line = 0, 1
        for content in _pieces(file, part_bytes):
            place = len(parts)
            target = folder / f"part-{place:05d}.txt"
            target.write_bytes(content)
            count = content.count(b"\n") + (not content.endswith(b"\n"))
            parts.append(
                Part(
                    place=place,
                    offset=offset,
                    size=len(content),
                    first_line=line,
                    line_count=count,
                    is_plain=is_plain(content),
                    path=target,
                )
            )
            offset, line = offset + len(content), line + count
    return parts


def _pieces(file: IO[bytes], part_bytes: int) -> Iterator[bytes]:
    """Yield the first line, pieces of whole lines, and the last two lines."""
    header = file.readline(part_bytes)
    if header:
        yield header
    before = b""
    while piece := file.read(part_bytes):
        if before:
            yield before
        # A line that goes on for ever is cut somewhere, and the part it is cut in is not plain.
        before = piece if piece.endswith(b"\n") else piece + file.readline(part_bytes)
    at = before.rfind(b"\n", 0, before.rfind(b"\n", 0, len(before) - 1)) + 1
    yield from (piece for piece in (before[:at], before[at:]) if piece)


def is_plain(content: bytes) -> bool:
    """Whether everybody who cuts this text into lines gets the same ones.

    Bytes that are no UTF-8 are not looked for: the set engine leaves such a line out, and then the
    number of its lines is not that of the part's.
    """
    text = np.frombuffer(content, np.uint8)
    ends = np.flatnonzero(text == _LINE_FEED)
    if len(ends) == 0 or ends[-1] != len(text) - 1 or np.count_nonzero(text == 0):
        return False
    returns = np.count_nonzero(text == _RETURN)
    if returns and (returns != len(ends) or not bool((text[ends - 1] == _RETURN).all())):
        return False
    lengths = np.diff(ends, prepend=-1)
    return bool(lengths.max() <= LINE_MAX and lengths.min() > (2 if returns else 1))


def all_lines(part: Part) -> Iterator[NumberedLine]:
    """Yield every line of a part."""
    with part.path.open("rb") as file:
        for place, text in enumerate(file):
            yield NumberedLine(part.first_line + place, text)


def lines_with(part: Part, values: Iterable[bytes], column: int) -> list[NumberedLine]:
    """Return the lines of a part that have one of these values in a column, in order."""
    content, wanted = part.path.read_bytes(), frozenset(values)
    if len(wanted) > _FEW:
        return [line for line in all_lines(part) if _value(line.text, column) in wanted]
    found = {}
    for value in wanted:
        at = content.find(value)
        while at >= 0:
            start = content.rfind(b"\n", 0, at) + 1
            end = content.find(b"\n", at) + 1 or len(content)
            text = content[start:end]
            if _value(text, column) == value:
                found[start] = text
            at = content.find(value, end)
    ordered, line, before = [], part.first_line, 0
    for start in sorted(found):
        line, before = line + content.count(b"\n", before, start), start
        ordered.append(NumberedLine(line, found[start]))
    return ordered


def _value(text: bytes, column: int) -> bytes | None:
    cells = text.split(b",", column + 1)
    return cells[column] if len(cells) > column else None
