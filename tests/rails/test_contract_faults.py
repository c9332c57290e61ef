"""The contract under every fault of the sandbox: each channel, each mode it declares, each call.

What is asserted is where the money is, looked up at the sandbox behind the channel's back. Each
fault meets one mode of each channel by default; TONGBAO_CAMPAIGN=1 crosses all of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from msgspec import structs

import tongbao_sandbox.channels
from tests.rails.alipay_desk import account_of
from tests.rails.stalls import CHARGES, PRICE, STALLS, Stall
from tongbao.kernel.ids import new_id
from tongbao.kernel.money import Money
from tongbao.rails.channels.contract.callbacks import Callback, CallbackKind
from tongbao.rails.channels.contract.orders import PayMode, PayOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Closed,
    Declined,
    NotSent,
    Pending,
    Succeeded,
    Unknown,
)
from tongbao_sandbox.faults import FAULTS

WHOLE = os.environ.get("TONGBAO_CAMPAIGN", "0") != "0"
OpenStall = Callable[[str], Stall]

PROXY_PAYS = {"http_502_paid", "http_502_unpaid", "http_503_unpaid"}
PROXY_REFUNDS = {"http_502_done", "http_502_not_done", "http_503_not_done"}
PROXY = {"http_502", "http_503"}
# What the sandbox can do wrong, by point and by channel ("" means every channel): the names under
# "lost" leave us without a good answer, those under "told" do not.
LOST: dict[str, dict[str, set[str]]] = {
    "pay": {
        "": {"time_out_paid", "time_out_unpaid", "bad_signature_paid", "reset"},
        "wechat_pay": PROXY_PAYS
        | {"http_500_paid", "http_500_unpaid", "http_429", "time_out_made"},
        "alipay": PROXY_PAYS
        | {
            *("http_500_paid", "http_500_unpaid", "http_429"),
            *("system_error_paid", "system_error_unpaid"),
        },
        "unionpay": PROXY_PAYS
        | {"http_500_paid", "http_500_unpaid", "http_429", "time_out_made", "code"},
        "unionpay_qra": PROXY_PAYS
        | {"http_500_paid", "http_500_unpaid", "http_429", "time_out_made"},
        "cards": {"wrong_amount_paid", "reset_mid_frame_paid"},
    },
    "query": {
        "": PROXY | {"time_out", "bad_signature", "http_500", "http_429"},
        "alipay": {"system_error"},
        "unionpay": {"code"},
    },
    "refund": {
        "": {"time_out_done", "time_out_not_done", "bad_signature_done"},
        "wechat_pay": PROXY_REFUNDS | {"http_500_done", "http_500_not_done", "http_429"},
        "alipay": PROXY_REFUNDS
        | {
            *("http_500_done", "http_500_not_done", "http_429"),
            *("system_error_done", "system_error_not_done"),
        },
        "unionpay": PROXY_REFUNDS | {"http_500_done", "http_500_not_done", "http_429", "code"},
        "unionpay_qra": PROXY_REFUNDS | {"http_500_done", "http_500_not_done", "http_429"},
        "cards": {"wrong_amount_done", "reset_mid_frame_done", "reset"},
    },
    "refund_query": {"": PROXY | {"http_500", "time_out"}, "unionpay": {"code"}, "cards": set()},
    "close": {
        "": {"time_out_done"},
        "wechat_pay": PROXY | {"http_500"},
        "alipay": PROXY | {"http_500", "system_error", "retry", "time_out"},
        "unionpay": PROXY | {"http_500", "http_500_done", "bad_signature_done", "code"},
        "unionpay_qra": PROXY | {"http_500"},
        "cards": {
            *("time_out_not_done", "bad_signature_done", "wrong_amount_done"),
            *("reset", "reset_mid_frame_done"),
        },
    },
}
TOLD: dict[str, set[str]] = {
    "pay": {"slow", "processing", "doubled_answer", "new_key"},
    "query": {"slow", "stale", "doubled_answer", "reset"},
    "refund": {"processing", "abnormal", "not_enough", "slow", "doubled_answer"},
    "refund_query": {"stale"},
    "close": {"slow", "paid_just_before", "late_success", "doubled_answer"},
}
ALIASES: dict[str, set[str]] = {
    # Names that `allow` also admits at a point where they say what another name says there.
    "pay": PROXY_REFUNDS
    | {
        *("time_out_done", "time_out_not_done", "http_500_done", "http_500_not_done"),
        *("bad_signature_done", "wrong_amount_done", "reset_mid_frame_done"),
    },
    "query": set(),
    "refund": set(),
    "refund_query": set(),
    "close": set(),
}


def lost(point: str, channel: str) -> list[str]:
    common = set() if channel == "cards" and point in {"query", "refund_query"} else LOST[point][""]
    return sorted(common | LOST[point].get(channel, set()))


def modes_of(channel: str) -> list[PayMode]:
    return sorted(STALLS[channel].makes.modes)


def crossed(point: str) -> list[Any]:
    """Every channel × mode × fault; by default each fault once per channel, modes taking turns."""
    cases = []
    for channel in sorted(STALLS):
        modes, faults = modes_of(channel), lost(point, channel)
        width = max(len(modes), len(faults))
        taken = {(modes[i % len(modes)], faults[i % len(faults)]) for i in range(width)}
        cases += [
            pytest.param(channel, mode, fault, id=f"{channel}-{mode}-{fault}")
            for mode in modes
            for fault in faults
            if WHOLE or (mode, fault) in taken
        ]
    return cases


def each(point: str) -> list[Any]:
    return [
        pytest.param(channel, fault, id=f"{channel}-{fault}")
        for channel in sorted(STALLS)
        for fault in lost(point, channel)
    ]


EVERY_MODE = [
    pytest.param(channel, mode, id=f"{channel}-{mode}")
    for channel in sorted(STALLS)
    for mode in modes_of(channel)
]


def test_no_fault_of_the_sandbox_is_left_out() -> None:
    assert tongbao_sandbox.channels.CHANNELS, "importing them fills the table of faults"
    for point, by_channel in LOST.items():
        met = set().union(*by_channel.values()) | TOLD[point] | ALIASES[point]
        assert FAULTS[point] <= met, point


@pytest.mark.parametrize(("channel", "mode"), EVERY_MODE)
async def test_a_payment_is_taken_once_however_often_it_is_sent(
    channel: str, mode: PayMode, stall_at: OpenStall
) -> None:
    stall = stall_at(channel)
    order = await stall.order(mode)
    for _ in range(3):
        answer = await stall.place(order)
        assert not isinstance(answer.outcome, Declined | NotSent), answer
    if mode not in CHARGES:
        assert stall.taken(order) == 0
        await stall.meet(order)
    await stall.advance(3)  # some take a moment
    again = await stall.channel.pay(stall.account, order)
    assert not isinstance(again.outcome, Declined), "a repeat of what is paid is no failure"
    if stall.answers_queries and mode not in stall.unasked:
        # Who never heard the first answer offers again, and would wait for ever on less than this.
        assert isinstance(again.outcome, Succeeded | Pending), again
    assert stall.taken(order) == PRICE.amount
    assert len(stall.trades(order)) == 1
    if stall.answers_queries:
        found = (await stall.channel.query(stall.account, order)).outcome
        assert isinstance(found, Succeeded), found
        assert found.money == PRICE


@pytest.mark.parametrize(("channel", "mode", "fault"), crossed("pay"))
async def test_a_payment_without_a_good_answer_is_unknown_and_the_truth_is_found(
    channel: str, mode: PayMode, fault: str, stall_at: OpenStall
) -> None:
    stall = stall_at(channel)
    order = await stall.order(mode)
    stall.fault("pay", fault, order.number)
    answer = await stall.place(order)
    if mode in stall.unasked:  # signed here; the fault waits for the customer's browser
        assert isinstance(answer.outcome, Pending), answer
        assert answer.exchange.status is None
    else:
        assert isinstance(answer.outcome, Unknown), answer
        assert answer.outcome.reason
    await stall.advance(3)  # some take a moment
    taken = stall.taken(order)
    if fault.endswith("_paid") and mode not in stall.unasked:
        assert taken == PRICE.amount
    if not stall.answers_queries:
        closed = (await stall.channel.close(stall.account, order)).outcome
        assert isinstance(closed, Closed | Absent), closed
        assert stall.taken(order) - stall.given_back(order) == 0
        return
    found = (await stall.channel.query(stall.account, order)).outcome
    if taken:
        assert isinstance(found, Succeeded), found
        assert found.money == PRICE
    else:
        assert isinstance(found, Pending | Absent | Closed | Unknown), found
    await stall.place(order)
    await stall.advance(3)  # some take a moment
    assert len(stall.trades(order)) <= 1
    assert stall.taken(order) in {taken, PRICE.amount}


@pytest.mark.parametrize(("channel", "mode"), EVERY_MODE)
async def test_a_slow_answer_is_the_answer(
    channel: str, mode: PayMode, stall_at: OpenStall
) -> None:
    stall = stall_at(channel)
    order = await stall.order(mode)
    stall.fault("pay", "slow:0.05", order.number)
    answer = await stall.place(order)
    assert isinstance(answer.outcome, Succeeded | Pending), answer


PROCESSED = [
    pytest.param(channel, mode, id=f"{channel}-{mode}")
    for channel in sorted(STALLS)
    if channel != "cards"  # a card host knows no processing
    for mode in modes_of(channel)
]


@pytest.mark.parametrize(("channel", "mode"), PROCESSED)
async def test_a_payment_in_processing_for_hours_is_open_until_it_is_decided(
    channel: str, mode: PayMode, stall_at: OpenStall
) -> None:
    stall = stall_at(channel)
    order = await stall.order(mode)
    stall.fault("pay", f"processing:{6 * 3600}", order.number)
    await stall.place(order)
    if mode in stall.unasked:
        await stall.meet(order)
    for _ in range(2):
        await stall.advance(2 * 3600)
        found = (await stall.channel.query(stall.account, order)).outcome
        assert isinstance(found, Pending), found
        assert stall.taken(order) == 0
    await stall.advance(2 * 3600 + 60)
    found = (await stall.channel.query(stall.account, order)).outcome
    assert isinstance(found, Succeeded), found
    assert stall.taken(order) == PRICE.amount


@pytest.mark.parametrize(("channel", "fault"), each("query"))
async def test_a_question_without_a_good_answer_decides_nothing(
    channel: str, fault: str, stall_at: OpenStall
) -> None:
    stall = stall_at(channel)
    order = await stall.paid()
    stall.fault("query", fault, order.number)
    first = (await stall.channel.query(stall.account, order)).outcome
    assert isinstance(first, Unknown), first
    assert isinstance((await stall.channel.query(stall.account, order)).outcome, Succeeded)


ASKED = sorted(name for name in STALLS if STALLS[name].answers_queries)


@pytest.mark.parametrize("channel", ASKED)
async def test_old_news_is_not_the_end(channel: str, stall_at: OpenStall) -> None:
    stall = stall_at(channel)
    order = await stall.paid()
    stall.fault("query", "stale", order.number)
    first = (await stall.channel.query(stall.account, order)).outcome
    assert isinstance(first, Pending | Absent | Unknown), first
    assert isinstance((await stall.channel.query(stall.account, order)).outcome, Succeeded)


# --- refunds


async def refunded(stall: Stall, refund: Any) -> Succeeded:
    """Wait, on the sandbox's clock, until the refund is through."""
    await stall.advance(3)
    found = (await stall.channel.query_refund(stall.account, refund)).outcome
    assert isinstance(found, Succeeded), found
    return found


@pytest.mark.parametrize("channel", sorted(STALLS))
async def test_a_refund_goes_back_once_however_often_it_is_sent(
    channel: str, stall_at: OpenStall
) -> None:
    stall = stall_at(channel)
    order = await stall.paid()
    refund = stall.refund(order, 500)
    for _ in range(3):
        answer = await stall.channel.refund(stall.account, refund)
        assert isinstance(answer.outcome, Succeeded | Pending | Unknown), answer
    assert (await refunded(stall, refund)).money == Money(500, "CNY")
    again = (await stall.channel.refund(stall.account, refund)).outcome
    assert not isinstance(again, Declined | NotSent), again
    assert stall.given_back(order) == 500


@pytest.mark.parametrize(("channel", "fault"), each("refund"))
async def test_a_refund_without_a_good_answer_is_unknown_and_the_truth_is_found(
    channel: str, fault: str, stall_at: OpenStall
) -> None:
    stall = stall_at(channel)
    order = await stall.paid()
    refund = stall.refund(order, 500)
    stall.fault("refund", fault, refund.number)
    answer = await stall.channel.refund(stall.account, refund)
    assert isinstance(answer.outcome, Unknown), answer
    await stall.advance(3)
    gone = stall.given_back(order)
    if stall.answers_queries:
        found = (await stall.channel.query_refund(stall.account, refund)).outcome
        assert isinstance(found, Succeeded if gone else Absent), found
    again = (await stall.channel.refund(stall.account, refund)).outcome
    assert not isinstance(again, Declined), again
    await refunded(stall, refund)
    assert stall.given_back(order) == 500


@pytest.mark.parametrize("channel", sorted(STALLS))
async def test_more_than_the_rest_is_declined_with_evidence(
    channel: str, stall_at: OpenStall
) -> None:
    stall = stall_at(channel)
    order = await stall.paid()
    first = stall.refund(order, 1500)
    await stall.channel.refund(stall.account, first)
    await refunded(stall, first)
    answer = await stall.channel.refund(stall.account, stall.refund(order, 500))
    assert isinstance(answer.outcome, Declined), answer
    assert answer.outcome.code
    assert answer.outcome.code in answer.exchange.reply
    assert stall.given_back(order) == 1500


@pytest.mark.parametrize("channel", [name for name in ASKED if name != "alipay"])
async def test_a_refund_that_waits_or_fails_is_told_as_it_is(
    channel: str, stall_at: OpenStall
) -> None:
    stall = stall_at(channel)
    order = await stall.paid()
    waiting, failed, poor = (stall.refund(order, 100) for _ in range(3))
    for refund, fault in ((waiting, "processing"), (failed, "abnormal"), (poor, "not_enough")):
        stall.fault("refund", fault, refund.number)
    answer = (await stall.channel.refund(stall.account, waiting)).outcome
    assert isinstance(answer, Pending), answer
    await stall.advance(3)
    found = (await stall.channel.query_refund(stall.account, waiting)).outcome
    assert isinstance(found, Pending), found
    await stall.channel.refund(stall.account, failed)
    await stall.advance(3)
    found = (await stall.channel.query_refund(stall.account, failed)).outcome
    assert not isinstance(found, Succeeded), found
    declined = (await stall.channel.refund(stall.account, poor)).outcome
    if isinstance(declined, Pending):  # UnionPay takes it on and says so afterwards
        await stall.advance(3)
        declined = (await stall.channel.query_refund(stall.account, poor)).outcome
    assert isinstance(declined, Declined), declined


@pytest.mark.parametrize(("channel", "fault"), each("refund_query"))
async def test_a_question_about_a_refund_without_a_good_answer_decides_nothing(
    channel: str, fault: str, stall_at: OpenStall
) -> None:
    stall = stall_at(channel)
    order = await stall.paid()
    refund = stall.refund(order, 500)
    await stall.channel.refund(stall.account, refund)
    await refunded(stall, refund)
    stall.fault("refund_query", fault, refund.number)
    found = (await stall.channel.query_refund(stall.account, refund)).outcome
    assert isinstance(found, Unknown), found
    await refunded(stall, refund)


# --- closing


def closable(stall: Stall) -> PayMode:
    """The mode in which an order can be made unpayable by a call while it is open."""
    if PayMode.CARD in stall.channel.modes:
        return PayMode.CARD
    return PayMode.QR if stall.closes_open else PayMode.PAYMENT_CODE


async def opened(stall: Stall) -> PayOrder:
    """An order that close has something to say about: open where it can be, or else paid."""
    order = await stall.order(closable(stall))
    await stall.place(order)
    if order.mode not in CHARGES:
        await stall.meet(order, "abandon")
    return order


async def stands_closed(stall: Stall, order: PayOrder) -> None:
    assert stall.taken(order) - stall.given_back(order) == 0
    if order.mode is PayMode.CARD:
        return
    with pytest.raises(ValueError, match="400"):
        await stall.meet(order)
    assert stall.taken(order) - stall.given_back(order) == 0


@pytest.mark.parametrize("channel", sorted(STALLS))
async def test_an_order_is_closed_for_good_however_often_it_is_asked(
    channel: str, stall_at: OpenStall
) -> None:
    stall = stall_at(channel)
    order = await opened(stall)
    for _ in range(3):
        answer = await stall.channel.close(stall.account, order)
        assert isinstance(answer.outcome, Closed), answer
    await stands_closed(stall, order)


@pytest.mark.parametrize(("channel", "fault"), each("close"))
async def test_a_close_without_a_good_answer_is_unknown_and_may_be_repeated(
    channel: str, fault: str, stall_at: OpenStall
) -> None:
    stall = stall_at(channel)
    order = await opened(stall)
    stall.fault("close", fault, stall.close_number(order))
    first = await stall.channel.close(stall.account, order)
    if isinstance(first.outcome, Closed):  # UnionPay asked what became of it, and was told
        assert fault.endswith("_done")
        assert "queryTrans.do" in first.exchange.reply
    else:
        assert isinstance(first.outcome, Unknown), first
    stall.sandbox.delete("faults")
    again = (await stall.channel.close(stall.account, order)).outcome
    assert isinstance(again, Closed), again
    await stands_closed(stall, order)


CLOSING = sorted(name for name in ASKED if STALLS[name].closes_open)


@pytest.mark.parametrize("channel", CLOSING)
async def test_who_pays_before_the_close_has_paid(channel: str, stall_at: OpenStall) -> None:
    stall = stall_at(channel)
    order = await opened(stall)
    stall.fault("close", "paid_just_before", order.number)
    answer = await stall.channel.close(stall.account, order)
    assert isinstance(answer.outcome, Succeeded), answer
    assert stall.taken(order) == PRICE.amount


@pytest.mark.parametrize("channel", CLOSING)
async def test_money_that_comes_after_the_close_is_seen(channel: str, stall_at: OpenStall) -> None:
    stall = stall_at(channel)
    order = await opened(stall)
    stall.fault("close", "late_success:5", order.number)
    answer = await stall.channel.close(stall.account, order)
    assert isinstance(answer.outcome, Closed), answer
    await stall.advance(6)
    assert stall.taken(order) == PRICE.amount
    found = (await stall.channel.query(stall.account, order)).outcome
    assert isinstance(found, Succeeded), found
    told = [one for one in stall.callbacks() if isinstance(one, Callback)]
    assert [one.number for one in told if isinstance(one.outcome, Succeeded)] == [order.number]


async def test_a_barred_card_payment_cannot_come_late(stall_at: OpenStall) -> None:
    """A reversal that finds nothing bars the transaction should it still come."""
    stall = stall_at("cards")
    order = await stall.order(PayMode.CARD)
    stall.fault("pay", "time_out_unpaid", order.number)
    assert isinstance((await stall.place(order)).outcome, Unknown)
    assert isinstance((await stall.channel.close(stall.account, order)).outcome, Absent)
    assert not isinstance((await stall.place(order)).outcome, Succeeded)
    assert stall.taken(order) == 0


# --- keys


KEYED = ["alipay", "unionpay", "wechat_pay"]  # Qra's one key is changed by people, on both sides
BY = ["fault", "amount"]


@pytest.fixture
async def keyed_stall_at(stall_at: OpenStall) -> AsyncIterator[OpenStall]:
    """Of a merchant who goes by certificates, wherever there are any."""
    opened: list[Stall] = []

    def open_stall(name: str) -> Stall:
        opened.append(stall_at(name))
        if name == "alipay":
            opened[-1].account = account_of(opened[-1].sandbox, opened[-1].wire.url, "certificate")
        return opened[-1]

    yield open_stall
    for stall in opened:
        await stall.control("settings", **{"wechat.rotation": ""})


def certificate_of(stall: Stall, answer: Answer[Any]) -> str:
    """Return what the answer that came last says it is signed with."""
    [last] = stall.sandbox.get("requests", last=1)  # our evidence leaves UnionPay's out
    said = re.search(
        r"wechatpay-serial: (\w+)|alipay_cert_sn\W+(\w+)|signPubKeyCert=([^&]+)",
        f"{answer.exchange.reply}\n{last['reply']}",
    )
    assert said is not None, answer
    return next(text for text in said.groups() if text)


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("channel", KEYED)
async def test_an_answer_under_a_new_certificate_is_an_answer(
    channel: str, by: str, keyed_stall_at: OpenStall
) -> None:
    """The certificate changes between a request and its answer: in mid-flight."""
    stall = keyed_stall_at(channel)
    before = await stall.order(PayMode.PAYMENT_CODE)
    old = certificate_of(stall, await stall.place(before))
    stall.account = structs.replace(stall.account, id=new_id())  # one that has fetched none
    price = Money(77719, "CNY") if by == "amount" else PRICE
    order = await stall.order(PayMode.PAYMENT_CODE, money=price)
    if by == "fault":
        stall.fault("pay", "new_key", order.number)
    answer = await stall.place(order)
    assert isinstance(answer.outcome, Succeeded | Pending), answer
    new = certificate_of(stall, answer)
    assert new != old
    for one in (before, order):
        found = await stall.channel.query(stall.account, one)
        assert isinstance(found.outcome, Succeeded), found
        assert certificate_of(stall, found) == new


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("channel", KEYED)
async def test_a_notice_under_a_new_certificate_is_believed_once_that_is_known(
    channel: str, by: str, keyed_stall_at: OpenStall
) -> None:
    stall = keyed_stall_at(channel)
    price = Money(77728, "CNY") if by == "amount" else PRICE
    order = await stall.order(PayMode.QR, money=price)
    if by == "fault":
        stall.fault("callback", "new_key", order.number)
    await stall.place(order)
    await stall.meet(order)
    await stall.advance(0)
    unread = stall.callbacks()
    assert len(unread) == 1
    if channel == "unionpay":  # the certificate comes along
        assert isinstance(unread[0], Callback)
    else:
        assert unread == ["forged"]
    await stall.channel.refresh_keys(stall.account)
    [read] = stall.callbacks()
    assert isinstance(read, Callback), read
    assert (read.number, read.kind) == (order.number, CallbackKind.PAYMENT)
    assert isinstance(read.outcome, Succeeded)
    assert read.outcome.money == price


@pytest.mark.parametrize("by", BY)
async def test_a_host_that_forgot_our_working_keys_is_signed_in_to_again(
    by: str, stall_at: OpenStall
) -> None:
    stall = stall_at("cards")
    price = Money(77719, "CNY") if by == "amount" else PRICE
    order = await stall.order(PayMode.CARD, money=price)
    if by == "fault":
        stall.fault("pay", "new_key", order.number)
    answer = await stall.place(order)
    assert isinstance(answer.outcome, Unknown), answer
    assert stall.taken(order) == 0
    closed = (await stall.channel.close(stall.account, order)).outcome
    assert isinstance(closed, Absent), closed
    later = await stall.paid()
    assert stall.taken(later) == PRICE.amount


# --- notices


TELLING = sorted(name for name in STALLS if STALLS[name].tells)
NOTICE_FAULTS = ["lost:1", "doubled", "late:5", "reordered", "forged", "wrong_amount"]


@pytest.mark.parametrize("fault", NOTICE_FAULTS)
@pytest.mark.parametrize("channel", TELLING)
async def test_a_notice_says_what_is_so_or_is_refused(
    channel: str, fault: str, stall_at: OpenStall
) -> None:
    """Of a payment and of a refund, read as they arrive: each its own kind, number and amount."""
    stall = stall_at(channel)
    order = await stall.order(PayMode.QR)
    stall.fault("callback", fault, order.number)
    await stall.place(order)
    await stall.meet(order)
    refund = stall.refund(order, 500)
    if "refund" in stall.tells:
        stall.fault("callback", fault, refund.number)
    await stall.channel.refund(stall.account, refund)
    await stall.advance(3)  # some take a moment
    await stall.advance(400)  # UnionPay says it again after five minutes

    heard = stall.callbacks()
    read = [one for one in heard if isinstance(one, Callback)]
    expected = [(CallbackKind.PAYMENT, order.number)]
    expected += [(CallbackKind.REFUND, refund.number)] if "refund" in stall.tells else []
    copies = 2 if fault == "doubled" else 1
    assert sorted((one.kind, one.number) for one in read) == sorted(expected * copies)
    assert heard.count("forged") == (len(expected) if fault == "forged" else 0)
    told = {CallbackKind.PAYMENT: PRICE, CallbackKind.REFUND: refund.money}
    for one in read:
        assert isinstance(one.outcome, Succeeded | Unknown), one
        if isinstance(one.outcome, Succeeded):
            assert (one.outcome.money == told[one.kind]) == (fault != "wrong_amount"), one
