"""Processor time of a payment over each channel: create → callback → posted → webhook.

    python -m bench.channels                     two minutes
    python -m bench.channels --payments 500 --channels alipay

The platform is served whole by one process with the sandbox beside it; the shop is this process. A
customer scans each code and pays, the channel calls back, the shop hears of it by a webhook. What
the platform's process has used meanwhile is divided by the payments, and put beside the floor of
each channel's own signatures and encryption, timed bare in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from msgspec import Struct

from bench.channels.floor import floor_us, primitives, signatures_per_second, thread_hop_us
from tongbao.infra import embedded
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import connect
from tongbao.infra.migrate import migrate
from tongbao.kernel.clock import Clock
from tongbao.kernel.licence import Licence, Mode
from tongbao.parties.merchants.merchants import connect_channel, set_price_plan
from tongbao.parties.merchants.model import PriceLine
from tongbao.rails.channels.accounts import NewAccount
from tongbao.surfaces.demo.stage import (
    Credentials,
    Shop,
    account_orders,
    open_accounts,
    open_shop,
)
from tongbao.surfaces.demo.theatre import Receiver, free_port
from tongbao.wiring import SECRETS
from tongbao_sandbox.launch import RunningSandbox, start_sandbox
from tongbao_sdk import Tongbao

CHANNELS = ("wechat_pay", "alipay", "unionpay", "unionpay_qra")
AT_SANDBOX = {"wechat_pay": "wechat"}
LICENCE = Licence.PAYMENT_INSTITUTION
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Figures(Struct, frozen=True):
    """What one channel came to, in microseconds of a processor per payment."""

    channel: str
    payments: int
    platform_us: float
    floor_us: float
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--payments", type=int, default=200, help="of each channel")
    parser.add_argument("--warm-up", type=int, default=30, help="of each, which do not count")
    parser.add_argument("--together", type=int, default=8, help="payments under way at a time")
    parser.add_argument("--channels", default=",".join(CHANNELS))
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tongbao-bench-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        _bench(options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _bench(options: argparse.Namespace, folder: Path) -> None:
    server = embedded.start(folder / "data")
    receiver = Receiver()
    try:
        with start_sandbox(folder / "sandbox") as sandbox:
            port = free_port(0)
            public = f"http://127.0.0.1:{port}"
            shop = asyncio.run(_furnish(server.dsn, folder / "data", sandbox))
            with _served(folder / "data", port, sandbox.url) as process:
                client = Tongbao(public, key_id=shop.key_id, secret=shop.secret.reveal())
                endpoint = client.webhook_endpoints.create(receiver.url)
                receiver.public_keys = endpoint["public_keys"]
                counter = Counter(process.pid, client, sandbox, receiver, options.together)
                found = []
                for channel in options.channels.split(","):
                    counter.drive(channel, options.warm_up)
                    found.append(counter.drive(channel, options.payments))
        _tell(found)
    finally:
        receiver.close()
        server.stop()


async def _furnish(dsn: str, data: Path, sandbox: RunningSandbox) -> Shop:
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
def _served(data: Path, port: int, sandbox_url: str) -> Iterator[subprocess.Popen[bytes]]:
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
        line = [sys.executable, "-m", "tongbao", "serve"]
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


class Counter:
    """Drives payments and reads what the platform's process has used."""

    def __init__(
        self,
        pid: int,
        client: Tongbao,
        sandbox: RunningSandbox,
        receiver: Receiver,
        together: int,
    ) -> None:
        self.pid = pid
        self.client = client
        self.sandbox = sandbox
        self.receiver = receiver
        self.together = together

    def used_s(self) -> float:
        """Return the processor seconds of the platform's process so far, all threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    def drive(self, channel: str, payments: int) -> Figures:
        """Take so many payments to their webhooks and return what one has used."""
        heard = len(self.receiver.events)
        # What the process does when nobody wants anything is not a payment's.
        idle, begun = self.used_s(), time.perf_counter()
        time.sleep(2)
        idle_share = (self.used_s() - idle) / (time.perf_counter() - begun)
        before, begun = self.used_s(), time.perf_counter()
        with ThreadPoolExecutor(self.together) as crowd:
            list(crowd.map(lambda _: self._pay(channel), range(payments)))
        deadline = time.monotonic() + 120
        while len(self.receiver.events) < heard + payments:
            if time.monotonic() > deadline:
                raise TimeoutError("some webhooks never came")
            time.sleep(0.02)
        seconds = time.perf_counter() - begun
        used = self.used_s() - before - idle_share * seconds
        floor = floor_us(channel, primitives())
        return Figures(channel, payments, used / payments * 1e6, floor, seconds)

    def _pay(self, channel: str) -> None:
        made = self.client.payments.create(
            merchant_order_no=uuid4().hex[:24],
            amount=1999,
            subject="tea",
            method={"channel": channel, "mode": "qr"},
        )
        self.sandbox.post("customer/scan", code_url=made["next_action"]["code_url"])


def _tell(found: list[Figures]) -> None:
    known = primitives()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    print("primitives, µs: " + ", ".join(f"{p.name} {p.us:.1f}" for p in known.values()))
    print(f"{'channel':14}{'payments':>10}{'µs each':>10}{'floor µs':>10}{'×':>7}{'per s':>8}")
    for each in found:
        ratio = each.platform_us / each.floor_us
        rate = each.payments / each.seconds
        print(
            f"{each.channel:14}{each.payments:>10}{each.platform_us:>10.0f}"
            f"{each.floor_us:>10.0f}{ratio:>7.1f}{rate:>8.1f}"
        )
    for threads in (1, 2, 4):
        print(f"RSA-2048 signatures/s of {threads} threads: {signatures_per_second(threads):,.0f}")
    print(f"a thread that does nothing: {asyncio.run(thread_hop_us()):.0f} µs")


if __name__ == "__main__":
    main()
