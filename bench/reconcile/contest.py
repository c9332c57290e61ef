"""The ways that are compared, each in a process of its own so that its memory is its own.

python -m bench.reconcile.contest ours|dictionary|joins|slices FOLDER DSN
"""

from __future__ import annotations

import asyncio
import csv
import resource
import shutil
import sys
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import msgspec

from bench.reconcile.making import ACCOUNT, DAY, FEE_PPM, SUMMARY, clearing_on
from tongbao.clearing.reconciliation import queries
from tongbao.clearing.reconciliation.days import reconcile_day
from tongbao.clearing.sets import duck, lanes
from tongbao.clearing.sets.quick import QUICK_BILLS
from tongbao.clearing.slices.slices import close_by_slices, compare_slices, take_piece
from tongbao.infra.db import Db, connect
from tongbao.kernel.clock import BUSINESS_ZONE, Clock, day_bounds, monotonic, real_now
from tongbao.kernel.ids import base32
from tongbao.parties.merchants.merchants import SANDBOX_BOOK
from tongbao.payments.collecting import queries as payments

NEXT_DAY = datetime(2026, 11, 21, 11, tzinfo=BUSINESS_ZONE)


async def ours(db: Db, folder: Path) -> dict[str, object]:
    """The day as production does it: differences stand in the database afterwards."""
    clearing = clearing_on(db, folder, folder / "bill.csv")
    steps: dict[str, float] = {}
    begins = monotonic()

    def watch(step: str, _done: int) -> None:
        steps.setdefault(step, round(monotonic() - begins, 2))

    found = await reconcile_day(clearing, ACCOUNT, DAY, on_progress=watch)
    seconds = monotonic() - begins
    report = await queries.report(db, ACCOUNT, DAY)
    classes = {str(each.break_class): each.count for each in report.classes}
    return {
        "seconds": seconds, "found": classes, "matched": found.matched_count, "began_at": steps,
    }  # fmt: skip


async def joins(db: Db, folder: Path) -> dict[str, object]:
    """The set engine alone: the same rows exported by the same code, and nothing but the joins."""
    begins = monotonic()
    work = folder / "joins"
    work.mkdir()
    clearing = clearing_on(db, folder, folder / "bill.csv")
    account = await clearing.flow.account(ACCOUNT)
    asked = lanes.Question(
        account=account, day=DAY, currency="CNY", bill=folder / "bill.csv", folder=work,
        home_book=SANDBOX_BOOK, suspects=[],
    )  # fmt: skip
    paid = work / "paid.csv"
    await asyncio.gather(lanes._export_nets(clearing, asked), lanes._export(clearing, asked, paid))
    exported = monotonic() - begins
    engine = duck.connect(work, 4)
    engine.execute("set memory_limit = '1600MB'")
    quick = QUICK_BILLS["wechat_pay"]
    columns = ", ".join(f"'c{n}': 'VARCHAR'" for n in range(quick.column_count))
    engine.execute(
        f"""create view bill as
            select substr(c6, 2) as number, try_cast(substr(c24, 2) as decimal(18, 2)) as yuan
              from read_csv('{folder / "bill.csv"}', header = false, auto_detect = false,
                            delim = ',', quote = '', escape = '', strict_mode = false,
                            ignore_errors = true, columns = {{{columns}}})
             where c9 = '`SUCCESS'"""
    )
    engine.execute(
        f"""create view paid as
            select number, reference, (amount * 0.01::decimal(3, 2)) as yuan, amount
              from read_csv('{paid}', header = false, auto_detect = false, delim = ',',
                            columns = {{'number': 'VARCHAR', 'reference': 'VARCHAR',
                                        'book': 'BIGINT', 'amount': 'BIGINT',
                                        'plain': 'BIGINT', 'at': 'BIGINT'}})"""
    )
    engine.execute(
        f"""create view net as
            select * from read_csv('{work / "nets.csv"}', header = false, auto_detect = false,
                                   delim = ',', columns = {{'reference': 'VARCHAR',
                                                            'net': 'BIGINT'}})"""
    )
    found = engine.execute(
        """select count(*) filter (b.number is null), count(*) filter (p.number is null),
                  count(*) filter (b.yuan <> p.yuan)
             from bill b full join paid p on p.number = b.number"""
    ).fetchone()
    unbooked = engine.execute(
        """select count(*) from paid p left join net n on n.reference = p.reference
            where n.net is distinct from p.amount"""
    ).fetchone()
    twice = engine.execute(
        "select count(*) from (select number from bill group by number having count(*) > 1)"
    ).fetchone()
    seconds = monotonic() - begins
    shutil.rmtree(work)
    return {"seconds": seconds, "exported_s": exported, "found": [found, unbooked, twice]}


async def dictionary(db: Db, folder: Path) -> dict[str, object]:
    """What anybody would write first: rows into dictionaries, and a loop over the bill."""
    begins = monotonic()
    start, end = day_bounds(DAY)
    platform: dict[str, tuple[int, int, str]] = {}
    booked: dict[str, int] = {}
    async with db.begin("bench") as tx:
        await tx.execute("set local statement_timeout = 0", ())
        async for row in payments.paid_between(tx, ACCOUNT, start, end):
            fee = (row.amount * FEE_PPM + 500_000) // 1_000_000
            platform[base32(row.id)] = (row.amount, fee, row.payment_id.hex)
        async for record in tx.stream(
            "select reference, amount from ledger_transfer where book = $1 and kind in (1, 3)",
            (SANDBOX_BOOK,),
        ):
            key = record[0].hex
            booked[key] = booked.get(key, 0) + record[1]
    seen: set[str] = set()
    counts = dict.fromkeys(("long", "short", "amount", "fee", "ledger", "duplicate"), 0)
    with (folder / "bill.csv").open(encoding="utf-8-sig", newline="") as file:
        for cells in csv.reader(file, quoting=csv.QUOTE_NONE):
            if len(cells) != 27 or cells[9] != "`SUCCESS":
                continue
            number = cells[6][1:]
            ours = platform.get(number)
            if number in seen:
                counts["duplicate"] += 1
                continue
            seen.add(number)
            if ours is None:
                counts["long"] += 1
                continue
            counts["amount"] += int(cells[24][1:].replace(".", "")) != ours[0]
            counts["fee"] += int(cells[22][1:-3].replace(".", "")) != ours[1]
            counts["ledger"] += booked.get(ours[2]) != ours[0]
    counts["short"] = sum(number not in seen for number in platform)
    return {"seconds": monotonic() - begins, "found": counts}


async def slices(db: Db, folder: Path) -> dict[str, object]:
    """A day whose bill came in pieces and was compared as it went on: how long closing it takes."""
    clearing = clearing_on(db, folder, folder / "bill.csv")
    pieces = _pieces(folder / "bill.csv", folder / "pieces")
    begins = monotonic()
    for piece in pieces:
        await take_piece(clearing, ACCOUNT, DAY, piece)
    taken = monotonic()
    standing = await compare_slices(clearing, ACCOUNT, DAY)
    compared = monotonic()
    found = await close_by_slices(clearing, ACCOUNT, DAY)
    seconds = monotonic() - compared
    report = await queries.report(db, ACCOUNT, DAY)
    classes = {str(each.break_class): each.count for each in report.classes}
    return {
        "seconds": seconds, "found": classes, "matched": found.matched_count,
        "pieces": len(pieces), "taking_s": taken - begins, "comparing_s": compared - taken,
        "slices": standing.counted, "differing": len(standing.differing),
    }  # fmt: skip


def _pieces(bill: Path, folder: Path) -> list[Path]:
    """Spread the bill over a file for each half an hour, in their order; the last has the total.

    It is not kept in memory meanwhile: what the process takes at most is what ours takes.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    files: dict[str, BinaryIO] = {}
    with bill.open("rb") as lines, ExitStack() as stack:
        header = lines.readline()
        for line in lines:
            if line.startswith(SUMMARY.encode()):
                files[max(files)].write(line + lines.readline())
                break
            key = f"{line[12:14].decode()}-{line[15] // 3}"
            if key not in files:
                files[key] = stack.enter_context((folder / f"{key}.csv").open("wb"))
                files[key].write(header)
            files[key].write(line)
    return sorted(folder.iterdir())


async def take_part(name: str, folder: Path, dsn: str) -> None:
    ways = {"ours": ours, "joins": joins, "dictionary": dictionary, "slices": slices}
    db = await connect(dsn, Clock(NEXT_DAY - real_now()))
    try:
        result = await ways[name](db, folder)
    finally:
        await db.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    sys.stdout.write(msgspec.json.encode({**result, "peak_mb": peak}).decode())


if __name__ == "__main__":
    asyncio.run(take_part(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
