"""Profit sharing and payouts of WeChat Pay against the simulated one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.rails.wechat_shop import OPENID, WechatShop, number
from tests.rails.wire_server import WireServer
from tongbao.infra.http import HttpClient
from tongbao.kernel.money import Money
from tongbao.rails.channels.capabilities.shares import (
    Receiver,
    Share,
    SplitDone,
    SplitOrder,
    SplitReturn,
    Splitting,
    SplitUnderWay,
)
from tongbao.rails.channels.capabilities.transfers import TransferOrder, Transferring
from tongbao.rails.channels.contract.callbacks import Callback, CallbackKind
from tongbao.rails.channels.contract.orders import PayMode
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Closed,
    Declined,
    NotSent,
    OpenApp,
    Pending,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.wechat_pay.secrets import Partner
from tongbao_sandbox.launch import RunningSandbox

SHOP_B = Receiver("MERCHANT_ID", "86693852", name="示例商贸有限公司", relation="STORE")
PERSON = Receiver("PERSONAL_OPENID", OPENID, name="张三", relation="DISTRIBUTOR")


@pytest.fixture(params=["direct", "partner"])
async def shop(
    request: pytest.FixtureRequest, sandbox: RunningSandbox, http: HttpClient, far_end: WireServer
) -> WechatShop:
    shop = WechatShop(sandbox, http, far_end)
    partner = Partner(shop.keys["mchid"], shop.keys["appid"])
    shop.account = shop.account_with(
        partner=partner if request.param == "partner" else None, profit_sharing=True
    )
    return shop


@pytest.fixture
def payer(sandbox: RunningSandbox, http: HttpClient, far_end: WireServer) -> WechatShop:
    return WechatShop(sandbox, http, far_end)


def yuan(fen: int) -> Money:
    return Money(fen, "CNY")


async def paid_ref(shop: WechatShop) -> str:
    found = (await shop.channel.query(shop.account, await shop.paid())).outcome
    assert isinstance(found, Succeeded)
    return found.channel_ref


async def split_of(shop: WechatShop, *fen: int, **changes: Any) -> SplitOrder:
    receivers = (SHOP_B, PERSON)
    for receiver in receivers[: len(fen)]:
        added = await shop.channel.add_receiver(shop.account, receiver)
        assert isinstance(added.outcome, Succeeded), added
    shares = [Share(who, yuan(much), "佣金") for who, much in zip(receivers, fen, strict=False)]
    return SplitOrder(number(), await paid_ref(shop), shares, **changes)


async def left_of(shop: WechatShop, split: SplitOrder) -> int:
    left = (await shop.channel.unsplit_money(shop.account, split.channel_ref)).outcome
    assert isinstance(left, Money)
    return left.amount


def test_the_channel_says_what_it_can(payer: WechatShop) -> None:
    assert isinstance(payer.channel, Splitting)
    assert isinstance(payer.channel, Transferring)


async def test_shares_are_given_told_of_and_the_rest_is_freed(shop: WechatShop) -> None:
    split = await split_of(shop, 300, 200)
    assert await left_of(shop, split) == 1999
    begun = (await shop.channel.split(shop.account, split)).outcome
    assert isinstance(begun, SplitUnderWay)
    assert {one.state for one in begun.results} == {"pending"}
    await shop.advance(2)
    done = (await shop.channel.query_split(shop.account, split)).outcome
    assert isinstance(done, SplitDone)
    assert {(one.account, one.money.amount, one.state) for one in done.results} == {
        (SHOP_B.account, 300, "succeeded"),
        (PERSON.account, 200, "succeeded"),
    }
    assert await left_of(shop, split) == 1499
    news = [
        one
        for one in await shop.callbacks()
        if isinstance(one, Callback) and one.kind is CallbackKind.SPLIT
    ]
    assert [one.number for one in news] == [split.number, split.number]
    assert {one.merchant_number for one in news} == {shop.account.merchant_number}
    assert all(isinstance(one.outcome, Unknown) for one in news), "one share is not the split"
    rest = SplitOrder(number(), split.channel_ref, ())
    freed = (await shop.channel.unfreeze(shop.account, rest)).outcome
    assert isinstance(freed, SplitUnderWay)
    await shop.advance(2)
    assert isinstance((await shop.channel.query_split(shop.account, rest)).outcome, SplitDone)
    assert await left_of(shop, split) == 0


async def test_the_last_split_frees_the_rest_itself(shop: WechatShop) -> None:
    split = await split_of(shop, 300, finishes=True)
    await shop.channel.split(shop.account, split)
    await shop.advance(2)
    done = (await shop.channel.query_split(shop.account, split)).outcome
    assert isinstance(done, SplitDone)
    assert (done.results[-1].account, done.results[-1].money) == (
        shop.account.merchant_number,
        yuan(1699),
    )


async def test_a_repeated_split_is_the_same_split(shop: WechatShop) -> None:
    split = await split_of(shop, 300)
    once = await shop.channel.split(shop.account, split)
    again = await shop.channel.split(shop.account, split)
    assert once.outcome == again.outcome
    assert await left_of(shop, split) == 1699
    other = SplitOrder(split.number, split.channel_ref, [Share(SHOP_B, yuan(301))])
    answer = await shop.channel.split(shop.account, other)
    assert isinstance(answer.outcome, Unknown), "asked about: it was for another amount"


async def test_more_than_is_left_is_declined(shop: WechatShop) -> None:
    split = await split_of(shop, 2000)
    answer = await shop.channel.split(shop.account, split)
    assert answer.outcome == Declined("NOT_ENOUGH", "分账金额不足")
    assert await left_of(shop, split) == 1999


@pytest.mark.parametrize("fault", ["time_out_done", "http_500_done", "bad_signature_done"])
async def test_an_unanswered_split_is_asked_about(shop: WechatShop, fault: str) -> None:
    split = await split_of(shop, 300)
    shop.sandbox.fault("wechat", "split", fault, number=split.number)
    assert isinstance((await shop.channel.split(shop.account, split)).outcome, Unknown)
    assert isinstance((await shop.channel.query_split(shop.account, split)).outcome, SplitUnderWay)
    assert isinstance((await shop.channel.split(shop.account, split)).outcome, SplitUnderWay)
    assert await left_of(shop, split) == 1699


@pytest.mark.parametrize("fault", ["time_out_not_done", "http_500_not_done", "http_429", "reset"])
async def test_a_split_that_never_arrived_is_unknown_and_absent(
    shop: WechatShop, fault: str
) -> None:
    split = await split_of(shop, 300)
    shop.sandbox.fault("wechat", "split", fault, number=split.number)
    assert isinstance((await shop.channel.split(shop.account, split)).outcome, Unknown)
    assert isinstance((await shop.channel.query_split(shop.account, split)).outcome, Absent)


async def test_a_share_that_fails_says_why_and_comes_back(shop: WechatShop) -> None:
    split = await split_of(shop, 300)
    fault = "share_failed:RECEIVER_HIGH_RISK"
    shop.sandbox.fault("wechat", "split", fault, number=split.number)
    await shop.channel.split(shop.account, split)
    await shop.advance(2)
    done = (await shop.channel.query_split(shop.account, split)).outcome
    assert isinstance(done, SplitDone)
    assert (done.results[0].state, done.results[0].reason) == ("failed", "RECEIVER_HIGH_RISK")
    assert await left_of(shop, split) == 1999


async def test_a_removed_receiver_gets_nothing(shop: WechatShop) -> None:
    split = await split_of(shop, 300)
    removed = await shop.channel.remove_receiver(shop.account, SHOP_B)
    assert isinstance(removed.outcome, Succeeded)
    await shop.channel.split(shop.account, split)
    await shop.advance(2)
    done = (await shop.channel.query_split(shop.account, split)).outcome
    assert isinstance(done, SplitDone)
    assert done.results[0].reason == "NO_RELATION"


async def test_a_share_is_taken_back_once(shop: WechatShop) -> None:
    split = await split_of(shop, 300)
    await shop.channel.split(shop.account, split)
    await shop.advance(2)
    found = (await shop.channel.query_split(shop.account, split)).outcome
    assert isinstance(found, SplitDone)
    back = SplitReturn(number(), split.number, found.channel_ref, SHOP_B, yuan(300), "用户退款")
    assert isinstance((await shop.channel.query_split_return(shop.account, back)).outcome, Absent)
    done = (await shop.channel.return_split(shop.account, back)).outcome
    assert isinstance(done, Succeeded)
    assert done.money == yuan(300)
    assert (await shop.channel.return_split(shop.account, back)).outcome == done
    assert (await shop.channel.query_split_return(shop.account, back)).outcome == done
    more = SplitReturn(number(), split.number, found.channel_ref, SHOP_B, yuan(1))
    assert isinstance((await shop.channel.return_split(shop.account, more)).outcome, Declined)
    news = (await shop.callbacks())[-1]
    assert isinstance(news, Callback)
    assert (news.kind, news.number) == (CallbackKind.SPLIT, back.number)


async def test_a_return_that_fails_is_declined(shop: WechatShop) -> None:
    split = await split_of(shop, 300)
    await shop.channel.split(shop.account, split)
    await shop.advance(2)
    back = SplitReturn(number(), split.number, "", SHOP_B, yuan(300))
    shop.sandbox.fault("wechat", "split_return", "failed:TIME_OUT_CLOSED", number=back.number)
    answer = await shop.channel.return_split(shop.account, back)
    assert answer.outcome == Declined("TIME_OUT_CLOSED")


async def test_an_order_placed_without_sharing_cannot_be_split(payer: WechatShop) -> None:
    split = SplitOrder(number(), await paid_ref(payer), [Share(SHOP_B, yuan(1))])
    assert isinstance((await payer.channel.split(payer.account, split)).outcome, Declined)


async def test_names_reach_the_channel_encrypted_and_the_evidence_not_at_all(
    shop: WechatShop,
) -> None:
    split = await split_of(shop, 300, 200)
    added = await shop.channel.add_receiver(shop.account, SHOP_B)
    answer = await shop.channel.split(shop.account, split)
    for exchange in (added.exchange, answer.exchange):
        assert "示例商贸" not in exchange.request + exchange.reply
        assert "张三" not in exchange.request + exchange.reply
        assert '"name":"***"' in exchange.request


# --- payouts


def payout(**changes: Any) -> TransferOrder:
    fields: dict[str, Any] = {
        "number": number(),
        "payee": OPENID,
        "payee_kind": "openid",
        "payee_name": "张三",
        "money": yuan(5000),
        "title": "2026年11月报销",
        "scene": "1000",
        "notes": [("活动名称", "新会员有礼")],
    }
    return TransferOrder(**{**fields, **changes})


@pytest.fixture(params=["direct", "partner", "partner with an app"])
def any_payer(request: pytest.FixtureRequest, payer: WechatShop) -> WechatShop:
    if request.param != "direct":
        payer.become_partner(payer.keys["sub_appid"] if "app" in request.param else "")
    return payer


async def test_a_payout_waits_for_its_payee(any_payer: WechatShop) -> None:
    payer, order = any_payer, payout()
    assert isinstance((await payer.channel.query_transfer(payer.account, order)).outcome, Absent)
    offered = await payer.channel.transfer(payer.account, order)
    assert isinstance(offered.outcome, Pending)
    assert offered.outcome.reason == "WAIT_USER_CONFIRM"
    assert isinstance(offered.outcome.action, OpenApp)
    assert offered.outcome.action.parameters["mchId"] == payer.keys["mchid"], "who signs"
    assert "张三" not in offered.exchange.request
    again = await payer.channel.transfer(payer.account, order)
    assert again.outcome == offered.outcome
    assert isinstance((await payer.channel.query_transfer(payer.account, order)).outcome, Pending)
    await payer.control("wechat/transfer", number=order.number)
    done = (await payer.channel.query_transfer(payer.account, order)).outcome
    assert isinstance(done, Succeeded)
    assert done.money == order.money
    news = (await payer.callbacks())[-1]
    assert isinstance(news, Callback)
    assert (news.kind, news.number) == (CallbackKind.TRANSFER, order.number)
    assert news.merchant_number == payer.account.merchant_number
    assert news.outcome == done


@pytest.mark.parametrize(("app", "name"), [("", "appId"), ("sub_appid", "subAppId")])
async def test_a_provider_opens_its_merchants_payout(
    payer: WechatShop, app: str, name: str
) -> None:
    payer.become_partner(payer.keys[app] if app else "")
    offered = (await payer.channel.transfer(payer.account, payout())).outcome
    assert isinstance(offered, Pending)
    assert isinstance(offered.action, OpenApp)
    handed = offered.action.parameters
    assert handed["subMchId"] == payer.keys["sub_mchid"]
    assert handed[name] == payer.account.app_id
    assert len(handed) == 4


async def test_a_provider_asks_about_its_own_merchants_payouts_only(payer: WechatShop) -> None:
    order = payout()
    await payer.channel.transfer(payer.account, order)
    payer.become_partner()
    assert isinstance((await payer.channel.query_transfer(payer.account, order)).outcome, Absent)


async def test_a_payout_may_fail_be_taken_back_or_run_out(any_payer: WechatShop) -> None:
    payer = any_payer
    failed, undone, late = payout(), payout(), payout()
    for order in (failed, undone, late):
        await payer.channel.transfer(payer.account, order)
    await payer.control("wechat/transfer", number=failed.number, action="fail")
    found = (await payer.channel.query_transfer(payer.account, failed)).outcome
    assert found == Declined("PAYEE_ACCOUNT_ABNORMAL")
    gone = (await payer.channel.cancel_transfer(payer.account, undone)).outcome
    assert isinstance(gone, Closed)
    await payer.advance(86401)
    found = (await payer.channel.query_transfer(payer.account, late)).outcome
    assert found == Declined("OVERDUE_CLOSE")
    again = (await payer.channel.cancel_transfer(payer.account, late)).outcome
    assert again == found


async def test_a_payout_that_ends_at_once_is_asked_about(payer: WechatShop) -> None:
    order = payout(payee_name=None)
    payer.sandbox.fault("wechat", "transfer", "at_once", number=order.number)
    answer = await payer.channel.transfer(payer.account, order)
    assert isinstance(answer.outcome, Succeeded)
    assert "out-bill-no" in answer.exchange.reply


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("time_out_done", Pending),
        ("http_500_done", Pending),
        ("bad_signature_done", Pending),
        ("time_out_not_done", Absent),
        ("http_500_not_done", Absent),
        ("http_429", Absent),
        ("reset", Absent),
    ],
)
async def test_an_unanswered_payout_is_asked_about(
    payer: WechatShop, fault: str, found: type
) -> None:
    order = payout()
    payer.sandbox.fault("wechat", "transfer", fault, number=order.number)
    assert isinstance((await payer.channel.transfer(payer.account, order)).outcome, Unknown)
    assert isinstance((await payer.channel.query_transfer(payer.account, order)).outcome, found)
    assert isinstance((await payer.channel.transfer(payer.account, order)).outcome, Pending)


async def test_what_a_payout_is_refused_for(payer: WechatShop) -> None:
    poor = payout()
    payer.sandbox.fault("wechat", "transfer", "not_enough", number=poor.number)
    answer = await payer.channel.transfer(payer.account, poor)
    assert isinstance(answer.outcome, Declined)
    assert answer.outcome.code == "NOT_ENOUGH"
    used = payout()
    await payer.channel.transfer(payer.account, used)
    other = payout(number=used.number, money=yuan(1))
    assert isinstance((await payer.channel.transfer(payer.account, other)).outcome, Unknown)
    foreign = await payer.channel.transfer(payer.account, payout(money=Money(1, "USD")))
    assert isinstance(foreign.outcome, NotSent)


async def test_a_payout_callback_with_another_amount_is_read_as_it_says(payer: WechatShop) -> None:
    order = payout()
    await payer.channel.transfer(payer.account, order)
    payer.sandbox.fault("wechat", "callback", "wrong_amount", number=order.number)
    await payer.control("wechat/transfer", number=order.number)
    news = (await payer.callbacks())[-1]
    assert isinstance(news, Callback)
    assert isinstance(news.outcome, Succeeded)
    assert news.outcome.money == yuan(order.money.amount + 1), "the reader compares"
    assert json.loads(news.content)["out_bill_no"] == order.number


async def test_every_order_of_a_sharing_account_may_be_split(shop: WechatShop) -> None:
    for mode in (PayMode.QR, PayMode.IN_APP, PayMode.H5, PayMode.APP):
        answer = await shop.channel.pay(shop.account, shop.order(mode))
        assert json.loads(answer.exchange.request)["settle_info"] == {"profit_sharing": True}
