"""The SQL of wallets as a service; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from tongbao.infra.db import Query, Statement
from tongbao.parties.user_wallets.model import Programme, Proposal, Sitting, WalletApplication

_PROGRAMME: Final = (
    "id, merchant_id, mode, name, account_class, grants, each_max, day_max, return_urls, state,"
    " created_at, changed_at"
)
_APPLICATION: Final = (
    "id, merchant_id, mode, user_ref, state, code, account_class, grants, each_max, day_max,"
    " used_day, used, person_id, account_id, version, created_at, expires_at, opened_at, ended_at,"
    " ended_by"
)
_PROPOSAL: Final = (
    "id, merchant_id, mode, application_id, proposal_no, kind, amount, currency, payee_id,"
    " payment_code, purpose, state, code, person_id, account_id, card_id, level, counted_day,"
    " order_id, version, created_at, expires_at, decided_at, ended_at, carried_at"
)
_SITTING: Final = (
    "id, merchant_id, mode, application_id, proposal_id, purpose, return_url, browser_hash, device,"
    " contact_sealed, agreed, message_code, proved_at, person_id, card_id, created_at, expires_at,"
    " ended_at"
)

# Programmes
INSERT_PROGRAMME: Final = Query(
    Programme,
    f"""
    insert into wallet_programme ({_PROGRAMME})
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11)
        on conflict (merchant_id, mode) do nothing
    returning {_PROGRAMME}""",
)
SET_TERMS: Final = Query(
    Programme,
    f"""
    update wallet_programme
       set name = $2, account_class = $3, grants = $4, each_max = $5, day_max = $6,
           return_urls = $7, changed_at = $8
     where id = $1
    returning {_PROGRAMME}""",
)
LOCK_PROGRAMME: Final = Query(
    Programme,
    f"""
    select {_PROGRAMME} from wallet_programme
     where merchant_id = $1 and mode = $2 for no key update""",
)
LOCK_PROGRAMME_WITH_ID: Final = Query(
    Programme, f"select {_PROGRAMME} from wallet_programme where id = $1 for no key update"
)
PROGRAMME_OF: Final = Query(
    Programme,
    f"select {_PROGRAMME} from wallet_programme where merchant_id = $1 and mode = $2",
)
GET_PROGRAMME: Final = Query(Programme, f"select {_PROGRAMME} from wallet_programme where id = $1")
MOVE_PROGRAMME: Final = Query(
    Programme,
    f"""
    update wallet_programme set state = $3, changed_at = $4 where id = $1 and state = $2
    returning {_PROGRAMME}""",
)
PROGRAMMES: Final = Query(
    Programme,
    f"""
    select {_PROGRAMME} from wallet_programme
     where mode = $1 and ($2::text is null or state = $2)
     order by changed_at desc, id desc
     limit 200""",
)

# Applications
INSERT_APPLICATION: Final = Query(
    WalletApplication,
    f"""
    insert into wallet_application
        (id, merchant_id, mode, user_ref, state, account_class, grants, each_max, day_max, used,
         version, created_at, expires_at)
    values ($1, $2, $3, $4, 'created', $5, $6, $7, $8, 0, 1, $9, $10)
        on conflict (merchant_id, mode, user_ref) do nothing
    returning {_APPLICATION}""",
)
GET_APPLICATION: Final = Query(
    WalletApplication, f"select {_APPLICATION} from wallet_application where id = $1"
)
LOCK_APPLICATION: Final = Query(
    WalletApplication, f"select {_APPLICATION} from wallet_application where id = $1 for update"
)
OF_USER: Final = Query(
    WalletApplication,
    f"""
    select {_APPLICATION} from wallet_application
     where merchant_id = $1 and mode = $2 and user_ref = $3""",
)
APPLICATIONS: Final = Query(
    WalletApplication,
    f"""
    select {_APPLICATION} from wallet_application
     where merchant_id = $1 and mode = $2 and ($3::text is null or user_ref = $3)
       and ($4::text is null or state = $4) and ($5::uuid is null or id < $5)
     order by id desc
     limit $6""",
)
SEEN: Final = Query(
    WalletApplication,
    f"""
    select {_APPLICATION} from wallet_application
     where mode = $1 and ($2::uuid is null or merchant_id = $2)
       and ($3::text is null or user_ref = $3) and ($4::text is null or state = $4)
       and ($5::uuid is null or id < $5)
     order by id desc
     limit $6""",
)
OF_PERSON: Final = Query(
    WalletApplication,
    f"""
    select {_APPLICATION} from wallet_application
     where person_id = $1 and ($2::uuid is null or id < $2)
     order by id desc
     limit $3""",
)
# Asked for anew: what an earlier consent said is over, or it never came to one.
ASK: Final = Query(
    WalletApplication,
    f"""
    update wallet_application
       set state = 'created', code = null, account_class = $2, grants = $3, each_max = $4,
           day_max = $5, used = 0, used_day = null, person_id = null, account_id = null,
           expires_at = $6, opened_at = null, ended_at = null, ended_by = null,
           version = version + 1
     where id = $1 and state <> 'opened'
    returning {_APPLICATION}""",
)
BEGIN: Final = Query(
    WalletApplication,
    f"""
    update wallet_application set state = 'in_progress', version = version + 1
     where id = $1 and state = 'created'
    returning {_APPLICATION}""",
)
OPEN: Final = Query(
    WalletApplication,
    f"""
    update wallet_application
       set state = 'opened', person_id = $2, account_id = $3, opened_at = $4,
           version = version + 1
     where id = $1 and state in ('created', 'in_progress') and expires_at > $4
    returning {_APPLICATION}""",
)
REFUSE: Final = Query(
    WalletApplication,
    f"""
    update wallet_application set state = 'refused', code = $2, version = version + 1
     where id = $1 and state in ('created', 'in_progress')
    returning {_APPLICATION}""",
)
EXPIRE: Final = Query(
    WalletApplication,
    f"""
    update wallet_application set state = 'expired', version = version + 1
     where id = $1 and state in ('created', 'in_progress') and expires_at <= $2
    returning {_APPLICATION}""",
)
LEAVE: Final = Query(
    WalletApplication,
    f"""
    update wallet_application
       set state = 'ended', ended_at = $2, ended_by = $3, version = version + 1
     where id = $1 and state = 'opened'
    returning {_APPLICATION}""",
)
# Of who never opened a wallet the merchant's name goes, its digest stays, and so does the row. One
# that was asked for anew is as old as that: so the end counts beside the id, and nothing is passed
# over ($2), which the index makes cheap.
ERASE_UNOPENED: Final = Query(
    UUID,
    """
    with old as materialized (
        select id from wallet_application
         where $1::int = 0 and $2::uuid is not null and id < $3 and $5::text <> ''
           and state in ('refused', 'expired') and user_ref not like 'erased:%'
           and expires_at < to_timestamp(
                   ('x' || left(replace($3::text, '-', ''), 12))::bit(48)::bigint / 1000)
         order by id limit $4 for update)
    update wallet_application a
       set user_ref = 'erased:' || left(encode(sha256(convert_to(a.user_ref, 'UTF8')), 'hex'), 57)
      from old
     where a.id = old.id
    returning a.id""",
)
# What was confirmed on a day and has not failed stays within the person's own limits.
COUNT_USE: Final = Query(
    WalletApplication,
    f"""
    update wallet_application
       set used = case when used_day >= $2 then used else 0 end + $3,
           used_day = greatest(used_day, $2)
     where id = $1 and state = 'opened' and $3 <= each_max
       and case when used_day >= $2 then used else 0 end + $3 <= day_max
    returning {_APPLICATION}""",
)
GIVE_USE_BACK: Final = Statement("""
    update wallet_application set used = greatest(used - $3, 0)
     where id = $1 and used_day = $2""")

# Links and the browsers that have them open
LINKS_SINCE: Final = Query(
    int,
    """
    select count(*)::int from wallet_session where application_id = $1 and created_at > $2""",
)
INSERT_LINK: Final = Statement("""
    insert into wallet_session
        (id, merchant_id, mode, application_id, proposal_id, purpose, return_url, link_hash, agreed,
         created_at, expires_at)
    values ($1, $2, $3, $4, $5, $6, $7, $8, '[]', $9, $10)""")
END_OTHERS: Final = Statement("""
    update wallet_session set ended_at = $4, contact_sealed = null
     where application_id = $1 and purpose = $2 and proposal_id is not distinct from $3
       and ended_at is null""")
END_ALL: Final = Statement("""
    update wallet_session set ended_at = $2, contact_sealed = null
     where application_id = $1 and ended_at is null""")
LINKED: Final = Query(
    Sitting,
    f"""
    select {_SITTING} from wallet_session
     where link_hash = $1 and ended_at is null and expires_at > $2""",
)
SIT_DOWN: Final = Query(
    Sitting,
    f"""
    update wallet_session set browser_hash = $2, device = $3, expires_at = $5
     where link_hash = $1 and browser_hash is null and ended_at is null and expires_at > $4
    returning {_SITTING}""",
)
OF_BROWSER: Final = Query(
    Sitting,
    f"""
    select {_SITTING} from wallet_session
     where browser_hash = $1 and ended_at is null and expires_at > $2""",
)
SENT_CODE: Final = Statement("""
    update wallet_session
       set contact_sealed = $2, agreed = $3::text::jsonb, message_code = $4, proved_at = null
     where id = $1 and person_id is null and ended_at is null""")
SENT_AGAIN: Final = Statement("""
    update wallet_session set message_code = $2, card_id = $3, proved_at = null
     where id = $1 and person_id is not null and ended_at is null""")
FORGET_PHONE: Final = Statement("""
    update wallet_session set message_code = null, proved_at = null, contact_sealed = null
     where id = $1 and person_id is null and ended_at is null""")
PROVED: Final = Statement("""
    update wallet_session set proved_at = $3
     where id = $1 and message_code = $2 and proved_at is null and ended_at is null""")
ENTERED: Final = Statement("""
    update wallet_session set person_id = $2, contact_sealed = null
     where id = $1 and person_id is null and ended_at is null""")
END: Final = Statement("""
    update wallet_session set ended_at = $2, contact_sealed = null
     where id = $1 and ended_at is null""")
PRUNE: Final = Statement("delete from wallet_session where expires_at < $1")
FORGET_SITTINGS: Final = Statement("""
    update wallet_session set ended_at = coalesce(ended_at, $2), contact_sealed = null,
           person_id = null
     where person_id = $1""")

# Proposals
INSERT_PROPOSAL: Final = Query(
    Proposal,
    f"""
    insert into wallet_proposal
        (id, merchant_id, mode, application_id, proposal_no, kind, amount, currency, payee_id,
         payment_code, purpose, state, person_id, account_id, version, created_at, expires_at)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'awaiting', $12, $13, 1, $14, $15)
        on conflict (merchant_id, mode, proposal_no) do nothing
    returning {_PROPOSAL}""",
)
GET_PROPOSAL: Final = Query(Proposal, f"select {_PROPOSAL} from wallet_proposal where id = $1")
PROPOSALS: Final = Query(
    Proposal,
    f"""
    select {_PROPOSAL} from wallet_proposal
     where merchant_id = $1 and mode = $2 and ($3::uuid is null or application_id = $3)
       and ($4::text is null or state = $4) and ($5::text is null or proposal_no = $5)
       and ($6::uuid is null or id < $6)
     order by id desc
     limit $7""",
)
PROPOSALS_OF_PERSON: Final = Query(
    Proposal,
    f"select {_PROPOSAL} from wallet_proposal where person_id = $1 order by id desc limit 10000",
)
AGREE: Final = Query(
    Proposal,
    f"""
    update wallet_proposal
       set state = 'processing', level = $2, card_id = $3, counted_day = $4, decided_at = $5,
           version = version + 1
     where id = $1 and state = 'awaiting' and expires_at > $5
    returning {_PROPOSAL}""",
)
CARRY: Final = Statement("""
    update wallet_proposal set carried_at = $2
     where id = $1 and state = 'processing' and carried_at is null""")
CLOSE_PROPOSAL: Final = Query(
    Proposal,
    f"""
    update wallet_proposal
       set state = $3, code = $4, order_id = $5, ended_at = $6, version = version + 1
     where id = $1 and state = $2
       and ($3 <> 'failed' or $5::uuid is not null or carried_at is null)
    returning {_PROPOSAL}""",
)
EXPIRE_PROPOSAL: Final = Query(
    Proposal,
    f"""
    update wallet_proposal set state = 'expired', ended_at = $2, version = version + 1
     where id = $1 and state = 'awaiting' and expires_at <= $2
    returning {_PROPOSAL}""",
)
AWAITING_OF: Final = Query(
    Proposal,
    f"""
    select {_PROPOSAL} from wallet_proposal
     where application_id = $1 and state = 'awaiting' order by id""",
)
