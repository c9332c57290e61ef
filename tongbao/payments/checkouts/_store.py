"""The SQL of checkouts; nothing outside this package reads the table."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement
from tongbao.payments.checkouts.model import Checkout

_CHECKOUT: Final = """book, id, merchant_id, mode, token, plate_id, merchant_order_no, request_hash,
    amount, currency, subject, channels, return_url, metadata, payment_id, tries, called_off_at,
    created_at, expires_at, closed_at, terminal_id"""

INSERT_CHECKOUT = Statement(
    f"""insert into checkout ({_CHECKOUT})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                $19, $20, $21)
        on conflict (merchant_order_no, merchant_id, mode, book) do nothing"""
)
# Compare and set, in the commit that makes the payment: of two tabs one makes the try.
TAKE_TRY = Statement(
    """update checkout set tries = tries + 1, payment_id = $4
        where book = $1 and id = $2 and tries = $3 and called_off_at is null
          and closed_at is null"""
)
# Compare and set, against whoever makes another try at this moment.
CLOSE = Statement(
    """update checkout set closed_at = $4
        where book = $1 and id = $2 and tries = $3 and closed_at is null"""
)
CALL_OFF = Statement(
    """update checkout set called_off_at = $3
        where book = $1 and id = $2 and called_off_at is null"""
)
# What nobody ever tried to pay and no merchant gave a number: a plate makes one at every opening.
PRUNE_ABANDONED = Statement(
    """delete from checkout
        where payment_id is null and plate_id is not null and expires_at < $1"""
)
GET_CHECKOUT = Query(Checkout, f"select {_CHECKOUT} from checkout where book = $1 and id = $2")
FIND_CHECKOUT = Query(
    Checkout, f"select {_CHECKOUT} from checkout where id = $1 and merchant_id = $2 and mode = $3"
)
FIND_BY_TOKEN = Query(Checkout, f"select {_CHECKOUT} from checkout where token = $1")
FIND_BY_ORDER = Query(
    Checkout,
    f"""select {_CHECKOUT} from checkout
         where book = $1 and merchant_id = $2 and mode = $3 and merchant_order_no = $4""",
)
LIST_CHECKOUTS = Query(
    Checkout,
    f"""select {_CHECKOUT} from checkout
         where merchant_id = $1 and mode = $2 and ($3::text is null or merchant_order_no = $3)
           and ($4::uuid is null or id < $4)
         order by id desc limit $5""",
)
CREATED_SINCE = Query(
    int,
    """select count(*) as checkouts
         from (select from checkout
                where merchant_id = $1 and created_at > $2 limit $3) as recent""",
)
CREATED_OF_PLATE_SINCE = Query(
    int,
    """select count(*) as checkouts
         from (select from checkout
                where plate_id = $1 and created_at > $2 limit $3) as recent""",
)
