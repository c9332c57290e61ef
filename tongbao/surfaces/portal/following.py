"""Follow a list that grows: each thing once, oldest first, from now on."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

EVERY_S: Final = 1.0
_SEEN_MAX: Final = 10_000
_AT_ONCE_MAX: Final = 1_000


def follow(
    newest: Callable[[], Iterator[Any]],
    *,
    past: int = 0,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[Any]:
    """Yield what is new in a list, and the last ``past`` of before; without end.

    ``newest`` gives the list, newest first, page by page. What is told late, behind newer things,
    is found within a page; more than a thousand between two looks are not all seen.
    """
    seen: deque[str] = deque(maxlen=_SEEN_MAX)
    known: set[str] = set()
    page = list(islice(newest(), 100))
    fresh = page[:past]
    for each in page[past:]:
        _remember(each["id"], seen, known)
    while True:
        for each in reversed(fresh):
            _remember(each["id"], seen, known)
            yield each
        if not fresh:
            pause(EVERY_S)
        fresh = list(_unseen(newest(), known))


def _unseen(listed: Iterator[Any], known: set[str]) -> Iterator[Any]:
    """Yield what is not known, and look no further than a page behind the first that is."""
    behind = 0
    for place, each in enumerate(listed):
        if each["id"] not in known:
            yield each
        else:
            behind += 1
        if behind >= 100 or place >= _AT_ONCE_MAX:
            return


def _remember(each: str, seen: deque[str], known: set[str]) -> None:
    if len(seen) == _SEEN_MAX:
        known.discard(seen[0])
    seen.append(each)
    known.add(each)
