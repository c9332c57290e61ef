"""The command: start a PostgreSQL with durability on, run the arms one after the other, print."""

from __future__ import annotations

import argparse
import gc
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import uvloop

from bench.ledger import lasting, ours, tigerbeetle, usual
from bench.ledger.figures import HEADING, Figures, machine, row
from bench.ledger.workloads import WORKLOADS, Workload
from tongbao.infra import embedded
from tongbao.infra.embedded import EmbeddedServer

BATCHES: Final = (1, 10, 100, 1000, 4000, 8000)
CALLERS: Final = (1, 16, 64, 256, 1024, 2048)
USUAL_CALLERS: Final = (8, 16, 32)
A: Final = "(a) row locks"
D: Final = "(d) ours, balances behind"


@contextmanager
def server() -> Iterator[EmbeddedServer]:
    """A PostgreSQL of the run's own, as the platform starts it: fsync and synchronous_commit on."""
    with tempfile.TemporaryDirectory(prefix="tongbao-bench-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        running = embedded.start(Path(folder) / "server")
        try:
            yield running
        finally:
            running.stop()


async def fresh(running: EmbeddedServer) -> str:
    """Return the DSN of a new empty database of the server."""
    name = f"bench_{uuid4().hex}"
    connection = await asyncpg.connect(running.dsn)
    try:
        await connection.execute(f"create database {name}")
    finally:
        await connection.close()
    return urlunsplit(urlsplit(running.dsn)._replace(path=f"/{name}"))


async def best_usual(dsn: str, arm: str, workload: Workload, asked: argparse.Namespace) -> Figures:
    """Return the best of several numbers of callers: what the usual way can do at most."""
    found = [
        await usual.run(
            dsn, arm, workload, accounts=asked.accounts, callers=callers, seconds=asked.seconds
        )
        for callers in USUAL_CALLERS
    ]
    return max(found, key=lambda figures: figures.per_second)


async def compare(running: EmbeddedServer, workload: Workload, asked: argparse.Namespace) -> None:
    """Print all arms under one workload: the usual ones at their best, ours at batch 1000."""
    print(f"\n### {workload.name}\n\n{HEADING}")
    base: Figures | None = None
    for arm in usual.POSTING:
        figures = await best_usual(running.dsn, arm, workload, asked)
        base = base or figures
        print(row(arm, "best of 8, 16, 32 callers", figures, base), flush=True)
    for arm, mode in ours.MODES.items():
        dsn = await fresh(running)
        async with ours.opened(dsn, mode, asked.accounts, workload) as bench:
            gc.collect()
            gc.freeze()
            for callers in (16, 256):
                figures = await ours.run_callers(
                    bench, workload, callers=callers, seconds=asked.seconds
                )
                print(row(arm, f"{callers} callers", figures, base), flush=True)
            figures = await ours.run_batches(bench, workload, size=1000, seconds=asked.seconds)
            print(row(arm, "batches of 1000", figures, base), flush=True)
    if asked.tigerbeetle:
        figures = await tigerbeetle.run(
            asked.tigerbeetle, workload, accounts=asked.accounts, size=1000, seconds=asked.seconds
        )
        print(row("TigerBeetle", "batches of 1000", figures, base), flush=True)


async def sweep(running: EmbeddedServer, asked: argparse.Namespace) -> None:
    """Print how ours behaves from one caller to many and from small batches to large."""
    workload = WORKLOADS["uniform"]
    for arm, mode in ours.MODES.items():
        print(f"\n### uniform, {arm}\n\n{HEADING}")
        dsn = await fresh(running)
        async with ours.opened(dsn, mode, asked.accounts, workload) as bench:
            gc.collect()
            gc.freeze()
            for callers in CALLERS[:: 2 if asked.quick else 1]:
                figures = await ours.run_callers(
                    bench, workload, callers=callers, seconds=asked.seconds
                )
                print(row(arm, f"{callers} callers", figures, None), flush=True)
            for size in BATCHES[:: 2 if asked.quick else 1]:
                figures = await ours.run_batches(bench, workload, size=size, seconds=asked.seconds)
                print(row(arm, f"batches of {size}", figures, None), flush=True)


async def half_load(running: EmbeddedServer, asked: argparse.Namespace) -> None:
    """Print the latency of single-transfer callers at half of what they can reach."""
    workload = WORKLOADS["uniform"]
    dsn = await fresh(running)
    async with ours.opened(dsn, ours.MODES[D], asked.accounts, workload) as bench:
        gc.collect()
        gc.freeze()
        most = await ours.run_callers(bench, workload, callers=1024, seconds=asked.seconds)
        half = await ours.run_callers(
            bench, workload, callers=256, seconds=asked.seconds, offered=most.per_second / 2
        )
    print(f"\n### single-transfer callers, uniform\n\n{HEADING}")
    print(row(D, "1024 callers, no pause", most, None))
    print(row(D, f"{most.per_second / 2:,.0f}/s offered (half)", half, None), flush=True)


async def main(asked: argparse.Namespace) -> None:
    """Run what was asked for."""
    print(f"{machine()}\n{asked.accounts:,} accounts, {asked.seconds:.0f} s a run, durability on")
    with server() as running:
        if asked.soak:
            dsn = await fresh(running)
            minutes = await lasting.soak(
                dsn, "behind", seconds=asked.soak, offered=asked.offered, accounts=asked.accounts
            )
            first, last = minutes[0], minutes[-1]
            print(
                f"first minute p99 {first.milliseconds(99):.1f} ms,"
                f" last {last.milliseconds(99):.1f} ms;"
                f" {first.per_second:,.0f}/s and {last.per_second:,.0f}/s"
            )
            return
        if not asked.recovery:
            for name in asked.workloads:
                await compare(running, WORKLOADS[name], asked)
            if not asked.only:
                await sweep(running, asked)
                await half_load(running, asked)
            return
    with tempfile.TemporaryDirectory(prefix="tongbao-bench-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        figures = await lasting.recovery(
            Path(folder) / "server", "behind", transfers=asked.recovery, accounts=asked.accounts
        )
        print(
            f"{figures['stored']:,.0f} transfers stored; after kill -9 of poster and PostgreSQL:"
            f" server {figures['server']:.1f} s, first answer {figures['poster']:.2f} s after that"
        )


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.ledger", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each run lasts")
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--only", action="store_true", help="the comparison, without the sweeps")
    parser.add_argument("--quick", action="store_true", help="shorter runs, fewer of them")
    parser.add_argument("--soak", type=float, default=0.0, help="seconds of steady load")
    parser.add_argument(
        "--offered", type=float, default=5000.0, help="transfers a second of --soak"
    )
    parser.add_argument("--recovery", type=int, default=0, help="transfers stored before kill -9")
    parser.add_argument("--tigerbeetle", help="address of a TigerBeetle server to measure as well")
    asked = parser.parse_args(words)
    if asked.quick:
        asked.seconds, asked.accounts = min(asked.seconds, 2.0), min(asked.accounts, 20_000)
        asked.workloads = asked.workloads[:3]
    return asked


if __name__ == "__main__":
    uvloop.run(main(arguments()))
