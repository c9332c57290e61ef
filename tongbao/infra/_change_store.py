"""The SQL of what was changed since a process asked; nothing but `changes` reads this table."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Query, Statement


class Change(Struct, frozen=True):
    """A mark with the oldest transaction that was under way when it was read.

    The mark is None in the only row where there is none.
    """

    horizon: int
    what: str | None
    of_id: UUID | None
    version: int | None


MARK: Final = Statement("""
    insert into change_mark as m (what, of_id, version, changed_in)
    values ($1, $2, 1, pg_current_xact_id()::text::bigint)
        on conflict (what, of_id) do update
       set version = m.version + 1, changed_in = excluded.changed_in""")
# What a snapshot could not see is of transactions that are not older than its oldest one under way.
CHANGES: Final = Query(
    Change,
    """
    select s.horizon, m.what, m.of_id, m.version
      from (select pg_snapshot_xmin(pg_current_snapshot())::text::bigint as horizon) s
      left join change_mark m on m.changed_in >= $1""",
)
