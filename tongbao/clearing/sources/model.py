"""What a layout says of a file, and what a file says once it is read. No I/O.

file   reading ─► complete   every row, and the file's own count and sums, as it says
          └─────► refused    it is not what its layout says; nothing of it counts
complete ─► superseded       a corrected file of the same source and day took its place
"""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import Final, Literal
from uuid import UUID

from msgspec import Struct

from tongbao.kernel.errors import Conflict, Invalid, NotFound, Rejected
from tongbao.kernel.licence import Mode

BYTES_MAX: Final = 8 * 1024**3
ROWS_MAX: Final = 50_000_000
NAME: Final = r"[a-z0-9][a-z0-9_.]{1,63}"

Format = Literal["delimited", "fixed", "xml", "xlsx", "mt940", "channel"]
Sign = Literal["as_written", "positive", "negative", "flipped", "by_word"]


class Field(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a value stands and how it is written.

    ``column`` is a column's name (or its number from one, where the file names none); in a file of
    fixed width it is ``start`` (from nought) and ``width``, in characters of the decoded line, or
    in bytes where the layout says so; in XML it is a path below the row's element, ``@`` for an
    attribute. Several columns are tried in turn: the first that is there and not empty counts.
    """

    column: str = ""
    columns: tuple[str, ...] = ()
    start: int = 0
    width: int = 0
    default: str | None = None
    strip: str = ""  # characters taken off both ends, blanks always
    scale: int = 2  # decimals of an amount; 0 means minor units already
    format: str = ""  # of a time, as strptime has it; "excel" counts days since 1899-12-30

    @property
    def places(self) -> tuple[str, ...]:
        """The columns to look into, in order."""
        return (self.column, *self.columns) if self.column else self.columns


class Fields(Struct, frozen=True, forbid_unknown_fields=True):
    """The values that make a row. Without ``credit`` and ``debit``, ``amount`` is asked for."""

    number: Field
    at: Field
    amount: Field | None = None
    credit: Field | None = None  # money in, in a column of its own
    debit: Field | None = None  # money out
    fee: Field | None = None
    currency: Field | None = None
    ref: Field | None = None
    state: Field | None = None
    word: Field | None = None  # says which way money went, or what kind of row it is
    batch: Field | None = None  # what the row is part of, for matching many with one
    owner: Field | None = None  # whose row it is: a merchant's or an account's number


class Kind(Struct, frozen=True, forbid_unknown_fields=True):
    """Rows whose ``word`` is one of these: what they are, and their sign.

    A word in no kind is a fault: it is not guessed at.
    """

    words: tuple[str, ...]
    kind: str
    sign: Sign = "as_written"
    skip: bool = False


class Trailer(Struct, frozen=True, forbid_unknown_fields=True):
    """What the file says of itself at its end, or in a line of its own.

    ``begins`` starts that line. With ``names_first`` it holds names, and the next line the values;
    else ``pattern`` has named groups out of ``count``, ``sum``, ``credit`` and ``debit``.
    ``sum`` is the signed sum of all rows, ``credit`` and ``debit`` of each direction, in the scale.
    """

    begins: str
    names_first: bool = False
    pattern: str = ""
    count: str = ""
    sum: str = ""
    credit: str = ""
    debit: str = ""
    scale: int = 2
    is_required: bool = True


class Layout(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How to read a source's files: data, checked when it is loaded.

    ``header`` starts the line with the columns' names; what stands before it is no row. Without
    one, ``names`` are the columns. ``row`` is the path of a row's element in XML, ``sheet`` a
    sheet's name in XLSX (empty: the first), ``member`` a part of the name of the file inside a zip.
    """

    name: str
    en: str
    zh: str
    format: Format
    encoding: Literal["utf-8", "gb18030"] = "utf-8"
    currency: str = "CNY"
    zone: str = "Asia/Shanghai"
    separator: str = ","
    quote: str = ""
    prefix: str = ""  # in front of every value
    header: str = ""
    names: tuple[str, ...] = ()
    comment: str = ""  # lines that begin so are no rows
    width_in_bytes: bool = False
    row: str = ""
    sheet: str = ""
    member: str = ""
    parser: str = ""  # of a channel, for the format "channel"
    fields: Fields | None = None
    kinds: tuple[Kind, ...] = ()
    sign: Sign = "as_written"
    trailer: Trailer | None = None
    bytes_max: int = BYTES_MAX
    rows_max: int = ROWS_MAX
    within_days: int = 3  # rows may be so far from the file's day; nought: any
    owners: tuple[str, ...] = ()  # whose rows or account a file may have; none: anybody's


class SourceRow(Struct, frozen=True):
    """One row of a file. Money in is positive, money out negative; the fee is what it cost."""

    line: int
    kind: str
    number: str
    ref: str
    batch: str
    amount: int
    fee: int
    currency: str
    at: datetime
    state: str


class SourceFault(Struct, frozen=True):
    """A line that cannot be read, or a figure of the trailer that the rows contradict."""

    line: int
    code: str
    text: str


class SourceTotal(Struct, frozen=True):
    """What the file says of itself, or of one part of it; None: nothing about that.

    ``opening`` and ``closing`` are balances, as a bank's statement has them: their difference is
    the sum of the rows since the total before. A total without figures says that the file is whole.
    ``account`` and ``day`` say whose balance ``closing`` is at the end of which day, where a bank's
    statement says so.
    """

    line: int
    count: int | None = None
    sum: int | None = None
    credit: int | None = None
    debit: int | None = None
    opening: int | None = None
    closing: int | None = None
    account: str = ""
    currency: str = ""
    day: date | None = None


class Closing(Struct, frozen=True):
    """What a bank's statement says that an account closed a day with, in hundredths."""

    account: str
    currency: str
    day: date
    amount: int


SourceLine = SourceRow | SourceFault | SourceTotal


class FileState(StrEnum):
    """How far a file is."""

    READING = "reading"
    COMPLETE = "complete"
    REFUSED = "refused"
    SUPERSEDED = "superseded"


class Source(Struct, frozen=True):
    """One row of source: somebody's statements, in a layout of ours or one that was added."""

    name: str
    mode: Mode
    layout: str  # JSON
    added_by: str
    added_at: datetime


class SourceFile(Struct, frozen=True):
    """One row of source_file. Its rows count when it is complete."""

    id: UUID
    source: str
    day: date
    version: int
    sha256: str
    size: int
    state: FileState
    code: str
    row_count: int
    fault_count: int
    money_in: int
    money_out: int
    fees: int
    currency: str
    taken_by: str
    began_at: datetime
    ended_at: datetime | None


class Completed(Struct, frozen=True):
    """A file that is read to its end: whose it is, and what it says that accounts closed with."""

    source: Source
    format: Format
    name: str
    file: SourceFile
    faults: int
    closings: list[Closing]


class LayoutWrong(Invalid):
    """The layout contradicts itself or leaves out what its format needs."""

    code = "source.layout_wrong"
    advice = "Correct the field that is named; docs/how-to/add-a-source.md shows every one."
    advice_zh = "请更正所指字段；全部字段见 docs/how-to/add-a-source.md。"


class SourceUnknown(NotFound):
    """There is no source of this name."""

    code = "source.unknown"
    advice = "List the sources, or add this one with its layout."
    advice_zh = "请先查看已有来源，或连同版式一并添加。"


class SourceTaken(Conflict):
    """A source of this name has another layout."""

    code = "source.taken"
    advice = "Choose another name: files that were read keep the layout they were read with."
    advice_zh = "请另取名称：已读取的文件保留其原版式。"


class FileUnknown(NotFound):
    """There is no such file."""

    code = "source.file_unknown"
    advice = "List the source's files to find its id."
    advice_zh = "文件不存在，请在来源的文件列表中查找。"


class FileSeenBefore(Conflict):
    """Exactly this file was taken in before, of this source."""

    code = "source.file_seen_before"
    advice = "Nothing to do; the file is there. A corrected file has another content."
    advice_zh = "该文件已导入过，无需处理；更正后的文件内容应有所不同。"


class FileRefused(Rejected):
    """The file is not what its layout says; nothing of it counts."""

    code = "source.file_refused"
    advice = "Look at the file's faults, and ask whoever sent it for a whole one."
    advice_zh = "请查看文件的错误明细，并向来源方索取完整文件。"
