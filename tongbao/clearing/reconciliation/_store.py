"""The SQL of bills, runs and breaks; nothing outside this package reads or writes their tables."""

from __future__ import annotations

from datetime import date
from typing import Final

from tongbao.clearing.reconciliation import model
from tongbao.infra.db import Query, Statement

_BILL: Final = """id, account_id, channel, mode, day, version, state, currency, requested_at,
    last_answer, sha256, size, row_count, fault_count, payment_count, payment_amount, refund_count,
    refund_amount, fee_amount, told_row_count, told_payment_amount, told_refund_amount,
    told_fee_amount, is_complete, totals_agree, run_id, matched_count, matched_payment_amount,
    matched_refund_amount, break_count, waiting_count, downloaded_at, parsed_at, matched_at,
    superseded_at, is_lean"""
_BREAK: Final = """id, account_id, channel, mode, day, kind, number, break_class, currency,
    bill_amount, platform_amount, ledger_amount, bill_fee, expected_fee, difference, payment_id,
    refund_id, line, bill_id, run_id, state, found_at, seen_at, reopened, proposal, proposed_by,
    proposed_at, closed_by, closed_at"""
_WAITING: Final = """account_id, day, kind, number, from_day, to_day, amount, currency, payment_id,
    refund_id, since"""

ROW_COLUMNS: Final = (
    "bill_id", "line", "kind", "number", "order_number", "channel_ref", "amount", "currency",
    "fee", "at", "word", "outcome",
)  # fmt: skip
FAULT_COLUMNS: Final = model.BillFault.__struct_fields__
ITEM_COLUMNS: Final = model.Item.__struct_fields__

# --- bills --------------------------------------------------------------------------------------

INSERT_BILL = Statement(
    f"""insert into bill_file ({_BILL})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34,
                $35, $36)
        on conflict do nothing"""
)
CURRENT_BILL = Query(
    model.BillFile,
    f"""select {_BILL} from bill_file
         where account_id = $1 and day = $2 and superseded_at is null""",
)
GET_BILL = Query(model.BillFile, f"select {_BILL} from bill_file where id = $1")
LOCK_BILL = Query(model.BillFile, f"select {_BILL} from bill_file where id = $1 for update")
BILLS_OF_DAY = Query(
    model.BillFile,
    f"""select {_BILL} from bill_file where day = $1 and superseded_at is null
         order by mode, channel, account_id""",
)
_OF_DAY: Final = f"select {_BILL} from bill_file where account_id = $1 and day = $2"
VERSIONS = Query(model.BillFile, f"{_OF_DAY} order by version")
LATEST_BILLS = Query(
    model.BillFile,
    f"""select {_BILL} from bill_file
         where superseded_at is null and ($1::date is null or day <= $1)
         order by day desc, channel, account_id limit $2""",
)
NOTE_ANSWER = Statement("update bill_file set last_answer = $2 where id = $1")
MARK_DOWNLOADED = Statement(
    """update bill_file
          set state = 'downloaded', sha256 = $2, size = $3, downloaded_at = $4, last_answer = ''
        where id = $1 and sha256 is null"""
)
MARK_EMPTY = Statement(
    """update bill_file
          set state = 'parsed', is_complete = true, totals_agree = $4, last_answer = $2,
              parsed_at = $3
        where id = $1 and state = 'requested'"""
)
SUPERSEDE = Statement(
    "update bill_file set superseded_at = $2 where id = $1 and superseded_at is null"
)
# The rows of a lean bill that are kept are those its last run found no agreement on.
MARK_LEAN = Statement(
    """update bill_file
          set state = 'parsed', is_lean = true, parsed_at = $2
        where id = $1 and state = 'downloaded'"""
)
MARK_READ = Statement(
    """update bill_file
          set state = case state when 'downloaded' then 'parsed' else state end,
              currency = $2, row_count = $3, fault_count = $4, payment_count = $5,
              payment_amount = $6, refund_count = $7, refund_amount = $8, fee_amount = $9,
              told_row_count = $10, told_payment_amount = $11, told_refund_amount = $12,
              told_fee_amount = $13, is_complete = $14 or state in ('matched', 'empty'),
              totals_agree = $15, parsed_at = $16, is_lean = $17
        where id = $1"""
)
CLEAR_ROWS = Statement("delete from bill_row where bill_id = $1")
CLEAR_FAULTS = Statement("delete from bill_fault where bill_id = $1")
# What a bill shows; of a whole one from a moment on, because a lean one has few rows.
NUMBERS_OF_BILL = Query(
    str,
    """select distinct number from bill_row where bill_id = $1 and outcome = 'moved'
         and ($2::timestamptz is null or at >= $2)""",
)


ROWS_BESIDE = Query(
    model.RowBeside,
    """select distinct kind, number from bill_row
        where bill_id = $1 and kind = 'payment' and (at < $2 or at >= $3)""",
)
ABSENT_ON = Query(
    str,
    """
    select number from recon_break
     where account_id = $1 and day = $2 and break_class = 'missing_at_channel'
       and number = any($3::text[])
    union
    select number from recon_waiting
     where account_id = $1 and day = $2 and number = any($3::text[])
    union
    select number from bill_row where bill_id = $4 and number = any($3::text[])""",
)
FAULTS_OF_BILL = Query(
    model.BillFault,
    """select bill_id, place, line, code, text from bill_fault
        where bill_id = $1 and place > $2 order by place limit $3""",
)
_DAYS: Final = "select day from bill_file where account_id = $1 order by day"
FIRST_DAY = Query(date, f"{_DAYS} limit 1")
LAST_DAY = Query(date, f"{_DAYS} desc limit 1")
FINAL_DAYS = Query(
    date,
    """select day from bill_file where account_id = $1 and day between $2 and $3
          and superseded_at is null and state in ('matched', 'empty')
          and (totals_agree or not $4)""",
)

# --- a run: our side is staged, compared in one statement, and taken away -------------------------

TAKE_YOUR_TIME = Statement("set local statement_timeout = 0")
# A plan made for a table that was empty a moment ago must not loop over a million rows.
NO_LOOPS = Statement("set local enable_nestloop = off")
IN_MEMORY = Statement("set local work_mem = '128MB'")

START_RUN = Statement("update bill_file set run_id = $2 where id = $1 and superseded_at is null")
COUNT_ITEMS = Query(int, "select count(*) from recon_item where run_id = $1")
CLEAR_ITEMS = Statement("delete from recon_item where run_id = $1")


ROWS_ALONE = Query(
    model.RowAlone,
    """
    select distinct on (r.kind, r.number) r.line, r.kind, r.number, r.order_number, r.channel_ref,
           r.amount, r.currency, r.at, r.outcome
      from bill_row r
      left join (select kind, number from recon_item where run_id = $2) i
        on i.kind = r.kind and i.number = r.number
     where r.bill_id = $1 and i.number is null and (r.kind, r.number) > ($3::text, $4::text)
     order by r.kind, r.number, r.line
     limit $5""",
)


SHOWN = Query(
    model.Shown,
    """
    select distinct r.kind, r.number
      from bill_row r
      join bill_file f on f.id = r.bill_id
     where r.number = any($2::text[]) and r.outcome <> 'failed'
       and f.account_id = $1 and f.superseded_at is null""",
)
# The days on which something is missing that this bill shows.
LATE_ON = Query(
    date,
    """
    select distinct b.day
      from recon_break b
      join bill_row r on r.number = b.number and r.kind = b.kind
     where r.bill_id = $1 and r.outcome <> 'failed' and b.account_id = $2 and b.day <> $3
       and b.break_class = 'missing_at_channel' and b.state = 'open'
     order by b.day""",
)

# A difference that people closed stays closed while it is the same, and opens when it is another.
_CHANGED: Final = """(b.state = 'gone' or (b.bill_amount, b.platform_amount, b.ledger_amount,
    b.bill_fee, b.difference) is distinct from (excluded.bill_amount, excluded.platform_amount,
    excluded.ledger_amount, excluded.bill_fee, excluded.difference))"""
_AGAIN: Final = f"""
    on conflict (account_id, day, kind, number, break_class) do update
       set bill_amount = excluded.bill_amount, platform_amount = excluded.platform_amount,
           ledger_amount = excluded.ledger_amount, bill_fee = excluded.bill_fee,
           expected_fee = excluded.expected_fee, difference = excluded.difference,
           payment_id = excluded.payment_id, refund_id = excluded.refund_id,
           line = excluded.line, bill_id = excluded.bill_id, run_id = excluded.run_id,
           seen_at = excluded.seen_at,
           state = case when {_CHANGED} then 'open' else b.state end,
           reopened = b.reopened
               + case when b.state in ('closed', 'gone') and {_CHANGED} then 1 else 0 end,
           proposal = case when {_CHANGED} then null else b.proposal end,
           proposed_by = case when {_CHANGED} then null else b.proposed_by end,
           proposed_at = case when {_CHANGED} then null else b.proposed_at end,
           closed_by = case when {_CHANGED} then null else b.closed_by end,
           closed_at = case when {_CHANGED} then null else b.closed_at end"""

# The fee the channel should have asked for: of our amount, or of its own where that differs.
_OWN_FEE: Final = "round(t.amount::numeric * $8::int / 1000000)::bigint"
_FEE_WRONG: Final = f"""(t.outcome = 'moved' and case t.kind
    when 'payment' then t.fee <> i.expected_fee and t.fee <> {_OWN_FEE}
    else not (($10::bool and t.fee = 0)
              or ($9::bool and (t.fee = -i.expected_fee or t.fee = -{_OWN_FEE}))) end)"""
_SEEN_BEFORE: Final = """((t.at < $13::timestamptz or t.at >= $14::timestamptz) and (exists (
    select 1 from bill_row o
     where o.number = t.number and o.kind = t.kind and o.bill_id = any($12::uuid[])
       and o.outcome = 'moved') or (t.kind = 'payment' and t.number = any($16::text[]))))"""


# The whole comparison. `told` is the bill, `pair` every number on which the two sides, or we and
# the ledger, do not agree at first sight; a pair may hold several classes of difference.
COMPARE = Query(
    model.Compared,
    f"""
    with told as (
        select kind, number, min(line) as line, count(*)::int as copies, min(amount) as amount,
               sum(amount)::bigint as total, min(fee) as fee, min(currency) as currency,
               min(outcome) as outcome, min(at) as at
          from bill_row
         where bill_id = $1
         group by kind, number
    ), pair as materialized (
        select coalesce(t.kind, i.kind) as kind, coalesce(t.number, i.number) as number, t.line,
               t.copies, t.amount as bill_amount, t.total, t.fee, t.outcome,
               coalesce(t.currency, i.currency) as currency, t.currency <> i.currency as foreign,
               i.amount as platform_amount, i.expected_fee, i.state, i.to_book, i.booked,
               i.payment_id, i.refund_id, i.from_day, i.to_day, {_FEE_WRONG} as fee_wrong,
               {_SEEN_BEFORE} as seen_before,
               exists (select 1 from unnest($11::date[]) as d (day)
                        where d.day between i.from_day and i.to_day) as may_wait,
               t.number is null and (
                   exists (select 1
                             from bill_row o
                             join bill_file f on f.id = o.bill_id
                            where o.number = i.number and o.kind = i.kind
                              and o.outcome <> 'failed' and f.account_id = $3
                              and f.superseded_at is null)
                   or exists (select 1 from bill_fault x
                               where x.bill_id = $1 and position(i.number in x.text) > 0)
               ) as explained
          from told t
          full join (select kind, number, payment_id, refund_id, amount, currency, expected_fee,
                            state, to_book, booked, from_day, to_day
                       from recon_item where run_id = $2) i
            on i.kind = t.kind and i.number = t.number
         where t.number is null or i.number is null or t.copies > 1 or t.amount <> i.amount
            or t.currency <> i.currency or (t.outcome = 'moved') <> (i.state = 'moved')
            or i.booked <> i.to_book or {_FEE_WRONG} or {_SEEN_BEFORE}
    ), found as (
        select p.kind, p.number, p.line, p.copies, p.total, p.currency, p.platform_amount,
               p.payment_id, p.refund_id, c.break_class, c.difference,
               case when p.copies > 1 then p.total else p.bill_amount end as bill_amount,
               case when c.break_class = 'ledger_differs' then p.booked end as ledger_amount,
               case when c.break_class = 'fee_differs' then p.fee end as bill_fee,
               case when c.break_class <> 'fee_differs' then null
                    when p.kind = 'payment' then p.expected_fee
                    when $9::bool then -p.expected_fee
                    else 0 end as expected_fee
          from pair p
         cross join lateral (values
               ('missing_at_platform', p.platform_amount is null and p.outcome <> 'failed',
                p.total),
               ('missing_at_channel', p.line is null and p.state = 'moved' and $15::bool
                                      and not p.may_wait and not p.explained,
                -p.platform_amount),
               ('amount_differs', p.bill_amount <> p.platform_amount or p.foreign,
                p.bill_amount - p.platform_amount),
               ('fee_differs', p.copies = 1 and p.fee_wrong,
                p.fee - case when p.kind = 'payment' then p.expected_fee
                             when $9::bool then -p.expected_fee else 0 end),
               ('state_differs', p.bill_amount = p.platform_amount and not p.may_wait and (
                    (p.outcome = 'moved' and p.state <> 'moved')
                    or (p.outcome = 'failed' and p.state = 'moved')),
                case when p.outcome = 'moved' then p.bill_amount else -p.platform_amount end),
               ('duplicated_at_channel', p.copies > 1 or p.seen_before,
                case when p.copies > 1 then p.total - p.bill_amount else p.total end),
               ('ledger_differs', p.booked <> p.to_book, p.to_book - p.booked)
               ) as c (break_class, holds, difference)
         where c.holds
    ), written as (
        insert into recon_break as b ({_BREAK})
        select md5(concat_ws('/', $3::uuid::text, $6::date::text, f.kind, f.number,
                             f.break_class))::uuid,
               $3, $4::text, $5::text, $6::date, f.kind, f.number, f.break_class, f.currency,
               f.bill_amount, f.platform_amount, f.ledger_amount, f.bill_fee, f.expected_fee,
               f.difference, f.payment_id, f.refund_id, f.line, $1, $2, 'open',
               $7::timestamptz, $7, 0, null, null, null, null, null
          from found f
        {_AGAIN}
     returning 1
    ), kept as (
        insert into recon_waiting ({_WAITING})
        select $3, $6, p.kind, p.number, p.from_day, p.to_day, p.platform_amount, p.currency,
               p.payment_id, p.refund_id, $7
          from pair p
         where p.may_wait and not p.explained
           and (($15::bool and p.line is null and p.state = 'moved')
                or (p.outcome = 'moved' and p.state <> 'moved'))
     returning 1
    ), broken as (
        select distinct kind, number, copies, total from found where line is not null
    )
    select coalesce(sum(copies), 0)::int as broken_rows,
           coalesce(sum(total) filter (where kind = 'payment'), 0)::bigint
               as broken_payment_amount,
           coalesce(sum(total) filter (where kind <> 'payment'), 0)::bigint
               as broken_refund_amount,
           (select count(*) from written)::int as breaks,
           (select count(*) from kept)::int as waiting
      from broken""",
)
ADD_FOUND = Statement(
    f"""insert into recon_break as b ({_BREAK})
        values ($1, $2, $3, $4, $5, $16, $6, $7, $8, $9, $10, $17, null, null, $11,
                null, null, $12, $13, $14, 'open', $15, $15, 0, null, null, null, null, null)
        {_AGAIN}"""
)
NOTE_COMPARISON = Statement(
    """update bill_file
          set state = 'matched', is_complete = true, totals_agree = true, row_count = $2,
              payment_amount = $3, refund_amount = $4, matched_count = $5, break_count = $6,
              waiting_count = $7, parsed_at = coalesce(parsed_at, $8), matched_at = $8
        where id = $1"""
)
# An incomplete bill shows what is there, and not what is missing.
FORGET_GONE = Statement(
    """update recon_break
          set state = 'gone', closed_by = 'reconciliation', closed_at = $4
        where account_id = $1 and day = $2 and run_id <> $3 and state = 'open'
          and ($5::bool or break_class <> 'missing_at_channel')"""
)
CLEAR_WAITING = Statement("delete from recon_waiting where account_id = $1 and day = $2")
WAITING_OF_ACCOUNT = Query(
    model.ReconWaiting,
    f"select {_WAITING} from recon_waiting where account_id = $1 order by day, kind, number",
)
NOTE_RUN = Statement(
    """update bill_file
          set matched_count = $3, matched_payment_amount = $4, matched_refund_amount = $5,
              break_count = $6, waiting_count = $7
        where id = $1 and run_id = $2"""
)
FINISH_RUN = Statement(
    """update bill_file set state = $3, matched_at = coalesce(matched_at, $4)
        where id = $1 and run_id = $2 and superseded_at is null"""
)


FEES_BY_BOOK = Query(
    model.BookAmount,
    """
    select coalesce(i.book, $3::int) as book, count(*)::int as entries,
           sum(r.fee)::bigint as amount
      from bill_row r
      left join (select book, kind, number from recon_item where run_id = $2) i
        on i.kind = r.kind and i.number = r.number
     where r.bill_id = $1
     group by 1
     order by 1""",
)
COSTS_BY_BOOK = Query(
    model.BookAmount,
    """select book, count(*)::int as entries, sum(amount)::bigint as amount from bill_cost
        where account_id = $1 and day = $2 group by book order by book""",
)
INSERT_COST = Statement(
    """insert into bill_cost (book, account_id, day, entry, bill_id, amount, currency, posted_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8)
        on conflict do nothing"""
)

# --- differences, for people ----------------------------------------------------------------------


CLASS_SUMS = Query(
    model.ClassSum,
    """select break_class, state, count(*)::int as count, sum(difference)::bigint as amount
         from recon_break where account_id = $1 and day = $2
        group by break_class, state order by break_class, state""",
)
GET_BREAK = Query(model.ReconBreak, f"select {_BREAK} from recon_break where id = $1")
LOCK_BREAK = Query(model.ReconBreak, f"select {_BREAK} from recon_break where id = $1 for update")
BREAKS_OF_PAYMENT = Query(
    model.ReconBreak,
    f"select {_BREAK} from recon_break where payment_id = $1 order by found_at, id",
)
LIST_BREAKS = Query(
    model.ReconBreak,
    f"""select {_BREAK} from recon_break
         where ($1::uuid is null or account_id = $1) and ($2::date is null or day = $2)
           and ($3::text is null or break_class = $3)
           and ($4::text[] is null or state = any($4))
           and ($5::timestamptz is null or (found_at, id) < ($5, $6::uuid))
         order by found_at desc, id desc limit $7""",
)
ALL_BREAKS = Query(
    model.ReconBreak,
    f"""select {_BREAK} from recon_break where account_id = $1 and day = $2
         order by break_class, kind, number""",
)
CLOSE = Statement(
    """update recon_break
          set state = 'closed', proposal = $3, proposed_by = $4, proposed_at = $6, closed_by = $5,
              closed_at = $6
        where id = $1 and difference = $2 and state = 'open'"""
)


OPEN_COUNTS = Query(
    model.OpenCount,
    """select account_id, day, count(*)::int as count from recon_break
        where day between $1 and $2 and state = 'open'
        group by account_id, day""",
)
LATEST_OF_ACCOUNT = Query(
    model.BillFile,
    f"""select {_BILL} from bill_file
         where account_id = $1 and superseded_at is null order by day desc limit $2""",
)
BILLS_BETWEEN = Query(
    model.BillFile,
    f"""select {_BILL} from bill_file
         where day between $1 and $2 and superseded_at is null order by channel, account_id, day""",
)


ROWS_SHOWN = Query(
    model.ShownRow,
    """select line, order_number, channel_ref, amount, currency, fee, at, word, outcome
         from bill_row where bill_id = $1 and kind = $2 and number = $3 order by line limit 20""",
)
