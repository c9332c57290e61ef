"""A platform in this process, its HTTP server, and the sandbox beside it: what flows run on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2 as httpx
import uvicorn

from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.http_edge import protocol_with
from tongbao.infra.serving.app import App
from tongbao.infra.settings import Settings, default_socket_dir
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import parse
from tongbao.kernel.licence import Licence
from tongbao.parties.merchants.merchants import LIVE_BOOK, SANDBOX_BOOK
from tongbao.parties.merchants.model import LateSuccess
from tongbao.payments.collecting import queries
from tongbao.payments.collecting.model import Attempt
from tongbao.payments.collecting.model import Payment as PaymentRow
from tongbao.surfaces.demo.stage import Shop, account_orders, open_accounts, open_shop
from tongbao.wiring import SECRETS, Platform
from tongbao_sandbox.launch import RunningSandbox
from tongbao_sdk import Tongbao
from tongbao_sdk.replies import Payment, Refund

AT_SANDBOX = {
    "wechat_pay": "wechat",
    "alipay": "alipay",
    "unionpay": "unionpay",
    "unionpay_qra": "unionpay_qra",
}
"""What the sandbox calls our channels."""

Accounts = dict[str, Any]

_CALLERS = ThreadPoolExecutor(64, thread_name_prefix="sdk")


def settings_for(folder: Path, sandbox_url: str, *, port: int, **changes: Any) -> Settings:
    """Settings of a platform that is tested against the sandbox."""
    return Settings(
        **{
            "data_dir": folder,
            "kek_file": folder / "kek",
            "socket_dir": default_socket_dir(folder),
            "licence": Licence.PAYMENT_INSTITUTION,
            "port": port,
            "public_url": f"http://127.0.0.1:{port}",
            "sandbox_url": sandbox_url,
            "test_clock": True,
            "log_format": "console",
            "log_level": "warning",
            "rate_units_per_s": 1_000_000,  # no test waits because another one asked much
            "rate_burst": 10_000_000,
            **changes,
        }
    )


def new_number() -> str:
    """An order or refund number nobody has used."""
    return uuid4().hex[:24]


class Stage:
    """Everything a test of a flow acts on."""

    def __init__(
        self, platform: Platform, app: App, sandbox: RunningSandbox, shop: Shop, accounts: Accounts
    ) -> None:
        self.platform = platform
        self.app = app
        self.db = platform.db
        self.flow = platform.flow
        self.sandbox = sandbox
        self.url = platform.settings.public_url
        self.shop = shop
        self.accounts = accounts
        self.client = self.client_of(shop)

    def client_of(self, shop: Shop, **options: Any) -> Tongbao:
        plain = httpx.Client(trust_env=False, verify=False)  # the SDK's own has 30 ms of TLS in it
        options = {"client": plain, **options}
        return Tongbao(self.url, key_id=shop.key_id, secret=shop.secret.reveal(), **options)

    async def open_shop(self, **terms: Any) -> Shop:
        """One more merchant at the same channel accounts."""
        licence = self.platform.settings.licence
        terms = {"name": "另一家商店", **terms}
        return await open_shop(self.db, self.platform.keyring, licence, self.accounts, **terms)

    async def patient_shop(self) -> Tongbao:
        """A client of a merchant who takes money that comes after the order's time."""
        return self.client_of(await self.open_shop(late_success=LateSuccess.ACCEPT_IF_OPEN))

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call the SDK, which blocks, without blocking the server it talks to.

        Its threads are not the loop's own, which the server needs to answer.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(_CALLERS, partial(function, *args, **kwargs))

    async def control(self, path: str, **body: Any) -> Any:
        """Tell the sandbox's control API, which may call us back meanwhile."""
        return await asyncio.to_thread(self.sandbox.post, path, **body)

    # What merchants do

    async def show_qr(
        self, channel: str, amount: int = 1999, *, client: Tongbao | None = None, **more: Any
    ) -> Payment:
        """Ask for a QR to show."""
        terms = {"merchant_order_no": new_number(), "subject": "tea", **more}
        method = {"channel": channel, "mode": "qr"}
        create = (client or self.client).payments.create
        return await self.call(create, amount=amount, method=method, **terms)

    async def scan_code(
        self, auth_code: str, amount: int = 1999, *, client: Tongbao | None = None, **more: Any
    ) -> Payment:
        """Charge the payment code a customer shows."""
        terms = {"merchant_order_no": new_number(), "subject": "tea", **more}
        method = {"mode": "payment_code", "auth_code": auth_code}
        create = (client or self.client).payments.create
        return await self.call(create, amount=amount, method=method, **terms)

    async def refund(
        self, payment: Payment, amount: int, *, client: Tongbao | None = None, **more: Any
    ) -> Refund:
        """Give money back."""
        terms = {"merchant_refund_no": new_number(), **more}
        refund = (client or self.client).payments.refund
        return await self.call(refund, payment["id"], amount=amount, **terms)

    async def close(self, payment: Payment, **more: Any) -> Payment:
        """Call a payment off."""
        return await self.call(self.client.payments.close, payment["id"], **more)

    async def read(self, thing: Any, *, client: Tongbao | None = None) -> Any:
        """Return a payment or refund as the API shows it now."""
        asking = client or self.client
        resource = asking.payments if thing["object"] == "payment" else asking.refunds
        return await self.call(resource.get, thing["id"])

    # What customers do

    async def customer(self, payment: Payment, action: str = "pay", **more: Any) -> None:
        """Let the customer scan the payment's QR, or answer their phone's question."""
        attempt = await self.attempt_of(payment)
        channel = AT_SANDBOX[attempt.channel]
        await self.control(
            "customer/scan", channel=channel, number=attempt.number, action=action, **more
        )

    async def code(self, channel: str, behaviour: str = "pay", after_s: float = 5) -> str:
        """Return the digits of a payment code on a customer's phone."""
        made = await self.control(
            "customer/payment-code",
            channel=AT_SANDBOX[channel],
            behaviour=behaviour,
            after_s=after_s,
        )
        return str(made["auth_code"])

    async def wallet_code(self, balance: int = 10_000) -> str:
        """Return a payment code of a new wallet with money in it."""
        wallet = await self.call(self.client.wallets.open, holder_name="张三")
        if balance:
            await self.call(self.client.wallets.top_up, wallet["id"], amount=balance)
        return str((await self.call(self.client.wallets.payment_code, wallet["id"]))["code"])

    async def paid(
        self, channel: str, amount: int = 1999, *, client: Tongbao | None = None, **more: Any
    ) -> Payment:
        """Return a payment whose QR a customer has scanned and paid."""
        payment = await self.show_qr(channel, amount, client=client, **more)
        await self.customer(payment)
        await self.idle()
        return await self.read(payment, client=client)

    # Time

    async def live_together(self) -> None:
        """Set our time to the sandbox's, or what is fresh here would be stale there."""
        await _live_together(self.db, self.sandbox)

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
        self.db.clock.offset += step
        await self.idle()

    # What can be seen

    def fault(self, channel: str, on: str, fault: str, **more: Any) -> None:
        """Script a fault of the sandbox's channel."""
        self.sandbox.fault(AT_SANDBOX[channel], on, fault, **more)

    async def fault_of(self, payment: Any, on: str, fault: str, **more: Any) -> None:
        """Script a fault that meets calls about this payment only."""
        attempt = await self.attempt_of(payment)
        self.fault(attempt.channel, on, fault, number=attempt.number, **more)

    async def row_of(self, payment: Any) -> PaymentRow:
        """Return the payment's row."""
        return (await queries.timeline(self.db, parse("pay", payment["id"]))).payment

    async def attempt_of(self, payment: Any) -> Attempt:
        """Return the payment's attempt."""
        return await queries.last_attempt(self.db, await self.row_of(payment))

    async def trade_of(self, payment: Any) -> dict[str, Any] | None:
        """Return what the sandbox knows of the payment, if anything."""
        attempt = await self.attempt_of(payment)
        found = await asyncio.to_thread(
            self.sandbox.get, "trades", channel=AT_SANDBOX[attempt.channel], number=attempt.number
        )
        return found[0] if found else None

    async def given_back(self, payment: Any) -> list[int]:
        """Return the amounts that the sandbox has really given back of the payment."""
        attempt = await self.attempt_of(payment)
        refunds = await asyncio.to_thread(
            self.sandbox.get, "refunds", channel=AT_SANDBOX[attempt.channel]
        )
        return [
            refund["amount"]
            for refund in refunds
            if refund["trade_number"] == attempt.number and refund["state"] == "done"
        ]

    async def calls_about(self, payment: Any, *, last: int = 500) -> list[str]:
        """Return the requests the sandbox got about the payment's number, oldest first."""
        number = (await self.attempt_of(payment)).number
        seen = await asyncio.to_thread(self.sandbox.get, "requests", last=last)
        return [each["target"] for each in seen if number in str(each)]

    async def events(self, thing: Any) -> list[str]:
        """Return the types of everything published about a payment or refund, oldest first."""
        rows = await self.db.fetch(
            "select type from event where resource_id = $1 order by at, id", (thing["id"],)
        )
        return [row["type"] for row in rows]

    async def cases(self, payment: Any) -> list[str]:
        """Return the kinds of the payment's cases, oldest first."""
        row = await self.row_of(payment)
        return [str(case.kind) for case in (await queries.timeline(self.db, row.id)).cases]

    async def postings(self, thing: Any) -> list[tuple[str, int]]:
        """Return what the book holds under a payment or refund: rule/leg and amount, in order."""
        prefix, _, _ = thing["id"].partition("_")
        rows = await self.db.fetch(
            "select c.code, t.amount from ledger_transfer t"
            " join ledger_code c on c.number = t.code where t.reference = $1 order by t.seq",
            (parse(prefix, thing["id"]),),
        )
        return [(row["code"], row["amount"]) for row in rows]


async def _live_together(db: Db, sandbox: RunningSandbox) -> None:
    there = (await asyncio.to_thread(sandbox.get, "clock"))["now"]
    db.clock.offset = datetime.fromisoformat(there) - real_now()


@asynccontextmanager
async def served(app: App, listening: socket.socket) -> AsyncIterator[None]:
    """Serve the application on this loop, with the short way in that hot routes have.

    Uvicorn's own ``serve`` looks ten times a second whether it is to end, and then waits a tenth
    of a second more; a thousand stages do not wait for that.
    """
    config = uvicorn.Config(app, http=protocol_with(app.door), log_config=None, lifespan="off")
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listening])
    try:
        yield
    finally:
        for each in server.servers:
            each.close()
        state = server.server_state
        for connection in list(state.connections):
            connection.shutdown()
        while state.connections or state.tasks:  # noqa: ASYNC110 - uvicorn tells it no other way
            await asyncio.sleep(0.001)


def listen() -> socket.socket:
    """Return a socket on a free port of loopback, which nobody can take until it is served."""
    # With its protocol named, or asyncio leaves Nagle's delay on: 40 ms for every answer.
    listening = socket.socket(proto=socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    return listening


@asynccontextmanager
async def staged(
    db: Db, folder: Path, sandbox: RunningSandbox, **changes: Any
) -> AsyncIterator[Stage]:
    """A platform on ``db``, served on loopback, with one shop open."""
    await _live_together(db, sandbox)
    listening = listen()
    port = listening.getsockname()[1]
    if "public_url" in changes:
        changes["public_url"] = changes["public_url"].format(port=port)
    settings = settings_for(folder, sandbox.url, port=port, **changes)
    platform = Platform(settings, db, Keyring.from_file(settings.kek_file))
    for book in (LIVE_BOOK, SANDBOX_BOOK):
        await platform.ledger.open_book(book, actor="tests")
    orders = account_orders(sandbox.url, sandbox.credentials)
    accounts = await open_accounts(db, platform.keyring, SECRETS, orders)
    shop = await open_shop(db, platform.keyring, settings.licence, accounts, name="测试商店")
    app = platform.app()
    async with served(app, listening):
        try:
            yield Stage(platform, app, sandbox, shop, accounts)
        finally:
            for client in (platform.http, *platform.webhook_http.values()):
                await client.close()
