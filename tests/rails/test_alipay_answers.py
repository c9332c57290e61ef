"""What single answers of Alipay mean for its products; none about something else counts."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from tests.rails.peers import ORDER_NUMBER, AlipayPeer, order, refund_order
from tests.rails.wire_server import Heard, WireServer, http_reply
from tongbao.infra.http import HttpClient
from tongbao.kernel.money import Money
from tongbao.rails.channels.alipay.client import Alipay
from tongbao.rails.channels.alipay.products.parking import ParkedCar
from tongbao.rails.channels.capabilities.agreements import AgreementOrder
from tongbao.rails.channels.capabilities.shares import Receiver, Share, SplitOrder, SplitReturn
from tongbao.rails.channels.capabilities.transfers import TransferOrder
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode
from tongbao.rails.channels.contract.outcomes import Answer, NotSent, Unknown
from tongbao.rails.channels.exchange import TimeLimits

PEER = AlipayPeer()
SHOP = Receiver("userId", "2088101126708402")
SPLIT = SplitOrder("split1", "2030010122001", [Share(SHOP, Money(300, "CNY"))])
BACK = SplitReturn("refund1", "split1", "2030010122001", SHOP, Money(100, "CNY"))
PAYOUT = TransferOrder(
    "payout1", "2088722000000201", "ALIPAY_USER_ID", None, Money(880, "CNY"), "佣金"
)
AGREED = AgreementOrder("agreed1", "GENERAL_WITHHOLDING_P/INDUSTRY", "顾客")
CAR = ParkedCar("visit1", "浙A00001", "BLUE", "PI1", "west", datetime(2030, 1, 1, tzinfo=UTC))
IN_APP = order("alipay", PayMode.IN_APP, payer_id="2088722003899169")
CHARGE = order("alipay", PayMode.AGREEMENT, agreement_ref="GENERAL_WITHHOLDING/2030")

Call = Callable[[Alipay, ChannelAccount], Awaitable[Answer[Any]]]

CALLS: dict[str, Call] = {
    "open a trade": lambda channel, account: channel.pay(account, IN_APP),
    "charge": lambda channel, account: channel.pay(account, CHARGE),
    "undo a charge": lambda channel, account: channel.close(account, CHARGE),
    "bind": lambda channel, account: channel.add_receiver(account, SHOP),
    "unbind": lambda channel, account: channel.remove_receiver(account, SHOP),
    "split": lambda channel, account: channel.split(account, SPLIT),
    "unfreeze": lambda channel, account: channel.unfreeze(account, SPLIT),
    "query a split": lambda channel, account: channel.query_split(account, SPLIT),
    "refund a share": lambda channel, account: channel.refund_with_shares(
        account, refund_order(), [BACK]
    ),
    "query a share back": lambda channel, account: channel.query_split_return(account, BACK),
    "pay out": lambda channel, account: channel.transfer(account, PAYOUT),
    "query a payout": lambda channel, account: channel.query_transfer(account, PAYOUT),
    "query an agreement": lambda channel, account: channel.query_agreement(account, AGREED),
    "end an agreement": lambda channel, account: channel.end_agreement(
        account, AGREED, "GENERAL_WITHHOLDING/2030", "x"
    ),
    "take a fee": lambda channel, account: channel.pay_parking(account, CHARGE, CAR),
    "drive in": lambda channel, account: channel.enter_car_park(account, CAR),
}
ASKING = {name for name in CALLS if name.startswith(("query", "undo"))}
DETAIL = {
    "operation_type": "transfer",
    "trans_in": SHOP.account,
    "amount": "3.00",
    "state": "SUCCESS",
    "detail_id": "d1",
}
SHARE_BACK = {"trans_out": SHOP.account, "refund_amount": "1.00", "result_code": "SUCCESS"}
PAID_OUT = {
    "out_biz_no": "payout1",
    "order_id": "2030",
    "status": "SUCCESS",
    "trans_amount": "8.80",
    "pay_date": "2030-01-01 20:00:00",
}
SIGNED = {
    "external_agreement_no": "agreed1",
    "agreement_no": "2030",
    "personal_product_code": "GENERAL_WITHHOLDING_P",
    "status": "NORMAL",
    "sign_time": "2030-01-01 20:00:00",
    "principal_id": "2088722003899169",
}
FEE = {
    "out_trade_no": ORDER_NUMBER,
    "trade_no": "2030",
    "total_fee": "19.99",
    "gmt_payment": "2030-01-01 20:00:00",
}

MEANINGS: list[tuple[str, dict[str, Any], str]] = [
    ("open a trade", {"out_trade_no": ORDER_NUMBER, "trade_no": "2030"}, "pending"),
    ("open a trade", {"out_trade_no": ORDER_NUMBER}, "unknown"),
    ("open a trade", {"out_trade_no": "another", "trade_no": "2030"}, "unknown"),
    ("charge", {"out_trade_no": ORDER_NUMBER, "total_amount": "19.98"}, "unknown"),
    ("undo a charge", {"out_trade_no": "another", "action": "close"}, "unknown"),
    ("undo a charge", {"out_trade_no": ORDER_NUMBER}, "absent"),
    ("bind", {"result_code": "FAIL"}, "unknown"),
    ("bind", {}, "unknown"),
    ("split", {"trade_no": "2030010122001"}, "split_under_way"),
    ("split", {"trade_no": "another"}, "unknown"),
    ("split", {}, "unknown"),
    ("query a split", {"out_request_no": "split1", "royalty_detail_list": [DETAIL]}, "split_done"),
    ("query a split", {"royalty_detail_list": [DETAIL | {"amount": 3.0}]}, "split_done"),
    ("query a split", {"royalty_detail_list": [DETAIL | {"state": "FAIL"}]}, "split_done"),
    (
        "query a split",
        {"royalty_detail_list": [DETAIL | {"state": "PROCESSING"}]},
        "split_under_way",
    ),
    ("query a split", {"royalty_detail_list": [DETAIL | {"state": "HALF"}]}, "unknown"),
    ("query a split", {"royalty_detail_list": [DETAIL | {"amount": "3.01"}]}, "unknown"),
    ("query a split", {"royalty_detail_list": [DETAIL | {"trans_in": "2088"}]}, "unknown"),
    ("query a split", {"royalty_detail_list": [DETAIL, DETAIL]}, "unknown"),
    ("query a split", {"royalty_detail_list": []}, "unknown"),
    ("query a split", {"out_request_no": "another", "royalty_detail_list": [DETAIL]}, "unknown"),
    ("query a share back", {"refund_royaltys": []}, "absent"),
    (
        "query a share back",
        {"refund_royaltys": [SHARE_BACK], "gmt_refund_pay": "2030-01-01 20:00:00"},
        "succeeded",
    ),
    ("query a share back", {"refund_royaltys": [SHARE_BACK]}, "unknown"),
    ("query a share back", {"refund_royaltys": [SHARE_BACK, SHARE_BACK]}, "unknown"),
    (
        "query a share back",
        {"refund_royaltys": [SHARE_BACK | {"result_code": "PROCESSING"}]},
        "pending",
    ),
    ("query a share back", {"refund_royaltys": [SHARE_BACK | {"result_code": "FAIL"}]}, "unknown"),
    ("query a share back", {"out_request_no": "x", "refund_royaltys": [SHARE_BACK]}, "unknown"),
    ("query a payout", PAID_OUT, "succeeded"),
    ("query a payout", PAID_OUT | {"trans_amount": 8.8}, "succeeded"),
    ("query a payout", PAID_OUT | {"trans_amount": "8.81"}, "unknown"),
    ("query a payout", PAID_OUT | {"out_biz_no": "another"}, "unknown"),
    ("query a payout", PAID_OUT | {"order_id": ""}, "unknown"),
    ("query a payout", PAID_OUT | {"pay_date": ""}, "unknown"),
    ("query a payout", PAID_OUT | {"status": "DEALING"}, "pending"),
    ("query a payout", PAID_OUT | {"status": "FAIL", "error_code": "X"}, "declined"),
    ("query a payout", PAID_OUT | {"status": "REFUND"}, "declined"),
    ("query a payout", PAID_OUT | {"status": "CLOSED"}, "closed"),
    ("query a payout", PAID_OUT | {"status": "HALF"}, "unknown"),
    ("pay out", PAID_OUT | {"trans_amount": ""}, "succeeded"),
    ("pay out", PAID_OUT | {"out_biz_no": "another"}, "unknown"),
    ("pay out", PAID_OUT | {"status": "CLOSED"}, "declined"),
    ("query an agreement", SIGNED, "agreement_signed"),
    ("query an agreement", SIGNED | {"status": "TEMP"}, "agreement_offered"),
    ("query an agreement", SIGNED | {"status": "STOP"}, "agreement_ended"),
    ("query an agreement", SIGNED | {"status": "HALF"}, "unknown"),
    ("query an agreement", SIGNED | {"agreement_no": ""}, "unknown"),
    ("query an agreement", SIGNED | {"sign_time": ""}, "unknown"),
    ("query an agreement", SIGNED | {"external_agreement_no": "another"}, "unknown"),
    ("query an agreement", SIGNED | {"personal_product_code": "CYCLE_PAY_AUTH_P"}, "unknown"),
    ("end an agreement", {}, "agreement_ended"),
    ("take a fee", FEE, "succeeded"),
    ("take a fee", FEE | {"total_fee": 19.99}, "succeeded"),
    ("take a fee", FEE | {"total_fee": "19.98"}, "unknown"),
    ("take a fee", FEE | {"out_trade_no": "another"}, "unknown"),
    ("take a fee", FEE | {"gmt_payment": ""}, "unknown"),
    ("drive in", {"agreement_status": "0"}, "plate_chargeable"),
    ("drive in", {"agreement_status": "1"}, "plate_not_chargeable"),
    ("drive in", {"agreement_status": "2"}, "unknown"),
]

REFUSALS: list[tuple[str, str, str]] = [
    ("bind", "USER_NOT_EXIST", "declined"),
    ("bind", "isv.invalid-signature", "not_sent"),
    ("split", "ACQ.TRADE_SETTLE_ERROR", "unknown"),
    ("split", "ACQ.SYSTEM_ERROR", "unknown"),
    ("split", "ACQ.ALLOC_AMOUNT_VALIDATE_ERROR", "declined"),
    ("split", "ACQ.NEVER_HEARD_OF", "unknown"),
    ("query a split", "ACQ.TRADE_NOT_EXIST", "absent"),
    ("query a split", "ACQ.SYSTEM_ERROR", "unknown"),
    ("query a payout", "ORDER_NOT_EXIST", "absent"),
    ("query a payout", "SYSTEM_ERROR", "unknown"),
    ("pay out", "SYSTEM_ERROR", "unknown"),
    ("pay out", "REQUEST_PROCESSING", "pending"),
    ("pay out", "PAYMENT_INFO_INCONSISTENCY", "unknown"),
    ("query an agreement", "USER_AGREEMENT_NOT_EXIST", "absent"),
    ("query an agreement", "SYSTEM_ERROR", "unknown"),
    ("end an agreement", "USER_AGREEMENT_NOT_EXIST", "absent"),
    ("end an agreement", "SYSTEM_ERROR", "unknown"),
    ("take a fee", "ACQ.AGREEMENT_NOT_EXIST", "declined"),
    ("take a fee", "ACQ.TRADE_HAS_SUCCESS", "unknown"),
    ("drive in", "SYSTEM_ERROR", "unknown"),
]


def shown_kind(answer: Answer[Any]) -> str:
    return str(msgspec.to_builtins(answer.outcome)["type"])


async def heard_of(name: str, node: dict[str, Any], far_end: WireServer, http: HttpClient) -> str:
    far_end.react = lambda heard: PEER.answer({"json": node}, heard)
    answer = await CALLS[name](PEER.channel(http), PEER.account(far_end.url))
    return shown_kind(answer)


@pytest.mark.parametrize(("name", "fields", "kind"), MEANINGS)
async def test_an_answer_means_this(
    name: str, fields: dict[str, Any], kind: str, far_end: WireServer, http: HttpClient
) -> None:
    node = {"code": "10000", "msg": "Success", **fields}
    assert await heard_of(name, node, far_end, http) == kind


@pytest.mark.parametrize(("name", "code", "kind"), REFUSALS)
async def test_a_refusal_means_this(
    name: str, code: str, kind: str, far_end: WireServer, http: HttpClient
) -> None:
    node = {"code": "40004", "msg": "Business Failed", "sub_code": code, "sub_msg": "不行"}
    assert await heard_of(name, node, far_end, http) == kind


@pytest.mark.parametrize("name", sorted(CALLS))
async def test_silence_and_strangers_are_unknown(
    name: str, far_end: WireServer, http: HttpClient
) -> None:
    good = {"json": {"code": "10000", "msg": "Success"}}
    troubles: list[Callable[[Heard], Any]] = [
        lambda _: "hang",
        lambda _: "reset",
        lambda _: http_reply(500, {}, b"<h1>x</h1>"),
        lambda _: http_reply(200, {}, b"<html>please log in</html>"),
        lambda heard: PEER.unsigned(good, heard),
        lambda heard: PEER.answer(good, heard, key="somebody"),
        lambda heard: PEER.answer({**good, "node": "another_response"}, heard),
    ]
    channel = PEER.channel(http, TimeLimits(ask_s=0.5, bill_s=0.5))
    for trouble in troubles:
        far_end.react = trouble
        answer = await CALLS[name](channel, PEER.account(far_end.url))
        assert isinstance(answer.outcome, Unknown), (name, answer)


@pytest.mark.parametrize("name", sorted(CALLS))
async def test_a_refused_connection_did_nothing(name: str, http: HttpClient) -> None:
    answer = await CALLS[name](PEER.channel(http), PEER.account("http://127.0.0.1:9"))
    assert isinstance(answer.outcome, Unknown if name in ASKING else NotSent)


@pytest.mark.parametrize("name", ["split", "pay out", "refund a share", "take a fee", "charge"])
async def test_a_repeat_asks_the_very_same(
    name: str, far_end: WireServer, http: HttpClient
) -> None:
    far_end.react = lambda _: http_reply(503)
    for _ in range(2):
        await CALLS[name](PEER.channel(http), PEER.account(far_end.url))
    first, second = (PEER.number_in(heard) for heard in far_end.heard)
    assert first == second


async def test_a_share_taken_back_is_asked_within_the_refund(
    far_end: WireServer, http: HttpClient
) -> None:
    far_end.react = lambda _: http_reply(503)
    await CALLS["refund a share"](PEER.channel(http), PEER.account(far_end.url))
    content = json.loads(json.dumps(PEER.number_in(far_end.heard[0])))
    for word in ("alipay.trade.refund", "refund_royalty_parameters", SHOP.account, "1.00"):
        assert word in content
