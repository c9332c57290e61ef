"""The SQL of disputes and their evidence; nothing outside this package reads their tables."""

from __future__ import annotations

from typing import Final

from tongbao.clearing.disputes.model import Dispute, DisputeChange, EvidenceFile, Owing, Term
from tongbao.infra.db import Query, Statement

_DISPUTE: Final = """book, id, payment_id, attempt_id, merchant_id, mode, account_id, scheme,
    scheme_ref, reason_code, reason, state, amount, currency, held, owed, at_scheme, fee,
    deadline_at, at_end, term_source, reminded, submitted_at, answer, opened_at, ended_at,
    version"""
_CHANGE: Final = "book, dispute_id, version, from_state, to_state, why, actor, at"
_FILE: Final = """book, id, merchant_id, mode, subject_id, name, media_type, size, sha256, blob,
    added_by, added_at"""

INSERT_DISPUTE = Statement(
    f"""insert into dispute ({_DISPUTE})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                $19, $20, $21, $22, $23, $24, $25, $26, $27)
        on conflict (book, account_id, scheme_ref) do nothing"""
)
# Compare and set: whoever decided on an older version touches no row and decides again.
UPDATE_DISPUTE = Statement(
    """update dispute
          set state = $4, held = $5, owed = $6, at_scheme = $7, deadline_at = $8, at_end = $9,
              term_source = $10, reminded = $11, submitted_at = $12, answer = $13,
              ended_at = $14, version = version + 1
        where book = $1 and id = $2 and version = $3"""
)
INSERT_CHANGE = Statement(
    f"insert into dispute_change ({_CHANGE}) values ($1, $2, $3, $4, $5, $6, $7, $8)"
)
TERM_OF = Query(
    Term,
    """select scheme, stage, in_force, days, at_end, source, quality from dispute_term
        where scheme = $1 and stage = $2 and in_force <= $3
        order by in_force desc limit 1""",
)
TERMS = Query(
    Term,
    """select scheme, stage, in_force, days, at_end, source, quality from dispute_term
        order by scheme, stage, in_force""",
)
PUT_TERM = Statement(
    """insert into dispute_term (scheme, stage, in_force, days, at_end, source, quality)
        values ($1, $2, $3, $4, $5, $6, $7)
        on conflict (scheme, stage, in_force) do nothing"""
)
GET_DISPUTE = Query(Dispute, f"select {_DISPUTE} from dispute where book = $1 and id = $2")
FIND_DISPUTE = Query(
    Dispute, f"select {_DISPUTE} from dispute where id = $1 and merchant_id = $2 and mode = $3"
)
FIND_DISPUTE_ANYWHERE = Query(Dispute, f"select {_DISPUTE} from dispute where id = $1")
FIND_BY_REF = Query(
    Dispute,
    f"select {_DISPUTE} from dispute where book = $1 and account_id = $2 and scheme_ref = $3",
)
DISPUTES_OF_PAYMENT = Query(
    Dispute, f"select {_DISPUTE} from dispute where payment_id = $1 order by id"
)
# One list for the API (its merchant and mode) and the console (both null: everyone's).
LIST_DISPUTES = Query(
    Dispute,
    f"""select {_DISPUTE} from dispute
         where ($1::uuid is null or merchant_id = $1) and ($2::text is null or mode = $2)
           and ($3::text is null or state = $3) and ($4::uuid is null or payment_id = $4)
           and ($5::text is null or scheme_ref = $5) and ($6::text is null or scheme = $6)
           and ($7::timestamptz is null or (ended_at is null and deadline_at < $7))
           and ($8::uuid is null or id < $8)
         order by id desc limit $9""",
)
CHANGES_OF = Query(
    DisputeChange,
    f"""select {_CHANGE} from dispute_change where book = $1 and dispute_id = $2
         order by version""",
)
OWING = Query(
    Owing,
    """select distinct book, merchant_id, mode, currency from dispute
        where owed > 0 and ($1::uuid is null or merchant_id = $1)
        order by book, merchant_id, mode, currency""",
)

INSERT_FILE = Statement(
    f"""insert into evidence_file ({_FILE})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
        on conflict (book, subject_id, sha256) do nothing"""
)
FILES_OF = Query(
    EvidenceFile,
    f"select {_FILE} from evidence_file where book = $1 and subject_id = $2 order by id",
)
FIND_FILE_ANYWHERE = Query(EvidenceFile, f"select {_FILE} from evidence_file where id = $1")
