"""How many payments a second over HTTP, side by side in one run, durability on.

    python -m bench.payments                 everything, some minutes
    python -m bench.payments --seconds 20 --arms ours --workloads hot

Three services do the same: check a request's HMAC and nonce, its Idempotency-Key, the customer's
one-time code and the day's limit, move the money, and keep payment, attempt, transfers and event,
in one durable commit. ``typical`` is FastAPI and SQLAlchemy's ORM, ``careful`` FastAPI and prepared
statements, ``ours`` the platform's own route. The load generator is wrk; its requests are made and
signed beforehand. After each run the books are proved, and payments counted against answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from msgspec import Struct

from bench.payments import compared, ours, processors, yardstick
from bench.payments.requests_file import Signer, write_requests
from tongbao.infra import embedded
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, connect
from tongbao.infra.migrate import migrate
from tongbao.kernel.clock import Clock, real_now
from tongbao.kernel.licence import Licence
from tongbao.ledger.verify import verify

THREADS = 2
MODULES = {"typical": "typical_service", "careful": "careful_service"}


class Figures(Struct, frozen=True):
    """What one run came to."""

    arm: str
    workload: str
    connections: int
    per_second: float
    p50_ms: float
    p99_ms: float
    answers: int
    refused: int
    payments: int
    load: float
    used_us: dict[str, int]  # processor time per payment
    problems: list[str]


def main() -> None:
    options = _options()
    wrk = shutil.which("wrk")
    if wrk is None:
        print("skipped: wrk is not installed (Debian: apt-get install wrk)")
        return
    folder = Path(tempfile.mkdtemp(prefix="tongbao-bench-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        pace = yardstick.measure(wrk, folder, _free_port(), seconds=3)
        print(
            f"this machine: the plainest signed route takes {pace.us:.0f} µs of a processor,"
            f" and one process answers {pace.per_second:,.0f} a second",
            flush=True,
        )
        asyncio.run(_bench(options, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=int, default=10, help="length of each run")
    parser.add_argument(
        "--warm-up", type=int, default=4, help="seconds before each that do not count"
    )
    parser.add_argument("--arms", default="typical,careful,ours")
    parser.add_argument("--workloads", default="uniform,hot")
    parser.add_argument("--merchants", type=int, default=1000)
    parser.add_argument("--wallets", type=int, default=20_000)
    parser.add_argument(
        "--books", type=int, default=1, help="of ours: payer and merchant are always in one"
    )
    parser.add_argument("--processes", type=int, default=2, help="HTTP processes of each service")
    parser.add_argument("--connections", default="256", help="of ours; several: 64,256")
    parser.add_argument("--compared-connections", default="16,64", help="the better one counts")
    parser.add_argument("--most", type=int, default=20_000, help="requests a second made ready")
    options = parser.parse_args()
    if options.merchants % options.books or options.wallets % options.books:
        parser.error("merchants and wallets are shared out evenly over the books")
    return options


async def _bench(options: argparse.Namespace, folder: Path) -> None:
    server = await asyncio.to_thread(embedded.start, folder / "data")
    found: list[Figures] = []
    try:
        for arm in options.arms.split(","):
            run = _run_ours if arm == "ours" else _run_compared
            found += await run(arm, options, folder, server.dsn)
    finally:
        server.stop()
    _tell(options, found)
    if any(each.problems for each in found):
        sys.exit(1)


class Arm(Struct, frozen=True):
    """One of the compared services, furnished and ready to be served."""

    name: str
    signers: list[Signer]
    most: int  # requests a second made ready
    show_codes: Callable[[list[str], str], Awaitable[None]]
    books: int
    serve: Callable[[int], AbstractContextManager[None]]
    count: Callable[[], Awaitable[int]]
    problems: Callable[[], Awaitable[list[str]]]


async def _run_compared(
    name: str, options: argparse.Namespace, folder: Path, dsn: str
) -> list[Figures]:
    admin = await asyncpg.connect(dsn)
    await admin.execute(f"create database {name}")
    await admin.close()
    there = urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))
    on = await asyncpg.connect(there)
    signers, people = await compared.stock(on, merchants=options.merchants, wallets=options.wallets)
    log = folder / f"{name}.log"
    arm = Arm(
        name,
        signers,
        most=4000,
        show_codes=partial(compared.show_codes, on, people),
        books=1,
        serve=lambda port: compared.serving(
            MODULES[name], there, port, processes=options.processes, log=log
        ),
        count=partial(on.fetchval, "select count(*) from payment"),
        problems=partial(compared.problems, on),
    )
    found = []
    for workload in options.workloads.split(","):
        tries = [
            await _measure(arm, options, folder, (workload, int(connections)))
            for connections in options.compared_connections.split(",")
        ]
        found.append(max(tries, key=lambda each: each.per_second))
        print(_line(found[-1]), flush=True)
    await on.close()
    return found


async def _run_ours(
    name: str, options: argparse.Namespace, folder: Path, dsn: str
) -> list[Figures]:
    data = folder / "data"
    db = await connect(dsn, Clock())
    await migrate(db, Licence.PAYMENT_INSTITUTION, "bench")
    keyring = Keyring.from_file(data / "kek")
    shops = await ours.stock(
        db,
        keyring,
        merchants=options.merchants,
        wallets=options.wallets,
        books=options.books,
    )
    await db.execute("analyze", ())
    arm = Arm(
        name,
        shops.signers,
        most=options.most,
        show_codes=partial(ours.show_codes, db, keyring, shops),
        books=options.books,
        serve=lambda port: ours.serving(data, port, _commands(options)),
        count=partial(_count, db),
        problems=partial(_problems, db),
    )
    found = []
    for workload in options.workloads.split(","):
        for connections in options.connections.split(","):
            found.append(await _measure(arm, options, folder, (workload, int(connections))))
            print(_line(found[-1]), flush=True)
    await db.close()
    return found


async def _measure(
    arm: Arm, options: argparse.Namespace, folder: Path, which: tuple[str, int]
) -> Figures:
    """Serve the arm, warm it up, drive it, and prove its books."""
    workload, connections = which
    run = f"{arm.name[0]}{workload[0]}{connections}"
    first = arm.most * options.warm_up
    codes = _codes(run, first + arm.most * options.seconds)
    await arm.show_codes(codes[:first], workload)
    await arm.show_codes(codes[first:], workload)
    port = _free_port()
    with arm.serve(port):
        if options.warm_up:
            _make(folder / run, port, arm, codes[:first], (workload, f"w{run}"))
            await _drive(folder / run, port, connections, options.warm_up)
            await asyncio.sleep(2)
        before = await arm.count()
        _make(folder / run, port, arm, codes[first:], (workload, run))
        told, load = await _drive(folder / run, port, connections, options.seconds)
        await asyncio.sleep(2)
    payments = await arm.count() - before
    which_run = (arm.name, workload, connections)
    return _figures(which_run, told, load, payments, await arm.problems())


def _commands(options: argparse.Namespace) -> list[list[str]]:
    """Return the command lines of the platform's processes."""
    api = ["serve", "--role", "api", "--shared-port"]
    return [["serve", "--role", "poster"], *[api] * options.processes]


async def _count(db: Db) -> int:
    [row] = await db.fetch("select count(*) as payments from payment", ())
    return int(row["payments"])


async def _problems(db: Db) -> list[str]:
    """Return what is wrong with the payments or the books."""
    problems, payments = [], await _count(db)
    counts = {
        "attempt": "select count(*) from attempt",
        "payment_state_change": "select count(*) from payment_state_change",
        "event": "select count(*) from event where type = 'payment.succeeded'",
        "idempotency_key": "select count(*) from idempotency_key where status = 201",
        "api_nonce": "select count(*) from api_nonce",
        "payment_code": "select count(*) from payment_code where used_by is not null",
        "ledger_transfer": """
            select count(distinct reference) from ledger_transfer t
              join payment p on p.book = t.book and p.id = t.reference""",
    }
    for name, query in counts.items():
        [row] = await db.fetch(query, ())
        if row[0] != payments:
            problems.append(f"{row[0]} in {name}, {payments} payments")
    [row] = await db.fetch(
        """select coalesce(sum(p.amount), 0) = coalesce((
                      select sum(spent) from wallet), 0) as agree from payment p""",
        (),
    )
    if not row["agree"]:
        problems.append("the day's spending is not what was paid")
    report = await verify(db)
    problems += [f"ledger: {check.name} {check.breaches}" for check in report.broken]
    return problems


def _codes(run: str, count: int) -> list[str]:
    """Return codes of our form that no other run has."""
    start = int.from_bytes(run.encode(), "big") % 10**6
    return [f"88{start:06d}{number:010d}" for number in range(count)]


def _make(folder: Path, port: int, arm: Arm, codes: list[str], what: tuple[str, str]) -> None:
    workload, run = what
    payers = [
        (arm.signers[0 if workload == "hot" else _shop(number, arm)], code)
        for number, code in enumerate(codes)
    ]
    write_requests(folder, port, payers, threads=THREADS, run=f"{run}{int(real_now().timestamp())}")


def _shop(number: int, arm: Arm) -> int:
    """Return where somebody goes to pay: any merchant of the payer's book."""
    shop = number * 7919 % len(arm.signers)
    return shop - shop % arm.books + number % arm.books


async def _drive(
    folder: Path, port: int, connections: int, seconds: int
) -> tuple[dict[str, Any], float]:
    """Send the requests of the folder and return what wrk says and the machine's load."""
    command = [
        "wrk", f"-t{THREADS}", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s",
        "-s", str(Path(__file__).parent / "load.lua"), f"http://127.0.0.1:{port}",
    ]  # fmt: skip
    environ = {**os.environ, "BENCH_REQUESTS": str(folder)}
    before = processors.spent(os.getpid())
    done = await asyncio.create_subprocess_exec(
        *command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    used: Counter[str] = Counter()
    while done.returncode is None:
        used = processors.spent(os.getpid()) - before
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(done.wait()), 0.25)
    out = await done.stdout.read()
    shutil.rmtree(folder)
    try:
        told = json.loads(out.splitlines()[-1])
        return {**told, "used": used}, os.getloadavg()[0]
    except (IndexError, ValueError):
        raise RuntimeError(out.decode(errors="replace")) from None


def _figures(
    which: tuple[str, str, int],
    told: dict[str, Any],
    load: float,
    payments: int,
    problems: list[str],
) -> Figures:
    arm, workload, connections = which
    answers = told["requests"] - told["not_2xx"]
    # Requests under way when the time was over may have been done and not been heard of.
    if not answers <= payments <= answers + connections:
        problems = [*problems, f"{answers} answers and {payments} payments"]
    return Figures(
        arm=arm,
        workload=workload,
        connections=connections,
        per_second=answers / told["seconds"],
        p50_ms=told["p50_ms"],
        p99_ms=told["p99_ms"],
        answers=answers,
        refused=told["not_2xx"],
        payments=payments,
        load=load,
        used_us={kind: int(s / answers * 1e6) for kind, s in told["used"].most_common()},
        problems=problems,
    )


def _line(each: Figures) -> str:
    used = ", ".join(f"{kind} {value}" for kind, value in each.used_us.items() if value)
    said = "; ".join(each.problems) or "books proved"
    return (
        f"{each.workload:8} {each.arm:8} {each.connections:5} connections {each.per_second:9.0f}/s"
        f"  p50 {each.p50_ms:7.1f} ms  p99 {each.p99_ms:7.1f} ms  not 2xx {each.refused:5}"
        f"  load {each.load:4.1f}  {said}\n         µs of a processor per payment: {used}"
    )


def _tell(options: argparse.Namespace, found: list[Figures]) -> None:
    print(
        f"\n{os.cpu_count()} processors ({platform.machine()}), Python {platform.python_version()},"
    )
    print(f"{options.processes} HTTP processes each, {options.merchants} merchants,")
    print(f"{options.wallets} wallets; ours in {options.books} book(s), and 0 % of the payments")
    print("between two of them.\n")
    print("| workload | service | connections | payments/s | p50 ms | p99 ms | ours is |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    best: dict[str, float] = {}
    for each in found:
        if each.arm == "ours":
            best[each.workload] = max(best.get(each.workload, 0), each.per_second)
    for each in found:
        ratio = best.get(each.workload, 0) / each.per_second if each.per_second else 0
        shown = "" if each.arm == "ours" or not ratio else f"{ratio:.1f} ×"
        print(
            f"| {each.workload} | {each.arm} | {each.connections} | {each.per_second:,.0f} |"
            f" {each.p50_ms:.1f} | {each.p99_ms:.1f} | {shown} |"
        )


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


if __name__ == "__main__":
    main()
