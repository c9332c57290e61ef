"""A merchant's server that hears webhooks, and what makes the platform send some."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Struct

from tongbao.infra import outbox
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, Query, Statement
from tongbao.infra.http import HttpClient, LoopbackAllowed, PublicOnly
from tongbao.infra.outbox import Event
from tongbao.infra.webhooks import deliveries, endpoints
from tongbao.infra.webhooks.courier import Courier
from tongbao.infra.webhooks.deliveries import DELIVER_POLICY, DeliverWebhook
from tongbao.infra.webhooks.endpoints import IssuedKey, Owner
from tongbao.infra.webhooks.model import (
    WebhookDelivery,
    WebhookEndpointDisabled,
    WebhookRules,
    WebhookTest,
)
from tongbao.infra.worker import Worker
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Mode

OWNER = Owner(new_id(), Mode.SANDBOX)
STRANGER = Owner(new_id(), Mode.SANDBOX)
LIVE = Owner(OWNER.merchant_id, Mode.LIVE)
RULES = WebhookRules(frozenset({"cat.fed", "cat.lost", "dog.walked"}), loopback_allowed=True)
DAY = timedelta(days=1)
EXPIRE = Statement("update task set lease_until = $1 where lease_until is not null")
TASKS = Query(int, "select count(*) from task")
STATES = Query(str, "select state from webhook_delivery order by created_at, id")
DISABLED = Query(int, "select count(*) from event where type = 'webhook_endpoint.disabled'")
WAITING = Query(
    bool,
    "select exists (select from pg_stat_activity"
    " where datname = current_database() and wait_event_type = 'Lock')",
)


class CatView(Struct, frozen=True):
    id: str
    name: str


class CatFed(Event, frozen=True, tag="cat.fed"):
    object: CatView


class CatCounted(Event, frozen=True, tag="cat.counted"):
    count: int


class Received(Struct, frozen=True):
    headers: dict[str, str]
    body: bytes


class Receiver:
    """A merchant's server: keeps what it got and answers as the test says."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answers: list[bytes] = []  # then 200 for ever
        self.gate = asyncio.Event()
        self.gate.set()
        self.open_now = 0
        self.open_max = 0
        self.url = ""

    async def follow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in head[1:] if line)
            }
            body = await reader.readexactly(int(headers["content-length"]))
            self.received.append(Received(headers, body))
            self.open_now += 1
            self.open_max = max(self.open_max, self.open_now)
            await self.gate.wait()
            self.open_now -= 1
            writer.write(self.answers.pop(0) if self.answers else answer(200))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", "connection: close", *lines]
    return "\r\n".join([*head, "", ""]).encode() + body


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    it = Receiver()
    server = await asyncio.start_server(it.follow, "127.0.0.1", 0)
    it.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks?shop=1"
    yield it
    it.gate.set()
    server.close()


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring.from_file(tmp_path / "key")


@pytest.fixture
async def work(db: Db, keyring: Keyring) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """``await work()`` dispatches and delivers everything that is due."""
    clients = {Mode.LIVE: HttpClient(PublicOnly()), Mode.SANDBOX: HttpClient(LoopbackAllowed())}
    worker = worker_of(db, Courier(db, keyring, clients))

    async def run() -> None:
        await worker.run_until_idle(raise_failures=True)

    yield run
    for client in clients.values():
        await client.close()


def worker_of(db: Db, courier: Courier) -> Worker:
    return Worker(
        db,
        {DeliverWebhook: courier.deliver},
        {DeliverWebhook: DELIVER_POLICY},
        {CatFed: (), CatCounted: (), WebhookTest: (), WebhookEndpointDisabled: ()},
        fan_outs=[courier.plan],
    )


async def endpoint(
    db: Db,
    keyring: Keyring,
    url: str,
    *event_types: str,
    owner: Owner = OWNER,
    rules: WebhookRules = RULES,
) -> IssuedKey:
    async with db.begin("merchant") as tx:
        return await endpoints.create_endpoint(
            tx, keyring, rules, owner, url=url, event_types=event_types or ("*",)
        )


async def feed(db: Db, *, name: str = "Mimi", owner: Owner = OWNER) -> UUID:
    event = CatFed(
        merchant_id=owner.merchant_id,
        mode=owner.mode,
        resource_id="cat_1",
        object=CatView("cat_1", name),
    )
    async with db.begin("test") as tx:
        return await outbox.publish(tx, event)


async def only_delivery(db: Db, event_id: UUID) -> WebhookDelivery:
    (delivery,) = await deliveries.deliveries_of_event(db, event_id)
    return delivery


def verified(got: Received, secret: str) -> bool:
    """The receiver's half of the standard, written from its text."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{got.headers['webhook-id']}.{got.headers['webhook-timestamp']}.".encode() + got.body
    mac = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return f"v1,{mac}" in got.headers["webhook-signature"].split(" ")


def verified_v1a(got: Received, public: str) -> bool:
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public.removeprefix("whpk_")))
    signed = f"{got.headers['webhook-id']}.{got.headers['webhook-timestamp']}.".encode() + got.body
    for entry in got.headers["webhook-signature"].split(" "):
        version, _, signature = entry.partition(",")
        if version == "v1a":
            try:
                key.verify(base64.b64decode(signature), signed)
            except Exception:  # noqa: BLE001 - another key's
                continue
            return True
    return False


async def somebody_waits(db: Db) -> None:
    async with asyncio.timeout(20):
        while not await WAITING.one(db):  # noqa: ASYNC110 - the database tells nobody
            await asyncio.sleep(0.01)
