"""The SQL of the façade; nothing outside this folder reads these tables."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement
from tongbao.surfaces.jeepay.model import JeepayApp, JeepayNotice, JeepayOrder, JeepayRefund

_APP: Final = (
    "id, merchant_id, mode, mch_no, app_id, notify_by, secret_sealed, secret_tail, created_at,"
    " disabled_at"
)
_ORDER: Final = (
    "merchant_id, mode, mch_order_no, app, request_hash, kind, target, way_code, currency, subject,"
    " body, client_ip, notify_url, ext_param, shown_as, created_at"
)
_REFUND: Final = (
    "merchant_id, mode, mch_refund_no, app, request_hash, refund_id, order_target, currency,"
    " notify_url, ext_param, created_at"
)
_NOTICE: Final = (
    "id, event_id, merchant_id, mode, app, about, target, told_state, url, state, round, tries,"
    " last_status, last_reply, created_at, tried_at, closed_at"
)

INSERT_APP: Final = Query(
    JeepayApp,
    f"""
    insert into jeepay_app ({_APP}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, null)
        on conflict (app_id) do nothing
    returning {_APP}""",
)
FIND_APP: Final = Query(JeepayApp, f"select {_APP} from jeepay_app where app_id = $1")
LOCK_APP: Final = Query(JeepayApp, f"select {_APP} from jeepay_app where app_id = $1 for update")
GET_APP: Final = Query(JeepayApp, f"select {_APP} from jeepay_app where id = $1")
APPS_OF: Final = Query(
    JeepayApp, f"select {_APP} from jeepay_app where merchant_id = $1 order by id desc"
)
ROLL_APP: Final = Query(
    JeepayApp,
    f"""
    update jeepay_app set secret_sealed = $2, secret_tail = $3, disabled_at = null
     where id = $1
    returning {_APP}""",
)
DISABLE_APP: Final = Query(
    JeepayApp,
    f"""
    update jeepay_app set disabled_at = coalesce(disabled_at, $2) where app_id = $1
    returning {_APP}""",
)

INSERT_ORDER: Final = Statement(
    f"""
    insert into jeepay_order ({_ORDER})
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
        on conflict do nothing"""
)
FIND_ORDER: Final = Query(
    JeepayOrder,
    f"""
    select {_ORDER} from jeepay_order
     where merchant_id = $1 and mode = $2 and mch_order_no = $3""",
)
ORDER_OF_TARGET: Final = Query(JeepayOrder, f"select {_ORDER} from jeepay_order where target = $1")
ORDERS_OF_TARGETS: Final = Query(
    JeepayOrder, f"select {_ORDER} from jeepay_order where target = any($1::uuid[])"
)

INSERT_REFUND: Final = Statement(
    f"""
    insert into jeepay_refund ({_REFUND})
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        on conflict do nothing"""
)
FIND_REFUND: Final = Query(
    JeepayRefund,
    f"""
    select {_REFUND} from jeepay_refund
     where merchant_id = $1 and mode = $2 and mch_refund_no = $3""",
)
GET_REFUND: Final = Query(JeepayRefund, f"select {_REFUND} from jeepay_refund where refund_id = $1")
REFUNDS_WITH_IDS: Final = Query(
    JeepayRefund, f"select {_REFUND} from jeepay_refund where refund_id = any($1::uuid[])"
)

INSERT_NOTICE: Final = Query(
    JeepayNotice,
    f"""
    insert into jeepay_notice ({_NOTICE})
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'pending', 1, 0, null, '', $10, null, null)
        on conflict (event_id) do nothing
    returning {_NOTICE}""",
)
GET_NOTICE: Final = Query(JeepayNotice, f"select {_NOTICE} from jeepay_notice where id = $1")
NOTICE_TRIED: Final = Statement(
    """
    update jeepay_notice
       set tries = tries + 1, last_status = $2, last_reply = $3, tried_at = $4
     where id = $1 and state = 'pending'"""
)
CLOSE_NOTICE: Final = Statement(
    "update jeepay_notice set state = $2, closed_at = $3 where id = $1 and state = 'pending'"
)
REOPEN_NOTICE: Final = Query(
    JeepayNotice,
    f"""
    update jeepay_notice set state = 'pending', round = round + 1, tries = 0, closed_at = null
     where id = $1 and state <> 'pending'
    returning {_NOTICE}""",
)
NOTICES_OF: Final = Query(
    JeepayNotice,
    f"""
    select {_NOTICE} from jeepay_notice
     where merchant_id = $1 and mode = $2 and (not $3 or state <> 'answered')
     order by id desc
     limit $4""",
)
