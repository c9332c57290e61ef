"""What pages are made of: texts in two languages, files of others, masked evidence."""

from __future__ import annotations

import ast
import hashlib
import re
import string
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import get_args, get_type_hints
from urllib.parse import quote_plus

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tongbao.clearing.cases.model import Suggestion
from tongbao.clearing.complaints.model import ComplaintState, ImageState, ReplyState
from tongbao.clearing.disputes.model import AtEnd, DisputeState
from tongbao.clearing.payouts.model import PayoutState
from tongbao.clearing.reconciliation.model import BillState, BreakClass, BreakState
from tongbao.clearing.reserve.model import ProofState, Purpose
from tongbao.clearing.reserve.model import Role as ReserveRole
from tongbao.clearing.settlement.model import Figures, SettlementState
from tongbao.clearing.sources.model import FileState
from tongbao.controls.approvals.model import ApprovalState
from tongbao.controls.calendar.changes import PURPOSES
from tongbao.infra.certificates import NameKind
from tongbao.infra.webhooks.model import DeliveryState
from tongbao.kernel.licence import Mode
from tongbao.ledger.general.model import DayAction, RequestState
from tongbao.ledger.rules.chart import CHART
from tongbao.ledger.rules.posting import RULES
from tongbao.ledger.verify import CHECKS
from tongbao.parties.agents.model import Agent
from tongbao.parties.bound_cards.model import BoundState
from tongbao.parties.card_bins.model import BinKind
from tongbao.parties.e_accounts.model import METERS
from tongbao.parties.merchants.model import MerchantState
from tongbao.parties.onboarding.model import ApplicationState, DocumentKind
from tongbao.parties.partners.model import AuthMethod, Kind, PartnerState
from tongbao.parties.price_plans.model import CardKind
from tongbao.parties.staff.model import Staff, StaffRole
from tongbao.parties.stores.model import Store
from tongbao.parties.terminals.model import TerminalState
from tongbao.payments.agreements.model import AgreementState, Period
from tongbao.payments.authorisations.model import CompletionState
from tongbao.payments.callbacks.model import ASIDE, InboundState
from tongbao.payments.collecting.model import CaseKind, CloseReason, PaymentState
from tongbao.payments.combining.model import CombinedState
from tongbao.payments.parking.model import VisitState
from tongbao.payments.refunds.model import RefundState
from tongbao.payments.registrations.model import RegistrationState
from tongbao.payments.routing.model import Gate, Manner, Reason
from tongbao.payments.splits.model import ReturnState, ShareState, SplitState
from tongbao.products.shop.model import OrderState, Scene
from tongbao.rails.channels.contract.callbacks import CallbackKind
from tongbao.rails.channels.contract.orders import PayMode
from tongbao.surfaces import (
    developer_portal,
    docs_site,
    operator_console,
    own_consents,
    page_kit,
    user_wallets,
)
from tongbao.surfaces.disputes_desk.pages import BY_OPERATORS, SCHEMES
from tongbao.surfaces.four_eyes.rules import KINDS
from tongbao.surfaces.operator_console.visit import PAGE_GROUPS, PAGES
from tongbao.surfaces.page_kit.evidence import MASKED_FIELDS, masked, masked_tree, readable
from tongbao.surfaces.page_kit.remembered import Remembered
from tongbao.surfaces.page_kit.rendering import figures, lasting, moment, money, prose
from tongbao.surfaces.page_kit.texts import Texts, load_texts
from tongbao.surfaces.people_desk import e_accounts
from tongbao.surfaces.people_desk import user_wallets as user_wallet_pages
from tongbao.surfaces.people_desk.pages import STATES as PERSON_STATES

CONSOLE = Path(operator_console.__path__[0])
DOCS = Path(docs_site.__path__[0])
KIT = Path(page_kit.__path__[0])
PORTAL = Path(developer_portal.__path__[0])
WALLETS = Path(user_wallets.__path__[0])
MINE = Path(own_consents.__path__[0])
SITES = [CONSOLE, DOCS, PORTAL, WALLETS, MINE]

OPEN = {
    "rule_field", "rule_kind",
    "grant", "may", "status", "proposal_kind", "wallet_state", "programme_state",
    "programme_move",
    "account", "action", "agreement_state", "application_state", "document", "finding",
    "merchant_state", "registration_state", "agreement_why", "combined_state", "combined_why",
    "visit_state", "visit_why", "approval_state",
    "complaint_state", "dispute_at_end", "dispute_move", "dispute_state", "dispute_why",
    "image_state", "reply_kind", "reply_state", "said_by", "scheme",
    "because", "bill_state", "break", "break_state", "callback", "case",
    "channel", "check", "completion", "completion_state", "cut_off", "day_action",
    "delivery_state", "elsewhere", "excluded", "gate", "gate_why", "health",
    "inbox_done", "kind", "kind_of_entry",
    "key_state", "ceremony_state", "lasting", "manner", "mode", "nav", "nav_group", "notice",
    "notice_state",
    "outcome", "pay_mode", "payout_state", "period", "posting", "purpose",
    "rules",
    "refund_state", "return_state",
    "share_state", "split_state", "request_state", "settle", "suspense_side", "suggestion",
    "day_colour", "term_figure", "term_value", "source_state", "line_fault",
    "settlement_state", "state", "tag", "why",
    "batch_state", "file_state", "light", "transfer_batch_state", "transfer_state", "destination",
    "reserve_purpose", "reserve_role", "reserve_state", "terminal_state", "terminals",
    "partner_state", "partner_kind", "auth_method", "name_kind",
    "person_state", "e_account_state", "e_account_frozen", "e_account_freeze", "e_account_kind",
    "agent_state", "card_kind", "order_state", "scene", "staff_role", "staff_state", "store_state",
    "bank_card_state", "bank_card_kind",
    "e_account_meter", "e_account_period", "e_account_order", "e_account_order_state",
    "e_account_refund",
    "act", "behaviour", "endpoint_state", "overlap", "said", "step",
}  # fmt: skip
"""Groups whose keys are put together from values, so that no text names them."""


@pytest.fixture(params=SITES, ids=lambda site: site.name)
def site(request: pytest.FixtureRequest) -> Path:
    """One set of pages."""
    found: Path = request.param
    return found


# Texts


def test_both_languages_say_the_same_things(site: Path) -> None:
    texts = load_texts(site / "texts")

    assert texts["zh"].by_key.keys() == texts["en"].by_key.keys()
    for key, text in texts["en"].by_key.items():
        assert names_in(text) == names_in(texts["zh"].by_key[key]), key
        assert texts["zh"].by_key[key].strip(), key


def test_chinese_is_chinese(site: Path) -> None:
    latin = re.compile(r"[a-zA-Z]{3,}")
    allowed = {"JSON", "CSV", "API", "HTTPS", "Key", "Idempotency", "Accept", "Language", "TONGBAO"}
    allowed |= {"SECRET", "KEY", "dsp", "cursor", "next", "application", "problem", "json"}
    allowed |= {"mail", "dev", "shop", "example", "cursor"}
    zh = load_texts(site / "texts")["zh"].by_key

    assert not [
        text for text in zh.values() if set(latin.findall(re.sub(r"\{\w+\}", "", text))) - allowed
    ]


def test_every_text_that_is_asked_for_is_there_and_every_other_is_gone(site: Path) -> None:
    known = load_texts(site / "texts")["en"].by_key
    asked = set(keys_asked_for(site))

    assert not sorted(asked - known.keys())
    assert not {key for key in known if key not in asked and key.partition(".")[0] not in OPEN}


@pytest.mark.parametrize(
    ("group", "names"),
    [
        ("state", PaymentState),
        ("refund_state", RefundState),
        ("split_state", SplitState),
        ("share_state", ShareState),
        ("return_state", ReturnState),
        ("completion_state", CompletionState),
        ("delivery_state", DeliveryState),
        ("bill_state", BillState),
        ("break_state", BreakState),
        ("break", BreakClass),
        ("suggestion", Suggestion),
        ("source_state", FileState),
        ("settlement_state", SettlementState),
        ("payout_state", PayoutState),
        ("settle", Figures.__struct_fields__),
        ("agreement_state", AgreementState),
        ("agreement_why", AgreementState),
        ("combined_state", CombinedState),
        ("combined_why", CombinedState),
        ("visit_state", VisitState),
        ("visit_why", VisitState),
        ("dispute_state", DisputeState),
        ("reserve_purpose", Purpose),
        ("reserve_role", ReserveRole),
        ("reserve_state", ProofState),
        ("terminal_state", TerminalState),
        ("person_state", PERSON_STATES),
        ("partner_state", PartnerState),
        ("partner_kind", Kind),
        ("auth_method", AuthMethod),
        ("name_kind", NameKind),
        ("e_account_state", e_accounts.STATES),
        ("bank_card_state", BoundState),
        ("bank_card_kind", [each.name.lower() for each in BinKind]),
        ("e_account_frozen", e_accounts.FROZEN),
        ("e_account_freeze", e_accounts.FREEZES),
        ("e_account_kind", e_accounts.KINDS),
        ("e_account_meter", METERS),
        ("e_account_period", e_accounts.PERIODS),
        ("wallet_state", user_wallet_pages.STATES),
        ("programme_state", user_wallet_pages.PROGRAMME_STATES),
        ("e_account_order", e_accounts.ORDERS),
        ("e_account_order_state", e_accounts.ORDER_STATES),
        ("e_account_refund", e_accounts.WHEREABOUTS),
        ("dispute_why", DisputeState),
        ("dispute_at_end", AtEnd),
        ("dispute_move", BY_OPERATORS),
        ("scheme", SCHEMES),
        ("complaint_state", ComplaintState),
        ("image_state", ImageState),
        ("reply_state", ReplyState),
        ("reply_kind", ("reply", "complete")),
        ("said_by", ("customer", "merchant", "channel")),
        ("period", Period),
        ("notice", CallbackKind),
        ("notice_state", ASIDE),
        ("callback", InboundState),
        ("case", CaseKind),
        ("day_action", DayAction),
        ("request_state", RequestState),
        ("gate", Gate),
        ("manner", Manner),
        ("excluded", Reason),
        ("mode", Mode),
        ("pay_mode", PayMode),
        ("approval_state", ApprovalState),
        ("cut_off", PURPOSES),
        ("check", CHECKS),
        ("account", CHART),
        ("nav", PAGES),
        ("nav_group", PAGE_GROUPS),
        ("rule_kind", KINDS),
        (
            "rule_field",
            {each for kind in KINDS.values() for each in kind.act.terms.__struct_fields__},
        ),
        ("application_state", ApplicationState),
        ("document", DocumentKind),
        ("registration_state", RegistrationState),
        ("merchant_state", MerchantState),
        ("order_state", OrderState),
        ("card_kind", set(CardKind) - {CardKind.ANY}),
        ("scene", Scene),
        ("staff_role", StaffRole),
        ("staff_state", get_args(get_type_hints(Staff)["state"])),
        ("store_state", get_args(get_type_hints(Store)["state"])),
        ("agent_state", get_args(get_type_hints(Agent)["state"])),
        ("why", [f"closed {reason}" for reason in CloseReason]),
        ("posting", [f"{rule}/{leg.name}" for rule, terms in RULES.items() for leg in terms.legs]),
    ],
)
def test_what_the_house_can_say_is_said_in_words(group: str, names: Iterable[str]) -> None:
    for texts in load_texts(CONSOLE / "texts").values():
        plain = Texts(texts.language, {})
        assert [texts.named(group, name) for name in names] != [
            plain.named(group, name) for name in names
        ]
        missing = [
            name
            for name in names
            if re.sub(r"[ ./]", "_", f"{group}#{name}").replace("#", ".") not in texts.by_key
        ]
        assert not missing


def test_why_a_payment_changed_is_said_in_words() -> None:
    """The reasons are literals where payments are moved."""
    reasons: set[str] = set()
    for path in Path(operator_console.__path__[0]).parents[1].rglob("payments/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                place = {"Evidence": 0, "change_write": 3}.get(node.func.id)
                if place is not None and len(node.args) > place:
                    argument = node.args[place]
                    if isinstance(argument, ast.Constant):
                        reasons.add(str(argument.value))
    texts = load_texts(CONSOLE / "texts")["zh"]

    assert {"callback", "channel answer", "asked by the merchant"} <= reasons
    assert not {reason for reason in reasons if texts.named("because", reason) == reason}


def test_an_unknown_name_is_shown_as_it_is() -> None:
    texts = load_texts(CONSOLE / "texts")["en"]

    assert texts.named("channel", "brand_new") == "brand_new"
    with pytest.raises(KeyError):
        texts("no.such.key")


# Files of others


def test_vendored_files_are_as_their_authors_published_them() -> None:
    folder = CONSOLE / "static" / "vendor"
    lines = (folder / "HASHES").read_text("utf-8").splitlines()
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    listed = {name: digest for digest, name, *_ in rows}

    assert {path.name for path in folder.iterdir()} == {*listed, "HASHES", "LICENSE-htmx"}
    for name, digest in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
    assert all(len(row) == 5 for row in rows), "digest, file, package, version, licence"


def test_our_own_files_reach_for_nothing_foreign() -> None:
    for path in [path for site in (*SITES, KIT) for path in site.rglob("*")]:
        if path.suffix in {".css", ".js", ".html"} and "vendor" not in path.parts:
            text = path.read_text("utf-8")
            assert not re.search(
                r"https?://(?!www\.w3\.org)|@import|\burl\(|eval\(|innerHTML", text
            )


def test_templates_never_switch_escaping_off() -> None:
    for path in [path for site in (*SITES, KIT) for path in site.rglob("*.html")]:
        text = path.read_text("utf-8")
        assert not re.search(r"\|\s*safe\b|autoescape|\bstyle=|\son\w+=|hx-on|js:", text), path


# Evidence


def test_customers_are_masked_in_every_form_a_channel_uses() -> None:
    payer, code = "oGz0DoDwh1jMRcw3zpv7WQKh1enH", "134567890123456789"
    as_json = f'{{"payer": {{"openid": "{payer}"}}, "buyer_user_id": 2088722000000001}}'
    as_form = f"buyer_id=2088722000000001&total_amount=10.00&auth_code={code}&x=1"
    as_xml = f"<xml><openid>{payer}</openid><total_fee>100</total_fee></xml>"
    cut_short = f'{{"payer": {{"openid": "{payer}", "trade_'
    in_a_text = msgspec.json.encode({"biz_content": as_json}).decode()
    coded = "biz_content=" + quote_plus(as_json)
    cut_inside = f'{{"payer": {{"openid": "{payer[:-2]}'
    parts = ["wechatpay-nonce: A", as_json, as_form, as_xml, cut_short, coded, cut_inside]
    text = readable("\n\n".join(parts))

    for hidden in (payer, payer[:-2], code, "2088722000000001"):
        assert hidden not in text
        assert hidden not in readable(in_a_text)
        assert hidden not in readable(in_a_text[:-30])
    assert "total_amount=10.00" in text
    assert "<total_fee>100</total_fee>" in text
    assert "wechatpay-nonce: A" in text
    assert text.count("oGz•••nH") == 4


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from([*sorted(MASKED_FIELDS), "amount", "name"]), inner, max_size=4
            )
        ),
        max_leaves=20,
    )
)
def test_masking_keeps_the_shape_and_everything_else(tree: object) -> None:
    assert shape(masked_tree(tree)) == shape(tree)


@given(st.text(max_size=64))
def test_what_is_masked_cannot_be_put_together_again(text: str) -> None:
    shown = masked(text)

    assert len(shown.replace("•••", "")) <= 5
    assert shown == "" or "•••" in shown


# Figures


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [
        (0, "CNY", "0.00"),
        (5, "CNY", "0.05"),
        (123_456_789, "CNY", "1,234,567.89"),
        (-1999, "CNY", "−19.99"),
        (1_000_000, "JPY", "1,000,000"),
        (1_234_567, "KWD", "1,234.567"),
    ],
)
def test_figures_have_their_thousands_apart(amount: int, currency: str, shown: str) -> None:
    assert figures(amount, currency) == shown
    assert currency in money(amount, currency)


def test_times_are_those_of_the_business() -> None:
    at = datetime(2026, 11, 21, 16, 30, 5, 678_901, tzinfo=UTC)

    assert ">2026-11-22 00:30:05</time>" in moment(at)
    assert 'datetime="2026-11-22T00:30:05.678+08:00"' in moment(at)
    assert ">00:30:05.678</time>" in moment(at, day=False, fine=True)


def test_a_stretch_of_time_is_said_in_one_unit() -> None:
    texts = load_texts(CONSOLE / "texts")["en"]
    said = [lasting(texts, timedelta(seconds=s)) for s in (-5, 59, 60, 7_199, 7_200, 200_000)]

    assert said == ["0 s", "59 s", "1 min", "119 min", "2 h", "2 days"]


def test_prose_sets_code_and_escapes_the_rest() -> None:
    assert prose("a ``b`` <c> `d&`") == "a <code>b</code> &lt;c&gt; <code>d&amp;</code>"


@pytest.mark.parametrize(("takes_s", "kept_s"), [(0.05, 0), (0.5, 10), (60, 30)])
async def test_figures_are_counted_again_only_after_a_while(takes_s: float, kept_s: float) -> None:
    now = [1000.0]
    counted: list[float] = []

    async def count() -> int:
        now[0] += takes_s
        counted.append(now[0])
        return len(counted)

    remembered: Remembered[int] = Remembered(lambda: now[0])
    assert await remembered.get("a", count) == 1
    if kept_s:
        now[0] += kept_s - 0.01
        assert await remembered.get("a", count) == 1
        assert await remembered.get("b", count) == 2, "each key is counted by itself"
        now[0] += 0.02
    assert await remembered.get("a", count) == len(counted)
    assert len(counted) == (3 if kept_s else 2)


class _Shape(StrEnum):
    LEAF = "leaf"


def shape(tree: object) -> object:
    """A tree without its leaves."""
    if isinstance(tree, dict):
        return {name: shape(each) for name, each in tree.items()}
    if isinstance(tree, list):
        return [shape(each) for each in tree]
    return _Shape.LEAF


def names_in(text: str) -> set[str]:
    """The names to fill in."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def keys_asked_for(site: Path) -> Iterator[str]:
    """Every key that a template or a module names in full."""
    for path in [*site.rglob("*.html"), *KIT.rglob("*.html")]:
        for call in re.finditer(NAMED, path.read_text("utf-8")):
            if call["more"]:
                yield from (call["first"] + name for name in PUT_TOGETHER.get(call["first"], ()))
            else:
                yield from (key for key in (call["first"], call["second"]) if key)
    for path in site.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                if name == "texts" and node.args and isinstance(node.args[0], ast.Constant):
                    yield str(node.args[0].value)


NAMED = re.compile(
    r"""\bt\(["'](?P<first>[a-z_.]+)["'](?P<more>\s*\+)?"""
    r"""(?:\sif\s[^,()]*?\selse\s["'](?P<second>[a-z_.]+)["'])?"""
)
PUT_TOGETHER = {
    "book.": ("held", "released"),
    "done.": (
        "source_taken",
        "source_seen",
        "source_refused",
        "asked",
        "close_asked",
        "replayed",
        "case_closed",
        "case_taken",
        "case_left",
        "queued",
        "break_closed",
        "rules_activated",
        "rules_shadowed",
        "rules_withdrawn",
        "day_asked",
        "day_approved",
        "day_rejected",
        "day_withdrawn",
    ),
}


def test_the_pages_are_named_once() -> None:
    assert all(first != second for first, second in pairwise(sorted(PAGES)))
