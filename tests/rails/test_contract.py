"""Every channel keeps the contract: one suite, parametrised over every channel folder."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import zipfile
from collections.abc import Awaitable, Callable
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest

import tongbao.rails.channels
from tests.rails.connector import connectors, every_peer
from tests.rails.peers import (
    LIMITS,
    ORDER_NUMBER,
    RECORDED,
    REFUND_NUMBER,
    Peer,
    order,
    private_pem,
    refund_order,
    rsa_key,
)
from tests.rails.wire_server import Heard, WireServer, http_reply
from tongbao.infra.http import HttpClient
from tongbao.kernel.clock import real_now
from tongbao.kernel.money import Money
from tongbao.rails.channels.contract.bills import BillFault, BillRow, BillTotal
from tongbao.rails.channels.contract.callbacks import (
    CallbackForged,
    CallbackKind,
    CallbackUnreadable,
)
from tongbao.rails.channels.contract.channel import Channel
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode
from tongbao.rails.channels.contract.outcomes import (
    Answer,
    NotSent,
    Pending,
    ShowQr,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.error_map import UNMAPPED, error_map
from tongbao.rails.channels.exchange import EVIDENCE_MAX, TimeLimits

CHANNELS_FOLDER = Path(tongbao.rails.channels.__path__[0])
PEERS = every_peer()
OVER_TCP = {"cards"}
"""No HTTP, so no peer here: test_cards.py and test_card_lines.py keep the same promises."""
CALLS = ("pay", "charge", "query", "close", "reverse", "refund", "query_refund", "download_bill")
MONEY_CALLS = ("pay", "charge", "refund")


@pytest.fixture(params=sorted(PEERS))
def peer(request: pytest.FixtureRequest) -> Peer:
    return PEERS[request.param]


@pytest.fixture(params=["alipay", "wechat_pay"])
def listing_peer(request: pytest.FixtureRequest) -> Peer:
    """A channel whose bill is a list with commas and a trailer; others have bill tests of their
    own beside what is theirs alone."""
    return PEERS[request.param]


def recorded(name: str) -> list[dict[str, Any]]:
    return json.loads((RECORDED / f"{name}.json").read_text())


def every_recorded() -> list[Any]:
    return [
        pytest.param(name, case, id=f"{name}: {case['name']}")
        for name in sorted(PEERS)
        for case in recorded(name)
    ]


def way_of(name: str, call: str, mode: str | None = None) -> PayMode:
    """How the order of a call is paid; what a channel cannot is left out."""
    chosen = PayMode(mode or ("payment_code" if call in {"charge", "reverse"} else "qr"))
    if chosen is PayMode.PAYMENT_CODE and not PEERS[name].auth_code:
        pytest.skip("it charges no codes")
    return chosen


async def ask(
    channel: Channel, account: ChannelAccount, call: str, folder: Path, mode: str | None = None
) -> Answer[Any]:
    name = channel.name
    chosen = way_of(name, call, mode)
    code = PEERS[name].auth_code if chosen is PayMode.PAYMENT_CODE else None
    paying = order(name, chosen, auth_code=code)
    calls: dict[str, Callable[[], Awaitable[Answer[Any]]]] = {
        "pay": lambda: channel.pay(account, paying),
        "charge": lambda: channel.pay(account, paying),
        "query": lambda: channel.query(account, paying),
        "close": lambda: channel.close(account, paying),
        "reverse": lambda: channel.close(account, paying),
        "refund": lambda: channel.refund(account, refund_order()),
        "query_refund": lambda: channel.query_refund(account, refund_order()),
        "download_bill": lambda: channel.download_bill(account, date(2030, 1, 1), folder),
    }
    return await calls[call]()


def good_answer(name: str, call: str) -> dict[str, Any]:
    """The first recorded answer to this call that is an answer and not a refusal."""
    calls = {"charge": "pay", "reverse": "close"}
    mode = str(way_of(name, call))
    if call == "download_bill":
        return dict(PEERS[name].bill_answer)
    for case in recorded(name):
        fits = case["call"] == calls.get(call, call)
        if fits and case.get("mode", mode) == mode:
            return case["answers"][0]
    raise LookupError(call)


def test_every_channel_folder_is_under_this_suite() -> None:
    with_codes = {path.parent.name for path in CHANNELS_FOLDER.glob("*/errors.toml")}
    found = with_codes & {path.parent.name for path in CHANNELS_FOLDER.glob("*/client.py")}
    assert found == set(PEERS) | OVER_TCP | set(connectors())
    for name in PEERS:
        cases = recorded(name)
        assert {case["call"] for case in cases} >= {"pay", "query", "close", "refund"}


@pytest.mark.parametrize(("name", "case"), every_recorded())
async def test_a_recorded_answer_means_this(
    name: str, case: dict[str, Any], far_end: WireServer, http: HttpClient, tmp_path: Path
) -> None:
    peer = PEERS[name]
    answers = iter(case["answers"])
    far_end.react = lambda heard: peer.answer(next(answers), heard)
    account = peer.account(far_end.url)
    answer = await ask(peer.channel(http), account, case["call"], tmp_path, case.get("mode"))
    outcome = msgspec.to_builtins(answer.outcome)
    assert {key: outcome[key] for key in case["outcome"] if key in outcome} == case["outcome"]
    assert next(answers, None) is None  # every recorded answer was asked for
    assert answer.exchange.status is not None
    assert not isinstance(answer.outcome, Unknown | NotSent) or answer.outcome.reason


@pytest.mark.parametrize("call", CALLS)
async def test_silence_is_unknown(
    peer: Peer, call: str, far_end: WireServer, http: HttpClient, tmp_path: Path
) -> None:
    far_end.react = lambda _: "hang"
    channel = peer.channel(http, TimeLimits(ask_s=0.5, bill_s=0.5))
    answer = await ask(channel, peer.account(far_end.url), call, tmp_path)
    assert isinstance(answer.outcome, Unknown)
    assert answer.exchange.status is None
    assert len(far_end.heard) <= 1  # nothing is repeated behind the caller's back


@pytest.mark.parametrize("call", CALLS)
async def test_a_reset_connection_is_unknown(
    peer: Peer, call: str, far_end: WireServer, http: HttpClient, tmp_path: Path
) -> None:
    far_end.react = lambda _: "reset"
    answer = await ask(peer.channel(http), peer.account(far_end.url), call, tmp_path)
    assert isinstance(answer.outcome, Unknown)


@pytest.mark.parametrize("call", CALLS)
async def test_a_refused_connection_did_nothing(
    peer: Peer, call: str, http: HttpClient, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers here
        account = peer.account(f"http://127.0.0.1:{free.getsockname()[1]}")
        answer = await ask(peer.channel(http), account, call, tmp_path)
    # A question that was not asked says nothing about the thing asked about.
    assert isinstance(answer.outcome, NotSent if call in MONEY_CALLS else Unknown)
    assert answer.exchange.status is None


def _unreadable(peer: Peer, call: str) -> dict[str, Callable[[Heard], bytes]]:
    good = good_answer(peer.name, call)
    return {
        "http 500": lambda _: http_reply(500, {}, b'{"code":"SYSTEM_ERROR","message":"x"}'),
        "http 503, no body": lambda _: http_reply(503),
        "a page": lambda _: http_reply(200, {}, b"<html>please log in</html>"),
        "nothing": lambda _: http_reply(200),
        "no HTTP": lambda _: b"ERROR\r\n\r\n",
        "cut off": lambda heard: peer.answer(good, heard)[:-5],
        "a redirect": lambda _: http_reply(302, {"location": "http://127.0.0.1:9/"}),
        "no signature": lambda heard: peer.unsigned(good, heard),
        "another key": lambda heard: peer.answer(good, heard, key="somebody"),
        "far too large": lambda _: http_reply(200, {}, b" " * 1_100_000),
        "deep nesting": lambda _: http_reply(200, {}, b"[" * 100_000),
    }


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("trouble", sorted(_unreadable(PEERS["alipay"], "pay")))
async def test_an_answer_that_cannot_be_trusted_is_unknown(
    peer: Peer, call: str, trouble: str, far_end: WireServer, http: HttpClient, tmp_path: Path
) -> None:
    far_end.react = _unreadable(peer, call)[trouble]
    answer = await ask(peer.channel(http), peer.account(far_end.url), call, tmp_path)
    assert isinstance(answer.outcome, Unknown), answer.outcome


@pytest.mark.parametrize("call", [*MONEY_CALLS, "close", "reverse"])
async def test_a_repeat_says_the_very_same(
    peer: Peer, call: str, far_end: WireServer, http: HttpClient, tmp_path: Path
) -> None:
    far_end.react = lambda heard: peer.answer(good_answer(peer.name, call), heard)
    account = peer.account(far_end.url)
    first = await ask(peer.channel(http), account, call, tmp_path)
    again = await ask(peer.channel(http), account, call, tmp_path)
    assert first.outcome == again.outcome
    one, two = (peer.number_in(heard) for heard in far_end.heard)
    assert one == two
    assert (REFUND_NUMBER if call == "refund" else ORDER_NUMBER) in one


async def test_what_the_channel_does_not_take_is_not_sent(
    peer: Peer, far_end: WireServer, http: HttpClient
) -> None:
    channel, account = peer.channel(http), peer.account(far_end.url)
    for strange in (
        order(peer.name, PayMode.QR, money=Money(1999, "USD")),
        order(peer.name, PayMode.PAYMENT_CODE, auth_code=None),
    ):
        answer = await channel.pay(account, strange)
        assert isinstance(answer.outcome, NotSent)
    assert far_end.heard == []


async def test_an_unmapped_code_is_counted(
    peer: Peer, far_end: WireServer, http: HttpClient, tmp_path: Path
) -> None:
    case = next(case for case in recorded(peer.name) if "nobody mapped" in case["name"])
    far_end.react = lambda heard: peer.answer(case["answers"][0], heard)
    before = UNMAPPED.labels(peer.name, "pay")._value.get()
    await ask(peer.channel(http), peer.account(far_end.url), "pay", tmp_path, case["mode"])
    assert UNMAPPED.labels(peer.name, "pay")._value.get() == before + 1


@pytest.mark.parametrize("call", CALLS)
async def test_evidence_holds_no_secret(
    peer: Peer, call: str, far_end: WireServer, http: HttpClient, tmp_path: Path
) -> None:
    code = peer.auth_code
    far_end.react = lambda _: http_reply(
        400, {}, f'{{"code":"PARAM_ERROR","value":"{code}"}}'.encode()
    )
    account = peer.account(far_end.url)
    answer = await ask(peer.channel(http), account, call, tmp_path)
    shown = repr(answer)
    assert code not in shown or call not in {"charge", "reverse"}
    assert "authorization" not in shown.lower()
    assert "sign=" not in shown
    keys = json.loads(msgspec.json.encode(account.secrets))
    texts = [text for text in keys.values() if isinstance(text, str) and len(text) > 20]
    assert texts
    assert not any(text in shown or text in repr(account) for text in texts)
    assert private_pem(rsa_key("merchant")) in texts or "PRIVATE KEY" not in str(texts)


async def test_evidence_is_capped(
    peer: Peer, far_end: WireServer, http: HttpClient, tmp_path: Path
) -> None:
    far_end.react = lambda _: http_reply(200, {}, "货".encode() * 50_000)
    answer = await ask(peer.channel(http), peer.account(far_end.url), "query", tmp_path)
    assert len(answer.exchange.reply.encode()) <= EVIDENCE_MAX
    assert answer.exchange.reply.endswith("[150000 bytes]")


# --- answers about something else


def every_lie() -> list[Any]:
    """Alipay's answers name neither merchant nor app: its signature alone says whose they are."""
    return [
        pytest.param(name, field, value, id=f"{name}: {field}={value}")
        for name in sorted(PEERS)
        for field, values in PEERS[name].lies.items()
        for value in values
    ]


def _with(answer: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    told = json.loads(json.dumps(answer))
    inner = told.get("json") or told["fields"]
    *above, last = path.split(".")
    for name in above:
        inner = inner[name]
    inner[last] = value
    return told


@pytest.mark.parametrize(("name", "field", "value"), every_lie())
async def test_a_signed_answer_about_something_else_is_unknown(
    name: str, field: str, value: Any, far_end: WireServer, http: HttpClient, tmp_path: Path
) -> None:
    peer = PEERS[name]
    paid = next(
        case["answers"][0]
        for case in recorded(name)
        if case["call"] == "query" and case["outcome"].get("type") == "succeeded"
    )
    account = peer.account(far_end.url)
    far_end.react = lambda heard: peer.answer(paid, heard)
    honest = await ask(peer.channel(http), account, "query", tmp_path)
    assert isinstance(honest.outcome, Succeeded)
    far_end.react = lambda heard: peer.answer(_with(paid, field, value), heard)
    lied_to = await ask(peer.channel(http), account, "query", tmp_path)
    assert isinstance(lied_to.outcome, Unknown), lied_to


# --- callbacks


@pytest.fixture(params=sorted(name for name in PEERS if PEERS[name].news))
def telling_peer(request: pytest.FixtureRequest) -> Peer:
    """A channel that sends notifications."""
    return PEERS[request.param]


def test_a_callback_is_read(telling_peer: Peer, http: HttpClient) -> None:
    channel, account = telling_peer.channel(http), telling_peer.account("http://127.0.0.1:9")
    headers, body = telling_peer.callback(telling_peer.news)
    callback = channel.read_callback(account, headers, body, real_now())
    assert callback.kind is CallbackKind.PAYMENT
    assert callback.number == ORDER_NUMBER
    assert callback.merchant_number == account.merchant_number
    assert callback.app_id == account.app_id
    assert isinstance(callback.outcome, Succeeded)
    assert callback.outcome.money == Money(1999, "CNY")
    assert ORDER_NUMBER in callback.content
    again = channel.read_callback(account, headers, body, real_now())
    assert again.notification_id == callback.notification_id != ""
    # It survives storage: payments keep it as JSON and read it again.
    assert msgspec.json.decode(msgspec.json.encode(callback), type=type(callback)) == callback


def test_a_callback_not_from_the_channel_is_refused(telling_peer: Peer, http: HttpClient) -> None:
    channel, account = telling_peer.channel(http), telling_peer.account("http://127.0.0.1:9")
    headers, body = telling_peer.callback(telling_peer.news)
    forged_headers, forged_body = telling_peer.callback(telling_peer.news, key="somebody")
    forged = [
        (headers, telling_peer.tampered(body)),
        (forged_headers, forged_body),
        (headers, body + b" "),
        (headers, body[:-1]),
        ({}, b""),
        ({}, b"\xff\x00"),
        ({}, b"{}"),
        (headers, b""),
    ]
    for given_headers, given_body in forged:
        assert (given_headers, given_body) != (headers, body)
        with pytest.raises(CallbackForged):
            channel.read_callback(account, given_headers, given_body, real_now())


def test_a_verified_callback_of_another_product_is_told_apart(
    telling_peer: Peer, http: HttpClient
) -> None:
    """It is news of nothing we know, to be kept; where a key is shared it may be our own words."""
    channel, account = telling_peer.channel(http), telling_peer.account("http://127.0.0.1:9")
    headers, body = telling_peer.callback(telling_peer.strange)
    if telling_peer.name == "unionpay_qra":
        with pytest.raises(CallbackUnreadable):
            channel.read_callback(account, headers, body, real_now())
        return

    callback = channel.read_callback(account, headers, body, real_now())

    assert callback.kind is CallbackKind.OTHER
    assert callback.merchant_number == account.merchant_number
    assert isinstance(callback.outcome, Unknown)


def test_the_reply_to_a_callback_stops_or_continues_the_resends(
    telling_peer: Peer, http: HttpClient
) -> None:
    channel = telling_peer.channel(http)
    heard, refused = channel.reply_to_callback(accepted=True), channel.reply_to_callback(False)
    assert heard.status in {200, 204}
    assert heard.body in {b"", b"success"}
    assert refused.status >= 400
    assert refused.body not in {b"", b"success"}


# --- bills


WECHAT_HEADER = (
    "交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,付款银行,"
    "货币种类,应结订单金额,代金券金额,微信退款单号,商户退款单号,退款金额,充值券退款金额,退款类型,退款状态,商品名称,"
    "商户数据包,手续费,费率,订单金额,申请退款金额,费率备注"
)
ALIPAY_HEADER = (
    "支付宝交易号,商户订单号,业务类型,商品名称,创建时间,完成时间,门店编号,门店名称,操作员,终端号,对方账户,"
    "订单金额（元）,商家实收（元）,支付宝红包（元）,集分宝（元）,支付宝优惠（元）,商家优惠（元）,券核销金额（元）,券名称,"
    "商家红包消费金额（元）,卡消费金额（元）,退款批次号/请求号,服务费（元）,分润（元）,备注"
)


def wechat_row(**changes: str) -> str:
    row = dict.fromkeys(WECHAT_HEADER.split(","), "") | {
        "交易时间": "2030-01-01 12:00:00",
        "微信订单号": "4200001",
        "商户订单号": ORDER_NUMBER,
        "交易状态": "SUCCESS",
        "货币种类": "CNY",
        "应结订单金额": "19.99",
        "微信退款单号": "0",
        "商户退款单号": "0",
        "退款金额": "0.00",
        "手续费": "0.12000",
        "费率": "0.60%",
        "订单金额": "19.99",
        "申请退款金额": "0.00",
    }
    return ",".join(f"`{value}" for value in (row | changes).values())


def alipay_row(**changes: str) -> str:
    row = dict.fromkeys(ALIPAY_HEADER.split(","), "") | {
        "支付宝交易号": "2030010122001\t",
        "商户订单号": f"{ORDER_NUMBER}\t",
        "业务类型": "交易\t",
        "创建时间": "2030-01-01 12:00:00",
        "完成时间": "2030-01-01 12:00:00",
        "订单金额（元）": "19.99",
        "商家实收（元）": "19.99",
        "服务费（元）": "-0.12",
    }
    return ",".join((row | changes).values())


def bill(name: str, folder: Path, *, rows: list[str], whole: bool = True) -> Path:
    """A bill file of these rows, with the trailer that the two good ones deserve."""
    path = folder / f"{name}.bill"
    if name == "wechat_pay":
        trailer = [
            "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额",
            "`2.0,`19.99,`5.00,`0.00,`0.12,`19.99,`5.00",
        ]
        lines = ["\ufeff" + WECHAT_HEADER, *rows, *(trailer if whole else [])]
        path.write_bytes("".join(f"{line}\r\n" for line in lines).encode())
        return path
    trailer = [
        "#-----------------------------------------业务明细列表结束-----------------------------",
        "#交易合计：1笔，商家实收共18.99元，商家优惠共1.00元",
        "#退款合计：1笔，商家实收退款共-5.00元，商家优惠退款共0.00元",
        "#导出时间：[2030年01月02日 09:00:00]",
    ]
    lines = [
        "#支付宝业务明细查询",
        "#账号：[20887210038991590156]",
        "#起始日期：[2030年01月01日 00:00:00]   终止日期：[2030年01月02日 00:00:00]",
        "#-----------------------------------------业务明细列表-----------------------------------",
        ALIPAY_HEADER,
        *rows,
        *(trailer if whole else []),
    ]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for title, text in (("业务明细(汇总)", "门店编号,合计\r\n"), ("业务明细", None)):
            body = text or "".join(f"{line}\r\n" for line in lines)
            info = _GbkNamed(f"2088_20300101_{title}.csv")
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, body.encode("gb18030"))
    return path


class _GbkNamed(zipfile.ZipInfo):
    """A member whose name is written as Alipay does: GBK, without the flag that says UTF-8."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802
        return self.filename.encode("gb18030"), self.flag_bits


def good_rows(name: str) -> tuple[str, str]:
    if name == "wechat_pay":
        return wechat_row(), wechat_row(
            交易状态="REFUND", 微信退款单号="50001", 商户退款单号=REFUND_NUMBER, 退款状态="SUCCESS",
            订单金额="0.00", 申请退款金额="5.00", 退款金额="5.00", 手续费="-0.03000",
        )  # fmt: skip
    return alipay_row(), alipay_row(
        **{
            "业务类型": "退款\t",
            "订单金额（元）": "-5.00",
            "商家实收（元）": "-5.00",
            "退款批次号/请求号": f"{REFUND_NUMBER}\t",
            "服务费（元）": "0.03",
        }
    )


def test_a_bill_with_broken_rows_still_counts_the_good_ones(
    listing_peer: Peer, http: HttpClient, tmp_path: Path
) -> None:
    payment, refund = good_rows(listing_peer.name)
    broken = [
        payment.replace("19.99", "1x.99"),
        payment.replace("19.99", "19.995"),
        payment.replace("19.99", "-19.99"),
        payment.replace("2030-01-01 12:00:00", "01/01/2030"),
        payment.replace(ORDER_NUMBER, ""),
        payment.replace("SUCCESS", "HALF").replace("交易\t", "转账\t"),
        payment + ",`one too many",
        "complete rubbish",
        payment[: len(payment) // 2],
        "x" * 200_000,
    ]
    path = bill(listing_peer.name, tmp_path, rows=[*broken[:5], payment, *broken[5:], refund])
    lines = list(listing_peer.channel(http).parse_bill(path))
    faults = [line for line in lines if isinstance(line, BillFault)]
    assert len(faults) == len(broken)
    assert all(fault.code.startswith("bill.") and len(fault.text) <= 120 for fault in faults)
    assert len({fault.line for fault in faults}) == len(broken)
    rows = [line for line in lines if isinstance(line, BillRow)]
    assert [row.money for row in rows] == [Money(1999, "CNY"), Money(500, "CNY")]
    assert [row.fee for row in rows] == [Money(12, "CNY"), Money(-3, "CNY")]
    assert [row.number for row in rows] == [ORDER_NUMBER, REFUND_NUMBER]
    assert [row.order_number for row in rows] == [ORDER_NUMBER, ORDER_NUMBER]
    assert rows[0].at.isoformat() == "2030-01-01T12:00:00+08:00"
    assert isinstance(lines[-1], BillTotal)
    assert lines[-1].payment_amount == Money(1999, "CNY")
    assert lines[-1].refund_amount == Money(500, "CNY")
    assert lines[-1].row_count == 2


def test_a_bill_cut_off_anywhere_is_seen(
    listing_peer: Peer, http: HttpClient, tmp_path: Path
) -> None:
    path = bill(listing_peer.name, tmp_path, rows=list(good_rows(listing_peer.name)), whole=False)
    lines = list(listing_peer.channel(http).parse_bill(path))
    assert [type(line) for line in lines] == [BillRow, BillRow, BillFault]
    whole = bill(listing_peer.name, tmp_path, rows=list(good_rows(listing_peer.name))).read_bytes()
    for size in range(0, len(whole) - 8, 7):
        path.write_bytes(whole[:size])
        faults = [
            line
            for line in listing_peer.channel(http).parse_bill(path)
            if isinstance(line, BillFault)
        ]
        assert faults, size


def test_a_bill_is_read_as_a_stream(listing_peer: Peer, http: HttpClient, tmp_path: Path) -> None:
    path = bill(listing_peer.name, tmp_path, rows=[good_rows(listing_peer.name)[0]] * 5000)
    lines = listing_peer.channel(http).parse_bill(path)
    assert isinstance(next(lines), BillRow)
    assert sum(1 for _ in itertools.islice(lines, 4999)) == 4999


# --- the error map


def test_every_documented_code_has_a_meaning(peer: Peer) -> None:
    mapped = {entry.code for entry in error_map(peer.name).entries}
    assert set(peer.documented.split()) <= mapped


def test_every_entry_speaks_to_the_customer_in_both_languages(peer: Peer) -> None:
    for entry in error_map(peer.name).entries:
        assert entry.en.isascii()
        assert entry.en.endswith(".")
        assert entry.zh.endswith("。")
        text = error_map(peer.name).customer_text(entry.code)
        assert text.en
        assert text.zh
    assert error_map(peer.name).customer_text("BRAND_NEW").zh


def test_the_map_never_claims_more_than_a_code_can(peer: Peer) -> None:
    for entry in error_map(peer.name).entries:
        calls = entry.on or {"pay", "query", "close", "refund", "query_refund", "bill", "keys"}
        if entry.meaning in {"empty", "not_ready"}:
            assert calls == {"bill"}
        if entry.meaning in {"declined", "pending"}:
            deeds = {"pay", "refund", "split", "transfer", "agreement", "registration"}
            assert calls <= deeds, entry.code
        if entry.meaning == "absent":
            assert not calls & {"pay", "refund", "split", "transfer", "registration"}, entry.code
        assert not entry.retry_elsewhere or entry.meaning == "declined"


async def test_calls_at_the_same_time_do_not_mix(
    peer: Peer, far_end: WireServer, http: HttpClient
) -> None:
    channel, account = peer.channel(http, LIMITS), peer.account(far_end.url)
    good = good_answer(peer.name, "pay")
    far_end.react = lambda heard: peer.answer(good, heard)
    alone = (await channel.pay(account, order(peer.name, PayMode.QR))).outcome
    assert isinstance(alone, Pending)
    assert isinstance(alone.action, ShowQr)
    code = alone.action.code_url

    def react(heard: Heard) -> bytes:
        number = next(n for n in numbers if n in peer.number_in(heard))
        text = json.dumps(good).replace(ORDER_NUMBER, number).replace(code, f"{code}{number}")
        return peer.answer(json.loads(text), heard)

    numbers = [f"{index:026d}" for index in range(20)]
    far_end.react = react
    answers = await asyncio.gather(
        *(channel.pay(account, order(peer.name, PayMode.QR, number=n)) for n in numbers)
    )
    for number, answer in zip(numbers, answers, strict=True):
        assert isinstance(answer.outcome, Pending)
        assert isinstance(answer.outcome.action, ShowQr)
        assert answer.outcome.action.code_url == f"{code}{number}"
