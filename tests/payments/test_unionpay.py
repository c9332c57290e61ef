"""UnionPay from the API to the gateway and back, in every way of paying, and what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.payments.letters import states_of_callbacks
from tests.stage import Stage, new_number
from tongbao.kernel.ids import base32, parse
from tongbao.kernel.licence import Mode
from tongbao.parties.merchants.merchants import connect_channel
from tongbao.parties.price_plans.model import PriceLine
from tongbao.parties.price_plans.plans import set_price_plan
from tongbao.rails.channels.accounts import NewAccount, add_account, list_accounts
from tongbao.rails.channels.exchange import TimeLimits
from tongbao.rails.channels.unionpay.client import UnionPay
from tongbao.surfaces.demo.stage import open_accounts
from tongbao.wiring import SECRETS
from tongbao_sdk import Tongbao
from tongbao_sdk.replies import Payment

AMOUNT = 1999
MODES = ("qr", "payment_code", "web", "h5", "app")
KEYS = (
    *("merchant_private_key_pem", "merchant_certificate_pem"),
    *("root_certificate_pem", "middle_certificate_pem"),
)


@pytest.fixture(scope="module", autouse=True)
async def unionpay(module_stage: Stage) -> AsyncIterator[None]:
    """An account at the simulated UnionPay, its prices, and a channel that does not wait long."""
    stage = module_stage
    given = stage.sandbox.credentials["unionpay"]
    order = NewAccount(
        channel="unionpay",
        mode=Mode.SANDBOX,
        gateway=f"{stage.sandbox.url}/unionpay",
        merchant_number=given["mer_id"],
        app_id="000201",
        fee_ppm=4_000,
        keys={name: given[name] for name in KEYS},
    )
    keyring, merchant = stage.platform.keyring, stage.shop.merchant
    account = (await open_accounts(stage.db, keyring, SECRETS, [order]))["unionpay"]
    async with stage.db.begin("operator") as tx:
        lines = [PriceLine("unionpay", mode, 6_000) for mode in MODES]
        await set_price_plan(tx, merchant.id, Mode.SANDBOX, lines)
        await connect_channel(tx, merchant.id, Mode.SANDBOX, "unionpay", account)
    channels: Any = stage.flow.channels
    kept = channels["unionpay"]
    limits = TimeLimits(ask_s=1.0)
    channels["unionpay"] = UnionPay(stage.platform.http, limits=limits, clock=stage.db.clock.now)
    yield
    channels["unionpay"] = kept


async def ask(stage: Stage, mode: str, **more: Any) -> Payment:
    method = {"mode": mode, "channel": "unionpay", **more.pop("method", {})}
    if mode in {"web", "h5"}:
        method["return_url"] = "https://shop.example/back"
    if mode == "payment_code":
        method["auth_code"] = await stage.code("unionpay", more.pop("behaviour", "pay"))
    create = (more.pop("client", None) or stage.client).payments.create
    terms = {"merchant_order_no": new_number(), "subject": "茶 & tea", **more}
    return await stage.call(create, amount=AMOUNT, method=method, **terms)


async def act(stage: Stage, payment: Payment, action: str = "pay") -> None:
    """Let the customer do it, where this way of paying takes the customer."""
    step = payment["next_action"]
    if step["type"] == "submit_form":
        await stage.control("unionpay/visit", fields=step["fields"], action=action)
    else:
        await stage.customer(payment, action)
    await stage.idle()


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "payment_code"])
async def test_a_customer_pays_and_gets_some_of_it_back(mode: str, stage: Stage) -> None:
    payment = await ask(stage, mode)
    assert payment["status"] == "pending"
    await act(stage, payment)
    paid = await stage.read(payment)
    assert (paid["status"], paid["amount_captured"]) == ("succeeded", AMOUNT)

    refund = await stage.refund(paid, 500)
    await stage.advance(seconds=30)
    assert (await stage.read(refund))["status"] == "succeeded"
    assert await stage.given_back(paid) == [500]
    assert await stage.cases(paid) == []


async def test_a_shown_code_is_charged(stage: Stage) -> None:
    payment = await ask(stage, "payment_code")
    await stage.advance(seconds=5)
    assert (await stage.read(payment))["status"] == "succeeded"
    declined = await ask(stage, "payment_code", behaviour="decline")
    assert declined["status"] == "failed"


@pytest.mark.parametrize(
    ("product", "mode", "kind"),
    [
        ("000202", "web", ("01", "01")),
        ("000202", "h5", ("01", "01")),
        ("000601", "qr", ("13", "08")),
    ],
)
async def test_a_company_pays_and_so_do_dues_by_accounts_of_their_own(
    product: str, mode: str, kind: tuple[str, str], stage: Stage
) -> None:
    """B2B and 缴费: another product, and news that names it."""
    client = await customer_of(stage, product, mode)
    payment = await ask(stage, mode, client=client)
    await act(stage, payment)
    paid = await stage.read(payment, client=client)
    assert (paid["status"], paid["amount_captured"]) == ("succeeded", AMOUNT)
    trade = await stage.trade_of(payment)
    assert trade
    asked = trade["extra"]["asked"]
    assert (asked["bizType"], asked["txnType"], asked["txnSubType"]) == (product, *kind)

    refund = await stage.refund(paid, 500, client=client)
    await stage.advance(seconds=30)
    assert (await stage.read(refund, client=client))["status"] == "succeeded"
    assert await stage.given_back(paid) == [500]
    number = (await stage.attempt_of(payment)).number
    assert await states_of_callbacks(stage, number) == ["processed"]


async def test_a_company_pays_on_the_page_of_the_same_account(stage: Stage) -> None:
    """And gets back what it paid under the product it paid by."""
    payment = await ask(stage, "web", method={"app_id": "000202"})
    assert payment["next_action"]["fields"]["bizType"] == "000202"
    await act(stage, payment)
    paid = await stage.read(payment)
    assert (paid["status"], paid["amount_captured"]) == ("succeeded", AMOUNT)
    number = (await stage.attempt_of(payment)).number
    assert await states_of_callbacks(stage, number) == ["processed"]
    refund = await stage.refund(paid, 500)
    await stage.advance(seconds=30)
    assert (await stage.read(refund))["status"] == "succeeded"
    known = await asyncio.to_thread(stage.sandbox.get, "refunds", channel="unionpay")
    [back] = [each for each in known if each["trade_number"] == number]
    assert back["extra"]["asked"]["bizType"] == "000202"


async def customer_of(stage: Stage, product: str, mode: str) -> Tongbao:
    """A client of a merchant whose UnionPay account is of another product."""
    given, shop = stage.sandbox.credentials["unionpay"], await stage.open_shop()
    keys = {name: given[name] for name in KEYS}
    if product == "000601":
        keys |= {"business_code": "D1_3300_0000", "terminal": "eyJ0ZXJtaW5hbCI6IjEifQ=="}
    order = NewAccount(
        channel="unionpay",
        mode=Mode.SANDBOX,
        gateway=f"{stage.sandbox.url}/unionpay",
        merchant_number=given["mer_id"],
        app_id=product,
        fee_ppm=4_000,
        keys=keys,
    )
    async with stage.db.begin("operator") as tx:
        known = {row.app_id: row for row in await list_accounts(tx)}
        account = known.get(product) or await add_account(
            tx, stage.platform.keyring, SECRETS, order
        )
        line = PriceLine("unionpay", mode, 6_000)
        await set_price_plan(tx, shop.merchant.id, Mode.SANDBOX, [line])
        await connect_channel(tx, shop.merchant.id, Mode.SANDBOX, "unionpay", account.id)
    return stage.client_of(shop)


@pytest.mark.parametrize("fault", ["time_out_paid", "bad_signature_paid", "http_500_paid"])
async def test_a_charge_that_was_not_answered_is_found(fault: str, stage: Stage) -> None:
    stage.fault("unionpay", "pay", fault)
    payment = await ask(stage, "payment_code")
    assert payment["status"] not in {"failed", "closed"}, "silence is no failure"
    await stage.advance(seconds=20)
    assert (await stage.read(payment))["status"] == "succeeded"


async def test_a_charge_that_never_arrived_ends_unpaid(stage: Stage) -> None:
    stage.fault("unionpay", "pay", "time_out_unpaid")
    payment = await ask(stage, "payment_code")
    assert payment["status"] not in {"failed", "closed", "succeeded"}
    await stage.advance(minutes=5)
    assert (await stage.read(payment))["status"] in {"closed", "failed"}
    assert await stage.postings(payment) == []


async def test_an_order_nobody_pays_ends_with_its_time(stage: Stage) -> None:
    payment = await ask(stage, "web", expires_in_s=600)
    await act(stage, payment, "decline")
    assert (await stage.read(payment))["status"] == "pending", "another card may do it"
    for _ in range(6):
        await stage.advance(minutes=5)
    assert (await stage.read(payment))["status"] in {"closed", "failed"}


async def test_a_lost_notification_is_made_good_by_asking_as_unionpay_wants(stage: Stage) -> None:
    payment = await ask(stage, "web", expires_in_s=7200)
    await stage.advance(seconds=10)
    await stage.fault_of(payment, "callback", "lost")
    await stage.fault_of(payment, "query", "stale")
    await act(stage, payment)
    for minutes, status in ((6, "pending"), (9, "pending"), (2, "succeeded")):
        await stage.advance(minutes=minutes)
        assert (await stage.read(payment))["status"] == status, minutes
    asked = [call for call in await stage.calls_about(payment) if "queryTrans" in call]
    assert len(asked) == 3, "after seconds, then after 5 and 10 minutes more"


async def test_a_wrong_amount_or_a_forgery_is_not_believed(stage: Stage) -> None:
    payment = await ask(stage, "qr")
    await stage.fault_of(payment, "callback", "wrong_amount")
    await act(stage, payment)
    await stage.advance(minutes=10)
    paid = await stage.read(payment)
    assert (paid["status"], paid["amount_captured"]) == ("succeeded", AMOUNT)
    forged = await ask(stage, "qr")
    await stage.fault_of(forged, "callback", "forged")
    await act(stage, forged)
    assert (await stage.read(forged))["status"] == "succeeded"


@pytest.mark.parametrize("mode", MODES)
async def test_money_is_set_aside_captured_and_given_back(mode: str, stage: Stage) -> None:
    payment = await ask(stage, mode, capture="manual", capture_within_s=7200)
    if mode == "payment_code":
        await stage.advance(seconds=5)
    else:
        await act(stage, payment)
    assert (await stage.read(payment))["status"] == "authorised"
    await stage.call(stage.client.payments.capture, payment["id"], amount=1500)
    await stage.advance(minutes=1)
    captured = await stage.read(payment)
    assert (captured["status"], captured["amount_captured"]) == ("succeeded", 1500)
    refund = await stage.refund(captured, 1500)
    await stage.advance(minutes=1)
    assert (await stage.read(refund))["status"] == "succeeded"
    assert await stage.cases(captured) == []


@pytest.mark.parametrize("fault", ["time_out_paid", "bad_signature_paid", "processing:40"])
async def test_a_code_set_aside_without_an_answer_is_found(fault: str, stage: Stage) -> None:
    stage.fault("unionpay", "pay", fault)
    payment = await ask(stage, "payment_code", capture="manual", capture_within_s=7200)
    assert payment["status"] not in {"failed", "closed"}, "silence is no failure"
    await stage.advance(seconds=20)
    for _ in range(4):
        await stage.advance(minutes=1)
    assert (await stage.read(payment))["status"] == "authorised"
    await stage.call(stage.client.payments.void, payment["id"])
    await stage.advance(minutes=2)
    trade = await stage.trade_of(payment)
    assert trade
    assert trade["state"] == "reversed", "nothing of the customer's is kept aside"


@pytest.mark.parametrize("behaviour", ["ask_forever", "decline", "cancel"])
async def test_a_code_that_sets_nothing_aside_ends_so(behaviour: str, stage: Stage) -> None:
    more = {"capture": "manual", "capture_within_s": 7200, "behaviour": behaviour}
    payment = await ask(stage, "payment_code", **more)
    for _ in range(8):
        await stage.advance(minutes=10)
    assert (await stage.read(payment))["status"] in {"failed", "closed"}
    assert await stage.postings(payment) == []
    with pytest.raises(ValueError, match="400"):
        await stage.customer(payment)


async def test_money_set_aside_is_let_go(stage: Stage) -> None:
    payment = await ask(stage, "qr", capture="manual", capture_within_s=7200)
    await act(stage, payment)
    await stage.call(stage.client.payments.void, payment["id"])
    await stage.advance(minutes=2)
    assert (await stage.read(payment))["status"] in {"closed", "voided"}
    trade = await stage.trade_of(payment)
    assert trade
    assert trade["state"] == "reversed"


async def test_a_refund_that_was_not_answered_is_made_once(stage: Stage) -> None:
    payment = await ask(stage, "qr")
    await act(stage, payment)
    stage.fault("unionpay", "refund", "time_out_done")
    refund = await stage.refund(payment, 700)
    await stage.advance(minutes=2)
    assert (await stage.read(refund))["status"] == "succeeded"
    assert await stage.given_back(payment) == [700]


async def test_all_of_a_capture_is_undone_on_its_day_and_the_books_call_it_a_refund(
    stage: Stage,
) -> None:
    """No completion is given back that UnionPay can undo: its number is the refund's, and a u."""
    payment = await ask(stage, "qr", capture="manual", capture_within_s=7200)
    await act(stage, payment)
    await stage.call(stage.client.payments.capture, payment["id"], amount=1500)
    await stage.advance(seconds=40)
    paid = await stage.read(payment)
    assert (paid["status"], paid["amount_captured"]) == ("succeeded", 1500)
    stage.fault("unionpay", "close", "time_out_not_done")
    refund = await stage.refund(paid, 1500)
    assert refund["status"] == "unknown"
    await stage.advance(minutes=10)

    assert (await stage.read(refund))["status"] == "succeeded"
    assert await stage.events(refund) == ["refund.succeeded"]
    assert await stage.cases(paid) == []
    authorisation = await stage.trade_of(payment)
    assert authorisation
    assert authorisation["state"] == "reversed", "nothing of the customer's is kept aside"
    number = base32(parse("ref", refund["id"]))
    book = await asyncio.to_thread(stage.sandbox.get, "trades", channel="unionpay")
    assert {each["number"] for each in book} >= {f"{number}u", f"{number}v"}
    assert await stage.given_back(paid) == [], "and no refund beside it"
