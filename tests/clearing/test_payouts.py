"""What was settled is paid out once, and only the bank's own word ends a payout."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from tests.clearing.conftest import Day
from tests.clearing.settling import settle_day
from tongbao.clearing.payouts import queries
from tongbao.clearing.payouts.model import (
    Payout,
    PayoutContended,
    PayoutState,
    Returned,
    next_payout_step,
)
from tongbao.clearing.payouts.payouts import pay, pay_out
from tongbao.clearing.settlement.queries import settlement_with_id
from tongbao.clearing.settlement_terms.model import PaysBy
from tongbao.infra import failpoints
from tongbao.infra.crypto import bind
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.parties.merchants.model import masked
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Declined,
    NotSent,
    Pending,
    Succeeded,
    Unknown,
)

GOOD = "6222020200112233445"


async def settled(day: Day, number: str = GOOD, amount: int = 10_000) -> tuple[Any, Payout]:
    """A shop with this bank account, settled, and its payout, which waits for noon."""
    shop = await day.stage.open_shop(bank_number=number)
    client = day.stage.client_of(shop)
    await day.paid("wechat_pay", amount, client=client)
    await day.until(11, 30, days=1)
    [settlement] = await settle_day(
        day.clearing, day.date, merchant_id=shop.merchant.id, mode=Mode.SANDBOX
    )
    assert settlement.payout_id is not None
    return client, await queries.payout_with_id(day.db, settlement.payout_id)


async def now(day: Day, payout: Payout) -> Payout:
    return await queries.payout_with_id(day.db, payout.id)


async def at_bank(day: Day, payout: Payout) -> list[str]:
    """The states of the payments that the bank holds under the payout's number."""
    held = await asyncio.to_thread(day.sandbox.get, f"bank/payments/{payout.number}")
    return [report["status"] for report in held["reports"]]


async def state_of(day: Day, payout: Payout) -> str:
    return (await settlement_with_id(day.db, payout.settlement_id)).state


async def test_a_settlement_is_paid_out_at_noon_and_the_merchant_is_told(day: Day) -> None:
    client, payout = await settled(day)
    assert (payout.state, payout.amount) == ("requested", 10_000 - 80)
    assert await day.booked("settlement_due", payout.merchant_id) == payout.amount

    await day.until(12, days=1)
    await day.stage.advance(minutes=1)

    paid = await now(day, payout)
    assert paid.state == "succeeded"
    assert paid.bank_ref
    assert await at_bank(day, payout) == ["ACSC"]
    assert await day.booked("settlement_due", payout.merchant_id) == 0
    assert await day.booked("bank") == -payout.amount
    assert await state_of(day, payout) == "paid"
    [shown] = await day.stage.call(lambda: list(client.payouts.list()))
    assert (shown["status"], shown["bank_account"]) == ("succeeded", f"•••• {GOOD[-4:]}")
    assert GOOD not in str(shown)
    assert await day.stage.events(shown) == ["payout.succeeded"]
    await day.sound()


async def test_a_refused_payout_is_owed_again_and_settled_anew(day: Day) -> None:
    client, payout = await settled(day, "6222020200112230001")

    await day.until(12, days=1)
    await day.stage.advance(minutes=1)

    failed = await now(day, payout)
    assert (failed.state, failed.code) == ("failed", "AC03")
    assert await day.booked("settlement_due", payout.merchant_id) == 0
    assert await day.booked("merchant_payable", payout.merchant_id) == payout.amount
    assert await state_of(day, payout) == "unpaid"
    [shown] = await day.stage.call(lambda: list(client.payouts.list()))
    assert (shown["status"], shown["failure_code"]) == ("failed", "AC03")
    assert await day.stage.events(shown) == ["payout.failed"]

    await day.until(11, days=3)
    [anew] = await settle_day(
        day.clearing,
        day.date + timedelta(days=1),
        merchant_id=payout.merchant_id,
        mode=Mode.SANDBOX,
    )
    assert (anew.other, anew.payable) == (payout.amount, payout.amount)
    await day.sound()


async def test_a_payout_whose_answer_never_came_is_asked_about_and_paid_once(day: Day) -> None:
    _, payout = await settled(day, "6222020200112230003")
    await day.until(12, days=1)
    unknown = await now(day, payout)
    assert unknown.state in {"unknown", "pending", "succeeded"}
    [first, *_] = await queries.exchanges_of_payout(day.db, payout)
    assert (first.purpose, first.outcome) == ("pay_out", "unknown")

    await day.stage.advance(minutes=2)

    paid = await now(day, payout)
    assert (paid.state, paid.sends) == ("succeeded", 1)
    assert await day.booked("bank") == -payout.amount
    await day.sound()


async def test_a_pending_payout_waits_for_the_bank_however_long(day: Day) -> None:
    _, payout = await settled(day, "6222020200112230002")
    await day.until(12, days=1)
    for _ in range(3):
        await day.stage.advance(hours=5)
    assert (await now(day, payout)).state == "pending"
    assert await day.booked("settlement_due", payout.merchant_id) == payout.amount

    await day.stage.control(f"bank/payments/{payout.number}", action="settle")
    await day.stage.advance(hours=2)

    assert (await now(day, payout)).state == "succeeded"
    await day.sound()


async def test_a_payout_that_is_sent_back_instead_of_settled_is_owed_again(day: Day) -> None:
    _, payout = await settled(day, "6222020200112230004")
    await day.until(12, days=1)
    await day.stage.advance(minutes=5)

    failed = await now(day, payout)
    assert (failed.state, failed.code) == ("failed", "AC04")
    assert await day.booked("merchant_payable", payout.merchant_id) == payout.amount
    assert await day.booked("bank") == 0
    await day.sound()


async def test_a_payout_that_the_bank_lost_is_instructed_again_under_its_number(day: Day) -> None:
    _, payout = await settled(day, "6222020200112230005")
    await day.until(12, days=1)
    for _ in range(3):
        await day.stage.advance(minutes=5)

    paid = await now(day, payout)
    assert (paid.state, paid.sends) == ("succeeded", 2)
    assert await at_bank(day, payout) == ["ACSC"]
    await day.sound()


@pytest.mark.parametrize(
    "place",
    [
        "payouts.before_call",
        "payouts.after_call",
        "payouts.before_outcome",
        "payouts.after_outcome",
        "payouts.after_query",
    ],
)
@pytest.mark.parametrize("number", [GOOD, "6222020200112230001", "6222020200112230003"])
async def test_whoever_dies_on_the_way_pays_no_second_time(
    day: Day, place: str, number: str
) -> None:
    _, payout = await settled(day, number)
    failpoints.arm(f"{place}:raise")
    for _ in range(2):  # the second try asks first, and may die there
        try:
            await pay_out(day.clearing, merchant_id=payout.merchant_id)
        except SimulatedCrash:
            break
    failpoints.arm(None)

    await day.until(12, days=1)
    await day.stage.advance(minutes=5)

    ended = await now(day, payout)
    expected = "failed" if number.endswith("0001") else "succeeded"
    assert ended.state == expected
    assert len(await at_bank(day, payout)) == 1
    assert await day.booked("bank") == (-payout.amount if expected == "succeeded" else 0)
    assert await day.booked("settlement_due", payout.merchant_id) == 0
    await day.sound()


async def test_two_who_pay_at_once_pay_once(day: Day) -> None:
    _, payout = await settled(day)

    outcomes = await asyncio.gather(
        *(pay(day.clearing, payout) for _ in range(4)), return_exceptions=True
    )

    wrong = [
        each
        for each in outcomes
        if isinstance(each, BaseException) and not isinstance(each, PayoutContended)
    ]
    assert wrong == []
    await day.until(12, days=1)
    await day.stage.advance(minutes=5)
    assert (await now(day, payout)).state == "succeeded"
    assert await at_bank(day, payout) == ["ACSC"]
    assert await day.booked("bank") == -payout.amount
    await day.sound()


async def test_a_merchant_without_a_bank_account_is_paid_when_it_has_one(day: Day) -> None:
    _, payout = await settled(day)
    await day.db.execute(
        "update merchant set bank_holder = null, bank_account_masked = null,"
        " bank_account_sealed = null where id = $1",
        (payout.merchant_id,),
    )
    await day.until(13, 30, days=1)
    assert (await now(day, payout)).account_id is None
    await give_account(day, payout, GOOD)

    await day.stage.advance(hours=2)
    await day.stage.advance(minutes=2)

    assert (await now(day, payout)).state == "succeeded"


async def give_account(day: Day, payout: Payout, number: str) -> None:
    """Give the merchant a bank account, as onboarding would."""
    keyring = day.clearing.keyring
    place = bind("merchant", "bank_account_sealed", payout.merchant_id)
    sealed = keyring.seal("merchant.bank_account", number.encode(), place)
    await day.db.execute(
        "update merchant set bank_holder = 'x', bank_account_masked = $2,"
        " bank_account_sealed = $3 where id = $1",
        (payout.merchant_id, masked(number), sealed),
    )


async def test_the_creditor_is_fixed_by_the_first_instruction(day: Day) -> None:
    _, payout = await settled(day, "6222020200112230003")
    await pay_out(day.clearing, merchant_id=payout.merchant_id)
    await give_account(day, payout, "6222020200112230001")

    await day.until(12, days=1)
    await day.stage.advance(minutes=5)

    paid = await now(day, payout)
    assert (paid.state, paid.bank_account_masked) == ("succeeded", "•••• 0003")


async def test_no_account_number_reaches_the_evidence(day: Day) -> None:
    _, payout = await settled(day)
    await day.until(12, days=1)
    await day.stage.advance(minutes=1)

    for row in await day.db.fetch("select * from payout_exchange", ()):
        assert GOOD not in str(row)
    assert "sealed" not in repr(await now(day, payout))


# What the bank's word does, without a bank


def payout_in(state: PayoutState) -> Payout:
    return Payout(
        book=2,
        id=new_id(),
        settlement_id=new_id(),
        merchant_id=new_id(),
        mode=Mode.SANDBOX,
        amount=100,
        currency="CNY",
        state=state,
        pays_by=PaysBy.BANK_API,
        file_id=None,
        account_id=None,
        bank_holder=None,
        bank_account_masked=None,
        bank_account_sealed=None,
        code=None,
        bank_ref=None,
        return_ref=None,
        contradiction=None,
        sends=1,
        queries=0,
        version=1,
        created_at=real_now(),
        ended_at=None,
        returned_at=None,
    )


PAID = Succeeded("ref", Money(100, "CNY"), real_now())
BACK = Returned("R1", Money(100, "CNY"), real_now(), "AC04")


@pytest.mark.parametrize(
    ("state", "news", "becomes", "rule"),
    [
        ("requested", PAID, "succeeded", "payout.paid"),
        ("pending", PAID, "succeeded", "payout.paid"),
        ("unknown", PAID, "succeeded", "payout.paid"),
        ("requested", Declined("AC03"), "failed", "payout.failed"),
        ("unknown", Declined("AC03"), "failed", "payout.failed"),
        ("requested", Pending(), "pending", None),
        ("unknown", Pending(), "pending", None),
        ("requested", Unknown("reset"), "unknown", None),
        ("succeeded", BACK, "returned", "payout.returned"),
    ],
)
def test_news_moves_a_payout(state: str, news: Any, becomes: str, rule: str | None) -> None:
    step = next_payout_step(payout_in(PayoutState(state)), news, real_now())
    assert step is not None
    assert (step.payout.state, step.rule) == (becomes, rule)


@pytest.mark.parametrize("state", list(PayoutState))
@pytest.mark.parametrize("news", [NotSent("no"), Absent("404")])
def test_what_did_not_leave_and_what_is_not_known_ends_nothing(
    state: PayoutState, news: Any
) -> None:
    assert next_payout_step(payout_in(state), news, real_now()) is None


@pytest.mark.parametrize(
    ("state", "news"),
    [
        ("succeeded", Declined("AC04")),
        ("failed", PAID),
        ("pending", Succeeded("ref", Money(99, "CNY"), real_now())),
        ("failed", BACK),
        ("pending", BACK),
        ("succeeded", Returned("R1", Money(99, "CNY"), real_now())),
        ("returned", Declined("AC04")),
    ],
)
def test_a_contradiction_is_noted_once_and_moves_nothing(state: str, news: Any) -> None:
    payout = payout_in(PayoutState(state))
    step = next_payout_step(payout, news, real_now())
    assert step is not None
    assert (step.payout.state, step.rule) == (state, None)
    assert step.payout.contradiction
    assert next_payout_step(step.payout, news, real_now()) is None


@pytest.mark.parametrize(
    ("state", "news"),
    [
        ("succeeded", PAID),
        ("failed", Declined("AC03")),
        ("pending", Unknown("reset")),
        ("succeeded", Pending()),
        ("failed", Unknown("reset")),
        ("returned", BACK),
        ("returned", PAID),
        ("returned", Pending()),
    ],
)
def test_old_news_changes_nothing(state: str, news: Any) -> None:
    assert next_payout_step(payout_in(PayoutState(state)), news, real_now()) is None
