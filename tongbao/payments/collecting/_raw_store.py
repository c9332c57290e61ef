"""The SQL that erases what channels were asked about payments, when its term is over or earlier."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from tongbao.controls.retention.erasing import erasing
from tongbao.infra.db import Query, Statement

ERASE_EXCHANGES: Final = Query(UUID, erasing("exchange"))
ERASE_EXCHANGES_OF: Final = Statement("""
    update exchange e
       set request = 'erased ' || $3 || ' sha256='
               || encode(sha256(convert_to(e.request, 'UTF8')), 'hex'),
           reply = 'erased ' || $3 || ' sha256='
               || encode(sha256(convert_to(e.reply, 'UTF8')), 'hex')
     where book = $1 and payment_id = $2 and request not like 'erased % sha256=%'""")
