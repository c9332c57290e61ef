"""The SQL of applications, their documents and signatures; nothing outside reads these tables."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Query, Statement
from tongbao.kernel.licence import Mode
from tongbao.parties.onboarding.model import Application, Document


class Alike(Struct, frozen=True):
    """How many other applications of a mode name the same firm, person or account."""

    firms_under_way: int
    firms: int
    persons: int
    accounts: int


class MerchantTerms(Struct, frozen=True):
    """One version of the terms merchants agree to."""

    version: int
    title: str
    sha256: bytes
    content: str
    in_force_from: datetime
    published_by: str
    published_at: datetime


class Signature(Struct, frozen=True):
    """Who agreed to which version, when, and how that can be shown."""

    application_id: UUID
    version: int
    merchant_id: UUID
    mode: Mode
    sha256: bytes
    signer_masked: str
    signer_sealed: bytes
    evidence: dict[str, Any]
    signed_by: str
    signed_at: datetime


_APPLICATION: Final = (
    "id, merchant_id, mode, application_no, state, form, masked, personal_sealed, credit_blind,"
    " person_blind, account_blind, findings, note, version, opened_merchant_id, key_id,"
    " key_shown_at, created_at, submitted_at, ended_at"
)
_DOCUMENT: Final = (
    "id, application_id, merchant_id, mode, kind, media_type, size, sha256, blob_key, added_at,"
    " added_by, replaced_at"
)
_TERMS: Final = "version, title, sha256, content, in_force_from, published_by, published_at"
_SIGNATURE: Final = (
    "application_id, version, merchant_id, mode, sha256, signer_masked, signer_sealed, evidence,"
    " signed_by, signed_at"
)

INSERT_APPLICATION: Final = Query(
    Application,
    f"""
    insert into application ({_APPLICATION})
    values ($1, $2, $3, $4, 'draft', $5, $6, $7, $8, $9, $10, '[]', null, 1, null, null, null,
            $11, null, null)
        on conflict (merchant_id, mode, application_no) do nothing
    returning {_APPLICATION}""",
)
GET_APPLICATION: Final = Query(Application, f"select {_APPLICATION} from application where id = $1")
LOCK_APPLICATION: Final = Query(
    Application, f"select {_APPLICATION} from application where id = $1 for update"
)
FIND_APPLICATION: Final = Query(
    Application,
    f"""
    select {_APPLICATION} from application
     where merchant_id = $1 and mode = $2 and application_no = $3""",
)
APPLICATION_OF_MERCHANT: Final = Query(
    Application, f"select {_APPLICATION} from application where opened_merchant_id = $1"
)
AMEND_APPLICATION: Final = Query(
    Application,
    f"""
    update application
       set form = $2, masked = $3, personal_sealed = $4, credit_blind = $5, person_blind = $6,
           account_blind = $7, version = version + 1
     where id = $1
    returning {_APPLICATION}""",
)
MOVE_APPLICATION: Final = Query(
    Application,
    f"""
    update application
       set state = $2, note = $3, findings = $4, opened_merchant_id = $5, key_id = $6,
           submitted_at = $7, ended_at = $8, version = version + 1
     where id = $1
    returning {_APPLICATION}""",
)
TOUCH_APPLICATION: Final = Statement("update application set version = version + 1 where id = $1")
SHOW_KEY: Final = Query(
    Application,
    f"""
    update application set key_shown_at = $2, version = version + 1
     where id = $1 and key_shown_at is null and key_id is not null
    returning {_APPLICATION}""",
)
LIST_APPLICATIONS: Final = Query(
    Application,
    f"""
    select {_APPLICATION} from application
     where ($1::uuid is null or merchant_id = $1)
       and ($2::text is null or mode = $2)
       and ($3::text is null or state = $3)
       and ($4::text is null or application_no = $4
            or form -> 'firm' ->> 'legal_name' = $4
            or form -> 'firm' ->> 'credit_code' = $4)
       and ($5::timestamptz is null or created_at >= $5)
       and ($6::timestamptz is null or created_at < $6)
       and ($7::uuid is null or id < $7)
     order by id desc
     limit $8""",
)
ALIKE: Final = Query(
    Alike,
    """
    select count(*) filter (where credit_blind = $3
                              and state in ('submitted', 'forwarded', 'opened')) as firms_under_way,
           count(*) filter (where credit_blind = $3) as firms,
           count(*) filter (where person_blind = $4) as persons,
           count(*) filter (where account_blind = $5) as accounts
      from application
     where mode = $1 and id <> $2
       and (credit_blind = $3 or person_blind = $4 or account_blind = $5)""",
)

REPLACE_DOCUMENT: Final = Statement("""
    update application_document set replaced_at = $3
     where application_id = $1 and kind = $2 and replaced_at is null""")
INSERT_DOCUMENT: Final = Query(
    Document,
    f"""
    insert into application_document ({_DOCUMENT})
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, null)
    returning {_DOCUMENT}""",
)
DOCUMENTS: Final = Query(
    Document,
    f"""
    select {_DOCUMENT} from application_document
     where application_id = $1 and replaced_at is null
     order by kind""",
)
GET_DOCUMENT: Final = Query(
    Document, f"select {_DOCUMENT} from application_document where id = $1 and application_id = $2"
)

# Of who never became a merchant: what is said of persons goes, its digests stay, and so does what
# is said of the firm. A draft that nobody sent in for so long is withdrawn by that. Its end counts
# beside the id, and nothing is passed over ($2), which the index makes cheap.
ERASE_UNOPENED: Final = Query(
    UUID,
    """
    with old as materialized (
        select id from application
         where $1::int = 0 and $2::uuid is not null and id < $3 and $5::text <> ''
           and state in ('draft', 'declined', 'withdrawn') and octet_length(personal_sealed) > 32
           and coalesce(ended_at, submitted_at, created_at) < to_timestamp(
                   ('x' || left(replace($3::text, '-', ''), 12))::bit(48)::bigint / 1000)
         order by id limit $4 for update)
    update application a
       set personal_sealed = sha256(a.personal_sealed),
           masked = (select jsonb_object_agg(field, 'erased')
                       from jsonb_object_keys(a.masked) field),
           person_blind = sha256(a.person_blind), account_blind = sha256(a.account_blind),
           note = case when a.note is not null then 'erased' end,
           state = case when a.state = 'draft' then 'withdrawn' else a.state end,
           ended_at = coalesce(a.ended_at, $5::timestamptz), version = version + 1
      from old
     where a.id = old.id
    returning a.id""",
)
ERASE_DOCUMENTS: Final = Query(
    str,
    """
    with old as materialized (
        select id, blob_key from application_document
         where application_id = any($1::uuid[]) and blob_key <> 'erased' for update)
    update application_document d set blob_key = 'erased'
      from old
     where d.id = old.id
    returning old.blob_key""",
)
ERASE_SIGNATURES: Final = Statement("""
    update term_signature
       set signer_masked = 'erased', signer_sealed = sha256(signer_sealed),
           evidence = jsonb_build_object(
               'erased_sha256', encode(sha256(convert_to(evidence::text, 'UTF8')), 'hex'))
     where application_id = any($1::uuid[])""")

INSERT_TERMS: Final = Query(
    MerchantTerms,
    f"""
    insert into merchant_term ({_TERMS}) values ($1, $2, $3, $4, $5, $6, $7)
        on conflict do nothing
    returning {_TERMS}""",
)
LAST_TERMS: Final = Query(int, "select coalesce(max(version), 0) as version from merchant_term")
TERMS_AT: Final = Query(
    MerchantTerms,
    f"""
    select {_TERMS} from merchant_term where in_force_from <= $1 order by version desc limit 1""",
)
SIGN: Final = Query(
    Signature,
    f"""
    insert into term_signature ({_SIGNATURE}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        on conflict (application_id, version) do nothing
    returning {_SIGNATURE}""",
)
SIGNATURES: Final = Query(
    Signature,
    f"select {_SIGNATURE} from term_signature where application_id = $1 order by version desc",
)
