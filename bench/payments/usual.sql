-- The tables of the two services that ours is compared to, with the keys they need and no more.
create table api_key (
    id text primary key,
    merchant_id uuid not null,
    secret text not null,
    revoked boolean not null default false
);
create table merchant (
    id uuid primary key,
    state text not null,
    fee_ppm int not null
);
create table account (
    id uuid primary key,
    kind text not null,
    balance bigint not null check (kind <> 'wallet' or balance >= 0),
    daily_limit bigint not null,
    spent bigint not null default 0,
    spent_on date
) with (fillfactor = 70);
create table payment_code (
    code text primary key,
    wallet_id uuid not null,
    expires_at timestamptz not null,
    used_by uuid
) with (fillfactor = 70);
create table api_nonce (
    key_id text not null,
    nonce text not null,
    kept_until timestamptz not null,
    primary key (key_id, nonce)
);
create table idempotency_key (
    merchant_id uuid not null,
    key text not null,
    body_hash bytea not null,
    response text,
    created_at timestamptz not null,
    primary key (merchant_id, key)
);
create table payment (
    id uuid primary key,
    merchant_id uuid not null references merchant (id),
    merchant_order_no text not null,
    amount bigint not null check (amount > 0),
    currency text not null,
    subject text not null,
    state text not null,
    fee bigint not null,
    created_at timestamptz not null,
    unique (merchant_id, merchant_order_no)
);
create table attempt (
    id uuid primary key,
    payment_id uuid not null references payment (id),
    payer uuid not null,
    state text not null,
    created_at timestamptz not null
);
create table transfer (
    id uuid primary key,
    payment_id uuid not null references payment (id),
    debit_account uuid not null,
    credit_account uuid not null,
    amount bigint not null check (amount > 0),
    created_at timestamptz not null
);
create table event (
    id uuid primary key,
    type text not null,
    merchant_id uuid not null,
    body jsonb not null,
    created_at timestamptz not null,
    sent_at timestamptz
);
create index event_unsent on event (created_at) where sent_at is null;
