"""Five million payments against a bill of five million lines: ours, the joins alone, a dictionary.

    python -m bench.reconcile 5000000 [--keep FOLDER] [--planted 10 --only slices]

All sides are made first, which is not measured: N payments with their attempts and postings, and a
WeChat Pay trade bill of the same day with thirty differences planted in it, or as many as said.
Then each way has the same rows, one after the other, on a PostgreSQL of its own with durability on,
in a process of its own. With ``--keep`` what was made stays in the folder for the next time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from bench.reconcile.contest import NEXT_DAY
from bench.reconcile.making import KINDS, PLANTED, Made, fill, planted, write_bill
from tongbao.infra import embedded
from tongbao.infra.db import connect
from tongbao.infra.migrate import migrate
from tongbao.kernel.clock import Clock, monotonic, real_now
from tongbao.kernel.licence import Licence

ROUNDS = 3
CLEARED = (
    "bill_row", "bill_fault", "recon_item", "recon_break", "recon_waiting", "bill_cost",
    "bill_file", "slice_piece",
    "recon_slice",
)  # fmt: skip


async def make(folder: Path, dsn: str, made: Made) -> None:
    """Make all sides, unless they are there."""
    done = folder / f"made-{made.count}"
    bill = folder / f"bill-{made.count}-{made.planted}.csv"
    if not bill.exists():
        write_bill(bill.with_suffix(".part"), made)
        bill.with_suffix(".part").replace(bill)
    (folder / "bill.csv").unlink(missing_ok=True)
    (folder / "bill.csv").hardlink_to(bill)
    if done.exists():
        return
    db = await connect(dsn, Clock(NEXT_DAY - real_now()))
    try:
        begins = monotonic()
        await migrate(db, Licence.PAYMENT_INSTITUTION, "bench")
        await fill(db, made)
        done.touch()
        print(f"made all sides in {monotonic() - begins:.0f} s")
    finally:
        await db.close()


async def forget(dsn: str) -> None:
    """Take away what the last round found, so that each begins with nothing."""
    db = await connect(dsn, Clock(NEXT_DAY - real_now()))
    try:
        for table in CLEARED:
            await db.execute(f"delete from {table}", ())
    finally:
        await db.close()


def one(name: str, folder: Path, dsn: str) -> dict[str, Any]:
    """Run one way in a process of its own and return what it says."""
    ran = subprocess.run(
        [sys.executable, "-m", "bench.reconcile.contest", name, str(folder), dsn],
        check=True,
        stdout=subprocess.PIPE,
    )
    # The program's own log lines come first.
    result: dict[str, Any] = msgspec.json.decode(ran.stdout.splitlines()[-1])
    return result


def contest(folder: Path, dsn: str, made: Made, rounds: int) -> None:
    ways = ("ours", "joins", "dictionary")
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in ways[: 2 if number else 3]:  # the slow one once
            asyncio.run(forget(dsn))
            subprocess.run(["rm", "-rf", str(folder / "bills"), str(folder / "joins")], check=True)
            result = one(name, folder, dsn)
            seconds[name].append(result["seconds"])
            print(f"{name:<12}{result.pop('seconds'):>8.2f} s{result.pop('peak_mb'):>8} MB", result)
            if name == "ours":
                check(result, made)
    close_in_slices(folder, dsn, made)
    best = {name: min(every) for name, every in seconds.items()}
    print(f"ours / joins       {best['ours'] / best['joins']:.2f}")
    print(f"dictionary / ours  {best['dictionary'] / best['ours']:.2f}")
    print(f"rows a second      {made.count / best['ours']:,.0f}")


def close_in_slices(folder: Path, dsn: str, made: Made) -> None:
    asyncio.run(forget(dsn))
    subprocess.run(["rm", "-rf", str(folder / "bills")], check=True)
    result = one("slices", folder, dsn)
    print(f"closing in slices {result.pop('seconds'):.2f} s", result)
    check(result, made)


def check(result: dict[str, Any], made: Made) -> None:
    names = dict(zip(KINDS, ("missing_at_channel", "amount_differs", "fee_differs"), strict=True))
    expected = dict(Counter(names[kind] for kind in planted(made).values()))
    if result["found"] != expected or result["matched"] != made.count - made.planted:
        raise SystemExit("the planted differences were not what was found")


def main() -> None:
    wanted = argparse.ArgumentParser()
    wanted.add_argument("count", type=int, nargs="?", default=100_000)
    wanted.add_argument("--keep", type=Path)
    wanted.add_argument("--rounds", type=int, default=ROUNDS)
    wanted.add_argument("--planted", type=int, default=PLANTED, help="rows that differ")
    wanted.add_argument("--only", choices=["slices"], help="measure closing a day in slices alone")
    asked = wanted.parse_args()
    print(f"{asked.count:,} rows, {os.cpu_count()} cores ({platform.machine()}), load", end=" ")
    print(*(f"{value:.1f}" for value in os.getloadavg()))
    if asked.keep:
        asked.keep.mkdir(exist_ok=True, parents=True)
        measure(asked.keep, Made(asked.count, asked.planted), asked.rounds, asked.only)
        return
    with tempfile.TemporaryDirectory(prefix="tongbao-bench-", dir="/tmp") as name:
        measure(Path(name), Made(asked.count, asked.planted), asked.rounds, asked.only)


def measure(folder: Path, made: Made, rounds: int, only: str | None) -> None:
    folder.chmod(0o755)
    server = embedded.start(folder / "pg")
    try:
        asyncio.run(make(folder, server.dsn, made))
        if only is None:
            contest(folder, server.dsn, made, rounds)
        else:
            close_in_slices(folder, server.dsn, made)
    finally:
        server.stop()


if __name__ == "__main__":
    main()
