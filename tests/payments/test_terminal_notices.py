"""What terminals are told: planned with the event, read by number, and never lost or doubled."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any
from uuid import UUID

import httpx2 as httpx
import pytest
from msgspec import Struct

from tests.parties.conftest import new_merchant
from tests.payments.terminal_process import KEYRING, way_in
from tests.stage import listen, served
from tongbao.infra.db import Db
from tongbao.infra.outbox import EventRow
from tongbao.infra.web.caller import Caller
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.merchants.model import Merchant
from tongbao.parties.terminals import inventory, parameters
from tongbao.parties.terminals.devices import activate, give_code
from tongbao.parties.terminals.inventory import Place
from tongbao.parties.terminals.model import Parameters, Terminal, TerminalState
from tongbao.payments.terminal_notices.model import speech_of
from tongbao.payments.terminal_notices.notices import (
    KEPT,
    forget_old,
    latest_notices,
    plan_terminal_notices,
)
from tongbao.payments.terminal_notices.streams import Streams
from tongbao_sdk import Refused
from tongbao_sdk import terminals as sdk


class Anywhere:
    """A house in which every plate is."""

    async def check(self, _on: Any, _place: Place, _merchant: UUID, _mode: Mode) -> None:
        """Find nothing wrong."""


class Counter(Struct):
    """A merchant's terminal by a plate, with its key."""

    db: Db
    merchant: Merchant
    terminal: Terminal
    plate: UUID
    secret: str

    async def told(self, *amounts: int, key: str = "plate_id") -> list[EventRow]:
        """Have payments succeed at the counter, and what follows from it committed."""
        shown = show("plt", self.plate) if key == "plate_id" else show("trm", self.terminal.id)
        events = [paid(self.merchant.id, amount, {key: shown}) for amount in amounts]
        await planned(self.db, events)
        return events

    def program(self, url: str, heard: int | None = None) -> sdk.Terminal:
        """The program that runs on the terminal."""
        client = httpx.Client(trust_env=False, verify=False)
        key_id = show("key", self.terminal.id)
        return sdk.Terminal(url, key_id=key_id, secret=self.secret, heard=heard, client=client)


def paid(merchant: UUID, amount: int, metadata: dict[str, str], **more: Any) -> EventRow:
    """An event of a payment that succeeded, with what of its view is used."""
    view = {
        "id": show("pay", new_id()),
        "object": "payment",
        "mode": "sandbox",
        "merchant_order_no": "A-1",
        "subject": "tea",
        "amount_captured": amount,
        "currency": "CNY",
        "method": {"channel": "wechat_pay", "mode": "qr"},
        "metadata": metadata,
    }
    row: dict[str, Any] = {
        "id": new_id(),
        "type": "payment.succeeded",
        "merchant_id": merchant,
        "mode": Mode.SANDBOX,
        "resource_id": view["id"],
        "body": {"object": view},
        "at": real_now(),
        "dispatched_at": None,
    }
    return EventRow(**{**row, **more})


async def planned(db: Db, events: Sequence[EventRow]) -> None:
    async with db.begin("outbox") as tx:
        await plan_terminal_notices(tx, events)


async def counter_of(db: Db, merchant: Merchant | None = None) -> Counter:
    owner = merchant or await new_merchant(db, KEYRING, "Tea House")
    whose, plate = (owner.id, Mode.SANDBOX), new_id()
    serial = f"SN{new_id().hex[-20:].upper()}"
    async with db.begin("test") as tx:
        await inventory.import_serials(tx, f"serial\n{serial}".encode(), name="b", model="S1")
        found = await inventory.terminal_with_serial(tx, serial)
        await inventory.assign_terminal(tx, found.id, owner, Mode.SANDBOX)
        await inventory.place_terminal(tx, found.id, whose, Place("bar", None, plate), Anywhere())
        code = await give_code(tx, found.id, whose)
    made = await activate(db, KEYRING, serial, code.reveal())
    return Counter(db, owner, made.terminal, plate, made.secret.reveal())


@pytest.fixture
async def counter(module_db: Db) -> Counter:
    return await counter_of(module_db)


@pytest.fixture(scope="module")
async def url(module_db: Db) -> AsyncIterator[str]:
    """Where terminals call, in this process."""
    listening, streams = listen(), Streams(module_db, poll_s=0.01, keepalive_s=0.05)
    async with served(way_in(module_db, streams), listening):
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        streams.close()


async def hear(program: sdk.Terminal, count: int) -> list[int]:
    """The amounts of the next notices, in order; the last is begun and not told to its end."""
    stream = program.notices()
    return await asyncio.to_thread(lambda: [each["amount"] for each in islice(stream, count)])


# --- what is said ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channel", "amount", "currency", "zh", "en"),
    [
        ("wechat_pay", 1250, "CNY", "微信收款 12.50 元", "WeChat Pay received 12.50 yuan"),
        ("alipay", 1, "CNY", "支付宝收款 0.01 元", "Alipay received 0.01 yuan"),
        ("wallet", 100, "JPY", "钱包收款 100 日元", "Wallet received 100 yen"),
        ("some_other", 5, "USD", "收款 0.05 美元", "You received 0.05 US dollars"),
    ],
)
def test_money_is_said_in_both_languages(
    channel: str, amount: int, currency: str, zh: str, en: str
) -> None:
    said = speech_of(channel, Money(amount, currency))

    assert (said.zh, said.en) == (zh, en)


async def test_a_receipt_is_lines_for_any_printer(counter: Counter) -> None:
    await counter.told(1250)

    [notice] = await latest_notices(counter.db, counter.terminal)

    lines = notice.body["print"]
    assert lines[0] == {"kind": "text", "text": "Tea House", "align": "centre", "is_bold": True}
    assert {"kind": "pair", "text": "实收", "right": "12.50 CNY", "is_large": True} in lines
    assert lines[-1] == {"kind": "cut"}
    assert any("非真实交易" in line.get("text", "") for line in lines)


# --- who hears ------------------------------------------------------------------------------------


async def test_each_event_is_told_once_to_whoever_stands_there(counter: Counter) -> None:
    second = await counter_of(counter.db, counter.merchant)
    both = {"plate_id": show("plt", counter.plate), "terminal_id": show("trm", second.terminal.id)}
    events = [paid(counter.merchant.id, 700, both), paid(counter.merchant.id, 800, both)]

    await planned(counter.db, events)
    await planned(counter.db, events)  # an older program may have planned them

    for each in (counter, second):
        told = await latest_notices(each.db, each.terminal)
        assert [notice.body["amount"] for notice in told] == [800, 700]


async def test_nobody_hears_what_is_not_their_merchants(counter: Counter) -> None:
    stranger = await counter_of(counter.db)
    at_it = {
        "plate_id": show("plt", counter.plate),
        "terminal_id": show("trm", counter.terminal.id),
    }
    await planned(
        counter.db,
        [
            paid(stranger.merchant.id, 1, at_it),
            paid(counter.merchant.id, 2, at_it, mode=Mode.LIVE),
            paid(counter.merchant.id, 3, at_it, type="payment.failed"),
            paid(counter.merchant.id, 4, {"plate_id": "plt_x", "terminal_id": "; drop"}),
        ],
    )

    assert await latest_notices(counter.db, counter.terminal) == []


async def test_a_terminal_that_changed_hands_hears_nothing_of_before(
    counter: Counter, url: str
) -> None:
    """Not even when it asks from the first notice on."""
    await counter.told(111, 222)
    db, other = counter.db, await new_merchant(counter.db, KEYRING, "Next")
    async with db.begin("test") as tx:
        back = TerminalState.STOCK
        await inventory.move_terminal(tx, counter.terminal.id, back, because="returned")
        bound = await inventory.assign_terminal(tx, counter.terminal.id, other, Mode.SANDBOX)
        code = await give_code(tx, bound.id, (other.id, Mode.SANDBOX))
    with pytest.raises(Refused) as refused:
        await asyncio.to_thread(counter.program(url).beat)
    made = await activate(db, KEYRING, bound.serial_number, code.reveal())
    counter.terminal, counter.merchant = made.terminal, other
    counter.secret = made.secret.reveal()
    await counter.told(333, key="terminal_id")

    assert refused.value.code == "auth.key_unknown"
    assert await hear(counter.program(url, heard=0), 1) == [333]


# --- how it is heard ------------------------------------------------------------------------------


async def test_what_came_meanwhile_is_heard_first_and_then_what_comes(
    counter: Counter, url: str
) -> None:
    await counter.told(1, 2)
    program = counter.program(url)
    hearing = asyncio.create_task(hear(program, 4))
    await asyncio.sleep(0.1)  # time for nothing to come, and for a comment that says so
    await counter.told(3)
    await counter.told(4)

    assert await hearing == [1, 2, 3, 4]


async def test_what_was_heard_is_told_by_heartbeats_too(counter: Counter, url: str) -> None:
    await counter.told(1, 2, 3)
    before = counter.program(url, heard=2)
    answer = await asyncio.to_thread(before.beat, firmware="2.0", battery=70)

    forgetful = counter.program(url)

    assert answer["status"] == "bound"
    assert await hear(forgetful, 1) == [3]


async def test_a_second_stream_ends_the_first(counter: Counter, url: str) -> None:
    first = asyncio.create_task(asyncio.to_thread(lambda: list(counter.program(url).notices())))
    await asyncio.sleep(0.05)
    second = asyncio.create_task(hear(counter.program(url), 1))

    assert await first == []
    await counter.told(5)
    assert await second == [5]


async def test_a_suspended_terminal_is_told_nothing_and_told_so(counter: Counter, url: str) -> None:
    async with counter.db.begin("test") as tx:
        state = TerminalState.SUSPENDED
        await inventory.move_terminal(tx, counter.terminal.id, state, because="closed")
    await counter.told(5)
    program = counter.program(url)

    assert await asyncio.to_thread(lambda: list(program.notices())) == []
    assert (await asyncio.to_thread(program.beat))["status"] == "suspended"


async def test_a_terminal_learns_its_parameters(counter: Counter, url: str) -> None:
    async with counter.db.begin("test") as tx:
        terminal, quiet = counter.terminal.id, Parameters(volume=1)
        await parameters.set_own_parameters(tx, terminal, quiet, why="night")
    program = counter.program(url)

    wanted = (await asyncio.to_thread(program.beat, parameters_version=0))["parameters_version"]
    told = await asyncio.to_thread(program.parameters)

    assert (wanted, told["version"], told["parameters"]["volume"]) == (1, 1, 1)


@pytest.mark.parametrize("last", ["-1", "1e3", "9" * 19, "x"])
async def test_a_last_event_that_is_no_number_is_refused(
    counter: Counter, url: str, last: str
) -> None:
    program: Any = counter.program(url)
    program.heard = last
    with pytest.raises(Refused) as refused:
        await hear(program, 1)

    assert refused.value.code == "terminal.last_event_malformed"


async def test_a_wrong_signature_hears_nothing(counter: Counter, url: str) -> None:
    stranger = await counter_of(counter.db)
    counter.secret = stranger.secret
    program = counter.program(url)

    for ask in (program.beat, program.parameters, lambda: list(program.notices())):
        with pytest.raises(Refused) as refused:
            await asyncio.to_thread(ask)
        assert refused.value.code == "auth.signature_invalid"


async def test_who_does_not_read_is_let_go_of(counter: Counter) -> None:
    streams = Streams(counter.db, poll_s=0.01, send_s=0.05)
    caller = Caller(counter.terminal.id, counter.merchant.id, Mode.SANDBOX, 1, frozenset())
    await counter.told(*range(1, 30))
    sent: list[bytes] = []

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))
        if len(sent) > 2:
            await asyncio.Event().wait()

    async def receive() -> Any:
        await asyncio.Event().wait()

    async with asyncio.timeout(10):
        await streams.serve(caller, 0, receive, send)

    assert b"id: 20\n" in sent[2]
    assert not any(b"id: 21\n" in each for each in sent[:3])


async def test_notices_are_forgotten_after_a_week(counter: Counter) -> None:
    await counter.told(1)
    [old] = await counter.told(2)
    db = counter.db
    when = db.clock.now() - KEPT * 2
    await db.execute("update terminal_notice set at = $2 where event_id = $1", (old.id, when))

    assert await forget_old(db) == 1
    assert [each.body["amount"] for each in await latest_notices(db, counter.terminal)] == [1]


# --- processes die --------------------------------------------------------------------------------


@contextmanager
def process(dsn: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The way in, in a process of its own."""
    asked = [sys.executable, "-m", "tests.payments.terminal_process", dsn]
    running = subprocess.Popen(asked, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    try:
        yield running, f"http://127.0.0.1:{int(running.stdout.readline())}"
    finally:
        running.kill()
        running.wait()


async def test_nothing_is_lost_or_doubled_across_processes_that_are_killed(
    db: Db, dsn: str
) -> None:
    counter = await counter_of(db)
    amounts = list(range(1, 41))
    await counter.told(*amounts[:25])

    with process(dsn) as (first, one), process(dsn) as (_, other):
        program = counter.program(one)
        heard = await hear(program, 10)
        assert program.heard == 9  # the tenth was begun, and not said to its end
        os.kill(first.pid, signal.SIGKILL)
        await counter.told(*amounts[25:])
        heard = heard[:9] + await hear(counter.program(other, program.heard), 31)

    assert heard == amounts
