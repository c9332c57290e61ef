"""The SQL of partners and of what they signed once; nothing outside this package reads it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from msgspec import Struct

from tongbao.infra.db import Query, Statement
from tongbao.parties.partners.model import Partner

_PARTNER: Final = (
    "id, mode, name, redirect_uris, jwks, kinds, state, taken_on_at, changed_at, auth_method,"
    " name_kind, certificate_name, binds_certificate, signs_requests"
)

_KEY: Final = "kid, sealed, public_jwk, created_at, retires_at"


class MessageKey(Struct, frozen=True):
    """One row of the table of keys that sign our answers; the private half is sealed."""

    kid: str
    sealed: bytes
    public_jwk: dict[str, Any]
    created_at: datetime
    retires_at: datetime | None


INSERT: Final = Statement(
    f"insert into partner ({_PARTNER})"
    " values ($1, $2, $3, $4, $5, $6, 'active', $7, $7, $8, $9, $10, $11, $12)"
)
GET: Final = Query(Partner, f"select {_PARTNER} from partner where id = $1")
LOCK: Final = Query(Partner, f"select {_PARTNER} from partner where id = $1 for update")
LIST: Final = Query(Partner, f"select {_PARTNER} from partner order by id desc limit $1")
FIND: Final = Query(
    Partner,
    f"""
    select {_PARTNER} from partner
     where ($1::text is null or state = $1) and ($2::text is null or mode = $2)
       and ($3::uuid is null or id < $3)
     order by id desc
     limit $4""",
)
CHANGE: Final = Statement("""
    update partner
       set name = $2, redirect_uris = $3, jwks = $4, kinds = $5, state = $6, changed_at = $7,
           auth_method = $9, name_kind = $10, certificate_name = $11, binds_certificate = $12,
           signs_requests = $13
     where id = $1 and changed_at = $8""")
SUSPEND: Final = Query(
    Partner,
    f"""
    update partner set state = 'suspended', changed_at = $2 where id = $1 and state = 'active'
    returning {_PARTNER}""",
)
KEY_IN_USE: Final = Query(MessageKey, f"select {_KEY} from message_key where retires_at is null")
KEYS_PUBLISHED: Final = Query(
    MessageKey,
    f"""
    select {_KEY} from message_key
     where retires_at is null or retires_at > $1
     order by created_at desc, kid desc""",
)
INSERT_KEY: Final = Statement("""
    insert into message_key (kid, sealed, public_jwk, created_at) values ($1, $2, $3, $4)
    on conflict do nothing""")
RETIRE_KEYS: Final = Statement("update message_key set retires_at = $1 where retires_at is null")
USE_TOKEN: Final = Statement("""
    insert into seen_token (signer, jti, expires_at) values ($1, $2, $3)
    on conflict (signer, jti) do nothing""")
PRUNE_TOKENS: Final = Statement("delete from seen_token where expires_at < $1")
