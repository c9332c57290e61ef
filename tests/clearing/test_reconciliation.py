"""Bills against payments and ledger: what is planted is found, classed, and nothing else is."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tests.clearing.conftest import CHANNELS, Day
from tongbao.clearing.reconciliation import queries
from tongbao.clearing.reconciliation.days import look_again_after
from tongbao.clearing.reconciliation.model import DayNotBilled, RunOvertaken
from tongbao.kernel.ids import base32, parse
from tongbao.kernel.licence import Licence


def number_of_refund(refund) -> str:
    return base32(parse("ref", refund["id"]))


@pytest.mark.parametrize("channel", CHANNELS)
async def test_a_day_without_faults_matches_to_the_fen(day: Day, channel: str) -> None:
    first, _ = await day.paid(channel, 1999, 300)
    await day.stage.refund(first, 500)
    await day.stage.advance(minutes=1)
    await day.over()

    bill = await day.reconcile(channel)

    assert bill.state == "matched"
    assert (bill.row_count, bill.matched_count, bill.fault_count) == (3, 3, 0)
    assert (bill.payment_amount, bill.matched_payment_amount) == (2299, 2299)
    assert (bill.refund_amount, bill.matched_refund_amount) == (500, 500)
    assert bill.totals_agree
    assert await day.classes(channel) == []
    assert await day.booked("channel_cost") == bill.fee_amount == 12 + 2 - 3
    await day.sound()


@pytest.mark.parametrize("channel", CHANNELS)
async def test_every_planted_difference_is_found_and_classed_and_nothing_else(
    day: Day, channel: str
) -> None:
    payments = await day.paid(channel, 1000, 2000, 3000, 4000, 5000)
    _, dropped, other_amount, other_fee, refunded = [await day.number(each) for each in payments]
    refunds = [await day.stage.refund(payments[4], amount) for amount in (100, 200, 300, 400)]
    _, back_dropped, back_amount, back_fee = map(number_of_refund, refunds)
    await day.stage.advance(minutes=1)
    await day.over()
    for fault, number in (
        ("drop_row", dropped),
        ("wrong_amount:7", other_amount),
        ("wrong_fee:3", other_fee),
        ("drop_row", back_dropped),
        ("wrong_amount:9", back_amount),
        ("wrong_fee:1", back_fee),
        ("extra_row:555", ""),
    ):
        day.bill_fault(channel, fault, number)

    bill = await day.reconcile(channel)

    found = await day.classes(channel)
    [stranger] = [number for _, number, _ in found if number.startswith("sandboxextra")]
    assert sorted(found) == sorted(
        [
            ("missing_at_channel", dropped, -2000),
            ("amount_differs", other_amount, 7),
            ("fee_differs", other_fee, 3),
            ("missing_at_channel", back_dropped, -200),
            ("amount_differs", back_amount, 9),
            ("fee_differs", back_fee, 1),
            ("missing_at_platform", stranger, 555),
        ]
    )
    assert bill.state == "matched"
    assert bill.row_count == 5 + 4 - 2 + 1
    assert bill.matched_count == 3  # 1000, 5000 and the refund of 100
    assert bill.matched_payment_amount == 1000 + 5000
    assert bill.matched_refund_amount == 100
    assert bill.break_count == 7
    assert refunded not in {number for _, number, _ in found}
    await day.sound()


async def test_both_ways_of_a_channel_with_a_refunds_fee_are_right(day: Day) -> None:
    [paid] = await day.paid("wechat_pay", 10_000)
    await day.stage.refund(paid, 5_000)
    await day.stage.advance(minutes=1)
    day.sandbox.post("settings", **{"wechat.refund_fee": "kept"})
    try:
        await day.over()
        bill = await day.reconcile("wechat_pay")
    finally:
        day.sandbox.post("settings", **{"wechat.refund_fee": "returned"})

    assert bill.fee_amount == 60
    assert await day.classes("wechat_pay") == []


@pytest.mark.parametrize("channel", CHANNELS)
async def test_running_again_doubles_nothing(day: Day, channel: str) -> None:
    payments = await day.paid(channel, 1000, 2000)
    day.bill_fault(channel, "drop_row", await day.number(payments[0]))
    await day.over()

    first = await day.reconcile(channel)
    before = await day.breaks(channel)
    cost = await day.booked("channel_cost")
    second = await day.reconcile(channel)
    third = await day.reconcile(channel, again=True)

    assert (second.id, third.id) == (first.id, first.id)
    after = await day.breaks(channel)
    assert [each.id for each in after] == [each.id for each in before]
    assert [(each.state, each.reopened) for each in after] == [("open", 0)]
    assert await day.booked("channel_cost") == cost == 12
    events = await day.db.fetch("select 1 from event where type = 'reconciliation.day_matched'", ())
    assert len(events) == 1
    assert await day.db.fetch("select 1 from recon_item", ()) == []
    await day.sound()


async def test_a_bill_that_is_late_is_asked_for_again(day: Day) -> None:
    await day.paid("wechat_pay", 1000)
    await day.until(8, days=1)

    early = await day.reconcile("wechat_pay")
    assert (early.state, early.last_answer) == ("requested", "STATEMENT_CREATING")
    assert look_again_after(early, day.now) == timedelta(minutes=10)

    await day.until(9, 30, days=1)
    day.bill_fault("wechat_pay", "late")
    assert (await day.reconcile("wechat_pay")).state == "requested"
    assert (await day.reconcile("wechat_pay")).state == "matched"


async def test_a_day_is_billed_when_it_is_over(day: Day) -> None:
    with pytest.raises(DayNotBilled):
        await day.reconcile("wechat_pay")


async def test_a_day_without_trades_is_empty(day: Day) -> None:
    await day.over()

    bill = await day.reconcile("wechat_pay")

    assert (bill.state, bill.last_answer) == ("empty", "NO_STATEMENT_EXIST")
    assert await day.classes("wechat_pay") == []


async def test_alipay_is_quiet_about_an_empty_day_and_is_believed_only_in_the_afternoon(
    day: Day,
) -> None:
    await day.over()
    assert (await day.reconcile("alipay")).state == "requested"
    await day.until(12, 30, days=1)

    bill = await day.reconcile("alipay")

    assert bill.state == "empty"
    assert not bill.totals_agree  # nobody said that there was nothing, so it closes nothing


async def test_alipay_is_not_believed_about_a_day_on_which_we_collected(day: Day) -> None:
    await day.paid("alipay", 1000)
    await day.until(13, days=1)
    for _ in range(2):
        day.bill_fault("alipay", "late")
        assert (await day.reconcile("alipay")).state == "requested"

    assert (await day.reconcile("alipay")).state == "matched"


@pytest.mark.parametrize("channel", CHANNELS)
async def test_a_cut_bill_proves_no_absence_and_is_fetched_again(day: Day, channel: str) -> None:
    await day.paid(channel, 1000, 2000, 3000, 4000)
    await day.over()
    day.bill_fault(channel, "truncate:hashed" if channel == "wechat_pay" else "truncate")

    cut = await day.reconcile(channel)

    assert (cut.state, cut.is_complete) == ("incomplete", False)
    assert cut.row_count < 4
    assert "bill.truncated" in {each.code for each in await queries.faults(day.db, cut.id, limit=9)}
    assert await day.classes(channel) == []
    assert await day.booked("channel_cost") == 0

    whole = await day.reconcile(channel)

    assert (whole.state, whole.version, whole.row_count) == ("matched", 2, 4)
    assert await day.classes(channel) == []
    assert await day.booked("channel_cost") == 6 + 12 + 18 + 24
    versions = await queries.versions(day.db, day.account(channel), day.date)
    assert [(each.version, each.superseded_at is None) for each in versions] == [
        (1, False),
        (2, True),
    ]


@pytest.mark.parametrize("days", [-2, 2])
async def test_a_bill_of_another_day_proves_no_absence_and_is_fetched_again(
    day: Day, days: int
) -> None:
    [unheard] = await day.paid("wechat_pay", 1000)
    await day.over()
    number = await day.number(unheard)
    today, other = (str(each).encode() for each in (day.date, day.date + timedelta(days=days)))

    def of_another_day(bill: bytes) -> bytes:
        assert today in bill
        return bill.replace(today, other).replace(number.encode(), b"somebody-elses")

    wrong = await day.reconcile("wechat_pay", clearing=day.rewriting("wechat_pay", of_another_day))
    [fault] = await queries.faults(day.db, wrong.id, limit=9)

    assert (wrong.state, wrong.is_complete, wrong.row_count) == ("incomplete", False, 0)
    assert (fault.code, fault.text[:10].encode()) == ("bill.wrong_day", other)
    assert await day.classes("wechat_pay") == []
    assert (await day.reconcile("wechat_pay")).state == "matched"
    assert await day.classes("wechat_pay") == []


async def test_a_bill_of_another_merchant_proves_no_absence(day: Day) -> None:
    [unheard] = await day.paid("wechat_pay", 1000)
    await day.over()
    number = await day.number(unheard)
    account = await day.clearing.flow.account(day.account("wechat_pay"))
    mine = account.merchant_number.encode()
    others = mine[::-1]

    def of_another(bill: bytes) -> bytes:
        assert mine in bill
        return bill.replace(mine, others).replace(number.encode(), b"somebody-elses")

    wrong = await day.reconcile("wechat_pay", clearing=day.rewriting("wechat_pay", of_another))
    [fault] = await queries.faults(day.db, wrong.id, limit=9)

    assert (wrong.state, wrong.is_complete, wrong.row_count) == ("incomplete", False, 0)
    assert (fault.code, fault.text.split()[0]) == ("bill.wrong_merchant", others.decode())
    assert await day.classes("wechat_pay") == []
    assert (await day.reconcile("wechat_pay")).state == "matched"


async def test_a_bill_in_another_order_says_the_same(day: Day) -> None:
    await day.paid("wechat_pay", *range(1000, 1012))
    await day.over()

    def reversed_rows(bill: bytes) -> bytes:
        header, *rows, names, total = bill.splitlines(keepends=True)
        assert len(rows) == 12
        return b"".join([header, *reversed(rows), names, total])

    turned = await day.reconcile("wechat_pay", clearing=day.rewriting("wechat_pay", reversed_rows))

    assert (turned.state, turned.matched_count) == ("matched", 12)
    assert await day.classes("wechat_pay") == []


async def test_a_download_whose_digest_differs_is_no_bill(day: Day) -> None:
    await day.paid("wechat_pay", 1000)
    await day.over()
    day.bill_fault("wechat_pay", "truncate")

    bill = await day.reconcile("wechat_pay")

    assert bill.state == "requested"
    assert "SHA-1" in bill.last_answer
    assert (await day.reconcile("wechat_pay")).state == "matched"


async def test_rows_that_cannot_be_read_are_told_one_by_one_and_the_others_count(day: Day) -> None:
    payments = await day.paid("wechat_pay", 1000, 2000, 3000)
    numbers = [(await day.number(each)).encode() for each in payments]

    def spoil(content: bytes) -> bytes:
        lines = content.split(b"\r\n")
        broken = [
            line.replace(b"`20.00", b"`twenty").replace(b"`30.00", b"`3\xff0") for line in lines
        ]
        return b"\r\n".join([broken[0], b"complete nonsense", *broken[1:]])

    await day.over()
    bill = await day.reconcile("wechat_pay", clearing=day.rewriting("wechat_pay", spoil))

    faults = await queries.faults(day.db, bill.id, limit=9)
    assert [each.code for each in faults] == [
        "bill.columns_differ",
        "bill.amount_malformed",
        "bill.not_text",
    ]
    assert numbers[1].decode() in faults[1].text
    assert (bill.state, bill.row_count, bill.fault_count) == ("matched", 1, 3)
    assert not bill.totals_agree
    # The lines name the trades they stood for, so these are not missing: they are unreadable.
    assert await day.classes("wechat_pay") == []
    await day.sound()


async def test_a_bill_that_contradicts_itself_says_so(day: Day) -> None:
    await day.paid("wechat_pay", 1000, 2000)
    await day.over()

    def lie(content: bytes) -> bytes:
        head, mark, tail = content.rpartition(b"`30.00")
        assert mark
        return head + b"`31.00" + tail

    bill = await day.reconcile("wechat_pay", clearing=day.rewriting("wechat_pay", lie))

    assert bill.state == "matched"
    assert not bill.totals_agree
    assert await day.classes("wechat_pay") == [("totals_differ", "", 100)]


async def test_a_row_that_comes_twice_is_a_duplicate(day: Day) -> None:
    payments = await day.paid("wechat_pay", 1000, 2000)
    twice = await day.number(payments[1])

    def repeat(content: bytes) -> bytes:
        lines = content.split(b"\r\n")
        copy = next(line for line in lines if twice.encode() in line)
        return b"\r\n".join([lines[0], copy, *lines[1:]])

    await day.over()
    bill = await day.reconcile("wechat_pay", clearing=day.rewriting("wechat_pay", repeat))

    assert await day.classes("wechat_pay") == [
        ("duplicated_at_channel", twice, 2000),
        ("totals_differ", "", -2000),
    ]
    assert bill.matched_count == 1


@pytest.mark.parametrize("channel", CHANNELS)
async def test_the_bill_settles_what_no_query_could(day: Day, channel: str) -> None:
    """Paid while every word of it was lost: the payment is unknown until the bill comes."""
    payment = await day.stage.show_qr(channel, 4200)
    number = await day.number(payment)
    day.stage.fault(channel, "callback", "lost", number=number, times=-1)
    day.stage.fault(channel, "query", "http_500", number=number, times=-1)
    day.stage.fault(channel, "close", "http_500", number=number, times=-1)
    await day.stage.customer(payment)
    await day.over()
    assert (await day.stage.read(payment))["status"] == "pending"

    bill = await day.reconcile(channel)

    assert bill.matched_count == 1
    assert await day.classes(channel) == []
    paid = await day.stage.read(payment)
    assert paid["status"] == "succeeded"
    assert (await day.stage.postings(payment))[0] == ("payment.captured/gross", 4200)
    assert "payment.succeeded" in await day.stage.events(payment)
    await day.sound()


@pytest.mark.parametrize("channel", CHANNELS)
async def test_what_no_complete_bill_shows_did_not_happen(day: Day, channel: str) -> None:
    payment = await day.stage.show_qr(channel, 4200)
    await day.paid(channel, 100)
    number = await day.number(payment)
    day.stage.fault(channel, "query", "http_500", number=number, times=-1)
    day.stage.fault(channel, "close", "http_500", number=number, times=-1)
    await day.over()
    assert (await day.stage.read(payment))["status"] == "pending"
    if channel == "wechat_pay":
        day.bill_fault(channel, "truncate:hashed")
        await day.reconcile(channel)
        assert (await day.stage.read(payment))["status"] == "pending"

    await day.reconcile(channel)

    closed = await day.stage.read(payment)
    assert closed["status"] == "closed"
    assert (await day.stage.attempt_of(payment)).code == "bill.absent"
    assert await day.classes(channel) == []


@pytest.mark.parametrize("channel", CHANNELS)
async def test_a_refund_nobody_heard_of_again_is_settled_by_the_bill(
    day: Day, channel: str
) -> None:
    [payment] = await day.paid(channel, 4200)
    day.stage.fault(channel, "refund", "time_out_done", times=-1)
    day.stage.fault(channel, "refund_query", "http_500", times=-1)
    day.stage.fault(channel, "callback", "lost", times=-1)
    refund = await day.stage.refund(payment, 1200)
    await day.stage.advance(minutes=1)
    await day.over()
    assert (await day.stage.read(refund))["status"] == "unknown"

    await day.reconcile(channel)

    assert (await day.stage.read(refund))["status"] == "succeeded"
    assert await day.classes(channel) == []
    await day.sound()


@pytest.mark.parametrize("channel", CHANNELS)
async def test_a_reversed_payment_code_is_no_difference(day: Day, channel: str) -> None:
    """The customer paid just before the code was reversed: the bill shows both, we hold none."""
    code = await day.stage.code(channel, "ask_forever")
    payment = await day.stage.scan_code(code, 800)
    number = await day.number(payment)
    day.stage.fault(channel, "close", "paid_just_before", number=number)
    await day.stage.advance(minutes=3)
    assert (await day.stage.read(payment))["status"] == "closed"
    await day.over()

    bill = await day.reconcile(channel)

    assert (bill.row_count, bill.payment_amount, bill.refund_amount) == (2, 800, 800)
    assert await day.classes(channel) == []
    assert bill.matched_count == 2
    assert (await day.stage.read(payment))["status"] == "closed"
    assert await day.stage.cases(payment) == []


async def test_a_reversal_that_nobody_answered_for_waits_for_the_bill_that_shows_it(
    day: Day,
) -> None:
    """Paid, and undone a day later without an answer: the first day's bill alone would deceive."""
    code = await day.stage.code("wechat_pay", "pay")
    day.stage.fault("wechat_pay", "pay", "time_out_paid")
    day.stage.fault("wechat_pay", "query", "http_500", times=-1)
    day.stage.fault("wechat_pay", "callback", "lost", times=-1)
    payment = await day.stage.scan_code(code, 800)
    number = await day.number(payment)
    day.stage.fault("wechat_pay", "close", "time_out_done", number=number, times=-1)
    await day.over()
    trade = await day.stage.trade_of(payment)
    assert trade is not None
    assert trade["state"] == "reversed"

    first = await day.reconcile("wechat_pay")

    assert (first.row_count, first.waiting_count) == (1, 1)
    assert await day.classes("wechat_pay") == []
    assert (await day.stage.read(payment))["status"] == "unknown"

    await day.over(days=2)
    second = await day.reconcile("wechat_pay", day=day.date + timedelta(days=1))

    assert second.row_count == 1
    assert (await day.stage.read(payment))["status"] == "closed"
    assert await day.classes("wechat_pay") == []
    assert await day.classes("wechat_pay", second.day) == []
    report = await queries.report(day.db, day.account("wechat_pay"), day.date)
    assert report.waiting == []


async def test_a_bill_that_forgets_a_reversal_moves_no_money(day: Day) -> None:
    """The channel itself says that the order is undone, so the bill is what differs."""
    code = await day.stage.code("wechat_pay", "ask_forever")
    payment = await day.stage.scan_code(code, 800)
    number = await day.number(payment)
    day.stage.fault("wechat_pay", "close", "paid_just_before", number=number)
    await day.stage.advance(minutes=3)
    await day.over()

    def forget(content: bytes) -> bytes:
        lines = content.split(b"\r\n")
        return b"\r\n".join(line for line in lines if b"`REVOKED," not in line)

    await day.reconcile("wechat_pay", clearing=day.rewriting("wechat_pay", forget))
    await day.stage.idle()

    assert await day.classes("wechat_pay") == [
        ("state_differs", number, 800),
        ("totals_differ", "", -800),
    ]
    assert (await day.stage.read(payment))["status"] == "closed"
    assert await day.stage.postings(payment) == []


@pytest.mark.parametrize("channel", CHANNELS)
async def test_money_that_only_the_bill_tells_of_after_the_end_is_given_back(
    day: Day, channel: str
) -> None:
    payment = await day.stage.show_qr(channel, 4300)
    number = await day.number(payment)
    day.stage.fault(channel, "callback", "lost", number=number, times=-1)
    day.stage.fault(channel, "close", "late_success", number=number)
    await day.stage.close(payment)
    await day.over()
    trade = await day.stage.trade_of(payment)
    if trade is None or trade["paid_at"] is None:
        pytest.skip("this channel takes no money for a code that is closed")

    await day.reconcile(channel)
    await day.stage.idle()
    await day.stage.advance(minutes=1)
    await day.stage.advance(minutes=1)

    assert await day.classes(channel) == []
    assert await day.stage.given_back(payment) == [4300]
    await day.sound()


async def test_a_payment_that_the_channel_undid_and_we_hold_is_a_difference(day: Day) -> None:
    code = await day.stage.code("wechat_pay", "ask_forever")
    payment = await day.stage.scan_code(code, 800)
    number = await day.number(payment)
    day.stage.fault("wechat_pay", "close", "paid_just_before", number=number)
    await day.stage.advance(minutes=3)
    attempt = await day.stage.attempt_of(payment)
    await day.db.execute(
        "update attempt set state = 'succeeded', channel_ref = 'x', paid_at = $2 where id = $1",
        (attempt.id, day.now),
    )
    await day.over()

    await day.reconcile("wechat_pay")

    # We hold what was given back, and without a posting too.
    assert await day.classes("wechat_pay") == [
        ("ledger_differs", number, 800),
        ("state_differs", number, 800),
    ]


async def test_a_refund_that_failed_here_and_not_there_is_a_difference(day: Day) -> None:
    [payment] = await day.paid("wechat_pay", 1000)
    refund = await day.stage.refund(payment, 400)
    await day.db.execute(
        "update refund set state = 'failed', ended_at = $2 where id = $1",
        (parse("ref", refund["id"]), day.now),
    )
    await day.stage.advance(minutes=1)
    await day.over()

    await day.reconcile("wechat_pay")

    assert await day.classes("wechat_pay") == [("state_differs", number_of_refund(refund), 400)]


async def test_the_ledger_is_the_third_side(day: Day) -> None:
    payments = await day.paid("alipay", 1000, 2000)
    ids = [parse("pay", payment["id"]) for payment in payments]
    await day.db.execute("grant update on ledger_transfer to current_user", ())
    await day.db.execute(
        "update ledger_transfer set amount = amount - 1"
        " where reference = $1 and code in"
        " (select number from ledger_code where code = 'payment.captured/gross')",
        (ids[1],),
    )
    await day.over()

    await day.reconcile("alipay")

    number = await day.number(payments[1])
    [found] = await day.breaks("alipay")
    assert (found.break_class, found.number) == ("ledger_differs", number)
    assert (found.platform_amount, found.ledger_amount, found.difference) == (2000, 1999, 1)
    assert found.payment_id == ids[1]
    assert await queries.breaks_of_payment(day.db, ids[1]) == [found]


# Midnight


async def move_paid_at(day: Day, payment, *, minutes: float) -> None:
    """Let our note of the channel's time be so far off, as a clock that differs would."""
    attempt = await day.stage.attempt_of(payment)
    at = attempt.paid_at + timedelta(minutes=minutes)
    await day.db.execute("update attempt set paid_at = $2 where id = $1", (attempt.id, at))


async def test_what_is_near_midnight_waits_for_the_next_days_bill(day: Day) -> None:
    await day.until(0, 2, days=1)
    [payment] = await day.paid("wechat_pay", 1000)
    await move_paid_at(day, payment, minutes=-5)
    await day.over()

    first = await day.reconcile("wechat_pay")
    assert (first.state, first.waiting_count) == ("empty", 1)
    assert await day.classes("wechat_pay") == []
    report = await queries.report(day.db, day.account("wechat_pay"), day.date)
    assert [each.number for each in report.waiting] == [await day.number(payment)]

    await day.over(days=2)
    second = await day.reconcile("wechat_pay", day=day.date + timedelta(days=1))

    assert second.matched_count == 1
    assert await day.classes("wechat_pay") == []
    assert await day.classes("wechat_pay", second.day) == []
    report = await queries.report(day.db, day.account("wechat_pay"), day.date)
    assert report.waiting == []
    assert report.bill.waiting_count == 0


async def test_what_waited_in_vain_is_missing(day: Day) -> None:
    await day.until(23, 55)
    [payment] = await day.paid("alipay", 1000)
    await day.paid("alipay", 2000)
    number = await day.number(payment)
    day.bill_fault("alipay", "drop_row", number)
    await day.over()

    await day.reconcile("alipay")
    assert await day.classes("alipay") == []

    await day.paid("alipay", 3000)
    await day.over(days=2)
    await day.reconcile("alipay", day=day.date + timedelta(days=1))

    assert await day.classes("alipay") == [("missing_at_channel", number, -1000)]
    assert await day.classes("alipay", day.date + timedelta(days=1)) == []


@pytest.mark.parametrize("channel", CHANNELS)
async def test_a_row_that_comes_with_the_next_days_bill_is_cut_off_and_no_difference(
    day: Day, channel: str
) -> None:
    """The channel's day ended before ours: what it took just then is on its next bill."""
    await day.paid(channel, 2000)
    await day.until(23, 55)
    [payment] = await day.paid(channel, 1000)
    number = await day.number(payment)
    day.bill_fault(channel, "late_row", number)
    await day.over()

    first = await day.reconcile(channel)
    assert (first.matched_count, first.waiting_count) == (1, 1)
    assert await day.classes(channel) == []
    report = await queries.report(day.db, day.account(channel), day.date)
    assert [each.number for each in report.waiting] == [number]

    await day.paid(channel, 3000)
    await day.over(days=2)
    second = await day.reconcile(channel, day=day.date + timedelta(days=1))

    assert (second.row_count, second.matched_count) == (2, 2)
    assert await day.classes(channel) == []
    assert await day.classes(channel, second.day) == []
    report = await queries.report(day.db, day.account(channel), day.date)
    assert report.waiting == []
    await day.sound()


@pytest.mark.parametrize("channel", CHANNELS)
async def test_a_row_of_midday_that_comes_a_day_late_is_missing_until_it_comes(
    day: Day, channel: str
) -> None:
    payment, _ = await day.paid(channel, 1000, 2000)
    number = await day.number(payment)
    day.bill_fault(channel, "late_row", number)
    await day.over()
    await day.reconcile(channel)
    assert await day.classes(channel) == [("missing_at_channel", number, -1000)]

    await day.over(days=2)
    second = await day.reconcile(channel, day=day.date + timedelta(days=1))

    assert second.matched_count == 1
    assert await day.classes(channel, second.day) == []
    assert await day.classes(channel) == []
    [gone] = await day.breaks(channel)
    assert (gone.state, gone.closed_by) == ("gone", "reconciliation")
    assert await day.booked("channel_cost") == 12 + 6
    await day.sound()


async def test_what_an_earlier_days_bill_shows_is_not_missing(day: Day) -> None:
    await day.until(23, 59)
    [payment] = await day.paid("wechat_pay", 1000)
    await move_paid_at(day, payment, minutes=5)
    await day.over()
    first = await day.reconcile("wechat_pay")
    assert first.matched_count == 1
    await day.over(days=2)

    second = await day.reconcile("wechat_pay", day=day.date + timedelta(days=1))

    assert second.state == "empty"
    assert await day.classes("wechat_pay", second.day) == []


async def test_a_refund_is_looked_for_on_the_day_it_was_asked_for(day: Day) -> None:
    """WeChat Pay bills a refund on the day it was asked for, though it is done days later."""
    [payment] = await day.paid("wechat_pay", 1000)
    day.stage.fault("wechat_pay", "refund", "processing")
    refund = await day.stage.refund(payment, 400)
    await day.over()
    first = await day.reconcile("wechat_pay")
    assert await day.classes("wechat_pay") == []
    assert first.row_count == 2

    number = number_of_refund(refund)
    await day.stage.control("wechat/refund", number=number, state="done")
    await day.stage.advance(hours=2)
    assert (await day.stage.read(refund))["status"] == "succeeded"
    await day.over(days=2)
    await day.reconcile("wechat_pay", day=day.date + timedelta(days=1))

    assert await day.classes("wechat_pay", day.date + timedelta(days=1)) == []


async def test_another_day_is_not_disturbed_by_a_bill_that_never_comes(day: Day) -> None:
    await day.paid("wechat_pay", 1000)
    await day.until(9, days=1)
    await day.paid("wechat_pay", 2000)
    await day.over(days=2)
    day.bill_fault("wechat_pay", "truncate", times=-1)
    assert (await day.reconcile("wechat_pay")).state == "requested"
    day.sandbox.delete("faults")

    bill = await day.reconcile("wechat_pay", day=day.date + timedelta(days=1))

    assert (bill.state, bill.matched_count) == ("matched", 1)
    assert (await day.reconcile("wechat_pay")).matched_count == 1


# Firms and runs


@pytest.mark.parametrize("licence", [Licence.AGGREGATOR])
async def test_an_aggregator_reconciles_without_a_ledger(day: Day) -> None:
    payments = await day.paid("wechat_pay", 1000, 2000)
    number = await day.number(payments[0])
    day.bill_fault("wechat_pay", "drop_row", number)
    await day.over()

    bill = await day.reconcile("wechat_pay")

    assert bill.state == "matched"
    assert await day.classes("wechat_pay") == [("missing_at_channel", number, -1000)]
    assert await day.db.fetch("select 1 from ledger_transfer", ()) == []
    tables = await day.db.fetch(
        "select 1 from pg_tables where tablename in ('settlement', 'settlement_line', 'payout')",
        (),
    )
    assert tables == []


async def test_of_two_runs_at_once_one_counts_and_nothing_is_doubled(day: Day) -> None:
    payments = await day.paid("alipay", 1000, 2000)
    day.bill_fault("alipay", "wrong_fee:1", await day.number(payments[0]))
    await day.over()
    await day.reconcile("alipay")
    cost = await day.booked("channel_cost")

    outcomes = await asyncio.gather(
        *(day.reconcile("alipay") for _ in range(4)), return_exceptions=True
    )

    wrong = [
        each
        for each in outcomes
        if isinstance(each, BaseException) and not isinstance(each, RunOvertaken)
    ]
    assert wrong == []
    await day.reconcile("alipay")
    assert len(await day.breaks("alipay")) == 1
    assert await day.booked("channel_cost") == cost
    assert await day.db.fetch("select 1 from recon_item", ()) == []
    await day.sound()
