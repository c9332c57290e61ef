"""The SQL of card numbers' beginnings; nothing outside this package reads the table."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement
from tongbao.parties.card_bins.model import BinRow

_ROW: Final = "prefix, length, issuer, kind, source"

NEAR: Final = Query(
    BinRow,
    f"""
    select {_ROW} from card_bin
     where length = $3 and (prefix = any($1::text[]) or left(prefix, 6) = $2)""",
)
ALL_ROWS: Final = Query(BinRow, f"select {_ROW} from card_bin order by prefix, length")
PUT_ROWS: Final = Statement("""
    insert into card_bin (prefix, length, issuer, kind, source, loaded_at)
    select asked.prefix, asked.length, asked.issuer, asked.kind, $5, $6
      from unnest($1::text[], $2::int[], $3::text[], $4::text[])
        as asked (prefix, length, issuer, kind)
        on conflict (prefix, length) do update
       set issuer = excluded.issuer, kind = excluded.kind, source = excluded.source,
           loaded_at = excluded.loaded_at""")
