"""The SQL of sealing keys; nothing outside this package reads the table."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement
from tongbao.infra.kms.model import Left, SealingKey, SealingKind

_KEY: Final = """id, merchant_id, mode, purpose, month, cipher, master_key, wrapped, created_at,
    rewrapped_at, destroyed_at, destroyed_by, destroyed_because"""

INSERT: Final = Query(
    SealingKey,
    f"""
    insert into sealing_key ({_KEY})
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, null, null, null, null)
    on conflict do nothing
    returning {_KEY}""",
)
GET: Final = Query(SealingKey, f"select {_KEY} from sealing_key where id = $1")
FIND: Final = Query(
    SealingKey,
    f"""
    select {_KEY} from sealing_key
     where purpose = $3 and month = $4 and destroyed_at is null
       and merchant_id is not distinct from $1 and mode is not distinct from $2""",
)
LIST: Final = Query(
    SealingKey,
    f"""
    select {_KEY} from sealing_key where ($1::uuid is null or id < $1) order by id desc limit $2""",
)
LOCK_OLD: Final = Query(
    SealingKey,
    f"""
    select {_KEY} from sealing_key where master_key <> $1 and wrapped is not null
     order by id limit $2 for update""",
)
REWRAP: Final = Statement("""
    update sealing_key set wrapped = $2, master_key = $3, rewrapped_at = $4
     where id = $1 and wrapped is not null""")
COUNT_LEFT: Final = Query(
    Left,
    """
    select count(*) filter (where master_key <> $1) as waiting, count(*) as all_of_them
      from sealing_key where wrapped is not null""",
)
KINDS: Final = Query(
    SealingKind,
    """
    select purpose, count(*)::int as keys,
           (count(*) filter (where destroyed_at is not null))::int as destroyed,
           min(created_at) filter (where destroyed_at is null) as oldest,
           max(created_at) as newest,
           (count(*) filter (where destroyed_at is null and master_key <> $1))::int as to_rewrap
      from sealing_key group by purpose order by purpose""",
)
DESTROY: Final = Query(
    SealingKey,
    f"""
    update sealing_key
       set wrapped = null, destroyed_at = $2, destroyed_by = $3, destroyed_because = $4
     where id = $1 and wrapped is not null
    returning {_KEY}""",
)
