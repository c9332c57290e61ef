"""Qra: documents that are refused, and the adapter against the simulated Qra."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rails.wire_server import WireServer, http_reply
from tongbao.infra.http import HttpClient
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import base32, new_id
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.rails.channels.contract.bills import BillFault
from tongbao.rails.channels.contract.callbacks import Callback, CallbackForged, CallbackUnreadable
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode, PayOrder, RefundOrder
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Closed,
    Declined,
    Pending,
    ShowQr,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.exchange import TimeLimits
from tongbao.rails.channels.unionpay_qra.client import Qra
from tongbao.rails.channels.unionpay_qra.crypto import (
    DocumentMalformed,
    is_authentic,
    read,
    signed,
    written,
)
from tongbao.rails.channels.unionpay_qra.secrets import QraSecrets
from tongbao_sandbox.launch import RunningSandbox

PRICE = Money(1999, "CNY")
KEY = "9d101c97133837e13dde2d32a5054abb"
THEIRS = json.loads(
    (Path(__file__).parents[1] / "vectors/unionpay_qra/signatures.json").read_text("utf-8")
)

# --- documents


def test_a_document_is_signed_over_its_sorted_fields() -> None:
    # MD5 of "a=1&b=中&key=k", by coreutils.
    assert signed("k", {"b": "中", "a": "1", "c": ""})["sign"] == "4DCF8E939EA1F8722A9BD1B54334BC84"


@pytest.mark.parametrize("which", ["answer", "request"])
def test_what_others_signed_is_authentic_and_signed_alike_by_us(which: str) -> None:
    key, fields = THEIRS["key"], THEIRS[which]["fields"]
    assert is_authentic(key, fields)
    assert signed(key, fields)["sign"] == fields["sign"]
    for name in fields.keys() - {"sign"}:
        assert not is_authentic(key, {**fields, name: fields[name] + "0"}), name
    assert read(written(fields)) == fields


@given(
    st.dictionaries(
        st.from_regex(r"[a-z_]{1,12}", fullmatch=True).filter(lambda name: name != "sign"),
        st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")),
        max_size=8,
    )
)
def test_what_is_written_is_read_again(fields: dict[str, str]) -> None:
    whole = signed(KEY, fields)
    assert read(written(whole)) == whole
    assert is_authentic(KEY, whole)
    assert not is_authentic(KEY[::-1], whole)


BOMB = (
    b'<!DOCTYPE xml [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    b"<xml><total_fee>&b;</total_fee></xml>"
)


@pytest.mark.parametrize(
    "body",
    [
        BOMB,
        b'<!DOCTYPE xml SYSTEM "http://127.0.0.1:9/x.dtd"><xml><a>1</a></xml>',
        b"<?xml version='1.0' encoding='UTF-16'?><xml><a>1</a></xml>" + b"x",
        b"<xml><a>&undeclared;</a></xml>",
        b"<xml><a>1</a><a>2</a></xml>",
        b"<xml><a><b>1</b></a></xml>",
        b"<html><a>1</a></html>",
        b"<xml>" + b"<a>" * 5000 + b"</xml>",
        b"<xml>" + b"".join(b"<a%d>1</a%d>" % (n, n) for n in range(500)) + b"</xml>",
        b"<xml><a>1</a></xml> ",
        b"<xml><a>1</a>",
        b"<xml><a>\xff</a></xml>",
        b"",
        b"{}",
    ],
)
def test_what_is_no_flat_document_is_refused(body: bytes) -> None:
    with pytest.raises(DocumentMalformed):
        read(body)


def test_an_end_of_line_after_a_document_is_none_of_it() -> None:
    assert read(b"<xml><a>1</a></xml>\r\n") == {"a": "1"}


# --- the adapter against the sandbox


class Shop:
    """A merchant at the simulated Qra."""

    def __init__(self, sandbox: RunningSandbox, http: HttpClient, far_end: WireServer) -> None:
        self.sandbox = sandbox
        self.wire = far_end
        self.channel = Qra(http, limits=TimeLimits(ask_s=0.8), clock=self.now)
        shown = sandbox.credentials["unionpay_qra"]
        self.account = ChannelAccount(
            id=new_id(),
            channel="unionpay_qra",
            mode=Mode.SANDBOX,
            gateway=f"{sandbox.url}/qra",
            merchant_number=shown["mch_id"],
            app_id="qra",
            notify_url=far_end.url,
            fee_ppm=6000,
            secrets=QraSecrets(shown["secure_key"]),
        )
        far_end.react = lambda _: http_reply(200, {}, b"success")

    def now(self) -> datetime:
        return datetime.fromisoformat(self.sandbox.get("clock")["now"])

    def order(self, mode: PayMode = PayMode.QR, **changes: Any) -> PayOrder:
        fields: dict[str, Any] = {
            "number": base32(new_id()),
            "mode": mode,
            "money": PRICE,
            "subject": "一杯咖啡 & <1> muffin",
            "expires_at": self.now() + timedelta(minutes=30),
        }
        return PayOrder(**{**fields, **changes})

    def code(self, behaviour: str) -> PayOrder:
        made = self.sandbox.post(
            "customer/payment-code", channel="unionpay_qra", behaviour=behaviour
        )
        return self.order(PayMode.PAYMENT_CODE, auth_code=made["auth_code"])

    async def paid(self) -> PayOrder:
        order = self.order()
        await self.channel.pay(self.account, order)
        await self.customer(order)
        return order

    async def customer(self, order: PayOrder) -> None:
        await asyncio.to_thread(
            lambda: self.sandbox.post(
                "customer/scan", channel="unionpay_qra", number=order.number, action="pay"
            )
        )

    def fault(self, on: str, fault: str, number: str) -> None:
        self.sandbox.fault("unionpay_qra", on, fault, number=number)

    async def advance(self, seconds: float) -> None:
        await asyncio.to_thread(self.sandbox.advance, seconds)


@pytest.fixture
def shop(sandbox: RunningSandbox, http: HttpClient, far_end: WireServer) -> Shop:
    return Shop(sandbox, http, far_end)


async def test_a_code_is_shown_scanned_paid_and_told(shop: Shop) -> None:
    order = shop.order()
    offered = (await shop.channel.pay(shop.account, order)).outcome
    assert isinstance(offered, Pending)
    assert isinstance(offered.action, ShowQr)
    assert (await shop.channel.pay(shop.account, order)).outcome == offered
    assert (await shop.channel.query(shop.account, order)).outcome == Pending(reason="NOTPAY")
    shop.fault("callback", "forged", order.number)
    await shop.customer(order)
    await shop.advance(0)
    found = (await shop.channel.query(shop.account, order)).outcome
    assert isinstance(found, Succeeded)
    assert found.money == PRICE
    read_or_forged: list[Callback | None] = []
    for heard in shop.wire.heard:
        try:
            read_or_forged.append(
                shop.channel.read_callback(shop.account, heard.headers, heard.body, real_now())
            )
        except CallbackForged:
            read_or_forged.append(None)
    assert len(read_or_forged) == 2
    [callback] = [callback for callback in read_or_forged if callback is not None]
    assert callback.outcome == found
    assert callback.number == order.number
    assert (await shop.channel.close(shop.account, order)).outcome == found


async def test_an_open_order_is_closed(shop: Shop) -> None:
    order = shop.order()
    assert (await shop.channel.close(shop.account, order)).outcome == Absent("ORDERNOTEXIST")
    await shop.channel.pay(shop.account, order)
    assert (await shop.channel.close(shop.account, order)).outcome == Closed("CLOSED")
    assert (await shop.channel.query(shop.account, order)).outcome == Closed("CLOSED")


async def test_a_payment_code_is_charged_declined_and_reversed(shop: Shop) -> None:
    order = shop.code("pay")
    answer = await shop.channel.pay(shop.account, order)
    assert isinstance(answer.outcome, Succeeded)
    assert order.auth_code
    assert order.auth_code not in repr(answer)
    assert (await shop.channel.close(shop.account, order)).outcome == Closed("REVERSE")
    assert (await shop.channel.query(shop.account, order)).outcome == Closed("REVERSE")
    broke = shop.code("decline")
    assert isinstance((await shop.channel.pay(shop.account, broke)).outcome, Declined)
    asked = shop.code("ask_then_pay")
    assert (await shop.channel.pay(shop.account, asked)).outcome == Pending(reason="USERPAYING")
    await shop.advance(6)
    assert isinstance((await shop.channel.query(shop.account, asked)).outcome, Succeeded)


@pytest.mark.parametrize(
    ("fault", "end"),
    [
        ("time_out_paid", Succeeded),
        ("http_500_paid", Succeeded),
        ("bad_signature_paid", Succeeded),
        ("time_out_unpaid", Absent),
        ("http_500_unpaid", Absent),
        ("http_429", Absent),
        ("reset", Absent),
    ],
)
async def test_no_trusted_answer_is_unknown_and_the_query_tells(
    fault: str, end: type, shop: Shop
) -> None:
    order = shop.code("pay")
    shop.fault("pay", fault, order.number)
    assert isinstance((await shop.channel.pay(shop.account, order)).outcome, Unknown)
    assert isinstance((await shop.channel.query(shop.account, order)).outcome, end)


@pytest.mark.parametrize(
    ("fault", "end"),
    [
        ("", Succeeded),
        ("time_out_done", Succeeded),
        ("http_500_done", Succeeded),
        ("bad_signature_done", Succeeded),
        ("time_out_not_done", Absent),
        ("http_429", Absent),
        ("processing", Pending),
        ("abnormal", Declined),
    ],
)
async def test_a_refund_is_asked_about(fault: str, end: type, shop: Shop) -> None:
    order = await shop.paid()
    refund = RefundOrder(base32(new_id()), order.number, Money(500, "CNY"), PRICE)
    if fault:
        shop.fault("refund", fault, refund.number)
    answer = await shop.channel.refund(shop.account, refund)
    assert isinstance(answer.outcome, Unknown | Pending)
    await shop.advance(2)
    found = (await shop.channel.query_refund(shop.account, refund)).outcome
    assert isinstance(found, end)
    again = await shop.channel.refund(shop.account, refund)
    assert isinstance(again.outcome, Unknown | Pending)
    more = RefundOrder(base32(new_id()), order.number, PRICE, PRICE)
    if end in {Succeeded, Pending}:
        assert isinstance((await shop.channel.refund(shop.account, more)).outcome, Declined)


async def test_our_own_signed_order_is_no_news_of_a_payment(shop: Shop) -> None:
    fields = {"service": "unified.trade.native", "mch_id": shop.account.merchant_number}
    key = shop.sandbox.credentials["unionpay_qra"]["secure_key"]
    body = written(signed(key, {**fields, "out_trade_no": "x" * 26, "total_fee": "1999"}))
    with pytest.raises(CallbackUnreadable):
        shop.channel.read_callback(shop.account, {}, body, real_now())


async def test_there_is_no_file_of_a_day(shop: Shop, tmp_path: Path) -> None:
    answer = await shop.channel.download_bill(shop.account, shop.now().date(), tmp_path)
    assert isinstance(answer.outcome, Unknown)
    [fault] = shop.channel.parse_bill(tmp_path / "x")
    assert isinstance(fault, BillFault)


async def test_a_magic_amount_meets_its_fault_once(shop: Shop) -> None:
    made = shop.code("pay")
    order = PayOrder(
        **{name: getattr(made, name) for name in made.__struct_fields__}
        | {"money": Money(77701, "CNY")}
    )
    assert isinstance((await shop.channel.pay(shop.account, order)).outcome, Unknown)
    assert isinstance((await shop.channel.query(shop.account, order)).outcome, Succeeded)
