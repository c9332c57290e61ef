-- Several orders that a customer pays in one go. The orders are payments like any other; here is
-- what holds them together, and who may ask for an order of whom.

create table combined_payment (
    book                 int         not null,
    id                   uuid        not null,
    merchant_id          uuid        not null,
    mode                 text        not null check (mode in ('live', 'sandbox')),
    merchant_combined_no text        not null check (length(merchant_combined_no) between 1 and 64),
    request_hash         bytea       not null,
    channel              text        not null,
    account_id           uuid        not null,
    pay_mode             text        not null,
    amount               bigint      not null check (amount > 0),
    currency             text        not null check (length(currency) = 3),
    how                  jsonb,
    client_ip            text        not null,
    state                text        not null
        check (state in ('created', 'pending', 'succeeded', 'closed', 'mixed')),
    action               jsonb,
    code                 text,
    created_at           timestamptz not null,
    expires_at           timestamptz not null,
    ended_at             timestamptz,
    version              int         not null default 1,
    primary key (book, id),
    unique (merchant_combined_no, merchant_id, mode, book),
    check ((ended_at is null) = (state in ('created', 'pending')))
);
create unique index combined_payment_by_id on combined_payment (id, book);
create index combined_payment_of_merchant on combined_payment (merchant_id, mode, id);

-- The payment lies in its own merchant's book, which may be another.
create table combined_part (
    book         int  not null,
    combined_id  uuid not null,
    place        int  not null check (place >= 0),
    merchant_id  uuid not null,
    mode         text not null check (mode in ('live', 'sandbox')),
    part_book    int  not null,
    payment_id   uuid not null,
    attempt_id   uuid not null,
    primary key (book, combined_id, place),
    unique (book, combined_id, payment_id),
    foreign key (book, combined_id) references combined_payment (book, id)
);

-- A merchant lets another ask customers for its orders together with theirs.
create table combining_consent (
    book          int         not null,
    merchant_id   uuid        not null,
    mode          text        not null check (mode in ('live', 'sandbox')),
    initiator_id  uuid        not null check (initiator_id <> merchant_id),
    given_at      timestamptz not null,
    withdrawn_at  timestamptz,
    primary key (book, merchant_id, mode, initiator_id)
);
