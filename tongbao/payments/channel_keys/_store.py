"""The SQL of keys that wait for approval; nothing outside this package reads the table."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement

PUT: Final = Statement("insert into channel_keys_waiting (id, sealed, put_at) values ($1, $2, $3)")
TAKE: Final = Query(bytes, "delete from channel_keys_waiting where id = $1 returning sealed")
"""Once the keys are applied, or never will be, nobody has them here."""
