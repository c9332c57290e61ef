"""Rules, and what they do with two sets of rows. No I/O.

A rule's passes run in order; what one of them matches is gone for the next. A pass puts rows that
agree in its keys into a bucket and matches the bucket when its sums agree within the tolerance and
its times lie within the window. So the result never depends on the order of rows.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Final, Literal

import msgspec
from msgspec import Struct

from tongbao.kernel.errors import Invalid, Rejected

Side = Literal["left", "right"]
Key = Literal["number", "ref", "batch", "day", "amount", "kind"]
Class = Literal[
    "missing_at_platform", "missing_at_channel", "amount_differs", "duplicated_at_channel"
]
ROWS_MAX: Final = 1_000_000
"""Rows of both sides that are matched at once; a bigger day belongs into the fast lane."""
RULE_BYTES_MAX: Final = 32 * 1024


class Pass(Struct, frozen=True, forbid_unknown_fields=True):
    """One way to find what belongs together.

    ``left`` and ``right`` are keys in the same order, such as our ``number`` and their ``ref``. A
    row without a value for a key is not in it. ``many``: a bucket may hold any number of rows of
    either side, refunds netted with payments; else one of each.
    """

    left: tuple[Key, ...]
    right: tuple[Key, ...]
    many: bool = False
    tolerance: int = 0  # minor units that two sums may differ by
    within_hours: int = 24 * 7  # between the earliest and the latest row of a bucket


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """Which two statements are matched, and how.

    ``left`` is ours and ``right`` theirs: ``source:NAME``, or ``channels`` for what every channel
    account owes us of its day (payments less refunds and fees). A row may find its match in a file
    of up to ``waits_days`` days later; so long it waits and is no difference.
    """

    name: str
    en: str
    zh: str
    left: str
    right: str
    passes: tuple[Pass, ...]
    currency: str = "CNY"
    waits_days: int = 1


class Entry(Struct, frozen=True):
    """One row of one side. ``amount`` is signed; ``place`` tells equal rows apart."""

    side: Side
    day: date
    place: int
    line: int
    kind: str
    number: str
    ref: str
    batch: str
    amount: int
    at: datetime


class Difference(Struct, frozen=True):
    """Rows that should agree and do not: their key, and both sums."""

    day: date
    key: str
    found: Class
    left: int | None
    right: int | None
    line: int | None


class Matched(Struct, frozen=True):
    """What came of it: how many rows found their match, and what is left of each side."""

    pairs: list[tuple[list[Entry], list[Entry]]]
    left_over: list[Entry]


class RuleWrong(Invalid):
    """The rule contradicts itself."""

    code = "matching.rule_wrong"
    advice = "Correct the field that is named; docs/how-to/add-a-source.md shows a rule."
    advice_zh = "请更正所指字段；示例见 docs/how-to/add-a-source.md。"


class TooManyRows(Rejected):
    """There are more rows than are matched at once."""

    code = "matching.too_many_rows"
    advice = "Match fewer days at once, or split the source."
    advice_zh = "请缩短对账天数或拆分来源。"


def load_rule(content: bytes) -> Rule:
    """Return the rule that a TOML file describes.

    Raises:
        RuleWrong
    """
    try:
        if len(content) > RULE_BYTES_MAX:
            raise RuleWrong(problem="the file is larger than a rule")
        rule = msgspec.convert(tomllib.loads(content.decode()), Rule)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as failure:
        raise RuleWrong(problem=str(failure)[:200]) from None
    problem = problem_of(rule)
    if problem is not None:
        raise RuleWrong(rule=rule.name[:64], problem=problem)
    return rule


def problem_of(rule: Rule) -> str | None:
    """Return what is wrong with a rule, or None."""
    checks = (
        (not rule.name.replace("_", "").isalnum() or not rule.name.islower(), "name"),
        (not rule.en or not rule.zh, "en, zh"),
        (not rule.passes, "passes: at least one"),
        (not 0 <= rule.waits_days <= 31, "waits_days: 0 to 31"),
        (rule.left == rule.right, "left, right: two different sides"),
        (
            any(not (side == "channels" or side.startswith("source:")) for side in
                (rule.left, rule.right)),
            "left, right: source:NAME or channels",
        ),
        (
            any(len(each.left) != len(each.right) or not each.left for each in rule.passes),
            "passes: as many keys on the left as on the right",
        ),
        (
            any(each.tolerance < 0 or each.within_hours < 0 for each in rule.passes),
            "passes: tolerance and within_hours not below nought",
        ),
    )  # fmt: skip
    return next((problem for is_wrong, problem in checks if is_wrong), None)


def match(rule: Rule, entries: Iterable[Entry]) -> Matched:
    """Return which rows belong together by the rule, and which are left over."""
    left_over = sorted(entries, key=_order)
    pairs: list[tuple[list[Entry], list[Entry]]] = []
    for each in rule.passes:
        left_over, found = _run(each, left_over)
        pairs += found
    return Matched(pairs, left_over)


def differences(rule: Rule, left_over: Sequence[Entry]) -> list[Difference]:
    """Return what is wrong with the rows that are left over, by the first pass's keys.

    On one side alone they are missing at the other; on both the sums differ, or a row stands twice.
    """
    first = rule.passes[0]
    buckets, unkeyed = _buckets(first, left_over)
    found = [_difference(key, *sides) for key, sides in sorted(buckets.items())]
    for entry in unkeyed:
        key = f"{entry.number or entry.ref or entry.batch or entry.kind}#{entry.line}"
        sides: tuple[list[Entry], list[Entry]] = ([], [])
        sides[entry.side == "right"].append(entry)
        found.append(_difference((key,), *sides))
    return found


def _order(entry: Entry) -> tuple[str, date, int]:
    return (entry.side, entry.day, entry.place)


def _key(names: Sequence[Key], entry: Entry) -> tuple[str, ...] | None:
    values = tuple(
        entry.day.isoformat() if name == "day" else str(getattr(entry, name)) for name in names
    )
    return values if all(values) else None


def _buckets(
    by: Pass, entries: Sequence[Entry]
) -> tuple[dict[tuple[str, ...], tuple[list[Entry], list[Entry]]], list[Entry]]:
    buckets: dict[tuple[str, ...], tuple[list[Entry], list[Entry]]] = {}
    unkeyed = []
    for entry in entries:
        key = _key(by.left if entry.side == "left" else by.right, entry)
        if key is None:
            unkeyed.append(entry)
        else:
            buckets.setdefault(key, ([], []))[entry.side == "right"].append(entry)
    return buckets, unkeyed


def _run(
    by: Pass, entries: Sequence[Entry]
) -> tuple[list[Entry], list[tuple[list[Entry], list[Entry]]]]:
    buckets, left_over = _buckets(by, entries)
    pairs = []
    for _, (left, right) in sorted(buckets.items()):
        if _agree(by, left, right):
            pairs.append((left, right))
        else:
            left_over += [*left, *right]
    return sorted(left_over, key=_order), pairs


def _agree(by: Pass, left: Sequence[Entry], right: Sequence[Entry]) -> bool:
    if not left or not right or (not by.many and (len(left) > 1 or len(right) > 1)):
        return False
    times = [entry.at for entry in (*left, *right)]
    if max(times) - min(times) > timedelta(hours=by.within_hours):
        return False
    return abs(_sum(left) - _sum(right)) <= by.tolerance


def _sum(entries: Sequence[Entry]) -> int:
    return sum(entry.amount for entry in entries)


def _difference(key: tuple[str, ...], left: Sequence[Entry], right: Sequence[Entry]) -> Difference:
    found: Class
    if not right:
        found = "missing_at_channel"
    elif not left:
        found = "missing_at_platform"
    elif _sum(left) == _sum(right) or len(right) > len(left):
        found = "duplicated_at_channel"
    else:
        found = "amount_differs"
    return Difference(
        day=min(entry.day for entry in (*left, *right)),
        key="/".join(key),
        found=found,
        left=_sum(left) if left else None,
        right=_sum(right) if right else None,
        line=right[0].line if right else None,
    )
