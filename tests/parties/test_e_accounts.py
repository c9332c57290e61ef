"""Electronic accounts: opened, moved, limited by the law to the fen, frozen, asleep, closed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import pytest

from tongbao.controls.approvals.model import Approval, ApprovalState
from tongbao.controls.limits.model import LimitExceeded, LimitRule, Period, in_force
from tongbao.infra.db import Db
from tongbao.infra.failpoints import SimulatedCrash, arm
from tongbao.infra.tasks import Again, Lease
from tongbao.kernel.errors import Refusal
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Licence, Mode
from tongbao.kernel.money import Money
from tongbao.ledger.book import Ledger
from tongbao.ledger.queries import balance_of
from tongbao.parties.authentication.step_up import Confirmed
from tongbao.parties.e_accounts import freezes, opening, orders, queries
from tongbao.parties.e_accounts.model import (
    AccountsTooMany,
    Direction,
    EAccount,
    EAccountBalanceShort,
    EAccountClassUnknown,
    EAccountFrozen,
    EAccountNotEmpty,
    EAccountStateWrong,
    FreezeUnknown,
    NoBankThere,
    OrderOver,
    PayeeUnavailable,
    RealNameTooLow,
    RequestDiffers,
    ReverificationNeeded,
    RunAtWrong,
)
from tongbao.parties.e_accounts.orders import RunOrder, Teller, Wanted
from tongbao.parties.people import dossier
from tongbao.parties.people.model import Person

NOTHING = Confirmed(None)
SIGNED = 3
MakeAccount = Callable[..., Awaitable[EAccount]]


@contextmanager
def crash_at(name: str) -> Iterator[None]:
    arm(f"{name}:raise")
    try:
        with pytest.raises(SimulatedCrash):
            yield
    finally:
        arm(None)


class Held(Lease):
    """The right to run a task that no worker has claimed."""


@pytest.fixture
async def teller(db: Db, ledger: Ledger) -> Any:
    for book in (1, 2):
        await ledger.open_book(book, actor="test")
    yield Teller(db, ledger)
    await ledger.close()


@pytest.fixture
def make_account(db: Db, teller: Teller) -> MakeAccount:
    """``await make_account(3, licence=…, fill=…)`` opens and activates an account with money."""

    async def make(
        account_class: int = 3,
        *,
        licence: Licence = Licence.PAYMENT_INSTITUTION,
        person: Person | None = None,
        fill: int = 0,
        is_active: bool = True,
        mode: Mode = Mode.SANDBOX,
    ) -> EAccount:
        person = person or await somebody(db, mode=mode)
        async with db.begin("test") as tx:
            account = await opening.open_account(
                tx, licence, person, account_class, public_key=person.id.bytes
            )
            if is_active:
                account = await opening.activate(tx, account)
        if fill:
            await top_up(teller, account, fill)
        return account

    return make


async def somebody(db: Db, level: int = 3, mode: Mode = Mode.SANDBOX) -> Person:
    person_id = new_id()
    await db.fetch(
        "insert into person (id, mode, state, language, real_name_level, failures, created_at)"
        " values ($1, $2, 'active', 'zh', $3, 0, $4)",
        (person_id, mode.value, level, db.clock.now()),
    )
    return await dossier.person_with_id(db, person_id)


async def top_up(teller: Teller, account: EAccount, amount: int) -> Any:
    wanted = Wanted("top_up", Money(amount, "CNY"), str(new_id()))
    return await orders.order(teller, account, wanted, level=0, confirmed=NOTHING)


async def send(
    teller: Teller, payer: EAccount, payee: EAccount | UUID, amount: int, **more: Any
) -> Any:
    level = more.pop("level", SIGNED)
    to = payee if isinstance(payee, UUID) else payee.id
    request_id = more.pop("request_id", None) or str(new_id())
    wanted = Wanted("transfer", Money(amount, "CNY"), request_id, to, **more)
    return await orders.order(teller, payer, wanted, level=level, confirmed=NOTHING)


async def withdraw(teller: Teller, account: EAccount, amount: int) -> Any:
    wanted = Wanted("withdrawal", Money(amount, "CNY"), str(new_id()))
    return await orders.order(teller, account, wanted, level=SIGNED, confirmed=NOTHING)


async def now_is(db: Db, account: EAccount) -> EAccount:
    return await queries.account_with_id(db, account.id)


async def left(db: Db, account: EAccount) -> dict[str, int]:
    found = await queries.limits_of_account(db, account, db.clock.now())
    return {f"{each.rule.meter}/{each.rule.period}": each.left for each in found}


async def agrees(db: Db, *accounts: EAccount) -> None:
    """The row that every movement locks says what the ledger says."""
    for each in accounts:
        held = await balance_of(db, each.book, each.key)
        assert held.posted == (await now_is(db, each)).balance


# Opening


@pytest.mark.parametrize(
    ("level", "wanted", "licence"),
    [(0, 1, "payment_institution"), (1, 2, "payment_institution"), (3, 1, "bank")],
)
async def test_a_class_asks_for_the_real_name_its_rule_says(
    db: Db, make_account: MakeAccount, level: int, wanted: int, licence: str
) -> None:
    person = await somebody(db, level)

    with pytest.raises(RealNameTooLow):
        await make_account(wanted, licence=Licence(licence), person=person)


async def test_the_number_of_accounts_is_ruled(db: Db, make_account: MakeAccount) -> None:
    person = await somebody(db)
    await make_account(3, person=person)

    with pytest.raises(AccountsTooMany) as refused:
        await make_account(3, person=person)
    assert refused.value.facts["rule"] == "accounts_max"
    with pytest.raises(EAccountClassUnknown):
        await make_account(3, person=person, licence=Licence.AGGREGATOR)
    await make_account(2, person=person)
    await make_account(1, person=person)


async def test_a_phone_opens_for_two_people_and_no_more_however_they_hurry(
    db: Db, teller: Teller
) -> None:
    people = [await somebody(db) for _ in range(6)]

    async def open_one(person: Person) -> bool:
        try:
            async with db.begin("test") as tx:
                await opening.open_account(
                    tx, Licence.PAYMENT_INSTITUTION, person, 1, public_key=b"one phone"
                )
        except AccountsTooMany:
            return False
        return True

    assert sum(await asyncio.gather(*(open_one(each) for each in people))) == 2


# Movements


async def test_money_comes_in_goes_across_and_out(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    payer, payee = await make_account(fill=10_000), await make_account()

    sent = await send(teller, payer, payee, 3_000)
    await withdraw(teller, payee, 1_000)

    assert sent.state == "done"
    assert (await now_is(db, payer)).balance == 7_000
    await agrees(db, payer, payee)
    lines = (await queries.statement_of(db, payee, cursor=None, limit=None)).items
    assert [(line.change, line.balance_after) for line in lines] == [
        (-1_000, 2_000),
        (3_000, 3_000),
    ]
    assert (await queries.balance_then(db, payer, sent.made_at - timedelta(hours=1))).posted == 0


async def test_what_was_there_at_any_moment_is_what_the_lines_come_to(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    payer, payee = await make_account(fill=10_000), await make_account()
    began, hour = db.clock.now(), timedelta(hours=1)
    for amount in (3_000, 1_000, 500):
        db.clock.offset += hour
        await send(teller, payer, payee, amount)

    async def then(hours: float, account: EAccount = payer) -> int:
        return (await queries.balance_then(db, account, began + hours * hour)).posted

    assert [await then(n) for n in (-0.5, 0.5, 1.5, 2.5, 3.5)] == [0, 10_000, 7_000, 6_000, 5_500]
    assert [await then(n, payee) for n in (0.5, 1.5, 3.5)] == [0, 3_000, 4_500]
    lines = (await queries.statement_of(db, payer, cursor=None, limit=None)).items
    assert [line.balance_after for line in lines] == [5_500, 6_000, 7_000, 10_000]


async def test_the_same_request_moves_money_once(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    payer, payee = await make_account(fill=10_000), await make_account()

    found = await asyncio.gather(
        *(send(teller, payer, payee, 1_000, request_id="r1") for _ in range(8))
    )

    assert len({each.id for each in found}) == 1
    assert (await now_is(db, payee)).balance == 1_000
    with pytest.raises(RequestDiffers):
        await send(teller, payer, payee, 1_001, request_id="r1")


async def test_refusals_name_what_stands_against_it(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    payer, asleep = await make_account(fill=1_000), await make_account(is_active=False)
    live = await make_account(mode=Mode.LIVE)

    with pytest.raises(EAccountBalanceShort):
        await send(teller, payer, await make_account(), 1_001)
    for payee in (asleep, live, new_id(), payer):
        with pytest.raises(PayeeUnavailable):
            await send(teller, payer, payee, 1)
    with pytest.raises(EAccountStateWrong):
        await top_up(teller, asleep, 1)
    with pytest.raises(NoBankThere):
        await top_up(teller, live, 1)
    assert (await now_is(db, payer)).balance == 1_000


@pytest.mark.parametrize("name", ["e_accounts.before_order", "e_accounts.after_order"])
async def test_a_crash_around_the_commit_moves_the_money_once(
    db: Db, teller: Teller, make_account: MakeAccount, name: str
) -> None:
    payer, payee = await make_account(fill=1_000), await make_account()
    with crash_at(name):
        await send(teller, payer, payee, 400, request_id="r1")

    await send(teller, payer, payee, 400, request_id="r1")

    assert (await now_is(db, payee)).balance == 400
    await agrees(db, payer, payee)


# Limits of the law


async def test_a_limit_says_which_rule_and_what_is_left(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    payer, payee = await make_account(1, fill=200_000), await make_account()
    await send(teller, payer, payee, 60_000)
    await withdraw(teller, payer, 30_000)  # class I counts what goes to one's own bank too

    with pytest.raises(LimitExceeded) as refused:
        await send(teller, payer, payee, 10_001)

    assert refused.value.facts["left"] == 10_000
    assert refused.value.facts["meter"] == "out_all"
    assert "43号" in str(refused.value.facts["instrument"])
    assert (await left(db, payer))["out_all/lifetime"] == 10_000
    await send(teller, payer, payee, 10_000)


async def test_what_is_confirmed_weakly_is_limited_by_the_day(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    payer, payee = await make_account(3, fill=2_000_000), await make_account()
    await send(teller, payer, payee, 100_000, level=1)

    with pytest.raises(LimitExceeded) as refused:
        await send(teller, payer, payee, 1, level=1)
    await send(teller, payer, payee, 400_000, level=2)

    assert refused.value.facts["meter"] == "weak_one"
    assert await orders.weak_total(db, payer, 1) == 500_001
    with pytest.raises(LimitExceeded):
        await send(teller, payer, payee, 1, level=2)
    await send(teller, payer, payee, 900_000, level=3)


async def test_lines_over_all_payment_accounts_are_one_for_all_classes(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    """43号 art. 11: 100,000 yuan a year are a second class's line, 200,000 a third's."""
    person, payee = await somebody(db), await make_account()
    second = await make_account(2, person=person, fill=30_000_000)
    third = await make_account(3, person=person, fill=30_000_000)
    first = await make_account(1, person=person, fill=100_000)
    await send(teller, second, payee, 60_000, level=1)
    await send(teller, first, payee, 40_000, level=1)

    with pytest.raises(LimitExceeded) as weak:
        await send(teller, third, payee, 1, level=1)
    await send(teller, third, payee, 9_800_000)
    await send(teller, second, payee, 100_000)
    with pytest.raises(LimitExceeded) as year:
        await send(teller, second, payee, 1)
    await send(teller, third, payee, 10_000_000)
    with pytest.raises(LimitExceeded):
        await send(teller, third, payee, 1)

    assert (weak.value.facts["meter"], weak.value.facts["left"]) == ("weak_one", 0)
    assert "第二十四条" in str(weak.value.facts["instrument"])
    assert (year.value.facts["meter"], year.value.facts["limit"]) == ("out_others", 10_000_000)
    assert await orders.weak_total(db, third, 1) == 100_001
    assert (await left(db, second))["out_others/year"] == 0
    assert (await left(db, first))["out_all/lifetime"] == 60_000  # each account's own
    db.clock.offset += timedelta(days=1)
    assert (await left(db, third))["weak_two/day"] == 500_000


async def test_a_banks_third_class_holds_no_more_than_its_cap_over_all_its_accounts(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    person = await somebody(db)
    first = await make_account(3, licence=Licence.BANK, person=person, fill=150_000)
    second = await make_account(3, licence=Licence.BANK, person=person)

    with pytest.raises(LimitExceeded):
        await top_up(teller, second, 50_001)
    await top_up(teller, second, 50_000)
    await withdraw(teller, first, 1)
    await top_up(teller, second, 1)

    assert (await left(db, first))["balance/moment"] == 0
    payer = await make_account(2, licence=Licence.BANK, fill=100)
    with pytest.raises(PayeeUnavailable):  # not whose cap it is that is full
        await send(teller, payer, second, 1)


async def test_a_day_of_the_meters_ends_at_midnight_of_shanghai(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    payer = await make_account(2, licence=Licence.BANK, fill=5_000_000)
    payee = await make_account(1)
    now = db.clock.now()
    before = now.replace(hour=15, minute=59, second=30) + timedelta(days=1)  # 23:59:30 there
    db.clock.offset += before - now
    await send(teller, payer, payee, 1_000_000)
    with pytest.raises(LimitExceeded):
        await send(teller, payer, payee, 1)
    db.clock.offset += timedelta(seconds=30)

    await send(teller, payer, payee, 1_000_000)
    with pytest.raises(LimitExceeded):
        await send(teller, payer, payee, 1)
    db.clock.offset += timedelta(hours=8)  # midnight in UTC is no new day
    with pytest.raises(LimitExceeded):
        await send(teller, payer, payee, 1)


async def test_sixty_four_workers_never_pass_a_meter_by_one_fen(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    """Two accounts of one class share the person's meters, and are emptied from both at once."""
    person = await somebody(db)
    payers = [
        await make_account(2, licence=Licence.BANK, person=person, fill=2_000_000) for _ in "ab"
    ]
    payee = await make_account(1, person=await somebody(db))
    amounts = [29_989 + 17 * n for n in range(64)]

    async def try_one(place: int, amount: int) -> int:
        while True:
            try:
                await send(teller, payers[place % 2], payee, amount)
            except LimitExceeded:
                return 0
            except Refusal as refusal:
                if refusal.code != "ledger.in_flight":
                    raise
            else:
                return amount

    went = await asyncio.gather(*(try_one(*each) for each in enumerate(amounts)))
    sent = sum(went)

    limits = await left(db, payers[0])
    assert limits["out_others/day"] == 1_000_000 - sent
    assert 0 <= limits["out_others/day"] < min(set(amounts).difference(went))  # the refused
    assert (await now_is(db, payee)).balance == sent
    await agrees(db, *payers, payee)
    # And what is left goes through, to the last fen.
    await send(teller, payers[0], payee, limits["out_others/day"])
    assert (await left(db, payers[1]))["out_others/day"] == 0


async def test_whoever_is_overtaken_by_the_same_request_is_told_that_it_happened(
    db: Db, teller: Teller, make_account: MakeAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first moved leaves too little for a second, and the second is the first again."""
    payer, payee = await make_account(fill=1_000), await make_account()
    really = orders._check
    first: list[Any] = []

    async def overtaken(*args: Any) -> None:
        monkeypatch.setattr(orders, "_check", really)
        first.append(await send(teller, payer, payee, 1_000, request_id="once"))
        await really(*args)

    monkeypatch.setattr(orders, "_check", overtaken)
    second = await send(teller, payer, payee, 1_000, request_id="once")

    assert second.id == first[0].id
    assert (await now_is(db, payee)).balance == 1_000
    with pytest.raises(EAccountBalanceShort):
        await send(teller, payer, payee, 1_000, request_id="another")
    await agrees(db, payer, payee)


# Later


async def run(teller: Teller, found: Any, *, later: timedelta = timedelta()) -> Any:
    task = RunOrder(found.book, found.id)
    answer = await orders.run_order(teller, task, Held(new_id(), 1))
    assert answer is None or isinstance(answer, Again)
    return answer


async def due(db: Db, found: Any) -> None:
    await db.fetch("update e_account_order set run_at = made_at where id = $1", (found.id,))


async def test_a_transfer_of_tomorrow_can_be_cancelled_until_it_runs_and_runs_once(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    payer, payee = await make_account(fill=1_000), await make_account()
    first = await send(teller, payer, payee, 300, timing="next_day")
    second = await send(teller, payer, payee, 300, timing="next_day")
    async with db.begin("test") as tx:
        assert (await orders.cancel(tx, second)).state == "cancelled"
    assert isinstance(await run(teller, first), Again)  # it is not tomorrow yet
    await due(db, first)
    await due(db, second)

    for each in (first, first, second):
        await run(teller, each)

    assert (await now_is(db, payee)).balance == 300
    with pytest.raises(OrderOver):
        async with db.begin("test") as tx:
            await orders.cancel(tx, first)
    with pytest.raises(RunAtWrong):
        await send(teller, payer, payee, 1, timing="scheduled", run_at=db.clock.now())


@pytest.mark.parametrize(
    "name",
    [
        "e_accounts.before_later_order",
        "e_accounts.after_later_order",
        "e_accounts.before_failure_commit",
    ],
)
async def test_a_crash_while_it_runs_leaves_one_end(
    db: Db, teller: Teller, make_account: MakeAccount, name: str
) -> None:
    payer, payee = await make_account(fill=1_000), await make_account()
    amount = 2_000 if "failure" in name else 700  # more than there is: it fails
    at = db.clock.now() + timedelta(hours=1)
    found = await send(teller, payer, payee, 700, timing="scheduled", run_at=at)
    await db.fetch("update e_account_order set amount = $2 where id = $1", (found.id, amount))
    await due(db, found)
    with crash_at(name):
        await run(teller, found)

    await run(teller, found)

    ended = await queries.order_of_account(db, payer, found.id)
    failed = ("failed", "e_account.balance_short", 0)
    assert (ended.state, ended.code, (await now_is(db, payee)).balance) == (
        failed if amount > 1_000 else ("done", None, 700)
    )
    await agrees(db, payer, payee)


# Frozen, asleep, closed


def approved(db: Db) -> Approval:
    now = db.clock.now()
    return Approval(
        *(new_id(), "e_account.freeze", "x", None, None, "{}", b"", "court order", "opr_a"),
        *(now, now, ApprovalState.APPROVED, "opr_b", now, None, None, None, None),
    )


async def freeze(db: Db, account: EAccount, direction: str, kind: Any = "judicial") -> Any:
    terms = freezes.FreezeTerms(
        account.shown_id, account.mode, kind, Direction(direction), "(2026) 1"
    )
    async with db.begin("test") as tx:
        return await freezes.freeze(tx, approved(db), terms)


async def test_a_freeze_stops_its_direction_until_each_is_lifted(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    account, other = await make_account(fill=1_000), await make_account(fill=100)
    court, ours = await freeze(db, account, "out"), await freeze(db, account, "all", "operational")

    with pytest.raises(EAccountFrozen):
        await send(teller, account, other, 1)
    with pytest.raises(PayeeUnavailable):
        await send(teller, other, account, 1)
    with pytest.raises(EAccountNotEmpty):
        async with db.begin("test") as tx:
            await opening.close_account(tx, account)
    await lift(db, account, ours)
    await send(teller, other, account, 1)
    with pytest.raises(EAccountFrozen):
        await send(teller, account, other, 1)
    await lift(db, account, court)
    await send(teller, account, other, 1)
    with pytest.raises(FreezeUnknown):
        await lift(db, account, court)


async def lift(db: Db, account: EAccount, found: Any) -> None:
    terms = freezes.LiftTerms(
        account.shown_id, account.mode, freezes.shown_freeze(found), "(2026) 2"
    )
    async with db.begin("test") as tx:
        await freezes.lift(tx, approved(db), terms)


async def test_a_movement_that_waits_for_a_freeze_meets_it(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    """The transfer has looked at the account before the freeze, and commits after it."""
    account, other = await make_account(fill=1_000), await make_account()
    terms = freezes.FreezeTerms(
        account.shown_id, account.mode, "judicial", Direction.OUT, "(2026) 1"
    )
    async with db.begin("test") as tx:
        await freezes.freeze(tx, approved(db), terms)
        sending = asyncio.create_task(send(teller, account, other, 1))
        await asyncio.wait([sending], timeout=0.05)
    with pytest.raises(Refusal):
        await sending

    assert (await now_is(db, account)).balance == 1_000
    await agrees(db, account, other)


async def test_an_unused_account_falls_asleep_and_wakes_when_a_register_agrees(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    quiet, used = await make_account(), await make_account(fill=100)
    await db.fetch(
        "update e_account set opened_at = opened_at - interval '7 months',"
        " activated_at = activated_at - interval '7 months'",
        (),
    )

    assert await opening.put_to_sleep(db, Mode.SANDBOX) == 1

    assert (await now_is(db, quiet)).state == "dormant"
    with pytest.raises(PayeeUnavailable):
        await send(teller, used, quiet, 1)
    with pytest.raises(ReverificationNeeded):
        async with db.begin("test") as tx:
            await opening.activate(tx, quiet)
    await db.fetch(
        "insert into real_name_check (id, person_id, source, verdict, asked_at, answered_at)"
        " values ($1, $2, 'residents', 'same', $3, $3)",
        (new_id(), quiet.person_id, db.clock.now() + timedelta(minutes=1)),
    )
    async with db.begin("test") as tx:
        assert (await opening.activate(tx, quiet)).state == "active"
    assert await opening.put_to_sleep(db, Mode.SANDBOX) == 0


async def test_an_account_closes_at_nought_with_nothing_waiting(
    db: Db, teller: Teller, make_account: MakeAccount
) -> None:
    account, other = await make_account(fill=100), await make_account()
    waiting = await send(teller, account, other, 100, timing="next_day")

    async def close() -> EAccount:
        async with db.begin("test") as tx:
            return await opening.close_account(tx, account)

    with pytest.raises(EAccountNotEmpty):
        await close()
    await withdraw(teller, account, 100)
    with pytest.raises(EAccountNotEmpty):
        await close()
    async with db.begin("test") as tx:
        await orders.cancel(tx, waiting)
    assert (await close()).state == "closed"
    assert (await close()).state == "closed"
    with pytest.raises(EAccountStateWrong):
        await top_up(teller, account, 1)
    person = await dossier.person_with_id(db, account.person_id)
    with pytest.raises(AccountsTooMany) as refused:
        await make_account(person=person)
    assert refused.value.facts["rule"] == "hours_after_closing"
    await db.fetch("update e_account set closed_at = closed_at - interval '1 day'", ())
    await make_account(person=person)


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("e_accounts.before_open_commit", ("active", "none", 1)),
        ("e_accounts.before_close_commit", ("closed", "none", 1)),
        ("e_accounts.before_sleep_commit", ("dormant", "none", 1)),
        ("e_accounts.before_freeze_commit", ("active", "all", 1)),
        ("e_accounts.before_lift_commit", ("active", "none", 1)),
        ("e_accounts.before_later_commit", ("active", "none", 2)),
    ],
)
async def test_a_death_before_a_commit_leaves_nothing_and_the_repeat_does_it(
    db: Db, teller: Teller, make_account: MakeAccount, name: str, state: tuple[str, str, int]
) -> None:
    person, payee = await somebody(db), await make_account()
    account = payee if "open" in name else await make_account(person=person)
    court = await freeze(db, account, "all") if "lift" in name else None

    async def do() -> None:
        if "open" in name:
            await make_account(person=person)
        elif "close" in name:
            async with db.begin("test") as tx:
                await opening.close_account(tx, account)
        elif "sleep" in name:
            past = "update e_account set opened_at = '2020-01-01', activated_at = '2020-01-01'"
            await db.fetch(past, ())
            await opening.put_to_sleep(db, Mode.SANDBOX)
        elif "freeze" in name:
            await freeze(db, account, "all")
        elif "lift" in name:
            await lift(db, account, court)
        else:
            await send(teller, account, payee, 1, timing="next_day", request_id="r1")

    async def seen() -> tuple[str, str, int]:
        now = await now_is(db, account)
        made = len(await queries.accounts_of_person(db, Mode.SANDBOX, person.id))
        waiting = (await queries.orders_of_account(db, account, cursor=None, limit=None)).items
        return (now.state.value, now.frozen, made + len(waiting))

    if "later" in name:
        await top_up(teller, account, 1)
        state = (*state[:2], 3)  # the top-up is an order too
    before = await seen()
    with crash_at(name):
        await do()
    assert await seen() == before
    await do()
    assert await seen() == state


def test_the_newest_rule_that_has_begun_counts() -> None:
    def rule(day: date, most: int | None) -> LimitRule:
        return LimitRule("k", "m", Period.DAY, "CNY", day, most, "x")

    rules = [rule(date(2026, 1, 1), 5), rule(date(2026, 2, 1), 7), rule(date(2026, 3, 1), None)]

    assert [each.most for each in in_force(rules, date(2026, 1, 31))] == [5]
    assert [each.most for each in in_force(rules, date(2026, 2, 1))] == [7]
    assert in_force(rules, date(2026, 3, 1)) == []
