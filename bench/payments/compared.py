"""The two services that ours is compared to: their environment, their tables, their processes."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from bench.payments.requests_file import Signer
from tongbao.kernel.clock import real_now

HERE = Path(__file__).parent
BALANCE = 1_000_000_000


def environment() -> Path:
    """Return the Python of an environment with the services' packages, made on first use."""
    wanted = (HERE / "requirements.txt").read_bytes()
    name = f"tongbao-bench-{sys.version_info.minor}-{hashlib.sha256(wanted).hexdigest()[:12]}"
    folder = Path(tempfile.gettempdir()) / name
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [python, "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"]
        subprocess.run(pip, check=True)
        (folder / "complete").touch()
    return python


async def stock(on: Any, *, merchants: int, wallets: int) -> tuple[list[Signer], list[UUID]]:
    """Make the tables, merchants with keys, and wallets with money, on a plain connection."""
    await on.execute((HERE / "usual.sql").read_text())
    shops = [uuid4() for _ in range(merchants)]
    people = [uuid4() for _ in range(wallets)]
    keys = [(f"key_{shop.hex}", shop, f"sk_{shop.hex}") for shop in shops]
    await on.copy_records_to_table(
        "merchant", columns=["id", "state", "fee_ppm"], records=[(s, "active", 6000) for s in shops]
    )
    await on.copy_records_to_table("api_key", columns=["id", "merchant_id", "secret"], records=keys)
    accounts = [(UUID(int=1), "fee", 0, BALANCE)]
    accounts += [(shop, "merchant", 0, BALANCE) for shop in shops]
    accounts += [(each, "wallet", BALANCE, BALANCE) for each in people]
    await on.copy_records_to_table(
        "account", columns=["id", "kind", "balance", "daily_limit"], records=accounts
    )
    await on.execute("analyze")
    return [Signer(key, secret) for key, _, secret in keys], people


async def show_codes(on: Any, people: list[UUID], codes: list[str], _workload: str) -> None:
    expires_at = real_now() + timedelta(hours=1)
    rows = [(code, people[number % len(people)], expires_at) for number, code in enumerate(codes)]
    await on.copy_records_to_table(
        "payment_code", columns=["code", "wallet_id", "expires_at"], records=rows
    )


@contextmanager
def serving(module: str, dsn: str, port: int, *, processes: int, log: Path) -> Iterator[None]:
    """Run one of the services with uvicorn's own workers until the block ends."""
    command = [
        environment(), "-m", "uvicorn", f"{module}:app", "--port", str(port),
        "--workers", str(processes), "--loop", "uvloop", "--http", "httptools",
        "--log-level", "warning", "--no-access-log",
    ]  # fmt: skip
    environ = {**os.environ, "DSN": dsn, "POOL": "16", "PYTHONPATH": str(HERE)}
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environ, stdout=out, stderr=out, cwd=HERE)
    try:
        _wait(port)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _wait(port: int) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/openapi.json", timeout=1).read()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError("the compared service did not come up")


async def problems(on: Any) -> list[str]:
    """Return what is wrong with the books."""
    payments = await on.fetchval("select count(*) from payment")
    found = []
    moved = await on.fetchval(
        """
        with moved as (
            select debit_account as id, -amount as amount from transfer
             union all
            select credit_account, amount from transfer
        ), summed as (
            select id, sum(amount) as amount from moved group by id
        )
        select count(*) from account
          left join summed on summed.id = account.id
         where account.kind <> 'fee'
           and account.balance
               <> case account.kind when 'wallet' then $1 else 0 end + coalesce(summed.amount, 0)
        """,
        BALANCE,
    )
    if moved:
        found.append(f"{moved} balances are not what their transfers say")
    for table in ("attempt", "event", "idempotency_key"):
        count = await on.fetchval(f"select count(*) from {table}")
        if count != payments:
            found.append(f"{count} rows in {table}")
    return found
