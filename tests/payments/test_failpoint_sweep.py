"""The platform dies by SIGKILL at every named place of every flow, and nothing comes of it.

Each case is a life and an afterlife: a process is killed at a failpoint while a merchant's program
drives a flow; another process starts on the same database; the program, run again from its start,
asks the same under the same keys; the clocks go on until nothing is left to do. Then every key has
had one answer, the books are sound, both sides agree about the money, and the merchant has heard of
every end.

A flow names the places it passes; a test records them and compares. Some flows are always swept
whole, but for the rooms that all flows end in, which the first of them sweeps; of the others a few
places, so that each failpoint is met in a minute or two. TONGBAO_CAMPAIGN=1 sweeps all of them
whole; with 2 the second and third passages too, and every process that recovers dies once at the
same place.

What no flow passes dies in a test beside its own room: every name there is must be armed by one.
"""

from __future__ import annotations

import ast
import asyncio
import os
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

import tongbao
from tests.databases import Databases
from tests.payments.crash_scene import (
    AMOUNT,
    Died,
    Place,
    Prepared,
    Scene,
    open_place,
    prepare,
    scene_on,
)
from tongbao.infra import test_clock
from tongbao_sandbox.launch import RunningSandbox
from tongbao_sdk import Refused

CAMPAIGN = int(os.environ.get("TONGBAO_CAMPAIGN", "0"))
PACKAGE = Path(tongbao.__file__).parent
TESTS = Path(__file__).parents[1]
_KILLS = re.compile(r"\b(?:arm|crash_at|dying)\(|SimulatedCrash|kill9")
EXCUSED: dict[str, str] = {
    "ledger.after_horizon": "no flow archives a month; tests/ledger/archive does",
    "ledger.before_month_dropped": "the same; it dies there",
    "ledger.after_take_over": "only who posts first takes the book; tests/ledger dies there",
    "ledger.before_tree_commit": "no flow proves; tests/ledger/proofs dies there",
    "ledger.before_checkpoint_commit": "the same",
    "ledger.before_vouchers_commit": "no flow sums up; tests/ledger/general dies there",
    "ledger.before_day_commit": "no flow closes a day; the same",
    **dict.fromkeys(
        (
            "approvals.before_decision",
            "approvals.before_effect",
            "approvals.before_effect_commit",
            "approvals.after_effect",
            "approvals.before_failure_commit",
        ),
        "no flow needs two people; tests/controls dies there",
    ),
    "blobs.before_keep": "no flow keeps a document; tests/infra/test_blobs dies there",
    "blobs.after_keep": "the same",
    "refunds.before_given_up": "no flow stops a refund; tests/clearing/test_suspense dies there",
    "ledger.after_leg_out": "no flow leaves its book; tests/ledger/movements dies there",
    "ledger.before_leg_in": "the same",
    "ledger.after_leg_in": "the same",
    "ledger.before_account_closed": "the same",
    **dict.fromkeys(
        (
            "authorisations.before_capture",
            "authorisations.after_capture_request",
            "authorisations.before_void",
            "authorisations.after_void_request",
            "authorisations.after_query",
            "authorisations.after_channel_call",
            "authorisations.before_outcome",
            "authorisations.after_outcome",
        ),
        "no flow sets money aside; test_authorisations dies there",
    ),
    **dict.fromkeys(
        (
            "agreements.before_intention",
            "agreements.after_intention",
            "agreements.after_end_request",
            "agreements.after_channel_call",
            "agreements.before_outcome",
            "agreements.after_outcome",
            "agreements.before_own_change",
            "agreements.after_own_change",
        ),
        "no flow signs anything; test_agreements dies there",
    ),
    **dict.fromkeys(
        (
            "combining.before_intention",
            "combining.after_intention",
            "combining.after_channel_call",
            "combining.after_offer",
            "combining.after_query",
            "combining.after_close",
            "combining.before_end",
        ),
        "no flow combines orders; test_combined dies there",
    ),
    **dict.fromkeys(
        (
            "parking.before_intention",
            "parking.after_intention",
            "parking.after_channel_call",
            "parking.before_outcome",
            "parking.after_exit",
            "parking.after_exit_call",
        ),
        "no flow parks; test_parking dies there",
    ),
    **dict.fromkeys(
        (
            "refunds.before_redirection",
            "refunds.after_redirection",
            "refunds.after_redirection_call",
            "refunds.before_redirection_end",
        ),
        "no flow sends a refund on; test_sending_on dies there",
    ),
    **dict.fromkeys(
        (
            "splits.before_receiver",
            "splits.after_receiver",
            "splits.after_receiver_call",
            "splits.before_request",
            "splits.after_request",
            "splits.before_let_go",
            "splits.after_let_go",
            "splits.after_finish_request",
            "splits.after_query",
            "splits.after_channel_call",
            "splits.before_outcome",
            "splits.after_outcome",
            "splits.before_return",
            "splits.after_return",
            "splits.after_return_query",
            "splits.after_return_call",
            "splits.before_return_outcome",
        ),
        "no flow shares anything; test_splits dies there",
    ),
}
"""Failpoints that no flow here passes, and why."""


# The flows


async def ends(scene: Scene, thing: Any, *states: str) -> None:
    """Let everything come to rest, and look how the payment or refund ended."""
    await scene.rest()
    assert (await scene.read(thing))["status"] in states


async def qr(scene: Scene, channel: str, callback: str = "") -> None:
    """A customer scans the merchant's QR and pays; when the callback is lost, the chase sees it."""
    if callback:
        await scene.fault(channel, "callback", callback)
    await scene.from_here()
    payment = await scene.create(channel=channel, mode="qr")
    await scene.customer_pays(payment)
    await ends(scene, payment, "succeeded")


async def code(scene: Scene, channel: str, behaviour: str, *ended: str) -> None:
    """The merchant scans the customer's payment code."""
    digits = await scene.code(channel, behaviour)
    await scene.from_here()
    payment = await scene.create(mode="payment_code", auth_code=digits)
    # A code is sent once: when the call was lost with its process, the order is reversed.
    await ends(scene, payment, *ended, "closed")


async def wallet(scene: Scene, refusals: int = 0) -> None:
    """The customer pays from a wallet of the platform's own; the merchant may be deaf at first."""
    digits = await scene.wallet_code()
    await scene.rest()
    if refusals:
        await scene.merchant_refuses(refusals)
    await scene.from_here()
    payment = await scene.create(mode="payment_code", auth_code=digits)
    await ends(scene, payment, "succeeded")


async def wallet_qr(scene: Scene) -> None:
    """The merchant shows a code of our own, and a wallet's owner confirms it."""
    opened = await scene.ask("wallet", scene.client.wallets.open, holder_name="张三")
    await scene.ask("top_up", scene.client.wallets.top_up, opened["id"], amount=10_000)
    await scene.rest()
    await scene.from_here()
    payment = await scene.create(channel="wallet", mode="qr")
    code = payment["next_action"]["code_url"]
    await scene.ask("confirm", scene.client.wallets.pay, opened["id"], code)
    await ends(scene, payment, "succeeded")
    assert await scene.wallet_balance(opened) == 10_000 - AMOUNT


async def top_up(scene: Scene) -> None:
    """Money is put into a wallet."""
    await scene.from_here()
    opened = await scene.ask("wallet", scene.client.wallets.open, holder_name="张三")
    await scene.ask("top_up", scene.client.wallets.top_up, opened["id"], amount=500)
    await scene.rest()
    assert await scene.wallet_balance(opened) == 500


async def refund(scene: Scene, channel: str, fault: str = "") -> None:
    """The merchant gives some of the money back."""
    payment = await scene.create(channel=channel, mode="qr")
    await scene.customer_pays(payment)
    await ends(scene, payment, "succeeded")
    if fault:
        await scene.fault(channel, "refund", fault)
    await scene.from_here()
    await ends(scene, await scene.refund(payment, 500), "succeeded")


async def wallet_refund(scene: Scene) -> None:
    """The merchant gives all of it back to a wallet."""
    payment = await scene.create(mode="payment_code", auth_code=await scene.wallet_code())
    await ends(scene, payment, "succeeded")
    await scene.from_here()
    await ends(scene, await scene.refund(payment, AMOUNT), "succeeded")


async def close(scene: Scene, channel: str, ended: str = "closed", fault: str = "") -> None:
    """The merchant calls a payment off; the customer may be faster, or pay all the same."""
    payment = await scene.create(channel=channel, mode="qr")
    if fault:
        await scene.fault(channel, "close", fault)
    await scene.from_here()
    try:
        await scene.ask("close", scene.client.payments.close, payment["id"])
    except Refused as refused:
        # Nobody wrote the first request down before the crash, and the customer has paid since.
        assert (refused.code, ended) == ("payment.not_closable", "succeeded")  # noqa: PT017
    await scene.advance(10)
    await ends(scene, payment, ended)
    if ended == "closed":
        after = await scene.read(payment)
        assert after["amount_refunded"] == after["amount_captured"], "what came late went back"


async def expiry(scene: Scene, channel: str) -> None:
    """Nobody pays in time."""
    await scene.from_here()
    payment = await scene.create(channel=channel, mode="qr", expires_in_s=60)
    await ends(scene, payment, "closed")


async def clock_moved(scene: Scene) -> None:
    """Business time is moved on, over the API."""
    offset = await scene.once("offset", partial(test_clock.load_offset, scene.db, allowed=True))
    await scene.from_here()
    await scene.ask("clock", scene.client.test_clock.advance, 3600)
    moved = await test_clock.load_offset(scene.db, allowed=True) - offset
    assert moved == timedelta(hours=1), "once, however often it was asked"


# What they pass


def points(prefix: str, names: str) -> frozenset[str]:
    return frozenset(f"{prefix}.{name}" for name in names.split())


ASKED = points("payments", "before_intention after_intention after_channel_call")
DECIDED = points("payments", "before_outcome after_outcome")
CHASED = points("payments", "after_query")
CLOSED = points("payments", "after_close_request after_query before_outcome after_outcome")
HEARD = points("callbacks", "before_store after_store before_mark")
BOOKED = points(
    "ledger",
    "before_head after_head before_commit after_commit before_projection after_projection",
)
WORKED = points("tasks", "claimed before_done")
TOLD = points("outbox", "before_dispatch_commit dispatched") | WORKED | {"webhooks.sent"}
SHARED = BOOKED | TOLD
"""What money comes to whatever moved it: the book, the outbox, a webhook."""
FROM_WALLET = points("payments", "before_wallet after_wallet")
GIVEN_BACK = points("refunds", "after_channel_call before_outcome after_outcome")
REFUNDED = GIVEN_BACK | points("refunds", "before_request after_request")


class Flow(Struct, frozen=True):
    """What a merchant does, and where the platform passes meanwhile."""

    play: Callable[[Scene], Awaitable[None]]
    passes: frozenset[str]
    is_swept_whole: bool = False


def flow(
    play: Callable[..., Awaitable[None]], *args: Any, passes: frozenset[str], whole: bool = False
) -> Flow:
    return Flow(lambda scene: play(scene, *args), passes, whole)


PAID = ASKED | DECIDED | HEARD | BOOKED | TOLD
FLOWS = {
    "qr by wechat": flow(qr, "wechat_pay", passes=PAID, whole=True),
    "qr by alipay": flow(qr, "alipay", passes=PAID),
    "qr, callback lost": flow(qr, "wechat_pay", "lost:1", passes=PAID | CHASED),
    "code by wechat": flow(code, "wechat_pay", "pay", "succeeded", passes=PAID - HEARD),
    "code by wechat, asked": flow(
        code, "wechat_pay", "ask_then_pay", "succeeded", passes=PAID - HEARD | CHASED
    ),
    "code by wechat, declined": flow(
        code, "wechat_pay", "decline", "failed", passes=PAID - HEARD - BOOKED
    ),
    "code by alipay": flow(code, "alipay", "pay", "succeeded", passes=PAID),
    "code by alipay, asked": flow(
        code, "alipay", "ask_then_pay", "succeeded", passes=PAID | CHASED
    ),
    "code by alipay, reversed": flow(
        code, "alipay", "ask_forever", passes=PAID - HEARD - BOOKED | CHASED
    ),
    "wallet": flow(wallet, passes=FROM_WALLET | BOOKED | TOLD, whole=True),
    "wallet, deaf merchant": flow(wallet, 2, passes=FROM_WALLET | BOOKED | TOLD),
    "wallet scans": flow(
        wallet_qr,
        passes=points("payments", "before_intention after_intention")
        | DECIDED
        | FROM_WALLET
        | BOOKED
        | TOLD,
    ),
    "wallet top-up": flow(
        top_up, passes=points("wallets", "before_top_up after_top_up") | BOOKED | TOLD
    ),
    "refund by wechat": flow(
        refund, "wechat_pay", passes=REFUNDED | HEARD | BOOKED | TOLD, whole=True
    ),
    "refund by alipay": flow(refund, "alipay", passes=REFUNDED | HEARD | BOOKED | TOLD),
    "refund in silence": flow(
        refund,
        "wechat_pay",
        "time_out_not_done",
        passes=REFUNDED | {"refunds.after_query"} | HEARD | BOOKED | TOLD,
    ),
    "refund to a wallet": flow(
        wallet_refund,
        passes=points("refunds", "before_request after_request") | BOOKED | TOLD,
    ),
    "close at wechat": flow(close, "wechat_pay", passes=CLOSED | TOLD),
    "close at alipay": flow(close, "alipay", passes=CLOSED | TOLD),
    "close, paid before": flow(
        close, "wechat_pay", "succeeded", "paid_just_before", passes=CLOSED | HEARD | BOOKED | TOLD
    ),
    "close, paid after": flow(
        close,
        "wechat_pay",
        "closed",
        "late_success:5",
        passes=CLOSED | {"payments.after_late_query"} | GIVEN_BACK | HEARD | BOOKED | TOLD,
        whole=True,
    ),
    "clock moved": flow(clock_moved, passes=points("test_clock", "advanced")),
    "expiry": flow(expiry, "wechat_pay", passes=ASKED | DECIDED | CHASED | TOLD),
}


def cases() -> Iterator[Any]:
    """Yield flow, failpoint and which passage of it kills."""
    whole = {name: flow.passes - SHARED for name, flow in FLOWS.items() if flow.is_swept_whole}
    met = frozenset[str]().union(*whole.values())
    for place, (name, flow) in enumerate(FLOWS.items()):
        for turn, point in enumerate(sorted(flow.passes)):
            swept = CAMPAIGN or point in whole.get(name, ())
            if swept or (place + turn) % 16 == 0 or point not in met:
                met |= {point}
                for passage in (1, 2, 3) if CAMPAIGN > 1 else (1,):
                    yield pytest.param(name, point, passage, id=f"{name}-{point}-{passage}")


# The stage


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, sandbox: RunningSandbox) -> Iterator[Place]:
    with open_place(tmp_path_factory.mktemp("platform"), sandbox) as ready:
        yield ready


@pytest.fixture(scope="module")
async def prepared(
    place: Place, server: Any, databases: Databases, _template: str
) -> AsyncIterator[Prepared]:
    """A database with a shop in it, to be cloned for every scene."""
    async with prepare(place, server.dsn, databases, _template) as ready:
        yield ready


@pytest.fixture
async def scene(place: Place, prepared: Prepared, databases: Databases) -> AsyncIterator[Scene]:
    async with prepared.clone(databases) as dsn, scene_on(place, prepared.shop, dsn) as ready:
        yield ready


# The tests


@pytest.mark.parametrize(("name", "point", "passage"), [*cases()])
async def test_a_kill(scene: Scene, name: str, point: str, passage: int) -> None:
    play = FLOWS[name].play

    await scene.start(f"{point}:kill9:{passage}")
    died = await dies(scene, play)
    assert died or passage > 1, f"{name} never passed {point}"
    while died:
        await scene.leases_run_out()
        await scene.start(f"{point}:kill9" if CAMPAIGN > 1 and scene.lives == 1 else "")
        died = await dies(scene, play)

    await scene.ask_everything_again()
    await scene.assert_all_is_well()
    scene.assert_no_failure_was_logged()


async def dies(scene: Scene, play: Callable[[Scene], Awaitable[None]]) -> bool:
    """Play the flow to its end, or to the process's."""
    try:
        await play(scene)
    except Died:
        assert scene.live.ended() == -signal.SIGKILL
        return True
    return False


@pytest.mark.parametrize("name", FLOWS)
async def test_a_flow_passes_what_it_says(scene: Scene, name: str, tmp_path: Path) -> None:
    passed = tmp_path / "passed"
    await scene.start(f"record:{passed}")

    await FLOWS[name].play(scene)

    # Balances follow a moment after the answer. On a slow machine a task's time comes before the
    # callback, and it asks once more.
    expected = FLOWS[name].passes
    async with asyncio.timeout(30):
        while not expected <= (names := set(passed.read_text().split())):  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.02)
    perhaps = {"payments.after_query", "refunds.after_query", "ledger.after_take_over"}
    assert expected <= names <= expected | perhaps
    await scene.ask_everything_again()
    await scene.assert_all_is_well()
    scene.assert_no_failure_was_logged()


def test_every_failpoint_is_swept_or_excused() -> None:
    names = Counter(failpoints_in_the_code())
    assert [name for name, count in names.items() if count > 1] == [], "a name is one place"
    swept = {case.values[1] for case in cases()}
    assert not swept & EXCUSED.keys()
    assert not EXCUSED.keys() - names.keys(), "they are gone: take them out of the list"
    beside = set(armed_beside(names))
    assert sorted(names.keys() - swept - EXCUSED.keys() - beside) == [], "nobody dies there"


def test_every_failpoint_says_what_a_crash_there_leaves() -> None:
    page = (PACKAGE.parent / "docs/explanation/crashes.md").read_text()
    assert [name for name in failpoints_in_the_code() if f"`{name}`" not in page] == []


def armed_beside(names: Iterable[str]) -> Iterator[str]:
    """Yield the failpoints that other tests arm: named whole, or put together from their parts."""
    for path in TESTS.rglob("test_*.py"):
        text = path.read_text()
        if path == Path(__file__) or not _KILLS.search(text):
            continue
        said = {
            node.value
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        for name in names:
            room, _, place = name.partition(".")
            whole = any(each == name or each.startswith(f"{name}:") for each in said)
            if whole or (f"{room}." in said and place in said):
                yield name


def failpoints_in_the_code() -> Iterator[str]:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if "failpoint(" in text else ():
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "failpoint":
                [argument] = node.args
                name = getattr(argument, "value", None)
                assert isinstance(name, str), f"{path}: a name is a literal"
                yield name
