"""Rules match one with one and many with many; the result never depends on the order of rows."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.two_people import close_difference
from tongbao.clearing.matching.model import (
    Entry,
    Pass,
    Rule,
    RuleWrong,
    differences,
    load_rule,
    match,
)
from tongbao.clearing.matching.runs import SideIncomplete, rule_id, run_rule
from tongbao.clearing.reconciliation import queries
from tongbao.clearing.reconciliation.queries import BreakFilter
from tongbao.clearing.sources.ingest import add_source, take_file
from tongbao.clearing.sources.layouts import load_layout
from tongbao.infra import failpoints
from tongbao.infra.db import Db
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.kernel.licence import Mode

DAY = date(2026, 11, 20)
NEXT = DAY + timedelta(days=1)

TEXT = """
name = "bank_and_partner"
en = "Bank against partner"
zh = "银行与合作方"
left = "source:{0}"
right = "source:{1}"
waits_days = 1
[[passes]]
left = ["number"]
right = ["number"]
[[passes]]
left = ["batch"]
right = ["number"]
many = true
tolerance = 1
"""
LAYOUT = """
name = "any"
en = "any"
zh = "任意"
format = "delimited"
names = ["number", "batch", "amount", "at"]
[fields]
number = { column = "number" }
batch = { column = "batch" }
amount = { column = "amount" }
at = { column = "at" }
"""


def entry(side: Any, place: int, number: str, amount: int, **more: Any) -> Entry:
    facts = {"day": DAY, "kind": "line", "ref": "", "batch": "", "line": place + 1}
    facts["at"] = datetime(2026, 11, 20, 12, tzinfo=BUSINESS_ZONE)
    return Entry(side=side, place=place, number=number, amount=amount, **{**facts, **more})


def rule(*passes: Pass) -> Rule:
    return Rule("r", "r", "r", "source:a", "source:b", passes or (Pass(("number",), ("number",)),))


def found(wanted: Rule, *entries: Entry) -> list[tuple[str, str, int | None, int | None]]:
    left = match(wanted, entries).left_over
    return [(each.key, each.found, each.left, each.right) for each in differences(wanted, left)]


def test_what_agrees_is_matched_and_the_rest_is_classed() -> None:
    assert found(
        rule(),
        *(entry("left", n, key, 100) for n, key in enumerate(("same", "short", "other", "twice"))),
        entry("right", 0, "same", 100),
        entry("right", 1, "other", 101),
        entry("right", 2, "long", 5),
        entry("right", 3, "twice", 100),
        entry("right", 4, "twice", 100),
    ) == [
        ("long", "missing_at_platform", None, 5),
        ("other", "amount_differs", 100, 101),
        ("short", "missing_at_channel", 100, None),
        ("twice", "duplicated_at_channel", 100, 200),
    ]


def test_one_credit_of_a_bank_matches_a_days_payments_less_its_refunds() -> None:
    wanted = rule(Pass(("number",), ("number",)), Pass(("batch",), ("number",), many=True))
    rows = [
        entry("left", n, f"p{n}", amount, batch="B1") for n, amount in enumerate((500, 300, -100))
    ]

    assert found(wanted, *rows, entry("right", 0, "B1", 700)) == []
    assert found(wanted, *rows, entry("right", 0, "B1", 701)) != []


def test_tolerance_and_window_are_the_rules() -> None:
    later = entry("right", 0, "a", 101, at=datetime(2026, 11, 21, 12, tzinfo=BUSINESS_ZONE))

    near = rule(Pass(("number",), ("number",), tolerance=1, within_hours=24))
    assert found(near, entry("left", 0, "a", 100), later) == []
    strict = rule(Pass(("number",), ("number",), tolerance=1, within_hours=23))
    assert found(strict, entry("left", 0, "a", 100), later) != []


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["left", "right"]),
        st.sampled_from(["", "a", "b", "c"]),
        st.sampled_from(["", "x", "y"]),
        st.integers(-3, 3),
    ),
    max_size=14,
)


def naive(wanted: Rule, rows: list[Entry]) -> Counter[tuple[str, int]]:
    """The rows left over, worked out the slow way: every key against every row."""
    left = list(rows)
    for by in wanted.passes:
        keep = list(left)
        for one in left:
            names = by.left if one.side == "left" else by.right
            key = [getattr(one, name) for name in names]
            if not all(key):
                continue
            sides = {
                side: [
                    row for row in left if row.side == side
                    and [getattr(row, n) for n in (by.left if side == "left" else by.right)] == key
                ]
                for side in ("left", "right")
            }  # fmt: skip
            counts = len(sides["left"]), len(sides["right"])
            fits = all(counts) if by.many else counts == (1, 1)
            sums = [sum(row.amount for row in rows) for rows in sides.values()]
            if fits and abs(sums[0] - sums[1]) <= by.tolerance:
                keep = [row for row in keep if row is not one]
        left = keep
    return Counter((row.side, row.place) for row in left)


@given(rows=ROWS, seed=st.integers(0, 9), tolerance=st.integers(0, 2))
@examples(max_examples=60, deadline=None)
def test_the_matcher_leaves_over_what_a_naive_one_does_in_any_order(
    rows: list[tuple[Any, str, str, int]], seed: int, tolerance: int
) -> None:
    wanted = rule(
        Pass(("number",), ("number",), tolerance=tolerance),
        Pass(("batch",), ("number",), many=True),
        Pass(("number", "batch"), ("number", "batch"), many=True, tolerance=1),
    )
    entries = [
        entry(side, place, number, amount, batch=batch)
        for place, (side, number, batch, amount) in enumerate(rows)
    ]
    mixed = list(entries)
    Random(seed).shuffle(mixed)

    matched, again = match(wanted, entries), match(wanted, mixed)

    assert Counter((row.side, row.place) for row in matched.left_over) == naive(wanted, entries)
    assert matched == again
    assert differences(wanted, matched.left_over) == differences(wanted, again.left_over)
    known = sum(len(bucket.rows) for bucket in matched.pairs) + len(matched.left_over)
    assert known == len(entries)


@pytest.mark.parametrize(
    ("old", "new"),
    [('left = ["batch"]', 'left = ["batch", "ref"]'), ("waits_days = 1", "waits_days = 99"),
     ('"source:{1}"', '"{1}"'), ("tolerance = 1", "tolerance = -1"),
     ("many = true", "meny = true")],
)  # fmt: skip
def test_a_rule_that_contradicts_itself_is_refused(old: str, new: str) -> None:
    assert old in TEXT

    with pytest.raises(RuleWrong):
        load_rule(TEXT.replace(old, new).encode())


# Runs


class Sides:
    """Two sources, and files for their days."""

    def __init__(self, db: Db, name: str, folder: Path) -> None:
        self.db, self.folder = db, folder
        self.names = f"{name}.ours", f"{name}.theirs"
        text = TEXT.replace("bank_and_partner", name)
        self.rule = load_rule(
            text.replace("{0}", self.names[0]).replace("{1}", self.names[1]).encode()
        )

    async def add(self) -> None:
        async with self.db.begin("operator") as tx:
            for name in self.names:
                await add_source(tx, name, load_layout(LAYOUT.encode()), Mode.LIVE)

    async def give(self, side: int, day: date, *rows: str) -> None:
        path = self.folder / "given.csv"
        path.write_text("".join(f"{row},{day} 12:00:00\n" for row in rows))
        await take_file(self.db, self.names[side], day, path, actor="me")

    async def both(self, day: date, ours: tuple[str, ...], theirs: tuple[str, ...]) -> None:
        await self.give(0, day, *ours)
        await self.give(1, day, *theirs)

    async def run(self, day: date) -> Any:
        return (await run_rule(self.db, self.rule, day, actor="me"))[-1].bill

    async def breaks(self, day: date) -> list[tuple[str, str, int, str]]:
        wanted = BreakFilter(account_id=rule_id(self.rule), day=day)
        page = await queries.list_breaks(self.db, wanted, limit=50)
        return sorted(
            (each.number, str(each.break_class), each.difference, str(each.state))
            for each in page.items
        )


async def sides(db: Db, name: str, folder: Path) -> Sides:
    made = Sides(db, name, folder)
    await made.add()
    return made


async def test_a_day_is_matched_and_running_again_doubles_nothing(
    module_db: Db, tmp_path: Path
) -> None:
    two = await sides(module_db, "again", tmp_path)
    await two.both(DAY, ("a,,1.00", "b,,2.00", "p,B,3.00", "q,B,-1.00"),
                   ("a,,1.00", "b,,2.50", "B,,2.01"))  # fmt: skip
    await two.both(NEXT, ("z,,1.00",), ("z,,1.00",))

    first = await two.run(DAY)
    again = await two.run(DAY)

    assert (first.row_count, first.matched_count, first.break_count) == (3, 2, 1)
    assert again.break_count == 1
    assert await two.breaks(DAY) == [("b", "amount_differs", 50, "open")]


async def test_a_row_of_the_next_days_file_was_cut_off_and_is_no_difference(
    module_db: Db, tmp_path: Path
) -> None:
    two = await sides(module_db, "cutoff", tmp_path)
    await two.both(DAY, ("late,,1.00", "lost,,2.00"), ("other,,9.00",))
    with pytest.raises(SideIncomplete):
        await two.run(NEXT)

    waiting = await two.run(DAY)
    await two.both(NEXT, ("other,,9.00",), ("late,,1.00",))
    await two.run(NEXT)

    assert (waiting.waiting_count, waiting.break_count) == (3, 0)
    assert await two.breaks(DAY) == [("lost", "missing_at_channel", -200, "open")]
    assert await two.breaks(NEXT) == []


async def test_a_row_that_was_cut_off_stays_explained_when_the_day_after_is_matched(
    module_db: Db, tmp_path: Path
) -> None:
    """Its match lies a day before it, so the day after, which looks back one day, sees it alone."""
    two = await sides(module_db, "explained", tmp_path)
    after = NEXT + timedelta(days=1)
    await two.both(DAY, ("late,,1.00", "other,,9.00"), ("early,,2.00", "other,,9.00"))
    await two.both(NEXT, ("early,,2.00", "lost,,4.00"), ("late,,1.00",))
    await two.both(after, ("last,,5.00",), ("last,,5.00",))

    for day in (DAY, NEXT, after):
        await two.run(day)

    assert await two.breaks(DAY) == []
    assert await two.breaks(NEXT) == [("lost", "missing_at_channel", -400, "open")]


async def test_a_row_that_comes_again_is_not_explained_by_what_is_matched_already(
    module_db: Db, tmp_path: Path
) -> None:
    two = await sides(module_db, "twice", tmp_path)
    after = NEXT + timedelta(days=1)
    last = after + timedelta(days=1)
    await two.both(DAY, ("a,,1.00",), ("a,,1.00", "early,,2.00"))
    await two.both(NEXT, ("early,,2.00", "b,,1.00"), ("b,,1.00",))
    await two.both(after, ("c,,1.00",), ("c,,1.00", "early,,2.00"))
    await two.both(last, ("d,,1.00",), ("d,,1.00",))

    for day in (DAY, NEXT, after, last):
        await two.run(day)

    assert await two.breaks(NEXT) == []
    assert await two.breaks(after) == [("early", "missing_at_platform", 200, "open")]


async def test_a_corrected_file_takes_its_differences_away_and_keeps_the_others(
    module_db: Db, tmp_path: Path
) -> None:
    two = await sides(module_db, "corrected", tmp_path)
    await two.both(DAY, ("a,,1.00", "b,,2.00", "c,,3.00"), ("a,,1.50", "b,,2.50", "c,,3.50"))
    await two.run(DAY)
    for number in ("b", "c"):
        [[break_id]] = await module_db.fetch(
            "select id from recon_break where account_id = $1 and number = $2",
            (rule_id(two.rule), number),
        )
        await close_difference(module_db, break_id, "agreed")

    await two.give(1, DAY, "a,,1.00", "b,,2.50", "c,,3.75")
    bill = await two.run(DAY)

    assert bill.version == 2
    assert await two.breaks(DAY) == [
        ("a", "amount_differs", 50, "gone"),
        ("b", "amount_differs", 50, "closed"),
        ("c", "amount_differs", 75, "open"),
    ]


async def test_whoever_dies_before_the_differences_are_kept_leaves_none(
    module_db: Db, tmp_path: Path
) -> None:
    two = await sides(module_db, "dies", tmp_path)
    await two.both(DAY, ("a,,1.00",), ("a,,2.00",))
    failpoints.arm("matching.before_record:raise")
    with pytest.raises(SimulatedCrash):
        await two.run(DAY)
    failpoints.arm(None)
    assert await two.breaks(DAY) == []

    await two.run(DAY)

    assert await two.breaks(DAY) == [("a", "amount_differs", 100, "open")]
