"""Work for threads goes over together, and everybody is told of its own."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tongbao.infra.beside import TOGETHER_MAX, beside


def sign(number: int) -> tuple[int, str]:
    if number == 2:
        raise ValueError("no key")
    return number, threading.current_thread().name


async def test_what_is_asked_at_one_moment_shares_a_thread_and_no_fate() -> None:
    asked = [beside(sign, number) for number in range(TOGETHER_MAX)]
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(found[2], ValueError)
    good = [each for each in found if isinstance(each, tuple)]
    assert [number for number, _ in good] == [0, 1, 3]
    assert {thread for _, thread in good}.isdisjoint({threading.main_thread().name})
    assert len({thread for _, thread in good}) == 1


async def test_who_has_gone_is_told_nothing() -> None:
    gone, stays = beside(sign, 0), beside(sign, 1)
    gone.cancel()
    assert (await stays)[0] == 1
    with pytest.raises(asyncio.CancelledError):
        await gone
