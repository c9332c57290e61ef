"""The sandbox's console panel: pages and forms for people, and nobody else's forms."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import msgspec
import pytest

from tests.sandbox.inbox import Inbox
from tests.sandbox.wechat_merchant import WechatMerchant
from tongbao.kernel.money import Money
from tongbao_sandbox import alipay_agreements, alipay_funds, alipay_shares, bank, magic
from tongbao_sandbox.bank_messages import Report
from tongbao_sandbox.cards_book import CardBook, Entry
from tongbao_sandbox.channels import CHANNELS
from tongbao_sandbox.clock import VirtualClock
from tongbao_sandbox.delivery import PostOffice
from tongbao_sandbox.faults import FAULTS, Faults
from tongbao_sandbox.launch import RunningSandbox
from tongbao_sandbox.panel import texts
from tongbao_sandbox.panel.matters import matters_of
from tongbao_sandbox.panel.server import _POINTS
from tongbao_sandbox.seam import World
from tongbao_sandbox.state import State

PARTIES = sorted(CHANNELS)
VOID = {"meta", "link", "input", "!doctype"}


class Visitor:
    """A browser without scripts: follows links, fills in forms, says where a form stood."""

    def __init__(self, sandbox: RunningSandbox, language: str = "en") -> None:
        self.origin = sandbox.url
        self.http = httpx2.Client(
            base_url=sandbox.url, trust_env=False, headers={"accept-language": language}
        )
        self.page = ""

    def go(self, path: str) -> str:
        answer = self.http.get(path, follow_redirects=True)
        assert answer.status_code == 200, answer.text
        self.page = answer.text
        return self.page

    def send(self, path: str, headers: dict[str, str] | None = None, **fields: Any) -> Any:
        own = {"origin": self.origin} if headers is None else headers
        return self.http.post(f"/panel/{path}", data=fields, headers=own)

    def do(self, path: str, **fields: Any) -> str:
        answer = self.send(path, **fields)
        assert answer.status_code == 303, answer.text
        return self.go(answer.headers["location"])

    def section(self, name: str) -> str:
        found = re.search(rf'<section id="{name}">(.*?)</section>', self.page, re.DOTALL)
        assert found is not None
        return unescape(re.sub(r"<[^>]*>", " ", found[1]))


@pytest.fixture
def visitor(sandbox: RunningSandbox) -> Iterator[Visitor]:
    person = Visitor(sandbox)
    yield person
    person.http.close()
    sandbox.post("settings", **{"wechat.hold_callbacks": False})


class Checker(HTMLParser):
    """Finds open elements, scripts, and addresses elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script" or any(name.startswith("on") for name, _ in attrs):
            self.wrong.append(tag)
        for name, value in attrs:
            if name in {"href", "src", "action"} and urlsplit(value or "").netloc:
                self.wrong.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}>")


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("party", ["", *PARTIES])
def test_every_page_is_whole_and_its_own(
    sandbox: RunningSandbox, party: str, language: str
) -> None:
    page = Visitor(sandbox, f"{language}-XX").go(f"/panel/{party}".rstrip("/"))
    checker = Checker()
    checker.feed(page)
    assert not checker.open
    assert not checker.wrong
    assert ("沙箱控制台" in page) == (language == "zh")
    assert "{" not in page


def test_pages_forbid_whatever_is_not_theirs(visitor: Visitor) -> None:
    answer = visitor.http.get("/panel/wechat")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["cache-control"] == "no-store"
    assert visitor.http.get("/panel/panel.css").headers["content-type"] == "text/css"
    assert visitor.http.get("/").headers["location"] == "/panel"
    assert visitor.http.get("/panel/elsewhere").status_code == 404
    assert visitor.http.put("/panel/wechat").status_code == 405


def test_the_chosen_language_stays(visitor: Visitor) -> None:
    assert "沙箱控制台" in visitor.go("/panel/bank?lang=zh")
    assert "沙箱控制台" in visitor.go("/panel")
    assert "Sandbox console" in visitor.go("/panel?lang=en")
    assert "Sandbox console" in visitor.go("/panel?lang=fr")


def test_every_word_has_its_chinese_and_every_fault_its_words() -> None:
    for words in (texts._WORDS, texts._POINTS, texts._HOW, texts._WHETHER):
        assert all(len(both) == 2 and all(both) for both in words.values())
    for language in ("en", "zh"):
        for on, names in FAULTS.items():
            assert texts.point(language, on)
            assert all(texts.fault(language, name) for name in names)
    assert set(_POINTS) == set(PARTIES)
    assert {on for points in _POINTS.values() for on in points} == set(FAULTS)


def test_the_table_of_magic_amounts_is_whole_and_written_down() -> None:
    readme = Path(magic.__file__).with_name("README.md").read_text()
    assert set(magic.OBEYED) == set(PARTIES)
    obeyed = frozenset().union(*magic.OBEYED.values())
    for on, amounts in magic.TABLE.items():
        for fen, fault in amounts.items():
            assert fault == magic.DECLINED or fault.partition(":")[0] in FAULTS[on], fen
            assert fen in obeyed, fen
            assert str(fen) in readme, fen


@pytest.mark.parametrize("party", PARTIES)
def test_a_party_shows_the_amounts_that_it_obeys(
    visitor: Visitor, sandbox: RunningSandbox, party: str
) -> None:
    told = sandbox.get("amounts", channel=party)
    assert {one["fen"] for one in told} == magic.OBEYED[party]
    visitor.go(f"/panel/{party}")
    shown = re.findall(r"CNY (777\.\d\d)", visitor.section("amounts"))
    assert shown == [Money(one["fen"], "CNY").decimal_text() for one in told]


def test_an_empty_party_says_so(visitor: Visitor) -> None:
    visitor.go("/panel/unionpay_qra")
    assert "No trade yet" in visitor.section("trades")
    assert "No payment code yet" in visitor.section("codes")
    assert "No notification yet" in visitor.section("callbacks")
    assert "Nothing else yet" in visitor.section("matters")
    assert "No fault is armed" in visitor.section("faults")
    assert "has no bill" in visitor.section("bill")
    visitor.go("/panel/cards")
    assert "No transaction yet" in visitor.section("entries")


# --- what a form does


def test_a_customer_pays_in_the_panel(
    visitor: Visitor, merchant: WechatMerchant, inbox: Inbox
) -> None:
    number = merchant.number()
    merchant.native(number, 1999)
    visitor.go("/panel/wechat")
    assert number in visitor.section("trades")
    assert "CNY 19.99" in visitor.section("trades")
    page = visitor.do("wechat/trade", number=number, action="pay")
    assert 'role="status"' in page
    assert merchant.query(number).json["trade_state"] == "SUCCESS"
    assert len(inbox.letters) == 1
    again = visitor.send("wechat/trade", number=number, action="pay")
    assert again.status_code == 400
    assert "the order is paid" in again.text


@pytest.mark.parametrize("action", ["decline", "abandon"])
def test_a_customer_declines_or_walks_away(
    visitor: Visitor, merchant: WechatMerchant, action: str
) -> None:
    number = merchant.number()
    merchant.native(number, 100)
    visitor.do("wechat/trade", number=number, action=action)
    assert merchant.query(number).json["trade_state"] == "NOTPAY"


def test_trades_are_found_by_how_their_number_begins(
    visitor: Visitor, merchant: WechatMerchant
) -> None:
    one, other = merchant.paid(), merchant.paid()
    visitor.go(f"/panel/wechat?number={one}")
    assert one in visitor.section("trades")
    assert other not in visitor.section("trades")
    visitor.go("/panel/wechat?number=%25")
    assert "No trade's number begins so" in visitor.section("trades")


def test_what_merchants_wrote_is_text_and_nothing_else(
    visitor: Visitor, merchant: WechatMerchant
) -> None:
    merchant.native(merchant.number(), 100, description="<script>x</script>\"'&")
    page = visitor.go("/panel/wechat")
    assert "<script" not in page
    assert "<script>x</script>\"'&" in visitor.section("trades")
    told = visitor.send("wechat/fault", what="pay:<script>", times="1")
    assert told.status_code == 400
    assert "<script" not in told.text


def test_a_payment_code_is_made_and_used(visitor: Visitor, merchant: WechatMerchant) -> None:
    visitor.do("wechat/code", behaviour="pay")
    [code] = re.findall(r"\b1\d{17}\b", visitor.section("codes"))[:1]
    number = merchant.number()
    assert merchant.codepay(number, code).json["trade_state"] == "SUCCESS"
    visitor.go("/panel/wechat")
    assert f"used for {number}" in visitor.section("codes")


def test_a_fault_is_armed_and_disarmed(visitor: Visitor, sandbox: RunningSandbox) -> None:
    visitor.do("wechat/fault", what="pay:slow", argument="2", number="n7", times="-1")
    [fault] = sandbox.get("faults")
    assert (fault["channel"], fault["on"], fault["name"]) == ("wechat", "pay", "slow")
    assert (fault["argument"], fault["number"], fault["left"]) == ("2", "n7", -1)
    assert "always" in visitor.section("faults")
    visitor.go("/panel/alipay")
    assert "No fault is armed" in visitor.section("faults")
    visitor.do("wechat/disarm", id=fault["id"])
    assert sandbox.get("faults") == []


@pytest.mark.parametrize(
    ("change", "arrived", "state"),
    [("resend", 1, "delivered"), ("double", 2, "delivered"), ("lose", 0, "lost")],
)
def test_a_held_notification_waits_for_somebodys_word(
    visitor: Visitor,
    merchant: WechatMerchant,
    inbox: Inbox,
    sandbox: RunningSandbox,
    change: str,
    arrived: int,
    state: str,
) -> None:
    visitor.do("wechat/hold", action="1")
    number = merchant.paid()
    sandbox.settle()
    assert inbox.letters == []
    [held] = sandbox.get("callbacks", number=number)
    assert (held["state"], held["next_at"]) == ("waiting", None)
    visitor.do("wechat/callback", id=held["id"], change=change)
    assert len(inbox.letters) == arrived
    assert {one["state"] for one in sandbox.get("callbacks", number=number)} == {state}
    visitor.do("wechat/hold", action="0")
    merchant.paid()
    sandbox.settle()
    assert len(inbox.letters) == arrived + 1


def test_a_notification_comes_late(
    visitor: Visitor, merchant: WechatMerchant, inbox: Inbox, sandbox: RunningSandbox
) -> None:
    sandbox.post("settings", **{"wechat.hold_callbacks": True})
    [held] = sandbox.get("callbacks", number=merchant.paid())
    visitor.do("wechat/callback", id=held["id"], change="late")
    assert inbox.letters == []
    visitor.do("clock", advance_s="61")
    assert len(inbox.letters) == 1
    late = visitor.send("wechat/callback", id=held["id"], change="late")
    assert late.status_code == 400, "it waits no more"


def test_the_clock_goes_forward_and_never_back(visitor: Visitor, sandbox: RunningSandbox) -> None:
    before = sandbox.get("clock")["offset_s"]
    visitor.do("clock", advance_s="3600")
    visitor.do("wechat/clock", advance_s="60")
    assert sandbox.get("clock")["offset_s"] == before + 3660
    assert visitor.send("clock", advance_s="-1").status_code == 400


def test_todays_bill_is_made_before_its_time(
    visitor: Visitor, merchant: WechatMerchant, sandbox: RunningSandbox
) -> None:
    number = merchant.paid()
    visitor.go("/panel/wechat")
    [day] = re.findall(r'name="day" value="([\d-]+)"', visitor.page)
    early = merchant.call("GET", f"/v3/bill/tradebill?bill_date={day}&bill_type=ALL")
    assert early.status == 400
    visitor.do("wechat/bill", day=day)
    offered = merchant.call("GET", f"/v3/bill/tradebill?bill_date={day}&bill_type=ALL")
    assert offered.status == 200
    target = offered.json["download_url"].removeprefix(f"{sandbox.url}/wechat")
    assert number in merchant.call("GET", target).content.decode()
    assert visitor.send("cards/bill", day=day).status_code == 400


@pytest.mark.parametrize("choice", ["done", "abnormal"])
def test_a_refund_in_processing_is_decided(
    visitor: Visitor, merchant: WechatMerchant, sandbox: RunningSandbox, choice: str
) -> None:
    sandbox.fault("wechat", "refund", "processing")
    refund = merchant.number()
    merchant.refund(merchant.paid(), refund, 100)
    visitor.go("/panel/wechat")
    assert refund in visitor.section("matters")
    visitor.do("wechat/matter", kind="refund", number=refund, choice=choice)
    expected = {"done": "SUCCESS", "abnormal": "ABNORMAL"}[choice]
    assert merchant.query_refund(refund).json["status"] == expected
    again = visitor.send("wechat/matter", kind="refund", number=refund, choice=choice)
    assert again.status_code == 400


PAYOUT = {
    "openid": "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o",
    "transfer_amount": 500,
    "transfer_remark": "报销",
    "transfer_scene_id": "1000",
    "transfer_scene_report_infos": [],
}


def test_a_payout_is_confirmed_and_an_agreement_signed(
    visitor: Visitor, merchant: WechatMerchant
) -> None:
    number, ours = merchant.number(), {"appid": merchant.appid}
    path = "/v3/fund-app/mch-transfer/transfer-bills"
    made = merchant.call("POST", path, {**PAYOUT, **ours, "out_bill_no": number})
    assert made.status == 200, made.json
    visitor.do("wechat/matter", kind="transfer", number=number, choice="confirm")
    found = merchant.call("GET", f"{path}/out-bill-no/{number}").json
    assert found["state"] == "SUCCESS"

    signing = "/v3/papay/scheduled-deduct-sign/contracts/pre-entrust-sign/h5"
    offer = {
        "plan_id": 12535,
        "out_contract_code": number,
        "contract_display_account": "A",
        "contract_notify_url": merchant.notify_url,
    }
    merchant.call("POST", signing, {**offer, **ours})
    visitor.do("wechat/matter", kind="agreement", number=number, choice="sign")
    signed = f"/v3/papay/sign/contracts/plan-id/12535/out-contract-code/{number}"
    assert merchant.call("GET", signed).json["contract_state"] == "SIGNED"
    assert "SIGNED" in visitor.section("matters")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A world without its server, to put things into."""
    state = State(tmp_path / "sandbox.sqlite3")
    clock, faults = VirtualClock(state), Faults(state)
    courier = PostOffice(state, clock, faults)
    yield World(state, clock, faults, courier, {"bank": bank.make_keys()})
    state.close()


@pytest.mark.parametrize(
    ("choice", "status"), [("settle", "ACSC"), ("reject", "RJCT"), ("return", "RJCT")]
)
def test_a_pending_bank_payment_is_decided(world: World, choice: str, status: str) -> None:
    now = world.clock.now()
    report = Report("I1", "E1", Money(8850, "CNY"), "PDNG", None, "", None, now)
    held = msgspec.json.encode(bank.Held("digest", (report,), ("62220002",), now))
    world.state.put_document("bank", "order.PAY1", held, now)
    [open_] = matters_of(world, "bank")
    assert (open_.number, open_.state, open_.amount) == ("PAY1", "PDNG", 8850)
    body = {"number": open_.number, open_.word: choice}
    bank.Bank(world).control("POST", open_.path, body)
    [decided] = matters_of(world, "bank")
    assert (decided.state, decided.choices) == (status, ())


def test_card_transactions_and_alipays_matters_are_listed(world: World) -> None:
    now = world.clock.now()
    entry = Entry(
        key="k",
        reference="r1",
        kind="purchase",
        card="c",
        amount=100,
        code="00",
        terminal="t",
        merchant="m",
    )
    CardBook(world).put_entry(entry)
    [listed] = matters_of(world, "cards")
    assert (listed.kind, listed.number, listed.state) == ("purchase", "r1", "00 done")
    share = alipay_shares.Share("2088", "userId", 300, "PROCESSING")
    kept = {
        "payout/p1": alipay_funds.Payout("p1", "o1", "2088", 880, "DEALING", now),
        "agreement/a1": alipay_agreements.Agreement("a1", "P", "S", "2088", "NORMAL", now),
        "split/t1/s1": alipay_shares.Split("t1", "s1", "n1", now, (share,), finishes=True),
    }
    for name, record in kept.items():
        world.state.put_document("alipay", name, msgspec.json.encode(record), now)
    assert [(one.kind, one.number, one.choices) for one in matters_of(world, "alipay")] == [
        ("transfer", "p1", ("success", "fail")),
        ("agreement", "a1", ("pay", "decline", "end")),
        ("split", "s1", ("success", "fail")),
    ]


def test_only_what_is_offered_can_be_told(visitor: Visitor) -> None:
    assert visitor.send("wechat/tool", tool="bill/forget").status_code == 400
    assert visitor.send("wechat/trade", action="pay").status_code == 400
    assert visitor.send("wechat/callback", id="7/resend", change="x").status_code == 400
    assert visitor.send("nobody/trade", number="x", action="pay").status_code == 404
    assert visitor.send("trade", number="x", action="pay").status_code == 404
    assert visitor.send("wechat/nothing").status_code == 404
    assert "Done" in visitor.do("unionpay/tool", tool="rotate")


def test_wechat_pays_certificate_changes_step_by_step(
    visitor: Visitor, merchant: WechatMerchant, sandbox: RunningSandbox
) -> None:
    def listed() -> int:
        return len(merchant.call("GET", "/v3/certificates").json["data"])

    def signed_by() -> str:
        return merchant.call("GET", "/v3/certificates").headers["wechatpay-serial"]

    old = signed_by()
    seen = []
    for _ in range(3):
        visitor.do("wechat/tool", tool="next-certificate")
        seen.append((listed(), signed_by() == old))
    assert seen == [(2, True), (2, False), (1, False)]
    assert visitor.send("wechat/tool", tool="next-certificate").status_code == 400
    sandbox.post("settings", **{"wechat.rotation": ""})


# --- who may


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "null"},
        {"origin": "https://evil.example"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "http://rebound.example:{port}", "host": "rebound.example:{port}"},
    ],
)
def test_a_form_from_elsewhere_is_refused(
    visitor: Visitor, sandbox: RunningSandbox, headers: dict[str, str]
) -> None:
    before = sandbox.get("clock")["offset_s"]
    port = str(urlsplit(sandbox.url).port)
    sent = {name: value.replace("{port}", port) for name, value in headers.items()}
    answer = visitor.send("clock", sent, advance_s="60")
    assert answer.status_code == (421 if "host" in headers else 403)
    assert sandbox.get("clock")["offset_s"] == before


def test_a_strange_name_for_this_machine_sees_nothing(visitor: Visitor) -> None:
    for host in ("rebound.example", "127.0.0.1.evil.example", "[::1", ""):
        answer = visitor.http.get("/panel", headers={"host": host})
        assert answer.status_code in {400, 421}
        assert "Sandbox" not in answer.text
    named = visitor.http.get(
        "/panel", headers={"host": f"localhost:{urlsplit(visitor.origin).port}"}
    )
    assert named.status_code == 200


def test_only_a_form_is_read(visitor: Visitor) -> None:
    own = {"origin": visitor.origin}
    told = visitor.http.post("/panel/clock", json={"advance_s": 60}, headers=own)
    assert told.status_code == 400
    long = visitor.http.post("/panel/clock", data={"advance_s": "1" * 20_000}, headers=own)
    assert long.status_code == 400
    many = visitor.http.post("/panel/clock", data={f"n{i}": "1" for i in range(99)}, headers=own)
    assert many.status_code == 400


def test_the_control_api_takes_nothing_from_a_page_elsewhere(
    visitor: Visitor, sandbox: RunningSandbox
) -> None:
    before = sandbox.get("clock")["offset_s"]
    for origin, status in (("https://evil.example", 403), ("null", 403), (visitor.origin, 200)):
        answer = visitor.http.post(
            "/control/clock", content='{"advance_s": 1}', headers={"origin": origin}
        )
        assert answer.status_code == status
    assert sandbox.get("clock")["offset_s"] == before + 1
