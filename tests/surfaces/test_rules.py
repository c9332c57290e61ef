"""Dated rows of every kind: one act proposes, checks, adds and shows them, in all places alike."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.stage import Stage
from tests.surfaces.commands import Cli
from tests.surfaces.visitors import hire, reader
from tongbao.controls.approvals.approvals import ApplyApproval, approve, run_apply
from tongbao.controls.approvals.model import Approvals, acts_of
from tongbao.controls.approvals.queries import approval_with_id, changes_of
from tongbao.controls.dated_rows.logins import LOGINS
from tongbao.controls.dated_rows.rows import DatedRows, bound_rows, propose_row
from tongbao.infra.db import Db
from tongbao.infra.tasks import Lease
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import new_id, parse
from tongbao.parties.authentication import step_up
from tongbao.parties.authentication.model import Act, Level, level_by_rules
from tongbao.parties.identity.model import Role
from tongbao.parties.step_up_risk.rules import BY_AMOUNT, BY_SIGNAL
from tongbao.surfaces.four_eyes.rules import KINDS, RuleUnreadable, row_of

MAY = {"deployment_act"}
LATER = date(2099, 1, 1)


async def agreed(db: Db, kind: DatedRows, row: Any) -> str:
    desk = Approvals(db, acts_of(*bound_rows(db, *KINDS.values())))
    async with db.begin("maker") as tx:
        made = await propose_row(tx, kind, row, reason="the rule has changed", may=MAY)
    shown = await changes_of(desk, await approval_with_id(db, made.id))
    assert all(each.en and each.zh for each in shown)
    async with db.begin("checker") as tx:
        await approve(tx, desk.acts, made.id, digest=made.digest.hex(), may=MAY)
    await run_apply(desk, ApplyApproval(made.id), Lease(new_id(), 1))
    return (await approval_with_id(db, made.id)).state.value


async def refused(db: Db, kind: DatedRows, row: Any) -> bool:
    async with db.begin("maker") as tx:
        with pytest.raises((kind.wrong, kind.there)):
            await propose_row(tx, kind, row, reason="the rule has changed", may=MAY)
    return True


async def test_every_kind_is_added_by_two_and_never_changed(db: Db) -> None:
    today = business_date(db.clock.now())
    for kind in KINDS.values():
        before = await kind.rows.all(db)
        row = replace(before[0], valid_from=LATER)

        assert await agreed(db, kind, row) == "applied"

        after = await kind.rows.all(db)
        assert len(after) == len(before) + 1
        assert all(each in after for each in before), "nothing that was there has changed"
        assert row in kind.in_force(after, LATER)
        assert row not in kind.in_force(after, LATER - timedelta(days=1))
        assert await refused(db, kind, row), "its place is taken"
        assert await refused(db, kind, replace(row, valid_from=today - timedelta(days=1)))
        assert await refused(db, kind, replace(row, **{kind.because: " "}))
        assert await refused(db, kind, replace(row, **{kind.because: "x" * 301}))
        for name, (least, most) in kind.bounds.items():
            for figure in (least - 1, most + 1):
                other = replace(row, valid_from=LATER + timedelta(days=1), **{name: figure})
                assert await refused(db, kind, other), (kind.act.name, name, figure)
        for group in kind.known:
            unlike = 5 if isinstance(getattr(row, group[0]), int) else "nothing_like_it"
            other = replace(row, valid_from=LATER + timedelta(days=1), **{group[0]: unlike})
            assert await refused(db, kind, other), (kind.act.name, group)


async def test_an_act_wants_the_proof_that_a_new_row_says_from_its_day_on(db: Db) -> None:
    rules = await step_up.all_rules(db)
    small = Act("transfer", "x", 100, "CNY", payee="x")
    row = replace(next(each for each in rules if each.kind == "transfer"), level=3)
    assert await agreed(db, BY_AMOUNT, replace(row, valid_from=LATER)) == "applied"

    rules = await step_up.all_rules(db)

    assert level_by_rules(small, rules, LATER) is Level.SIGNED
    assert level_by_rules(small, rules, LATER - timedelta(days=1)) is Level.ONE


def test_rows_are_read_strictly() -> None:
    said = {"entrance": "person", "family": "4", "prefix_bits": "32", "period_s": "3600"}
    whole = {**said, "valid_from": "2099-01-01", "because": "a rule"}

    assert row_of(LOGINS, {**whole, "most": "7"}).most == 7
    assert row_of(LOGINS, whole).most is None, "a figure that is left out ends"
    for wrong in ({"most": "x"}, {"period_s": ""}, {"valid_from": "soon"}, {"colour": "red"}):
        with pytest.raises(RuleUnreadable):
            row_of(LOGINS, {**whole, **wrong})
    with pytest.raises(RuleUnreadable):
        row_of(BY_SIGNAL, {**whole, "signal": "moon"})


@pytest.fixture
def environment(dsn: str, tmp_path: Path) -> dict[str, str]:
    return {
        "TONGBAO_DSN": dsn,
        "TONGBAO_DATA_DIR": str(tmp_path),
        "TONGBAO_LICENCE": "payment_institution",
        "TONGBAO_LOG_LEVEL": "warning",
    }


async def test_the_commands_list_and_propose(cli: Cli, db: Db) -> None:
    kinds = (await cli("--json", "rules", "kinds")).json
    about = ("signal=failures", "kind=personal", "currency=", "at_least=0", "within_h=24")
    why = ("--from", "2099-01-01", "--because", "we say so", "--reason", "it has changed")
    made = (await cli("--json", "rules", "set", "step_up_signals", *about, "level=3", *why)).json
    listed = (await cli("--json", "rules", "list", "logins")).json
    wrong = await cli("rules", "set", "step_up_signals", *about, "level=4", *why)
    nothing = await cli("rules", "list", "nothing")

    assert {each["kind"] for each in kinds} == set(KINDS)
    found = await approval_with_id(db, parse("apv", made["approval"]))
    assert (found.act, found.state.value) == ("step_up.set_signal", "proposed")
    assert len(listed) == 24
    assert (wrong.code, nothing.code) == (1, 1)
    assert "rules.kind_unknown" in nothing.err


async def test_the_page_shows_and_proposes(shared_stage: Stage) -> None:
    form = {"kind": "payment", "currency": "CNY", "at_least": "0", "level": "1"}
    why = {"valid_from": "2099-01-01", "instrument": "we say so", "reason": "it has changed"}
    async with reader(shared_stage, await hire(shared_stage, login="rules.amy")) as admin:
        pages = {name: await admin.get(f"/console/rules?kind={name}") for name in KINDS}
        await admin.get("/console/rules?kind=step_up")
        asked = await admin.send("/console/rules/step_up", **form, **why)
        waiting = await admin.get("/console/inbox")
        unknown = await admin.get("/console/rules?kind=nothing")
    only = await hire(shared_stage, Role.VIEWER, login="rules.bob")
    async with reader(shared_stage, only) as viewer:
        seen = await viewer.get("/console/rules")

    assert asked.status_code == 303, asked.text
    assert "Change which proof an act wants" in waiting.text
    assert unknown.status_code == 404
    for name, kind in KINDS.items():
        rows = await kind.rows.all(shared_stage.db)
        assert getattr(rows[0], kind.because)[:20] in pages[name].text
    assert 'action="/console/rules/' not in seen.text, "who may only look proposes nothing"
