"""Rules with our own books as a side: channel bill, payments and ledger; bank and payouts."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.clearing.conftest import Day
from tests.clearing.test_matching import DAY, entry, found
from tests.clearing.test_payouts import now, settled
from tongbao.clearing.matching.model import Entry, Pass, Rule, RuleWrong, load_rule, match
from tongbao.clearing.matching.runs import DayResult, SideIncomplete, run_rule
from tongbao.clearing.sources.ingest import add_source, take_file
from tongbao.clearing.sources.layouts import built_in
from tongbao.kernel.licence import Mode

NUMBER = ("number",)


def three(**more: Any) -> Rule:
    by = Pass(NUMBER, NUMBER, left_third=("ref",), third=NUMBER, **more)
    return Rule("r", "r", "r", "source:a", "source:b", (by,), third="ledger:bank")


def test_a_payment_a_bill_and_a_booking_are_matched_together_or_told_apart() -> None:
    later = DAY + timedelta(days=1)
    assert found(
        three(),
        entry("left", 0, "same", 100, ref="p1"),
        entry("left", 1, "unbooked", 100, ref="p2"),
        entry("left", 2, "lost", 100, ref="p3"),
        entry("left", 3, "nowhere", 100, ref="p4"),
        entry("left", 4, "more", 100, ref="p5"),
        entry("left", 5, "late", 100, ref="p6"),
        *(
            entry("right", n, key, 100)
            for n, key in enumerate(("same", "unbooked", "more", "late"))
        ),
        entry("third", 0, "p1", 130),
        entry("third", 1, "p1", -30),  # netted
        entry("third", 2, "p3", 100),
        entry("third", 3, "p5", 101),
        entry("third", 4, "p6", 100, at=entry("third", 0, "", 0).at + timedelta(days=9)),
        entry("third", 5, "p7", 5, day=later),
        entry("third", 6, "p8", 5),
        entry("third", 7, "p8", -5),  # booked and taken back
    ) == [
        ("late", "cut_off", 100, 100),
        ("lost", "missing_at_channel", 100, None),
        ("more", "ledger_differs", 100, 100),
        ("nowhere", "missing_at_channel", 100, None),
        ("nowhere", "ledger_differs", 100, None),
        ("p7", "ledger_differs", None, None),
        ("unbooked", "ledger_differs", 100, 100),
    ]


def test_rows_that_one_booking_joins_are_matched_as_one() -> None:
    """Two captures of one payment, each on the bill by itself, booked under the payment's id."""
    rows = [
        entry("left", 0, "c1", 60, ref="p"), entry("left", 1, "c2", 40, ref="p"),
        entry("right", 0, "c1", 60), entry("right", 1, "c2", 40), entry("third", 0, "p", 100),
    ]  # fmt: skip
    assert found(three(many=True), *rows) == []
    assert found(three(many=True), *rows[:3], rows[4]) == [("c1", "amount_differs", 100, 60)]


def test_the_same_money_too_far_apart_was_cut_off() -> None:
    near = Rule("r", "r", "r", "source:a", "source:b", (Pass(NUMBER, NUMBER, within_hours=1),))
    rows = entry("left", 0, "a", 5), entry("right", 0, "a", 5)
    far = entry("right", 0, "a", 5, at=rows[0].at + timedelta(hours=2))

    assert found(near, *rows) == []
    assert found(near, rows[0], far) == [("a", "cut_off", 5, 5)]


def connected(wanted: Rule, rows: list[Entry]) -> Counter[tuple[str, int]]:
    """The rows left over, worked out the slow way: walk from row to row by the keys they share."""
    [by] = wanted.passes

    def links(row: Entry) -> set[tuple[Any, ...]]:
        if row.side == "third":
            return {("t", row.number)} if row.number else set()
        if not row.number:
            return set()
        joined = {("t", row.ref)} if row.side == "left" and row.ref else set()
        return {("n", row.number)} | joined

    left = Counter((row.side, row.place) for row in rows)
    for row in rows:
        group, keys = [row], links(row)
        grown = bool(keys)
        while grown:
            more = [each for each in rows if each not in group and links(each) & keys]
            group += more
            keys = keys.union(*(links(each) for each in more))
            grown = bool(more)
        sums = {
            side: sum(each.amount for each in group if each.side == side)
            for side in ("left", "right", "third")
        }
        has = {each.side for each in group}
        if {"left", "right"} <= has and max(sums.values()) - min(sums.values()) <= by.tolerance:
            del left[row.side, row.place]
    return left


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["left", "right", "third"]),
            st.sampled_from(["", "a", "b", "c"]),
            st.sampled_from(["", "a", "b", "c"]),
            st.integers(-2, 2),
        ),
        max_size=10,
    ),
    seed=st.integers(0, 9),
    tolerance=st.integers(0, 1),
)
@examples(max_examples=60, deadline=None)
def test_three_sides_leave_over_what_a_walk_by_keys_does_in_any_order(
    rows: list[tuple[Any, str, str, int]], seed: int, tolerance: int
) -> None:
    wanted = three(many=True, tolerance=tolerance)
    entries = [
        entry(side, place, number, amount, ref=ref)
        for place, (side, number, ref, amount) in enumerate(rows)
    ]
    mixed = list(entries)
    Random(seed).shuffle(mixed)

    matched = match(wanted, entries)

    assert Counter((each.side, each.place) for each in matched.left_over) == connected(
        wanted, entries
    )
    assert matched == match(wanted, mixed)


RULE = """
name = "three_ways"
en = "Bill, payments, ledger"
zh = "账单、支付与账本"
left = "{left}"
right = "source:{right}"
third = "{third}"
amounts = "gross"
[[passes]]
left = ["number"]
right = ["number"]
left_third = ["{key}"]
third = ["number"]
"""


def a_rule(**how: str) -> Rule:
    return load_rule(RULE.format(**how).encode())


@pytest.mark.parametrize(
    ("old", "new"),
    [("ledger:channel_receivable", "ledger:merchant_payable"), ('third = ["number"]', "third = []"),
     ("ledger:channel_receivable", "ledger:nothing"), ("payments:wechat_pay", "payments:"),
     ('third = "ledger:channel_receivable"', ""), ("ledger:channel_receivable", "source:bill"),
     ("payments:wechat_pay", "payouts:x")],
)  # fmt: skip
def test_a_side_that_is_none_is_refused(old: str, new: str) -> None:
    text = RULE.format(
        left="payments:wechat_pay", right="bill", third="ledger:channel_receivable", key="ref"
    )
    assert load_rule(text.encode())
    assert old in text
    with pytest.raises(RuleWrong):
        load_rule(text.replace(old, new).encode())


async def test_a_channels_bill_our_payments_and_the_ledger_are_matched_three_ways(
    day: Day, tmp_path: Path
) -> None:
    payments = await day.paid("wechat_pay", 1000, 2000, 3000)
    await day.stage.refund(payments[0], 300)
    await day.stage.advance(minutes=1)
    wanted = a_rule(
        left="payments:wechat_pay", right="wx", third="ledger:channel_receivable", key="ref"
    )
    async with day.db.begin("operator") as tx:
        await add_source(tx, "wx", built_in()["wechat_pay.trade"], Mode.SANDBOX)
    with pytest.raises(SideIncomplete):
        await run_rule(day.db, wanted, day.date, actor="me")
    await day.over()
    account = await day.clearing.flow.account(day.account("wechat_pay"))
    answer = await day.clearing.flow.channels["wechat_pay"].download_bill(
        account, day.date, tmp_path
    )
    bill = answer.outcome.path
    await take_file(day.db, "wx", day.date, bill, actor="me")

    agreed = (await run_rule(day.db, wanted, day.date, actor="me"))[-1]
    number = (await day.number(payments[1])).encode()
    lines = [line for line in bill.read_bytes().splitlines(keepends=True) if number not in line]
    total = lines[-1].replace(b"`4,", b"`3,").replace(b"`60.00,", b"`40.00,")
    bill.write_bytes(b"".join([*lines[:-1], total]))
    await take_file(day.db, "wx", day.date, bill, actor="me")
    short = (await run_rule(day.db, wanted, day.date, actor="me"))[-1]

    assert (agreed.bill.row_count, agreed.bill.matched_count) == (4, 4)
    assert agreed.differences == []
    assert [(each.found, each.left, each.third) for each in short.differences] == [
        ("missing_at_channel", 2000, 2000)
    ]
    assert short.bill.waiting_count == 1  # it may stand on tomorrow's


CAMT = """<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"><BkToCstmrStmt><Stmt>
<Ntry><Amt Ccy="CNY">{amount}</Amt><CdtDbtInd>{sign}</CdtDbtInd><Sts><Cd>BOOK</Cd></Sts>
<BookgDt><DtTm>{at}</DtTm></BookgDt>
<NtryDtls><TxDtls><Refs><EndToEndId>{number}</EndToEndId></Refs></TxDtls></NtryDtls></Ntry>
</Stmt></BkToCstmrStmt></Document>"""


async def test_a_banks_statement_payouts_and_the_ledgers_bank_are_matched_three_ways(
    day: Day, tmp_path: Path
) -> None:
    _, payout = await settled(day)
    await day.until(12, days=1)
    await day.stage.advance(minutes=1)
    paid = await now(day, payout)
    assert paid.ended_at is not None
    paid_on = day.date + timedelta(days=1)
    await day.until(1, days=2)
    async with day.db.begin("operator") as tx:
        await add_source(tx, "bank", built_in()["camt.053"], Mode.SANDBOX)
    wanted = a_rule(left="payouts", right="bank", third="ledger:bank", key="number")
    path = tmp_path / "statement.xml"

    async def run(**facts: str) -> DayResult:
        said = {"amount": "99.20", "sign": "DBIT", "number": payout.number}
        path.write_text(CAMT.format(**{**said, **facts}, at=paid.ended_at.isoformat()))
        await take_file(day.db, "bank", paid_on, path, actor="me")
        return (await run_rule(day.db, wanted, paid_on, actor="me"))[-1]

    agreed = await run()
    more = await run(amount="99.21")
    back = await run(sign="CRDT")

    assert (agreed.bill.matched_count, agreed.differences) == (1, [])
    [one] = more.differences
    assert (one.key, one.found, one.left, one.right, one.third) == (
        payout.number, "amount_differs", -9920, -9921, -9920,
    )  # fmt: skip
    assert [each.found for each in back.differences] == ["amount_differs"]
    assert (back.bill.version, back.bill.break_count) == (3, 1)
