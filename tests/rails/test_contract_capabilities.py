"""What some channels can do beyond collecting, held to one contract for each that can it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from tests.rails.stalls import CHARGES, PRICE, STALLS, AlipayStall, CardStall, Stall, WechatStall
from tongbao.kernel.ids import base32, new_id
from tongbao.kernel.money import Money
from tongbao.rails.channels.capabilities.agreements import (
    Agreeing,
    AgreementEnded,
    AgreementOffered,
    AgreementSigned,
)
from tongbao.rails.channels.capabilities.authorisations import Authorising, Capture, Voiding
from tongbao.rails.channels.capabilities.shares import (
    Receiver,
    RefundingShares,
    Share,
    SplitDone,
    SplitOrder,
    SplitReturn,
    Splitting,
    SplitUnderWay,
)
from tongbao.rails.channels.capabilities.transfers import TransferOrder, Transferring
from tongbao.rails.channels.contract.bills import BillFile, FurtherBills
from tongbao.rails.channels.contract.orders import PayMode, PayOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Authorised,
    Closed,
    Declined,
    NotSent,
    Pending,
    Succeeded,
    Unknown,
)

OpenStall = Callable[[str], Stall]
CAPABILITIES: dict[str, type] = {
    "authorise": Authorising,
    "split": Splitting,
    "refund_with_shares": RefundingShares,
    "transfer": Transferring,
    "offer_agreement": Agreeing,
    "download_further_bill": FurtherBills,
}
DONE = ("time_out_done", "bad_signature_done")
NOT_DONE = ("time_out_not_done",)


def having(method: str) -> list[str]:
    """The channels that can it; each of them runs that capability's tests below."""
    return sorted(name for name in STALLS if hasattr(STALLS[name].makes, method))


def yuan(fen: int) -> Money:
    return Money(fen, "CNY")


@pytest.mark.parametrize("method", CAPABILITIES)
def test_whoever_has_a_capability_has_all_of_it(method: str, stall_at: OpenStall) -> None:
    assert having(method), "nobody can it, so nothing of it is tested"
    for name in having(method):
        assert isinstance(stall_at(name).channel, CAPABILITIES[method]), name


# --- authorise, capture, void


def held_there(stall: Stall, order: PayOrder) -> int:
    """What is set aside for an order, looked up at the sandbox."""
    if isinstance(stall, CardStall):
        return stall.money_on(order)[1]
    [there] = stall.trades(order)
    said = there["extra"]
    is_set_aside = (there["state"], said["asked"]["txnType"]) == ("paid", "02")
    return there["amount"] if is_set_aside and not said.get("captured") else 0


def modes_to_authorise(channel: str) -> list[PayMode]:
    return sorted(STALLS[channel].makes.modes, key=lambda mode: (mode in CHARGES, mode))


AUTHORISE = [
    pytest.param(name, mode, id=f"{name}-{mode}")
    for name in having("authorise")
    for mode in modes_to_authorise(name)
]


async def set_aside(stall: Stall, mode: PayMode) -> tuple[PayOrder, Authorised]:
    order = await stall.order(mode, captures=False)
    asked = (await stall.channel.authorise(stall.account, order)).outcome
    if isinstance(asked, Authorised):
        return order, asked
    assert isinstance(asked, Pending), asked
    stall.offered[order.number] = asked
    if mode not in CHARGES:
        await stall.meet(order)
    found = (await stall.channel.query_authorisation(stall.account, order)).outcome
    assert isinstance(found, Authorised), found
    return order, found


@pytest.mark.parametrize("fault", ["time_out_paid", "bad_signature_paid", "http_500_paid"])
async def test_a_repeat_of_what_is_set_aside_says_that_it_is(
    fault: str, stall_at: OpenStall
) -> None:
    """At UnionPay, which refuses the repeat; a card host is not asked again but told to undo it."""
    stall = stall_at("unionpay")
    order = await stall.order(PayMode.QR, captures=False)
    stall.fault("pay", fault, order.number)
    first = (await stall.channel.authorise(stall.account, order)).outcome
    assert isinstance(first, Unknown), first
    again = (await stall.channel.authorise(stall.account, order)).outcome
    assert isinstance(again, Authorised), again
    assert again.money == PRICE
    assert held_there(stall, order) == PRICE.amount


def capture_of(order: PayOrder, held: Authorised, fen: int) -> Capture:
    return Capture(base32(new_id()), order, held.channel_ref, held.code, yuan(fen))


def void_of(order: PayOrder, held: Authorised) -> Voiding:
    return Voiding(base32(new_id()), order, held.channel_ref, held.code, order.money)


@pytest.mark.parametrize(("channel", "mode"), AUTHORISE)
async def test_money_is_set_aside_and_taken_once(
    channel: str, mode: PayMode, stall_at: OpenStall
) -> None:
    stall = stall_at(channel)
    order, held = await set_aside(stall, mode)
    assert held.money == PRICE
    assert held_there(stall, order) == PRICE.amount
    part = capture_of(order, held, 1500)
    for _ in range(3):
        answer = (await stall.channel.capture(stall.account, part)).outcome
        assert not isinstance(answer, Declined | NotSent), answer
    found = (await stall.channel.query_capture(stall.account, part)).outcome
    assert isinstance(found, Succeeded), found
    assert found.money == yuan(1500)
    assert held_there(stall, order) == 0
    second = (await stall.channel.capture(stall.account, capture_of(order, held, 499))).outcome
    assert isinstance(second, Declined), second
    late = (await stall.channel.void(stall.account, void_of(order, held))).outcome
    assert isinstance(late, Declined), late
    if isinstance(stall, CardStall):
        assert stall.money_on(order) == (1_000_000 - 1500, 0)


@pytest.mark.parametrize("channel", having("authorise"))
async def test_what_was_captured_is_given_back_by_the_captures_number(
    channel: str, stall_at: OpenStall
) -> None:
    stall = stall_at(channel)
    order, held = await set_aside(stall, modes_to_authorise(channel)[0])
    part = capture_of(order, held, 1500)
    await stall.channel.capture(stall.account, part)
    taken = (await stall.channel.query_capture(stall.account, part)).outcome
    assert isinstance(taken, Succeeded), taken
    what = {"order_number": part.number, "order_money": part.money, "of_capture": True}
    some = stall.refund(order, 600, order_ref=taken.channel_ref, **what)
    for _ in range(3):
        answer = (await stall.channel.refund(stall.account, some)).outcome
        assert not isinstance(answer, Declined | NotSent), answer
    await stall.advance(3)
    found = (await stall.channel.query_refund(stall.account, some)).outcome
    assert isinstance(found, Succeeded), found
    more = stall.refund(order, 901, order_ref=taken.channel_ref, **what)
    too_much = (await stall.channel.refund(stall.account, more)).outcome
    assert isinstance(too_much, Declined), too_much
    if isinstance(stall, CardStall):
        assert stall.money_on(order) == (1_000_000 - 900, 0)


@pytest.mark.parametrize("channel", having("authorise"))
async def test_money_set_aside_is_let_go_once(channel: str, stall_at: OpenStall) -> None:
    stall = stall_at(channel)
    order, held = await set_aside(stall, modes_to_authorise(channel)[0])
    voiding = void_of(order, held)
    outcomes = [(await stall.channel.void(stall.account, voiding)).outcome for _ in range(3)]
    assert isinstance(outcomes[0], Closed | Pending), outcomes
    assert isinstance(outcomes[-1], Closed), outcomes
    assert held_there(stall, order) == 0
    taken = (await stall.channel.capture(stall.account, capture_of(order, held, 1))).outcome
    assert isinstance(taken, Declined), taken
    if isinstance(stall, CardStall):
        assert stall.money_on(order) == (1_000_000, 0)


@pytest.mark.parametrize("channel", having("authorise"))
@pytest.mark.parametrize("fault", [*DONE, *NOT_DONE])
async def test_a_capture_without_a_good_answer_is_unknown(
    channel: str, fault: str, stall_at: OpenStall
) -> None:
    stall = stall_at(channel)
    order, held = await set_aside(stall, modes_to_authorise(channel)[0])
    part = capture_of(order, held, 1500)
    point = "capture" if channel == "cards" else "pay"
    name = fault if channel == "cards" else fault.replace("not_done", "unpaid")
    name = name if channel == "cards" else name.replace("done", "paid")
    stall.fault(point, name, part.number)
    assert isinstance((await stall.channel.capture(stall.account, part)).outcome, Unknown)
    again = (await stall.channel.capture(stall.account, part)).outcome
    assert not isinstance(again, Declined | NotSent), again
    found = (await stall.channel.query_capture(stall.account, part)).outcome
    assert isinstance(found, Succeeded), found
    assert found.money == yuan(1500)


@pytest.mark.parametrize("channel", having("authorise"))
@pytest.mark.parametrize("fault", [*DONE, *NOT_DONE])
async def test_a_void_without_a_good_answer_is_unknown(
    channel: str, fault: str, stall_at: OpenStall
) -> None:
    stall = stall_at(channel)
    order, held = await set_aside(stall, modes_to_authorise(channel)[0])
    voiding = void_of(order, held)
    point = "void" if channel == "cards" else "close"
    if channel != "cards" and fault in NOT_DONE:
        fault = "http_500"
    stall.fault(point, fault, voiding.number)
    first = (await stall.channel.void(stall.account, voiding)).outcome
    assert isinstance(first, Unknown) or (isinstance(first, Closed) and fault in DONE), first
    for _ in range(2):
        last = (await stall.channel.void(stall.account, voiding)).outcome
    assert isinstance(last, Closed), last


# --- shares


class Sharing:
    """A stall whose account shares, somebody to share with, and a paid order."""

    def __init__(self, stall: Stall) -> None:
        self.stall = stall
        self.channel = stall.channel
        if isinstance(stall, WechatStall):
            secrets = structs.replace(stall.account.secrets, profit_sharing=True)
            stall.account = structs.replace(stall.account, secrets=secrets)
            self.receiver = Receiver("MERCHANT_ID", "86693852", "示例商贸有限公司", "STORE")
        else:
            self.receiver = Receiver("userId", "2088722000000101", None, "SUPPLIER")

    async def paid(self) -> tuple[PayOrder, SplitOrder]:
        account = self.stall.account
        for _ in range(2):
            added = (await self.channel.add_receiver(account, self.receiver)).outcome
            assert isinstance(added, Succeeded), added
        order = await self.stall.paid()
        found = (await self.channel.query(account, order)).outcome
        assert isinstance(found, Succeeded), found
        return order, self.split(found.channel_ref, 300)

    def split(self, ref: str, fen: int) -> SplitOrder:
        return SplitOrder(base32(new_id()), ref, [Share(self.receiver, yuan(fen), "供货")])

    async def done(self, split: SplitOrder) -> SplitDone:
        await self.stall.advance(3)
        found = (await self.channel.query_split(self.stall.account, split)).outcome
        assert isinstance(found, SplitDone), found
        return found


@pytest.mark.parametrize("channel", having("split"))
async def test_a_share_is_given_once(channel: str, stall_at: OpenStall) -> None:
    shop = Sharing(stall_at(channel))
    account = shop.stall.account
    _, split = await shop.paid()
    assert isinstance((await shop.channel.query_split(account, split)).outcome, Absent)
    for _ in range(3):
        asked = (await shop.channel.split(account, split)).outcome
        assert isinstance(asked, SplitUnderWay | SplitDone), asked
    done = await shop.done(split)
    assert [(one.money, one.state) for one in done.results] == [(yuan(300), "succeeded")]
    beyond = shop.split(split.channel_ref, PRICE.amount - 299)
    refused = await shop.channel.split(account, beyond)
    assert isinstance(refused.outcome, Declined), "300 of it were given away already"
    assert refused.outcome.code in refused.exchange.reply
    other = structs.replace(split, shares=[Share(shop.receiver, yuan(301), "供货")])
    assert isinstance((await shop.channel.split(account, other)).outcome, Unknown)


@pytest.mark.parametrize("channel", having("split"))
@pytest.mark.parametrize("fault", ["http_500_done", "http_500_not_done", *DONE, *NOT_DONE])
async def test_a_split_without_a_good_answer_is_unknown(
    channel: str, fault: str, stall_at: OpenStall
) -> None:
    shop = Sharing(stall_at(channel))
    _, split = await shop.paid()
    shop.stall.fault("split", fault, split.number)
    account = shop.stall.account
    assert isinstance((await shop.channel.split(account, split)).outcome, Unknown)
    found = (await shop.channel.query_split(account, split)).outcome
    assert isinstance(found, Absent if "not_done" in fault else SplitUnderWay | SplitDone), found
    again = (await shop.channel.split(account, split)).outcome
    assert not isinstance(again, Declined | NotSent), again
    assert len((await shop.done(split)).results) == 1


@pytest.mark.parametrize("channel", having("split"))
async def test_a_share_comes_back_once(channel: str, stall_at: OpenStall) -> None:
    """By itself where the channel can it, and else with a refund."""
    shop = Sharing(stall_at(channel))
    account = shop.stall.account
    order, split = await shop.paid()
    await shop.channel.split(account, split)
    done = await shop.done(split)
    refund = shop.stall.refund(order, 500)
    ref = split.channel_ref if isinstance(shop.channel, RefundingShares) else done.channel_ref
    back = SplitReturn(refund.number, split.number, ref, shop.receiver, yuan(100), "退款")
    assert isinstance((await shop.channel.query_split_return(account, back)).outcome, Absent)
    for _ in range(3):
        if isinstance(shop.channel, RefundingShares):
            given = (await shop.channel.refund_with_shares(account, refund, [back])).outcome
        else:
            given = (await shop.channel.return_split(account, back)).outcome
        assert isinstance(given, Succeeded | Pending), given
    await shop.stall.advance(3)
    found = (await shop.channel.query_split_return(account, back)).outcome
    assert isinstance(found, Succeeded), found
    assert found.money == yuan(100)
    more = structs.replace(back, money=yuan(101))
    assert not isinstance(
        (await shop.channel.query_split_return(account, more)).outcome, Succeeded
    ), "another amount is not what came back"


@pytest.mark.parametrize("channel", having("split"))
async def test_what_nobody_gets_is_freed_once(channel: str, stall_at: OpenStall) -> None:
    shop = Sharing(stall_at(channel))
    account = shop.stall.account
    _, split = await shop.paid()
    rest = structs.replace(split, shares=())
    for _ in range(2):
        freed = (await shop.channel.unfreeze(account, rest)).outcome
        assert isinstance(freed, SplitUnderWay | SplitDone), freed
    await shop.stall.advance(3)
    late = (await shop.channel.split(account, shop.split(split.channel_ref, 1))).outcome
    assert isinstance(late, Declined), late


# --- payouts


def payout(stall: Stall) -> TransferOrder:
    if isinstance(stall, AlipayStall):
        payee, kind, name = "2088722000000201", "ALIPAY_USER_ID", "张三"
        return TransferOrder(base32(new_id()), payee, kind, name, yuan(8800), "佣金")
    return TransferOrder(
        base32(new_id()),
        *("oUpF8uMuAJO_M2pxb1Q9zNjWeS6o", "OPENID", "张三"),
        yuan(8800),
        "佣金",
        scene="1000",
        notes=(("活动名称", "新会员有礼"), ("奖励说明", "注册会员抽奖一等奖")),
    )


@pytest.mark.parametrize("channel", having("transfer"))
async def test_a_payout_is_made_once(channel: str, stall_at: OpenStall) -> None:
    stall = stall_at(channel)
    order = payout(stall)
    absent = (await stall.channel.query_transfer(stall.account, order)).outcome
    assert isinstance(absent, Absent), absent
    outcomes = [(await stall.channel.transfer(stall.account, order)).outcome for _ in range(3)]
    assert all(isinstance(one, Succeeded | Pending) for one in outcomes), outcomes
    found = (await stall.channel.query_transfer(stall.account, order)).outcome
    assert isinstance(found, Succeeded | Pending), found
    other = structs.replace(order, money=yuan(8801))
    answer = (await stall.channel.transfer(stall.account, other)).outcome
    assert isinstance(answer, Unknown), "a used number for another payout says nothing"
    asked = (await stall.channel.query_transfer(stall.account, other)).outcome
    assert isinstance(asked, Unknown), asked


@pytest.mark.parametrize("channel", having("transfer"))
@pytest.mark.parametrize("fault", ["http_500_done", "http_500_not_done", *DONE, *NOT_DONE])
async def test_a_payout_without_a_good_answer_is_unknown(
    channel: str, fault: str, stall_at: OpenStall
) -> None:
    stall = stall_at(channel)
    order = payout(stall)
    stall.fault("transfer", fault, order.number)
    assert isinstance((await stall.channel.transfer(stall.account, order)).outcome, Unknown)
    found = (await stall.channel.query_transfer(stall.account, order)).outcome
    assert isinstance(found, Absent if "not_done" in fault else Succeeded | Pending), found
    again = (await stall.channel.transfer(stall.account, order)).outcome
    assert isinstance(again, Succeeded | Pending), again


# --- agreements


@pytest.mark.parametrize("channel", having("offer_agreement"))
async def test_an_agreement_is_signed_taken_under_and_ended(
    channel: str, stall_at: OpenStall
) -> None:
    stall = stall_at(channel)
    order = stall.agreement()
    offers = [(await stall.channel.offer_agreement(stall.account, order)).outcome for _ in range(2)]
    assert all(isinstance(one, AgreementOffered) for one in offers), offers
    open_yet = (await stall.channel.query_agreement(stall.account, order)).outcome
    assert isinstance(open_yet, Absent | AgreementOffered), open_yet
    signed = await stall.signed(order)
    paying = await stall.order(PayMode.AGREEMENT, agreement_ref=signed.agreement_ref)
    await stall.channel.pay(stall.account, paying)
    await stall.advance(3)
    assert stall.taken(paying) == PRICE.amount
    ended = await stall.channel.end_agreement(stall.account, order, signed.agreement_ref, "不要了")
    assert isinstance(ended.outcome, AgreementEnded), ended
    for _ in range(2):
        again = await stall.channel.end_agreement(stall.account, order, signed.agreement_ref, "x")
        assert isinstance(again.outcome, AgreementEnded | Absent), again
    found = (await stall.channel.query_agreement(stall.account, order)).outcome
    assert isinstance(found, AgreementEnded), found
    late = await stall.order(PayMode.AGREEMENT, agreement_ref=signed.agreement_ref)
    refused = (await stall.channel.pay(stall.account, late)).outcome
    assert isinstance(refused, Declined | NotSent), refused
    await stall.advance(3)
    assert stall.taken(late) == 0


@pytest.mark.parametrize("channel", having("offer_agreement"))
@pytest.mark.parametrize("fault", ["http_500_done", "http_500_not_done", *DONE, *NOT_DONE])
async def test_an_ending_without_a_good_answer_is_unknown(
    channel: str, fault: str, stall_at: OpenStall
) -> None:
    stall = stall_at(channel)
    order = stall.agreement()
    signed = await stall.signed(order)
    stall.fault("agreement", fault, order.number)
    ending = await stall.channel.end_agreement(stall.account, order, signed.agreement_ref, "x")
    assert isinstance(ending.outcome, Unknown), ending
    found = (await stall.channel.query_agreement(stall.account, order)).outcome
    assert isinstance(found, AgreementSigned if "not_done" in fault else AgreementEnded), found


# --- further bills


@pytest.mark.parametrize("channel", having("download_further_bill"))
async def test_a_further_bill_is_never_made_up(
    channel: str, stall_at: OpenStall, tmp_path: Path
) -> None:
    stall = stall_at(channel)

    async def fetch(kind: str) -> Any:
        day = date(2090, 1, 1)
        answer = await stall.channel.download_further_bill(stall.account, kind, day, tmp_path)
        return answer.outcome

    for kind in sorted(stall.channel.further_bills):
        assert not isinstance(await fetch(kind), BillFile), "that day has not been"
    assert isinstance(await fetch("horoscopes"), Unknown)
    assert list(tmp_path.iterdir()) == []
