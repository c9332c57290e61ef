"""What is known of channels' health: windows, breakers that all processes share, probes."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from msgspec.structs import replace

from tests.payments.routing_desk import CHANNELS, asked_of, by_hand, in_force, router_of, terms
from tests.stage import Stage
from tongbao.infra.db import Db, Write
from tongbao.infra.db_failures import DatabaseUnavailable
from tongbao.kernel.clock import business_date, real_now
from tongbao.kernel.ids import new_id
from tongbao.kernel.money import Money
from tongbao.parties.merchants.merchants import SANDBOX_BOOK
from tongbao.payments.collecting.model import Payment
from tongbao.payments.collecting.payments import create_payment
from tongbao.payments.routing import _store as store
from tongbao.payments.routing.health import CALLS_MIN, PROBES, PROBES_ANSWERED_MIN, REST
from tongbao.payments.routing.model import Candidate, Decision, Gate, Heard, Manner, NoChannelUp
from tongbao.payments.routing.router import decisions_of_payment, shadow_tallies
from tongbao.payments.routing.rule_sets import draw_up
from tongbao.payments.routing.watch import Watch
from tongbao.rails.channels.contract.orders import PayMode

# Health


class Later:
    """Real time that a test may move."""

    def __init__(self) -> None:
        self.by = timedelta()

    def __call__(self) -> datetime:
        return real_now() + self.by


def told(account_id: UUID, outcome: str, after: str = "unknown", purpose: str = "pay") -> Heard:
    return Heard(
        account_id, PayMode.QR, new_id(), SANDBOX_BOOK, purpose, "created", after, outcome, 40
    )


async def gates(db: Db) -> dict[UUID, str]:
    return {
        row["account_id"]: row["gate"]
        for row in await db.fetch("select account_id, gate from routing_breaker", ())
    }


async def test_every_call_reaches_the_window(own_stage: Stage) -> None:
    watch = router_of(own_stage).watch
    own_stage.fault("wechat_pay", "pay", "time_out_unpaid")
    await own_stage.show_qr("wechat_pay")
    paid = await own_stage.paid("wechat_pay")
    await own_stage.refund(paid, 1000)
    await own_stage.idle()

    await watch.write()

    rows = await own_stage.db.fetch(
        "select sum(calls) as calls, sum(lost) as lost, sum(tried) as tried, sum(won) as won"
        " from routing_bucket where account_id = $1 and pay_mode = 'qr'",
        (own_stage.accounts["wechat_pay"],),
    )
    [exchanges] = await own_stage.db.fetch("select count(*) as calls from exchange", ())
    assert rows[0]["calls"] == exchanges["calls"]
    assert (rows[0]["lost"], rows[0]["tried"], rows[0]["won"]) == (1, 2, 1)


async def test_what_was_heard_survives_a_restart_and_is_shared(db: Db) -> None:
    account = new_id()
    first, second = Watch(db), Watch(db)
    for _ in range(30):
        first.hear(told(account, "pending", "pending"))
    await first.close()
    second.hear(told(account, "declined", "declined"))
    await second.write()

    restarted = Watch(db)
    await restarted.know(business_date(db.clock.now()))

    rate = restarted.standings[account].rates["qr/"]
    assert (rate.samples, rate.latency_ms) == (31, 40)
    assert rate.success_ppm == (30 * 1_000_000 + 20 * 950_000) // 51


async def test_cards_have_a_window_for_each_class(own_stage: Stage) -> None:
    stage, attempt_id = own_stage, new_id()
    account = stage.accounts["wechat_pay"]
    asked = asked_of(stage, PayMode.CARD, bin="62284800")
    placed = [Candidate(account, "wechat_pay", 0, 1, 1, 1)]
    decision = Decision(asked, None, "test", Manner.VALUE, placed, (), "unionpay")
    async with stage.db.begin("tests") as tx:
        for write in router_of(stage).writes(decision, attempt_id, tx.now):
            await write.run(tx)
    watch = Watch(stage.db)
    heard = told(account, "declined", "declined")
    watch.hear(replace(heard, attempt_id=attempt_id, pay_mode=PayMode.CARD))

    await watch.write()

    [row] = await stage.db.fetch("select pay_mode, bin_class, tried, won from routing_bucket", ())
    assert tuple(row.values()) == ("card", "unionpay", 1, 0)
    assert list(watch.standings[account].rates) == ["card/unionpay"]
    [kept] = await stage.db.fetch("select to_jsonb(d)::text as all from routing_decision d", ())
    assert '"bin": "62284800"' in kept["all"]


async def test_a_breaker_opens_for_every_process_and_is_probed_by_few(db: Db) -> None:
    account, later = new_id(), Later()
    first, second = Watch(db, later), Watch(db, later)
    for _ in range(CALLS_MIN):
        first.hear(told(account, "unknown"))
    await first.write()

    await second.know(business_date(db.clock.now()))
    assert second.standings[account].gate is Gate.DOWN

    later.by = REST
    await second.read()
    assert second.standings[account].has_probes
    probe = Write(store.TAKE_PROBE, (account,))
    async with db.begin("tests") as tx:
        taken = [await probe.run(tx) for _ in range(PROBES + 1)]
    assert taken == [1] * PROBES + [0]

    first.hear(told(account, "pending", "pending"))
    second.hear(told(account, "pending", "pending"))
    await first.write()
    await second.write()
    assert await gates(db) == {account: "up"}


async def test_one_process_turns_a_breaker(db: Db) -> None:
    """Both judge what both see; the version lets one of them write."""
    account = new_id()
    first, second = Watch(db), Watch(db)
    for _ in range(CALLS_MIN):
        first.hear(told(account, "unknown"))
    await first._add_up(first._heard)
    first._heard.clear()

    await asyncio.gather(first.read(), second.read())

    [row] = await db.fetch("select version, trips from routing_breaker", ())
    assert (row["version"], row["trips"]) == (1, 1)


async def test_asking_about_old_payments_is_no_probe(db: Db) -> None:
    account, later = new_id(), Later()
    watch = Watch(db, later)
    for _ in range(CALLS_MIN):
        watch.hear(told(account, "unknown"))
    await watch.write()
    later.by = REST
    await watch.read()

    for _ in range(5):
        watch.hear(told(account, "succeeded", "succeeded", purpose="query"))
    await watch.write()

    assert await gates(db) == {account: "probing"}


async def test_what_the_database_did_not_take_is_kept_for_the_next_time(
    db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(db)
    watch.hear(told(new_id(), "pending", "pending"))
    with monkeypatch.context() as broken:
        broken.setattr(db, "pool", Gone())
        with pytest.raises(DatabaseUnavailable):
            await watch.write()

    await watch.write()

    assert len(await db.fetch("select 1 from routing_bucket", ())) == 1


async def test_what_a_draft_would_have_done_is_kept_for_the_next_time_too(
    own_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, day = own_stage, business_date(own_stage.db.clock.now())
    async with stage.db.begin("maker") as tx:
        draft = await draw_up(tx, 'name = "a"\nmode = "sandbox"\n', CHANNELS)
    watch = Watch(stage.db)
    watch.count_shadow(draft.id, day, differs=True, cost_less=3)
    with monkeypatch.context() as broken:
        broken.setattr(stage.db, "pool", Gone())
        broken.setattr(stage.db, "_kept", [])
        with pytest.raises(DatabaseUnavailable):
            await watch.write()
    watch.count_shadow(draft.id, day, differs=False, cost_less=0)

    await watch.write()

    tally = (await shadow_tallies(stage.db))[draft.id]
    assert (tally.decided, tally.differed, tally.cost_less) == (2, 1, 3)


async def test_what_is_heard_while_it_writes_is_written_though_nothing_follows(db: Db) -> None:
    """The last calls before a channel falls silent may be those that open its breaker."""
    watch, account = Watch(db), new_id()
    async with db.begin("by hand") as tx:
        await tx.execute("lock table routing_bucket in exclusive mode", ())
        watch.hear(told(account, "unknown"))
        await comes_true(db, WAITING)
        for _ in range(CALLS_MIN):
            watch.hear(told(account, "unknown"))

    await comes_true(db, "select 1 from routing_breaker where gate = 'down'")


WAITING = """
    select 1 from pg_stat_activity
     where datname = current_database() and wait_event_type = 'Lock'"""


async def comes_true(db: Db, question: str) -> None:
    """Return once the question has a row."""
    for _ in range(200):
        if await db.fetch(question, ()):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(question)


class Gone:
    """A pool of connections to a server that is not there."""

    async def acquire(self) -> Any:
        raise OSError

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


async def test_what_is_down_takes_nothing_and_a_probe_finds_it_up(own_stage: Stage) -> None:
    """Declines of customers are many here, and open nothing."""
    stage, later = own_stage, Later()
    watch = router_of(stage).watch = Watch(stage.db, later)
    wechat, alipay = stage.accounts["wechat_pay"], stage.accounts["alipay"]
    await in_force(stage, '[[rule]]\nname = "wechat only"\nto = ["wechat_pay"]\n')
    for _ in range(100):
        watch.hear(told(alipay, "declined", "declined"))
        watch.hear(told(wechat, "unknown"))
    await watch.write()
    assert await gates(stage.db) == {wechat: "down"}

    with pytest.raises(NoChannelUp):
        await collected(stage)

    later.by = REST
    watch.forget()
    probes = 0
    while await gates(stage.db) != {wechat: "up"}:
        try:
            payment = await collected(stage)
        except NoChannelUp:  # no probe: a fifth of them is
            continue
        [why] = await decisions_of_payment(stage.db, payment.book, payment.id)
        assert why.manner is Manner.PROBE
        probes += 1
        await watch.write()
        watch.forget()
    assert probes == PROBES_ANSWERED_MIN


async def collected(stage: Stage) -> Payment:
    """A payment that the router placed, without the waiting that a client would do."""
    asked = asked_of(stage)
    decision = await stage.flow.router.place(asked)
    payment, _ = await create_payment(
        stage.flow, terms(stage, asked, decision), by_hand, asked.payment_id
    )
    return payment


async def test_methods_are_those_that_can_take_it_now(own_stage: Stage) -> None:
    stage = own_stage
    router = router_of(stage)
    await in_force(stage, '[[limit]]\nto = "alipay"\namount_max = 999\n')
    asking = asked_of(stage, money=Money(1000, "CNY"))

    many = await router.methods(asking, [PayMode.QR, PayMode.PAYMENT_CODE])
    fewer = await router.methods(replace(asking, money=Money(999, "CNY")), [PayMode.QR])

    assert {(each.channel, each.pay_mode) for each in many} == {
        ("wechat_pay", PayMode.QR),
        ("wechat_pay", PayMode.PAYMENT_CODE),
    }
    assert {each.channel for each in fewer} == set(CHANNELS)
