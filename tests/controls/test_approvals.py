"""Four eyes: nobody approves their own, what was approved is what happens, and it happens once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from msgspec import Struct

from tongbao.controls.approvals import approvals
from tongbao.controls.approvals.approvals import (
    ApplyApproval,
    ExpireApproval,
    approve,
    in_transaction,
    propose,
    reject,
    run_apply,
    run_expire,
    withdraw,
)
from tongbao.controls.approvals.model import (
    Act,
    Approval,
    ApprovalDecided,
    ApprovalExpired,
    ApprovalNotFound,
    Approvals,
    ApprovalState,
    ApprovalWaiting,
    Bound,
    Change,
    CheckerNotAllowed,
    MakerNotAllowed,
    NotTheMaker,
    OwnProposal,
    ReasonTooShort,
    TermsDiffer,
    TermsTooLarge,
    acts_of,
)
from tongbao.controls.approvals.queries import (
    ApprovalFilter,
    approval_with_id,
    changes_of,
    count_for,
    list_approvals,
    open_approval,
)
from tongbao.infra import failpoints
from tongbao.infra.audit import entries_of_subject
from tongbao.infra.db import Db, Tx
from tongbao.infra.db_failures import LockNotFree
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.infra.worker import Worker
from tongbao.kernel.errors import Rejected
from tongbao.kernel.ids import new_id
from tongbao.kernel.pages import CursorInvalid

MAKER, CHECKER, OTHER = "opr_maker", "opr_checker", "opr_other"
MAY = {"prices"}
STATES = ApprovalState


class Price(Struct, frozen=True):
    rate: int
    note: str = ""


class NotNow(Rejected):
    code = "tests.not_now"


SET_PRICE = Act(
    "tests.set_price", "Set a price", "设置价格", Price, maker="prices", checker="prices"
)


class Shop:
    """A desk with one dangerous act: it writes a number range, which stands for any table."""

    def __init__(self, db: Db) -> None:
        self.db = db
        self.refusal: Exception | None = None
        self.ended: list[str] = []
        bound = Bound(SET_PRICE, in_transaction(db, self.change), self.show, self.hear)
        self.desk = Approvals(db, acts_of(bound))
        work = {
            ApplyApproval: lambda task, lease: run_apply(self.desk, task, lease),
            ExpireApproval: lambda task, lease: run_expire(self.desk, task, lease),
        }
        policies = dict.fromkeys(work, approvals.APPROVALS_POLICY)
        self.worker = Worker(db, work, policies, {})

    async def change(self, tx: Any, approval: Approval, terms: Price) -> None:
        if self.refusal:
            raise self.refusal
        sql = "insert into number_range (name, next_number) values ($1, $2)"
        await tx.execute(sql, (approval.subject, terms.rate))

    async def show(self, _db: Db, _approval: Approval, terms: Price) -> list[Change]:
        return [Change("Rate", "费率", "60", str(terms.rate))]

    async def hear(self, _tx: Any, approval: Approval, terms: Price) -> None:
        self.ended.append(f"{approval.state} {terms.rate}")

    async def propose(self, subject: str = "mch_1", rate: int = 38, **more: Any) -> Approval:
        maker = more.pop("maker", MAKER)
        async with self.db.begin(maker) as tx:
            more = {"reason": "a new contract", **more}
            return await propose(tx, SET_PRICE, subject, Price(rate), **more)

    async def approve(self, asked: Approval, by: str = CHECKER, **more: Any) -> Approval:
        how = {"digest": asked.digest.hex(), "may": MAY, **more}
        async with self.db.begin(by) as tx:
            return await approve(tx, self.desk.acts, asked.id, **how)

    async def reject(self, asked: Approval, by: str = CHECKER, **more: Any) -> Approval:
        how = {"reason": "too cheap", "may": MAY, **more}
        async with self.db.begin(by) as tx:
            return await reject(tx, self.desk.acts, asked.id, **how)

    async def withdraw(self, asked: Approval, by: str = MAKER) -> Approval:
        async with self.db.begin(by) as tx:
            return await withdraw(tx, self.desk.acts, asked.id)

    async def work(self) -> None:
        await self.worker.run_until_idle(raise_failures=True)

    async def state(self, asked: Approval) -> str:
        return (await approval_with_id(self.db, asked.id)).state.value

    async def prices(self) -> dict[str, int]:
        sql = "select name, next_number from number_range where name like 'mch%'"
        return {row["name"]: row["next_number"] for row in await self.db.fetch(sql, ())}

    async def told(self, asked: Approval) -> list[str]:
        entries = await entries_of_subject(self.db, asked.shown_id)
        return [entry.action.removeprefix("approval.") for entry in entries]


@pytest.fixture
def shop(db: Db) -> Shop:
    return Shop(db)


async def test_what_one_proposes_and_another_approves_happens_once(shop: Shop) -> None:
    asked = await shop.propose()
    assert (asked.state, await shop.prices()) == (STATES.PROPOSED, {})

    approved = await shop.approve(asked, note=" looks  right ")
    assert (approved.checker, approved.note) == (CHECKER, "looks right")
    assert await shop.prices() == {}
    await shop.work()
    await shop.work()

    assert await shop.prices() == {"mch_1": 38}
    assert await shop.state(asked) == "applied"
    assert await shop.told(asked) == ["proposed", "approved", "applied"]
    sql = "select body->>'state' as state from event where resource_id = $1 order by at, id"
    rows = await shop.db.fetch(sql, (asked.shown_id,))
    assert sorted(row["state"] for row in rows) == ["applied", "approved", "proposed"]
    assert await shop.db.fetch("select 1 from task", ()) == []
    with pytest.raises(ApprovalDecided):
        await shop.approve(asked, by=OTHER)


async def test_nobody_approves_or_rejects_what_they_proposed(shop: Shop) -> None:
    asked = await shop.propose()
    with pytest.raises(OwnProposal):
        await shop.approve(asked, by=MAKER)
    with pytest.raises(OwnProposal):
        await shop.reject(asked, by=MAKER)
    with pytest.raises(NotTheMaker):
        await shop.withdraw(asked, by=CHECKER)
    assert await shop.state(asked) == "proposed"


async def test_the_database_refuses_one_person_for_two(shop: Shop) -> None:
    """The check in Python is not the only one: a bug there must not move money."""
    asked = await shop.propose()
    sql = "update approval set state = 'approved', checker = $2, decided_at = $3 where id = $1"
    with pytest.raises(asyncpg.CheckViolationError, match="approval_four_eyes"):
        await shop.db.execute(sql, (asked.id, MAKER, shop.db.clock.now()))


async def test_a_maker_takes_their_own_back_and_may_try_again(shop: Shop) -> None:
    asked = await shop.propose()
    await shop.withdraw(asked)
    assert shop.ended == ["withdrawn 38"]
    again = await shop.propose(rate=40)
    await shop.reject(again)
    assert shop.ended == ["withdrawn 38", "rejected 40"]
    await shop.work()
    assert await shop.prices() == {}
    with pytest.raises(ApprovalDecided):
        await shop.withdraw(again)


async def test_roles_say_who_may_propose_and_decide(shop: Shop) -> None:
    with pytest.raises(MakerNotAllowed):
        await shop.propose(may={"view"})
    asked = await shop.propose(may=MAY)
    with pytest.raises(CheckerNotAllowed):
        await shop.approve(asked, may={"view"})
    with pytest.raises(CheckerNotAllowed):
        await shop.reject(asked, may=set())
    assert await shop.state(asked) == "proposed"


@pytest.mark.parametrize("reason", ["", "  a  ", "x" * 501])
async def test_a_reason_is_given(shop: Shop, reason: str) -> None:
    with pytest.raises(ReasonTooShort):
        await shop.propose(reason=reason)
    asked = await shop.propose()
    with pytest.raises(ReasonTooShort):
        await shop.reject(asked, reason=reason)


async def test_one_thing_changes_in_one_way_at_a_time(shop: Shop) -> None:
    first = await shop.propose()
    with pytest.raises(ApprovalWaiting):
        await shop.propose(rate=50, maker=OTHER)
    await shop.propose("mch_2")

    second = await shop.propose(rate=50, supersede=True)
    gone = await approval_with_id(shop.db, first.id)
    assert (gone.state, gone.superseded_by) == (STATES.WITHDRAWN, second.id)
    assert (await open_approval(shop.db, SET_PRICE, "mch_1")) == second

    await shop.approve(second)
    with pytest.raises(ApprovalWaiting):
        await shop.propose(rate=60, supersede=True)


async def test_proposing_belongs_to_the_callers_transaction(shop: Shop) -> None:
    async with shop.db.begin(MAKER) as tx:
        with pytest.raises(SimulatedCrash):
            await proposed_and_undone(tx)
    assert (await list_approvals(shop.db, ApprovalFilter())).items == []
    with pytest.raises(TypeError):
        async with shop.db.begin(MAKER) as tx:
            await propose(tx, SET_PRICE, "mch_1", NotPrice(), reason="other terms")
    with pytest.raises(TermsTooLarge):
        async with shop.db.begin(MAKER) as tx:
            await propose(tx, SET_PRICE, "mch_1", Price(1, "x" * 70_000), reason="too much")


async def proposed_and_undone(tx: Tx) -> None:
    async with tx.savepoint():
        await propose(tx, SET_PRICE, "mch_1", Price(1), reason="never seen")
        raise SimulatedCrash


class NotPrice(Struct, frozen=True):
    rate: int = 1


async def test_a_proposal_expires_on_the_business_clock(shop: Shop) -> None:
    asked = await shop.propose()
    shop.db.clock.offset += SET_PRICE.lasts - timedelta(seconds=5)
    await shop.work()
    assert await shop.state(asked) == "proposed"

    shop.db.clock.offset += timedelta(seconds=5)
    with pytest.raises(ApprovalExpired):
        await shop.approve(asked)
    assert await count_for(shop.desk, CHECKER, MAY) == 0
    await shop.work()
    assert (await shop.state(asked), shop.ended) == ("expired", ["expired 38"])
    await shop.propose(rate=50)


async def test_an_approval_that_waited_too_long_for_its_effect_has_none(shop: Shop) -> None:
    """A worker that comes back after a week does not surprise anybody with last week's decision."""
    asked = await shop.propose()
    await shop.approve(asked)
    shop.db.clock.offset += SET_PRICE.lasts
    await shop.work()
    ended = await approval_with_id(shop.db, asked.id)
    assert (ended.state, ended.code) == (STATES.FAILED, "approval.expired")
    assert await shop.prices() == {}


async def test_a_refusal_ends_it_as_failed_with_the_code(shop: Shop) -> None:
    asked = await shop.propose()
    await shop.approve(asked)
    shop.refusal = NotNow()
    await shop.work()
    ended = await approval_with_id(shop.db, asked.id)
    assert (ended.state, ended.code, shop.ended) == (STATES.FAILED, "tests.not_now", ["failed 38"])
    assert await shop.prices() == {}
    shop.refusal = None
    await shop.propose()


async def test_being_busy_is_tried_again(shop: Shop) -> None:
    asked = await shop.propose()
    await shop.approve(asked)
    shop.refusal = LockNotFree()
    with pytest.raises(LockNotFree):
        await run_apply(shop.desk, ApplyApproval(asked.id), None)
    assert await shop.state(asked) == "approved"
    shop.refusal = None
    await shop.work()
    assert await shop.prices() == {"mch_1": 38}


# What was approved is what happens


async def test_a_checker_approves_what_they_have_seen(shop: Shop) -> None:
    asked = await shop.propose()
    with pytest.raises(TermsDiffer):
        await shop.approve(asked, digest="00" * 32)
    assert await shop.state(asked) == "proposed"


async def test_the_application_cannot_change_terms(shop: Shop) -> None:
    asked = await shop.propose()
    for change in ("terms = '{}'", "digest = digest", "maker = 'x'", "subject = 'mch_9'"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await shop.db.execute(f"update approval set {change} where id = $1", (asked.id,))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await shop.db.execute("delete from approval", ())


async def tamper(shop: Shop, asked: Approval, *, consistently: bool) -> None:
    """Change the terms as somebody would who owns the database."""
    await shop.db.execute("grant update on approval to current_user", ())
    terms = asked.terms.replace("38", "1")
    forged = approvals.replace(asked, terms=terms)
    digest = approvals.digest_of(forged) if consistently else asked.digest
    sql = "update approval set terms = $2, digest = $3 where id = $1"
    await shop.db.execute(sql, (asked.id, terms, digest))


@pytest.mark.parametrize("consistently", [False, True])
async def test_terms_changed_before_the_decision_are_noticed(
    shop: Shop, consistently: bool
) -> None:
    asked = await shop.propose()
    await tamper(shop, asked, consistently=consistently)
    seen = await approval_with_id(shop.db, asked.id)
    with pytest.raises(approvals.TermsTampered):
        await shop.approve(seen)
    await shop.reject(seen)
    assert await shop.state(asked) == "rejected"


@pytest.mark.parametrize("consistently", [False, True])
async def test_terms_changed_after_the_decision_have_no_effect(
    shop: Shop, consistently: bool
) -> None:
    asked = await shop.propose()
    await shop.approve(asked)
    await tamper(shop, asked, consistently=consistently)
    await shop.work()
    ended = await approval_with_id(shop.db, asked.id)
    assert (ended.state, ended.code) == (STATES.FAILED, "approval.terms_tampered")
    assert await shop.prices() == {}


# Two at once, and dying on the way


async def until_blocked(db: Db) -> None:
    sql = (
        "select exists (select from pg_stat_activity where datname = current_database()"
        " and wait_event_type = 'Lock') as is_so"
    )
    while not (await db.fetch(sql, ()))[0]["is_so"]:  # noqa: ASYNC110 - the server tells no other way
        await asyncio.sleep(0.005)


async def test_of_two_checkers_one_decides(shop: Shop) -> None:
    """The second waits for the first one's commit, and then hears that it is decided."""
    asked = await shop.propose()
    async with shop.db.begin(CHECKER) as tx:
        await approve(tx, shop.desk.acts, asked.id, digest=asked.digest.hex(), may=MAY)
        waiting = asyncio.create_task(shop.reject(asked, by=OTHER))
        await until_blocked(shop.db)
    with pytest.raises(ApprovalDecided):
        await waiting
    await shop.work()
    assert (await shop.state(asked), shop.ended) == ("applied", [])


async def test_of_many_checkers_one_decides(shop: Shop) -> None:
    asked = await shop.propose()
    said = [
        *(shop.approve(asked, by=f"opr_a{n}") for n in range(4)),
        *(shop.reject(asked, by=f"opr_b{n}") for n in range(4)),
    ]
    results = await asyncio.gather(*said, return_exceptions=True)
    assert sum(isinstance(each, Approval) for each in results) == 1
    assert sum(isinstance(each, ApprovalDecided) for each in results) == 7
    assert len(await shop.told(asked)) == 2


async def test_of_two_makers_one_proposes(shop: Shop) -> None:
    said = [shop.propose(rate=n, maker=f"opr_m{n}") for n in range(1, 7)]
    results = await asyncio.gather(*said, return_exceptions=True)
    assert sum(isinstance(each, Approval) for each in results) == 1
    assert sum(isinstance(each, ApprovalWaiting) for each in results) == 5


async def test_two_runs_of_one_task_apply_once(shop: Shop) -> None:
    """A worker that lost its lease may still be running when the next begins."""
    asked = await shop.propose()
    await shop.approve(asked)
    task = ApplyApproval(asked.id)
    await asyncio.gather(*(run_apply(shop.desk, task, None) for _ in range(4)))
    assert (await shop.state(asked), await shop.prices()) == ("applied", {"mch_1": 38})
    assert (await shop.told(asked)).count("applied") == 1


async def decided_and_done(shop: Shop, asked: Approval) -> None:
    await shop.approve(asked)
    await run_apply(shop.desk, ApplyApproval(asked.id), None)


PLACES = (
    "approvals.before_decision",
    "approvals.before_effect",
    "approvals.before_effect_commit",
    "approvals.after_effect",
    "approvals.before_failure_commit",
)


@pytest.mark.parametrize("place", PLACES)
async def test_whoever_dies_on_the_way_leaves_one_effect(shop: Shop, place: str) -> None:
    refused = place == "approvals.before_failure_commit"
    shop.refusal = NotNow() if refused else None
    asked = await shop.propose()
    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await decided_and_done(shop, asked)
    failpoints.arm(None)
    assert len(await shop.prices()) == (place == "approvals.after_effect")

    if await shop.state(asked) == "proposed":
        await shop.approve(asked)
    await shop.work()
    assert await shop.state(asked) == ("failed" if refused else "applied")
    assert await shop.prices() == ({} if refused else {"mch_1": 38})
    assert shop.ended[-1:] == (["failed 38"] if refused else [])


async def test_an_effect_that_leaves_its_approval_open_is_a_bug(shop: Shop) -> None:
    async def forget(_effect: Any) -> None:
        return None

    desk = Approvals(shop.db, acts_of(Bound(SET_PRICE, forget)))
    asked = await shop.propose()
    await shop.approve(asked)
    with pytest.raises(RuntimeError, match="without closing"):
        await run_apply(desk, ApplyApproval(asked.id), None)


# The inbox


async def test_the_inbox_is_filtered_and_turned_page_by_page(shop: Shop) -> None:
    asked = [await shop.propose(f"mch_{n}", maker=MAKER if n % 2 else OTHER) for n in range(5)]
    await shop.reject(asked[0])
    everything = ApprovalFilter()
    first = await list_approvals(shop.db, everything, limit=3)
    rest = await list_approvals(shop.db, everything, limit=3, cursor=first.next_cursor)
    assert [each.id for each in [*first.items, *rest.items]] == [each.id for each in asked[::-1]]
    assert rest.next_cursor is None

    open_ones = await list_approvals(shop.db, ApprovalFilter(states=[STATES.PROPOSED], maker=OTHER))
    assert [each.subject for each in open_ones.items] == ["mch_4", "mch_2"]
    of_one = await list_approvals(shop.db, ApprovalFilter(act=SET_PRICE.name, subject="mch_3"))
    assert len(of_one.items) == 1
    assert await count_for(shop.desk, MAKER, MAY) == 2
    assert await count_for(shop.desk, CHECKER, MAY) == 4
    assert await count_for(shop.desk, CHECKER, set()) == 0
    for cursor in ("nonsense", "WyJ4Il0", "WyJ4IiwieSJd"):
        with pytest.raises(CursorInvalid):
            await list_approvals(shop.db, everything, cursor=cursor)


async def test_what_changes_is_shown_and_unknown_acts_show_their_terms(shop: Shop) -> None:
    asked = await shop.propose()
    assert await changes_of(shop.desk, asked) == [Change("Rate", "费率", "60", "38")]
    blind = Approvals(shop.db, {})
    shown = [(each.en, each.after) for each in await changes_of(blind, asked)]
    assert shown == [("note", ""), ("rate", "38")]
    with pytest.raises(approvals.ActUnknown):
        async with shop.db.begin(CHECKER) as tx:
            await approve(tx, {}, asked.id, digest="", may=MAY)
    with pytest.raises(ApprovalNotFound):
        await approval_with_id(shop.db, new_id())
    with pytest.raises(ValueError, match="one name"):
        acts_of(*shop.desk.acts.values(), *shop.desk.acts.values())
