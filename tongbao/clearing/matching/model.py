"""Rules, and what they do with two or three sets of rows. No I/O.

A rule's passes run in order; what one of them matches is gone for the next. A pass puts rows that
agree in its keys into a bucket and matches the bucket when its sums agree within the tolerance and
its times lie within the window. A third side is joined to the left by keys of its own, so a bucket
is all rows that keys connect. The result never depends on the order of rows.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Final, Literal

import msgspec
from msgspec import Struct

from tongbao.kernel.errors import Invalid, Rejected
from tongbao.kernel.money import EXPONENTS
from tongbao.ledger.rules.chart import CHART, OwnerKind

Side = Literal["left", "right", "third"]
SIDES: Final[tuple[Side, ...]] = ("left", "right", "third")
Key = Literal["number", "ref", "batch", "order", "day", "amount", "kind"]
Class = Literal[
    "missing_at_platform",
    "missing_at_channel",
    "amount_differs",
    "duplicated_at_channel",
    "ledger_differs",
    "cut_off",
]
ROWS_MAX: Final = 1_000_000
"""Rows of both sides that are matched at once; a bigger day belongs into the fast lane."""
RULE_BYTES_MAX: Final = 32 * 1024
_NAME_MAX: Final = 64


class Pass(Struct, frozen=True, forbid_unknown_fields=True):
    """One way to find what belongs together.

    ``left`` and ``right`` are keys in the same order, such as our ``number`` and their ``ref``. A
    row without a value for a key is not in it. ``many``: a bucket may hold any number of rows of
    either side, refunds netted with payments; else one of each. ``left_third`` and ``third`` join
    the third side to the left (by the same keys as the right unless said otherwise), always any
    number of its rows, netted.
    """

    left: tuple[Key, ...]
    right: tuple[Key, ...]
    many: bool = False
    tolerance: int = 0  # minor units that two sums may differ by
    within_hours: int = 24 * 7  # between the earliest and the latest row of a bucket
    left_third: tuple[Key, ...] = ()
    third: tuple[Key, ...] = ()


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """Which two or three statements are matched, and how.

    ``left`` is ours and ``right`` theirs; ``third``, if there is one, is what must follow from the
    left, such as its bookings. A side is

    - ``source:NAME``: the rows of a source's files;
    - ``channels``: what every channel account owes us of its day, payments less refunds and fees;
    - ``payments`` or ``payments:CHANNEL``: what was collected and given back, each under its number
      at the channel, ``ref`` what the ledger knows it by;
    - ``splits`` or ``splits:CHANNEL``: shares that channels gave away, negative, and what they took
      back, each under the split's or the return's number there;
    - ``transfers`` or ``transfers:CHANNEL``: what transfers took out of accounts at channels, each
      under its number there;
    - ``payouts``: what left for merchants' banks, money out, and what came back;
    - ``ledger:KIND``: the postings of the day to the house's or the channels' accounts of a kind
      (``bank``, ``channel_receivable``), signed by the account's own side, ``number`` the id they
      were made for.

    Behind ``CHANNEL`` may stand ``/ACCOUNT``, for one account there. Sides of our own may be
    joined: ``payments:CHANNEL + splits:CHANNEL``. ``order`` is the number a channel knows the order
    by, which a refund of it has too.

    A row may find its match in a file of up to ``waits_days`` days later; so long it waits and is
    no difference. ``amounts`` says whether a source's rows count with their fee taken off, and
    ``ignores`` which kinds of them do not count at all, such as fees that another paper tells of.
    ``mode`` counts where no side is a source, which has its own.
    """

    name: str
    en: str
    zh: str
    left: str
    right: str
    passes: tuple[Pass, ...]
    currency: str = "CNY"
    waits_days: int = 1
    third: str = ""
    amounts: Literal["net", "gross"] = "net"
    mode: Literal["live", "sandbox"] = "live"
    ignores: tuple[str, ...] = ()

    @property
    def sides(self) -> tuple[tuple[Side, str], ...]:
        """The sides there are, and what each is."""
        named = zip(SIDES, (self.left, self.right, self.third), strict=True)
        return tuple((side, name) for side, name in named if name)


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
    order: str = ""


class Difference(Struct, frozen=True):
    """Rows that should agree and do not: their key, and the sums of the sides."""

    day: date
    key: str
    found: Class
    left: int | None
    right: int | None
    line: int | None
    third: int | None = None


class Bucket(Struct, frozen=True):
    """Rows that keys connect, by side."""

    left: list[Entry]
    right: list[Entry]
    third: list[Entry]

    @property
    def rows(self) -> list[Entry]:
        """All of them."""
        return [*self.left, *self.right, *self.third]


class Matched(Struct, frozen=True):
    """What came of it: which rows found their match, and what is left of each side."""

    pairs: list[Bucket]
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
        (len(rule.name) > _NAME_MAX, f"name: at most {_NAME_MAX} letters"),
        (not rule.en or not rule.zh, "en, zh"),
        (rule.currency not in EXPONENTS, "currency: an ISO 4217 code"),
        (not rule.passes, "passes: at least one"),
        (not 0 <= rule.waits_days <= 31, "waits_days: 0 to 31"),
        (len({name for _, name in rule.sides}) < len(rule.sides), "left, right, third: different"),
        (not rule.left or not rule.right, "left, right: both"),
    )
    found = next((problem for is_wrong, problem in checks if is_wrong), None)
    if found is not None:
        return found
    wrong = next((side for side, name in rule.sides if not _is_side(name)), None)
    if wrong is not None:
        return (
            f"{wrong}: source:NAME, channels, payments[:CHANNEL[/ACCOUNT]], splits, transfers,"
            " payouts or ledger:KIND, of our own also several, joined by +"
        )
    return next(
        (problem for each in rule.passes if (problem := _problem_of_pass(rule, each))), None
    )


def parts_of(name: str) -> list[str]:
    """Return the sides that one is joined of: itself, mostly."""
    return [part.strip() for part in name.split("+")]


def _is_side(name: str) -> bool:
    parts = parts_of(name)
    own = all(not part.startswith("source:") and part != "channels" for part in parts)
    return (len(parts) == 1 or (own and len(set(parts)) == len(parts))) and all(
        map(_is_part, parts)
    )


def _is_part(name: str) -> bool:
    word, colon, rest = name.partition(":")
    if word == "ledger":
        kind = CHART.get(rest)
        return kind is not None and kind.owner in {OwnerKind.HOUSE, OwnerKind.CHANNEL_ACCOUNT}
    if word == "source":
        return bool(rest)
    of_channels = word in {"payments", "splits", "transfers"}
    channel, slash, account = rest.partition("/")
    is_of_channels = of_channels and bool(channel) == bool(colon) and bool(account) == bool(slash)
    return is_of_channels or name in {"channels", "payouts"}


def _problem_of_pass(rule: Rule, by: Pass) -> str | None:
    checks = (
        (len(by.left) != len(by.right) or not by.left,
         "passes: as many keys on the left as on the right"),
        (by.tolerance < 0 or by.within_hours < 0,
         "passes: tolerance and within_hours not below nought"),
        (not rule.third and bool(by.third or by.left_third), "passes: there is no third side"),
        (bool(rule.third) and (not by.third or len(by.third) != len(by.left_third or by.left)),
         "passes: third, as many keys as left_third (or left)"),
    )  # fmt: skip
    return next((problem for is_wrong, problem in checks if is_wrong), None)


def match(rule: Rule, entries: Iterable[Entry]) -> Matched:
    """Return which rows belong together by the rule, and which are left over."""
    left_over = sorted(entries, key=_order)
    pairs: list[Bucket] = []
    for each in rule.passes:
        left_over, found = _run(each, left_over)
        pairs += found
    return Matched(pairs, left_over)


def differences(rule: Rule, left_over: Sequence[Entry]) -> list[Difference]:
    """Return what is wrong with the rows that are left over, by the first pass's keys.

    On one side alone they are missing at the other; on both the sums differ, or a row stands twice.
    What the third side says otherwise than the left differs by itself. The same money at times too
    far apart was cut off: it stands on another day.
    """
    first = rule.passes[0]
    buckets, unkeyed = _buckets(first, left_over)
    named = [("/".join(key), bucket) for key, bucket in sorted(buckets.items())]
    for entry in unkeyed:
        key = f"{entry.number or entry.ref or entry.batch or entry.kind}#{entry.line}"
        bucket = Bucket([], [], [])
        getattr(bucket, entry.side).append(entry)
        named.append((key, bucket))
    return [
        Difference(
            day=min(entry.day for entry in bucket.rows),
            key=key,
            found=found,
            left=_sum(bucket.left) if bucket.left else None,
            right=_sum(bucket.right) if bucket.right else None,
            line=bucket.right[0].line if bucket.right else None,
            third=_sum(bucket.third) if bucket.third else None,
        )
        for key, bucket in named
        for found in _classes(first, bucket, is_three=bool(rule.third))
    ]


def _order(entry: Entry) -> tuple[int, date, int]:
    return (SIDES.index(entry.side), entry.day, entry.place)


_Label = tuple[str, ...]


def _key(names: Sequence[Key], entry: Entry) -> _Label | None:
    values = tuple(
        entry.day.isoformat() if name == "day" else str(getattr(entry, name)) for name in names
    )
    return values if values and all(values) else None


def _buckets(by: Pass, entries: Sequence[Entry]) -> tuple[dict[_Label, Bucket], list[Entry]]:
    """Return rows by what connects them, under the lowest key of each, and those without a key."""
    buckets: dict[_Label, Bucket] = {}
    unkeyed, thirds = [], []
    for entry in entries:
        if entry.side == "third":
            thirds.append(entry)
            continue
        key = _key(by.left if entry.side == "left" else by.right, entry)
        if key is None:
            unkeyed.append(entry)
            continue
        bucket = buckets.setdefault(key, Bucket([], [], []))
        (bucket.left if entry.side == "left" else bucket.right).append(entry)
    if by.third:
        unkeyed += _join_third(by, buckets, thirds)
    return buckets, unkeyed if by.third else unkeyed + thirds


def _join_third(by: Pass, buckets: dict[_Label, Bucket], thirds: Sequence[Entry]) -> list[Entry]:
    """Put rows of the third side into buckets, in place; buckets that a key joins become one."""
    home: dict[_Label, _Label] = {}  # a key of the third side, and a bucket it belongs to
    into: dict[_Label, _Label] = {}  # where a bucket went

    def root(label: _Label) -> _Label:
        while label in into:
            label = into[label]
        return label

    for label in sorted(buckets):
        keys = {_key(by.left_third or by.left, entry) for entry in buckets[label].left} - {None}
        met = {root(home[key]) for key in keys if key in home} | {label}
        lowest = min(met)
        for other in met - {lowest}:
            into[other] = lowest
            gone = buckets.pop(other)
            buckets[lowest].left.extend(gone.left)
            buckets[lowest].right.extend(gone.right)
        home.update(dict.fromkeys((key for key in keys if key is not None), lowest))
    unkeyed = []
    for entry in thirds:
        key = _key(by.third, entry)
        if key is None:
            unkeyed.append(entry)
        else:
            label = root(home.setdefault(key, ("", *key) if key in buckets else key))
            buckets.setdefault(label, Bucket([], [], [])).third.append(entry)
    return unkeyed


def _run(by: Pass, entries: Sequence[Entry]) -> tuple[list[Entry], list[Bucket]]:
    buckets, left_over = _buckets(by, entries)
    pairs = []
    for _, bucket in sorted(buckets.items()):
        if _agree(by, bucket):
            pairs.append(bucket)
        else:
            left_over += bucket.rows
    return sorted(left_over, key=_order), pairs


def _agree(by: Pass, bucket: Bucket) -> bool:
    left, right = bucket.left, bucket.right
    if not left or not right or (not by.many and (len(left) > 1 or len(right) > 1)):
        return False
    if not _is_near(by, bucket):
        return False
    sums = [_sum(left), _sum(right), *([_sum(bucket.third)] if by.third else [])]
    return max(sums) - min(sums) <= by.tolerance


def _is_near(by: Pass, bucket: Bucket) -> bool:
    times = [entry.at for entry in bucket.rows]
    return max(times) - min(times) <= timedelta(hours=by.within_hours)


def _sum(entries: Sequence[Entry]) -> int:
    return sum(entry.amount for entry in entries)


def _classes(by: Pass, bucket: Bucket, *, is_three: bool) -> list[Class]:
    """Return what is wrong with a bucket, the third side last."""
    left, right, third = _sum(bucket.left), _sum(bucket.right), _sum(bucket.third)
    found: list[Class] = []
    if bucket.left and not bucket.right:
        found.append("missing_at_channel")
    elif bucket.right and not bucket.left:
        found.append("missing_at_platform")
    elif _is_twice(by, bucket):
        found.append("duplicated_at_channel")
    elif abs(left - right) > by.tolerance:
        found.append("amount_differs")
    if is_three and abs(left - third) > by.tolerance:
        found.append("ledger_differs")
    if not found and not _is_near(by, bucket):
        found.append("cut_off")
    return found


def _is_twice(by: Pass, bucket: Bucket) -> bool:
    left, right = bucket.left, bucket.right
    if by.many or not left:
        return False
    does_agree = abs(_sum(left) - _sum(right)) <= by.tolerance
    return len(left) > 1 or len(right) > 1 if does_agree else len(right) > len(left)
