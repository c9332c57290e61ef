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
            uvloop.run(_compare(running.dsn, folder, asked))
        finally:
            running.stop()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.settlement")
    parser.add_argument("--merchants", type=int, default=100_000)
    parser.add_argument("--payments", type=int, default=5, help="of each merchant")
    parser.add_argument("--callers", type=int, default=8, help="connections of the plain way")
    parser.add_argument("--arms", nargs="+", choices=["plain", "ours"], default=["plain", "ours"])
    return parser.parse_args()


async def _compare(dsn: str, folder: Path, asked: argparse.Namespace) -> None:
    cores = len(os.sched_getaffinity(0))
    lines = 2 * asked.merchants * asked.payments
    print(f"{asked.merchants:,} merchants, {lines:,} lines, {cores} processors, durability on\n")
    print("| way | drawn s | released s | whole s | merchants/s | ratio | our memory MiB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    base: float | None = None
    for arm in asked.arms:
        own = await _fresh(dsn, arm)
        if arm == "plain":
            async with plain.opened(own, asked.merchants, asked.payments, asked.callers) as shop:
                begun = monotonic()
                await plain.settle(shop)
                steps = [0.0, monotonic() - begun]
                await plain.check(shop)
        else:
            async with ours.opened(own, folder, asked.merchants, asked.payments) as house:
                begun = monotonic()
                await ours.draw(house)
                middle = monotonic()
                await ours.release(house)
                steps = [middle - begun, monotonic() - middle]
                await ours.check(house)
        whole = sum(steps)
        base = base or whole
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(
            f"| {arm} | {steps[0]:.1f} | {steps[1]:.1f} | {whole:.1f} |"
            f" {asked.merchants / whole:,.0f} | {base / whole:.1f} × | {memory} |",
            flush=True,
        )


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
