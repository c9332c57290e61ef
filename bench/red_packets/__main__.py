"""The command: start a PostgreSQL with durability on, run the arms one after the other, print."""

from __future__ import annotations

import argparse
import gc

import uvloop

from bench.ledger.__main__ import fresh, server
from bench.ledger.figures import machine
from bench.red_packets import ours, row_locks
from bench.red_packets.figures import HEADING, Burst, row
from tongbao.infra.embedded import EmbeddedServer
from tongbao.products.red_packets.model import split_by_luck

CONNECTIONS = (8, 16, 32)


async def compare(running: EmbeddedServer, asked: argparse.Namespace) -> None:
    """Print every arm under the same burst: the usual ways at their best, ours as it is."""
    amounts = split_by_luck(asked.parts * 100, asked.parts, 20_000, b"bench")
    dsn = await fresh(running)
    async with ours.opened(dsn, asked.people, asked.parts * 100) as bench:
        wallets = [wallet.id for wallet in bench.wallets]
        print(HEADING)
        base: Burst | None = None
        for arm in row_locks.ARMS:
            plain = await fresh(running)
            found = [
                await row_locks.run(plain, arm, wallets, amounts, connections=each)
                for each in CONNECTIONS
            ]
            best = max(found, key=lambda burst: burst.per_second)
            base = base or best
            print(row(arm, best, base), flush=True)
        gc.collect()
        gc.freeze()
        burst = await ours.run(bench, amount=asked.parts * 100, parts=asked.parts)
        print(row("(c) ours", burst, base or burst), flush=True)


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(prog="python -m bench.red_packets", description=__doc__)
    parser.add_argument("--people", type=int, default=60_000, help="who grab at once")
    parser.add_argument("--parts", type=int, default=50_000, help="what there is to grab")
    parser.add_argument("--rounds", type=int, default=1)
    asked = parser.parse_args()
    print(f"{machine()}\n{asked.people:,} people, {asked.parts:,} parts of one lucky red packet.\n")
    with server() as running:
        for _ in range(asked.rounds):
            uvloop.run(compare(running, asked))


if __name__ == "__main__":
    main()
