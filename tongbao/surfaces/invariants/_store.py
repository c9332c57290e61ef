"""The SQL of the invariants. It reads everybody's tables on purpose: it is the check on them all.

Each answers how many things break it and names the first.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Query, Statement


class Found(Struct, frozen=True):
    """How many things break an invariant, and the first of them."""

    breaches: int
    first: str


class Light(Struct, frozen=True):
    """One row of invariant_light: the last word on an invariant."""

    name: str
    breaches: int
    first: str
    took_ms: int
    checked_at: datetime
    red_since: datetime | None


class Mark(Struct, frozen=True):
    """One row of invariant_mark: how far a round has looked; ``number`` is what it counts by there.

    Of accounts the number is their book.
    """

    name: str
    place: UUID
    number: int
    at: datetime


class End(Struct, frozen=True):
    """The end of a payment or refund, which an event has to tell once."""

    prefix: str
    id: UUID
    type: str


_HEAD: Final = "select count(*)::bigint as breaches, coalesce(min(what), '') as first from ("

GAPS: Final = Query(
    Found,
    _HEAD
    + """select mode || ' ' || currency || ' ' || day as what from reserve_gap
          where explained_at is null) as b""",
)
REFUNDS: Final = Query(
    Found,
    _HEAD
    + """select 'payment ' || p.id as what
           from payment p
           left join (select book, payment_id, sum(amount) as going from refund
                       where state <> 'failed' group by book, payment_id) r
             on r.book = p.book and r.payment_id = p.id
          where p.refunded <> coalesce(r.going, 0) or p.refunded + p.disputed > p.captured) as b""",
)
# The table's CHECK allows no step down; here the steps have to hang together, up to the payment.
STATES: Final = Query(
    Found,
    _HEAD
    + """select 'payment ' || c.payment_id as what
           from (select book, payment_id, from_state, to_state,
                        lag(to_state) over w as before, lead(to_state) over w as after
                   from payment_state_change
                 window w as (partition by book, payment_id order by version)) c
           join payment p on p.book = c.book and p.id = c.payment_id
          where c.from_state <> coalesce(c.before, c.from_state)
             or (c.after is null and c.to_state <> p.state)) as b""",
)
# A capture is booked with its payment's row: what is younger than a moment is whole on both sides.
CAPTURES: Final = Query(
    Found,
    _HEAD
    + """select 'payment ' || p.id as what
           from payment p
           left join (select t.book, t.reference, count(*) as times, sum(t.amount) as amount
                        from ledger_transfer t
                        join ledger_code c on c.number = t.code
                       where c.code in ('payment.captured/gross',
                                        'payment.captured_by_wallet/gross',
                                        'payment.captured_by_e_account/gross',
                                        'late.captured/gross')
                         and t.at >= $1
                       group by t.book, t.reference) b
             on b.book = p.book and b.reference = p.id
          where p.captured > 0 and p.created_at >= $1
            and (b.times is null or b.times <> 1 or b.amount <> p.captured)
         union all
         select 'journal of ' || t.reference
           from ledger_transfer t
           join ledger_code c on c.number = t.code
           left join payment p on p.book = t.book and p.id = t.reference and p.captured > 0
          where c.code in ('payment.captured/gross', 'payment.captured_by_wallet/gross',
                           'payment.captured_by_e_account/gross', 'late.captured/gross')
            and t.at >= $1 and p.id is null) as b""",
)
EVENTS: Final = Query(
    Found,
    _HEAD
    + """select s.type || ': ' || s.ends || ' ends, ' || coalesce(e.told, 0) || ' events' as what
           from (select 'payment.' || state as type, count(*) as ends from payment
                  where state in ('succeeded', 'failed') and ended_at >= $1 group by state
                 union all
                 select 'refund.' || state, count(*) from refund
                  where state in ('succeeded', 'failed') and ended_at >= $1 group by state) s
           left join (select type, count(*) as told from event where at >= $1 group by type) e
             on e.type = s.type
          where s.ends <> coalesce(e.told, 0)
         union all
         select resource_id || ' twice ' || type from event
          where at >= $1 and type in ('payment.succeeded', 'payment.failed', 'payment.closed',
                                      'refund.succeeded', 'refund.failed', 'settlement.closed',
                                      'payout.succeeded', 'payout.failed', 'payout.returned')
          group by resource_id, type having count(*) > 1
         union all
         select 'event ' || id || ' was told to nobody' from event
          where dispatched_at is null and at < $2) as b""",
)
OFFLINE: Final = Query(
    Found,
    _HEAD
    + """select 'offline key ' || k.id as what
           from offline_code c join offline_key k on k.book = c.book and k.id = c.key_id
          where c.used_at > k.expires_at or c.used_at > k.ended_at
         union all
         select 'wallet ' || wallet_id from offline_allowance where spent > limit_per_day) as b""",
)
# What one round looks at: payments whose ids are after $1 and up to $2. A payment's transfers have
# ids that share its first eight bytes, so they are a range of the journal's one index.
SLICE_END: Final = Query(
    UUID, "select id from payment where id > $1 and id < $2 order by id offset $3 limit 1"
)
REFUNDS_IN: Final = Query(
    Found,
    _HEAD
    + """select 'payment ' || p.id as what
           from (select book, id from payment where id > $1 and id <= $2
                 union
                 select book, payment_id from refund where id > $1 and id <= $2) n
           join payment p on p.book = n.book and p.id = n.id
           left join refund r
             on r.book = p.book and r.payment_id = p.id and r.state <> 'failed'
          group by p.book, p.id, p.refunded, p.disputed, p.captured
         having p.refunded <> coalesce(sum(r.amount), 0)
             or p.refunded + p.disputed > p.captured) as b""",
)
STATES_IN: Final = Query(
    Found,
    _HEAD
    + """select 'payment ' || c.payment_id as what
           from (select s.book, s.payment_id, s.from_state, s.to_state, p.state,
                        lag(s.to_state) over w as before, lead(s.to_state) over w as after
                   from payment p
                   join payment_state_change s on s.book = p.book and s.payment_id = p.id
                  where p.id > $1 and p.id <= $2
                 window w as (partition by s.book, s.payment_id order by s.version)) c
          where c.from_state <> coalesce(c.before, c.from_state)
             or (c.after is null and c.to_state <> c.state)) as b""",
)
_CAPTURES: Final = """
    select t.book, t.reference, t.amount
      from ledger_book k
      join ledger_transfer t on t.book = k.book and t.id >= $3 and t.id <= $4
      join ledger_code c on c.number = t.code
     where c.code in ('payment.captured/gross', 'payment.captured_by_wallet/gross',
                      'payment.captured_by_e_account/gross', 'late.captured/gross')
       and t.reference > $1 and t.reference <= $2"""
CAPTURES_IN: Final = Query(
    Found,
    _HEAD
    + f"""select 'payment ' || p.id as what
           from payment p
           left join (select book, reference, count(*) as times, sum(amount) as amount
                        from ({_CAPTURES}) t group by book, reference) b
             on b.book = p.book and b.reference = p.id
          where p.id > $1 and p.id <= $2 and p.captured > 0 and p.created_at >= $5
            and (b.times is null or b.times <> 1 or b.amount <> p.captured)
         union all
         select 'journal of ' || t.reference
           from ({_CAPTURES}) t
           left join payment p on p.book = t.book and p.id = t.reference and p.captured > 0
          where p.id is null) as b""",
)
ENDS_IN: Final = Query(
    End,
    """select 'pay' as prefix, id, 'payment.' || state as type from payment
         where id > $1 and id <= $2 and state in ('succeeded', 'failed') and ended_at >= $3
        union all
        select 'ref', id, 'refund.' || state from refund
         where id > $1 and id <= $2 and state in ('succeeded', 'failed') and ended_at >= $3""",
)
TOLD: Final = Query(
    Found,
    _HEAD
    + """select s.resource_id || ' ' || s.type as what
           from unnest($1::text[], $2::text[]) as s (resource_id, type)
           left join event e on e.resource_id = s.resource_id and e.type = s.type
          group by s.resource_id, s.type having count(e.id) <> 1) as b""",
)
UNTOLD: Final = Query(
    Found,
    _HEAD
    + """select 'event ' || id || ' was told to nobody' as what from event
          where dispatched_at is null and at < $1
         union all
         select e.resource_id || ' twice ' || e.type
           from event e
           join event o on o.resource_id = e.resource_id and o.type = e.type and o.id <> e.id
          where e.id > $2 and e.id <= $3
            and e.type in ('settlement.closed', 'payout.succeeded', 'payout.failed',
                           'payout.returned')) as b""",
)
OFFLINE_SINCE: Final = Query(
    Found,
    _HEAD
    + """select 'offline key ' || k.id as what
           from offline_code c join offline_key k on k.book = c.book and k.id = c.key_id
          where c.used_at >= $1 and (c.used_at > k.expires_at or c.used_at > k.ended_at)) as b""",
)

# What people's accounts say beside what the ledger says, in one snapshot. The ledger's own rows may
# be behind its journal: what was committed since is added up from there, by the batches that it is
# in. Ids of several batches may lie among each other, so a batch takes its own numbers only.
E_ACCOUNTS_END: Final = Query(
    UUID, "select id from e_account where book = $1 and id > $2 order by id offset $3 limit 1"
)
E_ACCOUNTS_IN: Final = Query(
    Found,
    _HEAD
    + """
    with since as materialized (
        select moved.account, sum(moved.change)::bigint as change
          from ledger_watermark w
          join ledger_batch b on b.book = w.book and b.batch > w.batch
         cross join lateral generate_series(1, cardinality(b.spans), 2) as span (place)
         cross join lateral (
               select debit_account, credit_account, amount
                 from ledger_transfer
                where book = w.book and id between b.spans[span.place] and b.spans[span.place + 1]
                  and seq >= b.first_seq and seq < b.first_seq + b.transfers and kind in (1, 3)
               offset 0) as t
         cross join lateral (values (t.debit_account, -t.amount), (t.credit_account, t.amount))
            as moved (account, change)
         where w.book = $1
         group by moved.account
    ), booked as (
        select a.owner, a.kind, a.currency,
               a.credits_posted - a.debits_posted + coalesce(since.change, 0) as amount
          from ledger_account a
          left join since on since.account = a.id
         where a.book = $1 and a.owner > $2 and a.owner <= $3
           and a.kind in ('e_account', 'e_account_returned')
    ), said as (
        select id as owner, 'e_account' as kind, currency, balance as amount
          from e_account
         where book = $1 and id > $2 and id <= $3
         union all
        select account_id, 'e_account_returned', currency, sum(amount)::bigint
          from e_account_refund
         where book = $1 and account_id > $2 and account_id <= $3 and state = 'waiting'
         group by account_id, currency
    )
    select kind || ' ' || owner as what
      from said full join booked using (owner, kind, currency)
     where coalesce(said.amount, 0) <> coalesce(booked.amount, 0)) as b""",
)

FUNDS: Final = Query(
    Found,
    _HEAD
    + """select 'account ' || a.kind || ' in book ' || a.book as what
           from ledger_account a cross join deployment d
          where d.licence = 'aggregator'
            and a.kind in ('merchant_payable', 'settlement_due', 'merchant_reserve',
                           'merchant_debt', 'dispute_held', 'subsidy', 'wallet')) as b""",
)
UNKNOWN: Final = Query(
    Found,
    _HEAD
    + """select 'attempt ' || a.id as what
           from attempt a join payment p on p.book = a.book and p.id = a.payment_id
          where a.state = 'unknown' and p.expires_at < $1
            and not exists (select from payment_case c
                             where c.book = p.book and c.payment_id = p.id
                               and c.closed_at is null)
         union all
         select 'refund ' || r.id from refund r
          where r.state = 'unknown' and r.created_at < $1
            and not exists (select from payment_case c
                             where c.book = r.book and c.payment_id = r.payment_id
                               and c.closed_at is null)) as b""",
)
UNKNOWN_PAID_OUT: Final = Query(
    Found,
    _HEAD
    + """select 'payout ' || id as what from payout
          where state = 'unknown' and created_at < $1 and contradiction is null
         union all
         select 'transfer ' || i.id
           from transfer_item i join transfer_batch b on b.book = i.book and b.id = i.batch_id
          where i.state = 'unknown' and b.created_at < $1
         union all
         select 'payout file ' || id from payout_file
          where state = 'sent' and sent_at < $2) as b""",
)

PUT: Final = Statement(
    """insert into invariant_light (name, breaches, first, took_ms, checked_at, red_since)
       values ($1, $2, $3, $4, $5::timestamptz,
               case when $2::bigint > 0 then $5::timestamptz end)
       on conflict (name) do update
          set breaches = excluded.breaches, first = excluded.first, took_ms = excluded.took_ms,
              checked_at = excluded.checked_at,
              red_since = case when excluded.breaches > 0
                               then coalesce(invariant_light.red_since, excluded.checked_at) end"""
)
LIGHTS: Final = Query(
    Light,
    """select name, breaches, first, took_ms, checked_at, red_since
         from invariant_light order by name""",
)
LIGHT: Final = Query(
    Light,
    """select name, breaches, first, took_ms, checked_at, red_since
         from invariant_light where name = $1""",
)
MARK: Final = Query(Mark, "select name, place, number, at from invariant_mark where name = $1")
PUT_MARK: Final = Statement(
    """insert into invariant_mark (name, place, number, at) values ($1, $2, $3, $4)
       on conflict (name) do update
          set place = excluded.place, number = excluded.number, at = excluded.at"""
)
