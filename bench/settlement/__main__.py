"""How long everybody's day takes to be settled, side by side in one run, durability on.

    python -m bench.settlement                              100,000 merchants, some minutes
    python -m bench.settlement --merchants 5000 --payments 10

``plain`` is the usual way on tables of its own: for each merchant a transaction that sums what is
not settled, marks it, takes it off the balance, and writes settlement, payout and event, over
several connections at once. ``ours`` is the platform's batch: drawn with every line, then released
through the ledger. Both have the same payments; afterwards both are checked to the fen.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
from pathlib import Path
from time import process_time

import asyncpg
import uvloop

from bench.settlement import ours, plain
from tongbao.infra import embedded
from tongbao.kernel.clock import monotonic


def main() -> None:
    """Parse the options and run."""
    asked = _options()
    with tempfile.TemporaryDirectory(prefix="tongbao-bench-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        running = embedded.start(folder / "server")
        try:
            uvloop.run(_compare(running, folder, asked))
        finally:
            running.stop()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.settlement")
    parser.add_argument("--merchants", type=int, default=100_000)
    parser.add_argument("--payments", type=int, default=5, help="of each merchant")
    parser.add_argument("--callers", type=int, default=8, help="connections of the plain way")
    parser.add_argument("--arms", nargs="+", choices=["plain", "ours"], default=["plain", "ours"])
    return parser.parse_args()


async def _compare(
    server: embedded.EmbeddedServer, folder: Path, asked: argparse.Namespace
) -> None:
    cores = len(os.sched_getaffinity(0))
    lines = 2 * asked.merchants * asked.payments
    print(f"{asked.merchants:,} merchants, {lines:,} lines, {cores} processors, durability on\n")
    print(
        "| way | drawn s | released s | whole s | merchants/s | ratio | our CPU s | server's CPU s"
        " | our memory MiB |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    base: float | None = None
    for arm in asked.arms:
        own = await _fresh(server.dsn, arm)
        if arm == "plain":
            async with plain.opened(own, asked.merchants, asked.payments, asked.callers) as shop:
                begun, spent = monotonic(), _spent(server)
                await plain.settle(shop)
                steps = [0.0, monotonic() - begun]
                costs = _since(spent, _spent(server))
                await plain.check(shop)
        else:
            async with ours.opened(own, folder, asked.merchants, asked.payments) as house:
                begun, spent = monotonic(), _spent(server)
                await ours.draw(house)
                middle = monotonic()
                await ours.release(house)
                steps = [middle - begun, monotonic() - middle]
                costs = _since(spent, _spent(server))
                await ours.check(house)
        whole = sum(steps)
        base = base or whole
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(
            f"| {arm} | {steps[0]:.1f} | {steps[1]:.1f} | {whole:.1f} |"
            f" {asked.merchants / whole:,.0f} | {base / whole:.1f} × | {costs[0]:.1f} |"
            f" {costs[1]:.1f} | {memory} |",
            flush=True,
        )


def _spent(server: embedded.EmbeddedServer) -> tuple[float, dict[int, float]]:
    """Return the processor seconds of this process, and of each of the server's."""
    ticks = os.sysconf("SC_CLK_TCK")
    theirs: dict[int, float] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        if int(fields[1]) == server.pid:
            theirs[int(stat.parent.name)] = (int(fields[11]) + int(fields[12])) / ticks
    return process_time(), theirs


def _since(
    before: tuple[float, dict[int, float]], after: tuple[float, dict[int, float]]
) -> tuple[float, float]:
    """Return what was spent; of a process of the server that ended meanwhile it is not known."""
    theirs = sum(spent - before[1].get(pid, 0.0) for pid, spent in after[1].items())
    return after[0] - before[0], theirs


async def _fresh(dsn: str, arm: str) -> str:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(f"create database bench_{arm}")
    finally:
        await connection.close()
    head, _, query = dsn.partition("?")
    own = f"{head.rpartition('/')[0]}/bench_{arm}"
    return f"{own}?{query}" if query else own


if __name__ == "__main__":
    main()
