"""The sandbox's magic amounts: one table that every party obeys, as our channels meet it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.rails.stalls import CHARGES, STALLS, Stall
from tongbao.kernel.clock import business_date
from tongbao.kernel.money import Money
from tongbao.rails.channels.contract.callbacks import Callback, CallbackKind
from tongbao.rails.channels.contract.orders import PayMode
from tongbao.rails.channels.contract.outcomes import Declined, Pending, Succeeded, Unknown
from tongbao_sandbox.magic import OBEYED, TABLE

OpenStall = Callable[[str], Stall]
ONLINE = sorted(name for name in STALLS if name != "cards")
ENDS = ("_paid", "_unpaid", "_made", "http_429", "reset")
LOST = [
    pytest.param(channel, fen, fault, id=f"{channel}-{fen}-{fault}")
    for channel in sorted(STALLS)
    for fen, fault in TABLE["pay"].items()
    if fen in OBEYED[STALLS[channel].at_sandbox] and fault.endswith(ENDS)
]


def obeyed(point: str, *, but: str = "") -> list[Any]:
    """Every amount of a point at every channel that obeys it."""
    return [
        pytest.param(channel, fen, fault, id=f"{channel}-{fen}-{fault}")
        for channel in sorted(STALLS)
        for fen, fault in TABLE[point].items()
        if fen in OBEYED[STALLS[channel].at_sandbox] and fault != but
    ]


def at_once(stall: Stall) -> PayMode:
    """The mode in which the call itself takes the money."""
    return PayMode.PAYMENT_CODE if PayMode.PAYMENT_CODE in stall.makes.modes else PayMode.CARD


@pytest.mark.parametrize(("channel", "fen", "fault"), LOST)
async def test_an_amount_loses_the_answer_and_means_the_same_everywhere(
    channel: str, fen: int, fault: str, stall_at: OpenStall
) -> None:
    stall = stall_at(channel)
    order = await stall.order(at_once(stall), money=Money(fen, "CNY"))
    assert isinstance((await stall.place(order)).outcome, Unknown)
    assert stall.taken(order) == (fen if fault.endswith("_paid") else 0)


@pytest.mark.parametrize("channel", ONLINE)
@pytest.mark.parametrize("mode", [PayMode.PAYMENT_CODE, PayMode.QR])
async def test_an_amount_stays_in_processing_for_hours(
    channel: str, mode: PayMode, stall_at: OpenStall
) -> None:
    stall = stall_at(channel)
    told, timed = [await stall.order(mode, money=Money(fen, "CNY")) for fen in (77708, 77718)]
    for order in (told, timed):
        assert isinstance((await stall.place(order)).outcome, Pending)
    await stall.advance(5 * 3600)
    for order in (told, timed):
        assert isinstance((await stall.channel.query(stall.account, order)).outcome, Pending)
    await stall.advance(3600)
    assert isinstance((await stall.channel.query(stall.account, told)).outcome, Pending)
    assert isinstance((await stall.channel.query(stall.account, timed)).outcome, Succeeded)
    if channel == "unionpay":
        await stall.control("unionpay/decide", number=told.number, state="done")
    else:
        await stall.meet(told)
    assert isinstance((await stall.channel.query(stall.account, told)).outcome, Succeeded)


@pytest.mark.parametrize("channel", sorted(STALLS))
async def test_an_amount_is_declined_by_the_call_that_charges(
    channel: str, stall_at: OpenStall
) -> None:
    stall = stall_at(channel)
    order = await stall.order(at_once(stall), money=Money(77751, "CNY"))
    answer = await stall.place(order)
    if not isinstance(answer.outcome, Declined):
        assert stall.answers_queries
        answer = await stall.channel.query(stall.account, order)
    assert isinstance(answer.outcome, Declined), answer
    assert stall.taken(order) == 0


@pytest.mark.parametrize("channel", ONLINE)
@pytest.mark.parametrize("mode", [PayMode.QR, PayMode.WEB, PayMode.AGREEMENT])
async def test_an_amount_nobody_can_pay_is_not_paid_however_it_is_met(
    channel: str, mode: PayMode, stall_at: OpenStall
) -> None:
    stall = stall_at(channel)
    if mode not in stall.makes.modes:
        assert mode is not PayMode.QR
        return
    order = await stall.order(mode, money=Money(77751, "CNY"))
    await stall.place(order)
    if mode not in CHARGES:
        for _ in range(2):
            if channel == "alipay" and mode is PayMode.WEB:  # its page says so
                with pytest.raises(ValueError, match="BALANCE_NOT_ENOUGH"):
                    await stall.meet(order)
            else:
                await stall.meet(order)
    await stall.advance(3)
    assert stall.taken(order) == 0
    found = (await stall.channel.query(stall.account, order)).outcome
    assert not isinstance(found, Succeeded | Unknown), found


@pytest.mark.parametrize(("channel", "fen", "fault"), obeyed("refund"))
async def test_an_amount_spoils_a_refund(
    channel: str, fen: int, fault: str, stall_at: OpenStall
) -> None:
    stall = stall_at(channel)
    order = await stall.order(at_once(stall), money=Money(100_000, "CNY"))
    await stall.place(order)
    await stall.advance(3)  # some take a moment
    refund = stall.refund(order, fen)
    first = (await stall.channel.refund(stall.account, refund)).outcome
    assert not isinstance(first, Succeeded), first
    assert isinstance(first, Unknown) or not fault.startswith("time_out"), first
    await stall.advance(3)
    is_on_its_way = fault in {"time_out_done", "processing"}
    assert stall.given_back(order) == (fen if is_on_its_way else 0)
    if stall.answers_queries:
        found = (await stall.channel.query_refund(stall.account, refund)).outcome
        assert isinstance(found, Succeeded) == (fault == "time_out_done"), found


@pytest.mark.parametrize(("channel", "fen", "fault"), obeyed("callback", but="new_key"))
async def test_an_amount_spoils_a_notification(
    channel: str, fen: int, fault: str, stall_at: OpenStall
) -> None:
    stall = stall_at(channel)
    order = await stall.order(PayMode.QR, money=Money(fen, "CNY"))
    await stall.place(order)
    await stall.meet(order)
    for seconds in (3, 400, 900):  # as long as the plans wait after two that were lost
        await stall.advance(seconds)
    heard = stall.callbacks()
    read = [one for one in heard if isinstance(one, Callback)]
    assert len(read) == (2 if fault == "doubled" else 1)
    assert heard.count("forged") == (fault in {"forged", "signtest"})
    for one in read:
        assert (one.number, one.kind) == (order.number, CallbackKind.PAYMENT)
        assert isinstance(one.outcome, Succeeded)
        assert (one.outcome.money == order.money) == (fault != "wrong_amount")


@pytest.mark.parametrize("channel", ["alipay", "unionpay", "wechat_pay"])
async def test_an_amount_is_a_gap_of_the_bill_or_a_row_that_comes_late(
    channel: str, stall_at: OpenStall
) -> None:
    stall = stall_at(channel)
    today = business_date(stall.now())

    async def rows(day: Any) -> int:
        made = await stall.control(f"{stall.at_sandbox}/bill/make", day=str(day))
        return int(made["rows"])

    tomorrow = today + timedelta(days=1)
    before, next_before = await rows(today), await rows(tomorrow)
    for fen in (77741, 77742, 77743):
        order = await stall.order(PayMode.QR, money=Money(fen, "CNY"))
        await stall.place(order)
        await stall.meet(order)
    assert await rows(today) == before + 1, "the one with a wrong amount"
    assert await rows(tomorrow) == next_before + 1, "the late one"
    assert await rows(today) == before + 3, "a bill made anew is right"
    assert await rows(tomorrow) == next_before
