"""What a short run does not show: an hour of steady load, and the way back after kill -9."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Final

import uvloop

from bench.ledger import ours
from bench.ledger.figures import Figures
from bench.ledger.workloads import WORKLOADS
from tongbao.infra import embedded
from tongbao.infra.db import connect
from tongbao.kernel.clock import Clock, monotonic
from tongbao.kernel.licence import Licence
from tongbao.ledger.book import Ledger

STEP_S: Final = 60.0
_CHUNK: Final = 4000


async def soak(
    dsn: str, mode: str, *, seconds: float, offered: float, accounts: int
) -> list[Figures]:
    """Offer so many single transfers a second, and return the figures of every minute."""
    workload = WORKLOADS["uniform"]
    minutes: list[Figures] = []
    async with ours.opened(dsn, mode, accounts, workload) as bench:
        left = seconds
        while left > 0:
            step = min(STEP_S, left)
            minutes.append(
                await ours.run_callers(bench, workload, callers=256, seconds=step, offered=offered)
            )
            left -= step
            last = minutes[-1]
            print(
                f"  {len(minutes):3} min: {last.per_second:7,.0f}/s,"
                f" p50 {last.milliseconds(50):.1f} ms, p99 {last.milliseconds(99):.1f} ms",
                flush=True,
            )
    return minutes


async def _fill(dsn: str, mode: str, transfers: int, accounts: int) -> None:
    """Post until that many are stored, then go on until somebody kills us."""
    workload = WORKLOADS["uniform"]
    async with ours.opened(dsn, mode, accounts, workload) as bench:
        rng = ours.np.random.default_rng(1)
        posted = 0
        while True:
            made = ours.batch(workload.draw(rng, _CHUNK, accounts))
            await bench.ledger.submit_batch(ours.BOOK, made)
            posted += _CHUNK
            if posted == transfers - transfers % _CHUNK:
                Path(os.environ["BENCH_FILLED"]).touch()


async def recovery(folder: Path, mode: str, *, transfers: int, accounts: int) -> dict[str, float]:
    """Kill poster and PostgreSQL under load, and return the seconds until it answered again.

    ``server``: PostgreSQL replays its log; ``poster``: the first answer after that.
    """
    server = embedded.start(folder)
    filled = folder.parent / "filled"
    os.environ["BENCH_FILLED"] = str(filled)
    context = multiprocessing.get_context("spawn")
    child = context.Process(
        target=_child, args=(server.dsn, mode, transfers, accounts), daemon=True
    )
    child.start()
    while not filled.exists():
        if not child.is_alive():
            raise RuntimeError("the poster ended before its time")
        await asyncio.sleep(0.2)
    assert child.pid is not None
    assert server.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    shown = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
    for pid in [server.pid, *map(int, shown.split())]:
        os.kill(pid, signal.SIGKILL)
    child.join()

    begins = monotonic()
    server = embedded.start(folder)
    started = monotonic()
    db = await connect(server.dsn, Clock())
    ledger = Ledger(db, Licence.PAYMENT_INSTITUTION, balances=mode)
    try:
        rng = ours.np.random.default_rng(2)
        one = ours.batch(WORKLOADS["uniform"].draw(rng, 1, accounts))
        codes = await ledger.submit_batch(ours.BOOK, one)
        ready = monotonic()
        if codes.any():
            raise AssertionError(f"the first transfer was refused: {codes}")
        [row] = await db.fetch("select last_seq from ledger_book where book = $1", (ours.BOOK,))
    finally:
        await ledger.close()
        await db.close()
        server.stop()
    return {"stored": row["last_seq"], "server": started - begins, "poster": ready - started}


def _child(dsn: str, mode: str, transfers: int, accounts: int) -> None:
    uvloop.run(_fill(dsn, mode, transfers, accounts))
