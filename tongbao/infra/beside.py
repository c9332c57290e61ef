"""Work for threads: what is asked for at one moment goes over together.

A private RSA key takes longer to sign than all else of a request to a channel, so it signs in a
thread, and the loop goes on. To hand work over and be told of its end costs a quarter of such a
signature itself, and many requests become due with the same commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

TOGETHER_MAX: Final = 4
"""So many after each other take about a millisecond; more are shared among threads."""

_Asked = tuple[Callable[[], Any], "asyncio.Future[Any]"]
_Done = tuple["asyncio.Future[Any]", Any, BaseException | None]

_waiting: Final[dict[asyncio.AbstractEventLoop, list[_Asked]]] = {}


def beside(work: Callable[P, T], *args: P.args, **how: P.kwargs) -> asyncio.Future[T]:
    """Return what the work will have come to, in a thread, with others of this turn of the loop."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    asked = (partial(copy_context().run, work, *args, **how), future)
    if loop in _waiting:
        _waiting[loop].append(asked)
    else:
        _waiting[loop] = [asked]
        loop.call_soon(_hand_over, loop)
    return future


def _hand_over(loop: asyncio.AbstractEventLoop) -> None:
    asked = _waiting.pop(loop)
    for first in range(0, len(asked), TOGETHER_MAX):
        together = asked[first : first + TOGETHER_MAX]
        loop.run_in_executor(None, _do, together).add_done_callback(_tell)


def _do(asked: list[_Asked]) -> list[_Done]:
    """Do it all, in a thread."""
    done: list[_Done] = []
    for work, future in asked:
        try:
            done.append((future, work(), None))
        except BaseException as failure:  # noqa: BLE001 - it is told to whose work it was
            done.append((future, None, failure))
    return done


def _tell(ended: asyncio.Future[list[_Done]]) -> None:
    if ended.cancelled():
        return  # the loop is closing
    for future, found, failure in ended.result():
        if future.done():
            continue  # who asked has gone
        if failure is None:
            future.set_result(found)
        else:
            future.set_exception(failure)
