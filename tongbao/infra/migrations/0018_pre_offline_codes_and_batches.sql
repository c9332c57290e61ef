-- Payment codes that a phone makes without network: the phones' secrets, the codes that have paid,
-- and how much a wallet may spend so. Only where there are wallets.
do $$
begin
    if (select licence from deployment where id = 1) = 'aggregator' then
        return;
    end if;

    -- An alias is never given out twice, so a row stays when its key is over.
    create table offline_key (
        book           int         not null,
        id             uuid        not null,
        wallet_id      uuid        not null,
        mode           text        not null check (mode in ('live', 'sandbox')),
        alias          text        not null check (alias ~ '^[0-9]{9}$'),
        device_name    text        not null check (length(device_name) between 1 and 64),
        secret_sealed  bytea       not null,
        state          text        not null check (state in ('active', 'locked', 'revoked')),
        misses         int         not null check (misses >= 0),
        created_at     timestamptz not null,
        expires_at     timestamptz not null,
        ended_at       timestamptz,
        primary key (book, id),
        unique (book, alias),
        foreign key (book, wallet_id) references wallet (book, id),
        check (created_at <= expires_at),
        check ((state = 'active') = (ended_at is null))
    ) with (fillfactor = 80);
    create index offline_key_by_wallet on offline_key (book, wallet_id, id);

    -- A row says that the key's code of this step has paid: there is one at most.
    create table offline_code (
        book     int         not null,
        key_id   uuid        not null,
        step     bigint      not null check (step > 0),
        used_at  timestamptz not null,
        used_by  uuid        not null,
        primary key (book, key_id, step),
        foreign key (book, key_id) references offline_key (book, id)
    );

    create table offline_allowance (
        book           int    not null,
        wallet_id      uuid   not null,
        limit_each     bigint not null check (limit_each > 0),
        limit_per_day  bigint not null check (limit_per_day > 0),
        spent_on       date   not null,
        spent          bigint not null check (spent >= 0),
        primary key (book, wallet_id),
        foreign key (book, wallet_id) references wallet (book, id),
        check (spent <= limit_per_day)
    ) with (fillfactor = 70);
end
$$;

-- The batches of accounts whose channel sends no bill: our totals, and what the channel says of
-- them. The figures are written down before the question, so that a repeat asks the same.
create table batch (
    id                  uuid        not null primary key,
    account_id          uuid        not null,
    channel             text        not null,
    mode                text        not null check (mode in ('live', 'sandbox')),
    number              int         not null check (number > 0), -- of the account, without a gap
    currency            text        not null check (currency ~ '^[A-Z]{3}$'),
    begins              timestamptz not null,
    ends                timestamptz not null,
    state               text        not null check (state in
        ('asked', 'agrees', 'differs', 'too_large')),
    debit_count         int         not null check (debit_count >= 0),
    debit_amount        bigint      not null check (debit_amount >= 0),
    credit_count        int         not null check (credit_count >= 0),
    credit_amount       bigint      not null check (credit_amount >= 0),
    their_debit_count   int,
    their_debit_amount  bigint,
    their_credit_count  int,
    their_credit_amount bigint,
    tries               int         not null check (tries >= 0),
    last_answer         text        not null, -- why there is no answer yet
    answered_at         timestamptz,
    unique (account_id, number),
    check (begins < ends),
    check ((state in ('agrees', 'differs')) = (answered_at is not null))
);
-- One batch of an account at a time is without an answer.
create unique index batch_asked on batch (account_id) where state = 'asked';
create index batch_at on batch (ends, id);

-- What was counted: a payment's or a refund's number is in one batch of its account.
create table batch_item (
    account_id uuid not null,
    number     text not null check (number <> ''),
    batch_id   uuid not null references batch (id),
    primary key (account_id, number)
);
create index batch_item_of on batch_item (batch_id);

-- A difference is found in a bill, or in a batch.
alter table recon_break drop constraint recon_break_bill_id_fkey;
