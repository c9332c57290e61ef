"""The ten faults of the platform these programs come from, tried through the façade.

Each test is named for the fault and goes over HTTP as a merchant's old program would; the channels
misbehave as real ones do, and the merchant's server is a real one.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2 as httpx
import pytest
import structlog

from tests.payments.invariants import assert_money_is_conserved
from tests.payments.letters import Postman, states_of_callbacks
from tests.sandboxes import start_sandbox
from tests.stage import Stage, new_number, staged
from tests.surfaces.commands import Cli
from tests.surfaces.jeepaying import (
    Ear,
    Program,
    payment_of,
    platform_with_facade,
    program_of,
    sign,
)
from tongbao.infra import failpoints
from tongbao.infra.db import Db, connect
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.infra.telemetry import set_up_logging
from tongbao.kernel.clock import Clock
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.money import Money
from tongbao.surfaces.jeepay.notices import DELAYS
from tongbao.wiring import Platform
from tongbao_sandbox.launch import RunningSandbox

CHANNELS = {"wechat_pay": ("WX_NATIVE", "WX_BAR"), "alipay": ("ALI_QR", "ALI_BAR")}
both_channels = pytest.mark.parametrize("channel", CHANNELS)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSandbox]:
    with start_sandbox(tmp_path_factory.mktemp("sandbox")) as running:
        running.post("settings", hold_s=0.02)
        yield running


@pytest.fixture(scope="module")
async def module_stage(
    server: Any,
    _admin: Any,
    _template: str,
    tmp_path_factory: pytest.TempPathFactory,
    sandbox: RunningSandbox,
) -> AsyncIterator[Stage]:
    """One platform for what looks at its own orders only."""
    folder = tmp_path_factory.mktemp("platform")
    async with platform_with_facade(server, _admin, _template, folder, sandbox) as ready:
        yield ready


@pytest.fixture
async def stage(module_stage: Stage) -> Stage:
    module_stage.sandbox.delete("faults")
    await module_stage.live_together()
    return module_stage


@pytest.fixture(scope="module")
async def program(module_stage: Stage) -> AsyncIterator[Program]:
    async with program_of(module_stage) as made:
        yield made


@pytest.fixture
async def own_stage(db: Db, tmp_path: Path, sandbox: RunningSandbox) -> AsyncIterator[Stage]:
    """A platform on a database of the test's own."""
    sandbox.delete("faults")
    async with staged(db, tmp_path, sandbox, jeepay_facade=True) as ready:
        yield ready
        await assert_money_is_conserved(db)


@pytest.fixture
async def own_program(own_stage: Stage) -> AsyncIterator[Program]:
    async with program_of(own_stage) as made:
        yield made


async def paid(stage: Stage, program: Program, channel: str, **more: Any) -> dict[str, Any]:
    """An order that a customer has paid."""
    order = (await program.order(CHANNELS[channel][0], **more)).data
    await stage.customer(payment_of(order))
    await stage.idle()
    assert await program.state(order) == 2
    return order


@both_channels
@pytest.mark.parametrize(
    ("silence", "ends"), [("time_out_paid", 2), ("bad_signature_paid", 2), ("time_out_unpaid", 4)]
)
async def test_1_a_payment_code_in_silence_is_under_way_and_never_failed(
    stage: Stage, program: Program, channel: str, silence: str, ends: int
) -> None:
    stage.fault(channel, "pay", silence)
    extra = json.dumps({"authCode": await stage.code(channel)})

    order = await program.order("AUTO_BAR", channelExtra=extra)
    assert (order.code, order.data["orderState"]) == (0, 1)
    assert await program.state(order.data) == 1

    for _ in range(3):
        await stage.advance(seconds=31)
    assert await program.state(order.data) == ends


@both_channels
@pytest.mark.parametrize("silence", ["time_out_done", "time_out_not_done"])
async def test_2_a_refund_in_silence_is_under_way_and_told_once_it_is_known(
    stage: Stage, program: Program, channel: str, silence: str
) -> None:
    order = await paid(stage, program, channel)
    stage.fault(channel, "refund", silence)
    with Ear() as ear:
        refund = await program.refund(order, 500, notifyUrl=ear.url)
        assert (refund.code, refund.data["state"]) == (0, 1)
        assert ear.heard == []

        for _ in range(2):
            await stage.advance(seconds=30)

        assert await program.refund_state(refund.data) == 2
        assert [(each["state"], each["mchRefundNo"]) for each in ear.heard] == [
            ("2", refund.data["mchRefundNo"])
        ]
    assert await stage.given_back(payment_of(order)) == [500]


@both_channels
async def test_3_a_refund_met_by_a_system_error_is_carried_through(
    stage: Stage, program: Program, channel: str
) -> None:
    order = await paid(stage, program, channel)
    stage.fault(channel, "refund", "http_500_not_done", times=2)
    stage.fault(channel, "refund_query", "http_500", times=2)

    refund = await program.refund(order, 500)
    assert (refund.code, refund.data["state"]) == (0, 1)
    again = await program.refund(order, 500, mchRefundNo=refund.data["mchRefundNo"])
    assert again.data["refundOrderId"] == refund.data["refundOrderId"]

    for _ in range(6):
        await stage.advance(seconds=60)
    assert await program.refund_state(refund.data) == 2
    assert await stage.given_back(payment_of(order)) == [500]


async def test_3_a_refund_that_is_refused_is_said_to_be(stage: Stage, program: Program) -> None:
    order = await paid(stage, program, "wechat_pay")
    stage.fault("wechat_pay", "refund", "not_enough", times=-1)
    with Ear() as ear:
        refund = (await program.refund(order, 500, notifyUrl=ear.url)).data
        await stage.advance(seconds=10)

        said = (await program.call("refund/query", refundOrderId=refund["refundOrderId"])).data
        assert (said["state"], bool(said["errCode"])) == (3, True)
        assert [each["state"] for each in ear.heard] == ["3"]


@both_channels
async def test_4_refunds_that_race_never_give_back_more_than_came_in(
    stage: Stage, program: Program, channel: str
) -> None:
    order = await paid(stage, program, channel, amount=1000)

    said = await asyncio.gather(*(program.refund(order, 300) for _ in range(8)))

    assert sorted(each.code for each in said) == [0, 0, 0] + [9999] * 5
    refused = [each.msg for each in said if each.code]
    assert all("refund.exceeds_captured" in each for each in refused)
    await stage.advance(seconds=30)
    assert await stage.given_back(payment_of(order)) == [300, 300, 300]


@both_channels
async def test_5_an_order_is_closed_at_the_channel_before_it_is_said_to_be(
    stage: Stage, program: Program, channel: str
) -> None:
    order = (await program.order(CHANNELS[channel][0])).data
    await stage.fault_of(payment_of(order), "close", "http_500", times=-1)

    asked = await program.call("pay/close", payOrderId=order["payOrderId"])
    assert asked.code == 9999
    assert "jeepay.close_undecided" in asked.msg
    assert await program.state(order) == 1

    stage.sandbox.delete("faults")
    for _ in range(3):
        await stage.advance(seconds=60)
    assert await program.state(order) == 6
    trade = await stage.trade_of(payment_of(order))
    assert trade is not None
    assert trade["state"] == "closed"


async def test_5_who_hears_of_no_success_sees_none_and_a_late_one_goes_back(
    stage: Stage, program: Program
) -> None:
    with Ear() as ear:
        order = (await program.order("WX_NATIVE", notifyUrl=ear.url)).data
        await stage.fault_of(payment_of(order), "close", "late_success:600")
        assert (await program.call("pay/close", payOrderId=order["payOrderId"])).code == 0

        await stage.advance(minutes=15)
        await stage.advance(minutes=1)

        assert await program.state(order) == 6
        assert ear.heard == []
        assert await stage.given_back(payment_of(order)) == [1999]
        assert (await program.refund(order, 1)).code == 9999


async def test_5_who_pays_just_before_the_close_has_paid(stage: Stage, program: Program) -> None:
    order = (await program.order("WX_NATIVE")).data
    await stage.fault_of(payment_of(order), "close", "paid_just_before")

    asked = await program.call("pay/close", payOrderId=order["payOrderId"])

    assert "jeepay.order_ended" in asked.msg
    assert await program.state(order) == 2


@both_channels
async def test_6_a_code_nobody_confirms_is_reversed_at_the_channel(
    stage: Stage, program: Program, channel: str
) -> None:
    extra = json.dumps({"authCode": await stage.code(channel, "ask_forever")})
    order = (await program.order(CHANNELS[channel][1], channelExtra=extra)).data
    assert order["orderState"] == 1

    await stage.advance(seconds=31)

    assert await program.state(order) == 4
    trade = await stage.trade_of(payment_of(order))
    assert trade is not None
    assert trade["state"] in {"reversed", "closed"}


async def test_7_no_secret_and_no_signature_reaches_a_log_a_table_or_a_refusal(
    own_stage: Stage, own_program: Program
) -> None:
    stage, program = own_stage, own_program
    lines = io.StringIO()
    set_up_logging("debug", "json", lines)
    code = await stage.code("wechat_pay")
    try:
        with Ear() as ear:
            extra = json.dumps({"authCode": code})
            order = await program.order("AUTO_BAR", channelExtra=extra, notifyUrl=ear.url)
            await stage.idle()
            body = program.signed({"payOrderId": order.data["payOrderId"]})
            wrong = await program.post("pay/query", json={**body, "amount": 1})
            await program.post("pay/query", content=b"{")
            await program.refund(order.data, 10**9)
            [told] = ear.heard
    finally:
        structlog.reset_defaults()
        set_up_logging("warning", "console")

    written = lines.getvalue()
    assert "http_request" in written, "nothing was logged, so nothing was tried"
    tables = [
        str([dict(row) for row in await stage.db.fetch(f"select * from {table}", ())])
        for table in (
            *("jeepay_order", "jeepay_refund", "jeepay_notice", "jeepay_app", "payment"),
            *("attempt", "exchange", "event", "task", "audit_entry", "dead_letter"),
        )
    ]
    for secret in (program.key, code, body["sign"], told["sign"]):
        assert secret not in written
        assert secret not in "".join(tables)
        assert secret not in wrong.text
        assert secret not in repr(program_of)


async def test_8_a_notice_outlives_the_process_that_should_have_sent_it(
    own_stage: Stage, own_program: Program, dsn: str
) -> None:
    stage, program = own_stage, own_program
    with Ear() as ear:
        ear.answers = [(500, b"success"), (200, b"OK")]
        order = (await program.order("WX_NATIVE", notifyUrl=ear.url, extParam="x&y=1")).data
        await stage.customer(payment_of(order))
        await stage.idle()
        assert len(ear.heard) == 1
        other = await _another_process(stage, dsn)
        try:
            for _ in range(4):
                other.db.clock.offset += timedelta(minutes=3)
                await other.worker.run_until_idle(raise_failures=True)
        finally:
            await other.close()

        assert len(ear.heard) == 3, "two were not answered with success, one was, then silence"
        for told in ear.heard:
            assert told.pop("sign") == sign(told, program.key)
            assert (told["state"], told["extParam"]) == ("2", "x&y=1")
            assert told["payOrderId"] == order["payOrderId"]
            assert told["mchOrderNo"] == order["mchOrderNo"]
            assert (told["amount"], told["wayCode"]) == ("1999", "WX_NATIVE")
            assert len(told["reqTime"]) == 13


async def _another_process(stage: Stage, dsn: str) -> Platform:
    """A platform with memory, connections and leases of its own on the same database."""
    clock = Clock()
    clock.offset = stage.db.clock.offset
    return Platform(stage.platform.settings, await connect(dsn, clock), stage.platform.keyring)


async def test_8_a_notice_is_tried_for_three_days_and_can_be_sent_again(
    own_stage: Stage, own_program: Program, environment: dict[str, str], cli: Cli
) -> None:
    stage, program = own_stage, own_program
    with Ear() as ear:
        ear.answers = [(200, b"fail")] * 100
        order = (await program.order("WX_NATIVE", notifyUrl=f"{ear.url}?a=1")).data
        await stage.customer(payment_of(order))
        await stage.idle()
        for delay in DELAYS:
            stage.db.clock.offset += delay + timedelta(seconds=1)
            await stage.platform.worker.run_until_idle(raise_failures=True)
        assert len(ear.heard) == 1 + len(DELAYS)
        assert timedelta(days=3) <= sum(DELAYS, timedelta()) <= timedelta(days=4)
        assert set(ear.queries) == {"a=1"}

        merchant = show("mch", stage.shop.merchant.id)
        shown = await cli("--json", "merchant", "jeepay", "notices", merchant, "--unanswered")
        assert shown.code == 0, shown.err
        [notice] = shown.json
        assert (notice["state"], notice["tries"]) == ("given_up", len(ear.heard))
        assert (notice["last_status"], notice["last_reply"]) == (200, "fail")

        ear.answers = []
        sent = await cli("merchant", "jeepay", "resend", notice["notice"])
        assert sent.code == 0, sent.err
        await stage.platform.worker.run_until_idle(raise_failures=True)
        shown = await cli("--json", "merchant", "jeepay", "notices", merchant)
        assert [each["state"] for each in shown.json] == ["answered"]
        assert (await cli("merchant", "jeepay", "resend", show("jpn", new_id()))).code == 1


@pytest.mark.parametrize("answer", [b"success", b"SUCCESS", b" success\n"])
async def test_8_success_is_success(stage: Stage, program: Program, answer: bytes) -> None:
    with Ear() as ear:
        ear.answers = [(200, answer)]
        await paid(stage, program, "wechat_pay", notifyUrl=ear.url)
        await stage.advance(seconds=40)
        assert len(ear.heard) == 1


async def test_8_a_program_that_reads_the_address_is_told_there(stage: Stage) -> None:
    with Ear() as ear:
        async with program_of(stage, notify_by="query") as one:
            await paid(stage, one, "wechat_pay", notifyUrl=f"{ear.url}?shop=1")
            [query], [body] = ear.queries, ear.bodies
            told = dict(parse_qsl(query))
            assert body == b""
            assert told.pop("shop") == "1"
            assert told.pop("sign") == sign(told, one.key)


async def test_8_nobody_is_told_of_what_did_not_happen(stage: Stage, program: Program) -> None:
    """A merchant may write anything into a payment's metadata, another merchant's page too."""
    with Ear() as ear:
        page = (await program.order("QR_CASHIER", notifyUrl=ear.url)).data
        metadata = {"checkout_id": page["payOrderId"]}
        strangers = stage.client_of(await stage.open_shop())
        for client in (stage.client, strangers):
            made = await stage.show_qr("wechat_pay", 1, client=client, metadata=metadata)
            await stage.customer(made)
        nonsense = await stage.show_qr("wechat_pay", 1, metadata={"checkout_id": "cko_%"})
        await stage.customer(nonsense)
        await stage.idle()
        await stage.advance(minutes=1)

        assert ear.heard == []
        assert await program.state(page) == 0


async def test_8_a_page_that_was_paid_is_told_whoever_else_names_it(
    stage: Stage, program: Program
) -> None:
    with Ear() as ear:
        page = (await program.order("QR_CASHIER", notifyUrl=ear.url)).data
        path = urlsplit(page["payData"]).path
        async with httpx.AsyncClient(base_url=stage.url, headers={"origin": stage.url}) as one:
            await one.post(f"{path}/method", data={"method": "wechat_pay.qr"})
        [tried] = await stage.db.fetch(
            "select id from payment where merchant_order_no = $1", (page["mchOrderNo"],)
        )
        strangers = stage.client_of(await stage.open_shop())
        metadata = {"checkout_id": page["payOrderId"]}
        named = await stage.show_qr("alipay", 1, client=strangers, metadata=metadata)
        await stage.customer({"id": show("pay", tried["id"]), "object": "payment"})
        await stage.customer(named)
        await stage.idle()

        assert [(each["payOrderId"], each["state"]) for each in ear.heard] == [
            (page["payOrderId"], "2")
        ]


async def test_8_a_disabled_program_is_told_nothing(
    own_stage: Stage, own_program: Program, environment: dict[str, str], cli: Cli
) -> None:
    stage, program = own_stage, own_program
    with Ear() as ear:
        order = (await program.order("WX_NATIVE", notifyUrl=ear.url)).data
        assert (await cli("merchant", "jeepay", "disable", program.app_id)).code == 0
        await stage.customer(payment_of(order))
        await stage.idle()
        assert ear.heard == []
        rows = await stage.db.fetch("select state from jeepay_notice", ())
        assert [row["state"] for row in rows] == ["dropped"]


async def test_9_two_workers_tell_each_merchant_once(
    own_stage: Stage, own_program: Program, dsn: str
) -> None:
    stage, program = own_stage, own_program
    with Ear() as ear:
        orders = [
            (await program.order(way, notifyUrl=ear.url)).data
            for way in ("WX_NATIVE", "ALI_QR") * 3
        ]
        other = await _another_process(stage, dsn)
        try:
            for order in orders:
                await stage.customer(payment_of(order))
            await asyncio.to_thread(stage.sandbox.settle)
            await asyncio.gather(
                stage.platform.worker.run_until_idle(raise_failures=True),
                other.worker.run_until_idle(raise_failures=True),
            )
            await stage.idle()
        finally:
            await other.close()
        told = sorted(each["payOrderId"] for each in ear.heard)
        assert told == sorted(order["payOrderId"] for order in orders)


@both_channels
@pytest.mark.parametrize(
    "lie",
    [{"mchid": "1900009999"}, {"app_id": "wx0000000000000000"}, {"money": Money(1, "CNY")}],
    ids=["another merchant number", "another app", "another amount"],
)
async def test_10_a_signed_callback_is_compared_before_a_merchant_hears_of_it(
    stage: Stage, program: Program, channel: str, lie: dict[str, Any]
) -> None:
    with Ear() as ear:
        order = (await program.order(CHANNELS[channel][0], notifyUrl=ear.url)).data
        number = (await stage.attempt_of(payment_of(order))).number
        facts = {"money": Money(1999, "CNY"), **lie}

        async with Postman(stage) as postman:
            await postman.tell(channel, number, facts.pop("money"), **facts)
        await stage.idle()

        assert await states_of_callbacks(stage, number)
        assert await program.state(order) == 1
        assert ear.heard == []


# And a process that dies at any step: the same request again carries on where it was broken off.


@pytest.mark.parametrize("place", ["before_intention", "after_intention", "after_channel_call"])
async def test_an_order_whose_process_died_is_carried_on_by_a_repeat(
    stage: Stage, program: Program, place: str
) -> None:
    number = new_number()
    with pytest.raises(SimulatedCrash):
        async with dying_at(stage, program, f"payments.{place}") as dying:
            await dying.order("WX_NATIVE", mchOrderNo=number)

    order = await program.order("WX_NATIVE", mchOrderNo=number)

    assert (order.data["orderState"], order.data["payDataType"]) == (1, "codeUrl")
    rows = await stage.db.fetch("select id from payment where merchant_order_no = $1", (number,))
    assert [show("pay", row["id"]) for row in rows] == [order.data["payOrderId"]]
    await stage.customer(payment_of(order.data))
    await stage.idle()
    assert await program.state(order.data) == 2


@pytest.mark.parametrize("place", ["before_request", "after_request", "after_channel_call"])
async def test_a_refund_whose_process_died_is_made_once(
    stage: Stage, program: Program, place: str
) -> None:
    order, number = await paid(stage, program, "wechat_pay"), new_number()
    with pytest.raises(SimulatedCrash):
        async with dying_at(stage, program, f"refunds.{place}") as dying:
            await dying.refund(order, 700, mchRefundNo=number)

    refund = await program.refund(order, 700, mchRefundNo=number)

    assert (refund.code, refund.data["state"] in {1, 2}) == (0, True)
    for _ in range(2):
        await stage.advance(seconds=30)
    assert await program.refund_state(refund.data) == 2
    assert await stage.given_back(payment_of(order)) == [700]


@asynccontextmanager
async def dying_at(stage: Stage, program: Program, place: str) -> AsyncIterator[Program]:
    """The program, calling a process that dies there; only the requests' part of it does."""
    transport = httpx.ASGITransport(app=stage.platform.app())
    failpoints.arm(f"{place}:raise")
    try:
        async with httpx.AsyncClient(transport=transport, base_url=stage.url) as http:
            yield Program(http, program.mch_no, program.app_id, program.key)
    finally:
        failpoints.arm(None)


@pytest.fixture
def environment(own_stage: Stage, dsn: str) -> dict[str, str]:
    settings = own_stage.platform.settings
    return {
        "TONGBAO_DSN": dsn,
        "TONGBAO_DATA_DIR": str(settings.data_dir),
        "TONGBAO_KEK_FILE": str(settings.kek_file),
        "TONGBAO_LICENCE": settings.licence.value,
        "TONGBAO_LOG_LEVEL": "warning",
        "TONGBAO_TEST_CLOCK": "1",
        "TONGBAO_JEEPAY_FACADE": "1",
    }


async def test_a_merchant_is_let_in_by_hand(
    own_stage: Stage, environment: dict[str, str], cli: Cli
) -> None:
    stage = own_stage
    merchant = show("mch", stage.shop.merchant.id)
    off = {"TONGBAO_JEEPAY_FACADE": "0"}
    refused = await cli("merchant", "jeepay", "enable", merchant, **off)
    assert (refused.code, "jeepay.facade_off" in refused.err) == (1, True)
    for wrong in (["--app-id", "a b"], ["--mch-no", "商户"]):
        assert (
            "jeepay.app_name_malformed"
            in (await cli("merchant", "jeepay", "enable", merchant, *wrong)).err
        )

    made = await cli("--json", "merchant", "jeepay", "enable", merchant, "--app-id", "old-app")
    assert made.code == 0, made.err
    assert made.json["mch_no"] == merchant
    assert made.json["secret"].endswith(made.json["secret_tail"])
    taken = await cli("merchant", "jeepay", "enable", merchant, "--app-id", "old-app")
    assert "jeepay.app_id_taken" in taken.err
    rolled = await cli("--json", "merchant", "jeepay", "roll", "old-app")
    assert rolled.json["secret"] != made.json["secret"]
    listed = await cli("--json", "merchant", "jeepay", "list", merchant)
    assert [each["app_id"] for each in listed.json] == ["old-app"]
    assert "secret" not in listed.json[0]
    assert (await cli("merchant", "jeepay", "disable", "old-app")).code == 0
    assert "jeepay.app_unknown" in (await cli("merchant", "jeepay", "roll", "none")).err
