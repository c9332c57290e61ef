"""Money set aside, captured, voided, forgotten and given back at an issuer that is often silent.

After every step money is conserved; when everything has come to rest, nothing is set aside any
more, and the platform and the issuer agree. TONGBAO_CAMPAIGN=20 plays twenty times as many worlds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.payments.invariants import assert_money_is_conserved
from tests.payments.issuer import Issuer
from tests.payments.test_authorisations import capture, set_aside, void
from tests.payments.test_machine import CAMPAIGN, Worlds
from tests.stage import new_number
from tongbao.kernel.ids import base32
from tongbao_sandbox.launch import RunningSandbox
from tongbao_sdk import Refused
from tongbao_sdk.replies import Payment

T = TypeVar("T")
CALLS = ("authorise", "query_authorisation", "capture", "query_capture", "void", "close")
FAULTS = {
    "authorise": ("done", "not done", "decline", "refused", "pending"),
    "query_authorisation": ("silence",),
    "capture": ("done", "not done", "decline", "refused", "pending"),
    "query_capture": ("silence",),
    "void": ("done", "not done", "decline", "refused", "pending"),
    "close": ("silence",),
}
BAD_LUCK = st.sampled_from([(call, fault) for call, faults in FAULTS.items() for fault in faults])
_ROWS = """
    select p.*, a.id as attempt_id, a.capture_id
      from payment p join attempt a on a.payment_id = p.id"""
_GIVEN_BACK = "select id, amount from refund where state = 'succeeded'"


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


class Authorisations(RuleBasedStateMachine):
    """One merchant who captures later, and an issuer."""

    payments: Bundle[Payment] = Bundle("payments")
    worlds: Worlds

    def __init__(self) -> None:
        super().__init__()
        self.stack = AsyncExitStack()
        self.stage = self.run(self.worlds.begin(self.stack))
        self.issuer = Issuer(self.stage.db.clock)
        channels: Any = self.stage.flow.channels
        channels["wechat_pay"] = self.issuer

    def run(self, coroutine: Awaitable[T]) -> T:
        return self.worlds.run(coroutine)

    async def _unless_refused(self, *asking: Awaitable[Any]) -> None:
        for result in await asyncio.gather(*asking, return_exceptions=True):
            if isinstance(result, Exception) and not isinstance(result, Refused):
                raise result

    @rule(target=payments)
    def reserve(self) -> Payment:
        key, order = new_number(), new_number()
        asking = {"merchant_order_no": order, "idempotency_key": key}
        payment = self.run(set_aside(self.stage, **asking))
        assert self.run(set_aside(self.stage, **asking))["id"] == payment["id"]
        return payment

    @rule(payment=payments, amount=st.sampled_from([None, 1, 1500, 1999]), rivals=st.integers(1, 3))
    def capture_some(self, payment: Payment, amount: int | None, rivals: int) -> None:
        key = new_number()
        asking = [capture(self.stage, payment, amount) for _ in range(rivals)]
        twice = [capture(self.stage, payment, amount, idempotency_key=key) for _ in range(2)]
        self.run(self._unless_refused(*asking, *twice))

    @rule(payment=payments, against=st.booleans())
    def let_go(self, payment: Payment, against: bool) -> None:
        """Void it, and perhaps capture it at the same moment."""
        asking = [void(self.stage, payment)]
        if against:
            asking.append(capture(self.stage, payment))
        self.run(self._unless_refused(*asking))

    @rule(payment=payments)
    def call_off(self, payment: Payment) -> None:
        self.run(self._unless_refused(self.stage.close(payment)))

    @rule(payment=payments, amount=st.sampled_from([1, 700, 1999]))
    def give_back(self, payment: Payment, amount: int) -> None:
        self.run(self._unless_refused(self.stage.refund(payment, amount)))

    @rule(luck=BAD_LUCK, times=st.integers(1, 3))
    def spoil(self, luck: tuple[str, str], times: int) -> None:
        call, fault = luck
        self.issuer.faults.setdefault(call, []).extend([fault] * times)

    @rule(seconds=st.sampled_from([0, 3, 31, 61, 700, 7200]))
    def wait(self, seconds: int) -> None:
        self.run(self.stage.advance(seconds=seconds) if seconds else self.stage.idle())

    @invariant()
    def money_is_conserved(self) -> None:
        self.run(assert_money_is_conserved(self.stage.db))

    def teardown(self) -> None:
        try:
            self.run(self._come_to_rest())
        finally:
            self.run(self.stack.aclose())

    async def _come_to_rest(self) -> None:
        self.issuer.faults = {}
        for hours in (1, 1, 1, 2, 2):
            await self.stage.advance(hours=hours)
        await assert_money_is_conserved(self.stage.db)
        await self._the_issuer_agrees()

    async def _the_issuer_agrees(self) -> None:
        for row in await self.stage.db.fetch(_ROWS, ()):
            where = f"{row['id']} is {row['state']}"
            assert row["ended_at"] is not None, where
            held = self.issuer.held.get(base32(row["attempt_id"]))
            if held is None:
                assert row["authorised"] == 0, where
                continue
            taken = 0 if held.taken is None else held.taken.amount
            assert row["captured"] == taken, where
            assert held.is_void == (taken == 0), f"{where}, and money is still set aside"
            if taken:
                assert held.taken_as == base32(row["capture_id"]), where
        given = await self.stage.db.fetch(_GIVEN_BACK, ())
        assert {base32(row["id"]): row["amount"] for row in given} == {
            number: refund.money.amount for number, refund in self.issuer.refunds.items()
        }


def test_nothing_set_aside_is_lost_or_taken_twice(worlds: Worlds) -> None:
    Authorisations.worlds = worlds
    run_state_machine_as_test(
        Authorisations,
        settings=settings(
            max_examples=4 * CAMPAIGN,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
