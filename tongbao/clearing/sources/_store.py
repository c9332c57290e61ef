"""The SQL of sources and their files; nothing outside this package reads or writes their tables."""

from __future__ import annotations

from datetime import date, datetime
from typing import Final

from msgspec import Struct

from tongbao.clearing.sources.model import Source, SourceFault, SourceFile
from tongbao.infra.db import Query, Statement

_SOURCE: Final = "name, mode, layout, added_by, added_at"
_FILE: Final = """id, source, day, version, sha256, size, state, code, row_count, fault_count,
    money_in, money_out, fees, currency, taken_by, began_at, ended_at"""
ROW_COLUMNS: Final = (
    "file_id", "place", "line", "kind", "number", "ref", "batch", "amount", "fee", "currency",
    "at", "state",
)  # fmt: skip
FAULT_COLUMNS: Final = ("file_id", "place", "line", "code", "text")

ADD_SOURCE = Statement(
    f"insert into source ({_SOURCE}) values ($1, $2, $3, $4, $5) on conflict do nothing"
)
GET_SOURCE = Query(Source, f"select {_SOURCE} from source where name = $1")
SOURCES = Query(Source, f"select {_SOURCE} from source order by name")
LOCK_SOURCE = Query(Source, f"select {_SOURCE} from source where name = $1 for update")

# The newest word on the latest day up to a day, of what had been said when a file was begun.
LAYOUT_ON = Query(
    str,
    """select layout from source_layout
         where source = $1 and valid_from <= $2 and ($3::timestamptz is null or set_at <= $3)
         order by valid_from desc, set_at desc limit 1""",
)
ADD_LAYOUT = Statement(
    """insert into source_layout (source, valid_from, set_at, layout, written, approved_as)
        values ($1, $2, $3, $4, $5, $6)"""
)


class DatedLayout(Struct, frozen=True):
    """One row of source_layout: from which day on a source's files are read how."""

    source: str
    valid_from: date
    set_at: datetime
    layout: str
    written: str
    approved_as: str


LAYOUTS = Query(
    DatedLayout,
    """select source, valid_from, set_at, layout, written, approved_as from source_layout
         where source = $1 order by valid_from desc, set_at desc limit 100""",
)

ADD_FILE = Query(
    SourceFile,
    f"""insert into source_file ({_FILE})
        select $1, $2, $3,
               (select coalesce(max(version), 0) + 1 from source_file
                 where source = $2 and day = $3),
               $4, $5, 'reading', '', 0, 0, 0, 0, 0, $6, $7, $8, null
        on conflict (source, sha256) do nothing
        returning {_FILE}""",
)
FILE_WITH_DIGEST = Query(
    SourceFile, f"select {_FILE} from source_file where source = $1 and sha256 = $2"
)
GET_FILE = Query(SourceFile, f"select {_FILE} from source_file where id = $1")
LOCK_FILE = Query(SourceFile, f"select {_FILE} from source_file where id = $1 for update")
FILES = Query(
    SourceFile,
    f"""select {_FILE} from source_file
         where ($1::text is null or source = $1) and ($2::uuid is null or id < $2)
         order by id desc limit $3""",
)
CURRENT_FILE = Query(
    SourceFile,
    f"select {_FILE} from source_file where source = $1 and day = $2 and state = 'complete'",
)
SUPERSEDE = Statement(
    """update source_file set state = 'superseded'
        where source = $1 and day = $2 and state = 'complete' and id <> $3"""
)
END_FILE = Statement(
    """update source_file
          set state = $2, code = $3, row_count = $4, fault_count = $5, money_in = $6,
              money_out = $7, fees = $8, ended_at = $9
        where id = $1 and state = 'reading'"""
)


class ChunkDigest(Struct, frozen=True):
    """A chunk that is there, and what stands in it."""

    place: int
    row_count: int
    sha256: str


CHUNKS = Query(
    ChunkDigest,
    "select place, row_count, sha256 from source_chunk where file_id = $1 order by place",
)
ADD_CHUNK = Statement(
    """insert into source_chunk (file_id, place, first_row, row_count, sha256)
        values ($1, $2, $3, $4, $5) on conflict do nothing"""
)
FAULTS = Query(
    SourceFault,
    "select line, code, text from source_line_fault where file_id = $1 order by place limit $2",
)


FAULTS_PAGE = Query(
    SourceFault,
    """select line, code, text from source_line_fault
         where file_id = $1 order by place offset $2 limit $3""",
)


class StatementRow(Struct, frozen=True):
    """A row of a complete file, as matching reads it."""

    place: int
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


ROWS = Query(
    StatementRow,
    """select place, line, kind, number, ref, batch, amount, fee, currency, at, state
         from source_row where file_id = $1 order by place""",
)
ROWS_PAGE = Query(
    StatementRow,
    """select place, line, kind, number, ref, batch, amount, fee, currency, at, state
         from source_row where file_id = $1 and place >= $2 order by place limit $3""",
)
