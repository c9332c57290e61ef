"""The SQL of the request log; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from tongbao.infra.db import Query, Statement
from tongbao.infra.request_log.model import Line
from tongbao.kernel.licence import Mode


class LogTerm(Struct, frozen=True):
    """How many days lines are kept in a mode, and why."""

    mode: Mode
    days: int
    because: str


_LINE: Final = (
    "merchant_id, mode, id, key_id, at, method, route, status, code, duration_us, target, body,"
    " answer, is_whole"
)
# Behind the answer and for reading only: what is there already stays as it is.
INSERT_LINE: Final = Statement(
    f"""
    insert into request_line ({_LINE})
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        on conflict do nothing""",
    many=f"""
    insert into request_line ({_LINE})
    select {_LINE}
      from unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::timestamptz[], $6::text[],
                  $7::text[], $8::int[], $9::text[], $10::bigint[], $11::text[], $12::text[],
                  $13::text[], $14::boolean[])
        as t ({_LINE})
        on conflict do nothing""",
)
GET_LINE: Final = Query(
    Line,
    f"select {_LINE} from request_line where merchant_id = $1 and mode = $2 and id = $3",
)
LIST_LINES: Final = Query(
    Line,
    f"""
    select {_LINE} from request_line
     where merchant_id = $1 and mode = $2
       and ($3::text is null or method = $3)
       and ($4::text is null or route = $4)
       and ($5::int is null or status = $5)
       and ($6::text is null or code = $6)
       and ($7::uuid is null or key_id = $7)
       and ($8::timestamptz is null or at >= $8)
       and ($9::timestamptz is null or at < $9)
       and ($10::uuid is null or id < $10)
     order by id desc limit $11""",
)
DAYS_KEPT: Final = Query(
    int,
    """
    select days from request_log_term
     where mode = $1 and valid_from <= $2 order by valid_from desc limit 1""",
)
TERMS_AT: Final = Query(
    LogTerm,
    """
    select mode, days, because from request_log_term t
     where valid_from = (select max(valid_from) from request_log_term
                          where mode = t.mode and valid_from <= $1)
     order by mode""",
)
PRUNE: Final = Statement("""
    delete from request_line
     where (merchant_id, mode, id) in
           (select merchant_id, mode, id from request_line
             where mode = $1 and at < $2 order by at limit $3)""")
