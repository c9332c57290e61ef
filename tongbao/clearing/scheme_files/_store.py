"""The SQL of schemes' files; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final

from tongbao.clearing.scheme_files.model import SchemeFile, SchemeFileRow
from tongbao.infra.db import Query, Statement

_FILE: Final = (
    "id, account_id, scheme, name, sha256, layout, row_count, taken_by, began_at, ended_at"
)
_ROW: Final = "file_id, line, scheme_ref, trade, outcome, dispute_id, at"

BEGIN: Final = Statement(f"""
    insert into scheme_file ({_FILE}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, null)
        on conflict (account_id, sha256) do nothing""")
FIND: Final = Query(
    SchemeFile, f"select {_FILE} from scheme_file where account_id = $1 and sha256 = $2"
)
END: Final = Statement("update scheme_file set ended_at = $2 where id = $1 and ended_at is null")
FILES: Final = Query(SchemeFile, f"select {_FILE} from scheme_file order by id desc limit $1")
# What was nobody's trade may be somebody's the next time; what was taken stays.
PUT_ROW: Final = Statement(f"""
    insert into scheme_file_row ({_ROW}) values ($1, $2, $3, $4, $5, $6, $7)
        on conflict (file_id, line) do update
       set outcome = excluded.outcome, dispute_id = excluded.dispute_id, at = excluded.at
     where scheme_file_row.outcome <> 'taken'""")
ROWS: Final = Query(
    SchemeFileRow, f"select {_ROW} from scheme_file_row where file_id = $1 order by line"
)
