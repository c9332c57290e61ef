-- The hosted cashier: checkouts that a customer pays on a page of ours, and the code plates on
-- counters that open one.

create table plate (
    id           uuid primary key,
    merchant_id  uuid not null,
    mode         text not null check (mode in ('live', 'sandbox')),
    -- the unguessable part of the address in the printed code; never changed, so no plate is reused
    token        text not null unique check (length(token) between 20 and 64),
    name         text not null check (length(name) between 1 and 64),
    subject      text not null check (length(subject) between 1 and 120),
    amount       bigint check (amount > 0),          -- none: the customer enters it
    currency     text not null check (currency ~ '^[A-Z]{3}$'),
    emv_text     text check (length(emv_text) between 1 and 512),
    created_at   timestamptz not null,
    revoked_at   timestamptz
);
create index plate_by_merchant on plate (merchant_id, mode, id);

create table checkout (
    book               int         not null,
    id                 uuid        not null,
    merchant_id        uuid        not null,
    mode               text        not null check (mode in ('live', 'sandbox')),
    token              text        not null check (length(token) between 20 and 64),
    plate_id           uuid,
    merchant_order_no  text        not null check (length(merchant_order_no) between 1 and 60),
    request_hash       bytea       not null check (length(request_hash) = 32),
    amount             bigint      not null check (amount > 0),
    currency           text        not null check (currency ~ '^[A-Z]{3}$'),
    subject            text        not null check (length(subject) between 1 and 120),
    channels           text[]      not null,          -- empty: every channel the merchant has
    return_url         text        check (length(return_url) between 1 and 512),
    metadata           jsonb       not null,
    -- The latest try and how many there were. One try at a time: whoever makes one raises the
    -- count from what was seen, in the commit of its payment, after the one before had ended.
    payment_id         uuid,
    tries              int         not null default 0 check (tries >= 0),
    called_off_at      timestamptz,
    created_at         timestamptz not null,
    expires_at         timestamptz not null,
    closed_at          timestamptz,                   -- when its merchant was told it ended unpaid
    primary key (book, id),
    unique (token, book),
    unique (merchant_order_no, merchant_id, mode, book),
    check ((payment_id is null) = (tries = 0)),
    check (expires_at > created_at)
);
create index checkout_of_merchant on checkout (merchant_id, mode, id);
create index checkout_by_time on checkout (merchant_id, created_at);
create index checkout_of_plate on checkout (plate_id, created_at) where plate_id is not null;
create index checkout_abandoned on checkout (expires_at)
    where payment_id is null and plate_id is not null;
