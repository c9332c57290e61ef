"""The SQL of cases; nothing outside this package reads or writes their table."""

from __future__ import annotations

from typing import Final

from tongbao.clearing.cases.model import ReconCase
from tongbao.infra.db import Query, Statement

_CASE: Final = "break_id, owner, taken_at"

CASES = Query(ReconCase, f"select {_CASE} from recon_case where break_id = any($1::uuid[])")
TAKE = Statement(
    f"""insert into recon_case ({_CASE}) values ($1, $2, $3)
        on conflict (break_id) do update set owner = excluded.owner, taken_at = excluded.taken_at
         where recon_case.owner = excluded.owner or $4::bool"""
)
LEAVE = Statement("delete from recon_case where break_id = $1 and owner = $2")
