"""Rule files: what is refused and how it is named, and that compiled rules say what rules say."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.kernel.errors import Refusal
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.payments.routing.model import (
    Asked,
    LimitMalformed,
    RuleUnreachable,
    SplitMalformed,
)
from tongbao.payments.routing.rules import (
    ANY,
    DAYS,
    ConditionImpossible,
    Limit,
    Rule,
    RuleFile,
    RuleFileUnreadable,
    RuleNameTaken,
    TargetUnknown,
    Terms,
    When,
    check_targets,
    compile_rules,
    minute_of_week,
    read_rules,
)
from tongbao.rails.channels.contract.orders import PayMode
from tools.house import ROOT

HEAD = 'name = "autumn"\nmode = "live"\n'
MERCHANTS = [UUID(int=n) for n in (1, 2, 3)]
MONDAY = datetime(2026, 11, 23, tzinfo=BUSINESS_ZONE)


def asked(**more: Any) -> Asked:
    """A payment as ordinary as can be."""
    return Asked(
        **{
            "payment_id": new_id(),
            "book": 1,
            "merchant_id": MERCHANTS[0],
            "mode": Mode.LIVE,
            "pay_mode": PayMode.QR,
            "money": Money(1000, "CNY"),
            "at": MONDAY + timedelta(hours=12),
            **more,
        }
    )


def at(place: str) -> dict[str, str]:
    return {"at": place}


def one_rule(when: str = "", rest: str = "") -> str:
    condition = f"[rule.when]\n{when}\n" if when else ""
    return f'{HEAD}[[rule]]\nname = "first"\n{rest}\n{condition}'


@pytest.mark.parametrize(
    ("text", "refusal", "facts"),
    [
        ("name = ", RuleFileUnreadable, {}),
        ('name = "a"\nmode = "moon"\n', RuleFileUnreadable, at("$.mode")),
        (HEAD + "colour = 1\n", RuleFileUnreadable, {}),
        (HEAD + "[terms]\nexplore_ppm = 200001\n", RuleFileUnreadable, at("$.terms.explore_ppm")),
        (one_rule("amount_from = 1.5"), RuleFileUnreadable, at("$.rule[0].when.amount_from")),
        (one_rule('pay_modes = ["fax"]'), RuleFileUnreadable, at("$.rule[0].when.pay_modes[0]")),
        (
            one_rule('pay_modes = ["qr"]') + '[[rule]]\nname = "first"\n',
            RuleNameTaken,
            {"rule": "first"},
        ),
        (
            one_rule() + '[[rule]]\nname = "second"\n',
            RuleUnreachable,
            {"rule": "second", "behind": "first"},
        ),
        (
            one_rule("amount_from = 10\namount_below = 10"),
            ConditionImpossible,
            {"rule": "first", "field": "amount_below"},
        ),
        (
            one_rule("amount_below = 0"),
            ConditionImpossible,
            {"rule": "first", "field": "amount_below"},
        ),
        (one_rule('since = "9:00"\nuntil = "10:00"'), ConditionImpossible, {"field": "since"}),
        (one_rule('since = "09:00"'), ConditionImpossible, {"rule": "first", "field": "until"}),
        (one_rule('since = "09:00"\nuntil = "09:00"'), ConditionImpossible, {"field": "until"}),
        (one_rule('bins = ["62284x"]'), ConditionImpossible, {"field": "bins"}),
        (one_rule('bins = ["622848012"]'), ConditionImpossible, {"field": "bins"}),
        (one_rule('currencies = ["XYZ"]'), ConditionImpossible, {"field": "currencies"}),
        (one_rule('merchants = ["mch_1"]'), ConditionImpossible, {"field": "merchants"}),
        (one_rule('weekdays = ["mon", "mon"]'), ConditionImpossible, {"field": "weekdays"}),
        (one_rule(rest='to = ["Alipay"]'), TargetUnknown, {"rule": "first", "field": "to"}),
        (one_rule(rest='to = ["chn_1"]'), TargetUnknown, {"rule": "first", "target": "chn_1"}),
        (one_rule(rest='to = ["alipay", "alipay"]'), TargetUnknown, {"rule": "first"}),
        (one_rule(rest='by = "order"'), TargetUnknown, {"rule": "first"}),
        (one_rule(rest='by = "split"\nto = ["a", "b"]'), SplitMalformed, {"rule": "first"}),
        (
            one_rule(rest='by = "split"\nto = ["a", "b"]\nsplit = [1]'),
            SplitMalformed,
            {"field": "split"},
        ),
        (one_rule(rest='to = ["a"]\nsplit = [1]'), SplitMalformed, {"rule": "first"}),
        (
            one_rule(rest='by = "split"\nto = ["a", "b"]\nsplit = [0, 0]'),
            SplitMalformed,
            {"rule": "first"},
        ),
        (HEAD + '[[limit]]\nto = "alipay"\n', LimitMalformed, {"to": "alipay"}),
        (
            HEAD + '[[limit]]\nto = "alipay"\namount_min = 5\namount_max = 4\n',
            LimitMalformed,
            {"field": "amount_max"},
        ),
        (
            HEAD + '[[limit]]\nto = "alipay"\nday_count = 1\n' * 2,
            LimitMalformed,
            {"reason": "stands twice"},
        ),
        (HEAD + "#" * 300_000, RuleFileUnreadable, {}),
    ],
)  # fmt: skip
def test_a_refusal_names_the_rule_and_the_field(
    text: str, refusal: type[Refusal], facts: dict[str, str]
) -> None:
    with pytest.raises(refusal) as refused:
        read_rules(text)

    assert facts.items() <= refused.value.facts.items()


def test_targets_must_exist() -> None:
    known = new_id()
    said = read_rules(one_rule(rest=f'to = ["alipay", "{show("chn", known)}"]'))

    check_targets(said, ["alipay"], [known])
    for channels, accounts in ((["alipay"], []), (["wechat_pay"], [known])):
        with pytest.raises(TargetUnknown) as refused:
            check_targets(said, channels, accounts)
        assert refused.value.facts["rule"] == "first"


@pytest.mark.parametrize("page", ["how-to/write-routing-rules.md", "reference/routing-rules.md"])
def test_the_examples_in_the_documentation_are_rules(page: str) -> None:
    text = (ROOT / "docs" / page).read_text("utf-8")
    [example] = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)

    said = read_rules(example)

    assert said.rule
    assert said.limit


def test_every_field_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference" / "routing-rules.md").read_text("utf-8")

    for part in (RuleFile, Rule, When, Limit, Terms):
        assert not [name for name in part.__struct_fields__ if f"`{name}`" not in text
                    and f"[{name}]" not in text]  # fmt: skip


def test_an_empty_file_leaves_all_to_the_figures() -> None:
    assert compile_rules(read_rules(HEAD)).first_rule(asked()).name == ANY


def test_a_period_that_passes_midnight_belongs_to_the_day_it_is() -> None:
    when = When(weekdays=["fri"], since="22:00", until="06:00")
    table = compile_rules(RuleFile("a", Mode.LIVE, [Rule("night", when)]))

    def fits(day: int, hour: int) -> bool:
        at = MONDAY + timedelta(days=day, hours=hour)
        return table.first_rule(asked(at=at.astimezone(UTC))).name == "night"

    assert fits(4, 23)
    assert fits(4, 5)
    assert not fits(5, 5)
    assert not fits(4, 12)
    assert not fits(3, 23)


# Compiled rules against the same rules read one by one

whens = st.builds(
    When,
    merchants=st.lists(st.sampled_from([show("mch", each) for each in MERCHANTS]), unique=True),
    pay_modes=st.lists(st.sampled_from([PayMode.QR, PayMode.CARD]), unique=True),
    currencies=st.lists(st.sampled_from(["CNY", "USD"]), unique=True),
    amount_from=st.none() | st.integers(0, 20),
    amount_below=st.none() | st.integers(21, 40),
    weekdays=st.lists(st.sampled_from(DAYS), unique=True),
    bins=st.lists(st.sampled_from(["62", "6228", "4"]), unique=True),
    cards=st.lists(st.sampled_from(["debit", "credit"]), unique=True),
    issuers=st.lists(st.sampled_from(["ABC", "ICBC"]), unique=True),
    metadata=st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy")),
).flatmap(
    lambda when: st.sampled_from(
        [(None, None), ("00:00", "12:00"), ("09:30", "18:00"), ("22:00", "06:00")]
    ).map(lambda period: _with_period(when, *period))
)
payments = st.builds(
    asked,
    merchant_id=st.sampled_from(MERCHANTS),
    pay_mode=st.sampled_from([PayMode.QR, PayMode.CARD]),
    money=st.builds(Money, st.integers(1, 41), st.sampled_from(["CNY", "USD"])),
    at=st.integers(0, 7 * 24 * 60 - 1).map(
        lambda minute: (MONDAY + timedelta(minutes=minute)).astimezone(UTC)
    ),
    bin=st.sampled_from(["", "62284800", "41111111"]),
    card=st.sampled_from(["", "debit", "credit"]),
    issuer=st.sampled_from(["", "ABC"]),
    metadata=st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy")),
)


def _with_period(when: When, since: str | None, until: str | None) -> When:
    fields = {name: getattr(when, name) for name in when.__struct_fields__}
    return When(**fields | {"since": since, "until": until})


def fits(when: When, payment: Asked) -> bool:
    """What the conditions mean, read word by word."""
    at = payment.at.astimezone(BUSINESS_ZONE)
    clock = f"{at.hour:02}:{at.minute:02}"
    in_period = True
    if when.since is not None and when.until is not None:
        if when.since < when.until:
            in_period = when.since <= clock < when.until
        else:
            in_period = clock >= when.since or clock < when.until
    return (
        (not when.merchants or show("mch", payment.merchant_id) in when.merchants)
        and (not when.pay_modes or payment.pay_mode in when.pay_modes)
        and (not when.currencies or payment.money.currency in when.currencies)
        and payment.money.amount >= (when.amount_from or 0)
        and (when.amount_below is None or payment.money.amount < when.amount_below)
        and (not when.weekdays or DAYS[at.weekday()] in when.weekdays)
        and in_period
        and (not when.bins or any(payment.bin.startswith(each) for each in when.bins))
        and (not when.cards or payment.card in when.cards)
        and (not when.issuers or payment.issuer in when.issuers)
        and all(payment.metadata.get(key) == value for key, value in when.metadata.items())
    )


@given(st.lists(whens, max_size=12), payments)
def test_compiled_rules_say_what_the_rules_say(conditions: list[When], payment: Asked) -> None:
    rules = [Rule(f"rule {place}", when) for place, when in enumerate(conditions)]

    found = compile_rules(RuleFile("a", Mode.LIVE, rules)).first_rule(payment)

    expected = next((rule.name for rule in rules if fits(rule.when, payment)), ANY)
    assert found.name == expected


@given(st.integers(0, 7 * 24 * 60 - 1))
def test_the_week_begins_on_monday_in_shanghai(minute: int) -> None:
    at = (MONDAY + timedelta(minutes=minute)).astimezone(UTC)

    assert minute_of_week(asked(at=at)) == minute
