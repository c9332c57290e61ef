"""The SQL of visits; nothing outside this package reads it."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Query, Statement


class ConsentVisit(Struct, frozen=True):
    """One row of the table: a browser, known by the hash of its cookie, and who sits there."""

    browser_hash: bytes
    person_id: UUID
    message_code: UUID
    started_at: datetime
    expires_at: datetime
    proved_at: datetime | None


_VISIT: Final = "browser_hash, person_id, message_code, started_at, expires_at, proved_at"

BEGIN: Final = Statement("""
    insert into consent_visit (browser_hash, person_id, message_code, started_at, expires_at)
    values ($1, $2, $3, $4, $5)""")
OF_BROWSER: Final = Query(
    ConsentVisit,
    f"select {_VISIT} from consent_visit where browser_hash = $1 and expires_at > $2",
)
PROVED: Final = Statement("""
    update consent_visit set proved_at = $2, expires_at = $3
     where browser_hash = $1 and proved_at is null and expires_at > $2""")
END: Final = Statement("delete from consent_visit where browser_hash = $1")
FORGET: Final = Statement("delete from consent_visit where person_id = $1")
PRUNE: Final = Statement("delete from consent_visit where expires_at < $1")
