"""What the demo holds in its hands, and the marks it gives: what was expected, what happened."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from itertools import count
from typing import Any, Final, TypeVar

from msgspec import Struct, field
from rich.console import Console
from rich.table import Table

from tongbao.infra.db import Db
from tongbao.infra.outbox import undispatched
from tongbao.infra.tasks import unfinished
from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.surfaces.demo.theatre import Receiver, Sandbox, until
from tongbao_sdk import Tongbao
from tongbao_sdk.replies import Payment

T = TypeVar("T")
_AT_ONCE: Final = 8
SANDBOX_NAME: Final = {"wechat_pay": "wechat", "alipay": "alipay"}
"""What the sandbox calls our channels."""


class Mark(Struct, frozen=True):
    """One line of the summary."""

    what: str
    expected: str
    happened: str

    @property
    def is_right(self) -> bool:
        """Whether what happened was expected."""
        return self.expected == self.happened


class Programme(Struct):
    """The actors of the day and the marks given so far."""

    db: Db
    sandbox: Sandbox
    receiver: Receiver
    shop: Tongbao
    merchant_id: str
    url: str  # where the platform listens
    day: str  # the business day, as order numbers begin
    console: Console
    marks: list[Mark] = field(default_factory=list)
    payments: dict[str, Payment] = field(default_factory=dict)  # by order number, at first
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    async def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call the SDK or the sandbox, which block, without blocking the others."""
        return await asyncio.to_thread(function, *args, **kwargs)

    def mark(self, what: str, expected: object, happened: object) -> None:
        """Note what was expected and what happened."""
        mark = Mark(what, str(expected), str(happened))
        self.marks.append(mark)
        sign = "[green]✓[/]" if mark.is_right else "[red]✗[/]"
        told = mark.happened if mark.is_right else f"{mark.happened} (expected {mark.expected})"
        self.console.print(f"   {sign} {what}: {told}")

    async def idle(self, timeout_s: float = 60) -> None:
        """Wait until nothing is due, neither at the platform nor in the world outside."""

        async def nothing_is_due() -> bool:
            if not (await self.call(self.sandbox.control, "settle", timeout_s=5))["idle"]:
                return False
            return not await unfinished(self.db) and not await undispatched(self.db)

        await until(nothing_is_due, what="everything due to be done", timeout_s=timeout_s)

    async def advance(self, by: timedelta) -> None:
        """Move time on, outside and at the platform, and wait for what that makes due."""
        seconds = int(by.total_seconds())
        await self.call(self.sandbox.control, "clock", advance_s=seconds)
        await self.call(self.shop.test_clock.advance, seconds)
        await asyncio.sleep(0.3)  # every process looks at the clock four times a second
        await self.idle()

    async def advance_to(self, moment: datetime) -> None:
        """Move time on to a moment; one that is past changes nothing."""
        left = moment - self.db.clock.now()
        if left > timedelta(seconds=1):
            await self.advance(left)

    def today_at(self, hour: int, minute: int = 0, *, days: int = 0) -> datetime:
        """Return a moment of the trading day, or of a day after it, in Shanghai."""
        day = datetime.strptime(self.day, "%Y%m%d").replace(tzinfo=BUSINESS_ZONE)
        return day + timedelta(days=days, hours=hour, minutes=minute)

    def summary(self) -> Table:
        """Return the table that ends the demo."""
        table = Table(title="The day, as expected and as it happened")
        for heading in ("", "what", "expected", "happened"):
            table.add_column(heading)
        for mark in self.marks:
            sign = "[green]✓[/]" if mark.is_right else "[red]✗[/]"
            table.add_row(sign, mark.what, mark.expected, mark.happened)
        return table


async def in_parallel(work: list[Callable[[], Awaitable[None]]], tell: Callable[[], None]) -> None:
    """Do the work, a few at a time, telling after each."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(job: Callable[[], Awaitable[None]]) -> None:
        async with gate:
            await job()
        tell()

    async with asyncio.TaskGroup() as group:
        for job in work:
            group.create_task(one(job))
