"""Processor time of a payment over each channel: create → callback → posted → webhook.

    python -m bench.channels                     two minutes
    python -m bench.channels --payments 500 --channels alipay --together 64
    python -m bench.channels --watch             also: where it goes, by stage and by layer

The platform is served whole by one process; the sandbox, PostgreSQL and the shop are others, whose
time is told apart and charged to nobody. A customer scans each code and pays, the channel calls
back, the shop hears of it by a webhook. What the platform's process has used meanwhile is divided
by the payments, and put beside the floor of each channel's own signatures and encryption, timed
bare in the same seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import uvloop
from msgspec import Struct

from bench.channels.exchange import exchange_us
from bench.channels.floor import Beside, primitives, signatures_per_second, thread_hop_us
from bench.channels.meters import used_s, used_with_children_s
from bench.channels.shop import Ears, Shop
from bench.channels.watched import Seen
from tongbao.infra import embedded
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import connect
from tongbao.infra.migrate import migrate
from tongbao.kernel.clock import Clock
from tongbao.kernel.licence import Licence, Mode
from tongbao.parties.merchants.merchants import connect_channel
from tongbao.parties.price_plans.model import PriceLine
from tongbao.parties.price_plans.plans import set_price_plan
from tongbao.rails.channels.accounts import NewAccount
from tongbao.surfaces.demo.stage import (
    Credentials,
    account_orders,
    open_accounts,
    open_shop,
)
from tongbao.surfaces.demo.stage import (
    Shop as OpenedShop,
)
from tongbao.surfaces.demo.theatre import free_port
from tongbao.wiring import SECRETS
from tongbao_sandbox.launch import RunningSandbox, start_sandbox
from tongbao_sdk import Tongbao

CHANNELS = ("wechat_pay", "alipay", "unionpay", "unionpay_qra")
LICENCE = Licence.PAYMENT_INSTITUTION
_CALLS_SHOWN = 40


class Figures(Struct, frozen=True):
    """What one channel came to, in microseconds of a processor per payment."""

    channel: str
    payments: int
    platform_us: float
    floor_us: float
    database_us: float
    sandbox_us: float
    seconds: float
    seen: Seen | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--payments", type=int, default=300, help="of each channel")
    parser.add_argument("--warm-up", type=int, default=120, help="of each, which do not count")
    parser.add_argument("--together", type=int, default=32, help="payments under way at a time")
    parser.add_argument("--channels", default=",".join(CHANNELS))
    parser.add_argument("--watch", action="store_true", help="tell where the time goes")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tongbao-bench-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        _bench(options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _bench(options: argparse.Namespace, folder: Path) -> None:
    server = embedded.start(folder / "data")
    ears = Ears()
    try:
        with start_sandbox(folder / "sandbox") as sandbox:
            port = free_port(0)
            public = f"http://127.0.0.1:{port}"
            merchant = asyncio.run(_furnish(server.dsn, folder / "data", sandbox))
            key, secret = merchant.key_id, merchant.secret.reveal()
            watched = folder / "watched.json" if options.watch else None
            with _served(folder / "data", port, sandbox.url, watched) as process:
                Tongbao(public, key_id=key, secret=secret).webhook_endpoints.create(ears.url)
                bench = Bench(
                    platform=process.pid,
                    database=_postmaster(folder / "data"),
                    sandbox=sandbox,
                    shop=Shop(public, key, secret, ears),
                    watched=watched,
                )
                found = []
                for channel in options.channels.split(","):
                    bench.sell(channel, options.warm_up, options.together)
                    found.append(bench.sell(channel, options.payments, options.together))
        _tell(found)
    finally:
        ears.close()
        server.stop()


def _postmaster(data: Path) -> int:
    """Return the process whose children are all of the private server."""
    return int(next(data.rglob("postmaster.pid")).read_text().split()[0])


async def _furnish(dsn: str, data: Path, sandbox: RunningSandbox) -> OpenedShop:
    db = await connect(dsn, Clock())
    await migrate(db, LICENCE, "bench")
    keyring = Keyring.from_file(data / "kek")
    orders = [*account_orders(sandbox.url, sandbox.credentials), *_at_unionpay(sandbox)]
    accounts = await open_accounts(db, keyring, SECRETS, orders)
    shop = await open_shop(db, keyring, LICENCE, accounts, name="bench")
    async with db.begin("bench") as tx:
        prices = [PriceLine(channel, "qr", 8_000) for channel in CHANNELS]
        await set_price_plan(tx, shop.merchant.id, Mode.SANDBOX, prices)
        for channel in CHANNELS[2:]:
            await connect_channel(tx, shop.merchant.id, Mode.SANDBOX, channel, accounts[channel])
    db.pool.terminate()
    return shop


def _at_unionpay(sandbox: RunningSandbox) -> list[NewAccount]:
    shown: Credentials = sandbox.credentials
    own, aggregated = shown["unionpay"], shown["unionpay_qra"]
    pems = ("merchant_private_key_pem", "merchant_certificate_pem", "root_certificate_pem")
    return [
        NewAccount(
            channel=channel,
            mode=Mode.SANDBOX,
            gateway=f"{sandbox.url}/{prefix}",
            merchant_number=number,
            app_id=app_id,
            fee_ppm=6000,
            keys=keys,
        )
        for channel, prefix, number, app_id, keys in (
            (
                *("unionpay", "unionpay", own["mer_id"], "000201"),
                {name: own[name] for name in (*pems, "middle_certificate_pem")},
            ),
            (
                *("unionpay_qra", "qra", aggregated["mch_id"], "qra"),
                {"secure_key": aggregated["secure_key"]},
            ),
        )
    ]


@contextmanager
def _served(
    data: Path, port: int, sandbox_url: str, watched: Path | None
) -> Iterator[subprocess.Popen[bytes]]:
    environ = {
        **os.environ,
        "TONGBAO_DATA_DIR": str(data),
        "TONGBAO_LICENCE": LICENCE.value,
        "TONGBAO_PORT": str(port),
        "TONGBAO_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "TONGBAO_SANDBOX_URL": sandbox_url,
        "TONGBAO_LOG_LEVEL": "warning",
    }
    with (data / "serve.log").open("wb") as log:
        whole = ["bench.channels.watched", str(watched)] if watched else ["tongbao", "serve"]
        line = [sys.executable, "-m", *whole]
        process = subprocess.Popen(line, env=environ, stdout=log, stderr=log)
    try:
        _wait(process, f"http://127.0.0.1:{port}/healthz", data / "serve.log")
        yield process
    finally:
        process.terminate()
        process.wait(60)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    for _ in range(300):
        if process.poll() is not None:
            raise RuntimeError(log.read_text())
        try:
            urllib.request.urlopen(url, timeout=1).read()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError("the platform did not come up")


class Bench(Struct, frozen=True):
    """Sells over a channel and reads what each process has used meanwhile."""

    platform: int
    database: int
    sandbox: RunningSandbox
    shop: Shop
    watched: Path | None

    def used_s(self) -> tuple[float, float, float]:
        """Return the processor seconds of platform, database and sandbox so far."""
        sandbox = used_s(self.sandbox.process.pid)
        return used_s(self.platform), used_with_children_s(self.database), sandbox

    def sell(self, channel: str, payments: int, together: int) -> Figures:
        """Take so many payments to their webhooks and return what one has used."""
        # What a process does when nobody wants anything is not a payment's.
        idle, begun = self.used_s(), time.perf_counter()
        time.sleep(2)
        waited = time.perf_counter() - begun
        idle_shares = [(now - then) / waited for now, then in zip(self.used_s(), idle, strict=True)]
        self._seen()
        before = self.used_s()
        with Beside() as beside:
            seconds = self.shop.sell(channel, payments, together=together, scan=self._scan)
        used = [
            (now - then - share * seconds) / payments * 1e6
            for now, then, share in zip(self.used_s(), before, idle_shares, strict=True)
        ]
        return Figures(
            channel=channel,
            payments=payments,
            platform_us=used[0],
            floor_us=beside.floor_us(channel),
            database_us=used[1],
            sandbox_us=used[2],
            seconds=seconds,
            seen=self._seen(),
        )

    def _scan(self, code_url: str) -> None:
        self.sandbox.post("customer/scan", code_url=code_url)

    def _seen(self) -> Seen | None:
        if self.watched is None:
            return None
        self.watched.unlink(missing_ok=True)
        os.kill(self.platform, signal.SIGUSR1)
        for _ in range(500):
            if self.watched.exists():
                return msgspec.json.decode(self.watched.read_bytes(), type=Seen)
            time.sleep(0.01)
        raise TimeoutError("the watched platform did not tell")


def _tell(found: list[Figures]) -> None:
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    print("primitives alone, µs: " + ", ".join(f"{p.name} {p.us:.1f}" for p in primitives()))
    print("processor time per payment, µs; database and sandbox are other processes, not counted")
    print(
        f"{'channel':14}{'payments':>10}{'platform':>10}{'floor':>8}{'×':>7}{'beside':>8}"
        f"{'database':>10}{'sandbox':>9}{'per s':>8}"
    )
    for each in found:
        print(
            f"{each.channel:14}{each.payments:>10}{each.platform_us:>10.0f}{each.floor_us:>8.0f}"
            f"{each.platform_us / each.floor_us:>7.1f}{each.platform_us - each.floor_us:>8.0f}"
            f"{each.database_us:>10.0f}"
            f"{each.sandbox_us:>9.0f}{each.payments / each.seconds:>8.1f}"
        )
    for each in found:
        if each.seen is not None:
            _tell_seen(each, each.seen)
    for threads in (1, 2, 4):
        print(f"RSA-2048 signatures/s of {threads} threads: {signatures_per_second(threads):,.0f}")
    print(f"a thread that does nothing: {asyncio.run(thread_hop_us()):.0f} µs")
    print(f"both ends of a bare exchange of HTTP: {uvloop.run(exchange_us()):.0f} µs")


def _tell_seen(figures: Figures, seen: Seen) -> None:
    """Share the platform's time out as its ticks fell, and count what it asked of the database."""
    ticks = sum(sum(row.values()) for row in seen.ticks.values())
    layers: Counter[str] = Counter()
    for row in seen.ticks.values():
        layers.update(row)
    names = [name for name, _ in layers.most_common()]
    print(f"\n{figures.channel}: where the platform's time goes, µs per payment ({ticks} ticks)")
    print(f"{'':16}" + "".join(f"{name:>15}" for name in names) + f"{'all':>9}")

    def us(count: int) -> float:
        return figures.platform_us * count / ticks

    ordered = sorted(seen.ticks.items(), key=lambda item: -sum(item[1].values()))
    for stage, row in [*ordered, ("all", dict(layers))]:
        cells = "".join(f"{us(row.get(name, 0)):>15.0f}" for name in names)
        print(f"{stage:16}{cells}{us(sum(row.values())):>9.0f}")
    found = [f"{name} {count / figures.payments:.2f}" for name, count in seen.crypto.items()]
    print(f"signatures and encryption per payment: {', '.join(sorted(found))}")
    calls = sum(seen.calls.values()) / figures.payments
    print(f"calls of the database per payment: {calls:.1f}")
    for text, count in sorted(seen.calls.items(), key=lambda item: -item[1])[:_CALLS_SHOWN]:
        print(f"{count / figures.payments:8.2f}  {text}")


if __name__ == "__main__":
    main()
