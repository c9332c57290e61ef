"""The SQL of plates; nothing outside this package reads the table."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query
from tongbao.payments.plates.model import Plate

_PLATE: Final = """id, merchant_id, mode, token, name, subject, amount, currency, emv_text,
    created_at, revoked_at"""

INSERT_PLATE = Query(
    Plate,
    f"""insert into plate ({_PLATE}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, null)
        returning {_PLATE}""",
)
REVOKE_PLATE = Query(
    Plate,
    f"""update plate set revoked_at = coalesce(revoked_at, $4)
         where id = $1 and merchant_id = $2 and mode = $3
        returning {_PLATE}""",
)
FIND_PLATE = Query(
    Plate, f"select {_PLATE} from plate where id = $1 and merchant_id = $2 and mode = $3"
)
FIND_BY_TOKEN = Query(Plate, f"select {_PLATE} from plate where token = $1")
LIST_PLATES = Query(
    Plate,
    f"""select {_PLATE} from plate
         where merchant_id = $1 and mode = $2 and ($3::uuid is null or id < $3)
         order by id desc limit $4""",
)
