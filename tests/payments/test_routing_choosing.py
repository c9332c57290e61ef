"""The decision itself: a pure function, the same whenever it is repeated."""

from __future__ import annotations

from collections import Counter
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.payments.test_routing_rules import asked
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money, share_half_up
from tongbao.payments.routing.choosing import (
    Standing,
    bin_class,
    choose,
    rate_key,
)
from tongbao.payments.routing.model import Decision, Gate, Manner, Offer, Price, Rate, Reason
from tongbao.payments.routing.rules import (
    NO_RULES,
    Limit,
    Rule,
    RuleFile,
    RuleTable,
    Terms,
    compile_rules,
)
from tongbao.rails.channels.contract.orders import PayMode

NAMES = ("alipay", "unionpay", "wechat_pay")
OFFERS = [Offer(UUID(int=n), name, Price(6000)) for n, name in enumerate(NAMES, 1)]
ALIPAY, UNIONPAY, WECHAT = (offer.account_id for offer in OFFERS)
STILL = Terms(explore_ppm=0)


def rules(*rule: Rule, **more: Any) -> RuleTable:
    return compile_rules(RuleFile("a", Mode.LIVE, list(rule), **{"terms": STILL, **more}))


def fares(success_ppm: int, gate: Gate = Gate.UP, **more: Any) -> Standing:
    rate = Rate(success_ppm, more.get("latency_ms", 100), more.get("samples", 1000))
    return Standing(gate, more.get("has_probes", False), {rate_key(PayMode.QR, ""): rate})


def first(decision: Decision) -> UUID:
    return decision.candidates[0].account_id


def why(decision: Decision) -> dict[UUID, Reason]:
    return {each.account_id: each.reason for each in decision.excluded}


@given(st.integers(1, 10**12), st.integers(0, 1_000_000))
def test_a_cost_is_what_the_house_rounds_it_to(amount: int, rate_ppm: int) -> None:
    assert Price(rate_ppm).of(amount) == share_half_up(amount, rate_ppm)


def test_value_is_success_times_what_is_left_of_the_amount() -> None:
    cheap, good = Offer(ALIPAY, "alipay", Price(0)), Offer(WECHAT, "wechat_pay", Price(50_000))
    standings = {ALIPAY: fares(900_000), WECHAT: fares(940_000)}

    decision = choose(asked(money=Money(10_000, "CNY")), rules(), [good, cheap], standings, {})

    assert [each.account_id for each in decision.candidates] == [ALIPAY, WECHAT]
    assert [each.value for each in decision.candidates] == [9000, 8930]


def test_among_equals_the_quicker_one_is_first() -> None:
    standings = {ALIPAY: fares(900_000, latency_ms=300), WECHAT: fares(900_000, latency_ms=200)}

    decision = choose(asked(), rules(), [OFFERS[0], OFFERS[2]], standings, {})

    assert first(decision) == WECHAT


def test_what_is_bad_is_passed_over_unless_there_is_nothing_else() -> None:
    standings = {
        ALIPAY: fares(100_000),
        UNIONPAY: fares(900_000),
        WECHAT: fares(100_000, samples=5),
    }

    some = choose(asked(), rules(), OFFERS, standings, {})
    bad = choose(asked(), rules(), OFFERS[:1], standings, {})

    assert why(some) == {ALIPAY: Reason.SUCCESS_TOO_LOW}
    assert first(bad) == ALIPAY
    assert not bad.excluded


def test_an_order_is_kept_and_goes_on_behind_what_is_down() -> None:
    rule = Rule("mine", to=["wechat_pay", "alipay"], by="order")
    down = {WECHAT: fares(990_000, Gate.DOWN)}

    up = choose(asked(), rules(rule), OFFERS, {}, {})
    less = choose(asked(), rules(rule), OFFERS, down, {})

    assert [each.account_id for each in up.candidates] == [WECHAT, ALIPAY]
    assert up.manner is Manner.ORDER
    assert first(less) == ALIPAY
    assert why(less) == {WECHAT: Reason.DOWN}


def test_an_account_of_the_pool_is_used_where_a_rule_names_it_and_only_there() -> None:
    pooled = Offer(UUID(int=9), "wechat_pay", Price(0), is_own=False)
    rule = Rule("pool", to=[show("chn", pooled.account_id), "wechat_pay"], by="order")

    named = choose(asked(), rules(rule), [*OFFERS, pooled], {}, {})
    unnamed = choose(asked(), rules(), [*OFFERS, pooled], {}, {})

    assert [each.account_id for each in named.candidates] == [pooled.account_id, WECHAT]
    assert pooled.account_id not in {each.account_id for each in unnamed.candidates}


def test_a_named_channel_is_used_however_it_fares() -> None:
    standings = {WECHAT: fares(100_000, Gate.DOWN)}
    rule = Rule("mine", to=["alipay"], by="order")

    decision = choose(asked(channel="wechat_pay"), rules(rule), OFFERS, standings, {})

    assert first(decision) == WECHAT
    assert not decision.excluded


def test_a_named_channel_is_still_held_to_its_limits() -> None:
    table = rules(limit=[Limit("wechat_pay", amount_max=999)])

    decision = choose(asked(channel="wechat_pay"), table, OFFERS, {}, {})

    assert not decision.candidates
    assert why(decision) == {WECHAT: Reason.AMOUNT_TOO_LARGE}


@pytest.mark.parametrize(
    ("limit", "used", "reason"),
    [
        (Limit("alipay", amount_min=1001), {}, Reason.AMOUNT_TOO_SMALL),
        (Limit("alipay", amount_max=999), {}, Reason.AMOUNT_TOO_LARGE),
        (Limit("alipay", day_amount=1500), {(ALIPAY, "CNY"): (501, 1)}, Reason.QUOTA_USED_UP),
        (Limit("alipay", day_amount=1500), {(ALIPAY, "CNY"): (500, 1)}, None),
        (Limit("alipay", day_count=3), {(ALIPAY, "CNY"): (1, 3)}, Reason.QUOTA_USED_UP),
        (Limit("alipay", day_count=3), {(ALIPAY, "CNY"): (1, 2)}, None),
        (Limit("alipay", "USD", amount_max=1), {}, None),
    ],
)
def test_limits(limit: Limit, used: Any, reason: Reason | None) -> None:
    decision = choose(asked(), rules(limit=[limit]), OFFERS, {}, used)

    assert why(decision).get(ALIPAY) is reason


def test_an_accounts_own_limit_stands_before_its_channels() -> None:
    own = Limit(show("chn", ALIPAY), amount_max=1000)
    table = rules(limit=[Limit("alipay", amount_max=1), own])

    assert not choose(asked(), table, OFFERS, {}, {}).excluded


def test_who_has_refused_it_is_not_asked_again() -> None:
    decision = choose(asked(tried=frozenset({ALIPAY, WECHAT})), rules(), OFFERS, {}, {})

    assert [each.account_id for each in decision.candidates] == [UNIONPAY]
    assert set(why(decision).values()) == {Reason.TRIED}


# Chance


def shares(table: RuleTable, standings: Any, count: int = 4000) -> Counter[UUID]:
    return Counter(first(choose(asked(), table, OFFERS, standings, {})) for _ in range(count))


def test_a_split_comes_out_as_it_was_written() -> None:
    rule = Rule("halves", to=list(NAMES), by="split", split=[70, 30, 0])

    found = shares(rules(rule), {})

    assert 2600 < found[ALIPAY] < 3000  # 2800, and more than six deviations of 29
    assert found[ALIPAY] + found[UNIONPAY] == 4000


def test_the_share_of_what_is_down_goes_to_the_others() -> None:
    rule = Rule("halves", to=list(NAMES), by="split", split=[70, 30, 0])

    assert shares(rules(rule), {ALIPAY: fares(1, Gate.DOWN)}, 50)[UNIONPAY] == 50


def test_looking_around_is_bounded_and_hits_everybody_else() -> None:
    standings = {ALIPAY: fares(990_000), UNIONPAY: fares(900_000), WECHAT: fares(800_000)}

    found = shares(rules(terms=Terms(explore_ppm=200_000)), standings)

    assert 640 < found[UNIONPAY] + found[WECHAT] < 960  # 800, and more than six deviations of 25
    assert min(found[UNIONPAY], found[WECHAT]) > 280


def test_a_probe_goes_first_and_is_no_second_choice() -> None:
    standings = {WECHAT: fares(990_000, Gate.PROBING, has_probes=True)}
    found: Counter[bool] = Counter()

    for _ in range(500):
        decision = choose(asked(), rules(), OFFERS, standings, {})
        is_probe = decision.manner is Manner.PROBE
        found[is_probe] += 1
        assert decision.candidates[0].is_probe is is_probe
        assert not any(each.is_probe for each in decision.candidates[1:])
        assert (WECHAT in why(decision)) is not is_probe

    assert 40 < found[True] < 160  # a fifth of them, and more than six deviations of 9


def test_nothing_probes_when_no_probes_are_left() -> None:
    standings = {each: fares(990_000, Gate.PROBING) for each in (ALIPAY, UNIONPAY, WECHAT)}

    decision = choose(asked(), rules(), OFFERS, standings, {})

    assert not decision.candidates
    assert set(why(decision).values()) == {Reason.PROBING}


# Whatever the figures

gates = st.builds(
    fares,
    st.integers(0, 1_000_000),
    st.sampled_from(Gate),
    samples=st.integers(0, 100),
    latency_ms=st.integers(0, 5000),
    has_probes=st.booleans(),
)
some_rules = st.lists(
    st.sampled_from(
        [
            Rule("value", to=["alipay", "wechat_pay"]),
            Rule("order", to=["wechat_pay", "alipay"], by="order"),
            Rule("split", to=list(NAMES), by="split", split=[1, 0, 5]),
        ]
    ),
    max_size=1,
)
terms = st.builds(
    Terms,
    explore_ppm=st.integers(0, 200_000),
    eliminate_below_ppm=st.integers(0, 1_000_000),
    samples_min=st.integers(1, 50),
    slow_above_ms=st.none() | st.integers(1, 4000),
)
limits = st.lists(
    st.builds(Limit, st.sampled_from(NAMES), day_amount=st.integers(0, 3000)),
    max_size=3,
    unique_by=lambda limit: limit.to,
)


@given(
    some_rules, terms, limits, st.dictionaries(st.sampled_from([ALIPAY, UNIONPAY, WECHAT]), gates),
    st.sets(st.sampled_from([ALIPAY, UNIONPAY, WECHAT])), st.integers(1, 5000),
)  # fmt: skip
def test_everybody_is_either_chosen_or_told_why_not(
    rule: list[Rule], terms: Terms, limit: list[Limit], standings: Any, tried: Any, amount: int
) -> None:
    table = rules(*rule, terms=terms, limit=limit)
    payment = asked(tried=frozenset(tried), money=Money(amount, "CNY"))

    decision = choose(payment, table, OFFERS, standings, {})
    again = choose(payment, table, list(OFFERS), dict(standings), {})

    chosen = [each.account_id for each in decision.candidates]
    out = why(decision)
    meant = {offer.account_id for offer in OFFERS if not rule or offer.channel in rule[0].to}
    assert decision == again
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) | set(out) == meant
    assert not set(chosen) & set(out)
    for each in decision.candidates:
        assert each.account_id not in tried
        assert standings.get(each.account_id, fares(1)).gate is not Gate.DOWN
        assert 0 <= each.value <= amount - each.cost
        held = table.limit_of(each.account_id, each.channel, "CNY")
        assert held is None or amount <= (held.day_amount or 0)


@pytest.mark.parametrize(
    ("digits", "expected"),
    [("62284800", "unionpay"), ("41111111", "visa"), ("55", "mastercard"), ("22", "mastercard"),
     ("37", "amex"), ("35", "jcb"), ("9", "other"), ("", "")],
)  # fmt: skip
def test_classes_of_cards(digits: str, expected: str) -> None:
    assert bin_class(digits) == expected


def test_without_rules_and_figures_everybody_is_expected_to_do_well() -> None:
    decision = choose(asked(payment_id=new_id()), NO_RULES, OFFERS, {}, {})

    assert {each.success_ppm for each in decision.candidates} == {950_000}
