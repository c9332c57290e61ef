"""A small world of merchants, customers and misbehaving channels, in any order.

After every step money is conserved; when everything has come to rest, the platform and the
channels agree. TONGBAO_CAMPAIGN=20 plays twenty times as many worlds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID, uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from tests.clearing import doings
from tests.clearing.conftest import Day
from tests.clearing.settling import settle_day
from tests.payments.invariants import (
    assert_every_invariant,
    assert_payouts_are_booked,
    assert_the_channels_agree,
)
from tests.stage import Stage, new_number, staged
from tongbao.clearing.disputes.chargebacks import DisputeAsked, move_dispute, open_dispute
from tongbao.clearing.disputes.debts import collect_debts
from tongbao.clearing.disputes.model import (
    Dispute,
    DisputeExceedsLeft,
    DisputeMoved,
    DisputeState,
    Move,
)
from tongbao.infra.db import connect
from tongbao.kernel.clock import Clock, business_date
from tongbao.kernel.money import Money
from tongbao.surfaces.invariants.rounds import run_round
from tongbao.surfaces.invariants.running import INVARIANTS, chosen, run_invariants
from tongbao_sandbox.launch import RunningSandbox
from tongbao_sdk import Refused, Tongbao
from tongbao_sdk.replies import Payment

CAMPAIGN = int(os.environ.get("TONGBAO_CAMPAIGN", "1"))
WORLDS = 4 * CAMPAIGN
STEPS = 25

CHANNELS = st.sampled_from(["wechat_pay", "alipay"])
AMOUNTS = st.sampled_from([1, 99, 1999, 100_000])
T = TypeVar("T")

NEXT_CALLS = (
    *("pay time_out_paid", "pay time_out_unpaid", "pay http_500_paid", "pay bad_signature_paid"),
    *("pay reset", "refund time_out_done", "refund time_out_not_done", "refund http_500_done"),
    *("refund http_500_not_done", "refund bad_signature_done", "refund http_429"),
    "refund not_enough",
)
MISHAPS = (
    *("query http_500", "query time_out", "query stale", "query bad_signature"),
    *("close time_out_done", "close http_500", "close paid_just_before", "close late_success:90"),
    *("callback lost:1", "callback doubled", "callback late:300", "callback forged"),
    *("callback wrong_amount", "callback reordered"),
)


class Worlds:
    """Makes worlds, each on a database of its own, on a loop of its own."""

    def __init__(self, dsn: str, template: str, folder: Path, sandbox: RunningSandbox) -> None:
        self._dsn = dsn
        self._template = template
        self._folder = folder
        self._sandbox = sandbox
        self.runner = asyncio.Runner()

    def run(self, coroutine: Awaitable[T]) -> T:
        async def whole() -> T:
            return await coroutine

        return self.runner.run(whole())

    async def begin(self, stack: AsyncExitStack) -> Stage:
        name = f"test_{uuid4().hex}"
        admin = await asyncpg.connect(self._dsn)
        stack.push_async_callback(admin.close)
        await admin.execute(f"create database {name} template {self._template} strategy file_copy")
        stack.push_async_callback(admin.execute, f"drop database {name} with (force)")
        place = urlunsplit(urlsplit(self._dsn)._replace(path=f"/{name}"))
        db = await connect(place, Clock())
        stack.callback(db.pool.terminate)
        self._sandbox.delete("faults")
        return await stack.enter_async_context(staged(db, self._folder, self._sandbox))


@pytest.fixture(scope="module")
def worlds(
    server: Any,
    _template: str,
    tmp_path_factory: pytest.TempPathFactory,
    sandbox: RunningSandbox,
) -> Iterator[Worlds]:
    made = Worlds(server.dsn, _template, tmp_path_factory.mktemp("platform"), sandbox)
    with made.runner:
        yield made


class World(RuleBasedStateMachine):
    """Two merchants, their customers, two channels and the own wallet."""

    payments: Bundle[Payment] = Bundle("payments")
    disputes: Bundle[Dispute] = Bundle("disputes")
    worlds: Worlds

    def __init__(self) -> None:
        super().__init__()
        self.stack = AsyncExitStack()
        self.stage = self.run(self.worlds.begin(self.stack))
        self.asked: dict[str, Callable[[], Awaitable[Payment]]] = {}
        self.client_of: dict[str, Tongbao] = {}

    def run(self, coroutine: Awaitable[T]) -> T:
        return self.worlds.run(coroutine)

    @initialize(target=payments)
    def open_the_second_shop(self) -> Any:
        """Its merchant takes money that comes after the order's time; the first one does not.

        Each has sold something already, so that there is something to give back and to settle.
        """
        self.patient = self.run(self.stage.patient_shop())
        sold = [
            self.show_a_qr(channel, 1999, is_patient)
            for channel in ("wechat_pay", "alipay")
            for is_patient in (False, True)
        ]
        for payment in sold:
            self.run(self.stage.customer(payment))
        self.run(self.stage.idle())
        rows = [self.run(self.stage.row_of(payment)) for payment in sold]
        self.merchants = {row.merchant_id for row in rows}
        self.receivers: dict[UUID, str] = {}
        self.day = Day(self.stage)
        return multiple(*sold)

    # Merchants

    def _collect(self, ask: Callable[[str], Awaitable[Payment]], client: Tongbao) -> Payment:
        key = new_number()
        payment = self.run(ask(key))
        self.asked[key] = lambda: ask(key)
        self.client_of[payment["id"]] = client
        assert self.run(ask(key))["id"] == payment["id"], "the same key is the same payment"
        return payment

    @rule(target=payments, channel=CHANNELS, amount=AMOUNTS, is_patient=st.booleans())
    def order(self, channel: str, amount: int, is_patient: bool) -> Payment:
        """A customer orders and is shown a QR."""
        return self.show_a_qr(channel, amount, is_patient)

    @rule(target=payments, channel=CHANNELS, amount=AMOUNTS, is_patient=st.booleans())
    def sell(self, channel: str, amount: int, is_patient: bool) -> Payment:
        """A customer orders and pays."""
        payment = self.show_a_qr(channel, amount, is_patient)
        self.customer(payment, "pay")
        return payment

    @rule(target=payments, channel=CHANNELS, is_patient=st.booleans(), by_merchant=st.booleans())
    def pay_too_late(self, channel: str, is_patient: bool, by_merchant: bool) -> Payment:
        """A success comes after the order was called off, or after its time."""
        payment = self.show_a_qr(channel, 1999, is_patient)
        self.customer(payment, "abandon")
        self.meet_with_a_mishap(payment, "close late_success:90")
        if by_merchant:
            self.close(payment)
        self.wait(61)
        return payment

    def show_a_qr(self, channel: str, amount: int, is_patient: bool) -> Payment:
        client = self.patient if is_patient else self.stage.client
        order = new_number()
        return self._collect(
            lambda key: self.stage.show_qr(
                channel,
                amount,
                client=client,
                merchant_order_no=order,
                idempotency_key=key,
                expires_in_s=600,
            ),
            client,
        )

    @rule(
        target=payments,
        channel=CHANNELS,
        amount=AMOUNTS,
        behaviour=st.sampled_from(["pay", "ask", "ask_then_pay", "decline", "cancel"]),
    )
    def scan_a_code(self, channel: str, amount: int, behaviour: str) -> Payment:
        code, order = self.run(self.stage.code(channel, behaviour)), new_number()
        return self._collect(
            lambda key: self.stage.scan_code(
                code, amount, merchant_order_no=order, idempotency_key=key
            ),
            self.stage.client,
        )

    @rule(target=payments, amount=AMOUNTS, balance=st.sampled_from([0, 2000, 200_000]))
    def scan_a_wallet(self, amount: int, balance: int) -> Payment:
        code, order = self.run(self.stage.wallet_code(balance)), new_number()
        return self._collect(
            lambda key: self.stage.scan_code(
                code, amount, merchant_order_no=order, idempotency_key=key
            ),
            self.stage.client,
        )

    @rule(payment=payments)
    def close(self, payment: Payment) -> None:
        client = self.client_of[payment["id"]]
        self._unless_refused(self.stage.call(client.payments.close, payment["id"]))

    @rule(payment=payments, share=st.sampled_from([1, 2, 3]), rivals=st.integers(1, 3))
    def refund(self, payment: Payment, share: int, rivals: int) -> None:
        """Ask for a part, or all, or several times at once."""
        client = self.client_of[payment["id"]]
        amount = max(1, payment["amount"] // share)
        asking = [self.stage.refund(payment, amount, client=client) for _ in range(rivals)]
        self.run(self._all(asking))

    async def _all(self, asking: list[Awaitable[Any]]) -> None:
        for result in await asyncio.gather(*asking, return_exceptions=True):
            if isinstance(result, Exception) and not isinstance(result, Refused):
                raise result

    def _unless_refused(self, asking: Awaitable[Any]) -> None:
        self.run(self._all([asking]))

    # Shares, many payees, returns and adjustments

    @rule(payment=payments, ratio_ppm=st.sampled_from([10_000, 150_000, 300_000]))
    def share(self, payment: Payment, ratio_ppm: int) -> None:
        """A merchant shares a part of a payment with the other one."""
        self.run(self._share(payment, ratio_ppm))

    async def _share(self, payment: Payment, ratio_ppm: int) -> None:
        owner = (await self.stage.row_of(payment)).merchant_id
        client = self.client_of[payment["id"]]
        if owner not in self.receivers:
            [other] = self.merchants - {owner}
            self.receivers[owner] = await doings.bound(self.day, client, other)
        await doings.share(self.day, client, payment, self.receivers[owner], ratio_ppm)

    @rule(fen=st.sampled_from([(100, 1), (1_900, 99), (90_000, 500)]), is_patient=st.booleans())
    def pay_many(self, fen: tuple[int, int], is_patient: bool) -> None:
        """A merchant pays a card and a wallet out of what it is owed, if that covers it."""
        self.run(self._pay_many(self.patient if is_patient else self.stage.client, fen))

    async def _pay_many(self, client: Tongbao, fen: tuple[int, int]) -> None:
        opened = await self.stage.call(client.wallets.open, holder_name="李四")
        await doings.pay_many(self.day, client, str(opened["id"]), fen)

    @rule(which=st.integers(0, 9))
    def send_a_payout_back(self, which: int) -> None:
        """The bank returns one of the payouts that it had paid."""
        paid = self.run(doings.paid_payouts(self.day))
        if paid:
            self.run(doings.send_back(self.day, paid[which % len(paid)]))

    @rule(
        source=st.sampled_from(doings.SOURCES),
        fen=st.sampled_from([1, 777]),
        is_first=st.booleans(),
    )
    def adjust(self, source: str, fen: int, is_first: bool) -> None:
        """Two people give a merchant something."""
        owner = sorted(self.merchants)[is_first]
        self.run(doings.adjust(self.day, source, owner, fen))

    # Customers, bad luck and time

    @rule(payment=payments, action=st.sampled_from(["pay", "decline", "abandon"]))
    def customer(self, payment: Payment, action: str) -> None:
        if payment["method"]["channel"] == "wallet":
            return
        try:
            self.run(self.stage.customer(payment, action))
        except ValueError as refusal:  # there is nothing to pay, or no longer
            assert "Refused" in str(refusal)  # noqa: PT017

    @rule(payment=payments, mishap=st.sampled_from(MISHAPS))
    def meet_with_a_mishap(self, payment: Payment, mishap: str) -> None:
        point, _, name = mishap.partition(" ")
        method = payment["method"]
        if method["channel"] == "wallet":
            return
        if name.startswith("late_success") and method["mode"] != "qr":
            return  # WeChat Pay tells nobody about a payment code, so only the bill would know
        self.run(self.stage.fault_of(payment, point, name))

    @rule(channel=CHANNELS, fault=st.sampled_from(NEXT_CALLS))
    def spoil_the_next_call(self, channel: str, fault: str) -> None:
        point, _, name = fault.partition(" ")
        self.stage.fault(channel, point, name)

    # Schemes

    @rule(
        target=disputes,
        payment=payments,
        share=st.sampled_from([1, 2, 3]),
        fee=st.sampled_from([0, 500]),
        rival=st.booleans(),
    )
    def charge_back(self, payment: Payment, share: int, fee: int, rival: bool) -> Any:
        """A scheme takes a part of a payment back, or all; at times a refund wants it, too."""
        made = self.run(self._charge_back(payment, share, fee, rival=rival))
        return multiple() if made is None else made

    async def _charge_back(
        self, payment: Payment, share: int, fee: int, *, rival: bool
    ) -> Dispute | None:
        flow, row = self.stage.flow, await self.stage.row_of(payment)
        if row.state != "succeeded" or row.channel == "wallet":
            return None
        money = Money(max(1, row.captured // share), row.currency)
        what = DisputeAsked(
            "visa", new_number(), "10.4", "", money, DisputeState.CHARGEBACK, fee=fee
        )
        asking: list[Awaitable[Any]] = [open_dispute(flow, row, what, actor="scheme", why="")]
        if rival:
            client = self.client_of[payment["id"]]
            asking.append(self.stage.refund(payment, money.amount, client=client))
        first, *_ = results = await asyncio.gather(*asking, return_exceptions=True)
        for each in results:
            if isinstance(each, BaseException) and not isinstance(
                each, Refused | DisputeExceedsLeft
            ):
                raise each
        return first if isinstance(first, Dispute) else None

    @rule(dispute=disputes, move=st.sampled_from(Move))
    def move_a_dispute(self, dispute: Dispute, move: Move) -> None:
        """Somebody takes a step, wherever the dispute stands."""
        with contextlib.suppress(DisputeMoved, DisputeExceedsLeft):
            self.run(move_dispute(self.stage.flow, dispute, move, actor="scheme", why=str(move)))

    @rule()
    def collect_what_is_owed(self) -> None:
        self.run(collect_debts(self.stage.flow))

    @rule(seconds=st.sampled_from([0, 3, 31, 61, 700]))
    def wait(self, seconds: int) -> None:
        self.run(self.stage.advance(seconds=seconds) if seconds else self.stage.idle())

    @rule()
    def settle_the_day(self) -> None:
        """A night passes; what the merchants are owed is paid out, and refunds may lack it."""
        self.run(self._settle())

    async def _settle(self) -> None:
        await self.stage.advance(days=1)
        yesterday = business_date(self.stage.db.clock.now()) - timedelta(days=1)
        await settle_day(self.stage.platform.clearing, yesterday)
        await self.stage.advance(minutes=5)

    @rule(data=st.data())
    def ask_again_with_an_old_key(self, data: st.DataObject) -> None:
        if self.asked:
            key = data.draw(st.sampled_from(sorted(self.asked)), "key")
            self.run(self.asked[key]())

    # What must hold

    @invariant()
    def money_is_conserved(self) -> None:
        self.run(assert_every_invariant(self.stage))

    def teardown(self) -> None:
        try:
            self.run(self._come_to_rest())
        finally:
            self.run(self.stack.aclose())

    async def _come_to_rest(self) -> None:
        self.stage.sandbox.delete("faults")
        for hours in (1, 1, 1, 1, 24, 1):  # payouts leave at noon
            await self.stage.advance(hours=hours)
        await assert_every_invariant(self.stage)
        await assert_the_channels_agree(self.stage)
        await assert_payouts_are_booked(self.stage.db)
        db, licence = self.stage.db, self.stage.flow.licence
        await run_round(db, licence)
        held = await run_invariants(db, licence, chosen((), licence))
        assert [each for each in held if each.breaches] == []
        assert len(held) == len(INVARIANTS)


def test_money_is_conserved_whatever_happens(worlds: Worlds) -> None:
    World.worlds = worlds
    run_state_machine_as_test(
        World,
        settings=settings(
            max_examples=WORLDS,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
