-- Freezes of an amount and with dates of their own, and transfers in batches.

-- What freezes keep in the account together; it may be more than is there (轮候冻结).
alter table e_account add column held bigint not null default 0 check (held >= 0);

-- `amount` null: everything in the direction. A freeze counts from `began_at` until it is lifted;
-- `ends_at` null: until somebody lifts it.
alter table e_account_freeze
    add column amount bigint check (amount > 0),
    add column starts_at timestamptz,
    add column ends_at timestamptz,
    add column began_at timestamptz;
update e_account_freeze set starts_at = set_at, began_at = set_at;
alter table e_account_freeze
    alter column starts_at set not null,
    add constraint e_account_freeze_amount_goes_out check (amount is null or direction = 'out'),
    add constraint e_account_freeze_dates check (ends_at is null or ends_at > starts_at);

-- Transfers that were confirmed together; each is an order of its own.
create table e_account_batch (
    book        int not null references ledger_book (book),
    id          uuid not null,
    account_id  uuid not null,
    person_id   uuid not null,
    mode        text not null check (mode in ('live', 'sandbox')),
    request_id  text not null check (length(request_id) between 1 and 64),
    digest      bytea not null check (length(digest) = 32),
    orders      int not null check (orders between 1 and 500),
    amount      bigint not null check (amount > 0),
    currency    text not null check (currency ~ '^[A-Z]{3}$'),
    run_at      timestamptz not null,
    made_at     timestamptz not null,
    primary key (book, id),
    unique (book, account_id, request_id),
    foreign key (book, account_id) references e_account (book, id)
);
alter table e_account_order add column batch_id uuid;
create index e_account_order_of_batch on e_account_order (book, batch_id, id)
    where batch_id is not null;
