"""The SQL of approvals; nothing outside this package reads the table."""

from __future__ import annotations

from typing import Final

from tongbao.controls.approvals.model import Approval, ApprovalAgreement, SecondCheck
from tongbao.infra.db import Query, Statement

_APPROVAL: Final = """id, act, subject, merchant_id, mode, terms, digest, reason, maker, made_at,
    expires_at, state, checker, decided_at, note, ended_at, code, superseded_by"""

INSERT = Query(
    Approval,
    f"""
    insert into approval ({_APPROVAL})
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'proposed',
            null, null, null, null, null, null)
        on conflict (act, subject) where state in ('proposed', 'approved') do nothing
    returning {_APPROVAL}""",
)
GET = Query(Approval, f"select {_APPROVAL} from approval where id = $1")
LOCK = Query(Approval, f"select {_APPROVAL} from approval where id = $1 for update")
LOCK_OPEN = Query(
    Approval,
    f"""
    select {_APPROVAL} from approval
     where act = $1 and subject = $2 and state in ('proposed', 'approved')
       for update""",
)
OPEN_OF = Query(
    Approval,
    f"""
    select {_APPROVAL} from approval
     where act = $1 and subject = $2 and state in ('proposed', 'approved')""",
)
OPEN_ABOUT = Query(
    Approval,
    f"""
    select {_APPROVAL} from approval
     where act = any($1::text[]) and subject = any($2::text[])
       and state in ('proposed', 'approved')
     order by id""",
)
DECIDE = Query(
    Approval,
    f"""
    update approval
       set state = $2, checker = $3, decided_at = $4::timestamptz, note = $5,
           ended_at = case when $2::text = 'rejected' then $4::timestamptz end
     where id = $1 and state = 'proposed'
    returning {_APPROVAL}""",
)
GIVE_UP = Query(
    Approval,
    f"""
    update approval set state = $2, ended_at = $3, note = $4, superseded_by = $5
     where id = $1 and state = 'proposed'
    returning {_APPROVAL}""",
)
APPLIED = Statement(
    "update approval set state = 'applied', ended_at = $2 where id = $1 and state = 'approved'"
)
FAIL = Query(
    Approval,
    f"""
    update approval set state = 'failed', ended_at = $2, code = $3
     where id = $1 and state = 'approved'
    returning {_APPROVAL}""",
)
PAGE = Query(
    Approval,
    f"""
    select {_APPROVAL} from approval
     where ($1::text[] is null or state = any($1))
       and ($2::text is null or act = $2)
       and ($3::text is null or maker = $3)
       and ($4::text is null or subject = $4)
       and ($5::uuid is null or id < $5)
     order by id desc
     limit $6""",
)
# The newest that has begun comes first, of each currency.
SECOND_CHECKS = Query(
    SecondCheck,
    """
    select act, currency, valid_from, amount_from, known_from, approval_id from second_check
     where act = $1 and valid_from <= $2
     order by currency, valid_from desc, known_from desc""",
)
ADD_SECOND_CHECK = Statement(
    """insert into second_check
           (act, currency, valid_from, amount_from, known_from, approval_id)
       values ($1, $2, $3, $4, $5, $6)"""
)
AGREEMENT = Query(
    ApprovalAgreement,
    "select approval_id, checker, agreed_at, note from approval_agreement where approval_id = $1",
)
AGREE = Statement(
    """insert into approval_agreement (approval_id, checker, agreed_at, note)
       values ($1, $2, $3, $4)"""
)
COUNT_FOR = Query(
    int,
    """
    select count(*) from approval
     where state = 'proposed' and maker <> $1 and act = any($2::text[]) and expires_at > $3""",
)
