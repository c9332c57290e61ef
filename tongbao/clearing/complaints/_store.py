"""The SQL of complaints; nothing outside this package reads their tables."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from tongbao.clearing.complaints.model import Complaint, Image, Message, Reply, ReplyImage
from tongbao.controls.retention.erasing import erasing
from tongbao.infra.db import Query, Statement

_COMPLAINT: Final = """book, id, merchant_id, mode, account_id, channel, channel_ref, payment_id,
    state, kind, detail, amount, currency, times, is_refunded, has_news, answer_by,
    complained_at, first_seen_at, ended_at, version"""
_MESSAGE: Final = "book, complaint_id, channel_ref, place, kind, who, text, image_count, at"
_REPLY: Final = """book, id, complaint_id, merchant_id, mode, kind, text, state, code, sends,
    sent_at, written_by, created_at, ended_at, version"""

_IMAGE: Final = """book, id, complaint_id, merchant_id, mode, channel_ref, message_ref, state,
    media_type, size, sha256, blob, seen_at, ended_at"""
_REPLY_IMAGE: Final = "book, reply_id, place, file_id, channel_ref"

INSERT_COMPLAINT = Statement(
    f"""insert into complaint ({_COMPLAINT})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                $19, $20, $21)
        on conflict (book, account_id, channel_ref) do nothing"""
)
UPDATE_COMPLAINT = Statement(
    """update complaint
          set state = $4, detail = $5, times = $6, is_refunded = $7, has_news = $8,
              answer_by = $9, ended_at = $10, version = version + 1
        where book = $1 and id = $2 and version = $3"""
)
INSERT_MESSAGE = Statement(
    f"""insert into complaint_message ({_MESSAGE}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        on conflict (book, complaint_id, channel_ref) do nothing"""
)
INSERT_REPLY = Statement(
    f"""insert into complaint_reply ({_REPLY})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)"""
)
# Counted before it leaves: whoever finds it counted asks before saying it again.
COUNT_SEND = Statement(
    """update complaint_reply set sends = sends + 1, sent_at = $4, version = version + 1
        where book = $1 and id = $2 and version = $3 and state in ('requested', 'unknown')"""
)
END_REPLY = Statement(
    """update complaint_reply
          set state = $4, code = $5, ended_at = $6, version = version + 1
        where book = $1 and id = $2 and version = $3 and state in ('requested', 'unknown')"""
)
INSERT_EXCHANGE = Statement(
    """insert into complaint_exchange (book, id, complaint_id, purpose, method, url, request,
                                       status, reply, duration_ms, outcome, at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"""
)
FIND_BY_REF = Query(
    Complaint,
    f"""select {_COMPLAINT} from complaint
         where book = $1 and account_id = $2 and channel_ref = $3""",
)
GET_COMPLAINT = Query(Complaint, f"select {_COMPLAINT} from complaint where book = $1 and id = $2")
FIND_COMPLAINT = Query(
    Complaint,
    f"select {_COMPLAINT} from complaint where id = $1 and merchant_id = $2 and mode = $3",
)
FIND_COMPLAINT_ANYWHERE = Query(Complaint, f"select {_COMPLAINT} from complaint where id = $1")
LIST_COMPLAINTS = Query(
    Complaint,
    f"""select {_COMPLAINT} from complaint
         where ($1::uuid is null or merchant_id = $1) and ($2::text is null or mode = $2)
           and ($3::text is null or state = $3) and ($4::uuid is null or payment_id = $4)
           and ($5::uuid is null or id < $5)
         order by id desc limit $6""",
)
COUNT_OVERDUE = Query(
    int,
    """select count(*)::int as n from complaint
        where ended_at is null and state = 'pending' and answer_by <= $1 and mode = $2""",
)
MESSAGES_OF = Query(
    Message,
    f"""select {_MESSAGE} from complaint_message where book = $1 and complaint_id = $2
         order by place, channel_ref""",
)
GET_REPLY = Query(Reply, f"select {_REPLY} from complaint_reply where book = $1 and id = $2")
REPLIES_OF = Query(
    Reply,
    f"select {_REPLY} from complaint_reply where book = $1 and complaint_id = $2 order by id",
)
INSERT_IMAGE = Statement(
    """insert into complaint_image (book, id, complaint_id, merchant_id, mode, channel_ref,
                                    message_ref, state, seen_at)
        values ($1, $2, $3, $4, $5, $6, $7, 'wanted', $8)
        on conflict (book, complaint_id, channel_ref) do nothing"""
)
END_IMAGE = Statement(
    """update complaint_image
          set state = $3, media_type = $4, size = $5, sha256 = $6, blob = $7, ended_at = $8
        where book = $1 and id = $2 and state = 'wanted'"""
)
IMAGES_OF = Query(
    Image,
    f"""select {_IMAGE} from complaint_image where book = $1 and complaint_id = $2
         order by seen_at, id""",
)
FIND_IMAGE = Query(
    Image,
    f"select {_IMAGE} from complaint_image where id = $1 and merchant_id = $2 and mode = $3",
)
INSERT_REPLY_IMAGE = Statement(
    f"insert into complaint_reply_image ({_REPLY_IMAGE}) values ($1, $2, $3, $4, null)"
)
SENT_UP = Statement(
    """update complaint_reply_image set channel_ref = $4
        where book = $1 and reply_id = $2 and place = $3"""
)
REPLY_IMAGES = Query(
    ReplyImage,
    f"""select {_REPLY_IMAGE} from complaint_reply_image where book = $1 and reply_id = $2
         order by place""",
)
ERASE_EXCHANGES: Final = Query(UUID, erasing("complaint_exchange"))
