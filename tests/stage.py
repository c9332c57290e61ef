"""A platform in this process, its HTTP server, and the sandbox beside it: what flows run on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import uvicorn

from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.settings import Settings
from tongbao.kernel.clock import real_now
from tongbao.kernel.licence import Licence
from tongbao.parties.merchants.merchants import LIVE_BOOK, SANDBOX_BOOK
from tongbao.surfaces.demo.stage import Shop, account_orders, open_accounts, open_shop
from tongbao.wiring import SECRETS, Platform
from tongbao_sandbox.launch import RunningSandbox
from tongbao_sdk import Tongbao


def settings_for(folder: Path, sandbox: RunningSandbox, *, port: int, **changes: Any) -> Settings:
    """Settings of a platform that is tested against the sandbox."""
    return Settings(
        **{
            "data_dir": folder,
            "kek_file": folder / "kek",
            "licence": Licence.PAYMENT_INSTITUTION,
            "port": port,
            "public_url": f"http://127.0.0.1:{port}",
            "sandbox_url": sandbox.url,
            "test_clock": True,
            "log_format": "console",
            "log_level": "warning",
            **changes,
        }
    )


class Stage:
    """Everything a test of a flow acts on."""

    def __init__(self, platform: Platform, sandbox: RunningSandbox, url: str, shop: Shop) -> None:
        self.platform = platform
        self.sandbox = sandbox
        self.url = url
        self.shop = shop
        self.client = self.client_of(shop)

    def client_of(self, shop: Shop, **options: Any) -> Tongbao:
        return Tongbao(self.url, key_id=shop.key_id, secret=shop.secret.reveal(), **options)

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call the SDK, which blocks, without blocking the server it talks to."""
        return await asyncio.to_thread(function, *args, **kwargs)

    async def idle(self) -> None:
        """Run everything that is due, here and at the sandbox, until nothing is."""
        for _ in range(20):
            await asyncio.to_thread(self.sandbox.settle)
            if await self.platform.worker.run_until_idle(raise_failures=True) == 0:
                return
        raise TimeoutError("the platform and the sandbox never came to rest")

    async def advance(self, **by: float) -> None:
        """Move business time on, here and at the sandbox, and let what becomes due happen."""
        step = timedelta(**by)
        await asyncio.to_thread(self.sandbox.advance, step.total_seconds())
        self.platform.db.clock.offset += step
        await self.idle()


@asynccontextmanager
async def served(app: Any, port: int) -> AsyncIterator[None]:
    """Serve an ASGI app on this loop."""
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        await task


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def staged(
    db: Db, folder: Path, sandbox: RunningSandbox, **changes: Any
) -> AsyncIterator[Stage]:
    """A platform on ``db``, served on loopback, with one shop open."""
    # Both worlds live at one time, or what is fresh here would be stale there.
    there = datetime.fromisoformat((await asyncio.to_thread(sandbox.get, "clock"))["now"])
    db.clock.offset = there - real_now()
    port = free_port()
    settings = settings_for(folder, sandbox, port=port, **changes)
    platform = Platform(settings, db, Keyring.from_file(settings.kek_file))
    for book in (LIVE_BOOK, SANDBOX_BOOK):
        await platform.ledger.open_book(book, actor="tests")
    orders = account_orders(sandbox.url, sandbox.credentials)
    accounts = await open_accounts(db, platform.keyring, SECRETS, orders)
    shop = await open_shop(db, platform.keyring, settings.licence, accounts, name="测试商店")
    async with served(platform.app(), port):
        try:
            yield Stage(platform, sandbox, settings.public_url, shop)
        finally:
            await platform.http.close()


Opener = Callable[..., Awaitable[Stage]]
