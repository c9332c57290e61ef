"""The SQL of notices; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement
from tongbao.parties.notices.model import NoticeChoice, PhoneToken

_PHONE: Final = "mode, blind, device_id, person_id, sealed, set_at"

# An app on a phone is one person's at a time: whoever was told there before is not any more.
SET_TOKEN: Final = Statement("""
    insert into person_push_token (mode, blind, device_id, person_id, sealed, set_at)
    values ($1, $2, $3, $4, $5, $6)
        on conflict (mode, blind) do update
       set device_id = excluded.device_id, person_id = excluded.person_id,
           sealed = excluded.sealed, set_at = excluded.set_at""")
FORGET_TOKEN: Final = Statement("delete from person_push_token where device_id = $1")
TOKENS: Final = Query(
    PhoneToken,
    f"""
    select {_PHONE} from person_push_token
     where person_id = $1 order by set_at desc, device_id""",
)
FORGET_TOKENS: Final = Statement("delete from person_push_token where person_id = $1")

CHOOSE: Final = Statement("""
    insert into person_notice_choice (person_id, topic, wanted, set_at) values ($1, $2, $3, $4)
        on conflict (person_id, topic) do update
       set wanted = excluded.wanted, set_at = excluded.set_at""")
CHOICES: Final = Query(
    NoticeChoice,
    """
    select person_id, topic, wanted, set_at from person_notice_choice
     where person_id = $1 order by topic""",
)
FORGET_CHOICES: Final = Statement("delete from person_notice_choice where person_id = $1")
