"""Above an amount two have to agree, neither of them the maker; the amount itself takes two."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec import Struct

from tongbao.controls.approvals.approvals import (
    ApplyApproval,
    approve,
    in_transaction,
    propose,
    reject,
    run_apply,
)
from tongbao.controls.approvals.model import (
    Act,
    ActUnknown,
    AlreadyAgreed,
    Approval,
    Approvals,
    Bound,
    OwnProposal,
    SecondCheckWrong,
    TermsTampered,
    acts_of,
)
from tongbao.controls.approvals.queries import approval_with_id, changes_of
from tongbao.controls.approvals.seconds import (
    SET,
    NewSecondCheck,
    bound_acts,
    check_second_check,
    subject_of,
)
from tongbao.infra.db import Db
from tongbao.infra.tasks import Lease
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import new_id
from tongbao.kernel.money import Money

MAY = {"pay", "deployment_act"}


class Pay(Struct, frozen=True):
    amount: int
    currency: str = "CNY"


PAY = Act(
    "tests.pay", "Pay", "付款", Pay, maker="pay", checker="pay",
    amounts=lambda terms: [Money(terms.amount, terms.currency)],
)  # fmt: skip
MUTE = Act("tests.mute", "Be still", "静默", Pay, maker="pay", checker="pay")


class Desk:
    """An act about money, and people who decide about it."""

    def __init__(self, db: Db) -> None:
        self.db = db
        self.paid: list[int] = []
        bound = [Bound(act, in_transaction(db, self.pay)) for act in (PAY, MUTE)]
        self.desk = Approvals(db, acts_of(*bound, *bound_acts(db)))

    async def pay(self, _tx: Any, _approval: Approval, terms: Pay) -> None:
        self.paid.append(terms.amount)

    async def asked(self, terms: Struct, act: Act = PAY, subject: str = "") -> Approval:
        async with self.db.begin("anna") as tx:
            where = subject or str(new_id())
            return await propose(tx, act, where, terms, reason="as agreed", may=MAY)

    async def agree(self, asked: Approval, by: str) -> Approval:
        async with self.db.begin(by) as tx:
            digest = asked.digest.hex()
            after = await approve(tx, self.desk.acts, asked.id, digest=digest, may=MAY)
        await run_apply(self.desk, ApplyApproval(asked.id), Lease(new_id(), 1))
        return await approval_with_id(self.db, after.id)

    async def two_from(self, amount: int | None, *, days: int = 0) -> None:
        day = business_date(self.db.clock.now()) + timedelta(days=days)
        wanted = NewSecondCheck("tests.pay", "CNY", day, amount)
        check_second_check(self.desk.acts, wanted, self.db.clock.now())
        done = await self.agree(await self.asked(wanted, SET, subject_of(wanted)), "bert")
        assert done.state == "applied"


@pytest.fixture
def desk(db: Db) -> Desk:
    return Desk(db)


async def test_from_the_amount_on_two_others_have_to_agree(desk: Desk) -> None:
    await desk.two_from(1_000)
    small, large = await desk.asked(Pay(999)), await desk.asked(Pay(1_000))
    abroad, mute = await desk.asked(Pay(1_000, "USD")), await desk.asked(Pay(9_999), MUTE)

    for alone in (small, abroad, mute):
        assert (await desk.agree(alone, "bert")).state == "applied"
    with pytest.raises(OwnProposal):
        await desk.agree(large, "anna")
    first = await desk.agree(large, "bert")
    assert (first.state, first.checker) == ("proposed", None)
    assert [(each.before, each.after) for each in await changes_of(desk.desk, first)][-1] == (
        "1: bert",
        "2",
    )
    with pytest.raises(AlreadyAgreed):
        await desk.agree(large, "bert")
    assert desk.paid == [999, 1_000, 9_999]
    done = await desk.agree(large, "carl")
    assert (done.state, done.checker) == ("applied", "carl")
    assert desk.paid[-1] == 1_000


async def test_the_amount_counts_from_its_day_and_the_newest_row_wins(desk: Desk) -> None:
    await desk.two_from(500, days=1)
    assert (await desk.agree(await desk.asked(Pay(500)), "bert")).state == "applied"
    desk.db.clock.offset += timedelta(days=1)
    waiting = await desk.asked(Pay(500))
    assert (await desk.agree(waiting, "bert")).state == "proposed"
    async with desk.db.begin("carl") as tx:
        gone = await reject(tx, desk.desk.acts, waiting.id, reason="not this one", may=MAY)
    assert gone.state == "rejected"
    await desk.two_from(None)
    assert (await desk.agree(await desk.asked(Pay(10**9)), "bert")).state == "applied"


async def test_a_first_agreement_that_nobody_gave_counts_for_nothing(desk: Desk) -> None:
    await desk.two_from(1)
    asked = await desk.asked(Pay(5))
    await desk.db.execute(
        """insert into approval_agreement (approval_id, checker, agreed_at)
           values ($1, 'eve', now())""",
        (asked.id,),
    )
    with pytest.raises(TermsTampered):
        await desk.agree(asked, "bert")
    assert desk.paid == []


@pytest.mark.parametrize(
    ("wrong", "refusal"),
    [
        ({"act": "tests.none"}, ActUnknown),
        ({"act": "tests.mute"}, SecondCheckWrong),
        ({"amount_from": 0}, SecondCheckWrong),
        ({"currency": "cny"}, SecondCheckWrong),
        ({"days": -1}, SecondCheckWrong),
    ],
)
async def test_what_makes_no_sense_is_not_proposed(
    desk: Desk, wrong: dict[str, Any], refusal: type[Exception]
) -> None:
    how = {"act": "tests.pay", "currency": "CNY", "amount_from": 1, "days": 0, **wrong}
    now = desk.db.clock.now()
    day = business_date(now) + timedelta(days=how["days"])
    wanted = NewSecondCheck(how["act"], how["currency"], day, how["amount_from"])
    with pytest.raises(refusal):
        check_second_check(desk.desk.acts, wanted, now)
