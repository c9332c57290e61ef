"""The platform as it is served: its processes, its merchants, wallets and codes, and its proofs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from bench.payments.requests_file import Signer
from tongbao.infra.crypto import Keyring, bind, hmac_sha256
from tongbao.infra.db import Db
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Licence
from tongbao.kernel.money import Money
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import AccountKey, Group
from tongbao.ledger.rules import posting
from tongbao.parties.merchants.merchants import SANDBOX_BOOK

BALANCE = 1_000_000_000
MODE = "sandbox"
SETTLING_S = 4  # servers that share a port answer for each other before all of them are there


class Shops:
    """Merchants with their keys, and wallets with money."""

    def __init__(self, signers: list[Signer], wallets: list[UUID], books: list[int]) -> None:
        self.signers = signers
        self.wallets = wallets
        self.books = books

    def payer(self, number: int, workload: str) -> int:
        """Return whose code this is, by place: one whose book is that of the merchant."""
        step = len(self.books) if workload == "hot" else 1
        return number * step % len(self.wallets)

    def book(self, place: int) -> int:
        """Return the book of a merchant or a wallet, by place."""
        return self.books[place % len(self.books)]


async def stock(db: Db, keyring: Keyring, *, merchants: int, wallets: int, books: int) -> Shops:
    """Open merchants with prices and keys, and wallets with money in them, book after book."""
    now = db.clock.now()
    numbers = [SANDBOX_BOOK + place for place in range(books)]
    ledger = Ledger(db, Licence.PAYMENT_INSTITUTION)
    for book in numbers[1:]:
        await ledger.open_book(book, actor="bench")
    await ledger.close()
    shops = [new_id() for _ in range(merchants)]
    keys = [(new_id(), f"sk_{MODE}_{shop.hex}") for shop in shops]
    people = [new_id() for _ in range(wallets)]
    lines = [
        {
            "channel": "wallet",
            "pay_mode": "payment_code",
            "rate_ppm": 6000,
            "fixed": 0,
            "fee_min": 0,
        }
    ]
    async with db.begin("bench") as tx:
        await tx.copy(
            "merchant",
            [
                "id",
                "name",
                "state",
                "live_book",
                "sandbox_book",
                "late_success",
                "settlement_delay_days",
                "opened_at",
            ],
            [
                (shop, "shop", "active", 1, numbers[place % books], "refund", 1, now)
                for place, shop in enumerate(shops)
            ],
        )
        insert = """
            insert into price_plan (id, merchant_id, mode, version, valid_from, currency,
                                    refund_returns_fee, lines, created_at, created_by)
            values ($1, $2, $3, 1, $4, 'CNY', false, $5, $4, 'bench')"""
        await tx.execute_many(insert, [(new_id(), shop, MODE, now, lines) for shop in shops])
        await tx.copy(
            "api_key",
            [
                "id",
                "merchant_id",
                "mode",
                "name",
                "scopes",
                "secret_sealed",
                "secret_tail",
                "created_at",
                "last_used_at",
            ],
            [
                (
                    key,
                    shop,
                    MODE,
                    "bench",
                    ["payments:write"],
                    keyring.seal(
                        "api_key.secret",
                        secret.encode(),
                        bind("api_key", "secret_sealed", key, shop),
                    ),
                    secret[-4:],
                    now,
                    now,
                )
                for shop, (key, secret) in zip(shops, keys, strict=True)
            ],
        )
        await tx.copy(
            "wallet",
            [
                "book",
                "id",
                "merchant_id",
                "mode",
                "holder_masked",
                "currency",
                "state",
                "daily_limit",
                "spent_on",
                "spent",
                "opened_at",
            ],
            [
                (
                    numbers[place % books],
                    each,
                    shops[0],
                    MODE,
                    "*",
                    "CNY",
                    "active",
                    BALANCE,
                    business_date(now),
                    0,
                    now,
                )
                for place, each in enumerate(people)
            ],
        )
    made = Shops([Signer(show("key", key), secret) for key, secret in keys], people, numbers)
    await _fill(db, made)
    return made


async def _fill(db: Db, shops: Shops) -> None:
    ledger = Ledger(db, Licence.PAYMENT_INSTITUTION)
    people = shops.wallets
    for first in range(0, len(people), 1000):
        groups = []
        for place, wallet in enumerate(people[first : first + 1000], first):
            transfers = posting.transfers(
                "wallet.topped_up",
                reference=new_id(),
                accounts={"wallet": AccountKey("wallet", "CNY", wallet)},
                amounts={"amount": Money(BALANCE, "CNY")},
            )
            book = shops.book(place)
            groups.append(Group(id=transfers[0].id, book=book, transfers=transfers))
        results = await ledger.submit(groups)
        assert all(result.happened for result in results), results[:3]
    await ledger.close()


async def show_codes(
    db: Db, keyring: Keyring, shops: Shops, codes: Sequence[str], workload: str
) -> None:
    """Put the codes on the customers' screens: wallet after wallet, good for an hour."""
    now, key = db.clock.now(), keyring.mac_key("payment_code")
    places = [shops.payer(number, workload) for number in range(len(codes))]
    async with db.begin("bench") as tx:
        await tx.copy(
            "payment_code",
            ["book", "code_hash", "wallet_id", "mode", "created_at", "expires_at"],
            [
                (
                    shops.book(place),
                    hmac_sha256(key, code.encode()),
                    shops.wallets[place],
                    MODE,
                    now,
                    now + timedelta(hours=1),
                )
                for place, code in zip(places, codes, strict=True)
            ],
        )


@contextmanager
def serving(folder: Path, port: int, commands: Sequence[Sequence[str]]) -> Iterator[None]:
    """Run the platform's processes until the block ends."""
    environ = {
        **os.environ,
        "TONGBAO_DATA_DIR": str(folder),
        "TONGBAO_LICENCE": "payment_institution",
        "TONGBAO_PORT": str(port),
        "TONGBAO_LOG_LEVEL": "warning",
        "TONGBAO_RATE_UNITS_PER_S": "1000000",
        "TONGBAO_RATE_BURST": "10000000",
    }
    started = []
    try:
        for command in commands:
            line = [sys.executable, "-m", "tongbao", *command]
            with (folder / f"serve-{len(started)}.log").open("wb") as log:
                started.append(subprocess.Popen(line, env=environ, stdout=log, stderr=log))
            if "api" in command:
                _wait(port, started[-1])
        time.sleep(SETTLING_S)
        yield
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
        for process in started:
            process.wait(60)


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        if process.poll() is not None:
            raise RuntimeError(f"a server ended with {process.returncode}; see its log")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1).read()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError("the platform did not come up")
