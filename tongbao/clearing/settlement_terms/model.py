"""Settlement terms and holds: when a day may be closed, and how what is due is shared. No I/O.

terms   each version is in force from its `valid_from` until a later one's
hold    placed ─► lifted, or over by itself on its day
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final
from uuid import UUID

from msgspec import Meta, Struct

from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.kernel.errors import Conflict, Invalid, NotFound, Rejected
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import AMOUNT_MAX, share_half_up

MIDNIGHT: Final = 1440
"""A day that is cut off here is the accounting day itself."""
REASON_MIN: Final = 4
REASON_MAX: Final = 500


class Counts(StrEnum):
    """Which days T+N counts."""

    CALENDAR = "calendar"
    WORKING = "working"


class PaysBy(StrEnum):
    """How our bank is told to pay a merchant."""

    BANK_API = "bank_api"
    BANK_FILE = "bank_file"


class TermFigures(Struct, frozen=True, forbid_unknown_fields=True):
    """What is agreed. Amounts are minor units of each currency, rates parts per million.

    ``delay_days`` is N of T+N; ``cut_off_minute`` counts from midnight, Asia/Shanghai.
    ``reserve_ppm`` of what was collected less what was refunded is kept for ``reserve_days``.
    """

    delay_days: Annotated[int, Meta(ge=1, le=60)] = 1
    counts: Counts = Counts.CALENDAR
    cut_off_minute: Annotated[int, Meta(ge=1, le=MIDNIGHT)] = MIDNIGHT
    payable_min: Annotated[int, Meta(ge=0, le=AMOUNT_MAX)] = 0
    reserve_ppm: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    reserve_days: Annotated[int, Meta(ge=0, le=730)] = 0
    quick_allowed: bool = False
    quick_ppm: Annotated[int, Meta(ge=0, le=100_000)] = 0
    quick_fee_min: Annotated[int, Meta(ge=0, le=AMOUNT_MAX)] = 0
    pays_by: PaysBy = PaysBy.BANK_API


class SettlementTerm(Struct, frozen=True):
    """One row of settlement_term: a version of what was agreed with a merchant in one mode."""

    id: UUID
    merchant_id: UUID
    mode: Mode
    version: int
    valid_from: date
    delay_days: int
    counts: Counts
    cut_off_minute: int
    payable_min: int
    reserve_ppm: int
    reserve_days: int
    quick_allowed: bool
    quick_ppm: int
    quick_fee_min: int
    pays_by: PaysBy
    created_at: datetime
    created_by: str

    @property
    def figures(self) -> TermFigures:
        """What was agreed, without when and by whom."""
        names = TermFigures.__struct_fields__
        return TermFigures(**{name: getattr(self, name) for name in names})


class SettlementHold(Struct, frozen=True):
    """One row of settlement_hold; ``amount`` None keeps everything back."""

    id: UUID
    merchant_id: UUID
    mode: Mode
    amount: int | None
    reason: str
    until_day: date | None
    placed_by: str
    placed_at: datetime
    lifted_by: str | None
    lifted_at: datetime | None


class HoldCount(Struct, frozen=True):
    """How many holds are on a merchant."""

    merchant_id: UUID
    count: int


class Shares(Struct, frozen=True):
    """Where what is due goes; the parts are the whole."""

    payable: int
    reserved: int
    quick_fee: int
    carried: int


Works = Callable[[date], bool]
"""Tells whether people work on a day."""


def due_from(figures: TermFigures, day: date, works: Works) -> date:
    """Return the day from which an accounting day may be closed: T+N."""
    if figures.counts is Counts.CALENDAR:
        return day + timedelta(days=figures.delay_days)
    found, left = day, figures.delay_days
    while left:
        found += timedelta(days=1)
        left -= works(found)
    return found


def newest_due(figures: TermFigures, today: date, works: Works) -> date:
    """Return the newest accounting day that may be closed today."""
    day = today - timedelta(days=figures.delay_days)
    if figures.counts is Counts.WORKING:
        while due_from(figures, day, works) > today:
            day -= timedelta(days=1)
    return day


def ends_at(figures: TermFigures, day: date) -> datetime | None:
    """Return the moment at which a day is cut off, or None where midnight is."""
    if figures.cut_off_minute == MIDNIGHT:
        return None
    midnight = datetime(day.year, day.month, day.day, tzinfo=BUSINESS_ZONE)
    return midnight + timedelta(minutes=figures.cut_off_minute)


def in_force(terms: Iterable[SettlementTerm], day: date) -> SettlementTerm | None:
    """Return the version that counts for an accounting day."""
    begun = [term for term in terms if term.valid_from <= day]
    return max(begun, key=lambda term: (term.valid_from, term.version), default=None)


def held_back(holds: Sequence[SettlementHold], today: date) -> int | None:
    """Return how much the holds keep back today, or None when it is everything."""
    standing = [
        hold
        for hold in holds
        if hold.lifted_at is None and (hold.until_day is None or today < hold.until_day)
    ]
    if any(hold.amount is None for hold in standing):
        return None
    return sum(hold.amount or 0 for hold in standing)


def shares_of(
    figures: TermFigures,
    due: int,
    *,
    available: int,
    collected: int,
    owed: int = 0,
    held: int | None = 0,
    is_quick: bool = False,
) -> Shares:
    """Return how what is due is shared, in minor units.

    Of what is due and available comes first the reserve; what holds keep back stays, and as much as
    the merchant owes us, for whoever collects debts. The rest is payable, unless it is less than
    the least that is paid out. What is not shared is carried into the next settlement.
    ``collected`` is what the reserve is a part of; ``held`` None keeps everything back.
    """
    free = max(0, min(due, available))
    reserved = min(share_half_up(max(0, collected), figures.reserve_ppm), free)
    payable = 0 if held is None else max(0, free - reserved - held - owed)
    fee = 0
    if is_quick:
        fee = max(share_half_up(payable, figures.quick_ppm), figures.quick_fee_min)
    if payable - fee < max(1, figures.payable_min):
        payable = fee = 0
    return Shares(
        payable=payable - fee,
        reserved=reserved,
        quick_fee=fee,
        carried=due - reserved - payable,
    )


def check_figures(figures: TermFigures) -> None:
    """Raise unless the figures make sense together.

    Raises:
        SettlementTermsInvalid
    """
    if (figures.reserve_ppm == 0) != (figures.reserve_days == 0):
        raise SettlementTermsInvalid(param="$.reserve_days")
    if not figures.quick_allowed and (figures.quick_ppm or figures.quick_fee_min):
        raise SettlementTermsInvalid(param="$.quick_allowed")


def default_figures(delays: Mapping[UUID, int], merchant_id: UUID) -> TermFigures:
    """Return what counts for a merchant with whom nothing was agreed: T+N in calendar days."""
    return TermFigures(delay_days=max(1, delays.get(merchant_id, 1)))


class SettlementTermsInvalid(Invalid):
    """The figures contradict each other."""

    code = "settlement_terms.invalid"
    advice = "Give a reserve both its share and its days; a price of D+0 only where it is allowed."
    advice_zh = "滚动保证金的比例与天数应同时给出；未开通 D+0 时不得设置其费率。"


class SettlementTermsPast(Rejected):
    """Terms are agreed for the future: what is settled stays as it was."""

    code = "settlement_terms.past"
    advice = "Let the terms begin today or later."
    advice_zh = "结算条款的生效日期不得早于今日。"


class SettlementHoldNotFound(NotFound):
    """There is no such hold, or it was lifted before."""

    code = "settlement_hold.not_found"
    advice = "List the merchant's holds again; somebody may have lifted it."
    advice_zh = "请重新查看该商户的结算冻结，可能已被解除。"


class SettlementHoldInvalid(Invalid):
    """The amount, the day or the reason of a hold makes no sense."""

    code = "settlement_hold.invalid"
    advice = "Give a positive amount or none, a day to come or none, and a reason."
    advice_zh = "请填写大于零的金额（留空为全部）、未来的解除日期（可空）以及原因。"


class SettlementHoldLifted(Conflict):
    """Somebody has lifted the hold already."""

    code = "settlement_hold.lifted"
    advice = "Nothing to do: the hold keeps nothing back any more."
    advice_zh = "该结算冻结已解除，无需处理。"
