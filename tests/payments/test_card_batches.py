"""Batches of cards: what both sides came to is compared every night, for no bill ever comes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import count
from typing import Any
from uuid import UUID

import pytest

from tests.payments.test_cards import fresh_card
from tests.rails.test_cards_sandbox import order_with
from tests.stage import Stage, new_number
from tests.two_people import close_difference
from tongbao.clearing.batches import batches
from tongbao.clearing.batches.batches import (
    CloseBatches,
    CompareBatch,
    TotalsNotOffered,
    close_batch,
    latest_batches,
    run_close_batches,
    run_compare_batch,
)
from tongbao.clearing.batches.model import LOOK_AGAIN, WAITS_FOR_OPEN, Batch, BatchState
from tongbao.clearing.context import Clearing
from tongbao.clearing.reconciliation import days
from tongbao.clearing.reconciliation.model import ChannelUnbilled, ReconBreak
from tongbao.clearing.reconciliation.queries import BreakFilter, break_with_id, list_breaks
from tongbao.infra.failpoints import SimulatedCrash, arm
from tongbao.kernel.clock import business_date
from tongbao.kernel.licence import Mode
from tongbao.parties.merchants.merchants import connect_channel
from tongbao.parties.price_plans.model import PriceLine
from tongbao.parties.price_plans.plans import set_price_plan
from tongbao.rails.channels.accounts import NewAccount
from tongbao.rails.channels.cards.client import Cards
from tongbao.rails.channels.cards.line import LineLimits
from tongbao.rails.channels.contract.bills import BatchTotals, ComparingTotals, Unbilled
from tongbao.surfaces.demo.stage import open_accounts
from tongbao.wiring import SECRETS
from tongbao_sdk.replies import Payment

MERCHANTS = count(898_110_000_000_101)


@pytest.fixture(scope="module", autouse=True)
async def impatient(module_stage: Stage) -> AsyncIterator[None]:
    """A channel that does not wait long, and a price."""
    channels: Any = module_stage.flow.channels
    kept, channels["cards"] = channels["cards"], Cards(LineLimits(answer_s=1.5))
    async with module_stage.db.begin("operator") as tx:
        merchant = module_stage.shop.merchant.id
        await set_price_plan(tx, merchant, Mode.SANDBOX, [PriceLine("cards", "card", 6_000)])
    yield
    await channels["cards"].shut()
    channels["cards"] = kept


@pytest.fixture
async def account(stage: Stage) -> UUID:
    """An account of a merchant number of its own, whose batch nobody else's trades are in."""
    given = stage.sandbox.credentials["cards"]
    order = NewAccount(
        channel="cards",
        mode=Mode.SANDBOX,
        gateway=stage.sandbox.hosts["cards"],
        merchant_number=str(next(MERCHANTS)),
        app_id=given["terminal"],
        fee_ppm=4_000,
        keys={name: given[name] for name in ("master_key", "institution", "switch")},
    )
    opened = await open_accounts(stage.db, stage.platform.keyring, SECRETS, [order])
    async with stage.db.begin("operator") as tx:
        merchant = stage.shop.merchant.id
        await connect_channel(tx, merchant, Mode.SANDBOX, "cards", opened["cards"])
    return opened["cards"]


async def swipe(stage: Stage, account: UUID, amount: int, **more: Any) -> Payment:
    ours = await stage.flow.account(account)
    card = {
        "number": fresh_card(),
        "expiry": "4912",
        "entry": "051",
        "terminal": ours.app_id,
        "merchant": ours.merchant_number,
    }
    return await stage.call(
        stage.client.payments.create,
        merchant_order_no=new_number(),
        subject="tea",
        amount=amount,
        method={"mode": "card", "channel": "cards", "card": card},
        **more,
    )


def clearing(stage: Stage) -> Clearing:
    return stage.platform.clearing


def figures(batch: Batch) -> tuple[str, BatchTotals, int | None]:
    return batch.state.value, batch.ours, batch.their_net


async def differences(stage: Stage, account: UUID) -> list[ReconBreak]:
    page = await list_breaks(stage.db, BreakFilter(account_id=account), limit=10)
    return list(page.items)


async def test_both_sides_agree_and_the_next_batch_begins_where_this_one_ended(
    stage: Stage, account: UUID
) -> None:
    payment = await swipe(stage, account, 1_000)
    await swipe(stage, account, 2_500)
    await stage.refund(payment, 300)
    await stage.idle()

    first = await close_batch(clearing(stage), account)
    await swipe(stage, account, 700)
    second = await close_batch(clearing(stage), account)
    third = await close_batch(clearing(stage), account)

    assert figures(first) == ("agrees", BatchTotals(2, 3_500, 1, 300), 3_200)
    assert figures(second) == ("agrees", BatchTotals(1, 700, 0, 0), 700)
    assert figures(third) == ("agrees", BatchTotals(0, 0, 0, 0), 0)
    assert (second.begins, third.begins) == (first.ends, second.ends)
    assert await differences(stage, account) == []


async def test_only_what_was_taken_counts_whichever_way_it_was(stage: Stage, account: UUID) -> None:
    """A part of what was set aside counts; what was let go, refused or reversed does not."""
    aside = {"capture": "manual", "capture_within_s": 7200}
    completed, let_go = [await swipe(stage, account, 2_000, **aside) for _ in range(2)]
    await swipe(stage, account, 3_000, **aside)  # nobody has decided about it yet
    await stage.call(stage.client.payments.capture, completed["id"], amount=600)
    await stage.call(stage.client.payments.void, let_go["id"])
    stage.sandbox.fault("cards", "pay", "time_out_paid")
    reversed_one = await swipe(stage, account, 4_000)
    await stage.advance(seconds=120)
    await stage.refund(await stage.read(completed), 100)
    await stage.idle()

    batch = await close_batch(clearing(stage), account)

    assert (await stage.read(let_go))["status"] == "voided"
    assert (await stage.read(reversed_one))["status"] == "closed"
    assert figures(batch) == ("agrees", BatchTotals(1, 600, 1, 100), 500)
    assert await differences(stage, account) == []


async def test_a_trade_that_only_the_host_has_is_a_difference_that_two_people_close(
    stage: Stage, account: UUID
) -> None:
    await swipe(stage, account, 1_000)
    ours = await stage.flow.account(account)
    await stage.flow.channels["cards"].pay(ours, order_with(fresh_card(), 4_200))

    batch = await close_batch(clearing(stage), account)
    [found] = await differences(stage, account)
    await close_difference(stage.db, found.id, "a trade made beside the platform")
    closed = await break_with_id(stage.db, found.id)

    assert figures(batch) == ("differs", BatchTotals(1, 1_000, 0, 0), 5_200)
    assert (found.break_class, found.bill_id) == ("totals_differ", batch.id)
    assert (found.bill_amount, found.platform_amount, found.difference) == (5_200, 1_000, 4_200)
    assert found.day == business_date(batch.ends)
    assert closed.state == "closed"
    assert figures(await close_batch(clearing(stage), account))[0] == "agrees"


@pytest.mark.parametrize("fault", ["time_out_done", "time_out_not_done", "bad_signature_done"])
async def test_a_question_without_an_answer_is_asked_again_and_is_the_same(
    stage: Stage, account: UUID, fault: str
) -> None:
    await swipe(stage, account, 1_000)
    stage.sandbox.fault("cards", "totals", fault)

    asked = await close_batch(clearing(stage), account)
    await swipe(stage, account, 50)
    answered = await close_batch(clearing(stage), account)

    assert (asked.state, asked.tries) == (BatchState.ASKED, 1)
    assert asked.last_answer
    assert (answered.id, answered.ends) == (asked.id, asked.ends)
    if fault.endswith("_not_done"):
        # The host closes its batch when it hears the question, so what came meanwhile is in it.
        assert figures(answered) == ("differs", BatchTotals(1, 1_000, 0, 0), 1_050)
    else:
        assert figures(answered) == ("agrees", BatchTotals(1, 1_000, 0, 0), 1_000)


@pytest.mark.parametrize("point", ["before_question", "after_question", "after_answer"])
async def test_who_dies_on_the_way_is_followed_by_one_who_asks_the_same(
    stage: Stage, account: UUID, point: str
) -> None:
    await swipe(stage, account, 1_000)
    arm(f"batches.{point}:raise")
    with pytest.raises(SimulatedCrash):
        await close_batch(clearing(stage), account)
    arm(None)

    found = await close_batch(clearing(stage), account)
    made = [each for each in await latest_batches(stage.db) if each.account_id == account]

    assert {each.state for each in made} == {"agrees"}
    assert sum(each.debit_amount for each in made) == 1_000
    assert len(made) == (2 if point == "after_answer" else 1)
    assert made[0] == found


async def test_figures_the_message_cannot_hold_are_for_people(
    stage: Stage, account: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    await swipe(stage, account, 1_000)
    monkeypatch.setattr(stage.flow.channels["cards"], "totals_fit", lambda totals: False)

    batch = await close_batch(clearing(stage), account)
    [found] = await differences(stage, account)

    assert (batch.state, batch.answered_at) == (BatchState.TOO_LARGE, None)
    assert (found.bill_amount, found.platform_amount, found.difference) == (None, 1_000, 0)


async def test_the_daily_round_asks_for_every_account_and_waits_for_what_is_open(
    stage: Stage, account: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    async def noted(_tx: Any, tasks: Any) -> None:
        asked.extend(tasks)

    monkeypatch.setattr(batches, "enqueue_many", noted)
    again = await run_close_batches(clearing(stage), CloseBatches(), None)
    task = next(task for task, _, _ in asked if task.account_id == account)

    stage.sandbox.fault("cards", "pay", "time_out_unpaid")
    payment = await swipe(stage, account, 1_000)
    waits = await run_compare_batch(clearing(stage), task, None)
    late = CompareBatch(account, stage.db.clock.now() - WAITS_FOR_OPEN)
    at_last = await run_compare_batch(clearing(stage), late, None)

    assert timedelta(0) < again.after <= timedelta(days=1)
    assert payment["status"] == "unknown"
    assert waits is not None
    assert waits.after == LOOK_AGAIN[1]
    assert at_last is None
    [made] = [each for each in await latest_batches(stage.db) if each.account_id == account]
    assert made.state == BatchState.AGREES
    await stage.advance(seconds=120)


async def test_nobody_waits_for_a_bill_of_cards(stage: Stage, account: UUID) -> None:
    channel = stage.flow.channels["cards"]
    yesterday = business_date(stage.db.clock.now()) - timedelta(days=1)

    assert isinstance(channel, Unbilled)
    assert isinstance(channel, ComparingTotals)
    assert account not in await days.billed_accounts(clearing(stage))
    with pytest.raises(ChannelUnbilled):
        await days.reconcile_day(clearing(stage), account, yesterday)
    old = days.ReconcileDay(account, yesterday)
    assert await days.run_reconcile_day(clearing(stage), old, None) is None
    with pytest.raises(TotalsNotOffered):
        await close_batch(clearing(stage), stage.accounts["alipay"])
