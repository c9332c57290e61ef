"""Months of the journal, what is kept of one that left, and why one may not leave. No I/O.

    open ──► sealed ──► archived
             ids of it are refused; its rows are here, then in a folder of files

A month is one of the calendar in UTC, of the real time that ids begin with. A transfer lies in the
month of its id, which is that of its reference: the refund of an old payment has an id of its own.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from msgspec import Struct

from tongbao.kernel.errors import Conflict, Invalid, NotFound, Rejected
from tongbao.ledger.rows import LedgerHold

AGE_MIN: Final = timedelta(days=92)
"""How long after its end a month is sealed at the earliest: late captures still need its ids."""
AHEAD: Final = 2
"""How many months after the present one have partitions."""
PARENTS: Final = ("ledger_transfer", "ledger_request")


class LedgerHorizon(Struct, frozen=True):
    """Below which id a book takes nothing more."""

    book: int
    archived_before: UUID


class LedgerMonth(Struct, frozen=True):
    """A month that is sealed, or whose rows are in the archive."""

    month: date
    state: Literal["sealed", "archived"]
    transfers: int
    requests: int
    folder: str | None
    manifest_sha256: bytes | None
    sealed_at: datetime
    archived_at: datetime | None


class LedgerMonthBook(Struct, frozen=True):
    """What a month has of one book."""

    book: int
    month: date
    transfers: int
    requests: int
    first_seq: int | None
    last_seq: int | None
    first_batch: int | None
    last_batch: int | None


class LedgerMonthAccount(Struct, frozen=True):
    """What a month did to the counters of an account."""

    book: int
    month: date
    account: int
    debits_pending: int
    debits_posted: int
    credits_pending: int
    credits_posted: int
    touches: int
    last_seq: int
    last_transfer: UUID


class Partition(Struct, frozen=True):
    """One partition; the default one takes what no month takes. ``rows`` is an estimate."""

    parent: str
    name: str
    bounds: str
    rows: int
    bytes: int


class ArchivedTotal(Struct, frozen=True):
    """What all archived months together did to the counters of an account."""

    account: int
    debits_pending: int
    debits_posted: int
    credits_pending: int
    credits_posted: int
    touches: int


class OpeningAccount(Struct, frozen=True):
    """What an account had come to where the journal that is here becomes complete."""

    account: int
    debits_pending: int
    debits_posted: int
    credits_pending: int
    credits_posted: int
    touches: int
    last_transfer: UUID


class Cut(Struct, frozen=True):
    """The last commit that has something in the archive."""

    batch: int
    seq: int


class Opening(Struct, frozen=True):
    """A book after the last commit that has something in the archive.

    Every transfer after ``seq`` and every answer after ``batch`` is here. ``holds`` are those that
    were open then and that transfers from there on end, or that still are; ``holds_begun`` counts
    all that began by then.
    """

    batch: int
    seq: int
    accounts: tuple[OpeningAccount, ...]
    holds: tuple[LedgerHold, ...]
    holds_begun: int


class MonthUnreadable(Invalid):
    """The text is no month."""

    code = "archive.month_unreadable"
    advice = "Write the month as 2026-11."
    advice_zh = "请按 2026-11 的格式填写月份。"


class MonthTooYoung(Conflict):
    """The month ended too recently: captures and refunds of its payments may still come."""

    code = "archive.month_too_young"
    advice = "Archive it later; the date is given."
    advice_zh = "该月份结束不久，仍可能有后续分录，请在给定日期之后归档。"


class MonthOutOfTurn(Conflict):
    """An earlier month is not sealed yet."""

    code = "archive.month_out_of_turn"
    advice = "Seal the earliest month first: the ids of all earlier ones are refused with it."
    advice_zh = "请先封存更早的月份。"


class MonthHasOpenHolds(Conflict):
    """A hold that began in the month or before has not ended."""

    code = "archive.month_has_open_holds"
    advice = "Post or void the hold first; expired ones end by themselves within a minute."
    advice_zh = "该月份仍有未终结的预授权，请先完成或撤销。"


class MonthHasOpenMovements(Conflict):
    """Money that left a book in the month or before has not arrived in the other one."""

    code = "archive.month_has_open_movements"
    advice = "Let the movement arrive or return first: its second leg has an id of the same time."
    advice_zh = "该月份仍有跨账本在途资金，请待其到账或退回后再归档。"


class MonthNotProven(Conflict):
    """Vouchers or signed checkpoints have not come as far as the month's last transfer."""

    code = "archive.month_not_proven"
    advice = "Let the worker finish vouchers and checkpoints; it is behind by the batches given."
    advice_zh = "总账凭证或签名检查点尚未覆盖该月份，请稍后再试。"


class BookNotSound(Rejected):
    """Verifying found a breach: nothing is moved before a person has looked."""

    code = "archive.book_not_sound"
    advice = "Run `tongbao ledger verify` and look at the breach first."
    advice_zh = "账本校验不一致，请先运行 tongbao ledger verify 并处理。"


class MonthNotSealed(Conflict):
    """The month is not sealed, so rows may still come."""

    code = "archive.month_not_sealed"
    advice = "Seal the month first."
    advice_zh = "请先封存该月份。"


class MonthInDefault(Conflict):
    """The month has no partition of its own, because its first rows came before one was made."""

    code = "archive.month_in_default"
    advice = "It stays where it is; keep the worker running, which makes partitions ahead."
    advice_zh = "该月份没有独立分区，无法归档；请保持 worker 运行以提前创建分区。"


class MonthNotArchived(NotFound):
    """The month's rows are not in the archive."""

    code = "archive.month_not_archived"
    advice = "`tongbao db partitions` says which months are."
    advice_zh = "该月份未归档，可用 tongbao db partitions 查看。"


class ArchiveFileDiffers(Rejected):
    """A file of the archive is not what was written, or its rows are not those of the month."""

    code = "archive.file_differs"
    advice = "Nothing was changed. Get the file from a backup, or archive to another disk."
    advice_zh = "归档文件与记录不符，未做任何更改，请从备份取回文件或更换磁盘。"


def first_of(moment: datetime | date) -> date:
    """Return the month that a moment lies in."""
    if isinstance(moment, datetime):
        moment = moment.astimezone(UTC).date()
    return moment.replace(day=1)


def month_after(month: date, count: int = 1) -> date:
    """Return the month so many months later."""
    years, zero_based = divmod(month.month - 1 + count, 12)
    return date(month.year + years, zero_based + 1, 1)


def lowest_id(month: date) -> UUID:
    """Return what every id of the month is at least, and no id of an earlier one reaches."""
    start = datetime(month.year, month.month, 1, tzinfo=UTC)
    return UUID(int=int(start.timestamp() * 1000) << 80)


def partition_of(parent: str, month: date) -> str:
    """Return the name of a month's partition."""
    return f"{parent}_{month:%Y_%m}"


def parse_month(text: str) -> date:
    """Return the month that ``2026-11`` names.

    Raises:
        MonthUnreadable
    """
    try:
        return date.fromisoformat(f"{text}-01")
    except ValueError:
        raise MonthUnreadable(given=text) from None


def check_age(month: date, now: datetime) -> None:
    """Raise unless the month ended long enough ago (real time).

    Raises:
        MonthTooYoung
    """
    from_then = month_after(month) + AGE_MIN
    if now.astimezone(UTC).date() < from_then:
        raise MonthTooYoung(month=f"{month:%Y-%m}", from_then=from_then.isoformat())
