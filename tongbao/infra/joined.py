"""Several statements for many rows as one: one round trip, and a transaction that nobody begins.

    with s0 as (insert …), s1 as (update …)
    select lock_timeout, every row of s0 was touched or this fails, …

All of it happens or nothing does, as in a transaction of its own, and where it fails nobody is told
why: whoever asked tries its statements one by one. Each of them sees the tables as they were before
all of them: before what the others write, and before what somebody else commits while one of them
waits for a lock. So nothing is read once one of them may have waited; from there on each
writes one table, where a row that was waited for is looked at anew and a key that was taken
meanwhile is heard of.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from tongbao.infra.db import Statement

Shape = tuple[tuple[Statement, bool], ...]
"""Statements in their order, each with whether it must touch as many rows as it is given."""

_PARAMETER: Final = re.compile(r"\$(\d+)")
_KIND: Final = re.compile(r"\s*(insert\s+into|update|delete\s+from|select)\b")
_TABLE: Final = re.compile(r"\b(?:from|join|into|update|using)\s+(\w+)")
_LOCKS: Final = re.compile(r"\bfor\s+(?:no\s+key\s+|key\s+)?(?:update|share)\b|advisory")
_NO_TABLES: Final = {"unnest", "set"}  # rows that are given, and what a conflict does instead
_LIST: Final = re.compile(r"\bfrom\s+\w+(?:\s+(?:as\s+)?\w+)?\s*,")


@lru_cache(maxsize=1024)
def joined(shape: Shape, first: str = "", last: str = "") -> str | None:
    """Return one statement that does what all of these do for a set of rows; None: it cannot.

    It takes `arguments`, and fails where one touches fewer rows than it must. ``first`` and
    ``last`` are expressions to be evaluated before and after.
    """
    written = set[str]()
    parts, checks, at, waits = list[str](), list[bool](), 0, False
    for place, (statement, must_touch) in enumerate(shape):
        many = statement.many or ""
        if not _KIND.match(many) or _LIST.search(many):
            return None
        tables = [each for each in _TABLE.findall(many) if each not in _NO_TABLES]
        writes = not many.lstrip().startswith("select")
        if written.intersection(tables) or (waits and not (writes and len(tables) == 1)):
            return None
        waits = waits or writes or _LOCKS.search(many) is not None
        written.update(tables[:1] if writes else ())
        many, at = _renumbered(many + " returning 1" if writes else many, at)
        parts.append(f"s{place} as ({many})")
        checks.append(must_touch)
    return _whole(parts, checks, f"${at + 1}::bigint", (first, last))


@lru_cache(maxsize=1024)
def stretches(shape: Shape) -> tuple[range, ...]:
    """Return which statements, one after the other, can be joined; one that cannot stands alone."""
    found: list[range] = []
    first = 0
    for end in range(1, len(shape) + 1):
        is_last = end == len(shape)
        if is_last or joined(shape[first : end + 1]) is None:
            found.append(range(first, end))
            first = end
    return tuple(found)


def arguments(rows: Sequence[Sequence[Sequence[object]]]) -> list[object]:
    """Return what a joined statement is given; ``rows``: those of each statement, in order."""
    columns: list[object] = [list(each) for of_one in rows for each in zip(*of_one, strict=True)]
    columns.append(len(rows[0]))
    return columns


def _renumbered(sql: str, after: int) -> tuple[str, int]:
    """Return a statement whose parameters come after so many, and how many there are then."""
    numbers = [int(number) for number in _PARAMETER.findall(sql)]
    moved = _PARAMETER.sub(lambda found: f"${int(found[1]) + after}", sql)
    return moved, after + max(numbers, default=0)


def _whole(
    parts: Sequence[str], checks: Sequence[bool], count: str, around: tuple[str, str]
) -> str:
    """Return the whole; where a row is missing its check divides by nought.

    What is selected is worked out from left to right, and so each part as it is counted.
    """
    seen = [
        f"1 / ((select count(*) from s{place}) >= {count})::int"
        if must_touch
        else f"(select count(*) from s{place})"
        for place, must_touch in enumerate(checks)
    ]
    if not any(checks):
        seen.append(count)  # every parameter has to be used
    first, last = around
    selected = [*([first] if first else []), *seen, *([last] if last else [])]
    return f"with {', '.join(parts)} select {', '.join(selected)}"
