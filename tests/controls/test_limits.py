"""Limits of the law: dated rows that two people add and nobody changes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from tongbao.controls.approvals.approvals import ApplyApproval, approve, run_apply
from tongbao.controls.approvals.model import Approvals, acts_of
from tongbao.controls.approvals.queries import approval_with_id, changes_of
from tongbao.controls.dated_rows.rows import bound_rows, propose_row
from tongbao.controls.limits import meters
from tongbao.controls.limits.changes import LIMITS, LimitRuleThere, LimitRuleWrong
from tongbao.controls.limits.model import LimitRule, Metered, Period
from tongbao.infra.db import Db
from tongbao.infra.failpoints import SimulatedCrash, arm
from tongbao.infra.tasks import Lease
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import new_id

MAY = {"deployment_act"}


@pytest.fixture
def terms(db: Db) -> LimitRule:
    tomorrow = business_date(db.clock.now()) + timedelta(days=1)
    return LimitRule(
        "bank_account_3", "balance", Period.MOMENT, "CNY", tomorrow, 500_000, "a new rule"
    )


async def propose(db: Db, terms: LimitRule) -> Any:
    async with db.begin("maker") as tx:
        return await propose_row(tx, LIMITS, terms, reason="the rule has changed", may=MAY)


def desk_of(db: Db) -> Approvals:
    return Approvals(db, acts_of(*bound_rows(db, LIMITS)))


async def agree(db: Db, asked: Any) -> str:
    desk, lease = desk_of(db), Lease(new_id(), 1)
    async with db.begin("checker") as tx:
        await approve(tx, desk.acts, asked.id, digest=asked.digest.hex(), may=MAY)
    arm("dated_rows.before_commit:raise")
    with pytest.raises(SimulatedCrash):
        await run_apply(desk, ApplyApproval(asked.id), lease)
    arm(None)
    await run_apply(desk, ApplyApproval(asked.id), lease)
    return (await approval_with_id(db, asked.id)).state.value


async def most(db: Db, days: int) -> int:
    of = Metered(2, new_id(), "bank_account_3", "CNY")
    found = await meters.limits_of(db, of, db.clock.now() + timedelta(days=days))
    return next(each.most for each in found if each.rule.meter == "balance")


async def test_a_limit_counts_from_its_day_on_once_two_have_agreed(
    db: Db, terms: LimitRule
) -> None:
    asked = await propose(db, terms)
    [first, *_] = await changes_of(desk_of(db), asked)

    assert (first.before, first.after) == ("200000", "500000")
    assert await agree(db, asked) == "applied"
    assert (await most(db, 0), await most(db, 1)) == (200_000, 500_000)
    with pytest.raises(LimitRuleThere):
        await propose(db, terms)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "bank_account_9"},
        {"meter": "luck"},
        {"currency": "USD"},
        {"most": -1},
        {"instrument": " "},
    ],
)
async def test_a_limit_that_nothing_counts_against_is_refused(
    db: Db, terms: LimitRule, wrong: dict[str, Any]
) -> None:
    with pytest.raises(LimitRuleWrong):
        await propose(db, replace(terms, **wrong))
    with pytest.raises(LimitRuleWrong):
        await propose(db, replace(terms, valid_from=terms.valid_from - timedelta(days=2)))
