"""What is kept raw, for how long, and how it is erased. No I/O."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import date, datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Query, Tx
from tongbao.kernel.errors import Conflict, Invalid

BATCH: Final = 500
"""Rows that one commit erases."""
DAYS_MIN: Final = 30


class RetentionTermWrong(Invalid):
    """A term names a kind that is kept, a day to come, thirty days or more, and why."""

    code = "retention.term_wrong"
    advice = "Name a kind that is listed, today or a later day, 30 to 36600 days, and the reason."
    advice_zh = "请指定已列出的类别、今天或以后的生效日、30 至 36600 天，并注明依据。"


class RetentionTermThere(Conflict):
    """There is a term of this kind that begins on this day."""

    code = "retention.term_there"
    advice = "Choose another day; a term is never changed."
    advice_zh = "该日期已有保存期限，记录不可修改，请选择其他生效日。"


class EvidenceNeeded(Conflict):
    """Money of the payment is on its way, or somebody disputes it; what was said may be needed."""

    code = "retention.evidence_needed"
    advice = "Wait until what `needed_for` names has ended, then erase."
    advice_zh = "该笔付款尚有未了结事项（见 needed_for），证据仍需保留，请待其结束后再清除。"


class Raw(Struct, frozen=True):
    """One kind of raw evidence.

    ``erase`` takes a book (0 where rows have none), the ids between which it looks, how many rows
    at most, and the moment as text; it puts the digest in the place of what it erases, leaves alone
    what was erased before, and returns the ids. Ids are UUIDv7, so they say how old a row is.
    ``and_with_them`` erases in the same commit what hangs on those rows.
    """

    kind: str
    en: str
    zh: str
    erase: Query[UUID]
    has_book: bool = True
    is_licensed: bool = False
    and_with_them: Callable[[Tx, Sequence[UUID]], Awaitable[None]] | None = None


class RetentionTerm(Struct, frozen=True):
    """One row of retention_term: from a day on, so many days, and why."""

    kind: str
    valid_from: date
    days: int
    because: str


class RetentionProgress(Struct, frozen=True):
    """One row of retention_progress."""

    kind: str
    of_book: int
    after_id: UUID
    erased: int
    looked_at: datetime


def term_at(terms: list[RetentionTerm], kind: str, day: date) -> RetentionTerm | None:
    """Return the term of a kind that counts on a day; without one nothing is erased."""
    those = [each for each in terms if each.kind == kind and each.valid_from <= day]
    return max(those, key=lambda each: each.valid_from, default=None)
