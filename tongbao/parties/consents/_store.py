"""The SQL of consents, grants and their payments; nothing outside this package reads it."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Query, Statement
from tongbao.parties.consents.model import (
    Authorisation,
    Consent,
    ConsentPayment,
    Lodged,
    PartnerAccess,
    PartnerToken,
)

_CONSENT: Final = (
    "id, partner_id, mode, kind, details, permissions, amount, currency, payee, payee_name, state,"
    " person_id, accounts, expires_at, created_at, decided_at, ended_at, ended_by, last_used_at,"
    " expiry_told_at"
)
_AUTHORISATION: Final = (
    "id, partner_id, consent_id, request_hash, redirect_uri, code_challenge, client_state, jkt,"
    " pushed_at, expires_at, browser_hash, person_id, chosen, message_code, code_hash,"
    " code_expires_at, code_used_at, ended_at, response_mode"
)
_GRANTED: Final = (
    "token_hash, kind, authorisation_id, partner_id, consent_id, jkt, issued_at, expires_at,"
    " revoked_at, x5t"
)
_PAYMENT: Final = (
    "book, consent_id, payment_id, partner_id, mode, payer, payee, amount, currency, paid_at"
)


class Claimed(Struct, frozen=True):
    """A wallet that is somebody's."""

    book: int
    wallet_id: UUID


INSERT_CONSENT: Final = Statement("""
    insert into open_consent
        (id, partner_id, mode, kind, details, permissions, amount, currency, payee, payee_name,
         state, accounts, expires_at, created_at)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'awaiting', '{}', $11, $12)""")
GET_CONSENT: Final = Query(Consent, f"select {_CONSENT} from open_consent where id = $1")
LOCK_CONSENT: Final = Query(
    Consent, f"select {_CONSENT} from open_consent where id = $1 for update"
)
CONSENTS_OF: Final = Query(
    Consent,
    f"""
    select {_CONSENT} from open_consent
     where person_id = $1 and ($2::uuid is null or id < $2)
     order by id desc
     limit $3""",
)
AUTHORISE: Final = Query(
    Consent,
    f"""
    update open_consent
       set state = 'authorised', person_id = $2, accounts = $3, decided_at = $4
     where id = $1 and state = 'awaiting' and expires_at > $4
    returning {_CONSENT}""",
)
REJECT: Final = Statement("""
    update open_consent set state = 'rejected', person_id = $2, decided_at = $3
     where id = $1 and state = 'awaiting'""")
REVOKE: Final = Statement("""
    update open_consent set state = 'revoked', ended_at = $2, ended_by = $3
     where id = $1 and state = 'authorised'""")
NOTE_USE: Final = Statement("""
    update open_consent set last_used_at = $2
     where id = $1 and (last_used_at is null or last_used_at < $3)""")
# What is locked is just ending in another way; the next round sees how.
TELL_EXPIRED: Final = Query(
    Consent,
    f"""
    update open_consent set expiry_told_at = $1
     where id in (select id from open_consent
                   where state = 'authorised' and expires_at <= $1 and expiry_told_at is null
                   order by expires_at
                   limit $2
                     for update skip locked)
    returning {_CONSENT}""",
)
GOOD_OF_PARTNER: Final = Query(
    Consent,
    f"""
    select {_CONSENT} from open_consent
     where partner_id = $1 and state = 'authorised' and expires_at > $2
       and ($3::uuid is null or id > $3)
     order by id
     limit $4""",
)
GOOD_OF_PERSON: Final = Query(
    Consent,
    f"""
    select {_CONSENT} from open_consent
     where person_id = $1 and state = 'authorised' and expires_at > $2
       and ($3::uuid is null or id > $3)
     order by id
     limit $4""",
)
CONSUME: Final = Statement("""
    update open_consent set state = 'consumed', ended_at = $2, ended_by = 'payment'
     where id = $1 and state = 'authorised' and expires_at > $2""")

PUSH: Final = Statement("""
    insert into authorisation
        (id, partner_id, consent_id, request_hash, redirect_uri, code_challenge, client_state, jkt,
         pushed_at, expires_at, response_mode, chosen)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, '{}')""")
OPEN: Final = Query(
    Authorisation,
    f"""
    update authorisation set browser_hash = $3, expires_at = $5
     where request_hash = $1 and partner_id = $2 and browser_hash is null and expires_at > $4
    returning {_AUTHORISATION}""",
)
OF_BROWSER: Final = Query(
    Authorisation,
    f"""
    select {_AUTHORISATION} from authorisation
     where browser_hash = $1 and ended_at is null and expires_at > $2""",
)
LOGGED_IN: Final = Statement("""
    update authorisation set person_id = $2
     where id = $1 and person_id is null and ended_at is null""")
CHOSE: Final = Statement("""
    update authorisation set chosen = $2, message_code = $3
     where id = $1 and person_id is not null and ended_at is null""")
END: Final = Statement("update authorisation set ended_at = $2 where id = $1 and ended_at is null")
GIVE_CODE: Final = Statement("""
    update authorisation set ended_at = $4, code_hash = $2, code_expires_at = $3
     where id = $1 and ended_at is null and code_hash is null""")
LOCK_CODE: Final = Query(
    Authorisation,
    f"select {_AUTHORISATION} from authorisation where code_hash = $1 for update",
)
USE_CODE: Final = Statement(
    "update authorisation set code_used_at = $2 where id = $1 and code_used_at is null"
)

INSERT_TOKEN: Final = Statement(f"""
    insert into partner_token ({_GRANTED})
    values ($1, $2, $3, $4, $5, $6, $7, $8, null, $9)""")
GET_TOKEN: Final = Query(
    PartnerToken, f"select {_GRANTED} from partner_token where token_hash = $1"
)
REVOKE_TOKEN: Final = Statement("""
    update partner_token set revoked_at = $2 where token_hash = $1 and revoked_at is null""")
REVOKE_TOKENS_OF: Final = Statement("""
    update partner_token set revoked_at = $2 where consent_id = $1 and revoked_at is null""")

CLAIM: Final = Statement("""
    insert into person_wallet (book, wallet_id, person_id, claimed_at) values ($1, $2, $3, $4)
    on conflict (book, wallet_id) do nothing""")
CLAIMED: Final = Query(
    Claimed,
    """
    select book, wallet_id from person_wallet
     where book = $1 and person_id = $2
     order by claimed_at""",
)
CLAIM_OF: Final = Query(
    Claimed,
    """
    select book, wallet_id from person_wallet
     where book = $1 and wallet_id = $2 and person_id = $3""",
)
# Changes nothing, and waits for whoever ends the claim; without the claim it touches no row.
STILL_CLAIMED: Final = Statement("""
    update person_wallet set person_id = $3
     where book = $1 and wallet_id = $2 and person_id = $3""")
FORGET_CLAIMS: Final = Statement("delete from person_wallet where book = $1 and person_id = $2")

INSERT_PAYMENT: Final = Statement(f"""
    insert into consent_payment ({_PAYMENT}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
    on conflict do nothing""")
GET_PAYMENT: Final = Query(
    ConsentPayment, f"select {_PAYMENT} from consent_payment where book = $1 and consent_id = $2"
)

PAYMENT_WITH_ID: Final = Query(
    ConsentPayment, f"select {_PAYMENT} from consent_payment where book = $1 and payment_id = $2"
)

LET_IN: Final = Statement("""
    insert into partner_access (token_hash, partner_id, scope, jkt, issued_at, expires_at, x5t)
    values ($1, $2, $3, $4, $5, $6, $7)""")
GET_ACCESS: Final = Query(
    PartnerAccess,
    """
    select token_hash, partner_id, scope, jkt, issued_at, expires_at, x5t from partner_access
     where token_hash = $1""",
)
KEEP_LODGED: Final = Statement("""
    insert into lodged_consent (partner_id, key_hash, body_hash, consent_id)
    values ($1, $2, $3, $4)
    on conflict (partner_id, key_hash) do nothing""")
GET_LODGED: Final = Query(
    Lodged,
    """
    select body_hash, consent_id from lodged_consent where partner_id = $1 and key_hash = $2""",
)

PRUNE_ACCESS: Final = Statement("delete from partner_access where expires_at < $1")
PRUNE_TOKENS: Final = Statement("delete from partner_token where expires_at < $1")
PRUNE_AUTHORISATIONS: Final = Statement("""
    delete from authorisation
     where expires_at < $1
       and not exists
           (select 1 from partner_token token where token.authorisation_id = authorisation.id)""")
