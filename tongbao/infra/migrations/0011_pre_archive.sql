-- The journal by months, and what stays of a month that went to the archive. A month is one of the
-- calendar in UTC, of the real time that ids begin with.

-- Ids below this one are not taken any more: what was recorded under them may be in the archive, so
-- nobody could tell a repeat. A book without a row takes every id.
create table ledger_horizon (
    book             int not null primary key references ledger_book (book),
    archived_before  uuid not null
);

-- sealed: complete, and the horizon is behind it. archived: its rows are in a folder of files.
create table ledger_month (
    month            date not null primary key check (extract(day from month) = 1),
    state            text not null check (state in ('sealed', 'archived')),
    transfers        bigint not null check (transfers >= 0),
    requests         bigint not null check (requests >= 0),
    folder           text,
    manifest_sha256  bytea check (length(manifest_sha256) = 32),
    sealed_at        timestamptz not null,
    archived_at      timestamptz,
    check ((folder is null) = (manifest_sha256 is null)),
    check ((state = 'archived') = (archived_at is not null)),
    check (state <> 'archived' or folder is not null)
);

-- What a month has of each book. Commits that have one of its transfers or answers lie between the
-- batches.
create table ledger_month_book (
    book         int not null,
    month        date not null references ledger_month (month),
    transfers    bigint not null check (transfers >= 0),
    requests     bigint not null check (requests >= 0),
    first_seq    bigint,
    last_seq     bigint,
    first_batch  bigint,
    last_batch   bigint,
    primary key (book, month),
    check ((transfers > 0) = (first_seq is not null)),
    check ((first_seq is null) = (last_seq is null)),
    check ((first_batch is null) = (last_batch is null))
);

-- What a month did to the counters of each account it touched: with the rows of the months that
-- are still here they add up to ledger_account. A hold may end in another month than it began, so
-- the pending ones may be below zero.
create table ledger_month_account (
    book             int not null,
    month            date not null,
    account          bigint not null check (account >> 40 = book),
    debits_pending   bigint not null,
    debits_posted    bigint not null check (debits_posted >= 0),
    credits_pending  bigint not null,
    credits_posted   bigint not null check (credits_posted >= 0),
    touches          bigint not null check (touches > 0),
    last_seq         bigint not null,
    last_transfer    uuid not null,           -- the newest of the month that named it
    primary key (book, month, account),
    foreign key (book, month) references ledger_month_book (book, month)
);
revoke update, delete, truncate on ledger_month_account from current_user;

-- The month of the first start and the two after it, before a row lands in the default partition;
-- housekeeping makes the later ones ahead of time. A partition is written once: its vacuum is for
-- the map of visible pages, and freezes at once, so that nothing has to come back for it.
do $$
declare
    start date := (select date_trunc('month', created_at at time zone 'UTC') from deployment);
    month date;
    parent text;
    part text;
begin
    foreach month in array array[start, start + interval '1 month', start + interval '2 months']
    loop
        foreach parent in array array['ledger_transfer', 'ledger_request'] loop
            part := parent || to_char(month, '_YYYY_MM');
            execute format(
                'create table %I (like %I including all) with (autovacuum_freeze_min_age = 0)',
                part, parent);
            execute format('revoke update, delete, truncate on %I from current_user', part);
            execute format(
                'alter table %I attach partition %I for values from (%L) to (%L)', parent, part,
                (select (lpad(to_hex((extract(epoch from bound) * 1000)::bigint), 12, '0')
                         || repeat('0', 20))::uuid
                   from (values (month)) as b (bound)),
                (select (lpad(to_hex((extract(epoch from bound) * 1000)::bigint), 12, '0')
                         || repeat('0', 20))::uuid
                   from (values ((month + interval '1 month')::date)) as b (bound)));
        end loop;
    end loop;
end
$$;
