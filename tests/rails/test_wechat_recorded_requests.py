"""What we send to WeChat Pay, and what our simulator answers, beside what others recorded of both.

Both sides here are ours, so they could agree in error. The samples come from neither: a field that
they do not have is one that we made up, and one that they always have is not to be missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import replace

from tests.rails.test_wechat_documents import WECHAT, sample
from tests.rails.test_wechat_products import agreement, combined_order, entrance, stay
from tests.rails.wechat_shop import PRICE, WechatShop
from tests.rails.wire_server import WireServer
from tongbao.infra.http import HttpClient
from tongbao.rails.channels.contract.orders import PayMode, RefundTarget
from tongbao.rails.channels.wechat_pay.products import parking
from tongbao_sandbox.launch import RunningSandbox

PARTNER = {"sp_appid", "sp_mchid", "sub_appid", "sub_mchid"}
"""A provider's requests and answers name it, which the samples of merchants do not."""


class Recorded(Struct, frozen=True):
    """One call, its samples."""

    name: str
    method: str
    target: str
    request: str = ""
    reply: str = ""
    besides: frozenset[str] = frozenset()  # what the vendor's text has and the sample has not


SIGN = "PAPay__ScheduledDeductSign__PresignPAPayScheduledDeductSignContractEntrust"
CALLS = (
    Recorded(
        "papay pre-sign",
        "POST",
        r"/v3/papay/scheduled-deduct-sign/contracts/pre-entrust-sign/h5$",
        request=f"{SIGN}H5Request",
        reply=f"{SIGN}H5Response",
    ),
    Recorded(
        "papay deduction",
        "POST",
        r"/v3/papay/pay/transactions/apply$",
        request="PAPay__PayTransactions__ApplyPAPayPayTransactionRequest",
        reply="PAPay__PayTransactions__ApplyPAPayPayTransactionResponse",
    ),
    Recorded(
        "papay contract",
        "GET",
        r"/v3/papay/sign/contracts/plan-id/",
        reply="PAPay__SignContracts__GetPAPaySignContractByOutContractCodeResponse",
    ),
    Recorded(
        "papay notice",
        "POST",
        r"/v3/papay/contracts/\w+/notify$",
        request="PAPay__CreatePAPayContractNotificationRequest",
    ),
    Recorded(
        "papay ended",
        "POST",
        r"/v3/papay/sign/contracts/plan-id/\d+/out-contract-code/\w+/terminate$",
        request="PAPay__SignContracts__TerminatePAPaySignContractRequest",
        reply="PAPay__SignContracts__TerminatePAPaySignContractResponse",
    ),
    Recorded(
        "car drives in",
        "POST",
        r"/v3/vehicle/parking/parkings$",
        request="Vehicle__Parking__CreateVehicleParkingRequest",
        reply="Vehicle__Parking__CreateVehicleParkingResponse",
    ),
    Recorded(
        "plate",
        "GET",
        r"/v3/vehicle/parking/services/find",
        reply="Vehicle__Parking__GetVehicleParkingServiceResponse",
    ),
    Recorded(
        "parking fee",
        "POST",
        r"/v3/vehicle/transactions/parking$",
        request="Vehicle__Transactions__CreateVehicleTransactionParkingRequest",
        reply="Vehicle__Transactions__CreateVehicleTransactionParkingResponse",
    ),
    Recorded(
        "fee asked about",
        "GET",
        r"/v3/vehicle/transactions/out-trade-no/",
        reply="Vehicle__Transactions__GetVehicleTransactionByOutTradeNumberResponse",
    ),
    Recorded(
        "combined order",
        "POST",
        r"/v3/combine-transactions/native$",
        request="CombineTransactions__CreateCombineTransactionNativeRequest",
        reply="CombineTransactions__CreateCombineTransactionNativeResponse",
    ),
    Recorded(
        "combined order asked about",
        "GET",
        r"/v3/combine-transactions/out-trade-no/\w+$",
        reply="CombineTransactions__GetCombineTransactionByCombineOutTradeNumberResponse",
    ),
    Recorded(
        "combined order closed",
        "POST",
        r"/v3/combine-transactions/out-trade-no/\w+/close$",
        request="CombineTransactions__CloseCombineTransactionRequest",
    ),
    Recorded(
        "refund",
        "POST",
        r"/v3/refund/domestic/refunds$",
        request="Refund__CreateRefundDomesticRefundRequest",
        reply="Refund__CreateRefundDomesticRefundResponse",
        besides=frozenset({"/out_trade_no", "/amount/refund_fee"}),  # either number names the order
    ),
    Recorded(
        "abnormal refund",
        "POST",
        r"/v3/refund/domestic/refunds/\w+/apply-abnormal-refund$",
        request="Refund__CreateRefundDomesticAbnormalRefundApplyRequest",
        reply="Refund__CreateRefundDomesticAbnormalRefundApplyResponse",
    ),
)


def paths(value: Any, start: str = "") -> Iterator[str]:
    """Every field of a document, by its path; places in lists do not count."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield f"{start}/{name}"
            yield from paths(inner, f"{start}/{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from paths(inner, start)


@pytest.fixture
def shop(sandbox: RunningSandbox, http: HttpClient, far_end: WireServer) -> WechatShop:
    return WechatShop(sandbox, http, far_end)


async def everything(shop: WechatShop) -> list[dict[str, Any]]:
    """Make every call of the table once, and return what the simulator heard and said."""
    channel = shop.channel
    order = agreement()
    await channel.offer_agreement(shop.account, order)
    await shop.control("wechat/agreement", number=order.number)
    signed: Any = (await channel.query_agreement(shop.account, order)).outcome
    deduction = shop.order(PayMode.AGREEMENT, agreement_ref=signed.agreement_ref)
    await channel.pay(shop.account, deduction)
    await channel.announce(shop.account, signed.agreement_ref, PRICE)
    await channel.end_agreement(shop.account, order, signed.agreement_ref, "用户解约")
    whole = combined_order(shop)
    await channel.pay_combined(shop.account, whole)
    await channel.query_combined(shop.account, whole)
    await channel.close_combined(shop.account, whole)
    refund = shop.refund(await shop.paid(), 500)
    shop.sandbox.fault("wechat", "refund", "abnormal", number=refund.number)
    await channel.refund(shop.account, refund)
    await shop.advance(2)
    to = RefundTarget("customer_card", "ICBC_DEBIT", "6222021234567890123", "张三")
    await channel.refund(shop.account, replace(refund, to=to))
    shop.become_partner()
    now = datetime.fromisoformat(shop.sandbox.get("clock")["now"])
    car = entrance(shop)
    await channel.look_up_plate(shop.account, car.plate.number, car.plate.colour, "o-1")
    entered: Any = (await parking.enter(channel.gateway, shop.account, car)).outcome
    fee = shop.order(PayMode.AGREEMENT)
    await parking.charge(channel.gateway, shop.account, fee, stay(entered.parking_id, now))
    await shop.advance(2)
    await parking.query_charge(channel.gateway, shop.account, fee)
    heard: list[dict[str, Any]] = shop.sandbox.get("requests", last=80)
    return heard


def made_up(ours: str, theirs: str, besides: frozenset[str]) -> list[str]:
    """The fields of a document of ours that the sample does not have."""
    known = {*paths(sample("models", theirs)), *besides}
    return sorted(
        path
        for path in set(paths(json.loads(ours)))
        if path not in known and path.rpartition("/")[2] not in PARTNER | ANSWERED
    )


ANSWERED = {"payer_total", "payer_currency", "payer_amount", "promotion_detail"}
"""What samples of an order show only where there was a discount or another currency."""


async def test_no_field_is_made_up_by_us_or_by_our_simulator(shop: WechatShop) -> None:
    heard = await everything(shop)
    wrong: list[str] = []
    for call in CALLS:
        met = [
            each
            for each in heard
            if each["method"] == call.method and re.search(call.target, each["target"])
        ]
        assert met, f"nobody made the call: {call.name}"
        for each in met:
            if call.request:
                sent = made_up(each["request"], call.request, call.besides)
                wrong += [f"{call.name} asks {at}" for at in sent]
            if call.reply and each["status"] == 200:
                said = made_up(each["reply"], call.reply, call.besides)
                wrong += [f"{call.name} says {at}" for at in said]

    assert wrong == []


BY_PROVIDERS: dict[str, dict[str, list[str]]] = json.loads(
    (WECHAT / "papay_partner.json").read_text("utf-8")
)


@pytest.mark.parametrize("sub_appid", ["", "wxsub0000000001"])
async def test_a_provider_asks_for_agreements_with_the_fields_there_are(
    shop: WechatShop, sub_appid: str
) -> None:
    shop.become_partner(sub_appid)
    order = agreement(payer_id="oUpF8uMuAJO-sub")
    await shop.channel.offer_agreement(shop.account, order)
    await shop.control("wechat/agreement", number=order.number)
    signed: Any = (await shop.channel.query_agreement(shop.account, order)).outcome
    deduction = shop.order(PayMode.AGREEMENT, agreement_ref=signed.agreement_ref)
    await shop.channel.pay(shop.account, deduction)
    recent = shop.sandbox.get("requests", last=20)
    heard = {f"{each['method']} {each['target'].removeprefix('/wechat')}": each for each in recent}

    for call, names in BY_PROVIDERS.items():
        asked, said = (json.loads(heard[call][part]) for part in ("request", "reply"))
        assert set(names["required"]) <= asked.keys(), call
        assert asked.keys() <= {*names["required"], *names["known"]}, call
        assert said.keys() == set(names["answers"]), call
