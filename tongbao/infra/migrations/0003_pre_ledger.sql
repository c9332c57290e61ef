-- The ledger: books, accounts with four counters, a journal of immutable transfers, holds, recorded
-- answers. Every key starts with the book. Nothing here is written but through tongbao.ledger.
--
-- Journal first: the commit that answers appends transfers, one batch row and the head row.
-- Balances may follow behind; `ledger_watermark` says how far they are.

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
        ('exchange', 'credit', null, false),
        ('fee_income', 'credit', null, false),
        ('in_transit_in', 'debit', null, false),
        ('in_transit_out', 'credit', null, false),
        ('merchant_payable', 'credit', 0, true),
        ('settlement_due', 'credit', 0, true),
        ('subsidy', 'credit', 0, true),
        ('suspense', 'credit', null, false),
        ('wallet', 'credit', 0, true)
       ) as chart (kind, side, floor, holds_funds)
  cross join deployment
 where not chart.holds_funds or deployment.licence <> 'aggregator';

-- The head row of a book is changed once in every commit: its lock orders them, so seq is gapless
-- and in commit order. Only the holder of the present epoch may write the book: every commit
-- names the epoch and the batch before it, and touches no row when either has moved on. The holder
-- and its lease only tell others whom to ask; the epoch is what keeps a stopped holder out.
create table ledger_book (
    book            int not null primary key check (book between 1 and 4194303),
    epoch           bigint not null check (epoch >= 0),
    holder          text not null,          -- where the writer listens; '' when nobody does
    lease_until     timestamptz not null,   -- real time
    last_seq        bigint not null check (last_seq >= 0),
    last_batch      bigint not null check (last_batch >= 0),
    head_hash       bytea not null check (length(head_hash) = 32),
    newest_id       uuid not null,          -- no id above it is recorded in this book
    frozen          boolean not null,
    stopped_because text,                   -- a breach: nothing is written until a person says so
    closed_through  date,                   -- accounting days up to this one take no more entries
    opened_at       timestamptz not null
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01);
insert into ledger_book (book, epoch, holder, lease_until, last_seq, last_batch, head_hash,
                         newest_id, frozen, stopped_because, closed_through, opened_at)
select 1, 0, '', deployment.created_at, 0, 0, decode(repeat('00', 32), 'hex'),
       '00000000-0000-0000-0000-000000000000', false, null, null, deployment.created_at
  from deployment;

-- How far balances have followed: every ledger_account is as of this seq of its book.
create table ledger_watermark (
    book   int not null primary key references ledger_book (book),
    seq    bigint not null check (seq >= 0),
    batch  bigint not null check (batch >= 0)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01);
insert into ledger_watermark (book, seq, batch) values (1, 0, 0);

-- No index on a changing column, and room on the page: every update stays on it (HOT).
create table ledger_account (
    book             int not null references ledger_book (book),
    id               bigint not null check (id >> 40 = book),
    kind             text not null,
    owner            uuid not null,
    currency         text not null check (currency ~ '^[A-Z]{3}$'),
    side             text not null,
    floor            bigint,
    ceiling          bigint,
    state            text not null check (state in ('open', 'frozen', 'closed')),
    debits_pending   bigint not null check (debits_pending between 0 and 4000000000000000000),
    debits_posted    bigint not null check (debits_posted between 0 and 4000000000000000000),
    credits_pending  bigint not null check (credits_pending between 0 and 4000000000000000000),
    credits_posted   bigint not null check (credits_posted between 0 and 4000000000000000000),
    touches          bigint not null check (touches >= 0),  -- transfers that named this account
    last_transfer    uuid,                                  -- the newest: where its chain begins
    opened_at        timestamptz not null,
    primary key (book, id),
    unique (book, owner, kind, currency),
    foreign key (kind, side) references ledger_account_kind (kind, side),
    check (floor is null or ceiling is null or floor <= ceiling),
    check ((touches = 0) = (last_transfer is null)),
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

-- The words that `ledger_transfer.code` stands for, such as payment.captured/gross. Grows only.
create table ledger_code (
    number  int not null primary key check (number > 0),
    code    text not null unique check (code <> '')
);

-- The journal. One index, because every further one costs the commit a third of its speed:
-- ids are in time order, so the primary key appends; a derived id shares the first eight bytes of
-- its reference, so the transfers of a reference are a range of it; and each transfer names the one
-- before it on either account, so a statement is a walk along a chain (ledger_mark says where to
-- enter it). No foreign key to the accounts: `verify` looks at every one.
create table ledger_transfer (
    book             int not null,
    id               uuid not null,
    seq              bigint not null check (seq > 0),
    debit_account    bigint not null check (debit_account >> 40 = book),
    credit_account   bigint not null check (credit_account >> 40 = book),
    amount           bigint not null check (amount > 0),
    kind             smallint not null check (kind between 1 and 5),  -- model.TransferKind
    flags            smallint not null check (flags between 0 and 15),  -- model.TransferFlags
    code             int not null,
    reference        uuid not null,
    pending_id       uuid,
    debit_previous   uuid,
    credit_previous  uuid,
    debit_after      bigint not null,
    credit_after     bigint not null,
    biz_date         date not null,
    value_date       date not null,
    at               timestamptz not null,
    primary key (book, id),
    check (debit_account <> credit_account),
    check ((pending_id is not null) = (kind >= 3))
) partition by range (id);
create table ledger_transfer_default partition of ledger_transfer default;

-- Every so many touches of an account, where its chain can be entered.
create table ledger_mark (
    book         int not null,
    account      bigint not null,
    seq          bigint not null,
    transfer_id  uuid not null,
    primary key (book, account, seq)
);

-- One row per commit: which transfers it has and how it hangs on the commit before it.
create table ledger_batch (
    book        int not null,
    batch       bigint not null check (batch > 0),
    epoch       bigint not null,
    first_seq   bigint not null check (first_seq > 0),
    transfers   int not null check (transfers >= 0),
    requests    int not null check (requests >= 0),
    spans       uuid[] not null,            -- where its ids lie: low, high, low, high, …
    digest      bytea not null check (length(digest) = 32),
    hash        bytea not null check (length(hash) = 32),
    at          timestamptz not null,
    primary key (book, batch),
    check ((transfers > 0) = (cardinality(spans) > 0)),
    check (cardinality(spans) % 2 = 0)
);

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

-- What was asked (as a hash) and answered, for ever: of every refused group, and of every created
-- one that its first transfer does not stand for.
create table ledger_request (
    book            int not null,
    id              uuid not null,
    body_hash       bytea not null check (length(body_hash) = 32),
    status          text not null check (status in ('created', 'refused')),
    code            text,
    seq             bigint,
    transfer_count  int not null check (transfer_count >= 0),
    batch           bigint not null check (batch > 0),
    at              timestamptz not null,
    primary key (book, id),
    check ((status = 'refused') = (code is not null)),
    check ((seq is not null) = (transfer_count > 0)),
    check (status = 'created' or seq is null)
) partition by range (id);
create table ledger_request_default partition of ledger_request default;

-- Recorded is recorded: corrections are further transfers.
revoke update, delete, truncate
    on ledger_transfer, ledger_transfer_default, ledger_request, ledger_request_default,
       ledger_batch, ledger_code
  from current_user;
