"""Combined orders, agreements and parking of WeChat Pay against the simulated one."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.rails.wechat_shop import OPENID, WechatShop, number
from tests.rails.wire_server import WireServer
from tongbao.infra.http import HttpClient
from tongbao.kernel.money import Money
from tongbao.rails.channels.capabilities.agreements import (
    Agreeing,
    AgreementEnded,
    AgreementOffered,
    AgreementOrder,
    AgreementSigned,
    SignsIn,
    VisitBlocked,
    VisitOpen,
)
from tongbao.rails.channels.capabilities.combined_orders import CombinedOrder, CombinedPart
from tongbao.rails.channels.contract.callbacks import Callback, CallbackKind
from tongbao.rails.channels.contract.orders import PayMode, PayOrder, RefundOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Closed,
    Declined,
    NotSent,
    OpenApp,
    Pending,
    Redirect,
    ShowQr,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.exchange import Announced
from tongbao.rails.channels.wechat_pay.documents.agreements import SignOffer
from tongbao.rails.channels.wechat_pay.products import agreements, parking
from tongbao_sandbox.launch import RunningSandbox


@pytest.fixture
def shop(sandbox: RunningSandbox, http: HttpClient, far_end: WireServer) -> WechatShop:
    return WechatShop(sandbox, http, far_end)


@pytest.fixture(params=["direct", "partner", "partner with an app"])
def any_shop(request: pytest.FixtureRequest, shop: WechatShop) -> WechatShop:
    if request.param != "direct":
        shop.become_partner(shop.keys["sub_appid"] if "app" in request.param else "")
    return shop


def yuan(fen: int) -> Money:
    return Money(fen, "CNY")


# --- combined orders


def combined_order(shop: WechatShop, mode: PayMode = PayMode.QR) -> CombinedOrder:
    parts = [
        CombinedPart(number(), yuan(300), "一杯咖啡"),
        CombinedPart(number(), yuan(700), "一块蛋糕"),
    ]
    return CombinedOrder(shop.order(mode, money=yuan(1000)), parts)


async def parts_of(shop: WechatShop, order: CombinedOrder) -> list[Any]:
    found = (await shop.channel.query_combined(shop.account, order)).outcome
    assert isinstance(found, tuple)
    return [part.outcome for part in found]


@pytest.mark.parametrize("partner", [False, True])
@pytest.mark.parametrize(
    ("mode", "action"),
    [
        (PayMode.QR, ShowQr),
        (PayMode.IN_APP, OpenApp),
        (PayMode.APP, OpenApp),
        (PayMode.H5, Redirect),
    ],
)
async def test_all_parts_are_paid_at_once(
    shop: WechatShop, mode: PayMode, action: type, partner: bool
) -> None:
    if partner:
        shop.become_partner()
    order = combined_order(shop, mode)
    assert isinstance((await shop.channel.query_combined(shop.account, order)).outcome, Absent)
    placed = (await shop.channel.pay_combined(shop.account, order)).outcome
    assert isinstance(placed, Pending)
    assert isinstance(placed.action, action)
    assert all(isinstance(one, Pending) for one in await parts_of(shop, order))
    await shop.scan(PayOrder(order.parts[0].number, mode, yuan(300), "", order.order.expires_at))
    found = await parts_of(shop, order)
    assert [one.money for one in found if isinstance(one, Succeeded)] == [yuan(300), yuan(700)]
    [news] = await shop.callbacks()
    assert isinstance(news, Callback)
    assert (news.kind, news.number) == (CallbackKind.COMBINED, order.order.number)
    assert isinstance(news.outcome, Unknown), "the parts are to be asked about"
    assert len(json.loads(news.content)["sub_orders"]) == 2


async def test_a_combined_page_is_opened_for_the_provider_that_combines(shop: WechatShop) -> None:
    shop.become_partner(shop.keys["sub_appid"])
    order = combined_order(shop, PayMode.IN_APP)
    placed = (await shop.channel.pay_combined(shop.account, order)).outcome
    assert isinstance(placed, Pending)
    assert isinstance(placed.action, OpenApp)
    assert placed.action.parameters["appId"] == shop.keys["appid"]
    await shop.control("wechat/open", parameters=dict(placed.action.parameters))
    assert all(isinstance(one, Succeeded) for one in await parts_of(shop, order))


async def test_a_part_is_refunded_like_any_order(shop: WechatShop) -> None:
    order = combined_order(shop)
    await shop.channel.pay_combined(shop.account, order)
    await shop.scan(shop.order(PayMode.QR, number=order.parts[0].number))
    refund = RefundOrder(number(), order.parts[1].number, yuan(100), yuan(700))
    assert isinstance((await shop.channel.refund(shop.account, refund)).outcome, Pending)
    await shop.advance(2)
    assert isinstance((await shop.channel.query_refund(shop.account, refund)).outcome, Succeeded)


async def test_a_combined_order_is_closed_whole(shop: WechatShop) -> None:
    order = combined_order(shop)
    assert isinstance((await shop.channel.close_combined(shop.account, order)).outcome, Absent)
    await shop.channel.pay_combined(shop.account, order)
    assert isinstance((await shop.channel.close_combined(shop.account, order)).outcome, Closed)
    assert all(isinstance(one, Closed) for one in await parts_of(shop, order))
    paid = combined_order(shop)
    await shop.channel.pay_combined(shop.account, paid)
    await shop.scan(shop.order(PayMode.QR, number=paid.parts[0].number))
    assert isinstance((await shop.channel.close_combined(shop.account, paid)).outcome, Unknown)


async def test_the_same_parts_again_are_the_same_order(shop: WechatShop) -> None:
    order = combined_order(shop)
    once = await shop.channel.pay_combined(shop.account, order)
    again = await shop.channel.pay_combined(shop.account, order)
    assert once.outcome == again.outcome
    other = CombinedOrder(order.order, [order.parts[0], CombinedPart(number(), yuan(700), "茶")])
    answer = await shop.channel.pay_combined(shop.account, other)
    assert isinstance(answer.outcome, Unknown), "the number was used: never a refusal"
    assert isinstance((await shop.channel.query_combined(shop.account, other)).outcome, Unknown)


async def test_an_amount_that_differs_is_a_contradiction(shop: WechatShop) -> None:
    order = combined_order(shop)
    await shop.channel.pay_combined(shop.account, order)
    first, second = order.parts
    claimed = CombinedOrder(
        order.order,
        [CombinedPart(first.number, yuan(301), "x"), second],
    )
    wrong, right = await parts_of(shop, claimed)
    assert isinstance(wrong, Unknown)
    assert isinstance(right, Pending)


@pytest.mark.parametrize("trouble", ["one part", "another sum", "payment code", "same number"])
async def test_what_is_no_combined_order_is_not_sent(shop: WechatShop, trouble: str) -> None:
    order = combined_order(shop)
    first, second = order.parts
    wrong = {
        "one part": CombinedOrder(shop.order(PayMode.QR, money=yuan(300)), [first]),
        "another sum": CombinedOrder(shop.order(PayMode.QR), [first, second]),
        "payment code": CombinedOrder(shop.code(), [first, second]),
        "same number": CombinedOrder(shop.order(PayMode.QR, money=yuan(600)), [first, first]),
    }[trouble]
    answer = await shop.channel.pay_combined(shop.account, wrong)
    assert isinstance(answer.outcome, NotSent)


# --- agreements


def agreement(**changes: Any) -> AgreementOrder:
    fields: dict[str, Any] = {"number": number(), "plan": "12535", "display_name": "微信代扣用户A"}
    return AgreementOrder(**{**fields, **changes})


async def signed(shop: WechatShop, **changes: Any) -> tuple[AgreementOrder, AgreementSigned]:
    order = agreement(**changes)
    offered = (await shop.channel.offer_agreement(shop.account, order)).outcome
    assert isinstance(offered, AgreementOffered), offered
    assert isinstance(offered.action, Redirect)
    await shop.control("wechat/agreement", number=order.number)
    found = (await shop.channel.query_agreement(shop.account, order)).outcome
    assert isinstance(found, AgreementSigned)
    return order, found


def test_the_channel_takes_agreements(shop: WechatShop) -> None:
    assert isinstance(shop.channel, Agreeing)
    assert PayMode.AGREEMENT in shop.channel.modes


@pytest.mark.parametrize(
    ("signs_in", "handed"),
    [
        ("app", {"pre_entrustweb_id", "userName", "path"}),
        ("mini_program", {"pre_entrustweb_id", "appId", "path"}),
    ],
)
async def test_an_agreement_is_signed_out_of_an_app_or_a_mini_program(
    any_shop: WechatShop, signs_in: SignsIn, handed: set[str]
) -> None:
    shop, order = any_shop, agreement(signs_in=signs_in, payer_id=OPENID)
    offered = (await shop.channel.offer_agreement(shop.account, order)).outcome
    assert isinstance(offered, AgreementOffered), offered
    assert isinstance(offered.action, OpenApp)
    assert offered.action.parameters.keys() == handed
    [asked] = [
        each for each in shop.sandbox.get("requests", last=9) if "pre-entrust" in each["target"]
    ][-1:]
    assert asked["target"].endswith({"app": "/app", "mini_program": "/mini-program"}[signs_in])
    await shop.control("wechat/agreement", number=order.number)
    found = (await shop.channel.query_agreement(shop.account, order)).outcome
    assert isinstance(found, AgreementSigned)
    assert found.payer == OPENID


@pytest.mark.parametrize(
    ("signs_in", "said"),
    [
        ("page", {"pre_entrustweb_id": "5778"}),
        ("app", {"miniprogram_username": "gh_1", "miniprogram_path": "pages/index"}),
        ("mini_program", {"pre_entrustweb_id": "5778", "redirect_appid": "wx1"}),
    ],
)
def test_an_offer_that_does_not_say_where_to_sign_opens_nothing(
    signs_in: SignsIn, said: dict[str, str]
) -> None:
    assert agreements.action_of(SignOffer(**said), signs_in) is None


def test_an_app_needs_the_offers_id_alone() -> None:
    """The mini-program beside it may be left out (`TheNorthMemory/wechatpay-openapi`)."""
    found = agreements.action_of(SignOffer(pre_entrustweb_id="5778"), "app")
    assert found == OpenApp({"pre_entrustweb_id": "5778"})


@pytest.mark.parametrize("payer", [None, OPENID])
async def test_an_agreement_is_signed_told_of_and_ended(
    any_shop: WechatShop, payer: str | None
) -> None:
    shop = any_shop
    order, contract = await signed(shop, payer_id=payer)
    assert contract.agreement_ref
    assert contract.payer
    assert contract.payer == (payer or contract.payer)
    assert contract.ends_at is not None
    [news] = await shop.callbacks()
    assert isinstance(news, Callback)
    assert (news.kind, news.number) == (CallbackKind.AGREEMENT, order.number)
    assert news.merchant_number == shop.account.merchant_number
    assert news.app_id == shop.account.app_id
    ended = await shop.channel.end_agreement(
        shop.account, order, contract.agreement_ref, "不再需要"
    )
    assert ended.outcome == AgreementEnded("MERCHANT_TERMINATE")
    assert (await shop.channel.query_agreement(shop.account, order)).outcome == ended.outcome
    last = (await shop.callbacks())[-1]
    assert isinstance(last, Callback)
    assert last.outcome == Closed("TERMINATED")


async def test_a_customer_ends_an_agreement(shop: WechatShop) -> None:
    order, _ = await signed(shop)
    await shop.control("wechat/agreement", number=order.number, action="end")
    found = (await shop.channel.query_agreement(shop.account, order)).outcome
    assert found == AgreementEnded("USER_TERMINATE")


async def test_an_offer_nobody_signed_is_not_known(shop: WechatShop) -> None:
    order = agreement()
    await shop.channel.offer_agreement(shop.account, order)
    assert isinstance((await shop.channel.query_agreement(shop.account, order)).outcome, Absent)
    ended = await shop.channel.end_agreement(shop.account, order, "", "x")
    assert isinstance(ended.outcome, Absent)


async def test_the_same_offer_again_is_the_same_offer(shop: WechatShop) -> None:
    order = agreement()
    once = await shop.channel.offer_agreement(shop.account, order)
    again = await shop.channel.offer_agreement(shop.account, order)
    assert once.outcome == again.outcome


@pytest.mark.parametrize("fault", ["time_out_done", "http_500_not_done", "bad_signature_done"])
async def test_an_unanswered_end_is_unknown(shop: WechatShop, fault: str) -> None:
    order, contract = await signed(shop)
    shop.sandbox.fault("wechat", "agreement", fault, number=order.number)
    answer = await shop.channel.end_agreement(shop.account, order, contract.agreement_ref, "x")
    assert isinstance(answer.outcome, Unknown)


async def deduction(shop: WechatShop) -> PayOrder:
    _, contract = await signed(shop)
    return shop.order(PayMode.AGREEMENT, agreement_ref=contract.agreement_ref)


async def test_a_deduction_is_accepted_and_then_taken(any_shop: WechatShop) -> None:
    shop = any_shop
    order = await deduction(shop)
    assert isinstance((await shop.channel.query(shop.account, order)).outcome, Absent)
    assert (await shop.channel.pay(shop.account, order)).outcome == Pending(reason="ACCEPTED")
    assert (await shop.channel.pay(shop.account, order)).outcome == Pending(reason="ACCEPTED")
    assert (await shop.channel.query(shop.account, order)).outcome == Pending(reason="ACCEPT")
    await shop.advance(2)
    done = (await shop.channel.query(shop.account, order)).outcome
    assert isinstance(done, Succeeded)
    news = (await shop.callbacks())[-1]
    assert isinstance(news, Callback)
    assert (news.number, news.outcome) == (order.number, done)


async def test_a_deduction_from_an_empty_purse_is_declined(shop: WechatShop) -> None:
    agreed, contract = await signed(shop)
    await shop.control("wechat/agreement", number=agreed.number, action="empty")
    order = shop.order(PayMode.AGREEMENT, agreement_ref=contract.agreement_ref)
    await shop.channel.pay(shop.account, order)
    await shop.advance(2)
    found = (await shop.channel.query(shop.account, order)).outcome
    assert isinstance(found, Declined)
    assert found.code == "PAY_FAIL"
    news = (await shop.callbacks())[-1]
    assert isinstance(news, Callback)
    assert news.outcome == found


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("time_out_paid", Succeeded),
        ("time_out_made", Pending),
        ("http_500_paid", Succeeded),
        ("bad_signature_paid", Succeeded),
        ("time_out_unpaid", Absent),
        ("http_429", Absent),
        ("reset", Absent),
    ],
)
async def test_an_unanswered_deduction_is_asked_about(
    shop: WechatShop, fault: str, found: type
) -> None:
    order = await deduction(shop)
    shop.sandbox.fault("wechat", "pay", fault, number=order.number)
    assert isinstance((await shop.channel.pay(shop.account, order)).outcome, Unknown)
    assert isinstance((await shop.channel.query(shop.account, order)).outcome, found)


async def test_nothing_is_taken_without_an_agreement(shop: WechatShop) -> None:
    bare = shop.order(PayMode.AGREEMENT)
    assert isinstance((await shop.channel.pay(shop.account, bare)).outcome, NotSent)
    unknown = shop.order(PayMode.AGREEMENT, agreement_ref="000000000000000999")
    assert isinstance((await shop.channel.pay(shop.account, unknown)).outcome, NotSent)
    order, contract = await signed(shop)
    await shop.control("wechat/agreement", number=order.number, action="end")
    late = shop.order(PayMode.AGREEMENT, agreement_ref=contract.agreement_ref)
    assert isinstance((await shop.channel.pay(shop.account, late)).outcome, NotSent)


async def test_a_deduction_is_announced(shop: WechatShop) -> None:
    _, contract = await signed(shop)
    gateway = shop.channel.gateway
    told = await agreements.announce(gateway, shop.account, contract.agreement_ref, yuan(1))
    assert told.outcome == Announced()
    unknown = await agreements.announce(gateway, shop.account, "999", yuan(1))
    assert isinstance(unknown.outcome, Declined)


async def test_a_plan_is_a_number(any_shop: WechatShop) -> None:
    odd = await any_shop.channel.offer_agreement(any_shop.account, agreement(plan="gold"))
    assert isinstance(odd.outcome, NotSent)


async def test_a_provider_cannot_announce_a_deduction(shop: WechatShop) -> None:
    """WeChat Pay documents the notice for merchants alone (``papay/contracts/{id}/notify``)."""
    shop.become_partner()
    told = await agreements.announce(shop.channel.gateway, shop.account, "1", yuan(1))
    assert isinstance(told.outcome, NotSent)
    assert told.exchange.status is None


async def test_a_merchants_agreement_is_not_the_providers(shop: WechatShop) -> None:
    own, contract = await signed(shop)
    shop.become_partner()
    assert isinstance((await shop.channel.query_agreement(shop.account, own)).outcome, Absent)
    order = shop.order(PayMode.AGREEMENT, agreement_ref=contract.agreement_ref)
    assert isinstance((await shop.channel.pay(shop.account, order)).outcome, NotSent)


# --- parking

PLATE = parking.Plate("粤B888888", "BLUE")


def stay(parking_id: str, now: datetime) -> parking.Stay:
    return parking.Stay(
        parking_id, PLATE, now - timedelta(hours=1), now, "欢乐海岸停车场", 3600, "12313"
    )


def entrance(shop: WechatShop) -> parking.Entrance:
    now = datetime.fromisoformat(shop.sandbox.get("clock")["now"])
    return parking.Entrance(number(), PLATE, now, "欢乐海岸停车场", 3600)


async def test_a_car_drives_in_and_is_charged_on_leaving(shop: WechatShop) -> None:
    shop.become_partner(shop.keys["sub_appid"])
    drive_in = entrance(shop)
    looked = await shop.channel.look_up_plate(shop.account, PLATE.number, PLATE.colour, OPENID)
    assert looked.outcome == VisitOpen("")
    shown = f"{looked.exchange.url}{looked.exchange.reply}"
    assert PLATE.number not in shown
    assert "B888888" not in shown
    entered = (await parking.enter(shop.channel.gateway, shop.account, drive_in)).outcome
    assert isinstance(entered, parking.ParkingOpen)
    assert (await parking.enter(shop.channel.gateway, shop.account, drive_in)).outcome == entered
    order = shop.order(PayMode.AGREEMENT)
    asked = await parking.query_charge(shop.channel.gateway, shop.account, order)
    assert isinstance(asked.outcome, Absent)
    fee = stay(entered.parking_id, drive_in.at)
    taken = await parking.charge(shop.channel.gateway, shop.account, order, fee)
    assert taken.outcome == Pending(reason="ACCEPTED")
    await shop.advance(2)
    done = (await parking.query_charge(shop.channel.gateway, shop.account, order)).outcome
    assert isinstance(done, Succeeded)
    assert (await parking.charge(shop.channel.gateway, shop.account, order, fee)).outcome == done
    [news] = await shop.callbacks()
    assert isinstance(news, Callback)
    assert (news.number, news.outcome) == (order.number, done)
    assert news.merchant_number == shop.account.merchant_number
    assert news.app_id == shop.account.app_id


async def test_a_plate_that_cannot_be_charged_says_so(shop: WechatShop) -> None:
    shop.become_partner()
    shop.sandbox.fault("wechat", "agreement", "plate_paused", number=PLATE.number, times=2)
    looked = await shop.channel.look_up_plate(shop.account, PLATE.number, PLATE.colour, OPENID)
    assert looked.outcome == VisitBlocked("PAUSE")
    entered = await parking.enter(shop.channel.gateway, shop.account, entrance(shop))
    assert entered.outcome == parking.ParkingBlocked("PAUSE")


@pytest.mark.parametrize(
    ("fault", "found"),
    [("time_out_paid", Succeeded), ("http_500_unpaid", Absent), ("reset", Absent)],
)
async def test_an_unanswered_fee_is_asked_about(shop: WechatShop, fault: str, found: type) -> None:
    shop.become_partner()
    drive_in = entrance(shop)
    entered = (await parking.enter(shop.channel.gateway, shop.account, drive_in)).outcome
    assert isinstance(entered, parking.ParkingOpen)
    order = shop.order(PayMode.AGREEMENT)
    shop.sandbox.fault("wechat", "pay", fault, number=order.number)
    fee = stay(entered.parking_id, drive_in.at)
    answer = await parking.charge(shop.channel.gateway, shop.account, order, fee)
    assert isinstance(answer.outcome, Unknown)
    asked = await parking.query_charge(shop.channel.gateway, shop.account, order)
    assert isinstance(asked.outcome, found)


async def test_parking_is_for_providers(shop: WechatShop) -> None:
    now = datetime.fromisoformat(shop.sandbox.get("clock")["now"])
    order = shop.order(PayMode.AGREEMENT)
    answers = [
        await shop.channel.look_up_plate(shop.account, PLATE.number, PLATE.colour, OPENID),
        await parking.enter(shop.channel.gateway, shop.account, entrance(shop)),
        await parking.charge(shop.channel.gateway, shop.account, order, stay("1", now)),
    ]
    assert all(isinstance(answer.outcome, NotSent) for answer in answers)
