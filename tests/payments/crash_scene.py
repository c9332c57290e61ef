"""A merchant's program and its customers at a platform that may die at any moment.

The program remembers every request with its key. After a crash it is run again from its start and
asks the same again; customers act once. Whoever holds the scene moves the clocks and looks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct

from tests.databases import Databases, on_database
from tests.flow_process import LiveProcess, Nursery, Order, nursery, reserved_port
from tests.payments.invariants import assert_money_is_conserved, assert_the_channels_agree
from tests.sandbox.inbox import Inbox
from tests.stage import AT_SANDBOX, staged
from tongbao.infra import test_clock
from tongbao.infra.db import Db, connect
from tongbao.kernel.clock import Clock, real_now
from tongbao.kernel.ids import base32, show
from tongbao_sandbox.launch import RunningSandbox
from tongbao_sdk import Tongbao, Unanswered, verify_webhook

AMOUNT = 1999
DEATH_WITHIN_S = 10.0
_REST_WITHIN_S = 60.0
_STEPS_MAX = 80
_DUE = """
    select (select count(*) from task where run_at <= $1) +
           (select count(*) from event where dispatched_at is null) as due"""
_NEXT = "select min(run_at) as at from task"
_NUMBERED = "select id from attempt union all select id from refund"
_OPEN = """
    select pid, xact_start from pg_stat_activity
     where datname = current_database() and pid <> pg_backend_pid()
       and state like 'idle in transaction%'"""


class Died(Exception):
    """The platform's process is gone."""


class Place(Struct, frozen=True):
    """What the scenes of a module share: the outside world, and where the platform will stand."""

    sandbox: RunningSandbox
    nursery: Nursery
    inbox: Inbox
    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Shop(Struct, frozen=True):
    """A merchant with everything it needs, as its own program knows it."""

    key_id: str
    secret: str
    webhook_key: str


class Prepared(Struct, frozen=True):
    """A database with a shop in it, which is cloned and never used."""

    server_dsn: str
    name: str
    shop: Shop

    @asynccontextmanager
    async def clone(self, databases: Databases) -> AsyncIterator[str]:
        """A copy of the database, by its address."""
        name = await databases.take(self.name)
        yield on_database(self.server_dsn, name)
        await databases.give_back(name, self.name)


@asynccontextmanager
async def prepare(
    place: Place, server_dsn: str, databases: Databases, template: str
) -> AsyncIterator[Prepared]:
    """Open a shop on a clone of the migrated template."""
    name = await databases.take(template)
    shop = await open_shop(place, on_database(server_dsn, name))
    yield Prepared(server_dsn, name, shop)
    await databases.forget(name)
    await databases.give_back(name, template)


async def open_shop(place: Place, dsn: str) -> Shop:
    """Open a shop that hears of everything, in a migrated database."""
    db = await connect(dsn, Clock())
    try:
        async with staged(db, place.folder, place.sandbox) as stage:
            endpoint = await stage.call(stage.client.webhook_endpoints.create, place.inbox.url)
            secret = stage.shop.secret.reveal()
            return Shop(stage.shop.key_id, secret, endpoint["public_keys"][0])
    finally:
        await db.close()


class Scene:
    """One shop on one database, with one platform process after another."""

    def __init__(self, place: Place, shop: Shop, dsn: str, db: Db) -> None:
        self.place = place
        self.sandbox = place.sandbox
        self.db = db
        self.shop = shop
        self.process: LiveProcess | None = None
        self.answers: dict[str, Any] = {}
        self._dsn = dsn
        self.platform_dsn = dsn
        self._spec = ""
        self._asked: dict[str, Callable[[], Any]] = {}
        self._done: dict[str, Any] = {}
        self.lives = 0
        self.death_within_s = DEATH_WITHIN_S
        self.client = Tongbao(
            place.url,
            key_id=shop.key_id,
            secret=shop.secret,
            timeout_s=20,
            pause=self._pause,
        )

    # The platform's process

    async def start(self, spec: str = "") -> None:
        """Start a platform; ``spec`` is what `from_here` arms."""
        self.stop()
        self._spec = spec
        order = Order(self.platform_dsn, str(self.place.folder), self.sandbox.url, self.place.port)
        self.process = await asyncio.to_thread(self.place.nursery.start, order)
        self.lives += 1

    async def from_here(self) -> None:
        """Let the failpoint act from here on: what came before was preparation."""
        if self._spec:
            await self.quiet()
            self.live.arm(self._spec)
            self._spec = ""

    @property
    def live(self) -> LiveProcess:
        assert self.process is not None
        return self.process

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()

    async def leases_run_out(self) -> None:
        """Let the half minute go by after which others may take over what the dead had begun."""
        past = real_now() - timedelta(seconds=1)
        for sql in (
            "update task set lease_until = $1 where lease_until is not null",
            "update idempotency_key set lease_until = $1 where answered_at is null",
        ):
            await self.db.execute(sql, (past,))

    async def database_is_back(self) -> None:
        """Connect to it anew, and wait until the platform has."""
        self.db.pool.terminate()
        self.db = await connect(self._dsn, self.db.clock, connections_max=2)
        await self.leases_run_out()
        deadline = time.monotonic() + _REST_WITHIN_S
        while True:
            try:
                await asyncio.to_thread(self.client.merchant)
            except Unanswered:
                assert time.monotonic() < deadline, "the platform never found its database again"
            else:
                return

    # What the merchant's program does

    async def ask(self, step: str, call: Callable[..., Any], *args: Any, **terms: Any) -> Any:
        """Call the platform under the key that this step has for ever.

        Raises:
            Died
        """
        key = f"{step}-{self.shop.key_id}"
        request = partial(call, *args, **terms, idempotency_key=key)
        self._asked[step] = request
        answer = await self._unless_it_dies(request)
        self._keep(step, answer)
        return answer

    async def read(self, thing: Any) -> Any:
        """Return a payment or refund as the API shows it now."""
        resource = self.client.payments if thing["object"] == "payment" else self.client.refunds
        return await self._unless_it_dies(partial(resource.get, thing["id"]))

    async def wallet_balance(self, wallet: Any) -> int:
        """Return what a wallet holds, as the API shows it now."""
        shown = await self._unless_it_dies(partial(self.client.wallets.get, wallet["id"]))
        return int(shown["balance"])

    def _pause(self, seconds: float) -> None:
        """Let the SDK be patient with whoever lives."""
        time.sleep(0 if self.live.is_gone else min(seconds, 0.5))

    async def _unless_it_dies(self, request: Callable[[], Any]) -> Any:
        try:
            return await asyncio.to_thread(request)
        except Unanswered as silence:
            if await asyncio.to_thread(self.live.ended, self.death_within_s) is not None:
                raise Died from None
            silence.add_note(self.live.log.read_text()[-4000:])
            raise

    def _keep(self, step: str, answer: Any) -> None:
        earlier = self.answers.setdefault(step, answer)
        assert earlier.get("id") == answer.get("id"), f"{step}: one key, two answers"

    async def ask_everything_again(self) -> None:
        """Repeat every request of the program with its key: each is answered with its own."""
        for step, request in self._asked.items():
            self._keep(step, await asyncio.to_thread(request))

    async def create(self, step: str = "create", **method: Any) -> Any:
        """Ask for a payment."""
        terms = {"merchant_order_no": f"{step}-order", "amount": AMOUNT, "subject": "tea"}
        expires_in_s = method.pop("expires_in_s", None)
        return await self.ask(
            step, self.client.payments.create, **terms, method=method, expires_in_s=expires_in_s
        )

    async def refund(self, payment: Any, amount: int, step: str = "refund") -> Any:
        """Ask for money to be given back."""
        return await self.ask(
            step,
            self.client.payments.refund,
            payment["id"],
            merchant_refund_no=f"{step}-no",
            amount=amount,
        )

    # What others do

    async def once(self, step: str, act: Callable[[], Awaitable[Any]]) -> Any:
        """Let something happen that does not happen again when the program is repeated."""
        if step not in self._done:
            self._done[step] = await act()
        return self._done[step]

    async def customer_pays(self, payment: Any) -> None:
        """Let a customer scan the QR the merchant shows, and pay."""
        code = payment["next_action"]["code_url"]
        pay = partial(self._control, "customer/scan", code_url=code, action="pay")
        await self.once(f"scan {payment['id']}", pay)

    async def code(self, channel: str, behaviour: str = "pay") -> str:
        """Return the digits on a customer's phone."""
        make = partial(
            self._control,
            "customer/payment-code",
            channel=AT_SANDBOX[channel],
            behaviour=behaviour,
        )
        return str((await self.once("code", make))["auth_code"])

    async def wallet_code(self, balance: int = 10_000) -> str:
        """Return a payment code of a wallet with money in it."""
        wallet = await self.ask("wallet", self.client.wallets.open, holder_name="张三")
        await self.ask("top_up", self.client.wallets.top_up, wallet["id"], amount=balance)
        show_code = partial(self.client.wallets.payment_code, wallet["id"])
        made = await self.once("code", partial(self._unless_it_dies, show_code))
        return str(made["code"])

    async def fault(self, channel: str, on: str, fault: str) -> None:
        """Script a fault of the channel, once."""

        async def script() -> int:
            return self.sandbox.fault(AT_SANDBOX[channel], on, fault)

        await self.once(f"fault {on} {fault}", script)

    async def merchant_refuses(self, times: int) -> None:
        """Let the merchant's address answer the next webhooks with an error."""

        async def refuse() -> None:
            self.place.inbox.answers += [(500, b"")] * times

        await self.once("merchant refuses", refuse)

    async def _control(self, path: str, **body: Any) -> Any:
        return await asyncio.to_thread(self.sandbox.post, path, **body)

    # Time

    async def advance(self, seconds: float) -> None:
        """Move both worlds' time on, and let what becomes due happen."""
        await asyncio.to_thread(self.sandbox.advance, seconds)
        try:
            await self.quiet()  # what a channel tells goes before what we would ask it
        finally:
            await test_clock.advance(self.db, timedelta(seconds=seconds), "tests")
        await self.quiet()

    async def quiet(self) -> None:
        """Wait until nothing is due any more.

        Raises:
            Died
        """
        deadline = time.monotonic() + _REST_WITHIN_S
        while time.monotonic() < deadline:
            if self.live.ended() is not None:
                raise Died
            if not await self._is_anything_due():
                await asyncio.to_thread(self.sandbox.settle)
                if not await self._is_anything_due() and self.live.ended() is None:
                    return
            await asyncio.sleep(0.01)
        raise TimeoutError("the platform never came to rest")

    async def _is_anything_due(self) -> bool:
        [row] = await self.db.fetch(_DUE, (self.db.clock.now(),))
        return bool(row["due"])

    async def rest(self) -> None:
        """Advance the clocks from one thing that is due to the next, until nothing will be.

        Raises:
            Died
        """
        looks = 0
        for _ in range(_STEPS_MAX):
            await self.quiet()
            waits = await self._next_due()
            looks = looks + 1 if waits is None else 0
            if looks == 2:  # a task that ended between two looks may have led to a callback
                return
            if waits:
                await self.advance(waits + 0.1)
        raise TimeoutError("there is always something more to do")

    async def _next_due(self) -> float | None:
        """Return in how many seconds the next task or callback is due, None when nothing is."""
        now = self.db.clock.now()
        dues = [
            datetime.fromisoformat(letter["next_at"])
            for row in await self.db.fetch(_NUMBERED, ())
            for letter in await asyncio.to_thread(
                self.sandbox.get, "callbacks", number=base32(row["id"])
            )
            if letter["state"] == "waiting"
        ]
        [row] = await self.db.fetch(_NEXT, ())
        if row["at"] is not None:
            dues.append(row["at"])
        return max((min(dues) - now).total_seconds(), 0) if dues else None

    # What must hold

    async def assert_all_is_well(self) -> None:
        """Hold once everything is at rest, whatever happened before."""
        await assert_money_is_conserved(self.db)
        await assert_the_channels_agree(self)
        await self._nothing_is_left()
        await self._nothing_was_doubled()
        await self._everything_was_heard()

    async def _nothing_is_left(self) -> None:
        for sql in (
            "select type from task",
            "select reason from dead_letter",
            "select type from event where dispatched_at is null",
            "select event_type from webhook_delivery where state <> 'succeeded'",
            "select state from inbound_callback where state <> 'processed'",
            "select kind, detail from payment_case where kind <> 'late_success'",
        ):
            assert await self.db.fetch(sql, ()) == [], sql
        await self._no_transaction_stays_open()

    async def _no_transaction_stays_open(self) -> None:
        """Those of the worker's polling come and go; none of the first look is there for long."""
        first = {tuple(row) for row in await self.db.fetch(_OPEN, ())}
        deadline = time.monotonic() + _REST_WITHIN_S
        while first & {tuple(row) for row in await self.db.fetch(_OPEN, ())}:
            assert time.monotonic() < deadline, "a transaction was left open"
            await asyncio.sleep(0.01)

    async def _nothing_was_doubled(self) -> None:
        asked = {str(answer.get("id")) for answer in self.answers.values()}
        for sql, prefix in (
            ("select id from payment", "pay"),
            ("select payment_id as id from attempt", "pay"),
            ("select id from refund where kind = 'merchant'", "ref"),
        ):
            made = sorted(show(prefix, row["id"]) for row in await self.db.fetch(sql, ()))
            assert made == sorted(id_ for id_ in asked if id_.startswith(prefix)), sql

    async def _everything_was_heard(self) -> None:
        """Every event came to the merchant, rightly signed, each time the same."""
        rows = await self.db.fetch("select id, type from event", ())
        published = {show("evt", row["id"]): row["type"] for row in rows}
        heard: dict[str, Any] = {}
        for letter in list(self.place.inbox.letters):
            if len(letter.body) < int(letter.headers["content-length"]):
                continue  # its sender died over it
            if letter.headers["webhook-id"] in published:
                keys = [self.shop.webhook_key]
                event = verify_webhook(letter.headers, letter.body, public_keys=keys)
                assert heard.setdefault(event["id"], event) == event
        assert {id_: event["type"] for id_, event in heard.items()} == published

    def assert_no_failure_was_logged(self) -> None:
        """Hold for the last process: to recover is its ordinary work."""
        log = self.live.log.read_text()
        for word in ("task_failed", "request_failed", "worker_step_failed"):
            assert word not in log, log[-4000:]


@contextmanager
def open_place(folder: Path, sandbox: RunningSandbox) -> Iterator[Place]:
    """The outside world, a port that stays ours, and a nursery of platforms."""
    with reserved_port() as kept, nursery() as nurse, Inbox() as inbox:
        yield Place(sandbox, nurse, inbox, folder, kept.getsockname()[1])


@asynccontextmanager
async def scene_on(place: Place, shop: Shop, dsn: str) -> AsyncIterator[Scene]:
    """A scene on a database that has the shop, at the sandbox's time."""
    place.sandbox.delete("faults")
    place.inbox.answers.clear()
    db = await connect(dsn, Clock(), connections_max=2)
    there = datetime.fromisoformat((await asyncio.to_thread(place.sandbox.get, "clock"))["now"])
    db.clock.offset = max(there - real_now(), timedelta())
    await db.execute(
        "insert into deployment_clock (id, offset_us) values (1, $1)"
        " on conflict (id) do update set offset_us = excluded.offset_us",
        (db.clock.offset // timedelta(microseconds=1),),
    )
    scene = Scene(place, shop, dsn, db)
    try:
        yield scene
    finally:
        scene.stop()
        scene.client.close()
        scene.db.pool.terminate()
