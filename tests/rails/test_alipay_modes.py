"""Every way to pay at Alipay, against the sandbox: its pages, its app, and trades inside it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest
from msgspec import structs

from tests.rails.alipay_desk import BUYER, KINDS, PRICE, Desk, account_of
from tests.rails.wire_server import WireServer
from tongbao.infra.http import HttpClient
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import base32, new_id
from tongbao.kernel.money import Money
from tongbao.rails.channels.alipay.crypto import (
    certificate_number,
    leads_to_roots,
    notice_text,
    public_key,
    verify,
)
from tongbao.rails.channels.alipay.secrets import AlipaySecrets
from tongbao.rails.channels.contract.callbacks import Callback, CallbackKeyUnknown
from tongbao.rails.channels.contract.orders import PayMode, RefundOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Closed,
    NotSent,
    Pending,
    Succeeded,
    Unknown,
)
from tongbao_sandbox.launch import RunningSandbox

PAGES = [PayMode.WEB, PayMode.H5, PayMode.APP]


@pytest.fixture
async def desk(
    sandbox: RunningSandbox, http: HttpClient, far_end: WireServer
) -> AsyncIterator[Desk]:
    made = Desk(sandbox, http, far_end)
    yield made
    await asyncio.to_thread(sandbox.settle)


# --- what the customer brings to Alipay


@pytest.mark.parametrize("mode", PAGES)
async def test_a_page_is_signed_without_a_call_and_paid_when_the_customer_comes(
    desk: Desk, mode: PayMode
) -> None:
    order = desk.order(mode)
    before = len(desk.sandbox.get("requests", last=1000))
    offered = await desk.offer(order)
    assert len(desk.sandbox.get("requests", last=1000)) == before  # nothing was sent
    assert isinstance((await desk.channel.query(desk.account, order)).outcome, Absent)
    told = await desk.visit(offered)
    paid = await desk.channel.query(desk.account, order)
    assert isinstance(paid.outcome, Succeeded), paid
    assert (paid.outcome.money, paid.outcome.channel_ref) == (PRICE, told["ref"])
    [callback] = await desk.callbacks()
    assert isinstance(callback, Callback)
    assert isinstance(callback.outcome, Succeeded)
    assert (callback.number, callback.outcome.money) == (order.number, PRICE)


@pytest.mark.parametrize("mode", PAGES)
async def test_the_evidence_says_that_no_call_was_made_and_holds_no_signature(
    desk: Desk, mode: PayMode
) -> None:
    answer = await desk.channel.pay(desk.account, desk.order(mode))
    offered = await desk.offer(desk.order(mode))
    assert answer.exchange.status is None
    assert "no call was made" in answer.exchange.reply
    assert "sign=" in offered
    assert "sign=" not in answer.exchange.url + answer.exchange.request
    assert json.loads(answer.exchange.request)["total_amount"] == "19.99"


async def test_a_browser_pays_on_the_page_and_comes_back_signed(
    desk: Desk,
) -> None:
    order = desk.order(PayMode.WEB)
    address = await desk.offer(order)
    async with httpx2.AsyncClient(trust_env=False) as browser:
        page = await browser.get(address)
        assert page.status_code == 200
        assert "¥19.99" in page.text
        assert "一杯咖啡 ＆ 1 muffin" in page.text
        token = page.text.split('action="cashier/')[1].split('"')[0]
        gone = await browser.post(f"{desk.account.gateway}/cashier/{token}", data={"action": "pay"})
        again = await browser.post(
            f"{desk.account.gateway}/cashier/{token}", data={"action": "pay"}
        )
    assert gone.status_code == again.status_code == 303
    back = urlsplit(gone.headers["location"])
    assert (back.netloc, back.path) == ("shop.example", "/paid")
    fields = dict(parse_qsl(back.query))
    assert fields.pop("order") == "7"  # the merchant's own, which nobody signed
    assert fields["method"] == "alipay.trade.page.pay.return"
    assert (fields["out_trade_no"], fields["total_amount"]) == (order.number, "19.99")
    key = public_key(desk.sandbox.credentials["alipay"]["alipay_public_key_pem"])
    assert verify(key, notice_text(fields), fields["sign"])
    assert not verify(key, notice_text({**fields, "total_amount": "0.01"}), fields["sign"])
    assert len(await desk.callbacks()) == 1


async def test_an_app_gets_a_signed_result_and_a_quitter_none(desk: Desk) -> None:
    order = desk.order(PayMode.APP)
    text = await desk.offer(order)
    told = await desk.visit(text)
    result = told["result"]["result"]
    node = result[result.index(":") + 1 : result.index(',"sign"')]
    key = public_key(desk.sandbox.credentials["alipay"]["alipay_public_key_pem"])
    assert told["result"]["resultStatus"] == "9000"
    assert verify(key, node.encode(), json.loads(result)["sign"])
    assert json.loads(node)["out_trade_no"] == order.number
    quitter = desk.order(PayMode.APP)
    told = await desk.visit(await desk.offer(quitter), "abandon")
    assert told["result"]["resultStatus"] == "6001"
    assert isinstance((await desk.channel.query(desk.account, quitter)).outcome, Pending)


async def test_a_page_with_one_letter_changed_is_refused(desk: Desk) -> None:
    address = await desk.offer(desk.order(PayMode.H5))
    async with httpx2.AsyncClient(trust_env=False) as browser:
        page = await browser.get(address.replace("19.99", "0.01"))
    assert page.status_code == 400
    assert "isv.invalid-signature" in page.text


# --- ending it


@pytest.mark.parametrize("mode", PAGES)
async def test_a_page_nobody_opened_is_not_closed_before_its_time_is_over(
    desk: Desk, mode: PayMode
) -> None:
    order = desk.order(mode)
    offered = await desk.offer(order)
    early = await desk.channel.close(desk.account, order)
    assert isinstance(early.outcome, Unknown), early
    desk.now = lambda: order.expires_at + timedelta(seconds=59)
    assert isinstance((await desk.channel.close(desk.account, order)).outcome, Unknown)
    desk.now = lambda: order.expires_at + timedelta(seconds=61)
    late = await desk.channel.close(desk.account, order)
    assert isinstance(late.outcome, Closed), late
    await asyncio.to_thread(desk.sandbox.advance, 1801)
    with pytest.raises(ValueError, match="TRADE_HAS_CLOSE"):
        await desk.visit(offered)


@pytest.mark.parametrize("mode", PAGES)
async def test_a_page_put_off_is_a_trade_that_closes(desk: Desk, mode: PayMode) -> None:
    order = desk.order(mode)
    offered = await desk.offer(order)
    await desk.visit(offered, "abandon")
    assert isinstance((await desk.channel.close(desk.account, order)).outcome, Closed)
    with pytest.raises(ValueError, match="TRADE_HAS_CLOSE"):
        await desk.visit(offered)


@pytest.mark.parametrize("mode", PAGES)
async def test_closing_what_was_paid_says_so(desk: Desk, mode: PayMode) -> None:
    order = desk.order(mode)
    await desk.visit(await desk.offer(order))
    closing = await desk.channel.close(desk.account, order)
    assert isinstance(closing.outcome, Succeeded)
    assert closing.outcome.money == PRICE


# --- inside Alipay's app


async def test_a_trade_is_opened_for_a_buyer_and_paid(desk: Desk) -> None:
    order = desk.order(PayMode.IN_APP)
    number = await desk.offer(order)
    assert isinstance((await desk.channel.query(desk.account, order)).outcome, Pending)
    assert await desk.offer(order) == number  # a repeat is the same trade
    await desk.scan(order)
    paid = await desk.channel.query(desk.account, order)
    assert isinstance(paid.outcome, Succeeded)
    assert (paid.outcome.channel_ref, paid.outcome.payer) == (number, BUYER)
    again = await desk.channel.pay(desk.account, order)
    assert isinstance(again.outcome, Succeeded)  # found by the question the refusal led to


async def test_a_trade_nobody_paid_is_closed(desk: Desk) -> None:
    order = desk.order(PayMode.IN_APP)
    await desk.offer(order)
    assert isinstance((await desk.channel.close(desk.account, order)).outcome, Closed)
    assert isinstance((await desk.channel.query(desk.account, order)).outcome, Closed)


async def test_another_buyer_under_the_same_number_is_no_offer(desk: Desk) -> None:
    order = desk.order(PayMode.IN_APP)
    await desk.offer(order)
    other = structs.replace(order, payer_id="2088722000000018")
    assert isinstance((await desk.channel.pay(desk.account, other)).outcome, Unknown)


@pytest.mark.parametrize("fault", ["time_out_paid", "http_500_paid", "bad_signature_paid"])
async def test_a_trade_whose_answer_is_lost_is_unknown_and_found(desk: Desk, fault: str) -> None:
    order = desk.order(PayMode.IN_APP)
    desk.sandbox.fault("alipay", "pay", fault, number=order.number)
    assert isinstance((await desk.channel.pay(desk.account, order)).outcome, Unknown)
    assert isinstance((await desk.channel.query(desk.account, order)).outcome, Succeeded)


@pytest.mark.parametrize(
    ("mode", "changes"),
    [
        (PayMode.IN_APP, {"payer_id": None}),
        (PayMode.PAYMENT_CODE, {}),
        (PayMode.CARD, {}),
        (PayMode.WEB, {"captures": False}),
        (PayMode.APP, {"money": Money(100, "USD")}),
    ],
)
async def test_what_cannot_be_asked_is_not_sent(
    desk: Desk, mode: PayMode, changes: dict[str, Any]
) -> None:
    answer = await desk.channel.pay(desk.account, desk.order(mode, **changes))
    assert isinstance(answer.outcome, NotSent)


# --- ways to set an account up


@pytest.mark.parametrize("kind", KINDS)
async def test_every_way_to_set_an_account_up_takes_and_gives_back_money(
    desk: Desk, kind: str
) -> None:
    desk.account = account_of(desk.sandbox, desk.wire.url, kind)
    order = desk.order(PayMode.IN_APP)
    assert isinstance((await desk.channel.query(desk.account, order)).outcome, Absent)
    await desk.offer(order)
    await desk.scan(order)
    paid = await desk.channel.query(desk.account, order)
    assert isinstance(paid.outcome, Succeeded), paid
    refund = RefundOrder(
        number=base32(new_id()),
        order_number=order.number,
        money=Money(500, "CNY"),
        order_money=PRICE,
        reason="缺货",
    )
    assert isinstance((await desk.channel.refund(desk.account, refund)).outcome, Succeeded)
    again = await desk.channel.refund(desk.account, refund)
    assert isinstance(again.outcome, Succeeded), again
    assert isinstance((await desk.channel.query_refund(desk.account, refund)).outcome, Succeeded)
    page = desk.order(PayMode.WEB)
    await desk.visit(await desk.offer(page))
    assert isinstance((await desk.channel.query(desk.account, page)).outcome, Succeeded)
    callbacks = await desk.callbacks()
    assert len(callbacks) == 3
    assert all(isinstance(callback, Callback) for callback in callbacks), callbacks


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", ["time_out_paid", "http_500_paid", "bad_signature_paid"])
async def test_a_bad_answer_is_unknown_in_every_way(desk: Desk, kind: str, fault: str) -> None:
    desk.account = account_of(desk.sandbox, desk.wire.url, kind)
    order = desk.order(PayMode.IN_APP)
    desk.sandbox.fault("alipay", "pay", fault, number=order.number)
    assert isinstance((await desk.channel.pay(desk.account, order)).outcome, Unknown)


async def test_the_rest_protocol_knows_declined_waiting_and_busy(desk: Desk) -> None:
    desk.account = account_of(desk.sandbox, desk.wire.url, "rest")
    outcomes = {}
    for behaviour in ("pay", "ask", "decline"):
        code = await desk.control("customer/payment-code", channel="alipay", behaviour=behaviour)
        order = desk.order(PayMode.PAYMENT_CODE, auth_code=code["auth_code"])
        outcomes[behaviour] = (await desk.channel.pay(desk.account, order)).outcome
    assert isinstance(outcomes["pay"], Succeeded)
    assert isinstance(outcomes["ask"], Pending)
    assert getattr(outcomes["decline"], "code", "") == "ACQ.BUYER_BALANCE_NOT_ENOUGH"
    order = desk.order(PayMode.IN_APP)
    desk.sandbox.fault("alipay", "pay", "http_429", number=order.number)
    assert isinstance((await desk.channel.pay(desk.account, order)).outcome, Unknown)


async def test_a_certificate_changed_in_mid_flight_is_fetched_and_believed(
    fresh_sandbox: RunningSandbox, http: HttpClient, far_end: WireServer
) -> None:
    desk = Desk(fresh_sandbox, http, far_end)
    desk.account = account_of(fresh_sandbox, far_end.url, "certificate")
    order = desk.order(PayMode.IN_APP)
    await desk.offer(order)
    new = await desk.control("alipay/rotate-certificate")
    await desk.scan(order)
    [callback] = await desk.callbacks()
    assert isinstance(callback, CallbackKeyUnknown)
    await desk.channel.refresh_keys(desk.account)
    [callback] = await desk.callbacks()
    assert isinstance(callback, Callback)
    assert isinstance((await desk.channel.query(desk.account, order)).outcome, Succeeded)
    held = desk.sandbox.credentials["alipay"]["alipay_certificate_pem"]
    assert new["alipay_cert_sn"] != certificate_number(held)
    # Whoever meets the new one in an answer fetches it at once; a second change within the minute
    # is waited out, and until then nothing is believed.
    other = Desk(fresh_sandbox, http, far_end)
    other.account = account_of(fresh_sandbox, far_end.url, "rest and certificate")
    assert isinstance((await other.channel.query(other.account, order)).outcome, Succeeded)
    await desk.control("alipay/rotate-certificate")
    assert isinstance((await other.channel.query(other.account, order)).outcome, Unknown)


async def test_a_stranger_naming_certificates_does_not_keep_alipays_own_waiting(
    fresh_sandbox: RunningSandbox, http: HttpClient, far_end: WireServer
) -> None:
    desk = Desk(fresh_sandbox, http, far_end)
    desk.account = account_of(fresh_sandbox, far_end.url, "certificate")
    order = desk.order(PayMode.IN_APP)
    await desk.offer(order)
    forged = b"alipay_cert_sn=0123&sign_type=RSA2&sign=AAAA"
    with pytest.raises(CallbackKeyUnknown):
        desk.channel.read_callback(desk.account, {}, forged, real_now())
    await desk.channel.refresh_keys(desk.account)  # the stranger's minute has begun
    await desk.control("alipay/rotate-certificate")
    await desk.scan(order)
    assert isinstance((await desk.channel.query(desk.account, order)).outcome, Succeeded)
    [callback] = await desk.callbacks()  # what an answer taught serves notifications too
    assert isinstance(callback, Callback)


async def test_only_alipays_own_certificates_are_believed(
    fresh_sandbox: RunningSandbox,
) -> None:
    given = fresh_sandbox.credentials["alipay"]
    now = real_now()
    held, roots = given["alipay_certificate_pem"], given["root_certificates_pem"]
    assert leads_to_roots(held, installed=held, roots=roots, now=now)
    # The same authority certified the merchant, who must not pass for Alipay.
    merchant = given["app_certificate_pem"]
    assert not leads_to_roots(merchant, installed=held, roots=roots, now=now)
    assert not leads_to_roots(held, installed=held, roots=merchant, now=now)
    assert not leads_to_roots(held, installed=held, roots=roots, now=now + timedelta(days=4000))
    assert not leads_to_roots("no certificate", installed=held, roots=roots, now=now)


def test_certificate_mode_needs_all_its_certificates() -> None:
    for keys in (
        {"app_certificate_pem": "x"},
        {"root_certificates_pem": "x"},
        {"app_certificate_pem": "x", "root_certificates_pem": "x"},
    ):
        with pytest.raises(ValueError):
            AlipaySecrets(app_private_key_pem="x", alipay_public_key_pem="PUBLIC KEY", **keys)


# --- amounts that bring bad luck along


@pytest.mark.parametrize(
    ("fen", "first"), [(77701, Succeeded), (77704, Succeeded), (77711, Succeeded), (77702, Absent)]
)
async def test_a_magic_amount_loses_its_answer_once(desk: Desk, fen: int, first: type) -> None:
    order = desk.order(PayMode.IN_APP, money=Money(fen, "CNY"))
    assert isinstance((await desk.channel.pay(desk.account, order)).outcome, Unknown)
    assert isinstance((await desk.channel.query(desk.account, order)).outcome, first)
    again = (await desk.channel.pay(desk.account, order)).outcome
    assert isinstance(again, Pending if first is Absent else Succeeded)


@pytest.mark.parametrize(("fen", "tries"), [(77720, 1), (77722, 2), (77721, 0)])
async def test_a_magic_amount_spoils_its_notification(desk: Desk, fen: int, tries: int) -> None:
    order = desk.order(PayMode.WEB, money=Money(fen, "CNY"))
    await desk.visit(await desk.offer(order))
    assert len(await desk.callbacks()) == tries
    assert isinstance((await desk.channel.query(desk.account, order)).outcome, Succeeded)


async def test_a_refund_of_a_magic_amount_is_stuck(desk: Desk) -> None:
    order = desk.order(PayMode.WEB, money=Money(100_000, "CNY"))
    await desk.visit(await desk.offer(order))
    refund = RefundOrder(base32(new_id()), order.number, Money(77733, "CNY"), Money(100_000, "CNY"))
    stuck = await desk.channel.refund(desk.account, refund)
    assert isinstance(stuck.outcome, Unknown)
    await desk.control("alipay/refund", number=refund.number, state="done")
    found = await desk.channel.query_refund(desk.account, refund)
    assert isinstance(found.outcome, Succeeded)


async def test_a_business_clock_far_ahead_spoils_no_signature(desk: Desk) -> None:
    """Windows are in real time, whatever day the platform is made to play."""
    desk.account = account_of(desk.sandbox, desk.wire.url, "rest and certificate")
    desk.now = lambda: real_now() + timedelta(days=40)
    order = desk.order(PayMode.IN_APP)
    assert isinstance((await desk.channel.query(desk.account, order)).outcome, Absent)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_service_provider_acts_with_the_merchants_token_and_with_no_other(
    desk: Desk, kind: str
) -> None:
    token = desk.sandbox.credentials["alipay"]["app_auth_token"]
    for given, outcome in ((token, Pending), ("stolen", NotSent)):
        changes = {"app_auth_token": given}
        desk.account = account_of(desk.sandbox, desk.wire.url, kind, **changes)
        answer = await desk.channel.pay(desk.account, desk.order(PayMode.IN_APP))
        assert isinstance(answer.outcome, outcome), answer
        assert given not in repr(answer.exchange)
    desk.account = account_of(desk.sandbox, desk.wire.url, kind, app_auth_token=token)
    page = await desk.channel.pay(desk.account, desk.order(PayMode.WEB))
    assert token not in repr(page.exchange)
