"""The SQL of blobs on their way; nothing outside this package reads the table."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement

BEGIN: Final = Statement("insert into blob_upload (name, begun_at) values ($1, $2)")
# Whoever names a blob and whoever takes it away change the same row: one of the two does.
NAME: Final = Statement("delete from blob_upload where name = $1 and dying_at is null")
CONDEMN: Final = Query(
    str,
    """
    update blob_upload set dying_at = coalesce(dying_at, $2)
     where name in (select name from blob_upload
                     where begun_at < $1 or dying_at is not null
                     order by begun_at limit $3
                       for update skip locked)
    returning name""",
)
DISOWN: Final = Statement("""
    insert into blob_upload (name, begun_at, dying_at)
    select name, $2, $2 from unnest($1::text[]) name""")
FORGET: Final = Statement("delete from blob_upload where name = any($1::text[])")
