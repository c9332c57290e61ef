"""The SQL of authentication; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement
from tongbao.parties.authentication.model import (
    Authenticator,
    CertificateAnchor,
    Challenge,
    ClientCertificate,
    Confirmation,
    KnownList,
    MessageCode,
    Passkey,
    Password,
    StepUpRule,
)

_CODE: Final = (
    "id, mode, blind, purpose, act_digest, code_hash, tries, created_at, expires_at, used_at"
)
_AUTHENTICATOR: Final = "id, owner_id, kind, suite, name, sealed, moved, state, created_at"
_PASSKEY: Final = (
    "id, owner_id, credential_id, public_key, sign_count, may_be_backed_up, is_backed_up, name,"
    " aaguid, state, created_at, used_at"
)
_CHALLENGE: Final = "id, owner_id, purpose, nonce, act_digest, expires_at, used_at"
_ANCHOR: Final = "id, name, fingerprint, der, crl_der, crl_until, added_at, added_by, ended_at"
_CERTIFICATE: Final = "id, owner_id, fingerprint, chain, serial_number, not_after, state, bound_at"
_CONFIRMATION: Final = (
    "id, owner_id, session_hash, act_digest, act, level, proved, tries, created_at, expires_at,"
    " used_at"
)

# Passwords
GET_PASSWORD: Final = Query(
    Password, "select owner_id, hash, set_at from password where owner_id = $1"
)
# Whoever sets another one meanwhile waits, and whoever has set one is seen.
HOLD_PASSWORD: Final = Query(str, "select hash from password where owner_id = $1 for share")
SET_PASSWORD: Final = Statement("""
    insert into password (owner_id, hash, set_at) values ($1, $2, $3)
        on conflict (owner_id) do update set hash = excluded.hash, set_at = excluded.set_at""")
KEEP_BEFORE: Final = Statement("""
    insert into password_before (owner_id, set_at, hash) values ($1, $2, $3)
        on conflict do nothing""")
BEFORE: Final = Query(
    str, "select hash from password_before where owner_id = $1 order by set_at desc limit $2"
)
FORGET_PASSWORD: Final = Statement("delete from password where owner_id = $1")
FORGET_BEFORE: Final = Statement("delete from password_before where owner_id = $1")
TRIM_BEFORE: Final = Statement("""
    delete from password_before
     where owner_id = $1 and set_at < (select min(kept.set_at)
                                         from (select before.set_at from password_before before
                                                where before.owner_id = $1
                                                order by before.set_at desc limit $2) kept)""")

# Codes in messages
INSERT_CODE: Final = Statement("""
    insert into message_code (id, mode, blind, purpose, act_digest, code_hash, tries, created_at,
                              expires_at)
    values ($1, $2, $3, $4, $5, $6, 0, $7, $8)""")
# A try is counted before it is judged, so a burst of guesses in parallel gets no more than five.
COUNT_CODE_TRY: Final = Query(
    MessageCode,
    f"""
    update message_code set tries = tries + 1
     where id = $1 and used_at is null and expires_at > $2 and tries < $3
    returning {_CODE}""",
)
USE_MESSAGE_CODE: Final = Statement(
    "update message_code set used_at = $2 where id = $1 and used_at is null"
)
# One more in this period, unless it has had all it may.
TAKE_ALLOWANCE: Final = Statement("""
    insert into code_allowance (subject, period_s, starts_at, used) values ($1, $2, $3, 1)
        on conflict (subject, period_s, starts_at)
        do update set used = code_allowance.used + 1 where code_allowance.used < $4""")
GIVE_ALLOWANCE_BACK: Final = Statement(
    "delete from code_allowance where subject = $1 and period_s = $2"
)
PRUNE_CODES: Final = Statement("delete from message_code where expires_at < $1")
PRUNE_ALLOWANCES: Final = Statement("delete from code_allowance where starts_at < $1")

# Authenticators
INSERT_AUTHENTICATOR: Final = Query(
    Authenticator,
    f"""
    insert into authenticator ({_AUTHENTICATOR}) values ($1, $2, $3, $4, $5, $6, $7, 'new', $8)
    returning {_AUTHENTICATOR}""",
)
GET_AUTHENTICATOR: Final = Query(
    Authenticator,
    f"select {_AUTHENTICATOR} from authenticator where id = $1 and owner_id = $2",
)
AUTHENTICATORS: Final = Query(
    Authenticator,
    f"""
    select {_AUTHENTICATOR} from authenticator
     where owner_id = $1 and state <> 'ended' order by id""",
)
# What was used only grows: of two uses of one code, the second touches no row.
MOVE_AUTHENTICATOR: Final = Statement("""
    update authenticator set moved = $2, state = 'active'
     where id = $1 and moved < $2 and state = $3""")
END_AUTHENTICATOR: Final = Statement("""
    update authenticator set state = 'ended', sealed = ''
     where id = $1 and owner_id = $2 and state <> 'ended'""")
FORGET_AUTHENTICATORS: Final = Statement("delete from authenticator where owner_id = $1")

# Passkeys
INSERT_PASSKEY: Final = Query(
    Passkey,
    f"""
    insert into passkey ({_PASSKEY})
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'active', $10, null)
        on conflict do nothing
    returning {_PASSKEY}""",
)
FIND_PASSKEY: Final = Query(Passkey, f"select {_PASSKEY} from passkey where credential_id = $1")
PASSKEYS: Final = Query(
    Passkey,
    f"select {_PASSKEY} from passkey where owner_id = $1 and state <> 'ended' order by id",
)
COUNT_PASSKEY: Final = Statement("""
    update passkey set sign_count = $2, is_backed_up = $3, used_at = $4
     where id = $1 and state = 'active' and (sign_count < $2 or (sign_count = 0 and $2 = 0))""")
SUSPECT_PASSKEY: Final = Statement(
    "update passkey set state = 'suspect' where id = $1 and state = 'active'"
)
END_PASSKEY: Final = Statement("""
    update passkey set state = 'ended' where id = $1 and owner_id = $2 and state <> 'ended'""")
FORGET_PASSKEYS: Final = Statement("delete from passkey where owner_id = $1")

# Challenges
INSERT_CHALLENGE: Final = Query(
    Challenge,
    f"""
    insert into challenge (id, owner_id, purpose, nonce, act_digest, expires_at)
    values ($1, $2, $3, $4, $5, $6)
    returning {_CHALLENGE}""",
)
# It is used by the first answer, right or wrong.
USE_CHALLENGE: Final = Query(
    Challenge,
    f"""
    update challenge set used_at = $3
     where id = $1 and purpose = $2 and used_at is null and expires_at > $3
    returning {_CHALLENGE}""",
)
PRUNE_CHALLENGES: Final = Statement("delete from challenge where expires_at < $1")

# Certificates
INSERT_ANCHOR: Final = Query(
    CertificateAnchor,
    f"""
    insert into certificate_anchor (id, name, fingerprint, der, added_at, added_by)
    values ($1, $2, $3, $4, $5, $6)
        on conflict (fingerprint) do update set name = excluded.name, ended_at = null
    returning {_ANCHOR}""",
)
ANCHORS: Final = Query(
    CertificateAnchor,
    f"select {_ANCHOR} from certificate_anchor where ended_at is null order by id",
)
SET_CRL: Final = Statement("""
    update certificate_anchor set crl_der = $2, crl_until = $3
     where id = $1 and (crl_until is null or crl_until <= $3)""")
# An older list never takes the place of a newer one.
SET_LIST: Final = Statement("""
    insert into revocation_list as l (authority, anchor_id, crl_der, crl_until, added_at, added_by)
    values ($1, $2, $3, $4, $5, $6)
        on conflict (authority) do update
       set anchor_id = excluded.anchor_id, crl_der = excluded.crl_der,
           crl_until = excluded.crl_until, added_at = excluded.added_at,
           added_by = excluded.added_by
     where l.crl_until <= excluded.crl_until""")
LISTS: Final = Query(KnownList, "select authority, crl_der from revocation_list")
END_ANCHOR: Final = Statement(
    "update certificate_anchor set ended_at = $2 where id = $1 and ended_at is null"
)
INSERT_CERTIFICATE: Final = Query(
    ClientCertificate,
    f"""
    insert into client_certificate ({_CERTIFICATE}) values ($1, $2, $3, $4, $5, $6, 'active', $7)
        on conflict do nothing
    returning {_CERTIFICATE}""",
)
CERTIFICATES: Final = Query(
    ClientCertificate,
    f"""
    select {_CERTIFICATE} from client_certificate
     where owner_id = $1 and state = 'active' order by id""",
)
END_CERTIFICATE: Final = Statement("""
    update client_certificate set state = 'ended'
     where id = $1 and owner_id = $2 and state = 'active'""")
FORGET_CERTIFICATES: Final = Statement("delete from client_certificate where owner_id = $1")

# Step-up
RULES: Final = Query(
    StepUpRule,
    """
    select kind, currency, at_least, level, valid_from, instrument from step_up_rule
     where kind = $1 and currency = $2 order by at_least, valid_from""",
)
ALL_RULES: Final = Query(
    StepUpRule,
    """
    select kind, currency, at_least, level, valid_from, instrument from step_up_rule
     order by kind, currency, at_least, valid_from""",
)
ADD_RULE: Final = Statement("""
    insert into step_up_rule (kind, currency, at_least, level, valid_from, instrument)
    values ($1, $2, $3, $4, $5, $6)
        on conflict do nothing""")
# The same act asked for again finds its confirmation; one that is over begins anew.
OPEN_CONFIRMATION: Final = Query(
    Confirmation,
    f"""
    insert into confirmation (id, owner_id, session_hash, act_digest, act, level, proved, tries,
                              created_at, expires_at)
    values ($1, $2, $3, $4, $5, $6, '{{}}', 0, $7, $8)
        on conflict (session_hash, act_digest) where used_at is null
        do update set level = greatest(confirmation.level, excluded.level),
                      id = case when confirmation.expires_at > $7 then confirmation.id
                                else excluded.id end,
                      proved = case when confirmation.expires_at > $7 then confirmation.proved
                                    else excluded.proved end,
                      tries = case when confirmation.expires_at > $7 then confirmation.tries
                                   else 0 end,
                      expires_at = case when confirmation.expires_at > $7
                                        then confirmation.expires_at
                                        else excluded.expires_at end
    returning {_CONFIRMATION}""",
)
FIND_CONFIRMATION: Final = Query(
    Confirmation,
    f"""
    select {_CONFIRMATION} from confirmation
     where id = $1 and session_hash = $2 and used_at is null and expires_at > $3""",
)
COUNT_CONFIRMATION_TRY: Final = Statement("""
    update confirmation set tries = tries + 1
     where id = $1 and used_at is null and expires_at > $2 and tries < $3""")
ADD_PROOF: Final = Query(
    Confirmation,
    f"""
    update confirmation
       set proved = case when $2 = any (proved) then proved else array_append(proved, $2) end
     where id = $1 and used_at is null and expires_at > $3
    returning {_CONFIRMATION}""",
)
USE_CONFIRMATION: Final = Statement("""
    update confirmation set used_at = $2 where id = $1 and used_at is null and expires_at > $2""")
# Whom somebody confirmed something to is known from then on, by a digest.
PRUNE_CONFIRMATIONS: Final = Statement("""
    with gone as (
        delete from confirmation where expires_at < $1 returning owner_id, act, used_at)
    insert into step_up_payee (owner_id, payee)
    select distinct owner_id, sha256(convert_to(owner_id::text || (act->>'payee'), 'UTF8'))
      from gone where used_at is not null and act->>'payee' <> ''
        on conflict do nothing""")
KNOWS_PAYEE: Final = Query(
    bool,
    """
    select exists (select from step_up_payee where owner_id = $1
                      and payee = sha256(convert_to($1::text || $2::text, 'UTF8')))
        or exists (select from confirmation
                    where owner_id = $1 and used_at is not null and act->>'payee' = $2::text)
        as known""",
)
FAILED_PROOFS: Final = Query(
    int,
    """
    select coalesce(sum(greatest(tries - cardinality(proved), 0)), 0)::int as failed
      from confirmation where owner_id = $1 and created_at >= $2""",
)
FORGET_CONFIRMATIONS: Final = Statement("delete from confirmation where owner_id = $1")
FORGET_PAYEES: Final = Statement("delete from step_up_payee where owner_id = $1")
