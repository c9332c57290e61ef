"""The SQL of master keys and their ceremonies; nothing outside this package reads the tables."""

from __future__ import annotations

from typing import Final

from tongbao.controls.keys.model import Ceremony, NotedKey
from tongbao.infra.db import Query, Statement

_CEREMONY: Final = """id, approval_id, state, opened_at, first_custodian, first_check, first_at,
    component_sealed, second_custodian, second_check, closed_at, master_key, certificate, signature
"""
_NOTED: Final = "id, provider, version, algorithm, noted_at, expires_at, ceremony_id"

OPEN: Final = Statement("""
    insert into key_ceremony (id, approval_id, state, opened_at) values ($1, $2, 'open', $3)
    on conflict do nothing""")
LOCK: Final = Query(Ceremony, f"select {_CEREMONY} from key_ceremony where id = $1 for update")
LIST: Final = Query(
    Ceremony, f"select {_CEREMONY} from key_ceremony order by opened_at desc, id limit $1"
)
FIRST: Final = Query(
    Ceremony,
    f"""
    update key_ceremony
       set first_custodian = $2, first_check = $3, first_at = $4, component_sealed = $5
     where id = $1 and state = 'open' and first_custodian is null
    returning {_CEREMONY}""",
)
COMPLETE: Final = Query(
    Ceremony,
    f"""
    update key_ceremony
       set state = 'complete', second_custodian = $2, second_check = $3, closed_at = $4,
           component_sealed = null, master_key = $5, certificate = $6, signature = $7
     where id = $1 and state = 'open'
    returning {_CEREMONY}""",
)
ABANDON: Final = Query(
    Ceremony,
    f"""
    update key_ceremony set state = 'abandoned', closed_at = $2, component_sealed = null
     where id = $1 and state = 'open'
    returning {_CEREMONY}""",
)
NOTE: Final = Statement(f"""
    insert into master_key ({_NOTED}) values ($1, $2, $3, $4, $5, $6, $7)
    on conflict (id) do nothing""")
NOTED: Final = Query(NotedKey, f"select {_NOTED} from master_key order by version desc, id")
