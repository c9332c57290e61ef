"""The rules as people write them, checked when they are loaded, and compiled to be asked quickly.

A rule set is a TOML file. Its first rule that fits a payment says which accounts may take it. Every
condition becomes a set of rules (a whole number, one bit for each), so that all rules are compared
with a payment at once: the lowest bit that is in every set is the first rule that fits.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Final, Literal, TypeVar
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.kernel.errors import Invalid
from tongbao.kernel.ids import UnknownId, parse
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import AMOUNT_MAX, EXPONENTS
from tongbao.payments.routing.model import (
    BIN_MAX,
    PPM,
    Asked,
    LimitMalformed,
    RuleUnreachable,
    SplitMalformed,
)
from tongbao.rails.channels.contract.orders import PayMode

RULES_MAX: Final = 500
FILE_MAX: Final = 256 * 1024
EXPLORE_MAX_PPM: Final = 200_000
"""No more than a fifth of the payments is ever spent on looking around."""
ANY: Final = "(no rule)"
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MINUTES: Final = 24 * 60
_TIME: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_DIGITS: Final = re.compile(r"[0-9]{1,8}")
_WEIGHT_MAX: Final = 10_000
_NAME: Final = Meta(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f]+\Z")

V = TypeVar("V")
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Amount = Annotated[int, Meta(ge=0, le=AMOUNT_MAX)]
Ppm = Annotated[int, Meta(ge=0, le=PPM)]


class RuleFileUnreadable(Invalid):
    """The file is no TOML text of a rule set, or has a field of a wrong name or type."""

    code = "routing.file_unreadable"
    advice = "Write the file as docs/reference/routing-rules.md says; `at` names the place."
    advice_zh = "请按 docs/reference/routing-rules.md 编写规则文件；at 指出错误位置。"


class RuleNameTaken(Invalid):
    """Two rules have one name, so that the log could not tell them apart."""

    code = "routing.rule_name_taken"
    advice = "Give every rule a name of its own."
    advice_zh = "每条规则须有唯一名称。"


class ConditionImpossible(Invalid):
    """A condition can never hold, or cannot be read; `rule` and `field` name it."""

    code = "routing.condition_impossible"
    advice = "Correct the named field of the named rule, or leave it out."
    advice_zh = "请修正所指规则的对应字段，或删除该条件。"


class TargetUnknown(Invalid):
    """A rule or limit names a channel or account that does not exist in this mode."""

    code = "routing.target_unknown"
    advice = "Name a channel, or an account of this mode as tongbao channel list shows it."
    advice_zh = "请填写已有渠道名称，或 tongbao channel list 显示的本模式账户标识。"


class When(Struct, frozen=True, forbid_unknown_fields=True):
    """What a payment must be for a rule to fit; everything left out fits everything.

    Amounts are minor units and half open: ``amount_from`` fits, ``amount_below`` does not. Times
    are of Asia/Shanghai and half open too; ``until`` before ``since`` goes on past midnight.
    """

    merchants: list[str] = []
    pay_modes: list[PayMode] = []
    currencies: list[str] = []
    amount_from: Amount | None = None
    amount_below: Amount | None = None
    weekdays: list[Weekday] = []
    since: str | None = None
    until: str | None = None
    bins: list[str] = []
    cards: list[Literal["debit", "credit"]] = []
    issuers: list[str] = []
    metadata: dict[str, str] = {}


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """Which accounts take what fits. ``to``: channels or accounts; empty, the merchant's own."""

    name: Annotated[str, _NAME]
    when: When = When()
    to: list[str] = []
    by: Literal["value", "order", "split"] = "value"
    split: list[Annotated[int, Meta(ge=0, le=_WEIGHT_MAX)]] = []


class Limit(Struct, frozen=True, forbid_unknown_fields=True):
    """What an account, or each account of a channel, may take: at once, and on one business day."""

    to: str
    currency: str = "CNY"
    amount_min: Amount | None = None
    amount_max: Amount | None = None
    day_amount: Amount | None = None
    day_count: Annotated[int, Meta(ge=0, le=1_000_000_000)] | None = None

    @property
    def counts(self) -> bool:
        """Whether the day's payments must be counted for it."""
        return self.day_amount is not None or self.day_count is not None


class Terms(Struct, frozen=True, forbid_unknown_fields=True):
    """How live figures are used, for all rules of the set."""

    explore_ppm: Annotated[int, Meta(ge=0, le=EXPLORE_MAX_PPM)] = 20_000
    eliminate_below_ppm: Ppm = 500_000
    samples_min: Annotated[int, Meta(ge=1, le=100_000)] = 20
    slow_above_ms: Annotated[int, Meta(ge=1, le=600_000)] | None = None
    cost: Literal["channel", "merchant"] = "channel"


class RuleFile(Struct, frozen=True, forbid_unknown_fields=True):
    """A rule set as people write it."""

    name: Annotated[str, _NAME]
    mode: Mode
    rule: list[Rule] = []
    limit: list[Limit] = []
    terms: Terms = Terms()


class Compiled(Struct, frozen=True):
    """A rule ready to be followed: targets told apart, weights summed up."""

    name: str
    by: Literal["value", "order", "split"]
    channels: Mapping[str, int]  # by place in the rule's order
    accounts: Mapping[UUID, int]
    weights: Sequence[int]
    metadata: Sequence[tuple[str, str]]
    bins: tuple[str, ...]
    cards: frozenset[str] = frozenset()
    issuers: frozenset[str] = frozenset()


ANY_RULE: Final = Compiled(ANY, "value", {}, {}, (), (), ())
NO_TERMS: Final = Terms()


class RuleTable(Struct, frozen=True):
    """A whole rule set, compiled: ask `first_rule` and `limit_of`."""

    id: UUID | None
    rules: Sequence[Compiled]
    terms: Terms
    limits: Mapping[tuple[str | UUID, str], Limit]
    everything: int
    by_merchant: Mapping[UUID, int]
    any_merchant: int
    by_pay_mode: Mapping[PayMode, int]
    any_pay_mode: int
    by_currency: Mapping[str, int]
    any_currency: int
    amounts: Sequence[int]
    amount_sets: Sequence[int]
    minutes: Sequence[int]
    minute_sets: Sequence[int]
    named: frozenset[UUID]

    def first_rule(self, asked: Asked) -> Compiled:
        """Return the first rule that fits, or the one that leaves all to the figures."""
        left = self.everything
        if left:
            left &= self.by_merchant.get(asked.merchant_id, 0) | self.any_merchant
            left &= self.by_pay_mode.get(asked.pay_mode, 0) | self.any_pay_mode
            left &= self.by_currency.get(asked.money.currency, 0) | self.any_currency
            left &= self.amount_sets[bisect_right(self.amounts, asked.money.amount)]
        if left and self.minutes:
            left &= self.minute_sets[bisect_right(self.minutes, minute_of_week(asked))]
        while left:
            lowest = left & -left
            rule = self.rules[lowest.bit_length() - 1]
            if _fits_the_rest(rule, asked):
                return rule
            left ^= lowest
        return ANY_RULE

    def limit_of(self, account_id: UUID, channel: str, currency: str) -> Limit | None:
        """Return the account's limit, or its channel's where it has none of its own."""
        if not self.limits:
            return None
        own = self.limits.get((account_id, currency))
        return own or self.limits.get((channel, currency))


def minute_of_week(asked: Asked) -> int:
    """Return the minute since Monday 00:00 in Asia/Shanghai."""
    at = asked.at.astimezone(BUSINESS_ZONE)
    return at.weekday() * _DAY_MINUTES + at.hour * 60 + at.minute


def _fits_the_rest(rule: Compiled, asked: Asked) -> bool:
    """Whether the conditions fit that few rules have."""
    if rule.bins and not asked.bin.startswith(rule.bins):
        return False
    for wanted, known in ((rule.cards, asked.card), (rule.issuers, asked.issuer)):
        if wanted and known not in wanted:
            return False
    return all(asked.metadata.get(key) == value for key, value in rule.metadata)


def read_rules(text: str) -> RuleFile:
    """Return a rule set from its file, every rule of it checked.

    Raises:
        RuleFileUnreadable, RuleNameTaken, ConditionImpossible, TargetUnknown, SplitMalformed,
        RuleUnreachable, LimitMalformed
    """
    if len(text.encode()) > FILE_MAX:
        raise RuleFileUnreadable(reason=f"longer than {FILE_MAX} bytes")
    try:
        said = msgspec.convert(tomllib.loads(text), RuleFile)
    except tomllib.TOMLDecodeError as failure:
        raise RuleFileUnreadable(reason=str(failure)[:120]) from None
    except msgspec.ValidationError as failure:
        what, _, where = str(failure).partition(" - at ")
        raise RuleFileUnreadable(at=where.strip("`")[:80], reason=what[:120]) from None
    _check_rules(said.rule)
    _check_limits(said.limit)
    return said


def _check_rules(rules: Sequence[Rule]) -> None:
    if len(rules) > RULES_MAX:
        raise RuleFileUnreadable(reason=f"more than {RULES_MAX} rules")
    names: set[str] = set()
    fits_all: str | None = None
    for rule in rules:
        if rule.name in names:
            raise RuleNameTaken(rule=rule.name)
        names.add(rule.name)
        if fits_all is not None:
            raise RuleUnreachable(rule=rule.name, behind=fits_all)
        _check_when(rule)
        _check_targets(rule)
        fits_all = rule.name if rule.when == When() else None


def _check_when(rule: Rule) -> None:
    when = rule.when
    for field, values in (
        ("merchants", when.merchants),
        ("pay_modes", when.pay_modes),
        ("currencies", when.currencies),
        ("weekdays", when.weekdays),
        ("bins", when.bins),
        ("cards", when.cards),
        ("issuers", when.issuers),
    ):
        if len(set(values)) != len(values):
            raise ConditionImpossible(rule=rule.name, field=field, reason="stands twice")
    for text in when.merchants:
        _id("mch", text, rule.name, "merchants")
    if unknown := [each for each in when.currencies if each not in EXPONENTS]:
        raise ConditionImpossible(rule=rule.name, field="currencies", reason=unknown[0][:8])
    low, high = when.amount_from or 0, when.amount_below
    if high is not None and high <= low:
        raise ConditionImpossible(
            rule=rule.name, field="amount_below", reason="no amount is below it and fits"
        )
    if any(not _DIGITS.fullmatch(each) for each in when.bins):
        reason = f"1 to {BIN_MAX} digits each"
        raise ConditionImpossible(rule=rule.name, field="bins", reason=reason)
    _period(rule)


def _period(rule: Rule) -> tuple[int, int] | None:
    """Return the minutes of the day in which a rule fits, or None for the whole of it."""
    given = {"since": rule.when.since, "until": rule.when.until}
    minutes: dict[str, int] = {}
    for field, text in given.items():
        if text is None:
            continue
        found = _TIME.fullmatch(text)
        if found is None:
            raise ConditionImpossible(rule=rule.name, field=field, reason="write it as 09:30")
        minutes[field] = int(found[1]) * 60 + int(found[2])
    if not minutes:
        return None
    if len(minutes) == 1:
        [missing] = given.keys() - minutes.keys()
        raise ConditionImpossible(rule=rule.name, field=missing, reason="one needs the other")
    if minutes["since"] == minutes["until"]:
        raise ConditionImpossible(rule=rule.name, field="until", reason="the period is empty")
    return minutes["since"], minutes["until"]


def _check_targets(rule: Rule) -> None:
    if len(set(rule.to)) != len(rule.to):
        raise TargetUnknown(rule=rule.name, field="to", reason="stands twice")
    for target in rule.to:
        target_of(target, rule.name)
    is_split = rule.by == "split"
    if is_split != bool(rule.split) or (is_split and len(rule.split) != len(rule.to)):
        raise SplitMalformed(rule=rule.name, field="split")
    if is_split and not any(rule.split):
        raise SplitMalformed(rule=rule.name, field="split", reason="all weights are zero")
    if rule.by == "order" and not rule.to:
        raise TargetUnknown(rule=rule.name, field="to", reason="an order needs its accounts")


def _check_limits(limits: Sequence[Limit]) -> None:
    seen: set[tuple[str, str]] = set()
    for limit in limits:
        target_of(limit.to, "limit")
        if limit.currency not in EXPONENTS:
            raise LimitMalformed(to=limit.to[:40], field="currency")
        if (limit.to, limit.currency) in seen:
            raise LimitMalformed(to=limit.to[:40], reason="stands twice")
        seen.add((limit.to, limit.currency))
        figures = (limit.amount_min, limit.amount_max, limit.day_amount, limit.day_count)
        if all(figure is None for figure in figures):
            raise LimitMalformed(to=limit.to[:40], reason="limits nothing")
        if limit.amount_max is not None and limit.amount_max < (limit.amount_min or 0):
            raise LimitMalformed(to=limit.to[:40], field="amount_max")


def target_of(text: str, where: str) -> str | UUID:
    """Return the account that a target means, or the channel of its name.

    Raises:
        TargetUnknown
    """
    if text.startswith("chn_"):
        try:
            return parse("chn", text)
        except UnknownId:
            raise TargetUnknown(rule=where, field="to", target=text[:40]) from None
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", text):
        raise TargetUnknown(rule=where, field="to", target=text[:40])
    return text


def check_targets(said: RuleFile, channels: Iterable[str], accounts: Iterable[UUID]) -> None:
    """Raise unless everything that a rule set names exists, in its mode.

    Raises:
        TargetUnknown
    """
    known: set[str | UUID] = {*channels, *accounts}
    named = [(rule.name, target) for rule in said.rule for target in rule.to]
    for where, target in [*named, *(("limit", limit.to) for limit in said.limit)]:
        if target_of(target, where) not in known:
            raise TargetUnknown(rule=where, field="to", target=target[:40])


def _id(prefix: str, text: str, rule: str, field: str) -> UUID:
    try:
        return parse(prefix, text)
    except UnknownId:
        raise ConditionImpossible(rule=rule, field=field, reason=text[:40]) from None


def compile_rules(said: RuleFile, rule_set_id: UUID | None = None) -> RuleTable:
    """Return a checked rule set so that it can be asked quickly."""
    amounts, amount_sets = _by_amount(said.rule)
    minutes, minute_sets = _by_minute(said.rule)
    merchants = [[_id("mch", each, rule.name, "merchants") for each in rule.when.merchants]
                 for rule in said.rule]  # fmt: skip
    by_merchant, any_merchant = _by_value(merchants)
    by_pay_mode, any_pay_mode = _by_value([rule.when.pay_modes for rule in said.rule])
    by_currency, any_currency = _by_value([rule.when.currencies for rule in said.rule])
    return RuleTable(
        id=rule_set_id,
        rules=[_compiled(rule) for rule in said.rule],
        terms=said.terms,
        limits={(target_of(each.to, "limit"), each.currency): each for each in said.limit},
        everything=(1 << len(said.rule)) - 1,
        by_merchant=by_merchant,
        any_merchant=any_merchant,
        by_pay_mode=by_pay_mode,
        any_pay_mode=any_pay_mode,
        by_currency=by_currency,
        any_currency=any_currency,
        amounts=amounts,
        amount_sets=amount_sets,
        minutes=minutes,
        minute_sets=minute_sets,
        named=frozenset(
            target
            for rule in said.rule
            for text in rule.to
            if isinstance(target := target_of(text, rule.name), UUID)
        ),
    )


def _compiled(rule: Rule) -> Compiled:
    targets = [target_of(text, rule.name) for text in rule.to]
    return Compiled(
        name=rule.name,
        by=rule.by,
        channels={each: at for at, each in enumerate(targets) if isinstance(each, str)},
        accounts={each: at for at, each in enumerate(targets) if isinstance(each, UUID)},
        weights=rule.split,
        metadata=sorted(rule.when.metadata.items()),
        bins=tuple(rule.when.bins),
        cards=frozenset(rule.when.cards),
        issuers=frozenset(rule.when.issuers),
    )


def _by_value(wanted: Sequence[Sequence[V]]) -> tuple[dict[V, int], int]:
    """Return which rules ask for each value, and which ask for none in particular."""
    by_value: dict[V, int] = {}
    anything = 0
    for place, values in enumerate(wanted):
        for value in values:
            by_value[value] = by_value.get(value, 0) | 1 << place
        if not values:
            anything |= 1 << place
    return by_value, anything


def _by_amount(rules: Sequence[Rule]) -> tuple[list[int], list[int]]:
    periods = [[(rule.when.amount_from or 0, rule.when.amount_below)] for rule in rules]
    return _by_place(periods)


def _by_minute(rules: Sequence[Rule]) -> tuple[list[int], list[int]]:
    if all(not rule.when.weekdays and rule.when.since is None for rule in rules):
        return [], []
    return _by_place([_minutes(rule) for rule in rules])


def _minutes(rule: Rule) -> list[tuple[int, int | None]]:
    """Return the pieces of the week, in minutes, in which a rule fits."""
    period = _period(rule) or (0, _DAY_MINUTES)
    since, until = period
    pieces = [(since, until)] if since < until else [(0, until), (since, _DAY_MINUTES)]
    days = [DAYS.index(day) for day in rule.when.weekdays] or range(len(DAYS))
    return [
        (day * _DAY_MINUTES + first, day * _DAY_MINUTES + last)
        for day in days
        for first, last in pieces
    ]


def _by_place(
    pieces: Sequence[Sequence[tuple[int, int | None]]],
) -> tuple[list[int], list[int]]:
    """Return where the set of fitting rules changes, and the set between two such places."""
    turns: dict[int, int] = {}
    for place, each in enumerate(pieces):
        for first, last in each:
            # A piece that begins where another of the same rule ends changes nothing there.
            turns[first] = turns.get(first, 0) ^ 1 << place
            if last is not None:
                turns[last] = turns.get(last, 0) ^ 1 << place
    ordered = sorted(turns)
    sets = [0]
    for edge in ordered:
        sets.append(sets[-1] ^ turns[edge])
    return ordered, sets


NO_RULES: Final = compile_rules(RuleFile("none", Mode.LIVE))
"""What decides where nobody has made rules: the figures alone."""
