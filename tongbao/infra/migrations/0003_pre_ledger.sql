-- The ledger: books, accounts with four counters, immutable transfers, holds, recorded answers.
-- Every key starts with the book. Nothing here is written but through tongbao.ledger.

-- The kinds of account this deployment may open: an aggregator's database has no row for the
-- kinds that hold other people's funds, so the foreign key below refuses such an account.
create table ledger_account_kind (
    kind   text not null primary key,
    side   text not null check (side in ('debit', 'credit')),
    floor  bigint,
    unique (kind, side)
);
insert into ledger_account_kind (kind, side, floor)
select chart.kind, chart.side, chart.floor
  from (values
        ('bank', 'debit', null, false),
        ('channel_cost', 'debit', null, false),
        ('channel_receivable', 'debit', null, false),
        ('fee_income', 'credit', null, false),
        ('merchant_payable', 'credit', 0, true),
        ('settlement_due', 'credit', 0, true),
        ('suspense', 'credit', null, false),
        ('wallet', 'credit', 0, true)
       ) as chart (kind, side, floor, holds_funds)
  cross join deployment
 where not chart.holds_funds or deployment.licence <> 'aggregator';

-- The head row of a book is updated last in every commit: its lock orders them, so seq is gapless
-- and in commit order.
create table ledger_book (
    book       int not null primary key check (book between 1 and 4194303),
    epoch      bigint not null check (epoch >= 0),
    last_seq   bigint not null check (last_seq >= 0),
    frozen     boolean not null,
    opened_at  timestamptz not null
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01);
insert into ledger_book (book, epoch, last_seq, frozen, opened_at)
select 1, 0, 0, false, deployment.created_at from deployment;

-- No index on a changing column, and room on the page: every update stays on it (HOT).
create table ledger_account (
    book             int not null references ledger_book (book),
    id               bigint not null check (id >> 40 = book),
    kind             text not null,
    owner            uuid not null,
    currency         text not null check (currency ~ '^[A-Z]{3}$'),
    side             text not null,
    floor            bigint,
    state            text not null check (state in ('open', 'frozen', 'closed')),
    debits_pending   bigint not null check (debits_pending between 0 and 4000000000000000000),
    debits_posted    bigint not null check (debits_posted between 0 and 4000000000000000000),
    credits_pending  bigint not null check (credits_pending between 0 and 4000000000000000000),
    credits_posted   bigint not null check (credits_posted between 0 and 4000000000000000000),
    opened_at        timestamptz not null,
    primary key (book, id),
    unique (book, owner, kind, currency),
    foreign key (kind, side) references ledger_account_kind (kind, side),
    -- The backstop: the ledger refuses before this ever fires.
    constraint ledger_account_above_floor check (
        floor is null
        or case side
               when 'credit' then credits_posted - debits_posted - debits_pending
               else debits_posted - credits_posted - credits_pending
           end >= floor),
    constraint ledger_account_closed_is_empty check (
        state <> 'closed'
        or (debits_pending = 0 and credits_pending = 0 and debits_posted = credits_posted))
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01);

-- No foreign key to the accounts: they are locked when this is written, the row count of their
-- update is compared, and `verify` looks at every one.
create table ledger_transfer (
    book            int not null,
    id              uuid not null,
    seq             bigint not null check (seq > 0),
    debit_account   bigint not null check (debit_account >> 40 = book),
    credit_account  bigint not null check (credit_account >> 40 = book),
    amount          bigint not null check (amount > 0),
    kind            text not null check (kind in ('single', 'pending', 'post', 'void', 'expire')),
    code            text not null check (code <> ''),
    reference       uuid not null,
    pending_id      uuid,
    whole           boolean not null,
    debit_after     bigint not null,
    credit_after    bigint not null,
    biz_date        date not null,
    value_date      date not null,
    at              timestamptz not null,
    primary key (book, id),
    unique (book, seq),
    check (debit_account <> credit_account),
    check ((pending_id is not null) = (kind in ('post', 'void', 'expire'))),
    check (case kind when 'post' then true else whole = (kind in ('void', 'expire')) end)
);
create index ledger_transfer_of_reference on ledger_transfer (book, reference);
create index ledger_transfer_of_debit on ledger_transfer (book, debit_account, seq);
create index ledger_transfer_of_credit on ledger_transfer (book, credit_account, seq);
-- A hold ends once.
create unique index ledger_transfer_ends on ledger_transfer (book, pending_id)
    where pending_id is not null;

create table ledger_hold (
    book            int not null,
    pending_id      uuid not null,
    debit_account   bigint not null,
    credit_account  bigint not null,
    amount          bigint not null check (amount > 0),
    state           text not null check (state in ('held', 'posted', 'voided', 'expired')),
    posted_amount   bigint not null,
    expires_at      timestamptz,
    primary key (book, pending_id),
    check (case state
               when 'posted' then posted_amount between 1 and amount
               else posted_amount = 0
           end)
);
create index ledger_hold_expiring on ledger_hold (book, expires_at) where state = 'held';

-- One row per group, for ever: what was asked (as a hash) and what was answered.
create table ledger_request (
    book            int not null,
    id              uuid not null,
    body_hash       bytea not null check (length(body_hash) = 32),
    status          text not null check (status in ('created', 'refused')),
    code            text,
    seq             bigint,
    transfer_count  int not null check (transfer_count >= 0),
    at              timestamptz not null,
    primary key (book, id),
    check ((status = 'refused') = (code is not null)),
    check ((seq is not null) = (transfer_count > 0)),
    check (status = 'created' or seq is null)
);

-- Recorded is recorded: corrections are further transfers.
revoke update, delete, truncate on ledger_transfer, ledger_request from current_user;
