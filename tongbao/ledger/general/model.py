"""Vouchers, trial balances and the requests that close a day. No I/O.

request   waiting ──► approved | rejected  (by another operator)
              └─────► withdrawn | expired
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from enum import StrEnum
from uuid import UUID

from msgspec import Struct

from tongbao.kernel.errors import Conflict, Forbidden, Invalid, NotFound, Rejected

_Key = tuple[date, str, str, str]


class GlVoucher(Struct, frozen=True):
    """What a stretch of commits moved on one accounting day; the commits are those it names."""

    book: int
    last_batch: int
    biz_date: date
    first_batch: int
    transfers: int

    @property
    def number(self) -> str:
        """Return the number people know the voucher by (凭证号)."""
        return f"{self.book}-{self.biz_date:%Y%m%d}-{self.last_batch}"


class GlVoucherLine(Struct, frozen=True):
    """One posting code's effect on one account of the general ledger."""

    book: int
    last_batch: int
    biz_date: date
    currency: str
    code: str
    account: str
    debits: int
    credits: int
    transfers: int


class JournalIncomplete(Exception):
    """The journal does not hold every transfer of these commits: they were archived, or lost."""


class JournalSum(Struct, frozen=True):
    """The posted transfers of a stretch of the journal, summed by day, code and pair of kinds.

    ``seen`` counts the others as well, which moved nothing.
    """

    biz_date: date
    code: str
    currency: str
    debit_kind: str
    credit_kind: str
    amount: int
    transfers: int
    seen: int


class Line(Struct, frozen=True, order=True):
    """A voucher line that is not in any voucher yet."""

    biz_date: date
    currency: str
    code: str
    account: str
    debits: int
    credits: int
    transfers: int


def lines_of(journal: Iterable[JournalSum], number_of: Mapping[str, str]) -> list[Line]:
    """Return the voucher lines of a stretch, in order; debits and credits are equal by making."""
    sums: dict[_Key, tuple[int, int, int]] = {}
    for each in journal:
        debit = (each.biz_date, each.currency, each.code, number_of[each.debit_kind])
        credit = (each.biz_date, each.currency, each.code, number_of[each.credit_kind])
        _add(sums, debit, (each.amount, 0, each.transfers))
        # Inside one account of the general ledger both sides are on the same line.
        _add(sums, credit, (0, each.amount, 0 if debit == credit else each.transfers))
    return sorted(Line(*key, *figures) for key, figures in sums.items())


def _add(sums: dict[_Key, tuple[int, int, int]], key: _Key, more: tuple[int, int, int]) -> None:
    had = sums.get(key, (0, 0, 0))
    sums[key] = (had[0] + more[0], had[1] + more[1], had[2] + more[2])


class TrialLine(Struct, frozen=True):
    """One account of the general ledger on one day; ``opening`` is debits less credits before."""

    account: str
    en: str
    zh: str
    currency: str
    opening: int
    debits: int
    credits: int

    @property
    def closing(self) -> int:
        """Debits less credits at the end of the day."""
        return self.opening + self.debits - self.credits


class TrialTotal(Struct, frozen=True):
    """A currency's columns added up; each pair is equal in sound books."""

    currency: str
    opening_debits: int
    opening_credits: int
    debits: int
    credits: int
    closing_debits: int
    closing_credits: int

    @property
    def is_balanced(self) -> bool:
        """Whether every pair is equal."""
        return (
            self.opening_debits == self.opening_credits
            and self.debits == self.credits
            and self.closing_debits == self.closing_credits
        )


class TrialBalance(Struct, frozen=True):
    """A book's accounts on one accounting day (试算平衡表), from vouchers up to ``last_batch``."""

    book: int
    day: date
    is_closed: bool
    last_batch: int
    lines: tuple[TrialLine, ...]

    def totals(self) -> list[TrialTotal]:
        """Return the columns of each currency added up."""
        return [
            TrialTotal(
                currency,
                sum(max(line.opening, 0) for line in lines),
                sum(max(-line.opening, 0) for line in lines),
                sum(line.debits for line in lines),
                sum(line.credits for line in lines),
                sum(max(line.closing, 0) for line in lines),
                sum(max(-line.closing, 0) for line in lines),
            )
            for currency, lines in self._by_currency().items()
        ]

    @property
    def is_balanced(self) -> bool:
        """Whether debits are credits in every currency: before, during and after the day."""
        return all(total.is_balanced for total in self.totals())

    def _by_currency(self) -> dict[str, list[TrialLine]]:
        found: dict[str, list[TrialLine]] = {}
        for line in self.lines:
            found.setdefault(line.currency, []).append(line)
        return dict(sorted(found.items()))


class GlBreach(Struct, frozen=True):
    """One place where the general ledger is not what the journal says."""

    check: str  # coverage, vouchers, days, balance, accounts
    where: str
    what: str


class DayAction(StrEnum):
    """What a request asks for."""

    CLOSE = "close"
    REOPEN = "reopen"


class RequestState(StrEnum):
    """What became of a request."""

    WAITING = "waiting"
    APPROVED = "approved"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


class GlDayRequest(Struct, frozen=True):
    """One row of the table: somebody asks to close a day, or to open it again."""

    book: int
    id: UUID
    action: DayAction
    day: date
    reason: str
    maker: str
    made_at: datetime
    expires_at: datetime
    state: RequestState
    checker: str | None
    decided_at: datetime | None
    last_batch: int | None


class Finding(Struct, frozen=True):
    """One thing that was looked at before a day may be closed."""

    name: str  # day, projection, vouchers, balance, holds, transit
    is_ready: bool
    en: str
    zh: str


class DayNotReady(Conflict):
    """Something of the day is not finished; the facts name what."""

    code = "general_ledger.day_not_ready"
    advice = "Finish what is named, or wait for it, and ask again."
    advice_zh = "请先处理或等待所列未完成事项，然后重新申请。"


class DayNotOpen(Conflict):
    """The day is closed already."""

    code = "general_ledger.day_not_open"
    advice = "Choose a day after the last closed one."
    advice_zh = "该会计日已关账，请选择其后的日期。"


class DayNotClosed(Conflict):
    """The day is not closed, so it cannot be opened again."""

    code = "general_ledger.day_not_closed"
    advice = "Choose a closed day; every day after it is opened as well."
    advice_zh = "该会计日未关账，请选择已关账的日期；其后各日将一并重新打开。"


class DayInTheFuture(Rejected):
    """A day that has not begun cannot be closed."""

    code = "general_ledger.day_in_the_future"
    advice = "Close today or an earlier day."
    advice_zh = "不能关闭尚未开始的会计日。"


class DayRequestNotFound(NotFound):
    """There is no such request."""

    code = "general_ledger.request_not_found"
    advice = "List the requests of the book to find its id."
    advice_zh = "请在申请列表中查找正确的标识。"


class DayRequestWaiting(Conflict):
    """Another request for the book waits to be decided."""

    code = "general_ledger.request_waiting"
    advice = "Approve, reject or withdraw the waiting request first."
    advice_zh = "该账簿已有待审批的申请，请先处理。"


class DayRequestDecided(Conflict):
    """The request was decided, withdrawn or ran out before."""

    code = "general_ledger.request_decided"
    advice = "Make a new request."
    advice_zh = "该申请已处理或已过期，请重新申请。"


class SamePerson(Forbidden):
    """Whoever asks cannot be the one who approves."""

    code = "general_ledger.same_person"
    advice = "Have another operator approve or reject it."
    advice_zh = "申请人不能审批自己的申请，请由另一名操作员处理。"


class ReasonMissing(Invalid):
    """A day is closed or opened for a stated reason of 1 to 500 characters."""

    code = "general_ledger.reason_missing"
    advice = "Say why, in 1 to 500 characters."
    advice_zh = "请填写 1 至 500 个字符的理由。"
