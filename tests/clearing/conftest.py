"""A trading day of a shop at the sandbox's channels, and what happens after it is over.

One sandbox serves a module and each test trades on a day of its own, so that its bills hold its
own trades and nobody else's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.conftest import TEST_LICENCE, MakeDb
from tests.sandboxes import start_sandbox
from tests.stage import AT_SANDBOX, Stage, staged
from tongbao.clearing.context import Clearing
from tongbao.clearing.reconciliation import days, queries
from tongbao.clearing.reconciliation.model import BillFile, ReconBreak
from tongbao.clearing.reconciliation.queries import BreakFilter
from tongbao.infra.db import Db
from tongbao.kernel.clock import BUSINESS_ZONE, business_date, day_bounds
from tongbao.kernel.licence import Licence
from tongbao.ledger.model import AccountKey
from tongbao.ledger.queries import balance_of
from tongbao.ledger.verify import verify
from tongbao.parties.merchants.merchants import SANDBOX_BOOK
from tongbao.rails.channels.contract.bills import BillFile as Downloaded
from tongbao.rails.channels.contract.channel import Channel
from tongbao.rails.channels.contract.outcomes import Answer
from tongbao_sandbox.launch import RunningSandbox

CHANNELS = ("wechat_pay", "alipay")


class Rewritten:
    """A channel whose bills are rewritten on their way, as no scripted fault would."""

    def __init__(self, channel: Channel, rewrite: Callable[[bytes], bytes]) -> None:
        self._channel = channel
        self._rewrite = rewrite

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    async def download_bill(self, *where: Any) -> Answer[Any]:
        answer = await self._channel.download_bill(*where)
        if not isinstance(answer.outcome, Downloaded):
            return answer
        path = answer.outcome.path
        content = self._rewrite(path.read_bytes())
        path.write_bytes(content)
        digest = f"{hash(content) & (1 << 64) - 1:064x}"
        return Answer(Downloaded(path, digest, len(content)), answer.exchange)


class Day:
    """A day of trade, and the mornings after."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.db = stage.db
        self.sandbox = stage.sandbox
        self.clearing = stage.platform.clearing
        self.date = business_date(self.now)

    @property
    def now(self) -> datetime:
        return self.db.clock.now()

    def account(self, channel: str) -> Any:
        return self.stage.accounts[channel]

    # Time

    async def until(self, hour: int, minute: int = 0, *, days: int = 0) -> None:
        """Let time pass until a moment of the day, or of a day after it."""
        start, _ = day_bounds(self.date + timedelta(days=days))
        left = start + timedelta(hours=hour, minutes=minute) - self.now
        await self.stage.advance(seconds=max(0, int(left.total_seconds()) + 1))

    async def over(self, *, days: int = 1) -> None:
        """Let the day end and its bills be made."""
        await self.until(10, 30, days=days)

    # Trade

    async def paid(self, channel: str, *amounts: int, **more: Any) -> list[Any]:
        """Payments that customers made by QR."""
        made = [await self.stage.show_qr(channel, amount, **more) for amount in amounts]
        for payment in made:
            await self.stage.customer(payment)
        await self.stage.idle()
        return made

    async def number(self, payment: Any) -> str:
        return (await self.stage.attempt_of(payment)).number

    # Bills

    def bill_fault(self, channel: str, fault: str, number: str = "", times: int = 1) -> None:
        self.sandbox.fault(AT_SANDBOX[channel], "bill", fault, number=number, times=times)

    def rewriting(self, channel: str, rewrite: Callable[[bytes], bytes]) -> Clearing:
        """Clearing that gets this channel's bills rewritten."""
        flow = self.clearing.flow
        spoilt = {**flow.channels, channel: Rewritten(flow.channels[channel], rewrite)}
        return replace(self.clearing, flow=replace(flow, channels=spoilt))

    async def reconcile(
        self, channel: str, *, day: date | None = None, clearing: Clearing | None = None, **how: Any
    ) -> BillFile:
        where = clearing or self.clearing
        return await days.reconcile_day(where, self.account(channel), day or self.date, **how)

    async def breaks(self, channel: str, day: date | None = None) -> list[ReconBreak]:
        wanted = BreakFilter(account_id=self.account(channel), day=day or self.date)
        page = await queries.list_breaks(self.db, wanted, limit=100)
        return sorted(page.items, key=lambda each: (each.break_class, each.number))

    async def classes(self, channel: str, day: date | None = None) -> list[tuple[str, str, int]]:
        """What differs: class, number and the money in question."""
        return [
            (str(each.break_class), each.number, each.difference)
            for each in await self.breaks(channel, day)
            if each.state != "gone"
        ]

    # Books

    async def booked(self, kind: str, owner: Any = None) -> int:
        key = AccountKey(kind, "CNY", owner)
        return (await balance_of(self.db, SANDBOX_BOOK, key)).posted

    async def sound(self) -> None:
        report = await verify(self.db)
        assert report.is_sound, report.broken


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSandbox]:
    """One sandbox process per test module; who gets no answer does not wait long for it."""
    with start_sandbox(tmp_path_factory.mktemp("sandbox")) as running:
        running.post("settings", hold_s=0.05)
        yield running


@pytest.fixture
def licence() -> Licence:
    """The firm a test is about."""
    return TEST_LICENCE


@pytest.fixture
async def licensed_db(licence: Licence, make_db: MakeDb) -> Db:
    """A database of the firm's."""
    return await make_db(licence=licence)


@pytest.fixture
async def day(
    licensed_db: Db, tmp_path: Path, sandbox: RunningSandbox, licence: Licence
) -> AsyncIterator[Day]:
    """A new day at nine, with a shop that is open."""
    sandbox.delete("faults")
    there = datetime.fromisoformat((await asyncio.to_thread(sandbox.get, "clock"))["now"])
    morning = datetime.combine(business_date(there), datetime.min.time(), BUSINESS_ZONE)
    morning += timedelta(days=1, hours=9)
    await asyncio.to_thread(sandbox.advance, (morning - there).total_seconds())
    async with staged(licensed_db, tmp_path, sandbox, licence=licence) as stage:
        yield Day(stage)
