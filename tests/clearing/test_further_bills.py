"""Bills beside that of trades are fetched every morning and matched like anybody's statement."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from tests.clearing.conftest import Day
from tests.clearing.test_reconciliation import number_of_refund
from tests.clearing.test_settlement_batches import MAY
from tests.clearing.test_transfers import let_go, row, send
from tests.payments.test_splits import may_be_split
from tests.stage import new_number
from tongbao.clearing.daily import seed
from tongbao.clearing.matching.model import Rule, load_rule
from tongbao.clearing.matching.runs import rule_id, run_rule
from tongbao.clearing.recon_rules.fetching import (
    WAITS,
    FetchFurtherBill,
    run_fetch_further_bill,
    source_of,
)
from tongbao.clearing.recon_rules.rules import Asked as RuleAsked
from tongbao.clearing.recon_rules.rules import (
    begin_built_in,
    bound,
    propose_rule,
    rules_on,
    versions_of_rule,
)
from tongbao.clearing.reconciliation import queries
from tongbao.clearing.reconciliation.queries import BreakFilter
from tongbao.clearing.sources.ingest import current_file, rows_of_file
from tongbao.clearing.transfers.queries import batch_with_id, items_of_batch
from tongbao.controls.approvals.approvals import approve
from tongbao.controls.approvals.model import acts_of
from tongbao.infra import failpoints
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.infra.tasks import Again, Lease
from tongbao.kernel.ids import base32, new_id, parse

RULE = """
name = "shares_at_wechat"
en = "Shares at WeChat Pay"
zh = "微信分账"
left = "splits:wechat_pay"
right = "source:{}"
[[passes]]
left = ["number"]
right = ["number"]
many = true
"""
AT_WECHAT = {"kind": "channel", "channel": "wechat_pay", "channel_kind": "MERCHANT_ID"}


def source(day: Day, kind: str, channel: str = "wechat_pay") -> str:
    return source_of(channel, kind, day.account(channel))


async def rows(day: Day, name: str) -> list[tuple[str, int]]:
    file = await current_file(day.db, name, day.date)
    if file is None:
        return []
    async with day.db.begin("tests") as tx:
        return sorted([(row.kind, row.amount) async for row in rows_of_file(tx, file.id)])


async def differences(day: Day, rule: Rule, when: date) -> list[tuple[str, int]]:
    await run_rule(day.db, rule, when, actor="tests")
    page = await queries.list_breaks(
        day.db, BreakFilter(account_id=rule_id(rule), day=when), limit=9
    )
    return [(str(each.break_class), each.difference) for each in page.items]


async def shared(day: Day) -> Any:
    """A payment of 100.00 of which another merchant got 3.00, and gave 1.00 back."""
    await may_be_split(day.stage, day.db, day.sandbox)
    client, call = day.stage.client, day.stage.call
    [payment] = await day.paid("wechat_pay", 10_000)
    bound = await call(client.splits.bind, **AT_WECHAT, account="86693852", name="张三")
    await day.stage.idle()
    parts = [{"receiver_id": bound["id"], "amount": 300}]
    terms = {"merchant_split_no": new_number(), "shares": parts}
    split = await call(client.splits.create, payment["id"], **terms)
    await day.stage.advance(seconds=30)
    back = {"receiver_id": bound["id"], "amount": 100, "merchant_return_no": new_number()}
    await call(client.splits.give_back, split["id"], **back)
    await day.stage.advance(seconds=30)
    return payment


async def test_the_morning_brings_every_bill_and_a_rule_finds_the_shares_in_it(day: Day) -> None:
    await shared(day)
    await day.paid("alipay", 5_000)
    async with day.db.begin("startup") as tx:
        await seed(tx, day.clearing.flow.licence)

    await day.until(10, 46, days=1)

    funds = await rows(day, source(day, "funds"))
    assert funds == sorted(
        [("交易", 10_000), ("扣除交易手续费", -60), ("分账", -300), ("分账回退", 100)]
    )
    splits = await rows(day, source(day, "splits"))
    assert splits == [("split", -300), ("split_return", 100)]
    assert sum(amount for _, amount in await rows(day, source(day, "funds", "alipay"))) > 4_900
    assert await rows(day, source(day, "funds_fees")) == [], "nothing moved there"
    rule = load_rule(RULE.format(source(day, "splits")).encode())
    assert await differences(day, rule, day.date) == []
    # A share the book does not have, as one given behind our back would be.
    await day.db.execute("update split_share set amount = 299", ())
    assert await differences(day, rule, day.date) == [("amount_differs", -1)]
    await day.sound()


async def by_default(day: Day) -> dict[str, list[tuple[str, int]]]:
    """What the rules that came with the program found of the day, by the bill they are about."""
    found = {}
    for rule in await rules_on(day.db, day.date):
        found[rule.right.removeprefix("source:").rpartition(".")[0]] = await differences(
            day, rule, day.date
        )
    return found


async def test_every_further_bill_has_a_rule_from_its_first_day_on(day: Day) -> None:
    """Payments, refunds, shares given and taken back and transfers: all of it is explained."""
    payment = await shared(day)
    await day.stage.refund(payment, 700)
    [other] = await day.paid("alipay", 50_000)
    await day.stage.refund(other, 500)
    report = await send(
        day,
        row("1", "alipay", "2088722000000201", "40.00"),
        row("2", "wechat_pay", "oPayee000000000000000000001", "10.00"),
    )
    await let_go(day, report["batch"])
    for _ in range(2):
        await day.stage.advance(minutes=6)
    async with day.db.begin("startup") as tx:
        await seed(tx, day.clearing.flow.licence)
    await day.until(11, 5, days=1)

    bills = {"wechat_pay.splits", "wechat_pay.funds", "alipay.funds"}
    assert await by_default(day) == {each: [] for each in bills}
    # The worker has run them by itself.
    for rule in await rules_on(day.db, day.date):
        wanted = BreakFilter(account_id=rule_id(rule), day=day.date)
        assert (await queries.list_breaks(day.db, wanted, limit=9)).items == []
    # Each finds what its bill does not bear out: here a share that is written down wrongly.
    await day.db.execute("update split_share set amount = 299", ())
    found = await by_default(day)
    assert found["wechat_pay.splits"] == found["wechat_pay.funds"] == [("amount_differs", -1)]
    assert found["alipay.funds"] == []


async def test_payouts_are_compared_with_the_bill_of_the_operating_account(day: Day) -> None:
    """A payee who has the money is a row there; one whose payout failed is none."""
    await day.paid("wechat_pay", 100_000)
    payees = [f"oPayee00000000000000000000{n}" for n in range(2)]
    report = await send(day, *(row(each[-1], "wechat_pay", each, "10.00") for each in payees))
    await let_go(day, report["batch"])
    await day.stage.advance(minutes=2)
    batch = await batch_with_id(day.db, parse("trb", report["batch"]["id"]))
    paid, failed = (item.channel_number for item in (await items_of_batch(day.db, batch)).items)
    for number, action in ((paid, "confirm"), (failed, "fail")):
        await day.stage.control("wechat/transfer", number=number, action=action)
    await day.stage.idle()
    async with day.db.begin("startup") as tx:
        await seed(tx, day.clearing.flow.licence)
    await day.until(11, 5, days=1)

    assert await rows(day, source(day, "funds_operation")) == [("商家转账", -1_000)]
    assert await by_default(day) == {"wechat_pay.funds": [], "wechat_pay.funds_operation": []}
    await day.db.execute("update transfer_item set amount = 999 where state = 'succeeded'", ())
    assert (await by_default(day))["wechat_pay.funds_operation"] == [("amount_differs", -1)]


@pytest.mark.parametrize("channel", ["wechat_pay", "alipay"])
async def test_what_a_bill_of_trades_has_wrong_is_no_difference_of_what_moved(
    day: Day, channel: str
) -> None:
    """The money is at the channel; only the list of trades is wrong, and says so once."""
    dropped, dearer, refunded = await day.paid(channel, 10_000, 20_000, 30_000)
    await day.stage.refund(refunded, 700)
    for fault, payment in (("drop_row", dropped), ("wrong_amount:5", dearer)):
        day.bill_fault(channel, fault, await day.number(payment))
    async with day.db.begin("startup") as tx:
        await seed(tx, day.clearing.flow.licence)
    await day.until(11, 5, days=1)

    assert await by_default(day) == {f"{channel}.funds": []}
    assert {each for each, _, _ in await day.classes(channel)} >= {
        *("missing_at_channel", "amount_differs")
    }


async def test_a_firm_without_funds_has_no_transfers_to_compare(day: Day) -> None:
    account = base32(day.account("alipay"))
    async with day.db.begin("tests") as tx:
        for bill in ("alipay.funds", "wechat_pay.funds_operation"):
            name = f"{bill}.{account}"
            await begin_built_in(tx, bill, name, account, day.date, may_hold_funds=False)
    [rule] = await rules_on(day.db, day.date)
    assert rule.left == f"payments:alipay/{account} + splits:alipay/{account}"


async def test_a_refund_that_is_done_the_day_after_it_was_asked_for_stays_explained(
    day: Day,
) -> None:
    """The fund bill has it on the first day, we on the second; the third looks back at one."""
    async with day.db.begin("startup") as tx:
        await seed(tx, day.clearing.flow.licence)
    [payment] = await day.paid("wechat_pay", 1000)
    day.stage.fault("wechat_pay", "refund", "processing")
    refund = await day.stage.refund(payment, 400)
    await day.until(12, days=1)
    await day.stage.control("wechat/refund", number=number_of_refund(refund), state="done")
    for number in (2, 3):
        await day.paid("wechat_pay", 2000)
        await day.until(12, days=number)
        await day.stage.advance(hours=1)  # a rule that ran before its file came looks again

    assert (await day.stage.read(refund))["status"] == "succeeded"
    for number in range(3):
        when = day.date + timedelta(days=number)
        found = (await queries.list_breaks(day.db, BreakFilter(day=when), limit=9)).items
        assert [(each.channel, each.number) for each in found] == []


async def test_what_people_make_of_a_built_in_rule_counts(day: Day) -> None:
    await day.paid("wechat_pay", 1_000)
    await day.over()
    task = FetchFurtherBill(day.account("wechat_pay"), "funds", day.date)
    await run_fetch_further_bill(day.clearing, task, Lease(new_id(), 1))
    [rule] = await rules_on(day.db, day.date)
    [version] = await versions_of_rule(day.db, rule.name)
    assert load_rule(version.written.encode()) == rule, "it can be changed as it is shown"
    acts = acts_of(*bound(day.db))
    async with day.db.begin("operator:anna") as tx:
        asked = RuleAsked("", day.date, "we compare by hand")
        approval = await propose_rule(tx, asked, ends=rule.name)
    async with day.db.begin("operator:bert") as tx:
        await approve(tx, acts, approval.id, digest=approval.digest.hex(), may=MAY)
    await day.stage.idle()
    assert await rules_on(day.db, day.date) == []

    async with day.db.begin("tests") as tx:  # as the next bill does
        account = base32(day.account("wechat_pay"))
        await begin_built_in(tx, "wechat_pay.funds", source(day, "funds"), account, day.date)

    assert await rules_on(day.db, day.date) == [], "it does not come back by itself"
    assert len(await versions_of_rule(day.db, rule.name)) == 2


async def test_a_bill_is_waited_for_and_given_up_when_it_is_too_late(day: Day) -> None:
    await day.paid("wechat_pay", 1_000)
    task = FetchFurtherBill(day.account("wechat_pay"), "funds", day.date)
    lease = Lease(new_id(), 1)
    assert isinstance(await run_fetch_further_bill(day.clearing, task, lease), Again)

    await day.over()
    day.bill_fault("wechat_pay", "late")
    assert isinstance(await run_fetch_further_bill(day.clearing, task, lease), Again)
    assert await run_fetch_further_bill(day.clearing, task, lease) is None
    assert await rows(day, source(day, "funds")) == [("交易", 1_000), ("扣除交易手续费", -6)]
    calls = len(await day_calls(day))
    assert await run_fetch_further_bill(day.clearing, task, lease) is None
    assert len(await day_calls(day)) == calls, "what is there is not asked for again"

    day.bill_fault("alipay", "late", times=9)
    late = FetchFurtherBill(day.account("alipay"), "funds", day.date)
    assert isinstance(await run_fetch_further_bill(day.clearing, late, lease), Again)
    day.db.clock.offset += WAITS + timedelta(days=1)
    assert await run_fetch_further_bill(day.clearing, late, lease) is None


async def day_calls(day: Day) -> list[str]:
    seen = await day.stage.call(day.sandbox.get, "requests", last=500)
    return [each["target"] for each in seen if "fundflowbill" in each["target"]]


@pytest.mark.parametrize(
    "place",
    ["fetching.after_download", "fetching.after_source", "sources.after_begin"],
)
async def test_whoever_dies_while_fetching_is_followed_by_who_fetches_again(
    day: Day, place: str
) -> None:
    await day.paid("wechat_pay", 1_000)
    await day.over()
    task = FetchFurtherBill(day.account("wechat_pay"), "funds", day.date)

    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await run_fetch_further_bill(day.clearing, task, Lease(new_id(), 1))
    failpoints.arm(None)
    await run_fetch_further_bill(day.clearing, task, Lease(new_id(), 1))

    assert await rows(day, source(day, "funds")) == [("交易", 1_000), ("扣除交易手续费", -6)]
    assert list(day.clearing.folder.glob("fetching-*")) == []
